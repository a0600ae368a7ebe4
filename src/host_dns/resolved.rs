//! systemd-resolved: our names go to our resolver by way of the agent's device, and go with the device.

use std::net::IpAddr;

use super::{
    bus::{Bus, Seat},
    wish::Wish,
};

/// Its name on the bus.
pub const NAME: &str = "org.freedesktop.resolve1";

const MANAGER: Seat = Seat {
    name: NAME,
    path: "/org/freedesktop/resolve1",
    interface: "org.freedesktop.resolve1.Manager",
};

/// `AF_INET` and `AF_INET6`, as resolved wants them.
const FAMILIES: (i32, i32) = (libc::AF_INET, libc::AF_INET6);

/// Tells resolved what to send to us: nothing but our zones (no default route), without the protocols that shout names
/// over a link, and without DNSSEC and TLS, which a link of sealed packets needs not.
///
/// # Errors
/// resolved is not there, or refuses.
pub async fn apply(bus: &Bus, wish: &Wish) -> zbus::Result<()> {
    let link = number(wish.device.index);
    let off = (link, "no");
    bus.tell(MANAGER, "SetLinkDNS", &(link, servers(wish)))
        .await?;
    bus.tell(MANAGER, "SetLinkDomains", &(link, domains(wish)))
        .await?;
    bus.tell(MANAGER, "SetLinkDefaultRoute", &(link, false))
        .await?;
    for method in ["SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC"] {
        bus.tell(MANAGER, method, &off).await?;
    }
    // Before systemd 239 there is no such method, and nothing to switch off.
    let _too_old = bus.tell(MANAGER, "SetLinkDNSOverTLS", &off).await;
    // What was looked up before, and was not there, is there now.
    bus.tell(MANAGER, "FlushCaches", &()).await
}

/// Tells resolved to forget what it was told of a device.
///
/// # Errors
/// resolved is not there, or knows no such device any more.
pub async fn revert(bus: &Bus, index: u32) -> zbus::Result<()> {
    bus.tell(MANAGER, "RevertLink", &number(index)).await
}

fn number(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn servers(wish: &Wish) -> Vec<(i32, Vec<u8>)> {
    let server = |server: &IpAddr| match server {
        IpAddr::V4(v4) => (FAMILIES.0, v4.octets().to_vec()),
        IpAddr::V6(v6) => (FAMILIES.1, v6.octets().to_vec()),
    };
    wish.servers.iter().map(server).collect()
}

/// Each with whether it is for routing alone: a domain that is searched is routed too.
fn domains(wish: &Wish) -> Vec<(String, bool)> {
    let searched = wish.search.iter().map(|name| (name.clone(), false));
    let zones = wish.zones().into_iter();
    let routed = zones
        .filter(|zone| !wish.search.contains(zone))
        .map(|zone| (zone, true));
    searched.chain(routed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_dns::wish::tests::good;

    #[test]
    fn every_zone_is_routed_and_the_search_list_is_searched() {
        let said = |wish: &Wish| -> Vec<String> {
            let word =
                |(name, routing): (String, bool)| if routing { format!("~{name}") } else { name };
            domains(wish).into_iter().map(word).collect()
        };
        assert_eq!(
            said(&good()),
            [
                "home.internal",
                "svc.home.internal",
                "~71.100.in-addr.arpa",
                "~d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa"
            ]
        );
        let unsearched = Wish {
            search: Vec::new(),
            pool4: None,
            ..good()
        };
        assert_eq!(
            said(&unsearched),
            ["~home.internal", "~d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa"]
        );
    }
}
