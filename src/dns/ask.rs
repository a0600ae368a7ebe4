//! The question of a person (`webmesh dns query`): the same way through the same bytes as a program's.

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::answer::STREAM;
use crate::tables::Names;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name after completion, without a dot at the end.
    pub name: String,
    /// The records; none if the name exists and has none of this type.
    pub records: Vec<AskedRecord>,
}

/// One record in text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedRecord {
    /// Its type.
    pub kind: String,
    /// What it says, as in a zone file.
    pub data: String,
    /// Seconds.
    pub ttl_s: u32,
}

/// Why nothing can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The name cannot be a domain name.
    #[error("this is no domain name")]
    BadName,
    /// The type has no such name.
    #[error("there is no record type of this name")]
    BadType,
    /// It is in no zone of ours.
    #[error("this name is in no zone of the network")]
    Foreign,
    /// It does not exist.
    #[error("there is no such name")]
    NoSuchName,
}

/// Asks for `name`, completed by the search list (`<domain>`, `svc.<domain>`) unless it ends in a dot. Without a type: A
/// and AAAA. An address is asked for as its reverse name, without a type: PTR. A name that exists without such a record is found without records; among completions, one with records
/// goes before.
///
/// # Errors
/// Name or type cannot be asked for, or the name does not exist.
pub fn ask(
    names: &dyn Names,
    domain: &str,
    name: &str,
    kind: Option<&str>,
) -> Result<Asked, AskError> {
    let address: Option<IpAddr> = name.parse().ok();
    let kinds = match kind {
        None if address.is_some() => vec![RecordType::PTR],
        None => vec![RecordType::A, RecordType::AAAA],
        Some(kind) => vec![
            kind.to_ascii_uppercase()
                .parse()
                .or(Err(AskError::BadType))?,
        ],
    };
    let mut bare = None;
    let mut error = None;
    let names_to_try = match address {
        Some(address) => vec![Name::from(address)],
        None => completions(domain, name)?,
    };
    for full in names_to_try {
        match look_up(names, &full, &kinds) {
            Ok(asked) if !asked.records.is_empty() => return Ok(asked),
            Ok(asked) => bare = bare.or(Some(asked)),
            // What was meant is a name of ours: that it is not there says more than that a longer one is foreign.
            Err(AskError::NoSuchName) => error = Some(AskError::NoSuchName),
            Err(other) => error = error.or(Some(other)),
        }
    }
    bare.ok_or(error.unwrap_or(AskError::NoSuchName))
}

fn completions(domain: &str, name: &str) -> Result<Vec<Name>, AskError> {
    let domain = Name::from_ascii(format!("{domain}.")).or(Err(AskError::BadName))?;
    let mut typed = Name::from_ascii(name).or(Err(AskError::BadName))?;
    let is_final = typed.is_fqdn() || domain.zone_of(&typed);
    let mut names = Vec::new();
    if !is_final {
        let searched = [Some(domain.clone()), domain.prepend_label("svc").ok()];
        for search in searched.into_iter().flatten() {
            names.extend(typed.clone().append_domain(&search).ok());
        }
    }
    typed.set_fqdn(true);
    names.push(typed);
    Ok(names)
}

fn look_up(names: &dyn Names, name: &Name, kinds: &[RecordType]) -> Result<Asked, AskError> {
    let mut records = Vec::new();
    for kind in kinds {
        let message = exchange(names, name, *kind).ok_or(AskError::BadName)?;
        let code = message.metadata.response_code;
        if code == ResponseCode::NXDomain {
            return Err(AskError::NoSuchName);
        }
        if code != ResponseCode::NoError {
            return Err(AskError::Foreign);
        }
        records.extend(message.answers.iter().map(|record| AskedRecord {
            kind: record.record_type().to_string(),
            data: record.data.to_string(),
            ttl_s: record.ttl,
        }));
    }
    let name = name.to_ascii().trim_end_matches('.').to_owned();
    Ok(Asked { name, records })
}

fn exchange(names: &dyn Names, name: &Name, kind: RecordType) -> Option<Message> {
    let mut message = Message::new(0, hickory_proto::op::MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name.clone(), kind));
    let mut bytes = Vec::new();
    names
        .answer(&message.to_vec().ok()?, STREAM, &mut bytes)
        .then_some(())?;
    Message::from_vec(&bytes).ok()
}
