//! Issue 4, point 2: installed under a real systemd, with the commands of design §1 and what they print.

use std::{fs, path::Path, time::Duration};

use crate::{
    building::{newer_packages, packages},
    home::{Home, assert_reads, await_new_agent, install, status, within},
    host,
    machine::{Lan, Machine},
    roots::{Kind, text},
    web::{PAGE, Web},
};

#[test]
fn the_first_hour_goes_as_the_design_prints_it() {
    let home = Home::booted(Kind::RESOLVED);
    let (anna, bo) = (&home.anna, &home.bo);
    for machine in [anna, bo] {
        let said = install(machine, &packages().deb);
        assert_reads(
            said.lines().last().unwrap(),
            &[
                "Webmesh runs and is in no network.  New one: sudo webmesh init NAME     Join one: sudo webmesh join TOKEN",
            ],
        );
        assert_eq!(status(machine)["state"], "none", "a package joins nothing");
    }
    let _web = Web::serve(anna, "127.0.0.1:8080");
    assert_reads(
        &anna.sh("webmesh init home"),
        &[
            "home is up; this machine is anna, its first admin.",
            "  address   100.{}  fd{}",
            "  name      anna.home.internal   (systemd-resolved sends us home.internal, nothing else)",
            "  reach     203.0.113.11:41820, not tried from outside yet",
            "  policy    members may reach every port of each other   (webmesh policy show)",
            "Keep this offline; with it any machine can become admin if all admins are lost:   {}-{}-{}-{}-{}-{}-{}",
            "Next:  sudo webmesh invite      sudo webmesh service add web --port 80 --target 127.0.0.1:8080",
        ],
    );
    assert_reads(
        &anna.sh("webmesh service add web --port 80 --target 127.0.0.1:8080"),
        &[
            "web.svc.home.internal:80 → anna 127.0.0.1:8080.   Probed from the mesh side: accepted in {} ms.",
        ],
    );
    let invited = anna.run("webmesh invite");
    let token = text(&invited.stdout);
    assert_reads(&token, &["wm1-{}"]);
    assert_reads(
        &text(&invited.stderr),
        &[
            "One machine may join home as member until {}. There:  sudo webmesh join wm1-{}…",
            "Keep this machine on until then: it answers the invite.  Take it back: webmesh invite cancel {}",
        ],
    );
    let joined = bo.run(&format!("webmesh join {}", token.trim()));
    // On a busy machine a line comes before it: no answer yet.
    let talk = text(&joined.stderr);
    let found = talk.lines().last().unwrap_or_default();
    assert_reads(found, &["Looking for anna: {} yes, {}s"]);
    assert_reads(
        &text(&joined.stdout),
        &[
            "Joined home as bo, 100.{}, in {}s.  1 peer, 1 service.   Try:  ping anna    curl http://web.svc.home.internal/",
        ],
    );
    // By an unmodified program, through the host's resolver, from both machines.
    for machine in [bo, anna] {
        assert_eq!(machine.sh("curl -sS http://web.svc.home.internal/"), PAGE);
    }
    // A name without a domain is the mesh's too, although the two machines could also find each other on the link.
    let mesh = &status(anna)["self"];
    let said = bo.sh("getent ahosts anna");
    let addresses = said
        .lines()
        .map(|line| line.split_whitespace().next().unwrap());
    assert!(
        addresses
            .clone()
            .all(|one| mesh["ipv4"] == one || mesh["ipv6"] == one),
        "{said}"
    );
    bo.sh("ping -c 1 anna");
    // No sudo to look.
    assert_reads(
        &bo.sh("setpriv --reuid=nobody --regid=nogroup --clear-groups webmesh status"),
        &[
            "home · bo (member) · 100.{} · UDP 41820 · certificate until {}",
            "PEER  STATE  PATH{}RTT{}RX{}TX{}LAST",
            "anna  up     direct {}:41820  {} ms  {}  now",
            "SERVICE  UP      ADDRESS                   WHERE",
            "web      1 of 1  web.svc.home.internal:80  anna",
        ],
    );
}

