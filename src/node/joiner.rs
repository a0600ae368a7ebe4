//! This machine joins a network by a token (protocol §9): it has no node yet, only a key, and a session that the
//! token's secret makes.
//!
//! A core of its own, before [`super::Node`]: told `now`, it says whom to dial, what to send, and in the end what it
//! was granted or why not. It believes nothing that does not lead back to the token.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    addr::Underlay,
    ids::{Boot, NetworkId, NodeId, Slot},
    keys::{Token, Word, verify, verify_tunnel, x25519_form},
    node::Identity,
    time::{Moment, Now, Timers},
    wire::{
        message::{Hello, Message, Pong, Redeem, Refused, Want},
        record::{self, Body, Kind, Record},
    },
};

/// When Join and initiation go out again, after the start (protocol §9).
const TRIES: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// Redeem, Hello and Want go out again this often until they are answered.
const AGAIN: Duration = Duration::from_secs(1);
/// An issuer that is silent for this long in a session that stood has lost it, as one that was started anew has: the
/// joiner dials again. Three of its questions went unanswered by then.
const SILENT: Duration = Duration::from_secs(3);
/// Slots that a grant may name; more is no grant of ours.
const GRANTED_SLOTS: usize = 64;

/// What a joiner wants done.
#[derive(Clone, Debug)]
pub enum JoinerOutput {
    /// Send a Join with this stamp and an initiation to every hint.
    Dial {
        /// Where to.
        to: Vec<Underlay>,
        /// Greater than all before.
        stamp: u64,
    },
    /// Send a message in the join session.
    Send {
        /// What.
        message: Message,
        /// Where to, if not to the session's endpoint.
        via: Option<Underlay>,
    },
    /// Forget the join session: the next dial makes another.
    Close,
    /// An address answered, for the person who waits.
    Reached {
        /// Which.
        endpoint: Underlay,
        /// How long after the first datagram.
        after: Duration,
    },
    /// Membership was granted and all that proves it is here.
    Granted(Box<Grant>),
    /// The issuer said no.
    Refused(Refused),
}

/// What a joiner becomes a node with.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Which network.
    pub network: NetworkId,
    /// Who let it in.
    pub issuer: NodeId,
    /// Where the issuer is.
    pub endpoint: Underlay,
    /// The records granted, verified.
    pub records: Vec<Record>,
}

/// How a machine wants to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The name.
    pub name: String,
    /// Whether only this name will do.
    pub exact: bool,
}

/// One attempt to join.
#[derive(Clone, Debug)]
pub struct Joiner {
    token: Token,
    identity: Identity,
    wish: Wish,
    started: Moment,
    tries: usize,
    last_stamp: u64,
    session: Option<Session>,
    records: BTreeMap<Slot, Record>,
    wanted: Vec<Slot>,
    timers: Timers<Timer>,
    outbox: VecDeque<JoinerOutput>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Session {
    endpoint: Underlay,
    heard_hello: bool,
    /// When the issuer said something last, or the session came to stand.
    heard: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Dial,
    Speak,
}

impl Joiner {
    /// Starts to join; the first [`JoinerOutput::Dial`] is there at once.
    pub fn new(now: Now, token: Token, identity: Identity, wish: Wish) -> Self {
        let mut joiner = Self {
            token,
            identity,
            wish,
            started: now.at,
            tries: 0,
            last_stamp: 0,
            session: None,
            records: BTreeMap::new(),
            wanted: Vec::new(),
            timers: Timers::default(),
            outbox: VecDeque::new(),
            over: false,
        };
        joiner.dial(now);
        joiner
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<JoinerOutput> {
        self.outbox.pop_front()
    }

    /// The network that the issuer speaks of, once it has told: for sentences, nothing is believed yet.
    pub fn network(&self) -> Option<record::Network> {
        let told = self.find(|record| record.kind() == Kind::Network)?;
        match told.body() {
            Ok(Body::Network(network)) => Some(network),
            Ok(_) | Err(_) => None,
        }
    }

    /// When to call [`Joiner::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.at) {
            match timer {
                Timer::Dial => self.dial(now),
                Timer::Speak => self.speak(now),
            }
        }
    }

