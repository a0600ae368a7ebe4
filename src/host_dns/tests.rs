//! systemd-resolved as a double on a bus of the test's own: what it is told, word by word. The lock, and what is put back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use zbus::{object_server::SignalEmitter, zvariant::OwnedObjectPath};

use super::{
    HostDnsError, Place, bus::Bus, double, file, follow_end_of, follow_takeover, hand_back, local,
    look::Local, put_back, report, resolved, scratch::Scratch, take_over, takeover,
    wish::tests::good,
};
use crate::api::DnsBackend;

/// A bus that ends with the test.
struct TestBus {
    daemon: Child,
    address: String,
    _folder: Scratch,
}

impl TestBus {
    fn start(what: &str) -> Self {
        let folder = Scratch::new(what);
        let config = folder.join("bus.conf");
        let socket = folder.join("socket");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need dbus-daemon: apt-get install dbus-daemon");
        // It prints its address once it listens.
        let mut line = String::new();
        let stdout = daemon.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        Self {
            daemon,
            address: line.trim().to_owned(),
            _folder: folder,
        }
    }

    async fn connect(&self) -> Bus {
        Bus::at(&self.address).await.unwrap()
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        let _gone = self.daemon.kill();
        let _gone = self.daemon.wait();
    }
}

#[tokio::test]
async fn resolved_is_told_of_our_zones_and_of_nothing_else() {
    let test_bus = TestBus::start("resolved");
    let (_double, said) = double::serve(&test_bus.address, nix::unistd::geteuid().as_raw()).await;
    let bus = test_bus.connect().await;
    assert!(bus.has_owner(resolved::NAME).await);
    resolved::apply(&bus, &good()).await.unwrap();
    resolved::revert(&bus, 7).await.unwrap();
    let v4 = "(2, [100, 71, 255, 53])";
    let v6 = "(10, [253, 124, 26, 43, 60, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 83])";
    assert_eq!(
        *said.lock().unwrap(),
        [
            &format!("DNS 7 [{v4}, {v6}]"),
            "Domains 7 home.internal svc.home.internal ~71.100.in-addr.arpa ~d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa",
            "DefaultRoute 7 false",
            "LLMNR 7 no",
            "MulticastDNS 7 no",
            "DNSSEC 7 no",
            "DNSOverTLS 7 no",
            "FlushCaches",
            "Revert 7",
        ]
    );
}

#[tokio::test]
async fn without_resolved_the_call_fails_and_says_so() {
    let test_bus = TestBus::start("no-resolved");
    let bus = test_bus.connect().await;
    assert!(!bus.has_owner(resolved::NAME).await);
    assert!(resolved::apply(&bus, &good()).await.is_err());
    assert!(Bus::at("unix:path=/nonexistent/bus").await.is_none());
}

/// systemd, whose restarts end when the test says so.
struct Systemd {
    orders: UnboundedSender<(SignalEmitter<'static>, String)>,
    is_heard: bool,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    #[zbus(name = "Subscribe")]
    fn subscribe(&mut self) -> zbus::fdo::Result<()> {
        match std::mem::replace(&mut self.is_heard, true) {
            false => Ok(()),
            true => Err(zbus::fdo::Error::Failed("AlreadySubscribed".to_owned())),
        }
    }

    #[zbus(name = "TryRestartUnit")]
    fn try_restart_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> OwnedObjectPath {
        self.orders.send((emitter.to_owned(), unit)).unwrap();
        job(7)
    }

    #[zbus(signal, name = "JobRemoved")]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        number: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

fn job(number: u32) -> OwnedObjectPath {
    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
}

#[tokio::test]
async fn dnsmasq_is_told_when_it_runs_again() {
    let folder = Scratch::new("dnsmasq-restarts");
    let etc = place(&folder).etc;
    fs::create_dir(etc.join("dnsmasq.d")).unwrap();
    let test_bus = TestBus::start("dnsmasq");
    let (asked, mut orders) = unbounded_channel();
    let systemd = zbus::connection::Builder::address(test_bus.address.as_str()).unwrap();
    let systemd = systemd.name("org.freedesktop.systemd1").unwrap();
    let double = Systemd {
        orders: asked,
        is_heard: false,
    };
    let systemd = systemd.serve_at("/org/freedesktop/systemd1", double);
    let _systemd = systemd.unwrap().build().await.unwrap();
    let (bus, mut wish) = (test_bus.connect().await, good());
    for _twice in 0..2 {
        // Another file each time.
        wish.servers.truncate(wish.servers.len() - 1);
        let mut telling = std::pin::pin!(local::apply(&etc, Some(&bus), Local::Dnsmasq, &wish));
        let (emitter, unit) = tokio::select! {
            early = &mut telling => panic!("before dnsmasq was told: {early:?}"),
            order = orders.recv() => order.unwrap(),
        };
        for (number, other) in [(6, "cron.service"), (8, unit.as_str())] {
            let said = Systemd::job_removed(&emitter, number, job(number), other, "done");
            said.await.unwrap();
        }
        let early = tokio::time::timeout(Duration::from_millis(100), &mut telling).await;
        assert!(early.is_err(), "before dnsmasq runs again: {early:?}");
        Systemd::job_removed(&emitter, 7, job(7), &unit, "done")
            .await
            .unwrap();
        telling.await.unwrap();
    }
}

/// Another agent's place, with an `/etc` of its own.
fn place(folder: &Path) -> Place {
    let etc = folder.join("etc");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    Place {
        run: folder.to_owned(),
        report: folder.join("host-dns"),
        etc,
        is_host: false,
    }
}

#[tokio::test]
async fn the_lock_is_for_its_owner_alone_and_waits_for_whoever_has_it() {
    let folder = Scratch::new("lock");
    let place = place(&folder);
    let lock = place.report.join("lock");
    fs::create_dir(&place.report).unwrap();
    fs::write(&lock, "kept").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    let first = place.lock().await.unwrap();
    let mode = fs::metadata(&lock).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&lock).unwrap(), "kept");
    let (second, ()) = tokio::join!(place.lock(), async { drop(first) });
    second.unwrap();
}

