//! What costs another release build each: the static tarball, and packages for another processor.

use std::process::Command;

use super::building::{build, output_folder, succeed};

#[test]
#[ignore = "another release build; tests/run --full"]
fn the_tarball_runs_where_there_is_no_c_library() {
    let built = build(&["--tarball"], &output_folder().join("tarball"));
    let folder = output_folder().join("tarball/unpacked");
    std::fs::create_dir_all(&folder).unwrap();
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
