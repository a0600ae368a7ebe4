//! What was typed and cannot be meant, in one line and in our words.

use clap::{
    Command, CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::args::{Cli, Verb};
use crate::api::{ApiError, Code, is_one_letter_off, nearest};

/// Turns what clap says into one line: what is wrong, what was probably meant, what to type to read on. None: clap's text is
/// an answer (`--help`, `--version`), not a complaint. `typed` are the words after the program's name.
pub fn complaint(error: &clap::Error, typed: &[String]) -> Option<ApiError> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let is_version = error.kind() == ErrorKind::DisplayVersion;
        return (is_version && typed.iter().any(|word| word == "--json"))
            .then(|| takes_no("--version", "--json").remedy("webmesh --help"));
    }
    let place = Place::of(typed);
    if error.kind() == ErrorKind::InvalidSubcommand {
        let verb = place.said(&text(error, ContextKind::InvalidSubcommand));
        if UNBUILT.contains(&verb.as_str()) {
            return Some(
                ApiError::could_not(Code::NotBuilt, format!("{verb} is not built yet"))
                    .remedy("webmesh --help lists what is"),
            );
        }
    }
    let message = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            place.no_such_verb(&text(error, ContextKind::InvalidSubcommand))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            place.verb_missing()
        }
        ErrorKind::UnknownArgument => place.unknown(&text(error, ContextKind::InvalidArg)),
        ErrorKind::MissingRequiredArgument => place.missing(&texts(error, ContextKind::InvalidArg)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => place.bad_value(error),
        ErrorKind::ArgumentConflict => {
            let (one, other) = (
                text(error, ContextKind::InvalidArg),
                texts(error, ContextKind::PriorArg).join(", "),
            );
            if one == other {
                format!("{one} stands twice")
            } else {
                format!("{one} and {other} cannot stand together")
            }
        }
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals => {
            format!("{} needs a value", text(error, ContextKind::InvalidArg))
        }
        ErrorKind::TooManyValues => {
            format!(
                "{} has too many values",
                text(error, ContextKind::InvalidArg)
            )
        }
        ErrorKind::InvalidUtf8 => "a word is no text (UTF-8)".to_owned(),
        // clap may come to find other faults: its own first paragraph, in one line.
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::Io
        | ErrorKind::Format
        | _ => first_paragraph(error),
    };
    Some(ApiError::could_not(Code::BadRequest, message).remedy(place.help()))
}

/// Verbs of the design (§4) that are not built.
const UNBUILT: [&str; 10] = [
    "admin",
    "edges",
    "metrics",
    "policy check",
    "policy set",
    "revoke",
    "root",
    "service drain",
    "tap",
    "top",
];

/// Verbs that cannot be undone: a word that is only somewhat like one is not answered with it.
const GRAVE: [&str; 2] = ["leave", "revoke"];

/// An option of every verb that means nothing to this one.
pub(super) fn meaningless(cli: &Cli) -> Option<ApiError> {
    let verb = match &cli.verb {
        Verb::Demo(_) => "demo",
        Verb::Completion(_) => "completion",
        Verb::Daemon(_) => "daemon",
        Verb::Man(_) => "man",
        Verb::Init(_)
        | Verb::Invite(_)
        | Verb::Join(_)
        | Verb::Leave(_)
        | Verb::Up
        | Verb::Down
        | Verb::Status(_)
        | Verb::Peers(_)
        | Verb::Wait(_)
        | Verb::Ping(_)
        | Verb::Why(_)
        | Verb::Whois(_)
        | Verb::Netcheck
        | Verb::Dns(_)
        | Verb::DnsHelper { .. }
        | Verb::Service(_)
        | Verb::Policy(_)
        | Verb::Recover(_)
        | Verb::Debug(_) => return None,
    };
    let option = if cli.common.json {
        "--json"
    } else if cli.common.network.is_some() {
        "--network"
    } else {
        return None;
    };
    Some(takes_no(verb, option).remedy(format!("webmesh {verb} --help")))
}

fn takes_no(what: &str, option: &str) -> ApiError {
    ApiError::could_not(Code::BadRequest, format!("{what} takes no {option}"))
}

/// How far what was typed makes sense: the verbs that were found.
struct Place {
    verbs: Vec<String>,
    command: Command,
}

