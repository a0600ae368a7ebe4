//! Peers that say in their session where else they may be.

use super::*;
use crate::wire::reaching::{Candidates, Reaching};

fn elsewhere(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

fn candidates(addresses: &[Underlay]) -> Reaching {
    Reaching::Candidates(Candidates {
        addresses: addresses.to_vec(),
    })
}

#[test]
fn where_a_peer_says_that_it_may_be_it_is_tried_if_its_packets_bear_that_out() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    let other_port = elsewhere("192.0.2.2:5555");
    let all = [
        elsewhere("203.0.113.5:41820"),
        other_port,
        elsewhere("192.168.1.9:41820"),
    ];
    let outputs = say(&mut anna, at_ms(2), BO, Message::Reaching(candidates(&all)));
    let pinged = |output: &Output| match output {
        Output::Send {
            message: Message::Ping(_),
            via,
            ..
        } => *via,
        _ => None,
    };
    let pinged: Vec<Path> = outputs.iter().filter_map(pinged).collect();
    assert_eq!(pinged, [Path::Direct(other_port)]);
}

#[test]
fn who_moves_says_so_to_those_it_talks_with_themselves() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    let (session, moved) = (pair(&mut anna, BO), elsewhere("192.0.2.77:41820"));
    let heard = Input::Heard(vec![Used {
        session,
        heard: at_ms(2000).at,
        user: at_ms(2000).at,
    }]);
    anna.handle_input(at_ms(2000), heard);
    anna.handle_input(at_ms(2001), Input::Addresses(vec![moved]));
    drain(&mut anna);
    anna.handle_input(at_ms(3100), Input::Tick);
    let outputs = drain(&mut anna);
    let told = sent(&outputs);
    let expected = Message::Reaching(candidates(&[moved]));
    assert!(told.contains(&&expected), "{told:?}");
}

#[test]
fn three_moves_in_a_row_are_all_told() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    for round in 1..=3_u8 {
        let from = u64::from(round) * 10_000;
        let there = Underlay::new(([192, 168, round, 7], 41820).into());
        let changes = [(0, vec![]), (200, vec![there])];
        for (ms, addresses) in changes {
            anna.handle_input(at_ms(from + ms), Input::Addresses(addresses));
        }
        for ms in (300..3000).step_by(100) {
            anna.handle_input(at_ms(from + ms), Input::Tick);
        }
        let told = anna.members.peer(id(ANNA)).unwrap().addresses.clone();
        assert_eq!(told, Some(vec![there]), "round {round}");
    }
}
