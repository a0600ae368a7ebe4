//! A data thread beside the first. It seals and opens what programs send by the transport of a session that stands on a path
//! that answers, with the keys that the first thread has given it, and does by itself whatever needs the tables alone.
//! Sessions, handshakes, exchanges, relays and doubts are the first thread's: what a lane reads of those it hands over.
//!
//! A flow keeps its order when it comes to a lane and while it stays. On the way out, what was handed over leaves before the
//! lane sends anything to the same peer by itself. On the way in, what came in WireGuard before the first datagram of a
//! transport is delivered before it: the first thread reads its sockets empty meanwhile. Where keys come to their end without
//! others, and WireGuard carries the flow again, what a lane has not read yet may be overtaken.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    addr::{Path, Underlay},
    ids::{PeerIx, SessionId},
    packet::{split::Segments, vnet::Undone},
    platform::tun::Tun,
    time::Moment,
    transport::{Opening, Sealing},
};

use super::{
    command::{Event, SessionCounters},
    drops::{DropReason, Drops},
    inbound::{Source, Taken},
    long::{Long, SHORT},
    meter::Meter,
    outbound::PADDING,
    pulse::Pulse,
    sending::Carried,
    sessions::Heard,
    shard::Shard,
    train::{Arrived, Train},
    transports::thread_of,
    unsealing::{Gate, unseal},
};

/// How often a lane says of one key what it has heard.
const AGAIN: Duration = Duration::from_millis(10);

/// How often a lane says that a key is worn.
const WORN_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that may wait for another thread.
const WAITING_MAX: usize = 1 << 20;

/// What the first thread tells a lane, in its order.
#[derive(Debug)]
pub(super) enum Order {
    /// Packets to a peer may go by this way, or by none that a lane has.
    Way { peer: PeerIx, way: Option<Arc<Way>> },
    /// This key opens what comes under its index.
    Install(Box<Receiving>),
    /// What comes under an index means nothing any more.
    Retire { index: u32 },
    /// A datagram for this lane came elsewhere.
    Datagram { source: Source, bytes: Vec<u8> },
    /// Whether questions for names of others go to the control plane.
    Forward { on: bool },
    /// The lane's queue of the device, or none.
    Attach { tun: Option<Tun> },
    /// The thread ends.
    Stop,
}

/// What a lane tells the first thread, in its order.
#[derive(Debug)]
pub(super) enum Word {
    /// A packet of a program that the lane cannot send; [`PADDING`] bytes are behind it.
    Packet { bytes: Vec<u8>, undone: Undone },
    /// Something for its shard.
    News(News),
    /// The thread has ended.
    Ended,
}

/// What a lane has met that is the first thread's to deal with.
#[derive(Debug)]
pub(super) enum News {
    /// A datagram that is not for a lane.
    Datagram { source: Source, bytes: Vec<u8> },
    /// The first datagram under an index opened; whether the lane waits until what the first thread has is delivered.
    Opened { index: u32, waits: bool },
    /// A control frame was opened under an index.
    Frame {
        index: u32,
        source: Path,
        bytes: Vec<u8>,
    },
    /// Something was opened under an index that came from elsewhere than where data goes, or while the path is doubted.
    Heard {
        index: u32,
        source: Path,
        heard: Heard,
        /// It is the first by the path where data goes since that is doubted.
        is_back: bool,
        is_user: bool,
    },
    /// The lane has forgotten its ways, and may have been told of some since.
    Forgot,
    /// The key that seals what goes to a peer is worn.
    Worn { peer: PeerIx },
}

impl From<News> for Word {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

/// How packets to a peer are sealed and sent. One that has changed is another.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) session: SessionId,
    pub(super) endpoint: Underlay,
    /// The longest packet that fits.
    pub(super) room: usize,
    pub(super) sealing: Arc<Sealing>,
    pub(super) counters: Arc<SessionCounters>,
    pub(super) pulse: Arc<Pulse>,
}

/// A key that opens, and whose it is.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) opening: Opening,
    pub(super) peer: PeerIx,
    pub(super) counters: Arc<SessionCounters>,
    pub(super) pulse: Arc<Pulse>,
    /// When it was said last what was heard.
    pub(super) told: Moment,
    /// Control frames that came under it.
    pub(super) frames: Meter,
}

