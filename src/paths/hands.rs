//! By whose hand handshakes travel (design §9): one number for each pair of a third peer and who is at the far end.
//!
//! The data thread knows the numbers alone. What it wants handed on becomes the datagrams of one message here: a Knock
//! waits for its initiation.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    addr::Underlay,
    ids::{HandIx, JoinId, PeerIx},
    time::Moment,
    wire::datagram::{Datagram, classify},
};

/// Hands known at once: those of 80 attempts, each through 12 others. Beyond it the one longest unused is forgotten.
const HANDS_MAX: usize = 1024;

/// How long a Knock waits for its initiation, which leaves the data thread in the same breath.
const KNOCK_WAITS: Duration = Duration::from_secs(1);

/// Who is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Far {
    /// A member, by Call and Answer.
    Member(PeerIx),
    /// Somebody with a token, by Introduced.
    Joiner {
        /// Of which invite.
        join: JoinId,
        /// Where the third peer sees it.
        address: Underlay,
    },
}

/// One hand: who hands on, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The third peer.
    pub by: PeerIx,
    /// The far end.
    pub far: Far,
}

/// What is to be handed on, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// What this side begins: a Knock with its initiation, or the first packet behind a response.
    Asks(Vec<Vec<u8>>),
    /// A response.
    Answers(Vec<u8>),
    /// A Knock: it waits for its initiation.
    Waits,
    /// Nothing that travels by hand.
    Stray,
}

/// All hands of this run.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    next: u32,
    hands: BTreeMap<HandIx, Hand>,
    by_ends: BTreeMap<(PeerIx, Far), HandIx>,
}

#[derive(Clone, Debug)]
struct Hand {
    ends: Ends,
    knock: Option<(Vec<u8>, Moment)>,
    used: Moment,
}

impl Hands {
    /// The hand by which `by` hands on to `far`; made now if there is none. A number is never used twice.
    pub fn of(&mut self, now: Moment, ends: Ends) -> HandIx {
        if let Some(ix) = self.by_ends.get(&(ends.by, ends.far)).copied() {
            if let Some(hand) = self.hands.get_mut(&ix) {
                hand.used = now;
            }
            return ix;
        }
        if self.hands.len() >= HANDS_MAX {
            self.forget_oldest();
        }
        let ix = HandIx(self.next);
        self.next = self.next.wrapping_add(1);
        let hand = Hand {
            ends,
            knock: None,
            used: now,
        };
        self.hands.insert(ix, hand);
        self.by_ends.insert((ends.by, ends.far), ix);
        ix
    }

    /// Who hands on by this hand, and to whom.
    pub fn ends(&self, hand: HandIx) -> Option<Ends> {
        self.hands.get(&hand).map(|hand| hand.ends)
    }

    /// The data thread wants a datagram handed on: what it becomes.
    pub fn carry(&mut self, now: Moment, hand: HandIx, bytes: Vec<u8>) -> Letter {
        let Some(hand) = self.hands.get_mut(&hand) else {
            return Letter::Stray;
        };
        hand.used = now;
        match classify(&bytes) {
            Ok(Datagram::Sealed(_)) => {
                hand.knock = Some((bytes, now));
                Letter::Waits
            }
            Ok(Datagram::Initiation(_)) => match hand.knock.take() {
                Some((knock, since)) if now.since(since) < KNOCK_WAITS => {
                    Letter::Asks(vec![knock, bytes])
                }
                Some(_) | None => Letter::Stray,
            },
            Ok(Datagram::Data(_)) => Letter::Asks(vec![bytes]),
            Ok(Datagram::Response(_) | Datagram::Cookie(_)) => Letter::Answers(bytes),
            Ok(
                Datagram::Transport(_)
                | Datagram::Relayed(_)
                | Datagram::RelayBinding(_)
                | Datagram::Dht(_),
            )
            | Err(_) => Letter::Stray,
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.hands.iter().min_by_key(|(ix, hand)| (hand.used, **ix));
        let Some((ix, ends)) = oldest.map(|(ix, hand)| (*ix, hand.ends)) else {
            return;
        };
        self.hands.remove(&ix);
        self.by_ends.remove(&(ends.by, ends.far));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000_000);

    fn ends(by: u32, far: u32) -> Ends {
        Ends {
            by: PeerIx(by),
            far: Far::Member(PeerIx(far)),
        }
    }

    fn knock() -> Vec<u8> {
        let mut bytes = vec![0; 160];
        bytes[..3].copy_from_slice(&[0x30, 1, 1]);
        bytes
    }

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[0] = kind;
        bytes
    }

    #[test]
    fn a_pair_of_ends_has_one_number_and_each_pair_its_own() {
        let mut hands = Hands::default();
        let first = hands.of(NOW, ends(1, 2));
        assert_eq!(hands.of(NOW, ends(1, 2)), first);
        assert_ne!(hands.of(NOW, ends(2, 1)), first);
        assert_eq!(hands.ends(first), Some(ends(1, 2)));
        assert_eq!(hands.ends(HandIx(99)), None);
    }

    #[test]
    fn a_knock_waits_for_its_initiation_and_both_go_in_one_letter() {
        let mut hands = Hands::default();
        let hand = hands.of(NOW, ends(1, 2));
        assert_eq!(hands.carry(NOW, hand, knock()), Letter::Waits);
        let initiation = message(1, 148);
        assert_eq!(
            hands.carry(NOW, hand, initiation.clone()),
            Letter::Asks(vec![knock(), initiation.clone()])
        );
        assert_eq!(hands.carry(NOW, hand, initiation), Letter::Stray);
    }

    #[test]
    fn a_knock_without_its_initiation_is_forgotten() {
        let mut hands = Hands::default();
        let hand = hands.of(NOW, ends(1, 2));
        hands.carry(NOW, hand, knock());
        let late = NOW.after(KNOCK_WAITS);
        assert_eq!(hands.carry(late, hand, message(1, 148)), Letter::Stray);
    }

    #[test]
    fn a_response_answers_and_the_packet_behind_it_asks() {
        let mut hands = Hands::default();
        let hand = hands.of(NOW, ends(1, 2));
        let (response, first) = (message(2, 92), message(4, 32));
        assert_eq!(
            hands.carry(NOW, hand, response.clone()),
            Letter::Answers(response)
        );
        assert_eq!(
            hands.carry(NOW, hand, first.clone()),
            Letter::Asks(vec![first])
        );
        assert_eq!(hands.carry(NOW, hand, message(0x20, 60)), Letter::Stray);
    }

    #[test]
    fn hands_are_bounded_and_the_one_longest_unused_goes() {
        let mut hands = Hands::default();
        let first = hands.of(NOW, ends(0, 1));
        let second = hands.of(NOW.after(Duration::from_secs(1)), ends(1, 2));
        hands.of(NOW.after(Duration::from_secs(2)), ends(0, 1));
        for by in 2..=u32::try_from(HANDS_MAX).unwrap() {
            hands.of(NOW.after(Duration::from_secs(3)), ends(by, 0));
        }
        assert_eq!(hands.hands.len(), HANDS_MAX);
        assert_eq!(
            (hands.ends(first), hands.ends(second)),
            (Some(ends(0, 1)), None)
        );
        assert_eq!(hands.by_ends.len(), HANDS_MAX);
    }
}
