//! One release build, the packages of it, and what those whose work it is to judge packages say of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The packages of one version.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    pub(crate) rpm: PathBuf,
}

/// The packages of this tree: built once for all tests of a run.
pub(crate) fn packages() -> &'static Packages {
    static BUILT: OnceLock<Packages> = OnceLock::new();
    BUILT.get_or_init(|| built_as(env!("CARGO_PKG_VERSION")))
}

/// The same program in packages that call themselves newer: what an upgrade goes to.
pub(crate) fn newer_packages() -> &'static Packages {
    static BUILT: OnceLock<Packages> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The two builds share cargo's folder, and the first has made the binary.
        packages();
        built_as(concat!(env!("CARGO_PKG_VERSION"), ".1"))
    })
}

fn built_as(version: &str) -> Packages {
    let folder = output_folder().join(version);
    let built = build(&["--version", version], &folder);
    let with_end = |end: &str| {
        let path = built
            .iter()
            .find(|path| path.to_str().unwrap().ends_with(end));
        path.unwrap_or_else(|| panic!("no {end} among {built:?}"))
            .clone()
    };
    Packages {
        deb: with_end(".deb"),
        rpm: with_end(".rpm"),
    }
}

/// Runs `packaging/build`; what it says it has built.
pub(crate) fn build(options: &[&str], folder: &Path) -> Vec<PathBuf> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build"));
    command.args(options).arg(folder);
    succeed(&mut command)
        .lines()
        .map(|line| {
            let path = fs::canonicalize(line).unwrap();
            assert!(path.is_file(), "{line} is no file");
            path
        })
        .collect()
}

/// Where the packages of these tests go: beside what cargo builds.
pub(crate) fn output_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("packages")
}

/// Runs a command that has to succeed; its stdout.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{} is needed here: {error}",
            command.get_program().display()
        )
    });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[test]
fn lintian_has_nothing_to_say_against_the_deb() {
    // Warnings too: each would be one more that hides the next error.
    succeed(
        Command::new("lintian")
            .args([
                "--allow-root",
                "--fail-on",
                "error,warning",
                "--tag-display-limit",
                "0",
            ])
            .arg(&packages().deb),
    );
}

#[test]
fn rpmlint_finds_no_error_in_the_rpm() {
    let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/rpmlint.toml");
    let said = succeed(
        Command::new("rpmlint")
            .arg("--config")
            .arg(filters)
            .arg(&packages().rpm),
    );
    assert!(said.contains(" 0 errors,"), "{said}");
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let again = build(&[], &output_folder().join("again"));
    for (first, again) in [&packages().deb, &packages().rpm].into_iter().zip(&again) {
        assert!(
            fs::read(first).unwrap() == fs::read(again).unwrap(),
            "{} and {} differ",
            first.display(),
            again.display()
        );
    }
}

/// What every package installs, whatever its kind, as far as it stands at the same place in each; some of it compressed.
const INSTALLED: &[&str] = &[
    "usr/bin/webmesh",
    "usr/lib/systemd/system/webmesh.service",
    "usr/lib/systemd/system/webmesh-dns.path",
    "usr/lib/systemd/system/webmesh-dns.service",
    "usr/lib/sysusers.d/webmesh.conf",
    "etc/webmesh/config.toml",
    "etc/webmesh/services.d/example.toml",
    "usr/share/man/man1/webmesh.1",
    "usr/share/man/man1/webmesh-service-add.1",
    "usr/share/bash-completion/completions/webmesh",
    "usr/share/fish/vendor_completions.d/webmesh.fish",
    "usr/share/doc/webmesh/config.toml",
    "usr/share/doc/webmesh/services.d/example.toml",
    "usr/share/doc/webmesh/copyright",
    "usr/share/doc/webmesh/third-party-licences",
];

/// Below what everything stands that a package installs.
const PLACES: [&str; 4] = ["usr/bin/", "usr/lib/sys", "usr/share/", "etc/webmesh/"];

#[test]
fn deb_and_rpm_hold_what_the_design_says_and_nothing_stands_elsewhere() {
    let of_deb = succeed(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&packages().deb),
    );
    let of_deb = of_deb.lines().filter(|line| !line.starts_with('d'));
    let of_deb: Vec<&str> = of_deb
        .map(|line| line.rsplit(" ./").next().unwrap())
        .collect();
    let of_rpm = succeed(
        Command::new("rpm")
            .args(["--query", "--package", "--queryformat"])
            .arg("[%{FILEMODES:perms} %{FILENAMES}\\n]")
            .arg(&packages().rpm),
    );
    let of_rpm = of_rpm.lines().filter(|line| !line.starts_with('d'));
    let of_rpm: Vec<&str> = of_rpm
        .map(|line| line.split_once(" /").unwrap().1)
        .collect();
    for (files, of_zsh) in [
        (of_deb, "usr/share/zsh/vendor-completions/_webmesh"),
        (of_rpm, "usr/share/zsh/site-functions/_webmesh"),
    ] {
        let is_there = |wanted: &str| {
            let mut bare = files.iter().map(|file| file.trim_end_matches(".gz"));
            bare.any(|file| file == wanted)
        };
        for wanted in INSTALLED.iter().chain(&[of_zsh]) {
            assert!(is_there(wanted), "{wanted} is missing: {files:#?}");
        }
        // Every unit in the sources is installed, also one that came after this was written.
        for unit in units() {
            let wanted = format!("usr/lib/systemd/system/{unit}");
            assert!(is_there(&wanted), "{wanted} is missing: {files:#?}");
        }
        for file in files {
            assert!(PLACES.iter().any(|place| file.starts_with(place)), "{file}");
        }
    }
}

fn units() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let names = fs::read_dir(folder).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    let units: Vec<String> = names.filter(|name| !name.ends_with(".sysusers")).collect();
    assert!(units.len() >= 3, "{units:?}");
    units
}

#[test]
fn the_packaged_readme_leads_to_files_that_are_packaged() {
    let listed = succeed(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&packages().deb),
    );
    let tree = output_folder().join("unpacked-readme");
    succeed(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&packages().deb)
            .arg(&tree),
    );
    let text = succeed(
        Command::new("zcat")
            .arg("--force")
            .arg(tree.join("usr/share/doc/webmesh/README.md.gz")),
    );
    let links = text.split("](").skip(1);
    let links: Vec<&str> = links.map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 4, "{links:?}");
    for link in links.into_iter().filter(|link| !link.contains("://")) {
        let path = match link.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None => format!("usr/share/doc/webmesh/{link}"),
        };
        let is_there = listed.lines().any(|line| {
            let file = line.rsplit(" ./").next().unwrap();
            file == path || file == format!("{path}.gz")
        });
        assert!(is_there, "{link} leads nowhere:\n{listed}");
    }
}

#[test]
fn the_copyright_names_the_crates_that_are_linked_in() {
    let tree = output_folder().join("unpacked");
    succeed(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&packages().deb)
            .arg(&tree),
    );
    let text = fs::read_to_string(tree.join("usr/share/doc/webmesh/copyright")).unwrap();
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for name in ["boringtun", "tokio", "ring", "zbus"] {
        assert!(
            lock.contains(&format!("name = \"{name}\"")),
            "{name} is linked in no more"
        );
        assert!(
            text.contains(&format!("crates/{name}-")),
            "{name} is missing:\n{text}"
        );
    }
}
