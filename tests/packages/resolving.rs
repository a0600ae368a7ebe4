//! Issue 4, points 2 and 3: whatever resolves names on a host sends us ours, and only them; and none leaves the machine.

use std::time::Duration;

use crate::{
    building::newer_packages,
    home::{Home, install, status, within},
    names::{Asker, Tap, Upstream, resolves, resolves_outside},
    roots::Kind,
};

/// systemd-resolved's stub.
const STUB: &str = "127.0.0.53";

#[test]
fn resolved_has_our_names_back_soon_after_it_was_restarted() {
    let home = Home::formed(Kind::RESOLVED);
    let (anna, bo) = (&home.anna, &home.bo);
    let mesh = status(anna)["self"]["ipv4"].as_str().unwrap().to_owned();
    assert!(resolves(bo, "anna.home.internal", &mesh));
    // Also where it has forgotten what it was told.
    for restart in [
        "systemctl restart systemd-resolved",
        "systemctl stop systemd-resolved && rm -rf /run/systemd/resolve/netif && systemctl start systemd-resolved",
    ] {
        bo.sh(restart);
        let took = within(Duration::from_secs(10), "names are back", || {
            resolves(bo, "anna.home.internal", &mesh)
        });
        eprintln!("{restart}: names back in {took:?}");
        assert!(took < Duration::from_secs(2), "{restart}: {took:?}");
    }
}

#[test]
fn no_mesh_name_leaves_the_machine_while_the_agent_runs_restarts_or_is_killed() {
    let home = Home::formed(Kind::RESOLVED);
    let bo = &home.bo;
    let _upstream = Upstream::serve(&home.lan);
    bo.sh(&format!(
        "resolvectl dns eth0 {} && resolvectl default-route eth0 yes",
        Upstream::ADDRESS
    ));
    let tap = Tap::on(&home.lan, bo.name);
    assert!(resolves_outside(bo));
    within(Duration::from_secs(5), "the tap sees what passes", || {
        tap.outside_names() > 0
    });
    let to_us = Tap::inside(bo, "wm0");
    let asker = Asker::start(bo, STUB);
    let mut wanted = 0;
    let mut ask_on = || {
        wanted += 2000;
        within(Duration::from_secs(60), "names are asked for", || {
            asker.asked() >= wanted
        });
    };
    ask_on();
    bo.sh("systemctl restart webmesh");
    ask_on();
    bo.sh("systemctl kill --signal=KILL webmesh");
    ask_on();
    install(bo, &newer_packages().deb);
    ask_on();
    ask_on();
    assert_eq!(tap.mesh_names(), 0, "of {} names", asker.asked());
    assert!(to_us.mesh_names() > 0, "they come to us");
    assert!(resolves_outside(bo));
    assert_eq!(to_us.outside_names(), 0, "other names are never ours");
}
