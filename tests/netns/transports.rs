//! User data between members goes by transports (protocol §6), unless one of them wants WireGuard alone.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use webmesh::demo::capture::Capture;

use crate::{
    harness::{Net, Peer, sample, within},
    speed::transfer,
};

/// What a peer's status says that seals user data with the one other.
fn cipher(peer: &Peer) -> String {
    let status = peer.status();
    let cipher = status["peers"][0]["transport"].as_str();
    cipher.unwrap_or("none").to_owned()
}

/// What each of two peers says that seals user data with the other.
pub(crate) fn ciphers(peers: [&Peer; 2]) -> [Value; 2] {
    [(0, 1), (1, 0)].map(|(of, with)| {
        let status = peers[of].status();
        let mut others = status["peers"].as_array().unwrap().iter();
        let other = others.find(|other| other["name"] == peers[with].name());
        other.map_or(Value::Null, |other| other["transport"].clone())
    })
}

/// Two peers say that they seal what they say to each other by the same keys of our own.
pub(crate) fn assert_sealed(peers: [&Peer; 2]) {
    let ciphers = ciphers(peers);
    assert_eq!(ciphers[0], ciphers[1]);
    let ours = ["aes-256-gcm", "chacha20-poly1305"];
    assert!(ours.iter().any(|suite| ciphers[0] == *suite), "{ciphers:?}");
}

fn two(config: &str) -> Net {
    let mut net = Net::empty();
    net.add_configured("anna", 11, "");
    net.add_configured("bo", 12, config);
    net.form();
    net
}

/// How many bytes of UDP there were in datagrams that begin with each byte.
fn bytes_by_type(capture: Capture) -> BTreeMap<u8, usize> {
    let mut bytes = BTreeMap::new();
    for frame in capture.frames().unwrap() {
        // Ethernet, IPv4 without options, UDP.
        if frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&17) {
            let payload = frame.get(42..).unwrap_or_default();
            if let Some(first) = payload.first() {
                *bytes.entry(*first).or_default() += payload.len();
            }
        }
    }
    bytes
}

const TRANSPORT: u8 = 0x10;
const WIREGUARD: u8 = 0x04;

#[test]
fn the_first_packets_make_keys_and_everything_after_them_is_sealed_by_them() {
    let net = two("");
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    assert_eq!(
        [cipher(anna), cipher(bo)],
        ["wireguard", "wireguard"],
        "nobody has talked"
    );
    let [v4, v6] = bo.mesh_addresses();
    anna.sh(&format!("ping -c 2 -i 0.2 {v4}"));
    within(Duration::from_secs(2), "keys at both ends", || {
        [anna, bo].iter().all(|peer| cipher(peer) != "wireguard")
    });
    assert_eq!(cipher(anna), cipher(bo));
    let details = bo.ok(&["peers", "anna"]);
    assert!(details.contains(&cipher(bo)), "{details}");
    let capture = Capture::start(net.lab(), "anna").unwrap();
    anna.sh(&format!("ping -c 3 -i 0.2 {v6}"));
    transfer(&net, 8);
    let bytes = bytes_by_type(capture);
    assert!(bytes[&TRANSPORT] > 4 * 8_000_000, "{bytes:?}");
    // Control frames alone.
    let plain = bytes.get(&WIREGUARD).copied().unwrap_or(0);
    assert!(plain < 100_000, "{bytes:?}");
}

#[test]
fn who_wants_wireguard_alone_gets_it() {
    let net = two("[datapath]\ntransport = \"wireguard\"\n");
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let capture = Capture::start(net.lab(), "anna").unwrap();
    anna.sh(&format!("ping -c 3 -i 0.2 {}", bo.mesh_addresses()[0]));
    transfer(&net, 1);
    assert_eq!([cipher(anna), cipher(bo)], ["wireguard", "wireguard"]);
    let bytes = bytes_by_type(capture);
    assert!(bytes[&WIREGUARD] > 4_000_000, "{bytes:?}");
    assert_eq!(bytes.get(&TRANSPORT), None);
}

#[test]
fn one_end_that_wants_no_aes_is_enough() {
    let net = two("[datapath]\ntransport = \"chacha20-poly1305\"\n");
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh(&format!("ping -c 3 -i 0.2 {}", bo.mesh_addresses()[0]));
    within(Duration::from_secs(3), "keys at both ends", || {
        [anna, bo].map(cipher) == ["chacha20-poly1305"; 2]
    });
    transfer(&net, 1);
    assert_sealed([anna, bo]);
}

/// Its keys died with the agent, and the other end seals by them until it hears so.
#[test]
fn who_talks_with_an_agent_that_is_killed_goes_on_a_second_after_its_next_start() {
    let mut net = two("");
    let [v4, _] = net.peer("bo").mesh_addresses();
    let [own, _] = net.peer("anna").mesh_addresses();
    for round in 0..sample(4, 40) {
        let (anna, bo) = (net.peer("anna"), net.peer("bo"));
        // One talks in one direction alone, so that nothing comes back but what its other end wants to say.
        let pings = anna.beside(&format!("ping -i 0.02 {v4}"));
        within(Duration::from_secs(3), "keys at both ends", || {
            [anna, bo].iter().all(|peer| cipher(peer) != "wireguard")
        });
        assert_sealed([anna, bo]);
        net.peer_mut("bo").agent.kill().unwrap();
        net.peer_mut("bo").agent.start().unwrap();
        let (anna, bo) = (net.peer("anna"), net.peer("bo"));
        let ping = |from: &Peer, to: &str| {
            let line = format!("ping -c 1 -W 0.1 {to}");
            from.run(&line).status.success()
        };
        let there = within(Duration::from_secs(1), "a ping goes on", || ping(anna, &v4));
        let back = within(Duration::from_secs(1), "one from there", || ping(bo, &own));
        eprintln!("round {round}: {there:?}, then {back:?} back");
        within(Duration::from_secs(2), "new keys at both ends", || {
            [anna, bo].iter().all(|peer| cipher(peer) != "wireguard")
        });
        drop(pings);
    }
}

/// A middlebox that lets long datagrams of nobody through, from when the session stands.
#[test]
fn a_way_on_which_no_keys_can_be_made_is_an_error_that_names_its_cause() {
    let net = two("");
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    for peer in [anna, bo] {
        peer.sh("nft add table inet box; \
             nft 'add chain inet box out { type filter hook output priority 0; }'; \
             nft add rule inet box out udp sport 41820 udp length gt 600 drop");
    }
    let _pings = anna.beside(&format!("ping -i 0.2 {}", bo.mesh_addresses()[0]));
    let failed = |peer: &Peer| {
        let status = peer.status();
        let mut health = status["health"].as_array().unwrap().iter();
        let line = health.find(|line| line["code"] == "transport_failed");
        line.map(|line| (line["level"].clone(), line["message"].to_string()))
    };
    assert_eq!(failed(anna), None);
    within(Duration::from_secs(12), "the error of health", || {
        failed(anna).is_some_and(|(level, message)| {
            level == "error" && message.contains("bo") && message.contains("lost on the way")
        })
    });
    for peer in [anna, bo] {
        peer.sh("nft delete table inet box");
    }
    within(Duration::from_secs(35), "keys after all", || {
        failed(anna).is_none() && cipher(anna) != "wireguard"
    });
}
