//! Whether the network's IPv4 comes through on this host (design §3): the agent asks its own resolver, as any program of
//! the host would, and sees whether the answer arrives.
//!
//! A rival's rule may drop what comes from 100.64.0.0/10 by any other interface than its own. Names would then resolve to
//! addresses that nobody answers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    mesh_socket::{MeshSide, Udp},
    tasks::{self, Task},
};
use crate::{
    host_dns::takeover,
    platform::{firewall, link, monitor::Monitor},
    tables::{Own, Tables},
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

/// Why this host cannot use the pool at all: a route past `device` lies in it, or it lies in one (design §3), or it asks
/// somebody there who is no peer, by its default route.
pub(super) fn conflict(tables: &Tables, device: &str) -> Option<Trouble> {
    let routes = routes_past(device)?;
    route_conflict(&routes, tables.own.pool4).or_else(|| {
        let gateways = routes.iter().filter_map(|route| route.via);
        let gateways = gateways.map(|gateway| ("gateway", gateway));
        let servers = takeover::asked(Path::new("/etc"));
        let servers = servers.into_iter().map(|server| ("DNS server", server));
        stranger_in_pool(servers.chain(gateways), tables)
    })
}

/// All tables count: what the guard would drop otherwise may be another overlay's peers, whose routes are seldom in the main
/// one.
fn routes_past(device: &str) -> Option<Vec<link::Route>> {
    let mut links = link::Links::open().ok()?;
    let own = links.list().ok()?;
    let own = own.iter().find(|link| link.name == device);
    let own = own.map(|link| link.index);
    let mut routes = links.routes_of_all_tables().ok()?;
    routes.retain(|route| own.is_none() || route.link != own);
    Some(routes)
}

fn route_conflict(routes: &[link::Route], pool4: Ipv4Net) -> Option<Trouble> {
    let overlap = routes.iter().find_map(|route| match route.to {
        IpNet::V4(to) => overlaps(to, pool4).then_some(to),
        IpNet::V6(_) => None,
    })?;
    Some(Trouble {
        cause: format!("a route of this host to {overlap} overlaps {pool4}"),
        remedy: Some(
            "IPv4 is used as soon as that route is gone; ip route show table all says whose it is"
                .to_owned(),
        ),
    })
}

/// Somebody whom this host needs would be cut off by our route and our guard, as a cloud's DNS server at 100.100.2.136 that is
/// reached like everything else. A peer of this network there is where it should be.
fn stranger_in_pool(
    mut needed: impl Iterator<Item = (&'static str, IpAddr)>,
    tables: &Tables,
) -> Option<Trouble> {
    let own = tables.own;
    let is_stranger = |address: &Ipv4Addr| {
        let is_ours = Some(*address) == own.v4 || *address == own.resolver4;
        own.pool4.contains(address) && !is_ours && !tables.peers4.contains_key(address)
    };
    let (what, address) = needed.find_map(|(what, address)| match address {
        IpAddr::V4(v4) => is_stranger(&v4).then_some((what, v4)),
        IpAddr::V6(_) => None,
    })?;
    Some(Trouble {
        cause: format!(
            "{address}, a {what} of this host, lies in the network's {}",
            own.pool4
        ),
        remedy: Some(
            "have the host use another one; IPv4 is used from the next change of its addresses or routes on, or: \
             sudo webmesh down && sudo webmesh up"
                .to_owned(),
        ),
    })
}

/// Whether one lies in the other. Everything, whole or in the two halves by which VPNs outdo a default route, is where
/// packets go that have no better way, and ours have one.
fn overlaps(to: Ipv4Net, pool4: Ipv4Net) -> bool {
    to.prefix_len() > 1 && (pool4.contains(&to.network()) || to.contains(&pool4.network()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeerIx;

    #[test]
    fn whom_the_host_needs_in_the_pool_counts_unless_it_is_a_peer_or_us() {
        let mut tables = Tables::vacant();
        tables.own.v4 = Some("100.100.7.7".parse().unwrap());
        tables.own.resolver4 = "100.100.255.53".parse().unwrap();
        tables.own.pool4 = "100.100.0.0/16".parse().unwrap();
        let peer = "100.100.3.4".parse().unwrap();
        tables.peers4.insert(peer, PeerIx(1));
        let found = |address: &str, tables: &Tables| {
            let needed = [("DNS server", address.parse().unwrap())];
            stranger_in_pool(needed.into_iter(), tables).map(|trouble| trouble.cause)
        };
        let cloud = found("100.100.2.136", &tables).unwrap();
        assert!(cloud.contains("100.100.2.136, a DNS server"), "{cloud}");
        for harmless in [
            "100.100.255.53",
            "100.100.7.7",
            "100.100.3.4",
            "192.0.2.1",
            "fd00::53",
            "127.0.0.53",
        ] {
            assert_eq!(found(harmless, &tables), None, "{harmless}");
        }
    }

    #[test]
    fn a_route_counts_inside_the_pool_and_around_it_and_a_default_route_never() {
        let overlaps = |to: &str| overlaps(to.parse().unwrap(), "100.71.0.0/16".parse().unwrap());
        for to in [
            "100.71.0.0/16",
            "100.71.9.9/32",
            "100.64.0.0/10",
            "64.0.0.0/2",
        ] {
            assert!(overlaps(to), "{to}");
        }
        for to in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "100.72.0.0/16",
            "100.100.100.100/32",
        ] {
            assert!(!overlaps(to), "{to}");
        }
    }
}
