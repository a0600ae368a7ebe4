//! The rules of the path agent with their figures: each alone, then two agents over modelled links.

use std::time::Duration;

use super::{
    MS, PAIR, SECOND, address, at, away, home,
    links::{Link, Links},
};
use crate::{
    addr::Path,
    ids::{HandIx, LegIx, PeerIx, SessionId},
    paths::{
        distress::Cause,
        proof::{Output, Proof, Proofs},
        view::TriedState,
    },
};

fn direct(text: &str) -> Path {
    Path::Direct(address(text))
}

fn run_proofs(proofs: &mut Proofs, end: u64, nudge: Option<u64>) -> Vec<(u64, Output)> {
    let mut trace = Vec::new();
    let mut now = 0;
    loop {
        trace.extend(std::iter::from_fn(|| proofs.poll_output()).map(|output| (now, output)));
        let nudged = nudge.map(|every| (now / every + 1) * every);
        let due = proofs.poll_timeout().map(|due| due.0);
        match due
            .into_iter()
            .chain(nudged)
            .min()
            .filter(|next| *next <= end)
        {
            Some(next) => now = now.max(next),
            None => return trace,
        }
        proofs.handle_timeout(at(now));
    }
}

fn next_nonce(proofs: &mut Proofs) -> [u8; 8] {
    match proofs.poll_output() {
        Some(Output::Ping { nonce, .. }) => nonce,
        other => panic!("a Ping was due, not {other:?}"),
    }
}

#[test]
fn a_pong_from_the_address_that_was_pinged_proves_it_and_nothing_else_does() {
    let mut proofs = Proofs::new([1; 32]);
    let (home, away) = (Path::Direct(home()), Path::Direct(away()));
    proofs.handle_up(at(0), PAIR, home);
    let nonce = next_nonce(&mut proofs);
    let mut pong = |session, nonce, source| proofs.handle_pong(at(40 * MS), session, nonce, source);
    assert_eq!(pong(PAIR, [0; 8], home), Proof::Unknown);
    assert_eq!(pong(PAIR, nonce, away), Proof::Unknown);
    let other = SessionId::Pair(PeerIx(4));
    assert_eq!(pong(other, nonce, home), Proof::Unknown);
    let (path, rtt) = (home, Duration::from_millis(40));
    assert_eq!(pong(PAIR, nonce, home), Proof::Proven { path, rtt });
    assert_eq!(pong(PAIR, nonce, home), Proof::Unknown, "it serves once");
    let (session, endpoint, gap) = (PAIR, home, Duration::ZERO);
    let set = Output::SetPath {
        session,
        endpoint,
        gap,
    };
    assert_eq!(proofs.poll_output(), Some(set));
    assert!(matches!(
        proofs.poll_output(),
        Some(Output::SetRoom { room, .. }) if room.inner == 1420
    ));
    assert_eq!(proofs.poll_output(), None);
}

#[test]
fn a_candidate_that_is_silent_gets_five_pings_and_then_none_for_ten_minutes() {
    let mut proofs = Proofs::new([1; 32]);
    proofs.handle_up(at(0), PAIR, Path::Handed(HandIx(1)));
    assert_eq!(
        proofs.endpoint(PAIR),
        None,
        "a path by hand carries no data"
    );
    proofs.handle_candidates(at(0), PAIR, &[Path::Direct(away())]);
    let mut trace = run_proofs(&mut proofs, 599 * SECOND, Some(SECOND));
    let sent: Vec<u64> = trace.iter().map(|(now, _)| *now / MS).collect();
    assert_eq!(sent, [0, 200, 400, 800, 1600]);
    proofs.handle_candidates(at(599 * SECOND), PAIR, &[Path::Direct(away())]);
    trace = run_proofs(&mut proofs, 599 * SECOND, None);
    assert!(trace.is_empty(), "named again it is no other: {trace:?}");
    let view = proofs.view(at(599 * SECOND), PAIR).unwrap();
    assert_eq!((view.tried[0].sent, view.tried[0].answered), (5, 0));
    assert_eq!(
        view.tried[0].state,
        TriedState::HeldBack(at(600 * SECOND).at)
    );
}

