//! The transports of sessions: what the exchange of a pair ([`crate::transport`]) wants done is done here, and by its index
//! a datagram finds the key that opens it.
//!
//! The control plane says which pairs have transports ([`super::command::Command::Transport`]). Their keys are made by the
//! first user packet, stand in the session's state, and end with it.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use rand_chacha::{ChaCha12Rng, rand_core::RngCore};

use crate::{
    ids::SessionId,
    packet::split::Lengths,
    time::Moment,
    transport::{
        Carrier, Exchange, Opening, Output, Outside, Run, Sealing, limits::INDEX_REUSE, padded,
    },
};

use super::{
    command::{Event, TransportParts},
    drops::DropReason,
    sessions::{Purpose, State},
    shard::Shard,
};

/// The thread that has the sessions.
pub(super) const FIRST: usize = 0;

/// The thread that opens what comes under an index (protocol §6).
pub(super) fn thread_of(index: u32) -> usize {
    usize::from(index.to_be_bytes()[0])
}

/// WireGuard renews its keys at 120 s by itself where it carries anything, and drops them at 180 s.
const RENEWED_AFTER: [Duration; 2] = [Duration::from_secs(130), Duration::from_secs(150)];

/// The transport of one pair at this end.
#[derive(Debug)]
pub(super) struct Transport {
    exchange: Exchange,
    /// How old the keys of the WireGuard session are that this end renews: the lower node first.
    renewed_after: Duration,
    /// What seals user packets; none: WireGuard does.
    sealing: Option<Arc<Sealing>>,
    /// As many as live at one time ([`crate::transport::limits::RECEIVE_KEYS`]).
    openings: Vec<Opening>,
}

impl Transport {
    /// The key whose datagrams come under this index.
    pub(super) fn opening(&mut self, index: u32) -> Option<&mut Opening> {
        let mut openings = self.openings.iter_mut();
        openings.find(|opening| opening.index() == index)
    }

    /// What seals user packets.
    pub(super) fn sealing(&self) -> Option<&Arc<Sealing>> {
        self.sealing.as_ref()
    }

    /// Opens with one key more.
    pub(super) fn install(&mut self, opening: Opening) {
        self.openings.push(opening);
    }

    /// Whether a key seals user packets.
    pub(super) fn is_sealing(&self) -> bool {
        self.sealing.is_some()
    }

    /// How old the keys of the WireGuard session may get.
    pub(super) fn renewed_after(&self) -> Duration {
        self.renewed_after
    }

    /// User data came.
    pub(super) fn note_user_data(&mut self, now: Moment) {
        self.exchange.handle_user_data(now);
    }
}

/// The receive indexes of all transports, a space of its own (protocol §1): in whose place each is, and which mean nothing
/// for a while since what is under way to them is to find nobody.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    /// Asked for every datagram that comes: a hash that nobody can foresee would cost more than the search.
    places: BTreeMap<u32, Option<usize>>,
    retired: VecDeque<(Moment, u32)>,
}

impl Indexes {
    /// The place of the state that an index belongs to.
    pub(super) fn place(&self, index: u32) -> Option<usize> {
        *self.places.get(&index)?
    }

    /// Draws a free one for the state at a place. The number of the thread that is to open what comes under it is its top
    /// byte.
    fn draw(&mut self, random: &mut ChaCha12Rng, place: usize, thread: usize) -> u32 {
        let top = u32::try_from(thread).unwrap_or(0) << 24;
        loop {
            let index = top | random.next_u32() >> 8;
            if let Entry::Vacant(free) = self.places.entry(index) {
                free.insert(Some(place));
                return index;
            }
        }
    }

    fn retire(&mut self, now: Moment, index: u32) {
        self.places.insert(index, None);
        self.retired.push_back((now, index));
        let is_over = |(since, _): &mut (Moment, u32)| now.since(*since) >= INDEX_REUSE;
        while let Some((_, index)) = self.retired.pop_front_if(is_over) {
            self.places.remove(&index);
        }
    }
}

/// How long before the control plane says that a session has transports the other end may know it: its word of the same is
/// on its way through the control plane here, which takes milliseconds.
const EARLY: Duration = Duration::from_secs(1);

