//! Standing flows cost no allocation: every packet that a shard carries, turns around, answers by itself or drops is
//! handled in buffers that stand ready (design §6).

use super::*;
use crate::platform::allocation::asked_by;

/// Packets each way before anything is counted, and while it is.
const WARM_UP: u32 = 200;
const COUNTED: u32 = 2_000;

/// So many packets stand in a batch before it is sent, as in the thread.
const BATCH: u32 = 64;

/// Two machines with a session, and packets of their programs that go round and round.
struct Flows {
    world: World,
    from_alice: Vec<Vec<u8>>,
    from_bob: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// Packets that were written into the TUN of either.
    written: u64,
}

impl Flows {
    fn new(from_alice: Vec<Vec<u8>>, from_bob: Vec<Vec<u8>>) -> Self {
        Self::of(World::proven(), from_alice, from_bob)
    }

    fn of(world: World, from_alice: Vec<Vec<u8>>, from_bob: Vec<Vec<u8>>) -> Self {
        Self {
            world,
            from_alice,
            from_bob,
            buffer: vec![0; 2048],
            written: 0,
        }
    }

    /// Each packet `times` times, in batches, and the timers of a quarter of a second after each.
    fn run(&mut self, times: u32) {
        for _ in 0..times / BATCH {
            let World { alice, bob, now } = &mut self.world;
            for _ in 0..BATCH {
                write_all(&self.from_alice, &mut self.buffer, (alice, now.at));
                write_all(&self.from_bob, &mut self.buffer, (bob, now.at));
            }
            deliver(alice, bob, now.at);
            deliver(bob, alice, now.at);
            for side in [alice, bob] {
                self.written += u64::try_from(side.shard.out.packets.len()).unwrap();
                side.shard.out.packets.clear();
                side.shard.handle_timers(now.at);
            }
            now.at = now.at.after(Duration::from_millis(250));
        }
    }

    /// What a warm run asks for, in bytes, and how many packets came out of it.
    fn measure(&mut self) -> (usize, u64) {
        self.run(WARM_UP);
        let before = self.written;
        let asked = asked_by(|| self.run(COUNTED));
        (asked, self.written - before)
    }
}

fn write_all(packets: &[Vec<u8>], buffer: &mut [u8], (side, at): (&mut Side, Moment)) {
    for packet in packets {
        buffer[..packet.len()].copy_from_slice(packet);
        let read = (packet.len(), Undone::Nothing);
        side.shard.handle_packet(at, buffer, read);
    }
}

fn deliver(from: &mut Side, to: &mut Side, at: Moment) {
    for (target, datagram) in from.shard.out.datagrams.iter() {
        assert_eq!(Path::Direct(target.to), to.at);
        to.shard.handle_datagram(at, from.at, datagram);
    }
    from.shard.out.datagrams.clear();
}

fn v6(last: u8) -> IpAddr {
    format!("fd00::{last}").parse().unwrap()
}

/// How many packets of each kind a run writes.
fn times(kinds: u64) -> u64 {
    u64::from(COUNTED / BATCH * BATCH) * kinds
}

#[test]
fn packets_of_both_families_are_carried_both_ways_without_an_allocation() {
    let long = [7; 1300];
    let mut flows = Flows::new(
        vec![
            datagram(v4(1), v4(2), (5, 6), &long),
            datagram(v6(1), v6(2), (5, 6), &long),
            segment(v4(1), v4(2), (5, 6), ACK),
        ],
        vec![
            datagram(v4(2), v4(1), (6, 5), &long),
            datagram(v6(2), v6(1), (6, 5), b"short"),
            segment(v6(2), v6(1), (6, 5), SYN),
        ],
    );
    assert_eq!(flows.measure(), (0, times(6)));
}

#[test]
fn packets_are_carried_by_transports_without_an_allocation() {
    let long = [7; 1300];
    let mut flows = Flows::of(
        transports::sealing(transports::Lower::Alice),
        vec![
            datagram(v4(1), v4(2), (5, 6), &long),
            segment(v6(1), v6(2), (5, 6), ACK),
        ],
        vec![datagram(v6(2), v6(1), (6, 5), &long)],
    );
    assert_eq!(flows.measure(), (0, times(3)));
}

