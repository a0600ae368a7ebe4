//! The WireGuard states of this shard, found by whom they are for, by receiver index, and by endpoint.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    addr::Path,
    ids::{JoinIx, PeerIx, SessionId},
    relay::legs::Legs,
    time::Moment,
    transport::{Order, limits::LAPSE},
    wireguard::session::{Session, Standing},
};

use super::{
    command::SessionCounters,
    drops::DropReason,
    lane::Way,
    long::Long,
    meter::{Meter, Rate},
    transports::{Early, FIRST, Transport},
    watch::Watch,
};

/// What an address that no Pong has proven may be sent in all (protocol §3).
const UNPROVEN_BYTES: usize = 64 << 10;

/// What of it is kept for control frames, so that the Ping that proves the address always fits.
const UNPROVEN_CONTROL_BYTES: usize = 4 << 10;

/// A state without an authenticated packet ends after this (protocol §2); as long is a new one of the other end awaited.
const UNHEARD: Duration = Duration::from_secs(10);

/// How often one state says that its peer talks from elsewhere.
const NEW_PATH: Duration = Duration::from_millis(250);

/// How many answered initiations a state remembers: those that may still be confirmed.
const ANSWERED: usize = 4;

/// Control frames that one session may bring: an honest peer stays far below it, since its gossip has 64 KiB/s (protocol
/// §7), and a member that floods must not fill the channel that all share.
const FRAMES: Rate = Rate {
    each: Duration::from_millis(5),
    burst: 400,
};

/// How far an initiation may overtake the Knock that was sent before it: they leave in one system call, and the Knock is
/// judged in milliseconds.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// When WireGuard makes new keys in time (its REKEY_AFTER_TIME).
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// Whoever has keys in use is heard so often: its KEEPALIVE_TIMEOUT and REKEY_TIMEOUT together.
const HEARD_LATELY: Duration = Duration::from_secs(15);

/// One state and what the datapath knows about it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: SessionId,
    pub(super) session: Session,
    pub(super) index: u32,
    pub(super) endpoint: Option<Path>,
    pub(super) counters: Arc<SessionCounters>,
    pub(super) rekey: Option<Rekey>,
    pub(super) watch: Watch,
    /// The longest packet that fits its path, as far as is known.
    pub(super) room: usize,
    /// Long packets that were not answered.
    pub(super) long: Long,
    /// Where both ends have transports.
    pub(super) transport: Option<Box<Transport>>,
    /// What came for it before there was one.
    pub(super) early: Early,
    /// By which way all threads may send, as it was said last.
    pub(super) published: Option<Arc<Way>>,
    /// The other end's state: the top 24 bits of its indexes.
    their_state: Option<u32>,
    proof: Proof,
    since: Moment,
    answered: [Option<Answered>; ANSWERED],
    /// Since when the other end has another state or is another run, whose first packet is awaited.
    new_end: Option<Moment>,
    newest: [(u32, u64); 2],
    new_path: Moment,
    elsewhere: Moment,
    /// Control frames that came.
    pub(super) frames: Meter,
}

/// An initiation that was answered.
#[derive(Clone, Copy, Debug)]
struct Answered {
    /// The local index of the keys it made.
    index: u32,
    source: Path,
    at: Moment,
}

/// Whether the endpoint is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// By a Pong.
    Proven,
    /// Not, and this many bytes went there.
    Open(usize),
}

/// A new handshake that WireGuard's timers began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rekey {
    /// When its initiation went out.
    pub(super) sent: Moment,
    /// Whether a Knock was asked for.
    pub(super) knock: Knocking,
}

/// Whether a Knock was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knocking {
    /// Not yet.
    Later,
    /// Not yet, and not if the other side is heard: it went to one unheard for long, who has the session still if it answers.
    IfSilent,
    /// It was.
    Asked,
}

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A packet of a program.
    Packet,
    /// A control frame or what WireGuard itself sends.
    Control,
}

impl State {
    /// `threads`: how many data threads there are.
    pub(super) fn new(
        now: Moment,
        id: SessionId,
        (session, index): (Session, u32),
        threads: usize,
    ) -> Self {
        Self {
            id,
            session,
            index,
            endpoint: None,
            counters: Arc::new(SessionCounters::new(threads)),
            rekey: None,
            watch: Watch::default(),
            room: usize::MAX,
            long: Long::default(),
            transport: None,
            early: Early::default(),
            published: None,
            their_state: None,
            proof: Proof::Open(0),
            since: now,
            answered: [None; ANSWERED],
            new_end: None,
            newest: [(0, 0); 2],
            new_path: Moment(0),
            elsewhere: Moment(0),
            frames: Meter::default(),
        }
    }

