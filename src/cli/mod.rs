//! What a person types and sees.
//!
//! Every verb but `daemon` and `demo` is a client of the agent: arguments become one request ([`crate::api`]), the reply
//! becomes text ([`render`], [`status`]) or, with `--json`, passes through. stdout is the answer, stderr is talk. Exit 0
//! done, 1 no, 2 could not. An error is one line: what could not be done, and what to do next. A reader of stdout that
//! went away is success; an answer that cannot be written is not.
//!
//! Knows words and columns, and checks a token's text before anybody is asked. Refuses to know what is allowed: the agent
//! judges, this room only completes the remedy with what was typed.

#![expect(
    clippy::disallowed_methods,
    reason = "a client asks for the time to say how long ago and until when"
)]

mod absent;
pub mod args;
pub mod client;
mod complaint;
mod conversation;
mod debugging;
mod looking;
mod man;
mod membership;
pub mod names;
pub mod netcheck;
mod publishing;
pub mod render;
pub mod screen;
pub mod start;
pub mod start_hint;
pub mod status;
mod table;
pub mod why;

use std::{path::Path, process::ExitCode, time::SystemTime};

use clap::{CommandFactory, Parser};

pub use complaint::complaint;
use complaint::meaningless;
use screen::{Screen, Unwritten};
use start_hint::Program;

use crate::api::{ApiError, Code};

/// Whose members may change what is theirs without root (design §4).
const GROUP: &str = "webmesh";

/// Reads this process's arguments.
///
/// # Errors
/// Help or version were asked for, or what was typed cannot be meant: it is said already, and this is the exit code.
pub fn parse() -> Result<args::Cli, ExitCode> {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let is_json = typed.iter().any(|word| word == "--json");
    let cli = args::Cli::try_parse().map_err(|error| match complaint(&error, &typed) {
        None => written(error.print().map_err(Unwritten::from)),
        Some(complaint) => refuse(&complaint, is_json && error.use_stderr()),
    })?;
    match meaningless(&cli) {
        None => Ok(cli),
        Some(complaint) => Err(complain(&complaint)),
    }
}

/// Says an error, with `--json` as the answer too.
fn refuse(error: &ApiError, is_json: bool) -> ExitCode {
    if is_json {
        let json = serde_json::to_string(error).expect("an error is text and numbers");
        let answer = Screen::of_this_process().document(&json);
        if matches!(answer, Err(Unwritten::ReaderGone)) {
            return ExitCode::from(error.exit);
        }
    }
    complain(error)
}

/// Prints `webmesh: <message>: <remedy>` on stderr; the error's exit code.
pub fn complain(error: &ApiError) -> ExitCode {
    Screen::of_this_process().talk(&format!("webmesh: {}\n", error.line()));
    ExitCode::from(error.exit)
}

/// The exit code of a verb that is done when its answer is written.
pub fn written(answer: Result<(), Unwritten>) -> ExitCode {
    match answer {
        Ok(()) | Err(Unwritten::ReaderGone) => ExitCode::SUCCESS,
        Err(Unwritten::Lost(error)) => complain(&screen::lost(&error)),
    }
}

/// Carries out a verb that asks the agent; for all but `daemon` and `demo`.
pub fn run(cli: args::Cli) -> ExitCode {
    if let args::Verb::Completion(completion) = &cli.verb {
        return complete(completion.shell);
    }
    if let args::Verb::Man(manual) = &cli.verb {
        return write_manual(&manual.folder);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return complain(&ApiError::could_not(
                Code::Internal,
                format!("cannot start: {error}"),
            ));
        }
    };
    let is_json = cli.common.json;
    let screen = Screen::of_this_process();
    match runtime.block_on(conversation::hold(&cli, &screen)) {
        Ok(exit) => ExitCode::from(exit),
        Err(conversation::End::ReaderGone) => ExitCode::SUCCESS,
        Err(conversation::End::Refused(error)) => {
            let error = as_typed(*error, &cli.verb, &Program::of_this_process());
            refuse(&error, is_json)
        }
    }
}

fn complete(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut args::shown(&args::Cli::command()),
        "webmesh",
        &mut script,
    );
    let script = String::from_utf8_lossy(&script);
    written(Screen::of_this_process().document(script.trim_end()))
}

fn write_manual(folder: &Path) -> ExitCode {
    match man::write(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&ApiError::could_not(
            Code::Internal,
            format!("cannot write the manual to {}: {error}", folder.display()),
        )),
    }
}

/// An error of rights names the very command that was typed, with sudo before it; a token or a recovery code is not said
/// again, stdin takes it as well.
fn as_typed(error: ApiError, verb: &args::Verb, program: &Program) -> ApiError {
    let secret = secret_of(verb);
    let typed: Vec<String> = std::env::args()
        .skip(1)
        .map(|word| {
            if Some(&word) == secret {
                "-".to_owned()
            } else {
                quoted(&word)
            }
        })
        .collect();
    let mut words = vec!["sudo".to_owned()];
    // sudo hands no variables on.
    if let Some(socket) = std::env::var("WEBMESH_SOCKET")
        .ok()
        .filter(|at| !at.is_empty())
    {
        words.push(format!("WEBMESH_SOCKET={}", quoted(&socket)));
    }
    words.push(program.name().to_owned());
    words.extend(typed);
    let again = words.join(" ");
    if error.code == Code::NeedsRoot {
        return error.remedy(again);
    }
    if error.code == Code::NeedsGroup {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid())
            .ok()
            .flatten();
        let user = user.map_or_else(|| "$USER".to_owned(), |user| user.name);
        // The packages make the group; without them there may be none.
        let has_group = nix::unistd::Group::from_name(GROUP).is_ok_and(|group| group.is_some());
        return error.remedy(match has_group {
            true => format!("{again}   (once, for no sudo: sudo usermod -aG {GROUP} {user})"),
            false => again,
        });
    }
    error
}

/// What was typed and must not be repeated.
fn secret_of(verb: &args::Verb) -> Option<&String> {
    match verb {
        args::Verb::Join(join) => Some(&join.token),
        args::Verb::Recover(recover) => Some(&recover.code),
        args::Verb::Daemon(_)
        | args::Verb::Demo(_)
        | args::Verb::Init(_)
        | args::Verb::Invite(_)
        | args::Verb::Leave(_)
        | args::Verb::Up
        | args::Verb::Down
        | args::Verb::Status(_)
        | args::Verb::Peers(_)
        | args::Verb::Wait(_)
        | args::Verb::Ping(_)
        | args::Verb::Why(_)
        | args::Verb::Whois(_)
        | args::Verb::Netcheck
        | args::Verb::Dns(_)
        | args::Verb::DnsHelper { .. }
        | args::Verb::Service(_)
        | args::Verb::Policy(_)
        | args::Verb::Debug(_)
        | args::Verb::Completion(_)
        | args::Verb::Man(_) => None,
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The wall clock, unix s.
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_into_them() {
        assert_eq!(quoted("127.0.0.1:8080"), "127.0.0.1:8080");
        assert_eq!(quoted("db,web-*"), "'db,web-*'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
