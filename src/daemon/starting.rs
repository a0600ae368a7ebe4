//! A network comes up: sockets, node, device, resolver, data thread, in this order; on any failure nothing is left.
//! Sockets and device are those of the run before, where the service manager kept them and they fit.

use std::{os::fd::AsFd as _, sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{
    data_plane::DataPlane,
    dht::Dht,
    forwarder::Forwarder,
    guarding::Guarding,
    ipv4_watch::{self, Ipv4Watch},
    kept_file::Identity as Seeds,
    lan::Lan,
    mesh_socket::MeshSide,
    network::{Facts, Network, Parts},
    resolver_tcp::ResolverTcp,
    sealing,
    state_dir::NetworkFolder,
    streams::Streams,
    supervisor::{self, Supervisor},
};
use crate::{
    config::{Config, DEFAULT_PORT, Offload, Port, Transport},
    datapath::command::Command,
    ids::{Boot, NetworkId},
    keys::{NodeKey, TunnelKey},
    node::{Identity, Ipv4Use, Node, Restored, Settings, output::Output},
    overlay::Limits,
    platform::{
        clock, cpu,
        guard::Guard,
        service_manager,
        tun::{self, Queues, Shape, Spare, Tun},
        udp::{self, Held},
    },
    relay::{grants::Willing, quota::Limit},
    tables::{Own, Tables},
    transport::suite::Aes,
};

/// The data thread on the underlay's sockets, and whether they are where they were wished.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) data: DataPlane,
    pub(super) lan: Lan,
    pub(super) port: u16,
    pub(super) changed: bool,
    /// The way to the DHT.
    pub(super) dht: Dht,
    pub(super) streams: Streams,
}

/// What is there before a network comes up.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) folder: NetworkFolder,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
    /// A guard that still stands.
    pub(super) guard: Option<Guard>,
    /// The device of a network that only comes up anew.
    pub(super) device: Option<Spare>,
}

/// How often a port is tried again that the service manager has been told to let go of, and how long after each try. Nothing
/// tells when another process has closed something. No network is up meanwhile: one that only comes up anew keeps its port.
const PORT_TRIES: u32 = 20;
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// The keys, and the run that they are used in.
pub(super) fn identity_of(seeds: &Seeds, boot: Boot) -> Identity {
    Identity {
        key: NodeKey::from_seed(seeds.node_seed),
        tunnel: TunnelKey::from_seed(seeds.tunnel_seed),
        boot,
    }
}

/// Takes the underlay's port: the one that was asked for, or the default one, or another if that is busy.
///
/// # Errors
/// A port that was asked for is busy, or no socket can be had.
pub(super) fn break_ground(config: &Config, supervisor: &mut Supervisor) -> anyhow::Result<Ground> {
    let pair = take_port(config.network.port, stored_sockets(supervisor))?;
    ground(config, supervisor, pair)
}

/// Stays on the sockets of a network that comes up anew in this same run: what others send meanwhile waits in them.
///
/// # Errors
/// They cannot be used any more; they are closed.
pub(super) fn stay_on_ground(
    config: &Config,
    supervisor: &Supervisor,
    sockets: Held,
) -> anyhow::Result<Ground> {
    let pair = udp::Pair::adopt(sockets).context("cannot use the own UDP sockets again")?;
    ground(config, supervisor, pair)
}

fn ground(config: &Config, supervisor: &Supervisor, pair: udp::Pair) -> anyhow::Result<Ground> {
    let port = pair.port().context("cannot read the UDP port")?;
    let changed = config.network.port.is_none() && port != DEFAULT_PORT;
    if changed {
        tracing::warn!(
            port,
            busy = DEFAULT_PORT,
            "Default port is busy; another is used"
        );
    }
    let lan = match config.rendezvous.lan {
        true => Lan::of(&pair),
        false => Lan::silent(),
    };
    let data = DataPlane::start(pair, config).context("cannot start the data thread")?;
    Ok(Ground {
        lan,
        streams: Streams::new(data.teller(), supervisor.listeners())
            .context("cannot prepare TLS")?,
        data,
        dht: Dht::start(&config.rendezvous),
        port,
        changed,
    })
}

/// Whether the port that was asked for can be had, while nothing needs it yet: who named it learns it now.
///
/// # Errors
/// It is busy, or no socket can be had.
pub(super) fn try_port(config: &Config) -> anyhow::Result<()> {
    if let Some(port) = config.network.port {
        bind_patiently(port.get())?;
    }
    Ok(())
}

