//! `webmesh wait`: until something is so.

use std::time::Duration;

use axum::response::Response;
use tokio::time::Instant;

use super::{Control, last_line, lines, nowhere, talk_line};
use crate::{
    api::{ApiError, InstanceState, PeerState, State, WaitReply, WaitRequest, words},
    daemon::event_loop::Look,
};

/// The longest wait; more is a mistake in a unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn answer(control: &Control, request: WaitRequest) -> Result<Response, ApiError> {
    let span = Duration::try_from_secs_f64(request.timeout_s)
        .map_err(|_negative| ApiError::bad_request("a timeout is a number of seconds"))?;
    let control = control.clone();
    Ok(lines(|out| async move {
        if let Some(doubt) = doubt(&control.look(), &request) {
            let _client_gone = out.send(talk_line(&doubt)).await;
        }
        let outcome = wait(control, &request, span.min(LONGEST)).await;
        let _client_gone = out.send(last_line(outcome)).await;
    }))
}

async fn wait(
    mut control: Control,
    request: &WaitRequest,
    span: Duration,
) -> Result<WaitReply, ApiError> {
    let started = Instant::now();
    let so = async {
        loop {
            let prospect = prospect(&control.look.borrow_and_update(), request);
            match prospect {
                Prospect::So => return Ok(()),
                Prospect::Never(why) => return Err(why),
                Prospect::NotYet => {}
            }
            if control.look.changed().await.is_err() {
                return Err(ApiError::internal("the agent stops"));
            }
        }
    };
    match tokio::time::timeout(span, so).await {
        Ok(Ok(())) => Ok(WaitReply {
            took_ms: words::as_milliseconds(started.elapsed()),
        }),
        Ok(Err(why)) => Err(why),
        Err(_elapsed) => Err(ApiError::timed_out(
            &what_is_missing(request),
            request.timeout_s,
        )),
    }
}

/// Nobody is called so yet. Machines may join, so that it is waited for all the same, but a typo should not cost the whole
/// span.
fn doubt(look: &Look, request: &WaitRequest) -> Option<String> {
    let network = look.status.network.as_ref()?;
    if !matches!(prospect(look, request), Prospect::NotYet) {
        return None;
    }
    let (what, name, known): (_, _, Vec<&str>) = match (&request.peer, &request.service) {
        (Some(peer), _) => {
            let peers = look.status.peers.iter();
            ("peer", peer, peers.map(|peer| peer.name.as_str()).collect())
        }
        (None, Some(service)) => {
            let services = look.status.services.iter();
            let names = services.map(|service| service.name.as_str());
            ("service", service, names.collect())
        }
        (None, None) => return None,
    };
    (!known.contains(&name.as_str())).then(|| {
        let error = ApiError::no_such_name(what, name, &network.name, known);
        format!("{}: waiting for it", error.line())
    })
}

/// What can be said of a wish by one look.
enum Prospect {
    So,
    NotYet,
    /// Nothing but a command can bring it about.
    Never(ApiError),
}

fn prospect(look: &Look, request: &WaitRequest) -> Prospect {
    let never = |error: ApiError| Prospect::Never(ApiError { exit: 1, ..error });
    match (look.status.state, &look.status.network) {
        (State::None, _) if look.is_joining => Prospect::NotYet,
        (State::None, _) => never(nowhere(look)),
        (State::Down, Some(network)) => never(ApiError::network_down(&network.name)),
        (State::Up | State::Down, _) if is_so(look, request) => Prospect::So,
        (State::Up | State::Down, _) => Prospect::NotYet,
    }
}

fn is_so(look: &Look, request: &WaitRequest) -> bool {
    let status = &look.status;
    if let Some(wanted) = &request.network
        && status
            .network
            .as_ref()
            .is_none_or(|network| network.name != *wanted)
    {
        return false;
    }
    let peer = request.peer.as_ref().map(|name| {
        let mut up = status
            .peers
            .iter()
            .filter(|peer| peer.state == PeerState::Up);
        up.any(|peer| peer.name == *name)
    });
    let service = request.service.as_ref().map(|name| {
        let mut it = status
            .services
            .iter()
            .filter(|service| service.name == *name);
        it.any(|service| {
            service
                .instances
                .iter()
                .any(|instance| instance.state == InstanceState::Up)
        })
    });
    match (peer, service) {
        (None, None) => look.is_settled,
        (peer, service) => peer.unwrap_or(true) && service.unwrap_or(true),
    }
}

fn what_is_missing(request: &WaitRequest) -> String {
    match (&request.peer, &request.service) {
        (Some(peer), _) => format!("no session with {peer}"),
        (None, Some(service)) => format!("no instance of {service}"),
        (None, None) => "this machine is not in sync with its network".to_owned(),
    }
}
