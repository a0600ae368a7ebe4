//! The configuration file while the agent runs: HUP reads it again, and a look each second tells whether what is on the
//! disk is what runs.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use tokio::sync::watch;

use super::{
    agent::{Agent, Place},
    defining::Defined,
};
use crate::{
    api,
    config::{Config, Source},
};

/// The file that the settings come from, and how it stands to them.
#[derive(Debug)]
pub(super) struct Reloading {
    source: Source,
    seen: Stamp,
    unused: Option<Unused>,
    config: watch::Sender<Config>,
}

/// Why the file on the disk is not what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unused {
    /// Nobody has said HUP since it was changed.
    Unread,
    /// It cannot be used; why.
    Bad(String),
    /// These keys count from the next start.
    NeedsRestart(Vec<String>),
}

/// What tells one writing of a file from the next, without reading it. None: the file is not there.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Reloading {
    /// Settings that were read from `source` just now.
    pub(super) fn new(source: Source, config: &Config) -> Self {
        Self {
            seen: stamp(&source.file),
            source,
            unused: None,
            config: watch::Sender::new(config.clone()),
        }
    }

    /// Where the settings that run are found by whoever must not wait for the loop.
    pub(super) fn settings(&self) -> watch::Receiver<Config> {
        self.config.subscribe()
    }

    /// Where the file is.
    pub(super) fn file(&self) -> &Path {
        &self.source.file
    }

    /// What `health` says of it.
    pub(super) fn health(&self) -> Option<api::Health> {
        let file = self.source.file.display();
        let (message, remedy) = match self.unused.as_ref()? {
            Unused::Unread => (
                format!("{file} was changed and is not in use yet"),
                by_hand_or("reload", "send the agent a HUP"),
            ),
            Unused::Bad(why) => (
                format!("the configuration on disk is not what runs: {why}"),
                format!(
                    "mend it, then {}",
                    by_hand_or("reload", "send the agent a HUP")
                ),
            ),
            Unused::NeedsRestart(keys) => (
                format!("{} in {file}: in use from the next start", keys.join(", ")),
                by_hand_or("restart", "stop the agent and start it again"),
            ),
        };
        Some(api::Health {
            level: api::Level::Warning,
            code: "config_unused".to_owned(),
            message,
            remedy: Some(remedy),
        })
    }

    /// What of the file runs after it was read again, given what `runs` now.
    fn read(&mut self, runs: &Config) -> Config {
        self.seen = stamp(&self.source.file);
        let fresh = match self.source.load() {
            Ok(fresh) => fresh,
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(why, "Reload: the file cannot be used, everything stays");
                self.unused = Some(Unused::Bad(why));
                return runs.clone();
            }
        };
        let now = runs.reloaded(&fresh);
        let waiting = now.differences(&fresh);
        let changed = runs.differences(&now).join(", ");
        let changed = (!changed.is_empty()).then_some(changed);
        if waiting.is_empty() {
            tracing::info!(changed, "Reload: the file is in use, tunnels stay");
            self.unused = None;
        } else {
            let waiting_keys = waiting.join(", ");
            tracing::warn!(
                changed,
                restart_for = waiting_keys,
                "Reload: some keys need a restart, tunnels stay"
            );
            self.unused = Some(Unused::NeedsRestart(waiting));
        }
        self.config.send_replace(now.clone());
        now
    }

    /// Whether the file on the disk is another one than was read last, and says something else than what `runs`.
    fn look(&mut self, runs: &Config) -> Option<Unused> {
        let stamp = stamp(&self.source.file);
        if stamp == self.seen {
            return self.unused.clone();
        }
        match self.source.load() {
            Ok(fresh) if fresh == *runs => {
                self.seen = stamp;
                None
            }
            Ok(_) | Err(_) => Some(Unused::Unread),
        }
    }
}

impl Agent {
    /// HUP: reads the file again, and `services.d`. What can change changes, no tunnel is dropped; a file that cannot be used changes
    /// nothing.
    pub(super) fn reload(&mut self) {
        self.config = self.reloading.read(&self.config);
        self.defined = Defined::read(&self.reloading.source.services());
        self.publish_defined();
        self.tell_dht();
    }

    /// What was said of the DHT counts at once.
    fn tell_dht(&mut self) {
        match &mut self.place {
            Place::Up(network) => {
                network.dht.configure(&self.config.rendezvous);
                network.tell_dht();
            }
            Place::Joining(joining) => joining.ground.dht.configure(&self.config.rendezvous),
            Place::Idle | Place::Down(_) | Place::Unusable(_) => {}
        }
    }

