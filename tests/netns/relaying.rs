//! Issue 5, relays: two machines whose packets to each other are dropped talk through a third one.

use std::time::Duration;

use serde_json::Value;

use webmesh::demo::capture::Capture;

use crate::{
    ground::Ground,
    harness::{Net, Peer, text, within},
    silence::datagrams,
    transports::{assert_sealed, ciphers},
};

/// Machines `anna` (11) and `bo` (12), whose packets to each other are dropped from the start, and `carol` (13), which
/// founds; all others of `more` are like carol.
pub(crate) fn apart(more: &[(&str, u8)]) -> Net {
    apart_on(Ground::Plain, more)
}

/// The same on another ground.
fn apart_on(ground: Ground, more: &[(&str, u8)]) -> Net {
    let mut net = Net::empty();
    net.add_public_on(ground, "carol", 13);
    for (name, number) in more {
        net.add_public_on(ground, name, *number);
    }
    net.add_public_on(ground, "anna", 11);
    net.add_public_on(ground, "bo", 12);
    cut(&net, "anna", 12);
    cut(&net, "bo", 11);
    net
}

/// Drops what this machine sends to that number.
fn cut(net: &Net, name: &str, number: u8) {
    net.peer(name).sh(&format!(
        "nft 'add table inet apart; add chain inet apart out {{ type filter hook output priority 0; }}; \
         add rule inet apart out ip daddr 203.0.113.{number} counter drop; \
         add rule inet apart out ip6 daddr 2001:db8::{number:x} counter drop'"
    ));
}

/// How `status` says that packets reach another machine: what the packets do is known there a moment later.
pub(crate) fn path_to(peer: &Peer, name: &str) -> Value {
    let mut path = Value::Null;
    within(Duration::from_secs(5), "status names a path", || {
        let status = peer.status();
        let peers = status["peers"].as_array().unwrap();
        let found = peers.iter().find(|peer| peer["name"] == name);
        path = found.map_or(Value::Null, |peer| peer["path"].clone());
        !path.is_null()
    });
    path
}

/// Waits until a ping comes back.
fn await_ping(from: &Peer, to: &Peer) -> Duration {
    let target = &to.mesh_addresses()[0];
    within(Duration::from_secs(10), "a ping comes back", || {
        let line = format!("ping -c 1 -W 1 {target}");
        from.run(&line).status.success()
    })
}

#[test]
fn two_that_are_cut_off_talk_through_a_third() {
    // By IPv6 the frame of a relay leaves no room for the device's longest packet.
    let net = apart_on(Ground::Only4, &[]);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    await_ping(anna, bo);
    let path = path_to(anna, "bo");
    assert_eq!(path["kind"], "relay", "{path}");
    assert_eq!(path["via"], "carol", "{path}");
    assert_eq!(path["endpoint"], Value::Null, "{path}");
    assert!(
        anna.ok(&["ping", "-c", "1", "bo"])
            .contains("relay via carol")
    );
    move_a_file(anna, bo);
    for target in bo.mesh_addresses() {
        anna.sh(&format!("ping -c 3 -i 0.2 -W 1 -s 1372 -M do {target}"));
    }
    for peer in [anna, bo] {
        let packets = peer.sh("nft -j list chain inet apart out");
        assert!(packets.contains("drop"), "{packets}");
    }
}

/// 10 MB over TCP, whole.
fn move_a_file(from: &Peer, to: &Peer) {
    from.sh("head -c 10000000 /dev/urandom > film");
    let _server = from.beside("python3 -m http.server 8000 --bind ::");
    from.await_port(8000);
    let target = &from.mesh_addresses()[0];
    to.sh(&format!(
        "curl -sSf -m 30 -o film http://{target}:8000/film"
    ));
    assert_eq!(from.sh("sha256sum < film"), to.sh("sha256sum < film"));
}

#[test]
fn a_relay_tells_what_it_carries_and_one_that_may_not_carries_nothing() {
    let mut net = Net::empty();
    net.add_configured("dora", 14, "[relay]\nudp = false\n");
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    cut(&net, "anna", 12);
    cut(&net, "bo", 11);
    net.form();
    let (anna, bo, dora) = (net.peer("anna"), net.peer("bo"), net.peer("dora"));
    let target = &bo.mesh_addresses()[0];
    let said = anna.run(&format!("ping -c 1 -W 4 {target}"));
    assert!(!said.status.success(), "nobody carries");
    assert_eq!(dora.status()["relay"], Value::Null);

    net.add_public("carol", 13);
    let carol = net.peer("carol");
    let token = net.peer("dora").invite();
    carol.ok(&["join", &token]);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    within(Duration::from_secs(15), "carol is found", || {
        anna.run(&format!("ping -c 1 -W 1 {target}"))
            .status
            .success()
    });
    move_a_file(anna, bo);
    within(Duration::from_secs(3), "carol says what it carried", || {
        let relay = &carol.status()["relay"];
        relay["ways"] == 1 && relay["bytes"].as_u64() > Some(10_000_000)
    });
    assert_eq!(path_to(bo, "anna")["via"], "carol");
}

