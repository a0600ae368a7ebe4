//! Two shards that seal by transports over a wire that loses, doubles, reorders and delays what makes keys, while WireGuard's
//! handshakes cross (protocol §6): no packet of a program is lost or comes twice, and in the end both seal by new keys. Real
//! keys, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::RngCore;

use super::{
    PEER, Side, World, datagram, knock,
    long_packets::{long, to_cut},
    transports::{Lower, allow, ends_of, is_up, sealing, suites, write, write_undone},
};
use crate::{
    datapath::command::{Command, Event},
    tables::Admission,
    time::{Moment, Now},
    transport::suite::Suite,
};

/// From a Knock to the verdict on it.
const VERDICT: Duration = Duration::from_millis(3);
/// How often a data thread runs its timers.
const TICK: Duration = Duration::from_millis(250);
/// A packet of a program, sealed either way. Nothing else is as long.
const USER: usize = 1072;
const BODY: usize = 1000;
/// From one side to the other, at least.
const WAY_US: u32 = 1000;

/// What is still to happen at one side.
#[derive(Debug)]
enum Happening {
    Arrival(Vec<u8>),
    Judge,
    Timers,
}

/// How often in one run both begin a handshake at once: more than the eight sets of keys that boringtun keeps, confirmed or not.
const CROSSINGS: u32 = 12;

/// Fates of everything but packets of programs, in hundredths; those are reordered and never lost.
#[derive(Clone, Copy, Debug, Default)]
struct Mischief {
    lost: u32,
    doubled: u32,
    late: u32,
}

/// As if the keys of a side were worn.
fn want(side: &mut Side, now: Now) {
    let place = side.shard.sessions.place(PEER).expect("a session stands");
    side.shard.want_keys(now.at, place);
}

struct Wire {
    world: World,
    agenda: BTreeMap<(Moment, u64), (usize, Happening)>,
    planned: u64,
    random: ChaCha8Rng,
    mischief: Mischief,
    written: [u32; 2],
    received: [BTreeSet<u32>; 2],
}

impl Wire {
    fn new(world: World, seed: u64) -> Self {
        let mut wire = Self {
            world,
            agenda: BTreeMap::new(),
            planned: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            mischief: Mischief::default(),
            written: [0; 2],
            received: Default::default(),
        };
        for at in 0..2 {
            wire.plan(TICK, at, Happening::Timers);
        }
        wire
    }

    fn below(&mut self, end: u32) -> u32 {
        self.random.next_u32() % end
    }

    fn side(&mut self, at: usize) -> &mut Side {
        match at {
            0 => &mut self.world.alice,
            _ => &mut self.world.bob,
        }
    }

    fn plan(&mut self, later: Duration, at: usize, what: Happening) {
        self.planned += 1;
        let key = (self.world.now.at.after(later), self.planned);
        self.agenda.insert(key, (at, what));
    }

    /// What becomes of a datagram: after how many microseconds each copy arrives.
    fn fate(&mut self, bytes: &[u8]) -> Vec<u32> {
        let Mischief {
            lost,
            doubled,
            late,
        } = self.mischief;
        let is_user = bytes.len() == USER;
        if !is_user && self.below(100) < lost {
            return Vec::new();
        }
        let copies = 1 + u32::from(!is_user && self.below(100) < doubled);
        let delay = |_| {
            let is_late = !is_user && self.below(100) < late;
            WAY_US + self.below(if is_late { 3_000_000 } else { 40_000 })
        };
        (0..copies).map(delay).collect()
    }

    fn write(&mut self, at: usize) {
        let number = self.written[at];
        self.written[at] += 1;
        let (own, other) = ends_of(at);
        let body = [&number.to_be_bytes()[..], &[7; BODY - 4]].concat();
        let packet = datagram(own, other, (5, 6), &body);
        let now = self.world.now;
        write(self.side(at), now, &packet);
        self.drain(at);
    }

    fn want(&mut self, at: usize) {
        let now = self.world.now;
        want(self.side(at), now);
        self.drain(at);
    }

    /// A new handshake of WireGuard, behind a Knock.
    fn initiate(&mut self, at: usize) {
        let to = vec![(self.side(1 - at).at, knock())];
        let keys = self.side(at).keys();
        let session = PEER;
        let initiate = Command::Initiate { session, keys, to };
        let now = self.world.now;
        self.side(at).shard.handle_command(now, initiate);
        self.drain(at);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now.at.after(time);
        loop {
            let agreed = self.agenda.first_key_value().map(|(key, _)| key.0);
            let dues = [0, 1].map(|at| self.side(at).shard.exchanges_due());
            let next = dues.into_iter().flatten().chain(agreed).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.world.now.at = self.world.now.at.max(next);
            for at in 0..2 {
                let now = self.world.now.at;
                self.side(at).shard.handle_exchanges(now);
                self.drain(at);
            }
            if agreed == Some(next)
                && let Some((_, (at, what))) = self.agenda.pop_first()
            {
                self.happen(at, what);
                self.drain(at);
            }
        }
        self.world.now.at = end;
    }

    fn happen(&mut self, at: usize, what: Happening) {
        let now = self.world.now;
        let from = self.side(1 - at).at;
        match what {
            Happening::Arrival(bytes) => self.side(at).shard.handle_datagram(now.at, from, &bytes),
            Happening::Judge => {
                let keys = self.side(at).keys();
                let admit = Command::Admit {
                    session: PEER,
                    keys,
                    source: from,
                    admission: Admission::Keep,
                };
                self.side(at).shard.handle_command(now, admit);
            }
            Happening::Timers => {
                self.side(at).shard.handle_timers(now.at);
                self.plan(TICK, at, Happening::Timers);
            }
        }
    }

