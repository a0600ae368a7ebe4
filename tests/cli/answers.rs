//! What each verb asks, prints and exits with when all is well.

use serde_json::json;
use webmesh::{
    addr::Underlay,
    api::{
        words::{NAMES_WAYS_OUT, ago},
        *,
    },
    cli::{
        names::{Answer, Asked, DnsStatus},
        render,
    },
    keys::{InviteSecret, Token},
};

use super::{
    fake_agent::{FakeAgent, webmesh},
    schema, values,
};

/// 23:59 of this day in UTC: a time that is written without its date.
fn tonight() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    now / 86_400 * 86_400 + 86_340
}

pub(crate) fn token() -> String {
    Token {
        expires: 1_795_358_520,
        secret: InviteSecret([7; 16]),
        issuer: [9; 32],
        name: "anna".into(),
        hints: vec![Underlay::new("203.0.113.9:41820".parse().unwrap())],
    }
    .to_string()
}

#[test]
fn init_prints_the_first_hour() {
    let reply = InitReply {
        network: values::network(),
        own: values::own("anna", Role::Admin),
        reach: Reach {
            kind: ReachKind::Untried,
            address: Some("10.99.0.1:41820".into()),
        },
        dns: values::dns(DnsState::NotResolving),
        policy: webmesh::policy::DEFAULT_SENTENCE.into(),
        recovery_code: "4XKD-91TQ-77PM".into(),
        warnings: vec![],
    };
    let agent = FakeAgent::new().says(Verb::Init, &reply);
    let told = agent.run("init home --name anna");
    assert_eq!(
        told.stdout,
        "\
home is up; this machine is anna, its first admin.
  address   100.71.20.9  fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12
  name      anna.home.internal   (its resolver: 100.71.255.53)
  reach     10.99.0.1:41820, not tried from outside yet
  policy    members may reach every port of each other   (webmesh policy show)
Keep this offline; with it any machine can become admin if all admins are lost:   4XKD-91TQ-77PM
Next:  sudo webmesh invite      sudo webmesh service add web --port 80 --target 127.0.0.1:8080
"
    );
    assert_eq!((told.stderr.as_str(), told.exit), ("", 0));
    let asked = json!({"network": "home", "name": "anna", "host_name": null, "domain": null, "ipv4": null, "closed": false});
    assert_eq!(agent.last_request(), ("/v1/init".to_owned(), asked));
}

#[test]
fn what_to_know_of_a_new_network_is_said_beside_it() {
    let reply = InitReply {
        network: values::network(),
        own: values::own("anna", Role::Admin),
        reach: Reach {
            kind: ReachKind::Untried,
            address: None,
        },
        dns: values::dns(DnsState::Resolving),
        policy: String::new(),
        recovery_code: "4XKD".into(),
        warnings: vec![
            ApiError::warning(
                Code::Ipv4Blocked,
                "only IPv6 is used here: a route overlaps",
            )
            .remedy("sudo webmesh leave home"),
        ],
    };
    let told = FakeAgent::new().says(Verb::Init, &reply).run("init home");
    assert!(told.stdout.starts_with("home is up"));
    assert_eq!(
        (told.stderr.as_str(), told.exit),
        (
            "webmesh: only IPv6 is used here: a route overlaps: sudo webmesh leave home\n",
            0
        )
    );
}

#[test]
fn a_debug_bundle_is_a_new_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let part = |part: &str, facts: serde_json::Value| BundlePart {
        part: part.to_owned(),
        facts: facts.as_object().unwrap().clone(),
    };
    let reply = DebugBundleReply {
        parts: vec![
            part("about", json!({})),
            part("log", json!({"line": "Agent runs"})),
        ],
    };
    let agent = FakeAgent::new().says(Verb::DebugBundle, &reply);
    let file = std::env::temp_dir().join(format!("webmesh-bundle-{}", std::process::id()));
    let words = format!("debug bundle --output {}", file.display());
    let told = agent.run(&words);
    let text = std::fs::read_to_string(&file).unwrap();
    let line = format!(
        "{}  {} B, for your eyes only so far: read it, then send it to who helps you.\n",
        file.display(),
        text.len()
    );
    assert_eq!(
        (told.stdout.as_str(), told.exit),
        (line.as_str(), 0),
        "{}",
        told.stderr
    );
    // What the agent may not read is added here.
    let (from_agent, added) = text.split_at(52);
    assert_eq!(
        from_agent,
        "{\"part\":\"about\"}\n{\"part\":\"log\",\"line\":\"Agent runs\"}\n"
    );
    assert!(
        added.starts_with("{\"part\":\"sysctl\",") && added.lines().count() == 1,
        "{added}"
    );
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = agent.run(&words);
    assert_eq!(
        (again.stderr, again.exit),
        (
            format!(
                "webmesh: {} is there already: give another with --output FILE\n",
                file.display()
            ),
            2
        )
    );
    std::fs::remove_file(&file).unwrap();
    let told = agent.run(&(words + " --json"));
    std::fs::remove_file(&file).unwrap();
    let said: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(said, json!({"file": file, "bytes": text.len()}));
}

