//! A peer is reached (protocol §2, §5; design §9): Knock and initiation to every candidate, the proof of an address by
//! Ping and Pong, and the end of an attempt that found no way.

use crate::{
    addr::Underlay,
    ids::{NodeId, PeerIx, SessionId},
    node::{
        Node,
        output::{FirstContact, Output},
    },
    paths::{attempt, attempt::Purpose, proof},
    time::{Moment, Now},
    wire::{
        message::{Message, Ping, Pong},
        record::{Kind, slot_of},
    },
};

impl Node {
    /// A packet waits for a peer with which no session stands. If one stood as far as is known here, its end is still on
    /// its way: waiting for that would leave the packet waiting for ever.
    pub(super) fn on_wanted(&mut self, now: Now, peer: PeerIx) {
        if self.pairs.get(&peer).is_some_and(|pair| pair.up.is_some()) {
            self.on_pair_gone(now, peer);
        }
        self.reach(now, peer, Purpose::Wanted);
    }

    pub(super) fn reach(&mut self, now: Now, peer: PeerIx, purpose: Purpose) {
        if self.pairs.get(&peer).is_some_and(|pair| pair.up.is_some()) {
            return;
        }
        let candidates = self.candidates.of(now, peer);
        self.attempts.start(now, peer, purpose, &candidates);
    }

    /// After a start: a peer that had a session with the run before hears that this is a new one.
    pub(super) fn knock_again(&mut self, now: Now, peer: PeerIx) {
        if self.may_open(now, self.ids.node(peer)) {
            self.reach(now, peer, Purpose::Link);
        }
    }

    /// After a grant: the issuer is where the join session found it.
    pub fn meet(&mut self, now: Now, node: NodeId, endpoint: Underlay) {
        let peer = self.ids.intern(node);
        self.candidates.handle_proven(now, peer, endpoint);
        self.reach(now, peer, Purpose::Link);
        self.finish_turn(now);
    }

    /// A rekey needs a Knock: it goes where the session is, into the state that stands.
    pub(super) fn knock_for_rekey(&mut self, now: Now, peer: PeerIx) {
        let Some(endpoint) = self
            .pairs
            .get(&peer)
            .and_then(|pair| pair.up.as_ref())
            .map(|up| up.endpoint)
        else {
            return;
        };
        self.dial(now, peer, vec![endpoint]);
    }

    pub(super) fn drain_attempts(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.attempts.poll_output() {
            any = true;
            match output {
                attempt::Output::Dial { peer, to } => self.dial(now, peer, to),
                attempt::Output::Unreachable { peer, until } => {
                    self.outbox.push_back(Output::Unreachable { peer, until });
                }
                attempt::Output::Failed { peer } => self.on_attempt_failed(now, peer),
            }
        }
        any
    }

    fn on_attempt_failed(&mut self, now: Now, peer: PeerIx) {
        self.links.handle_dial_failed(now, peer);
        self.waiting_pings.remove(&peer);
        if self.pairs.get(&peer).is_some_and(|pair| pair.up.is_none()) {
            self.outbox.push_back(Output::Close {
                session: SessionId::Pair(peer),
            });
            self.on_pair_gone(now, peer);
        }
    }

    fn dial(&mut self, now: Now, peer: PeerIx, to: Vec<Underlay>) {
        let node = self.ids.node(peer);
        if !self.may_open(now, node) {
            return self.counters.count("dial_not_member");
        }
        let Some(remote) = self.remote(node) else {
            return self.counters.count("dial_without_keys");
        };
        let Some((epoch, secret)) = self
            .members
            .newest_epoch()
            .map(|(n, secret)| (n, secret.clone()))
        else {
            return self.counters.count("dial_without_epoch");
        };
        self.pairs
            .entry(peer)
            .or_insert_with(|| super::talking::Pair::new(now.at));
        let stamp = self.next_stamp(now);
        let first = FirstContact::Knock {
            receiver: node,
            epoch,
            secret,
            stamp,
            records: self.knock_records(),
        };
        self.outbox.push_back(Output::Dial {
            session: SessionId::Pair(peer),
            remote,
            to,
            first,
        });
    }

