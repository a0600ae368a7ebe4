//! Issue 3, point 2: an answer that does not fit a datagram, asked by dig. It needs a service with dozens of instances on
//! as many peers. One machine stands for them all: it joins as an admin with the library's own keys and records, admits
//! the others and says their records for them. Nobody lies and nobody is reached; names need records alone.

use std::time::Duration;

use webmesh::{
    keys::{NodeKey, Token, TunnelKey},
    platform::clock,
    wire::record::{Body, Lease, Member, Service},
};

use crate::{
    harness::{Net, Peer, run_inside, within},
    mallory::{Mallory, draw},
};

/// So many that neither 512 nor 1,232 bytes hold their IPv6 addresses (28 bytes each), and 512 not their IPv4 (16).
const CROWD: usize = 48;

/// What a datagram may hold without EDNS (RFC 1035 §4.2.1), and over any path with it (DNS flag day 2020).
const PLAIN: usize = 512;
const FLAG_DAY: usize = 1232;

#[test]
fn an_answer_too_long_for_a_datagram_says_so_and_comes_whole_over_tcp() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let machine = net.lab().public("crowd", &["203.0.113.66/24"]).unwrap();
    net.form();
    let anna = net.peer("anna");
    let token = anna.ok(&["invite", "--role", "admin"]);
    let environment = [("TOKEN", token.trim())];
    run_inside(
        &machine,
        "crowd::inside_the_crowd_is_admitted",
        &environment,
    );
    within(Duration::from_secs(20), "the crowd is known", || {
        ask(anna, "+tcp +short", "A").lines().count() == CROWD
    });

    for server in servers(anna) {
        let dig = |options: &str, kind: &str| ask(anna, &format!("@{server} {options}"), kind);
        let cut = |options: &str, kind: &str, limit: usize| {
            let said = dig(&format!("+notcp +ignore {options}"), kind);
            assert!(
                flags(&said).contains(&"tc") && said.contains("ANSWER: 0"),
                "{said}"
            );
            assert!(size(&said) <= limit, "{said}");
        };
        cut("+noedns", "A", PLAIN);
        cut("+noedns", "AAAA", PLAIN);
        cut("+bufsize=512", "A", PLAIN);
        cut("+bufsize=1232", "AAAA", FLAG_DAY);
        cut("+bufsize=4096", "AAAA", FLAG_DAY);

        let whole = |options: &str, kind: &str| {
            let said = dig(options, kind);
            assert!(!flags(&said).contains(&"tc"), "{said}");
            assert!(said.contains(&format!("ANSWER: {CROWD},")), "{said}");
            said
        };
        assert!(size(&whole("+notcp +ignore", "A")) <= FLAG_DAY);
        assert!(size(&whole("+tcp", "AAAA")) > FLAG_DAY);
        assert!(size(&whole("+tcp +noedns", "AAAA")) > FLAG_DAY);
        // What every program does that is told nothing: over UDP first, and over TCP when the answer says so.
        assert!(whole("", "AAAA").contains("Truncated, retrying in TCP mode"));
    }
    // The same by the machine's own library.
    let hosts = anna.sh("getent ahostsv6 web.svc.home.internal");
    assert_eq!(
        hosts.lines().filter(|line| line.contains("STREAM")).count(),
        CROWD
    );
}

fn ask(peer: &Peer, options: &str, kind: &str) -> String {
    peer.sh(&format!(
        "dig +time=3 +tries=1 {options} web.svc.home.internal {kind}"
    ))
}

fn servers(peer: &Peer) -> Vec<String> {
    let servers = peer.status()["dns"]["servers"].clone();
    let servers = servers.as_array().unwrap().iter();
    let servers: Vec<String> = servers.map(|at| at.as_str().unwrap().to_owned()).collect();
    assert_eq!(servers.len(), 2, "one address of each family: {servers:?}");
    servers
}

/// The flags in the header of an answer.
fn flags(said: &str) -> Vec<&str> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(";; flags: "));
    let flags = line.and_then(|line| line.split(';').next());
    flags
        .unwrap_or_else(|| panic!("no flags: {said}"))
        .split(' ')
        .collect()
}

/// The bytes of an answer.
fn size(said: &str) -> usize {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
    line.and_then(|line| line.parse().ok())
        .unwrap_or_else(|| panic!("no size: {said}"))
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_the_crowd_is_admitted() {
    let token: Token = std::env::var("TOKEN").unwrap().parse().unwrap();
    let mut admin = Mallory::join(&token);
    for number in 0..CROWD {
        let records = records_of(&admin, number);
        // Two messages of two records: each is shorter than a control frame may be.
        for chunk in records.chunks(2) {
            admin.say_records(chunk.to_vec());
        }
    }
    admin.await_pong();
}

/// What makes a peer that serves `web`: its certificate by this admin, and its own Peer, Lease and Service.
fn records_of(admin: &Mallory, number: usize) -> Vec<Vec<u8>> {
    let (key, tunnel) = (NodeKey::from_seed(draw()), TunnelKey::from_seed(draw()));
    let node = key.id();
    let now_s = clock::now().unix_s();
    let name = format!("crowd-{number}");
    let member = Member {
        name: name.clone(),
        admission: draw(),
        admitted_at: now_s,
        offset4: Some(1000 + u64::try_from(number).unwrap()),
        groups: None,
        role: 0,
        offers: Some(vec!["*".into()]),
        not_after: now_s + 86_400,
        routes: None,
        guests: None,
    };
    let lease = Lease {
        incarnation: admin.identity.boot,
        expires: now_s + 3600,
        left: false,
    };
    let service = Service {
        service: "web".into(),
        instance: name,
        ports: vec![6 << 16 | 80],
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    };
    let peer = admin.peer_of(node, &tunnel);
    let own = |body| admin.record_by(&key, (node.0, node), body);
    vec![
        admin.record(node.0, admin.identity.key.id(), Body::Member(member)),
        own(Body::Peer(peer)),
        own(Body::Lease(lease)),
        own(Body::Service(service)),
    ]
}
