//! Debian roots, made by mmdebstrap and kept between runs, and throw-away copies of them.
//!
//! Kept roots lie in `$WEBMESH_TEST_CACHE`, else `/var/cache/webmesh-tests`; deleting one costs the next run a minute.
//! mmdebstrap and not debootstrap: it makes the same tree in half the time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    unistd::geteuid,
};

use crate::left::{fresh_directory, remove_directory};

/// The release that the packages are tried in.
const SUITE: &str = "trixie";

/// What every root has beside Debian's least: an init, and the tools that tests look with.
const BASE_PACKAGES: &[&str] = &[
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "nftables",
    "polkitd",
    "procps",
    "systemd",
    "systemd-sysv",
];

/// A kind of root, kept under a name that tells what is in it: another list of packages is another root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What it has beside the base.
    pub(crate) packages: &'static [&'static str],
}

impl Kind {
    /// systemd-resolved answers for names: what CI tries.
    pub(crate) const RESOLVED: Self = Self {
        name: "resolved",
        packages: &["systemd-resolved"],
    };

    /// The same with rpm beside dpkg.
    pub(crate) const RPM: Self = Self {
        name: "rpm",
        packages: &["systemd-resolved", "rpm"],
    };

    /// Where the kept root lies. Makes it first if it is not there; others who want it meanwhile wait.
    pub(crate) fn kept(self) -> PathBuf {
        assert!(geteuid().is_root(), "these tests need root: sudo tests/run");
        let cache = cache();
        fs::create_dir_all(&cache).unwrap();
        let ready = cache.join(self.full_name());
        let lock = File::create(cache.join(format!("{}.lock", self.name))).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        if !ready.exists() {
            // Half made it has another name, and is made anew.
            let making = cache.join(format!("{}.making", self.name));
            remove_directory(&making);
            self.make(&making);
            fs::rename(&making, &ready).unwrap();
        }
        ready
    }

    /// A copy that goes with the test.
    pub(crate) fn fresh(self) -> Root {
        Root::over(&self.kept())
    }

    fn make(self, into: &Path) {
        eprintln!("making a Debian root for the tests: {}", into.display());
        must(
            Command::new("mmdebstrap")
                .args(["--variant=minbase", "--quiet", "--dpkgopt=force-unsafe-io"])
                .arg(format!("--include={}", self.all_packages().join(",")))
                .arg(SUITE)
                .arg(into),
        );
        // Empty, each container writes its own; any other way systemd takes each start for the first one.
        fs::write(into.join("etc/machine-id"), "").unwrap();
        // Nothing is to be brought up to date at each start either: it takes half of its second.
        for updated in ["etc/.updated", "var/.updated"] {
            File::create(into.join(updated)).unwrap();
        }
    }

    fn all_packages(self) -> Vec<&'static str> {
        [BASE_PACKAGES, self.packages].concat()
    }

    fn full_name(self) -> String {
        let recipe = format!("{SUITE} {}", self.all_packages().join(" "));
        let hash = blake3::hash(recipe.as_bytes());
        let id = data_encoding::HEXLOWER.encode(&hash.as_bytes()[..4]);
        format!("{SUITE}-{}-{id}", self.name)
    }
}

/// A root that may be changed; all of it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Root {
    scratch: PathBuf,
}

impl Root {
    fn over(kept: &Path) -> Self {
        let root = Self {
            scratch: fresh_directory(),
        };
        fs::create_dir_all(&root.scratch).unwrap();
        // What is written stays in memory: quick, and an overlay may not write into another overlay, as a container's
        // own disk is.
        mount(
            Some("webmesh-test"),
            &root.scratch,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=0755"),
        )
        .unwrap();
        for part in ["upper", "work", "root"] {
            fs::create_dir(root.scratch.join(part)).unwrap();
        }
        if let Err(error) = root.lay_over(kept) {
            eprintln!("no overlay here ({error}): the root is copied");
            must(
                Command::new("cp")
                    .arg("-a")
                    .arg(kept.join("."))
                    .arg(root.path()),
            );
        }
        root
    }

    fn lay_over(&self, kept: &Path) -> nix::Result<()> {
        let [upper, work] = ["upper", "work"].map(|part| self.scratch.join(part));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            kept.display(),
            upper.display(),
            work.display()
        );
        mount(
            Some("webmesh-test"),
            &self.path(),
            Some("overlay"),
            MsFlags::empty(),
            Some(layers.as_str()),
        )
    }

    /// A directory beside the tree, which goes with it.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The top of the tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// A file of it, by its absolute path inside.
    pub(crate) fn file(&self, inside: &str) -> PathBuf {
        self.path().join(inside.trim_start_matches('/'))
    }

    /// A command that will run in it, with `/proc`, `/dev` and the host's network, while nothing is booted there.
    pub(crate) fn command(&self, program: &str) -> Command {
        command_in(&self.path(), program)
    }

    /// A line of shell, run in it.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        remove_directory(&self.scratch);
    }
}

/// Starts an init-less container: what is left running by the command ends with it.
fn command_in(root: &Path, program: &str) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command
        .args(["--quiet", "--register=no", "--keep-unit", "--pipe"])
        .args(["--timezone=off", "--link-journal=no"])
        .arg("--directory")
        .arg(root)
        .args([
            "--setenv=DEBIAN_FRONTEND=noninteractive",
            "--setenv=LC_ALL=C.UTF-8",
        ])
        .arg("--")
        .arg(program);
    command
}

/// Runs a command that has to succeed; gives its stdout.
pub(crate) fn must(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What a program printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cache() -> PathBuf {
    std::env::var_os("WEBMESH_TEST_CACHE")
        .map_or_else(|| "/var/cache/webmesh-tests".into(), PathBuf::from)
}
