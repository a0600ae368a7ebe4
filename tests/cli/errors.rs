//! Every error a person can meet, word by word (transcripts.md), with its exit code.

use webmesh::api::{ApiError, Line, Tried, Verb};

use super::{
    answers::token,
    fake_agent::{FakeAgent, Told, webmesh},
    values::NOW,
};

/// A clock time of `NOW`'s day as this process writes it; the agent's own words are made in its zone.
fn at(time: u64) -> String {
    webmesh::api::words::clock(time, NOW)
}

fn judge(told: &Told, line: &str, exit: i32) {
    assert_eq!(told.stderr, format!("webmesh: {line}\n"));
    assert_eq!((told.stdout.as_str(), told.exit), ("", exit), "{line}");
}

#[test]
fn what_only_root_may_names_what_was_typed() {
    let exe = env!("CARGO_BIN_EXE_webmesh");
    let told = FakeAgent::new()
        .refuses(Verb::Init, &ApiError::not_allowed(Verb::Init))
        .run("init home");
    let near = std::path::Path::new(exe);
    let near = near
        .strip_prefix(std::env::current_dir().unwrap())
        .unwrap_or(near)
        .display();
    let program = if exe.contains("/target/") {
        near.to_string()
    } else {
        "webmesh".to_owned()
    };
    // sudo hands no variables on.
    let (head, rest) = ("webmesh: init needs root: sudo WEBMESH_SOCKET=/", "/socket");
    let tail = format!(" {program} init home\n");
    assert!(told.stderr.starts_with(head), "{}", told.stderr);
    assert!(
        told.stderr.ends_with(&format!("{rest}{tail}")),
        "{}",
        told.stderr
    );
    assert_eq!((told.stdout.as_str(), told.exit), ("", 2));
    let told = FakeAgent::new()
        .refuses(Verb::ServiceAdd, &ApiError::not_allowed(Verb::ServiceAdd))
        .run("service add web --port 80");
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    let has_group = nix::unistd::Group::from_name("webmesh").unwrap().is_some();
    let once = match has_group {
        true => format!("   (once, for no sudo: sudo usermod -aG webmesh {user})"),
        false => String::new(),
    };
    let head = "webmesh: service add needs root or the group webmesh: sudo WEBMESH_SOCKET=/";
    let tail = format!("/socket {program} service add web --port 80{once}\n");
    assert!(told.stderr.starts_with(head), "{}", told.stderr);
    assert!(told.stderr.ends_with(&tail), "{}", told.stderr);
}

#[test]
fn a_secret_that_was_typed_is_not_said_again() {
    let secrets = [
        (Verb::Join, "join", token()),
        (Verb::Recover, "recover", "4XKD-91TQ".to_owned()),
    ];
    for (verb, word, secret) in secrets {
        let told = FakeAgent::new()
            .refuses(verb, &ApiError::not_allowed(verb))
            .run(&format!("{word} {secret}"));
        assert!(
            told.stderr.ends_with(&format!(" {word} -\n")) && !told.stderr.contains(&secret),
            "{}",
            told.stderr
        );
        assert_eq!(told.exit, 2);
    }
}

#[test]
fn an_agent_that_does_not_run_is_started_how_it_can_be() {
    let told = webmesh(
        &["status"],
        &[("WEBMESH_SOCKET", "/nonexistent/socket")],
        "",
    );
    assert!(
        told.stderr
            .starts_with("webmesh: the agent does not run: sudo "),
        "{}",
        told.stderr
    );
    assert!(
        told.stderr
            .ends_with(" --socket /nonexistent/socket daemon\n"),
        "{}",
        told.stderr
    );
    assert_eq!((told.stdout.as_str(), told.exit), ("", 2));
}

#[test]
fn a_stale_socket_is_an_agent_that_does_not_run() {
    let path = std::env::temp_dir().join(format!("webmesh-stale-{}", std::process::id()));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    // A child that another test forks just then holds the listener until it execs.
    while std::os::unix::net::UnixStream::connect(&path).is_ok() {
        std::thread::yield_now();
    }
    let told = webmesh(&["status", "--socket", path.to_str().unwrap()], &[], "");
    std::fs::remove_file(&path).unwrap();
    assert!(
        told.stderr.starts_with("webmesh: the agent does not run: "),
        "{}",
        told.stderr
    );
    assert_eq!(told.exit, 2);
}

