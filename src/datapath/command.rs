//! What the control plane tells a data thread, and what a data thread tells it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    addr::{Path, Underlay},
    ids::{HandIx, LegIx, NetworkId, PeerIx, SessionId, StreamIx},
    relay::{LegEvent, Order, ways::WayCounters},
    tables::Admission,
    time::Moment,
    transport::{Failure, Terms, schedule::End, suite::Suite},
};

use super::streams::StreamQueue;

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

/// What makes the transports of a pair (protocol §6).
#[derive(Clone)]
pub struct TransportParts {
    /// In which network.
    pub network: NetworkId,
    /// This end.
    pub local: End,
    /// The other.
    pub remote: End,
    /// The pair's preshared key.
    pub psk: [u8; 32],
    /// What this machine brings.
    pub terms: Terms,
}

impl std::fmt::Debug for TransportParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TransportParts({:?}, …)", self.remote.node)
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
        to: Vec<(Path, Vec<u8>)>,
    },
    /// A good Knock or Join came from `source`: its initiation, parked or still to come within 10 s, goes into this
    /// state.
    Admit {
        /// Whose state.
        session: SessionId,
        /// Used when the state is made.
        keys: SessionKeys,
        /// Where it came from.
        source: Path,
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
        via: Option<Path>,
    },
    /// Both ends of a session have transports: its user data goes by them from now on. Said once while it stands.
    Transport {
        /// Whose.
        session: SessionId,
        /// What they are made of.
        parts: Box<TransportParts>,
    },
    /// Moves a session's data to an address that a Pong has proven.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Path,
    },
    /// Moves a session's data to a proven path by which packets arrive sooner, when nothing was sent for `gap` or after
    /// 2 s, so that none overtakes another.
    Move {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Path,
        /// How much sooner they arrive.
        gap: Duration,
    },
    /// Sends a session's packets by this path too, those first that were not answered; none: no longer.
    Mirror {
        /// Whose.
        session: SessionId,
        /// By which.
        via: Option<Path>,
    },
    /// Packets of a session may be so long: longer ones are answered by ICMP.
    SetRoom {
        /// Whose.
        session: SessionId,
        /// By which path.
        endpoint: Path,
        /// How long.
        inner: u16,
        /// Whether what goes by its path is to be sent so that routers may cut it.
        in_fragments: bool,
    },
    /// Opens sockets beside the main ones, each of which sends a keepalive of the session there. The first that something
    /// authentic comes back through is kept for that address.
    Open {
        /// Whose.
        session: SessionId,
        /// Where to.
        to: Underlay,
        /// How many.
        sockets: usize,
        /// When those that were not hit are closed.
        until: Moment,
    },
    /// No path of a session is known to work: its packets wait until [`Command::SetPath`].
    Withdraw {
        /// Whose.
        session: SessionId,
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
    /// A TLS stream stands.
    OpenStream {
        /// Its number.
        stream: StreamIx,
        /// Where to put what goes on it.
        queue: StreamQueue,
    },
    /// A TLS stream is over.
    CloseStream {
        /// Its number.
        stream: StreamIx,
    },
    /// Takes in what came on a stream.
    FromStream {
        /// On which.
        stream: StreamIx,
        /// Whole datagrams, each behind its length ([`crate::wire::stream::take`]).
        datagrams: Vec<u8>,
        /// Given back when they were taken in: so many wait at one time, and no more are read from the stream.
        permit: tokio::sync::OwnedSemaphorePermit,
    },
    /// Takes in a datagram that came by another way than the main socket.
    Take {
        /// By which.
        source: Path,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Sends a datagram as it is, by the main socket or on a stream.
    Datagram {
        /// Where to.
        to: Path,
        /// What.
        bytes: Vec<u8>,
    },
    /// About relays: what this machine carries, and its own ways through others.
    Relay(Order),
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
        source: Path,
        /// Whole.
        bytes: Vec<u8>,
    },
    /// A reply of the DHT (`d …`) came. Nothing was read.
    Dht {
        /// From where.
        source: Underlay,
        /// Whole.
        bytes: Vec<u8>,
    },
    /// A handshake is to be handed on by a third peer.
    Handed {
        /// By which way.
        hand: HandIx,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A session stands: the response was taken (initiator), or the first packet opened (responder).
    Up {
        /// Whose.
        session: SessionId,
        /// Where it is; by hand: not known yet, and its data waits.
        endpoint: Path,
        /// Counters the data thread writes and everybody reads.
        counters: Arc<SessionCounters>,
    },
    /// A state ended by itself: it never stood in 10 s, or WireGuard gave it up.
    Down {
        /// Whose.
        session: SessionId,
    },
    /// Both ends have new keys of a transport, or an attempt at them came to nothing.
    Transport {
        /// Whose.
        session: SessionId,
        /// By what they seal, or why there are none.
        result: Result<Suite, Failure>,
    },
    /// A control frame was opened.
    Control {
        /// Whose.
        session: SessionId,
        /// From where its datagram came.
        source: Path,
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
        source: Path,
    },
    /// User data of a peer came by another path than ours goes: it may know that ours does not reach it.
    Elsewhere {
        /// Whose.
        session: SessionId,
        /// By which.
        source: Path,
    },
    /// User data of a session goes out and nothing authenticated comes back.
    Unheard {
        /// Whose.
        session: SessionId,
        /// What is the matter.
        why: Unheard,
    },
    /// A program sends long packets again, though something is heard: they may not fit where short ones do.
    Resent {
        /// In which session.
        session: SessionId,
    },
    /// WireGuard wants a new handshake that is unanswered for 1 s or goes to a peer unheard for 60 s (protocol §2):
    /// it is to be sent again behind a Knock.
    NeedsKnock {
        /// Whose.
        session: SessionId,
    },
    /// A leg of this machine is bound, or its relay is silent.
    Leg {
        /// Which.
        leg: LegIx,
        /// What became of it.
        event: LegEvent,
    },
    /// This machine carries a way for others from now on.
    Way {
        /// One of its ends.
        way: [u8; 4],
        /// Counters the data thread writes and everybody reads.
        counters: Arc<WayCounters>,
    },
    /// It carries it no more: nobody used it, or its ends did not bind.
    WayOver {
        /// One of its ends.
        way: [u8; 4],
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

impl Event {
    /// Whether the control plane would be wrong about its sessions without it.
    pub(super) fn must_arrive(&self) -> bool {
        match self {
            Self::Up { .. }
            | Self::Down { .. }
            | Self::Leg { .. }
            | Self::Way { .. }
            | Self::WayOver { .. }
            | Self::Transport { .. }
            | Self::TunLost { .. } => true,
            Self::Sealed { .. }
            | Self::Dht { .. }
            | Self::Handed { .. }
            | Self::Control { .. }
            | Self::Wanted { .. }
            | Self::NewPath { .. }
            | Self::Elsewhere { .. }
            | Self::Unheard { .. }
            | Self::Resent { .. }
            | Self::NeedsKnock { .. }
            | Self::Foreign { .. }
            | Self::Door { .. } => false,
        }
    }
}

/// Why a session's path is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// Nothing was heard since user data went out, for half a second.
    Silent,
    /// The same, and there were long packets in it.
    Choked,
    /// User data goes out where nothing was heard for 20 s: a NAT may have forgotten the way.
    Stale,
    /// User data waits, and there is no path.
    Pathless,
}

/// What the host said to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorVerdict {
    /// SYN-ACK.
    Accepted,
    /// RST.
    Refused,
}

/// What one session has carried. Written by data threads (plain load and store), read by anybody.
#[derive(Debug)]
pub struct SessionCounters {
    /// By each data thread.
    carried: Box<[Carried]>,
    /// [`Moment`] of the last packet that authenticated, 0: none.
    pub heard: AtomicU64,
    /// [`Moment`] of the last IP packet either way, 0: none.
    pub user: AtomicU64,
    /// [`Moment`] of the last completed handshake, 0: none.
    pub handshake: AtomicU64,
    /// What seals user packets: the bit of a [`Suite`], 0: WireGuard.
    pub suite: AtomicU8,
    /// [`Moment`] since when user data goes by WireGuard though both ends have transports, 0: it does not.
    pub plain_since: AtomicU64,
}

/// What one data thread has carried of a session: inner bytes of IP packets. In a line of the cache of its own, since another
/// thread writes what is beside it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Carried {
    received: AtomicU64,
    sent: AtomicU64,
}

