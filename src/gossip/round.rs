//! One digest round with a link: Digest both ways, Slots for the buckets that differ, then Wants (protocol §7).
//!
//! Whoever starts a round sends its Digest and waits for the other's. A Digest that was not waited for is answered by
//! one, and by Slots for what differs; one that was waited for is answered by Slots alone, so that no two peers answer
//! each other's Digests for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{time::Moment, wire::message::Slots};

/// Digests of one link answered in [`ANSWERS_PER`]: enough for every try of a round, and an end to any exchange that
/// late answers could keep alive.
const ANSWERS_MAX: u32 = 6;

/// See [`ANSWERS_MAX`].
const ANSWERS_PER: Duration = Duration::from_mins(1);

/// Parts of one bucket believed: 64 × 1,024 slots of a 64th of all slots. More is no honest claim.
const PARTS_MAX: u64 = 1024;

/// How often a round is begun again before it is left to the next one.
const TRIES_MAX: u32 = 5;

/// How long a round waits for the other side at first; doubles with every try.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The pause before a round that is due again; doubles while something is missing after each.
const AGAIN_FIRST: Duration = Duration::from_secs(2);

/// How often it doubles: up to 8.5 min.
const AGAIN_DOUBLED_MAX: u32 = 8;

/// After how long without anything missing it begins at its first length again.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// How long it waits after any progress: a big bucket takes its time under the budget.
pub(super) const PROGRESS: Duration = Duration::from_secs(2);

/// Where a link stands with comparing what both hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    state: State,
    /// The sums in our last Digest: what theirs is compared with, whatever was stored since.
    sent: Option<Box<[u8; 1024]>>,
    tries: u32,
    answers: u32,
    answers_since: Moment,
    /// Whether one round was ever through.
    pub(super) is_synced: bool,
    /// A table was full, or something did not come: once this round is through another begins.
    pub(super) is_due_again: bool,
    /// Whether something did not come since the last one began.
    has_missed: bool,
    /// In how many rounds something did not come, until none has for [`FORGIVEN_AFTER`].
    missed: u32,
    missed_at: Moment,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Rest,
    /// Our Digest is on its way, theirs is waited for.
    Asked,
    /// Slots of these buckets are waited for: the parts that came.
    Naming(BTreeMap<u8, BTreeSet<u64>>),
}

/// What a Digest calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Slots for what differs, and our own Digest.
    DigestToo,
    /// Slots for what differs.
    SlotsAlone,
}

impl Round {
    /// Starts over.
    pub(super) fn begin(&mut self) {
        self.state = State::Asked;
        self.tries = 0;
        self.is_due_again = false;
        self.has_missed = false;
    }

    /// Something that the link has did not come, however often it was asked for.
    pub(super) fn note_missed(&mut self, now: Moment) {
        if now.since(self.missed_at) >= FORGIVEN_AFTER {
            self.missed = 0;
        }
        self.missed_at = now;
        self.is_due_again = true;
        if !std::mem::replace(&mut self.has_missed, true) {
            self.missed = self.missed.saturating_add(1);
        }
    }

    /// How long to wait before a round that is due again: longer each time, since a link may name, in rounds or between
    /// them, what it does not give.
    pub(super) fn pause(&self) -> Duration {
        AGAIN_FIRST * (1 << self.missed.saturating_sub(1).min(AGAIN_DOUBLED_MAX))
    }

    /// Whether a round is under way.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Rest)
    }

    /// Whether the other side still has to say something.
    pub(super) fn is_waiting(&self) -> bool {
        match &self.state {
            State::Rest => false,
            State::Asked => true,
            State::Naming(missing) => !missing.is_empty(),
        }
    }

    /// The other side was silent: ask again, and wait so long for the answer; None: enough.
    pub(super) fn try_again(&mut self) -> Option<Duration> {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            self.state = State::Rest;
            return None;
        }
        self.state = State::Asked;
        Some(self.patience())
    }

    /// How long to wait for an answer to the Digest.
    pub(super) fn patience(&self) -> Duration {
        RETRY_FIRST * (1 << self.tries.min(TRIES_MAX))
    }

    /// Our Digest goes out with these sums.
    pub(super) fn handle_sent(&mut self, sums: &[u8; 1024]) {
        self.sent = Some(Box::new(*sums));
    }

    /// Their Digest came. They name the buckets in which it differs from the Digest that we sent; a record stored
    /// since then makes a bucket differ here that they say nothing about.
    pub(super) fn handle_digest(&mut self, now: Moment, theirs: &[u8; 1024]) -> Option<Answer> {
        if matches!(self.state, State::Asked)
            && let Some(sent) = self.sent.take()
        {
            let missing = differing(&sent, theirs).into_iter();
            self.state = State::Naming(missing.map(|bucket| (bucket, BTreeSet::new())).collect());
            return Some(Answer::SlotsAlone);
        }
        if now.since(self.answers_since) >= ANSWERS_PER {
            self.answers_since = now;
            self.answers = 0;
        }
        self.answers += 1;
        (self.answers <= ANSWERS_MAX).then_some(Answer::DigestToo)
    }

    /// A part of what they hold in a bucket came.
    pub(super) fn handle_slots(&mut self, slots: &Slots) {
        let State::Naming(missing) = &mut self.state else {
            return;
        };
        let Ok(bucket) = u8::try_from(slots.bucket) else {
            return;
        };
        let Some(parts) = missing.get_mut(&bucket) else {
            return;
        };
        if slots.part <= slots.last && slots.last < PARTS_MAX {
            parts.insert(slots.part);
        }
        if (0..=slots.last.min(PARTS_MAX)).all(|part| parts.contains(&part)) {
            missing.remove(&bucket);
        }
    }

    /// All was named and pulled.
    pub(super) fn finish(&mut self) {
        self.state = State::Rest;
        self.is_synced = true;
    }
}

/// The buckets in which two peers hold different things.
pub(super) fn differing(ours: &[u8; 1024], theirs: &[u8; 1024]) -> BTreeSet<u8> {
    let pairs = ours.chunks_exact(16).zip(theirs.chunks_exact(16));
    (0..)
        .zip(pairs)
        .filter(|(_, (a, b))| a != b)
        .map(|(bucket, _)| bucket)
        .collect()
}
