//! Labels: what peers, services and networks may be called (design §3), and names made from host names.

use crate::ids::{NodeId, ZONES_IN_USE};

/// The longest label DNS carries, in bytes (RFC 1035 §2.3.4).
pub const LABEL_MAX: usize = 63;

/// Labels with a meaning of their own under a network's domain, or that programs ask for by themselves (design §3).
const RESERVED: [&str; 15] = [
    "svc",
    "inst",
    "open",
    "agent",
    "dns",
    "admin",
    "gateway",
    "self",
    "ns",
    "localhost",
    "wpad",
    "isatap",
    "autoconfig",
    "autodiscover",
    "broadcasthost",
];

/// What a peer is called whose host name holds no letter or digit.
const NAMELESS: &str = "peer";

/// Bytes that `-` and four letters of an id take behind the name of a peer that lost it.
const SUFFIX: usize = 5;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// Not a label.
    #[error(
        "\"{0}\" is no name: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
    )]
    NotALabel(String),
    /// A label with a meaning of its own.
    #[error("\"{0}\" cannot be a name: it has a meaning of its own. Choose another")]
    Reserved(String),
    /// Somebody else's zone.
    #[error(
        "\"{0}\" cannot be a network's name: {0}.internal is in use. Choose another, or --domain."
    )]
    InUse(String),
}

/// Whether `text` is a label: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
pub fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.len() <= LABEL_MAX
        && bytes.first().is_some_and(is_alnum)
        && bytes.last().is_some_and(is_alnum)
        && bytes.iter().all(|byte| is_alnum(byte) || *byte == b'-')
}

/// Whether a label is kept from peers, services and networks.
pub fn is_reserved(label: &str) -> bool {
    RESERVED.contains(&label)
        || label.starts_with("xn--")
        || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Takes `text` as the name of a peer.
///
/// # Errors
/// It is no label, or a reserved one.
pub fn parse_peer(text: &str) -> Result<&str, NameRefused> {
    if !is_label(text) {
        return Err(NameRefused::NotALabel(text.to_owned()));
    }
    if is_reserved(text) {
        return Err(NameRefused::Reserved(text.to_owned()));
    }
    Ok(text)
}

/// Takes `text` as the name of a service or of an instance.
///
/// # Errors
/// It is no label, or a reserved one.
pub fn parse_service(text: &str) -> Result<&str, NameRefused> {
    parse_peer(text)
}

/// Where the names of a network will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// `<network>.internal`.
    Default,
    /// Another, by `--domain`.
    Chosen,
}

/// Takes `text` as the name of a network.
///
/// # Errors
/// It is no label, a reserved one, or under the default domain one that others use.
pub fn network_name(text: &str, domain: Domain) -> Result<&str, NameRefused> {
    parse_peer(text)?;
    if domain == Domain::Default && ZONES_IN_USE.contains(&text) {
        return Err(NameRefused::InUse(text.to_owned()));
    }
    Ok(text)
}

/// Takes `text` as a domain: labels with dots between, 253 letters at most, no dot at the end.
///
/// # Errors
/// A part of it is no label, or it is too long.
pub fn parse_domain(text: &str) -> Result<&str, NameRefused> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text)
    } else {
        Err(NameRefused::NotALabel(text.to_owned()))
    }
}

/// The name a machine asks for when its person chose none: the first label of its host name, made legal. May be
/// reserved; [`nth`] of it never is.
pub fn from_host_name(host: &str) -> String {
    let first = host.trim().split('.').next().unwrap_or_default();
    let mut label = String::new();
    for letter in first.chars() {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            label.push(letter);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == LABEL_MAX {
            break;
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() {
        NAMELESS.to_owned()
    } else {
        label.to_owned()
    }
}

/// The `n`-th choice of a name: itself, then with `-2`, `-3` … behind, cut so that it stays a label.
pub fn nth(label: &str, n: u32) -> String {
    if n < 2 {
        return label.to_owned();
    }
    let suffix = format!("-{n}");
    format!("{}{suffix}", cut(label, LABEL_MAX - suffix.len()))
}

/// What a peer is called that lost its name to a senior one: `<name>-<4 of id>`.
pub fn second_name(name: &str, node: NodeId) -> String {
    let id = data_encoding::HEXLOWER.encode(&[node.0[0], node.0[1]]);
    format!("{}-{id}", cut(name, LABEL_MAX - SUFFIX))
}

/// What every name begins with whose [`second_name`] may be `name`.
pub(super) fn head_of_second_name(name: &str) -> Option<&str> {
    let (head, id) = name.rsplit_once('-')?;
    (id.len() == SUFFIX - 1).then_some(head)
}

fn cut(label: &str, bytes: usize) -> &str {
    label.get(..bytes).unwrap_or(label).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_labels() {
        for (host, label) in [
            ("My Laptop.local", "my-laptop"),
            ("debian", "debian"),
            ("VPS.example.com", "vps"),
            ("--a__b--", "a-b"),
            ("José's Mac", "jos-s-mac"),
            ("xn--bcher-kva", "xn-bcher-kva"),
            ("東京", "peer"),
            ("", "peer"),
            (".local", "peer"),
        ] {
            assert_eq!(from_host_name(host), label, "{host}");
        }
    }

    #[test]
    fn a_host_name_of_64_letters_loses_one() {
        assert_eq!(from_host_name(&"a".repeat(64)), "a".repeat(63));
        let hyphen_last = format!("{}-{}", "a".repeat(62), "b");
        assert_eq!(from_host_name(&hyphen_last), "a".repeat(62));
    }

    #[test]
    fn labels_are_what_the_design_says() {
        for good in ["a", "0a", "a-b", "a--b", &"a".repeat(63)] {
            assert!(parse_peer(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(
                matches!(parse_peer(bad), Err(NameRefused::NotALabel(_))),
                "{bad}"
            );
        }
        for reserved in ["svc", "localhost", "broadcasthost", "xn--a", "123"] {
            assert!(
                matches!(parse_peer(reserved), Err(NameRefused::Reserved(_))),
                "{reserved}"
            );
        }
    }

    #[test]
    fn the_next_choice_of_a_reserved_name_is_free_of_the_rule() {
        for reserved in ["svc", "123", "localhost"] {
            assert!(parse_peer(&nth(reserved, 2)).is_ok(), "{reserved}");
        }
    }

    #[test]
    fn numbered_and_second_names_of_the_longest_label_are_labels() {
        let longest = "a".repeat(63);
        assert_eq!(nth(&longest, 1_000), format!("{}-1000", "a".repeat(58)));
        assert!(is_label(&second_name(&longest, NodeId([7; 32]))));
        assert_eq!(second_name("bo", NodeId([0xab; 32])), "bo-abab");
    }

    #[test]
    fn networks_keep_off_zones_in_use_unless_they_choose_a_domain() {
        for taken in ZONES_IN_USE {
            assert_eq!(
                network_name(taken, Domain::Default)
                    .unwrap_err()
                    .to_string(),
                format!(
                    "\"{taken}\" cannot be a network's name: {taken}.internal is in use. Choose another, or --domain."
                ),
            );
            assert_eq!(network_name(taken, Domain::Chosen), Ok(taken));
        }
        assert!(network_name("svc", Domain::Chosen).is_err());
        assert_eq!(network_name("home", Domain::Default), Ok("home"));
    }

    #[test]
    fn a_domain_is_labels_with_dots_between() {
        assert!(parse_domain("mesh.example.com").is_ok());
        for bad in ["", ".", "a..b", "a.", "A.b"] {
            assert!(parse_domain(bad).is_err(), "{bad}");
        }
    }
}
