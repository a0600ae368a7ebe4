//! When an exchange begins and ends, and what it refuses.

use std::time::Duration;

use super::world::*;
use crate::{
    ids::{NetworkId, NodeId},
    time::Moment,
    transport::{
        Carrier, EqualNodes, Exchange, Failure, Output, Refused,
        layout::Init,
        schedule::End,
        suite::{Aes, Suite},
    },
    wire::{
        Malformed,
        exchange::{self as frames, RESPONSE_LEN},
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn never(_: Piece, _: usize) -> Vec<Duration> {
    vec![]
}

#[test]
fn nothing_is_sent_before_a_user_packet_waits() {
    let mut world = World::new(1, Kem::Real, always);
    world.pass(600 * SECOND);
    assert_eq!(world.log, []);
    assert_eq!(world.ends[0].exchange.poll_timeout(), None);
}

#[test]
fn the_lower_node_id_begins_and_the_other_asks() {
    for (first, pleases) in [(ALICE_SIDE, 0), (BOB_SIDE, 1)] {
        let mut world = World::new(1, Kem::Real, always);
        world.send_user(first);
        world.pass(SECOND);
        let pieces: Vec<_> = world
            .log
            .iter()
            .map(|(from, piece, _)| (*from, *piece))
            .collect();
        let exchange = [
            (ALICE_SIDE, Piece::InitFirst),
            (ALICE_SIDE, Piece::InitSecond),
            (BOB_SIDE, Piece::ResponseFirst),
            (BOB_SIDE, Piece::ResponseSecond),
            (ALICE_SIDE, Piece::Done),
            (BOB_SIDE, Piece::Keepalive),
        ];
        assert!(pieces.ends_with(&exchange), "{pieces:?}");
        assert_eq!(world.count(Piece::Please), pleases);
        for end in &world.ends {
            assert_eq!(
                (&end.ups[..], end.refused.len()),
                (&[Suite::Aes256Gcm][..], 0)
            );
        }
    }
}

#[test]
fn a_pair_uses_aes_only_where_both_have_it() {
    for (alice, bob, suite) in [
        (Aes::InHardware, Aes::InHardware, Suite::Aes256Gcm),
        (Aes::InHardware, Aes::InSoftware, Suite::ChaCha20Poly1305),
        (Aes::InSoftware, Aes::InHardware, Suite::ChaCha20Poly1305),
    ] {
        let ends = [
            exchange(ALICE, BOB, terms(alice, 7)),
            exchange(BOB, ALICE, terms(bob, 8)),
        ];
        let mut world = World::of(ends, 1, Kem::Real, always);
        world.send_user(ALICE_SIDE);
        world.pass(SECOND);
        world.send_user(ALICE_SIDE);
        world.send_user(BOB_SIDE);
        world.pass(SECOND);
        assert!(world.ends.iter().all(|end| end.ups == [suite]));
        assert_eq!(
            (world.ends[0].by_transport, world.ends[1].by_transport),
            (1, 1)
        );
    }
}

#[test]
fn an_init_is_repeated_five_times_given_up_and_begun_again_after_a_pause() {
    let mut world = World::new(1, Kem::Cheap, never);
    for _ in 0..500 {
        world.send_user(ALICE_SIDE);
        world.pass(Duration::from_millis(100));
    }
    let times = world.times(Piece::InitFirst);
    let expected = [
        0, 250, 500, 1000, 2000, 4000, 40_000, 40_250, 40_500, 41_000, 42_000, 44_000,
    ];
    assert_eq!(times.len(), expected.len());
    for (found, expected) in times.iter().zip(expected) {
        let (found, begun) = (
            found.as_millis(),
            if expected < 40_000 { 0 } else { 40_000 },
        );
        let after = expected - begun;
        let (from, to) = (begun + after * 8 / 10, begun + after * 12 / 10);
        assert!(
            (from..=to + 100).contains(&found),
            "{found} is not about {expected}"
        );
    }
    assert!(
        times[1] != Duration::from_millis(250),
        "not all at the same time"
    );
    assert_eq!(world.ends[0].failures, [Failure::Silent, Failure::Silent]);
    // Both attempts have given their indexes back.
    world.pass(SECOND);
    assert_eq!(world.drawn(ALICE_SIDE), 0);
}

#[test]
fn a_please_is_repeated_given_up_and_honoured_after_the_pause_of_the_other() {
    // Alice's Inits are lost for 12 s: she gives up and pauses, and Bob pleads into it.
    let mut world = World::new(
        1,
        Kem::Cheap,
        losing(&[Piece::InitFirst, Piece::InitSecond]),
    );
    world.send_user(ALICE_SIDE);
    world.pass(12 * SECOND);
    world.set_fate(always);
    world.send_user(BOB_SIDE);
    world.pass(11 * SECOND);
    assert_eq!(world.count(Piece::Please), 6);
    assert_eq!(world.ends[1].failures, [Failure::Silent]);
    world.pass(20 * SECOND);
    assert_eq!(world.ends[1].ups, [Suite::Aes256Gcm]);
}

#[test]
fn an_equal_init_gets_the_stored_answer() {
    // Every Response is lost but the last.
    let mut world = World::new(1, Kem::Cheap, |piece, before| {
        let is_response = [Piece::ResponseFirst, Piece::ResponseSecond].contains(&piece);
        if is_response && before < 5 {
            vec![]
        } else {
            vec![WAY]
        }
    });
    world.send_user(ALICE_SIDE);
    world.pass(6 * SECOND);
    assert_eq!(world.count(Piece::ResponseFirst), 6);
    assert_eq!(
        (world.ends[1].most_keys, &world.ends[1].ups[..]),
        (1, &[Suite::Aes256Gcm][..])
    );
    assert_eq!(world.ends[1].refused, []);
}

#[test]
fn halves_of_two_sendings_are_one_init() {
    let mut world = World::new(1, Kem::Cheap, |piece, before| match (piece, before) {
        (Piece::InitFirst, 0) | (Piece::InitSecond, 1) => vec![],
        _ => vec![WAY],
    });
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 2);
    assert_eq!(world.ends[1].ups.len(), 1);
}

#[test]
fn another_init_within_a_second_is_refused() {
    let mut world = World::new(1, Kem::Real, always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 10);
    let mut source = Source::new(9, Kem::Real);
    let inits: Vec<_> = (0..3).map(|_| init_frames(&mut source)).collect();
    for half in &inits[0] {
        world.inject(BOB_SIDE, half.clone());
    }
    assert_eq!(world.ends[1].refused, [Refused::TooSoon]);
    world.pass(SECOND);
    for half in inits[1..].concat() {
        world.inject(BOB_SIDE, half);
    }
    assert_eq!(world.ends[1].refused, [Refused::TooSoon, Refused::TooSoon]);
    assert_eq!(world.ends[1].openings.len(), 2);
}

#[test]
fn an_exchange_that_is_over_does_not_come_back() {
    // The first Init comes once more when another exchange has followed.
    let mut world = World::new(1, Kem::Cheap, |piece, before| match (piece, before) {
        (Piece::InitFirst | Piece::InitSecond, 0) => vec![WAY, 3 * SECOND],
        _ => vec![WAY],
    });
    world.send_user(ALICE_SIDE);
    world.pass(2 * SECOND);
    world.want(ALICE_SIDE);
    world.pass(2 * SECOND);
    assert_eq!(world.ends[1].refused, [Refused::Stale]);
    assert_eq!((world.ends[0].switches, world.ends[1].switches), (2, 2));
}

/// The frames of an Init that Alice might send.
fn init_frames(source: &mut Source) -> [Vec<u8>; 2] {
    let mut alice = exchange(ALICE, BOB, terms(Aes::InHardware, 7));
    alice.handle_wanted(Moment(5_000_000), source);
    std::array::from_fn(|_| match alice.poll_output() {
        Some(Output::Send(frame)) => frame,
        other => panic!("{other:?}"),
    })
}

/// Bob's only answer to an Init that was changed.
fn answer_to(change: impl FnOnce(&mut Init)) -> World<'static> {
    let mut source = Source::new(3, Kem::Real);
    let [first, second] = init_frames(&mut source);
    let bytes = [&first[12..], &second[12..]].concat().try_into().unwrap();
    let mut init = Init::decode(&bytes).unwrap();
    change(&mut init);
    let mut world = World::new(1, Kem::Real, always);
    for frame in frames::init_frames(1, &init.encode()) {
        world.inject(BOB_SIDE, frame);
    }
    world
}

