//! Whether the network's IPv4 comes through on this host (design §3): the agent asks its own resolver, as any program of
//! the host would, and sees whether the answer arrives.
//!
//! A rival's rule may drop what comes from 100.64.0.0/10 by any other interface than its own. Names would then resolve to
//! addresses that nobody answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    mesh_socket::{MeshSide, Udp},
    tasks::{self, Task},
};
use crate::{
    platform::{firewall, link, monitor::Monitor},
    tables::Own,
};

/// Why something is not as it should be, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) cause: String,
    pub(super) remedy: Option<String>,
}

/// How long an answer of this same machine may take; usually it is there in a millisecond.
const PATIENCE: Duration = Duration::from_millis(300);

/// Silences in a row that count.
const ROUNDS: usize = 2;

/// How long rules are let settle after one was changed: a firewall sets them by the dozen.
const SETTLE: Duration = Duration::from_millis(300);

/// How often it is tried without any sign of a change: rules of the older iptables give none.
const AGAIN: Duration = Duration::from_secs(600);

/// The same while nothing comes through, or nothing can be said.
const AGAIN_BLOCKED: Duration = Duration::from_secs(60);

/// A question for the servers of the root, which our resolver refuses: the shortest that is answered.
const QUESTION: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// The port of the resolver.
const DNS: u16 = 53;

/// A task that tries, and what it found last.
#[derive(Debug)]
pub(super) struct Ipv4Watch {
    found: watch::Receiver<Option<Trouble>>,
    look: Arc<Notify>,
    _task: Option<Task>,
}

impl Ipv4Watch {
    /// Tries now, after each change of nf_tables, when told, and every few minutes. Without an IPv4 address there is
    /// nothing to try.
    pub(super) fn start(side: &MeshSide, own: &Own) -> Self {
        let (tell, found) = watch::channel(None);
        let look = Arc::new(Notify::new());
        let probe = side.v4.map(|_| Probe {
            side: side.clone(),
            resolver4: (own.resolver4, DNS).into(),
            resolver6: (own.resolver6, DNS).into(),
            pool4: own.pool4,
        });
        let task = probe.map(|probe| tasks::spawn("ipv4-watch", watch(probe, tell, look.clone())));
        Self {
            found,
            look,
            _task: task,
        }
    }

    /// Something changed: tries again soon.
    pub(super) fn look_again(&self) {
        self.look.notify_one();
    }

    /// What was found since this was asked last, if it is new: why IPv4 does not come through, or that it does.
    pub(super) fn news(&mut self) -> Option<Option<Trouble>> {
        let is_new = self.found.has_changed().unwrap_or(false);
        is_new.then(|| self.found.borrow_and_update().clone())
    }
}

/// What one round said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// IPv4 was answered.
    Through,
    /// IPv6 was, IPv4 was not.
    OnlyV6,
    /// Neither was: this says nothing about IPv4.
    Silence,
}

#[derive(Debug)]
struct Probe {
    side: MeshSide,
    resolver4: SocketAddr,
    resolver6: SocketAddr,
    pool4: Ipv4Net,
}

async fn watch(probe: Probe, tell: watch::Sender<Option<Trouble>>, look: Arc<Notify>) {
    let mut rules = Monitor::firewall().ok();
    loop {
        let is_through = probe.is_through().await;
        if let Some(is_through) = is_through {
            tell.send_if_modified(|found| {
                let is_news = found.is_none() != is_through;
                if is_news {
                    *found = (!is_through).then(|| trouble(probe.pool4, &probe.side.device));
                }
                is_news
            });
        }
        let again = match is_through {
            Some(true) => AGAIN,
            Some(false) | None => AGAIN_BLOCKED,
        };
        tokio::select! {
            () = look.notified() => {}
            () = changed(&mut rules) => {}
            () = sleep(again) => {}
        }
        sleep(SETTLE).await;
    }
}

async fn changed(rules: &mut Option<Monitor>) {
    let outcome = match rules {
        Some(monitor) => monitor.changed().await,
        None => std::future::pending().await,
    };
    if outcome.is_err() {
        *rules = None;
    }
}

impl Probe {
    /// None: nothing can be said.
    async fn is_through(&self) -> Option<bool> {
        for _ in 0..ROUNDS {
            match self.round().await {
                Round::Through => return Some(true),
                Round::OnlyV6 => {}
                Round::Silence => return None,
            }
        }
        Some(false)
    }

    /// Both families are asked at the same time, IPv4 first: a machine that is too busy to answer is so for both.
    async fn round(&self) -> Round {
        let by = Instant::now() + PATIENCE;
        let four = self.ask(self.resolver4).await;
        let six = self.ask(self.resolver6).await;
        if is_answered(four, by).await {
            return Round::Through;
        }
        // Its answer has had the same time, and waits.
        if is_answered(six, by).await {
            Round::OnlyV6
        } else {
            Round::Silence
        }
    }

    async fn ask(&self, resolver: SocketAddr) -> Option<Udp> {
        let socket = self.side.connect_udp(resolver).ok()?;
        socket.send(QUESTION).await.ok()?;
        Some(socket)
    }
}

async fn is_answered(socket: Option<Udp>, by: Instant) -> bool {
    let Some(socket) = socket else {
        return false;
    };
    let received = timeout_at(by, socket.recv(&mut [0; 512])).await;
    matches!(received, Ok(Ok(_)))
}

/// Names the cause as far as it can be seen.
fn trouble(pool4: Ipv4Net, device: &str) -> Trouble {
    if let Some(rule) = firewall::culprit(pool4) {
        let whose = if rule.chain.starts_with("ts-") {
            " (Tailscale's)"
        } else {
            ""
        };
        let firewall::Culprit {
            family,
            table,
            chain,
            source,
        } = rule;
        return Trouble {
            cause: format!(
                "a firewall rule{whose} in chain {chain} of table {family} {table} drops what comes from {source}"
            ),
            remedy: Some(format!(
                "sudo nft insert rule {family} {table} {chain} iifname {device} ip saddr {pool4} {}",
                if whose.is_empty() { "accept" } else { "return" }
            )),
        };
    }
    let whose = if is_there("tailscale0") {
        " (Tailscale's?)"
    } else {
        ""
    };
    Trouble {
        cause: format!("a firewall rule of this host{whose} drops what comes from {pool4}"),
        remedy: Some(format!("let {pool4} in on {device}")),
    }
}

fn is_there(link: &str) -> bool {
    let links = link::Links::open().and_then(|mut links| links.list());
    links.is_ok_and(|links| links.iter().any(|one| one.name == link))
}

/// Why this host cannot use the pool at all: a route past `device` lies in it (design §3).
pub(super) fn route_conflict(pool4: Ipv4Net, device: &str) -> Option<Trouble> {
    let mut links = link::Links::open().ok()?;
    let own = links.list().ok()?;
    let own = own.iter().find(|link| link.name == device);
    let own = own.map(|link| link.index);
    let overlaps = |route: &link::Route| match route.to {
        ipnet::IpNet::V4(to) => {
            to.prefix_len() != 0
                && (pool4.contains(&to.network()) || to.contains(&pool4.network()))
                && (own.is_none() || route.link != own)
        }
        ipnet::IpNet::V6(_) => false,
    };
    let route = links.routes().ok()?.into_iter().find(overlaps)?;
    Some(Trouble {
        cause: format!("a route of this host to {} overlaps {pool4}", route.to),
        remedy: None,
    })
}
