//! Ways through a third peer (design §9): this machine carries for others, and is carried.
//!
//! A relay is a peer with which both have sessions; it is asked for a member and offers the way to both ends. Each binds its
//! end, and then the way is one more path that Ping and Pong prove.

use std::time::Duration;

use crate::{
    addr::Path,
    ids::{LegIx, NodeId, PeerIx, SessionId},
    node::{Node, Timer, output::Output},
    paths::attempt::Purpose,
    relay::{
        LegEvent, Order, Reason,
        asking::{self, Offered, Why},
        binding::Key,
        grants::{Standing, Willing, Wish},
        ways::Given,
    },
    time::{Moment, Now},
    wire::{
        message::Message,
        reaching::{RelayClosed, RelayOffer, RelayRequest, Relaying},
    },
};

/// How long a peer is sought by itself before relays are asked: a direct answer comes sooner.
const ASK_AFTER: Duration = Duration::from_millis(250);

/// How often they are asked while none has helped.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How recent the last packet of a program must be for legs to be kept.
const IN_USE: Duration = Duration::from_secs(15);

/// How long a session whose leg rested is waited for before it is made anew.
const WAKE_WITHIN: Duration = Duration::from_secs(2);

/// Flags of the Peer record: bit 3, this peer carries for others.
pub(super) const PEER_RELAY: u64 = 8;

impl Node {
    /// What the own Peer record says of relaying: it is for those whom others reach. Who needs relays itself would only
    /// lie behind one of them.
    pub(super) fn relay_flag(&self, now: Now) -> u64 {
        match self.grants.willing() {
            Willing::Yes if self.is_reached(now) => PEER_RELAY,
            Willing::Yes | Willing::No => 0,
        }
    }

    pub(super) fn on_relaying(&mut self, now: Now, peer: PeerIx, message: Relaying) {
        match message {
            Relaying::Request(RelayRequest { to }) => self.on_way_asked(now, peer, to),
            Relaying::Offer(offer) => self.on_way_offered(now, peer, &offer),
            Relaying::Closed(RelayClosed { other, reason }) => {
                if let Some(other) = self.ids.find(other) {
                    self.asking.handle_closed(now, (peer, other), reason);
                }
            }
        }
    }

    /// Somebody asks for a way through this machine, to a member: an address it cannot name.
    fn on_way_asked(&mut self, now: Now, asker: PeerIx, to: NodeId) {
        let wish = Wish {
            from: (asker, self.standing_of(now, asker)),
            to: match self.ids.find(to) {
                Some(other) => (other, self.standing_of(now, other)),
                None => (asker, Standing::Away),
            },
        };
        match self.grants.grant(&wish) {
            Ok(ends) => self.offer(ends),
            Err(reason) => {
                self.counters.count("relay_refused");
                if reason == Reason::NoSession && wish.to.1 == Standing::Away {
                    self.note_wish(now, asker, to);
                }
                let reason = reason.number();
                let closed = Relaying::Closed(RelayClosed { other: to, reason });
                self.send(SessionId::Pair(asker), Message::Relaying(closed));
            }
        }
    }

    /// Somebody wants a member with which no session stands here: it gets a way when that one comes.
    pub(super) fn note_wish(&mut self, now: Now, asker: PeerIx, to: NodeId) {
        let wanted = self.ids.find(to).filter(|wanted| *wanted != asker);
        if let Some(wanted) = wanted.filter(|_| self.may_open(now, to)) {
            self.grants.note_wish(now.at, asker, wanted);
        }
    }

    /// A session stands with a peer, and both may speak: who wanted a way to it gets one, and if it carries for others it
    /// is asked for whomever none leads to.
    pub(super) fn on_relay_open(&mut self, now: Now, peer: PeerIx) {
        for asker in self.grants.take_wishes(now.at, peer) {
            self.offer_way(now, asker, peer);
        }
        if self.carries_for_others(peer) {
            for to in self.asking.sought(now) {
                if self.lacks_way(to) {
                    self.ask_relays(now, to);
                }
            }
        }
    }

