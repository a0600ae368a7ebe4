//! Demos that were asked to stay: where they are written down, how one is entered and ended.
//!
//! Knows the user's runtime directory. Refuses to know what is in a lab beyond machines' names.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{DIRECTORY, agent, lab::Lab};
use crate::platform::{credentials, namespace::Namespaces};

/// A demo that stays until it is stopped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pid: i32,
    machines: BTreeMap<String, u32>,
    directory: PathBuf,
    program: PathBuf,
}

/// The directory of this user's demos, made with mode 0700.
///
/// # Errors
/// When something there belongs to somebody else.
pub(super) fn directory() -> io::Result<PathBuf> {
    let uid = credentials::own_uid();
    let path = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_dir() => runtime.join(DIRECTORY),
        Some(_) | None => PathBuf::from(format!("/tmp/{DIRECTORY}-{uid}")),
    };
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let seen = fs::symlink_metadata(&path)?;
    if !seen.is_dir() || seen.uid() != uid || seen.mode() & 0o077 != 0 {
        let why = format!("{} is not a private directory of this user", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(path)
}

/// Writes a lab down, so that [`find`] finds it. The lab's end removes the note.
pub(super) fn keep(lab: &Lab) -> io::Result<()> {
    let kept = Kept {
        pid: Pid::this().as_raw(),
        machines: lab
            .machines()
            .into_iter()
            .map(|one| (one.name, one.pid))
            .collect(),
        directory: lab.directory().to_owned(),
        program: lab.program().to_owned(),
    };
    fs::write(lab.directory().join(NOTE), serde_json::to_vec(&kept)?)
}

/// A demo of this user that was kept and still runs.
pub(super) fn find() -> io::Result<Option<Kept>> {
    for entry in fs::read_dir(directory()?)?.flatten() {
        let Ok(text) = fs::read(entry.path().join(NOTE)) else {
            continue;
        };
        let kept: Kept = serde_json::from_slice(&text)?;
        if kill(Pid::from_raw(kept.pid), None).is_ok() {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

impl Kept {
    /// The machines' names.
    pub(super) fn names(&self) -> Vec<&str> {
        self.machines.keys().map(String::as_str).collect()
    }

    /// Whether it has a machine of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.machines.contains_key(name)
    }

    /// Becomes the user's shell in a machine. Comes back only when that fails.
    pub(super) fn enter(&self, name: &str) -> io::Error {
        let Some(pid) = self.machines.get(name) else {
            return io::ErrorKind::NotFound.into();
        };
        let directory = self.directory.join(name);
        let entered = Namespaces::of(*pid)
            .and_then(|namespaces| namespaces.enter())
            .and_then(|()| std::env::set_current_dir(&directory));
        if let Err(error) = entered {
            return error;
        }
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        Command::new(shell)
            .envs(agent::environment(
                &self.program,
                &directory.join("webmesh.sock"),
            ))
            .env("PS1", format!("{name}$ "))
            .exec()
    }

    /// Ends it and waits until its files are gone.
    pub(super) fn stop(&self) -> io::Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        for _ in 0..STOP_TRIES {
            if !Path::new(&self.directory).exists() {
                return Ok(());
            }
            thread::sleep(STOP_PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

const NOTE: &str = "kept.json";

/// As long as the world may take to clear up.
const STOP_TRIES: u32 = 200;
const STOP_PAUSE: Duration = Duration::from_millis(25);
