//! Issue 3, point 8: SIGKILL at many moments, with traffic and writes.

use std::{collections::BTreeSet, fs, time::Duration};

use webmesh::demo::snapshot::Snapshot;

use crate::harness::{Net, Peer, sample, text, within};

/// The moments of the crashes are drawn from this.
const SEED: u64 = 0x2026_1122;

#[test]
fn a_killed_agent_leaves_nothing_keeps_what_it_said_and_is_back_within_two_seconds() {
    let mut net = Net::three();
    net.form();
    let target = net.peer("bo").mesh_addresses()[0].clone();
    let anna = net.peer_mut("anna");
    let identity = anna.status()["self"].clone();
    anna.agent.stop().unwrap();
    let before = snapshot(anna);
    anna.agent.start().unwrap();
    let own = anna.mesh_addresses()[0].clone();
    let _traffic = net.peer("bo").beside(&format!("ping -i 0.01 {own}"));
    let mut random = SEED;
    let mut promised = Promised::default();
    for round in 0..sample(20, 200) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let delay = Duration::from_micros((random >> 33) % 250_000);
        let what = format!("round {round}, killed after {delay:?}");
        // A record of somebody else comes in the same moment.
        let program = crate::harness::program();
        let change = format!(
            "{} service add bo{round} --port {}",
            program.display(),
            9000 + round
        );
        let others = net.peer("bo").beside(&format!("sh -c '{change}'"));
        let anna = net.peer_mut("anna");
        let written = anna.beside(&format!("sh -c '{}'", writes(round)));
        // The moment is the test.
        std::thread::sleep(delay);
        anna.agent.kill().unwrap();
        drop((written, others));
        promised.read(&fs::read_to_string(anna.file("beside.log")).unwrap());
        let residue = differences(&before, &snapshot(anna));
        assert!(residue.is_empty(), "{residue:#?}: {what}");
        assert!(anna.agent.socket().exists(), "a stale socket: {what}");

        anna.agent
            .start()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        within(Duration::from_secs(2), &format!("traffic: {what}"), || {
            anna.run(&format!("ping -c 1 -W 0.2 {target}"))
                .status
                .success()
        });
        let status = anna.status();
        for key in ["id", "name", "ipv4", "ipv6", "role"] {
            assert_eq!(status["self"][key], identity[key], "{what}");
        }
        assert_eq!(status["peers"].as_array().unwrap().len(), 2, "{what}");
        promised.judge(anna, &status, &what);
    }
    assert!(
        promised.invites > 0 && !promised.services.is_empty(),
        "no write got through"
    );
}

/// What the agent said it had done before it was killed.
#[derive(Default)]
struct Promised {
    invites: usize,
    services: BTreeSet<String>,
}

/// Writes of one round, each told when it was done.
fn writes(round: u32) -> String {
    let (port, last) = (8000 + round, round.saturating_sub(1));
    let webmesh = crate::harness::program();
    let webmesh = webmesh.display();
    format!(
        "{webmesh} invite >/dev/null 2>&1 && echo invited; \
         {webmesh} service add s{round} --port {port} >/dev/null 2>&1 && echo added s{round}; \
         echo removing s{last}; {webmesh} service rm s{last} >/dev/null 2>&1; \
         {webmesh} invite >/dev/null 2>&1 && echo invited"
    )
}

impl Promised {
    fn read(&mut self, said: &str) {
        for line in said.lines() {
            match line.split_once(' ') {
                None => self.invites += usize::from(line == "invited"),
                Some(("added", name)) => {
                    self.services.insert(name.to_owned());
                }
                // From the moment it is asked for, the end of a service is no loss.
                Some(("removing", name)) => drop(self.services.remove(name)),
                Some(_) => panic!("{line}"),
            }
        }
    }

    fn judge(&mut self, anna: &Peer, status: &serde_json::Value, what: &str) {
        let own: BTreeSet<String> = status["services"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|service| service["instances"][0]["peer"] == "anna")
            .map(|service| service["name"].as_str().unwrap().to_owned())
            .collect();
        let lost: Vec<_> = self.services.difference(&own).collect();
        assert!(lost.is_empty(), "services {lost:?} are gone: {what}");
        // What was written and not answered counts from now on.
        self.services = own;
        let invites: serde_json::Value =
            serde_json::from_str(&anna.ok(&["invite", "list", "--json"])).unwrap();
        let listed = invites["invites"].as_array().unwrap().len();
        assert!(
            listed >= self.invites,
            "{listed} of {} invites: {what}",
            self.invites
        );
        self.invites = listed;
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
    bo.may_complain = true;
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

/// The lines that only one of two looks has.
fn differences(before: &(Snapshot, String), after: &(Snapshot, String)) -> Vec<String> {
    let lines = |look: &(Snapshot, String)| -> BTreeSet<String> {
        let host = format!("{:#?}", look.0);
        host.lines()
            .chain(look.1.lines())
            .map(str::to_owned)
            .collect()
    };
    let (before, after) = (lines(before), lines(after));
    before.symmetric_difference(&after).cloned().collect()
}

/// The machine as it is, with its rules and the settings that an agent might be tempted by.
fn snapshot(peer: &Peer) -> (Snapshot, String) {
    let host = serde_json::from_str(&peer.ok(&["demo", "hold", "snapshot"])).unwrap();
    let settings = peer.run(
        "ip rule; ip -6 rule; cd /proc/sys/net; \
         grep -r . ipv4/conf ipv6/conf ipv4/ip_forward ipv4/ip_local_port_range core/rmem_max core/wmem_max \
         2>/dev/null | sort",
    );
    (host, text(&settings.stdout))
}
