//! Two path agents and the links between them: each link has a delay each way, or loses what goes one way. A link is what
//! the one calls by one address and the other by another. The data threads are doubles that say what rule 5 has them say.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{MS, PAIR, at};
use crate::{
    addr::Path,
    paths::{
        distress::Cause,
        proof::{Output, Proofs},
        sizes::Room,
    },
    time::{Moment, Now},
};

/// How often a data thread looks at its timers.
const TICK: u64 = 250 * MS;
/// How long it waits for an answer to user data before it says so.
const SILENT: u64 = 500 * MS;
/// How long a path may be silent before user data on it is doubted.
const STALE: u64 = 20_000 * MS;

/// One link, as both sides name it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Where the left side sends to reach the right one by it, and the other way round.
    pub(super) names: [Path; 2],
    /// What a datagram takes from each side.
    pub(super) trip: [u64; 2],
    /// Whether what each side sends is lost.
    pub(super) lost: [bool; 2],
    /// The longest packet that comes through whole.
    pub(super) fits: u16,
}

#[derive(Clone, Debug)]
enum Carried {
    Ping([u8; 8], u16),
    Pong([u8; 8]),
    Data(u64, u16),
}

#[derive(Clone, Debug, Default)]
struct Thread {
    endpoint: Option<Path>,
    mirror: Option<Path>,
    unanswered: Option<u64>,
    heard_there: u64,
    told: bool,
    held: Vec<u64>,
    new_path: u64,
    has_long: bool,
}

/// Both sides.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) agents: [Proofs; 2],
    pub(super) links: Vec<Link>,
    pub(super) now: u64,
    threads: [Thread; 2],
    in_flight: BTreeMap<(u64, u64), (usize, usize, Carried)>,
    planned: u64,
    numbers: u64,
    /// When each Ping left, from which side, on which link.
    pub(super) pings: Vec<(u64, usize, Option<usize>)>,
    /// What arrived, when, by which link; the second time of the same number is not counted, as in the replay window.
    pub(super) arrived: [BTreeMap<u64, (u64, usize)>; 2],
    /// What else the agents said.
    pub(super) said: VecDeque<(u64, usize, Output)>,
    /// Bytes are not counted: datagrams are.
    pub(super) datagrams: u64,
    /// How long packets may be, as each side knows.
    pub(super) rooms: [Option<Room>; 2],
    /// How long the packets are that programs write, where they may be.
    pub(super) len: u16,
    /// Each side answers data with data.
    pub(super) echoes: bool,
}

impl Links {
    /// A session stands over the first link.
    pub(super) fn new(links: Vec<Link>) -> Self {
        let mut world = Self {
            agents: [Proofs::new([1; 32]), Proofs::new([2; 32])],
            links,
            now: 0,
            threads: [Thread::default(), Thread::default()],
            in_flight: BTreeMap::new(),
            planned: 0,
            numbers: 0,
            pings: Vec::new(),
            arrived: [BTreeMap::new(), BTreeMap::new()],
            said: VecDeque::new(),
            datagrams: 0,
            rooms: [None; 2],
            len: 100,
            echoes: true,
        };
        for side in 0..2 {
            let endpoint = world.links[0].names[side];
            world.threads[side].endpoint = Some(endpoint);
            world.agents[side].handle_up(at(0), PAIR, endpoint);
            world.drain(side);
        }
        world
    }

    /// Both sides hear of all links.
    pub(super) fn name_all(&mut self) {
        for side in 0..2 {
            let names: Vec<Path> = self.links.iter().map(|link| link.names[side]).collect();
            self.agents[side].handle_candidates(at(self.now), PAIR, &names);
            self.drain(side);
        }
    }

    /// One side's agent is told something.
    pub(super) fn tell(&mut self, side: usize, tell: impl FnOnce(&mut Proofs, Now)) {
        tell(&mut self.agents[side], at(self.now));
        self.drain(side);
    }

    pub(super) fn cut(&mut self, link: usize) {
        self.links[link].lost = [true; 2];
    }

    /// Nothing that is under way on a link arrives, and nothing that is sent there.
    pub(super) fn remove(&mut self, link: usize) {
        self.cut(link);
        self.in_flight.retain(|_, (_, by, _)| *by != link);
    }

