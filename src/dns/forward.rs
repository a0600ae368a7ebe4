//! Names that are somebody else's: what is asked of another server on behalf of this host, and what of its answer is let
//! through (design §11, `dns takeover`). A name of ours is never forwarded.

use hickory_proto::{
    op::{Message, MessageType, Metadata, ResponseCode},
    rr::{
        DNSClass, RData, RecordType,
        rdata::{
            HTTPS,
            svcb::{SVCB, SvcParamValue},
        },
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    question::Question,
    zone::{Holding, Zone},
};

/// A question on its way: what was asked, and the id under which it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    query: Vec<u8>,
    id: u16,
    /// The question as it stands on the wire, without regard to case.
    question: Vec<u8>,
    limit: usize,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer for whoever asked.
    Answer(Vec<u8>),
    /// An answer, and another server may know better.
    Poor(Vec<u8>),
    /// Not the answer to this question: it may still come.
    Foreign,
}

/// Bytes before the question.
const HEADER: usize = 12;

/// Whether a query is a good question for a name outside our zones.
pub(super) fn is_foreign(zone: &Zone, query: &[u8]) -> bool {
    let Ok(question) = Question::parse(query) else {
        return false;
    };
    let query = question.query;
    let is_plain = matches!(query.query_class(), DNSClass::IN)
        && !matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    let lower = query.name().to_lowercase();
    let labels: Vec<&[u8]> = lower.iter().collect();
    is_plain && matches!(zone.holding(&labels), Holding::Foreign)
}

impl Forwarded {
    /// Takes a query under a new id, which should be drawn; None for what is no question. `limit` is what the way back to
    /// the asker carries, [`super::STREAM`] over TCP.
    pub fn new(query: &[u8], id: u16, limit: usize) -> Option<Self> {
        let parsed = Question::parse(query).ok()?;
        let limit = match parsed.edns {
            _ if limit >= super::STREAM => super::STREAM,
            Some(edns) => limit.min(edns.payload),
            None => limit.min(512),
        };
        Some(Self {
            question: question_bytes(query)?.to_ascii_lowercase(),
            query: query.to_owned(),
            id,
            limit,
        })
    }

    /// What goes to the other server.
    pub fn outgoing(&self) -> Vec<u8> {
        with_id(self.query.clone(), self.id.to_be_bytes())
    }

    /// Judges what came from the other server. Addresses of `mesh` in it are a stranger's attempt to lead programs of this
    /// host to machines of ours: the answer is then that there is none.
    pub fn judge(&self, bytes: &[u8], mesh: &[IpNet]) -> Reply {
        let is_ours = bytes.get(..2) == Some(&self.id.to_be_bytes()[..])
            && question_bytes(bytes)
                .is_some_and(|question| question.eq_ignore_ascii_case(&self.question));
        let Some(message) = is_ours.then(|| Message::from_vec(bytes).ok()).flatten() else {
            return Reply::Foreign;
        };
        if message.metadata.message_type != MessageType::Response {
            return Reply::Foreign;
        }
        if message
            .answers
            .iter()
            .any(|record| leads_into(&record.data, mesh))
        {
            return self
                .reply(ResponseCode::NoError)
                .map_or(Reply::Foreign, Reply::Answer);
        }
        let code = message.metadata.response_code;
        let answer = self.fitted(bytes, &message);
        if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            Reply::Answer(answer)
        } else {
            Reply::Poor(answer)
        }
    }

    /// Whether the name has `domain` inside: a name of ours that the C library has put a search domain of others behind.
    pub fn mentions(&self, domain: &str) -> bool {
        let label = |label: &str| {
            let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
            [&[length], label.as_bytes()].concat()
        };
        let run: Vec<u8> = domain.split('.').flat_map(label).collect();
        let mut places = self.question.windows(run.len());
        !domain.is_empty() && places.any(|place| place.eq_ignore_ascii_case(&run))
    }

    /// That there is no such name.
    pub fn denial(&self) -> Option<Vec<u8>> {
        self.reply(ResponseCode::NXDomain)
    }

    /// What the asker is told when nobody answers.
    pub fn failure(&self) -> Option<Vec<u8>> {
        self.reply(ResponseCode::ServFail)
    }

    /// A reply without records.
    fn reply(&self, code: ResponseCode) -> Option<Vec<u8>> {
        let question = Question::parse(&self.query).ok()?;
        let mut message = Message::response(question.metadata.id, question.metadata.op_code);
        message.metadata = Metadata::response_from_request(&question.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(question.query);
        message.to_vec().ok()
    }

    /// The answer under the asker's id; cut, and marked as cut, where it is too long for the way back.
    fn fitted(&self, bytes: &[u8], message: &Message) -> Vec<u8> {
        let id = [self.query[0], self.query[1]];
        if bytes.len() > self.limit
            && let Ok(cut) = message.truncate().to_vec()
        {
            return with_id(cut, id);
        }
        with_id(bytes.to_owned(), id)
    }
}