#[test]
fn a_new_address_gets_three_pings_and_data_stays_where_it_is_without_a_pong() {
    let mut proofs = Proofs::new([1; 32]);
    proofs.handle_up(at(0), PAIR, Path::Direct(home()));
    let nonce = next_nonce(&mut proofs);
    proofs.handle_pong(at(1), PAIR, nonce, Path::Direct(home()));
    proofs.poll_output();
    for _ in 0..10 {
        proofs.handle_new_path(at(2), PAIR, Path::Direct(away()));
    }
    let said = run_proofs(&mut proofs, 60 * SECOND, None);
    let to = |path| {
        let is_there =
            |output: &Output| matches!(output, Output::Ping { via: Some(via), .. } if *via == path);
        said.iter().filter(|(_, output)| is_there(output)).count()
    };
    assert_eq!(to(Path::Direct(away())), 3, "{said:?}");
    assert_eq!(to(Path::Direct(home())), 4, "is it still there?");
    assert_eq!(proofs.endpoint(PAIR), Some(Path::Direct(home())));
}

#[test]
fn packets_from_many_addresses_start_few_pings() {
    let mut proofs = Proofs::new([1; 32]);
    proofs.handle_up(at(0), PAIR, Path::Direct(home()));
    for port in 1..1000 {
        let source = direct(&format!("203.0.113.5:{port}"));
        proofs.handle_new_path(at(1), PAIR, source);
    }
    assert!(run_proofs(&mut proofs, 60 * SECOND, None).len() <= 7 + 5);
    for host in 1..250 {
        let source = direct(&format!("198.51.100.{host}:1"));
        proofs.handle_new_path(at(60 * SECOND), PAIR, source);
    }
    assert!(run_proofs(&mut proofs, 120 * SECOND, None).len() <= 4 * 3 + 4);
}

#[test]
fn two_hundred_that_name_one_victim_get_it_five_pings_and_many_victims_fifty_a_second() {
    let mut proofs = Proofs::new([1; 32]);
    let sessions: Vec<SessionId> = (0..200).map(|peer| SessionId::Pair(PeerIx(peer))).collect();
    for session in &sessions {
        proofs.handle_up(at(0), *session, Path::Handed(HandIx(1)));
        proofs.handle_candidates(at(0), *session, &[direct("203.0.113.9:1")]);
    }
    let trace = run_proofs(&mut proofs, 60 * SECOND, None);
    assert_eq!(trace.len(), 5);
    for (host, session) in (0..).zip(&sessions) {
        let victim = direct(&format!("198.51.100.{host}:1"));
        proofs.handle_candidates(at(60 * SECOND), *session, &[victim]);
    }
    let trace = run_proofs(&mut proofs, 90 * SECOND, None);
    let times: Vec<u64> = trace.iter().map(|(now, _)| *now).collect();
    assert_eq!(times.len(), 200 * 5);
    for from in &times {
        let in_a_second = times
            .iter()
            .filter(|now| (*from..from + SECOND).contains(now));
        assert!(in_a_second.count() <= 50);
    }
}

#[test]
fn a_person_gets_the_answer_or_hears_that_none_came() {
    let mut proofs = Proofs::new([1; 32]);
    proofs.ping(at(0), PAIR, Some(1));
    let (session, tag) = (PAIR, 1);
    let unanswered = Output::Unanswered { session, tag };
    assert_eq!(proofs.poll_output(), Some(unanswered));
    proofs.handle_up(at(0), PAIR, Path::Direct(home()));
    run_proofs(&mut proofs, 60 * SECOND, None);
    proofs.ping(at(60 * SECOND), PAIR, Some(2));
    let nonce = next_nonce(&mut proofs);
    let proof = proofs.handle_pong(at(60 * SECOND + 7 * MS), PAIR, nonce, Path::Direct(home()));
    let rtt = Duration::from_millis(7);
    assert_eq!(proof, Proof::Answered { tag: Some(2), rtt });
    assert_eq!(proofs.rtt(PAIR).unwrap().last, rtt);
    proofs.ping(at(70 * SECOND), PAIR, Some(3));
    let trace = run_proofs(&mut proofs, 75 * SECOND, None);
    let unanswered = Output::Unanswered { session, tag: 3 };
    assert_eq!(trace.last(), Some(&(75 * SECOND, unanswered)));
}

