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
    let vps = lab
        .public("vps", &["203.0.113.10/24", "2001:db8::a/64"])
        .unwrap();
    for (name, router, public) in [
        ("anna", "router-anna", "203.0.113.5/24"),
        ("bo", "router-bo", "203.0.113.6/24"),
    ] {
        lab.router(router, &[public], "192.168.1.1/24", NatKind::Masquerade)
            .unwrap();
        let home = lab
            .behind(router, name, "192.168.1.2/24", "192.168.1.1")
            .unwrap();
        assert_eq!(
            sh(&home, "ping -c 1 -W 2 203.0.113.10 >/dev/null && echo yes"),
            "yes\n"
        );
        assert_eq!(sh(&home, "hostname"), format!("{name}\n"));
    }
    // A router takes nothing unasked, not even for itself.
    assert_eq!(
        sh(&vps, "ping -c 1 -W 1 203.0.113.5 >/dev/null || echo no"),
        "no\n"
    );
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
        lab.router(router, &[public], "192.168.1.1/24", nat)
            .unwrap();
        let home = lab
            .behind(router, name, "192.168.1.2/24", "192.168.1.1")
            .unwrap();
        let capture = Capture::start(&lab, "vps").unwrap();
        sh(&home, SEND_FROM_41820);
        let seen = capture.stop(&[], b"a needle").unwrap();
        // The vps answers that its port 9 is closed, and quotes what it was sent.
        assert_eq!((seen.datagrams, seen.needles), (1, 2), "{seen:?}");
        ports.push(
            seen.foreign_ports
                .iter()
                .any(|(source, to)| (*source, *to) == (41820, 9)),
        );
    }
    assert_eq!(ports, [true, false]);
    drop(vps);
}

#[test]
fn names_are_looked_up_only_where_the_machine_s_own_file_says() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    vps.set_resolv_conf("nameserver 203.0.113.99\n").unwrap();
    assert_eq!(
        sh(&vps, "cat /etc/resolv.conf"),
        "nameserver 203.0.113.99\n"
    );
    assert!(sh(&vps, "cat /etc/nsswitch.conf").contains("hosts: files dns\n"));
    let hidden = sh(
        &vps,
        "ls -A /run/systemd/resolve /run/nscd 2>/dev/null | grep -v : | grep . || true",
    );
    assert_eq!(hidden, "");
    assert_ne!(
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        "nameserver 203.0.113.99\n"
    );
}

#[test]
fn when_a_lab_ends_no_process_and_no_file_of_it_is_left() {
    let lab = lab();
    let directory = lab.directory().to_owned();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    let mut program = vps.command("sleep").unwrap().arg("1000").spawn().unwrap();
    let pids = [vps.pid];
    drop(lab);
    within(Duration::from_secs(5), "everything is gone", || {
        is_gone(&directory, &pids)
    });
    // The program is the test's own child: it holds the namespaces, and ends with the thread that started it.
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn an_ordinary_user_gets_the_same_lab() {
    // The tests run again as nobody, where this one is root, from a directory that nobody may read.
    let directory = fresh_directory();
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let [test, webmesh] = [std::env::current_exe().unwrap(), program()].map(|from| {
        let to = directory.join(from.file_name().unwrap());
        fs::copy(from, &to).unwrap();
        to
    });
    let mut tests = Command::new(test);
    tests
        .args(["lab::", "--skip", "an_ordinary_user"])
        .env("WEBMESH_TEST_PROGRAM", webmesh)
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir("/");
    if nix::unistd::geteuid().is_root() {
        tests.uid(65534).gid(65534);
    }
    let output = tests.output().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("7 passed"), "{said}");
}

#[test]
fn where_etc_lacks_the_files_they_are_shown_all_the_same() {
    // A lab inside a machine whose /etc has a link to nothing and no nsswitch.conf, as in a small container.
    let lab = lab();
    let vps = lab.machine("vps").unwrap();
    let etc = "mount -t tmpfs none /etc && ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf";
    let test = std::env::current_exe().unwrap();
    let name = "lab::names_are_looked_up_only_where_the_machine_s_own_file_says";
    let said = sh(
        &vps,
        &format!("{etc} && {} --exact {name} 2>&1", test.display()),
    );
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn the_demo_s_stand_ins_serve_and_fetch_a_page() {
    let lab = lab();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    fs::write(vps.directory.join("index.html"), "hello").unwrap();
    let hold = |words: &str| format!("{} demo hold {words}", program().display());
    let mut server = vps.command(program()).unwrap();
    let mut server = server
        .args(["demo", "hold", "serve", "127.0.0.1:80", "."])
        .spawn()
        .unwrap();
    sh(&vps, &hold("await-port 80"));
    let seconds = sh(
        &vps,
        &format!("{} 2>&1", hold("fetch http://127.0.0.1/ page 1000000")),
    );
    assert!(seconds.parse::<f64>().is_ok(), "{seconds}");
    assert_eq!(
        fs::read_to_string(vps.directory.join("page")).unwrap(),
        "hello"
    );
    let missing = sh(
        &vps,
        &format!(
            "{} || echo no",
            hold("fetch http://127.0.0.1/../etc/passwd page 1000000")
        ),
    );
    assert_eq!(missing, "no\n");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn where_only_root_may_make_namespaces_one_line_says_so() {
    let program = program();
    let denied = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all";
    let directory = fresh_directory();
    fs::create_dir(&directory).unwrap();
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            &format!("{denied} {} demo", program.display()),
        ])
        .env("XDG_RUNTIME_DIR", &directory)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("webmesh: this machine lets only root make namespaces"),
        "{said}"
    );
    assert!(said.ends_with(": sudo webmesh demo\n"), "{said}");
    assert_eq!(
        fs::read_dir(directory.join("webmesh-demo")).map_or(0, Iterator::count),
        0
    );
    fs::remove_dir_all(directory).unwrap();
}

fn sh(machine: &Machine, line: &str) -> String {
    let output = machine
        .command("sh")
        .unwrap()
        .args(["-c", line])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// One datagram from port 41820 to the vps's port 9, by python: bash cannot choose its own port.
const SEND_FROM_41820: &str = "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                               s.bind((\"\", 41820)); s.sendto(b\"a needle\", (\"203.0.113.10\", 9))'";
