//! What an admin writes into a certificate: a free name, a free IPv4 offset, how long it holds (protocol §8–§10).

use super::{certificate::Certificate, invites::Spend, label};
use crate::{addr::AddressPlan, ids::NodeId, wire::record::Member};

/// How long a certificate holds; 90 days in s, protocol §8. Shorter stops networks whose admins sleep sooner.
pub const CERTIFICATE_S: u64 = 90 * 86_400;

/// From when on a certificate is renewed: 30 days of its 90 are over, protocol §8.
pub const RENEW_AFTER_S: u64 = 30 * 86_400;

/// Choices of an IPv4 offset by hash before the lowest free one is taken (protocol §10).
const CHOICES4: u8 = u8::MAX;

/// Whether an admin that is up renews `certificate` at `mesh_s`.
pub fn is_renewal_due(certificate: &Certificate, mesh_s: u64) -> bool {
    mesh_s
        >= certificate
            .not_after
            .saturating_sub(CERTIFICATE_S - RENEW_AFTER_S)
}

/// The certificate that renews `certificate` at `now_s`: what was issued is copied.
pub fn renewed(certificate: &Certificate, now_s: u64) -> Member {
    Member {
        name: certificate.name.clone(),
        admission: certificate.admission,
        admitted_at: certificate.admitted_at,
        offset4: certificate.offset4.map(u64::from),
        groups: (!certificate.groups.is_empty()).then(|| certificate.groups.clone()),
        role: match certificate.role {
            super::Role::Full => 0,
            super::Role::Leaf => 1,
        },
        offers: Some(certificate.offers.clone()),
        not_after: now_s
            .max(certificate.admitted_at)
            .saturating_add(CERTIFICATE_S),
        routes: certificate.routes.clone(),
        guests: certificate.guests,
    }
}

/// The first certificate of who is in `spend`; the same spend makes the same certificate.
pub fn admitted(spend: &Spend, offers: &[String]) -> Member {
    Member {
        name: spend.name.clone(),
        admission: spend.admission,
        admitted_at: spend.admitted_s,
        offset4: spend.offset4.map(u64::from),
        groups: None,
        role: 0,
        offers: Some(offers.to_vec()),
        not_after: spend.at_s.saturating_add(CERTIFICATE_S),
        routes: None,
        guests: None,
    }
}

/// The first free choice of a name for who wishes `wish`: itself, `-2`, `-3` …. A wish that is no label is made one.
pub fn free_name(wish: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let label = if label::is_label(wish) && !wish.starts_with("xn--") {
        wish.to_owned()
    } else {
        label::from_host_name(wish)
    };
    let mut n = 1;
    loop {
        let name = label::nth(&label, n);
        if label::parse_peer(&name).is_ok() && !is_taken(&name) {
            return name;
        }
        n += 1;
    }
}

/// The first free IPv4 offset for `node`: its 256 choices, then the lowest free. None: the lower half is given out.
pub fn free_offset4(
    plan: &AddressPlan,
    node: NodeId,
    is_taken: impl Fn(u32) -> bool,
) -> Option<u32> {
    (0..=CHOICES4)
        .map(|i| plan.offset4(node, i))
        .find(|offset| !is_taken(*offset))
        .or_else(|| (1..plan.half4() - 1).find(|offset| !is_taken(*offset)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ids::NetworkId;

    fn plan(pool4: &str) -> AddressPlan {
        AddressPlan {
            network: NetworkId([3; 32]),
            pool4: pool4.parse().unwrap(),
        }
    }

    #[test]
    fn the_first_offset_is_the_first_choice() {
        let plan = plan("100.71.0.0/16");
        let node = NodeId([9; 32]);
        assert_eq!(
            free_offset4(&plan, node, |_| false),
            Some(plan.offset4(node, 0))
        );
        let first = plan.offset4(node, 0);
        assert_eq!(
            free_offset4(&plan, node, |offset| offset == first),
            Some(plan.offset4(node, 1))
        );
    }

    #[test]
    fn a_small_pool_is_given_out_to_its_last_address_and_never_twice() {
        let plan = plan("10.9.8.0/23");
        let mut taken = BTreeSet::new();
        for n in 0..254_u8 {
            let offset = free_offset4(&plan, NodeId([n; 32]), |offset| taken.contains(&offset));
            assert!(taken.insert(offset.unwrap()), "peer {n}");
        }
        assert_eq!(
            free_offset4(&plan, NodeId([255; 32]), |offset| taken.contains(&offset)),
            None
        );
        assert_eq!((taken.first(), taken.last()), (Some(&1), Some(&254)));
    }

    #[test]
    fn a_certificate_from_the_end_of_time_is_renewed_without_a_panic() {
        let mut member = Member {
            name: "bo".to_owned(),
            admission: [0; 8],
            admitted_at: u64::MAX,
            offset4: None,
            groups: None,
            role: 0,
            offers: None,
            not_after: 1,
            routes: None,
            guests: None,
        };
        let hostile = Certificate::new(&member, NodeId([1; 32]), crate::ids::Version(1));
        assert_eq!(renewed(&hostile, 5).not_after, u64::MAX);
        member.admitted_at = 7;
        let honest = Certificate::new(&member, NodeId([1; 32]), crate::ids::Version(1));
        assert_eq!(renewed(&honest, 9).not_after, 9 + CERTIFICATE_S);
    }

    #[test]
    fn a_renewal_copies_all_that_was_issued() {
        let member = Member {
            name: "bo".to_owned(),
            admission: [4; 8],
            admitted_at: 7,
            offset4: Some(12),
            groups: Some(vec!["home".to_owned()]),
            role: 1,
            offers: Some(vec!["web".to_owned()]),
            not_after: 8,
            routes: Some(vec![vec![10, 0, 0, 0, 8]]),
            guests: Some(3),
        };
        let certificate = Certificate::new(&member, NodeId([1; 32]), crate::ids::Version(1));
        let expected = Member {
            not_after: 9 + CERTIFICATE_S,
            ..member
        };
        assert_eq!(renewed(&certificate, 9), expected);
    }

    #[test]
    fn names_count_up_from_two() {
        assert_eq!(free_name("debian", |_| false), "debian");
        assert_eq!(free_name("debian", |name| name == "debian"), "debian-2");
        assert_eq!(
            free_name("debian", |name| name == "debian" || name == "debian-2"),
            "debian-3"
        );
        assert_eq!(free_name("svc", |_| false), "svc-2");
        assert_eq!(free_name("My Laptop.local", |_| false), "my-laptop");
        assert_eq!(free_name("xn--a", |_| false), "xn-a");
        assert_eq!(free_name("\0\u{202e}", |_| false), "peer");
    }
}
