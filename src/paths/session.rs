//! One session as the path agent sees it: its paths, the one that carries its data, and what a Pong changes.

use std::{collections::BTreeMap, time::Duration};

use super::{
    class::Class,
    distress::{Cause, Distress},
    pings::Pings,
    sizes::{Room, Search},
    view::NotTried,
    way::{Rtt, Way},
};
use crate::{addr::Path, time::Moment};

/// Paths of one session (review-distributed S6, rule 2).
pub(super) const WAYS_MAX: usize = 16;

/// How long user data keeps a session in use.
const IN_USE_FOR: Duration = Duration::from_secs(3);

/// Other paths that are kept warm while data flows.
const WARM_MAX: usize = 3;

/// Pings that an endpoint which never answered may leave unanswered before any other of its kind or better is taken.
const DEAF: u32 = 2;

/// So many Pings in a row that the endpoint leaves unanswered while it is asked anyway are no sign any more that its answer
/// is on the way.
const MISSED: u32 = 2;

/// How long after an endpoint that was doubted has answered nothing but user data makes it doubted again.
const CLEARED_FOR: Duration = Duration::from_secs(5);

/// The same for Pings by another path, which are fewer.
const CLEARED_FOR_PINGS: Duration = Duration::from_secs(1);

/// How long after its last Pong another path is taken to work while the endpoint does not: what broke the one may have
/// broken the other. It is Pinged more often meanwhile.
const ALIVE_FOR: Duration = Duration::from_secs(1);

/// Candidates that were not tried and are remembered for people.
const REFUSED_MAX: usize = 8;

/// One session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Where its data goes; none: it waits.
    pub(super) endpoint: Option<Path>,
    /// Its endpoint is a leg that was let rest: whichever path answers next is as good.
    pub(super) rests: bool,
    /// Where it went last, or where its handshake came from.
    pub(super) last: Path,
    /// When it went elsewhere before.
    pub(super) moved: Option<Moment>,
    pub(super) rtt: Option<Rtt>,
    pub(super) ways: BTreeMap<Path, Way>,
    pub(super) pings: Pings,
    pub(super) distress: Option<Distress>,
    pub(super) refused: BTreeMap<Path, NotTried>,
    /// The search for what fits the endpoint.
    pub(super) search: Option<Search>,
    /// What was said to fit it.
    pub(super) room: Option<Room>,
    cleared: Option<Moment>,
    used: Option<Moment>,
    numbers: u64,
}

/// What a Pong of a path means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The endpoint answers.
    Alive,
    /// Data goes there from now on; at once if the gap is zero, else when nothing was sent for so long.
    Move {
        /// How much sooner packets arrive by the new path.
        gap: Duration,
    },
    /// Data goes there too, as long as the endpoint is doubted.
    Mirror,
    /// The endpoint has left Pings unanswered that nobody waited for.
    Doubt,
    /// It is better; more Pongs are wanted.
    Confirm,
    /// It is good to know.
    Noted,
}

impl Session {
    pub(super) fn new(at: Path, rtt: Option<Rtt>) -> Self {
        Self {
            endpoint: Some(at).filter(|path| path.carries_data()),
            rests: false,
            last: at,
            moved: None,
            rtt,
            ways: BTreeMap::new(),
            pings: Pings::default(),
            distress: None,
            refused: BTreeMap::new(),
            search: None,
            room: None,
            cleared: None,
            used: None,
            numbers: 0,
        }
    }

    /// Adds a path, if there is room. One makes room that is not probed and carries no data: that never answered, else that
    /// answered the longest ago.
    pub(super) fn add(&mut self, path: Path, class: Class) -> Option<&mut Way> {
        if !self.ways.contains_key(&path) {
            if self.ways.len() >= WAYS_MAX {
                let spare = self.spare()?;
                self.ways.remove(&spare);
            }
            self.ways.insert(path, Way::new(self.numbers, class));
            self.numbers += 1;
            self.refused.remove(&path);
        }
        self.ways.get_mut(&path)
    }

    fn spare(&self) -> Option<Path> {
        let quiet = self.others().filter(|(_, way)| !way.is_probed());
        let oldest = quiet.min_by_key(|(_, way)| (way.ponged(), way.number));
        oldest.map(|(path, _)| path)
    }

    /// Remembers why a candidate was not tried.
    pub(super) fn refuse(&mut self, path: Path, why: NotTried) {
        if self.refused.len() < REFUSED_MAX && !self.ways.contains_key(&path) {
            self.refused.insert(path, why);
        }
    }

    /// Where data goes, with what is known of it.
    pub(super) fn current(&self) -> Option<(Path, &Way)> {
        let endpoint = self.endpoint?;
        Some((endpoint, self.ways.get(&endpoint)?))
    }

    /// A program's packet went one way or the other.
    pub(super) fn note_used(&mut self, at: Moment) {
        self.used = self.used.max(Some(at).filter(|at| at.0 > 0));
    }

    /// Whether programs talk.
    pub(super) fn is_in_use(&self, now: Moment) -> bool {
        self.used.is_some_and(|at| now.since(at) < IN_USE_FOR)
    }

    /// The endpoint answers: whether what was sent there while it was doubted may be lost.
    pub(super) fn clear(&mut self, now: Moment) -> bool {
        let Some(distress) = self.distress.take() else {
            return false;
        };
        self.cleared = Some(now);
        distress.has_lost()
    }

