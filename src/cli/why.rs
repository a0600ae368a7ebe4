//! What `why` prints: name, policy, pick, path and door in plain words. Pure: values and a width in, text out.

use super::{
    render::{let_in, port_range},
    status::path as path_words,
    table::{Table, fold},
};
use crate::api::{
    Door, DoorVerdict, Path, PathKind, WhyAddress, WhyCause, WhyChange, WhyOutcome, WhyPast,
    WhyPath, WhyRemedy, WhyReply, WhySource, WhyWay,
    words::{ago, clock_s, milliseconds, no_carrier, span, took},
};

/// Changes shown before the time that was asked for, and as many after it.
const CHANGES: usize = 4;

/// `why`.
pub fn why(reply: &WhyReply, now: u64, width: Option<usize>) -> String {
    if let Some(past) = &reply.past {
        return then(reply, past, now, width);
    }
    let has_chain = reply.door.is_some() || reply.pick.is_some();
    let details = |path: &WhyPath| {
        let mut text = sentence(&headline(&reply.peer, path), width);
        text.push_str(&addresses(&reply.peer, path, width));
        if let Some(help) = help(&reply.peer, path) {
            text.push_str(&sentence(&help, width));
        }
        text
    };
    let Some(path) = &reply.path else {
        return chain(reply, width);
    };
    match (has_chain, &path.path) {
        (true, Some(_)) => chain(reply, width),
        (true, None) => chain(reply, width) + &details(path),
        (false, _) => details(path),
    }
}

/// Folded at its words where there is a width.
fn sentence(text: &str, width: Option<usize>) -> String {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    fold(&words, " ", width)
}

fn headline(name: &str, path: &WhyPath) -> String {
    let rtt = path.rtt_ms.map(milliseconds);
    let rtt = rtt.map_or_else(String::new, |rtt| format!(", {rtt}"));
    let Some(taken) = &path.path else {
        return format!("{name} is not reached: {}.", unreached(name, path));
    };
    match taken.kind {
        PathKind::Direct => {
            let before = path.before.as_ref().map_or_else(String::new, |before| {
                let way = path_words(&before.path);
                format!("{way} for {}, then ", took(before.for_ms))
            });
            format!(
                "{before}{} ({}){rtt}",
                path_words(taken),
                directly(name, path.cause)
            )
        }
        PathKind::Relay | PathKind::Stream => {
            let way = indirectly(taken);
            let better = match taken.kind {
                PathKind::Stream => "over UDP",
                PathKind::Relay | PathKind::Direct => "direct",
            };
            let because = because(name, path);
            format!(
                "{name} is reached {way}{rtt}, sealed end to end. Not {better} because {because}."
            )
        }
    }
}

fn indirectly(path: &Path) -> String {
    match (&path.via, path.kind) {
        (Some(via), _) => format!("through {via}"),
        (None, PathKind::Stream) => "on a TLS stream".to_owned(),
        (None, PathKind::Relay | PathKind::Direct) => "through another peer".to_owned(),
    }
}

/// What made a direct path possible.
fn directly(name: &str, cause: WhyCause) -> String {
    if cause == WhyCause::Lan {
        "the same LAN".to_owned()
    } else if cause == WhyCause::OpenThere {
        format!("{name} is reached from outside")
    } else if cause == WhyCause::OpenHere {
        "this machine is reached from outside".to_owned()
    } else if cause == WhyCause::BareThere {
        format!("{name} has a public address")
    } else if cause == WhyCause::BareHere {
        "this machine has a public address".to_owned()
    } else {
        "both punched".to_owned()
    }
}

