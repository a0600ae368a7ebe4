//! Places at which a test may kill the agent: `WEBMESH_FAILPOINT=<name>` aborts the process when it gets there.
//!
//! Debug builds only; a release build has no such places.

/// Aborts the process if the environment names this place.
#[cfg(debug_assertions)]
pub(super) fn reach(place: &str) {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("WEBMESH_FAILPOINT").ok());
    if wanted.as_deref() == Some(place) {
        std::process::abort();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub(super) fn reach(_place: &str) {}
