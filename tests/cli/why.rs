//! What `why` says in each case (issue 5, point 7), and its shape as JSON.

use webmesh::{api::*, cli::why::why};

use super::{fake_agent::FakeAgent, schema, values};

const V4: WhyVersions = WhyVersions {
    ipv4: true,
    ipv6: false,
};
const V6: WhyVersions = WhyVersions {
    ipv4: false,
    ipv6: true,
};

fn relay(via: &str) -> Path {
    Path {
        kind: PathKind::Relay,
        endpoint: None,
        via: Some(via.into()),
        why: None,
    }
}

fn address(address: &str, source: WhySource, outcome: WhyOutcome) -> WhyAddress {
    WhyAddress {
        address: address.into(),
        source,
        seen_by: vec![],
        outcome,
        sent: None,
        again_s: None,
    }
}

fn seen_by(observers: &[&str], outcome: WhyAddress) -> WhyAddress {
    WhyAddress {
        seen_by: observers.iter().map(|name| (*name).to_owned()).collect(),
        source: WhySource::Seen,
        ..outcome
    }
}

fn unanswered(text: &str, source: WhySource, sent: u32) -> WhyAddress {
    WhyAddress {
        sent: Some(sent),
        ..address(text, source, WhyOutcome::NoAnswer)
    }
}

/// A path to nas through vps, of the transcript.
fn relayed() -> WhyPath {
    WhyPath {
        path: Some(relay("vps")),
        rtt_ms: Some(48.2),
        cause: WhyCause::BothHard,
        remedy: Some(WhyRemedy::PortMapping),
        before: None,
        addresses: vec![
            address("192.168.1.7:41820", WhySource::Lan, WhyOutcome::OtherSite),
            address("[2001:db8::7]:41820", WhySource::Ipv6, WhyOutcome::NoIpv6),
            seen_by(
                &["vps", "anna"],
                unanswered("198.51.100.4:50213", WhySource::Seen, 5),
            ),
        ],
        next_try_s: Some(250),
        asked: vec![],
        absent: vec![],
        last_heard_s: Some(0.4),
        unplugged: vec![],
        port: 41820,
        versions_here: V4,
        versions_there: WhyVersions {
            ipv4: true,
            ipv6: true,
        },
    }
}

fn direct(endpoint: &str, cause: WhyCause) -> WhyPath {
    WhyPath {
        path: Some(values::direct(endpoint)),
        rtt_ms: Some(34.2),
        cause,
        remedy: None,
        addresses: vec![],
        next_try_s: None,
        ..relayed()
    }
}

fn unreached(cause: WhyCause, remedy: WhyRemedy) -> WhyPath {
    WhyPath {
        path: None,
        rtt_ms: None,
        cause,
        remedy: Some(remedy),
        next_try_s: None,
        ..relayed()
    }
}

fn of(peer: &str, path: WhyPath) -> WhyReply {
    WhyReply {
        peer: peer.into(),
        reached: path.path.is_some(),
        cause: path.cause,
        remedy: path.remedy,
        policy_rule: 1,
        pick: None,
        path: Some(path),
        door: None,
        is_own: false,
        past: None,
    }
}

fn door(verdict: DoorVerdict, firewall: Option<&str>) -> Door {
    Door {
        verdict,
        port: 22,
        let_in: [22, 22],
        took_ms: None,
        firewall: firewall.map(str::to_owned),
        device: "wm0".into(),
    }
}

fn why_schema() -> serde_json::Value {
    serde_json::from_str(include_str!("why.schema.json")).expect("the schema is JSON")
}

/// What the binary prints, and its exit code.
fn said(reply: &WhyReply) -> (String, i32) {
    let agent = FakeAgent::new().says(Verb::Why, reply);
    let told = agent.run(&format!("why {}", reply.peer));
    assert_eq!(told.stderr, "");
    (told.stdout, told.exit)
}

fn text(reply: &WhyReply) -> String {
    said(reply).0
}

