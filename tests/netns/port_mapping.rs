//! Issue 5, port mapping: a home router that speaks PCP, NAT-PMP or UPnP (miniupnpd) lets others in, and they come in.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use webmesh::demo::{lab::Machine, order::NatKind};

use crate::harness::{Net, Peer, text, within};

/// The router's public address as miniupnpd is told it: it takes none of the ranges for documentation. Nobody outside the
/// lab is asked for it.
const OUTSIDE: &str = "192.0.1.5";

/// What a router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Pcp,
    NatPmp,
    Upnp,
}

impl Speaks {
    fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }

    /// miniupnpd answers PCP wherever it answers NAT-PMP.
    fn rules(self) -> &'static str {
        match self {
            Self::Pcp | Self::Upnp => "",
            Self::NatPmp => NO_PCP,
        }
    }
}

/// miniupnpd in a router; it ends with this.
struct Upnp(Child);

impl Drop for Upnp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A home router, in whose LAN anna is to be, and vps outside.
struct Home {
    // Declared first: it ends before the namespaces go.
    _upnp: Upnp,
    net: Net,
    router: Machine,
}

impl Home {
    fn that(speaks: Speaks) -> Self {
        let net = Net::empty();
        let wan = ["203.0.113.5/24", &format!("{OUTSIDE}/24")];
        let router = net
            .lab()
            .router("router", &wan, "192.168.1.1/24", NatKind::Masquerade)
            .unwrap();
        let upnp = start(&router, speaks, &format!("ext_ip={OUTSIDE}\n"));
        let mut home = Self {
            _upnp: upnp,
            net,
            router,
        };
        home.net.add_public("vps", 10);
        home.net
            .lab()
            .address("vps", "eth0", "192.0.1.10/24")
            .unwrap();
        home.net.add_behind("router", "anna", "192.168.1.2/24");
        home
    }

    fn anna(&self) -> &Peer {
        self.net.peer("anna")
    }
}

