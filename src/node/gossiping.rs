//! Records come and go (protocol §7): each is decoded, its signature and authority judged, then it competes for its
//! slot; what wins is kept, told to the cores it concerns, and spread.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    addr::AddressPlan,
    gossip::{Shelf, Spread, Stored},
    ids::{NodeId, PeerIx, SessionId, Slot, Version},
    keys::verify_tunnel,
    members::{Change, MemberRefused, Verdict},
    node::{
        Node, Timer,
        output::{Notice, Output, Write},
        verifying::is_signed,
    },
    registry::{Judged, Offered, Registry, RegistryRefused, SetAside},
    time::Now,
    wire::{
        message::{Message, Want},
        record::{Body, Kind, Record, Unusable},
    },
};

/// Signature checks of one turn: at about 50 µs each they stay below 2 ms (design §5).
const VERIFIED_PER_TURN: usize = 32;
/// A body of Records, outside and inside a join session (protocol §0, §9).
const RECORDS_BODY: usize = 1100;
const JOIN_RECORDS_BODY: usize = 960;

/// The shortest and the longest time to the next look at what ends.
const EXPIRY_AT_LEAST: Duration = Duration::from_secs(1);
const EXPIRY_AT_MOST: Duration = Duration::from_secs(3600);

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
        self.registry.get(slot).map(|held| held.record.clone())
    }

    fn is_offered(&self, slot: Slot) -> bool {
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
                    self.enqueue(&bytes, peer);
                }
            }
            Message::Advert(_) | Message::Digest(_) | Message::Slots(_)
                if !self.links.is_linked(peer) =>
            {
                self.counters.count("gossip_without_link");
                self.links.handle_stray(peer);
            }
            Message::Advert(advert) => self.gossip.handle_advert(now, peer, &advert, &shelf),
            Message::Digest(digest) => self.gossip.handle_digest(now, peer, &digest, &shelf),
            Message::Slots(slots) => self.gossip.handle_slots(now, peer, &slots, &shelf),
            Message::Want(want) if self.links.is_linked(peer) => {
                self.gossip.handle_want(now, peer, &want, &shelf);
            }
            Message::Want(want) => {
                self.answer_unlinked(now, SessionId::Pair(peer), want.slots);
            }
            Message::Granted(granted) => {
                let slots = granted
                    .slots
                    .into_iter()
                    .filter(|slot| self.registry.holds(*slot).is_none())
                    .collect();
                self.send(SessionId::Pair(peer), Message::Want(Want { slots }));
            }
            Message::Hello(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Bye(_)
            | Message::Redeem(_)
            | Message::Renew
            | Message::Refused(_)
            | Message::Link(_)
            | Message::Unlink(_)
            | Message::Introduced(_)
            | Message::Reaching(_)
            | Message::Relaying(_) => self.counters.count("message_unused"),
        }
    }

    /// Sends records in a session that is no link, as far as its budget goes.
    pub(super) fn answer_unlinked(&mut self, now: Now, session: SessionId, slots: Vec<Slot>) {
        let body_max = match session {
            SessionId::Pair(_) => RECORDS_BODY,
            SessionId::Join(_) => JOIN_RECORDS_BODY,
        };
        let shelf = RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now));
        let want = Want { slots };
        let answer = self
            .unlinked
            .answer(now.at, session, (&want, body_max), &shelf);
        for message in answer.messages {
            self.send(session, message);
        }
        if answer.withheld > 0 {
            self.counters.count("want_over_budget");
        }
    }

    fn enqueue(&mut self, bytes: &[u8], from: PeerIx) {
        let Ok(record) = Record::decode(bytes) else {
            return self.counters.count("record_malformed");
        };
        if self.is_held(&record) {
            return;
        }
        if !self.unverified.push(record, from) {
            self.counters.count("record_queue_full");
        }
    }

    /// Verifies what waits, as much as one turn may take.
    pub(super) fn verify_some(&mut self, now: Now) {
        for _ in 0..VERIFIED_PER_TURN {
            let Some((record, from)) = self.unverified.pop() else {
                return;
            };
            if !self.is_held(&record) {
                self.take_from_network(now, record, Some(from));
            }
        }
        if !self.unverified.is_empty() {
            self.timers.set(Timer::Verify, now.at);
        }
    }

    /// Takes the few records of a Knock at once, before it is judged: who may belong, and nothing else.
    pub(super) fn take_records_now(&mut self, now: Now, records: &[Vec<u8>]) {
        for bytes in records.iter().take(3) {
            let Ok(record) = Record::decode(bytes) else {
                self.counters.count("record_malformed");
                continue;
            };
            if !matches!(record.kind(), Kind::Admin | Kind::Member | Kind::Peer) {
                self.counters.count("knock_stray_record");
            } else if !self.is_held(&record) {
                self.take_from_network(now, record, None);
            }
        }
    }

    fn take_from_network(&mut self, now: Now, record: Record, from: Option<PeerIx>) {
        let origin = Origin::Network(from);
        if !is_signed(&record, self.network) {
            return self.on_refused(now, &record, "record_signature", origin);
        }
        self.take(now, record, origin);
    }

    pub(super) fn take_own(&mut self, now: Now, record: Record) {
        self.take(now, record, Origin::Own);
    }

    fn take(&mut self, now: Now, record: Record, origin: Origin) {
        let body = match record.body() {
            Ok(body) => body,
            Err(Unusable::Critical) => Body::Opaque,
            Err(Unusable::Malformed(_)) => {
                return self.on_refused(now, &record, "record_body", origin);
            }
        };
        if let Body::Peer(peer) = &body
            && origin != Origin::Own
            && !self.is_cross_signed(record.node(), peer)
        {
            return self.on_refused(now, &record, "record_cross_signature", origin);
        }
        let rank = match self.members.judge(&record, &body) {
            Verdict::Allowed(rank) => rank,
            Verdict::SignerUnknown => return self.put_aside(now, record, origin),
            Verdict::Refused(refused) => {
                return self.on_refused(now, &record, member_label(refused), origin);
            }
        };
        let mesh_s = self.mesh_time.sure_s(now);
        let judged = Judged {
            record: record.clone(),
            body: body.clone(),
            rank,
        };
        let offered = match origin {
            Origin::Own | Origin::Disk => self.registry.publish(now, mesh_s, judged),
            Origin::Network(_) => self.registry.offer(now, mesh_s, judged),
        };
        match offered {
            Offered::Mine { above } => self.on_echo(now, &record, above),
            Offered::Taken { .. } => self.on_taken(now, &record, &body, origin),
            Offered::Known => {}
            Offered::Older => self.on_refused(now, &record, "record_older", origin),
            Offered::Refused(refused) => {
                self.on_refused(now, &record, registry_label(refused), origin);
            }
        }
    }

    fn is_cross_signed(&self, node: NodeId, peer: &crate::wire::record::Peer) -> bool {
        verify_tunnel(&peer.tunnel, node, &self.network.0, &peer.cross)
    }

    fn on_refused(&mut self, now: Now, record: &Record, label: &'static str, origin: Origin) {
        self.counters.count(label);
        if let Origin::Network(Some(peer)) = origin {
            self.gossip
                .handle_lost(now, peer, record.slot(), record.version());
        }
    }

    fn on_taken(&mut self, now: Now, record: &Record, body: &Body, origin: Origin) {
        let before = self.members.peer(record.node()).cloned();
        let is_newcomer = self.members.certificate(record.node()).is_none();
        let change = self.members.apply(record, body);
        if origin != Origin::Disk {
            if is_newcomer && self.members.certificate(record.node()).is_some() {
                let name = self.name_of(record.node());
                self.outbox
                    .push_back(Output::Notice(Notice::Joined { name }));
            }
            self.outbox.push_back(Output::Persist {
                ticket: None,
                write: Write::Record(record.clone()),
            });
            let from = match origin {
                Origin::Network(from) => from,
                Origin::Own | Origin::Disk => None,
            };
            let spread = if is_urgent(body) {
                Spread::Urgent
            } else {
                Spread::Calm
            };
            let shelf = RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now));
            let stored = Stored {
                slot: record.slot(),
                version: record.version(),
                kind: record.kind(),
                spread,
                from,
            };
            self.gossip.handle_stored(now, stored, &shelf);
        }
        self.publication.stale = true;
        self.on_fact(now, record, body);
        self.apply_change(now, change);
        if before.as_ref() != self.members.peer(record.node()) {
            self.on_address_change(now, record.node());
        }
        self.schedule_expiry(now);
    }

    /// Tells the other cores what a new record means for them.
    fn on_fact(&mut self, now: Now, record: &Record, body: &Body) {
        self.note_home(now, record.node());
        self.review_pace_after(body);
        match body {
            Body::Revoke(_) => self.on_revoked(now, record.node()),
            Body::Lease(lease) => {
                self.note_admin_seen(record.node());
                if self.is_lonely || lease.left {
                    self.review_loneliness(now);
                }
                self.review_homes_soon(now);
                self.review_peer(now, record.node());
            }
            Body::Member(_) | Body::Peer(_) => {
                self.review_homes_soon(now);
                self.review_peer(now, record.node());
            }
            Body::Heartbeat(heartbeat) => self.mesh_time.raise_floor(now, heartbeat.time),
            Body::Admin(_)
            | Body::Network(_)
            | Body::Epoch(_)
            | Body::Service(_)
            | Body::Invite(..)
            | Body::Opaque => {}
        }
        if let Body::Network(network) = body {
            self.mesh_time.raise_floor(now, network.created);
            self.candidates.handle_plan(AddressPlan {
                network: self.network,
                pool4: network.pool4,
            });
        }
        if let Body::Member(member) = body {
            self.mesh_time.raise_floor(now, member.admitted_at);
        }
    }

    /// Records that lost their authority leave; those kept aside may have gained it.
    fn apply_change(&mut self, now: Now, change: Change) {
        let mut nodes = VecDeque::from(change.recheck);
        let mut unlocks = change.unlocks;
        while let Some(node) = nodes.pop_front() {
            let void: Vec<Record> = self
                .registry
                .touching(node)
                .filter(|held| {
                    !matches!(
                        self.members.judge(&held.record, &held.body),
                        Verdict::Allowed(_)
                    )
                })
                .map(|held| held.record.clone())
                .collect();
            for record in void {
                self.registry.remove(now, record.slot());
                let more = self.members.forget(&record);
                nodes.extend(more.recheck);
                unlocks |= more.unlocks;
                self.counters.count("record_voided");
            }
            self.close_if_out(now, node);
            self.review_peer(now, node);
        }
        if unlocks {
            for (record, from) in self.registry.retry_aside(now.at) {
                self.take(now, record, Origin::Network(from));
            }
        }
    }

    fn on_revoked(&mut self, now: Now, node: NodeId) {
        if node == self.me {
            self.notice(Notice::Revoked);
        }
        if let Some(peer) = self.ids.find(node) {
            self.attempts.cancel(peer);
            self.waiting_pings.remove(&peer);
        }
        self.drop_join_sessions_of(node);
        self.close_if_out(now, node);
        self.review_peer(now, node);
    }

    /// A record of ours that we do not hold: publish above it, or a tombstone (protocol §7).
    fn on_echo(&mut self, now: Now, echo: &Record, above: u64) {
        let held = self.registry.get(echo.slot()).map(|held| held.body.clone());
        match held.or_else(|| tombstone(echo)) {
            Some(body) => self.publish_about(now, self.me.0, body, above),
            None => self.counters.count("record_echo"),
        }
    }

    fn is_held(&self, record: &Record) -> bool {
        self.registry
            .holds(record.slot())
            .is_some_and(|(version, _)| version == record.version())
    }

    /// Its signer may become one that may sign it; until then it counts as refused. What found no room is asked again
    /// like what never came.
    fn put_aside(&mut self, now: Now, record: Record, origin: Origin) {
        let from = match origin {
            Origin::Network(from) => from,
            Origin::Own | Origin::Disk => None,
        };
        match self.registry.aside(record.clone(), from, now.at) {
            SetAside::Kept | SetAside::Known => {}
            SetAside::KeptForAnother => self.counters.count("record_aside_full"),
            SetAside::Lost => {
                self.counters.count("record_aside_full");
                return self.counters.count("record_signer_unknown");
            }
        }
        self.on_refused(now, &record, "record_signer_unknown", origin);
    }

    /// Puts the records of this machine's disk where they were, certificates before what stands on them.
    pub(super) fn restore_records(&mut self, now: Now, mut records: Vec<Record>) {
        records.sort_by_key(|record| restore_order(record.kind()));
        for record in records {
            self.take(now, record, Origin::Disk);
        }
    }

    /// Plans the next look at what ends. A look that is planned already is never put off: mesh time may be corrected
    /// while we wait, and certificates end without any record's doing.
    pub(super) fn schedule_expiry(&mut self, now: Now) {
        let latest = now.at.after(EXPIRY_AT_MOST);
        let next = self.registry.next_expiry(now, self.mesh_time.sure_s(now));
        let at = next.unwrap_or(latest).min(latest);
        self.timers
            .set_earlier(Timer::Expire, at.max(now.at.after(EXPIRY_AT_LEAST)));
    }

    pub(super) fn expire_records(&mut self, now: Now) {
        let mesh_s = self.mesh_time.sure_s(now);
        let ended = self.registry.expire(mesh_s, now.at);
        let mut nodes = BTreeSet::new();
        let mut change = Change::default();
        for record in &ended {
            let more = self.members.forget(record);
            change.recheck.extend(more.recheck);
            change.unlocks |= more.unlocks;
            nodes.insert(record.node());
        }
        self.apply_change(now, change);
        nodes.extend(self.pairs.keys().map(|peer| self.ids.node(*peer)));
        nodes.extend(self.members.nodes().map(|(node, _)| node));
        for node in nodes {
            self.close_if_out(now, node);
            self.review_peer(now, node);
        }
        self.review_loneliness(now);
        if ended.iter().any(|record| record.node() == self.me) {
            self.publish_peer(now);
            self.publish_kept_services(now);
        }
        self.publication.stale = true;
        self.schedule_expiry(now);
    }
}

