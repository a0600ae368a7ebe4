//! What the service manager keeps for the next run of the agent, so that a restart costs no connection: the device with
//! its addresses and routes, the UDP sockets with their port and what waits in them, the guard. And what it opens for the
//! agent: port 443, if its owner wants that.
//!
//! Knows the names under which they are kept, and that what does not fit is thrown away. Refuses to know what fits: who
//! takes a thing back looks at it.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::guarding::News;
use crate::{
    ids::NetworkId,
    platform::{service_manager, tcp, tun, udp::Held},
};

/// The version of everything that is kept: what a device's packets look like, which options its sockets have. It is the
/// head of each name; what another version kept is thrown away.
const FORMAT: &str = "2";

/// The IPv4 socket of the underlay.
pub(super) const UDP4: &str = "udp4";

/// The IPv6 socket of the underlay.
pub(super) const UDP6: &str = "udp6";

/// The netlink socket that owns the guard's table.
pub(super) const GUARD: &str = "guard";

/// The name that `webmesh-stream.socket` gives to what it opens.
const STREAM: &str = "stream";

/// The name under which a network's device is kept. Not `tun:`, as one would expect: systemd parts names by colons.
pub(super) fn tun_of(network: NetworkId) -> String {
    let mut id = network.to_string();
    id.truncate(16);
    format!("tun.{id}")
}

/// The agent's side of the service manager's store. Without a service manager it is empty and stays so.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    stored: BTreeMap<String, OwnedFd>,
    /// Opened for TLS streams. They stay open as long as the process runs: no second start would bring them again.
    listeners: Vec<TcpListener>,
}

impl Supervisor {
    /// Takes what this process was started with. What another version kept is thrown away at once.
    pub(super) fn of_this_process() -> Self {
        let mut supervisor = Self::default();
        let handed = service_manager::handed().unwrap_or_else(|error| {
            tracing::warn!(%error, "What the service manager kept cannot be used");
            Vec::new()
        });
        for (label, fd) in handed {
            if label == STREAM {
                supervisor.take_listener(fd);
                continue;
            }
            let is_ours = plain(&label).is_some() && !supervisor.stored.contains_key(&label);
            if is_ours {
                supervisor.stored.insert(label, fd);
            } else {
                throw_away(&label, fd);
            }
        }
        supervisor
    }

    fn take_listener(&mut self, fd: OwnedFd) {
        match tcp::handed(fd) {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => {
                tracing::warn!(%error, "What webmesh-stream.socket opens is not for TCP; it is not used");
            }
        }
    }

    /// What was opened for TLS streams, for one network to listen at.
    pub(super) fn listeners(&self) -> Vec<TcpListener> {
        let copies = self.listeners.iter().map(TcpListener::try_clone);
        copies
            .filter_map(|copy| {
                copy.inspect_err(|error| tracing::warn!(%error, "Port 443 cannot be used"))
                    .ok()
            })
            .collect()
    }

    /// What was kept under a name; who asks either uses it or gives it to [`Supervisor::throw_away`].
    pub(super) fn stored(&mut self, name: &str) -> Option<OwnedFd> {
        self.stored.remove(&label(name))
    }

    /// Has something kept, in the place of what was kept under its name before.
    pub(super) fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        self.forget(name);
        if let Err(error) = service_manager::store(&label(name), fd) {
            tracing::warn!(name, %error, "A restart will not find this again");
        }
    }

    /// Has the underlay's sockets kept.
    pub(super) fn keep_sockets(&self, sockets: &Held) {
        self.keep(UDP4, sockets.udp4.as_fd());
        if let Some(udp6) = &sockets.udp6 {
            self.keep(UDP6, udp6.as_fd());
        }
    }

    /// Follows which guard stands.
    pub(super) fn keep_guard(&self, news: Option<News<'_>>) {
        match news {
            Some(News::Stands(fd)) => self.keep(GUARD, fd),
            Some(News::Gone) => self.forget(GUARD),
            None => {}
        }
    }

    /// Has what is kept under a name closed.
    pub(super) fn forget(&self, name: &str) {
        forget(&label(name));
    }

    /// Has all that belongs to a network closed.
    pub(super) fn forget_network(&self, network: NetworkId) {
        for name in [&tun_of(network), UDP4, UDP6, GUARD] {
            self.forget(name);
        }
    }

    /// Ends something that was kept and does not fit; a device is gone when this returns.
    pub(super) fn throw_away(&self, name: &str, fd: OwnedFd) {
        throw_away(&label(name), fd);
    }

    /// Ends all that was kept and that nobody has asked for.
    pub(super) fn throw_away_rest(&mut self) {
        for (label, fd) in std::mem::take(&mut self.stored) {
            throw_away(&label, fd);
        }
    }
}

fn throw_away(label: &str, fd: OwnedFd) {
    tracing::info!(label, "What an earlier run left does not fit; it is closed");
    forget(label);
    tun::destroy(fd);
}

fn forget(label: &str) {
    if let Err(error) = service_manager::forget(label) {
        tracing::warn!(label, %error, "The service manager keeps what is not needed any more");
    }
}

fn label(name: &str) -> String {
    format!("{FORMAT}.{name}")
}

/// The name in a label of this version.
fn plain(label: &str) -> Option<&str> {
    label.strip_prefix(FORMAT)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_another_version_are_not_ours() {
        assert_eq!(plain(&label(UDP4)), Some(UDP4));
        for other in ["1.udp4", "22.udp4", "udp4", "stored", ""] {
            assert_eq!(plain(other), None, "{other}");
        }
    }

    #[test]
    fn systemd_takes_every_label() {
        // fdname_is_valid: ASCII without control characters and colons, at most 255 bytes.
        for name in [&tun_of(NetworkId([0xab; 32])), UDP4, UDP6, GUARD] {
            let label = label(name);
            assert!(label.len() <= 255 && label.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        }
    }
}
