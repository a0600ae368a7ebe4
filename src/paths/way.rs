//! One path of one session: the Pings that are to go out on it, what came back, and how it compares with others.

use std::time::Duration;

use super::{class::Class, sizes::Found};
use crate::time::Moment;

/// When the Pings to something new go out, after the first (design §9).
pub(super) const HUNT_MS: &[u64] = &[200, 400, 800, 1600];

/// When the Pings to the endpoint of a new session go out, after the first: it carries no more than 64 KiB until one is
/// answered (protocol §3).
pub(super) const ENDPOINT_MS: &[u64] = &[200, 400, 800, 1600, 3200, 6400];

/// When the Pings to where an authenticated packet came from go out, after the first (protocol §5: at most 3 in all).
pub(super) const CHALLENGE_MS: &[u64] = &[300, 900];

/// When the Pings that confirm a better path go out, after the first: three answers in a second are wanted, and some may
/// be lost.
pub(super) const CONFIRM_MS: &[u64] = &[200, 400, 600, 800];

/// A single Ping.
pub(super) const ONCE_MS: &[u64] = &[];

/// How many Pongs within [`CONFIRMED_IN`] make a better path the chosen one (review-distributed S6, rule 4).
const CONFIRMED_BY: usize = 3;

/// See [`CONFIRMED_BY`]; the Pings for it go out within this time, so their answers may come a little further apart.
const CONFIRMED_IN: Duration = Duration::from_millis(1200);

/// How long a path that failed is barred, the first time; doubles (rule 3).
const BARRED_FIRST: Duration = Duration::from_secs(30);

/// The longest bar, and how long a path must have held for its failures to be forgotten.
const BARRED_MAX: Duration = Duration::from_mins(10);

/// How long a path counts as known after its last Pong: its target is no stranger's.
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// How long after its last Pong a path is taken to work without a question.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// How long a path must have been better than another of its class (rule 3).
const BETTER_FOR: Duration = Duration::from_secs(10);

/// By how much at least (rule 3); the other bound is a fifth.
const BETTER_BY: Duration = Duration::from_millis(10);

/// How long a round trip takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The last one measured.
    pub last: Duration,
    /// Smoothed: 7/8 of what it was and 1/8 of each new one.
    pub smoothed: Duration,
}

impl Rtt {
    /// What is known after one more round trip.
    pub(super) fn after(known: Option<Self>, last: Duration) -> Self {
        let smoothed = known.map_or(last, |known| (known.smoothed * 7 + last) / 8);
        Self { last, smoothed }
    }
}

/// One path and all that is known about it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Our number for it in Pings.
    pub(super) number: u64,
    pub(super) class: Class,
    /// Pings sent in all.
    pub(super) sent: u32,
    /// Of them answered.
    pub(super) answered: u32,
    /// Pings since the last Pong.
    pub(super) unanswered: u32,
    /// Until when no Ping may go out, if one was due.
    pub(super) held_back: Option<Moment>,
    /// The Pings that were planned, if none of them could go out: they are due after [`Self::held_back`].
    owed: Option<&'static [u64]>,
    pub(super) rtt: Option<Rtt>,
    /// How long packets may be.
    pub(super) found: Option<Found>,
    series: Option<Series>,
    pongs: [Option<Moment>; CONFIRMED_BY],
    bar: Option<Bar>,
    better_since: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    begun: Moment,
    sent: usize,
    gaps: &'static [u64],
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    until: Moment,
    lasted: Duration,
}

impl Way {
    pub(super) fn new(number: u64, class: Class) -> Self {
        Self {
            number,
            class,
            sent: 0,
            answered: 0,
            unanswered: 0,
            held_back: None,
            owed: None,
            rtt: None,
            found: None,
            series: None,
            pongs: [None; CONFIRMED_BY],
            bar: None,
            better_since: None,
        }
    }

    /// Plans Pings from now on, in place of those planned before.
    pub(super) fn begin(&mut self, now: Moment, gaps: &'static [u64]) {
        self.held_back = None;
        self.owed = None;
        self.series = Some(Series {
            begun: now,
            sent: 0,
            gaps,
        });
    }

    /// Plans no more Pings before then: its target had its share. Whether Pings are owed to it then, since none of those
    /// planned went out.
    pub(super) fn hold_back(&mut self, until: Moment) -> bool {
        self.held_back = Some(until);
        let unsent = self.series.take().filter(|series| series.sent == 0);
        self.owed = unsent.map(|series| series.gaps);
        self.owed.is_some()
    }

