//! One peer: the cores joined, one file per story.
//!
//! Takes decoded, authenticated messages and commands, never a data packet; says what to do as [`output::Output`]s,
//! carried out by the shell in their order. No clock, no socket, no await, no ambient randomness: the same seed and
//! the same inputs give the same outputs, which is what `tests/sim` stands on.
//!
//! | story | file |
//! |---|---|
//! | a network is founded | [`founding`] |
//! | this machine joins one | [`joiner`] |
//! | it lets others join | `admitting` |
//! | a peer knocks | `knocking` |
//! | a session stands, speaks, ends | `talking` |
//! | records come and go | `gossiping` |
//! | this peer says that it is there | `leasing` |
//! | links are kept | `linking` |
//! | a peer is reached | `reaching` |
//! | peers meet in a LAN | `neighbours` |
//! | through the hands of a third one | `calling` |
//! | which third one could, is found out | `locating` |
//! | who may hand on for it | `housing` |
//! | somebody joins through a member | `introducing` |
//! | from outside, or not | `proving` |
//! | a peer is reached where UDP goes nowhere | `streaming` |
//! | a third peer carries | `relaying` |
//! | the path to it is chosen | `pathing` |
//! | the port of a peer is guessed | `guessing` |
//! | this machine moves, or a peer does | `roaming` |
//! | two peers meet whom nobody brings together | [`meeting`] |
//! | somebody asks why a path is what it is | [`explaining`] |
//! | services are published | `serving` |
//! | names and addresses are told | `naming` |
//! | somebody looks | [`status`] |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::AddressPlan,
    gossip::{self, Gossip},
    ids::{Boot, Interner, JoinId, JoinIx, NetworkId, NodeId, PeerIx, SessionId},
    keys::{NodeKey, TunnelKey},
    members::{Members, invites::Invites, mesh_time::MeshTime},
    node::{
        admitting::Admitting,
        calling::Claims,
        input::{Input, Row},
        kept::Kept,
        knocking::Left,
        leasing::PeerChanges,
        meeting::Meetings,
        output::{Notice, Output, Write},
        proving::Proving,
        talking::Pair,
        verifying::Unverified,
    },
    overlay::{Limits, Links, homes::Homes},
    paths::{
        attempt::Attempts, candidates::Candidates, dossier::Dossiers, guessing::Guesses,
        hands::Hands, history::History, introductions::Introductions, lan::Lan,
        listening::Listening, locating::Locating, outside::Outside, passing::Passing,
        proof::Proofs, seen::Seen,
    },
    registry::Registry,
    relay::{
        asking::Asking,
        grants::{Grants, Willing},
    },
    time::{Moment, Now, Timers},
    wire::{message::Message, record::Record, sealed::Sealed},
};

mod admitting;
mod calling;
#[cfg(test)]
mod convergence;
pub mod explaining;
pub mod founding;
mod gossiping;
mod guessing;
mod housing;
pub mod input;
mod introducing;
pub mod joiner;
pub mod kept;
mod knocking;
mod leasing;
mod linking;
mod locating;
pub mod meeting;
mod naming;
mod neighbours;
pub mod output;
mod pathing;
mod proving;
mod reaching;
mod relaying;
mod roaming;
mod serving;
pub mod status;
mod streaming;
mod talking;
#[cfg(test)]
mod tests;
mod verifying;

pub use admitting::{InviteOptions, InviteRefused, RecoverRefused};
pub use knocking::SealedKey;
pub use neighbours::Neighbour;
pub use serving::{ServiceRefused, ServiceWish};
pub use status::{Snapshot, Whois};
pub use streaming::StreamEvent;
pub use verifying::is_signed;

/// The keys of this machine in one network, and this run of its agent.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who it is.
    pub key: NodeKey,
    /// Its WireGuard static key.
    pub tunnel: TunnelKey,
    /// This run.
    pub boot: Boot,
}

