//! Issue 4, points 2 and 3: `/etc/resolv.conf` in our hands and back, on machines with an `/etc` of their own.

use std::time::{Duration, Instant};

use webmesh::demo::capture::Capture;

use crate::harness::{Beside, Net, Peer, sample, text};

/// What stood there before: anna's machine is the old server.
const OLD: &str = "# by hand\\nnameserver 203.0.113.11\\nsearch lan\\noptions attempts:1\\n";

/// The name of the network as questions carry it.
const ON_THE_WIRE: &[u8] = b"\x04home\x08internal";

#[test]
fn takeover_serves_our_names_forwards_all_others_and_goes_without_a_trace() {
    let net = two();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    give_own_etc(bo);
    let _old_server = serve_names(anna);
    let before = etc(bo);
    assert_eq!(look_up(bo, "www.example.com"), "192.0.2.80");
    let said = bo.refused_text(1, &["dns", "status"]);
    assert!(said.contains("sudo webmesh dns takeover"), "{said}");

    let wire = Capture::start(net.lab(), "bo").unwrap();
    let said = bo.ok(&["dns", "takeover"]);
    assert!(said.contains("dns takeover --undo"), "{said}");
    await_backend(bo, "forward");
    let [v4, _] = anna.mesh_addresses();
    assert_eq!(look_up(bo, "anna.home.internal"), v4);
    assert_eq!(look_up(bo, "anna"), v4);
    assert_eq!(look_up(bo, "www.example.com"), "192.0.2.80");
    assert_eq!(bo.sh("dig +short +tcp www.example.com"), "192.0.2.80\n");
    assert!(bo.ok(&["dns", "status"]).contains(&format!(
        "resolves bo.home.internal to {}",
        bo.mesh_addresses()[0]
    )));

    // Whatever is asked about the mesh, whether it is there or not, and whether the old server lives: nothing leaves.
    assert_eq!(ask_many(bo, sample(1_000, 10_000)), "0\n");
    assert!(!bo.run("getent hosts nobody.home.internal").status.success());
    // An answer that leads into the mesh is none.
    std::fs::write(anna.file("rebind"), &v4).unwrap();
    assert!(
        !bo.run("getent ahostsv4 rebind.example.com")
            .status
            .success()
    );
    assert_eq!(bo.sh("dig +short rebind.example.com"), "");
    let asked = std::fs::read_to_string(anna.file("asked")).unwrap();
    assert!(
        asked.contains("www.example.com") && !asked.contains("internal"),
        "{asked}"
    );
    drop(_old_server);
    assert_eq!(look_up(bo, "anna.home.internal"), v4);
    assert!(!bo.run("getent hosts www.example.com").status.success());
    let seen = wire.stop(&[41820], ON_THE_WIRE).unwrap();
    assert!(seen.datagrams > 0 && seen.needles == 0, "{seen:?}");

    assert_eq!(
        bo.ok(&["dns", "takeover", "--undo"]),
        "/etc/resolv.conf is what it was before.\n"
    );
    assert_eq!(etc(bo), before);
    await_backend(bo, "none");
}

#[test]
fn after_a_kill_other_names_cost_a_second_and_revert_brings_everything_back() {
    let mut net = two();
    give_own_etc(net.peer("bo"));
    let _old_server = serve_names(net.peer("anna"));
    let before = etc(net.peer("bo"));
    net.peer("bo").ok(&["dns", "takeover"]);
    let asked = net.peer("anna").file("asked");
    let names_of_ours = || {
        std::fs::read_to_string(&asked)
            .unwrap()
            .contains("internal")
    };
    net.peer_mut("bo").agent.kill().unwrap();
    let bo = net.peer("bo");
    // The price of it, which README tells: nobody stands between the names of the mesh and the old server.
    assert!(!names_of_ours());
    assert!(!bo.run("getent hosts anna.home.internal").status.success());
    assert!(names_of_ours());
    let began = Instant::now();
    assert_eq!(look_up(bo, "www.example.com"), "192.0.2.80");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    bo.ok(&["dns-helper", "revert"]);
    // A person still wants it: the mark stays, so that it comes again with the network.
    bo.sh("rm etc/webmesh/takeover");
    assert_eq!(etc(bo), before);
    bo.ok(&["dns-helper", "revert"]);
    assert_eq!(etc(bo), before);
}

