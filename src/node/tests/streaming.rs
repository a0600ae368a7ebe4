//! Streams to peers that UDP does not reach: who is dialled, where, and when no more.

use std::net::IpAddr;

use super::*;
use crate::node::{StreamEvent, streaming::TAKES_STREAMS};

const DAVE: u8 = 4;
/// Somebody who is there, so that nobody is looked for out of loneliness.
const EDDA: u8 = 5;

fn at(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

/// Anna, who knows these members: they take streams, and nobody has to have a session with them.
fn anna_among(town: &Town, others: &[u8], addresses: &[Underlay]) -> Node {
    let mut records = town.people(&[ANNA, EDDA]);
    for seed in others.iter().copied() {
        let tunnel = TunnelKey::from_seed([100 + seed; 32]);
        let own = addresses.iter().copied().chain([address(seed)]);
        let peer = record::Peer {
            tunnel: tunnel.public(),
            cross: tunnel.cross_sign(id(seed), &town.network.0),
            wire_min: 1,
            wire_max: 1,
            features: 0,
            flags: 1 | TAKES_STREAMS,
            addresses: Some(own.collect()),
        };
        records.push(town.member(seed, T0_S + 90 * DAY_S));
        records.push(town.says(seed, seed, T0_S * 1000, Body::Peer(peer)));
    }
    town.node(ANNA, records)
}

fn want(node: &mut Node, ms: u64, other: u8) {
    let peer = node.ids.intern(id(other));
    node.handle_input(at_ms(ms), Input::Wanted { peer });
    drain(node);
}

/// Whom streams are begun to until then, and where.
fn dialled(node: &mut Node, (from, until): (u64, u64)) -> Vec<(NodeId, Vec<Underlay>)> {
    let mut all = Vec::new();
    for ms in (from..=until).step_by(100) {
        node.handle_input(at_ms(ms), Input::Tick);
        for output in drain(node) {
            if let Output::OpenStream { peer, to, .. } = output {
                all.push((node.node_of(peer), to));
            }
        }
    }
    all
}

#[test]
fn public_addresses_are_dialled_first_and_private_ones_only_on_an_own_link() {
    let town = Town::new();
    let own = ["192.168.7.2:41820", "192.168.1.9:41820"].map(at);
    let mut anna = anna_among(&town, &[BO], &own);
    let interfaces = vec![address(ANNA), at("192.168.1.5:41820")];
    anna.handle_input(at_ms(1), Input::Addresses(interfaces));
    want(&mut anna, 10, BO);
    let to = vec![address(BO), at("192.168.1.9:41820")];
    assert_eq!(dialled(&mut anna, (20, 3000)), [(id(BO), to)]);
}

#[test]
fn who_finds_two_being_dialled_has_its_turn_when_one_is_through() {
    let town = Town::new();
    let mut anna = anna_among(&town, &[BO, CAROL, DAVE], &[]);
    for other in [BO, CAROL, DAVE] {
        want(&mut anna, 10, other);
    }
    let first = dialled(&mut anna, (20, 2400));
    assert_eq!(first.len(), 2);
    let peer = anna.ids.intern(first[0].0);
    let failed = StreamEvent::Failed { peer };
    anna.handle_input(at_ms(2500), Input::Stream(failed));
    assert_eq!(dialled(&mut anna, (2500, 4000)).len(), 1);
}

/// Bo is wanted, and his session stands on a stream that was taken by this machine.
fn reach_by_stream(anna: &mut Node, host: Option<IpAddr>) -> (SessionId, StreamIx) {
    want(anna, 10, BO);
    assert_eq!(dialled(anna, (20, 2000)).len(), 1);
    let (session, stream) = (pair(anna, BO), StreamIx(7));
    let peer = anna.ids.intern(id(BO));
    let opened = StreamEvent::Opened { peer, stream, host };
    anna.handle_input(at_ms(2100), Input::Stream(opened));
    let endpoint = Path::Stream(stream);
    let event = SessionEvent::Up { endpoint };
    anna.handle_input(at_ms(2200), Input::Session { session, event });
    (session, stream)
}

#[test]
fn a_stream_that_ended_is_not_begun_again_for_nobody() {
    let town = Town::new();
    let mut anna = anna_among(&town, &[BO], &[]);
    let (session, stream) = reach_by_stream(&mut anna, None);
    let closed = StreamEvent::Closed { stream };
    anna.handle_input(at_ms(9000), Input::Stream(closed));
    assert!(has_closed(&drain(&mut anna), session));
    assert_eq!(dialled(&mut anna, (9100, 60_000)), []);
}

/// How often Bo's own address is Pinged until then.
fn pinged(node: &mut Node, (from, until): (u64, u64)) -> usize {
    let mut count = 0;
    for ms in (from..until).step_by(100) {
        node.handle_input(at_ms(ms), Input::Tick);
        let is_ping = |output: &Output| {
            let Output::Send { message, via, .. } = output else {
                return false;
            };
            matches!(message, Message::Ping(_)) && *via == Some(Path::Direct(address(BO)))
        };
        count += drain(node).iter().filter(|output| is_ping(output)).count();
    }
    count
}

#[test]
fn the_machine_that_took_a_stream_is_asked_by_udp_without_end_but_seldom() {
    for (host, least) in [(Some(address(BO).ip()), 2), (None, 0)] {
        let town = Town::new();
        let mut anna = anna_among(&town, &[BO], &[]);
        reach_by_stream(&mut anna, host);
        // It had its share while it was merely said that Bo is there.
        assert!(pinged(&mut anna, (2200, 15_000)) <= 5 + least);
        let asked = pinged(&mut anna, (15_000, 40_000));
        assert!((least..=least + 1).contains(&asked), "{host:?}: {asked}");
    }
}
