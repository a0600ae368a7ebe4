//! What a node must find again after a restart, beside its records and rows: the file `state.{a,b}` (design §11).

use std::net::Ipv4Addr;

use crate::{keys::RootSeed, members::invites::Invite, services::Published};

/// The kept state of one network. Small; written whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// On the first admin, until `root forget`.
    pub root: Option<RootSeed>,
    /// Invites this peer issued, open or spent, until 7 days after they ended.
    pub invites: Vec<Invite>,
    /// Services added by `service add`.
    pub services: Vec<Published>,
    /// The IPv4 addresses this peer chose for services, by name.
    pub vips: Vec<(String, Ipv4Addr)>,
    /// Whether `webmesh down` was said.
    pub down: bool,
    /// The floor under mesh time, unix s: the newest time seen in what admins signed.
    pub floor_s: u64,
}
