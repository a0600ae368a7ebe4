//! The network between the machines: how long a datagram takes, which are lost, who cannot hear whom. All of it is
//! drawn from one seed.

use std::{collections::BTreeSet, time::Duration};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A machine of the world, counted from 0.
pub(crate) type MachineIx = usize;

/// What every wire is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// One way, at the least.
    pub(crate) latency: Duration,
    /// One way, what may be added: datagrams overtake each other within it.
    pub(crate) jitter: Duration,
    /// Datagrams lost of each thousand.
    pub(crate) lost_of_1000: u32,
}

/// A quick and quiet network.
pub(crate) const GOOD: Quality = Quality {
    latency: Duration::from_millis(10),
    jitter: Duration::from_millis(2),
    lost_of_1000: 0,
};

/// A slow one that loses one datagram in ten.
pub(crate) const BAD: Quality = Quality {
    latency: Duration::from_millis(80),
    jitter: Duration::from_millis(40),
    lost_of_1000: 100,
};

/// The wires between all machines.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    rng: ChaCha8Rng,
    quality: Quality,
    cut: BTreeSet<(MachineIx, MachineIx)>,
}

impl Wires {
    /// Wires of one quality.
    pub(crate) fn new(seed: u64, quality: Quality) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            quality,
            cut: BTreeSet::new(),
        }
    }

    /// How long a datagram takes from one machine to another; None: it is lost.
    pub(crate) fn carry(&mut self, from: MachineIx, to: MachineIx) -> Option<Duration> {
        let (luck, spread) = (self.rng.next_u32(), self.rng.next_u32());
        if luck % 1000 < self.quality.lost_of_1000
            || self.cut.contains(&(from.min(to), from.max(to)))
        {
            return None;
        }
        let jitter_us =
            u32::try_from(self.quality.jitter.as_micros()).expect("jitter is below an hour");
        Some(self.quality.latency + Duration::from_micros(u64::from(spread % (jitter_us + 1))))
    }

    /// Nothing passes between the two from here on.
    pub(crate) fn cut(&mut self, a: MachineIx, b: MachineIx) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Everybody hears everybody again.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}

#[test]
fn a_cut_wire_carries_nothing_and_a_healed_one_does() {
    let mut wires = Wires::new(1, GOOD);
    wires.cut(2, 1);
    assert_eq!(wires.carry(1, 2), None);
    assert!(wires.carry(1, 3).is_some());
    wires.heal();
    assert!(
        wires
            .carry(1, 2)
            .is_some_and(|took| took >= GOOD.latency && took <= GOOD.latency + GOOD.jitter)
    );
}

#[test]
fn a_bad_wire_loses_about_as_much_as_it_says() {
    let mut wires = Wires::new(1, BAD);
    let lost = (0..10_000).filter(|_| wires.carry(0, 1).is_none()).count();
    assert!((800..1200).contains(&lost), "{lost} of 10000");
}
