//! Records whose signer's right is not known yet, for a little while (protocol §7).

use std::{collections::BTreeMap, time::Duration};

use crate::{time::Moment, wire::record::Record};

/// How many are kept aside (protocol §7); more would let strangers fill memory.
pub const ASIDE_MAX: usize = 256;

/// How long one is kept aside (protocol §7); what comes later comes again by reconciliation.
pub const ASIDE_FOR: Duration = Duration::from_secs(600);

/// The records kept aside, by their hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Aside {
    by_id: BTreeMap<[u8; 32], (Record, Moment)>,
}

impl Aside {
    /// False: there is no room, or it is there already.
    pub(super) fn put(&mut self, record: Record, at: Moment) -> bool {
        self.drop_old(at);
        if self.by_id.len() >= ASIDE_MAX || self.by_id.contains_key(&record.id()) {
            return false;
        }
        self.by_id.insert(record.id(), (record, at));
        true
    }

    pub(super) fn take_all(&mut self, at: Moment) -> Vec<Record> {
        self.drop_old(at);
        std::mem::take(&mut self.by_id)
            .into_values()
            .map(|(record, _)| record)
            .collect()
    }

    fn drop_old(&mut self, at: Moment) {
        self.by_id
            .retain(|_, (_, since)| at.since(*since) < ASIDE_FOR);
    }
}