#[test]
fn keys_that_are_none_are_refused_and_install_nothing() {
    let mut changes: Vec<fn(&mut Init)> = vec![|init| init.kem[..3].fill(0xff)];
    changes.push(|init| init.x25519 = [0; 32]);
    changes.push(|init| {
        init.x25519 = [0; 32];
        init.x25519[0] = 1;
    });
    for change in changes {
        let world = answer_to(change);
        assert_eq!(world.ends[1].refused, [Refused::Keys]);
        assert_eq!((world.log.len(), world.ends[1].most_keys), (0, 0));
    }
    assert_eq!(answer_to(|_| {}).count(Piece::ResponseFirst), 1);
}

#[test]
fn a_peer_has_no_transport_with_itself() {
    let made = Exchange::new(NETWORK, (ALICE, ALICE), PSK, terms(Aes::InHardware, 7));
    assert_eq!(made.unwrap_err(), EqualNodes);
}

#[test]
fn what_this_role_or_this_carrier_may_not_say_is_refused() {
    let mut world = World::new(1, Kem::Real, always);
    let [init, _] = init_frames(&mut Source::new(3, Kem::Real));
    let both = init_frames(&mut Source::new(3, Kem::Real));
    for frame in both {
        world.inject(ALICE_SIDE, frame);
    }
    world.inject(BOB_SIDE, frames::please_frame(1));
    assert_eq!(world.ends[0].refused, [Refused::Role]);
    assert_eq!(world.ends[1].refused, [Refused::Role]);
    let bob = &mut world.ends[1];
    let mut say = |carrier, frame: &[u8]| {
        let (now, source) = (world.now, &mut bob.source);
        bob.exchange.handle_frame(now, carrier, frame, source)
    };
    let done = frames::done_frame(1, &[0; 32]);
    assert_eq!(say(Carrier::WireGuard, &done), Err(Refused::Carrier));
    assert_eq!(say(Carrier::Transport(1), &init), Err(Refused::Carrier));
    assert_eq!(say(Carrier::Transport(1), &done), Err(Refused::Unasked));
    let cut = say(Carrier::WireGuard, &init[..20]);
    assert_eq!(cut, Err(Refused::Malformed(Malformed::CutShort)));
    assert_eq!(world.log, []);
}

