//! Peers that meet in a LAN, one input at a time.

use super::*;
use crate::{addr::Path, wire::sealed::Beacon};

fn neighbour(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

fn beacon(node: &mut Node, ms: u64, (from, stamp): (u8, u64), source: &str) -> Vec<Output> {
    let body = Sealed::Beacon(Beacon {
        node: id(from),
        stamp,
        port: 41820,
        boot: OLD_RUN,
        signature: [0; 64],
    });
    let input = Input::Lan {
        source: neighbour(source),
        hint: [0; 8],
        body,
    };
    node.handle_input(at_ms(ms), input);
    drain(node)
}

fn dialled(outputs: &[Output]) -> Vec<Path> {
    let mut all = Vec::new();
    for output in outputs {
        if let Output::Dial { to, .. } = output {
            all.extend(to.iter().copied());
        }
    }
    all
}

fn beacons(outputs: &[Output]) -> usize {
    let is_beacon = |output: &&Output| matches!(output, Output::Beacon { .. });
    outputs.iter().filter(is_beacon).count()
}

const THERE: &str = "192.168.1.7:41820";

#[test]
fn a_beacon_is_answered_by_a_knock_at_its_source_with_its_own_port() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA], BO));
    let outputs = beacon(&mut anna, 1, (BO, 50), "192.168.1.7:999");
    assert!(dialled(&outputs).contains(&neighbour(THERE).into()));
    let heard = anna.neighbours();
    assert_eq!(
        (heard[0].node, heard[0].address),
        (id(BO), neighbour(THERE))
    );
}

#[test]
fn a_beacon_that_is_played_again_from_elsewhere_makes_nobody_knock_there() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA], BO));
    beacon(&mut anna, 1, (BO, 50), THERE);
    let outputs = beacon(&mut anna, 2, (BO, 50), "192.168.1.66:41820");
    assert_eq!(dialled(&outputs), []);
    assert_eq!(count(&anna, "beacon_again"), 1);
    // Nor one from before a Knock that was taken.
    knock(&mut anna, at_ms(3), BO, 80, OLD_RUN);
    let outputs = beacon(&mut anna, 4, (BO, 79), "192.168.1.66:41820");
    assert_eq!(dialled(&outputs), []);
    assert_eq!(count(&anna, "beacon_again"), 2);
}

#[test]
fn a_beacon_of_a_stranger_or_of_one_who_was_revoked_is_nothing() {
    let town = Town::new();
    let mut records = town.with_sleeping(&[ANNA], BO);
    records.push(town.revoke(BO));
    let mut anna = town.node(ANNA, records);
    for from in [BO, MALLORY] {
        let outputs = beacon(&mut anna, 1, (from, 50), THERE);
        assert_eq!(dialled(&outputs), []);
    }
    assert_eq!(count(&anna, "beacon_not_member"), 2);
    assert_eq!(anna.neighbours(), []);
    // What a machine says to a group it hears itself.
    assert_eq!(dialled(&beacon(&mut anna, 2, (ANNA, 50), THERE)), []);
    assert_eq!(count(&anna, "beacon_not_member"), 2);
}

#[test]
fn where_a_session_stands_a_beacon_from_elsewhere_is_pinged_before_anything_moves() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    let outputs = beacon(&mut anna, 5_000, (BO, 50), THERE);
    let is_ping_there = |output: &Output| {
        matches!(output, Output::Send { message: Message::Ping(_), via: Some(via), .. }
            if *via == Path::Direct(neighbour(THERE)))
    };
    assert!(outputs.iter().any(is_ping_there), "{outputs:?}");
    let has_moved = |output: &Output| matches!(output, Output::SetPath { .. });
    assert!(!outputs.iter().any(has_moved) && dialled(&outputs).is_empty());
}

#[test]
fn a_neighbour_that_says_the_same_each_minute_costs_a_standing_session_nothing() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let session = pair(&mut anna, BO);
    let event = SessionEvent::Up {
        endpoint: neighbour(THERE).into(),
    };
    anna.handle_input(at_ms(1), Input::Session { session, event });
    drain(&mut anna);
    let other = "192.168.1.8:41820";
    let pings_there = |outputs: &[Output]| {
        let is_one = |output: &&Output| {
            matches!(output, Output::Send { message: Message::Ping(_), via: Some(via), .. }
                if *via == Path::Direct(neighbour(other)))
        };
        outputs.iter().filter(is_one).count()
    };
    let first = beacon(&mut anna, 5_000, (BO, 50), other);
    assert_eq!(pings_there(&first), 1, "it is new");
    anna.handle_input(at_ms(30_000), Input::Tick);
    drain(&mut anna);
    let again = beacon(&mut anna, 65_000, (BO, 51), other);
    assert_eq!(count(&anna, "beacon_again"), 0);
    assert_eq!(pings_there(&again), 0);
    let view = anna.paths(at_ms(65_000), id(BO)).unwrap();
    assert_eq!(view.doubted, None);
}

