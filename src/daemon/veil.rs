//! What stands in a `debug bundle` in place of names, addresses and ids: the same thing gets the same word everywhere, so
//! that a maintainer can follow it, and nobody learns whose machine is where.
//!
//! An address keeps what matters for finding faults: its family, what kind of network it is of, and its port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde_json::{Map, Value};

/// Words of ours, which stay even where somebody calls a machine so.
const OUR_KEYS: &[&str] = &[
    "state",
    "kind",
    "role",
    "level",
    "code",
    "protocol",
    "transport",
    "nat",
    "backend",
    "version",
    "CapEff",
];

/// Hexadecimal digits of an id that stay, and from how many on it is one.
const ID_SHOWN: usize = 8;
const ID_LEAST: usize = 16;

/// How a token begins.
const TOKEN: &str = "wm1-";

/// Hexadecimal digits of a hardware address. systemd calls interfaces `enx…`, `wlx…` and so on by theirs, and `x` is no such
/// digit.
const MAC: usize = 12;

/// Before names in lines of the log.
const LOG_NAMES: [&str; 5] = [
    "name=\"",
    "network=\"",
    "member=\"",
    "peer=\"",
    "service=\"",
];

/// Letters from which on a word can only be a secret or an id.
const LONGEST_WORD: usize = 40;

/// The words that were given so far.
#[derive(Debug, Default)]
pub(super) struct Veil {
    names: BTreeMap<String, String>,
    addresses: BTreeMap<IpAddr, String>,
    mesh: Vec<IpNet>,
    counts: BTreeMap<&'static str, usize>,
}

impl Veil {
    /// From here on `name` is called by a word that begins with `kind`. The first kind counts.
    pub(super) fn hide(&mut self, kind: &'static str, name: &str) {
        let name = name.to_lowercase();
        if name.is_empty() || self.names.contains_key(&name) {
            return;
        }
        let word = self.next(kind);
        self.names.insert(name, word);
    }

    /// What a line of the log calls by name is hidden, also what is there no more.
    pub(super) fn hide_named(&mut self, line: &str) {
        for field in LOG_NAMES {
            for (_, rest) in line
                .match_indices(field)
                .filter_map(|(at, _)| line.split_at_checked(at + field.len()))
            {
                let name = rest.split('"').next().unwrap_or_default();
                self.hide("name", name);
            }
        }
    }

    /// Addresses of this net are the mesh's.
    pub(super) fn mesh(&mut self, net: IpNet) {
        self.mesh.push(net);
    }

    /// Every text in an object, veiled.
    pub(super) fn fields(&mut self, fields: &mut Map<String, Value>) {
        for (key, value) in fields {
            if !(OUR_KEYS.contains(&key.as_str()) && value.is_string()) {
                self.value(value);
            }
        }
    }

    /// Every text in a value, veiled; keys stay, and so do the texts under [`OUR_KEYS`].
    pub(super) fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(fields) => self.fields(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text, veiled.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut veiled = String::with_capacity(text.len());
        let mut word = String::new();
        for letter in text.chars() {
            if letter.is_alphanumeric() || "-_.:/[]%".contains(letter) {
                word.push(letter);
                continue;
            }
            veiled.push_str(&self.word(&word));
            word.clear();
            veiled.push(letter);
        }
        veiled.push_str(&self.word(&word));
        veiled
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(veiled) = self.located(word) {
            return veiled;
        }
        // What a sentence or a list put around it, and what was put before it.
        let bare = word
            .trim_start_matches('[')
            .trim_end_matches(['.', ':', '/', ']']);
        if bare != word
            && !bare.is_empty()
            && let Some((before, after)) = word.split_once(bare)
        {
            return format!("{before}{}{after}", self.word(bare));
        }
        for separator in ['/', '%', ':'] {
            let Some((before, after)) = word.split_once(separator) else {
                continue;
            };
            return format!("{}{separator}{}", self.word(before), self.word(after));
        }
        self.pieces(word, &['.', '_', '[', ']'])
    }

    /// An address, with its port or prefix if it has one.
    fn located(&mut self, word: &str) -> Option<String> {
        if let Ok(ip) = word.parse::<IpAddr>() {
            return Some(self.address(ip));
        }
        if let Ok(socket) = word.parse::<SocketAddr>() {
            return Some(format!("{}:{}", self.address(socket.ip()), socket.port()));
        }
        let net = word.parse::<IpNet>().ok()?;
        Some(format!("{}/{}", self.address(net.addr()), net.prefix_len()))
    }

    fn pieces(&mut self, word: &str, separators: &[char]) -> String {
        let mut veiled = String::new();
        for piece in word.split_inclusive(separators) {
            let name = piece.trim_end_matches(separators);
            veiled.push_str(&self.label(name));
            veiled.push_str(piece.get(name.len()..).unwrap_or_default());
        }
        veiled
    }

    fn label(&mut self, word: &str) -> String {
        if let Some(known) = self.names.get(&word.to_lowercase()) {
            return known.clone();
        }
        if word.to_lowercase().starts_with(TOKEN) {
            return format!("{TOKEN}…");
        }
        if word.contains('-') {
            return self.pieces(word, &['-']);
        }
        if let Some(kind) = named_by_mac(word) {
            let veiled = format!("{kind}-{}", self.next("mac"));
            self.names.insert(word.to_lowercase(), veiled.clone());
            return veiled;
        }
        let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && word.len() >= ID_LEAST {
            return format!("{}…", word.get(..ID_SHOWN).unwrap_or_default());
        }
        if word.chars().count() >= LONGEST_WORD {
            return "…".to_owned();
        }
        word.to_owned()
    }

