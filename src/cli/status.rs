//! What `status`, `peers` and `service list|show` print. Pure: values and a width in, text out.

use super::table::{Table, fold};
use crate::api::{
    Cipher, Health, Instance, Nat, Network, Own, Path, PathKind, Peer, PeerDetails, PeersReply,
    Role, Service, State, Status, USUAL_WEIGHT,
    words::{ago, bytes, date, milliseconds, span},
};

/// What a machine in no network is told.
pub const NO_NETWORK: &str = "Webmesh runs and is in no network.  New one: sudo webmesh init NAME     Join one: sudo webmesh join TOKEN\n";

/// Seconds of silence that still count as now: a link silent longer is Pinged (design §8).
const NOW_S: f64 = 15.0;

/// The whole of `status`.
pub fn status(status: &Status, width: Option<usize>) -> String {
    let (Some(network), Some(own)) = (&status.network, &status.own) else {
        let is_damaged = status
            .health
            .iter()
            .any(|line| line.code == "state_unusable");
        let head = if is_damaged { "" } else { NO_NETWORK };
        return format!("{head}{}", health(&status.health));
    };
    let mut text = head(network, own, width);
    if let Some(last) = status.dht.met.first() {
        let when = ago(last.ago_s);
        text.push_str(&format!("dht  met {} through the DHT {when}\n", last.peer));
    }
    match status.state {
        State::None | State::Up => {
            if !status.peers.is_empty() {
                text.push_str(&peers(&status.peers, width));
            }
            if !status.services.is_empty() {
                text.push_str(&services(&status.services, width));
            }
        }
        State::Down => text.push_str(&format!(
            "{} is down here. Again: sudo webmesh up\n",
            network.name
        )),
    }
    text.push_str(&health(&status.health));
    text
}

fn head(network: &Network, own: &Own, width: Option<usize>) -> String {
    let nat = match own.nat {
        Nat::Easy | Nat::Hard => " behind NAT",
        Nat::None | Nat::Unknown => "",
    };
    let parts = [
        network.name.clone(),
        format!("{} ({})", own.name, own.role.word()),
        own.ipv4.clone().unwrap_or_else(|| own.ipv6.clone()),
        format!("UDP {}{nat}", own.port),
        format!("certificate until {}", date(own.certificate_until)),
    ];
    fold(&parts, " · ", width)
}

/// A table of peers.
pub fn peers(peers: &[Peer], width: Option<usize>) -> String {
    let with_hints = peer_table(peers, hint).render(None);
    let fits = |width| with_hints.lines().all(|line| line.chars().count() <= width);
    if width.is_none_or(fits) {
        return with_hints;
    }
    peer_table(peers, |_| None).render(width)
}

/// Where to read why a path is not direct.
fn hint(peer: &Peer) -> Option<String> {
    let path = peer.path.as_ref()?;
    (path.kind != PathKind::Direct).then(|| format!("→ webmesh why {}", peer.name))
}

fn peer_table(peers: &[Peer], hint: impl Fn(&Peer) -> Option<String>) -> Table {
    let mut table = Table::new(["PEER", "STATE", "PATH", "RTT", "RX", "TX", "LAST"], 2);
    for peer in peers {
        let carried = |amount: u64| match (amount, &peer.path) {
            (0, None) => NOTHING.to_owned(),
            _ => bytes(amount),
        };
        let cells = [
            peer.name.clone(),
            peer.state.word().to_owned(),
            peer.path.as_ref().map_or_else(|| NOTHING.to_owned(), path),
            peer.rtt_ms.map_or_else(|| NOTHING.to_owned(), milliseconds),
            carried(peer.rx_bytes),
            carried(peer.tx_bytes),
            last(peer.last_heard_s),
        ];
        table.row_of(cells.into_iter().chain(hint(peer)));
    }
    table
}

/// How packets reach a peer, in words.
pub fn path(path: &Path) -> String {
    match path.kind {
        PathKind::Direct => format!("direct {}", path.endpoint.as_deref().unwrap_or(NOTHING)),
        PathKind::Relay => match &path.via {
            Some(via) => format!("relay via {via}"),
            None => "relay (lost)".to_owned(),
        },
        PathKind::Stream => match &path.via {
            Some(via) => format!("stream via {via}"),
            None => "stream (TLS)".to_owned(),
        },
    }
}

fn last(heard_s: Option<f64>) -> String {
    match heard_s {
        None => NOTHING.to_owned(),
        Some(ago) if ago < NOW_S => "now".to_owned(),
        Some(ago) => span(
            std::time::Duration::try_from_secs_f64(ago)
                .unwrap_or_default()
                .as_secs(),
        ),
    }
}

