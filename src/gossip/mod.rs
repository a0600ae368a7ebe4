//! How records spread: advert, pull, digest, urgent flood, budgets (protocol §7).
//!
//! Knows slots and versions. Refuses to know what a record says; reads the store through [`Shelf`].
//!
//! A change is *advertised* to every link, which *pulls* it if it lacks it, and advertises it on. What that misses
//! (lost datagrams, tables that were full) the *digest round* finds: both sides compare the sums of 64 buckets, name
//! what they hold in those that differ, and pull. Every table per link is bounded, and whatever does not fit is left
//! to a digest round, so that being full costs time and never a record.

mod budget;
mod line;
mod pack;
mod round;
#[cfg(test)]
mod tests;
mod unlinked;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    ids::{PeerIx, Slot, Version},
    time::{Moment, Now, Timers},
    wire::{
        message::{Advert, Digest, Message, Slots, Want},
        record::{Kind, Record},
    },
};

use budget::Class;
use line::{Line, Room};
pub use unlinked::{Answer, Unlinked};

/// Entries in one Advert, Want or Slots (protocol §11): more and the message is not understood.
const ENTRIES_MAX: usize = 64;

/// How long a change waits for others to share its Advert (protocol §7).
const ADVERT_FIRST: Duration = Duration::from_millis(100);

/// The least time between two Adverts on one link (protocol §7).
const ADVERT_EVERY: Duration = Duration::from_secs(2);

/// How long a record that lost or was refused is not asked for again on that link (protocol §7).
const LOST_FOR: Duration = Duration::from_mins(10);

/// How often links compare digests when nothing seems amiss (protocol §7), ± 10 %.
const ROUND_EVERY: Duration = Duration::from_mins(10);

/// The store as gossip reads it; `node` implements it over the registry.
pub trait Shelf {
    /// What stands in a slot, if anything.
    fn holds(&self, slot: Slot) -> Option<(Version, Kind)>;
    /// The record in a slot.
    fn record(&self, slot: Slot) -> Option<Record>;
    /// Whether what stands in a slot is given to others: a lease in its last 20 minutes is not.
    fn is_offered(&self, slot: Slot) -> bool;
    /// The sums of all 64 buckets (protocol §11).
    fn sums(&self) -> Box<[u8; 1024]>;
    /// The digest of all sums, as Hello carries it.
    fn digest16(&self) -> [u8; 16];
    /// All that stands in one bucket, 0 to 63.
    fn bucket(&self, bucket: u8) -> Vec<(Slot, Version)>;
}

/// What the other end of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Holds everything.
    Full,
    /// Holds little; is sent every Revoke and Epoch, and no Advert, Digest or Slots.
    Leaf,
}

/// How fast a record spreads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Flooded whole, at once: Revoke, Epoch, a lease that says `left`.
    Urgent,
    /// Advertised and pulled.
    Calm,
}

/// A record that was taken into the store just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub slot: Slot,
    /// Which.
    pub version: Version,
    /// Its kind.
    pub kind: Kind,
    /// How fast it goes on.
    pub spread: Spread,
    /// Who sent it; None: it is our own.
    pub from: Option<PeerIx>,
}

/// A link as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// What the other end is.
    pub kind: LinkKind,
    /// The digest in its last Hello.
    pub digest: [u8; 16],
}

/// What was dropped or put off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gossip messages from sessions that are no link of ours, or from leaves.
    pub not_linked: u64,
    /// Changes or questions that found their table full.
    pub overflowed: u64,
}

/// All links of one peer.
#[derive(Clone, Debug)]
pub struct Gossip {
    rng: ChaCha8Rng,
    now: Moment,
    lines: BTreeMap<PeerIx, Line>,
    /// Slots asked for and not answered yet, and whom: no slot is asked of two links at once.
    asked: BTreeMap<Slot, PeerIx>,
    timers: Timers<(PeerIx, Wake)>,
    outputs: VecDeque<(PeerIx, Message)>,
    synced: VecDeque<PeerIx>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// The budget allows more, or something was put aside for later.
    Flush,
    /// The next Advert is due.
    Advert,
    /// What was asked has not come.
    Asked,
    /// The round under way made no progress.
    Retry,
    /// Time to compare digests again.
    Round,
}

