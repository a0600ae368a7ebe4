//! Issue 3, points 2 and 9: every pair, every protocol, over wide and narrow links.

use std::time::Duration;

use webmesh::demo::order::{NatKind, Order};

use crate::{
    ground::{Ground, over},
    harness::{Net, Peer, within},
};

over! { wide, Plain:
    every_pair_speaks_icmp_udp_and_tcp_over_both_families,
    two_hundred_megabytes_by_tcp_arrive_whole,
    ssh_and_scp_run_over_the_mesh,
}
over! { ipv4_with_an_mtu_of_1280, Narrow4:
    every_pair_speaks_icmp_udp_and_tcp_over_both_families,
    two_hundred_megabytes_by_tcp_arrive_whole,
    ssh_and_scp_run_over_the_mesh,
}
over! { ipv6_with_an_mtu_of_1280, Narrow6:
    every_pair_speaks_icmp_udp_and_tcp_over_both_families,
    two_hundred_megabytes_by_tcp_arrive_whole,
    ssh_and_scp_run_over_the_mesh,
}
over! { ipv6_alone, Only6:
    every_pair_speaks_icmp_udp_and_tcp_over_both_families,
}

fn every_pair_speaks_icmp_udp_and_tcp_over_both_families(ground: Ground) {
    let net = Net::three_on(ground);
    net.form();
    every_pair_speaks(&net);
}

/// ICMP, UDP and TCP, v4 and v6, from each machine to each other, in packets that are full.
pub(crate) fn every_pair_speaks(net: &Net) {
    for server in net.names() {
        let server = net.peer(&server);
        let _tcp = server.beside(&format!("python3 -c \"{ECHO}\" tcp :: 7000"));
        let _udp = server.beside(&format!("python3 -c \"{ECHO}\" udp :: 7001"));
        server.await_port(7000);
        server.await_udp_port(7001);
        for client in net.names().iter().filter(|name| *name != server.name()) {
            let client = net.peer(client);
            for (address, around) in server.mesh_addresses().iter().zip([28, 48]) {
                client.sh(&format!("ping -c 1 -W 3 {address}"));
                let full = DEVICE_MTU - around;
                client.sh(&format!("ping -c 1 -W 3 -M do -s {full} {address}"));
                assert_echo(client, "tcp", address, 7000);
                assert_echo(client, "udp", address, 7001);
            }
        }
    }
}

pub(crate) fn assert_echo(client: &Peer, kind: &str, host: &str, port: u16) {
    let said = client.sh(&format!("python3 -c \"{ASK}\" {kind} {host} {port}"));
    assert_eq!(said, "echo\n", "{}$ {kind} to {host}", client.name());
}

fn two_hundred_megabytes_by_tcp_arrive_whole(ground: Ground) {
    let net = Net::three_on(ground);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh("head -c 200000000 /dev/urandom > big");
    let _server = anna.beside("python3 -m http.server -b :: 8000");
    anna.await_port(8000);
    bo.sh("curl -sf -o big http://anna.home.internal:8000/big");
    let sum = |peer: &Peer| peer.sh("sha256sum < big");
    assert_eq!(sum(anna), sum(bo));
}

fn ssh_and_scp_run_over_the_mesh(ground: Ground) {
    let net = Net::three_on(ground);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh("ssh-keygen -q -t ed25519 -N '' -f host");
    bo.sh("ssh-keygen -q -t ed25519 -N '' -f key && head -c 1000000 /dev/urandom > letter");
    std::fs::copy(bo.file("key.pub"), anna.file("authorized")).unwrap();
    let home = anna.file("");
    let home = home.display();
    // A machine of a lab has one user. As root sshd would change to others, so it runs as a guest, who may let in
    // nobody but himself.
    let guest = format!("root:x:0:0::/root:/bin/sh\nguest:x:1000:1000::{home}:/bin/sh\n");
    std::fs::write(anna.file("passwd"), guest).unwrap();
    anna.sh("mount --bind passwd /etc/passwd");
    let config = format!(
        "Port 2222\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\nStrictModes no\nPidFile none\n\
         UsePAM no\nSubsystem sftp internal-sftp\n"
    );
    std::fs::write(anna.file("sshd_config"), config).unwrap();
    let _sshd = anna.beside(&format!(
        "unshare --user --map-user=1000 --map-group=1000 /usr/sbin/sshd -D -e -f {home}/sshd_config"
    ));
    anna.await_port(2222);
    let client = "-F none -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                  -o BatchMode=yes -o LogLevel=ERROR";
    let said = bo.sh(&format!(
        "ssh {client} -p 2222 guest@anna.home.internal hostname"
    ));
    assert_eq!(said, "anna\n");
    bo.sh(&format!(
        "scp {client} -P 2222 letter guest@anna.home.internal:{home}/letter"
    ));
    assert_eq!(anna.sh("sha256sum < letter"), bo.sh("sha256sum < letter"));
}

