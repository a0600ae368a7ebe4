//! systemd-resolved as a double on a bus of the test's own: what it is told, word by word.

#![expect(
    clippy::unused_self,
    reason = "the double's methods are those of the interface"
)]

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{bus::Bus, resolved, scratch::Scratch, wish::tests::good};

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

/// What was said to the double.
type Said = Arc<Mutex<Vec<String>>>;

struct Double(Said);

impl Double {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl Double {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, link: i32, servers: Vec<(i32, Vec<u8>)>) {
        self.note(format!("DNS {link} {servers:?}"));
    }

    #[zbus(name = "SetLinkDomains")]
    fn set_link_domains(&self, link: i32, domains: Vec<(String, bool)>) {
        let word =
            |(name, routing): &(String, bool)| format!("{}{name}", if *routing { "~" } else { "" });
        let words: Vec<String> = domains.iter().map(word).collect();
        self.note(format!("Domains {link} {}", words.join(" ")));
    }

    #[zbus(name = "SetLinkDefaultRoute")]
    fn set_link_default_route(&self, link: i32, is_default: bool) {
        self.note(format!("DefaultRoute {link} {is_default}"));
    }

    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, link: i32, mode: String) {
        self.note(format!("LLMNR {link} {mode}"));
    }

    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, link: i32, mode: String) {
        self.note(format!("MulticastDNS {link} {mode}"));
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, link: i32, mode: String) {
        self.note(format!("DNSSEC {link} {mode}"));
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, link: i32, mode: String) {
        self.note(format!("DNSOverTLS {link} {mode}"));
    }

    #[zbus(name = "FlushCaches")]
    fn flush_caches(&self) {
        self.note("FlushCaches".to_owned());
    }

    #[zbus(name = "RevertLink")]
    fn revert_link(&self, link: i32) {
        self.note(format!("Revert {link}"));
    }
}

async fn resolved_on(bus: &TestBus) -> (zbus::Connection, Said) {
    let said = Said::default();
    let connection = zbus::connection::Builder::address(bus.address.as_str())
        .unwrap()
        .serve_at("/org/freedesktop/resolve1", Double(Arc::clone(&said)))
        .unwrap()
        .name(resolved::NAME)
        .unwrap()
        .build()
        .await
        .unwrap();
    (connection, said)
}

#[tokio::test]
async fn resolved_is_told_of_our_zones_and_of_nothing_else() {
    let test_bus = TestBus::start("resolved");
    let (_double, said) = resolved_on(&test_bus).await;
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
