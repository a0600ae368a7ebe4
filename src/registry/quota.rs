//! What one origin may store, and how fast it may change it (protocol §7).

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ids::NodeId,
    time::Moment,
    wire::record::{Body, Record},
};

/// Services of one origin (protocol §7).
pub const SERVICES_MAX: usize = 64;

/// Bytes of all records that one origin signs about itself; 32 KiB, protocol §7.
pub const BYTES_MAX: usize = 32 * 1024;

/// One update per slot in this time, sustained (protocol §7).
pub const UPDATE_EVERY: Duration = Duration::from_secs(1);

/// Updates of one slot that may come at once: twice the burst of a Peer record (protocol §7) and some, because a
/// network that heals brings two versions at once, and a person may say down and up a few times in a row.
pub const UPDATE_BURST: u32 = 10;

/// What one origin stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    services: usize,
    bytes: usize,
}

impl Usage {
    fn of(record: &Record, body: &Body) -> Self {
        let is_service = matches!(body, Body::Service(service) if !service.ports.is_empty());
        Self {
            services: usize::from(is_service),
            bytes: record.bytes().len(),
        }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            services: self.services + more.services,
            bytes: self.bytes + more.bytes,
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            services: self.services.saturating_sub(less.services),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    /// More than an origin may store, and more than it did.
    fn is_over(self, before: Self) -> bool {
        let too_many = self.services > SERVICES_MAX && self.services > before.services;
        let too_big = self.bytes > BYTES_MAX && self.bytes > before.bytes;
        too_many || too_big
    }
}

/// What every origin stores.
#[derive(Clone, Debug, Default)]
pub(super) struct Usages {
    by_origin: BTreeMap<NodeId, Usage>,
}

impl Usages {
    /// Whether `new` fits when it stands in place of `old`.
    pub(super) fn has_room(&self, new: (&Record, &Body), old: Option<(&Record, &Body)>) -> bool {
        let before = self.of(new.0.signer());
        let rest = old.map_or(before, |(record, body)| {
            before.minus(Usage::of(record, body))
        });
        !rest.plus(Usage::of(new.0, new.1)).is_over(before)
    }

    pub(super) fn add(&mut self, record: &Record, body: &Body) {
        let usage = self.of(record.signer()).plus(Usage::of(record, body));
        self.by_origin.insert(record.signer(), usage);
    }

    pub(super) fn subtract(&mut self, record: &Record, body: &Body) {
        let usage = self.of(record.signer()).minus(Usage::of(record, body));
        if usage == Usage::default() {
            self.by_origin.remove(&record.signer());
        } else {
            self.by_origin.insert(record.signer(), usage);
        }
    }

    fn of(&self, origin: NodeId) -> Usage {
        self.by_origin.get(&origin).copied().unwrap_or_default()
    }
}

/// How far ahead of its pace the updates of one slot are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace(Moment);

impl Pace {
    /// The pace after one more update now; none: it comes too fast.
    pub(super) fn after_update(self, now: Moment) -> Option<Self> {
        let next = self.0.max(now).after(UPDATE_EVERY);
        (next.since(now) <= UPDATE_EVERY * UPDATE_BURST).then_some(Self(next))
    }
}
