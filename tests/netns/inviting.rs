//! Issue 3, point 7: one invite is one machine's, whoever dies in the middle; what those are told who come in vain; and
//! how machines are called.

use std::{process::Output, thread, time::Duration};

use serde_json::Value;
use webmesh::api::words;

use crate::harness::{Net, Peer, text, within};

#[test]
fn of_twenty_that_race_for_one_token_one_joins_and_nineteen_are_told_by_whom() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    for n in 1..=20 {
        net.add_public(&format!("racer{n}"), 20 + n);
    }
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    let token = anna.invite();
    let racers: Vec<&Peer> = (1..=20).map(|n| net.peer(&format!("racer{n}"))).collect();
    let told: Vec<Output> = thread::scope(|scope| {
        let race = |racer: &'_ Peer| racer.webmesh(&["join", &token]);
        let running: Vec<_> = racers
            .iter()
            .map(|racer| scope.spawn(move || race(racer)))
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let winners: Vec<&str> = racers
        .iter()
        .zip(&told)
        .filter(|(_, output)| output.status.success())
        .map(|(racer, _)| racer.name())
        .collect();
    let [winner] = winners.as_slice() else {
        panic!("winners: {winners:?}")
    };
    let sentences = (0..30).map(|seconds| {
        let ago = words::ago(seconds);
        format!(
            "webmesh: this invite was used {ago} by {winner:?}. Ask anna for: sudo webmesh invite"
        )
    });
    let sentences: Vec<String> = sentences.collect();
    for (racer, output) in racers.iter().zip(&told) {
        if racer.name() != *winner {
            assert_eq!(output.status.code(), Some(1), "{}", racer.name());
            let said = last_line(output);
            assert!(sentences.contains(&said), "{}: {said}", racer.name());
            assert_eq!(racer.status()["state"], "none");
        }
    }
    assert_eq!(names_at(anna), [(*winner).to_owned()]);
}

#[test]
fn an_issuer_that_dies_in_a_spend_admits_the_same_machine_once() {
    issuer_dies_at(&["spend.before", "spend.torn", "spend.after"], "member");
}

#[test]
fn an_issuer_that_dies_in_a_certificate_admits_the_same_machine_once() {
    let places = [
        "certificate.before",
        "certificate.torn",
        "certificate.after",
    ];
    issuer_dies_at(&places, "member");
}

#[test]
fn an_issuer_that_dies_making_an_admin_admits_the_same_machine_once() {
    issuer_dies_at(&["admin.before", "admin.torn", "admin.after"], "admin");
}

/// The joiner asks on by itself until the issuer is back.
fn issuer_dies_at(places: &[&str], role: &str) {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.peer("anna").ok(&["init", "home"]);
    for (place, number) in places.iter().zip(12..) {
        let name = format!("m{number}");
        net.add_public(&name, number);
        dies_at(net.peer_mut("anna"), place);
        let token = invite(net.peer("anna"), &["--role", role]);
        let words = ["join".to_owned(), token];
        let joiner = net.peer(&name).agent.machine().clone();
        let mut join = net
            .peer(&name)
            .agent
            .command(crate::harness::program())
            .unwrap();
        let join = thread::spawn(move || join.args(words).output().unwrap());
        let anna = net.peer_mut("anna");
        let status = anna.agent.wait().unwrap();
        assert!(!status.success(), "{place} was reached");
        lives(anna);
        let output = join.join().unwrap();
        assert!(
            output.status.success(),
            "{place}: {}{}",
            joiner.name,
            text(&output.stderr)
        );
    }
    let expected: Vec<String> = (12..).take(places.len()).map(|n| format!("m{n}")).collect();
    assert_eq!(names_at(net.peer("anna")), expected);
    for name in &expected {
        assert_eq!(net.peer(name).status()["self"]["name"], **name);
        assert_eq!(net.peer(name).status()["self"]["role"], role);
    }
}

#[test]
fn a_joiner_that_dies_before_it_is_somebody_joins_by_the_same_token() {
    let places = [
        "join-identity.before",
        "join-identity.torn",
        "join-identity.after",
    ];
    joiner_dies_at(&places);
}

#[test]
fn a_joiner_that_dies_storing_what_it_was_granted_joins_by_the_same_token_as_the_same() {
    joiner_dies_at(&[
        "join-record.before",
        "join-record.torn",
        "join-record.after",
    ]);
}

#[test]
fn a_joiner_that_dies_storing_its_state_joins_by_the_same_token_as_the_same() {
    let places = [
        "join-state.before",
        "join-state.torn",
        "join-state.after",
        "settle.before",
    ];
    joiner_dies_at(&places);
}

#[test]
fn a_joiner_that_dies_when_all_is_stored_is_a_member_at_its_next_start() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.peer("anna").ok(&["init", "home"]);
    let token = net.peer("anna").invite();
    dies_at(net.peer_mut("bo"), "settle.after");
    net.peer("bo").refused(2, &["join", &token]);
    let bo = net.peer_mut("bo");
    assert!(!bo.agent.wait().unwrap().success());
    lives(bo);
    bo.ok(&["wait", "--peer", "anna", "--timeout", "5s"]);
    assert_eq!(names_at(net.peer("anna")), ["bo"]);
}

