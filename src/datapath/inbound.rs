//! From the network to the TUN and to the control plane: what a datagram is, whether it may cost anything, whose it
//! is, and whether what is inside may be delivered. Packets and control frames take two ways that never meet.

use crate::{
    addr::Path,
    ids::{PeerIx, SessionId},
    packet::{
        ecn::Ecn,
        ip::{Header, Ports},
        tcp,
        turn::{self, Turn},
    },
    time::Moment,
    transport::{self, Carrier, NotOpened, Opening, Order},
    wire::{
        datagram::{Datagram, classify},
        exchange, frame,
    },
    wireguard::session::{self, Refused, Step},
};

use super::{
    command::Event,
    drops::DropReason,
    handshakes::Parked,
    sessions::{Heard, Purpose, takes_frame},
    shard::Shard,
    transports::{FIRST, thread_of},
};

/// What an opened data message held; the bytes lie in the next free buffer for the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Keepalive,
    NotIp,
    Inner(usize),
}

/// The same of a transport's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    Keepalive,
    Frame(Vec<u8>),
    Packet(usize),
}

/// How a datagram came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) path: Path,
    /// What routers wrote on it.
    pub(super) ecn: Ecn,
}

impl From<Path> for Source {
    /// Nothing is written on it.
    fn from(path: Path) -> Self {
        let ecn = Ecn::Deaf;
        Self { path, ecn }
    }
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Authentic data of a session.
    Data,
    /// Data that another thread opens, or drops.
    PassedOn,
    /// Something else, or it was dropped.
    Other,
}

impl Shard {
    /// Takes in one datagram.
    pub(super) fn handle_datagram(&mut self, now: Moment, source: impl Into<Source>, bytes: &[u8]) {
        if let Err(reason) = self.try_datagram(now, source.into(), bytes) {
            self.drops.count(reason);
        }
    }

    /// The same; whether it was data of a session.
    pub(super) fn take_data(
        &mut self,
        now: Moment,
        source: impl Into<Source>,
        bytes: &[u8],
    ) -> Taken {
        let data = match classify(bytes) {
            Ok(Datagram::Data(_)) => Taken::Data,
            Ok(Datagram::Transport(data)) if thread_of(data.receiver) == FIRST => Taken::Data,
            Ok(Datagram::Transport(_)) => Taken::PassedOn,
            Ok(_) | Err(_) => Taken::Other,
        };
        match self.try_datagram(now, source.into(), bytes) {
            Ok(()) => data,
            Err(reason) => {
                self.drops.count(reason);
                Taken::Other
            }
        }
    }

    /// What a frame of a relay holds comes here again, at most twice: nothing nests deeper.
    pub(super) fn try_datagram(
        &mut self,
        now: Moment,
        from: Source,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let source = from.path;
        let datagram = classify(bytes).map_err(|_unclassified| DropReason::InUnknownDatagram)?;
        if self.lane.is_some() {
            return self.take_by_lane(now, from, (&datagram, bytes));
        }
        match datagram {
            Datagram::Data(data) => self.on_data(now, from, (data.receiver, data.bytes)),
            Datagram::Initiation(bytes) => self.on_initiation(now, source, bytes),
            Datagram::Response(message) | Datagram::Cookie(message) => {
                self.on_answer(now, source, (message.receiver, message.bytes))
            }
            Datagram::Sealed(bytes) => {
                self.handshakes.try_sealed(now, source)?;
                self.out.events.push_back(Event::Sealed {
                    source,
                    bytes: bytes.to_vec(),
                });
                Ok(())
            }
            Datagram::Dht(bytes) => self.on_dht(now, source, bytes),
            Datagram::Relayed(relayed) => self.on_relayed(now, from, (relayed, bytes)),
            Datagram::RelayBinding(binding) => self.on_binding(now, source, &binding),
            Datagram::Transport(data) => self.on_transport(now, from, (data.receiver, data.bytes)),
        }
    }

