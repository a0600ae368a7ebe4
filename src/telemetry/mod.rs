//! Logs: where they go, how they look, and what stays out of them.
//!
//! To stderr, one line each, which journald and a terminal both take: without times under journald (it has its own), with
//! colour on a terminal alone. `WEBMESH_LOG` filters as `RUST_LOG` does elsewhere; the default is `info`.
//!
//! The last lines are kept in memory too ([`last_lines`]), for `webmesh debug bundle`.
//!
//! Names and ids of peers, and addresses by which anybody finds a machine, go through [`Private`] from INFO up; `tests/tidy.rs`
//! looks for it. Keys never go anywhere.

mod ring;

use std::{fmt, io::IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt as lines, fmt::time::SystemTime, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub use ring::last_lines;

/// The variable that filters the log.
pub const FILTER_VARIABLE: &str = "WEBMESH_LOG";

/// Starts logging for this process. A second call changes nothing.
///
/// boringtun's own log is off: it prints keys' fingerprints and packets of strangers, and says nothing that our counters
/// do not (protocol §3).
pub fn start() {
    // The default directive counts only where no other is given.
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_unset| "info".to_owned());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(format!("{text},boringtun=off"));
    let to_stderr = lines::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let is_under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let to_stderr = if is_under_journald {
        to_stderr.without_time().boxed()
    } else {
        to_stderr.with_timer(SystemTime).boxed()
    };
    let to_memory = lines::layer()
        .with_writer(ring::line)
        .with_ansi(false)
        .with_target(false)
        .with_timer(SystemTime);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(to_stderr)
        .with(to_memory)
        .try_init();
    if started.is_err() {
        tracing::debug!("Logging runs already");
    }
}

/// An address or a name of a peer in a log: shown when the log is at DEBUG or finer, `‹hidden›` above.
///
/// At INFO a log may be pasted into a bug report without telling the world who talks to whom.
#[derive(Clone, Copy)]
pub struct Private<T>(pub T);

impl<T: fmt::Display> fmt::Display for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if shows_private() {
            self.0.fmt(f)
        } else {
            f.write_str(HIDDEN)
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if shows_private() {
            self.0.fmt(f)
        } else {
            f.write_str(HIDDEN)
        }
    }
}

const HIDDEN: &str = "‹hidden›";

fn shows_private() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_private_value_is_hidden_at_info_and_shown_at_debug() {
        let written = |level: LevelFilter| {
            let sink = Sink::default();
            let writer = sink.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(level)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::callsite::rebuild_interest_cache();
                tracing::info!(peer = %Private("anna"), at = ?Private("203.0.113.9"), "Peer is direct");
            });
            String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
        };
        let info = written(LevelFilter::INFO);
        assert!(
            info.contains("Peer is direct")
                && !info.contains("anna")
                && !info.contains("203.0.113.9"),
            "{info}"
        );
        let debug = written(LevelFilter::DEBUG);
        assert!(
            debug.contains("anna") && debug.contains("203.0.113.9"),
            "{debug}"
        );
    }
}
