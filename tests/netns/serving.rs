//! Issue 3, points 2 and 9: services by name, from others and from their own host.

use std::time::Duration;

use crate::{
    ground::{Ground, over},
    harness::{Net, within},
    reaching::{ECHO, assert_echo},
};

over! { wide, Plain:
    a_service_on_the_loopback_is_reached_by_name_from_others_and_from_its_own_host,
    a_udp_service_on_the_loopback_answers_by_name,
    a_server_on_all_addresses_sees_the_client_s_own_mesh_address,
}
over! { ipv4_with_an_mtu_of_1280, Narrow4:
    a_service_on_the_loopback_is_reached_by_name_from_others_and_from_its_own_host,
    a_udp_service_on_the_loopback_answers_by_name,
    a_server_on_all_addresses_sees_the_client_s_own_mesh_address,
}
over! { ipv6_with_an_mtu_of_1280, Narrow6:
    a_service_on_the_loopback_is_reached_by_name_from_others_and_from_its_own_host,
    a_udp_service_on_the_loopback_answers_by_name,
    a_server_on_all_addresses_sees_the_client_s_own_mesh_address,
}

fn a_service_on_the_loopback_is_reached_by_name_from_others_and_from_its_own_host(ground: Ground) {
    let net = Net::three_on(ground);
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

fn a_udp_service_on_the_loopback_answers_by_name(ground: Ground) {
    let net = Net::three_on(ground);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let _server = anna.beside(&format!("python3 -c \"{ECHO}\" udp 127.0.0.1 7001"));
    anna.await_udp_port(7001);
    let said = anna.ok(&[
        "service",
        "add",
        "echo",
        "--port",
        "80/udp",
        "--target",
        "127.0.0.1:7001",
    ]);
    assert!(said.contains("echo.svc.home.internal:80"), "{said}");
    bo.ok(&["wait", "--service", "echo", "--timeout", "10s"]);
    for peer in [bo, anna] {
        for name in ["echo.svc.home.internal", "echo.anna.home.internal"] {
            let addresses = peer.sh(&format!("dig +short {name} A {name} AAAA"));
            assert_eq!(addresses.lines().count(), 2, "{addresses}");
            for address in addresses.lines() {
                assert_echo(peer, "udp", address, 80);
            }
            assert_echo(peer, "udp", name, 80);
        }
    }
}

fn a_server_on_all_addresses_sees_the_client_s_own_mesh_address(ground: Ground) {
    let net = Net::three_on(ground);
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
    // A connection that stays is in the server's table under the same address.
    let _open = bo.beside("bash -c 'exec 3<>/dev/tcp/files.svc.home.internal/8000; sleep 60'");
    let mut sockets = String::new();
    within(Duration::from_secs(5), "the connection stands", || {
        sockets = anna.sh("ss -Htn state established 'sport = :8000'");
        !sockets.is_empty()
    });
    assert!(sockets.contains(&format!("{own}:")), "{sockets}");
    assert_eq!(
        anna.sh(&format!("dig +short -x {own}")),
        "bo.home.internal.\n"
    );
    let named = anna.sh(&format!(
        "python3 -c 'import socket; print(socket.gethostbyaddr(\"{own}\")[0])'"
    ));
    assert_eq!(named, "bo.home.internal\n");
}
