//! The lab itself, without agents: what all other tests stand on.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    time::Duration,
};

use webmesh::demo::{capture::Capture, lab::Machine, order::NatKind};

use crate::harness::{fresh_directory, is_gone, lab, program, text, within};

#[test]
fn two_homes_with_the_same_lan_reach_a_public_machine_and_nobody_reaches_into_them() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24", "2001:db8::a/64"]).unwrap();
    for (name, router, public) in [("anna", "router-anna", "203.0.113.5/24"), ("bo", "router-bo", "203.0.113.6/24")] {
        lab.router(router, &[public], "192.168.1.1/24", NatKind::Masquerade).unwrap();
        let home = lab.behind(router, name, "192.168.1.2/24", "192.168.1.1").unwrap();
        assert_eq!(sh(&home, "ping -c 1 -W 2 203.0.113.10 >/dev/null && echo yes"), "yes\n");
        assert_eq!(sh(&home, "hostname"), format!("{name}\n"));
    }
    // A router takes nothing unasked, not even for itself.
    assert_eq!(sh(&vps, "ping -c 1 -W 1 203.0.113.5 >/dev/null || echo no"), "no\n");
}

#[test]
fn a_router_keeps_the_port_and_a_symmetric_one_does_not() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    let mut ports = Vec::new();
    for (name, router, public, nat) in [
        ("anna", "router-anna", "203.0.113.5/24", NatKind::Masquerade),
        ("bo", "router-bo", "203.0.113.6/24", NatKind::Symmetric),
    ] {
        lab.router(router, &[public], "192.168.1.1/24", nat).unwrap();
        let home = lab.behind(router, name, "192.168.1.2/24", "192.168.1.1").unwrap();
        let capture = Capture::start(&lab, "vps").unwrap();
        sh(&home, SEND_FROM_41820);
        let seen = capture.stop(&[], b"a needle").unwrap();
        // The vps answers that its port 9 is closed, and quotes what it was sent.
        assert_eq!((seen.datagrams, seen.needles), (1, 2), "{seen:?}");
        ports.push(seen.foreign_ports.iter().any(|(source, to)| (*source, *to) == (41820, 9)));
    }
    assert_eq!(ports, [true, false]);
    drop(vps);
}

#[test]
fn names_are_looked_up_only_where_the_machine_s_own_file_says() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    vps.set_resolv_conf("nameserver 203.0.113.99\n").unwrap();
    assert_eq!(sh(&vps, "cat /etc/resolv.conf"), "nameserver 203.0.113.99\n");
    assert!(sh(&vps, "cat /etc/nsswitch.conf").contains("hosts: files dns\n"));
    let hidden = sh(&vps, "ls -A /run/systemd/resolve /run/nscd 2>/dev/null | grep -v : | grep . || true");
    assert_eq!(hidden, "");
    assert_ne!(fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), "nameserver 203.0.113.99\n");
}

#[test]
fn when_a_lab_ends_no_process_and_no_file_of_it_is_left() {
    let lab = lab();
    let directory = lab.directory().to_owned();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    let mut program = vps.command("sleep").unwrap().arg("1000").spawn().unwrap();
    let pids = [vps.pid];
    drop(lab);
    within(Duration::from_secs(5), "everything is gone", || is_gone(&directory, &pids));
    // The program is the test's own child: it holds the namespaces, and ends with the thread that started it.
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn an_ordinary_user_gets_the_same_lab() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // The test runs again as nobody, from a directory that nobody may read.
    let directory = fresh_directory();
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let [test, webmesh] = [std::env::current_exe().unwrap(), program()].map(|from| {
        let to = directory.join(from.file_name().unwrap());
        fs::copy(from, &to).unwrap();
        to
    });
    let output = Command::new(test)
        .args(["lab::", "--skip", "an_ordinary_user"])
        .env("WEBMESH_TEST_PROGRAM", webmesh)
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("4 passed"), "{said}");
}

fn sh(machine: &Machine, line: &str) -> String {
    let output = machine.command("sh").unwrap().args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// One datagram from port 41820 to the vps's port 9, by python: bash cannot choose its own port.
const SEND_FROM_41820: &str = "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                               s.bind((\"\", 41820)); s.sendto(b\"a needle\", (\"203.0.113.10\", 9))'";
