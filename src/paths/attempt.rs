//! The attempts to open a session: when to dial, through whom to call, when to tell a program that nobody is there, when
//! to give up (protocol §2, design §9).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::Path,
    ids::PeerIx,
    time::{Moment, Now, Timers},
};

/// When an attempt dials, after its start, ± [`SPREAD_PERCENT`] (protocol §2); the last only for links.
const TRIES_MS: [u64; 5] = [0, 300, 800, 1800, 3800];

/// How far the tries of two peers are drawn apart, so that two that dial each other do not stay in step.
const SPREAD_PERCENT: u64 = 20;

/// When a program that waits is told that nobody is there (design §9).
const UNREACHABLE_AFTER: Duration = Duration::from_secs(3);

/// When an attempt ends (design §9).
const FAILED_AFTER: Duration = Duration::from_secs(5);

/// The first time for which packets to an unreachable peer are answered at once; doubles (design §9).
const NEGATIVE_FIRST: Duration = Duration::from_secs(2);

/// The longest such time (design §9); also how long after it the doubling is forgotten.
const NEGATIVE_MAX: Duration = Duration::from_mins(1);

/// How old an attempt may be for a program to be content with the tries it has left.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Addresses dialled in one attempt: 4 published, a working one, a LAN one, and what comes in the middle. Bounds what
/// a hostile record can make us send.
const CANDIDATES_MAX: usize = 12;

/// Others that one try calls through for the first time, and at the most (design §9).
const FRESH_CALLS: usize = 4;

/// See [`FRESH_CALLS`].
const CALLS_MAX: usize = 12;

/// Through which try own links are asked too, all at once, and to ask theirs (design §9).
const LINKS_TRY: usize = 3;

/// How many third peers that others named are called through in one attempt; of each who names some, [`LOCATED_OF_ONE`].
const LOCATED_MAX: usize = 9;

/// See [`LOCATED_MAX`]: one that lies must not keep out what others say.
const LOCATED_OF_ONE: usize = 3;

/// How many attempts may be under way for the sake of others.
const ERRANDS_MAX: usize = 12;

/// How many of the first homes count where all say that they do not know the peer (review-distributed F3).
const FIRST_HOMES: usize = 3;

/// How many of them must say so.
const ABSENT_AT: usize = 2;

/// When an attempt ends whose peer no home knows: an address that answers is heard by then.
const ABSENT_AFTER: Duration = Duration::from_millis(900);

/// How long a session that stands by hand alone may take to find a path.
const PATHLESS_FOR: Duration = Duration::from_secs(5);

/// How a peer may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Where to dial.
    pub paths: Vec<Path>,
    /// Its homes, in their order: through whom to call it.
    pub homes: Vec<PeerIx>,
    /// Other peers with a session: asked last, or where homes are few.
    pub links: Vec<PeerIx>,
    /// Whether it keeps sessions with its homes, so that it is not there when they do not know it.
    pub is_at_homes: bool,
}

impl From<&[Path]> for Ways {
    fn from(paths: &[Path]) -> Self {
        Self {
            paths: paths.to_vec(),
            ..Self::default()
        }
    }
}

impl<const N: usize> From<&[Path; N]> for Ways {
    fn from(paths: &[Path; N]) -> Self {
        Self::from(&paths[..])
    }
}

/// Why a session is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A packet of a program waits.
    Wanted,
    /// A gossip link, or a peer met before a restart.
    Link,
}

/// What an attempt asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Knock and initiate at each of these addresses; never empty.
    Dial {
        /// Whom.
        peer: PeerIx,
        /// Where to.
        to: Vec<Path>,
    },
    /// Knock and initiate at each of these addresses and by the hand of each of these peers, all with one initiation.
    Call {
        /// Whom.
        peer: PeerIx,
        /// Where to; may be empty.
        to: Vec<Path>,
        /// Through whom; never empty.
        through: Vec<PeerIx>,
    },
    /// Answer the packets that wait, and those that come until then.
    Unreachable {
        /// Whom.
        peer: PeerIx,
        /// Until when.
        until: Moment,
    },
    /// The attempt is over without a session: the state made for it may go.
    Failed {
        /// Whom.
        peer: PeerIx,
    },
}

