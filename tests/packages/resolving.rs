//! Issue 4, points 2 and 3: whatever resolves names on a host sends us ours, and only them; and none leaves the machine.

use std::{fs, process::Command, time::Duration};

use crate::{
    building::newer_packages,
    home::{Home, install, status, within},
    machine::Machine,
    names::{Asker, Tap, Upstream, resolves, resolves_outside},
    roots::{Kind, text},
    web::{PAGE, Web},
};

/// What Tailscale puts before all other rules, with its chain's name.
const TAILSCALE: &str = "add table ip filter
add chain ip filter INPUT { type filter hook input priority 0; }
add chain ip filter ts-input
add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != tailscale0 counter drop
add rule ip filter INPUT counter jump ts-input
";

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
fn behind_a_rival_s_rule_names_and_pages_go_by_ipv6() {
    let home = Home::formed(Kind::RESOLVED);
    let _web = Web::serve(&home.anna, "[::]:80");
    home.anna.sh("webmesh service add web --port 80");
    let bo = &home.bo;
    let page = "curl -sS --max-time 5 http://web.svc.home.internal/";
    within(Duration::from_secs(5), "the page by its name", || {
        text(&bo.run(page).stdout) == PAGE
    });
    fs::write(bo.file("/root/tailscale.nft"), TAILSCALE).unwrap();
    bo.within_network(|| {
        let rules = bo.file("/root/tailscale.nft");
        let nft = Command::new("nft").arg("-f").arg(rules).status().unwrap();
        assert!(nft.success());
    });
    let blocked = || {
        let status = status(bo);
        let health = status["health"].as_array().unwrap();
        let mut lines = health.iter();
        lines.find_map(|line| {
            let message = line["message"].as_str().unwrap();
            (line["code"] == "ipv4_blocked").then(|| message.to_owned())
        })
    };
    within(Duration::from_secs(10), "the rule is named", || {
        blocked().is_some_and(|message| message.contains("(Tailscale's) in chain ts-input"))
    });
    // As soon as resolved asks by IPv6 alone.
    within(Duration::from_secs(5), "the page by IPv6", || {
        text(&bo.run(page).stdout) == PAGE
    });
    // What resolved was told before it keeps for as long as it was told to.
    within(Duration::from_secs(30), "only IPv6 is told", || {
        let addresses = bo.sh("getent ahosts web.svc.home.internal");
        addresses.lines().all(|line| line.starts_with("fd"))
    });
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
    assert_no_name_leaves(bo, STUB, [&tap, &to_us]);
    assert!(resolves_outside(bo));
    assert_eq!(to_us.outside_names(), 0, "other names are never ours");
}

/// 10,000 names, while the agent runs, is restarted, killed and upgraded; the taps are on the way out, and on that to us.
pub(crate) fn assert_no_name_leaves(bo: &Machine, resolver: &str, [leaving, to_us]: [&Tap; 2]) {
    let asker = Asker::start(bo, resolver);
    asker.ask_on(2000);
    bo.sh("systemctl restart webmesh");
    asker.ask_on(2000);
    bo.sh("systemctl kill --signal=KILL webmesh");
    asker.ask_on(2000);
    install(bo, &newer_packages().deb);
    asker.ask_on(4000);
    assert_eq!(leaving.mesh_names(), 0, "of {} names", asker.asked());
    assert!(to_us.mesh_names() > 0, "they come to us");
}
