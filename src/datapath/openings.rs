//! Sockets beside the main ones, for a machine whose NAT gives every destination another port (design §9): many are open
//! towards one address, and wait for a guess at the port that the NAT gave each. The first that an authentic packet comes
//! through is kept: from then on whatever goes to that address goes by this socket, whose mapping is the only one that
//! leads back. The others are closed.
//!
//! So a path needs no name for its socket: from one machine to one address there is one. Where that is not answered any more,
//! because its NAT has forgotten the mapping or this machine is behind another one, all goes by the main socket too until either
//! is: nobody else knows the mapping of the kept one, so that the two sides would never meet there again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use super::{
    inbound::{Source, Taken},
    offloads::Offloads,
    shard::Shard,
    train::Train,
};
use crate::{
    addr::{Path, Underlay},
    packet::ecn::Ecn,
    platform::{
        poll::Poll,
        spare::Spare,
        udp::{Cut, DATAGRAM_MAX, Socket},
    },
    time::Moment,
};

/// How long a kept socket may be silent: NATs forget sooner, and sessions that nobody uses are closed by then.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// A kept socket that is silent for so long gives way, where the same address speaks to the main socket.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// For so long nothing comes back by a kept socket until what goes there goes by the main one too.
const IN_VAIN_AFTER: Duration = Duration::from_secs(1);

/// So long after a datagram came another thread says at the latest that it has opened it.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Sockets kept at once; the one that was silent for longest makes room.
const KEPT_MAX: usize = 64;

/// What is to be opened.
#[derive(Debug)]
pub(super) struct Order {
    /// Where to.
    pub(super) to: Underlay,
    /// What goes there from each.
    pub(super) bytes: Vec<u8>,
    /// How many.
    pub(super) sockets: usize,
    /// When those that were not hit are closed.
    pub(super) until: Moment,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Openings {
    poll: Poll,
    waiting: Option<Waiting>,
    kept: BTreeMap<Underlay, Kept>,
    /// Whether others are kept than when it was asked last.
    has_changed: bool,
    opened: u64,
    /// Those that have something; kept for the next time.
    ready: Vec<u64>,
    offloads: Arc<Offloads>,
    buffer: Box<[u8; DATAGRAM_MAX]>,
}

#[derive(Debug)]
struct Waiting {
    to: Underlay,
    /// By their numbers in the poll.
    sockets: BTreeMap<u64, Spare>,
    until: Moment,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    socket: Socket,
    hearing: Hearing,
}

/// When a kept socket was answered.
#[derive(Clone, Copy, Debug)]
struct Hearing {
    heard: Moment,
    /// The first that went out by it since then.
    asked: Option<Moment>,
    /// When something came by it that another thread opens.
    passed_on: Option<Moment>,
}

impl Hearing {
    fn new(now: Moment) -> Self {
        Self {
            heard: now,
            asked: None,
            passed_on: None,
        }
    }

    /// Another thread has opened something from the same address: whether that may have come by this socket.
    fn may_be_meant(&self, now: Moment) -> bool {
        self.passed_on.is_some_and(|at| now.since(at) < TOLD_AFTER)
    }

    /// Something goes out by it: whether that has been in vain for a while.
    fn note_sent(&mut self, now: Moment) -> bool {
        let asked = *self.asked.get_or_insert(now);
        now.since(asked) >= IN_VAIN_AFTER
    }

