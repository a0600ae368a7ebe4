//! What the visitor sees: each step's line, the real output below it, and the seconds it took.
//!
//! Knows columns. Refuses to know what a step does.

use std::{
    io::{self, Write},
    process::Output,
    time::{Duration, Instant},
};

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// A step did not hold.
    #[error("expected {expected}; got: {got}")]
    Step {
        /// In words.
        expected: String,
        /// What came instead.
        got: String,
    },
    /// The demo itself could not go on.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Broken {
    /// A step's claim that did not come true.
    pub(super) fn step(expected: &str, got: impl std::fmt::Display) -> Self {
        Self::Step {
            expected: expected.to_owned(),
            got: got.to_string().trim().to_owned(),
        }
    }
}

/// What a command said and how long it took.
#[derive(Debug)]
pub(super) struct Said {
    /// Its stdout and then its stderr.
    pub(super) text: String,
    /// Its stdout alone.
    pub(super) stdout: String,
    /// Its stderr alone.
    pub(super) stderr: String,
    /// Its exit code; None when a signal ended it.
    pub(super) code: Option<i32>,
    /// From its start to its end.
    pub(super) took: Duration,
}

impl Said {
    /// Runs `act` and keeps what it said.
    pub(super) fn of(act: impl FnOnce() -> io::Result<Output>) -> io::Result<Self> {
        let began = Instant::now();
        let output = act()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Self {
            text: format!("{stdout}{stderr}").trim_end().to_owned(),
            stdout,
            stderr,
            code: output.status.code(),
            took: began.elapsed(),
        })
    }

    /// Its stderr and then its stdout: the order in which a command that talks before it answers says them.
    pub(super) fn talk_first(&self) -> String {
        format!("{}{}", self.stderr, self.stdout)
            .trim_end()
            .to_owned()
    }

    /// Itself if it exited with 0.
    pub(super) fn success(self, expected: &str) -> Result<Self, Broken> {
        match self.code {
            Some(0) => Ok(self),
            _ => Err(Broken::step(expected, &self.text)),
        }
    }
}

/// Prints to the visitor's terminal.
#[derive(Debug, Default)]
pub(super) struct Stage {
    held: u32,
}

impl Stage {
    /// Prints plain lines.
    pub(super) fn say(&self, text: &str) {
        // A visitor who closed the terminal ends the demo by that.
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Prints `who$ command` with its seconds, and below it what it said. `number` is empty for what only prepares.
    pub(super) fn show(&self, number: &str, who: &str, command: &str, took: Duration) {
        self.tell(number, who, &format!("{command:<52} {}", seconds(took)));
    }

    /// Prints a command that says itself how long it took.
    pub(super) fn tell(&self, number: &str, who: &str, line: &str) {
        let prompt = format!("{who}$");
        self.say(&format!("{number:>2} {prompt:<6} {line}"));
    }

    /// Prints what a command said.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            self.say(&format!("          {line}"));
        }
    }

    /// Counts a step that held.
    pub(super) fn hold(&mut self) {
        self.held += 1;
    }

    /// How many steps held.
    pub(super) fn held(&self) -> u32 {
        self.held
    }
}

/// How long something took, as precisely as a visitor can use; a bare 0.0 would look made up.
pub(super) fn seconds(took: Duration) -> String {
    match took.as_millis() {
        ms @ 0..100 => format!("{} ms", ms.max(1)),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_told_in_milliseconds() {
        let told = |micros| seconds(Duration::from_micros(micros));
        assert_eq!(told(300), "1 ms");
        assert_eq!(told(99_900), "99 ms");
        assert_eq!(told(100_000), "0.1 s");
        assert_eq!(told(4_260_000), "4.3 s");
    }
}
