//! What others are told of what is held: everything but a Lease near its end (protocol §7, §11).

use std::collections::BTreeSet;

use super::{FIRST_SLOT, LAST_SLOT, LEASE_TAIL_S, Registry, digest::digest16, lease_in};
use crate::ids::{Slot, Version};

impl Registry {
    /// Whether what is in `slot` is told to others: everything but a Lease near its end.
    pub fn is_offered(&self, slot: Slot, mesh_s: u64) -> bool {
        let Some(held) = self.slots.get(&slot) else {
            return false;
        };
        let is_ending =
            lease_in(&held.body).is_some_and(|lease| lease.expires <= mesh_s + LEASE_TAIL_S);
        !is_ending && !self.worn.contains(&slot)
    }

    /// The sums of all buckets, as a Digest carries them.
    pub fn digest_sums(&self, mesh_s: u64) -> Box<[u8; 1024]> {
        let mut sums = self.sums.clone();
        let ending = self.lease_ends.range(..=(mesh_s + LEASE_TAIL_S, LAST_SLOT));
        let ending: BTreeSet<Slot> = ending.map(|(_, slot)| *slot).collect();
        for slot in ending.union(&self.worn) {
            if let Some(held) = self.slots.get(slot) {
                sums.subtract(*slot, held.record.version());
            }
        }
        sums.to_bytes()
    }

    /// The digest that a Hello carries.
    pub fn digest16(&self, mesh_s: u64) -> [u8; 16] {
        digest16(&self.digest_sums(mesh_s))
    }

    /// What is told to others of one bucket, by slot.
    pub fn bucket_entries(&self, bucket: u8, mesh_s: u64) -> Vec<(Slot, Version)> {
        let (mut first, mut last) = (FIRST_SLOT, LAST_SLOT);
        first.0[0] = bucket << 2;
        last.0[0] = bucket << 2 | 3;
        self.slots
            .range(first..=last)
            .filter(|(slot, _)| self.is_offered(**slot, mesh_s))
            .map(|(slot, held)| (*slot, held.record.version()))
            .collect()
    }
}
