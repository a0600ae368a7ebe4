//! What every other verb prints. Pure: values in, text out.

use super::{
    names::{Answer, Asked, DnsStatus},
    status::{path, role_suffix},
};
use crate::{
    api::{
        ApiError, Code, Dns, DnsBackend, DnsQueryReply, DnsState, Door, DoorVerdict, InitReply,
        InviteCancelReply, InviteListReply, InviteReply, JoinReply, Network, NetworkReply,
        PolicyReply, Pong, Protocol, Reach, ReachKind, RecoverReply, Service, ServiceAddReply,
        ServiceRemoveReply, WhoisKind, WhoisReply,
        words::{NAMES_NOT_RESOLVING, clock, count, date, milliseconds, took},
    },
    host_dns::domains::Claim,
};

/// `init`'s answer.
pub fn init(reply: &InitReply) -> String {
    let (network, own) = (&reply.network, &reply.own);
    let mut text = format!(
        "{} is up; this machine is {}, its first admin.\n",
        network.name, own.name
    );
    let mut line = |key: &str, value: &str| text.push_str(&format!("  {key:<8}  {value}\n"));
    line("address", &addresses(own.ipv4.as_deref(), &own.ipv6));
    line(
        "name",
        &format!("{}.{}{}", own.name, network.domain, resolver(&reply.dns)),
    );
    if let Some(reach) = reach(&reply.reach) {
        line("reach", &reach);
    }
    line(
        "policy",
        &format!("{}   (webmesh policy show)", reply.policy),
    );
    text.push_str(
        "Keep this offline; with it any machine can become admin if all admins are lost:   ",
    );
    text.push_str(&reply.recovery_code);
    text.push_str(
        "\nNext:  sudo webmesh invite      sudo webmesh service add web --port 80 --target 127.0.0.1:8080\n",
    );
    text
}

fn addresses(v4: Option<&str>, v6: &str) -> String {
    match v4 {
        Some(v4) => format!("{v4}  {v6}"),
        None => v6.to_owned(),
    }
}

/// Where names are asked, while nobody on this host asks there.
fn resolver(dns: &Dns) -> String {
    let domain = dns.domain.as_deref().unwrap_or_default();
    match (dns.state, dns.servers.first()) {
        (DnsState::NotResolving, Some(server)) => format!("   (its resolver: {server})"),
        (DnsState::Resolving, _) => match sender(dns.backend) {
            Some(sender) => format!("   ({sender} sends us {domain}, nothing else)"),
            None => String::new(),
        },
        (DnsState::NotResolving | DnsState::SettingUp | DnsState::Off, _) => String::new(),
    }
}

/// The line for a host on which nobody can send us our names.
pub fn no_names(dns: &Dns, ways_out: &str) -> Option<String> {
    let line = format!("{NAMES_NOT_RESOLVING}: {ways_out}\n");
    (dns.state == DnsState::NotResolving).then_some(line)
}

/// Who sends us our names, if it is another program.
pub fn sender(backend: DnsBackend) -> Option<&'static str> {
    match backend {
        DnsBackend::Resolved => Some("systemd-resolved"),
        DnsBackend::NetworkManager => Some("NetworkManager"),
        DnsBackend::Resolvconf => Some("the resolver on this host"),
        DnsBackend::Forward | DnsBackend::None => None,
    }
}

fn reach(reach: &Reach) -> Option<String> {
    let address = reach.address.as_deref()?;
    Some(match reach.kind {
        ReachKind::Reached => format!("{address}, reached from outside"),
        ReachKind::Untried => format!("{address}, not tried from outside yet"),
        ReachKind::NatMapped => format!("behind NAT {address}, port mapped"),
        ReachKind::Nat => format!("behind NAT {address}, no port mapping"),
    })
}

/// What to do about an invite whose token nobody read.
pub fn invite_remains(id: &str) -> String {
    format!(
        "the invite is there all the same: sudo webmesh invite list shows it, sudo webmesh invite cancel {id} takes it back"
    )
}

/// The talk of `invite`; the answer is the token alone. `now` is unix s; `token` is what to show of it.
pub fn invite_talk(reply: &InviteReply, token: &str, now: u64) -> String {
    let who = match reply.uses {
        1 => "One machine may".to_owned(),
        uses => format!("{uses} machines may"),
    };
    let (network, role, until) = (&reply.network, reply.role.word(), clock(reply.expires, now));
    let warning = reply.warning.as_ref();
    let warning = warning.map_or_else(String::new, |warning| format!("! {warning}\n"));
    format!(
        "{who} join {network} as {role} until {until}. There:  sudo webmesh join {token}\n\
         Keep this machine on until then: it answers the invite.  Take it back: webmesh invite cancel {}\n{warning}",
        reply.id
    )
}

