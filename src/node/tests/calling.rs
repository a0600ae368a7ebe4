//! Handshakes by a third peer's hand, whoever this node is in it: the third, the caller, or who is called; joiners that a
//! member introduces; and who may knock to see whether somebody is reached.

use super::*;
use crate::{
    node::StreamEvent,
    paths::distress::Cause,
    wire::{
        message::{Introduced, Ping, Pong},
        reaching::{Answer, Call, KnockAt, NotHere, Reaching},
        sealed::{self, Introduce},
    },
};

pub(super) fn elsewhere(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

pub(super) fn a_knock() -> Vec<u8> {
    let mut bytes = vec![0; 160];
    bytes[..3].copy_from_slice(&[0x30, 1, 1]);
    bytes
}

pub(super) fn an_initiation() -> Vec<u8> {
    let mut bytes = vec![0; 148];
    bytes[0] = 1;
    bytes
}

pub(super) fn a_response() -> Vec<u8> {
    let mut bytes = vec![0; 92];
    bytes[0] = 2;
    bytes
}

pub(super) fn call(from: u8, to: u8) -> Call {
    Call {
        to: id(to),
        from: id(from),
        ttl: 1,
        datagrams: vec![a_knock(), an_initiation()],
        addresses: vec![elsewhere("198.51.100.7:5000")],
        seen: Vec::new(),
    }
}

pub(super) fn answer(from: u8, to: u8) -> Answer {
    Answer {
        to: id(to),
        from: id(from),
        datagrams: vec![a_response()],
        addresses: Vec::new(),
        seen: Vec::new(),
    }
}

pub(super) fn says(node: &mut Node, ms: u64, from: u8, message: Reaching) -> Vec<Output> {
    say(node, at_ms(ms), from, Message::Reaching(message))
}

/// What was sent to one peer, Pings and Hellos aside.
pub(super) fn sent_to(node: &mut Node, outputs: &[Output], to: u8) -> Vec<Message> {
    let its = pair(node, to);
    let mut messages = Vec::new();
    for output in outputs {
        if let Output::Send {
            session, message, ..
        } = output
            && *session == its
        {
            messages.push(message.clone());
        }
    }
    messages
}

pub(super) fn pinged(outputs: &[Output]) -> Vec<Underlay> {
    let mut addresses = Vec::new();
    for output in outputs {
        if let Output::Send {
            message: Message::Ping(_),
            via: Some(Path::Direct(via)),
            ..
        } = output
        {
            addresses.push(*via);
        }
    }
    addresses
}

/// Carol, between Anna and Bo.
fn a_third(town: &Town) -> Node {
    let mut carol = town.node(CAROL, town.people(&[ANNA, BO, CAROL]));
    meet(&mut carol, at_ms(1), ANNA);
    meet(&mut carol, at_ms(2), BO);
    drain(&mut carol);
    carol
}

#[test]
fn a_third_says_who_calls_and_from_where_it_sees_them_whatever_the_caller_wrote() {
    let town = Town::new();
    let mut carol = a_third(&town);
    let lie = Call {
        from: id(MALLORY),
        seen: vec![elsewhere("198.51.100.7:5000")],
        ..call(ANNA, BO)
    };
    let outputs = says(&mut carol, 10, ANNA, Reaching::Call(lie));
    let told = sent_to(&mut carol, &outputs, BO);
    let ahead: usize = told
        .iter()
        .map(|message| match message {
            Message::Records(ahead) => ahead.records.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(ahead, 3, "the caller's records go ahead: {told:?}");
    let handed_on = Call {
        ttl: 0,
        seen: vec![address(ANNA)],
        ..call(ANNA, BO)
    };
    assert_eq!(
        told.last(),
        Some(&Message::Reaching(Reaching::Call(handed_on)))
    );
    // The next try brings no records again.
    let outputs = says(&mut carol, 300, ANNA, Reaching::Call(call(ANNA, BO)));
    let is_records = |message: &Message| matches!(message, Message::Records(_));
    assert!(!sent_to(&mut carol, &outputs, BO).iter().any(is_records));
}

#[test]
fn who_has_no_session_with_the_called_says_so() {
    let town = Town::new();
    let mut carol = town.node(CAROL, town.people(&[ANNA, BO, CAROL]));
    meet(&mut carol, at_ms(1), ANNA);
    let outputs = says(&mut carol, 10, ANNA, Reaching::Call(call(ANNA, BO)));
    let not_here = Message::Reaching(Reaching::NotHere(NotHere { node: id(BO) }));
    assert_eq!(sent_to(&mut carol, &outputs, ANNA), [not_here]);
}

#[test]
fn a_call_that_was_handed_on_before_goes_no_further() {
    let town = Town::new();
    let mut carol = a_third(&town);
    let far = Call {
        ttl: 0,
        ..call(ANNA, BO)
    };
    let outputs = says(&mut carol, 10, ANNA, Reaching::Call(far));
    assert!(sent_to(&mut carol, &outputs, BO).is_empty());
    assert_eq!(count(&carol, "call_too_far"), 1);
}

#[test]
fn an_answer_goes_back_to_who_called_and_to_nobody_else() {
    let town = Town::new();
    let mut carol = a_third(&town);
    let outputs = says(&mut carol, 10, BO, Reaching::Answer(answer(BO, ANNA)));
    assert!(sent_to(&mut carol, &outputs, ANNA).is_empty());
    assert_eq!(count(&carol, "answer_unasked"), 1);
    says(&mut carol, 20, ANNA, Reaching::Call(call(ANNA, BO)));
    let outputs = says(&mut carol, 30, BO, Reaching::Answer(answer(MALLORY, ANNA)));
    let back = Answer {
        seen: vec![address(BO)],
        ..answer(BO, ANNA)
    };
    let told = sent_to(&mut carol, &outputs, ANNA);
    assert_eq!(
        told.last(),
        Some(&Message::Reaching(Reaching::Answer(back)))
    );
}

/// Bo, called by Anna through Carol, until his data thread has her Knock; the path it came by.
pub(super) fn called(town: &Town) -> (Node, Path) {
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL]));
    meet(&mut bo, at_ms(1), CAROL);
    let here = Input::Addresses(vec![address(BO)]);
    bo.handle_input(at_ms(2), here);
    drain(&mut bo);
    let call = Call {
        addresses: vec![
            elsewhere("198.51.100.7:5000"),
            elsewhere("203.0.113.99:5000"),
            elsewhere("192.168.7.7:41820"),
        ],
        seen: vec![elsewhere("198.51.100.7:6000")],
        ttl: 0,
        ..call(ANNA, BO)
    };
    let outputs = says(&mut bo, 10, CAROL, Reaching::Call(call));
    let mut taken = Vec::new();
    for output in outputs {
        if let Output::Take { source, bytes } = output {
            taken.push((source, bytes));
        }
    }
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!((&taken[0].1, &taken[1].1), (&a_knock(), &an_initiation()));
    assert_eq!(taken[0].0, taken[1].0);
    (bo, taken[0].0)
}

