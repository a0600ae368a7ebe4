//! From the TUN to the peers: source check, resolver, own services, queue, seal.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::{PeerIx, SessionId},
    packet::{
        icmp::Unreachable,
        ip::{Header, Ports, TCP},
        tcp::Segment,
        turn::{self, CannotTurn, Turn},
        udp,
    },
    time::Moment,
    wire::frame,
};

use super::{command::Event, drops::DropReason, shard::Shard, turnaround::Route};

/// Bytes of a DNS answer over UDP: what a question that says nothing else may get over any path (DNS flag day 2020).
const ANSWER_MAX: usize = 1232;

impl Shard {
    /// Takes in one packet of `len` bytes that a program of this host wrote; `buffer` has at least 16 bytes more.
    pub(super) fn handle_packet(&mut self, now: Moment, buffer: &mut [u8], len: usize) {
        if let Err(reason) = self.try_packet(now, buffer, len) {
            self.drops.count(reason);
        }
    }

    fn try_packet(&mut self, now: Moment, buffer: &mut [u8], len: usize) -> Result<(), DropReason> {
        let packet = buffer.get_mut(..len).ok_or(DropReason::OutTooLong)?;
        if frame::is_control_shape(packet) {
            return Err(DropReason::OutForgedControl);
        }
        let header = Header::parse(packet).map_err(|_malformed| DropReason::OutNotIp)?;
        if !self.view.is_own(header.source) {
            return Err(DropReason::OutForeignSource);
        }
        if header.len > self.mtu {
            return Err(DropReason::OutTooLong);
        }
        if self.is_door_answer(now, &header, packet) {
            return Ok(());
        }
        match self.view.outbound(&header, packet) {
            Route::Peer(peer, None) => self.carry(now, peer, buffer, header.len),
            Route::Peer(peer, Some(port)) => {
                rewrite_source_port(packet, &header, port)?;
                self.carry(now, peer, buffer, header.len);
            }
            Route::Turn(turn) => self.turn_around(packet, &header, turn)?,
            Route::Query => self.answer_query(&header, packet)?,
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

    fn carry(&mut self, now: Moment, peer: PeerIx, buffer: &mut [u8], len: usize) {
        let place = self.sessions.place(SessionId::Pair(peer));
        let standing = place.filter(|place| {
            self.sessions
                .at(*place)
                .is_some_and(|state| state.is_standing())
        });
        match standing {
            Some(place) => self.seal_packet(now, place, buffer, len),
            None => self.enqueue(now, peer, &buffer[..len]),
        }
    }

    fn turn_around(
        &mut self,
        packet: &mut [u8],
        header: &Header,
        to: Turn,
    ) -> Result<(), DropReason> {
        turn::turn(packet, header, to).map_err(cannot_turn)?;
        let whole = packet.get(..header.len).ok_or(DropReason::OutNotIp)?;
        if self.out.packets.push(whole, ()) {
            Ok(())
        } else {
            Err(DropReason::NoBuffer)
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
        if header.protocol != TCP || header.destination != self.view.resolver(header.destination) {
            return false;
        }
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
