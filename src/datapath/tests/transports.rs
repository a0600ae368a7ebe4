//! User data goes by transports as soon as both ends have keys (protocol §6), and by WireGuard until then.

use std::sync::atomic::Ordering;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{
    long_packets::{long, to_cut},
    *,
};
use crate::{
    datapath::{
        command::TransportParts,
        inbound::{Source, Taken},
        train::Train,
        unsealing::Gate,
    },
    ids::{Boot, NetworkId, NodeId},
    packet::ecn::Ecn,
    transport::{Failure, Terms, schedule::End, suite::Aes, suite::Suite},
};

/// The first byte of a transport's datagrams, and of WireGuard's.
const TRANSPORT: u8 = 0x10;
const WIREGUARD: u8 = 0x04;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Who may begin the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lower {
    Alice,
    Bob,
}

/// Lets both sides have transports.
pub(super) fn allow(world: &mut World, lower: Lower) {
    for (own, is_lower) in [(1, lower == Lower::Alice), (2, lower == Lower::Bob)] {
        let command = transport(own, is_lower);
        let now = world.now;
        let side = if own == 1 {
            &mut world.alice
        } else {
            &mut world.bob
        };
        side.shard.handle_command(now, command);
    }
}

fn transport(own: u8, is_lower: bool) -> Command {
    let end = |seed: u8, is_lower: bool| End {
        node: NodeId([if is_lower { 1 } else { 2 }; 32]),
        tunnel: [seed; 32],
    };
    Command::Transport {
        session: PEER,
        parts: Box::new(TransportParts {
            network: NetworkId([7; 32]),
            local: end(own, is_lower),
            remote: end(3 - own, !is_lower),
            psk: [9; 32],
            terms: Terms {
                aes: Aes::InHardware,
                boot: Boot([own; 8]),
            },
        }),
    }
}

/// Delivers what both sides send until neither sends anything, but for what is lost; what came out at Alice and at Bob.
fn settle(world: &mut World, mut is_lost: impl FnMut(&[u8]) -> bool) -> [Came; 2] {
    let mut all = [Came::default(), Came::default()];
    loop {
        let World { alice, bob, now } = world;
        let sent = [alice.drain(), bob.drain()];
        let is_quiet = sent.iter().all(|came| came.datagrams.is_empty());
        for (to, came) in sent.into_iter().enumerate() {
            let (other, from) = match to {
                0 => (&mut *bob, alice.at),
                _ => (&mut *alice, bob.at),
            };
            for (_, datagram) in came.datagrams {
                if !is_lost(&datagram) {
                    other.shard.handle_datagram(now.at, from, &datagram);
                }
            }
            all[to].packets.extend(came.packets);
            all[to].events.extend(came.events);
        }
        if is_quiet {
            return all;
        }
    }
}

/// Lets time pass in which nobody writes.
fn pass(world: &mut World, ms: u64, mut is_lost: impl FnMut(&[u8]) -> bool) -> [Came; 2] {
    let mut all = [Came::default(), Came::default()];
    for _ in 0..ms / 10 {
        world.pass(MS(10));
        world.alice.shard.handle_exchanges(world.now.at);
        world.bob.shard.handle_exchanges(world.now.at);
        for (all, came) in all.iter_mut().zip(settle(world, &mut is_lost)) {
            all.packets.extend(came.packets);
            all.events.extend(came.events);
        }
    }
    all
}

pub(super) fn write(side: &mut Side, now: Now, packet: &[u8]) {
    write_undone(side, now, packet, Undone::Nothing);
}

/// The same of one with something left to be done to it.
pub(super) fn write_undone(side: &mut Side, now: Now, packet: &[u8], undone: Undone) {
    let mut buffer = [packet, &[0xee; 16]].concat();
    let read = (packet.len(), undone);
    side.shard.handle_packet(now.at, &mut buffer, read);
}

/// The addresses of a packet that Alice (0) or Bob (1) writes.
pub(super) fn ends_of(at: usize) -> (IpAddr, IpAddr) {
    match at {
        0 => (v4(1), v4(2)),
        _ => (v4(2), v4(1)),
    }
}

/// Whether keys were made.
pub(super) fn is_up(event: &Event) -> bool {
    matches!(event, Event::Transport { result: Ok(_), .. })
}

