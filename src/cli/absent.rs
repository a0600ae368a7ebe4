//! Why nobody listens at the agent's socket, as far as the configuration and systemd tell it.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use super::start_hint::StartHint;
use crate::{
    api::{ApiError, Code},
    config::{self, Absence, Config, ConfigError},
};

/// What systemd knows of the agent's unit, in its words; each is empty where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    /// `LoadState`.
    load: String,
    /// `ActiveState`.
    active: String,
    /// `Result` of the last run.
    result: String,
    /// `ExecMainStatus` of the last run: exit code or signal.
    exit: String,
    /// `StatusText`: what the agent itself said last.
    said: String,
}

/// How often systemd is asked while an agent starts and has said nothing, and how long after each time. One that cannot
/// start says why within 300 ms, and systemd forgets it at the next start.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where to read on.
const LOG: &str = "the log: journalctl -u webmesh";

/// The exit codes of a process that systemd could not turn into the program (systemd.exec(5)).
const SYSTEMDS_OWN: std::ops::RangeInclusive<u32> = 200..=245;

/// What to say, and what to do. The configuration is at `file` where a unit starts the agent.
pub(super) async fn complaint(start: &StartHint, file: &Path) -> ApiError {
    let unit = match start {
        StartHint::Unit => settled().await,
        StartHint::Program(_) => Unit::default(),
    };
    judge(start, file, &unit)
}

/// The unit, once the agent had the time to say why it cannot start.
async fn settled() -> Unit {
    for _ in 1..TRIES {
        let unit = ask().await;
        let is_silent = unit.active == "activating" && unit.said.is_empty();
        if !is_silent {
            return unit;
        }
        tokio::time::sleep(PAUSE).await;
    }
    ask().await
}

/// Asks systemd. What it does not answer is not known.
async fn ask() -> Unit {
    let asked = Command::new("systemctl")
        .args(["show", "--property"])
        .arg("LoadState,ActiveState,Result,ExecMainStatus,StatusText")
        .arg("webmesh.service")
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(output)) => Unit::parse(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => Unit::default(),
    }
}

impl Unit {
    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let line = lines.find(|(name, _)| *name == key);
            line.map_or("", |(_, value)| value).to_owned()
        };
        Self {
            load: value("LoadState"),
            active: value("ActiveState"),
            result: value("Result"),
            exit: value("ExecMainStatus"),
            said: value("StatusText"),
        }
    }

    /// Whether the last run ended over its configuration.
    fn is_misconfigured(&self) -> bool {
        self.exit.parse() == Ok(config::UNUSABLE)
    }

    /// How the last run ended, where that was no good end.
    fn end(&self) -> Option<String> {
        let exit = &self.exit;
        let is_systemds = exit.parse().is_ok_and(|code| SYSTEMDS_OWN.contains(&code));
        Some(match self.result.as_str() {
            "" | "success" => return None,
            "exit-code" if is_systemds => {
                format!("systemd cannot run it as its unit says (exit code {exit})")
            }
            "exit-code" => format!("it ended with exit code {exit}"),
            "signal" | "core-dump" => format!("it was ended by signal {exit}"),
            "watchdog" => "it hung".to_owned(),
            "oom-kill" => "there was no memory left for it".to_owned(),
            "timeout" => "it took too long to start or to stop".to_owned(),
            other => format!("systemd says: {other}"),
        })
    }
}

fn judge(start: &StartHint, file: &Path, unit: &Unit) -> ApiError {
    match (start, Config::load(file, Absence::Defaults)) {
        // One that a unit starts ends for good over a bad configuration: then that is what to mend.
        (StartHint::Unit, Err(wrong @ ConfigError::Wrong { .. })) => absent(format!(
            "the agent does not run, since its configuration cannot be used: {wrong}"
        ))
        .remedy(format!(
            "mend it, then webmesh daemon --check-config, then {start}; {LOG}"
        )),
        (StartHint::Unit, Err(ConfigError::Unreadable { .. }))
            if unit.active == "failed" && unit.is_misconfigured() =>
        {
            absent("the agent does not run, since its configuration cannot be used").remedy(
                format!(
                    "sudo webmesh daemon --check-config says why; mend it, then {start}; {LOG}"
                ),
            )
        }
        (StartHint::Unit, Ok(_) | Err(ConfigError::Unreadable { .. })) => of_unit(start, unit),
        (StartHint::Program(_), _) => not_running(start),
    }
}

