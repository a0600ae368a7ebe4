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
pub use value::{
    DnsMode, EntryPoint, LinkPattern, Mtu, Offload, Port, THREADS_MAX, Threads, Transport, TunName,
};

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/webmesh/config.toml";

/// The agent's exit code where its configuration cannot be used: the unit starts it again after every other one, and this
/// would be the same each time. The number is sysexits.h's EX_CONFIG.
pub const UNUSABLE: u8 = 78;

/// Where the agent keeps what it must find again, unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/webmesh";

/// The UDP port that is tried first. Nobody else's in the registry of ports; another one is drawn if it is busy.
pub const DEFAULT_PORT: u16 = 41_820;

/// Mbit/s carried for others: what an ordinary line has, so that it bounds a flood and nobody's film.
const DEFAULT_RELAY_LIMIT: std::num::NonZeroU32 = std::num::NonZeroU32::new(1000).unwrap();

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
    /// How packets are carried.
    pub datapath: Datapath,
    /// How peers find each other.
    pub rendezvous: Rendezvous,
    /// What this machine carries for others.
    pub relay: Relay,
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
    pub port: Option<Port>,
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

/// `[datapath]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datapath {
    /// `tun_offload`: whether programs' packets come from the host, and go to it, many as one. Default: `auto`.
    pub tun_offload: Offload,
    /// `udp_gso`: whether datagrams go to the network many as one. Default: `auto`.
    pub udp_gso: Offload,
    /// `udp_gro`: whether datagrams come from the network many as one. Default: `auto`.
    pub udp_gro: Offload,
    /// `threads`: how many threads carry user data. Default: `auto`.
    pub threads: Threads,
    /// `transport`: what seals user data between members. Default: `auto`.
    pub transport: Transport,
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

/// `[rendezvous]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rendezvous {
    /// `lan`: whether this machine says on its LANs that it is there, and listens for others. Default: true.
    pub lan: bool,
    /// `port_mapping`: whether the router is asked to let others in to the UDP port. Default: true.
    pub port_mapping: bool,
    /// `dht`: whether the Mainline DHT may be used. Default: true.
    pub dht: bool,
    /// `dht_bootstrap`: the nodes of it that are asked first. Default: none, since no host of anybody is named in these
    /// sources; without one the DHT is off. The shipped file names some.
    pub dht_bootstrap: Vec<EntryPoint>,
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self {
            lan: true,
            port_mapping: true,
            dht: true,
            dht_bootstrap: Vec::new(),
        }
    }
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// `udp`: whether members that cannot reach each other may send through this machine. Default: true.
    pub udp: bool,
    /// `limit`: Mbit/s that this machine carries for others in all; one member sends at most half of it. Default: 1000.
    pub limit: std::num::NonZeroU32,
    /// `stream`: whether TLS on TCP of the agent's own port is taken, where others reach this machine. Default: `true`.
    pub stream: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            udp: true,
            limit: DEFAULT_RELAY_LIMIT,
            stream: true,
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
            datapath,
            rendezvous,
            relay,
            host,
            api: _,
            test,
        } = self.clone();
        Self {
            network,
            tun,
            datapath,
            rendezvous: Rendezvous {
                dht: fresh.rendezvous.dht,
                dht_bootstrap: fresh.rendezvous.dht_bootstrap.clone(),
                ..rendezvous
            },
            relay,
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
            what: plain(error.message()),
        })
    }
}

