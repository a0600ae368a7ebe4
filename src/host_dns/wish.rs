//! What the agent asks of the host's resolver, and what of it may be asked. Pure.
//!
//! The agent runs without root and may be somebody else's one day; whoever carries this out is root. So everything is
//! checked against what a network can be (protocol §10): its own names, its own reverse zones, its own resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::config::TunName;

/// The format of the file. Another one is refused.
pub const VERSION: u8 = 1;

/// What the host's resolver shall do: send names under `domain`, and the reverse names of the network's addresses, to
/// `servers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// [`VERSION`].
    pub version: u8,
    /// Another number whenever it is to be carried out again.
    pub generation: u64,
    /// The agent's device.
    pub device: Device,
    /// What the network's names end in.
    pub domain: String,
    /// The network's IPv4; None where this host cannot use it.
    pub pool4: Option<Ipv4Net>,
    /// The network's IPv6.
    pub prefix6: Ipv6Net,
    /// The resolver's addresses.
    pub servers: Vec<IpAddr>,
    /// What short names are completed with; none where a person wants it so.
    pub search: Vec<String>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
}

/// Why a wish is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishRefused {
    /// Another format.
    #[error("it is of version {0}, not {VERSION}: webmesh and its agent are not of one version")]
    Version(u8),
    /// Not a domain that a network can have.
    #[error("{0:?} cannot be a network's domain")]
    Domain(String),
    /// Addresses that no network has.
    #[error("{0} is not the address range of a network")]
    Range(String),
    /// Not the resolver of this network.
    #[error("{0} is not the resolver of this network")]
    Server(IpAddr),
    /// No resolver at all.
    #[error("it names no resolver")]
    NoServer,
    /// A search list that is not this network's.
    #[error("{0:?} is not to be searched for this network")]
    Search(String),
    /// Not a device's name.
    #[error("{0:?} cannot be a device's name")]
    Device(String),
}

impl Wish {
    /// Whether all of it belongs to one network.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), WishRefused> {
        if self.version != VERSION {
            return Err(WishRefused::Version(self.version));
        }
        if !is_domain(&self.domain) {
            return Err(WishRefused::Domain(self.domain.clone()));
        }
        if let Some(pool4) = self.pool4.filter(|pool4| !is_pool(*pool4)) {
            return Err(WishRefused::Range(pool4.to_string()));
        }
        if !is_prefix(self.prefix6) {
            return Err(WishRefused::Range(self.prefix6.to_string()));
        }
        if self.servers.is_empty() {
            return Err(WishRefused::NoServer);
        }
        if let Some(stranger) = self.servers.iter().find(|server| !self.is_ours(**server)) {
            return Err(WishRefused::Server(*stranger));
        }
        let known = search_list(&self.domain);
        if let Some(stranger) = self.search.iter().find(|search| !known.contains(search)) {
            return Err(WishRefused::Search(stranger.clone()));
        }
        if self.device.index == 0 || self.device.name.parse::<TunName>().is_err() {
            return Err(WishRefused::Device(self.device.name.clone()));
        }
        Ok(())
    }

    /// The zones of the network's reverse names, without a dot at the end.
    pub fn reverse_zones(&self) -> Vec<String> {
        let mut zones: Vec<String> = self.pool4.map(zones4).unwrap_or_default();
        zones.push(zone6(self.prefix6));
        zones
    }

    /// The domain and the reverse zones: every zone of ours.
    pub fn zones(&self) -> Vec<String> {
        std::iter::once(self.domain.clone())
            .chain(self.reverse_zones())
            .collect()
    }

    fn is_ours(&self, server: IpAddr) -> bool {
        match server {
            IpAddr::V4(server) => self.pool4.map(resolver4) == Some(server),
            IpAddr::V6(server) => resolver6(self.prefix6) == server,
        }
    }
}

/// What short names are completed with, in this order (design §3).
pub fn search_list(domain: &str) -> [String; 2] {
    [domain.to_owned(), format!("svc.{domain}")]
}