/// Two machines whose transport stands. Both addresses are proven.
pub(super) fn sealing(lower: Lower) -> World {
    let mut world = World::proven();
    allow(&mut world, lower);
    let hello = datagram(v4(1), v4(2), (5, 6), b"hello");
    write(&mut world.alice, world.now, &hello);
    let [_, bob] = settle(&mut world, |_| false);
    assert_eq!(bob.packets, [hello], "it does not wait for keys");
    assert_eq!(suites(&world), [Some(Suite::Aes256Gcm); 2], "{lower:?}");
    world
}

pub(super) fn suites(world: &World) -> [Option<Suite>; 2] {
    [&world.alice, &world.bob].map(|side| {
        let place = side.shard.sessions.place(PEER)?;
        side.shard.sessions.look(place)?.counters.suite()
    })
}

/// What Alice seals in the transport without any check: what a hostile member can do.
pub(super) fn smuggled(world: &mut World, plain: &[u8]) -> Vec<u8> {
    let place = world.alice.shard.sessions.place(PEER).unwrap();
    let sealing = world.alice.shard.sealing(place).unwrap();
    let mut out = vec![0; plain.len() + 32];
    let mut run = sealing.run(world.now.at, 1, plain.len()).unwrap();
    let len = run.seal(plain, plain.len(), &mut out).unwrap();
    assert_eq!(len, out.len());
    out
}

#[test]
fn the_first_packet_goes_by_wireguard_and_those_after_it_by_the_transport() {
    for lower in [Lower::Alice, Lower::Bob] {
        let mut world = sealing(lower);
        for len in [1, 15, 16, 17, 1000, 1392] {
            let there = datagram(v4(1), v4(2), (5, 6), &vec![7; len]);
            let sent = world.alice.write(world.now, &there).datagrams;
            assert_eq!(sent[0].1[..8][..1], [TRANSPORT]);
            let padded = there.len().next_multiple_of(16).min(1420);
            assert_eq!(sent[0].1.len(), padded + 32);
            let came = world.bob.take(world.now, world.alice.at, &sent[0].1);
            assert_eq!(came.packets, [there]);
            std::mem::swap(&mut world.alice, &mut world.bob);
            let back = datagram(v4(2), v4(1), (6, 5), &vec![8; len]);
            assert_eq!(world.carry(&back).packets, [back]);
            std::mem::swap(&mut world.alice, &mut world.bob);
        }
    }
}

#[test]
fn both_ends_say_that_they_have_keys_and_a_pair_without_transports_never_makes_any() {
    let mut world = World::standing();
    let hello = datagram(v4(1), v4(2), (5, 6), b"hello");
    for _ in 0..3 {
        write(&mut world.alice, world.now, &hello);
        let came = settle(&mut world, |bytes| bytes[0] != WIREGUARD);
        assert_eq!(came[1].packets, [&hello[..]]);
    }
    assert_eq!(suites(&world), [None; 2]);
    // User data has flowed: keys are made at once.
    allow(&mut world, Lower::Bob);
    for came in settle(&mut world, |_| false) {
        let [Event::Transport { result, .. }] = came.events[..] else {
            panic!("{:?}", came.events);
        };
        assert_eq!(result, Ok(Suite::Aes256Gcm));
    }
}

#[test]
fn sessions_in_which_nobody_talks_make_no_keys() {
    let mut world = World::standing();
    allow(&mut world, Lower::Alice);
    let frame = vec![0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0];
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        let (session, via) = (PEER, None);
        let frame = frame.clone();
        let send = Command::Send {
            session,
            frame,
            via,
        };
        world.alice.shard.handle_command(world.now, send);
        world.alice.shard.handle_exchanges(world.now.at);
        let mut sent = 0;
        settle(&mut world, |_| {
            sent += 1;
            false
        });
        assert_eq!(sent, 1);
    }
    assert_eq!(suites(&world), [None; 2]);
}

