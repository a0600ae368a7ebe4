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

use serde::{Deserialize, Serialize};

use crate::api::ReadAccess;

mod definition;
mod source;
mod value;

pub use definition::{Definition, Definitions};
pub use source::Source;
pub use value::{DnsMode, LinkPattern, Mtu, TunName};

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/webmesh/config.toml";

/// Where the agent keeps what it must find again, unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/webmesh";

/// The UDP port that is tried first. Nobody else's in the registry of ports; another one is drawn if it is busy.
pub const DEFAULT_PORT: u16 = 41_820;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The underlay.
    pub network: Network,
    /// The device.
    pub tun: Tun,
    /// Names.
    pub dns: Dns,
    /// The machine around the agent.
    pub host: Host,
    /// The agent's socket.
    pub api: Api,
    /// For tests alone.
    pub test: Test,
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// `port`: the UDP port. Default: [`DEFAULT_PORT`], or another if that is busy. When given, a busy one is an error.
    pub port: Option<std::num::NonZeroU16>,
}

/// `[tun]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tun {
    /// `name`: what the device is called. Default: `wm0`.
    pub name: TunName,
    /// `mtu`: the device's, 1280 to 1984. Default: 1420, what is left of an Ethernet packet in the worst case (IPv6).
    pub mtu: Mtu,
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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

/// `[host]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// `guard`: whether packets for or from mesh addresses that come in past the device are dropped. Default: `true`.
    pub guard: bool,
    /// `guard_local`: interfaces that only guests of this host are behind, which may reach the mesh too; a `*` at the
    /// end stands for any rest of a name. Default: `docker0`.
    pub guard_local: Vec<LinkPattern>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            guard: true,
            guard_local: vec![LinkPattern::docker()],
        }
    }
}

/// `[api]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// `read`: who may look, `all` or `group`. Default: `all`.
    pub read: ReadAccess,
}

/// `[test]`: what tests must be able to shorten. Nothing here is for people, and no example file shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
    /// What runs once a running agent has read `fresh`: of this, what is made at the start; of `fresh`, what can change at
    /// any time.
    #[must_use]
    pub fn reloaded(&self, fresh: &Self) -> Self {
        // Taken apart in full: whoever adds a section decides here what becomes of it.
        let Self {
            network,
            tun,
            dns: _,
            host,
            api: _,
            test,
        } = self.clone();
        Self {
            network,
            tun,
            host,
            dns: fresh.dns.clone(),
            api: fresh.api.clone(),
            test,
        }
    }

    /// The keys in which two configurations differ, as a person writes them: `tun.mtu`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (keys(self), keys(other));
        ours.into_iter()
            .zip(theirs)
            .filter(|(ours, theirs)| ours != theirs)
            .map(|((key, _), _)| key)
            .collect()
    }

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

/// Every key with its value, in the same order for every configuration.
fn keys(config: &Config) -> Vec<(String, serde_json::Value)> {
    let value = serde_json::to_value(config).expect("settings are text and numbers");
    let mut keys = Vec::new();
    for (section, inside) in value.as_object().into_iter().flatten() {
        for (key, value) in inside.as_object().into_iter().flatten() {
            keys.push((format!("{section}.{key}"), value.clone()));
        }
    }
    keys
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
        assert!(config.host.guard);
        assert_eq!(config.host.guard_local[0].as_str(), "docker0");
        assert_eq!((config.test.links, config.test.idle_s), (64, 300));
    }

    #[test]
    fn every_key_is_taken() {
        let text = "[network]\nport = 5000\n[tun]\nname = \"mesh\"\nmtu = 1280\n[dns]\nmode = \"off\"\nsearch = false\n\
                    [host]\nguard = false\nguard_local = [\"br-*\", \"virbr0\"]\n\
                    [api]\nread = \"group\"\n[test]\nlinks = 4\nidle_s = 5\n";
        let config = parse(text).unwrap();
        assert_eq!(config.network.port.map(|port| port.get()), Some(5000));
        assert_eq!(config.tun.name.as_str(), "mesh");
        assert_eq!((config.dns.mode, config.dns.search), (DnsMode::Off, false));
        let local: Vec<&str> = config
            .host
            .guard_local
            .iter()
            .map(LinkPattern::as_str)
            .collect();
        assert_eq!((config.host.guard, local), (false, vec!["br-*", "virbr0"]));
        assert_eq!(config.api.read, ReadAccess::Group);
        assert_eq!((config.test.links, config.test.idle_s), (4, 5));
    }

    /// The shipped file with every key of it uncommented.
    fn shipped() -> String {
        let is_key = |line: &str| {
            let name = line.split('=').next().unwrap_or_default().trim();
            line.contains('=')
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let text = include_str!("../../packaging/config.toml");
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if is_key(rest) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        };
        text.lines().map(bare).collect()
    }

    #[test]
    fn the_shipped_file_shows_what_holds_without_it() {
        assert_eq!(
            parse(include_str!("../../packaging/config.toml")).unwrap(),
            Config::default()
        );
        let mut shown = parse(&shipped()).unwrap();
        let port = shown.network.port.take();
        assert_eq!(port.map(|port| port.get()), Some(DEFAULT_PORT));
        assert_eq!(shown, Config::default());
    }

    #[test]
    fn the_shipped_file_shows_every_key() {
        let shown: toml::Table = toml::from_str(&shipped()).unwrap();
        let shown: Vec<String> = shown
            .iter()
            .flat_map(|(section, keys)| {
                let keys = keys.as_table().unwrap().keys();
                keys.map(move |key| format!("{section}.{key}"))
            })
            .collect();
        for (key, _) in keys(&Config::default()) {
            assert!(
                shown.contains(&key) || key.starts_with("test."),
                "packaging/config.toml does not show {key}"
            );
        }
    }

    #[test]
    fn what_is_made_at_the_start_stays_and_the_rest_changes() {
        let running = parse("[tun]\nname = \"mesh\"\n").unwrap();
        let fresh =
            parse("[network]\nport = 5000\n[tun]\nmtu = 1300\n[api]\nread = \"group\"\n").unwrap();
        let runs = running.reloaded(&fresh);
        assert_eq!(runs.api, fresh.api);
        assert_eq!((&runs.tun, &runs.network), (&running.tun, &running.network));
        assert_eq!(
            runs.differences(&fresh),
            ["network.port", "tun.mtu", "tun.name"]
        );
        assert_eq!(fresh.differences(&fresh), [""; 0]);
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
            (
                "[host]\nguard_local = [\"*\"]",
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
