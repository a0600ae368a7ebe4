//! The agent: one loop that owns the node, carries out its outputs, and answers the API.
//!
//! Knows everything that touches the world: the state directory, sealing, the data thread, splices, the API's socket,
//! signals. Refuses to decide: what is believed, dialled and published is [`crate::node`]'s.

#![expect(
    clippy::disallowed_methods,
    reason = "the agent is where time, tasks and sockets enter"
)]

mod failpoint;
mod kept_file;
mod mesh_socket;
mod records_log;
mod resolver_tcp;
mod rows;
mod slot_file;
mod splice;
mod state_dir;
mod tasks;

pub use self::{
    kept_file::Identity,
    state_dir::{OpenStateDirError, StateDir},
};
