//! IPv4 addresses under which this machine knows services: each agent chooses for itself (design §3), from the upper
//! half of the pool, never the resolver's and never the pool's last.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::addr::AddressPlan;

/// The address for a random number: the one it draws, or the next that is free. None: all are taken.
pub fn choose_vip4(plan: &AddressPlan, draw: u32, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let count = plan.half4() - 1;
    let start = draw % count;
    (0..count)
        .map(|step| plan.at4(plan.half4() + (start + step) % count))
        .find(|address| *address != plan.resolver4() && !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NetworkId;

    #[test]
    fn a_chosen_address_is_in_the_upper_half_and_never_the_resolvers() {
        let plan = AddressPlan {
            network: NetworkId([1; 32]),
            pool4: "10.1.2.0/23".parse().unwrap(),
        };
        let mut taken = BTreeSet::new();
        for n in 0..254 {
            let address = choose_vip4(&plan, n * 7, &taken).unwrap();
            assert!(taken.insert(address), "{address} was chosen twice");
        }
        assert_eq!(choose_vip4(&plan, 0, &taken), None);
        assert!(!taken.contains(&plan.resolver4()));
        assert_eq!(taken.first(), Some(&Ipv4Addr::new(10, 1, 3, 0)));
        assert_eq!(taken.last(), Some(&Ipv4Addr::new(10, 1, 3, 254)));
    }
}
