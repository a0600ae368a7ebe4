//! `webmesh peers`: all of them, or more of one.

use std::net::IpAddr;

use super::Control;
use crate::{
    api::{self, ApiError, PeersReply, PeersRequest},
    daemon::view::Published,
};

pub(super) fn answer(control: &Control, request: &PeersRequest) -> Result<PeersReply, ApiError> {
    let (look, network) = control.network_look(request.network.as_deref())?;
    let Some(wanted) = &request.peer else {
        return Ok(PeersReply {
            peers: look.status.peers.clone(),
            details: None,
        });
    };
    let domain = format!(".{}", network.domain);
    let bare = wanted.strip_suffix(&domain).unwrap_or(wanted);
    let address: Option<IpAddr> = wanted.parse().ok();
    let has = |ipv4: &Option<String>, ipv6: &str| {
        address.is_some_and(|address| {
            let mut own = ipv4.iter().map(String::as_str).chain([ipv6]);
            own.any(|own| own.parse() == Ok(address))
        })
    };
    let is_it = |peer: &&api::Peer| {
        peer.name == bare
            || (wanted.len() >= 8 && peer.id.starts_with(wanted.as_str()))
            || has(&peer.ipv4, &peer.ipv6)
    };
    if let Some(peer) = look.status.peers.iter().find(is_it) {
        return Ok(PeersReply {
            peers: vec![peer.clone()],
            details: look.peers.get(&peer.name).cloned(),
        });
    }
    let own = look
        .status
        .own
        .as_ref()
        .filter(|own| own.name == bare || own.id == *wanted || has(&own.ipv4, &own.ipv6));
    if let Some(own) = own {
        return Ok(myself(own, &look, &network));
    }
    if let Some(address) = address {
        return Err(ApiError::foreign_address(address, &network.name));
    }
    let names = look.status.peers.iter().map(|peer| peer.name.as_str());
    Err(ApiError::no_such_name("peer", wanted, &network.name, names))
}

/// This machine is a peer too, and needs no path to itself.
fn myself(own: &api::Own, look: &Published, network: &api::Network) -> PeersReply {
    let status = &look.status;
    let serves = |service: &&api::Service| {
        service
            .instances
            .iter()
            .any(|instance| instance.peer == own.name)
    };
    PeersReply {
        peers: vec![api::Peer {
            id: own.id.clone(),
            name: own.name.clone(),
            ipv4: own.ipv4.clone(),
            ipv6: own.ipv6.clone(),
            state: api::PeerState::Up,
            path: None,
            rtt_ms: None,
            tx_bytes: 0,
            rx_bytes: 0,
            last_handshake_s: None,
            last_heard_s: None,
            transport: None,
        }],
        details: Some(api::PeerDetails {
            domain_name: format!("{}.{}", own.name, network.domain),
            role: own.role,
            groups: Vec::new(),
            admitted_at: look.own_since,
            certificate_until: own.certificate_until,
            version: Some(status.version.clone()),
            endpoints: Vec::new(),
            services: status
                .services
                .iter()
                .filter(serves)
                .map(|service| service.name.clone())
                .collect(),
        }),
    }
}
