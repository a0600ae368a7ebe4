//! Carries out what the control plane asks.

use std::net::IpAddr;

use crate::{
    addr::Path,
    ids::{SessionId, StreamIx},
    tables::Admission,
    time::{Moment, Now},
    wire::{
        datagram::{Datagram, classify},
        stream::take,
    },
};

use super::{
    command::{Command, SessionKeys},
    drops::DropReason,
    inbound::peer_of,
    openings::Order,
    shard::Shard,
};

/// What a thread does after a command.
#[derive(Debug)]
pub(super) enum After {
    /// It goes on.
    Continue,
    /// It takes this device as its own.
    Attach(Option<crate::platform::tun::Tun>),
    /// It opens these sockets.
    Open(Order),
    /// It ends.
    Stop,
}

impl Shard {
    /// Carries out one command.
    pub(super) fn handle_command(&mut self, now: Now, command: Command) -> After {
        match command {
            Command::Initiate { session, keys, to } => self.initiate(now, session, &keys, &to),
            Command::Admit {
                session,
                keys,
                source,
                admission,
            } => self.admit(now, session, &keys, (source, admission)),
            Command::Send {
                session,
                frame,
                via,
            } => {
                if let Err(reason) = self.send_frame(session, &frame, via) {
                    self.drops.count(reason);
                }
            }
            Command::Transport { session, parts } => self.begin_transport(now.at, session, *parts),
            Command::SetPath { session, endpoint } => self.set_path(now.at, session, endpoint),
            Command::OpenStream { stream, queue } => self.out.streams.open(stream, queue),
            Command::CloseStream { stream } => self.out.streams.close(stream),
            Command::FromStream {
                stream, datagrams, ..
            } => self.take_from_stream(now.at, stream, &datagrams),
            Command::Move {
                session,
                endpoint,
                gap,
            } => self.plan_move(now.at, session, (endpoint, gap)),
            Command::Mirror { session, via } => self.mirror(now.at, session, via),
            Command::SetRoom {
                session,
                endpoint,
                inner,
                in_fragments,
            } => self.set_room((session, endpoint), (inner, in_fragments)),
            Command::Withdraw { session } => self.withdraw(session),
            Command::Open {
                session,
                to,
                sockets,
                until,
            } => {
                if let Some(bytes) = self.seal_keepalive(session) {
                    return After::Open(Order {
                        to,
                        bytes,
                        sockets,
                        until,
                    });
                }
            }
            Command::Take { source, bytes } => self.take_datagram(now.at, source, bytes),
            Command::Close { session } => self.close(now.at, session),
            Command::Unreachable { peer, until } => {
                for packet in self.waiting.block(peer, until) {
                    self.on_waited_in_vain(&packet);
                }
            }
            Command::Datagram { to, bytes } => self.send_bare(now.at, to, &bytes),
            Command::Relay(order) => self.carry_out_relay(now.at, order),
            Command::ProbeDoor {
                probe,
                address,
                port,
            } => self.probe_door(now.at, probe, (address, port)),
            Command::Forward { on } => self.set_forwards(on),
            Command::Answer {
                resolver,
                asker,
                bytes,
            } => self.write_answer((resolver, asker), &bytes),
            Command::Attach { tun } => return After::Attach(tun),
            Command::Stop => return After::Stop,
            #[cfg(debug_assertions)]
            Command::Hang => loop {
                std::thread::park();
            },
        }
        After::Continue
    }

    fn take_from_stream(&mut self, now: Moment, stream: StreamIx, datagrams: &[u8]) {
        let mut rest = datagrams;
        while let Ok(Some(datagram)) = take(&mut rest) {
            self.handle_datagram(now, Path::Stream(stream), datagram);
        }
    }

    /// A datagram of no session. Who is asked by the DHT may answer.
    fn send_bare(&mut self, now: Moment, to: Path, bytes: &[u8]) {
        if let (Ok(Datagram::Dht(_)), Some(to)) = (classify(bytes), to.direct()) {
            self.questions.note(now, to);
        }
        self.push_datagram(bytes, to);
    }

    /// One initiation goes to every address, each behind its own sealed datagram: the receiver takes the first.
    fn initiate(
        &mut self,
        now: Now,
        session: SessionId,
        keys: &SessionKeys,
        to: &[(Path, Vec<u8>)],
    ) {
        let Some(place) = self
            .sessions
            .place(session)
            .or_else(|| self.make_state(now, session, keys))
        else {
            return;
        };
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        state.touch(now.at);
        let mut initiation = [0; crate::wireguard::session::INITIATION];
        let Some(len) = state.session.initiate(&mut initiation) else {
            return;
        };
        for (address, sealed) in to {
            self.push_datagram(sealed, *address);
            self.push_datagram(&initiation[..len], *address);
        }
    }

    fn admit(
        &mut self,
        now: Now,
        session: SessionId,
        keys: &SessionKeys,
        (source, admission): (Path, Admission),
    ) {
        if admission == Admission::Replace && !self.is_overtaken(now.at, session, source) {
            self.remove(now.at, session);
        }
        if self.sessions.place(session).is_none() && self.make_state(now, session, keys).is_none() {
            return;
        }
        let Some(parked) = self.handshakes.admit(now.at, source, session) else {
            return;
        };
        if let Err(reason) = self.feed_initiation(now.at, source, &parked.bytes) {
            self.drops.count(reason);
        }
    }

    /// Whether the initiation behind a Knock came before it and went into the older state: its sender has the answer, so
    /// that state is the one that stands on both sides.
    fn is_overtaken(&mut self, now: Moment, session: SessionId, source: Path) -> bool {
        let place = self.sessions.place(session);
        let Some(state) = place.and_then(|place| self.sessions.at(place)) else {
            return false;
        };
        !self.handshakes.is_parked(source) && state.is_overtaken(now, source)
    }

    fn close(&mut self, now: Moment, session: SessionId) {
        self.remove(now, session);
        let packets = peer_of(session).map_or(0, |peer| self.waiting.take(peer).len());
        let packets = u64::try_from(packets).unwrap_or(u64::MAX);
        self.drops.add(DropReason::OutQueueEnded, packets);
    }

    pub(super) fn push_datagram(&mut self, bytes: &[u8], to: Path) {
        if let Err(reason) = self.out.send(bytes, to) {
            self.drops.count(reason);
        }
    }

    fn probe_door(&mut self, now: Moment, probe: u64, (target, port): (IpAddr, u16)) {
        let resolver = self.view.resolver(target);
        let sequence = self.random();
        let Some(syn) = self.door.probe(now, (probe, port), (resolver, sequence)) else {
            return;
        };
        if syn.build(&mut self.scratch, (resolver, target)) {
            self.write_scratch();
        }
    }
}
