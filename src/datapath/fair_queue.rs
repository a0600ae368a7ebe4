//! What is to go out while our own uplink takes no more (FQ-CoDel, RFC 8290): a small flow does not wait for a big one, and a
//! flow that lets its queue stand learns of congestion, by a mark where its sender listens for one, else by a loss.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::{
    codel::{Codel, Head, Verdict},
    outbound::PADDING,
    outbox::Target,
};
use crate::{
    packet::{ecn::Ecn, ip::Header, vnet::Undone},
    time::Moment,
};

/// How many flows are told apart. Those that fall together share a queue.
const FLOWS: usize = 256;

/// What a flow may send before it is the next one's turn (RFC 8290 §5.1): a packet of an Ethernet link.
const QUANTUM: isize = 1514;

/// Bytes that wait at most, in all: 30 ms at 1 Gbit/s.
const BYTES: usize = 4 << 20;

/// Packets that wait at most, in all.
const PACKETS: usize = 1024;

/// Bytes of buffers that are kept for the next packets.
const SPARE: usize = 1 << 20;

/// What waits, by flow.
#[derive(Debug)]
pub(super) struct FairQueue {
    seed: u64,
    flows: Vec<Flow>,
    /// Flows that had nothing waiting: they come first, once.
    fresh: VecDeque<usize>,
    /// Those that have had their turn.
    known: VecDeque<usize>,
    bytes: usize,
    packets: usize,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

#[derive(Debug, Default)]
struct Flow {
    waiting: VecDeque<Held>,
    bytes: usize,
    deficit: isize,
    codel: Codel,
    is_listed: bool,
}

/// Something that waits.
#[derive(Debug)]
pub(super) struct Held {
    since: Moment,
    /// It, and room for padding.
    pub(super) buffer: Vec<u8>,
    /// Its bytes alone.
    pub(super) len: usize,
    /// What it is.
    pub(super) what: What,
}

/// What waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A packet of a program, not sealed yet, and what is left to be done to it.
    Packet(Undone),
    /// A datagram that is carried for others, and where it goes: all that go there are one flow.
    Carried(Target),
}

/// What comes next, and how many went nowhere on the way to it.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) held: Option<Held>,
    pub(super) late: u64,
}

impl FairQueue {
    /// An empty one; the seed keeps others from choosing which flows fall together.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            flows: std::iter::repeat_with(Flow::default).take(FLOWS).collect(),
            fresh: VecDeque::with_capacity(FLOWS),
            known: VecDeque::with_capacity(FLOWS),
            bytes: 0,
            packets: 0,
            spare: Vec::with_capacity(PACKETS),
            spare_bytes: 0,
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Keeps something; tells how many went nowhere for it: where there is no room, the first of the flow that has most.
    pub(super) fn push(&mut self, now: Moment, bytes: &[u8], what: What) -> u64 {
        let number = self.flow_of(bytes, what);
        let mut buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer.clear();
        buffer.reserve_exact(bytes.len() + PADDING);
        buffer.extend_from_slice(bytes);
        buffer.resize(bytes.len() + PADDING, 0);
        let flow = &mut self.flows[number];
        flow.bytes += bytes.len();
        flow.waiting.push_back(Held {
            since: now,
            buffer,
            len: bytes.len(),
            what,
        });
        if !std::mem::replace(&mut flow.is_listed, true) {
            flow.deficit = QUANTUM;
            self.fresh.push_back(number);
        }
        self.bytes += bytes.len();
        self.packets += 1;
        let mut dropped = 0;
        while (self.bytes > BYTES || self.packets > PACKETS) && self.drop_of_greatest() {
            dropped += 1;
        }
        dropped
    }

