//! Services this peer publishes: what they are, where they are spliced to, and the IPv4 addresses chosen for them.
//!
//! Knows definitions and the ports drawn for them. Refuses to know records, sockets and what other peers serve.

use std::net::SocketAddr;

use crate::tables::Transport;

/// Where splice listeners are drawn from (design §10): above what programs ask for, below the ephemeral ports.
pub const SPLICE_PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// A service that `service add` published, kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// The instance's name.
    pub instance: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port others dial.
    pub port: u16,
    /// Where the program listens, if it is spliced there.
    pub target: Option<SocketAddr>,
    /// The splice listener's port, drawn once from 20000–29999; None without target.
    pub splice_port: Option<u16>,
    /// Tags.
    pub tags: Vec<String>,
    /// Weight; 100 is the usual.
    pub weight: u32,
}

/// One listener the shell must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Splice {
    /// TCP or UDP.
    pub transport: Transport,
    /// Where to listen, on the own mesh addresses.
    pub listen_port: u16,
    /// Where to connect.
    pub target: SocketAddr,
}
