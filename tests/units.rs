//! What systemd itself says of the units in `systemd/`: they are understood whole, and a service shows little of the
//! host to whoever takes it over. `tests/run` installs systemd's tools; where they are missing these tests fail.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "test code"
)]

use std::{
    fs,
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The most that `systemd-analyze security` may count against the agent, in tenths.
const EXPOSURE: &str = "20";

/// Where packages put the program, and so what the units name.
const INSTALLED: &str = "/usr/bin/webmesh";

#[test]
fn systemd_understands_every_line_of_the_units() {
    let (directory, units) = units();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .expect("systemd-analyze is there: apt-get install systemd");
    fs::remove_dir_all(directory).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_agent_is_exposed_by_no_more_than_two() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold", EXPOSURE])
        .arg(folder().join("webmesh.service"))
        .output()
        .expect("systemd-analyze is there: apt-get install systemd");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Overall exposure level"), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_agent_has_one_capability_and_no_line_takes_it_away() {
    let text = fs::read_to_string(folder().join("webmesh.service")).unwrap();
    let of = |key: &str| -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .collect()
    };
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(of(key), ["CAP_NET_ADMIN"], "{key}");
    }
    // In a user namespace of its own the capability would not count on the host.
    assert!(of("PrivateUsers").is_empty());
    // systemd 252 takes an unknown type for `simple`: nobody would wait for READY.
    assert_eq!(of("Type"), ["notify"]);
    assert_eq!(of("FileDescriptorStoreMax"), ["16"]);
}

#[test]
fn an_agent_whose_configuration_cannot_be_used_is_not_started_again() {
    let text = fs::read_to_string(folder().join("webmesh.service")).unwrap();
    let config = std::env::temp_dir().join(format!("webmesh-units-{}.toml", std::process::id()));
    fs::write(&config, "[tun]\nnmae = \"wm1\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_webmesh"))
        .args(["daemon", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    fs::remove_file(config).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nmae"), "{said}");
    let code = output.status.code().unwrap();
    let line = format!("RestartPreventExitStatus={code}");
    assert!(text.lines().any(|other| other == line), "{line}");
    // What may be better the next time is tried again: an agent that cannot go on ends with 2.
    assert_ne!(code, 2);
}

#[test]
fn a_reload_of_a_configuration_that_cannot_be_used_fails() {
    let text = fs::read_to_string(folder().join("webmesh.service")).unwrap();
    let of_key = text
        .lines()
        .filter_map(|line| line.strip_prefix("ExecReload="));
    let commands: Vec<&str> = of_key.collect();
    // The agent hears it first: its log and `status` name the line too.
    assert_eq!(
        commands,
        [
            "/bin/sh -c 'kill -HUP $MAINPID'",
            "/usr/bin/webmesh daemon --check-config"
        ]
    );
    let config = std::env::temp_dir().join(format!("webmesh-reload-{}.toml", std::process::id()));
    fs::write(&config, "[api]\nred = 1\n").unwrap();
    let words = commands[1]
        .strip_prefix(INSTALLED)
        .unwrap()
        .split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_webmesh"))
        .args(words)
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    fs::remove_file(&config).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains(&format!("{}:2: ", config.display())),
        "{said}"
    );
}

#[test]
fn the_agent_brings_along_who_tells_the_host_s_resolver() {
    // Whoever enables the agent alone, as the tarball's steps do, has names after the next boot too.
    let text = fs::read_to_string(folder().join("webmesh.service")).unwrap();
    for line in ["Wants=webmesh-dns.path", "After=webmesh-dns.path"] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn units_run_our_program_and_the_shell_and_nothing_that_a_machine_may_lack() {
    let mut commands = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("Exec"));
        for (key, command) in lines.filter_map(|line| line.split_once('=')) {
            let command = command.trim_start_matches(['-', '+', '!', ':', '@']);
            let words: Vec<&str> = command.split(' ').collect();
            match words[..] {
                [INSTALLED, ..] => {}
                // A word that the shell itself knows.
                ["/bin/sh", "-c", "'kill", ..] => {}
                _ => panic!("{key} runs {command}"),
            }
            commands += 1;
        }
    }
    assert!(commands >= 4, "{commands}");
}

#[test]
fn an_agent_whose_port_is_busy_says_so_and_does_not_come_back_four_times_a_second() {
    let directory = std::env::temp_dir().join(format!("webmesh-busy-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let manager = UnixDatagram::bind(directory.join("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let busy = UdpSocket::bind("[::]:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let began = Instant::now();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_webmesh"))
        .args(["daemon", "--port", &port, "--state-dir"])
        .arg(directory.join("state"))
        .arg("--socket")
        .arg(directory.join("socket"))
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut datagram = [0; 4096];
    let said = loop {
        let length = manager.recv(&mut datagram).unwrap();
        let said = String::from_utf8_lossy(&datagram[..length]).into_owned();
        if said.contains("STATUS=") {
            break said;
        }
    };
    let status = agent.wait().unwrap();
    fs::remove_dir_all(directory).unwrap();
    assert!(said.contains("STATUS=cannot start: "), "{said}");
    assert!(said.contains(&port) && !said.contains("READY"), "{said}");
    // systemd starts it again after this, and the reason may be gone by then.
    assert_eq!(status.code(), Some(2));
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Copies of all units, in a directory of their own, that name the program built with this test.
fn units() -> (PathBuf, Vec<PathBuf>) {
    let directory = std::env::temp_dir().join(format!("webmesh-units-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let mut copies = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let unit = entry.unwrap().path();
        let is_unit = unit.extension().is_some_and(|kind| {
            ["path", "service", "socket"]
                .iter()
                .any(|known| kind == *known)
        });
        if !is_unit {
            continue;
        }
        let text = fs::read_to_string(&unit).unwrap();
        let copy = directory.join(unit.file_name().unwrap());
        fs::write(
            &copy,
            text.replace(INSTALLED, env!("CARGO_BIN_EXE_webmesh")),
        )
        .unwrap();
        copies.push(copy);
    }
    assert!(!copies.is_empty());
    (directory, copies)
}
