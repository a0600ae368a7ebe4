//! What holds for every sample: it is whole or nothing, and a flipped bit is never the same thing again.

use webmesh::{
    keys::{RootSeed, Token, TokenRefused},
    wire::{
        datagram::classify,
        frame::{self, Content},
        record::Record,
        sealed,
    },
};

use crate::samples;

/// Every way to cut bytes short, and one byte more.
fn other_lengths(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let longer = [bytes, &[0]].concat();
    (0..bytes.len())
        .map(|len| bytes[..len].to_vec())
        .chain(std::iter::once(longer))
}

fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

#[test]
fn no_frame_of_another_length_is_read() {
    for (name, bytes) in samples::frames()
        .iter()
        .filter(|(name, _)| *name != "bye-in-wireguard")
    {
        for other in other_lengths(bytes) {
            assert!(
                frame::decode(&other).is_err(),
                "{name} with {} bytes",
                other.len()
            );
        }
    }
}

#[test]
fn no_control_shape_of_another_length_is_one() {
    let mut shaped = Vec::new();
    frame::shape(&samples::frames()[0].1, &mut shaped);
    for other in other_lengths(&shaped) {
        assert_eq!(frame::unshape(&other), None);
    }
    for (bit, flipped) in flips(&shaped).take(frame::SHAPE * 8) {
        assert_eq!(frame::unshape(&flipped), None, "bit {bit}");
    }
}

#[test]
fn no_record_of_another_length_is_read() {
    for (name, bytes) in samples::records() {
        for other in other_lengths(&bytes) {
            assert!(
                Record::decode(&other).is_err(),
                "{name} with {} bytes",
                other.len()
            );
        }
    }
}

#[test]
fn no_sealed_datagram_of_another_length_opens() {
    for unsealed in samples::unsealed() {
        for other in other_lengths(&samples::seal(&unsealed, &unsealed.body.body())) {
            assert!(
                sealed::open(&other, &unsealed.key).is_err(),
                "{} with {} bytes",
                unsealed.name,
                other.len()
            );
        }
    }
}

