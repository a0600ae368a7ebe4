//! IP, TCP, UDP and ICMP bytes: views, checksums, address and port rewriting, super-packets split and
//! joined, ICMP errors, SYN and RST.
//!
//! Knows RFC 791, 8200, 768, 9293, 792, 4443 and the rules for errors of RFC 1812 and 4443. Refuses to know peers,
//! routes and what a packet is for. Every function takes hostile bytes and none panics on them.

pub mod checksum;
pub mod ecn;
pub mod icmp;
pub mod ip;
pub mod join;
pub mod split;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod turn;
pub mod udp;
pub mod vnet;
mod write;
