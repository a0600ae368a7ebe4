//! Two machines with several data threads each, which run in any order: every flow keeps its order and nothing is lost, when
//! keys are made, when they are renewed, when a path is doubted, withdrawn and proven, and when threads are slow. Real keys,
//! in virtual time; what stands between threads is the real thing, the kernel's part and the thread's own loop are played. The
//! uplink is never full here.

use std::collections::VecDeque;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::RngCore;

use super::{
    transports::{Lower, allow, ends_of, is_up},
    *,
};
use crate::{
    datapath::{
        crew::{self, Crew, Mail, Post},
        inbound::{Source, Taken},
        lane::{Lane, Word},
        lanes::Lanes,
        outbound::PADDING,
        train::Train,
    },
    platform::{allocation::asked_by, poll::Waker},
    transport::suite::Suite,
};

/// Conversations of programs, each way.
const FLOWS: usize = 6;

/// What a turn takes from a queue of the device or from a socket, at most.
const TURN: usize = 8;

/// One thread, what the kernel has for it, and how it hears of the others.
struct Thread {
    shard: Shard,
    queue: VecDeque<Vec<u8>>,
    socket: VecDeque<Vec<u8>>,
    post: Option<Post>,
}

/// One machine.
struct Machine {
    threads: Vec<Thread>,
    crew: Crew,
    from: Path,
    /// The next number that each flow writes, and the next that is to come of each.
    written: [u32; FLOWS],
    expected: [u32; FLOWS],
    ups: usize,
    /// How often it was said that a path answers that was doubted, or another.
    paths: usize,
    /// Packets that lanes handed over, and those that each thread delivered.
    handed: usize,
    delivered: Vec<usize>,
}

impl Machine {
    /// A machine whose first thread this is.
    fn new(side: Side, from: Path, threads: usize) -> Self {
        let waker = Waker::new().unwrap();
        let (crew, posts) = crew::muster(threads - 1, &waker).unwrap();
        let own = side.seed;
        let mut first = side.shard;
        first.lanes = Lanes::new(crew.backlogs());
        let thread = |shard, post| Thread {
            shard,
            queue: VecDeque::new(),
            socket: VecDeque::new(),
            post,
        };
        let lanes = posts.into_iter().map(|post| {
            let mut shard = Side::new(own, 3 - own).shard;
            shard.lane = Some(Box::new(Lane::new(post.number(), post.handed())));
            thread(shard, Some(post))
        });
        let lanes: Vec<_> = lanes.collect();
        Self {
            threads: [thread(first, None)].into_iter().chain(lanes).collect(),
            crew,
            from,
            written: [0; FLOWS],
            expected: [0; FLOWS],
            ups: 0,
            paths: 0,
            handed: 0,
            delivered: vec![0; threads],
        }
    }

    fn write(&mut self, at: usize, flow: usize) {
        let number = self.written[flow];
        self.written[flow] += 1;
        let (own, other) = ends_of(at);
        let ports = (5, u16::try_from(flow).unwrap());
        let packet = datagram(own, other, ports, &number.to_be_bytes());
        let queue = flow % self.threads.len();
        self.threads[queue].queue.push_back(packet);
    }

    /// The kernel gives a datagram to the thread that it names.
    fn arrive(&mut self, datagram: Vec<u8>) {
        let named = usize::from(datagram[7]);
        let is_named = datagram[0] == 0x10 && named < self.threads.len();
        let thread = if is_named { named } else { 0 };
        self.threads[thread].socket.push_back(datagram);
    }

    /// As [`super::super::thread`] does it; what goes to the network.
    fn turn(&mut self, now: Now, number: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let is_awaited = match number {
            0 => {
                self.take_words(now);
                self.crew.is_awaited()
            }
            lane => {
                while let Thread {
                    shard,
                    post: Some(post),
                    ..
                } = &mut self.threads[lane]
                    && let Mail::Done = post.take(now.at, shard)
                {}
                false
            }
        };
        let taken = if is_awaited { usize::MAX } else { TURN };
        self.take_datagrams(now, number, taken);
        for _ in 0..TURN {
            let Thread { shard, queue, .. } = &mut self.threads[number];
            if shard.waits_to_send() {
                break;
            }
            let Some(packet) = queue.pop_front() else {
                break;
            };
            let mut buffer = [packet.as_slice(), &[0; PADDING]].concat();
            shard.handle_packet(now.at, &mut buffer, (packet.len(), Undone::Nothing));
        }
        self.threads[number].shard.handle_exchanges(now.at);
        self.flush(number, &mut sent);
        if number == 0 {
            self.crew.note_left(now.at, true);
            self.crew.note_delivered(now.at, is_awaited);
        }
        sent
    }

