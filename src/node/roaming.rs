//! This machine is elsewhere now, or a peer is (design §9): each tells the other where it may be found, by a third peer that
//! sees both. Where a session stands the Call carries no handshake: it asks for Pings, which open both NATs anew.

use std::time::Duration;

use crate::{
    addr::{Path, Underlay},
    ids::{LegIx, PeerIx, SessionId},
    node::{Node, Timer, calling::Trying},
    paths::{attempt::Purpose, class::Class},
    time::{Moment, Now},
    wire::{
        message::Message,
        reaching::{Answer, Call, Candidates, Reaching},
    },
};

/// Through how many third peers a standing session is mended.
const THIRDS_MAX: usize = 3;

/// How long after this machine moved others are told of it: by then third peers have seen where it is.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// When a shorter way is looked for after a session took a long one: the other side must know of it first, and
/// messages may be lost.
const CLOSER_AFTER: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// How often those are told that nobody uses.
const TOLD_FAR_EVERY: Duration = Duration::from_secs(10);

/// How many sessions are told of it at once, those that programs use first; the others find it when they are used.
const TOLD_MAX: usize = 16;

/// What others were told of where this machine is.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The own addresses, as they were told last.
    addresses: Vec<Underlay>,
    /// When those heard of it last that nobody uses.
    far: Option<Moment>,
}

impl Node {
    /// The addresses of this machine's interfaces are these now. Every path is tried anew where they changed.
    pub(super) fn on_moved(&mut self, now: Now, addresses: &[Underlay]) {
        if self.proofs.handle_addresses(now, addresses) {
            self.asking.handle_moved(now);
            self.be_seen(now);
        }
        self.note_own_addresses(now);
    }

    /// Those who may tell peers in use where this machine is are Pinged at every address they have: they see it in each
    /// family then, and nobody is sent to an address that no third peer has seen.
    fn be_seen(&mut self, now: Now) {
        let mut thirds: Vec<PeerIx> = Vec::new();
        for session in self.proofs.in_use(now).into_iter().take(TOLD_MAX) {
            if let SessionId::Pair(peer) = session {
                thirds.extend(self.thirds_to(now, peer));
            }
        }
        thirds.sort_unstable();
        thirds.dedup();
        for third in thirds.into_iter().take(THIRDS_MAX) {
            let candidates = self.paths_to(now, third);
            self.proofs
                .handle_candidates(now, SessionId::Pair(third), &candidates);
        }
    }

    /// Where others find this machine may have changed: peers that programs talk with are told once that is settled.
    pub(super) fn note_own_addresses(&mut self, now: Now) {
        let own = self.own_candidates();
        if self.told.addresses != own {
            self.told.addresses = own;
            self.settle(now);
        }
    }

    /// Others are told soon.
    pub(super) fn settle(&mut self, now: Now) {
        self.timers
            .set_earlier(Timer::Moved, now.at.after(SETTLED_AFTER));
    }

    /// This machine moved, and that is settled. Those to whom it has no direct path are told as well: it may have one now.
    pub(super) fn on_settled(&mut self, now: Now) {
        // What others say of where this machine is must not have it talk without end to those whom nobody uses.
        let last = self.told.far;
        let is_due = last.is_none_or(|at| now.at.since(at) >= TOLD_FAR_EVERY);
        let sessions = match is_due {
            true => self.proofs.in_use_or_far(now),
            false => self.proofs.in_use(now),
        };
        if is_due {
            self.told.far = Some(now.at);
        }
        for session in sessions.into_iter().take(TOLD_MAX) {
            if let SessionId::Pair(peer) = session {
                self.tell_candidates(peer);
                self.call_for_pings(now, peer);
            }
        }
    }

    /// This machine was asleep: NATs have forgotten it, and nobody was there to notice what changed.
    pub(super) fn on_woke(&mut self, now: Now) {
        self.proofs.handle_moved(now);
        self.asking.handle_moved(now);
    }

    /// A session goes by a relay or a stream now: both sides look for a shorter way, at once.
    pub(super) fn look_closer(&mut self, now: Now, peer: PeerIx, endpoint: Path) {
        if endpoint.direct().is_none() && endpoint.carries_data() {
            let at = now.at.after(CLOSER_AFTER[0]);
            self.timers.set(Timer::Closer(peer, 0), at);
        }
    }

