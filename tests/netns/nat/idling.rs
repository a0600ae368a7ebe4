//! Issue 5, point 4: pairs that are silent for long, behind routers that forget.

use std::time::Duration;

use webmesh::demo::capture::Capture;

use super::{
    internet::Internet,
    kind::Kind,
    pair::{Way, way},
};
use crate::harness::{Peer, sample, within};

#[test]
fn a_direct_pair_sends_nothing_while_idle_and_answers_at_once_afterwards() {
    idle("direct");
}

#[test]
fn a_relayed_pair_sends_nothing_while_idle_and_answers_at_once_afterwards() {
    idle("relay");
}

fn idle(kind: &str) {
    let internet = homes();
    let [one, other] = strangers(&internet);
    if kind == "relay" {
        internet.cut(one.0, other.0);
    }
    let [anna, bo] = [one, other].map(|(name, _)| internet.peer(name));
    anna.sh("mkdir www && echo hello > www/index.html");
    let _server = anna.beside("python3 -m http.server -b :: -d www 8000");
    anna.await_port(8000);
    let talk = bo.beside(&format!("ping -q -i 0.1 {}.home.internal", anna.name()));
    within(
        Duration::from_secs(10),
        &format!("{kind} both ways"),
        || {
            let ways = [way(anna, bo.name()), way(bo, anna.name())];
            ways.iter().all(|way: &Way| way.kind == kind)
        },
    );
    drop(talk);
    let name = anna.name();
    let fetch =
        format!("curl -sf -o page -w '%{{time_starttransfer}}' http://{name}.home.internal:8000/");
    bo.sh(&fetch);

    // What ends a conversation is over: acknowledgements, the last probes, WireGuard's keepalive after 10 s and the
    // handshake that is begun 15 s after something that was not answered.
    let silence = || last_heard(anna, bo).min(last_heard(bo, anna));
    within(Duration::from_secs(90), "eighteen silent seconds", || {
        silence() >= Duration::from_secs(18)
    });
    let idle = Duration::from_secs(u64::from(sample(45, 600)));
    let passed = passing(&internet, [one, other], idle);
    let silence = silence();
    assert!(silence > idle, "something came {silence:?} ago");
    assert!(passed.is_empty(), "in {idle:?} of silence: {passed:#?}");
    let seconds: f64 = bo.sh(&fetch).trim().parse().unwrap();
    eprintln!("first byte after {seconds} s");
    assert!(seconds <= 1.0, "first byte after {seconds} s");
}

/// It says good-bye, and its neighbours' routers forget it: nothing that it sends when it is back gets through to them.
#[test]
fn a_public_machine_that_comes_back_is_found_by_those_behind_routers_though_nobody_talks() {
    let mut internet = Internet::new();
    internet.settle(Kind::Public, "vps", 10);
    let names = ["anna", "bo"];
    for (name, number) in names.into_iter().zip([11, 12]) {
        internet.settle(Kind::Symmetric, name, number);
    }
    internet.net.form();
    // It carries for them: they know that others reach it.
    internet.peer("anna").ok(&["ping", "-c", "1", "bo"]);
    let state_of_vps = |internet: &Internet, name: &str| {
        let status = internet.peer(name).status();
        let mut peers = status["peers"].as_array().unwrap().iter();
        let vps = peers.find(|peer| peer["name"] == "vps").unwrap();
        vps["state"].as_str().unwrap().to_owned()
    };
    internet.net.peer_mut("vps").agent.stop().unwrap();
    for name in names {
        within(Duration::from_secs(5), "vps is seen to leave", || {
            state_of_vps(&internet, name) == "away"
        });
        internet.reboot(name);
    }
    internet.net.peer_mut("vps").agent.start().unwrap();
    for name in names {
        within(Duration::from_secs(60), "vps is spoken with again", || {
            state_of_vps(&internet, name) == "up"
        });
    }
}

