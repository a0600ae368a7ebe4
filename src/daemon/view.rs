//! What the node and the shell know, as the API tells it. Conversion only: nothing is decided here.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    dht::DhtState,
    health::{names_not_resolving, node_health, offload_health, shell_health, transport_health},
    host_names::HostNames,
    network::Network,
    port_mapping::Finding,
    reasons,
};
use crate::{
    addr::{Path, Underlay},
    api,
    config::{Config, DEFAULT_PORT, DnsMode, Port},
    datapath::offloads::Why,
    host_dns,
    ids::NodeId,
    node::{
        Node,
        status::{InstanceView, OwnView, PeerState, PeerView, Role, ServiceView, Snapshot, Whois},
    },
    paths::nat::Nat,
    rendezvous::Mapping,
    tables::Transport,
    time::{Moment, Now},
    transport::suite::Suite,
};

/// What one look at the agent shows; readers get it whole and never wait for the loop.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// `webmesh status`.
    pub(super) status: api::Status,
    /// The nodes behind the peers' names, by name.
    pub(super) peers: BTreeMap<String, api::PeerDetails>,
    /// How others reach this machine.
    pub(super) reach: api::Reach,
    /// Unix s: since when this machine is what it is; 0 while that is not known.
    pub(super) own_since: u64,
    /// In sync with somebody, or alone.
    pub(super) is_settled: bool,
    /// On the way into a network.
    pub(super) is_joining: bool,
}

impl Published {
    /// This machine is in no network; `health` says what is wrong, if anything is.
    pub(super) fn nothing(health: Vec<api::Health>) -> Self {
        Self {
            status: api::Status {
                api: api::VERSION,
                version: VERSION.to_owned(),
                state: api::State::None,
                network: None,
                own: None,
                peers: Vec::new(),
                services: Vec::new(),
                dns: api::Dns {
                    domain: None,
                    servers: Vec::new(),
                    search: Vec::new(),
                    backend: api::DnsBackend::None,
                    state: api::DnsState::Off,
                },
                dht: api::Dht {
                    state: api::DhtState::Off,
                    why: None,
                    met: Vec::new(),
                },
                drops: BTreeMap::new(),
                relay: None,
                offloads: BTreeMap::new(),
                health,
            },
            peers: BTreeMap::new(),
            reach: UNREACHED,
            own_since: 0,
            is_settled: false,
            is_joining: false,
        }
    }

    /// A network of which `down` was said.
    pub(super) fn down(snapshot: &Snapshot, config: &Config) -> Self {
        let mut published = Self::nothing(Vec::new());
        let status = &mut published.status;
        status.state = api::State::Down;
        status.network = Some(network(snapshot));
        status.own = Some(own(
            &snapshot.own,
            config.network.port.map_or(DEFAULT_PORT, Port::get),
        ));
        status.dns.domain = Some(snapshot.domain.clone());
        status.peers = snapshot.peers.iter().map(unmet).collect();
        status.services = snapshot
            .services
            .iter()
            .filter_map(of_others)
            .map(|view| unreached(service(snapshot, &view)))
            .collect();
        published.peers = details(snapshot);
        published
    }

