//! What is judged of which facts.

use super::*;

const V4: Versions = Versions {
    v4: true,
    v6: false,
};
const V6: Versions = Versions {
    v4: false,
    v6: true,
};

fn address(text: &str, outcome: Outcome) -> Address {
    Address {
        address: Underlay::new(text.parse().unwrap()),
        source: Source::Own,
        outcome,
    }
}

/// Relayed, both behind NATs of which nothing is known, and where the peer was seen nobody answers.
fn relayed() -> Facts {
    Facts {
        here: Here {
            nat: Nat::Unknown,
            versions: V4,
            is_open: false,
            udp: Udp::Works,
            is_behind_two: false,
            sessions: 2,
            others: Others::Heard,
            asks_dht: false,
        },
        there: There {
            nat: Nat::Unknown,
            versions: V4,
            is_open: false,
            is_bare: false,
            is_member: true,
            search: Search::InVain,
        },
        taken: Some(taken(Class::Relay)),
        addresses: vec![address("198.51.100.4:50213", Outcome::NoAnswer(5))],
    }
}

fn taken(class: Class) -> Taken {
    let endpoint = None;
    Taken { class, endpoint }
}

fn verdict(facts: &Facts) -> (Cause, Option<Remedy>) {
    let judgement = facts.judge();
    (judgement.cause, judgement.remedy)
}

#[test]
fn a_direct_path_says_what_made_it_possible() {
    let direct = Facts {
        taken: Some(taken(Class::Direct)),
        ..relayed()
    };
    assert_eq!(verdict(&direct), (Cause::Punched, None));
    let mut bare = direct.clone();
    bare.here.nat = Nat::None;
    assert_eq!(verdict(&bare), (Cause::BareHere, None));
    bare.there.is_bare = true;
    assert_eq!(verdict(&bare), (Cause::BareThere, None));
    let mut open = direct.clone();
    open.here.is_open = true;
    assert_eq!(verdict(&open), (Cause::OpenHere, None));
    open.there.is_open = true;
    assert_eq!(verdict(&open), (Cause::OpenThere, None));
    open.taken = Some(taken(Class::Lan));
    assert_eq!(verdict(&open), (Cause::Lan, None));
}

#[test]
fn what_is_known_of_both_nats_names_the_one_that_is_in_the_way() {
    let port_mapping = Some(Remedy::PortMapping);
    for (here, there, cause) in [
        (Nat::Hard, Nat::Hard, Cause::BothHard),
        (Nat::Hard, Nat::Easy, Cause::HardHere),
        (Nat::Hard, Nat::Unknown, Cause::HardHere),
        (Nat::Easy, Nat::Hard, Cause::HardThere),
        (Nat::Unknown, Nat::Hard, Cause::HardThere),
        (Nat::Easy, Nat::Easy, Cause::NoAnswer),
        (Nat::Unknown, Nat::Unknown, Cause::NoAnswer),
    ] {
        let mut facts = relayed();
        (facts.here.nat, facts.there.nat) = (here, there);
        assert_eq!(verdict(&facts), (cause, port_mapping), "{here:?} {there:?}");
    }
    let mut nowhere = relayed();
    nowhere.addresses.clear();
    let udp_there = Some(Remedy::UdpThere);
    assert_eq!(verdict(&nowhere), (Cause::NoAddress, udp_there));
    nowhere.here.nat = Nat::Hard;
    nowhere.addresses = vec![address("192.168.1.7:41820", Outcome::OtherSite)];
    let unseen = (Cause::NoAddress, udp_there);
    assert_eq!(verdict(&nowhere), unseen, "nobody has seen its UDP");
}

#[test]
fn a_machine_without_a_nat_is_kept_apart_by_a_firewall() {
    let mut facts = relayed();
    facts.there.is_bare = true;
    let there = (Cause::FirewallThere, Some(Remedy::FirewallThere));
    for nat in [Nat::None, Nat::Easy, Nat::Hard, Nat::Unknown] {
        facts.here.nat = nat;
        assert_eq!(verdict(&facts), there, "{nat:?}");
    }
    let mut facts = relayed();
    (facts.here.nat, facts.there.nat) = (Nat::None, Nat::Hard);
    let here = (Cause::FirewallHere, Some(Remedy::FirewallHere));
    assert_eq!(verdict(&facts), here);
    facts.here.is_open = true;
    assert_eq!(verdict(&facts).0, Cause::NoAnswer, "it is open");
}

#[test]
fn an_address_to_which_nothing_was_sent_has_not_kept_silent() {
    let until = Moment(30_000_000);
    let of = Outcome::of_tried;
    assert_eq!(of(TriedState::Silent, 0), Outcome::Unneeded);
    assert_eq!(of(TriedState::Silent, 1), Outcome::NoAnswer(1));
    assert_eq!(of(TriedState::HeldBack(until), 0), Outcome::Waiting(until));
    let mut facts = relayed();
    facts.addresses[0].outcome = Outcome::Waiting(until);
    assert_eq!(facts.judge().cause, Cause::NoAddress);
    assert_eq!(facts.judge().next_try, Some(until));
}

