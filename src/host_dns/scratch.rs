//! A folder of a test, gone with it.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

/// The folder.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(what: &str) -> Self {
        let name = format!("webmesh-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _of_an_earlier_run = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, closed).unwrap();
        Self(path)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}