/// All attempts under way, and whom it is too early to try again for a program.
#[derive(Clone, Debug)]
pub struct Attempts {
    rng: ChaCha8Rng,
    under_way: BTreeMap<PeerIx, Attempt>,
    /// Those of them that were begun to call others through these peers, who were named for it.
    errands: BTreeSet<PeerIx>,
    negative: BTreeMap<PeerIx, Negative>,
    timers: Timers<(PeerIx, Step)>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug)]
struct Attempt {
    begun: Moment,
    candidates: Vec<Path>,
    calls: Calls,
    tries: usize,
    is_link: bool,
    /// A program waits for it, or did.
    is_wanted: bool,
    /// The session stands by hand: what is missing is a path.
    is_met: bool,
}

/// Through whom a peer is called.
#[derive(Clone, Debug, Default)]
struct Calls {
    /// Its homes, then others.
    line: Vec<PeerIx>,
    /// How many of the line are homes.
    homes: usize,
    is_at_homes: bool,
    /// How many of the line were asked.
    asked: usize,
    /// Who said that it does not know the peer.
    absent: BTreeSet<PeerIx>,
    /// Who has named whom of the line.
    located: Vec<(PeerIx, PeerIx)>,
}

#[derive(Clone, Copy, Debug)]
struct Negative {
    until: Moment,
    lasted: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Try,
    Unreachable,
    End,
}

impl Attempts {
    /// No attempt under way.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            under_way: BTreeMap::new(),
            errands: BTreeSet::new(),
            negative: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A session with `peer` is wanted. Joins the attempt that is under way; otherwise starts one, unless a program
    /// asks for a peer that was unreachable just now: that is answered at once.
    pub fn start(&mut self, now: Now, peer: PeerIx, purpose: Purpose, ways: impl Into<Ways>) {
        let ways = ways.into();
        if purpose == Purpose::Wanted && self.is_told_at_once(now, peer) {
            return;
        }
        // What was begun for the sake of another calls through one alone.
        let was_errand = purpose == Purpose::Wanted && self.errands.remove(&peer);
        match self.under_way.get(&peer) {
            None => self.begin(now, peer, &ways),
            Some(attempt)
                if purpose == Purpose::Wanted
                    && !attempt.is_met
                    && (was_errand || now.at.since(attempt.begun) > STALE_AFTER) =>
            {
                self.begin_again(now, peer, &ways);
            }
            Some(_) => self.handle_candidates(peer, &ways.paths),
        }
        match purpose {
            Purpose::Wanted => self.note_wanted(now, peer),
            Purpose::Link => {
                if let Some(attempt) = self.under_way.get_mut(&peer) {
                    attempt.is_link = true;
                }
            }
        }
        self.plan_try(now, peer);
    }

    /// A program waits though a session stands: by hand alone, and perhaps at the other side's wish. Nothing is dialled, but
    /// the program is told in time, and the session ends if no path is found.
    pub fn handle_pathless(&mut self, now: Now, peer: PeerIx) {
        if self.is_told_at_once(now, peer) {
            return;
        }
        self.errands.remove(&peer);
        let attempt = self
            .under_way
            .entry(peer)
            .or_insert_with(|| Attempt::new(now, &Ways::default()));
        if !attempt.is_met {
            self.handle_met(now, peer);
        }
        self.note_wanted(now, peer);
    }

    /// Addresses that became known: new ones are dialled at once if an attempt is under way.
    pub fn handle_candidates(&mut self, peer: PeerIx, candidates: &[Path]) {
        let Some(attempt) = self.under_way.get_mut(&peer) else {
            return;
        };
        let fresh = attempt.learn(candidates);
        if !fresh.is_empty() && !attempt.is_met {
            self.outputs.push_back(Output::Dial { peer, to: fresh });
        }
    }

    /// A leg is bound: it is dialled if an attempt is under way, also where it was before, since the other end may have
    /// been missing then.
    pub fn handle_bound(&mut self, peer: PeerIx, leg: Path) {
        let Some(attempt) = self.under_way.get_mut(&peer) else {
            return;
        };
        attempt.learn(&[leg]);
        if !attempt.is_met {
            let to = vec![leg];
            self.outputs.push_back(Output::Dial { peer, to });
        }
    }