fn with_id(mut bytes: Vec<u8>, id: [u8; 2]) -> Vec<u8> {
    if let Some(place) = bytes.first_chunk_mut::<2>() {
        *place = id;
    }
    bytes
}

/// The one question, as it stands behind the header: labels without compression, type and class.
fn question_bytes(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6) != Some(&[0, 1]) {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        if length >= 0xc0 {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            return message.get(HEADER..at + 4);
        }
    }
}

fn leads_into(data: &RData, mesh: &[IpNet]) -> bool {
    if let RData::A(a) = data {
        return holds(mesh, a.0.into());
    }
    if let RData::AAAA(aaaa) = data {
        return holds(mesh, aaaa.0.to_canonical());
    }
    if let RData::HTTPS(HTTPS(svcb)) | RData::SVCB(svcb) = data {
        return hints_into(svcb, mesh);
    }
    false
}

fn hints_into(svcb: &SVCB, mesh: &[IpNet]) -> bool {
    svcb.svc_params.iter().any(|(_, value)| {
        if let SvcParamValue::Ipv4Hint(hint) = value {
            return hint.0.iter().any(|a| holds(mesh, a.0.into()));
        }
        if let SvcParamValue::Ipv6Hint(hint) = value {
            return hint.0.iter().any(|a| holds(mesh, a.0.to_canonical()));
        }
        false
    })
}

fn holds(mesh: &[IpNet], address: std::net::IpAddr) -> bool {
    mesh.iter().any(|net| net.contains(&address))
}