fn knock_by(node: &mut Node, ms: u64, source: Path, from: u8) -> Vec<Output> {
    let body = Sealed::Knock(Knock {
        node: id(from),
        stamp: 50,
        boot: OLD_RUN,
        flags: 0,
        records: Vec::new(),
        signature: [0; 64],
    });
    let input = Input::Sealed {
        source,
        epoch: 0,
        hint: [0; 8],
        body,
    };
    node.handle_input(at_ms(ms), input);
    drain(node)
}

#[test]
fn a_knock_by_hand_is_of_whom_the_third_said_that_it_called() {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    assert_eq!(admission(&knock_by(&mut bo, 11, hand, CAROL)), None);
    assert_eq!(count(&bo, "knock_by_wrong_hand"), 1);
    assert_eq!(
        admission(&knock_by(&mut bo, 12, hand, ANNA)),
        Some(Admission::Keep)
    );
}

#[test]
fn what_the_data_thread_answers_by_hand_travels_back_as_an_answer() {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    let Path::Handed(hand) = hand else {
        panic!("a call comes by hand")
    };
    let input = Input::Handed {
        hand,
        bytes: a_response(),
    };
    bo.handle_input(at_ms(12), input);
    let outputs = drain(&mut bo);
    let told = sent_to(&mut bo, &outputs, CAROL);
    let Some(Message::Reaching(Reaching::Answer(answer))) = told.last() else {
        panic!("an answer: {told:?}")
    };
    assert_eq!(
        (answer.to, &answer.datagrams),
        (id(ANNA), &vec![a_response()])
    );
    assert_eq!(answer.addresses, [address(BO)]);
    // And bare to where the third sees the caller, to nowhere else.
    let mut bare = Vec::new();
    for output in &outputs {
        if let Output::Datagram { to, bytes } = output {
            bare.push((to.direct().unwrap(), bytes.clone()));
        }
    }
    assert_eq!(bare, [(elsewhere("198.51.100.7:6000"), a_response())]);
}