/// What the shell decides for a node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seeds the node's generator; drawn by the shell.
    pub seed: [u8; 32],
    /// How many links and sessions.
    pub limits: Limits,
    /// Whether this host can use the network's IPv4.
    pub ipv4: Ipv4Use,
    /// Whether TLS streams are taken where others reach this machine.
    pub streams: bool,
    /// Where DNS over TCP is answered on the own mesh address.
    pub dns_tcp_port: u16,
    /// Whether this machine carries for others.
    pub relay: Willing,
    /// Whether its user data may go by transports.
    pub transports: bool,
    /// The version this build calls itself, unix s of its making: part of the floor under mesh time.
    pub built_s: u64,
}

/// Whether this host uses the network's IPv4 (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Use {
    /// It does.
    On,
    /// It has its address, and nothing comes through: a rival's rule drops it. Names are told by IPv6 alone.
    Blocked,
    /// It does not: a route overlaps.
    Off,
}

/// What was found on the disk, or what founding or joining gave.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Records that this machine has verified before.
    pub records: Vec<Record>,
    /// The rows of protocol §2.
    pub rows: Vec<Row>,
    /// The kept state.
    pub kept: Kept,
}

/// One peer of one network.
#[derive(Clone, Debug)]
pub struct Node {
    me: NodeId,
    identity: Identity,
    /// That the tunnel key is this node's, by its own word.
    cross: [u8; 64],
    network: NetworkId,
    settings: Settings,
    rng: ChaCha8Rng,
    ids: Interner,
    members: Members,
    mesh_time: MeshTime,
    registry: Registry,
    gossip: Gossip,
    unlinked: gossip::Unlinked,
    links: Links,
    attempts: Attempts,
    proofs: Proofs,
    guesses: Guesses,
    candidates: Candidates,
    homes: Homes,
    /// Everybody who said at some time that it is a home: few of many.
    known_homes: BTreeSet<NodeId>,
    lan: Lan,
    hands: Hands,
    passing: Passing,
    listening: Listening,
    locating: Locating,
    introductions: Introductions,
    seen: Seen,
    outside: Outside,
    proving: Proving,
    claims: BTreeMap<PeerIx, Claims>,
    grants: Grants,
    asking: Asking,
    dossiers: Dossiers,
    history: History,
    meetings: Meetings,
    /// When the newest lease of an admin was made that was ever seen in this run, unix s (protocol §8).
    admin_seen_s: u64,
    kept: Kept,
    invites: Invites,
    rows: BTreeMap<NodeId, Row>,
    earlier_boots: BTreeMap<NodeId, Left>,
    pairs: BTreeMap<PeerIx, Pair>,
    admitting: BTreeMap<JoinIx, Admitting>,
    next_join: u32,
    unverified: Unverified,
    timers: Timers<Timer>,
    outbox: VecDeque<Output>,
    notices: BTreeSet<Notice>,
    publication: Publication,
    next_ticket: u64,
    peer_changes: PeerChanges,
    joiners: BTreeMap<JoinId, admitting::Joiners>,
    waiting_pings: BTreeMap<PeerIx, Vec<u64>>,
    told: roaming::Told,
    streaming: streaming::Streaming,
    /// No lease of anybody else is in force.
    is_lonely: bool,
    is_cut_off: bool,
    /// Since when no session that carries data has stood; none: one does.
    alone_since: Option<Moment>,
    counters: Counters,
}

/// Events of the control plane that `status` shows beside the datapath's drops.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    fn count(&mut self, reason: &'static str) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Every reason that ever happened, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(reason, count)| (*reason, *count))
    }
}

/// What has been published, and what is not yet.
#[derive(Clone, Debug, Default)]
struct Publication {
    version: u64,
    last: Option<Moment>,
    stale: bool,
}

