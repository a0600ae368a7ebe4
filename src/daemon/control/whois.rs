//! `webmesh whois`: whose an address or a name is.

use super::Control;
use crate::{
    api::{ApiError, Role, WhoisKind, WhoisReply, WhoisRequest},
    daemon::agent::Agent,
    node::status::{Snapshot, Whois},
    platform::clock,
};

pub(super) async fn answer(
    control: &Control,
    request: WhoisRequest,
) -> Result<WhoisReply, ApiError> {
    control.network_look(request.network.as_deref())?;
    control
        .caller
        .ask(move |agent| whois(agent, &request.what))
        .await
}

fn whois(agent: &mut Agent, what: &str) -> Result<WhoisReply, ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let status = network.node.status(now);
    match network.node.whois(now, what) {
        Some(found) => Ok(reply(found, &status)),
        None => {
            if let Ok(address) = what.parse() {
                return Err(ApiError::foreign_address(address, &status.name));
            }
            let known = network.node.known_names(now);
            let known = known.iter().map(String::as_str);
            Err(ApiError::no_such_name(
                "peer or service",
                what,
                &status.name,
                known,
            ))
        }
    }
}

fn reply(found: Whois, status: &Snapshot) -> WhoisReply {
    let mut reply = WhoisReply {
        kind: WhoisKind::Resolver,
        name: status.domain.clone(),
        network: status.name.clone(),
        role: None,
        since: None,
        addresses: Vec::new(),
        served_by: Vec::new(),
    };
    match found {
        Whois::Resolver => {
            reply.addresses = vec![
                status.resolvers.0.to_string(),
                status.resolvers.1.to_string(),
            ];
        }
        Whois::Service { name, peers } => {
            reply.kind = WhoisKind::Service;
            reply.name = name;
            reply.served_by = peers;
        }
        Whois::Peer {
            node,
            name,
            role,
            since,
        } => {
            reply.kind = WhoisKind::Peer;
            reply.name = name;
            reply.since = Some(since);
            reply.role = Some(match role {
                "admin" => Role::Admin,
                "leaf" => Role::Leaf,
                _ => Role::Member,
            });
            let peer = status.peers.iter().find(|peer| peer.id == node);
            let (v4, v6) = peer.map_or((status.own.ipv4, status.own.ipv6), |peer| {
                (peer.ipv4, peer.ipv6)
            });
            reply.addresses = v4
                .map(|v4| v4.to_string())
                .into_iter()
                .chain([v6.to_string()])
                .collect();
        }
    }
    reply
}
