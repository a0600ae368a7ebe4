//! Issue 4, point 5: nobody on the LAN reaches a mesh address past the mesh, and a rival's firewall is named.

use std::{os::fd::AsFd as _, time::Duration};

use serde_json::Value;
use webmesh::{
    demo::lab::Machine,
    platform::{
        guard::{Guard, Shape},
        nftables,
    },
};

use crate::harness::{Net, Peer, lab, run_inside, text, within};

#[test]
fn a_neighbour_gets_no_answer_from_a_mesh_address_and_speaks_as_nobody() {
    let net = Net::three();
    let world = World::around(&net);
    let sent = world.attack();
    assert!(sent["sent"].as_u64().unwrap() > 300, "{sent}");
    assert_eq!(sent["answers"], serde_json::json!({}), "{sent}");
    assert_eq!(sent["ear"]["icmp 4 0"], 1, "{sent}");
    assert_eq!(world.heard(), "", "what a program on :: heard");
    within(Duration::from_secs(5), "all of it is counted", || {
        guarded(world.anna) >= sent["sent"].as_u64().unwrap()
    });
    assert_eq!(Some(guarded(world.anna)), sent["sent"].as_u64(), "{sent}");
    world.assert_mesh_is_unharmed();
    assert_eq!(health(world.anna, "guard_missing"), None);
}

#[test]
fn with_the_guard_off_a_neighbour_reaches_programs_and_still_no_socket_of_ours() {
    let mut net = Net::three();
    let anna = &mut net.peer_mut("anna").agent;
    anna.stop().unwrap();
    std::fs::write(anna.config(), "[host]\nguard = false\n").unwrap();
    anna.start().unwrap();
    let world = World::around(&net);
    let sent = world.attack();
    // The attack is one: this is what the guard is for.
    let program = ["accepted tcp 7000", "datagram udp 7000"];
    for answer in program {
        assert!(
            sent["answers"][answer].as_u64() > Some(0),
            "{answer}: {sent}"
        );
    }
    assert!(world.heard().contains("203.0.113.66"), "{}", world.heard());
    let is_ours = |what: &&String| {
        (what.starts_with("accepted") || what.starts_with("datagram"))
            && !program.contains(&what.as_str())
    };
    let answers = sent["answers"].as_object().unwrap();
    let ours: Vec<&String> = answers.keys().filter(is_ours).collect();
    assert!(ours.is_empty(), "{sent}");
    world.assert_mesh_is_unharmed();
    let tables = world.anna.sh("nft list tables");
    assert!(!tables.contains("webmesh"), "{tables}");
}

#[test]
fn the_guard_goes_with_its_agent_however_that_ends() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.peer("anna").ok(&["init", "home"]);
    for end in ["kill", "stop", "down"] {
        let tables = net.peer("anna").sh("nft list tables");
        assert!(tables.contains("table inet webmesh-wm0"), "{tables}");
        let listed = net.peer("anna").sh("nft list table inet webmesh-wm0");
        assert!(listed.contains("flags owner"), "{listed}");
        let agent = &mut net.peer_mut("anna").agent;
        match end {
            "kill" => agent.kill().unwrap(),
            "stop" => agent.stop().unwrap(),
            _ => drop(net.peer("anna").ok(&["down"])),
        }
        let tables = net.peer("anna").sh("nft list tables");
        assert!(!tables.contains("webmesh"), "after {end}: {tables}");
        if end != "down" {
            net.peer_mut("anna").agent.start().unwrap();
        }
    }
}

#[test]
fn somebody_else_s_table_of_the_same_name_is_told_and_the_agent_goes_on() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    anna.sh("nft add table inet webmesh-wm0");
    anna.ok(&["init", "home"]);
    let missing = health(anna, "guard_missing").expect("a line of health");
    let message = missing["message"].as_str().unwrap();
    assert!(
        message.contains("webmesh-wm0 is held by another"),
        "{message}"
    );
    assert_eq!(missing["remedy"], "stop the other agent on this host");
}

