//! What a peer hands on between others (design §9): how many Calls of one origin, whose Answers have a Call before them,
//! and whose records went ahead.

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::PeerIx, time::Moment};

/// One more Call of an origin each 10 s (review-security S10: 6 a minute), all targets together.
const CALL_EACH: Duration = Duration::from_secs(10);

/// How many at once: as many as one peer has links, so that who starts again finds all of them.
const CALLS_BURST: u32 = 64;

/// How long a Call, its tries, its Answer and the packet behind it may take: an attempt lasts 5 s.
const CALL_LASTS: Duration = Duration::from_secs(10);

/// Messages of the caller within one Call: its tries, and the packet behind each response.
const MESSAGES_MAX: u32 = 10;

/// How long records that went ahead are not sent again.
const AHEAD_AGAIN: Duration = Duration::from_mins(10);

/// Calls and origins remembered.
const REMEMBERED_MAX: usize = 4096;

/// Calls handed on of late.
#[derive(Clone, Debug, Default)]
pub struct Passing {
    paid_at: BTreeMap<PeerIx, Moment>,
    calls: BTreeMap<(PeerIx, PeerIx), Passed>,
    ahead: BTreeMap<(PeerIx, PeerIx), Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    begun: Moment,
    messages: u32,
}

/// Whether a Call is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is; the first between these two of late.
    First,
    /// It is; others went before.
    Again,
    /// The origin has called too often.
    TooMany,
}

impl Passing {
    /// A caller's message for another: whether it is handed on. It is counted if so.
    pub fn call(&mut self, now: Moment, caller: PeerIx, called: PeerIx) -> Pass {
        let under_way = self
            .calls
            .get_mut(&(caller, called))
            .filter(|passed| now.since(passed.begun) < CALL_LASTS);
        if let Some(passed) = under_way {
            if passed.messages >= MESSAGES_MAX {
                return Pass::TooMany;
            }
            passed.messages += 1;
            return Pass::Again;
        }
        if !self.spend(now, caller) {
            return Pass::TooMany;
        }
        make_room(&mut self.calls, |passed| {
            now.since(passed.begun) < CALL_LASTS
        });
        let passed = Passed {
            begun: now,
            messages: 1,
        };
        self.calls.insert((caller, called), passed);
        Pass::First
    }

    /// Whether an Answer has a Call before it: nobody is told anything that it did not ask for.
    pub fn is_awaited(&self, now: Moment, caller: PeerIx, called: PeerIx) -> bool {
        self.calls
            .get(&(caller, called))
            .is_some_and(|passed| now.since(passed.begun) < CALL_LASTS)
    }

    /// Whether the records of one went to another of late.
    pub fn went_ahead(&self, now: Moment, of: PeerIx, to: PeerIx) -> bool {
        let last = self.ahead.get(&(of, to));
        last.is_some_and(|at| now.since(*at) < AHEAD_AGAIN)
    }

    /// Whether the records of one are to go to another now; counted as sent if so.
    pub fn goes_ahead(&mut self, now: Moment, of: PeerIx, to: PeerIx) -> bool {
        if self.went_ahead(now, of, to) {
            return false;
        }
        make_room(&mut self.ahead, |at| now.since(*at) < AHEAD_AGAIN);
        self.ahead.insert((of, to), now);
        true
    }

    /// The session with a peer ended: what went ahead to it may be lost.
    pub fn handle_gone(&mut self, peer: PeerIx) {
        self.ahead.retain(|(_, to), _| *to != peer);
    }

    fn spend(&mut self, now: Moment, caller: PeerIx) -> bool {
        let ahead = CALL_EACH * (CALLS_BURST - 1);
        let paid_at = self.paid_at.get(&caller).copied().unwrap_or_default();
        if paid_at > now.after(ahead) {
            return false;
        }
        make_room(&mut self.paid_at, |paid_at| *paid_at > now);
        self.paid_at
            .insert(caller, paid_at.max(now).after(CALL_EACH));
        true
    }
}

/// Makes sure that one more fits: what is over goes, and if nothing is, everything.
fn make_room<K: Ord, V>(table: &mut BTreeMap<K, V>, is_needed: impl Fn(&V) -> bool) {
    if table.len() < REMEMBERED_MAX {
        return;
    }
    table.retain(|_, value| is_needed(value));
    if table.len() >= REMEMBERED_MAX {
        table.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: PeerIx = PeerIx(1);
    const BO: PeerIx = PeerIx(2);

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn one_origin_calls_as_many_as_it_has_links_and_then_six_a_minute() {
        let mut passing = Passing::default();
        let mut calls = |from: u64, to: u64| {
            (from..to)
                .flat_map(|second| (0..20).map(move |target| (second, target)))
                .filter(|(second, target)| {
                    let called = PeerIx(u32::try_from(100 + second * 20 + target).unwrap());
                    passing.call(at(*second), ANNA, called) == Pass::First
                })
                .count()
        };
        assert_eq!(calls(1_000, 1_010), 64);
        assert_eq!(calls(1_010, 1_070), 6);
    }

    #[test]
    fn the_tries_of_one_call_are_one_call_and_bounded() {
        let mut passing = Passing::default();
        assert_eq!(passing.call(at(1), ANNA, BO), Pass::First);
        for _ in 1..MESSAGES_MAX {
            assert_eq!(passing.call(at(2), ANNA, BO), Pass::Again);
        }
        assert_eq!(passing.call(at(2), ANNA, BO), Pass::TooMany);
        assert_eq!(passing.call(at(11), ANNA, BO), Pass::First);
    }

    #[test]
    fn an_answer_needs_a_call_of_the_last_seconds_in_its_own_direction() {
        let mut passing = Passing::default();
        passing.call(at(1), ANNA, BO);
        assert!(passing.is_awaited(at(10), ANNA, BO));
        assert!(!passing.is_awaited(at(11), ANNA, BO));
        assert!(!passing.is_awaited(at(2), BO, ANNA));
    }

    #[test]
    fn records_go_ahead_once_in_a_while_and_again_into_a_new_session() {
        let mut passing = Passing::default();
        assert!(passing.goes_ahead(at(1), ANNA, BO));
        assert!(!passing.goes_ahead(at(2), ANNA, BO));
        assert!(passing.goes_ahead(at(601), ANNA, BO));
        passing.handle_gone(BO);
        assert!(passing.goes_ahead(at(602), ANNA, BO));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut passing = Passing::default();
        for caller in 0..20_000 {
            passing.call(at(1), PeerIx(caller), BO);
            passing.goes_ahead(at(1), PeerIx(caller), BO);
        }
        assert!(passing.calls.len() <= REMEMBERED_MAX);
        assert!(passing.ahead.len() <= REMEMBERED_MAX);
        assert!(passing.paid_at.len() <= REMEMBERED_MAX);
    }
}
