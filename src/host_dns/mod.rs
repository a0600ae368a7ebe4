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
pub mod domains;
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
pub(crate) mod scratch;
pub mod takeover;
#[cfg(test)]
mod tests;
mod whole;
pub mod wish;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg, OFlag};

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
    platform::{link::Links, service_manager},
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

/// The pause between two tries to be the only one. The kernel tells of a free lock only those who block.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is tried: for ten seconds. systemd gives the helper half a minute in all.
const TRIES: u32 = 200;

/// How often a wish that changes meanwhile is carried out before whoever wakes us is left to do it again.
const ROUNDS: usize = 3;

/// Why the host was not set up.
#[derive(Debug, thiserror::Error)]
pub enum HostDnsError {
    /// The wish is not believed.
    #[error(transparent)]
    Wish(#[from] file::ReadWishError),
    /// The agent's network is not up.
    #[error("the agent's network is not up here")]
    NoWish,
    /// The configuration wants the host left alone.
    #[error("[dns] mode is \"off\" in {DEFAULT_FILE}: names are left to you")]
    Off,
    /// The configuration wants the takeover.
    #[error("[dns] mode is \"forward\" in {DEFAULT_FILE}: that is a takeover for good")]
    Forward,
    /// The device is not the agent's.
    #[error("{NAME} is refused: {0} is no TUN device of this network", NAME = file::NAME)]
    Device(String),
    /// Somebody sends us our names already.
    #[error("names resolve here already: {0}")]
    Needless(String),
    /// `/etc/resolv.conf` was written by others after a takeover.
    #[error(
        "/etc/resolv.conf was written by somebody else since, and stays as it is; what stood there before the takeover is in /etc/resolv.conf.before-webmesh.old"
    )]
    ChangedByOthers,
    /// Another process holds the lock.
    #[error(
        "another webmesh has been setting up this host's resolver for {} s; try again when it is done",
        (PAUSE * TRIES).as_secs()
    )]
    Busy,
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

    /// Whether the takeover is wanted: a person said it, or the configuration does. None: nobody can read it.
    fn wants_takeover(&self) -> Option<bool> {
        if takeover::is_wanted(&self.etc) || !self.is_host {
            return Some(takeover::is_wanted(&self.etc));
        }
        Some(self.mode()? == DnsMode::Forward)
    }

    /// What the host's configuration says of names. None: it is another agent's place, or nobody can read it.
    fn mode(&self) -> Option<DnsMode> {
        let file = self
            .etc
            .parent()?
            .join(DEFAULT_FILE.trim_start_matches('/'));
        let config = Config::load(&file, Absence::Defaults).ok();
        config
            .filter(|_| self.is_host)
            .map(|config| config.dns.mode)
    }

    /// Root says that the agent's network has this domain.
    ///
    /// # Errors
    /// It cannot be written down; names under it are not sent to the agent.
    pub fn allow_domain(&self, domain: &str) -> Result<(), HostDnsError> {
        domains::add(&self.etc, domain).map_err(cannot_write("/etc/webmesh/domains"))
    }

    /// Root says that the agent's network is gone, and its domain with it.
    ///
    /// # Errors
    /// It still stands there.
    pub fn forget_domain(&self, domain: &str) -> Result<(), HostDnsError> {
        domains::remove(&self.etc, domain).map_err(cannot_write("/etc/webmesh/domains"))
    }

    /// Holds off everybody else who would set up the host.
    async fn lock(&self) -> Result<Flock<File>, HostDnsError> {
        let mut file = self.open_lock()?;
        for _try in 0..TRIES {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(locked),
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => {
                    return Err(cannot_write("the lock beside the reports")(errno.into()));
                }
            };
            tokio::time::sleep(PAUSE).await;
        }
        Err(HostDnsError::Busy)
    }

    /// Opens what is locked. Whoever can open it for reading can hold it, so nobody else may.
    fn open_lock(&self) -> Result<File, HostDnsError> {
        if !self.is_host {
            // Another agent's folder can be anybody's, with links of his in it that lead anywhere.
            file::judge_folder(&self.run)?;
        }
        let failed = || cannot_write("the folder of reports");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.report)
            .map_err(failed())?;
        file::judge_folder(&self.report)?;
        // Under a umask of 077 the agent could not read what stands there.
        fs::set_permissions(&self.report, Permissions::from_mode(0o755)).map_err(failed())?;
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(self.report.join("lock"));
        let lock = opened.map_err(cannot_write("the lock beside the reports"))?;
        lock.set_permissions(Permissions::from_mode(0o600))
            .map_err(cannot_write("the lock beside the reports"))?;
        Ok(lock)
    }
}

