//! Whom this node can be made to write to, and what to remember (review-security S10, T18; reliability D8, D9): a member,
//! and the third peers that help it, name addresses in every message that holds one.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    calling::{a_knock, a_response, an_initiation, answer, call, called, elsewhere, pinged, says},
    *,
};
use crate::{
    addr::tests::NOBODY,
    wire::reaching::{Answer, Call, Candidates, KnockAt, Reaching},
};

// What is remembered, and how much is sent.

#[test]
fn a_call_of_nobody_leaves_nothing_behind() {
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL]));
    meet(&mut bo, at_ms(1), CAROL);
    for stranger in 50..150 {
        says(&mut bo, 10, CAROL, Reaching::Call(call(stranger, BO)));
        let knock_at = KnockAt {
            node: id(stranger),
            address: elsewhere("198.51.100.7:5000"),
        };
        says(&mut bo, 10, CAROL, Reaching::KnockAt(knock_at));
    }
    // Those at whom to knock may become known by then.
    bo.handle_input(at_ms(400), Input::Tick);
    assert_eq!(count(&bo, "call_of_nobody"), 100);
    let (nobody, too_many) = (
        count(&bo, "knock_at_nobody"),
        count(&bo, "knock_at_too_often"),
    );
    assert_eq!((nobody, too_many), (64, 36));
    assert!((50..150).all(|stranger| bo.ids.find(id(stranger)).is_none()));
}

/// Bo, who has sessions with anna and carol, after 200 messages of carol's; and how many of the addresses in them he
/// Pinged.
fn after_200(message: impl Fn(Vec<Underlay>) -> Reaching) -> (Node, usize) {
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL]));
    meet(&mut bo, at_ms(1), CAROL);
    meet(&mut bo, at_ms(2), ANNA);
    let mut victims = BTreeSet::new();
    for ms in 0..200_u64 {
        let victim = |of: u64| elsewhere(&format!("198.51.{ms}.{of}:5000"));
        let seen: Vec<Underlay> = (1..=4).map(victim).collect();
        let outputs = says(&mut bo, 1_000 + ms, CAROL, message(seen));
        let is_named = |at: &Underlay| at.to_string().starts_with("198.51.");
        victims.extend(pinged(&outputs).into_iter().filter(is_named));
    }
    (bo, victims.len())
}

#[test]
fn calls_that_a_third_invents_aim_nobody_at_strangers_without_end() {
    let (bo, by_call) = after_200(|seen| {
        Reaching::Call(Call {
            datagrams: Vec::new(),
            ttl: 0,
            seen,
            ..call(ANNA, BO)
        })
    });
    assert!((1..=20).contains(&by_call), "{by_call}");
    assert_eq!(count(&bo, "call_too_much"), 190);
    let (bo, by_answer) = after_200(|seen| {
        Reaching::Answer(Answer {
            datagrams: Vec::new(),
            seen,
            ..answer(ANNA, BO)
        })
    });
    assert_eq!(by_answer, 0, "nobody was called");
    assert_eq!(count(&bo, "answer_to_nothing"), 200);
}

#[test]
fn a_bare_response_goes_twice_at_most_to_where_a_third_claims_to_see_the_caller() {
    let town = Town::new();
    let (mut bo, hand) = called(&town);
    let Path::Handed(hand) = hand else {
        panic!("a call comes by hand")
    };
    let is_bare = |output: &Output| matches!(output, Output::Datagram { .. });
    let mut bare = 0;
    for ms in 12..112 {
        let bytes = a_response();
        bo.handle_input(at_ms(ms), Input::Handed { hand, bytes });
        bare += drain(&mut bo).into_iter().filter(is_bare).count();
    }
    assert_eq!(bare, 2);
}

#[test]
fn a_home_is_pinged_by_the_other_family_only_where_a_peer_may_be_and_within_bounds() {
    let town = Town::new();
    let pings = |published: &str| {
        let mut records = town.people(&[ANNA, BO, CAROL]);
        let tunnel = TunnelKey::from_seed([100 + CAROL; 32]);
        let peer = record::Peer {
            tunnel: tunnel.public(),
            cross: tunnel.cross_sign(id(CAROL), &town.network.0),
            wire_min: 1,
            wire_max: 1,
            features: 0,
            flags: 7,
            addresses: Some(vec![address(CAROL), elsewhere(published)]),
        };
        records.push(town.says(CAROL, CAROL, T0_S * 1000 + 1, Body::Peer(peer)));
        let mut bo = town.node(BO, records);
        let own = vec![address(BO), elsewhere("[2001:db8:b0::1]:41820")];
        bo.handle_input(at_ms(1), Input::Addresses(own));
        meet(&mut bo, at_ms(2), CAROL);
        let carol = bo.ids.intern(id(CAROL));
        let mut there = 0;
        for second in 1..500 {
            bo.stay_with(at_ms(second * 1000), carol);
            bo.handle_input(at_ms(second * 1000), Input::Tick);
            let outputs = drain(&mut bo);
            there += pinged(&outputs)
                .into_iter()
                .filter(|at| *at == elsewhere(published))
                .count();
        }
        there
    };
    for nobody in ["[::1]:41820", "[2001:db8::1]:53"] {
        assert_eq!(pings(nobody), 0, "{nobody}");
    }
    assert_eq!(pings("[2001:db8::1]:41820"), 5);
}

