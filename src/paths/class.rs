//! What kinds of path there are, the best first (review-distributed S6, rule 3).

use std::net::IpAddr;

use crate::addr::{Path, Underlay};

/// A kind of path; the lesser is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// On the same local network.
    Lan,
    /// From socket to socket.
    Direct,
    /// Through one relay.
    Relay,
    /// Through two relays.
    TwoRelays,
    /// On a TLS stream.
    Stream,
}

impl Class {
    /// The kind of a path of which nothing more is known. `own` are the addresses of this machine's interfaces.
    pub fn of(path: Path, own: &[Underlay]) -> Self {
        match path {
            Path::Direct(address) if is_near(address.ip(), own) => Self::Lan,
            Path::Direct(_) => Self::Direct,
            Path::Relay(_) => Self::Relay,
            Path::Stream(_) | Path::Handed(_) => Self::Stream,
        }
    }
}

/// Whether an address is one of a local network: by its nature, or by a prefix that it shares with one of ours.
fn is_near(ip: IpAddr, own: &[Underlay]) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => {
            let shares = |other: &Underlay| match other.ip() {
                IpAddr::V6(other) => other.to_bits() >> 64 == v6.to_bits() >> 64,
                IpAddr::V4(_) => false,
            };
            let is_local = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback();
            is_local || own.iter().any(shares)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LegIx, StreamIx};

    fn class(address: &str, own: &[&str]) -> Class {
        let underlay = |text: &str| Underlay::new(text.parse().unwrap());
        let own: Vec<Underlay> = own.iter().map(|text| underlay(text)).collect();
        Class::of(Path::Direct(underlay(address)), &own)
    }

    #[test]
    fn private_addresses_and_a_shared_prefix_are_the_lan() {
        assert_eq!(class("192.168.1.2:1", &[]), Class::Lan);
        assert_eq!(class("[fd12::1]:1", &[]), Class::Lan);
        assert_eq!(class("203.0.113.2:1", &["203.0.113.3:1"]), Class::Direct);
        assert_eq!(class("100.64.1.2:1", &[]), Class::Direct, "carrier NAT");
        let own = ["[2001:db8:1:2::7]:1"];
        assert_eq!(class("[2001:db8:1:2::9]:1", &own), Class::Lan);
        assert_eq!(class("[2001:db8:1:3::9]:1", &own), Class::Direct);
    }

    #[test]
    fn a_relay_is_worse_than_a_socket_and_better_than_a_stream() {
        let relay = Class::of(Path::Relay(LegIx(0)), &[]);
        let stream = Class::of(Path::Stream(StreamIx(0)), &[]);
        assert!(Class::Lan < Class::Direct && Class::Direct < relay);
        assert!(relay < Class::TwoRelays && Class::TwoRelays < stream);
    }
}
