//! What the data threads read: one immutable snapshot of who is where, published whole and swapped in one step.
//!
//! Knows addresses, indexes and the seam to the names. Refuses to know records, keys and clocks. `node` makes it,
//! `datapath` reads it, at most once per batch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::ids::PeerIx;

/// Everything a data thread needs to know to carry a packet.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Grows by one with every snapshot.
    pub version: u64,
    /// This machine and its network.
    pub own: Own,
    /// Whose an IPv4 address is.
    pub peers4: HashMap<Ipv4Addr, PeerIx>,
    /// Whose an IPv6 address is.
    pub peers6: HashMap<Ipv6Addr, PeerIx>,
    /// Where a service port of ours is spliced: (protocol, service port) → the splice listener's port.
    pub splices: BTreeMap<(Transport, u16), u16>,
    /// Addresses under which this host reaches its own spliced services (design §6).
    pub own_vips: BTreeSet<IpAddr>,
    /// Answers names.
    pub names: Arc<dyn Names>,
}

impl Tables {
    /// The tables of a machine that is in no network yet: nobody has an address, and no name is answered.
    pub fn vacant() -> Self {
        let none4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32);
        let none6 = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128);
        Self {
            version: 0,
            own: Own {
                v4: None,
                v6: none6.addr(),
                resolver4: none4.addr(),
                resolver6: none6.addr(),
                pool4: none4,
                prefix6: none6,
                dns_tcp_port: 0,
            },
            peers4: HashMap::new(),
            peers6: HashMap::new(),
            splices: BTreeMap::new(),
            own_vips: BTreeSet::new(),
            names: Arc::new(Silence),
        }
    }
}

#[derive(Debug)]
struct Silence;

impl Names for Silence {
    fn answer(&self, _query: &[u8], _limit: usize, _answer: &mut Vec<u8>) -> bool {
        false
    }

    fn is_foreign(&self, _query: &[u8]) -> bool {
        false
    }
}

/// This machine's addresses, and those that mean the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// None when this peer uses IPv6 only.
    pub v4: Option<Ipv4Addr>,
    /// Always there.
    pub v6: Ipv6Addr,
    /// The resolver in the IPv4 pool.
    pub resolver4: Ipv4Addr,
    /// The resolver in the IPv6 prefix.
    pub resolver6: Ipv6Addr,
    /// All of the network's IPv4.
    pub pool4: Ipv4Net,
    /// All of the network's IPv6.
    pub prefix6: Ipv6Net,
    /// The port on this machine's mesh address where DNS over TCP is answered.
    pub dns_tcp_port: u16,
}

/// The transport protocols whose ports we rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
}

impl Transport {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Answers a DNS message; implemented over the zone by `node`.
pub trait Names: Debug + Send + Sync {
    /// Writes the answer to `query` into `answer` (cleared first), at most `limit` bytes of it, TC set where it was
    /// cut. False: say nothing (not a query).
    fn answer(&self, query: &[u8], limit: usize, answer: &mut Vec<u8>) -> bool;

    /// Whether `query` is a good question for a name that is in no zone of ours: others may be asked.
    fn is_foreign(&self, query: &[u8]) -> bool;
}

/// What becomes of a state that stands already when a good Knock or Join comes (protocol §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The initiation goes into the state that is there; one is made if there is none.
    Keep,
    /// Every state under this id is dropped and a new one made.
    Replace,
}
