//! Issue 6, point 5: strangers who send as much as they can. A transfer beside it is whole, a flow loses nothing, and
//! who has an invite gets in.
//!
//! That strangers get no byte back and move nothing is `silence`'s; what a member may flood is `hostile`'s.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use webmesh::{
    demo::lab::Machine,
    ids::Boot,
    keys::{NodeKey, Token, TunnelKey},
    node::Identity,
    packet::{ip::Ports, udp},
    platform::clock,
    wireguard::session::{INITIATION, Keys, Session},
};

use crate::{
    harness::{Net, Peer, run_inside, sample, text, within},
    mallory::{draw, sealed_join},
    speed::{SINK, SOURCE, script},
    transports::assert_sealed,
};

const ANNA: &str = "203.0.113.11:41820";
const BO: &str = "203.0.113.12:41820";
const EVE: &str = "203.0.113.66:41820";

/// As `Net::add_public` has it, which gives IPv6 too: who throws in another's name must know by which family it talks.
const IN_NO_LAN: &str = "[rendezvous]\nlan = false\n";

/// Datagrams of garbage a second. A machine that is busy with other tests may not come to it, but to a fifth.
const GARBAGE_RATE: u32 = 20_000;

/// Different ones of them.
const GARBAGE: usize = 4096;

/// The longest datagram that the wire carries in one packet, and the longest of all.
const IN_ONE_PACKET: u32 = 1472;
const OVERSIZE: u32 = 65_507;

/// Sound Joins of a flood, each with what comes beside it; then they come again.
const JOINS: u32 = 512;

/// The longest that a flood goes on, in case nobody ends it.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

/// Two agents that talk by IPv4, and a stranger on their wire.
fn two_and_a_stranger() -> (Net, Machine) {
    let mut net = Net::empty();
    net.add_configured("anna", 11, IN_NO_LAN);
    net.add_configured("bo", 12, IN_NO_LAN);
    let eve = net.lab().public("eve", &["203.0.113.66/24"]).unwrap();
    (net, eve)
}

/// How much of its speed the transfer keeps is printed and not judged: the stranger, both agents and the programs that
/// make and take the bytes share the processors.
#[test]
fn a_transfer_is_whole_beside_garbage_at_line_rate() {
    let (net, eve) = two_and_a_stranger();
    net.form();
    let both = [net.peer("anna"), net.peer("bo")];
    let [v4, v6] = both[1].mesh_addresses();
    let sink = script(both[1], "sink.py", SINK);
    let _sink = both[1].beside(&format!("python3 {sink} {v4} {v6}"));
    both[1].await_port(5001);
    let alone = speed_of_transfer(both[0], &v4);
    let (pids, before) = (both.map(pid), both.map(dropped));

    let (under, sent) = beside_a_flood(&eve, "pressure::inside_the_garbage", &[], || {
        within(Duration::from_secs(10), "the garbage comes", || {
            dropped(both[0]) > before[0] + 1000
        });
        speed_of_transfer(both[0], &v4)
    });
    eprintln!("{alone:.0} MB/s alone, {under:.0} MB/s beside {sent:?}");
    assert!(sent.a_second >= u64::from(GARBAGE_RATE / 5), "{sent:?}");
    for (peer, before) in both.iter().zip(before) {
        // An initiation waits for a second before it counts as nobody's.
        within(
            Duration::from_secs(5),
            "what was dropped is counted",
            || dropped(peer) - before + overflown(peer) >= sent.in_all / 2 * 95 / 100,
        );
    }
    assert_eq!(both.map(pid), pids);
    assert_eq!(both[0].state_of("bo"), "up");
    assert_sealed(both);
}

/// In megabytes a second; what comes is what was sent.
fn speed_of_transfer(from: &Peer, address: &str) -> f64 {
    let source = script(from, "source.py", SOURCE);
    let bytes = sample(100_000_000, 500_000_000);
    let began = Instant::now();
    from.sh(&format!("python3 {source} {address} 5001 {bytes} 0"));
    f64::from(bytes) / 1e6 / began.elapsed().as_secs_f64()
}

fn pid(peer: &Peer) -> u32 {
    peer.agent.pid().unwrap()
}

/// How much an agent dropped, for whatever reason.
fn dropped(peer: &Peer) -> u64 {
    let status = peer.status();
    let drops = status["drops"].as_object().unwrap();
    drops.values().filter_map(Value::as_u64).sum()
}

/// How much the kernel dropped because an agent was too busy to read it.
fn overflown(peer: &Peer) -> u64 {
    let said = peer.sh("awk '/^Udp:/ && ++n == 2 { print $6 }' /proc/net/snmp");
    said.trim().parse().unwrap()
}

