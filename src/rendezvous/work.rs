//! One slot at a time: read, merged, written, and read once more where somebody else wrote in between.

use std::time::Duration;

use rand_core::RngCore;

use super::{
    Ask, Item, Meeting, Output, Party, PutOutcome, Rendezvous, SlotName,
    probing::triable,
    slots::{is_ahead, merge},
};
use crate::{
    ids::NodeId,
    keys::SlotKey,
    time::{Moment, Now},
    wire::slot::{self, Where},
};

/// How long the DHT may take over one question.
const WORK_LIFE: Duration = Duration::from_secs(60);

/// What is to become of a slot that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Intent {
    Read,
    Write,
}

/// A slot that the DHT is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    intent: Intent,
    /// This is the second try, after a conflict or none of those asked in time.
    is_retry: bool,
    /// What is written is on its way already; there is something newer to say since.
    is_stale: bool,
    begun: Moment,
    stage: Stage,
}

/// What of a slot is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Get,
    Put,
}

impl Rendezvous {
    pub(super) fn begin(&mut self, now: Now, slot: SlotName, intent: Intent) {
        let under_way = self
            .works
            .get_mut(&slot)
            .filter(|work| now.at.since(work.begun) < WORK_LIFE);
        if let Some(work) = under_way {
            work.intent = work.intent.max(intent);
            work.is_stale |= work.stage == Stage::Put && intent == Intent::Write;
            return;
        }
        let work = Work {
            intent,
            is_retry: false,
            is_stale: false,
            begun: now.at,
            stage: Stage::Get,
        };
        self.get(slot, work);
    }

    fn get(&mut self, slot: SlotName, work: Work) {
        let Some(key) = self.key_of(slot) else { return };
        self.works.insert(slot, work);
        self.counts.reads += 1;
        let key = key.public();
        self.outputs.push_back(Output::Ask(Ask::Get { slot, key }));
    }

    fn key_of(&self, slot: SlotName) -> Option<SlotKey> {
        match slot {
            SlotName::Network {
                epoch,
                day,
                i,
                generation,
            } => {
                let epochs = &self.duties.network.as_ref()?.epochs;
                let (_, secret) = epochs.iter().find(|(n, _)| *n == epoch)?;
                Some(secret.slot(day, i, generation))
            }
            SlotName::Invite { join_id, side } => {
                let is_it = |meeting: &&Meeting| meeting.secret.join_id() == join_id;
                let meeting = self.duties.meetings.iter().find(is_it)?;
                Some(meeting.secret.slot(side))
            }
        }
    }

    pub(super) fn on_got(
        &mut self,
        now: Now,
        (slot, item): (SlotName, Option<Item>),
        is_member: &dyn Fn(NodeId) -> bool,
    ) {
        let (Some(work), Some(key)) = (self.works.remove(&slot), self.key_of(slot)) else {
            return;
        };
        if item
            .as_ref()
            .is_some_and(|item| is_ahead(now.unix_s(), item.seq))
        {
            self.counts.poisoned += 1;
            if let Some(next) = slot.next_generation() {
                self.begin(now, next, work.intent);
            }
            return;
        }
        let seq = item.as_ref().map(|item| item.seq);
        let wheres = match item.map(|item| slot::open(&key, &item.value)) {
            None => Vec::new(),
            Some(Ok(wheres)) => wheres,
            Some(Err(_not_ours)) => {
                self.counts.unreadable += 1;
                Vec::new()
            }
        };
        if work.intent == Intent::Write
            && let Some(own) = self.own_entry(now)
        {
            self.put(now, slot, work, (seq, merge(now.unix_s(), &wheres, own)));
        }
        self.take_news(now, (slot, wheres), is_member);
    }

    fn put(
        &mut self,
        now: Now,
        slot: SlotName,
        work: Work,
        (seen, wheres): (Option<u64>, Vec<Where>),
    ) {
        let Some(key) = self.key_of(slot) else { return };
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        let seq = seen.map_or(0, |seen| seen + 1).max(now.unix_s());
        let work = Work {
            stage: Stage::Put,
            ..work
        };
        self.works.insert(slot, work);
        self.counts.writes += 1;
        self.outputs.push_back(Output::Ask(Ask::Put {
            slot,
            seed: key.seed,
            value: slot::seal(&key, nonce, &wheres),
            seq,
            cas: seen,
        }));
    }

    pub(super) fn on_put(&mut self, now: Now, slot: SlotName, outcome: PutOutcome) {
        let Some(work) = self.works.remove(&slot) else {
            return;
        };
        let is_conflict = outcome == PutOutcome::Conflict;
        self.counts.conflicts += u64::from(is_conflict);
        if work.is_stale {
            self.begin(now, slot, Intent::Write);
        } else if outcome != PutOutcome::Done && !work.is_retry {
            let retry = Work {
                is_retry: true,
                begun: now.at,
                stage: Stage::Get,
                ..work
            };
            self.get(slot, retry);
        }
    }

    fn take_news(
        &mut self,
        now: Now,
        (slot, wheres): (SlotName, Vec<Where>),
        is_member: &dyn Fn(NodeId) -> bool,
    ) {
        let mut wheres = wheres;
        // Who holds an old secret may invent nodes; they take nobody's place.
        if matches!(slot, SlotName::Network { .. }) {
            wheres.retain(|entry| is_member(entry.node));
        }
        for (entry, news) in self.memory.sift(now.unix_s(), slot, self.me, wheres) {
            let party = match slot {
                SlotName::Network { epoch, .. } => Party::Member {
                    node: entry.node,
                    epoch,
                },
                SlotName::Invite { join_id, side } => match side {
                    0 => Party::Issuer {
                        join_id,
                        node: entry.node,
                    },
                    _ => Party::Joiner {
                        join_id,
                        node: entry.node,
                    },
                },
            };
            if let Party::Joiner { join_id, .. } = party {
                self.write_for_news(now, join_id);
            }
            let ours = self.seen.as_ref().map_or(&[][..], |seen| &seen.addresses);
            let addresses = triable(&entry.addresses, ours);
            if self.probes.begin(now, party, addresses, news) {
                self.memory.note(now.unix_s(), slot.origin(), &entry);
            }
        }
    }
}
