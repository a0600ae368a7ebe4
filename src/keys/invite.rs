//! The secret of an invite and the keys made of it (protocol §2, §9).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::hidden;
use crate::{
    hash::{Use, hash, short},
    ids::JoinId,
};

/// The secret of one invite; whoever has it may join.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret(pub [u8; 16]);

hidden!(InviteSecret);

impl InviteSecret {
    /// The invite's id, which is no secret.
    pub fn join_id(&self) -> JoinId {
        JoinId(short(Use::JoinId, &[&self.0]))
    }

    /// The key that seals a Join.
    pub fn join_key(&self) -> [u8; 32] {
        hash(Use::Join, &[&self.0])
    }

    /// The preshared key of the join session.
    pub fn psk(&self) -> [u8; 32] {
        hash(Use::JoinPsk, &[&self.0])
    }

    /// What stands in the signature of a Join where others have the network id.
    pub fn join_network(&self) -> [u8; 32] {
        hash(Use::JoinNetwork, &[&self.0])
    }

    /// The key that seals an Introduce.
    pub fn introduce_key(&self) -> [u8; 32] {
        hash(Use::Introduce, &[&self.0])
    }

    /// The key that seals a Punch.
    pub fn punch_key(&self) -> [u8; 32] {
        hash(Use::Punch, &[&self.0])
    }
}
