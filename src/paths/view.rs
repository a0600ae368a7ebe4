//! What a person may ask about the paths to a peer: where its data goes and why, and what came of every other try.

use std::time::Duration;

use super::{class::Class, distress::Cause, session::Session, way::Way};
use crate::{addr::Path, time::Moment};

/// The paths of one session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathsView {
    /// Where its data goes; none: it waits for a path.
    pub endpoint: Option<Path>,
    /// When it went elsewhere before; none: it never did.
    pub moved: Option<Moment>,
    /// Why the endpoint is doubted, if it is, and since when.
    pub doubted: Option<(Cause, Moment)>,
    /// Every path that was tried, the best first.
    pub tried: Vec<TriedView>,
    /// Every candidate that was not, and why.
    pub not_tried: Vec<(Path, NotTried)>,
}

/// One path that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedView {
    /// Which.
    pub path: Path,
    /// What kind it is.
    pub class: Class,
    /// How it stands.
    pub state: TriedState,
    /// Pings sent in all.
    pub sent: u32,
    /// Of them answered.
    pub answered: u32,
    /// When the last answer came.
    pub last_answer: Option<Moment>,
    /// How long a round trip takes.
    pub rtt: Option<Duration>,
}

/// How a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriedState {
    /// Data goes there.
    Chosen,
    /// Pings are going out.
    Trying,
    /// It answered a moment ago, and another is better.
    Spare,
    /// It answered before; it was not asked since.
    Resting,
    /// It failed while data went there, and is not chosen before this.
    Barred(Moment),
    /// Its last Pings were not answered.
    Silent,
    /// Pings to it are held back until then: it had its share of unanswered ones.
    HeldBack(Moment),
}

/// Why a candidate was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTried {
    /// Nobody whom we believe has seen the peer there.
    Unattested,
    /// The session has as many paths as it may have.
    Many,
}

impl Session {
    /// What a person may see.
    pub(super) fn view(&self, now: Moment) -> PathsView {
        let mut tried: Vec<TriedView> = self
            .ways
            .iter()
            .map(|(path, way)| TriedView {
                path: *path,
                class: way.class,
                state: self.state_of(now, *path, way),
                sent: way.sent,
                answered: way.answered,
                last_answer: way.ponged(),
                rtt: way.rtt.map(|rtt| rtt.smoothed),
            })
            .collect();
        tried.sort_by_key(|tried| (tried.class, tried.path));
        PathsView {
            endpoint: self.endpoint,
            moved: self.moved,
            doubted: self
                .distress
                .as_ref()
                .map(|distress| (distress.cause, distress.begun)),
            tried,
            not_tried: self
                .refused
                .iter()
                .map(|(path, why)| (*path, *why))
                .collect(),
        }
    }

    fn state_of(&self, now: Moment, path: Path, way: &Way) -> TriedState {
        if self.endpoint == Some(path) {
            return TriedState::Chosen;
        }
        if let Some(until) = way.barred_until(now) {
            return TriedState::Barred(until);
        }
        if let Some(until) = way.held_back.filter(|until| now < *until) {
            return TriedState::HeldBack(until);
        }
        if way.is_probed() {
            return TriedState::Trying;
        }
        match (way.unanswered, way.is_fresh(now)) {
            (1.., false) => TriedState::Silent,
            (_, true) => TriedState::Spare,
            (0, false) => TriedState::Resting,
        }
    }
}
