//! Through relays: four machines joined in memory, each datagram handed to whom it is addressed.

use super::*;
use crate::{
    datapath::{command::Unheard, train::Train},
    ids::LegIx,
    platform::allocation::asked_by,
    relay::{LegEvent, Order, binding::Key, legs, quota::Limit, ways::Given},
    wire::datagram::{RELAY_HEAD, Relayed, relay_head},
};

const ALICE: usize = 0;
const BOB: usize = 1;
/// A relay.
const CAROL: usize = 2;
/// Another.
const DAVE: usize = 3;

/// The leg through carol, and one behind it or beside it through dave.
const NEAR: LegIx = LegIx(1);
const FAR: LegIx = LegIx(2);

struct Town {
    sides: Vec<Side>,
    now: Now,
    /// What each wrote into its TUN, and told.
    packets: Vec<Vec<Vec<u8>>>,
    events: Vec<Vec<Event>>,
    /// Datagrams between two, in order.
    wire: Vec<(usize, usize, Vec<u8>)>,
}

/// One end of a way: whose it is, by which leg, where its relay is, and the byte that its id and key are made of.
struct End {
    side: usize,
    leg: LegIx,
    relay: Path,
    seed: u8,
}

impl Town {
    fn new() -> Self {
        let sides = vec![
            Side::new(1, 2),
            Side::new(2, 1),
            Side::new(3, 9),
            Side::new(4, 9),
        ];
        let mut town = Self {
            packets: vec![Vec::new(); sides.len()],
            events: (0..sides.len()).map(|_| Vec::new()).collect(),
            sides,
            now: World::new().now,
            wire: Vec::new(),
        };
        for relay in [CAROL, DAVE] {
            town.order(relay, Order::Limit(Limit::of_megabits(1000)));
        }
        town
    }

    /// Alice and bob have legs through carol, bound.
    fn with_one_relay() -> Self {
        let mut town = Self::new();
        let carol = town.sides[CAROL].at;
        town.join(CAROL, [(ALICE, NEAR, carol, 11), (BOB, NEAR, carol, 12)]);
        town
    }

    /// Alice reaches carol alone, bob reaches dave alone.
    fn with_two_relays() -> Self {
        let mut town = Self::new();
        let (carol, dave) = (town.sides[CAROL].at, town.sides[DAVE].at);
        town.join(CAROL, [(ALICE, NEAR, carol, 11), (DAVE, NEAR, carol, 12)]);
        town.join(
            DAVE,
            [(ALICE, FAR, Path::Relay(NEAR), 13), (BOB, FAR, dave, 14)],
        );
        town
    }

    /// Two ends bind at a relay.
    fn join(&mut self, relay: usize, ends: [(usize, LegIx, Path, u8); 2]) {
        let ends = ends.map(|(side, leg, relay, seed)| End {
            side,
            leg,
            relay,
            seed,
        });
        let way = ends.each_ref().map(|end| Given {
            id: [end.seed; 4],
            key: Key([end.seed; 32]),
            member: PeerIx(u32::from(end.seed)),
        });
        self.order(relay, Order::OpenWay(way));
        for end in &ends {
            let given = legs::Given {
                relay: end.relay,
                theirs: [end.seed; 4],
                ours: 0x4444_0000 + u32::from(end.seed),
                key: Key([end.seed; 32]),
            };
            let leg = end.leg;
            self.order(end.side, Order::AddLeg { leg, given });
        }
        self.run();
        for end in ends {
            let bound = |event: &Event| matches!(event, Event::Leg { leg, event: LegEvent::Bound } if *leg == end.leg);
            assert!(self.events[end.side].iter().any(bound), "{}", end.side);
        }
    }

    fn order(&mut self, side: usize, order: Order) {
        self.command(side, Command::Relay(order));
    }

    fn command(&mut self, side: usize, command: Command) {
        self.sides[side].shard.handle_command(self.now, command);
    }

    /// Hands over datagrams until there are none.
    fn run(&mut self) {
        loop {
            let mut moved = Vec::new();
            for (from, side) in self.sides.iter_mut().enumerate() {
                let came = side.drain();
                self.packets[from].extend(came.packets);
                self.events[from].extend(came.events);
                moved.extend(
                    came.datagrams
                        .into_iter()
                        .map(|(to, bytes)| (from, to, bytes)),
                );
            }
            if moved.is_empty() {
                return;
            }
            for (from, to, bytes) in moved {
                let at = self.sides[from].at;
                let to = self.sides.iter().position(|side| side.at == to).unwrap();
                self.sides[to]
                    .shard
                    .handle_datagram(self.now.at, at, &bytes);
                self.wire.push((from, to, bytes));
            }
        }
    }

