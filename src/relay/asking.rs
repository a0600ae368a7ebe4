//! Which relays this machine asks, and which legs it keeps (design §9; review-distributed S6, rule 6).
//!
//! The nearest few are asked; the round trip over each leg is measured, and it is the sum of both halves. Two legs are
//! kept bound while data flows, and none while it rests: a leg that rests costs nothing and is asked for again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{DEPTH_MAX, IDLE, LegEvent, Order, Reason, binding::Key, legs::Given};
use crate::{
    addr::Path,
    ids::{LegIx, PeerIx},
    time::{Moment, Now, Timers},
};

/// How many relays are asked for one peer at once.
pub const ASKED: usize = 3;

/// How many legs to one peer are kept however long they are.
const KEPT: usize = 2;

/// Legs to one peer: those asked for and the home's.
const TO_ONE_MAX: usize = 4;

/// By how much a leg must be longer than those that are kept to be let go, and it must be by a quarter: both ends measure
/// the same sum, but never to the millisecond, and what one lets go must not be what the other uses.
const LONGER_BY: Duration = Duration::from_millis(10);

/// How long ago the other end must have used a leg last for it to be let go: it keeps its legs warm every 10 s.
const THEIRS: Duration = Duration::from_secs(25);

/// Legs in all.
const IN_ALL: usize = 256;

/// Legs through one relay that nobody here asked for and over which nothing has come yet.
const UNASKED_MAX: usize = 64;

/// How often a leg in use says where this machine is. Keeps a NAT's mapping of 30 s, and lets the relay feed an end that
/// only listens.
const BIND_AGAIN: Duration = Duration::from_secs(25);

/// How soon a leg is bound again because what goes over it, or beside it, is not answered.
const BIND_ANEW: Duration = Duration::from_millis(500);

/// A leg over whose session nothing was heard for so long rests.
const REST_AFTER: Duration = Duration::from_secs(20);

/// How long an ask is waited for before the same relay is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a relay that said no is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How long one that has no session with the other end is left alone: it offers a way by itself when that one comes.
const AWAY_FOR: Duration = super::grants::WISHED_FOR;

/// How long after relays were asked in vain one that comes up is asked at once: until they would be asked again.
const SOUGHT_FOR: Duration = Duration::from_millis(1500);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask this relay for a way.
    Ask {
        /// Whom.
        relay: PeerIx,
        /// To whom.
        to: PeerIx,
    },
    /// Tell the data thread.
    Order(Order),
    /// A leg is bound: it is a path to try.
    Bound {
        /// Which.
        leg: LegIx,
        /// To whom.
        to: PeerIx,
    },
    /// A leg is no more.
    Lost {
        /// Which.
        leg: LegIx,
        /// To whom.
        to: PeerIx,
    },
}

/// A way that a relay offers.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Which relay.
    pub relay: PeerIx,
    /// Where it is.
    pub at: Path,
    /// To whom.
    pub to: PeerIx,
    /// What frames to it carry.
    pub id: [u8; 4],
    /// Of the macs.
    pub key: Key,
    /// Why it is there.
    pub why: Why,
}

/// Why a way is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This machine wants the peer, or speaks with it, or is called by it.
    Wanted,
    /// The peer may have asked for it; only the relay says so.
    Unasked,
}

/// All legs, and who was asked.
#[derive(Clone, Debug)]
pub struct Asking {
    rng: ChaCha8Rng,
    legs: BTreeMap<LegIx, Leg>,
    next: u32,
    /// Until when a relay is not asked for a peer again, and whether that is since it said no.
    asked: BTreeMap<(PeerIx, PeerIx), Asked>,
    /// To whom a way was wanted lately.
    sought: BTreeMap<PeerIx, Moment>,
    timers: Timers<LegIx>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug)]
struct Leg {
    relay: PeerIx,
    to: PeerIx,
    at: Path,
    /// What frames to the relay carry, and of its macs.
    theirs: ([u8; 4], Key),
    ours: u32,
    state: State,
    rtt: Option<Duration>,
    used: Moment,
    /// When the other end was last heard over it.
    heard: Moment,
    /// When it was said last where this machine is.
    said: Moment,
    why: Why,
}

impl Leg {
    /// Whether it was never wanted and never of use.
    fn is_spare(&self) -> bool {
        self.why == Why::Unasked && self.rtt.is_none()
    }
}

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The relay is told where this machine is.
    Binding,
    /// It knows.
    Bound,
    /// Nobody needs it; the relay forgets it soon.
    Resting,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    until: Moment,
    refused: bool,
}