    fn address(&mut self, ip: IpAddr) -> String {
        let ip = ip.to_canonical();
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            return ip.to_string();
        }
        if let Some(known) = self.addresses.get(&ip) {
            return known.clone();
        }
        let is_mesh = self.mesh.iter().any(|net| net.contains(&ip));
        let word = self.next(match ip {
            IpAddr::V4(_) if is_mesh => "mesh4-",
            IpAddr::V6(_) if is_mesh => "mesh6-",
            IpAddr::V4(v4) => class4(v4),
            IpAddr::V6(v6) => class6(v6),
        });
        self.addresses.insert(ip, word.clone());
        word
    }

    fn next(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        format!("{kind}{count}")
    }
}

/// What stands before the hardware address in the name of an interface that has one.
fn named_by_mac(word: &str) -> Option<&str> {
    let (kind, mac) = word.split_at_checked(word.len().checked_sub(MAC)?)?;
    let is_mac = mac.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_mac && kind.len() == 3 && kind.ends_with('x')).then_some(kind)
}

fn class4(ip: Ipv4Addr) -> &'static str {
    let [first, second, ..] = ip.octets();
    if ip.is_private() {
        "private4-"
    } else if ip.is_link_local() {
        "link4-"
    } else if first == 100 && (64..128).contains(&second) {
        "carrier4-"
    } else {
        "public4-"
    }
}

fn class6(ip: Ipv6Addr) -> &'static str {
    if ip.is_unicast_link_local() {
        "link6-"
    } else if ip.is_unique_local() {
        "private6-"
    } else {
        "public6-"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn veil() -> Veil {
        let mut veil = Veil::default();
        veil.hide("peer", "anna");
        veil.hide("peer", "old-nas");
        veil.hide("network", "home");
        veil.mesh("100.71.0.0/16".parse().unwrap());
        veil
    }

    #[test]
    fn what_the_log_has_named_is_hidden_also_where_it_is_there_no_more() {
        let mut veil = veil();
        let line = "INFO Service is published name=\"tmp\" port=85";
        veil.hide_named(line);
        assert_eq!(
            veil.text(line),
            "INFO Service is published name=\"name1\" port=85"
        );
        veil.hide_named("name=\"cut off");
    }

    #[test]
    fn one_thing_has_one_word_wherever_it_stands() {
        let mut veil = veil();
        assert_eq!(
            veil.text("anna (203.0.113.9:41820) and old-nas; anna.home.internal is 100.71.3.4."),
            "peer1 (public4-1:41820) and peer2; peer1.network1.internal is mesh4-1."
        );
        assert_eq!(veil.text("at=203.0.113.9, again"), "at=public4-1, again");
        assert_eq!(
            veil.text("[2001:db8::7]:53 fe80::1 10.0.0.0/8"),
            "public6-1:53 link6-1 private4-1/8"
        );
        assert_eq!(
            veil.text("127.0.0.1:8080 and ::1 stay"),
            "127.0.0.1:8080 and ::1 stay"
        );
        assert_eq!(veil.text("100.80.1.1"), "carrier4-1");
        assert_eq!(veil.text("[::ffff:203.0.113.9]:7"), "public4-1:7");
        let wrapped = [
            (
                "[203.0.113.9:41820, 10.0.0.0:1]",
                "[public4-1:41820, private4-1:1]",
            ),
            ("[2001:db8::7]", "[public6-1]"),
            ("fe80::1%eth0", "link6-1%eth0"),
            ("udp/203.0.113.9:7/anna", "udp/public4-1:7/peer1"),
            ("via:2001:db8::7.", "via:public6-1."),
            ("at:203.0.113.9:80/udp", "at:public4-1:80/udp"),
            (
                "anna.home.internal:80/old-nas",
                "peer1.network1.internal:80/peer2",
            ),
            ("..]", "..]"),
        ];
        for (text, expected) in wrapped {
            assert_eq!(veil.text(text), expected);
        }
    }

    #[test]
    fn ids_are_cut_and_long_words_go() {
        let mut veil = veil();
        let id = "9f".repeat(32);
        assert_eq!(veil.text(&format!("node={id}")), "node=9f9f9f9f…");
        assert_eq!(
            veil.text("joining-0123456789abcdef/state.a"),
            "joining-01234567…/state.a"
        );
        let token = format!("wm1-{}", "a2b".repeat(50));
        assert_eq!(veil.text(&token), "wm1-…");
    }

    #[test]
    fn an_interface_that_is_named_by_its_hardware_address_keeps_its_kind_alone() {
        let mut veil = veil();
        let text =
            "enx001122aabbcc up, wlxDEADBEEF0001, fe80::1%enx001122aabbcc; enp3s0f0 vethb0a1c2d3";
        let veiled = "enx-mac1 up, wlx-mac2, link6-1%enx-mac1; enp3s0f0 vethb0a1c2d3";
        assert_eq!(veil.text(text), veiled);
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = "2026-11-22T06:07:45.123456Z  INFO Agent runs socket=/run/webmesh/webmesh.sock tun.mtu: 1420";
        assert_eq!(veil().text(text), text);
        assert_eq!(veil().text(""), "");
    }

    #[test]
    fn a_machine_called_like_a_word_of_ours_does_not_hide_that_word() {
        let mut veil = veil();
        veil.hide("peer", "up");
        let mut value = json!({"name": "up", "state": "up", "list": ["up", 7, null]});
        veil.value(&mut value);
        assert_eq!(
            value,
            json!({"name": "peer3", "state": "up", "list": ["peer3", 7, null]})
        );
    }
}
