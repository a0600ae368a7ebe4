//! Issue 3, point 4: no program of a host can say anything to a peer's control plane, whatever it writes.

use std::time::Duration;

use serde_json::Value;
use webmesh::{platform::clock, time::Moment};

use crate::harness::{Net, Peer, within};

/// Counters of what a peer's control plane was told and could not use: what a forged frame would show up in.
const TOLD: [&str; 6] = [
    "control_unknown_kind",
    "control_malformed",
    "message_before_hello",
    "message_without_session",
    "message_unused",
    "pong_unknown",
];

#[test]
fn what_root_writes_into_the_device_never_becomes_a_control_frame() {
    let net = Net::three();
    let began = clock::moment();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    reach_everybody(&net, began);
    let before: Vec<Value> = net.names().iter().map(|n| net.peer(n).status()).collect();
    let told = clock::moment();
    let injected: Value = serde_json::from_str(&inject(&net, "python3", "root")).unwrap();
    reach_everybody(&net, began);

    let count = |reason: &str| injected[reason].as_u64().unwrap();
    assert!(count("out_forged_control") > 1500, "{injected}");
    let reasons = [
        "out_forged_control",
        "out_foreign_source",
        "out_unknown_peer",
    ];
    let (written, lost) = (reasons.map(count).iter().sum::<u64>(), count("lost"));
    // Pings overtake the rest in the kernel's queue of the device.
    let mut grown = [0; 3];
    within(Duration::from_secs(10), "all of it is counted", || {
        let now = anna.status();
        grown = reasons.map(|reason| self::grown(&before[0], &now, reason));
        grown.iter().sum::<u64>() + lost >= written
    });
    let dropped: u64 = grown.iter().sum();
    // The device's own queue may overflow on a busy machine; and the kernel writes a little from fe80:: addresses.
    let expected = written - lost..=written + 30;
    let story = format!("{grown:?} of {injected}");
    assert!(
        lost < written / 10 && expected.contains(&dropped),
        "{story}"
    );
    let forged = count(reasons[0]);
    assert!((forged - lost..=forged).contains(&grown[0]), "{story}");
    for (peer, then) in [bo, net.peer("carol")].into_iter().zip(&before[1..]) {
        assert_nothing_was_told(peer, (told, then));
    }
}

#[test]
fn what_an_ordinary_user_sends_never_becomes_a_control_frame() {
    let net = Net::three();
    let began = clock::moment();
    net.form();
    reach_everybody(&net, began);
    let before: Vec<Value> = net.names().iter().map(|n| net.peer(n).status()).collect();
    let told = clock::moment();
    // Not root's own python: it may lie in root's home.
    let said: Value = serde_json::from_str(&inject(&net, &as_nobody(), "nobody")).unwrap();
    reach_everybody(&net, began);

    assert!(said["sent"].as_u64().unwrap() > 700, "{said}");
    let refused = ["packet", "raw", "raw6", "tun"].map(|what| said[what].as_str().unwrap());
    assert_eq!(refused, ["refused"; 4], "{said}");
    let anna = net.peer("anna").status();
    assert_eq!(grown(&before[0], &anna, "out_forged_control"), 0);
    for (name, then) in ["bo", "carol"].into_iter().zip(&before[1..]) {
        assert_nothing_was_told(net.peer(name), (told, then));
    }
}

/// Sessions stand between all, so that a forged frame would have one to travel in.
fn reach_everybody(net: &Net, began: Moment) {
    let anna = net.peer("anna");
    for name in ["bo", "carol"] {
        for address in net.peer(name).mesh_addresses() {
            anna.sh(&format!("ping -c 1 -W 3 {address}"));
        }
    }
    for name in net.names() {
        net.peer(&name).await_settled(began);
    }
}

/// Runs the injector on anna's machine, aimed at bo; gives what it says.
fn inject(net: &Net, python: &str, who: &str) -> String {
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let [own4, own6] = anna.mesh_addresses();
    let [bo4, bo6] = bo.mesh_addresses();
    anna.sh(&format!(
        "{python} -c \"{INJECTOR}\" {who} {own4} {own6} {bo4} {bo6}"
    ))
}

/// Python without any right that an ordinary user lacks.
fn as_nobody() -> String {
    let drop = if nix::unistd::geteuid().is_root() {
        "--reuid 65534 --regid 65534 --clear-groups"
    } else {
        // The only user of a namespace is its root: without a capability it may as little as nobody.
        "--inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs"
    };
    format!("setpriv {drop} /usr/bin/python3")
}

fn grown(then: &Value, now: &Value, reason: &str) -> u64 {
    let at = |status: &Value| status["drops"][reason].as_u64().unwrap_or(0);
    at(now) - at(then)
}

fn assert_nothing_was_told(peer: &Peer, (told, then): (Moment, &Value)) {
    let asked = clock::moment();
    let now = peer.status();
    for reason in TOLD {
        assert_eq!(grown(then, &now, reason), 0, "{reason} at {}", peer.name());
    }
    // Bye was among what was written: the session with anna is the one that stood before.
    let peers = now["peers"].as_array().unwrap();
    let anna = peers.iter().find(|peer| peer["name"] == "anna").unwrap();
    assert_eq!(anna["state"], "up", "{now}");
    let passed = asked.since(told).as_secs_f64();
    let age = anna["last_handshake_s"].as_f64().unwrap();
    assert!(age >= passed, "a new handshake: {age} s ago, of {passed} s");
}

