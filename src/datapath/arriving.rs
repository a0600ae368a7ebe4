//! What came from the network in one message is taken in, and packets in it go to the host.

use super::{
    drops::DropReason,
    inbound::{Source, Taken},
    openings::Openings,
    shard::Shard,
    train::{Arrived, Train},
    writing::Host,
};
use crate::{
    addr::{Path, Underlay},
    packet::ecn::Ecn,
    platform::udp::{Cut, LONG, Received},
    time::Moment,
};

/// Takes in the datagrams of one message; tells how many. Packets in a [`LONG`] one are written from where they stand; those in
/// a shorter one are copied, and may be joined with what comes next.
pub(super) fn take_in(
    now: Moment,
    message: Received<'_>,
    shard: &mut Shard,
    openings: &mut Openings,
    host: &mut Host<'_>,
) -> usize {
    let at = Underlay::new(message.source);
    let source = Source {
        path: Path::Direct(at),
        ecn: Ecn::of_bits(message.ecn),
    };
    let is_long = message.bytes.len() >= LONG;
    let mut train = Train::new(message.bytes, message.size);
    let taken = train.len();
    if message.cut == Cut::Cut {
        let lost = u64::try_from(taken).unwrap_or(u64::MAX);
        shard.drops.add(DropReason::InTruncated, lost);
        return taken;
    }
    let is_silent = openings.is_silent(now, at);
    loop {
        let mut arrived = Arrived::default();
        let what = shard.take_train(now, source, &mut train, &mut arrived);
        if is_silent && what == Taken::Data {
            openings.release(at);
        }
        if is_long && !shard.waits_to_deliver() {
            host.write(shard);
            host.write_arrived(&shard.drops, &arrived);
        } else {
            shard.keep(&arrived);
        }
        if train.is_empty() {
            return taken;
        }
    }
}
