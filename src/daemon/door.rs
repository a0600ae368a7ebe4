//! The agent knocks at its own door (design §10): does this host serve a service's port, refuse it, or drop it?

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{agent::Agent, calls::Caller, network::Network};
use crate::{
    api::{ApiError, Door, DoorVerdict, words::as_milliseconds},
    datapath::command::{Command, DoorVerdict as Said},
    platform::{
        firewall,
        sock_diag::{self, Listening, Port},
    },
    services::{Published, SPLICE_PORTS},
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
            let splice_port = service.splice_port.unwrap_or(service.port);
            // Asked first: one that comes to listen meanwhile refused the knock as nobody does.
            let listening = sock_diag::listening(Port::Tcp(splice_port), &own);
            let at_splice = knock(caller, splice_port).await?;
            match at_splice_door(at_splice, listening.ok()) {
                Some(verdict) => found(verdict, service.port, None),
                None => at_target(at_splice, target).await,
            }
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
        let_in: let_in(service),
        took_ms: found.took_ms,
        firewall: firewall.map(|program| program.name().to_owned()),
        device: side.device,
    })
}

/// The answer to a knock at the own door.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorAnswer {
    pub(super) verdict: Said,
    pub(super) took_us: u64,
}

impl Network {
    /// Knocks at a TCP port of this host from the mesh side; silence is the asker's to notice.
    pub(super) fn probe_door(&mut self, port: u16) -> oneshot::Receiver<DoorAnswer> {
        let probe = self.draw_tag();
        let (asker, answer) = oneshot::channel();
        self.doors.insert(probe, asker);
        // By the family that comes through: the other's silence says nothing about this port.
        let through = self.facts.ipv4_blocked.is_none();
        let v4 = self.side.v4.filter(|_| through).map(IpAddr::V4);
        let address = v4.unwrap_or(IpAddr::V6(self.side.v6));
        self.data.tell(Command::ProbeDoor {
            probe,
            address,
            port,
        });
        answer
    }

    pub(super) fn answer_door(&mut self, probe: u64, answer: DoorAnswer) {
        if let Some(asker) = self.doors.remove(&probe) {
            let _asker_gone = asker.send(answer);
        }
    }
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

/// What is between the mesh and a splice; None: nothing. Its port is nobody's business: it is not the service's.
fn at_splice_door(answer: Option<DoorAnswer>, listening: Option<Listening>) -> Option<DoorVerdict> {
    match (answer.map(|answer| answer.verdict), listening) {
        (Some(Said::Accepted), _) => None,
        // A firewall that rejects answers as a host does on which nothing listens.
        (Some(Said::Refused), Some(Listening::Here)) | (None, _) => Some(DoorVerdict::Dropped),
        (
            Some(Said::Refused),
            Some(Listening::Nobody | Listening::LoopbackOnly(_) | Listening::Elsewhere(_)) | None,
        ) => Some(DoorVerdict::Closed),
    }
}

/// Behind a splice the way is open when the target accepts.
async fn at_target(answer: Option<DoorAnswer>, target: SocketAddr) -> Found {
    match timeout(PATIENCE, TcpStream::connect(target)).await {
        Ok(Ok(_)) => found(DoorVerdict::Accepted, target.port(), answer),
        Ok(Err(_)) | Err(_) => found(DoorVerdict::Closed, target.port(), None),
    }
}

/// What a firewall must let in. What comes to a service with a target is rewritten to its splice's port before it comes in.
fn let_in(service: &Published) -> [u16; 2] {
    match service.target {
        Some(_) => [*SPLICE_PORTS.start(), *SPLICE_PORTS.end()],
        None => [service.port, service.port],
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

#[cfg(test)]
mod tests {
    use super::*;

    fn published(target: Option<&str>, splice_port: Option<u16>) -> Published {
        Published {
            name: "web".to_owned(),
            instance: "anna".to_owned(),
            transport: Transport::Tcp,
            port: 80,
            target: target.map(|target| target.parse().unwrap()),
            splice_port,
            tags: Vec::new(),
            weight: crate::api::USUAL_WEIGHT,
            defined_in: None,
        }
    }

    #[test]
    fn a_firewall_is_told_of_all_ports_that_a_target_may_be_served_at() {
        let first = published(Some("127.0.0.1:8080"), Some(23_456));
        let later = published(Some("127.0.0.1:9090"), Some(20_007));
        assert_eq!(let_in(&first), let_in(&later));
        for port in [23_456, 20_007] {
            let [from, to] = let_in(&first);
            assert!((from..=to).contains(&port));
        }
        assert_eq!(let_in(&published(None, None)), [80, 80]);
    }

    #[test]
    fn a_splice_that_listens_and_refuses_is_behind_a_firewall() {
        let answer = |verdict| {
            Some(DoorAnswer {
                verdict,
                took_us: 9,
            })
        };
        let listens = Some(Listening::Here);
        for (answer, listening, expected) in [
            (answer(Said::Accepted), listens, None),
            (answer(Said::Refused), listens, Some(DoorVerdict::Dropped)),
            (
                answer(Said::Refused),
                Some(Listening::Nobody),
                Some(DoorVerdict::Closed),
            ),
            (None, listens, Some(DoorVerdict::Dropped)),
        ] {
            assert_eq!(at_splice_door(answer, listening), expected, "{answer:?}");
        }
    }
}