/// User data that pauses for so long begins anew.
const PAUSED: Duration = Duration::from_mins(1);

impl Default for SessionCounters {
    /// Of one data thread.
    fn default() -> Self {
        Self::new(1)
    }
}

impl SessionCounters {
    /// Of so many data threads.
    pub fn new(threads: usize) -> Self {
        Self {
            carried: (0..threads).map(|_| Carried::default()).collect(),
            heard: AtomicU64::default(),
            user: AtomicU64::default(),
            handshake: AtomicU64::default(),
            suite: AtomicU8::default(),
            plain_since: AtomicU64::default(),
        }
    }

    /// Inner bytes of IP packets received.
    pub fn received(&self) -> u64 {
        let all = self.carried.iter().map(|one| &one.received);
        all.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Inner bytes of IP packets sent.
    pub fn sent(&self) -> u64 {
        let all = self.carried.iter().map(|one| &one.sent);
        all.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Counts what a data thread received. Only that thread calls this.
    pub fn count_received(&self, thread: usize, bytes: usize) {
        if let Some(carried) = self.carried.get(thread) {
            add(&carried.received, bytes);
        }
    }

    /// Counts what a data thread sent. Only that thread calls this.
    pub fn count_sent(&self, thread: usize, bytes: usize) {
        if let Some(carried) = self.carried.get(thread) {
            add(&carried.sent, bytes);
        }
    }

    /// Notes an authenticated packet, as any data thread may.
    pub(super) fn note_heard(&self, now: Moment) {
        note(&self.heard, now);
    }

    /// Notes an IP packet either way that went by a transport, as any data thread may.
    pub(super) fn note_user(&self, now: Moment) {
        note(&self.user, now);
    }

    /// When the last packet that authenticated came.
    pub fn heard(&self) -> Option<Moment> {
        moment(&self.heard)
    }

    /// When the last IP packet went either way.
    pub fn user(&self) -> Option<Moment> {
        moment(&self.user)
    }

    /// By what user packets are sealed; none: by WireGuard.
    pub fn suite(&self) -> Option<Suite> {
        Suite::from_bit(self.suite.load(Ordering::Relaxed))
    }

    pub(super) fn set_suite(&self, suite: Option<Suite>) {
        let bit = suite.map_or(0, Suite::bit);
        self.suite.store(bit, Ordering::Relaxed);
        self.plain_since.store(0, Ordering::Relaxed);
    }

    /// For how long user data has been going by WireGuard though both ends have transports; none where it does not, or has
    /// paused.
    pub fn plain_for(&self, now: Moment) -> Option<Duration> {
        let since = moment(&self.plain_since)?;
        let last = self.user().filter(|last| now.since(*last) < PAUSED)?;
        Some(last.since(since))
    }

    /// Notes user data that goes by WireGuard though both ends have transports, before it is noted as user data.
    pub(super) fn note_plain(&self, now: Moment) {
        let has_paused = self.user().is_none_or(|last| now.since(last) >= PAUSED);
        if has_paused || moment(&self.plain_since).is_none() {
            self.plain_since.store(now.0, Ordering::Relaxed);
        }
    }
}

fn add(counter: &AtomicU64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(bytes), Ordering::Relaxed);
}

/// What was noted less than a millisecond ago is not noted again: the line of the cache stays where others read it.
pub(super) fn note(counter: &AtomicU64, now: Moment) {
    if now.0 >= counter.load(Ordering::Relaxed).saturating_add(1000) {
        counter.store(now.0, Ordering::Relaxed);
    }
}

/// None: never, or not now.
pub(super) fn moment(counter: &AtomicU64) -> Option<Moment> {
    match counter.load(Ordering::Relaxed) {
        0 => None,
        at => Some(Moment(at)),
    }
}
