//! The double of `wireguard/` and of what `datapath/` does around it: sessions come up by an initiation that a Knock
//! or Join announced and by its response, and carry messages and packets.
//!
//! Keys open or do not open as in the real thing: a datagram is taken only where both tunnel keys and the preshared key
//! are the ones it was made with. Left out: ageing of keys, so no rekey happens here, and cookies.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use webmesh::{
    addr::{Path, Underlay},
    ids::SessionId,
    node::output::Remote,
    tables::Admission,
    time::Moment,
    wire::{
        frame::{self, Content},
        message::Message,
    },
};

/// How long a Knock or Join lets initiations in, an initiation waits for its Knock, and a state may stand without an
/// authenticated packet (protocol §2, §3).
const TEN: Duration = Duration::from_secs(10);
/// Initiations that wait for their Knock; the oldest makes room.
const PARKED: usize = 64;

/// One datagram on the modelled network.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a datagram is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A Knock or a Join, sealed, as it travels.
    Sealed(Vec<u8>),
    /// Asks for a session.
    Initiation {
        /// The index by which the sender will know the answer.
        sender: Index,
        /// The keys it is made with.
        keys: Keys,
    },
    /// Answers an initiation.
    Response {
        /// The initiation's.
        receiver: Index,
        /// The index by which the sender will know data.
        sender: Index,
    },
    /// Something inside a session.
    Data {
        /// The receiver's index.
        receiver: Index,
        /// What.
        inner: Inner,
    },
}

impl Kind {
    /// The bytes of a handshake that travels by hand, as long as the real ones are; None: it does not travel so.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let (first, len, parts) = match self {
            Self::Sealed(bytes) => return Some(bytes.clone()),
            Self::Initiation { sender, keys } => {
                let parts = [&sender.to_le_bytes()[..], &keys.from, &keys.to, &keys.psk].concat();
                (1, 148, parts)
            }
            Self::Response { receiver, sender } => (
                2,
                92,
                [receiver.to_le_bytes(), sender.to_le_bytes()].concat(),
            ),
            Self::Data { receiver, inner } => {
                let frame = match inner {
                    Inner::Keepalive => &[][..],
                    Inner::Frame(frame) => frame,
                    Inner::Packet(_) => return None,
                };
                let frame_len = u64::try_from(frame.len()).expect("frames are short");
                let head = [receiver.to_le_bytes(), frame_len.to_le_bytes()].concat();
                (4, 32 + frame.len(), [&head, frame].concat())
            }
        };
        let mut bytes = vec![0; len];
        bytes[0] = first;
        bytes[4..4 + parts.len()].copy_from_slice(&parts);
        Some(bytes)
    }

    /// The handshake of these bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let part = bytes[at..].first_chunk().expect("handshakes are long");
            u64::from_le_bytes(*part)
        };
        let key = |at: usize| *bytes[at..].first_chunk().expect("handshakes are long");
        match bytes[0] {
            1 => Self::Initiation {
                sender: number(4),
                keys: Keys {
                    from: key(12),
                    to: key(44),
                    psk: key(76),
                },
            },
            2 => Self::Response {
                receiver: number(4),
                sender: number(12),
            },
            4 => Self::Data {
                receiver: number(4),
                inner: match usize::try_from(number(12)).expect("frames are short") {
                    0 => Inner::Keepalive,
                    len => Inner::Frame(bytes[20..20 + len].to_vec()),
                },
            },
            _ => Self::Sealed(bytes.to_vec()),
        }
    }
}

/// A receiver index. Never used twice in one world.
pub(crate) type Index = u64;

/// The three keys of a handshake, seen from its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    from: [u8; 32],
    to: [u8; 32],
    psk: [u8; 32],
}

/// What a session carries.
#[derive(Clone, Debug)]
pub(crate) enum Inner {
    /// Nothing: says that the session stands.
    Keepalive,
    /// A control frame, as it travels.
    Frame(Vec<u8>),
    /// A packet of a program, by its number in this world.
    Packet(u64),
}

