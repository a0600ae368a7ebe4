//! The file a person writes, and the checked values it becomes.
//!
//! `/etc/webmesh/config.toml` (design §4). Every key has a default, so the file may be missing or empty; a key that is
//! not known is an error with its file and line, since a misspelt key that is silently ignored costs an evening. Keys of
//! parts that are not built yet are unknown too: nothing here pretends.
//!
//! Knows the keys, their defaults and bounds. Refuses to know what they do.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::api::ReadAccess;

mod value;

pub use value::{DnsMode, Mtu, TunName};

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/webmesh/config.toml";

/// Where the agent keeps what it must find again, unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/webmesh";

/// The UDP port that is tried first. Nobody else's in the registry of ports; another one is drawn if it is busy.
pub const DEFAULT_PORT: u16 = 41_820;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The underlay.
    pub network: Network,
    /// The device.
    pub tun: Tun,
    /// Names.
    pub dns: Dns,
    /// The agent's socket.
    pub api: Api,
    /// For tests alone.
    pub test: Test,
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// `port`: the UDP port. Default: [`DEFAULT_PORT`], or another if that is busy. When given, a busy one is an error.
    pub port: Option<std::num::NonZeroU16>,
}

/// `[tun]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tun {
    /// `name`: what the device is called. Default: `wm0`.
    pub name: TunName,
    /// `mtu`: the device's, 1280 to 1984. Default: 1420, what is left of an Ethernet packet in the worst case (IPv6).
    pub mtu: Mtu,
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// `mode`: what becomes of the host's own resolver. Default: `auto`.
    pub mode: DnsMode,
    /// `search`: whether short names are completed with the network's domains. Default: true.
    pub search: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            mode: DnsMode::default(),
            search: true,
        }
    }
}

/// `[api]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// `read`: who may look, `anyone` or `group`. Default: `anyone`.
    pub read: ReadAccess,
}

/// `[test]`: what tests must be able to shorten. Nothing here is for people.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Test {
    /// `links`: the most gossip links. Default: 64, everyone in the networks of today.
    pub links: usize,
    /// `idle_s`: seconds after which a session that nobody uses is closed. Default: 300.
    pub idle_s: u64,
}

impl Default for Test {
    fn default() -> Self {
        Self {
            links: 64,
            idle_s: 300,
        }
    }
}

/// What a file that is not there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The defaults: nobody asked for this file.
    Defaults,
    /// An error: somebody named it.
    Error,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is no configuration.
    #[error("{}:{line}: {what}", .file.display())]
    Wrong {
        /// In which file.
        file: PathBuf,
        /// On which line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or [`Config::parse`] refuses it.
    pub fn load(file: &Path, absence: Absence) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && absence == Absence::Defaults =>
            {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Unreadable {
                file: file.to_owned(),
                source,
            }),
        }
    }

    /// Reads a text; `file` is named in errors.
    ///
    /// # Errors
    /// It is not TOML, a key is unknown, or a value is not possible.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Wrong {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            what: error.message().to_owned(),
        })
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("config.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.tun.name.as_str(), "wm0");
        assert_eq!(config.tun.mtu.bytes(), 1420);
        assert_eq!(config.network.port, None);
        assert_eq!((config.test.links, config.test.idle_s), (64, 300));
    }

    #[test]
    fn every_key_is_taken() {
        let text = "[network]\nport = 5000\n[tun]\nname = \"mesh\"\nmtu = 1280\n[dns]\nmode = \"off\"\nsearch = false\n\
                    [api]\nread = \"group\"\n[test]\nlinks = 4\nidle_s = 5\n";
        let config = parse(text).unwrap();
        assert_eq!(config.network.port.map(|port| port.get()), Some(5000));
        assert_eq!(config.tun.name.as_str(), "mesh");
        assert_eq!((config.dns.mode, config.dns.search), (DnsMode::Off, false));
        assert_eq!(config.api.read, ReadAccess::Group);
        assert_eq!((config.test.links, config.test.idle_s), (4, 5));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_file_and_line() {
        let error = parse("[tun]\nname = \"wm0\"\n\n[network]\nprot = 1\n").unwrap_err();
        assert!(
            error.starts_with("config.toml:5: unknown field `prot`"),
            "{error}"
        );
        let error = parse("\n[relay]\nudp = true\n").unwrap_err();
        assert!(
            error.starts_with("config.toml:2: unknown field `relay`"),
            "{error}"
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_an_error_with_file_and_line() {
        let wrong = [
            (
                "[tun]\nmtu = 1279",
                "config.toml:2: mtu must be 1280 to 1984",
            ),
            (
                "[tun]\nmtu = 1985",
                "config.toml:2: mtu must be 1280 to 1984",
            ),
            (
                "[tun]\nname = \"a/b\"",
                "config.toml:2: a device's name has 1 to 15 letters",
            ),
            (
                "[tun]\nname = \"\"",
                "config.toml:2: a device's name has 1 to 15 letters",
            ),
            ("[network]\nport = 0", "config.toml:2: "),
            ("[network]\nport = 70000", "config.toml:2: "),
            ("[dns]\n\nmode = \"maybe\"", "config.toml:3: "),
            ("tun = 3\n", "config.toml:1: "),
            ("[tun\n", "config.toml:1: "),
        ];
        for (text, start) in wrong {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(start) && !error.contains('\n'),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let file = Path::new("/nonexistent/webmesh.toml");
        assert_eq!(
            Config::load(file, Absence::Defaults).unwrap(),
            Config::default()
        );
        assert!(Config::load(file, Absence::Error).is_err());
    }
}
