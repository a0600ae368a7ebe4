//! What the control plane tells a data thread, and what a data thread tells it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    addr::Underlay,
    ids::{PeerIx, SessionId},
    tables::Admission,
    time::Moment,
};

/// The keys of one WireGuard state. Both sides of a pair have the same preshared key.
#[derive(Clone)]
pub struct SessionKeys {
    /// Our static secret, x25519.
    pub local_secret: x25519_dalek::StaticSecret,
    /// Their static public key, x25519.
    pub remote_public: x25519_dalek::PublicKey,
    /// The pair's or the join session's preshared key.
    pub psk: [u8; 32],
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}

/// What the control plane asks of a data thread. Carried out in order.
#[derive(Debug)]
pub enum Command {
    /// Sends each sealed datagram and then an initiation to the address beside it. All tries of one attempt use one
    /// state; it is made if there is none.
    Initiate {
        /// Whose state.
        session: SessionId,
        /// Used when the state is made.
        keys: SessionKeys,
        /// Where to, with the Knock or Join for it.
        to: Vec<(Underlay, Vec<u8>)>,
    },
    /// A good Knock or Join came from `source`: its initiation, parked or still to come within 10 s, goes into this
    /// state.
    Admit {
        /// Whose state.
        session: SessionId,
        /// Used when the state is made.
        keys: SessionKeys,
        /// Where it came from.
        source: Underlay,
        /// What becomes of an older state.
        admission: Admission,
    },
    /// Seals one control frame (protocol §4, without the 20 bytes before it) to a peer.
    Send {
        /// Whose state; without one the frame is dropped and counted.
        session: SessionId,
        /// The frame.
        frame: Vec<u8>,
        /// Where to, if not to the session's endpoint.
        via: Option<Underlay>,
    },
    /// Moves a session's data to an address that a Pong has proven.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Underlay,
    },
    /// Forgets a state. Its packets waiting in the queue are dropped and counted.
    Close {
        /// Whose.
        session: SessionId,
    },
    /// The attempt to reach a peer ended: every packet in its queue is answered by ICMP host unreachable.
    Unreachable {
        /// Whose queue.
        peer: PeerIx,
        /// Until when further packets are answered at once.
        until: Moment,
    },
    /// Sends a datagram as it is from the main socket.
    Datagram {
        /// Where to.
        to: Underlay,
        /// What.
        bytes: Vec<u8>,
    },
    /// Writes a SYN from the mesh side to an own port and tells what came of it (design §10).
    ProbeDoor {
        /// Comes back in [`Event::Door`].
        probe: u64,
        /// The own address.
        address: IpAddr,
        /// The own port.
        port: u16,
    },
    /// From now on questions for names in no zone of ours go to the control plane, or, as at the start, are refused.
    Forward {
        /// Whether they do.
        on: bool,
    },
    /// Writes the answer to a question that [`Event::Foreign`] told.
    Answer {
        /// The resolver's address that was asked.
        resolver: IpAddr,
        /// Who asked.
        asker: std::net::SocketAddr,
        /// The answer.
        bytes: Vec<u8>,
    },
    /// Gives the thread its TUN device, or takes it away: a joiner has none before it is a member, `down` has none
    /// either. The device it had is closed, and its addresses and routes go with it.
    Attach {
        /// The device.
        tun: Option<crate::platform::tun::Tun>,
    },
    /// Ends the thread; sockets and the TUN close with it.
    Stop,
    /// Never comes back. For the test of the watchdog; a release build has no such thing.
    #[cfg(debug_assertions)]
    Hang,
}

/// What a data thread tells the control plane, through a bounded channel: a full one drops and counts, except for
/// changes of sessions.
#[derive(Debug)]
pub enum Event {
    /// A sealed datagram (`30 01 …`) came. Nothing was opened.
    Sealed {
        /// From where.
        source: Underlay,
        /// Whole.
        bytes: Vec<u8>,
    },
    /// A session stands: the response was taken (initiator), or the first packet opened (responder).
    Up {
        /// Whose.
        session: SessionId,
        /// Where it is.
        endpoint: Underlay,
        /// Counters the data thread writes and everybody reads.
        counters: Arc<SessionCounters>,
    },
    /// A state ended by itself: it never stood in 10 s, or WireGuard gave it up.
    Down {
        /// Whose.
        session: SessionId,
    },
    /// A control frame was opened.
    Control {
        /// Whose.
        session: SessionId,
        /// From where its datagram came.
        source: Underlay,
        /// Kind, length and body as in protocol §4, without the 20 bytes before it.
        frame: Vec<u8>,
    },
    /// A packet waits for a peer with which no session stands. Said once per attempt.
    Wanted {
        /// Whom.
        peer: PeerIx,
    },
    /// An authenticated packet came from an address that is not the session's endpoint.
    NewPath {
        /// Whose.
        session: SessionId,
        /// From where.
        source: Underlay,
    },
    /// WireGuard wants a new handshake that is unanswered for 1 s or goes to a peer unheard for 60 s (protocol §2):
    /// it is to be sent again behind a Knock.
    NeedsKnock {
        /// Whose.
        session: SessionId,
    },
    /// What came of a door probe; silence is the asker's to notice after 300 ms.
    Door {
        /// As asked.
        probe: u64,
        /// What the host said.
        verdict: DoorVerdict,
        /// From the SYN to the answer, microseconds.
        took_us: u64,
    },
    /// A program of this host asks for a name in no zone of ours; said only while [`Command::Forward`] is on.
    Foreign {
        /// The resolver's address that it asked.
        resolver: IpAddr,
        /// Who asks.
        asker: std::net::SocketAddr,
        /// The question.
        query: Vec<u8>,
    },
    /// The TUN device is gone or broken. The thread goes on without one; [`Command::Attach`] gives it another.
    TunLost {
        /// What the kernel said.
        error: std::io::Error,
    },
}

/// What the host said to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorVerdict {
    /// SYN-ACK.
    Accepted,
    /// RST.
    Refused,
}

/// What one session has carried. Written by its data thread alone (plain load and store), read by anybody.
#[derive(Debug, Default)]
pub struct SessionCounters {
    /// Inner bytes of IP packets received.
    pub rx_bytes: AtomicU64,
    /// Inner bytes of IP packets sent.
    pub tx_bytes: AtomicU64,
    /// [`Moment`] of the last packet that authenticated, 0: none.
    pub heard: AtomicU64,
    /// [`Moment`] of the last IP packet either way, 0: none.
    pub user: AtomicU64,
    /// [`Moment`] of the last completed handshake, 0: none.
    pub handshake: AtomicU64,
}

impl SessionCounters {
    /// When the last packet that authenticated came.
    pub fn heard(&self) -> Option<Moment> {
        match self.heard.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Moment(at)),
        }
    }
}
