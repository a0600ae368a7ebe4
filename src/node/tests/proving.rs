//! What was proven to be reached from outside, and is so no more.

use super::*;

fn elsewhere(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

#[test]
fn where_others_agree_that_this_machine_is_elsewhere_nothing_is_proven_any_more() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let inside = elsewhere("192.168.1.5:41820");
    anna.handle_input(at_ms(1), Input::Addresses(vec![inside]));
    let (before, after) = (
        elsewhere("203.0.113.9:41820"),
        elsewhere("203.0.113.77:41820"),
    );
    let own = |node: &Node| node.members.peer(id(ANNA)).unwrap().clone();
    let told = |ms, node: &mut Node, observed| {
        let Message::Hello(mut greeting) = hello(OLD_RUN, true) else {
            panic!("a hello")
        };
        greeting.observed = Some(observed);
        say(node, at_ms(ms), BO, Message::Hello(greeting));
    };
    knock(&mut anna, at_ms(2), BO, 50, OLD_RUN);
    stand(&mut anna, at_ms(3), BO);
    told(4, &mut anna, before);
    assert_eq!(own(&anna).flags & 6, 6);
    assert_eq!(own(&anna).addresses.unwrap().first(), Some(&before));
    // The provider gave the router another address overnight.
    told(5, &mut anna, after);
    assert_eq!(own(&anna).flags & 6, 0);
    assert!(!own(&anna).addresses.unwrap().contains(&before));
}

#[test]
fn a_mapping_that_is_gone_is_proven_no_more() {
    let town = Town::new();
    for after in [None, Some(elsewhere("203.0.113.77:50000"))] {
        let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
        anna.handle_input(
            at_ms(1),
            Input::Addresses(vec![elsewhere("192.168.1.5:41820")]),
        );
        let mapped = elsewhere("203.0.113.9:50000");
        anna.outside.note_earlier(mapped);
        anna.handle_input(at_ms(2), Input::Mapped(Some(mapped)));
        let flags = |node: &Node| node.members.peer(id(ANNA)).unwrap().flags;
        assert_eq!(flags(&anna) & 6, 6);
        anna.handle_input(at_ms(3), Input::Mapped(after));
        assert_eq!(flags(&anna) & 6, 0);
    }
}

#[test]
fn tests_that_strangers_leave_unanswered_end_it_and_those_of_friends_do_not() {
    let town = Town::new();
    for (others, expected) in [(&[BO][..], 6), (&[BO, CAROL, 4][..], 0)] {
        let mut people = vec![ANNA];
        people.extend(others);
        let mut anna = town.node(ANNA, town.people(&people));
        let inside = elsewhere("192.168.1.5:41820");
        anna.handle_input(at_ms(1), Input::Addresses(vec![inside]));
        anna.outside = crate::paths::outside::Outside::default();
        let proven = elsewhere("203.0.113.9:41820");
        anna.outside.note_earlier(proven);
        stand(&mut anna, at_ms(2), BO);
        let Message::Hello(mut greeting) = hello(OLD_RUN, true) else {
            panic!("a hello")
        };
        greeting.observed = Some(proven);
        say(&mut anna, at_ms(3), BO, Message::Hello(greeting));
        // Only a link is bothered with a test.
        let yes = Message::Link(Link { yes: true });
        say(&mut anna, at_ms(3), BO, yes);
        anna.publish_peer(at_ms(4));
        for _hour in 0..3 {
            // By then nothing was sent to those who are no friends.
            anna.on_prove(at_ms(20 * 60_000));
            drain(&mut anna);
        }
        let flags = anna.members.peer(id(ANNA)).unwrap().flags;
        assert_eq!(flags & 6, expected, "{others:?}");
    }
}
