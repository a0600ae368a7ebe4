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

    /// The IPv4 address at an offset into the pool.
    pub fn at4(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pool4.network().to_bits() + offset)
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
