//! How records spread: advert, pull, digest, urgent flood, budgets (protocol §7).
//!
//! Knows slots and versions. Refuses to know what a record says; reads the store through [`Shelf`].
//!
//! A change is *advertised* to every link, which *pulls* it if it lacks it, and advertises it on. What that misses
//! (lost datagrams, tables that were full) the *digest round* finds: both sides compare the sums of 64 buckets, name
//! what they hold in those that differ, and pull. Every table per link is bounded, and whatever does not fit is left
//! to a digest round, so that being full costs time and never a record.

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


/// Entries in one Advert, Want or Slots (protocol §11): more and the message is not understood.
const ENTRIES_MAX: usize = 64;

/// Bytes of a Records body (protocol §0: a control body is at most 1,100).
const BODY_MAX: usize = 1100;

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

/// How many links' messages were dropped, and how often a full table was left to a digest round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gossip messages from sessions that are no link of ours, or from leaves.
    pub not_linked: u64,
    /// Changes or questions that found their table full.
    pub overflowed: u64,
}

/// Placeholder.
#[derive(Clone, Debug)]
pub struct Gossip;

/// The answer to a Want in any session: Records messages of at most `body_max` bytes each (1,100; 960 in a join session).
#[expect(unused_variables, clippy::todo, reason = "the shape is published before the body")]
pub fn answer(want: &Want, body_max: usize, shelf: &dyn Shelf) -> Vec<Message> { todo!() }

#[expect(unused_variables, clippy::todo, reason = "the shape is published before the body")]
impl Gossip {
    /// No link yet.
    pub fn new(seed: [u8; 32]) -> Self { todo!() }
    /// A session became a gossip link; `digest` is what the peer's Hello said.
    pub fn handle_linked(&mut self, now: Now, peer: PeerIx, link: (LinkKind, [u8; 16]), shelf: &dyn Shelf) { todo!() }
    /// A gossip link ended.
    pub fn handle_unlinked(&mut self, peer: PeerIx) { todo!() }
    /// A record was taken into the store (own or received).
    pub fn handle_stored(&mut self, now: Now, stored: Stored, shelf: &dyn Shelf) { todo!() }
    /// A record that came from `from` was refused or lost against the one held.
    pub fn handle_lost(&mut self, now: Now, from: PeerIx, slot: Slot, version: Version) { todo!() }
    /// An Advert came.
    pub fn handle_advert(&mut self, now: Now, from: PeerIx, advert: &Advert, shelf: &dyn Shelf) { todo!() }
    /// A Want came on a link (in other sessions: [`answer`]).
    pub fn handle_want(&mut self, now: Now, from: PeerIx, want: &Want, shelf: &dyn Shelf) { todo!() }
    /// A Digest came.
    pub fn handle_digest(&mut self, now: Now, from: PeerIx, digest: &Digest, shelf: &dyn Shelf) { todo!() }
    /// Slots came.
    pub fn handle_slots(&mut self, now: Now, from: PeerIx, slots: &Slots, shelf: &dyn Shelf) { todo!() }
    /// Whether the first digest round with a link is through.
    pub fn is_synced(&self, peer: PeerIx) -> bool { todo!() }
    /// A link whose first digest round is through just now.
    pub fn poll_synced(&mut self) -> Option<PeerIx> { todo!() }
    /// The next message to send.
    pub fn poll_output(&mut self) -> Option<(PeerIx, Message)> { todo!() }
    /// When [`Self::handle_timeout`] is due; ask after the outputs are drained.
    pub fn poll_timeout(&self) -> Option<Moment> { todo!() }
    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now, shelf: &dyn Shelf) { todo!() }
    /// What was dropped or put off.
    pub fn counters(&self) -> Counters { todo!() }
}