#[test]
fn a_guard_is_taken_up_again_by_its_descriptor() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    run_inside(&vps, "guarding::inside_a_guard_is_handed_over", &[]);
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_a_guard_is_handed_over() {
    let shape = |net: &str| Shape {
        device: "wm0".to_owned(),
        nets: vec![net.parse().unwrap(), "fd00:1:2::/48".parse().unwrap()],
        local: vec!["docker0".to_owned(), "br-*".to_owned()],
    };
    let first = Guard::set(shape("100.71.0.0/16")).unwrap();
    let kept = || first.as_fd().try_clone_to_owned().unwrap();
    let (again, wrong, other) = (kept(), kept(), kept());
    drop(first);
    assert_eq!(nftables::tables().unwrap(), ["webmesh-wm0"]);
    Guard::from_fd(wrong, "wm1").unwrap_err();
    Guard::from_fd(std::net::UdpSocket::bind("[::]:0").unwrap().into(), "wm0").unwrap_err();
    let mut second = Guard::from_fd(again, "wm0").unwrap();
    second.change(shape("10.0.0.0/8")).unwrap();
    second.change(shape("100.64.0.0/11")).unwrap();
    assert_eq!(second.dropped().unwrap(), 0);
    assert!(matches!(
        Guard::set(shape("10.0.0.0/8")),
        Err(webmesh::platform::guard::GuardError::Held(_))
    ));
    drop(second);
    assert_eq!(nftables::tables().unwrap(), ["webmesh-wm0"], "one is left");
    drop(other);
    assert_eq!(nftables::tables().unwrap(), Vec::<String>::new());
}

#[test]
fn guests_of_this_host_reach_the_mesh_where_the_configuration_lets_them() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let rules = anna.sh("nft list table inet webmesh-wm0");
    let accepted: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" accept"))
        .collect();
    assert_eq!(
        accepted,
        [
            r#"iifname "wm0""#,
            r#"iifname "lo""#,
            r#"iifname "docker0""#
        ]
    );
}

#[test]
fn behind_a_rival_s_rule_names_and_pages_go_by_ipv6_until_it_is_gone() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let _pages = [anna, bo].map(serve_page);
    assert_eq!(health(anna, "ipv4_blocked"), None);
    assert_eq!(servers(anna).len(), 2);

    anna.sh(TAILSCALE);
    let blocked = || health(anna, "ipv4_blocked");
    within(Duration::from_secs(10), "the rule is noticed", || {
        blocked().is_some()
    });
    let line = blocked().unwrap();
    let message = line["message"].as_str().unwrap();
    let said = "a firewall rule (Tailscale's) in chain ts-input of table ip filter drops what comes from 100.64.0.0/10";
    assert_eq!(message, format!("only IPv6 is used here: {said}"));
    assert_eq!(servers(anna).len(), 1, "only the resolver's IPv6");
    anna.agent.use_resolver().unwrap();
    assert_eq!(anna.sh("dig +short bo.home.internal A"), "");
    let [_, bo6] = bo.mesh_addresses();
    assert_eq!(
        anna.sh("dig +short bo.home.internal AAAA"),
        format!("{bo6}\n")
    );
    assert_pages(anna, bo, "");

    // The remedy is one.
    let remedy = line["remedy"].as_str().unwrap();
    anna.sh(remedy.strip_prefix("sudo ").unwrap());
    within(Duration::from_secs(10), "IPv4 is back", || {
        blocked().is_none()
    });
    anna.agent.use_resolver().unwrap();
    assert_pages(anna, bo, "-4");

    anna.sh("nft flush chain ip filter ts-input");
    anna.sh("nft add rule ip filter ts-input ip saddr 100.64.0.0/10 drop");
    within(Duration::from_secs(10), "it is noticed again", || {
        blocked().is_some()
    });
    anna.sh("nft delete table ip filter");
    within(Duration::from_secs(10), "IPv4 is back again", || {
        blocked().is_none()
    });
    assert_eq!(servers(anna).len(), 2);
    anna.agent.use_resolver().unwrap();
    assert_pages(anna, bo, "-4");
}

