//! The rules of slots (protocol §12): which there are now, when one is poisoned, how entries of several writers become one
//! value, and which entries are news.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{JoinId, NodeId},
    wire::slot::{WHERES_MAX, Where},
};

/// Network slots of one day.
pub(super) const SLOTS: u8 = 4;

/// Values of one slot: who poisons one has to poison all.
pub(super) const GENERATIONS: u8 = 4;

/// A slot, or an entry, that says it was written so much later than now was written to keep others out.
const AHEAD_S: u64 = 3600;

/// How long before and after midnight the neighbour day's slots count too: clocks of members differ.
const EDGE_S: u64 = 2 * 3600;

/// How long an entry is news on the first reading of its slot: a lonely peer writes anew before it is older.
const FRESH_S: u64 = 120;

/// How long an entry that is no news may still be right: somebody who can be reached from outside writes every 45 min.
const STANDING_S: u64 = 2 * 3600;

/// How long an entry is remembered after it was read last, and how many are.
const REMEMBERED_S: u64 = 2 * 3600;
const REMEMBERED_MAX: usize = 512;

const DAY_S: u64 = 86_400;

/// Which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotName {
    /// One of a network's.
    Network {
        /// By whose secret it is made.
        epoch: u32,
        /// Mesh time / 86400.
        day: u32,
        /// Which of the day's [`SLOTS`].
        i: u8,
        /// 0, or more where those before are poisoned.
        generation: u8,
    },
    /// One side of an invite.
    Invite {
        /// Of which.
        join_id: JoinId,
        /// 0 the issuer's, 1 the joiners'.
        side: u8,
    },
}

/// In whose words an entry comes: what is known of a node by one says nothing about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Of holders of an epoch's secret.
    Epoch(u32),
    /// Of holders of a token.
    Invite(JoinId),
}

/// How much an entry is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Its node is there now.
    Fresh,
    /// Its node was there some time ago.
    Standing,
}

/// What was read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    read: BTreeSet<SlotName>,
    last: BTreeMap<(Origin, NodeId), Read>,
}

/// What was read of a node.
#[derive(Clone, Copy, Debug)]
struct Read {
    /// What the entry said of its time.
    said: u64,
    /// The same, but not later than it was read: who dates an entry ahead hides no later one.
    time: u64,
    /// When it was read last.
    read: u64,
}

/// What to make of an entry.
enum Judged {
    /// It was read before.
    Old,
    /// It is too old to be of use.
    Stale,
    /// It is news.
    News(News),
}

impl SlotName {
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Network { epoch, .. } => Origin::Epoch(epoch),
            Self::Invite { join_id, .. } => Origin::Invite(join_id),
        }
    }

    /// The slot to use where this one is poisoned; None: all are, or there is no other.
    pub(super) fn next_generation(self) -> Option<Self> {
        match self {
            Self::Network {
                epoch,
                day,
                i,
                generation,
            } if generation + 1 < GENERATIONS => Some(Self::Network {
                epoch,
                day,
                i,
                generation: generation + 1,
            }),
            Self::Network { .. } | Self::Invite { .. } => None,
        }
    }
}

/// The days whose slots count now: today, and the neighbour near midnight.
pub(super) fn days(now_s: u64) -> Vec<u32> {
    let mut days = vec![now_s, now_s.saturating_sub(EDGE_S), now_s + EDGE_S];
    for day in &mut days {
        *day /= DAY_S;
    }
    let mut days: Vec<u32> = days
        .into_iter()
        .filter_map(|day| u32::try_from(day).ok())
        .collect();
    days.dedup();
    days.sort_unstable();
    days.dedup();
    days
}

/// In which of the slots a node writes; any would do, since readers read all.
pub(super) fn slot_of(node: NodeId) -> u8 {
    node.0[0] % SLOTS
}

