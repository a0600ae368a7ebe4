//! Two shards joined in memory: what one wants sent, the other takes in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

mod allocating;
mod arriving;
mod lanes;
mod long_packets;
mod meeting;
mod paths;
mod relaying;
mod switching;
mod transports;

use super::{
    command::{Command, DoorVerdict, Event, SessionKeys},
    drops::{DropReason, Drops},
    sessions::{Knocking, Rekey},
    shard::Shard,
};
use crate::{
    addr::{Path, Underlay},
    ids::{JoinIx, PeerIx, SessionId},
    packet::{
        ip::{Header, ICMP, Ports, UDP},
        tcp::{ACK, RST, SYN, Segment},
        udp,
        vnet::Undone,
    },
    tables::{Admission, Names, Own, Tables, Transport},
    time::{Moment, Now},
    wire::frame,
};

/// The one peer that each side knows.
const PEER: SessionId = SessionId::Pair(PeerIx(5));
const JOIN: SessionId = SessionId::Join(JoinIx(0));
const RESOLVER: &str = "100.64.255.53";
const VIP: &str = "100.64.200.1";

#[derive(Debug)]
struct Echo;

impl Names for Echo {
    fn answer(&self, query: &[u8], _limit: usize, answer: &mut Vec<u8>) -> bool {
        answer.extend_from_slice(b"answer to ");
        answer.extend_from_slice(query);
        !query.is_empty()
    }

    fn is_foreign(&self, _query: &[u8]) -> bool {
        false
    }
}

/// One machine.
struct Side {
    shard: Shard,
    at: Path,
    seed: u8,
}

/// What came out of a shard.
#[derive(Debug, Default)]
struct Came {
    datagrams: Vec<(Path, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
    events: Vec<Event>,
}

struct World {
    alice: Side,
    bob: Side,
    now: Now,
}

fn v4(last: u8) -> IpAddr {
    [100, 64, 0, last].into()
}

fn tables(own: u8, peer: u8) -> Tables {
    Tables {
        version: 1,
        own: Own {
            v4: Some([100, 64, 0, own].into()),
            v6: format!("fd00::{own}").parse().unwrap(),
            resolver4: RESOLVER.parse().unwrap(),
            resolver6: "fd00::53".parse().unwrap(),
            pool4: "100.64.0.0/16".parse().unwrap(),
            prefix6: "fd00::/48".parse().unwrap(),
            dns_tcp_port: 29_999,
        },
        peers4: HashMap::from([
            ([100, 64, 0, peer].into(), PeerIx(5)),
            ([100, 64, 0, 77].into(), PeerIx(6)),
        ]),
        peers6: HashMap::from([(format!("fd00::{peer}").parse().unwrap(), PeerIx(5))]),
        splices: BTreeMap::from([((Transport::Tcp, 80), 20_080)]),
        own_vips: BTreeSet::from([VIP.parse().unwrap()]),
        names: Arc::new(Echo),
    }
}

impl Side {
    fn new(own: u8, peer: u8) -> Self {
        Self {
            shard: Shard::new(
                [own; 32],
                Arc::new(tables(own, peer)),
                1420,
                Arc::new(Drops::default()),
            ),
            at: Path::Direct(Underlay::new(([192, 0, 2, own], 41_820).into())),
            seed: own,
        }
    }

    fn keys(&self) -> SessionKeys {
        let peer = 3 - self.seed;
        let secret = |seed| x25519_dalek::StaticSecret::from([seed; 32]);
        SessionKeys {
            local_secret: secret(self.seed),
            remote_public: x25519_dalek::PublicKey::from(&secret(peer)),
            psk: [9; 32],
        }
    }

    /// Empties the outbox.
    fn drain(&mut self) -> Came {
        let out = &mut self.shard.out;
        let came = Came {
            datagrams: out
                .datagrams
                .iter()
                .map(|(target, bytes)| (Path::Direct(target.to), bytes.to_vec()))
                .collect(),
            packets: out
                .packets
                .iter()
                .map(|((), bytes)| bytes.to_vec())
                .collect(),
            events: out.events.drain(..).collect(),
        };
        out.datagrams.clear();
        out.packets.clear();
        came
    }

    /// A program of this machine writes a packet.
    fn write(&mut self, now: Now, packet: &[u8]) -> Came {
        let mut buffer = vec![0xee; packet.len() + 16];
        buffer[..packet.len()].copy_from_slice(packet);
        let read = (packet.len(), Undone::Nothing);
        self.shard.handle_packet(now.at, &mut buffer, read);
        self.drain()
    }

    fn take(&mut self, now: Now, from: Path, datagram: &[u8]) -> Came {
        self.shard.handle_datagram(now.at, from, datagram);
        self.drain()
    }