fn pings_by(trace: &[(u64, Output)], path: Path) -> Vec<[u8; 8]> {
    let mut nonces = Vec::new();
    for (_, output) in trace {
        if let Output::Ping { nonce, via, .. } = output
            && *via == Some(path)
        {
            nonces.push(*nonce);
        }
    }
    nonces
}

#[test]
fn a_session_with_sixteen_proven_paths_tries_one_more_in_place_of_the_longest_silent() {
    let mut proofs = Proofs::new([1; 32]);
    proofs.handle_up(at(0), PAIR, Path::Direct(home()));
    for last in 1..=20 {
        let now = last * 10 * SECOND;
        run_proofs(&mut proofs, now, None);
        let path = direct(&format!("198.51.100.{last}:9"));
        proofs.handle_candidates(at(now), PAIR, &[path]);
        let outputs: Vec<_> = std::iter::from_fn(|| proofs.poll_output()).collect();
        let trace: Vec<_> = outputs.into_iter().map(|output| (now, output)).collect();
        let pings = pings_by(&trace, path);
        assert_eq!(pings.len(), 1, "{path:?}");
        let proof = proofs.handle_pong(at(now + MS), PAIR, pings[0], path);
        assert!(matches!(proof, Proof::Proven { .. }), "{proof:?}");
    }
}

#[test]
fn a_candidate_whose_target_had_its_share_is_tried_when_it_has_one_again() {
    for used in [true, false] {
        let mut proofs = Proofs::new([1; 32]);
        proofs.handle_up(at(0), PAIR, Path::Direct(home()));
        let (first, second) = (direct("198.51.100.7:1"), direct("198.51.100.7:2"));
        proofs.handle_candidates(at(0), PAIR, &[first]);
        run_proofs(&mut proofs, 5 * SECOND, None);
        proofs.handle_candidates(at(5 * SECOND), PAIR, &[second]);
        let trace = run_proofs(&mut proofs, 599 * SECOND, None);
        assert_eq!(pings_by(&trace, second).len(), 0);
        if used {
            proofs.handle_used(at(599 * SECOND), PAIR, at(599 * SECOND).at);
        }
        let trace = run_proofs(&mut proofs, 700 * SECOND, None);
        let expected = if used { 5 } else { 0 };
        assert_eq!(pings_by(&trace, second).len(), expected, "used: {used}");
    }
}

#[test]
fn agents_do_the_same_when_woken_all_the_time() {
    let run = |nudge| {
        let mut proofs = Proofs::new([1; 32]);
        for peer in 0..10 {
            let session = SessionId::Pair(PeerIx(peer));
            proofs.handle_up(at(0), session, Path::Direct(home()));
            proofs.handle_new_path(at(0), session, Path::Direct(away()));
            proofs.handle_unheard(at(0), session, Cause::Silent);
            proofs.ping(at(0), session, Some(u64::from(peer)));
        }
        run_proofs(&mut proofs, 20 * SECOND, nudge)
    };
    assert_eq!(run(None), run(Some(100 * MS)));
}

/// A link of which each way takes so many ms.
fn link(names: [Path; 2], trip_ms: u64) -> Link {
    Link {
        names,
        trip: [trip_ms * MS; 2],
        lost: [false; 2],
        fits: u16::MAX,
    }
}

fn direct_link(trip_ms: u64) -> Link {
    link([direct("203.0.113.2:1"), direct("198.51.100.1:1")], trip_ms)
}

