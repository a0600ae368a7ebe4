//! `/etc/resolv.conf` in our hands, and back to what it was: byte for byte, link for link.
//!
//! What stood there gets a second name, `resolv.conf.before-webmesh`, before a new file takes its place in one step, so
//! the host resolves at every moment and a crash at any point leaves something that [`undo`] brings back. Where the
//! file is a mount of its own, as in a container, it cannot be replaced: then it is copied and written over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    unistd::linkat,
};

use super::{
    resolv_conf::{self, ResolvConf, STUBS, Server},
    whole,
    wish::Wish,
};

/// The file that programs read.
const NAME: &str = "resolv.conf";

/// What stood there.
const BACKUP: &str = "resolv.conf.before-webmesh";

/// What stood there, once somebody else has written the file since: for a person to look at.
const ASIDE: &str = "resolv.conf.before-webmesh.old";

/// Where the new one is written before it takes its place.
const DRAFT: &str = ".resolv.conf.webmesh";

/// Its presence says that a person wants it so, over restarts too.
const WANTED: &str = "webmesh/takeover";

/// The file in which systemd-resolved lists whom it asks itself; the stubs only ask it.
const UPLINKS: &str = "run/systemd/resolve/resolv.conf";

/// What became of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The file is what it was.
    Restored,
    /// There was nothing to undo.
    Nothing,
    /// Somebody else has written it since: it is left alone, and what was kept is laid aside.
    ChangedByOthers,
}

/// Makes our resolver the first that this host asks. Done again, it does nothing new.
///
/// # Errors
/// The file is what it was.
pub fn take(etc: &Path, wish: &Wish) -> io::Result<()> {
    let (file, backup) = (etc.join(NAME), etc.join(BACKUP));
    let standing = read_if_there(&file)?;
    let is_ours = resolv_conf::is_ours(&standing);
    let before = if !is_ours {
        ResolvConf::parse(&standing)
    } else if backup.symlink_metadata().is_ok() {
        ResolvConf::parse(&read_if_there(&backup)?)
    } else {
        before_of_ours(&standing)
    };
    let text = resolv_conf::takeover(wish, &past_the_stubs(etc, before));
    if is_ours && text == standing {
        return Ok(());
    }
    let draft = write_draft(etc, &text)?;
    let kept = if is_ours {
        Ok(())
    } else {
        keep(&file, &backup)
    };
    match kept.and_then(|()| fs::rename(&draft, &file)) {
        Ok(()) => sync(etc),
        Err(error) => {
            let _not_needed = fs::remove_file(&draft);
            let is_mount = error.raw_os_error() == Some(libc::EBUSY);
            // A mount: the second name is of the folder's own file, if it took at all. Its bytes are kept instead.
            let kept = match (is_mount, is_ours) {
                (false, _) => Err(error),
                (true, true) => Ok(()),
                (true, false) => copy(&file, &backup),
            };
            if kept.is_err() && !is_ours {
                // Beside a file that is not ours it would say that others had overwritten ours.
                let _not_needed = fs::remove_file(&backup);
            }
            kept?;
            overwrite(&file, text.as_bytes())
        }
    }
}

/// Whom a file of ours names after us, where nothing else is left of what stood there.
fn before_of_ours(text: &str) -> ResolvConf {
    let mut before = ResolvConf::parse(text);
    before.servers = before.servers.into_iter().skip(1).collect();
    before
}

/// Brings back what stood there. What others have written since stays; what was kept for us to bring back is laid aside
/// then, as it would be older than theirs.
///
/// # Errors
/// What is there stays.
pub fn undo(etc: &Path) -> io::Result<Undone> {
    let (file, backup) = (etc.join(NAME), etc.join(BACKUP));
    let Ok(kept) = fs::symlink_metadata(&backup) else {
        return undo_without_backup(&file);
    };
    if let Ok(standing) = fs::symlink_metadata(&file) {
        if (standing.dev(), standing.ino()) == (kept.dev(), kept.ino()) {
            // A crash came between the second name and the new file.
            fs::remove_file(&backup)?;
            return Ok(Undone::Nothing);
        }
        if !resolv_conf::is_ours(&read_if_there(&file)?) {
            fs::rename(&backup, etc.join(ASIDE))?;
            return Ok(Undone::ChangedByOthers);
        }
    }
    match fs::rename(&backup, &file) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            overwrite(&file, &fs::read(&backup)?)?;
            fs::remove_file(&backup)?;
        }
        done => done?,
    }
    sync(etc)?;
    Ok(Undone::Restored)
}

