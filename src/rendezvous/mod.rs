//! Two peers, two NATs, nobody else: how they find each other by the Mainline DHT (design §8–9, protocol §12).
//!
//! The DHT is two things here. It is a *mailbox*: sealed notes of who is where, in slots whose keys only members, or the two
//! sides of an invite, can make. And it is a *mirror*: its nodes tell a machine under which address the world sees it.
//! What is read proves nothing; a party is tried there for some seconds, and WireGuard decides.
//!
//! Knows when which slot is read and written, what is poisoned, what is news, and how long it is tried. Refuses to know how
//! the DHT is spoken to, who is a member, and what a Knock is. Time is the network's: `now.unix_ms` is mesh time, or for a
//! joiner the own clock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::{Scope, Underlay},
    ids::{JoinId, NodeId},
    time::{Moment, Now, Timers},
    wire::slot::{ADDRESSES_MAX, Where},
};

mod duty;
mod errand;
mod krpc;
mod probing;
mod slots;
mod sounding;
#[cfg(test)]
mod tests;
mod work;

use probing::Probes;
use slots::{Memory, Origin, SLOTS, days, slot_of};
use sounding::{Sounding, Step};
use work::{Intent, Work};

pub use duty::{Duties, Meeting, NetworkDuty, Pace, Side};
pub use errand::{Answer, Ask, Counts, Item, Output, PutOutcome};
pub use probing::Party;
pub use slots::SlotName;
pub use sounding::{Mapping, Seen};

/// How long after the other ways the DHT is begun with (design §8).
pub const HEAD_START: Duration = Duration::from_secs(3);

/// How often a lonely peer goes round, ± [`LONELY_SPREAD`].
const LONELY_EVERY: Duration = Duration::from_secs(20);
const LONELY_SPREAD: Duration = Duration::from_secs(5);

/// How soon it goes round again after its first time: two that come back together find nothing of each other then, and where
/// both write into the same slot at once, one overwrites the other.
const LONELY_AGAIN: Duration = Duration::from_secs(5);
const LONELY_AGAIN_SPREAD: Duration = Duration::from_secs(3);

/// The same once it has been lonely for [`LONG_LONELY`].
const LONG_LONELY_EVERY: Duration = Duration::from_secs(120);
const LONG_LONELY: Duration = Duration::from_secs(600);

/// How often the watcher of a component goes round.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// How often a dialable peer may write.
const STANDING_EVERY: Duration = Duration::from_secs(45 * 60);

/// How often one peer of a component reads all slots.
const SURVEY_EVERY: Duration = Duration::from_secs(6 * 3600);

/// How often the other side of an invite is read.
const INVITE_READ: Duration = Duration::from_secs(10);

/// How often the own side of an invite is written.
const INVITE_WRITE: Duration = Duration::from_secs(60);

/// A side of an invite is written anew at most this often, whatever is news.
const INVITE_WRITE_LEAST: Duration = Duration::from_secs(5);

/// How often the own address is asked for while somebody may look for it: less than the 30 s that NATs keep a mapping.
const SOUND_EVERY: Duration = Duration::from_secs(20);

/// The same after nobody answered.
const SOUND_AGAIN: Duration = Duration::from_secs(5);

/// How long after the last try a session with a party counts as found by the DHT.
const HOPE: Duration = Duration::from_secs(30);

/// Of how many nodes that is remembered: joiners invent their ids.
const HOPES_MAX: usize = 64;

/// The whole of it, for one peer or one joiner.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    me: NodeId,
    rng: ChaCha8Rng,
    duties: Duties,
    interfaces: Vec<Underlay>,
    sounding: Sounding,
    seen: Option<Seen>,
    works: BTreeMap<SlotName, Work>,
    memory: Memory,
    probes: Probes,
    hopes: BTreeMap<NodeId, Moment>,
    lonely_since: Moment,
    /// Own network slots wait for the own address.
    owes_network: bool,
    written: BTreeMap<JoinId, Moment>,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Sound,
    Round,
    Survey,
    Read(JoinId),
    Write(JoinId),
}

