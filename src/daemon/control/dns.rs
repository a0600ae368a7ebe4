//! `webmesh dns query`: asks the resolver's own tables, as a program on this host would.

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::Control;
use crate::{
    api::{ApiError, DnsAnswer, DnsQueryReply, DnsQueryRequest},
    daemon::agent::Agent,
    tables::Names,
};

/// The id of our own queries; nobody else sees them.
const ID: u16 = 1;

pub(super) async fn answer(
    control: &Control,
    request: DnsQueryRequest,
) -> Result<DnsQueryReply, ApiError> {
    let (_, network) = control.network_look(request.network.as_deref())?;
    let types = record_types(request.record_type.as_deref())?;
    let names = control
        .caller
        .ask(|agent: &mut Agent| Ok(agent.network()?.tables.load_full()))
        .await?;
    let mut without_record = None;
    for full in candidates(&request.name, &network.domain) {
        let mut answers = Vec::new();
        for record_type in &types {
            match ask(&*names.names, &full, *record_type)? {
                Found::Records(found) => answers.extend(found),
                Found::NameAlone => without_record = Some(full.clone()),
                Found::Nothing => {}
            }
        }
        if !answers.is_empty() {
            return Ok(DnsQueryReply {
                name: full,
                answers,
            });
        }
    }
    if let (Some(name), Some(asked)) = (without_record, &request.record_type) {
        return Err(ApiError::no_such_record(&name, &asked.to_uppercase()));
    }
    let look = control.look();
    let peers = look.status.peers.iter().map(|peer| peer.name.as_str());
    let known = peers.chain(
        look.status
            .services
            .iter()
            .map(|service| service.name.as_str()),
    );
    Err(ApiError::no_such_name(
        "name",
        &request.name,
        &network.name,
        known,
    ))
}

fn record_types(wanted: Option<&str>) -> Result<Vec<RecordType>, ApiError> {
    match wanted {
        None => Ok(vec![RecordType::A, RecordType::AAAA]),
        Some(text) => text
            .to_uppercase()
            .parse()
            .map(|record_type| vec![record_type])
            .map_err(|_unknown| {
                ApiError::bad_request(format!("{text:?} is no type of DNS record"))
                    .remedy("A, AAAA, PTR, SOA or NS")
            }),
    }
}

/// The name as it stands, then with the search list; one that ends in a dot stands for itself.
fn candidates(name: &str, domain: &str) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![whole.to_owned()];
    }
    vec![
        name.to_owned(),
        format!("{name}.{domain}"),
        format!("{name}.svc.{domain}"),
    ]
}

/// What the resolver said to one question.
enum Found {
    Records(Vec<DnsAnswer>),
    NameAlone,
    Nothing,
}

fn ask(names: &dyn Names, name: &str, record_type: RecordType) -> Result<Found, ApiError> {
    let name = Name::from_ascii(format!("{name}."))
        .map_err(|_malformed| ApiError::bad_request(format!("{name:?} is no name")))?;
    let mut query = Message::new(ID, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, record_type));
    let bytes = query
        .to_vec()
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut answer = Vec::new();
    if !names.answer(&bytes, usize::from(u16::MAX), &mut answer) {
        return Ok(Found::Nothing);
    }
    let message =
        Message::from_vec(&answer).map_err(|error| ApiError::internal(error.to_string()))?;
    if message.metadata.response_code != ResponseCode::NoError {
        return Ok(Found::Nothing);
    }
    if message.answers.is_empty() {
        return Ok(Found::NameAlone);
    }
    let said = message.answers.iter().map(|record| DnsAnswer {
        record_type: record.record_type().to_string(),
        data: record.data.to_string(),
        ttl_s: record.ttl,
    });
    Ok(Found::Records(said.collect()))
}
