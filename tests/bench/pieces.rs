//! How long the pieces of the way of a packet take, each by itself: sealing, opening, splitting, joining, the window against
//! replays, and the lookups. `tests/bench/run` measures the whole.
//!
//!     cargo bench --bench pieces            all; the release is built first
//!     cargo bench --bench pieces -- seal    those whose names hold this word
//!
//! Bytes are those of IP packets, headers included. A super-packet is what the kernel hands over as one: 45 segments, each as
//! long as a mesh's MTU. Everything is warm, and nothing else runs: less is what a packet costs only here.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be prepared cannot be measured"
)]

use std::{
    hint::black_box,
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng as _};
use webmesh::{
    addr::{Path, Underlay},
    ids::{Boot, LegIx, NetworkId, NodeId, PeerIx},
    packet::{
        ip::{Header, Ports, TCP, UDP},
        join::Run,
        split::Segments,
        tcp::{self, ACK},
        udp,
        vnet::Undone,
    },
    relay::{
        binding::Key,
        legs::{Given, Legs},
    },
    tables::{Tables, Transport},
    time::Moment,
    transport::{
        Carrier, Exchange, OVERHEAD, Opening, Output, Outside, Sealing, Terms, padded,
        schedule::End,
        suite::{Aes, Suite},
        window::Window,
    },
};

const NOW: Moment = Moment(5_000_000);

/// How long a segment is, with its headers.
const MTU: usize = 1420;
const SEGMENTS: usize = 45;
const DATAGRAM: usize = MTU + OVERHEAD;

/// So many peers are in the tables, and so many legs, services and peers are looked up in turn.
const PEERS: u32 = 1000;
const SERVICES: u16 = 100;

const PORTS: Ports = Ports {
    source: 40_000,
    destination: 9,
};

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    seal(&mut criterion);
    open(&mut criterion);
    split(&mut criterion);
    join(&mut criterion);
    window(&mut criterion);
    lookup(&mut criterion);
    criterion.final_summary();
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for suite in SUITES {
        let (sealing, _) = keys(suite);
        let (packet, mut out) = ([0x45; MTU], [0; DATAGRAM]);
        group.throughput(bytes(MTU));
        group.bench_function(format!("a packet, {suite}"), |bench| {
            bench.iter(|| {
                let mut run = sealing.run(NOW, 1, MTU).unwrap();
                run.seal(black_box(&packet), padded(MTU, MTU), &mut out)
            });
        });
        let mut long = Long::tcp();
        let mut out = vec![0; SEGMENTS * DATAGRAM];
        group.throughput(bytes(long.packet.len()));
        // Each segment is sealed where it was just made, as the data threads do it.
        group.bench_function(format!("a super-packet, split too, {suite}"), |bench| {
            bench.iter(|| seal_all(&sealing, black_box(&mut long), &mut out));
        });
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    // No datagram opens twice, so each was sealed just before, while no time is taken.
    let shapes = [
        ("a packet", 1, BatchSize::NumIterations(64)),
        (
            "a super-packet's segments",
            SEGMENTS,
            BatchSize::PerIteration,
        ),
    ];
    for suite in SUITES {
        for (name, datagrams, batch) in shapes {
            let (sealing, mut opening) = keys(suite);
            group.throughput(bytes(datagrams * MTU));
            group.bench_function(format!("{name}, {suite}"), |bench| {
                let train = || sealed(&sealing, datagrams);
                bench.iter_batched_ref(
                    train,
                    |train| {
                        for datagram in train.chunks_mut(DATAGRAM) {
                            black_box(opening.open(NOW, datagram).unwrap());
                        }
                    },
                    batch,
                );
            });
        }
    }
}

fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    for (name, mut long) in [("tcp", Long::tcp()), ("udp", Long::udp())] {
        group.throughput(bytes(long.packet.len()));
        group.bench_function(name, |bench| {
            bench.iter(|| long.split(|segment| _ = black_box(segment)));
        });
    }
}

fn join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    for (name, mut long) in [("tcp", Long::tcp()), ("udp", Long::udp())] {
        let mut segments = Vec::new();
        long.split(|segment| segments.push(segment.to_vec()));
        group.throughput(bytes(SEGMENTS * MTU));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let (first, others) = black_box(&segments).split_first().unwrap();
                let mut run = Run::begin(first).unwrap();
                let joined = others.iter().all(|segment| run.take(first, segment));
                assert!(joined, "all segments follow each other");
                run.head(first)
            });
        });
    }
}

