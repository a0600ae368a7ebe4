//! What this host's own resolver shall do for us: the wish beside the socket, kept true while things change around it.
//!
//! The agent itself changes nothing on the host. Root does, woken by the file: a path unit of systemd, or, where the
//! agent was started by hand as root, a thread of its own. What root did is read from its report.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::{sync::watch, time::sleep};

use super::tasks::{self, Task};
use crate::{
    config::DnsMode,
    host_dns::{
        self, Place,
        bus::Bus,
        file, network_manager,
        report::{self, Report},
        resolved, takeover,
        wish::{Device, VERSION, Wish},
    },
    platform::{clock, credentials},
    time::Moment,
};

/// How often the host is looked at for changes that nobody announces.
const LOOK: Duration = Duration::from_secs(1);

/// How long root may take before it is woken again; doubles up to [`RETRY_MOST`].
const RETRY: Duration = Duration::from_secs(2);

/// The longest pause between two tries to wake root.
const RETRY_MOST: Duration = Duration::from_secs(64);

/// How long after a change nothing is said of names while root has not reported: a unit has to be started for it.
const SETTING_UP: Duration = Duration::from_secs(5);

/// How long after it was not there the system bus is tried again; nothing tells when it comes.
const BUS_AGAIN: Duration = Duration::from_secs(10);

/// What a network asks of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) device: String,
    pub(super) domain: String,
    pub(super) pool4: Option<Ipv4Net>,
    pub(super) prefix6: Ipv6Net,
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
}

/// The wish of this agent, and what became of it.
#[derive(Debug)]
pub(super) struct HostNames {
    place: Place,
    standing: Standing,
    report: Option<Report>,
    upstreams: Option<Vec<SocketAddr>>,
    host: Host,
    looked: Moment,
    /// When the file began to say something else, or the host to be another.
    changed: Moment,
    /// Grows when a program that sends us names comes or goes.
    comings: watch::Receiver<u64>,
    wake: Wake,
    _watch: Option<Task>,
}

/// What stands in the file.
#[derive(Debug)]
enum Standing {
    /// Nobody knows what an earlier run left.
    Unknown,
    Nothing,
    Wish(Wish),
}

/// What of the host makes a new look at it worth while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    comings: u64,
    resolv_conf: Option<std::path::PathBuf>,
    changed_at: Option<SystemTime>,
    sources_changed_at: [Option<SystemTime>; 2],
    /// The agent's own configuration is the host's too: root reads in it whether to take over.
    mode: DnsMode,
}

/// When root is woken again, if it does not answer.
#[derive(Clone, Copy, Debug)]
struct Wake {
    at: Moment,
    pause: Duration,
}

impl HostNames {
    /// For the agent with this socket.
    pub(super) fn beside(socket: &Path) -> Self {
        let place = Place::of_socket(socket);
        let (tell, comings) = watch::channel(0);
        let watch = place
            .is_host
            .then(|| tasks::spawn("host-names", count_comings(tell)));
        Self {
            place,
            standing: Standing::Unknown,
            report: None,
            upstreams: None,
            host: Host::default(),
            looked: Moment(0),
            changed: Moment(0),
            comings,
            wake: Wake {
                at: Moment(0),
                pause: RETRY,
            },
            _watch: watch,
        }
    }

    /// Sees to it that the file says what is wanted now, and that root has read it.
    pub(super) fn follow(&mut self, now: Moment, mode: DnsMode, wanted: Option<Wanted>) {
        let is_time = now.since(self.looked) >= LOOK;
        let wish = wanted.and_then(|wanted| self.wish_for(wanted));
        let is_new = !self.stands(wish.as_ref());
        if !is_new && !is_time {
            return;
        }
        self.looked = now;
        let host = self.look(mode);
        let is_elsewhere = std::mem::replace(&mut self.host, host.clone()) != host;
        let report = report::read(&self.place.report);
        let backend = |report: &Option<Report>| report.as_ref().map(|report| report.backend);
        if let Some(by) = backend(&report).filter(|by| backend(&self.report) != Some(*by)) {
            tracing::info!(?by, "Names on this host are set up");
        }
        self.report = report;
        let is_unheard = self.is_unheard() && now >= self.wake.at;
        if !is_new && !is_elsewhere && !is_unheard {
            return;
        }
        if is_new || is_elsewhere {
            self.changed = now;
        }
        let pause = if is_unheard {
            self.wake.pause.saturating_mul(2)
        } else {
            RETRY
        };
        self.wake = Wake {
            at: now.after(pause),
            pause: pause.min(RETRY_MOST),
        };
        self.put(wish);
    }

