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
        input::{Input, Row},
        kept::Kept,
        knocking::Left,
        leasing::PeerChanges,
        output::{Notice, Output, Write},
        talking::Pair,
        verifying::Unverified,
    },
    overlay::{Limits, Links},
    paths::{attempt::Attempts, candidates::Candidates, proof::Proofs},
    registry::Registry,
    time::{Moment, Now, Timers},
    wire::{message::Message, record::Record, sealed::Sealed},
};

mod admitting;
#[cfg(test)]
mod convergence;
pub mod founding;
mod gossiping;
pub mod input;
pub mod joiner;
pub mod kept;
mod knocking;
mod leasing;
mod linking;
mod naming;
pub mod output;
mod reaching;
mod serving;
pub mod status;
mod talking;
#[cfg(test)]
mod tests;
mod verifying;

pub use admitting::{InviteOptions, InviteRefused, RecoverRefused};
pub use knocking::SealedKey;
pub use serving::{ServiceRefused, ServiceWish};
pub use status::{Snapshot, Whois};

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
    /// Where DNS over TCP is answered on the own mesh address.
    pub dns_tcp_port: u16,
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
    candidates: Candidates,
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
    joiners: BTreeMap<JoinId, BTreeSet<NodeId>>,
    waiting_pings: BTreeMap<PeerIx, Vec<u64>>,
    /// No lease of anybody else is in force.
    is_lonely: bool,
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
    /// Daily duties: heartbeat, renewal.
    Daily,
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
        let (gossip_seed, links_seed, attempts_seed, proofs_seed) =
            (draw(), draw(), draw(), draw());
        let floor_s = restored.kept.floor_s.max(settings.built_s);
        let mut node = Self {
            me,
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
            candidates: Candidates::new(AddressPlan {
                network,
                pool4: AddressPlan::default_pool4(network),
            }),
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
            is_lonely: false,
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
                Sealed::Introduce(_) | Sealed::Beacon(_) | Sealed::Punch(_) => {
                    self.counters.count("sealed_unused");
                }
            },
            Input::Session { session, event } => self.on_session(now, session, event),
            Input::Wanted { peer } => self.on_wanted(now, peer),
            Input::Heard {
                session: SessionId::Pair(peer),
                heard,
                user,
            } => self.on_heard(now, peer, heard, user),
            Input::Heard {
                session: SessionId::Join(_),
                ..
            }
            | Input::Tick => {}
            Input::NewPath { session, source } => self.on_new_path(now, session, source),
            Input::Addresses(addresses) => self.on_addresses(now, addresses),
            Input::Persisted { ticket, outcome } => self.on_persisted(now, ticket, outcome),
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
            self.attempts.poll_timeout(),
            self.proofs.poll_timeout(),
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
        self.drain_cores(now);
        self.publish_if_due(now);
    }

    fn on_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Lease => self.publish_lease(now),
            Timer::Peer => self.publish_peer(now),
            Timer::Hello(session) => self.repeat_hello(now, session),
            Timer::Verify => {}
            Timer::Expire => self.expire_records(now),
            Timer::Publish => self.publication.stale = true,
            Timer::JoinOver(join) => self.on_join_over(join),
            Timer::Burst(peer) => self.knock_again(now, peer),
            Timer::Daily => self.on_daily(now),
        }
    }

    /// Lets every core act on its deadlines and carries what they say to the outbox, until all are silent.
    fn drain_cores(&mut self, now: Now) {
        self.gossip.handle_timeout(
            now,
            &gossiping::RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now)),
        );
        self.links.handle_timeout(now);
        self.attempts.handle_timeout(now);
        self.proofs.handle_timeout(now);
        loop {
            let quiet = !self.drain_links(now)
                & !self.drain_attempts(now)
                & !self.drain_proofs()
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
        self.outbox.push_back(Output::Send {
            session,
            message,
            via: None,
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