    fn take_words(&mut self, now: Now) {
        while let Some((thread, word)) = self.crew.next() {
            self.crew.note_word(now.at, thread, &word);
            let shard = &mut self.threads[0].shard;
            match word {
                Word::Packet { mut bytes, undone } => {
                    self.handed += 1;
                    let what = (bytes.len() - PADDING, undone);
                    shard.handle_packet(now.at, &mut bytes, what);
                }
                Word::News(news) => shard.handle_news(now.at, news),
                Word::Ended => panic!("a lane ended"),
            }
        }
    }

    fn take_datagrams(&mut self, now: Now, number: usize, most: usize) {
        let from = Source::from(self.from);
        let Thread {
            shard,
            socket,
            post,
            ..
        } = &mut self.threads[number];
        for _ in 0..most {
            if shard.waits_to_deliver() {
                return;
            }
            let Some(datagram) = socket.pop_front() else {
                return;
            };
            if let Some(post) = post {
                post.catch_up(now.at, shard);
            }
            shard.handle_datagram(now.at, from, &datagram);
        }
    }

    fn flush(&mut self, from: usize, sent: &mut Vec<Vec<u8>>) {
        let Thread { shard, post, .. } = &mut self.threads[from];
        self.crew.deliver(&mut shard.lanes.orders);
        sent.extend(shard.out.datagrams.iter().map(|(_, bytes)| bytes.to_vec()));
        shard.out.datagrams.clear();
        if !shard.waits_to_deliver() {
            for ((), packet) in shard.out.packets.iter() {
                let flow = usize::from(packet[23]);
                let number = u32::from_be_bytes(*packet[28..].first_chunk().unwrap());
                assert_eq!(number, self.expected[flow], "flow {flow}");
                self.expected[flow] += 1;
                self.delivered[from] += 1;
            }
            shard.out.packets.clear();
        }
        for event in shard.out.events.drain(..) {
            self.ups += usize::from(is_up(&event));
            self.paths += usize::from(matches!(event, Event::NewPath { .. }));
            assert!(!matches!(event, Event::Down { .. }), "a session ended");
        }
        if let (Some(post), Some(lane)) = (post, &mut shard.lane) {
            post.deliver(&mut lane.words);
        }
    }

    fn first(&mut self) -> &mut Shard {
        &mut self.threads[0].shard
    }

    fn met(&self, reason: DropReason) -> u64 {
        let all = self.threads.iter().map(|one| one.shard.drops.met(reason));
        all.sum()
    }
}

struct Two {
    machines: [Machine; 2],
    /// What is under way to each.
    wires: [VecDeque<Vec<u8>>; 2],
    now: Now,
    random: ChaCha8Rng,
}

impl Two {
    fn new(threads: [usize; 2], seed: u64) -> Self {
        let mut world = World::proven();
        let lower = [Lower::Alice, Lower::Bob][usize::from(seed.is_multiple_of(2))];
        allow(&mut world, lower);
        let World { alice, bob, now } = world;
        let ends = [alice.at, bob.at];
        Self {
            machines: [
                Machine::new(alice, ends[1], threads[0]),
                Machine::new(bob, ends[0], threads[1]),
            ],
            wires: Default::default(),
            now,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.next_u32()).unwrap() % end
    }

    fn turn(&mut self, at: usize, thread: usize) {
        let sent = self.machines[at].turn(self.now, thread);
        self.wires[1 - at].extend(sent);
    }

    /// Datagrams arrive, some, in their order.
    fn deliver(&mut self, at: usize, most: usize) {
        for _ in 0..most {
            let Some(datagram) = self.wires[at].pop_front() else {
                return;
            };
            self.machines[at].arrive(datagram);
        }
    }

