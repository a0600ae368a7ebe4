//! `webmesh demo`: three machines and two home routers in namespaces of this process, and steps that a visitor could
//! have typed himself.
//!
//! Knows how such a world is built, and drives agents by the command line alone. Refuses to know how an agent works.
//!
//! | file | |
//! |---|---|
//! | `steps` | what is shown and what must hold |
//! | `stage` | how it is printed |
//! | `agent` | one machine's agent and command line |
//! | `lab` | machines, routers, cables; the namespace tests build theirs with it |
//! | `world` | the processes that hold the namespaces, driven by `order`s |
//! | `capture`, `snapshot` | what was seen on a wire, what a host looks like |
//! | `speed` | how fast one machine sends to another |
//! | `stand_in` | plain sockets where `curl`, `python3` or `iperf3` are missing |
//! | `kept` | `--keep`, `demo shell`, `demo stop` |
#![expect(
    clippy::disallowed_methods,
    reason = "a demo waits for real time and starts real programs"
)]

pub mod agent;
pub mod capture;
mod kept;
pub mod lab;
pub mod order;
pub mod snapshot;
mod speed;
mod stage;
mod stand_in;
mod steps;
mod world;

use std::{io, path::Path, process::ExitCode, time::Duration};

use lab::{Lab, LabError};
use stage::{Broken, Stage};
use steps::complain;

use crate::platform::credentials;

/// The name of the directory, below the user's runtime directory, in which demos keep their files.
const DIRECTORY: &str = "webmesh-demo";

/// What `webmesh demo` was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct DemoOptions {
    /// How many machines; None: the three of the transcript.
    pub peers: Option<u32>,
    /// Whether the machines stay until Ctrl-C or `webmesh demo stop`.
    pub keep: bool,
}

/// Plays the demo. Exit 0: all steps held; 1: one did not; 2: it could not be played.
///
/// To be called before this process has made a thread or a tokio runtime.
pub fn run(options: DemoOptions) -> ExitCode {
    if options.peers.is_some_and(|peers| peers != PEERS) {
        complain(&format!(
            "demo has {PEERS} machines for now: leave --peers out"
        ));
        return ExitCode::from(2);
    }
    let stage = Stage::default();
    let lab = match build() {
        Ok(lab) => lab,
        Err(LabError::Forbidden(why)) => {
            complain(&format!("{why}: sudo webmesh demo"));
            return ExitCode::from(2);
        }
        Err(error) => {
            complain(&format!("demo cannot be played: {error}"));
            return ExitCode::from(2);
        }
    };
    stage.say(&steps::picture(credentials::own_uid() == 0));
    match play(&lab, stage, options.keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

/// Becomes a shell in a machine of a kept demo.
pub fn shell(peer: &str) -> ExitCode {
    let found = match kept::find() {
        Ok(Some(found)) => found,
        Ok(None) => return not_kept(),
        Err(error) => return could_not("look for a demo", &error),
    };
    if !found.has(peer) {
        complain(&format!(
            "the demo has no machine {peer}: it has {}",
            found.names().join(", ")
        ));
        return ExitCode::from(1);
    }
    could_not(&format!("enter {peer}"), &found.enter(peer))
}

/// Ends a kept demo and waits until nothing of it is left.
pub fn stop() -> ExitCode {
    match kept::find() {
        Ok(Some(found)) => match found.stop() {
            Ok(()) => {
                Stage::default().say("The demo is over; nothing of it is left.");
                ExitCode::SUCCESS
            }
            Err(error) => could_not("stop the demo", &error),
        },
        Ok(None) => not_kept(),
        Err(error) => could_not("look for a demo", &error),
    }
}

/// Runs one of the processes that hold a lab up or stand in for a program; `words` is what follows `webmesh demo
/// hold`. No person types this.
///
/// To be called before this process has made a thread.
pub fn hold(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["world", directory] => return world::run(directory.as_ref()),
        ["machine", user, order] => {
            return match (world::user_from_word(user), serde_json::from_str(order)) {
                (Some(user), Ok(order)) => world::hold_machine(user, &order),
                _ => ExitCode::from(2),
            };
        }
        ["capture", link, file] => capture::run(link, file.as_ref()),
        ["snapshot"] => snapshot::Snapshot::take().and_then(|taken| {
            serde_json::to_writer(io::stdout(), &taken)?;
            Ok(())
        }),
        ["serve", address, directory] => stand_in::serve(address, Path::new(directory)),
        ["fetch", url, file, rate] => {
            let rate = rate.parse().map_err(io::Error::other);
            rate.and_then(|rate| stand_in::fetch(url, Path::new(file), rate))
        }
        ["sink", port] => port
            .parse()
            .map_err(io::Error::other)
            .and_then(stand_in::sink),
        ["pour", host, port, seconds] => {
            let numbers = port.parse().and_then(|port| Ok((port, seconds.parse()?)));
            let numbers = numbers.map_err(|error: std::num::ParseIntError| io::Error::other(error));
            numbers.and_then(|(port, seconds)| {
                stand_in::pour(host, port, Duration::from_secs(seconds))
            })
        }
        ["await-port", port] => port
            .parse()
            .map_err(io::Error::other)
            .and_then(stand_in::await_port),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => could_not(words.first().unwrap_or(&"hold nothing"), &error),
    }
}

/// How many machines the transcript has.
const PEERS: u32 = 3;

fn build() -> Result<Lab, LabError> {
    let program = std::env::current_exe()?;
    let directory = kept::directory()?.join(std::process::id().to_string());
    Lab::build(&program, &directory)
}

fn play(lab: &Lab, stage: Stage, keep: bool) -> Result<(), Broken> {
    let mut play = steps::Play::prepare(lab, stage)?;
    let held = match play.run() {
        Ok(held) => held,
        Err(error) => {
            complain(&play.logs());
            return Err(error);
        }
    };
    let say = |text: &str| Stage::default().say(text);
    if !keep {
        say(&format!(
            "All {held} held. Look around: webmesh demo --keep, then  webmesh demo shell bo"
        ));
        return Ok(());
    }
    kept::keep(lab)?;
    say(&format!(
        "All {held} held. Look around in another terminal: webmesh demo shell bo      End it: Ctrl-C, or webmesh demo stop"
    ));
    loop {
        // A signal ends this process; the world then clears up.
        nix::unistd::pause();
    }
}

fn not_kept() -> ExitCode {
    complain("no demo of yours runs: webmesh demo --keep");
    ExitCode::from(1)
}

fn could_not(what: &str, error: &io::Error) -> ExitCode {
    complain(&format!("cannot {what}: {error}"));
    ExitCode::from(2)
}