impl Rendezvous {
    /// With nothing to do.
    pub fn new(me: NodeId, seed: [u8; 32]) -> Self {
        Self {
            me,
            rng: ChaCha8Rng::from_seed(seed),
            duties: Duties::default(),
            interfaces: Vec::new(),
            sounding: Sounding::default(),
            seen: None,
            works: BTreeMap::new(),
            memory: Memory::default(),
            probes: Probes::default(),
            hopes: BTreeMap::new(),
            lonely_since: Moment::default(),
            owes_network: false,
            written: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What is to be done changed, or did not.
    pub fn handle_duties(&mut self, now: Now, duties: Duties) {
        if duties == self.duties {
            return;
        }
        let before = std::mem::replace(&mut self.duties, duties);
        self.end_meetings(&before);
        self.begin_meetings(now, &before);
        self.change_pace(now, &before);
        self.forget_strangers();
        if !self.wants_mapping() {
            self.timers.clear(&Timer::Sound);
        } else if self.duties.meetings.is_empty() {
            let first = now.at.after(HEAD_START);
            self.timers.set_earlier(Timer::Sound, first);
        } else {
            self.timers.set_earlier(Timer::Sound, now.at);
        }
    }

    /// The addresses of the own interfaces changed: the world may see another one too.
    pub fn handle_interfaces(&mut self, now: Now, interfaces: &[Underlay]) {
        if self.interfaces == interfaces {
            return;
        }
        self.interfaces = interfaces.to_vec();
        if self.wants_mapping() {
            self.timers.set_earlier(Timer::Sound, now.at);
        }
    }

    /// The DHT answered. Of those that a network's slots name only members are looked for.
    pub fn handle_answer(&mut self, now: Now, answer: Answer, is_member: &dyn Fn(NodeId) -> bool) {
        match answer {
            Answer::Got { slot, item } => self.on_got(now, (slot, item), is_member),
            Answer::Put { slot, outcome } => self.on_put(now, slot, outcome),
            Answer::Nodes(nodes) => {
                let steps = self.sounding.handle_nodes(now, &mut self.rng, &nodes);
                self.carry_out(now, steps);
            }
        }
        self.drain_probes(now);
    }

    /// A datagram of the DHT came to the main socket.
    pub fn handle_datagram(&mut self, now: Now, source: Underlay, bytes: &[u8]) {
        if let Some(step) = self.sounding.handle_answer(source, bytes) {
            self.carry_out(now, vec![step]);
        }
        self.drain_probes(now);
    }

    /// A Punch that opened came from here: the issuer is there, whatever its slot says.
    pub fn handle_punch(&mut self, now: Now, join_id: JoinId, source: Underlay) {
        let is_mine =
            |meeting: &Meeting| meeting.side == Side::Joiner && meeting.secret.join_id() == join_id;
        if !self.duties.meetings.iter().any(is_mine) {
            return;
        }
        let party = Party::Issuer {
            join_id,
            node: NodeId([0; 32]),
        };
        self.probes.add(now, party, source);
        self.drain_probes(now);
    }

    /// A session with a node came to stand. Says whether the DHT has found it.
    pub fn handle_met(&mut self, now: Now, node: NodeId) -> bool {
        self.probes.retain(|party| party.node() != node);
        self.hopes.retain(|_, until| *until > now.at);
        self.hopes.remove(&node).is_some()
    }

    /// Where the world sees this machine, if it was asked and answered.
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let all = [
            self.timers.next(),
            self.sounding.poll_timeout(),
            self.probes.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.at) {
            match timer {
                Timer::Sound => self.sound(now),
                Timer::Round => self.go_round(now),
                Timer::Survey => self.survey(now),
                Timer::Read(join_id) => self.read_invite(now, join_id),
                Timer::Write(join_id) => self.write_invite(now, join_id),
            }
        }
        let steps = self.sounding.handle_timeout(now, &mut self.rng);
        self.carry_out(now, steps);
        self.probes.handle_timeout(now);
        self.drain_probes(now);
    }

    fn end_meetings(&mut self, before: &Duties) {
        for gone in &before.meetings {
            if !self.duties.meetings.contains(gone) {
                let join_id = gone.secret.join_id();
                self.timers.clear(&Timer::Read(join_id));
                self.timers.clear(&Timer::Write(join_id));
                self.written.remove(&join_id);
            }
        }
    }

    fn begin_meetings(&mut self, now: Now, before: &Duties) {
        for new in &self.duties.meetings {
            if !before.meetings.contains(new) {
                self.timers.set(Timer::Read(new.secret.join_id()), now.at);
                self.timers.set(Timer::Write(new.secret.join_id()), now.at);
            }
        }
    }

    fn change_pace(&mut self, now: Now, before: &Duties) {
        let pace_of = |duties: &Duties| duties.network.as_ref().map(|duty| duty.pace);
        let (was, is) = (pace_of(before), pace_of(&self.duties));
        if was.map(Pace::beat) == is.map(Pace::beat) {
            return;
        }
        self.owes_network = false;
        self.timers.clear(&Timer::Round);
        self.timers.clear(&Timer::Survey);
        match is {
            None => {}
            Some(Pace::Lonely) => {
                self.lonely_since = now.at;
                self.timers.set(Timer::Round, now.at.after(HEAD_START));
            }
            Some(Pace::Watching) => self.timers.set(Timer::Round, now.at.after(WATCH_EVERY)),
            Some(Pace::Dialable { surveys, .. }) => {
                let wait = self.up_to(STANDING_EVERY);
                self.timers.set(Timer::Round, now.at.after(wait));
                if surveys {
                    let wait = self.up_to(SURVEY_EVERY);
                    self.timers.set(Timer::Survey, now.at.after(wait));
                }
            }
        }
    }

    /// Whatever belongs to no duty any more is forgotten.
    fn forget_strangers(&mut self) {
        let duties = &self.duties;
        let is_wanted = |origin: Origin| match origin {
            Origin::Epoch(epoch) => duties
                .network
                .as_ref()
                .is_some_and(|duty| duty.epochs.iter().any(|(n, _)| *n == epoch)),
            Origin::Invite(join_id) => duties
                .meetings
                .iter()
                .any(|meeting| meeting.secret.join_id() == join_id),
        };
        self.memory.retain(is_wanted);
        self.works.retain(|slot, _| is_wanted(slot.origin()));
        self.probes.retain(|party| match party {
            Party::Member { epoch, .. } => is_wanted(Origin::Epoch(epoch)),
            Party::Joiner { join_id, .. } | Party::Issuer { join_id, .. } => {
                is_wanted(Origin::Invite(join_id))
            }
        });
    }

    /// Whether somebody may be told where this machine is, so that its NAT has to keep the door.
    fn wants_mapping(&self) -> bool {
        let is_lonely = |duty: &NetworkDuty| duty.pace == Pace::Lonely;
        !self.duties.meetings.is_empty() || self.duties.network.as_ref().is_some_and(is_lonely)
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let width = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.next_u64() % (width + 1))
    }

