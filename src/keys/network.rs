//! What all members share, and the keys made of it (protocol §2, §3).

use ring::hkdf;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::hidden;
use crate::{
    hash::{Use, hash},
    ids::NodeId,
};

/// `net_secret[n]`: what every member shares in one epoch.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct NetSecret(pub [u8; 32]);

hidden!(NetSecret);

impl NetSecret {
    /// The key that seals a Knock to this receiver.
    pub fn knock_key(&self, receiver: NodeId) -> [u8; 32] {
        hash(Use::Knock, &[&self.0, &receiver.0])
    }

    /// The key of the mac that begins a TLS stream: that of a Knock for nobody, since the client does not know yet who
    /// answers at an address.
    pub fn stream_key(&self) -> [u8; 32] {
        self.knock_key(NodeId([0; 32]))
    }

    /// The key that seals a LAN beacon.
    pub fn beacon_key(&self) -> [u8; 32] {
        hash(Use::Beacon, &[&self.0])
    }
}

/// The preshared key of a pair: epoch 0's secret bound to both ids, the same whichever comes first.
pub fn pair_psk(secret0: &NetSecret, a: NodeId, b: NodeId) -> [u8; 32] {
    let (lower, higher) = if a < b { (a, b) } else { (b, a) };
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"webmesh").extract(&secret0.0);
    let info: [&[u8]; 3] = [b"webmesh 1 psk", &lower.0, &higher.0];
    let mut psk = [0; 32];
    prk.expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut psk))
        .expect("HKDF-SHA256 gives up to 8,160 bytes");
    psk
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);
    const CAROL: NodeId = NodeId([3; 32]);

    #[test]
    fn a_pair_has_one_psk_whoever_asks_and_no_other_pair_has_it() {
        let secret = NetSecret([7; 32]);
        let psk = pair_psk(&secret, ALICE, BOB);
        assert_eq!(psk, pair_psk(&secret, BOB, ALICE));
        assert_ne!(psk, pair_psk(&secret, ALICE, CAROL));
        assert_ne!(psk, pair_psk(&NetSecret([8; 32]), ALICE, BOB));
    }

    #[test]
    fn a_knock_to_one_receiver_opens_at_no_other() {
        let secret = NetSecret([7; 32]);
        assert_ne!(secret.knock_key(ALICE), secret.knock_key(BOB));
        assert_ne!(secret.knock_key(ALICE), secret.beacon_key());
        assert_eq!(format!("{secret:?}"), "NetSecret(…)");
    }
}
