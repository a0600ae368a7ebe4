//! The last lines of the log, in memory: what a maintainer wants to see and journald may have thrown away.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

/// Bytes that are kept. At INFO that is days; at DEBUG the last minutes.
const KEPT_BYTES: usize = 128 * 1024;

/// Bytes of one line that are kept.
const LONGEST_LINE: usize = 2 * 1024;

static LINES: Mutex<Lines> = Mutex::new(Lines {
    lines: VecDeque::new(),
    bytes: 0,
});

/// The last lines of this process's log, oldest first.
pub fn last_lines() -> Vec<String> {
    let kept = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    kept.lines.iter().cloned().collect()
}

/// Where one event is written.
pub(super) fn line() -> impl io::Write {
    Line
}

struct Line;

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_stay_and_memory_is_bounded() {
        let mut kept = Lines {
            lines: VecDeque::new(),
            bytes: 0,
        };
        for number in 0..10_000 {
            kept.push(format!("{number} {}\n", "x".repeat(number)).as_bytes());
        }
        let held: usize = kept.lines.iter().map(String::len).sum();
        assert_eq!(held, kept.bytes);
        assert!(held <= KEPT_BYTES && kept.lines.len() >= KEPT_BYTES / LONGEST_LINE);
        assert!(kept.lines.back().unwrap().starts_with("9999 x"));
        assert!(!kept.lines.back().unwrap().ends_with('\n'));
    }
}
