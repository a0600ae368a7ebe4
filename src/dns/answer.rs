//! A query's answer.

use hickory_proto::{
    op::{Edns, Message, Metadata, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, HINFO, NS, PTR, SOA},
    },
    serialize::binary::{BinEncodable, BinEncoder},
};

use super::{
    question::{NoQuestion, Question},
    zone::{Addresses, Family, Holding, SERVER, Zone},
};
use crate::tables::Names;

/// A limit that means "no datagram": an answer over TCP may be this long, and what the asker says of datagrams does not
/// bind it.
pub const STREAM: usize = 65_535;

/// The longest query looked at, bytes. Real ones have at most 300; padding (RFC 7830) makes 468. Longer is silence.
pub const LONGEST_QUERY: usize = 4096;

/// How long an answer may be kept, seconds. Instances come and go; a longer time would keep programs with a dead one.
const TTL: u32 = 5;

/// How long it may be kept that there is no answer, seconds: who adds a name asks for it at once, and had perhaps asked
/// just before.
const NEGATIVE_TTL: u32 = 1;

/// The longest datagram we take (EDNS), bytes: fits an IPv6 packet of 1280 (DNS flag day 2020).
const OUR_PAYLOAD: u16 = 1232;

/// Times of the SOA, seconds: nobody transfers this zone, so they only have to be sane.
const SOA_TIMES: (i32, i32, i32) = (3600, 600, 86_400);

impl Names for Zone {
    fn answer(&self, query: &[u8], limit: usize, answer: &mut Vec<u8>) -> bool {
        self::answer(self, query, limit, answer)
    }

    fn is_foreign(&self, query: &[u8]) -> bool {
        super::forward::is_foreign(self, query)
    }
}

/// Writes the answer to `query` into `out` (cleared first): at most `limit` bytes, with TC set and no records where they
/// do not fit. False: say nothing.
///
/// For a datagram give what the way carries; the answer then also keeps to what the asker takes, 512 bytes without EDNS.
/// Over TCP give [`STREAM`]. Addresses are rotated by the query's id.
pub fn answer(zone: &Zone, query: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    if query.len() > LONGEST_QUERY {
        return false;
    }
    let question = match Question::parse(query) {
        Ok(question) => question,
        Err(NoQuestion::Silence) => return false,
        Err(NoQuestion::NotImplemented(asked)) => {
            return write_bare(&asked, ResponseCode::NotImp, limit, out);
        }
        Err(NoQuestion::Malformed(asked)) => {
            return write_bare(&asked, ResponseCode::FormErr, limit, out);
        }
    };
    let limit = match question.edns {
        _ if limit >= STREAM => STREAM,
        Some(edns) => limit.min(edns.payload),
        None => limit.min(512),
    };
    let message = respond(zone, &question, limit);
    write(&message, limit, out) || write(&message.truncate(), limit, out)
}

fn respond(zone: &Zone, question: &Question, limit: usize) -> Message {
    let asked = &question.metadata;
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    message.add_query(question.query.clone());
    if let Some(edns) = question.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(OUR_PAYLOAD)
            .set_version(0)
            .set_dnssec_ok(edns.dnssec_ok);
        message.set_edns(ours);
        if edns.version != 0 {
            message.metadata.response_code = ResponseCode::BADVERS;
            return message;
        }
    }
    message.metadata.response_code = fill(zone, question, limit, &mut message);
    message.metadata.authoritative = message.metadata.response_code != ResponseCode::Refused;
    message
}

/// Adds the records of the answer; the code is what the header says of them.
fn fill(zone: &Zone, question: &Question, limit: usize, message: &mut Message) -> ResponseCode {
    let query = &question.query;
    let kind = query.query_type();
    let is_ours = matches!(query.query_class(), DNSClass::IN | DNSClass::ANY);
    if !is_ours || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return ResponseCode::Refused;
    }
    let lower = query.name().to_lowercase();
    let labels: Vec<&[u8]> = lower.iter().collect();
    let (apex, records) = match zone.holding(&labels) {
        Holding::Foreign => return ResponseCode::Refused,
        Holding::Nothing { apex } => {
            message.add_authority(soa(zone, &lower, apex));
            return ResponseCode::NXDomain;
        }
        Holding::Apex { apex } => (apex, at_apex(zone, kind)),
        Holding::Host { apex, addresses } => {
            let turn = usize::from(question.metadata.id);
            (apex, addresses_of(zone, addresses, kind, turn, limit))
        }
        Holding::Pointer { apex, name } if kind == RecordType::PTR => (
            apex,
            under(zone, name)
                .map(|name| RData::PTR(PTR(name)))
                .into_iter()
                .collect(),
        ),
        Holding::Pointer { apex, .. } | Holding::Bough { apex } => (apex, Vec::new()),
    };
    let owner = query.name();
    if kind == RecordType::ANY {
        let minimal = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        message.add_answer(Record::from_rdata(owner.clone(), TTL, minimal));
    } else if records.is_empty() {
        message.add_authority(soa(zone, &lower, apex));
    } else {
        message.add_answers(
            records
                .into_iter()
                .map(|data| Record::from_rdata(owner.clone(), TTL, data)),
        );
    }
    ResponseCode::NoError
}