/// Frames of an exchange that came before that: the last message of the other end, whole.
#[derive(Debug, Default)]
pub(super) struct Early([Option<(Moment, Vec<u8>)>; 2]);

impl Early {
    /// Keeps a frame; tells whether another was lost for it.
    fn keep(&mut self, now: Moment, frame: &[u8]) -> bool {
        self.0.rotate_left(1);
        let [_, last] = &mut self.0;
        last.replace((now, frame.to_vec())).is_some()
    }

    /// Those that may still be waited for.
    fn take(&mut self, now: Moment) -> impl Iterator<Item = Vec<u8>> + use<> {
        let kept = std::mem::take(&mut self.0).into_iter().flatten();
        let young = kept.filter(move |(came, _)| now.since(*came) < EARLY);
        young.map(|(_, frame)| frame)
    }
}

/// What an exchange draws from.
struct Source<'a> {
    random: &'a mut ChaCha12Rng,
    indexes: &'a mut Indexes,
    place: usize,
    /// Which thread opens.
    thread: usize,
}

impl Outside for Source<'_> {
    fn random(&mut self) -> &mut dyn RngCore {
        self.random
    }

    fn draw_index(&mut self) -> u32 {
        self.indexes.draw(self.random, self.place, self.thread)
    }
}

impl Shard {
    /// A pair has transports from now on. A state that has one already keeps it: this was said of a state before it, or is
    /// said again.
    pub(super) fn begin_transport(
        &mut self,
        now: Moment,
        session: SessionId,
        parts: TransportParts,
    ) {
        let Some(place) = self.sessions.place(session) else {
            return;
        };
        let ends = (parts.local, parts.remote);
        let is_lower = parts.local.node < parts.remote.node;
        let Ok(exchange) = Exchange::new(parts.network, ends, parts.psk, parts.terms) else {
            return;
        };
        let state = self.sessions.at(place);
        let Some(state) = state.filter(|state| state.transport.is_none()) else {
            return;
        };
        state.transport = Some(Box::new(Transport {
            exchange,
            renewed_after: RENEWED_AFTER[usize::from(!is_lower)],
            sealing: None,
            openings: Vec::new(),
        }));
        for frame in state.early.take(now) {
            if let Err(reason) = self.on_exchange(now, place, Carrier::WireGuard, &frame) {
                self.drops.count(reason);
            }
        }
        self.want_if_used(now, place);
    }

    /// Forgets the state of a session, and every key of its transports.
    pub(super) fn remove(&mut self, now: Moment, session: SessionId) {
        if let Some(place) = self.sessions.place(session) {
            self.end_transport(now, place);
            self.withdraw_from_lanes(place);
            self.sessions.remove(session);
        }
    }

    /// Ends the transports of a state for good.
    pub(super) fn end_transport(&mut self, now: Moment, place: usize) {
        self.drop_keys(now, place);
        if let Some(state) = self.sessions.at(place) {
            state.transport = None;
        }
    }

    /// Ends all keys of a state; the next user packet makes new ones.
    pub(super) fn drop_keys(&mut self, now: Moment, place: usize) {
        self.exchange(now, place, |exchange, _| exchange.handle_closed());
    }

    /// Where user data flowed lately more is to come: its keys are made now.
    fn want_if_used(&mut self, now: Moment, place: usize) {
        if self
            .sessions
            .at(place)
            .is_some_and(|state| state.is_used(now))
        {
            self.want_keys(now, place);
        }
    }

    /// Ends all sessions: this machine may be a copy of another, which seals by the same keys under the same counters. Those
    /// that programs use are wanted anew at once, since the other ends know nothing of it.
    pub(super) fn end_all(&mut self, now: Moment) {
        self.forget_ways();
        let places = 0..self.sessions.places();
        let all: Vec<(SessionId, bool)> = places
            .filter_map(|place| {
                let state = self.sessions.at(place)?;
                Some((state.id, state.is_used(now)))
            })
            .collect();
        for (id, is_used) in all {
            self.end(now, id);
            if let SessionId::Pair(peer) = id
                && is_used
            {
                self.ask_for_way(peer);
            }
        }
    }

