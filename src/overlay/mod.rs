//! With whom this peer gossips: links wanted, dialled, kept and given up (design §8).
//!
//! Knows who is linked and how often a dial failed. Refuses to know addresses and records.
//!
//! Three sets, never confused: *known* (there is a Member and perhaps an address), *open* (a session stands) and
//! *linked* (we gossip in it). Linked is within open, and open within known.
//!
//! Up to [`Limits::wanted`] peers everyone is linked to everyone. Beyond that a peer seeks a mix ([`choice`]): half of
//! its links to its neighbours on the ring of node ids, half drawn at random. The ring keeps the graph in one piece:
//! both ends of each of its edges want that edge, so nobody has to be lucky. The random links keep it shallow and
//! carry it over the moments when peers disagree about who is on the ring.

mod choice;
mod contact;
pub mod homes;
mod idle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    ids::{NodeId, PeerIx},
    time::{Moment, Now, Timers},
};
use contact::{Contact, LinkState, Session};

/// How long the higher node id leaves it to the lower one to dial (design §8).
const HIGHER_WAITS: Duration = Duration::from_secs(2);

/// The wait after the first failed dial; doubles (design §8).
const REDIAL_FIRST: Duration = Duration::from_secs(1);

/// The longest wait after a failed dial (design §8).
const REDIAL_MAX: Duration = Duration::from_mins(5);

/// The least time from the end of a session to the next dial: a peer that closes at once is not dialled in a loop.
const REDIAL_GAP: Duration = Duration::from_secs(1);

/// When a dial counts as failed though nobody said so: twice what an attempt lasts (design §9).
const DIAL_STUCK: Duration = Duration::from_secs(10);

/// Failed dials after which a peer does not count against the links wanted (design §8).
const FAILURES_MAX: u32 = 3;

/// When an ask without answer is repeated: at first, and after [`ASKS_QUICK`] times.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// See [`ASK_AGAIN`].
const ASK_SLOWLY: Duration = Duration::from_secs(10);

/// See [`ASK_AGAIN`].
const ASKS_QUICK: u32 = 3;

/// How long a ring neighbour that refused is left alone at first: it will want the link when it sees the ring as we do.
const RING_REFUSED: Duration = Duration::from_secs(2);

/// How long any other peer that refused is left alone at first; doubles up to [`REDIAL_MAX`].
const REFUSED_FIRST: Duration = Duration::from_secs(15);

/// How long nobody else is drawn after a refusal by one that was; doubles up to [`REDIAL_MAX`].
const SEARCH_FIRST: Duration = Duration::from_secs(1);

/// How long a link may be silent before it is Pinged (design §8); also keeps a NAT's mapping.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// From one Ping of a silent link to the next, and from the last to its end (design §8).
const PING_EVERY: Duration = Duration::from_secs(1);

/// Pings to a silent link (design §8).
const PINGS_MAX: u32 = 3;

/// How many links and sessions, and how long unused ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Links sought.
    pub wanted: usize,
    /// Links at most; an ask above it gets Unlink.
    pub cap: usize,
    /// Open sessions at most (design §8: 256, a leaf 64).
    pub open: usize,
    /// How long a session that is no link lives without user traffic.
    pub idle_close: Duration,
}

impl Limits {
    /// Links to everyone up to 64; sessions close after 5 min idle.
    pub const EVERYONE: Self = Self {
        wanted: 64,
        cap: 64,
        open: 256,
        idle_close: Duration::from_secs(300),
    };
    /// As `[test] links` and `[test] idle_close` say.
    #[must_use]
    pub fn with_links(self, links: usize) -> Self {
        Self {
            wanted: links,
            cap: links,
            ..self
        }
    }
}

/// Whether a peer may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// Its lease is in force and it has an address.
    Yes,
    /// Not now.
    No,
}

/// Who opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// We.
    Own,
    /// The peer.
    Theirs,
}

/// Why a link is refused or ended, as Unlink carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlinkReason {
    /// 0: the cap is reached.
    Full,
    /// 1: another link serves better.
    NotWanted,
}

