//! Two machines behind routers meet through the hands of a public one.

use std::time::{Duration, Instant};

use webmesh::demo::order::NatKind;

use crate::harness::{Net, Peer, within};

/// A public machine, and two behind routers of these kinds that joined it.
fn behind(kinds: [NatKind; 2]) -> Net {
    let mut net = Net::empty();
    net.add_public("vps", 10);
    let [anna, bo] = kinds;
    net.add_home_behind(anna, "anna", 5);
    net.add_home_behind(bo, "bo", 6);
    net.form();
    net
}

#[test]
fn two_homes_reach_each_other_directly_through_the_hands_of_a_public_machine() {
    let net = behind([NatKind::Masquerade, NatKind::Masquerade]);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    within(Duration::from_secs(5), "anna knows bo", || {
        ["idle", "up"].contains(&anna.state_of("bo").as_str())
    });
    let began = Instant::now();
    for target in bo.mesh_addresses() {
        anna.sh(&format!("ping -c 1 -W 3 {target}"));
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let handed_on = &net.peer("vps").status()["drops"]["call_handed_on"];
    assert!(
        handed_on.as_u64().is_some_and(|calls| calls > 0),
        "{handed_on}"
    );
    // A relay may be the first to lead there.
    within(Duration::from_secs(5), "directly", || {
        anna.sh("ping -c 1 -W 3 bo.home.internal");
        anna.status()["peers"].to_string().contains("203.0.113.6:")
    });
}

/// The first founds, the second becomes an admin and invites the third: how long that one took to join.
pub(crate) fn join_by_a_second_admin([founder, issuer, joiner]: [&Peer; 3]) -> Duration {
    founder.ok(&["init", "home"]);
    let token = founder.ok(&["invite", "--role", "admin"]);
    issuer.ok(&["join", token.trim()]);
    let token = issuer.invite();
    let began = Instant::now();
    joiner.ok(&["join", &token]);
    began.elapsed()
}

#[test]
fn who_is_invited_by_a_machine_behind_a_router_joins_through_a_public_member() {
    let mut net = Net::empty();
    net.add_public("vps", 10);
    net.add_home("anna", 5);
    net.add_home("bo", 6);
    let (vps, anna, bo) = (net.peer("vps"), net.peer("anna"), net.peer("bo"));
    let took = join_by_a_second_admin([vps, anna, bo]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let introduced = &vps.status()["drops"]["introduced"];
    assert!(
        introduced.as_u64().is_some_and(|count| count > 0),
        "{introduced}"
    );
    for target in anna.mesh_addresses() {
        bo.sh(&format!("ping -c 1 -W 3 {target}"));
    }
}
