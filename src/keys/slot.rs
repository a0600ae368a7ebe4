//! The keys of slots in the Mainline DHT (protocol §12): who can make the seed can find, read and write the slot.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{InviteSecret, NetSecret, NodeKey, hidden};
use crate::hash::{Use, hash};

/// The keys of one slot.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SlotKey {
    /// Signs what is put; its public half is the slot's address.
    pub seed: [u8; 32],
    /// Seals what is put.
    pub seal: [u8; 32],
}

hidden!(SlotKey);

impl SlotKey {
    /// The public key by which the DHT knows the slot.
    pub fn public(&self) -> [u8; 32] {
        NodeKey::from_seed(self.seed).id().0
    }
}

impl NetSecret {
    /// Slot `i` of a day (mesh time / 86400) in a generation.
    pub fn slot(&self, day: u32, i: u8, generation: u8) -> SlotKey {
        let day = day.to_le_bytes();
        let parts: [&[u8]; 4] = [&self.0, &day, &[i], &[generation]];
        SlotKey {
            seed: hash(Use::SlotKey, &parts),
            seal: hash(Use::SlotSeal, &parts),
        }
    }
}

impl InviteSecret {
    /// The slot in which one side of an invite says where it is: 0 the issuer, 1 the joiner.
    pub fn slot(&self, side: u8) -> SlotKey {
        let parts: [&[u8]; 2] = [&self.0, &[side]];
        SlotKey {
            seed: hash(Use::InviteSlot, &parts),
            seal: hash(Use::InviteSeal, &parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_slot_and_generation_has_keys_of_its_own() {
        let secret = NetSecret([7; 32]);
        let slot = secret.slot(20_000, 1, 0);
        for other in [
            secret.slot(20_001, 1, 0),
            secret.slot(20_000, 2, 0),
            secret.slot(20_000, 1, 1),
            NetSecret([8; 32]).slot(20_000, 1, 0),
        ] {
            assert_ne!(slot.public(), other.public());
            assert_ne!(slot.seal, other.seal);
        }
    }

    #[test]
    fn the_sides_of_an_invite_do_not_share_a_slot() {
        let invite = InviteSecret([7; 16]);
        let (issuer, joiner) = (invite.slot(0), invite.slot(1));
        assert_ne!(issuer.public(), joiner.public());
        assert_ne!(issuer.seed, issuer.seal);
        assert_eq!(format!("{issuer:?}"), "SlotKey(…)");
    }
}