    pub(super) fn is_standing(&self) -> bool {
        self.session.standing() == Standing::Up
    }

    /// Whether a Pong has proven its endpoint.
    pub(super) fn is_proven(&self) -> bool {
        self.proof == Proof::Proven
    }

    /// Whether packets may go to its endpoint now.
    pub(super) fn may_send(&self, legs: &Legs) -> bool {
        self.is_standing() && self.endpoint.is_some_and(|path| legs.carries(path))
    }

    /// Whether it has been without an authenticated packet for too long.
    pub(super) fn is_unheard(&self, now: Moment) -> bool {
        self.counters.heard().is_none() && now.since(self.since) >= UNHEARD
    }

    /// Whether programs have talked lately.
    pub(super) fn is_used(&self, now: Moment) -> bool {
        self.counters.user().is_some_and(|at| now.since(at) < LAPSE)
    }

    /// Whether its keys carry packets and are not due to be made anew: nobody needs others at once.
    pub(super) fn are_keys_good(&self, now: Moment) -> bool {
        let made = Moment(self.counters.handshake.load(Ordering::Relaxed));
        let heard = self.counters.heard();
        now.since(made) < REKEY_AFTER && heard.is_some_and(|at| now.since(at) < HEARD_LATELY)
    }

    /// Whether WireGuard is to make new keys though it carries next to nothing: programs' data goes by the transport, whose
    /// own next keys are made in this session.
    pub(super) fn wants_handshake(&self, now: Moment) -> bool {
        let handshake = Moment(self.counters.handshake.load(Ordering::Relaxed));
        let is_used = self.counters.user().is_some_and(|user| user > handshake);
        let transport = self.transport.as_deref();
        let is_old =
            transport.is_some_and(|transport| now.since(handshake) >= transport.renewed_after());
        self.rekey.is_none() && is_used && is_old
    }

    /// Notes under which index the other end takes the keys of a handshake that proved it. Whether that is another state
    /// than before: then the other end knows nothing of what was agreed with the one before.
    pub(super) fn is_with_another(&mut self, index: u32) -> bool {
        let state = index >> 8;
        let before = self.their_state.replace(state);
        before.is_some_and(|before| before != state)
    }

    /// Begins an attempt anew: a try of ours goes out.
    pub(super) fn touch(&mut self, now: Moment) {
        self.since = now;
    }

    /// Notes that an initiation from `source` was answered under this local index.
    pub(super) fn note_answered(&mut self, now: Moment, index: u32, source: Path) {
        self.answered.rotate_right(1);
        self.answered[0] = Some(Answered {
            index,
            source,
            at: now,
        });
    }

    /// A Knock of a new run came from `source`: whether its initiation overtook it and was answered here. The state is
    /// the new run's then, and says that it stands once a packet opens under the keys of that initiation.
    pub(super) fn is_overtaken(&mut self, now: Moment, source: Path) -> bool {
        let is_its = |it: &&Answered| it.source == source && now.since(it.at) < OVERTAKEN;
        let answered = self.answered.iter().flatten().filter(is_its);
        self.new_end = answered.map(|answered| answered.at).min();
        self.new_end.is_some()
    }

    /// The other end made its state anew, by an initiation that is answered now: it has closed the one before, of which
    /// this end may have heard nothing.
    pub(super) fn expect_new_end(&mut self, now: Moment) {
        self.new_end = Some(now);
    }

    /// Whether a packet under this index is the first of a new state or run of the other end.
    pub(super) fn takes_over(&mut self, now: Moment, index: u32) -> bool {
        let answered = self.answer_of(index);
        let takes = self
            .new_end
            .zip(answered)
            .is_some_and(|(since, it)| it.at >= since && now.since(it.at) < UNHEARD);
        if takes {
            self.new_end = None;
        }
        takes
    }

    /// Whether a response is the first of a new state of the other end, whose initiation has crossed ours.
    pub(super) fn takes_over_by_response(&mut self, now: Moment) -> bool {
        let since = self.new_end.take();
        since.is_some_and(|since| now.since(since) < UNHEARD)
    }

    /// Forgets where the other end was: it knows nothing of the paths that were agreed with its state before.
    pub(super) fn forget_path(&mut self) {
        self.endpoint = None;
        self.proof = Proof::Open(0);
        self.room = usize::MAX;
        self.long = Long::default();
        self.watch.reset();
    }