#[test]
fn an_agent_that_starts_behind_a_rival_s_rule_uses_ipv6_from_the_beginning() {
    let net = Net::three();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh(TAILSCALE);
    net.form();
    within(Duration::from_secs(5), "the rule is noticed", || {
        health(anna, "ipv4_blocked").is_some()
    });
    anna.agent.use_resolver().unwrap();
    let _pages = [anna, bo].map(serve_page);
    assert_pages(anna, bo, "");
    // The door is knocked at by the family that comes through.
    let said = anna.ok(&["service", "add", "page", "--port", "8000"]);
    assert!(said.contains("accepted in"), "{said}");
}

#[test]
fn a_route_in_the_network_s_pool_takes_ipv4_away_and_gives_it_back() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let [own, _] = anna.mesh_addresses();
    let pool = pool_of(&own);
    // What others were told of the device, such as the host's resolver, goes with its number.
    let device = || anna.sh("ip -o link show wm0 | cut -d: -f1");
    let first = device();
    anna.sh(&format!("ip route add {pool} via 203.0.113.254 metric 7"));
    within(Duration::from_secs(10), "the route is noticed", || {
        health(anna, "ipv4_blocked").is_some()
    });
    assert_eq!(anna.status()["self"]["ipv4"], Value::Null);
    let addresses = anna.sh("ip -o addr show wm0 scope global");
    assert!(!addresses.contains(&own), "{addresses}");
    assert_eq!(anna.sh("ip -4 route show dev wm0"), "");
    let rules = anna.sh("nft list table inet webmesh-wm0");
    assert!(
        !rules.contains("ip saddr"),
        "the pool is somebody else's: {rules}"
    );
    anna.sh(&format!("ip route del {pool} via 203.0.113.254"));
    within(Duration::from_secs(10), "IPv4 is back", || {
        anna.status()["self"]["ipv4"] == own.as_str()
    });
    let rules = anna.sh("nft list table inet webmesh-wm0");
    assert!(rules.contains(&format!("ip saddr {pool}")), "{rules}");
    assert_eq!(device(), first, "the device is the same");
}

#[test]
fn another_overlay_whose_peers_lie_in_the_pool_is_not_cut_off() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let lan = ["203.0.113.66/24"];
    let rival = net.lab().public("rival", &lan).unwrap();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let [own, _] = anna.mesh_addresses();
    let octets: Vec<&str> = own.split('.').collect();
    let theirs = format!("{}.{}.9.9", octets[0], octets[1]);
    let mut command = rival.command("ip").unwrap();
    command.args(["addr", "add", &format!("{theirs}/32"), "dev", "eth0"]);
    assert!(command.status().unwrap().success());

    // As Tailscale does it: a table of its own, asked before the main one.
    anna.sh("ip rule add pref 5270 lookup 52");
    anna.sh(&format!(
        "ip route add {theirs} via 203.0.113.66 src 203.0.113.11 table 52"
    ));
    within(Duration::from_secs(10), "the route is noticed", || {
        health(anna, "ipv4_blocked").is_some()
    });
    let said = health(anna, "ipv4_blocked").unwrap();
    assert!(
        said["message"].as_str().unwrap().contains(&theirs),
        "{said}"
    );
    within(Duration::from_secs(5), "their peer answers", || {
        anna.run(&format!("ping -c 1 -W 1 {theirs}"))
            .status
            .success()
    });
    anna.sh("ip route flush table 52");
    within(Duration::from_secs(10), "IPv4 is back", || {
        anna.status()["self"]["ipv4"] == own.as_str()
    });
    assert_eq!(health(anna, "ipv4_blocked"), None);
}

