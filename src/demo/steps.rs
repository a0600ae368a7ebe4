//! The demo's steps, numbered as in the transcript; those that need what is not built yet are left out.
//!
//! Knows what each command must say. Refuses to look behind the command line.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    agent::Agent,
    capture::Capture,
    lab::{Lab, LabError},
    order::NatKind,
    snapshot::Snapshot,
    speed::Tool,
    stage::{Broken, Said, Stage, seconds},
    stand_in,
};

/// What the page says; the capture looks for it.
const PAGE: &str = "hello from anna";

/// The download that is broken into: two seconds at [`DOWNLOAD_RATE`], so that the crash falls into it.
const DOWNLOAD_BYTES: usize = 32 << 20;

/// Bytes a second, slow enough for a crash in the middle, far below what the tunnel carries.
const DOWNLOAD_RATE: u64 = 16 << 20;

/// Where vps is on the internet of the demo.
const VPS: &str = "203.0.113.10";

/// The agents' port, unless the configuration names another.
const PORT: u16 = 41820;

/// How long a download or a returning session may take at most before the step counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The three machines, and what the host and bo's machine looked like before.
pub(super) struct Play<'a> {
    lab: &'a Lab,
    stage: Stage,
    host: Snapshot,
    idle: Snapshot,
    vps: Agent,
    anna: Agent,
    bo: Agent,
    programs: Programs,
    server: Option<Child>,
}

/// Which real programs this machine has.
struct Programs {
    curl: bool,
    python: bool,
    speed: Tool,
}

impl<'a> Play<'a> {
    /// Builds the machines and starts an agent in each.
    pub(super) fn prepare(lab: &'a Lab, stage: Stage) -> Result<Self, Broken> {
        let host = Snapshot::take()?;
        let began = Instant::now();
        let mut machines = build(lab).map_err(|error| io::Error::other(error.to_string()))?;
        let idle = snapshot_of(&machines[2])?;
        let [vps, anna, bo] = &mut machines;
        for agent in [vps, anna, bo] {
            agent.start()?;
        }
        stage.show("", "each", "webmesh daemon &", began.elapsed());
        let [vps, anna, bo] = machines;
        let programs = Programs {
            curl: stand_in::find("curl").is_some(),
            python: stand_in::find("python3").is_some(),
            speed: Tool::found(),
        };
        if !programs.curl {
            stage.say("   curl is not installed here: plain sockets take its place.");
        }
        if !programs.python {
            stage.say("   python3 is not installed here: plain sockets take its place.");
        }
        if programs.speed == Tool::PlainSockets {
            stage.say("   iperf3 is not installed here: plain sockets take its place.");
        }
        Ok(Self {
            lab,
            stage,
            host,
            idle,
            vps,
            anna,
            bo,
            programs,
            server: None,
        })
    }

    /// Plays all steps; gives how many held.
    pub(super) fn run(&mut self) -> Result<u32, Broken> {
        self.found_and_join()?;
        self.publish()?;
        self.look_on_the_wire()?;
        self.crash_in_a_download()?;
        self.pour()?;
        Ok(self.stage.held())
    }

    /// What the agents logged, for a step that broke.
    pub(super) fn logs(&self) -> String {
        [&self.vps, &self.anna, &self.bo]
            .map(|agent| {
                let log = agent.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines
                    .get(lines.len().saturating_sub(20)..)
                    .unwrap_or_default();
                format!("log of {}:\n{}\n", agent.machine().name, tail.join("\n"))
            })
            .concat()
    }