/// Why a path is not direct, and was not; NAME is the peer's.
const REASONS: [(WhyCause, &str, &str); 12] = [
    (
        WhyCause::BothHard,
        "both NATs give a new port to every destination",
        "both NATs gave a new port to every destination",
    ),
    (
        WhyCause::HardHere,
        "the NAT here gives a new port to every destination, and NAME's does the same or lets in only whom it knows",
        "the NAT here gave a new port to every destination",
    ),
    (
        WhyCause::HardThere,
        "NAME's NAT gives a new port to every destination, and the one here does the same or lets in only whom it knows",
        "NAME's NAT gave a new port to every destination",
    ),
    (
        WhyCause::FirewallHere,
        "NAME's NAT gives a new port to every destination, and this machine's firewall lets in only whom it knows",
        "NAME's NAT gave a new port to every destination, and this machine's firewall let in only whom it knew",
    ),
    (
        WhyCause::FirewallThere,
        "NAME's public address answers no probe: a firewall there drops what comes in, or the answers",
        "NAME's public address answered no probe",
    ),
    (
        WhyCause::UdpBlockedHere,
        "no UDP gets out here, or this machine's firewall drops the answers",
        "no UDP got out here, or the answers did not get in",
    ),
    (
        WhyCause::UdpBlockedThere,
        "no UDP gets out where NAME is, or NAME's firewall drops the answers",
        "no UDP got out where NAME was, or the answers did not get in",
    ),
    (
        WhyCause::NoCommonVersion,
        "this machine has HERE only and NAME THERE only",
        "the two had no IP version in common",
    ),
    (
        WhyCause::DoubleNat,
        "the router here is behind another NAT, so that what it lets in never comes, and no probe was answered",
        "the router here was behind another NAT",
    ),
    (
        WhyCause::Trying,
        "that is still being tried",
        "that was still being tried",
    ),
    (
        WhyCause::JustFailed,
        "the direct path failed a moment ago",
        "the direct path had failed",
    ),
    (
        WhyCause::NoAddress,
        "nobody has seen UDP of NAME come from an address that can be reached from here",
        "nobody had seen UDP of NAME come from an address that could be reached",
    ),
];

/// Where nothing more is known.
const NO_ANSWER: &str = "no probe was answered: a NAT that gives a new port to every destination, or a firewall, lies between";

/// Why the path is not direct, or not there.
fn because(name: &str, path: &WhyPath) -> String {
    let (here, there) = match path.versions_here.ipv4 {
        true => ("IPv4", "IPv6"),
        false => ("IPv6", "IPv4"),
    };
    let known = REASONS.iter().find(|(cause, _, _)| *cause == path.cause);
    let reason = known.map_or(NO_ANSWER, |(_, is, _)| *is);
    let reason = reason.replace("THERE", there).replace("HERE", here);
    reason.replace("NAME", name)
}

/// Why there is no path at all.
fn unreached(name: &str, path: &WhyPath) -> String {
    if path.cause == WhyCause::Offline && !path.unplugged.is_empty() {
        return format!("this machine's {}", no_carrier(&path.unplugged));
    }
    if path.cause == WhyCause::Offline {
        return "this machine has no address outside the mesh".to_owned();
    }
    if path.cause == WhyCause::Revoked {
        return "it is out of the network".to_owned();
    }
    if path.cause == WhyCause::NoRelay {
        return "it is there, but no direct path was found, and no peer carries for the two"
            .to_owned();
    }
    if path.cause == WhyCause::NoCommonVersion {
        return because(name, path) + ", and no peer with both is reached";
    }
    if path.cause == WhyCause::Unasked {
        return "nobody has asked for it".to_owned();
    }
    if path.cause == WhyCause::Left {
        return "it said good-bye: its agent was stopped, or its machine".to_owned()
            + &last_heard(path);
    }
    if path.cause == WhyCause::Lost {
        return "it does not answer on the path it had, and another one is being looked for"
            .to_owned()
            + &last_heard(path);
    }
    let at = match path.addresses.len() {
        0 => "no address of it is known",
        1 => "it does not answer at its address",
        _ => "it answers at none of its addresses",
    };
    let others = if path.cause == WhyCause::Meeting {
        ". The DHT is being asked where it is".to_owned()
    } else if path.cause == WhyCause::Silence {
        ", and nobody else is heard either".to_owned()
    } else {
        of_others(path)
    };
    format!("{at}{others}{}", last_heard(path))
}

/// What those said that were asked for a peer in vain.
fn of_others(path: &WhyPath) -> String {
    let have = |names: &[String]| match names.len() {
        1 => "has",
        _ => "have",
    };
    if !path.absent.is_empty() {
        let (who, have) = (path.absent.join(", "), have(&path.absent));
        format!(", and {who} {have} no session with it")
    } else if path.asked.is_empty() {
        ", and no other peer could be asked".to_owned()
    } else {
        format!(", and not through {}", path.asked.join(", "))
    }
}