    fn met(&self, reason: DropReason) -> u64 {
        self.shard.drops.met(reason)
    }
}

/// A datagram with the outer form of a Knock.
fn knock() -> Vec<u8> {
    let mut bytes = vec![0x5a; 200];
    bytes[..4].copy_from_slice(&[0x30, 1, 1, 0]);
    bytes
}

impl World {
    fn new() -> Self {
        Self {
            alice: Side::new(1, 2),
            bob: Side::new(2, 1),
            now: Now {
                at: Moment(1_000_000_000),
                unix_ms: 1_700_000_000_000,
            },
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at = self.now.at.after(time);
    }

    /// Alice knocks and initiates; gives both datagrams.
    fn initiate(&mut self, session: SessionId) -> Vec<Vec<u8>> {
        let command = Command::Initiate {
            session,
            keys: self.alice.keys(),
            to: vec![(self.bob.at, knock())],
        };
        self.alice.shard.handle_command(self.now, command);
        self.alice
            .drain()
            .datagrams
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect()
    }

    fn admit(&mut self, session: SessionId, admission: Admission) -> Came {
        let command = Command::Admit {
            session,
            keys: self.bob.keys(),
            source: self.alice.at,
            admission,
        };
        self.bob.shard.handle_command(self.now, command);
        self.bob.drain()
    }

    /// A session that stands on both sides.
    fn stand(&mut self, session: SessionId) {
        for datagram in self.initiate(session) {
            self.bob.take(self.now, self.alice.at, &datagram);
        }
        let response = self.admit(session, Admission::Keep).datagrams.remove(0);
        assert_eq!(response.0, self.alice.at);
        let came = self.alice.take(self.now, self.bob.at, &response.1);
        assert!(matches!(came.events[..], [Event::Up { endpoint, .. }] if endpoint == self.bob.at));
        let came = self.bob.take(self.now, self.alice.at, &came.datagrams[0].1);
        assert!(
            matches!(came.events[..], [Event::Up { endpoint, .. }] if endpoint == self.alice.at)
        );
    }

    fn standing() -> Self {
        let mut world = Self::new();
        world.stand(PEER);
        world
    }

    /// Both addresses are proven as well: no bound of bytes stops what goes there.
    fn proven() -> Self {
        let mut world = Self::standing();
        for (side, endpoint) in [
            (&mut world.alice.shard, world.bob.at),
            (&mut world.bob.shard, world.alice.at),
        ] {
            let session = PEER;
            side.handle_command(world.now, Command::SetPath { session, endpoint });
        }
        world
    }

    /// What Bob makes of a packet that a program on Alice's machine writes.
    fn carry(&mut self, packet: &[u8]) -> Came {
        let came = self.alice.write(self.now, packet);
        let mut arrived = Came::default();
        for (to, datagram) in came.datagrams {
            assert_eq!(to, self.bob.at);
            let one = self.bob.take(self.now, self.alice.at, &datagram);
            arrived.packets.extend(one.packets);
            arrived.events.extend(one.events);
        }
        arrived
    }

    /// What Bob makes of bytes that Alice seals without any check: what a hostile member can do.
    fn smuggle(&mut self, inner: &[u8]) -> Came {
        let place = self.alice.shard.sessions.place(PEER).unwrap();
        let mut sealed = [0; 2048];
        let state = self.alice.shard.sessions.at(place).unwrap();
        let len = state.session.encapsulate(inner, &mut sealed).unwrap();
        self.bob.take(self.now, self.alice.at, &sealed[..len])
    }
}

fn datagram(from: IpAddr, to: IpAddr, ports: (u16, u16), body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ports = Ports {
        source: ports.0,
        destination: ports.1,
    };
    assert!(udp::build(&mut packet, (from, to), ports, body));
    packet
}

fn segment(from: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let segment = Segment {
        ports: Ports {
            source: ports.0,
            destination: ports.1,
        },
        sequence: 100,
        acknowledgment: 0,
        flags,
        body_len: 0,
    };
    assert!(segment.build(&mut packet, (from, to)));
    packet
}

fn ends(packet: &[u8]) -> (IpAddr, u16, IpAddr, u16) {
    let header = Header::parse(packet).unwrap();
    let ports = header.ports(packet).unwrap();
    (
        header.source,
        ports.source,
        header.destination,
        ports.destination,
    )
}

#[test]
fn a_packet_goes_through_both_ways_and_is_counted() {
    let mut world = World::standing();
    let there = datagram(v4(1), v4(2), (5, 6), b"there");
    assert_eq!(world.carry(&there).packets, [&there[..]]);
    std::mem::swap(&mut world.alice, &mut world.bob);
    let back = datagram(
        "fd00::2".parse().unwrap(),
        "fd00::1".parse().unwrap(),
        (6, 5),
        b"back",
    );
    assert_eq!(world.carry(&back).packets, [back]);
}

#[test]
fn an_initiation_waits_while_its_knock_is_judged() {
    let mut world = World::new();
    let sent = world.initiate(PEER);
    let came = world.bob.take(world.now, world.alice.at, &sent[0]);
    assert!(matches!(&came.events[..], [Event::Sealed { bytes, .. }] if *bytes == sent[0]));
    let came = world.bob.take(world.now, world.alice.at, &sent[1]);
    assert!(came.datagrams.is_empty());
    assert_eq!(world.admit(PEER, Admission::Keep).datagrams.len(), 1);
}

#[test]
fn an_initiation_without_a_knock_is_silence() {
    let mut world = World::new();
    let sent = world.initiate(PEER);
    let came = world.bob.take(world.now, world.alice.at, &sent[1]);
    assert!(came.datagrams.is_empty() && came.events.is_empty());
    assert_eq!(world.bob.met(DropReason::InUnexpectedInitiation), 1);
}

#[test]
fn a_recorded_initiation_from_the_endpoint_is_silence_after_a_restart() {
    let mut bob_before = World::new();
    std::mem::swap(&mut bob_before.alice, &mut bob_before.bob);
    let recorded = bob_before.initiate(PEER).remove(1);
    // Alice has started again since, and the session is of her own initiation.
    let mut world = World::standing();
    let bob = world.bob.at;
    let came = world.alice.take(world.now, bob, &recorded);
    assert!(came.datagrams.is_empty() && came.events.is_empty());
    assert_eq!(world.alice.met(DropReason::InUnexpectedInitiation), 1);
    // Behind a Knock the same is answered, as a rekey of Bob's would be.
    world.alice.take(world.now, bob, &knock());
    world.alice.take(world.now, bob, &recorded);
    std::mem::swap(&mut world.alice, &mut world.bob);
    assert_eq!(world.admit(PEER, Admission::Keep).datagrams.len(), 1);
}

#[test]
fn an_initiation_whose_knock_is_never_judged_is_silence() {
    let mut world = World::new();
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    world.pass(Duration::from_secs(1));
    world.bob.shard.handle_timers(world.now.at);
    assert!(world.bob.drain().datagrams.is_empty());
    assert_eq!(world.bob.met(DropReason::InUnexpectedInitiation), 1);
}

#[test]
fn an_initiation_behind_a_knock_of_a_new_run_goes_into_the_new_state() {
    let mut world = World::standing();
    world.alice.shard = Side::new(1, 2).shard;
    for datagram in world.initiate(PEER) {
        assert!(
            world
                .bob
                .take(world.now, world.alice.at, &datagram)
                .datagrams
                .is_empty()
        );
    }
    let response = world.admit(PEER, Admission::Replace).datagrams.remove(0);
    let came = world.alice.take(world.now, world.bob.at, &response.1);
    let came = world
        .bob
        .take(world.now, world.alice.at, &came.datagrams[0].1);
    assert!(matches!(came.events[..], [Event::Up { .. }]));
}

#[test]
fn an_initiation_that_overtakes_the_knock_of_a_new_run_leaves_a_session_that_carries() {
    let mut world = World::standing();
    world.pass(Duration::from_secs(20));
    world.alice.shard = Side::new(1, 2).shard;
    let sent = world.initiate(PEER);
    let response = world
        .bob
        .take(world.now, world.alice.at, &sent[1])
        .datagrams
        .remove(0);
    world.bob.take(world.now, world.alice.at, &sent[0]);
    assert!(world.admit(PEER, Admission::Replace).datagrams.is_empty());
    let came = world.alice.take(world.now, world.bob.at, &response.1);
    assert!(matches!(came.events[..], [Event::Up { .. }]));
    let came = world
        .bob
        .take(world.now, world.alice.at, &came.datagrams[0].1);
    assert!(
        matches!(came.events[..], [Event::Up { endpoint, .. }] if endpoint == world.alice.at),
        "the new run's session is told: {:?}",
        came.events
    );
    let there = datagram(v4(1), v4(2), (5, 6), b"there");
    let came = world.carry(&there);
    assert_eq!(came.packets, [there]);
    assert!(came.events.is_empty(), "told once");
}

/// Alice closed her state, of which nobody tells Bob, and knocks again before he closed his.
#[test]
fn a_state_that_is_kept_for_a_new_one_of_the_other_end_is_told_anew_and_goes_where_that_is() {
    let mut world = World::proven();
    let (before, after) = (
        world.alice.at,
        Path::Direct(Underlay::new(([198, 51, 100, 7], 5_000).into())),
    );
    let session = PEER;
    world
        .alice
        .shard
        .handle_command(world.now, Command::Close { session });
    world.alice.at = after;
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, after, &datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0);
    let back = datagram(v4(2), v4(1), (5, 6), b"back");
    let came = world.bob.write(world.now, &back);
    assert_eq!(came.datagrams[0].0, before, "nothing has confirmed it yet");
    let came = world.alice.take(world.now, world.bob.at, &response.1);
    let came = world.bob.take(world.now, after, &came.datagrams[0].1);
    assert!(
        matches!(came.events[..], [Event::Up { endpoint, .. }] if endpoint == after),
        "{:?}",
        came.events
    );
    let came = world.bob.write(world.now, &back);
    assert_eq!(came.datagrams[0].0, after);
    let came = world
        .alice
        .take(world.now, world.bob.at, &came.datagrams[0].1);
    assert_eq!(came.packets, [back]);