    /// The join session stands.
    pub fn handle_up(&mut self, now: Now, endpoint: Underlay) {
        if self.over {
            return;
        }
        self.timers.clear(&Timer::Dial);
        self.session = Some(Session {
            endpoint,
            heard_hello: false,
            heard: now.at,
        });
        self.outbox.push_back(JoinerOutput::Reached {
            endpoint,
            after: now.at.since(self.started),
        });
        self.speak(now);
    }

    /// The join session ended before it was of use: dial again.
    pub fn handle_down(&mut self, now: Now) {
        if !self.over && self.session.take().is_some() {
            self.tries = self.tries.min(TRIES.len() - 1);
            self.timers.set(Timer::Dial, now.at.after(AGAIN));
        }
    }

    /// A message was opened in the join session.
    pub fn handle_message(&mut self, now: Now, source: Underlay, message: Message) {
        if self.over {
            return;
        }
        if let Some(session) = &mut self.session {
            session.heard = now.at;
        }
        match message {
            Message::Hello(_) => {
                if let Some(session) = &mut self.session {
                    let first = !session.heard_hello;
                    session.heard_hello = true;
                    if first {
                        self.speak(now);
                    }
                }
            }
            Message::Ping(ping) => {
                let pong = Pong {
                    nonce: ping.nonce,
                    path: ping.path,
                    observed: Some(source),
                };
                self.outbox.push_back(JoinerOutput::Send {
                    message: Message::Pong(pong),
                    via: Some(source),
                });
            }
            Message::Granted(granted) => {
                self.wanted = granted.slots.into_iter().take(GRANTED_SLOTS).collect();
                self.finish_if_whole(now);
            }
            Message::Records(records) => {
                for record in records
                    .records
                    .iter()
                    .filter_map(|bytes| Record::decode(bytes).ok())
                {
                    if self.wanted.contains(&record.slot()) || self.records.len() < GRANTED_SLOTS {
                        self.records.insert(record.slot(), record);
                    }
                }
                self.finish_if_whole(now);
            }
            Message::Refused(refused) => {
                self.over = true;
                self.timers = Timers::default();
                self.outbox.push_back(JoinerOutput::Refused(refused));
            }
            Message::Bye(_) => {
                self.outbox.push_back(JoinerOutput::Close);
                self.handle_down(now);
            }
            Message::Pong(_)
            | Message::Advert(_)
            | Message::Want(_)
            | Message::Digest(_)
            | Message::Slots(_)
            | Message::Redeem(_)
            | Message::Renew
            | Message::Link(_)
            | Message::Unlink(_)
            | Message::Introduced(_) => {}
        }
    }

    fn dial(&mut self, now: Now) {
        if self.session.is_some() || self.over {
            return;
        }
        self.last_stamp = (self.last_stamp + 1).max(now.unix_ms);
        self.outbox.push_back(JoinerOutput::Dial {
            to: self.token.hints.clone(),
            stamp: self.last_stamp,
        });
        self.tries += 1;
        let next = match TRIES.get(self.tries) {
            Some(after_start) => self.started.after(*after_start).max(now.at.after(TRIES[1])),
            None => now.at.after(TRIES[TRIES.len() - 1]),
        };
        self.timers.set(Timer::Dial, next);
    }

    /// Says what is to be said now, and again in a second.
    fn speak(&mut self, now: Now) {
        let Some(session) = &self.session else { return };
        if now.at.since(session.heard) >= SILENT {
            return self.dial_anew(now);
        }
        let (endpoint, heard) = (session.endpoint, session.heard_hello);
        self.timers.set(Timer::Speak, now.at.after(AGAIN));
        let message = if !heard {
            Message::Hello(self.hello(now, endpoint, heard))
        } else if self.wanted.is_empty() {
            self.say(Message::Hello(self.hello(now, endpoint, heard)));
            Message::Redeem(Redeem {
                name: self.wish.name.clone(),
                exact: self.wish.exact,
            })
        } else {
            let slots = self
                .wanted
                .iter()
                .filter(|slot| !self.records.contains_key(slot))
                .copied()
                .collect();
            Message::Want(Want { slots })
        };
        self.say(message);
    }