    fn found_and_join(&mut self) -> Result<(), Broken> {
        let said = Said::of(|| self.vps.webmesh(&["init", "demo"]))?.success("a new network")?;
        self.stage.show("1", "vps", "webmesh init demo", said.took);
        self.stage.quote(&said.text);
        self.stage.hold();

        let token = self.invite()?;
        let shown = short(&token);
        let said = Said::of(|| self.anna.webmesh(&["join", &token]))?.success("anna joins")?;
        self.stage
            .show("2", "anna", &format!("webmesh join {shown}"), said.took);
        self.stage.quote(&said.talk_first());
        self.stage.hold();

        let said = Said::of(|| self.bo.webmesh(&["join", &token]))?;
        self.stage
            .show("3", "bo", &format!("webmesh join {shown}"), said.took);
        self.stage.quote(&said.text);
        if said.code != Some(1) || !said.text.contains("was used") || !said.text.contains("anna") {
            return Err(Broken::step(
                "a refusal: anna has used this token",
                &said.text,
            ));
        }
        let token = self.invite()?;
        let said = Said::of(|| self.bo.webmesh(&["join", &token]))?.success("bo joins")?;
        self.stage.show(
            "",
            "bo",
            &format!("webmesh join {}", short(&token)),
            said.took,
        );
        self.stage.quote(&said.talk_first());
        self.stage.hold();
        for agent in [&self.vps, &self.anna, &self.bo] {
            agent.use_resolver()?;
        }
        Ok(())
    }

    fn invite(&self) -> Result<String, Broken> {
        let said = Said::of(|| self.vps.webmesh(&["invite"]))?.success("a token")?;
        let token = said.stdout.trim().to_owned();
        if !token.starts_with("wm1-") || token.contains(char::is_whitespace) {
            return Err(Broken::step("a token alone on stdout", &said.stdout));
        }
        self.stage.show("", "vps", "webmesh invite", said.took);
        self.stage.quote(&short(&token));
        Ok(token)
    }

    fn publish(&mut self) -> Result<(), Broken> {
        let began = Instant::now();
        let pages = self.anna.machine().directory.join("www");
        fs::create_dir(&pages)?;
        fs::write(pages.join("index.html"), format!("{PAGE}\n"))?;
        fs::write(pages.join("big"), noise(DOWNLOAD_BYTES))?;
        self.server = Some(self.serve(&pages)?);
        self.await_port("8080")?;
        let add = [
            "service",
            "add",
            "web",
            "--port",
            "80",
            "--target",
            "127.0.0.1:8080",
        ];
        let said = Said::of(|| self.anna.webmesh(&add))?.success("a published service")?;
        let server = match self.programs.python {
            true => "python3 -m http.server -b 127.0.0.1 8080 &",
            false => "(plain sockets on 127.0.0.1:8080) &",
        };
        self.stage.show("4", "anna", server, began.elapsed());
        self.stage
            .show("", "anna", &format!("webmesh {}", add.join(" ")), said.took);
        self.stage.quote(&said.text);
        self.stage.hold();
        let said = Said::of(|| {
            self.bo
                .webmesh(&["wait", "--service", "web", "--timeout", "10s"])
        })?;
        said.success("bo hears of the service within 10 s")?;
        Ok(())
    }

    fn look_on_the_wire(&mut self) -> Result<(), Broken> {
        let capture = Capture::start(self.lab, "router-bo")?;
        let page = self.bo.machine().directory.join("page");
        let url = "http://web.svc.demo.internal/";
        let fetched = Said::of(|| self.fetch(url, &page, u64::MAX)?.output())?
            .success("the page by the service's name")?;
        let text = fs::read_to_string(&page)?;
        let client = if self.programs.curl {
            "curl"
        } else {
            "(plain sockets)"
        };
        let line = format!(
            "{client} {url}   {:?}   first byte {}",
            text.trim_end(),
            milliseconds(&fetched.stderr)
        );
        self.stage.tell("5", "bo", &line);
        if text.trim_end() != PAGE {
            return Err(Broken::step(PAGE, text));
        }
        self.stage.hold();

        self.ask_why()?;

        let seen = capture.stop(&[PORT], PAGE.as_bytes())?;
        self.stage.say(&format!(
            " 7 on the wire between the routers: {} datagrams, {}, the page's text {} times",
            seen.datagrams,
            if seen.foreign_ports.is_empty() {
                "one UDP port only"
            } else {
                "several UDP ports"
            },
            seen.needles,
        ));
        if seen.datagrams == 0
            || !seen.foreign_ports.is_empty()
            || seen.other_packets > 0
            || seen.needles > 0
        {
            return Err(Broken::step(
                "some datagrams, all of them from or to the agents' port, and no plain text",
                format!("{seen:?}"),
            ));
        }
        self.stage.hold();
        Ok(())
    }

