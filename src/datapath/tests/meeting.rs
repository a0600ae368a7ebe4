//! Two shards that want each other at nearly the same time, over a wire that takes time and loses a datagram: real
//! WireGuard handshakes in virtual time. The control planes are doubles that do what protocol §2 says of two runs that
//! know nothing of each other: try five times, and let every Knock's initiation into the one state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::atomic::Ordering,
    time::Duration,
};

use super::{PEER, Side, Undone, datagram, knock, v4};
use crate::{
    datapath::command::{Command, Event},
    tables::Admission,
    time::{Moment, Now},
};

/// When the tries of one attempt go out (protocol §2).
const TRIES: [u64; 5] = [0, 300, 800, 1800, 3800];
/// From a Knock to the verdict on it.
const VERDICT: Duration = Duration::from_millis(3);
/// How often a data thread runs its timers.
const TICK: Duration = Duration::from_millis(250);
/// Packets that a program of each side writes.
const PACKETS: u8 = 5;

/// What is still to happen at one side.
enum Happening {
    Write,
    Chat(u8),
    Dial,
    Judge,
    Timers,
    Arrival(Vec<u8>),
}

struct Meeting {
    sides: [Side; 2],
    now: Now,
    agenda: BTreeMap<(Moment, u64), (usize, Happening)>,
    planned: u64,
    trip: Duration,
    /// The number of the datagram that the wire loses, of all but data.
    lost: Option<usize>,
    handshaken: usize,
    stands: [u32; 2],
    received: [BTreeSet<Vec<u8>>; 2],
}

impl Meeting {
    fn new(apart: Duration, round_trip: Duration, lost: Option<usize>) -> Self {
        let now = Now {
            at: Moment(1_000_000_000),
            unix_ms: 1_700_000_000_000,
        };
        let mut meeting = Self {
            sides: [Side::new(1, 2), Side::new(2, 1)],
            now,
            agenda: BTreeMap::new(),
            planned: 0,
            trip: round_trip / 2,
            lost,
            handshaken: 0,
            stands: [0; 2],
            received: [BTreeSet::new(), BTreeSet::new()],
        };
        meeting.plan(Duration::ZERO, 0, Happening::Write);
        meeting.plan(apart, 1, Happening::Write);
        for side in 0..2 {
            meeting.plan(TICK, side, Happening::Timers);
        }
        meeting
    }

    fn plan(&mut self, later: Duration, side: usize, what: Happening) {
        self.planned += 1;
        let key = (self.now.at.after(later), self.planned);
        self.agenda.insert(key, (side, what));
    }

    fn run(&mut self, until: Duration) {
        let end = self.now.at.after(until);
        while let Some(((at, _), (side, what))) = self.agenda.pop_first() {
            if at > end {
                return;
            }
            self.now.at = at;
            self.happen(side, what);
            self.drain(side);
        }
    }

    fn happen(&mut self, side: usize, what: Happening) {
        let now = self.now;
        let from = self.sides[1 - side].at;
        let shard = &mut self.sides[side].shard;
        match what {
            Happening::Write => {
                for packet in written_by(side) {
                    let mut buffer = packet.clone();
                    buffer.resize(packet.len() + 16, 0);
                    shard.handle_packet(now.at, &mut buffer, (packet.len(), Undone::Nothing));
                }
            }
            Happening::Chat(number) => {
                let (own, peer) = ends_of(side);
                let packet = datagram(own, peer, (5, 6), &[number]);
                let came = self.sides[side].write(now, &packet);
                for (_, bytes) in came.datagrams {
                    self.plan(self.trip, 1 - side, Happening::Arrival(bytes));
                }
            }
            Happening::Dial if self.stands[side] > 0 => {}
            Happening::Dial => self.dial(side),
            Happening::Judge => {
                let command = Command::Admit {
                    session: PEER,
                    keys: self.sides[side].keys(),
                    source: from,
                    admission: Admission::Keep,
                };
                self.sides[side].shard.handle_command(now, command);
            }
            Happening::Timers => {
                shard.handle_timers(now.at);
                self.plan(TICK, side, Happening::Timers);
            }
            Happening::Arrival(bytes) => shard.handle_datagram(now.at, from, &bytes),
        }
    }

    fn dial(&mut self, side: usize) {
        let command = Command::Initiate {
            session: PEER,
            keys: self.sides[side].keys(),
            to: vec![(self.sides[1 - side].at, knock())],
        };
        self.sides[side].shard.handle_command(self.now, command);
    }