/// A public machine and three homes, all in one network with so few links that not all are linked. Their routers forget a
/// direct way while the pair idles; the way to homes and links, pinged every 25 s, is used before.
fn homes() -> Internet {
    let few = "[test]\nlinks = 2\n";
    let mut internet = Internet::new();
    internet.settle_with(Kind::Public, "vps", 10, few);
    for (name, number, kind) in HOMES {
        internet.settle_with(kind, name, number, few);
        internet.forget_after(name, 30);
    }
    internet.net.form();
    internet
}

/// Two of the homes that are not linked with each other: links look after themselves, and that is no traffic of the pair.
/// With two links each everybody is linked with its neighbours in the order of node ids.
fn strangers(internet: &Internet) -> [(&'static str, u8); 2] {
    let status = internet.peer("vps").status();
    let mut ring: Vec<(String, String)> = status["peers"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&status["self"]])
        .map(|peer| ["id", "name"].map(|key| peer[key].as_str().unwrap().to_owned()))
        .map(|[id, name]| (id, name))
        .collect();
    ring.sort();
    let place = |name: &str| ring.iter().position(|(_, other)| other == name).unwrap();
    let pairs = [(0, 1), (0, 2), (1, 2)]
        .map(|(one, other)| [one, other].map(|home: usize| (HOMES[home].0, HOMES[home].1)));
    let opposite = |pair: &[(&str, u8); 2]| place(pair[0].0).abs_diff(place(pair[1].0)) == 2;
    // Of three in a ring of four two are no neighbours.
    pairs.into_iter().find(opposite).unwrap()
}

/// How long ago one of two last heard anything of the other, whichever way it came.
fn last_heard(one: &Peer, other: &Peer) -> Duration {
    let status = one.status();
    let mut peers = status["peers"].as_array().unwrap().iter();
    let row = peers.find(|row| row["name"] == other.name()).unwrap();
    Duration::from_secs_f64(row["last_heard_s"].as_f64().unwrap_or_default())
}

/// What passes directly between two homes in so much time, be it in vain. What comes by a relay the other end hears; what one
/// of them carries as a relay, to or from the other, is a third one's.
fn passing(internet: &Internet, pair: [(&str, u8); 2], time: Duration) -> Vec<String> {
    let mut passed = Vec::new();
    for (frames, (_, other)) in captured(internet, pair, time)
        .iter()
        .zip([pair[1], pair[0]])
    {
        let of_pair = frames
            .iter()
            .filter(|frame| touches(frame, [203, 0, 113, other]) && !is_relayed(frame));
        passed.extend(of_pair.map(|frame| heading(frame)));
    }
    passed
}

/// What passes at the routers of two homes in so much time.
fn captured(internet: &Internet, pair: [(&str, u8); 2], time: Duration) -> [Vec<Vec<u8>>; 2] {
    let begin = |(name, _)| Capture::start(internet.net.lab(), &format!("home-{name}")).unwrap();
    let captures = pair.map(begin);
    std::thread::sleep(time);
    captures.map(|capture| capture.frames().unwrap())
}

/// Whether an IPv4 frame comes from or goes to this address.
fn touches(frame: &[u8], address: [u8; 4]) -> bool {
    let [source, target] = [26..30, 30..34].map(|at| frame.get(at));
    frame.get(12..14) == Some(&[8, 0]) && (source == Some(&address) || target == Some(&address))
}

/// Whether a datagram is carried by a relay, or is of how one is bound (protocol §1).
fn is_relayed(frame: &[u8]) -> bool {
    let start = frame.get(42..46).unwrap_or_default();
    (0x20..=0x23).any(|kind| start == [kind, 0, 0, 0])
}

/// The addresses of an IPv4 frame, how long it is, and how its payload begins.
fn heading(frame: &[u8]) -> String {
    let address = |at: usize| frame.get(at..at + 4).unwrap_or_default();
    let (source, target) = (address(26), address(30));
    let start = frame.get(42..50).unwrap_or_default();
    let len = frame.len();
    format!("{source:?} → {target:?}, {len} bytes, {start:02x?}")
}

const HOMES: [(&str, u8, Kind); 3] = [
    ("anna", 20, Kind::Plain),
    ("bo", 30, Kind::PortRestricted),
    ("carol", 40, Kind::Plain),
];
