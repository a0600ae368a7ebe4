//! A package's whole life in a Debian root where no systemd runs: installed, upgraded, downgraded, removed and purged,
//! with every maintainer script run twice.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{
    building::{newer_packages, packages, succeed},
    roots::{Kind, Root},
};

const FIRST_WORDS: &str = "Webmesh is installed. systemd does not run here";

const KEPT_STATE: &str = "/var/lib/webmesh/0123456789abcdef/identity.a";
const CONFIG: &str = "/etc/webmesh/config.toml";

#[test]
fn a_deb_comes_and_goes_and_leaves_nothing() {
    let root = Kind::RESOLVED.fresh();
    let before = Census::of(&root);
    let [old, new] = [&packages().deb, &newer_packages().deb].map(|deb| carry_in(&root, deb));

    let said = done(&root, &format!("apt-get install -y {old}"));
    assert_eq!(said.matches(FIRST_WORDS).count(), 1, "{said}");
    assert_installed(&root);
    done(
        &root,
        "/var/lib/dpkg/info/webmesh.preinst install 2>&1 || test ! -e /var/lib/dpkg/info/webmesh.preinst",
    );
    done(&root, "/var/lib/dpkg/info/webmesh.postinst configure");
    assert_installed(&root);

    live_with(&root);
    let said = done(&root, &format!("apt-get install -y {new}"));
    assert!(
        !said.contains(FIRST_WORDS),
        "an upgrade says it again: {said}"
    );
    assert_eq!(version(&root), concat!(env!("CARGO_PKG_VERSION"), ".1"));
    assert_lived_in(&root);
    let said = done(&root, "/var/lib/dpkg/info/webmesh.postinst configure 0.1.0");
    assert!(!said.contains(FIRST_WORDS), "{said}");

    let said = done(
        &root,
        &format!("apt-get install -y --allow-downgrades {old}"),
    );
    assert!(
        !said.contains(FIRST_WORDS),
        "a downgrade says it again: {said}"
    );
    assert_eq!(version(&root), env!("CARGO_PKG_VERSION"));
    assert_lived_in(&root);
    assert_installed(&root);

    done(&root, "/var/lib/dpkg/info/webmesh.prerm remove");
    done(&root, "apt-get remove -y webmesh");
    assert!(
        !root.file("/usr/bin/webmesh").exists(),
        "removed, and still there"
    );
    assert_lived_in(&root);
    done(&root, "/var/lib/dpkg/info/webmesh.postrm remove");

    let said = done(&root, &format!("apt-get install -y {old}"));
    assert!(!said.contains(FIRST_WORDS), "it was here before: {said}");
    assert_installed(&root);
    assert_lived_in(&root);

    done(
        &root,
        "cp /var/lib/dpkg/info/webmesh.postrm /var/tmp/postrm",
    );
    done(&root, "apt-get purge -y webmesh");
    done(
        &root,
        "/var/tmp/postrm purge && rm /var/tmp/postrm /var/tmp/*.deb",
    );
    before.assert_same(&Census::of(&root));
}

#[test]
fn a_purge_takes_the_group_even_if_somebody_is_in_it() {
    let root = Kind::RESOLVED.fresh();
    let before = Census::of(&root);
    let deb = carry_in(&root, &packages().deb);
    done(&root, "useradd --no-create-home anna");
    done(&root, &format!("apt-get install -y {deb}"));
    done(&root, "usermod -aG webmesh anna");
    done(&root, "apt-get purge -y webmesh && rm /var/tmp/*.deb");
    done(&root, "userdel anna");
    before.assert_same(&Census::of(&root));
}

