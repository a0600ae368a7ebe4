//! Attempts and candidates, each for itself; the path agent over modelled links.

mod calls;
mod links;
mod rules;

use super::{
    attempt::{self, Attempts, Purpose},
    candidates::Candidates,
};
use crate::{
    addr::{AddressPlan, Path, Underlay},
    ids::{NetworkId, PeerIx, SessionId},
    time::{Moment, Now},
};

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;
const PEER: PeerIx = PeerIx(3);
const PAIR: SessionId = SessionId::Pair(PEER);

fn at(micros: u64) -> Now {
    Now {
        at: Moment(micros),
        unix_ms: micros / 1000,
    }
}

fn address(text: &str) -> Underlay {
    Underlay::new(text.parse().unwrap())
}

fn home() -> Underlay {
    address("192.0.2.1:7777")
}

fn away() -> Underlay {
    address("198.51.100.9:1234")
}

/// Wakes at every deadline up to `end`, and every 100 ms too if asked.
fn run_attempts(
    attempts: &mut Attempts,
    end: u64,
    nudge: Option<u64>,
) -> Vec<(u64, attempt::Output)> {
    let mut trace = Vec::new();
    let mut now = 0;
    loop {
        trace.extend(std::iter::from_fn(|| attempts.poll_output()).map(|output| (now, output)));
        let nudged = nudge.map(|every| (now / every + 1) * every);
        let due = attempts.poll_timeout().map(|due| due.0);
        match due
            .into_iter()
            .chain(nudged)
            .min()
            .filter(|next| *next <= end)
        {
            Some(next) => now = next,
            None => return trace,
        }
        attempts.handle_timeout(at(now));
    }
}

fn dials(trace: &[(u64, attempt::Output)]) -> Vec<u64> {
    let is_dial = |output: &attempt::Output| matches!(output, attempt::Output::Dial { .. });
    trace
        .iter()
        .filter(|(_, output)| is_dial(output))
        .map(|(when, _)| *when)
        .collect()
}

#[test]
fn an_attempt_for_a_program_dials_four_times_tells_after_3_s_and_ends_after_5() {
    let mut attempts = Attempts::new([1; 32]);
    attempts.start(at(0), PEER, Purpose::Wanted, &[Path::Direct(home())]);
    let trace = run_attempts(&mut attempts, 60 * SECOND, None);
    let dials = dials(&trace);
    assert_eq!(dials.len(), 4);
    for (when, wanted) in dials.into_iter().zip([0, 300, 800, 1800]) {
        assert!(
            when >= wanted * 80 / 100 * MS && when <= wanted * 120 / 100 * MS,
            "{when} for {wanted} ms"
        );
    }
    let (peer, until) = (PEER, Moment(5 * SECOND));
    assert!(trace.contains(&(3 * SECOND, attempt::Output::Unreachable { peer, until })));
    assert_eq!(
        trace.last(),
        Some(&(5 * SECOND, attempt::Output::Failed { peer }))
    );
}

#[test]
fn an_attempt_for_a_link_dials_once_more_and_tells_no_program() {
    let mut attempts = Attempts::new([1; 32]);
    attempts.start(at(0), PEER, Purpose::Link, &[Path::Direct(home())]);
    let trace = run_attempts(&mut attempts, 60 * SECOND, None);
    assert_eq!(dials(&trace).len(), 5);
    assert_eq!(trace.len(), 6);
}

#[test]
fn an_unreachable_peer_is_answered_at_once_for_ever_longer_up_to_a_minute() {
    let mut attempts = Attempts::new([1; 32]);
    let mut now = 0;
    for lasts in [2, 4, 8, 16, 32, 60, 60] {
        attempts.start(at(now), PEER, Purpose::Wanted, &[Path::Direct(home())]);
        now += 3 * SECOND;
        attempts.handle_timeout(at(now));
        let outputs: Vec<_> = std::iter::from_fn(|| attempts.poll_output()).collect();
        let (peer, until) = (PEER, Moment(now + lasts * SECOND));
        assert_eq!(
            outputs.last(),
            Some(&attempt::Output::Unreachable { peer, until })
        );
        attempts.start(
            at(until.0 - 1),
            PEER,
            Purpose::Wanted,
            &[Path::Direct(home())],
        );
        assert_eq!(
            attempts.poll_output(),
            Some(attempt::Output::Unreachable { peer, until })
        );
        assert_eq!(attempts.poll_output(), None);
        attempts.handle_timeout(at(now + 2 * SECOND));
        assert_eq!(
            attempts.poll_output(),
            Some(attempt::Output::Failed { peer })
        );
        now = until.0.max(now + 2 * SECOND);
    }
    attempts.handle_up(PEER);
    attempts.start(at(now + 1), PEER, Purpose::Wanted, &[Path::Direct(home())]);
    assert!(matches!(
        attempts.poll_output(),
        Some(attempt::Output::Dial { .. })
    ));
}

