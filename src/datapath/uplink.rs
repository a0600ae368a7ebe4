//! Our own uplink. While a socket is full nothing more is sealed: what is sealed has its place, and cannot give way any more.
//! What programs send meanwhile waits in a [`FairQueue`], and goes before what they send later.

use std::time::Duration;

use super::fair_queue::{FairQueue, Held, Next};
use crate::{packet::vnet::Undone, platform::udp::Family, time::Moment};

/// What is known of it.
#[derive(Debug)]
pub(super) struct Uplink {
    waiting: FairQueue,
    full: Option<Full>,
}

#[derive(Clone, Copy, Debug)]
struct Full {
    family: Family,
    since: Moment,
}

impl Uplink {
    /// One that takes everything.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            waiting: FairQueue::new(seed),
            full: None,
        }
    }

    /// Whether a socket is full.
    pub(super) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Whether a packet may go at once: nothing waits that comes before it.
    pub(super) fn is_open(&self) -> bool {
        !self.is_full() && self.waiting.is_empty()
    }

    /// The socket of a family is full.
    pub(super) fn fill(&mut self, now: Moment, family: Family) {
        self.full = Some(Full { family, since: now });
    }

    /// It takes more again; says which, and how long it was full.
    pub(super) fn reopen(&mut self, now: Moment) -> Option<(Family, Duration)> {
        let full = self.full.take()?;
        Some((full.family, now.since(full.since)))
    }

    /// Keeps a packet; tells how many went nowhere for it.
    pub(super) fn hold(&mut self, now: Moment, packet: &[u8], undone: Undone) -> u64 {
        self.waiting.push(now, packet, undone)
    }

    /// What has waited and goes now.
    pub(super) fn next(&mut self, now: Moment) -> Next {
        match self.is_full() {
            true => Next::default(),
            false => self.waiting.pop(now),
        }
    }

    /// It went.
    pub(super) fn release(&mut self, held: Held) {
        self.waiting.give_back(held.buffer);
    }
}
