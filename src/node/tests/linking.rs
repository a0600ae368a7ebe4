//! Whom this machine seeks a link with.

use super::*;
use crate::node::status::Health;

const HOME: u8 = 40;
const OTHER_HOME: u8 = 41;

impl Town {
    /// All that makes a machine that others reach a member, and whether it has said good-bye.
    fn home(&self, seed: u8, left: bool) -> Vec<Record> {
        let Body::Peer(peer) = self.peer(seed).body().unwrap() else {
            panic!("a Peer record")
        };
        let peer = record::Peer { flags: 7, ..peer };
        let lease = record::Lease {
            incarnation: OLD_RUN,
            expires: T0_S + 12 * 3600,
            left,
        };
        vec![
            self.member(seed, T0_S + 90 * DAY_S),
            self.says(seed, seed, T0_S * 1000, Body::Peer(peer)),
            self.says(seed, seed, T0_S * 1000, Body::Lease(lease)),
        ]
    }
}

/// The seconds in which a machine dials another within two minutes.
fn dialled(node: &mut Node, whom: u8) -> Vec<u64> {
    let its = pair(node, whom);
    let mut seconds = Vec::new();
    for second in 0..120 {
        node.handle_input(at_ms(second * 1000), Input::Tick);
        let outputs = drain(node);
        let is_dial =
            |output: &Output| matches!(output, Output::Dial { session, .. } if *session == its);
        if outputs.iter().any(is_dial) {
            seconds.push(second);
        }
    }
    seconds
}

#[test]
fn who_speaks_with_no_home_tries_those_that_have_left_ever_more_rarely() {
    let town = Town::new();
    let mut records = town.people(&[ANNA, BO]);
    records.extend(town.home(HOME, true));
    let mut anna = town.node(ANNA, records);
    let seconds = dialled(&mut anna, HOME);
    assert!((10..=12).contains(&seconds[0]), "{seconds:?}");
    assert!((4..60).contains(&seconds.len()), "{seconds:?}");
}

#[test]
fn who_speaks_with_a_home_leaves_those_alone_that_have_left() {
    let town = Town::new();
    let mut records = town.people(&[ANNA, BO]);
    records.extend(town.home(HOME, true));
    records.extend(town.home(OTHER_HOME, false));
    let mut anna = town.node(ANNA, records);
    meet(&mut anna, at_ms(0), OTHER_HOME);
    drain(&mut anna);
    // It answers nothing, so that after 18 s it is not spoken with any more.
    let seconds = dialled(&mut anna, HOME);
    assert!(seconds[0] > 18 + 9, "{seconds:?}");
}

fn others() -> Vec<String> {
    vec![format!("peer{HOME}")]
}

#[test]
fn who_reaches_nobody_that_should_be_there_is_told_after_ten_seconds() {
    let town = Town::new();
    let mut records = town.people(&[ANNA]);
    records.extend(town.home(HOME, false));
    records.extend(town.home(OTHER_HOME, true));
    let mut anna = town.node(ANNA, records);
    let mut told = |ms| {
        anna.handle_input(at_ms(ms), Input::Tick);
        drain(&mut anna);
        let health = anna.status(at_ms(ms)).health;
        health.contains(&Health::NobodyReached { others: others() })
    };
    assert_eq!([told(9_000), told(11_000)], [false, true]);
    meet(&mut anna, at_ms(12_000), HOME);
    assert!(
        !anna
            .status(at_ms(30_000))
            .health
            .contains(&Health::NobodyReached { others: others() })
    );
}