/// `root|nobody OWN4 OWN6 PEER4 PEER6`: writes what imitates control frames, in every way that the kernel lets this
/// user, and prints what it wrote.
const INJECTOR: &str = r"
import fcntl, json, struct, sys, time
from socket import *
who, own4, own6, peer4, peer6 = sys.argv[1:]
own4, peer4 = inet_aton(own4), inet_aton(peer4)
own6, peer6 = inet_pton(AF_INET6, own6), inet_pton(AF_INET6, peer6)

def frame(kind, body=b'\xa0', fragment=1):
    return struct.pack('<BBBBHHI', 0, 1, kind, fragment, len(body), 0, 7) + body

def ip4(inner, src=bytes(4), dst=bytes(4), ttl=0, proto=0xfd, length=None, first=0x45, ident=0):
    length = 20 + len(inner) if length is None else length
    return struct.pack('>BBHHHBBH', first, 0, length, ident, 0, ttl, proto, 0) + src + dst + inner

def ip6(inner, src, dst, proto=59, hops=64):
    return struct.pack('>IHBB', 6 << 28, len(inner), proto, hops) + src + dst + inner

frames = [frame(kind) for kind in range(256)]
frames += [frame(kind, b'') for kind in range(256)]
frames += [frame(4, bytes([0xa1, 1, reason])) for reason in range(4)]
frames += [frame(kind, b'\xff' * 30, 0x12) for kind in range(0x60, 0x64)]

if who == 'root':
    forged = [ip4(f) for f in frames] + frames + [ip4(f, ttl=64) for f in frames]
    forged += [ip4(f, first=0x46) for f in frames] + [ip4(f, length=n) for f in frames[:8] for n in (0, 19, 20, 2000)]
    forged += [ip4(f)[:20] for f in frames[:1]] + [bytes(n) for n in (1, 20, 40, 1400)]
    nobody6 = own6[:6] + bytes(10)
    foreign = [ip4(f, dst=peer4) for f in frames] + [ip4(f, src=peer4, dst=peer4, ttl=64) for f in frames]
    foreign += [ip6(ip4(f), bytes(16), peer6) for f in frames] + [ip6(f, peer6, peer6) for f in frames]
    foreign += [ip4(frames[1], src=inet_aton(s), dst=peer4) for s in ('10.0.0.1', '127.0.0.1', '255.255.255.255')]
    unknown = [ip6(ip4(f), own6, own6[:6] + bytes(9) + bytes([1]), 4) for f in frames]
    # From an own address to a peer these are packets like any other, whatever stands in them.
    packets = [ip6(ip4(f), own6, peer6, 4) for f in frames] + [ip6(f, own6, peer6, 0xfd) for f in frames]
    packets += [ip4(f, own4, peer4, ttl) for f in frames for ttl in (0, 64)]
    def lost():
        with open('/proc/net/dev') as f:
            return next(int(l.split(':')[1].split()[11]) for l in f if l.strip().startswith('wm0:'))
    s, before = socket(AF_PACKET, SOCK_DGRAM, 0), lost()
    for n, p in enumerate(forged + foreign + unknown + packets):
        s.sendto(p, ('wm0', 0x86dd if p[0] >> 4 == 6 else 0x0800))
        if n % 20 == 0:
            # The device's queue has 500 places.
            time.sleep(0.003)
    print(json.dumps({'out_forged_control': len(forged), 'out_foreign_source': len(foreign), 'out_unknown_peer': len(unknown), 'lost': lost() - before}))
    sys.exit()

def tried(what):
    try:
        what()
    except PermissionError:
        return 'refused'
    except OSError as e:
        return 'refused' if e.errno in (16, 22) else str(e)
    return 'let'

def tun():
    with open('/dev/net/tun', 'r+b', buffering=0) as f:
        fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22s', b'wm0', 0x1001, b''))
        f.write(ip4(frames[1]))

said = {
    'packet': tried(lambda: socket(AF_PACKET, SOCK_DGRAM, 0)),
    'raw': tried(lambda: socket(AF_INET, SOCK_RAW, 0xfd)),
    'raw6': tried(lambda: socket(AF_INET6, SOCK_RAW, 0xfd)),
    'tun': tried(tun),
}
sent = 0
for family, kind, proto, peer in ((AF_INET, SOCK_DGRAM, 0, peer4), (AF_INET6, SOCK_DGRAM, 0, peer6), (AF_INET, SOCK_DGRAM, IPPROTO_ICMP, peer4)):
    try:
        s = socket(family, kind, proto)
    except PermissionError:
        continue
    to = inet_ntop(family, peer)
    for f in frames:
        for inner in (f, ip4(f)):
            try:
                s.sendto(b'\x08\0\0\0\0\0\0\0' + inner if proto else inner, (to, 9))
            except ConnectionRefusedError:
                s.sendto(inner, (to, 9))
            except PermissionError:
                continue
            sent += 1
said['sent'] = sent
print(json.dumps(said))
";
