//! The core of a data thread: everything it decides, with bytes in and batches out. It owns no descriptor, so tests
//! drive it with slices.

use std::sync::Arc;

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{
    addr::Path,
    ids::SessionId,
    packet::{
        icmp::{self, Unreachable},
        ip::Header,
    },
    relay::{quota::Limit, ways::Ways},
    tables::Tables,
    time::{Moment, Now},
    wireguard::session::{Keys, Session, Tick},
};

use super::{
    command::{Event, SessionKeys},
    door::Door,
    drops::{DropReason, Drops},
    handshakes::Handshakes,
    lane::Lane,
    lanes::Lanes,
    outbox::Outbox,
    questions::Questions,
    queue::{Place, Waiting},
    sessions::{Knocking, Purpose, Rekey, Sessions, State},
    transports::Indexes,
    turnaround::View,
};

/// An initiation of a rekey that is unanswered for this long goes again behind a Knock (protocol §2).
const KNOCK_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// A peer unheard for this long gets a Knock behind an initiation sooner (protocol §2): it may have lost the session.
const UNHEARD: std::time::Duration = std::time::Duration::from_secs(60);

/// How soon: by then two Pings on its path were missed, and a third peer had its turn to open its NAT. A Knock that comes
/// through with the first answer replaces the session that stands, and what is held for it with it.
const KNOCK_IF_SILENT: std::time::Duration = std::time::Duration::from_millis(600);

/// One shard of the datapath.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) view: View,
    pub(super) sessions: Sessions,
    /// The receive indexes of transports.
    pub(super) indexes: Indexes,
    /// When something is due in an exchange, at the earliest.
    pub(super) exchanges_due: Option<Moment>,
    pub(super) waiting: Waiting,
    pub(super) handshakes: Handshakes,
    pub(super) door: Door,
    pub(super) questions: Questions,
    pub(super) drops: Arc<Drops>,
    pub(super) out: Outbox,
    /// What this machine carries for others.
    pub(super) ways: Ways,
    pub(super) mtu: usize,
    pub(super) scratch: Vec<u8>,
    pub(super) answer: Vec<u8>,
    /// Where a datagram is opened that is to stay as it is.
    pub(super) came: Vec<u8>,
    /// Whether questions for names of others go to the control plane.
    pub(super) forwards: bool,
    pub(super) random: ChaCha12Rng,
    /// The other threads, where this is the first.
    pub(super) lanes: Lanes,
    /// What this thread does by itself, where it is another.
    pub(super) lane: Option<Box<Lane>>,
}

impl Shard {
    /// Makes one without a session. `mtu` is the device's.
    pub(super) fn new(seed: [u8; 32], tables: Arc<Tables>, mtu: u16, drops: Arc<Drops>) -> Self {
        Self {
            view: View::new(tables),
            sessions: Sessions::default(),
            indexes: Indexes::default(),
            exchanges_due: None,
            waiting: Waiting::default(),
            handshakes: Handshakes::new(),
            door: Door::default(),
            questions: Questions::default(),
            drops,
            out: Outbox::new(),
            ways: Ways::new(Limit::of_megabits(0)),
            mtu: usize::from(mtu),
            scratch: Vec::with_capacity(super::batch::CAPACITY),
            answer: Vec::with_capacity(super::batch::CAPACITY),
            came: Vec::with_capacity(super::batch::CAPACITY),
            forwards: false,
            random: ChaCha12Rng::from_seed(seed),
            lanes: Lanes::default(),
            lane: None,
        }
    }

    /// Takes in the tables if they are not those it has.
    pub(super) fn apply_tables(&mut self, tables: &Arc<Tables>) {
        if !Arc::ptr_eq(&self.view.tables, tables) {
            self.view = View::new(Arc::clone(tables));
        }
    }

