//! What happens to a node.

use crate::{
    addr::Underlay,
    ids::{Boot, NodeId, PeerIx, SessionId},
    time::Moment,
    wire::{message::Message, sealed::Sealed},
};

/// One thing that happened. The shell has decoded it and checked who sent it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A control message was opened in a session.
    Message {
        /// In which session.
        session: SessionId,
        /// From where its datagram came.
        source: Underlay,
        /// What it says.
        message: Message,
    },
    /// A sealed datagram was opened with one of the keys of [`super::Node::sealed_keys`] and its signature holds.
    Sealed {
        /// From where.
        source: Underlay,
        /// Under which epoch's secret; 0 for those sealed by an invite.
        epoch: u32,
        /// The header's hint: the join id, or zero.
        hint: [u8; 8],
        /// What it says.
        body: Sealed,
    },
    /// A session changed.
    Session {
        /// Which.
        session: SessionId,
        /// How.
        event: SessionEvent,
    },
    /// A packet of a program on this host waits for a peer without a session.
    Wanted {
        /// Whom.
        peer: PeerIx,
    },
    /// When sessions were last used; told once a second for those that changed.
    Heard {
        /// Which.
        session: SessionId,
        /// When the last authenticated packet came.
        heard: Moment,
        /// When the last IP packet went either way.
        user: Moment,
    },
    /// An authenticated packet came from an address that is not the session's endpoint.
    NewPath {
        /// In which session.
        session: SessionId,
        /// From where.
        source: Underlay,
    },
    /// The addresses of this machine's interfaces on the default route changed (protocol §5), the port included.
    Addresses(Vec<Underlay>),
    /// An [`super::output::Output::Persist`] with a ticket was carried out.
    Persisted {
        /// Which.
        ticket: u64,
        /// Whether it is on the disk.
        outcome: PersistOutcome,
    },
    /// A deadline of [`super::Node::poll_timeout`] has come.
    Tick,
}

/// Whether a write is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistOutcome {
    /// Written and fsynced.
    Done,
    /// Not written: what depends on it must not happen.
    Failed,
}

/// How a session changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// It stands.
    Up {
        /// Where the other side is.
        endpoint: Underlay,
    },
    /// It is gone, not by our doing.
    Down,
    /// A rekey needs a Knock before it.
    NeedsKnock,
}

/// What was stored of a node's Knocks: one row of the file `rows` (protocol §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub node: NodeId,
    /// The greatest stamp taken; in the own row: given.
    pub stamp: u64,
    /// The boot it came with.
    pub boot: Boot,
    /// Unix s of the last session, 0: none.
    pub last_session_s: u32,
}

impl Row {
    /// The row of a node with which a session stood, and that never knocked here: this side always dialled.
    pub fn of_one_never_heard(node: NodeId) -> Self {
        Self {
            node,
            stamp: 0,
            boot: Boot([0; 8]),
            last_session_s: 0,
        }
    }

    /// Whether the last Knock came from another run than `boot`.
    pub fn is_of_other_run(&self, boot: Boot) -> bool {
        self.stamp > 0 && self.boot != boot
    }
}
