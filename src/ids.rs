//! Ids: who and what things are, in types that cannot be mistaken for each other.
//!
//! Knows how ids are written for people. Refuses to know what they name.

use std::fmt;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let head = self.0.get(..4).unwrap_or(&self.0);
                write!(f, concat!(stringify!($name), "({}…)"), data_encoding::HEXLOWER.encode(head))
            }
        }
    };
}

byte_id!(
    /// A peer: its ed25519 public key.
    NodeId, 32
);
byte_id!(
    /// A network: the hash of its root public key.
    NetworkId, 32
);
byte_id!(
    /// An invite: a hash of its secret.
    JoinId, 8
);
byte_id!(
    /// One run of an agent: drawn at every start.
    Boot, 8
);
byte_id!(
    /// The place of a record in the registry: (kind, subject, key) hashed. Its first 6 bits are its digest bucket.
    Slot, 8
);

/// Names under `.internal` that clouds, containers and virtual machines use already, and that no network gets by its own
/// name (design §3).
pub const ZONES_IN_USE: [&str; 7] = [
    "google",
    "ec2",
    "compute",
    "docker",
    "containers",
    "lima",
    "minikube",
];

/// The version of the record in a slot: `seq << 16 | first two bytes of its hash` (protocol §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// By what right a record was signed (protocol §7, §8). Greater beats lesser where records compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The subject signed about itself.
    Own,
    /// An admin signed.
    Admin,
    /// The root key signed.
    Root,
}

/// A node id as this process counts it: small, dense, given once by [`Interner`] and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIx(pub u32);

/// One join session of this process, on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinIx(pub u32);

/// One way through a relay, as this process counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegIx(pub u32);

/// One TLS stream to another agent, as this process counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIx(pub u32);

/// One way by which a third peer hands handshakes on, as this process counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandIx(pub u32);

/// What a WireGuard state is for. A join session lives beside the pair's own (protocol §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionId {
    /// The one session of this machine with a peer of the network.
    Pair(PeerIx),
    /// A session made by a token.
    Join(JoinIx),
}

/// Gives every node id a [`PeerIx`], at the door, once.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    by_id: std::collections::BTreeMap<NodeId, PeerIx>,
    ids: Vec<NodeId>,
}

impl Interner {
    /// The index of `node`, given now if it has none.
    pub fn intern(&mut self, node: NodeId) -> PeerIx {
        if let Some(ix) = self.by_id.get(&node) {
            return *ix;
        }
        let ix = PeerIx(u32::try_from(self.ids.len()).expect("fewer than 2^32 nodes are ever met"));
        self.ids.push(node);
        self.by_id.insert(node, ix);
        ix
    }

    /// The index of `node` if it has one.
    pub fn find(&self, node: NodeId) -> Option<PeerIx> {
        self.by_id.get(&node).copied()
    }

    /// The node id behind an index that this interner gave.
    pub fn node(&self, ix: PeerIx) -> NodeId {
        self.ids[ix.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printed_whole_and_debugged_short() {
        let id = JoinId([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(id.to_string(), "00010203040506ff");
        assert_eq!(format!("{id:?}"), "JoinId(00010203…)");
    }

    #[test]
    fn an_interner_gives_each_node_one_index_and_takes_none_back() {
        let (alice, bob) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut interner = Interner::default();
        assert_eq!(interner.find(alice), None);
        let first = interner.intern(alice);
        let second = interner.intern(bob);
        assert_ne!(first, second);
        assert_eq!(
            (interner.intern(alice), interner.find(alice)),
            (first, Some(first))
        );
        assert_eq!((interner.node(first), interner.node(second)), (alice, bob));
    }
}
