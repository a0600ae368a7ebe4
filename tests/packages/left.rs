//! The names of what a test makes on this host, and the removal of what a killed run left under such names.
//!
//! A name tells whose it is: `webmesh-packages-PID-COUNT`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::mount::{MntFlags, umount2};

const HEAD: &str = "webmesh-packages";

/// Where `ip netns` keeps network namespaces.
pub(crate) const NETWORKS: &str = "/run/netns";

/// A name that nothing else of this or another run has. The first one sweeps away what others left.
pub(crate) fn fresh_name() -> String {
    static SWEPT: Once = Once::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    SWEPT.call_once(sweep);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{HEAD}-{}-{count}", std::process::id())
}

/// A path with a fresh name, where temporary files lie. Nothing is there yet.
pub(crate) fn fresh_directory() -> PathBuf {
    std::env::temp_dir().join(fresh_name())
}

/// Takes away a directory with what is mounted on it and on its `root`.
pub(crate) fn remove_directory(path: &Path) {
    // Where everybody may write, it may be a link of somebody else's.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        return;
    }
    for mounted in [path.join("root"), path.to_owned()] {
        unmount(&mounted);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("{} is left behind: {error}", path.display());
        }
        _ => {}
    }
}

/// Takes away a network namespace; it goes when nothing is in it any more.
pub(crate) fn remove_network(path: &Path) {
    unmount(path);
    let _ = fs::remove_file(path);
}

/// Never through a link: in a folder that everybody may write to, one may lead to any mount of this host.
fn unmount(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

/// Takes away a control group with all below it; none may hold a process.
pub(crate) fn remove_group(group: &Path) {
    for below in directories(group) {
        remove_group(&below);
    }
    let _ = fs::remove_dir(group);
}

/// The control groups that a machine's systemd uses: one called `name`, below our own, in each hierarchy.
pub(crate) fn groups(name: &str) -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let hierarchies = own.lines().filter_map(|line| {
        let (kind, path) = line.split_once(':')?.1.split_once(':')?;
        let tops: &[&str] = match kind {
            "" => &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
            "name=systemd" => &["/sys/fs/cgroup/systemd"],
            _ => &[],
        };
        let is_hierarchy = |top: &&&str| Path::new(top).join("cgroup.procs").exists();
        let top = Path::new(tops.iter().find(is_hierarchy)?);
        Some(top.join(path.trim_start_matches('/')).join(name))
    });
    hierarchies.collect()
}

/// The directories in this one.
pub(crate) fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn sweep() {
    for path in orphans(&std::env::temp_dir()) {
        remove_directory(&path);
    }
    for path in orphans(Path::new(NETWORKS)) {
        remove_network(&path);
    }
    for own in groups("") {
        for path in orphans(&own) {
            remove_group(&path);
        }
    }
}

/// What in this directory has a name of ours with the process id of nobody.
fn orphans(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| maker(path).is_some_and(|pid| !Path::new("/proc").join(pid).exists()))
        .collect()
}

fn maker(path: &Path) -> Option<&str> {
    let rest = path.file_name()?.to_str()?.strip_prefix(HEAD)?;
    let (pid, _count) = rest.strip_prefix('-')?.split_once('-')?;
    Some(pid)
}
