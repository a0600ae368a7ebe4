//! `dns.json`, beside the agent's socket: written by the agent, read by root, who trusts nothing about it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{fcntl::OFlag, unistd::User};

use super::{
    whole,
    wish::{Wish, WishRefused},
};

/// Its name.
pub const NAME: &str = "dns.json";

/// What the folders of the wish and of the reports are called in errors.
const FOLDER: &str = "the folder beside the agent's socket";

/// The longest one taken, bytes: a real one has some 400.
const LONGEST: u64 = 16 * 1024;

/// The user that the agent's unit runs as.
const AGENT: &str = "webmesh";

/// Why the file is not believed. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ReadWishError {
    /// The kernel does not give it.
    #[error("{NAME} cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is a link, a pipe, a second name of something.
    #[error("{NAME} is no plain file of its own")]
    NotPlain,
    /// Its folder is none.
    #[error("{FOLDER} is a link or a file, and no folder")]
    NoFolder,
    /// It, or its folder, is somebody's who is neither root nor the agent.
    #[error("{0} belongs to user {1}, who is neither root nor the agent's")]
    Owner(&'static str, u32),
    /// Others may write to it.
    #[error("{0} may be written by others than its owner")]
    Open(&'static str),
    /// Longer than any real one.
    #[error("{NAME} is longer than {LONGEST} bytes")]
    Long,
    /// Not what an agent writes.
    #[error("{NAME} is not what an agent of this version writes: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It wishes for what no network is owed.
    #[error("{NAME} is refused: {0}")]
    Refused(#[from] WishRefused),
}

/// Reads the file in `folder` and checks all of it. None: the agent wishes for nothing.
///
/// # Errors
/// It is not what the agent writes; nothing of it counts then.
pub fn read(folder: &Path) -> Result<Option<Wish>, ReadWishError> {
    judge_folder(folder)?;
    let careful = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(careful.bits())
        .open(folder.join(NAME));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(ReadWishError::NotPlain);
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(ReadWishError::NotPlain);
    }
    judge(NAME, &metadata)?;
    let text = read_bounded(file)?;
    let wish: Wish = serde_json::from_str(&text)?;
    wish.check()?;
    Ok(Some(wish))
}

/// Whether nobody but root and the agent can change what is in a folder, or in one that is not there yet.
///
/// # Errors
/// Somebody else can, or it is a link.
pub fn judge_folder(folder: &Path) -> Result<(), ReadWishError> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => Err(ReadWishError::NoFolder),
        Ok(metadata) => judge(FOLDER, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn judge(what: &'static str, metadata: &fs::Metadata) -> Result<(), ReadWishError> {
    let owner = metadata.uid();
    let is_agent = || {
        User::from_name(AGENT).is_ok_and(|user| user.is_some_and(|user| user.uid.as_raw() == owner))
    };
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() && !is_agent() {
        return Err(ReadWishError::Owner(what, owner));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(ReadWishError::Open(what));
    }
    Ok(())
}

/// Reads a file that is no longer than a wish.
pub(super) fn read_short(path: &Path) -> Result<String, ReadWishError> {
    read_bounded(File::open(path)?)
}

fn read_bounded(file: File) -> Result<String, ReadWishError> {
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(ReadWishError::Long);
    }
    Ok(text)
}

/// Writes the file, so that a reader sees the old or the new one whole.
///
/// # Errors
/// The folder takes no file.
pub fn write(folder: &Path, wish: &Wish) -> io::Result<()> {
    whole::replace(folder, NAME, serde_json::to_string(wish)?.as_bytes())
}

/// Removes the file: the agent wishes for nothing any more.
///
/// # Errors
/// It is still there.
pub fn remove(folder: &Path) -> io::Result<()> {
    whole::remove(&folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::host_dns::{scratch::Scratch, wish::tests::good};

    #[test]
    fn what_is_written_is_read_again_and_then_gone() {
        let folder = Scratch::new("wish");
        assert_eq!(read(&folder).unwrap(), None);
        write(&folder, &good()).unwrap();
        assert_eq!(read(&folder).unwrap(), Some(good()));
        let mode = fs::metadata(folder.join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o644);
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert_eq!(read(&folder).unwrap(), None);
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
        assert_eq!(read(&folder.join("nowhere")).unwrap(), None);
    }

    #[test]
    fn links_pipes_and_second_names_are_refused() {
        let folder = Scratch::new("wish-links");
        let real = folder.join("real");
        fs::write(&real, serde_json::to_string(&good()).unwrap()).unwrap();
        symlink(&real, folder.join(NAME)).unwrap();
        assert!(matches!(read(&folder), Err(ReadWishError::NotPlain)));
        remove(&folder).unwrap();
        fs::hard_link(&real, folder.join(NAME)).unwrap();
        assert!(matches!(read(&folder), Err(ReadWishError::NotPlain)));
        remove(&folder).unwrap();
        nix::unistd::mkfifo(&folder.join(NAME), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&folder), Err(ReadWishError::NotPlain)));
        let link = folder.join("link");
        symlink(&*folder, &link).unwrap();
        assert!(matches!(read(&link), Err(ReadWishError::NoFolder)));
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let folder = Scratch::new("wish-open");
        write(&folder, &good()).unwrap();
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&folder.join(NAME), 0o666);
        assert!(matches!(read(&folder), Err(ReadWishError::Open(NAME))));
        open(&folder.join(NAME), 0o644);
        open(&folder, 0o777);
        assert!(matches!(read(&folder), Err(ReadWishError::Open(FOLDER))));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let folder = Scratch::new("wish-owner");
        write(&folder, &good()).unwrap();
        if !nix::unistd::geteuid().is_root() {
            // Only root can give a file away; the judgement itself needs no file of another's.
            let foreign = fs::symlink_metadata("/proc/1").unwrap();
            assert!(
                foreign.uid() == 0
                    || matches!(judge(NAME, &foreign), Err(ReadWishError::Owner(NAME, _)))
            );
            return;
        }
        std::os::unix::fs::chown(folder.join(NAME), Some(65_534), None).unwrap();
        assert!(matches!(
            read(&folder),
            Err(ReadWishError::Owner(NAME, 65_534))
        ));
        write(&folder, &good()).unwrap();
        std::os::unix::fs::chown(&*folder, Some(65_534), None).unwrap();
        assert!(matches!(
            read(&folder),
            Err(ReadWishError::Owner(FOLDER, _))
        ));
    }

    #[test]
    fn what_is_no_wish_is_refused_in_one_sentence() {
        let folder = Scratch::new("wish-text");
        let json = serde_json::to_value(good()).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut json = json.clone();
            json[key] = value;
            json.to_string()
        };
        for text in [
            String::new(),
            "{}".to_owned(),
            "[".repeat(10_000),
            with("more", 1.into()),
            with("generation", "1".into()),
            with("servers", "100.71.255.53".into()),
            with("servers", serde_json::json!(["8.8.8.8"])),
            with("domain", "com".into()),
            with("prefix6", "::/0".into()),
            with("search", serde_json::json!(["a".repeat(20_000)])),
        ] {
            fs::write(folder.join(NAME), &text).unwrap();
            fs::set_permissions(folder.join(NAME), fs::Permissions::from_mode(0o644)).unwrap();
            let error = read(&folder).unwrap_err().to_string();
            assert!(error.starts_with(NAME) && !error.contains('\n'), "{error}");
        }
    }
}
