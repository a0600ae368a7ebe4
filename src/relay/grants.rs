//! Who has a way through this relay (design §9): asked for by members, about members.

use std::{collections::BTreeMap, time::Duration};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{Reason, binding::Key, pair, ways::Given};
use crate::{ids::PeerIx, time::Moment};

/// Ways of one member, to whomever.
pub const PER_MEMBER: usize = 64;

/// Ways in all.
pub const IN_ALL: usize = 1024;

/// How long somebody who wanted a way to a peer without a session here is offered one when that peer comes: as long as
/// an attempt lasts.
pub const WISHED_FOR: Duration = Duration::from_secs(5);

/// How many such wishes are remembered.
const WISHES_MAX: usize = 256;

/// Whether this machine carries for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Willing {
    /// It does.
    Yes,
    /// Its owner said no.
    No,
}

/// How a relay stands to one who is to have a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No session, or one by which no data can go yet.
    Away,
    /// A session, behind so many relays.
    There(usize),
}

/// A way that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Who asks.
    pub from: (PeerIx, Standing),
    /// Whom it wants.
    pub to: (PeerIx, Standing),
}

/// All ways that were granted and are not over.
#[derive(Clone, Debug)]
pub struct Grants {
    rng: ChaCha8Rng,
    willing: Willing,
    ways: BTreeMap<(PeerIx, PeerIx), [Given; 2]>,
    /// Who wanted whom that was away, and when.
    wishes: BTreeMap<(PeerIx, PeerIx), Moment>,
}

impl Grants {
    /// None yet. `seed` makes ids and keys and is a secret of this run.
    pub fn new(seed: [u8; 32], willing: Willing) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            willing,
            ways: BTreeMap::new(),
            wishes: BTreeMap::new(),
        }
    }

    /// Whether this machine carries for others.
    pub fn willing(&self) -> Willing {
        self.willing
    }

    /// How many ways there are.
    pub fn len(&self) -> usize {
        self.ways.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// Grants a way, or says again the one that is there: whoever asks may have lost it. Both ends, the asker's first.
    ///
    /// # Errors
    /// There is none, and why.
    pub fn grant(&mut self, wish: &Wish) -> Result<[Given; 2], Reason> {
        if self.willing == Willing::No {
            return Err(Reason::Unwilling);
        }
        let (from, to) = (wish.from.0, wish.to.0);
        let (Standing::There(near), Standing::There(far)) = (wish.from.1, wish.to.1) else {
            return Err(Reason::NoSession);
        };
        if from == to {
            return Err(Reason::NoSession);
        }
        if near + far + 1 > super::DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        let key = pair(from, to);
        if !self.ways.contains_key(&key) {
            if self.ways.len() >= IN_ALL || self.is_spent(from) || self.is_spent(to) {
                return Err(Reason::TooMany);
            }
            let ends = [self.draw(key.0), self.draw(key.1)];
            self.ways.insert(key, ends);
        }
        let ends = self.ways.get(&key).ok_or(Reason::TooMany)?;
        let mut ends = ends.clone();
        if ends[0].member != from {
            ends.reverse();
        }
        Ok(ends)
    }

    /// Somebody wants a way to a peer that is away.
    pub fn note_wish(&mut self, now: Moment, from: PeerIx, to: PeerIx) {
        self.wishes
            .retain(|_, since| now.since(*since) < WISHED_FOR);
        if self.willing == Willing::Yes && self.wishes.len() < WISHES_MAX {
            self.wishes.insert((from, to), now);
        }
    }

    /// A peer has come: who wanted a way to it a moment ago. Said once.
    pub fn take_wishes(&mut self, now: Moment, to: PeerIx) -> Vec<PeerIx> {
        let mut from = Vec::new();
        self.wishes.retain(|(asker, wanted), since| {
            let is_its = *wanted == to;
            if is_its && now.since(*since) < WISHED_FOR {
                from.push(*asker);
            }
            !is_its
        });
        from
    }

    /// The data thread carries a way no more.
    pub fn handle_over(&mut self, id: [u8; 4]) {
        self.ways
            .retain(|_, ends| ends.iter().all(|end| end.id != id));
    }

    /// A member is out: its ways end. Gives each with the other end.
    pub fn handle_out(&mut self, member: PeerIx) -> Vec<([u8; 4], PeerIx)> {
        let mut over = Vec::new();
        self.ways.retain(|_, ends| {
            let is_its = ends.iter().any(|end| end.member == member);
            if is_its {
                let others = ends.iter().filter(|end| end.member != member);
                over.extend(others.map(|end| (end.id, end.member)));
            }
            !is_its
        });
        over
    }

    fn is_spent(&self, member: PeerIx) -> bool {
        let its = |pair: &&(PeerIx, PeerIx)| pair.0 == member || pair.1 == member;
        self.ways.keys().filter(its).count() >= PER_MEMBER
    }

    fn draw(&mut self, member: PeerIx) -> Given {
        let mut id = [0; 4];
        let taken = |id: [u8; 4]| (self.ways.values().flatten()).any(|end: &Given| end.id == id);
        let mut rng = self.rng.clone();
        while {
            rng.fill_bytes(&mut id);
            taken(id)
        } {}
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        self.rng = rng;
        Given {
            id,
            key: Key(key),
            member,
        }
    }
}
