//! Where a packet goes, by the tables alone: to a peer, to the resolver, or turned around into the own host
//! (design §6, §10; protocol §10). Nothing here has state.

use std::{
    cell::Cell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{
    ids::PeerIx,
    packet::{
        ip::{Fragment, Header, Ports, TCP, UDP},
        turn::Turn,
    },
    tables::{Tables, Transport},
};

use super::drops::DropReason;

/// The port of the resolver.
pub(super) const DNS: u16 = 53;

/// One version of the tables, with what follows from it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tables: Arc<Tables>,
    listeners: HashMap<(Transport, u16), u16>,
    /// Whose the address is that was asked for last: packets of one peer follow each other.
    last: Cell<Option<(IpAddr, PeerIx)>>,
}

/// Where a packet from the TUN goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To a peer; with this source port where it answers for a spliced service.
    Peer(PeerIx, Option<u16>),
    /// Rewritten, and back into the TUN.
    Turn(Turn),
    /// A question to the resolver.
    Query,
    /// To an address of the agent where nobody listens.
    Closed,
    /// To an address of the network that nobody has.
    Unknown,
    /// Nowhere.
    Drop(DropReason),
}

impl View {
    pub(super) fn new(tables: Arc<Tables>) -> Self {
        let listeners = tables
            .splices
            .iter()
            .map(|((transport, service), listener)| ((*transport, *listener), *service))
            .collect();
        Self {
            tables,
            listeners,
            last: Cell::new(None),
        }
    }

    /// Whether an address is this machine's own.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.tables.own.v4 == Some(v4),
            IpAddr::V6(v6) => self.tables.own.v6 == v6,
        }
    }

    /// The resolver's address in the family of `other`.
    pub(super) fn resolver(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.tables.own.resolver4.into(),
            IpAddr::V6(_) => self.tables.own.resolver6.into(),
        }
    }

    /// Where a packet from the TUN goes. Its source was judged before.
    pub(super) fn outbound(&self, header: &Header, packet: &[u8]) -> Route {
        let to = header.destination;
        if !is_one_machine(to) {
            return Route::Drop(DropReason::OutMulticast);
        }
        if to == self.resolver(to) {
            return self.to_resolver(header, packet);
        }
        if self.tables.own_vips.contains(&to) {
            return self.to_own_vip(header, packet);
        }
        if self.is_own(to) {
            return Route::Drop(DropReason::OutNoRoute);
        }
        match self.owner(to) {
            Some(peer) => Route::Peer(peer, self.service_port(header, packet)),
            None if self.is_in_network(to) => Route::Unknown,
            None => Route::Drop(DropReason::OutNoRoute),
        }
    }

    /// Whether a packet that `peer` sent may be written into the TUN, and to which port it goes there if not to its own.
    pub(super) fn inbound(
        &self,
        peer: PeerIx,
        header: &Header,
        packet: &[u8],
    ) -> Result<Option<u16>, DropReason> {
        if header.routing == crate::packet::ip::Routing::Header {
            return Err(DropReason::InRoutingHeader);
        }
        if is_martian(header.source) || self.is_own(header.source) {
            return Err(DropReason::InMartian);
        }
        if self.owner(header.source) != Some(peer) {
            return Err(DropReason::InForeignSource);
        }
        if is_martian(header.destination) || !self.is_own(header.destination) {
            return Err(DropReason::InForeignDestination);
        }
        let Some(transport) = transport(header) else {
            return Ok(None);
        };
        if header.fragment == Fragment::Later {
            return Ok(None);
        }
        let Some(ports) = header.ports(packet) else {
            return Err(DropReason::InTinyFragment);
        };
        let is_dns =
            transport == Transport::Tcp && ports.destination == self.tables.own.dns_tcp_port;
        if is_dns || self.listeners.contains_key(&(transport, ports.destination)) {
            return Err(DropReason::InListenerPort);
        }
        Ok(self
            .tables
            .splices
            .get(&(transport, ports.destination))
            .copied())
    }

    /// own:c → resolver:53 becomes resolver:c → own:L; own:L → resolver:c becomes resolver:53 → own:c.
    fn to_resolver(&self, header: &Header, packet: &[u8]) -> Route {
        let Some(ports) = header.ports(packet) else {
            return portless(header);
        };
        let listener = self.tables.own.dns_tcp_port;
        match header.protocol {
            UDP if header.fragment != Fragment::Whole => Route::Drop(DropReason::OutFragment),
            UDP if ports.destination == DNS => Route::Query,
            TCP if ports.source == listener => back(header, DNS, ports.destination),
            TCP if ports.destination == DNS => back(header, ports.source, listener),
            _ => Route::Closed,
        }
    }

    /// The same as for the resolver, for a spliced service of this host.
    fn to_own_vip(&self, header: &Header, packet: &[u8]) -> Route {
        let (Some(ports), Some(transport)) = (header.ports(packet), transport(header)) else {
            return portless(header);
        };
        if header.fragment != Fragment::Whole {
            return Route::Drop(DropReason::OutFragment);
        }
        if let Some(service) = self.listeners.get(&(transport, ports.source)) {
            return back(header, *service, ports.destination);
        }
        match self.tables.splices.get(&(transport, ports.destination)) {
            Some(listener) => back(header, ports.source, *listener),
            None => Route::Closed,
        }
    }

    /// The service's port, if the packet comes from the listener of a spliced one.
    fn service_port(&self, header: &Header, packet: &[u8]) -> Option<u16> {
        if self.listeners.is_empty() {
            return None;
        }
        let ports = header.ports(packet)?;
        self.listeners
            .get(&(transport(header)?, ports.source))
            .copied()
    }

    fn owner(&self, address: IpAddr) -> Option<PeerIx> {
        if let Some((known, peer)) = self.last.get()
            && known == address
        {
            return Some(peer);
        }
        let peer = match address {
            IpAddr::V4(v4) => self.tables.peers4.get(&v4).copied()?,
            IpAddr::V6(v6) => self.tables.peers6.get(&v6).copied()?,
        };
        self.last.set(Some((address, peer)));
        Some(peer)
    }

    fn is_in_network(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.tables.own.pool4.contains(&v4),
            IpAddr::V6(v6) => self.tables.own.prefix6.contains(&v6),
        }
    }
}

/// Source and destination change places, and the ports are these.
fn back(header: &Header, source: u16, destination: u16) -> Route {
    Route::Turn(Turn {
        source: header.destination,
        destination: header.source,
        ports: Ports {
            source,
            destination,
        },
    })
}

fn portless(header: &Header) -> Route {
    match header.fragment {
        Fragment::Later => Route::Drop(DropReason::OutFragment),
        Fragment::Whole | Fragment::First => Route::Drop(DropReason::OutRefusedPort),
    }
}

fn transport(header: &Header) -> Option<Transport> {
    match header.protocol {
        TCP => Some(Transport::Tcp),
        UDP => Some(Transport::Udp),
        _ => None,
    }
}

fn is_one_machine(address: IpAddr) -> bool {
    !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// What no packet inside the mesh may have as an address (protocol §10).
pub(super) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            matches!(first, 0 | 127 | 224..) || v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_martians_of_the_protocol_are_refused_and_their_neighbours_are_not() {
        let martians = [
            "0.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ];
        for martian in martians {
            assert!(is_martian(martian.parse().unwrap()), "{martian}");
        }
        for fine in [
            "1.0.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "223.255.255.255",
            "fd00::1",
        ] {
            assert!(!is_martian(fine.parse().unwrap()), "{fine}");
        }
    }
}
