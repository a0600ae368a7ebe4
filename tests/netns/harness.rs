//! Machines with agents, and what goes with a test: fresh directories, output kept, logs judged, nothing left behind.

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use webmesh::{
    demo::{
        agent::Agent,
        lab::{Lab, LabError, Machine},
        order::NatKind,
    },
    platform::clock,
};

use crate::ground::Ground;

/// The binary under test. The copy for an ordinary user is told by `WEBMESH_TEST_PROGRAM`.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("WEBMESH_TEST_PROGRAM")
        .map_or_else(|| env!("CARGO_BIN_EXE_webmesh").into(), PathBuf::from)
}

/// A directory name that no other test of this or another run has.
pub(crate) fn fresh_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("webmesh-netns-{}-{count}", std::process::id()))
}

/// An empty lab.
pub(crate) fn lab() -> Lab {
    match Lab::build(&program(), &fresh_directory()) {
        Ok(lab) => lab,
        Err(LabError::Forbidden(why)) => panic!(
            "{why}: these tests need root, or kernel.apparmor_restrict_unprivileged_userns=0 and user namespaces"
        ),
        Err(error) => panic!("no lab: {error}"),
    }
}

/// Machines with agents. Dropping it judges the agents' logs and, after a failure, prints them.
pub(crate) struct Net {
    // Declared first: agents end before the namespaces go.
    peers: Vec<Peer>,
    lab: Lab,
}

/// One machine with an agent.
pub(crate) struct Peer {
    pub(crate) agent: Agent,
    /// The test breaks something of which the agent must complain in its log.
    pub(crate) may_complain: bool,
}

impl Net {
    /// Three machines with public addresses of both families, agents running: `anna`, `bo`, `carol`.
    pub(crate) fn three() -> Self {
        Self::three_on(Ground::Plain)
    }

    /// The same three on another ground.
    pub(crate) fn three_on(ground: Ground) -> Self {
        let mut net = Self::empty();
        for (name, number) in [("anna", 11), ("bo", 12), ("carol", 13)] {
            net.add_public_on(ground, name, number);
        }
        net
    }

    /// Nobody yet.
    pub(crate) fn empty() -> Self {
        Self {
            peers: Vec::new(),
            lab: lab(),
        }
    }

    /// A machine at 203.0.113.`number` and 2001:db8::`number`, with a running agent.
    pub(crate) fn add_public(&mut self, name: &str, number: u8) {
        self.add_public_on(Ground::Plain, name, number);
    }

    /// The same on another ground.
    pub(crate) fn add_public_on(&mut self, ground: Ground, name: &str, number: u8) {
        let machine = self.public_on(ground, name, number);
        self.add(machine);
    }

    /// The same machine, whose agent does not run.
    pub(crate) fn add_still(&mut self, name: &str, number: u8) {
        let machine = self.public_on(Ground::Plain, name, number);
        self.hold(machine);
    }

    fn public_on(&self, ground: Ground, name: &str, number: u8) -> Machine {
        let addresses = ground.addresses(number);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let machine = self.lab.public(name, &addresses).unwrap();
        ground.narrow(self, name);
        machine
    }

    /// A machine alone behind a home router at 203.0.113.`number`, with a running agent.
    pub(crate) fn add_home(&mut self, name: &str, number: u8) {
        self.add_home_behind(NatKind::Masquerade, name, number);
    }

    /// The same behind a router of this kind.
    pub(crate) fn add_home_behind(&mut self, nat: NatKind, name: &str, number: u8) {
        let router = format!("router-{name}");
        let public = format!("203.0.113.{number}/24");
        self.lab
            .router(&router, &[&public], "192.168.1.1/24", nat)
            .unwrap();
        let machine = self
            .lab
            .behind(&router, name, "192.168.1.2/24", "192.168.1.1")
            .unwrap();
        self.add(machine);
    }

    /// The same with this text in the agent's configuration.
    pub(crate) fn add_home_configured(
        &mut self,
        nat: NatKind,
        (name, number): (&str, u8),
        config: &str,
    ) {
        let router = format!("router-{name}");
        let public = format!("203.0.113.{number}/24");
        let lab = &self.lab;
        lab.router(&router, &[&public], "192.168.1.1/24", nat)
            .unwrap();
        self.add_configured_behind(&router, (name, "192.168.1.2/24"), config);
    }

