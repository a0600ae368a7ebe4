//! What a lab asks of its world process, and what that answers: one JSON document a line.
//!
//! Knows the words. Refuses to know who speaks them.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::platform::nat;

/// The name of the world's own network namespace: where the wire between routers and public machines lies.
pub const INTERNET: &str = "internet";

/// One thing to make or change in the world. Carried out in order; nothing is undone when one is refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Starts a machine with its own user, mount, network and host-name namespaces and a loopback.
    Machine(MachineOrder),
    /// Makes a bridge and takes it up.
    Bridge {
        /// In which machine.
        at: String,
        /// Its name.
        name: String,
    },
    /// Makes a veth pair and takes both ends up.
    Cable {
        /// One end.
        near: Plug,
        /// The other.
        far: Plug,
    },
    /// Takes a link away, with a cable's other end.
    Unplug {
        /// In which machine.
        at: String,
        /// Its name.
        link: String,
    },
    /// Sets the largest packet of a link.
    Mtu {
        /// In which machine.
        at: String,
        /// The link.
        link: String,
        /// Bytes.
        mtu: u32,
    },
    /// Adds an address.
    Address {
        /// In which machine.
        at: String,
        /// To which link.
        link: String,
        /// The address with its prefix.
        net: IpNet,
    },
    /// Takes an address away.
    RemoveAddress {
        /// In which machine.
        at: String,
        /// From which link.
        link: String,
        /// The address with its prefix.
        net: IpNet,
    },
    /// Adds a route.
    Route {
        /// In which machine.
        at: String,
        /// Where to.
        to: IpNet,
        /// Through whom.
        via: IpAddr,
    },
    /// Makes a machine forward packets, and translate those that leave by its link `wan`.
    Router {
        /// Which machine.
        at: String,
        /// Its public link.
        wan: String,
        /// How ports are given out.
        nat: NatKind,
    },
}

/// What a new machine needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineOrder {
    /// Its name, which is its host name too.
    pub name: String,
    /// Shown there as `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Shown there as `/etc/nsswitch.conf`.
    pub nsswitch_conf: PathBuf,
    /// An empty directory of the machine's own.
    pub scratch: PathBuf,
}

/// Where one end of a cable comes to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plug {
    /// In which machine.
    pub at: String,
    /// The link's name, at most 15 bytes.
    pub link: String,
    /// The bridge it is plugged into, if any.
    pub bridge: Option<String>,
}

/// How a router translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatKind {
    /// The port is kept where it is free.
    Masquerade,
    /// A new port for every flow.
    Symmetric,
}

impl From<NatKind> for nat::Nat {
    fn from(kind: NatKind) -> Self {
        match kind {
            NatKind::Masquerade => Self::Masquerade,
            NatKind::Symmetric => Self::Symmetric,
        }
    }
}

/// What came of an order; the first one is said unasked, when the world stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The machine, or at first the world itself, stands.
    Stands {
        /// The process that holds its namespaces.
        pid: u32,
    },
    /// The kernel keeps this for root.
    Forbidden(String),
    /// It could not be done.
    Refused(String),
}
