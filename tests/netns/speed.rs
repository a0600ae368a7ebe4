//! What goes through at full speed is what was sent, whichever work on many packets at once is left to the kernel.

use std::time::Duration;

use serde_json::Value;

use crate::{
    harness::{Net, Peer, sample, within},
    relaying::{apart, path_to},
    transports::assert_sealed,
};

/// Which work is left to the kernel at each end: `tun_offload`, `udp_gso`, `udp_gro`.
type Row = [[&'static str; 3]; 2];

pub(crate) const ALL: [&str; 3] = ["auto", "auto", "auto"];
pub(crate) const NONE: [&str; 3] = ["off", "off", "off"];

/// Takes one TCP connection at each of two ports, and says the digest of what came.
pub(crate) const SINK: &str = r#"
import hashlib, socket, sys, threading
def take(family, address, port):
    listener = socket.create_server((address, port), family=family)
    while True:
        peer, _ = listener.accept()
        digest = hashlib.sha256()
        while (part := peer.recv(1 << 20)):
            digest.update(part)
        peer.sendall(digest.hexdigest().encode())
        peer.close()
threading.Thread(target=take, args=(socket.AF_INET, sys.argv[1], 5001)).start()
take(socket.AF_INET6, sys.argv[2], 5001)
"#;

/// Sends to a port so many bytes in segments of at most so many, and compares digests.
pub(crate) const SOURCE: &str = r#"
import hashlib, os, socket, sys
address, port, total, segment = sys.argv[1], *map(int, sys.argv[2:])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
peer = socket.socket(family, socket.SOCK_STREAM)
if segment:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
peer.settimeout(50)
peer.connect((address, port))
digest, block, left = hashlib.sha256(), os.urandom(1 << 20), total
while left:
    part = block[:left]
    peer.sendall(part)
    digest.update(part)
    left -= len(part)
    block = block[1:] + block[:1]
peer.shutdown(socket.SHUT_WR)
answer = peer.recv(64, socket.MSG_WAITALL).decode()
sys.exit(0 if answer == digest.hexdigest() else "another digest")
"#;

/// Answers each datagram with its length and digest.
const ECHO: &str = r#"
import hashlib, socket, sys, threading
def answer(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind((address, 5002))
    while True:
        body, peer = s.recvfrom(65536)
        s.sendto(b"%d " % len(body) + hashlib.sha256(body).digest(), peer)
threading.Thread(target=answer, args=(socket.AF_INET, sys.argv[1])).start()
answer(socket.AF_INET6, sys.argv[2])
"#;

/// Sends datagrams of many sizes one by one, and trains of equal ones in one call.
const ASK: &str = r#"
import hashlib, os, socket, sys
address, step = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
most = 65487 if ":" in address else 65507
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
s.connect((address, 5002))
s.settimeout(5)
def said(body):
    return b"%d " % len(body) + hashlib.sha256(body).digest()
edges = [0, 1, 2, 1371, 1372, 1373, 1391, 1392, 1393, 1480, 2784, 9000, most - 1, most]
for size in sorted({*edges, *range(0, most, step)}):
    body = os.urandom(size)
    s.send(body)
    assert s.recv(64) == said(body), size
for size, count, last in [(1, 40, 1), (512, 45, 512), (1372, 45, 1372), (1371, 30, 5), (1000, 7, 999)]:
    parts = [os.urandom(size) for _ in range(count - 1)] + [os.urandom(last)]
    s.setsockopt(17, 103, size)
    s.send(b"".join(parts))
    s.setsockopt(17, 103, 0)
    for part in parts:
        assert s.recv(64) == said(part), (size, count, last)
"#;

fn config(offloads: [&str; 3]) -> String {
    let [tun, gso, gro] = offloads;
    format!("[datapath]\ntun_offload = \"{tun}\"\nudp_gso = \"{gso}\"\nudp_gro = \"{gro}\"\n")
}

/// Two machines in a network, set up like this.
fn two(row: Row) -> Net {
    let mut net = Net::empty();
    net.add_configured("anna", 11, &config(row[0]));
    net.add_configured("bo", 12, &config(row[1]));
    net.form();
    for (name, offloads) in ["anna", "bo"].into_iter().zip(row) {
        let status = net.peer(name).status();
        for (key, wished) in ["tun_offload", "udp_gso", "udp_gro"]
            .into_iter()
            .zip(offloads)
        {
            let wanted = if wished == "off" { "off" } else { "on" };
            assert_eq!(status["offloads"][key], wanted, "{name}: {status}");
            let mut health = status["health"].as_array().unwrap().iter();
            let is_said = health.any(|line| {
                line["code"] == "offload_off" && line["message"].as_str().unwrap().contains(key)
            });
            assert_eq!(is_said, wanted == "off");
        }
    }
    net
}

/// Packets that a host found damaged, by its own count.
fn damaged(peer: &Peer) -> Vec<u64> {
    let script = "
import re
lines = open('/proc/net/snmp').read().split('\\n') + ['']
for names, values in zip(lines[::2], lines[1::2]):
    for name, value in zip(names.split(), values.split()):
        if name == 'InCsumErrors': print(value)
print(re.search(r'Udp6InCsumErrors\\s+(\\d+)', open('/proc/net/snmp6').read())[1])
";
    let said = peer.sh(&format!("python3 -c \"{script}\""));
    said.lines().map(|line| line.parse().unwrap()).collect()
}

pub(crate) fn script(peer: &Peer, name: &str, text: &str) -> String {
    let file = peer.file(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// A machine, and its addresses inside.
pub(crate) type End<'a> = (&'a Peer, [String; 2]);

fn ends(net: &Net) -> [End<'_>; 2] {
    [net.peer("anna"), net.peer("bo")].map(|peer| (peer, peer.mesh_addresses()))
}

/// So many megabytes each way and in both families, in segments of whatever and of odd lengths.
pub(crate) fn transfer(net: &Net, megabytes: u32) {
    transfer_between(&ends(net), megabytes);
}

/// The same between these two.
pub(crate) fn transfer_between([one, other]: &[End<'_>; 2], megabytes: u32) {
    for ((from, _), (to, addresses)) in [(one, other), (other, one)] {
        let sink = script(to, "sink.py", SINK);
        let _sink = to.beside(&format!("python3 {sink} {} {}", addresses[0], addresses[1]));
        to.await_port(5001);
        let source = script(from, "source.py", SOURCE);
        for (address, segment) in addresses.iter().zip([0, 1001]) {
            let total = megabytes * 1_000_000 + 7;
            from.sh(&format!(
                "python3 {source} {address} 5001 {total} {segment}"
            ));
        }
        assert_undamaged(to);
    }
}

fn assert_undamaged(peer: &Peer) {
    let found = damaged(peer);
    assert!(found.iter().all(|count| *count == 0), "{found:?}");
}

/// What is lost for want of room, or because it was not understood.
pub(crate) const LOST: [&str; 6] = [
    "tun_failed",
    "no_buffer",
    "in_tag",
    "in_not_ip",
    "out_not_ip",
    "out_too_long",
];

fn assert_nothing_dropped(net: &Net) {
    for end in ["anna", "bo"] {
        let drops = net.peer(end).status()["drops"].clone();
        assert!(
            LOST.iter().all(|reason| drops[*reason] == Value::Null),
            "{drops}"
        );
    }
}

/// Bytes of a packet that the kernel sent by a device (`tx`), or took from it (`rx`), in the mean.
fn mean(peer: &Peer, device: &str, way: &str) -> u64 {
    let counted = counted(peer, device, way);
    counted["bytes"].as_u64().unwrap() / counted["packets"].as_u64().unwrap()
}

/// What the kernel counted of a device, one way.
pub(crate) fn counted(peer: &Peer, device: &str, way: &str) -> Value {
    let said = peer.sh(&format!("ip -j -s link show {device}"));
    let said: Value = serde_json::from_str(&said).unwrap();
    said[0]["stats64"][way].clone()
}

/// The kernel took and gave many packets as one where it was to, and nowhere else.
pub(crate) fn assert_in_use(peer: &Peer, [tun, gso, _]: [&str; 3]) {
    let means =
        [("wm0", "tx"), ("wm0", "rx"), ("eth0", "tx")].map(|(device, way)| mean(peer, device, way));
    let wanted = [tun, tun, gso].map(|wish| wish != "off");
    assert_eq!(
        means.map(|bytes| bytes > 2 * 1500),
        wanted,
        "{}: {means:?} bytes",
        peer.name()
    );
}

/// 200 MB in all for each row, 2 GB under `--full`.
fn goes_through(row: Row) {
    let net = two(row);
    transfer(&net, sample(50, 500));
    assert_nothing_dropped(&net);
    assert_in_use(net.peer("anna"), row[0]);
    assert_in_use(net.peer("bo"), row[1]);
    assert_sealed([net.peer("anna"), net.peer("bo")]);
}

#[test]
fn what_goes_through_is_what_was_sent_with_everything_left_to_the_kernel() {
    goes_through([ALL, ALL]);
}

#[test]
fn what_goes_through_is_what_was_sent_with_nothing_left_to_the_kernel() {
    goes_through([NONE, NONE]);
}

#[test]
fn what_goes_through_is_what_was_sent_with_short_packets_from_the_host() {
    let row = ["off", "on", "on"];
    goes_through([row, row]);
}

#[test]
fn what_goes_through_is_what_was_sent_with_single_datagrams_to_the_network() {
    let row = ["on", "off", "on"];
    goes_through([row, row]);
}

#[test]
fn what_goes_through_is_what_was_sent_with_single_datagrams_from_the_network() {
    let row = ["on", "on", "off"];
    goes_through([row, row]);
}

/// The one without offloads hands every segment to its host as it came, which checks all checksums.
#[test]
fn what_is_cut_here_is_sound_for_a_host_that_checks_every_packet() {
    goes_through([ALL, NONE]);
}

/// With all on at both ends, each two of the six settings in all four ways.
const PAIRS: [Row; 5] = [
    [["auto", "auto", "auto"], ["auto", "off", "off"]],
    [["auto", "off", "off"], ["off", "auto", "auto"]],
    [["off", "auto", "off"], ["off", "auto", "off"]],
    [["off", "off", "auto"], ["off", "off", "auto"]],
    [["off", "off", "off"], ["auto", "off", "off"]],
];

#[test]
fn what_goes_through_is_what_was_sent_whatever_the_other_end_leaves_to_its_kernel() {
    PAIRS.iter().for_each(|row| goes_through(*row));
}

#[test]
fn a_service_is_rewritten_in_long_packets_for_others_and_for_its_own_host() {
    let net = two([ALL, ALL]);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let bytes = sample(20, 200) * 1_000_000;
    anna.sh(&format!(
        "mkdir www && head -c {bytes} /dev/urandom > www/film"
    ));
    let _server = anna.beside("python3 -m http.server -b 127.0.0.1 -d www 8080");
    let sink = script(anna, "sink.py", SINK);
    let _sink = anna.beside(&format!("python3 {sink} 127.0.0.1 ::1"));
    for (name, port, target) in [("film", "80", 8080), ("sink", "81", 5001)] {
        anna.await_port(target);
        let target = format!("127.0.0.1:{target}");
        anna.ok(&["service", "add", name, "--port", port, "--target", &target]);
        bo.ok(&["wait", "--service", name, "--timeout", "10s"]);
    }
    let sum = anna.sh("sha256sum < www/film");
    for peer in [bo, anna] {
        let source = script(peer, "source.py", SOURCE);
        for (family, record) in [("-4", "A"), ("-6", "AAAA")] {
            let film = "http://film.svc.home.internal/film";
            assert_eq!(
                peer.sh(&format!("curl -sf {family} -m 30 {film} | sha256sum")),
                sum
            );
            let address = peer.sh(&format!("dig +short sink.svc.home.internal {record}"));
            peer.sh(&format!("python3 {source} {} 81 {bytes} 0", address.trim()));
        }
    }
    assert_nothing_dropped(&net);
    assert_in_use(anna, ALL);
    assert_in_use(bo, ALL);
}

#[test]
fn what_goes_through_a_relay_is_what_was_sent() {
    let net = apart(&[]);
    net.form();
    within(Duration::from_secs(10), "the relay carries", || {
        let target = &net.peer("bo").mesh_addresses()[0];
        let ping = format!("ping -c 1 -W 1 {target}");
        net.peer("anna").run(&ping).status.success()
    });
    transfer(&net, sample(5, 50));
    assert_eq!(path_to(net.peer("anna"), "bo")["kind"], "relay");
    assert_sealed([net.peer("anna"), net.peer("bo")]);
}

/// As in an office that lets no UDP out.
#[test]
fn what_goes_through_tls_is_what_was_sent() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.peer("bo").sh(
        "nft 'add table inet office; add chain inet office out { type filter hook output priority 0; }; \
         add rule inet office out udp dport 41820 drop'",
    );
    net.form();
    transfer(&net, sample(5, 50));
    assert_eq!(path_to(net.peer("bo"), "anna")["kind"], "stream");
    assert_sealed([net.peer("anna"), net.peer("bo")]);
}

/// The firewall stands in for the kernel: it changes one byte of what is longer than a packet.
#[test]
fn a_kernel_that_changes_what_goes_through_is_found_at_the_start_and_a_closed_loopback_is_no_such_thing()
 {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.form();
    let anna = net.peer_mut("anna");
    for (rule, wanted) in [
        ("meta length > 2000 @th,128,8 set 0xff", "off"),
        ("drop", "on"),
    ] {
        anna.agent.stop().unwrap();
        anna.sh(&format!(
            "nft 'flush ruleset; add table inet odd; add chain inet odd out {{ type filter hook output priority 0; }}; \
             add rule inet odd out oif lo meta l4proto udp {rule}'"
        ));
        anna.agent.start().unwrap();
        within(Duration::from_secs(10), rule, || {
            let status = anna.status();
            ["udp_gso", "udp_gro"]
                .iter()
                .all(|key| status["offloads"][key] == wanted)
        });
        let status = anna.status();
        assert_eq!(status["offloads"]["tun_offload"], "on");
        let health = status["health"].to_string();
        assert_eq!(
            health.contains("this kernel changes what goes through it"),
            wanted == "off",
            "{health}"
        );
    }
}

#[test]
fn datagrams_of_all_sizes_arrive_one_by_one_and_in_trains() {
    for row in [[ALL, ALL], [ALL, NONE]] {
        let net = two(row);
        ask_between(&ends(&net), sample(997, 1));
    }
}

/// Datagrams each way and in both families, whose sizes are so far apart.
pub(crate) fn ask_between([one, other]: &[End<'_>; 2], step: u32) {
    for ((from, _), (to, addresses)) in [(one, other), (other, one)] {
        let echo = script(to, "echo.py", ECHO);
        let _echo = to.beside(&format!("python3 {echo} {} {}", addresses[0], addresses[1]));
        to.await_udp_port(5002);
        let ask = script(from, "ask.py", ASK);
        for address in addresses {
            from.sh(&format!("python3 {ask} {address} {step}"));
        }
        assert_undamaged(to);
    }
}
