//! What a shard has for the host goes into the TUN: packets that continue each other as one, so that the host takes them
//! in at once and answers once.

use std::io::{self, IoSlice};

use super::{
    batch::Batch,
    offloads::{Offloads, Why},
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

    /// Writes all packets of a batch, and empties it.
    pub(super) fn write(&mut self, tun: Option<&Tun>, packets: &mut Batch<()>) -> Written {
        let mut written = Written::default();
        let mut next = 0;
        while let Some(((), first)) = packets.get(next) {
            let run = self.run(packets, next, first);
            let many = run.map_or(1, |run| run.packets());
            let all = next..next + many;
            next = all.end;
            let Some(tun) = tun else {
                written.lost += all.map(|_| 1).sum::<u64>();
                continue;
            };
            if let Some(run) = run.filter(|_| many > 1) {
                match write_run(tun, packets, &run, all.clone()) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.stop(&run);
                        written.refused = Some(Why::Refused);
                    }
                    Err(_for_each) => {}
                }
            }
            for ((), packet) in all.filter_map(|number| packets.get(number)) {
                let parts = [IoSlice::new(&vnet::NOTHING), IoSlice::new(packet)];
                written.lost += u64::from(tun.write(&parts).is_err());
            }
        }
        packets.clear();
        written
    }

    /// The packets that go with the one that is `first`; None where nothing can.
    fn run(self, packets: &Batch<()>, next: usize, first: &[u8]) -> Option<Run> {
        if !self.tcp {
            return None;
        }
        let mut run = Run::begin(first)?;
        if run.is_udp() && (!self.udp || run.size() < BODY_LEAST) {
            return None;
        }
        let mut number = next + 1;
        while let Some(((), packet)) = packets.get(number)
            && run.take(first, packet)
        {
            number += 1;
        }
        Some(run)
    }

    fn stop(&mut self, run: &Run) {
        self.udp = false;
        self.tcp &= run.is_udp();
    }
}

fn write_run(
    tun: &Tun,
    packets: &Batch<()>,
    run: &Run,
    all: std::ops::Range<usize>,
) -> io::Result<()> {
    let ((), first) = packets.get(all.start).unwrap_or_default();
    let head = run.head(first).ok_or(io::ErrorKind::InvalidData)?;
    let mut parts = [IoSlice::new(&[]); 1 + MOST];
    parts[0] = IoSlice::new(head.bytes());
    let bodies = all.filter_map(|number| packets.get(number));
    for (part, ((), packet)) in parts[1..].iter_mut().zip(bodies) {
        *part = IoSlice::new(packet.get(run.body_at()..).unwrap_or_default());
    }
    tun.write(parts.get(..1 + run.packets()).unwrap_or_default())
}
