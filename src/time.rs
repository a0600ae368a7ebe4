//! Time as the cores see it: they are told it, they never ask.
//!
//! Two clocks, never confused: [`Moment`] is this machine's own clock that no one can set and that runs on through
//! sleep (CLOCK_BOOTTIME); `unix_ms` is the wall clock, which may jump and may be wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A point on this machine's CLOCK_BOOTTIME (in the simulator: on the virtual clock), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `later` from this one; saturates at the end of time.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(later.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// What time it is, by both clocks, handed to every `handle_*` of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock that only runs forward.
    pub at: Moment,
    /// The wall clock, milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// The wall clock in whole seconds since 1970.
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// Deadlines, one per key: setting a key again moves its deadline. Every core keeps its deadlines here and nowhere else.
#[derive(Clone, Debug)]
pub struct Timers<K: Ord> {
    by_key: BTreeMap<K, Moment>,
    by_moment: BTreeSet<(Moment, K)>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_moment: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the one deadline of `key`, earlier or later than the one it had.
    pub fn set(&mut self, key: K, at: Moment) {
        self.clear(&key);
        self.by_moment.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Sets the deadline of `key` unless it has an earlier one.
    pub fn set_earlier(&mut self, key: K, at: Moment) {
        if self.at(&key).is_none_or(|standing| at < standing) {
            self.set(key, at);
        }
    }

    /// Takes the deadline of `key` away, if it has one.
    pub fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_moment.remove(&(at, key.clone()));
        }
    }

    /// The deadline of `key`.
    pub fn at(&self, key: &K) -> Option<Moment> {
        self.by_key.get(key).copied()
    }

    /// Every key with its deadline, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Moment)> {
        self.by_moment.iter().map(|(at, key)| (key, *at))
    }

    /// The earliest deadline of all.
    pub fn next(&self) -> Option<Moment> {
        self.by_moment.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key whose deadline has come by `now`; equal deadlines come in the order of their keys.
    pub fn pop_due(&mut self, now: Moment) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_moment.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_the_last_one_set_counts() {
        let mut timers = Timers::default();
        timers.set('a', Moment(5));
        timers.set('a', Moment(9));
        assert_eq!(timers.next(), Some(Moment(9)));
        assert_eq!(timers.pop_due(Moment(8)), None);
        assert_eq!(timers.pop_due(Moment(9)), Some('a'));
        assert_eq!(timers.pop_due(Moment(99)), None);
    }

    #[test]
    fn due_keys_come_in_the_order_of_their_deadlines() {
        let mut timers = Timers::default();
        timers.set('b', Moment(1));
        timers.set('a', Moment(2));
        timers.set('c', Moment(3));
        timers.clear(&'a');
        assert_eq!(timers.pop_due(Moment(3)), Some('b'));
        assert_eq!(timers.pop_due(Moment(3)), Some('c'));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn set_earlier_never_puts_a_deadline_off() {
        let mut timers = Timers::default();
        timers.set_earlier('a', Moment(5));
        timers.set_earlier('a', Moment(9));
        assert_eq!(timers.at(&'a'), Some(Moment(5)));
        timers.set_earlier('a', Moment(2));
        assert_eq!(timers.at(&'a'), Some(Moment(2)));
    }

    #[test]
    fn a_moment_never_wraps() {
        let moment = Moment(1_000_000);
        assert_eq!(moment.after(Duration::from_millis(1)), Moment(1_001_000));
        assert_eq!(moment.after(Duration::MAX), Moment(u64::MAX));
        assert_eq!(Moment(5).since(moment), Duration::ZERO);
        assert_eq!(moment.since(Moment(5)), Duration::from_micros(999_995));
    }

    #[test]
    fn unix_seconds_are_cut_not_rounded() {
        let now = Now {
            at: Moment(0),
            unix_ms: 1_999,
        };
        assert_eq!(now.unix_s(), 1);
    }
}
