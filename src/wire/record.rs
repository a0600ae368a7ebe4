//! Records: what is replicated (protocol §7, §11). The signed envelope and the bodies of all kinds.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{self, Layout, layout},
    fields,
    reader::Reader,
};
use crate::{
    addr::Underlay,
    hash::{Use, hash, short},
    ids::{Boot, JoinId, NodeId, Slot, Version},
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
/// An address list of a Peer record may hold this many.
const ADDRESSES_MAX: usize = 4;

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
#[derive(Clone, Debug)]
pub struct Record(Arc<Envelope>);

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Record {}

#[derive(Debug)]
struct Envelope {
    bytes: Box<[u8]>,
    kind: Kind,
    seq: u64,
    subject: [u8; 32],
    signer: [u8; 32],
    key: std::ops::Range<usize>,
    body: std::ops::Range<usize>,
    slot: Slot,
    id: [u8; 32],
}

/// Why the body of a record is of no use to this build. The record itself may still be stored and passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unusable {
    /// It has an unknown entry that only newer builds may act without.
    #[error("has an unknown critical entry")]
    Critical,
    /// It is not a body of its kind: nobody may pass it on.
    #[error(transparent)]
    Malformed(#[from] Malformed),
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

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Kind 1.
    Network(Network),
    /// Kind 2.
    Admin(Admin),
    /// Kind 3.
    Member(Member),
    /// Kind 4.
    Peer(Peer),
    /// Kind 5.
    Lease(Lease),
    /// Kind 6.
    Service(Service),
    /// Kind 8.
    Revoke(Revoke),
    /// Kind 9.
    Epoch(Epoch),
    /// Kind 11; the key is the join id, which the body does not repeat.
    Invite(Invite, JoinId),
    /// Kind 12.
    Heartbeat(Heartbeat),
    /// Kinds 7 and 10 and those not known: carried, never read.
    Opaque,
}

/// The network's own facts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Network {
    /// One label.
    #[n(1)]
    pub name: String,
    /// The domain all names end in.
    #[n(2)]
    pub domain: String,
    /// The IPv4 pool: octets, prefix length.
    #[cbor(n(3), with = "fields::pool4")]
    pub pool4: ipnet::Ipv4Net,
    /// Unix s.
    #[n(4)]
    pub created: u64,
}

/// What an admin may do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Admin {
    /// Bits: 1 admit, 2 revoke, 4 policy.
    #[n(1)]
    pub rights: u64,
}

/// A membership certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// The issued peer name.
    #[n(1)]
    pub name: String,
    /// Drawn at the first admission, copied by renewals.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub admission: [u8; 8],
    /// Unix s of the first admission, copied by renewals.
    #[n(3)]
    pub admitted_at: u64,
    /// Offset of the issued IPv4 address in the pool.
    #[n(4)]
    pub offset4: Option<u64>,
    /// Groups.
    #[n(5)]
    pub groups: Option<Vec<String>>,
    /// 0 member, 1 leaf. Critical.
    #[n(128)]
    pub role: u64,
    /// Names of services that may be published, `*` at the end allowed. Critical.
    #[n(129)]
    pub offers: Option<Vec<String>>,
    /// Unix s. Critical.
    #[n(130)]
    pub not_after: u64,
    /// Prefixes that may be routed here. Critical.
    #[cbor(n(131), with = "fields::optional_blobs", has_nil)]
    pub routes: Option<Vec<Vec<u8>>>,
    /// How many guests may be hosted. Critical.
    #[n(132)]
    pub guests: Option<u64>,
}

/// A peer's keys and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Peer {
    /// The tunnel key, ed25519 form.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub tunnel: [u8; 32],
    /// Signature by the tunnel key over the node id.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub cross: [u8; 64],
    /// Lowest protocol version spoken.
    #[n(3)]
    pub wire_min: u64,
    /// Highest protocol version spoken.
    #[n(4)]
    pub wire_max: u64,
    /// Feature bits as in Hello.
    #[n(5)]
    pub features: u64,
    /// Bits: 1 full, 2 dialable, 4 home, 8 relay, 16 stream.
    #[n(6)]
    pub flags: u64,
    /// At most 4 candidates.
    #[n(7)]
    pub addresses: Option<Vec<Underlay>>,
}

/// That a peer's records are in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lease {
    /// The boot of the run that made it.
    #[n(1)]
    pub incarnation: Boot,
    /// Unix s.
    #[n(2)]
    pub expires: u64,
    /// Whether the peer said that it left.
    #[cbor(n(3), with = "fields::flag")]
    pub left: bool,
}

/// One instance of a service; without ports it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Service {
    /// The service's name.
    #[n(1)]
    pub service: String,
    /// The instance's name; the peer's name by default.
    #[n(2)]
    pub instance: String,
    /// `IP protocol << 16 | port` each.
    #[n(3)]
    pub ports: Vec<u64>,
    /// Whether the agent splices it to a target.
    #[cbor(n(4), with = "fields::flag")]
    pub spliced: bool,
    /// Tags.
    #[n(5)]
    pub tags: Option<Vec<String>>,
    /// Weight; absent: 100.
    #[n(6)]
    pub weight: Option<u64>,
    /// Zone.
    #[n(7)]
    pub zone: Option<String>,
    /// Keys and values in turn.
    #[n(8)]
    pub meta: Option<Vec<String>>,
}

/// That a node is out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoke {
    /// Unix s; what an admin signed since is void.
    #[n(1)]
    pub since: u64,
}

/// A network secret. Its number is also the record's key.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Epoch {
    /// Which epoch.
    #[n(1)]
    pub n: u32,
    /// The secret.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoch")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