/// The head of a token, where the whole stands on stdout already.
pub fn token_head(token: &str) -> String {
    let head: String = token.chars().take(8).collect();
    format!("{head}…")
}

/// `invite list`. `now` is unix s.
pub fn invites(reply: &InviteListReply, now: u64) -> String {
    if reply.invites.is_empty() {
        return "no open invites\n".to_owned();
    }
    let mut text = String::new();
    for invite in &reply.invites {
        let left = count(u64::from(invite.uses_left), "use");
        let until = clock(invite.expires, now);
        text.push_str(&format!(
            "ID {}  {}  {left} left  until {until}",
            invite.id,
            invite.role.word()
        ));
        if !invite.used_by.is_empty() {
            text.push_str(&format!("  used by {}", invite.used_by.join(", ")));
        }
        text.push('\n');
    }
    text
}

/// `invite cancel`.
pub fn invite_cancelled(reply: &InviteCancelReply) -> String {
    match &reply.used_by[..] {
        [] => format!("Invite {} is taken back.\n", reply.id),
        members => format!(
            "Invite {} is taken back; {} joined by it and stays.\n",
            reply.id,
            members.join(", ")
        ),
    }
}

/// `join`'s answer.
pub fn joined(reply: &JoinReply) -> String {
    let own = &reply.own;
    let address = own.ipv4.as_ref().unwrap_or(&own.ipv6);
    let mut text = format!(
        "Joined {} as {}{}, {address}, in {}.  {}, {}.",
        reply.network.name,
        own.name,
        role_suffix(own.role),
        took(reply.took_ms),
        count(u64::from(reply.peers), "peer"),
        count(
            u64::try_from(reply.services.len()).unwrap_or(u64::MAX),
            "service"
        ),
    );
    text.push_str(&match reply.dns.state {
        DnsState::Resolving => format!("   Try:  ping {}{}", reply.issuer, curl(&reply.services)),
        DnsState::NotResolving | DnsState::SettingUp | DnsState::Off => {
            format!("   Try:  webmesh ping {}", reply.issuer)
        }
    });
    text.push('\n');
    text
}

/// What `join` says of a domain that is more than the network's own name: whose names it takes along.
pub fn domain_claimed(network: &Network, claim: Claim) -> Option<String> {
    let Network { name, domain, .. } = network;
    match claim {
        Claim::Own => None,
        Claim::Chosen => Some(format!(
            "{name} calls its machines NAME.{domain}: all names under {domain} are asked of {name} here from now on.  Take \
             that back: sudo webmesh leave {name}"
        )),
        Claim::InUse => Some(format!(
            "{name} calls its machines NAME.{domain}, names that other programs use: here they stay with those.  To give them \
             to {name}: echo {domain} | sudo tee -a /etc/webmesh/domains && sudo webmesh up"
        )),
    }
}

/// A service that a browser would find, as curl is asked for it.
fn curl(services: &[Service]) -> String {
    let web = services
        .iter()
        .find(|service| service.port == 80 && service.protocol == Protocol::Tcp && service.up > 0);
    web.map(|web| format!("    curl http://{}/", web.domain_name))
        .unwrap_or_default()
}

/// `up`.
pub fn up(reply: &NetworkReply) -> String {
    match &reply.own {
        Some(own) => {
            let address = own.ipv4.as_ref().unwrap_or(&own.ipv6);
            format!(
                "{} is up; this machine is {}, {address}.\n",
                reply.network.name, own.name
            )
        }
        None => format!("{} is up.\n", reply.network.name),
    }
}

/// `down`.
pub fn down(reply: &NetworkReply) -> String {
    format!(
        "{} is down here; names and addresses are gone. Again: sudo webmesh up\n",
        reply.network.name
    )
}

/// `leave`.
pub fn left(reply: &NetworkReply) -> String {
    format!(
        "This machine has left {}; its keys are gone. Again: a new invite\n",
        reply.network.name
    )
}

/// `recover`.
pub fn recovered(reply: &RecoverReply) -> String {
    format!(
        "{} is an admin of {} now.\n",
        reply.own.name, reply.network.name
    )
}

/// `dns status`.
pub fn dns_status(status: &DnsStatus) -> String {
    let dns = &status.dns;
    let Some(domain) = &dns.domain else {
        return "This machine is in no network; its names are as they were.\n".to_owned();
    };
    let mut text = format!("{}\n", summary(status, domain));
    let mut line = |key: &str, value: &str| text.push_str(&format!("  {key:<11}  {value}\n"));
    line("why", &status.why);
    if !dns.servers.is_empty() {
        line("resolver", &dns.servers.join("  "));
    }
    if let Some(how) = short_names(dns) {
        line("short names", &how);
    }
    line("resolv.conf", &resolv_conf(status));
    if let Some(asked) = &status.asked {
        line("tried", &tried(asked));
    }
    text
}

