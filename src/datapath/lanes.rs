//! What the first data thread does with the others: it says by which ways packets may go and which keys open, and takes in
//! what a lane hands over.

use std::sync::Arc;

use crate::{
    addr::{Path, Underlay},
    ids::{PeerIx, SessionId},
    time::Moment,
    transport::{Carrier, Opening},
};

use super::{
    drops::DropReason,
    inbound::{Source, Taken},
    lane::{Backlog, News, Order, Receiving, Way},
    meter::Meter,
    sessions::{Heard, State},
    shard::Shard,
    train::Train,
    transports::{FIRST, thread_of},
};

/// The other threads, as the first one's shard sees them.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// What each has been told and has not dealt with yet.
    backlogs: Vec<Arc<Backlog>>,
    /// What is to be told, and to whom. It is told before a datagram leaves, so that no answer comes before a key.
    pub(super) orders: Vec<(usize, Order)>,
}

impl Lanes {
    pub(super) fn new(backlogs: Vec<Arc<Backlog>>) -> Self {
        Self {
            backlogs,
            orders: Vec::new(),
        }
    }

    /// How many threads there are, with the first.
    pub(super) fn threads(&self) -> usize {
        1 + self.backlogs.len()
    }

    /// The thread that opens what comes from a peer.
    pub(super) fn thread_for(&self, session: SessionId) -> usize {
        match session {
            SessionId::Pair(PeerIx(peer)) => peer as usize % self.threads(),
            SessionId::Join(_) => FIRST,
        }
    }

    fn tell_all(&mut self, order: impl Fn() -> Order) {
        let all = 1..self.threads();
        self.orders.extend(all.map(|thread| (thread, order())));
    }
}

impl Shard {
    /// Says by which way packets to the peer of a state may go, and tells the lanes if that has changed.
    pub(super) fn publish(&mut self, place: usize) {
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        let SessionId::Pair(peer) = state.id else {
            return;
        };
        let is_plain = |endpoint: &Underlay| {
            !self.out.in_fragments.contains(endpoint) && !self.out.kept.contains(endpoint)
        };
        let endpoint = state.open_endpoint().filter(is_plain);
        if state.is_published(endpoint) {
            return;
        }
        let way = endpoint.and_then(|endpoint| state.way(endpoint));
        let way = way.map(Arc::new);
        state.published.clone_from(&way);
        self.lanes.tell_all(|| Order::Way {
            peer,
            way: way.clone(),
        });
    }

    /// The way by which all threads may send to the peer of a state now, where nothing needs a look at each datagram.
    pub(super) fn open_way(&mut self, now: Moment, place: usize) -> Option<Arc<Way>> {
        if !self.sessions.at(place)?.watch.is_quiet(now) {
            return None;
        }
        self.publish(place);
        self.sessions.at(place)?.published.clone()
    }

    /// Tells the lanes that a state is gone.
    pub(super) fn withdraw_from_lanes(&mut self, place: usize) {
        let published = self
            .sessions
            .at(place)
            .and_then(|state| state.published.take());
        if let Some(SessionId::Pair(peer)) = published.map(|way| way.session) {
            self.lanes.tell_all(|| Order::Way { peer, way: None });
        }
    }

    /// A lane has forgotten the ways.
    fn publish_anew(&mut self) {
        for place in 0..self.sessions.places() {
            if let Some(state) = self.sessions.at(place) {
                state.published = None;
            }
            self.publish(place);
        }
    }

    /// Addresses to which a socket of its own leads, which the first thread has.
    pub(super) fn set_kept(&mut self, kept: std::collections::BTreeSet<Underlay>) {
        self.out.kept = kept;
        for place in 0..self.sessions.places() {
            self.publish(place);
        }
    }

    /// Questions for names of others go to the control plane from now on, or no longer.
    pub(super) fn set_forwards(&mut self, on: bool) {
        self.forwards = on;
        self.lanes.tell_all(|| Order::Forward { on });
    }

    /// Gives a key to the thread whose number its index names.
    pub(super) fn install(&mut self, place: usize, opening: Opening) {
        let thread = thread_of(opening.index());
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        match state.id {
            SessionId::Pair(peer) if thread != FIRST => {
                let receiving = Receiving {
                    opening,
                    peer,
                    counters: Arc::clone(&state.counters),
                    pulse: Arc::clone(state.watch.pulse()),
                    told: Moment(0),
                    frames: Meter::default(),
                };
                let order = Order::Install(Box::new(receiving));
                self.lanes.orders.push((thread, order));
            }
            SessionId::Pair(_) | SessionId::Join(_) => {
                if let Some(transport) = state.transport.as_deref_mut() {
                    transport.install(opening);
                }
            }
        }
    }