impl Asking {
    /// None yet. `seed` makes ids and is a secret of this run.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            legs: BTreeMap::new(),
            next: 0,
            asked: BTreeMap::new(),
            sought: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A way to `to` is wanted: each of these relays, the best first, is asked, unless it was just now or has given one
    /// that leads through. Where the other end did not take up its end of a way, both are offered it again.
    pub fn ask(&mut self, now: Now, to: PeerIx, relays: &[PeerIx]) {
        self.asked.retain(|_, asked| asked.until > now.at);
        self.sought
            .retain(|_, since| now.at.since(*since) < SOUGHT_FOR);
        self.sought.insert(to, now.at);
        for relay in relays.iter().copied().take(ASKED) {
            let has_leg = self
                .to_through(to, relay)
                .is_some_and(|leg| self.leads_through(leg));
            if has_leg || relay == to || self.asked.contains_key(&(relay, to)) {
                continue;
            }
            let asked = Asked {
                until: now.at.after(ASK_AGAIN),
                refused: false,
            };
            self.asked.insert((relay, to), asked);
            self.outputs.push_back(Output::Ask { relay, to });
        }
    }

    /// To whom ways were sought lately: a relay that comes up may lead there.
    pub fn sought(&self, now: Now) -> Vec<PeerIx> {
        let young = self.sought.iter();
        young
            .filter(|(_, since)| now.at.since(**since) < SOUGHT_FOR)
            .map(|(to, _)| *to)
            .collect()
    }

    /// Whether a relay said no a moment ago.
    pub fn has_refused(&self, now: Now, relay: PeerIx, to: PeerIx) -> bool {
        let asked = self.asked.get(&(relay, to));
        asked.is_some_and(|asked| asked.refused && asked.until > now.at)
    }

    /// A relay offers a way, asked or not. It offers the same one again where the other end, or this one, may have lost it.
    pub fn handle_offer(&mut self, now: Now, offered: Offered) {
        let Offered {
            relay, at, to, why, ..
        } = offered;
        let theirs = (offered.id, offered.key);
        let known = self.to_through(to, relay);
        if let Some(leg) = known
            && self.is_same(leg, at, &theirs)
        {
            return self.take_up_again(leg, why);
        }
        if known.is_none() && why == Why::Wanted {
            self.make_room(to);
        }
        let leg = match known {
            Some(leg) => leg,
            None if self.has_room(to, relay, why) => {
                self.next += 1;
                LegIx(self.next)
            }
            None => return,
        };
        let state = match known.map(|leg| self.legs[&leg].state) {
            Some(State::Resting) => State::Resting,
            Some(State::Binding | State::Bound) | None => State::Binding,
        };
        let ours = match self.legs.get(&leg) {
            Some(known) => known.ours,
            None => self.rng.next_u32(),
        };
        let given = Given {
            relay: at,
            theirs: theirs.0,
            ours,
            key: theirs.1.clone(),
        };
        let fresh = Leg {
            relay,
            to,
            at,
            theirs,
            ours,
            state,
            rtt: None,
            used: now.at,
            heard: now.at,
            said: now.at,
            why,
        };
        self.legs.insert(leg, fresh);
        self.order(Order::AddLeg { leg, given });
        if state == State::Resting {
            self.order(Order::RestLeg(leg));
        }
    }

    /// Whether what is offered is a leg that is there and awake.
    fn is_same(&self, leg: LegIx, at: Path, theirs: &([u8; 4], Key)) -> bool {
        let known = &self.legs[&leg];
        known.state != State::Resting && known.at == at && known.theirs == *theirs
    }

    /// A leg is offered again. One that is being bound goes on with that, one that leads through stays as it is; where
    /// nothing came back yet it is bound, and then tried, again.
    fn take_up_again(&mut self, leg: LegIx, why: Why) {
        let Some(known) = self.legs.get_mut(&leg) else {
            return;
        };
        if why == Why::Wanted {
            known.why = why;
        }
        if known.state == State::Bound && known.rtt.is_none() {
            known.state = State::Binding;
            self.order(Order::BindLeg(leg));
        }
    }

    /// A relay has no way, or no longer.
    pub fn handle_closed(&mut self, now: Now, (relay, to): (PeerIx, PeerIx), reason: u64) {
        if reason != Reason::Idle.number() {
            let is_away = reason == Reason::NoSession.number();
            let asked = Asked {
                until: now.at.after(if is_away { AWAY_FOR } else { REFUSED_FOR }),
                refused: true,
            };
            self.asked.insert((relay, to), asked);
        }
        if let Some(leg) = self.to_through(to, relay) {
            self.lose(leg);
        }
    }

