//! The key of a peer's tunnels: an ed25519 pair, so that it can sign for its owner, used in x25519 form (protocol §3).

use ed25519_dalek::{SigningKey, VerifyingKey};

use super::{
    hidden,
    node::{Word, sign, verify},
};
use crate::ids::NodeId;

/// A peer's tunnel key pair.
#[derive(Clone)]
pub struct TunnelKey(SigningKey);

hidden!(TunnelKey);

impl TunnelKey {
    /// Makes the key from its seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The public half in ed25519 form, as Peer records and Joins carry it.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The public half in x25519 form, as WireGuard and tokens use it.
    pub fn x25519_public(&self) -> [u8; 32] {
        self.0.verifying_key().to_montgomery().to_bytes()
    }

    /// The secret half in x25519 form: WireGuard's static secret.
    pub fn x25519_secret(&self) -> x25519_dalek::StaticSecret {
        x25519_dalek::StaticSecret::from(self.0.to_scalar_bytes())
    }

    /// Says by signature that this tunnel key is the node's, so that nobody else can claim it.
    pub fn cross_sign(&self, node: NodeId, network: &[u8; 32]) -> [u8; 64] {
        sign(&self.0, Word::Tunnel, network, &[&node.0])
    }
}

/// Whether a tunnel key, in ed25519 form, says that it is the node's.
pub fn verify_tunnel(
    tunnel: &[u8; 32],
    node: NodeId,
    network: &[u8; 32],
    cross: &[u8; 64],
) -> bool {
    verify(NodeId(*tunnel), Word::Tunnel, network, &[&node.0], cross)
}

/// The x25519 form of a tunnel key; `None` for what is no point and for points of small order, with which a shared
/// secret would be known to all.
pub fn x25519_form(tunnel: &[u8; 32]) -> Option<[u8; 32]> {
    let key = VerifyingKey::from_bytes(tunnel).ok()?;
    (!key.is_weak()).then(|| key.to_montgomery().to_bytes())
}
