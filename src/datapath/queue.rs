//! Packets that wait for a session (design §9): 16 per peer, bounded in all, and the memory of peers found unreachable.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{ids::PeerIx, time::Moment};

/// Packets one peer's queue holds (design §9).
const PER_PEER: usize = 16;

/// Packets all queues hold: at 1,420 bytes 1.4 MB, and 64 peers that are reached for at once.
const IN_ALL: usize = 1024;

/// How long an attempt may take before another packet asks anew: attempts end at 5 s (design §9).
const ATTEMPT: Duration = Duration::from_secs(6);

/// How long a packet waits if nobody ever says what became of its attempt.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: BTreeMap<PeerIx, Line>,
    packets: usize,
}

#[derive(Debug, Default)]
struct Line {
    packets: VecDeque<Box<[u8]>>,
    asked: Option<Moment>,
    blocked: Option<Moment>,
}

/// What becomes of a packet for which no session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It waits, and it is the first: an attempt is to begin.
    First,
    /// It waits with others.
    Behind,
    /// There is no room.
    Full,
    /// The peer was found unreachable a moment ago.
    Blocked,
}

impl Waiting {
    /// Takes in a packet for a peer.
    pub(super) fn push(&mut self, now: Moment, peer: PeerIx, packet: &[u8]) -> Place {
        let line = self.lines.entry(peer).or_default();
        if line.blocked.is_some_and(|until| now < until) {
            return Place::Blocked;
        }
        if line.packets.len() >= PER_PEER || self.packets >= IN_ALL {
            return Place::Full;
        }
        line.packets.push_back(packet.into());
        self.packets += 1;
        if line.asked.is_some_and(|at| now.since(at) < ATTEMPT) {
            return Place::Behind;
        }
        line.asked = Some(now);
        Place::First
    }

    /// Takes out all that waits for a peer: its session stands, or was closed.
    pub(super) fn take(&mut self, peer: PeerIx) -> VecDeque<Box<[u8]>> {
        let Some(line) = self.lines.remove(&peer) else {
            return VecDeque::new();
        };
        self.packets -= line.packets.len();
        line.packets
    }

    /// Takes out all that waits for a peer, and takes in nothing more for it until then.
    pub(super) fn block(&mut self, peer: PeerIx, until: Moment) -> VecDeque<Box<[u8]>> {
        let packets = self.take(peer);
        self.lines.entry(peer).or_default().blocked = Some(until);
        packets
    }

    /// Takes out what nobody said anything about for too long, and forgets what is over.
    pub(super) fn poll_forgotten(&mut self, now: Moment) -> Option<VecDeque<Box<[u8]>>> {
        self.lines.retain(|_, line| {
            !line.packets.is_empty() || line.blocked.is_some_and(|until| now < until)
        });
        let peer = self.lines.iter().find_map(|(peer, line)| {
            let over = line.asked.is_some_and(|at| now.since(at) >= FORGOTTEN);
            (over && !line.packets.is_empty()).then_some(*peer)
        })?;
        Some(self.take(peer))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000_000);

    #[test]
    fn sixteen_wait_and_the_attempt_is_asked_for_once() {
        let mut waiting = Waiting::default();
        let places: Vec<_> = (0..17)
            .map(|_| waiting.push(NOW, PeerIx(1), b"x"))
            .collect();
        assert_eq!(places[0], Place::First);
        assert!(places[1..16].iter().all(|place| *place == Place::Behind));
        assert_eq!(places[16], Place::Full);
        assert_eq!(waiting.take(PeerIx(1)).len(), 16);
        assert_eq!(waiting.push(NOW, PeerIx(1), b"x"), Place::First);
    }

    #[test]
    fn the_queues_of_all_peers_are_bounded() {
        let mut waiting = Waiting::default();
        let taken = (0..5000)
            .filter(|i| waiting.push(NOW, PeerIx(i % 500), b"x") != Place::Full)
            .count();
        assert_eq!(taken, IN_ALL);
    }

    #[test]
    fn an_unreachable_peer_takes_nothing_until_its_time_is_over() {
        let mut waiting = Waiting::default();
        waiting.push(NOW, PeerIx(1), b"x");
        let until = NOW.after(Duration::from_secs(2));
        assert_eq!(waiting.block(PeerIx(1), until).len(), 1);
        assert_eq!(waiting.push(NOW, PeerIx(1), b"x"), Place::Blocked);
        assert_eq!(waiting.push(until, PeerIx(1), b"x"), Place::First);
    }

    #[test]
    fn what_nobody_cares_for_is_given_back() {
        let mut waiting = Waiting::default();
        waiting.push(NOW, PeerIx(1), b"x");
        assert_eq!(waiting.poll_forgotten(NOW), None);
        let late = NOW.after(FORGOTTEN);
        assert_eq!(waiting.poll_forgotten(late).map(|line| line.len()), Some(1));
        assert_eq!(waiting.poll_forgotten(late), None);
        assert!(waiting.is_empty());
    }
}
