//! The network secrets, by the number of their epoch (protocol §2).

use std::collections::BTreeMap;

use crate::{ids::Version, keys::NetSecret};

/// How long after it was superseded an epoch opens Knocks at everyone; 90 days in s, protocol §2. Shorter strands
/// peers that slept, longer lets a revoked peer's Knocks be opened.
pub const SUPERSEDED_GRACE_S: u64 = 90 * 86_400;

/// How many secrets are tried per header byte (protocol §2); more would let a stranger's datagram cost more.
pub const TRIED_PER_BYTE: usize = 4;

/// A secret with which a sealed datagram may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener<'a> {
    /// Its epoch.
    pub n: u32,
    /// The secret.
    pub secret: &'a NetSecret,
    /// Where it still opens.
    pub reach: Reach,
}

/// Where a secret still opens Knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At every member.
    Everyone,
    /// At admins only: it was superseded more than 90 days ago.
    Admins,
}

#[derive(Clone, Debug)]
struct Held {
    secret: NetSecret,
    made_s: u64,
    version: Version,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Epochs {
    by_number: BTreeMap<u32, Held>,
}

impl Epochs {
    pub(super) fn put(&mut self, n: u32, secret: NetSecret, seq: u64, version: Version) {
        let held = Held {
            secret,
            made_s: seq / 1000,
            version,
        };
        self.by_number.insert(n, held);
    }

    pub(super) fn remove(&mut self, version: Version) {
        self.by_number.retain(|_, held| held.version != version);
    }

    pub(super) fn secret(&self, n: u32) -> Option<&NetSecret> {
        self.by_number.get(&n).map(|held| &held.secret)
    }

    /// The newest, greatest number first.
    pub(super) fn newest(&self) -> impl Iterator<Item = (u32, &NetSecret)> {
        self.by_number
            .iter()
            .rev()
            .map(|(n, held)| (*n, &held.secret))
    }

    pub(super) fn openers(&self, byte: u8, mesh_s: u64) -> Vec<Opener<'_>> {
        let of_byte = |(n, _): &(&u32, &Held)| n.to_le_bytes()[0] == byte;
        let newest = self.by_number.iter().rev().filter(of_byte);
        newest
            .take(TRIED_PER_BYTE)
            .map(|(n, held)| Opener {
                n: *n,
                secret: &held.secret,
                reach: self.reach(*n, mesh_s),
            })
            .collect()
    }

    pub(super) fn reach(&self, n: u32, mesh_s: u64) -> Reach {
        let next = self.by_number.range(n.saturating_add(1)..).next();
        let is_old =
            |(_, next): (&u32, &Held)| mesh_s > next.made_s.saturating_add(SUPERSEDED_GRACE_S);
        if next.is_some_and(is_old) {
            Reach::Admins
        } else {
            Reach::Everyone
        }
    }
}