    fn drain(&mut self, at: usize) {
        let came = self.side(at).drain();
        for (_, bytes) in came.datagrams {
            for delay in self.fate(&bytes) {
                let delay = Duration::from_micros(u64::from(delay));
                self.plan(delay, 1 - at, Happening::Arrival(bytes.clone()));
            }
        }
        for packet in came.packets {
            let number = packet[28..].first_chunk().expect("a number");
            let is_new = self.received[at].insert(u32::from_be_bytes(*number));
            assert!(is_new, "a packet came twice");
        }
        for event in came.events {
            if let Event::Sealed { .. } = event {
                self.plan(VERDICT, at, Happening::Judge);
            }
            assert!(!matches!(event, Event::Down { .. }), "a session ended");
        }
    }

    /// Every packet came, and both sides seal by keys that the other opens.
    fn agree(&self, story: &str) {
        for at in 0..2 {
            let all: BTreeSet<u32> = (0..self.written[1 - at]).collect();
            let missing: Vec<_> = all.difference(&self.received[at]).collect();
            assert!(missing.is_empty(), "{story}: {missing:?} are lost at {at}");
        }
        assert_eq!(suites(&self.world), [Some(Suite::Aes256Gcm); 2], "{story}");
    }
}

/// Talk, new keys and handshakes at random times over a bad wire, then talk over a good one.
fn run(seed: u64) {
    let lower = [Lower::Alice, Lower::Bob][usize::from(seed.is_multiple_of(2))];
    let mut world = World::proven();
    allow(&mut world, lower);
    let mut wire = Wire::new(world, seed);
    wire.mischief = Mischief {
        lost: wire.below(50),
        doubled: wire.below(30),
        late: wire.below(30),
    };
    let mut crossings = 0;
    for _ in 0..30 + wire.below(30) {
        let at = usize::try_from(wire.below(2)).expect("0 or 1");
        match wire.below(16) {
            0 | 1 => wire.want(at),
            2 if crossings < CROSSINGS => {
                crossings += 1;
                wire.initiate(at);
                let apart = wire.below(20_000);
                wire.pass(Duration::from_micros(u64::from(apart)));
                wire.initiate(1 - at);
            }
            _ => wire.write(at),
        }
        let pause = [1_000, 60_000, 700_000][usize::try_from(wire.below(3)).expect("below 3")];
        let pause = wire.below(pause);
        wire.pass(Duration::from_micros(u64::from(pause)));
    }
    wire.mischief = Mischief::default();
    // What failed is tried again after its pause.
    for _ in 0..45 {
        wire.write(0);
        wire.write(1);
        wire.pass(Duration::from_secs(1));
    }
    wire.agree(&format!("seed {seed}"));
}

#[test]
fn whatever_happens_to_what_makes_keys_no_packet_is_lost_or_comes_twice() {
    let is_full = std::env::var_os("WEBMESH_FULL").is_some();
    let seeds = if is_full { 10_000 } else { 200 };
    for seed in 0..seeds {
        run(seed);
    }
}

/// A transfer of long packets each way, and keys worn every second.
#[test]
fn new_keys_every_second_under_load_cost_no_segment_and_no_order() {
    for lower in [Lower::Alice, Lower::Bob] {
        let mut world = sealing(lower);
        let mut ups = [0; 2];
        let mut bodies = [Vec::new(), Vec::new()];
        for round in 0..3_000_u32 {
            world.pass(Duration::from_millis(10));
            let now = world.now;
            if round.is_multiple_of(103) {
                // Either side's are, in turn.
                let worn = match round % 2 {
                    0 => &mut world.bob,
                    _ => &mut world.alice,
                };
                want(worn, now);
            }
            for (side, at) in [(&mut world.alice, 0), (&mut world.bob, 1)] {
                side.shard.handle_exchanges(now.at);
                let body = round.to_be_bytes().repeat(1_500);
                let (own, other) = ends_of(at);
                let packet = long(own, other, (5, 6), &body);
                write_undone(side, now, &packet, to_cut(1_000));
            }
            let [alice, bob] = [world.alice.drain(), world.bob.drain()];
            for (came, at) in [(alice, 0), (bob, 1)] {
                for (_, bytes) in came.datagrams {
                    let (side, from) = match at {
                        0 => (&mut world.bob, world.alice.at),
                        _ => (&mut world.alice, world.bob.at),
                    };
                    side.shard.handle_datagram(now.at, from, &bytes);
                }
                ups[at] += came.events.iter().filter(|event| is_up(event)).count();
                bodies[at].extend(came.packets.iter().flat_map(|packet| packet[40..].to_vec()));
            }
        }
        for (body, at) in bodies.iter().zip(0..) {
            let numbers = body
                .as_chunks::<4>()
                .0
                .iter()
                .map(|number| u32::from_be_bytes(*number));
            // Those of the last round were delivered and not taken out.
            let expected = (0..2_999).flat_map(|round| [round; 1_500]);
            assert!(numbers.eq(expected), "{lower:?} {at}");
        }
        assert!(
            ups.iter().all(|ups| (25..=30).contains(ups)),
            "{lower:?} {ups:?}"
        );
    }
}
