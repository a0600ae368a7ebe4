//! What sessions have carried, over all sessions of this run, read from the counters that the data thread writes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    datapath::command::SessionCounters,
    ids::{PeerIx, SessionId},
    node::input::Input,
    time::Moment,
};

/// The counters of every session, and what ended ones carried.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sessions: BTreeMap<SessionId, Live>,
    ended: BTreeMap<PeerIx, Carried>,
}

/// What was carried with one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) heard: Option<Moment>,
    pub(super) handshake: Option<Moment>,
}

#[derive(Debug)]
struct Live {
    counters: Arc<SessionCounters>,
    told: (u64, u64),
}

impl Traffic {
    /// A session stands, with counters of its own.
    pub(super) fn begin(&mut self, session: SessionId, counters: Arc<SessionCounters>) {
        let is_the_same = |live: &Live| Arc::ptr_eq(&live.counters, &counters);
        if self.sessions.get(&session).is_some_and(is_the_same) {
            return;
        }
        self.end(session);
        let live = Live {
            counters,
            told: (0, 0),
        };
        self.sessions.insert(session, live);
    }

    /// A session is gone; what it carried stays counted.
    pub(super) fn end(&mut self, session: SessionId) {
        let (Some(live), SessionId::Pair(peer)) = (self.sessions.remove(&session), session) else {
            return;
        };
        let total = self.ended.entry(peer).or_default();
        total.add(&live.counters);
    }

    /// What was carried with a peer in this run.
    pub(super) fn of(&self, peer: PeerIx) -> Carried {
        let mut total = self.ended.get(&peer).copied().unwrap_or_default();
        if let Some(live) = self.sessions.get(&SessionId::Pair(peer)) {
            total.add(&live.counters);
        }
        total
    }

    /// What the node is told of sessions that were used since it was told last.
    pub(super) fn poll_heard(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (session, live) in &mut self.sessions {
            let heard = live.counters.heard.load(Ordering::Relaxed);
            let user = live.counters.user.load(Ordering::Relaxed);
            if live.told != (heard, user) {
                live.told = (heard, user);
                inputs.push(Input::Heard {
                    session: *session,
                    heard: Moment(heard),
                    user: Moment(user),
                });
            }
        }
        inputs
    }
}

impl Carried {
    fn add(&mut self, counters: &SessionCounters) {
        self.rx_bytes += counters.rx_bytes.load(Ordering::Relaxed);
        self.tx_bytes += counters.tx_bytes.load(Ordering::Relaxed);
        self.heard = self
            .heard
            .max(moment(counters.heard.load(Ordering::Relaxed)));
        self.handshake = self
            .handshake
            .max(moment(counters.handshake.load(Ordering::Relaxed)));
    }
}

fn moment(micros: u64) -> Option<Moment> {
    (micros != 0).then_some(Moment(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId::Pair(PeerIx(1));

    fn counters(rx: u64, heard: u64) -> Arc<SessionCounters> {
        let counters = SessionCounters::default();
        counters.rx_bytes.store(rx, Ordering::Relaxed);
        counters.heard.store(heard, Ordering::Relaxed);
        Arc::new(counters)
    }

    #[test]
    fn bytes_of_ended_sessions_stay_counted() {
        let mut traffic = Traffic::default();
        traffic.begin(SESSION, counters(10, 5));
        traffic.begin(SESSION, counters(7, 3));
        let carried = traffic.of(PeerIx(1));
        assert_eq!((carried.rx_bytes, carried.heard), (17, Some(Moment(5))));
        traffic.end(SESSION);
        assert_eq!(traffic.of(PeerIx(1)).rx_bytes, 17);
    }

    #[test]
    fn a_session_said_to_stand_twice_is_counted_once() {
        let mut traffic = Traffic::default();
        let counters = counters(10, 5);
        traffic.begin(SESSION, Arc::clone(&counters));
        traffic.begin(SESSION, counters);
        assert_eq!(traffic.of(PeerIx(1)).rx_bytes, 10);
    }

    #[test]
    fn the_node_is_told_once_of_each_use() {
        let mut traffic = Traffic::default();
        let counters = counters(0, 5);
        traffic.begin(SESSION, Arc::clone(&counters));
        assert_eq!(traffic.poll_heard().len(), 1);
        assert!(traffic.poll_heard().is_empty());
        counters.heard.store(9, Ordering::Relaxed);
        assert_eq!(traffic.poll_heard().len(), 1);
    }
}