#[test]
fn one_address_is_knocked_at_twice_whoever_is_said_to_be_there() {
    let town = Town::new();
    let sleepers: Vec<u8> = (20..40).collect();
    let mut records = town.people(&[BO, CAROL]);
    for sleeper in &sleepers {
        records.extend(town.sleeping(*sleeper));
    }
    let mut bo = town.node(BO, records);
    meet(&mut bo, at_ms(1), CAROL);
    let mut knocks = 0;
    for sleeper in sleepers {
        let knock_at = KnockAt {
            node: id(sleeper),
            address: elsewhere(&format!("198.51.100.7:{}", 5_000 + u16::from(sleeper))),
        };
        knocks += dials(&says(&mut bo, 10, CAROL, Reaching::KnockAt(knock_at)));
    }
    assert_eq!(knocks, 2);
}

// Where it goes.

/// Where this node writes, however it is asked to; a Knock and its initiation are one.
fn targets(outputs: &[Output]) -> Vec<Underlay> {
    let mut all = Vec::new();
    for output in outputs {
        match output {
            Output::Send { via: Some(via), .. } => all.extend(via.direct()),
            Output::Dial { to, .. } => all.extend(to.iter().filter_map(|path| path.direct())),
            Output::Datagram { to, .. } => all.extend(to.direct()),
            Output::Punch { to, .. } | Output::Open { to, .. } => {
                all.push(*to);
            }
            _ => {}
        }
    }
    all
}

/// What Carol may say that names an address: where Anna is, by her word, and where a third peer saw her.
fn lies(at: Underlay, seen: Underlay) -> [Reaching; 6] {
    let call = |datagrams| {
        Reaching::Call(Call {
            datagrams,
            addresses: vec![at],
            seen: vec![seen],
            ttl: 0,
            ..call(ANNA, BO)
        })
    };
    let answer = |datagrams| {
        Reaching::Answer(Answer {
            datagrams,
            addresses: vec![at],
            seen: vec![seen],
            ..answer(ANNA, BO)
        })
    };
    [
        call(Vec::new()),
        call(vec![a_knock(), an_initiation()]),
        answer(Vec::new()),
        answer(vec![a_response()]),
        Reaching::Candidates(Candidates {
            addresses: vec![at],
        }),
        Reaching::KnockAt(KnockAt {
            node: id(ANNA),
            address: seen,
        }),
    ]
}

/// Bo hears a lie. He has called Anna by the liar's hand, so that an Answer may come; and what his data thread is given of
/// a handshake it answers.
fn hears(bo: &mut Node, ms: u64, liar: u8, lie: Reaching) -> Vec<Output> {
    let (liar_ix, anna) = (bo.ids.intern(id(liar)), bo.ids.intern(id(ANNA)));
    bo.listening.note_asked(at_ms(ms).at, liar_ix, anna);
    let mut outputs = says(bo, ms, liar, lie);
    let hand = outputs.iter().find_map(|output| match output {
        Output::Take {
            source: Path::Handed(hand),
            ..
        } => Some(*hand),
        _ => None,
    });
    if let Some(hand) = hand {
        let bytes = a_response();
        bo.handle_input(at_ms(ms), Input::Handed { hand, bytes });
        outputs.extend(drain(bo));
    }
    outputs
}

fn wait(node: &mut Node, (from, to): (u64, u64)) -> Vec<Output> {
    let mut outputs = Vec::new();
    for ms in (from..to).step_by(100) {
        node.handle_input(at_ms(ms), Input::Tick);
        outputs.extend(drain(node));
    }
    outputs
}

/// Where Bo writes within 5 s of one lie; after a handshake by hand the session stands.
fn written_for(bo: &Node, lie: Reaching) -> Vec<Underlay> {
    let mut bo = bo.clone();
    let mut outputs = hears(&mut bo, 1000, CAROL, lie);
    let source = outputs.iter().find_map(|output| match output {
        Output::Take { source, .. } => Some(*source),
        _ => None,
    });
    if let Some(endpoint) = source {
        let session = pair(&mut bo, ANNA);
        let event = SessionEvent::Up { endpoint };
        bo.handle_input(at_ms(1002), Input::Session { session, event });
        outputs.extend(drain(&mut bo));
    }
    outputs.extend(wait(&mut bo, (1100, 6000)));
    targets(&outputs)
}

