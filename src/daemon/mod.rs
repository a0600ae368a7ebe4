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
mod dht;
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
mod lan;
mod mesh_socket;
mod network;
mod notify;
mod ownership;
mod persist;
mod port_mapping;
mod reasons;
mod records_log;
mod reload;
mod resolver_tcp;
mod router;
mod rows;
mod sealing;
mod sleep;
mod slot_file;
mod splice;
mod starting;
mod state_dir;
mod streaming;
mod streams;
mod supervisor;
mod surroundings;
mod tasks;
mod traffic;
mod transporting;
mod veil;
mod view;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::runtime::Runtime;

use self::{agent::Agent, control::Control, event_loop::EventLoop, host_names::HostNames};
pub use self::{
    defining::judge,
    state_dir::{OpenStateDirError, StateDir},
};
use crate::{
    config::{Config, Source},
    platform::{credentials, service_manager},
};

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

/// How long an agent that cannot start stays before it ends, where a service manager would start it again at once: most of
/// what is in its way (a busy port, another agent) does not go in a moment, and its sentence is to be read meanwhile.
const BEFORE_ANOTHER_TRY: Duration = Duration::from_secs(5);

/// Runs the agent until TERM or INT, and stops it cleanly.
///
/// # Errors
/// It cannot start, or cannot go on; the text is one line that says what to do.
pub fn run(options: Options) -> anyhow::Result<()> {
    match Running::start(options) {
        Ok(running) => running.go_on(),
        Err(error) => {
            if service_manager::is_present() {
                notify::cannot_start(&format!("{error:#}"), BEFORE_ANOTHER_TRY);
                // TERM ends it at once: nobody catches it now.
                std::thread::sleep(BEFORE_ANOTHER_TRY);
            }
            Err(error)
        }
    }
}

/// An agent that has started.
struct Running {
    runtime: Runtime,
    event_loop: EventLoop,
}

impl Running {
    fn start(options: Options) -> anyhow::Result<Self> {
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
        runtime.spawn_blocking(crate::transport::kem::seed_generator);
        // What it is made of begins tasks and timers.
        let inside = runtime.enter();
        let event_loop = prepare(options, state_dir)?;
        drop(inside);
        Ok(Self {
            runtime,
            event_loop,
        })
    }

    fn go_on(self) -> anyhow::Result<()> {
        let outcome = self.runtime.block_on(async {
            let (names, outcome) = self.event_loop.run().await;
            if let Some(names) = names {
                names.end().await;
            }
            outcome
        });
        // A look-up of names that hangs in the host's resolver must not hold the process.
        self.runtime.shutdown_background();
        outcome
    }
}

fn prepare(options: Options, state_dir: StateDir) -> anyhow::Result<EventLoop> {
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
    if !credentials::may_configure_networks() {
        tracing::warn!(
            "No network can be brought up here: run the agent as root or give it CAP_NET_ADMIN"
        );
    }
    Ok(event_loop)
}