/// Only what speaks to resolved or stands in resolv.conf can bring a search list.
fn short_names(dns: &Dns) -> Option<String> {
    if dns.search.is_empty() || dns.state != DnsState::Resolving {
        return None;
    }
    match dns.backend {
        DnsBackend::Resolved | DnsBackend::Forward => {
            Some(format!("are completed with {}", dns.search.join(", ")))
        }
        DnsBackend::NetworkManager | DnsBackend::Resolvconf => {
            Some("are not completed here: type the whole name".to_owned())
        }
        DnsBackend::None => None,
    }
}

fn summary(status: &DnsStatus, domain: &str) -> String {
    let dns = &status.dns;
    match (dns.state, dns.backend) {
        // A network that is down has no resolver.
        (DnsState::Off, _) if dns.servers.is_empty() => {
            format!(
                "Names under {domain} do not resolve here: the network is down: sudo webmesh up"
            )
        }
        (DnsState::Off, _) => format!(
            "Names under {domain} are left to you: [dns] mode is \"off\" in the configuration."
        ),
        (DnsState::SettingUp, _) => {
            "The host's resolver is being set up: ask again in a moment.".to_owned()
        }
        (DnsState::NotResolving, _) => format!(
            "Names under {domain} do not resolve here yet: {}",
            status.ways_out
        ),
        (DnsState::Resolving, backend) => match sender(backend) {
            Some(sender) => format!(
                "{sender} sends us {domain} and the reverse names of its addresses, nothing else."
            ),
            None if status.is_taken => format!(
                "/etc/resolv.conf names our resolver first: it answers {domain} and asks the old servers for all other names."
            ),
            None => format!(
                "/etc/resolv.conf names our resolver: it answers {domain} and refuses all other names."
            ),
        },
    }
}

fn resolv_conf(status: &DnsStatus) -> String {
    let servers: Vec<String> = status.resolv_conf.iter().map(ToString::to_string).collect();
    let names = if servers.is_empty() {
        "names no server".to_owned()
    } else {
        format!("names {}", servers.join(", "))
    };
    match &status.leads_to {
        Some(target) => format!("leads to {target} and {names}"),
        None => names,
    }
}

fn tried(asked: &Asked) -> String {
    let list = |found: &[std::net::IpAddr]| {
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        words.join("  ")
    };
    let name = &asked.name;
    match &asked.answer {
        Answer::Right(found) => format!("this host resolves {name} to {}", list(found)),
        Answer::Wrong(found) => format!(
            "this host resolves {name} to {}, which is not this machine: another server answers for our names",
            list(found)
        ),
        Answer::Refused(why) => format!("this host does not resolve {name}: {why}"),
        Answer::Silence => format!("this host's resolver said nothing to {name} in 3 s"),
    }
}

/// `dns takeover`.
pub fn taken_over(dns: &Dns) -> String {
    let domain = dns.domain.as_deref().unwrap_or("the network");
    format!(
        "/etc/resolv.conf names our resolver first now: names under {domain} resolve here, all others are asked of the old servers.\n\
         Back: sudo webmesh dns takeover --undo\n"
    )
}

/// One answer to `ping`.
pub fn pong(pong: &Pong) -> String {
    format!("{}  {}\n", milliseconds(pong.rtt_ms), path(&pong.path))
}

/// `whois`.
pub fn whois(reply: &WhoisReply) -> String {
    let (name, network) = (&reply.name, &reply.network);
    let since = reply.since.map(|since| format!("since {}", date(since)));
    match (reply.kind, reply.role) {
        (WhoisKind::Peer, Some(role @ (crate::api::Role::Admin | crate::api::Role::Leaf))) => {
            let since = since.map(|since| format!(" {since}")).unwrap_or_default();
            format!("{name}  member of {network}, {}{since}\n", role.word())
        }
        (WhoisKind::Peer, _) => {
            let since = since.map(|since| format!(" {since}")).unwrap_or_default();
            format!("{name}  member of {network}{since}\n")
        }
        (WhoisKind::Service, _) if reply.served_by.is_empty() => {
            format!("{name}, served by nobody now\n")
        }
        (WhoisKind::Service, _) => format!("{name}, served by {}\n", reply.served_by.join(", ")),
        (WhoisKind::Resolver, _) => format!("the resolver of {network}\n"),
    }
}

/// `dns query`.
pub fn dns(reply: &DnsQueryReply) -> String {
    let Some(first) = reply.answers.first() else {
        return format!("{}  exists, without a record of this type\n", reply.name);
    };
    let mut text = reply.name.clone();
    for answer in &reply.answers {
        text.push_str(&format!("  {} {}", answer.record_type, answer.data));
    }
    text.push_str(&format!("  ttl {} s\n", first.ttl_s));
    text
}