    /// A machine with a running agent in the LAN of a router that stands already; the router is 192.168.1.1 there.
    pub(crate) fn add_behind(&mut self, router: &str, name: &str, address: &str) {
        let machine = self
            .lab
            .behind(router, name, address, "192.168.1.1")
            .unwrap();
        self.add(machine);
    }

    /// The same with this text in the agent's configuration.
    pub(crate) fn add_configured_behind(
        &mut self,
        router: &str,
        (name, address): (&str, &str),
        config: &str,
    ) {
        let machine = self
            .lab
            .behind(router, name, address, "192.168.1.1")
            .unwrap();
        std::fs::write(machine.directory.join("config.toml"), config).unwrap();
        self.add(machine);
    }

    /// Like [`Net::add_public`], with this text in the agent's configuration.
    pub(crate) fn add_configured(&mut self, name: &str, number: u8, config: &str) {
        let address = format!("203.0.113.{number}/24");
        let machine = self.lab.public(name, &[&address]).unwrap();
        std::fs::write(machine.directory.join("config.toml"), config).unwrap();
        self.add(machine);
    }

    /// Starts an agent in a machine of this lab.
    pub(crate) fn add(&mut self, machine: Machine) {
        let agent = &mut self.hold(machine).agent;
        agent.start().unwrap_or_else(|error| panic!("{error}"));
    }

