//! What the wire room and the keys promise: every layout byte for byte, and that nothing a stranger sends is taken for
//! something else, panics, or costs memory.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot get its sample has failed"
)]

#[path = "../../src/platform/allocation.rs"]
mod allocation;
mod laws;
mod mutations;
mod samples;
mod vectors;