    /// Whose turn it is, behind an uplink that takes so long before it takes anything.
    pub(super) fn pop(&mut self, now: Moment, service: Duration) -> Next {
        let mut late = 0;
        while let Some((number, is_fresh)) = self.first() {
            let flow = &mut self.flows[number];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.unlist_first(is_fresh);
                self.known.push_back(number);
                continue;
            }
            let (held, lost) = self.pop_of(now, service, number);
            late += lost;
            match held {
                Some(held) => {
                    self.flows[number].deficit -= isize::try_from(held.len).unwrap_or(isize::MAX);
                    let held = Some(held);
                    return Next { held, late };
                }
                // A new flow that has no more waits behind the others once before it counts as new again.
                None if is_fresh && !self.known.is_empty() => {
                    self.unlist_first(is_fresh);
                    self.known.push_back(number);
                }
                None => {
                    self.unlist_first(is_fresh);
                    self.flows[number].is_listed = false;
                }
            }
        }
        Next { held: None, late }
    }

    /// Keeps a buffer for the next packet.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.spare_bytes + buffer.capacity() <= SPARE {
            self.spare_bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }

    fn first(&self) -> Option<(usize, bool)> {
        let fresh = self.fresh.front().map(|number| (*number, true));
        fresh.or_else(|| self.known.front().map(|number| (*number, false)))
    }

    fn unlist_first(&mut self, is_fresh: bool) {
        if is_fresh {
            self.fresh.pop_front();
        } else {
            self.known.pop_front();
        }
    }

    /// The first packet of a flow that is not lost to congestion, and how many were before it.
    fn pop_of(&mut self, now: Moment, service: Duration, number: usize) -> (Option<Held>, u64) {
        let mut lost = 0;
        while let Some(mut held) = self.take_first(number) {
            let flow = &mut self.flows[number];
            let head = Head {
                waited: now.since(held.since),
                service,
                len: held.len,
                behind: flow.bytes,
            };
            if flow.codel.judge(now, head) == Verdict::Pass || held.mark() {
                return (Some(held), lost);
            }
            lost += 1;
            self.give_back(held.buffer);
        }
        (None, lost)
    }

    fn take_first(&mut self, number: usize) -> Option<Held> {
        let flow = &mut self.flows[number];
        let held = flow.waiting.pop_front()?;
        flow.bytes -= held.len;
        self.bytes -= held.len;
        self.packets -= 1;
        Some(held)
    }

    /// False where the greatest has nothing.
    fn drop_of_greatest(&mut self) -> bool {
        let greatest = (0..FLOWS).max_by_key(|number| self.flows[*number].bytes);
        let first = greatest.and_then(|number| self.take_first(number));
        first.map(|held| self.give_back(held.buffer)).is_some()
    }

    /// Packets of one connection fall together, as do the fragments of two hosts.
    fn flow_of(&self, bytes: &[u8], what: What) -> usize {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        match what {
            What::Carried(target) => target.to.hash(&mut hasher),
            What::Packet(_) => hash_connection(bytes, &mut hasher),
        }
        usize::try_from(hasher.finish() % FLOWS as u64).unwrap_or(0)
    }
}

/// By what a packet's connection is known; what is no IP packet has none.
fn hash_connection(packet: &[u8], hasher: &mut DefaultHasher) {
    let Ok(header) = Header::parse(packet) else {
        return;
    };
    let ports = header.ports(packet);
    let ports = ports.map(|ports| (ports.source, ports.destination));
    (header.source, header.destination, header.protocol, ports).hash(hasher);
}

