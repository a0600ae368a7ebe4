use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use rand_core::{RngCore, SeedableRng};

use super::{zone::*, *};

fn facts() -> Facts {
    let instance = |peer: &str, scope| Instance {
        name: peer.into(),
        peer: peer.into(),
        scope,
        turned: None,
    };
    Facts {
        domain: "home.internal".into(),
        serial: 7,
        pool4: "100.71.0.0/16".parse().unwrap(),
        prefix6: "fd7c:1a2b:3c4d::/48".parse().unwrap(),
        resolver4: Ipv4Addr::new(100, 71, 255, 53),
        resolver6: "fd7c:1a2b:3c4d::53".parse().unwrap(),
        family: Family::Both,
        peers: vec![peer("anna", 20, 9), peer("bo", 3, 4)],
        services: vec![
            Service {
                name: "web".into(),
                instances: vec![instance("anna", Scope::Mesh), instance("bo", Scope::Mesh)],
            },
            Service {
                name: "db".into(),
                instances: vec![instance("bo", Scope::PeerOnly)],
            },
            Service {
                name: "idle".into(),
                instances: vec![],
            },
        ],
    }
}

fn peer(name: &str, c: u8, d: u8) -> Peer {
    let v6 = format!("fd7c:1a2b:3c4d:9c41:77e0:5b1:{c:x}:{d:x}")
        .parse()
        .unwrap();
    Peer {
        name: name.into(),
        v4: Some(Ipv4Addr::new(100, 71, c, d)),
        v6,
    }
}

