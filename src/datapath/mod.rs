//! The hot loop: threads that own the TUN queue, the UDP sockets and the WireGuard sessions of their shard.
//!
//! Knows packets, sessions and [`crate::tables`]. Refuses to know records, names and who is believed: it carries out
//! [`command::Command`]s, tells [`command::Event`]s, and counts what it drops. No lock, no allocation and no await of
//! ours per packet.

pub mod command;
pub mod drops;
