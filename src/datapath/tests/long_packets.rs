//! Packets that the host left longer than the link: cut on their way out, joined on their way in.

use super::*;
use crate::{
    packet::{
        checksum::{Sum, pseudo},
        ecn::Ecn,
        ip::TCP,
        join::Run,
        tcp::PSH,
    },
    platform::allocation::asked_by,
};

/// Bytes of headers of the segments below.
const HEADS: usize = 40;

/// A TCP packet that is to be cut: its checksum is that of the pseudo header alone.
pub(super) fn long(from: IpAddr, to: IpAddr, ports: (u16, u16), body: &[u8]) -> Vec<u8> {
    let mut packet = segment(from, to, ports, ACK | PSH);
    packet.extend_from_slice(body);
    let len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[10..12].fill(0);
    let checksum = Sum::default().bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let sum = !pseudo(from, to, TCP, packet.len() - 20).finish();
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn body(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at * 7 % 251).unwrap())
        .collect()
}

pub(super) fn to_cut(size: u16) -> Undone {
    Undone::Segments {
        protocol: TCP,
        size,
    }
}

fn write_long(side: &mut Side, now: Now, packet: &[u8], undone: Undone) -> Came {
    transports::write_undone(side, now, packet, undone);
    side.drain()
}

/// What Bob has for his host of what Alice's program wrote.
fn carry(world: &mut World, packet: &[u8], undone: Undone) -> Vec<Vec<u8>> {
    let came = write_long(&mut world.alice, world.now, packet, undone);
    let mut arrived = Vec::new();
    for (_, datagram) in came.datagrams {
        let one = world.bob.take(world.now, world.alice.at, &datagram);
        arrived.extend(one.packets);
    }
    arrived
}

fn is_sound(packet: &[u8]) -> bool {
    let header = Header::parse(packet).unwrap();
    let payload = header.payload(packet);
    let seen = pseudo(header.source, header.destination, TCP, payload.len());
    seen.bytes(payload).finish() == 0 && Sum::default().bytes(&packet[..20]).finish() == 0
}

#[test]
fn a_long_packet_arrives_as_segments_that_are_one_packet_again() {
    let mut world = World::standing();
    let packet = long(v4(1), v4(2), (5, 6), &body(50_000));
    let arrived = carry(&mut world, &packet, to_cut(1368));
    assert_eq!(arrived.len(), 50_000_usize.div_ceil(1368));
    assert!(arrived.iter().all(|one| is_sound(one)));
    let bodies = arrived.iter().flat_map(|one| one[HEADS..].to_vec());
    assert_eq!(bodies.collect::<Vec<_>>(), body(50_000));
    let mut run = Run::begin(&arrived[0]).unwrap();
    assert!(arrived[1..].iter().all(|one| run.take(&arrived[0], one)));
}

#[test]
fn segments_of_odd_lengths_are_padded_and_none_loses_a_byte_to_the_padding_before_it() {
    for size in [1, 7, 41, 1367, 1369, 1380] {
        let mut world = World::standing();
        let len = usize::from(size) * 20 + usize::from(size) / 2;
        let packet = long(v4(1), v4(2), (5, 6), &body(len));
        let arrived = carry(&mut world, &packet, to_cut(size));
        let bodies = arrived.iter().flat_map(|one| one[HEADS..].to_vec());
        assert_eq!(bodies.collect::<Vec<_>>(), body(len), "{size}");
        assert!(arrived.iter().all(|one| is_sound(one)));
    }
}

#[test]
fn a_service_answers_with_its_own_port_in_every_segment() {
    let mut world = World::standing();
    std::mem::swap(&mut world.alice, &mut world.bob);
    let packet = long(v4(2), v4(1), (20_080, 40_000), &body(5_000));
    let arrived = carry(&mut world, &packet, to_cut(1000));
    assert_eq!(arrived.len(), 5);
    for one in arrived {
        assert!(is_sound(&one));
        assert_eq!(ends(&one), (v4(2), 80, v4(1), 40_000));
    }
}

#[test]
fn what_is_turned_around_is_cut_and_sound() {
    let mut world = World::standing();
    let vip = VIP.parse().unwrap();
    let packet = long(v4(1), vip, (40_000, 80), &body(4_500));
    let came = write_long(&mut world.alice, world.now, &packet, to_cut(1380));
    assert_eq!(came.packets.len(), 4);
    for one in came.packets {
        assert!(is_sound(&one));
        assert_eq!(ends(&one), (vip, 40_000, v4(1), 20_080));
    }
}

#[test]
fn each_question_of_a_train_to_the_resolver_is_answered() {
    let mut world = World::standing();
    let questions = datagram(v4(1), RESOLVER.parse().unwrap(), (5, 53), b"onetwosix!");
    let undone = Undone::Segments {
        protocol: UDP,
        size: 3,
    };
    let came = write_long(&mut world.alice, world.now, &questions, undone);
    let answers = came.packets.iter().map(|one| &one[28..]);
    let wanted: [&[u8]; 4] = [
        b"answer to one",
        b"answer to two",
        b"answer to six",
        b"answer to !",
    ];
    assert_eq!(answers.collect::<Vec<_>>(), wanted);
}

/// Two machines that seal by WireGuard, and two that have a transport.
fn worlds() -> [World; 2] {
    [
        World::standing(),
        transports::sealing(transports::Lower::Alice),
    ]
}

