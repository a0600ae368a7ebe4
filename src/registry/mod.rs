//! The record store: what is held in each slot, what competes with it, how long it lives (protocol §7).
//!
//! Knows envelopes, leases, quotas and digests. Refuses to know who is an admin: every record comes with its verdict.
//! A record whose signer's right is not known is put [`Registry::aside`]; one that lost its right is taken out by
//! [`Registry::remove`]. Same records, same rights: same registry, whatever the order (but for quotas and pace).

mod aside;
mod digest;
mod ends;
mod life;
mod quota;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{
    aside::Aside,
    digest::Sums,
    ends::has_ended,
    life::{Deadlines, Due, Life},
    quota::{Pace, Usages},
};
pub use self::{
    aside::{ASIDE_FOR, ASIDE_MAX, SetAside},
    digest::{BUCKETS, bucket_of, digest16},
    life::{
        ENDED_CERTIFICATE_S, EPOCH_S, HEARTBEAT_S, INERT_S, LEASE_S, LEASE_TAIL_S, TOMBSTONE_S,
    },
    quota::{BYTES_MAX, SERVICES_MAX, UPDATE_BURST, UPDATE_EVERY},
};
pub use crate::ids::Rank;
use crate::{
    ids::{NodeId, PeerIx, Slot, Version},
    time::{Moment, Now},
    wire::record::{Body, Kind, Lease, Record, Service},
};

/// A record that has authority, and what gave it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The record.
    pub record: Record,
    /// What it says; [`Body::Opaque`] where this build cannot read it.
    pub body: Body,
    /// By what right it was signed.
    pub rank: Rank,
}

/// A record in its slot.
#[derive(Clone, Debug)]
pub struct Held {
    /// The record.
    pub record: Record,
    /// What it says.
    pub body: Body,
    /// By what right it was signed.
    pub rank: Rank,
    pace: Pace,
}

/// What became of a record that was offered.
#[derive(Clone, Debug)]
#[must_use = "a record that was taken must be applied, persisted and passed on"]
pub enum Offered {
    /// It is in its slot.
    Taken {
        /// What was there before.
        replaced: Option<Record>,
    },
    /// It was there already.
    Known,
    /// What is there wins.
    Older,
    /// It is signed by this machine, which does not hold it: publish above this seq, or a tombstone.
    Mine {
        /// The seq to be greater than.
        above: u64,
    },
    /// It may not be stored.
    Refused(RegistryRefused),
}

/// Why a record with authority is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RegistryRefused {
    /// Its origin stores as much as it may.
    #[error("origin stores too much")]
    Quota,
    /// Its slot changes too fast.
    #[error("slot changes too fast")]
    Rate,
    /// Its time is over.
    #[error("record ended")]
    Ended,
}

impl RegistryRefused {
    /// The counter under which such records are counted.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quota => "record_quota",
            Self::Rate => "record_rate",
            Self::Ended => "record_ended",
        }
    }
}

/// All records held.
#[derive(Clone, Debug)]
pub struct Registry {
    own: NodeId,
    slots: BTreeMap<Slot, Held>,
    by_node: BTreeMap<NodeId, BTreeSet<Slot>>,
    by_signer: BTreeMap<NodeId, BTreeSet<Slot>>,
    by_kind: BTreeMap<Kind, BTreeSet<Slot>>,
    leases: BTreeMap<NodeId, Slot>,
    lease_ends: BTreeSet<(u64, Slot)>,
    worn: BTreeSet<Slot>,
    sums: Sums,
    usages: Usages,
    deadlines: Deadlines,
    buried: BTreeMap<Slot, Version>,
    buried_order: VecDeque<Slot>,
    aside: Aside,
}

impl Registry {
    /// An empty registry of the machine `own`.
    pub fn new(own: NodeId) -> Self {
        Self {
            own,
            slots: BTreeMap::new(),
            by_node: BTreeMap::new(),
            by_signer: BTreeMap::new(),
            by_kind: BTreeMap::new(),
            leases: BTreeMap::new(),
            lease_ends: BTreeSet::new(),
            worn: BTreeSet::new(),
            sums: Sums::default(),
            usages: Usages::default(),
            deadlines: Deadlines::default(),
            buried: BTreeMap::new(),
            buried_order: VecDeque::new(),
            aside: Aside::default(),
        }
    }