#[test]
fn the_four_forms_of_reach() {
    let forms = [
        (
            ReachKind::Reached,
            "203.0.113.10:41820",
            "203.0.113.10:41820, reached from outside",
        ),
        (
            ReachKind::Untried,
            "10.99.0.1:41820",
            "10.99.0.1:41820, not tried from outside yet",
        ),
        (
            ReachKind::NatMapped,
            "203.0.113.9",
            "behind NAT 203.0.113.9, port mapped",
        ),
        (
            ReachKind::Nat,
            "203.0.113.9",
            "behind NAT 203.0.113.9, no port mapping",
        ),
    ];
    for (kind, address, words) in forms {
        let reply = InitReply {
            network: values::network(),
            own: values::own("anna", Role::Admin),
            reach: Reach {
                kind,
                address: Some(address.into()),
            },
            dns: values::dns(DnsState::Resolving),
            policy: String::new(),
            recovery_code: String::new(),
            warnings: vec![],
        };
        let text = render::init(&reply);
        assert!(text.contains(&format!("  reach     {words}\n")), "{text}");
        assert!(text.contains("  name      anna.home.internal\n"));
    }
}

#[test]
fn the_answer_of_invite_is_the_token_alone() {
    let token = token();
    let reply = InviteReply {
        network: "home".into(),
        id: "7k3d".into(),
        token: token.clone(),
        expires: tonight(),
        uses: 1,
        role: Role::Member,
        warning: Some("the DHT is off here".into()),
    };
    let agent = FakeAgent::new().says(Verb::Invite, &reply);
    let told = agent.run("invite --expires 2h --service db,web-*");
    assert_eq!(told.stdout, format!("{token}\n"));
    let head = token.split_at(8).0;
    assert_eq!(
        told.stderr,
        format!(
            "One machine may join home as member until 23:59. There:  sudo webmesh join {head}…\n\
             Keep this machine on until then: it answers the invite.  Take it back: webmesh invite cancel 7k3d\n\
             ! the DHT is off here\n"
        )
    );
    assert_eq!(told.exit, 0);
    let (_, asked) = agent.last_request();
    assert_eq!(
        (&asked["expires_s"], &asked["services"]),
        (&json!(7200), &json!(["db", "web-*"]))
    );
}

#[test]
fn open_invites_are_listed_and_taken_back() {
    let open = OpenInvite {
        id: "7k3d".into(),
        role: Role::Member,
        uses_left: 1,
        expires: tonight(),
        used_by: vec![],
    };
    let two = OpenInvite {
        uses_left: 2,
        used_by: vec!["bo".into()],
        ..open.clone()
    };
    let agent = FakeAgent::new()
        .says(
            Verb::InviteList,
            &InviteListReply {
                network: "home".into(),
                invites: vec![open, two],
            },
        )
        .says(
            Verb::InviteCancel,
            &InviteCancelReply {
                id: "7k3d".into(),
                used_by: vec![],
            },
        );
    assert_eq!(
        agent.run("invite list").stdout,
        "ID 7k3d  member  1 use left  until 23:59\nID 7k3d  member  2 uses left  until 23:59  used by bo\n"
    );
    assert_eq!(
        agent.run("invite cancel 7k3d").stdout,
        "Invite 7k3d is taken back.\n"
    );
    assert_eq!(agent.last_request().1["id"], json!("7k3d"));
    let none = FakeAgent::new().says(
        Verb::InviteList,
        &InviteListReply {
            network: "home".into(),
            invites: vec![],
        },
    );
    assert_eq!(none.run("invite list").stdout, "no open invites\n");
}

