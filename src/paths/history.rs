//! The flight recorder: by which way each peer was reached in the last 24 hours, for people who ask later (`why --at`).
//!
//! Kept in memory alone, so it begins when the agent does. It costs 80 bytes for each change, at most [`IN_ALL`] changes:
//! 640 KiB. What changes often cannot crowd the others out: a peer has [`OF_ONE`] places.

use std::{collections::VecDeque, time::Duration};

use super::{class::Class, why::Cause};
use crate::{addr::Underlay, ids::PeerIx, time::Now};

/// How long a change is remembered.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Changes of all peers.
const IN_ALL: usize = 8192;

/// Changes of one peer: a path that changes every 5 minutes is followed for a whole day.
const OF_ONE: usize = 288;

/// By which way a peer was reached, or that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Its data went this way.
    Path {
        /// What kind.
        class: Class,
        /// To which socket, if the path is direct.
        endpoint: Option<Underlay>,
        /// Through whom, the nearest first.
        relays: [Option<PeerIx>; 2],
    },
    /// No session stood: nobody talked, or the peer left.
    Closed,
    /// A program wanted it, and it was not reached.
    Unreached,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, by the wall clock, unix ms.
    pub at_ms: u64,
    /// Whose way.
    pub peer: PeerIx,
    /// Which way it is from then on.
    pub way: Way,
    /// Why no better one was found, once that is known.
    pub cause: Option<Cause>,
}

/// All changes of the last day, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Change>);

impl History {
    /// A peer is reached this way from now on. Said again of the same way, it changes nothing.
    pub fn note(&mut self, now: Now, peer: PeerIx, way: Way) {
        if self
            .of(peer)
            .next_back()
            .is_some_and(|last| last.way == way)
        {
            return;
        }
        self.forget(now);
        if self.of(peer).count() >= OF_ONE
            && let Some(oldest) = self.0.iter().position(|change| change.peer == peer)
        {
            self.0.remove(oldest);
        }
        if self.0.len() >= IN_ALL {
            self.0.pop_front();
        }
        self.0.push_back(Change {
            at_ms: now.unix_ms,
            peer,
            way,
            cause: None,
        });
    }

    /// Why a peer's way is what it is.
    pub fn note_cause(&mut self, peer: PeerIx, cause: Cause) {
        let last = self.0.iter_mut().rev().find(|change| change.peer == peer);
        if let Some(last) = last {
            last.cause = Some(cause);
        }
    }

    /// The changes of one peer, the oldest first.
    pub fn of(&self, peer: PeerIx) -> impl DoubleEndedIterator<Item = &Change> {
        self.0.iter().filter(move |change| change.peer == peer)
    }

    /// The wall clock may have been set back: what lies ahead is no older than a day either.
    fn forget(&mut self, now: Now) {
        let kept_ms = u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX);
        let oldest = now.unix_ms.saturating_sub(kept_ms);
        while self.0.front().is_some_and(|change| change.at_ms < oldest) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Moment;

    fn at(second: u64) -> Now {
        Now {
            at: Moment(second * 1_000_000),
            unix_ms: 1_795_000_000_000 + second * 1000,
        }
    }

    fn relayed(by: u32) -> Way {
        Way::Path {
            class: Class::Relay,
            endpoint: None,
            relays: [Some(PeerIx(by)), None],
        }
    }

    #[test]
    fn a_change_is_noted_once_and_for_its_peer_alone() {
        let mut history = History::default();
        history.note(at(0), PeerIx(1), relayed(9));
        history.note(at(1), PeerIx(2), Way::Closed);
        history.note(at(2), PeerIx(1), relayed(9));
        history.note(at(3), PeerIx(1), Way::Closed);
        history.note_cause(PeerIx(1), Cause::PeerOff);
        let of_one: Vec<_> = history
            .of(PeerIx(1))
            .map(|change| (change.at_ms - at(0).unix_ms, change.way, change.cause))
            .collect();
        assert_eq!(
            of_one,
            [
                (0, relayed(9), None),
                (3000, Way::Closed, Some(Cause::PeerOff))
            ]
        );
        assert_eq!(history.of(PeerIx(2)).count(), 1);
    }

    #[test]
    fn a_day_later_a_change_is_forgotten() {
        let mut history = History::default();
        history.note(at(0), PeerIx(1), relayed(9));
        history.note(at(86_400), PeerIx(2), Way::Closed);
        assert_eq!(history.of(PeerIx(1)).count(), 1);
        history.note(at(86_401), PeerIx(2), relayed(9));
        assert_eq!(history.of(PeerIx(1)).count(), 0);
    }

    #[test]
    fn it_stays_within_a_mebibyte_and_nobody_crowds_others_out() {
        assert!(size_of::<Change>() * IN_ALL <= 1 << 20);
        assert!(size_of::<Change>() <= 80, "the room's page says so");
        let mut history = History::default();
        history.note(at(0), PeerIx(0), Way::Closed);
        for second in 0..10_000 {
            let by = u32::try_from(second % 2).unwrap();
            history.note(at(second), PeerIx(1), relayed(by));
        }
        assert_eq!(history.of(PeerIx(1)).count(), OF_ONE);
        assert_eq!(history.of(PeerIx(0)).count(), 1);
        for peer in 0..20_000 {
            history.note(at(10_000), PeerIx(peer), Way::Unreached);
        }
        assert_eq!(history.0.len(), IN_ALL);
    }
}
