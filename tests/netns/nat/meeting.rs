//! Issue 5, point 1: two machines behind routers of many kinds, the DHT, and nobody else.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use webmesh::demo::lab::Machine;

use super::{internet::Internet, kind::Kind};
use crate::{
    dht::Nodes,
    harness::{text, within},
};

#[test]
fn a_cone_and_a_firewall_with_ipv6_meet_and_find_each_other_again() {
    let met = meet(Kind::PortRestricted, Kind::Firewalled6);
    eprintln!("{met:?}");
}

#[test]
#[ignore = "ten pairs, ten minutes: tests/run --full"]
fn all_that_can_meet_without_a_third_do_and_half_of_them_in_fifteen_seconds() {
    let mut pairs: Vec<(Kind, Kind)> = Vec::new();
    for (place, one) in KINDS.into_iter().enumerate() {
        pairs.extend(KINDS[place..].iter().map(|other| (one, *other)));
    }
    let (waiting, all) = (Mutex::new(pairs), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..LABS {
            scope.spawn(|| {
                while let Some((one, other)) = take(&waiting) {
                    let met = std::panic::catch_unwind(|| meet(one, other)).ok();
                    eprintln!("{} × {}: {met:?}", one.word(), other.word());
                    all.lock().unwrap().push(met);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let met: Vec<&Met> = all.iter().flatten().collect();
    assert_eq!(met.len(), all.len(), "all pairs meet");
    let joined = median(met.iter().map(|met| met.joined));
    let again = median(met.iter().map(|met| met.again));
    eprintln!("medians: joined after {joined:?}, found again after {again:?}");
    assert!(joined <= Duration::from_secs(15), "{joined:?}");
}

/// How long a pair took.
#[derive(Clone, Copy, Debug)]
struct Met {
    joined: Duration,
    /// After both were off and came back at other public addresses.
    again: Duration,
}

/// One founds a network and invites the other, who joins; then both are started again elsewhere. No name is looked up
/// meanwhile but the one of their configuration and the network's own.
fn meet(one: Kind, other: Kind) -> Met {
    let mut internet = Internet::new();
    let (machine, _) = internet.slots();
    let _nodes = Nodes::on(&machine);
    let resolver = Resolver::on(&machine);
    for (name, kind, number) in [("anna", one, 20), ("bo", other, 30)] {
        internet.settle_with(kind, name, number, CONFIG);
        let agent = &internet.peer(name).agent;
        let line = format!("nameserver {RESOLVER}\n");
        agent.machine().set_resolv_conf(&line).unwrap();
    }
    let anna = internet.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let began = Instant::now();
    let output = internet.peer("bo").webmesh(&["join", &token]);
    let joined = began.elapsed();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(joined <= Duration::from_secs(30), "joined after {joined:?}");
    let [address, _] = internet.peer("anna").mesh_addresses();
    let echo = format!("ping -c 1 -W 2 {address}");
    internet.peer("bo").sh(&echo);

    for (name, number) in [("anna", 21), ("bo", 31)] {
        internet.net.peer_mut(name).agent.stop().unwrap();
        internet.renumber(name, number);
    }
    for name in ["anna", "bo"] {
        internet.net.peer_mut(name).agent.start().unwrap();
    }
    let again = within(
        Duration::from_secs(60),
        "they find each other again",
        || internet.peer("bo").state_of("anna") == "up",
    );
    internet.peer("bo").sh(&echo);
    let names = resolver.names();
    assert!(names.iter().any(|name| name == ENTRY), "it counts");
    // `init` asks whether the name of the new network is taken.
    let is_own = |name: &String| [ENTRY, "home.internal"].contains(&name.as_str());
    assert!(names.iter().all(is_own), "{names:?}");
    Met { joined, again }
}

fn take(waiting: &Mutex<Vec<(Kind, Kind)>>) -> Option<(Kind, Kind)> {
    waiting.lock().unwrap().pop()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A resolver on the lab's internet that knows the entry to the DHT, and notes every name that it is asked for.
struct Resolver {
    process: Child,
    names: PathBuf,
}

impl Resolver {
    fn on(machine: &Machine) -> Self {
        let names = machine.directory.join("names");
        let mut process = machine
            .command("python3")
            .unwrap()
            .args(["-uc", ANSWERING, RESOLVER, ENTRY])
            .arg(&names)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        assert_eq!(said.lines().next().unwrap().unwrap(), "open");
        Self { process, names }
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_to_string(&self.names).unwrap();
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Those of whom every pair can meet.
const KINDS: [Kind; 4] = [
    Kind::Plain,
    Kind::PortRestricted,
    Kind::FullCone,
    Kind::Firewalled6,
];

/// Labs at a time.
const LABS: usize = 2;

const ENTRY: &str = "entry.dht.test";
const CONFIG: &str = "[rendezvous]\ndht_bootstrap = [\"entry.dht.test:6881\"]\n";
/// An address of the machine with the nodes of the DHT.
const RESOLVER: &str = "203.0.113.110";

const ANSWERING: &str = "
import socket, sys
own, entry, file = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((own, 53))
with open(file, 'w', buffering=1) as names:
    print('open')
    while True:
        question, asker = s.recvfrom(2000)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        name = '.'.join(labels)
        names.write(name + chr(10))
        code = b'\\x81\\x80' if name == entry else b'\\x81\\x83'
        is_known = name == entry and question[at + 2] == 1
        answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + socket.inet_aton('203.0.113.64') if is_known else b''
        counts = b'\\0\\1' + (b'\\0\\1' if is_known else b'\\0\\0') + b'\\0\\0\\0\\0'
        s.sendto(question[:2] + code + counts + question[12:at + 5] + answer, asker)
";
