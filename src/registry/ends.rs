//! When records end, and what goes with them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    FIRST_SLOT, Held, Registry, lease_in,
    life::{Deadline, Due, EPOCH_S, INERT_S, LEASE_S, Life},
};
use crate::{
    ids::{NodeId, Slot},
    time::{Moment, Now},
    wire::record::{Body, Kind, Record},
};

/// How many slots are remembered whose record went with its node's Lease, so that who joined later does not bring
/// it back; a guess: four times the peers that leave a network of 1,000 in a week.
const BURIED_MAX: usize = 4_096;

impl Registry {
    /// Takes out what ended. What members held of it must be forgotten.
    pub fn expire(&mut self, mesh_s: u64, at: Moment) -> Vec<Record> {
        let mut removed = Vec::new();
        while let Some(due) = self.deadlines.pop_due(mesh_s, at) {
            match due {
                Due::Worn(node) => self.worn.extend(self.leases.get(&node)),
                Due::Slot(slot) => removed.extend(self.take_out(slot).map(|held| held.record)),
                Due::Node(node) => self.bury(node, &mut removed),
            }
        }
        removed
    }

    /// When the next record ends or the next Lease does; `mesh_s` is mesh time now.
    pub fn next_expiry(&self, now: Now, mesh_s: u64) -> Option<Moment> {
        let next = self.deadlines.next();
        let lease = self.lease_ends.range((mesh_s + 1, FIRST_SLOT)..).next();
        let mesh = [next.mesh_s, lease.map(|end| end.0)]
            .into_iter()
            .flatten()
            .min();
        let mesh = mesh.map(|end| {
            now.at
                .after(Duration::from_secs(end.saturating_sub(mesh_s)))
        });
        [mesh, next.at].into_iter().flatten().min()
    }

    pub(super) fn set_deadlines(&mut self, record: &Record, life: Life, at: Moment) {
        match life {
            Life::Until(deadline) => self.deadlines.set(Due::Slot(record.slot()), deadline),
            Life::Lease | Life::WithLease => self.set_node_deadline(record.node(), at),
            Life::Forever if record.kind() == Kind::Epoch => self.set_epoch_deadlines(),
            Life::Forever => {}
        }
        if life == Life::Lease {
            let worn = Deadline {
                mesh_s: None,
                at: Some(at.after(Duration::from_secs(LEASE_S))),
            };
            self.deadlines.set(Due::Worn(record.node()), worn);
        }
    }

    /// A node's records go 7 days after its Lease ended; without one 7 days after the newest of them came.
    pub(super) fn set_node_deadline(&mut self, node: NodeId, at: Moment) {
        let lease_end = self
            .lease(node)
            .map(|lease| lease.expires.saturating_add(INERT_S));
        let stay_s = if lease_end.is_some() {
            LEASE_S + INERT_S
        } else {
            INERT_S
        };
        let deadline = Deadline {
            mesh_s: lease_end,
            at: Some(at.after(Duration::from_secs(stay_s))),
        };
        self.deadlines.set(Due::Node(node), deadline);
    }

    fn set_epoch_deadlines(&mut self) {
        let numbered = |held: &Held| {
            let Body::Epoch(epoch) = &held.body else {
                return None;
            };
            Some((epoch.n, (held.record.slot(), held.record.seq() / 1000)))
        };
        let epochs: BTreeMap<u32, (Slot, u64)> =
            self.of_kind(Kind::Epoch).filter_map(numbered).collect();
        for (n, (slot, _)) in epochs.range(1..) {
            let next = epochs.range(n + 1..).next();
            if let Some((_, (_, made_s))) = next {
                let deadline = Deadline {
                    mesh_s: Some(made_s.saturating_add(EPOCH_S)),
                    at: None,
                };
                self.deadlines.set(Due::Slot(*slot), deadline);
            }
        }
    }

    fn bury(&mut self, node: NodeId, removed: &mut Vec<Record>) {
        let goes = |held: &&Held| {
            matches!(
                Life::of(&held.record, &held.body, Moment::default()),
                Life::Lease | Life::WithLease
            )
        };
        let slots: Vec<Slot> = self
            .of(node)
            .filter(goes)
            .map(|held| held.record.slot())
            .collect();
        for slot in slots {
            let Some(held) = self.take_out(slot) else {
                continue;
            };
            if self.buried.insert(slot, held.record.version()).is_none() {
                self.buried_order.push_back(slot);
            }
            removed.push(held.record);
        }
        while self.buried_order.len() > BURIED_MAX {
            if let Some(slot) = self.buried_order.pop_front() {
                self.buried.remove(&slot);
            }
        }
    }

    pub(super) fn is_buried(&self, record: &Record, mesh_s: u64) -> bool {
        let buried = self.buried.get(&record.slot());
        buried.is_some_and(|version| record.version() <= *version)
            && !self.in_force(record.node(), mesh_s)
    }
}

/// Whether a record of this life is past its end already.
pub(super) fn has_ended(life: Life, body: &Body, mesh_s: u64) -> bool {
    let end_s = match life {
        Life::Lease => lease_in(body).map(|lease| lease.expires.saturating_add(INERT_S)),
        Life::Until(deadline) => deadline.mesh_s,
        Life::WithLease | Life::Forever => None,
    };
    end_s.is_some_and(|end_s| end_s <= mesh_s)
}
