//! A network comes up: sockets, node, device, resolver, data thread, in this order; on any failure nothing is left.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{
    data_plane::DataPlane,
    forwarder::Forwarder,
    guarding::Guarding,
    ipv4_watch::{Ipv4Watch, route_conflict},
    kept_file::Identity as Seeds,
    mesh_socket::MeshSide,
    network::{Facts, Network, Parts},
    resolver_tcp::ResolverTcp,
    sealing,
    state_dir::NetworkFolder,
};
use crate::{
    config::{Config, DEFAULT_PORT},
    datapath::command::Command,
    hash::{Use, hash},
    ids::NetworkId,
    keys::{NodeKey, TunnelKey},
    node::{Identity, Ipv4Use, Node, Restored, Settings, output::Output},
    overlay::Limits,
    platform::{
        clock,
        guard::Guard,
        tun::{OpenTunError, Shape, Tun},
        udp,
    },
    tables::{Own, Tables},
    wire::record::{Kind, Record},
};

/// The data thread on the underlay's sockets, and whether they are where they were wished.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) data: DataPlane,
    pub(super) port: u16,
    pub(super) changed: bool,
}

/// What is there before a network comes up.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) folder: NetworkFolder,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
    /// A guard of an earlier run.
    pub(super) guard: Option<Guard>,
}

/// The keys of this run.
pub(super) fn identity_of(seeds: &Seeds) -> Identity {
    Identity {
        key: NodeKey::from_seed(seeds.node_seed),
        tunnel: TunnelKey::from_seed(seeds.tunnel_seed),
        boot: sealing::draw_boot(),
    }
}

/// The network whose records these are, by its Network record.
pub(super) fn network_of(records: &[Record]) -> Option<NetworkId> {
    let record = records
        .iter()
        .find(|record| record.kind() == Kind::Network)?;
    Some(NetworkId(hash(Use::Network, &[&record.subject()])))
}

/// Takes the underlay's port: the one that was asked for, or the default one, or another if that is busy.
///
/// # Errors
/// A port that was asked for is busy, or no socket can be had.
pub(super) fn break_ground(config: &Config) -> anyhow::Result<Ground> {
    let (pair, changed) = match config.network.port {
        Some(port) => (udp::Pair::bind(port.get())?, false),
        None => match udp::Pair::bind(DEFAULT_PORT) {
            Ok(pair) => (pair, false),
            Err(udp::BindError::Busy(_)) => (udp::Pair::bind(0)?, true),
            Err(error @ udp::BindError::Socket(_)) => return Err(error.into()),
        },
    };
    let port = pair.port().context("cannot read the UDP port")?;
    if changed {
        tracing::warn!(
            port,
            busy = DEFAULT_PORT,
            "Default port is busy; another is used"
        );
    }
    Ok(Ground {
        data: DataPlane::start(pair, config.tun.mtu.bytes())
            .context("cannot start the data thread")?,
        port,
        changed,
    })
}

/// Brings a network up.
///
/// # Errors
/// Nothing is left of it on the host then; its folder is whole.
pub(super) fn start(
    config: &Config,
    identity: Identity,
    network: NetworkId,
    before: Before,
) -> anyhow::Result<Network> {
    let Before {
        folder,
        restored,
        ground,
        guard,
    } = before;
    let mut facts = Facts {
        port: ground.port,
        port_changed: ground.changed,
        ..Facts::default()
    };
    let (mut node, mut first) = make_node(config, &identity, network, &restored, Ipv4Use::On);
    let mut own = published(&first)?.own;
    let conflict = own
        .v4
        .and_then(|_| route_conflict(own.pool4, config.tun.name.as_str()));
    if let Some(why) = conflict {
        tracing::warn!(why.cause, "IPv4 of the network is not used on this host");
        facts.ipv4_blocked = Some(why);
        (node, first) = make_node(config, &identity, network, &restored, Ipv4Use::Off);
        own = published(&first)?.own;
    }
    // Before the device: its addresses are never there without the guard.
    let guarding = Guarding::start(&config.host, config.tun.name.as_str(), &own, guard);
    let tun = open_device(config, &own)?;
    let side = MeshSide {
        v4: own.v4,
        v6: own.v6,
        device: tun.name().context("the device has no name")?,
    };
    let data = ground.data;
    let tables = Arc::clone(data.tables());
    tables.store(Arc::clone(published(&first)?));
    let forwarder = Forwarder::new();
    let resolver =
        ResolverTcp::start(&side, &tables, &forwarder).context("cannot answer DNS over TCP")?;
    node.set_dns_tcp_port(clock::now(), resolver.port());
    data.tell(Command::Attach { tun: Some(tun) });
    let ipv4 = Ipv4Watch::start(&side, &own);
    let parts = Parts {
        node,
        identity,
        folder,
        data,
        side,
        tables,
        resolver,
        guarding,
        ipv4,
        forwarder,
        facts,
    };
    Ok(Network::new(parts, first))
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
        dns_tcp_port: 0,
        built_s: built_s(),
    };
    let mut node = Node::new(
        clock::now(),
        network,
        identity.clone(),
        settings,
        restored.clone(),
    );
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
        | Output::SetPath { .. }
        | Output::Close { .. }
        | Output::Unreachable { .. }
        | Output::Splice(_)
        | Output::Persist { .. }
        | Output::Ponged { .. }
        | Output::Notice(_) => None,
    });
    tables.context("the records of this network do not say what its addresses are")
}

fn open_device(config: &Config, own: &Own) -> Result<Tun, OpenTunError> {
    Tun::open(&Shape {
        name: config.tun.name.as_str().to_owned(),
        mtu: config.tun.mtu.bytes(),
        v4: own.v4.map(|v4| (v4, own.pool4)),
        v6: (own.v6, own.prefix6),
    })
}

/// When this program was built, unix s; `packaging/build.rs` tells it.
pub(super) fn built_s() -> u64 {
    env!("WEBMESH_BUILT_S").parse().unwrap_or(0)
}