    /// Whether that the other side talks, or asks, by another path makes the endpoint doubted.
    pub(super) fn may_doubt(&self, now: Moment, cause: Cause) -> bool {
        let quiet_for = if cause == Cause::Asked {
            CLEARED_FOR_PINGS
        } else {
            CLEARED_FOR
        };
        let is_cleared = self.cleared.is_some_and(|at| now.since(at) < quiet_for);
        let is_asked = |way: &Way| way.is_probed() && way.unanswered < MISSED;
        let is_asked = self.current().is_none_or(|(_, way)| is_asked(way));
        self.distress.is_none() && !is_cleared && !is_asked
    }

    /// Whether a path is known to have worked and is no better than where data goes: only a trouble leads there.
    pub(super) fn is_fallback(&self, now: Moment, path: Path) -> bool {
        let Some((endpoint, current)) = self.current() else {
            return false;
        };
        let way = self.ways.get(&path).filter(|way| way.is_known(now));
        endpoint != path && way.is_some_and(|way| rank(way) >= rank(current))
    }

    /// Whether packets go by this path too while the endpoint is doubted.
    pub(super) fn mirrors_to(&self, path: Path) -> bool {
        let current = self.current();
        let is_better = self
            .ways
            .get(&path)
            .is_some_and(|way| current.is_some_and(|(_, current)| rank(way) < rank(current)));
        let distress = self.distress.as_ref();
        distress.is_some_and(|distress| distress.mirrors(is_better))
    }

    /// Judges a path that a Pong has just proven.
    pub(super) fn judge(&mut self, now: Moment, path: Path) -> Judgement {
        let Some(endpoint) = self.endpoint.filter(|_| !self.rests) else {
            return Judgement::Move {
                gap: Duration::ZERO,
            };
        };
        if endpoint == path {
            return Judgement::Alive;
        }
        let mirrors = self.mirrors_to(path);
        let (Some(current), Some(way)) =
            (self.ways.get(&endpoint).cloned(), self.ways.get_mut(&path))
        else {
            return Judgement::Noted;
        };
        if let Some(distress) = &self.distress {
            if distress.moves() {
                return Judgement::Move {
                    gap: Duration::ZERO,
                };
            }
            if mirrors {
                return Judgement::Mirror;
            }
        }
        if self.distress.is_none() && current.is_proven() && current.unanswered > DEAF {
            return Judgement::Doubt;
        }
        if way.class > current.class {
            return Judgement::Noted;
        }
        if !current.is_proven() && current.unanswered >= DEAF {
            return Judgement::Move {
                gap: Duration::ZERO,
            };
        }
        if way.barred_until(now).is_some() {
            return Judgement::Noted;
        }
        let gap = head_start(&current, way);
        if way.class == current.class {
            return match way.outruns(now, &current) {
                true => Judgement::Move { gap },
                false => Judgement::Noted,
            };
        }
        match way.is_confirmed(now) {
            true => Judgement::Move { gap },
            false => Judgement::Confirm,
        }
    }

    /// The best other path that has answered since the endpoint was doubted, and a moment ago.
    pub(super) fn rescue(&self, now: Moment) -> Option<Path> {
        let begun = self.distress.as_ref()?.begun;
        let is_alive = |way: &Way| {
            let ponged = way.ponged();
            ponged.is_some_and(|at| at >= begun && now.since(at) < ALIVE_FOR)
        };
        let others = self.others();
        let alive = others.filter(|(_, way)| is_alive(way));
        alive.min_by_key(|(_, way)| rank(way)).map(|(path, _)| path)
    }

    /// Paths to be kept warm while data flows, the best first: what answered before and is not where data goes.
    pub(super) fn warm(&self, now: Moment) -> Vec<Path> {
        let is_wanted = |way: &Way| way.is_known(now) && !way.is_probed();
        let mut warm: Vec<(Path, &Way)> = self.others().filter(|(_, way)| is_wanted(way)).collect();
        warm.sort_by_key(|(_, way)| rank(way));
        warm.into_iter()
            .map(|(path, _)| path)
            .take(WARM_MAX)
            .collect()
    }

    /// How many paths are under proof that never answered.
    pub(super) fn unproven(&self) -> usize {
        let under_proof = |way: &Way| way.is_probed() && !way.is_proven();
        self.others().filter(|(_, way)| under_proof(way)).count()
    }

    /// When the next bar of a path ends.
    pub(super) fn bar_ends(&self, now: Moment) -> Option<Moment> {
        self.others()
            .filter_map(|(_, way)| way.barred_until(now))
            .min()
    }

    /// All paths but the endpoint.
    pub(super) fn others(&self) -> impl Iterator<Item = (Path, &Way)> {
        let endpoint = self.endpoint;
        self.ways
            .iter()
            .map(|(path, way)| (*path, way))
            .filter(move |(path, _)| Some(*path) != endpoint)
    }
}

/// The order of paths: by class, then by the time they take.
fn rank(way: &Way) -> (Class, Duration) {
    let rtt = way.rtt.map_or(Duration::MAX, |rtt| rtt.smoothed);
    (way.class, rtt)
}

/// How much sooner a packet arrives by the new path than one sent before it by the old.
fn head_start(old: &Way, new: &Way) -> Duration {
    match (old.rtt, new.rtt) {
        (Some(old), Some(new)) => old.smoothed.saturating_sub(new.smoothed) / 2,
        _ => Duration::ZERO,
    }
}
