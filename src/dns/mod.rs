//! A zone made of the registry; query in, answer out (design §3, §6; RFC 1035, 2308, 6891, 8482).
//!
//! Authoritative for the network's domain and for the reverse names of its two prefixes; everything else is REFUSED, so
//! that nothing but our own names can ever be learned here. A name that exists is never NXDOMAIN, whatever type is asked
//! for (RFC 8020). Until services have addresses of their own, a service's name answers with its live instances.
//!
//! Knows names and addresses. Refuses to know packets, sockets and peers: who is live and what may be offered is decided
//! by who fills [`zone::Facts`]. Nothing a query says can panic, and work and memory are bounded by the answer's limit.

mod answer;
mod ask;
mod forward;
mod question;
pub mod zone;

pub use answer::{LONGEST_QUERY, STREAM, answer};
pub use ask::{AskError, Asked, AskedRecord, ask};
pub use forward::{Forwarded, Reply, ranges};
pub use zone::Zone;

#[cfg(test)]
pub(crate) mod tests;