fn relay_link(leg: u32, trip_ms: u64) -> Link {
    link([Path::Relay(LegIx(leg)); 2], trip_ms)
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const EVERY: Duration = Duration::from_millis(20);

/// The longest time without a packet that arrived at a side, from `from` on.
fn longest_gap(world: &Links, side: usize, from: u64) -> u64 {
    let mut arrivals: Vec<u64> = world.arrived[side]
        .values()
        .map(|(when, _)| *when)
        .filter(|when| *when >= from)
        .collect();
    arrivals.sort_unstable();
    let gaps = std::iter::once(from)
        .chain(arrivals.iter().copied())
        .zip(arrivals.iter().copied().chain([world.now]));
    gaps.map(|(a, b)| b - a).max().unwrap_or(u64::MAX)
}

#[test]
fn data_flows_over_the_relay_at_once_and_moves_to_the_direct_path_after_three_pongs() {
    let mut world = Links::new(vec![relay_link(1, 40), direct_link(10)]);
    world.name_all();
    world.run(Duration::from_millis(200), &[0], EVERY);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (Some(0), Some(0)));
    assert!(!world.arrived[1].is_empty(), "data flows");
    world.run(Duration::from_millis(500), &[0], EVERY);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (Some(1), Some(1)));
    let moves = world.said.iter().filter_map(|(when, side, output)| {
        let Output::SetPath { gap, .. } = output else {
            return None;
        };
        Some((*when / MS, *side, gap.as_millis()))
    });
    let moves: Vec<(u64, usize, u128)> = moves.collect();
    assert!(
        moves.iter().all(|(_, _, gap)| *gap == 30),
        "(80 − 20) / 2: {moves:?}"
    );
    assert_eq!(moves.len(), 2);
}

#[test]
fn a_session_that_came_to_stand_by_hand_takes_whatever_answers_first() {
    let mut world = Links::new(vec![
        link([Path::Handed(HandIx(1)); 2], 5),
        relay_link(1, 50),
        direct_link(90),
    ]);
    assert_eq!(world.agents[0].endpoint(PAIR), None);
    world.name_all();
    world.idle(Duration::from_millis(110));
    assert_eq!(world.endpoint(0), Some(1));
    world.idle(SECONDS(2));
    assert_eq!(world.endpoint(0), Some(2), "slower, but of a better kind");
}

#[test]
fn a_direct_path_that_is_cut_gives_way_to_the_relay_and_is_back_within_30_s() {
    for cut_for in [3, 10, 45] {
        let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
        world.name_all();
        world.run(SECONDS(30), &[0, 1], EVERY);
        let cut_at = world.now;
        world.cut(0);
        world.run(SECONDS(cut_for), &[0, 1], EVERY);
        for side in 0..2 {
            assert_eq!(world.endpoint(side), Some(1), "{cut_for}");
            let gap = longest_gap(&world, side, cut_at);
            assert!(gap <= 2500 * MS, "{gap} µs without data");
        }
        world.mend(0);
        let mended_at = world.now;
        world.run(SECONDS(30), &[0, 1], EVERY);
        assert_eq!(
            (world.endpoint(0), world.endpoint(1)),
            (Some(0), Some(0)),
            "{cut_for}"
        );
        assert!(longest_gap(&world, 0, mended_at) < 200 * MS);
    }
}

#[test]
fn a_path_made_one_way_is_left_by_both_within_3_s_whoever_writes() {
    for (lost, writers) in [(0, vec![0]), (0, vec![1]), (1, vec![0]), (1, vec![0, 1])] {
        let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
        world.name_all();
        world.run(SECONDS(12), &writers, EVERY);
        let from = world.now;
        world.links[0].lost[lost] = true;
        world.run(SECONDS(5), &writers, EVERY);
        for side in 0..2 {
            let gap = longest_gap(&world, side, from);
            assert!(
                gap <= 3 * SECOND,
                "{lost} {writers:?}: side {side} waits {gap} µs"
            );
        }
    }
}

