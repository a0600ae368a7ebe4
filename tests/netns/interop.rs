//! Our WireGuard is the others': a data thread of ours alone, without an agent, and wireguard-go are peers. A stranger
//! still gets silence: the test tells the thread by its commands, as the control thread would, whose handshake to take.

use std::{
    collections::HashMap,
    env,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use tokio::sync::mpsc::{self, error::TryRecvError};
use webmesh::{
    addr::{Path, Underlay},
    datapath::{
        self, Handle,
        command::{self, Event, SessionKeys},
        offloads::{Wish, Wishes},
    },
    ids::{PeerIx, SessionId},
    platform::{
        tun::{Queues, Shape, Tun},
        udp,
    },
    tables::{Admission, Own, Tables},
};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    harness::{Beside, Net, Peer, run_inside, sample, text, within},
    speed::{ALL, End, LOST, NONE, ask_between, assert_in_use, script, transfer_between},
};

const PEER: SessionId = SessionId::Pair(PeerIx(0));

/// Secrets that anybody may know: ours, and wireguard-go's.
const SECRETS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const PSK: [u8; 32] = [3; 32];

/// When the first keys are too old for both (120 s), with time to spare.
const NEW_KEYS: Duration = Duration::from_secs(130);

const PORT: u16 = 41820;
const MTU: u16 = 1420;

/// Addresses inside: ours, and wireguard-go's.
const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2)];
const V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
];

/// Gives wireguard-go a file of orders. Its socket is there a moment before it listens.
const TELL: &str = r#"
import socket, sys, time
control = socket.socket(socket.AF_UNIX)
while control.connect_ex("/var/run/wireguard/wm0.sock") != 0:
    time.sleep(0.01)
control.sendall(open(sys.argv[1], "rb").read())
said = control.recv(4096).decode()
sys.exit(0 if "errno=0" in said else said)
"#;

/// Whose initiation begins the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
}

impl First {
    fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
        }
    }
}

/// By which family datagrams go: addresses of anna, whose thread is ours, and of bo.
const OUTER4: [&str; 2] = ["203.0.113.11", "203.0.113.12"];
const OUTER6: [&str; 2] = ["[2001:db8::b]", "[2001:db8::c]"];

#[test]
#[ignore = "takes Go, which builds the reference; tests/run --full"]
fn what_goes_through_is_what_was_sent_where_our_thread_begins() {
    let rows = [(ALL, OUTER4), (NONE, OUTER6)];
    goes_through(First::Ours, &rows);
}

#[test]
#[ignore = "takes Go, which builds the reference; tests/run --full"]
fn what_goes_through_is_what_was_sent_where_wireguard_go_begins() {
    let rows = [(NONE, OUTER4), (ALL, OUTER6)];
    goes_through(First::Theirs, &rows);
}

/// 200 MB in all over the first of the rows; under `--full` over each.
fn goes_through(first: First, rows: &[([&str; 3], [&str; 2])]) {
    for (offloads, outer) in rows.iter().take(sample(1, 2) as usize) {
        between((first, *offloads, *outer), |ends| {
            transfer_between(ends, 50);
            assert_in_use(ends[0].0, *offloads);
            ask_between(ends, sample(4999, 7));
        });
    }
}

#[test]
#[ignore = "takes more than two minutes, after which WireGuard makes new keys"]
fn new_keys_are_made_without_a_loss_where_our_thread_began() {
    loses_nothing_for_long(First::Ours);
}

#[test]
#[ignore = "takes more than two minutes, after which WireGuard makes new keys"]
fn new_keys_are_made_without_a_loss_where_wireguard_go_began() {
    loses_nothing_for_long(First::Theirs);
}

fn loses_nothing_for_long(first: First) {
    let said = between((first, ALL, OUTER4), |[_, (bo, _)]| {
        let began = Instant::now();
        while began.elapsed() < NEW_KEYS {
            let said = bo.sh(&format!("ping -q -i 0.01 -c 1000 {}", V4[0]));
            assert!(said.contains(" 0% packet loss"), "{said}");
        }
    });
    let times = |what| said.matches(what).count();
    let begun = match first {
        First::Ours => times("Received handshake initiation"),
        First::Theirs => times("Sending handshake initiation"),
    };
    assert!(begun >= 2, "{said}");
}