    /// A thread of either machine has its turn, or the network.
    fn step(&mut self) {
        let at = self.below(2);
        let thread = self.below(self.machines[at].threads.len() + 1);
        match self.machines[at].threads.get(thread) {
            Some(_) => self.turn(at, thread),
            None => {
                let most = self.below(20);
                self.deliver(at, most);
            }
        }
        let passed = u64::try_from(self.below(300)).unwrap();
        self.now.at = self.now.at.after(Duration::from_micros(passed));
    }

    /// Everybody does what there is to do.
    fn settle(&mut self) {
        for _ in 0..50 {
            for at in 0..2 {
                self.deliver(at, usize::MAX);
                for thread in 0..self.machines[at].threads.len() {
                    self.turn(at, thread);
                }
            }
            self.now.at = self.now.at.after(Duration::from_millis(1));
        }
    }

    /// The control plane says something about the path, as it does after a move or a doubt.
    fn stir(&mut self, at: usize) {
        let endpoint = self.machines[at].from;
        let session = PEER;
        let now = self.now;
        let commands = match self.below(6) {
            0 => vec![Command::SetRoom {
                session,
                endpoint,
                inner: 1400,
                in_fragments: false,
            }],
            1 => vec![
                Command::Withdraw { session },
                Command::SetPath { session, endpoint },
            ],
            2 => vec![Command::Move {
                session,
                endpoint,
                gap: Duration::from_millis(2),
            }],
            3 => vec![Command::Mirror {
                session,
                via: Some(endpoint),
            }],
            4 => {
                // As where a stream that only goes out is not answered for half a second.
                let first = self.machines[at].first();
                let place = first.sessions.place(PEER).unwrap();
                let state = first.sessions.at(place).unwrap();
                state.watch.pulse().set_told(Some(now.at));
                Vec::new()
            }
            _ => vec![Command::SetPath { session, endpoint }],
        };
        let first = self.machines[at].first();
        for command in commands {
            first.handle_command(now, command);
        }
    }

    fn want_keys(&mut self, at: usize) {
        let now = self.now.at;
        let first = self.machines[at].first();
        let place = first.sessions.place(PEER).unwrap();
        first.want_keys(now, place);
    }
}

/// Talks at random, while threads run as they like; all of it comes, in order.
fn run(threads: [usize; 2], seed: u64) {
    println!("threads {threads:?}, seed {seed}");
    let mut two = Two::new(threads, seed);
    for round in 0..400 {
        let at = two.below(2);
        for _ in 0..two.below(4) {
            let flow = two.below(FLOWS);
            two.machines[at].write(at, flow);
        }
        match two.below(60) {
            0 => two.stir(at),
            1 => two.want_keys(at),
            2 => {
                let now = two.now.at;
                two.machines[at].first().handle_timers(now);
            }
            _ => {}
        }
        for _ in 0..two.below(8) {
            two.step();
        }
        if round % 100 == 99 {
            // Keys are made once a second at most.
            two.settle();
            two.now.at = two.now.at.after(Duration::from_secs(1));
            two.want_keys(at);
        }
    }
    two.settle();
    for at in 0..2 {
        let came = two.machines[at].expected;
        assert_eq!(came, two.machines[1 - at].written);
        assert!(two.machines[at].ups > 1, "keys are made anew");
        for reason in [DropReason::OutHandoverFull, DropReason::InHandoverFull] {
            assert_eq!(two.machines[at].met(reason), 0);
        }
    }
}

#[test]
fn every_flow_keeps_its_order_and_nothing_is_lost_however_threads_run() {
    let is_full = std::env::var_os("WEBMESH_FULL").is_some();
    let seeds = if is_full { 1_000 } else { 40 };
    for threads in [[2, 2], [3, 3], [4, 4], [1, 4], [3, 2]] {
        for seed in 0..seeds {
            run(threads, seed);
        }
    }
}

