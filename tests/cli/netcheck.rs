//! What `netcheck` says in each case.

use webmesh::api::{
    Dht, DhtState, Lan, Met, Nat, Neighbour, NetcheckReply, Observed, PortMapping,
    PortMappingState, Udp, UdpState, Verb,
};

use super::fake_agent::FakeAgent;

fn behind_a_router() -> NetcheckReply {
    NetcheckReply {
        network: "home".into(),
        port: 41820,
        unplugged: vec![],
        interfaces: vec!["192.168.1.7:41820".into(), "[2001:db8::7]:41820".into()],
        observed: vec![
            Observed {
                address: "203.0.113.9:41820".into(),
                observers: 2,
            },
            Observed {
                address: "203.0.113.9:50213".into(),
                observers: 1,
            },
        ],
        nat: Nat::Hard,
        reached: vec!["203.0.113.9:41820".into()],
        published: vec!["192.168.1.7:41820".into()],
        udp: Udp {
            state: UdpState::Works,
            sessions: 3,
        },
        port_mapping: PortMapping {
            state: PortMappingState::Mapped,
            protocol: Some("UPnP".into()),
            external: Some("203.0.113.9:41820".into()),
            why: None,
        },
        lan: Lan {
            on: true,
            places: 1,
            heard: vec![Neighbour {
                peer: "bo".into(),
                address: "192.168.1.3:41820".into(),
                ago_s: 12.4,
            }],
        },
        dht: dht(DhtState::InUse, None),
    }
}

fn dht(state: DhtState, why: Option<&str>) -> Dht {
    Dht {
        state,
        why: why.map(str::to_owned),
        met: vec![],
    }
}

fn said(reply: &NetcheckReply) -> String {
    let agent = FakeAgent::new().says(Verb::Netcheck, reply);
    agent.run("netcheck").stdout
}

#[test]
fn a_machine_behind_a_router_reads_like_this() {
    let text = "\
addresses       192.168.1.7:41820  [2001:db8::7]:41820
seen as         203.0.113.9:41820 by 2 peers  203.0.113.9:50213 by 1 peer
NAT             hard: a new port per destination; a port mapping here would help
port mapping    203.0.113.9:41820 by UPnP
from outside    reached at 203.0.113.9:41820
UDP             out and in, 3 sessions
LAN             bo at 192.168.1.3:41820, 12 s ago
DHT             in use
others are told 192.168.1.7:41820
";
    assert_eq!(said(&behind_a_router()), text);
}

#[test]
fn a_machine_of_which_nothing_is_known_says_so_line_by_line() {
    let reply = NetcheckReply {
        interfaces: vec![],
        observed: vec![],
        nat: Nat::Unknown,
        reached: vec![],
        published: vec![],
        udp: Udp {
            state: UdpState::Unknown,
            sessions: 0,
        },
        port_mapping: mapping(PortMappingState::Asking),
        lan: Lan {
            on: true,
            places: 0,
            heard: vec![],
        },
        dht: dht(
            DhtState::Off,
            Some("the configuration names no rendezvous.dht_bootstrap"),
        ),
        ..behind_a_router()
    };
    let text = "\
This machine is cut off: it has no address outside the mesh.
addresses       none
seen as         nobody has said
NAT             not known: that takes two peers in different places
port mapping    the router is being asked
from outside    nobody has come in unasked
UDP             nobody is heard over it now
LAN             this machine is in none
DHT             off: the configuration names no rendezvous.dht_bootstrap
others are told none
";
    assert_eq!(said(&reply), text);
}

#[test]
fn a_pulled_cable_is_said_first_of_all() {
    for (links, first) in [
        (
            &["eth0"][..],
            "This machine is cut off: eth0 has no carrier: plug the cable in, or switch the radio on.\n",
        ),
        (
            &["eth0", "wlan0"],
            "This machine is cut off: eth0 and wlan0 have no carrier: plug the cable in, or switch the radio on.\n",
        ),
    ] {
        let text = said(&NetcheckReply {
            unplugged: links.iter().map(|&link| link.to_owned()).collect(),
            ..behind_a_router()
        });
        assert!(text.starts_with(first), "{text}");
    }
}

