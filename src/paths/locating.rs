//! Who has a session with a peer, asked of neighbours for somebody whose Call could not be handed on (design §9, protocol
//! §4: Locate, Located). How often one may have that asked, who was asked, and who is to be told.
//!
//! What comes of it is a name and nothing else: the caller opens a session with who is named and calls through it as through
//! a link of its own, within the same bounds. No address is believed that two hands have carried.

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::PeerIx, time::Moment};

/// One more question for one asker each 10 s, whomever it seeks: each becomes [`NEIGHBOURS_MAX`] messages.
const ASKER_EACH: Duration = Duration::from_secs(10);

/// How many at once.
const ASKER_BURST: u32 = 16;

/// The same for all askers together.
const ALL_EACH: Duration = Duration::from_millis(250);

/// How many at once for all.
const ALL_BURST: u32 = 64;

/// How long an answer is of use: an attempt lasts 5 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How many neighbours are asked (design §9: as many as links are called through).
pub const NEIGHBOURS_MAX: usize = 12;

/// How many of those that have a session an asker is told; one more if that one is the first that carries for others.
const TOLD_MAX: usize = 2;

/// Answers to one that asks on others' behalf: as many as its own bound ([`ALL_EACH`]) lets it ask.
const ANSWERS_BURST: u32 = ALL_BURST;

/// Questions and askers remembered: [`ALL_EACH`] and [`ALL_BURST`] let fewer in than that within their time.
const REMEMBERED_MAX: usize = 256;

/// Questions under way.
#[derive(Clone, Debug, Default)]
pub struct Locating {
    paid_at: BTreeMap<PeerIx, Moment>,
    all_paid_at: Moment,
    answers_paid_at: BTreeMap<PeerIx, Moment>,
    /// By who is sought and for whom.
    questions: BTreeMap<(PeerIx, PeerIx), Question>,
}

#[derive(Clone, Debug)]
struct Question {
    begun: Moment,
    /// Who was asked and has not answered.
    asked: Vec<PeerIx>,
    told: usize,
    /// Whether one was told that carries for others.
    told_carrier: bool,
}

/// Whether neighbours are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// They are, and it is counted.
    Now,
    /// They were a moment ago.
    UnderWay,
    /// The asker, or all together, asked too often.
    TooOften,
}

impl Question {
    fn is_open(&self, now: Moment) -> bool {
        now.since(self.begun) < ANSWERED_WITHIN
    }
}

impl Locating {
    /// Somebody asks for a peer: whether neighbours are asked now.
    pub fn ask(&mut self, now: Moment, asker: PeerIx, sought: PeerIx) -> Asking {
        let question = self.questions.get(&(sought, asker));
        if question.is_some_and(|question| question.is_open(now)) {
            Asking::UnderWay
        } else if self.spend(now, asker) {
            Asking::Now
        } else {
            Asking::TooOften
        }
    }

    /// These neighbours were asked.
    pub fn note_asked(
        &mut self,
        now: Moment,
        (asker, sought): (PeerIx, PeerIx),
        asked: Vec<PeerIx>,
    ) {
        if self.questions.len() >= REMEMBERED_MAX {
            self.questions.retain(|_, question| question.is_open(now));
        }
        let question = Question {
            begun: now,
            asked,
            told: 0,
            told_carrier: false,
        };
        self.questions.insert((sought, asker), question);
    }

    /// One that was asked has a session with who is sought: who is to be told so.
    pub fn handle_found(
        &mut self,
        now: Moment,
        (by, carries): (PeerIx, bool),
        sought: PeerIx,
    ) -> Vec<PeerIx> {
        let of_sought = (sought, PeerIx(0))..=(sought, PeerIx(u32::MAX));
        let mut askers = Vec::new();
        for ((_, asker), question) in self.questions.range_mut(of_sought) {
            let place = question.asked.iter().position(|asked| *asked == by);
            let Some(place) = place.filter(|_| question.is_open(now)) else {
                continue;
            };
            question.asked.swap_remove(place);
            if question.told < TOLD_MAX || carries && !question.told_carrier {
                question.told += 1;
                question.told_carrier |= carries;
                askers.push(*asker);
            }
        }
        askers
    }

    /// Whether one that asks is answered; it is counted if so.
    pub fn may_answer(&mut self, now: Moment, asker: PeerIx) -> bool {
        let paid_at = self
            .answers_paid_at
            .get(&asker)
            .copied()
            .unwrap_or_default();
        if paid_at > now.after(ALL_EACH * (ANSWERS_BURST - 1)) {
            return false;
        }
        make_room(&mut self.answers_paid_at, now);
        let paid_at = paid_at.max(now).after(ALL_EACH);
        self.answers_paid_at.insert(asker, paid_at);
        true
    }

    fn spend(&mut self, now: Moment, asker: PeerIx) -> bool {
        let paid_at = self.paid_at.get(&asker).copied().unwrap_or_default();
        let is_too_often = paid_at > now.after(ASKER_EACH * (ASKER_BURST - 1))
            || self.all_paid_at > now.after(ALL_EACH * (ALL_BURST - 1));
        if is_too_often {
            return false;
        }
        make_room(&mut self.paid_at, now);
        let paid_at = paid_at.max(now).after(ASKER_EACH);
        self.paid_at.insert(asker, paid_at);
        self.all_paid_at = self.all_paid_at.max(now).after(ALL_EACH);
        true
    }
}