#[test]
fn packets_of_a_spliced_service_are_rewritten_both_ways_without_an_allocation() {
    let mut flows = Flows::new(
        vec![
            segment(v4(1), v4(2), (40_000, 80), SYN),
            segment(v6(1), v6(2), (40_000, 80), SYN),
        ],
        vec![
            segment(v4(2), v4(1), (20_080, 40_000), SYN | ACK),
            segment(v6(2), v6(1), (20_080, 40_000), SYN | ACK),
        ],
    );
    assert_eq!(flows.measure(), (0, times(4)));
}

#[test]
fn packets_to_the_resolver_and_an_own_service_are_turned_around_without_an_allocation() {
    let vip: IpAddr = VIP.parse().unwrap();
    let resolvers: [IpAddr; 2] = [RESOLVER.parse().unwrap(), v6(53)];
    let mut from_alice = vec![
        segment(v4(1), vip, (40_000, 80), SYN),
        segment(v4(1), vip, (20_080, 40_000), SYN | ACK),
    ];
    for (own, resolver) in [v4(1), v6(1)].into_iter().zip(resolvers) {
        from_alice.push(segment(own, resolver, (40_000, 53), SYN));
        from_alice.push(segment(own, resolver, (29_999, 40_000), SYN | ACK));
        // What is around a datagram's answer: the answer itself is the zone's.
        from_alice.push(datagram(own, resolver, (40_000, 53), b"question"));
    }
    let mut flows = Flows::new(from_alice, Vec::new());
    assert_eq!(flows.measure(), (0, times(8)));
}

#[test]
fn packets_that_go_nowhere_cost_no_allocation() {
    let mut forged = Vec::new();
    frame::shape(&[0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0], &mut forged);
    let dropped = vec![
        forged,
        segment(v4(9), v4(2), (5, 6), SYN),
        datagram(v4(1), [224, 0, 0, 1].into(), (5, 6), b"multicast"),
        datagram(v4(1), [192, 0, 2, 1].into(), (5, 6), b"no route"),
        vec![0x90; 40],
    ];
    // These are answered: by ICMP, and by a reset.
    let refused = vec![
        datagram(v4(1), v4(200), (5, 6), b"nobody"),
        segment(v4(1), VIP.parse().unwrap(), (5, 81), SYN),
    ];
    let mut flows = Flows::new([dropped, refused].concat(), Vec::new());
    assert_eq!(flows.measure(), (0, times(2)));
}

#[test]
fn what_a_peer_may_not_send_costs_no_allocation() {
    let mut world = World::standing();
    let place = world.alice.shard.sessions.place(PEER).unwrap();
    let inner = [
        segment(v4(9), v4(2), (5, 6), SYN),
        segment(v4(1), v4(9), (5, 6), SYN),
        segment(v4(1), v4(2), (5, 20_080), SYN),
    ];
    let mut sealed = [0; 2048];
    let mut run = |times: u32| {
        for _ in 0..times {
            for packet in &inner {
                let state = world.alice.shard.sessions.at(place).unwrap();
                let len = state.session.encapsulate(packet, &mut sealed).unwrap();
                let bob = &mut world.bob.shard;
                let mut take = |datagram: &[u8]| {
                    bob.handle_datagram(world.now.at, world.alice.at, datagram);
                };
                sealed[len - 1] ^= 1;
                take(&sealed[..len]);
                sealed[len - 1] ^= 1;
                take(&sealed[..len]);
                // Once more is a replay; the highest byte of the index is another state's.
                take(&sealed[..len]);
                sealed[7] ^= 0xff;
                take(&sealed[..len]);
            }
        }
    };
    run(WARM_UP);
    assert_eq!(asked_by(|| run(COUNTED)), 0);
    let met = |reason| world.bob.shard.drops.met(reason);
    let all = u64::from(WARM_UP + COUNTED);
    assert_eq!(met(DropReason::InForeignSource), all);
    assert_eq!(met(DropReason::InForeignDestination), all);
    assert_eq!(met(DropReason::InListenerPort), all);
    assert_eq!(met(DropReason::InReplay), 3 * all);
    assert_eq!(met(DropReason::InTag), 3 * all);
    assert_eq!(met(DropReason::InUnknownIndex), 3 * all);
    assert!(world.bob.shard.out.packets.is_empty());
}
