//! Handshakes by a third peer's hand (design §9): this peer calls others, is called, and hands on between two that cannot
//! reach each other yet.
//!
//! Three parts in one story. The *caller* sends its Knock and initiation in a Call to the homes of whom it wants. A *home*
//! hands it on in the session that stands with the called peer, and says who calls and where it saw them. The *called*
//! peer answers the same way. Once the session stands so, both Ping whatever address of the other a third peer has seen:
//! that opens both their NATs.
//!
//! Where no home helps, whoever is called through and cannot hand on finds out who could: [`super::locating`].

use std::time::Duration;

use crate::{
    addr::{Path, Underlay},
    ids::{HandIx, NodeId, PeerIx, SessionId},
    node::{Node, Timer, leasing::PEER_HOME_FLAGS, output::Output, talking::Pair},
    overlay::homes,
    paths::{
        allowed::Grounds,
        attempt::Ways,
        hands::{Ends, Far, Letter},
        passing::Pass,
    },
    time::{Moment, Now},
    wire::{
        message::Message,
        reaching::{ADDRESSES_MAX, Answer, Call, NotHere, Reaching},
        record::{Kind, slot_of},
    },
};

/// Homes of one peer that are called through (design §9: 4 at a time, three times).
const HOMES_MAX: usize = 12;

/// Links that are asked when homes do not help.
const LINKS_MAX: usize = 12;

/// How far a Call may get where no home helped: whoever cannot hand it on asks its neighbours who could.
const TTL_BEYOND: u64 = 2;

/// How long a session that stands by hand alone may be without a path. An attempt gives up before that.
const PATHLESS: Duration = Duration::from_secs(10);

/// To how many addresses of a caller a response goes bare.
const BARE_MAX: usize = 2;

/// What a called peer, or a caller, said of itself, until a path is found.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    addresses: Vec<Underlay>,
    seen: Vec<Underlay>,
    at: Moment,
}

/// When the addresses that a peer says it has are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trying {
    /// While the session with it stands by hand alone.
    Pathless,
    /// Whatever its path: it asked for it, or we did.
    Always,
}

/// How long what somebody said of its addresses counts.
const CLAIMS_FOR: Duration = Duration::from_secs(30);

impl Node {
    /// All ways to a peer: its addresses, its homes, and other peers with which a session stands.
    pub(super) fn ways_to(&self, now: Now, peer: PeerIx) -> Ways {
        let node = self.ids.node(peer);
        let mut homes = self.homes_of(now, node);
        homes.truncate(HOMES_MAX);
        let is_third = |third: &PeerIx| *third != peer && self.is_greeted(*third);
        let links = self.pairs.keys().copied().filter(is_third);
        Ways {
            paths: self.paths_to(now, peer),
            links: links.take(LINKS_MAX).collect(),
            is_at_homes: !self.is_home(node),
            homes,
        }
    }

    /// The homes of a node, best first, this machine and the node itself left out.
    pub(super) fn homes_of(&self, now: Now, node: NodeId) -> Vec<PeerIx> {
        let Some(of) = self.members.certificate(node).map(|own| own.admission) else {
            return Vec::new();
        };
        let mesh_s = self.mesh_s(now);
        let others = self.known_homes.iter().copied().filter(|other| {
            *other != node
                && *other != self.me
                && self.is_home(*other)
                && self.registry.in_force(*other, mesh_s)
        });
        let homes = others.filter_map(|other| {
            let certificate = self.members.certificate(other)?;
            Some((self.ids.find(other)?, certificate.admission))
        });
        homes::order(of, homes)
    }

    /// A Peer record is in force that was not: whether its node is a home is known from now on.
    pub(super) fn note_home(&mut self, now: Now, node: NodeId) {
        let is_news = match self.is_home(node) {
            true => self.known_homes.insert(node),
            false => self.known_homes.remove(&node),
        };
        if is_news {
            self.review_homes_spoken_with(now);
        }
    }

    /// Whether a node says that it is dialable and hands on for others.
    pub(super) fn is_home(&self, node: NodeId) -> bool {
        self.members
            .peer(node)
            .is_some_and(|peer| peer.flags & PEER_HOME_FLAGS == PEER_HOME_FLAGS)
    }