#[test]
fn a_peer_to_which_no_way_is_found_is_idle_and_no_error_of_the_whole() {
    let mut net = Net::empty();
    net.add_configured("vps", 10, "[relay]\nudp = false\n");
    net.add_home_behind(NatKind::Symmetric, "anna", 5);
    net.add_home_behind(NatKind::Symmetric, "bo", 6);
    net.form();
    let (vps, anna, bo) = (net.peer("vps"), net.peer("anna"), net.peer("bo"));
    within(Duration::from_secs(5), "anna knows bo", || {
        anna.state_of("bo") == "idle"
    });
    for target in bo.mesh_addresses() {
        let said = anna.run(&format!("ping -c 1 -W 6 {target}"));
        let said = crate::harness::text(&said.stdout);
        assert!(
            said.contains("nreachable"),
            "told after 3 s, not left waiting: {said}"
        );
    }
    let said = anna.refused(1, &["ping", "-c", "1", "bo"]);
    assert!(said.contains("no answer from bo"), "{said}");
    let status = anna.status();
    assert_eq!(status["state"], "up");
    assert!(
        ["idle", "away"].contains(&anna.state_of("bo").as_str()),
        "{status}"
    );
    let health = status["health"].as_array().unwrap();
    assert!(
        health.iter().all(|line| line["level"] != "error"),
        "{status}"
    );
    anna.ok(&["wait", "--timeout", "5s"]);
    let everyone = [vps, bo];
    for target in everyone[0].mesh_addresses() {
        anna.sh(&format!("ping -c 1 -W 2 {target}"));
        bo.sh(&format!("ping -c 1 -W 2 {target}"));
    }
}

#[test]
fn a_way_that_was_cut_and_comes_back_is_found_again() {
    let net = Net::three();
    net.form();
    let (bo, carol) = (net.peer("bo"), net.peer("carol"));
    let target = &carol.mesh_addresses()[0];
    bo.sh(&format!("ping -c 1 -W 3 {target}"));
    let order = |up: bool| {
        let (from, net_of) = ("carol", ["203.0.113.13/24", "2001:db8::d/64"]);
        for text in net_of {
            let net_of = text.parse().unwrap();
            let (at, link) = (from.to_owned(), "eth0".to_owned());
            let order = if up {
                Order::Address {
                    at,
                    link,
                    net: net_of,
                }
            } else {
                Order::RemoveAddress {
                    at,
                    link,
                    net: net_of,
                }
            };
            net.lab().order(order).unwrap();
        }
    };
    order(false);
    assert!(!bo.run(&format!("ping -c 1 -W 1 {target}")).status.success());
    assert_eq!(bo.status()["state"], "up");
    order(true);
    within(Duration::from_secs(15), "carol answers again", || {
        bo.run(&format!("ping -c 1 -W 1 {target}")).status.success()
    });
}

#[test]
fn whois_ping_and_peers_name_the_machine_behind_an_address() {
    let net = Net::three();
    net.form();
    let bo = net.peer("bo");
    let [v4, v6] = net.peer("anna").mesh_addresses();
    for address in [&v4, &v6] {
        assert!(bo.ok(&["whois", address]).starts_with("anna"));
    }
    assert!(bo.ok(&["ping", "-c", "1", "anna"]).contains("ms"));
    assert!(bo.ok(&["peers", "anna"]).contains(&v4));
    let said = bo.refused(1, &["whois", "ana"]);
    assert!(
        said.contains("anna"),
        "the nearest name is suggested: {said}"
    );
}

/// The device's MTU (design §6).
const DEVICE_MTU: u32 = 1420;

/// Answers every message with itself: `tcp|udp ADDRESS PORT`; on `::` for both families.
pub(crate) const ECHO: &str = "
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
if kind == 'tcp':
    s = socket.create_server((host, port), family=family, dualstack_ipv6=host == '::')
    while True:
        c, _ = s.accept()
        c.sendall(c.recv(100))
        c.close()
s = socket.socket(family, socket.SOCK_DGRAM)
if host == '::':
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind((host, port))
while True:
    m, a = s.recvfrom(100)
    s.sendto(m, a)
";

/// Sends `echo` and prints what comes back: `tcp|udp HOST PORT`.
const ASK: &str = "
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == 'tcp':
    s = socket.create_connection((host, port), 5)
else:
    f, _, _, _, a = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)[0]
    s = socket.socket(f, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect(a)
s.sendall(b'echo')
print(s.recv(100).decode())
";
