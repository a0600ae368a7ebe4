//! Links, addresses and routes of one network namespace, by rtnetlink.
//!
//! Knows how they are made and listed. Refuses to know what they are for.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's lists of attributes are open, and long"
)]

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Netlink;

/// The links, addresses and routes of the network namespace in which it was opened, wherever the thread goes later.
#[derive(Debug)]
pub struct Links(Netlink);

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// The network namespace where it comes to be.
    pub namespace: BorrowedFd<'a>,
}

/// Whether something is at the other end of a link: a cable is in, or radio is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Something is, or the kernel cannot tell.
    Present,
    /// Nothing is.
    Absent,
}

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether somebody took it up.
    pub up: bool,
    /// Whether something is at the other end.
    pub carrier: Carrier,
    /// Whether it is `lo`.
    pub loopback: bool,
    /// What it is by the kernel's word (`tun`, `bridge`, `veth` …); None for real hardware and `lo`.
    pub kind: Option<String>,
    /// Its MTU, bytes; 0 when the kernel does not say.
    pub mtu: u32,
    /// Whether neighbours may be behind it: it is up, its cable is in, it takes multicast, and it is no tunnel, whose other
    /// end is one machine or none that is near.
    pub is_lan: bool,
}

impl Link {
    /// Whether it is a TUN or TAP device.
    pub fn is_tun(&self) -> bool {
        self.kind.as_deref() == Some("tun")
    }
}

/// An address as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link that has it.
    pub link: u32,
    /// The address with its prefix.
    pub net: IpNet,
    /// Whether it is meant for more than this link: scope global, neither tentative nor deprecated.
    pub usable: bool,
}

/// A route as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Through whom; None on the link itself.
    pub via: Option<IpAddr>,
    /// Out of which link, if it names one.
    pub link: Option<u32>,
}

impl Route {
    /// Whether it is for whatever has no other.
    pub fn is_default(&self) -> bool {
        self.to.prefix_len() == 0
    }
}

impl Links {
    /// Opens the namespace that the calling thread is in.
    pub fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// Makes a veth pair, each end at once in its namespace.
    pub fn add_veth(&mut self, ends: [VethEnd<'_>; 2]) -> io::Result<()> {
        let [near, far] = ends.map(|end| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(end.name.to_owned()),
                LinkAttribute::NetNsFd(end.namespace.as_raw_fd()),
            ];
            message
        });
        let mut pair = near;
        pair.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.0.request(
            RouteNetlinkMessage::NewLink(pair),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Makes a bridge.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.0.request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes a link away, and with it its addresses and routes; of a veth pair both ends go.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        let message = self.named(name)?;
        self.0.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Plugs a link into a bridge.
    pub fn plug(&mut self, name: &str, bridge: &str) -> io::Result<()> {
        let bridge = self.index(bridge)?;
        self.set(name, LinkAttribute::Controller(bridge))
    }

    /// Sets the largest packet of a link.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        self.set(name, LinkAttribute::Mtu(mtu))
    }

    /// Sets how many packets wait in a link's own queue.
    pub fn set_queue(&mut self, name: &str, packets: u32) -> io::Result<()> {
        self.set(name, LinkAttribute::TxQueueLen(packets))
    }

    /// Sets how many segments one packet of a link may be cut into at most.
    pub fn set_segments(&mut self, name: &str, most: u32) -> io::Result<()> {
        self.set(name, LinkAttribute::GsoMaxSegs(most))
    }

    /// Takes a link up.
    pub fn up(&mut self, name: &str) -> io::Result<()> {
        self.switch(name, LinkFlags::Up)
    }

    /// Takes a link down: its IPv6 addresses and its routes go.
    pub fn down(&mut self, name: &str) -> io::Result<()> {
        self.switch(name, LinkFlags::empty())
    }

    /// Gives a link an address. IPv6 skips duplicate detection, which would hold the address back for a second.
    pub fn add_address(&mut self, name: &str, net: IpNet) -> io::Result<()> {
        let message = self.address(name, net)?;
        self.0.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes an address from a link.
    pub fn remove_address(&mut self, name: &str, net: IpNet) -> io::Result<()> {
        let message = self.address(name, net)?;
        self.0.request(RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Adds a route through a gateway.
    pub fn add_route(&mut self, to: IpNet, via: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.addr());
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(RouteAttribute::Destination(to.network().into()));
        message.attributes.push(RouteAttribute::Gateway(via.into()));
        self.0.request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// All links.
    pub fn list(&mut self) -> io::Result<Vec<Link>> {
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(found.into_iter().filter_map(link).collect())
    }

    /// All addresses.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let mut addresses: Vec<Address> = found.into_iter().filter_map(address).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// All unicast routes of the main table, IPv4 before IPv6.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        self.dump_routes(|header| {
            header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast
        })
    }