/// There was no file before, or what was kept is gone: then the servers that our file still names are what is left.
fn undo_without_backup(file: &Path) -> io::Result<Undone> {
    let text = read_if_there(file)?;
    if !resolv_conf::is_ours(&text) {
        return Ok(Undone::Nothing);
    }
    let others = before_of_ours(&text).servers;
    if others.is_empty() {
        fs::remove_file(file)?;
    } else {
        let lines = others.iter().map(|server| format!("nameserver {server}\n"));
        overwrite(file, lines.collect::<String>().as_bytes())?;
    }
    Ok(Undone::Restored)
}

/// Whom the host asked before, for the one who forwards to them; None while the file is not ours.
pub fn upstreams(etc: &Path, own: &[IpAddr]) -> Option<Vec<SocketAddr>> {
    let text = read_if_there(&etc.join(NAME)).ok()?;
    if !resolv_conf::is_ours(&text) {
        return None;
    }
    let mut servers = ResolvConf::parse(&text).servers;
    servers.retain(|server| !own.contains(&server.address) && !STUBS.contains(&server.address));
    Some(servers.iter().map(socket_address).collect())
}

/// Everybody whom this host asks for names, by any of the files that say so, ourselves included: now, before a takeover, and
/// by way of resolved.
pub fn asked(etc: &Path) -> Vec<IpAddr> {
    let files = [etc.join(NAME), etc.join(BACKUP), uplinks(etc)];
    let texts = files.map(|file| read_if_there(&file).unwrap_or_default());
    let servers = texts
        .iter()
        .flat_map(|text| ResolvConf::parse(text).servers);
    servers.map(|server| server.address).collect()
}

/// Where a server answers, by the link that its zone names.
fn socket_address(server: &Server) -> SocketAddr {
    const PORT: u16 = 53;
    match server.address {
        IpAddr::V4(v4) => (v4, PORT).into(),
        IpAddr::V6(v6) => {
            let zone = server.zone.as_deref().unwrap_or_default();
            let index = nix::net::if_::if_nametoindex(zone).ok();
            // Without its link it cannot be reached, and the next look finds the link.
            let link = index.or_else(|| zone.parse().ok()).unwrap_or(0);
            SocketAddrV6::new(v6, PORT, 0, link).into()
        }
    }
}

/// When the files last changed that our own took its servers from: where the kept one is a link, others go on writing
/// what it leads to, and resolved goes on listing whom it asks.
pub fn sources_changed_at(etc: &Path) -> [Option<SystemTime>; 2] {
    let backup = etc.join(BACKUP);
    if backup.symlink_metadata().is_err() {
        return [None; 2];
    }
    [backup, uplinks(etc)].map(|file| file.metadata().and_then(|file| file.modified()).ok())
}

fn uplinks(etc: &Path) -> PathBuf {
    etc.parent().unwrap_or(etc).join(UPLINKS)
}

/// Whether the file is ours now.
pub fn stands(etc: &Path) -> bool {
    read_if_there(&etc.join(NAME)).is_ok_and(|text| resolv_conf::is_ours(&text))
}

/// Whether it was ours and somebody else has written it since.
pub fn was_overwritten(etc: &Path) -> bool {
    etc.join(BACKUP).symlink_metadata().is_ok() && !stands(etc)
}

/// Whether a person wants the takeover.
pub fn is_wanted(etc: &Path) -> bool {
    etc.join(WANTED).symlink_metadata().is_ok()
}

/// Remembers that a person wants it, or no longer wants it.
///
/// # Errors
/// It is not remembered.
pub fn want(etc: &Path, is_wanted: bool) -> io::Result<()> {
    let mark = etc.join(WANTED);
    if is_wanted {
        fs::create_dir_all(mark.parent().unwrap_or(etc))?;
        File::create(mark).map(drop)
    } else {
        whole::remove(&mark)
    }
}

/// The servers before; instead of resolved's stubs, whom resolved asks: it would take us for its own server, and ask us
/// what we ask it.
fn past_the_stubs(etc: &Path, mut before: ResolvConf) -> ResolvConf {
    if before.asks(&STUBS) {
        let uplinks = fs::read_to_string(uplinks(etc)).unwrap_or_default();
        let uplinks = ResolvConf::parse(&uplinks);
        before
            .servers
            .retain(|server| !STUBS.contains(&server.address));
        before.servers.extend(uplinks.servers);
    }
    before
}

fn read_if_there(file: &Path) -> io::Result<String> {
    match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn write_draft(etc: &Path, text: &str) -> io::Result<PathBuf> {
    let draft = etc.join(DRAFT);
    whole::write_draft(&draft, text.as_bytes())?.sync_all()?;
    Ok(draft)
}

/// Gives what stands there a second name: links stay links, and nothing of it is changed. What an earlier takeover kept
/// was overwritten by others in the meantime, and counts no more.
fn keep(file: &Path, backup: &Path) -> io::Result<()> {
    whole::remove(backup)?;
    match linkat(AT_FDCWD, file, AT_FDCWD, backup, AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EXDEV) => copy(file, backup),
        Err(error) => match fs::read_link(file) {
            Ok(target) => std::os::unix::fs::symlink(target, backup),
            Err(_no_link) if file.is_file() => copy(file, backup),
            Err(_neither) => Err(error.into()),
        },
    }
}