fn stand_by(node: &mut Node, ms: u64, hand: Path) -> Vec<Output> {
    let session = pair(node, ANNA);
    let event = SessionEvent::Up { endpoint: hand };
    node.handle_input(at_ms(ms), Input::Session { session, event });
    drain(node)
}

#[test]
fn a_session_by_hand_pings_what_a_third_has_seen_and_says_hello_when_a_path_is_proven() {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    knock_by(&mut bo, 11, hand, ANNA);
    let outputs = stand_by(&mut bo, 12, hand);
    let there = [
        elsewhere("198.51.100.7:6000"),
        elsewhere("198.51.100.7:5000"),
    ];
    assert_eq!(pinged(&outputs), there);
    assert!(hellos(&outputs).is_empty());
    let nonce = outputs.iter().find_map(|output| match output {
        Output::Send {
            message: Message::Ping(Ping { nonce, path, .. }),
            via: Some(Path::Direct(via)),
            ..
        } if *via == there[0] => Some((*nonce, *path)),
        _ => None,
    });
    let (nonce, path) = nonce.expect("it was pinged");
    let session = pair(&mut bo, ANNA);
    let pong = Pong {
        nonce,
        path,
        observed: None,
    };
    let input = Input::Message {
        session,
        source: Path::Direct(there[0]),
        message: Message::Pong(pong),
    };
    bo.handle_input(at_ms(60), input);
    let outputs = drain(&mut bo);
    assert_eq!(hellos(&outputs), [false]);
}

#[test]
fn a_session_by_hand_that_finds_no_path_ends() {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    knock_by(&mut bo, 11, hand, ANNA);
    let mut outputs = stand_by(&mut bo, 12, hand);
    for ms in (100..=10_100).step_by(100) {
        bo.handle_input(at_ms(ms), Input::Tick);
        outputs.extend(drain(&mut bo));
    }
    let session = pair(&mut bo, ANNA);
    assert!(has_closed(&outputs, session));
    assert!(!bo.is_pathless(bo.ids.find(id(ANNA)).unwrap()));
}

#[test]
fn a_program_that_waits_for_a_session_by_hand_is_told_though_the_other_side_opens_it_again_and_again()
 {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    knock_by(&mut bo, 11, hand, ANNA);
    stand_by(&mut bo, 12, hand);
    let (session, cause) = (pair(&mut bo, ANNA), Cause::Gone);
    bo.handle_input(at_ms(1_000), Input::Unheard { session, cause });
    let mut told = None;
    for ms in (1_100..=6_000).step_by(100) {
        if ms % 1_500 == 0 {
            stand_by(&mut bo, ms, hand);
        }
        bo.handle_input(at_ms(ms), Input::Tick);
        let is_told = |output: &Output| matches!(output, Output::Unreachable { .. });
        if drain(&mut bo).iter().any(is_told) {
            told = told.or(Some(ms));
        }
    }
    assert_eq!(told, Some(4_000), "3 s after it asked");
}

#[test]
fn who_wants_a_peer_calls_it_through_those_it_has_a_session_with() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO, CAROL]));
    meet(&mut anna, at_ms(1), CAROL);
    let peer = anna.ids.intern(id(BO));
    anna.handle_input(at_ms(10), Input::Wanted { peer });
    let outputs = drain(&mut anna);
    let hands: Vec<Path> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Dial { to, .. } => Some(to.clone()),
            _ => None,
        })
        .flatten()
        .filter(|path| !path.carries_data())
        .collect();
    let [Path::Handed(hand)] = hands[..] else {
        panic!("one hand: {hands:?}")
    };
    for bytes in [a_knock(), an_initiation()] {
        anna.handle_input(at_ms(11), Input::Handed { hand, bytes });
    }
    let outputs = drain(&mut anna);
    let told = sent_to(&mut anna, &outputs, CAROL);
    let Some(Message::Reaching(Reaching::Call(call))) = told.last() else {
        panic!("a call: {told:?}")
    };
    assert_eq!((call.to, call.ttl), (id(BO), 1));
    assert_eq!(call.datagrams, [a_knock(), an_initiation()]);
}

