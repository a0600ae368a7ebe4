//! The attempts to open a session: when to dial, when to tell a program that nobody is there, when to give up
//! (protocol §2, design §9).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::Underlay,
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
        to: Vec<Underlay>,
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
    negative: BTreeMap<PeerIx, Negative>,
    timers: Timers<(PeerIx, Step)>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug)]
struct Attempt {
    begun: Moment,
    candidates: Vec<Underlay>,
    tries: usize,
    is_link: bool,
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
            negative: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A session with `peer` is wanted. Joins the attempt that is under way; otherwise starts one, unless a program
    /// asks for a peer that was unreachable just now: that is answered at once.
    pub fn start(&mut self, now: Now, peer: PeerIx, purpose: Purpose, candidates: &[Underlay]) {
        if purpose == Purpose::Wanted
            && let Some(negative) = self.negative.get(&peer)
            && negative.until > now.at
        {
            let until = negative.until;
            self.outputs.push_back(Output::Unreachable { peer, until });
            return;
        }
        match self.under_way.get(&peer) {
            None => self.begin(now, peer),
            Some(attempt)
                if purpose == Purpose::Wanted && now.at.since(attempt.begun) > STALE_AFTER =>
            {
                self.begin_again(now, peer);
            }
            Some(_) => {}
        }
        match purpose {
            Purpose::Wanted => {
                let at = now.at.after(UNREACHABLE_AFTER);
                self.timers.set_earlier((peer, Step::Unreachable), at);
            }
            Purpose::Link => {
                if let Some(attempt) = self.under_way.get_mut(&peer) {
                    attempt.is_link = true;
                }
            }
        }
        self.handle_candidates(peer, candidates);
        self.plan_try(now, peer);
    }

    /// Addresses that became known: new ones are dialled at once if an attempt is under way.
    pub fn handle_candidates(&mut self, peer: PeerIx, candidates: &[Underlay]) {
        let Some(attempt) = self.under_way.get_mut(&peer) else {
            return;
        };
        let mut fresh = Vec::new();
        for address in candidates.iter().copied() {
            if attempt.candidates.len() < CANDIDATES_MAX && !attempt.candidates.contains(&address) {
                attempt.candidates.push(address);
                fresh.push(address);
            }
        }
        if !fresh.is_empty() {
            self.outputs.push_back(Output::Dial { peer, to: fresh });
        }
    }

    /// A session stands.
    pub fn handle_up(&mut self, peer: PeerIx) {
        self.negative.remove(&peer);
        self.end(peer);
    }

    /// The peer may not be dialled any more: its attempt ends without a word.
    pub fn cancel(&mut self, peer: PeerIx) {
        self.end(peer);
    }

    /// Whether an attempt to reach `peer` is under way.
    pub fn is_under_way(&self, peer: PeerIx) -> bool {
        self.under_way.contains_key(&peer)
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
                Step::End => {
                    self.end(peer);
                    self.outputs.push_back(Output::Failed { peer });
                }
            }
        }
    }

    fn begin(&mut self, now: Now, peer: PeerIx) {
        let attempt = Attempt {
            begun: now.at,
            candidates: Vec::new(),
            tries: 1,
            is_link: false,
        };
        self.under_way.insert(peer, attempt);
        self.timers
            .set((peer, Step::End), now.at.after(FAILED_AFTER));
    }

    /// Dials everything from the start: the tries still to come of an old attempt would be too few for a program that
    /// asks now.
    fn begin_again(&mut self, now: Now, peer: PeerIx) {
        self.timers.clear(&(peer, Step::Try));
        self.timers
            .set((peer, Step::End), now.at.after(FAILED_AFTER));
        if let Some(attempt) = self.under_way.get_mut(&peer) {
            attempt.begun = now.at;
            attempt.tries = 0;
        }
        self.try_again(peer);
    }

    fn end(&mut self, peer: PeerIx) {
        self.under_way.remove(&peer);
        for step in [Step::Try, Step::Unreachable, Step::End] {
            self.timers.clear(&(peer, step));
        }
    }

    fn try_again(&mut self, peer: PeerIx) {
        if let Some(attempt) = self.under_way.get_mut(&peer) {
            attempt.tries += 1;
            if !attempt.candidates.is_empty() {
                let to = attempt.candidates.clone();
                self.outputs.push_back(Output::Dial { peer, to });
            }
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
        if attempt.tries >= tries || self.timers.at(&(peer, Step::Try)).is_some() {
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

/// `micros` ± [`SPREAD_PERCENT`].
fn spread(rng: &mut ChaCha8Rng, micros: u64) -> Duration {
    let width = micros * 2 * SPREAD_PERCENT / 100;
    let low = micros - micros * SPREAD_PERCENT / 100;
    Duration::from_micros(low + rng.next_u64() % (width + 1))
}