impl Held {
    /// Has it say that it met congestion; false where its sender would not notice.
    fn mark(&mut self) -> bool {
        match &mut self.what {
            What::Packet(_) => Ecn::Met.write_into(&mut self.buffer[..self.len]).is_ok(),
            What::Carried(target) => {
                let is_heard = target.ecn != Ecn::Deaf;
                if is_heard {
                    target.ecn = Ecn::Met;
                }
                is_heard
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::packet::{ip::Ports, udp};

    fn packet(port: u16, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let addresses: (IpAddr, IpAddr) =
            ("100.64.0.1".parse().unwrap(), "100.64.0.2".parse().unwrap());
        let ports = Ports {
            source: port,
            destination: 9,
        };
        assert!(udp::build(&mut out, addresses, ports, &vec![0; len - 28]));
        assert_eq!(out.len(), len);
        out
    }

    fn listening(mut packet: Vec<u8>) -> Vec<u8> {
        packet[1] |= Ecn::Zero.bits();
        packet
    }

    fn port_of(held: &Held) -> u16 {
        let packet = &held.buffer[..held.len];
        let ports = Header::parse(packet).unwrap().ports(packet);
        ports.unwrap().source
    }

    fn pop(queue: &mut FairQueue, now: Moment) -> Option<u16> {
        let held = queue.pop(now, QUICK).held?;
        let port = port_of(&held);
        queue.give_back(held.buffer);
        Some(port)
    }

    const OWN: What = What::Packet(Undone::Nothing);
    const QUICK: Duration = Duration::ZERO;
    const NOW: Moment = Moment(1_000_000);

    #[test]
    fn a_small_flow_does_not_wait_for_a_big_one() {
        let mut queue = FairQueue::new(1);
        for _ in 0..20 {
            assert_eq!(queue.push(NOW, &packet(1, 1400), OWN), 0);
        }
        assert_eq!(pop(&mut queue, NOW), Some(1));
        queue.push(NOW, &packet(2, 100), OWN);
        assert_eq!(pop(&mut queue, NOW), Some(1), "the rest of its turn");
        assert_eq!(pop(&mut queue, NOW), Some(2));
        assert_eq!(pop(&mut queue, NOW), Some(1));
    }

    #[test]
    fn flows_get_the_same_share_of_bytes_whatever_the_size_of_their_packets() {
        let mut queue = FairQueue::new(1);
        for _ in 0..10 {
            queue.push(NOW, &packet(1, 30_000), OWN);
        }
        for _ in 0..200 {
            queue.push(NOW, &packet(2, 1000), OWN);
        }
        let mut bytes = [0; 3];
        for _ in 0..120 {
            let held = queue.pop(NOW, QUICK).held.unwrap();
            bytes[usize::from(port_of(&held))] += held.len;
        }
        let apart = usize::abs_diff(bytes[1], bytes[2]);
        assert!(apart <= 30_000 + 1514, "{bytes:?}");
    }

    #[test]
    fn each_flow_keeps_its_order_and_nothing_is_lost() {
        let mut queue = FairQueue::new(7);
        for number in 0..300_usize {
            let port = u16::try_from(number % 3).unwrap();
            queue.push(NOW, &packet(port, 100 + number), OWN);
        }
        let mut last = [0; 3];
        let mut count = 0;
        while let Some(held) = queue.pop(NOW, QUICK).held {
            let port = usize::from(port_of(&held));
            assert!(held.len > last[port]);
            last[port] = held.len;
            count += 1;
        }
        assert_eq!(count, 300);
        assert!(queue.is_empty());
        assert_eq!(pop(&mut queue, NOW), None);
    }

    #[test]
    fn without_room_the_greatest_flow_loses_its_first() {
        let mut queue = FairQueue::new(1);
        queue.push(NOW, &packet(2, 100), OWN);
        let mut dropped = 0;
        for _ in 0..2000 {
            dropped += queue.push(NOW, &packet(1, 1400), OWN);
        }
        assert_eq!(dropped, 2001 - PACKETS as u64);
        let left: Vec<_> = std::iter::from_fn(|| pop(&mut queue, NOW)).collect();
        assert_eq!(left.len(), PACKETS);
        assert!(left.contains(&2));
        for _ in 0..100 {
            queue.push(NOW, &packet(1, 65_000), OWN);
        }
        assert!(queue.bytes <= BYTES);
    }

    #[test]
    fn a_queue_that_stands_is_told_by_a_mark_or_by_a_loss() {
        for (is_listening, marked, lost) in [(true, 5, 0), (false, 0, 5)] {
            let mut queue = FairQueue::new(1);
            let packet = match is_listening {
                true => listening(packet(1, 1000)),
                false => packet(1, 1000),
            };
            let (mut met, mut late) = (0, 0);
            // Ten wait at any time, and one leaves each millisecond.
            for ms in 0..400 {
                let now = NOW.after(Duration::from_millis(ms));
                queue.push(now, &packet, OWN);
                if ms < 10 {
                    continue;
                }
                let next = queue.pop(now, QUICK);
                late += next.late;
                let held = next.held.unwrap();
                assert!(Header::parse(&held.buffer[..held.len]).is_ok());
                met += u32::from(Ecn::of(&held.buffer) == Ecn::Met);
            }
            assert!((marked..=marked + 1).contains(&met), "{met} marks");
            assert!((lost..=lost + 1).contains(&late), "{late} losses");
        }
    }

    #[test]
    fn what_is_carried_for_one_place_is_one_flow_beside_the_others() {
        let mut queue = FairQueue::new(1);
        let carried = |last, ecn| {
            let to = crate::addr::Underlay::new(([192, 0, 2, last], 7).into());
            What::Carried(Target { to, ecn })
        };
        for _ in 0..100 {
            queue.push(NOW, &[0; 1400], carried(1, Ecn::Zero));
        }
        queue.push(NOW, &packet(2, 1400), OWN);
        queue.push(NOW, &[0; 1400], carried(3, Ecn::Deaf));
        let mut others = 0;
        for _ in 0..6 {
            let held = queue.pop(NOW, QUICK).held.unwrap();
            let is_first = matches!(held.what, What::Carried(target)
                if target.to.socket().ip() == IpAddr::from([192, 0, 2, 1]));
            others += usize::from(!is_first);
        }
        assert_eq!(others, 2);
        let mut marked = queue.pop(NOW, QUICK).held.unwrap();
        assert!(marked.mark());
        assert!(matches!(marked.what, What::Carried(target) if target.ecn == Ecn::Met));
    }

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let mut queue = FairQueue::new(1);
        for _ in 0..100 {
            queue.push(NOW, &packet(1, 60_000), OWN);
            let held = queue.pop(NOW, QUICK).held.unwrap();
            assert!(held.buffer.capacity() <= 60_000 + PADDING);
            queue.give_back(held.buffer);
        }
        assert_eq!(queue.spare.len(), 1);
        for _ in 0..100 {
            queue.give_back(vec![0; 60_000]);
        }
        assert!(queue.spare_bytes <= SPARE && queue.spare.len() < 20);
    }
}