/// Whatever message of the exchange is lost, each packet of a program comes once, and in its order.
#[test]
fn a_lost_message_of_the_exchange_costs_no_packet() {
    for lower in [Lower::Alice, Lower::Bob] {
        for lost in 0..8 {
            let mut world = World::standing();
            let (alice, bob) = (world.alice.at, world.bob.at);
            for (side, endpoint) in [(&mut world.alice, bob), (&mut world.bob, alice)] {
                let session = PEER;
                let prove = Command::SetPath { session, endpoint };
                side.shard.handle_command(world.now, prove);
            }
            allow(&mut world, lower);
            let packet = |number: u8| datagram(v4(1), v4(2), (5, 6), &[number; 1000]);
            let user = packet(0).len().next_multiple_of(16) + 32;
            let mut seen = 0;
            let mut arrived = Vec::new();
            for number in 0..100 {
                write(&mut world.alice, world.now, &packet(number));
                let came = pass(&mut world, 10, |bytes| {
                    let is_exchange = bytes.len() != user;
                    seen += usize::from(is_exchange);
                    is_exchange && seen == lost + 1
                });
                let [_, bob] = came;
                arrived.extend(bob.packets.iter().map(|one| one[100]));
            }
            let all: Vec<u8> = (0..100).collect();
            assert_eq!(arrived, all, "{lower:?} {lost}");
            assert_eq!(suites(&world), [Some(Suite::Aes256Gcm); 2], "{lost}");
        }
    }
}

#[test]
fn an_exchange_that_nobody_answers_leaves_user_data_in_wireguard_and_says_so() {
    let mut world = World::standing();
    let command = transport(1, true);
    world.alice.shard.handle_command(world.now, command);
    let packet = datagram(v4(1), v4(2), (5, 6), b"there");
    write(&mut world.alice, world.now, &packet);
    let [alice, bob] = pass(&mut world, 10_100, |_| false);
    assert_eq!(bob.packets, [&packet[..]]);
    assert!(matches!(
        alice.events[..],
        [Event::Transport {
            result: Err(Failure::Silent),
            ..
        }]
    ));
    // Two halves, and both again five times: Bob has no transports, and keeps the last two for a second.
    assert_eq!(world.bob.met(DropReason::InExchange), 10);
    assert_eq!(world.carry(&packet).packets, [&packet[..]]);
    let counters = |side: &Side| {
        let place = side.shard.sessions.place(PEER).unwrap();
        Arc::clone(&side.shard.sessions.look(place).unwrap().counters)
    };
    let (alice, bob) = (counters(&world.alice), counters(&world.bob));
    assert_eq!(alice.plain_for(world.now.at), Some(MS(10_100)));
    assert_eq!(bob.plain_for(world.now.at), None);
    world.pass(Duration::from_secs(60));
    assert_eq!(alice.plain_for(world.now.at), None, "nobody talks");
    world.alice.shard.handle_exchanges(world.now.at);
    write(&mut world.alice, world.now, &packet);
    assert_eq!(alice.plain_for(world.now.at), Some(Duration::ZERO));
    allow(&mut world, Lower::Alice);
    settle(&mut world, |_| false);
    assert_eq!(alice.plain_for(world.now.at), None);
}

/// The other end heard that both have transports, and this end's control plane has not said so yet.
#[test]
fn an_exchange_that_begins_a_little_early_is_answered_without_being_said_again() {
    for lower in [Lower::Alice, Lower::Bob] {
        let mut world = World::standing();
        let hello = datagram(v4(1), v4(2), (5, 6), b"hello");
        let command = transport(1, lower == Lower::Alice);
        world.alice.shard.handle_command(world.now, command);
        write(&mut world.alice, world.now, &hello);
        settle(&mut world, |_| false);
        assert_eq!(suites(&world), [None; 2]);
        world.pass(MS(20));
        let command = transport(2, lower == Lower::Bob);
        world.bob.shard.handle_command(world.now, command);
        settle(&mut world, |_| false);
        assert_eq!(suites(&world), [Some(Suite::Aes256Gcm); 2], "{lower:?}");
    }
}

/// Alice's handshake goes into the state that Bob has then.
fn shake_hands(world: &mut World, admission: Admission) {
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    let response = world.admit(PEER, admission).datagrams.remove(0);
    world
        .alice
        .shard
        .handle_datagram(world.now.at, world.bob.at, &response.1);
}

