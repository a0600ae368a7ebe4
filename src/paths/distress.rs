//! A path is doubted, because what was sent there is not answered: when to try others, when to move, when to give up
//! (review-distributed S6, rule 5).

use std::time::Duration;

use crate::{addr::Path, time::Moment};

/// How long a Ping is waited for; on a slow path half as long again as it takes.
const INTERVAL: Duration = Duration::from_millis(300);

/// How long a session is looked for a path in vain before it is given up.
const LOST_AFTER: Duration = Duration::from_secs(4);

/// Pings that an endpoint may leave unanswered when nothing is at stake but a doubt.
const DOUBTED_PINGS: u32 = 4;

/// Why a path is doubted; the more certain, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The other side Pings by another path that is no better: it may not be heard by this one, or not hear us.
    Asked,
    /// The other side talks by another path, and this one was not heard for a while.
    Doubted,
    /// User data went out, and nothing authenticated came back; there were long packets in it, which the path may have
    /// become too narrow for.
    Choked,
    /// User data went out, and nothing authenticated came back.
    Silent,
    /// Nothing came by this path for so long that a NAT may have forgotten it, and now user data goes out; or this
    /// machine has other addresses.
    Stale,
    /// It is known to be gone.
    Gone,
}

/// One time of doubt.
#[derive(Clone, Debug)]
pub(super) struct Distress {
    pub(super) cause: Cause,
    pub(super) begun: Moment,
    /// Pings to the endpoint that were not answered in their time.
    pub(super) missed: u32,
    /// Where packets are mirrored to.
    pub(super) mirror: Option<Path>,
    /// Whether others were asked for a way.
    pub(super) has_sought: bool,
    interval: Duration,
}

impl Distress {
    /// Begins. `rtt` is what the path took while it answered.
    pub(super) fn new(now: Moment, cause: Cause, rtt: Option<Duration>) -> Self {
        Self {
            cause,
            begun: now,
            missed: 0,
            mirror: None,
            has_sought: false,
            interval: Self::interval(rtt),
        }
    }

    /// There is a better reason now: what is known begins here.
    pub(super) fn begin_anew(&mut self, now: Moment, cause: Cause) {
        self.cause = cause;
        self.begun = now;
        self.missed = 0;
    }

    /// How long a Ping is waited for on a path that takes so long.
    pub(super) fn interval(rtt: Option<Duration>) -> Duration {
        let slow = rtt.map_or(Duration::ZERO, |rtt| rtt * 3 / 2);
        INTERVAL.max(slow)
    }

    /// When the next Ping is due.
    pub(super) fn next(&self, now: Moment) -> Moment {
        now.after(self.interval)
    }

    /// Whether it is time to move to a path that answers.
    pub(super) fn moves(&self) -> bool {
        let patience = match self.cause {
            Cause::Gone => 0,
            // Who talks by another path had reason to leave ours.
            Cause::Doubted => 1,
            Cause::Stale => 2,
            // Packets go both ways meanwhile: to be sure costs nobody anything.
            Cause::Asked => 3,
            Cause::Choked | Cause::Silent => 4,
        };
        self.missed >= patience
    }

    /// Whether to send everything by a second path too, once that has answered and the endpoint has not. Who talks by a
    /// better path than ours found it better, and ours works: packets by both would overtake each other.
    pub(super) fn mirrors(&self, is_better: bool) -> bool {
        !(is_better && self.is_mere_doubt())
    }

    /// Whether nothing that was sent is known to be unanswered.
    pub(super) fn is_mere_doubt(&self) -> bool {
        self.cause <= Cause::Doubted
    }

    /// Whether what was sent meanwhile may be lost though the endpoint answers.
    pub(super) fn has_lost(&self) -> bool {
        self.missed > 0 || self.mirror.is_some() || self.cause >= Cause::Stale
    }

    /// Whether it is time to ask others for a way, since no path is known to answer. Said once.
    pub(super) fn seeks(&mut self) -> bool {
        let is_time = match self.cause {
            Cause::Asked | Cause::Doubted => false,
            Cause::Choked | Cause::Silent | Cause::Stale => self.missed >= 1,
            Cause::Gone => true,
        };
        is_time && !std::mem::replace(&mut self.has_sought, is_time)
    }

    /// Whether packets had better wait for a path than go where nobody answers.
    pub(super) fn withdraws(&self) -> bool {
        match self.cause {
            Cause::Asked | Cause::Doubted => false,
            Cause::Choked | Cause::Silent | Cause::Stale => self.missed >= 4,
            Cause::Gone => true,
        }
    }

    /// Whether a doubt is over because nothing came of it.
    pub(super) fn is_idle(&self) -> bool {
        self.is_mere_doubt() && self.missed >= DOUBTED_PINGS
    }

    /// Whether it lasted too long.
    pub(super) fn is_lost(&self, now: Moment) -> bool {
        !self.is_mere_doubt() && now.since(self.begun) >= LOST_AFTER
    }
}