#[test]
fn the_unit_is_active_by_its_own_word_and_has_the_rights_it_claims() {
    let home = Home::formed(Kind::RESOLVED);
    let bo = &home.bo;
    for (property, value) in [
        ("Type", "notify"),
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("UnitFileState", "enabled"),
        ("NRestarts", "0"),
    ] {
        assert_eq!(bo.property("webmesh", property), value, "{property}");
    }
    assert_eq!(bo.sh("systemctl is-system-running").trim(), "running");
    let of_process = |pid: &str| {
        let said = bo.sh(&format!("cat /proc/{pid}/status"));
        move |key: &str| {
            let line = said
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {key} in {said}"))
                .trim()
                .to_owned()
        }
    };
    let agent = of_process(&bo.property("webmesh", "MainPID"));
    let only_net_admin = format!("{:016x}", 1 << 12);
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(agent(set), only_net_admin, "{set}");
    }
    assert_eq!(agent("NoNewPrivs"), "1");
    assert_eq!(agent("Seccomp"), "2");
    // The container filters all its processes; the unit's own filters are on top of that.
    let filters = |of: &dyn Fn(&str) -> String| of("Seccomp_filters").parse::<u32>().unwrap();
    assert!(filters(&agent) > filters(&of_process("1")));
    let user = bo.sh("id --user webmesh");
    assert!(
        agent("Uid")
            .split_whitespace()
            .all(|uid| uid == user.trim()),
        "{}",
        agent("Uid")
    );
    assert_eq!(agent("Groups"), bo.sh("id --group webmesh").trim());

    let said = bo.sh("systemd-analyze security --no-pager webmesh.service");
    let score = said
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for webmesh.service: "))
        .and_then(|(_, score)| score.split_whitespace().next()?.parse::<f32>().ok());
    assert!(score.is_some_and(|score| score <= 2.0), "{said}");
}

#[test]
fn killed_or_hung_the_agent_comes_back_with_its_network() {
    let home = Home::formed(Kind::RESOLVED);
    let (anna, bo) = (&home.anna, &home.bo);
    let _web = Web::serve(anna, "0.0.0.0:80");
    anna.sh("webmesh service add web --port 80");
    await_page(bo);
    let before = status(bo);

    let took = await_new_agent(bo, Duration::from_secs(5), || {
        bo.sh("systemctl kill --signal=KILL webmesh");
    });
    eprintln!("back after SIGKILL in {took:?}");
    assert_same_peer(bo, &before);
    await_page(bo);

    // A process that is stopped does not feed its watchdog, as one that hangs.
    let watchdog = bo.property("webmesh", "WatchdogUSec");
    let bite = Duration::from_secs(watchdog.strip_suffix('s').unwrap().parse().unwrap());
    let took = await_new_agent(bo, bite + Duration::from_secs(20), || {
        bo.sh("systemctl kill --signal=STOP webmesh");
    });
    eprintln!("back after a hang in {took:?}; the watchdog bites after {bite:?}");
    assert_same_peer(bo, &before);
    await_page(bo);
    assert!(
        bo.journal("webmesh").contains("Watchdog timeout"),
        "{}",
        bo.journal("webmesh")
    );
    assert_eq!(bo.property("webmesh", "NRestarts"), "2");

    // Also where nothing brings a program called kill: procps is in every test root, and on not every machine.
    bo.sh("rm -f /usr/bin/kill && ! command -v /bin/kill && systemctl reload webmesh");
    within(Duration::from_secs(5), "the reload is logged", || {
        bo.journal("webmesh").contains("Reload: ")
    });
    assert_eq!(bo.property("webmesh", "NRestarts"), "2");

    // A configuration that cannot be used is told once, and not four times a second.
    let config = "/etc/webmesh/config.toml";
    bo.sh(&format!("cp {config} /root && echo nmae = 1 >> {config}"));
    assert!(!bo.run("systemctl reload webmesh").status.success());
    within(Duration::from_secs(5), "it goes on and says so", || {
        let said = bo.run("webmesh status | grep 'what runs: /etc/webmesh/config.toml:'");
        said.status.success() && bo.property("webmesh", "SubState") == "running"
    });
    bo.sh("journalctl -u webmesh | grep 'webmesh: /etc/webmesh/config.toml:'");
    assert!(!bo.run("systemctl restart webmesh").status.success());
    assert_eq!(bo.property("webmesh", "SubState"), "failed");
    bo.sh(&format!(
        "cp /root/config.toml {config} && systemctl start webmesh"
    ));
    assert_same_peer(bo, &before);
    await_page(bo);
}

#[test]
fn removed_the_host_is_as_before_and_purged_nothing_is_left() {
    let home = Home::booted(Kind::RESOLVED);
    let bo = &home.bo;
    let before = host::look(bo);
    install(&home.anna, &packages().deb);
    install(bo, &packages().deb);
    // A domain that is not the network's own name under .internal needs root's word, which init and join are.
    home.anna.sh("webmesh init home --domain mesh.example.com");
    let token = home.anna.sh("webmesh invite");
    bo.sh(&format!("webmesh join {}", token.trim()));
    for machine in [&home.anna, bo] {
        machine.sh("getent hosts anna.mesh.example.com && test -e /etc/webmesh/domains");
        assert_eq!(machine.sh("systemctl --failed --no-legend"), "");
    }
    assert!(
        host::look(bo).differences(&before).len() > 2,
        "the look sees what an agent does"
    );
    bo.sh("webmesh service add web --port 80");

    bo.sh("apt-get remove --yes --quiet webmesh");
    let left = host::look(bo).differences(&before);
    let is_kept = |line: &String| {
        line.contains("/etc/webmesh")
            || line.contains("user")
            || line.contains("/etc/systemd/system/")
    };
    let other: Vec<&String> = left.iter().filter(|line| !is_kept(line)).collect();
    assert!(other.is_empty(), "after remove: {other:#?}");
    assert!(
        bo.file("/var/lib/webmesh").exists(),
        "keys are kept until purge"
    );

    bo.sh("apt-get purge --yes --quiet webmesh");
    let left = host::look(bo).differences(&before);
    assert!(left.is_empty(), "after purge: {left:#?}");
    let files = bo.sh("find / -xdev -name '*webmesh*' -not -path '/root/*' -not -path '/proc/*'");
    assert_eq!(files, "", "files after purge");
}