/// A network's two ranges, as [`Forwarded::judge`] wants them.
pub fn ranges(pool4: Ipv4Net, prefix6: Ipv6Net) -> [IpNet; 2] {
    [pool4.into(), prefix6.into()]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::{OpCode, Query},
        rr::{Name, Record, rdata::A},
    };

    use super::*;

    const ID: u16 = 0xbeef;

    fn mesh() -> [IpNet; 2] {
        ranges(
            "100.71.0.0/16".parse().unwrap(),
            "fd7c:1a2b:3c4d::/48".parse().unwrap(),
        )
    }

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn forwarded(name: &str) -> Forwarded {
        Forwarded::new(&query(name, RecordType::A), ID, 1232).unwrap()
    }

    fn answer_to(forwarded: &Forwarded, addresses: &[[u8; 4]]) -> Message {
        let asked = Message::from_vec(&forwarded.outgoing()).unwrap();
        let mut message = Message::response(asked.metadata.id, OpCode::Query);
        let name = asked.queries[0].name().clone();
        message.add_query(asked.queries[0].clone());
        for address in addresses {
            let data = RData::A(A(Ipv4Addr::from(*address)));
            message.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
        message
    }

    #[test]
    fn names_of_ours_are_never_forwarded_and_those_of_others_are() {
        let zone = crate::dns::tests::zone();
        for ours in [
            "home.internal.",
            "anna.home.internal.",
            "nobody.home.internal.",
            "WEB.svc.Home.Internal.",
            "a.b.c.d.home.internal.",
            "9.20.71.100.in-addr.arpa.",
            "255.71.100.in-addr.arpa.",
            "71.100.in-addr.arpa.",
            "_x.home.internal.",
        ] {
            for kind in [
                RecordType::A,
                RecordType::AAAA,
                RecordType::MX,
                RecordType::PTR,
            ] {
                assert!(!is_foreign(&zone, &query(ours, kind)), "{ours}");
            }
        }
        for theirs in [
            "example.com.",
            "internal.",
            "xhome.internal.",
            "home.internal.example.com.",
            "1.2.0.192.in-addr.arpa.",
        ] {
            assert!(is_foreign(&zone, &query(theirs, RecordType::A)), "{theirs}");
        }
        assert!(!is_foreign(&zone, &query("example.com.", RecordType::AXFR)));
        for broken in [&[][..], &[0; 11], &[0xff; 40]] {
            assert!(!is_foreign(&zone, broken));
        }
    }

    #[test]
    fn the_answer_comes_back_under_the_askers_id() {
        let asked = forwarded("www.example.com.");
        assert_eq!(asked.outgoing()[..2], ID.to_be_bytes());
        let answer = answer_to(&asked, &[[192, 0, 2, 1]]).to_vec().unwrap();
        let Reply::Answer(answer) = asked.judge(&answer, &mesh()) else {
            panic!("no answer");
        };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (7, 1));
    }

    #[test]
    fn answers_to_other_questions_and_garbage_are_passed_over() {
        let asked = forwarded("www.example.com.");
        let good = answer_to(&asked, &[[192, 0, 2, 1]]);
        let mut other_id = good.clone();
        other_id.metadata.id = ID ^ 1;
        let other_name = answer_to(&forwarded("evil.example.com."), &[[192, 0, 2, 1]]);
        let mut other_type = good.clone();
        other_type.queries[0].set_query_type(RecordType::AAAA);
        let mut a_query = good.clone();
        a_query.metadata.message_type = MessageType::Query;
        let good = good.to_vec().unwrap();
        for wrong in [other_id, other_name, other_type, a_query] {
            assert_eq!(
                asked.judge(&wrong.to_vec().unwrap(), &mesh()),
                Reply::Foreign
            );
        }
        for cut in 0..good.len() {
            assert_eq!(asked.judge(&good[..cut], &mesh()), Reply::Foreign, "{cut}");
        }
    }

    #[test]
    fn an_answer_that_leads_into_the_mesh_becomes_no_answer() {
        let asked = forwarded("rebind.example.com.");
        let evil = answer_to(&asked, &[[192, 0, 2, 1], [100, 71, 3, 4]]);
        let Reply::Answer(answer) = asked.judge(&evil.to_vec().unwrap(), &mesh()) else {
            panic!("no answer");
        };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers.len(), 0);
        assert_eq!(
            (answer.metadata.id, answer.metadata.response_code),
            (7, ResponseCode::NoError)
        );
    }

    #[test]
    fn a_name_of_ours_with_something_behind_it_is_known() {
        for (name, is_ours) in [
            ("nobody.home.internal.lan.", true),
            ("nobody.HOME.internal.example.com.", true),
            ("home.internal.lan.", true),
            ("home.internals.lan.", false),
            ("xhome.internal.lan.", false),
            ("home.example.com.", false),
        ] {
            assert_eq!(forwarded(name).mentions("home.internal"), is_ours, "{name}");
        }
        let denial =
            Message::from_vec(&forwarded("a.home.internal.lan.").denial().unwrap()).unwrap();
        assert_eq!(denial.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn a_server_that_cannot_is_no_last_word() {
        let asked = forwarded("www.example.com.");
        for code in [ResponseCode::ServFail, ResponseCode::Refused] {
            let mut poor = answer_to(&asked, &[]);
            poor.metadata.response_code = code;
            assert!(matches!(
                asked.judge(&poor.to_vec().unwrap(), &mesh()),
                Reply::Poor(_)
            ));
        }
        let failure = Message::from_vec(&asked.failure().unwrap()).unwrap();
        assert_eq!(
            (failure.metadata.id, failure.metadata.response_code),
            (7, ResponseCode::ServFail)
        );
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_cut_and_says_so() {
        let asked = forwarded("long.example.com.");
        let long = answer_to(&asked, &[[192, 0, 2, 1]; 100]).to_vec().unwrap();
        let Reply::Answer(cut) = asked.judge(&long, &mesh()) else {
            panic!("no answer");
        };
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.metadata.id == 7);
        let over_tcp = Forwarded::new(
            &query("long.example.com.", RecordType::A),
            ID,
            super::super::STREAM,
        )
        .unwrap();
        let Reply::Answer(whole) = over_tcp.judge(&long, &mesh()) else {
            panic!("no answer");
        };
        assert_eq!(whole.len(), long.len());
    }
}
