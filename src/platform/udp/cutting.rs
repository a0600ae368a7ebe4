//! Who may cut datagrams that are longer than their way (RFC 791, RFC 8200 §5), as the kernel was told of a socket.

use std::{io, os::fd::OwnedFd};

use socket2::Domain;

use super::set_option;

/// What every IPv6 link carries (RFC 8200 §5).
const LEAST_MTU6: libc::c_int = 1280;

/// Who may cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cutting {
    /// Nobody: what this host knows to be too long is refused. It is also the only order by which the kernel of Linux marks
    /// trains of IPv4 in such a way that no router cuts their datagrams.
    Nobody,
    /// This host, where it knows the way to be narrower. IPv6 knows no other way than this and the next.
    Host,
    /// This host and in IPv4 every router; in IPv6 this host cuts to what every link carries.
    Anyone,
}

/// What a socket's kernel was told.
#[derive(Debug)]
pub(super) struct Discovery {
    is_v4: bool,
    pub(super) told: Cutting,
}

impl Discovery {
    /// Nobody may cut what a socket sends.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn new(socket: &OwnedFd, family: Domain) -> io::Result<Self> {
        let is_v4 = family == Domain::IPV4;
        if !is_v4 {
            let option = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
            set_option(socket, option, libc::IPV6_PMTUDISC_WANT)?;
        }
        let mut discovery = Self {
            is_v4,
            told: Cutting::Host,
        };
        discovery.set(socket, Cutting::Nobody)?;
        Ok(discovery)
    }

    /// Tells it, unless it was told. Where the kernel refuses, datagrams go as they did.
    pub(super) fn tell(&mut self, socket: &OwnedFd, who: Cutting) {
        if self.value(self.told) == self.value(who) {
            self.told = who;
        } else {
            let _refused = self.set(socket, who);
        }
    }

    /// Whether trains go as their datagrams would go singly. By the host's order no router would be told to leave a train
    /// whole; IPv6 takes none that is to be cut.
    pub(super) fn takes_trains(&self) -> bool {
        match self.told {
            Cutting::Nobody => true,
            Cutting::Host => false,
            Cutting::Anyone => self.is_v4,
        }
    }

    fn set(&mut self, socket: &OwnedFd, who: Cutting) -> io::Result<()> {
        let option = match self.is_v4 {
            true => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            false => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        set_option(socket, option, self.value(who))?;
        self.told = who;
        Ok(())
    }

    /// What the option is for each.
    fn value(&self, who: Cutting) -> libc::c_int {
        match (who, self.is_v4) {
            (Cutting::Nobody, true) => libc::IP_PMTUDISC_DO,
            (Cutting::Host, true) => libc::IP_PMTUDISC_WANT,
            (Cutting::Anyone, true) => libc::IP_PMTUDISC_DONT,
            (Cutting::Nobody | Cutting::Host, false) => 0,
            (Cutting::Anyone, false) => LEAST_MTU6,
        }
    }
}
