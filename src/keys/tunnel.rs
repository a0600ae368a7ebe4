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

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of small order whose encodings have no free bits, from RFC 7748's curve in Edwards form.
    const SMALL: [&str; 6] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];

    fn bytes(hex: &str) -> [u8; 32] {
        data_encoding::HEXLOWER
            .decode(hex.as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    }

    #[test]
    fn points_of_small_order_have_no_x25519_form() {
        for point in SMALL {
            assert_eq!(x25519_form(&bytes(point)), None, "{point}");
        }
    }

    #[test]
    fn what_is_no_point_has_no_x25519_form() {
        let refused = (0..=255)
            .filter(|byte| x25519_form(&[*byte; 32]).is_none())
            .count();
        assert!(
            (64..192).contains(&refused),
            "about half of all values are no points: {refused}"
        );
    }

    #[test]
    fn two_tunnel_keys_agree_on_a_secret() {
        let (a, b) = (TunnelKey::from_seed([1; 32]), TunnelKey::from_seed([2; 32]));
        let public =
            |key: &TunnelKey| x25519_dalek::PublicKey::from(x25519_form(&key.public()).unwrap());
        let ab = a.x25519_secret().diffie_hellman(&public(&b));
        let ba = b.x25519_secret().diffie_hellman(&public(&a));
        assert_eq!(ab.to_bytes(), ba.to_bytes());
    }

    #[test]
    fn a_key_is_debugged_without_its_secret() {
        assert_eq!(
            format!("{:?}", TunnelKey::from_seed([1; 32])),
            "TunnelKey(…)"
        );
    }
}
