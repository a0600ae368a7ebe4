//! Whole meetings over a DHT that is a map, between peers behind NATs that are two lines.

use std::collections::BTreeSet;

use super::*;
use crate::{
    keys::{InviteSecret, NetSecret, SlotKey},
    wire::slot,
};

const START_S: u64 = 20_000 * 86_400 + 40_000;
/// How long the DHT takes over a question, ms.
const DHT_MS: u64 = 1_500;

/// The DHT: values by key, and nodes that say who asks.
#[derive(Default)]
struct Dht {
    items: BTreeMap<[u8; 32], Item>,
    puts: Vec<(u64, SlotName, u64)>,
}

/// One peer, its NAT, and what is on its way to it.
struct Peer {
    core: Rendezvous,
    public: Underlay,
    is_hard: bool,
    answers: Vec<(u64, Answer)>,
    datagrams: Vec<(u64, Underlay, Vec<u8>)>,
    probes: Vec<(u64, Party, Underlay)>,
    /// Whom this peer's NAT lets in, until when, ms.
    holes: BTreeMap<Underlay, u64>,
}

struct World {
    ms: u64,
    dht: Dht,
    peers: Vec<Peer>,
    /// Who met whom, and when, s after the start.
    met: Vec<(usize, usize, u64)>,
}

fn address(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

fn peer(number: u8) -> Peer {
    Peer {
        core: Rendezvous::new(NodeId([number; 32]), [number; 32]),
        public: address(&format!("203.0.113.{number}:41820")),
        is_hard: false,
        answers: Vec::new(),
        datagrams: Vec::new(),
        probes: Vec::new(),
        holes: BTreeMap::new(),
    }
}

fn node(number: u8) -> Underlay {
    address(&format!("198.51.100.{number}:6881"))
}

fn network(epochs: &[u32], pace: Pace) -> Duties {
    let secret = |n: &u32| (*n, NetSecret([n.to_le_bytes()[0]; 32]));
    Duties {
        meetings: Vec::new(),
        network: Some(NetworkDuty {
            epochs: epochs.iter().map(secret).collect(),
            pace,
        }),
    }
}

fn meeting(side: Side) -> Duties {
    let secret = InviteSecret([9; 16]);
    Duties {
        meetings: vec![Meeting { secret, side }],
        network: None,
    }
}

impl World {
    fn new(peers: Vec<Peer>) -> Self {
        Self {
            ms: 0,
            dht: Dht::default(),
            peers,
            met: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            at: Moment(self.ms * 1_000),
            unix_ms: START_S * 1_000 + self.ms,
        }
    }

    fn give(&mut self, peer: usize, duties: Duties) {
        let now = self.now();
        self.peers[peer].core.handle_duties(now, duties);
    }

    /// Runs for so long, a tenth of a second at a time.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            for peer in 0..self.peers.len() {
                self.turn(peer);
            }
            self.ms += 100;
        }
    }

    fn turn(&mut self, ix: usize) {
        let (now, ms) = (self.now(), self.ms);
        let peer = &mut self.peers[ix];
        let due = |at: &u64| *at <= ms;
        for (_, answer) in peer
            .answers
            .extract_if(.., |(at, _)| due(at))
            .collect::<Vec<_>>()
        {
            peer.core.handle_answer(now, answer, &|_| true);
        }
        for (_, from, bytes) in peer
            .datagrams
            .extract_if(.., |(at, ..)| due(at))
            .collect::<Vec<_>>()
        {
            peer.core.handle_datagram(now, from, &bytes);
        }
        peer.core.handle_timeout(now);
        while let Some(output) = self.peers[ix].core.poll_output() {
            self.carry_out(ix, output);
        }
    }

    fn carry_out(&mut self, ix: usize, output: Output) {
        let ms = self.ms;
        match output {
            Output::Ask(ask) => {
                let answer = self.dht.answer(ms, ask);
                self.peers[ix].answers.push((ms + DHT_MS, answer));
            }
            Output::Datagram { to, bytes } => {
                let peer = &mut self.peers[ix];
                let mut seen = peer.public.socket();
                if peer.is_hard {
                    seen.set_port(1024 + to.socket().port() % 7 + u16::from(last_of(to)));
                }
                let transaction = &bytes[bytes.len() - 11..bytes.len() - 7];
                let ip = match seen.ip() {
                    std::net::IpAddr::V4(ip) => ip.octets(),
                    std::net::IpAddr::V6(_) => panic!("all are v4"),
                };
                let port = seen.port().to_be_bytes();
                let answer = [
                    &b"d2:ip6:"[..],
                    &ip,
                    &port,
                    b"1:t4:",
                    transaction,
                    b"1:y1:re",
                ]
                .concat();
                peer.datagrams.push((ms + 50, to, answer));
            }
            Output::Probe { party, to } => self.probe(ix, party, to),
        }
    }

    /// A try opens the own NAT, and comes in where the other's is open.
    fn probe(&mut self, ix: usize, party: Party, to: Underlay) {
        let ms = self.ms;
        let from = self.peers[ix].public;
        self.peers[ix].probes.push((ms, party, to));
        self.peers[ix].holes.insert(to, ms + 30_000);
        if self.peers[ix].is_hard {
            return;
        }
        let other = self
            .peers
            .iter()
            .position(|peer| peer.public == to && !peer.is_hard);
        let Some(other) = other else { return };
        let is_open = self.peers[other]
            .holes
            .get(&from)
            .is_some_and(|until| *until > ms);
        let carries = !matches!(party, Party::Joiner { .. });
        let is_of =
            |met: &(usize, usize, u64)| [(ix, other), (other, ix)].contains(&(met.0, met.1));
        if is_open && carries && !self.met.iter().any(is_of) {
            self.met.push((ix, other, ms / 1_000));
            let now = self.now();
            for (one, two) in [(ix, other), (other, ix)] {
                let node = self.peers[two].core.me;
                assert!(
                    self.peers[one].core.handle_met(now, node),
                    "found by the DHT"
                );
            }
        }
    }

    /// Puts a value as somebody does who has this secret.
    fn plant(&mut self, key: &SlotKey, seq: u64, wheres: &[Where]) {
        let value = slot::seal(key, [1; 24], wheres);
        self.dht.items.insert(key.public(), Item { seq, value });
    }
}