fn at_apex(zone: &Zone, kind: RecordType) -> Vec<RData> {
    if kind == RecordType::SOA {
        vec![RData::SOA(soa_data(zone))]
    } else if kind == RecordType::NS {
        under(zone, SERVER)
            .map(|name| RData::NS(NS(name)))
            .into_iter()
            .collect()
    } else {
        Vec::new()
    }
}

/// The addresses of the type asked for, beginning with another one each `turn`; no more than could fit `limit`.
fn addresses_of(
    zone: &Zone,
    addresses: &Addresses,
    kind: RecordType,
    turn: usize,
    limit: usize,
) -> Vec<RData> {
    let data: Vec<RData> = if kind == RecordType::A && zone.family == Family::Both {
        rotated(
            addresses.v4.iter(),
            addresses.v4.len(),
            turn,
            limit / SHORTEST_A,
        )
        .map(|address| RData::A(A(*address)))
        .collect()
    } else if kind == RecordType::AAAA {
        rotated(
            addresses.v6.iter(),
            addresses.v6.len(),
            turn,
            limit / SHORTEST_AAAA,
        )
        .map(|address| RData::AAAA(AAAA(*address)))
        .collect()
    } else {
        Vec::new()
    };
    data
}

/// The shortest A record on the wire: a pointer to its name, ten fixed bytes, the address. One more than fits is made, so
/// that what is left out is noticed.
const SHORTEST_A: usize = 2 + 10 + 4;
const SHORTEST_AAAA: usize = 2 + 10 + 16;

fn rotated<'a, T: 'a>(
    all: impl Iterator<Item = &'a T> + Clone,
    count: usize,
    turn: usize,
    most: usize,
) -> impl Iterator<Item = &'a T> {
    let first = turn.checked_rem(count).unwrap_or(0);
    all.clone()
        .skip(first)
        .chain(all.take(first))
        .take(most + 1)
}

/// The SOA of the zone in which `name` lies, its own name being the last `apex` labels.
fn soa(zone: &Zone, name: &Name, apex: usize) -> Record {
    Record::from_rdata(name.trim_to(apex), NEGATIVE_TTL, RData::SOA(soa_data(zone)))
}

fn soa_data(zone: &Zone) -> SOA {
    let (refresh, retry, expire) = SOA_TIMES;
    let server = under(zone, SERVER).unwrap_or_else(|| zone.domain.clone());
    let person = under(zone, "admin").unwrap_or_else(|| zone.domain.clone());
    SOA::new(
        server,
        person,
        zone.serial,
        refresh,
        retry,
        expire,
        NEGATIVE_TTL,
    )
}

/// A name of ours under the domain.
fn under(zone: &Zone, name: &str) -> Option<Name> {
    let mut whole = Name::from_ascii(name).ok()?;
    whole.set_fqdn(false);
    whole.append_domain(&zone.domain).ok()
}

/// An answer that is a header alone, where the question cannot be repeated.
fn write_bare(asked: &Metadata, code: ResponseCode, limit: usize, out: &mut Vec<u8>) -> bool {
    let mut message = Message::error_msg(asked.id, asked.op_code, code);
    message.metadata.recursion_desired = asked.recursion_desired;
    write(&message, limit, out)
}

/// Whether the whole message fits and was written.
fn write(message: &Message, limit: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut encoder = BinEncoder::new(out);
    encoder.set_max_size(u16::try_from(limit).unwrap_or(u16::MAX));
    let is_whole = message.emit(&mut encoder).is_ok() && !was_cut(message, out);
    if !is_whole {
        out.clear();
    }
    is_whole
}

/// Whether the encoder left records out: it then sets TC by itself.
fn was_cut(message: &Message, written: &[u8]) -> bool {
    const TC: u8 = 0x02;
    let has_tc = written.get(2).is_some_and(|flags| flags & TC != 0);
    has_tc && !message.metadata.truncation
}
