//! Issue 4, point 2, as far as it goes without systemd: the one agent of a host, started by hand as root, and a double of
//! systemd-resolved on a bus of its own. The real one is asked in `tests/packages`.

use std::{
    process::{Child, Command},
    time::Duration,
};

use webmesh::demo::{
    agent::Agent,
    lab::{Lab, Machine},
};

use crate::{
    double::{Said, serve},
    harness::{lab, program, text, within},
};

/// A host with an `/etc` and a `/run` of its own, an agent at the usual place, and a bus.
struct Host {
    machine: Machine,
    running: Vec<Child>,
    lab: Lab,
}

impl Host {
    fn new() -> Self {
        let lab = lab();
        let machine = lab.public("anna", &["203.0.113.11/24"]).unwrap();
        let mut host = Self {
            machine,
            running: Vec::new(),
            lab,
        };
        let bus = host.file("bus");
        let config = format!(
            "<busconfig><type>session</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
        );
        std::fs::write(host.file("bus.conf"), config).unwrap();
        host.sh(
            "mkdir etc && cp -L /etc/passwd /etc/group /etc/nsswitch.conf etc/ && echo nameserver 127.0.0.53 > etc/resolv.conf && \
             mount --bind etc /etc && mount -t tmpfs none /run",
        );
        host.beside(&format!(
            "dbus-daemon --nofork --config-file={}",
            host.file("bus.conf")
        ));
        within(Duration::from_secs(5), "the bus", || {
            std::path::Path::new(&bus).exists()
        });
        host
    }

    fn start_agent(&mut self) {
        let agent = format!("{} daemon --state-dir state", program().display());
        self.beside(&agent);
        within(Duration::from_secs(10), "the agent", || {
            self.run(&format!("{} status", program().display())).0
        });
    }

    /// Stops the agent as systemd does.
    fn stop_agent(&mut self) {
        let mut agent = self.running.pop().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(agent.wait().unwrap().success());
    }