fn last_heard(path: &WhyPath) -> String {
    let seconds = |ago_s| std::time::Duration::try_from_secs_f64(ago_s).unwrap_or_default();
    path.last_heard_s.map_or_else(String::new, |ago_s| {
        format!(". Last heard {}", ago(seconds(ago_s).as_secs()))
    })
}

/// The one thing that would help, and when a better path is tried next.
fn help(name: &str, path: &WhyPath) -> Option<String> {
    let port = path.port;
    let or_ipv6 = || {
        if !path.versions_here.ipv6 {
            ", or IPv6 here".to_owned()
        } else if !path.versions_there.ipv6 {
            format!(", or IPv6 where {name} is")
        } else {
            String::new()
        }
    };
    let mapping = format!("one port mapping (UPnP, or UDP {port} forwarded by hand)");
    let help = match path.remedy? {
        WhyRemedy::PortMapping => format!("{mapping} at either router{}", or_ipv6()),
        WhyRemedy::PortMappingThere => format!("{mapping} at {name}'s router{}", or_ipv6()),
        WhyRemedy::UdpHere => format!(
            "UDP let out here, from port {port} to any, and UDP {port} let in by this machine's firewall"
        ),
        WhyRemedy::UdpThere => {
            let port = port_there(path);
            format!("UDP let out where {name} is, and UDP {port} let in by {name}'s firewall")
        }
        WhyRemedy::FirewallHere => format!("UDP {port} let in by this machine's firewall"),
        WhyRemedy::FirewallThere => {
            format!("UDP {} let in by {name}'s firewall", port_there(path))
        }
        WhyRemedy::CommonVersion if path.versions_here.ipv4 => {
            format!("IPv6 here, or IPv4 where {name} is")
        }
        WhyRemedy::CommonVersion => format!("IPv4 here, or IPv6 where {name} is"),
        WhyRemedy::Online => "a network for this machine".to_owned(),
        WhyRemedy::PeerOn => {
            return Some(format!(
                "Would help: {name} switched on and online. There: systemctl status webmesh"
            ));
        }
        WhyRemedy::EitherOn => {
            format!("{name} switched on and online, or a way out for this machine")
        }
        WhyRemedy::Relay => {
            "a member with a public address that carries for others ([relay] udp = true)".to_owned()
        }
        WhyRemedy::Patience => return Some(next_try(path)),
        WhyRemedy::Firewall | WhyRemedy::Program => return None,
    };
    let next = match path.path {
        Some(_) => format!(" {}", next_try(path)),
        None => String::new(),
    };
    Some(format!("Would help: {help}.{next}"))
}

/// The port at which the peer listens, as far as its own addresses tell.
fn port_there(path: &WhyPath) -> u16 {
    let own = path.addresses.iter().find(|one| {
        let is_own = |source| one.source == source;
        [WhySource::Lan, WhySource::Ipv6, WhySource::Public]
            .into_iter()
            .any(is_own)
    });
    let port = own.and_then(|one| one.address.rsplit_once(':')?.1.parse().ok());
    port.unwrap_or(path.port)
}

fn next_try(path: &WhyPath) -> String {
    match (path.next_try_s, path.cause) {
        (_, WhyCause::Meeting) => "Ask again in a minute.".to_owned(),
        (_, WhyCause::Lost | WhyCause::Calling) => "Ask again in a few seconds.".to_owned(),
        (Some(in_s), _) => format!("Next try in {} or on a new address.", span(in_s)),
        (None, WhyCause::Trying) => "Ask again in a few seconds.".to_owned(),
        (None, _) => "Next try on a new address.".to_owned(),
    }
}

fn addresses(name: &str, path: &WhyPath, width: Option<usize>) -> String {
    let mut table = Table::new(["", "", ""], 1);
    for one in &path.addresses {
        let outcome = match (one.outcome, &path.path) {
            (WhyOutcome::Unneeded, Some(taken)) if taken.kind == PathKind::Direct => {
                "not tried: not needed".to_owned()
            }
            _ => outcome(name, one),
        };
        table.row([one.address.clone(), source(name, one), outcome]);
    }
    let width = width.map(|width| width.saturating_sub(2));
    let lines = table.render(width);
    let lines = lines.lines().skip(1).map(|line| format!("  {line}\n"));
    lines.collect()
}