    // A rekey of the same state is no new one.
    world.pass(Duration::from_secs(1));
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, after, &datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0);
    let came = world.alice.take(world.now, world.bob.at, &response.1);
    let came = world.bob.take(world.now, after, &came.datagrams[0].1);
    assert!(came.events.is_empty(), "{:?}", came.events);
}

/// The same, while Bob knocks as well and his answer to her is lost: hers to him is the first that he hears of her new
/// state.
#[test]
fn a_new_state_of_the_other_end_is_told_anew_by_its_response_too() {
    let mut world = World::proven();
    let (before, session) = (world.alice.at, PEER);
    let after = Path::Direct(Underlay::new(([198, 51, 100, 7], 5_000).into()));
    world
        .alice
        .shard
        .handle_command(world.now, Command::Close { session });
    world.alice.at = after;
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, after, &datagram);
    }
    assert_eq!(world.admit(PEER, Admission::Keep).datagrams.len(), 1);
    std::mem::swap(&mut world.alice, &mut world.bob);
    let from_bob = world.initiate(PEER);
    for datagram in &from_bob {
        world.bob.take(world.now, world.alice.at, datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0).1;
    let came = world.alice.take(world.now, after, &response);
    assert!(
        matches!(came.events[..], [Event::Up { endpoint, .. }] if endpoint == after),
        "{:?}",
        came.events
    );
    let back = datagram(v4(2), v4(1), (5, 6), b"back");
    let came = world.alice.write(world.now, &back);
    assert_eq!(came.datagrams[0].0, after, "and not {before:?}");
}