fn window(criterion: &mut Criterion) {
    const COUNTERS: u64 = 4096;
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(COUNTERS));
    // By an odd number every counter comes once, and its neighbours far from it.
    for (name, step) in [("in order", 1), ("shuffled", 2731)] {
        let (mut window, mut base) = (Window::new(), 0);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                for number in 0..COUNTERS {
                    let counter = base + number * step % COUNTERS;
                    window.is_new(counter).unwrap();
                    window.mark(counter);
                }
                base += COUNTERS;
            });
        });
    }
}

/// The tables of the data threads that can be asked from outside. Those of sessions and keys by their index are of the same
/// kind as that of the legs.
fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    let (tables, legs, relay) = (tables(), legs(), relay());
    let mut peers = in_turn(PEERS);
    group.bench_function("a peer by its IPv4 address", |bench| {
        bench.iter(|| tables.peers4.get(&v4(peers())).unwrap());
    });
    group.bench_function("a peer by its IPv6 address", |bench| {
        bench.iter(|| tables.peers6.get(&v6(peers())).unwrap());
    });
    group.bench_function("a leg by its index", |bench| {
        bench.iter(|| legs.received(relay, spread(peers())).unwrap());
    });
    let packets: Vec<_> = (1..=SERVICES).map(tiny).collect();
    let mut numbers = in_turn(u32::from(SERVICES));
    group.bench_function("a spliced service by a packet's flow", |bench| {
        bench.iter(|| {
            let packet = &packets[numbers() as usize];
            let ports = Header::parse(packet).unwrap().ports(packet).unwrap();
            let service = (Transport::Udp, ports.destination);
            *tables.splices.get(&service).unwrap()
        });
    });
}

/// A packet that is longer than the link.
struct Long {
    packet: Vec<u8>,
    header: Header,
    undone: Undone,
}

impl Long {
    fn tcp() -> Self {
        let segment = tcp::Segment {
            ports: PORTS,
            sequence: 1,
            acknowledgment: 1,
            flags: ACK,
            body_len: 0,
        };
        let mut packet = Vec::new();
        assert!(segment.build(&mut packet, addresses()));
        let size = MTU - packet.len();
        packet.resize(packet.len() + SEGMENTS * size, 0x5a);
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        Self::new(packet, TCP, size)
    }

    fn udp() -> Self {
        let size = MTU - 28;
        let mut packet = Vec::new();
        let body = vec![0x5a; SEGMENTS * size];
        assert!(udp::build(&mut packet, addresses(), PORTS, &body));
        Self::new(packet, UDP, size)
    }

    fn new(packet: Vec<u8>, protocol: u8, size: usize) -> Self {
        let size = size.try_into().unwrap();
        Self {
            header: Header::parse(&packet).unwrap(),
            packet,
            undone: Undone::Segments { protocol, size },
        }
    }

    /// Makes one segment after the other. What stands in the bodies is spoilt by it; the first header is not, so that it can be
    /// done again.
    fn split(&mut self, mut each: impl FnMut(&[u8])) {
        let mut segments = Segments::of(&mut self.packet, &self.header, self.undone).unwrap();
        while let Some(range) = segments.next(&mut self.packet) {
            each(&self.packet[range]);
        }
    }
}

fn seal_all(sealing: &Sealing, long: &mut Long, out: &mut [u8]) {
    let count = u32::try_from(SEGMENTS).unwrap();
    let mut run = sealing.run(NOW, count, SEGMENTS * MTU).unwrap();
    let mut slots = out.chunks_mut(DATAGRAM);
    long.split(|segment| {
        let slot = slots.next().unwrap();
        run.seal(segment, padded(segment.len(), MTU), slot).unwrap();
    });
}

/// So many datagrams, one after the other, as one receive gives them.
fn sealed(sealing: &Sealing, datagrams: usize) -> Vec<u8> {
    let count = u32::try_from(datagrams).unwrap();
    let mut run = sealing.run(NOW, count, datagrams * MTU).unwrap();
    let mut train = vec![0; datagrams * DATAGRAM];
    for slot in train.chunks_mut(DATAGRAM) {
        run.seal(&[0x45; MTU], MTU, slot).unwrap();
    }
    train
}

