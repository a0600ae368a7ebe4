//! Through whom a peer is called, and when (design §9).

use super::{MS, PEER, at, home};
use crate::{
    addr::Path,
    ids::PeerIx,
    paths::attempt::{Attempts, Output, Purpose, Ways},
};

fn after(millis: u64) -> crate::time::Now {
    at(millis * MS)
}

fn peers(numbers: std::ops::Range<u32>) -> Vec<PeerIx> {
    numbers.map(PeerIx).collect()
}

/// A peer with one address, 12 homes (100–111) and 3 links (200–202) to ask.
fn ways() -> Ways {
    Ways {
        paths: vec![Path::Direct(home())],
        homes: peers(100..112),
        links: peers(200..203),
        is_at_homes: true,
    }
}

fn attempts() -> Attempts {
    Attempts::new([7; 32])
}

/// Lets time run in steps of 10 ms; what came, and when.
fn run(attempts: &mut Attempts, from_ms: u64, to_ms: u64) -> Vec<(u64, Output)> {
    let mut came = Vec::new();
    for ms in (from_ms..=to_ms).step_by(10) {
        attempts.handle_timeout(after(ms));
        came.extend(std::iter::from_fn(|| attempts.poll_output()).map(|output| (ms, output)));
    }
    came
}

fn through(came: &[(u64, Output)]) -> Vec<(u64, Vec<PeerIx>)> {
    came.iter()
        .filter_map(|(ms, output)| match output {
            Output::Call { through, .. } => Some((*ms, through.clone())),
            Output::Dial { .. } | Output::Unreachable { .. } | Output::Failed { .. } => None,
        })
        .collect()
}

#[test]
fn homes_are_called_four_at_a_time_and_links_at_last() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    let calls = through(&run(&mut attempts, 0, 4_900));
    assert_eq!(calls.len(), 4);
    assert_eq!(calls[0], (0, peers(100..104)));
    assert_eq!(calls[1].1[..4], peers(104..108));
    assert_eq!(calls[2].1[..4], peers(108..112));
    assert_eq!(calls[3].1[..3], peers(200..203));
    // Those that said nothing are called again, since a message may be lost; never more than 12 at once.
    assert_eq!(calls[1].1[4..], peers(100..104));
    assert!(calls.iter().all(|(_, through)| through.len() <= 12));
}

#[test]
fn one_initiation_goes_to_addresses_and_homes_together() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    let first = attempts.poll_output();
    let expected = Output::Call {
        peer: PEER,
        to: vec![Path::Direct(home())],
        through: peers(100..104),
    };
    assert_eq!((first, attempts.poll_output()), (Some(expected), None));
}

#[test]
fn where_homes_are_few_links_are_asked_at_once() {
    let mut attempts = attempts();
    let ways = Ways {
        homes: peers(100..101),
        ..ways()
    };
    attempts.start(after(0), PEER, Purpose::Wanted, ways);
    let calls = through(&run(&mut attempts, 0, 0));
    let mut expected = peers(100..101);
    expected.extend(peers(200..203));
    assert_eq!(calls, [(0, expected)]);
}

#[test]
fn a_peer_that_no_home_knows_is_given_up_within_a_second() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 90);
    attempts.handle_not_here(after(100), PEER, PeerIx(100));
    attempts.handle_not_here(after(110), PEER, PeerIx(102));
    let came = run(&mut attempts, 120, 4_900);
    let told = |(_, output): &&(u64, Output)| matches!(output, Output::Unreachable { .. });
    let failed = |(_, output): &&(u64, Output)| matches!(output, Output::Failed { .. });
    assert_eq!(came.iter().find(told).map(|(ms, _)| *ms), Some(900));
    assert_eq!(came.iter().find(failed).map(|(ms, _)| *ms), Some(900));
}

#[test]
fn one_home_alone_or_one_of_a_later_round_gives_nobody_up() {
    for absent in [vec![100], vec![104, 105, 106]] {
        let mut attempts = attempts();
        attempts.start(after(0), PEER, Purpose::Wanted, ways());
        run(&mut attempts, 0, 500);
        for home in absent {
            attempts.handle_not_here(after(510), PEER, PeerIx(home));
        }
        let came = run(&mut attempts, 520, 2_900);
        assert!(
            came.iter()
                .all(|(_, output)| matches!(output, Output::Call { .. }))
        );
    }
}

