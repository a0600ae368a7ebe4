//! A network comes up: sockets, node, device, resolver, data thread, in this order; on any failure nothing is left.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context as _;
use ipnet::{IpNet, Ipv4Net};

use super::{
    data_plane::DataPlane,
    forwarder::Forwarder,
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
        clock, link,
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
    folder: NetworkFolder,
    network: NetworkId,
    restored: Restored,
    ground: Ground,
) -> anyhow::Result<Network> {
    let mut facts = Facts {
        port: ground.port,
        port_changed: ground.changed,
        ..Facts::default()
    };
    let (mut node, mut first) = make_node(config, &identity, network, &restored, Ipv4Use::On);
    let mut own = published(&first)?.own;
    if let Some(why) = conflict_of(own.v4, own.pool4) {
        tracing::warn!(why, "IPv4 of the network is not used on this host");
        facts.ipv4_blocked = Some(why);
        (node, first) = make_node(config, &identity, network, &restored, Ipv4Use::Off);
        own = published(&first)?.own;
    }
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
    let parts = Parts {
        node,
        identity,
        folder,
        data,
        side,
        tables,
        resolver,
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

/// Why this host cannot use the pool: a route of its own lies in it (design §3).
fn conflict_of(own: Option<Ipv4Addr>, pool4: Ipv4Net) -> Option<String> {
    own?;
    let routes = link::Links::open()
        .and_then(|mut links| links.routes())
        .ok()?;
    let overlaps = |route: &link::Route| match route.to {
        IpNet::V4(to) => {
            to.prefix_len() != 0 && (pool4.contains(&to.network()) || to.contains(&pool4.network()))
        }
        IpNet::V6(_) => false,
    };
    let route = routes.into_iter().find(overlaps)?;
    Some(format!(
        "a route of this host to {} overlaps {pool4}",
        route.to
    ))
}

/// When this program was built, unix s; `packaging/build.rs` tells it.
pub(super) fn built_s() -> u64 {
    env!("WEBMESH_BUILT_S").parse().unwrap_or(0)
}
