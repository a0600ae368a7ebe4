//! This peer says that it is there: its Lease, its Peer record, and the daily duties of a member (protocol §7, §8).

use std::time::Duration;

use rand_core::RngCore;

use crate::{
    addr::Underlay,
    ids::{NodeId, PeerIx},
    keys::Word,
    members::{Standing as Membership, admission, mesh_time::TOLERANCE_MS},
    node::{
        Node, Timer,
        roaming::SETTLED_AFTER,
        talking::{Goodbye, WIRE_MAX, WIRE_MIN},
    },
    time::{Moment, Now},
    wire::{
        message::Message,
        record::{self, Body, Draft, Kind, slot_of},
    },
};

/// A wall clock beyond this (year 6429) makes no seq; protocol §7 refuses 2⁴⁷ and more.
const MAX_SEQ: u64 = (1 << 47) - 2;

/// How long a lease is in force (protocol §7).
const LEASE_LIFE_S: u64 = 12 * 3600;
/// How often it is sent again, give or take a tenth.
const LEASE_AGAIN: Duration = Duration::from_secs(4 * 3600);
/// The own lease is published after the first Hello, or this long after the start.
const LEASE_WITHOUT_HELLO: Duration = Duration::from_secs(10);
/// The Knocks after a start are spread over 2 ms for each peer, at most over so many: the fewer there are, the sooner
/// what stood still by a restart goes on.
const BURST_MS: u32 = 500;
/// How often daily duties are looked at.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// A Peer record is sent on change, at most once in this time (protocol §7); the first four go at once.
const PEER_AGAIN: Duration = Duration::from_secs(600);
/// How many changes of the Peer record go at once.
const PEER_BURST: u32 = 4;

impl Node {
    /// Arms the first deadlines and knocks where a session stood in the last 10 minutes. The Peer record waits for the
    /// shell to tell the addresses.
    pub(super) fn start(&mut self, now: Now) {
        self.timers
            .set(Timer::Lease, now.at.after(LEASE_WITHOUT_HELLO));
        self.timers
            .set(Timer::Daily, now.at.after(Duration::from_secs(60)));
        self.schedule_expiry(now);
        self.review_loneliness(now);
        self.schedule_burst(now);
        self.publication.stale = true;
        self.announce_splices();
        self.publish_kept_services(now);
        self.take_back_lost_services(now);
        self.finish_turn(now);
    }

