//! Whose Calls and Answers this machine takes in from the hand of a third peer (review-security S10): one member must
//! not make it Ping whom it likes by callers that it invents, nor by answers to what nobody asked.

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::PeerIx, time::Moment};

/// How long a Call, its tries, its Answer and the packet behind it may take: 6 Calls a minute of one caller by one hand.
const CALL_LASTS: Duration = Duration::from_secs(10);

/// Messages within one Call: its tries, and the packet behind each response.
const MESSAGES_MAX: u32 = 10;

/// Callers that one third peer may bring in [`CALL_LASTS`].
const CALLERS_MAX: usize = 64;

/// Calls remembered, each way.
const REMEMBERED_MAX: usize = 4096;

/// Calls of late: of others here, and of this machine elsewhere. Each by whose hand, and who is at the far end.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    heard: BTreeMap<(PeerIx, PeerIx), Heard>,
    asked: BTreeMap<(PeerIx, PeerIx), Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    begun: Moment,
    messages: u32,
}

impl Heard {
    fn is_under_way(&self, now: Moment) -> bool {
        now.since(self.begun) < CALL_LASTS
    }
}

impl Listening {
    /// A Call comes by the hand of a third peer: whether it is taken in. It is counted if so.
    pub fn takes_call(&mut self, now: Moment, by: PeerIx, caller: PeerIx) -> bool {
        let heard = self.heard.get_mut(&(by, caller));
        if let Some(heard) = heard.filter(|heard| heard.is_under_way(now)) {
            heard.messages += 1;
            return heard.messages <= MESSAGES_MAX;
        }
        let of_hand = self.heard.range((by, PeerIx(0))..=(by, PeerIx(u32::MAX)));
        let under_way = of_hand.filter(|(_, heard)| heard.is_under_way(now));
        if under_way.count() >= CALLERS_MAX {
            return false;
        }
        note(&mut self.heard, now, (by, caller))
    }

    /// Whether a caller is being listened to by this hand.
    pub fn is_called(&self, now: Moment, by: PeerIx, caller: PeerIx) -> bool {
        let heard = self.heard.get(&(by, caller));
        heard.is_some_and(|heard| heard.is_under_way(now))
    }

    /// This machine calls somebody by the hand of a third peer.
    pub fn note_asked(&mut self, now: Moment, by: PeerIx, called: PeerIx) {
        note(&mut self.asked, now, (by, called));
    }

    /// An Answer comes by that hand: whether it is taken in. It is counted if so.
    pub fn takes_answer(&mut self, now: Moment, by: PeerIx, called: PeerIx) -> bool {
        let asked = self.asked.get_mut(&(by, called));
        let Some(asked) = asked.filter(|asked| asked.is_under_way(now)) else {
            return false;
        };
        asked.messages += 1;
        asked.messages <= MESSAGES_MAX
    }
}

/// Remembers a Call that begins. False: there is no room.
fn note(
    table: &mut BTreeMap<(PeerIx, PeerIx), Heard>,
    now: Moment,
    ends: (PeerIx, PeerIx),
) -> bool {
    if table.len() >= REMEMBERED_MAX {
        table.retain(|_, heard| heard.is_under_way(now));
    }
    let has_room = table.len() < REMEMBERED_MAX || table.contains_key(&ends);
    if has_room {
        let heard = Heard {
            begun: now,
            messages: 1,
        };
        table.insert(ends, heard);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: PeerIx = PeerIx(1);
    const BO: PeerIx = PeerIx(2);

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn one_caller_is_heard_ten_times_in_ten_seconds_by_one_hand() {
        let mut listening = Listening::default();
        let heard = |listening: &mut Listening, second| {
            (0..200)
                .filter(|_| listening.takes_call(at(second), HOME, BO))
                .count()
        };
        assert_eq!(heard(&mut listening, 1), 10);
        assert_eq!(heard(&mut listening, 10), 0);
        assert_eq!(heard(&mut listening, 11), 10);
        assert!(listening.takes_call(at(11), PeerIx(7), BO), "another hand");
    }

    #[test]
    fn one_hand_brings_64_callers_and_no_more() {
        let mut listening = Listening::default();
        let callers = (10..1_000).map(PeerIx);
        let heard = callers.filter(|caller| listening.takes_call(at(1), HOME, *caller));
        assert_eq!(heard.count(), CALLERS_MAX);
        assert!(!listening.is_called(at(1), HOME, PeerIx(900)));
        assert!(listening.is_called(at(1), HOME, PeerIx(10)));
        assert!(listening.takes_call(at(11), HOME, PeerIx(900)));
    }

    #[test]
    fn an_answer_needs_a_call_of_the_last_seconds_by_the_same_hand() {
        let mut listening = Listening::default();
        assert!(!listening.takes_answer(at(1), HOME, BO));
        listening.note_asked(at(1), HOME, BO);
        assert!(!listening.takes_answer(at(1), PeerIx(7), BO));
        let taken = (0..200).filter(|_| listening.takes_answer(at(2), HOME, BO));
        assert_eq!(taken.count(), 9);
        listening.note_asked(at(3), HOME, BO);
        assert!(listening.takes_answer(at(12), HOME, BO));
        assert!(!listening.takes_answer(at(13), HOME, BO));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut listening = Listening::default();
        for number in 0..20_000 {
            let is_taken = listening.takes_call(at(1), PeerIx(number), BO);
            assert_eq!(is_taken, number < 4096, "{number}");
            listening.note_asked(at(1), PeerIx(number), BO);
        }
        assert_eq!(listening.heard.len(), REMEMBERED_MAX);
        assert_eq!(listening.asked.len(), REMEMBERED_MAX);
    }
}
