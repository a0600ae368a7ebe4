//! The ends of a key, replays and forgeries (review-security T13, T14).

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    time::Moment,
    transport::{
        Content, NotOpened, NotSealed, OVERHEAD, Opening, Order, Sealing, Stopped,
        limits::{BYTES_MAX, COUNTERS, FAILED_MAX, REKEY_BYTES, REKEY_PACKETS},
        padded,
        schedule::Direction,
        suite::Suite,
        window::NotNew,
    },
};

const START: Moment = Moment(7_000_000);
const INDEX: u32 = 0x0102_0304;
const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const PACKET: [u8; 20] = [0x45; 20];

fn direction() -> Direction {
    Direction {
        key: [1; 32],
        iv: [2; 12],
    }
}

fn pair(suite: Suite) -> (Sealing, Opening) {
    (
        Sealing::new(START, suite, &direction(), INDEX),
        Opening::new(suite, &direction(), INDEX),
    )
}

fn seal(sealing: &Sealing, packet: &[u8], limit: usize) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let padded = padded(packet.len(), limit);
    let mut run = sealing.run(START, 1, padded).unwrap();
    let len = run.seal(packet, padded, &mut out).unwrap();
    out.truncate(len);
    out
}

fn later(seconds: u64) -> Moment {
    START.after(Duration::from_secs(seconds))
}

/// Whether it opened.
fn opens(opening: &mut Opening, datagram: &[u8]) -> Result<(), NotOpened> {
    opening.open(START, &mut datagram.to_vec()).map(|_| ())
}

