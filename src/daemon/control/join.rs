//! `webmesh join`: checks the token here, then watches [`crate::daemon::joining`] and the first round with the issuer.

use std::time::Duration;

use axum::response::Response;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{Control, last_line, lines, talk_line};
use crate::{
    api::{ApiError, Code, JoinReply, JoinRequest},
    daemon::{
        agent::{Agent, Place},
        joining::{Asker, Beginning, Joined, Joining},
        starting,
    },
    keys::{Token, TokenRefused},
    members::label,
    node::joiner::Wish,
    platform::{credentials, tun},
};

/// How long `join` waits for the first Digest round with the issuer (protocol §9).
const ROUND: Duration = Duration::from_secs(2);

/// How often it looks whether that round is through.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn answer(control: &Control, request: JoinRequest) -> Result<Response, ApiError> {
    let token: Token = request.token.trim().parse().map_err(refused_token)?;
    let wish = wish(request.name.as_deref(), request.host_name.clone())?;
    let started = Instant::now();
    let issuer = token.name.clone();
    let (talk, heard) = mpsc::channel(8);
    let (outcome, decided) = oneshot::channel();
    let asker = Asker { talk, outcome };
    let begin = move |agent: &mut Agent| begin(agent, token, wish, asker);
    control.caller.ask(begin).await?;
    let control = control.clone();
    Ok(lines(move |out| async move {
        let joined = follow(&control, heard, decided, &out).await;
        let reply = match joined {
            Ok(joined) => finish(&control, joined, &issuer, started).await,
            Err(error) => Err(error),
        };
        let _client_gone = out.send(last_line(reply)).await;
    }))
}

fn refused_token(refused: TokenRefused) -> ApiError {
    match refused {
        TokenRefused::NotAToken | TokenRefused::CutOrMistyped => ApiError::cut_token(),
        TokenRefused::UnknownVersion => ApiError::could_not(Code::BadToken, refused.to_string()),
    }
}

/// The name given by the person, and no other; else the host's, made fit.
fn wish(name: Option<&str>, host_name: Option<String>) -> Result<Wish, ApiError> {
    match name {
        Some(name) => match label::parse_peer(name) {
            Ok(_) => Ok(Wish {
                name: name.to_owned(),
                exact: true,
            }),
            Err(_refused) => Err(ApiError::bad_name("peer", name)),
        },
        None => Ok(Wish {
            name: label::from_host_name(&host_name.unwrap_or_else(credentials::hostname)),
            exact: false,
        }),
    }
}

fn begin(agent: &mut Agent, token: Token, wish: Wish, asker: Asker) -> Result<(), ApiError> {
    agent.must_be_idle()?;
    let could_not = |error: anyhow::Error| {
        ApiError::could_not(Code::Internal, format!("cannot join: {error:#}"))
    };
    // Before the first datagram: an invite is not spent on a machine that can have no device.
    tun::try_out(agent.config.tun.name.as_str()).map_err(|error| could_not(error.into()))?;
    let folder = agent
        .state_dir
        .join(token.secret.join_id(), Agent::draw_seeds())
        .map_err(could_not)?;
    let ground = starting::break_ground(&agent.config, &mut agent.supervisor).map_err(could_not)?;
    agent.place = Place::Joining(Box::new(Joining::begin(Beginning {
        ground,
        folder,
        token,
        wish,
        asker,
    })));
    Ok(())
}

/// Passes talk on until it is decided, or until whoever asked is gone: then the attempt ends with him, so that the next
/// `join` finds nothing in its way.
async fn follow(
    control: &Control,
    mut heard: mpsc::Receiver<String>,
    mut decided: oneshot::Receiver<Result<Joined, ApiError>>,
    out: &mpsc::Sender<String>,
) -> Result<Joined, ApiError> {
    loop {
        tokio::select! {
            biased;
            Some(line) = heard.recv() => {
                let _client_gone = out.send(talk_line(line)).await;
            }
            outcome = &mut decided => {
                return outcome.unwrap_or_else(|_dropped| Err(ApiError::internal("the agent stops")));
            }
            () = out.closed() => {
                drop(decided);
                let look_at_it = |_: &mut Agent| Ok(());
                return match control.caller.ask(look_at_it).await {
                    Ok(()) => Err(ApiError::internal("nobody waits for this join any more")),
                    Err(stopping) => Err(stopping),
                };
            }
        }
    }
}

async fn finish(
    control: &Control,
    joined: Joined,
    name: &str,
    started: Instant,
) -> Result<JoinReply, ApiError> {
    let _late_is_no_error = timeout(ROUND, in_sync(control, joined)).await;
    let publish = |agent: &mut Agent| {
        agent.publish();
        Ok(())
    };
    control.caller.ask(publish).await?;
    let (look, network) = control.network_look(None)?;
    let status = &look.status;
    Ok(JoinReply {
        network,
        own: status.own.clone().ok_or_else(ApiError::no_network)?,
        issuer: name.to_owned(),
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        peers: u32::try_from(status.peers.len()).unwrap_or(u32::MAX),
        services: status.services.clone(),
        dns: status.dns.clone(),
    })
}

/// Waits for a round with the issuer, or with the member that introduced this machine to it.
async fn in_sync(control: &Control, joined: Joined) {
    let is_so = move |agent: &mut Agent| {
        let node = &agent.network()?.node;
        let introducer = joined.introducer;
        let is_in_sync = introducer.is_some_and(|by| node.is_in_sync_with(by));
        Ok(is_in_sync || node.is_in_sync_with(joined.issuer))
    };
    while let Ok(false) = control.caller.ask(is_so).await {
        tokio::time::sleep(LOOK).await;
    }
}