fn joined(name: &str, role: Role, state: DnsState) -> JoinReply {
    JoinReply {
        network: values::network(),
        own: values::own(name, role),
        issuer: "anna".into(),
        took_ms: 6_100,
        peers: 2,
        services: vec![values::small_web()],
        dns: values::dns(state),
    }
}

#[test]
fn join_talks_while_it_looks_and_answers_when_it_is_in() {
    let looking = "Looking for anna: 192.168.1.20:41820 no · 203.0.113.9:41820 yes, 34 ms, direct";
    let lines = [
        Line::Talk(looking.to_owned()),
        Line::Reply(joined("bo", Role::Member, DnsState::Resolving)),
    ];
    let agent = FakeAgent::new().talks(Verb::Join, &lines);
    let told = agent.run(&format!("join {}", token()));
    assert_eq!(told.stderr, format!("{looking}\n"));
    assert_eq!(
        told.stdout,
        "Joined home as bo, 100.71.3.4, in 6.1 s.  2 peers, 1 service.   \
         Try:  ping anna    curl http://web.svc.home.internal/\n"
    );
    assert_eq!(told.exit, 0);
    // The agent of a unit does not see that a host was given another name.
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(
        agent.last_request().1,
        json!({"token": token(), "name": null, "host_name": host_name.trim()})
    );
}

#[test]
fn join_takes_the_token_from_stdin() {
    let lines = [Line::<String, _>::Reply(joined(
        "laptop",
        Role::Admin,
        DnsState::NotResolving,
    ))];
    let agent = FakeAgent::new().talks(Verb::Join, &lines);
    let told = agent.run_with(
        &["join", "-", "--name", "laptop"],
        &format!("\n  {}  \n", token()),
    );
    assert_eq!(
        told.stdout,
        "Joined home as laptop (admin), 100.71.3.4, in 6.1 s.  2 peers, 1 service.   Try:  webmesh ping anna\n"
    );
    assert_eq!(
        agent.last_request().1,
        json!({"token": token(), "name": "laptop", "host_name": null})
    );
}

#[test]
fn status_json_passes_through_and_is_as_the_schema_says() {
    let agent = FakeAgent::new().says(Verb::Status, &values::status());
    let told = agent.run("--json status");
    assert_eq!(told.stdout.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        schema::violations(&schema::status_schema(), &value),
        [""; 0]
    );
    assert_eq!(value, serde_json::to_value(values::status()).unwrap());
}

#[test]
fn status_without_a_terminal_has_no_colour_and_no_cut() {
    let agent = FakeAgent::new().says(Verb::Status, &values::status());
    let told = agent.run("status");
    assert_eq!(
        told.stdout,
        webmesh::cli::status::status(&values::status(), None)
    );
    assert!(!told.stdout.contains('\x1b'));
    assert_eq!((told.stderr.as_str(), told.exit), ("", 0));
}

#[test]
fn status_all_is_an_array() {
    let agent = FakeAgent::new().says(Verb::Status, &[values::status(), values::down()]);
    let told = agent.run("status --all --json");
    assert!(told.stdout.starts_with('['));
    assert_eq!(agent.last_request().1["all"], json!(true));
    assert_eq!(
        agent
            .run("status --all")
            .stdout
            .matches("home · bo")
            .count(),
        2
    );
}

#[test]
fn status_watch_draws_every_change() {
    let lines: [Line<Status, ()>; 2] = [Line::Talk(values::status()), Line::Talk(values::down())];
    let agent = FakeAgent::new().talks(Verb::Status, &lines);
    let told = agent.run("status --watch");
    assert_eq!(told.stdout.matches("home · bo").count(), 2);
    assert!(!told.stdout.contains('\x1b') && told.exit == 0);
    assert_eq!(agent.run("status --watch --json").stdout.lines().count(), 2);
}

#[test]
fn a_name_of_a_peer_cannot_command_the_terminal() {
    let mut status = values::status();
    status.services[0].instances[0].peer = "\x1b]0;owned\x07".into();
    let told = FakeAgent::new().says(Verb::Status, &status).run("status");
    assert!(told.stdout.contains("?]0;owned?") && !told.stdout.contains('\x1b'));
}

