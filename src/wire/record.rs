//! Records: what is replicated (protocol §7, §11). The signed envelope; what stands in it is `body.rs`.

use std::{ops::Range, sync::Arc};

pub use super::body::{
    Admin, Body, Epoch, Heartbeat, Invite, Lease, Member, Network, Peer, Revoke, Service, Unusable,
    service_key,
};
use super::{Malformed, reader::Reader};
use crate::{
    hash::{Use, hash, short},
    ids::{NodeId, Slot, Version},
};

/// Bytes of the longest record (protocol §7).
pub const RECORD_MAX: usize = 1024;
/// Bytes of the longest Member record: three records fit into a Knock because of it (protocol §7).
pub const MEMBER_MAX: usize = 512;
/// Bytes of the longest Peer record, as above.
pub const PEER_MAX: usize = 336;
/// From here on a seq is refused: it must fit into a version beside two bytes of hash.
pub const SEQ_END: u64 = 1 << 47;

const VERSION: u8 = 1;
const SUBJECT_SIGNS: u16 = 1;
const KEY_MAX: usize = 63;
const SIGNATURE: usize = 64;

/// The kinds of records, by their number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// 1: the network's own facts, by its root.
    Network,
    /// 2: who may admit others, by the root.
    Admin,
    /// 3: a membership certificate, by an admin.
    Member,
    /// 4: a peer's keys and addresses, by itself.
    Peer,
    /// 5: that a peer's records are in force, by itself.
    Lease,
    /// 6: one instance of a service, by the peer that serves.
    Service,
    /// 7: health of a peer's services; its body is not frozen yet.
    Health,
    /// 8: that a node is out, for ever.
    Revoke,
    /// 9: a network secret; only ever sent over links.
    Epoch,
    /// 10: policy; its body is not frozen yet.
    Policy,
    /// 11: an open invite of an issuer that others may introduce to.
    Invite,
    /// 12: that an admin was alive.
    Heartbeat,
    /// Any other: kept and passed on where the subject signs itself.
    Unknown(u8),
}

/// A record as it was received: whole, decoded, not judged. Cheap to clone.
#[derive(Clone)]
pub struct Record(Arc<Envelope>);

/// Without the bytes, which may hold a secret.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("kind", &self.kind())
            .field("seq", &self.seq())
            .field("node", &self.node())
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Record {}

struct Envelope {
    bytes: Box<[u8]>,
    kind: Kind,
    seq: u64,
    subject: [u8; 32],
    signer: [u8; 32],
    key: Range<usize>,
    body: Range<usize>,
    slot: Slot,
    id: [u8; 32],
}

/// Why a draft cannot become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// A body that is not known cannot be made.
    #[error("a record of an unknown kind cannot be made")]
    Opaque,
    /// It would be longer than its kind may be.
    #[error("the record would have {size} bytes, {limit} are allowed: use fewer or shorter values")]
    TooLong {
        /// What it would have.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A number or a list in it is outside its bounds.
    #[error("a value in the record is outside its bounds")]
    Bounds,
}

/// A record about to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Newer than the one it replaces.
    pub seq: u64,
    /// Whom or what it is about.
    pub subject: [u8; 32],
    /// Who will sign; equal to the subject where it signs itself.
    pub signer: [u8; 32],
    /// What it says; the kind and the key follow from it where they can.
    pub body: Body,
}

impl Record {
    /// Reads the envelope of a record. The body is not read, the signature is not checked.
    ///
    /// # Errors
    /// What is not the layout of protocol §7, or longer than its kind may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > RECORD_MAX {
            return Err(Malformed::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let [version, number] = reader.array()?;
        let flags = reader.u16()?;
        let seq = reader.u64()?;
        if version != VERSION || flags & !SUBJECT_SIGNS != 0 || seq >= SEQ_END {
            return Err(Malformed::Layout);
        }
        let kind = Kind::from(number);
        if bytes.len() > kind.limit() {
            return Err(Malformed::TooLong);
        }
        let subject = reader.array()?;
        let signer = if flags == SUBJECT_SIGNS {
            subject
        } else {
            reader.array()?
        };
        let len = reader.u8()?;
        let key = part(bytes, &mut reader, len.into())?;
        let len = reader.u16()?;
        let body = part(bytes, &mut reader, len.into())?;
        reader.array::<SIGNATURE>()?;
        reader.end()?;
        let one_form = flags == SUBJECT_SIGNS || signer != subject;
        if !one_form || key.len() > KEY_MAX || kind.key_len().is_some_and(|len| len != key.len()) {
            return Err(Malformed::Layout);
        }
        let slot = slot_of(kind, &subject, bytes.get(key.clone()).unwrap_or_default());
        let id = hash(Use::Record, &[bytes]);
        Ok(Self(Arc::new(Envelope {
            bytes: bytes.into(),
            kind,
            seq,
            subject,
            signer,
            key,
            body,
            slot,
            id,
        })))
    }