    /// Whether anything waits for [`Shard::handle_timers`].
    pub(super) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.waiting.is_empty()
            && !self.handshakes.has_parked()
            && self.ways.is_empty()
            && self.out.legs.is_quiet()
    }

    /// Runs all timers; call it about every 250 ms while the shard is not idle.
    pub(super) fn handle_timers(&mut self, now: Moment) {
        for place in 0..self.sessions.places() {
            self.run_timers(now, place);
        }
        self.run_relay_timers(now);
        while let Some(parked) = self.handshakes.poll_overdue(now) {
            self.on_unjudged(now, parked);
        }
        while let Some(packets) = self.waiting.poll_forgotten(now) {
            for packet in packets {
                self.on_waited_in_vain(&packet);
            }
        }
    }

    /// Makes a state and adds it; None while the clock is before 1970.
    pub(super) fn make_state(
        &mut self,
        now: Now,
        id: SessionId,
        keys: &SessionKeys,
    ) -> Option<usize> {
        let index = loop {
            let index = self.random.next_u32() >> 8;
            if self.sessions.is_free(index) {
                break index;
            }
        };
        let keys = Keys {
            local_secret: &keys.local_secret,
            remote_public: &keys.remote_public,
            psk: keys.psk,
        };
        match Session::new(now, &keys, index) {
            Ok(session) => {
                let threads = self.lanes.threads();
                let state = State::new(now.at, id, (session, index), threads);
                Some(self.sessions.insert(state))
            }
            Err(_before_1970) => {
                self.drops.count(DropReason::ClockBefore1970);
                None
            }
        }
    }

    /// A state has come to stand: says so and sends what waited. One that came to stand by hand has no endpoint yet.
    pub(super) fn on_standing(&mut self, now: Moment, place: usize, found: Path) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if state.endpoint.is_none() && found.carries_data() {
            state.endpoint = Some(found);
            state.watch.begin(now);
        }
        state.rekey = None;
        self.out.events.push_back(Event::Up {
            session: state.id,
            endpoint: state.endpoint.unwrap_or(found),
            counters: Arc::clone(&state.counters),
        });
        self.send_waiting(now, place);
    }

    /// Queues a packet for which no session stands, and says that one is wanted. False when it is lost.
    pub(super) fn enqueue(&mut self, now: Moment, peer: crate::ids::PeerIx, packet: &[u8]) -> bool {
        match self.waiting.push(now, peer, packet) {
            Place::First => self.ask_for_way(peer),
            Place::Behind => {}
            Place::Full => {
                self.drops.count(DropReason::OutQueueFull);
                return false;
            }
            Place::Blocked => {
                self.drops.count(DropReason::OutUnreachable);
                self.answer_unreachable(packet, Unreachable::Host);
                return false;
            }
        }
        true
    }

    /// Answers a packet of this host by an ICMP error from the resolver's address, where one may be sent.
    pub(super) fn answer_unreachable(&mut self, packet: &[u8], why: Unreachable) {
        let Ok(header) = Header::parse(packet) else {
            return;
        };
        let source = self.view.resolver(header.source);
        if icmp::build(&mut self.scratch, source, (&header, packet), why) {
            self.write_scratch();
        }
    }

    /// A packet waited and its attempt ended.
    pub(super) fn on_waited_in_vain(&mut self, packet: &[u8]) {
        self.drops.count(DropReason::OutQueueEnded);
        self.answer_unreachable(packet, Unreachable::Host);
    }

    /// Writes what stands in the scratch buffer into the TUN.
    pub(super) fn write_scratch(&mut self) {
        if !self.out.packets.push(&self.scratch, ()) {
            self.drops.count(DropReason::NoBuffer);
        }
    }

    /// Random bits.
    pub(super) fn random(&mut self) -> u32 {
        self.random.next_u32()
    }

    /// Random bytes.
    pub(super) fn random_bytes<const N: usize>(&mut self) -> [u8; N] {
        draw(&mut self.random)
    }

    fn run_timers(&mut self, now: Moment, place: usize) {
        self.note_lane_use(place);
        self.publish(place);
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        let id = state.id;
        if state.is_unheard(now) {
            self.end(now, id);
            return;
        }
        if !state.is_standing() {
            return;
        }
        let Some(room) = self.out.datagrams.room() else {
            return;
        };
        let mut tick = state.session.tick(room);
        if tick == Tick::Quiet && state.wants_handshake(now) {
            let initiation = state.session.initiate(room);
            tick = initiation.map_or(Tick::Quiet, Tick::Initiation);
        }
        let is_over = tick == Tick::Expired || !state.is_standing();
        match (tick, state.endpoint) {
            _ if is_over => {
                self.end(now, id);
                return;
            }
            (Tick::Initiation(len), Some(endpoint)) => {
                if let Err(reason) = self.out.commit(len, endpoint) {
                    self.drops.count(reason);
                }
                state.rekey = Some(Rekey {
                    sent: now,
                    knock: match state.counters.heard() {
                        Some(at) if now.since(at) <= UNHEARD => Knocking::Later,
                        Some(_) | None => Knocking::IfSilent,
                    },
                });
            }
            (Tick::Keepalive(len), Some(endpoint)) if state.try_spend(len, Purpose::Control) => {
                if let Err(reason) = self.out.commit(len, endpoint) {
                    self.drops.count(reason);
                }
            }
            (Tick::Initiation(_) | Tick::Keepalive(_) | Tick::Quiet | Tick::Expired, _) => {}
        }
        self.tell_silence(now, place);
        self.ask_for_knock(now, place);
    }

    fn ask_for_knock(&mut self, now: Moment, place: usize) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        let heard = state.counters.heard();
        let Some(rekey) = &mut state.rekey else {
            return;
        };
        let waited = now.since(rekey.sent);
        let is_due = match rekey.knock {
            Knocking::Later => waited >= KNOCK_AFTER,
            Knocking::IfSilent => {
                waited >= KNOCK_IF_SILENT && heard.is_none_or(|at| at <= rekey.sent)
            }
            Knocking::Asked => false,
        };
        if is_due {
            rekey.knock = Knocking::Asked;
            let session = state.id;
            self.out.events.push_back(Event::NeedsKnock { session });
        }
    }

    /// A session is over, and whoever asked for it is told.
    pub(super) fn end(&mut self, now: Moment, session: SessionId) {
        self.remove(now, session);
        self.out.events.push_back(Event::Down { session });
    }
}

/// Random bytes.
pub(super) fn draw<const N: usize>(random: &mut ChaCha12Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill_bytes(&mut bytes);
    bytes
}
