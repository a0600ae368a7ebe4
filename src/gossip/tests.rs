//! Many peers' gossip in one process, on links that lose messages.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    hash::{Use, hash, short},
    ids::{Boot, SessionId},
    wire::{
        message::Records,
        record::{Body, Draft, Epoch, Lease, Revoke},
    },
};

const SECOND: u64 = 1_000_000;

fn at(micros: u64) -> Now {
    Now {
        at: Moment(micros),
        unix_ms: micros / 1000,
    }
}

fn signed(seq: u64, subject: u8, signer: u8, body: Body) -> Record {
    let draft = Draft {
        seq,
        subject: [subject; 32],
        signer: [signer; 32],
        body,
    };
    draft.sign_with(|_| [0; 64]).unwrap()
}

fn lease(seq: u64, subject: [u8; 32]) -> Record {
    let body = Body::Lease(Lease {
        incarnation: Boot([1; 8]),
        expires: 9,
        left: false,
    });
    let signer = subject;
    let draft = Draft {
        seq,
        subject,
        signer,
        body,
    };
    draft.sign_with(|_| [0; 64]).unwrap()
}

fn revoke(seq: u64, signer: u8) -> Record {
    signed(seq, 66, signer, Body::Revoke(Revoke { since: seq }))
}

fn epoch(n: u32) -> Record {
    let secret = [9; 32];
    signed(1, 200, 201, Body::Epoch(Epoch { n, secret }))
}

fn subject(n: u32) -> [u8; 32] {
    hash(Use::Record, &[&n.to_le_bytes()])
}

/// A store that takes whatever is newer.
#[derive(Clone, Debug, Default)]
struct Shop(BTreeMap<Slot, Record>);

impl Shop {
    /// Whether the record won its slot.
    fn take(&mut self, record: &Record) -> bool {
        let is_newer = self
            .0
            .get(&record.slot())
            .is_none_or(|held| held.version() < record.version());
        if is_newer {
            self.0.insert(record.slot(), record.clone());
        }
        is_newer
    }
}

impl Shelf for Shop {
    fn holds(&self, slot: Slot) -> Option<(Version, Kind)> {
        self.0
            .get(&slot)
            .map(|record| (record.version(), record.kind()))
    }

    fn record(&self, slot: Slot) -> Option<Record> {
        self.0.get(&slot).cloned()
    }

    fn is_offered(&self, _slot: Slot) -> bool {
        true
    }

    fn sums(&self) -> Box<[u8; 1024]> {
        let mut sums = [0_u128; 64];
        for (slot, record) in &self.0 {
            let digest: [u8; 16] =
                short(Use::Digest, &[&slot.0, &record.version().0.to_le_bytes()]);
            let sum = &mut sums[usize::from(slot.0[0] >> 2)];
            *sum = sum.wrapping_add(u128::from_le_bytes(digest));
        }
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Box::new(bytes.try_into().unwrap())
    }

    fn digest16(&self) -> [u8; 16] {
        short(Use::Digest, &[&self.sums()[..]])
    }

    fn bucket(&self, bucket: u8) -> Vec<(Slot, Version)> {
        let versions = self
            .0
            .iter()
            .map(|(slot, record)| (*slot, record.version()));
        versions
            .filter(|(slot, _)| slot.0[0] >> 2 == bucket)
            .collect()
    }
}

/// Peers, the links between them, and what is on its way.
struct World {
    now: u64,
    peers: Vec<(Gossip, Shop)>,
    on_the_way: BTreeMap<(u64, u64), (usize, usize, Message)>,
    sent: u64,
    rng: ChaCha8Rng,
    /// Of 100 messages so many are lost.
    loss: u32,
    latency: u64,
    /// Everything said: when, by whom, to whom.
    said: Vec<(u64, usize, usize, Message)>,
    /// Wakes everyone so often besides their own deadlines.
    nudge: Option<u64>,
}

fn ix(peer: usize) -> PeerIx {
    PeerIx(u32::try_from(peer).unwrap())
}