    /// The own Member, the Admin of its signer, and the own Peer record: what a receiver may lack.
    fn knock_records(&self) -> Vec<Vec<u8>> {
        let signer = self
            .members
            .certificate(self.me)
            .map(|certificate| certificate.signer.0);
        let slots = [
            Some(slot_of(Kind::Member, &self.me.0, &[])),
            signer.map(|signer| slot_of(Kind::Admin, &signer, &[])),
            Some(slot_of(Kind::Peer, &self.me.0, &[])),
        ];
        let held = slots
            .into_iter()
            .flatten()
            .filter_map(|slot| self.registry.get(slot));
        held.map(|held| held.record.bytes().to_vec()).collect()
    }

    pub(super) fn on_new_path(&mut self, now: Now, session: SessionId, source: Underlay) {
        self.proofs.handle_new_path(now, session, source);
    }

    pub(super) fn on_pong(&mut self, now: Now, session: SessionId, source: Underlay, pong: &Pong) {
        let proof = self.proofs.handle_pong(now, session, pong.nonce, source);
        let SessionId::Pair(peer) = session else {
            return;
        };
        match proof {
            proof::Proof::Unknown => return self.counters.count("pong_unknown"),
            proof::Proof::Proven { endpoint, .. } => {
                if let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) {
                    up.endpoint = endpoint;
                }
                self.candidates.handle_proven(now, peer, endpoint);
            }
            proof::Proof::Answered {
                tag: Some(tag),
                rtt,
            } => {
                self.outbox.push_back(Output::Ponged {
                    tag,
                    endpoint: source,
                    rtt,
                });
            }
            proof::Proof::Answered { tag: None, .. } => {}
        }
        if let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) {
            up.heard = now.at;
            self.links
                .handle_heard(now, peer, now.at, Moment::default());
        }
        if let Some(observed) = pong.observed {
            self.candidates.handle_observed(peer, source, observed);
            self.publish_peer(now);
        }
    }

    pub(super) fn drain_proofs(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.proofs.poll_output() {
            any = true;
            match output {
                proof::Output::Ping {
                    session,
                    via,
                    nonce,
                    path,
                } => {
                    let message = Message::Ping(Ping {
                        nonce,
                        path,
                        pad: None,
                    });
                    self.outbox.push_back(Output::Send {
                        session,
                        message,
                        via,
                    });
                }
                proof::Output::SetPath { session, endpoint } => {
                    self.outbox.push_back(Output::SetPath { session, endpoint });
                }
                proof::Output::Unanswered { .. } => self.counters.count("ping_unanswered"),
            }
        }
        any
    }

    pub(super) fn ping_link(&mut self, now: Now, peer: PeerIx) {
        self.proofs.ping(now, SessionId::Pair(peer), None);
    }

    /// Sends one Ping for a person; [`Output::Ponged`] with the tag answers. Opens a session if there is none.
    pub fn ping(&mut self, now: Now, node: NodeId, tag: u64) {
        let peer = self.ids.intern(node);
        if self.pairs.get(&peer).is_some_and(|pair| pair.up.is_some()) {
            self.proofs.ping(now, SessionId::Pair(peer), Some(tag));
        } else {
            self.waiting_pings.entry(peer).or_default().push(tag);
            self.reach(now, peer, Purpose::Wanted);
        }
        self.finish_turn(now);
    }

    pub(super) fn send_waiting_pings(&mut self, now: Now, peer: PeerIx) {
        for tag in self.waiting_pings.remove(&peer).unwrap_or_default() {
            self.proofs.ping(now, SessionId::Pair(peer), Some(tag));
        }
    }
}