#[test]
fn a_packet_of_every_length_is_padded_sealed_and_opened() {
    for suite in SUITES {
        let (sealing, mut opening) = pair(suite);
        for len in 1..=1420 {
            let mut packet = vec![0x60; len];
            packet[len / 2..].fill(u8::try_from(len % 256).unwrap() | 0x60);
            packet[0] = 0x60;
            let mut datagram = seal(&sealing, &packet, 1420);
            let full = len.next_multiple_of(16).min(1420);
            assert_eq!(datagram.len(), full + OVERHEAD, "{len}");
            let opened = opening.open(START, &mut datagram).unwrap();
            let Content::Packet(plain) = opened.content else {
                panic!("{len}");
            };
            assert_eq!(plain[..len], packet);
            assert!(plain[len..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn padding_ends_at_the_limit_of_the_path_and_never_cuts() {
    for (len, limit, expected) in [
        (0, 1420, 0),
        (1, 1420, 16),
        (16, 1420, 16),
        (1409, 1420, 1420),
        (1420, 1420, 1420),
        (1421, 1420, 1421),
        (1280, 1280, 1280),
    ] {
        assert_eq!(padded(len, limit), expected, "{len} of {limit}");
    }
}

#[test]
fn a_datagram_begins_with_type_index_and_counter() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    for counter in 0..3 {
        let datagram = seal(&sealing, &PACKET, 1420);
        let head = [0x10, 0, 0, 0, 4, 3, 2, 1, counter, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(datagram[..16], head);
    }
}

#[test]
fn what_was_sealed_is_told_apart_by_its_first_byte() {
    let (sealing, mut opening) = pair(Suite::Aes256Gcm);
    let mut content = |plain: &[u8]| {
        let mut datagram = seal(&sealing, plain, 0);
        match opening.open(START, &mut datagram).unwrap().content {
            Content::Packet(_) => "packet",
            Content::Frame(frame) => {
                assert_eq!(frame, plain);
                "frame"
            }
            Content::Keepalive => "keepalive",
            Content::Other => "other",
        }
    };
    assert_eq!(content(&[]), "keepalive");
    assert_eq!(content(&[0, 1, 2]), "frame");
    for first in 0..=255 {
        let expected = match first {
            0 => "frame",
            0x40..=0x4f | 0x60..=0x6f => "packet",
            _ => "other",
        };
        assert_eq!(content(&[first, 9]), expected, "{first:#x}");
    }
}

#[test]
fn what_is_printed_of_a_key_holds_nothing_of_it() {
    for suite in SUITES {
        let (sealing, opening) = pair(suite);
        let printed = format!("{sealing:?} {opening:?}");
        assert!(printed.contains("Iv(…)"), "{printed}");
        assert!(!printed.contains("[1, 1") && !printed.contains("[2, 2"));
    }
}

#[test]
fn a_run_seals_as_many_as_it_took_and_into_no_less_room() {
    let (sealing, mut opening) = pair(Suite::ChaCha20Poly1305);
    let mut run = sealing.run(START, 2, 40).unwrap();
    let mut out = [0; 52];
    assert_eq!(run.seal(&PACKET, 20, &mut out[..51]), Err(NotSealed::Room));
    assert_eq!(run.seal(&PACKET, 20, &mut out), Ok(52));
    assert_eq!(opens(&mut opening, &out), Ok(()));
    assert_eq!(run.seal(&PACKET, 20, &mut out), Ok(52));
    assert_eq!(opens(&mut opening, &out), Ok(()));
    assert_eq!(run.seal(&PACKET, 20, &mut out), Err(NotSealed::Spent));
}

#[test]
fn two_runs_never_share_a_counter() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    let counters = |run: &mut crate::transport::Run<'_>| {
        let mut out = [0; 64];
        let mut counters = Vec::new();
        while run.seal(&[], 0, &mut out).is_ok() {
            counters.push(out[8]);
        }
        counters
    };
    let (mut one, mut other) = (
        sealing.run(START, 3, 0).unwrap(),
        sealing.run(START, 2, 0).unwrap(),
    );
    assert_eq!(
        (counters(&mut other), counters(&mut one)),
        (vec![3, 4], vec![0, 1, 2])
    );
}

#[test]
fn threads_that_share_a_key_never_share_a_counter() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    let threads: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let take = || {
            let mut taken = Vec::new();
            let mut out = [0; 64];
            for _ in 0..2_000 {
                let mut run = sealing.run(START, 3, 0).unwrap();
                while run.seal(&[], 0, &mut out).is_ok() {
                    taken.push(u64::from_le_bytes(*out[8..].first_chunk().unwrap()));
                }
            }
            taken
        };
        let running: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut all = threads.concat();
    all.sort_unstable();
    assert_eq!(all, (0..18_000).collect::<Vec<_>>());
}

#[test]
fn a_key_seals_until_one_of_its_ends_and_stays_there() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    assert!(sealing.run(later(179), 1, 1).is_ok());
    assert_eq!(sealing.run(later(180), 1, 1).unwrap_err(), Stopped::Age);
    sealing.spend(COUNTERS - 2, 0);
    assert_eq!(sealing.run(START, 3, 1).unwrap_err(), Stopped::Packets);
    assert!(sealing.run(START, 2, 1).is_ok());
    for _ in 0..2 {
        assert_eq!(sealing.run(START, 1, 1).unwrap_err(), Stopped::Packets);
    }
    sealing.spend(0, BYTES_MAX - 1);
    assert_eq!(sealing.run(START, 1, 2).unwrap_err(), Stopped::Bytes);
    assert!(sealing.run(START, 1, 1).is_ok());
    assert_eq!(sealing.run(START, 1, 1).unwrap_err(), Stopped::Bytes);
    assert_eq!(
        sealing.run(START, 1, usize::MAX).unwrap_err(),
        Stopped::Bytes
    );
}

#[test]
fn a_key_is_worn_before_it_stops() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    assert!(!sealing.is_worn(later(119)) && sealing.is_worn(later(120)));
    sealing.spend(REKEY_PACKETS - 1, REKEY_BYTES - 1);
    assert!(!sealing.is_worn(START));
    sealing.spend(REKEY_PACKETS, 0);
    assert!(sealing.is_worn(START));
    sealing.spend(0, REKEY_BYTES);
    assert!(sealing.is_worn(START));
}

#[test]
fn a_key_opens_until_one_of_its_ends() {
    let (sealing, mut opening) = pair(Suite::Aes256Gcm);
    let at = |opening: &mut Opening, at| {
        let mut datagram = seal(&sealing, &PACKET, 20);
        let opened = opening.open(at, &mut datagram);
        opened.map(|opened| opened.order)
    };
    // Its time begins with its first packet.
    assert_eq!(at(&mut opening, later(100)), Ok(Order::First));
    assert_eq!(at(&mut opening, later(279)), Ok(Order::Newest));
    assert_eq!(at(&mut opening, later(280)), Err(NotOpened::Stopped));
    opening.spend(BYTES_MAX - 20, 0);
    assert_eq!(at(&mut opening, later(200)), Ok(Order::Newest));
    assert_eq!(at(&mut opening, later(200)), Err(NotOpened::Stopped));
    opening.spend(0, FAILED_MAX - 1);
    assert_eq!(at(&mut opening, later(200)), Ok(Order::Newest));
    assert_eq!(opens(&mut opening, &[9; 60]), Err(NotOpened::Counter));
    let mut forged = seal(&sealing, &PACKET, 20);
    forged[20] ^= 1;
    assert_eq!(opening.open(later(200), &mut forged), Err(NotOpened::Tag));
    assert_eq!(at(&mut opening, later(200)), Err(NotOpened::Stopped));
}