// Reached from outside.

#[test]
fn others_are_asked_to_knock_at_who_asks_and_nobody_at_itself() {
    let town = Town::new();
    let mut carol = a_third(&town);
    let outputs = says(&mut carol, 10, ANNA, Reaching::DialBack);
    let knock_at = KnockAt {
        node: id(ANNA),
        address: address(ANNA),
    };
    let told = sent_to(&mut carol, &outputs, BO);
    assert_eq!(
        told.last(),
        Some(&Message::Reaching(Reaching::KnockAt(knock_at)))
    );
    let to_itself = sent_to(&mut carol, &outputs, ANNA);
    assert!(to_itself.is_empty(), "{to_itself:?}");
    // Not again at once.
    let outputs = says(&mut carol, 100, ANNA, Reaching::DialBack);
    assert!(sent_to(&mut carol, &outputs, BO).is_empty());
}

#[test]
fn who_is_asked_knocks_at_strangers_alone_and_at_public_addresses() {
    let town = Town::new();
    let mut bo = town.node(BO, town.with_sleeping(&[BO, CAROL], ANNA));
    meet(&mut bo, at_ms(1), CAROL);
    let knock_at = |node: u8, address| {
        Reaching::KnockAt(KnockAt {
            node: id(node),
            address,
        })
    };
    for bad in ["192.168.1.1:41820", "127.0.0.1:41820", "198.51.100.7:22"] {
        let outputs = says(&mut bo, 10, CAROL, knock_at(ANNA, elsewhere(bad)));
        assert_eq!(dials(&outputs), 0, "{bad}");
    }
    let outputs = says(&mut bo, 11, CAROL, knock_at(CAROL, address(CAROL)));
    assert_eq!(dials(&outputs), 0, "a session stands");
    let there = elsewhere("198.51.100.7:5000");
    let outputs = says(&mut bo, 12, CAROL, knock_at(ANNA, there));
    let dialled = outputs.iter().find_map(|output| match output {
        Output::Dial { to, .. } => Some(to.clone()),
        _ => None,
    });
    assert_eq!(dialled, Some(vec![Path::Direct(there)]));
}

/// The Knock of the run that answers ours may overtake its answer.
#[test]
fn a_knock_for_anothers_proof_is_a_handshake_of_our_own_too() {
    let town = Town::new();
    let mut bo = town.node(BO, town.with_sleeping(&[BO, CAROL], ANNA));
    knock(&mut bo, at_ms(0), ANNA, 50, OLD_RUN);
    let session = pair(&mut bo, ANNA);
    let event = SessionEvent::Down;
    bo.handle_input(at_ms(10_000), Input::Session { session, event });
    meet(&mut bo, at_ms(10_001), CAROL);
    let wish = Reaching::KnockAt(KnockAt {
        node: id(ANNA),
        address: elsewhere("198.51.100.7:5000"),
    });
    let outputs = says(&mut bo, 11_000, CAROL, wish);
    assert_eq!(dials(&outputs), 1);
    let outputs = knock(&mut bo, at_ms(11_100), ANNA, 51, NEW_RUN);
    assert_eq!(admission(&outputs), Some(Admission::Keep));
}

#[test]
fn who_is_knocked_at_by_a_stranger_that_gets_in_says_that_it_is_dialable() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    anna.handle_input(at_ms(1), Input::Addresses(vec![address(ANNA)]));
    knock(&mut anna, at_ms(2), BO, 50, OLD_RUN);
    stand(&mut anna, at_ms(3), BO);
    let Message::Hello(mut greeting) = hello(OLD_RUN, true) else {
        panic!("a hello")
    };
    let own = |node: &Node| node.members.peer(id(ANNA)).unwrap().clone();
    assert_eq!(own(&anna).flags & 6, 0);
    greeting.observed = Some(address(ANNA));
    say(&mut anna, at_ms(4), BO, Message::Hello(greeting));
    let peer = own(&anna);
    assert_eq!(peer.flags & 6, 6);
    assert_eq!(peer.addresses.unwrap().first(), Some(&address(ANNA)));
}