    /// Once a second: notices that the file was changed.
    pub(super) fn look_at_file(&mut self) {
        self.reloading.unused = self.reloading.look(&self.config);
    }
}

fn stamp(file: &Path) -> Stamp {
    let facts = fs::metadata(file).ok()?;
    Some((facts.mtime(), facts.mtime_nsec(), facts.len(), facts.ino()))
}

/// What to type: the unit's verb where a unit runs this agent.
fn by_hand_or(verb: &str, by_hand: &str) -> String {
    match std::env::var_os("INVOCATION_ID") {
        Some(_) => format!("sudo systemctl {verb} webmesh"),
        None => by_hand.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        api::ReadAccess,
        config::Absence,
        daemon::{
            host_names::HostNames,
            state_dir::{StateDir, tests::scratch},
        },
    };

    struct Desk {
        agent: Agent,
        file: PathBuf,
        settings: watch::Receiver<Config>,
    }

    /// An agent that was started with this text in its file.
    fn started(text: &str) -> Desk {
        let folder = scratch("reload");
        let file = folder.join("config.toml");
        fs::write(&file, text).unwrap();
        let source = Source {
            file: file.clone(),
            absence: Absence::Error,
            tun: None,
            port: None,
        };
        let config = source.load().unwrap();
        let state_dir = StateDir::open(&folder.join("state")).unwrap();
        let host_names = HostNames::beside(&folder.join("webmesh.sock"));
        let agent = Agent::new(config, source, state_dir, host_names);
        Desk {
            settings: agent.reloading.settings(),
            agent,
            file,
        }
    }

    impl Desk {
        fn unused(&self) -> Option<String> {
            self.agent.reloading.health().map(|line| line.message)
        }

        fn read(&self) -> ReadAccess {
            self.settings.borrow().api.read
        }
    }

    #[test]
    fn what_can_change_changes_at_hup_and_not_before() {
        let mut desk = started("");
        fs::write(&desk.file, "[api]\nread = \"group\"\n").unwrap();
        desk.agent.look_at_file();
        assert_eq!(desk.read(), ReadAccess::Anyone);
        assert!(desk.unused().unwrap().ends_with("is not in use yet"));
        desk.agent.reload();
        assert_eq!((desk.read(), desk.unused()), (ReadAccess::Group, None));
    }

    #[test]
    fn a_key_of_the_start_waits_for_a_restart_and_is_named() {
        let mut desk = started("[tun]\nname = \"mesh\"\n");
        fs::write(
            &desk.file,
            "[tun]\nname = \"wm3\"\n[api]\nread = \"group\"\n",
        )
        .unwrap();
        desk.agent.reload();
        assert_eq!(desk.agent.config.tun.name.as_str(), "mesh");
        assert_eq!(desk.read(), ReadAccess::Group);
        let said = desk.unused().unwrap();
        assert!(
            said.starts_with("tun.name in ") && said.ends_with("from the next start"),
            "{said}"
        );
        desk.agent.look_at_file();
        assert_eq!(desk.unused(), Some(said), "a look forgets nothing");
    }

    #[test]
    fn a_bad_file_changes_nothing_and_is_named_with_its_line() {
        let mut desk = started("[api]\nread = \"group\"\n");
        let before = desk.agent.config.clone();
        fs::write(&desk.file, "[api]\nread = \"all\"\nred = 1\n").unwrap();
        desk.agent.reload();
        let remedy = desk.agent.reloading.health().unwrap().remedy.unwrap();
        assert!(remedy.starts_with("mend it, then "), "{remedy}");
        assert_eq!(
            (&desk.agent.config, desk.read()),
            (&before, ReadAccess::Group)
        );
        let said = desk.unused().unwrap();
        assert!(
            said.contains("config.toml:3: unknown field `red`"),
            "{said}"
        );
    }

    #[test]
    fn a_file_that_says_again_what_runs_is_in_use() {
        let mut desk = started("[api]\nread = \"group\"\n");
        fs::write(&desk.file, "# as before\n[api]\nread = \"group\"\n").unwrap();
        desk.agent.look_at_file();
        assert_eq!(desk.unused(), None);
        fs::write(&desk.file, "[api]\nread = \"nobody\"\n").unwrap();
        desk.agent.reload();
        assert!(desk.unused().is_some());
        fs::write(&desk.file, "[api]\nread = \"group\"\n").unwrap();
        desk.agent.reload();
        assert_eq!(desk.unused(), None);
    }
}