    /// Lets a record that came from another peer compete for its slot.
    pub fn offer(&mut self, now: Now, mesh_s: u64, judged: Judged) -> Offered {
        let slot = judged.record.slot();
        let held = self.slots.get(&slot);
        if let Some(settled) = settle(held, &judged) {
            return settled;
        }
        if judged.rank == Rank::Own && judged.record.signer() == self.own {
            let above = judged.record.seq();
            return Offered::Mine { above };
        }
        if self.is_buried(&judged.record, mesh_s) {
            return Offered::Refused(RegistryRefused::Ended);
        }
        let pace = held.map_or_else(Pace::default, |held| held.pace);
        let pace = match judged.rank {
            Rank::Own => pace.after_update(now.at),
            Rank::Admin | Rank::Root => Some(pace),
        };
        match pace {
            Some(pace) => self.take(now, mesh_s, judged, pace),
            None => Offered::Refused(RegistryRefused::Rate),
        }
    }

    /// Lets a record that this machine made or had stored compete for its slot.
    pub fn publish(&mut self, now: Now, mesh_s: u64, judged: Judged) -> Offered {
        match settle(self.slots.get(&judged.record.slot()), &judged) {
            Some(settled) => settled,
            None => self.take(now, mesh_s, judged, Pace::default()),
        }
    }

    /// Keeps a record whose signer's right is not known aside, at most 256 of them for 10 min. When there is no room
    /// the sender with the most gives way to one with fewer.
    pub fn aside(&mut self, record: Record, from: Option<PeerIx>, at: Moment) -> SetAside {
        self.aside.put(record, from, at)
    }

    /// Takes out what is kept aside, each with who sent it, to be judged again.
    pub fn retry_aside(&mut self, at: Moment) -> Vec<(Record, Option<PeerIx>)> {
        self.aside.take_all(at)
    }

    /// Takes a record out: it lost its authority.
    pub fn remove(&mut self, now: Now, slot: Slot) -> Option<Held> {
        let held = self.take_out(slot)?;
        if held.record.kind() == Kind::Lease {
            self.set_node_deadline(held.record.node(), now.at);
        }
        Some(held)
    }

