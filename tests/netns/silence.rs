//! Issue 3, point 5: who does not belong gets no byte back, whatever it sends and whatever it has recorded; nothing
//! that is sent again moves an endpoint or makes a session.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use webmesh::{
    demo::{capture::Capture, lab::Machine},
    keys::Token,
    packet::{ip::Ports, udp},
    platform::clock,
    time::Moment,
    wireguard::session::{Keys, Session},
};

use crate::{
    harness::{Net, Peer, run_inside, within},
    mallory::draw,
};

const ANNA: &str = "203.0.113.11:41820";
const BO: &str = "203.0.113.12:41820";
/// How many datagrams are sent each time.
const STORM: usize = 10_000;

#[test]
fn a_stranger_with_a_recording_gets_no_byte_and_moves_nothing() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    let eve = net.lab().public("eve", &["203.0.113.66/24"]).unwrap();
    let token = record_a_join_and_a_restart(&mut net, &eve);

    storm(&net, &eve, &token, Standing::Up);
    let anna = net.peer_mut("anna");
    anna.agent.kill().unwrap();
    let began = clock::moment();
    anna.agent.start().unwrap();
    await_session(&net, began);
    storm(&net, &eve, &token, Standing::Up);
    // Now there is no state that a replay could be mistaken for.
    net.peer_mut("bo").agent.stop().unwrap();
    let anna = net.peer("anna");
    within(Duration::from_secs(5), "bo's Bye is heard", || {
        !Seen::at(anna).is_up
    });
    storm(&net, &eve, &token, Standing::Gone);
    let drops = &net.peer("anna").status()["drops"];
    assert!(drops["knock_replayed"].as_u64() > Some(0), "{drops}");
}

/// Whether anna and bo have a session during a storm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Up,
    Gone,
}

/// Bo joins and starts again; all it said on the wire is kept for eve.
fn record_a_join_and_a_restart(net: &mut Net, eve: &Machine) -> String {
    // A Knock and the initiation behind it would leave as one train, of which only the first byte of the first is seen.
    net.peer("bo").sh("ip link set eth0 gso_max_segs 1");
    let capture = Capture::start(net.lab(), "bo").unwrap();
    let began = clock::moment();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    net.peer("bo").ok(&["join", &token]);
    await_session(net, began);
    let bo = net.peer_mut("bo");
    bo.agent.kill().unwrap();
    let began = clock::moment();
    bo.agent.start().unwrap();
    await_session(net, began);
    let said = datagrams(&capture.frames().unwrap(), BO);
    for first in [1, 4, 0x30] {
        assert!(said.iter().any(|datagram| datagram[0] == first), "{first}");
    }
    write_all(&eve.directory.join("said"), &said);
    token
}

/// Waits for a session that began after `since`.
fn await_session(net: &Net, since: Moment) {
    await_ping(net);
    net.peer("anna").await_settled(since);
}

fn await_ping(net: &Net) {
    let anna = net.peer("anna").status()["self"]["ipv4"].clone();
    let line = format!("ping -c 1 -W 0.3 {}", anna.as_str().unwrap());
    within(Duration::from_secs(5), "a ping comes back", || {
        net.peer("bo").run(&line).status.success()
    });
}

/// Eve sends everything, from its own address and in bo's name.
fn storm(net: &Net, eve: &Machine, token: &str, standing: Standing) {
    let anna = net.peer("anna");
    let before = Seen::at(anna);
    let capture = Capture::start(net.lab(), "anna").unwrap();
    let said = run_inside(eve, "silence::inside_the_storm", &[("TOKEN", token)]);
    if standing == Standing::Up {
        await_ping(net);
    }
    let answers = datagrams(&capture.frames().unwrap(), ANNA);
    assert!(said.contains("bytes back: 0"), "{said}");
    let handshakes = answers
        .iter()
        .filter(|datagram| [2, 3].contains(&datagram[0]));
    let drops = &anna.status()["drops"];
    assert_eq!(handshakes.count(), 0, "answers in bo's direction: {drops}");

    let after = Seen::at(anna);
    assert_eq!(after.endpoint, before.endpoint);
    assert_eq!(after.is_up, standing == Standing::Up);
    let passed = after.asked.since(before.told).as_secs_f64();
    let is_older = after.handshake_s >= passed;
    let story = format!(
        "{} s before, then {passed} s later {} s; anna sent of each type {:?}; {}",
        before.handshake_s,
        after.handshake_s,
        [1, 2, 3, 4, 0x30].map(|kind| answers.iter().filter(|d| d[0] == kind).count()),
        anna.status()["drops"],
    );
    assert!(
        is_older || standing == Standing::Gone,
        "a new handshake: {story}"
    );
    let dropped = after.dropped - before.dropped;
    // A busy machine's socket may overflow, which only the kernel counts.
    let least = u64::try_from(STORM / 2).unwrap();
    assert!(dropped >= least, "{dropped} of the storm were counted");
}