/// Alice asks, and Bob's Response is changed before it reaches her.
fn response_with(change: impl FnOnce(&mut [u8; RESPONSE_LEN])) -> World<'static> {
    let mut world = World::new(
        1,
        Kem::Real,
        losing(&[Piece::ResponseFirst, Piece::ResponseSecond]),
    );
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 10);
    let mut bytes = world.ends[1].exchange.last_response();
    change(&mut bytes);
    for frame in frames::response_frames(1, &bytes) {
        world.inject(ALICE_SIDE, frame);
    }
    world
}

#[test]
fn a_response_with_any_byte_changed_installs_no_key() {
    let ok = response_with(|_| {});
    assert_eq!(
        (ok.ends[0].switches, &ok.ends[0].failures[..]),
        (1, &[][..])
    );
    // Where each field begins and ends; the schedule's own test covers all bytes.
    for at in [1, 2, 4, 7, 8, 15, 32, 63, 64, 95, 96, 700, 1183, 1184, 1199] {
        let world = response_with(|bytes| bytes[at] ^= 0x40);
        let alice = &world.ends[0];
        assert_eq!((alice.most_keys, alice.switches), (0, 0), "byte {at}");
        let malformed = [1].contains(&at);
        assert_eq!(alice.failures.is_empty(), malformed, "byte {at}");
        assert_eq!(alice.refused.is_empty(), !malformed, "byte {at}");
    }
}