    fn file(&self, name: &str) -> String {
        self.machine.directory.join(name).display().to_string()
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.file("bus"))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.machine.command("sh").unwrap();
        command
            .args(["-c", line])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .env_remove("WEBMESH_SOCKET");
        command
    }

    fn run(&self, line: &str) -> (bool, String) {
        let output = self.command(line).output().unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.success(), said)
    }

    fn sh(&self, line: &str) -> String {
        let (is_good, said) = self.run(line);
        assert!(
            is_good,
            "{line}: {said}\n{}",
            std::fs::read_to_string(self.file("log")).unwrap_or_default()
        );
        said
    }

    fn webmesh(&self, words: &str) -> String {
        self.sh(&format!("{} {words}", program().display()))
    }

    fn beside(&mut self, line: &str) {
        let log = std::fs::File::create(self.file("log")).unwrap();
        let mut command = self.command(&format!("exec {line}"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push(command.spawn().unwrap());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn resolved_is_told_at_init_again_when_it_starts_anew_and_reverted_at_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut host = Host::new();
    let (first, said) = runtime.block_on(serve(&host.address(), 0));
    host.start_agent();
    let before = etc(&host);

    let init = host.webmesh("init home");
    assert!(
        init.contains(
            "anna.home.internal   (systemd-resolved sends us home.internal, nothing else)"
        ),
        "{init}"
    );
    assert!(
        has(&said, "Domains") && has(&said, " home.internal svc.home.internal ~"),
        "{said:?}"
    );
    assert!(
        has(&said, "DefaultRoute") && !has(&said, "true"),
        "{said:?}"
    );
    let status: serde_json::Value = serde_json::from_str(&host.webmesh("status --json")).unwrap();
    assert_eq!(status["dns"]["backend"], "resolved");
    assert_eq!(status["dns"]["state"], "resolving");
    let (_, words) = host.run(&format!("{} dns status", program().display()));
    assert!(
        words.contains("systemd-resolved sends us home.internal"),
        "{words}"
    );

    // Started anew, resolved knows nothing.
    runtime.block_on(async { first.close().await.unwrap() });
    let (_second, said) = runtime.block_on(serve(&host.address(), 0));
    within(Duration::from_secs(2), "resolved is told again", || {
        has(&said, "FlushCaches")
    });

    host.webmesh("down");
    assert!(has(&said, "Revert"), "{said:?}");
    assert_eq!(host.sh("ls /run/webmesh"), "webmesh.sock\n");
    said.lock().unwrap().clear();
    host.webmesh("up");
    assert!(has(&said, "Domains"), "{said:?}");
    assert!(
        host.run(&format!("{} dns takeover", program().display()))
            .1
            .contains("names resolve here already")
    );
    assert_eq!(etc(&host), before);
}

#[test]
fn resolved_is_told_of_another_domain_only_while_root_says_that_it_is_ours() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut host = Host::new();
    let (_double, said) = runtime.block_on(serve(&host.address(), 0));
    host.start_agent();
    let before = etc(&host);
    let init = host.webmesh("init home --domain mesh.example.com");
    let sent = "systemd-resolved sends us mesh.example.com, nothing else";
    assert!(init.contains(sent), "{init}");
    assert!(has(&said, " mesh.example.com svc.mesh.example.com ~"));
    let domains = host.sh("cat /etc/webmesh/domains");
    assert_eq!(domains, "mesh.example.com\n");

    // What a stranger in the agent's place would have.
    host.sh("rm /etc/webmesh/domains");
    said.lock().unwrap().clear();
    host.webmesh("up");
    assert!(!has(&said, "Domains") && has(&said, "Revert"), "{said:?}");
    let (_, words) = host.run(&format!("{} dns status", program().display()));
    let way_out = "echo mesh.example.com | sudo tee -a /etc/webmesh/domains && sudo webmesh up";
    assert!(words.contains(way_out), "{words}");
    host.sh(&way_out
        .replace("sudo webmesh", &program().display().to_string())
        .replace("sudo ", ""));
    assert!(has(&said, " mesh.example.com svc.mesh.example.com ~"));

    host.webmesh("leave home --yes");
    assert_eq!(etc(&host), before);
}

#[test]
fn join_says_whose_names_it_takes_along_and_leaves_those_that_others_use() {
    for (domain, words, written) in [
        (
            "example.com",
            "all names under example.com are asked of home here",
            "example.com\n",
        ),
        ("docker.internal", "here they stay with those", ""),
    ] {
        let mut host = Host::new();
        let machine = host.lab.public("mallory", &["203.0.113.12/24"]).unwrap();
        let mut mallory = Agent::new(machine, &program());
        mallory.start().unwrap();
        let founded = mallory.webmesh(&["init", "home", "--domain", domain]);
        assert!(founded.unwrap().status.success());
        let token = text(&mallory.webmesh(&["invite"]).unwrap().stdout);
        host.start_agent();
        let said = host.webmesh(&format!("join {}", token.trim()));
        assert!(said.contains(words), "{said}");
        let (_, domains) = host.run("cat /etc/webmesh/domains 2>/dev/null");
        assert_eq!(domains, written);
    }
}

#[test]
fn a_takeover_goes_with_the_agent_comes_again_with_it_and_yields_to_others() {
    let mut host = Host::new();
    host.sh("echo nameserver 203.0.113.99 > etc/resolv.conf");
    host.start_agent();
    host.webmesh("init home");
    let before = host.sh("cat etc/resolv.conf");
    host.webmesh("dns takeover");
    assert!(
        host.sh("cat etc/resolv.conf")
            .contains("webmesh dns takeover")
    );
    assert!(host.sh("getent ahostsv4 anna").contains("100."));
    host.stop_agent();
    assert_eq!(host.sh("cat etc/resolv.conf"), before);
    assert_eq!(host.sh("ls -A etc | grep resolv"), "resolv.conf\n");
    host.start_agent();
    within(Duration::from_secs(3), "taken over again", || {
        host.sh("cat etc/resolv.conf") != before
    });

    host.sh("echo nameserver 203.0.113.77 > etc/resolv.conf");
    within(Duration::from_secs(5), "said that others wrote it", || {
        host.run(&format!("{} dns status", program().display()))
            .1
            .contains("somebody has written /etc/resolv.conf since")
    });
    assert_eq!(host.sh("cat etc/resolv.conf"), "nameserver 203.0.113.77\n");
    host.webmesh("dns takeover");
    assert!(
        host.sh("cat etc/resolv.conf")
            .contains("webmesh dns takeover")
    );
    host.webmesh("leave home --yes");
    assert_eq!(host.sh("cat etc/resolv.conf"), "nameserver 203.0.113.77\n");
}

#[test]
fn an_agent_by_hand_whose_device_is_taken_away_leaves_no_takeover_behind() {
    let mut host = Host::new();
    host.sh("echo nameserver 203.0.113.99 > etc/resolv.conf");
    let before = host.sh("cat etc/resolv.conf");
    host.start_agent();
    host.webmesh("init home");
    host.webmesh("dns takeover");
    assert_ne!(host.sh("cat etc/resolv.conf"), before);
    host.sh("ip link del wm0");
    let code = host.running.pop().unwrap().wait().unwrap().code();
    assert_eq!(code, Some(2), "it cannot go on, and says so");
    assert_eq!(host.sh("cat etc/resolv.conf"), before);
    assert_eq!(host.sh("ls -A etc | grep resolv"), "resolv.conf\n");
}

fn etc(host: &Host) -> String {
    host.sh("cd etc && find . -printf '%p %y %m %i %l\\n' | sort && cat resolv.conf")
}

fn has(said: &Said, word: &str) -> bool {
    let said = said.lock().unwrap();
    said.iter().any(|line| line.contains(word))
}
