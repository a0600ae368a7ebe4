//! The manual, made of what may be typed ([`super::args`]): one page per verb, and webmesh(1), which also says what no
//! single verb says: examples, files, variables, exit codes.
//!
//! The package's build asks for it by `webmesh man FOLDER`; nobody types that.

use std::{io, path::Path};

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};
use jiff::Timestamp;

use super::args::Cli;
use crate::{
    api::DEFAULT_SOCKET,
    config::{DEFAULT_FILE, DEFAULT_STATE_DIR},
};

/// What webmesh(1) says under DESCRIPTION, a paragraph each.
const DESCRIPTION: &[&str] = &[
    "Webmesh joins machines anywhere into one private network and gives their programs names for each other. There is no \
     server: each machine runs one agent (the verb daemon; the package starts it as webmesh.service), and all other \
     verbs talk to the agent of this machine over its socket.",
    "Every local user may look. Changing takes root, or, for services and up and down, membership in the group webmesh. \
     What changes the network itself (init, join, leave, invite, recover) takes root.",
    "stdout is the answer, stderr is talk: $(webmesh invite) is the token alone. With --json the answer is one JSON \
     document. Options stand before or after the verb.",
];

/// What is typed, and what it does.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "sudo webmesh init home",
        "Make the network home. Write down the recovery code that it prints.",
    ),
    (
        "sudo webmesh invite",
        "Print a token by which one machine may join within the hour.",
    ),
    (
        "ssh root@vps webmesh invite | sudo webmesh join -",
        "Join by a token from another machine; it stands in no history and in no list of processes.",
    ),
    (
        "sudo webmesh service add web --port 80 --target 127.0.0.1:8080",
        "Let the network reach a program of this machine as web.svc.home.internal, port 80.",
    ),
    (
        "webmesh status",
        "See the peers, the services and what is wrong.",
    ),
];

/// Files, and what is in them.
const FILES: &[(&str, &str)] = &[
    (
        DEFAULT_FILE,
        "The agent's configuration. All of it is optional; the packaged file shows every key with its default.",
    ),
    (
        "/etc/webmesh/services.d/*.toml",
        "Services that the owner of this machine defines, with the words of webmesh service add; targets on other machines \
         may stand there too. Root alone may write them. example.toml shows how.",
    ),
    (
        "/etc/webmesh/domains",
        "Domains other than NETWORK.internal of which root said that the agent may have their names.",
    ),
    (
        "/etc/webmesh/takeover",
        "Is there while root wants webmesh dns takeover to hold, also over restarts; webmesh dns takeover --undo removes it.",
    ),
    (
        "/run/webmesh-dns/report.json",
        "What root's helper (webmesh-dns.service) last did for the names, and why; webmesh dns status shows it.",
    ),
    (
        "/usr/share/doc/webmesh/config.toml",
        "The configuration as it was packaged.",
    ),
    (
        "/etc/resolv.conf.before-webmesh",
        "What stood in /etc/resolv.conf before webmesh dns takeover, while that holds. With .old behind it: the same, laid \
         aside because somebody else wrote the file meanwhile.",
    ),
    (
        DEFAULT_STATE_DIR,
        "The keys and records of this machine's network, for the agent alone. Removing the package keeps it, purging \
         removes it.",
    ),
    (
        DEFAULT_SOCKET,
        "The agent's socket. The agent asks the kernel who is at its other end.",
    ),
];

/// Variables, and what they do.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "WEBMESH_SOCKET",
        "The agent's socket, as --socket names it.",
    ),
    (
        "WEBMESH_LOG",
        "What the agent logs: error, warn, info (the default), debug or trace; for one room alone, webmesh::paths=debug.",
    ),
];

/// Exit codes, and what they mean.
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    (
        "1",
        "The answer is no: there is no such peer, or it cannot be reached.",
    ),
    (
        "2",
        "It could not be done: what was typed cannot be meant, or no agent runs; of webmesh daemon: it cannot start, or cannot \
         go on.",
    ),
    (
        "78",
        "Of webmesh daemon: its configuration cannot be used. webmesh.service is not started again by itself then.",
    ),
];

/// Writes all pages into a folder; it is made if it is not there.
///
/// # Errors
/// The folder cannot be made or written.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut webmesh = Cli::command()
        .disable_help_subcommand(true)
        .subcommand_value_name("command")
        .subcommand_help_heading("COMMANDS");
    webmesh.build();
    write_page(folder, &webmesh)
}

/// The page of a command, and those of the commands below it.
fn write_page(folder: &Path, command: &clap::Command) -> io::Result<()> {
    let page = Man::new(command.clone())
        .date(built_on())
        .source(concat!("webmesh ", env!("CARGO_PKG_VERSION")))
        .manual("Webmesh");
    let is_whole = command.get_name() == "webmesh";
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    if is_whole {
        description().to_writer(&mut text)?;
    } else {
        page.render_description_section(&mut text)?;
    }
    page.render_options_section(&mut text)?;
    if shown(command).next().is_some() {
        page.render_subcommands_section(&mut text)?;
    }
    let rest = if is_whole { closing() } else { see_webmesh() };
    rest.to_writer(&mut text)?;
    std::fs::write(folder.join(page.get_filename()), text)?;
    shown(command).try_for_each(|below| write_page(folder, below))
}

fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
}

/// What may be typed, with the names of the values, which clap_mangen leaves out.
fn synopsis(command: &clap::Command) -> Roff {
    let mut words = vec![bold(command.get_bin_name().unwrap_or(command.get_name()))];
    let arguments = || command.get_arguments().filter(|one| !one.is_hide_set());
    for option in arguments().filter(|one| !one.is_positional()) {
        let name = match (option.get_long(), option.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => continue,
        };
        let (open, close) = brackets(option, "", "");
        words.extend([roman(format!(" {open}")), bold(name)]);
        if option.get_action().takes_values() {
            words.extend([roman(" "), italic(value(option))]);
        }
        let many = if is_repeated(option) { "…" } else { "" };
        words.push(roman(format!("{close}{many}")));
    }
    for positional in arguments().filter(|one| one.is_positional()) {
        let (open, close) = brackets(positional, "<", ">");
        words.push(roman(format!(" {open}")));
        words.extend([italic(value(positional)), roman(close)]);
    }
    if shown(command).next().is_some() {
        let name = command.get_subcommand_value_name().unwrap_or("command");
        let (open, close) = if command.is_subcommand_required_set() {
            ("<", ">")
        } else {
            ("[", "]")
        };
        words.push(roman(format!(" {open}")));
        words.extend([italic(name), roman(close)]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(words);
    roff
}

/// What stands around a word that must be there, and around one that may.
fn brackets<'a>(argument: &clap::Arg, open: &'a str, close: &'a str) -> (&'a str, &'a str) {
    if argument.is_required_set() {
        (open, close)
    } else {
        ("[", "]")
    }
}

fn value(argument: &clap::Arg) -> String {
    match argument.get_value_names() {
        Some(names) => names.join(" "),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

fn is_repeated(argument: &clap::Arg) -> bool {
    matches!(argument.get_action(), clap::ArgAction::Append)
}

fn description() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    roff
}

/// What stands at the end of webmesh(1).
fn closing() -> Roff {
    let mut roff = Roff::new();
    let sections = [
        ("EXAMPLES", EXAMPLES),
        ("FILES", FILES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("EXIT STATUS", EXIT_STATUS),
    ];
    for (title, entries) in sections {
        roff.control("SH", [title]);
        for (what, meaning) in entries {
            roff.control("TP", []);
            roff.text([if title == "FILES" {
                italic(*what)
            } else {
                bold(*what)
            }]);
            roff.text([roman(*meaning)]);
        }
    }
    roff
}

/// What stands at the end of every other page.
fn see_webmesh() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("webmesh"),
        roman("(1): examples, files, exit status and the other commands"),
    ]);
    roff
}

/// The day of the build: the same build gives the same page.
fn built_on() -> String {
    let built_s = env!("WEBMESH_BUILT_S").parse().unwrap_or(0);
    let built = Timestamp::from_second(built_s).unwrap_or(Timestamp::UNIX_EPOCH);
    built.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_is_shown_has_a_page_and_no_other_has_one() {
        let folder = std::env::temp_dir().join(format!("webmesh-man-{}", std::process::id()));
        write(&folder).unwrap();
        let has = |page: &str| folder.join(page).is_file();
        let present = ["webmesh.1", "webmesh-init.1", "webmesh-service-add.1"].map(has);
        let hidden = ["webmesh-man.1", "webmesh-demo-hold.1", "webmesh-help.1"].map(has);
        let whole = std::fs::read_to_string(folder.join("webmesh.1")).unwrap();
        let add = std::fs::read_to_string(folder.join("webmesh-service-add.1")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(present, [true; 3]);
        assert_eq!(hidden, [false; 3]);
        for section in ["EXAMPLES", "FILES", "ENVIRONMENT", "EXIT STATUS"] {
            assert!(whole.contains(section), "{section} is missing:\n{whole}");
        }
        assert!(!whole.contains("webmesh\\-man"), "{whole}");
        for file in [
            "services.d",
            "before\\-webmesh",
            "webmesh/takeover",
            "webmesh\\-dns/report.json",
            "\n\\fB78\\fR\n",
        ] {
            assert!(whole.contains(file), "{file} is missing:\n{whole}");
        }
        let line = add
            .lines()
            .skip_while(|line| !line.contains("SYNOPSIS"))
            .nth(1);
        let bare: String = line.unwrap().replace("\\fB", "").replace("\\fI", "");
        let bare = bare.replace("\\fR", "").replace("\\-", "-");
        for part in [
            "webmesh service add ",
            " --port P",
            " [--weight W]",
            " [--tag T]…",
            " <NAME>",
        ] {
            assert!(bare.contains(part), "{part} is missing: {bare}");
        }
    }
}
