//! How long packets may be on a path (design §6): found by Pings padded to a size, of which those that are too long are not
//! answered while short ones are. Each side looks for what it sends itself.

use std::time::Duration;

use crate::{addr::Path, time::Moment};

/// What every path owes to IPv6, in fragments where it must.
pub const SIZE_MIN: u16 = 1280;

/// The sizes that are tried when the longest does not come through: multiples of 16, so that padding adds nothing.
const STEPS: [u16; 9] = [1408, 1392, 1376, 1360, 1344, 1328, 1312, 1296, SIZE_MIN];

/// How often each step is tried: datagrams may be lost for other reasons.
const TRIES: u8 = 2;

/// How long what was found counts while the path is used.
const FOUND_FOR: Duration = Duration::from_mins(10);

/// What fits a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The longest packet.
    pub inner: u16,
    /// Whether even that is to be sent so that routers may cut it.
    pub in_fragments: bool,
}

/// What was found for a path, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) room: Room,
    at: Moment,
}

impl Found {
    pub(super) fn new(now: Moment, room: Room) -> Self {
        Self { room, at: now }
    }

    /// Whether it is to be looked for anew.
    pub(super) fn is_old(&self, now: Moment) -> bool {
        now.since(self.at) >= FOUND_FOR
    }
}

/// How many Pings ask whether what fitted still does.
const CHECKS: usize = 3;

/// Which sizes are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What fitted so far.
    Check,
    /// The longest that the device has.
    Top,
    /// All.
    Ladder,
}

/// A search under way.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) path: Path,
    top: u16,
    step: Step,
    begun: Moment,
    tries: u8,
    longest: Option<u16>,
}

/// What comes next in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Pings go out again.
    Try,
    /// This fits.
    Found(Room),
    /// The path does not answer at all: that is another matter.
    Over,
}

impl Search {
    pub(super) fn new(now: Moment, path: Path, top: u16, step: Step) -> Self {
        Self {
            path,
            top,
            step,
            begun: now,
            tries: 0,
            longest: None,
        }
    }

    /// Whether all sizes are tried.
    pub(super) fn is_wide(&self) -> bool {
        self.step == Step::Ladder
    }

    /// Whether it only asks for what is known.
    pub(super) fn is_check(&self) -> bool {
        self.step == Step::Check
    }

    /// The sizes of the Pings that go out now, the longest first.
    pub(super) fn sizes(&mut self) -> Vec<u16> {
        self.tries += 1;
        let steps = match self.step {
            Step::Check => return vec![self.top; CHECKS],
            Step::Top => &[],
            Step::Ladder => &STEPS[..],
        };
        let shorter = steps.iter().copied().filter(|size| *size < self.top);
        std::iter::once(self.top).chain(shorter).collect()
    }

    /// A Ping of this size was answered: whether the search is over.
    pub(super) fn note_answer(&mut self, size: u16) -> Option<Room> {
        self.longest = self.longest.max(Some(size));
        (size == self.top).then_some(whole(size))
    }

    /// The Pings were waited for. `alive` is when the path last answered anything.
    pub(super) fn conclude(&mut self, alive: Option<Moment>) -> Next {
        match (self.step, self.longest) {
            (_, Some(size)) => Next::Found(whole(size)),
            (Step::Top | Step::Ladder, None) if self.tries < TRIES => Next::Try,
            (_, None) if alive.is_none_or(|at| at < self.begun) => Next::Over,
            (Step::Check | Step::Top, None) => {
                self.step = Step::Ladder;
                self.tries = 0;
                Next::Try
            }
            (Step::Ladder, None) => Next::Found(Room {
                inner: SIZE_MIN,
                in_fragments: true,
            }),
        }
    }
}

fn whole(inner: u16) -> Room {
    Room {
        inner,
        in_fragments: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LegIx;

    const PATH: Path = Path::Relay(LegIx(0));
    const ALIVE: Option<Moment> = Some(Moment(9));

    fn search(step: Step) -> Search {
        Search::new(Moment(5), PATH, 1420, step)
    }

    #[test]
    fn where_the_longest_comes_through_one_ping_is_all() {
        let mut search = search(Step::Top);
        assert_eq!(search.sizes(), [1420]);
        assert_eq!(search.note_answer(1420), Some(whole(1420)));
    }

    #[test]
    fn where_it_does_not_all_sizes_go_at_once_and_the_longest_answered_counts() {
        let mut search = search(Step::Top);
        for _ in 0..2 {
            assert_eq!(search.sizes(), [1420]);
            assert_eq!(search.conclude(ALIVE), Next::Try);
        }
        let sizes = search.sizes();
        assert_eq!((sizes.len(), sizes[0], sizes[9]), (10, 1420, 1280));
        assert!(sizes[1..].iter().all(|size| size % 16 == 0));
        for size in [1280, 1360, 1344] {
            assert_eq!(search.note_answer(size), None);
        }
        assert_eq!(search.conclude(ALIVE), Next::Found(whole(1360)));
    }

    #[test]
    fn where_only_short_pings_come_through_packets_go_in_fragments() {
        let mut search = search(Step::Ladder);
        search.sizes();
        assert_eq!(search.conclude(ALIVE), Next::Try);
        search.sizes();
        let room = Room {
            inner: 1280,
            in_fragments: true,
        };
        assert_eq!(search.conclude(ALIVE), Next::Found(room));
    }

    #[test]
    fn what_fitted_is_asked_for_thrice_at_once_and_all_that_is_shorter_if_none_comes_back() {
        let mut search = Search::new(Moment(5), PATH, 1404, Step::Check);
        assert_eq!(search.sizes(), [1404; 3]);
        assert!(search.is_check());
        assert_eq!(search.note_answer(1404), Some(whole(1404)));
        let mut search = Search::new(Moment(5), PATH, 1404, Step::Check);
        search.sizes();
        assert_eq!(search.conclude(ALIVE), Next::Try);
        assert_eq!(search.sizes()[..3], [1404, 1392, 1376]);
        assert!(!search.is_check());
        search.note_answer(1296);
        assert_eq!(search.conclude(ALIVE), Next::Found(whole(1296)));
        let mut search = Search::new(Moment(5), PATH, 1404, Step::Check);
        search.sizes();
        assert_eq!(search.conclude(Some(Moment(4))), Next::Over, "it is dead");
    }

    #[test]
    fn a_path_that_answers_nothing_has_no_size() {
        let mut search = search(Step::Ladder);
        search.sizes();
        search.sizes();
        assert_eq!(search.conclude(None), Next::Over);
        assert_eq!(search.conclude(Some(Moment(4))), Next::Over);
    }
}
