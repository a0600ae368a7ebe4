//! `webmesh init`: founds a network with this machine as its first admin.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;

use super::{Control, policy};
use crate::{
    api::{ApiError, Code, InitReply, InitRequest, Status},
    daemon::{agent::Agent, port_mapping::Finding, sealing, starting},
    host_dns::wish::is_domain,
    keys::{NetSecret, NodeKey, RootSeed},
    members::label::{self, Domain},
    node::founding::{Founding, found},
    platform::{clock, credentials},
};

/// How long the host's resolver may take to say whether a name is in use; a host without one must not wait long.
const RESOLVER_PATIENCE: Duration = Duration::from_millis(500);

/// How long the router may take until `init` is answered without its word.
const ROUTER_PATIENCE: Duration = Duration::from_secs(1);

/// What a person decided, checked.
struct Wish {
    network: String,
    domain: String,
    peer: String,
    pool4: Option<Ipv4Net>,
}

pub(super) async fn answer(control: &Control, request: InitRequest) -> Result<InitReply, ApiError> {
    if let Some(error) = request.unbuilt() {
        return Err(error);
    }
    control.caller.ask(|agent| agent.must_be_idle()).await?;
    let wish = checked(&request)?;
    if request.domain.is_none() && is_answered(&wish.domain).await {
        return Err(ApiError::network_name_in_use(&wish.network));
    }
    let recovery_code = control.caller.ask(move |agent| init(agent, wish)).await?;
    await_router(control).await?;
    let (look, network) = control.network_look(None)?;
    Ok(InitReply {
        network,
        own: look.status.own.clone().ok_or_else(ApiError::no_network)?,
        reach: look.reach.clone(),
        dns: look.status.dns.clone(),
        policy: policy::DEFAULT.to_owned(),
        recovery_code,
        warnings: warnings(&look.status),
    })
}

/// A person is told at once whether the router lets others in, where it answers at once: most do.
async fn await_router(control: &Control) -> Result<(), ApiError> {
    let watcher = |agent: &mut Agent| Ok(agent.port_mapping.watcher());
    let mut found = control.caller.ask(watcher).await?;
    let settled = found.wait_for(Finding::is_settled);
    if tokio::time::timeout(ROUTER_PATIENCE, settled)
        .await
        .is_err()
    {
        tracing::debug!("The router takes its time; what it says is told later");
    }
    let show = |agent: &mut Agent| {
        agent.tend_port_mapping();
        agent.publish();
        Ok(())
    };
    control.caller.ask(show).await
}

/// What is to be known before the network is of use: that its addresses clash with this host's.
fn warnings(status: &Status) -> Vec<ApiError> {
    let name = status.network.as_ref().map(|network| &network.name);
    let blocked = status
        .health
        .iter()
        .filter(|line| line.code == "ipv4_blocked");
    blocked
        .zip(name)
        .map(|(line, name)| {
            ApiError::warning(Code::Ipv4Blocked, line.message.clone()).remedy(format!(
                "to choose other addresses: sudo webmesh leave {name}, then sudo webmesh init {name} --ipv4 CIDR"
            ))
        })
        .collect()
}

fn checked(request: &InitRequest) -> Result<Wish, ApiError> {
    let network = request.network.as_str();
    let domain = match &request.domain {
        Some(_) => Domain::Chosen,
        None => Domain::Default,
    };
    if let Err(refused) = label::network_name(network, domain) {
        return Err(match refused {
            label::NameRefused::InUse(_) => ApiError::network_name_in_use(network),
            label::NameRefused::NotALabel(_) | label::NameRefused::Reserved(_) => {
                ApiError::bad_name("network", network)
            }
        });
    }
    let domain = match &request.domain {
        Some(domain) => label::parse_domain(domain)
            .ok()
            .filter(|_| is_domain(domain))
            .ok_or_else(|| ApiError::bad_name("domain", domain))?
            .to_owned(),
        None => format!("{network}.internal"),
    };
    let peer = match &request.name {
        Some(name) => label::parse_peer(name)
            .map_err(|_refused| ApiError::bad_name("peer", name))?
            .to_owned(),
        None => {
            let asked = request.host_name.clone();
            label::from_host_name(&asked.unwrap_or_else(credentials::hostname))
        }
    };
    let pool4 = request.ipv4.as_deref().map(pool).transpose()?;
    Ok(Wish {
        network: network.to_owned(),
        domain,
        peer,
        pool4,
    })
}

