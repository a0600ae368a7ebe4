//! The Pings of one session that wait for their Pong.

use std::{collections::VecDeque, time::Duration};

use crate::{addr::Path, time::Moment};

/// How long a Pong is waited for: longer than any round trip.
pub(super) const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// Nonces that wait at once: all paths of a session with some Pings each, and some that people sent.
const WAITING_MAX: usize = 96;

/// What a Ping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To prove a path.
    Proof(Path),
    /// To find what fits a path: a packet of this length.
    Size(Path, u16),
    /// A sign of life from wherever the session is, for who asked.
    Life(Option<u64>),
}

/// A Ping under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) nonce: [u8; 8],
    pub(super) at: Moment,
    pub(super) purpose: Purpose,
}

/// Pings under way, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Pings(VecDeque<Sent>);

impl Pings {
    /// Notes one more; the oldest makes room for it and is given back.
    pub(super) fn push(&mut self, sent: Sent) -> Option<Sent> {
        let crowded_out = if self.0.len() >= WAITING_MAX {
            self.0.pop_front()
        } else {
            None
        };
        self.0.push_back(sent);
        crowded_out
    }

    /// Takes out the Ping that a Pong from `source` answers. One that was to prove a path is answered by that path alone.
    pub(super) fn take(&mut self, nonce: [u8; 8], source: Path) -> Option<Sent> {
        let index = self.0.iter().position(|sent| sent.nonce == nonce)?;
        let sent = *self.0.get(index)?;
        if matches!(sent.purpose, Purpose::Proof(to) | Purpose::Size(to, _) if to != source) {
            return None;
        }
        self.0.remove(index)
    }

    /// Takes out the oldest if it was waited for too long.
    pub(super) fn take_late(&mut self, now: Moment) -> Option<Sent> {
        let oldest = self.0.front()?;
        if oldest.at.after(GIVEN_UP_AFTER) > now {
            return None;
        }
        self.0.pop_front()
    }

    /// When the oldest is given up.
    pub(super) fn next(&self) -> Option<Moment> {
        Some(self.0.front()?.at.after(GIVEN_UP_AFTER))
    }

    /// Takes out all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Sent> + '_ {
        self.0.drain(..)
    }
}
