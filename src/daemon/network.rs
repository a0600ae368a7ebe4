//! One running network: its node, its data thread, its device, its splices, and its files.
//!
//! Carries out what the node says, in its order, and tells the node what happened. Refuses to decide.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::{
    data_plane::{DataPlane, JOINER},
    forwarder::{Asked, Datagrams, Forwarder, Upstreams},
    guarding::Guarding,
    host_names::Wanted,
    ipv4_watch::{Ipv4Watch, Trouble, route_conflict},
    mesh_socket::MeshSide,
    persist::{self, Urgency},
    resolver_tcp::ResolverTcp,
    sealing,
    splice::Splices,
    state_dir::NetworkFolder,
    traffic::Traffic,
};
use crate::{
    addr::Underlay,
    datapath::command::{Command, DoorVerdict, Event, SessionKeys},
    dns,
    host_dns::wish::search_list,
    ids::{PeerIx, SessionId},
    node::{
        Identity, Ipv4Use, Node,
        input::{Input, PersistOutcome, SessionEvent},
        output::{FirstContact, Notice, Output, Remote, Write},
    },
    platform::{clock, monitor, service_manager, tun},
    services::Splice,
    tables::{Tables, Transport},
    time::{Moment, Now},
    wire::frame::{self, Content},
};

/// How many outputs are carried out before other work gets its turn (house style §6.4).
const BUDGET: usize = 4096;

/// A network that is up.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) node: Node,
    pub(super) folder: NetworkFolder,
    pub(super) data: DataPlane,
    pub(super) side: MeshSide,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) traffic: Traffic,
    pub(super) facts: Facts,
    identity: Identity,
    splices: Splices,
    wanted_splices: Vec<Splice>,
    resolver: ResolverTcp,
    pub(super) guarding: Guarding,
    ipv4: Ipv4Watch,
    forwarder: Forwarder,
    datagrams: Datagrams,
    upstreams: Option<Upstreams>,
    pings: BTreeMap<u64, mpsc::Sender<Ponged>>,
    doors: BTreeMap<u64, oneshot::Sender<DoorAnswer>>,
    next_tag: u64,
    next_message: u32,
    has_unsynced: bool,
}

/// What the shell knows of a running network and tells in `status`.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The UDP port of the underlay.
    pub(super) port: u16,
    /// The default port was busy, this one was taken instead.
    pub(super) port_changed: bool,
    /// Why this host cannot use the network's IPv4.
    pub(super) ipv4_blocked: Option<Trouble>,
    /// Why the host is not guarded, though it should be.
    pub(super) guard_missing: Option<Trouble>,
    /// Why the last write failed.
    pub(super) unsaved: Option<String>,
    /// Splices that cannot be served.
    pub(super) unserved: Vec<String>,
    /// Events at the door of this room, counted.
    pub(super) counters: BTreeMap<&'static str, u64>,
    /// The join session by which this machine came in is open.
    pub(super) has_joiner: bool,
    /// The own mesh addresses changed: the device must be made anew.
    pub(super) is_moved: bool,
}

/// The parts a network runs with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) identity: Identity,
    pub(super) folder: NetworkFolder,
    pub(super) data: DataPlane,
    pub(super) side: MeshSide,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) resolver: ResolverTcp,
    pub(super) guarding: Guarding,
    pub(super) ipv4: Ipv4Watch,
    pub(super) forwarder: Forwarder,
    pub(super) facts: Facts,
}

/// The answer to a Ping that a person asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ponged {
    pub(super) endpoint: Underlay,
    pub(super) rtt: std::time::Duration,
}

/// The answer to a knock at the own door.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorAnswer {
    pub(super) verdict: DoorVerdict,
    pub(super) took_us: u64,
}

/// What becomes of the device when a network stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// It goes, and its addresses and routes with it.
    Gone,
    /// It stays for the next run, where the service manager keeps it.
    Left,
}

/// Whether there is more to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// Nothing is left.
    All,
    /// The budget is spent.
    Part,
}

impl Network {
    /// Takes the parts together. `first` are the outputs that making the node gave.
    pub(super) fn new(parts: Parts, first: Vec<Output>) -> Self {
        let mut network = Self {
            splices: Splices::new(parts.side.clone()),
            datagrams: parts.forwarder.serve_datagrams(parts.data.teller()),
            forwarder: parts.forwarder,
            upstreams: None,
            node: parts.node,
            identity: parts.identity,
            folder: parts.folder,
            data: parts.data,
            side: parts.side,
            tables: parts.tables,
            resolver: parts.resolver,
            guarding: parts.guarding,
            ipv4: parts.ipv4,
            facts: parts.facts,
            traffic: Traffic::default(),
            wanted_splices: Vec::new(),
            pings: BTreeMap::new(),
            doors: BTreeMap::new(),
            next_tag: 0,
            next_message: 0,
            has_unsynced: false,
        };
        for output in first {
            network.carry_out(output);
        }
        network.tell_addresses();
        network.tend_guard();
        network
    }