    /// New keys are wanted, for the first time or since those that seal are worn.
    pub(super) fn want_keys(&mut self, now: Moment, place: usize) {
        self.exchange(now, place, |exchange, source| {
            exchange.handle_wanted(now, source);
        });
    }

    /// The key that seals user packets of a state now.
    pub(super) fn sealing(&mut self, place: usize) -> Option<Arc<Sealing>> {
        sealing_of(self.sessions.at(place)?)
    }

    /// A program writes to the peer of a state: keys are wanted where there are none, or worn ones.
    pub(super) fn note_use(&mut self, now: Moment, place: usize) {
        let state = self.sessions.at(place);
        let Some(transport) = state.and_then(|state| state.transport.as_deref_mut()) else {
            return;
        };
        transport.note_user_data(now);
        let sealing = transport.sealing.as_ref();
        if sealing.is_none_or(|sealing| sealing.is_worn(now)) {
            self.want_keys(now, place);
        }
    }

    /// Counters for all segments of a packet. None: there is no key, or it may seal no more, and WireGuard seals them.
    pub(super) fn run<'a>(
        &mut self,
        now: Moment,
        place: usize,
        sealing: Option<&'a Arc<Sealing>>,
        lengths: Lengths,
    ) -> Option<Run<'a>> {
        let limit = self.mtu.min(self.room_of(place));
        run(sealing?, now, lengths, limit)
    }

    /// The first datagram under an index opened.
    pub(super) fn on_first(&mut self, now: Moment, place: usize, index: u32) {
        self.exchange(now, place, |exchange, _| exchange.handle_opened(now, index));
    }

    /// A frame of the exchange.
    pub(super) fn on_exchange(
        &mut self,
        now: Moment,
        place: usize,
        carrier: Carrier,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let state = self.sessions.at(place).ok_or(DropReason::NoSession)?;
        if state.transport.is_none() {
            return match state.early.keep(now, frame) {
                true => Err(DropReason::InExchange),
                false => Ok(()),
            };
        }
        let taken = self.exchange(now, place, |exchange, source| {
            exchange.handle_frame(now, carrier, frame, source)
        });
        match taken {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => {
                tracing::debug!(%why, "A message of a transport exchange is refused");
                Err(DropReason::InExchange)
            }
            None => Err(DropReason::InExchange),
        }
    }

    /// When [`Shard::handle_exchanges`] is due.
    pub(super) fn exchanges_due(&self) -> Option<Moment> {
        self.exchanges_due
    }

    /// Carries out what is due in exchanges.
    pub(super) fn handle_exchanges(&mut self, now: Moment) {
        if self.exchanges_due.is_none_or(|due| now < due) {
            return;
        }
        self.exchanges_due = None;
        for place in 0..self.sessions.places() {
            self.exchange(now, place, |exchange, source| {
                exchange.handle_timeout(now, source);
            });
        }
    }

    /// Tells the exchange of a state something, and does what it wants then.
    fn exchange<R>(
        &mut self,
        now: Moment,
        place: usize,
        tell: impl FnOnce(&mut Exchange, &mut Source<'_>) -> R,
    ) -> Option<R> {
        let Self {
            sessions,
            indexes,
            random,
            lanes,
            ..
        } = self;
        let state = sessions.at(place)?;
        let thread = lanes.thread_for(state.id);
        let transport = state.transport.as_deref_mut()?;
        let mut source = Source {
            random,
            indexes,
            place,
            thread,
        };
        let told = tell(&mut transport.exchange, &mut source);
        while let Some(output) = self.exchange_of(place).and_then(Exchange::poll_output) {
            if let Err(reason) = self.carry_out_exchange(now, place, output) {
                self.drops.count(reason);
            }
        }
        self.publish(place);
        let due = self.exchange_of(place)?.poll_timeout();
        self.exchanges_due = self.exchanges_due.into_iter().chain(due).min();
        Some(told)
    }

    fn exchange_of(&mut self, place: usize) -> Option<&mut Exchange> {
        let transport = self.sessions.at(place)?.transport.as_deref_mut()?;
        Some(&mut transport.exchange)
    }

    fn carry_out_exchange(
        &mut self,
        now: Moment,
        place: usize,
        output: Output,
    ) -> Result<(), DropReason> {
        let Some(state) = self.sessions.at(place) else {
            return Ok(());
        };
        let session = state.id;
        let Some(transport) = state.transport.as_deref_mut() else {
            return Ok(());
        };
        match output {
            Output::Send(frame) => return self.send_frame(session, &frame, None),
            Output::Seal(frame) => return self.seal_frame(now, place, &frame),
            Output::Install(opening) => self.install(place, *opening),
            Output::Switch(sealing) => {
                state.counters.set_suite(Some(sealing.suite()));
                transport.sealing = Some(Arc::from(sealing));
            }
            Output::Withdraw => {
                state.counters.set_suite(None);
                transport.sealing = None;
            }
            Output::Retire(index) => {
                transport.openings.retain(|one| one.index() != index);
                self.indexes.retire(now, index);
                self.retire(index);
            }
            Output::Up(suite) => {
                let result = Ok(suite);
                let event = Event::Transport { session, result };
                self.out.events.push_back(event);
            }
            Output::Failed(why) => {
                let result = Err(why);
                let event = Event::Transport { session, result };
                self.out.events.push_back(event);
            }
        }
        Ok(())
    }

    /// Seals a control frame by the key that seals user packets, to where they go.
    fn seal_frame(&mut self, now: Moment, place: usize, frame: &[u8]) -> Result<(), DropReason> {
        let state = self.sessions.at(place).ok_or(DropReason::NoSession)?;
        let endpoint = state.endpoint.ok_or(DropReason::NoSession)?;
        let sealing = sealing_of(state).ok_or(DropReason::NoSession)?;
        if !state.try_spend(frame.len(), Purpose::Control) {
            return Err(DropReason::OutUnproven);
        }
        let run = sealing.run(now, 1, frame.len());
        let mut run = run.map_err(|_stopped| DropReason::NoSession)?;
        let sealed = run.seal(frame, frame.len(), self.out.room()?);
        let len = sealed.map_err(|_no_room| DropReason::FrameTooLong)?;
        self.out.commit(len, endpoint)
    }
}

