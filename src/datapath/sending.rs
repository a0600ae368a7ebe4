//! User data on its way to a peer: sealed, sent where its session goes, and once more by another path while nobody
//! answers.

use std::{ops::Range, time::Duration};

use crate::{
    addr::{Path, Underlay},
    ids::{LegIx, PeerIx, SessionId},
    packet::{
        ecn::Ecn,
        icmp::Unreachable,
        split::{Lengths, Segments},
    },
    time::Moment,
    transport::{Run, padded},
    wireguard::session::Session,
};

use super::{
    command::{Event, Unheard},
    drops::DropReason,
    lane::Way,
    long::SHORT,
    outbox::Target,
    sessions::Purpose,
    shard::Shard,
    transports,
};

/// What became of a packet to a peer.
pub(super) enum Carried {
    /// Nothing: the key may seal no more, or the path is in doubt.
    Not,
    /// Nothing yet: others to the same peer were handed over and have not left.
    Behind,
    /// It was sealed, or dropped as far as there was no room for it; where its first segment stood, and its last where that is
    /// another.
    All {
        first: Range<usize>,
        last: Option<Range<usize>>,
    },
}

impl Shard {
    /// A Pong has proven where a state's data may go: what waited and what was not answered goes there.
    pub(super) fn set_path(&mut self, now: Moment, session: SessionId, endpoint: Path) {
        let Some(place) = self.sessions.place(session) else {
            return;
        };
        if let Some(state) = self.sessions.at(place) {
            state.prove(now, endpoint);
            self.send_held(now, place, endpoint);
            self.release_held(place);
            self.send_waiting(now, place);
            self.publish(place);
        }
    }

    /// A better path is proven: data goes there in the next gap.
    pub(super) fn plan_move(
        &mut self,
        now: Moment,
        session: SessionId,
        (endpoint, gap): (Path, Duration),
    ) {
        let place = self.sessions.place(session);
        let Some(state) = place.and_then(|place| self.sessions.at(place)) else {
            return;
        };
        match state.endpoint {
            Some(_) if !state.watch.holds(now) => {
                state.watch.plan(now, endpoint, gap);
                if let Some(place) = place {
                    self.publish(place);
                }
            }
            // Nobody answers where it goes now, or nothing goes anywhere: there is nothing to be overtaken.
            Some(_) | None => self.set_path(now, session, endpoint),
        }
    }

    /// Sends packets by a second path too, those first that were not answered.
    pub(super) fn mirror(&mut self, now: Moment, session: SessionId, via: Option<Path>) {
        let Some(place) = self.sessions.place(session) else {
            return;
        };
        if let Some(state) = self.sessions.at(place) {
            state.watch.set_mirror(via);
            if let Some(via) = via {
                self.send_held(now, place, via);
            }
            self.publish(place);
        }
    }

    /// Lets packets wait until there is a path.
    pub(super) fn withdraw(&mut self, session: SessionId) {
        let Some(place) = self.sessions.place(session) else {
            return;
        };
        if let Some(state) = self.sessions.at(place) {
            state.endpoint = None;
            state.watch.set_mirror(None);
        }
        self.publish(place);
    }

    /// A leg carries again: what waited for it goes.
    pub(super) fn send_over(&mut self, now: Moment, leg: LegIx) {
        let places: Vec<usize> = self.sessions.places_at(Path::Relay(leg)).collect();
        for place in places {
            self.send_waiting(now, place);
        }
    }

    /// Sends what waited for a path.
    pub(super) fn send_waiting(&mut self, now: Moment, place: usize) {
        let ready = self
            .sessions
            .at(place)
            .filter(|state| state.may_send(&self.out.legs));
        let Some(SessionId::Pair(peer)) = ready.map(|state| state.id) else {
            return;
        };
        for packet in self.waiting.take(peer) {
            self.scratch.clear();
            self.scratch.extend_from_slice(&packet);
            self.scratch.resize(packet.len() + 16, 0);
            let mut buffer = std::mem::take(&mut self.scratch);
            self.note_long(now, place, &packet);
            self.note_use(now, place);
            let sealing = self.sealing(place);
            let lengths = Lengths::of_one(packet.len());
            let mut run = self.run(now, place, sealing.as_ref(), lengths);
            let at = 0..packet.len();
            self.seal_packet(now, place, run.as_mut(), (&mut buffer, at));
            self.scratch = buffer;
        }
    }

    /// Seals all segments of a packet by one way, and sends them.
    pub(super) fn seal_along(
        &mut self,
        now: Moment,
        (thread, way): (usize, &Way),
        buffer: &mut [u8],
        mut segments: Segments,
    ) -> Result<Carried, DropReason> {
        segments.limit(way.room);
        if segments.longest() > way.room {
            if let Some(first) = segments.next(buffer) {
                let room = u16::try_from(way.room).unwrap_or(u16::MAX);
                self.answer_unreachable(&buffer[first], Unreachable::TooBig(room));
            }
            return Err(DropReason::OutTooLong);
        }
        let limit = self.mtu.min(way.room);
        let lengths = segments.lengths();
        let Some(mut run) = transports::run(&way.sealing, now, lengths, limit) else {
            return Ok(Carried::Not);
        };
        let (mut first, mut last, mut bytes) = (None, None, 0);
        while let Some(at) = segments.next(buffer) {
            let packet = buffer.get_mut(at.clone()).unwrap_or_default();
            if first.is_none() && segments.are_over() {
                self.clamp_to(way.room, packet);
            }
            match self.seal_segment(&mut run, way.endpoint, packet, limit) {
                Ok(()) => bytes += packet.len(),
                Err(reason) => self.drops.count(reason),
            }
            match first {
                Some(_) => last = Some(at),
                None => first = Some(at),
            }
        }
        if bytes > 0 {
            way.pulse.note_sent(now, lengths.each > SHORT);
            way.counters.count_sent(thread, bytes);
            way.counters.note_user(now);
        }
        let first = first.unwrap_or_default();
        Ok(Carried::All { first, last })
    }