fn is_urgent(body: &Body) -> bool {
    match body {
        Body::Revoke(_) | Body::Epoch(_) => true,
        Body::Lease(lease) => lease.left,
        Body::Network(_)
        | Body::Admin(_)
        | Body::Member(_)
        | Body::Peer(_)
        | Body::Service(_)
        | Body::Invite(..)
        | Body::Heartbeat(_)
        | Body::Opaque => false,
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
        Kind::Lease
        | Kind::Service
        | Kind::Health
        | Kind::Policy
        | Kind::Invite
        | Kind::Heartbeat
        | Kind::Unknown(_) => 6,
    }
}

fn tombstone(echo: &Record) -> Option<Body> {
    let Ok(Body::Service(mut service)) = echo.body() else {
        return None;
    };
    service.ports.clear();
    Some(Body::Service(service))
}

fn registry_label(refused: RegistryRefused) -> &'static str {
    match refused {
        RegistryRefused::Quota => "record_quota",
        RegistryRefused::Rate => "record_rate",
        RegistryRefused::Ended => "record_ended",
    }
}

fn member_label(refused: MemberRefused) -> &'static str {
    match refused {
        MemberRefused::OtherNetwork => "record_other_network",
        MemberRefused::NotRoot => "record_not_root",
        MemberRefused::NoRight => "record_no_right",
        MemberRefused::SignerRevoked => "record_signer_revoked",
        MemberRefused::NotOwn => "record_not_own",
        MemberRefused::SubjectRevoked => "record_subject_revoked",
        MemberRefused::TunnelTaken => "record_tunnel_taken",
        MemberRefused::BadName => "record_bad_name",
        MemberRefused::BadPool => "record_bad_pool",
    }
}
