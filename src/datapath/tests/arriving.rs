//! What comes as one message is taken in, and written or kept.

use super::{
    transports::{Lower, sealing, smuggled},
    *,
};
use crate::{
    datapath::{
        arriving::take_in,
        offloads::Offloads,
        openings::Openings,
        writing::{Host, Joins},
    },
    platform::udp::{Cut, Received},
};

/// What became of so many packets that came as one message: those that wait, and those that were written at once, which are
/// lost where there is no device.
fn taken(datagrams: usize, cut: Cut) -> (usize, [u64; 2]) {
    let mut world = sealing(Lower::Alice);
    let mut packet = segment(v4(1), v4(2), (5, 6), ACK);
    packet.resize(1400, 7);
    packet[2..4].copy_from_slice(&1400_u16.to_be_bytes());
    let sealed = (0..datagrams).map(|_| smuggled(&mut world, &packet));
    let mut bytes = sealed.collect::<Vec<_>>().concat();
    let offloads = Arc::new(Offloads::default());
    let mut openings = Openings::new(Arc::clone(&offloads)).unwrap();
    let mut host = Host {
        tun: None,
        joins: &mut Joins::default(),
        offloads: &offloads,
    };
    let message = Received {
        source: world.alice.at.direct().unwrap().socket(),
        ecn: 0,
        cut,
        size: bytes.len() / datagrams,
        bytes: &mut bytes,
    };
    let (now, bob) = (world.now.at, &mut world.bob);
    let many = take_in(now, message, &mut bob.shard, &mut openings, &mut host);
    assert_eq!(many, datagrams);
    let reasons = [DropReason::TunFailed, DropReason::InTruncated];
    (
        bob.drain().packets.len(),
        reasons.map(|reason| bob.met(reason)),
    )
}

#[test]
fn a_long_message_is_written_from_where_it_stands_and_a_short_one_waits() {
    assert_eq!(taken(2, Cut::Whole), (2, [0, 0]));
    assert_eq!(taken(3, Cut::Whole), (0, [3, 0]));
    assert_eq!(taken(130, Cut::Whole), (0, [130, 0]));
    assert_eq!(taken(3, Cut::Cut), (0, [0, 3]));
}