    fn seal_segment(
        &mut self,
        run: &mut Run<'_>,
        to: Underlay,
        packet: &[u8],
        limit: usize,
    ) -> Result<(), DropReason> {
        let sealed = run.seal(packet, padded(packet.len(), limit), self.out.room()?);
        let sealed = sealed.map_err(|_no_room| DropReason::OutTooLong)?;
        let ecn = Ecn::of(packet);
        self.out.datagrams.commit(sealed, Target { to, ecn });
        Ok(())
    }

    /// Seals the packet that stands at `at` in `buffer`, which has room for padding, to the endpoint of a state that stands:
    /// in its transport by the next counter of `run`, or, where there is none, in WireGuard.
    pub(super) fn seal_packet(
        &mut self,
        now: Moment,
        place: usize,
        run: Option<&mut Run<'_>>,
        (buffer, at): (&mut [u8], Range<usize>),
    ) {
        if let Err(reason) = self.try_seal(now, place, run, (buffer, at)) {
            self.drops.count(reason);
        }
    }

    fn try_seal(
        &mut self,
        now: Moment,
        place: usize,
        run: Option<&mut Run<'_>>,
        (buffer, at): (&mut [u8], Range<usize>),
    ) -> Result<(), DropReason> {
        let state = self.sessions.at(place).ok_or(DropReason::NoSession)?;
        let endpoint = state.way_out(now).ok_or(DropReason::NoSession)?;
        let len = at.len();
        let ecn = Ecn::of(buffer.get(at.clone()).unwrap_or_default());
        let padded = padded(len, self.mtu.min(state.room));
        if !state.try_spend(padded, Purpose::Packet) {
            return Err(DropReason::OutUnproven);
        }
        let room = self.out.room()?;
        let sealed = match run {
            Some(run) => buffer
                .get(at)
                .and_then(|packet| run.seal(packet, padded, room).ok()),
            None => seal(&mut state.session, buffer, (at, padded), room),
        };
        let sealed = sealed.ok_or(DropReason::OutTooLong)?;
        if let Some(why) = state.watch.note_sent(now, len) {
            let session = state.id;
            self.out.events.push_back(Event::Unheard { session, why });
        }
        let datagram = self.out.room()?.get(..sealed).unwrap_or_default();
        if state.watch.holds(now) {
            state.watch.hold(now, datagram);
        }
        let mirror = state.watch.mirror();
        if mirror.is_some() {
            self.answer.clear();
            self.answer.extend_from_slice(datagram);
        }
        self.out.commit_marked(sealed, endpoint, ecn)?;
        state.count_sent(now, len);
        match mirror {
            Some(via) => self.out.send(&self.answer, via),
            None => Ok(()),
        }
    }

    /// A keepalive of a state, to be sent from elsewhere.
    pub(super) fn seal_keepalive(&mut self, session: SessionId) -> Option<Vec<u8>> {
        let place = self.sessions.place(session)?;
        let state = self.sessions.at(place)?;
        let room = self.out.datagrams.room()?;
        let sealed = state.session.encapsulate(&[], room)?;
        Some(self.out.room().ok()?.get(..sealed)?.to_vec())
    }

    fn send_held(&mut self, now: Moment, place: usize, to: Path) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        for datagram in state.watch.held(now) {
            if let Err(reason) = self.out.send(datagram, to) {
                self.drops.count(reason);
            }
        }
    }

    fn release_held(&mut self, place: usize) {
        if let Some(state) = self.sessions.at(place) {
            state.watch.release();
        }
    }

    /// A packet waits for a peer: a session is wanted, or a path for the one that stands.
    pub(super) fn ask_for_way(&mut self, peer: PeerIx) {
        let session = SessionId::Pair(peer);
        let place = self.sessions.place(session);
        let state = place.and_then(|place| self.sessions.at(place));
        self.out.events.push_back(match state {
            Some(state) if state.is_standing() => Event::Unheard {
                session,
                why: Unheard::Pathless,
            },
            Some(_) | None => Event::Wanted { peer },
        });
    }

    /// Says that what was sent is not answered, if it is not.
    pub(super) fn tell_silence(&mut self, now: Moment, place: usize) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if let Some(why) = state.watch.poll_silence(now) {
            let session = state.id;
            self.out.events.push_back(Event::Unheard { session, why });
        }
    }
}

/// Seals the packet at `at` in `buffer`, with zeros behind it up to `padded` bytes, into `room`; tells how long it is there.
/// What stood where the zeros were is the next segment's body, and stands there again afterwards.
fn seal(
    session: &mut Session,
    buffer: &mut [u8],
    (at, padded): (Range<usize>, usize),
    room: &mut [u8],
) -> Option<usize> {
    let end = at.start + padded;
    let mut body = [0; 16];
    let body = body.get_mut(..end - at.end)?;
    let padding = buffer.get_mut(at.end..end)?;
    body.copy_from_slice(padding);
    padding.fill(0);
    let sealed = session.encapsulate(buffer.get(at.start..end)?, room);
    buffer.get_mut(at.end..end)?.copy_from_slice(body);
    sealed
}
