//! What root did for the agent's names, told to everybody who may look: a file that only root writes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::api::DnsBackend;

/// Its name.
const NAME: &str = "report.json";

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The wish's number.
    pub generation: u64,
    /// For which device.
    pub index: u32,
    /// Who sends us our names.
    pub backend: DnsBackend,
    /// Why him, or why nobody.
    pub why: String,
}

/// Reads the report in `folder`, if there is one that root wrote.
pub fn read(folder: &Path) -> Option<Report> {
    let file = folder.join(NAME);
    let owner = fs::symlink_metadata(&file).ok()?.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return None;
    }
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

/// Writes the report.
///
/// # Errors
/// Nobody will know.
pub fn write(folder: &Path, report: &Report) -> io::Result<()> {
    let draft = folder.join(".report.json.new");
    let _of_an_earlier_run = fs::remove_file(&draft);
    // A new file or none: where somebody has put a link there, nothing is written through it.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)?;
    file.write_all(serde_json::to_string(report)?.as_bytes())?;
    // Under a umask of 077 it would be closed to those who only look.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.set_permissions(readable)?;
    fs::rename(draft, folder.join(NAME))
}

/// Removes the report.
///
/// # Errors
/// It is still there.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
