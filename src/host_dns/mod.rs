//! The host's own resolver sends us our names, and only them: what root does for the agent (design §11).
//!
//! The agent has no rights over `/etc` and none over systemd-resolved. It writes a [`wish::Wish`] beside its socket;
//! [`apply`], [`revert`] and [`take_over`], the three verbs of `webmesh dns-helper`, are run by root (a unit of systemd, or the
//! command line), read that file as a stranger's, and do what it may ask for. What was done stands in a
//! [`report::Report`].
//!
//! Whoever sends us our names is chosen by [`look::Look`]: systemd-resolved, NetworkManager's dnsmasq, a local resolver
//! that others configure, or `/etc/resolv.conf` itself where a person said `webmesh dns takeover`. Where none of them is
//! there nothing is touched.
//!
//! Knows the host's files and bus. Refuses to know peers, records and packets, and to change anything that is not about
//! the zones of the wish.

pub mod bus;
mod dnsmasq;
#[cfg(test)]
mod double;
pub mod file;
mod local;
pub mod look;
pub mod network_manager;
pub mod report;
pub mod resolv_conf;
pub mod resolved;
#[cfg(test)]
mod scratch;
pub mod takeover;
#[cfg(test)]
mod tests;
pub mod wish;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use self::{
    bus::Bus,
    look::{Choice, Look},
    report::Report,
    takeover::Undone,
    wish::Wish,
};
use crate::{
    api::{DEFAULT_SOCKET, DnsBackend},
    config::{Absence, Config, DEFAULT_FILE, DnsMode},
    platform::link::Links,
};

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder of the agent's socket.
    pub run: PathBuf,
    /// Where root keeps its report.
    pub report: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
    /// Whether this is the host's one agent, for which the host is set up unasked.
    pub is_host: bool,
}

/// The folder of root's report for the host's one agent.
const REPORTS: &str = "/run/webmesh-dns";

/// The same beside the socket of any other agent.
const REPORTS_BESIDE: &str = "host-dns";

