//! A million broken inputs to every decoder: none panics, none costs more than 8 KiB.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use webmesh::{
    dns::{self, Zone, zone},
    hash::{Use, short},
    keys::{RootSeed, Token},
    packet::{
        icmp::{self, Unreachable},
        ip::{Header, Ports},
        tcp::{SYN, Segment},
        turn::{self, Turn},
        udp,
    },
    transport::layout::{Answer, Init},
    wire::{datagram::classify, exchange, frame, record::Record, sealed},
};

use crate::{
    allocation::asked_by,
    samples::{self, Unsealed},
};

const ALL: usize = 1_000_000;
const LIMIT: usize = 8 * 1024;
/// CBOR heads and lengths that decoders stumble over.
const NASTY: [u8; 16] = [
    0, 1, 0x17, 0x18, 0x1b, 0x5b, 0x7f, 0x80, 0x9b, 0x9f, 0xa0, 0xbb, 0xbf, 0xc0, 0xf6, 0xff,
];

struct Mutator {
    random: ChaCha8Rng,
    samples: Vec<Vec<u8>>,
}

impl Mutator {
    fn new(seed: u64, samples: Vec<Vec<u8>>) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            samples,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.next_u64() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// A sample with one to four things done to it.
    fn next(&mut self) -> Vec<u8> {
        let which = self.below(self.samples.len());
        let mut bytes = self.samples[which].clone();
        for _ in 0..=self.below(4) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let len = self.below(16).min(bytes.len() - at);
        match self.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            2 | 3 if !bytes.is_empty() => bytes[at] = NASTY[self.below(NASTY.len())],
            4 => bytes.insert(at, NASTY[self.below(NASTY.len())]),
            5 => drop(bytes.drain(at..at + len)),
            6 => {
                let piece = bytes[at..at + len].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = self.below(self.samples.len());
                let from = self.below(self.samples[other].len());
                let end = (from + len).min(self.samples[other].len());
                let piece = self.samples[other][from..end].to_vec();
                bytes.splice(at..(at + piece.len()).min(bytes.len()), piece);
            }
        }
    }
}

fn each_costs_little(rounds: usize, mut mutator: Mutator, mut decode: impl FnMut(&[u8])) {
    for round in 0..rounds {
        let bytes = mutator.next();
        let asked = asked_by(|| decode(&bytes));
        assert!(
            asked <= LIMIT,
            "round {round}: {asked} bytes for {}",
            data_encoding::HEXLOWER.encode(&bytes)
        );
    }
}