    /// The first packets go through vps, and a moment later the path is direct.
    fn ask_why(&mut self) -> Result<(), Broken> {
        let mut said = None;
        until(
            || {
                let one = Said::of(|| self.bo.webmesh(&["why", "anna"]))?;
                let is_direct = one.code == Some(0) && one.text.contains("direct 203.0.113.5:");
                said = Some(one);
                Ok(is_direct)
            },
            "a direct path from bo to anna, both behind routers",
        )?;
        let said = said.expect("the loop ends with an answer");
        let mut lines = said.stdout.lines();
        let first = lines.next().unwrap_or_default();
        self.stage
            .tell("6", "bo", &format!("webmesh why anna   {first}"));
        for line in lines {
            self.stage.quote(line);
        }
        self.stage.hold();
        Ok(())
    }

    fn crash_in_a_download(&mut self) -> Result<(), Broken> {
        let file = self.bo.machine().directory.join("big");
        let mut download = self.fetch("http://web.svc.demo.internal/big", &file, DOWNLOAD_RATE)?;
        let mut download = download
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        until(
            || Ok(size(&file) > DOWNLOAD_BYTES / 8),
            "the download begins",
        )?;

        let crashed = Instant::now();
        self.bo.kill()?;
        let left = snapshot_of(&self.bo)?;
        self.bo.start()?;
        let wait = ["wait", "--peer", "anna", "--timeout", "10s"];
        Said::of(|| self.bo.webmesh(&wait))?
            .success("bo's session with anna stands again within 10 s")?;
        let whole = crashed.elapsed();
        let is_midway = size(&file) < DOWNLOAD_BYTES;

        let ended = await_child(&mut download)?;
        let is_right =
            ended.success() && digest(&fs::read(&file)?) == digest(&noise(DOWNLOAD_BYTES));
        let residue = [
            left.differences(&self.idle),
            Snapshot::take()?.differences(&self.host),
        ]
        .concat();
        self.stage.say(&format!(
            " 8 kill -9 bo's agent in a download: whole again after {}, SHA-256 {}; host before {} host after ({})",
            seconds(whole),
            if is_right { "right" } else { "wrong" },
            if residue.is_empty() { "=" } else { "≠" },
            self.compared(),
        ));
        if !is_midway {
            return Err(Broken::step(
                "a crash within the download",
                "it was over before the agent was back",
            ));
        }
        if !is_right || !residue.is_empty() {
            return Err(Broken::step(
                "the whole file and nothing left behind",
                format!("{ended}, {residue:?}"),
            ));
        }
        self.stage.hold();
        Ok(())
    }

    /// One stream through the tunnel, and one from the same machine past it.
    fn pour(&mut self) -> Result<(), Broken> {
        let tool = self.programs.speed;
        let mesh = tool.measure(&self.anna, &self.bo, "bo.demo.internal")?;
        let bare = tool.measure(&self.anna, &self.vps, VPS)?;
        self.stage.say(&format!(
            "10 {tool} anna → bo: {mesh} Gbit/s (the bare link here: {bare})"
        ));
        if !mesh.is_something() {
            return Err(Broken::step("a stream through the tunnel", mesh));
        }
        self.stage.hold();
        Ok(())
    }

