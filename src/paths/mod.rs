//! How packets reach a peer: candidates, the attempts to open a session, and which path its data takes (protocol §2, §5;
//! design §9).
//!
//! Knows addresses and tries. Refuses to know why somebody is wanted.

pub mod allowed;
pub mod attempt;
mod budget;
pub mod candidates;
mod choosing;
pub mod class;
pub mod distress;
pub mod dossier;
pub mod guessing;
pub mod hands;
pub mod history;
pub mod introductions;
pub mod lan;
pub mod listening;
pub mod locating;
pub mod nat;
pub mod outside;
pub mod passing;
mod pings;
mod probing;
pub mod proof;
pub mod seen;
mod session;
pub mod sizes;
mod sizing;
#[cfg(test)]
mod tests;
pub mod view;
mod way;
pub mod why;
