//! The contract of the agent's socket: verbs and who may say them, requests, replies, errors (design §4).
//!
//! HTTP/1.1 over a unix socket: `POST /v1/<verb>` with the options as JSON (no body: all defaults), `GET` for the verbs
//! of [`Verb::method`] that need none. 200 carries the reply, everything else an [`ApiError`]. The verbs of
//! [`Verb::answers_in_lines`] answer in JSON lines ([`Line`]).
//!
//! Knows text and numbers only: node ids are 64 hex digits, addresses are text, times are unix seconds, `_s` and `_ms`
//! are spans. Absent is null, never missing. Refuses to know the core's types; the daemon converts at the edge.

mod error;
mod line;
mod naming;
mod nearest;
mod netcheck;
mod port;
mod reply;
mod request;
mod sentence;
mod status;
mod verb;
mod why;
pub mod words;

pub use error::{ApiError, Code};
pub use line::{Line, LineError};
pub use nearest::{is_one_letter_off, nearest};
pub use netcheck::*;
pub use port::PortSpec;
pub use reply::*;
pub use request::*;
pub use sentence::Tried;
pub use status::*;
pub use verb::{Caller, Method, ReadAccess, Rights, Verb};
pub use why::*;

/// The version of this contract; `api` in `status --json`.
pub const VERSION: u32 = 1;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/webmesh/webmesh.sock";

/// The longest request body taken, bytes. The longest request there is (`service add` with many tags) has some hundred;
/// a larger bound only lends memory to local users.
pub const MAX_REQUEST: usize = 16 * 1024;