/// Why a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No link, and no user traffic for a while.
    Idle,
    /// A link that answered no Ping.
    Silent,
    /// Too many sessions are open, and this one was used least recently.
    Crowded,
}

/// What the links ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a session, by an attempt for a link.
    Dial(PeerIx),
    /// Send Link{yes: false}.
    Ask(PeerIx),
    /// Send Link{yes: true}.
    Yes(PeerIx),
    /// Send Unlink.
    Unlink {
        /// Whom.
        peer: PeerIx,
        /// Why.
        reason: UnlinkReason,
    },
    /// The session is a gossip link from now on.
    Linked(PeerIx),
    /// The session is a gossip link no more.
    Unlinked(PeerIx),
    /// Ping wherever the session is.
    Ping(PeerIx),
    /// Say Bye and forget the session.
    Close {
        /// Whose.
        peer: PeerIx,
        /// Why.
        reason: CloseReason,
    },
}

/// All peers as candidates for links, with their sessions.
#[derive(Clone, Debug)]
pub struct Links {
    own: NodeId,
    limits: Limits,
    rng: ChaCha8Rng,
    contacts: BTreeMap<PeerIx, Contact>,
    /// Refusals since the last new link, by peers drawn at random.
    search_refusals: u32,
    /// Nobody new is drawn before.
    search_at: Moment,
    timers: Timers<(PeerIx, Wake)>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// Dial now.
    Dial,
    /// Nobody said what became of the dial.
    Stuck,
    /// The ask was not answered.
    Ask,
    /// The peer that refused may be asked again.
    Forgive,
    /// After a refusal by this peer another may be drawn.
    Search,
    /// The link may be silent.
    Silence,
    /// The session may be idle.
    Idle,
}

impl Wake {
    /// Those that a new session, or the end of a contact, makes pointless.
    const OF_CONTACT: [Self; 5] = [
        Self::Dial,
        Self::Stuck,
        Self::Ask,
        Self::Silence,
        Self::Idle,
    ];
}

