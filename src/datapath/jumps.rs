//! Whether the wall clock moved against the one that nobody can set. A person may have set it, or this machine was restored
//! from a copy: its keys may have been used since the copy was made, and nobody can tell which it was.

use std::time::Duration;

use crate::time::Now;

/// Clocks that are disciplined move less than this between two turns.
const JUMP: Duration = Duration::from_secs(2);

/// The clocks as they were when they were read last.
#[derive(Debug, Default)]
pub(super) struct Jumps(Option<Now>);

impl Jumps {
    /// Takes in the clocks; whether one has jumped against the other.
    pub(super) fn note(&mut self, now: Now) -> bool {
        let Some(last) = self.0.replace(now) else {
            return false;
        };
        let passed = now.at.since(last.at);
        let expected = Duration::from_millis(last.unix_ms) + passed;
        expected.abs_diff(Duration::from_millis(now.unix_ms)) > JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Moment;

    fn at(machine_ms: u64, wall_ms: u64) -> Now {
        Now {
            at: Moment(machine_ms * 1000),
            unix_ms: wall_ms,
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_either_way_is_noticed_once() {
        for (wall_ms, has_jumped) in [
            (1_000_250, false),
            (1_002_250, false),
            (1_002_251, true),
            (998_250, false),
            (998_249, true),
        ] {
            let mut jumps = Jumps::default();
            assert!(!jumps.note(at(100, 1_000_000)));
            assert_eq!(jumps.note(at(350, wall_ms)), has_jumped, "{wall_ms}");
            assert!(!jumps.note(at(600, wall_ms + 250)));
        }
    }

    #[test]
    fn a_sleep_that_both_clocks_saw_is_no_jump() {
        let mut jumps = Jumps::default();
        jumps.note(at(100, 1_000_000));
        assert!(!jumps.note(at(3_600_100, 4_600_000)));
    }
}