#[test]
fn the_dht_is_idle_or_out_of_reach_or_has_found_somebody() {
    let met = Dht {
        met: vec![Met {
            peer: "bo".into(),
            ago_s: 200,
        }],
        ..dht(DhtState::Idle, None)
    };
    for (dht, words) in [
        (dht(DhtState::Idle, None), "ready, not in use"),
        (met, "ready, not in use; met bo 3 min ago"),
        (
            dht(
                DhtState::Unreachable,
                Some("dht.example.org:6881 is not found"),
            ),
            "not reached: dht.example.org:6881 is not found",
        ),
    ] {
        let text = said(&NetcheckReply {
            dht,
            ..behind_a_router()
        });
        assert!(
            text.contains(&format!("\nDHT             {words}\n")),
            "{text}"
        );
    }
}

fn mapping(state: PortMappingState) -> PortMapping {
    PortMapping {
        state,
        protocol: None,
        external: None,
        why: None,
    }
}

#[test]
fn each_outcome_with_the_router_says_what_to_do() {
    let by_nat_pmp = |state| PortMapping {
        protocol: Some("NAT-PMP".into()),
        external: Some("100.64.7.7:41820".into()),
        ..mapping(state)
    };
    let refused = PortMapping {
        why: Some("not authorized".into()),
        external: None,
        ..by_nat_pmp(PortMappingState::Refused)
    };
    let cases = [
        (
            mapping(PortMappingState::Off),
            "off: rendezvous.port_mapping is false in the configuration",
        ),
        (
            mapping(PortMappingState::Unneeded),
            "not needed: no private address here is behind a router",
        ),
        (
            by_nat_pmp(PortMappingState::DoubleNat),
            "of no use: the router (NAT-PMP) is itself behind another one, which calls it 100.64.7.7:41820",
        ),
        (
            refused,
            "the router refuses (NAT-PMP): not authorized. By hand: forward UDP 41820 to here",
        ),
        (
            mapping(PortMappingState::Silent),
            "none: the router speaks neither PCP, NAT-PMP nor UPnP. Switch one on there, or forward UDP 41820 by hand",
        ),
    ];
    for (port_mapping, words) in cases {
        let reply = NetcheckReply {
            port_mapping,
            ..behind_a_router()
        };
        let text = said(&reply);
        assert!(
            text.contains(&format!("\nport mapping    {words}\n")),
            "{text}"
        );
    }
}

#[test]
fn each_kind_of_nat_and_lan_has_its_words() {
    for (nat, words) in [
        (Nat::None, "none: others see this machine's own address"),
        (
            Nat::Hard,
            "hard: a new port per destination; a port mapping here would help",
        ),
        (Nat::Easy, "easy: the same port towards everybody"),
    ] {
        let text = said(&NetcheckReply {
            nat,
            ..behind_a_router()
        });
        assert!(
            text.contains(&format!("\nNAT             {words}\n")),
            "{text}"
        );
    }
    for (on, words) in [
        (true, "nobody of the network was heard there"),
        (false, "off: rendezvous.lan is false in the configuration"),
    ] {
        let lan = Lan {
            on,
            places: 1,
            heard: vec![],
        };
        let text = said(&NetcheckReply {
            lan,
            ..behind_a_router()
        });
        assert!(
            text.contains(&format!("\nLAN             {words}\n")),
            "{text}"
        );
    }
}

#[test]
fn what_nobody_has_seen_is_no_nat_by_the_own_address_alone_and_may_be_behind_a_firewall() {
    let bare = NetcheckReply {
        nat: Nat::None,
        observed: vec![],
        reached: vec![],
        ..behind_a_router()
    };
    let text = said(&bare);
    for line in [
        "\nseen as         nobody has said\n",
        "\nNAT             none, by this machine's own address; nobody has seen it yet\n",
        "\nfrom outside    nobody has come in unasked: if others try in vain, let UDP 41820 in through this machine's firewall\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn blocked_udp_is_named_and_no_port_mapping_is_advised() {
    let blocked = NetcheckReply {
        udp: Udp {
            state: UdpState::Blocked,
            sessions: 0,
        },
        port_mapping: mapping(PortMappingState::Silent),
        ..behind_a_router()
    };
    let text = said(&blocked);
    for line in [
        "\nport mapping    none: the router speaks neither PCP, NAT-PMP nor UPnP\n",
        "\nUDP             blocked, sessions stand on TLS alone: let UDP out from port 41820 to any, and in to port 41820 through this machine's firewall\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn as_json_it_is_what_the_agent_said() {
    let reply = behind_a_router();
    let agent = FakeAgent::new().says(Verb::Netcheck, &reply);
    let said = agent.run("netcheck --json").stdout;
    assert_eq!(serde_json::from_str::<NetcheckReply>(&said).unwrap(), reply);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["nat"], "hard");
    assert_eq!(json["port_mapping"]["state"], "mapped");
    assert!(json["port_mapping"]["why"].is_null());
}