    /// What step 8 could compare: the host's nf_tables are for root's eyes.
    fn compared(&self) -> &'static str {
        match self.host.tables {
            Some(_) => "addresses, routes, nft, /etc",
            None => "addresses, routes, /etc; nft in bo's machine",
        }
    }

    fn serve(&self, pages: &Path) -> Result<Child, Broken> {
        let mut command = if self.programs.python {
            let mut command = self.anna.command("python3")?;
            command
                .args(["-m", "http.server", "-b", "127.0.0.1", "-d"])
                .arg(pages)
                .arg("8080");
            command
        } else {
            let mut command = self.anna.hold()?;
            command.args(["serve", "127.0.0.1:8080"]).arg(pages);
            command
        };
        Ok(command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?)
    }

    fn await_port(&self, port: &str) -> Result<(), Broken> {
        let mut command = self.anna.hold()?;
        Said::of(|| command.args(["await-port", port]).output())?
            .success("a listening web server")?;
        Ok(())
    }

    /// Fetches a page in bo's machine into a file; the seconds to the first byte come on stderr.
    fn fetch(&self, url: &str, file: &Path, rate: u64) -> io::Result<Command> {
        let mut command;
        if self.programs.curl {
            command = self.bo.command("curl")?;
            command.args(["--silent", "--fail", "--noproxy", "*", "--max-time", "20"]);
            command
                .args(["--write-out", "%{stderr}%{time_starttransfer}", "--output"])
                .arg(file);
            if rate < u64::MAX {
                command.args(["--limit-rate", &rate.to_string()]);
            }
            command.arg(url);
        } else {
            command = self.bo.hold()?;
            command.args(["fetch", url]).arg(file).arg(rate.to_string());
        }
        Ok(command)
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The picture of the transcript. Both homes have the same LAN prefix and the same LAN address, as homes do.
fn build(lab: &Lab) -> Result<[Agent; 3], LabError> {
    let vps = lab.public("vps", &[&format!("{VPS}/24")])?;
    let mut homes = Vec::new();
    for (name, router, public) in [
        ("anna", "router-anna", "203.0.113.5/24"),
        ("bo", "router-bo", "203.0.113.6/24"),
    ] {
        lab.router(router, &[public], "192.168.1.1/24", NatKind::Masquerade)?;
        homes.push(lab.behind(router, name, "192.168.1.2/24", "192.168.1.1")?);
    }
    let [anna, bo] = <[_; 2]>::try_from(homes).expect("two homes were built");
    Ok([vps, anna, bo].map(|machine| Agent::new(machine, lab.program())))
}

/// How a machine looks, but for `/etc`: there the demo itself has written whom to ask for names, and the rest is the
/// host's.
fn snapshot_of(agent: &Agent) -> Result<Snapshot, Broken> {
    let mut command = agent.hold()?;
    let said = Said::of(|| command.arg("snapshot").output())?.success("a look at a machine")?;
    let mut taken: Snapshot = serde_json::from_str(&said.stdout).map_err(io::Error::from)?;
    taken.etc = (0, 0);
    Ok(taken)
}

/// The lines before the first step.
pub(super) fn picture(is_root: bool) -> String {
    let who = if is_root {
        ""
    } else {
        " You are not root: fine."
    };
    let example = IpAddr::from([192, 168, 1, 2]);
    format!(
        "internet ─┬─ vps 203.0.113.10          three machines, two home routers, in namespaces of this process;\n\
         \x20         ├─ router ── anna {example}  nothing on your host changes.{who}\n\
         \x20         └─ router ── bo   {example}  (the same LAN address on purpose)"
    )
}

fn short(token: &str) -> String {
    let head: String = token.chars().take(8).collect();
    format!("{head}…")
}

/// Seconds, as the client gives them, in words.
fn milliseconds(text: &str) -> String {
    match text.trim().parse::<f64>() {
        Ok(seconds) => format!("{:.0} ms", seconds * 1000.0),
        Err(_) => format!("({})", text.trim()),
    }
}

/// Bytes that no compression and no accident make right.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}

fn size(file: &Path) -> usize {
    let length = File::open(file)
        .and_then(|file| file.metadata())
        .map_or(0, |seen| seen.len());
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Looks every few milliseconds until it is so; a file's growth has no event worth its code.
fn until(mut is_so: impl FnMut() -> io::Result<bool>, expected: &str) -> Result<(), Broken> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            return Err(Broken::step(expected, "nothing in 20 s"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn await_child(child: &mut Child) -> Result<ExitStatus, Broken> {
    let mut ended = None;
    until(
        || {
            ended = child.try_wait()?;
            Ok(ended.is_some())
        },
        "the end of the download",
    )?;
    Ok(ended.expect("the loop ends with a status"))
}

/// Prints a demo's error to stderr in the form of all commands.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "webmesh: {text}");
}