/// What the reader of TOML says, without the words of programmers, and without the section that is for tests alone.
fn plain(message: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("expected a nonzero u32", "expected a number, 1 or more"),
        ("expected u32", "expected a number, 0 or more"),
        (
            "expected a sequence",
            "expected a list, such as [\"docker0\", \"br-*\"]",
        ),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected a text in quotes"),
        ("expected a map", "expected a section, its name in [ ]"),
        (", `test`", ""),
    ];
    let mut text = message.lines().next().unwrap_or_default().to_owned();
    if let Some((head, _type)) = text.split_once("expected struct ") {
        text = format!("{head}expected a section, its name in [ ]");
    }
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    text
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
                    [datapath]\ntun_offload = \"off\"\nudp_gso = \"on\"\nudp_gro = \"auto\"\nthreads = 3\ntransport = \"wireguard\"\n\
                    [rendezvous]\nlan = false\nport_mapping = false\n\
                    [relay]\nstream = false\n[host]\nguard = false\nguard_local = [\"br-*\", \"virbr0\"]\n\
                    [api]\nread = \"group\"\n[test]\nlinks = 4\nidle_s = 5\n";
        let config = parse(text).unwrap();
        assert_eq!(config.network.port.map(|port| port.get()), Some(5000));
        assert_eq!(config.tun.name.as_str(), "mesh");
        assert_eq!((config.dns.mode, config.dns.search), (DnsMode::Off, false));
        let Datapath {
            tun_offload,
            udp_gso,
            udp_gro,
            threads,
            transport,
        } = config.datapath;
        assert_eq!(
            (threads, transport),
            (Threads::Fixed(3), Transport::WireGuard)
        );
        let offloads = (tun_offload, udp_gso, udp_gro);
        assert_eq!(offloads, (Offload::Off, Offload::On, Offload::Auto));
        let ways = &config.rendezvous;
        assert_eq!((ways.lan, ways.port_mapping), (false, false));
        let local: Vec<&str> = config
            .host
            .guard_local
            .iter()
            .map(LinkPattern::as_str)
            .collect();
        assert_eq!((config.host.guard, local), (false, vec!["br-*", "virbr0"]));
        assert!(!config.relay.stream);
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
    fn the_shipped_file_shows_what_holds_without_it_and_names_entry_points_of_the_dht() {
        let mut in_use = parse(include_str!("../../packaging/config.toml")).unwrap();
        assert!(in_use.rendezvous.dht_bootstrap.len() >= 2);
        in_use.rendezvous.dht_bootstrap.clear();
        assert_eq!(in_use, Config::default());
        let mut shown = parse(&shipped()).unwrap();
        let port = shown.network.port.take();
        assert_eq!(port.map(|port| port.get()), Some(DEFAULT_PORT));
        shown.rendezvous.dht_bootstrap.clear();
        assert_eq!(shown, Config::default());
    }

    #[test]
    fn the_shipped_file_says_of_each_key_that_a_reload_keeps_that_it_needs_a_restart() {
        let other = parse(
            "[network]\nport = 5000\n[tun]\nname = \"mesh\"\nmtu = 1280\n[dns]\nmode = \"off\"\nsearch = false\n\
             [datapath]\ntun_offload = \"off\"\nudp_gso = \"on\"\nudp_gro = \"off\"\nthreads = 2\ntransport = \"wireguard\"\n\
             [rendezvous]\nlan = false\nport_mapping = false\ndht = false\ndht_bootstrap = [\"192.0.2.1:6881\"]\n\
             [relay]\nudp = false\nlimit = 7\nstream = false\n[host]\nguard = false\nguard_local = [\"virbr0\"]\n\
             [api]\nread = \"group\"\n",
        )
        .unwrap();
        let runs = Config::default();
        let kept = runs.reloaded(&other).differences(&other);
        let mut said = Vec::new();
        let mut all = Vec::new();
        let (mut section, mut comment) = (String::new(), String::new());
        for line in include_str!("../../packaging/config.toml").lines() {
            let bare = line.trim_start_matches('#');
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some(words) = line.strip_prefix("# ") {
                comment.push_str(words);
                comment.push(' ');
            } else if let Some((key, _)) = bare.split_once(" = ") {
                all.push(format!("{section}.{key}"));
                if std::mem::take(&mut comment).contains("Needs a restart.") {
                    said.push(format!("{section}.{key}"));
                }
            } else {
                comment.clear();
            }
        }
        all.sort();
        said.sort();
        assert_eq!(all, runs.differences(&other), "every key is another one");
        assert_eq!(said, kept);
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
        let error = parse("\n[relays]\nudp = true\n").unwrap_err();
        assert!(
            error.starts_with("config.toml:2: unknown field `relays`"),
            "{error}"
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_an_error_with_file_and_line() {
        let wrong = [
            (
                "[datapath]\nthreads = 9",
                "config.toml:2: threads must be \"auto\" or 1 to 8",
            ),
            (
                "[datapath]\nthreads = \"many\"",
                "config.toml:2: threads must be \"auto\" or 1 to 8",
            ),
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
            (
                "[rendezvous]\ndht_bootstrap = [\"dht.example.org\"]",
                "config.toml:2: an entry point of the DHT is HOST:PORT",
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
    fn what_is_wrong_is_said_without_the_words_of_programmers() {
        for (text, part) in [
            ("[network]\nport = 0", "port must be 443 or 1024 to 65535"),
            (
                "[network]\nport = 70000",
                "port must be 443 or 1024 to 65535",
            ),
            ("[network]\nport = 99", "port must be 443 or 1024 to 65535"),
            ("[network]\nport = \"x\"", "expected a number"),
            ("[host]\nguard_local = \"docker0\"", "expected a list"),
            ("[host]\nguard = \"yes\"", "expected true or false"),
            ("[tun]\nname = 3", "expected a text in quotes"),
            ("tun = 3", "expected a section"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
            for word in ["u16", "u32", "sequence", "boolean", "struct", "a string,"] {
                assert!(!error.contains(word), "{text:?}: {error}");
            }
        }
        let error = parse("[relays]\nudp = true\n").unwrap_err();
        assert!(
            error.contains("`dns`") && !error.contains("`test`"),
            "{error}"
        );
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
