//! Logs: where they go, how they look, and what stays out of them.
//!
//! To stderr, one line each, which journald and a terminal both take: without times under journald (it has its own), with
//! colour on a terminal alone. `WEBMESH_LOG` says from which level on, by itself or for a room: `debug`, `webmesh::paths=debug`, or
//! several with commas between them; the default is `info`. Spans and fields are not filtered: what can takes a third of a
//! megabyte of memory.
//!
//! The last lines are kept in memory too ([`last_lines`]), for `webmesh debug bundle`.
//!
//! Names and ids of peers, and addresses by which anybody finds a machine, go through [`Private`] from INFO up; `tests/tidy.rs`
//! looks for it. Keys never go anywhere.

mod ring;

use std::{fmt, io::IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt as lines, fmt::time::SystemTime, layer::SubscriberExt as _,
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
    let wish = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let filter = filter(&wish);
    let is_understood = filter.is_some();
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let filter = filter.with_target("boringtun", LevelFilter::OFF);
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
    } else if !is_understood {
        tracing::warn!(
            "{FILTER_VARIABLE} is not understood, and info is taken: it is a level or ROOM=LEVEL, several with commas between them"
        );
    }
}

/// What somebody wishes to see; `info` where that says nothing of it.
fn filter(wish: &str) -> Option<Targets> {
    let filter: Targets = match wish.trim() {
        "" => Targets::new(),
        wish => wish.parse().ok()?,
    };
    Some(match filter.default_level() {
        Some(_) => filter,
        None => filter.with_default(LevelFilter::INFO),
    })
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
    fn a_filter_is_a_level_or_a_level_for_a_room_and_info_for_the_rest() {
        let shows = |wish, room: &str, level| filter(wish).unwrap().would_enable(room, &level);
        use tracing::Level;
        for wish in ["", "info", "webmesh::paths=info"] {
            assert!(shows(wish, "webmesh::dns", Level::INFO), "{wish}");
            assert!(!shows(wish, "webmesh::dns", Level::DEBUG), "{wish}");
        }
        assert!(shows("debug", "webmesh::dns", Level::DEBUG));
        let rooms = "webmesh::paths=debug,webmesh::node=trace";
        assert!(shows(rooms, "webmesh::paths::proof", Level::DEBUG));
        assert!(shows(rooms, "webmesh::node", Level::TRACE));
        assert!(!shows(rooms, "webmesh::dns", Level::DEBUG));
        assert!(filter("webmesh::paths=loud").is_none());
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
