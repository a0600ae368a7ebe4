//! The two address spaces, and how the inner one is derived from keys (protocol §10).
//!
//! [`Underlay`] is what sockets dial; [`Overlay`] is what programs dial. They never share a type. A [`Path`] is where a
//! datagram goes, which need not be a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    hash::{Use, hash, short},
    ids::{HandIx, LegIx, NetworkId, NodeId, StreamIx},
};

/// An address on the network that carries the mesh: what sockets dial. Never v4-mapped: [`Underlay::new`] unmaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Underlay(SocketAddr);

impl Underlay {
    /// Takes a socket address; a v4-mapped v6 address becomes the v4 address it stands for.
    pub fn new(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The plain socket address.
    pub fn socket(self) -> SocketAddr {
        self.0
    }

    /// The address without its port.
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }
}

/// Where an address means the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nowhere: it is no other machine's, or only a link can tell whose it is.
    Nobody,
    /// In one place: private, shared (RFC 6598), unique local.
    Place,
    /// Everywhere.
    World,
}

impl Scope {
    /// That of an address. The one rule for what peers may be told, and may tell, of where they are.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                let is_reserved = a == 0 || a >= 224;
                if is_reserved || v4.is_loopback() || v4.is_link_local() {
                    Self::Nobody
                } else if v4.is_private() || (a == 100 && (64..128).contains(&b)) {
                    Self::Place
                } else {
                    Self::World
                }
            }
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Place,
            IpAddr::V6(v6) => match v6.segments() {
                // Teredo and 6to4: any IPv4 address could hide in one.
                [0x2001, 0, ..] | [0x2002, ..] => Self::Nobody,
                [0x2000..=0x3fff, ..] => Self::World,
                _ => Self::Nobody,
            },
        }
    }
}

/// The one port below 1024 at which a peer may be.
const TLS: u16 = 443;

/// Whether a peer may be at this port.
pub fn is_peers_port(port: u16) -> bool {
    port >= 1024 || port == TLS
}

impl Underlay {
    /// Whether it could be the socket of a peer elsewhere: nobody may be made to write to a machine's other services
    /// (review-security S10).
    pub fn may_be_peers(self) -> bool {
        is_peers_port(self.0.port()) && Scope::of(self.ip()) != Scope::Nobody
    }

    /// Whether it means the same machine everywhere: no private, shared (RFC 6598), local or unspecified address.
    pub fn is_public(self) -> bool {
        Scope::of(self.ip()) == Scope::World
    }
}

impl std::fmt::Display for Underlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a datagram between two peers goes, or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Straight to the other's socket.
    Direct(Underlay),
    /// Through a relay.
    Relay(LegIx),
    /// On a TLS stream.
    Stream(StreamIx),
    /// As a control message of a third peer: handshakes only, never data.
    Handed(HandIx),
}

impl Path {
    /// The socket it leads to; none where something lies between.
    pub fn direct(self) -> Option<Underlay> {
        match self {
            Self::Direct(address) => Some(address),
            Self::Relay(_) | Self::Stream(_) | Self::Handed(_) => None,
        }
    }

    /// Whether data may go there: a path by hand carries handshakes alone.
    pub fn carries_data(self) -> bool {
        !matches!(self, Self::Handed(_))
    }

    /// By what its sender is metered. What does not come from a socket gets an address of its own in the discard prefix
    /// 100::/64 (RFC 6666), so that those behind one relay do not use up each other's share.
    pub fn meter_ip(self) -> IpAddr {
        let (kind, number) = match self {
            Self::Direct(address) => return address.ip(),
            Self::Relay(LegIx(number)) => (1, number),
            Self::Stream(StreamIx(number)) => (2, number),
            Self::Handed(HandIx(number)) => (3, number),
        };
        let bits = (0x0100_u128 << 112) | (kind << 96) | (u128::from(number) << 64);
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

impl From<Underlay> for Path {
    fn from(address: Underlay) -> Self {
        Self::Direct(address)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Relay(LegIx(number)) => write!(f, "relay leg {number}"),
            Self::Stream(StreamIx(number)) => write!(f, "stream {number}"),
            Self::Handed(HandIx(number)) => write!(f, "by hand {number}"),
        }
    }
}

/// An address inside the mesh: what programs dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Overlay(pub IpAddr);

/// The addresses of one network: its IPv6 prefix, which follows from its id, and its IPv4 pool, which its root chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// Which network.
    pub network: NetworkId,
    /// The IPv4 pool, /8 to /23.
    pub pool4: Ipv4Net,
}

impl AddressPlan {
    /// The plan of a network that has its default pool.
    pub fn of(network: NetworkId) -> Self {
        let pool4 = Self::default_pool4(network);
        Self { network, pool4 }
    }

    /// The pool a network has unless `init --ipv4` chose another: one /16 of 100.64.0.0/10.
    pub fn default_pool4(network: NetworkId) -> Ipv4Net {
        let number = hash(Use::V4Pool, &[&network.0])[0] & 63;
        Ipv4Net::new(Ipv4Addr::new(100, 64 + number, 0, 0), 16).expect("16 is a prefix length")
    }

