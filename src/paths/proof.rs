//! The path agent: Pings and Pongs prove where a peer is, and decide by which path its data goes (protocol §5; the rules
//! are review-distributed S6).
//!
//! A path is proven by a Pong that carries the nonce of a Ping sent on it and comes back on it; by nothing else. Nothing
//! is sent for a session that nobody uses.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

pub use super::way::Rtt;
use super::{
    budget::{Budget, Standing},
    class::Class,
    distress::Cause,
    pings::Purpose,
    probing::UPKEEP,
    session::Session,
    sizes::Room,
    view::{NotTried, PathsView},
    way::{CHALLENGE_MS, CONFIRM_MS, ENDPOINT_MS, HUNT_MS, Way},
};
use crate::{
    addr::{Path, Underlay},
    ids::{LegIx, SessionId},
    time::{Moment, Now, Timers},
};

/// The longest packet of a device of which nothing else was said.
const MTU: u16 = 1420;

/// Paths of one session under proof at once because packets came from them. Only authenticated packets open one; a peer
/// with more waits.
const CHALLENGES_MAX: usize = 4;

/// Pings that a path may leave unanswered before user data that comes by it is no reason to ask again.
const UNANSWERED_MAX: u32 = 5;

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a Ping.
    Ping {
        /// In which session.
        session: SessionId,
        /// Where to, if not to the session's endpoint.
        via: Option<Path>,
        /// Comes back in the Pong.
        nonce: [u8; 8],
        /// Our number for the path.
        path: u64,
        /// How long the packet is to be that carries it; none: as short as it is.
        len: Option<u16>,
    },
    /// A Pong has proven this path: the session's data goes there without limit.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Path,
        /// Not before nothing was sent for so long, or 2 s are over: packets by the new path arrive so much sooner.
        gap: Duration,
    },
    /// Send the session's packets by this path too; none: no longer.
    Mirror {
        /// Whose.
        session: SessionId,
        /// By which.
        via: Option<Path>,
    },
    /// No path is known to work: the session's packets wait.
    Withdraw {
        /// Whose.
        session: SessionId,
    },
    /// Packets of the session may be so long from now on.
    SetRoom {
        /// Whose.
        session: SessionId,
        /// By which path.
        endpoint: Path,
        /// How long.
        room: Room,
    },
    /// Others are to be asked for a way: no path that is known answers.
    Seek {
        /// For which session.
        session: SessionId,
    },
    /// No way was found in time; the session is of no use any more.
    Lost {
        /// Which.
        session: SessionId,
    },
    /// A Ping that somebody asked for was not answered in time.
    Unanswered {
        /// In which session.
        session: SessionId,
        /// As asked.
        tag: u64,
    },
}

/// What a Pong means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It proves the path it came by.
    Proven {
        /// Which.
        path: Path,
        /// From Ping to Pong.
        rtt: Duration,
    },
    /// It answers a Ping to wherever the session is: a sign of life, and proof of nothing new.
    Answered {
        /// As asked in [`Proofs::ping`].
        tag: Option<u64>,
        /// From Ping to Pong.
        rtt: Duration,
    },
    /// It carries no nonce under way in this session, or comes from another address than the Ping went to.
    Unknown,
}

/// All sessions and their paths.
#[derive(Clone, Debug)]
pub struct Proofs {
    pub(super) rng: ChaCha8Rng,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) budget: Budget,
    pub(super) mtu: u16,
    pub(super) own: Vec<Underlay>,
    pub(super) legs: BTreeMap<LegIx, Class>,
    pub(super) timers: Timers<(SessionId, Wake)>,
    pub(super) outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// The next Ping on a path is due.
    Way(Path),
    /// The next Ping to a doubted endpoint is due.
    Distress,
    /// Other paths are to be kept warm.
    Upkeep,
    /// What fits the endpoint was asked.
    Size,
    /// Old Pings are given up.
    Expire,
}

impl Proofs {
    /// No session yet. `seed` makes the nonces and is a secret of this run.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            sessions: BTreeMap::new(),
            budget: Budget::default(),
            mtu: MTU,
            own: Vec::new(),
            legs: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A session stands: its endpoint is Pinged until it answers. Said again for the same session, it begins anew.
    pub fn handle_up(&mut self, now: Now, session: SessionId, endpoint: Path) {
        let rtt = self.rtt(session);
        self.handle_down(session);
        self.sessions.insert(session, Session::new(endpoint, rtt));
        if endpoint.carries_data() {
            self.probe(now.at, session, endpoint, ENDPOINT_MS);
        }
    }