    /// A reply of the DHT to a question that the control plane asked: it comes from whom was asked, or it is none.
    fn on_dht(&mut self, now: Moment, source: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let source = source.direct().ok_or(DropReason::InUnsupported)?;
        if !self.questions.takes_answer(now, source) {
            return Err(DropReason::InDhtUnasked);
        }
        let bytes = bytes.to_vec();
        self.out.events.push_back(Event::Dht { source, bytes });
        Ok(())
    }

    /// An initiation goes to what the newest good Knock or Join from its source asked for; while one is being judged,
    /// it waits.
    fn on_initiation(&mut self, now: Moment, source: Path, bytes: &[u8]) -> Result<(), DropReason> {
        if self.handshakes.is_being_judged(now, source) {
            return self.handshakes.park(now, source, bytes);
        }
        self.feed_initiation(now, source, bytes)
    }

    /// Nobody judged the Knock before this initiation in time: it counts for a state that has its source as endpoint.
    pub(super) fn on_unjudged(&mut self, now: Moment, parked: Parked) {
        if let Err(reason) = self.feed_initiation(now, parked.source, &parked.bytes) {
            self.drops.count(reason);
        }
    }

    /// Gives an initiation to its state, if there is one for its source and it may cost a handshake.
    pub(super) fn feed_initiation(
        &mut self,
        now: Moment,
        source: Path,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let admission = self.handshakes.admission(now, source);
        let place = match admission {
            Some(session) => self.sessions.place(session),
            None => self.sessions.place_of_endpoint(source),
        };
        let place = place.ok_or(DropReason::InUnexpectedInitiation)?;
        let state = self.sessions.at(place);
        let state = state.ok_or(DropReason::InUnexpectedInitiation)?;
        // A state that never took an initiation knows no time stamp: it would answer a recorded one.
        if admission.is_none() && !state.has_answered() {
            return Err(DropReason::InUnexpectedInitiation);
        }
        if !state.session.has_good_mac(bytes) {
            return Err(DropReason::InMac);
        }
        if state.session.would_displace_keys() && state.are_keys_good(now) {
            return Err(DropReason::InHandshakeCrowd);
        }
        self.handshakes.try_handshake(now, source)?;
        let room = self.out.room()?;
        let step = state.session.decapsulate(bytes, room).map_err(refusal)?;
        let Step::Response(response) = step else {
            return Err(DropReason::InHandshake);
        };
        let len = response.len();
        if let Some(index) = session::index_at(response, 4) {
            state.note_answered(now, index, source);
        }
        if self.note_other_end(now, place, bytes)
            && let Some(state) = self.sessions.at(place)
        {
            state.expect_new_end(now);
        }
        self.out.commit(len, source)
    }

    /// A handshake message of the other end was proven: whether it made its state anew. Then the keys of a transport that
    /// this end still has are nobody's: what they would seal is lost.
    fn note_other_end(&mut self, now: Moment, place: usize, message: &[u8]) -> bool {
        let state = self.sessions.at(place);
        let index = session::index_at(message, 4);
        let is_another = state
            .zip(index)
            .is_some_and(|(state, index)| state.is_with_another(index));
        if is_another {
            self.drop_keys(now, place);
        }
        is_another
    }

    /// The state or the run that was at the other end took its keys and its paths with it.
    fn forget_end(&mut self, now: Moment, place: usize) {
        if let Some(state) = self.sessions.at(place) {
            state.forget_path();
        }
        self.end_transport(now, place);
    }

