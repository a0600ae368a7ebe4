//! What was typed and cannot be meant, in one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::api::{ApiError, Code};

/// Turns clap's paragraphs into one line: what is wrong, what was probably meant, where to read on. None: clap's text is
/// an answer (`--help`, `--version`), not a complaint.
pub fn complaint(error: &clap::Error) -> Option<ApiError> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return None;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Some(usage("a verb is missing"));
    }
    let text = error.to_string();
    let head = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = head
        .split_whitespace()
        .skip_while(|word| *word == "error:")
        .collect();
    let hint = suggestion(error).map(|near| format!(". Did you mean {near}?"));
    Some(usage(format!(
        "{}{}",
        words.join(" "),
        hint.unwrap_or_default()
    )))
}

fn usage(message: impl Into<String>) -> ApiError {
    ApiError::could_not(Code::BadRequest, message).remedy("webmesh --help")
}

fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    kinds.into_iter().find_map(|kind| {
        let found = error.get(kind)?;
        if let ContextValue::Strings(near) = found {
            return near.first().cloned();
        }
        matches!(found, ContextValue::String(_)).then(|| found.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use clap::Parser;

    fn line(words: &[&str]) -> String {
        let typed = ["webmesh"].iter().chain(words);
        complaint(&Cli::try_parse_from(typed).unwrap_err())
            .unwrap()
            .line()
    }

    #[test]
    fn a_complaint_is_one_line_with_the_next_step() {
        assert_eq!(
            line(&["statsu"]),
            "unrecognized subcommand 'statsu'. Did you mean status?: webmesh --help"
        );
        assert_eq!(
            line(&["status", "--jsn"]),
            "unexpected argument '--jsn' found. Did you mean --json?: webmesh --help"
        );
        assert_eq!(
            line(&["init"]),
            "the following required arguments were not provided: <NETWORK>: webmesh --help"
        );
        assert_eq!(line(&[]), "a verb is missing: webmesh --help");
        assert_eq!(
            line(&["service", "add", "web", "--port", "0"]),
            "invalid value '0' for '--port <P[/udp]>': a port is 1 to 65535, with /udp behind it for UDP: webmesh --help"
        );
    }

    #[test]
    fn help_is_no_complaint() {
        assert_eq!(
            complaint(&Cli::try_parse_from(["webmesh", "--help"]).unwrap_err()),
            None
        );
        assert_eq!(
            complaint(&Cli::try_parse_from(["webmesh", "--version"]).unwrap_err()),
            None
        );
    }
}
