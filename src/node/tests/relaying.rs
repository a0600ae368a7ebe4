//! Ways through a third peer: who gets one, and what an offer leads to.

use super::*;
use crate::{
    ids::{LegIx, StreamIx},
    node::{StreamEvent, relaying::PEER_RELAY},
    paths::class::Class,
    relay::{LegEvent, Order, Reason, grants::Grants},
    wire::{
        message::Pong,
        reaching::{RELAY_REQUEST, RelayClosed, RelayOffer, RelayRequest, Relaying},
    },
};

/// Anna, who carries for others and has sessions with bo and carol.
fn relay(town: &Town) -> Node {
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO, CAROL]));
    anna.grants = Grants::new([7; 32], Willing::Yes);
    for other in [BO, CAROL] {
        meet(&mut anna, at_ms(1), other);
    }
    anna
}

fn request(to: NodeId) -> Message {
    Message::Relaying(Relaying::Request(RelayRequest { to }))
}

fn offer(other: NodeId) -> Message {
    Message::Relaying(Relaying::Offer(RelayOffer {
        other,
        id: [4; 4],
        key: [5; 32],
    }))
}

fn orders(outputs: &[Output]) -> Vec<&Order> {
    let mut orders = Vec::new();
    for output in outputs {
        if let Output::Relay(order) = output {
            orders.push(order);
        }
    }
    orders
}

fn refusals(outputs: &[Output]) -> Vec<u64> {
    let mut reasons = Vec::new();
    for message in sent(outputs) {
        if let Message::Relaying(Relaying::Closed(RelayClosed { reason, .. })) = message {
            reasons.push(*reason);
        }
    }
    reasons
}

#[test]
fn a_way_is_open_before_its_ends_are_told_of_it() {
    let town = Town::new();
    let mut anna = relay(&town);
    let outputs = say(&mut anna, at_ms(2), BO, request(id(CAROL)));
    let [
        Output::Relay(Order::OpenWay(ends)),
        Output::Send {
            session: first,
            message: to_first,
            ..
        },
        Output::Send {
            session: second,
            message: to_second,
            ..
        },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let others = [(first, to_first, BO, CAROL), (second, to_second, CAROL, BO)];
    for ((session, message, to, other), end) in others.into_iter().zip(ends) {
        assert_eq!(*session, pair(&mut anna, to));
        let Message::Relaying(Relaying::Offer(offer)) = message else {
            panic!("{message:?}")
        };
        assert_eq!((offer.other, offer.id), (id(other), end.id));
        assert_eq!(offer.key, end.key.0);
    }
}

#[test]
fn a_relay_is_asked_for_members_and_what_stands_for_an_address_is_nobody() {
    let addresses = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "169.254.169.254",
        "fe80::1",
        "fd00::1",
        "10.0.0.1",
        "192.168.1.1",
        "0.0.0.0",
    ];
    let town = Town::new();
    let mut anna = relay(&town);
    let mut asked = 0;
    for text in addresses {
        let octets = match text.parse().unwrap() {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let with_port = [&octets[..], &41_820_u16.to_le_bytes()].concat();
        for encoding in [
            octets,
            with_port,
            text.into(),
            format!("{text}:41820").into(),
        ] {
            // In place of a node id it cannot be read at all …
            let short = &encoding[..encoding.len().min(23)];
            let head = [0xa1, 1, 0x40 + u8::try_from(short.len()).unwrap()];
            let body = [&head[..], short].concat();
            assert!(Relaying::decode(RELAY_REQUEST, &body).is_err(), "{text}");
            // … and made as long as one it is the id of nobody.
            let mut node = [0; 32];
            node[..encoding.len()].copy_from_slice(&encoding);
            let outputs = say(&mut anna, at_ms(2), BO, request(NodeId(node)));
            assert_eq!(orders(&outputs).len(), 0, "{text}");
            assert_eq!(refusals(&outputs), [Reason::NoSession.number()]);
            asked += 1;
        }
    }
    assert_eq!(asked, 40);
    for nobody in [id(ANNA), id(BO), id(MALLORY)] {
        let outputs = say(&mut anna, at_ms(3), BO, request(nobody));
        assert_eq!(refusals(&outputs), [Reason::NoSession.number()]);
    }
}

#[test]
fn who_does_not_carry_says_so_and_one_without_hello_is_not_heard() {
    let town = Town::new();
    let mut anna = relay(&town);
    anna.grants = Grants::new([7; 32], Willing::No);
    let outputs = say(&mut anna, at_ms(2), BO, request(id(CAROL)));
    assert_eq!(refusals(&outputs), [Reason::Unwilling.number()]);
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO, CAROL]));
    stand(&mut anna, at_ms(1), BO);
    let outputs = say(&mut anna, at_ms(2), BO, request(id(CAROL)));
    assert!(sent(&outputs).is_empty() && orders(&outputs).is_empty());
}