#[test]
fn ping_prints_each_answer_as_it_comes_and_by_which_path() {
    let relayed = Pong {
        rtt_ms: 48.2,
        path: Path {
            kind: PathKind::Relay,
            endpoint: None,
            via: Some("vps".into()),
            why: None,
        },
    };
    let pong = Pong {
        rtt_ms: 34.0,
        path: values::direct("203.0.113.9:61234"),
    };
    let reply = PingReply {
        peer: "anna".into(),
        sent: 2,
        pongs: vec![relayed.clone(), pong.clone()],
    };
    let lines = [Line::Talk(relayed), Line::Talk(pong), Line::Reply(reply)];
    let agent = FakeAgent::new().talks(Verb::Ping, &lines);
    let told = agent.run("ping -c 2 anna");
    assert_eq!(
        told.stdout,
        "48 ms  relay via vps\n34 ms  direct 203.0.113.9:61234\n"
    );
    assert_eq!(
        (told.exit, agent.last_request().1["count"].clone()),
        (0, json!(2))
    );
    let document: PingReply =
        serde_json::from_str(&agent.run("ping -c 2 anna --json").stdout).unwrap();
    assert_eq!(document.pongs.len(), 2);
}

#[test]
fn whois_says_what_it_is() {
    let anna = WhoisReply {
        kind: WhoisKind::Peer,
        name: "anna".into(),
        network: "home".into(),
        role: Some(Role::Admin),
        since: Some(values::NOW),
        addresses: vec!["100.71.20.9".into()],
        served_by: vec![],
    };
    let bo = WhoisReply {
        name: "bo".into(),
        role: Some(Role::Member),
        ..anna.clone()
    };
    let web = WhoisReply {
        kind: WhoisKind::Service,
        name: "web".into(),
        role: None,
        since: None,
        served_by: vec!["anna".into()],
        ..anna.clone()
    };
    let sentences = [
        (anna, "anna  member of home, admin since 2026-11-22\n"),
        (bo, "bo  member of home since 2026-11-22\n"),
        (web, "web, served by anna\n"),
    ];
    for (reply, words) in sentences {
        assert_eq!(
            FakeAgent::new()
                .says(Verb::Whois, &reply)
                .run("whois 100.71.20.9")
                .stdout,
            words
        );
    }
}

#[test]
fn dns_query_shows_what_the_resolver_says() {
    let answer = |kind: &str, data: &str| DnsAnswer {
        record_type: kind.into(),
        data: data.into(),
        ttl_s: 5,
    };
    let answers = vec![
        answer("A", "100.71.20.9"),
        answer("AAAA", "fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12"),
    ];
    let reply = DnsQueryReply {
        name: "web.svc.home.internal".into(),
        answers,
    };
    let agent = FakeAgent::new().says(Verb::DnsQuery, &reply);
    let told = agent.run("dns query web.svc");
    assert_eq!(
        told.stdout,
        "web.svc.home.internal  A 100.71.20.9  AAAA fd7c:1a2b:3c4d:9c41:77e0:5b1:c0de:12  ttl 5 s\n"
    );
    assert_eq!(
        agent.last_request().1,
        json!({"network": null, "name": "web.svc", "type": null})
    );
    let none = DnsQueryReply {
        answers: vec![],
        ..reply
    };
    let told = FakeAgent::new()
        .says(Verb::DnsQuery, &none)
        .run("dns query web.svc TXT");
    assert_eq!(
        told.stdout,
        "web.svc.home.internal  exists, without a record of this type\n"
    );
    assert_eq!(told.exit, 1);
}

fn published(verdict: DoorVerdict) -> ServiceAddReply {
    ServiceAddReply {
        name: "web".into(),
        domain_name: "web.svc.home.internal".into(),
        protocol: Protocol::Tcp,
        port: 80,
        peer: "anna".into(),
        target: Some("127.0.0.1:8080".into()),
        was: None,
        door: Door {
            verdict,
            port: 8080,
            let_in: [8080, 8080],
            took_ms: Some(0.3),
            firewall: Some("ufw".into()),
            device: "wm0".into(),
        },
        warnings: vec![],
    }
}

