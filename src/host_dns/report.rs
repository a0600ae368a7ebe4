//! What root did for the agent's names, told to everybody who may look: a file that only root writes.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use serde::{Deserialize, Serialize};

use super::whole;
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
    whole::replace(folder, NAME, serde_json::to_string(report)?.as_bytes())
}

/// Removes the report.
///
/// # Errors
/// It is still there.
pub fn remove(folder: &Path) -> io::Result<()> {
    whole::remove(&folder.join(NAME))
}
