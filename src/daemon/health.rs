//! The lines of `health`: what is so, and what to do about it (design §4).

use super::{network::Facts, traffic::Plain};
use crate::{
    api,
    datapath::offloads::Why,
    node::status::{Health, Role, Snapshot},
    transport::Failure,
};

fn line(
    level: api::Level,
    code: &str,
    message: impl Into<String>,
    remedy: Option<&str>,
) -> api::Health {
    api::Health {
        level,
        code: code.to_owned(),
        message: message.into(),
        remedy: remedy.map(str::to_owned),
    }
}

/// Nobody on this host asks our resolver. The two ways out stand in the transcripts, word by word.
pub(super) fn names_not_resolving(ways_out: &str) -> api::Health {
    line(
        api::Level::Warning,
        "names_not_resolving",
        api::words::NAMES_NOT_RESOLVING,
        Some(ways_out),
    )
}

/// What the node knows to be odd.
pub(super) fn node_health(health: &Health, snapshot: &Snapshot) -> api::Health {
    let level = match health {
        Health::Cloned { .. } => api::Level::Error,
        Health::Revoked => api::Level::Info,
        Health::OneAdmin { .. }
        | Health::NoAdmin
        | Health::NobodyReached { .. }
        | Health::NameLost { .. }
        | Health::Ipv4Lost
        | Health::ClockCorrected
        | Health::CertificateEnding { .. }
        | Health::ExpirySuspended => api::Level::Warning,
    };
    let (code, message, remedy) = in_words(health, snapshot);
    line(level, code, message, Some(remedy))
}

/// Code, message and remedy.
fn in_words(health: &Health, snapshot: &Snapshot) -> (&'static str, String, &'static str) {
    let name = &snapshot.name;
    match health {
        Health::OneAdmin { admin, .. } => (
            "one_admin",
            format!("{name} has one admin. If {admin}'s machine is lost nobody can be added"),
            // An invite for an admin needs the root key too, and one more machine.
            match snapshot.own.role {
                Role::Admin => "on another machine of it, with the recovery code: sudo webmesh recover CODE",
                Role::Member | Role::Leaf => "here, with the recovery code: sudo webmesh recover CODE",
            },
        ),
        Health::NoAdmin => (
            "no_admin",
            format!("{name} has no admin any more: nobody can be added"),
            "with the recovery code: sudo webmesh recover CODE",
        ),
        Health::NobodyReached { others } => (
            "nobody_reached",
            match others.as_slice() {
                [one] => format!("{one} is not reached, and nobody else of {name} is there"),
                all => format!("none of the {} others of {name} is reached", all.len()),
            },
            "webmesh netcheck tells what is known of the way out of here, webmesh why PEER of the way to one",
        ),
        Health::NameLost { name: given } => (
            "name_lost",
            format!("another machine of {name} has this one's name; here it is called {given}"),
            "an admin that is up gives it a name of its own",
        ),
        Health::Ipv4Lost => (
            "ipv4_lost",
            "another machine has this one's IPv4 address; here only IPv6 is used".to_owned(),
            "an admin that is up gives it an address of its own",
        ),
        Health::ClockCorrected => (
            "clock_corrected",
            "this machine's clock is far off; the network's time is used".to_owned(),
            "set the clock, or install an NTP client",
        ),
        Health::CertificateEnding { until } => (
            "certificate_ending",
            format!(
                "this machine's certificate ends on {} and was not renewed",
                api::words::date(*until)
            ),
            "switch an admin's machine on",
        ),
        Health::ExpirySuspended => (
            "expiry_suspended",
            "certificates have ended and are honoured, since no admin was seen that could renew them".to_owned(),
            "switch an admin's machine on",
        ),
        Health::Cloned { name } => (
            "cloned",
            format!("two machines run with the key of {name}: a cloned disk"),
            "on the copy: remove /var/lib/webmesh and join anew",
        ),
        Health::Revoked => (
            "revoked",
            format!("this machine was revoked from {name}"),
            "ask an admin for a new invite, after: sudo webmesh leave",
        ),
    }
}

/// User data with a peer goes by WireGuard though both have transports.
pub(super) fn transport_health(peer: &str, plain: Plain) -> api::Health {
    let cause = plain
        .why
        .map_or_else(|| "there are no keys yet".to_owned(), |why| why.to_string());
    let message = format!(
        "what programs say to {peer} goes by WireGuard alone, and not post-quantum: {cause}"
    );
    let remedy = match plain.why {
        None | Some(Failure::Silent | Failure::Unconfirmed) => {
            format!("see what drops long datagrams on the way: webmesh why {peer}")
        }
        Some(Failure::Refused(_) | Failure::Suite | Failure::Keys | Failure::Confirm) => {
            format!("run the same version here and on {peer}, and restart both agents")
        }
    };
    line(
        api::Level::Error,
        "transport_failed",
        message,
        Some(&remedy),
    )
}

/// What is done packet by packet, and why.
pub(super) fn offload_health(offloads: &[(&str, Option<Why>)]) -> Vec<api::Health> {
    let all = offloads.iter();
    all.filter_map(|(key, off)| Some((key, (*off)?)))
        .map(|(key, why)| {
            let (level, cause) = match why {
                Why::Asked => (api::Level::Info, "the configuration says so"),
                Why::Refused => (api::Level::Warning, "this kernel refuses it"),
                Why::Garbled => (
                    api::Level::Warning,
                    "this kernel changes what goes through it",
                ),
            };
            let message =
                format!("the tunnel is slower than it could be: {key} is off, since {cause}");
            let remedy = match why {
                Why::Asked => format!("set [datapath] {key} = \"auto\" and restart"),
                Why::Refused | Why::Garbled => "use another kernel, 6.2 or later".to_owned(),
            };
            line(level, "offload_off", message, Some(&remedy))
        })
        .collect()
}

/// What the shell knows to be odd.
pub(super) fn shell_health(facts: &Facts) -> Vec<api::Health> {
    use api::Level::{Error, Info, Warning};
    let mut health = Vec::new();
    if facts.port_changed {
        let message = format!("the default UDP port is busy; {} is used", facts.port);
        health.push(line(
            Info,
            "port_changed",
            message,
            Some("set [network] port"),
        ));
    }
    if let Some(why) = &facts.ipv4_blocked {
        let message = format!("only IPv6 is used here: {}", why.cause);
        let remedy = why.remedy.as_deref();
        health.push(line(Warning, "ipv4_blocked", message, remedy));
    }
    if let Some(why) = &facts.guard_missing {
        let message = format!(
            "neighbours on the LAN can reach mesh services here past the mesh: {}",
            why.cause
        );
        let remedy = why.remedy.as_deref();
        health.push(line(Warning, "guard_missing", message, remedy));
    }
    if let Some(why) = &facts.streams_missing {
        let port = facts.port;
        let message = format!(
            "members whose UDP is blocked cannot come in here: TCP port {port} cannot be listened at: {why}"
        );
        let remedy = format!("see who has it: sudo ss -ltnp sport = :{port}");
        health.push(line(Warning, "streams_missing", message, Some(&remedy)));
    }
    if let Some(why) = &facts.unsaved {
        let message = format!("state cannot be written: {why}");
        health.push(line(
            Error,
            "state_unsaved",
            message,
            Some("make room on the disk of the state directory"),
        ));
    }
    for what in &facts.unserved {
        let message = format!("a service's target cannot be served: {what}");
        health.push(line(Error, "splice_failed", message, None));
    }
    health
}
