//! Pings go out: in series, within their budget, and to keep warm what may be needed.

use std::time::Duration;

use rand_core::RngCore;

use super::{
    budget::{Refused, Standing},
    class::Class,
    pings::{Purpose, Sent},
    proof::{Output, Proofs, Wake},
    session::WAYS_MAX,
    view::NotTried,
    way::{HUNT_MS, ONCE_MS},
};
use crate::{addr::Path, ids::SessionId, time::Moment};

/// How often the other paths of a session in use are Pinged: it keeps them warm, and notices that a better one is back.
pub(super) const UPKEEP: Duration = Duration::from_secs(10);

/// How soon after a move the paths that were known as good are Pinged again (review-security S4: within 5 s).
pub(super) const AFTER_MOVE: Duration = Duration::from_secs(2);

impl Proofs {
    /// Begins a series of Pings on a path, which is added if it is new.
    pub(super) fn probe(
        &mut self,
        now: Moment,
        session: SessionId,
        path: Path,
        gaps: &'static [u64],
    ) {
        let class = self.class_of(path);
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        match standing.add(path, class) {
            Some(way) => {
                way.begin(now, gaps);
                self.probe_next(now, session, path);
            }
            None => standing.refuse(path, NotTried::Many),
        }
    }

    /// Sends the next Ping of a series, if the budget has one, and plans what follows.
    pub(super) fn probe_next(&mut self, now: Moment, session: SessionId, path: Path) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let is_endpoint = standing.endpoint == Some(path);
        let is_wanted = standing.is_in_use(now) || standing.endpoint.is_none();
        let Some(way) = standing.ways.get_mut(&path) else {
            return;
        };
        if let Some(gaps) = way.take_owed(now).filter(|_| is_wanted) {
            way.begin(now, gaps);
        }
        if !way.is_probed() {
            return;
        }
        let standing = if is_endpoint || way.is_known(now) {
            Standing::Known
        } else if way.is_challenged() {
            Standing::Challenged
        } else {
            Standing::Claimed
        };
        match self.budget.spend(now, path, standing) {
            Ok(()) => {
                if let Some(next) = way.next_due(now) {
                    self.timers.set((session, Wake::Way(path)), next);
                }
                self.send(now, session, Purpose::Proof(path));
            }
            Err(Refused::Later(at)) => {
                way.held_back = Some(at);
                self.timers.set((session, Wake::Way(path)), at);
            }
            Err(Refused::Target(at)) => {
                if way.hold_back(at) {
                    self.timers.set((session, Wake::Way(path)), at);
                }
            }
        }
    }

    /// Tries everything that may be tried and is not known to work.
    pub(super) fn hunt(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let quiet = standing.others().filter(|(_, way)| !way.is_probed());
        let paths: Vec<Path> = quiet.map(|(path, _)| path).take(WAYS_MAX).collect();
        for path in paths {
            self.probe(now, session, path, HUNT_MS);
        }
    }

    /// Pings the other paths of a session in use, or that has just moved, and the endpoint to compare them with.
    pub(super) fn keep_warm(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let has_moved = standing
            .moved
            .is_some_and(|at| now.since(at) <= AFTER_MOVE * 2);
        if !standing.is_in_use(now) && !has_moved {
            return;
        }
        let warm = standing.warm(now);
        let endpoint = standing.current().filter(|(_, way)| !way.is_probed());
        let endpoint = endpoint.map(|(path, _)| path);
        if standing.is_in_use(now) && !warm.is_empty() {
            let next = standing
                .bar_ends(now)
                .map_or(now.after(UPKEEP), |end| end.min(now.after(UPKEEP)));
            self.timers.set((session, Wake::Upkeep), next);
        }
        if warm.is_empty() {
            return;
        }
        for path in endpoint.into_iter().chain(warm) {
            self.probe(now, session, path, ONCE_MS);
        }
    }

    pub(super) fn class_of(&self, path: Path) -> Class {
        let told = match path {
            Path::Relay(leg) => self.legs.get(&leg).copied(),
            Path::Direct(_) | Path::Stream(_) | Path::Handed(_) => None,
        };
        told.unwrap_or_else(|| Class::of(path, &self.own))
    }

    pub(super) fn send(&mut self, now: Moment, session: SessionId, purpose: Purpose) {
        let mut nonce = [0; 8];
        self.rng.fill_bytes(&mut nonce);
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let (via, path) = match purpose {
            Purpose::Proof(path) => {
                let Some(way) = standing.ways.get_mut(&path) else {
                    return;
                };
                way.note_sent();
                (Some(path), way.number)
            }
            Purpose::Size(path, _) => {
                let number = standing.ways.get(&path).map_or(0, |way| way.number);
                (Some(path), number)
            }
            Purpose::Life(_) => (None, 0),
        };
        let sent = Sent {
            nonce,
            at: now,
            purpose,
        };
        let crowded_out = standing.pings.push(sent);
        if let Some(next) = standing.pings.next() {
            self.timers.set_earlier((session, Wake::Expire), next);
        }
        if let Some(sent) = crowded_out {
            self.tell_unanswered(session, sent);
        }
        self.outputs.push_back(Output::Ping {
            session,
            via,
            nonce,
            path,
            len: match purpose {
                Purpose::Size(_, size) => Some(size),
                Purpose::Proof(_) | Purpose::Life(_) => None,
            },
        });
    }

    pub(super) fn expire(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let late: Vec<Sent> = std::iter::from_fn(|| standing.pings.take_late(now)).collect();
        if let Some(next) = standing.pings.next() {
            self.timers.set((session, Wake::Expire), next);
        }
        for sent in late {
            self.tell_unanswered(session, sent);
        }
    }

    pub(super) fn tell_unanswered(&mut self, session: SessionId, sent: Sent) {
        if let Purpose::Life(Some(tag)) = sent.purpose {
            self.outputs.push_back(Output::Unanswered { session, tag });
        }
    }
}
