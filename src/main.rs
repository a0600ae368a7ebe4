//! The `webmesh` binary: parse, dispatch, exit code.

use std::process::ExitCode;

use webmesh::cli;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    cli::run(cli)
}