impl Place {
    fn of(typed: &[String]) -> Self {
        let mut place = Self {
            verbs: Vec::new(),
            command: Cli::command(),
        };
        // What belongs to clap alone (`help`, `--help`) is there only once it has built the command.
        place.command.build();
        for word in typed.iter().filter(|word| *word != "help") {
            let Some(below) = place.command.find_subcommand(word) else {
                continue;
            };
            place.command = below.clone();
            place.verbs.push(word.clone());
        }
        place
    }

    fn no_such_verb(&self, word: &str) -> String {
        let typed = self.said(word);
        let choices = self.choices();
        let meant = choices
            .iter()
            .map(String::as_str)
            .filter(|choice| !GRAVE.contains(choice) || is_one_letter_off(word, choice));
        let hint = match nearest(word, meant) {
            Some(near) => format!(". Did you mean {}?", self.said(near)),
            None => String::new(),
        };
        format!("there is no verb {typed:?}{hint}")
    }

    fn verb_missing(&self) -> String {
        if self.verbs.is_empty() {
            return "a verb is missing".to_owned();
        }
        format!(
            "{} needs a verb: {}",
            self.verbs.join(" "),
            listed(&self.choices())
        )
    }

    fn unknown(&self, argument: &str) -> String {
        if !argument.starts_with('-') {
            return format!("{} takes no {argument:?}", self.name());
        }
        let bare = argument.split('=').next().unwrap_or(argument);
        let refusal = match &self.verbs[..] {
            [] => format!("there is no option {bare}"),
            verbs => format!("{} takes no {bare}", verbs.join(" ")),
        };
        let options: Vec<String> = self
            .command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long())
            .map(|long| format!("--{long}"))
            .collect();
        let hint = match nearest(bare, options.iter().map(String::as_str)) {
            Some(near) => format!(". Did you mean {near}?"),
            None => String::new(),
        };
        format!("{refusal}{hint}")
    }

    fn missing(&self, arguments: &[String]) -> String {
        format!("{} needs {}", self.name(), arguments.join(" and "))
    }

    fn bad_value(&self, error: &clap::Error) -> String {
        let argument = text(error, ContextKind::InvalidArg);
        let value = text(error, ContextKind::InvalidValue);
        if value.is_empty() {
            return format!("{argument} needs a value");
        }
        let why = match std::error::Error::source(error) {
            Some(why) => format!(": {}", in_our_words(&why.to_string())),
            None => match &texts(error, ContextKind::ValidValue)[..] {
                [] => String::new(),
                choices => format!(": it is {}", listed(choices)),
            },
        };
        format!("{argument} cannot be {value:?}{why}")
    }

    fn choices(&self) -> Vec<String> {
        self.command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .filter(|name| name != "help")
            .collect()
    }

    fn said(&self, word: &str) -> String {
        let mut words = self.verbs.clone();
        words.push(word.to_owned());
        words.join(" ")
    }

    fn name(&self) -> String {
        if self.verbs.is_empty() {
            "webmesh".to_owned()
        } else {
            self.verbs.join(" ")
        }
    }

    fn help(&self) -> String {
        let mut words = vec!["webmesh".to_owned()];
        words.extend(self.verbs.iter().cloned());
        words.push("--help".to_owned());
        words.join(" ")
    }
}