/// What came of what was handed in, in order.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A datagram leaves.
    Transmit { to: Path, datagram: Datagram },
    /// A session stands.
    Up { session: SessionId, endpoint: Path },
    /// A state ended by itself.
    Down { session: SessionId },
    /// A message was opened.
    Opened {
        session: SessionId,
        source: Path,
        message: Message,
    },
    /// A packet was opened.
    Delivered { packet: u64 },
    /// An authenticated datagram came from elsewhere.
    NewPath { session: SessionId, source: Path },
}

/// All sessions of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Tunnels {
    own: [u8; 32],
    next_index: Index,
    states: BTreeMap<SessionId, State>,
    admitted: BTreeMap<Path, (SessionId, Moment)>,
    parked: VecDeque<(Path, Moment, Index, Keys)>,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Debug)]
struct State {
    remote: Remote,
    made: Moment,
    endpoint: Option<Path>,
    is_up: bool,
    halves: Vec<Half>,
    /// The half that stood last: what is sent goes out under it.
    sending: Option<Index>,
    heard: Moment,
    user: Moment,
    is_reported: bool,
}

/// One handshake of a state, begun by either side.
#[derive(Clone, Debug)]
struct Half {
    local: Index,
    remote: Option<Index>,
    /// Where the initiation came from that this half answered.
    answered: Option<Path>,
}

impl Tunnels {
    /// The sessions of a machine with this tunnel key; `first_index` and the billion after it are its own.
    pub(crate) fn new(own: [u8; 32], first_index: Index) -> Self {
        Self {
            own,
            next_index: first_index,
            states: BTreeMap::new(),
            admitted: BTreeMap::new(),
            parked: VecDeque::new(),
            effects: VecDeque::new(),
        }
    }

