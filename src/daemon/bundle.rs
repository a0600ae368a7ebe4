//! `webmesh debug bundle`: what a maintainer needs to find a fault, and nothing by which a stranger finds a person.
//!
//! One JSON value a part, to be written one a line: a person reads it before it is sent, `grep` and `jq` read it after,
//! and nothing has to be unpacked. Keys and secrets are not asked for anywhere in here; names, addresses and ids go through
//! [`Veil`].

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    agent::{Agent, Place},
    starting,
    veil::Veil,
    view::Published,
};
use crate::{
    api::{self, BundlePart},
    platform::{clock, credentials, link::Links, nftables},
    telemetry,
};

/// What the loop knows; the rest is read beside it.
#[derive(Debug)]
pub(super) struct FromAgent {
    parts: Vec<BundlePart>,
    veil: Veil,
    state_dir: PathBuf,
}

/// Lines of `/proc/self/status` that matter.
const PROCESS: &[&str] = &[
    "VmRSS",
    "VmHWM",
    "Threads",
    "CapEff",
    "NoNewPrivs",
    "Seccomp",
];

/// What the agent knows of itself and its network.
pub(super) fn from_agent(agent: &Agent, published: &Published) -> FromAgent {
    let mut parts = vec![part(
        "config",
        json!({"file": agent.reloading.file(), "runs": agent.config}),
    )];
    parts.extend(of_status(published));
    if let Place::Up(network) = &agent.place {
        let now = clock::moment();
        let deadlines = network.node.deadlines();
        let timers: Vec<Value> = deadlines
            .into_iter()
            .map(|(timer, at)| json!([timer, at.since(now).as_secs_f64()]))
            .collect();
        parts.push(part("timers", json!({"due_in_s": timers})));
    }
    FromAgent {
        parts,
        veil: veil_of(agent, published),
        state_dir: agent.state_dir.path().to_owned(),
    }
}

/// Everything, veiled, in the order in which a person would ask for it.
pub(super) fn gather(from_agent: FromAgent) -> Vec<BundlePart> {
    let FromAgent {
        parts,
        mut veil,
        state_dir,
    } = from_agent;
    let mut all = vec![about()];
    all.extend(parts);
    all.push(host());
    all.push(files(&state_dir));
    let log = telemetry::last_lines();
    log.iter().for_each(|line| veil.hide_named(line));
    let lines = log.into_iter();
    all.extend(lines.map(|line| part("log", json!({"line": line}))));
    for part in &mut all {
        veil.fields(&mut part.facts);
    }
    all
}

fn part(name: &str, facts: Value) -> BundlePart {
    let Value::Object(facts) = facts else {
        unreachable!("parts are written as objects in this file");
    };
    BundlePart {
        part: name.to_owned(),
        facts,
    }
}

fn about() -> BundlePart {
    let uname = nix::sys::utsname::uname().ok();
    let facts = json!({
        "note": "names, addresses and ids are replaced; the same word is the same thing",
        "version": env!("CARGO_PKG_VERSION"),
        "api": api::VERSION,
        "built_s": starting::built_s(),
        "made_s": clock::now().unix_s(),
        "system": uname.map(|uname| format!(
            "{} {} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy()
        )),
        "uid": credentials::own_uid(),
        "by_systemd": std::env::var_os("INVOCATION_ID").is_some(),
    });
    part("about", facts)
}

/// `status`, one line a thing, so that none is too long to read.
fn of_status(published: &Published) -> Vec<BundlePart> {
    let status = &published.status;
    let network = json!({
        "state": status.state,
        "network": status.network,
        "self": status.own,
        "reach": published.reach,
        "is_settled": published.is_settled,
    });
    let mut parts = vec![
        part("network", network),
        part("health", json!({"lines": status.health})),
        part("drops", json!({"counts": status.drops})),
        part(
            "dns",
            json!({"dns": status.dns, "resolv_conf": resolv_conf()}),
        ),
    ];
    for peer in &status.peers {
        let details = published.peers.get(&peer.name);
        parts.push(part("peer", json!({"peer": peer, "details": details})));
    }
    for service in &status.services {
        parts.push(part("service", json!({"service": service})));
    }
    parts
}

