//! How much of something may happen per second: one number per meter (the generic cell rate algorithm).

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use crate::time::Moment;

/// A rate: one per `each`, and `burst` at once after a rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// The time one takes.
    pub(super) each: Duration,
    /// How many may come at once.
    pub(super) burst: u32,
}

/// One meter: when the next one would be due if they came evenly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter(Moment);

impl Meter {
    /// Whether one more may happen now; it is counted if so.
    pub(super) fn take(&mut self, now: Moment, rate: Rate) -> bool {
        let ahead = rate.each * rate.burst.saturating_sub(1);
        if self.0 > now.after(ahead) {
            return false;
        }
        self.0 = self.0.max(now).after(rate.each);
        true
    }
}

/// Meters per source address (/32, /64), in a table that never grows. Sources that meet in a slot share it; which do
/// is secret and drawn anew at every start.
#[derive(Debug)]
pub(super) struct Sources {
    meters: Vec<Meter>,
    key: RandomState,
    rate: Rate,
}

/// Slots of a table: two honest sources meet in one with probability 1 in 4,096.
const SLOTS: usize = 4096;

impl Sources {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            meters: vec![Meter::default(); SLOTS],
            key: RandomState::new(),
            rate,
        }
    }

    /// Whether one more may come from this source now.
    pub(super) fn take(&mut self, now: Moment, source: IpAddr) -> bool {
        let prefix = match source {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(0),
        };
        let slot = self.key.hash_one((source.is_ipv4(), prefix)) % SLOTS as u64;
        usize::try_from(slot)
            .ok()
            .and_then(|slot| self.meters.get_mut(slot))
            .is_some_and(|meter| meter.take(now, self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        each: Duration::from_millis(50),
        burst: 5,
    };

    #[test]
    fn a_burst_passes_and_then_twenty_a_second() {
        let mut meter = Meter::default();
        let at = Moment(1_000_000_000);
        assert_eq!((0..9).filter(|_| meter.take(at, RATE)).count(), 5);
        let later = (0..1000u64).filter(|ms| meter.take(Moment(at.0 + ms * 1000), RATE));
        assert!((19..=20).contains(&later.count()));
    }

    #[test]
    fn one_source_does_not_use_up_another() {
        let mut sources = Sources::new(RATE);
        let now = Moment(1_000_000_000);
        let first = "192.0.2.1".parse().unwrap();
        while sources.take(now, first) {}
        let others = (2..=250u8).filter(|last| sources.take(now, [192, 0, 2, *last].into()));
        assert!(others.count() > 200);
    }

    #[test]
    fn a_v6_source_is_its_64() {
        let mut sources = Sources::new(RATE);
        let now = Moment(1_000_000_000);
        let taken = (0..40u16).filter(|i| {
            sources.take(
                now,
                std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, *i).into(),
            )
        });
        assert_eq!(taken.count(), 5);
    }
}