/// Bo, who has a session with each of these; and one who has one with Anna too.
fn bo_twice(town: &Town, liars: &[u8]) -> [Node; 2] {
    let awake = [&[BO][..], liars].concat();
    let mut alone = town.node(BO, town.with_sleeping(&awake, ANNA));
    for liar in liars {
        meet(&mut alone, at_ms(1), *liar);
    }
    let mut both = alone.clone();
    meet(&mut both, at_ms(2), ANNA);
    // Nothing of what follows is about the links of these.
    for node in [&mut alone, &mut both] {
        wait(node, (10, 900));
    }
    [alone, both]
}

#[test]
fn nothing_goes_to_this_host_its_link_or_many_in_whatever_message_and_form() {
    let town = Town::new();
    let nodes = bo_twice(&town, &[CAROL]);
    for text in NOBODY {
        let there = elsewhere(text);
        for lie in lies(there, there) {
            for node in &nodes {
                let written = written_for(node, lie.clone());
                assert!(
                    !written.iter().any(|to| to.ip() == there.ip()),
                    "{text} by {lie:?}: {written:?}"
                );
            }
        }
    }
    // The same messages are obeyed where they name somebody, but Candidates: nobody has seen Carol there.
    let there = elsewhere("198.51.100.7:5000");
    let is_obeyed = |lie: &Reaching| {
        nodes
            .iter()
            .any(|node| written_for(node, lie.clone()).contains(&there))
    };
    let obeyed: Vec<bool> = lies(there, there).iter().map(is_obeyed).collect();
    assert_eq!(obeyed, [true, true, true, true, false, true]);
}

#[test]
fn a_peer_record_or_a_beacon_that_names_them_is_dialled_nowhere() {
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[BO, CAROL]));
    let carol = bo.ids.intern(id(CAROL));
    for text in NOBODY {
        bo.candidates.handle_published(carol, &[elsewhere(text)]);
        bo.candidates.handle_lan(at_ms(1), carol, elsewhere(text));
        assert_eq!(bo.candidates.of(at_ms(1), carol), [], "{text}");
    }
}

/// How often Bo, whose address is `own` in each second, writes to a victim for all that three peers tell him in ten minutes of
/// Anna, who says that she is there: without a session with her, and with one.
fn written_to_victim(seen: impl Fn(u16) -> Underlay, own: impl Fn(u16) -> Underlay) -> [usize; 2] {
    const LIARS: [u8; 3] = [CAROL, 4, 5];
    let town = Town::new();
    bo_twice(&town, &LIARS).map(|mut bo| {
        let mut outputs = Vec::new();
        for second in 1..600_u16 {
            let ms = u64::from(second) * 1000;
            bo.handle_input(at_ms(ms), Input::Addresses(vec![own(second)]));
            for liar in LIARS {
                let port = 1024 + 3 * second + u16::from(liar);
                for lie in lies(at_victim(port), seen(port)) {
                    outputs.extend(hears(&mut bo, ms, liar, lie));
                }
            }
            // And she says that she has sockets open, to be guessed at.
            outputs.extend(says(&mut bo, ms, ANNA, Reaching::Guess));
            outputs.extend(wait(&mut bo, (ms + 100, ms + 1000)));
        }
        let victim = at_victim(1024).ip();
        let all = targets(&outputs);
        all.iter().filter(|to| to.ip() == victim).count()
    })
}

fn at_victim(port: u16) -> Underlay {
    Underlay::new((Ipv4Addr::new(198, 51, 100, 7), port).into())
}

#[test]
fn who_is_asked_for_ten_minutes_to_call_a_victim_sends_nothing_where_thirds_are_honest() {
    let honest = |_| elsewhere("203.0.113.77:5000");
    assert_eq!(written_to_victim(honest, |_| address(BO)), [0, 0]);
}

#[test]
fn and_five_at_most_where_three_of_them_lie() {
    let written = written_to_victim(at_victim, |_| address(BO));
    assert!(
        written.iter().all(|count| (1..=5).contains(count)),
        "{written:?}"
    );
}

#[test]
fn and_twenty_where_somebody_makes_it_move_each_minute_as_well() {
    let roaming = |second| elsewhere(&format!("203.0.113.{}:41820", 10 + second / 60));
    let written = written_to_victim(at_victim, roaming);
    assert!(
        written.iter().all(|count| (1..=20).contains(count)),
        "{written:?}"
    );
    assert!(written.iter().any(|count| *count > 5), "the moves count");
}
