//! How packets reach a peer: candidates, the attempts to open a session, the proof of an address by Ping and Pong
//! (protocol §2, §5; design §9).
//!
//! Knows addresses and tries. Refuses to know why somebody is wanted.

pub mod attempt;
pub mod candidates;
pub mod proof;
#[cfg(test)]
mod tests;