#[test]
fn a_relay_that_dies_gives_way_to_the_other_and_one_that_says_so_at_once() {
    let mut world = Links::new(vec![relay_link(1, 20), relay_link(2, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    let from = world.now;
    world.cut(0);
    world.run(SECONDS(4), &[0, 1], EVERY);
    assert_eq!(world.endpoint(0), Some(1));
    assert!(longest_gap(&world, 0, from) <= 2500 * MS);
    world.mend(0);
    let gone = world.links[1].names[0];
    let from = world.now;
    world.remove(1);
    for side in 0..2 {
        let now = at(world.now);
        world.agents[side].handle_path_gone(now, gone);
    }
    world.run(SECONDS(3), &[0, 1], EVERY);
    assert_eq!(world.endpoint(0), Some(0));
    let gap = longest_gap(&world, 0, from);
    assert!(gap <= 500 * MS, "{gap} µs, {:?}", world.said);
}

#[test]
fn a_standing_session_that_nobody_uses_costs_nothing() {
    for links in [
        vec![direct_link(10)],
        vec![relay_link(1, 40), relay_link(2, 50)],
    ] {
        let mut world = Links::new(links);
        world.name_all();
        world.run(SECONDS(5), &[0, 1], EVERY);
        world.idle(SECONDS(20));
        let before = world.datagrams;
        world.idle(SECONDS(600));
        assert_eq!(world.datagrams, before);
    }
}

#[test]
fn after_ten_idle_minutes_the_first_packet_is_there_within_a_second_though_the_nat_forgot() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(5), &[0, 1], EVERY);
    world.idle(SECONDS(500));
    world.cut(0);
    let asked = world.now;
    let number = world.write(0);
    world.idle(SECONDS(1));
    let (came, by) = world.arrived[0][&(number + 1_000_000)];
    assert_eq!(by, 1);
    assert!(
        came - asked <= SECOND,
        "the answer took {} µs",
        came - asked
    );
}

#[test]
fn without_another_path_packets_wait_others_are_asked_and_a_new_way_takes_them_all() {
    let mut world = Links::new(vec![direct_link(10)]);
    world.run(SECONDS(12), &[0], EVERY);
    let from = world.now;
    world.cut(0);
    world.run(Duration::from_millis(2500), &[0], EVERY);
    let said: Vec<(u64, Output)> = world
        .said
        .iter()
        .filter(|(when, side, _)| *side == 0 && *when >= from)
        .map(|(when, _, output)| ((when - from) / MS, output.clone()))
        .collect();
    let session = PAIR;
    let sought = said
        .iter()
        .find(|(_, output)| *output == Output::Seek { session });
    assert!(sought.is_some_and(|(when, _)| *when <= 1500), "{said:?}");
    assert!(
        said.iter()
            .any(|(_, output)| *output == Output::Withdraw { session })
    );
    world.links.push(relay_link(7, 40));
    world.name_all();
    world.run(Duration::from_millis(500), &[0], EVERY);
    assert_eq!(world.endpoint(0), Some(1));
    assert!(longest_gap(&world, 1, from) <= 3 * SECOND);
}

#[test]
fn a_peer_that_is_gone_is_given_up_after_some_seconds() {
    let mut world = Links::new(vec![direct_link(10)]);
    world.run(SECONDS(2), &[0], EVERY);
    let from = world.now;
    world.cut(0);
    world.run(SECONDS(6), &[0], EVERY);
    let session = PAIR;
    let lost = world
        .said
        .iter()
        .find(|(_, side, output)| *side == 0 && *output == Output::Lost { session });
    let lost = lost.expect("it is given up").0 - from;
    assert!((4 * SECOND..=5500 * MS).contains(&lost), "{lost}");
}

#[test]
fn inside_a_class_only_a_fifth_and_ten_ms_count_and_only_after_ten_seconds() {
    let world = |first, second, lasting| {
        let mut world = Links::new(vec![relay_link(1, first), relay_link(2, second)]);
        world.name_all();
        world.run(SECONDS(lasting), &[0, 1], EVERY);
        world.endpoint(0)
    };
    assert_eq!(world(80, 40, 9), Some(0), "not yet");
    assert_eq!(world(80, 40, 25), Some(1));
    assert_eq!(world(40, 34, 60), Some(0), "12 ms, and less than a fifth");
    assert_eq!(world(10, 6, 60), Some(0), "two fifths, and less than 10 ms");
}

#[test]
fn a_peer_with_a_new_address_has_its_data_there_within_a_second_and_a_packet_alone_moves_nothing() {
    for writers in [vec![0], vec![1], vec![0, 1]] {
        let mut world = Links::new(vec![direct_link(25), relay_link(1, 60)]);
        world.name_all();
        world.run(SECONDS(30), &writers, EVERY);
        let from = world.now;
        world.links[0].names[1] = direct("192.0.2.77:9");
        world.run(SECONDS(3), &writers, EVERY);
        for side in 0..2 {
            let gap = longest_gap(&world, side, from);
            assert!(gap <= SECOND, "{writers:?}: side {side} waits {gap} µs");
        }
        assert_eq!(world.endpoint(1), Some(0));
    }
}

#[test]
fn packets_held_back_and_sent_from_elsewhere_get_no_data_there() {
    let mut world = Links::new(vec![direct_link(10)]);
    world.run(SECONDS(12), &[0, 1], EVERY);
    // Mallory's address: packets come from it, and what is sent there is lost.
    world
        .links
        .push(link([direct("192.0.2.66:1"), direct("192.0.2.66:2")], 10));
    world.links[1].lost = [true; 2];
    for _ in 0..50 {
        let (now, mallory) = (at(world.now), world.links[1].names[0]);
        world.agents[0].handle_new_path(now, PAIR, mallory);
        world.run(Duration::from_millis(300), &[0, 1], EVERY);
    }
    assert_eq!(world.endpoint(0), Some(0));
    let there = world.pings.iter().filter(|(_, _, link)| *link == Some(1));
    assert!(there.count() <= 5, "five to one target, and nothing else");
    assert!(world.arrived[1].values().all(|(_, by)| *by == 0));
}

#[test]
fn own_addresses_that_change_have_every_path_tried_at_once() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    let from = world.now;
    world.agents[0].handle_addresses(at(from), &[address("198.51.100.200:1")]);
    world.run(Duration::from_millis(50), &[0, 1], EVERY);
    let pinged = |link| {
        let mut pings = world.pings.iter();
        pings.any(|(when, side, to)| *when == from && *side == 0 && *to == Some(link))
    };
    assert!(pinged(0) && pinged(1));
    world.agents[0].handle_addresses(at(world.now), &[address("198.51.100.200:1")]);
    let pings = world.pings.len();
    world.run(Duration::from_millis(20), &[0, 1], EVERY);
    assert!(
        world.pings.len() <= pings + 2,
        "the same addresses are no news"
    );
}