/// Machines `anna` and `bo`, of which anna reaches `carol` alone, and bo reaches `dave` alone.
fn behind_two_relays(ground: Ground) -> Net {
    let mut net = Net::empty();
    for (name, number) in [("dave", 14), ("carol", 13), ("anna", 11), ("bo", 12)] {
        net.add_public_on(ground, name, number);
    }
    net.form();
    for name in ["anna", "bo"] {
        net.peer_mut(name).agent.stop().unwrap();
    }
    for (name, number) in [("anna", 12), ("anna", 14), ("bo", 11), ("bo", 13)] {
        cut(&net, name, number);
    }
    for (name, number) in [("carol", 12), ("dave", 11)] {
        cut(&net, name, number);
    }
    for name in ["anna", "bo"] {
        net.peer_mut(name).agent.start().unwrap();
    }
    net
}

/// A way is at one of the two: its end behind the other one knows of both, the other end of its own relay alone. Each
/// end may go by another way than the other.
fn await_both_relays(anna: &Peer, bo: &Peer) {
    let [from_anna, from_bo] = [["carol", "carol, dave"], ["dave", "dave, carol"]];
    within(Duration::from_secs(1), "status says the relays", || {
        from_anna
            .iter()
            .any(|via| path_to(anna, "bo")["via"] == *via)
            && from_bo.iter().any(|via| path_to(bo, "anna")["via"] == *via)
    });
}

#[test]
fn two_relays_in_a_row_carry_where_no_single_one_reaches_both() {
    let net = behind_two_relays(Ground::Plain);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let target = &bo.mesh_addresses()[0];
    within(Duration::from_secs(30), "a ping comes back", || {
        let line = format!("ping -c 1 -W 1 {target}");
        anna.run(&line).status.success()
    });
    await_both_relays(anna, bo);
    move_a_file(anna, bo);
    assert_sealed([anna, bo]);
}

/// Issue 6, point 6: the longest messages of the exchange still fit where the least room is left for them.
#[test]
fn keys_are_made_in_two_seconds_behind_two_relays_over_ipv6_with_an_mtu_of_1280() {
    let net = behind_two_relays(Ground::Narrow6);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    // A question of the agent's own finds the way, and is no reason to make keys.
    within(Duration::from_secs(30), "bo's agent answers", || {
        anna.webmesh(&["ping", "-c", "1", "bo"]).status.success()
    });
    await_both_relays(anna, bo);
    assert_eq!(ciphers([anna, bo]), ["wireguard"; 2]);
    let target = &bo.mesh_addresses()[0];
    let _pings = anna.beside(&format!("ping -i 0.2 {target}"));
    let took = within(Duration::from_secs(2), "keys at both ends", || {
        !ciphers([anna, bo]).contains(&"wireguard".into())
    });
    eprintln!("keys after {took:?}");
    assert_sealed([anna, bo]);
    anna.sh(&format!("ping -c 3 -i 0.2 -W 1 -s 1372 -M do {target}"));
    await_both_relays(anna, bo);
}

#[test]
fn strangers_at_a_relay_get_no_byte_and_disturb_nobody() {
    let net = apart(&[]);
    let eve = net.lab().public("eve", &["203.0.113.66/24"]).unwrap();
    net.form();
    let capture = Capture::start(net.lab(), "carol").unwrap();
    let (anna, bo, carol) = (net.peer("anna"), net.peer("bo"), net.peer("carol"));
    await_ping(anna, bo);
    let frames = capture.frames().unwrap();
    // Anna's session with carol stands in whichever family answered first.
    let recorded: Vec<String> = ["203.0.113.11:41820", "[2001:db8::b]:41820"]
        .into_iter()
        .flat_map(|anna| datagrams(&frames, anna))
        .filter(|datagram| datagram[0] == 0x20)
        .map(|datagram| data_encoding::HEXLOWER.encode(&datagram))
        .collect();
    assert!(!recorded.is_empty());
    std::fs::write(eve.directory.join("recorded"), recorded.join("\n")).unwrap();
    let before = dropped(carol, "in_relay_stranger");
    let sent = eve
        .command("python3")
        .unwrap()
        .args(["-c", INTRUDE, "203.0.113.13", "recorded"])
        .current_dir(&eve.directory)
        .output()
        .unwrap();
    assert_eq!(
        text(&sent.stdout),
        "0 bytes back\n",
        "{}",
        text(&sent.stderr)
    );
    await_ping(anna, bo);
    assert_eq!(path_to(anna, "bo")["via"], "carol");
    within(Duration::from_secs(3), "counted", || {
        dropped(carol, "in_relay_stranger") >= before + 500
    });
}

/// How often a machine dropped something for this reason.
fn dropped(peer: &Peer, reason: &str) -> u64 {
    peer.status()["drops"][reason].as_u64().unwrap_or(0)
}

