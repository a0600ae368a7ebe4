//! Our own uplink. While a socket is full nothing more is sealed: what is sealed has its place, and cannot give way any more.
//! What programs send meanwhile, and what is carried for others, waits in a [`FairQueue`], and goes before what comes later.
//!
//! All links of this host count as one: a transfer over a slow one holds up what would go by another for as long as its turn
//! takes. Each data thread has a socket and a queue of its own. Sockets that are kept for one address (`openings`) are nobody's
//! uplink; what they do not take is lost.

use std::time::Duration;

use super::{
    fair_queue::{FairQueue, Held, Next, What},
    outbox::Target,
};
use crate::{packet::vnet::Undone, platform::udp::Family, time::Moment};

/// How long a full socket is waited for. Any uplink has taken something by then; what stands longer waits for a neighbour that
/// does not answer (three seconds, with ARP), and others are not to wait for that.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Uplink {
    waiting: FairQueue,
    full: Option<Full>,
    /// How long a socket was full the last time.
    took: Duration,
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
            took: Duration::ZERO,
        }
    }

    /// Whether a socket is full.
    pub(super) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Which socket is full.
    pub(super) fn full(&self) -> Option<Family> {
        self.full.map(|full| full.family)
    }

    /// Whether a packet may go at once: nothing waits that comes before it.
    pub(super) fn is_open(&self) -> bool {
        !self.is_full() && self.waiting.is_empty()
    }

    /// The socket of a family is full.
    pub(super) fn fill(&mut self, now: Moment, family: Family) {
        self.full = Some(Full { family, since: now });
    }

    /// When it is not waited for any longer.
    pub(super) fn due(&self) -> Option<Moment> {
        self.full.map(|full| full.since.after(PATIENCE))
    }

    /// It takes more again, or is not waited for any longer; says which, and how long it was full.
    pub(super) fn reopen(&mut self, now: Moment) -> Option<(Family, Duration)> {
        let full = self.full.take()?;
        self.took = now.since(full.since);
        Some((full.family, self.took))
    }

    /// Keeps a packet of a program; tells how many went nowhere for it.
    pub(super) fn hold(&mut self, now: Moment, packet: &[u8], undone: Undone) -> u64 {
        self.waiting.push(now, packet, What::Packet(undone))
    }

    /// Keeps a datagram that is carried for others; tells how many went nowhere for it.
    pub(super) fn hold_carried(&mut self, now: Moment, datagram: &[u8], target: Target) -> u64 {
        self.waiting.push(now, datagram, What::Carried(target))
    }

    /// What has waited and goes now.
    pub(super) fn next(&mut self, now: Moment) -> Next {
        match self.is_full() {
            true => Next::default(),
            false => self.waiting.pop(now, self.took.min(PATIENCE)),
        }
    }

    /// It went.
    pub(super) fn release(&mut self, held: Held) {
        self.waiting.give_back(held.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_goes_when_there_is_room_and_before_what_comes_later() {
        let at = |ms: u64| Moment(ms * 1000);
        let mut uplink = Uplink::new(1);
        assert!(uplink.is_open() && uplink.due().is_none());
        uplink.fill(at(5), Family::V6);
        assert!(!uplink.is_open());
        assert_eq!(uplink.due(), Some(at(55)));
        assert_eq!(uplink.hold(at(6), &[0x45; 40], Undone::Nothing), 0);
        assert!(uplink.next(at(7)).held.is_none(), "it is still full");
        let took = Duration::from_millis(3);
        assert_eq!(uplink.reopen(at(8)), Some((Family::V6, took)));
        assert!(!uplink.is_open(), "something waits");
        let held = uplink.next(at(8)).held.unwrap();
        assert_eq!(held.len, 40);
        uplink.release(held);
        assert!(uplink.is_open());
        assert_eq!(uplink.reopen(at(9)), None);
    }
}
