//! The agent's state: which network it is in, if any, and what a person may ask of it.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{
    defining::Defined,
    host_names::{HostNames, Wanted},
    joining::Joining,
    kept_file::Identity as Seeds,
    network::{Device, Network},
    ownership,
    port_mapping::PortMapping,
    reload::Reloading,
    sealing,
    starting::{self, Before, Ground},
    state_dir::{Found, NetworkFolder, StateDir},
    supervisor::Supervisor,
    view::Published,
};
use crate::{
    api::{self, ApiError},
    config::{Config, DnsMode, Source},
    ids::{Boot, NetworkId},
    node::{Ipv4Use, Restored, status::Snapshot},
    platform::{clock, guard::Guard, tun::Spare, udp::Held},
};

/// Everything the loop owns.
#[derive(Debug)]
pub(super) struct Agent {
    /// The settings that run.
    pub(super) config: Config,
    /// The file they come from.
    pub(super) reloading: Reloading,
    /// The services that files define.
    pub(super) defined: Defined,
    pub(super) state_dir: StateDir,
    pub(super) place: Place,
    /// A guard that stands, for the network that comes up next.
    guard: Option<Guard>,
    /// A device that stands, for the same.
    device: Option<Spare>,
    pub(super) host_names: HostNames,
    pub(super) supervisor: Supervisor,
    pub(super) port_mapping: PortMapping,
    published: watch::Sender<Arc<Published>>,
}

/// Where the agent stands.
#[derive(Debug)]
pub(super) enum Place {
    /// In no network.
    Idle,
    /// On its way into one.
    Joining(Box<Joining>),
    /// In one.
    Up(Box<Network>),
    /// In one, and told to be down.
    Down(Box<Downed>),
    /// In one whose files cannot be used; why, and what to do.
    Unusable(ApiError),
}

/// Why a folder that opens is of no use.
const NO_NETWORK_RECORD: &str = "its record log does not say which network it is";

/// A network that is down.
#[derive(Debug)]
pub(super) struct Downed {
    pub(super) path: PathBuf,
    pub(super) snapshot: Snapshot,
}

impl Agent {
    /// An agent in no network yet.
    pub(super) fn new(
        config: Config,
        source: Source,
        state_dir: StateDir,
        host_names: HostNames,
    ) -> Self {
        let (published, _) = watch::channel(Arc::new(Published::nothing(Vec::new())));
        Self {
            defined: Defined::read(&source.services()),
            reloading: Reloading::new(source, &config),
            config,
            state_dir,
            place: Place::Idle,
            guard: None,
            device: None,
            host_names,
            supervisor: Supervisor::of_this_process(),
            port_mapping: PortMapping::idle(),
            published,
        }
    }

