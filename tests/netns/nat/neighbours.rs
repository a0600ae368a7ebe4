//! Two machines behind the same middlebox: they meet in their LAN, or turn at the carrier.

use std::time::Duration;

use super::{internet::Internet, kind::Kind, pair::Pair};

#[test]
fn two_in_one_lan_meet_there() {
    for kind in [Kind::Plain, Kind::Symmetric] {
        let mut internet = Internet::new();
        internet.settle(Kind::Public, "vps", 10);
        internet.settle(kind, "anna", 20);
        internet.settle_beside("anna", "bo");
        internet.net.form();
        let pair = Pair { internet };
        pair.first_echo();
        pair.await_way("direct", Duration::from_secs(5));
        let endpoint = super::pair::way(pair.anna(), "bo").endpoint;
        assert_eq!(endpoint.as_deref(), Some("192.168.1.3:41820"), "{kind:?}");
    }
}

#[test]
fn two_homes_of_one_carrier_meet_where_it_turns_and_are_relayed_where_it_does_not() {
    for turns in [true, false] {
        let mut internet = Internet::new();
        internet.settle(Kind::Public, "vps", 10);
        internet.settle(Kind::Cgnat, "anna", 20);
        internet.settle_under("anna", "bo");
        if turns {
            internet.turn_hairpins("anna");
        }
        internet.net.form();
        let pair = Pair { internet };
        let kind = if turns { "direct" } else { "relay" };
        eprintln!("the carrier turns: {turns}");
        pair.first_echo();
        pair.await_way(kind, Duration::from_secs(5));
    }
}
