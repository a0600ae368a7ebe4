//! From two shared secrets to keys (protocol §6): transcript hash, HKDF-SHA256, confirmations.

use aws_lc_rs::{digest, hkdf, hmac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    kem::Shared,
    layout::{CONFIRM_LEN, UNCONFIRMED_LEN},
};
use crate::{
    ids::{NetworkId, NodeId},
    wire::exchange::INIT_LEN,
};

const TRANSCRIPT: &[u8] = b"webmesh/kex/1\0";
const KEYS: &[u8] = b"webmesh/transport/1\0";
/// Two keys, two IVs and two confirmation keys.
const OKM_LEN: usize = 152;

/// A peer as the transcript names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its node id.
    pub node: NodeId,
    /// Its tunnel key in ed25519 form, as its Peer record carries it.
    pub tunnel: [u8; 32],
}

/// What both must agree on before any message.
#[derive(Clone)]
pub struct Ground {
    /// The network.
    pub network: NetworkId,
    /// The lower node id.
    pub initiator: End,
    /// The other.
    pub responder: End,
    /// The preshared key of the pair.
    pub psk: [u8; 32],
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.psk.zeroize();
    }
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (initiator, responder) = (self.initiator.node, self.responder.node);
        write!(f, "Ground({initiator:?} → {responder:?})")
    }
}

/// The key and the IV of one direction.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Direction {
    /// The AEAD's key.
    pub key: [u8; 32],
    /// What the counter is mixed into.
    pub iv: [u8; 12],
}

impl std::fmt::Debug for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direction(…)")
    }
}

/// All that follows from one exchange.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What the initiator seals by.
    pub to_responder: Direction,
    /// What the responder seals by.
    pub to_initiator: Direction,
    /// Ends the Response.
    pub confirm_responder: [u8; CONFIRM_LEN],
    /// Ends the Done.
    pub confirm_initiator: [u8; CONFIRM_LEN],
}

impl Schedule {
    /// Derives everything from the messages as they went over the wire and the two secrets.
    pub fn derive(
        ground: &Ground,
        init: &[u8; INIT_LEN],
        unconfirmed: &[u8; UNCONFIRMED_LEN],
        (kem, x25519): (&Shared, &Shared),
    ) -> Self {
        let transcript = transcript(ground, init, unconfirmed);
        let mut secrets = [0; 64];
        secrets[..32].copy_from_slice(&kem[..]);
        secrets[32..].copy_from_slice(&x25519[..]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &ground.psk).extract(&secrets);
        secrets.zeroize();
        let mut okm = [0; OKM_LEN];
        extracted
            .expand(&[KEYS, &transcript], OkmLen)
            .and_then(|expanded| expanded.fill(&mut okm))
            .expect("HKDF-SHA256 gives up to 8,160 bytes");
        let schedule = Self {
            to_responder: direction(&okm, 0),
            to_initiator: direction(&okm, 44),
            confirm_responder: confirmation(&okm[88..120], &transcript),
            confirm_initiator: confirmation(&okm[120..], &transcript),
        };
        okm.zeroize();
        schedule
    }
}

/// Whether two confirmations are the same, in a time that does not tell where they differ.
pub fn is_confirmed(expected: &[u8; CONFIRM_LEN], found: &[u8; CONFIRM_LEN]) -> bool {
    expected.ct_eq(found).into()
}

fn transcript(
    ground: &Ground,
    init: &[u8; INIT_LEN],
    unconfirmed: &[u8; UNCONFIRMED_LEN],
) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(TRANSCRIPT);
    hash.update(&ground.network.0);
    hash.update(&ground.initiator.node.0);
    hash.update(&ground.responder.node.0);
    hash.update(&ground.initiator.tunnel);
    hash.update(&ground.responder.tunnel);
    hash.update(init);
    hash.update(unconfirmed);
    let hash = hash.finish();
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn direction(okm: &[u8; OKM_LEN], at: usize) -> Direction {
    Direction {
        key: *okm[at..].first_chunk().expect("the key is inside"),
        iv: *okm[at + 32..].first_chunk().expect("the IV is inside"),
    }
}

