//! An end's legs as the data thread has them: how each is bound, and what is written before a datagram that goes over it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    DEPTH_MAX, LegEvent,
    binding::{Key, bind_nonce},
};
use crate::{
    addr::Path,
    ids::LegIx,
    time::Moment,
    wire::datagram::{RELAY_HEAD, RelayBinding, RelayStep, relay_head},
};

/// When a bind is said again, after the first, until it is challenged.
const BINDS_MS: [u64; 4] = [250, 750, 1750, 3750];

/// When a relay that does not answer is given up.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// When an answer is said once more: nothing tells that it came.
const ANSWER_AGAIN: Duration = Duration::from_millis(250);

/// How a leg goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Where the relay is: the path of this machine's session with it.
    pub relay: Path,
    /// What frames to it carry.
    pub theirs: [u8; 4],
    /// What frames to this machine carry.
    pub ours: u32,
    /// Of its macs.
    pub key: Key,
}

/// All legs.
#[derive(Debug, Default)]
pub struct Legs {
    legs: BTreeMap<LegIx, Leg>,
    by_ours: HashMap<u32, LegIx>,
    by_theirs: HashMap<(Path, [u8; 4]), LegIx>,
}

#[derive(Debug)]
struct Leg {
    given: Given,
    nonce: [u8; 16],
    binding: Binding,
    answer: Option<(RelayBinding, Moment)>,
    rests: bool,
}

/// How far the proof of our place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    /// Said so often, since then.
    Asked(usize, Moment),
    /// Answered.
    Done,
    /// Given up.
    Silent,
}

/// What is written before a datagram, the innermost first, and where it all goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Each relay's frame; the first `depth` count.
    pub heads: [[u8; RELAY_HEAD]; DEPTH_MAX],
    /// How many relays.
    pub depth: usize,
    /// Where to: no relay.
    pub to: Path,
}

impl Framing {
    /// The frames that count.
    pub fn heads(&self) -> &[[u8; RELAY_HEAD]] {
        self.heads.get(..self.depth).unwrap_or_default()
    }
}

impl Legs {
    /// Whether nothing has to be said by itself.
    pub fn is_quiet(&self) -> bool {
        let is_quiet = |leg: &Leg| leg.answer.is_none() && leg.is_settled();
        self.legs.values().all(is_quiet)
    }

    /// Adds a leg; gives what is sent to bind it.
    pub fn add(
        &mut self,
        now: Moment,
        leg: LegIx,
        given: Given,
        random: [u8; 12],
    ) -> Option<(Path, RelayBinding)> {
        self.remove(leg);
        self.by_ours.insert(given.ours, leg);
        self.by_theirs.insert((given.relay, given.theirs), leg);
        let fresh = Leg {
            given,
            nonce: [0; 16],
            binding: Binding::Silent,
            answer: None,
            rests: false,
        };
        self.legs.insert(leg, fresh);
        self.bind(now, leg, random)
    }

    /// Says anew where this machine is.
    pub fn bind(
        &mut self,
        now: Moment,
        leg: LegIx,
        random: [u8; 12],
    ) -> Option<(Path, RelayBinding)> {
        let leg = self.legs.get_mut(&leg)?;
        leg.nonce = bind_nonce(leg.given.ours, random);
        leg.binding = Binding::Asked(1, now);
        leg.answer = None;
        Some((
            leg.given.relay,
            leg.given.key.bind(leg.given.theirs, leg.nonce),
        ))
    }

    /// The relay is elsewhere now.
    pub fn relocate(
        &mut self,
        now: Moment,
        leg: LegIx,
        relay: Path,
        random: [u8; 12],
    ) -> Option<(Path, RelayBinding)> {
        let known = self.legs.get_mut(&leg)?;
        self.by_theirs
            .remove(&(known.given.relay, known.given.theirs));
        known.given.relay = relay;
        self.by_theirs.insert((relay, known.given.theirs), leg);
        self.bind(now, leg, random)
    }