    /// A response or a cookie.
    fn on_answer(
        &mut self,
        now: Moment,
        source: Path,
        (receiver, bytes): (u32, &[u8]),
    ) -> Result<(), DropReason> {
        let (place, state) = self.sessions.receiver(receiver)?;
        if !state.session.has_good_mac(bytes) {
            return Err(DropReason::InMac);
        }
        self.handshakes.try_handshake(now, source)?;
        let was_standing = state.is_standing();
        let room = self.out.room()?;
        let len = match state.session.decapsulate(bytes, room).map_err(refusal)? {
            Step::Confirmation(confirmation) => confirmation.len(),
            Step::Cookie => return Ok(()),
            Step::Response(_) | Step::Keepalive | Step::Inner(_) | Step::NotIp => {
                return Err(DropReason::InHandshake);
            }
        };
        state.rekey = None;
        state.note_handshake(now);
        state.watch.note_heard(now, state.endpoint == Some(source));
        let is_another = self.note_other_end(now, place, bytes);
        self.out.commit(len, source)?;
        let state = self.sessions.at(place);
        let is_new_end =
            !is_another && state.is_some_and(|state| state.takes_over_by_response(now));
        if is_new_end {
            self.forget_end(now, place);
        }
        if is_new_end || !was_standing {
            self.on_standing(now, place, source);
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Moment,
        source: Source,
        (receiver, bytes): (u32, &[u8]),
    ) -> Result<(), DropReason> {
        let (place, state) = self.sessions.receiver(receiver)?;
        let was_standing = state.is_standing();
        let room = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let content = match state.session.decapsulate(bytes, room).map_err(refusal)? {
            Step::Keepalive => Content::Keepalive,
            Step::NotIp => Content::NotIp,
            Step::Inner(inner) => Content::Inner(inner.len()),
            Step::Cookie | Step::Response(_) | Step::Confirmation(_) => {
                return Err(DropReason::InHandshake);
            }
        };
        let came = (receiver, bytes);
        let heard = self.on_authentic(now, place, source.path, came, was_standing);
        match content {
            Content::Keepalive => Ok(()),
            Content::NotIp => Err(DropReason::InNotIp),
            Content::Inner(len) => self.on_inner(now, place, (source, heard), len),
        }
    }

    /// A data message opened: the state is heard, may come to stand, and may have a new path.
    fn on_authentic(
        &mut self,
        now: Moment,
        place: usize,
        source: Path,
        (receiver, bytes): (u32, &[u8]),
        was_standing: bool,
    ) -> Heard {
        let Some(state) = self.sessions.at(place) else {
            return Heard::Old;
        };
        let counter = session::counter(bytes).unwrap_or(0);
        let heard = state.note_heard(now, receiver, counter);
        let is_back = state.watch.note_heard(now, state.endpoint == Some(source));
        let is_new_end = state.takes_over(now, receiver);
        if is_new_end || !was_standing {
            let endpoint = state.answered(receiver).unwrap_or(source);
            if is_new_end {
                self.forget_end(now, place);
            }
            self.on_standing(now, place, endpoint);
        }
        self.tell_path(now, place, source, (heard, is_back));
        heard
    }

    /// Says that a peer talks from another path than data goes by, or by that one again.
    pub(super) fn tell_path(
        &mut self,
        now: Moment,
        place: usize,
        source: Path,
        (heard, is_back): (Heard, bool),
    ) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if heard != Heard::Old && (is_back || state.is_new_path(now, source)) {
            let session = state.id;
            self.out
                .events
                .push_back(Event::NewPath { session, source });
        }
    }

    /// Data of a transport. It is opened straight into the buffer from which the TUN gets it.
    fn on_transport(
        &mut self,
        now: Moment,
        source: Source,
        (receiver, bytes): (u32, &[u8]),
    ) -> Result<(), DropReason> {
        if thread_of(receiver) != FIRST {
            return self.pass_on(source, (receiver, bytes));
        }
        let place = self.indexes.place(receiver);
        let place = place.ok_or(DropReason::InUnknownIndex)?;
        let state = self.sessions.at(place);
        let state = state.ok_or(DropReason::InUnknownIndex)?;
        let transport = state.transport.as_deref_mut();
        let opening = transport.and_then(|transport| transport.opening(receiver));
        let opening = opening.ok_or(DropReason::InUnknownIndex)?;
        let room = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let frames = &mut state.frames;
        let (heard, content) = unseal(opening, now, (bytes, room), || takes_frame(frames, now))?;
        state.note_heard_sealed(now);
        let is_back = state
            .watch
            .note_heard(now, state.endpoint == Some(source.path));
        self.tell_path(now, place, source.path, (heard, is_back));
        if heard == Heard::NewKeys {
            self.on_first(now, place, receiver);
        }
        match content? {
            Sealed::Keepalive => Ok(()),
            Sealed::Packet(len) => self.on_packet(now, place, (source, heard), len),
            Sealed::Frame(frame) => {
                let carrier = Carrier::Transport(receiver);
                self.on_frame(now, place, (source.path, carrier), frame)
            }
        }
    }

