//! The clocks of this machine, read once per turn of a loop and handed to the cores.

#![expect(
    clippy::disallowed_methods,
    reason = "the one place where clocks are read"
)]

use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};

use crate::time::{Moment, Now};

/// The moment on CLOCK_BOOTTIME, in microseconds since this machine started: the same for every thread and process.
pub fn moment() -> Moment {
    read(ClockId::CLOCK_BOOTTIME)
}

/// The moment on CLOCK_MONOTONIC, which stands still while this machine sleeps.
pub fn awake() -> Moment {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> Moment {
    let time = clock_gettime(clock).expect("every supported Linux has this clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Moment(seconds * 1_000_000 + nanos / 1_000)
}

/// Both clocks. A wall clock before 1970 reads as 0.
pub fn now() -> Now {
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        at: moment(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_forward() {
        let before = moment();
        assert!(now().at >= before && before > Moment(0));
    }
}
