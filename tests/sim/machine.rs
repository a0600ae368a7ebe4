//! One machine: the real cores, the double of its tunnels, and a disk that outlives it. What the daemon does for a
//! node in the world, this does for it here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use webmesh::{
    addr::Path,
    hash::{Use, short},
    ids::{Boot, JoinIx, NetworkId, NodeId, PeerIx, SessionId, Slot, Version},
    keys::{NetSecret, NodeKey, RootSeed, Token, TunnelKey},
    node::{
        Identity, Ipv4Use, Node, Restored, SealedKey, Settings,
        founding::{Founding, found},
        input::{Input, PersistOutcome, Row, SessionEvent, Used},
        joiner::{Grant, Joiner, JoinerOutput, Wish},
        kept::Kept,
        output::{FirstContact, Notice, Output, Remote, Write},
    },
    overlay::Limits,
    relay::grants::Willing,
    tables::Tables,
    time::{Moment, Now},
    wire::{
        message::Refused,
        record::Record,
        sealed::{self, Header, Introduce, Join, Knock, Sealed, open, parse_header, seal},
    },
};

use crate::tunnel::{Datagram, Effect, Kind, Tunnels};

/// The session of a joiner with its issuer.
const JOINING: SessionId = SessionId::Join(JoinIx(0));
/// How often a node is told when its sessions were last heard (design §5).
const REPORT_EVERY_US: u64 = 1_000_000;
/// Packets that wait for one peer (design §9).
const QUEUE: usize = 16;
/// This build was made before every world begins.
const BUILT_S: u64 = 1_700_000_000;

/// One machine of the world.
pub(crate) struct Machine {
    /// What a person calls it.
    pub(crate) name: String,
    /// Where its datagrams come from.
    pub(crate) address: Path,
    /// The router it is behind, if any.
    pub(crate) nat: Option<usize>,
    /// What came out of the tunnels for programs, by packet number.
    pub(crate) received: BTreeSet<u64>,
    /// How often a session came up since the agent started.
    pub(crate) ups: BTreeMap<SessionId, u32>,
    /// What a person was told.
    pub(crate) notices: Vec<Notice>,
    /// How often programs were told that a peer is not reached.
    pub(crate) unreachable: u32,
    /// Why joining failed, if it did.
    pub(crate) refused: Option<Refused>,
    agent: Agent,
    /// Whether the session in which it joined stands still; it goes when the first pair's session comes.
    has_join_session: bool,
    seed: u64,
    boots: u64,
    limits: Limits,
    disk: Disk,
    tunnels: Tunnels,
    tables: Option<Arc<Tables>>,
    queue: BTreeMap<PeerIx, Vec<u64>>,
    report_at: Option<Moment>,
    inputs: VecDeque<Input>,
    outbox: VecDeque<(Path, Datagram)>,
    diary: VecDeque<String>,
}

/// What runs on a machine.
enum Agent {
    /// Nothing.
    Off,
    /// An agent that joins.
    Joining { joiner: Box<Joiner>, token: Token },
    /// An agent in a network.
    Member(Box<Node>),
}

/// What outlives the agent.
#[derive(Clone, Default)]
struct Disk {
    network: Option<NetworkId>,
    records: Vec<Record>,
    rows: BTreeMap<NodeId, Row>,
    kept: Kept,
}

