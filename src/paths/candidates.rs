//! Under which addresses a peer may be reached, and under which we may be (design §9, protocol §5).
//!
//! An address here is a candidate, never proof: only a Pong is ([`super::proof`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    addr::{AddressPlan, Underlay},
    ids::PeerIx,
    time::{Moment, Now},
};

/// Addresses in one Peer record, each way (protocol §11): more would make the record unusable to others.
pub const PUBLISHED_MAX: usize = 4;

/// How long an address that carried a session is tried again (design §9).
const WORKING_FOR: Duration = Duration::from_hours(24);

/// How long an address heard on the LAN is tried (design §9): machines leave a LAN without a word.
const LAN_FOR: Duration = Duration::from_mins(10);

/// Observers remembered: as many as sessions may be open (design §8).
const OBSERVERS_MAX: usize = 256;

/// Candidates of all peers, and of ourselves.
#[derive(Clone, Debug)]
pub struct Candidates {
    plan: AddressPlan,
    peers: BTreeMap<PeerIx, Known>,
    interfaces: Vec<Underlay>,
    observed: BTreeMap<PeerIx, Sighting>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    published: Vec<Underlay>,
    working: Option<(Underlay, Moment)>,
    lan: Option<(Underlay, Moment)>,
}

/// One observer's view of us.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    from: Prefix,
    address: Underlay,
}

/// What two observers must not share to count as two: a /16 or a /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Prefix {
    V4([u8; 2]),
    V6([u8; 4]),
}

impl Prefix {
    fn of(address: Underlay) -> Self {
        match address.ip() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Candidates {
    /// Nothing known yet. The mesh's own addresses, in `plan`, are never candidates: a tunnel to them would run
    /// through itself.
    pub fn new(plan: AddressPlan) -> Self {
        Self {
            plan,
            peers: BTreeMap::new(),
            interfaces: Vec::new(),
            observed: BTreeMap::new(),
        }
    }

    /// The network said which addresses are its own.
    pub fn handle_plan(&mut self, plan: AddressPlan) {
        self.plan = plan;
        let interfaces = std::mem::take(&mut self.interfaces);
        self.interfaces = self.usable(&interfaces);
    }

    /// The addresses of a peer's record in force, or those that came with its Knock, in place of the ones before.
    pub fn handle_published(&mut self, peer: PeerIx, addresses: &[Underlay]) {
        let usable = self.usable(addresses);
        self.peers.entry(peer).or_default().published = usable;
    }

    /// A Pong has proven this address.
    pub fn handle_proven(&mut self, now: Now, peer: PeerIx, address: Underlay) {
        self.peers.entry(peer).or_default().working = Some((address, now.at));
    }

    /// A Beacon of the peer came from this address.
    pub fn handle_lan(&mut self, now: Now, peer: PeerIx, address: Underlay) {
        if self.is_usable(address) {
            self.peers.entry(peer).or_default().lan = Some((address, now.at));
        }
    }

    /// The addresses of our interfaces on the default route, with our port, best first.
    pub fn handle_interfaces(&mut self, addresses: &[Underlay]) {
        self.interfaces = self.usable(addresses);
    }

    /// A peer whose session is at `observer_at` sees us at `observed` (its Hello or Pong).
    pub fn handle_observed(&mut self, observer: PeerIx, observer_at: Underlay, observed: Underlay) {
        let has_room = self.observed.len() < OBSERVERS_MAX || self.observed.contains_key(&observer);
        if has_room && self.is_usable(observed) {
            let from = Prefix::of(observer_at);
            let sighting = Sighting {
                from,
                address: observed,
            };
            self.observed.insert(observer, sighting);
        }
    }

    /// The session with an observer ended: what it saw counts no more.
    pub fn handle_observer_gone(&mut self, observer: PeerIx) {
        self.observed.remove(&observer);
    }

    /// Where to try a peer now, best first: where a session last stood, the LAN, what it publishes.
    pub fn of(&self, now: Now, peer: PeerIx) -> Vec<Underlay> {
        let Some(known) = self.peers.get(&peer) else {
            return Vec::new();
        };
        let young = |entry: Option<(Underlay, Moment)>, limit| {
            entry
                .filter(|(_, since)| now.at.since(*since) < limit)
                .map(|(address, _)| address)
        };
        let mut all = Vec::new();
        let recent = [young(known.working, WORKING_FOR), young(known.lan, LAN_FOR)];
        for address in recent
            .into_iter()
            .flatten()
            .chain(known.published.iter().copied())
        {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// What we publish: our interfaces' addresses, then those under which others agree to see us; at most
    /// [`PUBLISHED_MAX`], of which the last place is kept for an observed one.
    pub fn own(&self) -> Vec<Underlay> {
        let seen = self.agreed();
        let kept_free = seen.len().min(2);
        let mut own: Vec<Underlay> = self
            .interfaces
            .iter()
            .copied()
            .take(PUBLISHED_MAX - kept_free)
            .collect();
        own.extend(seen);
        own.truncate(PUBLISHED_MAX);
        own
    }

    /// Observed addresses that differ from our interfaces' and are believed: two observers in different prefixes agree,
    /// or there is only one observer of that address family.
    fn agreed(&self) -> Vec<Underlay> {
        let outside: Vec<&Sighting> = self
            .observed
            .values()
            .filter(|sighting| !self.interfaces.contains(&sighting.address))
            .collect();
        let mut prefixes: BTreeMap<Underlay, BTreeSet<Prefix>> = BTreeMap::new();
        for sighting in &outside {
            prefixes
                .entry(sighting.address)
                .or_default()
                .insert(sighting.from);
        }
        let alone = |address: Underlay| {
            let family =
                |other: &&&Sighting| other.address.ip().is_ipv4() == address.ip().is_ipv4();
            outside.iter().filter(family).count() == 1
        };
        prefixes
            .into_iter()
            .filter(|(address, from)| from.len() >= 2 || alone(*address))
            .map(|(address, _)| address)
            .collect()
    }

    fn usable(&self, addresses: &[Underlay]) -> Vec<Underlay> {
        let mut usable = Vec::new();
        for address in addresses.iter().copied() {
            if self.is_usable(address)
                && !usable.contains(&address)
                && usable.len() < 2 * PUBLISHED_MAX
            {
                usable.push(address);
            }
        }
        usable
    }

    /// Whether an address could be another machine's socket and lies outside the mesh.
    fn is_usable(&self, address: Underlay) -> bool {
        let outside = match address.ip() {
            IpAddr::V4(v4) => {
                let pool: Ipv4Net = self.plan.pool4;
                !(pool.contains(&v4) || v4.is_broadcast() || v4.is_link_local())
            }
            IpAddr::V6(v6) => {
                let prefix: Ipv6Net = self.plan.prefix6();
                !(prefix.contains(&v6) || v6.is_unicast_link_local())
            }
        };
        let ip = address.ip();
        let is_nobody = ip.is_unspecified() || ip.is_multicast() || ip.is_loopback();
        outside && address.socket().port() != 0 && !is_nobody
    }
}