    /// The next thing that came of it.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When a state ends that never stood.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        self.states
            .values()
            .filter(|state| !state.is_up)
            .map(|state| state.made.after(TEN))
            .min()
    }

    /// Ends what never stood.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        let ended = |state: &State| !state.is_up && state.made.after(TEN) <= now;
        let over: Vec<SessionId> = self
            .states
            .iter()
            .filter(|(_, state)| ended(state))
            .map(|(session, _)| *session)
            .collect();
        for session in over {
            self.states.remove(&session);
            self.effects.push_back(Effect::Down { session });
        }
    }

    /// Sends an initiation to each address, each behind its Knock or Join.
    pub(crate) fn initiate(
        &mut self,
        now: Moment,
        session: SessionId,
        remote: Remote,
        to: Vec<(Path, Datagram)>,
    ) {
        for (to, first) in to {
            let local = self.draw_index();
            let state = self
                .states
                .entry(session)
                .or_insert_with(|| State::new(remote.clone(), now));
            state.halves.push(Half {
                local,
                remote: None,
                answered: None,
            });
            let keys = Keys {
                from: self.own,
                to: state.remote.tunnel,
                psk: state.remote.psk,
            };
            self.transmit(to, first.kind);
            self.transmit(
                to,
                Kind::Initiation {
                    sender: local,
                    keys,
                },
            );
        }
    }

    /// Lets initiations from `source` into a state, those too that came before.
    pub(crate) fn admit(
        &mut self,
        now: Moment,
        session: SessionId,
        remote: Remote,
        source: Path,
        admission: Admission,
    ) {
        if admission == Admission::Replace {
            self.states.remove(&session);
        }
        self.states
            .entry(session)
            .or_insert_with(|| State::new(remote, now));
        self.admitted.insert(source, (session, now));
        let (mine, others) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition::<Vec<_>, _>(|(parked_source, ..)| *parked_source == source);
        self.parked = others.into();
        for (_, at, sender, keys) in mine {
            if now.since(at) < TEN {
                self.on_initiation(now, source, sender, keys);
            }
        }
    }

    /// Takes in a datagram other than a sealed one.
    pub(crate) fn handle_datagram(&mut self, now: Moment, source: Path, kind: Kind) {
        match kind {
            Kind::Sealed(_) => {}
            Kind::Initiation { sender, keys } => self.on_initiation(now, source, sender, keys),
            Kind::Response { receiver, sender } => self.on_response(now, source, receiver, sender),
            Kind::Data { receiver, inner } => self.on_data(now, source, receiver, inner),
        }
    }

    fn on_initiation(&mut self, now: Moment, source: Path, sender: Index, keys: Keys) {
        let announced = self
            .admitted
            .get(&source)
            .filter(|(_, at)| now.since(*at) < TEN)
            .map(|(session, _)| *session);
        let standing = || {
            self.states
                .iter()
                .find(|(_, state)| state.endpoint == Some(source))
                .map(|(id, _)| *id)
        };
        let Some(session) = announced.or_else(standing) else {
            if self.parked.len() == PARKED {
                self.parked.pop_front();
            }
            return self.parked.push_back((source, now, sender, keys));
        };
        let local = self.draw_index();
        let Some(state) = self.states.get_mut(&session) else {
            return;
        };
        let opens = keys
            == Keys {
                from: state.remote.tunnel,
                to: self.own,
                psk: state.remote.psk,
            };
        if !opens {
            return;
        }
        state.halves.push(Half {
            local,
            remote: Some(sender),
            answered: Some(source),
        });
        if source.carries_data() {
            state.endpoint.get_or_insert(source);
        }
        self.transmit(
            source,
            Kind::Response {
                receiver: sender,
                sender: local,
            },
        );
    }

    fn on_response(&mut self, now: Moment, source: Path, receiver: Index, sender: Index) {
        let Some((session, state)) = self.state_of(receiver) else {
            return;
        };
        let Some(half) = state
            .halves
            .iter_mut()
            .find(|half| half.local == receiver && half.remote.is_none())
        else {
            return;
        };
        half.remote = Some(sender);
        state.sending = Some(receiver);
        state.heard = now;
        state.is_reported = false;
        if source.carries_data() {
            state.endpoint.get_or_insert(source);
        }
        self.transmit(
            source,
            Kind::Data {
                receiver: sender,
                inner: Inner::Keepalive,
            },
        );
        self.stand(session, source);
    }

    fn on_data(&mut self, now: Moment, source: Path, receiver: Index, inner: Inner) {
        let Some((session, state)) = self.state_of(receiver) else {
            return;
        };
        state.heard = now;
        state.is_reported = false;
        let is_newer = state.sending.is_none_or(|sending| sending < receiver);
        if is_newer {
            state.sending = Some(receiver);
        }
        let elsewhere = state.endpoint != Some(source) && source.carries_data();
        let half = state.halves.iter().find(|half| half.local == receiver);
        let found = half.and_then(|half| half.answered).unwrap_or(source);
        if matches!(inner, Inner::Packet(_)) {
            state.user = now;
        }
        self.stand(session, found);
        if elsewhere {
            self.effects.push_back(Effect::NewPath { session, source });
        }
        match inner {
            Inner::Keepalive => {}
            Inner::Frame(frame) => self.effects.push_back(Effect::Opened {
                session,
                source,
                message: read(&frame),
            }),
            Inner::Packet(packet) => self.effects.push_back(Effect::Delivered { packet }),
        }
    }

    fn stand(&mut self, session: SessionId, found: Path) {
        let Some(state) = self.states.get_mut(&session) else {
            return;
        };
        let endpoint = state.endpoint.unwrap_or(found);
        if !std::mem::replace(&mut state.is_up, true) {
            self.effects.push_back(Effect::Up { session, endpoint });
        }
    }

    /// Sends a message in a session that stands; false: none does.
    pub(crate) fn send(&mut self, session: SessionId, message: Message, via: Option<Path>) -> bool {
        self.seal(session, Inner::Frame(frame::encode(&message, 0)), via)
    }

    /// Sends a packet in a session that stands; false: none does.
    pub(crate) fn send_packet(&mut self, now: Moment, session: SessionId, packet: u64) -> bool {
        if let Some(state) = self.states.get_mut(&session) {
            state.user = now;
            state.is_reported = false;
        }
        self.seal(session, Inner::Packet(packet), None)
    }

    fn seal(&mut self, session: SessionId, inner: Inner, via: Option<Path>) -> bool {
        let Some(state) = self.states.get(&session).filter(|state| state.is_up) else {
            return false;
        };
        let half = state
            .halves
            .iter()
            .find(|half| Some(half.local) == state.sending);
        let (Some(receiver), Some(to)) =
            (half.and_then(|half| half.remote), via.or(state.endpoint))
        else {
            return false;
        };
        self.transmit(to, Kind::Data { receiver, inner });
        true
    }

    /// Moves a session's data.
    pub(crate) fn set_path(&mut self, session: SessionId, endpoint: Path) {
        if let Some(state) = self.states.get_mut(&session) {
            state.endpoint = Some(endpoint);
        }
    }

    /// Forgets a state.
    pub(crate) fn close(&mut self, session: SessionId) {
        self.states.remove(&session);
    }

    /// Whether a session stands.
    pub(crate) fn is_up(&self, session: SessionId) -> bool {
        self.states.get(&session).is_some_and(|state| state.is_up)
    }

    /// The sessions that stand.
    pub(crate) fn standing(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.states
            .iter()
            .filter(|(_, state)| state.is_up)
            .map(|(session, _)| *session)
    }

    /// When sessions were last heard and used, those alone of which it was not told yet.
    pub(crate) fn take_heard(&mut self) -> Vec<(SessionId, Moment, Moment)> {
        let fresh = self
            .states
            .iter_mut()
            .filter(|(_, state)| state.is_up && !state.is_reported);
        fresh
            .map(|(session, state)| {
                state.is_reported = true;
                (*session, state.heard, state.user)
            })
            .collect()
    }

    fn state_of(&mut self, local: Index) -> Option<(SessionId, &mut State)> {
        self.states
            .iter_mut()
            .find(|(_, state)| state.halves.iter().any(|half| half.local == local))
            .map(|(session, state)| (*session, state))
    }

    fn transmit(&mut self, to: Path, kind: Kind) {
        self.effects.push_back(Effect::Transmit {
            to,
            datagram: Datagram { kind },
        });
    }

    fn draw_index(&mut self) -> Index {
        self.next_index += 1;
        self.next_index
    }
}