/// Bob's state is made anew, and Alice's takes its handshake: in one by her Knock, in the other by his.
#[test]
fn keys_that_the_other_end_has_forgotten_seal_nothing_once_its_new_state_is_heard() {
    for (lower, is_hers) in [
        (Lower::Alice, true),
        (Lower::Alice, false),
        (Lower::Bob, true),
        (Lower::Bob, false),
    ] {
        let mut world = sealing(lower);
        world.pass(Duration::from_secs(11));
        if is_hers {
            shake_hands(&mut world, Admission::Replace);
        } else {
            let session = PEER;
            let close = Command::Close { session };
            world.bob.shard.handle_command(world.now, close);
            std::mem::swap(&mut world.alice, &mut world.bob);
            shake_hands(&mut world, Admission::Keep);
            std::mem::swap(&mut world.alice, &mut world.bob);
        }
        settle(&mut world, |_| false);
        let packet = datagram(v4(1), v4(2), (5, 6), b"there");
        write(&mut world.alice, world.now, &packet);
        let [_, bob] = settle(&mut world, |_| false);
        assert_eq!(bob.packets, [&packet[..]], "{lower:?} {is_hers}");
        // His control plane hears her Hello. Hers hears his, where it was told that a new state of his is at the other end.
        let command = transport(2, lower == Lower::Bob);
        world.bob.shard.handle_command(world.now, command);
        if !is_hers {
            let command = transport(1, lower == Lower::Alice);
            world.alice.shard.handle_command(world.now, command);
        }
        settle(&mut world, |_| false);
        assert_eq!(
            suites(&world),
            [Some(Suite::Aes256Gcm); 2],
            "{lower:?} {is_hers}"
        );
        assert_eq!(world.carry(&packet).packets, [packet]);
    }
}

#[test]
fn a_handshake_of_ours_that_is_lost_asks_for_no_knock_when_theirs_comes_through() {
    let mut world = World::standing();
    let rekey = |sent| {
        let knock = Knocking::Later;
        Some(Rekey { sent, knock })
    };
    let now = world.now;
    let place = world.bob.shard.sessions.place(PEER).unwrap();
    world.bob.shard.sessions.at(place).unwrap().rekey = rekey(now.at);
    world.pass(MS(500));
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0);
    world
        .alice
        .shard
        .handle_datagram(world.now.at, world.bob.at, &response.1);
    settle(&mut world, |_| false);
    world.pass(MS(600));
    world.bob.shard.handle_timers(world.now.at);
    assert!(world.bob.drain().events.is_empty());
}

#[test]
fn a_long_packet_is_sealed_segment_by_segment_without_losing_a_byte() {
    for size in [7_u16, 1367, 1380] {
        let mut world = sealing(Lower::Alice);
        let body: Vec<u8> = (0..usize::from(size) * 20 + 5)
            .map(|at| u8::try_from(at * 7 % 251).unwrap())
            .collect();
        let packet = long(v4(1), v4(2), (5, 6), &body);
        write_undone(&mut world.alice, world.now, &packet, to_cut(size));
        let [_, bob] = settle(&mut world, |bytes| bytes[0] != TRANSPORT);
        assert_eq!(bob.packets.len(), 21);
        let bodies = bob.packets.iter().flat_map(|one| one[40..].to_vec());
        assert_eq!(bodies.collect::<Vec<_>>(), body, "{size}");
    }
}

