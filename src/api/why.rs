//! Why a peer or a service is reached the way it is: `why` and its answer. Name, policy, pick, path, door, in the order in
//! which a packet meets them.

use serde::{Deserialize, Serialize};

use super::{Door, Path};

/// Options of `why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhyRequest {
    /// Which network; with one it is the default.
    pub network: Option<String>,
    /// A name or an address, with `:PORT` or without.
    pub what: String,
    /// Unix s: how it was then, in the last 24 hours.
    pub at: Option<u64>,
}

/// Answer to `why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyReply {
    /// The peer's name.
    pub peer: String,
    /// Whether what was asked for is reached; was reached, with `at`.
    pub reached: bool,
    /// The first thing that is in the way, or else why the path is what it is.
    pub cause: WhyCause,
    /// What would help, if anything is in the way.
    pub remedy: Option<WhyRemedy>,
    /// The number of the rule that lets it through.
    pub policy_rule: u32,
    /// Of a service: who was picked.
    pub pick: Option<WhyPick>,
    /// How packets reach the peer. None with `at`.
    pub path: Option<WhyPath>,
    /// What the peer's host says to who comes to the port, if one was asked for.
    pub door: Option<Door>,
    /// Whether the peer is this machine.
    pub is_own: bool,
    /// How it was, with `at`.
    pub past: Option<WhyPast>,
}

/// Which instance of a service was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyPick {
    /// The service's name.
    pub service: String,
    /// How many of its instances are up.
    pub up: u32,
    /// How many there are.
    pub instances: u32,
}

/// How packets reach a peer, and why not better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyPath {
    /// The path; None: there is none.
    pub path: Option<Path>,
    /// The round trip on it.
    pub rtt_ms: Option<f64>,
    /// Why it is so.
    pub cause: WhyCause,
    /// What would help.
    pub remedy: Option<WhyRemedy>,
    /// What it was before in this session.
    pub before: Option<WhyBefore>,
    /// Every address of the peer that is known, and what came of it.
    pub addresses: Vec<WhyAddress>,
    /// In how many seconds a better path is tried; None: when either has a new address.
    pub next_try_s: Option<u64>,
    /// The peers that were asked for it in vain.
    pub asked: Vec<String>,
    /// Those of them that have no session with it.
    pub absent: Vec<String>,
    /// Seconds since the last packet of it.
    pub last_heard_s: Option<f64>,
    /// The links of this machine without a carrier, where there is no other way out.
    pub unplugged: Vec<String>,
    /// This machine's UDP port.
    pub port: u16,
    /// Whether this machine has IPv6 beyond its own site; IPv4.
    pub versions_here: WhyVersions,
    /// The same of the peer, as far as its addresses tell.
    pub versions_there: WhyVersions,
}

/// Which IP versions a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyVersions {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// The path before the one of now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyBefore {
    /// Which.
    pub path: Path,
    /// For how long.
    pub for_ms: u64,
}

/// An address at which a peer may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAddress {
    /// `address:port`.
    pub address: String,
    /// Who says so.
    pub source: WhySource,
    /// The names of those that saw it there.
    pub seen_by: Vec<String>,
    /// What came of it.
    pub outcome: WhyOutcome,
    /// Pings or handshakes sent there.
    pub sent: Option<u32>,
    /// In how many seconds it is tried again.
    pub again_s: Option<u64>,
}

/// Who says that a peer is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhySource {
    /// The peer: its address in its own LAN.
    Lan,
    /// The peer: its IPv6 address.
    Ipv6,
    /// The peer: its public address.
    Public,
    /// Others, who saw it there.
    Seen,
    /// Packets of it came from there.
    Packets,
}

/// What came of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyOutcome {
    /// Data goes there.
    InUse,
    /// It answers, and another path is better.
    Spare,
    /// It does not answer.
    NoAnswer,
    /// It is being tried.
    Trying,
    /// It failed while data went there.
    Failed,
    /// This machine has no IPv4.
    NoIpv4,
    /// This machine has no IPv6.
    NoIpv6,
    /// It is an address in the LAN of another site.
    OtherSite,
    /// Nobody but the peer saw it there.
    Unattested,
    /// There are enough others.
    Many,
    /// It was not needed.
    Unneeded,
    /// It gets its first probe later.
    Waiting,
}

