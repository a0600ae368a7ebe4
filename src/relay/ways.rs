//! What a relay carries: frames between two bound ends (protocol §1; review-security S11).
//!
//! A frame goes on only if it came from where its end is bound, to where the other end is bound, while that one was heard
//! from there within 60 s. Frames from elsewhere are dropped and bind nothing. What has no right mac is not answered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    BIND_WITHIN, DEPTH_MAX, IDLE,
    binding::{Key, own_of},
    quota::{Limit, Quota},
    waiting::Waiting,
};
use crate::{
    addr::Path,
    ids::PeerIx,
    time::Moment,
    wire::datagram::{RelayBinding, RelayStep},
};

/// An end that was not heard for so long is sent nothing: its NAT may have given its place to another.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// An end that proved where it is must prove it again after this.
const PROVE_AGAIN: Duration = Duration::from_secs(120);

/// How long it has to do so.
const PROVE_WITHIN: Duration = Duration::from_secs(10);

/// Challenges of one end that may be answered: somebody who plays back an old bind must not undo a new one.
const CHALLENGES: usize = 2;

/// One end of a way, as it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// What frames from it carry.
    pub id: [u8; 4],
    /// Of its macs.
    pub key: Key,
    /// Whose it is.
    pub member: PeerIx,
}

/// All ways.
#[derive(Debug)]
pub struct Ways {
    ends: HashMap<[u8; 4], End>,
    ways: BTreeMap<[u8; 4], Way>,
    quota: Quota,
    waiting: Waiting,
}

#[derive(Debug)]
struct End {
    way: [u8; 4],
    other: [u8; 4],
    member: PeerIx,
    key: Key,
    bound: Option<Bound>,
    challenges: [Option<Challenge>; CHALLENGES],
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    path: Path,
    /// What frames to it carry.
    own: u32,
    /// Of its bind.
    nonce: [u8; 16],
    heard: Moment,
    proven: Moment,
    asked: Option<Moment>,
}

/// A challenge that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Challenge {
    to: Path,
    nonce: [u8; 16],
    bind: [u8; 16],
}

#[derive(Debug)]
struct Way {
    ends: [[u8; 4]; 2],
    made: Moment,
    counters: Arc<WayCounters>,
}

/// What a way has carried. Written by the data thread alone, read by anybody.
#[derive(Debug, Default)]
pub struct WayCounters {
    /// Datagrams.
    pub packets: AtomicU64,
    /// Their bytes, without our frame.
    pub bytes: AtomicU64,
    /// [`Moment`] of the last one, 0: none.
    pub used: AtomicU64,
}

/// Where a frame goes on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// Where to.
    pub path: Path,
    /// What it carries there.
    pub id: u32,
}

/// A frame as it came.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// From where.
    pub source: Path,
    /// What it carries.
    pub id: [u8; 4],
    /// Bytes of the datagram in it.
    pub len: usize,
    /// Whether that datagram is a frame too.
    pub nested: bool,
}

/// Why a frame or a binding is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No end has this id, or it is not there; or the mac is wrong.
    Stranger,
    /// The other end has not said where it is, or was not heard from there lately.
    OtherAway,
    /// More than two relays would lie one behind the other.
    TooDeep,
    /// More than is carried for this member, or for all.
    Quota,
}

impl Ways {
    /// None yet.
    pub fn new(limit: Limit) -> Self {
        Self {
            ends: HashMap::new(),
            ways: BTreeMap::new(),
            quota: Quota::new(limit),
            waiting: Waiting::default(),
        }
    }

    /// Carries at most so much from now on.
    pub fn set_limit(&mut self, limit: Limit) {
        self.quota.set(limit);
    }

    /// Whether nothing is carried for anybody.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// Takes up a way whose ends are to bind within 30 s. One that is there is told that they may again.
    pub fn open(&mut self, now: Moment, ends: [Given; 2]) -> Arc<WayCounters> {
        let ids = [ends[0].id, ends[1].id];
        let known = self.ends.get(&ids[0]).map(|end| end.way);
        if let Some(way) = known.and_then(|way| self.ways.get_mut(&way)) {
            way.made = now;
            return Arc::clone(&way.counters);
        }
        for (i, given) in ends.into_iter().enumerate() {
            self.quota.know(given.member);
            let end = End {
                way: ids[0],
                other: ids[1 - i],
                member: given.member,
                key: given.key,
                bound: None,
                challenges: [None; CHALLENGES],
            };
            self.ends.insert(given.id, end);
        }
        let way = Way {
            ends: ids,
            made: now,
            counters: Arc::default(),
        };
        let counters = Arc::clone(&way.counters);
        self.ways.insert(ids[0], way);
        counters
    }

