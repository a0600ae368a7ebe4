//! What sessions have carried, over all sessions of this run, read from the counters that the data thread writes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    datapath::command::SessionCounters,
    ids::{PeerIx, SessionId},
    node::input::Used,
    relay::ways::WayCounters,
    time::Moment,
    transport::{Failure, suite::Suite},
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
    /// By what user packets are sealed now; none: by WireGuard.
    pub(super) suite: Option<Suite>,
}

/// User data goes by WireGuard though both ends have transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// Why the last exchange made no keys.
    pub(super) why: Option<Failure>,
}

/// How long user data may go by WireGuard though both ends have transports.
const PLAIN_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Live {
    counters: Arc<SessionCounters>,
    /// Why the last exchange of a transport made no keys.
    failure: Option<Failure>,
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
            failure: None,
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
            total.suite = live.counters.suite();
        }
        total
    }

    /// An exchange of a transport made keys, or none.
    pub(super) fn note_keys(&mut self, session: SessionId, failure: Option<Failure>) {
        if let Some(live) = self.sessions.get_mut(&session) {
            live.failure = failure;
        }
    }

    /// Whether user data with a peer goes by WireGuard though both have transports, and has for too long (protocol §6);
    /// and why, where that is known.
    pub(super) fn plain(&self, now: Moment, peer: PeerIx) -> Option<Plain> {
        let live = self.sessions.get(&SessionId::Pair(peer))?;
        let is_long = live.counters.plain_for(now)? > PLAIN_MAX;
        let why = live.failure;
        is_long.then_some(Plain { why })
    }

    /// What the node is told of sessions that were used since it was told last.
    pub(super) fn poll_heard(&mut self) -> Vec<Used> {
        let mut uses = Vec::new();
        for (session, live) in &mut self.sessions {
            let heard = live.counters.heard.load(Ordering::Relaxed);
            let user = live.counters.user.load(Ordering::Relaxed);
            if live.told != (heard, user) {
                live.told = (heard, user);
                uses.push(Used {
                    session: *session,
                    heard: Moment(heard),
                    user: Moment(user),
                });
            }
        }
        uses
    }
}

/// What this machine carried for others in this run.
#[derive(Debug, Default)]
pub(super) struct CarriedForOthers {
    ways: BTreeMap<[u8; 4], Arc<WayCounters>>,
    ended: Relayed,
}

/// Datagrams and their bytes, both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl CarriedForOthers {
    /// A way is carried. One that is said again is the same.
    pub(super) fn begin(&mut self, way: [u8; 4], counters: Arc<WayCounters>) {
        let known = self.ways.values();
        if !known.clone().any(|known| Arc::ptr_eq(known, &counters)) {
            self.ways.insert(way, counters);
        }
    }

    /// A way is over; what it carried stays counted.
    pub(super) fn end(&mut self, way: [u8; 4]) {
        if let Some(counters) = self.ways.remove(&way) {
            self.ended.add(&counters);
        }
    }

    /// All of it.
    pub(super) fn total(&self) -> Relayed {
        let mut total = self.ended;
        self.ways.values().for_each(|way| total.add(way));
        total
    }

    /// How many ways there are now.
    pub(super) fn ways(&self) -> usize {
        self.ways.len()
    }
}

impl Relayed {
    fn add(&mut self, counters: &WayCounters) {
        self.packets += counters.packets.load(Ordering::Relaxed);
        self.bytes += counters.bytes.load(Ordering::Relaxed);
    }
}

impl Carried {
    fn add(&mut self, counters: &SessionCounters) {
        self.rx_bytes += counters.received();
        self.tx_bytes += counters.sent();
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

    fn counters(rx: usize, heard: u64) -> Arc<SessionCounters> {
        let counters = SessionCounters::default();
        counters.count_received(0, rx);
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
    fn user_data_that_goes_by_wireguard_for_more_than_ten_seconds_is_told_with_its_cause() {
        let mut traffic = Traffic::default();
        let second = |second: u64| Moment(1_000_000 * second);
        let counters = Arc::new(SessionCounters::default());
        traffic.begin(SESSION, Arc::clone(&counters));
        assert_eq!(traffic.plain(second(50), PeerIx(1)), None);
        counters.plain_since.store(second(5).0, Ordering::Relaxed);
        counters.user.store(second(15).0, Ordering::Relaxed);
        assert_eq!(traffic.plain(second(15), PeerIx(1)), None);
        counters.user.store(second(16).0, Ordering::Relaxed);
        let told = traffic.plain(second(16), PeerIx(1));
        assert_eq!(told, Some(Plain { why: None }));
        traffic.note_keys(SESSION, Some(Failure::Silent));
        let why = Some(Failure::Silent);
        assert_eq!(traffic.plain(second(75), PeerIx(1)), Some(Plain { why }));
        assert_eq!(traffic.plain(second(76), PeerIx(1)), None, "nobody talks");
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
    fn what_was_carried_for_others_stays_counted() {
        let mut carried = CarriedForOthers::default();
        let way = Arc::new(WayCounters::default());
        way.bytes.store(90, Ordering::Relaxed);
        way.packets.store(2, Ordering::Relaxed);
        carried.begin([1; 4], Arc::clone(&way));
        carried.begin([2; 4], way);
        assert_eq!(carried.ways(), 1);
        carried.end([1; 4]);
        let all = Relayed {
            packets: 2,
            bytes: 90,
        };
        assert_eq!((carried.ways(), carried.total()), (0, all));
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