/// The resolver's address in a network's pool (protocol §10): the last address − 202.
fn resolver4(pool4: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(pool4.broadcast().to_bits().wrapping_sub(202))
}

/// The resolver's address in a network's prefix (protocol §10): class 0, …:53.
fn resolver6(prefix6: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix6.network().to_bits() | 0x53)
}

/// The longest domain, so that any name under it still is a name ([`crate`]'s zone says why).
const LONGEST_DOMAIN: usize = 122;

/// Tops of the name space that belong to others: loopback, multicast DNS, reverse names.
const TOPS_OF_OTHERS: [&str; 5] = ["arpa", "localhost", "local", "invalid", "onion"];

/// At least two labels: a whole top such as `com`, or the root, is never a network's.
pub fn is_domain(text: &str) -> bool {
    let labels: Vec<&str> = text.split('.').collect();
    let top = labels.last().copied().unwrap_or_default();
    let is_number = top.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST_DOMAIN
        && labels.len() >= 2
        && labels.iter().all(|label| is_label(label))
        && !is_number
        && !TOPS_OF_OTHERS.contains(&top)
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_pool(pool4: Ipv4Net) -> bool {
    let is_special = |address: Ipv4Addr| {
        address.is_loopback()
            || address.is_multicast()
            || address.is_link_local()
            || address.is_unspecified()
            || address.octets()[0] == 0
            || address.octets()[0] >= 224
    };
    (8..=23).contains(&pool4.prefix_len())
        && pool4.trunc() == pool4
        && !is_special(pool4.network())
        && !is_special(pool4.broadcast())
}

fn is_prefix(prefix6: Ipv6Net) -> bool {
    prefix6.prefix_len() == 48 && prefix6.trunc() == prefix6 && prefix6.addr().octets()[0] == 0xfd
}

/// Reverse zones are cut at whole octets: a pool that is not one of them has several.
fn zones4(pool4: Ipv4Net) -> Vec<String> {
    let octets = usize::from(pool4.prefix_len().div_ceil(8));
    let whole = u8::try_from(octets * 8).unwrap_or(32);
    let zone = |net: Ipv4Net| {
        let mut labels: Vec<String> = net.addr().octets()[..octets]
            .iter()
            .map(u8::to_string)
            .collect();
        labels.reverse();
        format!("{}.in-addr.arpa", labels.join("."))
    };
    pool4
        .subnets(whole)
        .map_or_else(|_| Vec::new(), |nets| nets.map(zone).collect())
}

fn zone6(prefix6: Ipv6Net) -> String {
    let digits = usize::from(prefix6.prefix_len() / 4);
    let hex: String = prefix6
        .addr()
        .octets()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let mut labels: Vec<String> = hex.chars().take(digits).map(String::from).collect();
    labels.reverse();
    format!("{}.ip6.arpa", labels.join("."))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn good() -> Wish {
        Wish {
            version: VERSION,
            generation: 1,
            device: Device {
                name: "wm0".to_owned(),
                index: 7,
            },
            domain: "home.internal".to_owned(),
            pool4: Some("100.71.0.0/16".parse().unwrap()),
            prefix6: "fd7c:1a2b:3c4d::/48".parse().unwrap(),
            servers: vec![
                "100.71.255.53".parse().unwrap(),
                "fd7c:1a2b:3c4d::53".parse().unwrap(),
            ],
            search: search_list("home.internal").to_vec(),
        }
    }

    #[test]
    fn what_an_agent_writes_is_good() {
        assert_eq!(good().check(), Ok(()));
        let v6_only = Wish {
            pool4: None,
            servers: vec!["fd7c:1a2b:3c4d::53".parse().unwrap()],
            search: Vec::new(),
            domain: "mesh.example.com".to_owned(),
            ..good()
        };
        assert_eq!(v6_only.check(), Ok(()));
    }

    #[test]
    fn zones_of_others_are_refused() {
        for domain in [
            "",
            ".",
            "com",
            "internal",
            "arpa",
            "71.100.in-addr.arpa",
            "home.local",
            "a.localhost",
            "home.internal.",
            "Home.internal",
            "-a.internal",
            "a..internal",
            "a b.internal",
            "10.1",
            "a_b.internal",
            "a\n.internal",
            "~.internal",
        ] {
            let wish = Wish {
                domain: domain.to_owned(),
                search: Vec::new(),
                ..good()
            };
            assert_eq!(
                wish.check(),
                Err(WishRefused::Domain(domain.to_owned())),
                "{domain:?}"
            );
        }
        let long = Wish {
            domain: format!("{}.{}.internal", "a".repeat(63), "b".repeat(60)),
            ..good()
        };
        assert!(matches!(long.check(), Err(WishRefused::Domain(_))));
    }

    #[test]
    fn servers_that_are_not_the_resolver_are_refused() {
        for server in [
            "8.8.8.8",
            "127.0.0.53",
            "100.71.255.54",
            "100.71.0.53",
            "100.72.255.53",
            "::1",
            "fd7c:1a2b:3c4d::54",
            "fd7c:1a2b:3c4e::53",
            "fd7c:1a2b:3c4d:1::53",
        ] {
            let server: IpAddr = server.parse().unwrap();
            let wish = Wish {
                servers: vec![good().servers[0], server],
                ..good()
            };
            assert_eq!(wish.check(), Err(WishRefused::Server(server)));
        }
        let none = Wish {
            servers: Vec::new(),
            ..good()
        };
        assert_eq!(none.check(), Err(WishRefused::NoServer));
        let v4_without_pool = Wish {
            pool4: None,
            ..good()
        };
        assert!(matches!(
            v4_without_pool.check(),
            Err(WishRefused::Server(_))
        ));
    }

    #[test]
    fn ranges_that_no_network_has_are_refused() {
        for pool4 in [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "100.71.0.0/24",
            "100.71.0.1/16",
        ] {
            let wish = Wish {
                pool4: Some(pool4.parse().unwrap()),
                ..good()
            };
            assert_eq!(wish.check(), Err(WishRefused::Range(pool4.to_owned())));
        }
        for prefix6 in [
            "2001:db8::/48",
            "fd7c::/16",
            "fc00:1::/48",
            "fd7c:1a2b:3c4d::1/48",
        ] {
            let wish = Wish {
                prefix6: prefix6.parse().unwrap(),
                ..good()
            };
            assert_eq!(wish.check(), Err(WishRefused::Range(prefix6.to_owned())));
        }
    }

    #[test]
    fn search_lists_and_devices_of_others_are_refused() {
        let wish = Wish {
            search: vec!["example.com".to_owned()],
            ..good()
        };
        assert!(matches!(wish.check(), Err(WishRefused::Search(_))));
        for (name, index) in [
            ("", 7),
            ("a/b", 7),
            ("..", 7),
            ("a-name-far-too-long", 7),
            ("wm0", 0),
        ] {
            let device = Device {
                name: name.to_owned(),
                index,
            };
            let wish = Wish { device, ..good() };
            assert!(
                matches!(wish.check(), Err(WishRefused::Device(_))),
                "{name}"
            );
        }
        let other = Wish {
            version: 2,
            ..good()
        };
        assert_eq!(other.check(), Err(WishRefused::Version(2)));
    }

    #[test]
    fn reverse_zones_cover_the_network_and_no_more() {
        assert_eq!(
            good().reverse_zones(),
            ["71.100.in-addr.arpa", "d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa"]
        );
        let zones = |pool4: &str| zones4(pool4.parse().unwrap());
        assert_eq!(zones("10.0.0.0/8"), ["10.in-addr.arpa"]);
        assert_eq!(
            zones("10.2.4.0/23"),
            ["4.2.10.in-addr.arpa", "5.2.10.in-addr.arpa"]
        );
        assert_eq!(zones("10.0.0.0/9").len(), 128);
    }
}
