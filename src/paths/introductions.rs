//! What a member hands on for people with a token (protocol §9): how many of them, how many bytes, and for how long.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    addr::{Path, Underlay},
    ids::JoinId,
    time::Moment,
};

/// How long one joiner is helped.
const LASTS: Duration = Duration::from_mins(1);

/// How many bytes one joiner may have handed on, both ways together.
const BYTES_MAX: usize = 64 << 10;

/// How many joiners of one invite are helped in [`LASTS`].
const JOINERS_MAX: usize = 5;

/// Joiners remembered in all.
const REMEMBERED_MAX: usize = 1024;

/// The joiners that are being helped.
#[derive(Clone, Debug, Default)]
pub struct Introductions(BTreeMap<(JoinId, Underlay), Help>);

#[derive(Clone, Copy, Debug)]
struct Help {
    begun: Moment,
    bytes: usize,
    /// Where the joiner's last datagram came from: by UDP from its address, or on a stream from there.
    path: Path,
}

impl Introductions {
    /// A joiner's datagram, which came by `path`: whether it is handed on. It is counted if so.
    pub fn forth(
        &mut self,
        now: Moment,
        (join, joiner): (JoinId, Underlay),
        path: Path,
        bytes: usize,
    ) -> bool {
        self.0.retain(|_, help| now.since(help.begun) < LASTS);
        if !self.0.contains_key(&(join, joiner)) {
            let of_invite = self.0.keys().filter(|(other, _)| *other == join).count();
            if of_invite >= JOINERS_MAX || self.0.len() >= REMEMBERED_MAX {
                return false;
            }
            let help = Help {
                begun: now,
                bytes: 0,
                path,
            };
            self.0.insert((join, joiner), help);
        }
        let helped = self.spend(now, (join, joiner), bytes);
        helped.map(|help| help.path = path).is_some()
    }

    /// The issuer's answer to a joiner: by which path it is handed on, if at all. It is counted if so.
    pub fn back(&mut self, now: Moment, whose: (JoinId, Underlay), bytes: usize) -> Option<Path> {
        self.spend(now, whose, bytes).map(|help| help.path)
    }

    fn spend(&mut self, now: Moment, whose: (JoinId, Underlay), bytes: usize) -> Option<&mut Help> {
        let help = self.0.get_mut(&whose)?;
        let is_young = now.since(help.begun) < LASTS;
        if !is_young || help.bytes + bytes > BYTES_MAX {
            return None;
        }
        help.bytes += bytes;
        Some(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: JoinId = JoinId([1; 8]);

    fn joiner(last: u8) -> Underlay {
        Underlay::new(([198, 51, 100, last], 41820).into())
    }

    fn forth(
        help: &mut Introductions,
        now: Moment,
        whose: (JoinId, Underlay),
        bytes: usize,
    ) -> bool {
        help.forth(now, whose, Path::Direct(whose.1), bytes)
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn one_joiner_has_64_kib_both_ways_for_a_minute() {
        let mut help = Introductions::default();
        assert!(forth(&mut help, at(1), (JOIN, joiner(1)), 1000));
        let passed = (0..100)
            .filter_map(|_| help.back(at(2), (JOIN, joiner(1)), 1000))
            .count();
        assert_eq!(passed, 64);
        assert!(!forth(&mut help, at(3), (JOIN, joiner(1)), 1000));
        assert!(forth(&mut help, at(61), (JOIN, joiner(1)), 1000));
    }

    #[test]
    fn nobody_is_answered_who_did_not_ask_or_asked_long_ago() {
        let mut help = Introductions::default();
        assert_eq!(help.back(at(1), (JOIN, joiner(1)), 10), None);
        forth(&mut help, at(1), (JOIN, joiner(1)), 10);
        assert_eq!(help.back(at(2), (JoinId([2; 8]), joiner(1)), 10), None);
        assert_eq!(help.back(at(61), (JOIN, joiner(1)), 10), None);
    }

    #[test]
    fn five_joiners_a_minute_are_helped_with_one_invite() {
        let mut help = Introductions::default();
        let helped = (0..20)
            .filter(|last| forth(&mut help, at(1), (JOIN, joiner(*last)), 10))
            .count();
        assert_eq!(helped, 5);
        assert!(forth(&mut help, at(1), (JoinId([2; 8]), joiner(9)), 10));
        assert!(forth(&mut help, at(61), (JOIN, joiner(9)), 10));
    }

    #[test]
    fn joiners_are_bounded() {
        let mut help = Introductions::default();
        for number in 0..5000_u32 {
            let join = JoinId(u64::from(number).to_le_bytes());
            forth(&mut help, at(1), (join, joiner(1)), 10);
        }
        assert_eq!(help.0.len(), REMEMBERED_MAX);
    }
}
