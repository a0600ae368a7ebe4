//! The house's walls: what one package gives no compiler error for.
//!
//! Reads every file of `src` and fails with one line per offence: who imports whom, what a pure room may name, how
//! long a file is, that each says what it is about, and that nobody's host is written in what we ship. Lengths of
//! functions, nesting and numbers of arguments are clippy's (`.clippy.toml`).

#![expect(
    clippy::string_slice,
    reason = "every index comes from match_indices of the same line"
)]

use std::fs;

use hosts::{ENTRY_POINTS, STANDARDS, addresses, hosts, spelled_addresses};
use source::{Part, entries, files_below, paths, relative, root, sources};

#[path = "tidy/hosts.rs"]
mod hosts;
#[path = "tidy/scanners.rs"]
mod scanners;
#[path = "tidy/source.rs"]
mod source;

/// What every room may import: ids, addresses, hashes and times, and nothing that does something.
const GROUND: &[&str] = &["addr", "hash", "ids", "time"];

/// What every core may import beside the ground.
const BELOW_CORES: &[&str] = &["addr", "hash", "ids", "keys", "tables", "time", "wire"];

/// The cores that `node` joins. They never import each other: where two need one type, it moves down or `node`
/// translates.
const CORES: &[&str] = &[
    "dns",
    "gossip",
    "members",
    "overlay",
    "paths",
    "policy",
    "registry",
    "relay",
    "rendezvous",
    "services",
    "transport",
];

/// The rooms below the cores and the one above them: pure too.
const OTHER_PURE: &[&str] = &[
    "addr", "hash", "ids", "keys", "node", "packet", "tables", "time", "wire",
];

/// The rooms that touch the world, with what each may import beside the ground.
const WORLD: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("cli", &["api", "config", "host_dns", "keys"]),
    ("config", &["api"]),
    (
        "datapath",
        &[
            "packet",
            "platform",
            "relay",
            "tables",
            "transport",
            "wire",
            "wireguard",
        ],
    ),
    ("demo", &["api", "config", "platform"]),
    ("host_dns", &["api", "config", "platform"]),
    (
        "main",
        &["api", "cli", "config", "daemon", "demo", "telemetry"],
    ),
    ("platform", &["tables"]),
    ("telemetry", &[]),
    ("wireguard", &["keys", "packet", "wire"]),
];

/// The longest a file may be, in lines outside test modules (house style §6.10; the aim is 400).
const LONGEST_FILE: usize = 700;

/// Files that are longer, each with the reason. The list may only shrink.
const LONG_FILES: &[(&str, &str)] = &[];

/// What no pure room names: a word anywhere in a path, and why.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("Instant", "cores are given `now`"),
    ("SystemTime", "wall time enters through `Now`"),
    ("UdpSocket", "sockets are made in platform/"),
    ("TcpStream", "sockets are made in platform/"),
    ("TcpListener", "sockets are made in platform/"),
    ("UnixStream", "sockets are made in platform/"),
    ("async", "cores do not wait"),
    ("await", "cores do not wait"),
    ("OsRng", "randomness comes from outside"),
    ("thread_rng", "randomness comes from outside"),
    ("from_entropy", "randomness comes from outside"),
    ("getrandom", "randomness comes from outside"),
];

/// What no path of a pure room begins with, and why.
const IMPURE_HEADS: &[(&str, &str)] = &[
    ("std::fs", "files are the shell's"),
    ("std::thread", "threads are the shell's"),
    ("std::env", "the environment is the shell's"),
    ("std::process", "processes are the shell's"),
    ("tokio", "cores do not wait"),
    ("nix", "the operating system is platform's"),
    ("libc", "the operating system is platform's"),
    ("socket2", "sockets are made in platform/"),
    ("rtnetlink", "the operating system is platform's"),
    ("tun_rs", "the operating system is platform's"),
];

/// What a log at INFO or above does not show bare, since it may be pasted into a bug report: fields by these names stand in
/// `Private(…)`.
const PRIVATE_FIELDS: &[&str] = &[
    "address",
    "endpoint",
    "external",
    "issuer",
    "member",
    "neighbour",
    "node",
    "peer",
    "remote",
];

/// File names that say nothing.
const EMPTY_NAMES: &[&str] = &[
    "common", "core", "helper", "helpers", "info", "manager", "misc", "types", "util", "utils",
];

/// Everything at the top of the repository that does not begin with a dot; `target` is nobody's file.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "packaging",
    "src",
    "systemd",
    "target",
    "tests",
];