/// The person says the same again.
fn joiner_dies_at(places: &[&str]) {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.peer("anna").ok(&["init", "home"]);
    for (place, number) in places.iter().zip(12..) {
        let name = format!("m{number}");
        net.add_public(&name, number);
        let token = net.peer("anna").invite();
        dies_at(net.peer_mut(&name), place);
        let said = net.peer(&name).refused(2, &["join", &token]);
        assert!(said.contains("the agent"), "{place}: {said}");
        let joiner = net.peer_mut(&name);
        assert!(
            !joiner.agent.wait().unwrap().success(),
            "{place} was reached"
        );
        lives(joiner);
        joiner.ok(&["join", &token]);
    }
    let expected: Vec<String> = (12..).take(places.len()).map(|n| format!("m{n}")).collect();
    assert_eq!(names_at(net.peer("anna")), expected);
}

#[test]
fn a_founder_that_dies_before_it_could_say_so_founded_nothing() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let writes = ["identity", "record", "state"];
    let steps = ["before", "torn", "after"];
    let mut places: Vec<String> = writes
        .iter()
        .flat_map(|write| steps.map(|step| format!("founding-{write}.{step}")))
        .collect();
    places.push("settle.before".to_owned());
    let anna = net.peer_mut("anna");
    for place in &places {
        dies_at(anna, place);
        anna.refused(2, &["init", "home"]);
        assert!(!anna.agent.wait().unwrap().success(), "{place} was reached");
        lives(anna);
        assert_eq!(anna.status()["state"], "none", "{place}");
        assert_eq!(anna.sh("ls state").trim(), "lock", "{place}");
    }
    dies_at(anna, "settle.after");
    anna.refused(2, &["init", "home"]);
    assert!(!anna.agent.wait().unwrap().success());
    lives(anna);
    assert_eq!(anna.status()["state"], "up");
}

#[test]
fn a_write_that_a_crash_cuts_short_costs_that_write_alone() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer_mut("anna");
    anna.ok(&["init", "home"]);
    let identity = anna.status()["self"].clone();
    for write in ["state", "record"] {
        for (step, port) in [("before", "81"), ("torn", "82"), ("after", "83")] {
            let verb = match write {
                "state" => vec!["invite"],
                _ => vec!["service", "add", step, "--port", port],
            };
            let place = format!("{write}.{step}");
            anna.agent.stop().unwrap();
            anna.agent.set_environment("WEBMESH_FAILPOINT", &place);
            // A record is written at the start already.
            if anna.agent.start().is_ok() {
                anna.refused(2, &verb);
            }
            let died = anna.agent.pid().is_none() || !anna.agent.wait().unwrap().success();
            assert!(died, "{place} was reached");
            lives(anna);
            let now = anna.status();
            assert_eq!(
                (&now["state"], &now["self"]["id"]),
                (&"up".into(), &identity["id"])
            );
            anna.ok(&verb);
        }
    }
}

