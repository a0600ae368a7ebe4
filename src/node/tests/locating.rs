//! Who could hand a Call on is found through neighbours, whoever this node is in it: the one called through, the neighbour,
//! or the caller.

use super::{
    calling::{a_knock, an_initiation, call, says, sent_to},
    *,
};
use crate::ids::PeerIx;
use crate::wire::reaching::{Call, Locate, Located, NotHere, Reaching};

/// Neighbours of whoever is called through.
const DORA: u8 = 40;
const EVE: u8 = 41;

/// One that speaks with these.
fn one_with(town: &Town, own: u8, neighbours: &[u8]) -> Node {
    let mut node = town.node(own, town.people(&[ANNA, BO, CAROL, DORA, EVE]));
    for neighbour in neighbours {
        meet(&mut node, at_ms(1), *neighbour);
    }
    drain(&mut node);
    node
}

fn far_call() -> Reaching {
    Reaching::Call(Call {
        ttl: 2,
        ..call(ANNA, BO)
    })
}

fn locate(sought: u8) -> Reaching {
    Reaching::Locate(Locate { node: id(sought) })
}

fn located(sought: u8, at: u8) -> Reaching {
    Reaching::Located(Located {
        node: id(sought),
        at: id(at),
    })
}

fn not_here() -> Reaching {
    Reaching::NotHere(NotHere { node: id(BO) })
}

#[test]
fn who_cannot_hand_on_asks_neighbours_and_tells_the_caller_who_could() {
    let town = Town::new();
    let mut carol = one_with(&town, CAROL, &[ANNA, DORA, EVE]);
    let outputs = says(&mut carol, 10, ANNA, far_call());
    assert_eq!(
        sent_to(&mut carol, &outputs, ANNA),
        [Message::Reaching(not_here())]
    );
    for neighbour in [DORA, EVE] {
        let told = sent_to(&mut carol, &outputs, neighbour);
        assert_eq!(told, [Message::Reaching(locate(BO))], "{neighbour}");
    }
    // The next try of the same Call asks nobody again.
    let outputs = says(&mut carol, 300, ANNA, far_call());
    let told = sent_to(&mut carol, &outputs, DORA);
    assert!(!told.contains(&Message::Reaching(locate(BO))), "{told:?}");

    // Nobody but who was asked speaks for itself.
    for (by, at) in [(ANNA, ANNA), (EVE, DORA)] {
        let outputs = says(&mut carol, 310, by, located(BO, at));
        assert!(sent_to(&mut carol, &outputs, ANNA).is_empty(), "{by} {at}");
    }
    let outputs = says(&mut carol, 320, DORA, located(BO, DORA));
    assert_eq!(
        sent_to(&mut carol, &outputs, ANNA),
        [Message::Reaching(located(BO, DORA))]
    );
}

#[test]
fn an_ordinary_call_or_one_for_no_member_asks_nobody() {
    let town = Town::new();
    let mut carol = one_with(&town, CAROL, &[ANNA, DORA]);
    let ordinary = Reaching::Call(call(ANNA, BO));
    let for_nobody = Reaching::Call(Call {
        ttl: 2,
        ..call(ANNA, MALLORY)
    });
    for message in [ordinary, for_nobody] {
        let outputs = says(&mut carol, 10, ANNA, message);
        assert_eq!(sent_to(&mut carol, &outputs, ANNA).len(), 1);
        assert!(sent_to(&mut carol, &outputs, DORA).is_empty());
    }
    assert_eq!(count(&carol, "locate_not_member"), 1);
}

#[test]
fn who_is_asked_for_a_neighbour_names_itself_and_for_anybody_else_says_nothing() {
    let town = Town::new();
    let mut dora = one_with(&town, DORA, &[CAROL, BO]);
    let outputs = says(&mut dora, 10, CAROL, locate(BO));
    assert_eq!(
        sent_to(&mut dora, &outputs, CAROL),
        [Message::Reaching(located(BO, DORA))]
    );
    for other in [ANNA, CAROL, DORA, MALLORY] {
        let outputs = says(&mut dora, 20, CAROL, locate(other));
        assert!(sent_to(&mut dora, &outputs, CAROL).is_empty(), "{other}");
    }
}

#[test]
fn an_asker_is_told_no_more_than_its_share() {
    let town = Town::new();
    let mut dora = one_with(&town, DORA, &[CAROL, BO]);
    let answered = (0..200).filter(|_| {
        let outputs = says(&mut dora, 10, CAROL, locate(BO));
        !sent_to(&mut dora, &outputs, CAROL).is_empty()
    });
    assert_eq!(answered.count(), 64);
    assert_eq!(count(&dora, "locate_too_often"), 136);
}

/// By whose hands dials of somebody go.
fn hands(node: &mut Node, outputs: &[Output], whom: u8) -> Vec<PeerIx> {
    let its = pair(node, whom);
    let mut by = Vec::new();
    for output in outputs {
        let Output::Dial { session, to, .. } = output else {
            continue;
        };
        for path in to.iter().filter(|_| *session == its) {
            if let Path::Handed(hand) = path {
                by.push(node.hands.ends(*hand).unwrap().by);
            }
        }
    }
    by
}

#[test]
fn who_is_told_of_another_opens_a_session_by_the_tellers_hand_and_calls_through_it() {
    let town = Town::new();
    let mut anna = one_with(&town, ANNA, &[CAROL]);
    let [peer, carol, dora] = [BO, CAROL, DORA].map(|seed| anna.ids.intern(id(seed)));
    anna.handle_input(at_ms(10), Input::Wanted { peer });
    let mut ttls = Vec::new();
    for ms in (10..2_600).step_by(10) {
        anna.handle_input(at_ms(ms), Input::Tick);
        for output in drain(&mut anna) {
            let Output::Dial { to, .. } = output else {
                continue;
            };
            for path in to {
                let Path::Handed(hand) = path else { continue };
                for bytes in [a_knock(), an_initiation()] {
                    anna.handle_input(at_ms(ms), Input::Handed { hand, bytes });
                }
            }
        }
        for output in drain(&mut anna) {
            if let Output::Send {
                message: Message::Reaching(Reaching::Call(call)),
                ..
            } = output
            {
                ttls.push(call.ttl);
            }
        }
        says(&mut anna, ms, CAROL, not_here());
    }
    assert_eq!(ttls, [1, 2]);

    // Whom she did not call through is not believed.
    meet(&mut anna, at_ms(2_600), EVE);
    drain(&mut anna);
    let outputs = says(&mut anna, 2_610, EVE, located(BO, DORA));
    assert_eq!(count(&anna, "located_unused"), 1);
    assert!(hands(&mut anna, &outputs, DORA).is_empty());

    let outputs = says(&mut anna, 2_620, CAROL, located(BO, DORA));
    assert_eq!(hands(&mut anna, &outputs, DORA), [carol]);
    // Nor is anybody named for one that was named.
    let outputs = says(&mut anna, 2_630, CAROL, located(DORA, EVE));
    assert_eq!(count(&anna, "located_unused"), 2);
    assert!(hands(&mut anna, &outputs, EVE).is_empty());
    let outputs = meet(&mut anna, at_ms(2_700), DORA);
    assert_eq!(hands(&mut anna, &outputs, BO), [dora], "{outputs:?}");
    assert!(anna.attempts.is_under_way(peer));
}