#[test]
fn an_rpm_under_a_running_systemd_starts_renews_and_ends_the_agent() {
    let lan = Lan::new();
    let anna = lan.boot(Kind::RPM.fresh(), "anna", 11);
    let failed = || anna.sh("systemctl --failed --no-legend");
    let rpm = |verb: &str, package: &Path| {
        let name = package.file_name().unwrap().to_str().unwrap();
        fs::copy(package, anna.file("/root").join(name)).unwrap();
        // Debian's root does not know what Fedora's packages are called.
        anna.sh(&format!("rpm {verb} --nodeps /root/{name} 2>&1"))
    };
    let said = rpm("--install", &packages().rpm);
    assert!(
        said.contains("Webmesh runs and is in no network."),
        "{said}"
    );
    assert_eq!(anna.property("webmesh", "ActiveState"), "active");
    assert_eq!(anna.property("webmesh-dns.path", "ActiveState"), "active");
    anna.sh("webmesh init home");
    let before = status(&anna);
    anna.sh("getent hosts anna.home.internal");

    let newer = newer_packages();
    let took = await_new_agent(&anna, Duration::from_secs(30), || {
        rpm("--upgrade", &newer.rpm);
    });
    eprintln!("another agent {took:?} after the upgrade began");
    assert_same_peer(&anna, &before);
    anna.sh("getent hosts anna.home.internal");
    assert_eq!(failed(), "");

    anna.sh("rpm --erase --nodeps webmesh");
    assert!(!anna.run("ip link show wm0").status.success());
    assert!(!anna.sh("resolvectl domain").contains("home.internal"));
    assert_eq!(
        anna.sh("systemctl list-units --plain --no-legend 'webmesh*'"),
        ""
    );
    assert_eq!(failed(), "");
}

#[test]
fn port_443_takes_streams_where_its_owner_says_so() {
    let home = Home::formed(Kind::RESOLVED);
    let (anna, bo) = (&home.anna, &home.bo);
    let outside = "203.0.113.11";
    assert!(!speaks_tls(bo, outside), "enabled by the package");
    anna.sh("systemctl enable --quiet webmesh-stream.socket && systemctl restart webmesh");
    let limit = Duration::from_secs(10);
    within(limit, "TLS on port 443", || speaks_tls(bo, outside));
    let mesh = status(anna)["self"]["ipv4"].as_str().unwrap().to_owned();
    bo.sh(&format!("ping -c 1 {mesh}"));
    assert!(!speaks_tls(bo, &mesh), "at the address in the mesh too");

    // Nobody who knocks at the port starts what its owner stopped.
    anna.sh("systemctl stop webmesh");
    assert!(!speaks_tls(bo, outside));
    assert_eq!(anna.property("webmesh", "ActiveState"), "inactive");
    anna.sh("systemctl start webmesh");
    within(limit, "TLS on port 443 again", || speaks_tls(bo, outside));

    anna.sh("apt-get purge --yes --quiet webmesh");
    assert_eq!(anna.sh("ss -Hlnt 'sport = :443'"), "");
    let links = anna.sh("find /etc/systemd /run/systemd -name '*webmesh*'");
    assert_eq!(links, "", "after purge");
}

/// Whether somebody shakes hands in TLS at port 443 of an address. What follows is for members alone.
fn speaks_tls(from: &Machine, address: &str) -> bool {
    let curl =
        "curl --silent --insecure --max-time 3 --output /dev/null --write-out '%{time_appconnect}'";
    let got = from.run(&format!("{curl} https://{address}/"));
    text(&got.stdout).parse::<f64>().unwrap() > 0.0
}

fn assert_same_peer(machine: &Machine, before: &serde_json::Value) {
    let now = status(machine);
    for key in ["id", "name", "ipv4", "ipv6", "port"] {
        assert_eq!(now["self"][key], before["self"][key], "{key}");
    }
    assert_eq!(now["state"], "up");
}

/// Until the page comes by its name, as a person sees who loads it again.
fn await_page(machine: &Machine) {
    let took = within(Duration::from_secs(10), "the page by its name", || {
        let got = machine.run("curl -sS --max-time 2 http://web.svc.home.internal/");
        text(&got.stdout) == PAGE
    });
    eprintln!("{}: the page after {took:?}", machine.name);
}
