//! `webmesh dns query`: asks the resolver's own names, as a program on this host would; `webmesh dns status`.

use super::Control;
use crate::{
    api::{ApiError, Dns, DnsAnswer, DnsQueryReply, DnsQueryRequest, NetworkRequest},
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
            Err(unknown(control, &request.name, &network.name))
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

fn unknown(control: &Control, name: &str, network: &str) -> ApiError {
    let look = control.look();
    let peers = look.status.peers.iter().map(|peer| peer.name.as_str());
    let services = look.status.services.iter();
    let known = peers.chain(services.map(|service| service.name.as_str()));
    ApiError::no_such_name("name", name, network, known)
}