    /// The unicast routes of all tables, and those to addresses of this host; IPv4 before IPv6. Other overlays keep
    /// theirs in tables of their own.
    pub fn routes_of_all_tables(&mut self) -> io::Result<Vec<Route>> {
        self.dump_routes(|header| matches!(header.kind, RouteType::Unicast | RouteType::Local))
    }

    fn dump_routes(&mut self, is_meant: fn(&RouteHeader) -> bool) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let found = self.0.dump(RouteNetlinkMessage::GetRoute(message))?;
            let meant = found.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(message) if is_meant(&message.header) => {
                    route(&message)
                }
                _ => None,
            });
            routes.extend(meant);
        }
        routes.sort_unstable();
        Ok(routes)
    }

    /// The number of a link.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none of that name.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        self.list()?
            .into_iter()
            .find(|link| link.name == name)
            .map(|link| link.index)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("there is no interface {name}"),
                )
            })
    }

    fn named(&mut self, name: &str) -> io::Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        Ok(message)
    }

    fn set(&mut self, name: &str, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = self.named(name)?;
        message.attributes.push(attribute);
        self.0.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn switch(&mut self, name: &str, to: LinkFlags) -> io::Result<()> {
        let mut message = self.named(name)?;
        message.header.flags = to;
        message.header.change_mask = LinkFlags::Up;
        self.0.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn address(&mut self, name: &str, net: IpNet) -> io::Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = family(net.addr());
        message.header.prefix_len = net.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = self.index(name)?;
        message.attributes.push(AddressAttribute::Local(net.addr()));
        message
            .attributes
            .push(AddressAttribute::Address(net.addr()));
        match net {
            // Of a single address that would be itself, and the kernel would take what is sent there for a broadcast.
            IpNet::V4(net) if net.prefix_len() >= 31 => {}
            IpNet::V4(net) => message
                .attributes
                .push(AddressAttribute::Broadcast(net.broadcast())),
            IpNet::V6(_) => message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        Ok(message)
    }
}

/// Lets the network namespace of the calling thread forward packets between its links.
pub fn forward() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    match fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: flags.contains(LinkFlags::Up),
        carrier: match flags.contains(LinkFlags::Running) {
            true => Carrier::Present,
            false => Carrier::Absent,
        },
        loopback: flags.contains(LinkFlags::Loopback),
        kind: None,
        mtu: 0,
        is_lan: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let is_near = flags.contains(LinkFlags::Multicast | LinkFlags::Running)
        && !flags.intersects(LinkFlags::Loopback | LinkFlags::Pointopoint);
    link.is_lan = link.up && is_near && !link.is_tun();
    Some(link).filter(|link| !link.name.is_empty())
}

fn address(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut local = None;
    let mut remote = None;
    let mut unfit = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Flags(flags) => {
                unfit = flags.intersects(
                    AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed,
                );
            }
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        net: IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?,
        usable: message.header.scope == AddressScope::Universe && !unfit,
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut to = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut via = None;
    let mut link = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = plain(address)?,
            RouteAttribute::Gateway(address) => via = plain(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::MultiPath(hops) => link = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    Some(Route {
        to: IpNet::new(to, header.destination_prefix_length).ok()?,
        via,
        link,
    })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_listed_with_its_address() {
        let mut links = Links::open().unwrap();
        let lo = links
            .list()
            .unwrap()
            .into_iter()
            .find(|link| link.loopback)
            .unwrap();
        assert_eq!(lo.name, "lo");
        assert!(lo.mtu >= 1280 && lo.kind.is_none(), "{lo:?}");
        assert_eq!(links.index("lo").unwrap(), lo.index);
        let addresses = links.addresses().unwrap();
        let own = addresses
            .iter()
            .find(|address| address.net.addr() == IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(
            own.map(|address| (address.link, address.usable)),
            Some((lo.index, false))
        );
    }

    #[test]
    fn the_address_of_the_loopback_is_a_route_of_another_table() {
        let mut links = Links::open().unwrap();
        let is_own = |route: &Route| route.to.addr() == IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(!links.routes().unwrap().iter().any(is_own));
        assert!(links.routes_of_all_tables().unwrap().iter().any(is_own));
    }

    #[test]
    fn a_link_that_is_not_there_is_named_in_the_error() {
        let error = Links::open().unwrap().index("no-such-link").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-link"));
    }
}
