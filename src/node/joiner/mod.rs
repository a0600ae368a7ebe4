//! This machine joins a network by a token (protocol §9): it has no node yet, only a key, and a session that the
//! token's secret makes.
//!
//! A core of its own, before [`super::Node`]: told `now`, it says whom to dial, what to send, and in the end what it
//! was granted or why not. It believes nothing that does not lead back to the token.

mod by_hand;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    addr::{Path, Underlay},
    ids::{Boot, NetworkId, NodeId, Slot, StreamIx},
    keys::{Token, verify_tunnel, x25519_form},
    node::{Identity, verifying},
    paths::allowed::is_private,
    rendezvous::{self, Duties, Meeting, Rendezvous, Seen, Side},
    time::{Moment, Now, Timers},
    wire::{
        message::{Hello, Message, Pong, Redeem, Refused, Want},
        record::{self, Body, Kind, Record, slot_of},
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
/// How long UDP is given before a stream is tried (protocol §1), and how long after one try the next one comes.
const STREAM_AFTER: Duration = Duration::from_millis(1500);
const STREAM_AGAIN: Duration = Duration::from_secs(10);
/// Hints taken from Punches: the issuer has one address on each LAN and family. Whoever holds the token can make these.
const MET_MAX: usize = 4;
/// Slots that a grant may name; more is no grant of ours.
const GRANTED_SLOTS: usize = 64;

/// What a joiner wants done.
#[derive(Clone, Debug)]
pub enum JoinerOutput {
    /// Send a Join with this stamp and an initiation to every hint.
    Dial {
        /// Where to.
        to: Vec<Path>,
        /// Greater than all before.
        stamp: u64,
    },
    /// Call on every LAN: the same Join, to whoever made the invite.
    Call {
        /// As in the dial beside it.
        stamp: u64,
    },
    /// Begin a TLS stream at the first of these that takes one; say [`Joiner::handle_stream`] when it stands.
    OpenStream {
        /// To whom.
        to: StreamTo,
        /// Where.
        at: Vec<Underlay>,
    },
    /// Send a message in the join session.
    Send {
        /// What.
        message: Message,
        /// Where to, if not to the session's endpoint.
        via: Option<Path>,
    },
    /// Forget the join session: the next dial makes another.
    Close,
    /// Ask the DHT; say [`Joiner::handle_slot_answer`] with what it answers.
    Slot(rendezvous::Ask),
    /// Send a datagram of the join session wrapped in an Introduce: a member there may know the issuer.
    Introduce {
        /// Where to.
        to: Path,
        /// What is wrapped.
        datagram: Vec<u8>,
    },
    /// Send this as it is from the main socket.
    Datagram {
        /// Where to.
        to: Underlay,
        /// What.
        bytes: Vec<u8>,
    },
    /// An address answered, for the person who waits.
    Reached {
        /// Which.
        endpoint: Path,
        /// How it was known.
        lead: Lead,
        /// How long after the first datagram; by the DHT, after the last one to that address.
        after: Duration,
    },
    /// Membership was granted and all that proves it is here.
    Granted(Box<Grant>),
    /// The issuer said no.
    Refused(Refused),
}

/// Under whose key a joiner begins a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTo {
    /// Whoever made the invite takes it.
    Issuer,
    /// A member takes it that introduces joiners to whoever made the invite.
    Member,
}

/// How a joiner knew where to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// The token says it.
    Hint,
    /// The issuer said it in the DHT, or its Punch came from there.
    Dht,
}

/// What a joiner becomes a node with.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Which network.
    pub network: NetworkId,
    /// Who let it in.
    pub issuer: NodeId,
    /// Where the issuer is.
    pub endpoint: Path,
    /// How that was known.
    pub lead: Lead,
    /// The member that may have brought this machine and its issuer together: then the endpoint is its.
    pub introducer: Option<NodeId>,
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
    /// Where Punches of the issuer came from.
    met: Vec<Underlay>,
    session: Option<Session>,
    records: BTreeMap<Slot, Record>,
    wanted: Vec<Slot>,
    timers: Timers<Timer>,
    outbox: VecDeque<JoinerOutput>,
    over: bool,
    /// None: there is no DHT to ask.
    rendezvous: Option<Rendezvous>,
    /// When an address was dialled last of which the DHT told.
    tried: BTreeMap<Path, Moment>,
    /// A grant came whole and did not prove itself.
    disbelieved: bool,
    /// The streams on which members take what is for the issuer.
    members: Vec<StreamIx>,
    streams_tried: usize,
}

