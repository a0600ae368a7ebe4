//! `webmesh ping`: Pings inside the session, so that a firewall on the other host has no say.

use std::time::Duration;

use axum::response::Response;
use tokio::{sync::mpsc, time::timeout};

use super::{Control, last_line, lines, talk_line};
use crate::{
    api::{self, ApiError, PingReply, PingRequest, Pong},
    daemon::{agent::Agent, network::Ponged, view},
    ids::NodeId,
    node::status::Whois,
    platform::clock,
};

/// How long one answer may take (transcripts.md): an attempt to reach a peer ends after as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two Pings.
const PACE: Duration = Duration::from_secs(1);

/// Pings of one command; more is a monitor, which reads `status`.
const MOST: u32 = 1000;

pub(super) async fn answer(control: &Control, request: PingRequest) -> Result<Response, ApiError> {
    control.network_look(request.network.as_deref())?;
    let wanted = request.peer.clone();
    let (node, name) = control
        .caller
        .ask(move |agent| find(agent, &wanted))
        .await?;
    let control = control.clone();
    Ok(lines(|out| async move {
        let outcome = ping_all(&control, node, &name, request.count.clamp(1, MOST), &out).await;
        let _client_gone = out.send(last_line(outcome)).await;
    }))
}

fn find(agent: &mut Agent, wanted: &str) -> Result<(NodeId, String), ApiError> {
    let network = agent.network()?;
    let now = clock::now();
    let status = network.node.status(now);
    let found = network.node.whois(now, wanted);
    if found.is_none()
        && let Ok(address) = wanted.parse()
    {
        return Err(ApiError::foreign_address(address, &status.name));
    }
    match found {
        Some(Whois::Peer { node, .. }) if node == status.own.id => {
            Err(ApiError::bad_request(format!("{wanted} is this machine"))
                .remedy("name another peer"))
        }
        Some(Whois::Peer { node, name, .. }) => Ok((node, name)),
        Some(Whois::Service { name, .. }) => Err(ApiError::no(
            api::Code::NoSuchName,
            format!("{name} is a service, and only peers answer a ping"),
        )
        .remedy(format!("webmesh service show {name}"))),
        Some(Whois::Resolver) | None => {
            let peers = status.peers.iter().map(|peer| peer.name.as_str());
            Err(ApiError::no_such_name("peer", wanted, &status.name, peers))
        }
    }
}

async fn ping_all(
    control: &Control,
    node: NodeId,
    name: &str,
    count: u32,
    out: &mpsc::Sender<String>,
) -> Result<PingReply, ApiError> {
    let mut pongs = Vec::new();
    for sent in 0..count {
        if sent != 0 {
            tokio::time::sleep(PACE).await;
        }
        let Some(ponged) = once(control, node).await? else {
            continue;
        };
        let pong = Pong {
            rtt_ms: api::words::as_milliseconds(ponged.rtt),
            path: view::path_of(ponged.endpoint, &ponged.via),
        };
        let _client_gone = out.send(talk_line(&pong)).await;
        pongs.push(pong);
    }
    if pongs.is_empty() {
        return Err(ApiError::no_answer(name));
    }
    Ok(PingReply {
        peer: name.to_owned(),
        sent: count,
        pongs,
    })
}

/// One Ping; None: it was not answered in time.
pub(super) async fn once(control: &Control, node: NodeId) -> Result<Option<Ponged>, ApiError> {
    let (asker, mut answer) = mpsc::channel(1);
    let ask = move |agent: &mut Agent| {
        agent.network()?.ping(node, asker);
        Ok(())
    };
    control.caller.ask(ask).await?;
    Ok(timeout(PATIENCE, answer.recv()).await.ok().flatten())
}
