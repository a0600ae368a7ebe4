//! Home routers: which public port a datagram leaves from, and which datagrams come in (RFC 4787).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use webmesh::{addr::Underlay, time::Moment};

/// How long a mapping lives without a datagram that leaves.
const LIVES: Duration = Duration::from_secs(60);

/// Whether a machine has one public port for all destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// One for all.
    Independent,
    /// A new one for each destination: a symmetric NAT.
    Dependent,
}

/// Who may answer at a public port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filtering {
    /// Anybody.
    Independent,
    /// Whose IP and port something went to.
    AddressAndPort,
}

/// What kind of NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NatKind {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
}

/// As most home routers are.
pub(crate) const PLAIN: NatKind = NatKind {
    mapping: Mapping::Independent,
    filtering: Filtering::AddressAndPort,
};

/// As carriers and companies have them.
pub(crate) const SYMMETRIC: NatKind = NatKind {
    mapping: Mapping::Dependent,
    filtering: Filtering::AddressAndPort,
};

/// Anybody may come in once the port is open.
pub(crate) const FULL_CONE: NatKind = NatKind {
    mapping: Mapping::Independent,
    filtering: Filtering::Independent,
};

/// One router with machines behind it.
#[derive(Clone, Debug)]
pub(crate) struct Nat {
    public: Ipv4Addr,
    kind: NatKind,
    next_port: u16,
    ports: BTreeMap<(Underlay, Option<Underlay>), u16>,
    open: BTreeMap<u16, Open>,
}

#[derive(Clone, Debug)]
struct Open {
    inside: Underlay,
    used: Moment,
    sent_to: BTreeMap<Underlay, Moment>,
}

impl Nat {
    pub(crate) fn new(public: Ipv4Addr, kind: NatKind) -> Self {
        Self {
            public,
            kind,
            next_port: 20_000,
            ports: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// Its public address.
    pub(crate) fn public(&self) -> Ipv4Addr {
        self.public
    }

    /// A datagram leaves: where it seems to come from.
    pub(crate) fn leave(&mut self, now: Moment, inside: Underlay, to: Underlay) -> Underlay {
        let key = match self.kind.mapping {
            Mapping::Independent => (inside, None),
            Mapping::Dependent => (inside, Some(to)),
        };
        let known = self.ports.get(&key).copied().filter(|port| {
            self.open
                .get(port)
                .is_some_and(|open| now.since(open.used) < LIVES)
        });
        let port = known.unwrap_or_else(|| {
            self.next_port += 7;
            self.ports.insert(key, self.next_port);
            let open = Open {
                inside,
                used: now,
                sent_to: BTreeMap::new(),
            };
            self.open.insert(self.next_port, open);
            self.next_port
        });
        let open = self.open.get_mut(&port).expect("every port given is open");
        open.used = now;
        open.sent_to.insert(to, now);
        Underlay::new(SocketAddr::from((self.public, port)))
    }

    /// A datagram comes: whom it is for, if it is let in.
    pub(crate) fn enter(&self, now: Moment, port: u16, from: Underlay) -> Option<Underlay> {
        let open = self.open.get(&port)?;
        let is_fresh = |at: &Moment| now.since(*at) < LIVES;
        let mut sent = open.sent_to.iter().filter(|(_, at)| is_fresh(at));
        let is_let_in = match self.kind.filtering {
            Filtering::Independent => is_fresh(&open.used),
            Filtering::AddressAndPort => sent.any(|(to, _)| *to == from),
        };
        is_let_in.then_some(open.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8, port: u16) -> Underlay {
        Underlay::new(SocketAddr::from(([198, 51, 100, last], port)))
    }

    fn inside() -> Underlay {
        Underlay::new(SocketAddr::from(([192, 168, 1, 2], 41820)))
    }

    fn nat(kind: NatKind) -> Nat {
        Nat::new(Ipv4Addr::new(203, 0, 113, 9), kind)
    }

    #[test]
    fn a_plain_nat_has_one_port_and_lets_in_whom_something_went_to() {
        let mut nat = nat(PLAIN);
        let first = nat.leave(Moment(0), inside(), address(1, 5));
        assert_eq!(nat.leave(Moment(0), inside(), address(2, 5)), first);
        let port = first.socket().port();
        assert_eq!(nat.enter(Moment(1), port, address(1, 5)), Some(inside()));
        assert_eq!(nat.enter(Moment(1), port, address(1, 6)), None);
        assert_eq!(nat.enter(Moment(1), port, address(3, 5)), None);
        assert_eq!(nat.enter(Moment(0).after(LIVES), port, address(1, 5)), None);
    }

    #[test]
    fn a_symmetric_nat_has_a_port_for_each_destination() {
        let mut nat = nat(SYMMETRIC);
        let first = nat.leave(Moment(0), inside(), address(1, 5));
        assert_ne!(nat.leave(Moment(0), inside(), address(2, 5)), first);
        assert_eq!(nat.leave(Moment(0), inside(), address(1, 5)), first);
    }

    #[test]
    fn a_full_cone_lets_anybody_in_once_it_is_open() {
        let mut nat = nat(FULL_CONE);
        assert_eq!(nat.enter(Moment(0), 20_007, address(9, 9)), None);
        let port = nat
            .leave(Moment(0), inside(), address(1, 5))
            .socket()
            .port();
        assert_eq!(nat.enter(Moment(1), port, address(9, 9)), Some(inside()));
    }
}