    /// A network that is up.
    pub(super) fn up(
        now: Now,
        network_up: &Network,
        config: &Config,
        host_names: &HostNames,
    ) -> Self {
        let snapshot = network_up.node.status(now);
        let mut health: Vec<api::Health> = snapshot
            .health
            .iter()
            .map(|line| node_health(line, &snapshot))
            .collect();
        health.extend(shell_health(&network_up.facts));
        health.extend(offload_health(&network_up.data.offloads()));
        health.extend(snapshot.peers.iter().filter_map(|view| {
            let plain = network_up.traffic.plain(now.at, view.peer)?;
            Some(transport_health(&view.name, plain))
        }));
        let dns = dns((now.at, network_up), &snapshot, config, host_names);
        if dns.state == api::DnsState::NotResolving {
            let ways_out = host_dns::look::ways_out(std::path::Path::new("/etc"));
            health.push(names_not_resolving(&ways_out));
        }
        let status = api::Status {
            api: api::VERSION,
            version: VERSION.to_owned(),
            state: api::State::Up,
            network: Some(network(&snapshot)),
            own: Some(api::Own {
                nat: nat(&snapshot),
                ..own(&snapshot.own, network_up.facts.port)
            }),
            peers: snapshot
                .peers
                .iter()
                .map(|view| peer(now, network_up, view))
                .collect(),
            services: snapshot
                .services
                .iter()
                .map(|view| service(&snapshot, view))
                .collect(),
            dns,
            dht: dht(now, network_up, &snapshot),
            drops: drops(network_up, &snapshot),
            relay: config.relay.udp.then(|| relayed(network_up)),
            offloads: offloads(network_up),
            health,
        };
        Self {
            status,
            peers: details(&snapshot),
            reach: reach(&snapshot.own, &network_up.facts.mapping),
            own_since: since(&network_up.node, now, &snapshot.own),
            is_settled: network_up.node.is_settled(now),
            is_joining: false,
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn offloads(network: &Network) -> BTreeMap<String, String> {
    let word = |off: Option<Why>| if off.is_none() { "on" } else { "off" };
    let all = network.data.offloads().into_iter();
    all.map(|(key, off)| (key.to_owned(), word(off).to_owned()))
        .collect()
}

const UNREACHED: api::Reach = api::Reach {
    kind: api::ReachKind::Untried,
    address: None,
};

fn network(snapshot: &Snapshot) -> api::Network {
    api::Network {
        id: snapshot.network.to_string(),
        name: snapshot.name.clone(),
        domain: snapshot.domain.clone(),
    }
}

fn own(view: &OwnView, port: u16) -> api::Own {
    api::Own {
        id: view.id.to_string(),
        name: view.name.clone(),
        role: role(view.role),
        ipv4: view.ipv4.map(|v4| v4.to_string()),
        ipv6: view.ipv6.to_string(),
        port,
        nat: api::Nat::Unknown,
        certificate_until: view.certificate_until,
    }
}

fn since(node: &Node, now: Now, own: &OwnView) -> u64 {
    match node.whois(now, &own.ipv6.to_string()) {
        Some(Whois::Peer { since, .. }) => since,
        Some(Whois::Service { .. } | Whois::Resolver) | None => 0,
    }
}

/// What is known of how others reach this machine: that somebody did, a mapping by the router's word, a NAT by what others see.
fn reach(view: &OwnView, mapping: &Finding) -> api::Reach {
    if let Some(proven) = view.proven.first() {
        return api::Reach {
            kind: api::ReachKind::Reached,
            address: Some(proven.to_string()),
        };
    }
    let behind = |kind, address: Underlay| api::Reach {
        kind,
        address: Some(address.ip().to_string()),
    };
    if let Some(mapped) = mapping.usable() {
        return behind(api::ReachKind::NatMapped, mapped);
    }
    let is_translated = view.facts.nat != Nat::None;
    if let Some(seen) = view.facts.outside.first().filter(|_| is_translated) {
        return behind(api::ReachKind::Nat, *seen);
    }
    api::Reach {
        kind: api::ReachKind::Untried,
        address: view.addresses.first().map(ToString::to_string),
    }
}

/// The API's word for a role.
pub(super) fn role(role: Role) -> api::Role {
    match role {
        Role::Admin => api::Role::Admin,
        Role::Member => api::Role::Member,
        Role::Leaf => api::Role::Leaf,
    }
}

fn idle_peer(view: &PeerView) -> api::Peer {
    api::Peer {
        id: view.id.to_string(),
        name: view.name.clone(),
        ipv4: view.ipv4.map(|v4| v4.to_string()),
        ipv6: view.ipv6.to_string(),
        state: peer_state(view.state),
        path: None,
        rtt_ms: None,
        tx_bytes: 0,
        rx_bytes: 0,
        last_handshake_s: None,
        last_heard_s: None,
        transport: None,
    }
}

/// A peer as it was when the network went down: no session stands any more.
fn unmet(view: &PeerView) -> api::Peer {
    let state = match view.state {
        PeerState::Up | PeerState::Idle => PeerState::Idle,
        ended @ (PeerState::Away | PeerState::Revoked) => ended,
    };
    api::Peer {
        state: peer_state(state),
        ..idle_peer(view)
    }
}

/// A service while the network is down: nothing of it can be reached from here, and nothing is heard of it.
fn unreached(mut service: api::Service) -> api::Service {
    service.up = 0;
    for instance in &mut service.instances {
        instance.state = api::InstanceState::Unknown;
    }
    service
}

/// A peer of a network that is up.
pub(super) fn peer(now: Now, network: &Network, view: &PeerView) -> api::Peer {
    let carried = network.carried_with(view.peer);
    let ago = |at: Option<Moment>| at.map(|at| now.at.since(at).as_secs_f64());
    let before = u64::from(view.last_session_s);
    let in_earlier_run = (before != 0).then(|| now.unix_s().saturating_sub(before) as f64);
    let is_up = view.state == PeerState::Up;
    let path = view.endpoint.filter(|_| is_up);
    let path = path.map(|endpoint| api::Path {
        why: match endpoint {
            Path::Direct(_) => None,
            Path::Relay(_) | Path::Stream(_) | Path::Handed(_) => reasons::code(now, network, view),
        },
        ..path_of(endpoint, &view.via)
    });
    api::Peer {
        path,
        rtt_ms: view.rtt.filter(|_| is_up).map(api::words::as_milliseconds),
        tx_bytes: carried.tx_bytes,
        rx_bytes: carried.rx_bytes,
        last_handshake_s: ago(carried.handshake),
        last_heard_s: ago(carried.heard.max(view.heard)).or(in_earlier_run),
        transport: is_up.then(|| cipher(carried.suite)),
        ..idle_peer(view)
    }
}

/// What seals user data, as the API names it.
fn cipher(suite: Option<Suite>) -> api::Cipher {
    match suite {
        None => api::Cipher::WireGuard,
        Some(Suite::Aes256Gcm) => api::Cipher::Aes256Gcm,
        Some(Suite::ChaCha20Poly1305) => api::Cipher::ChaCha20Poly1305,
    }
}

/// How a session goes; `via`: the names of the relays on its path.
pub(super) fn path_of(path: Path, via: &[String]) -> api::Path {
    let kind = match path {
        Path::Direct(_) | Path::Handed(_) => api::PathKind::Direct,
        Path::Relay(_) => api::PathKind::Relay,
        Path::Stream(_) => api::PathKind::Stream,
    };
    api::Path {
        kind,
        endpoint: path.direct().map(|address| address.to_string()),
        via: Some(via.join(", ")).filter(|via| !via.is_empty()),
        why: None,
    }
}

fn peer_state(state: PeerState) -> api::PeerState {
    match state {
        PeerState::Up => api::PeerState::Up,
        PeerState::Idle => api::PeerState::Idle,
        PeerState::Away => api::PeerState::Away,
        PeerState::Revoked => api::PeerState::Revoked,
    }
}

fn service(snapshot: &Snapshot, view: &ServiceView) -> api::Service {
    let instances: Vec<api::Instance> = view
        .instances
        .iter()
        .map(|instance| api::Instance {
            peer: instance.peer.clone(),
            instance: instance.instance.clone(),
            state: instance_state(snapshot, instance),
            target: instance.target.clone(),
            tags: instance.tags.clone(),
            weight: instance.weight,
        })
        .collect();
    let up = instances
        .iter()
        .filter(|instance| instance.state == api::InstanceState::Up)
        .count();
    api::Service {
        name: view.name.clone(),
        domain_name: view.domain_name.clone(),
        protocol: protocol(view.transport),
        port: view.port,
        up: u32::try_from(up).unwrap_or(u32::MAX),
        instances,
    }
}

/// A service without what this machine serves of it; None where nobody else does.
fn of_others(view: &ServiceView) -> Option<ServiceView> {
    let mut view = view.clone();
    view.instances.retain(|instance| !instance.own);
    (!view.instances.is_empty()).then_some(view)
}

/// Until health is checked, an instance is up while its peer says that it is there.
fn instance_state(snapshot: &Snapshot, instance: &InstanceView) -> api::InstanceState {
    if instance.own {
        return api::InstanceState::Up;
    }
    let server = snapshot
        .peers
        .iter()
        .find(|peer| peer.name == instance.peer);
    match server.map(|peer| peer.state) {
        Some(PeerState::Up | PeerState::Idle) => api::InstanceState::Up,
        Some(PeerState::Away | PeerState::Revoked) => api::InstanceState::Down,
        None => api::InstanceState::Unknown,
    }
}

/// The API's word for a transport protocol.
pub(super) fn protocol(transport: Transport) -> api::Protocol {
    match transport {
        Transport::Tcp => api::Protocol::Tcp,
        Transport::Udp => api::Protocol::Udp,
    }
}

fn details(snapshot: &Snapshot) -> BTreeMap<String, api::PeerDetails> {
    let served_by = |peer: &str| -> Vec<String> {
        let serves =
            |view: &&ServiceView| view.instances.iter().any(|instance| instance.peer == peer);
        snapshot
            .services
            .iter()
            .filter(serves)
            .map(|view| view.name.clone())
            .collect()
    };
    snapshot
        .peers
        .iter()
        .map(|view| {
            let details = api::PeerDetails {
                domain_name: format!("{}.{}", view.name, snapshot.domain),
                role: role(view.role),
                groups: view.groups.clone(),
                admitted_at: view.admitted_at,
                certificate_until: view.certificate_until,
                version: None,
                endpoints: view.addresses.iter().map(ToString::to_string).collect(),
                services: served_by(&view.name),
            };
            (view.name.clone(), details)
        })
        .collect()
}

fn dns(
    (now, network): (Moment, &Network),
    snapshot: &Snapshot,
    config: &Config,
    host_names: &HostNames,
) -> api::Dns {
    let servers = &snapshot.dns_servers;
    let (backend, state) = match config.dns.mode {
        DnsMode::Off => (api::DnsBackend::None, api::DnsState::Off),
        DnsMode::Auto | DnsMode::Forward => match who_asks_us(host_names, servers) {
            (backend, api::DnsState::NotResolving) if host_names.is_setting_up(now) => {
                (backend, api::DnsState::SettingUp)
            }
            known => known,
        },
    };
    let wanted = network.wanted_names(config.dns.search);
    api::Dns {
        domain: Some(snapshot.domain.clone()),
        servers: servers.iter().map(ToString::to_string).collect(),
        search: wanted.map_or_else(Vec::new, |wanted| wanted.search),
        backend,
        state,
    }
}

/// Whom root has told to send us our names, or the host's own file.
fn who_asks_us(host_names: &HostNames, servers: &[IpAddr]) -> (api::DnsBackend, api::DnsState) {
    let told = host_names.report().map(|report| report.backend);
    match told {
        Some(
            backend @ (api::DnsBackend::Resolved
            | api::DnsBackend::NetworkManager
            | api::DnsBackend::Resolvconf),
        ) => (backend, api::DnsState::Resolving),
        Some(api::DnsBackend::Forward | api::DnsBackend::None) | None => {
            if HostNames::asks(servers) {
                (api::DnsBackend::Forward, api::DnsState::Resolving)
            } else {
                (api::DnsBackend::None, api::DnsState::NotResolving)
            }
        }
    }
}

fn relayed(network: &Network) -> api::Relayed {
    let total = network.carried.total();
    api::Relayed {
        ways: u64::try_from(network.carried.ways()).unwrap_or(u64::MAX),
        packets: total.packets,
        bytes: total.bytes,
    }
}

/// What members see of this machine tells what its NAT does; where too few have looked, what two nodes of the DHT saw.
pub(super) fn nat(snapshot: &Snapshot) -> api::Nat {
    let meeting = &snapshot.meeting;
    match snapshot.own.facts.nat {
        Nat::None => return api::Nat::None,
        Nat::Easy => return api::Nat::Easy,
        Nat::Hard => return api::Nat::Hard,
        Nat::Unknown => {}
    }
    match meeting.seen.as_ref().map(|seen| seen.mapping) {
        Some(Mapping::One) if meeting.is_bare => api::Nat::None,
        Some(Mapping::One) => api::Nat::Easy,
        Some(Mapping::PerDestination) => api::Nat::Hard,
        Some(Mapping::Unknown) | None => api::Nat::Unknown,
    }
}

/// How the DHT stands, and whom it has found.
pub(super) fn dht(now: Now, network: &Network, snapshot: &Snapshot) -> api::Dht {
    let (state, why) = match network.dht.state() {
        DhtState::Off(why) => (api::DhtState::Off, Some(why.to_owned())),
        DhtState::Idle => (api::DhtState::Idle, None),
        DhtState::InUse => (api::DhtState::InUse, None),
        DhtState::Unreachable(why) => (api::DhtState::Unreachable, Some(why)),
    };
    let name_of = |node: &NodeId| {
        let peer = snapshot.peers.iter().find(|peer| peer.id == *node)?;
        Some(peer.name.clone())
    };
    let met = snapshot.meeting.met.iter().filter_map(|(node, at)| {
        Some(api::Met {
            peer: name_of(node)?,
            ago_s: now.unix_s().saturating_sub(*at),
        })
    });
    let mut met: Vec<api::Met> = met.collect();
    met.sort_by_key(|met| met.ago_s);
    api::Dht { state, why, met }
}

fn drops(network: &Network, snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let shell = network
        .facts
        .counters
        .iter()
        .map(|(reason, count)| (*reason, *count));
    let guard = Some(("guard", network.guarding.dropped())).filter(|(_, count)| *count != 0);
    let shell = shell.chain(guard);
    let node = snapshot.counters.iter().copied();
    let mut drops = BTreeMap::new();
    for (reason, count) in network.data.drops().into_iter().chain(shell).chain(node) {
        *drops.entry(reason.to_owned()).or_default() += count;
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, PeerIx};

    #[test]
    fn while_the_network_is_down_nobody_is_up() {
        let view = |state| PeerView {
            peer: PeerIx(1),
            id: NodeId([1; 32]),
            name: "anna".to_owned(),
            role: Role::Admin,
            ipv4: None,
            ipv6: "fd00::1".parse().unwrap(),
            state,
            endpoint: None,
            via: Vec::new(),
            rtt: None,
            last_session_s: 0,
            heard: None,
            addresses: Vec::new(),
            admitted_at: 0,
            certificate_until: 0,
            groups: Vec::new(),
            wire: None,
        };
        for (was, is) in [
            (PeerState::Up, api::PeerState::Idle),
            (PeerState::Idle, api::PeerState::Idle),
            (PeerState::Away, api::PeerState::Away),
            (PeerState::Revoked, api::PeerState::Revoked),
        ] {
            assert_eq!(unmet(&view(was)).state, is);
        }
        let instance = api::Instance {
            peer: "anna".to_owned(),
            instance: "anna".to_owned(),
            state: api::InstanceState::Up,
            target: None,
            tags: Vec::new(),
            weight: 100,
        };
        let web = unreached(api::Service {
            name: "web".to_owned(),
            domain_name: "web.svc.home.internal".to_owned(),
            protocol: api::Protocol::Tcp,
            port: 80,
            up: 1,
            instances: vec![instance],
        });
        assert_eq!(
            (web.up, web.instances[0].state),
            (0, api::InstanceState::Unknown)
        );
    }
}
