//! When this machine's addresses, routes and firewall change, and under which addresses others may reach it.
//!
//! Knows rtnetlink's news and the default routes. Refuses to know who is told of them.
#![expect(
    unsafe_code,
    reason = "tokio registers a descriptor on our word that it stays the same"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use ipnet::IpNet;
use netlink_sys::{
    Socket, SocketAddr as NetlinkAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use tokio::io::unix::AsyncFd;

use super::link::{Address, Carrier, Link, Links, Route};
use crate::addr::Underlay;

/// Tells that links, addresses or routes of this network namespace changed, or its nf_tables.
#[derive(Debug)]
pub struct Monitor(AsyncFd<News>);

impl Monitor {
    /// Starts listening for links, addresses and routes. Changes from here on are told.
    ///
    /// # Panics
    /// Outside a tokio runtime with its IO driver.
    pub fn open() -> io::Result<Self> {
        Self::of(News::open(NETLINK_ROUTE, &ROUTE_GROUPS)?)
    }

    /// Starts listening for nf_tables. Rules of the older iptables change in silence.
    ///
    /// # Panics
    /// Outside a tokio runtime with its IO driver.
    pub fn firewall() -> io::Result<Self> {
        Self::of(News::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])?)
    }

    fn of(news: News) -> io::Result<Self> {
        // SAFETY: `News` owns its socket, gives the same descriptor as long as it lives, and is not changed inside the
        // `AsyncFd`.
        let registered = unsafe { AsyncFd::register(news) };
        registered.map(Self).map_err(io::Error::from)
    }

    /// Waits for the next change. Several that came together are told once.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            match guard.try_io(|news| news.get_ref().drain()) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// The addresses under which others may dial this machine, with `port` added: those of the interfaces that have a
/// default route, or of all that are up where there is none. Never the loopback's, link-local ones, or those of `tun`.
pub fn default_route_addresses(port: u16, tun: Option<&str>) -> io::Result<Vec<Underlay>> {
    let mut links = Links::open()?;
    let candidates: Vec<Link> = links
        .list()?
        .into_iter()
        .filter(|link| link.up && !link.loopback && Some(link.name.as_str()) != tun)
        .collect();
    let leading: Vec<u32> = links
        .routes()?
        .into_iter()
        .filter(Route::is_default)
        .filter_map(|route| route.link)
        .filter(|index| candidates.iter().any(|link| link.index == *index))
        .collect();
    let wanted = |index: u32| match leading.as_slice() {
        [] => candidates.iter().any(|link| link.index == index),
        some => some.contains(&index),
    };
    let mut addresses: Vec<Underlay> = links
        .addresses()?
        .into_iter()
        .filter(|address| address.usable && wanted(address.link) && is_dialable(address.net.addr()))
        .map(|address| Underlay::new(SocketAddr::new(address.net.addr(), port)))
        .collect();
    addresses.dedup();
    Ok(addresses)
}

/// The links without a carrier, where no other link has an address to leave this machine by: somebody pulled the cable, or
/// radio is off. The addresses may be there still. Links of `tun` and other tunnels do not count.
pub fn unplugged(tun: Option<&str>) -> io::Result<Vec<String>> {
    let mut links = Links::open()?;
    Ok(without_carrier(
        &links.list()?,
        &links.addresses()?,
        &links.routes()?,
        tun,
    ))
}

fn without_carrier(
    links: &[Link],
    addresses: &[Address],
    routes: &[Route],
    tun: Option<&str>,
) -> Vec<String> {
    let leads = |link: &Link| {
        let mut leading = routes.iter().filter(|route| route.is_default());
        leading.any(|route| route.link == Some(link.index))
    };
    let is_outward = |link: &&Link| {
        let is_ours = link.is_tun() || Some(link.name.as_str()) == tun;
        link.up && !link.loopback && !is_ours && (leads(link) || !is_inner(link))
    };
    let outward: Vec<&Link> = links.iter().filter(is_outward).collect();
    let is_way = |link: &&Link| {
        let mut own = addresses.iter().filter(|one| one.link == link.index);
        link.carrier == Carrier::Present && own.any(|one| one.usable && is_dialable(one.net.addr()))
    };
    if outward.iter().any(is_way) {
        return Vec::new();
    }
    let has_leading = outward.iter().any(|link| leads(link));
    let counted = outward.iter().filter(|link| !has_leading || leads(link));
    let dark = counted.filter(|link| link.carrier == Carrier::Absent);
    dark.map(|link| link.name.clone()).collect()
}

/// Whether a link leads to what is on this machine, or into a tunnel of others, as long as nothing goes there by default.
fn is_inner(link: &Link) -> bool {
    const KINDS: [&str; 5] = ["bridge", "dummy", "ifb", "vxlan", "wireguard"];
    let kind = link.kind.as_deref();
    kind.is_some_and(|kind| KINDS.contains(&kind))
}

