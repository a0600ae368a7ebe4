//! What records say (protocol §11): one type per kind, and the key that follows from it.

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{self, Layout, layout},
    fields,
    record::{Kind, RECORD_MAX},
};
use crate::{
    addr::Underlay,
    hash::{Use, short},
    ids::{Boot, JoinId},
};

/// Bytes of the longest name of a service or an instance: a label of DNS (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;
/// An address list of a Peer record may hold this many (protocol §11).
const ADDRESSES_MAX: usize = 4;

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

impl Body {
    /// Reads the body of a record of this kind, which has this key in its envelope.
    pub(super) fn decode(kind: Kind, key: &[u8], bytes: &[u8]) -> Result<Self, Unusable> {
        let body = match kind {
            Kind::Network => Self::Network(read(bytes)?),
            Kind::Admin => Self::Admin(read(bytes)?),
            Kind::Member => Self::Member(read(bytes)?),
            Kind::Peer => Self::Peer(bounded_peer(read(bytes)?)?),
            Kind::Lease => Self::Lease(read(bytes)?),
            Kind::Service => Self::Service(bounded_service(read(bytes)?)?),
            Kind::Revoke => Self::Revoke(read(bytes)?),
            Kind::Epoch => Self::Epoch(read(bytes)?),
            Kind::Invite => match key.try_into() {
                Ok(join_id) => Self::Invite(read(bytes)?, JoinId(join_id)),
                Err(_) => return Err(Malformed::Layout.into()),
            },
            Kind::Heartbeat => Self::Heartbeat(read(bytes)?),
            Kind::Health | Kind::Policy | Kind::Unknown(_) => return Ok(Self::Opaque),
        };
        if body.key() == key {
            Ok(body)
        } else {
            Err(Malformed::Entry.into())
        }
    }

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

    pub(super) fn to_bytes(&self) -> Vec<u8> {
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

/// The key of a Service record: one instance of one service. Names longer than 255 bytes count as their first 255.
pub fn service_key(service: &str, instance: &str) -> [u8; 16] {
    let counted = |text: &str| {
        let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let bytes = text.as_bytes().iter().copied().take(len.into());
        std::iter::once(len).chain(bytes).collect::<Vec<u8>>()
    };
    short(Use::ServiceKey, &[&counted(service), &counted(instance)])
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

fn bounded_service(service: Service) -> Result<Service, Unusable> {
    if service.service.len() > LABEL_MAX || service.instance.len() > LABEL_MAX {
        return Err(Malformed::Entry.into());
    }
    Ok(service)
}