    fn schedule_burst(&mut self, now: Now) {
        let recent: Vec<PeerIx> = self
            .rows
            .values()
            .filter(|row| row.node != self.me)
            .filter(|row| now.unix_s().saturating_sub(u64::from(row.last_session_s)) < 600)
            .map(|row| row.node)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|node| self.ids.intern(node))
            .collect();
        let width_ms =
            u32::try_from(recent.len()).map_or(BURST_MS, |peers| BURST_MS.min(2 * peers));
        for peer in recent {
            let spread = Duration::from_millis(u64::from(self.rng.next_u32() % width_ms));
            self.timers.set(Timer::Burst(peer), now.at.after(spread));
        }
    }

    pub(super) fn has_lease(&self) -> bool {
        self.registry
            .lease(self.me)
            .is_some_and(|lease| lease.incarnation == self.identity.boot)
    }

    pub(super) fn publish_lease(&mut self, now: Now) {
        let jitter_s = u64::from(self.rng.next_u32()) % (LEASE_AGAIN.as_secs() / 5);
        let again = LEASE_AGAIN - LEASE_AGAIN / 10 + Duration::from_secs(jitter_s);
        self.timers.set(Timer::Lease, now.at.after(again));
        self.publish_lease_state(now, LeaseState::Up);
    }

    /// A peer told what its clock says. If mesh time jumps by that, all that depends on it is judged again, and the own
    /// lease is made again in the new time: in the old one it may be over.
    pub(super) fn hear_clock(&mut self, now: Now, peer: PeerIx, time_ms: u64) {
        let before_ms = self.mesh_time.mesh_ms(now);
        self.mesh_time
            .handle_hello(now, self.ids.node(peer), time_ms);
        self.schedule_expiry(now);
        if self.mesh_time.mesh_ms(now).abs_diff(before_ms) <= TOLERANCE_MS {
            return;
        }
        self.publication.stale = true;
        let nodes: Vec<NodeId> = self.members.nodes().map(|(node, _)| node).collect();
        for node in nodes {
            self.review_peer(now, node);
        }
        if self.has_lease() {
            self.publish_lease(now);
        }
    }

    fn publish_lease_state(&mut self, now: Now, state: LeaseState) {
        let lease = record::Lease {
            incarnation: self.identity.boot,
            expires: self.mesh_s(now) + LEASE_LIFE_S,
            left: state == LeaseState::Left,
        };
        self.publish_own(now, Body::Lease(lease));
    }

    /// Tells the network that this peer leaves, and closes every session.
    pub fn say_left(&mut self, now: Now) {
        self.timers.clear(&Timer::Lease);
        self.kept.floor_s = self.mesh_time.floor_s(now);
        self.persist_kept(None);
        self.publish_lease_state(now, LeaseState::Left);
        self.drain_cores(now);
        let open: Vec<PeerIx> = self.pairs.keys().copied().collect();
        for peer in open {
            self.close_pair(now, peer, Goodbye::Stopping);
        }
        self.finish_turn(now);
    }

    pub(super) fn on_addresses(&mut self, now: Now, addresses: Vec<Underlay>) {
        let is_start = self.candidates.interfaces().is_empty();
        self.candidates.handle_interfaces(&addresses);
        self.prove_anew(now);
        self.on_moved(now, &addresses);
        self.meetings.handle_interfaces(now, &addresses);
        // A move is many changes: one link goes, another comes, others see this machine elsewhere. Each would cost one of the
        // few records that may go, and the last of them would not be told. Who starts is looked for at once.
        if !is_start {
            self.timers
                .set_earlier(Timer::Peer, now.at.after(SETTLED_AFTER));
        }
        self.publish_peer(now);
    }

    pub(super) fn on_mapped(&mut self, now: Now, address: Option<Underlay>) {
        let before = self.candidates.mapped();
        self.candidates.handle_mapped(address);
        if let Some(before) = before.filter(|before| Some(*before) != self.candidates.mapped()) {
            self.on_mapping_gone(now, before);
        }
        self.publish_peer(now);
    }

    /// Publishes the own Peer record if it says something new, as often as protocol §7 allows. Where it is due
    /// already, new addresses wait for that; what this machine is good for does not.
    pub(super) fn publish_peer(&mut self, now: Now) {
        let proven = self.proven_addresses(now);
        let flags = self.own_flags(now, !proven.is_empty());
        let addresses = self.with_hints(proven);
        let body = record::Peer {
            tunnel: self.identity.tunnel.public(),
            cross: self.cross,
            wire_min: WIRE_MIN,
            wire_max: WIRE_MAX,
            features: self.features(),
            flags,
            addresses: Some(addresses).filter(|addresses| !addresses.is_empty()),
        };
        let held = self.members.peer(self.me);
        let is_later = |at| at > now.at;
        let waits = self.timers.at(&Timer::Peer).is_some_and(is_later);
        if held.is_some_and(|held| *held == body || waits && held.flags == body.flags) {
            return;
        }
        if self.peer_changes.is_spent(now.at) {
            self.timers.set(Timer::Peer, self.peer_changes.next(now.at));
            return;
        }
        self.peer_changes.spend(now.at);
        self.publish_own(now, Body::Peer(body));
    }

    /// Signs a record about this peer and puts it where all records go.
    pub(super) fn publish_own(&mut self, now: Now, body: Body) {
        self.publish_about(now, self.me.0, body, 0);
    }

    /// Signs a record with a number above what is held in its slot and above `above`, and takes it.
    pub(super) fn publish_about(&mut self, now: Now, subject: [u8; 32], body: Body, above: u64) {
        let Some(kind) = body.kind() else { return };
        let held = self.registry.get(slot_of(kind, &subject, &body.key()));
        let last = held.map_or(0, |held| held.record.seq()).max(above);
        let seq = (last + 1).max(now.unix_ms.min(MAX_SEQ));
        let draft = Draft {
            seq,
            subject,
            signer: self.me.0,
            body,
        };
        match draft.sign_with(|bytes| {
            self.identity
                .key
                .sign(Word::Record, &self.network.0, &[bytes])
        }) {
            Ok(record) => self.take_own(now, record),
            Err(_) => self.counters.count("record_unsignable"),
        }
    }

    /// What others may ask of this machine.
    fn own_flags(&self, now: Now, is_dialable: bool) -> u64 {
        let outside = if is_dialable {
            PEER_DIALABLE | PEER_HOME
        } else {
            0
        };
        PEER_FULL | outside | self.relay_flag(now) | self.stream_flag(now)
    }

    pub(super) fn on_daily(&mut self, now: Now) {
        self.timers.set(Timer::Daily, now.at.after(DAILY));
        self.end_clones(now);
        if self.members.is_admin(self.me) {
            self.publish_heartbeat(now);
            self.renew_own_as_admin(now);
        }
        let linked: Vec<PeerIx> = self.pairs.keys().copied().collect();
        for peer in linked {
            self.renew_if_due(now, peer);
        }
    }

    fn publish_heartbeat(&mut self, now: Now) {
        let mut count = 0;
        let mut bytes = Vec::new();
        for revoke in self.registry.of_kind(Kind::Revoke) {
            count += 1;
            bytes.extend_from_slice(&revoke.record.id());
        }
        let body = record::Heartbeat {
            time: self.mesh_s(now),
            count,
            hash: crate::hash::hash(crate::hash::Use::Record, &[&bytes]),
            policy: 0,
        };
        self.publish_own(now, Body::Heartbeat(body));
    }

    fn is_renewal_due(&self, now: Now) -> bool {
        self.members
            .certificate(self.me)
            .is_some_and(|certificate| admission::is_renewal_due(certificate, self.mesh_s(now)))
    }

    fn renew_own_as_admin(&mut self, now: Now) {
        if self.is_renewal_due(now) {
            self.renew(now, self.me);
        }
    }

    /// Asks an admin for a new certificate when the own one nears its end.
    pub(super) fn renew_if_due(&mut self, now: Now, peer: PeerIx) {
        if self.is_renewal_due(now)
            && self.members.is_admin(self.ids.node(peer))
            && !self.members.is_admin(self.me)
        {
            self.send(crate::ids::SessionId::Pair(peer), Message::Renew);
        }
    }

    /// Whether a session with this node may stand: a member in force, or one that comes to an admin for renewal.
    pub(super) fn may_open(&self, now: Now, node: NodeId) -> bool {
        match self.membership(now, node) {
            Membership::InForce | Membership::Honoured => true,
            Membership::Ended => self.members.is_admin(self.me) || self.members.is_admin(node),
            Membership::Stranger | Membership::Revoked => false,
        }
    }

    pub(super) fn membership(&self, now: Now, node: NodeId) -> Membership {
        self.members
            .standing(node, self.mesh_s(now), self.admin_seen_s())
    }

    /// When the newest lease of any admin was made, unix s.
    pub(super) fn admin_seen_s(&self) -> u64 {
        self.members
            .admins()
            .filter_map(|admin| self.registry.lease_made_s(admin))
            .max()
            .unwrap_or(0)
            .max(self.admin_seen_s)
    }

    /// Remembers that an admin was up: its lease itself goes a week after it ended.
    pub(super) fn note_admin_seen(&mut self, node: NodeId) {
        if self.members.is_admin(node) {
            let made_s = self.registry.lease_made_s(node).unwrap_or(0);
            self.admin_seen_s = self.admin_seen_s.max(made_s);
        }
    }
}

