//! Issue 4: the agent as a unit. A small service manager (`service_manager.py`) keeps what the agent stores, as systemd
//! does, and starts it again after TERM and SIGKILL.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Net, Peer, program, text, within};

/// What no transfer may stand still longer over a restart, while another lab shares the machine. `upgrading` among the tests
/// of the packages holds a real upgrade to the 1 s that the issue asks for.
const STALL: Duration = Duration::from_secs(3);

/// The service manager of one machine's agent.
struct Manager {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Manager {
    /// Takes over a machine's agent, which is started again under it.
    fn of(peer: &mut Peer, environment: &[(&str, &str)]) -> Self {
        peer.agent.stop().unwrap();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/netns/service_manager.py"
        );
        let mut process = peer
            .agent
            .command("python3")
            .unwrap()
            .arg(script)
            .arg(&peer.agent.machine().directory)
            .arg(program())
            .arg("daemon")
            .arg("--state-dir")
            .arg(peer.agent.state_directory())
            .arg("--socket")
            .arg(peer.agent.socket())
            .arg("--config")
            .arg(peer.agent.config())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut manager = Self {
            orders: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
        };
        manager.order("start");
        manager
    }

    /// Gives an order and waits until it is carried out.
    fn order(&mut self, words: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{words}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{words}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // When it gets no more orders it ends its service and itself.
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// What the manager saw, without the times.
fn seen(peer: &Peer) -> Vec<String> {
    let log = fs::read_to_string(peer.file("manager.log")).unwrap();
    log.lines()
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect()
}

fn has_seen(peer: &Peer, line: &str) -> bool {
    seen(peer).iter().any(|seen| seen == line)
}

/// The name under which the device is kept.
fn device_label(peer: &Peer) -> String {
    let status = peer.status();
    let id = status["network"]["id"].as_str().unwrap();
    format!("2.tun.{}", id.get(..16).unwrap())
}

/// What is the same device, with the same sockets and the same guard: the number of the one, the inodes of the others, the
/// kernel's handle of the table.
fn ground(peer: &Peer) -> (String, Vec<String>, String) {
    let device = peer.sh("ip -o link show wm0 | cut -d: -f1");
    let sockets = peer.sh("ss -Hlune 'sport = :41820'");
    let inodes = sockets
        .split_whitespace()
        .filter(|word| word.starts_with("ino:"));
    let guard = peer.sh("nft -a list tables | grep webmesh-");
    (device, inodes.map(str::to_owned).collect(), guard)
}

fn two() -> Net {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.form();
    net
}

/// One TCP connection from bo to anna over the mesh, a steady stream; something is done to anna's agent in the middle.
/// Gives the longest time in which nothing came.
fn stall_while(net: &Net, sender: &str, receiver: &str, what: impl FnOnce()) -> Duration {
    let (sender, receiver) = (net.peer(sender), net.peer(receiver));
    let address = sender.mesh_addresses()[0].clone();
    let _sends = sender.beside(&format!("python3 -c '{SEND}' {address}"));
    within(Duration::from_secs(10), "the sender listens", || {
        !sender.sh("ss -Hltn 'sport = :9000'").is_empty()
    });
    let log = receiver.file("received.json");
    let _stale = fs::remove_file(&log);
    let begun = receiver.file("begun");
    let _stale = fs::remove_file(&begun);
    let mut receives = receiver.agent.command("python3").unwrap();
    let mut receives = receives
        .args(["-c", RECEIVE, &address])
        .current_dir(&receiver.agent.machine().directory)
        .spawn()
        .unwrap();
    within(Duration::from_secs(10), "the transfer runs", || {
        begun.exists()
    });
    what();
    assert!(
        receives.wait().unwrap().success(),
        "the transfer ended whole"
    );
    let received: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    let sent = fs::read_to_string(sender.file("beside.log")).unwrap();
    assert_eq!(received["sha256"], sent.trim(), "every byte, in its order");
    Duration::from_secs_f64(received["stall"].as_f64().unwrap())
}

/// Sends 400 pieces over 8 s and prints the SHA-256 of all.
const SEND: &str = "
import hashlib, os, socket, sys, time
listener = socket.create_server((sys.argv[1], 9000))
stream, _ = listener.accept()
whole = hashlib.sha256()
for _ in range(400):
    piece = os.urandom(16384)
    whole.update(piece)
    stream.sendall(piece)
    time.sleep(0.02)
stream.close()
print(whole.hexdigest(), flush=True)
";

/// Receives it, and writes its SHA-256 and the longest silence.
const RECEIVE: &str = "
import hashlib, json, socket, sys, time
stream = socket.create_connection((sys.argv[1], 9000))
whole, stall, total = hashlib.sha256(), 0.0, 0
last = time.monotonic()
while piece := stream.recv(65536):
    now = time.monotonic()
    stall, last = max(stall, now - last), now
    total += len(piece)
    whole.update(piece)
    if total > 500000:
        open(\"begun\", \"w\").close()
json.dump({\"sha256\": whole.hexdigest(), \"stall\": stall}, open(\"received.json\", \"w\"))
";

#[test]
fn a_restart_and_a_kill_cost_no_connection() {
    let mut net = two();
    let mut manager = Manager::of(net.peer_mut("anna"), &[]);
    net.peer("anna").await_acquainted(1);
    let before = ground(net.peer("anna"));
    assert_eq!(before.1.len(), 2, "{before:?}");
    for order in ["restart", "kill"] {
        for (sender, receiver) in [("anna", "bo"), ("bo", "anna")] {
            let stall = stall_while(&net, sender, receiver, || manager.order(order));
            eprintln!(
                "{order}, {sender} sends: nothing came for {} ms",
                stall.as_millis()
            );
            assert!(stall < STALL, "{order}, {sender} sends: {stall:?}");
            assert_eq!(ground(net.peer("anna")), before, "{order}");
            assert_ne!(
                net.peer("bo").state_of("anna"),
                "away",
                "{order}: nobody left"
            );
        }
    }
    let anna = net.peer("anna");
    let addresses = anna.sh("ip -o addr show wm0 scope global");
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
    assert_eq!(
        anna.status()["health"]
            .to_string()
            .matches("ipv4_blocked")
            .count(),
        0
    );
    assert!(has_seen(anna, "said STATUS=home · 1 peer"));
    manager.order("reload");
    let said = seen(anna);
    assert!(
        said.iter()
            .any(|line| line.starts_with("said MONOTONIC_USEC="))
    );
}

/// What is kept is one queue of the device and one pair of sockets; the other threads have theirs anew.
#[test]
fn a_restart_and_a_kill_of_several_threads_cost_no_connection() {
    let mut net = Net::empty();
    for (name, number) in [("anna", 11), ("bo", 12)] {
        net.add_configured(name, number, "[datapath]\nthreads = 3\n");
    }
    net.form();
    let mut manager = Manager::of(net.peer_mut("anna"), &[]);
    net.peer("anna").await_acquainted(1);
    let (device, sockets, guard) = ground(net.peer("anna"));
    assert_eq!(sockets.len(), 6, "{sockets:?}");
    for order in ["restart", "kill"] {
        let stall = stall_while(&net, "anna", "bo", || manager.order(order));
        assert!(stall < STALL, "{order}: {stall:?}");
        let after = ground(net.peer("anna"));
        assert_eq!((&after.0, &after.2), (&device, &guard), "{order}");
        let kept = after.1.iter().filter(|inode| sockets.contains(inode));
        assert_eq!((after.1.len(), kept.count()), (6, 2), "{order}");
    }
}

#[test]
fn what_is_stored_and_does_not_fit_is_closed_and_made_anew() {
    let mut net = two();
    let anna = net.peer_mut("anna");
    let label = device_label(anna);
    let mut manager = Manager::of(anna, &[]);
    let first = ground(anna);

    // Another version of what is kept.
    let other = label.replacen("2.", "1.", 1);
    manager.order(&format!("spoil {label} {other}"));
    manager.order("restart");
    assert!(has_seen(anna, &format!("removed {other}")));
    let second = ground(anna);
    assert_ne!(second.0, first.0, "another device");
    assert_eq!(second.1, first.1, "the same sockets");

    // A device of another kind: what it reads and writes has no header.
    manager.order("halt");
    manager.order(&format!("make {label}"));
    let foreign = anna.sh("ip -o link show wm0 | cut -d: -f1");
    manager.order("start");
    assert_ne!(ground(anna).0, foreign);
    anna.ok(&["ping", "-c", "1", "bo"]);

    // Another device's name.
    fs::write(anna.agent.config(), "[tun]\nname = \"mesh7\"\n").unwrap();
    manager.order("restart");
    assert_eq!(anna.sh("ip -o link show mesh7 | wc -l"), "1\n");
    assert!(
        !anna.run("ip link show wm0").status.success(),
        "the old one is gone"
    );
    // Its routes were none of a stranger's.
    let addresses = anna.sh("ip -4 -o addr show mesh7");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    fs::write(anna.agent.config(), "").unwrap();

    // Two ports that are no pair; then a pair on another port, while the default is free.
    manager.order("lend 2.udp4 5555");
    manager.order("restart");
    assert_eq!(anna.status()["self"]["port"], 41820);
    assert_eq!(anna.sh("ss -Hlun 'sport = :5555'"), "");
    manager.order("lend 2.udp4 5555");
    manager.order("spoil 2.udp6 1.udp6");
    manager.order("restart");
    assert_eq!(anna.status()["self"]["port"], 41820);
    assert_eq!(anna.sh("ss -Hlun 'sport = :5555'"), "");
    assert_eq!(ground(anna).1.len(), 2);
    assert!(anna.run("ip link show wm0").status.success());
    anna.ok(&["ping", "-c", "1", "bo"]);
}

#[test]
fn down_and_leave_take_what_is_kept_out_of_the_store() {
    let mut net = two();
    let anna = net.peer_mut("anna");
    let others = ["2.udp4", "2.udp6", "2.guard"].map(str::to_owned);
    let labels = [&[device_label(anna)][..], &others].concat();
    let mut manager = Manager::of(anna, &[]);
    for [verb, back] in [
        [&["down"][..], &["up"]],
        [&["leave", "home", "--yes"], &["init", "other"]],
    ] {
        let before = seen(anna).len();
        anna.ok(verb);
        assert!(!anna.run("ip link show wm0").status.success(), "{verb:?}");
        within(Duration::from_secs(5), "everything taken out", || {
            let since = seen(anna).split_off(before);
            labels
                .iter()
                .all(|label| since.contains(&format!("removed {label}")))
        });
        anna.ok(back);
        assert_eq!(anna.status()["self"]["port"], 41820, "{back:?}");
    }
    // A network that was down is down again, and nothing is left of it.
    anna.ok(&["down"]);
    manager.order("restart");
    assert_eq!(anna.status()["state"], "down");
    within(Duration::from_secs(5), "said", || {
        has_seen(anna, "said STATUS=other is down")
    });
    assert_eq!(anna.sh("ss -Hlun 'sport = :41820'"), "");
}

#[test]
fn only_a_restart_is_kept_from_the_others() {
    let mut net = two();
    let mut manager = Manager::of(net.peer_mut("anna"), &[]);
    for order in ["stop", "term"] {
        net.peer("anna").ok(&["ping", "-c", "1", "bo"]);
        manager.order(order);
        within(Duration::from_secs(5), "bo was told", || {
            net.peer("bo").state_of("anna") == "away"
        });
        manager.order("start");
    }
    // The bus does not answer: the end is assumed, within the time that systemd gives a stop.
    net.peer("anna").ok(&["ping", "-c", "1", "bo"]);
    manager.order("mute");
    manager.order("restart");
    let took = seen(net.peer("anna")).iter().rev().find_map(|line| {
        line.strip_prefix("ended ")
            .map(|took| took.parse::<f64>().unwrap())
    });
    assert!(took.unwrap() < 6.0, "{took:?}");
    assert!(
        net.peer("anna")
            .agent
            .log()
            .contains("The system bus is silent")
    );
}

#[test]
fn the_watchdog_is_fed_only_while_both_threads_turn() {
    let mut net = two();
    let anna = net.peer_mut("anna");
    let fed = |anna: &Peer| {
        seen(anna)
            .iter()
            .filter(|line| *line == "said WATCHDOG=1")
            .count()
    };
    let manager = Manager::of(anna, &[]);
    within(Duration::from_secs(10), "it is fed", || fed(anna) >= 3);
    drop(manager);
    anna.may_complain = true;
    let _manager = Manager::of(anna, &[("WEBMESH_FAILPOINT", "data.hang")]);
    within(Duration::from_secs(10), "it is seen", || {
        anna.agent.log().contains("The data thread does not turn")
    });
    let then = fed(anna);
    // What does not happen has no event: twice as long as the watchdog waits.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(fed(anna), then);
    let output = anna.webmesh(&["status", "--json"]);
    assert!(
        output.status.success(),
        "the other thread lives: {}",
        text(&output.stderr)
    );
}