    /// The network's IPv6 prefix, a /48.
    pub fn prefix6(&self) -> Ipv6Net {
        Ipv6Net::new(self.address6(&[0; 10]), 48).expect("48 is a prefix length")
    }

    /// Whether an address is the mesh's own: a tunnel to it would run through itself.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => self.pool4.contains(&v4),
            IpAddr::V6(v6) => self.prefix6().contains(&v6),
        }
    }

    /// A peer's IPv6 address.
    pub fn peer6(&self, node: NodeId) -> Ipv6Addr {
        let mut tail: [u8; 10] = short(Use::V6Peer, &[&self.network.0, &node.0]);
        tail[0] |= 0x80;
        self.address6(&tail)
    }

    /// The resolver's IPv6 address (class 0, …0053).
    pub fn resolver6(&self) -> Ipv6Addr {
        self.address6(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53])
    }

    /// A service's IPv6 address (class 1); `subset` is empty for the whole service.
    pub fn service6(&self, name: &str, subset: &str) -> Ipv6Addr {
        let len = |text: &str| [u8::try_from(text.len()).expect("labels have at most 63 letters")];
        let tail: [u8; 8] = short(
            Use::V6Service,
            &[
                &self.network.0,
                &len(name),
                name.as_bytes(),
                &len(subset),
                subset.as_bytes(),
            ],
        );
        let mut whole = [0; 10];
        whole[1] = 1;
        whole[2..].copy_from_slice(&tail);
        self.address6(&whole)
    }

    /// The resolver's IPv4 address: the pool's last address − 202 (x.y.255.53 in a /16).
    pub fn resolver4(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pool4.broadcast().to_bits() - 202)
    }

    /// The IPv4 address at an offset into the pool; the caller sees to it that the offset lies in the pool.
    pub fn at4(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pool4.network().to_bits().wrapping_add(offset))
    }

    /// How many addresses the pool has in its lower half, which is the peers'.
    pub fn half4(&self) -> u32 {
        1 << (31 - u32::from(self.pool4.prefix_len()))
    }

    /// The `i`-th choice of offset for a peer's IPv4 address (protocol §10).
    pub fn offset4(&self, node: NodeId, i: u8) -> u32 {
        let bytes: [u8; 4] = short(Use::V4, &[&self.network.0, &node.0, &[i]]);
        1 + u32::from_le_bytes(bytes) % (self.half4() - 2)
    }

    fn address6(&self, tail: &[u8; 10]) -> Ipv6Addr {
        let prefix: [u8; 5] = short(Use::V6Network, &[&self.network.0]);
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&prefix);
        octets[6..].copy_from_slice(tail);
        Ipv6Addr::from(octets)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What nobody may be aimed at, for the tests of every room that takes addresses from others.
    pub(crate) const NOBODY: [&str; 48] = [
        "127.0.0.1:5000",
        "127.0.0.1:41820",
        "127.0.0.53:5353",
        "127.1.2.3:5000",
        "127.255.255.255:5000",
        "0.0.0.0:5000",
        "0.0.0.0:41820",
        "0.1.2.3:5000",
        "169.254.0.1:5000",
        "169.254.1.2:41820",
        "169.254.169.254:5000",
        "224.0.0.1:5000",
        "224.0.0.251:5353",
        "239.255.255.250:1900",
        "240.0.0.1:5000",
        "254.1.2.3:5000",
        "255.255.255.255:5000",
        "203.0.113.30:0",
        "[::]:5000",
        "[::1]:5000",
        "[::1]:41820",
        "[::2]:5000",
        "[::127.0.0.1]:5000",
        "[::169.254.169.254]:5000",
        "[::203.0.113.30]:5000",
        "[::ffff:127.0.0.1]:5000",
        "[::ffff:0.0.0.0]:5000",
        "[::ffff:169.254.169.254]:5000",
        "[::ffff:224.0.0.1]:5000",
        "[::ffff:255.255.255.255]:5000",
        "[64:ff9b::127.0.0.1]:5000",
        "[64:ff9b::169.254.169.254]:5000",
        "[64:ff9b::10.0.0.1]:5000",
        "[64:ff9b::0.0.0.0]:5000",
        "[64:ff9b:1::7f00:1]:5000",
        "[2002:7f00:1::1]:5000",
        "[2002:a9fe:a9fe::1]:5000",
        "[2002:c0a8:101::1]:5000",
        "[2001:0:cb00:7109::1]:5000",
        "[fe80::1]:5000",
        "[fe80::1]:41820",
        "[febf::1]:5000",
        "[fec0::1]:5000",
        "[ff01::1]:5000",
        "[ff02::1]:5000",
        "[ff05::2]:5000",
        "[ff0e::101]:5000",
        "[100::1]:5000",
    ];

    fn plan(pool4: &str) -> AddressPlan {
        AddressPlan {
            network: NetworkId([7; 32]),
            pool4: pool4.parse().unwrap(),
        }
    }

    #[test]
    fn a_v4_mapped_address_is_the_v4_address() {
        let mapped = Underlay::new("[::ffff:192.0.2.1]:5".parse().unwrap());
        assert_eq!(mapped, Underlay::new("192.0.2.1:5".parse().unwrap()));
    }

    #[test]
    fn a_public_address_means_the_same_everywhere() {
        let public = |text: &str| Underlay::new(text.parse().unwrap()).is_public();
        for yes in ["203.0.113.9:1", "100.63.1.1:1", "[2001:db8::1]:1"] {
            assert!(public(yes), "{yes}");
        }
        for no in [
            "10.0.0.1:1",
            "192.168.1.1:1",
            "172.16.0.1:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
            "127.0.0.1:1",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "[fd00::1]:1",
            "[fe80::1]:1",
            "[::1]:1",
        ] {
            assert!(!public(no), "{no}");
        }
    }

    #[test]
    fn a_peer_may_be_at_a_port_of_its_own_and_nowhere_that_is_nobodys() {
        let may = |text: &str| Underlay::new(text.parse().unwrap()).may_be_peers();
        for yes in [
            "203.0.113.9:1024",
            "203.0.113.9:443",
            "192.168.1.1:41820",
            "100.64.0.1:41820",
            "[2001:db8::1]:41820",
            "[fd00::1]:41820",
        ] {
            assert!(may(yes), "{yes}");
        }
        let services = ["203.0.113.9:53", "203.0.113.9:1023", "[2001:db8::1]:22"];
        for no in NOBODY.iter().chain(&services) {
            assert!(!may(no), "{no}");
        }
    }

    #[test]
    fn each_relay_stream_and_hand_is_metered_by_itself_and_none_as_an_address_that_is_in_use() {
        let paths = [
            Path::Relay(LegIx(1)),
            Path::Relay(LegIx(2)),
            Path::Stream(StreamIx(1)),
            Path::Handed(HandIx(1)),
        ];
        let mut prefixes: Vec<u128> = paths
            .map(|path| match path.meter_ip() {
                IpAddr::V6(v6) => v6.to_bits() >> 64,
                IpAddr::V4(v4) => panic!("{v4}"),
            })
            .into();
        assert!(prefixes.iter().all(|prefix| prefix >> 48 == 0x0100));
        prefixes.dedup();
        assert_eq!(prefixes.len(), paths.len());
    }

    #[test]
    fn a_peer_and_a_service_never_share_an_address() {
        let plan = plan("100.64.0.0/16");
        let peer = plan.peer6(NodeId([1; 32]));
        let service = plan.service6("web", "");
        assert_eq!(peer.octets()[6] & 0x80, 0x80);
        assert_eq!(service.octets()[6..8], [0, 1]);
        assert!(plan.prefix6().contains(&peer) && plan.prefix6().contains(&service));
        assert_eq!(
            (
                plan.prefix6().addr().octets()[0],
                plan.prefix6().prefix_len()
            ),
            (0xfd, 48)
        );
    }

    #[test]
    fn a_name_and_a_subset_do_not_run_into_each_other() {
        let plan = plan("100.64.0.0/16");
        assert_ne!(plan.service6("ab", "c"), plan.service6("a", "bc"));
        assert_ne!(plan.service6("ab", ""), plan.service6("a", "b"));
    }

    #[test]
    fn the_resolver_is_at_53_of_the_pools_last_row() {
        assert_eq!(
            plan("100.77.0.0/16").resolver4().to_string(),
            "100.77.255.53"
        );
        assert_eq!(plan("10.0.0.0/8").resolver4().to_string(), "10.255.255.53");
        assert_eq!(plan("10.0.0.0/23").resolver4().to_string(), "10.0.1.53");
        assert!(plan("10.0.0.0/8").resolver6().to_string().ends_with("::53"));
    }

    #[test]
    fn a_peers_offset_is_in_the_lower_half_and_neither_end_of_it() {
        for pool in ["10.0.0.0/8", "100.64.0.0/16", "10.0.0.0/23"] {
            let plan = plan(pool);
            for i in 0..=255 {
                let offset = plan.offset4(NodeId([i; 32]), i);
                assert!((1..plan.half4() - 1).contains(&offset), "{pool}: {offset}");
                assert!(plan.pool4.contains(&plan.at4(offset)));
            }
        }
        assert_eq!(plan("100.64.0.0/16").half4(), 32768);
    }

    #[test]
    fn the_default_pool_is_a_16_of_100_64_10() {
        let whole: Ipv4Net = "100.64.0.0/10".parse().unwrap();
        for byte in 0..=255 {
            let pool = AddressPlan::default_pool4(NetworkId([byte; 32]));
            assert!(whole.contains(&pool) && pool.prefix_len() == 16, "{pool}");
        }
    }
}
