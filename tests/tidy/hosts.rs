//! Host names and addresses that belong to somebody.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The ends by which a word is taken for a public host name.
const PUBLIC_ENDS: &[&str] = &[
    "ai", "app", "biz", "cc", "ch", "cloud", "cn", "com", "de", "dev", "eu", "fr", "info", "io",
    "jp", "link", "net", "nl", "online", "org", "ru", "se", "site", "tech", "tv", "uk", "xyz",
];

/// Names reserved for examples (RFC 2606).
const EXAMPLE_NAMES: &[&str] = &["example.com", "example.net", "example.org"];

/// Where the standards are published that comments, units and packages cite.
pub(crate) const STANDARDS: &[&str] = &[
    "bittorrent.org",
    "debian.org",
    "freedesktop.org",
    "ietf.org",
    "kernel.org",
    "noiseprotocol.org",
    "rfc-editor.org",
    "wireguard.com",
];

/// Where the DHT is entered: named in the shipped configuration and nowhere else, so that whoever runs an agent sees them and
/// can change them (design §8).
pub(crate) const ENTRY_POINTS: &[&str] = &[
    "dht.libtorrent.org",
    "dht.transmissionbt.com",
    "router.bittorrent.com",
];

/// Words that look like public host names, other than those of examples and of `known` publishers.
pub(crate) fn hosts(path: &str, text: &str, known: &[&str]) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split(|letter: char| {
            !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '.')
        });
        for word in words.map(|word| word.trim_matches('.').to_ascii_lowercase()) {
            let allowed = EXAMPLE_NAMES.iter().chain(known);
            if is_public_name(&word) && !allowed.into_iter().any(|name| is_below(&word, name)) {
                offences.push(format!("{path}:{}: {word} is somebody's host", number + 1));
            }
        }
    }
    offences
}

fn is_public_name(word: &str) -> bool {
    let mut labels = word.rsplit('.');
    let end = labels.next().unwrap_or_default();
    let rest: Vec<&str> = labels.collect();
    PUBLIC_ENDS.contains(&end) && !rest.is_empty() && rest.iter().all(|label| !label.is_empty())
}

fn is_below(word: &str, name: &str) -> bool {
    word == name
        || word
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// IP addresses that belong to somebody: neither private, nor special, nor for documentation.
pub(crate) fn addresses(path: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line
            .split(|letter: char| !(letter.is_ascii_hexdigit() || letter == '.' || letter == ':'));
        for word in words.map(|word| word.trim_end_matches(['.', ':'])) {
            let section = line.contains(&format!("§{word}"));
            let four = word
                .split(':')
                .next()
                .and_then(|word| word.parse().ok())
                .is_some_and(is_somebodys4);
            let six = word.parse().is_ok_and(is_somebodys6);
            if (four || six) && !section {
                offences.push(format!(
                    "{path}:{}: {word} is somebody's address",
                    number + 1
                ));
            }
        }
    }
    offences
}

fn is_somebodys4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let special =
        a == 0 || a >= 224 || (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18);
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

fn is_somebodys6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let documentation = (a == 0x2001 && b == 0xdb8) || a == 0x3fff;
    a & 0xe000 == 0x2000 && !documentation
}

/// `Ipv4Addr::new(a, b, c, d)` of literals, as `a.b.c.d`, each on its line.
pub(crate) fn spelled_addresses(code: &str) -> String {
    const CALL: &str = "Ipv4Addr::new(";
    let spell = |line: &str| -> String {
        let calls = line
            .match_indices(CALL)
            .filter_map(|(at, _)| line[at + CALL.len()..].split(')').next());
        calls
            .map(|octets| {
                octets
                    .split(',')
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join(".")
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    code.lines().map(spell).collect::<Vec<_>>().join("\n")
}
