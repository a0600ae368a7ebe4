//! Issue 3, point 8: SIGKILL at many moments, with traffic and writes.

use std::{
    fs,
    time::{Duration, Instant},
};

use webmesh::demo::snapshot::Snapshot;

use crate::harness::{Net, Peer, text, within};

/// How often an agent is killed; `tests/run --full` sets 200.
fn rounds() -> u32 {
    let full = std::env::var("WEBMESH_TEST_FULL").is_ok_and(|value| value == "1");
    if full { 200 } else { 20 }
}

#[test]
fn a_killed_agent_leaves_nothing_keeps_its_identity_and_is_back_within_two_seconds() {
    let mut net = Net::three();
    let before = snapshot_without_agent(net.peer_mut("bo"));
    net.form();
    let target = net.peer("anna").mesh_addresses()[0].clone();
    let identity = net.peer("bo").status()["self"].clone();
    let _traffic = net.peer("bo").beside(&format!("ping -i 0.01 {target}"));
    for round in 0..rounds() {
        let bo = net.peer_mut("bo");
        // Writes fall into the moment of the crash: each round publishes a service without waiting for it.
        let name = format!("s{round}");
        let port = (9000 + round).to_string();
        let mut writer = bo.agent.command(crate::harness::program()).unwrap();
        let mut writer = writer
            .args(["service", "add", &name, "--port", &port])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(round) * 7 % 60));
        bo.agent.kill().unwrap();
        writer.wait().unwrap();
        let left = snapshot(bo);
        assert_eq!(left.differences(&before), [""; 0], "round {round}");
        assert!(
            bo.agent.socket().exists(),
            "the stale socket is there: round {round}"
        );

        bo.agent
            .start()
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        let started = Instant::now();
        within(Duration::from_secs(2), "a ping comes back", || {
            bo.run(&format!("ping -c 1 -W 0.2 {target}"))
                .status
                .success()
        });
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(bo.status()["self"]["id"], identity["id"], "round {round}");
        assert_eq!(
            bo.status()["self"]["ipv4"],
            identity["ipv4"],
            "round {round}"
        );
    }
}

#[test]
fn a_second_agent_on_the_state_directory_refuses_to_start() {
    let net = Net::three();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let state = anna.agent.state_directory();
    let socket = anna.file("second.sock");
    let output = anna.webmesh(&[
        "daemon",
        "--state-dir",
        state.to_str().unwrap(),
        "--socket",
        socket.to_str().unwrap(),
        "--tun",
        "wm1",
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("another agent"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(anna.status()["state"], "up");
}

#[test]
fn damaged_state_is_found_and_never_replaced_by_a_new_identity() {
    let mut net = Net::three();
    net.form();
    let bo = net.peer_mut("bo");
    bo.agent.stop().unwrap();
    let folder = network_folder(bo);
    let damaged = b"not a slot at all".to_vec();
    for slot in ["identity.a", "identity.b"] {
        let file = folder.join(slot);
        if file.exists() {
            fs::write(file, &damaged).unwrap();
        }
    }
    bo.agent.start().unwrap();
    let status = bo.status();
    assert_eq!(status["state"], "none", "{status}");
    let health = status["health"].to_string();
    assert!(health.contains("error"), "it says so: {health}");
    bo.agent.stop().unwrap();
    for slot in ["identity.a", "identity.b"] {
        let file = folder.join(slot);
        assert!(
            !file.exists() || fs::read(file).unwrap() == damaged,
            "{slot} was touched"
        );
    }
}

#[test]
fn one_damaged_slot_of_two_costs_nothing() {
    let mut net = Net::three();
    net.form();
    let bo = net.peer_mut("bo");
    let identity = bo.status()["self"]["id"].clone();
    bo.agent.stop().unwrap();
    let slot = network_folder(bo).join("state.b");
    if slot.exists() {
        fs::write(slot, "cut").unwrap();
    }
    bo.agent.start().unwrap();
    bo.ok(&["wait", "--peer", "anna", "--timeout", "5s"]);
    assert_eq!(bo.status()["self"]["id"], identity);
}

fn network_folder(peer: &Peer) -> std::path::PathBuf {
    let entries = fs::read_dir(peer.agent.state_directory()).unwrap();
    let mut folders = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders.next().expect("the agent is in a network")
}

fn snapshot_without_agent(peer: &mut Peer) -> Snapshot {
    peer.agent.stop().unwrap();
    let taken = snapshot(peer);
    peer.agent.start().unwrap();
    taken
}

/// The machine as it is; of `/etc` the number of files alone, since a test writes its machine's resolv.conf.
fn snapshot(peer: &Peer) -> Snapshot {
    let mut taken: Snapshot =
        serde_json::from_str(&peer.ok(&["demo", "hold", "snapshot"])).unwrap();
    taken.etc = (taken.etc.0, 0);
    taken
}
