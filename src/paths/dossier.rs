//! What came of looking for a peer, kept for people who ask why: who saw it where, where it was dialled, who was asked.
//!
//! Nothing is decided by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::nat::Nat;
use crate::{
    addr::{Path, Underlay},
    ids::PeerIx,
    time::Moment,
};

/// Peers remembered: as many as may have a session (design §8).
const PEERS_MAX: usize = 256;

/// Others whose word on one peer is remembered: as many as are called through for a standing session.
const OBSERVERS_MAX: usize = 4;

/// Addresses dialled in one attempt that are remembered.
const DIALLED_MAX: usize = 16;

/// How long a sighting counts (design §9: addresses are handed on for as long).
const SEEN_FOR: Duration = Duration::from_mins(10);

/// How long an answer by hand says that the peer is there: what it said of its addresses counts for as long.
const ANSWER_FOR: Duration = Duration::from_secs(30);

/// One file for each peer.
#[derive(Clone, Debug, Default)]
pub struct Dossiers(BTreeMap<PeerIx, Dossier>);

/// All that is remembered of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dossier {
    touched: Moment,
    seen: BTreeMap<PeerIx, (Moment, Vec<Underlay>)>,
    /// How often each address was dialled since a session stood last.
    pub dialled: BTreeMap<Underlay, u32>,
    /// Through whom it was called since then.
    pub called: BTreeSet<PeerIx>,
    /// Who of them said that they have no session with it.
    pub absent: BTreeSet<PeerIx>,
    /// When it answered by a third peer's hand.
    answered: Option<Moment>,
}

impl Dossiers {
    /// A third peer says where it saw this one, the newest first.
    pub fn note_seen(&mut self, now: Moment, peer: PeerIx, by: PeerIx, seen: &[Underlay]) {
        let dossier = self.open(now, peer);
        if dossier.seen.len() >= OBSERVERS_MAX && !dossier.seen.contains_key(&by) {
            let oldest = dossier.seen.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(observer, _)| *observer) {
                dossier.seen.remove(&oldest);
            }
        }
        dossier.seen.insert(by, (now, seen.to_vec()));
    }

    /// Knock and initiation went to these addresses.
    pub fn note_dialled(&mut self, now: Moment, peer: PeerIx, to: &[Path]) {
        let dossier = self.open(now, peer);
        for address in to.iter().filter_map(|path| path.direct()) {
            let is_known = dossier.dialled.contains_key(&address);
            if is_known || dossier.dialled.len() < DIALLED_MAX {
                *dossier.dialled.entry(address).or_default() += 1;
            }
        }
    }

    /// It was called through these.
    pub fn note_called(&mut self, now: Moment, peer: PeerIx, through: &[PeerIx]) {
        self.open(now, peer).called.extend(through);
    }

    /// A third peer has no session with it.
    pub fn note_absent(&mut self, now: Moment, peer: PeerIx, third: PeerIx) {
        self.open(now, peer).absent.insert(third);
    }

    /// It answered by a third peer's hand.
    pub fn note_answered(&mut self, now: Moment, peer: PeerIx) {
        self.open(now, peer).answered = Some(now);
    }

    /// A session with it has a path: what was tried in vain before is of no interest.
    pub fn note_up(&mut self, peer: PeerIx) {
        if let Some(dossier) = self.0.get_mut(&peer) {
            dossier.dialled.clear();
            dossier.called.clear();
            dossier.absent.clear();
            dossier.answered = None;
        }
    }

    /// What is remembered of a peer.
    pub fn of(&self, peer: PeerIx) -> Dossier {
        self.0.get(&peer).cloned().unwrap_or_default()
    }

    fn open(&mut self, now: Moment, peer: PeerIx) -> &mut Dossier {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&peer) {
            let oldest = self.0.iter().min_by_key(|(_, dossier)| dossier.touched);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.0.remove(&oldest);
            }
        }
        let dossier = self.0.entry(peer).or_default();
        dossier.touched = now;
        dossier
    }
}

impl Dossier {
    /// Where it was seen of late, and by whom.
    pub fn seen(&self, now: Moment) -> BTreeMap<Underlay, Vec<PeerIx>> {
        let mut seen: BTreeMap<Underlay, Vec<PeerIx>> = BTreeMap::new();
        for (observer, addresses) in self.sightings(now) {
            for address in addresses {
                seen.entry(*address).or_default().push(observer);
            }
        }
        seen
    }