fn bytes_of(named: Vec<samples::Named>) -> Vec<Vec<u8>> {
    named.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn mutated_frames_of_the_exchange_are_harmless() {
    let frames = [
        exchange::init_frames(1, &[7; exchange::INIT_LEN]).to_vec(),
        exchange::response_frames(1, &[7; exchange::RESPONSE_LEN]).to_vec(),
        vec![exchange::done_frame(1, &[7; exchange::DONE_LEN])],
        vec![exchange::please_frame(1)],
    ];
    let mut read = 0;
    let mut init = [1; exchange::INIT_LEN];
    let mut response = [1; exchange::RESPONSE_LEN];
    each_costs_little(ALL / 20, Mutator::new(7, frames.concat()), |bytes| {
        read += usize::from(exchange::decode(bytes).is_ok());
        let _refused = frame::decode(bytes);
        let head = bytes.len().min(80);
        init[..head].copy_from_slice(&bytes[..head]);
        response[..head].copy_from_slice(&bytes[..head]);
        let _refused = (Init::decode(&init), Answer::decode(&response));
    });
    assert!(read > 0, "some are still frames");
}

#[test]
fn mutated_datagrams_are_harmless() {
    let samples = [
        bytes_of(samples::datagrams()),
        bytes_of(samples::sealed_datagrams()),
    ]
    .concat();
    let key = samples::secret().knock_key(samples::bob().id());
    let mut told = 0;
    each_costs_little(ALL / 5, Mutator::new(1, samples), |bytes| {
        told += usize::from(classify(bytes).is_ok());
        let _refused = sealed::open(bytes, &key);
    });
    assert!(told > 1000, "mutations still look like datagrams: {told}");
}

#[test]
fn mutated_frames_are_harmless() {
    let mut known = 0;
    each_costs_little(
        ALL / 5,
        Mutator::new(2, bytes_of(samples::frames())),
        |bytes| {
            known += usize::from(frame::decode(bytes).is_ok());
            let _no_frame = frame::unshape(bytes).map(frame::decode);
            let _imitation = frame::is_control_shape(bytes);
        },
    );
    assert!(known > 1000, "mutations still look like frames: {known}");
}

#[test]
fn mutated_bodies_in_whole_frames_are_harmless() {
    let bodies = samples::messages()
        .iter()
        .map(|(_, message)| message.body())
        .collect();
    let kinds: Vec<u8> = samples::messages()
        .iter()
        .map(|(_, message)| message.kind())
        .collect();
    let (mut turn, mut known) = (0, 0);
    each_costs_little(ALL / 5, Mutator::new(3, bodies), |bytes| {
        turn += 1;
        let kind = kinds[turn % kinds.len()];
        known += usize::from(webmesh::wire::message::Message::decode(kind, bytes).is_ok());
    });
    assert!(known > 1000, "mutations still look like bodies: {known}");
}

#[test]
fn mutated_records_are_harmless() {
    let mut usable = 0;
    each_costs_little(
        ALL / 4,
        Mutator::new(4, bytes_of(samples::records())),
        |bytes| {
            let record = Record::decode(bytes);
            usable += usize::from(record.is_ok_and(|record| record.body().is_ok()));
        },
    );
    assert!(usable > 1000, "mutations still look like records: {usable}");
}

#[test]
fn mutated_bodies_behind_the_right_key_are_harmless() {
    let unsealed = samples::unsealed();
    let bodies = unsealed
        .iter()
        .map(|unsealed| unsealed.body.body())
        .collect();
    let mut mutator = Mutator::new(5, bodies);
    let mut opened = 0;
    for round in 0..ALL / 20 {
        let Unsealed { header, key, .. } = unsealed[round % unsealed.len()];
        let mut body = mutator.next();
        body.truncate(1148);
        let datagram = sealed::seal(header, samples::NONCE, &key, &body).unwrap();
        let asked = asked_by(|| opened += usize::from(sealed::open(&datagram, &key).is_ok()));
        assert!(
            asked <= LIMIT,
            "round {round}: {asked} bytes for {}",
            data_encoding::HEXLOWER.encode(&body)
        );
    }
    assert!(opened > 1000, "mutations still look like bodies: {opened}");
}

#[test]
fn mutated_texts_are_harmless() {
    let samples = samples::texts()
        .into_iter()
        .map(|(_, text)| text.into_bytes())
        .collect();
    each_costs_little(ALL / 10, Mutator::new(6, samples), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _refused = text.parse::<Token>();
        let _refused = RootSeed::parse_code(&text);
    });
}

/// Tokens whose check is right, so that what stands behind it is read.
#[test]
fn mutated_tokens_with_a_good_check_are_harmless() {
    let whole = samples::token().to_string();
    let letters = whole.trim_start_matches("wm1-").to_ascii_uppercase();
    let bytes = data_encoding::BASE32_NOPAD
        .decode(letters.as_bytes())
        .unwrap();
    let content = bytes[..bytes.len() - 4].to_vec();
    let mut mutator = Mutator::new(9, vec![content]);
    let mut parsed = 0;
    for round in 0..ALL / 20 {
        let mut bytes = mutator.next();
        let check: [u8; 4] = short(Use::Token, &[&bytes]);
        bytes.extend_from_slice(&check);
        let text = format!("wm1-{}", data_encoding::BASE32_NOPAD.encode(&bytes));
        let asked = asked_by(|| parsed += usize::from(text.parse::<Token>().is_ok()));
        assert!(asked <= LIMIT, "round {round}: {asked} bytes for {text}");
    }
    assert!(parsed > 1000, "mutations still look like tokens: {parsed}");
}

/// Otherwise a decoder could be left out above.
#[test]
fn the_samples_hold_every_kind() {
    let kinds = |end: u8, is_known: &dyn Fn(u8) -> bool| (0..=end).filter(|k| is_known(*k)).count();
    let messages: BTreeSet<u8> = samples::messages().iter().map(|(_, m)| m.kind()).collect();
    assert_eq!(messages.len(), 28, "{messages:?}");
    let records = samples::records();
    let of = |kind: u8| records.iter().any(|(_, bytes)| bytes.get(1) == Some(&kind));
    assert_eq!(kinds(12, &of), 12, "kinds 1 to 12");
    let datagrams = samples::sealed_datagrams();
    let of = |kind: u8| datagrams.iter().any(|(_, bytes)| bytes[2] == kind);
    assert_eq!(kinds(5, &of), 5, "sealed kinds 1 to 5");
}

