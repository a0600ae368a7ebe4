//! Whether this machine was asleep. Its own clock that no one can set ran on meanwhile, and the one that timers go by did
//! not; where a whole virtual machine stood still, the wall clock alone knows.

use std::time::Duration;

use crate::{
    platform::clock,
    time::{Moment, Now},
};

/// Shorter sleeps are nothing to NATs.
const NOTICED: Duration = Duration::from_secs(5);

/// The clocks as they were when they were read last.
#[derive(Debug)]
pub(super) struct Sleep {
    now: Now,
    awake: Moment,
}

impl Sleep {
    /// Awake from now on.
    pub(super) fn new() -> Self {
        Self {
            now: clock::now(),
            awake: clock::awake(),
        }
    }

    /// Whether this machine slept since this was asked last.
    pub(super) fn is_over(&mut self) -> bool {
        self.note(clock::now(), clock::awake())
    }

    fn note(&mut self, now: Now, awake: Moment) -> bool {
        let last = std::mem::replace(self, Self { now, awake });
        let passed = awake.since(last.awake);
        let slept = now.at.since(last.now.at).saturating_sub(passed);
        let wall = Duration::from_millis(now.unix_ms.saturating_sub(last.now.unix_ms));
        let jumped = wall.saturating_sub(passed);
        slept >= NOTICED || jumped >= NOTICED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep() -> Sleep {
        let now = Now {
            at: Moment(100_000_000),
            unix_ms: 1_700_000_000_000,
        };
        Sleep {
            now,
            awake: Moment(50_000_000),
        }
    }

    /// Each clock so many seconds later.
    fn later(machine: u64, wall: u64, awake: u64) -> bool {
        let mut sleep = sleep();
        let now = Now {
            at: Moment(sleep.now.at.0 + machine * 1_000_000),
            unix_ms: sleep.now.unix_ms + wall * 1000,
        };
        let awake = Moment(sleep.awake.0 + awake * 1_000_000);
        let noticed = sleep.note(now, awake);
        assert!(!sleep.note(now, awake), "it is told once");
        noticed
    }

    #[test]
    fn a_machine_that_worked_all_the_time_did_not_sleep() {
        assert!(!later(1, 1, 1) && !later(60, 60, 60) && !later(5, 5, 1));
    }

    #[test]
    fn a_lid_that_was_closed_and_a_virtual_machine_that_stood_still_are_noticed() {
        assert!(later(3600, 3600, 1), "suspended");
        assert!(later(1, 3600, 1), "stood still");
    }

    #[test]
    fn a_wall_clock_that_goes_back_is_no_sleep() {
        let mut sleep = sleep();
        let now = Now {
            at: Moment(sleep.now.at.0 + 1_000_000),
            unix_ms: sleep.now.unix_ms - 60_000,
        };
        assert!(!sleep.note(now, Moment(sleep.awake.0 + 1_000_000)));
    }
}