impl Gossip {
    /// No link yet. `seed` spreads the rounds.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            now: Moment::default(),
            lines: BTreeMap::new(),
            asked: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            synced: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A session became a gossip link. Digests that differ begin a round.
    pub fn handle_linked(&mut self, now: Now, peer: PeerIx, linked: Linked, shelf: &dyn Shelf) {
        self.now = now.at;
        self.handle_unlinked(peer);
        self.lines.insert(peer, Line::new(linked.kind));
        match linked.kind {
            LinkKind::Leaf => self.finish_round(peer),
            LinkKind::Full if linked.digest == shelf.digest16() => self.finish_round(peer),
            LinkKind::Full => self.begin_round(peer),
        }
        self.flush(peer, shelf);
    }

    /// A gossip link ended. What it was asked for is asked of others.
    pub fn handle_unlinked(&mut self, peer: PeerIx) {
        self.lines.remove(&peer);
        self.asked.retain(|_, of| *of != peer);
        self.synced.retain(|of| *of != peer);
        for wake in Wake::ALL {
            self.timers.clear(&(peer, wake));
        }
        self.wake_seekers();
    }

    /// A record was taken into the store, our own or a received one: it goes to all links but the one it came from. A
    /// Revoke and the Epoch made for it, stored one after the other before the outputs are polled, travel together.
    pub fn handle_stored(&mut self, now: Now, stored: Stored, shelf: &dyn Shelf) {
        self.now = now.at;
        self.asked.remove(&stored.slot);
        for line in self.lines.values_mut() {
            line.handle_stored(stored.slot, (stored.version, stored.kind));
        }
        if shelf.is_offered(stored.slot) {
            self.spread(stored, shelf);
        }
        let peers: Vec<PeerIx> = self.lines.keys().copied().collect();
        for peer in peers {
            self.settle(peer);
            self.flush(peer, shelf);
        }
    }

    /// A record that came from `from` was refused or lost against the one held: this version is not asked for again on
    /// that link for 10 min.
    pub fn handle_lost(&mut self, now: Now, from: PeerIx, slot: Slot, version: Version) {
        self.now = now.at;
        if self.asked.get(&slot) == Some(&from) {
            self.asked.remove(&slot);
        }
        if let Some(line) = self.lines.get_mut(&from) {
            line.handle_lost(now.at, slot, version);
            self.settle(from);
            self.wake_seekers();
        }
    }

    /// An Advert came.
    pub fn handle_advert(&mut self, now: Now, from: PeerIx, advert: &Advert, shelf: &dyn Shelf) {
        self.now = now.at;
        if self.is_full_link(from) {
            self.seek(from, &advert.entries, shelf);
            self.flush(from, shelf);
        }
    }

    /// A Want came on a link; in other sessions [`Unlinked`] serves it.
    pub fn handle_want(&mut self, now: Now, from: PeerIx, want: &Want, shelf: &dyn Shelf) {
        self.now = now.at;
        let Some(line) = self.lines.get_mut(&from) else {
            self.counters.not_linked += 1;
            return;
        };
        if line.handle_want(want) == Room::Full {
            self.counters.overflowed += 1;
        }
        self.flush(from, shelf);
    }

    /// A Digest came.
    pub fn handle_digest(&mut self, now: Now, from: PeerIx, digest: &Digest, shelf: &dyn Shelf) {
        self.now = now.at;
        if !self.is_full_link(from) {
            return;
        }
        let differing = round::differing(&shelf.sums(), &digest.sums);
        let Some(line) = self.lines.get_mut(&from) else {
            return;
        };
        let answer = line.round.handle_digest(now.at, &digest.sums);
        if answer.is_some() {
            line.name(differing);
        }
        match answer {
            Some(round::Answer::DigestToo) => line.is_digest_due = true,
            Some(round::Answer::SlotsAlone) => self.handle_progress(from),
            None => {}
        }
        self.settle(from);
        self.flush(from, shelf);
    }

    /// Slots came.
    pub fn handle_slots(&mut self, now: Now, from: PeerIx, slots: &Slots, shelf: &dyn Shelf) {
        self.now = now.at;
        if !self.is_full_link(from) {
            return;
        }
        self.seek(from, &slots.entries, shelf);
        if let Some(line) = self.lines.get_mut(&from) {
            line.round.handle_slots(slots);
        }
        self.handle_progress(from);
        self.settle(from);
        self.flush(from, shelf);
    }