    /// The data thread tells of a leg.
    pub fn handle_leg(&mut self, now: Now, leg: LegIx, event: LegEvent) {
        let Some(known) = self.legs.get_mut(&leg) else {
            return;
        };
        match event {
            LegEvent::Bound => {
                self.timers.set(leg, now.at.after(BIND_AGAIN));
                let to = known.to;
                if known.state != State::Bound {
                    if known.state == State::Binding {
                        known.state = State::Bound;
                    }
                    self.outputs.push_back(Output::Bound { leg, to });
                }
            }
            LegEvent::Silent => self.lose(leg),
        }
    }

    /// A Pong came over a leg: it leads through. `current` carries data and is kept whatever it takes.
    pub fn handle_pong(&mut self, now: Now, leg: LegIx, rtt: Duration, current: Option<LegIx>) {
        let Some(known) = self.legs.get_mut(&leg) else {
            return;
        };
        known.rtt = Some(known.rtt.map_or(rtt, |before| (before * 7 + rtt) / 8));
        known.used = now.at;
        let to = known.to;
        if known.state == State::Resting {
            known.state = State::Bound;
            self.order(Order::WakeLeg(leg));
        }
        self.keep_best(now, to, current);
    }

    /// The other end talks over a leg.
    pub fn handle_heard(&mut self, now: Now, leg: LegIx) {
        if let Some(known) = self.legs.get_mut(&leg) {
            known.heard = now.at;
        }
    }

    /// Data flows with a peer: its legs are kept.
    pub fn handle_used(&mut self, now: Now, to: PeerIx) {
        for leg in self.legs.values_mut().filter(|leg| leg.to == to) {
            leg.used = now.at;
        }
    }

    /// The session with a peer is over: nobody needs its legs.
    pub fn handle_over(&mut self, to: PeerIx) {
        let gone: Vec<LegIx> = self.of(to).collect();
        gone.into_iter().for_each(|leg| self.lose(leg));
    }

    /// A relay is elsewhere now, or its session came anew: legs there are bound anew.
    pub fn handle_relay_at(&mut self, relay: PeerIx, at: Path) {
        let mut orders = Vec::new();
        for (leg, known) in &mut self.legs {
            if known.relay == relay && known.at != at {
                known.at = at;
                orders.push(Order::MoveLeg {
                    leg: *leg,
                    relay: at,
                });
            }
        }
        orders.into_iter().for_each(|order| self.order(order));
    }

    /// What a peer is sent is not answered. Where the own router forgot everything, relays look for this machine in the
    /// wrong place, and no other way leads here: legs to that peer are bound anew.
    pub fn handle_doubted(&mut self, now: Now, to: PeerIx) {
        self.bind_anew(now, |leg| {
            leg.to == to && now.at.since(leg.said) >= BIND_ANEW
        });
    }

    /// No way to a peer answers: its legs are bound anew in any case.
    pub fn handle_sought(&mut self, now: Now, to: PeerIx) {
        self.bind_anew(now, |leg| leg.to == to);
    }

    /// This machine is elsewhere now: relays are told where.
    pub fn handle_moved(&mut self, now: Now) {
        self.bind_anew(now, |_| true);
    }

    fn bind_anew(&mut self, now: Now, is_meant: impl Fn(&Leg) -> bool) {
        let mut orders = Vec::new();
        for (ix, leg) in &mut self.legs {
            if leg.state == State::Bound && is_meant(leg) {
                leg.said = now.at;
                orders.push(Order::BindLeg(*ix));
            }
        }
        orders.into_iter().for_each(|order| self.order(order));
    }

    /// The session with a relay ended: whether it still carries is asked at once.
    pub fn handle_relay_gone(&mut self, relay: PeerIx) {
        let legs = self.legs.iter();
        let its = legs.filter(|(_, leg)| leg.relay == relay && leg.state != State::Resting);
        let its: Vec<LegIx> = its.map(|(ix, _)| *ix).collect();
        its.into_iter()
            .for_each(|leg| self.order(Order::BindLeg(leg)));
    }

    /// The relay of a leg.
    pub fn relay_of(&self, leg: LegIx) -> Option<PeerIx> {
        Some(self.legs.get(&leg)?.relay)
    }

    /// Behind how many relays a leg leads: one more than its relay is.
    pub fn depth_of(&self, leg: LegIx) -> usize {
        let mut depth = 1;
        let mut at = self.legs.get(&leg).map(|leg| leg.at);
        while let Some(Path::Relay(outer)) = at
            && depth < DEPTH_MAX
        {
            depth += 1;
            at = self.legs.get(&outer).map(|leg| leg.at);
        }
        depth
    }

    /// Whether data may go over a leg now.
    pub fn is_awake(&self, leg: LegIx) -> bool {
        let known = self.legs.get(&leg);
        known.is_some_and(|leg| leg.state == State::Bound)
    }