/// A session by a relay whose direct candidate had its share of Pings, and answered none.
fn relayed_in_vain() -> Proofs {
    let mut proofs = Proofs::new([1; 32]);
    let relay = Path::Relay(LegIx(1));
    proofs.handle_up(at(0), PAIR, relay);
    let nonce = next_nonce(&mut proofs);
    proofs.handle_pong(at(1), PAIR, nonce, relay);
    proofs.handle_candidates(at(1), PAIR, &[Path::Direct(away())]);
    let trace = run_proofs(&mut proofs, 10 * SECOND, None);
    assert_eq!(pings_by(&trace, Path::Direct(away())).len(), 5);
    proofs.handle_candidates(at(10 * SECOND), PAIR, &[Path::Direct(away())]);
    let trace = run_proofs(&mut proofs, 10 * SECOND, None);
    assert_eq!(pings_by(&trace, Path::Direct(away())), [] as [[u8; 8]; 0]);
    proofs
}

#[test]
fn who_moves_tries_what_never_answered_where_it_was() {
    let mut proofs = relayed_in_vain();
    proofs.handle_addresses(at(11 * SECOND), &[home()]);
    let trace = run_proofs(&mut proofs, 15 * SECOND, None);
    assert_eq!(pings_by(&trace, Path::Direct(away())).len(), 5);
}

#[test]
fn who_loses_a_link_and_has_another_at_once_begins_again_from_there() {
    let mut proofs = relayed_in_vain();
    proofs.handle_addresses(at(11 * SECOND), &[home()]);
    proofs.handle_timeout(at(11 * SECOND + 300 * MS));
    proofs.handle_addresses(at(11 * SECOND + 300 * MS), &[address("192.0.2.9:7777")]);
    let trace = run_proofs(&mut proofs, 15 * SECOND, None);
    assert_eq!(pings_by(&trace, Path::Direct(away())).len(), 7);
}

#[test]
fn who_is_heard_is_asked_though_nobody_answered_where_he_was_said_to_be() {
    let mut proofs = relayed_in_vain();
    let heard = direct("198.51.100.9:60315");
    proofs.handle_new_path(at(11 * SECOND), PAIR, heard);
    let trace = run_proofs(&mut proofs, 15 * SECOND, None);
    assert_eq!(pings_by(&trace, heard).len(), 3);
}

