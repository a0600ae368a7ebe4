//! Issue 4, point 6: who may ask the agent for what, and that nobody who asks badly keeps others from being answered.
//!
//! Outside of any lab: in there nobody but root exists. An agent in no network changes nothing on the host. The groups
//! are a file of the test's own, seen by the agent alone.

use std::{
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use webmesh::api::Verb;

use crate::harness::{fresh_directory, program, text, within};

/// The group `webmesh` in the agent's eyes, and a user whom its list of members names (Debian's `games`).
const GROUP: u32 = 64_999;
const LISTED_USER: u32 = 5;

/// An agent in no network, at a socket that every user reaches.
struct Desk {
    directory: PathBuf,
    agent: Child,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Desk {
    /// For tests that ask as somebody else.
    fn open_as_root() -> Self {
        assert!(
            is_root(),
            "only root can ask as another user: run this test as root"
        );
        Self::open()
    }

    fn open() -> Self {
        let directory = fresh_directory();
        std::fs::create_dir(&directory).unwrap();
        // By `cp`: a file that this process wrote is busy in every child that another test forks meanwhile.
        let copied = Command::new("cp")
            .arg(program())
            .arg(directory.join("webmesh"))
            .status();
        assert!(copied.unwrap().success());
        let group = format!("root:x:0:\nwebmesh:x:{GROUP}:games\n");
        std::fs::write(directory.join("group"), group).unwrap();
        std::fs::write(directory.join("config.toml"), "").unwrap();
        let start = "mount --bind group /etc/group && exec ./webmesh daemon --state-dir state --socket sock \
                     --config config.toml";
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut apart = Command::new("unshare");
        if !is_root() {
            // Root of its own namespace: the agent's right to make a device is asked for when it is needed.
            apart.args(["--user", "--map-root-user"]);
        }
        let agent = apart
            .args(["--mount", "--propagation", "private", "sh", "-c", start])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let desk = Self { directory, agent };
        within(Duration::from_secs(10), "the agent answers", || {
            UnixStream::connect(desk.socket()).is_ok()
        });
        desk
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.agent.id()).unwrap())
    }

    /// The HTTP status that each verb gets, asked by a user of a group.
    fn ask_all(&self, uid: u32, gid: u32) -> Vec<(Verb, u16)> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "--request", "POST"])
            .args(["--write-out", "%{http_code}\n", "--unix-socket"])
            .arg(self.socket())
            .uid(uid)
            .gid(gid)
            .current_dir("/");
        for verb in Verb::ALL {
            let url = format!("http://webmesh{}", verb.path());
            curl.args(["--output", "/dev/null", &url]);
        }
        let output = curl.output().unwrap();
        let codes = text(&output.stdout);
        let codes = codes.lines().map_while(|code| code.parse().ok());
        let asked: Vec<(Verb, u16)> = Verb::ALL.into_iter().zip(codes).collect();
        assert_eq!(asked.len(), Verb::ALL.len(), "{}", text(&output.stderr));
        asked
    }

    /// A connection of this test's own user.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Writes bytes and gives all that comes until the agent closes; what it does not take is let go.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _closed_early = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        text(&answer)
    }

    /// Bytes of memory that the agent holds.
    fn held(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.agent.id())).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// The slowest but one of a hundred `webmesh status`, from start to end of the process.
    fn p99(&self) -> Duration {
        let mut took: Vec<Duration> = (0..100)
            .map(|_| {
                let began = Instant::now();
                let output = Command::new(self.directory.join("webmesh"))
                    .args(["status", "--json", "--socket"])
                    .arg(self.socket())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                began.elapsed()
            })
            .collect();
        took.sort();
        took[98]
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if std::thread::panicking() {
            eprintln!("--- log ---\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Who asks, and whether the agent takes him for a member of the group.
const ASKERS: [(u32, u32, Who); 5] = [
    (0, 0, Who::Root),
    (60_001, GROUP, Who::Member),
    (LISTED_USER, 60, Who::Member),
    (60_002, 60_002, Who::Other),
    (65_534, 65_534, Who::Other),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Other,
    Member,
    Root,
}

/// Design §4, verb by verb: the least who may, while everybody may look.
fn least(verb: Verb) -> Who {
    match verb {
        Verb::Init
        | Verb::Invite
        | Verb::InviteList
        | Verb::InviteCancel
        | Verb::Join
        | Verb::Leave
        | Verb::Recover
        | Verb::DebugBundle => Who::Root,
        Verb::Up | Verb::Down | Verb::ServiceAdd | Verb::ServiceRemove => Who::Member,
        Verb::Status
        | Verb::Peers
        | Verb::Wait
        | Verb::Ping
        | Verb::Why
        | Verb::Whois
        | Verb::Netcheck
        | Verb::DnsStatus
        | Verb::DnsQuery
        | Verb::ServiceList
        | Verb::ServiceShow
        | Verb::PolicyShow => Who::Other,
    }
}

#[test]
fn every_user_may_what_the_table_says_and_hup_closes_looking() {
    let desk = Desk::open_as_root();
    for (uid, gid, who) in ASKERS {
        for (verb, code) in desk.ask_all(uid, gid) {
            let may = who >= least(verb);
            assert_eq!(code != 403, may, "{who:?} {uid}: {verb:?} got {code}");
        }
    }
    std::fs::write(
        desk.directory.join("config.toml"),
        "[api]\nread = \"group\"\n",
    )
    .unwrap();
    kill(desk.pid(), Signal::SIGHUP).unwrap();
    within(Duration::from_secs(5), "looking is closed", || {
        desk.ask_all(60_002, 60_002)
            .iter()
            .all(|(_, code)| *code == 403)
    });
    for (uid, gid, who) in ASKERS {
        for (verb, code) in desk.ask_all(uid, gid) {
            let may = who >= least(verb).max(Who::Member);
            assert_eq!(
                code != 403,
                may,
                "closed, {who:?} {uid}: {verb:?} got {code}"
            );
        }
    }
}

/// A thousand connections of one user, each with a byte now and then; says how many still stand when told to.
const SLOW: &str = "
import socket, sys, time, select
path, head = sys.argv[1], b'POST /v1/status HTTP/1.1\\r\\nHost: '
socks = []
for _ in range(1000):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    socks.append(s)
print('open', flush=True)
for s in socks:
    try: s.sendall(head)
    except OSError: pass
while not select.select([sys.stdin], [], [], 0.5)[0]:
    for s in socks:
        try: s.send(b'x')
        except OSError: pass
standing = 0
for s in socks:
    s.setblocking(False)
    try: standing += s.recv(1) != b''
    except BlockingIOError: standing += 1
    except OSError: pass
print(standing, flush=True)
";

#[test]
fn a_thousand_slow_clients_keep_nobody_waiting() {
    let desk = Desk::open_as_root();
    let (quiet, before) = (desk.p99(), desk.held());
    for uid in [65_534, 0] {
        let mut slow = Command::new("/usr/bin/python3")
            .args(["-c", SLOW])
            .arg(desk.socket())
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = slow.stdout.take().unwrap();
        let mut first = [0; 5];
        said.read_exact(&mut first).unwrap();
        let descriptors = || {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", desk.agent.id())).unwrap();
            fds.count()
        };
        let (busy, held, open) = (desk.p99(), desk.held(), descriptors());
        let grown = held.saturating_sub(before);
        eprintln!(
            "uid {uid}: {open} descriptors; status p99 {busy:?}, undisturbed {quiet:?}; {} KiB more",
            grown / 1024
        );
        assert!(uid == 0 || open < 100, "{open} descriptors");
        assert!(busy < Duration::from_secs(1) + 3 * quiet, "p99 {busy:?}");
        // Root always gets in, and pays with 12 KiB each for five seconds.
        let most = if uid == 0 { 32 << 20 } else { 8 << 20 };
        assert!(grown <= most, "{grown} bytes more");
        within(Duration::from_secs(15), "the slow ones are let go", || {
            descriptors() < 30
        });
        drop(slow.stdin.take());
        let mut standing = String::new();
        said.read_to_string(&mut standing).unwrap();
        assert_eq!(
            standing.trim(),
            "0",
            "connections that the agent still holds"
        );
        slow.wait().unwrap();
    }
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: webmesh\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn post_sized(path: &str, body: &[u8]) -> Vec<u8> {
    post(path, &format!("Content-Length: {}\r\n", body.len()), body)
}

#[test]
fn what_is_too_long_too_deep_or_no_text_is_refused_and_the_agent_serves_on() {
    let desk = Desk::open();
    let before = desk.held();

    let gigabyte = post(
        "/v1/status",
        "Content-Length: 1073741824\r\n",
        &[b' '; 1 << 20],
    );
    let answer = desk.say(&gigabyte);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(
        answer.contains("a request has at most 16384 bytes"),
        "{answer}"
    );

    let mut chunks = post("/v1/status", "Transfer-Encoding: chunked\r\n", b"");
    for _ in 0..64 {
        chunks.extend_from_slice(b"1000\r\n");
        chunks.extend_from_slice(&[b' '; 0x1000]);
        chunks.extend_from_slice(b"\r\n");
    }
    let answer = desk.say(&chunks);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let deep = [b"{\"network\":".as_slice(), &[b'['; 10_000]].concat();
    let bad_text = b"{\"network\": \"\xff\xfe\"}".as_slice();
    for body in [
        deep.as_slice(),
        bad_text,
        b"[]",
        b"nonsense",
        b"{\"netwrk\": \"home\"}",
    ] {
        let answer = desk.say(&post_sized("/v1/status", body));
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("\"code\":\"bad_request\""), "{answer}");
    }

    let long_head = post(
        "/v1/status",
        &format!("X: {}\r\n", "x".repeat(1 << 20)),
        b"",
    );
    let odd_path = b"POST /v1/\xff\xfe HTTP/1.1\r\nHost: webmesh\r\n\r\n".as_slice();
    for bytes in [
        long_head.as_slice(),
        odd_path,
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
    ] {
        let answer = desk.say(bytes);
        let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(is_refusal, "{answer}");
    }
    let unknown = desk.say(&post_sized("/v1/status/../init", b""));
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");

    let grown = desk.held().saturating_sub(before);
    assert!(grown <= 8 << 20, "{grown} bytes more");
    assert!(desk.p99() < Duration::from_secs(1));
    assert!(!desk.log().contains("panicked"), "{}", desk.log());
}

#[test]
fn a_client_that_asks_much_and_reads_nothing_harms_itself_alone() {
    let desk = Desk::open();
    let one = b"POST /v1/status HTTP/1.1\r\nHost: webmesh\r\n\r\n".as_slice();
    let last = b"POST /v1/status HTTP/1.1\r\nHost: webmesh\r\nConnection: close\r\n\r\n".as_slice();
    let pipelined = [one.repeat(199).as_slice(), last].concat();
    let answers = desk.say(&pipelined);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 200);

    let before = desk.held();
    let many = one.repeat(100_000);
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut stream = desk.connect();
        stream.set_nonblocking(true).unwrap();
        let _as_much_as_it_takes = stream.write(&many);
        silent.push(stream);
    }
    let (busy, grown) = (desk.p99(), desk.held().saturating_sub(before));
    eprintln!(
        "64 who do not read: status p99 {busy:?}, {} KiB more",
        grown / 1024
    );
    assert!(busy < Duration::from_secs(2), "p99 {busy:?}");
    assert!(grown <= 8 << 20, "{grown} bytes more");
    drop(silent);

    for _ in 0..10_000 {
        drop(UnixStream::connect(desk.socket()));
    }
    assert!(desk.p99() < Duration::from_secs(2));
}

#[test]
fn an_agent_that_aborts_leaves_no_core() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut desk = Desk::open();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", desk.agent.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let figures: Vec<&str> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(figures, ["0", "0"]);
    kill(desk.pid(), Signal::SIGABRT).unwrap();
    let ended = desk.agent.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32));
    assert!(!ended.core_dumped());
    let is_core = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("core")
    };
    let left: Vec<PathBuf> = std::fs::read_dir(&desk.directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_core(path))
        .collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}
