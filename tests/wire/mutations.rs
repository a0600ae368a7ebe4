//! A million broken inputs to every decoder: none panics, none costs more than 8 KiB.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use webmesh::{
    keys::{RootSeed, Token},
    wire::{datagram::classify, frame, record::Record, sealed},
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