#[test]
fn a_damaged_token_is_found_before_anybody_is_asked() {
    let good = token();
    let cut = good.split_at(good.len() - 3).0;
    let told = webmesh(&["join", cut, "--socket", "/nonexistent"], &[], "");
    judge(
        &told,
        "this token is cut or mistyped (its check does not match): copy the whole line that begins with wm1-",
        2,
    );
    let told = webmesh(&["join", "hello", "--socket", "/nonexistent"], &[], "");
    judge(
        &told,
        "this is no token: copy the whole line that begins with wm1-",
        2,
    );
    let told = webmesh(&["join", "-", "--socket", "/nonexistent"], &[], "\n");
    assert_eq!(told.exit, 2);
}

#[test]
fn what_the_issuer_answers_ends_a_join() {
    let tried = Tried {
        ways: ["LAN", "192.168.1.20", "203.0.113.9:41820", "DHT"].map(str::to_owned).into(),
        here: Some(
            "Here UDP gets out, this NAT gives a new port per destination; if hers does too, a machine with a public \
             address must join first."
                .into(),
        ),
    };
    let (ran_out, back) = (at(NOW + 3600), at(NOW + 2280));
    let refusals = [
        (
            ApiError::invite_used("bo", 180, "anna"),
            "this invite was used 3 min ago by \"bo\". Ask anna for: sudo webmesh invite".to_owned(),
        ),
        (
            ApiError::invite_expired(NOW + 3600, NOW, "anna"),
            format!("this invite ran out at {ran_out}. Ask anna for: sudo webmesh invite"),
        ),
        (
            ApiError::invite_cancelled(NOW + 2280, NOW, "anna"),
            format!("anna took this invite back at {back}. Ask anna for: sudo webmesh invite"),
        ),
        (
            ApiError::name_taken("bo", Some("home")),
            "the name bo is taken in home. Choose another: sudo webmesh join … --name NAME   (the invite is still good)"
                .to_owned(),
        ),
        (
            ApiError::no_ipv4(Some(("home", "100.71.0.0/16"))),
            "every IPv4 address of home (100.71.0.0/16) is given out: how many there are is chosen when a network is made: sudo webmesh init NAME --ipv4 CIDR".to_owned(),
        ),
        (
            ApiError::issuer_silent("anna", 30, &tried, NOW + 3600, NOW),
            format!(
                "anna did not answer in 30 s (LAN, 192.168.1.20, 203.0.113.9:41820, DHT). Is her machine on? Here UDP \
                 gets out, this NAT gives a new port per destination; if hers does too, a machine with a public \
                 address must join first. The invite stays good until {ran_out}."
            ),
        ),
    ];
    for (error, line) in refusals {
        let lines = [Line::<String, ()>::Error(error)];
        let told = FakeAgent::new()
            .talks(Verb::Join, &lines)
            .run(&format!("join {}", token()));
        judge(&told, &line, 1);
    }
}

#[test]
fn what_the_agent_refuses_is_printed_as_it_says_it() {
    let nass = ApiError::no_such_name("peer or service", "nass", "home", ["anna", "nas", "web"]);
    let refusals = [
        (
            "recover 4XKD",
            Verb::Recover,
            ApiError::root_elsewhere("home", "anna"),
            "the root key of home is on anna: run this there, or webmesh recover CODE here",
            2,
        ),
        (
            "init home",
            Verb::Init,
            ApiError::already_in("home"),
            "this machine is already in home. Leave it first: sudo webmesh leave home",
            2,
        ),
        (
            "init google",
            Verb::Init,
            ApiError::network_name_in_use("google"),
            "\"google\" cannot be a network's name: google.internal is in use. Choose another, or --domain.",
            2,
        ),
        (
            "ping nass",
            Verb::Ping,
            nass,
            "there is no peer or service \"nass\" in home. Did you mean nas?",
            1,
        ),
        (
            "dns query google.com",
            Verb::DnsQuery,
            ApiError::foreign_name("google.com", "home.internal"),
            "google.com is not below home.internal: webmesh answers for home.internal alone",
            1,
        ),
        (
            "ping 192.0.2.8",
            Verb::Ping,
            ApiError::foreign_address("192.0.2.8".parse().unwrap(), "home"),
            "192.0.2.8 is not an address of home: webmesh status",
            1,
        ),
        (
            "ping anna",
            Verb::Ping,
            ApiError::no_answer("anna"),
            "no answer from anna: webmesh why anna",
            1,
        ),
        (
            "peers",
            Verb::Peers,
            ApiError::no_network(),
            "this machine is in no network: sudo webmesh init NAME makes one, sudo webmesh join TOKEN joins one",
            2,
        ),
        (
            "leave home",
            Verb::Leave,
            ApiError::last_admin("home"),
            "this machine is the last admin of home: without its recovery code nobody can be added again: \
             sudo webmesh leave home --yes",
            2,
        ),
        (
            "service add db --port 80",
            Verb::ServiceAdd,
            ApiError::port_taken(80, "web"),
            "port 80 of this machine is web's, and services have no addresses of their own yet: choose another --port, \
             or sudo webmesh service rm web",
            2,
        ),
    ];
    for (words, verb, error, line, exit) in refusals {
        let told = FakeAgent::new().refuses(verb, &error).run(words);
        judge(&told, line, exit);
    }
}

