//! The text of `/etc/resolv.conf`: what it says, and the one we put in its place. Pure.

use std::{
    fmt,
    net::{AddrParseError, IpAddr},
    str::FromStr,
};

use super::wish::Wish;

/// A server: where it is, and by which link where the address alone does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// What stands behind `%`: the name or the number of a link.
    pub zone: Option<String>,
}

impl FromStr for Server {
    type Err = AddrParseError;

    fn from_str(word: &str) -> Result<Self, AddrParseError> {
        let (address, zone) = match word.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        let address = address.parse()?;
        Ok(Self { address, zone })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(to, "{}%{zone}", self.address),
            None => write!(to, "{}", self.address),
        }
    }
}

/// What a `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, in this order.
    pub servers: Vec<Server>,
    /// What short names are completed with.
    pub search: Vec<String>,
    /// Everything under `options`.
    pub options: Vec<String>,
}

/// First line of a text of ours.
const HEAD: &str = "# Written by `webmesh dns takeover`. What stood here: resolv.conf.before-webmesh. Back: webmesh dns takeover --undo";

/// What the last line of a text of ours begins with; the rest is the check over all that it says.
const CHECK: &str = "# check ";

/// The stub listeners of systemd-resolved: addresses of this host alone, which ask whoever resolved was told of.
pub const STUBS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 54)),
];

impl ResolvConf {
    /// Reads a text as the C library does: unknown lines and bad addresses are passed over, the last search list counts.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            match key {
                "nameserver" => read
                    .servers
                    .extend(words.next().and_then(|word| word.parse().ok())),
                "search" | "domain" => read.search = words.map(str::to_owned).collect(),
                "options" => read.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        read
    }

    /// Whether one of the servers that the C library looks at is one of these.
    pub fn asks(&self, servers: &[IpAddr]) -> bool {
        const LOOKED_AT: usize = 3;
        let mut asked = self.servers.iter().take(LOOKED_AT);
        asked.any(|server| servers.contains(&server.address))
    }
}

/// The text that makes our resolver the first to be asked, and whom `before` asked the next.
pub fn takeover(wish: &Wish, before: &ResolvConf) -> String {
    let others = before
        .servers
        .iter()
        .filter(|server| !wish.servers.contains(&server.address))
        .map(Server::to_string);
    // One address of ours: the C library looks at three servers in all.
    let ours = wish.servers.iter().take(1).map(IpAddr::to_string);
    let search = wish.search.iter().chain(
        before
            .search
            .iter()
            .filter(|name| !wish.search.contains(name)),
    );
    // `trust-ad` was said of the servers before; a second is what a dead agent may cost.
    let kept = |option: &&String| !option.starts_with("timeout:") && *option != "trust-ad";
    let mut text = format!("{HEAD}\n");
    for server in ours.chain(others) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let search: Vec<&str> = search.map(String::as_str).collect();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text.push_str("options timeout:1");
    for option in before.options.iter().filter(kept) {
        text.push_str(&format!(" {option}"));
    }
    text.push('\n');
    let check = check_of(&text);
    format!("{text}{CHECK}{check}\n")
}

/// Whether a text is one of ours and nobody has changed what it says since. A comment says nothing.
pub fn is_ours(text: &str) -> bool {
    let check = text.lines().find_map(|line| line.strip_prefix(CHECK));
    text.lines().any(|line| line == HEAD)
        && check.is_some_and(|check| check.trim_end() == check_of(text))
}

/// Whether a text began as one of ours.
pub fn was_ours(text: &str) -> bool {
    text.starts_with(HEAD)
}

/// Over the words of every line but comments and empty ones.
fn check_of(text: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for line in text.lines().map(str::trim) {
        if !line.is_empty() && !line.starts_with(['#', ';']) {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
    }
    let hash = hasher.finalize();
    hash.to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_dns::wish::tests::good;

    #[test]
    fn it_reads_what_the_c_library_reads() {
        let read = ResolvConf::parse(
            "; comment\n# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver nonsense\n\
             nameserver fe80::1%eth0\ndomain old.example\nsearch lan example.net\noptions edns0 timeout:5\n\
             options trust-ad\n",
        );
        assert_eq!(
            read.servers,
            ["192.0.2.1", "fe80::1%eth0"].map(|text| text.parse::<Server>().unwrap())
        );
        assert_eq!(read.search, ["lan", "example.net"]);
        assert_eq!(read.options, ["edns0", "timeout:5", "trust-ad"]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }

    #[test]
    fn ours_asks_us_first_then_the_old_servers() {
        let before = ResolvConf::parse(
            "nameserver 192.0.2.1\nnameserver 100.71.255.53\nnameserver fe80::1%eth0\nsearch lan\n\
             options edns0 timeout:5 trust-ad attempts:3\n",
        );
        let text = takeover(&good(), &before);
        let read = ResolvConf::parse(&text);
        assert_eq!(
            read.servers,
            ["100.71.255.53", "192.0.2.1", "fe80::1%eth0"]
                .map(|text| text.parse::<Server>().unwrap())
        );
        assert_eq!(read.search, ["home.internal", "svc.home.internal", "lan"]);
        assert_eq!(read.options, ["timeout:1", "edns0", "attempts:3"]);
        assert!(read.asks(&good().servers) && !before.asks(&["192.0.2.7".parse().unwrap()]));
    }

    #[test]
    fn a_change_by_others_is_seen() {
        let text = takeover(&good(), &ResolvConf::default());
        assert!(is_ours(&text) && was_ours(&text));
        for changed in [
            text.replace("timeout:1", "timeout:2"),
            format!("{text}nameserver 192.0.2.1\n"),
            text.replace(CHECK, "# chick "),
            text.replacen('#', ";", 1),
        ] {
            assert!(!is_ours(&changed), "{changed}");
        }
        for commented in [
            format!("{text}# mine\n"),
            format!("; mine\n\n{text}"),
            text.replace("options", "# before the options\noptions"),
        ] {
            assert!(is_ours(&commented), "{commented}");
        }
        assert!(was_ours(&text.replace("timeout:1", "timeout:2")));
        assert!(!was_ours("nameserver 192.0.2.1\n") && !is_ours(""));
    }
}