    /// A session with a third peer stands from now on: who is called through it is called now.
    pub fn handle_open(&mut self, third: PeerIx) {
        for (peer, attempt) in &self.under_way {
            if !attempt.is_met && attempt.calls.is_asked(third) {
                self.outputs.push_back(Output::Call {
                    peer: *peer,
                    to: Vec::new(),
                    through: vec![third],
                });
            }
        }
    }

    /// A third peer says that it has no session with `peer`. Where its first homes say so it is not there, and the
    /// attempt ends soon.
    pub fn handle_not_here(&mut self, now: Now, peer: PeerIx, third: PeerIx) {
        let Some(attempt) = self.under_way.get_mut(&peer) else {
            return;
        };
        attempt.calls.absent.insert(third);
        // Who is asked who else could says no as well, just before it asks.
        if attempt.asks_beyond() || attempt.is_met || !attempt.calls.is_absent() {
            return;
        }
        let at = attempt.begun.after(ABSENT_AFTER).max(now.at);
        if self.timers.at(&(peer, Step::Unreachable)).is_some() {
            self.timers.set_earlier((peer, Step::Unreachable), at);
            self.timers.set_earlier((peer, Step::End), at);
        }
    }

    /// A third peer has a session with `peer`, as one says `by` whom `peer` was called. Whether `peer` is called through that
    /// third now: it is, if that was asked and not too many were named.
    pub fn handle_located(&mut self, peer: PeerIx, by: PeerIx, third: PeerIx) -> bool {
        self.asks_beyond(peer) && self.call_through(peer, by, third)
    }

    /// Whether a session with `third` may be sought to call another through it.
    pub fn may_run_errand(&self, third: PeerIx) -> bool {
        self.is_under_way(third) || self.errands.len() < ERRANDS_MAX
    }

    /// A session with `third` is wanted to call another through it; who has named it, `by`, can hand on to it. Nobody is
    /// asked who else has a session with `third`.
    pub fn start_errand(&mut self, now: Now, third: PeerIx, by: PeerIx, paths: Vec<Path>) {
        if self.is_under_way(third) {
            self.call_through(third, by, by);
            return;
        }
        if !self.may_run_errand(third) {
            return;
        }
        let ways = Ways {
            paths,
            homes: vec![by],
            ..Ways::default()
        };
        self.errands.insert(third);
        self.start(now, third, Purpose::Link, ways);
    }

    fn call_through(&mut self, peer: PeerIx, by: PeerIx, third: PeerIx) -> bool {
        let attempt = self.under_way.get_mut(&peer);
        let is_taken = attempt
            .filter(|attempt| !attempt.is_met)
            .is_some_and(|attempt| attempt.calls.insert(by, third));
        if is_taken {
            self.outputs.push_back(Output::Call {
                peer,
                to: Vec::new(),
                through: vec![third],
            });
        }
        is_taken
    }

    /// The session stands by hand: no more tries, but it is of no use before a path is found.
    pub fn handle_met(&mut self, now: Now, peer: PeerIx) {
        if let Some(attempt) = self.under_way.get_mut(&peer) {
            attempt.is_met = true;
            self.timers.clear(&(peer, Step::Try));
            self.timers
                .set((peer, Step::End), now.at.after(PATHLESS_FOR));
        }
    }

    /// A session stands.
    pub fn handle_up(&mut self, peer: PeerIx) {
        self.negative.remove(&peer);
        self.end(peer);
    }

    /// The session that stood by hand ended before a path was found.
    pub fn handle_gone(&mut self, now: Now, peer: PeerIx) {
        match self.under_way.get(&peer) {
            // The other side had opened it: nothing was tried from here yet.
            Some(attempt) if attempt.is_met && attempt.tries == 0 => self.end(peer),
            Some(attempt) if attempt.is_met => self.fail(now, peer),
            Some(_) | None => {}
        }
    }

    /// The peer may not be dialled any more: its attempt ends without a word.
    pub fn cancel(&mut self, peer: PeerIx) {
        self.end(peer);
    }

    /// Whether an attempt to reach `peer` is under way.
    pub fn is_under_way(&self, peer: PeerIx) -> bool {
        self.under_way.contains_key(&peer)
    }