#[test]
fn rooms_import_only_what_lies_below_them() {
    let mut offences = Vec::new();
    for file in sources() {
        let Some(allowed) = imports_of(&file.room) else {
            if file.room != "lib" {
                offences.push(format!(
                    "{}: the room {} is not in tests/tidy.rs",
                    file.path, file.room
                ));
            }
            continue;
        };
        for (line, path) in paths(&file.production()) {
            if let Some(room) = room_of(&path)
                && room != file.room
                && !allowed.contains(&room)
            {
                offences.push(format!(
                    "{}:{line}: {} must not import {room}",
                    file.path, file.room
                ));
            }
            if path.iter().take_while(|part| *part == "super").count() >= file.depth {
                offences.push(format!(
                    "{}:{line}: leaves its room by `super`: write `crate::`",
                    file.path
                ));
            }
        }
    }
    report(offences);
}

#[test]
fn pure_rooms_name_no_clock_no_socket_no_await_and_no_dice() {
    let mut offences = Vec::new();
    for file in sources().into_iter().filter(|file| is_pure(&file.room)) {
        for (line, path) in paths(&file.production()) {
            if let Some(why) = impurity(&path) {
                offences.push(format!("{}:{line}: {}: {why}", file.path, path.join("::")));
            }
        }
    }
    report(offences);
}

#[test]
fn one_file_of_wireguard_names_boringtun() {
    let naming: Vec<String> = sources()
        .into_iter()
        .filter(|file| file.names("boringtun"))
        .map(|file| file.path)
        .collect();
    let strangers = naming
        .iter()
        .filter(|path| !path.starts_with("src/wireguard/"))
        .map(|path| format!("{path}: only wireguard/ names boringtun"));
    let crowd = (naming.len() > 1)
        .then(|| format!("more than one file names boringtun: {}", naming.join(", ")));
    report(strangers.chain(crowd).collect());
}

#[test]
fn unsafe_stands_in_platform_alone() {
    let offences = sources()
        .into_iter()
        .filter(|file| file.room != "platform" && file.names("unsafe"))
        .map(|file| format!("{}: unsafe outside platform/", file.path));
    report(offences.collect());
}

#[test]
fn a_log_that_a_person_may_show_hides_who_talks_to_whom() {
    let mut wrapped = 0;
    let mut offences = Vec::new();
    for file in sources() {
        for (line, fields) in shown_logs(&file.production()) {
            let (bare, hidden) = without_private(&fields);
            wrapped += hidden;
            let word = words(&bare).find(|word| PRIVATE_FIELDS.contains(word));
            offences.extend(
                word.map(|word| {
                    format!("{}:{line}: {word} is logged outside Private(…)", file.path)
                }),
            );
        }
    }
    report(offences);
    assert!(wrapped > 3, "the search finds what is wrapped: {wrapped}");
}

#[test]
fn files_stay_short() {
    let mut offences = Vec::new();
    for file in sources() {
        let lines = file.production_lines();
        let excepted = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        match (lines > LONGEST_FILE, excepted) {
            (true, false) => offences.push(format!(
                "{}: {lines} lines outside tests, at most {LONGEST_FILE}",
                file.path
            )),
            (false, true) => offences.push(format!(
                "{}: is short again: take it off LONG_FILES",
                file.path
            )),
            (true, true) | (false, false) => {}
        }
    }
    report(offences);
}

#[test]
fn every_file_says_what_it_is_about() {
    let offences = sources()
        .into_iter()
        .filter(|file| !file.is_test && !file.raw.starts_with("//! "))
        .map(|file| format!("{}: does not open with //!", file.path));
    report(offences.collect());
}

