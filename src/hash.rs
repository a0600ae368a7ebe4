//! The one hash of the protocol (protocol §0): BLAKE3 in its key-derivation mode, a different context for every use.
//!
//! Knows the list of uses of protocol §11 and nothing else. A use that is not in [`Use`] does not exist.

/// What a hash is for. The text of each is fixed by protocol §11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The id of a network, from its root public key.
    Network,
    /// The key that seals a Knock.
    Knock,
    /// The key that seals a LAN beacon.
    Beacon,
    /// The id of an invite.
    JoinId,
    /// The key that seals a Join.
    Join,
    /// The preshared key of a join session.
    JoinPsk,
    /// What stands where a network id stands in the signature of a Join.
    JoinNetwork,
    /// The key that seals an Introduce.
    Introduce,
    /// The key that seals a Punch.
    Punch,
    /// The mac that opens a TLS stream.
    Stream,
    /// The slot of a record.
    Slot,
    /// The id of a record.
    Record,
    /// The sums of the reconciliation digest.
    Digest,
    /// The record key of a service.
    ServiceKey,
    /// The check of a token.
    Token,
    /// The root's ed25519 seed, from the recovery seed.
    Root,
    /// The check in a recovery code.
    Recovery,
    /// The order of homes.
    Home,
    /// A peer's IPv4 offset.
    V4,
    /// The network's IPv4 pool.
    V4Pool,
    /// The network's IPv6 prefix.
    V6Network,
    /// A peer's IPv6 address.
    V6Peer,
    /// A service's IPv6 address.
    V6Service,
    /// The checksum of a state slot file.
    State,
    /// The checksum of a row.
    Row,
    /// What tells a router that this machine is who it was, in PCP.
    Mapping,
    /// The key of a network slot in the DHT.
    SlotKey,
    /// The seal of a network slot in the DHT.
    SlotSeal,
    /// The key of an invite slot in the DHT.
    InviteSlot,
    /// The seal of an invite slot in the DHT.
    InviteSeal,
    /// The macs by which a way through a relay is bound.
    RelayBind,
}

impl Use {
    const fn context(self) -> &'static str {
        match self {
            Self::Network => "webmesh 1 network",
            Self::Knock => "webmesh 1 knock",
            Self::Beacon => "webmesh 1 beacon",
            Self::JoinId => "webmesh 1 join id",
            Self::Join => "webmesh 1 join",
            Self::JoinPsk => "webmesh 1 join psk",
            Self::JoinNetwork => "webmesh 1 join network",
            Self::Introduce => "webmesh 1 introduce",
            Self::Punch => "webmesh 1 punch",
            Self::Stream => "webmesh 1 stream",
            Self::Slot => "webmesh 1 slot",
            Self::Record => "webmesh 1 record",
            Self::Digest => "webmesh 1 digest",
            Self::ServiceKey => "webmesh 1 service key",
            Self::Token => "webmesh 1 token",
            Self::Root => "webmesh 1 root",
            Self::Recovery => "webmesh 1 recovery",
            Self::Home => "webmesh 1 home",
            Self::V4 => "webmesh 1 v4",
            Self::V4Pool => "webmesh 1 v4 pool",
            Self::V6Network => "webmesh 1 v6 network",
            Self::V6Peer => "webmesh 1 v6 peer",
            Self::V6Service => "webmesh 1 v6 service",
            Self::State => "webmesh 1 state",
            Self::Row => "webmesh 1 row",
            Self::Mapping => "webmesh 1 mapping",
            Self::SlotKey => "webmesh 1 slot key",
            Self::SlotSeal => "webmesh 1 slot seal",
            Self::InviteSlot => "webmesh 1 invite slot",
            Self::InviteSeal => "webmesh 1 invite seal",
            Self::RelayBind => "webmesh 1 relay bind",
        }
    }
}

/// `H(use, parts joined)`: 32 bytes. Where the protocol shortens it, the caller takes the first bytes.
pub fn hash(purpose: Use, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose.context());
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The first `N` bytes of [`hash`]; `N` is at most 32.
pub fn short<const N: usize>(purpose: Use, parts: &[&[u8]]) -> [u8; N] {
    let whole = hash(purpose, parts);
    std::array::from_fn(|i| whole[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_hashed_as_if_joined() {
        assert_eq!(
            hash(Use::Slot, &[b"a", b"", b"bc"]),
            hash(Use::Slot, &[b"abc"])
        );
    }

    #[test]
    fn one_use_says_nothing_about_another() {
        assert_ne!(hash(Use::Join, &[b"abc"]), hash(Use::JoinPsk, &[b"abc"]));
    }

    #[test]
    fn a_short_hash_is_the_beginning_of_the_long_one() {
        let long = hash(Use::Record, &[b"abc"]);
        assert_eq!(short::<8>(Use::Record, &[b"abc"]), long[..8]);
        assert_eq!(short::<32>(Use::Record, &[b"abc"]), long);
    }
}