fn confirmation(key: &[u8], transcript: &[u8; 32]) -> [u8; CONFIRM_LEN] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, transcript);
    *tag.as_ref()
        .first_chunk()
        .expect("HMAC-SHA256 has 32 bytes")
}

struct OkmLen;

impl hkdf::KeyType for OkmLen {
    fn len(&self) -> usize {
        OKM_LEN
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn ground() -> Ground {
        let end = |byte| End {
            node: NodeId([byte; 32]),
            tunnel: [byte + 1; 32],
        };
        Ground {
            network: NetworkId([1; 32]),
            initiator: end(2),
            responder: end(4),
            psk: [6; 32],
        }
    }

    fn all(schedule: &Schedule) -> Vec<Vec<u8>> {
        vec![
            schedule.to_responder.key.to_vec(),
            schedule.to_responder.iv.to_vec(),
            schedule.to_initiator.key.to_vec(),
            schedule.to_initiator.iv.to_vec(),
            schedule.confirm_responder.to_vec(),
            schedule.confirm_initiator.to_vec(),
        ]
    }

    #[test]
    fn everything_depends_on_every_input() {
        let secret = |byte| Zeroizing::new([byte; 32]);
        let (init, response) = ([7; INIT_LEN], [8; UNCONFIRMED_LEN]);
        let derive = |ground: &Ground| {
            all(&Schedule::derive(
                ground,
                &init,
                &response,
                (&secret(9), &secret(10)),
            ))
        };
        let base = derive(&ground());
        let changes: [fn(&mut Ground); 6] = [
            |ground| ground.network.0[31] ^= 1,
            |ground| ground.initiator.node.0[31] ^= 1,
            |ground| ground.responder.node.0[0] ^= 1,
            |ground| ground.initiator.tunnel[0] ^= 1,
            |ground| ground.responder.tunnel[0] ^= 1,
            |ground| ground.psk[0] ^= 1,
        ];
        let mut others: Vec<_> = changes
            .into_iter()
            .map(|change| {
                let mut ground = ground();
                change(&mut ground);
                derive(&ground)
            })
            .collect();
        let with = |init: &_, response: &_, kem, x25519| {
            let secrets = (&secret(kem), &secret(x25519));
            all(&Schedule::derive(&ground(), init, response, secrets))
        };
        let (mut other_init, mut other_response) = (init, response);
        other_init[INIT_LEN - 1] ^= 1;
        other_response[UNCONFIRMED_LEN - 1] ^= 1;
        others.push(with(&other_init, &response, 9, 10));
        others.push(with(&init, &other_response, 9, 10));
        others.push(with(&init, &response, 10, 10));
        others.push(with(&init, &response, 9, 9));
        others.push(with(&init, &response, 10, 9));
        for other in others {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn nothing_that_is_printed_holds_a_key() {
        let secret = Zeroizing::new([9; 32]);
        let schedule = Schedule::derive(
            &ground(),
            &[0; INIT_LEN],
            &[0; UNCONFIRMED_LEN],
            (&secret, &secret),
        );
        let printed = format!("{:?} {:?}", schedule.to_responder, ground());
        assert_eq!(
            printed,
            "Direction(…) Ground(NodeId(02020202…) → NodeId(04040404…))"
        );
    }

    #[test]
    fn a_confirmation_is_equal_or_it_is_none() {
        assert!(is_confirmed(&[1; CONFIRM_LEN], &[1; CONFIRM_LEN]));
        for at in 0..CONFIRM_LEN {
            let mut other = [1; CONFIRM_LEN];
            other[at] ^= 0x80;
            assert!(!is_confirmed(&[1; CONFIRM_LEN], &other));
        }
    }
}
