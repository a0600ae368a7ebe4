//! Records whose signer's right is not known yet, for a little while (protocol §7).

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::PeerIx, time::Moment, wire::record::Record};

/// How many are kept aside (protocol §7); more would let strangers fill memory.
pub const ASIDE_MAX: usize = 256;

/// How long one is kept aside (protocol §7); what comes later comes again by reconciliation.
pub const ASIDE_FOR: Duration = Duration::from_secs(600);

/// What became of a record that was to be kept aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was lost is counted"]
pub enum SetAside {
    /// It is kept.
    Kept,
    /// It is kept, and the oldest of the sender with the most is lost for it.
    KeptForAnother,
    /// It was there already.
    Known,
    /// It is lost: there is no room.
    Lost,
}

/// The records kept aside, by their hash. One sender may fill all the room, as a newcomer's only link does; but when
/// there is none, the one with the most gives way to those with fewer, so that who floods crowds out itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Aside {
    by_id: BTreeMap<[u8; 32], Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    record: Record,
    /// None: nobody's session; all such are one sender.
    from: Option<PeerIx>,
    since: Moment,
}

impl Aside {
    pub(super) fn put(&mut self, record: Record, from: Option<PeerIx>, at: Moment) -> SetAside {
        self.drop_old(at);
        if self.by_id.contains_key(&record.id()) {
            return SetAside::Known;
        }
        let mut outcome = SetAside::Kept;
        if self.by_id.len() >= ASIDE_MAX {
            if !self.has_made_room(from) {
                return SetAside::Lost;
            }
            outcome = SetAside::KeptForAnother;
        }
        let waiting = Waiting {
            record,
            from,
            since: at,
        };
        self.by_id.insert(waiting.record.id(), waiting);
        outcome
    }

    /// Every record with who sent it.
    pub(super) fn take_all(&mut self, at: Moment) -> Vec<(Record, Option<PeerIx>)> {
        self.drop_old(at);
        std::mem::take(&mut self.by_id)
            .into_values()
            .map(|waiting| (waiting.record, waiting.from))
            .collect()
    }

    /// Takes out the oldest of the sender with the most, unless `from` would have as many.
    fn has_made_room(&mut self, from: Option<PeerIx>) -> bool {
        let mut counts: BTreeMap<Option<PeerIx>, usize> = BTreeMap::new();
        for waiting in self.by_id.values() {
            *counts.entry(waiting.from).or_default() += 1;
        }
        let own = counts.get(&from).copied().unwrap_or_default();
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((greedy, _)) = most.filter(|(_, most)| *most > own + 1) else {
            return false;
        };
        let theirs = self.by_id.iter().filter(|(_, w)| w.from == greedy);
        let oldest = theirs.min_by_key(|(_, w)| w.since).map(|(id, _)| *id);
        oldest.is_some_and(|oldest| self.by_id.remove(&oldest).is_some())
    }

    fn drop_old(&mut self, at: Moment) {
        self.by_id
            .retain(|_, waiting| at.since(waiting.since) < ASIDE_FOR);
    }
}
