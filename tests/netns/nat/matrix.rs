//! Issue 5, point 2: every kind with every kind, with one public machine in the network.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    kind::{Kind, Theory},
    pair::{LONGEST_FIRST, Pair, way},
};
use crate::harness::within;

/// Makes a test of a pair: it connects at once, and becomes direct where it can.
macro_rules! pairs {
    ($($(#[$attribute:meta])* $name:ident: $one:ident, $other:ident;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                judge(Kind::$one, Kind::$other);
            }
        )+
    };
}

pairs! {
    public_with_symmetric: Public, Symmetric;
    full_cone_with_symmetric: FullCone, Symmetric;
    address_restricted_with_symmetric: AddressRestricted, Symmetric;
    port_restricted_with_plain: PortRestricted, Plain;
    plain_with_plain: Plain, Plain;
    plain_with_symmetric: Plain, Symmetric;
    symmetric_with_symmetric: Symmetric, Symmetric;
    carrier_with_carrier: Cgnat, Cgnat;
    udp_blocked_with_plain: UdpBlocked, Plain;
    udp_blocked_with_udp_blocked: UdpBlocked, UdpBlocked;
    ipv6_alone_with_ipv6_alone: Only6, Only6;
    ipv6_alone_with_ipv4_alone: Only6, Plain;
}

/// Theory gives the port up for lost; guessing finds it nearly always (issue 5, point 2).
#[test]
fn symmetric_with_port_restricted_by_guessing() {
    let (one, other) = (Kind::PortRestricted, Kind::Symmetric);
    let runs: Vec<Option<Run>> = (0..RUNS)
        .map(|_| {
            let (run, pair) = try_pair(one, other);
            let sent = [pair.anna(), pair.bo()]
                .map(|peer| peer.status()["drops"]["guess_sent"].as_u64().unwrap_or(0));
            assert!(sent.iter().any(|sent| *sent > 0), "nobody guessed");
            assert!(sent.iter().all(|sent| *sent <= 2048), "{sent:?} guesses");
            Some(run)
        })
        .collect();
    assert!(holds(one.theory(other), &runs), "{runs:?}");
}

#[test]
#[ignore = "45 pairs, five times each, half an hour: tests/run --full"]
fn the_whole_matrix() {
    let kinds = Kind::MATRIX;
    let mut pairs = Vec::new();
    for (row, one) in kinds.into_iter().enumerate() {
        pairs.extend(kinds.into_iter().skip(row).map(|other| (one, other)));
    }
    let queue = std::sync::Mutex::new(pairs.iter());
    let cells = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(&(one, other)) = queue.lock().unwrap().next() else {
                        return;
                    };
                    // A run that panics is a row of the table too.
                    let runs: Vec<Option<Run>> = (0..RUNS)
                        .map(|_| std::panic::catch_unwind(|| try_pair(one, other).0).ok())
                        .collect();
                    // An hour is long: whoever stops it before the end has seen these.
                    eprintln!("{} × {}: {}", one.word(), other.word(), cell(&runs));
                    cells.lock().unwrap().push((one, other, runs));
                }
            });
        }
    });
    let cells = cells.into_inner().unwrap();
    eprintln!("{}", table(&cells));
    let failures: Vec<String> = cells
        .iter()
        .filter(|(one, other, runs)| !holds(one.theory(*other), runs))
        .map(|(one, other, runs)| format!("{} × {}: {runs:?}", one.word(), other.word()))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What one run of a pair showed.
#[derive(Clone, Debug)]
struct Run {
    first: Duration,
    /// Since the first packet; None while it never became direct.
    direct: Option<Duration>,
}

fn judge(one: Kind, other: Kind) {
    let theory = one.theory(other);
    let (run, _pair) = try_pair(one, other);
    // One run says nothing of luck in guessing ports; the whole matrix does.
    if theory != Theory::Guessed {
        assert!(holds(theory, &[Some(run.clone())]), "{theory:?}: {run:?}");
    }
}

/// The pair is given back with its run: while it is there, a failure prints what its agents said.
fn try_pair(one: Kind, other: Kind) -> (Run, Pair) {
    let pair = Pair::of(one, other);
    let first = pair.first_echo();
    let _talk = pair.talk();
    let began = Instant::now();
    let patience = patience(one.theory(other));
    while !pair.is_way("direct") {
        if began.elapsed() > patience {
            let direct = None;
            assert!(
                ["relay", "stream"].contains(&way(pair.anna(), "bo").kind.as_str()),
                "{:?}",
                way(pair.anna(), "bo")
            );
            return (Run { first, direct }, pair);
        }
        thread::sleep(Duration::from_millis(50));
    }
    let direct = Some(first + began.elapsed());
    // It stays so: whatever came to be chosen carries packets.
    pair.anna().sh("ping -c 3 -i 0.2 -W 1 bo.home.internal");
    within(Duration::from_secs(1), "direct still", || {
        pair.is_way("direct")
    });
    (Run { first, direct }, pair)
}

fn patience(theory: Theory) -> Duration {
    match theory {
        Theory::Direct => Duration::from_secs(5),
        Theory::Guessed => Duration::from_secs(20),
        Theory::Relayed => Duration::from_secs(3),
    }
}

/// Whether the runs of a pair are as the issue asks.
fn holds(theory: Theory, runs: &[Option<Run>]) -> bool {
    let direct = runs
        .iter()
        .flatten()
        .filter(|run| run.direct.is_some())
        .count();
    let is_prompt = runs
        .iter()
        .all(|run| run.as_ref().is_some_and(|run| run.first <= LONGEST_FIRST));
    is_prompt
        && match theory {
            Theory::Direct => direct == runs.len(),
            Theory::Guessed => direct * 5 >= runs.len() * 4,
            Theory::Relayed => direct == 0,
        }
}

/// The README's table: the slowest of the runs until direct, or how else they are connected.
fn table(cells: &[(Kind, Kind, Vec<Option<Run>>)]) -> String {
    let of = |one: Kind, other: Kind| {
        let found = cells
            .iter()
            .find(|cell| (cell.0, cell.1) == (one, other) || (cell.1, cell.0) == (one, other));
        found.map_or_else(String::new, |(_, _, runs)| cell(runs))
    };
    let mut text = String::from("|");
    for kind in Kind::MATRIX {
        text += &format!(" | {}", kind.word());
    }
    text += &format!(" |\n|---{}|\n", "|---".repeat(Kind::MATRIX.len()));
    for (row, one) in Kind::MATRIX.into_iter().enumerate() {
        text += &format!("| {}", one.word());
        for (column, other) in Kind::MATRIX.into_iter().enumerate() {
            text += &format!(
                " | {}",
                if column < row {
                    String::new()
                } else {
                    of(one, other)
                }
            );
        }
        text += " |\n";
    }
    text
}

fn cell(runs: &[Option<Run>]) -> String {
    let broken = runs.iter().filter(|run| run.is_none()).count();
    let times = runs.iter().flatten().filter_map(|run| run.direct);
    let (count, slowest) = times.fold((0, Duration::ZERO), |(count, slowest), time| {
        (count + 1, slowest.max(time))
    });
    let slowest = slowest.as_secs_f64();
    match (broken, count) {
        (0, 0) => "relay".to_owned(),
        (0, _) if count == runs.len() => format!("{slowest:.1} s"),
        (0, _) => format!("{count} of {}, {slowest:.1} s", runs.len()),
        (_, _) => format!("{broken} of {} broke", runs.len()),
    }
}

/// How often the whole matrix tries each pair.
const RUNS: usize = 5;
