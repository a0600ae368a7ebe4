//! Files of one mount namespace that stand in for the host's: how names are looked up there.
//!
//! Knows bind mounts, tmpfs and overlayfs. Refuses to know what the files say. To be called only in a mount namespace
//! of one's own, made private: elsewhere it would change the host.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

/// Directories in which a resolver's socket or answers would be found before `/etc/resolv.conf` is asked.
const SHORTCUTS: [&str; 2] = ["/run/systemd/resolve", "/run/nscd"];

/// Why a file could not be put in the place of the host's.
#[derive(Debug, thiserror::Error)]
#[error("cannot put {} over {}: {source}", .from.display(), .over.display())]
pub struct CoverError {
    /// The file meant to be seen.
    pub from: PathBuf,
    /// Where it should be seen.
    pub over: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Keeps every mount made from here on inside this mount namespace.
pub fn make_private() -> io::Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(io::Error::from)
}

/// Shows `resolv_conf` and `nsswitch_conf` at their places in `/etc` and hides the sockets of local resolvers.
///
/// `scratch` is an own, empty directory for the case that `/etc` lacks one of them.
pub fn use_names(
    resolv_conf: &Path,
    nsswitch_conf: &Path,
    scratch: &Path,
) -> Result<(), CoverError> {
    for directory in SHORTCUTS
        .map(Path::new)
        .into_iter()
        .filter(|path| path.is_dir())
    {
        hide(directory).map_err(|source| CoverError {
            from: "tmpfs".into(),
            over: directory.into(),
            source,
        })?;
    }
    let files = [
        (resolv_conf, Path::new("/etc/resolv.conf")),
        (nsswitch_conf, Path::new("/etc/nsswitch.conf")),
    ];
    let refused = |(from, over): (&Path, &Path), source| CoverError {
        from: from.into(),
        over: over.into(),
        source,
    };
    // All stand-ins come before the first file: the overlay would hide what lies over /etc already.
    let missing: Vec<&Path> = files
        .map(|(_, over)| over)
        .into_iter()
        .filter(|over| !over.exists())
        .collect();
    if let [first, ..] = missing.as_slice() {
        stand_in(&missing, scratch).map_err(|source| refused((scratch, first), source))?;
    }
    for (from, over) in files {
        bind(from, over).map_err(|source| refused((from, over), source))?;
    }
    Ok(())
}

/// Lays an empty tmpfs over a directory.
fn hide(directory: &Path) -> io::Result<()> {
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("size=64k,mode=0755"),
    )
    .map_err(io::Error::from)
}

/// Shows the file `from` at `over`, which is a file or a link to one.
fn bind(from: &Path, over: &Path) -> io::Result<()> {
    mount(
        Some(from),
        &over.canonicalize()?,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(io::Error::from)
}

/// Puts empty files in `/etc` where nothing or a link to nothing is, seen in this mount namespace alone: `/etc`
/// becomes an overlay.
fn stand_in(missing: &[&Path], scratch: &Path) -> io::Result<()> {
    hide(scratch)?;
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = format!(
        "lowerdir=/etc,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    // Inside a user namespace overlayfs must not use trusted attributes; as real root `userxattr` does no harm.
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(format!("{options},userxattr").as_str()),
    )?;
    for over in missing {
        let fresh = Path::new("/etc/.webmesh-stand-in");
        fs::write(fresh, "")?;
        fs::rename(fresh, over)?;
    }
    Ok(())
}
