//! One machine's agent and its command line, as a person there would use them.
//!
//! Knows the flags and the JSON of design §4. Refuses to know what is behind them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::lab::Machine;

/// How long an agent may take until its socket answers. Generous: a busy machine starts programs slowly.
const START_LIMIT: Duration = Duration::from_secs(10);

/// An agent in a machine. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    machine: Machine,
    program: PathBuf,
    daemon: Option<Child>,
    environment: Vec<(String, String)>,
}

impl Agent {
    /// An agent that does not run yet; `program` is the webmesh binary.
    pub fn new(machine: Machine, program: &Path) -> Self {
        Self {
            machine,
            program: program.to_owned(),
            daemon: None,
            environment: Vec::new(),
        }
    }

    /// Sets a variable of the agent's environment at its next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The machine it runs in.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.machine.directory.join("state")
    }

    /// Its configuration file, empty at first.
    pub fn config(&self) -> PathBuf {
        self.machine.directory.join("config.toml")
    }

    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.machine.directory.join("webmesh.sock")
    }

    /// What it logged since the machine was made, over all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The number of its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Starts it and waits until its socket answers.
    ///
    /// # Errors
    /// When it ends before, or does not answer in time; the log says why.
    pub fn start(&mut self) -> io::Result<()> {
        self.launch(&[])?;
        let began = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            let daemon = self.daemon.as_mut().expect("it was launched above");
            if let Some(status) = daemon.try_wait()? {
                self.daemon = None;
                return Err(io::Error::other(format!(
                    "the agent ended at its start with {status}:\n{}",
                    self.log()
                )));
            }
            if began.elapsed() > START_LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the agent is silent:\n{}", self.log()),
                ));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts it with further options and does not wait.
    pub fn launch(&mut self, options: &[&str]) -> io::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        if !self.config().exists() {
            File::create(self.config())?;
        }
        let daemon = self
            .command(&self.program)?
            .arg("daemon")
            .arg("--state-dir")
            .arg(self.state_directory())
            .arg("--socket")
            .arg(self.socket())
            .args(["--tun", TUN])
            .arg("--config")
            .arg(self.config())
            .args(options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let mut daemon = self.daemon.take().ok_or(io::ErrorKind::NotFound)?;
        daemon.wait()
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop, as systemd does, and waits.
    pub fn stop(&mut self) -> io::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = i32::try_from(daemon.id()).map_err(io::Error::other)?;
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Runs `webmesh` with these words in the machine.
    pub fn webmesh(&self, words: &[&str]) -> io::Result<Output> {
        self.command(&self.program)?.args(words).output()
    }

    /// `webmesh status --json`.
    pub fn status(&self) -> io::Result<Value> {
        let output = self.webmesh(&["status", "--json"])?;
        if !output.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Points the machine's `/etc/resolv.conf` at the agent's resolver.
    pub fn use_resolver(&self) -> io::Result<()> {
        let status = self.status()?;
        let words = |key: &str| -> Vec<String> {
            let list = status["dns"][key].as_array().cloned().unwrap_or_default();
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let mut text = String::new();
        for server in words("servers") {
            let address = server
                .parse::<std::net::SocketAddr>()
                .map(|whole| whole.ip().to_string());
            text += &format!("nameserver {}\n", address.unwrap_or(server));
        }
        let search = words("search").join(" ");
        if !search.is_empty() {
            text += &format!("search {search}\n");
        }
        self.machine.set_resolv_conf(&text)
    }

    /// A command in the machine that finds `webmesh` on its path and this agent by its socket.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> io::Result<Command> {
        let mut command = self.machine.command(program)?;
        command.envs(environment(&self.program, &self.socket()));
        Ok(command)
    }

    /// What this program itself does there for the demo: the words after `webmesh demo hold` are the caller's.
    pub(super) fn hold(&self) -> io::Result<Command> {
        let mut command = self.command(&self.program)?;
        command.args(["demo", "hold"]);
        Ok(command)
    }

    fn log_file(&self) -> PathBuf {
        self.machine.directory.join("agent.log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

/// What a program in a machine needs to find `webmesh` and its agent.
pub(super) fn environment(
    program: &Path,
    socket: &Path,
) -> [(&'static str, std::ffi::OsString); 2] {
    let mut path = program
        .parent()
        .unwrap_or(Path::new("/"))
        .as_os_str()
        .to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    [
        ("PATH", path),
        ("WEBMESH_SOCKET", socket.as_os_str().to_owned()),
    ]
}

/// Every machine has its own network namespace, so the name may be the same everywhere.
const TUN: &str = "wm0";