impl Receiving {
    /// Something came that opened. Whether the first thread is to know of it; and whether it is the first by the path where
    /// data goes since that is doubted.
    fn note_heard(&mut self, now: Moment, is_endpoint: bool, heard: Heard) -> Option<bool> {
        let doubted = self.pulse.told();
        let is_back = is_endpoint && doubted.is_some_and(|told| self.pulse.heard_there() < told);
        self.pulse.note_heard(now, is_endpoint);
        self.counters.note_heard(now);
        let is_news = !is_endpoint || doubted.is_some();
        let is_time = is_back || now.since(self.told) >= AGAIN;
        let is_told = is_news && is_time && heard != Heard::Old;
        if is_told {
            self.told = now;
        }
        is_told.then_some(is_back)
    }
}

/// What one thread has given another and the other has not dealt with yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes of programs' packets.
    packets: AtomicUsize,
    /// Bytes of what came from the network: apart from those, so that nobody there keeps programs' packets from being read.
    came: AtomicUsize,
    left: AtomicU64,
    delivered: AtomicU64,
}

impl Backlog {
    /// Whether a packet of so many bytes may wait too; it does if so.
    fn try_add_packet(&self, bytes: usize) -> bool {
        try_add(&self.packets, bytes)
    }

    /// Whether so much waits that nobody is to add to it who can wait himself.
    fn is_long(&self) -> bool {
        self.packets.load(Ordering::Relaxed) > WAITING_MAX / 2
    }

    /// Whether so many bytes from the network may wait too; they do if so.
    pub(super) fn try_add_came(&self, bytes: usize) -> bool {
        try_add(&self.came, bytes)
    }

    /// What came from the network waits no more.
    pub(super) fn remove_came(&self, bytes: usize) {
        self.came.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A word waits no more; whether fewer packets wait now.
    pub(super) fn remove_word(&self, word: &Word) -> bool {
        match word {
            Word::Packet { bytes, .. } => {
                let len = bytes.len() - PADDING;
                self.packets.fetch_sub(len, Ordering::Relaxed);
                true
            }
            Word::News(News::Datagram { bytes, .. } | News::Frame { bytes, .. }) => {
                self.remove_came(bytes.len());
                false
            }
            Word::News(_) | Word::Ended => false,
        }
    }

    /// How many packets have left since the start, in the order in which they were given.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    pub(super) fn set_left(&self, packets: u64) {
        self.left.store(packets, Ordering::Release);
    }

    /// How many times since the start everything that was there has been delivered when that was asked for.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    pub(super) fn set_delivered(&self, times: u64) {
        self.delivered.store(times, Ordering::Release);
    }
}

fn try_add(waiting: &AtomicUsize, bytes: usize) -> bool {
    let fits = waiting.load(Ordering::Relaxed) + bytes <= WAITING_MAX;
    if fits {
        waiting.fetch_add(bytes, Ordering::Relaxed);
    }
    fits
}

/// What a lane knows.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its number; the first thread's is 0.
    number: usize,
    peers: Vec<Peer>,
    keys: BTreeMap<u32, Box<Receiving>>,
    /// What it has handed to the first thread.
    backlog: Arc<Backlog>,
    handed: u64,
    /// Until so many of them have left nothing is read from the device.
    waits_for: u64,
    /// How often it was asked that everything be delivered; until it is, nothing is read from the sockets or written into the
    /// device.
    asked: u64,
    pub(super) words: Vec<Word>,
}

/// What a lane knows of a peer.
#[derive(Debug, Default)]
struct Peer {
    way: Option<Arc<Way>>,
    /// How many packets to anybody had been handed over when the last one to this peer was.
    handed: u64,
    /// What fitted its last way.
    room: usize,
    long: Long,
    /// When it was said last that its key is worn.
    worn: Moment,
    /// Whether anything came under a key of it that is not retired.
    is_heard: bool,
}

impl Lane {
    pub(super) fn new(number: usize, backlog: Arc<Backlog>) -> Self {
        Self {
            number,
            peers: Vec::new(),
            keys: BTreeMap::new(),
            backlog,
            handed: 0,
            waits_for: 0,
            asked: 0,
            words: Vec::new(),
        }
    }

    /// Whether packets that were handed over are to leave before the next is read: some that it must not overtake, or many.
    fn waits_to_send(&self) -> bool {
        self.backlog.left() < self.waits_for || self.backlog.is_long()
    }

    /// Whether what the first thread has is to be delivered before what was opened here.
    fn waits_to_deliver(&self) -> bool {
        self.backlog.delivered() < self.asked
    }

    fn peer(&mut self, peer: PeerIx) -> &mut Peer {
        let at = peer.0 as usize;
        if self.peers.len() <= at {
            self.peers.resize_with(at + 1, Peer::default);
        }
        &mut self.peers[at]
    }

