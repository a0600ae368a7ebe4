//! What a person sees: the words of transcripts.md and design §1, exit codes, and the shape of `--json`. The real binary
//! asks a fake agent.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

mod answers;
mod errors;
mod fake_agent;
mod netcheck;
mod newcomer;
mod pictures;
mod schema;
mod status;
mod values;
mod why;