#[test]
fn what_a_peer_may_not_send_in_a_transport_is_dropped() {
    let mut world = sealing(Lower::Alice);
    let mut forged = Vec::new();
    frame::shape(&[0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0], &mut forged);
    for (plain, reason) in [
        (
            segment(v4(9), v4(2), (5, 6), SYN),
            DropReason::InForeignSource,
        ),
        (
            segment(v4(1), v4(9), (5, 6), SYN),
            DropReason::InForeignDestination,
        ),
        (
            segment(v4(1), v4(2), (5, 20_080), SYN),
            DropReason::InListenerPort,
        ),
        (forged, DropReason::InMartian),
        (vec![0x45; 19], DropReason::InNotIp),
        (vec![0x12; 40], DropReason::InNotIp),
        (
            vec![0, 1, 0x60, 0x02, 0, 0, 0, 0, 1, 2, 3, 4],
            DropReason::InExchange,
        ),
    ] {
        let sealed = smuggled(&mut world, &plain);
        let before = world.bob.met(reason);
        let came = world.bob.take(world.now, world.alice.at, &sealed);
        assert_eq!(world.bob.met(reason), before + 1, "{reason:?}");
        assert!(came.packets.is_empty() && came.events.is_empty());
    }
    let mut sealed = smuggled(&mut world, &segment(v4(1), v4(2), (5, 6), SYN));
    for (at, reason) in [
        (20, DropReason::InTag),
        (5, DropReason::InUnknownIndex),
        (12, DropReason::InCounter),
    ] {
        sealed[at] ^= 1;
        let before = world.bob.met(reason);
        world.bob.take(world.now, world.alice.at, &sealed);
        assert_eq!(world.bob.met(reason), before + 1, "{reason:?}");
        sealed[at] ^= 1;
    }
    let came = world.bob.take(world.now, world.alice.at, &sealed);
    assert_eq!(came.packets.len(), 1);
    world.bob.take(world.now, world.alice.at, &sealed);
    assert_eq!(world.bob.met(DropReason::InReplay), 1);
}

#[test]
fn what_came_as_one_message_is_judged_each_for_itself_and_keeps_its_order() {
    let mut world = sealing(Lower::Alice);
    let from = |source, ports, body: u8| {
        let mut packet = segment(source, v4(2), ports, SYN);
        packet.extend_from_slice(&[body; 8]);
        packet[2..4].copy_from_slice(&[0, 48]);
        packet
    };
    let good = |body| from(v4(1), (5, 6), body);
    let mut seal = |plain: &[u8]| smuggled(&mut world, plain);
    let first = seal(&good(1));
    let mut forged = seal(&good(0));
    forged[30] ^= 1;
    let mut frame = [0; 48];
    frame[..12].copy_from_slice(&[0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0]);
    let frame = seal(&frame);
    let others = [
        seal(&good(2)),
        // Its neighbours are alike but for what makes it another's.
        seal(&from(v4(9), (5, 6), 0)),
        seal(&from(v4(1), (5, 20_080), 0)),
        seal(&good(3)),
    ];
    let last = seal(&good(5));
    let place = world.alice.shard.sessions.place(PEER).unwrap();
    let state = world.alice.shard.sessions.at(place).unwrap();
    let mut by_wireguard = vec![0; 2048];
    let sealed = state.session.encapsulate(&good(4), &mut by_wireguard);
    assert_eq!(sealed, Some(first.len()));
    by_wireguard.truncate(first.len());
    assert_eq!(by_wireguard[0], WIREGUARD);

    let unknown = vec![0x55; first.len()];
    let replayed = first.clone();
    let heads = [first, forged].into_iter().chain(others);
    let tails = [replayed, frame, by_wireguard, unknown, last];
    let mut message = heads.chain(tails).collect::<Vec<_>>().concat();
    let size = message.len() / 11;
    let train = Train::new(&mut message, size);
    let alice = world.alice.at.into();
    let bob = &mut world.bob;
    let taken = bob.shard.take_message(world.now.at, alice, train);
    assert_eq!(taken, Taken::Data);
    let came = bob.drain();
    assert_eq!(came.packets, [1, 2, 3, 4, 5].map(good));
    assert!(matches!(&came.events[..], [Event::Control { .. }]));
    for reason in [
        DropReason::InTag,
        DropReason::InForeignSource,
        DropReason::InListenerPort,
        DropReason::InReplay,
        DropReason::InUnknownDatagram,
    ] {
        assert_eq!(bob.met(reason), 1, "{reason:?}");
    }
}

/// Packets of which neighbours are often alike, from whom it may be and from others, to where they may go and elsewhere.
fn conversations(random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut kind = 0;
    let packet = |_| {
        if random.next_u32().is_multiple_of(3) {
            kind = random.next_u32() as usize;
        }
        let source = [v4(1), v4(1), v4(1), v4(9)][kind % 4];
        let port = [6, 80, 20_080][kind / 4 % 3];
        let flags = [ACK, SYN][kind / 12 % 2];
        let mut packet = segment(source, v4(2), (5, port), flags);
        packet.extend_from_slice(&[2, 4, 5, 0xb4, 1, 1, 1, 1]);
        packet[20 + 12] = 0x70;
        packet[1] = [0, 1, 2, 3][kind / 24 % 4];
        packet[2..4].copy_from_slice(&[0, 48]);
        packet
    };
    (0..200).map(packet).collect()
}

