//! What a node must find again after a restart, beside its records and rows: the file `state.{a,b}` (design §11).

use std::net::Ipv4Addr;

use crate::{
    ids::{JoinId, NodeId},
    keys::{InviteSecret, RootSeed},
    services::Published,
};

/// The kept state of one network. Small; written whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// On the first admin, until `root forget`.
    pub root: Option<RootSeed>,
    /// Invites this peer issued, open or spent, until 7 days after they ended.
    pub invites: Vec<KeptInvite>,
    /// Services added by `service add`.
    pub services: Vec<Published>,
    /// The IPv4 addresses this peer chose for services, by name.
    pub vips: Vec<(String, Ipv4Addr)>,
    /// Whether `webmesh down` was said.
    pub down: bool,
    /// The floor under mesh time, unix s: the newest time seen in what admins signed.
    pub floor_s: u64,
}

/// One invite of this issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptInvite {
    /// Its secret; the token's.
    pub secret: InviteSecret,
    /// Unix s.
    pub expires_s: u64,
    /// How many may join by it.
    pub uses: u32,
    /// What the joiners become.
    pub role: InviteRole,
    /// What the joiners may offer.
    pub offers: Vec<String>,
    /// Unix s, when it was taken back.
    pub cancelled_s: Option<u64>,
    /// Who joined by it.
    pub spends: Vec<Spend>,
}

impl KeptInvite {
    /// Its id.
    pub fn id(&self) -> JoinId {
        self.secret.join_id()
    }
}

/// What an invite makes of who joins by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteRole {
    /// A member.
    Member,
    /// A member that may admit others.
    Admin,
}

/// One use of an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Who.
    pub node: NodeId,
    /// Under which name.
    pub name: String,
    /// Unix s.
    pub at_s: u64,
}