#[test]
fn in_one_lan() {
    let path = WhyPath {
        rtt_ms: Some(0.34),
        addresses: vec![
            address("192.168.1.3:41820", WhySource::Lan, WhyOutcome::InUse),
            seen_by(
                &["vps"],
                address("203.0.113.9:41820", WhySource::Seen, WhyOutcome::Spare),
            ),
        ],
        ..direct("192.168.1.3:41820", WhyCause::Lan)
    };
    let golden = "\
direct 192.168.1.3:41820 (the same LAN), 0.3 ms
  192.168.1.3:41820  anna's LAN address  in use
  203.0.113.9:41820  seen by vps         answers; the path in use is better
";
    assert_eq!(said(&of("anna", path)), (golden.to_owned(), 0));
}

#[test]
fn direct_where_one_side_is_open() {
    let there = of("vps", direct("203.0.113.10:41820", WhyCause::OpenThere));
    let golden = "direct 203.0.113.10:41820 (vps is reached from outside), 34 ms\n";
    assert_eq!(text(&there), golden);
    let here = of("bo", direct("203.0.113.9:50213", WhyCause::OpenHere));
    let golden = "direct 203.0.113.9:50213 (this machine is reached from outside), 34 ms\n";
    assert_eq!(text(&here), golden);
    for (cause, golden) in [
        (WhyCause::BareThere, "(vps has a public address)"),
        (WhyCause::BareHere, "(this machine has a public address)"),
    ] {
        let said = text(&of("vps", direct("203.0.113.10:41820", cause)));
        assert!(said.contains(golden), "{said}");
    }
}

#[test]
fn punched_after_a_moment_through_a_relay() {
    let path = WhyPath {
        before: Some(WhyBefore {
            path: relay("vps"),
            for_ms: 212,
        }),
        addresses: vec![seen_by(
            &["vps"],
            address("203.0.113.5:61234", WhySource::Seen, WhyOutcome::InUse),
        )],
        ..direct("203.0.113.5:61234", WhyCause::Punched)
    };
    let golden = "\
relay via vps for 0.2 s, then direct 203.0.113.5:61234 (both punched), 34 ms
  203.0.113.5:61234  seen by vps  in use
";
    assert_eq!(text(&of("anna", path)), golden);
}

const RELAYED: &str = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because both NATs give a new port to every destination.
  192.168.1.7:41820    nas's LAN address  not tried: other public address
  [2001:db8::7]:41820  nas's IPv6         no route: this machine has no IPv6
  198.51.100.4:50213   seen by vps, anna  5 probes, no answer
Would help: one port mapping (UPnP, or UDP 41820 forwarded by hand) at either router, or IPv6 here. Next try in 4 min or on a new address.
";

#[test]
fn a_symmetric_pair_is_relayed_as_in_the_transcript() {
    let reply = of("nas", relayed());
    assert_eq!(said(&reply), (RELAYED.to_owned(), 0));
    let narrow = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because both
  NATs give a new port to every destination.
  192.168.1.7:41820    nas's LAN address  not tried: other public address
  [2001:db8::7]:41820  nas's IPv6         no route: this machine has no IPv6
  198.51.100.4:50213   seen by vps, anna  5 probes, no answer
Would help: one port mapping (UPnP, or UDP 41820 forwarded by hand) at either
  router, or IPv6 here. Next try in 4 min or on a new address.
";
    assert_eq!(why(&reply, values::NOW, Some(80)), narrow);
    let wide = RELAYED.replace(" min or on a", " min or\n  on a");
    assert_eq!(why(&reply, values::NOW, Some(120)), wide);
}

#[test]
fn one_nat_of_two_may_be_the_one_that_is_in_the_way() {
    for (cause, because) in [
        (
            WhyCause::HardHere,
            "the NAT here gives a new port to every destination, and nas's does the same or lets in only whom it knows",
        ),
        (
            WhyCause::HardThere,
            "nas's NAT gives a new port to every destination, and the one here does the same or lets in only whom it knows",
        ),
        (
            WhyCause::NoAnswer,
            "no probe was answered: a NAT that gives a new port to every destination, or a firewall, lies between",
        ),
        (
            WhyCause::NoAddress,
            "nobody has seen UDP of nas come from an address that can be reached from here",
        ),
        (WhyCause::JustFailed, "the direct path failed a moment ago"),
    ] {
        let said = text(&of("nas", WhyPath { cause, ..relayed() }));
        let sentence = format!("Not direct because {because}.\n");
        assert!(said.contains(&sentence), "{said}");
    }
}

