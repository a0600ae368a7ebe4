//! A peer is reached (protocol §2, §5; design §9): Knock and initiation to every candidate, the proof of an address by
//! Ping and Pong, and the end of an attempt that found no way.

use std::net::IpAddr;

use crate::{
    addr::{Path, Underlay},
    ids::{NodeId, PeerIx, SessionId},
    node::{
        Node, StreamEvent,
        output::{FirstContact, Output},
        talking::Pair,
    },
    paths::{attempt, attempt::Purpose, proof},
    time::{Moment, Now},
    wire::{
        message::Pong,
        record::{Kind, slot_of},
    },
};

impl Node {
    /// A packet waits for a peer with which no session stands. If one stood as far as is known here, its end is still on
    /// its way: waiting for that would leave the packet waiting for ever.
    pub(super) fn on_wanted(&mut self, now: Now, peer: PeerIx) {
        if self.wake_way(now, peer) {
            return;
        }
        let is_up = self.is_up(peer);
        if is_up && !self.is_pathless(peer) {
            self.on_pair_gone(now, peer);
        }
        self.reach(now, peer, Purpose::Wanted);
    }

    pub(super) fn reach(&mut self, now: Now, peer: PeerIx, purpose: Purpose) {
        let is_up = self.is_up(peer);
        if is_up && !self.attempts.is_under_way(peer) {
            return;
        }
        let ways = self.ways_to(now, peer);
        self.attempts.start(now, peer, purpose, ways);
        self.plan_stream(now, peer);
        self.plan_relays(now, peer);
    }

    /// Opens a session with a home of somebody else, by its addresses alone: homes of homes are not asked.
    pub(super) fn open_home(&mut self, now: Now, home: PeerIx) {
        if !self.attempts.is_under_way(home) && self.may_open(now, self.ids.node(home)) {
            let paths = self.paths_to(now, home);
            self.attempts
                .start(now, home, Purpose::Link, paths.as_slice());
        }
    }

    /// Opens a session with one through whom another is to be called, by its addresses and by the hand of who has named it.
    pub(super) fn open_errand(&mut self, now: Now, third: PeerIx, by: PeerIx) {
        if self.is_greeted(third) {
            return;
        }
        let paths = self.paths_to(now, third);
        self.attempts.start_errand(now, third, by, paths);
    }

    /// Where a session with a peer may be tried now.
    pub(super) fn paths_to(&self, now: Now, peer: PeerIx) -> Vec<Path> {
        let candidates = self.candidates.of(now, peer);
        let direct = candidates.into_iter().map(Path::Direct);
        direct.chain(self.stream_to(peer)).collect()
    }

    /// After a start: a peer that had a session with the run before hears that this is a new one.
    pub(super) fn knock_again(&mut self, now: Now, peer: PeerIx) {
        if self.may_open(now, self.ids.node(peer)) {
            self.reach(now, peer, Purpose::Link);
        }
    }

    /// After a grant: the issuer is where the join session found it; if that is a stream, on the machine that took it.
    pub fn meet(&mut self, now: Now, node: NodeId, (endpoint, host): (Path, Option<IpAddr>)) {
        let peer = self.ids.intern(node);
        self.meet_at(now, peer, (endpoint, host));
        self.finish_turn(now);
    }

    fn meet_at(&mut self, now: Now, peer: PeerIx, (endpoint, host): (Path, Option<IpAddr>)) {
        if let Path::Stream(stream) = endpoint {
            self.on_stream(now, StreamEvent::Opened { peer, stream, host });
        }
        self.note_working(now, peer, endpoint);
        self.reach(now, peer, Purpose::Link);
    }

    /// After a grant by a member's hand: that member is where the join session found it, and the issuer is called through
    /// it.
    pub fn meet_through(
        &mut self,
        now: Now,
        introducer: NodeId,
        at: (Path, Option<IpAddr>),
        issuer: NodeId,
    ) {
        let (by, issuer) = (self.ids.intern(introducer), self.ids.intern(issuer));
        self.meet_at(now, by, at);
        let mut ways = self.ways_to(now, issuer);
        ways.links.insert(0, by);
        self.attempts.start(now, issuer, Purpose::Link, ways);
        self.finish_turn(now);
    }

    /// A rekey needs a Knock: it goes where the session is. An older state there gives way to a new one.
    pub(super) fn knock_for_rekey(&mut self, now: Now, peer: PeerIx) {
        if let Some(endpoint) = self.open_path(peer) {
            self.dial(now, peer, vec![endpoint]);
        }
    }

