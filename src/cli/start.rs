//! What `webmesh daemon` starts with: the file, and what was typed over it.

use std::path::{Path, PathBuf};

use super::args::{Common, Daemon};
use crate::{
    api::{ApiError, DEFAULT_SOCKET},
    config::{Absence, Config, DEFAULT_FILE, DEFAULT_STATE_DIR},
};

/// Everything the agent is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The settings.
    pub config: Config,
    /// Where keys and records are kept.
    pub state_dir: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Start {
    /// Reads the configuration and lays what was typed over it.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn read(daemon: &Daemon, common: &Common) -> Result<Self, ApiError> {
        let (file, absence) = match &daemon.config {
            Some(file) => (file.as_path(), Absence::Error),
            None => (Path::new(DEFAULT_FILE), Absence::Defaults),
        };
        let mut config = Config::load(file, absence).map_err(|error| {
            ApiError::bad_request(format!("{:#}", anyhow::Error::new(error)))
                .remedy("mend it, then webmesh daemon --check-config")
        })?;
        if let Some(name) = &daemon.tun {
            config.tun.name = name.clone();
        }
        config.network.port = daemon.port.or(config.network.port);
        let or_default = |given: &Option<PathBuf>, default: &str| {
            given.clone().unwrap_or_else(|| default.into())
        };
        Ok(Self {
            config,
            state_dir: or_default(&daemon.state_dir, DEFAULT_STATE_DIR),
            socket: or_default(&common.socket, DEFAULT_SOCKET),
        })
    }
}
