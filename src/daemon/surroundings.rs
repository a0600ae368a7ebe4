//! What is around a running network: this machine's addresses and its resolver, its neighbours on the LAN, and the router.

use std::net::{IpAddr, SocketAddr};

use super::{
    forwarder::Upstreams,
    host_names::Wanted,
    ipv4_watch::conflict,
    lan::Said,
    network::Network,
    port_mapping::Finding,
    sealing::{self, BeaconPart},
};
use crate::{
    datapath::command::Command,
    dns,
    host_dns::wish::search_list,
    keys::NetSecret,
    node::{Ipv4Use, input::Input},
    platform::{clock, monitor},
    time::Now,
};

/// The links that somebody unplugged, where nothing else leads out of this machine.
pub(super) fn unplugged(device: &str) -> Vec<String> {
    monitor::unplugged(Some(device)).unwrap_or_else(|error| {
        tracing::warn!(%error, "Own links cannot be read");
        Vec::new()
    })
}

impl Network {
    /// Asks these servers for names of others from now on; None: such names are refused.
    pub(super) fn forward_to(&mut self, servers: Option<&[SocketAddr]>) {
        let own = self.tables.load().own;
        let mesh = dns::ranges(own.pool4, own.prefix6);
        let domain = self.node.domain().unwrap_or_default();
        let upstreams = servers.map(|servers| Upstreams::new(servers, &mesh, domain));
        if upstreams == self.upstreams {
            return;
        }
        self.forwarder.ask_these(upstreams.clone());
        self.data.tell(Command::Forward {
            on: upstreams.is_some(),
        });
        self.upstreams = upstreams;
    }

    /// What this network asks of the host's resolver.
    pub(super) fn wanted_names(&self, search: bool) -> Option<Wanted> {
        let own = self.tables.load().own;
        let pool4 = self.side.v4.map(|_| own.pool4);
        let domain = self.node.domain()?.to_owned();
        Some(Wanted {
            device: self.side.device.clone(),
            pool4,
            prefix6: own.prefix6,
            servers: self.node.dns_servers(),
            search: if search {
                search_list(&domain).to_vec()
            } else {
                Vec::new()
            },
            domain,
        })
    }

    /// Whether an address lies inside the mesh.
    pub(super) fn is_mesh(&self, address: IpAddr) -> bool {
        let own = self.tables.load().own;
        match address {
            IpAddr::V4(v4) => own.pool4.contains(&v4),
            IpAddr::V6(v6) => own.prefix6.contains(&v6),
        }
    }

    /// This machine was asleep.
    pub(super) fn on_woke(&mut self) {
        tracing::info!("This machine was asleep; every path is tried anew");
        self.node.handle_input(clock::now(), Input::Woke);
    }

    /// Addresses, routes or links of this machine changed.
    pub(super) fn on_addresses_changed(&mut self) {
        self.tell_addresses();
        self.ipv4.look_again();
        // A route or a server in the network's pool came or went: the device has to be made with IPv4 or without.
        let has_ipv4 = self.side.v4.is_some();
        let knew = !has_ipv4 && self.facts.ipv4_blocked.is_some();
        if has_ipv4 || knew {
            let conflict = conflict(&self.tables.load(), &self.side.device);
            self.facts.is_moved |= conflict.is_some() != knew;
        }
    }

    /// Tells the node where this machine is.
    pub(super) fn tell_addresses(&mut self) {
        match monitor::default_route_addresses(self.facts.port, Some(&self.side.device)) {
            Ok(addresses) => self
                .node
                .handle_input(clock::now(), Input::Addresses(addresses)),
            Err(error) => tracing::warn!(%error, "Own addresses cannot be read"),
        }
        if let Some(places) = self.lan.look(Some(&self.side.device)) {
            self.node.handle_input(clock::now(), Input::Places(places));
        }
    }

    /// Whether IPv4 of the mesh comes through was looked at anew.
    pub(super) fn take_ipv4_news(&mut self, now: Now) {
        let Some(trouble) = self.ipv4.news() else {
            return;
        };
        match &trouble {
            Some(why) => tracing::warn!(why.cause, "IPv4 of the network does not come through"),
            None => tracing::info!("IPv4 of the network comes through again"),
        }
        let ipv4 = match &trouble {
            Some(_) => Ipv4Use::Blocked,
            None => Ipv4Use::On,
        };
        self.facts.ipv4_blocked = trouble;
        self.node.set_ipv4(now, ipv4);
    }

    /// The router said something about a hole for us.
    pub(super) fn take_finding(&mut self, finding: &Finding) {
        if *finding == self.facts.mapping {
            return;
        }
        self.facts.mapping = finding.clone();
        let input = Input::Mapped(finding.usable());
        self.node.handle_input(clock::now(), input);
    }

    /// A neighbour said something to everybody on the LAN.
    pub(super) fn on_lan(&mut self, said: &Said) {
        let now = clock::now();
        let datagram = (said.source.into(), said.bytes.as_slice());
        match sealing::open(&mut self.node, &self.identity, now, datagram) {
            Ok(Input::Sealed { hint, body, .. }) => {
                let source = said.source;
                self.node
                    .handle_input(now, Input::Lan { source, hint, body });
            }
            Ok(_) => {}
            // Whatever else runs on this LAN has a right to its own datagrams.
            Err(silence) => self.count(silence.label_on_lan()),
        }
    }

    /// Says on every LAN that this peer is there.
    pub(super) fn say_beacon(&mut self, epoch: u32, secret: &NetSecret, stamp: u64) {
        let port = self.facts.port;
        let part = BeaconPart {
            epoch,
            secret,
            stamp,
            port,
        };
        let network = self.node.network_id().0;
        let beacon = sealing::seal_beacon(&self.identity, &network, &part);
        if !self.lan.say(&beacon) {
            self.count("beacon_unsent");
        }
    }
}
