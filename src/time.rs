//! Time as the cores see it: they are told it, they never ask.
//!
//! Two clocks, never confused: [`Moment`] is this machine's own clock that no one can set and that runs on through
//! sleep (CLOCK_BOOTTIME); `unix_ms` is the wall clock, which may jump and may be wrong.

use std::time::Duration;

/// A point on this machine's CLOCK_BOOTTIME (in the simulator: on the virtual clock), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `later` from this one; saturates at the end of time.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(later.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// What time it is, by both clocks, handed to every `handle_*` of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock that only runs forward.
    pub at: Moment,
    /// The wall clock, milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// The wall clock in whole seconds since 1970.
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_never_wraps() {
        let moment = Moment(1_000_000);
        assert_eq!(moment.after(Duration::from_millis(1)), Moment(1_001_000));
        assert_eq!(moment.after(Duration::MAX), Moment(u64::MAX));
        assert_eq!(Moment(5).since(moment), Duration::ZERO);
        assert_eq!(moment.since(Moment(5)), Duration::from_micros(999_995));
    }

    #[test]
    fn unix_seconds_are_cut_not_rounded() {
        let now = Now {
            at: Moment(0),
            unix_ms: 1_999,
        };
        assert_eq!(now.unix_s(), 1);
    }
}