/// Where nobody is slow the first thread carries what came before there were keys, and no more.
#[test]
fn lanes_seal_and_open_by_themselves_once_keys_stand() {
    for threads in [2, 3, 4] {
        let mut two = Two::new([threads; 2], 1);
        for at in 0..2 {
            two.machines[at].write(at, 1);
            two.settle();
        }
        let before = [0, 1].map(|at| {
            let machine = &two.machines[at];
            (machine.handed, machine.delivered.clone())
        });
        for _ in 0..50 {
            for at in 0..2 {
                for flow in 0..FLOWS {
                    two.machines[at].write(at, flow);
                }
            }
            two.settle();
        }
        let SessionId::Pair(PeerIx(peer)) = PEER else {
            panic!("it is a pair");
        };
        for (machine, (handed, mut delivered)) in two.machines.iter_mut().zip(before) {
            let place = machine.first().sessions.place(PEER).unwrap();
            let state = machine.first().sessions.at(place).unwrap();
            assert_eq!(state.counters.suite(), Some(Suite::Aes256Gcm));
            assert_eq!(machine.handed, handed, "of {threads}");
            delivered[peer as usize % threads] += 50 * FLOWS;
            assert_eq!(machine.delivered, delivered, "of {threads}");
        }
    }
}

#[test]
fn what_a_lane_seals_and_opens_by_itself_costs_no_allocation() {
    let mut two = Two::new([2, 2], 1);
    for at in 0..2 {
        two.machines[at].write(at, 1);
        two.settle();
    }
    let (own, other) = ends_of(0);
    let packet = datagram(own, other, (5, 1), &[7; 1000]);
    let mut buffer = [packet.as_slice(), &[0; PADDING]].concat();
    let (now, from) = (two.now.at, two.machines[1].from);
    let [one, another] = two
        .machines
        .each_mut()
        .map(|machine| &mut machine.threads[1].shard);
    let carried = asked_by(|| {
        for _ in 0..1_000 {
            one.handle_packet(now, &mut buffer, (packet.len(), Undone::Nothing));
            for (_, sealed) in one.out.datagrams.iter() {
                another.handle_datagram(now, from, sealed);
            }
            one.out.datagrams.clear();
            assert_eq!(another.out.packets.len(), 1);
            another.out.packets.clear();
        }
    });
    assert_eq!(carried, 0, "bytes");
}

/// A socket that is open for a guess is kept for what opened, and not for what only looks like it.
#[test]
fn what_is_for_another_thread_vouches_for_no_socket() {
    let mut two = Two::new([2, 2], 1);
    let (now, from) = (two.now.at, two.machines[0].from);
    let first = two.machines[0].first();
    for thread in 0..3 {
        let mut forged = [7; 48];
        forged[..8].copy_from_slice(&[0x10, 0, 0, 0, 1, 2, 3, thread]);
        let taken = first.take_message(now, from.into(), Train::of_one(&mut forged));
        assert_ne!(taken, Taken::Data, "{thread}");
    }
}

#[test]
fn a_doubted_path_that_a_lane_hears_of_is_told_once() {
    let mut two = Two::new([2, 2], 1);
    for at in 0..2 {
        two.machines[at].write(at, 1);
        two.settle();
    }
    let before = two.machines[1].paths;
    two.now.at = two.now.at.after(Duration::from_secs(1));
    let now = two.now.at;
    let first = two.machines[1].first();
    let place = first.sessions.place(PEER).unwrap();
    let state = first.sessions.at(place).unwrap();
    state.watch.pulse().set_told(Some(now));
    two.now.at = now.after(Duration::from_millis(20));
    for _ in 0..3 {
        two.machines[0].write(0, 1);
        two.settle();
    }
    assert_eq!(two.machines[1].paths, before + 1);
}

/// A way is told, and what was handed over counts as gone, once everything has left, or after 50 ms all the same.
#[test]
fn nobody_waits_longer_than_50_ms_for_an_uplink_that_stays_full() {
    let (mut crew, mut posts) = crew::muster(1, &Waker::new().unwrap()).unwrap();
    let post = posts.pop().unwrap();
    let handed = post.handed();
    let mut lane = Lane::new(1, Arc::clone(&handed));
    let start = Moment(1_000_000);
    crew.note_left(Moment(1), true);
    let (bytes, undone) = (vec![0; PADDING + 100], Undone::Nothing);
    lane.words.push(Word::Packet { bytes, undone });
    post.deliver(&mut lane.words);
    let (thread, word) = crew.next().unwrap();
    crew.note_word(start, thread, &word);
    let late = Duration::from_millis(50);
    for (passed, left) in [
        (Duration::ZERO, 0),
        (Duration::from_millis(49), 0),
        (late, 1),
    ] {
        crew.note_left(start.after(passed), false);
        assert_eq!(handed.left(), left, "{passed:?}");
    }
}
