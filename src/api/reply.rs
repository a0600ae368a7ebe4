//! What each verb answers. `status` has its own file.

use serde::{Deserialize, Serialize};

use super::{ApiError, Dns, Instance, Network, Own, Path, Peer, Protocol, Role, Service};

/// Answer to `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReply {
    /// The new network.
    pub network: Network,
    /// This machine in it.
    #[serde(rename = "self")]
    pub own: Own,
    /// How others reach this machine.
    pub reach: Reach,
    /// How names resolve here.
    pub dns: Dns,
    /// The policy in one line.
    pub policy: String,
    /// What makes any machine an admin; shown this once.
    pub recovery_code: String,
    /// What to know about it.
    pub warnings: Vec<ApiError>,
}

/// How others reach this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// What is known of it.
    pub kind: ReachKind,
    /// `address:port`; behind a NAT its public address alone. None when this machine has no address at all.
    pub address: Option<String>,
}

/// What is known of how others reach this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachKind {
    /// Somebody outside did.
    Reached,
    /// Nobody has tried.
    Untried,
    /// Behind a NAT whose port is mapped to us.
    NatMapped,
    /// Behind a NAT.
    Nat,
}

/// Answer to `invite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteReply {
    /// The network's name.
    pub network: String,
    /// The invite's id for people.
    pub id: String,
    /// What the other machine is told.
    pub token: String,
    /// Unix s.
    pub expires: u64,
    /// How many machines may join by it.
    pub uses: u32,
    /// What they become.
    pub role: Role,
    /// Why a machine elsewhere may not get in by it, and what would help.
    pub warning: Option<String>,
}

/// Answer to `invite list`: the open ones, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteListReply {
    /// The network's name.
    pub network: String,
    /// The open invites.
    pub invites: Vec<OpenInvite>,
}

/// An invite that somebody may still use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvite {
    /// Its id for people.
    pub id: String,
    /// What the joiner becomes.
    pub role: Role,
    /// How many may still join by it.
    pub uses_left: u32,
    /// Unix s.
    pub expires: u64,
    /// Who joined by it.
    pub used_by: Vec<String>,
}

/// Answer to `invite cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteCancelReply {
    /// The id of the invite taken back.
    pub id: String,
    /// Who had joined by it; they stay members.
    pub used_by: Vec<String>,
}

/// Answer to `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    /// The network.
    pub network: Network,
    /// This machine in it.
    #[serde(rename = "self")]
    pub own: Own,
    /// Who admitted it.
    pub issuer: String,
    /// How long it took.
    pub took_ms: u64,
    /// How many peers there are, this machine not counted.
    pub peers: u32,
    /// All services.
    pub services: Vec<Service>,
    /// How names resolve here.
    pub dns: Dns,
}

/// Answer to `up`, `down` and `leave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReply {
    /// The network.
    pub network: Network,
    /// This machine in it; None after `leave`.
    #[serde(rename = "self")]
    pub own: Option<Own>,
    /// What to know about it.
    #[serde(default)]
    pub warnings: Vec<ApiError>,
}

/// Answer to `peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersReply {
    /// All, or the one asked for.
    pub peers: Vec<Peer>,
    /// More of the one asked for.
    pub details: Option<PeerDetails>,
}

/// More of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerDetails {
    /// Its domain name.
    pub domain_name: String,
    /// What it may.
    pub role: Role,
    /// Its groups.
    pub groups: Vec<String>,
    /// Unix s of its first admission.
    pub admitted_at: u64,
    /// Unix s.
    pub certificate_until: u64,
    /// Its agent's version, once it said so.
    pub version: Option<String>,
    /// Where it says it can be dialled.
    pub endpoints: Vec<String>,
    /// The names of its services.
    pub services: Vec<String>,
}

/// Answer to `wait`; talk is text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitReply {
    /// How long it took.
    pub took_ms: f64,
}

/// One answer of a peer; the talk of `ping`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The round trip.
    pub rtt_ms: f64,
    /// By which path.
    pub path: Path,
}