#[test]
fn a_response_says_why_it_fails() {
    let failures =
        |change: fn(&mut [u8; RESPONSE_LEN])| response_with(change).ends[0].failures.clone();
    assert_eq!(failures(|bytes| bytes[2] = 7), [Failure::Refused(7)]);
    assert_eq!(failures(|bytes| bytes[64..96].fill(0)), [Failure::Keys]);
    assert_eq!(failures(|bytes| bytes[1199] ^= 1), [Failure::Confirm]);
    let other = response_with(|bytes| bytes[16] ^= 1);
    assert_eq!(other.ends[0].refused, [Refused::Unasked]);
    assert_eq!(other.ends[0].failures, []);
}

#[test]
fn a_suite_that_was_not_offered_is_refused() {
    let ends = [
        exchange(ALICE, BOB, terms(Aes::InSoftware, 7)),
        exchange(BOB, ALICE, terms(Aes::InHardware, 8)),
    ];
    let mut world = World::of(
        ends,
        1,
        Kem::Cheap,
        losing(&[Piece::ResponseFirst, Piece::ResponseSecond]),
    );
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 10);
    let mut bytes = world.ends[1].exchange.last_response();
    bytes[1] = Suite::Aes256Gcm.bit();
    for frame in frames::response_frames(1, &bytes) {
        world.inject(ALICE_SIDE, frame);
    }
    assert_eq!(world.ends[0].failures, [Failure::Suite]);
}

/// Two ends that do not see the same pair: Bob answers, and Alice finds it out.
fn fails_with(bob: Exchange) {
    let alice = exchange(ALICE, BOB, terms(Aes::InHardware, 7));
    let mut world = World::of([alice, bob], 1, Kem::Real, always);
    for _ in 0..20 {
        world.send_user(ALICE_SIDE);
        world.pass(SECOND / 10);
    }
    let [alice, bob] = &world.ends;
    assert_eq!(alice.failures, [Failure::Confirm]);
    assert_eq!((alice.most_keys, alice.switches, bob.switches), (0, 0, 0));
    assert!(world.has_all(BOB_SIDE), "WireGuard carries on");
}

#[test]
fn another_network_node_tunnel_or_psk_installs_no_key() {
    let hard = terms(Aes::InHardware, 8);
    let of =
        |network, local, remote, psk| Exchange::new(network, (local, remote), psk, hard).unwrap();
    let node = |end, byte| End {
        node: NodeId([byte; 32]),
        ..end
    };
    let tunnel = |end: End| End {
        tunnel: [9; 32],
        ..end
    };
    fails_with(of(NetworkId([7; 32]), BOB, ALICE, PSK));
    fails_with(of(NETWORK, node(BOB, 9), ALICE, PSK));
    fails_with(of(NETWORK, BOB, node(ALICE, 2), PSK));
    fails_with(of(NETWORK, tunnel(BOB), ALICE, PSK));
    fails_with(of(NETWORK, BOB, tunnel(ALICE), PSK));
    fails_with(of(NETWORK, BOB, ALICE, [3; 32]));
}

#[test]
fn an_init_changed_on_the_way_installs_no_key_at_the_initiator() {
    // Where each field begins and ends, but for the xid: by that the answer is none to what was asked. The first takes
    // AES-256-GCM out of what is offered.
    for at in [1, 4, 7, 8, 15, 32, 63, 64, 95, 128, 639, 640, 1279] {
        let mut world = World::new(
            1,
            Kem::Cheap,
            losing(&[Piece::InitFirst, Piece::InitSecond]),
        );
        world.send_user(ALICE_SIDE);
        let mut init = world.ends[0].exchange.last_init();
        init[at] ^= 1;
        for frame in frames::init_frames(1, &init) {
            world.inject(BOB_SIDE, frame);
        }
        world.pass(SECOND / 10);
        let [alice, bob] = &world.ends;
        assert_eq!(alice.failures, [Failure::Confirm], "byte {at}");
        assert_eq!((alice.most_keys, bob.switches), (0, 0), "byte {at}");
    }
}