/// Whether a number keeps honest writers out.
pub(super) fn is_ahead(now_s: u64, number: u64) -> bool {
    number > now_s.saturating_add(AHEAD_S)
}

/// What is written where `theirs` was read: the own entry, then the newest of each other node.
pub(super) fn merge(now_s: u64, theirs: &[Where], own: Where) -> Vec<Where> {
    let mut newest: BTreeMap<NodeId, &Where> = BTreeMap::new();
    for entry in theirs {
        let is_other = entry.node != own.node && !is_ahead(now_s, entry.time);
        if is_other
            && newest
                .get(&entry.node)
                .is_none_or(|had| had.time < entry.time)
        {
            newest.insert(entry.node, entry);
        }
    }
    let mut others: Vec<Where> = newest.into_values().cloned().collect();
    others.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    let mut merged = vec![own];
    merged.append(&mut others);
    merged.truncate(WHERES_MAX);
    merged
}

impl Memory {
    /// Which entries of a slot that was read just now are news, the newest first. They stay news until they are
    /// [noted](Self::note).
    pub(super) fn sift(
        &mut self,
        now_s: u64,
        slot: SlotName,
        me: NodeId,
        wheres: Vec<Where>,
    ) -> Vec<(Where, News)> {
        let is_first = self.read.insert(slot);
        let mut wheres = wheres;
        wheres.sort_by_key(|entry| std::cmp::Reverse(entry.time));
        let mut nodes = BTreeSet::from([me]);
        wheres.retain(|entry| !is_ahead(now_s, entry.time) && nodes.insert(entry.node));
        let mut news = Vec::new();
        for entry in wheres {
            match self.judge(now_s, slot.origin(), is_first, &entry) {
                Judged::Old => {}
                Judged::Stale => self.note(now_s, slot.origin(), &entry),
                Judged::News(how) => news.push((entry, how)),
            }
        }
        news
    }

    /// An entry was acted upon, or is not worth it: it is no news again.
    pub(super) fn note(&mut self, now_s: u64, origin: Origin, entry: &Where) {
        let of = (origin, entry.node);
        if self.last.len() >= REMEMBERED_MAX && !self.last.contains_key(&of) {
            self.make_room(now_s);
        }
        let read = Read {
            said: entry.time,
            time: entry.time.min(now_s),
            read: now_s,
        };
        self.last.insert(of, read);
    }

    fn make_room(&mut self, now_s: u64) {
        self.last
            .retain(|_, read| now_s.saturating_sub(read.read) < REMEMBERED_S);
        let oldest = self.last.iter().min_by_key(|(_, read)| read.read);
        if let Some(oldest) = oldest.map(|(of, _)| *of)
            && self.last.len() >= REMEMBERED_MAX
        {
            self.last.remove(&oldest);
        }
    }