/// Counters for all segments of a packet, none of which is padded beyond `limit`. None: the key may seal no more.
pub(super) fn run(
    sealing: &Sealing,
    now: Moment,
    lengths: Lengths,
    limit: usize,
) -> Option<Run<'_>> {
    let many = padded(lengths.each, limit) * (lengths.segments - 1);
    let bytes = many + padded(lengths.last, limit);
    let packets = u32::try_from(lengths.segments).unwrap_or(u32::MAX);
    sealing.run(now, packets, bytes).ok()
}

fn sealing_of(state: &State) -> Option<Arc<Sealing>> {
    state.transport.as_deref()?.sealing.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn no_more_than_the_last_two_frames_wait_and_no_longer_than_a_second() {
        let mut early = Early::default();
        let start = Moment(1_000_000);
        let lost: Vec<bool> = (1..=4).map(|number| early.keep(start, &[number])).collect();
        assert_eq!(lost, [false, false, true, true]);
        assert_eq!(early.take(start).collect::<Vec<_>>(), [[3], [4]]);
        assert_eq!(early.take(start).count(), 0);
        early.keep(start, &[5]);
        early.keep(start.after(EARLY), &[6]);
        let young: Vec<_> = early.take(start.after(EARLY)).collect();
        assert_eq!(young, [[6]]);
    }

    #[test]
    fn an_index_that_is_gone_belongs_to_nobody_for_300_s() {
        let mut indexes = Indexes::default();
        let mut random = ChaCha12Rng::from_seed([1; 32]);
        let start = Moment(1_000_000);
        let first = indexes.draw(&mut random, 7, 0);
        assert!(first < 1 << 24);
        assert_eq!(indexes.place(first), Some(7));
        indexes.retire(start, first);
        assert_eq!(indexes.place(first), None);
        // The same numbers come again: the first of them is not free.
        let mut again = ChaCha12Rng::from_seed([1; 32]);
        let second = indexes.draw(&mut again, 8, 0);
        assert_ne!(second, first);
        indexes.retire(start.after(INDEX_REUSE), second);
        let mut again = ChaCha12Rng::from_seed([1; 32]);
        assert_eq!(indexes.draw(&mut again, 9, 0), first);
    }
}