#[test]
fn a_mapping_behind_two_routers_is_no_remedy() {
    let mut facts = relayed();
    facts.here.is_behind_two = true;
    let there = Some(Remedy::PortMappingThere);
    assert_eq!(verdict(&facts), (Cause::DoubleNat, there));
    (facts.here.nat, facts.there.nat) = (Nat::Hard, Nat::Hard);
    assert_eq!(verdict(&facts), (Cause::BothHard, there));
}

#[test]
fn blocked_udp_is_known_by_the_sessions_there_are() {
    let mut facts = relayed();
    facts.here.udp = Udp::Blocked;
    let here = (Cause::UdpBlockedHere, Some(Remedy::UdpHere));
    assert_eq!(verdict(&facts), here);
    facts.taken = Some(taken(Class::Stream));
    assert_eq!(verdict(&facts), here);
    facts.here.udp = Udp::Works;
    let there = (Cause::UdpBlockedThere, Some(Remedy::UdpThere));
    assert_eq!(verdict(&facts), there);
}

#[test]
fn two_machines_without_a_common_version_need_a_third() {
    let mut facts = relayed();
    facts.there.versions = V6;
    let common = (Cause::NoCommonVersion, Some(Remedy::CommonVersion));
    assert_eq!(verdict(&facts), common);
    facts.there.versions = Versions::default();
    assert_eq!(verdict(&facts).0, Cause::NoAnswer, "nothing is known of it");
}

#[test]
fn what_is_under_way_or_barred_says_until_when() {
    let mut facts = relayed();
    let until = Moment(30_000_000);
    facts.addresses[0].outcome = Outcome::Barred(until);
    let judgement = facts.judge();
    assert_eq!(judgement.cause, Cause::JustFailed);
    let now = Now {
        at: Moment(10_000_000),
        unix_ms: 0,
    };
    assert_eq!(judgement.next_try_s(now), Some(20));
    facts.addresses[0].outcome = Outcome::HeldBack(5, until);
    assert_eq!(facts.judge().cause, Cause::NoAnswer);
    assert_eq!(facts.judge().next_try, Some(until));
    facts.addresses[0].outcome = Outcome::Trying;
    assert_eq!(
        verdict(&facts),
        (Cause::Trying, Some(Remedy::Patience)),
        "nothing is wrong yet"
    );
    assert_eq!(facts.judge().next_try_s(now), None);
}

#[test]
fn a_peer_that_is_not_reached_is_off_unless_the_facts_say_otherwise() {
    let off = Facts {
        taken: None,
        ..relayed()
    };
    assert_eq!(verdict(&off), (Cause::PeerOff, Some(Remedy::PeerOn)));
    let mut left = off.clone();
    left.there.search = Search::Left;
    assert_eq!(verdict(&left), (Cause::Left, Some(Remedy::PeerOn)));
    let mut unasked = off.clone();
    unasked.there.search = Search::None;
    assert_eq!(verdict(&unasked), (Cause::Unasked, None));
    let mut there = off.clone();
    there.there.search = Search::Answered;
    assert_eq!(verdict(&there), (Cause::NoRelay, Some(Remedy::Relay)));
    let mut offline = off.clone();
    offline.here.versions = Versions::default();
    assert_eq!(verdict(&offline), (Cause::Offline, Some(Remedy::Online)));
    let mut alone = off.clone();
    (alone.here.sessions, alone.there.versions) = (0, V6);
    assert_eq!(verdict(&alone).0, Cause::NoCommonVersion);
    let mut out = off;
    out.there.is_member = false;
    assert_eq!(verdict(&out), (Cause::Revoked, None));
}

#[test]
fn a_path_by_which_nobody_answers_is_none() {
    let mut facts = relayed();
    facts.there.search = Search::None;
    facts.forget_path();
    assert_eq!(verdict(&facts), (Cause::Lost, Some(Remedy::Patience)));
}

#[test]
fn nobody_is_called_off_while_somebody_may_know_better() {
    let off = Facts {
        taken: None,
        ..relayed()
    };
    let mut known = off.clone();
    known.there.search = Search::ByOthers;
    assert_eq!(verdict(&known), (Cause::Calling, Some(Remedy::Patience)));
    let mut cut_off = known;
    cut_off.here.others = Others::Silent;
    assert_eq!(verdict(&cut_off), (Cause::Silence, Some(Remedy::EitherOn)));
    let mut meeting = cut_off;
    meeting.here.asks_dht = true;
    assert_eq!(verdict(&meeting), (Cause::Meeting, Some(Remedy::Patience)));
}

#[test]
fn an_address_of_the_own_site_is_no_ipv6() {
    let versions = |texts: &[&str]| {
        let all: Vec<Underlay> = texts
            .iter()
            .map(|text| Underlay::new(text.parse().unwrap()))
            .collect();
        Versions::of(&all)
    };
    assert_eq!(versions(&["192.168.1.7:1", "[fd12::1]:1"]), V4);
    assert_eq!(versions(&["[2001:db8::7]:1"]), V6);
    assert_eq!(versions(&[]), Versions::default());
}