// Joining through a member.

const OUTSIDE: &str = "198.51.100.7:5000";

fn a_join(secret: &InviteSecret) -> Vec<u8> {
    let mut bytes = vec![0; 160];
    bytes[..3].copy_from_slice(&[0x30, 1, 2]);
    bytes[4..12].copy_from_slice(&secret.join_id().0);
    bytes
}

fn introduce(node: &mut Node, ms: u64, secret: &InviteSecret, datagram: Vec<u8>) -> Vec<Output> {
    let input = Input::Sealed {
        source: Path::Direct(elsewhere(OUTSIDE)),
        epoch: 0,
        hint: secret.join_id().0,
        body: Sealed::Introduce(Introduce { datagram }),
    };
    node.handle_input(at_ms(ms), input);
    drain(node)
}

/// Carol, who holds the Invite record of Anna and has a session with her.
fn an_introducer(town: &Town) -> (Node, InviteSecret) {
    let secret = InviteSecret([8; 16]);
    let invite = record::Invite {
        introduce: secret.introduce_key(),
        expires: T0_S + 3600,
    };
    let mut records = town.people(&[ANNA, BO, CAROL]);
    let body = Body::Invite(invite, secret.join_id());
    records.push(town.says(ANNA, ANNA, T0_S * 1000, body));
    let mut carol = town.node(CAROL, records);
    meet(&mut carol, at_ms(1), ANNA);
    (carol, secret)
}

fn introduced(secret: &InviteSecret, datagram: Vec<u8>) -> Message {
    Message::Introduced(Introduced {
        join_id: secret.join_id(),
        joiner: elsewhere(OUTSIDE),
        datagram,
    })
}

#[test]
fn a_member_hands_a_joiners_datagrams_to_the_issuer_and_its_answers_back() {
    let town = Town::new();
    let (mut carol, secret) = an_introducer(&town);
    let outputs = introduce(&mut carol, 10, &secret, a_join(&secret));
    let told = sent_to(&mut carol, &outputs, ANNA);
    assert_eq!(told.last(), Some(&introduced(&secret, a_join(&secret))));
    let back = introduced(&secret, a_response());
    let outputs = say(&mut carol, at_ms(20), ANNA, back);
    let sent = outputs.iter().find_map(|output| match output {
        Output::Datagram { to, bytes } => Some((*to, bytes.clone())),
        _ => None,
    });
    assert_eq!(sent, Some((Path::Direct(elsewhere(OUTSIDE)), a_response())));
}

#[test]
fn a_joiner_whose_udp_is_blocked_is_introduced_on_a_stream_under_the_key_of_its_invite() {
    let town = Town::new();
    let (mut carol, secret) = an_introducer(&town);
    let mut header = Header {
        kind: sealed::Kind::Introduce,
        epoch: 0,
        hint: secret.join_id().0,
    };
    assert_eq!(
        carol.stream_keys(at_ms(5), &header),
        [secret.introduce_key()]
    );
    header.hint = [0; 8];
    assert!(carol.stream_keys(at_ms(5), &header).is_empty());

    let (stream, from) = (StreamIx(7), elsewhere(OUTSIDE));
    let hand_on = |carol: &mut Node, ms| {
        let input = Input::Sealed {
            source: Path::Stream(stream),
            epoch: 0,
            hint: secret.join_id().0,
            body: Sealed::Introduce(Introduce {
                datagram: a_join(&secret),
            }),
        };
        carol.handle_input(at_ms(ms), input);
        let outputs = drain(carol);
        sent_to(carol, &outputs, ANNA)
    };
    assert!(hand_on(&mut carol, 10).is_empty(), "nobody began it");
    let begun = Input::Stream(StreamEvent::Introducing { stream, from });
    carol.handle_input(at_ms(20), begun);
    let wanted = introduced(&secret, a_join(&secret));
    assert_eq!(hand_on(&mut carol, 30).last(), Some(&wanted));
    let back = introduced(&secret, a_response());
    let outputs = say(&mut carol, at_ms(40), ANNA, back);
    let is_answer = |output: &Output| matches!(output, Output::Datagram { to: Path::Stream(to), .. } if *to == stream);
    assert!(outputs.iter().any(is_answer));

    let over = Input::Stream(StreamEvent::Closed { stream });
    carol.handle_input(at_ms(50), over);
    assert!(hand_on(&mut carol, 60).is_empty(), "it is over");
}