    /// The session is of no use any more; what was granted so far is asked for again.
    fn dial_anew(&mut self, now: Now) {
        self.session = None;
        self.wanted.clear();
        self.outbox.push_back(JoinerOutput::Close);
        self.dial(now);
    }

    fn say(&mut self, message: Message) {
        self.outbox
            .push_back(JoinerOutput::Send { message, via: None });
    }

    fn hello(&self, now: Now, endpoint: Underlay, heard: bool) -> Hello {
        Hello {
            wire_min: super::talking::WIRE_MIN,
            wire_max: super::talking::WIRE_MAX,
            features: super::talking::FEATURES,
            role: 0,
            boot: self.boot(),
            time_ms: now.unix_ms,
            digest: [0; 16],
            heard,
            observed: Some(endpoint),
        }
    }

    fn boot(&self) -> Boot {
        self.identity.boot
    }

    fn finish_if_whole(&mut self, now: Now) {
        if self.wanted.is_empty()
            || self
                .wanted
                .iter()
                .any(|slot| !self.records.contains_key(slot))
        {
            return;
        }
        let Some(session) = &self.session else { return };
        let endpoint = session.endpoint;
        match self.believe(endpoint) {
            Some(grant) => {
                self.over = true;
                self.timers = Timers::default();
                self.outbox
                    .push_back(JoinerOutput::Granted(Box::new(grant)));
            }
            // What came does not prove itself: it is thrown away and asked for again.
            None => {
                self.records.clear();
                self.timers.set(Timer::Speak, now.at.after(AGAIN));
            }
        }
    }

    /// The four conditions of protocol §9.
    fn believe(&self, endpoint: Underlay) -> Option<Grant> {
        let network_record = self.find(|record| record.kind() == Kind::Network)?;
        let root = network_record.signer();
        let network = NetworkId(crate::hash::hash(crate::hash::Use::Network, &[&root.0]));
        let is_signed = |record: &Record| {
            verify(
                record.signer(),
                Word::Record,
                &network.0,
                &[record.signed_bytes()],
                &record.signature(),
            )
        };
        if network_record.subject() != root.0 || !is_signed(network_record) {
            return None;
        }
        let me = self.identity.key.id();
        let member = self.find(|record| record.kind() == Kind::Member && record.node() == me)?;
        let issuer = member.signer();
        let admin = self.find(|record| record.kind() == Kind::Admin && record.node() == issuer)?;
        if admin.signer() != root || !is_signed(admin) || !is_signed(member) {
            return None;
        }
        let peer = self
            .find(|record| record.kind() == Kind::Peer && self.is_the_issuers(record, network))?;
        // Who let us in is an admin, mostly the very one that signed: only after a lost answer can it be another.
        let is_admin = |node| {
            let about = |record: &Record| record.kind() == Kind::Admin && record.node() == node;
            self.find(|record| about(record) && record.signer() == root && is_signed(record))
                .is_some()
        };
        if peer.node() != peer.signer() || !is_signed(peer) || !is_admin(peer.node()) {
            return None;
        }
        let records = self
            .records
            .values()
            .filter(|record| is_signed(record))
            .cloned()
            .collect();
        Some(Grant {
            network,
            issuer: peer.node(),
            endpoint,
            records,
        })
    }

    fn find(&self, is_it: impl Fn(&Record) -> bool) -> Option<&Record> {
        self.records.values().find(|record| is_it(record))
    }

    /// Whether the record's node has the tunnel key that the token names, by that key's own word.
    fn is_the_issuers(&self, record: &Record, network: NetworkId) -> bool {
        let Ok(Body::Peer(peer)) = record.body() else {
            return false;
        };
        x25519_form(&peer.tunnel) == Some(self.token.issuer)
            && verify_tunnel(&peer.tunnel, record.node(), &network.0, &peer.cross)
    }
}
