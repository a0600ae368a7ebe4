//! How much may be said on one link (protocol §7).

use crate::time::Moment;

/// Bytes a second on one link (protocol §7). Above it a link over a slow line starves the data beside it.
const RATE: u64 = 64 * 1024;

/// How far ahead of its rate a link may be, in microseconds: one second's worth.
const BURST_US: u64 = 1_000_000;

/// The part of [`BURST_US`] that is kept for urgent records: a quarter (protocol §7).
const KEPT_US: u64 = BURST_US / 4;

/// How far ahead of its rate a session that is no link may be: 16 KiB, some five times what a newcomer must be sent.
const UNLINKED_US: u64 = BURST_US / 4;

/// What a message is charged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// May use all.
    Urgent,
    /// Leaves a quarter untouched.
    Calm,
    /// In a session that is no link.
    Unlinked,
}

/// The budget of one link. It stands as the moment at which all that was sent is paid for, so that asking changes
/// nothing and no rounding adds up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    paid_at: Moment,
}

impl Budget {
    /// Whether `bytes` may be sent; nothing is charged.
    pub(super) fn has_room(self, now: Moment, bytes: usize, class: Class) -> bool {
        let mut copy = self;
        copy.try_take(now, bytes, class).is_ok()
    }

    /// Charges `bytes`, or says when they may be sent.
    pub(super) fn try_take(
        &mut self,
        now: Moment,
        bytes: usize,
        class: Class,
    ) -> Result<(), Moment> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let cost = bytes.saturating_mul(1_000_000) / RATE;
        let paid_at = self.paid_at.max(now).0.saturating_add(cost);
        let ahead = match class {
            Class::Urgent => BURST_US,
            Class::Calm => BURST_US - KEPT_US,
            Class::Unlinked => UNLINKED_US,
        };
        if paid_at - now.0 > ahead {
            return Err(Moment(paid_at - ahead));
        }
        self.paid_at = Moment(paid_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that one class may send in the first `seconds`, in messages of 1 KiB, each as soon as it may.
    fn sent_in(seconds: u64, class: Class) -> u64 {
        let mut budget = Budget::default();
        let (mut now, mut sent) = (Moment(0), 0);
        while now.0 < seconds * 1_000_000 {
            match budget.try_take(now, 1024, class) {
                Ok(()) => sent += 1024,
                Err(at) => now = at,
            }
        }
        sent
    }

    #[test]
    fn a_link_never_carries_more_than_its_rate_and_one_burst() {
        assert!(sent_in(10, Class::Calm) <= 10 * RATE + RATE * 3 / 4);
        assert!(sent_in(10, Class::Calm) >= 10 * RATE);
        assert!(sent_in(10, Class::Urgent) <= 11 * RATE);
        assert!(sent_in(10, Class::Unlinked) <= 10 * RATE + RATE / 4);
        assert!(sent_in(10, Class::Unlinked) >= 10 * RATE);
    }

    #[test]
    fn a_quarter_is_left_for_urgent_records_when_calm_ones_took_all_they_may() {
        let mut budget = Budget::default();
        while budget.try_take(Moment(0), 1024, Class::Calm).is_ok() {}
        let mut urgent = 0;
        while budget.try_take(Moment(0), 1024, Class::Urgent).is_ok() {
            urgent += 1024;
        }
        assert_eq!(urgent, RATE / 4);
    }

    #[test]
    fn what_is_refused_may_be_sent_at_the_moment_named_and_not_before() {
        let mut budget = Budget::default();
        let at = loop {
            if let Err(at) = budget.try_take(Moment(7), 1000, Class::Calm) {
                break at;
            }
        };
        assert!(
            budget
                .try_take(Moment(at.0 - 1), 1000, Class::Calm)
                .is_err()
        );
        assert!(budget.try_take(at, 1000, Class::Calm).is_ok());
    }
}