    /// Forgets slots and entries that are of no use any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(Origin) -> bool) {
        self.read.retain(|slot| is_wanted(slot.origin()));
        self.last.retain(|(origin, _), _| is_wanted(*origin));
    }

    fn judge(&mut self, now_s: u64, origin: Origin, is_first: bool, entry: &Where) -> Judged {
        if let Some(known) = self.last.get_mut(&(origin, entry.node)) {
            known.read = known.read.max(now_s);
            if entry.time == known.said || entry.time <= known.time {
                return Judged::Old;
            }
        }
        if self.is_better_known(now_s, origin, entry.node) {
            return Judged::Stale;
        }
        let age = now_s.saturating_sub(entry.time);
        if !is_first || age < FRESH_S {
            Judged::News(News::Fresh)
        } else if age < STANDING_S {
            Judged::News(News::Standing)
        } else {
            Judged::Stale
        }
    }

    /// Who was excluded still has the epoch before: its word counts only where nobody has a better one.
    fn is_better_known(&self, now_s: u64, origin: Origin, node: NodeId) -> bool {
        let Origin::Epoch(epoch) = origin else {
            return false;
        };
        self.last.iter().any(|((known, of), read)| {
            matches!(known, Origin::Epoch(newer) if *newer > epoch)
                && *of == node
                && now_s.saturating_sub(read.time) < FRESH_S
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Underlay;

    const NOW: u64 = 20_000 * DAY_S + DAY_S / 2;
    const ME: NodeId = NodeId([0; 32]);

    fn entry(node: u8, time: u64) -> Where {
        Where {
            node: NodeId([node; 32]),
            addresses: vec![Underlay::new("203.0.113.9:1".parse().unwrap())],
            time,
        }
    }

    fn slot(epoch: u32) -> SlotName {
        SlotName::Network {
            epoch,
            day: 20_000,
            i: 0,
            generation: 0,
        }
    }

    /// Reads a slot and acts upon all that is news.
    fn read(
        memory: &mut Memory,
        now_s: u64,
        slot: SlotName,
        all: Vec<Where>,
    ) -> Vec<(Where, News)> {
        let news = memory.sift(now_s, slot, ME, all);
        for (entry, _) in &news {
            memory.note(now_s, slot.origin(), entry);
        }
        news
    }

    fn nodes(wheres: &[Where]) -> Vec<u8> {
        wheres.iter().map(|entry| entry.node.0[0]).collect()
    }

    #[test]
    fn near_midnight_the_neighbour_day_counts_too() {
        let day = 20_000 * DAY_S;
        assert_eq!(days(day), [19_999, 20_000]);
        assert_eq!(days(day + 7199), [19_999, 20_000]);
        assert_eq!(days(day + 7200), [20_000]);
        assert_eq!(days(day + DAY_S - 7201), [20_000]);
        assert_eq!(days(day + DAY_S - 7200), [20_000, 20_001]);
        assert_eq!(days(0), [0]);
    }

    #[test]
    fn at_most_8_entries_are_kept_the_newest_and_one_of_each_node() {
        let mut theirs: Vec<Where> = (1..=10)
            .map(|node| entry(node, NOW - u64::from(node)))
            .collect();
        theirs.push(entry(3, NOW - 500));
        theirs.push(entry(0, NOW + 5));
        let merged = merge(NOW, &theirs, entry(0, NOW));
        assert_eq!(nodes(&merged), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(merged[0].time, NOW, "the own entry is the one made now");
        assert_eq!(merged[3].time, NOW - 3);
    }

    #[test]
    fn an_entry_from_the_future_pushes_nobody_out() {
        let theirs: Vec<Where> = (1..=9).map(|node| entry(node, NOW + AHEAD_S + 1)).collect();
        assert_eq!(nodes(&merge(NOW, &theirs, entry(0, NOW))), [0]);
    }

    #[test]
    fn a_poisoned_slot_has_three_more_and_an_invite_none() {
        assert!(!is_ahead(NOW, NOW + AHEAD_S) && is_ahead(NOW, NOW + AHEAD_S + 1));
        assert!(is_ahead(NOW, u64::MAX));
        let mut slots = vec![slot(0)];
        while let Some(next) = slots.last().and_then(|slot| slot.next_generation()) {
            slots.push(next);
        }
        assert_eq!(slots.len(), 4);
        let invite = SlotName::Invite {
            join_id: JoinId([1; 8]),
            side: 0,
        };
        assert_eq!(invite.next_generation(), None);
    }

    #[test]
    fn on_the_first_reading_an_entry_is_news_for_two_minutes_and_worth_a_try_for_two_hours() {
        let judge = |age: u64| {
            let mut memory = Memory::default();
            let news = read(&mut memory, NOW, slot(0), vec![entry(1, NOW - age)]);
            news.first().map(|(_, news)| *news)
        };
        assert_eq!(judge(119), Some(News::Fresh));
        assert_eq!(judge(120), Some(News::Standing));
        assert_eq!(judge(STANDING_S - 1), Some(News::Standing));
        assert_eq!(judge(STANDING_S), None);
    }

    #[test]
    fn after_it_only_what_changed_is_news_whatever_the_writers_clock_says() {
        let mut memory = Memory::default();
        let old = entry(1, NOW - 5 * 3600);
        assert!(read(&mut memory, NOW, slot(0), vec![old.clone()]).is_empty());
        assert!(read(&mut memory, NOW + 20, slot(0), vec![old.clone()]).is_empty());
        let changed = entry(1, NOW - 5 * 3600 + 20);
        let news = read(&mut memory, NOW + 40, slot(0), vec![changed.clone()]);
        assert_eq!(news, [(changed, News::Fresh)]);
        assert!(
            read(&mut memory, NOW + 60, slot(0), vec![old]).is_empty(),
            "replayed"
        );
    }

    #[test]
    fn the_own_entry_and_one_from_the_future_are_no_news() {
        let mut memory = Memory::default();
        let all = vec![entry(0, NOW), entry(1, NOW + AHEAD_S + 1)];
        assert!(read(&mut memory, NOW, slot(0), all).is_empty());
        let honest = read(&mut memory, NOW, slot(0), vec![entry(1, NOW)]);
        assert_eq!(honest.len(), 1, "the future one is not remembered");
    }

    #[test]
    fn what_nobody_had_room_for_stays_news() {
        let mut memory = Memory::default();
        for second in 0..3 {
            let news = memory.sift(NOW + second, slot(0), ME, vec![entry(1, NOW)]);
            assert_eq!(news.len(), 1);
        }
        memory.note(NOW + 3, slot(0).origin(), &entry(1, NOW));
        assert!(
            memory
                .sift(NOW + 4, slot(0), ME, vec![entry(1, NOW)])
                .is_empty()
        );
    }

    #[test]
    fn an_entry_dated_ahead_hides_no_true_one() {
        let mut memory = Memory::default();
        let ahead = entry(1, NOW + 3_540);
        assert_eq!(
            read(&mut memory, NOW, slot(0), vec![ahead.clone()]).len(),
            1
        );
        assert!(read(&mut memory, NOW + 10, slot(0), vec![ahead]).is_empty());
        let honest = entry(1, NOW + 20);
        assert_eq!(read(&mut memory, NOW + 20, slot(0), vec![honest]).len(), 1);
    }

    #[test]
    fn nodes_are_remembered_for_two_hours_and_so_many() {
        let mut memory = Memory::default();
        let stranger = |number: u32, time| {
            let mut node = [9; 32];
            node[..4].copy_from_slice(&number.to_le_bytes());
            Where {
                node: NodeId(node),
                ..entry(1, time)
            }
        };
        for number in 0..5_000 {
            read(&mut memory, NOW, slot(0), vec![stranger(number, NOW)]);
        }
        assert_eq!(memory.last.len(), REMEMBERED_MAX);
        let late = NOW + REMEMBERED_S;
        read(&mut memory, late, slot(0), vec![stranger(9_999, late)]);
        assert_eq!(memory.last.len(), 1);
    }

    #[test]
    fn an_older_epochs_word_counts_only_where_the_newer_has_none() {
        let mut memory = Memory::default();
        assert_eq!(
            read(&mut memory, NOW, slot(4), vec![entry(1, NOW)]).len(),
            1
        );
        assert!(read(&mut memory, NOW, slot(3), vec![entry(1, NOW + 9)]).is_empty());
        assert_eq!(
            read(&mut memory, NOW, slot(3), vec![entry(2, NOW)]).len(),
            1
        );
        let late = NOW + FRESH_S;
        assert_eq!(
            read(&mut memory, late, slot(3), vec![entry(1, late)]).len(),
            1
        );
        memory.retain(|origin| origin == Origin::Epoch(4));
        assert!(memory.read.len() == 1 && memory.last.len() == 1);
    }
}