/// The keys of one direction, made by an exchange of two ends as two peers make them.
fn keys(suite: Suite) -> (Box<Sealing>, Box<Opening>) {
    let end = |number| End {
        node: NodeId([number; 32]),
        tunnel: [number; 32],
    };
    let terms = |aes, boot| Terms {
        aes,
        boot: Boot([boot; 8]),
    };
    // The responder chooses.
    let aes = match suite {
        Suite::Aes256Gcm => Aes::InHardware,
        Suite::ChaCha20Poly1305 => Aes::InSoftware,
    };
    let pair = |ends, terms| Exchange::new(NetworkId([1; 32]), ends, [2; 32], terms).unwrap();
    let mut alice = pair((end(3), end(4)), terms(Aes::InHardware, 5));
    let mut bob = pair((end(4), end(3)), terms(aes, 6));
    let mut dice = Dice(ChaCha12Rng::seed_from_u64(7));
    alice.handle_wanted(NOW, &mut dice);
    carry(&mut alice, &mut bob, &mut dice);
    let (_, opening) = carry(&mut bob, &mut alice, &mut dice);
    let (sealing, _) = carry(&mut alice, &mut bob, &mut dice);
    let sealing = sealing.unwrap();
    assert_eq!(sealing.suite(), suite);
    (sealing, opening.unwrap())
}

/// Carries what one end says to the other; gives the keys that it was told to use.
fn carry(
    from: &mut Exchange,
    to: &mut Exchange,
    dice: &mut Dice,
) -> (Option<Box<Sealing>>, Option<Box<Opening>>) {
    let mut keys = (None, None);
    for output in iter::from_fn(|| from.poll_output()) {
        match output {
            Output::Send(frame) => to
                .handle_frame(NOW, Carrier::WireGuard, &frame, dice)
                .unwrap(),
            Output::Switch(sealing) => keys.0 = Some(sealing),
            Output::Install(opening) => keys.1 = Some(opening),
            Output::Seal(_)
            | Output::Up(_)
            | Output::Withdraw
            | Output::Retire(_)
            | Output::Failed(_) => {}
        }
    }
    keys
}

struct Dice(ChaCha12Rng);

impl Outside for Dice {
    fn random(&mut self) -> &mut dyn RngCore {
        &mut self.0
    }

    fn draw_index(&mut self) -> u32 {
        self.0.next_u32()
    }
}

fn tables() -> Tables {
    let services = (1..=SERVICES).map(|port| ((Transport::Udp, port), port + 40_000));
    Tables {
        peers4: (0..PEERS).map(|peer| (v4(peer), PeerIx(peer))).collect(),
        peers6: (0..PEERS).map(|peer| (v6(peer), PeerIx(peer))).collect(),
        splices: services.collect(),
        ..Tables::vacant()
    }
}

fn legs() -> Legs {
    let mut legs = Legs::default();
    for peer in 0..PEERS {
        let given = Given {
            relay: relay(),
            theirs: peer.to_le_bytes(),
            ours: spread(peer),
            key: Key([8; 32]),
        };
        legs.add(NOW, LegIx(peer), given, [9; 12]);
    }
    legs
}

fn relay() -> Path {
    Path::Direct(Underlay::new("192.0.2.1:41820".parse().unwrap()))
}

/// Addresses and indexes of peers say nothing of each other.
fn spread(peer: u32) -> u32 {
    peer.wrapping_mul(0x9e37_79b1)
}

fn v4(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(100 << 24 | 64 << 16 | spread(peer) >> 10)
}

fn v6(peer: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd << 120 | u128::from(spread(peer)) << 32 | u128::from(peer))
}

/// Numbers below `end`, over and over.
fn in_turn(end: u32) -> impl FnMut() -> u32 {
    let mut numbers = (0..end).cycle();
    move || black_box(numbers.next().unwrap())
}

/// A datagram to a port.
fn tiny(destination: u16) -> Vec<u8> {
    let ports = Ports {
        destination,
        ..PORTS
    };
    let mut packet = Vec::new();
    assert!(udp::build(&mut packet, addresses(), ports, &[0; 8]));
    packet
}

fn addresses() -> (IpAddr, IpAddr) {
    (v4(1).into(), v4(2).into())
}

fn bytes(count: usize) -> Throughput {
    Throughput::Bytes(count as u64)
}
