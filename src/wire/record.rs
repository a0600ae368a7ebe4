//! Records: what is replicated (protocol §7, §11). The signed envelope and the bodies of all kinds.

use std::sync::Arc;

use crate::{
    addr::Underlay,
    ids::{Boot, JoinId, NodeId, Slot, Version},
};

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

#[derive(Debug)]
struct Envelope {
    bytes: Box<[u8]>,
    kind: Kind,
    seq: u64,
    subject: [u8; 32],
    signer: [u8; 32],
    slot: Slot,
    id: [u8; 32],
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// One label.
    pub name: String,
    /// The domain all names end in.
    pub domain: String,
    /// The IPv4 pool: octets, prefix length.
    pub pool4: ipnet::Ipv4Net,
    /// Unix s.
    pub created: u64,
}

/// What an admin may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Bits: 1 admit, 2 revoke, 4 policy.
    pub rights: u64,
}

/// A membership certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The issued peer name.
    pub name: String,
    /// Drawn at the first admission, copied by renewals.
    pub admission: [u8; 8],
    /// Unix s of the first admission, copied by renewals.
    pub admitted_at: u64,
    /// Offset of the issued IPv4 address in the pool.
    pub offset4: Option<u64>,
    /// Groups.
    pub groups: Option<Vec<String>>,
    /// 0 member, 1 leaf. Critical.
    pub role: u64,
    /// Names of services that may be published, `*` at the end allowed. Critical.
    pub offers: Option<Vec<String>>,
    /// Unix s. Critical.
    pub not_after: u64,
    /// Prefixes that may be routed here. Critical.
    pub routes: Option<Vec<Vec<u8>>>,
    /// How many guests may be hosted. Critical.
    pub guests: Option<u64>,
}

/// A peer's keys and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The tunnel key, ed25519 form.
    pub tunnel: [u8; 32],
    /// Signature by the tunnel key over the node id.
    pub cross: [u8; 64],
    /// Lowest protocol version spoken.
    pub wire_min: u64,
    /// Highest protocol version spoken.
    pub wire_max: u64,
    /// Feature bits as in Hello.
    pub features: u64,
    /// Bits: 1 full, 2 dialable, 4 home, 8 relay, 16 stream.
    pub flags: u64,
    /// At most 4 candidates.
    pub addresses: Option<Vec<Underlay>>,
}

/// That a peer's records are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The boot of the run that made it.
    pub incarnation: Boot,
    /// Unix s.
    pub expires: u64,
    /// Whether the peer said that it left.
    pub left: bool,
}

/// One instance of a service; without ports it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The service's name.
    pub service: String,
    /// The instance's name; the peer's name by default.
    pub instance: String,
    /// `IP protocol << 16 | port` each.
    pub ports: Vec<u64>,
    /// Whether the agent splices it to a target.
    pub spliced: bool,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Weight; absent: 100.
    pub weight: Option<u64>,
    /// Zone.
    pub zone: Option<String>,
    /// Keys and values in turn.
    pub meta: Option<Vec<String>>,
}

/// That a node is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Unix s; what an admin signed since is void.
    pub since: u64,
}

/// A network secret. Its number is also the record's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Which epoch.
    pub n: u32,
    /// The secret.
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
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The key that opens an Introduce.
    pub introduce: [u8; 32],
    /// Unix s.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Unix s.
    pub time: u64,
    /// How many Revokes it holds.
    pub count: u64,
    /// A hash over them.
    pub hash: [u8; 32],
    /// The seq of its policy record.
    pub policy: u64,
}

impl Record {
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