#[test]
fn a_dns_server_of_the_host_that_lies_in_the_pool_is_not_cut_off() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let lan = ["203.0.113.66/24"];
    let cloud = net.lab().public("cloud", &lan).unwrap();
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let [own, _] = anna.mesh_addresses();
    let octets: Vec<&str> = own.split('.').collect();
    let server = format!("{}.{}.2.136", octets[0], octets[1]);
    let mut command = cloud.command("ip").unwrap();
    command.args(["addr", "add", &format!("{server}/32"), "dev", "eth0"]);
    assert!(command.status().unwrap().success());

    anna.sh("mkdir etc && cp -L /etc/passwd /etc/group /etc/nsswitch.conf etc/ && mount --bind etc /etc");
    anna.sh(&format!("echo nameserver {server} > /etc/resolv.conf"));
    // Reached as everything else, and not by a route of its own.
    anna.sh("ip route replace default via 203.0.113.66");
    within(Duration::from_secs(10), "the server is noticed", || {
        health(anna, "ipv4_blocked").is_some()
    });
    let said = health(anna, "ipv4_blocked").unwrap();
    let message = said["message"].as_str().unwrap();
    assert!(message.contains(&server), "{said}");
    within(Duration::from_secs(5), "the server answers", || {
        anna.run(&format!("ping -c 1 -W 1 {server}"))
            .status
            .success()
    });
}

#[test]
fn that_no_streams_are_taken_is_said_as_long_as_it_is_so() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    let busy = anna.beside("python3 -c \"import socket, time; s = socket.create_server(('', 41820)); time.sleep(600)\"");
    anna.await_port(41820);
    anna.ok(&["init", "home"]);
    within(Duration::from_secs(5), "the busy port is said", || {
        health(anna, "streams_missing").is_some()
    });
    let said = health(anna, "streams_missing").unwrap();
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("TCP port 41820"), "{said}");
    drop(busy);
    within(Duration::from_secs(5), "it is taken back", || {
        health(anna, "streams_missing").is_none()
    });
}

#[test]
fn a_network_that_comes_up_anew_keeps_its_port_and_what_waits_there() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    // The default port is busy at first, and free when the network comes up anew.
    let busy = anna.beside("python3 -c \"import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 41820)); time.sleep(600)\"");
    anna.await_udp_port(41820);
    anna.ok(&["init", "home"]);
    drop(busy);
    let port = anna.status()["self"]["port"].clone();
    assert_ne!(port, 41820);
    let inode = || {
        anna.sh(&format!(
            "ss -Hlnue4 sport = :{port} | grep -o 'ino:[0-9]*'"
        ))
    };
    let before = inode();
    let [own, _] = anna.mesh_addresses();
    let pool = pool_of(&own);
    anna.sh(&format!("ip route add {pool} via 203.0.113.254 metric 7"));
    within(Duration::from_secs(10), "it came up anew", || {
        anna.status()["self"]["ipv4"] == Value::Null
    });
    assert_eq!(anna.status()["self"]["port"], port);
    assert_eq!(inode(), before, "the very same socket");
}