fn home() -> Zone {
    let facts = zone::Facts {
        domain: "home.internal".into(),
        serial: 7,
        pool4: "100.71.0.0/16".parse().unwrap(),
        prefix6: "fd7c:1a2b:3c4d::/48".parse().unwrap(),
        resolver4: "100.71.255.53".parse().unwrap(),
        resolver6: "fd7c:1a2b:3c4d::53".parse().unwrap(),
        family: zone::Family::Both,
        peers: vec![zone::Peer {
            name: "anna".into(),
            v4: Some("100.71.20.9".parse().unwrap()),
            v6: "fd7c:1a2b:3c4d:9c41::1".parse().unwrap(),
        }],
        services: Vec::new(),
    };
    Zone::new(&facts).unwrap()
}

/// A query for one name and type, with an EDNS record if `edns`.
fn query(name: &str, kind: u8, edns: &[u8]) -> Vec<u8> {
    let count = u8::from(!edns.is_empty());
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, count];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes.extend_from_slice(edns);
    bytes
}

#[test]
fn mutated_dns_queries_are_harmless() {
    let edns = [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
    let cookie = [
        0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    let samples = vec![
        query("anna.home.internal", 1, &[]),
        query("anna.home.internal", 28, &edns),
        query("9.20.71.100.in-addr.arpa", 12, &cookie),
        query("home.internal", 6, &edns),
        query("www.example.com", 255, &[]),
    ];
    let (zone, mut answer, mut answered) = (home(), Vec::with_capacity(2048), 0);
    each_costs_little(ALL / 10, Mutator::new(7, samples), |bytes| {
        answered += usize::from(dns::answer(&zone, bytes, 1232, &mut answer));
        assert!(answer.len() <= 1232);
    });
    assert!(
        answered > 1000,
        "mutations still look like queries: {answered}"
    );
}

/// One packet of each kind that the datapath looks into, in both families.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let families = [("100.64.0.1", "100.64.0.2"), ("fd00::1", "fd00::2")];
    for (from, to) in families {
        let addresses = (from.parse().unwrap(), to.parse().unwrap());
        let ports = Ports {
            source: 4000,
            destination: 53,
        };
        let segment = Segment {
            ports,
            sequence: 9,
            acknowledgment: 0,
            flags: SYN,
            body_len: 0,
        };
        let (mut datagram, mut syn, mut error) = (Vec::new(), Vec::new(), Vec::new());
        assert!(udp::build(&mut datagram, addresses, ports, b"a question"));
        assert!(segment.build(&mut syn, addresses));
        let header = Header::parse(&datagram).unwrap();
        let about = (&header, datagram.as_slice());
        assert!(icmp::build(
            &mut error,
            addresses.1,
            about,
            Unreachable::Port
        ));
        packets.extend([datagram, syn, error]);
    }
    // A chain of IPv6 extension headers: hop by hop, routing, fragment, UDP.
    let mut chain = packets[3].clone();
    chain[6] = 0;
    let extensions = [
        [43, 0, 1, 4, 0, 0, 0, 0],
        [44, 0, 0, 0, 0, 0, 0, 0],
        [17, 0, 0, 1, 0, 0, 0, 9],
    ];
    chain.splice(40..40, extensions.concat());
    chain[5] += 24;
    packets.push(chain);
    packets
}

#[test]
fn mutated_packets_are_harmless() {
    let (mut out, mut read, mut turned) = (Vec::with_capacity(2048), 0, 0);
    each_costs_little(ALL / 10, Mutator::new(8, packets()), |bytes| {
        let _imitation = frame::is_control_shape(bytes);
        let Ok(header) = Header::parse(bytes) else {
            return;
        };
        read += 1;
        let _payload = header.payload(bytes);
        let _body = udp::body(&header, bytes);
        if let Some(reset) = Segment::parse(&header, bytes).and_then(|segment| segment.reset()) {
            out.clear();
            let _built = reset.build(&mut out, (header.destination, header.source));
        }
        out.clear();
        let _built = icmp::build(
            &mut out,
            header.destination,
            (&header, bytes),
            Unreachable::Host,
        );
        if let Some(ports) = header.ports(bytes) {
            let to = Turn {
                source: header.destination,
                destination: header.source,
                ports,
            };
            turned += usize::from(turn::turn(&mut bytes.to_vec(), &header, to).is_ok());
        }
    });
    assert!(read > 1000, "mutations still look like packets: {read}");
    assert!(turned > 1000, "mutations can still be turned: {turned}");
}