#[test]
fn packets_of_one_message_are_judged_as_each_alone_would_be() {
    let mut random = ChaCha8Rng::from_seed([7; 32]);
    for (ecn, room) in [
        (Ecn::Deaf, 1420),
        (Ecn::Zero, 1420),
        (Ecn::One, 1420),
        (Ecn::Met, 1420),
        (Ecn::Deaf, 1300),
        (Ecn::Zero, 1300),
    ] {
        let mut world = sealing(Lower::Alice);
        let place = world.bob.shard.sessions.place(PEER).unwrap();
        world.bob.shard.sessions.at(place).unwrap().room = room;
        let packets = conversations(&mut random);
        let shard = &world.bob.shard;
        let alone = Drops::default();
        let gate = Gate {
            view: &shard.view,
            drops: &alone,
            session: PEER,
            ecn,
            room,
            mtu: 1420,
        };
        let expected: Vec<Vec<u8>> = packets
            .iter()
            .filter_map(|packet| match gate.admit(&mut packet.clone()) {
                Ok(packet) => Some(packet.to_vec()),
                Err(reason) => {
                    alone.count(reason);
                    None
                }
            })
            .collect();
        assert!(
            expected.len() > 20 && expected.len() < 180,
            "{}",
            expected.len()
        );
        let sealed = packets.iter().map(|packet| smuggled(&mut world, packet));
        let mut message = sealed.collect::<Vec<_>>().concat();
        let source = Source {
            ecn,
            ..world.alice.at.into()
        };
        let train = Train::new(&mut message, 48 + 32);
        world.bob.shard.take_message(world.now.at, source, train);
        let came = world.bob.drain().packets;
        let first_other = came
            .iter()
            .zip(&expected)
            .position(|(came, one)| came != one);
        assert_eq!(
            (first_other, came.len()),
            (None, expected.len()),
            "{ecn:?} {room}"
        );
        for reason in [
            DropReason::InForeignSource,
            DropReason::InListenerPort,
            DropReason::InCongested,
        ] {
            assert_eq!(world.bob.met(reason), alone.met(reason), "{reason:?}");
        }
    }
}

#[test]
fn each_datagram_is_looked_at_where_one_may_have_to_be_held_or_go_by_a_second_path() {
    let is_open = |world: &mut World| {
        let place = world.alice.shard.sessions.place(PEER).unwrap();
        let now = world.now.at;
        world.alice.shard.open_way(now, place).is_some()
    };
    let mut world = sealing(Lower::Alice);
    assert!(is_open(&mut world));
    let (now, elsewhere) = (
        world.now.at,
        Path::Direct(Underlay::new(([192, 0, 2, 7], 7).into())),
    );
    world.alice.shard.mirror(now, PEER, Some(elsewhere));
    assert!(!is_open(&mut world));
    world.alice.shard.mirror(now, PEER, None);
    assert!(is_open(&mut world));
    world.alice.shard.plan_move(now, PEER, (elsewhere, MS(100)));
    assert!(!is_open(&mut world));
    let bob = world.bob.at;
    world.alice.shard.set_path(now, PEER, bob);
    assert!(is_open(&mut world));
    // Nobody answers for a while.
    let packet = datagram(v4(1), v4(2), (5, 6), b"anybody there?");
    world.alice.write(world.now, &packet);
    world.pass(MS(600));
    assert!(!is_open(&mut world));
    let mut world = sealing(Lower::Alice);
    world.alice.shard.withdraw(PEER);
    assert!(!is_open(&mut world));
}

#[test]
fn a_control_frame_in_a_transport_is_the_control_planes() {
    let mut world = sealing(Lower::Alice);
    let said = [0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0];
    let sealed = smuggled(&mut world, &said);
    let came = world.bob.take(world.now, world.alice.at, &sealed);
    assert!(matches!(&came.events[..], [Event::Control { frame, .. }] if *frame == said));
}