#[test]
fn ufw_is_named_with_what_opens_it() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    // ufw keeps its rules in /etc and /run: here in this machine's own, from its samples, which everybody may read.
    anna.sh(
        "mkdir -p ufw/applications.d && cp -L /usr/share/ufw/*.rules /etc/ufw/ufw.conf /etc/ufw/sysctl.conf ufw \
         && mount --bind ufw /etc/ufw && mount -t tmpfs none /run",
    );
    anna.sh("ufw --force enable && ufw allow 41820/udp");
    let _page = serve_page(anna);
    let output = anna.webmesh(&["service", "add", "page", "--port", "8000"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let remedy = "sudo ufw allow in on wm0 to any port 8000 proto tcp";
    assert_eq!(
        said,
        format!(
            "webmesh: page is published, but this machine drops it: its firewall (ufw) blocks wm0. There: {remedy}\n"
        )
    );
    assert_eq!(health(anna, "ipv4_blocked"), None, "ufw lets answers in");
    let fetch = "curl -sf --max-time 2 http://page.svc.home.internal:8000/hello";
    bo.ok(&["wait", "--service", "page", "--timeout", "10s"]);
    assert!(!bo.run(fetch).status.success(), "it was dropped indeed");
    anna.sh(remedy.strip_prefix("sudo ").unwrap());
    assert_eq!(bo.sh(fetch), "hello from anna\n");
    let said = anna.ok(&["service", "add", "page", "--port", "8000"]);
    assert!(said.contains("accepted in"), "{said}");

    // What comes to a target comes in at a port of the agent's own: the rule is to outlive that port.
    let site = |target| ["service", "add", "site", "--port", "80", "--target", target];
    let said = text(&anna.webmesh(&site("127.0.0.1:8000")).stderr);
    let remedy = "sudo ufw allow in on wm0 to any port 20000:29999 proto tcp";
    assert!(said.ends_with(&format!(" There: {remedy}\n")), "{said}");
    anna.sh(remedy.strip_prefix("sudo ").unwrap());
    for again in 0..3 {
        // Another target while the service stands, too.
        for target in ["127.0.0.1:8000", "127.0.0.2:8000"] {
            let said = anna.ok(&site(target));
            assert!(said.contains("accepted in"), "{again}: {said}");
        }
        anna.ok(&["service", "rm", "site"]);
    }
}

/// What Tailscale puts before all other rules, with its chain's name.
const TAILSCALE: &str = "nft add table ip filter \
    && nft 'add chain ip filter INPUT { type filter hook input priority 0; }' \
    && nft add chain ip filter ts-input \
    && nft add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != tailscale0 counter drop \
    && nft add rule ip filter INPUT counter jump ts-input";

/// Three machines of a network, a program on all of anna's addresses, a service of hers, and a neighbour.
struct World<'a> {
    anna: &'a Peer,
    bo: &'a Peer,
    neighbour: Machine,
    _programs: [crate::harness::Beside; 2],
}

impl<'a> World<'a> {
    fn around(net: &'a Net) -> Self {
        let addresses = ["203.0.113.66/24", "2001:db8::42/64"];
        let neighbour = net.lab().public("neighbour", &addresses).unwrap();
        net.form();
        let (anna, bo) = (net.peer("anna"), net.peer("bo"));
        let page = serve_page_at(anna, "127.0.0.1", 8080);
        anna.sh("true > heard");
        let listener = anna.beside(&format!("python3 -c \"{LISTENER}\" heard"));
        anna.await_udp_port(7000);
        let add = [
            "service",
            "add",
            "web",
            "--port",
            "80",
            "--target",
            "127.0.0.1:8080",
        ];
        anna.ok(&add);
        bo.ok(&["wait", "--service", "web", "--timeout", "10s"]);
        Self {
            anna,
            bo,
            neighbour,
            _programs: [page, listener],
        }
    }