#[test]
fn an_older_answer_does_not_keep_a_state_from_being_replaced() {
    let mut world = World::standing();
    world.pass(Duration::from_secs(20));
    world.alice.shard = Side::new(1, 2).shard;
    let sent = world.initiate(PEER);
    world.bob.take(world.now, world.alice.at, &sent[0]);
    world.admit(PEER, Admission::Replace);
    let there = datagram(v4(2), v4(1), (5, 6), b"there");
    assert!(world.bob.write(world.now, &there).datagrams.is_empty());
}

#[test]
fn crossing_initiations_leave_a_session_that_carries_both_ways() {
    let mut world = World::new();
    let from_alice = world.initiate(PEER);
    std::mem::swap(&mut world.alice, &mut world.bob);
    let from_bob = world.initiate(PEER);
    // `alice` is Bob until they change places again.
    for datagram in &from_alice {
        world.alice.take(world.now, world.bob.at, datagram);
    }
    for datagram in &from_bob {
        world.bob.take(world.now, world.alice.at, datagram);
    }
    let by_alice = world.admit_on_bob_side(1);
    std::mem::swap(&mut world.alice, &mut world.bob);
    let by_bob = world.admit_on_bob_side(2);
    let last_alice = world.alice.take(world.now, world.bob.at, &by_bob);
    let last_bob = world.bob.take(world.now, world.alice.at, &by_alice);
    world
        .bob
        .take(world.now, world.alice.at, &last_alice.datagrams[0].1);
    world
        .alice
        .take(world.now, world.bob.at, &last_bob.datagrams[0].1);
    for (from, to) in [(1, 2), (2, 1)] {
        let packet = datagram(v4(from), v4(to), (5, 6), b"x");
        assert_eq!(world.carry(&packet).packets, [packet]);
        std::mem::swap(&mut world.alice, &mut world.bob);
    }
}

impl World {
    /// Whoever is `bob` admits whoever is `alice`; gives the response.
    fn admit_on_bob_side(&mut self, own: u8) -> Vec<u8> {
        assert_eq!(self.bob.seed, own);
        let command = Command::Admit {
            session: PEER,
            keys: self.bob.keys(),
            source: self.alice.at,
            admission: Admission::Keep,
        };
        self.bob.shard.handle_command(self.now, command);
        self.bob.drain().datagrams.remove(0).1
    }
}

#[test]
fn a_replayed_data_datagram_is_dropped() {
    let mut world = World::standing();
    let sent = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"once"));
    let sealed = &sent.datagrams[0].1;
    assert_eq!(
        world
            .bob
            .take(world.now, world.alice.at, sealed)
            .packets
            .len(),
        1
    );
    let elsewhere = Path::Direct(Underlay::new(([203, 0, 113, 9], 9).into()));
    let came = world.bob.take(world.now, elsewhere, sealed);
    assert!(came.packets.is_empty() && came.events.is_empty());
    assert_eq!(world.bob.met(DropReason::InReplay), 1);
}

#[test]
fn no_program_can_write_a_control_frame() {
    let mut world = World::standing();
    let mut shape = Vec::new();
    frame::shape(&[0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0], &mut shape);
    let mut imitation = shape.clone();
    imitation[8] = 64;
    for forged in [&shape[..], &imitation, &shape[20..], &[0; 40]] {
        let came = world.alice.write(world.now, forged);
        assert!(came.datagrams.is_empty());
    }
    assert_eq!(world.alice.met(DropReason::OutForgedControl), 4);
}

#[test]
fn a_foreign_source_leaves_nothing() {
    let mut world = World::standing();
    for from in ["100.64.0.2", "100.64.0.77", "10.0.0.1", RESOLVER, VIP] {
        let packet = datagram(from.parse().unwrap(), v4(2), (5, 6), b"x");
        assert!(world.alice.write(world.now, &packet).datagrams.is_empty());
    }
    assert_eq!(world.alice.met(DropReason::OutForeignSource), 5);
}

#[test]
fn a_control_frame_arrives_as_an_event_and_never_as_a_packet() {
    let mut world = World::standing();
    let frame = vec![0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0];
    let command = Command::Send {
        session: PEER,
        frame: frame.clone(),
        via: None,
    };
    world.alice.shard.handle_command(world.now, command);
    let sent = world.alice.drain().datagrams.remove(0).1;
    let came = world.bob.take(world.now, world.alice.at, &sent);
    assert!(came.packets.is_empty());
    assert!(
        matches!(&came.events[..], [Event::Control { frame: got, session: PEER, .. }] if *got == frame)
    );
}

#[test]
fn a_session_that_floods_with_control_frames_is_cut_to_its_share_and_its_packets_pass() {
    let mut world = World::standing();
    let mut inner = Vec::new();
    frame::shape(&[0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0], &mut inner);
    let flood = |world: &mut World, frames: usize| -> usize {
        let came = (0..frames).map(|_| world.smuggle(&inner));
        came.map(|came| came.events.len()).sum()
    };
    assert_eq!(flood(&mut world, 1000), 400);
    assert_eq!(world.bob.met(DropReason::SessionFlooding), 600);
    let there = datagram(v4(1), v4(2), (5, 6), b"there");
    assert_eq!(world.carry(&there).packets, [there]);
    world.pass(Duration::from_secs(1));
    assert_eq!(flood(&mut world, 1000), 200);
    // Another session of the same machine has a share of its own.
    world.stand(JOIN);
    let place = world.alice.shard.sessions.place(JOIN).unwrap();
    let mut sealed = [0; 2048];
    let state = world.alice.shard.sessions.at(place).unwrap();
    let len = state.session.encapsulate(&inner, &mut sealed).unwrap();
    let came = world.bob.take(world.now, world.alice.at, &sealed[..len]);
    assert!(matches!(
        came.events[..],
        [Event::Control { session: JOIN, .. }]
    ));
}

