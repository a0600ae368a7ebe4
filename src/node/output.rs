//! What a node asks of its shell.

use std::sync::Arc;

use crate::{
    addr::{Path, Underlay},
    ids::{NodeId, PeerIx, SessionId},
    node::{input::Row, kept::Kept},
    paths::sizes::Room,
    relay::Order,
    rendezvous,
    services::Splice,
    tables::{Admission, Tables},
    time::Moment,
    wire::{message::Message, record::Record, sealed::Header},
};

/// One thing to do. The shell does them in order; a `Persist` is done before what comes after it.
#[derive(Clone, Debug)]
pub enum Output {
    /// Encode and send a message in a session.
    Send {
        /// In which.
        session: SessionId,
        /// What.
        message: Message,
        /// Where to, if not to the session's endpoint.
        via: Option<Path>,
    },
    /// Knock (or Join) and initiate at every address; the shell seals, signs and draws nonces.
    Dial {
        /// Whose state.
        session: SessionId,
        /// The other side's keys.
        remote: Remote,
        /// Where to.
        to: Vec<Path>,
        /// What is sealed before the initiation.
        first: FirstContact,
    },
    /// A good Knock or Join came: let its initiation in.
    Admit {
        /// Into which state.
        session: SessionId,
        /// The other side's keys.
        remote: Remote,
        /// From where.
        source: Path,
        /// What becomes of an older state.
        admission: Admission,
    },
    /// A datagram came by a third peer's hand: it is taken in as from there.
    Take {
        /// By which way.
        source: Path,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Begin a TLS stream to a peer; [`super::input::Input::Stream`] tells what came of it.
    OpenStream {
        /// To whom.
        peer: PeerIx,
        /// Tried one after the other, at the port that is there and at 443.
        to: Vec<Underlay>,
        /// Under whose key its first bytes are.
        header: Header,
        /// What that key is made of.
        secret: crate::keys::NetSecret,
    },
    /// Say on every LAN that this peer is there; the shell signs, seals, and adds the port.
    Beacon {
        /// The epoch sealed with.
        epoch: u32,
        /// Its secret.
        secret: crate::keys::NetSecret,
        /// Greater than all before.
        stamp: u64,
    },
    /// Move a session's data.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Path,
    },
    /// Move a session's data to where packets arrive sooner: when nothing was sent for `gap`, or after 2 s.
    Move {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Path,
        /// How much sooner they arrive.
        gap: std::time::Duration,
    },
    /// Send a session's packets by a second path too, or no longer.
    Mirror {
        /// Whose.
        session: SessionId,
        /// By which.
        via: Option<Path>,
    },
    /// Open sockets beside the main one, each of which sends there: the port of one of them may be guessed.
    Open {
        /// In which session.
        session: SessionId,
        /// Where to.
        to: Underlay,
        /// How many.
        sockets: usize,
        /// When those that were not hit are closed.
        until: Moment,
    },
    /// Both ends of a session have transports: its user data is to go by them. Said once while it stands.
    Transport {
        /// Whose.
        session: SessionId,
        /// With whom.
        other: OtherEnd,
    },
    /// Let a session's packets wait: no path is known to work.
    Withdraw {
        /// Whose.
        session: SessionId,
    },
    /// Packets of a session may be so long.
    SetRoom {
        /// Whose.
        session: SessionId,
        /// By which path.
        endpoint: Path,
        /// How long.
        room: Room,
    },
    /// Forget a session.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Answer the packets that wait for a peer by ICMP, and those that come until then.
    Unreachable {
        /// Whom.
        peer: PeerIx,
        /// Until when.
        until: Moment,
    },
    /// About relays, for the data threads.
    Relay(Order),
    /// New tables for the data threads.
    Publish(Arc<Tables>),
    /// The splices that must be served now, all of them.
    Splice(Vec<Splice>),
    /// Write something down.
    Persist {
        /// If there: say [`super::input::Input::Persisted`] with it once it is on the disk (fsync).
        ticket: Option<u64>,
        /// What.
        write: Write,
    },
    /// The Pong to a Ping that [`super::Node::ping`] sent.
    Ponged {
        /// As asked.
        tag: u64,
        /// From where.
        endpoint: Path,
        /// From Ping to Pong.
        rtt: std::time::Duration,
    },
    /// Ask the DHT; say [`super::input::Input::Slot`] with what it answers.
    Slot(rendezvous::Ask),
    /// Send this as it is, by the main socket or on a stream.
    Datagram {
        /// Where to.
        to: Path,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a Punch from the main socket: it opens the own NAT for a joiner that is on its way.
    Punch {
        /// Where to.
        to: Underlay,
        /// The invite it comes by.
        invite: crate::keys::InviteSecret,
        /// Unix ms.
        stamp: u64,
    },
    /// Something a person should know now; also in `health` while it lasts.
    Notice(Notice),
}

/// The keys by which a state is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// Their static key, x25519 form.
    pub tunnel: [u8; 32],
    /// The preshared key.
    pub psk: [u8; 32],
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote(…)")
    }
}

/// What the transports of a pair need to know of the other end.
#[derive(Clone, PartialEq, Eq)]
pub struct OtherEnd {
    /// Who it is.
    pub node: NodeId,
    /// Its tunnel key as its Peer record carries it, ed25519 form.
    pub tunnel: [u8; 32],
    /// The pair's preshared key.
    pub psk: [u8; 32],
}

impl std::fmt::Debug for OtherEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OtherEnd({:?}, …)", self.node)
    }
}

/// The sealed datagram that goes before an initiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstContact {
    /// A member's.
    Knock {
        /// Whom.
        receiver: NodeId,
        /// The epoch sealed with.
        epoch: u32,
        /// Its secret.
        secret: crate::keys::NetSecret,
        /// Greater than all before.
        stamp: u64,
        /// What the receiver may lack.
        records: Vec<Vec<u8>>,
    },
    /// A joiner's.
    Join {
        /// The token's secret.
        invite: crate::keys::InviteSecret,
        /// The issuer's x25519 key.
        issuer: [u8; 32],
        /// Greater than all before.
        stamp: u64,
    },
}

impl FirstContact {
    /// The same as it goes by this path: by hand a Knock goes without records, which the home sends ahead.
    #[must_use]
    pub fn by(&self, path: Path) -> Self {
        match (self, path) {
            (
                Self::Knock {
                    receiver,
                    epoch,
                    secret,
                    stamp,
                    ..
                },
                Path::Handed(_),
            ) => Self::Knock {
                receiver: *receiver,
                epoch: *epoch,
                secret: secret.clone(),
                stamp: *stamp,
                records: Vec::new(),
            },
            (whole, _) => whole.clone(),
        }
    }
}

/// Something to write down.
#[derive(Clone, Debug)]
pub enum Write {
    /// One row, in place.
    Row(Row),
    /// A record was taken or replaced: append it.
    Record(Record),
    /// The whole kept state.
    Kept(Box<Kept>),
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A peer was met for the first time.
    Joined {
        /// Its name.
        name: String,
    },
    /// Two boots take turns under one node id.
    Cloned {
        /// Whose.
        node: NodeId,
    },
    /// This machine was revoked.
    Revoked,
}