/// Why the host was not set up.
#[derive(Debug, thiserror::Error)]
pub enum HostDnsError {
    /// The wish is not believed.
    #[error(transparent)]
    Wish(#[from] file::ReadWishError),
    /// The agent's network is not up.
    #[error("the agent's network is not up here")]
    NoWish,
    /// The device is not the agent's.
    #[error("{NAME} is refused: {0} is no TUN device of this network", NAME = file::NAME)]
    Device(String),
    /// Somebody sends us our names already.
    #[error("names resolve here already: {0}")]
    Needless(String),
    /// `/etc/resolv.conf` was written by others after a takeover.
    #[error(
        "/etc/resolv.conf was written by somebody else since; it is left alone (before the takeover it was /etc/resolv.conf.before-webmesh)"
    )]
    ChangedByOthers,
    /// A file could not be written.
    #[error("cannot write {what}: {source}")]
    File {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn cannot_write(what: &'static str) -> impl FnOnce(io::Error) -> HostDnsError {
    move |source| HostDnsError::File { what, source }
}

impl Place {
    /// The place of the agent with this socket.
    pub fn of_socket(socket: &Path) -> Self {
        let run = socket.parent().unwrap_or(Path::new(".")).to_owned();
        let is_host = socket == Path::new(DEFAULT_SOCKET);
        let report = if is_host {
            REPORTS.into()
        } else {
            run.join(REPORTS_BESIDE)
        };
        Self {
            run,
            report,
            etc: "/etc".into(),
            is_host,
        }
    }

    /// Whether the takeover is wanted: a person said it, or the configuration does.
    fn wants_takeover(&self) -> bool {
        let configured = || {
            let config = Config::load(Path::new(DEFAULT_FILE), Absence::Defaults);
            config.is_ok_and(|config| config.dns.mode == DnsMode::Forward)
        };
        takeover::is_wanted(&self.etc) || (self.is_host && configured())
    }

    /// Holds off everybody else who would set up the host.
    fn lock(&self) -> Result<nix::fcntl::Flock<File>, HostDnsError> {
        let failed = cannot_write("the folder of reports");
        // Under a umask of 077 the agent could not read what stands there.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let locked = fs::create_dir_all(&self.report)
            .and_then(|()| fs::set_permissions(&self.report, readable))
            .and_then(|()| File::create(self.report.join("lock")))
            .and_then(|file| {
                nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
                    .map_err(|(_, errno)| errno.into())
            });
        locked.map_err(failed)
    }
}

/// Sees to it that the host does what the agent wishes for now: sets it up, or puts it back if there is no wish.
///
/// # Errors
/// The wish is not believed, or somebody refuses; the rest of the host is as it was.
pub async fn apply(place: &Place) -> Result<Option<Report>, HostDnsError> {
    let _alone = place.lock()?;
    let bus = Bus::of_host().await;
    apply_by(place, bus.as_ref()).await
}

async fn apply_by(place: &Place, bus: Option<&Bus>) -> Result<Option<Report>, HostDnsError> {
    let Some(mut wish) = file::read(&place.run)? else {
        put_back(place, bus).await?;
        return Ok(None);
    };
    loop {
        must_be_ours(&wish)?;
        let report = set_up(place, bus, &wish).await?;
        report::write(&place.report, &report).map_err(cannot_write("the report"))?;
        // A wish that came meanwhile may wake nobody else.
        match file::read(&place.run)? {
            Some(newer) if newer != wish => wish = newer,
            Some(_) => return Ok(Some(report)),
            None => {
                put_back(place, bus).await?;
                return Ok(None);
            }
        }
    }
}

async fn set_up(place: &Place, bus: Option<&Bus>, wish: &Wish) -> Result<Report, HostDnsError> {
    // What others have written since is theirs, until the person says it again.
    if place.wants_takeover() && !takeover::was_overwritten(&place.etc) {
        takeover::take(&place.etc, wish).map_err(cannot_write("/etc/resolv.conf"))?;
    }
    let look = Look::at(&place.etc, bus).await;
    let Choice { backend, why } = look.choose();
    let done = carry_out(place, bus, &look, (backend, wish)).await;
    let (backend, why) = match done {
        Ok(()) => (backend, why),
        Err(error) => (DnsBackend::None, format!("{why}, but it failed: {error:#}")),
    };
    Ok(Report {
        generation: wish.generation,
        index: wish.device.index,
        backend,
        why,
    })
}

async fn carry_out(
    place: &Place,
    bus: Option<&Bus>,
    look: &Look,
    (backend, wish): (DnsBackend, &Wish),
) -> anyhow::Result<()> {
    if !place.is_host {
        // What other programs here were told is the host's own agent's.
        return Ok(());
    }
    if backend != DnsBackend::NetworkManager {
        network_manager::revert(&place.etc, bus).await?;
    }
    if backend != DnsBackend::Resolvconf {
        local::revert(&place.etc, bus).await?;
    }
    match (backend, bus) {
        (DnsBackend::Resolved, Some(bus)) => resolved::apply(bus, wish).await?,
        (DnsBackend::NetworkManager, Some(bus)) => {
            network_manager::apply(&place.etc, bus, wish).await?;
        }
        (DnsBackend::Resolvconf, bus) => local::apply(&place.etc, bus, look.local, wish).await?,
        (DnsBackend::Resolved | DnsBackend::NetworkManager, None)
        | (DnsBackend::Forward | DnsBackend::None, _) => {}
    }
    Ok(())
}

/// Puts the host back, whatever of it was set up; a takeover that a person wants comes again with the next wish.
///
/// # Errors
/// Something of it is still there.
pub async fn revert(place: &Place) -> Result<(), HostDnsError> {
    let _alone = place.lock()?;
    let bus = Bus::of_host().await;
    put_back(place, bus.as_ref()).await
}

async fn put_back(place: &Place, bus: Option<&Bus>) -> Result<(), HostDnsError> {
    if place.is_host {
        take_back_words(place, bus).await?;
    }
    let undone = takeover::undo(&place.etc).map_err(cannot_write("/etc/resolv.conf"))?;
    report::remove(&place.report).map_err(cannot_write("the report"))?;
    match undone {
        Undone::Restored | Undone::Nothing => Ok(()),
        Undone::ChangedByOthers => Err(HostDnsError::ChangedByOthers),
    }
}

/// Takes back what other programs were told.
async fn take_back_words(place: &Place, bus: Option<&Bus>) -> Result<(), HostDnsError> {
    if let (Some(bus), Some(report)) = (bus, report::read(&place.report))
        && report.backend == DnsBackend::Resolved
    {
        // With the device resolved has forgotten it already.
        let _forgotten = resolved::revert(bus, report.index).await;
    }
    network_manager::revert(&place.etc, bus)
        .await
        .map_err(cannot_write("NetworkManager's folder for dnsmasq"))?;
    local::revert(&place.etc, bus)
        .await
        .map_err(cannot_write("the local resolver's configuration"))
}

/// Puts our resolver into `/etc/resolv.conf`, now and whenever the network comes up, until [`hand_back`].
///
/// # Errors
/// There is no network, it is not needed, or the file cannot be written.
pub async fn take_over(place: &Place) -> Result<Report, HostDnsError> {
    let _alone = place.lock()?;
    let wish = file::read(&place.run)?.ok_or(HostDnsError::NoWish)?;
    must_be_ours(&wish)?;
    let bus = Bus::of_host().await;
    let choice = Look::at(&place.etc, bus.as_ref()).await.choose();
    match choice.backend {
        DnsBackend::None | DnsBackend::Forward => {}
        DnsBackend::Resolved | DnsBackend::NetworkManager | DnsBackend::Resolvconf => {
            return Err(HostDnsError::Needless(choice.why));
        }
    }
    takeover::want(&place.etc, true).map_err(cannot_write("/etc/webmesh"))?;
    takeover::take(&place.etc, &wish).map_err(cannot_write("/etc/resolv.conf"))?;
    let report = set_up(place, bus.as_ref(), &wish).await?;
    report::write(&place.report, &report).map_err(cannot_write("the report"))?;
    Ok(report)
}

/// Gives `/etc/resolv.conf` back, for good.
///
/// # Errors
/// It cannot be written, or is somebody else's by now.
pub async fn hand_back(place: &Place) -> Result<(), HostDnsError> {
    let alone = place.lock()?;
    takeover::want(&place.etc, false).map_err(cannot_write("/etc/webmesh"))?;
    let undone = takeover::undo(&place.etc).map_err(cannot_write("/etc/resolv.conf"))?;
    drop(alone);
    if place.is_host {
        apply(place).await?;
    } else {
        report::remove(&place.report).map_err(cannot_write("the report"))?;
    }
    match undone {
        Undone::Restored | Undone::Nothing => Ok(()),
        Undone::ChangedByOthers => Err(HostDnsError::ChangedByOthers),
    }
}

/// The device has this number, is a TUN, and has an address of the network: nobody gets a device of others set up.
fn must_be_ours(wish: &Wish) -> Result<(), HostDnsError> {
    let is_ours = || -> io::Result<bool> {
        let mut links = Links::open()?;
        let device = &wish.device;
        let is_device = |link: &crate::platform::link::Link| {
            link.index == device.index && link.name == device.name && link.is_tun()
        };
        let has_device = links.list()?.iter().any(is_device);
        let in_network = |address: &crate::platform::link::Address| match address.net {
            ipnet::IpNet::V6(net) => {
                address.link == device.index && wish.prefix6.contains(&net.addr())
            }
            ipnet::IpNet::V4(_) => false,
        };
        Ok(has_device && links.addresses()?.iter().any(in_network))
    };
    if is_ours().unwrap_or(false) {
        Ok(())
    } else {
        Err(HostDnsError::Device(wish.device.name.clone()))
    }
}