    /// Carries a way no more.
    pub fn close(&mut self, id: [u8; 4]) {
        let Some(way) = self.ends.get(&id).map(|end| end.way) else {
            return;
        };
        if let Some(way) = self.ways.remove(&way) {
            for id in way.ends {
                self.ends.remove(&id);
            }
        }
    }

    /// Whether an end has this id.
    pub fn has_end(&self, id: [u8; 4]) -> bool {
        self.ends.contains_key(&id)
    }

    /// A 21 is answered by a 22, a 23 by nothing. `depth`: how many relays its source lies behind. `random` makes the
    /// challenge.
    ///
    /// # Errors
    /// It is dropped without a word.
    pub fn handle_binding(
        &mut self,
        now: Moment,
        (source, depth): (Path, usize),
        binding: &RelayBinding,
        random: [u8; 16],
    ) -> Result<Option<RelayBinding>, Refusal> {
        let end = self.ends.get(&binding.id).ok_or(Refusal::Stranger)?;
        match binding.step {
            RelayStep::Bind => {
                if !end.key.made(binding, &[]) {
                    return Err(Refusal::Stranger);
                }
                self.may_be_at(end, depth)?;
                Ok(self.challenge(source, binding, random))
            }
            RelayStep::Answer => {
                self.may_be_at(end, depth)?;
                self.prove(now, source, binding).map(|()| None)
            }
            RelayStep::Challenge => Err(Refusal::Stranger),
        }
    }

    /// Where a frame goes on to; it is counted if so. Whatever came from the bound place keeps the end heard.
    ///
    /// # Errors
    /// It is dropped.
    pub fn forward(&mut self, now: Moment, frame: &Frame) -> Result<Onward, Refusal> {
        let end = self.ends.get_mut(&frame.id).ok_or(Refusal::Stranger)?;
        let bound = end.bound.as_mut().filter(|at| at.path == frame.source);
        bound.ok_or(Refusal::Stranger)?.heard = now;
        let (way, member, other) = (end.way, end.member, end.other);
        let other = self.ends.get(&other).and_then(|other| other.bound);
        let other = other.filter(|at| now.since(at.heard) < HEARD_WITHIN);
        let other = other.ok_or(Refusal::OtherAway)?;
        if frame.nested && depth_of(other.path) > 0 {
            return Err(Refusal::TooDeep);
        }
        if !self.quota.spend(now, member, frame.len) {
            return Err(Refusal::Quota);
        }
        if let Some(way) = self.ways.get(&way) {
            way.counters.count(now, frame.len);
        }
        Ok(Onward {
            path: other.path,
            id: other.own,
        })
    }

    /// Keeps a frame whose other end has not said yet where it is. Gives whether there was room.
    pub fn hold(&mut self, now: Moment, frame: &Frame, datagram: &[u8]) -> bool {
        let Some(end) = self.ends.get(&frame.id) else {
            return false;
        };
        self.waiting.keep(now, end.other, (*frame, datagram))
    }

    /// What waited for an end that is bound now, and where it goes.
    pub fn take_held(&mut self, now: Moment, id: [u8; 4]) -> Vec<(Onward, Vec<u8>)> {
        let mut onward = Vec::new();
        for (frame, datagram) in self.waiting.take(now, id) {
            if let Ok(to) = self.forward(now, &frame) {
                onward.push((to, datagram));
            }
        }
        onward
    }