#[test]
fn who_keeps_no_homes_is_not_given_up_by_them_and_no_link_is() {
    for (purpose, is_at_homes) in [(Purpose::Wanted, false), (Purpose::Link, true)] {
        let mut attempts = attempts();
        let ways = Ways {
            is_at_homes,
            ..ways()
        };
        attempts.start(after(0), PEER, purpose, ways);
        run(&mut attempts, 0, 90);
        for home in 100..103 {
            attempts.handle_not_here(after(100), PEER, PeerIx(home));
        }
        let came = run(&mut attempts, 110, 2_900);
        assert!(
            came.iter()
                .all(|(_, output)| matches!(output, Output::Call { .. }))
        );
    }
}

#[test]
fn who_said_no_is_not_called_again() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 0);
    attempts.handle_not_here(after(10), PEER, PeerIx(101));
    let calls = through(&run(&mut attempts, 20, 500));
    assert_eq!(calls.len(), 1);
    assert!(!calls[0].1.contains(&PeerIx(101)) && calls[0].1.contains(&PeerIx(102)));
}

#[test]
fn a_home_whose_session_opens_late_is_called_then() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 0);
    attempts.handle_open(PeerIx(103));
    attempts.handle_open(PeerIx(110));
    let came = run(&mut attempts, 10, 10);
    let expected = Output::Call {
        peer: PEER,
        to: Vec::new(),
        through: vec![PeerIx(103)],
    };
    assert_eq!(came, [(10, expected)]);
}

#[test]
fn a_session_by_hand_ends_the_tries_and_not_the_attempt() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 90);
    attempts.handle_met(after(100), PEER);
    assert!(attempts.is_under_way(PEER));
    let came = run(&mut attempts, 110, 6_000);
    let kinds: Vec<bool> = came
        .iter()
        .map(|(_, output)| matches!(output, Output::Unreachable { .. }))
        .collect();
    // A program is told after 3 s, the attempt fails 5 s after the meeting, and nothing is dialled meanwhile.
    assert_eq!((came.len(), kinds), (2, vec![true, false]), "{came:?}");
    assert_eq!((came[0].0, came[1].0), (3_000, 5_100));
}

#[test]
fn a_session_by_hand_that_ends_ends_the_attempt() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 90);
    attempts.handle_gone(after(90), PEER);
    assert!(attempts.is_under_way(PEER));
    attempts.handle_met(after(100), PEER);
    attempts.handle_gone(after(100), PEER);
    let came = run(&mut attempts, 110, 110);
    let (peer, until) = (PEER, after(2_100).at);
    assert_eq!(
        came,
        [
            (110, Output::Unreachable { peer, until }),
            (110, Output::Failed { peer })
        ]
    );
}

#[test]
fn a_session_by_hand_that_the_other_side_opened_and_ended_says_nothing_of_the_peer() {
    let mut attempts = attempts();
    attempts.handle_pathless(after(0), PEER);
    assert!(attempts.is_under_way(PEER));
    attempts.handle_gone(after(500), PEER);
    assert_eq!(run(&mut attempts, 500, 9_000), []);
    attempts.handle_pathless(after(10_000), PEER);
    let came = run(&mut attempts, 10_000, 20_000);
    let (peer, until) = (PEER, after(15_000).at);
    assert_eq!(
        came,
        [
            (13_000, Output::Unreachable { peer, until }),
            (15_000, Output::Failed { peer })
        ]
    );
}

#[test]
fn who_joins_an_attempt_that_ends_before_three_seconds_is_told_then() {
    let mut attempts = attempts();
    attempts.start(after(0), PEER, Purpose::Link, ways());
    run(&mut attempts, 0, 90);
    attempts.handle_met(after(100), PEER);
    run(&mut attempts, 110, 4_000);
    attempts.start(after(4_010), PEER, Purpose::Wanted, ways());
    let came = run(&mut attempts, 4_020, 9_000);
    let (peer, until) = (PEER, after(7_100).at);
    assert_eq!(
        came,
        [
            (5_100, Output::Unreachable { peer, until }),
            (5_100, Output::Failed { peer })
        ]
    );
}