    fn is_silent(&self, now: Moment) -> bool {
        now.since(self.heard) >= SILENT_AFTER
    }
}

impl Openings {
    /// None is open.
    pub(super) fn new(offloads: Arc<Offloads>) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            waiting: None,
            kept: BTreeMap::new(),
            has_changed: false,
            opened: 0,
            ready: Vec::new(),
            offloads,
            buffer: Box::new([0; DATAGRAM_MAX]),
        })
    }

    /// What becomes readable when one of them does.
    pub(super) fn poll(&self) -> &Poll {
        &self.poll
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.kept.is_empty()
    }

    /// Opens as many as the host allows, in place of those that wait, and sends from each.
    pub(super) fn open(&mut self, order: &Order) {
        let mut sockets = BTreeMap::new();
        for _ in 0..order.sockets {
            let Ok(spare) = Spare::open() else {
                break;
            };
            self.opened += 1;
            let is_sent = spare.send(order.to.socket(), &order.bytes).is_ok();
            if is_sent && self.poll.add(&spare, self.opened).is_ok() {
                sockets.insert(self.opened, spare);
            }
        }
        tracing::debug!(sockets = sockets.len(), to = %order.to, "Sockets are open for a guess at their ports");
        self.waiting = Some(Waiting {
            to: order.to,
            sockets,
            until: order.until,
        });
    }

    /// Takes in what came by them.
    pub(super) fn take(&mut self, now: Moment, shard: &mut Shard) -> io::Result<()> {
        let Self { poll, ready, .. } = self;
        poll.wait(Some(Duration::ZERO), |one| ready.push(one.token))?;
        while let Some(number) = self.ready.pop() {
            if !self.take_kept(now, shard, number) {
                self.take_waiting(now, shard, number);
            }
        }
        Ok(())
    }

    fn take_kept(&mut self, now: Moment, shard: &mut Shard, number: u64) -> bool {
        let Some(kept) = self.kept.values_mut().find(|kept| kept.number == number) else {
            return false;
        };
        let hearing = &mut kept.hearing;
        // As with the main sockets: an error is about the socket, and whoever is behind it will be missed.
        let _ = kept.socket.receive(|message| {
            let source = Source {
                path: Path::Direct(Underlay::new(message.source)),
                ecn: Ecn::of_bits(message.ecn),
            };
            if message.cut == Cut::Cut {
                return;
            }
            match shard.take_message(now, source, Train::new(message.bytes, message.size)) {
                Taken::Data => *hearing = Hearing::new(now),
                Taken::PassedOn => hearing.passed_on = Some(now),
                Taken::Other => {}
            }
        });
        true
    }

    /// Whose NAT let something in from where it was sent to, and it was authentic, that socket is kept.
    fn take_waiting(&mut self, now: Moment, shard: &mut Shard, number: u64) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let Some(spare) = waiting.sockets.get(&number) else {
            return;
        };
        let to = waiting.to;
        while let Some((source, len)) = spare.receive(&mut self.buffer[..]) {
            let is_there = Underlay::new(source) == to;
            if is_there {
                let came = Train::of_one(&mut self.buffer[..len]);
                let taken = shard.take_message(now, Path::Direct(to).into(), came);
                if taken == Taken::Data {
                    return self.keep(now, number);
                }
            }
        }
    }

    fn keep(&mut self, now: Moment, number: u64) {
        let Some(mut waiting) = self.waiting.take() else {
            return;
        };
        let Some(spare) = waiting.sockets.remove(&number) else {
            return;
        };
        let Ok(mut socket) = spare.into_socket() else {
            return;
        };
        self.offloads.apply(&mut socket);
        if self.kept.len() >= KEPT_MAX {
            let longest = self.kept.iter().min_by_key(|(_, kept)| kept.hearing.heard);
            if let Some(longest) = longest.map(|(to, _)| *to) {
                self.kept.remove(&longest);
            }
        }
        tracing::debug!(to = %waiting.to, "A port was guessed: its socket is kept");
        let kept = Kept {
            number,
            socket,
            hearing: Hearing::new(now),
        };
        self.kept.insert(waiting.to, kept);
        self.has_changed = true;
    }

    /// Whether what goes to an address goes by one of them.
    pub(super) fn leads_to(&self, to: Underlay) -> bool {
        !self.kept.is_empty() && self.kept.contains_key(&to)
    }

    /// Whether a packet from an address to the main socket, if it is authentic, says that the kept one is of no use.
    pub(super) fn is_silent(&self, now: Moment, source: Underlay) -> bool {
        let kept = (!self.kept.is_empty())
            .then(|| self.kept.get(&source))
            .flatten();
        kept.is_some_and(|kept| kept.hearing.is_silent(now))
    }

    /// Another thread has opened something from an address.
    pub(super) fn note_opened(&mut self, now: Moment, source: Underlay) {
        let Some(kept) = self.kept.get_mut(&source) else {
            return;
        };
        if kept.hearing.may_be_meant(now) {
            kept.hearing = Hearing::new(now);
        } else if kept.hearing.is_silent(now) {
            self.release(source);
        }
    }

    /// What goes to an address goes by the main socket again.
    pub(super) fn release(&mut self, to: Underlay) {
        self.kept.remove(&to);
        self.has_changed = true;
    }

    /// Where sockets lead that are kept, if those are others than when it was asked last.
    pub(super) fn poll_kept(&mut self) -> Option<BTreeSet<Underlay>> {
        let has_changed = std::mem::take(&mut self.has_changed);
        has_changed.then(|| self.kept.keys().copied().collect())
    }

    /// The socket by which goes what goes to an address.
    pub(super) fn socket(&mut self, to: Underlay) -> Option<&mut Socket> {
        self.kept.get_mut(&to).map(|kept| &mut kept.socket)
    }

    /// Something goes by the socket that is kept for this address: whether it is to go by the main one too.
    pub(super) fn note_sent(&mut self, now: Moment, to: Underlay) -> bool {
        let kept = self.kept.get_mut(&to);
        kept.is_some_and(|kept| kept.hearing.note_sent(now))
    }

    /// Closes what is of no use any more.
    pub(super) fn handle_timers(&mut self, now: Moment) {
        if self.waiting.as_ref().is_some_and(|all| now >= all.until) {
            self.waiting = None;
        }
        let before = self.kept.len();
        self.kept
            .retain(|_, kept| now.since(kept.hearing.heard) < KEPT_FOR);
        self.has_changed |= self.kept.len() != before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    #[test]
    fn a_socket_is_asked_in_vain_from_a_second_after_the_first_that_nobody_answers() {
        let mut hearing = Hearing::new(at(0));
        // Nothing was sent meanwhile: that nobody spoke says nothing.
        assert!(!hearing.note_sent(at(60_000)));
        assert!(!hearing.note_sent(at(60_999)));
        assert!(hearing.note_sent(at(61_000)));
        hearing = Hearing::new(at(61_001));
        assert!(!hearing.note_sent(at(61_001)));
        assert!(!hearing.is_silent(at(64_000)) && hearing.is_silent(at(64_001)));
    }

    #[test]
    fn what_another_thread_opens_a_second_after_it_came_by_the_socket_was_that() {
        let mut hearing = Hearing::new(at(0));
        assert!(!hearing.may_be_meant(at(0)));
        hearing.passed_on = Some(at(5_000));
        assert!(hearing.may_be_meant(at(5_999)) && !hearing.may_be_meant(at(6_000)));
    }
}