    /// Whether third peers that have no session with `peer` are to ask who has one: a program waits, and its homes did not
    /// help. For a link nobody is troubled.
    pub fn asks_beyond(&self, peer: PeerIx) -> bool {
        let attempt = self.under_way.get(&peer);
        attempt.is_some_and(Attempt::asks_beyond)
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
        while let Some((peer, step)) = self.timers.pop_due(now.at) {
            match step {
                Step::Try => {
                    self.try_again(peer);
                    self.plan_try(now, peer);
                }
                Step::Unreachable => self.tell_unreachable(now, peer),
                Step::End => self.fail(now, peer),
            }
        }
    }

    /// Whether the peer was unreachable just now: a program that asks is told so again.
    fn is_told_at_once(&mut self, now: Now, peer: PeerIx) -> bool {
        let negative = self.negative.get(&peer).map(|negative| negative.until);
        let Some(until) = negative.filter(|until| *until > now.at) else {
            return false;
        };
        self.outputs.push_back(Output::Unreachable { peer, until });
        true
    }

    fn note_wanted(&mut self, now: Now, peer: PeerIx) {
        let at = now.at.after(UNREACHABLE_AFTER);
        self.timers.set_earlier((peer, Step::Unreachable), at);
        if let Some(attempt) = self.under_way.get_mut(&peer) {
            attempt.is_wanted = true;
        }
    }

    fn begin(&mut self, now: Now, peer: PeerIx, ways: &Ways) {
        self.under_way.insert(peer, Attempt::new(now, ways));
        self.timers
            .set((peer, Step::End), now.at.after(FAILED_AFTER));
        self.try_again(peer);
    }

    /// Dials everything from the start: the tries still to come of an old attempt would be too few for a program that
    /// asks now.
    fn begin_again(&mut self, now: Now, peer: PeerIx, ways: &Ways) {
        self.timers.clear(&(peer, Step::Try));
        self.timers
            .set((peer, Step::End), now.at.after(FAILED_AFTER));
        if let Some(attempt) = self.under_way.get_mut(&peer) {
            attempt.begun = now.at;
            attempt.tries = 0;
            attempt.calls = Calls::new(ways);
            attempt.learn(&ways.paths);
        }
        self.try_again(peer);
    }

    /// An attempt is over. A program that joined it late waits still, and is told now.
    fn fail(&mut self, now: Now, peer: PeerIx) {
        if self.timers.at(&(peer, Step::Unreachable)).is_some() {
            self.tell_unreachable(now, peer);
        }
        self.end(peer);
        self.outputs.push_back(Output::Failed { peer });
    }

    fn end(&mut self, peer: PeerIx) {
        self.under_way.remove(&peer);
        self.errands.remove(&peer);
        for step in [Step::Try, Step::Unreachable, Step::End] {
            self.timers.clear(&(peer, step));
        }
    }

    fn try_again(&mut self, peer: PeerIx) {
        let Some(attempt) = self.under_way.get_mut(&peer) else {
            return;
        };
        let through = attempt.calls.next(attempt.tries);
        attempt.tries += 1;
        let to = attempt.candidates.clone();
        if !through.is_empty() {
            self.outputs.push_back(Output::Call { peer, to, through });
        } else if !to.is_empty() {
            self.outputs.push_back(Output::Dial { peer, to });
        }
    }

    fn plan_try(&mut self, now: Now, peer: PeerIx) {
        let Some(attempt) = self.under_way.get(&peer) else {
            return;
        };
        let tries = if attempt.is_link {
            TRIES_MS.len()
        } else {
            TRIES_MS.len() - 1
        };
        if attempt.is_met || attempt.tries >= tries || self.timers.at(&(peer, Step::Try)).is_some()
        {
            return;
        }
        let wait = spread(&mut self.rng, TRIES_MS[attempt.tries] * 1000);
        let at = attempt.begun.after(wait).max(now.at);
        self.timers.set((peer, Step::Try), at);
    }

    fn tell_unreachable(&mut self, now: Now, peer: PeerIx) {
        let lasted = match self.negative.get(&peer) {
            Some(last) if now.at.since(last.until) < NEGATIVE_MAX => {
                (last.lasted * 2).min(NEGATIVE_MAX)
            }
            Some(_) | None => NEGATIVE_FIRST,
        };
        let until = now.at.after(lasted);
        self.negative.insert(peer, Negative { until, lasted });
        self.outputs.push_back(Output::Unreachable { peer, until });
    }
}

