//! What costs another release build each: the static tarball, and packages for another processor.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    building::{build, output_folder, succeed},
    home::within,
    machine::{Lan, Machine},
    roots::Kind,
};

#[test]
#[ignore = "another release build; tests/run --full"]
fn the_tarball_runs_where_there_is_no_c_library() {
    let built = build(&["--tarball"], &output_folder().join("tarball"));
    let folder = output_folder().join("tarball/unpacked");
    fs::create_dir_all(&folder).unwrap();
    succeed(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--file"])
            .arg(&built[0])
            .arg("--directory")
            .arg(&folder),
    );
    let program = folder.join("usr/bin/webmesh");
    let needed = succeed(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(!needed.contains("NEEDED"), "{needed}");
    // An empty root: the program, its settings and nothing else.
    for check in [&["--version"][..], &["daemon", "--check-config"]] {
        succeed(
            Command::new("chroot")
                .arg(&folder)
                .arg("/usr/bin/webmesh")
                .args(check),
        );
    }
}

#[test]
#[ignore = "another release build; tests/run --full"]
fn by_the_readme_s_lines_the_tarball_s_agent_has_its_names_and_keeps_its_settings() {
    let built = build(&["--tarball"], &output_folder().join("tarball"));
    let lan = Lan::new();
    let anna = lan.boot(Kind::RESOLVED.fresh(), "anna", 11);
    let [install, upgrade] = readme_steps(&built[0]);
    carry_in(&anna, &built[0]);
    anna.sh(&install);
    anna.sh("webmesh init home");
    await_name(&anna);
    // As after a boot: another device, and nobody at hand who is root.
    anna.sh("systemctl stop webmesh && systemctl start webmesh");
    await_name(&anna);
    anna.sh("systemctl restart systemd-resolved");
    await_name(&anna);

    let config = "/etc/webmesh/config.toml";
    anna.sh(&format!("echo '# mine' >>{config} && rm /usr/bin/webmesh"));
    anna.sh(&upgrade);
    assert!(anna.sh(&format!("cat {config}")).ends_with("# mine\n"));
    await_name(&anna);
}

/// What the README says to install the tarball, and to put another version over it, for this very file.
fn readme_steps(tarball: &Path) -> [String; 2] {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).unwrap();
    let blocks = text
        .split("```\n")
        .filter(|block| block.starts_with("sudo tar "));
    let steps: Vec<String> = blocks
        .map(|block| {
            let name = block.split(' ').find(|word| word.ends_with(".tar.xz"));
            // The root has no xz of its own.
            let plain = tarball.file_stem().unwrap().to_str().unwrap();
            let block = block.replace(name.unwrap(), &format!("/root/{plain}"));
            format!("set -e\n{}", block.replace("sudo ", ""))
        })
        .collect();
    steps.try_into().expect("two blocks begin with tar")
}

fn carry_in(machine: &Machine, tarball: &Path) {
    let inside = machine.file("/root").join(tarball.file_stem().unwrap());
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(tarball).output();
    fs::write(inside, output.unwrap().stdout).unwrap();
}

/// The helper's unit is woken within moments; nothing tells when it is done.
fn await_name(machine: &Machine) {
    within(Duration::from_secs(8), "the own name resolves", || {
        let said = machine.run("getent hosts anna.home.internal");
        said.status.success()
    });
}

#[test]
#[ignore = "another release build; tests/run --full"]
fn the_arm64_program_starts() {
    let built = build(
        &["--arch", "arm64", "--apt"],
        &output_folder().join("arm64"),
    );
    let folder = output_folder().join("arm64/unpacked");
    succeed(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&built[0])
            .arg(&folder),
    );
    let program = folder.join("usr/bin/webmesh");
    let header = succeed(Command::new("readelf").arg("--file-header").arg(&program));
    assert!(header.contains("AArch64"), "{header}");
    for check in [&["--version"][..], &["daemon", "--check-config"]] {
        let mut emulated = Command::new("qemu-aarch64-static");
        succeed(emulated.args(["-L", "/"]).arg(&program).args(check));
    }
}
