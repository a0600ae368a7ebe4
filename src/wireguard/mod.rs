//! WireGuard sessions by boringtun; one file names it. The simulator has a double.
//!
//! Knows the protocol's messages and its timers. Refuses to know addresses, queues and who a peer is.

pub mod session;
