//! What a peer is to do in the DHT now: invites to be met by, a network to be found in.

use crate::keys::{InviteSecret, NetSecret};

/// What a peer is to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// Invites to be met by.
    pub meetings: Vec<Meeting>,
    /// A network to be found in.
    pub network: Option<NetworkDuty>,
}

/// One invite to be met by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The token's secret.
    pub secret: InviteSecret,
    /// Which side this machine is.
    pub side: Side,
}

/// The sides of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who made it.
    Issuer,
    /// Who holds the token.
    Joiner,
}

/// A network to be found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDuty {
    /// The secrets that slots are made by: the newest, and the one before while it counts.
    pub epochs: Vec<(u32, NetSecret)>,
    /// How busily.
    pub pace: Pace,
}

/// How busily a network's slots are tended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No session stands.
    Lonely,
    /// This peer looks out for those who are missing, for a component in which nobody can be dialled.
    Watching,
    /// This peer can be dialled, as can so many in all; one of them also reads.
    Dialable {
        /// How many can be dialled, this one counted.
        writers: u32,
        /// Whether this is the one.
        surveys: bool,
    },
}

impl Pace {
    /// What its deadlines depend on.
    pub(super) fn beat(self) -> (u8, bool) {
        match self {
            Self::Lonely => (0, false),
            Self::Watching => (1, false),
            Self::Dialable { surveys, .. } => (2, surveys),
        }
    }
}

impl Side {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Issuer => 0,
            Self::Joiner => 1,
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Issuer => Self::Joiner,
            Self::Joiner => Self::Issuer,
        }
    }
}
