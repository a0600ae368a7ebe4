//! Issue 5, point 7: what `why` says where the sentence is true. The words are the goldens of `tests/cli`; here is shown
//! that an agent in such a place comes to them.

use std::{thread, time::Duration};

use serde_json::Value;
use webmesh::demo::order::INTERNET;

use super::{internet::Internet, kind::Kind, pair::Pair};
use crate::harness::{Peer, text, within};

#[test]
fn two_in_one_lan() {
    let mut internet = Internet::new();
    internet.settle(Kind::Public, "vps", 10);
    internet.settle(Kind::Plain, "anna", 20);
    internet.settle_beside("anna", "bo");
    internet.net.form();
    let pair = Pair { internet };
    pair.await_way("direct", Duration::from_secs(10));
    await_cause(pair.anna(), "bo", "lan");
    let said = pair.anna().ok(&["why", "bo"]);
    let head = said.lines().next().unwrap();
    let golden = "direct 192.168.1.3:41820 (the same LAN), ";
    assert!(head.contains(golden) && head.ends_with(" ms"), "{said}");
    let rows = said.lines().filter(|line| line.ends_with("in use"));
    assert_eq!(rows.count(), 1, "{said}");
}

#[test]
fn two_behind_plain_routers_punch() {
    let pair = Pair::of(Kind::Plain, Kind::Plain);
    pair.await_way("direct", Duration::from_secs(10));
    await_cause(pair.anna(), "bo", "punched");
    let said = pair.anna().ok(&["why", "bo"]);
    assert!(
        said.contains("direct 203.0.113.30:41820 (both punched), "),
        "{said}"
    );
    let vps = pair.anna().ok(&["why", "vps"]);
    assert!(vps.contains(" (vps is reached from outside), "), "{vps}");
}

#[test]
fn a_symmetric_pair_with_two_who_see_it() {
    let pair = Pair::with(Kind::Symmetric, Kind::Symmetric, &["vps", "hub"], "");
    let _talk = pair.talk();
    await_cause(pair.anna(), "bo", "both_hard");
    let said = pair.anna().ok(&["why", "bo"]);
    let golden =
        "sealed end to end. Not direct because both NATs give a new port to every destination.\n";
    assert!(said.starts_with("bo is reached through "), "{said}");
    assert!(
        said.lines()
            .next()
            .map(|line| format!("{line}\n"))
            .unwrap()
            .ends_with(golden),
        "{said}"
    );
    let seen = said.lines().find(|line| line.contains("seen by "));
    assert!(
        seen.is_some_and(|line| line.contains("203.0.113.30:")),
        "{said}"
    );
    let help = "Would help: one port mapping (UPnP, or UDP 41820 forwarded by hand) at either router, or IPv6 here.";
    assert!(said.lines().last().unwrap().starts_with(help), "{said}");
    // `status` gives the cause as a word, and says where to ask.
    let status = pair.anna().status();
    let peers = status["peers"].as_array().unwrap();
    let bo = peers.iter().find(|peer| peer["name"] == "bo").unwrap();
    assert_eq!(bo["path"]["why"], "both_hard");
    assert!(pair.anna().ok(&["status"]).contains("→ webmesh why bo\n"));
    it_is_remembered(&pair);
}

/// Ten seconds after the path was taken the reason is written down too.
fn it_is_remembered(pair: &Pair) {
    let anna = pair.anna();
    let now = || anna.sh("date +%H:%M:%S").trim().to_owned();
    within(Duration::from_secs(15), "the reason in the record", || {
        let said = anna.webmesh(&["why", "bo", "--at", &now()]);
        text(&said.stdout).contains("Not direct because both NATs gave a new port")
    });
    let said = anna.ok(&["why", "bo", "--at", &now()]);
    assert!(said.starts_with("At "), "{said}");
    assert!(said.contains(" bo was reached through "), "{said}");
}

#[test]
fn no_udp_gets_out() {
    let pair = Pair::of(Kind::UdpBlocked, Kind::Plain);
    let _talk = pair.talk();
    await_cause(pair.anna(), "bo", "udp_blocked_here");
    let said = pair.anna().ok(&["why", "bo"]);
    let golden = ", sealed end to end. Not direct because no UDP gets out here, or this machine's firewall drops the answers.\n";
    assert!(said.contains(golden), "{said}");
    assert!(
        said.contains("\nWould help: UDP let out here, from port 41820 to any, and UDP 41820 let in by this machine's firewall."),
        "{said}"
    );
}