    /// What it says.
    ///
    /// # Errors
    /// Why this build cannot use it.
    pub fn body(&self) -> Result<Body, Unusable> {
        Body::decode(self.0.kind, self.key(), self.part(self.0.body.clone()))
    }

    fn part(&self, range: Range<usize>) -> &[u8] {
        self.0
            .bytes
            .get(range)
            .expect("decode found the parts of the record")
    }

    /// The record as it travels and is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its number among the versions of its slot.
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// Whom or what it is about.
    pub fn subject(&self) -> [u8; 32] {
        self.0.subject
    }

    /// Whom or what it is about, as a node.
    pub fn node(&self) -> NodeId {
        NodeId(self.0.subject)
    }

    /// Who signed it; the subject where it signs itself.
    pub fn signer(&self) -> NodeId {
        NodeId(self.0.signer)
    }

    /// Which of its subject's records of this kind it is.
    pub fn key(&self) -> &[u8] {
        self.part(self.0.key.clone())
    }

    /// What the signature covers under the word "record": all bytes before it.
    pub fn signed_bytes(&self) -> &[u8] {
        self.part(0..self.0.bytes.len().saturating_sub(SIGNATURE))
    }

    /// The signature. Nothing here has checked it.
    pub fn signature(&self) -> [u8; SIGNATURE] {
        *self.0.bytes.last_chunk().expect("decode found a signature")
    }

    /// Its place.
    pub fn slot(&self) -> Slot {
        self.0.slot
    }

    /// Its hash.
    pub fn id(&self) -> [u8; 32] {
        self.0.id
    }

    /// Its version, as adverts name it.
    pub fn version(&self) -> Version {
        Version(self.0.seq << 16 | u64::from(self.0.id[0]) | u64::from(self.0.id[1]) << 8)
    }
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Network,
            2 => Self::Admin,
            3 => Self::Member,
            4 => Self::Peer,
            5 => Self::Lease,
            6 => Self::Service,
            7 => Self::Health,
            8 => Self::Revoke,
            9 => Self::Epoch,
            10 => Self::Policy,
            11 => Self::Invite,
            12 => Self::Heartbeat,
            other => Self::Unknown(other),
        }
    }
}

impl Kind {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Network => 1,
            Self::Admin => 2,
            Self::Member => 3,
            Self::Peer => 4,
            Self::Lease => 5,
            Self::Service => 6,
            Self::Health => 7,
            Self::Revoke => 8,
            Self::Epoch => 9,
            Self::Policy => 10,
            Self::Invite => 11,
            Self::Heartbeat => 12,
            Self::Unknown(number) => number,
        }
    }

    /// Bytes of the longest record of this kind.
    pub fn limit(self) -> usize {
        match self {
            Self::Member => MEMBER_MAX,
            Self::Peer => PEER_MAX,
            Self::Network
            | Self::Admin
            | Self::Lease
            | Self::Service
            | Self::Health
            | Self::Revoke
            | Self::Epoch
            | Self::Policy
            | Self::Invite
            | Self::Heartbeat
            | Self::Unknown(_) => RECORD_MAX,
        }
    }

    /// How long the key of a record of this kind is, where that is fixed.
    fn key_len(self) -> Option<usize> {
        match self {
            Self::Epoch => Some(4),
            Self::Invite => Some(8),
            Self::Service => Some(16),
            Self::Network
            | Self::Admin
            | Self::Member
            | Self::Peer
            | Self::Lease
            | Self::Revoke
            | Self::Policy
            | Self::Heartbeat => Some(0),
            Self::Health | Self::Unknown(_) => None,
        }
    }
}

