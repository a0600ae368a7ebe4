//! The hot loop: threads that own the TUN queue, the UDP sockets and the WireGuard sessions of their shard.
//!
//! Knows packets, sessions and [`crate::tables`]. Refuses to know records, names and who is believed: it carries out
//! [`command::Command`]s, tells [`command::Event`]s, and counts what it drops. No lock, no allocation and no await of
//! ours per packet.
//!
//! The way out: [`thread`] reads the TUN → `outbound` judges the source → `turnaround` says where it goes → `sessions`
//! seals, or `queue` keeps it. The way in: [`thread`] reads the sockets → `inbound` says what a datagram is →
//! `handshakes` says whether it may cost anything → the session opens it → `turnaround` judges what was inside.

mod batch;
pub mod command;
mod commands;
mod door;
pub mod drops;
mod handshakes;
mod inbound;
mod meter;
mod outbound;
mod queue;
mod sessions;
mod shard;
#[cfg(test)]
mod tests;
pub mod thread;
mod turnaround;

pub use thread::{Handle, Parts, Teller, start};