    pub(super) fn on_closer(&mut self, now: Now, peer: PeerIx, tries: usize) {
        let session = SessionId::Pair(peer);
        let is_far = self.proofs.class(session) > Some(Class::Direct);
        if !is_far {
            return;
        }
        let candidates = self.paths_to(now, peer);
        self.proofs.handle_candidates(now, session, &candidates);
        self.tell_candidates(peer);
        self.call_for_pings(now, peer);
        if let Some(later) = CLOSER_AFTER.get(tries + 1) {
            let next = Timer::Closer(peer, tries + 1);
            self.timers.set(next, now.at.after(*later));
        }
    }

    /// No known path of a standing session answers: whatever else may lead to the peer is tried, and others are asked.
    pub(super) fn seek(&mut self, now: Now, peer: PeerIx) {
        let candidates = self.paths_to(now, peer);
        self.proofs
            .handle_candidates(now, SessionId::Pair(peer), &candidates);
        self.try_bound_legs(now, peer);
        self.asking.handle_sought(now, peer);
        self.seek_relays(now, peer);
        self.call_for_pings(now, peer);
    }

    /// Says to a peer by others where this machine is, and asks where it is.
    pub(super) fn call_for_pings(&mut self, now: Now, peer: PeerIx) {
        let call = Call {
            to: self.ids.node(peer),
            from: self.me,
            ttl: 1,
            datagrams: Vec::new(),
            addresses: self.own_candidates(),
            seen: Vec::new(),
        };
        for third in self.thirds_to(now, peer) {
            self.listening.note_asked(now.at, third, peer);
            let call = Message::Reaching(Reaching::Call(call.clone()));
            self.send(SessionId::Pair(third), call);
        }
    }

    /// Says to a peer itself where else this machine may be: where nobody else has a session with both, nobody else can
    /// (review-distributed S6, rule 1).
    fn tell_candidates(&mut self, peer: PeerIx) {
        let addresses = self.own_candidates();
        if self.is_greeted(peer) && !addresses.is_empty() {
            let candidates = Reaching::Candidates(Candidates { addresses });
            self.send(SessionId::Pair(peer), Message::Reaching(candidates));
        }
    }

    /// A peer says where else it may be. Those of its addresses are tried that its own packets, or a third peer, bear out.
    pub(super) fn on_candidates(&mut self, now: Now, peer: PeerIx, addresses: Vec<Underlay>) {
        let mut seen = self.seen.of(now.at, peer);
        seen.extend(self.claims_seen(peer));
        let allowed = self.allowed(&seen, addresses.into_iter());
        let paths: Vec<Path> = allowed.into_iter().map(Path::Direct).collect();
        let session = SessionId::Pair(peer);
        self.proofs.handle_candidates(now, session, &paths);
    }

    /// Who may have a session with a peer as well: the relays on the way to it, its homes, those linked with us.
    fn thirds_to(&self, now: Now, peer: PeerIx) -> Vec<PeerIx> {
        let ways = self.ways_to(now, peer);
        let legs = self.asking.relays_to(peer);
        let mut thirds: Vec<PeerIx> = Vec::new();
        for third in legs.into_iter().chain(ways.homes).chain(ways.links) {
            if self.is_greeted(third) && third != peer && !thirds.contains(&third) {
                thirds.push(third);
            }
        }
        thirds.truncate(THIRDS_MAX);
        thirds
    }

    /// A peer with which a session stands asks for Pings to where a third one sees it. It gets the same answer.
    pub(super) fn on_called_for_pings(&mut self, now: Now, (home, caller): (PeerIx, PeerIx)) {
        if !self.is_up(caller) {
            // It talks in a session that has ended here: nobody is told of the end of one that idled.
            self.counters.count("call_without_session");
            return self.reach(now, caller, Purpose::Link);
        }
        let answer = Answer {
            to: self.ids.node(caller),
            from: self.me,
            datagrams: Vec::new(),
            addresses: self.own_candidates(),
            seen: Vec::new(),
        };
        self.send(
            SessionId::Pair(home),
            Message::Reaching(Reaching::Answer(answer)),
        );
        self.asking.handle_doubted(now, caller);
        self.ping_claims(now, caller, Trying::Always);
    }

    /// Data goes nowhere by a leg that is no more.
    pub(super) fn on_leg_lost(&mut self, now: Now, leg: LegIx) {
        self.proofs.handle_path_gone(now, Path::Relay(leg));
    }
}
