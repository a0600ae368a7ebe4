//! Machines that boot: a Debian root with systemd as its init, in a network of its own, plugged into a bridge.
//!
//! A machine is systemd-nspawn under `setpriv` and `unshare`: whatever ends the test ends all of it, even SIGKILL. Each
//! has a control group of its own, since two systemds in one would count each other's processes as theirs.

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use crate::{
    left::{NETWORKS, directories, fresh_name, groups, remove_group, remove_network},
    roots::{Root, must, text},
};

/// No boot takes longer; it takes half a second on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// No command of a test takes longer; one that hangs must not hang the run.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// A bridge, and the machines plugged into it: 203.0.113.0/24 and 2001:db8::/64, with the bridge itself as `.1`.
#[derive(Debug)]
pub(crate) struct Lan {
    network: Network,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let network = Network::new();
        for order in [
            "link add wire type bridge forward_delay 0 mcast_snooping 0",
            "link set wire up",
            "address add 203.0.113.1/24 dev wire",
            "address add 2001:db8::1/64 dev wire nodad",
        ] {
            network.ip(order);
        }
        Self { network }
    }

    /// Boots a root as the machine `name` at 203.0.113.`number` and 2001:db8::`number`; it is up when this returns.
    pub(crate) fn boot(&self, root: Root, name: &'static str, number: u8) -> Machine {
        let network = Network::new();
        let far = &network.name;
        self.network.ip(&format!(
            "link add {name} type veth peer name eth0 netns {far}"
        ));
        self.network.ip(&format!("link set {name} master wire up"));
        for order in [
            "link set eth0 up".to_owned(),
            format!("address add 203.0.113.{number}/24 dev eth0"),
            format!("address add 2001:db8::{number:x}/64 dev eth0 nodad"),
            "route add default via 203.0.113.1".to_owned(),
            "-6 route add default via 2001:db8::1".to_owned(),
        ] {
            network.ip(&order);
        }
        Machine::boot(root, name, network)
    }

    /// Does something on this thread on the bridge's side of the cables: a socket that is opened there stays there.
    pub(crate) fn within_network<T>(&self, act: impl FnOnce() -> T) -> T {
        self.network.within(act)
    }
}

/// A booted machine. What it runs, its network and its root end with this.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    // In this order: what runs ends before what it runs on.
    container: Container,
    network: Network,
    _root: Root,
}

impl Machine {
    fn boot(root: Root, name: &'static str, network: Network) -> Self {
        fs::write(root.file("/etc/hostname"), format!("{name}\n")).unwrap();
        let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n");
        fs::write(root.file("/etc/hosts"), hosts).unwrap();
        let container = Container::boot(&root, name, &network);
        Self {
            name,
            container,
            network,
            _root: root,
        }
    }

