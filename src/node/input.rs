//! What happens to a node.

use crate::{
    addr::{Path, Underlay},
    ids::{Boot, HandIx, LegIx, NodeId, PeerIx, SessionId},
    paths::distress::Cause,
    relay::LegEvent,
    rendezvous,
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
        source: Path,
        /// What it says.
        message: Message,
    },
    /// A sealed datagram was opened with one of the keys of [`super::Node::sealed_keys`] and its signature holds.
    Sealed {
        /// From where.
        source: Path,
        /// Under which epoch's secret; 0 for those sealed by an invite.
        epoch: u32,
        /// The header's hint: the join id, or zero.
        hint: [u8; 8],
        /// What it says.
        body: Sealed,
    },
    /// The data thread has a handshake that a third peer is to hand on.
    Handed {
        /// By which way.
        hand: HandIx,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// How a stream went.
    Stream(super::StreamEvent),
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
    /// When sessions were last used; told once a second, and before a session may be judged by it, for those that changed.
    Heard(Vec<Used>),
    /// An authenticated packet came from an address that is not the session's endpoint.
    NewPath {
        /// In which session.
        session: SessionId,
        /// From where.
        source: Path,
    },
    /// A leg is bound, or its relay is silent.
    Leg {
        /// Which.
        leg: LegIx,
        /// What became of it.
        event: LegEvent,
    },
    /// A way that this machine carried for others is over.
    WayOver {
        /// One of its ends.
        way: [u8; 4],
    },
    /// User data of a peer came by another path than ours goes.
    Elsewhere {
        /// In which session.
        session: SessionId,
        /// By which.
        source: Path,
    },
    /// User data of a session goes out and is not answered.
    Unheard {
        /// Which session.
        session: SessionId,
        /// What is the matter.
        cause: Cause,
    },
    /// A program sends long packets of a session again, though something is heard.
    Resent {
        /// Which session.
        session: SessionId,
    },
    /// This machine was asleep: what NATs knew of it they may have forgotten.
    Woke,
    /// The addresses of this machine's interfaces on the default route changed (protocol §5), the port included.
    Addresses(Vec<Underlay>),
    /// The home router lets others in to us at this address, or does so no more.
    Mapped(Option<Underlay>),
    /// This machine is in so many LANs, or has other addresses there than when this was said last.
    Places(usize),
    /// A sealed datagram came to the LAN's port; it was opened and checked as one of [`Input::Sealed`].
    Lan {
        /// From where: a neighbour, by the prefixes of the interface.
        source: Underlay,
        /// The header's hint: the join id, or zero.
        hint: [u8; 8],
        /// What it says.
        body: Sealed,
    },
    /// An [`super::output::Output::Persist`] with a ticket was carried out.
    Persisted {
        /// Which.
        ticket: u64,
        /// Whether it is on the disk.
        outcome: PersistOutcome,
    },
    /// The DHT answered an [`super::output::Output::Slot`].
    Slot(rendezvous::Answer),
    /// A datagram of the DHT came to the main socket.
    Dht {
        /// From where.
        source: Underlay,
        /// The datagram.
        bytes: Vec<u8>,
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
        endpoint: Path,
    },
    /// It is gone, not by our doing.
    Down,
    /// A rekey needs a Knock before it.
    NeedsKnock,
}

/// When a session was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub session: SessionId,
    /// When the last authenticated packet came.
    pub heard: Moment,
    /// When the last IP packet went either way.
    pub user: Moment,
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
