//! What a shard does while its path is in doubt, moves, or is too narrow.

use super::{
    transports::{Lower, sealing},
    *,
};
use crate::{datapath::command::Unheard, ids::LegIx, packet::icmp::Unreachable};

fn other() -> Path {
    Path::Direct(Underlay::new(([192, 0, 2, 99], 41_820).into()))
}

fn proven() -> World {
    let mut world = World::standing();
    let (session, endpoint) = (PEER, world.bob.at);
    let command = Command::SetPath { session, endpoint };
    world.alice.shard.handle_command(world.now, command);
    world
}

fn chat(number: u8) -> Vec<u8> {
    datagram(v4(1), v4(2), (5, 6), &[number])
}

fn long() -> Vec<u8> {
    datagram(v4(1), v4(2), (5, 6), &[7; 1372])
}

fn order(world: &mut World, command: Command) -> Came {
    world.alice.shard.handle_command(world.now, command);
    world.alice.drain()
}

fn tick(world: &mut World) -> Vec<Event> {
    world.alice.shard.handle_timers(world.now.at);
    world.alice.drain().events
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn what_is_not_answered_is_told_after_half_a_second_and_sent_again_by_another_path_in_the_same_bytes()
 {
    let mut world = proven();
    world.alice.write(world.now, &chat(0));
    world.pass(MS(200));
    let again = world.alice.write(world.now, &chat(1)).datagrams;
    assert!(tick(&mut world).is_empty());
    world.pass(MS(300));
    let told = tick(&mut world);
    assert!(
        matches!(
            told[..],
            [Event::Unheard {
                why: Unheard::Silent,
                ..
            }]
        ),
        "{told:?}"
    );
    let (session, via) = (PEER, Some(other()));
    let mirrored = order(&mut world, Command::Mirror { session, via }).datagrams;
    assert_eq!(mirrored, [(other(), again[0].1.clone())]);
    let both = world.alice.write(world.now, &chat(2)).datagrams;
    assert_eq!(both.len(), 2);
    assert_eq!((both[0].0, both[1].0), (world.bob.at, other()));
    assert_eq!(both[0].1, both[1].1, "the replay window takes one of them");
    for (_, datagram) in mirrored.into_iter().chain(both) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    assert_eq!(world.bob.met(DropReason::InReplay), 1);
    let endpoint = other();
    let moved = order(&mut world, Command::SetPath { session, endpoint });
    assert_eq!(
        moved.datagrams.len(),
        2,
        "both that were not answered go there"
    );
    let after = world.alice.write(world.now, &chat(3)).datagrams;
    assert!(
        matches!(after[..], [(to, _)] if to == other()),
        "nothing is mirrored any more"
    );
}

#[test]
fn an_answer_by_the_path_ends_all_doubt() {
    let mut world = proven();
    world.alice.write(world.now, &chat(0));
    world.pass(MS(200));
    world.alice.write(world.now, &chat(1));
    std::mem::swap(&mut world.alice, &mut world.bob);
    let answer = world
        .alice
        .write(world.now, &datagram(v4(2), v4(1), (6, 5), b"x"));
    std::mem::swap(&mut world.alice, &mut world.bob);
    world
        .alice
        .take(world.now, world.bob.at, &answer.datagrams[0].1);
    world.pass(MS(5000));
    assert!(tick(&mut world).is_empty());
    let (session, endpoint) = (PEER, other());
    let moved = order(&mut world, Command::SetPath { session, endpoint });
    assert!(
        moved.datagrams.is_empty(),
        "what was answered is not sent again"
    );
}

#[test]
fn after_20_idle_seconds_the_first_packet_says_so() {
    let mut world = proven();
    world.pass(MS(20_000));
    let came = world.alice.write(world.now, &chat(0));
    assert!(matches!(
        came.events[..],
        [Event::Unheard {
            why: Unheard::Stale,
            ..
        }]
    ));
    assert_eq!(came.datagrams.len(), 1);
}

#[test]
fn without_a_path_packets_wait_and_the_first_asks_for_one() {
    let mut world = proven();
    let session = PEER;
    order(&mut world, Command::Withdraw { session });
    let came = world.alice.write(world.now, &chat(0));
    assert!(came.datagrams.is_empty());
    assert!(matches!(
        came.events[..],
        [Event::Unheard {
            why: Unheard::Pathless,
            ..
        }]
    ));
    assert!(world.alice.write(world.now, &chat(1)).events.is_empty());
    let endpoint = other();
    let came = order(&mut world, Command::SetPath { session, endpoint });
    assert_eq!(came.datagrams.len(), 2);
    assert!(came.datagrams.iter().all(|(to, _)| *to == other()));
}

#[test]
fn a_move_to_a_quicker_path_waits_for_a_gap() {
    let mut world = proven();
    world.alice.write(world.now, &chat(0));
    let (session, endpoint, gap) = (PEER, other(), MS(30));
    let came = order(
        &mut world,
        Command::Move {
            session,
            endpoint,
            gap,
        },
    );
    assert!(came.datagrams.is_empty());
    world.pass(MS(20));
    let to = |world: &mut World, number| world.alice.write(world.now, &chat(number)).datagrams[0].0;
    assert_eq!(to(&mut world, 1), world.bob.at);
    world.pass(MS(30));
    assert_eq!(to(&mut world, 2), other());
}

#[test]
fn a_path_that_is_not_there_moves_nothing_and_panics_nobody() {
    let mut world = proven();
    let (session, endpoint) = (PEER, Path::Relay(LegIx(9)));
    order(&mut world, Command::SetPath { session, endpoint });
    assert!(world.alice.write(world.now, &chat(0)).datagrams.is_empty());
    let via = Some(endpoint);
    for command in [
        Command::Mirror { session: JOIN, via },
        Command::Withdraw { session: JOIN },
        Command::Move {
            session: JOIN,
            endpoint,
            gap: MS(1),
        },
        Command::SetRoom {
            session: JOIN,
            endpoint,
            inner: 1280,
            in_fragments: false,
        },
    ] {
        order(&mut world, command);
    }
}

/// The size that an ICMP error names, and what it quotes.
fn too_big(packet: &[u8]) -> (u16, Vec<u8>) {
    let header = Header::parse(packet).unwrap();
    assert_eq!(header.protocol, ICMP);
    assert_eq!(header.source, RESOLVER.parse::<IpAddr>().unwrap());
    let body = header.payload(packet);
    assert_eq!(body[..2], [3, 4], "{:?}", Unreachable::TooBig(0));
    (u16::from_be_bytes([body[6], body[7]]), body[8..].to_vec())
}

#[test]
fn a_packet_longer_than_its_path_is_answered_and_shorter_ones_go() {
    let mut world = proven();
    assert_eq!(world.carry(&long()).packets.len(), 1);
    let (session, inner, in_fragments) = (PEER, 1360, false);
    let endpoint = world.bob.at;
    let command = Command::SetRoom {
        session,
        endpoint,
        inner,
        in_fragments,
    };
    order(&mut world, command);
    let came = world.alice.write(world.now, &long());
    assert!(came.datagrams.is_empty());
    let (size, quoted) = too_big(&came.packets[0]);
    assert_eq!((size, &quoted[..]), (1360, &long()[..quoted.len()]));
    let fits = datagram(v4(1), v4(2), (5, 6), &[7; 1332]);
    let came = world.alice.write(world.now, &fits);
    assert_eq!(
        came.datagrams[0].1.len(),
        1360 + 32,
        "padded to the path, not beyond"
    );
}

#[test]
fn a_path_that_shrinks_is_told_to_who_waits_for_an_answer_at_once() {
    let mut world = proven();
    world.alice.write(world.now, &long());
    world.pass(MS(200));
    world.alice.write(world.now, &long());
    world.pass(MS(300));
    let told = tick(&mut world);
    assert!(
        matches!(
            told[..],
            [Event::Unheard {
                why: Unheard::Choked,
                ..
            }]
        ),
        "{told:?}"
    );
    let (session, inner, in_fragments) = (PEER, 1360, false);
    let endpoint = world.bob.at;
    let command = Command::SetRoom {
        session,
        endpoint,
        inner,
        in_fragments,
    };
    let came = order(&mut world, command);
    let (size, quoted) = too_big(&came.packets[0]);
    assert_eq!(size, 1360);
    assert_eq!(quoted[..28], long()[..28], "who sent it, and what");
    let command = Command::SetRoom {
        session,
        endpoint,
        inner,
        in_fragments,
    };
    assert!(order(&mut world, command).packets.is_empty(), "once");
}

#[test]
fn what_goes_where_even_the_least_does_not_fit_is_marked_for_routers_to_cut() {
    let mut world = proven();
    let bob = world.bob.at.direct().unwrap();
    let session = PEER;
    for in_fragments in [true, false] {
        let (endpoint, inner) = (world.bob.at, 1280);
        let command = Command::SetRoom {
            session,
            endpoint,
            inner,
            in_fragments,
        };
        order(&mut world, command);
        assert_eq!(
            world.alice.shard.out.in_fragments.contains(&bob),
            in_fragments
        );
    }
}

#[test]
fn syns_both_ways_ask_for_segments_that_fit() {
    let mut world = proven();
    let (session, inner, in_fragments) = (PEER, 1280, false);
    let endpoint = other();
    for side in [&mut world.alice, &mut world.bob] {
        let command = Command::SetRoom {
            session,
            endpoint,
            inner,
            in_fragments,
        };
        side.shard.handle_command(world.now, command);
    }
    let mut syn = segment(v4(1), v4(2), (50_000, 22), SYN);
    syn.extend_from_slice(&[2, 4, 5, 0xb4]);
    syn[3] += 4;
    syn[20 + 12] = 0x60;
    let arrived = &world.carry(&syn).packets[0];
    assert_eq!(arrived[40..44], [2, 4, 4, 0xd8], "1240 = 1280 − 40");
}

#[test]
fn a_long_segment_that_goes_out_again_is_told_though_others_are_heard() {
    // By WireGuard, where each datagram is looked at, and by a transport.
    for mut world in [proven(), sealing(Lower::Alice)] {
        let mut segment = segment(v4(1), v4(2), (5, 6), ACK);
        segment.resize(1400, 0);
        segment[2..4].copy_from_slice(&1400_u16.to_be_bytes());
        assert!(world.alice.write(world.now, &segment).events.is_empty());
        let came = world.alice.write(world.now, &segment).events;
        assert!(
            matches!(came[..], [Event::Resent { session: PEER }]),
            "{came:?}"
        );
        assert!(
            world.alice.write(world.now, &segment).events.is_empty(),
            "it was said"
        );
    }
}
