//! From the network to the TUN and to the control plane: what a datagram is, whether it may cost anything, whose it
//! is, and whether what is inside may be delivered. Packets and control frames take two ways that never meet.

use crate::{
    addr::Underlay,
    ids::{PeerIx, SessionId},
    packet::{
        ip::{Header, Ports},
        turn::{self, Turn},
    },
    time::Moment,
    wire::{
        datagram::{Datagram, classify},
        frame,
    },
    wireguard::session::{self, Refused, Step},
};

use super::{
    command::Event,
    drops::DropReason,
    handshakes::Parked,
    sessions::{Heard, Purpose},
    shard::Shard,
};

/// What an opened data message held; the bytes lie in the next free buffer for the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Keepalive,
    NotIp,
    Inner(usize),
}

impl Shard {
    /// Takes in one datagram.
    pub(super) fn handle_datagram(&mut self, now: Moment, source: Underlay, bytes: &[u8]) {
        if let Err(reason) = self.try_datagram(now, source, bytes) {
            self.drops.count(reason);
        }
    }

    fn try_datagram(
        &mut self,
        now: Moment,
        source: Underlay,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let datagram = classify(bytes).map_err(|_unclassified| DropReason::InUnknownDatagram)?;
        match datagram {
            Datagram::Data(data) => self.on_data(now, source, (data.receiver, data.bytes)),
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
            Datagram::Transport(_)
            | Datagram::Relayed(_)
            | Datagram::RelayBinding(_)
            | Datagram::Dht(_) => Err(DropReason::InUnsupported),
        }
    }

    /// An initiation goes to what the newest good Knock or Join from its source asked for; while one is being judged,
    /// it waits.
    fn on_initiation(
        &mut self,
        now: Moment,
        source: Underlay,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
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
        source: Underlay,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let admission = self.handshakes.admission(now, source);
        let place = match admission {
            Some(session) => self.sessions.place(session),
            None => self.sessions.place_of_endpoint(source),
        };
        let state = place.and_then(|place| self.sessions.at(place));
        let state = state.ok_or(DropReason::InUnexpectedInitiation)?;
        // A state that never took an initiation knows no time stamp: it would answer a recorded one.
        if admission.is_none() && !state.has_answered() {
            return Err(DropReason::InUnexpectedInitiation);
        }
        if !state.session.has_good_mac(bytes) {
            return Err(DropReason::InMac);
        }
        self.handshakes.try_handshake(now, source)?;
        let room = self.out.datagrams.room().ok_or(DropReason::NoBuffer)?;
        let step = state.session.decapsulate(bytes, room).map_err(refusal)?;
        let Step::Response(response) = step else {
            return Err(DropReason::InHandshake);
        };
        let len = response.len();
        if let Some(index) = index_at(response, 4) {
            state.note_answered(now, index, source);
        }
        self.out.datagrams.commit(len, source);
        Ok(())
    }

    /// A response or a cookie.
    fn on_answer(
        &mut self,
        now: Moment,
        source: Underlay,
        (receiver, bytes): (u32, &[u8]),
    ) -> Result<(), DropReason> {
        let (place, state) = self.sessions.receiver(receiver)?;
        if !state.session.has_good_mac(bytes) {
            return Err(DropReason::InMac);
        }
        self.handshakes.try_handshake(now, source)?;
        let was_standing = state.is_standing();
        let room = self.out.datagrams.room().ok_or(DropReason::NoBuffer)?;
        let len = match state.session.decapsulate(bytes, room).map_err(refusal)? {
            Step::Confirmation(confirmation) => confirmation.len(),
            Step::Cookie => return Ok(()),
            Step::Response(_) | Step::Keepalive | Step::Inner(_) | Step::NotIp => {
                return Err(DropReason::InHandshake);
            }
        };
        state.rekey = None;
        state.note_handshake(now);
        self.out.datagrams.commit(len, source);
        if !was_standing {
            self.on_standing(now, place, source);
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Moment,
        source: Underlay,
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
        self.on_authentic(now, place, source, (receiver, bytes), was_standing);
        match content {
            Content::Keepalive => Ok(()),
            Content::NotIp => Err(DropReason::InNotIp),
            Content::Inner(len) => self.on_inner(now, place, source, len),
        }
    }

    /// A data message opened: the state is heard, may come to stand, and may have a new path.
    fn on_authentic(
        &mut self,
        now: Moment,
        place: usize,
        source: Underlay,
        (receiver, bytes): (u32, &[u8]),
        was_standing: bool,
    ) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        let counter = session::counter(bytes).unwrap_or(0);
        let heard = state.note_heard(now, receiver, counter);
        let session = state.id;
        if state.takes_over(receiver) || !was_standing {
            let endpoint = state.answered(receiver).unwrap_or(source);
            self.on_standing(now, place, endpoint);
        }
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if heard != Heard::Old && state.is_new_path(now, source) {
            self.out
                .events
                .push_back(Event::NewPath { session, source });
        }
    }

    fn on_inner(
        &mut self,
        now: Moment,
        place: usize,
        source: Underlay,
        len: usize,
    ) -> Result<(), DropReason> {
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        let room = self.out.packets.room().ok_or(DropReason::NoBuffer)?;
        let inner = room.get_mut(..len).ok_or(DropReason::InNotIp)?;
        if let Some(frame) = frame::unshape(inner) {
            if !state.takes_frame(now) {
                return Err(DropReason::SessionFlooding);
            }
            self.out.events.push_back(Event::Control {
                session: state.id,
                source,
                frame: frame.to_vec(),
            });
            return Ok(());
        }
        let SessionId::Pair(peer) = state.id else {
            return Err(DropReason::InJoinPacket);
        };
        let header = Header::parse(inner).map_err(|_malformed| DropReason::InNotIp)?;
        if let Some(port) = self.view.inbound(peer, &header, inner)? {
            rewrite_destination_port(inner, &header, port)?;
        }
        state.count_received(now, header.len);
        self.out.packets.commit(header.len, ());
        Ok(())
    }

    /// Seals one control frame to where it is to go.
    pub(super) fn send_frame(
        &mut self,
        session: SessionId,
        frame: &[u8],
        via: Option<Underlay>,
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
        let room = self.out.datagrams.room().ok_or(DropReason::NoBuffer)?;
        let sealed = state.session.encapsulate(&self.scratch, room);
        self.out
            .datagrams
            .commit(sealed.ok_or(DropReason::FrameTooLong)?, to);
        Ok(())
    }
}

/// Which peer a session is with; none in a join session.
pub(super) fn peer_of(session: SessionId) -> Option<PeerIx> {
    match session {
        SessionId::Pair(peer) => Some(peer),
        SessionId::Join(_) => None,
    }
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

fn index_at(datagram: &[u8], at: usize) -> Option<u32> {
    let bytes = datagram.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
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