#[test]
fn keys_whose_first_datagram_comes_after_that_of_newer_keys_go_in_time() {
    // All that Alice seals by her first keys takes 3 s, and meanwhile she begins anew.
    let mut world = World::new(1, Kem::Cheap, |piece, _| {
        let is_late = piece == Piece::Done;
        vec![if is_late { 3 * SECOND } else { WAY }]
    });
    world.send_user(ALICE_SIDE);
    world.pass(SECOND * 3 / 2);
    world.close(ALICE_SIDE);
    world.set_fate(always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND);
    assert_eq!(world.ends[1].openings.len(), 2);
    world.pass(SECOND);
    assert_eq!(world.ends[1].refused[0], Refused::Unasked, "the first Done");
    world.pass(9 * SECOND);
    assert_eq!(world.ends[1].openings.len(), 1);
}

#[test]
fn a_false_done_is_refused() {
    let mut world = World::new(1, Kem::Cheap, losing(&[Piece::Done, Piece::Keepalive]));
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 10);
    let index = *world.ends[1].openings.keys().next().unwrap();
    let bob = &mut world.ends[1];
    let done = frames::done_frame(1, &[0; 32]);
    let (carrier, source) = (Carrier::Transport(index), &mut bob.source);
    let said = bob.exchange.handle_frame(world.now, carrier, &done, source);
    assert_eq!((said, bob.switches), (Err(Refused::Confirm), 0));
}

#[test]
fn keys_under_which_nothing_comes_back_are_let_go() {
    // All that Bob seals is lost.
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(WAY * 3 / 2);
    world.set_fate(losing(&[Piece::Keepalive, Piece::User]));
    for _ in 0..110 {
        world.send_user(BOB_SIDE);
        world.pass(SECOND / 10);
    }
    assert_eq!(world.count(Piece::Done), 6);
    let alice = &world.ends[0];
    assert_eq!(alice.failures, [Failure::Unconfirmed]);
    assert!(alice.sealing.is_none(), "WireGuard carries on");
}

#[test]
fn a_responder_lets_keys_go_that_were_never_used() {
    let mut world = World::new(
        1,
        Kem::Cheap,
        losing(&[Piece::ResponseFirst, Piece::ResponseSecond]),
    );
    world.send_user(ALICE_SIDE);
    world.pass(24 * SECOND);
    assert_eq!(
        (world.ends[1].openings.len(), &world.ends[1].failures[..]),
        (1, &[][..])
    );
    world.pass(2 * SECOND);
    assert_eq!(world.ends[1].failures, [Failure::Unconfirmed]);
    assert_eq!(world.ends[1].openings.len(), 0);
}

#[test]
fn keys_in_use_are_followed_by_others_after_two_minutes_and_the_old_ones_go() {
    let mut world = World::new(1, Kem::Cheap, always);
    for _ in 0..2600 {
        world.send_user(ALICE_SIDE);
        world.send_user(BOB_SIDE);
        world.pass(SECOND / 10);
    }
    let begun = world.times(Piece::InitFirst);
    assert_eq!(begun.len(), 3);
    for (begun, expected) in begun.iter().zip([0, 120, 240]) {
        assert!(begun.as_secs().abs_diff(expected) <= 1, "{begun:?}");
    }
    for at in [ALICE_SIDE, BOB_SIDE] {
        let end = &world.ends[at];
        assert!(world.has_all(at));
        assert_eq!((end.switches, end.lost, end.most_keys), (3, 0, 2));
        assert_eq!(end.openings.len(), 1);
    }
}

