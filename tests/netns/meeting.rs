//! Two machines behind home routers and nobody else: they meet through the DHT (issue 5, point 1).

use std::time::{Duration, Instant};

use webmesh::demo::order::{NatKind, Order};

use crate::{
    dht::{CONFIG, Nodes},
    harness::{Net, text, within},
};

/// anna and bo, each behind a router of her own, and the DHT.
fn two_homes(nat: NatKind) -> (Net, Nodes) {
    let mut net = Net::empty();
    let nodes = Nodes::start(net.lab());
    net.add_home_configured(nat, ("anna", 5), CONFIG);
    net.add_home_configured(nat, ("bo", 6), CONFIG);
    (net, nodes)
}

#[test]
fn two_homes_with_nobody_else_join_and_find_each_other_again_at_new_addresses() {
    let (mut net, _nodes) = two_homes(NatKind::Masquerade);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let began = Instant::now();
    let joined = net.peer("bo").webmesh(&["join", &token]);
    let (said, took) = (text(&joined.stderr), began.elapsed());
    assert!(joined.status.success(), "{said}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(said.contains("meeting through the DHT … yes, "), "{said}");
    eprintln!("joined after {took:?}");
    let [address, _] = anna.mesh_addresses();
    net.peer("bo").sh(&format!("ping -c 1 -W 2 {address}"));
    assert!(
        anna.ok(&["status"])
            .contains("dht  met bo through the DHT ")
    );

    for (name, old, new) in [("anna", 5, 15), ("bo", 6, 16)] {
        net.peer_mut(name).agent.stop().unwrap();
        let (at, link) = (format!("router-{name}"), "wan".to_owned());
        let net_of = |number: u8| format!("203.0.113.{number}/24").parse().unwrap();
        let lab = net.lab();
        lab.order(Order::RemoveAddress {
            at: at.clone(),
            link: link.clone(),
            net: net_of(old),
        })
        .unwrap();
        lab.address(&at, &link, &format!("203.0.113.{new}/24"))
            .unwrap();
    }
    let began = Instant::now();
    for name in ["anna", "bo"] {
        net.peer_mut(name).agent.start().unwrap();
    }
    let limit = Duration::from_secs(60);
    within(limit, "they find each other again", || {
        net.peer("bo").state_of("anna") == "up"
    });
    eprintln!("found again after {:?}", began.elapsed());
    net.peer("bo").sh(&format!("ping -c 1 -W 2 {address}"));
    assert!(
        net.peer("bo")
            .ok(&["status"])
            .contains("dht  met anna through the DHT ")
    );
}

#[test]
fn two_homes_with_a_new_port_per_destination_are_told_so() {
    let (net, _nodes) = two_homes(NatKind::Symmetric);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let began = Instant::now();
    let said = net.peer("bo").refused(1, &["join", &token]);
    assert!(
        began.elapsed() < Duration::from_secs(32),
        "{:?}",
        began.elapsed()
    );
    let sentence = "Is her machine on? Here UDP gets out, this NAT gives a new port per destination; \
                    if hers does too, a machine with a public address must join first. The invite stays good until";
    assert!(said.contains(sentence), "{said}");
    assert!(said.contains(", DHT)"), "{said}");
}