#[test]
fn no_datagram_of_fixed_length_is_told_with_another() {
    const FIXED: [&str; 6] = [
        "initiation",
        "response",
        "cookie",
        "relay-bind",
        "relay-challenge",
        "relay-answer",
    ];
    for (name, bytes) in samples::datagrams()
        .iter()
        .filter(|(name, _)| FIXED.contains(name))
    {
        for other in other_lengths(bytes) {
            assert!(
                classify(&other).is_err(),
                "{name} with {} bytes",
                other.len()
            );
        }
    }
    for len in 0..32 {
        for (name, bytes) in samples::datagrams()
            .iter()
            .filter(|(name, _)| *name != "dht")
        {
            assert!(classify(&bytes[..len]).is_err(), "{name} with {len} bytes");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_frame_is_never_the_same_message() {
    // What this build does not read may change without its noticing.
    const UNREAD: [&str; 3] = ["unknown-kind", "bye-unknown-key", "bye-in-wireguard"];
    for (name, bytes) in samples::frames()
        .iter()
        .filter(|(name, _)| !UNREAD.contains(name))
    {
        let whole = frame::decode(bytes);
        for (bit, flipped) in flips(bytes) {
            let read = frame::decode(&flipped);
            let unread = read
                .as_ref()
                .is_ok_and(|read| read.content == Content::Unknown);
            assert!(
                read.is_err() || unread || read != whole,
                "{name}, bit {bit}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_a_record_is_never_the_same_record() {
    for (name, bytes) in samples::records() {
        let whole = Record::decode(&bytes).unwrap();
        for (bit, flipped) in flips(&bytes) {
            let Ok(read) = Record::decode(&flipped) else {
                continue;
            };
            let covered = read.signed_bytes() != whole.signed_bytes();
            assert!(
                covered || read.signature() != whole.signature(),
                "{name}, bit {bit}"
            );
            assert_ne!(
                (read.id(), read.version()),
                (whole.id(), whole.version()),
                "{name}, bit {bit}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_datagram_never_opens() {
    for unsealed in samples::unsealed() {
        for (bit, flipped) in flips(&samples::seal(&unsealed, &unsealed.body.body())) {
            assert!(
                sealed::open(&flipped, &unsealed.key).is_err(),
                "{}, bit {bit}",
                unsealed.name
            );
        }
    }
}

#[test]
fn what_stands_behind_a_sealed_body_must_be_zero() {
    let punch = samples::unsealed().pop().unwrap();
    let body = punch.body.body();
    for at in body.len()..108 {
        let mut dirty = body.clone();
        dirty.resize(108, 0);
        dirty[at] = 1;
        let opened = sealed::open(&samples::seal(&punch, &dirty), &punch.key);
        assert_eq!(
            opened.unwrap_err(),
            webmesh::wire::Malformed::Trailing.into(),
            "byte {at}"
        );
    }
}

#[test]
fn a_signed_body_with_an_unknown_critical_key_is_not_taken() {
    for unsealed in samples::unsealed() {
        let is_signed = !unsealed.name.starts_with("punch") && unsealed.name != "introduce";
        let body = samples::with_entry(unsealed.body.body(), &[0x18, 200, 1]);
        let opened = sealed::open(&samples::seal(&unsealed, &body), &unsealed.key);
        assert_eq!(opened.is_err(), is_signed, "{}", unsealed.name);
    }
}

#[test]
fn the_signature_of_a_knock_covers_entries_this_build_does_not_know() {
    let knock = samples::unsealed().remove(1);
    let body = samples::with_entry(knock.body.body(), &[0x18, 100, 1]);
    let opened = sealed::open(&samples::seal(&knock, &body), &knock.key).unwrap();
    let [_, _, _, unsigned] = opened.signed.parts(&[]);
    assert_eq!(opened.unknown_keys, 1);
    assert!(unsigned.ends_with(&[0x18, 100, 1]));
    assert_eq!(unsigned[0], body[0] - 1, "the header counts one less");
}

#[test]
fn a_token_with_any_other_letter_is_refused() {
    let text = samples::token().to_string();
    for (at, was) in text.char_indices().skip(4) {
        for letter in ('a'..='z').chain('2'..='9').filter(|letter| *letter != was) {
            let mut typed = text.clone();
            typed.replace_range(at..=at, &letter.to_string());
            assert_eq!(
                typed.parse::<Token>(),
                Err(TokenRefused::CutOrMistyped),
                "{typed}"
            );
        }
    }
}

#[test]
fn a_token_says_what_is_wrong_with_it() {
    let text = samples::token().to_string();
    for len in 4..text.len() {
        let cut: String = text.chars().take(len).collect();
        assert_eq!(cut.parse::<Token>(), Err(TokenRefused::CutOrMistyped));
    }
    assert_eq!(
        format!("  {}\n", text.to_uppercase()).parse(),
        Ok(samples::token())
    );
    assert_eq!(
        "ssh-ed25519 AAAA".parse::<Token>(),
        Err(TokenRefused::NotAToken)
    );
    assert_eq!("".parse::<Token>(), Err(TokenRefused::NotAToken));
    assert_eq!(
        text.replace("wm1-", "wm2-").parse::<Token>(),
        Err(TokenRefused::UnknownVersion)
    );
}

#[test]
fn a_recovery_code_with_another_letter_never_gives_the_same_seed() {
    let seed = RootSeed([0xa5; 16]);
    let code = seed.code();
    for (at, was) in code.char_indices().filter(|(_, letter)| *letter != '-') {
        for letter in "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
            .chars()
            .filter(|letter| *letter != was)
        {
            let mut typed = code.clone();
            typed.replace_range(at..=at, &letter.to_string());
            assert_ne!(RootSeed::parse_code(&typed), Ok(seed.clone()), "{typed}");
        }
    }
}