/// Why something is reached as it is, or is not; for programs a word, for people a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyCause {
    /// Both are on one LAN.
    Lan,
    /// The peer is reached from outside.
    OpenThere,
    /// This machine is reached from outside.
    OpenHere,
    /// The peer has a public address and no NAT.
    BareThere,
    /// This machine has.
    BareHere,
    /// Both NATs or firewalls were opened from within, at once.
    Punched,
    /// A better path is being tried.
    Trying,
    /// The direct path failed a moment ago.
    JustFailed,
    /// One has IPv4 alone, the other IPv6 alone.
    NoCommonVersion,
    /// UDP does not get out here.
    UdpBlockedHere,
    /// UDP does not get out at the peer.
    UdpBlockedThere,
    /// Both NATs give a new port to every destination.
    BothHard,
    /// This machine's does.
    HardHere,
    /// The peer's does.
    HardThere,
    /// This machine's firewall lets in only whom it knows.
    FirewallHere,
    /// The peer's public address answers nothing.
    FirewallThere,
    /// The router here is behind another NAT.
    DoubleNat,
    /// No address of the peer is known that leads there.
    NoAddress,
    /// No probe was answered.
    NoAnswer,
    /// This machine reaches nobody.
    Offline,
    /// Nobody carries for the two.
    NoRelay,
    /// The path that stood fails, and another is being looked for.
    Lost,
    /// The DHT is being asked.
    Meeting,
    /// Others are asked to call it.
    Calling,
    /// Nobody at all was heard of late.
    Silence,
    /// The peer answers nobody.
    PeerOff,
    /// It said good-bye: its agent or its machine was stopped.
    Left,
    /// Nobody has wanted the peer.
    Unasked,
    /// The peer is out of the network.
    Revoked,
    /// The host drops what comes to the port.
    DoorDropped,
    /// The host refuses what comes to the port.
    DoorClosed,
    /// The program listens on 127.0.0.1 alone.
    DoorLoopback,
    /// It is this machine.
    Own,
    /// No session stood.
    NoSession,
    /// Nothing was written down of that time.
    NotRecorded,
}

/// What would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyRemedy {
    /// A port mapping at either router.
    PortMapping,
    /// A port mapping at the peer's router.
    PortMappingThere,
    /// UDP let out here.
    UdpHere,
    /// UDP let out at the peer.
    UdpThere,
    /// UDP let in by this machine's firewall.
    FirewallHere,
    /// UDP let in by the peer's.
    FirewallThere,
    /// The other IP version on one side.
    CommonVersion,
    /// A way out for this machine.
    Online,
    /// The peer switched on.
    PeerOn,
    /// That, or a way out for this machine.
    EitherOn,
    /// A peer that carries.
    Relay,
    /// Time.
    Patience,
    /// The firewall of the peer's host opened.
    Firewall,
    /// A program that listens.
    Program,
}

/// How it was at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyPast {
    /// The time, unix s.
    pub at: u64,
    /// Since when anything was written down, unix s.
    pub recorded_since: Option<u64>,
    /// What was so then; None: nothing was written down.
    pub then: Option<WhyChange>,
    /// All that is written down, the oldest first.
    pub changes: Vec<WhyChange>,
}

/// One change of the way to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyChange {
    /// When, unix ms.
    pub at_ms: u64,
    /// From then on how.
    pub way: WhyWay,
    /// By which path, with [`WhyWay::Path`].
    pub path: Option<Path>,
    /// Why no better one was found.
    pub cause: Option<WhyCause>,
}

/// Whether a peer was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyWay {
    /// By a path.
    Path,
    /// No session stood.
    NoSession,
    /// It was wanted in vain.
    Unreached,
}

impl WhyCause {
    /// The code, as JSON has it.
    pub fn code(self) -> String {
        let code = serde_json::to_value(self).expect("a cause is a word");
        code.as_str().expect("a cause is a word").to_owned()
    }
}
