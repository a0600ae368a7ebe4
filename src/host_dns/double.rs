//! systemd-resolved as tests have it: says yes to everything and writes it down. Also in `tests/netns`.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the methods are those of the interface"
)]

use std::sync::{Arc, Mutex};

/// What was said to the double.
pub(crate) type Said = Arc<Mutex<Vec<String>>>;

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

/// The double on a bus, under resolved's name and as this user; inside a user namespace the bus knows only its root. It
/// goes with the connection.
pub(crate) async fn serve(address: &str, user: u32) -> (zbus::Connection, Said) {
    let said = Said::default();
    let connection = zbus::connection::Builder::address(address)
        .unwrap()
        .user_id(user)
        .serve_at("/org/freedesktop/resolve1", Double(Arc::clone(&said)))
        .unwrap()
        .name("org.freedesktop.resolve1")
        .unwrap()
        .build()
        .await
        .unwrap();
    (connection, said)
}
