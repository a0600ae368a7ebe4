//! Issue 3, point 1: init, invite, join, join; traffic within a second.

use std::time::{Duration, Instant};

use crate::harness::{Net, text};

#[test]
fn the_first_ping_through_the_mesh_answers_within_a_second_of_join() {
    let net = Net::three();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    for name in ["bo", "carol"] {
        let token = anna.invite();
        let joiner = net.peer(name);
        joiner.ok(&["join", &token]);
        let joined = Instant::now();
        for target in anna.mesh_addresses() {
            joiner.sh(&format!("ping -c 1 -W 1 {target}"));
        }
        assert!(
            joined.elapsed() < Duration::from_secs(1),
            "{:?}",
            joined.elapsed()
        );
    }
    // Those who joined reach each other without having met.
    let bo = net.peer("bo");
    bo.await_acquainted(2);
    for target in net.peer("carol").mesh_addresses() {
        bo.sh(&format!("ping -c 1 -W 3 {target}"));
    }
    let status = bo.status();
    assert_eq!(status["state"], "up");
    assert_eq!(status["network"]["name"], "home");
    assert_eq!(status["peers"].as_array().unwrap().len(), 2, "{status}");
}

#[test]
fn homes_behind_routers_join_a_public_machine_and_reach_it() {
    let mut net = Net::empty();
    net.add_public("vps", 10);
    net.add_home("anna", 5);
    net.add_home("bo", 6);
    net.form();
    let [vps, _] = net.peer("vps").mesh_addresses();
    for name in ["anna", "bo"] {
        net.peer(name).sh(&format!("ping -c 1 -W 2 {vps}"));
    }
}

#[test]
fn a_dead_first_hint_costs_nothing() {
    let mut net = Net::three();
    // Anna's first address is one where nobody answers: joiners try all hints at once.
    let anna = net.peer_mut("anna");
    let machine = anna.name().to_owned();
    net.lab()
        .address(&machine, "eth0", "203.0.113.211/24")
        .unwrap();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    net.lab()
        .order(webmesh::demo::order::Order::RemoveAddress {
            at: machine,
            link: "eth0".to_owned(),
            net: "203.0.113.211/24".parse().unwrap(),
        })
        .unwrap();
    let began = Instant::now();
    net.peer("bo").ok(&["join", &token]);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_token_serves_one_machine_and_the_second_is_told_who_used_it() {
    let net = Net::three();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    net.peer("bo").ok(&["join", &token]);
    let said = net.peer("carol").refused(1, &["join", &token]);
    assert!(
        said.contains("was used") && said.contains("\"bo\""),
        "{said}"
    );
    assert!(said.contains("Ask anna for: sudo webmesh invite"), "{said}");
    assert_eq!(net.peer("carol").status()["state"], "none");
}

#[test]
fn a_mistyped_token_is_refused_before_any_datagram() {
    let net = Net::three();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let mut token = anna.invite();
    let last = if token.ends_with('a') { "b" } else { "a" };
    token.replace_range(token.len() - 1.., last);
    let output = net.peer("bo").webmesh(&["join", &token]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr).trim(),
        "webmesh: this token is cut or mistyped (its check does not match): copy the whole line that begins with wm1-"
    );
}

#[test]
fn a_recovery_code_makes_an_admin_of_the_machine_it_is_typed_on() {
    let net = Net::three();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let said = anna.ok(&["init", "home"]);
    let code = said
        .split_whitespace()
        .find(|word| word.len() == 34 && word.matches('-').count() == 6)
        .unwrap_or_else(|| panic!("no recovery code in {said}"))
        .to_owned();
    bo.ok(&["join", &anna.invite()]);
    let refused = bo.refused(2, &["invite"]);
    assert!(refused.contains("bo is no admin of home"), "{refused}");
    let refused = bo.refused(2, &["recover", "0000-0000-0000-0000-0000-0000-0000"]);
    assert!(refused.contains("recovery code"), "{refused}");

    bo.ok(&["recover", &code.to_lowercase().replace('-', " ")]);
    let token = bo.invite();
    let carol = net.peer("carol");
    carol.ok(&["join", &token]);
    carol.await_acquainted(2);
    // Anna believes who was let in by a machine that was no admin when she last heard of it.
    for target in anna.mesh_addresses() {
        carol.sh(&format!("ping -c 1 -W 3 {target}"));
    }
}

#[test]
fn who_is_let_in_by_a_third_admin_reaches_it() {
    let mut net = Net::three();
    net.add_public("dora", 14);
    let peer = |name| net.peer(name);
    let said = peer("anna").ok(&["init", "home", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let code = said["recovery_code"].as_str().unwrap().to_owned();
    let token = peer("anna").invite();
    peer("bo").ok(&["join", &token]);
    peer("bo").ok(&["recover", &code]);
    let token = peer("bo").ok(&["invite", "--role", "admin"]);
    peer("carol").ok(&["join", token.trim()]);
    // Nobody that dora meets has a certificate of the founder's.
    let token = peer("carol").invite();
    peer("dora").ok(&["join", &token]);
    peer("dora").ok(&["wait", "--timeout", "10s"]);
    peer("dora").ok(&["ping", "-c", "1", "carol"]);
    peer("dora").ok(&["ping", "-c", "1", "anna"]);
}
