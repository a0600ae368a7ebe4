//! One running network: its node, its data thread, its device, its splices, and its files.
//!
//! Carries out what the node says, in its order, and tells the node what happened. Refuses to decide.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::{
    data_plane::{DataPlane, JOINER},
    dht::Dht,
    door::DoorAnswer,
    forwarder::{Asked, Datagrams, Forwarder, Upstreams},
    guarding::Guarding,
    ipv4_watch::{Ipv4Watch, Trouble},
    lan::Lan,
    mesh_socket::MeshSide,
    persist::{self, Urgency},
    port_mapping::{Finding, Wish},
    resolver_tcp::ResolverTcp,
    sealing,
    splice::Splices,
    state_dir::NetworkFolder,
    streams::{self, Streams, Whom},
    traffic::{CarriedForOthers, Traffic},
};
use crate::{
    addr::Path,
    datapath::command::{Command, Event, SessionKeys, Unheard},
    ids::{PeerIx, SessionId},
    node::{
        Identity, Node,
        input::{Input, PersistOutcome, SessionEvent},
        output::{FirstContact, Notice, Output, Remote, Write},
    },
    paths::distress::Cause,
    platform::{
        clock, service_manager,
        tun::{self, Spare},
    },
    relay::{Order, quota::Limit},
    services::Splice,
    tables::{Tables, Transport},
    telemetry::Private,
    time::{Moment, Now},
    transport::suite::Aes,
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
    pub(super) dht: Dht,
    pub(super) lan: Lan,
    pub(super) side: MeshSide,
    /// A second descriptor of the device, for a network that comes up anew.
    device: OwnedFd,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) traffic: Traffic,
    /// What this machine carries for others.
    pub(super) carried: CarriedForOthers,
    pub(super) facts: Facts,
    /// Whether a transport may be sealed by AES.
    pub(super) aes: Aes,
    /// What is asked of the router for this network.
    pub(super) mapping_wish: Wish,
    pub(super) identity: Identity,
    splices: Splices,
    wanted_splices: Vec<Splice>,
    resolver: ResolverTcp,
    pub(super) guarding: Guarding,
    pub(super) ipv4: Ipv4Watch,
    pub(super) streams: Streams,
    pub(super) forwarder: Forwarder,
    datagrams: Datagrams,
    pub(super) upstreams: Option<Upstreams>,
    pings: BTreeMap<u64, mpsc::Sender<Ponged>>,
    pub(super) doors: BTreeMap<u64, oneshot::Sender<DoorAnswer>>,
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
    /// Why no TLS streams are taken, though they should be.
    pub(super) streams_missing: Option<String>,
    /// Why the last write failed.
    pub(super) unsaved: Option<String>,
    /// Splices that cannot be served.
    pub(super) unserved: Vec<String>,
    /// Events at the door of this room, counted.
    pub(super) counters: BTreeMap<&'static str, u64>,
    /// The join session by which this machine came in is open.
    pub(super) has_joiner: bool,
    /// The own mesh addresses changed: the network must come up anew with them.
    pub(super) is_moved: bool,
    /// What is known of a hole in the router.
    pub(super) mapping: Finding,
}

/// The parts a network runs with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) identity: Identity,
    pub(super) folder: NetworkFolder,
    pub(super) data: DataPlane,
    pub(super) dht: Dht,
    pub(super) lan: Lan,
    pub(super) side: MeshSide,
    pub(super) device: OwnedFd,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) resolver: ResolverTcp,
    pub(super) guarding: Guarding,
    pub(super) ipv4: Ipv4Watch,
    pub(super) forwarder: Forwarder,
    pub(super) streams: Streams,
    pub(super) facts: Facts,
    pub(super) aes: Aes,
    /// How much is carried for others.
    pub(super) relay_limit: Limit,
}

/// The answer to a Ping that a person asked for.
#[derive(Clone, Debug)]
pub(super) struct Ponged {
    pub(super) endpoint: Path,
    /// The names of the relays on that path.
    pub(super) via: Vec<String>,
    pub(super) rtt: std::time::Duration,
}

