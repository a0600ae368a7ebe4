//! Ways through a third peer (protocol §1, §4 block 50; design §9): a relay carries what two members seal for each other.
//!
//! A *way* joins two *ends* at a relay. Each end has an id there, and frames to the relay carry it; frames to an end carry
//! an id that the end chose. What an end knows of a way is its *leg*. A relay is asked for members, never for addresses;
//! where an end is, it proves by three datagrams ([`binding`]), and nothing goes anywhere else.
//!
//! The relay's side: [`grants`] (who may have a way; control plane) and [`ways`] (what is carried; data thread). The end's
//! side: [`asking`] (which relays to ask, which legs to keep; control plane) and [`legs`] (how a leg is bound and framed;
//! data thread). [`quota`]: how much.
//!
//! Refuses to know sessions, records and what is inside a frame: a relay could not open it.

pub mod asking;
pub mod binding;
pub mod grants;
pub mod legs;
pub mod quota;
#[cfg(test)]
mod tests;
mod waiting;
pub mod ways;

use std::time::Duration;

use crate::{
    addr::Path,
    ids::{LegIx, PeerIx},
};

/// How many relays may lie one behind the other.
pub const DEPTH_MAX: usize = 2;

/// How long an end has to prove where it is (protocol §4).
pub const BIND_WITHIN: Duration = Duration::from_secs(30);

/// A way over which nothing went for so long is forgotten, by all three and without a word.
pub const IDLE: Duration = Duration::from_secs(300);

/// What the control plane asks of the data thread about relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// This machine carries for others at most so much.
    Limit(quota::Limit),
    /// It carries a way from now on, once its ends are bound.
    OpenWay([ways::Given; 2]),
    /// It carries it no more. Either end's id says which.
    CloseWay([u8; 4]),
    /// This machine has a leg, and is to bind it. One with the same number gives way.
    AddLeg {
        /// Which.
        leg: LegIx,
        /// How.
        given: legs::Given,
    },
    /// It says again where it is.
    BindLeg(LegIx),
    /// The relay is found elsewhere now: the leg is bound anew.
    MoveLeg {
        /// Which.
        leg: LegIx,
        /// Where the relay is.
        relay: Path,
    },
    /// Nothing goes over this leg until [`Order::WakeLeg`]: packets for it wait, and say that they do.
    RestLeg(LegIx),
    /// The other end has answered over the leg.
    WakeLeg(LegIx),
    /// The leg is no more.
    DropLeg(LegIx),
}

/// What became of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// The relay knows where this end is.
    Bound,
    /// The relay does not answer.
    Silent,
}

/// Why there is no way: the numbers of [`crate::wire::reaching::RelayClosed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody used it, or an end did not say where it is.
    Idle,
    /// This peer does not relay.
    Unwilling,
    /// It has no session with the other end.
    NoSession,
    /// Too many ways already.
    TooMany,
    /// More than two relays would lie one behind the other.
    TooDeep,
}

impl Reason {
    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Self::Idle => 0,
            Self::Unwilling => 1,
            Self::NoSession => 2,
            Self::TooMany => 3,
            Self::TooDeep => 4,
        }
    }
}

/// Whom a way joins, the lower number first.
fn pair(one: PeerIx, other: PeerIx) -> (PeerIx, PeerIx) {
    (one.min(other), one.max(other))
}