    /// What its NAT does to IPv4, if two have seen it there: the newest that each saw.
    pub fn nat(&self, now: Moment) -> Nat {
        let newest = |addresses: &[Underlay]| {
            let is_outside = |address: &&Underlay| address.ip().is_ipv4() && address.is_public();
            addresses.iter().find(is_outside).copied()
        };
        let seen: Vec<Underlay> = self
            .sightings(now)
            .filter_map(|(_, addresses)| newest(addresses))
            .collect();
        match seen.as_slice() {
            [] | [_] => Nat::Unknown,
            [first, others @ ..] if others.iter().all(|other| other == first) => Nat::Easy,
            _ => Nat::Hard,
        }
    }

    /// Whether it answered by a third peer's hand a moment ago: it is there.
    pub fn has_answered(&self, now: Moment) -> bool {
        self.answered.is_some_and(|at| now.since(at) < ANSWER_FOR)
    }

    fn sightings(&self, now: Moment) -> impl Iterator<Item = (PeerIx, &[Underlay])> {
        self.seen
            .iter()
            .filter(move |(_, (at, _))| now.since(*at) < SEEN_FOR)
            .map(|(observer, (_, addresses))| (*observer, addresses.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    const NAS: PeerIx = PeerIx(1);

    #[test]
    fn what_two_others_saw_tells_the_nat() {
        let mut dossiers = Dossiers::default();
        let (one, other) = (address("198.51.100.4:50213"), address("198.51.100.4:50900"));
        dossiers.note_seen(at(0), NAS, PeerIx(2), &[one]);
        assert_eq!(dossiers.of(NAS).nat(at(1)), Nat::Unknown);
        dossiers.note_seen(at(1), NAS, PeerIx(3), &[other, one]);
        assert_eq!(dossiers.of(NAS).nat(at(2)), Nat::Hard);
        let seen = dossiers.of(NAS).seen(at(2));
        assert_eq!(seen[&one], [PeerIx(2), PeerIx(3)]);
        dossiers.note_seen(at(2), NAS, PeerIx(3), &[one]);
        assert_eq!(dossiers.of(NAS).nat(at(3)), Nat::Easy);
        assert_eq!(dossiers.of(NAS).nat(at(700)), Nat::Unknown, "long ago");
    }

    #[test]
    fn a_path_ends_the_tale_of_what_was_tried_in_vain() {
        let mut dossiers = Dossiers::default();
        let at_home = address("192.168.1.7:41820");
        for second in 0..3 {
            dossiers.note_dialled(at(second), NAS, &[Path::Direct(at_home)]);
        }
        dossiers.note_called(at(3), NAS, &[PeerIx(2)]);
        dossiers.note_absent(at(3), NAS, PeerIx(2));
        let dossier = dossiers.of(NAS);
        assert_eq!(dossier.dialled[&at_home], 3);
        assert_eq!((dossier.called.len(), dossier.absent.len()), (1, 1));
        dossiers.note_up(NAS);
        assert!(dossiers.of(NAS).dialled.is_empty() && dossiers.of(NAS).called.is_empty());
    }

    #[test]
    fn an_answer_by_hand_is_believed_for_a_moment() {
        let mut dossiers = Dossiers::default();
        dossiers.note_answered(at(0), NAS);
        assert!(dossiers.of(NAS).has_answered(at(29)));
        assert!(!dossiers.of(NAS).has_answered(at(30)));
        dossiers.note_answered(at(31), NAS);
        dossiers.note_up(NAS);
        assert!(!dossiers.of(NAS).has_answered(at(31)));
    }

    #[test]
    fn it_is_bounded() {
        let mut dossiers = Dossiers::default();
        for peer in 0..1000 {
            dossiers.note_called(at(u64::from(peer)), PeerIx(peer), &[NAS]);
        }
        assert_eq!(dossiers.0.len(), PEERS_MAX);
        assert!(dossiers.of(PeerIx(0)).called.is_empty(), "the oldest goes");
        for port in 1..100 {
            let to = Path::Direct(address(&format!("192.168.1.7:{port}")));
            dossiers.note_dialled(at(2000), NAS, &[to]);
            dossiers.note_seen(at(2000), NAS, PeerIx(port), &[]);
        }
        assert_eq!(dossiers.of(NAS).dialled.len(), DIALLED_MAX);
        assert_eq!(dossiers.of(NAS).seen.len(), OBSERVERS_MAX);
    }
}