/// Answer to `ping`, when at least one answer came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Who answered.
    pub peer: String,
    /// How often was asked.
    pub sent: u32,
    /// The answers; the talk again.
    pub pongs: Vec<Pong>,
}

/// Answer to `whois`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoisReply {
    /// What it is.
    pub kind: WhoisKind,
    /// Its name.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// What a peer may.
    pub role: Option<Role>,
    /// Unix s: since when a peer is what it is.
    pub since: Option<u64>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Who serves a service.
    pub served_by: Vec<String>,
}

/// What an address or a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhoisKind {
    /// A peer.
    Peer,
    /// A service.
    Service,
    /// The agent's own resolver.
    Resolver,
}

/// Answer to `dns query`, when there is something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQueryReply {
    /// The name after completion.
    pub name: String,
    /// The records, in the order of the answer.
    pub answers: Vec<DnsAnswer>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// Its type by name.
    #[serde(rename = "type")]
    pub record_type: String,
    /// What it says, as in a zone file.
    pub data: String,
    /// How long it may be kept.
    pub ttl_s: u32,
}

/// Answer to `service add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAddReply {
    /// Its name.
    pub name: String,
    /// What programs ask for: under the peer where the certificate allows no more.
    pub domain_name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port others dial.
    pub port: u16,
    /// This machine.
    pub peer: String,
    /// Where it is spliced to.
    pub target: Option<String>,
    /// What it was before, if its port or target is another now: `:80`, or `:80 → 127.0.0.1:8080`.
    #[serde(default)]
    pub was: Option<String>,
    /// What came of knocking at one's own door.
    pub door: Door,
    /// What to know about it, beside the door.
    pub warnings: Vec<ApiError>,
}

/// What the host says to who comes to a service's port from the mesh (design §10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Door {
    /// What came of it.
    pub verdict: DoorVerdict,
    /// The port that it is about: the target's where that was tried, or the service's own.
    pub port: u16,
    /// The first and the last port that a firewall must let in on the device: the service's own, or with a target all that
    /// the agent takes for such services, since the one of today may be another tomorrow.
    pub let_in: [u16; 2],
    /// From the SYN to the answer; with [`DoorVerdict::Accepted`].
    pub took_ms: Option<f64>,
    /// Who drops it, if that can be told; with [`DoorVerdict::Dropped`].
    pub firewall: Option<String>,
    /// The device through which the mesh comes in.
    pub device: String,
}

/// What came of a door probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorVerdict {
    /// Something accepts.
    Accepted,
    /// Nothing listens.
    Closed,
    /// Something listens, on the loopback address only.
    LoopbackOnly,
    /// The host drops it.
    Dropped,
    /// UDP: something is bound; nobody knows whether it answers.
    Bound,
    /// Not tried.
    Unprobed,
}

/// Answer to `service rm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRemoveReply {
    /// Its name.
    pub name: String,
    /// Who still serves it.
    pub remaining: Vec<Instance>,
}

/// Answer to `service list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceListReply {
    /// All services, by name.
    pub services: Vec<Service>,
}

/// Answer to `service show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShowReply {
    /// The service.
    pub service: Service,
}

/// Answer to `policy show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReply {
    /// The network's name.
    pub network: String,
    /// The rules, in their order.
    pub rules: Vec<PolicyRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Its number, from 1.
    pub number: u32,
    /// As it is written.
    pub rule: String,
    /// Who set it.
    pub source: String,
}

/// Answer to `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverReply {
    /// The network.
    pub network: Network,
    /// This machine in it, an admin now.
    #[serde(rename = "self")]
    pub own: Own,
}

/// Answer to `debug bundle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugBundleReply {
    /// In the order in which a person would ask for them.
    pub parts: Vec<BundlePart>,
}

/// One part of a bundle, a line of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePart {
    /// What it is about.
    pub part: String,
    /// What is so.
    #[serde(flatten)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}