    /// Looks at the host at the next call, however short the last look is ago.
    pub(super) fn look_again(&mut self) {
        self.looked = Moment(0);
    }

    /// Waits until a program that sends us names has come: it knows nothing yet.
    pub(super) async fn coming(&mut self) {
        if self.comings.changed().await.is_err() {
            // Nobody listens to the bus.
            std::future::pending::<()>().await;
        }
    }

    /// What root did for the device that is up now.
    pub(super) fn report(&self) -> Option<&Report> {
        let Standing::Wish(wish) = &self.standing else {
            return None;
        };
        self.report
            .as_ref()
            .filter(|report| report.index == wish.device.index)
    }

    /// Whether root was told a moment ago and has not answered yet.
    pub(super) fn is_setting_up(&self, now: Moment) -> bool {
        let has_root = is_unit() || self.runs_helper();
        has_root && self.is_unheard() && now.since(self.changed) < SETTING_UP
    }

    /// Whom to ask all other names, while `/etc/resolv.conf` is ours.
    pub(super) fn upstreams(&self) -> Option<&[SocketAddr]> {
        self.upstreams.as_deref()
    }

    /// Whether `/etc/resolv.conf` names one of these.
    pub(super) fn asks(servers: &[IpAddr]) -> bool {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        host_dns::resolv_conf::ResolvConf::parse(&text).asks(servers)
    }

    /// The agent ends, and this is no restart. Under systemd the unit's last command finds no file then and puts the host
    /// back, also when the machine goes down and nothing new is started.
    pub(super) async fn end(self) {
        let _gone_already = file::remove(&self.place.run);
        if is_unit() {
            return;
        }
        if self.runs_helper()
            && let Err(error) = host_dns::revert(&self.place).await
        {
            tracing::warn!(%error, "The host's resolver was not put back");
        }
    }

    fn wish_for(&self, wanted: Wanted) -> Option<Wish> {
        // A device that is just being made anew has no number: the next look finds it.
        let index = nix::net::if_::if_nametoindex(wanted.device.as_str()).ok()?;
        let generation = match &self.standing {
            Standing::Wish(wish) => wish.generation,
            Standing::Unknown | Standing::Nothing => 0,
        };
        Some(Wish {
            version: VERSION,
            generation,
            device: Device {
                name: wanted.device,
                index,
            },
            domain: wanted.domain,
            pool4: wanted.pool4,
            prefix6: wanted.prefix6,
            servers: wanted.servers,
            search: wanted.search,
        })
    }

    fn stands(&self, wish: Option<&Wish>) -> bool {
        match (&self.standing, wish) {
            (Standing::Wish(standing), Some(wish)) => standing == wish,
            (Standing::Nothing, None) => true,
            (Standing::Unknown | Standing::Nothing | Standing::Wish(_), _) => false,
        }
    }

    fn put(&mut self, wish: Option<Wish>) {
        let now_ms = clock::now().unix_ms;
        let wish = wish.map(|wish| Wish {
            generation: now_ms.max(wish.generation + 1),
            ..wish
        });
        let written = match &wish {
            Some(wish) => file::write(&self.place.run, wish),
            None => file::remove(&self.place.run),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "The wish for the host's resolver cannot be written");
        }
        self.standing = wish.map_or(Standing::Nothing, Standing::Wish);
        if self.runs_helper() {
            run_helper(self.place.clone());
        }
    }

    /// Whether root has not done yet what the file says.
    fn is_unheard(&self) -> bool {
        let done = self.report.as_ref().map(|report| report.generation);
        match &self.standing {
            Standing::Wish(wish) => self.place.is_host && done != Some(wish.generation),
            Standing::Unknown | Standing::Nothing => false,
        }
    }

    fn look(&mut self, mode: DnsMode) -> Host {
        let file = self.place.etc.join("resolv.conf");
        let own: &[IpAddr] = match &self.standing {
            Standing::Wish(wish) => &wish.servers,
            Standing::Unknown | Standing::Nothing => &[],
        };
        self.upstreams = takeover::upstreams(&self.place.etc, own);
        Host {
            comings: *self.comings.borrow(),
            resolv_conf: std::fs::read_link(&file).ok(),
            changed_at: file
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok(),
            sources_changed_at: takeover::sources_changed_at(&self.place.etc),
            mode,
        }
    }

    /// By hand and as root there is nobody else to do it.
    fn runs_helper(&self) -> bool {
        self.place.is_host && credentials::own_uid() == 0 && !is_unit()
    }
}