#[test]
fn a_mounted_file_is_written_over_and_a_changed_one_is_left_alone() {
    let net = two();
    let bo = net.peer("bo");
    give_own_etc(bo);
    bo.sh("cp etc/resolv.conf mounted && mount --bind mounted /etc/resolv.conf");
    let before = etc(bo);
    bo.ok(&["dns", "takeover"]);
    assert!(bo.sh("cat mounted").contains("webmesh dns takeover"));
    bo.ok(&["dns", "takeover", "--undo"]);
    assert_eq!(etc(bo), before);

    bo.ok(&["dns", "takeover"]);
    bo.sh("echo nameserver 203.0.113.99 > /etc/resolv.conf");
    let said = bo.refused(2, &["dns", "takeover", "--undo"]);
    assert!(
        said.contains("was written by somebody else since"),
        "{said}"
    );
    assert_eq!(bo.sh("cat /etc/resolv.conf"), "nameserver 203.0.113.99\n");
}

#[test]
fn where_nobody_said_so_nothing_of_etc_is_touched() {
    let net = two();
    let bo = net.peer("bo");
    give_own_etc(bo);
    let before = etc(bo);
    for words in [
        &["down"][..],
        &["up"],
        &["dns-helper", "apply"],
        &["dns-helper", "revert"],
        &["leave", "home"],
    ] {
        bo.ok(words);
        assert_eq!(etc(bo), before, "{words:?}");
    }
    assert!(!bo.file("dns.json").exists());
    let said = bo.refused(2, &["dns", "takeover"]);
    assert!(
        said.contains("the agent's network is not up here"),
        "{said}"
    );
    assert_eq!(etc(bo), before);
}

fn two() -> Net {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.peer("anna").ok(&["init", "home"]);
    let token = net.peer("anna").invite();
    net.peer("bo").ok(&["join", &token]);
    net
}

/// An `/etc` that only this machine sees, with what look-ups need.
fn give_own_etc(peer: &Peer) {
    peer.sh(&format!(
        "mkdir etc && cp -L /etc/nsswitch.conf /etc/passwd /etc/group /etc/hosts etc/ && printf '{OLD}' > etc/resolv.conf && \
         chmod 640 etc/resolv.conf && mount --bind etc /etc"
    ));
}

/// Everything in that `/etc`: names, kinds, modes, inodes, links, bytes.
fn etc(peer: &Peer) -> String {
    peer.sh("cd etc && find . -path ./webmesh -prune -o -printf '%p %y %m %i %l\\n' | sort && cat resolv.conf")
}

/// A server that knows every name but those under `internal`, writes down what it is asked, and leads one into the mesh.
fn serve_names(peer: &Peer) -> Beside {
    std::fs::write(peer.file("server.py"), SERVER).unwrap();
    let server = peer.beside("python3 server.py");
    peer.await_udp_port(53);
    server
}

const SERVER: &str = r"
import socket, struct, threading
log = open('asked', 'a', buffering=1)
def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    name = '.'.join(labels).lower()
    log.write(name + '\n')
    kind = struct.unpack('>H', query[at + 1:at + 3])[0]
    question = query[12:at + 5]
    if 'internal' in name:
        return query[:2] + b'\x81\x83\x00\x01\x00\x00\x00\x00\x00\x00' + question
    if kind != 1:
        return query[:2] + b'\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00' + question
    address = open('rebind').read() if name.startswith('rebind') else '192.0.2.80'
    record = b'\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04' + socket.inet_aton(address.strip())
    return query[:2] + b'\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00' + question + record
open('rebind', 'w').write('100.64.0.1')
tcp = socket.create_server(('', 53))
def streams():
    while True:
        stream, _ = tcp.accept()
        length = struct.unpack('>H', stream.recv(2))[0]
        said = answer(stream.recv(length))
        stream.sendall(struct.pack('>H', len(said)) + said)
threading.Thread(target=streams, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('', 53))
while True:
    query, asker = udp.recvfrom(4096)
    udp.sendto(answer(query), asker)
";

fn look_up(peer: &Peer, name: &str) -> String {
    let said = peer.sh(&format!("getent ahostsv4 {name}"));
    said.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Asks the C library for so many names of the mesh that are not there; how many were found.
fn ask_many(peer: &Peer, count: u32) -> String {
    std::fs::write(
        peer.file("ask.py"),
        format!(
            "import socket\nfound = 0\nfor i in range({count}):\n    name = ['n%d.home.internal', 'n%d.svc.home.internal', 'n%d.HOME.internal'][i % 3] % i\n    \
             try:\n        socket.getaddrinfo(name, 80); found += 1\n    except socket.gaierror:\n        pass\nprint(found)\n"
        ),
    )
    .unwrap();
    peer.sh("python3 ask.py")
}

/// Waits until `status` says who sends us our names: it looks once a second.
fn await_backend(peer: &Peer, backend: &str) {
    crate::harness::within(Duration::from_secs(5), backend, || {
        peer.status()["dns"]["backend"] == backend
    });
}

impl Peer {
    /// A look that says no: its stdout.
    fn refused_text(&self, code: i32, words: &[&str]) -> String {
        let output = self.webmesh(words);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}
