//! The house's walls: what one package gives no compiler error for.
//!
//! Reads every file of `src` and fails with one line per offence: who imports whom, what a pure room may name, how
//! long a file is, that each says what it is about, and that nobody's host is written in what we ship. Lengths of
//! functions, nesting and numbers of arguments are clippy's (`.clippy.toml`).

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

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
    ("cli", &["api", "keys"]),
    ("config", &[]),
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

/// The ends by which a word is taken for a public host name.
const PUBLIC_ENDS: &[&str] = &[
    "ai", "app", "biz", "cc", "ch", "cloud", "cn", "com", "de", "dev", "eu", "fr", "info", "io",
    "jp", "link", "net", "nl", "online", "org", "ru", "se", "site", "tech", "tv", "uk", "xyz",
];

/// Names reserved for examples (RFC 2606).
const EXAMPLE_NAMES: &[&str] = &["example.com", "example.net", "example.org"];

/// Where the standards that comments cite are published.
const STANDARDS: &[&str] = &[
    "bittorrent.org",
    "freedesktop.org",
    "ietf.org",
    "kernel.org",
    "noiseprotocol.org",
    "rfc-editor.org",
    "wireguard.com",
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
        .filter(|file| !file.raw.starts_with("//! "))
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
            offences.extend(hosts(&path, &text, &[]));
            offences.extend(addresses(&path, &text));
        }
    }
    report(offences);
}

/// Fails with one line per offence.
fn report(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// One file of `src`, with what each of its characters is part of.
struct Source {
    path: String,
    room: String,
    /// How many `super` lead out of the room.
    depth: usize,
    raw: String,
    parts: Vec<(char, Part)>,
    is_test: bool,
}

/// What a character of a source file is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Text,
    Comment,
}

impl Source {
    fn new(path: String, raw: String) -> Self {
        let inside: Vec<&str> = path
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .split('/')
            .collect();
        let depth = inside.iter().filter(|part| **part != "mod").count();
        Self {
            room: inside[0].to_owned(),
            depth,
            is_test: inside.iter().skip(1).any(|part| *part == "tests"),
            parts: lex(&raw),
            path,
            raw,
        }
    }

    /// The file with everything but one kind of parts made blank; lines stay where they are.
    fn only(&self, wanted: Part) -> String {
        only(&self.parts, wanted)
    }

    /// The code outside test modules.
    fn production(&self) -> String {
        if self.is_test {
            return String::new();
        }
        without_tests(&self.only(Part::Code))
    }

    /// The literals outside test modules.
    fn production_text(&self) -> String {
        let code = self.production();
        let text = self.only(Part::Text);
        let kept = without_tests_ranges(&self.only(Part::Code));
        if code.is_empty() {
            return String::new();
        }
        text.chars()
            .enumerate()
            .map(|(at, letter)| {
                if letter == '\n' || kept.iter().all(|range| !range.contains(&at)) {
                    letter
                } else {
                    ' '
                }
            })
            .collect()
    }

    /// Lines outside test modules, comments and docs included.
    fn production_lines(&self) -> usize {
        if self.is_test {
            return 0;
        }
        let code: Vec<char> = self.only(Part::Code).chars().collect();
        let in_tests: usize = without_tests_ranges(&self.only(Part::Code))
            .into_iter()
            .map(|range| code[range].iter().filter(|letter| **letter == '\n').count() + 1)
            .sum();
        self.raw.lines().count().saturating_sub(in_tests)
    }

    /// Whether code, tests included, has this word in a path.
    fn names(&self, word: &str) -> bool {
        paths(&self.only(Part::Code))
            .iter()
            .any(|(_, path)| path.iter().any(|part| part == word))
    }