/// What anna's status says about bo, and when it was asked and told.
struct Seen {
    asked: Moment,
    told: Moment,
    endpoint: Value,
    is_up: bool,
    handshake_s: f64,
    dropped: u64,
}

impl Seen {
    fn at(anna: &Peer) -> Self {
        let asked = clock::moment();
        let status = anna.status();
        let bo = &status["peers"][0];
        let drops = status["drops"].as_object().unwrap();
        Self {
            asked,
            told: clock::moment(),
            endpoint: bo["path"]["endpoint"].clone(),
            is_up: bo["state"] == "up",
            handshake_s: bo["last_handshake_s"].as_f64().unwrap_or(0.0),
            dropped: drops.values().filter_map(Value::as_u64).sum(),
        }
    }
}

/// The payload of every UDP datagram from `source`, in order.
pub(crate) fn datagrams(frames: &[Vec<u8>], source: &str) -> Vec<Vec<u8>> {
    let source: SocketAddr = source.parse().unwrap();
    let (ethertype, protocol_at, ip_at, udp_at) = match source {
        SocketAddr::V4(_) => ([0x08, 0x00], 23, 26, 34),
        SocketAddr::V6(_) => ([0x86, 0xdd], 20, 22, 54),
    };
    let ip = match source.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let is_its = |frame: &&Vec<u8>| {
        frame.len() > udp_at + 8
            && frame[12..14] == ethertype
            && frame[protocol_at] == 17
            && frame[ip_at..ip_at + ip.len()] == ip
            && frame[udp_at..udp_at + 2] == source.port().to_be_bytes()
    };
    let payload = |frame: &Vec<u8>| {
        let len = usize::from(u16::from_be_bytes([frame[udp_at + 4], frame[udp_at + 5]]));
        frame[udp_at + 8..udp_at + len].to_vec()
    };
    frames.iter().filter(is_its).map(payload).collect()
}

fn write_all(file: &Path, datagrams: &[Vec<u8>]) {
    let lines = datagrams
        .iter()
        .map(|bytes| data_encoding::HEXLOWER.encode(bytes));
    fs::write(file, lines.collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_the_storm() {
    let token: Token = std::env::var("TOKEN").unwrap().parse().unwrap();
    let said = fs::read_to_string("said").unwrap();
    let decode = |line: &str| data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
    let recorded: Vec<Vec<u8>> = said.lines().map(decode).collect();
    let own = UdpSocket::bind("0.0.0.0:41820").unwrap();
    own.set_nonblocking(true).unwrap();
    let spoof = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(41_820);
    for number in 0..STORM {
        let datagram = match number % 4 {
            0 => noise(&mut random),
            1 => initiation(&token),
            _ => {
                let which = usize::try_from(random.next_u32()).unwrap() % recorded.len();
                recorded[which].clone()
            }
        };
        if number % 2 == 0 || number % 4 == 1 {
            own.send_to(&datagram, ANNA).unwrap();
        } else {
            send_as_bo(&spoof, &datagram);
        }
        if number % 10 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // Nothing tells the end of a silence.
    std::thread::sleep(Duration::from_millis(500));
    let mut back = 0;
    while let Ok(len) = own.recv(&mut [0; 2048]) {
        back += len;
    }
    println!("bytes back: {back}");
}

/// Random bytes; three of four begin as one of our datagrams does.
fn noise(random: &mut ChaCha8Rng) -> Vec<u8> {
    let heads = [
        [1, 0, 0, 0],
        [2, 0, 0, 0],
        [4, 0, 0, 0],
        [0x30, 1, 1, 0],
        [0x30, 1, 2, 0],
    ];
    let lens = [148, 92, 96, 308, 160];
    let which = usize::try_from(random.next_u32() % 7).unwrap();
    let mut bytes = vec![0; lens.get(which).copied().unwrap_or(200)];
    random.fill_bytes(&mut bytes);
    if let Some(head) = heads.get(which) {
        bytes[..4].copy_from_slice(head);
    }
    bytes
}

/// A sound WireGuard initiation to anna's real key, by a key that nobody knows.
fn initiation(token: &Token) -> Vec<u8> {
    let keys = Keys {
        local_secret: &x25519_dalek::StaticSecret::from(draw::<32>()),
        remote_public: &x25519_dalek::PublicKey::from(token.issuer),
        psk: token.secret.psk(),
    };
    let mut session = Session::new(clock::now(), &keys, 9).unwrap();
    let mut bytes = vec![0; 256];
    let len = session.initiate(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn send_as_bo(raw: &Socket, datagram: &[u8]) {
    let [from, to] = [BO, ANNA].map(|text| text.parse::<SocketAddr>().unwrap());
    let mut packet = Vec::new();
    let ports = Ports {
        source: from.port(),
        destination: to.port(),
    };
    assert!(udp::build(
        &mut packet,
        (from.ip(), to.ip()),
        ports,
        datagram
    ));
    raw.send_to(&packet, &to.into()).unwrap();
}