fn take_port(asked: Option<Port>, had: Option<udp::Pair>) -> Result<udp::Pair, udp::BindError> {
    let wished = asked.map_or(DEFAULT_PORT, Port::get);
    match had {
        Some(had) if had.port().is_ok_and(|port| port == wished) => Ok(had),
        // The default port was busy in the run before; it may be free now.
        Some(had) => match bind_patiently(wished) {
            Err(udp::BindError::Busy(_)) if asked.is_none() => Ok(had),
            done => done,
        },
        None => match bind_patiently(wished) {
            Err(udp::BindError::Busy(_)) if asked.is_none() => udp::Pair::bind(0),
            done => done,
        },
    }
}

/// The sockets of the run before.
fn stored_sockets(supervisor: &mut Supervisor) -> Option<udp::Pair> {
    let udp6 = supervisor.stored(supervisor::UDP6);
    let Some(udp4) = supervisor.stored(supervisor::UDP4) else {
        if let Some(udp6) = udp6 {
            supervisor.throw_away(supervisor::UDP6, udp6);
        }
        return None;
    };
    match udp::Pair::adopt(Held { udp4, udp6 }) {
        Ok(pair) => Some(pair),
        Err(misfit) => {
            tracing::info!(%misfit, "The UDP sockets of the run before are not used");
            supervisor.forget(supervisor::UDP4);
            supervisor.forget(supervisor::UDP6);
            None
        }
    }
}

/// A socket that was forgotten a moment ago is closed by the service manager when it comes to it.
fn bind_patiently(port: u16) -> Result<udp::Pair, udp::BindError> {
    let mut tries = 0;
    loop {
        match udp::Pair::bind(port) {
            Err(udp::BindError::Busy(_))
                if service_manager::is_forgetting() && tries < PORT_TRIES =>
            {
                if tries == 0
                    && let Err(error) = service_manager::settle()
                {
                    tracing::debug!(%error, "The service manager does not say that it has closed a socket");
                }
                tries += 1;
                std::thread::sleep(PORT_PAUSE);
            }
            done => return done,
        }
    }
}

/// Brings a network up.
///
/// # Errors
/// Nothing is left of it on the host then; its folder is whole.
pub(super) fn start(
    (config, supervisor): (&Config, &mut Supervisor),
    identity: Identity,
    network: NetworkId,
    before: Before,
) -> anyhow::Result<Network> {
    let Before {
        folder,
        restored,
        ground,
        guard,
        device,
    } = before;
    let mut facts = Facts {
        port: ground.port,
        port_changed: ground.changed,
        ..Facts::default()
    };
    // First of all: where the device is to have another name now, the routes of the old one are no conflict.
    let had = device.or_else(|| stored_device(config, supervisor, network));
    let (mut node, mut first) = make_node(config, &identity, network, &restored, Ipv4Use::On);
    let tables = published(&first)?;
    let mut own = tables.own;
    let conflict = own
        .v4
        .and_then(|_| ipv4_watch::conflict(tables, config.tun.name.as_str()));
    if let Some(why) = conflict {
        tracing::warn!(why.cause, "IPv4 of the network is not used on this host");
        facts.ipv4_blocked = Some(why);
        (node, first) = make_node(config, &identity, network, &restored, Ipv4Use::Off);
        own = published(&first)?.own;
    }
    let shape = shape(config, &own, ground.data.threads());
    if let Some(Err(error)) = had.as_ref().map(|had| had.withdraw(&shape)) {
        tracing::debug!(%error, "Old addresses stay until the device has its new ones");
    }
    // Before the device: its addresses are never there without the guard.
    let guard = guard.or_else(|| stored_guard(config, supervisor));
    let mut guarding = Guarding::start(&config.host, config.tun.name.as_str(), &own, guard);
    let tun = match had.and_then(|had| reshaped(had, supervisor, (network, &shape))) {
        Some(tun) => tun,
        None => Tun::open(&shape)?,
    };
    let side = MeshSide {
        v4: own.v4,
        v6: own.v6,
        device: tun.name().context("the device has no name")?,
    };
    let (data, dht) = (ground.data, ground.dht);
    let tables = Arc::clone(data.tables());
    tables.store(Arc::clone(published(&first)?));
    let forwarder = Forwarder::new();
    let resolver =
        ResolverTcp::start(&side, &tables, &forwarder).context("cannot answer DNS over TCP")?;
    node.set_dns_tcp_port(clock::now(), resolver.port());
    supervisor.keep(&supervisor::tun_of(network), tun.as_fd());
    let device = tun.as_fd().try_clone_to_owned();
    let device = device.context("cannot open the device twice")?;
    supervisor.keep_sockets(data.sockets());
    supervisor.keep_guard(guarding.news());
    data.tell(Command::Attach { tun: Some(tun) });
    let ipv4 = Ipv4Watch::start(&side, &own);
    let parts = Parts {
        node,
        identity,
        folder,
        data,
        dht,
        lan: ground.lan,
        side,
        device,
        tables,
        resolver,
        guarding,
        ipv4,
        forwarder,
        streams: ground.streams,
        facts,
        aes: aes(config.datapath.transport),
        relay_limit: Limit::of_megabits(config.relay.limit.get()),
    };
    Ok(Network::new(parts, first))
}