#[test]
fn ipv6_alone_with_ipv4_alone() {
    let pair = Pair::of(Kind::Only6, Kind::Plain);
    let _talk = pair.talk();
    await_cause(pair.anna(), "bo", "no_common_version");
    let said = pair.anna().ok(&["why", "bo"]);
    let golden = "Not direct because this machine has IPv6 only and bo IPv4 only.\n";
    assert!(said.contains(golden), "{said}");
    assert!(
        said.contains("no route: this machine has no IPv4"),
        "{said}"
    );
}

#[test]
fn a_peer_that_is_off() {
    let mut pair = Pair::of(Kind::Plain, Kind::Plain);
    pair.await_way("direct", Duration::from_secs(10));
    pair.internet.net.peer_mut("bo").agent.kill().unwrap();
    // While the session still stands on this side, and others may know better, it is not called off.
    let said = pair.anna().webmesh(&["why", "bo"]);
    let (said, code) = (text(&said.stdout), said.status.code());
    assert_eq!(code, Some(1), "{said}");
    let head = "bo is not reached: it does not answer on the path it had, ";
    assert!(said.starts_with(head), "{said}");
    within(Duration::from_secs(90), "bo is called off", || {
        let said = pair.anna().webmesh(&["why", "bo"]);
        let said = text(&said.stdout);
        let help = "\nWould help: bo switched on and online. There: systemctl status webmesh\n";
        said.starts_with(
            "bo is not reached: it answers at none of its addresses, and vps has no session",
        ) && said.ends_with(help)
    });
    let asked = pair.anna().refused(1, &["ping", "bo"]);
    assert!(
        asked.ends_with("no answer from bo: webmesh why bo\n"),
        "{asked}"
    );
}

#[test]
fn a_pulled_cable_is_said_first_of_all() {
    let pair = Pair::of(Kind::Public, Kind::Public);
    pair.await_way("direct", Duration::from_secs(10));
    pair.internet.sh(INTERNET, "ip link set anna down");
    let why = "eth0 has no carrier: plug the cable in, or switch the radio on.\n";
    within(Duration::from_secs(5), "netcheck says it", || {
        let said = pair.anna().ok(&["netcheck"]);
        said.starts_with(&format!("This machine is cut off: {why}"))
    });
    let said = text(&pair.anna().webmesh(&["why", "bo"]).stdout);
    let head = format!("bo is not reached: this machine's {why}");
    assert!(said.starts_with(&head), "{said}");
}

#[test]
fn a_firewall_drops_the_port() {
    let pair = Pair::of(Kind::Public, Kind::Plain);
    let bo = pair.bo();
    let _server = bo.beside("python3 -m http.server 8080");
    bo.await_port(8080);
    let open = pair.anna().ok(&["why", "bo:8080"]);
    assert!(
        open.starts_with("name ok · policy ok (rule 1) · path "),
        "{open}"
    );
    assert!(open.contains(" · accepted in "), "{open}");
    bo.sh(UFW);
    let said = pair.anna().webmesh(&["why", "bo:8080"]);
    let (said, code) = (text(&said.stdout), said.status.code());
    let golden = " · bo's machine drops it: its firewall blocks port 8080 on wm0\n\
                  There:  webmesh why bo:8080   (it says what is in the way)\n";
    assert!(said.ends_with(golden) && code == Some(1), "{said}");
    let there = text(&bo.webmesh(&["why", "bo:8080"]).stdout);
    let golden = "name ok · policy ok (rule 1) · this machine drops it: its firewall (ufw) blocks port 8080 on wm0\n\
                  Here:  sudo ufw allow in on wm0 to any port 8080 proto tcp\n";
    assert_eq!(there, golden);
    let closed = text(&pair.anna().webmesh(&["why", "bo:8081"]).stdout);
    assert!(
        closed.contains("bo's machine refuses port 8081: nothing listens there"),
        "{closed}"
    );
}

/// What ufw's default does to a port, as far as it matters here.
const UFW: &str = "nft add table ip filter \
    && nft 'add chain ip filter INPUT { type filter hook input priority 0; }' \
    && nft add chain ip filter ufw-user-input \
    && nft add rule ip filter INPUT jump ufw-user-input \
    && nft add rule ip filter ufw-user-input iifname wm0 tcp dport 8080 drop";

/// Waits until `why` has come to this cause: addresses are tried for two seconds, and others must have said what they see.
fn await_cause(peer: &Peer, other: &str, cause: &str) {
    let mut last = Value::Null;
    let mut is_so = || {
        let said = peer.webmesh(&["why", other, "--json"]);
        last = serde_json::from_slice(&said.stdout).unwrap();
        last["cause"] == cause
    };
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not {cause}: {last:#}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Until all there is to know is known.
const PATIENCE: Duration = Duration::from_secs(20);