impl World {
    fn new(peers: usize) -> Self {
        let gossip = |n: usize| Gossip::new([u8::try_from(n).unwrap(); 32]);
        Self {
            now: SECOND,
            peers: (0..peers).map(|n| (gossip(n), Shop::default())).collect(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            rng: ChaCha8Rng::from_seed([7; 32]),
            loss: 0,
            latency: 20_000,
            said: Vec::new(),
            nudge: None,
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        let digests = [self.peers[b].1.digest16(), self.peers[a].1.digest16()];
        for ((peer, other), digest) in [(a, b), (b, a)].into_iter().zip(digests) {
            let (gossip, shop) = &mut self.peers[peer];
            let kind = LinkKind::Full;
            gossip.handle_linked(at(self.now), ix(other), Linked { kind, digest }, shop);
            self.drain(peer);
        }
    }

    /// A random tree and as many edges again.
    fn link_at_random(&mut self) {
        let count = self.peers.len();
        for peer in 1..count {
            let other = self.draw(peer);
            self.link(peer, other);
            let far = self.draw(count);
            if far != peer && far != other {
                self.link(peer, far);
            }
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        usize::try_from(self.rng.next_u32()).unwrap() % below
    }

    fn publish(&mut self, peer: usize, record: &Record, spread: Spread) {
        self.store(peer, record, spread, None);
        self.drain(peer);
    }

    fn store(&mut self, peer: usize, record: &Record, spread: Spread, from: Option<PeerIx>) {
        let (gossip, shop) = &mut self.peers[peer];
        let (slot, version, kind) = (record.slot(), record.version(), record.kind());
        if shop.take(record) {
            let stored = Stored {
                slot,
                version,
                kind,
                spread,
                from,
            };
            gossip.handle_stored(at(self.now), stored, shop);
        } else if let Some(from) = from {
            gossip.handle_lost(at(self.now), from, slot, version);
        }
    }

    fn drain(&mut self, peer: usize) {
        while let Some((to, message)) = self.peers[peer].0.poll_output() {
            let to = usize::try_from(to.0).unwrap();
            self.said.push((self.now, peer, to, message.clone()));
            self.sent += 1;
            if self.rng.next_u32() % 100 >= self.loss {
                let arrival = self.now + self.latency;
                self.on_the_way
                    .insert((arrival, self.sent), (peer, to, message));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let (now, sender) = (at(self.now), ix(from));
        if let Message::Records(Records { records }) = &message {
            for bytes in records {
                let record = Record::decode(bytes).unwrap();
                let is_urgent = matches!(record.kind(), Kind::Revoke | Kind::Epoch);
                let spread = if is_urgent {
                    Spread::Urgent
                } else {
                    Spread::Calm
                };
                self.store(to, &record, spread, Some(sender));
            }
        }
        let (gossip, shop) = &mut self.peers[to];
        if let Message::Advert(advert) = &message {
            gossip.handle_advert(now, sender, advert, shop);
        } else if let Message::Want(want) = &message {
            gossip.handle_want(now, sender, want, shop);
        } else if let Message::Digest(digest) = &message {
            gossip.handle_digest(now, sender, digest, shop);
        } else if let Message::Slots(slots) = &message {
            gossip.handle_slots(now, sender, slots, shop);
        }
        self.drain(to);
    }

    fn run_until(&mut self, end: u64) {
        loop {
            let arrival = self
                .on_the_way
                .first_key_value()
                .map(|((when, _), _)| *when);
            let wakes = self
                .peers
                .iter()
                .filter_map(|(gossip, _)| gossip.poll_timeout());
            let nudge = self.nudge.map(|every| (self.now / every + 1) * every);
            let times = wakes.map(|moment| moment.0).chain(arrival).chain(nudge);
            let Some(next) = times.min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(first) = self
                .on_the_way
                .first_entry()
                .filter(|entry| entry.key().0 <= next)
            {
                let (from, to, message) = first.remove();
                self.deliver(from, to, message);
            }
            for peer in 0..self.peers.len() {
                let is_due = self.peers[peer]
                    .0
                    .poll_timeout()
                    .is_some_and(|due| due.0 <= self.now);
                if is_due || self.nudge.is_some() {
                    let (gossip, shop) = &mut self.peers[peer];
                    gossip.handle_timeout(at(self.now), shop);
                    self.drain(peer);
                }
            }
        }
    }

    fn run_for(&mut self, micros: u64) {
        self.run_until(self.now + micros);
    }

    fn held(&self) -> Vec<usize> {
        self.peers.iter().map(|(_, shop)| shop.0.len()).collect()
    }

    fn digests(&self) -> BTreeSet<[u8; 16]> {
        self.peers.iter().map(|(_, shop)| shop.digest16()).collect()
    }

    fn said_by(&self, peer: usize) -> impl Iterator<Item = &Message> {
        self.said
            .iter()
            .filter(move |(_, by, ..)| *by == peer)
            .map(|(.., message)| message)
    }
}

/// Thirty peers; 120 records in the first ten seconds, then as many updates.
fn busy_world(loss: u32, nudge: Option<u64>) -> World {
    let mut world = World::new(30);
    world.loss = loss;
    world.nudge = nudge;
    world.link_at_random();
    for seq in 1..=2 {
        for n in 0..120 {
            let record = lease(seq, subject(n));
            world.publish(usize::try_from(n).unwrap() % 30, &record, Spread::Calm);
            world.run_for(SECOND / 12);
        }
    }
    world
}

#[test]
fn thirty_peers_on_lossy_links_come_to_hold_the_same() {
    let mut world = busy_world(15, None);
    world.run_for(30 * SECOND);
    let held: usize = world.held().iter().sum();
    assert!(
        held * 100 >= 30 * 120 * 99,
        "{held} of 3600 after half a minute"
    );
    world.run_for(1500 * SECOND);
    assert_eq!(world.held(), vec![120; 30]);
    assert_eq!(
        world.digests().len(),
        1,
        "after two digest rounds nobody holds anything else"
    );
    assert!(
        world
            .said
            .iter()
            .all(|(.., message)| pack::weight(message) <= 1232)
    );
}

#[test]
fn waking_only_at_deadlines_and_waking_all_the_time_say_the_same() {
    let calm = busy_world(10, None);
    let nudged = busy_world(10, Some(SECOND / 10));
    assert!(calm.said.len() > 1000);
    assert!(calm.said == nudged.said);
}

#[test]
fn peers_whose_digests_agree_say_nothing() {
    let mut world = World::new(2);
    world.link(0, 1);
    assert_eq!(world.peers[0].0.poll_synced(), Some(ix(1)));
    assert!(world.peers[0].0.is_synced(ix(1)));
    world.run_for(500 * SECOND);
    assert!(world.said.is_empty());
}

#[test]
fn a_newcomer_holds_all_within_the_rate_and_knows_when() {
    let mut world = World::new(2);
    for n in 0..5000 {
        world.publish(0, &lease(1, subject(n)), Spread::Calm);
    }
    world.link(0, 1);
    let begun = world.now;
    let mut took = None;
    for second in 1..=60 {
        world.run_for(SECOND);
        if took.is_none() && world.peers[1].0.is_synced(ix(0)) {
            took = Some(second);
            assert!(world.held()[1] >= 4096, "synced with {}", world.held()[1]);
        }
    }
    assert!(took.is_some());
    assert_eq!(world.held(), vec![5000; 2]);
    let from = world.said.iter().filter(|(_, by, ..)| *by == 0);
    let mut bytes = 0;
    for (when, .., message) in from {
        bytes += pack::weight(message) as u64;
        assert!(bytes * SECOND <= 65_536 * (when - begun + SECOND));
    }
}

#[test]
fn changes_share_adverts_first_after_100_ms_then_one_every_2_s() {
    let mut world = World::new(2);
    world.link(0, 1);
    let begun = world.now;
    for n in 0..100 {
        world.publish(0, &lease(1, subject(n)), Spread::Calm);
        world.run_for(SECOND / 10);
    }
    world.run_for(10 * SECOND);
    let adverts: Vec<u64> = world
        .said
        .iter()
        .filter(|(_, by, _, message)| *by == 0 && matches!(message, Message::Advert(_)))
        .map(|(when, ..)| *when)
        .collect();
    assert_eq!(adverts[0], begun + 100_000);
    assert!(
        adverts
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= 2 * SECOND)
    );
    assert_eq!(world.held(), vec![100; 2]);
}

#[test]
fn a_revoke_and_its_epoch_go_out_at_once_in_one_message_revoke_first() {
    let mut world = World::new(3);
    world.link(0, 1);
    world.link(1, 2);
    world.store(0, &epoch(1), Spread::Urgent, None);
    world.store(0, &revoke(5, 200), Spread::Urgent, None);
    world.drain(0);
    let wanted = Message::Records(Records {
        records: vec![revoke(5, 200).bytes().to_vec(), epoch(1).bytes().to_vec()],
    });
    assert_eq!(world.said, vec![(world.now, 0, 1, wanted.clone())]);
    world.run_for(SECOND / 20);
    assert_eq!(world.held(), vec![2; 3], "one hop takes one latency");
    assert_eq!(
        world.said[1].3, wanted,
        "passed on as one message, and not sent back"
    );
}

#[test]
fn a_leaf_is_sent_revokes_and_epochs_and_nothing_else() {
    let mut world = World::new(2);
    world.publish(0, &lease(1, subject(1)), Spread::Calm);
    let (kind, digest) = (LinkKind::Leaf, [0; 16]);
    let (gossip, shop) = &mut world.peers[0];
    gossip.handle_linked(at(world.now), ix(1), Linked { kind, digest }, shop);
    world.publish(0, &lease(2, subject(1)), Spread::Urgent);
    world.publish(0, &lease(2, subject(2)), Spread::Calm);
    world.publish(0, &revoke(5, 200), Spread::Urgent);
    world.run_for(1500 * SECOND);
    let said: Vec<&Message> = world.said_by(0).collect();
    let records = vec![revoke(5, 200).bytes().to_vec()];
    assert_eq!(said, vec![&Message::Records(Records { records })]);
}

fn wants(gossip: &mut Gossip) -> Vec<Slot> {
    let mut slots = Vec::new();
    while let Some((_, message)) = gossip.poll_output() {
        if let Message::Want(want) = message {
            slots.extend(want.slots);
        }
    }
    slots
}

fn linked_alone() -> (Gossip, Shop) {
    let (mut gossip, shop) = (Gossip::new([1; 32]), Shop::default());
    for peer in [1, 2] {
        let (kind, digest) = (LinkKind::Full, shop.digest16());
        gossip.handle_linked(at(0), ix(peer), Linked { kind, digest }, &shop);
    }
    (gossip, shop)
}

fn advert(record: &Record) -> Advert {
    Advert {
        entries: vec![(record.slot(), record.version())],
    }
}

#[test]
fn only_what_is_newer_is_pulled_and_any_difference_where_others_sign() {
    let (mut gossip, mut shop) = linked_alone();
    for held in [lease(5, [1; 32]), revoke(5, 200)] {
        shop.take(&held);
    }
    for (offered, is_pulled) in [
        (lease(4, [1; 32]), false),
        (lease(5, [1; 32]), false),
        (lease(6, [1; 32]), true),
        (revoke(5, 200), false),
        (revoke(4, 200), true),
    ] {
        gossip.handle_advert(at(1), ix(1), &advert(&offered), &shop);
        let expected: Vec<Slot> = is_pulled.then(|| offered.slot()).into_iter().collect();
        assert_eq!(wants(&mut gossip), expected);
    }
}

#[test]
fn what_lost_is_not_asked_for_again_on_that_link_for_10_min_but_a_newer_one_is() {
    let (mut gossip, mut shop) = linked_alone();
    shop.take(&revoke(5, 200));
    let (old, other) = (revoke(3, 200), revoke(4, 200));
    gossip.handle_advert(at(1), ix(1), &advert(&old), &shop);
    assert_eq!(wants(&mut gossip), vec![old.slot()]);
    gossip.handle_lost(at(2), ix(1), old.slot(), old.version());
    gossip.handle_advert(at(3), ix(1), &advert(&old), &shop);
    assert_eq!(wants(&mut gossip), vec![]);
    gossip.handle_advert(at(4), ix(1), &advert(&other), &shop);
    assert_eq!(wants(&mut gossip), vec![other.slot()]);
    gossip.handle_lost(at(5), ix(1), other.slot(), other.version());
    gossip.handle_advert(at(5 + 600 * SECOND), ix(1), &advert(&other), &shop);
    assert_eq!(wants(&mut gossip), vec![other.slot()]);
}

#[test]
fn a_record_is_asked_of_one_link_and_of_another_when_it_does_not_come() {
    let (mut gossip, shop) = linked_alone();
    let record = lease(1, [1; 32]);
    gossip.handle_advert(at(1), ix(1), &advert(&record), &shop);
    gossip.handle_advert(at(1), ix(2), &advert(&record), &shop);
    assert_eq!(wants(&mut gossip).len(), 1);
    let due = gossip.poll_timeout().unwrap();
    gossip.handle_timeout(at(due.0), &shop);
    assert_eq!(wants(&mut gossip).len(), 1);
    gossip.handle_unlinked(ix(1));
    gossip.handle_timeout(at(due.0 + 1), &shop);
    gossip.handle_unlinked(ix(2));
    assert_eq!(gossip.poll_timeout(), None);
}

#[test]
fn what_does_not_come_is_looked_for_again_in_seconds_and_what_nobody_tells_is_told_again() {
    let mut world = World::new(2);
    world.link(0, 1);
    world.run_for(SECOND);
    world.loss = 25;
    for n in 0..50 {
        world.publish(0, &lease(1, subject(n)), Spread::Calm);
        world.run_for(SECOND);
    }
    world.run_for(60 * SECOND);
    assert_eq!(world.held(), vec![50; 2]);
}

#[test]
fn a_big_table_over_a_lossy_line_is_held_within_its_rate_and_not_begun_again_and_again() {
    let mut world = World::new(2);
    for n in 0..12_000 {
        world.store(0, &lease(1, subject(n)), Spread::Calm, None);
    }
    world.loss = 2;
    world.link(0, 1);
    world.run_for(90 * SECOND);
    assert_eq!(world.held(), vec![12_000; 2]);
    let digests = world
        .said
        .iter()
        .filter(|said| matches!(said.3, Message::Digest(_)));
    let digests: Vec<u64> = digests.map(|said| said.0 / SECOND).collect();
    assert!(digests.len() < 40, "{digests:?}");
}

#[test]
fn a_link_that_advertises_what_it_does_not_give_is_asked_ever_more_rarely() {
    let (mut gossip, shop) = (Gossip::new([1; 32]), Shop::default());
    let (kind, digest) = (LinkKind::Full, shop.digest16());
    gossip.handle_linked(at(0), ix(1), Linked { kind, digest }, &shop);
    let mut digests = 0;
    for second in 1..3_600 {
        let now = at(second * SECOND);
        gossip.handle_advert(now, ix(1), &advert(&lease(second, [1; 32])), &shop);
        gossip.handle_timeout(now, &shop);
        while let Some((_, message)) = gossip.poll_output() {
            if matches!(message, Message::Digest(_)) {
                digests += 1;
                let sums = shop.sums();
                gossip.handle_digest(now, ix(1), &Digest { sums }, &shop);
            }
        }
    }
    assert!((3..=20).contains(&digests), "{digests}");
}

#[test]
fn a_link_that_names_what_it_does_not_give_is_asked_ever_more_rarely() {
    let (mut gossip, shop) = (Gossip::new([1; 32]), Shop::default());
    let (kind, digest) = (LinkKind::Full, shop.digest16());
    gossip.handle_linked(at(0), ix(1), Linked { kind, digest }, &shop);
    let mut other = Shop::default();
    other.take(&lease(1, [1; 32]));
    let record = lease(1, [1; 32]);
    gossip.handle_advert(at(1), ix(1), &advert(&record), &shop);
    let mut digests = Vec::new();
    while let Some(due) = gossip.poll_timeout().filter(|due| due.0 < 3_600 * SECOND) {
        gossip.handle_timeout(at(due.0), &shop);
        while let Some((_, message)) = gossip.poll_output() {
            if matches!(message, Message::Digest(_)) {
                digests.push(due.0 / SECOND);
                let sums = other.sums();
                gossip.handle_digest(at(due.0), ix(1), &Digest { sums }, &shop);
                let slots = Slots {
                    bucket: u64::from(record.slot().0[0] >> 2),
                    part: 0,
                    last: 0,
                    entries: vec![(record.slot(), record.version())],
                };
                gossip.handle_slots(at(due.0), ix(1), &slots, &shop);
            }
        }
    }
    assert!(digests[0] < 30, "{digests:?}");
    assert!((8..=16).contains(&digests.len()), "{digests:?}");
}

#[test]
fn late_digests_do_not_answer_each_other_for_ever() {
    let mut world = World::new(2);
    world.latency = 4 * SECOND;
    world.publish(0, &lease(1, subject(1)), Spread::Calm);
    world.link(0, 1);
    world.run_for(500 * SECOND);
    let digests = world
        .said
        .iter()
        .filter(|(.., message)| matches!(message, Message::Digest(_)));
    assert!(digests.count() <= 30);
    assert_eq!(world.digests().len(), 1);
}

#[test]
fn strangers_and_floods_change_nothing_and_take_bounded_room() {
    let (mut gossip, shop) = linked_alone();
    let entries = |from: u32| {
        (from..from + 64).map(|n| (Slot(short(Use::Slot, &[&n.to_le_bytes()])), Version(1)))
    };
    gossip.handle_advert(
        at(1),
        ix(9),
        &Advert {
            entries: entries(0).collect(),
        },
        &shop,
    );
    assert!(wants(&mut gossip).is_empty());
    assert_eq!(gossip.counters().not_linked, 1);
    for round in 0..200 {
        let entries = entries(round * 64).collect();
        gossip.handle_advert(at(2), ix(1), &Advert { entries }, &shop);
    }
    assert_eq!(wants(&mut gossip).len(), 64);
    assert!(gossip.counters().overflowed > 0);
}

#[test]
fn an_answer_keeps_to_the_body_it_may_have_and_says_who_may_sign_first() {
    let mut shop = Shop::default();
    let mut records: Vec<Record> = (0..20).map(|n| lease(1, subject(n))).collect();
    records.push(revoke(5, 200));
    for record in &records {
        shop.take(record);
    }
    let want = Want {
        slots: records.iter().rev().map(Record::slot).collect(),
    };
    let mut kinds = Vec::new();
    for message in pack::answer(&want, 960, &shop) {
        assert!(message.body().len() <= 960);
        let Message::Records(Records { records }) = message else {
            panic!("an answer holds nothing but records");
        };
        kinds.extend(
            records
                .iter()
                .map(|bytes| Record::decode(bytes).unwrap().kind()),
        );
    }
    assert_eq!(kinds.len(), 21);
    assert!(kinds.is_sorted());
}

#[test]
fn a_session_that_is_no_link_is_answered_as_far_as_its_budget_goes() {
    let mut shop = Shop::default();
    let records: Vec<Record> = (0..60).map(|n| lease(1, subject(n))).collect();
    for record in &records {
        shop.take(record);
    }
    let want = Want {
        slots: records.iter().map(Record::slot).collect(),
    };
    let mut unlinked = Unlinked::default();
    let pair = |peer| SessionId::Pair(ix(peer));
    let mut said = |session, now: Moment| -> (usize, usize) {
        let answer = unlinked.answer(now, session, (&want, 1100), &shop);
        let bytes = answer.messages.iter().map(pack::weight).sum();
        (bytes, answer.withheld)
    };
    let (bytes, withheld) = said(pair(1), at(0).at);
    assert!(bytes > 8000 && withheld == 0, "one question has its answer");
    let mut all = bytes;
    for _ in 0..100 {
        let (bytes, withheld) = said(pair(1), at(0).at);
        all += bytes;
        assert!(withheld > 0 || all <= 16 << 10);
    }
    assert!(all <= 16 << 10, "{all} bytes at once");
    assert_eq!(said(pair(2), at(0).at), (bytes, 0), "others have their own");
    assert_eq!(
        said(pair(1), at(SECOND).at),
        (bytes, 0),
        "and time brings more"
    );
}
