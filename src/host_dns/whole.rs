//! Files that others read while they are written: a reader sees the old one or the new one, whole.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Writes a new file that everybody may read, in the place of one that an earlier run left. Where somebody has put a link
/// there, nothing is written through it.
///
/// # Errors
/// The folder takes no file.
pub(super) fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<fs::File> {
    let _of_an_earlier_run = fs::remove_file(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(draft)?;
    file.write_all(bytes)?;
    // Under a umask of 077 it would be closed to those who only look.
    file.set_permissions(Permissions::from_mode(0o644))?;
    Ok(file)
}

/// Writes `name` in `folder`, by a draft beside it.
///
/// # Errors
/// The folder takes no file; the old one stays.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!(".{name}.new"));
    write_draft(&draft, bytes)?;
    fs::rename(draft, folder.join(name))
}

/// Removes a file; it may be gone already.
///
/// # Errors
/// It is still there.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