    /// The `//!` lines at the top.
    fn opening(&self) -> String {
        self.raw
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Every file of `src`, in order of their paths.
fn sources() -> Vec<Source> {
    files_below(&root().join("src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| {
            let raw = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            Source::new(relative(&path), raw)
        })
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    let inside = path
        .strip_prefix(root())
        .expect("only files of the repository are read");
    inside.to_string_lossy().into_owned()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| {
            entry
                .expect("a folder that opens can be read")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in entries(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
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
    ["refuses", "never", "nothing else"]
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

/// Says of every character whether it is code, inside a literal, or in a comment.
fn lex(source: &str) -> Vec<(char, Part)> {
    let letters: Vec<char> = source.chars().collect();
    let mut parts = Vec::with_capacity(letters.len());
    let mut at = 0;
    while at < letters.len() {
        let (end, part) = next_piece(&letters, at);
        parts.extend(letters[at..end].iter().map(|letter| (*letter, part)));
        at = end;
    }
    parts
}

/// Where the piece that begins at `at` ends, and what it is.
fn next_piece(letters: &[char], at: usize) -> (usize, Part) {
    let rest = &letters[at..];
    let fresh = at == 0 || !is_word_letter(letters[at - 1]);
    match rest {
        ['/', '/', ..] => (
            at + rest.iter().take_while(|letter| **letter != '\n').count(),
            Part::Comment,
        ),
        ['/', '*', ..] => (end_of_block_comment(letters, at), Part::Comment),
        ['r', '"' | '#', ..] if fresh => raw_text(letters, at, at + 1),
        ['b', 'r', '"' | '#', ..] if fresh => raw_text(letters, at, at + 2),
        ['"', ..] => (end_of_quote(letters, at, '"'), Part::Text),
        ['\'', '\\', ..] => (end_of_quote(letters, at, '\''), Part::Text),
        ['\'', _, '\'', ..] => (at + 3, Part::Text),
        _ => (at + 1, Part::Code),
    }
}

fn end_of_block_comment(letters: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < letters.len() {
        match letters[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The raw string that begins at `from`, whose hashes begin at `hashes`; code where it is a raw identifier.
fn raw_text(letters: &[char], from: usize, hashes: usize) -> (usize, Part) {
    let count = letters[hashes..]
        .iter()
        .take_while(|letter| **letter == '#')
        .count();
    if letters.get(hashes + count) != Some(&'"') {
        return (from + 1, Part::Code);
    }
    let closing: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', count))
        .collect();
    let body = hashes + count + 1;
    let end = letters[body..]
        .windows(closing.len())
        .position(|window| window == closing);
    (
        end.map_or(letters.len(), |end| body + end + closing.len()),
        Part::Text,
    )
}

fn end_of_quote(letters: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < letters.len() && letters[at] != quote {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

fn only(parts: &[(char, Part)], wanted: Part) -> String {
    parts
        .iter()
        .map(|(letter, part)| {
            if *part == wanted || *letter == '\n' {
                *letter
            } else {
                ' '
            }
        })
        .collect()
}

/// Blanks the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let ranges = without_tests_ranges(code);
    code.chars()
        .enumerate()
        .map(|(at, letter)| {
            if letter != '\n' && ranges.iter().any(|range| range.contains(&at)) {
                ' '
            } else {
                letter
            }
        })
        .collect()
}

/// Where the items under `#[cfg(test)]` stand, in characters.
fn without_tests_ranges(code: &str) -> Vec<std::ops::Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let letters: Vec<char> = code.chars().collect();
    let mark: Vec<char> = MARK.chars().collect();
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for at in 0..letters.len() {
        let inside = ranges.last().is_some_and(|range| range.contains(&at));
        if !inside && letters[at..].starts_with(&mark) {
            ranges.push(at..end_of_item(&letters, at + mark.len()));
        }
    }
    ranges
}

/// Behind the first `;` or the brace that closes the first one opened.
fn end_of_item(letters: &[char], from: usize) -> usize {
    let mut depth = 0;
    for (at, letter) in letters.iter().enumerate().skip(from) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    letters.len()
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Every path in the code with its line; `a::{b, c::d}` is two.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let letters: Vec<char> = code.chars().collect();
    let mut reader = PathReader {
        letters: &letters,
        at: 0,
        line: 1,
        found: Vec::new(),
    };
    while reader.at < letters.len() {
        if is_word_letter(letters[reader.at]) {
            reader.read_path(&[]);
        } else {
            reader.step();
        }
    }
    reader.found
}

struct PathReader<'a> {
    letters: &'a [char],
    at: usize,
    line: usize,
    found: Vec<(usize, Vec<String>)>,
}

impl PathReader<'_> {
    fn step(&mut self) {
        if self.letters.get(self.at) == Some(&'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_blanks(&mut self) {
        while self
            .letters
            .get(self.at)
            .is_some_and(|letter| letter.is_whitespace())
        {
            self.step();
        }
    }

    /// Reads a path below `prefix` and notes it, or all of its group.
    fn read_path(&mut self, prefix: &[String]) {
        let line = self.line;
        let mut path = prefix.to_vec();
        loop {
            let word: String = self.letters[self.at..]
                .iter()
                .take_while(|letter| is_word_letter(**letter))
                .collect();
            self.at += word.chars().count();
            path.push(word);
            if !self.has_separator() {
                break;
            }
            match self.letters.get(self.at) {
                Some('{') => return self.read_group(&path),
                Some(letter) if is_word_letter(*letter) => {}
                _ => break,
            }
        }
        self.found.push((line, path));
    }

    /// Steps over `::` and the blanks around it.
    fn has_separator(&mut self) -> bool {
        let ahead = self.letters[self.at..]
            .iter()
            .take_while(|letter| letter.is_whitespace())
            .count();
        if !self.letters[self.at + ahead..].starts_with(&[':', ':']) {
            return false;
        }
        self.skip_blanks();
        self.at += 2;
        self.skip_blanks();
        true
    }

    fn read_group(&mut self, prefix: &[String]) {
        self.step();
        while self.at < self.letters.len() {
            match self.letters[self.at] {
                '}' => return self.step(),
                letter if is_word_letter(letter) => self.read_path(prefix),
                _ => self.step(),
            }
        }
    }
}

/// Words that look like public host names, other than those of examples and of `known` publishers.
fn hosts(path: &str, text: &str, known: &[&str]) -> Vec<String> {
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
fn addresses(path: &str, text: &str) -> Vec<String> {
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
fn spelled_addresses(code: &str) -> String {
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

/// The scanners on small strings: each can see what it is for.
mod scanners {
    use super::*;

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
        let found =
            paths("use crate::{\n  addr::Underlay,\n  wire::{message::{self, Hello}, record},\n};");
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
            "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n  use crate::registry::X;\n}\nfn b() {}\n".to_owned(),
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
            seen(
                "203.0.113.9:41820 100.71.20.9 192.168.1.2 127.0.0.53 2001:db8::1 fd7c::1 0.0.0.0"
            ),
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
}