impl Links {
    /// Nobody known yet.
    pub fn new(own: NodeId, limits: Limits, seed: [u8; 32]) -> Self {
        Self {
            own,
            limits,
            rng: ChaCha8Rng::from_seed(seed),
            contacts: BTreeMap::new(),
            search_refusals: 0,
            search_at: Moment::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A peer is known, and may be dialled or not. Said again when that changes.
    pub fn handle_known(&mut self, now: Now, peer: PeerIx, node: NodeId, eligible: Eligible) {
        if node == self.own {
            return;
        }
        let drawn = self.rng.next_u64();
        let contact = self
            .contacts
            .entry(peer)
            .or_insert_with(|| Contact::new(node, drawn));
        if contact.eligible != eligible {
            contact.eligible = eligible;
            self.plan(now.at);
        }
    }

    /// A peer was revoked or forgotten. Its session, if any, is the caller's to close.
    pub fn handle_unknown(&mut self, now: Now, peer: PeerIx) {
        if let Some(contact) = self.contacts.remove(&peer) {
            self.clear_timers(peer);
            if contact.is_linked() {
                self.outputs.push_back(Output::Unlinked(peer));
            }
            self.plan(now.at);
        }
    }

    /// A session stands and the peer's Hello has come in it. Said again when a new session took the place of the old
    /// one: the link of the old one ended with it. A peer that was never told to be known is ignored.
    pub fn handle_open(&mut self, now: Now, peer: PeerIx, opener: Opener) {
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        if contact.is_linked() {
            self.outputs.push_back(Output::Unlinked(peer));
        }
        contact.session = Some(Session::new(now.at, opener));
        contact.is_dialling = false;
        contact.failures = 0;
        self.clear_timers(peer);
        self.timers
            .set((peer, Wake::Idle), now.at.after(self.limits.idle_close));
        self.make_room(now.at, peer);
        self.plan(now.at);
    }

    /// A session ended, by Bye or Down (not one that [`Output::Close`] ended).
    pub fn handle_closed(&mut self, now: Now, peer: PeerIx) {
        self.forget_session(now.at, peer);
        self.plan(now.at);
    }

    /// The attempt asked for by [`Output::Dial`] failed.
    pub fn handle_dial_failed(&mut self, now: Now, peer: PeerIx) {
        let factor = self.drawn_percent();
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        if !contact.is_dialling {
            return;
        }
        contact.is_dialling = false;
        contact.failures = contact.failures.saturating_add(1);
        let wait = doubled(REDIAL_FIRST, contact.failures) * factor / 100;
        contact.redial_at = now.at.after(wait);
        self.timers.clear(&(peer, Wake::Stuck));
        self.plan(now.at);
    }

    /// The peer, or this machine, has a new address: what failed before may work now.
    pub fn handle_address_changed(&mut self, now: Now, peer: PeerIx) {
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        contact.failures = 0;
        contact.redial_at = now.at;
        if self.timers.at(&(peer, Wake::Dial)).is_some() {
            self.timers.set((peer, Wake::Dial), now.at);
        }
        self.plan(now.at);
    }

    /// Link came: an ask, or a yes. A yes that was not asked for is judged as an ask.
    pub fn handle_link(&mut self, now: Now, peer: PeerIx, yes: bool) {
        let Some(session) = self.session(peer) else {
            return;
        };
        let state = session.link;
        if state != LinkState::Linked && !self.has_place_for(now.at, peer) {
            let reason = UnlinkReason::Full;
            self.outputs.push_back(Output::Unlink { peer, reason });
            if state == LinkState::Asked {
                self.leave_alone(peer, now.at.after(REFUSED_FIRST));
                self.unlink(now.at, peer);
            }
            return;
        }
        if !yes || state == LinkState::None {
            self.outputs.push_back(Output::Yes(peer));
        }
        if state != LinkState::Linked {
            self.link(now.at, peer);
        }
    }

    /// Unlink came: the link ended, or the ask was refused. The peer is left alone for a while.
    pub fn handle_unlink(&mut self, now: Now, peer: PeerIx, _reason: u64) {
        let is_ring = self.ring().contains(&peer);
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        if contact.session.is_none() {
            return;
        }
        contact.refusals = contact.refusals.saturating_add(1);
        let first = if is_ring { RING_REFUSED } else { REFUSED_FIRST };
        let until = now.at.after(doubled(first, contact.refusals));
        self.leave_alone(peer, until);
        if !is_ring {
            self.search_later(now.at, peer);
        }
        self.unlink(now.at, peer);
        self.plan(now.at);
    }

    /// The peer gossips in a session that is no link to us: an Unlink of ours was lost, and is said again.
    pub fn handle_stray(&mut self, peer: PeerIx) {
        if self
            .session(peer)
            .is_some_and(|session| session.link == LinkState::None)
        {
            let reason = UnlinkReason::NotWanted;
            self.outputs.push_back(Output::Unlink { peer, reason });
        }
    }

    /// When the session was last heard and last used by a program.
    pub fn handle_heard(&mut self, _now: Now, peer: PeerIx, heard: Moment, user: Moment) {
        let Some(session) = self.session_mut(peer) else {
            return;
        };
        session.user = session.user.max(user);
        if heard > session.heard {
            session.heard = heard;
            session.pings = 0;
            if session.link == LinkState::Linked {
                self.timers
                    .set((peer, Wake::Silence), heard.after(SILENT_AFTER));
            }
        }
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
        while let Some((peer, wake)) = self.timers.pop_due(now.at) {
            match wake {
                Wake::Dial => self.dial(now.at, peer),
                Wake::Stuck => self.handle_dial_failed(now, peer),
                Wake::Ask => self.ask_again(now.at, peer),
                Wake::Forgive | Wake::Search => self.plan(now.at),
                Wake::Silence => self.try_silent(now.at, peer),
                Wake::Idle => self.try_idle(now.at, peer),
            }
        }
    }

    /// The peers this one gossips with.
    pub fn linked(&self) -> impl Iterator<Item = PeerIx> + '_ {
        self.contacts
            .iter()
            .filter(|(_, contact)| contact.is_linked())
            .map(|(peer, _)| *peer)
    }

    /// Whether a session is a gossip link.
    pub fn is_linked(&self, peer: PeerIx) -> bool {
        self.contacts.get(&peer).is_some_and(Contact::is_linked)
    }

    /// Whether a session stands.
    pub fn is_open(&self, peer: PeerIx) -> bool {
        self.session(peer).is_some()
    }

    /// How many sessions stand.
    pub fn open_count(&self) -> usize {
        self.contacts
            .values()
            .filter(|contact| contact.session.is_some())
            .count()
    }

    fn session(&self, peer: PeerIx) -> Option<&Session> {
        self.contacts.get(&peer)?.session.as_ref()
    }

    fn session_mut(&mut self, peer: PeerIx) -> Option<&mut Session> {
        self.contacts.get_mut(&peer)?.session.as_mut()
    }

    /// Compares what is with what is wanted, and plans dials and asks accordingly.
    fn plan(&mut self, now: Moment) {
        let targets = self.targets(now);
        let mut asks = Vec::new();
        for (peer, contact) in &self.contacts {
            let (is_target, key) = (targets.contains(peer), (*peer, Wake::Dial));
            match &contact.session {
                Some(session) if is_target && session.link == LinkState::None => asks.push(*peer),
                Some(_) => {}
                None if !is_target => self.timers.clear(&key),
                None if contact.is_dialling || self.timers.at(&key).is_some() => {}
                None => {
                    let wait = if self.own < contact.node {
                        Duration::ZERO
                    } else {
                        HIGHER_WAITS
                    };
                    let is_first = contact.failures == 0;
                    let earliest = if is_first { now.after(wait) } else { now };
                    self.timers.set(key, earliest.max(contact.redial_at));
                }
            }
        }
        for peer in asks {
            self.ask(now, peer);
        }
    }

    fn dial(&mut self, now: Moment, peer: PeerIx) {
        if let Some(contact) = self.contacts.get_mut(&peer) {
            contact.is_dialling = true;
            self.timers.set((peer, Wake::Stuck), now.after(DIAL_STUCK));
            self.outputs.push_back(Output::Dial(peer));
        }
    }

    /// Asks once more while the link is wanted and nothing came back.
    fn ask_again(&mut self, now: Moment, peer: PeerIx) {
        if self.targets(now).contains(&peer) {
            self.ask(now, peer);
        } else if let Some(session) = self
            .session_mut(peer)
            .filter(|session| session.link == LinkState::Asked)
        {
            session.link = LinkState::None;
        }
    }

    fn ask(&mut self, now: Moment, peer: PeerIx) {
        let Some(session) = self
            .session_mut(peer)
            .filter(|session| session.link != LinkState::Linked)
        else {
            return;
        };
        session.link = LinkState::Asked;
        session.asks = session.asks.saturating_add(1);
        let wait = if session.asks < ASKS_QUICK {
            ASK_AGAIN
        } else {
            ASK_SLOWLY
        };
        self.timers.set((peer, Wake::Ask), now.after(wait));
        self.outputs.push_back(Output::Ask(peer));
    }

    /// The session becomes a link.
    fn link(&mut self, now: Moment, peer: PeerIx) {
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        let Some(session) = contact.session.as_mut() else {
            return;
        };
        session.link = LinkState::Linked;
        session.heard = session.heard.max(now);
        session.pings = 0;
        contact.refusals = 0;
        self.search_refusals = 0;
        self.timers.clear(&(peer, Wake::Ask));
        self.timers.clear(&(peer, Wake::Idle));
        self.timers
            .set((peer, Wake::Silence), now.after(SILENT_AFTER));
        self.outputs.push_back(Output::Linked(peer));
        self.plan(now);
    }

    /// The session is a link no more, and is not asked to become one before the next plan.
    fn unlink(&mut self, now: Moment, peer: PeerIx) {
        let idle = now.after(self.limits.idle_close);
        let Some(session) = self.session_mut(peer) else {
            return;
        };
        let was_linked = session.link == LinkState::Linked;
        session.link = LinkState::None;
        session.asks = 0;
        if was_linked {
            session.since = now;
        }
        self.timers.clear(&(peer, Wake::Ask));
        self.timers.clear(&(peer, Wake::Silence));
        if was_linked {
            self.outputs.push_back(Output::Unlinked(peer));
            self.timers.set((peer, Wake::Idle), idle);
        }
    }

    /// Whether one more link with `peer` fits. A ring neighbour always does: the link that serves least gives way.
    fn has_place_for(&mut self, now: Moment, peer: PeerIx) -> bool {
        let linked = self.linked().count();
        let ring = self.ring();
        if !ring.contains(&peer) {
            let is_awaited =
                |other: &&PeerIx| !self.is_linked(**other) && self.may_ask(now, **other);
            return linked + ring.iter().filter(is_awaited).count() < self.limits.cap;
        }
        if linked < self.limits.cap {
            return true;
        }
        let least = self
            .contacts
            .iter()
            .filter(|(other, contact)| contact.is_linked() && !ring.contains(other))
            .max_by_key(|(_, contact)| contact.drawn)
            .map(|(other, _)| *other);
        let Some(other) = least else {
            return false;
        };
        self.outputs.push_back(Output::Unlink {
            peer: other,
            reason: UnlinkReason::NotWanted,
        });
        self.leave_alone(other, now.after(REFUSED_FIRST));
        self.unlink(now, other);
        true
    }

    /// Where nearly everybody is full, one who seeks a link must not knock at all doors at once, again and again.
    fn search_later(&mut self, now: Moment, refused_by: PeerIx) {
        self.search_refusals = self.search_refusals.saturating_add(1);
        let wait = doubled(SEARCH_FIRST, self.search_refusals) * self.drawn_percent() / 100;
        self.search_at = self.search_at.max(now.after(wait));
        self.timers.set((refused_by, Wake::Search), self.search_at);
    }

    /// The peer is not asked for a link before `until`.
    fn leave_alone(&mut self, peer: PeerIx, until: Moment) {
        if let Some(contact) = self.contacts.get_mut(&peer) {
            contact.refused_until = until;
            self.timers.set((peer, Wake::Forgive), until);
        }
    }

    fn try_silent(&mut self, now: Moment, peer: PeerIx) {
        let Some(session) = self.session_mut(peer) else {
            return;
        };
        if session.pings >= PINGS_MAX {
            self.close(now, peer, CloseReason::Silent);
            return;
        }
        session.pings += 1;
        self.timers
            .set((peer, Wake::Silence), now.after(PING_EVERY));
        self.outputs.push_back(Output::Ping(peer));
    }

    /// Closes the session that was used least recently and is no link, when too many are open.
    fn make_room(&mut self, now: Moment, newcomer: PeerIx) {
        if self.open_count() <= self.limits.open {
            return;
        }
        let least = self
            .contacts
            .iter()
            .filter(|(peer, contact)| **peer != newcomer && !contact.is_linked())
            .filter_map(|(peer, contact)| Some((contact.session.as_ref()?.used(), *peer)))
            .min();
        if let Some((_, peer)) = least {
            self.close(now, peer, CloseReason::Crowded);
        }
    }

    fn close(&mut self, now: Moment, peer: PeerIx, reason: CloseReason) {
        self.forget_session(now, peer);
        self.outputs.push_back(Output::Close { peer, reason });
        self.plan(now);
    }

    fn forget_session(&mut self, now: Moment, peer: PeerIx) {
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        if contact.session.is_none() {
            return;
        }
        let was_linked = contact.is_linked();
        contact.session = None;
        contact.redial_at = now.after(REDIAL_GAP);
        for wake in [Wake::Ask, Wake::Silence, Wake::Idle] {
            self.timers.clear(&(peer, wake));
        }
        if was_linked {
            self.outputs.push_back(Output::Unlinked(peer));
        }
    }

    fn clear_timers(&mut self, peer: PeerIx) {
        for wake in Wake::OF_CONTACT {
            self.timers.clear(&(peer, wake));
        }
    }

    /// 80 to 120.
    fn drawn_percent(&mut self) -> u32 {
        80 + self.rng.next_u32() % 41
    }
}

/// `first` at the first failure, then twice as long with each one more, at most [`REDIAL_MAX`].
fn doubled(first: Duration, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(16);
    first.saturating_mul(factor).min(REDIAL_MAX)
}