    /// The way to a peer, if its path answers.
    fn way(&self, now: Moment, peer: PeerIx) -> Option<&Way> {
        let way = self.peers.get(peer.0 as usize)?.way.as_deref()?;
        way.pulse.is_sound(now).then_some(way)
    }

    /// Whether something that was handed over is still to go to a peer.
    fn is_behind(&self, peer: PeerIx) -> bool {
        let known = self.peers.get(peer.0 as usize);
        known.is_some_and(|known| known.handed > self.backlog.left())
    }

    /// Has the first thread send a packet.
    fn hand_over(
        &mut self,
        peer: Option<PeerIx>,
        packet: &[u8],
        undone: Undone,
    ) -> Result<(), DropReason> {
        if !self.backlog.try_add_packet(packet.len()) {
            return Err(DropReason::OutHandoverFull);
        }
        let mut bytes = Vec::with_capacity(packet.len() + PADDING);
        bytes.extend_from_slice(packet);
        bytes.resize(packet.len() + PADDING, 0);
        self.words.push(Word::Packet { bytes, undone });
        self.handed += 1;
        if let Some(peer) = peer {
            self.peer(peer).handed = self.handed;
        }
        Ok(())
    }

    /// Has the first thread take in datagrams, those that there is room for.
    pub(super) fn hand_in(&mut self, source: Source, run: Train<'_>, drops: &Drops) {
        for datagram in run.datagrams() {
            if self.backlog.try_add_came(datagram.len()) {
                let bytes = datagram.to_vec();
                self.words.push(News::Datagram { source, bytes }.into());
            } else {
                drops.count(DropReason::InHandoverFull);
            }
        }
    }

    fn retire(&mut self, index: u32) {
        let Some(retired) = self.keys.remove(&index) else {
            return;
        };
        if !self.keys.values().any(|key| key.peer == retired.peer) {
            self.peer(retired.peer).is_heard = false;
        }
    }

    /// Whether to say that the key of a way is worn.
    fn is_worn(&mut self, now: Moment, peer: PeerIx) -> bool {
        let known = self.peer(peer);
        let way = known.way.as_deref();
        let is_worn =
            way.is_some_and(|way| way.sealing.is_worn(now)) && now.since(known.worn) >= WORN_AGAIN;
        if is_worn {
            known.worn = now;
        }
        is_worn
    }
}

impl Shard {
    /// Whether this thread reads nothing from its device now.
    pub(super) fn waits_to_send(&self) -> bool {
        let lane = self.lane.as_ref();
        lane.is_some_and(|lane| lane.waits_to_send())
    }

    /// Whether this thread reads nothing from its sockets now, and writes nothing into its device.
    pub(super) fn waits_to_deliver(&self) -> bool {
        let lane = self.lane.as_ref();
        lane.is_some_and(|lane| lane.waits_to_deliver())
    }

    /// Whether this thread has something to say to the first one.
    pub(super) fn has_words(&self) -> bool {
        let lane = self.lane.as_ref();
        lane.is_some_and(|lane| !lane.words.is_empty())
    }

    /// Carries out what the first thread says, but for the device.
    pub(super) fn handle_order(&mut self, now: Moment, order: Order) {
        let Some(lane) = &mut self.lane else {
            return;
        };
        match order {
            Order::Way { peer, way } => {
                let room = way.as_deref().map(|way| way.room);
                let known = lane.peer(peer);
                known.way = way;
                if let Some(room) = room
                    && std::mem::replace(&mut known.room, room) > room
                {
                    let longer = known.long.take_longer(room);
                    let inner = u16::try_from(room).unwrap_or(u16::MAX);
                    for head in longer {
                        self.answer_head(&head, inner);
                    }
                }
            }
            Order::Install(receiving) => {
                let _known = lane.peer(receiving.peer);
                lane.keys.insert(receiving.opening.index(), receiving);
            }
            Order::Retire { index } => lane.retire(index),
            Order::Datagram { source, bytes } => self.take_datagram(now, source, bytes),
            Order::Forward { on } => self.forwards = on,
            Order::Attach { .. } | Order::Stop => {}
        }
    }

    /// Seals by no key any more: this machine may be a copy of another. The first thread makes others; what it has told since
    /// it noticed the same is told again.
    pub(super) fn forget_ways(&mut self) {
        if let Some(lane) = &mut self.lane {
            for peer in &mut lane.peers {
                peer.way = None;
            }
            lane.words.push(News::Forgot.into());
        }
    }