fn start(router: &Machine, speaks: Speaks, external: &str) -> Upnp {
    rule(router, &format!("{RULES}{}", speaks.rules()));
    let on = |is_on| if is_on { "yes" } else { "no" };
    let config = format!(
        "ext_ifname=wan\n{external}listening_ip=lan\nport=0\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\n\
         upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=forward_upnp\n\
         upnp_nat_chain=prerouting_upnp\nupnp_nat_postrouting_chain=postrouting_upnp\n\
         uuid=00000000-0000-4000-8000-000000000000\nallow 1024-65535 192.168.1.0/24 1024-65535\n\
         deny 0-65535 0.0.0.0/0 0-65535\n",
        on(speaks != Speaks::Upnp),
        on(speaks == Speaks::Upnp)
    );
    fs::write(router.directory.join("upnp.conf"), config).unwrap();
    let log = fs::File::create(router.directory.join("upnp.log")).unwrap();
    let child = router
        .command("miniupnpd")
        .unwrap()
        .args(["-d", "-f", "upnp.conf", "-P", "upnp.pid"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let upnp = Upnp(child.unwrap());
    let port = if speaks == Speaks::Upnp { 1900 } else { 5351 };
    let listens = format!("ss -Hlun 'sport = :{port}' | grep -q .");
    within(Duration::from_secs(10), "the router listens", || {
        run(router, &listens)
    });
    upnp
}

/// Gives a router rules of nft.
fn rule(router: &Machine, rules: &str) {
    fs::write(router.directory.join("rules.nft"), rules).unwrap();
    sh(router, "nft -f rules.nft");
}

fn run(machine: &Machine, line: &str) -> bool {
    let mut command = machine.command("sh").unwrap();
    command.args(["-c", line]).status().unwrap().success()
}

fn sh(machine: &Machine, line: &str) -> String {
    let mut command = machine.command("sh").unwrap();
    let output = command.args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn netcheck(peer: &Peer) -> Value {
    serde_json::from_str(&peer.ok(&["netcheck", "--json"])).unwrap()
}

/// How many holes the router has.
fn holes(router: &Machine) -> usize {
    sh(router, "nft list chain inet upnp prerouting_upnp")
        .matches("dnat")
        .count()
}

fn is_reached_from_outside_by(speaks: Speaks) {
    let mut home = Home::that(speaks);
    let said = home.anna().ok(&["init", "home"]);
    // A router that is searched for may take longer than a person waits; it is told as soon as it is known.
    within(Duration::from_secs(6), "the router lets others in", || {
        netcheck(home.anna())["port_mapping"]["state"] == "mapped"
    });
    if speaks != Speaks::Upnp {
        let line = format!("reach     behind NAT {OUTSIDE}, port mapped");
        assert!(said.contains(&line), "{said}");
    }
    let known = netcheck(home.anna());
    let mapping = &known["port_mapping"];
    assert_eq!(mapping["protocol"], speaks.name(), "{known}");
    assert_eq!(mapping["external"], format!("{OUTSIDE}:41820"));
    let published = known["published"].as_array().unwrap();
    assert!(
        published.contains(&format!("{OUTSIDE}:41820").into()),
        "{known}"
    );
    let words = home.anna().ok(&["netcheck"]);
    let line = format!("port mapping    {OUTSIDE}:41820 by {}\n", speaks.name());
    assert!(words.contains(&line), "{words}");
    assert_eq!(holes(&home.router), 1);

    // The token leads through the hole: nothing else leads from vps to anna.
    let token = home.anna().invite();
    let vps = home.net.peer("vps");
    let joined = vps.webmesh(&["join", &token]);
    let said = text(&joined.stderr);
    assert!(joined.status.success(), "{said}");
    assert!(said.contains(&format!("{OUTSIDE}:41820 yes")), "{said}");

    home.net.peer_mut("anna").agent.stop().unwrap();
    within(
        Duration::from_secs(2),
        "the hole is closed at the end",
        || holes(&home.router) == 0,
    );
}

#[test]
fn a_machine_behind_a_router_is_reached_from_outside_by_pcp() {
    is_reached_from_outside_by(Speaks::Pcp);
}

#[test]
fn a_machine_behind_a_router_is_reached_from_outside_by_nat_pmp() {
    is_reached_from_outside_by(Speaks::NatPmp);
}

#[test]
fn a_machine_behind_a_router_is_reached_from_outside_by_upnp() {
    is_reached_from_outside_by(Speaks::Upnp);
}

#[test]
fn an_agent_that_was_killed_gets_its_hole_back_and_down_closes_it() {
    let mut home = Home::that(Speaks::Pcp);
    home.anna().ok(&["init", "home"]);
    assert_eq!(netcheck(home.anna())["port_mapping"]["state"], "mapped");
    let anna = home.net.peer_mut("anna");
    anna.agent.kill().unwrap();
    assert_eq!(holes(&home.router), 1);
    home.net.peer_mut("anna").agent.start().unwrap();
    within(Duration::from_secs(3), "the same hole again", || {
        netcheck(home.anna())["port_mapping"]["state"] == "mapped"
    });
    assert_eq!(holes(&home.router), 1);
    home.anna().ok(&["down"]);
    within(Duration::from_secs(3), "no hole while it is down", || {
        holes(&home.router) == 0
    });
    home.anna().ok(&["up"]);
    within(Duration::from_secs(3), "a hole again", || {
        holes(&home.router) == 1
    });
}

#[test]
fn a_machine_that_moves_asks_for_its_new_address() {
    let home = Home::that(Speaks::Pcp);
    home.anna().ok(&["init", "home"]);
    let points_at = |address: &str| {
        sh(&home.router, "nft list chain inet upnp prerouting_upnp").contains(address)
    };
    assert!(points_at("192.168.1.2:41820"));
    home.anna().sh(
        "ip addr del 192.168.1.2/24 dev eth0; ip addr add 192.168.1.20/24 dev eth0; ip route add default via 192.168.1.1",
    );
    within(
        Duration::from_secs(15),
        "a hole for the new address",
        || points_at("192.168.1.20:41820"),
    );
    within(Duration::from_secs(5), "it is known", || {
        netcheck(home.anna())["port_mapping"]["state"] == "mapped"
    });
}

#[test]
fn a_router_behind_a_router_opens_nothing_and_is_told_to_nobody() {
    // miniupnpd itself refuses to work with a private address outside, so a router is played that does not.
    let net = Net::empty();
    let wan = ["203.0.113.5/24"];
    let lan = "192.168.1.1/24";
    let router = net.lab().router("router", &wan, lan, NatKind::Masquerade);
    let router = router.unwrap();
    let script = router.directory.join("double.py");
    fs::write(&script, DOUBLE_NAT).unwrap();
    let child = router.command("python3").unwrap().arg(&script).spawn();
    let _played = Upnp(child.unwrap());
    within(Duration::from_secs(5), "the router listens", || {
        run(&router, "ss -Hlun 'sport = :5351' | grep -q .")
    });
    let mut net = net;
    net.add_behind("router", "anna", "192.168.1.2/24");
    let anna = net.peer("anna");
    let said = anna.ok(&["init", "home"]);
    assert!(!said.contains("port mapped"), "{said}");
    let known = netcheck(anna);
    assert_eq!(known["port_mapping"]["state"], "double_nat", "{known}");
    assert_eq!(known["port_mapping"]["external"], "100.64.7.7:41820");
    assert!(
        !known["published"].to_string().contains("100.64."),
        "{known}"
    );
    let words = anna.ok(&["netcheck"]);
    assert!(words.contains("is itself behind another one"), "{words}");
}

#[test]
fn a_router_that_speaks_nothing_is_named_so_and_costs_init_a_second_at_most() {
    let mut net = Net::empty();
    net.add_home("anna", 5);
    let machines = net.lab().machines();
    let router = machines.iter().find(|one| one.name == "router-anna");
    rule(router.unwrap(), MUTE);
    let anna = net.peer("anna");
    let began = Instant::now();
    anna.ok(&["init", "home"]);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    within(Duration::from_secs(15), "the search is over", || {
        netcheck(anna)["port_mapping"]["state"] == "silent"
    });
    let words = anna.ok(&["netcheck"]);
    assert!(words.contains("neither PCP, NAT-PMP nor UPnP"), "{words}");
}

#[test]
fn a_public_machine_asks_nobody_and_who_switched_it_off_neither() {
    let mut net = Net::empty();
    net.add_public("vps", 10);
    let off = "[rendezvous]\nport_mapping = false\n";
    let wan = ["203.0.113.5/24"];
    let lan = "192.168.1.1/24";
    net.lab()
        .router("router", &wan, lan, NatKind::Masquerade)
        .unwrap();
    net.add_configured_behind("router", ("anna", "192.168.1.2/24"), off);
    for (name, state, words) in [
        ("vps", "unneeded", "port mapping    not needed: "),
        ("anna", "off", "port mapping    off: "),
    ] {
        let peer = net.peer(name);
        peer.ok(&["init", "home"]);
        assert_eq!(netcheck(peer)["port_mapping"]["state"], state);
        let said = peer.ok(&["netcheck"]);
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(netcheck(net.peer("vps"))["nat"], "none");
    assert_eq!(net.peer("vps").status()["self"]["nat"], "none");
}

/// The chains that miniupnpd fills, and the way through the router's filter for what it lets in.
const RULES: &str = "
table inet upnp {
    chain forward_upnp {
    }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump prerouting_upnp
    }
    chain prerouting_upnp {
    }
    chain postrouting_upnp {
    }
}
insert rule ip router forward ct status dnat accept
";

/// An older router is silent about what it does not know.
const NO_PCP: &str = "
table ip older {
    chain input {
        type filter hook input priority -10; policy accept;
        udp dport 5351 @th,64,8 2 drop
    }
}
";

/// Nothing answers at all, not even by ICMP.
const MUTE: &str = "
table ip mute {
    chain input {
        type filter hook input priority -10; policy accept;
        iifname lan udp dport { 5351, 1900 } drop
    }
}
";

/// A NAT-PMP router that gives whatever is asked, and whose public address is its provider's.
const DOUBLE_NAT: &str = "
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('192.168.1.1', 5351))
while True:
    asked, who = s.recvfrom(1100)
    if asked[0] != 0:
        s.sendto(struct.pack('!BBHI', 0, 128, 1, 9), who)
    elif asked[1] == 0:
        s.sendto(struct.pack('!BBHI', 0, 128, 0, 9) + socket.inet_aton('100.64.7.7'), who)
    else:
        inner, outer, life = struct.unpack('!HHI', asked[4:12])
        s.sendto(struct.pack('!BBHIHHI', 0, 128 + asked[1], 0, 9, inner, outer, life), who)
";
