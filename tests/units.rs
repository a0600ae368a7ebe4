//! What systemd itself says of the units in `systemd/`: they are understood whole, and a service shows little of the
//! host to whoever takes it over. `tests/run` installs systemd's tools; where they are missing these tests fail.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::{fs, path::PathBuf, process::Command};

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
