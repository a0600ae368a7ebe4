//! `webmesh dns query`: asks the resolver's own names, as a program on this host would; `webmesh dns status`.

use super::Control;
use crate::{
    api::{ApiError, Dns, DnsAnswer, DnsQueryReply, DnsQueryRequest, Network, NetworkRequest},
    daemon::agent::Agent,
    dns::{self, AskError, Asked},
    tables::Names,
};

/// How names resolve here, looked at now.
pub(super) async fn answer_status(
    control: &Control,
    request: NetworkRequest,
) -> Result<Dns, ApiError> {
    if request.network.is_some() {
        control.network_look(request.network.as_deref())?;
    }
    let look_again = |agent: &mut Agent| {
        agent.host_names.look_again();
        agent.publish();
        Ok(())
    };
    control.caller.ask(look_again).await?;
    Ok(control.look().status.dns.clone())
}

pub(super) async fn answer(
    control: &Control,
    request: DnsQueryRequest,
) -> Result<DnsQueryReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    let tables = control
        .caller
        .ask(|agent: &mut Agent| Ok(agent.network()?.tables.load_full()))
        .await?;
    let kind = request.record_type.as_deref();
    let names: &dyn Names = &*tables.names;
    match dns::ask(names, &network.domain, &request.name, kind) {
        Ok(Asked { name, records }) if records.is_empty() => {
            let kind = kind.map_or_else(|| "A or AAAA".to_owned(), str::to_uppercase);
            Err(ApiError::no_such_record(&name, &kind))
        }
        Ok(Asked { name, records }) => Ok(DnsQueryReply {
            name,
            answers: records.into_iter().map(said).collect(),
        }),
        Err(AskError::BadName) => Err(ApiError::bad_request(format!(
            "{:?} is no name",
            request.name
        ))),
        Err(AskError::BadType) => {
            let kind = kind.unwrap_or_default();
            Err(
                ApiError::bad_request(format!("{kind:?} is no type of DNS record"))
                    .remedy("A, AAAA, PTR, SOA or NS"),
            )
        }
        Err(AskError::Foreign | AskError::NoSuchName) => {
            Err(unknown(control, &request.name, &network))
        }
    }
}

fn said(record: dns::AskedRecord) -> DnsAnswer {
    DnsAnswer {
        record_type: record.kind,
        data: record.data,
        ttl_s: record.ttl_s,
    }
}

fn unknown(control: &Control, name: &str, network: &Network) -> ApiError {
    if let Ok(address) = name.parse() {
        return ApiError::foreign_address(address, &network.name);
    }
    let look = control.look();
    let peers = look.status.peers.iter().map(|peer| peer.name.as_str());
    let services = look.status.services.iter();
    let known = peers.chain(services.map(|service| service.name.as_str()));
    let is_above = |label: &str| {
        ABOVE_SERVICES.contains(&label) || look.status.peers.iter().any(|peer| peer.name == label)
    };
    if is_foreign(name, &network.domain, is_above) {
        return ApiError::foreign_name(name.trim_end_matches('.'), &network.domain);
    }
    ApiError::no_such_name("name", name, &network.name, known)
}

/// What stands right of a service's name in short names of ours, beside the names of peers.
const ABOVE_SERVICES: [&str; 2] = ["svc", "inst"];

/// Whether a name that is not there was hardly meant as one of ours: it has dots, is not below the domain, and does not
/// end as short names of services do.
fn is_foreign(name: &str, domain: &str, is_above: impl Fn(&str) -> bool) -> bool {
    let name = name.to_ascii_lowercase();
    let whole = name.trim_end_matches('.');
    let is_below = whole
        .strip_suffix(domain)
        .is_some_and(|head| head.is_empty() || head.ends_with('.'));
    let last = whole.rsplit('.').next().unwrap_or_default();
    let is_short = name == whole && (last == whole || is_above(last));
    !is_below && !is_short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_somebody_else_is_known_by_its_end() {
        let is_foreign = |name| {
            is_foreign(name, "home.internal", |label| {
                ["svc", "bo"].contains(&label)
            })
        };
        for foreign in [
            "example.com",
            "Example.COM.",
            "internal.",
            "ahome.internal",
            "com.",
        ] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for ours in [
            "boo",
            "wbe.svc",
            "web.bo",
            "boo.home.internal",
            "BOO.home.internal.",
            "home.internal",
        ] {
            assert!(!is_foreign(ours), "{ours}");
        }
    }
}