    /// Whether an initiation was answered, so that one from before it is known as a replay.
    pub(super) fn has_answered(&self) -> bool {
        self.answered[0].is_some()
    }

    /// Where the initiation came from that was answered under this local index.
    pub(super) fn answered(&self, index: u32) -> Option<Path> {
        self.answer_of(index).map(|answered| answered.source)
    }

    fn answer_of(&self, index: u32) -> Option<Answered> {
        let mut answered = self.answered.iter().flatten();
        answered.find(|answered| answered.index == index).copied()
    }

    /// Moves data to an address that a Pong has proven.
    pub(super) fn prove(&mut self, now: Moment, endpoint: Path) {
        self.endpoint = Some(endpoint);
        self.proof = Proof::Proven;
        self.watch.begin(now);
    }

    /// Where the next packet goes, after a move that waited for a gap if that is due.
    pub(super) fn way_out(&mut self, now: Moment) -> Option<Path> {
        if let Some(endpoint) = self.watch.poll_move(now) {
            self.prove(now, endpoint);
        }
        self.endpoint
    }

    /// Whether this many bytes may go to the endpoint; they are counted if so.
    pub(super) fn try_spend(&mut self, bytes: usize, purpose: Purpose) -> bool {
        let Proof::Open(spent) = &mut self.proof else {
            return true;
        };
        let limit = match purpose {
            Purpose::Packet => UNPROVEN_BYTES - UNPROVEN_CONTROL_BYTES,
            Purpose::Control => UNPROVEN_BYTES,
        };
        let fits = *spent + bytes <= limit;
        if fits {
            *spent += bytes;
        }
        fits
    }

    /// Notes an authenticated packet of a transport.
    pub(super) fn note_heard_sealed(&self, now: Moment) {
        self.counters.heard.store(now.0, Ordering::Relaxed);
    }

    /// Notes an authenticated packet; tells whether it is the newest yet under its index, and whether that index is new.
    /// Two are remembered: after handshakes that crossed, boringtun may use both keys in turn for as long as they live.
    pub(super) fn note_heard(&mut self, now: Moment, index: u32, counter: u64) -> Heard {
        self.counters.heard.store(now.0, Ordering::Relaxed);
        let known = self.newest.iter_mut().find(|(known, _)| *known == index);
        let Some((_, newest)) = known else {
            self.newest = [(index, counter), self.newest[0]];
            self.note_confirmed(index);
            return Heard::NewKeys;
        };
        if counter <= *newest {
            return Heard::Old;
        }
        *newest = counter;
        Heard::Newest
    }

    /// The first packet under the keys of a handshake that the other side began; it may come long after it. Of those
    /// that this side began, the response was noted. One of ours that is under way is of no use any more.
    fn note_confirmed(&mut self, index: u32) {
        if let Some(answered) = self.answer_of(index) {
            self.rekey = self.rekey.filter(|rekey| rekey.sent > answered.at);
            let handshake = &self.counters.handshake;
            let newest = handshake.load(Ordering::Relaxed).max(answered.at.0);
            handshake.store(newest, Ordering::Relaxed);
        }
    }

    /// Notes that a response was taken.
    pub(super) fn note_handshake(&mut self, now: Moment) {
        self.counters.heard.store(now.0, Ordering::Relaxed);
        self.counters.handshake.store(now.0, Ordering::Relaxed);
    }

    /// Whether to say that the peer talks from `source`.
    pub(super) fn is_new_path(&mut self, now: Moment, source: Path) -> bool {
        if self.endpoint == Some(source) || now.since(self.new_path) < NEW_PATH {
            return false;
        }
        self.new_path = now;
        true
    }

    /// Whether to say that the peer's user data comes from `source`, where ours does not go.
    pub(super) fn is_elsewhere(&mut self, now: Moment, source: Path) -> bool {
        if self.endpoint == Some(source) || now.since(self.elsewhere) < NEW_PATH {
            return false;
        }
        self.elsewhere = now;
        true
    }

    /// Whether one more control frame is taken in now; it is counted if so.
    pub(super) fn takes_frame(&mut self, now: Moment) -> bool {
        takes_frame(&mut self.frames, now)
    }

    /// Counts an IP packet that was sent.
    pub(super) fn count_sent(&self, now: Moment, bytes: usize) {
        self.counters.count_sent(FIRST, bytes);
        self.note_user(now);
    }

    /// Counts bytes of IP packets that were received.
    pub(super) fn count_received(&self, now: Moment, bytes: usize) {
        self.counters.count_received(FIRST, bytes);
        self.note_user(now);
    }