    /// Takes a key from the thread that has it.
    pub(super) fn retire(&mut self, index: u32) {
        let thread = thread_of(index);
        if thread != FIRST {
            self.lanes.orders.push((thread, Order::Retire { index }));
        }
    }

    /// Transport data for a lane came here: by a relay, or in one train with something else.
    pub(super) fn pass_on(
        &mut self,
        source: Source,
        (index, run): (u32, Train<'_>),
    ) -> Result<Taken, DropReason> {
        let thread = thread_of(index);
        let backlog = thread
            .checked_sub(1)
            .and_then(|at| self.lanes.backlogs.get(at))
            .cloned();
        let backlog = backlog.ok_or(DropReason::InUnknownIndex)?;
        for datagram in run.datagrams() {
            if backlog.try_add_came(datagram.len()) {
                let bytes = datagram.to_vec();
                let order = Order::Datagram { source, bytes };
                self.lanes.orders.push((thread, order));
            } else {
                self.drops.count(DropReason::InHandoverFull);
            }
        }
        Ok(Taken::PassedOn)
    }

    /// Takes in what a lane has met.
    pub(super) fn handle_news(&mut self, now: Moment, news: News) {
        let taken = match news {
            News::Datagram { source, bytes } => {
                self.take_datagram(now, source, bytes);
                Ok(())
            }
            News::Opened { index, .. } => {
                if let Some(place) = self.indexes.place(index) {
                    self.on_first(now, place, index);
                }
                Ok(())
            }
            News::Frame {
                index,
                source,
                bytes,
            } => self.on_lane_frame(now, index, (source, bytes)),
            News::Heard {
                index,
                source,
                heard,
                is_back,
                is_user,
            } => {
                self.on_lane_heard(now, index, (source, heard), (is_back, is_user));
                Ok(())
            }
            News::Forgot => {
                self.publish_anew();
                Ok(())
            }
            News::Worn { peer } => {
                if let Some(place) = self.sessions.place(SessionId::Pair(peer)) {
                    self.want_keys(now, place);
                }
                Ok(())
            }
        };
        if let Err(reason) = taken {
            self.drops.count(reason);
        }
    }

    fn on_lane_frame(
        &mut self,
        now: Moment,
        index: u32,
        (source, frame): (Path, Vec<u8>),
    ) -> Result<(), DropReason> {
        let place = self.indexes.place(index);
        let place = place.ok_or(DropReason::InUnknownIndex)?;
        let state = self.sessions.at(place);
        if !state.is_some_and(|state| state.takes_frame(now)) {
            return Err(DropReason::SessionFlooding);
        }
        self.on_frame(now, place, (source, Carrier::Transport(index)), frame)
    }

    fn on_lane_heard(
        &mut self,
        now: Moment,
        index: u32,
        (source, heard): (Path, Heard),
        (is_back, is_user): (bool, bool),
    ) {
        let Some(place) = self.indexes.place(index) else {
            return;
        };
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        // A lane that knows the way has noted it already, and knows what was before.
        let is_news = state.watch.note_heard(now, state.endpoint == Some(source));
        let is_back = is_news || is_back && state.watch.is_doubted(now);
        self.tell_path(now, place, source, (heard, is_back));
        if is_user {
            self.tell_elsewhere(now, place, (source, heard));
        }
    }

    /// What a lane has done with a session is known to its exchange from now on.
    pub(super) fn note_lane_use(&mut self, place: usize) {
        if self.lanes.threads() == 1 {
            return;
        }
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        let user = state.counters.user();
        if let (Some(user), Some(transport)) = (user, state.transport.as_deref_mut()) {
            transport.note_user_data(user);
        }
    }
}

impl State {
    /// Where any thread may send: a proven address to which nothing lies between, and by which alone packets go.
    fn open_endpoint(&self) -> Option<Underlay> {
        let is_open = self.is_standing()
            && self.is_proven()
            && self.watch.mirror().is_none()
            && !self.watch.has_plan();
        let endpoint = self.endpoint.filter(|_| is_open)?;
        endpoint.direct()
    }

    fn way(&self, endpoint: Underlay) -> Option<Way> {
        Some(Way {
            session: self.id,
            endpoint,
            room: self.room,
            sealing: Arc::clone(self.transport.as_deref()?.sealing()?),
            counters: Arc::clone(&self.counters),
            pulse: Arc::clone(self.watch.pulse()),
        })
    }

    /// Whether it was said by which way packets go to this endpoint, as it is.
    fn is_published(&self, endpoint: Option<Underlay>) -> bool {
        let sealing = self
            .transport
            .as_deref()
            .and_then(|transport| transport.sealing());
        match (&self.published, endpoint.zip(sealing)) {
            (None, None) => true,
            (Some(way), Some((endpoint, sealing))) => {
                way.endpoint == endpoint
                    && way.room == self.room
                    && Arc::ptr_eq(&way.sealing, sealing)
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}