#[test]
fn a_path_that_fails_again_and_again_is_barred_for_ever_longer() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    let mut away = Vec::new();
    for _ in 0..3 {
        let from = world.now;
        world.cut(0);
        world.run(SECONDS(4), &[0, 1], EVERY);
        world.mend(0);
        while world.endpoint(0) != Some(0) {
            world.run(Duration::from_millis(500), &[0, 1], EVERY);
        }
        away.push((world.now - from) / SECOND);
        world.run(SECONDS(5), &[0, 1], EVERY);
    }
    assert!((30..34).contains(&away[0]), "{away:?}");
    assert!((60..66).contains(&away[1]), "{away:?}");
    assert!((120..130).contains(&away[2]), "{away:?}");
}

#[test]
fn what_fits_a_path_is_found_once_it_is_used_and_an_unused_one_is_not_measured() {
    for (fits, found) in [(u16::MAX, 1420), (1419, 1408), (1385, 1376), (1281, 1280)] {
        let mut world = Links::new(vec![direct_link(10)]);
        world.links[0].fits = fits;
        world.idle(SECONDS(5));
        assert_eq!(world.datagrams, 4, "a Ping and a Pong each");
        world.run(SECONDS(3), &[0, 1], EVERY);
        let room = world.rooms[0].expect("it is found");
        assert_eq!((room.inner, room.in_fragments), (found, false), "{fits}");
    }
}

#[test]
fn a_path_that_shrinks_under_long_packets_stalls_them_for_less_than_two_seconds() {
    for (fits, in_fragments) in [(1360, false), (1200, true)] {
        let mut world = Links::new(vec![direct_link(20)]);
        world.len = 1420;
        world.run(SECONDS(15), &[0, 1], EVERY);
        let from = world.now;
        world.links[0].fits = fits;
        world.run(SECONDS(4), &[0, 1], EVERY);
        for side in 0..2 {
            let gap = longest_gap(&world, side, from);
            assert!(gap < 2 * SECOND, "{fits}: side {side} waits {gap} µs");
            let room = world.rooms[side].unwrap();
            assert_eq!(
                (room.inner, room.in_fragments),
                (fits.clamp(1280, 1360), in_fragments)
            );
        }
    }
}

#[test]
fn a_relay_s_frames_are_left_room_for_from_the_start() {
    let mut world = Links::new(vec![relay_link(1, 10)]);
    world.idle(SECONDS(1));
    assert_eq!(world.rooms[0].map(|room| room.inner), Some(1404));
}

#[test]
fn who_is_asked_by_the_relay_answers_there_before_anything_is_given_up() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(12), &[0], EVERY);
    let from = world.now;
    // What the left side writes arrives by the direct path, and its copies by the relay are doubles: the Ping there is all
    // that tells the right side that its answers do not.
    world.links[0].lost[1] = true;
    world.run(SECONDS(3), &[0], EVERY);
    let gap = longest_gap(&world, 0, from);
    assert!(gap <= SECOND, "{gap} µs without an answer");
}

#[test]
fn pings_by_the_relay_cost_a_pair_whose_direct_path_works_a_ping_and_move_nothing() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(60), &[0, 1], EVERY);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (Some(0), Some(0)));
    let is_mirror = |(_, _, output): &&(u64, usize, Output)| {
        matches!(output, Output::Mirror { via: Some(_), .. })
    };
    assert_eq!(world.said.iter().filter(is_mirror).count(), 0);
    let later = world.pings.iter().filter(|(when, ..)| *when > 20 * SECOND);
    assert!(later.count() <= 40 * 2, "two a second, all in all");
}

#[test]
fn who_is_called_asks_paths_that_answered_a_moment_ago_too() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    let (now, relay) = (world.now, world.links[1].names[0]);
    world.tell(0, |agent, now| agent.handle_sought(now, PAIR, &[relay]));
    for link in [0, 1] {
        let is_asked = |(when, side, to): &(u64, usize, Option<usize>)| {
            (*when, *side, *to) == (now, 0, Some(link))
        };
        assert!(world.pings.iter().any(is_asked), "{link}");
    }
}

