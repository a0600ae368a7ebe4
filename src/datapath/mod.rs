//! The hot loop: threads that own the TUN queue, the UDP sockets and the WireGuard sessions of their shard.
//!
//! Knows packets, sessions and [`crate::tables`]. Refuses to know records, names and who is believed: it carries out
//! [`command::Command`]s, tells [`command::Event`]s, and counts what it drops. No lock, no allocation and no await of
//! ours per packet.
//!
//! The way out: [`thread`] reads the TUN → `outbound` judges the source → `turnaround` says where it goes → a long packet is
//! cut, and `sending` seals each segment where it stands, or `queue` keeps it → `departing` sends trains of datagrams; what
//! comes while the own uplink takes no more waits in `uplink` before it is judged. The way in: [`thread`] reads trains from
//! the sockets → `arriving` takes one in → `inbound` says what a datagram is, of those that begin alike (`train`) at once →
//! `handshakes` says whether it may cost anything → `unsealing` opens it where it stands, or the session beside, from where it is
//! put back → `turnaround` judges what was inside → `writing` joins what continues each other.
//!
//! One thread has the sessions. Where there are more, each has a queue of the device and sockets of its own: a `lane` seals
//! and opens what needs no more than keys, and hands the rest to the first, which says by `lanes` what they may do; `crew`
//! carries their words.
//!
//! Sealing and opening is WireGuard's until both ends of a pair have the keys of a transport: `transports` carries out what
//! their exchange wants, and from then on user packets go by it.

mod arriving;
mod batch;
mod codel;
pub mod command;
mod commands;
mod crew;
mod departing;
mod door;
pub mod drops;
mod fair_queue;
mod handle;
mod handshakes;
mod inbound;
mod jumps;
mod lane;
mod lanes;
mod long;
mod meter;
pub mod offloads;
mod openings;
mod outbound;
mod outbox;
mod pulse;
mod questions;
mod queue;
mod relayed;
mod room;
mod sending;
mod sessions;
mod shard;
pub mod streams;
#[cfg(test)]
mod tests;
mod thread;
mod train;
mod transports;
mod turnaround;
mod unsealing;
mod uplink;
mod watch;
mod writing;

pub use handle::{Handle, Parts, Teller, start};
