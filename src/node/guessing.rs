//! A direct way to a peer behind a NAT that gives every destination another port (design §9): one side opens many sockets,
//! the other guesses at their ports. What the core decides is carried out; whom it may be done for is judged here.

use crate::{
    addr::{Path, Underlay},
    ids::{PeerIx, SessionId},
    node::{Node, output::Output},
    paths::{
        class::Class,
        guessing::{self, Relayed, SOCKETS},
    },
    time::Now,
    wire::{
        message::{Message, Ping},
        reaching::Reaching,
    },
};

impl Node {
    /// A session was used: where programs talk through a relay, a guess may be due.
    pub(super) fn tend_guess(&mut self, now: Now, peer: PeerIx) {
        let session = SessionId::Pair(peer);
        let Some(relay) = self.one_relay_to(peer) else {
            return self.guesses.handle_not_relayed(peer);
        };
        if self.proofs.is_in_use(now.at, session) {
            let (own, nat) = (self.candidates.observed(), self.candidates.facts().nat);
            let own = &own;
            self.guesses
                .handle_relayed(now, peer, &Relayed { relay, own, nat });
        }
    }

    /// A peer has sockets open towards this machine.
    pub(super) fn on_guess_asked(&mut self, now: Now, peer: PeerIx) {
        let relay = self.one_relay_to(peer);
        let relay = relay.filter(|_| self.proofs.is_in_use(now.at, SessionId::Pair(peer)));
        let Some(relay) = relay else {
            return self.counters.count("guess_unused");
        };
        let (own, nat) = (self.candidates.observed(), self.candidates.facts().nat);
        let own = &own;
        self.guesses
            .handle_asked(now, peer, &Relayed { relay, own, nat });
    }

    /// A third peer says where it sees somebody.
    pub(super) fn note_sighting(
        &mut self,
        now: Now,
        peer: PeerIx,
        (by, seen): (PeerIx, &[Underlay]),
    ) {
        self.guesses.handle_seen(now, peer, by, seen);
    }

    /// An authenticated packet came by a new path: whether that is what was guessed.
    pub(super) fn is_guessed(&mut self, now: Now, session: SessionId, source: Path) -> bool {
        let SessionId::Pair(peer) = session else {
            return false;
        };
        let is_hit = self.guesses.handle_source(now, peer, source);
        if is_hit {
            self.counters.count("guess_hit");
            self.proofs.handle_found(now, session, source);
        }
        is_hit
    }

    pub(super) fn drain_guesses(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.guesses.poll_output() {
            any = true;
            match output {
                guessing::Output::Locate { peer } => self.call_for_pings(now, peer),
                guessing::Output::Open { peer, to, until } => {
                    self.counters.count("guess_opened");
                    self.note_sent(now, Path::Direct(to));
                    self.outbox.push_back(Output::Open {
                        session: SessionId::Pair(peer),
                        to,
                        sockets: SOCKETS,
                        until,
                    });
                }
                guessing::Output::Tell { peer } => {
                    let message = Message::Reaching(Reaching::Guess);
                    self.send(SessionId::Pair(peer), message);
                }
                guessing::Output::Guess { peer, to } => self.guess_at(now, peer, to),
            }
        }
        any
    }

    /// Whoever gets this answers from where it came in, which opens the way; the Ping itself proves nothing.
    fn guess_at(&mut self, now: Now, peer: PeerIx, to: Underlay) {
        if !self.is_up(peer) {
            return self.guesses.handle_not_relayed(peer);
        }
        self.counters.count("guess_sent");
        self.note_sent(now, Path::Direct(to));
        let nonce = self.draw();
        self.outbox.push_back(Output::Send {
            session: SessionId::Pair(peer),
            message: Message::Ping(Ping {
                nonce,
                path: 0,
                pad: None,
            }),
            via: Some(Path::Direct(to)),
        });
    }

    /// Who carries, where one relay lies between and this machine speaks with it from its own socket: then that relay sees
    /// where this machine is, and sees the other.
    fn one_relay_to(&self, peer: PeerIx) -> Option<PeerIx> {
        let class = self.proofs.class(SessionId::Pair(peer))?;
        let relay = self.relay_at(self.up_path(peer)?)?;
        let is_direct = self.up_path(relay)?.direct().is_some();
        (class == Class::Relay && is_direct).then_some(relay)
    }
}