/// What the unit's state means for who asks.
fn of_unit(start: &StartHint, unit: &Unit) -> ApiError {
    let end = unit.end();
    match (unit.active.as_str(), unit.said.as_str(), end) {
        ("active" | "reloading" | "refreshing", ..) => {
            absent("the agent runs, but nobody listens at its socket any more")
                .remedy(format!("sudo systemctl restart webmesh; {LOG}"))
        }
        // The agent's own words: "cannot start: …".
        ("activating" | "deactivating" | "failed", said, _)
            if said.starts_with("cannot start: ") =>
        {
            absent(format!("the agent {said}")).remedy(LOG)
        }
        ("activating", _, None) => {
            absent("the agent is starting").remedy(format!("try again in a moment; {LOG}"))
        }
        // Whatever it ended by, it is cleaned up after before it is started again.
        ("activating" | "deactivating", _, Some(end)) => absent(format!(
            "the agent does not run: {end}; systemd starts it again"
        ))
        .remedy(LOG),
        ("deactivating", _, None) => absent("the agent is stopping").remedy(LOG),
        // Its configuration was mended since.
        ("failed", ..) if unit.is_misconfigured() => not_running(start),
        ("failed", _, Some(end)) => {
            absent(format!("the agent does not run: {end}")).remedy(format!("{start}; {LOG}"))
        }
        _ if unit.load == "masked" => absent("the agent does not run: its unit is masked")
            .remedy(format!("sudo systemctl unmask webmesh, then {start}")),
        _ => not_running(start),
    }
}

fn not_running(start: &StartHint) -> ApiError {
    absent("the agent does not run").remedy(start.to_string())
}

fn absent(message: impl Into<String>) -> ApiError {
    ApiError::could_not(Code::AgentAbsent, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said while no configuration is in the way, and systemd answers so.
    fn line(shown: &str) -> String {
        let file = Path::new("/nonexistent/webmesh/config.toml");
        judge(&StartHint::Unit, file, &Unit::parse(shown)).line()
    }

    #[test]
    fn an_agent_that_ended_over_its_configuration_is_said_with_the_line() {
        let file = std::env::temp_dir().join(format!("webmesh-absent-{}.toml", std::process::id()));
        let unknown = Unit::default();
        std::fs::write(&file, "[tun]\nnmae = \"wm0\"\n").unwrap();
        let line = judge(&StartHint::Unit, &file, &unknown).line();
        let program = StartHint::Program("webmesh".to_owned());
        let by_hand = judge(&program, &file, &unknown).line();
        std::fs::write(&file, "").unwrap();
        let good = judge(&StartHint::Unit, &file, &unknown).line();
        std::fs::remove_file(&file).unwrap();
        for part in [
            ".toml:2: ",
            "`nmae`",
            "--check-config",
            "journalctl -u webmesh",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(by_hand, "the agent does not run: sudo webmesh daemon");
        assert_eq!(good, "the agent does not run: sudo systemctl start webmesh");
    }

    #[test]
    fn why_the_unit_s_agent_does_not_run_is_said_in_its_own_words() {
        let said = "cannot start: UDP port 5000 is busy. Tried again every 5 s";
        let shown = format!(
            "LoadState=loaded\nActiveState=activating\nResult=success\nExecMainStatus=0\nStatusText={said}\n"
        );
        assert_eq!(
            line(&shown),
            format!("the agent {said}: the log: journalctl -u webmesh")
        );
    }

    #[test]
    fn an_end_without_a_word_is_named_as_systemd_saw_it() {
        for (shown, expected) in [
            (
                "ActiveState=failed\nResult=exit-code\nExecMainStatus=203",
                "the agent does not run: systemd cannot run it as its unit says (exit code 203): \
                 sudo systemctl start webmesh; the log: journalctl -u webmesh",
            ),
            (
                "ActiveState=activating\nResult=signal\nExecMainStatus=11",
                "the agent does not run: it was ended by signal 11; systemd starts it again: \
                 the log: journalctl -u webmesh",
            ),
            (
                "ActiveState=deactivating\nResult=exit-code\nExecMainStatus=203",
                "the agent does not run: systemd cannot run it as its unit says (exit code 203); \
                 systemd starts it again: the log: journalctl -u webmesh",
            ),
            (
                "ActiveState=activating\nResult=success\nExecMainStatus=0\nStatusText=",
                "the agent is starting: try again in a moment; the log: journalctl -u webmesh",
            ),
            (
                "ActiveState=active\nResult=success",
                "the agent runs, but nobody listens at its socket any more: \
                 sudo systemctl restart webmesh; the log: journalctl -u webmesh",
            ),
            (
                "LoadState=masked\nActiveState=inactive\nResult=success",
                "the agent does not run: its unit is masked: \
                 sudo systemctl unmask webmesh, then sudo systemctl start webmesh",
            ),
        ] {
            assert_eq!(line(shown), expected, "{shown}");
        }
    }

    #[test]
    fn an_agent_that_was_stopped_or_whose_configuration_was_mended_is_to_be_started() {
        for shown in [
            "",
            "LoadState=loaded\nActiveState=inactive\nResult=success",
            "ActiveState=failed\nResult=exit-code\nExecMainStatus=78",
        ] {
            assert_eq!(
                line(shown),
                "the agent does not run: sudo systemctl start webmesh",
                "{shown}"
            );
        }
    }
}