    /// Alice and bob make a session over these legs.
    fn stand(&mut self, leg: LegIx) {
        let keys = self.sides[ALICE].keys();
        let to = vec![(Path::Relay(leg), knock())];
        let initiate = Command::Initiate {
            session: PEER,
            keys,
            to,
        };
        self.command(ALICE, initiate);
        self.run();
        let sealed = |event: &Event| matches!(event, Event::Sealed { source, .. } if *source == Path::Relay(leg));
        assert!(self.events[BOB].iter().any(sealed));
        let admit = Command::Admit {
            session: PEER,
            keys: self.sides[BOB].keys(),
            source: Path::Relay(leg),
            admission: Admission::Keep,
        };
        self.command(BOB, admit);
        self.run();
        for side in [ALICE, BOB] {
            let up = |event: &Event| matches!(event, Event::Up { endpoint, .. } if *endpoint == Path::Relay(leg));
            assert!(self.events[side].iter().any(up), "{side}");
            let endpoint = Path::Relay(leg);
            self.command(
                side,
                Command::SetPath {
                    session: PEER,
                    endpoint,
                },
            );
        }
        self.wire.clear();
    }

    fn write(&mut self, side: usize, packet: &[u8]) {
        let mut buffer = vec![0; packet.len() + 16];
        buffer[..packet.len()].copy_from_slice(packet);
        let shard = &mut self.sides[side].shard;
        shard.handle_packet(self.now.at, &mut buffer, (packet.len(), Undone::Nothing));
        self.run();
    }

    fn met(&self, side: usize, reason: DropReason) -> u64 {
        self.sides[side].met(reason)
    }
}

fn there() -> Vec<u8> {
    datagram(v4(1), v4(2), (5, 6), &[7; 1200])
}

fn back() -> Vec<u8> {
    datagram(v4(2), v4(1), (6, 5), b"back")
}

#[test]
fn a_session_stands_and_carries_both_ways_through_a_relay_that_cannot_open_it() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    town.write(ALICE, &there());
    town.write(BOB, &back());
    assert_eq!(town.packets[BOB], [there()]);
    assert_eq!(town.packets[ALICE], [back()]);
    let hops: Vec<(usize, usize)> = town.wire.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(
        hops,
        [(ALICE, CAROL), (CAROL, BOB), (BOB, CAROL), (CAROL, ALICE)]
    );
    let sizes: Vec<usize> = town.wire.iter().map(|(_, _, bytes)| bytes.len()).collect();
    assert_eq!(sizes[0], sizes[1], "8 bytes, whoever sends them");
    assert_eq!(town.wire[0].2[8..], town.wire[1].2[8..]);
    assert!(town.packets[CAROL].is_empty());
}

#[test]
fn two_relays_one_behind_the_other_carry_and_each_sees_its_neighbours_alone() {
    let mut town = Town::with_two_relays();
    town.stand(FAR);
    town.write(ALICE, &there());
    town.write(BOB, &back());
    assert_eq!(town.packets[BOB], [there()]);
    assert_eq!(town.packets[ALICE], [back()]);
    let hops: Vec<(usize, usize)> = town.wire.iter().map(|(from, to, _)| (*from, *to)).collect();
    let there = [(ALICE, CAROL), (CAROL, DAVE), (DAVE, BOB)];
    let back = [(BOB, DAVE), (DAVE, CAROL), (CAROL, ALICE)];
    assert_eq!(hops, [there, back].concat());
    assert_eq!(town.wire[0].2[8..12], [0x20, 0, 0, 0], "a frame in a frame");
    assert_ne!(town.wire[2].2[8], 0x20);
}

#[test]
fn a_third_relay_is_refused() {
    let mut town = Town::with_two_relays();
    // Dave's other end cannot be behind a relay as well: its bind comes through carol.
    let carol = town.sides[CAROL].at;
    town.join(CAROL, [(BOB, NEAR, carol, 21), (DAVE, LegIx(9), carol, 22)]);
    let given = legs::Given {
        relay: Path::Relay(NEAR),
        theirs: [14; 4],
        ours: 5,
        key: Key([14; 32]),
    };
    town.order(BOB, Order::AddLeg { leg: FAR, given });
    town.run();
    assert_eq!(town.met(DAVE, DropReason::RelayTooDeep), 1);
}

#[test]
fn frames_of_a_stranger_and_binds_without_the_key_are_met_with_silence() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    let eve = Path::Direct(Underlay::new(([192, 0, 2, 66], 4_000).into()));
    let carol = &mut town.sides[CAROL];
    let mut said = 0;
    for id in [[11; 4], [12; 4], [0; 4], [0xff; 4]] {
        let session = u32::from_le_bytes(id);
        let frame = Relayed {
            session,
            datagram: &knock(),
        };
        said += carol.take(town.now, eve, &frame.encode()).datagrams.len();
        for key in 0..20 {
            let bind = Key([100 + key; 32]).bind(id, [key; 16]);
            said += carol.take(town.now, eve, &bind.encode()).datagrams.len();
        }
    }
    assert_eq!(said, 0);
    assert_eq!(carol.met(DropReason::InRelayStranger), 4 + 80);
    // Nor can an end be spoken to past its relay.
    let frame = [&relay_head(0x4444_000b)[..], &knock()].concat();
    let came = town.sides[ALICE].take(town.now, eve, &frame);
    assert!(came.datagrams.is_empty() && came.events.is_empty());
    town.write(ALICE, &there());
    assert_eq!(town.packets[BOB], [there()]);
}

