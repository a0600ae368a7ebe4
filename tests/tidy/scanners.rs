//! The scanners on small strings: each can see what it is for.

use std::collections::BTreeMap;

use super::{
    hosts::{addresses, hosts, spelled_addresses},
    imports_of, impurity, is_loose_end, room_of, says_its_limits,
    source::{Part, Source, lex, only, paths},
};

fn code(source: &str) -> String {
    only(&lex(source), Part::Code)
}

fn named(source: &str) -> Vec<String> {
    paths(&code(source))
        .into_iter()
        .map(|(_, path)| path.join("::"))
        .collect()
}

#[test]
fn literals_and_comments_are_not_code() {
    let source = "a /* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# 'i' '\\'' b\"j\" // k\nl<'m>";
    let words: BTreeMap<String, usize> = named(source).into_iter().zip(0..).collect();
    assert_eq!(words.keys().collect::<Vec<_>>(), ["a", "b", "l", "m"]);
}

#[test]
fn groups_in_groups_are_found_with_their_lines() {
    let found = paths(
        "use crate::{\n  addr::Underlay,\n  wire::{message::{self, Hello as Hi}, record},\n};",
    );
    let found: Vec<String> = found
        .into_iter()
        .map(|(line, path)| format!("{line} {}", path.join("::")))
        .collect();
    assert_eq!(
        found,
        [
            "1 use",
            "2 crate::addr::Underlay",
            "3 crate::wire::message::self",
            "3 crate::wire::message::Hello",
            "3 crate::wire::record",
        ]
    );
}

#[test]
fn a_core_that_imports_its_sibling_is_seen() {
    let path = &paths("let x = crate::gossip :: Round::new();")[2].1;
    assert_eq!(room_of(path), Some("gossip"));
    assert!(!imports_of("members").is_some_and(|rooms| rooms.contains(&"gossip")));
    assert!(imports_of("node").is_some_and(|rooms| rooms.contains(&"gossip")));
    assert!(!imports_of("cli").is_some_and(|rooms| rooms.contains(&"daemon")));
    assert!(!imports_of("daemon").is_some_and(|rooms| rooms.contains(&"cli")));
    assert_eq!(imports_of("attic"), None);
}

#[test]
fn impure_names_are_seen_in_groups_too() {
    let impure = |source: &str| {
        paths(source)
            .iter()
            .any(|(_, path)| impurity(path).is_some())
    };
    for source in [
        "use std::{fs, io};",
        "use std::time::{Duration, Instant};",
        "std::thread::spawn(f)",
        "async fn f() {}",
        "rand_core::OsRng.next_u64()",
        "use tokio::sync::mpsc;",
    ] {
        assert!(impure(source), "{source}");
    }
    assert!(!impure(
        "use std::{fmt, time::Duration, net::SocketAddr}; let fs = 1;"
    ));
}

#[test]
fn test_modules_do_not_count() {
    let file = Source::new(
        "src/gossip/round.rs".to_owned(),
        "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n  use crate::registry::X;\n}\nfn b() {}\n"
            .to_owned(),
    );
    assert_eq!(file.production_lines(), 3);
    assert!(!file.production().contains("registry"));
    assert!(file.production().contains("fn b"));
    assert_eq!((file.room.as_str(), file.depth), ("gossip", 2));
    assert!(Source::new("src/gossip/round/tests.rs".to_owned(), String::new()).is_test);
}

#[test]
fn loose_ends_are_words() {
    assert!(is_loose_end("// TODO: later"));
    assert!(is_loose_end("// FIXME"));
    assert!(!is_loose_end("// TODO(#7): later"));
    assert!(!is_loose_end("let TODOS = 4XXXD;"));
}

#[test]
fn hosts_of_others_are_seen() {
    let seen = |text: &str| hosts("f", text, &["ietf.org"]).len();
    assert_eq!(
        seen("dial router.bittorrent.com:6881 and https://example.dev/"),
        2
    );
    assert_eq!(
        seen("mesh.example.com, anna.home.internal, config.toml, e.g. 3.org"),
        1
    );
    assert_eq!(seen("https://datatracker.ietf.org/doc"), 0);
}

#[test]
fn addresses_of_others_are_seen() {
    let seen = |text: &str| addresses("f", text).len();
    assert_eq!(seen("8.8.8.8:53 [2606:4700::1111]:53 1.1.1.1"), 3);
    assert_eq!(
        seen("203.0.113.9:41820 100.71.20.9 192.168.1.2 127.0.0.53 2001:db8::1 fd7c::1 0.0.0.0"),
        0
    );
    assert_eq!(seen("RFC 8445 §6.1.2.3 and version 0.7.1"), 0);
    assert_eq!(seen(&spelled_addresses("Ipv4Addr::new(9, 9, 9, 9)")), 1);
}

#[test]
fn a_room_without_limits_is_seen() {
    assert!(says_its_limits(
        "//! Knows slots. Refuses to know what a record says."
    ));
    assert!(!says_its_limits("//! Gossip."));
}