/// Reads a frame. Every node here is ours: one that nobody can read is a mistake of ours.
pub(crate) fn read(bytes: &[u8]) -> Message {
    match frame::decode(bytes).map(|frame| frame.content) {
        Ok(Content::Known(message)) => message,
        other => panic!(
            "a frame of {} bytes that nobody can read: {other:?}",
            bytes.len()
        ),
    }
}

impl State {
    fn new(remote: Remote, made: Moment) -> Self {
        Self {
            remote,
            made,
            endpoint: None,
            is_up: false,
            halves: Vec::new(),
            sending: None,
            heard: made,
            user: Moment(0),
            is_reported: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use webmesh::ids::PeerIx;

    use super::*;

    const PAIR: SessionId = SessionId::Pair(PeerIx(0));

    fn at(last: u8) -> Path {
        Path::Direct(Underlay::new(([10, 0, 0, last], 41820).into()))
    }

    fn two() -> (Tunnels, Tunnels) {
        (Tunnels::new([1; 32], 1000), Tunnels::new([2; 32], 2000))
    }

    fn remote(of: u8, psk: u8) -> Remote {
        Remote {
            tunnel: [of; 32],
            psk: [psk; 32],
        }
    }

    fn sealed() -> Datagram {
        Datagram {
            kind: Kind::Sealed(Vec::new()),
        }
    }

    /// Hands each side's datagrams to the other until both are silent; every Knock is let in. Says who came up.
    fn talk(alice: &mut Tunnels, bob: &mut Tunnels, psk: u8) -> (usize, usize) {
        let mut ups = (0, 0);
        loop {
            let from_alice: Vec<Effect> = std::iter::from_fn(|| alice.poll_effect()).collect();
            let from_bob: Vec<Effect> = std::iter::from_fn(|| bob.poll_effect()).collect();
            if from_alice.is_empty() && from_bob.is_empty() {
                return ups;
            }
            ups.0 += hand_over(from_alice, bob, at(1), remote(1, psk));
            ups.1 += hand_over(from_bob, alice, at(2), remote(2, psk));
        }
    }

    fn hand_over(effects: Vec<Effect>, to: &mut Tunnels, source: Path, knocker: Remote) -> usize {
        let mut ups = 0;
        for effect in effects {
            match effect {
                Effect::Transmit {
                    datagram:
                        Datagram {
                            kind: Kind::Sealed(_),
                        },
                    ..
                } => {
                    to.admit(Moment(1), PAIR, knocker.clone(), source, Admission::Keep);
                }
                Effect::Transmit { datagram, .. } => {
                    to.handle_datagram(Moment(1), source, datagram.kind);
                }
                Effect::Up { .. } => ups += 1,
                Effect::Down { .. }
                | Effect::Opened { .. }
                | Effect::Delivered { .. }
                | Effect::NewPath { .. } => {}
            }
        }
        ups
    }

    #[test]
    fn an_initiation_behind_its_knock_brings_a_session_up_on_both_sides() {
        let (mut alice, mut bob) = two();
        alice.initiate(Moment(0), PAIR, remote(2, 7), vec![(at(2), sealed())]);
        assert_eq!(talk(&mut alice, &mut bob, 7), (1, 1));
        assert!(alice.send_packet(Moment(2), PAIR, 5) && bob.send_packet(Moment(2), PAIR, 6));
    }

    #[test]
    fn two_that_initiate_at_once_get_one_session_each() {
        let (mut alice, mut bob) = two();
        alice.initiate(Moment(0), PAIR, remote(2, 7), vec![(at(2), sealed())]);
        bob.initiate(Moment(0), PAIR, remote(1, 7), vec![(at(1), sealed())]);
        assert_eq!(talk(&mut alice, &mut bob, 7), (1, 1));
        assert!(alice.is_up(PAIR) && bob.is_up(PAIR));
    }

    #[test]
    fn another_preshared_key_brings_nothing_up() {
        let (mut alice, mut bob) = two();
        alice.initiate(Moment(0), PAIR, remote(2, 7), vec![(at(2), sealed())]);
        assert_eq!(talk(&mut alice, &mut bob, 8), (0, 0));
        alice.handle_timeout(Moment(0).after(TEN));
        assert!(matches!(
            alice.poll_effect(),
            Some(Effect::Down { session: PAIR })
        ));
    }

    #[test]
    fn an_initiation_nobody_announced_waits_and_is_not_answered() {
        let (_, mut bob) = two();
        let keys = Keys {
            from: [1; 32],
            to: [2; 32],
            psk: [7; 32],
        };
        bob.handle_datagram(Moment(0), at(1), Kind::Initiation { sender: 1001, keys });
        assert!(bob.poll_effect().is_none());
        bob.admit(Moment(1), PAIR, remote(1, 7), at(1), Admission::Keep);
        assert!(matches!(
            bob.poll_effect(),
            Some(Effect::Transmit {
                datagram: Datagram {
                    kind: Kind::Response { receiver: 1001, .. }
                },
                ..
            })
        ));
    }
}