/// Frames and bindings of nobody, and what was recorded of another, from an address of one's own: `RELAY FILE`.
const INTRUDE: &str = "
import os, socket, sys, time
relay, recorded = (sys.argv[1], 41820), [bytes.fromhex(line) for line in open(sys.argv[2])]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
for i in range(500):
    s.sendto(bytes([0x20, 0, 0, 0]) + os.urandom(4) + bytes([4, 0, 0, 0]) + os.urandom(60), relay)
    s.sendto(bytes([0x21 + i % 3, 0, 0, 0]) + os.urandom(36), relay)
    s.sendto(recorded[i % len(recorded)], relay)
    time.sleep(0.002)
back = 0
try:
    while True:
        back += len(s.recv(2048))
except TimeoutError:
    pass
print(back, 'bytes back')
";

#[test]
fn a_relay_carries_for_one_member_what_its_owner_allows() {
    let mut net = Net::empty();
    net.add_configured("carol", 13, "[relay]\nlimit = 8\n");
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    cut(&net, "anna", 12);
    cut(&net, "bo", 11);
    net.form();
    let (anna, bo, carol) = (net.peer("anna"), net.peer("bo"), net.peer("carol"));
    await_ping(anna, bo);
    let target = &bo.mesh_addresses()[0];
    let _flood = anna.beside(&format!("python3 -c \"{FLOOD}\" {target}"));
    let told = bo.sh(&format!("python3 -c \"{TAKE}\""));
    let rate: f64 = told.trim().parse().unwrap();
    // 8 Mbit/s in all, of which one member gets half: 500,000 bytes a second.
    assert!((475_000.0..=525_000.0).contains(&rate), "{rate}");
    assert!(dropped(carol, "relay_quota") > 0);
}

/// Sends four times as much as is allowed: `ADDRESS`.
const FLOOD: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
began, sent = time.monotonic(), 0
while time.monotonic() < began + 20:
    while sent < (time.monotonic() - began) * 1600:
        s.sendto(bytes(1188), (sys.argv[1], 9000))
        sent += 1
    time.sleep(0.005)
";

/// Bytes a second that come, as the relay sees them: each with 28 bytes of headers, filled up to 16, and 32 around it.
const TAKE: &str = "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9000))
s.settimeout(10)
s.recv(2048)
began, came = time.monotonic(), 0
while time.monotonic() < began + 6:
    s.recv(2048)
    came += 1216 + 32
print(came / (time.monotonic() - began))
";

#[test]
fn a_pair_in_use_has_two_relays_and_goes_on_when_one_dies() {
    let mut net = apart(&[("dave", 14)]);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    await_ping(anna, bo);
    anna.sh("head -c 10000000 /dev/urandom > film");
    let _server = anna.beside(&format!("python3 -c \"{PACED}\""));
    anna.await_port(8000);
    let target = anna.mesh_addresses()[0].clone();
    let download = bo.beside(&format!(
        "curl -sSfN -m 50 -o film http://{target}:8000/film"
    ));
    // Where sessions came to stand slowly, the two carried for each other too.
    within(
        Duration::from_secs(5),
        "both have carried something",
        || {
            let has_carried = |name: &str| {
                let relay = &net.peer(name).status()["relay"];
                relay["ways"].as_u64() >= Some(1) && relay["packets"].as_u64() >= Some(1)
            };
            has_carried("carol") && has_carried("dave")
        },
    );
    let used = path_to(bo, "anna")["via"].as_str().unwrap().to_owned();
    let other = if used == "carol" { "dave" } else { "carol" };
    net.peer_mut(&used).agent.kill().unwrap();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let gap = within(Duration::from_secs(10), "the other relay carries", || {
        let before = size_of_film(bo);
        let line = format!(
            "timeout 0.4 sh -c 'while [ $(stat -c %s film) -le {before} ]; do sleep 0.02; done'"
        );
        bo.run(&line).status.success() && path_to(bo, "anna")["via"] == other
    });
    assert!(gap < Duration::from_secs(4), "{gap:?}");
    within(Duration::from_secs(40), "the download is whole", || {
        size_of_film(bo) == 10_000_000
    });
    drop(download);
    assert_eq!(anna.sh("sha256sum < film"), bo.sh("sha256sum < film"));
}

/// Gives a film to one who asks, a megabyte a second in small pieces: a client that is told to read slowly reads in bursts
/// and rests for a second between them.
const PACED: &str = "
import socket, time
film = open('film', 'rb').read()
server = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True)
client, _ = server.accept()
client.recv(4096)
client.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(film))
due = time.monotonic()
for at in range(0, len(film), 20000):
    client.sendall(film[at:at + 20000])
    due += 0.02
    time.sleep(max(0, due - time.monotonic()))
";

fn size_of_film(peer: &Peer) -> u64 {
    let said = peer.run("stat -c %s film");
    text(&said.stdout).trim().parse().unwrap_or(0)
}