    /// What WireGuard opened: a control frame behind the bytes that no host can emit, or a packet.
    fn on_inner(
        &mut self,
        now: Moment,
        place: usize,
        (source, heard): (Source, Heard),
        len: usize,
    ) -> Result<(), DropReason> {
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        let room = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let inner = room.get(..len).ok_or(DropReason::InNotIp)?;
        let Some(frame) = frame::unshape(inner) else {
            return self.on_packet(now, place, (source, heard), len);
        };
        if !state.takes_frame(now) {
            return Err(DropReason::SessionFlooding);
        }
        let frame = frame.to_vec();
        self.on_frame(now, place, (source.path, Carrier::WireGuard), frame)
    }

    /// A control frame: of the exchange of keys, or the control plane's.
    pub(super) fn on_frame(
        &mut self,
        now: Moment,
        place: usize,
        (source, carrier): (Path, Carrier),
        frame: Vec<u8>,
    ) -> Result<(), DropReason> {
        if exchange::is_exchange(&frame) {
            return self.on_exchange(now, place, carrier, &frame);
        }
        if let Some(state) = self.sessions.at(place) {
            let session = state.id;
            self.out.events.push_back(Event::Control {
                session,
                source,
                frame,
            });
        }
        Ok(())
    }

    /// A packet of a program of the peer stands in the next free buffer for the TUN.
    fn on_packet(
        &mut self,
        now: Moment,
        place: usize,
        (source, heard): (Source, Heard),
        len: usize,
    ) -> Result<(), DropReason> {
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        let SessionId::Pair(peer) = state.id else {
            return Err(DropReason::InJoinPacket);
        };
        let room = state.room;
        let len = self.admit_packet(peer, source.ecn, len, room)?;
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        state.count_received(now, len);
        state.watch.note_taken_in();
        if let Some(transport) = state.transport.as_deref_mut() {
            transport.note_user_data(now);
        }
        self.tell_elsewhere(now, place, (source.path, heard));
        self.out.packets.commit(len, ());
        Ok(())
    }