#[tokio::test]
async fn nothing_is_written_through_links_or_into_a_folder_of_others() {
    let folder = Scratch::new("lock-links");
    let place = place(&folder);
    let victim = folder.join("victim");
    fs::write(&victim, "kept").unwrap();
    fs::create_dir(&place.report).unwrap();
    symlink(&victim, place.report.join("lock")).unwrap();
    assert!(place.lock().await.is_err());
    symlink(&victim, place.report.join(".report.json.new")).unwrap();
    let told = report::Report {
        generation: 1,
        index: 7,
        backend: DnsBackend::None,
        why: String::new(),
    };
    report::write(&place.report, &told).unwrap();
    assert_eq!(report::read(&place.report), Some(told));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");

    fs::remove_dir_all(&place.report).unwrap();
    symlink(&place.etc, &place.report).unwrap();
    assert!(place.lock().await.is_err());
    fs::remove_file(&place.report).unwrap();
    fs::set_permissions(&*folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(place.lock().await.is_err());
    assert!(!place.report.exists());
}

#[tokio::test]
async fn a_takeover_that_nobody_wants_any_more_is_given_back() {
    let folder = Scratch::new("unwanted");
    let place = place(&folder);
    takeover::want(&place.etc, true).unwrap();
    follow_takeover(&place, &good()).unwrap();
    assert!(takeover::stands(&place.etc));
    takeover::want(&place.etc, false).unwrap();
    follow_takeover(&place, &good()).unwrap();
    let text = fs::read_to_string(place.etc.join("resolv.conf")).unwrap();
    assert_eq!(text, "nameserver 192.0.2.1\n");
}

#[tokio::test]
async fn whatever_can_be_put_back_is_and_the_first_fault_is_said() {
    let folder = Scratch::new("put-back");
    let place = Place {
        is_host: true,
        ..place(&folder)
    };
    takeover::take(&place.etc, &good()).unwrap();
    // Neither of them is a file that can be removed.
    let stuck = place.etc.join("NetworkManager/dnsmasq.d/webmesh.conf");
    fs::create_dir_all(&stuck).unwrap();
    fs::create_dir_all(place.report.join("report.json")).unwrap();
    let fed = place.etc.join("dnsmasq.d/webmesh.conf");
    fs::create_dir(place.etc.join("dnsmasq.d")).unwrap();
    fs::write(&fed, "server=/home.internal/100.71.255.53\n").unwrap();
    let said = put_back(&place, None).await.unwrap_err().to_string();
    assert!(said.contains("NetworkManager"), "{said}");
    assert!(!fed.exists() && !takeover::stands(&place.etc));
}

#[tokio::test]
async fn the_end_of_the_unit_puts_the_host_back_and_a_restart_does_not() {
    let folder = Scratch::new("ended");
    let place = place(&folder);
    takeover::take(&place.etc, &good()).unwrap();
    file::write(&place.run, &good()).unwrap();
    // Somebody else is setting up the host: a restart does not wait for him.
    let busy = place.lock().await.unwrap();
    follow_end_of(&place, async || false).await.unwrap();
    drop(busy);
    assert!(takeover::stands(&place.etc), "the wish is there: a restart");
    file::remove(&place.run).unwrap();
    let nobody_asks = async || unreachable!("the agent took its wish back");
    follow_end_of(&place, nobody_asks).await.unwrap();
    assert!(!takeover::stands(&place.etc));
}

#[tokio::test]
async fn an_agent_that_had_to_be_killed_to_stop_leaves_no_takeover_behind() {
    let folder = Scratch::new("killed-to-stop");
    let place = place(&folder);
    takeover::take(&place.etc, &good()).unwrap();
    file::write(&place.run, &good()).unwrap();
    follow_end_of(&place, async || true).await.unwrap();
    assert!(!takeover::stands(&place.etc));
    assert_eq!(file::read(&place.run).unwrap(), None);
}

#[tokio::test]
async fn what_the_configuration_says_of_names_is_said_before_anything_is_done() {
    let folder = Scratch::new("modes");
    let place = Place {
        is_host: true,
        ..place(&folder)
    };
    fs::create_dir(place.etc.join("webmesh")).unwrap();
    let configure = |mode: &str| {
        let text = format!("[dns]\nmode = \"{mode}\"\n");
        fs::write(place.etc.join("webmesh/config.toml"), text).unwrap();
    };
    configure("off");
    let refused = take_over(&place).await.unwrap_err();
    assert!(matches!(refused, HostDnsError::Off), "{refused}");
    configure("auto");
    let refused = take_over(&place).await.unwrap_err();
    assert!(matches!(refused, HostDnsError::NoWish), "{refused}");
    configure("forward");
    takeover::take(&place.etc, &good()).unwrap();
    let refused = hand_back(&place).await.unwrap_err();
    assert!(matches!(refused, HostDnsError::Forward), "{refused}");
    assert!(takeover::stands(&place.etc));
}

#[tokio::test]
async fn the_wish_of_an_agent_that_was_killed_does_not_stand_in_the_way_of_undo() {
    let folder = Scratch::new("killed");
    let place = Place {
        is_host: true,
        ..place(&folder)
    };
    takeover::take(&place.etc, &good()).unwrap();
    file::write(&place.run, &good()).unwrap();
    hand_back(&place).await.unwrap();
    assert!(!takeover::stands(&place.etc));
}
