//! Values with bounds.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use crate::addr::is_peers_port;

/// The name of a network device: what the kernel takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct TunName(String);

/// The name of a network interface, or how the names of several begin, with a `*` at the end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct LinkPattern(String);

/// The device's MTU, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32")]
pub struct Mtu(u16);

/// The agent's UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32")]
pub struct Port(NonZeroU16);

/// What becomes of the host's own resolver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsMode {
    /// It is told to send us our names, where it can send one domain to one server.
    #[default]
    Auto,
    /// `/etc/resolv.conf` names our resolver first, which forwards all other names: `webmesh dns takeover` for good.
    Forward,
    /// It is left alone.
    Off,
}

/// Whether a kind of work on many packets at once is left to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// If a trial at the start finds that this kernel does it well.
    #[default]
    Auto,
    /// Without a trial.
    On,
    /// No.
    Off,
}

/// How many threads carry user data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// As many as suit this machine's cores.
    #[default]
    Auto,
    /// So many, 1 to [`THREADS_MAX`].
    Fixed(u8),
}

/// The most threads that carry user data: an index has room for more, and no machine gains by them.
pub const THREADS_MAX: u8 = 8;

/// What seals user data between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Transports of our own, where both ends have them.
    #[default]
    Auto,
    /// The same, and never with another cipher than this.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// WireGuard alone.
    WireGuard,
}

/// A node of the Mainline DHT: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct EntryPoint(String);

/// Not `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry point of the DHT is HOST:PORT, a name or an IPv4 address and a port")]
pub struct BadEntryPoint;

/// A device cannot have this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device's name has 1 to 15 letters, no space, no / and no :")]
pub struct BadTunName;

/// Peers write to no other, lest they be made to write to a machine's other services (review-security S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port must be 443 or 1024 to 65535: peers write to no other")]
pub struct BadPort;

/// Neither a word that is known nor a number of threads that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("threads must be \"auto\" or 1 to {THREADS_MAX}")]
struct BadThreads;

/// Too small for IPv6, or larger than the agent's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mtu must be 1280 to 1984")]
pub struct BadMtu;

impl TunName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TunName {
    fn default() -> Self {
        Self("wm0".to_owned())
    }
}

impl fmt::Display for TunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TunName {
    type Err = BadTunName;

    fn from_str(text: &str) -> Result<Self, BadTunName> {
        // IFNAMSIZ is 16 with its zero; dev_valid_name refuses the letters below, and "." and "..".
        let is_good = (1..=15).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
            && !matches!(text, "." | "..");
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadTunName)
        }
    }
}

impl TryFrom<String> for TunName {
    type Error = BadTunName;

    fn try_from(text: String) -> Result<Self, BadTunName> {
        text.parse()
    }
}

impl Serialize for Threads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Fixed(number) => serializer.serialize_u8(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AutoOrNumber)
    }
}

const AUTO: &str = "auto";

struct AutoOrNumber;

impl Visitor<'_> for AutoOrNumber {
    type Value = Threads;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{AUTO}\" or a number")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Threads, E> {
        match word {
            AUTO => Ok(Threads::Auto),
            _ => Err(E::custom(BadThreads)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Threads, E> {
        match u8::try_from(number) {
            Ok(number @ 1..=THREADS_MAX) => Ok(Threads::Fixed(number)),
            Ok(_) | Err(_) => Err(E::custom(BadThreads)),
        }
    }
}

impl LinkPattern {
    /// The bridge that Docker makes first.
    pub(super) fn docker() -> Self {
        Self("docker0".to_owned())
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkPattern {
    type Error = BadTunName;

    fn try_from(text: String) -> Result<Self, BadTunName> {
        let beginning = text.strip_suffix('*').unwrap_or(&text);
        let _possible: TunName = beginning.parse()?;
        Ok(Self(text))
    }
}

impl EntryPoint {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EntryPoint {
    type Error = BadEntryPoint;

    fn try_from(text: String) -> Result<Self, BadEntryPoint> {
        let (host, port) = text.rsplit_once(':').ok_or(BadEntryPoint)?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let is_port = port.parse::<NonZeroU16>().is_ok();
        if host.is_empty() || !host.bytes().all(is_letter) || !is_port {
            return Err(BadEntryPoint);
        }
        Ok(Self(text))
    }
}

impl Mtu {
    /// In bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl Port {
    /// Its number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u32> for Port {
    type Error = BadPort;

    fn try_from(number: u32) -> Result<Self, BadPort> {
        let number = u16::try_from(number).ok().and_then(NonZeroU16::new);
        let port = number.filter(|number| is_peers_port(number.get()));
        port.map(Self).ok_or(BadPort)
    }
}

impl FromStr for Port {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        text.parse::<u32>()
            .map_err(|_no_number| BadPort)?
            .try_into()
    }
}

impl Default for Mtu {
    fn default() -> Self {
        Self(1420)
    }
}

impl TryFrom<u32> for Mtu {
    type Error = BadMtu;

    fn try_from(bytes: u32) -> Result<Self, BadMtu> {
        match u16::try_from(bytes) {
            Ok(bytes @ 1280..=1984) => Ok(Self(bytes)),
            _ => Err(BadMtu),
        }
    }
}