#[test]
fn what_a_peer_may_not_send_is_dropped_by_name() {
    let mut world = World::standing();
    let mut routing = datagram(
        "fd00::1".parse().unwrap(),
        "fd00::2".parse().unwrap(),
        (1, 2),
        b"",
    );
    routing.splice(40..40, [17, 0, 0, 0, 0, 0, 0, 0]);
    routing[6] = 43;
    routing[5] += 8;
    let mut tiny = segment(v4(1), v4(2), (5, 80), SYN);
    tiny.truncate(22);
    tiny[3] = 22;
    tiny[6] = 0x20;
    let cases = [
        (
            datagram(v4(77), v4(2), (5, 6), b""),
            DropReason::InForeignSource,
        ),
        (datagram(v4(2), v4(2), (5, 6), b""), DropReason::InMartian),
        (
            datagram("127.0.0.1".parse().unwrap(), v4(2), (5, 6), b""),
            DropReason::InMartian,
        ),
        (
            datagram(v4(1), v4(77), (5, 6), b""),
            DropReason::InForeignDestination,
        ),
        (
            datagram(v4(1), RESOLVER.parse().unwrap(), (5, 53), b"q"),
            DropReason::InForeignDestination,
        ),
        (
            datagram(v4(1), VIP.parse().unwrap(), (5, 80), b"q"),
            DropReason::InForeignDestination,
        ),
        (routing, DropReason::InRoutingHeader),
        (
            segment(v4(1), v4(2), (5, 20_080), SYN),
            DropReason::InListenerPort,
        ),
        (
            segment(v4(1), v4(2), (5, 29_999), SYN),
            DropReason::InListenerPort,
        ),
        (tiny, DropReason::InTinyFragment),
        (
            vec![
                0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
            DropReason::InNotIp,
        ),
        (vec![0x75; 32], DropReason::InNotIp),
    ];
    for (inner, reason) in cases {
        let before = world.bob.met(reason);
        let came = world.smuggle(&inner);
        assert!(came.packets.is_empty(), "{reason:?}");
        assert_eq!(world.bob.met(reason), before + 1, "{reason:?}");
    }
}

#[test]
fn a_join_session_carries_control_and_no_packet() {
    let mut world = World::new();
    world.stand(JOIN);
    let place = world.alice.shard.sessions.place(JOIN).unwrap();
    let mut sealed = [0; 512];
    let packet = datagram(v4(1), v4(2), (5, 6), b"x");
    let state = world.alice.shard.sessions.at(place).unwrap();
    let len = state.session.encapsulate(&packet, &mut sealed).unwrap();
    assert!(
        world
            .bob
            .take(world.now, world.alice.at, &sealed[..len])
            .packets
            .is_empty()
    );
    assert_eq!(world.bob.met(DropReason::InJoinPacket), 1);
    let frame = vec![0, 1, 32, 1, 0, 0, 0, 0, 7, 0, 0, 0];
    world.alice.shard.handle_command(
        world.now,
        Command::Send {
            session: JOIN,
            frame,
            via: None,
        },
    );
    let sent = world.alice.drain().datagrams.remove(0).1;
    let came = world.bob.take(world.now, world.alice.at, &sent);
    assert!(matches!(
        came.events[..],
        [Event::Control { session: JOIN, .. }]
    ));
}

#[test]
fn queued_packets_go_out_when_the_session_stands() {
    let mut world = World::new();
    let packets: Vec<_> = (0..20u8)
        .map(|i| datagram(v4(1), v4(2), (5, 6), &[i]))
        .collect();
    let mut wanted = 0;
    for packet in &packets {
        wanted += world.alice.write(world.now, packet).events.len();
    }
    assert_eq!(wanted, 1);
    assert_eq!(world.alice.met(DropReason::OutQueueFull), 4);
    for datagram in world.initiate(PEER) {
        world.bob.take(world.now, world.alice.at, &datagram);
    }
    let response = world.admit(PEER, Admission::Keep).datagrams.remove(0).1;
    let came = world.alice.take(world.now, world.bob.at, &response);
    let mut arrived = Vec::new();
    for (_, datagram) in came.datagrams {
        arrived.extend(world.bob.take(world.now, world.alice.at, &datagram).packets);
    }
    assert_eq!(arrived, packets[..16]);
}

#[test]
fn an_attempt_that_fails_answers_each_packet_and_then_at_once() {
    let mut world = World::new();
    for i in 0..3 {
        world
            .alice
            .write(world.now, &datagram(v4(1), v4(2), (5, 6), &[i]));
    }
    let until = world.now.at.after(Duration::from_secs(2));
    world.alice.shard.handle_command(
        world.now,
        Command::Unreachable {
            peer: PeerIx(5),
            until,
        },
    );
    let answers = world.alice.drain().packets;
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        let header = Header::parse(answer).unwrap();
        assert_eq!(
            (header.source, header.destination),
            (RESOLVER.parse().unwrap(), v4(1))
        );
        assert_eq!(
            (header.protocol, answer[20..22].to_vec()),
            (ICMP, vec![3, 1])
        );
    }
    let came = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"x"));
    assert!(came.events.is_empty() && came.packets.len() == 1);
    world.pass(Duration::from_secs(2));
    let came = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"x"));
    assert!(matches!(
        came.events[..],
        [Event::Wanted { peer: PeerIx(5) }]
    ));
}

