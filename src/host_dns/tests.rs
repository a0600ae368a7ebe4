//! systemd-resolved as a double on a bus of the test's own: what it is told, word by word.

use std::process::{Child, Command, Stdio};

use super::{bus::Bus, double, resolved, scratch::Scratch, wish::tests::good};

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
        std::fs::write(&config, text).unwrap();
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
