//! What `netcheck` prints: what is known of the way between this machine and the world, in plain words.

use crate::api::{
    Dht, DhtState, Lan, Nat, NetcheckReply, Observed, PortMappingState, Udp, UdpState,
    words::{ago, count, no_carrier},
};

/// `netcheck`.
pub fn netcheck(reply: &NetcheckReply) -> String {
    let mut text = cut_off(reply).map_or_else(String::new, |why| {
        format!("This machine is cut off: {why}.\n")
    });
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<15} {value}\n"));
    line("addresses", &list(&reply.interfaces));
    line("seen as", &seen(&reply.observed));
    line("NAT", nat(reply));
    line("port mapping", &port_mapping(reply));
    line("from outside", &from_outside(reply));
    line("UDP", &udp(&reply.udp, reply.port));
    for value in lan(&reply.lan) {
        line("LAN", &value);
    }
    line("DHT", &dht(&reply.dht));
    line("others are told", &list(&reply.published));
    text
}

/// Why nothing can leave this machine, where that is known.
fn cut_off(reply: &NetcheckReply) -> Option<String> {
    if !reply.unplugged.is_empty() {
        Some(no_carrier(&reply.unplugged))
    } else if reply.interfaces.is_empty() {
        Some("it has no address outside the mesh".to_owned())
    } else {
        None
    }
}

fn list(addresses: &[String]) -> String {
    if addresses.is_empty() {
        return "none".to_owned();
    }
    addresses.join("  ")
}

fn from_outside(reply: &NetcheckReply) -> String {
    match (reply.reached.as_slice(), reply.nat) {
        ([], Nat::None) => format!(
            "nobody has come in unasked: if others try in vain, let UDP {} in through this machine's firewall",
            reply.port
        ),
        ([], Nat::Easy | Nat::Hard | Nat::Unknown) => "nobody has come in unasked".to_owned(),
        (reached, _) => format!("reached at {}", reached.join("  ")),
    }
}

fn seen(observed: &[Observed]) -> String {
    if observed.is_empty() {
        return "nobody has said".to_owned();
    }
    let by = |seen: &Observed| {
        let peers = count(u64::from(seen.observers), "peer");
        format!("{} by {peers}", seen.address)
    };
    observed.iter().map(by).collect::<Vec<_>>().join("  ")
}

fn nat(reply: &NetcheckReply) -> &'static str {
    match reply.nat {
        Nat::None if reply.observed.is_empty() => {
            "none, by this machine's own address; nobody has seen it yet"
        }
        Nat::None => "none: others see this machine's own address",
        Nat::Easy => "easy: the same port towards everybody",
        Nat::Hard => "hard: a new port per destination; a port mapping here would help",
        Nat::Unknown => "not known: that takes two peers in different places",
    }
}

fn port_mapping(reply: &NetcheckReply) -> String {
    let (mapping, port) = (&reply.port_mapping, reply.port);
    const SILENT: &str = "none: the router speaks neither PCP, NAT-PMP nor UPnP";
    let external = mapping.external.as_deref().unwrap_or("?");
    let protocol = mapping.protocol.as_deref().unwrap_or("?");
    match mapping.state {
        PortMappingState::Off => {
            "off: rendezvous.port_mapping is false in the configuration".to_owned()
        }
        PortMappingState::Unneeded => {
            "not needed: no private address here is behind a router".to_owned()
        }
        PortMappingState::Asking => "the router is being asked".to_owned(),
        PortMappingState::Mapped => format!("{external} by {protocol}"),
        PortMappingState::DoubleNat => format!(
            "of no use: the router ({protocol}) is itself behind another one, which calls it {external}"
        ),
        PortMappingState::Refused => {
            let why = mapping.why.as_deref().unwrap_or("no reason given");
            format!("the router refuses ({protocol}): {why}. By hand: forward UDP {port} to here")
        }
        // A hole in the router is of no use where UDP does not come through.
        PortMappingState::Silent if reply.udp.state == UdpState::Blocked => SILENT.to_owned(),
        PortMappingState::Silent => {
            format!("{SILENT}. Switch one on there, or forward UDP {port} by hand")
        }
    }
}

fn udp(udp: &Udp, port: u16) -> String {
    match udp.state {
        UdpState::Works => format!("out and in, {}", count(u64::from(udp.sessions), "session")),
        UdpState::Blocked => format!(
            "blocked, sessions stand on TLS alone: let UDP out from port {port} to any, and in to port {port} through this machine's firewall"
        ),
        UdpState::Unknown => "nobody is heard over it now".to_owned(),
    }
}

fn lan(lan: &Lan) -> Vec<String> {
    if !lan.on {
        return vec!["off: rendezvous.lan is false in the configuration".to_owned()];
    }
    if lan.places == 0 {
        return vec!["this machine is in none".to_owned()];
    }
    if lan.heard.is_empty() {
        return vec!["nobody of the network was heard there".to_owned()];
    }
    let heard = lan.heard.iter().map(|one| {
        let seconds = std::time::Duration::try_from_secs_f64(one.ago_s).unwrap_or_default();
        format!(
            "{} at {}, {}",
            one.peer,
            one.address,
            ago(seconds.as_secs())
        )
    });
    heard.collect()
}

fn dht(dht: &Dht) -> String {
    let why = dht.why.as_deref().unwrap_or("no reason given");
    let state = match dht.state {
        DhtState::Off => format!("off: {why}"),
        DhtState::Idle => "ready, not in use".to_owned(),
        DhtState::InUse => "in use".to_owned(),
        DhtState::Unreachable => format!("not reached: {why}"),
    };
    match dht.met.first() {
        Some(met) => format!("{state}; met {} {}", met.peer, ago(met.ago_s)),
        None => state,
    }
}
