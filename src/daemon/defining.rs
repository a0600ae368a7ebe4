//! Services that files define (`services.d`, design §10): read at the start and at HUP, published while the network is up,
//! withdrawn when they stand in no file any more.
//!
//! What a file defined stays while that file is bad: a slip of the pen takes no service down.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::agent::{Agent, Place};
use crate::{
    api::{self, ApiError, Protocol},
    config::{Absence, Config, Definition, Definitions, Source},
    node::{Node, ServiceRefused, ServiceWish},
    platform::{clock, credentials, tun},
    services::Published,
    tables::Transport,
};

/// What `services.d` holds, and what of it cannot be used.
#[derive(Clone, Debug, Default)]
pub(super) struct Defined {
    read: Definitions,
    /// Why the network takes this or that definition not: `file:line: what`.
    refused: Vec<String>,
}

impl Defined {
    /// Reads the folder; what cannot be used is said in the log, a line each.
    pub(super) fn read(folder: &Path) -> Self {
        let read = Definitions::read(folder);
        for (_, what) in &read.faults {
            tracing::warn!(what, "A file of services.d is not used");
        }
        Self {
            read,
            refused: Vec::new(),
        }
    }

    /// What `health` says.
    pub(super) fn health(&self) -> Vec<api::Health> {
        let faults = self.read.faults.iter().map(|(_, what)| what);
        let line = |what: &String| api::Health {
            level: api::Level::Warning,
            code: "services_unused".to_owned(),
            message: format!("a definition of services is not used: {what}"),
            remedy: Some(
                "mend it, then sudo systemctl reload webmesh or send the agent a HUP".to_owned(),
            ),
        };
        faults.chain(&self.refused).map(line).collect()
    }

    fn is_bad(&self, file: &str) -> bool {
        let mut faults = self.read.faults.iter();
        faults.any(|(bad, _)| Path::new(file).starts_with(bad))
    }
}