/// A table of services.
pub fn services(services: &[Service], width: Option<usize>) -> String {
    let mut table = Table::new(["SERVICE", "UP", "ADDRESS", "WHERE"], 3);
    for service in services {
        let peers: Vec<&str> = service
            .instances
            .iter()
            .map(|instance| instance.peer.as_str())
            .collect();
        let places = if peers.is_empty() {
            NOTHING.to_owned()
        } else {
            peers.join(", ")
        };
        table.row([service.name.clone(), up(service), address(service), places]);
    }
    table.render(width)
}

/// One service, instance by instance.
pub fn service(service: &Service, width: Option<usize>) -> String {
    let mut text = format!("{}  {} up\n", address(service), up(service));
    if service.instances.is_empty() {
        return text;
    }
    for line in instances(&service.instances)
        .render(width.map(|width| width.saturating_sub(2)))
        .lines()
    {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Weight and tags stand there where one of them says something.
fn instances(instances: &[Instance]) -> Table {
    let is_usual = |instance: &Instance| {
        instance.weight == u64::from(USUAL_WEIGHT) && instance.tags.is_empty()
    };
    if instances.iter().all(is_usual) {
        let mut table = Table::new(["PEER", "STATE", "TARGET"], 2);
        for one in instances {
            table.row([place(one), one.state.word().to_owned(), target(one)]);
        }
        return table;
    }
    let mut table = Table::new(["PEER", "STATE", "WEIGHT", "TAGS", "TARGET"], 3);
    for one in instances {
        let tags = match &one.tags[..] {
            [] => NOTHING.to_owned(),
            tags => tags.join(", "),
        };
        table.row([
            place(one),
            one.state.word().to_owned(),
            one.weight.to_string(),
            tags,
            target(one),
        ]);
    }
    table
}

fn place(instance: &Instance) -> String {
    if instance.instance == instance.peer {
        instance.peer.clone()
    } else {
        format!("{} ({})", instance.peer, instance.instance)
    }
}

fn target(instance: &Instance) -> String {
    instance
        .target
        .clone()
        .unwrap_or_else(|| NOTHING.to_owned())
}

/// `name:port`, with `/udp` behind it where it is not TCP.
pub fn address(service: &Service) -> String {
    let protocol = match service.protocol {
        crate::api::Protocol::Tcp => "",
        crate::api::Protocol::Udp => "/udp",
    };
    format!("{}:{}{protocol}", service.domain_name, service.port)
}

fn up(service: &Service) -> String {
    format!("{} of {}", service.up, service.instances.len())
}

/// What is wrong and what to do, a line each.
pub fn health(health: &[Health]) -> String {
    let line = |health: &Health| match &health.remedy {
        Some(remedy) => format!("! {}: {remedy}\n", health.message),
        None => format!("! {}\n", health.message),
    };
    health.iter().map(line).collect()
}

/// What `peers` prints: all, or one with its details.
pub fn peers_reply(reply: &PeersReply, width: Option<usize>) -> String {
    match &reply.details {
        Some(details) => {
            let one = reply.peers.first();
            format!(
                "{}{}",
                peers(&reply.peers, width),
                peer_details(one, details)
            )
        }
        None if reply.peers.is_empty() => "no other peers yet: sudo webmesh invite\n".to_owned(),
        None => peers(&reply.peers, width),
    }
}

fn peer_details(peer: Option<&Peer>, details: &PeerDetails) -> String {
    let addresses: Vec<&str> = peer
        .iter()
        .flat_map(|peer| peer.ipv4.iter().chain([&peer.ipv6]))
        .map(String::as_str)
        .collect();
    let role = format!(
        "{}, since {}",
        details.role.word(),
        date(details.admitted_at)
    );
    let cipher = peer.and_then(|peer| peer.transport);
    let has_talked = peer.is_some_and(|peer| peer.tx_bytes + peer.rx_bytes > 0);
    let sealed_by = match cipher {
        Some(Cipher::WireGuard) if !has_talked => "wireguard, as long as no program has talked",
        Some(cipher) => cipher.word(),
        None => "",
    };
    let rows = [
        ("name", details.domain_name.clone()),
        ("addresses", addresses.join("  ")),
        ("dialled at", details.endpoints.join("  ")),
        ("role", role),
        ("groups", details.groups.join(", ")),
        (
            "certificate",
            format!("until {}", date(details.certificate_until)),
        ),
        ("version", details.version.clone().unwrap_or_default()),
        ("services", details.services.join(", ")),
        ("sealed by", sealed_by.to_owned()),
        ("id", peer.map(|peer| peer.id.clone()).unwrap_or_default()),
    ];
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("  {key:<11}  {value}\n"))
        .collect()
}

/// The role in brackets where it is worth saying: ` (admin)`.
pub fn role_suffix(role: Role) -> &'static str {
    match role {
        Role::Admin => " (admin)",
        Role::Leaf => " (leaf)",
        Role::Member => "",
    }
}

/// Stands where there is nothing to show.
const NOTHING: &str = "–";
