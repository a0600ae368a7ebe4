//! NetworkManager with `dns=dnsmasq`: a file in the folder that its dnsmasq reads, and the word to start it anew.
//!
//! By the bus alone NetworkManager takes servers only for devices it manages, and ours is not one of them.

use std::{io, path::Path};

use super::{
    bus::{Bus, Seat},
    dnsmasq,
    wish::Wish,
};

/// Its name on the bus.
pub const NAME: &str = "org.freedesktop.NetworkManager";

const MANAGER: Seat = Seat {
    name: NAME,
    path: "/org/freedesktop/NetworkManager",
    interface: NAME,
};

const PROPERTIES: Seat = Seat {
    name: NAME,
    path: "/org/freedesktop/NetworkManager/DnsManager",
    interface: "org.freedesktop.DBus.Properties",
};

/// `NM_MANAGER_RELOAD_FLAG_DNS_FULL`: starts the DNS plugin anew, which reads its folder only then.
const DNS_FULL: u32 = 0x4;

/// Below `/etc`.
const FILE: &str = "NetworkManager/dnsmasq.d/webmesh.conf";

/// What NetworkManager does with names: `dnsmasq`, `systemd-resolved`, `default` ….
///
/// # Errors
/// It does not say.
pub async fn mode(bus: &Bus) -> zbus::Result<String> {
    let asked = ("org.freedesktop.NetworkManager.DnsManager", "Mode");
    let value: zbus::zvariant::OwnedValue = bus.ask(PROPERTIES, "Get", &asked).await?;
    Ok(String::try_from(value)?)
}

/// Sends our zones to us.
///
/// # Errors
/// The file cannot be written, or NetworkManager does not listen.
pub async fn apply(etc: &Path, bus: &Bus, wish: &Wish) -> anyhow::Result<()> {
    if dnsmasq::write(&etc.join(FILE), wish)? == dnsmasq::File::Changed {
        bus.tell(MANAGER, "Reload", &DNS_FULL).await?;
    }
    Ok(())
}

/// Takes the file back.
///
/// # Errors
/// It is still there.
pub async fn revert(etc: &Path, bus: Option<&Bus>) -> io::Result<()> {
    if dnsmasq::remove(&etc.join(FILE))? == dnsmasq::File::Changed
        && let Some(bus) = bus
    {
        // A NetworkManager that does not run reads its folder when it starts.
        let _not_running = bus.tell(MANAGER, "Reload", &DNS_FULL).await;
    }
    Ok(())
}