/// Flags of the Peer record: bit 0, this peer holds the whole registry.
pub(super) const PEER_FULL: u64 = 1;
/// Bit 1: it is reached from outside.
pub(super) const PEER_DIALABLE: u64 = 2;
/// Bit 2: it hands on handshakes for others.
pub(super) const PEER_HOME: u64 = 4;
/// What a home has.
pub(super) const PEER_HOME_FLAGS: u64 = PEER_FULL | PEER_DIALABLE | PEER_HOME;

/// What an own lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Up,
    Left,
}

/// The token bucket of protocol §7 for the own Peer record: the moment at which all changes so far are paid for.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerChanges {
    paid_at: Moment,
}

impl PeerChanges {
    fn is_spent(&self, now: Moment) -> bool {
        self.next(now) > now
    }

    /// When the next change may go.
    fn next(&self, now: Moment) -> Moment {
        let ahead = PEER_AGAIN * (PEER_BURST - 1);
        let ahead_us = u64::try_from(ahead.as_micros()).unwrap_or(u64::MAX);
        Moment(self.paid_at.0.saturating_sub(ahead_us)).max(now)
    }

    fn spend(&mut self, now: Moment) {
        self.paid_at = self.paid_at.max(now).after(PEER_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_changes_of_the_peer_record_go_at_once_and_then_one_each_ten_minutes() {
        let mut changes = PeerChanges::default();
        let mut sent_s = Vec::new();
        for second in 10..3_000 {
            let now = Moment(second * 1_000_000);
            while !changes.is_spent(now) {
                changes.spend(now);
                sent_s.push(second);
            }
            assert!(changes.next(now) > now);
        }
        assert_eq!(sent_s, [10, 10, 10, 10, 610, 1210, 1810, 2410]);
    }
}
