//! When one session was used and heard, as several data threads note it. Each value is written plainly by whoever has
//! something to say: two that write at the same moment say almost the same, and [`super::watch`] judges in tenths of a second.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{
    command::{moment, note},
    watch::{SILENT_AFTER, STALE_AFTER},
};
use crate::time::Moment;

/// When a session was used and heard. [`Moment`]s, 0: never, or not now.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The first user packet since anything came by the path where data goes, or a packet of a program by any.
    unanswered: AtomicU64,
    /// Whether there were long packets since.
    has_long: AtomicBool,
    /// The last authenticated packet by any path, and user packets without a pause until then.
    heard: AtomicU64,
    taken_in: AtomicU32,
    /// The last authenticated packet by the path where data goes.
    heard_there: AtomicU64,
    last_sent: AtomicU64,
    /// When it was said last that nothing is heard.
    told: AtomicU64,
}

impl Pulse {
    /// The first user packet that was not answered.
    pub(super) fn unanswered(&self) -> Option<Moment> {
        moment(&self.unanswered)
    }

    /// Whether there were long packets among what was not answered.
    pub(super) fn has_long(&self) -> bool {
        self.has_long.load(Relaxed)
    }

    /// The last authenticated packet by any path.
    pub(super) fn heard(&self) -> Moment {
        Moment(self.heard.load(Relaxed))
    }

    /// User packets that came without a pause until then.
    pub(super) fn taken_in(&self) -> u32 {
        self.taken_in.load(Relaxed)
    }

    /// The last authenticated packet by the path where data goes.
    pub(super) fn heard_there(&self) -> Moment {
        Moment(self.heard_there.load(Relaxed))
    }

    /// The last user packet that went out.
    pub(super) fn last_sent(&self) -> Moment {
        Moment(self.last_sent.load(Relaxed))
    }

    /// Whether a thread may send without looking at each datagram: the path answers, as far as anybody knows. What a lane sends
    /// until the first thread says that it does not, half a second to three quarters after the last answer, is not held.
    pub(super) fn is_sound(&self, now: Moment) -> bool {
        let heard = self.heard_there();
        let is_back = self.told().is_none_or(|told| heard >= told);
        is_back && now.since(heard) < STALE_AFTER
    }

    /// When it was said last that nothing is heard; the first thread wants to know of all that is heard then.
    pub(super) fn told(&self) -> Option<Moment> {
        moment(&self.told)
    }

    pub(super) fn set_told(&self, told: Option<Moment>) {
        self.told.store(told.map_or(0, |told| told.0), Relaxed);
    }

    /// Nothing was sent or heard.
    pub(super) fn reset(&self) {
        for moment in [
            &self.unanswered,
            &self.heard,
            &self.heard_there,
            &self.last_sent,
            &self.told,
        ] {
            moment.store(0, Relaxed);
        }
        self.has_long.store(false, Relaxed);
        self.taken_in.store(0, Relaxed);
    }

    /// Data goes by a path that works: what waits for an answer does so anew.
    pub(super) fn begin(&self, now: Moment) {
        self.heard_there.store(now.0, Relaxed);
        if self.unanswered().is_some() {
            self.unanswered.store(now.0, Relaxed);
        }
        self.has_long.store(false, Relaxed);
    }

    /// A user packet goes out.
    pub(super) fn note_sent(&self, now: Moment, is_long: bool) {
        if self.unanswered().is_none() {
            self.unanswered.store(now.0, Relaxed);
        }
        if is_long && !self.has_long() {
            self.has_long.store(true, Relaxed);
        }
        // To the microsecond: a move to another path waits for a gap after it.
        self.last_sent.store(now.0, Relaxed);
    }

    /// An authenticated packet came, by the path where data goes or by another.
    pub(super) fn note_heard(&self, now: Moment, is_endpoint: bool) {
        if now.since(self.heard()) >= SILENT_AFTER {
            self.forget_taken_in();
        }
        note(&self.heard, now);
        if is_endpoint {
            self.note_answer();
            note(&self.heard_there, now);
        }
    }

    /// Packets of programs came.
    pub(super) fn note_taken_in(&self, packets: u32) {
        let before = self.taken_in();
        self.taken_in.store(before.saturating_add(packets), Relaxed);
        self.note_answer();
    }

    /// The end of what came without a pause was spoken of.
    pub(super) fn forget_taken_in(&self) {
        self.taken_in.store(0, Relaxed);
    }

    fn note_answer(&self) {
        if self.unanswered().is_some() {
            self.unanswered.store(0, Relaxed);
        }
        if self.has_long() {
            self.has_long.store(false, Relaxed);
        }
    }
}
