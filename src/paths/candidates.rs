//! Under which addresses a peer may be reached, and under which we may be (design §9, protocol §5).
//!
//! An address here is a candidate, never proof: only a Pong is ([`super::proof`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::nat::{self, Nat};
use crate::{
    addr::{AddressPlan, Scope, Underlay},
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
    /// What the home router lets in to us, by its own word.
    mapped: Option<Underlay>,
    observed: BTreeMap<PeerIx, Sighting>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    published: Vec<Underlay>,
    working: Option<(Underlay, Moment)>,
    lan: Option<(Underlay, Moment)>,
}

/// What is known of the way between this machine and the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The addresses of the interfaces on the default route, with our port.
    pub interfaces: Vec<Underlay>,
    /// Where peers see us, and how many do.
    pub observed: BTreeMap<Underlay, usize>,
    /// Those of them that are no interface's and are believed.
    pub outside: Vec<Underlay>,
    /// What kind of NAT lies between.
    pub nat: Nat,
}

/// One observer's view of us.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    observer: Underlay,
    address: Underlay,
}

/// What two observers must not share to count as two: a /16 or a /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// A /16.
    V4([u8; 2]),
    /// A /32.
    V6([u8; 4]),
}

impl Prefix {
    /// That of an address.
    pub fn of(address: Underlay) -> Self {
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
            mapped: None,
            observed: BTreeMap::new(),
        }
    }

    /// The network said which addresses are its own.
    pub fn handle_plan(&mut self, plan: AddressPlan) {
        self.plan = plan;
        let interfaces = std::mem::take(&mut self.interfaces);
        self.interfaces = few(&interfaces, |address| self.is_possible(address));
        self.mapped = self.mapped.filter(|address| self.is_possible(*address));
    }

    /// The addresses of a peer's record in force, or those that came with its Knock, in place of the ones before.
    pub fn handle_published(&mut self, peer: PeerIx, addresses: &[Underlay]) {
        let usable = few(addresses, |address| self.is_usable(address));
        self.peers.entry(peer).or_default().published = usable;
    }

    /// A Pong has proven this address.
    pub fn handle_proven(&mut self, now: Now, peer: PeerIx, address: Underlay) {
        self.peers.entry(peer).or_default().working = Some((address, now.at));
    }

    /// Whether a session stood at this address so lately that the peer knows of us.
    pub fn is_proven_lately(&self, now: Now, peer: PeerIx, address: Underlay) -> bool {
        let working = self.peers.get(&peer).and_then(|known| known.working);
        working.is_some_and(|(at, since)| at == address && now.at.since(since) < LAN_FOR)
    }

    /// A Beacon of the peer came from this address.
    pub fn handle_lan(&mut self, now: Now, peer: PeerIx, address: Underlay) {
        if self.is_usable(address) {
            self.peers.entry(peer).or_default().lan = Some((address, now.at));
        }
    }

    /// The addresses of our interfaces on the default route, with our port, best first.
    pub fn handle_interfaces(&mut self, addresses: &[Underlay]) {
        self.interfaces = few(addresses, |address| self.is_possible(address));
    }

    /// The addresses of this machine's interfaces.
    pub fn interfaces(&self) -> &[Underlay] {
        &self.interfaces
    }

    /// A peer whose session is at `observer_at` sees us at `observed` (its Hello or Pong).
    pub fn handle_observed(&mut self, observer: PeerIx, observer_at: Underlay, observed: Underlay) {
        let has_room = self.observed.len() < OBSERVERS_MAX || self.observed.contains_key(&observer);
        if has_room && self.is_possible(observed) {
            let sighting = Sighting {
                observer: observer_at,
                address: observed,
            };
            self.observed.insert(observer, sighting);
        }
    }

    /// The home router lets others in to us at this address, or does so no more. It is a candidate like any other: only
    /// who was reached there knows that it is true.
    pub fn handle_mapped(&mut self, address: Option<Underlay>) {
        self.mapped = address.filter(|address| self.is_possible(*address));
    }

    /// What the home router lets in to us, by its own word.
    pub fn mapped(&self) -> Option<Underlay> {
        self.mapped
    }

    /// Where a peer sees us.
    pub fn seen_by(&self, observer: PeerIx) -> Option<Underlay> {
        Some(self.observed.get(&observer)?.address)
    }

    /// Whether others agree that this machine is elsewhere on the internet than at this address of its own, and nobody sees it
    /// there: its router was given another one.
    pub fn is_left(&self, own: Underlay) -> bool {
        let is_own = |known: &Underlay| known.ip() == own.ip();
        let is_there = self.interfaces.iter().chain(&self.mapped).any(is_own)
            || self.observed.values().any(|seen| is_own(&seen.address));
        let of_family = |known: &Underlay| known.ip().is_ipv4() == own.ip().is_ipv4();
        !is_there && self.agreed().iter().any(of_family)
    }

    /// What is known of the way between this machine and the world.
    pub fn facts(&self) -> Facts {
        let mut observed: BTreeMap<Underlay, usize> = BTreeMap::new();
        for sighting in self.observed.values() {
            *observed.entry(sighting.address).or_default() += 1;
        }
        let sightings = self
            .observed
            .values()
            .map(|sighting| (sighting.observer, sighting.address));
        Facts {
            interfaces: self.interfaces.clone(),
            nat: nat::judge(&self.interfaces, sightings),
            outside: self.agreed(),
            observed,
        }
    }

    /// The session with an observer ended: what it saw counts no more.
    pub fn handle_observer_gone(&mut self, observer: PeerIx) {
        self.observed.remove(&observer);
    }

    /// Where others say that they see this machine, each for itself: no proof that it is reached there.
    pub fn observed(&self) -> Vec<Underlay> {
        let mut seen: Vec<Underlay> = Vec::new();
        for sighting in self.observed.values() {
            if !seen.contains(&sighting.address) {
                seen.push(sighting.address);
            }
        }
        seen
    }

    /// The mesh's own addresses.
    pub fn plan(&self) -> AddressPlan {
        self.plan
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

    /// What we publish: our interfaces' addresses, then what the router lets in, then those under which others agree to see
    /// us; at most [`PUBLISHED_MAX`], of which the last places are kept for what is seen from outside.
    pub fn own(&self) -> Vec<Underlay> {
        let mut seen: Vec<Underlay> = self.mapped.into_iter().collect();
        seen.extend(
            self.agreed()
                .into_iter()
                .filter(|address| Some(*address) != self.mapped),
        );
        seen.retain(|address| !self.interfaces.contains(address));
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

    /// What we publish, as a token tells it to somebody far away: it has room for fewer.
    pub fn hints(&self) -> Vec<Underlay> {
        let mut hints = self.own();
        hints.sort_by_key(|address| Some(*address) != self.mapped);
        hints
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
                .insert(Prefix::of(sighting.observer));
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

    /// Whether an address could be another peer's socket and lies outside the mesh.
    pub fn is_usable(&self, address: Underlay) -> bool {
        address.may_be_peers() && !self.plan.contains(address.ip())
    }

    /// The same for one of this machine's own, which may listen where it likes.
    fn is_possible(&self, address: Underlay) -> bool {
        address.socket().port() != 0
            && Scope::of(address.ip()) != Scope::Nobody
            && !self.plan.contains(address.ip())
    }
}

/// The first of those that are good, each once.
fn few(addresses: &[Underlay], is_good: impl Fn(Underlay) -> bool) -> Vec<Underlay> {
    let mut few = Vec::new();
    for address in addresses.iter().copied() {
        if is_good(address) && !few.contains(&address) && few.len() < 2 * PUBLISHED_MAX {
            few.push(address);
        }
    }
    few
}
