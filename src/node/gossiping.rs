//! Records come and go (protocol §7): each is decoded, its signature and authority judged, then it competes for its
//! slot; what wins is kept, told to the cores it concerns, and spread.

use std::collections::BTreeSet;

use crate::{
    gossip::{Shelf, Spread},
    ids::{NodeId, PeerIx, SessionId, Slot, Version},
    keys::{Word, verify},
    members::Verdict,
    node::{
        Node, Timer,
        output::{Notice, Output, Write},
        talking::Goodbye,
    },
    registry::{Offered, Registry},
    time::Now,
    wire::{
        message::Message,
        record::{Body, Kind, Record},
    },
};

/// Signature checks of one turn: at about 50 µs each they stay below 2 ms (design §5).
const VERIFIED_PER_TURN: usize = 32;
/// Records that may wait for their check; more are dropped, and the next digest round brings them again.
const WAITING: usize = 4096;
/// A body of Records, outside and inside a join session (protocol §0, §9).
pub(super) const RECORDS_BODY: usize = 1100;
pub(super) const JOIN_RECORDS_BODY: usize = 960;

/// A record that waits for its signature check.
#[derive(Clone, Debug)]
pub(super) struct Unverified {
    record: Record,
    from: Option<PeerIx>,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This machine made it.
    Own,
    /// It stood on this machine's disk.
    Disk,
    /// A peer, over a session or in a Knock.
    Network(Option<PeerIx>),
}

/// The registry as gossip sees it.
pub(super) struct RegistryShelf<'a> {
    registry: &'a Registry,
    mesh_s: u64,
}

impl<'a> RegistryShelf<'a> {
    pub(super) fn new(registry: &'a Registry, mesh_s: u64) -> Self {
        Self { registry, mesh_s }
    }
}

impl Shelf for RegistryShelf<'_> {
    fn holds(&self, slot: Slot) -> Option<(Version, Kind)> {
        self.registry.holds(slot)
    }

    fn record(&self, slot: Slot) -> Option<Record> {
        self.registry.get(slot).cloned()
    }

    fn offered(&self, slot: Slot) -> bool {
        self.registry.is_offered(slot, self.mesh_s)
    }

    fn sums(&self) -> Box<[u8; 1024]> {
        self.registry.digest_sums(self.mesh_s)
    }

    fn digest16(&self) -> [u8; 16] {
        self.registry.digest16(self.mesh_s)
    }

    fn bucket(&self, bucket: u8) -> Vec<(Slot, Version)> {
        self.registry.bucket_entries(bucket, self.mesh_s)
    }
}