    pub(super) fn drain_attempts(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.attempts.poll_output() {
            any = true;
            match output {
                attempt::Output::Dial { peer, to } => {
                    self.dossiers.note_dialled(now.at, peer, &to);
                    self.dial(now, peer, to);
                }
                attempt::Output::Call {
                    peer,
                    mut to,
                    through,
                } => {
                    self.dossiers.note_dialled(now.at, peer, &to);
                    self.dossiers.note_called(now.at, peer, &through);
                    to.extend(self.hands_through(now, peer, &through));
                    if !to.is_empty() {
                        self.dial(now, peer, to);
                    }
                }
                attempt::Output::Unreachable { peer, until } => {
                    self.note_unreached(now, peer);
                    self.outbox.push_back(Output::Unreachable { peer, until });
                }
                attempt::Output::Failed { peer } => self.on_attempt_failed(now, peer),
            }
        }
        any
    }

    fn on_attempt_failed(&mut self, now: Now, peer: PeerIx) {
        self.links.handle_dial_failed(now, peer);
        self.homes.handle_silent(now, peer);
        self.waiting_pings.remove(&peer);
        let is_useless = |pair: &Pair| pair.usable().is_none();
        if self.pairs.get(&peer).is_some_and(is_useless) {
            self.drop_pair(now, peer);
        }
    }

    pub(super) fn dial(&mut self, now: Now, peer: PeerIx, to: Vec<Path>) {
        let newest = self.members.newest_epoch().map(|(n, _)| n);
        self.dial_under(now, peer, to, newest);
    }

    /// Knocks under the secret of an epoch and initiates.
    pub(super) fn dial_under(&mut self, now: Now, peer: PeerIx, to: Vec<Path>, epoch: Option<u32>) {
        let node = self.ids.node(peer);
        if !self.may_open(now, node) {
            return self.counters.count("dial_not_member");
        }
        let Some(remote) = self.remote(node) else {
            return self.counters.count("dial_without_keys");
        };
        let secret = |n| Some((n, self.members.epoch(n)?.clone()));
        let Some((epoch, secret)) = epoch.and_then(secret) else {
            return self.counters.count("dial_without_epoch");
        };
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(now.at));
        pair.dialled = Some(now.at);
        for path in &to {
            self.note_sent(now, *path);
        }
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

    pub(super) fn on_pong(&mut self, now: Now, session: SessionId, source: Path, pong: &Pong) {
        let proof = self.proofs.handle_pong(now, session, pong.nonce, source);
        let SessionId::Pair(peer) = session else {
            return;
        };
        match proof {
            proof::Proof::Unknown => return self.counters.count("pong_unknown"),
            proof::Proof::Proven { path, rtt, .. } => {
                self.note_leg_pong(now, peer, source, rtt);
                self.note_working(now, peer, path);
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
            proof::Proof::Answered { tag: None, rtt } => {
                self.note_leg_pong(now, peer, source, rtt);
            }
        }
        if let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) {
            up.heard = now.at;
            self.links
                .handle_heard(now, peer, now.at, Moment::default());
        }
        if let Some(observed) = pong.observed {
            self.note_observed(now, peer, source, observed);
            self.note_own_addresses(now);
            self.publish_peer(now);
        }
    }

    /// A peer says where it sees us; it counts where nothing lies between.
    pub(super) fn note_observed(
        &mut self,
        now: Now,
        observer: PeerIx,
        at: Path,
        observed: Underlay,
    ) {
        if let Some(at) = at.direct() {
            self.candidates.handle_observed(observer, at, observed);
            self.note_told(now, at, observed);
            self.drop_left_addresses(now);
        }
    }

    /// A session stands at a path, or a Pong has proven it: a socket is tried again later.
    pub(super) fn note_working(&mut self, now: Now, peer: PeerIx, path: Path) {
        if let Some(address) = path.direct() {
            self.candidates.handle_proven(now, peer, address);
        }
    }

    pub(super) fn ping_link(&mut self, now: Now, peer: PeerIx) {
        self.proofs.ping(now, SessionId::Pair(peer), None);
    }

    /// Sends one Ping for a person; [`Output::Ponged`] with the tag answers. Opens a session if there is none.
    pub fn ping(&mut self, now: Now, node: NodeId, tag: u64) {
        let peer = self.ids.intern(node);
        if self.pairs.get(&peer).and_then(Pair::usable).is_some() {
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
