//! Where answers and talk are written: stdout and stderr, without colour, and without what could command a terminal.

use std::io::{self, IsTerminal, Write};

use crate::api::{ApiError, Code};

/// The two streams of this process.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
}

/// Why an answer did not get out.
#[derive(Debug)]
pub enum Unwritten {
    /// The reader of stdout went away: `webmesh status | head -1`. That is success.
    ReaderGone,
    /// The answer is lost: no room, or no stdout.
    Lost(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Lost(error)
        }
    }
}

/// What a person is told of an answer that is lost.
pub(super) fn lost(error: &io::Error) -> ApiError {
    let why = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    };
    ApiError::could_not(
        Code::Internal,
        format!("cannot write the answer to stdout: {why}"),
    )
}

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
    /// Nobody reads it any more, or it cannot be written.
    pub fn answer(&self, text: &str) -> Result<(), Unwritten> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(harmless(text).as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes the answer as it is: JSON escapes what could do harm.
    ///
    /// # Errors
    /// Nobody reads it any more, or it cannot be written.
    pub fn document(&self, json: &str) -> Result<(), Unwritten> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{json}")?;
        Ok(stdout.flush()?)
    }

    /// Clears a terminal before the next picture of `--watch`; between pictures elsewhere stands an empty line.
    ///
    /// # Errors
    /// Nobody reads it any more, or it cannot be written.
    pub fn next_picture(&self) -> Result<(), Unwritten> {
        let between = if self.is_terminal {
            "\x1b[H\x1b[2J"
        } else {
            "\n"
        };
        Ok(io::stdout().write_all(between.as_bytes())?)
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