    /// A call was handed on: both get a way through this machine in the same step, if it carries.
    pub(super) fn offer_way(&mut self, now: Now, caller: PeerIx, called: PeerIx) {
        let wish = Wish {
            from: (caller, self.standing_of(now, caller)),
            to: (called, self.standing_of(now, called)),
        };
        if let Ok(ends) = self.grants.grant(&wish) {
            self.offer(ends);
        }
    }

    /// The data thread knows of a way before its ends do.
    fn offer(&mut self, ends: [Given; 2]) {
        let others = [ends[1].member, ends[0].member];
        self.outbox
            .push_back(Output::Relay(Order::OpenWay(ends.clone())));
        for (end, other) in ends.into_iter().zip(others) {
            let offer = Relaying::Offer(RelayOffer {
                other: self.ids.node(other),
                id: end.id,
                key: end.key.0,
            });
            self.send(SessionId::Pair(end.member), Message::Relaying(offer));
        }
    }

    /// A way is over for the data thread.
    pub(super) fn on_way_over(&mut self, way: [u8; 4]) {
        self.grants.handle_over(way);
    }

    /// A member is out: nothing is carried for it, and nothing goes to it.
    pub(super) fn end_ways_of(&mut self, peer: PeerIx) {
        let node = self.ids.node(peer);
        for (id, other) in self.grants.handle_out(peer) {
            self.outbox.push_back(Output::Relay(Order::CloseWay(id)));
            let closed = RelayClosed {
                other: node,
                reason: Reason::NoSession.number(),
            };
            let closed = Message::Relaying(Relaying::Closed(closed));
            self.send(SessionId::Pair(other), closed);
        }
    }

    fn on_way_offered(&mut self, now: Now, relay: PeerIx, offer: &RelayOffer) {
        let at = self.open_path(relay);
        let to = self.ids.find(offer.other);
        let (Some(at), Some(to)) = (at, to.filter(|_| self.may_open(now, offer.other))) else {
            return self.counters.count("relay_offer_unused");
        };
        // Behind two already, or a way to a peer by way of itself.
        let is_good = offer.other != self.me
            && to != relay
            && self.depth_of(at) < crate::relay::DEPTH_MAX
            && self.relay_at(at) != Some(to);
        if !is_good {
            return self.counters.count("relay_offer_unused");
        }
        let offered = Offered {
            relay,
            at,
            to,
            id: offer.id,
            key: Key(offer.key),
            why: self.why_offered(now, relay, to),
        };
        self.asking.handle_offer(now, offered);
    }

    /// The other end asked for the way, or this one did.
    fn why_offered(&self, now: Now, relay: PeerIx, to: PeerIx) -> Why {
        let is_wanted = self.is_up(to)
            || self.attempts.is_under_way(to)
            || self.listening.is_called(now.at, relay, to);
        match is_wanted {
            true => Why::Wanted,
            false => Why::Unasked,
        }
    }

    pub(super) fn on_leg(&mut self, now: Now, leg: LegIx, event: LegEvent) {
        self.asking.handle_leg(now, leg, event);
        if event == LegEvent::Bound {
            self.proofs.handle_path_back(now, Path::Relay(leg));
        }
    }

    pub(super) fn drain_asking(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.asking.poll_output() {
            any = true;
            match output {
                asking::Output::Ask { relay, to } => {
                    let to = self.ids.node(to);
                    let request = Relaying::Request(RelayRequest { to });
                    self.send(SessionId::Pair(relay), Message::Relaying(request));
                }
                asking::Output::Order(order) => {
                    if let Order::RestLeg(leg) = order {
                        self.proofs.handle_path_rests(Path::Relay(leg));
                    }
                    self.outbox.push_back(Output::Relay(order));
                }
                asking::Output::Bound { leg, to } => self.try_leg(now, leg, to),
                asking::Output::Lost { leg, to } => {
                    self.on_leg_lost(now, leg);
                    if self.is_in_use(now, to) && self.lacks_legs(to) {
                        self.ask_relays(now, to);
                    }
                }
            }
        }
        any
    }