    /// The time for which it was held back may be over: the Pings that are owed to it, if so.
    pub(super) fn take_owed(&mut self, now: Moment) -> Option<&'static [u64]> {
        let is_over = self.held_back.is_none_or(|until| until <= now);
        if is_over { self.owed.take() } else { None }
    }

    /// Plans no more Pings.
    pub(super) fn end(&mut self) {
        self.series = None;
    }

    /// Whether Pings are planned.
    pub(super) fn is_probed(&self) -> bool {
        self.series.is_some()
    }

    /// Whether what is planned goes where an authenticated packet came from.
    pub(super) fn is_challenged(&self) -> bool {
        self.series
            .is_some_and(|series| series.gaps == CHALLENGE_MS)
    }

    /// Whether what is planned are the Pings that confirm it.
    pub(super) fn is_being_confirmed(&self) -> bool {
        self.series.is_some_and(|series| {
            series.gaps.len() == CONFIRM_MS.len() && series.gaps == CONFIRM_MS
        })
    }

    /// A planned Ping goes out: when the next is due; None: it was the last.
    pub(super) fn next_due(&mut self, now: Moment) -> Option<Moment> {
        let series = self.series.as_mut()?;
        let gap = series.gaps.get(series.sent).copied();
        series.sent += 1;
        match gap {
            Some(gap) => Some(series.begun.after(Duration::from_millis(gap)).max(now)),
            None => {
                self.series = None;
                None
            }
        }
    }

    /// A Ping went out.
    pub(super) fn note_sent(&mut self) {
        self.sent = self.sent.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        self.held_back = None;
    }

    /// Its Pong came.
    pub(super) fn note_pong(&mut self, now: Moment, rtt: Duration) {
        self.answered = self.answered.saturating_add(1);
        self.unanswered = 0;
        self.held_back = None;
        self.rtt = Some(Rtt::after(self.rtt, rtt));
        self.pongs.rotate_right(1);
        self.pongs[0] = Some(now);
    }

    /// When the last Pong came.
    pub(super) fn ponged(&self) -> Option<Moment> {
        self.pongs[0]
    }

    /// Whether it ever answered in this session.
    pub(super) fn is_proven(&self) -> bool {
        self.pongs[0].is_some()
    }

    /// Whether it answered lately enough to be probed without being counted against its target.
    pub(super) fn is_known(&self, now: Moment) -> bool {
        self.pongs[0].is_some_and(|at| now.since(at) < KNOWN_FOR)
    }

    /// Whether it answered a moment ago.
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.pongs[0].is_some_and(|at| now.since(at) < FRESH_FOR)
    }

    /// Whether it has answered since then.
    pub(super) fn is_alive_since(&self, then: Moment) -> bool {
        self.pongs[0].is_some_and(|at| at >= then)
    }

    /// Whether it answered often enough to be promoted.
    pub(super) fn is_confirmed(&self, now: Moment) -> bool {
        let oldest = self.pongs.last().copied().flatten();
        oldest.is_some_and(|at| now.since(at) <= CONFIRMED_IN)
    }

    /// The path failed while data went there; it was last known to work at `since`.
    pub(super) fn bar(&mut self, since: Moment) {
        let lasted = match self.bar {
            Some(bar) if since.since(bar.until) < BARRED_MAX => (bar.lasted * 2).min(BARRED_MAX),
            Some(_) | None => BARRED_FIRST,
        };
        let until = since.after(lasted);
        self.bar = Some(Bar { until, lasted });
    }

    /// What failed elsewhere may work here: this machine has other addresses now.
    pub(super) fn lift_bar(&mut self) {
        self.bar = None;
    }

    /// It is barred no longer; that it was counts still.
    pub(super) fn excuse(&mut self, now: Moment) {
        if let Some(bar) = &mut self.bar {
            bar.until = bar.until.min(now);
        }
    }

    /// Until when it is barred, if it is.
    pub(super) fn barred_until(&self, now: Moment) -> Option<Moment> {
        self.bar.map(|bar| bar.until).filter(|until| now < *until)
    }

    /// Whether it has been better than `other`, of its class, for long enough. To be asked at each new measurement.
    pub(super) fn outruns(&mut self, now: Moment, other: &Self) -> bool {
        let (Some(own), Some(theirs)) = (self.rtt, other.rtt) else {
            return false;
        };
        let (own, theirs) = (own.smoothed, theirs.smoothed);
        if own + BETTER_BY > theirs || own * 5 > theirs * 4 {
            self.better_since = None;
            return false;
        }
        let since = *self.better_since.get_or_insert(now);
        now.since(since) >= BETTER_FOR
    }
}