/// Every deadline of the node itself; the cores have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Publish or renew the own lease.
    Lease,
    /// Publish the own Peer record again because something changed.
    Peer,
    /// Say Hello again.
    Hello(SessionId),
    /// Verify more of the records that wait.
    Verify,
    /// Let records end.
    Expire,
    /// Publish the tables.
    Publish,
    /// Forget a join session.
    JoinOver(JoinIx),
    /// After a start: knock at a peer with which a session stood.
    Burst(PeerIx),
    /// UDP had its time: try a stream to a peer, or UDP again where a stream stands.
    Stream(PeerIx),
    /// Compute the own homes.
    Homes,
    /// Ask anew whether this machine is reached from outside.
    Prove,
    /// The records of a peer had time to come: knock at it as a link asked.
    KnockAt(NodeId),
    /// Others had time to knock: dial what waited for that.
    Knocked,
    /// A session goes a long way: look for a shorter one, for the so-manieth time.
    Closer(PeerIx, usize),
    /// This machine is elsewhere: tell those that programs talk with.
    Moved,
    /// Daily duties: heartbeat, renewal.
    Daily,
    /// End a session that stands by hand and found no path.
    Pathless(PeerIx),
    /// Ask relays for a way to a peer that has not answered.
    AskRelays(PeerIx),
    /// Make a session anew whose leg rested and does not carry again.
    WakeUp(PeerIx),
    /// Write down why the path to a peer is not direct.
    Judge(PeerIx),
    /// No home was spoken with for a while: try those that have left.
    CutOff,
}

