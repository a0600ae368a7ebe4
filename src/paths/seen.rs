//! Where authenticated packets of a peer came from of late: what a home may say of a caller, and what a caller's claims
//! are measured by (design §9).

use std::{collections::BTreeMap, time::Duration};

use crate::{addr::Underlay, ids::PeerIx, time::Moment, wire::reaching::SEEN_MAX};

/// How long an address counts as seen (design §9).
const SEEN_FOR: Duration = Duration::from_mins(10);

/// Peers remembered: four times as many as may have a session.
const PEERS_MAX: usize = 1024;

/// The addresses of all peers.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<PeerIx, Vec<(Underlay, Moment)>>);

impl Seen {
    /// An authenticated packet of a peer came from here.
    pub fn note(&mut self, now: Moment, peer: PeerIx, address: Underlay) {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&peer) {
            self.0
                .retain(|_, seen| seen.iter().any(|(_, at)| now.since(*at) < SEEN_FOR));
            if self.0.len() >= PEERS_MAX {
                return;
            }
        }
        let seen = self.0.entry(peer).or_default();
        seen.retain(|(known, at)| *known != address && now.since(*at) < SEEN_FOR);
        seen.insert(0, (address, now));
        seen.truncate(SEEN_MAX);
    }

    /// Where a peer was seen in the last 10 minutes, the newest first.
    pub fn of(&self, now: Moment, peer: PeerIx) -> Vec<Underlay> {
        self.0
            .get(&peer)
            .into_iter()
            .flatten()
            .filter(|(_, at)| now.since(*at) < SEEN_FOR)
            .map(|(address, _)| *address)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Underlay {
        Underlay::new(([203, 0, 113, last], 41820).into())
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn the_newest_come_first_and_each_once() {
        let mut seen = Seen::default();
        seen.note(at(1), PeerIx(1), address(1));
        seen.note(at(2), PeerIx(1), address(2));
        seen.note(at(3), PeerIx(1), address(1));
        assert_eq!(seen.of(at(3), PeerIx(1)), [address(1), address(2)]);
        assert!(seen.of(at(3), PeerIx(2)).is_empty());
    }

    #[test]
    fn ten_minutes_later_an_address_counts_no_more() {
        let mut seen = Seen::default();
        seen.note(at(0), PeerIx(1), address(1));
        seen.note(at(300), PeerIx(1), address(2));
        assert_eq!(seen.of(at(599), PeerIx(1)).len(), 2);
        assert_eq!(seen.of(at(600), PeerIx(1)), [address(2)]);
    }

    #[test]
    fn addresses_and_peers_are_bounded() {
        let mut seen = Seen::default();
        for last in 0..20 {
            seen.note(at(1), PeerIx(0), address(last));
        }
        assert_eq!(seen.of(at(1), PeerIx(0)).len(), SEEN_MAX);
        for peer in 0..2000 {
            seen.note(at(2), PeerIx(peer), address(1));
        }
        assert_eq!(seen.0.len(), PEERS_MAX);
        seen.note(at(700), PeerIx(3000), address(1));
        assert_eq!(seen.of(at(700), PeerIx(3000)), [address(1)]);
    }
}
