//! Logs and the counters behind `status --json`.