    pub(super) fn mend(&mut self, link: usize) {
        self.links[link].lost = [false; 2];
    }

    /// A program of one side writes a packet; gives its number.
    pub(super) fn write(&mut self, side: usize) -> u64 {
        self.numbers += 1;
        let (number, now) = (self.numbers, self.now);
        self.transmit_data(side, number);
        self.agents[side].handle_used(at(now), PAIR, Moment(now));
        self.drain(side);
        number
    }

    /// Runs for so long; a side that writes does so at every `every`.
    pub(super) fn run(&mut self, lasting: Duration, writers: &[usize], every: Duration) {
        let end = self.now + u64::try_from(lasting.as_micros()).unwrap();
        let every = u64::try_from(every.as_micros()).unwrap();
        let mut next_write = self.now;
        let mut next_tick = (self.now / TICK + 1) * TICK;
        loop {
            let deadlines = self.agents.iter().filter_map(Proofs::poll_timeout);
            let arrival = self.in_flight.keys().next().map(|(when, _)| *when);
            let write = (!writers.is_empty()).then_some(next_write);
            let next = deadlines
                .map(|deadline| deadline.0)
                .chain(arrival)
                .chain(write)
                .chain([next_tick])
                .min()
                .unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if next == next_tick {
                next_tick += TICK;
                self.tick();
            }
            if write == Some(next) {
                next_write += every;
                for side in writers {
                    self.write(*side);
                }
            }
            self.deliver();
            for side in 0..2 {
                self.agents[side].handle_timeout(at(self.now));
                self.drain(side);
            }
        }
    }

    /// Runs while nobody writes.
    pub(super) fn idle(&mut self, lasting: Duration) {
        self.run(lasting, &[], Duration::from_secs(1));
    }

    pub(super) fn endpoint(&self, side: usize) -> Option<usize> {
        let endpoint = self.threads[side].endpoint?;
        self.link_named(side, endpoint)
    }

    fn link_named(&self, side: usize, path: Path) -> Option<usize> {
        self.links.iter().position(|link| link.names[side] == path)
    }

    fn tick(&mut self) {
        for side in 0..2 {
            let thread = &mut self.threads[side];
            let is_silent = thread
                .unanswered
                .is_some_and(|since| self.now - since >= SILENT);
            if is_silent && !std::mem::replace(&mut thread.told, true) {
                let cause = match self.threads[side].has_long {
                    true => Cause::Choked,
                    false => Cause::Silent,
                };
                self.agents[side].handle_unheard(at(self.now), PAIR, cause);
                self.drain(side);
            }
        }
    }

    fn transmit_data(&mut self, side: usize, number: u64) {
        let now = self.now;
        let thread = &mut self.threads[side];
        let is_stale = now - thread.heard_there >= STALE && !thread.told;
        thread.told |= is_stale;
        let waits = thread
            .unanswered
            .is_some_and(|since| now - since >= 150 * MS);
        thread.unanswered.get_or_insert(now);
        if waits || thread.told || thread.endpoint.is_none() {
            if thread.held.len() == 16 {
                thread.held.remove(4);
            }
            thread.held.push(number);
        }
        let ways = [thread.endpoint, thread.mirror];
        let len = self.fitting(side);
        self.threads[side].has_long |= len > 1280;
        for path in ways.into_iter().flatten() {
            self.transmit(side, path, Carried::Data(number, len));
        }
        if is_stale {
            self.agents[side].handle_unheard(at(now), PAIR, Cause::Stale);
        } else if ways[0].is_none() {
            self.agents[side].handle_unheard(at(now), PAIR, Cause::Gone);
        }
    }

    /// How long a program's packet is.
    fn fitting(&self, side: usize) -> u16 {
        self.rooms[side].map_or(self.len, |room| room.inner.min(self.len))
    }

