//! The kinds of middlebox, and which pairs can reach each other directly in theory.

use super::rules::{Filter, Mapping, Nat};

/// What stands between a machine and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing; both families.
    Public,
    /// One port for all destinations, open to everybody.
    FullCone,
    /// One port for all destinations, open to addresses that were asked.
    AddressRestricted,
    /// One port for all destinations, open to addresses and ports that were asked.
    PortRestricted,
    /// What a Linux router does by `masquerade`: the inner port where it is free, open to whom it was used for.
    Plain,
    /// A new port for every destination.
    Symmetric,
    /// No UDP at all.
    UdpBlocked,
    /// A plain home router behind a carrier's, which is port-restricted.
    Cgnat,
    /// IPv6 alone, with a firewall that lets only answers in.
    Only6,
    /// A plain home router that has IPv6 too, with such a firewall.
    Firewalled6,
    /// A plain home router that opens ports when asked by UPnP, NAT-PMP or PCP. Its number is at least 192.
    Mapping,
}

/// Which families a machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

/// Whether a pair can be direct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theory {
    /// By simultaneous opening at the latest.
    Direct,
    /// Only by guessing the port of a symmetric NAT.
    Guessed,
    /// Never.
    Relayed,
}

impl Kind {
    /// The rows and columns of the matrix of issue 5, point 2.
    pub(crate) const MATRIX: [Self; 9] = [
        Self::Public,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Plain,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::Cgnat,
        Self::Only6,
    ];

    /// As the README's table says it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Plain => "plain Linux",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "UDP blocked",
            Self::Cgnat => "CGNAT",
            Self::Only6 => "IPv6 only",
            Self::Firewalled6 => "IPv6 firewalled",
            Self::Mapping => "maps ports",
        }
    }

    pub(crate) fn families(self) -> Families {
        Families {
            v4: self != Self::Only6,
            v6: matches!(self, Self::Public | Self::Only6 | Self::Firewalled6),
        }
    }

    /// The routers from the machine outwards.
    pub(super) fn routers(self) -> Vec<Nat> {
        let cone = |filter| Nat::new(Mapping::Independent, filter);
        let plain = Nat::new(Mapping::Preserving, Filter::Flow);
        match self {
            Self::Public => vec![],
            Self::FullCone => vec![cone(Filter::None)],
            Self::AddressRestricted => vec![cone(Filter::Address)],
            Self::PortRestricted => vec![cone(Filter::AddressAndPort)],
            Self::Plain | Self::Firewalled6 | Self::Only6 => vec![plain],
            Self::Mapping => vec![Nat {
                maps: true,
                ..plain
            }],
            Self::Symmetric => vec![Nat::new(Mapping::PerFlow, Filter::Flow)],
            Self::UdpBlocked => vec![Nat {
                udp: false,
                ..plain
            }],
            Self::Cgnat => vec![plain, cone(Filter::AddressAndPort)],
        }
    }

    /// What issue 5, point 2, asks of this pair.
    pub(crate) fn theory(self, other: Self) -> Theory {
        let pair = [self, other];
        let has = |kind| pair.contains(&kind);
        let one_of = |kinds: &[Self]| pair.iter().any(|kind| kinds.contains(kind));
        let [a, b] = pair.map(Self::families);
        if !(a.v4 && b.v4 || a.v6 && b.v6) || has(Self::UdpBlocked) || pair == [Self::Symmetric; 2]
        {
            return Theory::Relayed;
        }
        let is_strict = [Self::PortRestricted, Self::Plain, Self::Cgnat];
        if has(Self::Symmetric) && one_of(&is_strict) {
            return Theory::Guessed;
        }
        // A new port for every destination is no obstacle where both have IPv6, but no symmetric kind has.
        Theory::Direct
    }
}