fn last_of(address: Underlay) -> u8 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}

impl Dht {
    fn answer(&mut self, ms: u64, ask: Ask) -> Answer {
        match ask {
            Ask::Get { slot, key } => Answer::Got {
                slot,
                item: self.items.get(&key).cloned(),
            },
            Ask::Put {
                slot,
                seed,
                value,
                seq,
                cas,
            } => {
                let key = crate::keys::NodeKey::from_seed(seed).id().0;
                let had = self.items.get(&key).map(|item| item.seq);
                let outcome =
                    if had.is_some_and(|had| seq < had || cas.is_some_and(|cas| cas != had)) {
                        PutOutcome::Conflict
                    } else {
                        self.puts.push((ms / 1_000, slot, seq));
                        self.items.insert(key, Item { seq, value });
                        PutOutcome::Done
                    };
                Answer::Put { slot, outcome }
            }
            Ask::Nodes => Answer::Nodes((1..9).map(node).collect()),
        }
    }
}

#[test]
fn two_lonely_peers_find_each_other_within_a_minute() {
    for seed in 0..20 {
        let mut world = World::new(vec![peer(1), peer(2)]);
        for (ix, number) in [(0, 1), (1, 2)] {
            world.peers[ix].core = Rendezvous::new(NodeId([number; 32]), [seed * 2 + number; 32]);
        }
        world.give(0, network(&[0], Pace::Lonely));
        world.run(u64::from(seed));
        world.give(1, network(&[0], Pace::Lonely));
        world.run(60);
        assert!(!world.met.is_empty(), "seed {seed}");
    }
}