    /// A leg is one more path: to Ping where a session stands, to knock at where none does.
    fn try_leg(&mut self, now: Now, leg: LegIx, to: PeerIx) {
        let path = Path::Relay(leg);
        self.proofs.note_depth(leg, self.asking.depth_of(leg));
        match self.up_path(to) {
            None => self.attempts.handle_bound(to, path),
            Some(_) => {
                let session = SessionId::Pair(to);
                self.proofs.handle_candidates(now, session, &[path]);
            }
        }
    }

    /// Legs that were bound for an earlier session with a peer are paths of the one that stands now.
    pub(super) fn try_bound_legs(&mut self, now: Now, to: PeerIx) {
        for leg in self.asking.bound_to(to) {
            self.try_leg(now, leg, to);
        }
    }

    /// A Pong came by this path, so it leads through.
    pub(super) fn note_leg_pong(&mut self, now: Now, peer: PeerIx, source: Path, rtt: Duration) {
        let Path::Relay(leg) = source else {
            return;
        };
        let current = match self.up_path(peer) {
            Some(Path::Relay(current)) => Some(current),
            Some(Path::Direct(_) | Path::Stream(_) | Path::Handed(_)) | None => None,
        };
        self.asking.handle_pong(now, leg, rtt, current);
    }

    /// An attempt begins: if it is not answered soon, relays are asked.
    pub(super) fn plan_relays(&mut self, now: Now, peer: PeerIx) {
        self.timers
            .set_earlier(Timer::AskRelays(peer), now.at.after(ASK_AFTER));
    }

    pub(super) fn on_ask_relays(&mut self, now: Now, peer: PeerIx) {
        if self.lacks_way(peer) {
            self.ask_relays(now, peer);
            self.timers
                .set(Timer::AskRelays(peer), now.at.after(ASK_AGAIN));
        }
    }

    /// Whether a peer is wanted and no path to it carries data.
    fn lacks_way(&self, peer: PeerIx) -> bool {
        match self.up_path(peer) {
            None => self.attempts.is_under_way(peer),
            Some(path) => !self.is_awake(path),
        }
    }

    /// A packet waits though a session stands: its leg rests, and is asked for again. If that takes too long the session is
    /// made anew, as where the other side has lost it.
    pub(super) fn wake_way(&mut self, now: Now, peer: PeerIx) -> bool {
        let rests = self
            .up_path(peer)
            .is_some_and(|path| matches!(path, Path::Relay(_)) && !self.is_awake(path));
        if rests {
            self.seek_relays(now, peer);
            self.timers
                .set_earlier(Timer::WakeUp(peer), now.at.after(WAKE_WITHIN));
        }
        rests
    }

    /// Relays are asked for a way to a peer now, and again until one leads there.
    pub(super) fn seek_relays(&mut self, now: Now, peer: PeerIx) {
        self.ask_relays(now, peer);
        self.timers
            .set(Timer::AskRelays(peer), now.at.after(ASK_AGAIN));
    }

    pub(super) fn on_wake_up(&mut self, now: Now, peer: PeerIx) {
        let rests = self.up_path(peer).is_some_and(|path| !self.is_awake(path));
        if rests {
            self.drop_pair(now, peer);
            self.reach(now, peer, Purpose::Link);
        }
    }

    /// Asks the nearest peers that carry for others. Those behind a relay themselves are asked when all others said no:
    /// two in a row are for two that no single one reaches.
    fn ask_relays(&mut self, now: Now, to: PeerIx) {
        let mut near: Vec<(usize, Duration, PeerIx)> = Vec::new();
        for (relay, pair) in &self.pairs {
            let is_greeted = pair.up.as_ref().is_some_and(|up| up.hello.is_some());
            let Some(path) = self.open_path(*relay).filter(|_| is_greeted) else {
                continue;
            };
            let depth = self.depth_of(path);
            let carries = self.carries_for_others(*relay)
                && *relay != to
                && depth < crate::relay::DEPTH_MAX
                && self.relay_at(path) != Some(to)
                && !self.asking.has_refused(now, *relay, to);
            if carries {
                let rtt = self.proofs.rtt(SessionId::Pair(*relay));
                let rtt = rtt.map_or(Duration::MAX, |rtt| rtt.smoothed);
                near.push((depth, rtt, *relay));
            }
        }
        near.sort_unstable();
        let nearest = near.first().map_or(0, |(depth, _, _)| *depth);
        let relays: Vec<PeerIx> = near
            .into_iter()
            .filter(|(depth, _, _)| *depth == nearest)
            .map(|(_, _, relay)| relay)
            .collect();
        self.asking.ask(now, to, &relays);
    }

