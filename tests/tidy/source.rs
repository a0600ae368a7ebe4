//! The files of `src`, and what each of their characters is: code, literal or comment, production or test.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// One file of `src`, with what each of its characters is part of.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) room: String,
    /// How many `super` lead out of the room.
    pub(crate) depth: usize,
    pub(crate) raw: String,
    parts: Vec<(char, Part)>,
    pub(crate) is_test: bool,
}

/// What a character of a source file is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Code,
    Text,
    Comment,
}

impl Source {
    pub(crate) fn new(path: String, raw: String) -> Self {
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
    pub(crate) fn only(&self, wanted: Part) -> String {
        only(&self.parts, wanted)
    }

    /// The code outside test modules.
    pub(crate) fn production(&self) -> String {
        if self.is_test {
            return String::new();
        }
        without_tests(&self.only(Part::Code))
    }

    /// The literals outside test modules.
    pub(crate) fn production_text(&self) -> String {
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
    pub(crate) fn production_lines(&self) -> usize {
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
    pub(crate) fn names(&self, word: &str) -> bool {
        paths(&self.only(Part::Code))
            .iter()
            .any(|(_, path)| path.iter().any(|part| part == word))
    }

    /// The `//!` lines at the top.
    pub(crate) fn opening(&self) -> String {
        self.raw
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Every file of `src`, in order of their paths.
pub(crate) fn sources() -> Vec<Source> {
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

pub(crate) fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
}

pub(crate) fn relative(path: &Path) -> String {
    let inside = path
        .strip_prefix(root())
        .expect("only files of the repository are read");
    inside.to_string_lossy().into_owned()
}

pub(crate) fn entries(folder: &Path) -> Vec<String> {
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

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
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

/// Says of every character whether it is code, inside a literal, or in a comment.
pub(crate) fn lex(source: &str) -> Vec<(char, Part)> {
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

pub(crate) fn only(parts: &[(char, Part)], wanted: Part) -> String {
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
fn without_tests_ranges(code: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let letters: Vec<char> = code.chars().collect();
    let mark: Vec<char> = MARK.chars().collect();
    let mut ranges: Vec<Range<usize>> = Vec::new();
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
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
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

    /// Steps over `as name`, which is no path.
    fn skip_rename(&mut self) {
        self.skip_blanks();
        if self.letters[self.at..].starts_with(&['a', 's', ' ']) {
            self.at += 3;
            self.skip_blanks();
            self.at += self.letters[self.at..]
                .iter()
                .take_while(|letter| is_word_letter(**letter))
                .count();
        }
    }

    fn read_group(&mut self, prefix: &[String]) {
        self.step();
        while self.at < self.letters.len() {
            match self.letters[self.at] {
                '}' => return self.step(),
                letter if is_word_letter(letter) => {
                    self.read_path(prefix);
                    self.skip_rename();
                }
                _ => self.step(),
            }
        }
    }
}
