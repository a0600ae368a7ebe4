//! What is to be said, asked and answered on one link. Every table is bounded; what does not fit waits for a digest
//! round.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{ENTRIES_MAX, LOST_FOR, LinkKind, Shelf, budget::Budget, pack, round::Round};
use crate::{
    ids::{PeerIx, Slot, Version},
    time::Moment,
    wire::{
        frame::BODY_MAX,
        message::{Advert, Digest, Message, Slots, Want},
        record::{Kind, Record},
    },
};

/// Changes waiting for an Advert: 16 Adverts, half a minute of them. More are named faster by a digest round.
const ADVERTS_MAX: usize = 1024;

/// How often a change is advertised to a link that shows no sign of having it: a lost Advert would else wait for the
/// digest round. Whoever sits behind a lossy line may have nobody else who tells it.
const TELLINGS: u8 = 4;

/// Records a link has and we want: 64 Wants. The rest is found by the next round.
const SOUGHT_MAX: usize = 4096;

/// Records asked for at once. At most 64 KiB come back, a second and a half of the budget.
const IN_FLIGHT_MAX: usize = ENTRIES_MAX;

/// How long an answer to a Want is waited for: twice what the sender's budget may take for it.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(3);

/// How often a record is asked for on one link before it is left to the next digest round.
const ASKS_MAX: u8 = 3;

/// Slots a link asked for and was not sent yet: 8 Wants. An honest peer has one under way.
const SERVE_MAX: usize = 8 * ENTRIES_MAX;

/// Urgent records waiting for the budget. What is dropped is advertised all the same.
const URGENT_MAX: usize = 64;

/// Records of a link that lost, remembered. Beyond it one is forgotten, and may be asked for once more.
const LOST_MAX: usize = 1024;

/// Messages made that wait for the budget, above which no Advert is added.
const READY_MAX: usize = 128;

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) kind: LinkKind,
    pub(super) budget: Budget,
    pub(super) round: Round,
    pub(super) advertised: Option<Moment>,
    pub(super) is_digest_due: bool,
    ready: VecDeque<Message>,
    adverts: BTreeMap<Slot, Telling>,
    sought: BTreeMap<Slot, Sought>,
    in_flight: BTreeMap<Slot, Moment>,
    serve: BTreeSet<Slot>,
    naming: BTreeSet<u8>,
    urgent: VecDeque<Record>,
    lost: BTreeMap<Slot, (Version, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Telling {
    version: Version,
    left: u8,
}

#[derive(Clone, Copy, Debug)]
struct Sought {
    version: Version,
    asks: u8,
}

/// Whether a table took something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It did.
    Taken,
    /// It is full.
    Full,
}

/// Whether the record `offered` should be asked for where `held` stands. The kinds that others than the subject sign
/// are not compared by version alone, so any difference is pulled and judged.
pub(super) fn is_wanted(held: Option<(Version, Kind)>, offered: Version) -> bool {
    let Some((version, kind)) = held else {
        return true;
    };
    match kind {
        Kind::Admin | Kind::Member | Kind::Revoke | Kind::Epoch | Kind::Policy => {
            offered != version
        }
        Kind::Network
        | Kind::Peer
        | Kind::Lease
        | Kind::Service
        | Kind::Health
        | Kind::Invite
        | Kind::Heartbeat
        | Kind::Unknown(_) => offered > version,
    }
}

impl Line {
    pub(super) fn new(kind: LinkKind) -> Self {
        Self {
            kind,
            budget: Budget::default(),
            round: Round::default(),
            advertised: None,
            is_digest_due: false,
            ready: VecDeque::new(),
            adverts: BTreeMap::new(),
            sought: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            serve: BTreeSet::new(),
            naming: BTreeSet::new(),
            urgent: VecDeque::new(),
            lost: BTreeMap::new(),
        }
    }

    /// Puts a change up for the next Advert, unless the link is known to have it.
    pub(super) fn tell(&mut self, slot: Slot, version: Version) -> Room {
        if self
            .sought
            .get(&slot)
            .is_some_and(|sought| sought.version == version)
        {
            return Room::Taken;
        }
        if self.adverts.len() >= ADVERTS_MAX && !self.adverts.contains_key(&slot) {
            return Room::Full;
        }
        let left = TELLINGS;
        self.adverts.insert(slot, Telling { version, left });
        Room::Taken
    }