fn source(name: &str, one: &WhyAddress) -> String {
    match one.source {
        WhySource::Lan => format!("{name}'s LAN address"),
        WhySource::Ipv6 => format!("{name}'s IPv6"),
        WhySource::Public => format!("{name}'s public address"),
        WhySource::Seen => format!("seen by {}", one.seen_by.join(", ")),
        WhySource::Packets => "was heard there".to_owned(),
    }
}

fn outcome(name: &str, one: &WhyAddress) -> String {
    let again = one
        .again_s
        .map_or_else(String::new, |in_s| format!(", again in {}", span(in_s)));
    match (one.outcome, one.sent) {
        (WhyOutcome::InUse, _) => "in use".to_owned(),
        (WhyOutcome::Spare, _) => "answers; the path in use is better".to_owned(),
        (WhyOutcome::NoAnswer, Some(1)) => format!("1 probe, no answer{again}"),
        (WhyOutcome::NoAnswer, Some(sent)) => format!("{sent} probes, no answer{again}"),
        (WhyOutcome::NoAnswer, None) => format!("no answer{again}"),
        (WhyOutcome::Trying, _) => "being tried".to_owned(),
        (WhyOutcome::Failed, _) => format!("failed{again}"),
        (WhyOutcome::NoIpv4, _) => "no route: this machine has no IPv4".to_owned(),
        (WhyOutcome::NoIpv6, _) => "no route: this machine has no IPv6".to_owned(),
        (WhyOutcome::OtherSite, _) => "not tried: other public address".to_owned(),
        (WhyOutcome::Unattested, _) => format!("not tried: only {name} says so"),
        (WhyOutcome::Many, _) => "not tried: enough others were".to_owned(),
        (WhyOutcome::Unneeded, _) => "not tried".to_owned(),
        (WhyOutcome::Waiting, _) => match one.again_s {
            Some(in_s) => format!("not tried: its turn comes in {}", span(in_s)),
            None => "not tried".to_owned(),
        },
    }
}

/// Name, policy, pick, path, door: as far as a packet gets.
fn chain(reply: &WhyReply, width: Option<usize>) -> String {
    let mut parts = vec![
        "name ok".to_owned(),
        format!("policy ok (rule {})", reply.policy_rule),
    ];
    if let Some(pick) = &reply.pick {
        parts.push(format!(
            "{} of {} up, picked {}",
            pick.up, pick.instances, reply.peer
        ));
    }
    parts.extend(reply.path.as_ref().map(|path| {
        let rtt = path.rtt_ms.map(milliseconds);
        let rtt = rtt.map_or_else(String::new, |rtt| format!(" {rtt}"));
        match &path.path {
            Some(taken) if taken.kind == PathKind::Direct => format!("path direct{rtt}"),
            Some(taken) => format!("path {}{rtt}", path_words(taken)),
            None => "no path".to_owned(),
        }
    }));
    parts.extend(reply.door.as_ref().map(|door| at_door(reply, door)));
    let mut text = fold(&parts, " · ", width);
    if let Some(remedy) = reply.door.as_ref().and_then(|door| of_door(reply, door)) {
        text.push_str(&remedy);
    }
    text
}

fn at_door(reply: &WhyReply, door: &Door) -> String {
    let port = door.port;
    let whose = match reply.is_own {
        true => "this machine".to_owned(),
        false => format!("{}'s machine", reply.peer),
    };
    match door.verdict {
        DoorVerdict::Accepted => match door.took_ms {
            Some(took) => format!("accepted in {}", milliseconds(took)),
            None => "accepted".to_owned(),
        },
        // A firewall that rejects answers as a host does on which nothing listens.
        DoorVerdict::Closed if !reply.is_own => format!(
            "{whose} refuses port {port}: nothing listens there for the mesh, or its firewall rejects it"
        ),
        DoorVerdict::Closed => format!("nothing listens on port {port} of {whose}"),
        DoorVerdict::LoopbackOnly => format!("port {port} listens on 127.0.0.1 only"),
        DoorVerdict::Dropped => {
            let firewall = match &door.firewall {
                Some(program) => format!("its firewall ({program})"),
                None => "its firewall".to_owned(),
            };
            format!(
                "{whose} drops it: {firewall} blocks port {port} on {}",
                door.device
            )
        }
        DoorVerdict::Bound => format!("something is bound to UDP port {port}"),
        DoorVerdict::Unprobed => "UDP is not probed".to_owned(),
    }
}