/// `service add`: the answer. What is wrong with the door or the name is [`service_warnings`].
pub fn service_added(reply: &ServiceAddReply) -> String {
    let protocol = match reply.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "/udp",
    };
    let place = match &reply.target {
        Some(target) => format!("{} {target}", reply.peer),
        None => reply.peer.clone(),
    };
    let mut text = format!("{}:{}{protocol} → {place}.", reply.domain_name, reply.port);
    if let Some(was) = &reply.was {
        text.push_str(&format!(" (was {was})"));
    }
    match reply.door.verdict {
        DoorVerdict::Accepted => {
            text.push_str(&format!(
                "   Probed from the mesh side: {}.",
                door(&reply.door)
            ));
        }
        DoorVerdict::Bound => text.push_str(&format!("   {}.", door(&reply.door))),
        DoorVerdict::Closed
        | DoorVerdict::LoopbackOnly
        | DoorVerdict::Dropped
        | DoorVerdict::Unprobed => {}
    }
    text.push('\n');
    text
}

/// What to know about a service that was just published.
pub fn service_warnings(reply: &ServiceAddReply) -> Vec<ApiError> {
    let code = match reply.door.verdict {
        DoorVerdict::Accepted | DoorVerdict::Bound | DoorVerdict::Unprobed => None,
        DoorVerdict::Closed => Some(Code::NothingListens),
        DoorVerdict::LoopbackOnly => Some(Code::LoopbackOnly),
        DoorVerdict::Dropped => Some(Code::DoorDropped),
    };
    let warn = |code| {
        ApiError::warning(
            code,
            format!("{} is published, but {}", reply.name, door(&reply.door)),
        )
    };
    reply
        .warnings
        .iter()
        .cloned()
        .chain(code.map(warn))
        .collect()
}

/// The door's sentences (transcripts.md).
pub fn door(door: &Door) -> String {
    let port = door.port;
    match door.verdict {
        DoorVerdict::Accepted => match door.took_ms {
            Some(ms) => format!("accepted in {}", milliseconds(ms)),
            None => "accepted".to_owned(),
        },
        DoorVerdict::Closed => {
            format!(
                "nothing listens on port {port} yet: it gets no connections until something does"
            )
        }
        DoorVerdict::LoopbackOnly => {
            format!("port {port} listens on 127.0.0.1 only: add --target 127.0.0.1:{port}")
        }
        DoorVerdict::Dropped => dropped(door),
        DoorVerdict::Bound => format!("Something is bound to UDP port {port}; UDP is not probed"),
        DoorVerdict::Unprobed => "not probed".to_owned(),
    }
}

/// Who drops it, and what lets it in.
fn dropped(door: &Door) -> String {
    let (firewall, device) = (door.firewall.as_deref(), &door.device);
    let remedy = match firewall.and_then(|firewall| let_in(firewall, device, door.let_in)) {
        Some(command) => format!("There: {command}"),
        None => match door.let_in {
            [first, last] if first == last => format!("Let port {first} in on {device}"),
            [first, last] => format!("Let ports {first} to {last} in on {device}"),
        },
    };
    let whose = firewall.map_or_else(String::new, |name| format!(" ({name})"));
    format!("this machine drops it: its firewall{whose} blocks {device}. {remedy}")
}

/// What makes a firewall let in what comes to these ports, from the first to the last, from the mesh.
pub(super) fn let_in(firewall: &str, device: &str, ports: [u16; 2]) -> Option<String> {
    match firewall {
        "ufw" => Some(format!(
            "sudo ufw allow in on {device} to any port {} proto tcp",
            port_range(ports, ':')
        )),
        "firewalld" => Some(format!(
            "sudo firewall-cmd --permanent --zone=trusted --add-interface={device} && sudo firewall-cmd --reload"
        )),
        _ => None,
    }
}

/// One port, or the first and the last with what a firewall's language has between them.
pub(super) fn port_range([first, last]: [u16; 2], between: char) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}{between}{last}")
    }
}

/// `service rm`.
pub fn service_removed(reply: &ServiceRemoveReply) -> String {
    let peers: Vec<&str> = reply
        .remaining
        .iter()
        .map(|instance| instance.peer.as_str())
        .collect();
    if peers.is_empty() {
        format!("{} is no longer published.\n", reply.name)
    } else {
        format!(
            "{} is no longer published here; {} still serves it.\n",
            reply.name,
            peers.join(", ")
        )
    }
}

/// `policy show`.
pub fn policy(reply: &PolicyReply) -> String {
    let line = |rule: &crate::api::PolicyRule| {
        format!("{}  {}   ({})\n", rule.number, rule.rule, rule.source)
    };
    reply.rules.iter().map(line).collect()
}
