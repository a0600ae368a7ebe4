//! From the TUN to the peers: source check, resolver, own services, queue, seal.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::{PeerIx, SessionId},
    packet::{
        icmp::Unreachable,
        ip::{Header, Ports, TCP},
        split::{self, Segments},
        tcp::Segment,
        turn::{self, CannotTurn, Turn},
        udp,
        vnet::Undone,
    },
    time::Moment,
    wire::frame,
};

use super::{
    command::Event, drops::DropReason, sending::Carried, shard::Shard, transports::FIRST,
    turnaround::Route,
};

/// Bytes of a DNS answer over UDP: what a question that says nothing else may get over any path (DNS flag day 2020).
const ANSWER_MAX: usize = 1232;

/// Room behind a packet, for what WireGuard fills it up with.
pub(super) const PADDING: usize = 16;

impl Shard {
    /// Takes in one packet of `len` bytes that a program of this host wrote, with what is left to be done to it; `buffer`
    /// has at least [`PADDING`] bytes more.
    pub(super) fn handle_packet(
        &mut self,
        now: Moment,
        buffer: &mut [u8],
        (len, undone): (usize, Undone),
    ) {
        if let Err(reason) = self.try_packet(now, buffer, (len, undone)) {
            self.drops.count(reason);
        }
    }

    /// A packet that is to be cut is judged and rewritten once, before it is: every segment has its headers.
    fn try_packet(
        &mut self,
        now: Moment,
        buffer: &mut [u8],
        (len, undone): (usize, Undone),
    ) -> Result<(), DropReason> {
        let packet = buffer.get_mut(..len).ok_or(DropReason::OutTooLong)?;
        if frame::is_control_shape(packet) {
            return Err(DropReason::OutForgedControl);
        }
        let header = Header::parse(packet).map_err(|_malformed| DropReason::OutNotIp)?;
        if !self.view.is_own(header.source) {
            return Err(DropReason::OutForeignSource);
        }
        let undone = split::finish(packet, undone).map_err(|_misfit| DropReason::OutNotIp)?;
        if header.protocol == TCP && header.destination == self.view.resolver(header.destination) {
            if self.lane.is_some() {
                // The first thread knows what it has asked at doors.
                return self.hand_over(packet, undone);
            }
            if self.is_door_answer(now, &header, packet) {
                return Ok(());
            }
        }
        match self.view.outbound(&header, packet) {
            Route::Peer(peer, port) => {
                if let Some(port) = port {
                    rewrite_source_port(packet, &header, port)?;
                }
                let segments = self.segments(packet, &header, undone)?;
                if self.lane.is_some() {
                    let what = (len, undone);
                    return self.carry_by_lane(now, peer, (buffer, segments), what);
                }
                self.carry(now, peer, buffer, segments);
            }
            Route::Turn(to) => {
                turn::turn(packet, &header, to).map_err(cannot_turn)?;
                let segments = self.segments(packet, &header, undone)?;
                self.turn_around(packet, segments)?;
            }
            Route::Query => {
                let segments = self.segments(packet, &header, undone)?;
                self.answer_queries(packet, segments);
            }
            Route::Closed => {
                self.refuse(&header, packet);
                return Err(DropReason::OutRefusedPort);
            }
            Route::Unknown => {
                self.answer_unreachable(packet, Unreachable::Host);
                return Err(DropReason::OutUnknownPeer);
            }
            Route::Drop(reason) => return Err(reason),
        }
        Ok(())
    }

    fn segments(
        &self,
        packet: &mut [u8],
        header: &Header,
        undone: Undone,
    ) -> Result<Segments, DropReason> {
        let segments = Segments::of(packet, header, undone);
        let segments = segments.map_err(|_misfit| DropReason::OutNotIp)?;
        match segments.longest() > self.mtu {
            true => Err(DropReason::OutTooLong),
            false => Ok(segments),
        }
    }

    fn carry(&mut self, now: Moment, peer: PeerIx, buffer: &mut [u8], mut segments: Segments) {
        let place = self.sessions.place(SessionId::Pair(peer));
        let standing = place.filter(|place| {
            self.sessions
                .at(*place)
                .is_some_and(|state| state.may_send(&self.out.legs))
        });
        if let Some(place) = standing {
            return self.carry_to(now, place, buffer, segments);
        }
        while let Some(at) = segments.next(buffer) {
            // Where there is no room for one, there is none for those behind it.
            if !self.enqueue(now, peer, &buffer[at]) {
                return;
            }
        }
    }

    fn carry_to(&mut self, now: Moment, place: usize, buffer: &mut [u8], mut segments: Segments) {
        self.note_use(now, place);
        if self.carry_along(now, place, buffer, &segments) {
            return;
        }
        let room = self.room_of(place);
        segments.limit(room);
        if segments.longest() > room {
            if let Some(first) = segments.next(buffer) {
                self.answer_too_long(place, &buffer[first]);
            }
            return;
        }
        let sealing = self.sealing(place);
        let lengths = segments.lengths();
        let mut run = self.run(now, place, sealing.as_ref(), lengths);
        let mut is_first = true;
        while let Some(at) = segments.next(buffer) {
            // What a program sends again, and how far it has come, is seen by the first and the last.
            if is_first || segments.are_over() {
                self.note_long(now, place, &buffer[at.clone()]);
            }
            if is_first && segments.are_over() {
                self.clamp(place, &mut buffer[at.clone()]);
            }
            is_first = false;
            self.seal_packet(now, place, run.as_mut(), (buffer, at));
        }
    }