impl Machine {
    /// A machine on which nothing runs yet.
    pub(crate) fn new(name: &str, address: Path, seed: u64, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            address,
            nat: None,
            received: BTreeSet::new(),
            ups: BTreeMap::new(),
            notices: Vec::new(),
            unreachable: 0,
            refused: None,
            agent: Agent::Off,
            has_join_session: false,
            seed,
            boots: 0,
            limits,
            disk: Disk::default(),
            tunnels: Tunnels::new([0; 32], 0),
            tables: None,
            queue: BTreeMap::new(),
            report_at: None,
            inputs: VecDeque::new(),
            outbox: VecDeque::new(),
            diary: VecDeque::new(),
        }
    }

    /// Founds a network here.
    pub(crate) fn found(&mut self, now: Now, network: &str) {
        let founding = Founding {
            name: network.to_owned(),
            domain: format!("{network}.internal"),
            peer: self.name.clone(),
            pool4: None,
            root: RootSeed(self.draw("root")),
            secret: NetSecret(self.draw("secret")),
            admission: self.draw("admission"),
        };
        self.boot();
        let (network, restored) =
            found(now, founding, &self.identity().key).expect("the first records fit");
        self.become_member(now, network, restored);
    }

    /// Begins to join by a token.
    pub(crate) fn join(&mut self, now: Now, token: Token) {
        self.boot();
        let wish = Wish {
            name: self.name.clone(),
            exact: false,
        };
        let joiner = Box::new(Joiner::new(now, token.clone(), self.identity(), wish));
        self.agent = Agent::Joining { joiner, token };
        self.settle(now);
    }

    /// The agent is gone between two instructions; the disk stays.
    pub(crate) fn kill(&mut self) {
        self.agent = Agent::Off;
        self.has_join_session = false;
        self.queue.clear();
        self.inputs.clear();
        self.outbox.clear();
        self.report_at = None;
        self.tables = None;
    }

    /// Starts the agent again with what is on the disk.
    pub(crate) fn restart(&mut self, now: Now) {
        let network = self.disk.network.expect("only members are restarted");
        let restored = Restored {
            records: self.disk.records.clone(),
            rows: self.disk.rows.values().copied().collect(),
            kept: self.disk.kept.clone(),
        };
        self.boot();
        self.become_member(now, network, restored);
    }

    fn boot(&mut self) {
        self.boots += 1;
        let first_index = (self.seed << 40) | (self.boots << 24);
        self.tunnels = Tunnels::new(self.identity().tunnel.x25519_public(), first_index);
        self.ups.clear();
    }

    fn become_member(&mut self, now: Now, network: NetworkId, restored: Restored) {
        self.disk.network = Some(network);
        self.disk.records = restored.records.clone();
        self.disk.kept = restored.kept.clone();
        let settings = Settings {
            seed: self.draw(&format!("node {}", self.boots)),
            limits: self.limits,
            ipv4: Ipv4Use::On,
            streams: false,
            dns_tcp_port: 20_053,
            relay: Willing::No,
            transports: true,
            built_s: BUILT_S,
        };
        self.agent = Agent::Member(Box::new(Node::new(
            now,
            network,
            self.identity(),
            settings,
            restored,
        )));
        self.settle(now);
        self.handle(
            now,
            Input::Addresses(self.address.direct().into_iter().collect()),
        );
    }

    /// Keys and seeds of this machine: the same in every world of the same seed.
    fn draw<const N: usize>(&self, purpose: &str) -> [u8; N] {
        short(
            Use::Root,
            &[
                b"sim",
                &self.seed.to_le_bytes(),
                self.name.as_bytes(),
                purpose.as_bytes(),
            ],
        )
    }

    /// The keys of this machine and this run.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            key: NodeKey::from_seed(self.draw("node key")),
            tunnel: TunnelKey::from_seed(self.draw("tunnel key")),
            boot: Boot(self.draw(&format!("boot {}", self.boots))),
        }
    }

    /// The node, if this machine is in a network.
    pub(crate) fn node(&self) -> Option<&Node> {
        match &self.agent {
            Agent::Member(node) => Some(node),
            Agent::Off | Agent::Joining { .. } => None,
        }
    }

    /// Gives a command to the node, and carries out what it says.
    pub(crate) fn command<T>(&mut self, now: Now, command: impl FnOnce(&mut Node) -> T) -> T {
        let Agent::Member(node) = &mut self.agent else {
            panic!("{} is in no network", self.name);
        };
        let answer = command(node);
        self.settle(now);
        answer
    }

    /// Tells the node what happened, and carries out what it says.
    pub(crate) fn handle(&mut self, now: Now, input: Input) {
        self.tell(now, input);
        self.settle(now);
    }

    /// A datagram arrives.
    pub(crate) fn receive(&mut self, now: Now, source: Path, datagram: Datagram) {
        match (&self.agent, datagram.kind) {
            (Agent::Off, _) => {}
            (_, Kind::Sealed(bytes)) => self.on_sealed(now, source, &bytes),
            (_, kind) => {
                self.tunnels.handle_datagram(now.at, source, kind);
                self.settle(now);
            }
        }
    }

    fn on_sealed(&mut self, now: Now, source: Path, bytes: &[u8]) {
        if let Some(input) = self.open_sealed(now, source, bytes) {
            self.handle(now, input);
        }
    }

    fn open_sealed(&self, now: Now, source: Path, bytes: &[u8]) -> Option<Input> {
        let node = self.node()?;
        let header = parse_header(bytes).expect("nodes here make good headers");
        let opened = node.sealed_keys(now, &header).into_iter().find_map(|key| {
            let opened = open(bytes, key.key()).ok()?;
            Some((key, opened.body))
        });
        let (epoch, body) = match opened {
            None => return None,
            Some((SealedKey::Epoch { epoch, .. }, body)) => (epoch, body),
            Some((SealedKey::Invite { .. } | SealedKey::Introduction { .. }, body)) => (0, body),
        };
        Some(Input::Sealed {
            source,
            epoch,
            hint: header.hint,
            body,
        })
    }

    /// When this machine wants to be woken next.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let agent = match &self.agent {
            Agent::Off => return None,
            Agent::Joining { joiner, .. } => joiner.poll_timeout(),
            Agent::Member(node) => node.poll_timeout(),
        };
        [agent, self.tunnels.poll_timeout(), self.report_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// A deadline came, or somebody just asks.
    pub(crate) fn wake(&mut self, now: Now) {
        self.tunnels.handle_timeout(now.at);
        self.settle(now);
        if self.report_at.is_some_and(|at| at <= now.at) {
            self.report_at = None;
            let heard = self.tunnels.take_heard().into_iter();
            let uses = heard.map(|(session, heard, user)| Used {
                session,
                heard,
                user,
            });
            let uses = uses.collect();
            self.handle(now, Input::Heard(uses));
        }
        match &mut self.agent {
            Agent::Off => {}
            Agent::Joining { joiner, .. } => joiner.handle_timeout(now),
            Agent::Member(node) => node.handle_input(now, Input::Tick),
        }
        self.settle(now);
    }

    /// A program here sends a packet to another machine.
    pub(crate) fn send_packet(&mut self, now: Now, to: std::net::Ipv6Addr, packet: u64) {
        let tables = self
            .tables
            .clone()
            .unwrap_or_else(|| panic!("{} has no tables", self.name));
        let Some(peer) = tables.peers6.get(&to).copied() else {
            return self.diary.push_back(format!("packet {packet} has no peer"));
        };
        if self
            .tunnels
            .send_packet(now.at, SessionId::Pair(peer), packet)
        {
            return self.settle(now);
        }
        let queue = self.queue.entry(peer).or_default();
        let is_first = queue.is_empty();
        if queue.len() < QUEUE {
            queue.push(packet);
        }
        if is_first {
            self.handle(now, Input::Wanted { peer });
        }
    }

    /// The next datagram that leaves.
    pub(crate) fn poll_datagram(&mut self) -> Option<(Path, Datagram)> {
        self.outbox.pop_front()
    }

    /// The next line for the world's log.
    pub(crate) fn poll_diary(&mut self) -> Option<String> {
        self.diary.pop_front()
    }

    /// The own address in the mesh.
    pub(crate) fn overlay(&self) -> Option<std::net::Ipv6Addr> {
        self.tables.as_ref().map(|tables| tables.own.v6)
    }

    /// How many other peers this machine knows an address of.
    pub(crate) fn known(&self) -> usize {
        let own = self.overlay();
        self.tables.as_ref().map_or(0, |tables| {
            tables
                .peers6
                .keys()
                .filter(|address| Some(**address) != own)
                .count()
        })
    }

    /// The nodes with which a session stands.
    pub(crate) fn neighbours(&self) -> BTreeSet<NodeId> {
        let Some(node) = self.node() else {
            return BTreeSet::new();
        };
        self.tunnels
            .standing()
            .filter_map(|session| match session {
                SessionId::Pair(peer) => Some(node.node_of(peer)),
                SessionId::Join(_) => None,
            })
            .collect()
    }

    /// The session that stands with a node.
    pub(crate) fn session_with(&self, other: NodeId) -> Option<SessionId> {
        let node = self.node()?;
        self.tunnels.standing().find(|session| match session {
            SessionId::Pair(peer) => node.node_of(*peer) == other,
            SessionId::Join(_) => false,
        })
    }

    /// What stands on the disk: the newest record of every slot.
    pub(crate) fn held(&self) -> BTreeMap<Slot, Version> {
        self.disk
            .records
            .iter()
            .map(|record| (record.slot(), record.version()))
            .collect()
    }

    /// Carries out everything that node and tunnels have said, until both are silent.
    fn settle(&mut self, now: Now) {
        loop {
            if self.carry_out_next(now) {
                continue;
            }
            if let Some(input) = self.inputs.pop_front() {
                self.tell(now, input);
                continue;
            }
            match self.tunnels.poll_effect() {
                Some(effect) => self.on_effect(now, effect),
                None => return,
            }
        }
    }

    fn carry_out_next(&mut self, now: Now) -> bool {
        match &mut self.agent {
            Agent::Off => false,
            Agent::Joining { joiner, .. } => match joiner.poll_output() {
                Some(output) => {
                    self.on_joiner_output(now, output);
                    true
                }
                None => false,
            },
            Agent::Member(node) => match node.poll_output() {
                Some(output) => {
                    self.on_output(now, output);
                    true
                }
                None => false,
            },
        }
    }

    fn on_output(&mut self, now: Now, output: Output) {
        match output {
            Output::Send {
                session,
                message,
                via,
            } => {
                if !self.tunnels.send(session, message, via) {
                    self.diary.push_back("message without a session".to_owned());
                }
            }
            Output::Dial {
                session,
                remote,
                to,
                first,
            } => self.dial(now, session, remote, to, first),
            Output::Admit {
                session,
                remote,
                source,
                admission,
            } => {
                self.tunnels
                    .admit(now.at, session, remote, source, admission);
            }
            Output::OpenStream { .. } => self.diary.push_back("a stream".to_owned()),
            Output::Take { source, bytes } => self.take(now, source, &bytes),
            Output::SetPath { session, endpoint }
            | Output::Move {
                session, endpoint, ..
            } => {
                self.tunnels.set_path(session, endpoint);
                self.send_queue(now, session);
            }
            Output::Mirror { session, via } => {
                self.diary
                    .push_back(format!("mirrors {session:?} to {via:?}"));
            }
            // This world's machines have one socket each.
            Output::Open { to, .. } => self.diary.push_back(format!("opens sockets to {to}")),
            // Neither long packets nor keys for many of them: this world's tunnels are its own.
            Output::SetRoom { .. } | Output::Transport { .. } => {}
            Output::Withdraw { session } => {
                self.diary.push_back(format!("has no path for {session:?}"));
            }
            Output::Close { session } => {
                self.diary.push_back(format!("closes {session:?}"));
                self.tunnels.close(session);
            }
            Output::Unreachable { peer, .. } => {
                self.unreachable += 1;
                let lost = self.queue.remove(&peer).unwrap_or_default();
                self.diary
                    .push_back(format!("does not reach {peer:?}, {} packets", lost.len()));
            }
            Output::Relay(order) => self.diary.push_back(format!("relays {order:?}")),
            Output::Publish(tables) => self.tables = Some(tables),
            Output::Splice(_) | Output::Ponged { .. } | Output::Beacon { .. } => {}
            Output::Datagram { to, bytes } => {
                let kind = Kind::from_bytes(&bytes);
                self.outbox.push_back((to, Datagram { kind }));
            }
            Output::Punch { to, .. } => self.diary.push_back(format!("punches {to}")),
            Output::Slot(_) => panic!("there is no DHT in this world"),
            Output::Persist { ticket, write } => self.persist(ticket, write),
            Output::Notice(notice) => {
                self.diary.push_back(format!("says {notice:?}"));
                self.notices.push(notice);
            }
        }
    }

    /// A handshake came by hand.
    fn take(&mut self, now: Now, source: Path, bytes: &[u8]) {
        let kind = Kind::from_bytes(bytes);
        let Kind::Sealed(bytes) = kind else {
            return self.tunnels.handle_datagram(now.at, source, kind);
        };
        if let Some(input) = self.open_sealed(now, source, &bytes) {
            self.inputs.push_back(input);
        }
    }

    fn send_queue(&mut self, now: Now, session: SessionId) {
        if let SessionId::Pair(peer) = session {
            for packet in self.queue.remove(&peer).unwrap_or_default() {
                self.tunnels.send_packet(now.at, session, packet);
            }
        }
    }

    fn persist(&mut self, ticket: Option<u64>, write: Write) {
        match write {
            Write::Row(row) => {
                self.disk.rows.insert(row.node, row);
            }
            Write::Record(record) => self.disk.records.push(record),
            Write::Kept(kept) => self.disk.kept = *kept,
        }
        if let Some(ticket) = ticket {
            self.inputs.push_back(Input::Persisted {
                ticket,
                outcome: PersistOutcome::Done,
            });
        }
    }

    fn dial(
        &mut self,
        now: Now,
        session: SessionId,
        remote: Remote,
        to: Vec<Path>,
        first: FirstContact,
    ) {
        let sealed = |path: Path| {
            let kind = Kind::Sealed(self.seal_first(first.by(path)));
            (path, Datagram { kind })
        };
        let to = to.into_iter().map(sealed).collect();
        self.tunnels.initiate(now.at, session, remote, to);
    }

    fn seal_first(&self, first: FirstContact) -> Vec<u8> {
        let identity = self.identity();
        let (epoch, hint, key, body) = match first {
            FirstContact::Knock {
                receiver,
                epoch,
                secret,
                stamp,
                records,
            } => {
                let (node, boot) = (identity.key.id(), identity.boot);
                let knock = Knock {
                    node,
                    stamp,
                    boot,
                    flags: 0,
                    records,
                    signature: [0; 64],
                };
                (
                    epoch.to_le_bytes()[0],
                    [0; 8],
                    secret.knock_key(receiver),
                    Sealed::Knock(knock),
                )
            }
            FirstContact::Join { invite, stamp, .. } => {
                let (node, boot, tunnel) =
                    (identity.key.id(), identity.boot, identity.tunnel.public());
                let join = Join {
                    node,
                    tunnel,
                    stamp,
                    boot,
                    signature: [0; 64],
                };
                (0, invite.join_id().0, invite.join_key(), Sealed::Join(join))
            }
        };
        let header = Header {
            kind: body.kind(),
            epoch,
            hint,
        };
        seal(header, [0; 24], &key, &body.body()).expect("what a node seals fits")
    }

    fn on_joiner_output(&mut self, now: Now, output: JoinerOutput) {
        let Agent::Joining { token, .. } = &self.agent else {
            return;
        };
        match output {
            JoinerOutput::Dial { to, stamp } => {
                let remote = Remote {
                    tunnel: token.issuer,
                    psk: token.secret.psk(),
                };
                let first = FirstContact::Join {
                    invite: token.secret.clone(),
                    issuer: token.issuer,
                    stamp,
                };
                self.dial(now, JOINING, remote, to, first);
            }
            JoinerOutput::Send { message, via } => {
                self.tunnels.send(JOINING, message, via);
            }
            JoinerOutput::Call { .. } | JoinerOutput::OpenStream { .. } => {}
            JoinerOutput::Close => self.tunnels.close(JOINING),
            JoinerOutput::Reached { endpoint, .. } => self
                .diary
                .push_back(format!("finds its issuer at {endpoint}")),
            JoinerOutput::Granted(grant) => self.on_granted(now, *grant),
            JoinerOutput::Introduce { to, datagram } => {
                let header = Header {
                    kind: sealed::Kind::Introduce,
                    epoch: 0,
                    hint: token.secret.join_id().0,
                };
                let body = Sealed::Introduce(Introduce { datagram }).body();
                let bytes = seal(header, [0; 24], &token.secret.introduce_key(), &body)
                    .expect("what a joiner sends fits");
                let kind = Kind::Sealed(bytes);
                self.outbox.push_back((to, Datagram { kind }));
            }
            JoinerOutput::Slot(_) | JoinerOutput::Datagram { .. } => {
                panic!("there is no DHT in this world")
            }
            JoinerOutput::Refused(refused) => {
                self.diary.push_back(format!("is refused: {refused:?}"));
                self.refused = Some(refused);
                self.kill();
            }
        }
    }

    fn on_granted(&mut self, now: Now, grant: Grant) {
        self.diary.push_back("is granted".to_owned());
        self.has_join_session = true;
        let restored = Restored {
            records: grant.records,
            ..Restored::default()
        };
        self.become_member(now, grant.network, restored);
        self.command(now, |node| match grant.introducer {
            Some(by) => node.meet_through(now, by, (grant.endpoint, None), grant.issuer),
            None => node.meet(now, grant.issuer, (grant.endpoint, None)),
        });
    }

    fn on_effect(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Transmit {
                to: Path::Handed(hand),
                datagram,
            } => {
                if let Some(bytes) = datagram.kind.to_bytes() {
                    self.tell(now, Input::Handed { hand, bytes });
                }
            }
            Effect::Transmit { to, datagram } => self.outbox.push_back((to, datagram)),
            Effect::Up { session, endpoint } => self.on_up(now, session, endpoint),
            Effect::Down { session } => {
                self.diary.push_back(format!("loses {session:?}"));
                self.tell(
                    now,
                    Input::Session {
                        session,
                        event: SessionEvent::Down,
                    },
                );
            }
            Effect::Opened {
                session,
                source,
                message,
            } => {
                self.report_soon(now);
                self.tell(
                    now,
                    Input::Message {
                        session,
                        source,
                        message,
                    },
                );
            }
            Effect::Delivered { packet } => {
                self.report_soon(now);
                self.diary.push_back(format!("receives packet {packet}"));
                self.received.insert(packet);
            }
            Effect::NewPath { session, source } => {
                self.tell(now, Input::NewPath { session, source });
            }
        }
    }

    fn on_up(&mut self, now: Now, session: SessionId, endpoint: Path) {
        self.diary
            .push_back(format!("has {session:?} at {endpoint}"));
        *self.ups.entry(session).or_default() += 1;
        if let SessionId::Pair(_) = session {
            if endpoint.carries_data() {
                self.send_queue(now, session);
            }
            if std::mem::take(&mut self.has_join_session) {
                self.tunnels.close(JOINING);
            }
        }
        self.report_soon(now);
        self.tell(
            now,
            Input::Session {
                session,
                event: SessionEvent::Up { endpoint },
            },
        );
    }

    /// Hands an event to whoever runs here; what it says is carried out by the caller's loop.
    fn tell(&mut self, now: Now, input: Input) {
        match &mut self.agent {
            Agent::Off => {}
            Agent::Joining { joiner, .. } => match input {
                Input::Message {
                    source, message, ..
                } => joiner.handle_message(now, source, message),
                Input::Session {
                    event: SessionEvent::Up { endpoint },
                    ..
                } => joiner.handle_up(now, endpoint),
                Input::Session {
                    event: SessionEvent::Down,
                    ..
                } => joiner.handle_down(now),
                Input::Handed { hand, bytes } => joiner.handle_handed(hand, bytes),
                Input::Sealed { .. }
                | Input::Stream(_)
                | Input::Leg { .. }
                | Input::WayOver { .. }
                | Input::Session { .. }
                | Input::Wanted { .. }
                | Input::Heard(_)
                | Input::NewPath { .. }
                | Input::Unheard { .. }
                | Input::Resent { .. }
                | Input::Elsewhere { .. }
                | Input::Woke
                | Input::Addresses(_)
                | Input::Mapped(_)
                | Input::Places(_)
                | Input::Lan { .. }
                | Input::Persisted { .. }
                | Input::Slot(_)
                | Input::Dht { .. }
                | Input::Tick => {}
            },
            Agent::Member(node) => node.handle_input(now, input),
        }
    }

    /// The node hears when its sessions were used, once a second.
    fn report_soon(&mut self, now: Now) {
        self.report_at
            .get_or_insert(Moment((now.at.0 / REPORT_EVERY_US + 1) * REPORT_EVERY_US));
    }
}
