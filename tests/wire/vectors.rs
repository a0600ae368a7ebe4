//! The golden vectors in `tests/vectors`: made once, never regenerated. One that changes is a peer that is cut off.

use std::{collections::BTreeMap, path::Path};

use webmesh::{
    addr::Underlay,
    keys::{RootSeed, Token, Word, verify, verify_root, verify_tunnel, x25519_form},
    wire::{
        datagram::{Datagram, classify},
        frame::{self, Content},
        message::Message,
        record::{Body, Kind, Record, Unusable},
        sealed::{self, Sealed},
        slot,
    },
};

use crate::samples::{self, Named};

/// The values of a file by name: lines of `# name`, each with one line below it.
fn vectors(file: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = text.lines();
    let mut values = BTreeMap::new();
    while let Some(name) = lines.next() {
        let name = name
            .strip_prefix("# ")
            .expect("a comment line before each value")
            .to_owned();
        values.insert(
            name,
            lines.next().expect("a value after each comment").to_owned(),
        );
    }
    values
}

fn compare(file: &str, made: Vec<(&'static str, String)>) {
    let mut golden = vectors(file);
    let mut wrong = String::new();
    for (name, value) in made {
        match golden.remove(name) {
            Some(kept) if kept == value => {}
            Some(_) => wrong.push_str(&format!(
                "{file}: {name} is not what it was, it is now\n{value}\n"
            )),
            None => wrong.push_str(&format!("# {name}\n{value}\n")),
        }
    }
    assert!(
        wrong.is_empty(),
        "missing from {file} or different:\n{wrong}"
    );
    assert!(
        golden.is_empty(),
        "nothing makes {:?} of {file} any more",
        golden.keys()
    );
}

fn hex(named: Vec<Named>) -> Vec<(&'static str, String)> {
    named
        .into_iter()
        .map(|(name, bytes)| (name, data_encoding::HEXLOWER.encode(&bytes)))
        .collect()
}

fn golden(file: &str, name: &str) -> Vec<u8> {
    let values = vectors(file);
    data_encoding::HEXLOWER
        .decode(values[name].as_bytes())
        .unwrap()
}

#[test]
fn every_layout_is_written_as_the_golden_vectors_have_it() {
    compare("datagrams.txt", hex(samples::datagrams()));
    compare("sealed.txt", hex(samples::sealed_datagrams()));
    compare("frames.txt", hex(samples::frames()));
    compare("records.txt", hex(samples::records()));
    compare("keys.txt", hex(samples::computed()));
    compare("slots.txt", hex(samples::slots()));
    compare("texts.txt", samples::texts());
}

#[test]
fn every_golden_message_reads_as_what_was_written() {
    for (name, message) in samples::messages() {
        let read = frame::decode(&golden("frames.txt", name)).unwrap();
        assert_eq!(
            (read.id, read.fragment, read.kind, read.unknown_keys),
            (42, 1, message.kind(), 0),
            "{name}"
        );
        assert_eq!(read.content, Content::Known(message), "{name}");
    }
}

#[test]
fn every_golden_slot_reads_as_what_was_written() {
    let [anna, bo] = samples::entries();
    let of_network = samples::secret().slot(20_833, 2, 1);
    let of_invite = samples::invite().slot(1);
    for (key, name, written) in [
        (of_network, "network-slot-value", vec![anna, bo.clone()]),
        (of_invite.clone(), "invite-slot-value", vec![bo]),
        (of_invite, "empty-slot-value", vec![]),
    ] {
        assert_eq!(
            slot::open(&key, &golden("slots.txt", name)),
            Ok(written),
            "{name}"
        );
    }
}

#[test]
fn a_message_of_an_unknown_kind_is_told_apart_and_not_read() {
    let read = frame::decode(&golden("frames.txt", "unknown-kind")).unwrap();
    assert_eq!((read.kind, read.content), (0x7f, Content::Unknown));
}

#[test]
fn an_unknown_key_in_a_message_is_skipped_and_counted() {
    let read = frame::decode(&golden("frames.txt", "bye-unknown-key")).unwrap();
    let Content::Known(Message::Bye(bye)) = read.content else {
        panic!("a Bye");
    };
    assert_eq!((bye.reason, read.unknown_keys), (2, 1));
}

#[test]
fn a_control_frame_leaves_wireguard_as_it_went_in() {
    let shaped = golden("frames.txt", "bye-in-wireguard");
    assert_eq!(
        frame::unshape(&shaped),
        Some(&golden("frames.txt", "bye")[..])
    );
    assert!(frame::is_control_shape(&shaped));
}

#[test]
fn every_golden_record_reads_as_what_was_written() {
    for (name, subject, body) in samples::bodies() {
        let record = Record::decode(&golden("records.txt", name)).unwrap();
        assert_eq!(record.kind(), body.kind().unwrap(), "{name}");
        assert_eq!(
            (record.seq(), record.subject(), record.key()),
            (samples::SEQ, subject, &body.key()[..]),
            "{name}"
        );
        assert_eq!(record.body(), Ok(body), "{name}");
    }
}

#[test]
fn the_signature_of_every_golden_record_holds_for_its_signer() {
    for (name, ..) in samples::records() {
        let record = Record::decode(&golden("records.txt", name)).unwrap();
        let parts = [record.signed_bytes()];
        assert!(
            verify(
                record.signer(),
                Word::Record,
                &samples::network(),
                &parts,
                &record.signature()
            ),
            "{name}"
        );
        assert!(
            !verify(
                record.signer(),
                Word::Knock,
                &samples::network(),
                &parts,
                &record.signature()
            ),
            "{name}"
        );
        assert!(
            !verify(
                record.signer(),
                Word::Record,
                &[0; 32],
                &parts,
                &record.signature()
            ),
            "{name}"
        );
    }
    let network = Record::decode(&golden("records.txt", "network")).unwrap();
    let (id, parts) = (samples::root().network_id(), [network.signed_bytes()]);
    assert!(verify_root(
        &network.subject(),
        Word::Record,
        id,
        &parts,
        &network.signature()
    ));
    assert!(!verify_root(
        &samples::admin().id().0,
        Word::Record,
        id,
        &parts,
        &network.signature()
    ));
}

#[test]
fn a_record_envelope_is_what_an_independent_writer_makes_of_the_page() {
    for (name, subject, body) in samples::bodies() {
        let record = samples::record_of(subject, body.clone());
        let signer = (record.signer().0 != subject).then(|| record.signer().0);
        let kind = record.kind().number();
        let envelope = samples::Envelope {
            kind,
            subject,
            signer,
            key: body.key(),
            body: samples::body_bytes(&record),
        };
        assert_eq!(envelope.unsigned(), record.signed_bytes(), "{name}");
    }
}

#[test]
fn a_certificate_with_an_unknown_critical_key_is_kept_but_not_believed() {
    let record = Record::decode(&golden("records.txt", "member-unknown-critical-key")).unwrap();
    assert_eq!(record.kind(), Kind::Member);
    assert_eq!(record.body(), Err(Unusable::Critical));
}

#[test]
fn an_unknown_key_below_128_leaves_a_record_usable() {
    let record = Record::decode(&golden("records.txt", "lease-unknown-key")).unwrap();
    assert!(matches!(record.body(), Ok(Body::Lease(lease)) if lease.expires == 1_800_012_480));
}

#[test]
fn records_of_unknown_kinds_and_unfrozen_bodies_are_carried_unread() {
    for (name, kind) in [
        ("unknown-kind", Kind::Unknown(200)),
        ("health", Kind::Health),
        ("policy", Kind::Policy),
    ] {
        let record = Record::decode(&golden("records.txt", name)).unwrap();
        assert_eq!(
            (record.kind(), record.body()),
            (kind, Ok(Body::Opaque)),
            "{name}"
        );
    }
}

#[test]
fn every_golden_sealed_datagram_opens_to_what_was_sealed() {
    for unsealed in samples::unsealed() {
        let datagram = golden("sealed.txt", unsealed.name);
        let opened = sealed::open(&datagram, &unsealed.key).unwrap();
        assert_eq!(
            (opened.header, opened.nonce),
            (unsealed.header, samples::NONCE),
            "{}",
            unsealed.name
        );
        assert_eq!(opened.body, unsealed.body, "{}", unsealed.name);
        assert!(
            classify(&datagram) == Ok(Datagram::Sealed(&datagram)),
            "{}",
            unsealed.name
        );
    }
}

#[test]
fn the_signature_in_every_golden_sealed_datagram_holds() {
    let alice = samples::alice().id();
    let bob = samples::bob().id();
    for unsealed in samples::unsealed() {
        let opened = sealed::open(&golden("sealed.txt", unsealed.name), &unsealed.key).unwrap();
        let holds = |word, network: &[u8; 32], audience: &[u8], signature| {
            verify(
                alice,
                word,
                network,
                &opened.signed.parts(audience),
                signature,
            )
        };
        let (network, join_network) = (samples::network(), samples::invite().join_network());
        match &opened.body {
            Sealed::Knock(knock) => {
                assert!(holds(Word::Knock, &network, &bob.0, &knock.signature));
                assert!(
                    !holds(Word::Knock, &network, &alice.0, &knock.signature),
                    "meant for somebody else"
                );
            }
            Sealed::Join(join) => assert!(holds(
                Word::Join,
                &join_network,
                &samples::issuer(),
                &join.signature
            )),
            Sealed::Beacon(beacon) => {
                assert!(holds(Word::Beacon, &network, &[], &beacon.signature));
            }
            Sealed::Introduce(_) | Sealed::Punch(_) => {}
        }
    }
}

#[test]
fn the_longest_knock_fits_into_one_datagram() {
    let records = vec![vec![0; 512], vec![0; 146], vec![0; 336]];
    let knock = sealed::Knock {
        node: samples::alice().id(),
        stamp: u64::MAX,
        boot: webmesh::ids::Boot([0; 8]),
        flags: 0,
        records,
        signature: [0; 64],
    };
    let header = sealed::Header {
        kind: sealed::Kind::Knock,
        epoch: 0,
        hint: [0; 8],
    };
    let datagram = sealed::seal(header, [0; 24], &[0; 32], &Sealed::Knock(knock).body()).unwrap();
    assert!(datagram.len() <= 1200);
}

#[test]
fn every_golden_datagram_is_told_by_its_first_bytes() {
    for (name, bytes) in samples::datagrams() {
        let fits = match classify(&bytes) {
            Ok(Datagram::Initiation(_)) => name == "initiation",
            Ok(Datagram::Response(found)) => name == "response" && found.receiver == 0x0b0a_0908,
            Ok(Datagram::Cookie(found)) => name == "cookie" && found.receiver == 0x0706_0504,
            Ok(Datagram::Data(found)) => {
                name == "data" && found.receiver == 0x0706_0504 && found.counter == COUNTER
            }
            Ok(Datagram::Transport(found)) => name == "transport" && found.counter == COUNTER,
            Ok(Datagram::Relayed(found)) => found.encode() == bytes && name.starts_with("relayed"),
            Ok(Datagram::RelayBinding(found)) => {
                found.encode().as_slice() == bytes && name.starts_with("relay-")
            }
            Ok(Datagram::Dht(_)) => name == "dht",
            Ok(Datagram::Sealed(_)) | Err(_) => false,
        };
        assert!(fits, "{name}");
    }
}

const COUNTER: u64 = 0x0f0e_0d0c_0b0a_0908;

#[test]
fn a_token_reads_as_what_was_written() {
    let values = vectors("texts.txt");
    assert_eq!(values["token"].parse::<Token>(), Ok(samples::token()));
    let longest = &values["token-longest"];
    assert!(longest.len() <= 184, "{}", longest.len());
    let token: Token = longest.parse().unwrap();
    let hints: Vec<Underlay> = vec![samples::v4(), samples::v6(), samples::v4()];
    assert_eq!(
        (token.name.as_str(), token.hints),
        ("a name of twenty-thr", hints)
    );
}

#[test]
fn a_recovery_code_gives_the_seed_back_however_it_is_typed() {
    let seed = RootSeed(std::array::from_fn(|i| i.to_le_bytes()[0] * 17));
    let code = vectors("texts.txt").remove("recovery-code").unwrap();
    let typed = code
        .to_lowercase()
        .replace('-', " ")
        .replace('1', "l")
        .replace('0', "o");
    assert_eq!(RootSeed::parse_code(&code), Ok(seed.clone()));
    assert_eq!(RootSeed::parse_code(&typed), Ok(seed));
}

#[test]
fn a_tunnel_key_is_one_key_in_both_forms_and_names_its_owner() {
    let key = samples::tunnel();
    let secret = key.x25519_secret();
    assert_eq!(
        x25519_dalek::PublicKey::from(&secret).to_bytes(),
        key.x25519_public()
    );
    assert_eq!(x25519_form(&key.public()), Some(key.x25519_public()));
    let (alice, bob, network) = (
        samples::alice().id(),
        samples::bob().id(),
        samples::network(),
    );
    let cross = key.cross_sign(alice, &network);
    assert!(verify_tunnel(&key.public(), alice, &network, &cross));
    assert!(!verify_tunnel(&key.public(), bob, &network, &cross));
}