    /// Whether the first digest round with a link is through.
    pub fn is_synced(&self, peer: PeerIx) -> bool {
        self.lines
            .get(&peer)
            .is_some_and(|line| line.round.is_synced)
    }

    /// A link whose first digest round got through just now.
    pub fn poll_synced(&mut self) -> Option<PeerIx> {
        self.synced.pop_front()
    }

    /// The next message to send.
    pub fn poll_output(&mut self) -> Option<(PeerIx, Message)> {
        for (peer, line) in &mut self.lines {
            let Some(message) = line.urgent() else {
                continue;
            };
            let weight = pack::weight(&message);
            match line.budget.try_take(self.now, weight, Class::Urgent) {
                Ok(()) => {
                    line.handle_flooded();
                    return Some((*peer, message));
                }
                Err(at) => self.timers.set_earlier((*peer, Wake::Flush), at),
            }
        }
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due; asked after the outputs were drained.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now, shelf: &dyn Shelf) {
        self.now = now.at;
        while let Some((peer, wake)) = self.timers.pop_due(now.at) {
            match wake {
                Wake::Flush => {}
                Wake::Advert => self.advertise(peer),
                Wake::Asked => self.take_late(peer),
                Wake::Retry => self.retry_round(peer),
                Wake::Round => self.begin_round(peer),
            }
            self.flush(peer, shelf);
        }
    }

