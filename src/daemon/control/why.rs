//! `webmesh why`: name, policy, pick, path and door, in the order in which a packet meets them; and how it was before.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::{Control, ping};
use crate::{
    api::{
        ApiError, Door, DoorVerdict, InstanceState, Protocol, Service, WhyCause, WhyPast, WhyPath,
        WhyPick, WhyRemedy, WhyReply, WhyRequest, WhyWay, words::as_milliseconds,
    },
    daemon::{
        agent::Agent,
        door,
        reasons::{self, Asked},
        surroundings,
    },
    ids::NodeId,
    node::{
        explaining::Answer,
        status::{Snapshot, Whois},
    },
    platform::clock,
    services::Published,
    tables::Transport,
};

/// How long a host may take to answer a SYN from the mesh: it is sent again after 1 s.
const DOOR_PATIENCE: Duration = Duration::from_secs(3);

/// Until policies are built there is one rule.
const THE_RULE: u32 = 1;

/// What was asked for, found.
#[derive(Clone, Debug)]
struct Target {
    node: NodeId,
    name: String,
    is_own: bool,
    pick: Option<WhyPick>,
    port: Option<(u16, Protocol)>,
    /// Its address in the mesh, of the IP version that comes through here.
    address: IpAddr,
}

pub(super) async fn answer(control: &Control, request: WhyRequest) -> Result<WhyReply, ApiError> {
    let (look, _) = control.network_look(request.network.as_deref())?;
    let services = look.status.services.clone();
    let asked = Asked::parse(&request.what)?;
    let has_port = asked.port.is_some();
    let target = control
        .caller
        .ask(move |agent| find(agent, &asked, &services))
        .await?;
    if let Some(at) = request.at {
        if has_port {
            return Err(ApiError::bad_request(format!(
                "how a port was at a time is not written down ({})",
                request.what
            ))
            .remedy("give the name without its port"));
        }
        return past(control, target, at).await;
    }
    if target.is_own {
        return own(control, target).await;
    }
    // An answer opens the session, and says how long the way takes now; none is an answer too.
    let has_answered = ping::once(control, target.node).await?.is_some();
    let door = match target.port {
        Some(port) if has_answered => Some(knock(control, &target, port).await?),
        Some(_) | None => None,
    };
    let node = target.node;
    let answer = match has_answered {
        true => Answer::Presumed,
        false => Answer::Missing,
    };
    let path = control
        .caller
        .ask(move |agent: &mut Agent| {
            let network = agent.network()?;
            let path = reasons::path(clock::now(), network, node, answer)?;
            Ok(match has_answered {
                true => path,
                false => cut_off(path, surroundings::unplugged(&network.side.device)),
            })
        })
        .await?;
    Ok(reply(target, path, door))
}

/// A machine whose cable is out finds nobody, whatever stood a moment ago and whatever address it still has.
fn cut_off(path: WhyPath, unplugged: Vec<String>) -> WhyPath {
    if unplugged.is_empty() {
        return path;
    }
    WhyPath {
        path: None,
        cause: WhyCause::Offline,
        remedy: Some(WhyRemedy::Online),
        unplugged,
        ..path
    }
}

/// The first thing that is in the way says why; else the path does.
fn reply(target: Target, path: WhyPath, door: Option<Door>) -> WhyReply {
    let at_door = door.as_ref().and_then(|door| fault_of(door.verdict));
    let is_reached = path.path.is_some() && at_door.is_none();
    let (cause, remedy) = match at_door {
        Some((cause, remedy)) => (cause, Some(remedy)),
        None => (path.cause, path.remedy),
    };
    WhyReply {
        reached: is_reached,
        cause,
        remedy,
        path: Some(path),
        door,
        ..bare(target)
    }
}

fn bare(target: Target) -> WhyReply {
    WhyReply {
        peer: target.name,
        reached: true,
        cause: WhyCause::Own,
        remedy: None,
        policy_rule: THE_RULE,
        pick: target.pick,
        path: None,
        door: None,
        is_own: target.is_own,
        past: None,
    }
}

fn fault_of(verdict: DoorVerdict) -> Option<(WhyCause, WhyRemedy)> {
    match verdict {
        DoorVerdict::Accepted | DoorVerdict::Bound | DoorVerdict::Unprobed => None,
        DoorVerdict::Dropped => Some((WhyCause::DoorDropped, WhyRemedy::Firewall)),
        DoorVerdict::Closed => Some((WhyCause::DoorClosed, WhyRemedy::Program)),
        DoorVerdict::LoopbackOnly => Some((WhyCause::DoorLoopback, WhyRemedy::Program)),
    }
}

fn find(agent: &mut Agent, asked: &Asked, services: &[Service]) -> Result<Target, ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let status = network.node.status(now);
    let port = asked.port.map(|port| (port, Protocol::Tcp));
    let by_v4 = network.facts.ipv4_blocked.is_none();
    match network.node.whois(now, &asked.name) {
        Some(Whois::Peer { node, name, .. }) => {
            let is_own = node == status.own.id;
            if is_own && port.is_none() {
                return Err(
                    ApiError::bad_request(format!("{} is this machine", asked.name))
                        .remedy("name another peer, or a port of this machine"),
                );
            }
            Ok(Target {
                address: address_of(&status, node, by_v4),
                node,
                name,
                is_own,
                pick: None,
                port,
            })
        }
        Some(Whois::Service { name, .. }) => pick(&status, services, &name, port, by_v4),
        Some(Whois::Resolver) => Err(ApiError::bad_request(format!(
            "{} is this machine's resolver",
            asked.name
        ))
        .remedy("webmesh dns status")),
        None => Err(reasons::nobody(&asked.name, &network.node, &status)),
    }
}