    /// Where the newest look at the agent is found.
    pub(super) fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Takes up the network that was found on the disk.
    ///
    /// # Errors
    /// The device or a socket cannot be had; the agent is of no use like this.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        let resumed = self.take_up_what_is_there();
        self.supervisor.throw_away_rest();
        resumed?;
        if matches!(self.place, Place::Idle) {
            starting::try_port(&self.config)?;
        }
        Ok(())
    }

    fn take_up_what_is_there(&mut self) -> anyhow::Result<()> {
        let folders = self.state_dir.network_folders()?;
        let Some(path) = folders.first() else {
            return Ok(());
        };
        match NetworkFolder::open(path.clone()) {
            Ok((folder, found)) if found.kept.down => self.rest(folder, found),
            Ok((folder, found)) => self.take_up(folder, found, None)?,
            Err(error) => self.give_up(error.into()),
        }
        Ok(())
    }

    /// Publishes what there is to see now.
    pub(super) fn publish(&mut self) {
        let wanted = self.wanted_names();
        self.host_names
            .follow(clock::moment(), self.config.dns.mode, wanted);
        if let Place::Up(network) = &mut self.place {
            network.forward_to(self.host_names.upstreams());
        }
        let mut published = match &self.place {
            Place::Idle => Published::nothing(Vec::new()),
            Place::Joining(_) => Published {
                is_joining: true,
                ..Published::nothing(Vec::new())
            },
            Place::Up(network) => {
                Published::up(clock::now(), network, &self.config, &self.host_names)
            }
            Place::Down(downed) => Published::down(&downed.snapshot, &self.config),
            Place::Unusable(why) => Published::nothing(vec![api::Health {
                level: api::Level::Error,
                code: "state_unusable".to_owned(),
                message: why.message.clone(),
                remedy: why.remedy.clone(),
            }]),
        };
        published.status.health.extend(self.reloading.health());
        published.status.health.extend(self.defined.health());
        self.published.send_replace(Arc::new(published));
    }

    /// Asks the router while a network is up, and tells the network what the router said.
    pub(super) fn tend_port_mapping(&mut self) {
        let Place::Up(network) = &mut self.place else {
            return self.port_mapping.want(None);
        };
        let is_wanted = self.config.rendezvous.port_mapping;
        self.port_mapping
            .want(Some(&network.mapping_wish).filter(|_| is_wanted));
        network.take_finding(&self.port_mapping.finding());
    }

    /// What the host's resolver shall do for the network that is up.
    fn wanted_names(&self) -> Option<Wanted> {
        let Place::Up(network) = &self.place else {
            return None;
        };
        match self.config.dns.mode {
            DnsMode::Off => None,
            DnsMode::Auto | DnsMode::Forward => network.wanted_names(self.config.dns.search),
        }
    }

    /// The network, if it is up.
    ///
    /// # Errors
    /// What is to be said otherwise.
    pub(super) fn network(&mut self) -> Result<&mut Network, ApiError> {
        match &mut self.place {
            Place::Up(network) => Ok(network),
            Place::Idle | Place::Joining(_) => Err(ApiError::no_network()),
            Place::Down(downed) => Err(ApiError::network_down(&downed.snapshot.name)),
            Place::Unusable(why) => Err(why.clone()),
        }
    }

    /// That this machine is in no network, as `init` and `join` need.
    ///
    /// # Errors
    /// What is to be said otherwise.
    pub(super) fn must_be_idle(&self) -> Result<(), ApiError> {
        match &self.place {
            Place::Idle => Ok(()),
            Place::Joining(joining) => Err(ApiError::could_not(
                api::Code::AlreadyInNetwork,
                format!(
                    "this machine is joining {}'s network right now",
                    joining.issuer_name()
                ),
            )
            .remedy("wait until that ends")),
            Place::Up(network) => Err(ApiError::already_in(
                &network.node.status(clock::now()).name,
            )),
            Place::Down(downed) => Err(ApiError::already_in(&downed.snapshot.name)),
            Place::Unusable(why) => Err(why.clone()),
        }
    }

    /// Brings a network up that has files already.
    ///
    /// # Errors
    /// The place is as it was.
    pub(super) fn bring_up(
        &mut self,
        folder: NetworkFolder,
        id: NetworkId,
        restored: Restored,
        ground: Ground,
        boot: Boot,
    ) -> anyhow::Result<()> {
        let identity = starting::identity_of(&folder.identity, boot);
        let before = Before {
            folder,
            restored,
            ground,
            guard: self.guard.take(),
            device: self.device.take(),
        };
        let host = (&self.config, &mut self.supervisor);
        let network = starting::start(host, identity, id, before)
            .inspect_err(|_| self.supervisor.forget_network(id))?;
        let status = network.node.status(clock::now());
        tracing::info!(
            network = status.name,
            name = status.own.name,
            "Network is up"
        );
        self.place = Place::Up(Box::new(network));
        self.publish_defined();
        Ok(())
    }

    /// Gives the network that was founded and is up its name on the disk.
    ///
    /// # Errors
    /// It is forgotten at the next start.
    pub(super) fn settle_up(&mut self) -> std::io::Result<()> {
        match &mut self.place {
            Place::Up(network) => {
                let id = network.node.network_id();
                self.state_dir.settle(&mut network.folder, id)
            }
            Place::Idle | Place::Joining(_) | Place::Down(_) | Place::Unusable(_) => Ok(()),
        }
    }

    /// Takes the network down; its files stay.
    pub(super) fn take_down(&mut self, mut network: Network) -> NetworkFolder {
        let now = clock::now();
        self.supervisor.forget_network(network.node.network_id());
        network.node.say_left(now);
        network.stop(Device::Gone)
    }

    /// The network comes up anew after the own addresses changed. Neither its device nor its UDP port is let go of: what
    /// others were told of the device stays told, and connections whose addresses stay go on. Sessions are made again, as
    /// after a restart.
    ///
    /// # Errors
    /// The network is not up any more, and cannot be brought up.
    pub(super) fn restart_network(&mut self) -> anyhow::Result<()> {
        let Place::Up(mut network) = std::mem::replace(&mut self.place, Place::Idle) else {
            return Ok(());
        };
        let id = network.node.network_id();
        let sockets = network.data.sockets().try_clone()?;
        self.guard = network.guarding.hand_over();
        self.device = network.spare_device();
        let fate = match self.device {
            Some(_) => Device::Left,
            None => Device::Gone,
        };
        let path = network.stop(fate).path().to_owned();
        if fate == Device::Gone {
            self.supervisor.forget_network(id);
        }
        let (folder, found) = NetworkFolder::open(path)?;
        self.take_up(folder, found, Some(sockets))?;
        if !matches!(self.place, Place::Up(_)) {
            self.device = None;
            self.supervisor.forget_network(id);
        }
        Ok(())
    }

    /// Looks at files that could not be taken up: the network stays, down until the next start or `up`.
    pub(super) fn look_at(&mut self, path: PathBuf) {
        match NetworkFolder::open(path) {
            Ok((folder, found)) => self.rest(folder, found),
            Err(error) => self.give_up(error.into()),
        }
    }

    /// `up`: the network whose files are at `path` runs again, also where that cannot be written down.
    ///
    /// # Errors
    /// It stays down.
    pub(super) fn wake_up(&mut self, path: PathBuf) -> anyhow::Result<()> {
        let (mut folder, mut found) = NetworkFolder::open(path)?;
        found.kept.down = false;
        let stored = folder.store_kept(&found.kept, "state");
        self.take_up(folder, found, None)?;
        if let (Err(error), Place::Up(network)) = (stored, &mut self.place) {
            network.note_unsaved(&error);
        }
        Ok(())
    }

    /// The seeds of a peer to be.
    pub(super) fn draw_seeds() -> Seeds {
        Seeds {
            node_seed: sealing::draw(),
            tunnel_seed: sealing::draw(),
        }
    }

    /// `sockets` are those that it has already.
    fn take_up(
        &mut self,
        folder: NetworkFolder,
        found: Found,
        sockets: Option<Held>,
    ) -> anyhow::Result<()> {
        let Some(id) = found.network else {
            self.give_up(anyhow::anyhow!(NO_NETWORK_RECORD));
            return Ok(());
        };
        let ground = match sockets {
            Some(sockets) => starting::stay_on_ground(&self.config, &self.supervisor, sockets)?,
            None => starting::break_ground(&self.config, &mut self.supervisor)?,
        };
        self.bring_up(folder, id, restored(found), ground, sealing::draw_boot())
    }

    fn rest(&mut self, folder: NetworkFolder, found: Found) {
        let Some(id) = found.network else {
            return self.give_up(anyhow::anyhow!(NO_NETWORK_RECORD));
        };
        let identity = starting::identity_of(&folder.identity, sealing::draw_boot());
        let (node, _) =
            starting::make_node(&self.config, &identity, id, &restored(found), Ipv4Use::On);
        self.place = Place::Down(Box::new(Downed {
            path: folder.path().to_owned(),
            snapshot: node.status(clock::now()),
        }));
    }

    fn give_up(&mut self, error: anyhow::Error) {
        let why = format!("{error:#}");
        tracing::error!(
            why,
            "Network on the disk cannot be used; nothing of it was touched"
        );
        self.place = Place::Unusable(if ownership::is_closed(error.as_ref()) {
            ApiError::state_closed(&why, &self.state_dir.path().display().to_string())
        } else {
            ApiError::state_unusable(&why)
        });
    }
}

fn restored(found: Found) -> Restored {
    Restored {
        records: found.records,
        rows: found.rows,
        kept: found.kept,
    }
}