#[test]
fn those_that_said_no_are_asked_again_to_ask_theirs() {
    // Nobody but homes of the peer, of which three say nothing: more than the first that count (F3) do.
    let homes = Ways {
        homes: peers(100..109),
        links: Vec::new(),
        ..ways()
    };
    let links = Ways {
        homes: Vec::new(),
        ..ways()
    };
    for (ways, absent, expected) in [
        (homes, 103..109, peers(103..109)),
        (links, 200..203, peers(200..203)),
    ] {
        let mut attempts = attempts();
        attempts.start(after(0), PEER, Purpose::Wanted, ways);
        run(&mut attempts, 0, 1_200);
        for third in peers(absent) {
            attempts.handle_not_here(after(1_210), PEER, third);
        }
        assert!(!attempts.asks_beyond(PEER));
        let calls = through(&run(&mut attempts, 1_220, 2_900));
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].1[..expected.len()], expected);
        assert!(attempts.asks_beyond(PEER));
    }
}

#[test]
fn who_is_named_is_called_through_at_once_if_that_was_asked() {
    let mut attempts = attempts();
    let teller = PeerIx(200);
    assert!(!attempts.handle_located(PEER, teller, PeerIx(300)));
    attempts.start(after(0), PEER, Purpose::Wanted, ways());
    run(&mut attempts, 0, 1_200);
    assert!(
        !attempts.handle_located(PEER, teller, PeerIx(300)),
        "not yet"
    );
    attempts.handle_not_here(after(1_210), PEER, PeerIx(111));
    run(&mut attempts, 1_220, 2_200);
    // A home that said nothing, one that said no before, and a stranger.
    let named = [(200, 100), (201, 111), (201, 300)];
    for (teller, third) in named {
        assert!(attempts.handle_located(PEER, PeerIx(teller), PeerIx(third)));
    }
    let called: Vec<PeerIx> = through(&run(&mut attempts, 2_210, 2_210))
        .into_iter()
        .flat_map(|(_, through)| through)
        .collect();
    assert_eq!(called, [100, 111, 300].map(PeerIx));
    attempts.handle_open(PeerIx(300));
    assert_eq!(
        through(&run(&mut attempts, 2_220, 2_220)),
        [(2_220, vec![PeerIx(300)])]
    );
}

#[test]
fn one_names_three_and_all_together_nine_and_nobody_is_named_for_an_errand() {
    let mut attempts = attempts();
    let ways = Ways {
        paths: vec![Path::Direct(home())],
        links: peers(200..212),
        ..Ways::default()
    };
    attempts.start(after(0), PEER, Purpose::Wanted, ways.clone());
    run(&mut attempts, 0, 2_200);
    let mut named = 300..;
    let mut taken = |teller| {
        let others = named.by_ref().take(5);
        let taken =
            others.filter(|third| attempts.handle_located(PEER, PeerIx(teller), PeerIx(*third)));
        taken.count()
    };
    assert_eq!([200, 201, 202, 203].map(&mut taken), [3, 3, 3, 0]);

    assert!(
        !attempts.handle_located(PEER, PeerIx(204), PeerIx(300)),
        "known"
    );

    for third in peers(300..340) {
        attempts.start_errand(after(2_210), third, PeerIx(200), vec![Path::Direct(home())]);
    }
    assert!(attempts.may_run_errand(PeerIx(311)) && !attempts.may_run_errand(PeerIx(312)));
    let under_way = peers(300..340)
        .into_iter()
        .filter(|third| attempts.is_under_way(*third));
    assert_eq!(under_way.count(), 12);
    run(&mut attempts, 2_220, 4_700);
    assert!(!attempts.asks_beyond(PeerIx(300)));
    // Who names one that is sought already can hand on to it.
    attempts.start_errand(after(4_710), PeerIx(300), PeerIx(201), Vec::new());
    let called = through(&run(&mut attempts, 4_720, 4_720));
    assert_eq!(called, [(4_720, vec![PeerIx(201)])]);
    // A program that wants one has all its links called, not one alone.
    run(&mut attempts, 4_730, 7_300);
    attempts.start_errand(after(7_310), PeerIx(500), PeerIx(201), Vec::new());
    let called = through(&run(&mut attempts, 7_310, 7_310));
    assert_eq!(called.last().unwrap().1, peers(201..202), "{called:?}");
    attempts.start(after(7_320), PeerIx(500), Purpose::Wanted, ways);
    let called = through(&run(&mut attempts, 7_320, 7_320));
    assert_eq!(called.last().unwrap().1, peers(200..204), "{called:?}");
}