impl Agent {
    /// Brings what the network publishes in line with what the files define, if it is up.
    pub(super) fn publish_defined(&mut self) {
        let Place::Up(network) = &mut self.place else {
            return;
        };
        let (mut places, mut wishes, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for definition in &self.defined.read.services {
            let at = format!("{}:{}", definition.file.display(), definition.line);
            let wish = wish(definition);
            let target = wish.target.map(|target| (wish.transport, target));
            match target {
                Some((transport, target)) if network.is_own_socket(transport, target) => {
                    refused.push(format!("{at}: the agent itself listens at this target"));
                }
                Some((_, target)) if network.is_mesh(target.ip()) => refused.push(format!(
                    "{at}: a target lies outside the mesh; leave it out for a program that listens there"
                )),
                Some(_) | None => {
                    places.push(at);
                    wishes.push(wish);
                }
            }
        }
        let defined = &self.defined;
        let is_of_bad_file = |service: &Published| {
            let file = service.defined_in.as_deref();
            file.is_some_and(|file| defined.is_bad(file))
        };
        let node = &mut network.node;
        let outcomes = node.services_define(clock::now(), wishes, is_of_bad_file);
        for (at, outcome) in places.into_iter().zip(outcomes) {
            if let Err(why) = outcome {
                refused.push(format!("{at}: {}", said(&why)));
            }
        }
        for what in &refused {
            tracing::warn!(what, "A service is not published");
        }
        self.defined.refused = refused;
    }
}

/// What the agent of the unit will say of its device, of these definitions and their files, as far as it can be told
/// without a network.
///
/// # Errors
/// The first that it will not take: `file:line: what`; of the device no line.
pub fn judge(source: &Source, config: &Config, definitions: &Definitions) -> Result<(), String> {
    tun::must_be_ours(config.tun.name.as_str())
        .map_err(|refused| format!("{}: {refused}", source.file.display()))?;
    if let (Absence::Defaults, 0, Some(agent)) = (
        source.absence,
        credentials::own_uid(),
        credentials::user_named(AGENT),
    ) {
        must_be_readable(source, definitions, agent)?;
    }
    let mut ports: BTreeMap<(Transport, u16), &str> = BTreeMap::new();
    for definition in &definitions.services {
        let at = format!("{}:{}", definition.file.display(), definition.line);
        let wish = wish(definition);
        Node::judge_wish(&wish).map_err(|refused| format!("{at}: {}", said(&refused)))?;
        if let Some(service) = ports.insert((wish.transport, wish.port), &definition.name) {
            let refused = ServiceRefused::PortTaken {
                port: wish.port,
                service: service.to_owned(),
            };
            return Err(format!("{at}: {refused}"));
        }
    }
    Ok(())
}

/// The user that the unit's agent runs as.
const AGENT: &str = "webmesh";

fn must_be_readable(
    source: &Source,
    definitions: &Definitions,
    agent: (u32, u32),
) -> Result<(), String> {
    let folder = source.file.parent().map(Path::to_owned);
    let files = definitions.services.iter().map(|service| &service.file);
    let mut paths: Vec<PathBuf> = folder.into_iter().collect();
    paths.extend([source.file.clone(), source.services()]);
    paths.extend(files.cloned());
    for path in paths {
        // What is not there is not read either.
        let Ok(facts) = std::fs::metadata(&path) else {
            continue;
        };
        if !may_read(&facts, agent) {
            let (file, way) = (path.display(), if facts.is_dir() { "a+rx" } else { "a+r" });
            return Err(format!(
                "{file}:1: the agent, which is the user {AGENT}, may not read it: sudo chmod {way} {file}"
            ));
        }
    }
    Ok(())
}

/// Whether a user may read a file, or look into a folder, by its mode.
fn may_read(facts: &Metadata, (uid, gid): (u32, u32)) -> bool {
    let shift = match (facts.uid() == uid, facts.gid() == gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    let needed = if facts.is_dir() { 0o5 } else { 0o4 };
    (facts.mode() >> shift) & needed == needed
}

/// Why a service is not published, in the words of `service add`.
fn said(refused: &ServiceRefused) -> String {
    match refused {
        ServiceRefused::Name(name) => ApiError::bad_name("service", name).line(),
        ServiceRefused::InstanceName(name) => ApiError::bad_name("instance", name).line(),
        ServiceRefused::NoWeight
        | ServiceRefused::PortTaken { .. }
        | ServiceRefused::TooMany
        | ServiceRefused::TooLong(_) => refused.to_string(),
    }
}

/// The file in which a service of this machine is defined, if one defines it.
pub(super) fn file_of<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    let mut own = node.own_services().iter();
    own.find_map(|service| {
        let file = service.defined_in.as_deref();
        file.filter(|_| service.name == name)
    })
}

fn wish(definition: &Definition) -> ServiceWish {
    ServiceWish {
        name: definition.name.clone(),
        instance: definition.instance.clone(),
        transport: match definition.port.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        },
        port: definition.port.port,
        target: definition.target,
        tags: definition.tags.clone(),
        weight: definition.weight.unwrap_or(api::USUAL_WEIGHT),
        defined_in: Some(definition.file.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::daemon::state_dir::tests::scratch;

    fn judged(text: &str) -> Result<(), String> {
        let folder = scratch("judge").join("services.d");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.toml"), text).unwrap();
        for path in [folder.join("a.toml"), folder.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let definitions = Definitions::read(&folder);
        assert_eq!(definitions.faults, []);
        let source = Source {
            file: folder.with_file_name("config.toml"),
            absence: Absence::Error,
            tun: None,
            port: None,
        };
        let place = format!("{}/", folder.display());
        judge(&source, &Config::default(), &definitions).map_err(|what| what.replace(&place, ""))
    }

    #[test]
    fn what_the_agent_will_refuse_is_refused_before() {
        if credentials::own_uid() != 0 {
            return;
        }
        assert_eq!(judged("[service.web]\nport = 80\n"), Ok(()));
        for (text, start) in [
            (
                "[service.Bad_name]\nport = 80\n",
                "a.toml:1: \"Bad_name\" cannot be a service's name: ",
            ),
            (
                "\n[service.dns]\nport = 80\n",
                "a.toml:2: \"dns\" cannot be a service's name: ",
            ),
            (
                "[service.web]\nport = 80\ninstance = \"A B\"\n",
                "a.toml:1: \"A B\" cannot be an instance's name: ",
            ),
            (
                "[service.a]\nport = 80\n[service.b]\nport = 80\n",
                "a.toml:3: port 80 of this machine is a's already",
            ),
        ] {
            let what = judged(text).unwrap_err();
            assert!(what.starts_with(start), "{what}");
        }
    }

    #[test]
    fn a_device_that_is_another_s_is_refused_before() {
        let file = Path::new("/nonexistent/config.toml");
        let config = Config::parse("[tun]\nname = \"lo\"\n", file).unwrap();
        let source = Source {
            file: file.to_owned(),
            absence: Absence::Error,
            tun: None,
            port: None,
        };
        let said = judge(&source, &config, &Definitions::default()).unwrap_err();
        assert!(
            said.starts_with("/nonexistent/config.toml: interface lo is there already "),
            "{said}"
        );
    }

    #[test]
    fn whether_the_agent_may_read_is_told_by_owner_group_and_the_rest() {
        let file = scratch("readable").join("config.toml");
        fs::write(&file, "").unwrap();
        let owner = fs::metadata(&file).unwrap();
        let (owner, group, other) = (owner.uid(), owner.gid(), 4711);
        for (mode, agent, may) in [
            (0o600, (other, other), false),
            (0o640, (other, other), false),
            (0o640, (other, group), true),
            (0o604, (other, other), true),
            (0o400, (owner, other), true),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let facts = fs::metadata(&file).unwrap();
            assert_eq!(may_read(&facts, agent), may, "{mode:o}");
        }
        let folder = file.parent().unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o744)).unwrap();
        let facts = fs::metadata(folder).unwrap();
        assert!(!may_read(&facts, (other, other)), "a folder needs x too");
    }
}
