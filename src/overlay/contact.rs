//! One peer as a candidate for a link, and its session.

use std::time::Duration;

use super::{Eligible, FAILURES_MAX, Opener};
use crate::{ids::NodeId, time::Moment};

/// How long a session that was opened for one question stands when nothing else comes of it.
const BRIEF: Duration = Duration::from_secs(2);

/// A known peer.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    pub(super) node: NodeId,
    /// Its place in our random order.
    pub(super) drawn: u64,
    pub(super) eligible: Eligible,
    /// Dials that failed since the last session.
    pub(super) failures: u32,
    pub(super) is_dialling: bool,
    /// Not dialled before.
    pub(super) redial_at: Moment,
    /// Unlinks it sent since it was last a link.
    pub(super) refusals: u32,
    /// Not asked before.
    pub(super) refused_until: Moment,
    pub(super) session: Option<Session>,
}

/// A session that stands.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// When it began to count as unused: its start, or the end of its link.
    pub(super) since: Moment,
    pub(super) heard: Moment,
    pub(super) user: Moment,
    pub(super) pings: u32,
    pub(super) asks: u32,
    pub(super) link: LinkState,
    /// It was opened for one question and nothing else.
    pub(super) is_brief: bool,
    /// Who opened it; told in `Debug` only.
    #[expect(dead_code, reason = "shown by Debug in traces of the simulator")]
    pub(super) opener: Opener,
}

/// Whether a session is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    None,
    Asked,
    Linked,
}

impl Contact {
    pub(super) fn new(node: NodeId, drawn: u64) -> Self {
        Self {
            node,
            drawn,
            eligible: Eligible::No,
            failures: 0,
            is_dialling: false,
            redial_at: Moment::default(),
            refusals: 0,
            refused_until: Moment::default(),
            session: None,
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.link == LinkState::Linked)
    }

    /// Whether it is in the running for a link at all.
    pub(super) fn is_candidate(&self) -> bool {
        self.eligible == Eligible::Yes || self.session.is_some()
    }

    /// Whether it was dialled in vain too often to be counted on.
    pub(super) fn is_failing(&self) -> bool {
        self.session.is_none() && self.failures >= FAILURES_MAX
    }
}

impl Session {
    pub(super) fn new(now: Moment, opener: Opener) -> Self {
        Self {
            since: now,
            heard: now,
            user: Moment::default(),
            pings: 0,
            asks: 0,
            link: LinkState::None,
            is_brief: false,
            opener,
        }
    }

    /// When it was last of use to anybody.
    pub(super) fn used(&self) -> Moment {
        self.since.max(self.user)
    }

    /// When it has been of no use for `idle_close`, or for [`BRIEF`] if nothing came of a brief one.
    pub(super) fn idle_at(&self, idle_close: Duration) -> Moment {
        let is_brief = self.is_brief && self.user <= self.since;
        let idle = if is_brief {
            BRIEF.min(idle_close)
        } else {
            idle_close
        };
        self.used().after(idle)
    }
}