#[test]
fn ten_thousand_recorded_datagrams_come_once_each_however_often_and_shuffled() {
    for suite in SUITES {
        let (sealing, mut opening) = pair(suite);
        let recorded: Vec<_> = (0..10_000).map(|_| seal(&sealing, &PACKET, 20)).collect();
        for datagram in &recorded {
            assert_eq!(opens(&mut opening, datagram), Ok(()));
        }
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..30_000 {
            let at = usize::try_from(random.next_u32() % 10_000).unwrap();
            let replayed = opens(&mut opening, &recorded[at]);
            assert!(matches!(replayed, Err(NotOpened::Replay(_))), "{at}");
        }
    }
}

#[test]
fn a_packet_8000_behind_is_taken_once_and_one_8200_behind_never() {
    let (sealing, mut opening) = pair(Suite::Aes256Gcm);
    let recorded: Vec<_> = (0..=10_000).map(|_| seal(&sealing, &PACKET, 20)).collect();
    assert_eq!(opens(&mut opening, &recorded[10_000]), Ok(()));
    let mut older = recorded[2_000].clone();
    let opened = opening.open(START, &mut older);
    assert_eq!(opened.map(|opened| opened.order), Ok(Order::Older));
    assert_eq!(
        opens(&mut opening, &recorded[2_000]),
        Err(NotNew::Seen.into())
    );
    assert_eq!(
        opens(&mut opening, &recorded[1_800]),
        Err(NotNew::TooOld.into())
    );
}

#[test]
fn a_datagram_with_any_bit_changed_does_not_open_and_costs_nothing() {
    for suite in SUITES {
        let (sealing, mut opening) = pair(suite);
        let mut datagram = seal(&sealing, &PACKET, 32);
        for bit in 0..datagram.len() * 8 {
            let mut broken = datagram.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&mut opening, &broken).is_err(), "bit {bit}");
        }
        // A forged counter has not moved the window.
        let opened = opening.open(START, &mut datagram).unwrap();
        assert_eq!(opened.order, Order::First);
    }
}

#[test]
fn what_is_cut_short_or_counts_too_far_is_refused_before_the_cipher() {
    let (sealing, mut opening) = pair(Suite::Aes256Gcm);
    let datagram = seal(&sealing, &[], 0);
    for len in 0..datagram.len() {
        assert_eq!(
            opens(&mut opening, &datagram[..len]),
            Err(NotOpened::CutShort)
        );
    }
    for counter in [COUNTERS, 1 << 63, u64::MAX] {
        let mut far = datagram.clone();
        far[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(opens(&mut opening, &far), Err(NotOpened::Counter));
    }
    assert_eq!(opens(&mut opening, &datagram), Ok(()));
}

#[test]
fn garbage_of_every_length_does_not_open() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (_, mut opening) = pair(Suite::ChaCha20Poly1305);
    for len in (0..2_000).chain([9_000, 65_507]) {
        let mut garbage = vec![0; len];
        random.fill_bytes(&mut garbage);
        if let Some(high) = garbage.get_mut(12..16) {
            high.fill(0);
        }
        assert!(opens(&mut opening, &garbage).is_err(), "{len}");
    }
}

#[test]
fn the_other_direction_and_the_other_suite_open_nothing() {
    let (sealing, _) = pair(Suite::Aes256Gcm);
    let datagram = seal(&sealing, &PACKET, 20);
    let mut other_key = direction();
    other_key.key[31] ^= 1;
    let mut other_iv = direction();
    other_iv.iv[0] ^= 1;
    for (suite, direction) in [
        (Suite::ChaCha20Poly1305, direction()),
        (Suite::Aes256Gcm, other_key),
        (Suite::Aes256Gcm, other_iv),
    ] {
        let mut opening = Opening::new(suite, &direction, INDEX);
        assert_eq!(opens(&mut opening, &datagram), Err(NotOpened::Tag));
    }
}