/// What to type, and where.
fn of_door(reply: &WhyReply, door: &Door) -> Option<String> {
    let place = match reply.is_own {
        true => "Here",
        false => "There",
    };
    let port = door.port;
    let command = match (door.verdict, &door.firewall) {
        (DoorVerdict::Dropped, Some(program)) => let_in(program, &door.device, door.let_in)?,
        (DoorVerdict::Dropped | DoorVerdict::Closed, None) if !reply.is_own => {
            format!(
                "webmesh why {}:{port}   (it says what is in the way)",
                reply.peer
            )
        }
        (DoorVerdict::Dropped, None) => format!(
            "sudo nft list ruleset   (accept tcp dport {} on {} before the rule that drops it)",
            port_range(door.let_in, '-'),
            door.device
        ),
        (DoorVerdict::LoopbackOnly, _) => {
            format!("webmesh service add NAME --port {port} --target 127.0.0.1:{port}")
        }
        _ => return None,
    };
    Some(format!("{place}:  {command}\n"))
}

/// How it was at a time.
fn then(reply: &WhyReply, past: &WhyPast, now: u64, width: Option<usize>) -> String {
    let (name, at) = (&reply.peer, clock_s(past.at, now));
    let Some(was) = &past.then else {
        return match past.recorded_since {
            Some(since) => format!(
                "Nothing is written down of {name} at {at}: the first is of {}.\n",
                clock_s(since, now)
            ),
            None => format!(
                "Nothing is written down of {name}: the agent remembers 24 h, and not what was before its start.\n"
            ),
        };
    };
    let since = clock_s(was.at_ms / 1000, now);
    let head = match (&was.path, was.way) {
        (Some(path), WhyWay::Path) if path.kind == PathKind::Direct => {
            let cause = was.cause.unwrap_or(WhyCause::Punched);
            format!(
                "At {at} {name} was reached {} ({}), since {since}.",
                path_words(path),
                directly(name, cause)
            )
        }
        (Some(path), WhyWay::Path) => {
            let why = was.cause.map_or_else(String::new, |cause| {
                format!(" {}", was_not_direct(name, cause))
            });
            format!(
                "At {at} {name} was reached {}, since {since}.{why}",
                indirectly(path)
            )
        }
        (_, WhyWay::Unreached) => format!("At {at} {name} was not reached, since {since}."),
        (_, WhyWay::NoSession | WhyWay::Path) => {
            format!(
                "At {at} no session with {name} stood, since {since}: nobody talked with it, or it left."
            )
        }
    };
    sentence(&head, width) + &changes(past, was, now)
}

fn was_not_direct(name: &str, cause: WhyCause) -> String {
    let known = REASONS.iter().find(|(other, _, _)| *other == cause);
    let reason = known.map_or("no probe was answered", |(_, _, was)| *was);
    format!("Not direct because {}.", reason.replace("NAME", name))
}

/// The changes around the one that was asked for.
fn changes(past: &WhyPast, was: &WhyChange, now: u64) -> String {
    let here = past.changes.iter().position(|change| change == was);
    let first = here.unwrap_or(0).saturating_sub(CHANGES);
    let around = past.changes.iter().skip(first).take(2 * CHANGES + 1);
    let line = |change: &WhyChange| {
        let way = match (&change.path, change.way) {
            (Some(path), WhyWay::Path) => path_words(path),
            (_, WhyWay::Unreached) => "not reached".to_owned(),
            (_, WhyWay::NoSession | WhyWay::Path) => "no session".to_owned(),
        };
        format!("  {}  {way}\n", clock_s(change.at_ms / 1000, now))
    };
    around.map(line).collect()
}