    /// What was dropped or put off since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn is_full_link(&mut self, peer: PeerIx) -> bool {
        let is_full = self
            .lines
            .get(&peer)
            .is_some_and(|line| line.kind == LinkKind::Full);
        self.counters.not_linked += u64::from(!is_full);
        is_full
    }

    /// Puts a stored record up for Adverts, and for the flood if it is urgent.
    fn spread(&mut self, stored: Stored, shelf: &dyn Shelf) {
        let record = match stored.spread {
            Spread::Urgent => shelf.record(stored.slot),
            Spread::Calm => None,
        };
        let is_for_leaves = matches!(stored.kind, Kind::Revoke | Kind::Epoch);
        for (peer, line) in &mut self.lines {
            if Some(*peer) == stored.from {
                continue;
            }
            if let Some(record) = record
                .as_ref()
                .filter(|_| line.kind == LinkKind::Full || is_for_leaves)
            {
                let room = line.flood(record.clone());
                self.counters.overflowed += u64::from(room == Room::Full);
            }
            if line.kind == LinkKind::Leaf {
                continue;
            }
            if line.tell(stored.slot, stored.version) == Room::Full {
                self.counters.overflowed += 1;
                line.round.is_due_again = true;
                plan_again(&mut self.timers, self.now, *peer, line);
            }
            plan_advert(&mut self.timers, self.now, *peer, line);
        }
    }

    /// Takes note of what a link holds and seeks what we want of it.
    fn seek(&mut self, from: PeerIx, entries: &[(Slot, Version)], shelf: &dyn Shelf) {
        let Some(line) = self.lines.get_mut(&from) else {
            return;
        };
        for (slot, version) in entries.iter().take(ENTRIES_MAX) {
            line.handle_known(*slot, *version);
            if !line::is_wanted(shelf.holds(*slot), *version) {
                continue;
            }
            if line.seek(self.now, *slot, *version) == Room::Full {
                self.counters.overflowed += 1;
                line.round.is_due_again = true;
            }
        }
    }

    fn advertise(&mut self, peer: PeerIx) {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.advertise(self.now);
            plan_advert(&mut self.timers, self.now, peer, line);
        }
    }

    fn take_late(&mut self, peer: PeerIx) {
        if let Some(line) = self.lines.get_mut(&peer) {
            for slot in line.take_late(self.now) {
                self.asked.remove(&slot);
            }
            plan_again(&mut self.timers, self.now, peer, line);
            self.settle(peer);
            self.wake_seekers();
        }
    }

    /// Every link that has something we want gets the chance to be asked for it.
    fn wake_seekers(&mut self) {
        for (peer, line) in &self.lines {
            if line.is_seeking() {
                self.timers.set_earlier((*peer, Wake::Flush), self.now);
            }
        }
    }

    fn begin_round(&mut self, peer: PeerIx) {
        let Some(line) = self.lines.get_mut(&peer) else {
            return;
        };
        if line.kind == LinkKind::Leaf {
            return;
        }
        line.round.begin();
        line.is_digest_due = true;
        let patience = line.round.patience();
        self.timers
            .set((peer, Wake::Retry), self.now.after(patience));
        self.plan_round(peer);
    }

    fn retry_round(&mut self, peer: PeerIx) {
        let Some(line) = self.lines.get_mut(&peer) else {
            return;
        };
        if !line.round.is_waiting() {
            return;
        }
        if let Some(patience) = line.round.try_again() {
            line.is_digest_due = true;
            self.timers
                .set((peer, Wake::Retry), self.now.after(patience));
        } else {
            line.round.note_missed(self.now);
            plan_again(&mut self.timers, self.now, peer, line);
        }
    }

    /// The other side said something: what is still missing gets more time.
    fn handle_progress(&mut self, peer: PeerIx) {
        let is_waiting = self
            .lines
            .get(&peer)
            .is_some_and(|line| line.round.is_waiting());
        if is_waiting {
            self.timers
                .set((peer, Wake::Retry), self.now.after(round::PROGRESS));
        } else {
            self.timers.clear(&(peer, Wake::Retry));
        }
    }

    /// Ends the round under way if nothing is missing any more.
    fn settle(&mut self, peer: PeerIx) {
        let Some(line) = self.lines.get(&peer) else {
            return;
        };
        let is_through =
            line.round.is_under_way() && !line.round.is_waiting() && !line.is_seeking();
        if is_through {
            self.finish_round(peer);
        }
    }

    fn finish_round(&mut self, peer: PeerIx) {
        let Some(line) = self.lines.get_mut(&peer) else {
            return;
        };
        if !line.round.is_synced {
            self.synced.push_back(peer);
        }
        line.round.finish();
        let is_due_again = line.round.is_due_again;
        self.timers.clear(&(peer, Wake::Retry));
        if is_due_again {
            let soon = self.now.after(line.round.pause());
            self.timers.set((peer, Wake::Round), soon);
        } else {
            self.plan_round(peer);
        }
    }

    fn plan_round(&mut self, peer: PeerIx) {
        let tenth = u64::try_from(ROUND_EVERY.as_micros() / 10).unwrap_or(u64::MAX);
        let drawn = Duration::from_micros(self.rng.next_u64() % (2 * tenth));
        let at = self.now.after(ROUND_EVERY * 9 / 10 + drawn);
        self.timers.set((peer, Wake::Round), at);
    }

    /// Sends what there is to say, as far as the budget goes.
    fn flush(&mut self, peer: PeerIx, shelf: &dyn Shelf) {
        let Some(line) = self.lines.get_mut(&peer) else {
            return;
        };
        loop {
            if line.front().is_none() {
                line.refill(self.now, peer, &mut self.asked, shelf);
            }
            let Some(message) = line.front() else {
                if line.has_more() {
                    continue;
                }
                break;
            };
            match line
                .budget
                .try_take(self.now, pack::weight(message), Class::Calm)
            {
                Ok(()) => self
                    .outputs
                    .extend(line.pop_front().map(|message| (peer, message))),
                Err(at) => {
                    self.timers.set((peer, Wake::Flush), at);
                    break;
                }
            }
        }
        match line.asked_until() {
            Some(until) => self.timers.set((peer, Wake::Asked), until),
            None => self.timers.clear(&(peer, Wake::Asked)),
        }
    }
}

impl Wake {
    const ALL: [Self; 5] = [
        Self::Flush,
        Self::Advert,
        Self::Asked,
        Self::Retry,
        Self::Round,
    ];
}

/// A round that is due again is begun after a pause; one that is under way ends first, and plans it then.
fn plan_again(timers: &mut Timers<(PeerIx, Wake)>, now: Moment, peer: PeerIx, line: &Line) {
    if line.round.is_due_again && !line.round.is_under_way() {
        timers.set_earlier((peer, Wake::Round), now.after(line.round.pause()));
    }
}

/// The next Advert of a link: soon after the first change, and not before the last one is old enough.
fn plan_advert(timers: &mut Timers<(PeerIx, Wake)>, now: Moment, peer: PeerIx, line: &Line) {
    if !line.has_adverts() || timers.at(&(peer, Wake::Advert)).is_some() {
        return;
    }
    let earliest = line.advertised.map(|last| last.after(ADVERT_EVERY));
    let at = now.after(ADVERT_FIRST).max(earliest.unwrap_or_default());
    timers.set((peer, Wake::Advert), at);
}