impl Attempt {
    fn new(now: Now, ways: &Ways) -> Self {
        let mut attempt = Self {
            begun: now.at,
            candidates: Vec::new(),
            calls: Calls::new(ways),
            tries: 0,
            is_link: false,
            is_wanted: false,
            is_met: false,
        };
        attempt.learn(&ways.paths);
        attempt
    }

    fn asks_beyond(&self) -> bool {
        self.is_wanted && self.tries > LINKS_TRY && !self.is_met
    }

    /// Takes in addresses; gives those that are new.
    fn learn(&mut self, candidates: &[Path]) -> Vec<Path> {
        let mut fresh = Vec::new();
        for address in candidates.iter().copied() {
            if self.candidates.len() < CANDIDATES_MAX && !self.candidates.contains(&address) {
                self.candidates.push(address);
                fresh.push(address);
            }
        }
        fresh
    }
}

impl Calls {
    fn new(ways: &Ways) -> Self {
        let mut line = Vec::new();
        for third in ways.homes.iter().chain(&ways.links) {
            if !line.contains(third) {
                line.push(*third);
            }
        }
        Self {
            line,
            homes: ways.homes.len(),
            is_at_homes: ways.is_at_homes,
            asked: 0,
            absent: BTreeSet::new(),
            located: Vec::new(),
        }
    }

    /// One that can be called through, as somebody says. False: it was named before, or too many were. One that is asked anyway and says
    /// nothing counts too: with a home that cannot be reached no session stands, and who has named it can help to make one.
    fn insert(&mut self, by: PeerIx, third: PeerIx) -> bool {
        let is_named = self.located.iter().any(|(_, named)| *named == third);
        let of_one = self.located.iter().filter(|(other, _)| *other == by);
        if is_named || of_one.count() >= LOCATED_OF_ONE || self.located.len() >= LOCATED_MAX {
            return false;
        }
        self.located.push((by, third));
        self.absent.remove(&third);
        let place = self.line.iter().position(|other| *other == third);
        if place.is_none_or(|place| place >= self.asked) {
            if let Some(place) = place {
                self.line.remove(place);
                self.homes -= usize::from(place < self.homes);
            }
            self.line.insert(self.asked, third);
            self.homes += usize::from(self.asked < self.homes);
            self.asked += 1;
        }
        true
    }

    /// Through whom a try calls: those not asked yet, then those who said nothing. Where those not asked are links, which may
    /// ask theirs, those that said no may as well: a session with them stands.
    fn next(&mut self, tries: usize) -> Vec<PeerIx> {
        let before = self.asked;
        let asks_beyond = tries == LINKS_TRY;
        self.asked = match asks_beyond {
            true => before.max(self.homes) + CALLS_MAX,
            false => before + FRESH_CALLS,
        }
        .min(self.line.len());
        let from = match asks_beyond {
            true => before.max(self.homes).min(self.asked),
            false => before,
        };
        let fresh = self.line[from..self.asked].iter();
        let again = self.line[..before].iter();
        let (absent, silent): (Vec<PeerIx>, Vec<PeerIx>) =
            again.partition(|third| self.absent.contains(third));
        let absent = absent.iter().filter(|_| asks_beyond);
        let all = fresh.chain(absent).chain(&silent);
        all.copied().take(CALLS_MAX).collect()
    }

    fn is_asked(&self, third: PeerIx) -> bool {
        self.line[..self.asked].contains(&third) && !self.absent.contains(&third)
    }

    /// Whether the peer would be known to those that do not know it.
    fn is_absent(&self) -> bool {
        let first = &self.line[..self.homes.min(FIRST_HOMES)];
        let absent = first.iter().filter(|home| self.absent.contains(home));
        self.is_at_homes && !first.is_empty() && absent.count() >= first.len().min(ABSENT_AT)
    }
}

/// `micros` ± [`SPREAD_PERCENT`].
fn spread(rng: &mut ChaCha8Rng, micros: u64) -> Duration {
    let width = micros * 2 * SPREAD_PERCENT / 100;
    let low = micros - micros * SPREAD_PERCENT / 100;
    Duration::from_micros(low + rng.next_u64() % (width + 1))
}