/// Makes sure that one more fits: what is paid for goes, and if nothing is, everything.
fn make_room(paid_at: &mut BTreeMap<PeerIx, Moment>, now: Moment) {
    if paid_at.len() < REMEMBERED_MAX {
        return;
    }
    paid_at.retain(|_, paid_at| *paid_at > now);
    if paid_at.len() >= REMEMBERED_MAX {
        paid_at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: PeerIx = PeerIx(1);
    const BO: PeerIx = PeerIx(2);
    const CAROL: PeerIx = PeerIx(3);
    const DORA: PeerIx = PeerIx(4);
    const EVE: PeerIx = PeerIx(5);

    fn at(millis: u64) -> Moment {
        Moment(millis * 1000)
    }

    /// One that was asked and carries for nobody.
    fn found(locating: &mut Locating, millis: u64, by: PeerIx, sought: PeerIx) -> Vec<PeerIx> {
        locating.handle_found(at(millis), (by, false), sought)
    }

    #[test]
    fn who_asked_is_told_of_the_first_two_that_were_asked_and_know() {
        let mut locating = Locating::default();
        assert_eq!(locating.ask(at(0), ANNA, BO), Asking::Now);
        let asked = vec![CAROL, DORA, EVE, PeerIx(6), PeerIx(7)];
        locating.note_asked(at(0), (ANNA, BO), asked);
        assert_eq!(found(&mut locating, 10, PeerIx(9), BO), []);
        assert_eq!(found(&mut locating, 10, CAROL, EVE), []);
        assert_eq!(found(&mut locating, 10, DORA, BO), [ANNA]);
        assert_eq!(found(&mut locating, 11, DORA, BO), [], "once each");
        assert_eq!(found(&mut locating, 12, EVE, BO), [ANNA]);
        assert_eq!(found(&mut locating, 13, CAROL, BO), [], "two are enough");
        // Neither of them carries for others: one that does is worth telling.
        let carriers = [6, 7].map(|peer| locating.handle_found(at(14), (PeerIx(peer), true), BO));
        assert_eq!(carriers, [vec![ANNA], vec![]]);
    }

    #[test]
    fn two_that_seek_the_same_are_both_told_and_nobody_after_five_seconds() {
        let mut locating = Locating::default();
        for asker in [ANNA, EVE] {
            assert_eq!(locating.ask(at(0), asker, BO), Asking::Now);
            locating.note_asked(at(0), (asker, BO), vec![CAROL, DORA]);
        }
        assert_eq!(locating.ask(at(1), ANNA, BO), Asking::UnderWay);
        assert_eq!(found(&mut locating, 10, DORA, BO), [ANNA, EVE]);
        assert_eq!(found(&mut locating, 5_000, CAROL, BO), []);
        assert_eq!(locating.ask(at(5_000), ANNA, BO), Asking::Now);
    }

    #[test]
    fn one_asker_has_sixteen_questions_and_then_six_a_minute() {
        let mut locating = Locating::default();
        let mut asked = |seconds: std::ops::Range<u64>| {
            let tries = seconds.flat_map(|second| (0..20).map(move |peer| (second, peer)));
            let taken = tries.filter(|(second, peer)| {
                let sought = PeerIx(100 + peer);
                locating.ask(at(second * 1000), ANNA, sought) == Asking::Now
            });
            taken.count()
        };
        assert_eq!(asked(1_000..1_010), 16);
        assert_eq!(asked(1_010..1_070), 6);
    }

    #[test]
    fn one_that_asks_on_behalf_of_others_is_answered_four_times_a_second() {
        let mut locating = Locating::default();
        let mut answered = |from: u64, to: u64| {
            let tries = (from..to).step_by(10);
            tries
                .filter(|millis| locating.may_answer(at(*millis), CAROL))
                .count()
        };
        assert_eq!(answered(100_000, 100_640), 64);
        assert_eq!(answered(100_640, 110_640), 42);
        assert!(locating.may_answer(at(110_640), DORA));
    }

    #[test]
    fn many_askers_have_four_a_second_and_what_is_remembered_is_bounded() {
        let mut locating = Locating::default();
        let mut asked = 0;
        for tick in 0..6_000_u64 {
            let asker = PeerIx(1_000 + u32::try_from(tick).unwrap());
            let now = at(100_000 + tick * 10);
            if locating.ask(now, asker, BO) == Asking::Now {
                locating.note_asked(now, (asker, BO), vec![CAROL]);
                asked += 1;
            }
            locating.may_answer(now, asker);
            assert!(locating.questions.len() <= REMEMBERED_MAX);
            assert!(locating.paid_at.len() <= REMEMBERED_MAX);
            assert!(locating.answers_paid_at.len() <= REMEMBERED_MAX);
        }
        assert_eq!(asked, 64 + 4 * 60 - 1);
    }
}