impl Node {
    /// Makes the node of a network from what was founded, granted or found on the disk.
    ///
    /// Drain [`Node::poll_output`] after this as after every input.
    pub fn new(
        now: Now,
        network: NetworkId,
        identity: Identity,
        settings: Settings,
        restored: Restored,
    ) -> Self {
        let me = identity.key.id();
        let mut ids = Interner::default();
        ids.intern(me);
        let mut rng = ChaCha8Rng::from_seed(settings.seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let [gossip_seed, links_seed, attempts_seed, proofs_seed] =
            [draw(), draw(), draw(), draw()];
        let [lan_seed, grants_seed, asking_seed] = [draw(), draw(), draw()];
        let [meetings_seed, guesses_seed] = [draw(), draw()];
        let floor_s = restored.kept.floor_s.max(settings.built_s);
        let mut node = Self {
            me,
            cross: identity.tunnel.cross_sign(me, &network.0),
            identity,
            network,
            rng,
            ids,
            members: Members::new(network, me),
            mesh_time: MeshTime::new(now, floor_s),
            registry: Registry::new(me),
            gossip: Gossip::new(gossip_seed),
            unlinked: gossip::Unlinked::default(),
            links: Links::new(me, settings.limits, links_seed),
            attempts: Attempts::new(attempts_seed),
            proofs: Proofs::new(proofs_seed),
            guesses: Guesses::new(guesses_seed),
            grants: Grants::new(grants_seed, settings.relay),
            asking: Asking::new(asking_seed),
            candidates: Candidates::new(AddressPlan::of(network)),
            homes: Homes::default(),
            known_homes: BTreeSet::new(),
            lan: Lan::new(lan_seed),
            hands: Hands::default(),
            passing: Passing::default(),
            listening: Listening::default(),
            locating: Locating::default(),
            introductions: Introductions::default(),
            seen: Seen::default(),
            outside: Outside::default(),
            proving: Proving::default(),
            claims: BTreeMap::new(),
            dossiers: Dossiers::default(),
            history: History::default(),
            meetings: Meetings::new(me, meetings_seed),
            admin_seen_s: 0,
            invites: Invites::new(restored.kept.invites.clone()),
            kept: restored.kept,
            rows: restored
                .rows
                .into_iter()
                .map(|row| (row.node, row))
                .collect(),
            earlier_boots: BTreeMap::new(),
            pairs: BTreeMap::new(),
            admitting: BTreeMap::new(),
            next_join: FIRST_JOIN,
            unverified: Unverified::default(),
            timers: Timers::default(),
            outbox: VecDeque::new(),
            notices: BTreeSet::new(),
            publication: Publication::default(),
            next_ticket: 0,
            peer_changes: PeerChanges::default(),
            joiners: BTreeMap::new(),
            waiting_pings: BTreeMap::new(),
            told: roaming::Told::default(),
            streaming: streaming::Streaming::default(),
            is_lonely: false,
            is_cut_off: false,
            alone_since: Some(now.at),
            counters: Counters::default(),
            settings,
        };
        node.restore_records(now, restored.records);
        node.start(now);
        node
    }

    /// Takes in one thing that happened at `now`. Drain [`Node::poll_output`] before the next.
    pub fn handle_input(&mut self, now: Now, input: Input) {
        match input {
            Input::Message {
                session: SessionId::Pair(peer),
                source,
                message,
            } => {
                self.on_message(now, peer, source, message);
            }
            Input::Message {
                session: SessionId::Join(join),
                source,
                message,
            } => {
                self.on_join_message(now, join, source, message);
            }
            Input::Sealed {
                source,
                epoch,
                hint,
                body,
            } => match body {
                Sealed::Knock(knock) => self.on_knock(now, source, (&knock, epoch)),
                Sealed::Join(join) => self.on_join(now, source, hint, &join),
                Sealed::Introduce(introduce) => {
                    self.on_introduce(now, source, hint, introduce.datagram);
                }
                Sealed::Beacon(_) | Sealed::Punch(_) => {
                    self.counters.count("sealed_unused");
                }
            },
            Input::Session { session, event } => self.on_session(now, session, event),
            Input::Stream(event) => self.on_stream(now, event),
            Input::Handed { hand, bytes } => self.on_handed(now, hand, bytes),
            Input::Wanted { peer } => self.on_wanted(now, peer),
            Input::Heard(uses) => {
                for one in uses {
                    self.on_heard(now, one);
                }
            }
            Input::Tick => {}
            Input::Leg { leg, event } => self.on_leg(now, leg, event),
            Input::WayOver { way } => self.on_way_over(way),
            Input::NewPath { session, source } => self.on_new_path(now, session, source),
            Input::Elsewhere { session, source } => {
                self.proofs.handle_elsewhere(now, session, source);
            }
            Input::Unheard { session, cause } => self.on_unheard(now, session, cause),
            Input::Resent { session } => self.proofs.handle_resent(now, session),
            Input::Woke => self.on_woke(now),
            Input::Addresses(addresses) => self.on_addresses(now, addresses),
            Input::Mapped(address) => self.on_mapped(now, address),
            Input::Places(places) => self.on_places(now, places),
            Input::Lan { source, hint, body } => self.on_lan(now, source, hint, &body),
            Input::Persisted { ticket, outcome } => self.on_persisted(now, ticket, outcome),
            Input::Slot(answer) => self.on_slot_answer(now, answer),
            Input::Dht { source, bytes } => self.on_dht_datagram(now, source, &bytes),
        }
        self.finish_turn(now);
    }

    /// The next thing to do, in order; drained until `None` after every call that takes `&mut self`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// When the node wants an [`Input::Tick`] next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        [
            self.timers.next(),
            self.gossip.poll_timeout(),
            self.links.poll_timeout(),
            self.homes.poll_timeout(),
            self.attempts.poll_timeout(),
            self.proofs.poll_timeout(),
            self.guesses.poll_timeout(),
            self.lan.poll_timeout(),
            self.asking.poll_timeout(),
            self.meetings.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Who this peer is.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// Which network it is in.
    pub fn network_id(&self) -> NetworkId {
        self.network
    }

    /// The node id behind an index of [`Output`]s and [`crate::tables::Tables`].
    pub fn node_of(&self, peer: PeerIx) -> NodeId {
        self.ids.node(peer)
    }

    /// The kept state as it is now.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Sets whether `down` was said, and keeps it.
    pub fn keep_down(&mut self, down: Standing) {
        self.kept.down = down == Standing::Down;
        self.persist_kept(None);
    }

    /// Sets where DNS over TCP is answered: the shell learns it after the own addresses are known.
    pub fn set_dns_tcp_port(&mut self, now: Now, port: u16) {
        self.settings.dns_tcp_port = port;
        self.publication.stale = true;
        self.finish_turn(now);
    }

    /// Sets whether IPv4 comes through on this host: the shell probes it. A node that was made without IPv4 stays so.
    pub fn set_ipv4(&mut self, now: Now, ipv4: Ipv4Use) {
        if self.settings.ipv4 != Ipv4Use::Off {
            self.settings.ipv4 = ipv4;
            self.publication.stale = true;
            self.finish_turn(now);
        }
    }

    /// What the network's time is, unix seconds (protocol §7).
    pub fn mesh_s(&self, now: Now) -> u64 {
        self.mesh_time.mesh_s(now)
    }

    fn finish_turn(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.at) {
            self.on_timer(now, timer);
        }
        self.verify_some(now);
        self.review_meetings(now);
        self.drain_cores(now);
        self.publish_if_due(now);
    }