#[test]
fn on_a_lan_three_beacons_are_said_at_once_and_each_has_a_stamp_of_its_own() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    anna.handle_input(at_ms(0), Input::Places(1));
    let mut outputs = drain(&mut anna);
    for ms in (0..5_000).step_by(50) {
        anna.handle_input(at_ms(ms), Input::Tick);
        outputs.extend(drain(&mut anna));
    }
    assert_eq!(beacons(&outputs), 3);
    let mut stamps = Vec::new();
    for output in &outputs {
        if let Output::Beacon { stamp, .. } = output {
            stamps.push(*stamp);
        }
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    // The stamp is stored before it is used.
    let place = |is_it: &dyn Fn(&Output) -> bool| outputs.iter().position(is_it).unwrap();
    let stored = place(&|output| matches!(output, Output::Persist { .. }));
    assert!(stored < place(&|output| matches!(output, Output::Beacon { .. })));
    anna.handle_input(at_ms(6_000), Input::Places(0));
    for ms in (6_000..300_000).step_by(500) {
        anna.handle_input(at_ms(ms), Input::Tick);
    }
    assert_eq!(beacons(&drain(&mut anna)), 0);
}

#[test]
fn a_joiners_call_on_the_lan_is_answered_by_one_punch_and_costs_no_row() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    let secret = InviteSecret([8; 16]);
    let options = InviteOptions {
        secret: secret.clone(),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: vec!["*".to_owned()],
    };
    anna.invite(at_ms(0), options).unwrap();
    drain(&mut anna);
    let rows = anna.rows.len();
    let mut punches = 0;
    for call in 0..20 {
        let body = Sealed::Join(Join {
            node: id(MALLORY),
            tunnel: [1; 32],
            stamp: 50,
            boot: NEW_RUN,
            signature: [0; 64],
        });
        let (source, hint) = (neighbour(THERE), secret.join_id().0);
        anna.handle_input(at_ms(1 + call), Input::Lan { source, hint, body });
        let outputs = drain(&mut anna);
        assert_eq!(admission(&outputs), None);
        for output in outputs {
            if let Output::Punch { to, invite, .. } = output {
                assert_eq!((to, invite), (neighbour(THERE), secret.clone()));
                punches += 1;
            }
        }
    }
    assert_eq!((punches, anna.rows.len()), (8, rows));
    assert_eq!(count(&anna, "lan_join_too_often"), 12);
}

#[test]
fn a_joiner_takes_the_source_of_a_punch_as_one_more_hint_and_of_few() {
    let mut joiner = joiner_at(ANNA);
    let mut dials = Vec::new();
    let mut calls = 0;
    let mut take = |joiner: &mut Joiner| {
        while let Some(output) = joiner.poll_output() {
            match output {
                JoinerOutput::Dial { to, stamp } => dials.push((to, stamp)),
                JoinerOutput::Call { stamp } => {
                    assert_eq!(dials.last().map(|(_, last)| *last), Some(stamp));
                    calls += 1;
                }
                JoinerOutput::Send { .. }
                | JoinerOutput::OpenStream { .. }
                | JoinerOutput::Slot(_)
                | JoinerOutput::Introduce { .. }
                | JoinerOutput::Datagram { .. }
                | JoinerOutput::Close
                | JoinerOutput::Reached { .. }
                | JoinerOutput::Granted(_)
                | JoinerOutput::Refused(_) => panic!("nobody has answered yet"),
            }
        }
    };
    take(&mut joiner);
    joiner.handle_punch(at_ms(3), address(ANNA));
    for last in 0..10 {
        let source = neighbour(&format!("192.168.1.{last}:41820"));
        joiner.handle_punch(at_ms(4), source);
        joiner.handle_punch(at_ms(4), source);
    }
    take(&mut joiner);
    joiner.handle_timeout(at_ms(500));
    take(&mut joiner);
    assert_eq!(calls, 2);
    let dialled = |(to, _): &(Vec<Path>, u64)| {
        let by_hand = |path: &&Path| path.direct().is_none();
        to.iter().filter(|path| !by_hand(path)).count()
    };
    let wide: Vec<usize> = dials.iter().map(dialled).collect();
    assert_eq!(wide, [1, 1, 1, 1, 1, 5]);
    assert!(dials.is_sorted_by(|a, b| a.1 < b.1), "each has a new stamp");
}

#[test]
fn what_the_router_lets_in_is_published_and_taken_back() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    let outside = neighbour("203.0.113.9:50000");
    // Its own addresses are settled.
    anna.handle_input(at_ms(1001), Input::Mapped(Some(outside)));
    let addresses = |node: &Node| {
        let peer = node.members.peer(node.me).unwrap();
        peer.addresses.clone().unwrap()
    };
    assert_eq!(addresses(&anna), [outside, address(ANNA)]);
    let options = InviteOptions {
        secret: InviteSecret([8; 16]),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: Vec::new(),
    };
    let token = anna.invite(at_ms(1002), options).unwrap();
    assert_eq!(token.hints, [outside, address(ANNA)]);
    anna.handle_input(at_ms(1003), Input::Mapped(None));
    assert_eq!(addresses(&anna), [address(ANNA)]);
}