#[test]
fn service_add_says_where_it_is_and_who_answered_the_door() {
    let agent = FakeAgent::new().says(Verb::ServiceAdd, &published(DoorVerdict::Accepted));
    let told = agent.run("service add web --port 80 --target 127.0.0.1:8080 --tag v2");
    assert_eq!(
        told.stdout,
        "web.svc.home.internal:80 → anna 127.0.0.1:8080.   Probed from the mesh side: accepted in 0.3 ms.\n"
    );
    assert_eq!((told.stderr.as_str(), told.exit), ("", 0));
    let (path, asked) = agent.last_request();
    assert_eq!(path, "/v1/service/add");
    assert_eq!(
        (&asked["port"], &asked["protocol"], &asked["tags"]),
        (&json!(80), &json!("tcp"), &json!(["v2"]))
    );
}

#[test]
fn a_door_that_does_not_open_is_told_and_is_no_failure() {
    let sentences = [
        (
            DoorVerdict::Closed,
            "webmesh: web is published, but nothing listens on port 8080 yet: it gets no connections until something does\n",
        ),
        (
            DoorVerdict::LoopbackOnly,
            "webmesh: web is published, but port 8080 listens on 127.0.0.1 only: add --target 127.0.0.1:8080\n",
        ),
        (
            DoorVerdict::Dropped,
            "webmesh: web is published, but this machine drops it: its firewall (ufw) blocks wm0. \
             There: sudo ufw allow in on wm0 to any port 8080 proto tcp\n",
        ),
    ];
    for (verdict, sentence) in sentences {
        let told = FakeAgent::new()
            .says(Verb::ServiceAdd, &published(verdict))
            .run("service add web --port 80");
        assert_eq!((told.stderr.as_str(), told.exit), (sentence, 0));
        assert_eq!(
            told.stdout,
            "web.svc.home.internal:80 → anna 127.0.0.1:8080.\n"
        );
    }
}

#[test]
fn each_firewall_has_its_own_remedy() {
    let sentences = [
        (
            Some("firewalld"),
            "its firewall (firewalld) blocks mesh1. There: sudo firewall-cmd --permanent --zone=trusted \
             --add-interface=mesh1 && sudo firewall-cmd --reload\n",
        ),
        (
            None,
            "its firewall blocks mesh1. Let port 8080 in on mesh1\n",
        ),
    ];
    for (firewall, sentence) in sentences {
        let mut reply = published(DoorVerdict::Dropped);
        reply.door.firewall = firewall.map(str::to_owned);
        reply.door.device = "mesh1".into();
        let told = FakeAgent::new()
            .says(Verb::ServiceAdd, &reply)
            .run("service add web --port 80");
        let beginning = "webmesh: web is published, but this machine drops it: ";
        assert_eq!(told.stderr, format!("{beginning}{sentence}"));
    }
}

#[test]
fn a_firewall_before_a_target_is_opened_by_what_stays_right() {
    let sentences = [
        (
            Some("ufw"),
            "(ufw) blocks wm0. There: sudo ufw allow in on wm0 to any port 20000:29999 proto tcp\n",
        ),
        (None, "blocks wm0. Let ports 20000 to 29999 in on wm0\n"),
    ];
    for (firewall, end) in sentences {
        let mut reply = published(DoorVerdict::Dropped);
        reply.door.port = 80;
        reply.door.let_in = [20_000, 29_999];
        reply.door.firewall = firewall.map(str::to_owned);
        let told = FakeAgent::new()
            .says(Verb::ServiceAdd, &reply)
            .run("service add web --port 80 --target 127.0.0.1:8080");
        assert!(told.stderr.ends_with(end), "{}", told.stderr);
    }
}

#[test]
fn a_service_that_may_not_be_offered_is_told_and_is_no_failure() {
    let mut reply = published(DoorVerdict::Accepted);
    reply.warnings = vec![ApiError::may_not_offer("bo", "db", "home.internal")];
    let told = FakeAgent::new()
        .says(Verb::ServiceAdd, &reply)
        .run("service add db --port 5432");
    assert_eq!(
        told.stderr,
        "webmesh: bo may not offer db: it is db.bo.home.internal only. Ask an admin: webmesh invite … --service 'db'\n"
    );
    assert_eq!(told.exit, 0);
}