/// An open invite.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invite {
    /// The key that opens an Introduce.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub introduce: [u8; 32],
    /// Unix s.
    #[n(2)]
    pub expires: u64,
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// That an admin was alive, and what it held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Heartbeat {
    /// Unix s.
    #[n(1)]
    pub time: u64,
    /// How many Revokes it holds.
    #[n(2)]
    pub count: u64,
    /// A hash over them.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// The seq of its policy record.
    #[n(4)]
    pub policy: u64,
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
        let bytes = self.part(self.0.body.clone());
        match self.0.kind {
            Kind::Network => read(bytes).map(Body::Network),
            Kind::Admin => read(bytes).map(Body::Admin),
            Kind::Member => read(bytes).map(Body::Member),
            Kind::Peer => read(bytes).and_then(bounded_peer).map(Body::Peer),
            Kind::Lease => read(bytes).map(Body::Lease),
            Kind::Service => self.keyed(read(bytes).map(Body::Service)?),
            Kind::Revoke => read(bytes).map(Body::Revoke),
            Kind::Epoch => self.keyed(read(bytes).map(Body::Epoch)?),
            Kind::Invite => self.read_invite(bytes),
            Kind::Heartbeat => read(bytes).map(Body::Heartbeat),
            Kind::Health | Kind::Policy | Kind::Unknown(_) => Ok(Body::Opaque),
        }
    }

    /// Passes a body whose key in the envelope is the one that follows from it.
    fn keyed(&self, body: Body) -> Result<Body, Unusable> {
        if body.key() == self.key() {
            Ok(body)
        } else {
            Err(Malformed::Entry.into())
        }
    }

    fn read_invite(&self, bytes: &[u8]) -> Result<Body, Unusable> {
        let Ok(join_id) = self.key().try_into() else {
            return Err(Malformed::Layout.into());
        };
        Ok(Body::Invite(read(bytes)?, JoinId(join_id)))
    }

    fn part(&self, range: std::ops::Range<usize>) -> &[u8] {
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

layout! {
    Network: [1, 2, 3, 4];
    Admin: [1];
    Member: [1, 2, 3, 4, 5, 128, 129, 130, 131, 132];
    Peer: [1, 2, 3, 4, 5, 6, 7];
    Lease: [1, 2, 3];
    Service: [1, 2, 3, 4, 5, 6, 7, 8];
    Revoke: [1];
    Epoch: [1, 2];
    Invite: [1, 2];
    Heartbeat: [1, 2, 3, 4];
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

impl Body {
    /// The kind of a record with this body; none where it is not known.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Network(_) => Some(Kind::Network),
            Self::Admin(_) => Some(Kind::Admin),
            Self::Member(_) => Some(Kind::Member),
            Self::Peer(_) => Some(Kind::Peer),
            Self::Lease(_) => Some(Kind::Lease),
            Self::Service(_) => Some(Kind::Service),
            Self::Revoke(_) => Some(Kind::Revoke),
            Self::Epoch(_) => Some(Kind::Epoch),
            Self::Invite(..) => Some(Kind::Invite),
            Self::Heartbeat(_) => Some(Kind::Heartbeat),
            Self::Opaque => None,
        }
    }

    /// The key of a record with this body (protocol §11).
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Service(service) => service_key(&service.service, &service.instance).to_vec(),
            Self::Epoch(epoch) => epoch.n.to_le_bytes().to_vec(),
            Self::Invite(_, join_id) => join_id.0.to_vec(),
            Self::Network(_)
            | Self::Admin(_)
            | Self::Member(_)
            | Self::Peer(_)
            | Self::Lease(_)
            | Self::Revoke(_)
            | Self::Heartbeat(_)
            | Self::Opaque => Vec::new(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Network(body) => body.to_bytes(),
            Self::Admin(body) => body.to_bytes(),
            Self::Member(body) => body.to_bytes(),
            Self::Peer(body) => body.to_bytes(),
            Self::Lease(body) => body.to_bytes(),
            Self::Service(body) => body.to_bytes(),
            Self::Revoke(body) => body.to_bytes(),
            Self::Epoch(body) => body.to_bytes(),
            Self::Invite(body, _) => body.to_bytes(),
            Self::Heartbeat(body) => body.to_bytes(),
            Self::Opaque => Vec::new(),
        }
    }
}

/// The slot of the record with this kind, subject and key.
pub fn slot_of(kind: Kind, subject: &[u8; 32], key: &[u8]) -> Slot {
    Slot(short(Use::Slot, &[&[kind.number()], subject, key]))
}

/// The key of a Service record: one instance of one service. Names longer than 255 bytes count as their first 255.
pub fn service_key(service: &str, instance: &str) -> [u8; 16] {
    let counted = |text: &str| {
        let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let bytes = text.as_bytes().iter().copied().take(len.into());
        std::iter::once(len).chain(bytes).collect::<Vec<u8>>()
    };
    short(Use::ServiceKey, &[&counted(service), &counted(instance)])
}

fn part(
    bytes: &[u8],
    reader: &mut Reader<'_>,
    len: usize,
) -> Result<std::ops::Range<usize>, Malformed> {
    let start = bytes.len() - reader.rest().len();
    reader.slice(len)?;
    Ok(start..start + len)
}

fn read<T: Layout>(bytes: &[u8]) -> Result<T, Unusable> {
    let decoded = cbor::decode(bytes, RECORD_MAX)?;
    if decoded.critical {
        Err(Unusable::Critical)
    } else {
        Ok(decoded.body)
    }
}

fn bounded_peer(peer: Peer) -> Result<Peer, Unusable> {
    match &peer.addresses {
        Some(addresses) if addresses.len() > ADDRESSES_MAX => Err(Malformed::Entry.into()),
        _ => Ok(peer),
    }
}