#[test]
fn a_new_address_is_dialled_at_once_and_alone() {
    let mut attempts = Attempts::new([1; 32]);
    attempts.start(at(0), PEER, Purpose::Wanted, &[Path::Direct(home())]);
    assert!(attempts.poll_output().is_some());
    attempts.handle_candidates(PEER, &[Path::Direct(home()), Path::Direct(away())]);
    let to = vec![Path::Direct(away())];
    assert_eq!(
        attempts.poll_output(),
        Some(attempt::Output::Dial { peer: PEER, to })
    );
    attempts.handle_up(PEER);
    attempts.handle_candidates(PEER, &[Path::Direct(address("192.0.2.7:1"))]);
    assert_eq!(attempts.poll_output(), None);
    assert_eq!(attempts.poll_timeout(), None);
}

#[test]
fn a_program_that_joins_an_old_attempt_gets_all_its_tries() {
    let mut attempts = Attempts::new([1; 32]);
    attempts.start(at(0), PEER, Purpose::Link, &[Path::Direct(home())]);
    run_attempts(&mut attempts, 4800 * MS, None);
    attempts.start(
        at(4900 * MS),
        PEER,
        Purpose::Wanted,
        &[Path::Direct(home())],
    );
    let trace = run_attempts(&mut attempts, 60 * SECOND, None);
    assert!(dials(&trace).len() >= 4);
    assert_eq!(trace.last().unwrap().0, 9900 * MS);
}

#[test]
fn attempts_do_the_same_when_woken_all_the_time() {
    let run = |nudge| {
        let mut attempts = Attempts::new([1; 32]);
        for peer in 0..20 {
            let purpose = if peer % 2 == 0 {
                Purpose::Wanted
            } else {
                Purpose::Link
            };
            attempts.start(
                at(0),
                PeerIx(peer),
                purpose,
                &[Path::Direct(home()), Path::Direct(away())],
            );
        }
        run_attempts(&mut attempts, 20 * SECOND, nudge)
    };
    assert_eq!(run(None), run(Some(100 * MS)));
}

fn candidates() -> Candidates {
    let network = NetworkId([1; 32]);
    let pool4 = AddressPlan::default_pool4(network);
    Candidates::new(AddressPlan { network, pool4 })
}

#[test]
fn a_peer_is_tried_where_it_worked_then_on_the_lan_then_where_it_says() {
    let mut candidates = candidates();
    let lan = address("192.168.1.7:7777");
    candidates.handle_published(PEER, &[home(), lan]);
    candidates.handle_proven(at(0), PEER, away());
    candidates.handle_lan(at(0), PEER, lan);
    assert_eq!(candidates.of(at(1), PEER), vec![away(), lan, home()]);
    assert_eq!(
        candidates.of(at(601 * SECOND), PEER),
        vec![away(), home(), lan]
    );
    assert_eq!(candidates.of(at(86_401 * SECOND), PEER), vec![home(), lan]);
}

#[test]
fn addresses_inside_the_mesh_and_those_nobody_can_be_at_are_never_tried() {
    let mut candidates = candidates();
    let plan = AddressPlan::of(NetworkId([1; 32]));
    let mesh4 = Underlay::new((plan.at4(9), 7777).into());
    let mesh6 = Underlay::new((plan.resolver6(), 7777).into());
    let useless = [
        "0.0.0.0:1",
        "224.0.0.1:1",
        "192.0.2.1:0",
        "[fe80::1]:7",
        "[ff02::1]:7",
        "169.254.1.1:7",
        "127.0.0.1:7",
        "[::1]:7",
    ];
    let mut all: Vec<Underlay> = useless.into_iter().map(address).collect();
    all.extend([mesh4, mesh6, home()]);
    candidates.handle_published(PEER, &all);
    assert_eq!(candidates.of(at(0), PEER), vec![home()]);
}

#[test]
fn an_observed_address_counts_when_two_prefixes_agree_or_one_observer_is_all_there_is() {
    let mut candidates = candidates();
    let inside = address("10.0.0.2:7777");
    candidates.handle_interfaces(&[inside]);
    candidates.handle_observed(PeerIx(1), address("192.0.2.10:1"), inside);
    assert_eq!(
        candidates.own(),
        vec![inside],
        "what an interface has is no news"
    );
    candidates.handle_observed(PeerIx(2), address("203.0.113.1:1"), away());
    assert_eq!(candidates.own(), vec![inside, away()]);
    let lie = address("203.0.113.99:9");
    candidates.handle_observed(PeerIx(3), address("203.0.113.2:1"), lie);
    assert_eq!(
        candidates.own(),
        vec![inside],
        "two who disagree are believed neither"
    );
    candidates.handle_observed(PeerIx(4), address("198.51.100.8:1"), away());
    assert_eq!(candidates.own(), vec![inside, away()]);
    candidates.handle_observer_gone(PeerIx(4));
    candidates.handle_observed(PeerIx(3), address("203.0.113.2:1"), away());
    assert_eq!(
        candidates.own(),
        vec![inside],
        "two in one prefix count as one of two"
    );
}

#[test]
fn at_most_four_addresses_are_published_and_an_observed_one_among_them() {
    let mut candidates = candidates();
    let interfaces: Vec<Underlay> = (1..8)
        .map(|n| address(&format!("10.0.{n}.2:7777")))
        .collect();
    candidates.handle_interfaces(&interfaces);
    candidates.handle_observed(PeerIx(2), address("203.0.113.1:1"), away());
    let own = candidates.own();
    assert_eq!(own.len(), 4);
    assert_eq!(own.last(), Some(&away()));
}