    /// Whether a Pong came over a leg that does not rest.
    fn leads_through(&self, leg: LegIx) -> bool {
        let known = &self.legs[&leg];
        known.state != State::Resting && known.rtt.is_some()
    }

    /// The legs to a peer that are bound, the nearest first.
    pub fn bound_to(&self, to: PeerIx) -> Vec<LegIx> {
        let mut bound: Vec<(Duration, LegIx)> = self
            .of(to)
            .filter(|leg| self.is_awake(*leg))
            .map(|leg| (self.legs[&leg].rtt.unwrap_or(Duration::MAX), leg))
            .collect();
        bound.sort_unstable();
        bound.into_iter().map(|(_, leg)| leg).collect()
    }

    /// How many legs to a peer are bound or on the way to it.
    pub fn count_to(&self, to: PeerIx) -> usize {
        self.of(to)
            .filter(|leg| self.legs[leg].state != State::Resting)
            .count()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(leg) = self.timers.pop_due(now.at) {
            self.tend(now, leg);
        }
    }

    fn tend(&mut self, now: Now, leg: LegIx) {
        let Some(known) = self.legs.get_mut(&leg) else {
            return;
        };
        match known.state {
            State::Binding => {}
            State::Bound if now.at.since(known.used) < REST_AFTER => {
                known.said = now.at;
                self.timers.set(leg, now.at.after(BIND_AGAIN));
                self.order(Order::BindLeg(leg));
            }
            State::Bound => {
                known.state = State::Resting;
                self.timers.set(leg, known.used.after(IDLE).max(now.at));
                self.order(Order::RestLeg(leg));
            }
            State::Resting => self.lose(leg),
        }
    }

    /// Of more legs than are kept, the longest goes, once all were measured, if it is much longer and neither end uses it.
    fn keep_best(&mut self, now: Now, to: PeerIx, current: Option<LegIx>) {
        let measured = |leg| Some((self.legs[&leg].rtt?, leg));
        let Some(legs) = self.of(to).map(measured).collect::<Option<Vec<_>>>() else {
            return;
        };
        let others = legs.iter().filter(|(_, leg)| Some(*leg) != current);
        let mut others: Vec<(Duration, LegIx)> = others.copied().collect();
        others.sort_unstable();
        let kept = KEPT - usize::from(others.len() < legs.len());
        let Some((bound, _)) = others.get(kept - 1).copied() else {
            return;
        };
        let is_spare = |rtt: Duration, leg: LegIx| {
            let is_theirs = now.at.since(self.legs[&leg].heard) < THEIRS;
            rtt > bound + LONGER_BY && rtt * 4 > bound * 5 && !is_theirs
        };
        let spare = others.iter().rev().find(|(rtt, leg)| is_spare(*rtt, *leg));
        if let Some((_, longest)) = spare.copied() {
            self.lose(longest);
        }
    }

    fn has_room(&self, to: PeerIx, relay: PeerIx, why: Why) -> bool {
        let spare = self.legs.values().filter(|leg| leg.is_spare());
        let is_fair =
            why == Why::Wanted || spare.filter(|leg| leg.relay == relay).count() < UNASKED_MAX;
        is_fair && self.of(to).count() < TO_ONE_MAX && self.legs.len() < IN_ALL
    }

    /// Where a leg to a peer is wanted and there are too many, the oldest that nobody wanted goes.
    fn make_room(&mut self, to: PeerIx) {
        let to_one = self.of(to).count() >= TO_ONE_MAX;
        if !to_one && self.legs.len() < IN_ALL {
            return;
        }
        let mut legs = self.legs.iter();
        let spare = legs.find(|(_, leg)| leg.is_spare() && (!to_one || leg.to == to));
        if let Some(spare) = spare.map(|(ix, _)| *ix) {
            self.lose(spare);
        }
    }

    fn lose(&mut self, leg: LegIx) {
        let Some(gone) = self.legs.remove(&leg) else {
            return;
        };
        self.timers.clear(&leg);
        self.order(Order::DropLeg(leg));
        self.outputs.push_back(Output::Lost { leg, to: gone.to });
    }

    fn order(&mut self, order: Order) {
        self.outputs.push_back(Output::Order(order));
    }

    fn of(&self, to: PeerIx) -> impl Iterator<Item = LegIx> {
        let its = self.legs.iter().filter(move |(_, leg)| leg.to == to);
        its.map(|(ix, _)| *ix)
    }

    /// Who carries to a peer now.
    pub fn relays_to(&self, to: PeerIx) -> Vec<PeerIx> {
        self.of(to).map(|leg| self.legs[&leg].relay).collect()
    }

    fn to_through(&self, to: PeerIx, relay: PeerIx) -> Option<LegIx> {
        self.of(to).find(|leg| self.legs[leg].relay == relay)
    }
}
