//! `webmesh service add`, `rm`, `list`, `show`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::net::TcpStream;

use super::Control;
use crate::{
    api::{
        self, ApiError, NetworkRequest, Protocol, ServiceAddReply, ServiceAddRequest,
        ServiceListReply, ServiceRemoveReply, ServiceRequest, ServiceShowReply,
    },
    daemon::{agent::Agent, defining, door, network::Network},
    node::{ServiceRefused, ServiceWish},
    platform::clock,
    services::Published,
    tables::Transport,
};

/// Below this a target's port is a system service's, which root alone may open to others (design §10).
const FIRST_FREE_PORT: u16 = 1024;

/// How long a program of this host may take to accept: the kernel does it for whoever listens.
const TRY_FOR: Duration = Duration::from_millis(300);

/// What was published, and under which name.
struct Added {
    service: Published,
    domain_name: String,
    peer: String,
    was: Option<String>,
    warnings: Vec<ApiError>,
}

pub(super) async fn answer_add(
    control: &Control,
    request: ServiceAddRequest,
    asker: api::Caller,
) -> Result<ServiceAddReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    if request.port == 0 {
        return Err(ApiError::bad_request(
            "a service needs a port from 1 to 65535",
        ));
    }
    let target = match &request.target {
        Some(text) => Some(target(text, request.protocol, asker).await?),
        None => None,
    };
    let added = control
        .caller
        .ask(move |agent| add(agent, request, target))
        .await?;
    let door = door::probe(&control.caller, &added.service).await?;
    Ok(ServiceAddReply {
        name: added.service.name,
        domain_name: added.domain_name,
        protocol: match added.service.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        },
        port: added.service.port,
        peer: added.peer,
        target: added.service.target.map(|target| target.to_string()),
        was: added.was,
        door,
        warnings: added.warnings,
    })
}

pub(super) async fn answer_remove(
    control: &Control,
    request: ServiceRequest,
) -> Result<ServiceRemoveReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    let name = request.name.clone();
    control
        .caller
        .ask(move |agent| remove(agent, &request.name))
        .await?;
    let look = control.look();
    let service = look
        .status
        .services
        .iter()
        .find(|service| service.name == name);
    Ok(ServiceRemoveReply {
        remaining: service
            .map(|service| service.instances.clone())
            .unwrap_or_default(),
        name,
    })
}

pub(super) fn answer_list(
    control: &Control,
    request: &NetworkRequest,
) -> Result<ServiceListReply, ApiError> {
    let (look, _) = control.network_look(request.network.as_deref())?;
    Ok(ServiceListReply {
        services: look.status.services.clone(),
    })
}

pub(super) fn answer_show(
    control: &Control,
    request: &ServiceRequest,
) -> Result<ServiceShowReply, ApiError> {
    let (look, network) = control.network_look(request.network.as_deref())?;
    let services = &look.status.services;
    match services.iter().find(|service| service.name == request.name) {
        Some(service) => Ok(ServiceShowReply {
            service: service.clone(),
        }),
        None => {
            let known = services.iter().map(|service| service.name.as_str());
            Err(ApiError::no_such_name(
                "service",
                &request.name,
                &network.name,
                known,
            ))
        }
    }
}

/// Where a program listens: an address of this host, by number or by name.
async fn target(
    text: &str,
    protocol: Protocol,
    asker: api::Caller,
) -> Result<SocketAddr, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!("{text:?} is no target"))
            .remedy("give HOST:PORT, such as 127.0.0.1:8080")
    };
    let is_host_and_port = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let found = tokio::net::lookup_host(text).await.map_err(|unknown| {
        if is_host_and_port {
            ApiError::bad_request(format!("the target {text} has no address here: {unknown}"))
                .remedy("give an address of this machine, such as 127.0.0.1:8080")
        } else {
            wrong()
        }
    })?;
    let target = best(&found.collect::<Vec<_>>(), protocol)
        .await
        .filter(|target| target.port() != 0)
        .ok_or_else(wrong)?;
    if target.port() < FIRST_FREE_PORT && asker != api::Caller::Root {
        return Err(ApiError::could_not(
            api::Code::NeedsRoot,
            format!("a target's port below {FIRST_FREE_PORT} needs root"),
        )
        .remedy("sudo webmesh service add …"));
    }
    Ok(target)
}

