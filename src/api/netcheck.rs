//! What is known of the way between this machine and the world: the answer to `netcheck`.

use serde::{Deserialize, Serialize};

use super::{Dht, Nat};

/// Answer to `netcheck`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetcheckReply {
    /// The network's name.
    pub network: String,
    /// The UDP port of this machine.
    pub port: u16,
    /// The links of this machine without a carrier, where there is no other way out.
    pub unplugged: Vec<String>,
    /// `address:port` of the interfaces on the default route; of all where there is none.
    pub interfaces: Vec<String>,
    /// Where other peers see this machine, those that most agree on first.
    pub observed: Vec<Observed>,
    /// What kind of NAT lies between.
    pub nat: Nat,
    /// `address:port` at which others came in that this machine had sent nothing to.
    pub reached: Vec<String>,
    /// What this machine tells others of where it is.
    pub published: Vec<String>,
    /// Whether datagrams come and go.
    pub udp: Udp,
    /// The hole in the router.
    pub port_mapping: PortMapping,
    /// The neighbours.
    pub lan: Lan,
    /// The Mainline DHT.
    pub dht: Dht,
}

/// An address under which others see this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// `address:port`.
    pub address: String,
    /// How many see it there now.
    pub observers: u32,
}

/// Whether datagrams come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Udp {
    /// Whether a session over UDP stands, which needs both ways.
    pub state: UdpState,
    /// How many do.
    pub sessions: u32,
}

/// What is known of UDP here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdpState {
    /// It gets out, and answers come in.
    Works,
    /// Sessions stand on TLS streams, and none over UDP.
    Blocked,
    /// Nobody has answered in this run: there may be nobody.
    Unknown,
}

/// What the home router said when it was asked to let others in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// What came of it.
    pub state: PortMappingState,
    /// `PCP`, `NAT-PMP` or `UPnP`, where the router spoke one.
    pub protocol: Option<String>,
    /// `address:port` outside the router, with [`PortMappingState::Mapped`] and [`PortMappingState::DoubleNat`].
    pub external: Option<String>,
    /// The router's no, in its own words.
    pub why: Option<String>,
}

/// What came of asking the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortMappingState {
    /// `[rendezvous] port_mapping = false`.
    Off,
    /// This machine has a public address, or no router.
    Unneeded,
    /// It is being asked.
    Asking,
    /// Others are let in.
    Mapped,
    /// It would let others in, but is behind another router itself.
    DoubleNat,
    /// It said no.
    Refused,
    /// It speaks none of the three protocols.
    Silent,
}

/// The LANs this machine is in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lan {
    /// Whether it listens and speaks there.
    pub on: bool,
    /// In how many.
    pub places: u32,
    /// Members heard there, the latest first.
    pub heard: Vec<Neighbour>,
}

/// A member heard on the LAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its name.
    pub peer: String,
    /// `address:port` there.
    pub address: String,
    /// How long ago it spoke.
    pub ago_s: f64,
}