    /// Paths by which the other side may be reached became known, or were named again because it tries them now.
    pub fn handle_candidates(&mut self, now: Now, session: SessionId, candidates: &[Path]) {
        for path in candidates {
            let known = self.way(session, *path);
            let is_busy = known.is_some_and(|way| way.is_probed() || way.is_fresh(now.at));
            if !is_busy {
                self.hunt_at(now, session, *path);
            }
        }
    }

    /// The other side looks for a way, and may be reached by these paths: what answered a moment ago may not any more. The
    /// path that data takes is asked too.
    pub fn handle_sought(&mut self, now: Now, session: SessionId, candidates: &[Path]) {
        for path in candidates {
            if !self.way(session, *path).is_some_and(Way::is_probed) {
                self.hunt_at(now, session, *path);
            }
        }
        let standing = self.sessions.get(&session);
        if standing.is_some_and(|standing| standing.may_doubt(now.at, Cause::Asked)) {
            self.doubt(now.at, session, Cause::Asked);
        }
    }

    /// The other side found a better path than ours good again. What barred it here was the same trouble, which is over if
    /// it answers as any better path must.
    fn follow(&mut self, now: Moment, session: SessionId, source: Path) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(class) = standing.current().map(|(_, way)| way.class) else {
            return;
        };
        let Some(way) = standing.ways.get_mut(&source) else {
            return;
        };
        let answers = way.is_proven() && way.unanswered <= UNANSWERED_MAX;
        if way.class < class && answers {
            way.excuse(now);
            if !way.is_probed() {
                self.probe(now, session, source, CONFIRM_MS);
            }
        }
    }

    /// One Ping to where the other side is known to be, since it talks from that machine on a stream: that is no stranger's,
    /// however often UDP was blocked on the way.
    pub fn ask_host(&mut self, now: Now, session: SessionId, path: Path) {
        let class = self.class_of(path);
        let standing = self.sessions.get_mut(&session);
        let Some(way) = standing.and_then(|standing| standing.add(path, class)) else {
            return;
        };
        if !way.is_probed() && self.budget.spend(now.at, path, Standing::Known).is_ok() {
            self.send(now.at, session, Purpose::Proof(path));
        }
    }

    fn way(&self, session: SessionId, path: Path) -> Option<&Way> {
        self.sessions.get(&session)?.ways.get(&path)
    }

    fn hunt_at(&mut self, now: Now, session: SessionId, path: Path) {
        if path.carries_data() && self.sessions.contains_key(&session) {
            self.probe(now.at, session, path, HUNT_MS);
        }
    }

    /// A neighbour says once more that it is at this address. It is tried where nothing is known of it, or where it would be
    /// a better kind of path than the one taken: that something was said proves nothing against that one.
    pub fn handle_beacon(&mut self, now: Now, session: SessionId, path: Path) {
        let class = self.class_of(path);
        let is_better = self.class(session).is_none_or(|current| class < current);
        let standing = self.sessions.get(&session);
        let is_new = standing.is_some_and(|standing| !standing.ways.contains_key(&path));
        if is_new || is_better {
            self.handle_candidates(now, session, &[path]);
        }
    }

    /// Candidates that are not to be tried, for people who ask why.
    pub fn note_not_tried(&mut self, session: SessionId, path: Path, why: NotTried) {
        if let Some(standing) = self.sessions.get_mut(&session) {
            standing.refuse(path, why);
        }
    }

    /// A leg leads through so many relays.
    pub fn note_depth(&mut self, leg: LegIx, relays: usize) {
        let class = if relays > 1 {
            Class::TwoRelays
        } else {
            Class::Relay
        };
        self.legs.insert(leg, class);
    }

    /// The sessions that programs use, then those whose data goes by others or on a stream.
    pub fn in_use_or_far(&self, now: Now) -> Vec<SessionId> {
        let is_far = |way: &Way| way.class > Class::Direct;
        let idle = self.sessions.iter().filter(|(_, standing)| {
            let current = standing.current();
            !standing.is_in_use(now.at) && current.is_some_and(|(_, way)| is_far(way))
        });
        let mut all = self.in_use(now);
        all.extend(idle.map(|(session, _)| *session));
        all
    }

    /// The sessions that programs use.
    pub fn in_use(&self, now: Now) -> Vec<SessionId> {
        let standing = self.sessions.iter();
        standing
            .filter(|(_, standing)| standing.is_in_use(now.at))
            .map(|(session, _)| *session)
            .collect()
    }

    /// A relay leg or a stream is no more: nothing goes there from now on.
    pub fn handle_path_gone(&mut self, now: Now, path: Path) {
        if let Path::Relay(leg) = path {
            self.legs.remove(&leg);
        }
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            let Some(standing) = self.sessions.get_mut(&session) else {
                continue;
            };
            self.timers.clear(&(session, Wake::Way(path)));
            standing.ways.remove(&path);
            if standing.endpoint == Some(path) {
                standing.endpoint = None;
                self.outputs.push_back(Output::Withdraw { session });
                // Nobody waits for a session that is not in use: its next packet asks for a way.
                if standing.is_in_use(now.at) {
                    self.doubt(now.at, session, Cause::Gone);
                }
            }
        }
    }

    /// Whether another path than the one data goes answered in the last 10 min.
    pub fn has_other(&self, now: Now, session: SessionId) -> bool {
        let standing = self.sessions.get(&session);
        standing.is_some_and(|standing| standing.others().any(|(_, way)| way.is_known(now.at)))
    }

    /// A session ended.
    pub fn handle_down(&mut self, session: SessionId) {
        let Some(mut ended) = self.sessions.remove(&session) else {
            return;
        };
        for path in ended.ways.keys() {
            self.timers.clear(&(session, Wake::Way(*path)));
        }
        for wake in [Wake::Distress, Wake::Upkeep, Wake::Size, Wake::Expire] {
            self.timers.clear(&(session, wake));
        }
        for sent in ended.pings.drain() {
            self.tell_unanswered(session, sent);
        }
    }

    /// An authenticated packet came by another path than the one data goes: it is Pinged, at most 3 times. From a path that
    /// is not known the other side has moved, it may be, and the endpoint is asked too.
    pub fn handle_new_path(&mut self, now: Now, session: SessionId, source: Path) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        if standing.endpoint == Some(source) {
            // It is heard again while it is doubted: its Pong need not wait for the next Ping's time.
            return self.ask_endpoint(now.at, session);
        }
        if !source.carries_data() {
            return;
        }
        let known = standing.ways.get(&source);
        let is_busy = known.is_some_and(|way| way.is_probed() || way.is_fresh(now.at));
        let is_proven = known.is_some_and(Way::is_proven);
        let has_room = is_proven || standing.unproven() < CHALLENGES_MAX;
        let cause = match is_proven {
            true => Cause::Asked,
            false => Cause::Doubted,
        };
        let may_doubt = standing.may_doubt(now.at, cause);
        if !is_busy && has_room {
            self.probe(now.at, session, source, CHALLENGE_MS);
            if may_doubt {
                self.doubt(now.at, session, cause);
            }
        }
    }

    /// The other side was found where its port was guessed: an authenticated packet came from there, so that it is
    /// nobody's victim.
    pub fn handle_found(&mut self, now: Now, session: SessionId, source: Path) {
        self.budget.note_answer(now.at, source);
        self.probe(now.at, session, source, CONFIRM_MS);
    }

    /// The other side Pings by this path. Where ours is no worse it may have lost ours: ours is asked, and packets go by both
    /// until it answers. Where ours is doubted already, this one leads there now.
    pub fn handle_pinged(&mut self, now: Now, session: SessionId, source: Path) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        if standing.distress.is_some() {
            return self.ask_again(now.at, session, source);
        }
        let is_sign = standing.is_in_use(now.at)
            && standing.is_fallback(now.at, source)
            && standing.may_doubt(now.at, Cause::Asked);
        if is_sign {
            self.doubt(now.at, session, Cause::Asked);
        }
    }

    /// A relay leg rests: the next packet of a session waits until it, or another path, answers.
    pub fn handle_path_rests(&mut self, path: Path) {
        for standing in self.sessions.values_mut() {
            standing.rests |= standing.endpoint == Some(path);
        }
    }

    /// A path may work again from now on: it is asked where a session looks for one.
    pub fn handle_path_back(&mut self, now: Now, path: Path) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            self.ask_again(now.at, session, path);
        }
    }

    /// User data of the other side came by another path than ours goes: it may have found that ours does not reach it.
    pub fn handle_elsewhere(&mut self, now: Now, session: SessionId, source: Path) {
        self.handle_new_path(now, session, source);
        self.follow(now.at, session, source);
        let standing = self.sessions.get(&session);
        if standing.is_some_and(|standing| standing.may_doubt(now.at, Cause::Doubted)) {
            self.doubt(now.at, session, Cause::Doubted);
        }
    }

    /// Whether a part of a handshake may go to where a third peer claims that somebody is. It is counted if so.
    pub fn spend_letter(&mut self, now: Now, to: Underlay) -> bool {
        self.budget.spend_letter(now.at, to.into())
    }

    /// A Pong came.
    pub fn handle_pong(
        &mut self,
        now: Now,
        session: SessionId,
        nonce: [u8; 8],
        source: Path,
    ) -> Proof {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return Proof::Unknown;
        };
        let Some(sent) = standing.pings.take(nonce, source) else {
            return Proof::Unknown;
        };
        let rtt = now.at.since(sent.at);
        if standing.endpoint == Some(source) || standing.endpoint.is_none() {
            standing.rtt = Some(Rtt::after(standing.rtt, rtt));
        }
        match sent.purpose {
            Purpose::Life(tag) => Proof::Answered { tag, rtt },
            Purpose::Size(path, size) => {
                self.on_sized(now.at, session, (path, size));
                Proof::Proven { path, rtt }
            }
            Purpose::Proof(path) => {
                if let Some(way) = standing.ways.get_mut(&path) {
                    way.note_pong(now.at, rtt);
                    self.budget.note_answer(now.at, path);
                    self.act_on_pong(now.at, session, path);
                }
                Proof::Proven { path, rtt }
            }
        }
    }

    /// User data went out in a session and was not answered, or goes out where nobody was heard for long.
    pub fn handle_unheard(&mut self, now: Now, session: SessionId, cause: Cause) {
        if let Some(standing) = self.sessions.get_mut(&session) {
            standing.note_used(now.at);
            self.doubt(now.at, session, cause);
            if cause == Cause::Choked {
                self.search_all(now.at, session);
            }
        }
    }

    /// Programs last used the session then.
    pub fn handle_used(&mut self, now: Now, session: SessionId, user: Moment) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        standing.note_used(user);
        if standing.is_in_use(now.at) && standing.others().any(|(_, way)| way.is_proven()) {
            let key = (session, Wake::Upkeep);
            if self.timers.at(&key).is_none() {
                self.timers.set(key, now.at.after(UPKEEP));
            }
        }
        if self.is_in_use(now.at, session) {
            self.size_up(now.at, session);
        }
    }

    /// Whether programs talk in a session.
    pub fn is_in_use(&self, now: Moment, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|standing| standing.is_in_use(now))
    }

    /// The addresses of this machine's interfaces are these now; tells whether that is news.
    pub fn handle_addresses(&mut self, now: Now, own: &[Underlay]) -> bool {
        let is_news = self.own != own;
        if is_news {
            self.own = own.to_vec();
            self.handle_moved(now);
        }
        is_news
    }

    /// This machine has other addresses, or was asleep: every path is tried at once, from where it is now, and as if it
    /// had never been tried.
    pub fn handle_moved(&mut self, now: Now) {
        // Without an address nothing goes out: that is no other place yet.
        if !self.own.is_empty() {
            self.budget.note_moved(now.at);
        }
        for way in self
            .sessions
            .values_mut()
            .flat_map(|all| all.ways.values_mut())
        {
            way.lift_bar();
            // What goes out now goes out from here; whoever was heard is asked as it is.
            if !way.is_challenged() {
                way.end();
            }
        }
        let mut all: Vec<SessionId> = self.sessions.keys().copied().collect();
        // What programs use comes first: the budget is for all.
        all.sort_by_key(|session| !self.sessions[session].is_in_use(now.at));
        for session in &all {
            let standing = &self.sessions[session];
            if standing.is_in_use(now.at) && standing.endpoint.is_some() {
                self.doubt(now.at, *session, Cause::Stale);
            } else if let Some(endpoint) = standing.endpoint {
                self.probe(now.at, *session, endpoint, HUNT_MS);
            }
        }
        for session in all {
            self.hunt(now.at, session);
        }
    }

    /// Pings wherever the session is: a person asked, who gets the answer under `tag`, or a silent link is tried.
    pub fn ping(&mut self, now: Now, session: SessionId, tag: Option<u64>) {
        if self.sessions.contains_key(&session) {
            self.send(now.at, session, Purpose::Life(tag));
        } else if let Some(tag) = tag {
            self.outputs.push_back(Output::Unanswered { session, tag });
        }
    }

    /// How long round trips in a session take, once one was measured.
    pub fn rtt(&self, session: SessionId) -> Option<Rtt> {
        self.sessions.get(&session)?.rtt
    }

    /// Where a session's data goes; none while it waits for a path.
    pub fn endpoint(&self, session: SessionId) -> Option<Path> {
        self.sessions.get(&session)?.endpoint
    }

    /// What kind of path a session's data takes.
    pub fn class(&self, session: SessionId) -> Option<Class> {
        Some(self.sessions.get(&session)?.current()?.1.class)
    }

    /// All that is known of a session's paths.
    pub fn view(&self, now: Now, session: SessionId) -> Option<PathsView> {
        Some(self.sessions.get(&session)?.view(now.at))
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
        while let Some((session, wake)) = self.timers.pop_due(now.at) {
            match wake {
                Wake::Way(path) => self.probe_next(now.at, session, path),
                Wake::Distress => self.on_missed(now.at, session),
                Wake::Upkeep => self.keep_warm(now.at, session),
                Wake::Size => self.on_sizes_due(now.at, session),
                Wake::Expire => self.expire(now.at, session),
            }
        }
    }
}
