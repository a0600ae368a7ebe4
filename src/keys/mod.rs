//! Keys and secrets: node, root and tunnel keys, network and invite secrets, tokens and recovery codes (protocol §3,
//! §8, §9). Wiped on drop where the crates allow it.
//!
//! Knows how keys are made from seeds, what is signed under which word, and the text forms of tokens and codes.
//! Refuses to know who holds a key, and draws no randomness: seeds come from outside.

mod invite;
mod network;
mod node;
mod root;
mod slot;
mod token;
mod tunnel;

pub use invite::InviteSecret;
pub use network::{NetSecret, pair_psk};
pub use node::{NodeKey, Word, verify};
pub use root::{CodeRefused, RootKey, RootSeed, verify_root};
pub use slot::SlotKey;
pub use token::{HINTS_MAX, NAME_MAX, Token, TokenRefused, people_id};
pub use tunnel::{TunnelKey, verify_tunnel, x25519_form};

/// Lets a secret be printed only as its type's name.
macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
use hidden;
