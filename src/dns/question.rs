//! A query taken apart: only what an answer needs, and nothing allocated for the rest.

use hickory_proto::{
    op::{Header, MessageType, Metadata, OpCode, Query},
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// A query that can be answered.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Id and flags.
    pub(super) metadata: Metadata,
    /// What is asked, its letters as they were typed.
    pub(super) query: Query,
    /// What the asker says of itself.
    pub(super) edns: Option<Edns>,
}

/// The fixed part of an OPT record (RFC 6891 §6.1.3); options are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    /// The longest datagram the asker takes, at least 512.
    pub(super) payload: usize,
    /// The version it speaks.
    pub(super) version: u8,
    /// Whether DNSSEC records are welcome; copied into the answer (RFC 3225 §3).
    pub(super) dnssec_ok: bool,
}

/// Why there is no question.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoQuestion {
    /// Not a query at all: say nothing.
    Silence,
    /// A query of an operation that is not ours.
    NotImplemented(Metadata),
    /// A header of a query, and what follows is not one.
    Malformed(Metadata),
}

/// The most additional records looked at for an OPT: real queries have an OPT and perhaps a TSIG.
const MOST_ADDITIONALS: u16 = 4;

impl Question {
    /// Takes a query apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NoQuestion> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).or(Err(NoQuestion::Silence))?;
        let metadata = header.metadata;
        if metadata.message_type == MessageType::Response {
            return Err(NoQuestion::Silence);
        }
        if metadata.op_code != OpCode::Query {
            return Err(NoQuestion::NotImplemented(metadata));
        }
        let counts = header.counts;
        let is_usual = counts.queries == 1
            && counts.answers == 0
            && counts.authorities == 0
            && counts.additionals <= MOST_ADDITIONALS;
        let malformed = NoQuestion::Malformed(metadata);
        if !is_usual {
            return Err(malformed);
        }
        let query = Query::read(&mut decoder).or(Err(malformed))?;
        let edns = read_edns(&mut decoder, counts.additionals).ok_or(malformed)?;
        Ok(Self {
            metadata,
            query,
            edns,
        })
    }
}

/// The OPT among the additional records; None if they cannot be read, or there are two.
fn read_edns(decoder: &mut BinDecoder<'_>, count: u16) -> Option<Option<Edns>> {
    let mut found = None;
    for _ in 0..count {
        let owner = Name::read(decoder).ok()?;
        let kind = decoder.read_u16().ok()?.unverified();
        let class = decoder.read_u16().ok()?.unverified();
        let ttl = decoder.read_u32().ok()?.unverified();
        let length = decoder.read_u16().ok()?.unverified();
        decoder.read_slice(usize::from(length)).ok()?;
        if RecordType::from(kind) != RecordType::OPT {
            continue;
        }
        if found.is_some() || !owner.is_root() {
            return None;
        }
        let [_, version, flags, _] = ttl.to_be_bytes();
        found = Some(Edns {
            payload: usize::from(class).max(512),
            version,
            dnssec_ok: flags & 0x80 != 0,
        });
    }
    Some(found)
}
