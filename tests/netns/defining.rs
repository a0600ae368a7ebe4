//! Issue 4, point 6 of "Build": the files of this machine's owner, read again without dropping a tunnel.

use std::{fs, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{Net, Peer, text, within};

#[test]
fn services_come_and_go_with_their_files_and_the_tunnel_stays() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    bo.ok(&["ping", "anna"]);
    let handshake = age_of_session(bo, "anna");
    let pid = anna.agent.pid();

    let _program = anna.beside("python3 -m http.server -b 127.0.0.1 8080");
    anna.await_port(8080);
    define(
        anna,
        "web.toml",
        "[service.web]\nport = 80\ntarget = \"127.0.0.1:8080\"\n",
    );
    define(anna, "slip.toml", "[service.db]\nport = 5432\nprot = 1\n");
    reload(anna);
    await_service(bo, "web", true);
    bo.sh("curl --silent --fail --max-time 10 --output /dev/null http://web.svc.home.internal/");
    let health = await_health(anna, "services_unused");
    assert!(
        health.contains("slip.toml:3: unknown field `prot`"),
        "{health}"
    );

    // Over a restart, and while its file is bad.
    define(anna, "web.toml", "[service.web\n");
    reload(anna);
    within(Duration::from_secs(5), "the slip is seen", || {
        health_of(anna)
            .iter()
            .filter(|line| line.contains(".toml:"))
            .count()
            == 2
    });
    assert!(serves(bo, "web"));
    let said = anna.refused(2, &["service", "rm", "web"]);
    assert!(
        said.starts_with("webmesh: web is defined in ") && said.contains("/services.d/web.toml: "),
        "{said}"
    );
    let said = anna.refused(2, &["service", "add", "web", "--port", "81"]);
    assert!(said.starts_with("webmesh: web is defined in "), "{said}");

    fs::remove_file(folder(anna).join("web.toml")).unwrap();
    fs::remove_file(folder(anna).join("slip.toml")).unwrap();
    reload(anna);
    await_service(bo, "web", false);
    within(Duration::from_secs(5), "nothing is wrong", || {
        !health_of(anna)
            .iter()
            .any(|line| line.contains("services_unused"))
    });
    assert_eq!(anna.agent.pid(), pid);
    assert!(age_of_session(bo, "anna") > handshake, "no new handshake");
}

#[test]
fn services_are_renamed_and_swap_ports_at_one_reload() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let at = |name: &str| -> Option<u64> {
        let status = bo.status();
        let mut services = status["services"].as_array().unwrap().iter();
        let found = services.find(|service| service["name"] == name)?;
        found["port"].as_u64()
    };
    for (text, expected) in [
        ("[service.web]\nport = 80\n", [Some(80), None, None]),
        (
            "[service.shop]\nport = 80\n[service.db]\nport = 81\n",
            [None, Some(80), Some(81)],
        ),
        (
            "[service.shop]\nport = 81\n[service.db]\nport = 80\n",
            [None, Some(81), Some(80)],
        ),
    ] {
        define(anna, "all.toml", text);
        reload(anna);
        within(Duration::from_secs(5), text, || {
            ["web", "shop", "db"].map(at) == expected
        });
    }
    assert!(
        !health_of(anna)
            .iter()
            .any(|line| line.contains("services_unused"))
    );
}