/// Of the addresses that a name means, the first at which a program of this host answers; else the first of IPv4, where
/// most programs listen that will be started later.
async fn best(found: &[SocketAddr], protocol: Protocol) -> Option<SocketAddr> {
    if found.len() > 1 && protocol == Protocol::Tcp {
        let here = |target: &&SocketAddr| target.ip().is_loopback() || is_own(target.ip());
        for target in found.iter().filter(here) {
            let tried = tokio::time::timeout(TRY_FOR, TcpStream::connect(target)).await;
            if tried.is_ok_and(|connected| connected.is_ok()) {
                return Some(*target);
            }
        }
    }
    let first4 = found.iter().find(|target| target.is_ipv4());
    first4.or(found.first()).copied()
}

fn add(
    agent: &mut Agent,
    request: ServiceAddRequest,
    target: Option<SocketAddr>,
) -> Result<Added, ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let transport = match request.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    if let Some(target) = target {
        judge_target(network, transport, target)?;
    }
    if let Some(file) = defining::file_of(&network.node, &request.name) {
        return Err(ApiError::defined_in(&request.name, file));
    }
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), request.port);
    if target.is_none() && network.is_own_socket(transport, own) {
        return Err(ApiError::bad_request(format!(
            "port {} is the agent's own: it serves no program",
            request.port
        ))
        .remedy("name the port of a program, or give --target"));
    }
    let wish = ServiceWish {
        name: request.name,
        instance: request.instance,
        transport,
        port: request.port,
        target,
        tags: request.tags,
        weight: request.weight.unwrap_or(api::USUAL_WEIGHT),
        defined_in: None,
    };
    let earlier = network.node.own_services().to_vec();
    let service = network.node.service_add(now, wish).map_err(refusal)?;
    let was = was(&earlier, &service);
    tracing::info!(
        name = service.name,
        port = service.port,
        "Service is published"
    );
    let _rest_next_turn = network.drain();
    if let Some(why) = &network.facts.unsaved {
        return Err(ApiError::internal(format!(
            "the service cannot be stored: {why}"
        )));
    }
    let status = network.node.status(now);
    let (name, peer) = (&service.name, &status.own.name);
    let mut warnings = Vec::new();
    let domain_name = if network.node.may_offer(name) {
        format!("{name}.svc.{}", status.domain)
    } else {
        warnings.push(ApiError::may_not_offer(peer, name, &status.domain));
        format!("{name}.{peer}.{}", status.domain)
    };
    if status.peers.iter().any(|peer| peer.name == *name) || *peer == *name {
        warnings.push(
            ApiError::warning(
                api::Code::NameTaken,
                format!("a peer is called {name} too: the bare name means the peer"),
            )
            .remedy(format!("ask for {domain_name}")),
        );
    }
    let peer = status.own.name;
    agent.publish();
    Ok(Added {
        service,
        domain_name,
        peer,
        was,
        warnings,
    })
}

/// What a service was before, if others found it elsewhere.
fn was(earlier: &[Published], now: &Published) -> Option<String> {
    let is_same = |old: &&Published| old.name == now.name && old.instance == now.instance;
    let place = |of: &Published| (of.transport, of.port, of.target);
    let old = earlier.iter().find(is_same)?;
    if place(old) == place(now) {
        return None;
    }
    let protocol = match old.transport {
        Transport::Tcp => "",
        Transport::Udp => "/udp",
    };
    let target = old.target.map(|target| format!(" → {target}"));
    Some(format!(
        ":{}{protocol}{}",
        old.port,
        target.unwrap_or_default()
    ))
}