impl Draft {
    /// The record's bytes before the signature: what is signed under the word "record".
    ///
    /// # Errors
    /// Why no record can be made of it.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, Unsignable> {
        let kind = self.body.kind().ok_or(Unsignable::Opaque)?;
        let (key, body) = (self.body.key(), self.body.to_bytes());
        let flags = if self.signer == self.subject {
            SUBJECT_SIGNS
        } else {
            0
        };
        let (Ok(key_len), Ok(body_len)) = (u8::try_from(key.len()), u16::try_from(body.len()))
        else {
            return Err(Unsignable::TooLong {
                size: body.len(),
                limit: kind.limit(),
            });
        };
        let mut out = vec![VERSION, kind.number()];
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.subject);
        if flags != SUBJECT_SIGNS {
            out.extend_from_slice(&self.signer);
        }
        out.push(key_len);
        out.extend_from_slice(&key);
        out.extend_from_slice(&body_len.to_le_bytes());
        out.extend_from_slice(&body);
        let size = out.len() + SIGNATURE;
        if size > kind.limit() {
            return Err(Unsignable::TooLong {
                size,
                limit: kind.limit(),
            });
        }
        Ok(out)
    }

    /// Makes the record; `sign` gets the bytes to be signed.
    ///
    /// # Errors
    /// Why no record can be made of it; nothing was signed that could be used.
    pub fn sign_with(
        &self,
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE],
    ) -> Result<Record, Unsignable> {
        let mut bytes = self.signed_bytes()?;
        let signature = sign(&bytes);
        bytes.extend_from_slice(&signature);
        let Ok(record) = Record::decode(&bytes) else {
            return Err(Unsignable::Bounds);
        };
        match record.body() {
            Ok(_) => Ok(record),
            Err(_) => Err(Unsignable::Bounds),
        }
    }
}

/// The slot of the record with this kind, subject and key.
pub fn slot_of(kind: Kind, subject: &[u8; 32], key: &[u8]) -> Slot {
    Slot(short(Use::Slot, &[&[kind.number()], subject, key]))
}

