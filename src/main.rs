//! The `webmesh` binary: parse, dispatch, exit code.
//!
//! `demo` runs before any thread is made: it changes namespaces, which the kernel allows to one thread alone.

use std::process::ExitCode;

use webmesh::{
    api::{ApiError, Code},
    cli::{
        self,
        args::{Daemon, Demo, DemoVerb, Verb},
        screen::Screen,
        start::Start,
    },
    config,
    daemon::{self, Options},
    demo, telemetry,
};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    if let Verb::Demo(demo) = &cli.verb {
        return play(demo);
    }
    if let Verb::Daemon(daemon) = &cli.verb {
        return match Start::read(daemon, &cli.common) {
            Ok(start) => serve(daemon, start),
            Err(error) if daemon.check_config => cli::complain(&error),
            Err(error) => {
                cli::complain(&error);
                ExitCode::from(config::UNUSABLE)
            }
        };
    }
    cli::run(cli)
}

fn play(demo: &Demo) -> ExitCode {
    match &demo.verb {
        None => demo::run(demo::DemoOptions {
            peers: demo.peers,
            keep: demo.keep,
        }),
        Some(DemoVerb::Shell { peer }) => demo::shell(peer),
        Some(DemoVerb::Stop) => demo::stop(),
        Some(DemoVerb::Hold { words }) => demo::hold(words),
    }
}

fn serve(daemon: &Daemon, start: Start) -> ExitCode {
    if daemon.check_config {
        return match start.verdict(daemon::judge) {
            Ok(verdict) => cli::written(Screen::of_this_process().answer(&verdict)),
            Err(error) => cli::complain(&error),
        };
    }
    let options = Options {
        config: start.config,
        source: start.source,
        state_dir: start.state_dir,
        socket: start.socket,
    };
    telemetry::start();
    match daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::complain(&ApiError::could_not(Code::Internal, format!("{error:#}"))),
    }
}