#[test]
fn where_nobody_sends_us_names_the_two_ways_out_are_said() {
    assert_eq!(
        render::no_names(&values::dns(DnsState::NotResolving), NAMES_WAYS_OUT).unwrap(),
        "names do not resolve here yet: sudo apt install systemd-resolved (it takes over /etc/resolv.conf), or: sudo webmesh dns takeover\n"
    );
    assert_eq!(
        render::no_names(&values::dns(DnsState::Resolving), ""),
        None
    );
    assert_eq!(
        render::no_names(&values::dns(DnsState::SettingUp), ""),
        None
    );
}

#[test]
fn a_service_that_moved_says_from_where() {
    let reply = ServiceAddReply {
        was: Some(":81".into()),
        ..published(DoorVerdict::Accepted)
    };
    let told = FakeAgent::new()
        .says(Verb::ServiceAdd, &reply)
        .run("service add web --port 80 --target 127.0.0.1:8080");
    assert!(
        told.stdout
            .starts_with("web.svc.home.internal:80 → anna 127.0.0.1:8080. (was :81)"),
        "{}",
        told.stdout
    );
}

#[test]
fn the_other_verbs_answer_in_a_line() {
    let network = NetworkReply {
        network: values::network(),
        own: Some(values::own("anna", Role::Admin)),
        warnings: vec![],
    };
    let rule = PolicyRule {
        number: 1,
        rule: webmesh::policy::DEFAULT_RULE.into(),
        source: webmesh::policy::DEFAULT_SOURCE.into(),
    };
    let agent = FakeAgent::new()
        .says(Verb::Down, &network)
        .says(Verb::Up, &network)
        .says(
            Verb::Leave,
            &NetworkReply {
                own: None,
                ..network.clone()
            },
        )
        .says(
            Verb::ServiceRemove,
            &ServiceRemoveReply {
                name: "web".into(),
                remaining: vec![],
            },
        )
        .says(Verb::ServiceList, &ServiceListReply { services: vec![] })
        .says(
            Verb::PolicyShow,
            &PolicyReply {
                network: "home".into(),
                rules: vec![rule],
            },
        )
        .says(
            Verb::Recover,
            &RecoverReply {
                network: values::network(),
                own: values::own("bo", Role::Admin),
            },
        )
        .talks(
            Verb::Wait,
            &[Line::<String, _>::Reply(WaitReply { took_ms: 412.0 })],
        );
    let lines = [
        (
            "down",
            "home is down here; names and addresses are gone. Again: sudo webmesh up\n",
        ),
        ("up", "home is up; this machine is anna, 100.71.20.9.\n"),
        (
            "leave home",
            "This machine has left home; its keys are gone. Again: a new invite\n",
        ),
        ("service rm web", "web is no longer published.\n"),
        (
            "service list",
            "no services yet: sudo webmesh service add NAME --port P\n",
        ),
        (
            "policy show",
            "1  members → members: everything   (the default; no policy is set)\n",
        ),
        ("recover 4XKD-91TQ", "bo is an admin of home now.\n"),
        ("wait --peer nas --timeout 5s", "ready after 412 ms\n"),
    ];
    for (words, line) in lines {
        let told = agent.run(words);
        assert_eq!(
            (told.stdout.as_str(), told.stderr.as_str(), told.exit),
            (line, "", 0),
            "{words}"
        );
    }
}

#[test]
fn the_network_option_reaches_the_agent() {
    let agent = FakeAgent::new().says(Verb::Status, &values::status());
    for words in ["--network home status", "status --network home"] {
        agent.run(words);
        assert_eq!(agent.last_request().1["network"], json!("home"));
    }
}

#[test]
fn completion_is_a_script_that_bash_takes() {
    let told = webmesh(&["completion", "bash"], &[], "");
    assert_eq!(told.exit, 0);
    assert!(told.stdout.contains("complete -F _webmesh") && told.stdout.contains("invite"));
    let file = std::env::temp_dir().join(format!("webmesh-completion-{}", std::process::id()));
    std::fs::write(&file, &told.stdout).unwrap();
    let taken = std::process::Command::new("bash")
        .arg("-n")
        .arg(&file)
        .status()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(taken.success());
}

#[test]
fn version_and_help_are_answers() {
    let version = webmesh(&["--version"], &[], "");
    assert_eq!(
        (version.stdout.as_str(), version.exit),
        (concat!("webmesh ", env!("CARGO_PKG_VERSION"), "\n"), 0)
    );
    let help = webmesh(&["--help"], &[], "");
    assert!(help.stdout.contains("Usage: webmesh") && help.exit == 0);
}