/// The instance that a person would look at first: one that is up, here or with the shortest way.
fn pick(
    status: &Snapshot,
    services: &[Service],
    name: &str,
    port: Option<(u16, Protocol)>,
    by_v4: bool,
) -> Result<Target, ApiError> {
    let service = services.iter().find(|service| service.name == name);
    let served = service.and_then(|service| {
        let rank = |peer: &str| {
            let view = status.peers.iter().find(|view| view.name == peer);
            view.map_or(Duration::ZERO, |view| view.rtt.unwrap_or(Duration::MAX))
        };
        let best = service
            .instances
            .iter()
            .min_by_key(|one| (one.state != InstanceState::Up, rank(&one.peer)));
        Some((service, best?))
    });
    let Some((service, instance)) = served else {
        return Err(ApiError::no(
            crate::api::Code::NoSuchName,
            format!("nobody serves {name} now"),
        )
        .remedy(format!("webmesh service show {name}")));
    };
    let peer = status.peers.iter().find(|view| view.name == instance.peer);
    let node = peer.map_or(status.own.id, |view| view.id);
    let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
    Ok(Target {
        node,
        name: instance.peer.clone(),
        is_own: node == status.own.id,
        pick: Some(WhyPick {
            service: service.name.clone(),
            up: service.up,
            instances: count(service.instances.len()),
        }),
        port: port.or(Some((service.port, service.protocol))),
        address: address_of(status, node, by_v4),
    })
}

fn address_of(status: &Snapshot, node: NodeId, by_v4: bool) -> IpAddr {
    let peer = status.peers.iter().find(|view| view.id == node);
    let (v4, v6) = peer.map_or((status.own.ipv4, status.own.ipv6), |view| {
        (view.ipv4, view.ipv6)
    });
    let is_good = by_v4 && status.own.ipv4.is_some();
    v4.filter(|_| is_good).map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// Knocks at a port of the peer as a program of this host would.
async fn knock(
    control: &Control,
    target: &Target,
    (port, protocol): (u16, Protocol),
) -> Result<Door, ApiError> {
    let device = control
        .caller
        .ask(|agent: &mut Agent| Ok(agent.network()?.side.device.clone()))
        .await?;
    let door = |verdict, took_ms| Door {
        verdict,
        port,
        let_in: [port, port],
        took_ms,
        firewall: None,
        device: device.clone(),
    };
    if protocol == Protocol::Udp {
        return Ok(door(DoorVerdict::Unprobed, None));
    }
    let began = Instant::now();
    let to = SocketAddr::new(target.address, port);
    Ok(match timeout(DOOR_PATIENCE, TcpStream::connect(to)).await {
        Ok(Ok(_)) => {
            let took = as_milliseconds(began.elapsed());
            door(DoorVerdict::Accepted, Some(took))
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            door(DoorVerdict::Closed, None)
        }
        Ok(Err(_)) | Err(_) => door(DoorVerdict::Dropped, None),
    })
}

/// This machine's own door is probed from the mesh side, and who drops is named.
async fn own(control: &Control, target: Target) -> Result<WhyReply, ApiError> {
    let (port, protocol) = target.port.expect("an own target has a port");
    let transport = match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let service = control
        .caller
        .ask(move |agent: &mut Agent| {
            let services = agent.network()?.node.own_services().to_vec();
            let is_it = |one: &Published| one.port == port && one.transport == transport;
            Ok(services.into_iter().find(is_it))
        })
        .await?;
    let service = service.unwrap_or_else(|| Published {
        name: String::new(),
        instance: String::new(),
        transport,
        port,
        target: None,
        splice_port: None,
        tags: Vec::new(),
        weight: crate::api::USUAL_WEIGHT,
        defined_in: None,
    });
    let door = door::probe(&control.caller, &service).await?;
    let fault = fault_of(door.verdict);
    Ok(WhyReply {
        reached: fault.is_none(),
        cause: fault.map_or(WhyCause::Own, |(cause, _)| cause),
        remedy: fault.map(|(_, remedy)| remedy),
        door: Some(door),
        ..bare(target)
    })
}

async fn past(control: &Control, target: Target, at: u64) -> Result<WhyReply, ApiError> {
    let node = target.node;
    let changes = control
        .caller
        .ask(move |agent: &mut Agent| Ok(reasons::changes(&agent.network()?.node, node)))
        .await?;
    let then = changes
        .iter()
        .rev()
        .find(|change| change.at_ms / 1000 <= at)
        .cloned();
    let way = then.as_ref().map(|change| change.way);
    let cause = match (&then, way) {
        (None, _) => WhyCause::NotRecorded,
        (Some(_), Some(WhyWay::NoSession)) => WhyCause::NoSession,
        (Some(change), _) => change.cause.unwrap_or(WhyCause::Trying),
    };
    Ok(WhyReply {
        reached: way == Some(WhyWay::Path),
        cause,
        past: Some(WhyPast {
            at,
            recorded_since: changes.first().map(|change| change.at_ms / 1000),
            then,
            changes,
        }),
        ..bare(target)
    })
}
