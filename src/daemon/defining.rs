//! Services that files define (`services.d`, design §10): read at the start and at HUP, published while the network is up,
//! withdrawn when they stand in no file any more.
//!
//! What a file defined stays while that file is bad: a slip of the pen takes no service down.

use std::path::Path;

use super::agent::{Agent, Place};
use crate::{
    api::{self, Protocol},
    config::{Definition, Definitions},
    node::{Node, ServiceWish},
    platform::clock,
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
        let now = clock::now();
        let mut refused = Vec::new();
        let mut stands = Vec::new();
        for definition in &self.defined.read.services {
            let at = format!("{}:{}", definition.file.display(), definition.line);
            let wish = wish(definition);
            let target = wish.target.map(|target| (wish.transport, target));
            let outcome = match target {
                Some((transport, target)) if network.is_own_socket(transport, target) => {
                    Err("the agent itself listens at this target".to_owned())
                }
                Some((_, target)) if network.is_mesh(target.ip()) => Err(
                    "a target lies outside the mesh; leave it out for a program that listens there"
                        .to_owned(),
                ),
                Some(_) | None => network
                    .node
                    .service_add(now, wish)
                    .map_err(|refused| refused.to_string()),
            };
            match outcome {
                Ok(published) => stands.push((published.name, published.instance)),
                Err(why) => {
                    tracing::warn!(what = format!("{at}: {why}"), "A service is not published");
                    refused.push(format!("{at}: {why}"));
                }
            }
        }
        let defined = &self.defined;
        let _some_were_gone = network.node.services_remove(now, |service| {
            let is_defined = |(name, instance): &(String, String)| {
                service.name == *name && service.instance == *instance
            };
            match &service.defined_in {
                Some(file) => !stands.iter().any(is_defined) && !defined.is_bad(file),
                None => false,
            }
        });
        self.defined.refused = refused;
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
