//! What the agent of the transcripts would say.

use webmesh::api::*;

/// 2026-11-22 14:42 UTC.
pub(crate) const NOW: u64 = 1_795_358_520;

pub(crate) fn network() -> Network {
    Network {
        id: "7c".repeat(32),
        name: "home".into(),
        domain: "home.internal".into(),
    }
}

pub(crate) fn own(name: &str, role: Role) -> Own {
    Own {
        id: "b0".repeat(32),
        name: name.into(),
        role,
        ipv4: Some(
            if name == "anna" {
                "100.71.20.9"
            } else {
                "100.71.3.4"
            }
            .into(),
        ),
        ipv6: "fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12".into(),
        port: 41820,
        nat: Nat::Easy,
        certificate_until: NOW + 90 * 86_400,
    }
}

fn peer(name: &str, state: PeerState) -> Peer {
    Peer {
        id: "a1".repeat(32),
        name: name.into(),
        ipv4: Some("100.71.20.9".into()),
        ipv6: "fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12".into(),
        state,
        path: None,
        rtt_ms: None,
        tx_bytes: 0,
        rx_bytes: 0,
        last_handshake_s: None,
        last_heard_s: None,
        transport: None,
    }
}

pub(crate) fn anna() -> Peer {
    Peer {
        path: Some(direct("203.0.113.9:61234")),
        rtt_ms: Some(34.2),
        tx_bytes: 1_200_000,
        rx_bytes: 8_100_000,
        last_handshake_s: Some(61.5),
        last_heard_s: Some(0.4),
        transport: Some(Cipher::WireGuard),
        ..peer("anna", PeerState::Up)
    }
}

pub(crate) fn direct(endpoint: &str) -> Path {
    Path {
        kind: PathKind::Direct,
        endpoint: Some(endpoint.into()),
        via: None,
        why: None,
    }
}

fn nas() -> Peer {
    Peer {
        path: Some(Path {
            kind: PathKind::Relay,
            endpoint: None,
            via: Some("vps".into()),
            why: None,
        }),
        rtt_ms: Some(48.0),
        tx_bytes: 22_000_000,
        rx_bytes: 3_000_000_000,
        last_handshake_s: Some(20.0),
        last_heard_s: Some(9.0),
        transport: Some(Cipher::WireGuard),
        ..peer("nas", PeerState::Up)
    }
}

fn old() -> Peer {
    Peer {
        last_heard_s: Some(3.2 * 86_400.0),
        ..peer("old", PeerState::Away)
    }
}

pub(crate) fn web() -> Service {
    let instance = |peer: &str, state, target: Option<&str>| Instance {
        peer: peer.into(),
        instance: peer.into(),
        state,
        target: target.map(str::to_owned),
        tags: Vec::new(),
        weight: 100,
    };
    Service {
        name: "web".into(),
        domain_name: "web.svc.home.internal".into(),
        protocol: Protocol::Tcp,
        port: 80,
        up: 2,
        instances: vec![
            instance("anna", InstanceState::Up, Some("127.0.0.1:8080")),
            instance("nas", InstanceState::Up, None),
            instance("old", InstanceState::Down, None),
        ],
    }
}

pub(crate) fn small_web() -> Service {
    let mut service = web();
    service.instances.truncate(1);
    service.up = 1;
    service
}

pub(crate) fn dns(state: DnsState) -> Dns {
    Dns {
        domain: Some("home.internal".into()),
        servers: vec!["100.71.255.53".into(), "fd7c:1a2b:3c4d::53".into()],
        search: vec!["home.internal".into(), "svc.home.internal".into()],
        backend: if state == DnsState::Resolving {
            DnsBackend::Forward
        } else {
            DnsBackend::None
        },
        state,
    }
}

pub(crate) fn dht(met: Vec<Met>) -> Dht {
    Dht {
        state: DhtState::Idle,
        why: None,
        met,
    }
}

pub(crate) fn status() -> Status {
    Status {
        api: VERSION,
        version: "0.1.0".into(),
        state: State::Up,
        network: Some(network()),
        own: Some(own("bo", Role::Member)),
        peers: vec![anna(), nas(), old()],
        services: vec![small_web()],
        dns: dns(DnsState::Resolving),
        dht: dht(vec![]),
        drops: [("no_session".to_owned(), 3)].into(),
        relay: Some(Relayed {
            ways: 1,
            packets: 20,
            bytes: 24_000,
        }),
        offloads: [("udp_gso".to_owned(), "off".to_owned())].into(),
        health: vec![Health {
            level: Level::Warning,
            code: "one_admin".into(),
            message: "home has one admin. If anna's machine is lost nobody can be added".into(),
            remedy: Some(
                "on another machine of it, with the recovery code: sudo webmesh recover CODE"
                    .into(),
            ),
        }],
    }
}

pub(crate) fn nowhere() -> Status {
    Status {
        state: State::None,
        network: None,
        own: None,
        peers: vec![],
        services: vec![],
        dns: Dns {
            domain: None,
            servers: vec![],
            search: vec![],
            backend: DnsBackend::None,
            state: DnsState::Off,
        },
        drops: Default::default(),
        relay: None,
        offloads: Default::default(),
        health: vec![],
        ..status()
    }
}

pub(crate) fn down() -> Status {
    Status {
        state: State::Down,
        peers: vec![],
        services: vec![],
        health: vec![],
        ..status()
    }
}
