//! With whom this peer gossips: links wanted, dialled, kept and given up (design §8).
//!
//! Knows who is linked and how often a dial failed. Refuses to know addresses and records.

use std::time::Duration;

use crate::{
    ids::{NodeId, PeerIx},
    time::{Moment, Now},
};

/// How many links and sessions, and how long unused ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Links sought.
    pub wanted: usize,
    /// Links at most; an ask above it gets Unlink.
    pub cap: usize,
    /// Open sessions at most (design §8: 256, a leaf 64).
    pub open: usize,
    /// How long a session that is no link lives without user traffic.
    pub idle_close: Duration,
}

impl Limits {
    /// Links to everyone up to 64; sessions close after 5 min idle.
    pub const EVERYONE: Self = Self {
        wanted: 64,
        cap: 64,
        open: 256,
        idle_close: Duration::from_secs(300),
    };
    /// As `[test] links` and `[test] idle_close` say.
    #[must_use]
    pub fn with_links(self, links: usize) -> Self {
        Self {
            wanted: links,
            cap: links,
            ..self
        }
    }
}

/// Whether a peer may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// Its lease is in force and it has an address.
    Yes,
    /// Not now.
    No,
}

/// Who opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// We.
    Own,
    /// The peer.
    Theirs,
}

/// Why a link is refused or ended, as Unlink carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlinkReason {
    /// 0: the cap is reached.
    Full,
    /// 1: another link serves better.
    NotWanted,
}

/// Why a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No link, and no user traffic for a while.
    Idle,
    /// A link that answered no Ping.
    Silent,
    /// Too many sessions are open, and this one was used least recently.
    Crowded,
}

/// What the links ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a session, by an attempt for a link.
    Dial(PeerIx),
    /// Send Link{yes: false}.
    Ask(PeerIx),
    /// Send Link{yes: true}.
    Yes(PeerIx),
    /// Send Unlink.
    Unlink {
        /// Whom.
        peer: PeerIx,
        /// Why.
        reason: UnlinkReason,
    },
    /// The session is a gossip link from now on.
    Linked(PeerIx),
    /// The session is a gossip link no more.
    Unlinked(PeerIx),
    /// Ping wherever the session is.
    Ping(PeerIx),
    /// Say Bye and forget the session.
    Close {
        /// Whose.
        peer: PeerIx,
        /// Why.
        reason: CloseReason,
    },
}

/// Placeholder.
#[derive(Clone, Debug)]
pub struct Links;

#[expect(
    unused_variables,
    clippy::todo,
    reason = "the shape is published before the body"
)]
impl Links {
    /// Nobody known yet.
    pub fn new(own: NodeId, limits: Limits, seed: [u8; 32]) -> Self {
        todo!()
    }
    /// A peer is known, and may be dialled or not. Said again when that changes.
    pub fn handle_known(&mut self, now: Now, peer: PeerIx, node: NodeId, eligible: Eligible) {
        todo!()
    }
    /// A peer was revoked or forgotten.
    pub fn handle_unknown(&mut self, now: Now, peer: PeerIx) {
        todo!()
    }
    /// A session stands and the peer's Hello has come in it.
    pub fn handle_open(&mut self, now: Now, peer: PeerIx, opener: Opener) {
        todo!()
    }
    /// A session ended, by Bye or Down (not those ended by [`Output::Close`]).
    pub fn handle_closed(&mut self, now: Now, peer: PeerIx) {
        todo!()
    }
    /// The attempt asked for by [`Output::Dial`] failed.
    pub fn handle_dial_failed(&mut self, now: Now, peer: PeerIx) {
        todo!()
    }
    /// The peer, or this machine, has a new address.
    pub fn handle_address_changed(&mut self, now: Now, peer: PeerIx) {
        todo!()
    }
    /// Link came.
    pub fn handle_link(&mut self, now: Now, peer: PeerIx, yes: bool) {
        todo!()
    }
    /// Unlink came.
    pub fn handle_unlink(&mut self, now: Now, peer: PeerIx, reason: u64) {
        todo!()
    }
    /// When the session was last heard and last used by a program.
    pub fn handle_heard(&mut self, now: Now, peer: PeerIx, heard: Moment, user: Moment) {
        todo!()
    }
    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }
    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        todo!()
    }
    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        todo!()
    }
    /// The peers this one gossips with.
    pub fn linked(&self) -> impl Iterator<Item = PeerIx> + '_ {
        std::iter::empty()
    }
    /// Whether a session is a gossip link.
    pub fn is_linked(&self, peer: PeerIx) -> bool {
        todo!()
    }
}
