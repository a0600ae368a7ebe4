//! How fast one machine sends to another: by `iperf3` where it is found, else by plain sockets.
//!
//! Knows the two programs' words. Refuses to judge: a visitor compares two figures of one run.

use std::{
    fmt, io,
    process::{Child, Stdio},
};

use super::{
    agent::Agent,
    stage::{Broken, Said},
    stand_in,
};

/// Whoever is measured listens there; iperf3's own default.
const PORT: &str = "5201";

/// How long each measurement sends, in seconds.
const SECONDS: &str = "2";

/// The program that measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// `iperf3`.
    Iperf3,
    /// This program, by plain sockets.
    PlainSockets,
}

/// Bits a second that came through.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Rate(f64);

impl Tool {
    /// What this machine has.
    pub(super) fn found() -> Self {
        match stand_in::find("iperf3") {
            Some(_) => Self::Iperf3,
            None => Self::PlainSockets,
        }
    }

    /// One TCP stream from `from` to `to`, which is at `address`, an address or a name in `from`'s eyes.
    pub(super) fn measure(self, from: &Agent, to: &Agent, address: &str) -> Result<Rate, Broken> {
        let listener = Listener::start(self, to)?;
        let mut command = match self {
            Self::Iperf3 => from.command("iperf3")?,
            Self::PlainSockets => from.hold()?,
        };
        match self {
            Self::Iperf3 => command.args(["-J", "-c", address, "-p", PORT, "-t", SECONDS]),
            Self::PlainSockets => command.args(["pour", address, PORT, SECONDS]),
        };
        let sent = Said::of(|| command.output())?.success("a stream of TCP")?;
        let came = listener.end()?;
        match self {
            Self::Iperf3 => Rate::of_iperf3(&sent.stdout),
            Self::PlainSockets => came.trim().parse().map(Rate).ok(),
        }
        .ok_or_else(|| Broken::step("a figure in bits a second", sent.text))
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iperf3 => "iperf3",
            Self::PlainSockets => "(plain sockets)",
        })
    }
}

impl Rate {
    /// Whether anything came.
    pub(super) fn is_something(self) -> bool {
        self.0 > 0.0
    }

    /// What the receiver counted.
    fn of_iperf3(said: &str) -> Option<Self> {
        let said: serde_json::Value = serde_json::from_str(said).ok()?;
        said["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .map(Self)
    }
}

/// In Gbit/s, with two figures.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let giga = self.0 / 1e9;
        match giga {
            9.95.. => write!(f, "{giga:.0}"),
            0.995.. => write!(f, "{giga:.1}"),
            _ => write!(f, "{giga:.2}"),
        }
    }
}

/// Takes one stream, and ends.
struct Listener(Child);

impl Listener {
    fn start(tool: Tool, at: &Agent) -> Result<Self, Broken> {
        let mut command = match tool {
            Tool::Iperf3 => at.command("iperf3")?,
            Tool::PlainSockets => at.hold()?,
        };
        match tool {
            Tool::Iperf3 => command.args(["-s", "-1", "-p", PORT]),
            Tool::PlainSockets => command.args(["sink", PORT]),
        };
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let listener = Self(child);
        let mut wait = at.hold()?;
        Said::of(|| wait.args(["await-port", PORT]).output())?.success("a listening program")?;
        Ok(listener)
    }

    /// What it said.
    fn end(mut self) -> io::Result<String> {
        let mut said = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            io::Read::read_to_string(&mut stdout, &mut said)?;
        }
        self.0.wait()?;
        Ok(said)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It has ended by itself where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_two_figures() {
        let told = |bits: f64| Rate(bits).to_string();
        assert_eq!(told(44.4e9), "44");
        assert_eq!(told(8.13e9), "8.1");
        assert_eq!(told(0.5e9), "0.50");
    }

    #[test]
    fn what_the_receiver_counted_is_read() {
        let said = r#"{"end": {"sum_received": {"bits_per_second": 8.1e9}}}"#;
        assert_eq!(Rate::of_iperf3(said), Some(Rate(8.1e9)));
        assert_eq!(Rate::of_iperf3("iperf3: error"), None);
    }
}
