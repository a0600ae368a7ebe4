//! Issue 3, point 9: clocks that are wrong by decades, and a network that grew under two admins.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    harness::{Net, Peer, text, within},
    reaching::every_pair_speaks,
};

const DAY_AFTER_1970: &str = "@1970-01-02 00:00:00";
const IN_2099: &str = "@2099-01-01 00:00:00";
const BEFORE_1970: &str = "@1969-12-01 00:00:00";

/// From a join or a start with a wrong clock to the first answer (issue 3, point 9).
const TUNNEL_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_machine_in_1970_joins_and_is_reached() {
    joins_with_clock(DAY_AFTER_1970);
}

#[test]
fn a_machine_in_2099_joins_and_is_reached() {
    joins_with_clock(IN_2099);
}

#[test]
fn a_member_that_wakes_in_1970_is_back() {
    wakes_with_clock(DAY_AFTER_1970);
}

#[test]
fn a_member_that_wakes_in_2099_is_back() {
    wakes_with_clock(IN_2099);
}

#[test]
fn a_network_founded_in_1970_takes_members_of_today() {
    founds_with_clock(DAY_AFTER_1970);
}

#[test]
fn a_network_founded_in_2099_takes_members_of_today() {
    founds_with_clock(IN_2099);
}

#[test]
fn before_1970_the_agent_refuses_with_one_line() {
    let mut net = Net::three();
    let bo = net.peer_mut("bo");
    bo.agent.stop().unwrap();
    let environment = wrong_clock(BEFORE_1970).map(|(name, value)| format!("{name}='{value}'"));
    let output = bo.run(&format!(
        "env {} $WEBMESH daemon --state-dir s --socket second.sock",
        environment.join(" ")
    ));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("webmesh: ") && said.contains("before 1970"),
        "{said}"
    );
}

#[test]
fn one_who_joined_by_a_second_admin_reaches_everyone() {
    let net = Net::three();
    let [anna, bo, carol] = ["anna", "bo", "carol"].map(|name| net.peer(name));
    anna.ok(&["init", "home"]);
    let token = anna.ok(&["invite", "--role", "admin"]);
    bo.sh(&format!("echo {} | $WEBMESH join -", token.trim()));
    assert_eq!(bo.status()["self"]["role"], "admin");
    carol.ok(&["join", &bo.invite()]);
    for peer in [anna, bo, carol] {
        peer.agent.use_resolver().unwrap();
    }
    every_pair_speaks(&net);
    for peer in [anna, bo] {
        assert_knows(peer, carol);
        assert_knows(carol, peer);
    }
}

fn joins_with_clock(clock: &str) {
    let mut net = Net::three();
    restart_with(net.peer_mut("bo"), clock);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let began = Instant::now();
    net.peer("bo").ok(&["join", &token]);
    assert_tunnel(&net, began);
}

fn wakes_with_clock(clock: &str) {
    let mut net = Net::three();
    net.form();
    let bo = net.peer_mut("bo");
    restart_with(bo, clock);
    let began = Instant::now();
    assert_tunnel(&net, began);
}

fn founds_with_clock(clock: &str) {
    let mut net = Net::three();
    restart_with(net.peer_mut("anna"), clock);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let began = Instant::now();
    net.peer("bo").ok(&["join", &token]);
    assert_tunnel(&net, began);
}

/// Both reach each other in time, resolve each other's names and hold each other's lease to be in force.
fn assert_tunnel(net: &Net, began: Instant) {
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    for (from, to) in [(bo, anna), (anna, bo)] {
        for target in to.mesh_addresses() {
            let left = TUNNEL_LIMIT.saturating_sub(began.elapsed());
            within(left, "the tunnel carries", || {
                from.run(&format!("ping -c 1 -W 1 {target}"))
                    .status
                    .success()
            });
        }
    }
    for (from, to) in [(bo, anna), (anna, bo)] {
        from.agent.use_resolver().unwrap();
        within(Duration::from_secs(3), "the other's lease is here", || {
            from.state_of(to.name()) == "up"
        });
        assert_knows(from, to);
    }
}

/// The other's name resolves, and its lease is in force: `away` would say that it is not.
fn assert_knows(from: &Peer, to: &Peer) {
    let [v4, v6] = to.mesh_addresses();
    let name = format!("{}.home.internal", to.name());
    let said = from.sh(&format!("dig +short {name} A {name} AAAA"));
    assert_eq!(said, format!("{v4}\n{v6}\n"), "{}$ dig {name}", from.name());
    let state = from.state_of(to.name());
    assert!(
        ["up", "idle"].contains(&state.as_str()),
        "{name} is {state}"
    );
}

/// Starts an agent again under another wall clock; the monotonic one stays.
fn restart_with(peer: &mut Peer, clock: &str) {
    peer.agent.stop().unwrap();
    for (name, value) in wrong_clock(clock) {
        peer.agent.set_environment(name, &value);
    }
    peer.agent.start().unwrap_or_else(|error| panic!("{error}"));
    let seen = peer.agent.pid().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{seen}/maps")).unwrap();
    assert!(maps.contains("libfaketime"), "the agent's clock is wrong");
}

fn wrong_clock(clock: &str) -> [(&'static str, String); 4] {
    [
        ("LD_PRELOAD", libfaketime()),
        ("FAKETIME", clock.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // Without it every killed agent leaves a file in /dev/shm.
        ("FAKETIME_DISABLE_SHM", "1".to_owned()),
    ]
}

/// Where Debian has it; one for each architecture.
fn libfaketime() -> String {
    let roots = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let found = roots
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .chain([Path::new("/usr/lib/faketime/libfaketime.so.1").to_owned()])
        .find(|path| path.exists());
    let found = found.expect("this test needs libfaketime: sudo apt-get install faketime");
    found.to_str().unwrap().to_owned()
}