#[test]
fn a_reader_that_goes_away_is_success() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_webmesh"))
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_configuration_can_be_judged_alone() {
    let file = std::env::temp_dir().join(format!("webmesh-config-{}.toml", std::process::id()));
    let judge = |text: &str| {
        std::fs::write(&file, text).unwrap();
        webmesh(
            &[
                "daemon",
                "--check-config",
                "--config",
                file.to_str().unwrap(),
            ],
            &[],
            "",
        )
    };
    let good = judge("[network]\nport = 41820\n");
    let line = format!("{} is good\n", file.display());
    assert_eq!((good.stdout, good.exit), (line, 0));
    let bad = judge("[network]\n\nprot = 1\n");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(bad.exit, 2);
    let start = format!("webmesh: {}:3: unknown field `prot`", file.display());
    assert!(
        bad.stderr.starts_with(&start) && bad.stderr.lines().count() == 1,
        "{}",
        bad.stderr
    );
}

#[test]
fn times_ago_are_in_words() {
    assert_eq!(ago(181), "3 min ago");
}

/// What `dns status` found on a host.
fn found(state: DnsState, backend: DnsBackend) -> DnsStatus {
    DnsStatus {
        dns: Dns {
            backend,
            ..values::dns(state)
        },
        why: "because".to_owned(),
        resolv_conf: vec!["127.0.0.53".parse().unwrap()],
        is_taken: false,
        leads_to: Some("../run/systemd/resolve/stub-resolv.conf".to_owned()),
        asked: None,
        ways_out: NAMES_WAYS_OUT.to_owned(),
    }
}

#[test]
fn dns_status_knows_a_network_that_is_down_from_names_that_are_left_alone() {
    let mut status = found(DnsState::Off, DnsBackend::None);
    let left = render::dns_status(&status);
    assert!(
        left.contains("[dns] mode is \"off\"") && !left.contains("down"),
        "{left}"
    );
    status.dns.servers.clear();
    let down = render::dns_status(&status);
    assert!(
        down.contains("is down: sudo webmesh up\n") && !down.contains("[dns]"),
        "{down}"
    );
}

#[test]
fn dns_status_says_who_sends_us_what_and_what_came_of_trying() {
    let mut status = found(DnsState::Resolving, DnsBackend::Resolved);
    status.asked = Some(Asked {
        name: "anna.home.internal".to_owned(),
        answer: Answer::Right(vec!["100.71.20.9".parse().unwrap()]),
    });
    let said = render::dns_status(&status);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[0],
        "systemd-resolved sends us home.internal and the reverse names of its addresses, nothing else."
    );
    assert_eq!(lines[1], "  why          because");
    assert!(said.contains("short names  are completed with home.internal, svc.home.internal\n"));
    assert!(said.contains(
        "resolv.conf  leads to ../run/systemd/resolve/stub-resolv.conf and names 127.0.0.53\n"
    ));
    assert!(said.ends_with("this host resolves anna.home.internal to 100.71.20.9\n"));
    for (answer, word) in [
        (Answer::Silence, "said nothing"),
        (Answer::Refused("no".to_owned()), "does not resolve"),
        (Answer::Wrong(Vec::new()), "another server answers"),
    ] {
        status.asked.as_mut().unwrap().answer = answer;
        assert!(render::dns_status(&status).contains(word), "{word}");
    }
}

#[test]
fn dns_status_names_the_two_ways_out_where_names_do_not_resolve() {
    let said = render::dns_status(&found(DnsState::NotResolving, DnsBackend::None));
    assert!(said.starts_with(
        "Names under home.internal do not resolve here yet: sudo apt install systemd-resolved (it takes over \
         /etc/resolv.conf), or: sudo webmesh dns takeover\n"
    ));
    assert!(!said.contains("short names"));
    let dnsmasq = render::dns_status(&found(DnsState::Resolving, DnsBackend::NetworkManager));
    assert!(dnsmasq.contains("type the whole name"));
    let mut taken = found(DnsState::Resolving, DnsBackend::Forward);
    assert!(render::dns_status(&taken).contains("refuses all other names"));
    taken.is_taken = true;
    assert!(render::dns_status(&taken).contains("asks the old servers for all other names"));
    taken.dns.domain = None;
    assert!(render::dns_status(&taken).starts_with("This machine is in no network"));
}