    fn transmit(&mut self, side: usize, path: Path, carried: Carried) {
        self.datagrams += 1;
        let Some(index) = self.link_named(side, path) else {
            return;
        };
        let link = &self.links[index];
        let len = match carried {
            Carried::Ping(_, len) | Carried::Data(_, len) => len,
            Carried::Pong(_) => 0,
        };
        let is_cut = self.rooms[side].is_some_and(|room| room.in_fragments);
        let is_data = matches!(carried, Carried::Data(..));
        if link.lost[side] || len > link.fits && !(is_cut && is_data) {
            return;
        }
        self.planned += 1;
        let when = self.now + link.trip[side];
        self.in_flight
            .insert((when, self.planned), (1 - side, index, carried));
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (side, link, carried) = entry.remove();
            self.arrive(side, link, carried);
            self.drain(side);
        }
    }

    fn arrive(&mut self, side: usize, link: usize, carried: Carried) {
        let (now, source) = (self.now, self.links[link].names[side]);
        if let Carried::Data(number, _) = carried
            && self.arrived[side].contains_key(&number)
        {
            // The replay window knows it.
            return;
        }
        let thread = &mut self.threads[side];
        if thread.endpoint == Some(source) || matches!(carried, Carried::Data(..)) {
            thread.unanswered = None;
            thread.has_long = false;
        }
        if thread.endpoint == Some(source) {
            thread.heard_there = now;
            if std::mem::take(&mut thread.told) {
                self.agents[side].handle_new_path(at(now), PAIR, source);
                self.drain(side);
            } else {
                thread.held.clear();
            }
        } else if now - thread.new_path >= TICK || thread.new_path == 0 {
            thread.new_path = now;
            match carried {
                Carried::Data(..) => self.agents[side].handle_elsewhere(at(now), PAIR, source),
                Carried::Ping(..) | Carried::Pong(..) => {
                    self.agents[side].handle_new_path(at(now), PAIR, source);
                }
            }
            self.drain(side);
        }
        match carried {
            Carried::Ping(nonce, _) => {
                self.agents[side].handle_pinged(at(now), PAIR, source);
                self.transmit(side, source, Carried::Pong(nonce));
            }
            Carried::Pong(nonce) => {
                self.agents[side].handle_pong(at(now), PAIR, nonce, source);
            }
            Carried::Data(number, _) => {
                self.arrived[side].insert(number, (now, link));
                let is_question = number < 1_000_000;
                if is_question && self.echoes {
                    self.transmit_data(side, number + 1_000_000);
                }
            }
        }
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.agents[side].poll_output() {
            let now = self.now;
            match output {
                Output::Ping {
                    via, nonce, len, ..
                } => {
                    let to = via.or(self.threads[side].endpoint);
                    let link = to.and_then(|path| self.link_named(side, path));
                    self.pings.push((now, side, link));
                    if let Some(to) = to {
                        self.transmit(side, to, Carried::Ping(nonce, len.unwrap_or(100)));
                    }
                }
                Output::SetPath { endpoint, .. } => {
                    let thread = &mut self.threads[side];
                    let is_other = thread.endpoint != Some(endpoint);
                    let held = std::mem::take(&mut thread.held);
                    *thread = Thread {
                        endpoint: Some(endpoint),
                        heard_there: now,
                        new_path: thread.new_path,
                        unanswered: thread.unanswered.map(|_| now),
                        ..Thread::default()
                    };
                    if is_other {
                        self.said.push_back((now, side, output));
                    }
                    for number in held {
                        self.transmit(side, endpoint, Carried::Data(number, 100));
                    }
                }
                Output::Mirror { via, .. } => {
                    self.threads[side].mirror = via;
                    for number in self.threads[side].held.clone() {
                        if let Some(via) = via {
                            self.transmit(side, via, Carried::Data(number, 100));
                        }
                    }
                    self.said.push_back((now, side, output));
                }
                Output::SetRoom { room, .. } => {
                    self.rooms[side] = Some(room);
                    self.said.push_back((now, side, output));
                }
                Output::Withdraw { .. } => {
                    self.threads[side].endpoint = None;
                    self.threads[side].mirror = None;
                    self.said.push_back((now, side, output));
                }
                Output::Seek { .. } | Output::Lost { .. } | Output::Unanswered { .. } => {
                    self.said.push_back((now, side, output));
                }
            }
        }
    }
}