    /// What is in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Held> {
        self.slots.get(&slot)
    }

    /// The version and kind of what is in a slot.
    pub fn holds(&self, slot: Slot) -> Option<(Version, Kind)> {
        let held = self.slots.get(&slot)?;
        Some((held.record.version(), held.record.kind()))
    }

    /// Whether this very record is held.
    pub fn is_known(&self, record: &Record) -> bool {
        let held = self.slots.get(&record.slot());
        held.is_some_and(|held| held.record.id() == record.id())
    }

    /// How many records are held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Everything held, by slot.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.slots.values()
    }

    /// What is held about `node`.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = &Held> {
        self.listed(self.by_node.get(&node))
    }

    /// What is held of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Held> {
        self.listed(self.by_kind.get(&kind))
    }

    /// What is held of one kind about `node`.
    pub fn of_node_and_kind(&self, node: NodeId, kind: Kind) -> impl Iterator<Item = &Held> {
        self.of(node).filter(move |held| held.record.kind() == kind)
    }

    /// What `node` signed about others and what is held about it: all whose right may go with it.
    pub fn touching(&self, node: NodeId) -> impl Iterator<Item = &Held> {
        self.of(node).chain(self.listed(self.by_signer.get(&node)))
    }

    /// The services that `node` publishes, tombstones left out, its Lease in force or not.
    pub fn services_of(&self, node: NodeId) -> impl Iterator<Item = (&Record, &Service)> {
        self.of(node).filter_map(|held| {
            let Body::Service(service) = &held.body else {
                return None;
            };
            (!service.ports.is_empty()).then_some((&held.record, service))
        })
    }

    /// The Lease of `node`, in force or not.
    pub fn lease(&self, node: NodeId) -> Option<&Lease> {
        let held = self.slots.get(self.leases.get(&node)?)?;
        lease_in(&held.body)
    }

    /// When the Lease of `node` was made, unix s by its maker's clock.
    pub fn lease_made_s(&self, node: NodeId) -> Option<u64> {
        let held = self.slots.get(self.leases.get(&node)?)?;
        Some(held.record.seq() / 1000)
    }

    /// Whether the records of `node` are in force at `mesh_s`.
    pub fn in_force(&self, node: NodeId, mesh_s: u64) -> bool {
        let is_worn = self
            .leases
            .get(&node)
            .is_some_and(|slot| self.worn.contains(slot));
        let lease = self.lease(node);
        lease.is_some_and(|lease| !lease.left && mesh_s < lease.expires) && !is_worn
    }

    fn take(&mut self, now: Now, mesh_s: u64, judged: Judged, pace: Pace) -> Offered {
        let Judged { record, body, rank } = judged;
        let life = Life::of(&record, &body, now.at);
        if has_ended(life, &body, mesh_s) {
            return Offered::Refused(RegistryRefused::Ended);
        }
        let old = self.slots.get(&record.slot());
        let old = old.filter(|held| held.rank == Rank::Own);
        let old = old.map(|held| (&held.record, &held.body));
        if rank == Rank::Own && !self.usages.has_room((&record, &body), old) {
            return Offered::Refused(RegistryRefused::Quota);
        }
        let replaced = self.take_out(record.slot()).map(|held| held.record);
        self.put_in(Held {
            record: record.clone(),
            body,
            rank,
            pace,
        });
        self.set_deadlines(&record, life, now.at);
        Offered::Taken { replaced }
    }

    fn put_in(&mut self, held: Held) {
        let record = &held.record;
        let (slot, node) = (record.slot(), record.node());
        self.sums.add(slot, record.version());
        self.by_node.entry(node).or_default().insert(slot);
        self.by_kind.entry(record.kind()).or_default().insert(slot);
        if record.signer() != node {
            self.by_signer
                .entry(record.signer())
                .or_default()
                .insert(slot);
        }
        if held.rank == Rank::Own {
            self.usages.add(record, &held.body);
        }
        if let Some(lease) = lease_in(&held.body) {
            self.leases.insert(node, slot);
            self.lease_ends.insert((lease.expires, slot));
        }
        self.slots.insert(slot, held);
    }

    fn take_out(&mut self, slot: Slot) -> Option<Held> {
        let held = self.slots.remove(&slot)?;
        let record = &held.record;
        self.sums.subtract(slot, record.version());
        unlist(&mut self.by_node, &record.node(), slot);
        unlist(&mut self.by_kind, &record.kind(), slot);
        unlist(&mut self.by_signer, &record.signer(), slot);
        if held.rank == Rank::Own {
            self.usages.subtract(record, &held.body);
        }
        if let Some(lease) = lease_in(&held.body) {
            self.leases.remove(&record.node());
            self.lease_ends.remove(&(lease.expires, slot));
            self.worn.remove(&slot);
            self.deadlines.clear(Due::Worn(record.node()));
        }
        self.deadlines.clear(Due::Slot(slot));
        Some(held)
    }

    fn listed<'a>(&'a self, slots: Option<&'a BTreeSet<Slot>>) -> impl Iterator<Item = &'a Held> {
        slots
            .into_iter()
            .flatten()
            .filter_map(|slot| self.slots.get(slot))
    }
}

/// Before and after every other slot.
const FIRST_SLOT: Slot = Slot([0; 8]);
const LAST_SLOT: Slot = Slot([255; 8]);

/// The answer where the record does not win its slot; none where it does.
fn settle(held: Option<&Held>, judged: &Judged) -> Option<Offered> {
    let held = held?;
    if held.record.id() == judged.record.id() {
        return Some(Offered::Known);
    }
    let is_epoch0 = matches!(&held.body, Body::Epoch(epoch) if epoch.n == 0);
    let is_newer = strength(&judged.record, &judged.body, judged.rank)
        > strength(&held.record, &held.body, held.rank);
    (is_epoch0 || !is_newer).then_some(Offered::Older)
}

/// What wins in a slot is the greatest of these: root before admin; among Revokes the least `since`; then the newest.
fn strength(record: &Record, body: &Body, rank: Rank) -> (Rank, u64, u64, [u8; 32]) {
    let earliness = if let Body::Revoke(revoke) = body {
        u64::MAX - revoke.since
    } else {
        0
    };
    (rank, earliness, record.seq(), record.id())
}

fn lease_in(body: &Body) -> Option<&Lease> {
    if let Body::Lease(lease) = body {
        Some(lease)
    } else {
        None
    }
}

fn unlist<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Slot>>, key: &K, slot: Slot) {
    if let Some(slots) = index.get_mut(key) {
        slots.remove(&slot);
        if slots.is_empty() {
            index.remove(key);
        }
    }
}