/// Whether a unit of systemd runs this process.
fn is_unit() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// On a thread of its own: it waits for locks and for other programs.
fn run_helper(place: Place) {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let done = match runtime {
            Ok(runtime) => runtime.block_on(host_dns::apply(&place)).map(drop),
            Err(error) => return tracing::warn!(%error, "No thread for the host's resolver"),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "The host's resolver was not set up");
        }
    };
    let started = std::thread::Builder::new()
        .name("host-dns".to_owned())
        .spawn(work);
    if let Err(error) = started {
        tracing::warn!(%error, "No thread for the host's resolver");
    }
}

/// Counts whenever systemd-resolved or NetworkManager comes or goes: a new one knows nothing of what the old was told.
/// The bus may come later than the agent, and be started anew; whoever came meanwhile was not seen, so that counts too.
async fn count_comings(tell: watch::Sender<u64>) {
    let mut is_first = true;
    loop {
        match Bus::of_host().await {
            Some(bus) => {
                if !is_first {
                    tell.send_modify(|comings| *comings += 1);
                }
                let _end = count_on(&bus, &tell).await;
            }
            None if is_first && is_unit() => tracing::warn!(
                "No system bus: each restart of the unit counts as its end, which costs connections and tells the others"
            ),
            None => {}
        }
        is_first = false;
        sleep(BUS_AGAIN).await;
    }
}

/// Until the connection ends.
async fn count_on(bus: &Bus, tell: &watch::Sender<u64>) -> zbus::Result<()> {
    let proxy = zbus::fdo::DBusProxy::new(bus.connection()).await?;
    let mut changes = proxy.receive_name_owner_changed().await?;
    while let Some(change) = changes.next().await {
        let Ok(change) = change.args() else {
            continue;
        };
        let is_one = [resolved::NAME, network_manager::NAME].contains(&change.name().as_str());
        if is_one && change.new_owner().is_some() {
            tell.send_modify(|comings| *comings += 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::state_dir::tests::scratch, host_dns::scratch::Scratch};

    #[test]
    fn names_are_being_set_up_until_root_reports_or_5_s_are_over() {
        let folder = scratch("names");
        let mut names = HostNames::beside(&folder.join("webmesh.sock"));
        names.place.report.clone_from(&folder);
        names.changed = Moment(1);
        let wish = Wish {
            version: VERSION,
            generation: 7,
            device: Device {
                name: "wm0".into(),
                index: 3,
            },
            domain: "home.internal".into(),
            pool4: None,
            prefix6: "fd00::/48".parse().unwrap(),
            servers: Vec::new(),
            search: Vec::new(),
        };
        names.standing = Standing::Wish(wish);
        let at = Moment(1).after(Duration::from_secs(1));
        assert!(
            !names.is_setting_up(at),
            "nobody sets up the names of another agent"
        );
        names.place.is_host = true;
        if !names.runs_helper() {
            return;
        }
        assert!(names.is_setting_up(at));
        assert!(!names.is_setting_up(Moment(1).after(SETTING_UP)));
        names.report = Some(Report {
            generation: 7,
            index: 3,
            backend: crate::api::DnsBackend::None,
            why: String::new(),
        });
        assert!(!names.is_setting_up(at));
    }

    #[test]
    fn another_mode_wakes_root_again() {
        let folder = Scratch::new("host-names");
        let mut names = HostNames::beside(&folder.join("webmesh.sock"));
        let wanted = Wanted {
            device: "lo".to_owned(),
            domain: "home.internal".to_owned(),
            pool4: None,
            prefix6: "fd7c:1a2b:3c4d::/48".parse().unwrap(),
            servers: vec!["fd7c:1a2b:3c4d::53".parse().unwrap()],
            search: Vec::new(),
        };
        let mut generation_at = |looks: u32, mode| {
            let now = Moment(0).after(LOOK * looks);
            names.follow(now, mode, Some(wanted.clone()));
            file::read(&folder).unwrap().unwrap().generation
        };
        let first = generation_at(1, DnsMode::Auto);
        assert_eq!(generation_at(2, DnsMode::Auto), first);
        let second = generation_at(3, DnsMode::Forward);
        assert!(second > first);
        assert_eq!(generation_at(4, DnsMode::Forward), second);
        assert!(generation_at(5, DnsMode::Auto) > second);
    }
}