    /// The link has shown that it knows of this version.
    pub(super) fn handle_known(&mut self, slot: Slot, version: Version) {
        if self
            .adverts
            .get(&slot)
            .is_some_and(|telling| telling.version == version)
        {
            self.adverts.remove(&slot);
        }
    }

    pub(super) fn has_adverts(&self) -> bool {
        !self.adverts.is_empty()
    }

    /// Makes the next Advert.
    pub(super) fn advertise(&mut self, now: Moment) {
        if self.ready.len() >= READY_MAX {
            return;
        }
        let mut entries = Vec::new();
        for (slot, telling) in self.adverts.iter_mut().take(ENTRIES_MAX) {
            entries.push((*slot, telling.version));
            telling.left -= 1;
        }
        self.adverts.retain(|_, telling| telling.left > 0);
        if !entries.is_empty() {
            self.advertised = Some(now);
            self.ready.push_back(Message::Advert(Advert { entries }));
        }
    }

    /// The link has this version, and we want it.
    pub(super) fn seek(&mut self, now: Moment, slot: Slot, version: Version) -> Room {
        let is_lost = |(lost, until): &(Version, Moment)| *lost == version && *until > now;
        if self.lost.get(&slot).is_some_and(is_lost) {
            return Room::Taken;
        }
        let known = self.sought.get(&slot).map(|sought| sought.version);
        if known.is_none() && self.sought.len() >= SOUGHT_MAX {
            return Room::Full;
        }
        if known != Some(version) {
            self.sought.insert(slot, Sought { version, asks: 0 });
        }
        Room::Taken
    }

    pub(super) fn is_seeking(&self) -> bool {
        !self.sought.is_empty()
    }

    /// A version of this slot was stored, from wherever: what is no longer wanted is no longer sought.
    pub(super) fn handle_stored(&mut self, slot: Slot, held: (Version, Kind)) {
        self.in_flight.remove(&slot);
        let Some(sought) = self.sought.get(&slot) else {
            return;
        };
        if !is_wanted(Some(held), sought.version) || sought.asks >= ASKS_MAX {
            self.sought.remove(&slot);
        }
    }

    /// What came for this slot was refused.
    pub(super) fn handle_lost(&mut self, now: Moment, slot: Slot, version: Version) {
        if self.lost.len() >= LOST_MAX {
            self.lost.retain(|_, (_, until)| *until > now);
        }
        if self.lost.len() >= LOST_MAX {
            self.lost.pop_first();
        }
        self.lost.insert(slot, (version, now.after(LOST_FOR)));
        self.in_flight.remove(&slot);
        let is_it = |sought: &Sought| sought.version == version || sought.asks >= ASKS_MAX;
        if self.sought.get(&slot).is_some_and(is_it) {
            self.sought.remove(&slot);
        }
    }

    /// When the first of the records asked for is late.
    pub(super) fn asked_until(&self) -> Option<Moment> {
        self.in_flight.values().min().copied()
    }

    /// Takes back what was asked and did not come. It is asked again, here or elsewhere, until enough is enough.
    pub(super) fn take_late(&mut self, now: Moment) -> Vec<Slot> {
        let late: Vec<Slot> = self
            .in_flight
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in &late {
            self.in_flight.remove(slot);
            if self
                .sought
                .get(slot)
                .is_some_and(|sought| sought.asks >= ASKS_MAX)
            {
                self.sought.remove(slot);
                self.round.note_missed(now);
            }
        }
        late
    }

    /// The link asks for these.
    pub(super) fn handle_want(&mut self, want: &Want) -> Room {
        for slot in want.slots.iter().take(ENTRIES_MAX) {
            self.adverts.remove(slot);
            if self.serve.len() >= SERVE_MAX {
                return Room::Full;
            }
            self.serve.insert(*slot);
        }
        Room::Taken
    }

    /// These buckets differ: name what we hold in them.
    pub(super) fn name(&mut self, buckets: impl IntoIterator<Item = u8>) {
        self.naming.extend(buckets);
    }