    fn hold(&mut self, machine: Machine) -> &mut Peer {
        self.peers.push(Peer {
            agent: Agent::new(machine, &program()),
            may_complain: false,
        });
        self.peers.last_mut().unwrap()
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A machine by its name.
    pub(crate) fn peer(&self, name: &str) -> &Peer {
        let found = self.peers.iter().find(|peer| peer.name() == name);
        found.unwrap_or_else(|| panic!("this test has no machine {name}"))
    }

    pub(crate) fn peer_mut(&mut self, name: &str) -> &mut Peer {
        let found = self.peers.iter_mut().find(|peer| peer.name() == name);
        found.unwrap_or_else(|| panic!("this test has no machine {name}"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.peers
            .iter()
            .map(|peer| peer.name().to_owned())
            .collect()
    }

    /// The first founds `home`, the others join it by its invites, and every machine asks its resolver.
    pub(crate) fn form(&self) {
        let [first, others @ ..] = self.peers.as_slice() else {
            panic!("a network needs a machine")
        };
        first.ok(&["init", "home"]);
        for other in others {
            let token = first.invite();
            other.ok(&["join", &token]);
        }
        for peer in &self.peers {
            peer.agent.use_resolver().unwrap();
            peer.await_acquainted(self.peers.len() - 1);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let suspicious: Vec<&Peer> = self
            .peers
            .iter()
            .filter(|peer| peer.has_complained() && !peer.may_complain)
            .collect();
        if thread::panicking() {
            for peer in &self.peers {
                eprintln!("--- log of {} ---\n{}", peer.name(), peer.agent.log());
                let status = peer.webmesh(&["status", "--json"]);
                eprintln!("--- its status ---\n{}", text(&status.stdout));
            }
        } else if let Some(peer) = suspicious.first() {
            panic!(
                "{}'s agent logged an error:\n{}",
                peer.name(),
                peer.agent.log()
            );
        }
    }
}

impl Peer {
    pub(crate) fn name(&self) -> &str {
        &self.agent.machine().name
    }

    /// `webmesh` with these words.
    pub(crate) fn webmesh(&self, words: &[&str]) -> Output {
        self.bounded(
            &[&[program().to_str().unwrap()], words].concat(),
            COMMAND_LIMIT,
        )
    }

    /// `webmesh` with these words, which must exit with 0; gives its stdout.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.webmesh(words);
        assert!(
            output.status.success(),
            "{}$ webmesh {} ended with {}\n{}{}",
            self.name(),
            words.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// `webmesh` with these words, which must exit with `code`; gives its stderr.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> String {
        let output = self.webmesh(words);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}$ webmesh {}\n{}{}",
            self.name(),
            words.join(" "),
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stderr)
    }

    /// A new token.
    pub(crate) fn invite(&self) -> String {
        let token = self.ok(&["invite"]).trim().to_owned();
        assert!(
            token.starts_with("wm1-"),
            "a token alone on stdout, not {token:?}"
        );
        token
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// This machine's own mesh addresses, v4 and v6.
    pub(crate) fn mesh_addresses(&self) -> [String; 2] {
        let status = self.status();
        ["ipv4", "ipv6"].map(|family| status["self"][family].as_str().unwrap().to_owned())
    }

    /// Waits until this machine has sessions with all others, begun after `since` and a second old: when two knock at
    /// once, their handshakes cross, and the later one may follow a moment after traffic flows.
    pub(crate) fn await_settled(&self, since: webmesh::time::Moment) {
        within(Duration::from_secs(10), "sessions a second old", || {
            let passed = clock::moment().since(since).as_secs_f64();
            let status = self.status();
            let mut peers = status["peers"].as_array().unwrap().iter();
            peers.all(|peer| {
                let age = peer["last_handshake_s"].as_f64();
                age.is_some_and(|age| (1.0..passed).contains(&age))
            })
        });
    }

    /// A line of shell, run in this machine; `$WEBMESH` is the program.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.bounded(&["sh", "-c", line], COMMAND_LIMIT)
    }

    /// A line of shell that must exit with 0; gives its stdout.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "{}$ {line} ended with {}\n{}{}",
            self.name(),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// A program that runs beside the test until the guard is dropped.
    pub(crate) fn beside(&self, line: &str) -> Beside {
        let mut command = self.agent.command("sh").unwrap();
        command.arg("-c").arg(format!("exec {line}"));
        let log = std::fs::File::create(self.agent.machine().directory.join("beside.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Beside(command.spawn().unwrap())
    }

    /// Waits until a TCP listener stands on a port of this machine.
    pub(crate) fn await_port(&self, port: u16) {
        let port = port.to_string();
        self.ok(&["demo", "hold", "await-port", &port]);
    }

    /// Waits until a UDP socket stands on a port of this machine.
    pub(crate) fn await_udp_port(&self, port: u16) {
        within(
            Duration::from_secs(10),
            "the program takes its port",
            || !self.sh(&format!("ss -Hlun 'sport = :{port}'")).is_empty(),
        );
    }

    /// Waits until this machine has heard of so many others, and that they are there: news spreads every two seconds.
    pub(crate) fn await_acquainted(&self, others: usize) {
        within(Duration::from_secs(10), "everybody known", || {
            let status = self.status();
            let peers = status["peers"].as_array().unwrap();
            let there = peers.iter().filter(|peer| peer["state"] != "away");
            there.count() == others
        });
    }

    /// What `status --json` says of another machine's state.
    pub(crate) fn state_of(&self, name: &str) -> String {
        let status = self.status();
        let peers = status["peers"].as_array().unwrap();
        let found = peers.iter().find(|peer| peer["name"] == name);
        found
            .map_or("unknown", |peer| peer["state"].as_str().unwrap())
            .to_owned()
    }

    /// A file of this machine's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.agent.machine().directory.join(name)
    }

    fn has_complained(&self) -> bool {
        let log = self.agent.log();
        log.contains(" ERROR ") || log.contains("panicked")
    }

    fn bounded(&self, words: &[&str], limit: Duration) -> Output {
        let mut command = self.agent.command("timeout").unwrap();
        command
            .env("WEBMESH", program())
            .args(["--kill-after=2", &limit.as_secs().to_string()])
            .args(words)
            .output()
            .unwrap()
    }
}

/// A program that is killed when this is dropped.
pub(crate) struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often something is repeated: a fair sample, or all under `tests/run --full`.
pub(crate) fn sample(few: u32, full: u32) -> u32 {
    if std::env::var_os("WEBMESH_FULL").is_some() {
        full
    } else {
        few
    }
}

/// Looks every few milliseconds, where no event exists, until `is_so` or the limit.
pub(crate) fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether any process still lives in a namespace that one of `pids` held, or the directory is still there.
pub(crate) fn is_gone(directory: &Path, pids: &[u32]) -> bool {
    !directory.exists()
        && pids
            .iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// No command of a test takes longer; one that hangs must not hang the run.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Runs an ignored test of this binary in a machine, with these variables; gives what it printed.
pub(crate) fn run_inside(machine: &Machine, test: &str, environment: &[(&str, &str)]) -> String {
    let own = std::env::current_exe().unwrap();
    let output = machine
        .command(own)
        .unwrap()
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    said
}