/// Every name that is known here has a word of its own in the bundle.
fn veil_of(agent: &Agent, published: &Published) -> Veil {
    let mut veil = Veil::default();
    let status = &published.status;
    if let Some(network) = &status.network {
        veil.hide("network", &network.name);
        for label in network
            .domain
            .split('.')
            .filter(|label| *label != "internal")
        {
            veil.hide("domain", label);
        }
    }
    let peers = status.peers.iter().map(|peer| &peer.name);
    for name in status.own.iter().map(|own| &own.name).chain(peers) {
        veil.hide("peer", name);
    }
    for service in &status.services {
        veil.hide("service", &service.name);
        for instance in &service.instances {
            veil.hide("instance", &instance.instance);
        }
    }
    for group in published.peers.values().flat_map(|peer| &peer.groups) {
        veil.hide("group", group);
    }
    let host = credentials::hostname();
    host.split('.').for_each(|label| veil.hide("host", label));
    if let Place::Up(network) = &agent.place {
        let own = network.tables.load().own;
        veil.mesh(IpNet::V4(own.pool4));
        veil.mesh(IpNet::V6(own.prefix6));
    }
    veil
}

fn host() -> BundlePart {
    let facts = json!({
        "interfaces": or_why(interfaces()),
        "nft_tables": or_why(nftables::tables()),
        "process": process(),
    });
    part("host", facts)
}

fn or_why(looked: std::io::Result<impl serde::Serialize>) -> Value {
    match looked {
        Ok(found) => json!(found),
        Err(error) => json!({"cannot_look": error.to_string()}),
    }
}

fn interfaces() -> std::io::Result<Vec<Value>> {
    let mut links = Links::open()?;
    let (list, addresses, routes) = (links.list()?, links.addresses()?, links.routes()?);
    let of = |link: u32| {
        let here = addresses.iter().filter(move |address| address.link == link);
        here.map(|address| address.net.to_string())
            .collect::<Vec<_>>()
    };
    let routes_of = |link: u32| {
        let here = routes.iter().filter(move |route| route.link == Some(link));
        here.map(|route| route.to.to_string()).collect::<Vec<_>>()
    };
    let described = |link: crate::platform::link::Link| {
        json!({
            "interface": link.name,
            "is": link.kind,
            "mtu": link.mtu,
            "up": link.up,
            "addresses": of(link.index),
            "routes": routes_of(link.index),
        })
    };
    Ok(list.into_iter().map(described).collect())
}

fn process() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let facts: serde_json::Map<String, Value> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| PROCESS.contains(name))
        .map(|(name, fact)| (name.to_owned(), json!(fact.trim())))
        .collect();
    Value::Object(facts)
}

/// What of `/etc/resolv.conf` matters: where it leads, and whom it names.
fn resolv_conf() -> Value {
    let file = Path::new("/etc/resolv.conf");
    let text = fs::read_to_string(file).unwrap_or_default();
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .collect();
    json!({"leads_to": fs::read_link(file).ok(), "servers": servers})
}

/// The state directory from outside: names, rights and sizes.
fn files(state_dir: &Path) -> BundlePart {
    let mut paths = vec![state_dir.to_owned()];
    for path in below(state_dir) {
        let inside = below(&path);
        paths.push(path);
        paths.extend(inside);
    }
    let described = |path: PathBuf| {
        let facts = fs::symlink_metadata(&path).ok()?;
        let name = path.strip_prefix(state_dir).unwrap_or(&path);
        let rights = format!("{:o}", facts.mode());
        Some(json!([name, rights, facts.uid(), facts.len()]))
    };
    let found: Vec<Value> = paths.into_iter().filter_map(described).collect();
    part("files", json!({"name_mode_uid_bytes": found}))
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
