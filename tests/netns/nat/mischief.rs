//! Issue 5, point 6: who holds packets back, and who looks at the TLS port.

use std::{fs, time::Duration};

use webmesh::demo::{capture::Capture, lab::Machine};

use super::{
    flow::Flow,
    internet::{Internet, v4},
    kind::Kind,
    pair::Pair,
};
use crate::harness::{sample, text};

#[test]
fn packets_held_back_and_sent_again_from_elsewhere_draw_no_data_there() {
    let pair = Pair::of(Kind::Public, Kind::Public);
    let thief = pair.internet.place(Kind::Public, "thief", 140);
    // A train of Pongs is as long as one packet of the stream.
    pair.internet.part_trains();
    // What is held back is IPv4, as is the thief's socket; by IPv6 the two would only go round it.
    pair.internet
        .sh("bo", "ip -6 addr flush dev eth0 scope global");
    let flow = Flow::start(pair.bo(), pair.anna());
    let _talk = pair.talk();
    for held in [0, sample(3, 120)] {
        pair.await_way("direct", Duration::from_secs(40));
        // What anna sends now reaches the thief alone.
        let mark = flow.mark();
        let capture = Capture::start(pair.internet.net.lab(), "anna").unwrap();
        pair.internet.cut_one_way("anna", "bo");
        let silence = flow.longest_silence_since(mark);
        assert!(silence <= Duration::from_secs(3), "{silence:?}");
        let stolen: Vec<String> = capture
            .frames()
            .unwrap()
            .iter()
            .filter_map(|frame| payload_to_bo(frame))
            .collect();
        assert!(
            stolen.len() >= 3,
            "{} datagrams were held back",
            stolen.len()
        );
        fs::write(thief.directory.join("stolen"), stolen.join("\n")).unwrap();

        let capture = Capture::start(pair.internet.net.lab(), "thief").unwrap();
        std::thread::sleep(Duration::from_secs(held.into()));
        let mark = flow.mark();
        run(&thief, &format!("python3 -c \"{SEND_STOLEN}\""));
        let silence = flow.longest_silence_since(mark);
        assert!(silence <= Duration::from_secs(1), "{silence:?}");
        let drawn: Vec<usize> = capture
            .frames()
            .unwrap()
            .iter()
            .filter(|frame| frame.get(26..30) == Some(&v4(super::pair::BO).octets()))
            .map(Vec::len)
            .collect();
        // A Ping that was among them may be answered, and answered with a challenge; the stream's packets are longer.
        let sent = stolen.iter().map(|datagram| HEADERS + datagram.len() / 2);
        assert!(
            drawn.iter().sum::<usize>() <= sent.sum() && drawn.iter().all(|length| *length < 250),
            "held for {held} s: bo sent to the thief {drawn:?}"
        );
        pair.internet.mend("anna", "bo");
    }
}

#[test]
fn a_scanner_on_the_tls_port_learns_nothing() {
    let mut internet = Internet::new();
    internet.settle(Kind::Public, "vps", 10);
    let scanner = internet.place(Kind::Public, "scanner", 140);
    internet.peer("vps").ok(&["init", "home"]);
    let look = |internet: &Internet| {
        internet.peer("vps").await_port(41820);
        run(&scanner, &format!("python3 -c \"{SCAN}\""))
    };
    let first = look(&internet);
    internet.net.peer_mut("vps").agent.stop().unwrap();
    internet.net.peer_mut("vps").agent.start().unwrap();
    let second = look(&internet);
    for said in [&first, &second] {
        let [_, names, heard] = said.lines().collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        assert_eq!(
            names, "() ()",
            "subject and further names of the certificate"
        );
        assert_eq!(heard, "0 bytes", "{said}");
    }
    let key = |said: &str| said.lines().next().unwrap().to_owned();
    assert_ne!(key(&first), key(&second), "a certificate for each start");
}

/// What stands before a datagram in a frame: Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

/// The datagram of an IPv4 frame to bo, in hex.
fn payload_to_bo(frame: &[u8]) -> Option<String> {
    let is_udp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
    let is_to_bo = frame.get(30..34) == Some(&v4(super::pair::BO).octets());
    (is_udp && is_to_bo).then(|| {
        frame[HEADERS..]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}

fn run(machine: &Machine, line: &str) -> String {
    let output = machine
        .command("sh")
        .unwrap()
        .args(["-c", line])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    said
}

const SEND_STOLEN: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 41820))
for line in open('stolen'):
    s.sendto(bytes.fromhex(line), ('203.0.113.30', 41820))
";

/// Prints the certificate's public part, the names in it, and how much is heard before the other end hangs up.
const SCAN: &str = "
import hashlib, socket, ssl, sys, tempfile
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
s = context.wrap_socket(socket.create_connection(('203.0.113.10', 41820), 10))
der = s.getpeercert(True)
print(hashlib.sha256(der).hexdigest())
file = tempfile.NamedTemporaryFile('w', suffix='.pem')
file.write(ssl.DER_cert_to_PEM_cert(der))
file.flush()
known = ssl._ssl._test_decode_cert(file.name)
print(known.get('subject', ()), known.get('subjectAltName', ()))
s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
heard = 0
try:
    while more := s.recv(1000):
        heard += len(more)
except (ssl.SSLError, ConnectionError):
    pass
print(heard, 'bytes')
";