    pub(super) fn is_greeted(&self, peer: PeerIx) -> bool {
        self.pairs
            .get(&peer)
            .and_then(Pair::usable)
            .is_some_and(|up| up.hello.is_some())
    }

    /// The hands of those through whom a peer is called now. With whom no session stands, one is opened first: the call
    /// follows when it does.
    pub(super) fn hands_through(
        &mut self,
        now: Now,
        peer: PeerIx,
        through: &[PeerIx],
    ) -> Vec<Path> {
        let mut hands = Vec::new();
        for third in through.iter().copied() {
            if self.is_greeted(third) {
                let ends = Ends {
                    by: third,
                    far: Far::Member(peer),
                };
                hands.push(Path::Handed(self.hands.of(now.at, ends)));
            } else {
                self.open_home(now, third);
            }
        }
        hands
    }

    /// The data thread wants a datagram handed on.
    pub(super) fn on_handed(&mut self, now: Now, hand: HandIx, bytes: Vec<u8>) {
        let Some(Ends { by, far }) = self.hands.ends(hand) else {
            return self.counters.count("hand_unknown");
        };
        let other = match far {
            Far::Member(other) => other,
            Far::Joiner { join, address } => {
                return self.hand_to_joiner(by, (join, address), bytes);
            }
        };
        let letter = self.hands.carry(now.at, hand, bytes);
        let (to, from) = (self.ids.node(other), self.me);
        let message = match letter {
            Letter::Asks(datagrams) => {
                self.listening.note_asked(now.at, by, other);
                Reaching::Call(Call {
                    to,
                    from,
                    ttl: match self.attempts.asks_beyond(other) {
                        true => TTL_BEYOND,
                        false => 1,
                    },
                    datagrams,
                    addresses: self.own_candidates(),
                    seen: Vec::new(),
                })
            }
            Letter::Answers(response) => {
                self.answer_bare(now, other, &response);
                Reaching::Answer(Answer {
                    to,
                    from,
                    datagrams: vec![response],
                    addresses: self.own_candidates(),
                    seen: Vec::new(),
                })
            }
            Letter::Waits => return,
            Letter::Stray => return self.counters.count("hand_stray"),
        };
        self.send(SessionId::Pair(by), Message::Reaching(message));
    }

    /// The response goes bare too, to where the third peer sees the caller: that opens the own NAT a round trip earlier, and
    /// where the caller's is open already it is there first.
    fn answer_bare(&mut self, now: Now, caller: PeerIx, response: &[u8]) {
        let Some(claims) = self.claims.get(&caller) else {
            return;
        };
        let allowed = self.allowed(&claims.seen, claims.seen.iter().copied());
        for to in allowed.into_iter().take(BARE_MAX) {
            if !self.proofs.spend_letter(now, to) {
                continue;
            }
            self.note_sent(now, Path::Direct(to));
            self.outbox.push_back(Output::Datagram {
                to: Path::Direct(to),
                bytes: response.to_vec(),
            });
        }
    }

    /// Those of the claimed addresses that may be written to, where a third peer saw their claimer at `seen`.
    pub(super) fn allowed(
        &self,
        seen: &[Underlay],
        claimed: impl Iterator<Item = Underlay>,
    ) -> Vec<Underlay> {
        let grounds = Grounds {
            seen,
            own_seen: &self.candidates.observed(),
            own: self.candidates.interfaces(),
            plan: self.candidates.plan(),
        };
        grounds.allowed(claimed)
    }

    /// Where a third peer lately saw who called this machine, or was called.
    pub(super) fn claims_seen(&self, peer: PeerIx) -> Vec<Underlay> {
        let claims = self.claims.get(&peer);
        claims.map_or(Vec::new(), |claims| claims.seen.clone())
    }

    /// Where others may find this machine.
    pub(super) fn own_candidates(&self) -> Vec<Underlay> {
        let mut own = self.candidates.own();
        own.truncate(ADDRESSES_MAX);
        own
    }

