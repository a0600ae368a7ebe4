//! With whom this peer gossips: links wanted, dialled, kept and given up (design §8).
//!
//! Knows who is linked and how often a dial failed. Refuses to know addresses and records.
