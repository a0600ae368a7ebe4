//! Which of the addresses that a peer claims may be Pinged at all (design §9): nobody must be able to aim others at a
//! third machine.

use std::net::{IpAddr, Ipv6Addr};

use crate::addr::{AddressPlan, Scope, Underlay};

/// What is known of both ends when a claim is judged.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// Where somebody who is not the claimer saw it in the last 10 minutes.
    pub seen: &'a [Underlay],
    /// Where others see this machine.
    pub own_seen: &'a [Underlay],
    /// The addresses of this machine's interfaces.
    pub own: &'a [Underlay],
    /// The mesh's own prefixes.
    pub plan: AddressPlan,
}

impl Grounds<'_> {
    /// Those of the claimed addresses that may be Pinged, in their order, each once.
    pub fn allowed(&self, claimed: impl IntoIterator<Item = Underlay>) -> Vec<Underlay> {
        let mut allowed = Vec::new();
        for address in claimed {
            if !allowed.contains(&address) && self.allows(address) {
                allowed.push(address);
            }
        }
        allowed
    }

    fn allows(&self, address: Underlay) -> bool {
        address.may_be_peers()
            && !self.plan.contains(address.ip())
            && !self.own.contains(&address)
            && (self.is_seen(address) || self.is_near(address))
    }

    fn is_seen(&self, address: Underlay) -> bool {
        self.seen
            .iter()
            .any(|seen| target(seen.ip()) == target(address.ip()))
    }

    /// A private address means something only where both ends are: behind one public address, or on one link.
    fn is_near(&self, address: Underlay) -> bool {
        let behind_one = || {
            self.seen.iter().any(|seen| {
                !is_private(seen.ip())
                    && self
                        .own_seen
                        .iter()
                        .any(|own| target(own.ip()) == target(seen.ip()))
            })
        };
        let on_one_link = || {
            self.own
                .iter()
                .any(|own| is_one_link(own.ip(), address.ip()))
        };
        is_private(address.ip()) && (on_one_link() || behind_one())
    }
}

/// By what probes are counted: an IPv4 address, or the /64 of an IPv6 one.
pub fn target(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// Whether an address means different machines in different places.
pub fn is_private(ip: IpAddr) -> bool {
    Scope::of(ip) == Scope::Place
}

/// Whether two addresses lie on one link, as links in homes and offices are cut: a /24, a /64.
pub fn is_one_link(own: IpAddr, other: IpAddr) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => own.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(_), IpAddr::V6(_)) => target(own) == target(other),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NetworkId;

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn addresses(texts: &[&str]) -> Vec<Underlay> {
        texts.iter().map(|text| address(text)).collect()
    }

    fn plan() -> AddressPlan {
        AddressPlan {
            network: NetworkId([7; 32]),
            pool4: "100.71.0.0/16".parse().unwrap(),
        }
    }

    fn allows(claim: &str, seen: &[&str], own_seen: &[&str], own: &[&str]) -> bool {
        let (seen, own_seen, own) = (addresses(seen), addresses(own_seen), addresses(own));
        let grounds = Grounds {
            seen: &seen,
            own_seen: &own_seen,
            own: &own,
            plan: plan(),
        };
        !grounds.allowed([address(claim)]).is_empty()
    }

    #[test]
    fn a_claim_counts_where_somebody_else_saw_the_claimer() {
        assert!(allows(
            "198.51.100.7:5000",
            &["198.51.100.7:6000"],
            &[],
            &[]
        ));
        assert!(!allows(
            "198.51.100.8:5000",
            &["198.51.100.7:6000"],
            &[],
            &[]
        ));
        assert!(!allows("198.51.100.8:5000", &[], &[], &[]));
        assert!(allows(
            "[2001:db8:0:1::9]:5000",
            &["[2001:db8:0:1::7]:6000"],
            &[],
            &[]
        ));
        assert!(!allows(
            "[2001:db8:0:2::7]:5000",
            &["[2001:db8:0:1::7]:6000"],
            &[],
            &[]
        ));
    }

    #[test]
    fn a_private_address_counts_behind_one_public_address_or_on_one_link() {
        let claim = "192.168.1.20:41820";
        assert!(!allows(
            claim,
            &["198.51.100.7:1"],
            &["198.51.100.8:1"],
            &["192.168.2.3:41820"]
        ));
        assert!(allows(
            claim,
            &["198.51.100.7:1"],
            &["198.51.100.7:9"],
            &["192.168.2.3:41820"]
        ));
        assert!(allows(claim, &[], &[], &["192.168.1.3:41820"]));
        assert!(allows(
            "100.64.3.4:41820",
            &["198.51.100.7:1"],
            &["198.51.100.7:9"],
            &[]
        ));
        assert!(allows(
            "[fd00:1::9]:41820",
            &[],
            &[],
            &["[fd00:1::3]:41820"]
        ));
    }

    #[test]
    fn a_private_address_seen_by_both_is_no_public_address_they_share() {
        let (seen, own_seen) = (["10.0.0.1:1"], ["10.0.0.1:9"]);
        assert!(!allows(
            "192.168.1.20:41820",
            &seen,
            &own_seen,
            &["192.168.2.3:41820"]
        ));
    }

    #[test]
    fn some_addresses_are_never_anybodys() {
        for claim in [
            "127.0.0.1:41820",
            "0.0.0.0:41820",
            "169.254.1.2:41820",
            "224.0.0.1:41820",
            "255.255.255.255:41820",
            "100.71.3.4:41820",
            "[::1]:41820",
            "[fe80::1]:41820",
            "[ff02::1]:41820",
            "198.51.100.7:53",
            "198.51.100.7:0",
        ] {
            assert!(!allows(claim, &[claim], &[claim], &[]), "{claim}");
        }
        assert!(allows("198.51.100.7:443", &["198.51.100.7:443"], &[], &[]));
        let own6 = plan().peer6(crate::ids::NodeId([1; 32]));
        let claim = format!("[{own6}]:41820");
        assert!(!allows(&claim, &[&claim], &[], &[]));
    }

    #[test]
    fn an_own_address_is_not_pinged_and_a_double_goes_once() {
        let own = "192.168.1.3:41820";
        assert!(!allows(own, &[own], &[], &[own]));
        let seen = addresses(&["198.51.100.7:6000"]);
        let grounds = Grounds {
            seen: &seen,
            own_seen: &[],
            own: &[],
            plan: plan(),
        };
        let claimed = addresses(&[
            "198.51.100.7:1024",
            "198.51.100.7:6000",
            "198.51.100.7:1024",
        ]);
        assert_eq!(
            grounds.allowed(claimed),
            addresses(&["198.51.100.7:1024", "198.51.100.7:6000"])
        );
    }
}