pub(crate) fn zone() -> Zone {
    Zone::new(&facts()).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

fn exchange(zone: &Zone, query: &Message, limit: usize) -> Message {
    let mut out = Vec::new();
    assert!(
        answer(zone, &query.to_vec().unwrap(), limit, &mut out),
        "no answer at all"
    );
    assert!(out.len() <= limit);
    Message::from_vec(&out).unwrap()
}

fn asked(name: &str, kind: RecordType) -> Message {
    exchange(&zone(), &query(name, kind), 1232)
}

fn data(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

fn has_soa(message: &Message) -> bool {
    matches!(&message.authorities[..], [soa] if soa.record_type() == RecordType::SOA)
}

#[test]
fn a_peer_has_both_addresses_under_its_name() {
    let v4 = asked("anna.home.internal.", RecordType::A);
    assert_eq!(data(&v4), ["100.71.20.9"]);
    assert!(
        v4.metadata.authoritative
            && v4.metadata.recursion_desired
            && !v4.metadata.recursion_available
    );
    assert_eq!(v4.answers[0].ttl, 5);
    let v6 = asked("anna.home.internal.", RecordType::AAAA);
    assert_eq!(data(&v6), ["fd7c:1a2b:3c4d:9c41:77e0:5b1:14:9"]);
}

#[test]
fn letters_may_be_large_and_come_back_as_they_were_asked() {
    let message = asked("aNNa.HOME.internal.", RecordType::A);
    assert_eq!(data(&message), ["100.71.20.9"]);
    assert_eq!(message.queries[0].name().to_ascii(), "aNNa.HOME.internal.");
    assert_eq!(message.answers[0].name.to_ascii(), "aNNa.HOME.internal.");
}

#[test]
fn a_service_answers_with_its_instances() {
    let mut all = data(&asked("web.svc.home.internal.", RecordType::A));
    all.sort();
    assert_eq!(all, ["100.71.20.9", "100.71.3.4"]);
    assert_eq!(
        data(&asked("web.bo.home.internal.", RecordType::A)),
        ["100.71.3.4"]
    );
    assert_eq!(
        data(&asked("bo.web.inst.home.internal.", RecordType::A)),
        ["100.71.3.4"]
    );
}

#[test]
fn the_query_id_turns_the_order_of_addresses() {
    let zone = zone();
    let first = |id: u16| {
        let mut query = query("web.svc.home.internal.", RecordType::A);
        query.metadata.id = id;
        data(&exchange(&zone, &query, 512))[0].clone()
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(2));
}

#[test]
fn a_service_that_may_not_be_offered_is_under_its_peer_only() {
    assert_eq!(
        data(&asked("db.bo.home.internal.", RecordType::A)),
        ["100.71.3.4"]
    );
    let absent = asked("db.svc.home.internal.", RecordType::A);
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_name_that_exists_is_never_nxdomain() {
    let names = [
        "anna", "svc", "inst", "web.svc", "idle.svc", "web.anna", "ns",
    ];
    for name in names {
        for kind in [
            RecordType::TXT,
            RecordType::HTTPS,
            RecordType::SRV,
            RecordType::MX,
        ] {
            let message = asked(&format!("{name}.home.internal."), kind);
            assert_eq!(
                message.metadata.response_code,
                ResponseCode::NoError,
                "{name} {kind}"
            );
            assert!(
                message.answers.is_empty() && has_soa(&message),
                "{name} {kind}"
            );
        }
    }
}

#[test]
fn a_bough_of_an_instance_exists_too() {
    let message = asked("web.inst.home.internal.", RecordType::TXT);
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn an_unknown_name_is_nxdomain_with_the_soa_that_says_for_how_long() {
    let names = [
        "nobody",
        "x.anna.svc",
        "anna.bo",
        "web.svc.anna",
        "_dmarc",
        "*",
    ];
    for name in names {
        let message = asked(&format!("{name}.home.internal."), RecordType::A);
        assert_eq!(
            message.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        assert!(has_soa(&message) && message.metadata.authoritative);
        assert_eq!(message.authorities[0].name.to_ascii(), "home.internal.");
        assert_eq!(message.authorities[0].ttl, 1);
        let soa = message.authorities[0].data.to_string();
        assert!(soa.ends_with(" 1"), "{soa}");
    }
}

#[test]
fn a_label_that_holds_a_dot_is_not_two_labels() {
    let mut message = query(".", RecordType::A);
    let name = Name::from_labels([&b"web.svc"[..], b"home", b"internal"]).unwrap();
    message.queries[0].set_name(name);
    let answer = exchange(&zone(), &message, 512);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn other_zones_are_refused() {
    let names = [
        "example.com.",
        ".",
        "internal.",
        "other.internal.",
        "xhome.internal.",
        "1.2.3.4.in-addr.arpa.",
        "1.0.72.100.in-addr.arpa.",
        "100.in-addr.arpa.",
        "in-addr.arpa.",
        "071.100.in-addr.arpa.",
        "c.7.d.f.ip6.arpa.",
        "1.0.0.2.ip6.arpa.",
    ];
    for name in names {
        for kind in [RecordType::A, RecordType::PTR, RecordType::NS] {
            let message = asked(name, kind);
            assert_eq!(
                message.metadata.response_code,
                ResponseCode::Refused,
                "{name}"
            );
            assert!(message.answers.is_empty() && message.authorities.is_empty());
            assert!(!message.metadata.authoritative);
        }
    }
}

#[test]
fn an_address_tells_its_name() {
    let zone = zone();
    let reverse = |address: std::net::IpAddr| Name::from(address).to_ascii();
    let v4 = exchange(
        &zone,
        &query(&reverse("100.71.20.9".parse().unwrap()), RecordType::PTR),
        512,
    );
    assert_eq!(data(&v4), ["anna.home.internal."]);
    let v6 = "fd7c:1a2b:3c4d:9c41:77e0:5b1:3:4".parse().unwrap();
    assert_eq!(
        data(&exchange(&zone, &query(&reverse(v6), RecordType::PTR), 512)),
        ["bo.home.internal."]
    );
    let resolver = asked("53.255.71.100.in-addr.arpa.", RecordType::PTR);
    assert_eq!(data(&resolver), ["ns.home.internal."]);
}

#[test]
fn reverse_names_between_the_zone_and_an_address_exist() {
    let names = [
        "71.100.in-addr.arpa.",
        "20.71.100.in-addr.arpa.",
        "1.4.c.9.d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa.",
    ];
    for name in names {
        let message = asked(name, RecordType::PTR);
        assert_eq!(
            message.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert!(message.answers.is_empty() && has_soa(&message), "{name}");
    }
    let names = [
        "21.71.100.in-addr.arpa.",
        "8.20.71.100.in-addr.arpa.",
        "x.71.100.in-addr.arpa.",
        "1.9.20.71.100.in-addr.arpa.",
    ];
    for name in names {
        let message = asked(name, RecordType::PTR);
        assert_eq!(
            message.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        assert_eq!(
            message.authorities[0].name.to_ascii(),
            "71.100.in-addr.arpa."
        );
    }
}

#[test]
fn a_pool_that_ends_inside_an_octet_has_its_own_reverse_zones_only() {
    let mut facts = facts();
    facts.pool4 = "100.64.0.0/12".parse().unwrap();
    let zone = Zone::new(&facts).unwrap();
    let code = |name: &str| {
        exchange(&zone, &query(name, RecordType::NS), 512)
            .metadata
            .response_code
    };
    assert_eq!(code("71.100.in-addr.arpa."), ResponseCode::NoError);
    assert_eq!(code("79.100.in-addr.arpa."), ResponseCode::NoError);
    assert_eq!(code("80.100.in-addr.arpa."), ResponseCode::Refused);
    assert_eq!(code("100.in-addr.arpa."), ResponseCode::Refused);
}

#[test]
fn every_zone_of_ours_has_soa_and_ns() {
    let zones = [
        "home.internal.",
        "71.100.in-addr.arpa.",
        "d.4.c.3.b.2.a.1.c.7.d.f.ip6.arpa.",
    ];
    for name in zones {
        let soa = asked(name, RecordType::SOA);
        assert!(
            data(&soa)[0].starts_with("ns.home.internal. admin.home.internal. 7 "),
            "{name}"
        );
        assert_eq!(data(&asked(name, RecordType::NS)), ["ns.home.internal."]);
    }
    assert_eq!(
        data(&asked("ns.home.internal.", RecordType::A)),
        ["100.71.255.53"]
    );
}

#[test]
fn any_is_answered_with_one_small_record() {
    let message = asked("anna.home.internal.", RecordType::ANY);
    assert_eq!(message.answers.len(), 1);
    assert_eq!(message.answers[0].record_type(), RecordType::HINFO);
    let absent = asked("nobody.home.internal.", RecordType::ANY);
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_host_without_mesh_ipv4_learns_no_a_records() {
    let mut facts = facts();
    facts.family = Family::V6Only;
    let zone = Zone::new(&facts).unwrap();
    let v4 = exchange(&zone, &query("anna.home.internal.", RecordType::A), 512);
    assert_eq!(v4.metadata.response_code, ResponseCode::NoError);
    assert!(v4.answers.is_empty() && has_soa(&v4));
    assert_eq!(
        exchange(&zone, &query("anna.home.internal.", RecordType::AAAA), 512)
            .answers
            .len(),
        1
    );
}

#[test]
fn edns_is_answered_with_edns_and_never_without_being_asked() {
    let mut with = query("anna.home.internal.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    with.set_edns(edns);
    let reply = exchange(&zone(), &with, 1232).edns.unwrap();
    assert_eq!(
        (
            reply.version(),
            reply.max_payload(),
            reply.flags().dnssec_ok
        ),
        (0, 1232, true)
    );
    assert!(asked("anna.home.internal.", RecordType::A).edns.is_none());
}

#[test]
fn an_edns_version_of_the_future_is_badvers() {
    let mut message = query("anna.home.internal.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let reply = exchange(&zone(), &message, 1232);
    assert_eq!(
        u16::from(reply.metadata.response_code),
        u16::from(ResponseCode::BADVERS)
    );
    assert_eq!(reply.edns.unwrap().version(), 0);
    assert!(reply.answers.is_empty());
}

fn crowd(count: u16) -> Zone {
    let mut facts = facts();
    let name = |i: u16| format!("p{i}");
    facts.peers = (0..count)
        .map(|i| {
            let [c, d] = i.to_be_bytes();
            peer(&name(i), c, d)
        })
        .collect();
    facts.services = vec![Service {
        name: "web".into(),
        instances: (0..count)
            .map(|i| Instance {
                name: name(i),
                peer: name(i),
                scope: Scope::Mesh,
                turned: None,
            })
            .collect(),
    }];
    Zone::new(&facts).unwrap()
}

#[test]
fn what_does_not_fit_says_so_and_fits_over_tcp() {
    let zone = crowd(40);
    let plain = query("web.svc.home.internal.", RecordType::AAAA);
    let cut = exchange(&zone, &plain, 1232);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(cut.queries.len(), 1);
    let mut large = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    assert_eq!(exchange(&zone, &large, 1232).answers.len(), 40);
    let stream = exchange(&zone, &plain, STREAM);
    assert!(!stream.metadata.truncation);
    assert_eq!(stream.answers.len(), 40);
}

#[test]
fn ten_thousand_instances_are_cut_even_over_tcp_and_not_all_made() {
    let zone = crowd(10_000);
    let cut = exchange(
        &zone,
        &query("web.svc.home.internal.", RecordType::AAAA),
        STREAM,
    );
    assert!(cut.metadata.truncation);
}

#[test]
fn responses_and_scraps_get_silence() {
    let mut out = vec![1];
    let mut response = query("anna.home.internal.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert!(!answer(&zone(), &response.to_vec().unwrap(), 512, &mut out));
    assert!(out.is_empty());
    for length in 0..12 {
        assert!(!answer(&zone(), &[0; 12][..length], 512, &mut out));
    }
    assert!(!answer(&zone(), &[0; LONGEST_QUERY + 1], 512, &mut out));
}

#[test]
fn other_operations_are_not_implemented_and_broken_questions_are_told() {
    let mut update = query("home.internal.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let reply = exchange(&zone(), &update, 512);
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    let mut two = query("anna.home.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(
        exchange(&zone(), &two, 512).metadata.response_code,
        ResponseCode::FormErr
    );
    let mut out = Vec::new();
    let whole = query("anna.home.internal.", RecordType::A)
        .to_vec()
        .unwrap();
    assert!(answer(&zone(), &whole[..whole.len() - 1], 512, &mut out));
    assert_eq!(
        Message::from_vec(&out).unwrap().metadata.response_code,
        ResponseCode::FormErr
    );
}

#[test]
fn other_classes_and_transfers_are_refused() {
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(
        exchange(&zone(), &chaos, 512).metadata.response_code,
        ResponseCode::Refused
    );
    assert_eq!(
        asked("home.internal.", RecordType::AXFR)
            .metadata
            .response_code,
        ResponseCode::Refused
    );
}

#[test]
fn compression_pointers_in_a_question_end() {
    let loops: [&[u8]; 4] = [
        &[0xc0, 0x0c, 0, 1, 0, 1],
        &[1, b'a', 0xc0, 0x0c, 0, 1, 0, 1],
        &[0xc0, 0x00, 0, 1, 0, 1],
        &[0xff, 0xff, 0, 1, 0, 1],
    ];
    for tail in loops {
        let mut bytes = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(tail);
        let mut out = Vec::new();
        assert!(answer(&zone(), &bytes, 512, &mut out));
    }
}

#[test]
fn no_bytes_make_it_panic_or_answer_too_long() {
    let zone = zone();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(53);
    let mut edns = query("web.svc.home.internal.", RecordType::A);
    edns.set_edns(Edns::new());
    let seeds = [
        edns.to_vec().unwrap(),
        query("9.20.71.100.in-addr.arpa.", RecordType::PTR)
            .to_vec()
            .unwrap(),
        query(&Name::from(Ipv6Addr::LOCALHOST).to_ascii(), RecordType::PTR)
            .to_vec()
            .unwrap(),
    ];
    let mut out = Vec::new();
    for round in 0..20_000_usize {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + rng.next_u32() % 6 {
            let at = rng.next_u32() as usize % bytes.len();
            bytes[at] = rng.next_u32().to_le_bytes()[0];
        }
        if round % 5 == 0 {
            bytes.truncate(rng.next_u32() as usize % (bytes.len() + 1));
        }
        if round % 7 == 0 {
            rng.fill_bytes(&mut bytes);
        }
        if answer(&zone, &bytes, 512, &mut out) {
            assert!(out.len() <= 512 && out.len() >= 12);
            let reply = Message::from_vec(&out).expect("what we say can be read");
            assert_eq!(reply.metadata.message_type, MessageType::Response);
        }
    }
}

#[test]
fn a_domain_that_is_none_makes_no_zone() {
    for domain in [
        "",
        ".",
        "a..b",
        &"x".repeat(64),
        &format!("{0}.{0}.{0}", "y".repeat(60)),
    ] {
        let facts = Facts {
            domain: domain.into(),
            ..facts()
        };
        assert!(Zone::new(&facts).is_err(), "{domain:?}");
    }
}

#[test]
fn a_peer_cannot_be_called_what_would_change_other_names() {
    let mut facts = facts();
    facts.peers.extend([
        peer("web.svc", 1, 1),
        peer("ns", 1, 2),
        peer("", 1, 3),
        peer("UPPER", 1, 4),
    ]);
    let zone = Zone::new(&facts).unwrap();
    let web = exchange(&zone, &query("web.svc.home.internal.", RecordType::A), 512);
    assert!(!data(&web).contains(&"100.71.1.1".to_owned()));
    let server = exchange(&zone, &query("ns.home.internal.", RecordType::A), 512);
    assert_eq!(data(&server), ["100.71.255.53"]);
}

#[test]
fn a_person_asks_for_an_address_as_it_is_written() {
    let zone = zone();
    for kind in [None, Some("PTR")] {
        let found = ask(&zone, "home.internal", "100.71.20.9", kind).unwrap();
        assert_eq!(found.name, "9.20.71.100.in-addr.arpa");
        assert_eq!(found.records[0].data, "anna.home.internal.");
    }
    let of_nobody = ask(&zone, "home.internal", "192.0.2.8", None);
    assert_eq!(of_nobody, Err(AskError::Foreign));
}

#[test]
fn a_person_may_leave_out_the_domain() {
    let zone = zone();
    let found = ask(&zone, "home.internal", "web.bo", None).unwrap();
    assert_eq!(found.name, "web.bo.home.internal");
    let kinds: Vec<&str> = found
        .records
        .iter()
        .map(|record| record.kind.as_str())
        .collect();
    assert_eq!(kinds, ["A", "AAAA"]);
    assert_eq!(
        ask(&zone, "home.internal", "web", Some("a")).unwrap().name,
        "web.svc.home.internal"
    );
    assert_eq!(
        ask(&zone, "home.internal", "anna", Some("txt"))
            .unwrap()
            .records,
        []
    );
    assert_eq!(
        ask(&zone, "home.internal", "nobody.home.internal", None),
        Err(AskError::NoSuchName)
    );
    assert_eq!(
        ask(&zone, "home.internal", "example.com.", None),
        Err(AskError::Foreign)
    );
    assert_eq!(
        ask(&zone, "home.internal", "anna", Some("nonsense")),
        Err(AskError::BadType)
    );
    let reverse = ask(
        &zone,
        "home.internal",
        "9.20.71.100.in-addr.arpa.",
        Some("ptr"),
    )
    .unwrap();
    assert_eq!(reverse.records[0].data, "anna.home.internal.");
}
