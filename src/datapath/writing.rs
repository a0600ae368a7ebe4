//! What a shard has for the host goes into the TUN: packets that continue each other as one, so that the host takes them
//! in at once and answers once.

use std::io::{self, IoSlice};

use super::{
    batch::Batch,
    drops::{DropReason, Drops},
    offloads::{Offloads, Why},
    shard::Shard,
    train::Arrived,
};
use crate::{
    packet::{
        join::{MOST, Run},
        vnet,
    },
    platform::tun::{LongPackets, Tun},
};

/// Datagrams with less body than this stay alone. Most programs read them one by one, so the kernel cuts again what was
/// joined; at 64 bytes that was measured to cost more than it saves (`research/dataplane.md` §8).
const BODY_LEAST: usize = 256;

/// Which packets are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Joins {
    tcp: bool,
    udp: bool,
}

/// Where packets for this host are written, and how.
pub(super) struct Host<'a> {
    pub(super) tun: Option<&'a Tun>,
    pub(super) joins: &'a mut Joins,
    pub(super) offloads: &'a Offloads,
}

impl Host<'_> {
    /// Writes what a shard has for it.
    pub(super) fn write(&mut self, shard: &mut Shard) {
        let written = self.joins.write_batch(self.tun, &mut shard.out.packets);
        self.note(&shard.drops, written);
    }

    /// Writes packets that stand where they came.
    pub(super) fn write_arrived(&mut self, drops: &Drops, arrived: &Arrived<'_>) {
        let written = self.joins.write(self.tun, arrived.packets());
        self.note(drops, written);
    }

    fn note(&self, drops: &Drops, written: Written) {
        drops.add(DropReason::TunFailed, written.lost);
        if written.refused.is_some() {
            self.offloads.tun.set(written.refused);
        }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Packets that were lost.
    pub(super) lost: u64,
    /// The host took none that was joined.
    pub(super) refused: Option<Why>,
}

impl Joins {
    /// As the device can, and the kernel behind it.
    pub(super) fn of(tun: Option<&Tun>, offloads: &Offloads) -> Self {
        let can = tun.map_or(LongPackets::Off, Tun::long_packets);
        Self {
            tcp: matches!(can, LongPackets::Tcp | LongPackets::TcpAndUdp),
            udp: can == LongPackets::TcpAndUdp && offloads.may_join_datagrams(),
        }
    }

    /// Writes packets, in their order.
    pub(super) fn write(&mut self, tun: Option<&Tun>, packets: &[&[u8]]) -> Written {
        let mut written = Written::default();
        let mut rest = packets;
        while let Some((first, others)) = rest.split_first() {
            let run = self.run(first, others);
            let many = run.map_or(1, |run| run.packets());
            let (all, behind) = rest.split_at(many);
            rest = behind;
            let Some(tun) = tun else {
                written.lost += u64::try_from(all.len()).unwrap_or(u64::MAX);
                continue;
            };
            if let Some(run) = run.filter(|_| many > 1) {
                match write_run(tun, &run, all) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.stop(&run);
                        written.refused = Some(Why::Refused);
                    }
                    Err(_for_each) => {}
                }
            }
            for packet in all {
                let parts = [IoSlice::new(&vnet::NOTHING), IoSlice::new(packet)];
                written.lost += u64::from(tun.write(&parts).is_err());
            }
        }
        written
    }

    /// Writes all packets of a batch, and empties it.
    pub(super) fn write_batch(&mut self, tun: Option<&Tun>, packets: &mut Batch<()>) -> Written {
        let mut written = Written::default();
        let mut next = 0;
        while next < packets.len() {
            let mut some = [&[][..]; MOST];
            let mut many = 0;
            for (place, ((), packet)) in some.iter_mut().zip(packets.from(next)) {
                *place = packet;
                many += 1;
            }
            next += many;
            written += self.write(tun, &some[..many]);
        }
        packets.clear();
        written
    }

    /// The packets that go with the first; None where nothing can.
    fn run(self, first: &[u8], others: &[&[u8]]) -> Option<Run> {
        if !self.tcp {
            return None;
        }
        let mut run = Run::begin(first)?;
        if run.is_udp() && (!self.udp || run.size() < BODY_LEAST) {
            return None;
        }
        let mut others = others.iter();
        while others.next().is_some_and(|packet| run.take(first, packet)) {}
        Some(run)
    }

    fn stop(&mut self, run: &Run) {
        self.udp = false;
        self.tcp &= run.is_udp();
    }
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.lost += more.lost;
        self.refused = more.refused.or(self.refused);
    }
}

fn write_run(tun: &Tun, run: &Run, all: &[&[u8]]) -> io::Result<()> {
    let first = all.first().copied().unwrap_or_default();
    let head = run.head(first).ok_or(io::ErrorKind::InvalidData)?;
    let mut parts = [IoSlice::new(&[]); 1 + MOST];
    parts[0] = IoSlice::new(head.bytes());
    for (part, packet) in parts[1..].iter_mut().zip(all) {
        *part = IoSlice::new(packet.get(run.body_at()..).unwrap_or_default());
    }
    tun.write(parts.get(..1 + run.packets()).unwrap_or_default())
}