    fn sound(&mut self, now: Now) {
        if !self.sounding.is_under_way() {
            self.counts.soundings += 1;
        }
        let steps = self.sounding.start(now, &mut self.rng);
        self.carry_out(now, steps);
    }

    fn carry_out(&mut self, now: Now, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Ask(to, bytes) => self.outputs.push_back(Output::Datagram { to, bytes }),
                Step::Nodes => self.outputs.push_back(Output::Ask(Ask::Nodes)),
                Step::Done(seen) => self.on_sounded(now, seen),
            }
        }
    }

    fn on_sounded(&mut self, now: Now, seen: Option<Seen>) {
        let again = if seen.is_some() {
            SOUND_EVERY
        } else {
            SOUND_AGAIN
        };
        if self.wants_mapping() {
            self.timers.set(Timer::Sound, now.at.after(again));
        }
        let has_changed = seen.is_some() && self.seen != seen;
        if seen.is_some() {
            self.seen = seen;
        }
        if has_changed {
            for meeting in &self.duties.meetings {
                self.timers
                    .set(Timer::Write(meeting.secret.join_id()), now.at);
            }
        }
        if self.owes_network {
            // Without an address there is nothing to write yet, but what others wrote there is read.
            self.owes_network = self.own_entry(now).is_none();
            self.tend_own_slots(now);
        }
        self.write_due_invites(now);
    }

    /// What this machine says of itself; None while it has nothing to say.
    fn own_entry(&self, now: Now) -> Option<Where> {
        let seen = self.seen.iter().flat_map(|seen| seen.addresses.iter());
        let of_scope = |scope: Scope, is_v6: bool| {
            let fits = move |address: &&Underlay| {
                Scope::of(address.ip()) == scope && address.ip().is_ipv6() == is_v6
            };
            self.interfaces.iter().filter(fits).take(1)
        };
        let mut addresses: Vec<Underlay> = Vec::new();
        let all = seen
            .chain(of_scope(Scope::World, true))
            .chain(of_scope(Scope::World, false))
            .chain(of_scope(Scope::Place, false));
        for address in all {
            if !addresses.contains(address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(*address);
            }
        }
        let has_world = addresses
            .iter()
            .any(|address| Scope::of(address.ip()) == Scope::World);
        has_world.then(|| Where {
            node: self.me,
            addresses,
            time: now.unix_s(),
        })
    }

    fn go_round(&mut self, now: Now) {
        let Some(pace) = self.duties.network.as_ref().map(|duty| duty.pace) else {
            return;
        };
        let wait = self.pause(now, pace);
        self.timers.set(Timer::Round, now.at.after(wait));
        match pace {
            Pace::Lonely | Pace::Watching => {
                self.owes_network = true;
                self.sound(now);
                self.read_network(now, |i, own| i != own);
            }
            Pace::Dialable { writers, .. } => {
                if self.rng.next_u32() % writers.max(1) < u32::from(SLOTS) {
                    self.owes_network = true;
                    self.sound(now);
                }
            }
        }
    }

    fn pause(&mut self, now: Now, pace: Pace) -> Duration {
        match pace {
            Pace::Lonely if now.at.since(self.lonely_since) >= LONG_LONELY => {
                LONG_LONELY_EVERY - LONELY_SPREAD + self.up_to(2 * LONELY_SPREAD)
            }
            Pace::Lonely if now.at.since(self.lonely_since) < 2 * HEAD_START => {
                LONELY_AGAIN + self.up_to(LONELY_AGAIN_SPREAD)
            }
            Pace::Lonely => LONELY_EVERY - LONELY_SPREAD + self.up_to(2 * LONELY_SPREAD),
            Pace::Watching => WATCH_EVERY,
            Pace::Dialable { .. } => STANDING_EVERY,
        }
    }

    fn survey(&mut self, now: Now) {
        self.timers.set(Timer::Survey, now.at.after(SURVEY_EVERY));
        self.read_network(now, |_, _| true);
    }

    fn read_network(&mut self, now: Now, which: impl Fn(u8, u8) -> bool) {
        let own = slot_of(self.me);
        for slot in self.network_slots(now) {
            if let SlotName::Network { i, .. } = slot
                && which(i, own)
            {
                self.begin(now, slot, Intent::Read);
            }
        }
    }

    /// The own address is as well known as it will be: the slot it belongs into is read and written.
    fn tend_own_slots(&mut self, now: Now) {
        let own = slot_of(self.me);
        for slot in self.network_slots(now) {
            if matches!(slot, SlotName::Network { i, .. } if i == own) {
                self.begin(now, slot, Intent::Write);
            }
        }
    }

    fn network_slots(&self, now: Now) -> Vec<SlotName> {
        let mut slots = Vec::new();
        for (epoch, _) in self.duties.network.iter().flat_map(|duty| &duty.epochs) {
            for day in days(now.unix_s()) {
                slots.extend((0..SLOTS).map(|i| SlotName::Network {
                    epoch: *epoch,
                    day,
                    i,
                    generation: 0,
                }));
            }
        }
        slots
    }

    fn read_invite(&mut self, now: Now, join_id: JoinId) {
        let Some(side) = self.side_of(join_id) else {
            return;
        };
        self.timers
            .set(Timer::Read(join_id), now.at.after(INVITE_READ));
        let slot = SlotName::Invite {
            join_id,
            side: side.other().number(),
        };
        self.begin(now, slot, Intent::Read);
    }

    fn write_invite(&mut self, now: Now, join_id: JoinId) {
        let Some(side) = self.side_of(join_id) else {
            return;
        };
        self.timers
            .set(Timer::Write(join_id), now.at.after(INVITE_WRITE));
        if self.own_entry(now).is_none() {
            return;
        }
        self.written.insert(join_id, now.at);
        let slot = SlotName::Invite {
            join_id,
            side: side.number(),
        };
        self.begin(now, slot, Intent::Write);
    }

    /// Sides that could not be written before the own address was known.
    fn write_due_invites(&mut self, now: Now) {
        let of_meeting = |meeting: &Meeting| meeting.secret.join_id();
        let join_ids: Vec<JoinId> = self.duties.meetings.iter().map(of_meeting).collect();
        for join_id in join_ids {
            let is_due = self
                .timers
                .at(&Timer::Write(join_id))
                .is_some_and(|at| at <= now.at);
            if is_due || !self.written.contains_key(&join_id) {
                self.write_invite(now, join_id);
            }
        }
    }

    /// Somebody new stands on the other side: what this side says must be new to him too, whatever his clock says.
    fn write_for_news(&mut self, now: Now, join_id: JoinId) {
        let last = self.written.get(&join_id).copied().unwrap_or_default();
        let at = last.after(INVITE_WRITE_LEAST).max(now.at);
        self.timers.set_earlier(Timer::Write(join_id), at);
    }

    fn side_of(&self, join_id: JoinId) -> Option<Side> {
        let is_it = |meeting: &&Meeting| meeting.secret.join_id() == join_id;
        let meeting = self.duties.meetings.iter().find(is_it)?;
        Some(meeting.side)
    }

    fn drain_probes(&mut self, now: Now) {
        while let Some((party, to)) = self.probes.poll_output() {
            self.counts.probes += 1;
            if self.hopes.len() >= HOPES_MAX {
                self.hopes.retain(|_, until| *until > now.at);
            }
            if self.hopes.len() >= HOPES_MAX {
                self.hopes.pop_first();
            }
            self.hopes.insert(party.node(), now.at.after(HOPE));
            self.outputs.push_back(Output::Probe { party, to });
        }
    }
}