impl Node {
    pub(super) fn on_gossip(&mut self, now: Now, peer: PeerIx, message: Message) {
        let shelf = RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now));
        match message {
            Message::Records(records) => {
                for bytes in records.records {
                    self.enqueue(&bytes, Some(peer));
                }
            }
            Message::Advert(advert) => self.gossip.handle_advert(now, peer, &advert.entries, &shelf),
            Message::Digest(digest) => self.gossip.handle_digest(now, peer, &digest.sums, &shelf),
            Message::Slots(slots) => self.gossip.handle_slots(now, peer, &slots, &shelf),
            Message::Want(want) => {
                for answer in crate::gossip::answer(&want.slots, &shelf, RECORDS_BODY) {
                    self.send(SessionId::Pair(peer), answer);
                }
            }
            Message::Granted(granted) => {
                let slots = granted.slots.into_iter().filter(|slot| self.registry.holds(*slot).is_none()).collect();
                self.send(SessionId::Pair(peer), Message::Want(crate::wire::message::Want { slots }));
            }
            _ => self.counters.count("message_unused"),
        }
    }

    fn enqueue(&mut self, bytes: &[u8], from: Option<PeerIx>) {
        let Ok(record) = Record::decode(bytes) else {
            return self.counters.count("record_malformed");
        };
        if self.registry.is_known(&record) {
            return;
        }
        if self.unverified.len() >= WAITING {
            return self.counters.count("record_queue_full");
        }
        self.unverified.push_back(Unverified { record, from });
    }

    /// Verifies what waits, as much as one turn may take.
    pub(super) fn verify_some(&mut self, now: Now) {
        for _ in 0..VERIFIED_PER_TURN {
            let Some(next) = self.unverified.pop_front() else {
                return;
            };
            self.take_from_network(now, next.record, next.from);
        }
        if !self.unverified.is_empty() {
            self.timers.set(Timer::Verify, now.at);
        }
    }

    /// Takes the few records of a Knock at once, before it is judged.
    pub(super) fn take_records_now(&mut self, now: Now, records: &[Vec<u8>]) {
        for bytes in records.iter().take(3) {
            match Record::decode(bytes) {
                Ok(record) if !self.registry.is_known(&record) => self.take_from_network(now, record, None),
                Ok(_) => {}
                Err(_) => self.counters.count("record_malformed"),
            }
        }
    }

    fn take_from_network(&mut self, now: Now, record: Record, from: Option<PeerIx>) {
        if !self.is_signed(&record) {
            return self.counters.count("record_signature");
        }
        if record.node() == self.me && record.signer() == self.me {
            return self.on_echo(now, &record);
        }
        self.take(now, record, Origin::Network(from));
    }

    pub(super) fn take_own(&mut self, now: Now, record: Record) {
        self.take(now, record, Origin::Own);
    }

    fn is_signed(&self, record: &Record) -> bool {
        verify(record.signer(), Word::Record, &self.network.0, &[record.signed_bytes()], &record.signature())
    }

    fn take(&mut self, now: Now, record: Record, origin: Origin) {
        let body = match record.body() {
            Ok(body) => body,
            Err(_) => Body::Opaque,
        };
        if let Body::Peer(peer) = &body
            && origin != Origin::Own
            && !self.is_cross_signed(record.node(), peer)
        {
            return self.counters.count("record_cross_signature");
        }
        let rank = match self.members.judge(&record) {
            Verdict::Allowed(rank) => rank,
            Verdict::SignerUnknown => return self.registry.put_aside(record, now.at),
            Verdict::Refused(refused) => return self.on_refused(now, &record, refused.label(), origin),
        };
        let mesh_s = self.mesh_s(now);
        match self.registry.offer(now, mesh_s, record.clone(), rank.into()) {
            Offered::Taken { replaced } => self.on_taken(now, &record, &body, replaced.as_ref(), origin),
            Offered::Known => {}
            Offered::Older => self.on_refused(now, &record, "record_older", origin),
            Offered::Refused(refused) => self.on_refused(now, &record, refused.label(), origin),
        }
    }

    fn is_cross_signed(&self, node: NodeId, peer: &crate::wire::record::Peer) -> bool {
        verify(NodeId(peer.tunnel), Word::Tunnel, &self.network.0, &[&node.0], &peer.cross)
    }

    fn on_refused(&mut self, now: Now, record: &Record, label: &'static str, origin: Origin) {
        self.counters.count(label);
        if let Origin::Network(Some(peer)) = origin {
            self.gossip.handle_lost(now, peer, record.slot());
        }
    }

    fn on_taken(&mut self, now: Now, record: &Record, body: &Body, replaced: Option<&Record>, origin: Origin) {
        if let Some(old) = replaced {
            self.members.forget(old);
        }
        let before = self.members.address_book(record.node());
        self.members.apply(record, body);
        if origin != Origin::Disk {
            self.outbox.push_back(Output::Persist { ticket: None, write: Write::Record(record.clone()) });
            let from = match origin {
                Origin::Network(from) => from,
                Origin::Own | Origin::Disk => None,
            };
            let spread = if is_urgent(body) { Spread::Urgent } else { Spread::Calm };
            let shelf = RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now));
            self.gossip.handle_stored(now, record, spread, from, &shelf);
        }
        self.publication.stale = true;
        self.on_fact(now, record, body);
        let after = self.members.address_book(record.node());
        if before != after {
            self.on_address_change(now, record.node());
        }
        self.schedule_expiry(now);
    }

    /// Tells the other cores what a new record means for them.
    fn on_fact(&mut self, now: Now, record: &Record, body: &Body) {
        match body {
            Body::Admin(_) | Body::Network(_) => self.retry_aside(now),
            Body::Revoke(_) => self.on_revoked(now, record.node()),
            Body::Lease(_) | Body::Member(_) | Body::Peer(_) => self.review_peer(now, record.node()),
            Body::Heartbeat(heartbeat) => self.mesh_time.raise_floor(heartbeat.time),
            Body::Epoch(_) | Body::Service(_) | Body::Invite(..) | Body::Opaque => {}
        }
        match body {
            Body::Network(network) => self.mesh_time.raise_floor(network.created),
            Body::Member(member) => self.mesh_time.raise_floor(member.admitted_at),
            _ => {}
        }
    }

    fn retry_aside(&mut self, now: Now) {
        for record in self.registry.take_aside(now.at) {
            self.take(now, record, Origin::Network(None));
        }
    }

    fn on_revoked(&mut self, now: Now, node: NodeId) {
        if node == self.me {
            self.notice(Notice::Revoked);
        }
        for record in self.members.voided_by(node) {
            self.registry.remove(record);
        }
        if let Some(peer) = self.ids.find(node) {
            if self.pairs.contains_key(&peer) {
                self.close_pair(now, peer, Goodbye::Revoked);
            }
            self.review_peer(now, node);
        }
    }

    /// A record of ours that we do not hold: publish above it, or a tombstone (protocol §7).
    fn on_echo(&mut self, now: Now, echo: &Record) {
        let Some(held) = self.registry.get(echo.slot()).cloned() else {
            return self.bury(now, echo);
        };
        if echo.version() <= held.version() {
            return;
        }
        if let Ok(body) = held.body() {
            let draft = crate::wire::record::Draft { seq: echo.seq() + 1, subject: self.me.0, signer: self.me.0, body };
            let record = self.sign(&draft);
            self.take_own(now, record);
        }
    }

    fn bury(&mut self, now: Now, echo: &Record) {
        let Ok(Body::Service(mut service)) = echo.body() else {
            return self.counters.count("record_echo");
        };
        service.ports.clear();
        let draft = crate::wire::record::Draft {
            seq: echo.seq() + 1,
            subject: self.me.0,
            signer: self.me.0,
            body: Body::Service(service),
        };
        let record = self.sign(&draft);
        self.take_own(now, record);
    }

    /// Puts the records of this machine's disk where they were, certificates before what stands on them.
    pub(super) fn restore_records(&mut self, now: Now, mut records: Vec<Record>) {
        records.sort_by_key(|record| restore_order(record.kind()));
        for record in records {
            self.take(now, record, Origin::Disk);
        }
    }

    pub(super) fn schedule_expiry(&mut self, now: Now) {
        match self.registry.next_expiry() {
            Some(expires_s) => {
                let wait_s = expires_s.saturating_sub(self.mesh_s(now)).clamp(1, 3600);
                self.timers.set(Timer::Expire, now.at.after(std::time::Duration::from_secs(wait_s)));
            }
            None => self.timers.clear(&Timer::Expire),
        }
    }

    pub(super) fn expire_records(&mut self, now: Now) {
        let mesh_s = self.mesh_s(now);
        let ended = self.registry.expire(mesh_s, now.at);
        let mut nodes = BTreeSet::new();
        for record in &ended {
            self.members.forget(record);
            nodes.insert(record.node());
        }
        for node in nodes {
            self.review_peer(now, node);
        }
        self.publication.stale = true;
        self.schedule_expiry(now);
    }
}

fn is_urgent(body: &Body) -> bool {
    match body {
        Body::Revoke(_) | Body::Epoch(_) => true,
        Body::Lease(lease) => lease.left,
        _ => false,
    }
}

fn restore_order(kind: Kind) -> u8 {
    match kind {
        Kind::Network => 0,
        Kind::Admin => 1,
        Kind::Revoke => 2,
        Kind::Epoch => 3,
        Kind::Member => 4,
        Kind::Peer => 5,
        Kind::Lease | Kind::Service | Kind::Health | Kind::Policy | Kind::Invite | Kind::Heartbeat | Kind::Unknown(_) => 6,
    }
}
