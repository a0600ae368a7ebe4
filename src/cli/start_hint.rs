//! How a person starts the agent here, and how this program was called.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

/// What to type to start the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartHint {
    /// A unit is installed.
    Unit,
    /// By the program itself, called so.
    Program(String),
}

/// How this program was called: `webmesh`, or its path when it was built here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    name: String,
    is_from_source: bool,
}

/// Where packages put the unit.
const UNITS: [&str; 3] = [
    "/usr/lib/systemd/system/webmesh.service",
    "/lib/systemd/system/webmesh.service",
    "/etc/systemd/system/webmesh.service",
];

impl fmt::Display for StartHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("sudo systemctl start webmesh"),
            Self::Program(name) => write!(f, "sudo {name} daemon"),
        }
    }
}

impl Program {
    /// This very program.
    pub fn of_this_process() -> Self {
        let exe = std::env::current_exe().unwrap_or_default();
        let here = std::env::current_dir().unwrap_or_default();
        Self::at(&exe, &here)
    }

    /// The program at `exe`, for a person in the directory `here`.
    pub fn at(exe: &Path, here: &Path) -> Self {
        let is_from_source = exe
            .components()
            .any(|part| part == Component::Normal("target".as_ref()));
        let near = exe.strip_prefix(here).unwrap_or(exe);
        let name = if is_from_source {
            near.display().to_string()
        } else {
            "webmesh".to_owned()
        };
        Self {
            name,
            is_from_source,
        }
    }

    /// What to type for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the agent is started, where a socket was given with that socket.
    pub fn start_hint(&self, socket: Option<&PathBuf>) -> StartHint {
        let has_unit = UNITS.iter().any(|unit| Path::new(unit).exists());
        match socket {
            None if has_unit && !self.is_from_source => StartHint::Unit,
            None => StartHint::Program(self.name.clone()),
            Some(socket) => {
                StartHint::Program(format!("{} --socket {}", self.name, socket.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_built_here_is_called_by_its_path() {
        let program = Program::at(
            "/home/anna/webmesh/target/release/webmesh".as_ref(),
            "/home/anna/webmesh".as_ref(),
        );
        assert_eq!(
            program.start_hint(None).to_string(),
            "sudo target/release/webmesh daemon"
        );
        let elsewhere = Program::at("/src/target/debug/webmesh".as_ref(), "/tmp".as_ref());
        assert_eq!(elsewhere.name(), "/src/target/debug/webmesh");
    }

    #[test]
    fn an_installed_program_is_called_by_its_name() {
        let program = Program::at("/usr/bin/webmesh".as_ref(), "/tmp".as_ref());
        assert_eq!(program.name(), "webmesh");
        assert_eq!(StartHint::Unit.to_string(), "sudo systemctl start webmesh");
        assert_eq!(
            program.start_hint(Some(&"/tmp/s".into())).to_string(),
            "sudo webmesh --socket /tmp/s daemon"
        );
    }
}