/// A copy with the mode and owner of the original.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    let _older = fs::remove_file(to);
    fs::copy(from, to)?;
    let owner = (Some(metadata.uid()), Some(metadata.gid()));
    // Where this is not allowed the owner is whoever copies, which is root.
    let _best_effort = std::os::unix::fs::chown(to, owner.0, owner.1);
    File::open(to)?.sync_all()
}

/// Writes over a file that cannot be replaced.
fn overwrite(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host_dns::{scratch::Scratch, wish::tests::good};

    const OLD: &str = "# by hand \u{fffd}\nnameserver 192.0.2.1\nsearch lan";

    /// A host whose `/etc/resolv.conf` was made by `make`.
    fn host(what: &str, make: impl Fn(&Path)) -> (Scratch, PathBuf) {
        let root = Scratch::new(what);
        let etc = root.join("etc");
        fs::create_dir(&etc).unwrap();
        make(&etc);
        (root, etc)
    }

    /// A name, its inode, mode, target and bytes.
    type Entry = (PathBuf, u64, u32, Option<PathBuf>, Vec<u8>);

    fn everything(etc: &Path) -> Vec<Entry> {
        let mut all: Vec<_> = fs::read_dir(etc)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let metadata = fs::symlink_metadata(&path).unwrap();
                let bytes = fs::read(&path).unwrap_or_default();
                (
                    path.clone(),
                    metadata.ino(),
                    metadata.mode(),
                    fs::read_link(&path).ok(),
                    bytes,
                )
            })
            .collect();
        all.sort();
        all
    }

    fn plain(etc: &Path) {
        fs::write(etc.join(NAME), OLD).unwrap();
        fs::set_permissions(etc.join(NAME), fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn linked(etc: &Path) {
        fs::write(etc.join("real"), OLD).unwrap();
        symlink("real", etc.join(NAME)).unwrap();
    }

    fn dangling(etc: &Path) {
        symlink("../run/nowhere/resolv.conf", etc.join(NAME)).unwrap();
    }

    #[test]
    fn what_stood_there_comes_back_with_its_bytes_mode_inode_and_link() {
        for (what, make) in [
            ("take-plain", plain as fn(&Path)),
            ("take-link", linked),
            ("take-dangling", dangling),
        ] {
            let (_root, etc) = host(what, make);
            let before = everything(&etc);
            take(&etc, &good()).unwrap();
            assert!(stands(&etc), "{what}");
            assert!(!fs::symlink_metadata(etc.join(NAME)).unwrap().is_symlink());
            let taken = everything(&etc);
            take(&etc, &good()).unwrap();
            assert_eq!(everything(&etc), taken, "{what}: done twice");
            assert_eq!(undo(&etc).unwrap(), Undone::Restored, "{what}");
            assert_eq!(everything(&etc), before, "{what}");
            assert_eq!(undo(&etc).unwrap(), Undone::Nothing, "{what}");
        }
    }

    #[test]
    fn a_host_without_the_file_has_none_again() {
        let (_root, etc) = host("take-none", |_| {});
        take(&etc, &good()).unwrap();
        assert!(stands(&etc));
        assert_eq!(upstreams(&etc, &good().servers), Some(Vec::new()));
        assert_eq!(undo(&etc).unwrap(), Undone::Restored);
        assert_eq!(everything(&etc), []);
    }

    #[test]
    fn where_what_was_kept_is_gone_the_old_servers_stay() {
        let (_root, etc) = host("take-lost", plain);
        take(&etc, &good()).unwrap();
        fs::remove_file(etc.join(BACKUP)).unwrap();
        let moved = Wish {
            servers: vec!["fd7c:1a2b:3c4d::53".parse().unwrap()],
            ..good()
        };
        take(&etc, &moved).unwrap();
        assert_eq!(
            upstreams(&etc, &moved.servers),
            Some(vec!["192.0.2.1:53".parse().unwrap()])
        );
        assert_eq!(undo(&etc).unwrap(), Undone::Restored);
        assert_eq!(
            fs::read_to_string(etc.join(NAME)).unwrap(),
            "nameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn a_file_that_others_changed_is_left_alone() {
        let (_root, etc) = host("take-changed", plain);
        take(&etc, &good()).unwrap();
        fs::write(etc.join(NAME), "nameserver 192.0.2.77\n").unwrap();
        assert!(was_overwritten(&etc));
        assert_eq!(undo(&etc).unwrap(), Undone::ChangedByOthers);
        // It is said once, and what stood there before is laid aside.
        assert_eq!(undo(&etc).unwrap(), Undone::Nothing);
        assert!(!was_overwritten(&etc));
        assert_eq!(fs::read_to_string(etc.join(ASIDE)).unwrap(), OLD);
        assert_eq!(everything(&etc).len(), 2);
        assert_eq!(
            fs::read_to_string(etc.join(NAME)).unwrap(),
            "nameserver 192.0.2.77\n"
        );
        // Taken over again, what they wrote is what comes back.
        take(&etc, &good()).unwrap();
        assert_eq!(
            upstreams(&etc, &good().servers),
            Some(vec!["192.0.2.77:53".parse().unwrap()])
        );
        assert_eq!(undo(&etc).unwrap(), Undone::Restored);
        assert_eq!(
            fs::read_to_string(etc.join(NAME)).unwrap(),
            "nameserver 192.0.2.77\n"
        );
    }

    #[test]
    fn a_comment_in_our_file_takes_nothing_away() {
        let (_root, etc) = host("take-comment", plain);
        take(&etc, &good()).unwrap();
        let text = fs::read_to_string(etc.join(NAME)).unwrap();
        fs::write(etc.join(NAME), format!("{text}# a note\n")).unwrap();
        assert!(stands(&etc) && !was_overwritten(&etc));
        assert_eq!(undo(&etc).unwrap(), Undone::Restored);
        assert_eq!(fs::read_to_string(etc.join(NAME)).unwrap(), OLD);
    }

    #[test]
    fn a_crash_at_any_step_leaves_a_file_that_resolves_and_an_undo_that_works() {
        // After the second name, before the new file.
        let (_root, etc) = host("take-crash", plain);
        let before = everything(&etc);
        write_draft(&etc, "half").unwrap();
        keep(&etc.join(NAME), &etc.join(BACKUP)).unwrap();
        assert_eq!(fs::read_to_string(etc.join(NAME)).unwrap(), OLD);
        assert_eq!(undo(&etc).unwrap(), Undone::Nothing);
        fs::remove_file(etc.join(DRAFT)).unwrap();
        assert_eq!(everything(&etc), before);
        // The same, and then taken over after all.
        keep(&etc.join(NAME), &etc.join(BACKUP)).unwrap();
        take(&etc, &good()).unwrap();
        assert_eq!(undo(&etc).unwrap(), Undone::Restored);
        assert_eq!(everything(&etc), before);
    }

    #[test]
    fn the_stubs_of_resolved_give_way_to_whom_it_asks() {
        let (root, etc) = host("take-stub", |etc| {
            symlink("../run/systemd/resolve/stub-resolv.conf", etc.join(NAME)).unwrap();
        });
        let resolve = root.join("run/systemd/resolve");
        fs::create_dir_all(&resolve).unwrap();
        fs::write(resolve.join("stub-resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        fs::write(
            resolve.join("resolv.conf"),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\n",
        )
        .unwrap();
        take(&etc, &good()).unwrap();
        assert_eq!(
            upstreams(&etc, &good().servers).unwrap(),
            ["192.0.2.1:53", "192.0.2.2:53"].map(|text| text.parse::<SocketAddr>().unwrap())
        );
    }

    #[test]
    fn servers_that_change_behind_a_link_are_seen_and_taken_anew() {
        let (_root, etc) = host("take-moves", linked);
        assert_eq!(sources_changed_at(&etc), [None; 2]);
        take(&etc, &good()).unwrap();
        let before = sources_changed_at(&etc);
        assert!(before[0].is_some());
        fs::write(etc.join("real"), "nameserver fe80::1%lo\n").unwrap();
        let later = before[0].unwrap() + std::time::Duration::from_secs(9);
        let real = File::options().write(true).open(etc.join("real")).unwrap();
        real.set_modified(later).unwrap();
        assert_ne!(sources_changed_at(&etc), before);
        take(&etc, &good()).unwrap();
        let link = nix::net::if_::if_nametoindex("lo").unwrap();
        let server = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, link);
        assert_eq!(upstreams(&etc, &good().servers), Some(vec![server.into()]));
    }

    #[test]
    fn what_cannot_be_taken_leaves_nothing_behind() {
        let (_root, etc) = host("take-fails", |etc| {
            plain(etc);
            // Nothing can be kept under this name.
            fs::create_dir(etc.join(BACKUP)).unwrap();
        });
        let before = everything(&etc);
        assert!(take(&etc, &good()).is_err());
        assert_eq!(everything(&etc), before);
    }

    #[test]
    fn a_wish_outlives_the_agent() {
        let (_root, etc) = host("take-want", plain);
        assert!(!is_wanted(&etc));
        want(&etc, true).unwrap();
        assert!(is_wanted(&etc));
        want(&etc, false).unwrap();
        want(&etc, false).unwrap();
        assert!(!is_wanted(&etc));
        assert_eq!(upstreams(&etc, &[]), None);
    }
}