/// Sees to it that the host does what the agent wishes for now: sets it up, or puts it back if there is no wish.
///
/// # Errors
/// The wish is not believed, or somebody refuses; the rest of the host is as it was.
pub async fn apply(place: &Place) -> Result<Option<Report>, HostDnsError> {
    let _alone = place.lock().await?;
    let bus = Bus::of_host().await;
    apply_by(place, bus.as_ref()).await
}

async fn apply_by(place: &Place, bus: Option<&Bus>) -> Result<Option<Report>, HostDnsError> {
    let Some(mut wish) = file::read(&place.run)? else {
        put_back(place, bus).await?;
        return Ok(None);
    };
    let mut round = 1;
    loop {
        must_be_ours(&wish)?;
        let report = set_up(place, bus, &wish).await?;
        report::write(&place.report, &report).map_err(cannot_write("the report"))?;
        // A wish that came meanwhile may wake nobody else.
        match file::read(&place.run)? {
            Some(newer) if newer != wish && round < ROUNDS => {
                wish = newer;
                round += 1;
            }
            Some(_) => return Ok(Some(report)),
            None => {
                put_back(place, bus).await?;
                return Ok(None);
            }
        }
    }
}

async fn set_up(place: &Place, bus: Option<&Bus>, wish: &Wish) -> Result<Report, HostDnsError> {
    follow_takeover(place, wish).map_err(cannot_write("/etc/resolv.conf"))?;
    let look = Look::at(&place.etc, bus).await;
    let Choice { backend, why } = may_be_told(place, wish, look.choose());
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

/// Nobody is told of a domain that root did not say. Under a takeover nobody has to be told.
fn may_be_told(place: &Place, wish: &Wish, choice: Choice) -> Choice {
    let is_told = match choice.backend {
        DnsBackend::Resolved | DnsBackend::NetworkManager | DnsBackend::Resolvconf => true,
        DnsBackend::Forward | DnsBackend::None => false,
    };
    if !is_told || domains::allow(&place.etc, &wish.domain) {
        return choice;
    }
    Choice {
        backend: DnsBackend::None,
        why: format!(
            "the agent says that its names end in {domain}, which root has not said: if that is right, \
             echo {domain} | sudo tee -a /etc/webmesh/domains && sudo webmesh up",
            domain = wish.domain
        ),
    }
}

/// Takes `/etc/resolv.conf` over where that is wanted, and gives it back where it no longer is.
fn follow_takeover(place: &Place, wish: &Wish) -> io::Result<()> {
    match place.wants_takeover() {
        // What others have written since is theirs, until the network comes up anew or the person says it again.
        Some(true) if takeover::was_overwritten(&place.etc) => Ok(()),
        Some(true) => takeover::take(&place.etc, wish),
        Some(false) if takeover::stands(&place.etc) || takeover::was_overwritten(&place.etc) => {
            if let Err(error) = judge(takeover::undo(&place.etc)?) {
                tracing::warn!("{error}");
            }
            Ok(())
        }
        // A configuration with a fault in it is not carried out, neither one way nor the other.
        Some(false) | None => Ok(()),
    }
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
    if let (Some(bus), true, DnsBackend::None) = (bus, look.has_resolved(), backend) {
        // It may know a domain of ours that root has taken away since.
        let _knows_nothing = resolved::revert(bus, wish.device.index).await;
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

/// The agent's unit has ended: puts the host back if that was for good. A restart leaves the wish where it is; so does an
/// agent that was killed, and then systemd says whether it was because it did not stop when told to.
///
/// # Errors
/// Something of it is still there.
pub async fn follow_end(place: &Place) -> Result<(), HostDnsError> {
    follow_end_of(place, was_told_to_stop).await
}

/// Without the lock where nothing is to be done: whoever has it would hold up the restart.
async fn follow_end_of(
    place: &Place,
    was_told_to_stop: impl AsyncFnOnce() -> bool,
) -> Result<(), HostDnsError> {
    if file::read(&place.run).is_ok_and(|wish| wish.is_some()) {
        if !was_told_to_stop().await {
            return Ok(());
        }
        // It is nobody's wish any more.
        let _goes_with_its_folder = file::remove(&place.run);
    }
    revert(place).await
}

/// What systemd tells the last command of a unit: `success`, or how it ended otherwise.
const SERVICE_RESULT: &str = "SERVICE_RESULT";

/// How long systemd may take to say which job the unit has.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether the agent was to stop and did not do it by itself: it would have taken its wish back.
async fn was_told_to_stop() -> bool {
    if std::env::var(SERVICE_RESULT).is_ok_and(|result| result == "success") {
        return false;
    }
    let job = tokio::time::timeout(PATIENCE, service_manager::job_of_own_unit()).await;
    matches!(job, Ok(Ok(Some(job))) if job == "stop")
}

/// Puts the host back, whatever of it was set up; a takeover that a person wants comes again with the next wish.
///
/// # Errors
/// Something of it is still there.
pub async fn revert(place: &Place) -> Result<(), HostDnsError> {
    let _alone = place.lock().await?;
    let bus = Bus::of_host().await;
    put_back(place, bus.as_ref()).await
}

async fn put_back(place: &Place, bus: Option<&Bus>) -> Result<(), HostDnsError> {
    // All of it is tried, whatever of it fails; the first fault is what is said.
    let words_back = if place.is_host {
        take_back_words(place, bus).await
    } else {
        Ok(())
    };
    let undone = takeover::undo(&place.etc).map_err(cannot_write("/etc/resolv.conf"));
    let removed = report::remove(&place.report).map_err(cannot_write("the report"));
    words_back?;
    let undone = undone?;
    removed?;
    judge(undone)
}

/// A file that others have written is not what it was.
fn judge(undone: Undone) -> Result<(), HostDnsError> {
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
    let network_manager = network_manager::revert(&place.etc, bus)
        .await
        .map_err(cannot_write("NetworkManager's folder for dnsmasq"));
    let local = local::revert(&place.etc, bus)
        .await
        .map_err(cannot_write("the local resolver's configuration"));
    network_manager.and(local)
}

/// Puts our resolver into `/etc/resolv.conf`, now and whenever the network comes up, until [`hand_back`].
///
/// # Errors
/// There is no network, it is not needed, or the file cannot be written.
pub async fn take_over(place: &Place) -> Result<Report, HostDnsError> {
    let _alone = place.lock().await?;
    let why_not = || match place.mode() {
        Some(DnsMode::Off) => HostDnsError::Off,
        Some(DnsMode::Auto | DnsMode::Forward) | None => HostDnsError::NoWish,
    };
    let wish = file::read(&place.run)?.ok_or_else(why_not)?;
    must_be_ours(&wish)?;
    let bus = Bus::of_host().await;
    let choice = Look::at(&place.etc, bus.as_ref()).await.choose();
    match choice.backend {
        DnsBackend::None | DnsBackend::Forward => {}
        DnsBackend::Resolved | DnsBackend::NetworkManager | DnsBackend::Resolvconf => {
            return Err(HostDnsError::Needless(choice.why));
        }
    }
    takeover::take(&place.etc, &wish).map_err(cannot_write("/etc/resolv.conf"))?;
    if let Err(error) = takeover::want(&place.etc, true) {
        let _as_it_was = takeover::undo(&place.etc);
        return Err(cannot_write("/etc/webmesh")(error));
    }
    let report = set_up(place, bus.as_ref(), &wish).await?;
    report::write(&place.report, &report).map_err(cannot_write("the report"))?;
    Ok(report)
}

/// Gives `/etc/resolv.conf` back, for good.
///
/// # Errors
/// It cannot be written, or is somebody else's by now.
pub async fn hand_back(place: &Place) -> Result<(), HostDnsError> {
    let alone = place.lock().await?;
    if place.mode() == Some(DnsMode::Forward) {
        return Err(HostDnsError::Forward);
    }
    takeover::want(&place.etc, false).map_err(cannot_write("/etc/webmesh"))?;
    let undone = takeover::undo(&place.etc).map_err(cannot_write("/etc/resolv.conf"))?;
    drop(alone);
    if place.is_host {
        match apply(place).await {
            // What an agent wished for that was killed with its device is nobody's wish any more.
            Err(HostDnsError::Device(_)) => revert(place).await?,
            done => drop(done?),
        }
    } else {
        report::remove(&place.report).map_err(cannot_write("the report"))?;
    }
    judge(undone)
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
