//! Two machines with the package on them, and what a person types there.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    building::packages,
    machine::{Lan, Machine},
    roots::{Kind, Root},
};

/// Anna's and Bo's machines, on one bridge.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) anna: Machine,
    pub(crate) bo: Machine,
    pub(crate) lan: Lan,
}

impl Home {
    /// Both booted; nothing of ours is there.
    pub(crate) fn booted(kind: Kind) -> Self {
        Self::booted_with(kind, |_root, _number| {})
    }

    /// The same with something done to the roots before; it is told the last number of the machine's addresses.
    pub(crate) fn booted_with(kind: Kind, prepare: impl Fn(&Root, u8)) -> Self {
        let lan = Lan::new();
        let boot = |name, number| {
            let root = kind.fresh();
            prepare(&root, number);
            lan.boot(root, name, number)
        };
        Self {
            anna: boot("anna", 11),
            bo: boot("bo", 12),
            lan,
        }
    }

    /// Both with the package, and in the network `home`, which Anna founded.
    pub(crate) fn formed(kind: Kind) -> Self {
        let home = Self::booted(kind);
        for machine in [&home.anna, &home.bo] {
            install(machine, &packages().deb);
        }
        home.form();
        home
    }

    /// Anna founds `home`, and Bo joins it.
    pub(crate) fn form(&self) {
        self.anna.sh("webmesh init home");
        let token = self.anna.sh("webmesh invite");
        self.bo.sh(&format!("webmesh join {}", token.trim()));
    }
}

/// `apt install` of a package that was copied there; gives what apt and the package said.
pub(crate) fn install(machine: &Machine, deb: &Path) -> String {
    let name = deb.file_name().unwrap().to_str().unwrap();
    fs::copy(deb, machine.file("/root").join(name)).unwrap();
    machine.sh(&format!(
        "cd /root && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet ./{name} 2>&1"
    ))
}

/// `webmesh status --json`.
pub(crate) fn status(machine: &Machine) -> Value {
    serde_json::from_str(&machine.sh("webmesh status --json")).unwrap()
}

/// Fails unless each line is as its pattern says; `{}` stands for anything but nothing.
pub(crate) fn assert_reads(said: &str, patterns: &[&str]) {
    let lines: Vec<&str> = said.lines().collect();
    let is_same = lines.len() == patterns.len()
        && lines
            .iter()
            .zip(patterns)
            .all(|(line, pattern)| fits(line, pattern));
    assert!(
        is_same,
        "printed:\n{said}\nexpected:\n{}",
        patterns.join("\n")
    );
}

fn fits(line: &str, pattern: &str) -> bool {
    let Some((head, rest)) = pattern.split_once("{}") else {
        return line == pattern;
    };
    let Some(line) = line.strip_prefix(head) else {
        return false;
    };
    let ends = line.char_indices().map(|(at, one)| at + one.len_utf8());
    ends.into_iter()
        .filter_map(|end| line.get(end..))
        .any(|left| fits(left, rest))
}

/// Looks every few milliseconds, where no event exists, until `is_so` or the limit; how long it took.
pub(crate) fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Does something that ends the agent; how long it took until another one is ready.
pub(crate) fn await_new_agent(machine: &Machine, limit: Duration, end: impl FnOnce()) -> Duration {
    let began = Instant::now();
    let old = machine.property("webmesh", "InvocationID");
    end();
    within(limit, "another agent is ready", || {
        machine.property("webmesh", "InvocationID") != old
            && machine.property("webmesh", "ActiveState") == "active"
    });
    began.elapsed()
}
