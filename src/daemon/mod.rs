//! The agent: one loop that owns the node, carries out its outputs, and answers the API.
//!
//! Knows everything that touches the world: the state directory, sealing, the data thread, splices, the API's socket,
//! signals. Refuses to decide: what is believed, dialled and published is [`crate::node`]'s.
//!
//! The loop is `event_loop`; what it owns is `agent`; a network that is up is `network`, made by `starting`, come into
//! by `joining`. `control` has one file per verb: looking reads the published look (`view`), changing is a function
//! that the loop runs (`calls`).

#![expect(
    clippy::disallowed_methods,
    reason = "the agent is where time, tasks and sockets enter"
)]

mod agent;
mod bundle;
mod calls;
mod control;
mod data_plane;
mod defining;
mod door;
mod ending;
mod event_loop;
mod failpoint;
mod forwarder;
mod guarding;
mod health;
mod host_names;
mod ipv4_watch;
mod joining;
mod kept_file;
mod mesh_socket;
mod network;
mod notify;
mod persist;
mod records_log;
mod reload;
mod resolver_tcp;
mod rows;
mod sealing;
mod slot_file;
mod splice;
mod starting;
mod state_dir;
mod supervisor;
mod tasks;
mod traffic;
mod veil;
mod view;

use std::path::PathBuf;

use anyhow::Context as _;

pub use self::state_dir::{OpenStateDirError, StateDir};
use self::{agent::Agent, control::Control, event_loop::EventLoop, host_names::HostNames};
use crate::config::{Config, Source};

/// What an agent starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The settings.
    pub config: Config,
    /// Where they came from, and come from again at HUP.
    pub source: Source,
    /// Where keys and records are kept.
    pub state_dir: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
}

/// Runs the agent until TERM or INT, and stops it cleanly.
///
/// # Errors
/// It cannot start, or cannot go on; the text is one line that says what to do.
pub fn run(options: Options) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::time::SystemTime::now() >= std::time::UNIX_EPOCH,
        "this machine's clock stands before 1970: set it, then start the agent again"
    );
    if let Err(error) = crate::platform::limits::keep_memory_private() {
        tracing::warn!(%error, "A crash may leave keys in a core file");
    }
    let state_dir = StateDir::open(&options.state_dir)?;
    if let Err(error) = crate::platform::limits::raise_descriptors() {
        tracing::warn!(%error, "Few descriptors may be open; full splices will turn clients away");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let outcome = runtime.block_on(serve(options, state_dir));
    // A look-up of names that hangs in the host's resolver must not hold the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(options: Options, state_dir: StateDir) -> anyhow::Result<()> {
    let (caller, calls) = calls::channel();
    let mut agent = Agent::new(
        options.config,
        options.source,
        state_dir,
        HostNames::beside(&options.socket),
    );
    let control = Control {
        caller,
        look: agent.published(),
        settings: agent.reloading.settings(),
    };
    agent.resume()?;
    agent.publish();
    let server = control::serve(&options.socket, control)?;
    let event_loop = EventLoop::new(agent, calls, server)?;
    notify::ready();
    tracing::info!(socket = %options.socket.display(), "Agent runs");
    if let Some(host_names) = event_loop.run().await? {
        host_names.end().await;
    }
    Ok(())
}
