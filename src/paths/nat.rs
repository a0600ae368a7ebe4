//! What kind of NAT lies between this machine and the world, as far as others tell.
//!
//! For people to read: no attempt is made or left out by it (design §9), since NATs change their minds and observers may be
//! few. IPv4 alone: where there is IPv6 it has none.

use std::collections::BTreeMap;

use crate::addr::Underlay;

/// What others see of us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// Our own address.
    None,
    /// Another address, the same from everywhere: who knows it may reach us once we have sent there.
    Easy,
    /// Another port from each place: nobody can know where to send.
    Hard,
    /// Too few have said.
    #[default]
    Unknown,
}

/// Judges by the addresses of our interfaces and what each observer, from where he is, sees of us.
pub fn judge(
    interfaces: &[Underlay],
    sightings: impl Iterator<Item = (Underlay, Underlay)>,
) -> Nat {
    let is_v4 = |address: &Underlay| address.ip().is_ipv4();
    // A neighbour sees what is on this side of the NAT.
    let from_outside: BTreeMap<_, _> = sightings
        .filter(|(observer, seen)| is_v4(seen) && observer.is_public())
        .map(|(observer, seen)| (observer.ip(), seen))
        .collect();
    if from_outside.values().any(|seen| interfaces.contains(seen)) {
        return Nat::None;
    }
    let mut seen = from_outside.values();
    match (seen.next(), from_outside.len()) {
        (Some(first), 2..) if seen.all(|other| other == first) => Nat::Easy,
        (Some(_), 2..) => Nat::Hard,
        (Some(_), _) => Nat::Unknown,
        (None, _) if has_public_address(interfaces) => Nat::None,
        (None, _) => Nat::Unknown,
    }
}

/// Of IPv4 if there is one at all: its NAT is the one to know about.
fn has_public_address(interfaces: &[Underlay]) -> bool {
    let v4: Vec<&Underlay> = interfaces
        .iter()
        .filter(|address| address.ip().is_ipv4())
        .collect();
    match v4.as_slice() {
        [] => interfaces.iter().any(|address| address.is_public()),
        some => some.iter().any(|address| address.is_public()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn kind(interfaces: &[&str], sightings: &[(&str, &str)]) -> Nat {
        let interfaces: Vec<Underlay> = interfaces.iter().map(|text| address(text)).collect();
        let sightings = sightings
            .iter()
            .map(|(observer, seen)| (address(observer), address(seen)));
        judge(&interfaces, sightings)
    }

    const LAN: &[&str] = &["192.168.1.2:41820"];
    const VPS: &str = "203.0.113.10:41820";
    const NAS: &str = "198.51.100.4:41820";

    #[test]
    fn one_address_from_two_places_is_easy_and_two_are_hard() {
        let same = "203.0.113.9:41820";
        assert_eq!(kind(LAN, &[(VPS, same), (NAS, same)]), Nat::Easy);
        let other = "203.0.113.9:50213";
        assert_eq!(kind(LAN, &[(VPS, same), (NAS, other)]), Nat::Hard);
    }

    #[test]
    fn one_observer_or_two_in_one_place_say_nothing() {
        let seen = "203.0.113.9:41820";
        assert_eq!(kind(LAN, &[]), Nat::Unknown);
        assert_eq!(kind(LAN, &[(VPS, seen)]), Nat::Unknown);
        let beside = "203.0.113.10:9";
        assert_eq!(kind(LAN, &[(VPS, seen), (beside, seen)]), Nat::Unknown);
    }

    #[test]
    fn a_neighbour_knows_nothing_of_the_nat_that_is_his_too() {
        let neighbour = "192.168.1.7:41820";
        assert_eq!(kind(LAN, &[(neighbour, LAN[0])]), Nat::Unknown);
    }

    #[test]
    fn there_is_none_where_the_world_sees_our_own_address_or_we_have_a_public_one() {
        let public = &["203.0.113.9:41820"];
        assert_eq!(kind(public, &[]), Nat::None);
        assert_eq!(kind(public, &[(NAS, public[0])]), Nat::None);
        assert_eq!(kind(&["[2001:db8::7]:41820"], &[]), Nat::None);
        assert_eq!(
            kind(&["192.168.1.2:1", "[2001:db8::7]:1"], &[]),
            Nat::Unknown
        );
    }

    #[test]
    fn an_address_that_the_world_sees_otherwise_is_not_what_it_seems() {
        let seen = "198.51.100.99:7";
        assert_eq!(
            kind(&["203.0.113.9:41820"], &[(VPS, seen), (NAS, seen)]),
            Nat::Easy
        );
    }
}