/// Whether transports of this machine may be sealed by AES.
fn aes(transport: Transport) -> Aes {
    let is_fast = match transport {
        Transport::Auto | Transport::WireGuard => cpu::has_aes_gcm(),
        Transport::ChaCha20Poly1305 => false,
    };
    match is_fast {
        true => Aes::InHardware,
        false => Aes::InSoftware,
    }
}

/// Makes a node to look at, without anything around it.
pub(super) fn make_node(
    config: &Config,
    identity: &Identity,
    network: NetworkId,
    restored: &Restored,
    ipv4: Ipv4Use,
) -> (Node, Vec<Output>) {
    let settings = Settings {
        seed: sealing::draw(),
        limits: Limits {
            idle_close: Duration::from_secs(config.test.idle_s),
            ..Limits::EVERYONE.with_links(config.test.links)
        },
        ipv4,
        streams: config.relay.stream,
        dns_tcp_port: 0,
        relay: if config.relay.udp {
            Willing::Yes
        } else {
            Willing::No
        },
        transports: config.datapath.transport != Transport::WireGuard,
        built_s: built_s(),
    };
    let mut node = Node::new(
        clock::now(),
        network,
        identity.clone(),
        settings,
        restored.clone(),
    );
    node.set_mtu(config.tun.mtu.bytes());
    let mut first = Vec::new();
    while let Some(output) = node.poll_output() {
        first.push(output);
    }
    (node, first)
}

fn published(outputs: &[Output]) -> anyhow::Result<&Arc<Tables>> {
    let tables = outputs.iter().rev().find_map(|output| match output {
        Output::Publish(tables) => Some(tables),
        Output::Send { .. }
        | Output::Dial { .. }
        | Output::Admit { .. }
        | Output::Beacon { .. }
        | Output::Take { .. }
        | Output::OpenStream { .. }
        | Output::SetPath { .. }
        | Output::Move { .. }
        | Output::Mirror { .. }
        | Output::Open { .. }
        | Output::Transport { .. }
        | Output::Withdraw { .. }
        | Output::SetRoom { .. }
        | Output::Close { .. }
        | Output::Unreachable { .. }
        | Output::Relay(_)
        | Output::Splice(_)
        | Output::Persist { .. }
        | Output::Ponged { .. }
        | Output::Slot(_)
        | Output::Datagram { .. }
        | Output::Punch { .. }
        | Output::Notice(_) => None,
    });
    tables.context("the records of this network do not say what its addresses are")
}

fn shape(config: &Config, own: &Own, threads: usize) -> Shape {
    Shape {
        name: config.tun.name.as_str().to_owned(),
        mtu: config.tun.mtu.bytes(),
        v4: own.v4.map(|v4| (v4, own.pool4)),
        v6: (own.v6, own.prefix6),
        long_packets: config.datapath.tun_offload != Offload::Off,
        queues: match threads {
            1 => Queues::One,
            _ => Queues::Many,
        },
    }
}

/// The device of the run before, with the addresses it is to have now. One that cannot be had like this is gone when this
/// returns, and another takes its place.
fn reshaped(
    had: Spare,
    supervisor: &Supervisor,
    (network, shape): (NetworkId, &Shape),
) -> Option<Tun> {
    had.shape(shape)
        .inspect_err(|error| {
            tracing::warn!(%error, "The device of the run before is made anew");
            supervisor.forget(&supervisor::tun_of(network));
            tun::remove(&shape.name);
        })
        .ok()
}

/// The device of the run before, as it is.
fn stored_device(
    config: &Config,
    supervisor: &mut Supervisor,
    network: NetworkId,
) -> Option<Spare> {
    let name = supervisor::tun_of(network);
    let fd = supervisor.stored(&name)?;
    match Spare::adopt(fd, config.tun.name.as_str()) {
        Ok(had) => Some(had),
        Err(fd) => {
            supervisor.throw_away(&name, fd);
            None
        }
    }
}

/// The guard of the run before.
fn stored_guard(config: &Config, supervisor: &mut Supervisor) -> Option<Guard> {
    let fd = supervisor.stored(supervisor::GUARD)?;
    let guard = Guard::from_fd(fd, config.tun.name.as_str());
    guard
        .inspect_err(|error| {
            tracing::info!(%error, "The guard that an earlier run left does not fit; it is closed");
        })
        .ok()
}

/// When this program was built, unix s; `packaging/build.rs` tells it.
pub(super) fn built_s() -> u64 {
    env!("WEBMESH_BUILT_S").parse().unwrap_or(0)
}