/// Makes the two, and plays this between them; gives what wireguard-go said.
fn between(
    (first, offloads, outer): (First, [&str; 3], [&str; 2]),
    story: impl FnOnce(&[End<'_>; 2]),
) -> String {
    let mut net = Net::empty();
    net.add_still("anna", 11);
    net.add_still("bo", 12);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let theirs = WireguardGo::start(bo, (first, outer[0]));
    let machine = anna.agent.machine();
    let end = anna.file("end");
    thread::scope(|scope| {
        let ours = scope.spawn(|| {
            let environment = [
                ("FIRST", first.word()),
                ("OFFLOADS", &offloads.join(" ")),
                ("OTHER", &format!("{}:{PORT}", outer[1])),
                ("END", end.to_str().unwrap()),
            ];
            run_inside(machine, "interop::inside_a_thread_carries", &environment)
        });
        let until = Until(&end);
        await_session(first, [anna, bo]);
        let of = |place: usize| [V4[place].to_string(), V6[place].to_string()];
        story(&[(anna, of(0)), (bo, of(1))]);
        drop(until);
        ours.join().unwrap();
    });
    theirs.assert_first(first);
    theirs.said()
}

/// Whoever is to begin does so for a packet of its own.
fn await_session(first: First, [anna, bo]: [&Peer; 2]) {
    within(Duration::from_secs(10), "the device", || {
        anna.run("ip link show wm0").status.success()
    });
    let (from, to) = match first {
        First::Ours => (anna, V4[1]),
        First::Theirs => (bo, V4[0]),
    };
    within(Duration::from_secs(10), "packets go through", || {
        from.run(&format!("ping -c 1 -W 1 {to}")).status.success()
    });
}

/// Ends the thread, also after a failure: the scope waits for it.
struct Until<'a>(&'a std::path::Path);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0, "");
    }
}

/// A running wireguard-go that is told of us. What it said is printed after a failure.
struct WireguardGo<'a> {
    peer: &'a Peer,
    _process: Beside,
}

impl<'a> WireguardGo<'a> {
    /// It knows where we are only if it is to begin.
    fn start(peer: &'a Peer, (first, our_address): (First, &str)) -> Self {
        let program = wireguard_go().display();
        // Its socket lies in one folder for all namespaces of the host.
        peer.sh("mount -t tmpfs tmpfs /var/run");
        let started = Self {
            peer,
            _process: peer.beside(&format!(
                "env LOG_LEVEL=verbose {program} -f wm0 >said 2>&1"
            )),
        };
        let public = PublicKey::from(&StaticSecret::from(SECRETS[0]));
        let mut orders = format!(
            "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\npreshared_key={}\nallowed_ip={}/32\nallowed_ip={}/128\n",
            HEXLOWER.encode(&SECRETS[1]),
            HEXLOWER.encode(public.as_bytes()),
            HEXLOWER.encode(&PSK),
            V4[0],
            V6[0],
        );
        if first == First::Theirs {
            orders += &format!("endpoint={our_address}:{PORT}\n");
        }
        let orders = script(peer, "orders", &format!("{orders}\n"));
        let tell = script(peer, "tell.py", TELL);
        peer.sh(&format!("python3 {tell} {orders}"));
        peer.sh(&format!(
            "ip link set wm0 addrgenmode none mtu {MTU} up && ip addr add {}/16 dev wm0 && ip addr add {}/64 dev wm0 nodad",
            V4[1], V6[1]
        ));
        started
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.peer.file("said")).unwrap_or_default()
    }

    /// Who began was who was to; by whom new keys are begun later is free.
    fn assert_first(&self, first: First) {
        let said = self.said();
        let mut lines = said.lines();
        let line = lines.find(|line| line.contains("handshake initiation"));
        let is_theirs = line.is_some_and(|line| line.contains("Sending"));
        assert_eq!(is_theirs, first == First::Theirs, "{said}");
    }
}

impl Drop for WireguardGo<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- wireguard-go ---\n{}", self.said());
        }
    }
}

/// The reference, built once from its sources, in the version that the bench measures.
fn wireguard_go() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let bench = include_str!("../bench/contenders.py");
        let module = bench
            .lines()
            .find_map(|line| line.strip_prefix("WIREGUARD = "));
        let module = module.unwrap().trim_matches('"');
        let version = module.rsplit('@').next().unwrap();
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("wireguard-go-{version}"));
        let program = folder.join("wireguard");
        if !program.exists() {
            build(module, &folder);
        }
        program
    })
}