#[test]
fn an_address_that_nobody_has_is_answered_at_once() {
    let mut world = World::new();
    let came = world
        .alice
        .write(world.now, &datagram(v4(1), v4(200), (5, 6), b"x"));
    assert_eq!(came.packets.len(), 1);
    assert_eq!(world.alice.met(DropReason::OutUnknownPeer), 1);
    let came = world.alice.write(
        world.now,
        &datagram(v4(1), "224.0.0.251".parse().unwrap(), (5, 6), b"x"),
    );
    assert!(came.packets.is_empty());
    assert_eq!(world.alice.met(DropReason::OutMulticast), 1);
}

#[test]
fn the_resolver_answers_udp_in_place() {
    let mut world = World::new();
    for (own, resolver) in [("100.64.0.1", RESOLVER), ("fd00::1", "fd00::53")] {
        let (own, resolver) = (own.parse().unwrap(), resolver.parse().unwrap());
        let came = world
            .alice
            .write(world.now, &datagram(own, resolver, (4000, 53), b"who"));
        let answer = &came.packets[0];
        assert_eq!(ends(answer), (resolver, 53, own, 4000));
        let header = Header::parse(answer).unwrap();
        assert_eq!(header.protocol, UDP);
        assert_eq!(udp::body(&header, answer), Some(&b"answer to who"[..]));
    }
    let came = world.alice.write(
        world.now,
        &datagram(v4(1), RESOLVER.parse().unwrap(), (4000, 54), b"x"),
    );
    assert_eq!(came.packets[0][20..22], [3, 3]);
}

#[test]
fn tcp_to_the_resolver_is_turned_around_to_the_listener_and_back() {
    let mut world = World::new();
    let resolver: IpAddr = RESOLVER.parse().unwrap();
    let there = world
        .alice
        .write(world.now, &segment(v4(1), resolver, (4000, 53), SYN));
    assert_eq!(ends(&there.packets[0]), (resolver, 4000, v4(1), 29_999));
    let back = world.alice.write(
        world.now,
        &segment(v4(1), resolver, (29_999, 4000), SYN | ACK),
    );
    assert_eq!(ends(&back.packets[0]), (resolver, 53, v4(1), 4000));
    let closed = world
        .alice
        .write(world.now, &segment(v4(1), resolver, (4000, 54), SYN));
    let header = Header::parse(&closed.packets[0]).unwrap();
    let reset = Segment::parse(&header, &closed.packets[0]).unwrap();
    assert_eq!(reset.flags, RST | ACK);
    assert_eq!(ends(&closed.packets[0]), (resolver, 54, v4(1), 4000));
}

#[test]
fn a_spliced_service_is_reached_by_a_peer_and_by_its_own_host() {
    let mut world = World::standing();
    let arrived = world.carry(&segment(v4(1), v4(2), (4000, 80), SYN));
    assert_eq!(ends(&arrived.packets[0]), (v4(1), 4000, v4(2), 20_080));
    std::mem::swap(&mut world.alice, &mut world.bob);
    let arrived = world.carry(&segment(v4(2), v4(1), (20_080, 4000), SYN | ACK));
    assert_eq!(ends(&arrived.packets[0]), (v4(2), 80, v4(1), 4000));
    let vip: IpAddr = VIP.parse().unwrap();
    let there = world
        .alice
        .write(world.now, &segment(v4(2), vip, (4000, 80), SYN));
    assert_eq!(ends(&there.packets[0]), (vip, 4000, v4(2), 20_080));
    let back = world
        .alice
        .write(world.now, &segment(v4(2), vip, (20_080, 4000), SYN | ACK));
    assert_eq!(ends(&back.packets[0]), (vip, 80, v4(2), 4000));
}

#[test]
fn an_unproven_endpoint_gets_at_most_64_kib() {
    let mut world = World::standing();
    let packet = datagram(v4(1), v4(2), (5, 6), &[0; 1000]);
    let mut sent = 0;
    for _ in 0..200 {
        sent += world
            .alice
            .write(world.now, &packet)
            .datagrams
            .iter()
            .map(|(_, d)| d.len())
            .sum::<usize>();
    }
    assert!((56 << 10..64 << 10).contains(&sent), "{sent}");
    assert!(world.alice.met(DropReason::OutUnproven) > 100);
    let ping = Command::Send {
        session: PEER,
        frame: vec![0; 100],
        via: None,
    };
    world.alice.shard.handle_command(world.now, ping);
    assert_eq!(world.alice.drain().datagrams.len(), 1);
    let proven = Command::SetPath {
        session: PEER,
        endpoint: world.bob.at,
    };
    world.alice.shard.handle_command(world.now, proven);
    assert_eq!(world.alice.write(world.now, &packet).datagrams.len(), 1);
}

#[test]
fn a_packet_from_elsewhere_is_told_and_moves_nothing() {
    let mut world = World::standing();
    let elsewhere = Path::Direct(Underlay::new(([203, 0, 113, 9], 9).into()));
    let sent = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"x"));
    let came = world.bob.take(world.now, elsewhere, &sent.datagrams[0].1);
    assert_eq!(came.packets.len(), 1);
    assert!(matches!(
        came.events[..],
        [Event::NewPath { source: new, .. }, Event::Elsewhere { source, .. }]
            if new == elsewhere && source == elsewhere
    ));
    let back = world
        .bob
        .write(world.now, &datagram(v4(2), v4(1), (6, 5), b"x"));
    assert_eq!(back.datagrams[0].0, world.alice.at);
    world.bob.shard.handle_command(
        world.now,
        Command::SetPath {
            session: PEER,
            endpoint: elsewhere,
        },
    );
    let back = world
        .bob
        .write(world.now, &datagram(v4(2), v4(1), (6, 5), b"x"));
    assert_eq!(back.datagrams[0].0, elsewhere);
}