#[test]
fn where_the_endpoint_rests_the_first_path_that_answers_carries() {
    for rests in [false, true] {
        let mut world = Links::new(vec![relay_link(1, 20), relay_link(2, 40)]);
        world.name_all();
        world.run(SECONDS(15), &[0, 1], EVERY);
        assert_eq!(world.endpoint(0), Some(0));
        let [near, far] = [0, 1].map(|link: usize| world.links[link].names[0]);
        if rests {
            world.tell(0, |agent, _| agent.handle_path_rests(near));
        }
        world.cut(0);
        world.tell(0, |agent, now| agent.handle_sought(now, PAIR, &[far]));
        world.run(Duration::from_millis(100), &[], EVERY);
        assert_eq!(world.endpoint(0), Some(usize::from(rests)));
    }
}

#[test]
fn a_path_that_is_back_is_asked_at_once_while_one_is_looked_for_and_not_otherwise() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0], EVERY);
    let relay = world.links[1].names[0];
    let asked = |world: &mut Links| {
        let before = world.pings.len();
        world.tell(0, |agent, now| agent.handle_path_back(now, relay));
        world.pings[before..].contains(&(world.now, 0, Some(1)))
    };
    assert!(!asked(&mut world));
    world.cut(0);
    world.cut(1);
    world.run(Duration::from_millis(850), &[0], EVERY);
    assert!(asked(&mut world));
}

#[test]
fn a_barred_path_that_the_other_side_found_good_again_is_taken_by_both() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    world.cut(0);
    world.run(SECONDS(4), &[0, 1], EVERY);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (Some(1), Some(1)));
    world.mend(0);
    // Whose address changes tries everything at once.
    let now = at(world.now);
    world.agents[0].handle_addresses(now, &[address("198.51.100.200:1")]);
    world.run(SECONDS(4), &[0, 1], EVERY);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (Some(0), Some(0)));
}

#[test]
fn a_path_that_dies_with_the_one_that_was_left_is_noticed_though_others_speak() {
    let mut world = Links::new(vec![direct_link(10), relay_link(1, 40)]);
    world.name_all();
    world.run(SECONDS(15), &[0, 1], EVERY);
    world.cut(0);
    world.run(Duration::from_millis(1500), &[0, 1], EVERY);
    let from = world.now;
    world.cut(1);
    world.mend(0);
    world.run(SECONDS(3), &[0, 1], EVERY);
    for side in 0..2 {
        let gap = longest_gap(&world, side, from);
        assert!(gap <= 2 * SECOND, "side {side} waits {gap} µs");
    }
}

#[test]
fn when_long_packets_go_out_again_what_fitted_is_asked_for_and_then_what_is_shorter() {
    let mut proofs = Proofs::new([1; 32]);
    let home = Path::Direct(home());
    proofs.handle_up(at(0), PAIR, home);
    let nonce = next_nonce(&mut proofs);
    proofs.handle_pong(at(10 * MS), PAIR, nonce, home);
    while proofs.poll_output().is_some() {}
    let pings = |proofs: &mut Proofs| -> Vec<([u8; 8], Option<u16>)> {
        let outputs = std::iter::from_fn(|| proofs.poll_output());
        let pings = outputs.filter_map(|output| {
            let Output::Ping { nonce, len, .. } = output else {
                return None;
            };
            Some((nonce, len))
        });
        pings.collect()
    };
    for second in [1, 2] {
        proofs.handle_resent(at(second * SECOND), PAIR);
        let asked = pings(&mut proofs);
        let sizes: Vec<_> = asked.iter().map(|(_, len)| *len).collect();
        assert_eq!(sizes, [None, Some(1420), Some(1420), Some(1420)]);
        proofs.handle_resent(at(second * SECOND), PAIR);
        assert!(pings(&mut proofs).is_empty(), "it is being asked for");
        let answered = if second == 1 { asked[3].0 } else { asked[0].0 };
        proofs.handle_pong(at(second * SECOND + 10 * MS), PAIR, answered, home);
    }
    proofs.handle_timeout(at(2 * SECOND + 300 * MS));
    let asked = pings(&mut proofs);
    let fits = asked.iter().find(|(_, len)| *len == Some(1360)).unwrap().0;
    proofs.handle_pong(at(2 * SECOND + 310 * MS), PAIR, fits, home);
    proofs.handle_timeout(at(2 * SECOND + 600 * MS));
    assert_eq!(proofs.room(PAIR).map(|room| room.inner), Some(1360));
}
