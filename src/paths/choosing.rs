//! Which path data takes: what a Pong changes, and what follows when none comes (review-distributed S6, rules 3 to 5).

use std::time::Duration;

use super::{
    class::Class,
    distress::{Cause, Distress},
    pings::Purpose,
    probing::AFTER_MOVE,
    proof::{Output, Proofs, Wake},
    session::Judgement,
    way::{CONFIRM_MS, HUNT_MS, ONCE_MS},
};
use crate::{addr::Path, ids::SessionId, time::Moment};

impl Proofs {
    pub(super) fn act_on_pong(&mut self, now: Moment, session: SessionId, path: Path) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        match standing.judge(now, path) {
            Judgement::Alive => self.reassure(now, session, path),
            Judgement::Move { gap } => self.move_to(now, session, path, gap),
            Judgement::Mirror => self.mirror(now, session),
            Judgement::Doubt => self.doubt(now, session, Cause::Doubted),
            Judgement::Confirm => {
                let way = standing.ways.get(&path);
                if !way.is_some_and(|way| way.is_being_confirmed()) {
                    self.probe(now, session, path, CONFIRM_MS);
                }
            }
            Judgement::Noted => {}
        }
    }

    /// The endpoint answers: it carries data without limit, and nobody doubts it.
    pub(super) fn reassure(&mut self, now: Moment, session: SessionId, path: Path) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let has_lost = standing.clear(now);
        self.timers.clear(&(session, Wake::Distress));
        let is_first = standing
            .ways
            .get(&path)
            .is_some_and(|way| way.answered == 1);
        if is_first || has_lost {
            if let Some(way) = standing.ways.get_mut(&path) {
                way.end();
            }
            self.timers.clear(&(session, Wake::Way(path)));
            self.outputs.push_back(Output::SetPath {
                session,
                endpoint: path,
                gap: Duration::ZERO,
            });
            self.tell_room(session);
        }
    }

    /// Data goes by another path from now on.
    pub(super) fn move_to(
        &mut self,
        now: Moment,
        session: SessionId,
        endpoint: Path,
        gap: Duration,
    ) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        if let Some(distress) = standing.distress.take()
            && standing.last != endpoint
            && let Some(old) = standing.ways.get_mut(&standing.last)
        {
            old.bar(distress.begun);
        }
        self.timers.clear(&(session, Wake::Distress));
        standing.endpoint = Some(endpoint);
        standing.rests = false;
        standing.last = endpoint;
        standing.moved = Some(now);
        if let Some(way) = standing.ways.get_mut(&endpoint) {
            standing.rtt = way.rtt.or(standing.rtt);
            way.end();
        }
        self.timers.clear(&(session, Wake::Way(endpoint)));
        standing.search = None;
        self.timers
            .set((session, Wake::Upkeep), now.after(AFTER_MOVE));
        self.outputs.push_back(Output::SetPath {
            session,
            endpoint,
            gap,
        });
        self.tell_room(session);
    }

    /// Begins to doubt the endpoint, or doubts it for a better reason.
    pub(super) fn doubt(&mut self, now: Moment, session: SessionId, cause: Cause) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        match &mut standing.distress {
            // What answered before may have failed with it.
            Some(distress) if cause > distress.cause && distress.is_mere_doubt() => {
                distress.begin_anew(now, cause);
            }
            Some(distress) => {
                distress.cause = distress.cause.max(cause);
                return;
            }
            None => {
                let rtt = standing.rtt.map(|rtt| rtt.smoothed);
                standing.distress = Some(Distress::new(now, cause, rtt));
            }
        }
        let warm = standing.warm(now);
        if cause != Cause::Gone {
            self.ask_endpoint(now, session);
        }
        for path in warm {
            self.probe(now, session, path, ONCE_MS);
        }
        self.act_in_distress(now, session);
    }

    /// The endpoint did not answer in time.
    pub(super) fn on_missed(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(distress) = &mut standing.distress else {
            return;
        };
        distress.missed += 1;
        if distress.is_idle() {
            if distress.mirror.is_some() {
                let via = None;
                self.outputs.push_back(Output::Mirror { session, via });
            }
            standing.distress = None;
            return;
        }
        if distress.is_lost(now) {
            self.outputs.push_back(Output::Lost { session });
            return;
        }
        let is_first = distress.missed == 1;
        self.act_in_distress(now, session);
        self.ask_endpoint(now, session);
        if is_first && self.is_doubted(session) {
            self.hunt(now, session);
        }
    }

    /// Moves, mirrors, asks others or gives up waiting, as it is time for.
    pub(super) fn act_in_distress(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let rescue = standing.rescue(now);
        let mirrors = rescue.is_some_and(|path| standing.mirrors_to(path));
        let was_direct = standing
            .current()
            .is_some_and(|(_, way)| way.class <= Class::Direct);
        let Some(distress) = &mut standing.distress else {
            return;
        };
        // Two sockets may find each other again while a relay carries.
        if (rescue.is_none() || was_direct) && distress.seeks() {
            self.outputs.push_back(Output::Seek { session });
        }
        match rescue {
            Some(path) if distress.moves() => {
                self.move_to(now, session, path, Duration::ZERO);
            }
            Some(_) if mirrors => self.mirror(now, session),
            Some(_) => {}
            None => {
                if distress.withdraws() && standing.endpoint.take().is_some() {
                    self.outputs.push_back(Output::Withdraw { session });
                }
                let next = distress.next(now);
                self.timers.set((session, Wake::Distress), next);
            }
        }
    }

    /// Packets go by the best path that answers too.
    pub(super) fn mirror(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let via = standing.rescue(now);
        if let Some(distress) = &mut standing.distress
            && distress.mirror != via
        {
            distress.mirror = via;
            self.outputs.push_back(Output::Mirror { session, via });
        }
    }

    /// Pings the doubted endpoint, or where it was, and waits.
    pub(super) fn ask_endpoint(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let Some(distress) = &standing.distress else {
            return;
        };
        let (next, path) = (distress.next(now), standing.last);
        self.timers.set((session, Wake::Distress), next);
        if standing.ways.contains_key(&path) {
            self.send(now, session, Purpose::Proof(path));
        }
    }

    /// Pings a path of a session that is in distress and has not heard from there since.
    pub(super) fn ask_again(&mut self, now: Moment, session: SessionId, path: Path) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let Some(begun) = standing.distress.as_ref().map(|distress| distress.begun) else {
            return;
        };
        if standing.last == path {
            return self.ask_endpoint(now, session);
        }
        let known = standing.ways.get(&path);
        if known.is_some_and(|way| way.is_known(now) && !way.is_alive_since(begun)) {
            self.probe(now, session, path, HUNT_MS);
        }
    }

    pub(super) fn is_doubted(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|standing| standing.distress.is_some())
    }
}