    /// A packet that only the first thread can judge.
    pub(super) fn hand_over(&mut self, packet: &[u8], undone: Undone) -> Result<(), DropReason> {
        match &mut self.lane {
            Some(lane) => lane.hand_over(None, packet, undone),
            None => Err(DropReason::NoSession),
        }
    }

    /// Seals and sends the segments of a packet to a peer, or has the first thread do so.
    pub(super) fn carry_by_lane(
        &mut self,
        now: Moment,
        peer: PeerIx,
        (buffer, segments): (&mut [u8], Segments),
        (len, undone): (usize, Undone),
    ) -> Result<(), DropReason> {
        let Some(mut lane) = self.lane.take() else {
            return Err(DropReason::NoSession);
        };
        let is_behind = lane.is_behind(peer);
        let carried = match lane.way(now, peer) {
            Some(_) if is_behind => Ok(Carried::Behind),
            Some(way) => self.seal_along(now, (lane.number, way), buffer, segments),
            None => Ok(Carried::Not),
        };
        let carried = match carried {
            Ok(not @ (Carried::Not | Carried::Behind)) => {
                let packet = buffer.get(..len).unwrap_or_default();
                let handed = lane.hand_over(Some(peer), packet, undone);
                if matches!(not, Carried::Behind) {
                    lane.waits_for = lane.handed;
                }
                handed
            }
            Ok(Carried::All { first, last }) => {
                for at in [Some(first), last].into_iter().flatten() {
                    let packet = buffer.get(at).unwrap_or_default();
                    self.note_long_of(now, &mut lane, peer, packet);
                }
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        if lane.is_worn(now, peer) {
            lane.words.push(News::Worn { peer }.into());
        }
        self.lane = Some(lane);
        carried
    }

    fn note_long_of(&mut self, now: Moment, lane: &mut Lane, peer: PeerIx, packet: &[u8]) {
        if packet.len() > SHORT && lane.peer(peer).long.note(now, packet) {
            let session = SessionId::Pair(peer);
            self.out.events.push_back(Event::Resent { session });
        }
    }

    /// Opens transport data under a key of this lane, or has the first thread take in what came.
    pub(super) fn open_by_lane<'a>(
        &mut self,
        now: Moment,
        source: Source,
        (index, run): (u32, Train<'a>),
        arrived: &mut Arrived<'a>,
    ) -> Result<Taken, DropReason> {
        let Some(lane) = &mut self.lane else {
            return Err(DropReason::NoSession);
        };
        if thread_of(index) != lane.number {
            lane.hand_in(source, run, &self.drops);
            return Ok(Taken::PassedOn);
        }
        let receiving = lane.keys.get_mut(&index);
        let receiving = receiving.ok_or(DropReason::InUnknownIndex)?;
        let known = lane.peers.get_mut(receiving.peer.0 as usize);
        let known = known.ok_or(DropReason::InUnknownIndex)?;
        let way = known.way.as_deref();
        let gate = Gate {
            view: &self.view,
            drops: &self.drops,
            session: SessionId::Pair(receiving.peer),
            ecn: source.ecn,
            room: way.map_or(usize::MAX, |way| way.room),
            mtu: self.mtu,
        };
        let key = (&mut receiving.opening, &mut receiving.frames);
        let Some(unsealed) = unseal(now, key, &gate, run, arrived) else {
            return Ok(Taken::Other);
        };
        let heard = unsealed.heard;
        if heard == Heard::NewKeys {
            let waits = !std::mem::replace(&mut known.is_heard, true);
            lane.asked += u64::from(waits);
            lane.words.push(News::Opened { index, waits }.into());
        }
        let is_endpoint = way.is_some_and(|way| source.path == Path::Direct(way.endpoint));
        let is_user = unsealed.packets > 0;
        let source = source.path;
        if let Some(is_back) = receiving.note_heard(now, is_endpoint, heard) {
            let news = News::Heard {
                index,
                source,
                heard,
                is_back,
                is_user,
            };
            lane.words.push(news.into());
        }
        if is_user {
            let counters = &receiving.counters;
            counters.count_received(lane.number, unsealed.bytes);
            counters.note_user(now);
            receiving.pulse.note_taken_in(unsealed.packets);
        }
        for bytes in unsealed.frames {
            if lane.backlog.try_add_came(bytes.len()) {
                let news = News::Frame {
                    index,
                    source,
                    bytes,
                };
                lane.words.push(news.into());
            } else {
                self.drops.count(DropReason::InHandoverFull);
            }
        }
        Ok(Taken::Data)
    }
}