#[test]
fn an_old_packet_from_elsewhere_starts_nothing() {
    let mut world = World::standing();
    let elsewhere = Path::Direct(Underlay::new(([203, 0, 113, 9], 9).into()));
    let held = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"held back"));
    world.carry(&datagram(v4(1), v4(2), (5, 6), b"newer"));
    let came = world.bob.take(world.now, elsewhere, &held.datagrams[0].1);
    assert_eq!(came.packets.len(), 1);
    assert!(came.events.is_empty());
}

#[test]
fn a_state_that_never_stands_ends_after_ten_seconds() {
    let mut world = World::new();
    world.initiate(PEER);
    world.pass(Duration::from_millis(9_900));
    world.alice.shard.handle_timers(world.now.at);
    assert!(world.alice.drain().events.is_empty());
    world.pass(Duration::from_millis(100));
    world.alice.shard.handle_timers(world.now.at);
    assert!(matches!(
        world.alice.drain().events[..],
        [Event::Down { session: PEER }]
    ));
    assert!(world.alice.shard.is_idle());
}

#[test]
fn an_unanswered_rekey_asks_for_a_knock_once() {
    let mut world = World::standing();
    let place = world.alice.shard.sessions.place(PEER).unwrap();
    let sent = world.now.at;
    let state = world.alice.shard.sessions.at(place).unwrap();
    state.rekey = Some(Rekey {
        sent,
        knock: Knocking::Later,
    });
    world.pass(Duration::from_millis(900));
    world.alice.shard.handle_timers(world.now.at);
    assert!(world.alice.drain().events.is_empty());
    world.pass(Duration::from_millis(100));
    world.alice.shard.handle_timers(world.now.at);
    world.alice.shard.handle_timers(world.now.at);
    assert!(matches!(
        world.alice.drain().events[..],
        [Event::NeedsKnock { session: PEER }]
    ));
}

#[test]
fn a_rekey_to_a_peer_unheard_for_a_minute_asks_for_a_knock_soon_and_for_none_if_it_answers() {
    for answers in [false, true] {
        let mut world = World::standing();
        world.pass(Duration::from_secs(61));
        let place = world.alice.shard.sessions.place(PEER).unwrap();
        let sent = world.now.at;
        let state = world.alice.shard.sessions.at(place).unwrap();
        state.rekey = Some(Rekey {
            sent,
            knock: Knocking::IfSilent,
        });
        world.pass(Duration::from_millis(500));
        if answers {
            let packet = datagram(v4(2), v4(1), (5, 6), b"here");
            let sent = world.bob.write(world.now, &packet);
            let bob = world.bob.at;
            world.alice.take(world.now, bob, &sent.datagrams[0].1);
        }
        world.alice.drain();
        for (millis, asks) in [(0, false), (100, !answers), (5_000, false)] {
            world.pass(Duration::from_millis(millis));
            world.alice.shard.handle_timers(world.now.at);
            let events = world.alice.drain().events;
            let is_ask = |event: &Event| matches!(event, Event::NeedsKnock { session: PEER });
            assert_eq!(
                events.iter().any(is_ask),
                asks,
                "{answers} {millis}: {events:?}"
            );
        }
    }
}

#[test]
fn after_a_join_an_initiation_goes_into_the_join_session_and_after_a_knock_into_the_pair() {
    let mut world = World::new();
    world.stand(JOIN);
    world.pass(Duration::from_secs(1));
    world.stand(PEER);
    let there = datagram(v4(1), v4(2), (5, 6), b"there");
    assert_eq!(world.carry(&there).packets, [&there[..]]);
    assert!(world.bob.shard.sessions.place(JOIN).is_some());
}

/// boringtun has room for seven beside those in use.
#[test]
fn an_eighth_handshake_that_nobody_completes_is_not_answered_while_packets_come() {
    let mut world = World::proven();
    let begin = |world: &mut World| {
        world.pass(Duration::from_secs(1));
        let place = world.alice.shard.sessions.place(PEER).unwrap();
        let state = world.alice.shard.sessions.at(place).unwrap();
        let mut initiation = [0; 148];
        state.session.initiate(&mut initiation).unwrap();
        let from = world.alice.at;
        world.bob.take(world.now, from, &initiation).datagrams.len()
    };
    let talk = |world: &mut World| {
        for (from, to) in [(1, 2), (2, 1)] {
            let packet = datagram(v4(from), v4(to), (5, 6), b"x");
            assert_eq!(world.carry(&packet).packets, [packet]);
            std::mem::swap(&mut world.alice, &mut world.bob);
        }
    };
    for _ in 0..7 {
        assert_eq!(begin(&mut world), 1);
        talk(&mut world);
    }
    assert_eq!(begin(&mut world), 0);
    assert_eq!(world.bob.met(DropReason::InHandshakeCrowd), 1);
    talk(&mut world);
    // Who is not heard any more may have lost them.
    world.pass(Duration::from_secs(15));
    assert_eq!(begin(&mut world), 1);
}

