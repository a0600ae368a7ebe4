//! Issue 3, point 2: every pair, every protocol, names, services.

use std::time::Duration;

use crate::harness::{Net, Peer, within};

#[test]
fn every_pair_speaks_icmp_udp_and_tcp_over_both_families() {
    let net = Net::three();
    net.form();
    for server in net.names() {
        let server = net.peer(&server);
        let _tcp = server.beside(&format!("python3 -c \"{ECHO}\" tcp 7000"));
        let _udp = server.beside(&format!("python3 -c \"{ECHO}\" udp 7001"));
        server.await_port(7000);
        for client in net.names().iter().filter(|name| *name != server.name()) {
            let client = net.peer(client);
            for address in server.mesh_addresses() {
                client.sh(&format!("ping -c 1 -W 3 {address}"));
                assert_echo(client, "tcp", &address, 7000);
                assert_echo(client, "udp", &address, 7001);
            }
        }
    }
}

fn assert_echo(client: &Peer, kind: &str, host: &str, port: u16) {
    let said = client.sh(&format!("python3 -c \"{ASK}\" {kind} {host} {port}"));
    assert_eq!(said, "echo\n", "{}$ {kind} to {host}", client.name());
}

#[test]
fn two_hundred_megabytes_by_tcp_arrive_whole() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh("head -c 200000000 /dev/urandom > big");
    let _server = anna.beside("python3 -m http.server -b :: 8000");
    anna.await_port(8000);
    bo.sh("curl -sf -o big http://anna.home.internal:8000/big");
    let sum = |peer: &Peer| peer.sh("sha256sum < big");
    assert_eq!(sum(anna), sum(bo));
}

#[test]
fn a_service_on_the_loopback_is_reached_by_name_from_others_and_from_its_own_host() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh("mkdir www && echo hello from anna > www/index.html");
    let _server = anna.beside("python3 -m http.server -b 127.0.0.1 -d www 8080");
    anna.await_port(8080);
    let said = anna.ok(&[
        "service",
        "add",
        "web",
        "--port",
        "80",
        "--target",
        "127.0.0.1:8080",
    ]);
    assert!(said.contains("web.svc.home.internal:80"), "{said}");
    assert!(said.contains("accepted in"), "{said}");
    bo.ok(&["wait", "--service", "web", "--timeout", "10s"]);
    for peer in [bo, anna] {
        for url in [
            "http://web.svc.home.internal/",
            "http://web.anna.home.internal/",
        ] {
            for family in ["-4", "-6"] {
                let page = peer.sh(&format!("curl -sf {family} --max-time 5 {url}"));
                assert_eq!(page, "hello from anna\n", "{} {family} {url}", peer.name());
            }
        }
    }
    anna.ok(&["service", "rm", "web"]);
    within(Duration::from_secs(5), "the name is gone", || {
        bo.sh("dig +short web.svc.home.internal").is_empty()
    });
}

#[test]
fn a_udp_service_on_the_loopback_answers_by_name() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let _server = anna.beside(&format!("python3 -c \"{ECHO}\" udp 7001"));
    anna.ok(&[
        "service",
        "add",
        "echo",
        "--port",
        "7/udp",
        "--target",
        "127.0.0.1:7001",
    ]);
    bo.ok(&["wait", "--service", "echo", "--timeout", "10s"]);
    for peer in [bo, anna] {
        assert_echo(peer, "udp", "echo.svc.home.internal", 7);
    }
}

#[test]
fn a_server_on_all_addresses_sees_the_client_s_own_mesh_address() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let _server = anna.beside("python3 -u -m http.server -b 0.0.0.0 8000");
    anna.await_port(8000);
    anna.ok(&["service", "add", "files", "--port", "8000"]);
    bo.ok(&["wait", "--service", "files", "--timeout", "10s"]);
    bo.sh("curl -sf -4 -o /dev/null http://files.svc.home.internal:8000/");
    let [own, _] = bo.mesh_addresses();
    let log = std::fs::read_to_string(anna.file("beside.log")).unwrap();
    assert!(
        log.lines().any(|line| line.starts_with(&format!("{own} "))),
        "{log}"
    );
    assert_eq!(
        anna.sh(&format!("dig +short -x {own}")),
        "bo.home.internal.\n"
    );
}

#[test]
fn the_resolver_answers_each_kind_of_question_as_dns_asks() {
    let net = Net::three();
    net.form();
    let bo = net.peer("bo");
    let [v4, v6] = net.peer("anna").mesh_addresses();
    for transport in ["", "+tcp"] {
        let ask = |question: &str| bo.sh(&format!("dig +time=3 +tries=1 {transport} {question}"));
        assert_eq!(ask("+short anna.home.internal A"), format!("{v4}\n"));
        assert_eq!(ask("+short anna.home.internal AAAA"), format!("{v6}\n"));
        assert_eq!(ask(&format!("+short -x {v4}")), "anna.home.internal.\n");
        assert_eq!(ask(&format!("+short -x {v6}")), "anna.home.internal.\n");
        assert!(ask("home.internal SOA").contains("status: NOERROR"));
        assert_ne!(ask("+short home.internal NS"), "");
        assert!(ask("nobody.home.internal").contains("status: NXDOMAIN"));
        let other_type = ask("anna.home.internal MX");
        assert!(
            other_type.contains("status: NOERROR") && other_type.contains("ANSWER: 0"),
            "{other_type}"
        );
        assert!(ask("www.example.com").contains("status: REFUSED"));
    }
}

#[test]
fn ssh_and_scp_run_over_the_mesh() {
    let net = Net::three();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    if !nix::unistd::geteuid().is_root() {
        // sshd gives up its rights to a second user, which a namespace with root alone does not have.
        return;
    }
    anna.sh("ssh-keygen -q -t ed25519 -N '' -f host && mkdir -p /run/sshd");
    bo.sh("ssh-keygen -q -t ed25519 -N '' -f key && echo a file > letter");
    std::fs::copy(bo.file("key.pub"), anna.file("authorized")).unwrap();
    let options = format!(
        "-o AuthorizedKeysFile={} -o StrictModes=no -o PidFile=none -o UsePAM=no -o PermitRootLogin=yes",
        anna.file("authorized").display()
    );
    let _sshd = anna.beside(&format!(
        "/usr/sbin/sshd -D -e -p 2222 -h {} {options} -o Subsystem='sftp internal-sftp'",
        anna.file("host").display()
    ));
    anna.await_port(2222);
    let client =
        "-i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -q";
    assert_eq!(
        bo.sh(&format!(
            "ssh {client} -p 2222 root@anna.home.internal hostname"
        )),
        "anna\n"
    );
    let to = anna.file("letter");
    bo.sh(&format!(
        "scp {client} -P 2222 letter root@anna.home.internal:{}",
        to.display()
    ));
    assert_eq!(std::fs::read_to_string(to).unwrap(), "a file\n");
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

/// Answers every message with itself: `tcp|udp PORT`, on all addresses of both families.
const ECHO: &str = "
import socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
if kind == 'tcp':
    s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        c, _ = s.accept()
        c.sendall(c.recv(100))
        c.close()
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', port))
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