    /// Takes in what the data thread told.
    ///
    /// # Errors
    /// The device is gone; this network cannot go on.
    pub(super) fn on_event(&mut self, event: Event) -> std::io::Result<()> {
        let now = clock::now();
        match event {
            Event::Sealed { source, bytes } => self.on_sealed(now, source, &bytes),
            Event::Up {
                session,
                endpoint,
                counters,
            } => {
                if session != JOINER {
                    self.leave_joiner_behind();
                }
                tracing::debug!(?session, %endpoint, "Session stands");
                self.traffic.begin(session, counters);
                self.on_session(now, session, SessionEvent::Up { endpoint });
            }
            Event::Down { session } => {
                tracing::debug!(?session, "Session is over");
                self.traffic.end(session);
                self.on_session(now, session, SessionEvent::Down);
            }
            Event::NeedsKnock { session } => {
                self.on_session(now, session, SessionEvent::NeedsKnock);
            }
            Event::Control {
                session,
                source,
                frame,
            } => self.on_frame(now, session, source, &frame),
            Event::Wanted { peer } => self.node.handle_input(now, Input::Wanted { peer }),
            Event::NewPath { session, source } => {
                self.node
                    .handle_input(now, Input::NewPath { session, source });
            }
            Event::Door {
                probe,
                verdict,
                took_us,
            } => {
                if let Some(asker) = self.doors.remove(&probe) {
                    let _asker_gone = asker.send(DoorAnswer { verdict, took_us });
                }
            }
            Event::Foreign {
                resolver,
                asker,
                query,
            } => {
                let asked = Asked {
                    resolver,
                    asker,
                    query,
                };
                if self.datagrams.take(asked).is_none() {
                    self.count("forward_full");
                }
            }
            Event::TunLost { error } => return Err(error),
        }
        Ok(())
    }

    /// Lets the node act on its deadlines.
    pub(super) fn on_deadline(&mut self) {
        self.node.handle_input(clock::now(), Input::Tick);
    }

    /// Once a second: tells the node which sessions were used, and tries again what could not be served.
    pub(super) fn on_second(&mut self) {
        let now = clock::now();
        for input in self.traffic.poll_heard() {
            self.node.handle_input(now, input);
            self.drain();
        }
        if !self.facts.unserved.is_empty() {
            self.serve_splices();
        }
        self.tend_guard();
        self.take_ipv4_news(now);
        self.doors.retain(|_, asker| !asker.is_closed());
        self.pings.retain(|_, asker| !asker.is_closed());
    }

    /// Addresses, routes or links of this machine changed.
    pub(super) fn on_addresses_changed(&mut self) {
        self.tell_addresses();
        self.ipv4.look_again();
        // A route in the network's pool came or went: the device has to be made with IPv4 or without.
        let has_ipv4 = self.side.v4.is_some();
        let knew = !has_ipv4 && self.facts.ipv4_blocked.is_some();
        if has_ipv4 || knew {
            let conflict = route_conflict(self.tables.load().own.pool4, &self.side.device);
            self.facts.is_moved |= conflict.is_some() != knew;
        }
    }

    /// Tells the node where this machine is.
    pub(super) fn tell_addresses(&mut self) {
        match monitor::default_route_addresses(self.facts.port, Some(&self.side.device)) {
            Ok(addresses) => self
                .node
                .handle_input(clock::now(), Input::Addresses(addresses)),
            Err(error) => tracing::warn!(%error, "Own addresses cannot be read"),
        }
    }

