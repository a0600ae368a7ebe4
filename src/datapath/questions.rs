//! Questions that went out to nodes of the DHT: who was asked a moment ago may answer. What anybody else sends costs
//! nothing but a look at this list.

use std::{collections::VecDeque, time::Duration};

use super::meter::{Meter, Rate};
use crate::{addr::Underlay, time::Moment};

/// How long an answer is waited for; its asker has given up sooner (protocol §12).
const OPEN_FOR: Duration = Duration::from_secs(5);

/// Questions remembered: one sounding asks two nodes, three times.
const OPEN_MAX: usize = 16;

/// Answers taken in, from whomever: the address of who was asked can be forged.
const ANSWERS: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 20,
};

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: VecDeque<(Underlay, Moment)>,
    answers: Meter,
}

impl Questions {
    /// A question goes out.
    pub(super) fn note(&mut self, now: Moment, to: Underlay) {
        if self.open.len() >= OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back((to, now));
    }

    /// Whether what came from here may be an answer; it is counted if so.
    pub(super) fn takes_answer(&mut self, now: Moment, from: Underlay) -> bool {
        let is_open = |(to, at): &(Underlay, Moment)| *to == from && now.since(*at) < OPEN_FOR;
        self.open.iter().any(is_open) && self.answers.take(now, ANSWERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Underlay {
        Underlay::new(([198, 51, 100, last], 6881).into())
    }

    const NOW: Moment = Moment(1_000_000_000);

    #[test]
    fn who_was_asked_may_answer_for_five_seconds_and_nobody_else() {
        let mut questions = Questions::default();
        assert!(!questions.takes_answer(NOW, address(1)));
        questions.note(NOW, address(1));
        assert!(questions.takes_answer(NOW, address(1)));
        assert!(!questions.takes_answer(NOW, address(2)));
        assert!(!questions.takes_answer(NOW.after(OPEN_FOR), address(1)));
    }

    #[test]
    fn even_under_the_address_of_who_was_asked_twenty_a_second_are_taken() {
        let mut questions = Questions::default();
        questions.note(NOW, address(1));
        let flood = (0..3_000).map(|ms| NOW.after(Duration::from_millis(ms)));
        let taken = flood.filter(|at| questions.takes_answer(*at, address(1)));
        assert!((70..=80).contains(&taken.count()));
    }

    #[test]
    fn questions_are_bounded() {
        let mut questions = Questions::default();
        for last in 0..200 {
            questions.note(NOW, address(last));
        }
        assert_eq!(questions.open.len(), OPEN_MAX);
    }
}