#[test]
fn a_transport_lapses_after_two_minutes_without_user_data() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(60 * SECOND);
    world.send_user(ALICE_SIDE);
    world.pass(119 * SECOND);
    assert!(world.ends.iter().all(|end| end.sealing.is_some()));
    world.pass(2 * SECOND);
    assert!(world.ends.iter().all(|end| end.sealing.is_none()));
    world.pass(100 * SECOND);
    assert!(world.ends.iter().all(|end| end.openings.is_empty()));
    assert_eq!(world.times(Piece::InitFirst).len(), 1);
    assert!(
        world
            .ends
            .iter()
            .all(|end| end.exchange.poll_timeout().is_none())
    );
}

#[test]
fn where_no_exchange_succeeds_sealing_ends_after_three_minutes() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND);
    world.set_fate(losing(&[Piece::InitFirst]));
    for second in 1..185 {
        assert_eq!(world.ends[0].sealing.is_some(), second <= 180, "{second}");
        world.send_user(ALICE_SIDE);
        world.send_user(BOB_SIDE);
        world.pass(SECOND);
    }
    assert!(world.has_all(ALICE_SIDE) && world.has_all(BOB_SIDE));
    assert_eq!((world.ends[0].lost, world.ends[1].lost), (0, 0));
}

#[test]
fn a_machine_that_slept_seals_nothing_with_old_keys() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND);
    // Both sleep: no timer runs, and the clock goes on.
    world.now = world.now.after(200 * SECOND);
    let before = world.ends[1].by_transport;
    world.send_user(ALICE_SIDE);
    world.pass(WAY * 3 / 2);
    assert_eq!(world.ends[1].by_transport, before);
    assert!(world.has_all(BOB_SIDE));
    world.pass(SECOND);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND);
    assert_eq!(world.ends[1].by_transport, before + 1, "new keys were made");
}

#[test]
fn a_peer_that_began_anew_loses_the_keys_of_its_former_run() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(2 * SECOND);
    for (at, local, remote) in [(ALICE_SIDE, ALICE, BOB), (BOB_SIDE, BOB, ALICE)] {
        let former = std::mem::replace(
            &mut world.ends[at].exchange,
            exchange(
                local,
                remote,
                terms(Aes::InHardware, 40 + u8::try_from(at).unwrap()),
            ),
        );
        drop(former);
        world.ends[at].openings.clear();
        world.ends[at].sealing = None;
        world.send_user(at);
        world.pass(2 * SECOND);
        for end in &world.ends {
            assert_eq!(
                (end.openings.len(), end.sealing.is_some()),
                (1, true),
                "{at}"
            );
        }
    }
}

#[test]
fn a_closed_pair_has_no_key_and_may_begin_at_once() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND / 2);
    for at in [ALICE_SIDE, BOB_SIDE] {
        world.close(at);
        assert_eq!(
            (world.ends[at].exchange.poll_timeout(), world.drawn(at)),
            (None, 0)
        );
    }
    world.send_user(ALICE_SIDE);
    assert!(world.ends[0].sealing.is_none() && world.ends[0].openings.is_empty());
    world.pass(SECOND);
    assert_eq!((world.ends[0].ups.len(), world.ends[1].ups.len()), (2, 2));
    // An Init that is not answered yet gives its index back too.
    world.set_fate(never);
    world.want(ALICE_SIDE);
    world.close(ALICE_SIDE);
    assert_eq!(world.drawn(ALICE_SIDE), 0);
}

#[test]
fn indexes_are_those_that_were_drawn() {
    let mut world = World::new(1, Kem::Cheap, always);
    world.send_user(ALICE_SIDE);
    world.pass(SECOND);
    for end in &world.ends {
        assert!(end.openings.keys().all(|index| index >> 24 == 1));
    }
}

#[test]
fn nothing_secret_is_printed() {
    let mut world = World::new(1, Kem::Real, never);
    world.send_user(ALICE_SIDE);
    let printed = format!("{:?}", world.ends[0].exchange);
    assert!(printed.contains("Secret(…)") && printed.contains("KemKey(…)"));
    assert!(!printed.contains(&format!("{PSK:?}")));
}