#[test]
fn a_member_writes_to_nobody_who_did_not_come_and_for_nobody_but_the_issuer() {
    let town = Town::new();
    let (mut carol, secret) = an_introducer(&town);
    meet(&mut carol, at_ms(5), BO);
    let back = introduced(&secret, a_response());
    let outputs = say(&mut carol, at_ms(10), ANNA, back.clone());
    let is_datagram = |output: &Output| matches!(output, Output::Datagram { .. });
    assert!(!outputs.iter().any(is_datagram));
    introduce(&mut carol, 20, &secret, a_join(&secret));
    let outputs = say(&mut carol, at_ms(30), BO, back);
    assert!(!outputs.iter().any(is_datagram));
    let odd = introduced(&secret, b"GET / HTTP/1.1".to_vec());
    let outputs = say(&mut carol, at_ms(40), ANNA, odd);
    assert!(!outputs.iter().any(is_datagram));
    assert_eq!(count(&carol, "introduced_unasked"), 3);
}

#[test]
fn a_member_hands_on_joins_of_that_invite_and_wireguard_and_nothing_else() {
    let town = Town::new();
    let (mut carol, secret) = an_introducer(&town);
    let other = InviteSecret([9; 16]);
    for odd in [a_join(&other), a_knock(), vec![0x20; 60], Vec::new()] {
        let outputs = introduce(&mut carol, 10, &secret, odd);
        assert!(sent_to(&mut carol, &outputs, ANNA).is_empty());
    }
    let outputs = introduce(&mut carol, 20, &secret, an_initiation());
    assert_eq!(sent_to(&mut carol, &outputs, ANNA).len(), 1);
}

#[test]
fn an_issuer_that_is_not_reached_tells_the_network_and_takes_joiners_by_hand() {
    let town = Town::new();
    let (mut anna, secret) = open_door(&town, &[ANNA, BO, CAROL], MALLORY);
    let slot = slot_of(Kind::Invite, &id(ANNA).0, &secret.join_id().0);
    assert!(anna.registry.holds(slot).is_some());
    meet(&mut anna, at_ms(10), CAROL);
    let message = introduced(&secret, a_join(&secret));
    let outputs = say(&mut anna, at_ms(20), CAROL, message);
    let hand = outputs.iter().find_map(|output| match output {
        Output::Take { source, bytes } if *bytes == a_join(&secret) => Some(*source),
        _ => None,
    });
    let Some(hand @ Path::Handed(ix)) = hand else {
        panic!("it is taken in by hand: {outputs:?}")
    };
    // Its session has no path but that hand.
    let tunnel = TunnelKey::from_seed([150; 32]).public();
    let body = Sealed::Join(Join {
        node: id(50),
        tunnel,
        stamp: 60,
        boot: OLD_RUN,
        signature: [0; 64],
    });
    let input = Input::Sealed {
        source: hand,
        epoch: 0,
        hint: secret.join_id().0,
        body,
    };
    anna.handle_input(at_ms(21), input);
    let outputs = drain(&mut anna);
    let punched =
        |output: &Output| matches!(output, Output::Punch { to, .. } if *to == elsewhere(OUTSIDE));
    assert!(outputs.iter().any(punched), "{outputs:?}");
    let session = SessionId::Join(JoinIx(2));
    let event = SessionEvent::Up { endpoint: hand };
    anna.handle_input(at_ms(22), Input::Session { session, event });
    let outputs = drain(&mut anna);
    let by_hand = |output: &Output| {
        matches!(output, Output::Send { message: Message::Hello(_), via, session: to }
            if *via == Some(hand) && *to == session)
    };
    assert!(outputs.iter().any(by_hand), "{outputs:?}");
    anna.handle_input(
        at_ms(23),
        Input::Handed {
            hand: ix,
            bytes: a_response(),
        },
    );
    let outputs = drain(&mut anna);
    let told = sent_to(&mut anna, &outputs, CAROL);
    assert_eq!(told.last(), Some(&introduced(&secret, a_response())));
}