#[test]
fn while_addresses_are_tried_nothing_is_wrong_yet() {
    let path = WhyPath {
        cause: WhyCause::Trying,
        remedy: Some(WhyRemedy::Patience),
        next_try_s: None,
        addresses: vec![address(
            "198.51.100.4:50213",
            WhySource::Public,
            WhyOutcome::Trying,
        )],
        ..relayed()
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because that is still being tried.
  198.51.100.4:50213  nas's public address  being tried
Ask again in a few seconds.
";
    assert_eq!(text(&of("nas", path)), golden);
}

#[test]
fn udp_blocked_here_or_there() {
    let here = WhyPath {
        cause: WhyCause::UdpBlockedHere,
        remedy: Some(WhyRemedy::UdpHere),
        addresses: vec![unanswered("198.51.100.4:50213", WhySource::Public, 5)],
        next_try_s: None,
        ..relayed()
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because no UDP gets out here, or this machine's firewall drops the answers.
  198.51.100.4:50213  nas's public address  5 probes, no answer
Would help: UDP let out here, from port 41820 to any, and UDP 41820 let in by this machine's firewall. Next try on a new address.
";
    assert_eq!(text(&of("nas", here.clone())), golden);
    let there = WhyPath {
        path: Some(Path {
            kind: PathKind::Stream,
            via: None,
            ..relay("")
        }),
        cause: WhyCause::UdpBlockedThere,
        remedy: Some(WhyRemedy::UdpThere),
        addresses: vec![],
        ..here
    };
    let golden = "\
nas is reached on a TLS stream, 48 ms, sealed end to end. Not over UDP because no UDP gets out where nas is, or nas's firewall drops the answers.
Would help: UDP let out where nas is, and UDP 41820 let in by nas's firewall. Next try on a new address.
";
    assert_eq!(text(&of("nas", there)), golden);
}

#[test]
fn a_firewall_of_a_machine_with_a_public_address() {
    let there = WhyPath {
        cause: WhyCause::FirewallThere,
        remedy: Some(WhyRemedy::FirewallThere),
        addresses: vec![unanswered("203.0.113.14:4711", WhySource::Public, 5)],
        next_try_s: None,
        ..relayed()
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because nas's public address answers no probe: a firewall there drops what comes in, or the answers.
  203.0.113.14:4711  nas's public address  5 probes, no answer
Would help: UDP 4711 let in by nas's firewall. Next try on a new address.
";
    assert_eq!(text(&of("nas", there.clone())), golden);
    let here = WhyPath {
        cause: WhyCause::FirewallHere,
        remedy: Some(WhyRemedy::FirewallHere),
        addresses: vec![],
        ..there
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because nas's NAT gives a new port to every destination, and this machine's firewall lets in only whom it knows.
Would help: UDP 41820 let in by this machine's firewall. Next try on a new address.
";
    assert_eq!(text(&of("nas", here)), golden);
}

#[test]
fn an_address_to_which_nothing_was_sent_has_not_kept_silent() {
    let waiting = WhyAddress {
        again_s: Some(540),
        ..address("198.51.100.4:50213", WhySource::Public, WhyOutcome::Waiting)
    };
    let path = WhyPath {
        addresses: vec![
            waiting,
            address("203.0.113.9:41820", WhySource::Public, WhyOutcome::Unneeded),
        ],
        ..relayed()
    };
    let said = text(&of("nas", path.clone()));
    assert!(
        said.contains("  not tried: its turn comes in 9 min\n"),
        "{said}"
    );
    assert!(
        said.contains("  nas's public address  not tried\n"),
        "{said}"
    );
    let direct = WhyPath {
        addresses: path.addresses,
        ..direct("203.0.113.5:61234", WhyCause::Punched)
    };
    let said = text(&of("nas", direct));
    assert!(said.contains("  not tried: not needed\n"), "{said}");
}

#[test]
fn nobody_is_called_off_while_somebody_may_know_better() {
    let bare = |cause, remedy| WhyPath {
        asked: vec!["vps".into()],
        addresses: vec![unanswered("198.51.100.4:50213", WhySource::Public, 4)],
        last_heard_s: Some(30.0),
        ..unreached(cause, remedy)
    };
    for (cause, remedy, golden) in [
        (
            WhyCause::Lost,
            WhyRemedy::Patience,
            "it does not answer on the path it had, and another one is being looked for. Last heard 30 s ago.",
        ),
        (
            WhyCause::Calling,
            WhyRemedy::Patience,
            "it does not answer at its address, and not through vps. Last heard 30 s ago.",
        ),
        (
            WhyCause::Meeting,
            WhyRemedy::Patience,
            "it does not answer at its address. The DHT is being asked where it is. Last heard 30 s ago.",
        ),
        (
            WhyCause::Silence,
            WhyRemedy::EitherOn,
            "it does not answer at its address, and nobody else is heard either. Last heard 30 s ago.",
        ),
    ] {
        let said = text(&of("nas", bare(cause, remedy)));
        let head = format!("nas is not reached: {golden}\n");
        assert!(said.starts_with(&head), "{said}");
        let help = if cause == WhyCause::Meeting {
            "Ask again in a minute.\n"
        } else if cause == WhyCause::Silence {
            "Would help: nas switched on and online, or a way out for this machine.\n"
        } else {
            "Ask again in a few seconds.\n"
        };
        assert!(said.ends_with(&format!("\n{help}")), "{said}");
    }
}

#[test]
fn behind_two_routers() {
    let path = WhyPath {
        cause: WhyCause::DoubleNat,
        remedy: Some(WhyRemedy::PortMappingThere),
        addresses: vec![unanswered("198.51.100.4:50213", WhySource::Public, 5)],
        next_try_s: None,
        ..relayed()
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because the router here is behind another NAT, so that what it lets in never comes, and no probe was answered.
  198.51.100.4:50213  nas's public address  5 probes, no answer
Would help: one port mapping (UPnP, or UDP 41820 forwarded by hand) at nas's router, or IPv6 here. Next try on a new address.
";
    assert_eq!(text(&of("nas", path)), golden);
}

#[test]
fn ipv4_alone_with_ipv6_alone() {
    let path = WhyPath {
        cause: WhyCause::NoCommonVersion,
        remedy: Some(WhyRemedy::CommonVersion),
        versions_there: V6,
        addresses: vec![address(
            "[2001:db8::7]:41820",
            WhySource::Ipv6,
            WhyOutcome::NoIpv6,
        )],
        next_try_s: None,
        ..relayed()
    };
    let golden = "\
nas is reached through vps, 48 ms, sealed end to end. Not direct because this machine has IPv4 only and nas IPv6 only.
  [2001:db8::7]:41820  nas's IPv6  no route: this machine has no IPv6
Would help: IPv6 here, or IPv4 where nas is. Next try on a new address.
";
    assert_eq!(text(&of("nas", path.clone())), golden);
    let other_way_round = WhyPath {
        versions_here: V6,
        versions_there: V4,
        ..path
    };
    let said = text(&of("nas", other_way_round));
    assert!(said.contains("has IPv6 only and nas IPv4 only"), "{said}");
    assert!(said.contains("IPv4 here, or IPv6 where nas is"), "{said}");
}

#[test]
fn a_peer_that_is_off() {
    let path = WhyPath {
        asked: vec!["vps".into(), "anna".into()],
        absent: vec!["vps".into(), "anna".into()],
        last_heard_s: Some(3.2 * 86_400.0),
        addresses: vec![
            unanswered("192.168.1.7:41820", WhySource::Lan, 4),
            unanswered("198.51.100.4:50213", WhySource::Public, 1),
        ],
        ..unreached(WhyCause::PeerOff, WhyRemedy::PeerOn)
    };
    let golden = "\
nas is not reached: it answers at none of its addresses, and vps, anna have no session with it. Last heard 3 days ago.
  192.168.1.7:41820   nas's LAN address     4 probes, no answer
  198.51.100.4:50213  nas's public address  1 probe, no answer
Would help: nas switched on and online. There: systemctl status webmesh
";
    assert_eq!(said(&of("nas", path)), (golden.to_owned(), 1));
    let left = WhyPath {
        addresses: vec![],
        last_heard_s: Some(240.0),
        ..unreached(WhyCause::Left, WhyRemedy::PeerOn)
    };
    let golden = "\
nas is not reached: it said good-bye: its agent was stopped, or its machine. Last heard 4 min ago.
Would help: nas switched on and online. There: systemctl status webmesh
";
    assert_eq!(text(&of("nas", left)), golden);
    let unknown = WhyPath {
        addresses: vec![],
        last_heard_s: None,
        ..unreached(WhyCause::PeerOff, WhyRemedy::PeerOn)
    };
    let golden = "\
nas is not reached: no address of it is known, and no other peer could be asked.
Would help: nas switched on and online. There: systemctl status webmesh
";
    assert_eq!(text(&of("nas", unknown)), golden);
}

#[test]
fn no_path_at_all_for_other_reasons() {
    let bare = |cause, remedy| WhyPath {
        addresses: vec![],
        ..unreached(cause, remedy)
    };
    let golden = "\
nas is not reached: this machine has no address outside the mesh.
Would help: a network for this machine.
";
    let offline = bare(WhyCause::Offline, WhyRemedy::Online);
    assert_eq!(text(&of("nas", offline.clone())), golden);
    let golden = "\
nas is not reached: this machine's eth0 has no carrier: plug the cable in, or switch the radio on.
Would help: a network for this machine.
";
    let unplugged = WhyPath {
        unplugged: vec!["eth0".into()],
        ..offline
    };
    assert_eq!(text(&of("nas", unplugged)), golden);
    let golden = "\
nas is not reached: it is there, but no direct path was found, and no peer carries for the two.
Would help: a member with a public address that carries for others ([relay] udp = true).
";
    let alone = bare(WhyCause::NoRelay, WhyRemedy::Relay);
    assert_eq!(text(&of("nas", alone)), golden);
    let revoked = WhyPath {
        remedy: None,
        ..bare(WhyCause::Revoked, WhyRemedy::Patience)
    };
    let golden = "nas is not reached: it is out of the network.\n";
    assert_eq!(text(&of("nas", revoked)), golden);
}

/// A port of anna's, at a direct path.
fn at_port(door: Door) -> WhyReply {
    WhyReply {
        door: Some(door),
        ..of("anna", direct("203.0.113.9:61234", WhyCause::Punched))
    }
}

#[test]
fn a_firewall_of_the_peer_drops_the_port() {
    let dropped = WhyReply {
        reached: false,
        cause: WhyCause::DoorDropped,
        remedy: Some(WhyRemedy::Firewall),
        ..at_port(door(DoorVerdict::Dropped, Some("ufw")))
    };
    let golden = "\
name ok · policy ok (rule 1) · path direct 34 ms · anna's machine drops it: its firewall (ufw) blocks port 22 on wm0
There:  sudo ufw allow in on wm0 to any port 22 proto tcp
";
    assert_eq!(said(&dropped), (golden.to_owned(), 1));
    let unnamed = WhyReply {
        door: Some(door(DoorVerdict::Dropped, None)),
        ..dropped.clone()
    };
    let golden = "\
name ok · policy ok (rule 1) · path direct 34 ms · anna's machine drops it: its firewall blocks port 22 on wm0
There:  webmesh why anna:22   (it says what is in the way)
";
    assert_eq!(text(&unnamed), golden);
    let own = WhyReply {
        is_own: true,
        path: None,
        ..dropped
    };
    let golden = "\
name ok · policy ok (rule 1) · this machine drops it: its firewall (ufw) blocks port 22 on wm0
Here:  sudo ufw allow in on wm0 to any port 22 proto tcp
";
    assert_eq!(text(&own), golden);
    let by_hand = WhyReply {
        door: Some(door(DoorVerdict::Dropped, None)),
        ..own
    };
    let said = text(&by_hand);
    let help = "\nHere:  sudo nft list ruleset   (accept tcp dport 22 on wm0 before the rule that drops it)\n";
    assert!(said.ends_with(help), "{said}");
}

#[test]
fn a_door_that_opens_or_has_nobody_behind_it() {
    let open = Door {
        took_ms: Some(36.1),
        ..door(DoorVerdict::Accepted, None)
    };
    let golden = "name ok · policy ok (rule 1) · path direct 34 ms · accepted in 36 ms\n";
    assert_eq!(said(&at_port(open)), (golden.to_owned(), 0));
    let closed = WhyReply {
        reached: false,
        ..at_port(door(DoorVerdict::Closed, None))
    };
    let golden = "\
name ok · policy ok (rule 1) · path direct 34 ms · anna's machine refuses port 22: nothing listens there for the mesh, or its firewall rejects it
There:  webmesh why anna:22   (it says what is in the way)
";
    assert_eq!(said(&closed), (golden.to_owned(), 1));
    let loopback = WhyReply {
        is_own: true,
        path: None,
        ..at_port(door(DoorVerdict::LoopbackOnly, None))
    };
    let golden = "\
name ok · policy ok (rule 1) · port 22 listens on 127.0.0.1 only
Here:  webmesh service add NAME --port 22 --target 127.0.0.1:22
";
    assert_eq!(text(&loopback), golden);
}

#[test]
fn a_service_says_who_was_picked_and_a_missing_path_says_why() {
    let pick = Some(WhyPick {
        service: "web".into(),
        up: 1,
        instances: 2,
    });
    let open = Door {
        took_ms: Some(0.3),
        ..door(DoorVerdict::Accepted, None)
    };
    let reply = WhyReply {
        pick: pick.clone(),
        door: Some(open),
        ..of("nas", relayed())
    };
    let golden = "name ok · policy ok (rule 1) · 1 of 2 up, picked nas · path relay via vps 48 ms · accepted in 0.3 ms\n";
    assert_eq!(text(&reply), golden);
    let off = WhyPath {
        addresses: vec![unanswered("198.51.100.4:50213", WhySource::Public, 4)],
        asked: vec!["vps".into()],
        ..unreached(WhyCause::PeerOff, WhyRemedy::PeerOn)
    };
    let reply = WhyReply {
        pick,
        ..of("nas", off)
    };
    let golden = "\
name ok · policy ok (rule 1) · 1 of 2 up, picked nas · no path
nas is not reached: it does not answer at its address, and not through vps. Last heard 0 s ago.
  198.51.100.4:50213  nas's public address  4 probes, no answer
Would help: nas switched on and online. There: systemctl status webmesh
";
    assert_eq!(said(&reply), (golden.to_owned(), 1));
}

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// 14:05:59 of this day in UTC, a time that is written without its date, and what was written down around it.
fn past() -> WhyReply {
    let asked = unix_now() / 86_400 * 86_400 + 14 * 3600 + 5 * 60 + 59;
    let at = |before_s: u64| (asked - before_s) * 1000;
    let change = |at_ms, way, path| WhyChange {
        at_ms,
        way,
        path,
        cause: None,
    };
    let then = WhyChange {
        cause: Some(WhyCause::BothHard),
        ..change(at(477), WhyWay::Path, Some(relay("vps")))
    };
    let changes = vec![
        change(at(3600), WhyWay::Unreached, None),
        change(at(480), WhyWay::NoSession, None),
        then.clone(),
        change(
            at(0) + 60_000,
            WhyWay::Path,
            Some(values::direct("198.51.100.4:50213")),
        ),
    ];
    WhyReply {
        cause: WhyCause::BothHard,
        path: None,
        past: Some(WhyPast {
            at: asked,
            recorded_since: Some(asked - 3600),
            then: Some(then),
            changes,
        }),
        ..of("nas", relayed())
    }
}

/// The record of [`past`] with another thing that was so then.
fn past_with(then: Option<WhyChange>) -> WhyReply {
    let mut reply = past();
    let record = reply.past.as_mut().unwrap();
    record.changes = then.clone().into_iter().collect();
    record.recorded_since = record.changes.first().map(|change| change.at_ms / 1000);
    record.then = then;
    reply
}

#[test]
fn what_was_at_a_time_is_read_from_the_record() {
    let golden = "\
At 14:05:59 nas was reached through vps, since 13:58:02. Not direct because both NATs gave a new port to every destination.
  13:05:59  not reached
  13:57:59  no session
  13:58:02  relay via vps
  14:06:59  direct 198.51.100.4:50213
";
    assert_eq!(text(&past()), golden);
    let changes = past().past.unwrap().changes;
    for (change, head) in [
        (
            &changes[0],
            "At 14:05:59 nas was not reached, since 13:05:59.\n",
        ),
        (
            &changes[1],
            "At 14:05:59 no session with nas stood, since 13:57:59: nobody talked with it, or it left.\n",
        ),
        (
            &changes[3],
            "At 14:05:59 nas was reached direct 198.51.100.4:50213 (both punched), since 14:06:59.\n",
        ),
    ] {
        let said = text(&past_with(Some(change.clone())));
        assert!(said.starts_with(head), "{said}");
    }
}

#[test]
fn what_was_not_written_down_is_said_so() {
    let nothing = "Nothing is written down of nas: the agent remembers 24 h, and not what was before its start.\n";
    assert_eq!(text(&past_with(None)), nothing);
    let mut later = past();
    let record = later.past.as_mut().unwrap();
    record.recorded_since = Some(record.at + 60);
    record.then = None;
    let golden = "Nothing is written down of nas at 14:05:59: the first is of 14:06:59.\n";
    assert_eq!(text(&later), golden);
}

#[test]
fn a_time_of_day_is_sent_as_the_last_time_it_was() {
    let agent = FakeAgent::new().says(Verb::Why, &past());
    let told = agent.run("why nas --at 00:00:00");
    assert_eq!(told.exit, 0, "{}", told.stderr);
    let (path, asked) = agent.last_request();
    assert_eq!(
        (path.as_str(), asked["what"].as_str()),
        ("/v1/why", Some("nas"))
    );
    let at = asked["at"].as_u64().unwrap();
    assert!(at % 86_400 == 0 && unix_now() - at <= 86_400, "{at}");
    let told = agent.run("why nas --at noon");
    assert_eq!(told.exit, 2);
    assert!(told.stderr.contains("14:05"), "{}", told.stderr);
}

#[test]
fn as_json_it_is_what_the_agent_said_and_as_the_schema_says() {
    let open = Door {
        took_ms: Some(36.1),
        ..door(DoorVerdict::Accepted, None)
    };
    for reply in [of("nas", relayed()), at_port(open), past()] {
        let agent = FakeAgent::new().says(Verb::Why, &reply);
        let said = agent.run("why nas --json").stdout;
        assert_eq!(serde_json::from_str::<WhyReply>(&said).unwrap(), reply);
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(schema::violations(&why_schema(), &json), [""; 0]);
    }
    let json = serde_json::to_value(of("nas", relayed())).unwrap();
    assert_eq!(
        (&json["cause"], &json["remedy"]),
        (&"both_hard".into(), &"port_mapping".into())
    );
    for (place, new) in [
        ("/path/cause", serde_json::json!("bad_luck")),
        ("/path/addresses/0/outcome", serde_json::json!("unknown")),
        ("/reached", serde_json::json!("yes")),
    ] {
        let mut wrong = json.clone();
        *wrong.pointer_mut(place).unwrap() = new;
        let found = schema::violations(&why_schema(), &wrong);
        assert!(!found.is_empty(), "not found: {place}");
    }
}