    pub(super) fn on_reaching(&mut self, now: Now, peer: PeerIx, message: Reaching) {
        match message {
            Reaching::Call(call) if call.to == self.me => self.on_called(now, peer, call),
            Reaching::Call(call) => self.hand_call_on(now, peer, call),
            Reaching::Answer(answer) if answer.to == self.me => self.on_answered(now, peer, answer),
            Reaching::Answer(answer) => self.hand_answer_on(now, peer, answer),
            Reaching::NotHere(not_here) => {
                if let Some(other) = self.ids.find(not_here.node) {
                    self.attempts.handle_not_here(now, other, peer);
                    self.dossiers.note_absent(now.at, other, peer);
                }
            }
            Reaching::Locate(locate) => self.on_locate(now, peer, locate.node),
            Reaching::Located(located) => self.on_located(now, peer, &located),
            Reaching::DialBack => self.on_dial_back(now, peer),
            Reaching::KnockAt(wish) => self.on_knock_at(now, peer, &wish),
            Reaching::Guess => self.on_guess_asked(now, peer),
            Reaching::Candidates(candidates) => self.on_candidates(now, peer, candidates.addresses),
        }
    }

    /// Somebody calls this machine: what it sends is taken in through the same doors as from a socket.
    fn on_called(&mut self, now: Now, home: PeerIx, call: Call) {
        // Its records went ahead: who is no member by now will not be one when its Knock is judged.
        if call.from == self.me
            || self.ids.find(call.from) == Some(home)
            || !self.may_open(now, call.from)
        {
            return self.counters.count("call_of_nobody");
        }
        let caller = self.ids.intern(call.from);
        if !self.listening.takes_call(now.at, home, caller) {
            return self.counters.count("call_too_much");
        }
        self.dossiers.note_seen(now.at, caller, home, &call.seen);
        self.note_sighting(now, caller, (home, &call.seen));
        self.note_claims(now, caller, call.addresses, call.seen);
        if call.datagrams.is_empty() {
            return self.on_called_for_pings(now, (home, caller));
        }
        self.take_by_hand(now, (home, caller), call.datagrams);
        self.ping_claims(now, caller, Trying::Pathless);
    }

    fn on_answered(&mut self, now: Now, home: PeerIx, answer: Answer) {
        let Some(called) = self.ids.find(answer.from).filter(|called| *called != home) else {
            return self.counters.count("answer_of_nobody");
        };
        if !self.listening.takes_answer(now.at, home, called) {
            return self.counters.count("answer_to_nothing");
        }
        self.dossiers.note_seen(now.at, called, home, &answer.seen);
        if self.open_path(called).is_none() {
            self.dossiers.note_answered(now.at, called);
        }
        self.note_sighting(now, called, (home, &answer.seen));
        self.note_claims(now, called, answer.addresses, answer.seen);
        let trying = match answer.datagrams.is_empty() {
            true => Trying::Always,
            false => Trying::Pathless,
        };
        self.take_by_hand(now, (home, called), answer.datagrams);
        self.ping_claims(now, called, trying);
    }

    fn take_by_hand(&mut self, now: Now, (by, other): (PeerIx, PeerIx), datagrams: Vec<Vec<u8>>) {
        let far = Far::Member(other);
        let source = Path::Handed(self.hands.of(now.at, Ends { by, far }));
        for bytes in datagrams {
            self.outbox.push_back(Output::Take { source, bytes });
        }
    }

    /// Whether a Knock by hand is of whom the home says that it called.
    pub(super) fn is_by_right_hand(&self, source: Path, node: NodeId) -> bool {
        let Path::Handed(hand) = source else {
            return true;
        };
        let far = self.hands.ends(hand).map(|ends| ends.far);
        far.is_some() && far == self.ids.find(node).map(Far::Member)
    }

    fn hand_call_on(&mut self, now: Now, caller: PeerIx, call: Call) {
        if call.ttl == 0 {
            return self.counters.count("call_too_far");
        }
        let called = self.ids.find(call.to);
        let Some(called) = called.filter(|called| *called != caller && self.is_greeted(*called))
        else {
            return self.refuse_call(now, caller, &call);
        };
        match self.passing.call(now.at, caller, called) {
            Pass::TooMany => return self.counters.count("call_too_often"),
            Pass::First => self.counters.count("call_handed_on"),
            Pass::Again => {}
        }
        // Who is called takes a way, as it takes a Knock, only to a member it knows; so each try offers it again.
        self.send_ahead(now, caller, called);
        self.offer_way(now, caller, called);
        let call = Call {
            from: self.ids.node(caller),
            ttl: call.ttl.saturating_sub(1).min(1),
            seen: self.seen.of(now.at, caller),
            ..call
        };
        self.send(
            SessionId::Pair(called),
            Message::Reaching(Reaching::Call(call)),
        );
    }