    /// Says that a peer's user data comes by another path than ours goes.
    pub(super) fn tell_elsewhere(
        &mut self,
        now: Moment,
        place: usize,
        (source, heard): (Path, Heard),
    ) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if heard != Heard::Old && state.is_elsewhere(now, source) {
            let session = state.id;
            let event = Event::Elsewhere { session, source };
            self.out.events.push_back(event);
        }
    }

    /// Judges a packet of a peer's program, `len` bytes in the next free buffer for the TUN, and makes it what this host is
    /// to have; `room` is what fits its path. Tells how long it is.
    pub(super) fn admit_packet(
        &mut self,
        peer: PeerIx,
        ecn: Ecn,
        len: usize,
        room: usize,
    ) -> Result<usize, DropReason> {
        let buffer = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let inner = buffer.get_mut(..len).ok_or(DropReason::InNotIp)?;
        let marked = ecn.write_into(inner);
        marked.map_err(|_congested| DropReason::InCongested)?;
        let header = Header::parse(inner).map_err(|_malformed| DropReason::InNotIp)?;
        if let Some(port) = self.view.inbound(peer, &header, inner)? {
            rewrite_destination_port(inner, &header, port)?;
        }
        if room < self.mtu {
            tcp::clamp(inner, &header, room);
        }
        Ok(header.len)
    }

    /// Seals one control frame to where it is to go.
    pub(super) fn send_frame(
        &mut self,
        session: SessionId,
        frame: &[u8],
        via: Option<Path>,
    ) -> Result<(), DropReason> {
        let place = self.sessions.place(session).ok_or(DropReason::NoSession)?;
        let state = self.sessions.at(place).ok_or(DropReason::NoSession)?;
        let to = via.or(state.endpoint).ok_or(DropReason::NoSession)?;
        if !state.is_standing() {
            return Err(DropReason::NoSession);
        }
        self.scratch.clear();
        frame::shape(frame, &mut self.scratch);
        let len = self.scratch.len();
        self.scratch
            .resize(len.next_multiple_of(16).min(self.mtu.max(len)), 0);
        if Some(to) == state.endpoint && !state.try_spend(self.scratch.len(), Purpose::Control) {
            return Err(DropReason::OutUnproven);
        }
        let room = self.out.room()?;
        let sealed = state.session.encapsulate(&self.scratch, room);
        self.out.commit(sealed.ok_or(DropReason::FrameTooLong)?, to)
    }
}

/// Which peer a session is with; none in a join session.
pub(super) fn peer_of(session: SessionId) -> Option<PeerIx> {
    match session {
        SessionId::Pair(peer) => Some(peer),
        SessionId::Join(_) => None,
    }
}

/// Opens a datagram of a transport into `room`. What it held is an error where nobody may have it; it is heard all the same.
pub(super) fn unseal(
    opening: &mut Opening,
    now: Moment,
    (bytes, room): (&[u8], &mut [u8]),
    takes_frame: impl FnOnce() -> bool,
) -> Result<(Heard, Result<Sealed, DropReason>), DropReason> {
    let opened = opening.open(now, bytes, room).map_err(not_opened)?;
    let content = match opened.content {
        transport::Content::Packet(packet) => Ok(Sealed::Packet(packet.len())),
        transport::Content::Frame(_) if !takes_frame() => Err(DropReason::SessionFlooding),
        transport::Content::Frame(frame) => Ok(Sealed::Frame(frame.to_vec())),
        transport::Content::Keepalive => Ok(Sealed::Keepalive),
        transport::Content::Other => Err(DropReason::InNotIp),
    };
    let heard = match opened.order {
        Order::First => Heard::NewKeys,
        Order::Newest => Heard::Newest,
        Order::Older => Heard::Old,
    };
    Ok((heard, content))
}

fn rewrite_destination_port(
    packet: &mut [u8],
    header: &Header,
    port: u16,
) -> Result<(), DropReason> {
    let ports = header.ports(packet).ok_or(DropReason::InTinyFragment)?;
    let turn = Turn {
        source: header.source,
        destination: header.destination,
        ports: Ports {
            destination: port,
            ..ports
        },
    };
    turn::turn(packet, header, turn).map_err(|_cannot| DropReason::InTinyFragment)
}

fn refusal(refused: Refused) -> DropReason {
    match refused {
        Refused::Mac => DropReason::InMac,
        Refused::Tag => DropReason::InTag,
        Refused::Replay => DropReason::InReplay,
        Refused::Index => DropReason::InUnknownIndex,
        Refused::Counter => DropReason::InCounter,
        Refused::Unexpected => DropReason::InHandshake,
    }
}

fn not_opened(why: NotOpened) -> DropReason {
    match why {
        NotOpened::CutShort => DropReason::InUnknownDatagram,
        NotOpened::Counter => DropReason::InCounter,
        NotOpened::Replay(_) => DropReason::InReplay,
        NotOpened::Room => DropReason::NoBuffer,
        NotOpened::Tag => DropReason::InTag,
        NotOpened::Stopped => DropReason::InStopped,
    }
}
