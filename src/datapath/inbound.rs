//! From the network to the TUN and to the control plane: what a datagram is, whether it may cost anything, whose it
//! is, and whether what is inside may be delivered. Packets and control frames take two ways that never meet.

use crate::{
    addr::Path,
    ids::{PeerIx, SessionId},
    packet::ecn::Ecn,
    time::Moment,
    transport::Carrier,
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
    sessions::{Heard, Purpose},
    shard::Shard,
    train::{Arrived, MOST, Train},
    transports::{FIRST, thread_of},
    unsealing::{Gate, unseal},
};

/// What an opened data message held; the bytes stand where the message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Keepalive,
    NotIp,
    Inner(usize),
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

/// What a datagram was; of several, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    /// Nothing that says who sent it, or it was dropped.
    Other,
    /// Data that another thread opens, or drops.
    PassedOn,
    /// Authentic data of a session.
    Data,
}

impl Shard {
    /// Takes in one datagram, which stays as it is.
    pub(super) fn handle_datagram(&mut self, now: Moment, source: impl Into<Source>, bytes: &[u8]) {
        let mut came = std::mem::take(&mut self.came);
        came.clear();
        came.extend_from_slice(bytes);
        self.take_message(now, source.into(), Train::of_one(&mut came));
        self.came = came;
    }

    /// Takes in one datagram that nobody else has.
    pub(super) fn take_datagram(
        &mut self,
        now: Moment,
        source: impl Into<Source>,
        mut bytes: Vec<u8>,
    ) {
        self.take_message(now, source.into(), Train::of_one(&mut bytes));
    }

    /// Takes in datagrams; packets in them are copied, and wait to be written.
    pub(super) fn take_message(
        &mut self,
        now: Moment,
        source: Source,
        mut train: Train<'_>,
    ) -> Taken {
        let mut taken = Taken::Other;
        loop {
            let mut arrived = Arrived::default();
            taken = taken.max(self.take_train(now, source, &mut train, &mut arrived));
            self.keep(&arrived);
            if train.is_empty() {
                return taken;
            }
        }
    }

