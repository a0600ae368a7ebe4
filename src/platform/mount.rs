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
    for (from, name) in [
        (resolv_conf, "resolv.conf"),
        (nsswitch_conf, "nsswitch.conf"),
    ] {
        let over = Path::new("/etc").join(name);
        cover(from, &over, scratch).map_err(|source| CoverError {
            from: from.into(),
            over,
            source,
        })?;
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

/// Shows the file `from` at `over`, whether a file, a link to one, a link to nothing or nothing is there.
fn cover(from: &Path, over: &Path, scratch: &Path) -> io::Result<()> {
    let target = match over.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            stand_in(over, scratch)?;
            over.to_owned()
        }
        Err(error) => return Err(error),
    };
    mount(
        Some(from),
        &target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(io::Error::from)
}

/// Makes an empty file at `over` that only this mount namespace sees: its directory becomes an overlay.
fn stand_in(over: &Path, scratch: &Path) -> io::Result<()> {
    let lower = over.parent().expect("a file lies in a directory");
    let name = over.file_name().expect("a file has a name");
    let layers = scratch.join(name);
    fs::create_dir(&layers)?;
    hide(&layers)?;
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    // Inside a user namespace overlayfs must not use trusted attributes; as real root `userxattr` does no harm.
    mount(
        Some("overlay"),
        lower,
        Some("overlay"),
        MsFlags::empty(),
        Some(format!("{options},userxattr").as_str()),
    )?;
    let fresh = lower.join(".webmesh-stand-in");
    fs::write(&fresh, "")?;
    fs::rename(&fresh, over)
}