/// What becomes of the device when a network stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// It goes, and its addresses and routes with it.
    Gone,
    /// It stays for who comes next, as long as somebody else has it open: the service manager, or this same run.
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
        let mapping_wish = Wish {
            port: parts.facts.port,
            nonce: sealing::mapping_nonce(&parts.identity),
            device: parts.side.device.clone(),
        };
        let mut network = Self {
            mapping_wish,
            splices: Splices::new(parts.side.clone()),
            datagrams: parts.forwarder.serve_datagrams(parts.data.teller()),
            forwarder: parts.forwarder,
            streams: parts.streams,
            upstreams: None,
            node: parts.node,
            identity: parts.identity,
            folder: parts.folder,
            data: parts.data,
            dht: parts.dht,
            lan: parts.lan,
            side: parts.side,
            device: parts.device,
            tables: parts.tables,
            resolver: parts.resolver,
            guarding: parts.guarding,
            ipv4: parts.ipv4,
            facts: parts.facts,
            aes: parts.aes,
            traffic: Traffic::default(),
            carried: CarriedForOthers::default(),
            wanted_splices: Vec::new(),
            pings: BTreeMap::new(),
            doors: BTreeMap::new(),
            next_tag: 0,
            next_message: 0,
            has_unsynced: false,
        };
        let limit = Order::Limit(parts.relay_limit);
        network.data.tell(Command::Relay(limit));
        for output in first {
            network.carry_out(output);
        }
        network.tell_addresses();
        network.tend_guard();
        network.tell_dht();
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
            Event::Handed { hand, bytes } => {
                self.node.handle_input(now, Input::Handed { hand, bytes });
            }
            Event::Dht { source, bytes } => {
                self.node.handle_input(now, Input::Dht { source, bytes });
            }
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
            Event::Transport { session, result } => self.on_keys(session, result),
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
            Event::Leg { leg, event } => {
                self.node.handle_input(now, Input::Leg { leg, event });
            }
            Event::Way { way, counters } => self.carried.begin(way, counters),
            Event::WayOver { way } => {
                self.carried.end(way);
                self.node.handle_input(now, Input::WayOver { way });
            }
            Event::Elsewhere { session, source } => {
                self.node
                    .handle_input(now, Input::Elsewhere { session, source });
            }
            Event::Unheard { session, why } => {
                let cause = cause_of(why);
                self.node
                    .handle_input(now, Input::Unheard { session, cause });
            }
            Event::Resent { session } => self.node.handle_input(now, Input::Resent { session }),
            Event::Door {
                probe,
                verdict,
                took_us,
            } => self.answer_door(probe, DoorAnswer { verdict, took_us }),
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

    /// Lets the node act on its deadlines. Before it judges sessions by their use it hears of that: one that is in use is
    /// not closed as idle.
    pub(super) fn on_deadline(&mut self) {
        let now = clock::now();
        if self.node.judges_use(now) {
            self.tell_heard(now);
        }
        self.node.handle_input(now, Input::Tick);
    }

    fn tell_heard(&mut self, now: Now) {
        let uses = self.traffic.poll_heard();
        if !uses.is_empty() {
            self.node.handle_input(now, Input::Heard(uses));
            self.drain();
        }
    }

    /// Once a second: tells the node which sessions were used, and tries again what could not be served.
    pub(super) fn on_second(&mut self) {
        let now = clock::now();
        self.tell_heard(now);
        if !self.facts.unserved.is_empty() {
            self.serve_splices();
        }
        self.tend_guard();
        self.tend_streams();
        self.take_ipv4_news(now);
        self.doors.retain(|_, asker| !asker.is_closed());
        self.pings.retain(|_, asker| !asker.is_closed());
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

    /// The device, for who comes up next on it; None: it is not what it was.
    pub(super) fn spare_device(&self) -> Option<Spare> {
        let copy = self.device.try_clone().ok()?;
        Spare::adopt(copy, &self.side.device).ok()
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

    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each output, none with a decision"
    )]
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
            Output::Beacon {
                epoch,
                secret,
                stamp,
            } => self.say_beacon(epoch, &secret, stamp),
            Output::OpenStream {
                peer,
                to,
                header,
                secret,
            } => self.streams.dial(streams::Dial {
                whom: Whom::Peer(peer),
                to,
                header,
                key: secret.stream_key(),
            }),
            Output::Take { source, bytes } => self.data.tell(Command::Take { source, bytes }),
            Output::SetPath { session, endpoint } => {
                self.data.tell(Command::SetPath { session, endpoint });
            }
            Output::Move {
                session,
                endpoint,
                gap,
            } => self.data.tell(Command::Move {
                session,
                endpoint,
                gap,
            }),
            Output::Mirror { session, via } => self.data.tell(Command::Mirror { session, via }),
            Output::Open {
                session,
                to,
                sockets,
                until,
            } => self.data.tell(Command::Open {
                session,
                to,
                sockets,
                until,
            }),
            Output::Transport { session, other } => self.begin_transport(session, &other),
            Output::Withdraw { session } => self.data.tell(Command::Withdraw { session }),
            Output::SetRoom {
                session,
                endpoint,
                room,
            } => self.data.tell(Command::SetRoom {
                session,
                endpoint,
                inner: room.inner,
                in_fragments: room.in_fragments,
            }),
            Output::Close { session } => {
                self.traffic.end(session);
                self.data.tell(Command::Close { session });
            }
            Output::Unreachable { peer, until } => {
                self.data.tell(Command::Unreachable { peer, until });
            }
            Output::Relay(order) => {
                if let Order::CloseWay(way) = &order {
                    self.carried.end(*way);
                }
                self.data.tell(Command::Relay(order));
            }
            Output::Publish(tables) => self.publish(tables),
            Output::Splice(splices) => {
                self.wanted_splices = splices;
                self.serve_splices();
            }
            Output::Persist { ticket, write } => self.persist(ticket, &write),
            Output::Ponged { tag, endpoint, rtt } => {
                if let Some(asker) = self.pings.remove(&tag) {
                    let via = self.node.via(endpoint);
                    let _asker_gone = asker.try_send(Ponged { endpoint, via, rtt });
                }
            }
            Output::Slot(ask) => self.dht.ask(ask),
            Output::Datagram { to, bytes } => self.data.tell(Command::Datagram { to, bytes }),
            Output::Punch { to, invite, stamp } => {
                let bytes = sealing::seal_punch(&invite, stamp);
                let to = Path::Direct(to);
                self.data.tell(Command::Datagram { to, bytes });
            }
            Output::Notice(notice) => log_notice(&notice),
        }
    }

    fn dial(&mut self, session: SessionId, remote: &Remote, to: Vec<Path>, first: &FirstContact) {
        let network = self.node.network_id().0;
        let sealed = |path| {
            let first = first.by(path);
            (path, sealing::seal_first(&self.identity, &network, &first))
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

    fn serve_splices(&mut self) {
        let refused = self.splices.apply(&self.wanted_splices);
        self.facts.unserved = refused
            .iter()
            .map(|(splice, error)| {
                tracing::warn!(port = splice.listen_port, %error, "A splice cannot listen");
                format!("{}: {error}", splice.target)
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

    fn on_sealed(&mut self, now: Now, source: Path, bytes: &[u8]) {
        match sealing::open(&mut self.node, &self.identity, now, (source, bytes)) {
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

    fn on_frame(&mut self, now: Now, session: SessionId, source: Path, frame: &[u8]) {
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

    pub(super) fn count(&mut self, reason: &'static str) {
        *self.facts.counters.entry(reason).or_default() += 1;
    }

    pub(super) fn draw_tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// The counters of a peer's sessions.
    pub(super) fn carried_with(&self, peer: PeerIx) -> super::traffic::Carried {
        self.traffic.of(peer)
    }
}

/// What the data thread noticed, in the words of whoever looks for a way.
fn cause_of(why: Unheard) -> Cause {
    match why {
        Unheard::Silent => Cause::Silent,
        Unheard::Choked => Cause::Choked,
        Unheard::Stale => Cause::Stale,
        Unheard::Pathless => Cause::Gone,
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
        Notice::Joined { name } => tracing::info!(member = %Private(name), "New member"),
        Notice::Cloned { node } => {
            tracing::warn!(node = %Private(node), "Two machines run with one key: a cloned disk");
        }
        Notice::Revoked => tracing::warn!("This machine was revoked"),
    }
}
