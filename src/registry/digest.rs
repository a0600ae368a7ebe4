//! Sums over what is held, by which two peers find out where they differ (protocol §11).

use crate::{
    hash::{Use, hash, short},
    ids::{Slot, Version},
};

/// Buckets of slot space (protocol §11).
pub const BUCKETS: usize = 64;

/// The wrapping sum of each bucket.
#[derive(Clone, Debug)]
pub(super) struct Sums([u128; BUCKETS]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Sums {
    pub(super) fn add(&mut self, slot: Slot, version: Version) {
        let sum = &mut self.0[usize::from(bucket_of(slot))];
        *sum = sum.wrapping_add(term(slot, version));
    }

    pub(super) fn subtract(&mut self, slot: Slot, version: Version) {
        let sum = &mut self.0[usize::from(bucket_of(slot))];
        *sum = sum.wrapping_sub(term(slot, version));
    }

    /// As a Digest message carries them: little-endian, bucket 0 first.
    pub(super) fn to_bytes(&self) -> Box<[u8; 1024]> {
        let mut bytes = Box::new([0; 1024]);
        for (place, sum) in bytes.chunks_exact_mut(16).zip(self.0) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }
}

/// The bucket that a slot counts in.
pub fn bucket_of(slot: Slot) -> u8 {
    slot.0[0] >> 2
}

/// The digest that a Hello carries: over the sums of all buckets.
pub fn digest16(sums: &[u8; 1024]) -> [u8; 16] {
    short(Use::Digest, &[sums])
}

fn term(slot: Slot, version: Version) -> u128 {
    let whole = hash(Use::Digest, &[&slot.0, &version.0.to_le_bytes()]);
    u128::from_le_bytes(std::array::from_fn(|i| whole[i]))
}
