//! What a node asks of its shell.

use std::sync::Arc;

use crate::{
    addr::Underlay,
    ids::{NodeId, PeerIx, SessionId},
    node::{input::Row, kept::Kept},
    services::Splice,
    tables::{Admission, Tables},
    time::Moment,
    wire::{message::Message, record::Record},
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
        via: Option<Underlay>,
    },
    /// Knock (or Join) and initiate at every address; the shell seals, signs and draws nonces.
    Dial {
        /// Whose state.
        session: SessionId,
        /// The other side's keys.
        remote: Remote,
        /// Where to.
        to: Vec<Underlay>,
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
        source: Underlay,
        /// What becomes of an older state.
        admission: Admission,
    },
    /// Move a session's data.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Underlay,
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
        endpoint: Underlay,
        /// From Ping to Pong.
        rtt: std::time::Duration,
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
