//! Sessions that nobody uses are closed.

use super::{CloseReason, Links, Wake};
use crate::{
    ids::PeerIx,
    time::{Moment, Now},
};

impl Links {
    /// A home or somebody whose home this is keeps the session: it is not idle.
    pub fn handle_kept(&mut self, now: Now, peer: PeerIx) {
        if let Some(session) = self.session_mut(peer) {
            session.since = now.at;
            session.is_brief = false;
        }
    }

    /// The peer knocked though a session stands here, and the state that stands is kept for it: it may have closed its own
    /// as idle. This one must not be closed for the idleness of that, of which the peer would hear nothing.
    pub fn handle_knocked(&mut self, now: Now, peer: PeerIx) {
        if let Some(session) = self.session_mut(peer) {
            session.since = now.at;
        }
    }

    /// The session was opened for one question: unless it becomes a link or carries data it is soon closed again.
    pub fn handle_brief(&mut self, peer: PeerIx) {
        let idle_close = self.limits.idle_close;
        let Some(session) = self.session_mut(peer) else {
            return;
        };
        session.is_brief = true;
        let due = session.idle_at(idle_close);
        if self.timers.at(&(peer, Wake::Idle)).is_some() {
            self.timers.set((peer, Wake::Idle), due);
        }
    }

    pub(super) fn try_idle(&mut self, now: Moment, peer: PeerIx) {
        let Some(session) = self.session(peer) else {
            return;
        };
        let due = session.idle_at(self.limits.idle_close);
        if due > now {
            self.timers.set((peer, Wake::Idle), due);
        } else {
            self.close(now, peer, CloseReason::Idle);
        }
    }
}