#[test]
fn a_closed_session_carries_nothing() {
    let mut world = World::standing();
    let sent = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"x"));
    world
        .bob
        .shard
        .handle_command(world.now, Command::Close { session: PEER });
    let came = world
        .bob
        .take(world.now, world.alice.at, &sent.datagrams[0].1);
    assert!(came.packets.is_empty());
    assert_eq!(world.bob.met(DropReason::InUnknownIndex), 1);
    let frame = Command::Send {
        session: PEER,
        frame: vec![0; 12],
        via: None,
    };
    world.bob.shard.handle_command(world.now, frame);
    assert_eq!(world.bob.met(DropReason::NoSession), 1);
}

#[test]
fn the_own_door_is_probed_from_the_resolver() {
    let mut world = World::new();
    world.alice.shard.handle_command(
        world.now,
        Command::ProbeDoor {
            probe: 3,
            address: v4(1),
            port: 8080,
        },
    );
    let syn = world.alice.drain().packets.remove(0);
    let (resolver, port, own, door) = ends(&syn);
    assert_eq!(
        (resolver, own, door),
        (RESOLVER.parse().unwrap(), v4(1), 8080)
    );
    let asked = Segment::parse(&Header::parse(&syn).unwrap(), &syn).unwrap();
    let mut answer = Vec::new();
    let accepted = Segment {
        ports: Ports {
            source: 8080,
            destination: port,
        },
        sequence: 9,
        acknowledgment: asked.sequence.wrapping_add(1),
        flags: SYN | ACK,
        body_len: 0,
    };
    assert!(accepted.build(&mut answer, (own, resolver)));
    world.pass(Duration::from_micros(250));
    let came = world.alice.write(world.now, &answer);
    assert!(matches!(
        came.events[..],
        [Event::Door {
            probe: 3,
            verdict: DoorVerdict::Accepted,
            took_us: 250
        }]
    ));
    let reset =
        Segment::parse(&Header::parse(&came.packets[0]).unwrap(), &came.packets[0]).unwrap();
    assert_eq!(
        (reset.flags, ends(&came.packets[0])),
        (RST, (resolver, port, own, 8080))
    );
}

#[test]
fn random_bytes_get_no_byte_back() {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut world = World::standing();
    let mut random = rand_chacha::ChaCha8Rng::from_seed([3; 32]);
    let from = Path::Direct(Underlay::new(([203, 0, 113, 9], 9).into()));
    for i in 0..20_000u32 {
        let mut bytes = [0; 200];
        random.fill_bytes(&mut bytes);
        bytes[..4].copy_from_slice(&[(i % 5) as u8, 0, 0, 0]);
        let len = [148, 92, 64, 200, 32][(i % 5) as usize];
        let came = world.bob.take(world.now, from, &bytes[..len]);
        assert!(came.datagrams.is_empty() && came.packets.is_empty() && came.events.is_empty());
    }
}

#[test]
fn flipped_bits_of_a_good_session_get_no_byte_back() {
    let mut world = World::standing();
    let sent = world
        .alice
        .write(world.now, &datagram(v4(1), v4(2), (5, 6), b"flip me"));
    let good = &sent.datagrams[0].1;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let came = world.bob.take(world.now, world.alice.at, &bad);
        assert!(
            came.datagrams.is_empty() && came.packets.is_empty(),
            "bit {bit}"
        );
    }
    assert_eq!(
        world
            .bob
            .take(world.now, world.alice.at, good)
            .packets
            .len(),
        1
    );
}

proptest::proptest! {
    #[test]
    fn nothing_that_a_program_or_a_member_writes_panics(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 44..120),
        six: bool, to in 0usize..4, protocol in 0usize..6, port in 0usize..4,
    ) {
        let mut world = World::standing();
        let protocol = [6, 17, 1, 58, 44, 0][protocol];
        let port: u16 = [53, 80, 20_080, 4000][port];
        let mut packet = bytes;
        let len = u16::try_from(packet.len()).unwrap();
        let ports_at = if six {
            let to = ["fd00::2", "fd00::53", "fd00::1", "ff02::1"][to].parse::<std::net::Ipv6Addr>().unwrap();
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            packet[6] = protocol;
            packet[8..24].copy_from_slice(&"fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
            packet[24..40].copy_from_slice(&to.octets());
            40
        } else {
            let to = ["100.64.0.2", RESOLVER, VIP, "100.64.0.200"][to].parse::<std::net::Ipv4Addr>().unwrap();
            packet[0] = 0x40 | (packet[0] & 7);
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[9] = protocol;
            packet[12..16].copy_from_slice(&[100, 64, 0, 1]);
            packet[16..20].copy_from_slice(&to.octets());
            20
        };
        packet[ports_at + 2..ports_at + 4].copy_from_slice(&port.to_be_bytes());
        world.carry(&packet);
        world.smuggle(&packet);
    }
}

#[test]
fn a_stranger_that_speaks_like_the_dht_is_not_heard_and_who_was_asked_is() {
    let mut world = World::new();
    let (asked, answer) = (world.bob.at, b"d1:y1:re");
    for _ in 0..5_000 {
        let came = world.alice.take(world.now, asked, answer);
        assert!(came.events.is_empty(), "nobody was asked");
    }
    assert_eq!(world.alice.met(DropReason::InDhtUnasked), 5_000);
    let question = Command::Datagram {
        to: asked,
        bytes: b"d1:q4:ping1:y1:qe".to_vec(),
    };
    world.alice.shard.handle_command(world.now, question);
    let came = world.alice.take(world.now, asked, answer);
    assert!(matches!(came.events[..], [Event::Dht { .. }]));
}