    fn on_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Lease => self.publish_lease(now),
            Timer::CutOff => self.set_cut_off(now, true),
            Timer::Peer => self.publish_peer(now),
            Timer::Hello(session) => self.repeat_hello(now, session),
            Timer::Verify => {}
            Timer::Expire => self.expire_records(now),
            Timer::Publish => self.publication.stale = true,
            Timer::JoinOver(join) => self.on_join_over(join),
            Timer::Burst(peer) => self.knock_again(now, peer),
            Timer::Stream(peer) => self.on_stream_due(now, peer),
            Timer::Homes => self.review_homes(now),
            Timer::Prove => self.on_prove(now),
            Timer::KnockAt(node) => self.on_wish_due(now, node),
            Timer::Knocked => self.stop_waiting_for_knocks(now),
            Timer::Closer(peer, tries) => self.on_closer(now, peer, tries),
            Timer::Moved => self.on_settled(now),
            Timer::Daily => self.on_daily(now),
            Timer::Pathless(peer) => self.on_pathless(now, peer),
            Timer::AskRelays(peer) => self.on_ask_relays(now, peer),
            Timer::WakeUp(peer) => self.on_wake_up(now, peer),
            Timer::Judge(peer) => self.judge_way(now, peer),
        }
    }

    /// Lets every core act on its deadlines and carries what they say to the outbox, until all are silent.
    fn drain_cores(&mut self, now: Now) {
        self.gossip.handle_timeout(
            now,
            &gossiping::RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now)),
        );
        self.links.handle_timeout(now);
        self.homes.handle_timeout(now);
        self.attempts.handle_timeout(now);
        self.proofs.handle_timeout(now);
        self.guesses.handle_timeout(now);
        self.lan.handle_timeout(now);
        self.asking.handle_timeout(now);
        self.tend_meetings(now);
        loop {
            let quiet = !self.drain_links(now)
                & !self.drain_homes(now)
                & !self.drain_attempts(now)
                & !self.drain_meetings(now)
                & !self.drain_proofs(now)
                & !self.drain_guesses(now)
                & !self.drain_lan(now)
                & !self.drain_asking(now)
                & !self.drain_gossip();
            if quiet {
                return;
            }
        }
    }

    fn drain_gossip(&mut self) -> bool {
        let mut any = false;
        while let Some((peer, message)) = self.gossip.poll_output() {
            any = true;
            self.send(SessionId::Pair(peer), message);
        }
        any
    }

    fn send(&mut self, session: SessionId, message: Message) {
        // A join session that a member introduces has no other path than that member's hand.
        let via = match session {
            SessionId::Join(join) => self.hand_of_join(join),
            SessionId::Pair(_) => None,
        };
        self.outbox.push_back(Output::Send {
            session,
            message,
            via,
        });
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.insert(notice.clone()) {
            self.outbox.push_back(Output::Notice(notice));
        }
    }

    /// Writes the kept state; with a ticket the shell answers when it is on the disk.
    fn persist_kept(&mut self, ticket: Option<u64>) {
        self.kept.invites = self.invites.all().to_vec();
        self.outbox.push_back(Output::Persist {
            ticket,
            write: Write::Kept(Box::new(self.kept.clone())),
        });
    }

    fn draw_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

/// Whether the network is to be up on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Up,
    /// `webmesh down` was said.
    Down,
}

/// Join sessions this node gives start here; 0 is the one in which this machine itself joined.
const FIRST_JOIN: u32 = 1;
