//! Issue 3, point 3: what the underlay shows while agents run.

use webmesh::demo::capture::Capture;

use crate::harness::Net;

#[test]
fn the_wire_shows_one_udp_port_and_no_plain_text() {
    let net = Net::three();
    let captures: Vec<Capture> = net
        .names()
        .iter()
        .map(|name| Capture::start(net.lab(), name).unwrap())
        .collect();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh(&format!(
        "mkdir www && for i in $(seq 1000); do echo {NEEDLE}; done > www/index.html"
    ));
    let _server = anna.beside("python3 -m http.server -b 127.0.0.1 -d www 8080");
    anna.await_port(8080);
    anna.ok(&[
        "service",
        "add",
        "web",
        "--port",
        "80",
        "--target",
        "127.0.0.1:8080",
    ]);
    bo.ok(&["wait", "--service", "web", "--timeout", "10s"]);
    let page = bo.sh("curl -sf http://web.svc.home.internal/");
    assert_eq!(page.lines().count(), 1000);
    bo.sh(&format!(
        "ping -c 3 -i 0.2 -p 6d79 {}",
        anna.mesh_addresses()[0]
    ));
    for capture in captures {
        let seen = capture.stop(&[41820], NEEDLE.as_bytes()).unwrap();
        assert!(seen.datagrams > 0, "{seen:?}");
        // Nobody is behind a NAT here: both sides of every datagram are the one port.
        assert_eq!(seen.ports, [41820].into(), "{seen:?}");
        assert_eq!((seen.other_packets, seen.needles), (0, 0), "{seen:?}");
    }
}

const NEEDLE: &str = "my bonnie lies over the ocean";