    /// Who is called has no session here.
    fn refuse_call(&mut self, now: Now, caller: PeerIx, call: &Call) {
        self.note_wish(now, caller, call.to);
        let not_here = Reaching::NotHere(NotHere { node: call.to });
        self.send(SessionId::Pair(caller), Message::Reaching(not_here));
        if call.ttl >= TTL_BEYOND {
            self.locate(now, caller, call.to);
        }
    }

    fn hand_answer_on(&mut self, now: Now, called: PeerIx, answer: Answer) {
        let caller = self.ids.find(answer.to);
        let caller = caller.filter(|caller| self.passing.is_awaited(now.at, *caller, called));
        let Some(caller) = caller else {
            return self.counters.count("answer_unasked");
        };
        let answer = Answer {
            from: self.ids.node(called),
            seen: self.seen.of(now.at, called),
            ..answer
        };
        self.send(
            SessionId::Pair(caller),
            Message::Reaching(Reaching::Answer(answer)),
        );
    }

    /// What the called peer needs to judge the caller's Knock, which comes without records: the caller's Member, the Admin
    /// that signed it, and its Peer record.
    pub(super) fn send_ahead(&mut self, now: Now, caller: PeerIx, called: PeerIx) {
        if !self.passing.goes_ahead(now.at, caller, called) {
            return;
        }
        let node = self.ids.node(caller);
        let signer = self
            .members
            .certificate(node)
            .map(|certificate| slot_of(Kind::Admin, &certificate.signer.0, &[]));
        let about = [Kind::Member, Kind::Peer].map(|kind| slot_of(kind, &node.0, &[]));
        let slots = signer.into_iter().chain(about).collect();
        self.answer_unlinked(now, SessionId::Pair(called), slots);
    }

    fn note_claims(
        &mut self,
        now: Now,
        peer: PeerIx,
        addresses: Vec<Underlay>,
        seen: Vec<Underlay>,
    ) {
        self.claims
            .retain(|_, claims| now.at.since(claims.at) < CLAIMS_FOR);
        let at = now.at;
        let claims = Claims {
            addresses,
            seen,
            at,
        };
        self.claims.insert(peer, claims);
    }

    /// A session stands by hand: both sides Ping what they may of the other, which opens both their NATs.
    pub(super) fn on_met(&mut self, now: Now, peer: PeerIx) {
        self.attempts.handle_met(now, peer);
        self.plan_relays(now, peer);
        self.timers
            .set(Timer::Pathless(peer), now.at.after(PATHLESS));
        self.ping_claims(now, peer, Trying::Pathless);
    }

    /// Pings where a peer says that it may be.
    pub(super) fn ping_claims(&mut self, now: Now, peer: PeerIx, trying: Trying) {
        if trying == Trying::Pathless && !self.is_pathless(peer) {
            return;
        }
        let Some(claims) = self.claims.get(&peer) else {
            return;
        };
        let claimed = claims.seen.iter().chain(&claims.addresses).copied();
        let allowed = self.allowed(&claims.seen, claimed);
        let paths: Vec<Path> = allowed.into_iter().map(Path::Direct).collect();
        let session = SessionId::Pair(peer);
        match trying {
            Trying::Pathless => self.proofs.handle_candidates(now, session, &paths),
            Trying::Always => self.proofs.handle_sought(now, session, &paths),
        }
    }

    /// Whether a session stands that has no path.
    pub(super) fn is_pathless(&self, peer: PeerIx) -> bool {
        self.up_path(peer).is_some_and(|path| !path.carries_data())
    }

    /// No path was found for a session that stands by hand: it is of no use.
    pub(super) fn on_pathless(&mut self, now: Now, peer: PeerIx) {
        if self.is_pathless(peer) {
            self.counters.count("session_without_path");
            self.drop_pair(now, peer);
        }
    }
}
