//! Who talks to us over a unix socket, who we are, and what this machine is called.
//!
//! Knows users and groups. Refuses to know what they may do: `api` decides.

use std::{io, os::fd::AsFd};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Group, Uid, User},
};

/// The process at the other end of a unix stream, as the kernel knew it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user, as seen from our user namespace.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its process; 0 when it lies outside our process namespace.
    pub pid: i32,
}

impl Caller {
    /// Whoever is at the other end of `stream`.
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(stream, PeerCredentials)?;
        Ok(Self {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid(),
        })
    }

    /// Whether it is root.
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whether it is in the group `name`, by its first group or by the group database.
    ///
    /// A group that was given after the process's user logged in counts at once.
    pub fn is_in_group(self, name: &str) -> bool {
        let Ok(Some(group)) = Group::from_name(name) else {
            return false;
        };
        if group.gid == Gid::from_raw(self.gid) {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        user.gid == group.gid || group.mem.contains(&user.name)
    }
}

/// Whether this process has CAP_NET_ADMIN, as /proc tells; without /proc it is presumed.
pub fn may_configure_networks() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_none_or(|bits| bits & CAP_NET_ADMIN != 0)
}

/// The user called `name` and its first group, if there is one.
pub fn user_named(name: &str) -> Option<(u32, u32)> {
    let user = User::from_name(name).ok()??;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    Uid::effective().as_raw()
}

/// The login name of the effective user, or its number.
pub fn own_name() -> String {
    match User::from_uid(Uid::effective()) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => own_uid().to_string(),
    }
}

/// What this machine is called; empty when the kernel's name is no text.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_of_a_socket_pair_is_this_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let caller = Caller::of(&near).unwrap();
        assert_eq!(caller.uid, own_uid());
        assert_eq!(u32::try_from(caller.pid).unwrap(), std::process::id());
        assert_eq!(caller.is_root(), own_uid() == 0);
    }

    #[test]
    fn nobody_is_in_a_group_that_is_not_there() {
        let caller = Caller {
            uid: 0,
            gid: 0,
            pid: 1,
        };
        assert!(!caller.is_in_group("no-such-group-here"));
        assert!(caller.is_in_group("root"));
    }
}