#[derive(Clone, Debug)]
struct Session {
    endpoint: Path,
    lead: Lead,
    /// Whether a Pong to a bare Ping came: nobody stands between.
    is_bare: bool,
    heard_hello: bool,
    /// When the issuer said something last, or the session came to stand.
    heard: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Dial,
    Speak,
    Dht,
    Stream,
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
            met: Vec::new(),
            session: None,
            records: BTreeMap::new(),
            wanted: Vec::new(),
            timers: Timers::default(),
            outbox: VecDeque::new(),
            over: false,
            rendezvous: None,
            tried: BTreeMap::new(),
            disbelieved: false,
            members: Vec::new(),
            streams_tried: 0,
        };
        joiner.dial(now);
        let patience = now.at.after(STREAM_AFTER);
        joiner.timers.set(Timer::Stream, patience);
        joiner
    }

    /// There is a DHT to ask: the issuer is looked for there too, after the hints had their chance (design §8).
    pub fn use_dht(&mut self, seed: [u8; 32], interfaces: &[Underlay]) {
        let mut rendezvous = Rendezvous::new(self.identity.key.id(), seed);
        let now = Now {
            at: self.started,
            unix_ms: 0,
        };
        rendezvous.handle_interfaces(now, interfaces);
        self.rendezvous = Some(rendezvous);
        let begin = self.started.after(rendezvous::HEAD_START);
        self.timers.set(Timer::Dht, begin);
    }

    /// A stream stands: the issuer is dialled there too.
    pub fn handle_stream(&mut self, now: Now, stream: StreamIx, to: StreamTo) {
        if self.session.is_some() || self.over {
            return;
        }
        let path = Path::Stream(stream);
        let path = match to {
            StreamTo::Issuer => Some(path),
            StreamTo::Member => {
                self.members.push(stream);
                self.hand_at(path)
            }
        };
        self.dial_at(now, path.into_iter().collect());
    }

    /// The DHT answered.
    pub fn handle_slot_answer(&mut self, now: Now, answer: rendezvous::Answer) {
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.handle_answer(now, answer, &|_node| true);
        }
        self.drain_rendezvous(now);
    }

    /// A datagram of the DHT came to the main socket.
    pub fn handle_dht(&mut self, now: Now, source: Underlay, bytes: &[u8]) {
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.handle_datagram(now, source, bytes);
        }
        self.drain_rendezvous(now);
    }

    /// A Punch of the issuer came from here. It is one more hint, wherever it was heard.
    pub fn handle_punch(&mut self, now: Now, source: Underlay) {
        let is_known = self.token.hints.contains(&source) || self.met.contains(&source);
        if !(self.over || self.session.is_some() || is_known || self.met.len() >= MET_MAX) {
            self.met.push(source);
            self.dial_at(now, vec![Path::Direct(source)]);
        }
        let join_id = self.token.secret.join_id();
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.handle_punch(now, join_id, source);
        }
        self.drain_rendezvous(now);
    }

    /// Where the world sees this machine, if the DHT was asked and its nodes answered.
    pub fn seen(&self) -> Option<&Seen> {
        self.rendezvous.as_ref().and_then(Rendezvous::seen)
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

    /// Whether the issuer granted something that does not prove itself, and nothing better since.
    pub fn was_disbelieved(&self) -> bool {
        self.disbelieved
    }

    /// When to call [`Joiner::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let rendezvous = self.rendezvous.as_ref();
        let rendezvous = rendezvous.and_then(Rendezvous::poll_timeout);
        self.timers.next().into_iter().chain(rendezvous).min()
    }

    /// Acts on the deadlines that have come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.at) {
            match timer {
                Timer::Dial => self.dial(now),
                Timer::Speak => self.speak(now),
                Timer::Dht => self.look_in_dht(now),
                Timer::Stream => self.open_stream(now),
            }
        }
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.handle_timeout(now);
        }
        self.drain_rendezvous(now);
    }

    /// Begins with the DHT, unless the issuer is reached already.
    fn look_in_dht(&mut self, now: Now) {
        let meeting = Meeting {
            secret: self.token.secret.clone(),
            side: Side::Joiner,
        };
        let is_wanted = self.session.is_none() && !self.over;
        let duties = Duties {
            meetings: Vec::from_iter(is_wanted.then_some(meeting)),
            network: None,
        };
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.handle_duties(now, duties);
        }
    }

    fn drain_rendezvous(&mut self, now: Now) {
        while let Some(output) = self.rendezvous.as_mut().and_then(Rendezvous::poll_output) {
            match output {
                rendezvous::Output::Ask(ask) => self.outbox.push_back(JoinerOutput::Slot(ask)),
                rendezvous::Output::Datagram { to, bytes } => {
                    self.outbox.push_back(JoinerOutput::Datagram { to, bytes });
                }
                rendezvous::Output::Probe { to, .. } if self.session.is_none() && !self.over => {
                    self.tried.insert(Path::Direct(to), now.at);
                    self.dial_at(now, vec![Path::Direct(to)]);
                }
                rendezvous::Output::Probe { .. } => {}
            }
        }
    }

    /// The join session stands.
    pub fn handle_up(&mut self, now: Now, endpoint: Path) {
        if self.over {
            return;
        }
        self.timers.clear(&Timer::Dial);
        let (lead, since) = match self.tried.get(&endpoint) {
            Some(tried) => (Lead::Dht, *tried),
            None => (Lead::Hint, self.started),
        };
        self.session = Some(Session {
            endpoint,
            lead,
            is_bare: false,
            heard_hello: false,
            heard: now.at,
        });
        self.look_in_dht(now);
        self.ping_bare();
        self.outbox.push_back(JoinerOutput::Reached {
            endpoint,
            lead,
            after: now.at.since(since),
        });
        self.speak(now);
    }

    /// The join session ended before it was of use: dial again.
    pub fn handle_down(&mut self, now: Now) {
        if !self.over && self.session.take().is_some() {
            self.tries = self.tries.min(TRIES.len() - 1);
            self.timers.set(Timer::Dial, now.at.after(AGAIN));
            self.timers.set(Timer::Dht, now.at.after(AGAIN));
        }
    }

    /// A message was opened in the join session.
    pub fn handle_message(&mut self, now: Now, source: Path, message: Message) {
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
                    observed: source.direct(),
                };
                self.say_to(Message::Pong(pong), Some(source));
            }
            Message::Pong(pong) if pong.nonce == self.nonce() => {
                if let Some(session) = &mut self.session {
                    session.is_bare |= session.endpoint == source;
                }
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
            | Message::Introduced(_)
            | Message::Reaching(_)
            | Message::Relaying(_) => {}
        }
    }

    fn dial(&mut self, now: Now) {
        if self.session.is_some() || self.over {
            return;
        }
        let stamp = self.next_stamp(now);
        let hints = self.token.hints.iter();
        let bare: Vec<Path> = hints.copied().map(Path::Direct).collect();
        let met = self.met.iter().copied().map(Path::Direct);
        let hands = self.hands();
        let to = bare.iter().copied().chain(met).chain(hands).collect();
        self.outbox.push_back(JoinerOutput::Dial { to, stamp });
        self.outbox.push_back(JoinerOutput::Call { stamp });
        self.tries += 1;
        let next = match TRIES.get(self.tries) {
            Some(after_start) => self.started.after(*after_start).max(now.at.after(TRIES[1])),
            None => now.at.after(TRIES[TRIES.len() - 1]),
        };
        self.timers.set(Timer::Dial, next);
    }

    fn dial_at(&mut self, now: Now, to: Vec<Path>) {
        let stamp = self.next_stamp(now);
        self.outbox.push_back(JoinerOutput::Dial { to, stamp });
    }

    /// UDP may go nowhere from here.
    fn open_stream(&mut self, now: Now) {
        if self.session.is_none() && !self.over {
            // Behind a hint is the issuer, or a member that may introduce it: which, shows when one answers.
            let mut at = self.token.hints.clone();
            // A private address may be somebody else's here, and whoever shakes hands in TLS keeps the others waiting: they come
            // last, and each has its turn to be the first.
            at.sort_by_key(|hint| is_private(hint.ip()));
            let turn = self.streams_tried % at.len().max(1);
            at.rotate_left(turn);
            self.streams_tried += 1;
            for to in [StreamTo::Issuer, StreamTo::Member] {
                let at = at.clone();
                self.outbox.push_back(JoinerOutput::OpenStream { to, at });
            }
        }
        if !self.over {
            let again = now.at.after(STREAM_AGAIN);
            self.timers.set(Timer::Stream, again);
        }
    }

    fn next_stamp(&mut self, now: Now) -> u64 {
        self.last_stamp = (self.last_stamp + 1).max(now.unix_ms);
        self.last_stamp
    }

    /// Says what is to be said now, and again in a second.
    fn speak(&mut self, now: Now) {
        let Some(session) = &self.session else { return };
        if now.at.since(session.heard) >= SILENT {
            return self.dial_anew(now);
        }
        let (endpoint, heard) = (session.endpoint, session.heard_hello);
        self.timers.set(Timer::Speak, now.at.after(AGAIN));
        self.ping_bare();
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
        self.say_to(message, None);
    }

    fn hello(&self, now: Now, endpoint: Path, heard: bool) -> Hello {
        Hello {
            wire_min: super::talking::WIRE_MIN,
            wire_max: super::talking::WIRE_MAX,
            // No user data goes in a join session.
            features: 0,
            role: 0,
            boot: self.boot(),
            time_ms: now.unix_ms,
            digest: [0; 16],
            heard,
            observed: endpoint.direct(),
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
        let (endpoint, lead) = (session.endpoint, session.lead);
        match self.believe(endpoint, lead) {
            Some(grant) => {
                self.over = true;
                self.timers = Timers::default();
                self.outbox
                    .push_back(JoinerOutput::Granted(Box::new(grant)));
            }
            // What came does not prove itself: it is thrown away and asked for again.
            None => {
                self.disbelieved = true;
                self.records.clear();
                self.timers.set(Timer::Speak, now.at.after(AGAIN));
            }
        }
    }

    /// The conditions of protocol §9.
    fn believe(&self, endpoint: Path, lead: Lead) -> Option<Grant> {
        let network_record = self.find(|record| record.kind() == Kind::Network)?;
        let root = network_record.signer();
        let network = NetworkId(crate::hash::hash(crate::hash::Use::Network, &[&root.0]));
        let is_signed = |record: &Record| verifying::is_signed(record, network);
        if network_record.subject() != root.0 || !is_signed(network_record) {
            return None;
        }
        let me = self.identity.key.id();
        let member = self.find(|record| record.kind() == Kind::Member && record.node() == me)?;
        let issuer = member.signer();
        // Who let us in is an admin, mostly the very one that signed: only after a lost answer can it be another.
        let is_admin = |node| {
            let about = |record: &Record| record.kind() == Kind::Admin && record.node() == node;
            self.find(|record| about(record) && record.signer() == root && is_signed(record))
                .is_some()
        };
        if !is_admin(issuer) || !is_signed(member) {
            return None;
        }
        // Without the first epoch there is no key for any peer: the membership would be dead.
        let first = slot_of(Kind::Epoch, &root.0, &0_u32.to_le_bytes());
        let epoch = self.records.get(&first)?;
        if !is_signed(epoch) || !is_admin(epoch.signer()) {
            return None;
        }
        let peer = self
            .find(|record| record.kind() == Kind::Peer && self.is_the_issuers(record, network))?;
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
            introducer: self.introducer(peer.node(), network),
            lead,
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