#[test]
fn an_rpm_comes_and_goes_and_keeps_only_what_is_the_owners() {
    let root = Kind::RESOLVED.fresh();
    let before = Census::of(&root);
    let [old, new] = [&packages().rpm, &newer_packages().rpm];

    let said = rpm(&root, &["--install"], Some(old));
    assert_eq!(said.matches(FIRST_WORDS).count(), 1, "{said}");
    assert_installed(&root);
    rpm(&root, &["--upgrade", "--replacepkgs"], Some(old));
    assert_installed(&root);

    live_with(&root);
    let said = rpm(&root, &["--upgrade"], Some(new));
    assert!(
        !said.contains(FIRST_WORDS),
        "an upgrade says it again: {said}"
    );
    assert_lived_in(&root);
    assert_installed(&root);

    rpm(&root, &["--upgrade", "--oldpackage"], Some(old));
    assert_lived_in(&root);
    assert_installed(&root);

    rpm(&root, &["--erase", "webmesh"], None);
    let kept = format!("{CONFIG}.rpmsave");
    assert!(
        root.file(&kept).exists(),
        "what was written into {CONFIG} is lost"
    );
    assert!(root.file(KEPT_STATE).exists(), "the keys are lost");
    // rpm knows no purge: these, and the user, are the owner's to take away.
    done(
        &root,
        "userdel webmesh && rm -r /etc/webmesh /var/lib/webmesh /var/lib/rpm",
    );
    before.assert_same(&Census::of(&root));
}

/// Somebody lives with it: keys come to be, and settings are written.
fn live_with(root: &Root) {
    let state = root.file(KEPT_STATE);
    fs::create_dir_all(state.parent().unwrap()).unwrap();
    fs::write(state, "a key").unwrap();
    done(root, &format!("echo '# mine' >>{CONFIG}"));
}

fn assert_lived_in(root: &Root) {
    assert_eq!(fs::read_to_string(root.file(KEPT_STATE)).unwrap(), "a key");
    let config = fs::read_to_string(root.file(CONFIG)).unwrap();
    assert!(config.ends_with("# mine\n"), "{config}");
}

fn assert_installed(root: &Root) {
    done(root, "getent passwd webmesh && getent group webmesh");
    done(root, "webmesh --version && webmesh daemon --check-config");
    assert_eq!(
        done(root, "systemctl is-enabled webmesh.service").trim(),
        "enabled"
    );
}

fn version(root: &Root) -> String {
    done(root, "dpkg-query --show --showformat '${Version}' webmesh")
}

/// Copies a package to where the root's own programs find it.
fn carry_in(root: &Root, package: &Path) -> String {
    let inside = format!("/var/tmp/{}", package.file_name().unwrap().display());
    fs::copy(package, root.file(&inside)).unwrap();
    inside
}

/// Runs a line in the root, which has to succeed; what it printed.
fn done(root: &Root, line: &str) -> String {
    let output = root.run(&format!("{{ {line}; }} 2>&1"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}\nended with {}:\n{said}",
        output.status
    );
    said
}

/// Runs this machine's rpm on the root, which has none; scripts run inside.
fn rpm(root: &Root, verb: &[&str], package: Option<&Path>) -> String {
    succeed(
        Command::new("rpm")
            .arg("--root")
            .arg(root.path())
            .args(["--dbpath", "/var/lib/rpm", "--nodeps"])
            .args(verb)
            .args(package),
    )
}

/// Which files there are, and who the users are.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    files: BTreeSet<String>,
    users: String,
}

impl Census {
    /// What package managers and the user database keep for themselves is not counted.
    fn of(root: &Root) -> Self {
        let found = done(
            root,
            "find / -xdev \\( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log \
             -o -path '/run/systemd/*' -o -path /proc -o -path /sys -o -path /dev -o -path /tmp \\) -prune -o -print",
        );
        let books = [
            "/etc/passwd-",
            "/etc/group-",
            "/etc/shadow-",
            "/etc/gshadow-",
            "/etc/subuid-",
            "/etc/subgid-",
            "/etc/.pwd.lock",
        ];
        Self {
            files: found
                .lines()
                .filter(|path| !books.iter().any(|book| path == book))
                .map(str::to_owned)
                .collect(),
            users: done(
                root,
                "sort /etc/passwd /etc/group /etc/gshadow; cut -d: -f1 /etc/shadow",
            ),
        }
    }

    fn assert_same(&self, after: &Self) {
        let left: Vec<_> = after.files.difference(&self.files).collect();
        let lost: Vec<_> = self.files.difference(&after.files).collect();
        assert!(
            left.is_empty() && lost.is_empty(),
            "left: {left:?}\nlost: {lost:?}"
        );
        assert_eq!(self.users, after.users);
    }
}