/// Tests beside this one have deadlines: it takes one core, and that last.
fn build(module: &str, folder: &std::path::Path) {
    let output = Command::new("nice")
        .args(["-n", "19", "go", "install", "-p", "1", module])
        .env("GOBIN", folder)
        .env("GOMAXPROCS", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "wireguard-go cannot be built here, which takes Go 1.23 or newer and its module proxy: {}",
        text(&output.stderr)
    );
}

#[test]
#[ignore = "runs inside the machine of the tests above"]
fn inside_a_thread_carries() {
    let word = |name: &str| env::var(name).unwrap();
    let offloads = word("OFFLOADS");
    let wish = |word| if word == "off" { Wish::Off } else { Wish::Auto };
    let [tun, gso, gro] = *offloads.split(' ').map(wish).collect::<Vec<_>>() else {
        panic!("three words")
    };
    let wishes = Wishes { tun, gso, gro };
    let (sender, mut events) = mpsc::channel(64);
    let handle = datapath::start(datapath::Parts {
        tun: None,
        sockets: udp::Pair::bind(PORT).unwrap(),
        tables: Arc::new(ArcSwap::from_pointee(tables())),
        events: sender,
        mtu: MTU,
        wishes,
        threads: 1,
    })
    .unwrap();
    let other = Path::Direct(Underlay::new(word("OTHER").parse().unwrap()));
    meet(&handle, &word("FIRST"), other);
    // The last thing: the test takes it as the sign that all stands.
    let tun = Some(Tun::open(&shape(wishes)).unwrap());
    handle.send(command::Command::Attach { tun });
    let end = PathBuf::from(word("END"));
    while !end.exists() {
        match events.try_recv() {
            Ok(event) => on_event(&handle, &event),
            Err(TryRecvError::Empty) => thread::sleep(Duration::from_millis(5)),
            Err(TryRecvError::Disconnected) => panic!("the thread ended"),
        }
    }
    let drops = handle.drops();
    let mut met = drops.iter().filter(|(_, count)| **count != 0);
    assert!(
        met.all(|(reason, _)| !LOST.contains(&reason.label())),
        "{drops:?}"
    );
}

fn meet(handle: &Handle, first: &str, other: Path) {
    let keys = SessionKeys {
        local_secret: StaticSecret::from(SECRETS[0]),
        remote_public: PublicKey::from(&StaticSecret::from(SECRETS[1])),
        psk: PSK,
    };
    handle.send(if first == First::Ours.word() {
        command::Command::Initiate {
            session: PEER,
            keys,
            // Every initiation of ours is behind a sealed datagram, which means nothing to a plain peer.
            to: vec![(other, vec![0x30; 160])],
        }
    } else {
        command::Command::Admit {
            session: PEER,
            keys,
            source: other,
            admission: Admission::Keep,
        }
    });
}

/// A plain peer answers no Ping: where its first packet came from is believed at once.
fn on_event(handle: &Handle, event: &Event) {
    if let Event::Up {
        session, endpoint, ..
    } = event
    {
        handle.send(command::Command::SetPath {
            session: *session,
            endpoint: *endpoint,
        });
    }
}

fn tables() -> Tables {
    let shape = shape(Wishes::default());
    let (_, pool4) = shape.v4.unwrap();
    Tables {
        own: Own {
            v4: Some(V4[0]),
            v6: V6[0],
            resolver4: Ipv4Addr::new(100, 64, 255, 53),
            resolver6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x53),
            pool4,
            prefix6: shape.v6.1,
            dns_tcp_port: 1053,
        },
        peers4: HashMap::from([(V4[1], PeerIx(0))]),
        peers6: HashMap::from([(V6[1], PeerIx(0))]),
        ..Tables::vacant()
    }
}

fn shape(wishes: Wishes) -> Shape {
    Shape {
        name: "wm0".to_owned(),
        mtu: MTU,
        v4: Some((V4[0], "100.64.0.0/16".parse().unwrap())),
        v6: (V6[0], "fd00::/64".parse().unwrap()),
        long_packets: wishes.tun != Wish::Off,
        queues: Queues::One,
    }
}