#[test]
fn every_pure_room_says_what_it_refuses_to_know() {
    let offences = sources()
        .into_iter()
        .filter(|file| is_pure(&file.room) && file.depth == 1)
        .filter(|file| !says_its_limits(&file.opening()))
        .map(|file| {
            format!(
                "{}: its //! does not say what the room refuses to know",
                file.path
            )
        });
    report(offences.collect());
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    let mut offences = Vec::new();
    for file in sources() {
        for (number, line) in file.raw.lines().enumerate() {
            if is_loose_end(line) {
                offences.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    report(offences);
}

#[test]
fn a_file_is_a_noun() {
    let offences = sources()
        .into_iter()
        .filter(|file| {
            file.path
                .split(['/', '.'])
                .any(|part| EMPTY_NAMES.contains(&part))
        })
        .map(|file| format!("{}: the name says nothing", file.path));
    report(offences.collect());
}

#[test]
fn the_top_level_is_the_one_of_the_design() {
    let mut offences = Vec::new();
    for name in entries(&root()) {
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            offences.push(format!(
                "{name}: not one of the files and folders at the top"
            ));
        }
    }
    report(offences);
}

#[test]
fn nobodys_host_is_written_in_what_we_ship() {
    let mut offences = Vec::new();
    for file in sources() {
        offences.extend(hosts(&file.path, &file.only(Part::Text), &[]));
        offences.extend(hosts(&file.path, &file.only(Part::Comment), STANDARDS));
        offences.extend(addresses(&file.path, &file.production_text()));
        offences.extend(addresses(
            &file.path,
            &spelled_addresses(&file.production()),
        ));
    }
    for folder in ["packaging", "systemd"] {
        for path in files_below(&root().join(folder)) {
            let path = relative(&path);
            if path.starts_with("packaging/LICENSE-") {
                continue;
            }
            let Ok(text) = fs::read_to_string(root().join(&path)) else {
                continue;
            };
            let known = if path == "packaging/config.toml" {
                [STANDARDS, ENTRY_POINTS].concat()
            } else {
                STANDARDS.to_vec()
            };
            offences.extend(hosts(&path, &text, &known));
            offences.extend(addresses(&path, &text));
        }
    }
    report(offences);
}

/// What stands in the brackets of each log at INFO, WARN and ERROR, with its line.
fn shown_logs(code: &str) -> Vec<(usize, String)> {
    let heads = ["tracing::info!(", "tracing::warn!(", "tracing::error!("];
    let mut logs = Vec::new();
    for head in heads {
        for (at, _) in code.match_indices(head) {
            let line = 1 + code[..at].matches('\n').count();
            let inside = &code[at + head.len()..];
            logs.push((line, inside[..closing(inside)].to_owned()));
        }
    }
    logs
}

/// The fields without those in `Private(…)`, whose names go with them, and how many those were.
fn without_private(fields: &str) -> (String, usize) {
    let (mut bare, mut count, mut rest) = (String::new(), 0, fields);
    while let Some((before, after)) = rest.split_once("Private(") {
        // Back to where the field begins.
        bare.push_str(&before[..before.rfind(',').unwrap_or(0)]);
        rest = &after[closing(after)..];
        count += 1;
    }
    bare.push_str(rest);
    (bare, count)
}

/// Where the bracket closes that is open at the beginning.
fn closing(text: &str) -> usize {
    let mut open = 1;
    let end = text.char_indices().find(|(_, letter)| {
        open += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        open == 0
    });
    end.map_or(text.len(), |(at, _)| at)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Fails with one line per offence.
fn report(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

fn is_pure(room: &str) -> bool {
    CORES.contains(&room) || OTHER_PURE.contains(&room)
}

/// What a room may import; None where it is not a room of the design.
fn imports_of(room: &str) -> Option<Vec<&'static str>> {
    let beside: Vec<&str> = match room {
        "addr" => vec!["hash", "ids"],
        "hash" | "ids" | "time" => vec![],
        "keys" | "packet" | "tables" => GROUND.to_vec(),
        "wire" => [GROUND, &["keys"]].concat(),
        "node" => [BELOW_CORES, CORES].concat(),
        "daemon" => {
            let world = WORLD
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| !["cli", "demo", "main"].contains(name));
            [OTHER_PURE, CORES]
                .concat()
                .into_iter()
                .chain(world)
                .collect()
        }
        core if CORES.contains(&core) => BELOW_CORES.to_vec(),
        other => {
            let (_, beside) = WORLD.iter().find(|(name, _)| *name == other)?;
            [GROUND, beside].concat()
        }
    };
    Some(beside)
}

/// The room that a path leads into.
fn room_of(path: &[String]) -> Option<&str> {
    match path {
        [head, room, ..] if head == "crate" || head == "webmesh" => Some(room),
        _ => None,
    }
}

fn impurity(path: &[String]) -> Option<&'static str> {
    let begins = |head: &str| {
        head.split("::").zip(path).filter(|(a, b)| a == b).count() == head.split("::").count()
    };
    let word = IMPURE_WORDS
        .iter()
        .find(|(word, _)| path.iter().any(|part| part == word));
    let head = IMPURE_HEADS.iter().find(|(head, _)| begins(head));
    word.or(head).map(|(_, why)| *why)
}

fn says_its_limits(opening: &str) -> bool {
    ["refuses", "never", "nothing"]
        .iter()
        .any(|words| opening.to_lowercase().contains(words))
}

fn is_loose_end(line: &str) -> bool {
    let is_word = |at: usize, word: &str| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    };
    ["TODO", "FIXME", "XXX", "HACK"].iter().any(|word| {
        line.match_indices(word)
            .any(|(at, _)| is_word(at, word) && !line[at + word.len()..].starts_with("(#"))
    })
}
