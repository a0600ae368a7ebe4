//! Places at which a test may break the agent: `WEBMESH_FAILPOINT=<name>` aborts the process when it gets there, or
//! has it do what the place is about.
//!
//! Debug builds only; a release build has no such places.

/// Aborts the process if the environment names this place.
#[cfg(debug_assertions)]
pub(super) fn reach(place: &str) {
    if is_wanted(place) {
        std::process::abort();
    }
}

/// Whether the environment names this place.
#[cfg(debug_assertions)]
pub(super) fn is_wanted(place: &str) -> bool {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("WEBMESH_FAILPOINT").ok());
    wanted.as_deref() == Some(place)
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub(super) fn reach(_place: &str) {}
