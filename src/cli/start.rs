//! What `webmesh daemon` starts with: the file, and what was typed over it.

use std::path::PathBuf;

use super::{
    args::{Common, Daemon},
    quoted,
};
use crate::{
    api::{ApiError, DEFAULT_SOCKET, words},
    config::{Absence, Config, DEFAULT_FILE, DEFAULT_STATE_DIR, Definitions, Source},
};

/// What to do about a file that cannot be used, by the name it was given.
fn again(source: &Source) -> String {
    let check = "mend it, then webmesh daemon --check-config";
    match source.absence {
        Absence::Defaults => check.to_owned(),
        Absence::Error => {
            let file = quoted(&source.file.display().to_string());
            format!("{check} --config {file}")
        }
    }
}

/// Everything the agent is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The settings.
    pub config: Config,
    /// Where they came from.
    pub source: Source,
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
        let source = Source {
            file: daemon
                .config
                .clone()
                .unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)),
            absence: match daemon.config {
                Some(_) => Absence::Error,
                None => Absence::Defaults,
            },
            tun: daemon.tun.clone(),
            port: daemon.port,
        };
        let config = source.load().map_err(|error| {
            ApiError::bad_request(format!("{:#}", anyhow::Error::new(error))).remedy(again(&source))
        })?;
        let or_default = |given: &Option<PathBuf>, default: &str| {
            given.clone().unwrap_or_else(|| default.into())
        };
        Ok(Self {
            config,
            source,
            state_dir: or_default(&daemon.state_dir, DEFAULT_STATE_DIR),
            socket: or_default(&common.socket, DEFAULT_SOCKET),
        })
    }

    /// What `--check-config` says of a configuration that was read, and of the services that are defined beside it.
    ///
    /// # Errors
    /// A definition cannot be used, or `judge`, which speaks for the agent, refuses something: the first of them.
    pub fn verdict(
        &self,
        judge: impl FnOnce(&Source, &Config, &Definitions) -> Result<(), String>,
    ) -> Result<String, ApiError> {
        let services = Definitions::read(&self.source.services());
        let judged = match services.faults.first() {
            Some((_, what)) => Err(what.clone()),
            None => judge(&self.source, &self.config, &services),
        };
        judged.map_err(|what| ApiError::bad_request(what).remedy(again(&self.source)))?;
        let file = self.source.file.display();
        let text = if self.source.file.exists() {
            format!("{file} is good")
        } else {
            format!("there is no {file}: the defaults hold")
        };
        Ok(match services.services.len() {
            0 => format!("{text}\n"),
            count => format!(
                "{text}; {} in services.d\n",
                words::count(count as u64, "service")
            ),
        })
    }
}