/// All of it asks for the work of a handshake, or for the question whether it may.
#[test]
fn a_flood_of_handshakes_costs_no_flow_its_packets_and_no_joiner_its_patience() {
    let (mut net, eve) = two_and_a_stranger();
    net.add_configured("carol", 13, IN_NO_LAN);
    let (anna, bo, carol) = (net.peer("anna"), net.peer("bo"), net.peer("carol"));
    anna.ok(&["init", "home"]);
    // Used, and so the most that a stranger can hold: it tells anna's key, and what it seals is opened.
    let used = anna.invite();
    bo.ok(&["join", &used]);
    let token = anna.invite();
    let target = &anna.mesh_addresses()[0];
    bo.sh(&format!("ping -c 1 -W 3 {target}"));

    let environment = [("TOKEN", used.as_str())];
    let inside = "pressure::inside_the_handshakes";
    let ((joined, pings), sent) = beside_a_flood(&eve, inside, &environment, || {
        within(Duration::from_secs(20), "the flood comes", || {
            COUNTED.iter().all(|reason| counted(anna, reason) > 0)
        });
        thread::scope(|scope| {
            let pings = scope.spawn(|| bo.run(&format!("ping -q -i 0.005 -w 8 {target}")));
            let asked = Instant::now();
            carol.ok(&["join", &token]);
            (asked.elapsed(), text(&pings.join().unwrap().stdout))
        })
    });
    eprintln!("joined in {joined:?} beside {sent:?}; {pings}");
    assert!(
        sent.a_second >= u64::from(handshakes_a_second()) * 9 / 10,
        "{sent:?}"
    );
    assert!(joined < Duration::from_secs(5), "{joined:?}");
    assert_almost_all_came_back(&pings);
    assert_eq!(anna.state_of("bo"), "up");
    assert_eq!(anna.state_of("carol"), "up");
}

/// What each part of the flood of handshakes comes to.
const COUNTED: [&str; 6] = [
    "in_unexpected_initiation",
    "in_handshake_rate",
    "in_tag",
    "join_replayed",
    "join_flooding",
    "sealed_not_for_us",
];

fn counted(peer: &Peer, reason: &str) -> u64 {
    peer.status()["drops"][reason].as_u64().unwrap_or(0)
}

fn handshakes_a_second() -> u32 {
    sample(2_000, 20_000)
}

/// 99 of a hundred, by what `ping` says at its end.
fn assert_almost_all_came_back(said: &str) {
    let line = said
        .lines()
        .find(|line| line.contains("packets transmitted"));
    let numbers: Vec<u64> = line
        .unwrap_or_default()
        .split([' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect();
    let [sent, came, ..] = numbers[..] else {
        panic!("{said}")
    };
    assert!(sent >= 300 && came * 100 >= sent * 99, "{said}");
}

/// What a stranger sent.
#[derive(Debug)]
struct Sent {
    in_all: u64,
    a_second: u64,
}

/// Goes on with a story while a stranger floods; tells what came of it, and what was sent meanwhile.
fn beside_a_flood<T>(
    stranger: &Machine,
    inside: &str,
    environment: &[(&str, &str)],
    story: impl FnOnce() -> T,
) -> (T, Sent) {
    let end = stranger.directory.join("end");
    let environment = [environment, &[("END", end.to_str().unwrap())]].concat();
    thread::scope(|scope| {
        let flood = scope.spawn(|| run_inside(stranger, inside, &environment));
        // Also when the story fails: the scope waits for the flood.
        let end = End(&end);
        let came = story();
        assert!(!flood.is_finished(), "the flood was too short to tell");
        drop(end);
        let said = flood.join().unwrap();
        let (_, counts) = said.split_once("sent: ").unwrap();
        let mut counts = counts.split_whitespace().map(|word| word.parse().unwrap());
        let mut count = || counts.next().unwrap();
        let (in_all, a_second) = (count(), count());
        (came, Sent { in_all, a_second })
    })
}

/// The file whose existence ends a flood.
struct End<'a>(&'a Path);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let _ = fs::write(self.0, "");
    }
}