    fn note_user(&self, now: Moment) {
        let transport = self.transport.as_deref();
        if transport.is_some_and(|transport| !transport.is_sealing()) {
            self.counters.note_plain(now);
        }
        self.counters.user.store(now.0, Ordering::Relaxed);
    }
}

/// Whether a session may bring one more control frame now; it is counted if so.
pub(super) fn takes_frame(frames: &mut Meter, now: Moment) -> bool {
    frames.take(now, FRAMES)
}

/// Where a packet stands among those of its keys; of several, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// A newer one came before it.
    Old,
    /// The newest yet.
    Newest,
    /// The first under its keys.
    NewKeys,
}

impl From<Order> for Heard {
    fn from(order: Order) -> Self {
        match order {
            Order::Older => Self::Old,
            Order::Newest => Self::Newest,
            Order::First => Self::NewKeys,
        }
    }
}

/// All states. A place is a number that stays the same while the state lives.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    states: Vec<Option<State>>,
    pairs: Vec<Option<usize>>,
    joins: BTreeMap<JoinIx, usize>,
    by_index: HashMap<u32, usize>,
}

impl Sessions {
    /// The place of the state for somebody.
    pub(super) fn place(&self, id: SessionId) -> Option<usize> {
        match id {
            SessionId::Pair(PeerIx(peer)) => *self.pairs.get(peer as usize)?,
            SessionId::Join(join) => self.joins.get(&join).copied(),
        }
    }

    /// The state with this receiver index, and its place.
    pub(super) fn receiver(&mut self, receiver: u32) -> Result<(usize, &mut State), DropReason> {
        let place = self.by_index.get(&(receiver >> 8)).copied();
        let place = place.ok_or(DropReason::InUnknownIndex)?;
        let state = self.at(place).ok_or(DropReason::InUnknownIndex)?;
        Ok((place, state))
    }

    /// The place of a state whose endpoint this is; the pair's before a join session's.
    pub(super) fn place_of_endpoint(&self, source: Path) -> Option<usize> {
        let of = |wanted: fn(SessionId) -> bool| {
            self.states.iter().position(|state| {
                state
                    .as_ref()
                    .is_some_and(|state| state.endpoint == Some(source) && wanted(state.id))
            })
        };
        of(|id| matches!(id, SessionId::Pair(_))).or_else(|| of(|_| true))
    }

    /// The places of all states whose endpoint this is.
    pub(super) fn places_at(&self, endpoint: Path) -> impl Iterator<Item = usize> {
        let is_there = move |state: &State| state.endpoint == Some(endpoint);
        let states = self.states.iter().enumerate();
        states
            .filter(move |(_, state)| state.as_ref().is_some_and(is_there))
            .map(|(place, _)| place)
    }

    /// The state at a place.
    pub(super) fn at(&mut self, place: usize) -> Option<&mut State> {
        self.states.get_mut(place)?.as_mut()
    }

    /// The same, to be looked at.
    #[cfg(test)]
    pub(super) fn look(&self, place: usize) -> Option<&State> {
        self.states.get(place)?.as_ref()
    }

    /// Whether an index is free.
    pub(super) fn is_free(&self, index: u32) -> bool {
        !self.by_index.contains_key(&index)
    }

    /// Adds a state; one under the same id gives way.
    pub(super) fn insert(&mut self, state: State) -> usize {
        self.remove(state.id);
        let (id, index) = (state.id, state.index);
        let place = match self.states.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.states.push(None);
                self.states.len() - 1
            }
        };
        self.states[place] = Some(state);
        self.by_index.insert(index, place);
        match id {
            SessionId::Pair(PeerIx(peer)) => {
                let peer = peer as usize;
                if self.pairs.len() <= peer {
                    self.pairs.resize(peer + 1, None);
                }
                self.pairs[peer] = Some(place);
            }
            SessionId::Join(join) => {
                self.joins.insert(join, place);
            }
        }
        place
    }

    /// Takes a state out.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<State> {
        let place = self.place(id)?;
        let state = self.states.get_mut(place)?.take()?;
        self.by_index.remove(&state.index);
        match id {
            SessionId::Pair(PeerIx(peer)) => self.pairs[peer as usize] = None,
            SessionId::Join(join) => {
                self.joins.remove(&join);
            }
        }
        Some(state)
    }

    /// How many places there are; some may be free.
    pub(super) fn places(&self) -> usize {
        self.states.len()
    }

    /// Whether there is no state.
    pub(super) fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }
}
