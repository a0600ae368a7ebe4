//! Issue 3, sessions: twenty agents with four links each know everybody, and talk with anybody when asked to; `down`,
//! `up`, a stop and `leave` are seen by the others at once.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::harness::{Net, Peer, text, within};

const PEERS: u8 = 20;
const CONFIG: &str = "[test]\nlinks = 4\nidle_s = 5\n";

#[test]
fn twenty_with_four_links_each_know_everybody_and_open_a_session_on_demand() {
    let mut net = Net::empty();
    for n in 1..=PEERS {
        net.add_configured(&format!("m{n}"), 20 + n, CONFIG);
    }
    let all: Vec<&Peer> = (1..=PEERS).map(|n| net.peer(&format!("m{n}"))).collect();
    all[0].ok(&["init", "home"]);
    let token = all[0].ok(&["invite", "--uses", "19"]);
    let token = token.trim();
    thread::scope(|scope| {
        for peer in &all[1..] {
            scope.spawn(move || peer.ok(&["join", token]));
        }
    });
    within(Duration::from_secs(30), "everybody knows everybody", || {
        all.iter()
            .all(|peer| peer.status()["peers"].as_array().unwrap().len() == 19)
    });
    // Of each at some time: who knocks for another, to prove that one reachable, has a fifth session for two seconds.
    for peer in &all {
        within(Duration::from_secs(60), "links alone are left", || {
            (1..=4).contains(&in_state(peer, "up").len())
        });
    }

    let stranger = in_state(all[0], "idle").remove(0);
    all[0].sh(&format!(
        "ping -c 1 -W 2 {}",
        stranger["ipv4"].as_str().unwrap()
    ));
    let name = stranger["name"].as_str().unwrap();
    within(Duration::from_secs(1), "the session is seen", || {
        state_of(all[0], name) == "up"
    });
    within(Duration::from_secs(12), "an unused session closes", || {
        state_of(all[0], name) == "idle"
    });
    // And again, by name of the command.
    all[0].ok(&["ping", "-c", "1", name]);
}

#[test]
fn who_is_down_or_stopped_or_left_is_away_for_the_others_at_once() {
    let mut net = Net::three();
    net.form();
    for name in ["bo", "carol"] {
        net.peer("anna").ok(&["wait", "--peer", name]);
    }
    net.peer("bo").ok(&["wait", "--peer", "carol"]);
    let bo = net.peer("bo");
    let said = bo.ok(&["down"]);
    assert_eq!(
        said,
        "home is down here; names and addresses are gone. Again: sudo webmesh up\n"
    );
    everybody_sees(&net, "away");
    let bo = net.peer("bo");
    assert_eq!(bo.status()["state"], "down");
    let device = bo.run("ip link show wm0");
    assert!(!device.status.success(), "{}", text(&device.stdout));
    bo.refused(2, &["ping", "anna"]);

    // It stays down over a restart of the agent.
    let bo = net.peer_mut("bo");
    bo.agent.stop().unwrap();
    bo.agent.start().unwrap();
    assert_eq!(bo.status()["state"], "down");
    bo.ok(&["up"]);
    bo.ok(&["wait", "--timeout", "5s"]);
    everybody_sees(&net, "up");

    net.peer_mut("bo").agent.stop().unwrap();
    everybody_sees(&net, "away");
    net.peer_mut("bo").agent.start().unwrap();
    everybody_sees(&net, "up");

    let bo = net.peer("bo");
    bo.ok(&["leave", "home"]);
    everybody_sees(&net, "away");
    let bo = net.peer("bo");
    assert_eq!(bo.status()["state"], "none");
    let left = bo.sh("ls state");
    assert_eq!(left.trim(), "lock");
    let said = net.peer("anna").refused(2, &["leave", "home"]);
    assert!(said.contains("--yes"), "{said}");
}

fn everybody_sees(net: &Net, state: &str) {
    for name in ["anna", "carol"] {
        let peer = net.peer(name);
        within(
            Duration::from_secs(3),
            &format!("{name} sees bo {state}"),
            || state_of(peer, "bo") == state,
        );
    }
}

fn in_state(peer: &Peer, state: &str) -> Vec<Value> {
    let status = peer.status();
    let peers = status["peers"].as_array().unwrap();
    peers
        .iter()
        .filter(|peer| peer["state"] == state)
        .cloned()
        .collect()
}

fn state_of(peer: &Peer, name: &str) -> String {
    let status = peer.status();
    let peers = status["peers"].as_array().unwrap();
    let found = peers.iter().find(|peer| peer["name"] == name);
    found.map_or_else(String::new, |peer| {
        peer["state"].as_str().unwrap().to_owned()
    })
}
