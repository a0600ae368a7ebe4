//! The lines of `health`: what is so, and what to do about it (design §4).

use super::network::Facts;
use crate::{
    api,
    node::status::{Health, Role, Snapshot},
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
pub(super) fn names_not_resolving() -> api::Health {
    line(
        api::Level::Warning,
        "names_not_resolving",
        api::words::NAMES_NOT_RESOLVING,
        Some(api::words::NAMES_WAYS_OUT),
    )
}

/// What the node knows to be odd.
pub(super) fn node_health(health: &Health, snapshot: &Snapshot) -> api::Health {
    let level = match health {
        Health::Cloned { .. } => api::Level::Error,
        Health::Revoked => api::Level::Info,
        Health::OneAdmin { .. }
        | Health::NoAdmin
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
            match snapshot.own.role {
                Role::Admin => "sudo webmesh invite --role admin",
                Role::Member | Role::Leaf => "there: sudo webmesh invite --role admin",
            },
        ),
        Health::NoAdmin => (
            "no_admin",
            format!("{name} has no admin any more: nobody can be added"),
            "with the recovery code: sudo webmesh recover CODE",
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
