//! Records that wait for their signature check, each sender's in a queue of its own: who sends many waits for itself.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    ids::{NetworkId, PeerIx},
    keys::{Word, verify},
    wire::record::Record,
};

/// Whether a record was signed by the one it names, for this network. Whether he may sign it is another question.
pub fn is_signed(record: &Record, network: NetworkId) -> bool {
    verify(
        record.signer(),
        Word::Record,
        &network.0,
        &[record.signed_bytes()],
        &record.signature(),
    )
}

/// Records that may wait for their check; more are dropped, and the next digest round brings them again.
const WAITING: usize = 4096;

/// How many of one sender may wait: an honest one has at most 64 asked for and a flood of Revokes on the way.
const WAITING_EACH: usize = 512;

/// The records that wait, by who sent them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unverified {
    by_sender: BTreeMap<PeerIx, VecDeque<Record>>,
    count: usize,
    /// Whose turn was last.
    last: Option<PeerIx>,
}

impl Unverified {
    /// False: there is no room.
    #[must_use]
    pub(super) fn push(&mut self, record: Record, from: PeerIx) -> bool {
        let own = self.by_sender.get(&from).map_or(0, VecDeque::len);
        if own >= WAITING_EACH || (self.count >= WAITING && !self.makes_room(own)) {
            return false;
        }
        self.by_sender.entry(from).or_default().push_back(record);
        self.count += 1;
        true
    }

    /// Drops the newest of whoever has most waiting, if that is more than one who has `own` would have.
    fn makes_room(&mut self, own: usize) -> bool {
        let longest = self.by_sender.values_mut().max_by_key(|queue| queue.len());
        let Some(queue) = longest.filter(|queue| queue.len() > own + 1) else {
            return false;
        };
        queue.pop_back();
        self.count -= 1;
        true
    }

    /// The next record: of the next sender that has one.
    pub(super) fn pop(&mut self) -> Option<(Record, PeerIx)> {
        let after = |last: PeerIx| PeerIx(last.0.saturating_add(1));
        let next = self.last.map_or(PeerIx(0), after);
        let behind = self.by_sender.range(next..).next();
        let (sender, _) = behind.or_else(|| self.by_sender.iter().next())?;
        let sender = *sender;
        let queue = self.by_sender.get_mut(&sender)?;
        let record = queue.pop_front();
        if queue.is_empty() {
            self.by_sender.remove(&sender);
        }
        self.last = Some(sender);
        self.count -= usize::from(record.is_some());
        Some((record?, sender))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Boot,
        wire::record::{Body, Draft, Lease},
    };

    fn record(seq: u64) -> Record {
        let lease = Lease {
            incarnation: Boot([0; 8]),
            expires: 1,
            left: false,
        };
        let draft = Draft {
            seq,
            subject: [1; 32],
            signer: [1; 32],
            body: Body::Lease(lease),
        };
        draft.sign_with(|_| [0; 64]).unwrap()
    }

    #[test]
    fn who_sends_many_waits_for_itself() {
        let mut waiting = Unverified::default();
        let flood = (0..5000).filter(|seq| waiting.push(record(*seq), PeerIx(1)));
        assert_eq!(flood.count(), WAITING_EACH);
        for seq in 0..3 {
            assert!(waiting.push(record(seq), PeerIx(2)));
        }
        let order: Vec<(u64, u32)> = std::iter::from_fn(|| waiting.pop())
            .map(|(record, from)| (record.seq(), from.0))
            .take(8)
            .collect();
        let fair = [
            (0, 1),
            (0, 2),
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (3, 1),
            (4, 1),
        ];
        assert_eq!(order, fair);
        assert_eq!(
            std::iter::from_fn(|| waiting.pop()).count(),
            WAITING_EACH - 5
        );
        assert!(waiting.is_empty());
    }

    #[test]
    fn all_senders_together_have_a_bound() {
        let mut waiting = Unverified::default();
        let senders = (0..100).map(PeerIx);
        let pushed = senders.flat_map(|from| (0..100).map(move |seq| (from, seq)));
        let taken = pushed.filter(|(from, seq)| waiting.push(record(*seq), *from));
        assert!(taken.count() > WAITING);
        assert_eq!(waiting.count, WAITING);
        let lengths = waiting.by_sender.values().map(VecDeque::len);
        assert_eq!((lengths.clone().min(), lengths.max()), (Some(40), Some(41)));
    }
}