#[test]
fn a_file_of_root_s_may_name_another_host_and_a_command_may_not() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.form();
    let printer = net.lab().public("printer", &["203.0.113.40/24"]).unwrap();
    let mut program = printer.command("python3").unwrap();
    let mut program = program
        .args(["-m", "http.server", "-b", "203.0.113.40", "631"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    within(Duration::from_secs(10), "the printer listens", || {
        anna.run("curl --silent --max-time 2 --output /dev/null http://203.0.113.40:631/")
            .status
            .success()
    });
    let said = anna.refused(
        2,
        &[
            "service",
            "add",
            "print",
            "--port",
            "631",
            "--target",
            "203.0.113.40:631",
        ],
    );
    assert!(
        said.contains("it is not an address of this machine"),
        "{said}"
    );
    define(
        anna,
        "print.toml",
        "[service.print]\nport = 631\ntarget = \"203.0.113.40:631\"\n",
    );
    reload(anna);
    await_service(bo, "print", true);
    bo.sh(
        "curl --silent --fail --max-time 10 --output /dev/null http://print.svc.home.internal:631/",
    );
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_until_it_is_good() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let began_with = fs::read_to_string(anna.agent.config()).unwrap();
    fs::write(anna.agent.config(), "[api]\nread = \"all\"\n\nred = 1\n").unwrap();
    let health = await_health(anna, "config_unused");
    assert!(
        health.contains("was changed and is not in use yet"),
        "{health}"
    );
    reload(anna);
    within(Duration::from_secs(5), "the fault is named", || {
        let lines = health_of(anna);
        lines
            .iter()
            .any(|line| line.contains("config.toml:4: unknown field `red`"))
    });
    let narrower = format!("{began_with}[tun]\nmtu = 1300\n");
    fs::write(anna.agent.config(), narrower).unwrap();
    reload(anna);
    within(Duration::from_secs(5), "the key is named", || {
        let lines = health_of(anna);
        lines
            .iter()
            .any(|line| line.contains("tun.mtu in ") && line.contains("from the next start"))
    });
    assert!(
        anna.agent.log().contains("restart_for=\"tun.mtu\""),
        "{}",
        anna.agent.log()
    );
    assert!(anna.sh("ip link show wm0").contains(" mtu 1420 "));
    fs::write(anna.agent.config(), began_with).unwrap();
    reload(anna);
    within(Duration::from_secs(5), "what runs is on the disk", || {
        !health_of(anna)
            .iter()
            .any(|line| line.contains("config_unused"))
    });
}

#[test]
fn a_machine_that_can_have_no_device_spends_no_invite() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let _powerless = bo.beside(&format!(
        "setpriv --bounding-set=-net_admin --inh-caps=-net_admin {} daemon --state-dir powerless --socket powerless.sock",
        crate::harness::program().display()
    ));
    let socket = bo.file("powerless.sock");
    within(Duration::from_secs(10), "it answers", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let said = bo.refused(2, &["join", &token, "--socket", socket.to_str().unwrap()]);
    assert!(
        said.contains("no right to make a TUN device; run as root or give CAP_NET_ADMIN"),
        "{said}"
    );
    assert!(anna.ok(&["invite", "list"]).contains("1 use left"));
    assert_eq!(
        fs::read_dir(bo.file("powerless")).unwrap().count(),
        1,
        "nothing but the lock"
    );
    bo.ok(&["join", &token]);
}

#[test]
fn a_pool_that_clashes_with_this_host_is_said_when_the_network_is_made() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.lab().address("anna", "eth0", "10.77.1.1/24").unwrap();
    let anna = net.peer("anna");
    let made = anna.webmesh(&["init", "home", "--ipv4", "10.77.0.0/16"]);
    let said = text(&made.stderr);
    assert!(made.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("webmesh: only IPv6 is used here: a route of this host to 10.77.1.0/24 overlaps 10.77.0.0/16: "),
        "{said}"
    );
}

#[test]
fn waiting_without_a_network_is_answered_at_once() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    let began = std::time::Instant::now();
    let said = anna.refused(1, &["wait"]);
    assert_eq!(
        said,
        "webmesh: this machine is in no network: sudo webmesh init NAME makes one, sudo webmesh join TOKEN joins one\n"
    );
    anna.ok(&["init", "home"]);
    anna.ok(&["wait"]);
    anna.ok(&["down"]);
    let said = anna.refused(1, &["wait", "--peer", "bo"]);
    assert_eq!(said, "webmesh: home is down here: sudo webmesh up\n");
    assert!(began.elapsed() < Duration::from_secs(15));
}

fn folder(peer: &Peer) -> PathBuf {
    peer.file("services.d")
}

fn define(peer: &Peer, name: &str, definition: &str) {
    fs::create_dir_all(folder(peer)).unwrap();
    fs::write(folder(peer).join(name), definition).unwrap();
}

fn reload(peer: &Peer) {
    let pid = i32::try_from(peer.agent.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
}

fn serves(peer: &Peer, name: &str) -> bool {
    let status = peer.status();
    let mut services = status["services"].as_array().unwrap().iter();
    services.any(|service| service["name"] == name)
}

fn await_service(peer: &Peer, name: &str, is_there: bool) {
    within(Duration::from_secs(10), "the service comes or goes", || {
        serves(peer, name) == is_there
    });
}

/// Code and message of each line.
fn health_of(peer: &Peer) -> Vec<String> {
    let status = peer.status();
    let lines = status["health"].as_array().unwrap().iter();
    lines
        .map(|line| {
            format!(
                "{}: {}",
                line["code"].as_str().unwrap(),
                line["message"].as_str().unwrap()
            )
        })
        .collect()
}

fn await_health(peer: &Peer, code: &str) -> String {
    let mut found = None;
    within(Duration::from_secs(5), "health names it", || {
        found = health_of(peer)
            .into_iter()
            .find(|line| line.starts_with(code));
        found.is_some()
    });
    found.unwrap()
}

fn age_of_session(peer: &Peer, with: &str) -> f64 {
    let status = peer.status();
    let mut peers = status["peers"].as_array().unwrap().iter();
    let other = peers.find(|other| other["name"] == with).unwrap();
    other["last_handshake_s"].as_f64().unwrap()
}