/// `a, b or c`.
fn listed(words: &[String]) -> String {
    match words {
        [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
        words => words.concat(),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    texts(error, kind).into_iter().next().unwrap_or_default()
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![bare(text)],
        Some(ContextValue::Strings(texts)) => texts.iter().map(|text| bare(text)).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// What the parsers of numbers say, for people.
fn in_our_words(why: &str) -> String {
    if let Some((_, bounds)) = why.split_once(" is not in ")
        && let Some((least, most)) = bounds.split_once("..=")
    {
        return format!("it is {least} to {most}");
    }
    match why {
        "number too large to fit in target type" => "that is too much".to_owned(),
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "that is no number".to_owned()
        }
        other => other.to_owned(),
    }
}

/// An argument without the brackets in which clap names it.
fn bare(text: &str) -> String {
    text.replace(['<', '>'], "")
}

fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let head = text.split("\n\n").next().unwrap_or_default();
    let words = head.split_whitespace();
    let words: Vec<&str> = words.skip_while(|word| *word == "error:").collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn line(words: &str) -> String {
        let typed: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let all = ["webmesh".to_owned()].into_iter().chain(typed.clone());
        complaint(&Cli::try_parse_from(all).unwrap_err(), &typed)
            .unwrap()
            .line()
    }

    /// What is typed, and what is said.
    const LINES: &[(&str, &str)] = &[
        (
            "statsu",
            "there is no verb \"statsu\". Did you mean status?: webmesh --help",
        ),
        (
            "inti home",
            "there is no verb \"inti\". Did you mean init?: webmesh --help",
        ),
        (
            "service ad web",
            "there is no verb \"service ad\". Did you mean service add?: webmesh service --help",
        ),
        (
            "lave",
            "there is no verb \"lave\". Did you mean leave?: webmesh --help",
        ),
        ("lve", "there is no verb \"lve\": webmesh --help"),
        (
            "servce",
            "there is no verb \"servce\". Did you mean service?: webmesh --help",
        ),
        (
            "revoke bo",
            "revoke is not built yet: webmesh --help lists what is",
        ),
        ("top", "top is not built yet: webmesh --help lists what is"),
        (
            "service drain web",
            "service drain is not built yet: webmesh --help lists what is",
        ),
        (
            "invite --role king",
            "--role ROLE cannot be \"king\": it is member or admin: webmesh invite --help",
        ),
        (
            "frobnicate",
            "there is no verb \"frobnicate\": webmesh --help",
        ),
        (
            "status --jsn",
            "status takes no --jsn. Did you mean --json?: webmesh status --help",
        ),
        (
            "--jsn status",
            "status takes no --jsn. Did you mean --json?: webmesh status --help",
        ),
        (
            "--jsn",
            "there is no option --jsn. Did you mean --json?: webmesh --help",
        ),
        ("up now", "up takes no \"now\": webmesh up --help"),
        ("init", "init needs NETWORK: webmesh init --help"),
        (
            "service add web",
            "service add needs --port P[/udp]: webmesh service add --help",
        ),
        (
            "service add",
            "service add needs --port P[/udp] and NAME: webmesh service add --help",
        ),
        (
            "service",
            "service needs a verb: add, rm, list or show: webmesh service --help",
        ),
        ("", "a verb is missing: webmesh --help"),
        (
            "service add web --port 0",
            "--port P[/udp] cannot be \"0\": a port is 1 to 65535, with /udp behind it for UDP: webmesh service add --help",
        ),
        (
            "ping anna -c",
            "--count N needs a value: webmesh ping --help",
        ),
        (
            "wait --timeout 5x",
            "--timeout TIME cannot be \"5x\": a time is a number with ms, s, m, h or d behind it: webmesh wait --help",
        ),
        (
            "invite --expires 5",
            "--expires TIME cannot be \"5\": a time is a number with ms, s, m, h or d behind it: webmesh invite --help",
        ),
        (
            "status --socket /a --socket /b",
            "--socket PATH stands twice: webmesh status --help",
        ),
        (
            "daemon --port 99999",
            "--port N cannot be \"99999\": port must be 443 or 1024 to 65535: peers write to no other: webmesh daemon --help",
        ),
        (
            "daemon --port 0",
            "--port N cannot be \"0\": port must be 443 or 1024 to 65535: peers write to no other: webmesh daemon --help",
        ),
        (
            "ping -c 0 x",
            "--count N cannot be \"0\": it is 1 to 1000000: webmesh ping --help",
        ),
        (
            "invite --uses x",
            "--uses N cannot be \"x\": that is no number: webmesh invite --help",
        ),
        (
            "completion tcsh",
            "SHELL cannot be \"tcsh\": it is bash, elvish, fish, powershell or zsh: webmesh completion --help",
        ),
    ];

    #[test]
    fn a_complaint_says_what_is_wrong_and_what_was_meant() {
        for (words, expected) in LINES {
            assert_eq!(line(words), *expected, "{words:?}");
        }
    }

    #[test]
    fn no_complaint_has_two_lines() {
        for words in [
            "demo --peers x",
            "daemon --port 0",
            "daemon --tun a/b",
            "invite --role king",
            "ping -c 0 a",
            "debug",
        ] {
            let line = line(words);
            assert!(
                !line.contains('\n') && line.contains(": webmesh "),
                "{line}"
            );
        }
    }

    #[test]
    fn help_is_no_complaint() {
        for word in ["--help", "--version"] {
            let error = Cli::try_parse_from(["webmesh", word]).unwrap_err();
            assert_eq!(complaint(&error, &[word.to_owned()]), None);
        }
    }
}