    /// Whether the segments of a packet went by the way that is open to all threads. Where there is none, each of them is looked
    /// at: it may have to be held, or go by a second path too.
    fn carry_along(
        &mut self,
        now: Moment,
        place: usize,
        buffer: &mut [u8],
        segments: &Segments,
    ) -> bool {
        let Some(way) = self.open_way(now, place) else {
            return false;
        };
        match self.seal_along(now, (FIRST, &way), buffer, segments.clone()) {
            Ok(Carried::All { first, last }) => {
                for at in [Some(first), last].into_iter().flatten() {
                    self.note_long(now, place, buffer.get(at).unwrap_or_default());
                }
                true
            }
            // The key may seal no more.
            Ok(Carried::Not | Carried::Behind) => false,
            Err(reason) => {
                self.drops.count(reason);
                true
            }
        }
    }

    /// Back into the host; a long packet is joined again on its way there.
    fn turn_around(&mut self, packet: &mut [u8], mut segments: Segments) -> Result<(), DropReason> {
        while let Some(at) = segments.next(packet) {
            if !self.out.packets.push(&packet[at], ()) {
                return Err(DropReason::NoBuffer);
            }
        }
        Ok(())
    }

    fn answer_queries(&mut self, packet: &mut [u8], mut segments: Segments) {
        while let Some(at) = segments.next(packet) {
            let query = &packet[at];
            let header = Header::parse(query).map_err(|_malformed| DropReason::OutNotIp);
            if let Err(reason) = header.and_then(|header| self.answer_query(&header, query)) {
                self.drops.count(reason);
            }
        }
    }

    fn answer_query(&mut self, header: &Header, packet: &[u8]) -> Result<(), DropReason> {
        let query = udp::body(header, packet).ok_or(DropReason::OutNotIp)?;
        let ports = header.ports(packet).ok_or(DropReason::OutNotIp)?;
        if self.forwards && self.view.tables.names.is_foreign(query) {
            self.out.events.push_back(Event::Foreign {
                resolver: header.destination,
                asker: SocketAddr::new(header.source, ports.source),
                query: query.to_vec(),
            });
            return Ok(());
        }
        self.answer.clear();
        if !self
            .view
            .tables
            .names
            .answer(query, ANSWER_MAX, &mut self.answer)
        {
            return Err(DropReason::OutNoAnswer);
        }
        let back = Ports {
            source: ports.destination,
            destination: ports.source,
        };
        let addresses = (header.destination, header.source);
        if !udp::build(&mut self.scratch, addresses, back, &self.answer) {
            return Err(DropReason::OutNoAnswer);
        }
        self.write_scratch();
        Ok(())
    }

    /// Writes an answer that another server gave, as the resolver's.
    pub(super) fn write_answer(&mut self, (resolver, asker): (IpAddr, SocketAddr), bytes: &[u8]) {
        let ports = Ports {
            source: super::turnaround::DNS,
            destination: asker.port(),
        };
        // Addresses may have changed while others were asked.
        let is_good = self.view.is_own(asker.ip()) && self.view.resolver(resolver) == resolver;
        if is_good && udp::build(&mut self.scratch, (resolver, asker.ip()), ports, bytes) {
            self.write_scratch();
        } else {
            self.drops.count(DropReason::OutNoAnswer);
        }
    }

    /// Says at once that nobody listens, as a host would.
    fn refuse(&mut self, header: &Header, packet: &[u8]) {
        if header.protocol != TCP {
            self.answer_unreachable(packet, Unreachable::Port);
            return;
        }
        let reset = Segment::parse(header, packet).and_then(|segment| segment.reset());
        let addresses = (header.destination, header.source);
        if reset.is_some_and(|reset| reset.build(&mut self.scratch, addresses)) {
            self.write_scratch();
        }
    }

    fn is_door_answer(&mut self, now: Moment, header: &Header, packet: &[u8]) -> bool {
        let Some(segment) = Segment::parse(header, packet) else {
            return false;
        };
        let Some((event, reset)) = self.door.answer(now, header.destination, &segment) else {
            return false;
        };
        self.out.events.push_back(event);
        let addresses = (header.destination, header.source);
        if reset.is_some_and(|reset| reset.build(&mut self.scratch, addresses)) {
            self.write_scratch();
        }
        true
    }
}

fn rewrite_source_port(packet: &mut [u8], header: &Header, port: u16) -> Result<(), DropReason> {
    let ports = header.ports(packet).ok_or(DropReason::OutFragment)?;
    let turn = Turn {
        source: header.source,
        destination: header.destination,
        ports: Ports {
            source: port,
            ..ports
        },
    };
    turn::turn(packet, header, turn).map_err(cannot_turn)
}

fn cannot_turn(why: CannotTurn) -> DropReason {
    match why {
        CannotTurn::Fragment => DropReason::OutFragment,
        CannotTurn::NoPorts | CannotTurn::Family => DropReason::OutNotIp,
    }
}