#[test]
fn two_that_come_back_at_once_and_write_into_one_slot_find_each_other_within_forty_seconds() {
    for seed in 0..20 {
        let mut world = World::new(vec![peer(1), peer(5)]);
        for (ix, number) in [(0, 1), (1, 5)] {
            world.peers[ix].core = Rendezvous::new(NodeId([number; 32]), [seed * 2 + number; 32]);
            world.give(ix, network(&[0], Pace::Lonely));
        }
        world.run(40);
        assert!(!world.met.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_lonely_peer_waits_three_seconds_looks_again_soon_and_then_every_twenty() {
    let mut world = World::new(vec![peer(1)]);
    world.give(0, network(&[0], Pace::Lonely));
    world.run(2);
    assert_eq!(world.peers[0].core.counts(), Counts::default());
    world.run(598);
    let written: Vec<u64> = world.dht.puts.iter().map(|(second, ..)| *second).collect();
    assert!((25..=40).contains(&written.len()), "{written:?}");
    let mut gaps = written.windows(2).map(|pair| pair[1] - pair[0]);
    let first = gaps.next().unwrap();
    assert!((4..=9).contains(&first), "{written:?}");
    assert!(gaps.all(|gap| (14..=26).contains(&gap)), "{written:?}");
    world.run(1_200);
    let later = world.dht.puts.len() - written.len();
    assert!((9..=12).contains(&later), "{later} in 20 min");
    let slots: BTreeSet<SlotName> = world.dht.puts.iter().map(|(_, slot, _)| *slot).collect();
    assert_eq!(slots.len(), 1, "in the slot of its id alone");
}

#[test]
fn both_epochs_are_read_and_written_and_near_midnight_both_days() {
    let mut world = World::new(vec![peer(1)]);
    world.give(0, network(&[3, 4], Pace::Lonely));
    world.run(7);
    assert_eq!(
        (world.peers[0].core.counts().reads, world.dht.puts.len()),
        (8, 2)
    );
    let mut world = World::new(vec![peer(1)]);
    world.ms = (86_400 - 40_000 - 3_600) * 1_000;
    world.give(0, network(&[3], Pace::Lonely));
    world.run(7);
    assert_eq!(
        (world.peers[0].core.counts().reads, world.dht.puts.len()),
        (8, 2)
    );
}

#[test]
fn slots_poisoned_by_one_who_was_excluded_do_not_keep_two_apart() {
    let mut world = World::new(vec![peer(1), peer(2)]);
    let stranger = |number: u8| Where {
        node: NodeId([number; 32]),
        addresses: vec![address(&format!("192.0.2.{number}:9009"))],
        time: START_S + 3_000,
    };
    let liar: Vec<Where> = [1, 2].map(stranger).to_vec();
    let old = NetSecret([3; 32]);
    let day = u32::try_from(START_S / 86_400).unwrap();
    for i in 0..SLOTS {
        world.plant(&old.slot(day, i, 0), i64::MAX.unsigned_abs(), &liar);
        world.plant(&old.slot(day, i, 1), START_S + 3_500, &liar);
    }
    for ix in [0, 1] {
        world.give(ix, network(&[3, 4], Pace::Lonely));
    }
    world.run(90);
    assert!(!world.met.is_empty());
    let false_ones = world.peers.iter().flat_map(|peer| &peer.probes);
    let false_ones = false_ones
        .filter(|(.., to)| to.to_string().starts_with("192.0.2."))
        .count();
    assert!(false_ones <= 50, "{false_ones} datagrams at strangers");
}

#[test]
fn where_only_the_old_epoch_is_known_the_next_generation_is_used() {
    let mut world = World::new(vec![peer(1), peer(2)]);
    let secret = NetSecret([3; 32]);
    let day = u32::try_from(START_S / 86_400).unwrap();
    for i in 0..SLOTS {
        world.plant(&secret.slot(day, i, 0), i64::MAX.unsigned_abs(), &[]);
        world.plant(&secret.slot(day, i, 1), i64::MAX.unsigned_abs(), &[]);
    }
    for ix in [0, 1] {
        world.give(ix, network(&[3], Pace::Lonely));
    }
    world.run(90);
    assert!(!world.met.is_empty());
    let is_second = |(_, slot, _): &(u64, SlotName, u64)| {
        matches!(slot, SlotName::Network { generation: 2, .. })
    };
    assert!(world.dht.puts.iter().all(is_second));
    assert!(world.peers[0].core.counts().poisoned >= 8);
}

#[test]
fn an_issuer_and_a_joiner_meet_within_twenty_seconds() {
    for late in 0..10 {
        let mut world = World::new(vec![peer(1), peer(2)]);
        world.give(0, meeting(Side::Issuer));
        world.run(30 + late);
        world.give(1, meeting(Side::Joiner));
        let begun = world.ms / 1_000;
        world.run(30);
        let (_, _, when) = world.met.first().expect("they met");
        assert!(when - begun <= 20, "after {} s", when - begun);
        let punches = world.peers[0].probes.iter();
        assert!(
            punches
                .clone()
                .all(|(_, party, _)| matches!(party, Party::Joiner { .. }))
        );
    }
}

#[test]
fn an_issuer_whose_clock_is_wrong_by_a_day_is_met_too() {
    let mut world = World::new(vec![peer(1), peer(2)]);
    let key = InviteSecret([9; 16]).slot(0);
    let old = Where {
        node: NodeId([1; 32]),
        addresses: vec![world.peers[0].public],
        time: START_S - 86_400,
    };
    world.plant(&key, START_S - 86_400, std::slice::from_ref(&old));
    world.give(1, meeting(Side::Joiner));
    world.run(5);
    assert!(world.peers[1].probes.is_empty(), "of a day ago");
    let changed = Where {
        time: old.time + 9,
        ..old
    };
    world.plant(&key, START_S - 86_400 + 9, &[changed]);
    world.run(15);
    assert!(
        !world.peers[1].probes.is_empty(),
        "it changed, so he is there"
    );
}

#[test]
fn the_own_side_is_written_at_once_and_every_minute_and_the_other_read_every_ten_seconds() {
    let mut world = World::new(vec![peer(1)]);
    world.give(0, meeting(Side::Issuer));
    world.run(301);
    let written: Vec<u64> = world.dht.puts.iter().map(|(second, ..)| *second).collect();
    assert!(
        written[0] <= 4 && (5..=7).contains(&written.len()),
        "{written:?}"
    );
    let reads = world.peers[0].core.counts().reads - world.peers[0].core.counts().writes;
    assert_eq!(reads, 31);
    world.give(0, Duties::default());
    let before = world.peers[0].core.counts();
    world.run(100);
    assert_eq!(
        world.peers[0].core.counts(),
        before,
        "nothing once it is closed"
    );
    assert_eq!(world.peers[0].core.poll_timeout(), None);
}

#[test]
fn behind_two_hard_nats_each_side_knows_it_of_itself() {
    let mut world = World::new(vec![peer(1), peer(2)]);
    for peer in &mut world.peers {
        peer.is_hard = true;
    }
    world.give(0, meeting(Side::Issuer));
    world.run(10);
    world.give(1, meeting(Side::Joiner));
    world.run(30);
    assert!(world.met.is_empty());
    let seen = world.peers[1].core.seen().expect("the DHT answers");
    assert_eq!(seen.mapping, Mapping::PerDestination);
}

#[test]
fn the_source_of_a_punch_is_tried_by_a_joiner_of_that_invite_alone() {
    let mut world = World::new(vec![peer(1)]);
    let join_id = InviteSecret([9; 16]).join_id();
    let from = address("203.0.113.77:5");
    let now = world.now();
    world.peers[0].core.handle_punch(now, join_id, from);
    world.give(0, meeting(Side::Issuer));
    world.peers[0].core.handle_punch(now, join_id, from);
    world.run(1);
    assert!(world.peers[0].probes.is_empty());
    world.give(0, meeting(Side::Joiner));
    let now = world.now();
    world.peers[0].core.handle_punch(now, join_id, from);
    world.run(3);
    assert_eq!(world.peers[0].probes.len(), 3);
}

#[test]
fn a_write_that_meets_anothers_is_read_merged_and_tried_once_more() {
    let (mut core, now) = (issuer(), at_start(0));
    let slot = own_side();
    assert!(matches!(asks(&mut core)[..], [Ask::Get { .. }]));
    core.handle_answer(now, Answer::Got { slot, item: None }, &|_| true);
    assert!(matches!(
        asks(&mut core)[..],
        [Ask::Put {
            cas: None,
            seq: START_S,
            ..
        }]
    ));
    let conflict = Answer::Put {
        slot,
        outcome: PutOutcome::Conflict,
    };
    core.handle_answer(now, conflict.clone(), &|_| true);
    assert!(matches!(asks(&mut core)[..], [Ask::Get { .. }]));
    let other = Where {
        node: NodeId([2; 32]),
        addresses: Vec::new(),
        time: START_S,
    };
    let key = InviteSecret([9; 16]).slot(0);
    let item = Some(Item {
        seq: START_S + 7,
        value: slot::seal(&key, [1; 24], &[other]),
    });
    core.handle_answer(now, Answer::Got { slot, item }, &|_| true);
    let [
        Ask::Put {
            value, seq, cas, ..
        },
    ] = &asks(&mut core)[..]
    else {
        panic!("it is put again")
    };
    assert_eq!((*seq, *cas), (START_S + 8, Some(START_S + 7)));
    assert_eq!(slot::open(&key, value).unwrap().len(), 2);
    core.handle_answer(now, conflict, &|_| true);
    assert!(asks(&mut core).is_empty(), "once");
    assert_eq!(core.counts().conflicts, 2);
}

#[test]
fn what_is_news_while_a_write_is_on_its_way_is_written_after_it() {
    let (mut core, now) = (issuer(), at_start(0));
    let slot = own_side();
    core.handle_answer(now, Answer::Got { slot, item: None }, &|_| true);
    assert!(matches!(
        asks(&mut core)[..],
        [Ask::Get { .. }, Ask::Put { .. }]
    ));
    let joiner = Where {
        node: NodeId([2; 32]),
        addresses: vec![address("203.0.113.30:41820")],
        time: START_S,
    };
    let item = Some(Item {
        seq: START_S,
        value: slot::seal(&InviteSecret([9; 16]).slot(1), [1; 24], &[joiner]),
    });
    let join_id = InviteSecret([9; 16]).join_id();
    let other_side = SlotName::Invite { join_id, side: 1 };
    core.handle_answer(
        now,
        Answer::Got {
            slot: other_side,
            item,
        },
        &|_| true,
    );
    core.handle_timeout(at_start(6));
    assert!(asks(&mut core).is_empty(), "the first is on its way");
    let stored = Answer::Put {
        slot,
        outcome: PutOutcome::Done,
    };
    core.handle_answer(at_start(7), stored.clone(), &|_| true);
    assert!(matches!(asks(&mut core)[..], [Ask::Get { .. }]));
    core.handle_answer(at_start(7), Answer::Got { slot, item: None }, &|_| true);
    assert!(matches!(asks(&mut core)[..], [Ask::Put { .. }]));
    core.handle_answer(at_start(8), stored, &|_| true);
    assert!(asks(&mut core).is_empty(), "once");
}

/// An issuer with a public address and one open invite, of whom nothing was heard yet.
fn issuer() -> Rendezvous {
    let mut core = Rendezvous::new(NodeId([1; 32]), [1; 32]);
    core.handle_interfaces(at_start(0), &[address("203.0.113.9:41820")]);
    core.handle_duties(at_start(0), meeting(Side::Issuer));
    core.handle_timeout(at_start(0));
    core
}

fn at_start(second: u64) -> Now {
    Now {
        at: Moment(second * 1_000_000),
        unix_ms: (START_S + second) * 1_000,
    }
}

fn own_side() -> SlotName {
    SlotName::Invite {
        join_id: InviteSecret([9; 16]).join_id(),
        side: 0,
    }
}

/// What the DHT is asked of the own side.
fn asks(core: &mut Rendezvous) -> Vec<Ask> {
    let mut asks = Vec::new();
    while let Some(output) = core.poll_output() {
        if let Output::Ask(ask @ (Ask::Get { slot: of, .. } | Ask::Put { slot: of, .. })) = output
            && of == own_side()
        {
            asks.push(ask);
        }
    }
    asks
}

#[test]
fn what_nobody_of_ours_wrote_is_written_over() {
    let mut world = World::new(vec![peer(1)]);
    let key = InviteSecret([9; 16]).slot(0);
    let value = vec![7; 20];
    world.dht.items.insert(
        key.public(),
        Item {
            seq: START_S,
            value,
        },
    );
    world.give(0, meeting(Side::Issuer));
    world.run(10);
    assert_eq!(world.peers[0].core.counts().unreadable, 1);
    assert_eq!(
        slot::open(&key, &world.dht.items[&key.public()].value)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_watcher_goes_round_once_a_minute_and_finds_who_is_lonely() {
    let mut world = World::new(vec![peer(1), peer(2)]);
    world.give(0, network(&[0], Pace::Watching));
    world.run(59);
    assert_eq!(world.peers[0].core.counts(), Counts::default());
    world.give(1, network(&[0], Pace::Lonely));
    world.run(100);
    assert!(!world.met.is_empty());
    world.give(1, Duties::default());
    let before = world.dht.puts.len();
    world.run(600);
    assert!((9..=11).contains(&(world.dht.puts.len() - before)));
}

#[test]
fn of_many_dialable_peers_each_slot_is_written_about_once_in_45_minutes() {
    let writers: u8 = 20;
    let mut world = World::new((1..=writers).map(peer).collect());
    for ix in 0..usize::from(writers) {
        let pace = Pace::Dialable {
            writers: u32::from(writers),
            surveys: ix == 0,
        };
        world.give(ix, network(&[0], pace));
    }
    world.run(10 * 45 * 60);
    let written = world.dht.puts.len();
    assert!(
        (20..=60).contains(&written),
        "{written} in ten times 45 min"
    );
    let reads = world
        .peers
        .iter()
        .map(|peer| peer.core.counts().reads - peer.core.counts().writes);
    let reads: Vec<u64> = reads.collect();
    assert!((4..=8).contains(&reads[0]) && reads[1..].iter().all(|reads| *reads == 0));
}