#[test]
fn a_narrow_path_gets_shorter_segments_and_long_datagrams_are_answered() {
    for mut world in worlds() {
        let room = Command::SetRoom {
            session: PEER,
            endpoint: world.bob.at,
            inner: 1280,
            in_fragments: false,
        };
        world.alice.shard.handle_command(world.now, room);
        let packet = long(v4(1), v4(2), (5, 6), &body(10_000));
        let arrived = carry(&mut world, &packet, to_cut(1380));
        assert_eq!(arrived.len(), 10_000_usize.div_ceil(1240));
        assert!(arrived.iter().all(|one| is_sound(one) && one.len() <= 1280));
        let datagrams = datagram(v4(1), v4(2), (5, 6), &body(3_000));
        let undone = Undone::Segments {
            protocol: UDP,
            size: 1300,
        };
        let came = write_long(&mut world.alice, world.now, &datagrams, undone);
        assert_eq!((came.datagrams.len(), came.packets.len()), (0, 1));
        assert_eq!(came.packets[0][20..22], [3, 4], "too big");
        assert_eq!(world.alice.met(DropReason::OutTooLong), 1);
    }
}

#[test]
fn a_checksum_left_undone_is_finished_before_anything_else() {
    let mut world = World::standing();
    let packet = long(v4(1), v4(2), (5, 6), &body(300));
    let undone = Undone::Checksum {
        start: 20,
        offset: 16,
    };
    let arrived = carry(&mut world, &packet, undone);
    assert!(arrived.len() == 1 && is_sound(&arrived[0]));
    std::mem::swap(&mut world.alice, &mut world.bob);
    let packet = long(v4(2), v4(1), (20_080, 7), &body(300));
    let arrived = carry(&mut world, &packet, undone);
    assert!(arrived.len() == 1 && is_sound(&arrived[0]));
    assert_eq!(ends(&arrived[0]), (v4(2), 80, v4(1), 7));
}

#[test]
fn a_long_packet_without_a_session_waits_in_segments() {
    let mut world = World::new();
    let packet = long(v4(1), v4(2), (5, 6), &body(4_000));
    let came = write_long(&mut world.alice, world.now, &packet, to_cut(1000));
    assert!(matches!(came.events[..], [Event::Wanted { .. }]));
    let many = long(v4(1), v4(2), (5, 6), &body(40_000));
    write_long(&mut world.alice, world.now, &many, to_cut(1000));
    assert_eq!(world.alice.met(DropReason::OutQueueFull), 1);
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0);
    let came = world.alice.take(world.now, world.bob.at, &response.1);
    let mut arrived = Vec::new();
    for (_, datagram) in came.datagrams {
        arrived.extend(world.bob.take(world.now, world.alice.at, &datagram).packets);
    }
    assert!(arrived.len() == 16 && arrived.iter().all(|one| is_sound(one)));
}

#[test]
fn marks_go_out_with_the_datagram_and_come_in_with_it() {
    for mut world in worlds() {
        let mut packet = datagram(v4(1), v4(2), (5, 6), b"hello");
        packet[1] = Ecn::Zero.bits();
        packet[10..12].fill(0);
        let checksum = Sum::default().bytes(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut deaf = datagram(v4(1), v4(2), (5, 6), b"hello");
        for (packet, is_heard) in [(&mut packet, true), (&mut deaf, false)] {
            packet.resize(packet.len() + 16, 0);
            let read = (packet.len() - 16, Undone::Nothing);
            world.alice.shard.handle_packet(world.now.at, packet, read);
            let (target, sealed) = world.alice.shard.out.datagrams.get(0).unwrap();
            assert_eq!(target.ecn == Ecn::Zero, is_heard);
            let source = super::super::inbound::Source {
                path: world.alice.at,
                ecn: Ecn::Met,
            };
            world
                .bob
                .shard
                .handle_datagram(world.now.at, source, sealed);
            let came = world.bob.drain().packets;
            assert_eq!(came.len(), usize::from(is_heard));
            if let [one] = &came[..] {
                assert_eq!(Ecn::of(one), Ecn::Met);
                assert_eq!(Sum::default().bytes(&one[..20]).finish(), 0);
            }
            world.alice.shard.out.datagrams.clear();
        }
        assert_eq!(world.bob.met(DropReason::InCongested), 1);
    }
}

#[test]
fn long_packets_cost_no_allocation() {
    let mut world = World::proven();
    let packet = long(v4(1), v4(2), (5, 6), &body(60_000));
    let mut buffer = vec![0; packet.len() + 16];
    let mut joined = 0;
    let mut run = |world: &mut World, times: u32| {
        for _ in 0..times {
            let World { alice, bob, now } = world;
            buffer[..packet.len()].copy_from_slice(&packet);
            let read = (packet.len(), to_cut(1368));
            alice.shard.handle_packet(now.at, &mut buffer, read);
            for (_, datagram) in alice.shard.out.datagrams.iter() {
                bob.shard.handle_datagram(now.at, alice.at, datagram);
            }
            alice.shard.out.datagrams.clear();
            let packets = &bob.shard.out.packets;
            let ((), first) = packets.get(0).unwrap();
            let mut run = Run::begin(first).unwrap();
            assert!(packets.iter().skip(1).all(|((), one)| run.take(first, one)));
            assert!(run.head(first).is_some());
            joined += run.packets();
            bob.shard.out.packets.clear();
            alice.shard.handle_timers(now.at);
            now.at = now.at.after(Duration::from_millis(250));
        }
    };
    run(&mut world, 40);
    assert_eq!(asked_by(|| run(&mut world, 100)), 0);
    assert_eq!(joined, 140 * 44);
}