#[test]
fn each_frame_of_a_train_is_judged_before_it_is_carried_on() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    town.run();
    let (relay, alice) = (town.sides[CAROL].at, town.sides[ALICE].at);
    let Some(good) = town.sides[ALICE]
        .write(town.now, &there())
        .datagrams
        .into_iter()
        .find_map(|(to, frame)| (to == relay).then_some(frame))
    else {
        panic!("nothing goes by the relay");
    };
    let mut not_ours = good.clone();
    not_ours[RELAY_HEAD] = 0x77;
    let mut empty = good[..RELAY_HEAD].to_vec();
    let mut message = [&good[..], &not_ours, &good].concat();
    message.append(&mut empty);
    let carol = &mut town.sides[CAROL];
    let before = carol.met(DropReason::InUnknownDatagram);
    let train = Train::new(&mut message, good.len());
    carol.shard.take_message(town.now.at, alice.into(), train);
    let carried = carol.drain().datagrams;
    assert_eq!(carried.len(), 2);
    assert_eq!(carol.met(DropReason::InUnknownDatagram), before + 2);
}

#[test]
fn packets_for_a_leg_that_rests_wait_and_say_so_and_go_when_it_wakes() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    town.order(ALICE, Order::RestLeg(NEAR));
    town.events[ALICE].clear();
    town.write(ALICE, &there());
    assert!(town.wire.is_empty());
    assert!(matches!(
        town.events[ALICE][..],
        [Event::Unheard {
            why: Unheard::Pathless,
            ..
        }]
    ));
    town.order(ALICE, Order::WakeLeg(NEAR));
    town.run();
    assert_eq!(town.packets[BOB], [there()]);
}

#[test]
fn nothing_goes_over_a_leg_that_was_dropped() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    town.order(ALICE, Order::DropLeg(NEAR));
    town.write(ALICE, &there());
    assert!(town.wire.is_empty() && town.packets[BOB].is_empty());
    town.order(CAROL, Order::CloseWay([12; 4]));
    town.write(BOB, &back());
    assert!(town.packets[ALICE].is_empty());
    assert_eq!(town.met(CAROL, DropReason::InRelayStranger), 1);
}

#[test]
fn what_a_member_may_not_send_any_more_is_dropped_and_counted() {
    let mut town = Town::with_one_relay();
    town.stand(NEAR);
    // 80 kbit/s in all, half of it alice's: 5,000 bytes a second.
    let limit = Limit {
        in_all: 10_000,
        per_member: 5_000,
    };
    town.order(CAROL, Order::Limit(limit));
    for _ in 0..1000 {
        town.pass(Duration::from_millis(10));
        town.write(ALICE, &there());
    }
    // Each is sealed: 32 bytes and up to 15 of padding more.
    let carried: usize = town.packets[BOB]
        .iter()
        .map(|packet| packet.len() + 36)
        .sum();
    let dropped = town.met(CAROL, DropReason::RelayQuota);
    assert!((47_500..=52_500).contains(&carried), "{carried} in 10 s");
    assert!(dropped > 50, "{dropped}");
}

impl Town {
    fn pass(&mut self, time: Duration) {
        self.now.at = self.now.at.after(time);
    }
}

#[test]
fn a_relay_carries_and_both_ends_frame_without_an_allocation() {
    for (mut town, leg) in [
        (Town::with_one_relay(), NEAR),
        (Town::with_two_relays(), FAR),
    ] {
        town.stand(leg);
        town.write(ALICE, &there());
        let frames: Vec<(usize, usize, Vec<u8>)> = town.wire.clone();
        let mut carry = |times: u32| {
            for _ in 0..times {
                for (from, to, frame) in frames.iter().filter(|(_, to, _)| *to != BOB) {
                    let at = town.sides[*from].at;
                    let shard = &mut town.sides[*to].shard;
                    shard.handle_datagram(town.now.at, at, frame);
                    assert_eq!(shard.out.datagrams.len(), 1);
                    shard.out.datagrams.clear();
                }
            }
        };
        carry(50);
        assert_eq!(asked_by(|| carry(1000)), 0);
        let packet = there();
        let mut buffer = vec![0; 2048];
        let mut send = |times: u32| {
            for _ in 0..times {
                buffer[..packet.len()].copy_from_slice(&packet);
                let [alice, bob, ..] = &mut town.sides[..] else {
                    return;
                };
                alice.shard.handle_packet(
                    town.now.at,
                    &mut buffer,
                    (packet.len(), Undone::Nothing),
                );
                let sent = alice.shard.out.datagrams.len();
                assert_eq!(sent, 1);
                alice.shard.out.datagrams.clear();
                bob.shard.handle_timers(town.now.at);
            }
        };
        send(50);
        assert_eq!(asked_by(|| send(1000)), 0);
    }
}
