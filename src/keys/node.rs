//! The key that is a peer's identity, and what every signature of the protocol covers (protocol §0).

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::hidden;
use crate::ids::NodeId;

/// What a signature is for (protocol §11). A signature under one word says nothing under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A record.
    Record,
    /// That a tunnel key belongs to a node; signed by the tunnel key.
    Tunnel,
    /// A Knock.
    Knock,
    /// A Join.
    Join,
    /// A LAN beacon.
    Beacon,
}

impl Word {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Record => b"webmesh/record/1\0",
            Self::Tunnel => b"webmesh/tunnel/1\0",
            Self::Knock => b"webmesh/knock/1\0",
            Self::Join => b"webmesh/join/1\0",
            Self::Beacon => b"webmesh/beacon/1\0",
        }
    }
}

/// A peer's ed25519 key pair. Its public half is the peer's id.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

hidden!(NodeKey);

impl NodeKey {
    /// Makes the key from its seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The peer's id.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs parts, joined, under a word and a network.
    pub fn sign(&self, word: Word, network: &[u8; 32], parts: &[&[u8]]) -> [u8; 64] {
        sign(&self.0, word, network, parts)
    }
}

/// Whether the signature is the node's over these parts, joined, under this word and network.
pub fn verify(
    node: NodeId,
    word: Word,
    network: &[u8; 32],
    parts: &[&[u8]],
    signature: &[u8; 64],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&node.0) else {
        return false;
    };
    key.verify_strict(
        &input(word, network, parts),
        &Signature::from_bytes(signature),
    )
    .is_ok()
}

pub(super) fn sign(key: &SigningKey, word: Word, network: &[u8; 32], parts: &[&[u8]]) -> [u8; 64] {
    key.sign(&input(word, network, parts)).to_bytes()
}

fn input(word: Word, network: &[u8; 32], parts: &[&[u8]]) -> Vec<u8> {
    let mut input = [word.prefix(), network].concat();
    for part in parts {
        input.extend_from_slice(part);
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: [u8; 32] = [9; 32];

    #[test]
    fn a_signature_holds_for_its_word_network_node_and_bytes_alone() {
        let (alice, mallory) = (NodeKey::from_seed([1; 32]), NodeKey::from_seed([2; 32]));
        let signature = alice.sign(Word::Knock, &NETWORK, &[b"to bob", b"hello"]);
        let holds = |node, word, network, bytes| verify(node, word, network, &[bytes], &signature);
        assert!(holds(alice.id(), Word::Knock, &NETWORK, b"to bobhello"));
        assert!(!holds(mallory.id(), Word::Knock, &NETWORK, b"to bobhello"));
        assert!(!holds(alice.id(), Word::Join, &NETWORK, b"to bobhello"));
        assert!(!holds(alice.id(), Word::Knock, &[8; 32], b"to bobhello"));
        assert!(!holds(alice.id(), Word::Knock, &NETWORK, b"to bobhellO"));
    }

    #[test]
    fn a_weak_key_verifies_nothing() {
        // With the neutral point as key and as R, and s = 0, a verification that is not strict takes any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(
            NodeId(neutral),
            Word::Record,
            &NETWORK,
            &[b"anything"],
            &signature
        ));
    }
}