fn part(bytes: &[u8], reader: &mut Reader<'_>, len: usize) -> Result<Range<usize>, Malformed> {
    let start = bytes.len() - reader.rest().len();
    reader.slice(len)?;
    Ok(start..start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::Underlay, ids::Boot};

    const ALICE: [u8; 32] = [1; 32];
    const ADMIN: [u8; 32] = [2; 32];
    const FLAGS: usize = 2;
    const KEY_LEN: usize = 44;

    fn lease() -> Body {
        Body::Lease(Lease {
            incarnation: Boot([0; 8]),
            expires: 1,
            left: false,
        })
    }

    fn epoch() -> Body {
        Body::Epoch(Epoch {
            n: 3,
            secret: [0; 32],
        })
    }

    fn peer(addresses: usize) -> Body {
        let address = Underlay::new("[2001:db8::1]:1".parse().unwrap());
        Body::Peer(Peer {
            tunnel: [0; 32],
            cross: [0; 64],
            wire_min: 1,
            wire_max: 1,
            features: u64::MAX,
            flags: 31,
            addresses: Some(vec![address; addresses]),
        })
    }

    fn member(name: &str) -> Body {
        Body::Member(Member {
            name: name.into(),
            admission: [0; 8],
            admitted_at: 0,
            offset4: None,
            groups: None,
            role: 0,
            offers: None,
            not_after: 0,
            routes: None,
            guests: None,
        })
    }

    fn draft(signer: [u8; 32], body: Body) -> Draft {
        Draft {
            seq: 5,
            subject: ALICE,
            signer,
            body,
        }
    }

    fn made(signer: [u8; 32], body: Body) -> Result<Record, Unsignable> {
        draft(signer, body).sign_with(|_| [9; 64])
    }

    #[test]
    fn a_signer_is_written_only_where_it_is_another() {
        let own = made(ALICE, lease()).unwrap();
        let other = made(ADMIN, lease()).unwrap();
        assert_eq!(other.bytes().len(), own.bytes().len() + 32);
        assert_eq!(
            (own.signer(), other.signer()),
            (NodeId(ALICE), NodeId(ADMIN))
        );
        assert_eq!(own.slot(), other.slot());
        let mut twice = other.bytes().to_vec();
        twice[44..76].copy_from_slice(&ALICE);
        assert_eq!(
            Record::decode(&twice).unwrap_err(),
            Malformed::Layout,
            "one meaning, one form"
        );
    }

    #[test]
    fn unknown_flags_and_another_version_are_refused() {
        let record = made(ALICE, lease()).unwrap();
        for at in [0, FLAGS, FLAGS + 1] {
            let mut bytes = record.bytes().to_vec();
            bytes[at] ^= 2;
            assert_eq!(
                Record::decode(&bytes).unwrap_err(),
                Malformed::Layout,
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_seq_is_below_2_to_the_47() {
        let with = |seq| {
            Draft {
                seq,
                ..draft(ALICE, lease())
            }
            .sign_with(|_| [0; 64])
        };
        let last = with(SEQ_END - 1).unwrap();
        assert_eq!(with(SEQ_END), Err(Unsignable::Bounds));
        assert_eq!(last.version().0 >> 16, SEQ_END - 1);
        assert_eq!(last.version().0.to_le_bytes()[..2], last.id()[..2]);
    }

    #[test]
    fn a_key_has_the_length_its_kind_demands() {
        let record = made(ALICE, lease()).unwrap();
        let mut bytes = record.bytes().to_vec();
        bytes[KEY_LEN] = 1;
        bytes.insert(KEY_LEN + 1, 0);
        assert_eq!(Record::decode(&bytes).unwrap_err(), Malformed::Layout);
    }

    #[test]
    fn a_key_that_does_not_follow_from_the_body_makes_it_unusable() {
        let record = made(ALICE, epoch()).unwrap();
        let mut bytes = record.bytes().to_vec();
        bytes[KEY_LEN + 1] ^= 1;
        let other = Record::decode(&bytes).unwrap();
        assert_ne!(other.slot(), record.slot());
        assert_eq!(other.body(), Err(Unusable::Malformed(Malformed::Entry)));
    }

    #[test]
    fn a_body_that_is_not_of_its_kind_is_unusable() {
        let record = made(ALICE, lease()).unwrap();
        let mut bytes = record.bytes().to_vec();
        bytes[1] = Kind::Heartbeat.number();
        assert_eq!(
            Record::decode(&bytes).unwrap().body(),
            Err(Unusable::Malformed(Malformed::Entry))
        );
    }

    #[test]
    fn no_record_is_longer_than_its_kind_may_be() {
        let long = made(ADMIN, member(&"m".repeat(400)));
        assert!(
            matches!(long, Err(Unsignable::TooLong { size, limit: MEMBER_MAX }) if size > MEMBER_MAX)
        );
        let longest = made(ADMIN, member(&"m".repeat(330))).unwrap();
        assert!(longest.bytes().len() <= MEMBER_MAX);
        let mut bytes = longest.bytes().to_vec();
        bytes[1] = Kind::Peer.number();
        assert_eq!(Record::decode(&bytes).unwrap_err(), Malformed::TooLong);
        assert_eq!(
            Record::decode(&[0; RECORD_MAX + 1]).unwrap_err(),
            Malformed::TooLong
        );
    }

    #[test]
    fn a_peer_with_four_long_addresses_fits_and_a_fifth_is_refused() {
        assert!(made(ALICE, peer(4)).is_ok());
        assert_eq!(made(ALICE, peer(5)), Err(Unsignable::Bounds));
    }

    #[test]
    fn an_opaque_body_cannot_be_made() {
        assert_eq!(made(ALICE, Body::Opaque), Err(Unsignable::Opaque));
    }

    #[test]
    fn an_instance_of_a_service_has_a_slot_of_its_own() {
        assert_ne!(service_key("ab", "c"), service_key("a", "bc"));
        let slots = [
            slot_of(Kind::Service, &ALICE, &service_key("web", "a")),
            slot_of(Kind::Service, &ALICE, &service_key("web", "b")),
            slot_of(Kind::Service, &ADMIN, &service_key("web", "a")),
            slot_of(Kind::Health, &ALICE, &service_key("web", "a")),
        ];
        let different: std::collections::BTreeSet<Slot> = slots.into();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn every_kind_has_one_number() {
        for number in 0..=255 {
            assert_eq!(Kind::from(number).number(), number);
        }
    }

    #[test]
    fn a_record_is_debugged_without_its_secret() {
        let record = made(
            ALICE,
            Body::Epoch(Epoch {
                n: 3,
                secret: [0xee; 32],
            }),
        )
        .unwrap();
        assert!(!format!("{record:?} {:?}", record.body()).contains("238"));
    }
}