#[test]
fn the_ways_of_a_member_end_with_its_revocation() {
    let town = Town::new();
    let mut anna = relay(&town);
    say(&mut anna, at_ms(2), BO, request(id(CAROL)));
    let outputs = hand_over(&mut anna, at_ms(3), CAROL, &town.revoke(BO));
    assert!(matches!(orders(&outputs)[..], [Order::CloseWay(_)]));
    let told = Message::Relaying(Relaying::Closed(RelayClosed {
        other: id(BO),
        reason: Reason::NoSession.number(),
    }));
    let to_carol = pair(&mut anna, CAROL);
    let is_told = |output: &Output| matches!(output, Output::Send { session, message, .. } if *session == to_carol && *message == told);
    assert!(outputs.iter().any(is_told), "{outputs:?}");
}

/// Bo, who has a session with anna and wants carol.
fn seeker(town: &Town) -> Node {
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL]));
    meet(&mut bo, at_ms(1), ANNA);
    let carol = bo.ids.intern(id(CAROL));
    bo.handle_input(at_ms(2), Input::Wanted { peer: carol });
    drain(&mut bo);
    bo
}

#[test]
fn a_way_that_is_offered_is_bound_and_then_knocked_at() {
    let town = Town::new();
    let mut bo = seeker(&town);
    let outputs = say(&mut bo, at_ms(3), ANNA, offer(id(CAROL)));
    let [Order::AddLeg { leg, given }] = orders(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(given.relay, Path::Direct(address(ANNA)));
    assert_eq!(given.theirs, [4; 4]);
    let (leg, event) = (*leg, LegEvent::Bound);
    bo.handle_input(at_ms(4), Input::Leg { leg, event });
    let outputs = drain(&mut bo);
    let dials =
        |output: &Output| matches!(output, Output::Dial { to, .. } if *to == [Path::Relay(leg)]);
    assert!(outputs.iter().any(dials), "{outputs:?}");
    // The session stands there, and says through whom.
    let session = pair(&mut bo, CAROL);
    let event = SessionEvent::Up {
        endpoint: Path::Relay(leg),
    };
    bo.handle_input(at_ms(5), Input::Session { session, event });
    drain(&mut bo);
    let status = bo.status(at_ms(6));
    let carol = status
        .peers
        .iter()
        .find(|peer| peer.id == id(CAROL))
        .unwrap();
    assert_eq!(carol.via, ["anna"]);
}

#[test]
fn a_session_that_is_opened_over_two_relays_is_known_to_be() {
    const DAVE: u8 = 4;
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL, DAVE]));
    meet(&mut bo, at_ms(1), ANNA);
    // Carol by Anna's hand, and then Dave by Carol's.
    for (ms, by, to, relays) in [
        (10, ANNA, CAROL, Class::Relay),
        (20, CAROL, DAVE, Class::TwoRelays),
    ] {
        let peer = bo.ids.intern(id(to));
        bo.handle_input(at_ms(ms), Input::Wanted { peer });
        drain(&mut bo);
        let outputs = say(&mut bo, at_ms(ms), by, offer(id(to)));
        let [Order::AddLeg { leg, .. }] = orders(&outputs)[..] else {
            panic!("{outputs:?}")
        };
        let (leg, event) = (*leg, LegEvent::Bound);
        bo.handle_input(at_ms(ms), Input::Leg { leg, event });
        let session = SessionId::Pair(peer);
        let event = SessionEvent::Up {
            endpoint: Path::Relay(leg),
        };
        bo.handle_input(at_ms(ms), Input::Session { session, event });
        say(&mut bo, at_ms(ms), to, hello(OLD_RUN, true));
        assert_eq!(bo.proofs.class(session), Some(relays));
    }
}

#[test]
fn offers_to_nobody_to_this_machine_and_to_the_relay_itself_are_not_taken() {
    let town = Town::new();
    let mut bo = seeker(&town);
    for other in [id(MALLORY), id(BO), id(ANNA)] {
        let outputs = say(&mut bo, at_ms(3), ANNA, offer(other));
        assert!(orders(&outputs).is_empty(), "{outputs:?}");
    }
    assert_eq!(count(&bo, "relay_offer_unused"), 3);
    bo.handle_input(
        at_ms(4),
        Input::Leg {
            leg: LegIx(77),
            event: LegEvent::Bound,
        },
    );
    assert!(orders(&drain(&mut bo)).is_empty());
}

#[test]
fn who_wanted_somebody_that_was_away_gets_a_way_when_that_one_comes() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO, CAROL]));
    anna.grants = Grants::new([7; 32], Willing::Yes);
    meet(&mut anna, at_ms(1), BO);
    let outputs = say(&mut anna, at_ms(2), BO, request(id(CAROL)));
    assert_eq!(refusals(&outputs), [Reason::NoSession.number()]);
    let outputs = meet(&mut anna, at_ms(500), CAROL);
    assert!(matches!(orders(&outputs)[..], [Order::OpenWay(_)]));
    let is_offer = |message: &&&Message| matches!(message, Message::Relaying(Relaying::Offer(_)));
    assert_eq!(sent(&outputs).iter().filter(is_offer).count(), 2);
}