    pub(super) fn flood(&mut self, record: Record) -> Room {
        if self.urgent.len() >= URGENT_MAX {
            return Room::Full;
        }
        self.urgent.push_back(record);
        let ordered = self.urgent.make_contiguous();
        ordered.sort_by_key(|record| record.kind() == Kind::Epoch);
        Room::Taken
    }

    /// The next flood message, if there is one: every Revoke before every Epoch.
    pub(super) fn urgent(&self) -> Option<Message> {
        let count = self.urgent_count()?;
        let records: Vec<Record> = self.urgent.iter().take(count).cloned().collect();
        pack::pack(&records, BODY_MAX).into_iter().next()
    }

    /// The message of [`Self::urgent`] is on its way.
    pub(super) fn handle_flooded(&mut self) {
        if let Some(count) = self.urgent_count() {
            self.urgent.drain(..count);
        }
    }

    fn urgent_count(&self) -> Option<usize> {
        self.urgent.front()?;
        let lens = self.urgent.iter().map(|record| record.bytes().len());
        Some(pack::fitting(lens, BODY_MAX))
    }

    /// The next calm message, if there is one.
    pub(super) fn front(&self) -> Option<&Message> {
        self.ready.front()
    }

    /// The message of [`Self::front`] goes out.
    pub(super) fn pop_front(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }

    /// Makes the next calm messages, if anything is to be said: digests first, then questions, then answers.
    pub(super) fn refill(
        &mut self,
        now: Moment,
        peer: PeerIx,
        asked: &mut BTreeMap<Slot, PeerIx>,
        shelf: &dyn Shelf,
    ) {
        if std::mem::take(&mut self.is_digest_due) {
            let sums = shelf.sums();
            self.round.handle_sent(&sums);
            self.ready.push_back(Message::Digest(Digest { sums }));
        } else if let Some(want) = self.ask(now, peer, asked) {
            self.ready.push_back(Message::Want(want));
        } else if let Some(bucket) = self.naming.pop_first() {
            self.ready.extend(named(bucket, shelf));
        } else if !self.serve.is_empty() {
            let slots: Vec<Slot> = self.serve.iter().take(ENTRIES_MAX).copied().collect();
            for slot in &slots {
                self.serve.remove(slot);
            }
            self.ready
                .extend(pack::answer(&Want { slots }, BODY_MAX, shelf));
        }
    }

    /// Whether [`Self::refill`] has anything left to look at.
    pub(super) fn has_more(&self) -> bool {
        self.is_digest_due || !self.naming.is_empty() || !self.serve.is_empty()
    }

    /// The next Want: of what is sought, what nobody is asked for already. Half of the room must be free, so that
    /// questions travel together.
    fn ask(
        &mut self,
        now: Moment,
        peer: PeerIx,
        asked: &mut BTreeMap<Slot, PeerIx>,
    ) -> Option<Want> {
        if self.in_flight.len() > IN_FLIGHT_MAX / 2 {
            return None;
        }
        let room = IN_FLIGHT_MAX - self.in_flight.len();
        let mut slots = Vec::new();
        for (slot, sought) in &mut self.sought {
            if slots.len() == room {
                break;
            }
            if asked.contains_key(slot) {
                continue;
            }
            sought.asks += 1;
            asked.insert(*slot, peer);
            self.in_flight.insert(*slot, now.after(ASK_AGAIN));
            slots.push(*slot);
        }
        (!slots.is_empty()).then_some(Want { slots })
    }
}

/// Everything offered in one bucket, in parts; one empty part where there is nothing.
fn named(bucket: u8, shelf: &dyn Shelf) -> Vec<Message> {
    let mut entries = shelf.bucket(bucket);
    entries.retain(|(slot, _)| shelf.is_offered(*slot));
    let mut parts: Vec<Vec<(Slot, Version)>> =
        entries.chunks(ENTRIES_MAX).map(<[_]>::to_vec).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let last = u64::try_from(parts.len() - 1).unwrap_or(u64::MAX);
    (0..)
        .zip(parts)
        .map(|(part, entries)| {
            let bucket = u64::from(bucket);
            Message::Slots(Slots {
                bucket,
                part,
                last,
                entries,
            })
        })
        .collect()
}
