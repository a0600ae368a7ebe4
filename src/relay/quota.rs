//! How much a relay carries: so many bytes a second for each member, and in all (reliability D11).

use std::collections::HashMap;

use crate::{ids::PeerIx, time::Moment};

/// How far a sender may be ahead of its rate: what a burst of TCP needs, and less than a buffer on the way would add.
const BURST_NS: u64 = 50_000_000;

const NS_PER_S: u64 = 1_000_000_000;

/// Bytes a second that are carried for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For everybody together.
    pub in_all: u64,
    /// What one member sends.
    pub per_member: u64,
}

impl Limit {
    /// So many Mbit/s in all, of which one member gets at most half.
    pub fn of_megabits(megabits: u32) -> Self {
        let in_all = u64::from(megabits) * 125_000;
        Self {
            in_all,
            per_member: in_all / 2,
        }
    }
}

/// What was spent of the limit.
#[derive(Clone, Debug)]
pub struct Quota {
    limit: Limit,
    all: Bucket,
    members: HashMap<PeerIx, Bucket>,
}

/// When the next byte would be due if they came evenly.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u64);

impl Quota {
    /// Nothing is spent.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            all: Bucket::default(),
            members: HashMap::new(),
        }
    }

    /// The limit from now on.
    pub fn set(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// A member has a way: its bucket stands ready, so that no packet has to make one.
    pub fn know(&mut self, member: PeerIx) {
        self.members.entry(member).or_default();
    }

    /// Whether this member may send so many bytes more now; they are counted if so. What one member may not send is not
    /// taken from the others.
    pub fn spend(&mut self, now: Moment, member: PeerIx, bytes: usize) -> bool {
        let Self {
            limit,
            all,
            members,
        } = self;
        let Some(own) = members.get_mut(&member) else {
            return false;
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let fits = own.has_room(now) && all.has_room(now);
        if fits {
            own.take(now, bytes, limit.per_member);
            all.take(now, bytes, limit.in_all);
        }
        fits
    }
}

impl Bucket {
    fn has_room(self, now: Moment) -> bool {
        self.0 <= nanoseconds(now).saturating_add(BURST_NS)
    }

    fn take(&mut self, now: Moment, bytes: u64, rate: u64) {
        let cost = bytes.saturating_mul(NS_PER_S) / rate.max(1);
        self.0 = self.0.max(nanoseconds(now)).saturating_add(cost);
    }
}

fn nanoseconds(now: Moment) -> u64 {
    now.0.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ALICE: PeerIx = PeerIx(1);
    const BOB: PeerIx = PeerIx(2);

    /// How many bytes of packets of 1,000, sent at ten times the rate, come through in 10 s.
    fn carried(quota: &mut Quota, members: &[PeerIx], packets_per_s: u64) -> u64 {
        let mut through = 0;
        for i in 0..10 * packets_per_s {
            let now = Moment(1_000_000).after(Duration::from_micros(i * 1_000_000 / packets_per_s));
            for member in members {
                through += 1000 * u64::from(quota.spend(now, *member, 1000));
            }
        }
        through
    }

    #[test]
    fn a_member_that_floods_gets_its_share_to_within_a_twentieth() {
        let mut quota = Quota::new(Limit::of_megabits(16));
        quota.know(ALICE);
        let through = carried(&mut quota, &[ALICE], 10_000);
        assert!((9_500_000..=10_500_000).contains(&through), "{through}");
    }

    #[test]
    fn all_together_get_the_whole_and_one_does_not_take_it_from_another() {
        let mut quota = Quota::new(Limit::of_megabits(16));
        let three = [ALICE, BOB, PeerIx(3)];
        three.iter().for_each(|member| quota.know(*member));
        let through = carried(&mut quota, &three, 10_000);
        assert!((19_000_000..=21_000_000).contains(&through), "{through}");
        let mut quota = Quota::new(Limit::of_megabits(16));
        quota.know(ALICE);
        quota.know(BOB);
        let now = Moment(1_000_000);
        while quota.spend(now, ALICE, 1000) {}
        assert!(quota.spend(now, BOB, 1000));
    }

    #[test]
    fn who_has_no_way_sends_nothing() {
        assert!(!Quota::new(Limit::of_megabits(16)).spend(Moment(1), ALICE, 1));
    }
}
