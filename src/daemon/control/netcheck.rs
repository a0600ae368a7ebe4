//! `webmesh netcheck`: what is known of the way between this machine and the world.

use std::{net::IpAddr, time::Duration};

use super::Control;
use crate::{
    addr::Path,
    api::{
        ApiError, Lan, Neighbour, NetcheckReply, NetworkRequest, Observed, PortMapping,
        PortMappingState, Udp, UdpState,
    },
    daemon::{
        agent::Agent,
        network::Network,
        port_mapping::Finding,
        router::{NoLease, Protocol},
        surroundings, view,
    },
    node::status::{PeerView, Snapshot},
    platform::clock,
    time::Now,
};

/// Who is linked or a home is heard within this time, at the latest by an answer to a Ping (design §8).
const HEARD_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn answer(
    control: &Control,
    request: NetworkRequest,
) -> Result<NetcheckReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    control.caller.ask(netcheck).await
}

fn netcheck(agent: &mut Agent) -> Result<NetcheckReply, ApiError> {
    let has_lan = agent.config.rendezvous.lan;
    let network = agent.network()?;
    let now = clock::now();
    let status = network.node.status(now);
    let facts = &status.own.facts;
    let mut observed: Vec<Observed> = facts
        .observed
        .iter()
        .map(|(address, observers)| Observed {
            address: address.to_string(),
            observers: count(*observers),
        })
        .collect();
    observed.sort_by_key(|seen| std::cmp::Reverse(seen.observers));
    Ok(NetcheckReply {
        port: network.facts.port,
        unplugged: surroundings::unplugged(&network.side.device),
        interfaces: facts.interfaces.iter().map(ToString::to_string).collect(),
        observed,
        nat: view::nat(&status),
        reached: status.own.proven.iter().map(ToString::to_string).collect(),
        published: status
            .own
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        udp: udp(now, &status),
        port_mapping: port_mapping(&network.facts.mapping),
        lan: Lan {
            on: has_lan,
            places: count(network.lan.places()),
            heard: heard(now, network, &status),
        },
        dht: view::dht(now, network, &status),
        network: status.name,
    })
}

fn udp(now: Now, status: &Snapshot) -> Udp {
    // One that is out of reach stands until that is noticed.
    let is_heard = |peer: &&PeerView| {
        let heard = peer.heard.map(|heard| now.at.since(heard));
        heard.is_some_and(|ago| ago < HEARD_WITHIN)
    };
    let is_direct = |peer: &&PeerView| peer.endpoint.is_some_and(|at| at.direct().is_some());
    let is_stream = |peer: &PeerView| matches!(peer.endpoint, Some(Path::Stream(_)));
    let direct = || status.peers.iter().filter(is_direct);
    let sessions = direct().filter(is_heard).count();
    let has_streams = status.peers.iter().any(is_stream);
    Udp {
        state: match (sessions, has_streams) {
            (1.., _) => UdpState::Works,
            (0, true) if direct().next().is_none() => UdpState::Blocked,
            (0, _) => UdpState::Unknown,
        },
        sessions: count(sessions),
    }
}

fn heard(now: Now, network: &Network, status: &Snapshot) -> Vec<Neighbour> {
    let mut neighbours = network.node.neighbours();
    neighbours.sort_by_key(|neighbour| std::cmp::Reverse(neighbour.heard));
    let name = |id| status.peers.iter().find(|peer| peer.id == id);
    let mut all: Vec<Neighbour> = neighbours
        .into_iter()
        .filter_map(|neighbour| {
            Some(Neighbour {
                peer: name(neighbour.node)?.name.clone(),
                address: neighbour.address.to_string(),
                ago_s: now.at.since(neighbour.heard).as_secs_f64(),
            })
        })
        .collect();
    let near = with_sessions(now, status, |ip| network.lan.has_neighbour(ip));
    for neighbour in near {
        if all.iter().all(|known| known.peer != neighbour.peer) {
            all.push(neighbour);
        }
    }
    all
}

/// Who has a session that goes to an address of an own LAN is heard there too, whether it called or not.
fn with_sessions(
    now: Now,
    status: &Snapshot,
    is_near: impl Fn(IpAddr) -> bool,
) -> impl Iterator<Item = Neighbour> {
    let near = move |peer: &PeerView| {
        let address = peer.endpoint?.direct().filter(|at| is_near(at.ip()))?;
        Some(Neighbour {
            peer: peer.name.clone(),
            address: address.to_string(),
            ago_s: now.at.since(peer.heard?).as_secs_f64(),
        })
    };
    status.peers.iter().filter_map(near)
}

fn port_mapping(finding: &Finding) -> PortMapping {
    let said = |state, by: Option<Protocol>, external: Option<String>, why: Option<String>| {
        let protocol = by.map(|by| by.name().to_owned());
        PortMapping {
            state,
            protocol,
            external,
            why,
        }
    };
    match finding {
        Finding::Off => said(PortMappingState::Off, None, None, None),
        Finding::Unneeded => said(PortMappingState::Unneeded, None, None, None),
        Finding::Asking => said(PortMappingState::Asking, None, None, None),
        Finding::Mapped { by, external } => {
            let external = Some(external.to_string());
            said(PortMappingState::Mapped, Some(*by), external, None)
        }
        Finding::Behind { by, external } => {
            let external = Some(external.to_string());
            said(PortMappingState::DoubleNat, Some(*by), external, None)
        }
        Finding::None(NoLease::Refused { by, why }) => said(
            PortMappingState::Refused,
            Some(*by),
            None,
            Some(why.clone()),
        ),
        Finding::None(NoLease::Silent) => said(PortMappingState::Silent, None, None, None),
    }
}

fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}