    /// Programs talk with a peer: its legs are kept bound.
    pub(super) fn tend_legs(&mut self, now: Now, peer: PeerIx, user: Moment) {
        let Some(path) = self.up_path(peer) else {
            return;
        };
        let is_relayed = matches!(path, Path::Relay(_));
        let in_use = now.at.since(user) < IN_USE && user != Moment(0);
        if in_use || is_relayed {
            self.asking.handle_used(now, peer);
        }
        if in_use && self.lacks_legs(peer) {
            self.ask_relays(now, peer);
        }
    }

    /// Whether a peer that is in use has fewer legs than are kept: two where data goes by one, one where it may have to.
    fn lacks_legs(&self, peer: PeerIx) -> bool {
        let is_relayed = matches!(self.up_path(peer), Some(Path::Relay(_)));
        self.asking.count_to(peer) < if is_relayed { 2 } else { 1 }
    }

    /// The other end talks by this path.
    pub(super) fn note_leg_heard(&mut self, now: Now, source: Path) {
        if let Path::Relay(leg) = source {
            self.asking.handle_heard(now, leg);
        }
    }

    /// The session with a peer stands by another path: what goes through it goes there.
    pub(super) fn note_relay_at(&mut self, peer: PeerIx) {
        if let Some(at) = self.open_path(peer) {
            self.asking.handle_relay_at(peer, at);
        }
    }

    /// The names of the relays on a path, the nearest first.
    pub(super) fn relays_on(&self, path: Path) -> Vec<NodeId> {
        let mut on = Vec::new();
        let mut path = Some(path);
        while let Some(relay) = path.and_then(|path| self.relay_at(path)) {
            on.push(self.ids.node(relay));
            path = self
                .up_path(relay)
                .filter(|_| on.len() < crate::relay::DEPTH_MAX);
        }
        on.reverse();
        on
    }

    pub(super) fn carries_for_others(&self, peer: PeerIx) -> bool {
        let record = self.members.peer(self.ids.node(peer));
        record.is_some_and(|record| record.flags & PEER_RELAY != 0)
    }

    fn is_in_use(&self, now: Now, peer: PeerIx) -> bool {
        let up = self.pairs.get(&peer).and_then(|pair| pair.up.as_ref());
        up.is_some_and(|up| now.at.since(up.heard) < IN_USE)
    }

    fn standing_of(&self, now: Now, peer: PeerIx) -> Standing {
        let is_member = self.membership(now, self.ids.node(peer)).is_member();
        match self.open_path(peer).filter(|_| is_member) {
            Some(path) => Standing::There(self.depth_of(path)),
            None => Standing::Away,
        }
    }

    /// Whether packets may go by a path now.
    fn is_awake(&self, path: Path) -> bool {
        match path {
            Path::Relay(leg) => self.asking.is_awake(leg),
            Path::Direct(_) | Path::Stream(_) => true,
            Path::Handed(_) => false,
        }
    }

    pub(super) fn relay_at(&self, path: Path) -> Option<PeerIx> {
        match path {
            Path::Relay(leg) => self.asking.relay_of(leg),
            Path::Direct(_) | Path::Stream(_) | Path::Handed(_) => None,
        }
    }

    /// Behind how many relays a path lies.
    fn depth_of(&self, path: Path) -> usize {
        match path {
            Path::Relay(leg) => self.asking.depth_of(leg),
            Path::Direct(_) | Path::Stream(_) | Path::Handed(_) => 0,
        }
    }
}
