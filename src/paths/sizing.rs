//! The search for what fits the path that data takes.

use super::{
    class::Class,
    distress::Distress,
    pings::Purpose,
    proof::{Output, Proofs, Wake},
    sizes::{Found, Next, Room, SIZE_MIN, Search, Step},
    way::Way,
};
use crate::{
    addr::Path,
    ids::SessionId,
    time::{Moment, Now},
};

/// Bytes that a relay's frame adds, at most: two relays.
const RELAYED_LESS: u16 = 16;

impl Proofs {
    /// The longest packet that the device takes.
    pub fn handle_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// Looks for what fits the endpoint, unless that is known or being found.
    pub(super) fn size_up(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let is_known = standing.current().is_none_or(|(_, way)| {
            // Where routers may cut, the longest Ping would come through in pieces and say nothing.
            let is_fresh = |found: &Found| found.room.in_fragments || !found.is_old(now);
            !way.is_proven() || way.found.as_ref().is_some_and(is_fresh)
        });
        if !is_known && standing.search.is_none() && standing.distress.is_none() {
            self.search(now, session, (Step::Top, self.mtu));
        }
    }

    /// Long packets go out again while something is heard: whether what fitted still does is asked.
    pub fn handle_resent(&mut self, now: Now, session: SessionId) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        let is_busy = standing.search.is_some() || standing.distress.is_some();
        let room = standing.room.filter(|room| !room.in_fragments && !is_busy);
        if let Some(room) = room {
            self.search(now.at, session, (Step::Check, room.inner));
        }
    }

    /// Long packets may be lost where short ones are not: all sizes are tried at once, unless they are out.
    pub(super) fn search_all(&mut self, now: Moment, session: SessionId) {
        let search = self
            .sessions
            .get(&session)
            .and_then(|standing| standing.search.as_ref());
        if !search.is_some_and(Search::is_wide) {
            self.search(now, session, (Step::Ladder, self.mtu));
        }
    }

    fn search(&mut self, now: Moment, session: SessionId, (step, top): (Step, u16)) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some((path, _)) = standing.current() else {
            return;
        };
        standing.search = Some(Search::new(now, path, top, step));
        self.send_sizes(now, session);
    }

    fn send_sizes(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let rtt = standing.rtt.map(|rtt| rtt.smoothed);
        let Some(search) = &mut standing.search else {
            return;
        };
        let (path, sizes) = (search.path, search.sizes());
        self.timers
            .set((session, Wake::Size), now.after(Distress::interval(rtt)));
        // A short one with them tells a path that is narrow from one that is dead.
        self.send(now, session, Purpose::Proof(path));
        for size in sizes {
            self.send(now, session, Purpose::Size(path, size));
        }
    }

    /// A Ping of this size was answered.
    pub(super) fn on_sized(&mut self, now: Moment, session: SessionId, (path, size): (Path, u16)) {
        let search = self.sessions.get_mut(&session).and_then(|standing| {
            let search = standing.search.as_mut()?;
            (search.path == path).then_some(search)
        });
        let Some(search) = search else {
            return;
        };
        let is_check = search.is_check();
        match search.note_answer(size) {
            Some(_) if is_check => self.end_search(session),
            Some(room) => self.settle(now, session, path, room),
            None => {}
        }
    }

    /// The Pings of a search were waited for.
    pub(super) fn on_sizes_due(&mut self, now: Moment, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(search) = &mut standing.search else {
            return;
        };
        let path = search.path;
        let alive = standing.ways.get(&path).and_then(Way::ponged);
        match search.conclude(alive) {
            Next::Try => self.send_sizes(now, session),
            Next::Found(room) => self.settle(now, session, path, room),
            Next::Over => standing.search = None,
        }
    }

    fn end_search(&mut self, session: SessionId) {
        if let Some(standing) = self.sessions.get_mut(&session) {
            standing.search = None;
        }
        self.timers.clear(&(session, Wake::Size));
    }

    fn settle(&mut self, now: Moment, session: SessionId, path: Path, room: Room) {
        self.end_search(session);
        let standing = self.sessions.get_mut(&session);
        if let Some(way) = standing.and_then(|standing| standing.ways.get_mut(&path)) {
            way.found = Some(Found::new(now, room));
        }
        self.tell_room(session);
    }

    /// Says what fits where data goes now, if it is not what was said last.
    pub(super) fn tell_room(&mut self, session: SessionId) {
        let mtu = self.mtu;
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some((endpoint, way)) = standing.current() else {
            return;
        };
        let less = match way.class {
            Class::Relay | Class::TwoRelays => RELAYED_LESS,
            Class::Lan | Class::Direct | Class::Stream => 0,
        };
        let guess = Room {
            inner: mtu.saturating_sub(less).max(SIZE_MIN),
            in_fragments: false,
        };
        let room = way.found.as_ref().map_or(guess, |found| found.room);
        if standing.room.replace(room) != Some(room) {
            self.outputs.push_back(Output::SetRoom {
                session,
                endpoint,
                room,
            });
        }
    }

    /// What fits where a session's data goes, as far as it is known.
    pub fn room(&self, session: SessionId) -> Option<Room> {
        self.sessions.get(&session)?.room
    }
}