    /// Its files, seen from outside: to put packages into, and to look at. They change only through [`Machine::sh`].
    pub(crate) fn file(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.container.init.to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// A command that will run in it as root, with an environment as `sudo` leaves it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter", "--all"])
            .arg(format!("--target={}", self.container.init))
            .args(["--", "env", "--ignore-environment", "HOME=/root"])
            .args(["USER=root", "LC_ALL=C.UTF-8", "TERM=dumb"])
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// A line of shell, run in it as root.
    pub(crate) fn run(&self, line: &str) -> Output {
        let limit = COMMAND_LIMIT.as_secs().to_string();
        let words = ["timeout", "--kill-after=2", &limit, "sh", "-c", line];
        self.command(&words).output().unwrap()
    }

    /// A line of shell that must exit with 0; gives its stdout.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "{}# {line} ended with {}\n{}{}",
            self.name,
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Does something on this thread in the machine's network: a socket that is opened there stays there.
    pub(crate) fn within_network<T>(&self, act: impl FnOnce() -> T) -> T {
        self.network.within(act)
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        let said = self.sh(&format!("systemctl show --value -p {property} {unit}"));
        said.trim().to_owned()
    }

    /// What a unit has logged.
    pub(crate) fn journal(&self, unit: &str) -> String {
        text(
            &self
                .run(&format!("journalctl --no-pager -o short-precise -u {unit}"))
                .stdout,
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            for line in [
                "journalctl --no-pager -q -o short-precise -u 'webmesh*' -u dnsmasq -u systemd-resolved",
                "tail -v -n +1 /etc/resolv.conf /etc/dnsmasq.d/webmesh.conf",
                "systemctl list-jobs",
                "webmesh status --json",
            ] {
                let said = self.run(line);
                eprintln!("--- {}# {line}\n{}", self.name, text(&said.stdout));
            }
        }
    }
}

/// The processes of a machine.
#[derive(Debug)]
struct Container {
    process: Child,
    /// Its init, as this host counts.
    init: u32,
    groups: Vec<PathBuf>,
}

impl Container {
    fn boot(root: &Root, name: &str, network: &Network) -> Self {
        let news_path = root.scratch().join("news");
        let news = UnixDatagram::bind(&news_path).unwrap();
        let console = root.scratch().join("console");
        let groups = groups(&network.name);
        for group in &groups {
            fs::create_dir(group).unwrap();
        }
        let process = nspawn(root, name, network, &groups)
            .env("NOTIFY_SOCKET", &news_path)
            .stdin(Stdio::null())
            .stdout(File::create(&console).unwrap())
            .stderr(File::options().append(true).open(&console).unwrap())
            .spawn()
            .unwrap();
        let mut container = Self {
            process,
            init: 0,
            groups,
        };
        container.await_ready(&news).unwrap_or_else(|why| {
            let said = fs::read(&console).unwrap_or_default();
            panic!("{name} did not boot: {why}\n{}", text(&said))
        });
        container.init = container
            .find_init()
            .expect("a machine that is up has an init");
        container
    }

    /// systemd says by itself when it has started all.
    fn await_ready(&mut self, news: &UnixDatagram) -> Result<(), String> {
        let began = Instant::now();
        news.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut datagram = [0; 4096];
        while began.elapsed() < BOOT_LIMIT {
            let length = news.recv(&mut datagram).unwrap_or_default();
            if text(&datagram[..length])
                .lines()
                .any(|line| line == "READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                return Err(format!("nspawn ended with {status}"));
            }
        }
        Err(format!("nothing heard in {BOOT_LIMIT:?}"))
    }

    /// The child of nspawn, which is the child of what we started.
    fn find_init(&self) -> Option<u32> {
        let nspawn = only_child(self.process.id())?;
        only_child(nspawn)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The first process of a process namespace takes all others with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for group in &self.groups {
            await_empty(group);
            remove_group(group);
        }
    }
}

fn nspawn(root: &Root, name: &str, network: &Network, groups: &[PathBuf]) -> Command {
    let enter: String = groups
        .iter()
        .map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display()))
        .collect();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "sh", "-ec"])
        .arg(format!("{enter} exec \"$@\""))
        .args([
            "sh",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
        ])
        .args([
            "systemd-nspawn",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--notify-ready=yes",
        ])
        .args([
            "--quiet",
            "--link-journal=no",
            "--timezone=off",
            "--resolv-conf=off",
        ])
        .args(["--bind=/dev/net/tun", "--capability=CAP_NET_ADMIN"])
        .arg(format!("--machine={}", network.name))
        .arg(format!("--hostname={name}"))
        .arg(format!(
            "--network-namespace-path={}",
            network.path().display()
        ))
        .arg("--directory")
        .arg(root.path());
    command
}

/// Killed processes leave their groups a moment after they are waited for.
fn await_empty(group: &Path) {
    let began = Instant::now();
    while has_processes(group) && began.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_processes(group: &Path) -> bool {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    !own.is_empty() || directories(group).iter().any(|below| has_processes(below))
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A network namespace with a name that no other test has.
#[derive(Debug)]
struct Network {
    name: String,
}

impl Network {
    fn new() -> Self {
        let network = Self { name: fresh_name() };
        must(Command::new("ip").args(["netns", "add", &network.name]));
        network.ip("link set lo up");
        network
    }

    fn path(&self) -> PathBuf {
        Path::new(NETWORKS).join(&self.name)
    }

    /// `ip` with these words, in it.
    fn ip(&self, words: &str) {
        must(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(words.split(' ')),
        );
    }

    fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        setns(File::open(self.path()).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let done = act();
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        done
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove_network(&self.path());
    }
}
