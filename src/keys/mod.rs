//! Keys and secrets: node, root and tunnel keys, network and invite secrets, tokens and recovery codes (protocol §3,
//! §8, §9). Wiped on drop where the crates allow it.
//!
//! Knows how keys are made from seeds, what is signed under which word, and the text forms of tokens and codes.
//! Refuses to know who holds a key, and draws no randomness: seeds come from outside.

use crate::{
    hash::{Use, short},
    ids::JoinId,
};

/// `net_secret[n]`: what every member shares in one epoch.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct NetSecret(pub [u8; 32]);

/// The secret of one invite; whoever has it may join.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct InviteSecret(pub [u8; 16]);

/// The 128 bits from which the root key is made and the recovery code is written.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct RootSeed(pub [u8; 16]);

macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
hidden!(NetSecret, InviteSecret, RootSeed);

impl InviteSecret {
    /// The invite's id, which is no secret.
    pub fn join_id(&self) -> JoinId {
        JoinId(short(Use::JoinId, &[&self.0]))
    }
}
