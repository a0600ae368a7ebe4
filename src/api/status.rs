//! `status --json` (design §4). Every field is always there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything there is to see of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`super::VERSION`].
    pub api: u32,
    /// The agent's version.
    pub version: String,
    /// Whether there is a network, and whether it is up here.
    pub state: State,
    /// Which network.
    pub network: Option<Network>,
    /// This machine in it.
    #[serde(rename = "self")]
    pub own: Option<Own>,
    /// All other peers that are known, by name.
    pub peers: Vec<Peer>,
    /// All services, by name.
    pub services: Vec<Service>,
    /// How names resolve here.
    pub dns: Dns,
    /// The Mainline DHT, and whom it has found.
    pub dht: Dht,
    /// Why packets went nowhere, counted.
    pub drops: BTreeMap<String, u64>,
    /// What this machine carries for others; absent while it is in no network or was told not to.
    pub relay: Option<Relayed>,
    /// Which offloads are in use: `on` or `off`.
    pub offloads: BTreeMap<String, String>,
    /// What a person should know.
    pub health: Vec<Health>,
}

/// What a machine carries for others: it cannot read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Pairs of members that have a way through it now.
    pub ways: u64,
    /// Datagrams carried in this run, both directions.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Whether there is a network here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// This machine is in no network.
    None,
    /// It takes part.
    Up,
    /// `webmesh down` was said.
    Down,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Hex.
    pub id: String,
    /// One label.
    pub name: String,
    /// What its names end in.
    pub domain: String,
}

/// This machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Hex.
    pub id: String,
    /// Its issued name.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// None when it uses IPv6 only.
    pub ipv4: Option<String>,
    /// Always there.
    pub ipv6: String,
    /// The UDP port of the underlay.
    pub port: u16,
    /// What kind of NAT it is behind.
    pub nat: Nat,
    /// Unix s.
    pub certificate_until: u64,
}

/// What a peer may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May admit others.
    Admin,
    /// Replicates all records.
    Member,
    /// Asks instead of replicating.
    Leaf,
}

impl Role {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Leaf => "leaf",
        }
    }
}

/// What kind of NAT this machine is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// None.
    None,
    /// One that keeps its port.
    Easy,
    /// One with a new port for every destination.
    Hard,
    /// Nobody has told yet.
    Unknown,
}

/// Another peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Hex.
    pub id: String,
    /// Its issued name.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: String,
    /// How it is.
    pub state: PeerState,
    /// How packets reach it, while a session stands.
    pub path: Option<Path>,
    /// The newest measured round trip.
    pub rtt_ms: Option<f64>,
    /// Inner bytes sent to it.
    pub tx_bytes: u64,
    /// Inner bytes received from it.
    pub rx_bytes: u64,
    /// Seconds since the last handshake.
    pub last_handshake_s: Option<f64>,
    /// Seconds since the last packet of it that authenticated; LAST is made of it.
    pub last_heard_s: Option<f64>,
    /// What seals its bulk data.
    pub transport: Option<Cipher>,
}

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// A session stands.
    Up,
    /// Its lease is in force, no session.
    Idle,
    /// Its lease is over, or it said that it left.
    Away,
    /// It is out for ever.
    Revoked,
}

impl PeerState {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Away => "away",
            Self::Revoked => "revoked",
        }
    }
}

/// How packets reach a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// What kind of path.
    pub kind: PathKind,
    /// The other end's address and port, for a direct path.
    pub endpoint: Option<String>,
    /// The relay's name, for a relayed one.
    pub via: Option<String>,
    /// Why it is what it is.
    pub why: Option<String>,
}

/// What kind of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// From socket to socket.
    Direct,
    /// Through another peer.
    Relay,
    /// Through another peer, over TLS.
    Stream,
}

/// What seals bulk data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    /// The WireGuard session itself.
    #[serde(rename = "wireguard")]
    WireGuard,
    /// Our transport with AES.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Our transport with ChaCha.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::WireGuard => "wireguard",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// A service, all instances of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What programs ask for.
    pub domain_name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port programs dial.
    pub port: u16,
    /// How many instances are up.
    pub up: u32,
    /// All instances.
    pub instances: Vec<Instance>,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The peer that serves.
    pub peer: String,
    /// The instance's name.
    pub instance: String,
    /// How it is.
    pub state: InstanceState,
    /// Where it is spliced to; known on the peer that serves only.
    pub target: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its weight among the instances; 100 is the usual.
    #[serde(default = "usual_weight")]
    pub weight: u64,
}

/// What an agent of an older version leaves out.
fn usual_weight() -> u64 {
    super::USUAL_WEIGHT.into()
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// It serves.
    Up,
    /// It does not.
    Down,
    /// It finishes what it has.
    Draining,
    /// Nobody has looked.
    Unknown,
}

impl InstanceState {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How names resolve on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// What our names end in; None in no network.
    pub domain: Option<String>,
    /// The resolver's addresses.
    pub servers: Vec<String>,
    /// What short names are completed with.
    pub search: Vec<String>,
    /// Who sends us our names.
    pub backend: DnsBackend,
    /// Whether names resolve here.
    pub state: DnsState,
}

/// Who on this host sends us the names of our zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsBackend {
    /// systemd-resolved.
    Resolved,
    /// NetworkManager.
    NetworkManager,
    /// openresolv or resolvconf.
    Resolvconf,
    /// `/etc/resolv.conf` names our resolver.
    Forward,
    /// Nobody.
    None,
}

/// Whether our names resolve on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsState {
    /// They do.
    Resolving,
    /// Nobody sends them to our resolver.
    NotResolving,
    /// The host's resolver is being told, in this moment.
    SettingUp,
    /// There is no network, it is down, or `[dns] mode = "off"`.
    Off,
}

/// The Mainline DHT, by which peers are found whom nobody else can bring together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dht {
    /// Whether it is used.
    pub state: DhtState,
    /// Why it is off or out of reach.
    pub why: Option<String>,
    /// Whom it has found since the agent runs, the last one first.
    pub met: Vec<Met>,
}

/// Whether the DHT is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhtState {
    /// It is not: `[rendezvous] dht`, or no entry point, or no network.
    Off,
    /// Nothing is asked of it.
    Idle,
    /// A client of it runs.
    InUse,
    /// It cannot be entered.
    Unreachable,
}

/// A peer that the DHT has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Met {
    /// Its name.
    pub peer: String,
    /// How long ago.
    pub ago_s: u64,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How bad it is.
    pub level: Level,
    /// For programs: a code of design §4.
    pub code: String,
    /// What is so.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Works, but odd.
    Warning,
    /// Does not work.
    Error,
}
