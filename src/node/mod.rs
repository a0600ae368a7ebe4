//! One peer: the cores joined, one file per story.
//!
//! Takes decoded, authenticated messages and commands, never a data packet; says what to do as [`output::Output`]s,
//! carried out by the shell in their order. No clock, no socket, no await, no ambient randomness: the same seed and
//! the same inputs give the same outputs, which is what `tests/sim` stands on.

pub mod input;
pub mod kept;
pub mod output;