/// What the town knows when one of three says that it carries for others.
fn people_with_a_relay(town: &Town, relay: u8) -> Vec<Record> {
    let mut records = town.people(&[ANNA, BO, CAROL]);
    let tunnel = TunnelKey::from_seed([100 + relay; 32]);
    let peer = record::Peer {
        tunnel: tunnel.public(),
        cross: tunnel.cross_sign(id(relay), &town.network.0),
        wire_min: 1,
        wire_max: 1,
        features: 0,
        flags: 1 | PEER_RELAY,
        addresses: Some(vec![address(relay)]),
    };
    records.push(town.says(relay, relay, T0_S * 1000 + 1, Body::Peer(peer)));
    records
}

#[test]
fn a_relay_that_comes_up_is_asked_at_once_for_whom_no_way_was_found() {
    let town = Town::new();
    let mut bo = town.node(BO, people_with_a_relay(&town, ANNA));
    let carol = bo.ids.intern(id(CAROL));
    bo.handle_input(at_ms(2), Input::Wanted { peer: carol });
    bo.handle_input(at_ms(260), Input::Tick);
    drain(&mut bo);
    let outputs = meet(&mut bo, at_ms(400), ANNA);
    let asks = |message: &&Message| **message == request(id(CAROL));
    assert!(sent(&outputs).into_iter().any(|m| asks(&m)), "{outputs:?}");
}

#[test]
fn who_is_not_reached_from_outside_offers_neither_ways_nor_streams() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    anna.grants = Grants::new([7; 32], Willing::Yes);
    anna.settings.streams = true;
    let flags = |anna: &Node| anna.members.peer(id(ANNA)).unwrap().flags & 24;
    let taken = |from: &str| {
        let from = Underlay::new(from.parse().unwrap());
        Input::Stream(StreamEvent::Taken { from })
    };
    for inside in ["192.168.1.7:40000", "127.0.0.1:40000"] {
        anna.handle_input(at_ms(1), taken(inside));
        assert_eq!(flags(&anna), 0, "{inside}");
    }
    anna.handle_input(at_ms(2), taken("198.51.100.7:40000"));
    assert_eq!(flags(&anna), 24);
    // Elsewhere that proves nothing.
    let moved = vec![Underlay::new("192.0.2.99:41820".parse().unwrap())];
    anna.handle_input(at_ms(3), Input::Addresses(moved));
    assert_eq!(flags(&anna), 0);
}

/// Bo's session with anna stands on a stream.
fn on_a_stream(town: &Town) -> (Node, SessionId) {
    let mut bo = town.node(BO, town.people(&[ANNA, BO]));
    let session = pair(&mut bo, ANNA);
    let endpoint = Path::Stream(StreamIx(3));
    let event = SessionEvent::Up { endpoint };
    bo.handle_input(at_ms(1), Input::Session { session, event });
    drain(&mut bo);
    (bo, session)
}

fn closed() -> Input {
    Input::Stream(StreamEvent::Closed {
        stream: StreamIx(3),
    })
}

/// The nonce of the Ping that went to anna's socket, if one did.
fn nonce_to_anna(outputs: &[Output]) -> Option<[u8; 8]> {
    outputs.iter().find_map(|output| match output {
        Output::Send {
            message: Message::Ping(ping),
            via: Some(Path::Direct(to)),
            ..
        } if *to == address(ANNA) => Some(ping.nonce),
        _ => None,
    })
}

#[test]
fn a_session_whose_stream_ends_goes_on_by_another_path_that_answered() {
    let town = Town::new();
    let (mut bo, session) = on_a_stream(&town);
    let source = Path::Direct(address(ANNA));
    let answer = |bo: &mut Node, ms: u64, nonce| {
        let pong = Pong {
            nonce,
            path: 1,
            observed: None,
        };
        say(bo, at_ms(ms), ANNA, Message::Pong(pong))
    };
    bo.handle_input(at_ms(2), Input::NewPath { session, source });
    let nonce = nonce_to_anna(&drain(&mut bo)).expect("it is asked");
    answer(&mut bo, 3, nonce);
    bo.handle_input(at_ms(4), closed());
    let outputs = drain(&mut bo);
    assert!(!has_closed(&outputs, session), "{outputs:?}");
    bo.handle_input(at_ms(300), Input::Tick);
    let nonce = nonce_to_anna(&drain(&mut bo)).expect("it is asked again");
    let outputs = answer(&mut bo, 301, nonce);
    let moves =
        |output: &Output| matches!(output, Output::SetPath { endpoint, .. } if *endpoint == source);
    assert!(outputs.iter().any(moves), "{outputs:?}");
}

#[test]
fn a_session_that_had_its_stream_alone_ends_with_it() {
    let town = Town::new();
    let (mut bo, session) = on_a_stream(&town);
    bo.handle_input(at_ms(4), closed());
    assert!(has_closed(&drain(&mut bo), session));
}