#[test]
fn what_is_not_built_is_refused_in_one_line() {
    let refusals = [
        (
            "init home --closed",
            "init --closed is not built yet: leave it out",
        ),
        (
            "invite --group ops",
            "invite --group is not built yet: leave it out",
        ),
        (
            "invite --role leaf",
            "invite --role leaf is not built yet: leave it out",
        ),
        (
            "invite --uses 0",
            "an invite with --uses 0 is of no use to anybody: leave it out",
        ),
    ];
    for (words, line) in refusals {
        judge(&FakeAgent::new().run(words), line, 2);
    }
}

#[test]
fn what_cannot_be_meant_is_one_line_and_exit_2() {
    let complaints = [
        (
            "statsu",
            "there is no verb \"statsu\". Did you mean status?: webmesh --help",
        ),
        (
            "inti home",
            "there is no verb \"inti\". Did you mean init?: webmesh --help",
        ),
        (
            "service ad web",
            "there is no verb \"service ad\". Did you mean service add?: webmesh service --help",
        ),
        (
            "service",
            "service needs a verb: add, rm, list or show: webmesh service --help",
        ),
        (
            "status --jsn",
            "status takes no --jsn. Did you mean --json?: webmesh status --help",
        ),
        ("init", "init needs NETWORK: webmesh init --help"),
        (
            "service add web",
            "service add needs --port P[/udp]: webmesh service add --help",
        ),
        (
            "service add web --port 0",
            "--port P[/udp] cannot be \"0\": a port is 1 to 65535, with /udp behind it for UDP: \
             webmesh service add --help",
        ),
        ("up now", "up takes no \"now\": webmesh up --help"),
    ];
    for (words, line) in complaints {
        judge(
            &webmesh(&words.split(' ').collect::<Vec<_>>(), &[], ""),
            line,
            2,
        );
    }
    assert_eq!(webmesh(&[], &[], "").exit, 2);
}

#[test]
fn with_json_an_error_is_a_document_too() {
    let error = ApiError::already_in("home");
    let told = FakeAgent::new()
        .refuses(Verb::Init, &error)
        .run("init home --json");
    let document: ApiError = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(document, error);
    assert_eq!(told.stderr, format!("webmesh: {}\n", error.line()));
    assert_eq!(told.exit, 2);
}

#[test]
fn with_json_what_cannot_be_meant_is_a_document_too() {
    let told = webmesh(&["why", "bo", "--at", "25:99", "--json"], &[], "");
    let document: ApiError = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told.stderr, format!("webmesh: {}\n", document.line()));
    assert_eq!(told.exit, 2);
}

#[test]
fn a_port_to_which_no_peer_writes_is_refused() {
    let told = webmesh(&["daemon", "--port", "99"], &[], "");
    let line = "--port N cannot be \"99\": port must be 443 or 1024 to 65535: peers write to no other: webmesh daemon --help";
    judge(&told, line, 2);
}

#[test]
fn an_agent_of_another_world_is_an_error_and_no_panic() {
    let told = FakeAgent::new().run("status");
    assert_eq!(told.exit, 2);
    assert!(
        told.stderr.starts_with("webmesh: the agent answered 500"),
        "{}",
        told.stderr
    );
    let told = FakeAgent::new().says(Verb::Status, &"what").run("status");
    assert_eq!(told.exit, 2);
    assert!(told.stderr.contains("cannot be read"), "{}", told.stderr);
    let told = FakeAgent::new()
        .talks::<String, ()>(Verb::Join, &[])
        .run(&format!("join {}", token()));
    judge(
        &told,
        "the agent stopped before it was done: webmesh status",
        2,
    );
}
