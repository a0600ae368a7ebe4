//! Where answers and talk are written: stdout and stderr, without colour, and without what could command a terminal.

use std::io::{self, IsTerminal, Write};

/// The two streams of this process.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
}

/// The reader of stdout went away: `webmesh status | head -1`. That is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderGone;

impl Screen {
    /// The streams of this process.
    pub fn of_this_process() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether a person looks at stdout.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// How many columns there are; None where lines may be of any length.
    pub fn width(&self) -> Option<usize> {
        let (width, _) = self.is_terminal.then(terminal_size::terminal_size)??;
        Some(usize::from(width.0))
    }

    /// Writes text of the answer.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn answer(&self, text: &str) -> Result<(), ReaderGone> {
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(harmless(text).as_bytes())
            .and_then(|()| stdout.flush());
        written.or(Err(ReaderGone))
    }

    /// Writes the answer as it is: JSON escapes what could do harm.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn document(&self, json: &str) -> Result<(), ReaderGone> {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{json}").and_then(|()| stdout.flush());
        written.or(Err(ReaderGone))
    }

    /// Clears a terminal before the next picture of `--watch`; between pictures elsewhere stands an empty line.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn next_picture(&self) -> Result<(), ReaderGone> {
        let between = if self.is_terminal {
            "\x1b[H\x1b[2J"
        } else {
            "\n"
        };
        io::stdout()
            .write_all(between.as_bytes())
            .or(Err(ReaderGone))
    }

    /// Writes talk. Where nobody listens, it is nobody's loss.
    pub fn talk(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if stderr.write_all(harmless(text).as_bytes()).is_err() {
            tracing::trace!("Nobody reads stderr");
        }
    }
}

/// The text without control characters but the ends of its lines: names and addresses come from other machines, and must
/// not command a terminal.
fn harmless(text: &str) -> String {
    let harmless = |letter: char| {
        if letter.is_control() && letter != '\n' {
            '?'
        } else {
            letter
        }
    };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_peer_commands_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}c\rd\n"), "a?[2Jb?c?d\n");
    }
}