/// A datagram, in whose name it goes, and to whom.
struct Thrown {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[test]
#[ignore = "runs inside the machine of a test above"]
fn inside_the_garbage() {
    let mut random = ChaCha8Rng::seed_from_u64(41_820);
    let thrown = |number: usize| {
        // Half of it goes in the other's name, amid what the other really says.
        let (from, to) = [(EVE, ANNA), (EVE, BO), (BO, ANNA), (ANNA, BO)][number % 4];
        let bytes = garbage(&mut random, from == EVE);
        let [from, to] = [from, to].map(|text| text.parse().unwrap());
        Thrown { from, to, bytes }
    };
    let garbage: Vec<Thrown> = (0..GARBAGE).map(thrown).collect();
    println!("{}", flood(GARBAGE_RATE, &garbage));
}

/// Random bytes of any length; two of three begin as one of our datagrams does.
fn garbage(random: &mut ChaCha8Rng, may_be_oversize: bool) -> Vec<u8> {
    let mut below = |limit: u32| random.next_u32() % limit;
    let head = usize::try_from(below(21)).unwrap();
    let inner = usize::try_from(below(14)).unwrap();
    let (head, right) = KINDS.get(head).copied().unwrap_or((&[], 0));
    let len = match below(100) {
        0 if may_be_oversize => OVERSIZE,
        1 if may_be_oversize => below(OVERSIZE),
        2..=50 => below(IN_ONE_PACKET + 1),
        _ => right,
    };
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    random.fill_bytes(&mut bytes);
    let set = |from: usize, head: &[u8], bytes: &mut Vec<u8>| {
        let at = bytes.iter_mut().skip(from);
        at.zip(head).for_each(|(at, byte)| *at = *byte);
    };
    set(0, head, &mut bytes);
    if head.first() == Some(&0x20) {
        // What a relay carries begins as one of ours too.
        set(8, KINDS[inner].0, &mut bytes);
    }
    bytes
}

/// How each kind of our datagrams begins (protocol §1), and a length that it may have.
const KINDS: [(&[u8], u32); 14] = [
    (&[1, 0, 0, 0], 148),
    (&[2, 0, 0, 0], 92),
    (&[3, 0, 0, 0], 64),
    (&[4, 0, 0, 0], 96),
    (&[0x10, 0, 0, 0], 1452),
    (&[0x20, 0, 0, 0], 156),
    (&[0x21, 0, 0, 0], 40),
    (&[0x22, 0, 0, 0], 40),
    (&[0x23, 0, 0, 0], 40),
    (&[0x30, 1, 1, 0], 308),
    (&[0x30, 1, 2, 0], 160),
    (&[0x30, 1, 3, 0], 1200),
    (&[0x30, 1, 5, 0], 160),
    (b"d1:t", 100),
];

#[test]
#[ignore = "runs inside the machine of a test above"]
fn inside_the_handshakes() {
    let token: Token = std::env::var("TOKEN").unwrap().parse().unwrap();
    let [eve, bo, anna] = [EVE, BO, ANNA].map(|text| text.parse().unwrap());
    let nobodies: Vec<Identity> = (0..64).map(|_| nobody()).collect();
    let mut thrown = Vec::new();
    for (number, nobody) in (0..JOINS).zip(nobodies.iter().cycle()) {
        // From where nobody is, each from elsewhere: none waits behind another.
        let [joiner, knocker] = [0xc612_0000, 0xc613_0000]
            .map(|net| SocketAddr::from((Ipv4Addr::from_bits(net + number), 41_820)));
        let stamp = clock::now().unix_ms + u64::from(number);
        let join = sealed_join(&token.secret, nobody, (token.issuer, stamp));
        let mut knock = draw::<308>().to_vec();
        knock[..12].copy_from_slice(&[0x30, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let sound = initiation(&token, nobody);
        let parts = [
            (joiner, join),
            (joiner, sound.clone()),
            (knocker, knock),
            (knocker, sound.clone()),
            (eve, sound.clone()),
            (bo, sound),
        ];
        let to = anna;
        thrown.extend(parts.map(|(from, bytes)| Thrown { from, to, bytes }));
    }
    println!("{}", flood(handshakes_a_second(), &thrown));
}

fn nobody() -> Identity {
    Identity {
        key: NodeKey::from_seed(draw()),
        tunnel: TunnelKey::from_seed(draw()),
        boot: Boot(draw()),
    }
}

/// A sound WireGuard initiation to the issuer's real key.
fn initiation(token: &Token, from: &Identity) -> Vec<u8> {
    let keys = Keys {
        local_secret: &from.tunnel.x25519_secret(),
        remote_public: &x25519_dalek::PublicKey::from(token.issuer),
        psk: token.secret.psk(),
    };
    let mut session = Session::new(clock::now(), &keys, 9).unwrap();
    let mut bytes = vec![0; 2 * INITIATION];
    let len = session.initiate(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// Sends these again and again, so many a second, until the test has seen enough; says how many. What a busy machine made late
/// is made up for.
fn flood(rate: u32, datagrams: &[Thrown]) -> String {
    let end = std::env::var("END").unwrap();
    let own = UdpSocket::bind("0.0.0.0:41820").unwrap();
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    let mut next = datagrams.iter().cycle();
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < FLOOD_LIMIT && !Path::new(&end).exists() {
        let due = began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while sent < due {
            next.next().unwrap().throw(&own, &raw);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let a_second = sent * 1_000_000 / began.elapsed().as_micros();
    format!("sent: {sent} {a_second}")
}

impl Thrown {
    /// What a kernel has no room for is not sent.
    fn throw(&self, own: &UdpSocket, raw: &Socket) {
        if self.from == EVE.parse().unwrap() {
            let _ = own.send_to(&self.bytes, self.to);
            return;
        }
        let mut packet = Vec::new();
        let ports = Ports {
            source: self.from.port(),
            destination: self.to.port(),
        };
        assert!(udp::build(
            &mut packet,
            (self.from.ip(), self.to.ip()),
            ports,
            &self.bytes
        ));
        let _ = raw.send_to(&packet, &self.to.into());
    }
}