    /// Takes datagrams off a train, as many as may arrive at one time. Packets in them stay where they are, in their order.
    pub(super) fn take_train<'a>(
        &mut self,
        now: Moment,
        source: Source,
        train: &mut Train<'a>,
        arrived: &mut Arrived<'a>,
    ) -> Taken {
        let mut taken = Taken::Other;
        let mut left = MOST;
        while left > 0 {
            let run = train.next_run(left);
            left -= run.len();
            let many = u64::try_from(run.len()).unwrap_or(u64::MAX);
            match self.try_run(now, source, run, arrived) {
                Ok(what) => taken = taken.max(what),
                Err(reason) => self.drops.add(reason, many),
            }
            if train.is_empty() {
                break;
            }
        }
        taken
    }

    /// Has packets that arrived wait with those that this machine has made.
    pub(super) fn keep(&mut self, arrived: &Arrived<'_>) {
        for packet in arrived.packets() {
            if !self.out.packets.push(packet, ()) {
                self.drops.count(DropReason::NoBuffer);
            }
        }
    }

    /// Datagrams that begin alike: several of one transport or of one leg of a relay, or one. What a frame of a relay holds
    /// comes here again, at most twice: nothing nests deeper.
    fn try_run<'a>(
        &mut self,
        now: Moment,
        from: Source,
        run: Train<'a>,
        arrived: &mut Arrived<'a>,
    ) -> Result<Taken, DropReason> {
        let source = from.path;
        let datagram =
            classify(run.first()).map_err(|_unclassified| DropReason::InUnknownDatagram)?;
        if let Datagram::Transport(data) = datagram {
            return self.on_transport(now, from, (data.receiver, run), arrived);
        }
        if let Some(lane) = &mut self.lane {
            lane.hand_in(from, run, &self.drops);
            return Ok(Taken::PassedOn);
        }
        match datagram {
            Datagram::Data(data) => {
                return self.on_data(now, from, (data.receiver, run), arrived);
            }
            Datagram::Relayed(relayed) => {
                self.on_relayed(now, from, (relayed.session, run), arrived);
            }
            Datagram::Initiation(bytes) => self.on_initiation(now, source, bytes)?,
            Datagram::Response(message) | Datagram::Cookie(message) => {
                self.on_answer(now, source, (message.receiver, message.bytes))?;
            }
            Datagram::Sealed(bytes) => {
                self.handshakes.try_sealed(now, source)?;
                self.out.events.push_back(Event::Sealed {
                    source,
                    bytes: bytes.to_vec(),
                });
            }
            Datagram::Dht(bytes) => self.on_dht(now, source, bytes)?,
            Datagram::RelayBinding(binding) => self.on_binding(now, source, &binding)?,
            Datagram::Transport(_) => {}
        }
        Ok(Taken::Other)
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

    /// WireGuard opens from one buffer into another; what it opened is put where it came.
    fn on_data<'a>(
        &mut self,
        now: Moment,
        source: Source,
        (receiver, run): (u32, Train<'a>),
        arrived: &mut Arrived<'a>,
    ) -> Result<Taken, DropReason> {
        let bytes = run.datagrams().next().unwrap_or_default();
        let (place, state) = self.sessions.receiver(receiver)?;
        let was_standing = state.is_standing();
        let room = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let counter = session::counter(bytes).unwrap_or(0);
        let content = match state.session.decapsulate(bytes, room).map_err(refusal)? {
            Step::Keepalive => Content::Keepalive,
            Step::NotIp => Content::NotIp,
            Step::Inner(inner) => {
                let target = bytes.get_mut(..inner.len());
                target.ok_or(DropReason::InNotIp)?.copy_from_slice(inner);
                Content::Inner(inner.len())
            }
            Step::Cookie | Step::Response(_) | Step::Confirmation(_) => {
                return Err(DropReason::InHandshake);
            }
        };
        let came = (receiver, counter);
        let heard = self.on_authentic(now, place, source.path, came, was_standing);
        let taken = match content {
            Content::Keepalive => Ok(()),
            Content::NotIp => Err(DropReason::InNotIp),
            Content::Inner(len) => {
                let inner = bytes.get_mut(..len).unwrap_or_default();
                self.on_inner(now, place, (source, heard), inner, arrived)
            }
        };
        if let Err(reason) = taken {
            self.drops.count(reason);
        }
        Ok(Taken::Data)
    }

    /// A data message opened: the state is heard, may come to stand, and may have a new path.
    fn on_authentic(
        &mut self,
        now: Moment,
        place: usize,
        source: Path,
        (receiver, counter): (u32, u64),
        was_standing: bool,
    ) -> Heard {
        let Some(state) = self.sessions.at(place) else {
            return Heard::Old;
        };
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

    /// Data of a transport. It is opened where it stands.
    fn on_transport<'a>(
        &mut self,
        now: Moment,
        source: Source,
        (receiver, run): (u32, Train<'a>),
        arrived: &mut Arrived<'a>,
    ) -> Result<Taken, DropReason> {
        if self.lane.is_some() {
            return self.open_by_lane(now, source, (receiver, run), arrived);
        }
        if thread_of(receiver) != FIRST {
            return self.pass_on(source, (receiver, run));
        }
        let Self {
            sessions,
            indexes,
            view,
            drops,
            mtu,
            ..
        } = self;
        let place = indexes.place(receiver);
        let place = place.ok_or(DropReason::InUnknownIndex)?;
        let state = sessions.at(place).ok_or(DropReason::InUnknownIndex)?;
        let gate = Gate {
            view,
            drops,
            session: state.id,
            ecn: source.ecn,
            room: state.room,
            mtu: *mtu,
        };
        let transport = state.transport.as_deref_mut();
        let opening = transport.and_then(|transport| transport.opening(receiver));
        let opening = opening.ok_or(DropReason::InUnknownIndex)?;
        let frames = &mut state.frames;
        let Some(unsealed) = unseal(now, (opening, frames), &gate, run, arrived) else {
            return Ok(Taken::Other);
        };
        let heard = unsealed.heard;
        state.note_heard_sealed(now);
        let is_endpoint = state.endpoint == Some(source.path);
        let is_back = state.watch.note_heard(now, is_endpoint);
        self.tell_path(now, place, source.path, (heard, is_back));
        if heard == Heard::NewKeys {
            self.on_first(now, place, receiver);
        }
        self.note_packets(
            now,
            place,
            (source, heard),
            (unsealed.packets, unsealed.bytes),
        );
        for frame in unsealed.frames {
            let carrier = Carrier::Transport(receiver);
            if let Err(reason) = self.on_frame(now, place, (source.path, carrier), frame) {
                self.drops.count(reason);
            }
        }
        Ok(Taken::Data)
    }

    /// What WireGuard opened: a control frame behind the bytes that no host can emit, or a packet.
    fn on_inner<'a>(
        &mut self,
        now: Moment,
        place: usize,
        (source, heard): (Source, Heard),
        inner: &'a mut [u8],
        arrived: &mut Arrived<'a>,
    ) -> Result<(), DropReason> {
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        if let Some(frame) = frame::unshape(inner) {
            if !state.takes_frame(now) {
                return Err(DropReason::SessionFlooding);
            }
            let frame = frame.to_vec();
            return self.on_frame(now, place, (source.path, Carrier::WireGuard), frame);
        }
        let gate = Gate {
            view: &self.view,
            drops: &self.drops,
            session: state.id,
            ecn: source.ecn,
            room: state.room,
            mtu: self.mtu,
        };
        let packet = gate.admit(inner)?;
        arrived.push(packet)?;
        self.note_packets(now, place, (source, heard), (1, packet.len()));
        Ok(())
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

    /// So many packets of the peer's programs came, and so many bytes.
    fn note_packets(
        &mut self,
        now: Moment,
        place: usize,
        (source, heard): (Source, Heard),
        (packets, bytes): (u32, usize),
    ) {
        let Some(state) = self.sessions.at(place).filter(|_| packets > 0) else {
            return;
        };
        state.count_received(now, bytes);
        state.watch.note_taken_in(packets);
        if let Some(transport) = state.transport.as_deref_mut() {
            transport.note_user_data(now);
        }
        self.tell_elsewhere(now, place, (source.path, heard));
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