    fn drain(&mut self, side: usize) {
        let came = self.sides[side].drain();
        for (to, bytes) in came.datagrams {
            assert_eq!(to, self.sides[1 - side].at);
            if !self.is_lost(&bytes) {
                self.plan(self.trip, 1 - side, Happening::Arrival(bytes));
            }
        }
        for packet in came.packets {
            assert!(self.received[side].insert(packet), "a packet came twice");
        }
        for event in came.events {
            if matches!(event, Event::Wanted { .. }) {
                for after in TRIES {
                    self.plan(Duration::from_millis(after), side, Happening::Dial);
                }
            }
            if matches!(event, Event::Sealed { .. }) {
                self.plan(VERDICT, side, Happening::Judge);
            }
            self.stands[side] += u32::from(matches!(event, Event::Up { .. }));
            assert!(!matches!(event, Event::Down { .. }), "a session ended");
        }
    }

    fn is_lost(&mut self, bytes: &[u8]) -> bool {
        const KEEPALIVE: usize = 32;
        let carries_data = bytes.first() == Some(&4) && bytes.len() > KEEPALIVE;
        let number = self.handshaken;
        self.handshaken += usize::from(!carries_data);
        !carries_data && self.lost == Some(number)
    }
}

fn ends_of(side: usize) -> (IpAddr, IpAddr) {
    match side {
        0 => (v4(1), v4(2)),
        _ => (v4(2), v4(1)),
    }
}

fn written_by(side: usize) -> Vec<Vec<u8>> {
    let (own, peer) = ends_of(side);
    (0..PACKETS)
        .map(|i| datagram(own, peer, (5, 6), &[i]))
        .collect()
}

/// Both write; each side must get a session and every packet, once. Gives how many datagrams came before data.
fn meet(apart_ms: u64, round_trip_ms: u64, lost: Option<usize>) -> usize {
    let apart = Duration::from_millis(apart_ms);
    let mut meeting = Meeting::new(apart, Duration::from_millis(round_trip_ms), lost);
    meeting.run(Duration::from_secs(8));
    let story = format!("{apart_ms} ms apart, round trip {round_trip_ms} ms, lost {lost:?}");
    for side in 0..2 {
        assert_eq!(meeting.stands[side], 1, "sessions of side {side}: {story}");
        let expected: BTreeSet<_> = written_by(1 - side).into_iter().collect();
        assert_eq!(meeting.received[side], expected, "at side {side}: {story}");
    }
    meeting.handshaken
}

const APART_MS: [u64; 12] = [0, 1, 5, 20, 100, 200, 300, 301, 400, 500, 800, 1000];
const ROUND_TRIP_MS: [u64; 4] = [1, 20, 150, 400];

#[test]
fn two_that_knock_at_once_or_a_little_apart_lose_no_packet_of_the_queue() {
    for apart in APART_MS {
        for round_trip in ROUND_TRIP_MS {
            meet(apart, round_trip, None);
        }
    }
}

#[test]
fn two_that_knock_across_a_wire_that_loses_one_datagram_lose_no_packet_of_the_queue() {
    for apart in [0, 100, 400, 1000] {
        for round_trip in [20, 400] {
            let datagrams = meet(apart, round_trip, None);
            for lost in 0..datagrams {
                meet(apart, round_trip, Some(lost));
            }
        }
    }
}

#[test]
fn packets_under_both_keys_of_crossed_handshakes_are_no_new_handshake() {
    let mut meeting = Meeting::new(Duration::ZERO, Duration::from_millis(20), None);
    meeting.run(Duration::from_secs(2));
    let handshakes = |meeting: &mut Meeting| {
        [0, 1].map(|side| {
            let sessions = &mut meeting.sides[side].shard.sessions;
            let place = sessions.place(PEER).unwrap();
            let counters = &sessions.at(place).unwrap().counters;
            counters.handshake.load(Ordering::Relaxed)
        })
    };
    let before = handshakes(&mut meeting);
    for number in 0..20 {
        let later = Duration::from_millis(100 * u64::from(number) + 50);
        meeting.plan(
            later,
            usize::from(number % 2),
            Happening::Chat(100 + number),
        );
    }
    meeting.run(Duration::from_secs(3));
    assert_eq!(handshakes(&mut meeting), before);
    let chat = meeting.received.iter().map(BTreeSet::len).sum::<usize>();
    assert_eq!(chat, usize::from(2 * PACKETS) + 20);
}