/// By API only this host itself is a target, and nothing of the agent's own (design §10).
fn judge_target(
    network: &Network,
    transport: Transport,
    target: SocketAddr,
) -> Result<(), ApiError> {
    let refuse = |why: &str| {
        Err(ApiError::bad_request(format!(
            "{target} cannot be a target: {why}"
        )))
    };
    let ip = target.ip();
    if is_link_local(ip) {
        return refuse("link-local addresses serve the link alone");
    }
    if network.is_own_socket(transport, target) {
        return refuse("the agent itself listens there");
    }
    if network.is_mesh(ip) {
        return refuse("it lies in the mesh. Leave --target out for a program that listens there");
    }
    if ip.is_loopback() || is_own(ip) {
        return Ok(());
    }
    refuse("it is not an address of this machine")
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether an interface of this host has the address.
fn is_own(ip: IpAddr) -> bool {
    let addresses = crate::platform::link::Links::open().and_then(|mut links| links.addresses());
    addresses.is_ok_and(|addresses| addresses.iter().any(|address| address.net.addr() == ip))
}

fn refusal(refused: ServiceRefused) -> ApiError {
    match refused {
        ServiceRefused::Name(name) => ApiError::bad_name("service", &name),
        ServiceRefused::InstanceName(name) => ApiError::bad_name("instance", &name),
        ServiceRefused::PortTaken { port, service } => ApiError::port_taken(port, &service),
        ServiceRefused::TooMany => ApiError::could_not(api::Code::BadRequest, refused.to_string())
            .remedy("sudo webmesh service rm NAME"),
        ServiceRefused::NoWeight => ApiError::bad_request(refused.to_string())
            .remedy("to publish it no more: sudo webmesh service rm NAME"),
        ServiceRefused::TooLong(_) => ApiError::bad_request(refused.to_string()),
    }
}

fn remove(agent: &mut Agent, name: &str) -> Result<(), ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    if let Some(file) = defining::file_of(&network.node, name) {
        return Err(ApiError::defined_in(name, file));
    }
    if network.node.service_remove(now, name) {
        tracing::info!(name, "Service is withdrawn");
        let _rest_next_turn = network.drain();
        let unsaved = network.facts.unsaved.clone();
        agent.publish();
        return match unsaved {
            None => Ok(()),
            Some(why) => Err(ApiError::internal(format!(
                "{name} is gone until the agent stops, which cannot be stored: {why}"
            ))),
        };
    }
    let status = network.node.status(now);
    let mut known = network
        .node
        .own_services()
        .iter()
        .map(|service| service.name.as_str());
    Err(ApiError::no_such_name(
        "service of this machine",
        name,
        &status.name,
        known.by_ref(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(port: u16) -> Published {
        Published {
            name: "web".into(),
            instance: "anna".into(),
            transport: Transport::Tcp,
            port,
            target: None,
            splice_port: None,
            tags: Vec::new(),
            weight: 100,
            defined_in: None,
        }
    }

    #[test]
    fn a_service_that_moved_says_where_it_was() {
        let spliced = Published {
            target: Some("127.0.0.1:8080".parse().unwrap()),
            ..web(80)
        };
        assert_eq!(was(&[web(80)], &web(81)).unwrap(), ":80");
        assert_eq!(was(&[spliced], &web(80)).unwrap(), ":80 → 127.0.0.1:8080");
        assert_eq!(was(&[], &web(80)), None);
        let tagged = Published {
            tags: vec!["v2".into()],
            ..web(80)
        };
        assert_eq!(was(&[web(80)], &tagged), None);
    }

    #[tokio::test]
    async fn of_the_addresses_of_a_name_the_one_that_answers_is_the_target() {
        let program = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let four = program.local_addr().unwrap();
        let six: SocketAddr = format!("[::1]:{}", four.port()).parse().unwrap();
        assert_eq!(best(&[six, four], Protocol::Tcp).await, Some(four));
        assert_eq!(best(&[six, four], Protocol::Udp).await, Some(four));
        assert_eq!(best(&[six], Protocol::Tcp).await, Some(six));
        assert_eq!(best(&[], Protocol::Tcp).await, None);
    }

    #[tokio::test]
    async fn a_program_that_listens_on_ipv6_alone_is_found_too() {
        let Ok(program) = tokio::net::TcpListener::bind("[::1]:0").await else {
            return;
        };
        let six = program.local_addr().unwrap();
        let four = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), six.port());
        assert_eq!(best(&[four, six], Protocol::Tcp).await, Some(six));
    }
}