#[test]
fn what_cannot_be_is_said_word_by_word() {
    let net = Net::three();
    let [anna, bo, carol] = ["anna", "bo", "carol"].map(|name| net.peer(name));
    judge(
        anna.refused(2, &["init", "google"]),
        "\"google\" cannot be a network's name: google.internal is in use. Choose another, or --domain.",
    );
    anna.ok(&["init", "home"]);
    bo.ok(&["join", &anna.invite()]);
    let again = "this machine is already in home. Leave it first: sudo webmesh leave home";
    judge(bo.refused(2, &["join", &anna.invite()]), again);
    judge(anna.refused(2, &["init", "other"]), again);

    let token = anna.invite();
    let taken = carol.refused(1, &["join", &token, "--name", "bo"]);
    judge(
        last(&taken),
        "the name bo is taken in home. Choose another: sudo webmesh join … --name NAME   (the invite is still good)",
    );

    let short = invite(anna, &["--expires", "1s"]);
    let listed: Value = serde_json::from_str(&anna.ok(&["invite", "list", "--json"])).unwrap();
    let expires = listed["invites"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["expires"].as_u64())
        .min()
        .unwrap();
    within(Duration::from_secs(10), "the invite runs out", || {
        webmesh::platform::clock::now().unix_s() > expires
    });
    let ran_out = format!(
        "this invite ran out at {}. Ask anna for: sudo webmesh invite",
        words::clock(expires, expires)
    );
    judge(last(&carol.refused(1, &["join", &short])), &ran_out);

    let cancelled = anna.invite();
    let listed: Value = serde_json::from_str(&anna.ok(&["invite", "list", "--json"])).unwrap();
    let newest = listed["invites"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    anna.ok(&["invite", "cancel", newest["id"].as_str().unwrap()]);
    let now = webmesh::platform::clock::now().unix_s();
    let sentences = [now - 1, now].map(|at| {
        let at = words::clock(at, at);
        format!("webmesh: anna took this invite back at {at}. Ask anna for: sudo webmesh invite")
    });
    let said = last(&carol.refused(1, &["join", &cancelled]));
    assert!(sentences.contains(&said.trim().to_owned()), "{said}");

    // The invite whose name was taken is good still.
    carol.ok(&["join", &token, "--name", "nas"]);
    bo.ok(&["wait", "--peer", "nas", "--timeout", "5s"]);
    judge(
        bo.refused(1, &["whois", "nass"]),
        "there is no peer or service \"nass\" in home. Did you mean nas?",
    );
}

#[test]
fn an_issuer_that_is_off_is_waited_for_half_a_minute() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.peer("anna").ok(&["init", "home"]);
    let token = net.peer("anna").invite();
    let listed = net.peer("anna").ok(&["invite", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let until = listed["invites"][0]["expires"].as_u64().unwrap();
    net.peer_mut("anna").agent.kill().unwrap();
    let said = net.peer("bo").refused(1, &["join", &token]);
    assert_eq!(
        said.lines().next(),
        Some(
            "Looking for anna: no answer yet from 203.0.113.11:41820 · [2001:db8::b]:41820; trying for 30 s"
        )
    );
    let until = words::clock(until, webmesh::platform::clock::now().unix_s());
    judge(
        last(&said),
        &format!(
            "anna did not answer in 30 s (203.0.113.11:41820, [2001:db8::b]:41820). Is her machine on? The invite stays \
             good until {until}."
        ),
    );
}

#[test]
fn host_names_become_peer_names_that_are_legal_and_unlike() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let long = "x".repeat(64);
    let hosts = ["My Laptop.local", &long, "svc", "debian", "debian"];
    for number in 12..17 {
        net.add_public(&format!("m{number}"), number);
    }
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    for (host, number) in hosts.iter().zip(12..) {
        let peer = net.peer(&format!("m{number}"));
        peer.sh(&format!("printf '{host}' > /proc/sys/kernel/hostname"));
        peer.ok(&["join", &anna.invite()]);
    }
    let names: Vec<String> = (12..17)
        .map(|n| {
            net.peer(&format!("m{n}")).status()["self"]["name"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        ["my-laptop", &"x".repeat(63), "svc-2", "debian", "debian-2"]
    );
}

#[test]
fn who_is_not_root_may_look_and_is_told_how_to_do_more() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "only root can ask as another user: run this test as root"
    );
    // Outside of any lab: in there nobody but root exists. An agent in no network changes nothing on the host.
    let directory = crate::harness::fresh_directory();
    std::fs::create_dir(&directory).unwrap();
    let webmesh = directory.join("webmesh");
    // By `cp`: a file that this process wrote is busy in every child that another test forks meanwhile.
    let copied = std::process::Command::new("cp")
        .arg(crate::harness::program())
        .arg(&webmesh)
        .status();
    assert!(copied.unwrap().success());
    let socket = directory.join("sock");
    let mut agent = std::process::Command::new(&webmesh)
        .arg("daemon")
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--socket")
        .arg(&socket)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    within(Duration::from_secs(10), "the agent answers", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let nobody = |words: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(&webmesh);
        command.args(words).arg("--socket").arg(&socket);
        command.uid(65534).gid(65534).current_dir("/");
        command.output().unwrap()
    };
    let outputs = [
        nobody(&["init", "home"]),
        nobody(&["service", "add", "web", "--port", "80"]),
        nobody(&["status"]),
    ];
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(
        outputs.each_ref().map(|output| output.status.code()),
        [2, 2, 0].map(Some)
    );
    let [init, add, _] = outputs.map(|output| text(&output.stderr));
    assert!(
        init.starts_with("webmesh: init needs root: sudo "),
        "{init}"
    );
    assert!(init.contains(" init home --socket "), "{init}");
    assert!(
        add.starts_with("webmesh: service add needs root or the group webmesh: sudo "),
        "{add}"
    );
    let has_group = nix::unistd::Group::from_name("webmesh").unwrap().is_some();
    let once = "once, for no sudo: sudo usermod -aG webmesh nobody";
    assert_eq!(add.contains(once), has_group, "{add}");
}

fn invite(peer: &Peer, options: &[&str]) -> String {
    peer.ok(&[&["invite"], options].concat()).trim().to_owned()
}

/// The agent will die at this place of its code.
fn dies_at(peer: &mut Peer, place: &str) {
    peer.agent.stop().unwrap();
    peer.agent.set_environment("WEBMESH_FAILPOINT", place);
    peer.agent.start().unwrap();
}

/// The agent runs again, and will not die.
fn lives(peer: &mut Peer) {
    peer.agent.set_environment("WEBMESH_FAILPOINT", "");
    peer.agent.start().unwrap();
}

/// What the others are called, in order.
fn names_at(peer: &Peer) -> Vec<String> {
    let status = peer.status();
    let peers = status["peers"].as_array().unwrap();
    let mut names: Vec<String> = peers
        .iter()
        .map(|peer| peer["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn judge(said: String, sentence: &str) {
    assert_eq!(said, format!("webmesh: {sentence}\n"));
}

/// The line after those that tell how the issuer was found.
fn last(said: &str) -> String {
    format!("{}\n", said.lines().last().unwrap_or_default())
}

fn last_line(output: &Output) -> String {
    last(&text(&output.stderr)).trim().to_owned()
}