fn pool(text: &str) -> Result<Ipv4Net, ApiError> {
    let pool = text
        .parse::<Ipv4Net>()
        .ok()
        .filter(|pool| (8..=23).contains(&pool.prefix_len()));
    let refused = match pool.map(|pool| pool.trunc()) {
        Some(pool) if is_private(pool) => return Ok(pool),
        Some(pool) => format!("{pool} belongs to others: members would not reach them any more"),
        None => format!("{text:?} is no pool of IPv4 addresses"),
    };
    Err(ApiError::bad_request(refused).remedy(
        "a range between /8 and /23 of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10, \
         such as 10.77.0.0/16; or leave --ipv4 out",
    ))
}

/// Whether all of a range is free for private use: RFC 1918 §3, and RFC 6598 §7 as the pools that are drawn.
fn is_private(pool: Ipv4Net) -> bool {
    let private = [
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    private.iter().any(|range| range.contains(&pool))
}

/// Whether the host's resolver already knows something under a domain (design §3).
async fn is_answered(domain: &str) -> bool {
    let name = (domain.to_owned(), 0);
    let asked = tokio::time::timeout(RESOLVER_PATIENCE, tokio::net::lookup_host(name)).await;
    asked.is_ok_and(|answer| answer.is_ok_and(|mut addresses| addresses.next().is_some()))
}

fn init(agent: &mut Agent, wish: Wish) -> Result<String, ApiError> {
    agent.must_be_idle()?;
    let code = try_init(agent, wish).map_err(|error| {
        ApiError::could_not(
            Code::Internal,
            format!("cannot make the network: {error:#}"),
        )
    })?;
    agent.publish();
    Ok(code)
}

/// Everything is on the disk before the device is made, and has its name only once the device stands: a network of
/// which nobody was told is forgotten.
fn try_init(agent: &mut Agent, wish: Wish) -> anyhow::Result<String> {
    let seeds = Agent::draw_seeds();
    let root = RootSeed(sealing::draw());
    let code = root.code();
    let founding = Founding {
        name: wish.network,
        domain: wish.domain,
        peer: wish.peer,
        pool4: wish.pool4,
        root,
        secret: NetSecret(sealing::draw()),
        admission: sealing::draw(),
    };
    let key = NodeKey::from_seed(seeds.node_seed);
    let mut now = clock::now();
    // A machine whose clock stands in 1970 makes no network whose certificates have ended when another reads them.
    now.unix_ms = now.unix_ms.max(starting::built_s() * 1000);
    let (id, restored) = found(now, founding, &key)?;
    let ground = starting::break_ground(&agent.config, &mut agent.supervisor)?;
    let mut folder = agent.state_dir.found(id, seeds)?;
    for record in &restored.records {
        folder
            .records
            .append(record.slot(), record.bytes(), "founding-record")?;
    }
    folder.records.sync()?;
    folder.store_kept(&restored.kept, "founding-state")?;
    agent.bring_up(folder, id, restored, ground, sealing::draw_boot())?;
    agent.settle_up()?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_lies_in_private_space_whole() {
        for (text, taken) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.77.3.4/16", "10.77.0.0/16"),
            ("172.31.0.0/16", "172.31.0.0/16"),
            ("192.168.0.0/16", "192.168.0.0/16"),
            ("100.64.0.0/10", "100.64.0.0/10"),
        ] {
            assert_eq!(pool(text), Ok(taken.parse().unwrap()), "{text}");
        }
        for text in [
            "8.0.0.0/8",
            "172.0.0.0/8",
            "172.32.0.0/16",
            "192.0.0.0/8",
            "100.0.0.0/9",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
        ] {
            let said = pool(text).unwrap_err().line();
            assert!(
                said.starts_with(&format!("{text} belongs to others: ")),
                "{said}"
            );
        }
        for text in ["10.0.0.0/7", "10.0.0.0/24", "10.0.0.0", "fd00::/16", "x"] {
            let said = pool(text).unwrap_err().line();
            assert!(said.contains("is no pool of IPv4 addresses: "), "{said}");
        }
    }
}
