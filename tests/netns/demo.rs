//! Issue 3, point 10: the demo holds as root and as an ordinary user, and leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{fresh_directory, program, text, within};

#[test]
fn the_demo_holds_as_the_user_of_this_test() {
    let stage = Stage::new();
    let output = stage.demo(&[]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("All 9 held."), "{said}");
    stage.is_left_clean();
}

#[test]
fn the_demo_holds_as_an_ordinary_user() {
    let is_root = nix::unistd::geteuid().is_root();
    let stage = if is_root {
        // udev makes it so on every machine with a desktop or a server distribution.
        fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(0o666)).unwrap();
        Stage::for_nobody()
    } else {
        Stage::new()
    };
    let mut demo = stage.demo(&[]);
    if is_root {
        demo.uid(NOBODY).gid(NOBODY);
    }
    let output = demo.output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("You are not root: fine."), "{said}");
    assert!(said.contains("All 9 held."), "{said}");
    stage.is_left_clean();
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let stage = Stage::new();
        let mut demo = stage.demo(&[]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        // The second step: agents run and the first join is done.
        lines
            .map_while(Result::ok)
            .find(|line| line.contains("webmesh join"));
        kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), signal).unwrap();
        demo.wait().unwrap();
        stage.is_left_clean();
    }
}

#[test]
fn a_kept_demo_is_entered_by_name_and_ended_by_stop() {
    let stage = Stage::new();
    let mut demo = stage
        .demo(&["--keep"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let last = lines
        .map_while(Result::ok)
        .find(|line| line.contains("held. Look around"));
    assert!(last.is_some(), "the demo holds");
    let shell = stage
        .demo(&["shell", "bo"])
        .env("SHELL", "/bin/hostname")
        .output()
        .unwrap();
    assert_eq!(text(&shell.stdout), "bo\n", "{}", text(&shell.stderr));
    let nobody = stage.demo(&["shell", "zoe"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("anna, bo"),
        "{}",
        text(&nobody.stderr)
    );
    assert!(stage.demo(&["stop"]).status().unwrap().success());
    demo.wait().unwrap();
    stage.is_left_clean();
    let again = stage.demo(&["stop"]).output().unwrap();
    assert_eq!(
        again.status.code(),
        Some(1),
        "there is nothing to stop any more"
    );
}

/// A runtime directory of its own, so that demos of several tests do not meet.
struct Stage {
    runtime: PathBuf,
    program: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let runtime = fresh_directory();
        fs::create_dir(&runtime).unwrap();
        Self {
            runtime,
            program: program(),
        }
    }

    /// With a copy of the binary that nobody may read, and a directory that is nobody's own.
    fn for_nobody() -> Self {
        let mut stage = Self::new();
        stage.program = stage.runtime.join("webmesh");
        fs::copy(program(), &stage.program).unwrap();
        std::os::unix::fs::chown(&stage.runtime, Some(NOBODY), Some(NOBODY)).unwrap();
        stage
    }

    fn demo(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("demo").args(words);
        command
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .current_dir("/")
            .process_group(0);
        command
    }

    fn is_left_clean(&self) {
        let demos = self.runtime.join("webmesh-demo");
        within(
            Duration::from_secs(10),
            "files and processes are gone",
            || {
                let files = fs::read_dir(&demos).map_or(0, Iterator::count);
                files == 0 && !has_process_of(&demos)
            },
        );
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.runtime);
    }
}

/// Whether some process was started with a path in `directory`: holders, agents, servers all are.
fn has_process_of(directory: &Path) -> bool {
    let needle = directory.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|words| text(&words).contains(needle))
}

const NOBODY: u32 = 65534;
