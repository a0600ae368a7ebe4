//! The agent knocks at its own door (design §10): does this host serve a service's port, refuse it, or drop it?

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{agent::Agent, calls::Caller, network::DoorAnswer};
use crate::{
    api::{ApiError, Door, DoorVerdict, words::as_milliseconds},
    datapath::command::DoorVerdict as Said,
    platform::{
        firewall,
        sock_diag::{self, Listening, Port},
    },
    services::Published,
    tables::Transport,
};

/// Silence longer than this counts as dropped (design §10): an answer of the same host takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(300);

/// What came of knocking at a service's port, and at its target where it has one.
///
/// # Errors
/// The network went down meanwhile.
pub(super) async fn probe(caller: &Caller, service: &Published) -> Result<Door, ApiError> {
    let side = caller
        .ask(|agent: &mut Agent| Ok(agent.network()?.side.clone()))
        .await?;
    let own = side.addresses();
    let found = match (service.transport, service.target) {
        (Transport::Udp, target) => bound(&own, target, service.port),
        (Transport::Tcp, Some(target)) => {
            // The splice's listener is bound a moment after the service is added, by the same loop.
            let listen_port = service.splice_port.unwrap_or(service.port);
            let at_splice = knock(caller, listen_port).await?;
            through_splice(at_splice, listen_port, target).await
        }
        (Transport::Tcp, None) => {
            let answer = knock(caller, service.port).await?;
            direct(answer, service.port, &own)
        }
    };
    let is_dropped = found.verdict == DoorVerdict::Dropped;
    let firewall = is_dropped.then(firewall::program).flatten();
    Ok(Door {
        verdict: found.verdict,
        port: found.port,
        took_ms: found.took_ms,
        firewall: firewall.map(|program| program.name().to_owned()),
        device: side.device,
    })
}

/// What a knock found.
#[derive(Clone, Copy, Debug)]
struct Found {
    verdict: DoorVerdict,
    port: u16,
    took_ms: Option<f64>,
}

async fn knock(caller: &Caller, port: u16) -> Result<Option<DoorAnswer>, ApiError> {
    let ask = move |agent: &mut Agent| Ok(agent.network()?.probe_door(port));
    let answer: oneshot::Receiver<DoorAnswer> = caller.ask(ask).await?;
    Ok(timeout(PATIENCE, answer).await.ok().and_then(Result::ok))
}

fn found(verdict: DoorVerdict, port: u16, answer: Option<DoorAnswer>) -> Found {
    let took_ms = answer.map(|answer| as_milliseconds(Duration::from_micros(answer.took_us)));
    Found {
        took_ms: took_ms.filter(|_| verdict == DoorVerdict::Accepted),
        verdict,
        port,
    }
}

/// Without a target the program itself is to answer at the mesh address.
fn direct(answer: Option<DoorAnswer>, port: u16, own: &[IpAddr]) -> Found {
    let verdict = match answer.map(|answer| answer.verdict) {
        Some(Said::Accepted) => DoorVerdict::Accepted,
        Some(Said::Refused) => match sock_diag::listening(Port::Tcp(port), own) {
            Ok(Listening::LoopbackOnly(_)) => DoorVerdict::LoopbackOnly,
            Ok(Listening::Nobody | Listening::Elsewhere(_) | Listening::Here) | Err(_) => {
                DoorVerdict::Closed
            }
        },
        None => DoorVerdict::Dropped,
    };
    found(verdict, port, answer)
}

/// With a target the way is open when the splice answers the SYN and the target accepts.
async fn through_splice(answer: Option<DoorAnswer>, listen_port: u16, target: SocketAddr) -> Found {
    match answer.map(|answer| answer.verdict) {
        Some(Said::Accepted) => {}
        Some(Said::Refused) => return found(DoorVerdict::Closed, listen_port, None),
        None => return found(DoorVerdict::Dropped, listen_port, None),
    }
    match timeout(PATIENCE, TcpStream::connect(target)).await {
        Ok(Ok(_)) => found(DoorVerdict::Accepted, target.port(), answer),
        Ok(Err(_)) | Err(_) => found(DoorVerdict::Closed, target.port(), None),
    }
}

/// UDP answers nobody; what can be known is whether something is bound.
fn bound(own: &[IpAddr], target: Option<SocketAddr>, port: u16) -> Found {
    let (port, own): (u16, Vec<IpAddr>) = match target {
        Some(target) => (target.port(), vec![target.ip()]),
        None => (port, own.to_vec()),
    };
    let verdict = match sock_diag::listening(Port::Udp(port), &own) {
        Ok(Listening::Here) => DoorVerdict::Bound,
        Ok(Listening::LoopbackOnly(_)) => DoorVerdict::LoopbackOnly,
        Ok(Listening::Nobody | Listening::Elsewhere(_)) => DoorVerdict::Closed,
        Err(_) => DoorVerdict::Unprobed,
    };
    found(verdict, port, None)
}