#[test]
fn keys_end_with_their_session() {
    let mut world = sealing(Lower::Alice);
    let packet = datagram(v4(1), v4(2), (5, 6), b"there");
    let sent = world.alice.write(world.now, &packet).datagrams;
    let session = PEER;
    let close = Command::Close { session };
    world.bob.shard.handle_command(world.now, close);
    world.bob.take(world.now, world.alice.at, &sent[0].1);
    assert_eq!(world.bob.met(DropReason::InUnknownIndex), 1);
    // A session that is made anew begins with WireGuard, at both ends.
    let close = Command::Close { session };
    world.alice.shard.handle_command(world.now, close);
    world.pass(Duration::from_secs(11));
    world.stand(PEER);
    let sent = world.alice.write(world.now, &packet).datagrams;
    assert_eq!(sent[0].1[0], WIREGUARD);
    assert_eq!(suites(&world), [None; 2]);
}

#[test]
fn keys_are_renewed_while_user_data_flows_and_lapse_when_it_ends() {
    let mut world = sealing(Lower::Bob);
    let packet = datagram(v4(1), v4(2), (5, 6), b"there");
    let mut ups = 0;
    for _ in 0..500 {
        world.pass(Duration::from_secs(1));
        for side in [&mut world.alice, &mut world.bob] {
            side.shard.handle_exchanges(world.now.at);
        }
        write(&mut world.alice, world.now, &packet);
        let [_, bob] = settle(&mut world, |_| false);
        assert_eq!(bob.packets, [&packet[..]]);
        ups += bob.events.iter().filter(|event| is_up(event)).count();
    }
    assert_eq!(ups, 4, "each 120 s");
    world.pass(Duration::from_secs(121));
    for side in [&mut world.alice, &mut world.bob] {
        side.shard.handle_exchanges(world.now.at);
    }
    assert_eq!(suites(&world), [None; 2]);
}

/// No frame of the control plane and no packet goes by WireGuard but what makes keys.
#[test]
fn a_session_of_which_only_the_transport_is_used_is_renewed() {
    for lower in [Lower::Alice, Lower::Bob] {
        let mut world = sealing(lower);
        let place = world.alice.shard.sessions.place(PEER).unwrap();
        let state = world.alice.shard.sessions.look(place).unwrap();
        let counters = Arc::clone(&state.counters);
        let packet = datagram(v4(1), v4(2), (5, 6), b"there");
        let mut handshakes = BTreeSet::new();
        for _ in 0..600 {
            world.pass(Duration::from_secs(1));
            for side in [&mut world.alice, &mut world.bob] {
                side.shard.handle_exchanges(world.now.at);
                side.shard.handle_timers(world.now.at);
            }
            write(&mut world.alice, world.now, &packet);
            let [_, bob] = settle(&mut world, |_| false);
            assert_eq!(bob.packets, [&packet[..]]);
            let handshake = Moment(counters.handshake.load(Ordering::Relaxed));
            assert!(world.now.at.since(handshake) < Duration::from_secs(180));
            handshakes.insert(handshake);
        }
        assert!((4..=6).contains(&handshakes.len()), "{handshakes:?}");
    }
}

/// Neither by a transport nor by WireGuard: the copy has the keys and the counters of both.
#[test]
fn a_machine_that_may_be_a_copy_seals_nothing_by_its_old_keys_and_wants_new_ones_where_programs_talk()
 {
    for is_used in [true, false] {
        let mut world = sealing(Lower::Alice);
        let packet = datagram(v4(1), v4(2), (5, 6), b"there");
        world.alice.write(world.now, &packet);
        world.pass(if is_used {
            Duration::from_secs(2)
        } else {
            Duration::from_mins(4)
        });
        world.alice.shard.end_all(world.now.at);
        let told = world.alice.drain();
        assert!(told.datagrams.is_empty());
        let wanted = told
            .events
            .iter()
            .filter(|event| matches!(event, Event::Wanted { .. }));
        assert_eq!(wanted.count(), usize::from(is_used));
        let is_down = |event: &Event| matches!(event, Event::Down { session } if *session == PEER);
        assert!(told.events.iter().any(is_down));
        assert_eq!(world.alice.shard.sessions.place(PEER), None);
        assert!(world.alice.write(world.now, &packet).datagrams.is_empty());
    }
}
