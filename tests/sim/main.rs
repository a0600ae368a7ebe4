//! Many peers in one process: the real cores of `node`, virtual time, a modelled network, a double for `wireguard/`.
//!
//! One seed gives one world: every latency, loss and key is drawn from it, and the log of all that happened hashes to
//! the same value every time. A failing test prints its seed; `WEBMESH_SIM_LOG=1` prints the log too.

#![expect(
    clippy::print_stdout,
    reason = "the seed, and the log where it is asked for, are what a failed test shows"
)]

mod joining;
mod machine;
mod meeting;
mod nats;
mod reaching;
mod repeating;
mod tunnel;
mod wires;
mod world;