    /// Takes a leg away.
    pub fn remove(&mut self, leg: LegIx) {
        if let Some(gone) = self.legs.remove(&leg) {
            self.by_ours.remove(&gone.given.ours);
            self.by_theirs
                .remove(&(gone.given.relay, gone.given.theirs));
        }
    }

    /// Whether packets for this leg wait from now on.
    pub fn set_resting(&mut self, leg: LegIx, rests: bool) {
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.rests = rests;
        }
    }

    /// Whether packets may go by this path now.
    pub fn carries(&self, path: Path) -> bool {
        match path {
            Path::Relay(leg) => self.legs.get(&leg).is_some_and(|leg| !leg.rests),
            Path::Direct(_) | Path::Stream(_) => true,
            Path::Handed(_) => false,
        }
    }

    /// By which leg a frame came that carries this id.
    pub fn received(&self, source: Path, id: u32) -> Option<LegIx> {
        let leg = *self.by_ours.get(&id)?;
        let known = self.legs.get(&leg)?;
        (known.given.relay == source).then_some(leg)
    }

    /// What is written before a datagram by this path; none: there is no such leg, or too many relays lie there.
    pub fn framing(&self, path: Path) -> Option<Framing> {
        let mut framing = Framing {
            heads: [[0; RELAY_HEAD]; DEPTH_MAX],
            depth: 0,
            to: path,
        };
        while let Path::Relay(leg) = framing.to {
            let leg = self.legs.get(&leg)?;
            *framing.heads.get_mut(framing.depth)? =
                relay_head(u32::from_le_bytes(leg.given.theirs));
            framing.depth += 1;
            framing.to = leg.given.relay;
        }
        Some(framing)
    }

    /// Behind how many relays a path lies; more than may be where it is not known.
    pub fn depth(&self, path: Path) -> usize {
        self.framing(path)
            .map_or(DEPTH_MAX, |framing| framing.depth)
    }

    /// A 22 came: what is answered, and of which leg if that is news.
    pub fn handle_challenge(
        &mut self,
        now: Moment,
        source: Path,
        challenge: &RelayBinding,
    ) -> Option<(RelayBinding, Option<LegIx>)> {
        if challenge.step != RelayStep::Challenge {
            return None;
        }
        let ix = *self.by_theirs.get(&(source, challenge.id))?;
        let leg = self.legs.get_mut(&ix)?;
        if !leg.given.key.made(challenge, &leg.nonce) {
            return None;
        }
        let answer = leg.given.key.answer(challenge, &leg.nonce);
        let is_news = leg.binding != Binding::Done;
        leg.binding = Binding::Done;
        leg.answer = Some((answer, now.after(ANSWER_AGAIN)));
        Some((answer, is_news.then_some(ix)))
    }

    /// What is to be said again: binds and answers. Relays that stayed silent are told through `event`.
    pub fn handle_timers(
        &mut self,
        now: Moment,
        mut send: impl FnMut(Path, RelayBinding),
        mut event: impl FnMut(LegIx, LegEvent),
    ) {
        for (ix, leg) in &mut self.legs {
            if let Some((answer, at)) = leg.answer
                && at <= now
            {
                leg.answer = None;
                send(leg.given.relay, answer);
            }
            let Binding::Asked(times, since) = leg.binding else {
                continue;
            };
            if now.since(since) >= SILENT_AFTER {
                leg.binding = Binding::Silent;
                event(*ix, LegEvent::Silent);
                continue;
            }
            let next = BINDS_MS.get(times - 1).copied();
            if next.is_some_and(|ms| now.since(since) >= Duration::from_millis(ms)) {
                leg.binding = Binding::Asked(times + 1, since);
                send(
                    leg.given.relay,
                    leg.given.key.bind(leg.given.theirs, leg.nonce),
                );
            }
        }
    }
}

impl Leg {
    fn is_settled(&self) -> bool {
        !matches!(self.binding, Binding::Asked(..))
    }
}
