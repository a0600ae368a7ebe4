//! Ping and Pong: the proof that a peer is at an address, and how far away it is (protocol §5).
//!
//! An address is proven by a Pong that carries the nonce of a Ping sent to it and comes from it; by nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::Underlay,
    ids::SessionId,
    time::{Moment, Now, Timers},
};

/// When the Pings to a new address go out, after the first (protocol §5: at most 3 in all).
const PATH_PINGS_MS: [u64; 2] = [300, 900];

/// When the Pings to the endpoint of a new session go out, after the first: it carries no more than 64 KiB until one
/// is answered (protocol §3).
const ENDPOINT_PINGS_MS: [u64; 4] = [250, 500, 1000, 2000];

/// How long an address that did not answer is left alone, and how long a Pong is waited for: longer than any round
/// trip, short enough that a peer that moved and came back is found.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// Addresses of one session under proof at once. Only authenticated packets open one; a peer with more waits.
const PROBES_MAX: usize = 4;

/// Nonces of one session waiting for their Pong: [`PROBES_MAX`] addresses with all their Pings, and some that people
/// sent.
const NONCES_MAX: usize = 32;

/// What the proofs ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a Ping.
    Ping {
        /// In which session.
        session: SessionId,
        /// Where to, if not to the session's endpoint.
        via: Option<Underlay>,
        /// Comes back in the Pong.
        nonce: [u8; 8],
        /// Our number for the path.
        path: u64,
    },
    /// A Pong has proven this address: the session's data may go there without limit.
    SetPath {
        /// Whose.
        session: SessionId,
        /// Where to.
        endpoint: Underlay,
    },
    /// A Ping that somebody asked for was not answered in time.
    Unanswered {
        /// In which session.
        session: SessionId,
        /// As asked.
        tag: u64,
    },
}

/// What a Pong means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It proves the address it came from.
    Proven {
        /// Which.
        endpoint: Underlay,
        /// From Ping to Pong.
        rtt: Duration,
        /// Whether the session's data went elsewhere before.
        moved: bool,
    },
    /// It answers a Ping to wherever the session is: a sign of life, and proof of nothing new.
    Answered {
        /// As asked in [`Proofs::ping`].
        tag: Option<u64>,
        /// From Ping to Pong.
        rtt: Duration,
    },
    /// It carries no nonce under way in this session, or comes from another address than the Ping went to.
    Unknown,
}

/// How long a round trip in a session takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The last one measured.
    pub last: Duration,
    /// Smoothed: 7/8 of what it was and 1/8 of each new one.
    pub smoothed: Duration,
}

/// All Pings under way.
#[derive(Clone, Debug)]
pub struct Proofs {
    rng: ChaCha8Rng,
    sessions: BTreeMap<SessionId, Session>,
    timers: Timers<(SessionId, Wake)>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug)]
struct Session {
    endpoint: Underlay,
    rtt: Option<Rtt>,
    paths: u64,
    probes: BTreeMap<Underlay, Probe>,
    nonces: VecDeque<Sent>,
}

/// Addresses under proof, each with what is still to be sent.
#[derive(Clone, Copy, Debug)]
struct Probe {
    path: u64,
    begun: Moment,
    sent: usize,
    pings: &'static [u64],
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    nonce: [u8; 8],
    at: Moment,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Proof(Underlay),
    Life(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Probe(Underlay),
    Expire,
}

impl Proofs {
    /// No session yet. `seed` makes the nonces and is a secret of this run.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            sessions: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A session stands: its endpoint is Pinged until it answers. Said again for the same session, it begins anew.
    pub fn handle_up(&mut self, now: Now, session: SessionId, endpoint: Underlay) {
        let rtt = self.rtt(session);
        self.handle_down(session);
        let standing = Session {
            endpoint,
            rtt,
            paths: 0,
            probes: BTreeMap::new(),
            nonces: VecDeque::new(),
        };
        self.sessions.insert(session, standing);
        self.probe(now, session, endpoint, &ENDPOINT_PINGS_MS);
    }

    /// A session ended.
    pub fn handle_down(&mut self, session: SessionId) {
        let Some(ended) = self.sessions.remove(&session) else {
            return;
        };
        for address in ended.probes.keys() {
            self.timers.clear(&(session, Wake::Probe(*address)));
        }
        self.timers.clear(&(session, Wake::Expire));
        for sent in ended.nonces {
            self.tell_unanswered(session, sent);
        }
    }

    /// An authenticated packet came from another address than the endpoint: it is Pinged, at most 3 times.
    pub fn handle_new_path(&mut self, now: Now, session: SessionId, source: Underlay) {
        let Some(standing) = self.sessions.get(&session) else {
            return;
        };
        if !standing.probes.contains_key(&source) && standing.probes.len() < PROBES_MAX {
            self.probe(now, session, source, &PATH_PINGS_MS);
        }
    }