    /// When the node wants to be woken.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.node.poll_timeout()
    }

    /// Sends one Ping for a person; the answer comes through `asker`.
    pub(super) fn ping(&mut self, peer: crate::ids::NodeId, asker: mpsc::Sender<Ponged>) {
        let tag = self.draw_tag();
        self.pings.insert(tag, asker);
        self.node.ping(clock::now(), peer, tag);
    }

    /// Knocks at a TCP port of this host from the mesh side; silence is the asker's to notice.
    pub(super) fn probe_door(&mut self, port: u16) -> oneshot::Receiver<DoorAnswer> {
        let probe = self.draw_tag();
        let (asker, answer) = oneshot::channel();
        self.doors.insert(probe, asker);
        // By the family that comes through: the other's silence says nothing about this port.
        let through = self.facts.ipv4_blocked.is_none();
        let v4 = self.side.v4.filter(|_| through).map(IpAddr::V4);
        let address = v4.unwrap_or(IpAddr::V6(self.side.v6));
        self.data.tell(Command::ProbeDoor {
            probe,
            address,
            port,
        });
        answer
    }

    /// The mesh addresses, ports and sockets that are the agent's own, which no service may be spliced to.
    pub(super) fn is_own_socket(&self, transport: Transport, target: SocketAddr) -> bool {
        if transport == Transport::Udp && target.port() == self.facts.port {
            return true;
        }
        let splice = |splice: &Splice| splice.listen_port == target.port();
        let is_listener =
            self.wanted_splices.iter().any(splice) || target.port() == self.resolver.port();
        is_listener && self.side.addresses().contains(&target.ip())
    }

    /// Asks these servers for names of others from now on; None: such names are refused.
    pub(super) fn forward_to(&mut self, servers: Option<&[SocketAddr]>) {
        let own = self.tables.load().own;
        let mesh = dns::ranges(own.pool4, own.prefix6);
        let domain = self.node.domain().unwrap_or_default();
        let upstreams = servers.map(|servers| Upstreams::new(servers, &mesh, domain));
        if upstreams == self.upstreams {
            return;
        }
        self.forwarder.ask_these(upstreams.clone());
        self.data.tell(Command::Forward {
            on: upstreams.is_some(),
        });
        self.upstreams = upstreams;
    }

    /// What this network asks of the host's resolver.
    pub(super) fn wanted_names(&self, search: bool) -> Option<Wanted> {
        let own = self.tables.load().own;
        let pool4 = self.side.v4.map(|_| own.pool4);
        let domain = self.node.domain()?.to_owned();
        Some(Wanted {
            device: self.side.device.clone(),
            pool4,
            prefix6: own.prefix6,
            servers: self.node.dns_servers(),
            search: if search {
                search_list(&domain).to_vec()
            } else {
                Vec::new()
            },
            domain,
        })
    }

    /// Whether an address lies inside the mesh.
    pub(super) fn is_mesh(&self, address: IpAddr) -> bool {
        let own = self.tables.load().own;
        match address {
            IpAddr::V4(v4) => own.pool4.contains(&v4),
            IpAddr::V6(v6) => own.prefix6.contains(&v6),
        }
    }

    /// Carries out what the node wants, in its order, within the budget.
    pub(super) fn drain(&mut self) -> Drained {
        for _ in 0..BUDGET {
            let Some(output) = self.node.poll_output() else {
                self.sync_records();
                return Drained::All;
            };
            self.carry_out(output);
        }
        Drained::Part
    }

    /// Carries out everything the node wants, for the last time, and ends the data thread.
    pub(super) fn stop(mut self, device: Device) -> NetworkFolder {
        while self.drain() == Drained::Part {}
        self.data.stop();
        if device == Device::Gone && service_manager::is_present() {
            // The service manager closes its copies when it comes to it.
            tun::remove(&self.side.device);
            self.guarding.end();
        }
        self.folder
    }

    fn carry_out(&mut self, output: Output) {
        if !matches!(output, Output::Persist { .. }) {
            self.sync_records();
        }
        match output {
            Output::Send {
                session,
                message,
                via,
            } => {
                self.next_message = self.next_message.wrapping_add(1);
                let frame = frame::encode(&message, self.next_message);
                self.data.tell(Command::Send {
                    session,
                    frame,
                    via,
                });
            }
            Output::Dial {
                session,
                remote,
                to,
                first,
            } => self.dial(session, &remote, to, &first),
            Output::Admit {
                session,
                remote,
                source,
                admission,
            } => self.data.tell(Command::Admit {
                session,
                keys: session_keys(&self.identity, &remote),
                source,
                admission,
            }),
            Output::SetPath { session, endpoint } => {
                self.data.tell(Command::SetPath { session, endpoint });
            }
            Output::Close { session } => {
                self.traffic.end(session);
                self.data.tell(Command::Close { session });
            }
            Output::Unreachable { peer, until } => {
                self.data.tell(Command::Unreachable { peer, until });
            }
            Output::Publish(tables) => self.publish(tables),
            Output::Splice(splices) => {
                self.wanted_splices = splices;
                self.serve_splices();
            }
            Output::Persist { ticket, write } => self.persist(ticket, &write),
            Output::Ponged { tag, endpoint, rtt } => {
                if let Some(asker) = self.pings.remove(&tag) {
                    let _asker_gone = asker.try_send(Ponged { endpoint, rtt });
                }
            }
            Output::Notice(notice) => log_notice(&notice),
        }
    }

    fn dial(
        &mut self,
        session: SessionId,
        remote: &Remote,
        to: Vec<Underlay>,
        first: &FirstContact,
    ) {
        let network = self.node.network_id().0;
        let sealed = |address| {
            (
                address,
                sealing::seal_first(&self.identity, &network, first),
            )
        };
        self.data.tell(Command::Initiate {
            session,
            keys: session_keys(&self.identity, remote),
            to: to.into_iter().map(sealed).collect(),
        });
    }

    fn publish(&mut self, tables: Arc<Tables>) {
        self.facts.is_moved |= tables.own.v4 != self.side.v4;
        self.tables.store(tables);
    }

    fn tend_guard(&mut self) {
        self.facts.guard_missing = self.guarding.tend();
    }

    fn take_ipv4_news(&mut self, now: Now) {
        let Some(trouble) = self.ipv4.news() else {
            return;
        };
        match &trouble {
            Some(why) => tracing::warn!(why.cause, "IPv4 of the network does not come through"),
            None => tracing::info!("IPv4 of the network comes through again"),
        }
        let ipv4 = match &trouble {
            Some(_) => Ipv4Use::Blocked,
            None => Ipv4Use::On,
        };
        self.facts.ipv4_blocked = trouble;
        self.node.set_ipv4(now, ipv4);
    }

    fn serve_splices(&mut self) {
        let refused = self.splices.apply(&self.wanted_splices);
        self.facts.unserved = refused
            .iter()
            .map(|(splice, error)| {
                format!("{} on port {}: {error}", splice.target, splice.listen_port)
            })
            .collect();
    }

    fn persist(&mut self, ticket: Option<u64>, write: &Write) {
        let urgency = match ticket {
            Some(_) => Urgency::Awaited,
            None => Urgency::Plain,
        };
        let outcome = match persist::write(&mut self.folder, write, urgency) {
            Ok(()) => PersistOutcome::Done,
            Err(error) => {
                self.note_unsaved(&error);
                PersistOutcome::Failed
            }
        };
        if let Write::Record(record) = write {
            self.has_unsynced |= persist::is_durable(record, self.node.id());
        }
        if outcome == PersistOutcome::Done && matches!(write, Write::Kept(_)) {
            self.facts.unsaved = None;
        }
        if let Some(ticket) = ticket {
            let input = Input::Persisted { ticket, outcome };
            self.node.handle_input(clock::now(), input);
        }
    }

    fn sync_records(&mut self) {
        if !self.has_unsynced {
            return;
        }
        self.has_unsynced = false;
        let synced = self.folder.records.sync();
        if let Err(error) = synced.and_then(|()| self.folder.records.compact()) {
            self.note_unsaved(&error);
        }
    }

    /// Remembers for `status` that something could not be written.
    pub(super) fn note_unsaved(&mut self, error: &std::io::Error) {
        if self.facts.unsaved.is_none() {
            tracing::error!(%error, "State cannot be written");
        }
        self.facts.unsaved = Some(error.to_string());
    }

    fn on_sealed(&mut self, now: Now, source: Underlay, bytes: &[u8]) {
        match sealing::open(&self.node, &self.identity, now, (source, bytes)) {
            Ok(input) => self.node.handle_input(now, input),
            Err(silence) => self.count(silence.label()),
        }
    }

    /// The join session by which this machine came in ends when the first session of its own stands (protocol §9).
    fn leave_joiner_behind(&mut self) {
        if std::mem::take(&mut self.facts.has_joiner) {
            self.data.tell(Command::Close { session: JOINER });
        }
    }

    fn on_session(&mut self, now: Now, session: SessionId, event: SessionEvent) {
        self.node
            .handle_input(now, Input::Session { session, event });
    }

    fn on_frame(&mut self, now: Now, session: SessionId, source: Underlay, frame: &[u8]) {
        match frame::decode(frame) {
            Ok(frame) => match frame.content {
                Content::Known(message) => self.node.handle_input(
                    now,
                    Input::Message {
                        session,
                        source,
                        message,
                    },
                ),
                Content::Unknown => self.count("control_unknown_kind"),
            },
            Err(_malformed) => self.count("control_malformed"),
        }
    }

    fn count(&mut self, reason: &'static str) {
        *self.facts.counters.entry(reason).or_default() += 1;
    }

    fn draw_tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// The counters of a peer's sessions.
    pub(super) fn carried_with(&self, peer: PeerIx) -> super::traffic::Carried {
        self.traffic.of(peer)
    }
}

/// The keys of a session with a remote.
pub(super) fn session_keys(identity: &Identity, remote: &Remote) -> SessionKeys {
    SessionKeys {
        local_secret: identity.tunnel.x25519_secret(),
        remote_public: x25519_dalek::PublicKey::from(remote.tunnel),
        psk: remote.psk,
    }
}

fn log_notice(notice: &Notice) {
    match notice {
        Notice::Joined { name } => tracing::info!(name, "New member"),
        Notice::Cloned { node } => {
            tracing::warn!(%node, "Two machines run with one key: a cloned disk");
        }
        Notice::Revoked => tracing::warn!("This machine was revoked"),
    }
}
