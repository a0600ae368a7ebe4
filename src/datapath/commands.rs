//! Carries out what the control plane asks.

use std::net::IpAddr;

use crate::{
    addr::Underlay,
    ids::SessionId,
    tables::Admission,
    time::{Moment, Now},
};

use super::{
    command::{Command, SessionKeys},
    drops::DropReason,
    inbound::peer_of,
    shard::Shard,
};

/// What a thread does after a command.
#[derive(Debug)]
pub(super) enum After {
    /// It goes on.
    Continue,
    /// It takes this device as its own.
    Attach(Option<crate::platform::tun::Tun>),
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
            Command::SetPath { session, endpoint } => {
                let place = self.sessions.place(session);
                if let Some(state) = place.and_then(|place| self.sessions.at(place)) {
                    state.prove(endpoint);
                }
            }
            Command::Close { session } => self.close(session),
            Command::Unreachable { peer, until } => {
                for packet in self.waiting.block(peer, until) {
                    self.on_waited_in_vain(&packet);
                }
            }
            Command::Datagram { to, bytes } => self.push_datagram(&bytes, to),
            Command::ProbeDoor {
                probe,
                address,
                port,
            } => self.probe_door(now.at, probe, (address, port)),
            Command::Forward { on } => self.forwards = on,
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

    /// One initiation goes to every address, each behind its own sealed datagram: the receiver takes the first.
    fn initiate(
        &mut self,
        now: Now,
        session: SessionId,
        keys: &SessionKeys,
        to: &[(Underlay, Vec<u8>)],
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
        (source, admission): (Underlay, Admission),
    ) {
        if admission == Admission::Replace && !self.is_overtaken(now.at, session, source) {
            self.sessions.remove(session);
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
    fn is_overtaken(&mut self, now: Moment, session: SessionId, source: Underlay) -> bool {
        let place = self.sessions.place(session);
        let Some(state) = place.and_then(|place| self.sessions.at(place)) else {
            return false;
        };
        !self.handshakes.is_parked(source) && state.is_overtaken(now, source)
    }

    fn close(&mut self, session: SessionId) {
        self.sessions.remove(session);
        let packets = peer_of(session).map_or(0, |peer| self.waiting.take(peer).len());
        let packets = u64::try_from(packets).unwrap_or(u64::MAX);
        self.drops.add(DropReason::OutQueueEnded, packets);
    }

    fn push_datagram(&mut self, bytes: &[u8], to: Underlay) {
        if !self.out.datagrams.push(bytes, to) {
            self.drops.count(DropReason::NoBuffer);
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
