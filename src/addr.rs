//! The two address spaces, and how the inner one is derived from keys (protocol §10).
//!
//! [`Underlay`] is what sockets dial; [`Overlay`] is what programs dial. They never share a type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    hash::{Use, hash, short},
    ids::{NetworkId, NodeId},
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

impl std::fmt::Display for Underlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
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
    /// The pool a network has unless `init --ipv4` chose another: one /16 of 100.64.0.0/10.
    pub fn default_pool4(network: NetworkId) -> Ipv4Net {
        let number = hash(Use::V4Pool, &[&network.0])[0] & 63;
        Ipv4Net::new(Ipv4Addr::new(100, 64 + number, 0, 0), 16).expect("16 is a prefix length")
    }

    /// The network's IPv6 prefix, a /48.
    pub fn prefix6(&self) -> Ipv6Net {
        Ipv6Net::new(self.address6(&[0; 10]), 48).expect("48 is a prefix length")
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
mod tests {
    use super::*;

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