/// The router that IPv4 goes through by default, and this machine's address towards it. Routes of `tun` do not count.
pub fn default_gateway4(tun: Option<&str>) -> io::Result<Option<(Ipv4Addr, Ipv4Addr)>> {
    let mut links = Links::open()?;
    let is_tun = |link: &Link| Some(link.name.as_str()) == tun || link.is_tun();
    let others: Vec<u32> = links
        .list()?
        .into_iter()
        .filter(|link| link.up && !is_tun(link))
        .map(|link| link.index)
        .collect();
    let addresses = links.addresses()?;
    // Whoever has two routers has one address in the LAN of each.
    let own_beside = |gateway: Ipv4Addr, link: u32| {
        addresses.iter().find_map(|address| match address.net {
            IpNet::V4(net) if address.link == link && net.contains(&gateway) => Some(net.addr()),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
    };
    let leading = links.routes()?.into_iter().find_map(|route| {
        let IpAddr::V4(gateway) = route.via.filter(|_| route.is_default())? else {
            return None;
        };
        let link = route.link.filter(|link| others.contains(link))?;
        Some((gateway, own_beside(gateway, link)?))
    });
    Ok(leading)
}

fn is_dialable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback() && !ip.is_unspecified(),
    }
}

/// Links, and addresses and routes of both families.
const ROUTE_GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// The multicast group of nf_tables: include/uapi/linux/netfilter/nfnetlink.h.
const NFNLGRP_NFTABLES: u32 = 7;

/// A non-blocking socket in multicast groups.
#[derive(Debug)]
struct News(Socket);

impl News {
    fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&NetlinkAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self(socket))
    }

    /// Empties the socket; what it said is looked up anew by whoever asks. Fails with `WouldBlock` when it was empty.
    fn drain(&self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut outcome = Err(io::ErrorKind::WouldBlock.into());
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => outcome = Ok(()),
                // News were lost, which is news.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => outcome = Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return outcome,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for News {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_loopback_addresses_are_never_dialable() {
        let dialable = |text: &str| is_dialable(text.parse().unwrap());
        assert!(dialable("192.168.1.2") && dialable("2001:db8::1") && dialable("fd00::2"));
        assert!(
            !dialable("169.254.1.1")
                && !dialable("fe80::1")
                && !dialable("127.0.0.1")
                && !dialable("::1")
        );
    }

    fn link(index: u32, name: &str, carrier: Carrier) -> Link {
        Link {
            index,
            name: name.to_owned(),
            up: true,
            carrier,
            loopback: name == "lo",
            kind: None,
            mtu: 1500,
            is_lan: carrier == Carrier::Present,
        }
    }

    fn address(link: u32, net: &str) -> Address {
        Address {
            link,
            net: net.parse().unwrap(),
            usable: true,
        }
    }

    #[test]
    fn a_pulled_cable_is_named_though_the_address_stays_and_another_way_counts() {
        let home = address(2, "192.168.1.7/24");
        let radio = address(3, "192.168.9.7/24");
        let lo = link(1, "lo", Carrier::Present);
        let leading = Route {
            to: "0.0.0.0/0".parse().unwrap(),
            via: Some("192.168.1.1".parse().unwrap()),
            link: Some(2),
        };
        let found = |links: &[Link], addresses: &[Address], routes: &[Route]| {
            without_carrier(links, addresses, routes, Some("wm0"))
        };
        let plugged = [lo.clone(), link(2, "eth0", Carrier::Present)];
        assert!(found(&plugged, &[home], &[leading]).is_empty());
        let pulled = [
            lo.clone(),
            link(2, "eth0", Carrier::Absent),
            link(4, "wm0", Carrier::Present),
        ];
        let mesh = address(4, "100.71.0.1/32");
        assert_eq!(found(&pulled, &[home, mesh], &[leading]), ["eth0"]);
        assert_eq!(found(&pulled, &[mesh], &[]), ["eth0"]);
        let both = [
            lo,
            link(2, "eth0", Carrier::Absent),
            link(3, "wlan0", Carrier::Present),
        ];
        assert!(found(&both, &[radio], &[]).is_empty());
        assert!(found(&both, &[home, radio], &[leading]).is_empty());
    }

    #[test]
    fn what_is_on_this_machine_is_no_way_out_of_it() {
        let inner = |index, name, kind: &str, carrier| Link {
            kind: Some(kind.to_owned()),
            ..link(index, name, carrier)
        };
        let links = [
            link(2, "eth0", Carrier::Absent),
            inner(5, "docker0", "bridge", Carrier::Present),
            inner(6, "virbr0", "bridge", Carrier::Absent),
            inner(7, "wg0", "wireguard", Carrier::Present),
        ];
        let addresses = [address(5, "172.17.0.1/16"), address(7, "10.9.0.1/24")];
        assert_eq!(without_carrier(&links, &addresses, &[], None), ["eth0"]);
        // A bridge of virtual machines may be what the host itself goes by.
        let by_bridge = Route {
            to: "0.0.0.0/0".parse().unwrap(),
            via: None,
            link: Some(5),
        };
        assert!(without_carrier(&links, &addresses, &[by_bridge], None).is_empty());
    }

    #[test]
    fn every_address_told_carries_the_port_asked_for() {
        for address in default_route_addresses(41820, None).unwrap() {
            assert_eq!(address.socket().port(), 41820);
        }
    }
}