    /// Ends that have to prove again where they are: what is sent to each. `random` draws nonces.
    pub fn poll_challenges(
        &mut self,
        now: Moment,
        mut random: impl FnMut() -> [u8; 16],
    ) -> Vec<(Path, RelayBinding)> {
        let ids = self.ways.values().flat_map(|way| way.ends);
        let mut due = Vec::new();
        for id in ids {
            let Some(end) = self.ends.get_mut(&id) else {
                continue;
            };
            let Some(bound) = &mut end.bound else {
                continue;
            };
            let is_late = |asked: Moment| now.since(asked) >= PROVE_WITHIN;
            let is_idle = now.since(bound.heard) >= HEARD_WITHIN;
            let is_old = now.since(bound.proven) >= PROVE_AGAIN;
            if bound.asked.is_some_and(is_late) || (is_old && is_idle) {
                end.bound = None;
            } else if is_old && bound.asked.is_none() {
                bound.asked = Some(now);
                let challenge = Challenge {
                    to: bound.path,
                    nonce: random(),
                    bind: bound.nonce,
                };
                end.expect(challenge);
                due.push((
                    challenge.to,
                    end.key.challenge(id, challenge.nonce, &challenge.bind),
                ));
            }
        }
        due
    }

    /// The next way that ended by itself: an end did not bind in time, or nothing was heard of either for 5 min.
    pub fn poll_over(&mut self, now: Moment) -> Option<[u8; 4]> {
        let over = self.ways.values().find(|way| {
            let bound = |id: &[u8; 4]| self.ends.get(id).and_then(|end| end.bound);
            let heard = way.ends.iter().filter_map(bound).map(|at| at.heard).max();
            let used = way.counters.used().max(heard).unwrap_or(way.made);
            let is_bound = way.ends.iter().all(|id| bound(id).is_some());
            let never = way.counters.used().is_none() && !is_bound;
            now.since(used.max(way.made)) >= IDLE || (never && now.since(way.made) >= BIND_WITHIN)
        })?;
        let id = over.ends[0];
        self.close(id);
        Some(id)
    }

    /// Whether the ends of a way at this depth would still lie behind at most two relays together.
    fn may_be_at(&self, end: &End, depth: usize) -> Result<(), Refusal> {
        let other = self.ends.get(&end.other).and_then(|other| other.bound);
        let others = other.map_or(0, |other| depth_of(other.path));
        if depth + others < DEPTH_MAX {
            Ok(())
        } else {
            Err(Refusal::TooDeep)
        }
    }

    fn challenge(
        &mut self,
        source: Path,
        bind: &RelayBinding,
        random: [u8; 16],
    ) -> Option<RelayBinding> {
        let end = self.ends.get_mut(&bind.id)?;
        end.expect(Challenge {
            to: source,
            nonce: random,
            bind: bind.nonce,
        });
        Some(end.key.challenge(bind.id, random, &bind.nonce))
    }

    fn prove(&mut self, now: Moment, source: Path, answer: &RelayBinding) -> Result<(), Refusal> {
        let end = self.ends.get_mut(&answer.id).ok_or(Refusal::Stranger)?;
        let asked = end.challenges.iter().flatten().copied();
        let challenge = asked
            .filter(|asked| asked.to == source && asked.nonce == answer.nonce)
            .find(|asked| end.key.made(answer, &asked.bind))
            .ok_or(Refusal::Stranger)?;
        for asked in &mut end.challenges {
            if asked.is_some_and(|asked| asked.nonce == challenge.nonce) {
                *asked = None;
            }
        }
        end.bound = Some(Bound {
            path: source,
            own: own_of(&challenge.bind),
            nonce: challenge.bind,
            heard: now,
            proven: now,
            asked: None,
        });
        Ok(())
    }
}

impl End {
    /// A newer challenge to the same place is in place of the older one; else the oldest gives way.
    fn expect(&mut self, challenge: Challenge) {
        let mut places = self.challenges.iter();
        let same = places.position(|asked| asked.is_some_and(|asked| asked.to == challenge.to));
        let place = same.unwrap_or(CHALLENGES - 1);
        self.challenges[..=place].rotate_right(1);
        self.challenges[0] = Some(challenge);
    }
}

impl WayCounters {
    /// When something was carried last.
    pub fn used(&self) -> Option<Moment> {
        match self.used.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Moment(at)),
        }
    }

    fn count(&self, now: Moment, bytes: usize) {
        let add = |counter: &AtomicU64, more: u64| {
            let before = counter.load(Ordering::Relaxed);
            counter.store(before.wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.packets, 1);
        add(&self.bytes, u64::try_from(bytes).unwrap_or(u64::MAX));
        self.used.store(now.0, Ordering::Relaxed);
    }
}

/// How many relays lie before a bound place: none or one, since no end is bound behind two.
fn depth_of(path: Path) -> usize {
    usize::from(matches!(path, Path::Relay(_)))
}