    /// A Pong came.
    pub fn handle_pong(
        &mut self,
        now: Now,
        session: SessionId,
        nonce: [u8; 8],
        source: Underlay,
    ) -> Proof {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return Proof::Unknown;
        };
        let Some(index) = standing.nonces.iter().position(|sent| sent.nonce == nonce) else {
            return Proof::Unknown;
        };
        let sent = standing.nonces[index];
        if matches!(sent.purpose, Purpose::Proof(to) if to != source) {
            return Proof::Unknown;
        }
        standing.nonces.remove(index);
        let rtt = now.at.since(sent.at);
        standing.measure(rtt);
        match sent.purpose {
            Purpose::Life(tag) => Proof::Answered { tag, rtt },
            Purpose::Proof(endpoint) => self.prove(session, endpoint, rtt),
        }
    }

    /// Pings wherever the session is: a person asked, who gets the answer under `tag`, or a silent link is tried.
    pub fn ping(&mut self, now: Now, session: SessionId, tag: Option<u64>) {
        if self.sessions.contains_key(&session) {
            self.send(now, session, Purpose::Life(tag), 0);
        } else if let Some(tag) = tag {
            self.outputs.push_back(Output::Unanswered { session, tag });
        }
    }

    /// How long round trips in a session take, once one was measured.
    pub fn rtt(&self, session: SessionId) -> Option<Rtt> {
        self.sessions.get(&session)?.rtt
    }

    /// Where a session's data goes.
    pub fn endpoint(&self, session: SessionId) -> Option<Underlay> {
        Some(self.sessions.get(&session)?.endpoint)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((session, wake)) = self.timers.pop_due(now.at) {
            match wake {
                Wake::Probe(address) => self.probe_again(now, session, address),
                Wake::Expire => self.expire(now, session),
            }
        }
    }

    fn probe(&mut self, now: Now, session: SessionId, address: Underlay, pings: &'static [u64]) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let probe = Probe {
            path: standing.paths,
            begun: now.at,
            sent: 0,
            pings,
        };
        standing.paths += 1;
        standing.probes.insert(address, probe);
        self.probe_again(now, session, address);
    }

    /// Sends the next Ping of a probe and plans what follows; after the last, the address is left alone for a while
    /// and then forgotten.
    fn probe_again(&mut self, now: Now, session: SessionId, address: Underlay) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(probe) = standing.probes.get_mut(&address) else {
            return;
        };
        if probe.sent > probe.pings.len() {
            standing.probes.remove(&address);
            return;
        }
        let (path, begun) = (probe.path, probe.begun);
        let wait = probe
            .pings
            .get(probe.sent)
            .copied()
            .map(Duration::from_millis);
        probe.sent += 1;
        let next = wait.map_or(now.at.after(GIVEN_UP_AFTER), |wait| begun.after(wait));
        self.timers
            .set((session, Wake::Probe(address)), next.max(now.at));
        self.send(now, session, Purpose::Proof(address), path);
    }

    fn prove(&mut self, session: SessionId, endpoint: Underlay, rtt: Duration) -> Proof {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return Proof::Unknown;
        };
        let moved = standing.endpoint != endpoint;
        standing.endpoint = endpoint;
        standing
            .nonces
            .retain(|sent| sent.purpose != Purpose::Proof(endpoint));
        standing.probes.remove(&endpoint);
        self.timers.clear(&(session, Wake::Probe(endpoint)));
        self.outputs
            .push_back(Output::SetPath { session, endpoint });
        Proof::Proven {
            endpoint,
            rtt,
            moved,
        }
    }

    fn send(&mut self, now: Now, session: SessionId, purpose: Purpose, path: u64) {
        let mut nonce = [0; 8];
        self.rng.fill_bytes(&mut nonce);
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let crowded_out = if standing.nonces.len() >= NONCES_MAX {
            standing.nonces.pop_front()
        } else {
            None
        };
        let at = now.at;
        standing.nonces.push_back(Sent { nonce, at, purpose });
        if let Some(sent) = crowded_out {
            self.tell_unanswered(session, sent);
        }
        self.timers
            .set_earlier((session, Wake::Expire), at.after(GIVEN_UP_AFTER));
        let via = match purpose {
            Purpose::Proof(address) => Some(address),
            Purpose::Life(_) => None,
        };
        self.outputs.push_back(Output::Ping {
            session,
            via,
            nonce,
            path,
        });
    }

    fn expire(&mut self, now: Now, session: SessionId) {
        let Some(standing) = self.sessions.get_mut(&session) else {
            return;
        };
        let mut late = Vec::new();
        while let Some(sent) = standing.nonces.front().copied() {
            if sent.at.after(GIVEN_UP_AFTER) > now.at {
                self.timers
                    .set((session, Wake::Expire), sent.at.after(GIVEN_UP_AFTER));
                break;
            }
            standing.nonces.pop_front();
            late.push(sent);
        }
        for sent in late {
            self.tell_unanswered(session, sent);
        }
    }

    fn tell_unanswered(&mut self, session: SessionId, sent: Sent) {
        if let Purpose::Life(Some(tag)) = sent.purpose {
            self.outputs.push_back(Output::Unanswered { session, tag });
        }
    }
}

impl Session {
    fn measure(&mut self, rtt: Duration) {
        let smoothed = self.rtt.map_or(rtt, |known| (known.smoothed * 7 + rtt) / 8);
        self.rtt = Some(Rtt {
            last: rtt,
            smoothed,
        });
    }
}