    /// Everything that a neighbour may try; gives what he sent and what answered.
    fn attack(&self) -> Value {
        let (own, others) = (self.anna.mesh_addresses(), self.bo.mesh_addresses());
        let resolvers = servers(self.anna);
        let vip = self
            .anna
            .sh("dig +short web.svc.home.internal A web.svc.home.internal AAAA");
        let targets: Vec<&str> = own
            .iter()
            .chain(&others)
            .chain(&resolvers)
            .map(String::as_str)
            .chain(vip.lines())
            .collect();
        let forged: Vec<&str> = others
            .iter()
            .chain(&own)
            .chain(&resolvers)
            .map(String::as_str)
            .collect();
        let sockets = self.anna.sh("ss -Hlntu | grep -o '[^ ]*%wm0:[0-9]*'");
        let mut ports: Vec<&str> = sockets
            .lines()
            .filter_map(|socket| socket.rsplit_once(':'))
            .map(|(_, port)| port)
            .chain(["80", "53", "7000", "41820", "9"])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert!(
            ports.len() >= 7,
            "the resolver's port and the splice's: {ports:?}"
        );
        let script = self.neighbour.directory.join("attack.py");
        std::fs::write(&script, ATTACK).unwrap();
        let mut command = self.neighbour.command("timeout").unwrap();
        let output = command
            .args(["60", "python3"])
            .arg(script)
            .args([targets.join(","), forged.join(","), ports.join(",")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn heard(&self) -> String {
        std::fs::read_to_string(self.anna.file("heard")).unwrap()
    }

    fn assert_mesh_is_unharmed(&self) {
        for peer in [self.bo, self.anna] {
            for family in ["-4", "-6"] {
                let url = "http://web.svc.home.internal/hello";
                let page = peer.sh(&format!("curl -sf {family} --max-time 5 {url}"));
                assert_eq!(page, "hello from anna\n", "{}", peer.name());
            }
        }
        for own in self.anna.mesh_addresses() {
            self.bo.sh(&format!("ping -c 1 -W 3 {own}"));
        }
        self.bo.sh("dig +tcp +short anna.home.internal | grep -q .");
    }
}

/// How many packets the guard dropped.
fn guarded(peer: &Peer) -> u64 {
    peer.status()["drops"]["guard"].as_u64().unwrap_or(0)
}

fn health(peer: &Peer, code: &str) -> Option<Value> {
    let status = peer.status();
    let mut lines = status["health"].as_array().unwrap().iter();
    lines.find(|line| line["code"] == code).cloned()
}

fn servers(peer: &Peer) -> Vec<String> {
    let status = peer.status();
    let servers = status["dns"]["servers"].as_array().unwrap();
    servers
        .iter()
        .map(|server| server.as_str().unwrap().to_owned())
        .collect()
}

/// The /16 around an address.
fn pool_of(address: &str) -> String {
    let octets: Vec<&str> = address.split('.').collect();
    format!("{}.{}.0.0/16", octets[0], octets[1])
}

fn serve_page(peer: &Peer) -> crate::harness::Beside {
    serve_page_at(peer, "::", 8000)
}

fn serve_page_at(peer: &Peer, address: &str, port: u16) -> crate::harness::Beside {
    peer.sh(&format!(
        "mkdir www && echo hello from {} > www/hello",
        peer.name()
    ));
    let server = peer.beside(&format!(
        "python3 -m http.server -b {address} -d www {port}"
    ));
    peer.await_port(port);
    server
}

/// Each fetches the other's page by name.
fn assert_pages(one: &Peer, other: &Peer, family: &str) {
    for (client, server) in [(one, other), (other, one)] {
        let url = format!("http://{}.home.internal:8000/hello", server.name());
        let page = client.sh(&format!("curl -sf {family} --max-time 5 {url}"));
        assert_eq!(page, format!("hello from {}\n", server.name()));
    }
}

/// `FILE`: listens on port 7000 of every address, TCP and UDP, answers, and writes down who came.
const LISTENER: &str = r"
import socket, sys, threading
def heard(who):
    with open(sys.argv[1], 'a') as f:
        f.write('%s\n' % (who,))
t = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
u.bind(('::', 7000))
def tcp():
    while True:
        c, a = t.accept()
        heard(a)
        c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    m, a = u.recvfrom(2000)
    heard(a)
    u.sendto(m, a)
";

/// `TARGETS FORGED PORTS`, each a list: sends a SYN, a datagram and a ping to every target with the own source, and with
/// forged ones to every target and to anna's address on the LAN; prints how many it sent and what came back.
const ATTACK: &str = r"
import collections, ipaddress, json, select, struct, subprocess, sys, time
from socket import *
targets, forged, ports = [a.split(',') for a in sys.argv[1:]]
OWN, ANNA = {4: '203.0.113.66', 6: '2001:db8::42'}, {4: '203.0.113.11', 6: '2001:db8::b'}
for a in ANNA.values():
    subprocess.run(['ping', '-c', '1', '-W', '3', a], check=True, stdout=subprocess.DEVNULL)
mac = next(l.split()[4] for l in subprocess.check_output(['ip', 'neigh'], text=True).splitlines() if l.startswith(ANNA[4] + ' '))
mac = bytes.fromhex(mac.replace(':', ''))
s = socket(AF_PACKET, SOCK_RAW)
s.bind(('eth0', 3))
mine = s.getsockname()[4]

def checksum(b):
    b += b'\0' * (len(b) % 2)
    n = sum(struct.unpack('>%dH' % (len(b) // 2), b))
    n = (n & 0xffff) + (n >> 16)
    return ~(n + (n >> 16)) & 0xffff

def packet(src, dst, kind, port):
    src, dst = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    v = src.version
    if kind == 'tcp':
        proto, body, at = 6, struct.pack('>HHIIBBHHH', 4000, port, 1, 0, 0x50, 2, 1000, 0, 0), 16
    elif kind == 'udp':
        # A question for a name, which a resolver would answer.
        body = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4]) + b'anna' + bytes([4]) + b'home' + bytes([8]) + b'internal' + bytes([0, 0, 1, 0, 1])
        proto, body, at = 17, struct.pack('>HHHH', 4000, port, 8 + len(body), 0) + body, 6
    else:
        proto, body, at = (1 if v == 4 else 58), struct.pack('>BBHHH', 8 if v == 4 else 128, 0, 0, 1, 1), 2
    pseudo = src.packed + dst.packed + (struct.pack('>BBH', 0, proto, len(body)) if v == 4 else struct.pack('>IHBB', len(body), 0, 0, proto))
    if proto == 1:
        pseudo = b''
    body = body[:at] + struct.pack('>H', checksum(pseudo + body)) + body[at + 2:]
    if v == 6:
        return struct.pack('>IHBB', 6 << 28, len(body), proto, 64) + src.packed + dst.packed + body
    head = struct.pack('>BBHHHBBH', 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0) + src.packed + dst.packed
    return head[:10] + struct.pack('>H', checksum(head)) + head[12:] + body

def judge(frame, answers):
    kind, p = struct.unpack('>H', frame[12:14])[0], frame[14:]
    if frame[:6] != mine or frame[6:12] != mac or kind not in (0x800, 0x86dd):
        return
    v = p[0] >> 4
    proto, rest = (p[9], p[20:]) if v == 4 else (p[6], p[40:])
    if proto == 58 and rest[0] in range(133, 138):
        return
    if proto == 6:
        what = {0x12: 'accepted tcp %d'}.get(rest[13] & 0x12, 'refused tcp %d') % struct.unpack('>H', rest[:2])
    elif proto == 17:
        what = 'datagram udp %d' % struct.unpack('>H', rest[:2])
    else:
        what = 'icmp %d %d' % (v, rest[0])
    answers[what] += 1

same = lambda a, b: (':' in a) == (':' in b)
pairs = [(OWN[6 if ':' in t else 4], t) for t in targets]
pairs += [(f, t) for f in forged for t in targets + list(ANNA.values()) if same(f, t)]
sent, answers = 0, collections.Counter()

def listen(seconds):
    until = time.monotonic() + seconds
    while select.select([s], [], [], max(0, until - time.monotonic()))[0]:
        judge(s.recv(2000), answers)

for src, dst in pairs:
    for kind, port in [('ping', 0)] + [(kind, int(p)) for kind in ('tcp', 'udp') for p in ports]:
        p = packet(src, dst, kind, port)
        s.send(mac + mine + (b'\x08\0' if p[0] >> 4 == 4 else b'\x86\xdd') + p)
        sent += 1
    listen(0)
# An answer of a program on the same machine takes milliseconds. What is not guarded is answered: this ear hears.
listen(1.5)
ear = collections.Counter()
answers, told = ear, answers
s.send(mac + mine + b'\x08\0' + packet(OWN[4], ANNA[4], 'ping', 0))
listen(1)
print(json.dumps({'sent': sent, 'answers': told, 'ear': ear}))
";
