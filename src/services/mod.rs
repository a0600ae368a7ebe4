//! Services this peer publishes: what they are, where they are spliced to, and the IPv4 addresses chosen for them.
//!
//! Knows definitions and the ports drawn for them. Refuses to know records, sockets and what other peers serve.

mod ports;
mod vips;

use std::net::SocketAddr;

pub use self::{
    ports::{SPLICE_PORTS, draw_splice_port},
    vips::choose_vip4,
};
use crate::tables::Transport;

/// A service that `service add` or a file published, kept over restarts.
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
    /// The file that defines it; None: somebody added it by `service add`.
    pub defined_in: Option<String>,
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
