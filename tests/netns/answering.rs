//! What the verbs answer against agents that live: exit codes, JSON, and the schema of `status --json`.

use serde_json::Value;

use crate::{
    harness::{Net, Peer},
    schema,
};

#[test]
fn a_service_of_a_network_that_is_alone_is_shown_and_resolves_at_once() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    let anna = net.peer("anna");
    anna.ok(&["init", "home"]);
    anna.ok(&["service", "add", "web", "--port", "8000"]);
    let services = anna.status()["services"].clone();
    assert_eq!(
        (&services[0]["name"], &services[0]["up"]),
        (&"web".into(), &1.into()),
        "{services}"
    );
    anna.agent.use_resolver().unwrap();
    let [own, _] = anna.mesh_addresses();
    assert_eq!(
        anna.sh("dig +short web.svc.home.internal A"),
        format!("{own}\n")
    );
    anna.ok(&["down"]);
    assert_eq!(anna.status()["services"], serde_json::json!([]));
}

#[test]
fn every_verb_answers_in_json_and_the_status_is_as_its_schema_says() {
    let mut net = Net::three();
    let init = json(net.peer("anna"), &["init", "home"]);
    assert!(init["recovery_code"].is_string(), "{init}");
    let invite = json(net.peer("anna"), &["invite"]);
    let token = invite["token"].as_str().unwrap().to_owned();
    let joined = json(net.peer("bo"), &["join", &token]);
    assert_eq!(joined["self"]["name"], "bo", "{joined}");
    let token = net.peer("anna").invite();
    net.peer("carol").ok(&["join", &token]);

    let bo = net.peer("bo");
    let add = [
        "service",
        "add",
        "web",
        "--port",
        "80",
        "--target",
        "127.0.0.1:8080",
    ];
    assert_eq!(json(bo, &add)["domain_name"], "web.svc.home.internal");
    bo.ok(&["service", "add", "radio", "--port", "5353/udp"]);
    let anna = net.peer("anna");
    for service in ["web", "radio"] {
        anna.ok(&["wait", "--service", service, "--timeout", "5s"]);
    }
    anna.ok(&["wait", "--peer", "carol", "--timeout", "5s"]);
    let [v4, _] = bo.mesh_addresses();
    let verbs: [&[&str]; 13] = [
        &["status"],
        &["peers"],
        &["peers", "bo"],
        &["peers", &v4],
        &["wait"],
        &["ping", "-c", "1", "bo"],
        &["whois", &v4],
        &["whois", "web"],
        &["dns", "query", "web.svc"],
        &["service", "list"],
        &["service", "show", "web"],
        &["invite", "list"],
        &["policy", "show"],
    ];
    for verb in verbs {
        assert!(json(anna, verb).is_object(), "{verb:?}");
    }
    for name in ["anna", "bo", "carol"] {
        judge_status(&net.peer(name).status());
    }
    let status = anna.status();
    assert_eq!(status["peers"].as_array().unwrap().len(), 2);
    assert_eq!(status["services"].as_array().unwrap().len(), 2);

    let bo = net.peer("bo");
    json(bo, &["service", "rm", "web"]);
    anna.ok(&["service", "add", "web", "--port", "8000"]);
    bo.ok(&["wait", "--service", "web", "--timeout", "5s"]);
    json(bo, &["down"]);
    let down = bo.status();
    judge_status(&down);
    let mut peers = down["peers"].as_array().unwrap().iter();
    assert!(peers.all(|peer| peer["state"] == "idle"), "{down}");
    let web = &down["services"][0];
    assert_eq!(
        (&web["up"], &web["instances"][0]["state"]),
        (&0.into(), &"unknown".into())
    );
    json(bo, &["up"]);
    net.peer_mut("carol").agent.kill().unwrap();
    json(net.peer("bo"), &["leave", "home"]);
    judge_status(&net.peer("bo").status());
}

#[test]
fn the_exit_code_says_yes_no_or_cannot() {
    let mut net = Net::three();
    let lonely = net.peer("carol");
    for verb in [
        &["peers"][..],
        &["ping", "anna"],
        &["invite"],
        &["service", "list"],
    ] {
        let said = lonely.refused(2, verb);
        assert_eq!(
            said,
            "webmesh: this machine is in no network: sudo webmesh init NAME makes one, sudo webmesh join TOKEN joins one\n"
        );
    }
    net.form();
    net.peer_mut("carol").agent.kill().unwrap();
    let anna = net.peer("anna");
    anna.ok(&["wait"]);
    anna.ok(&["wait", "--peer", "bo"]);
    anna.ok(&["ping", "-c", "1", "bo"]);
    anna.ok(&["dns", "query", "bo"]);
    for (verb, sentence) in [
        (
            &["wait", "--peer", "nobody", "--timeout", "200ms"][..],
            "no session with nobody after 0.2 s: webmesh status",
        ),
        (
            &["wait", "--service", "nothing", "--timeout", "200ms"],
            "no instance of nothing after 0.2 s: webmesh status",
        ),
        (
            &["peers", "boo"],
            "there is no peer \"boo\" in home. Did you mean bo?",
        ),
        (
            &["ping", "boo"],
            "there is no peer \"boo\" in home. Did you mean bo?",
        ),
        (
            &["service", "show", "web"],
            "there is no service \"web\" in home",
        ),
        (
            &["dns", "query", "boo"],
            "there is no name \"boo\" in home. Did you mean bo?",
        ),
        (
            &["ping", "-c", "1", "carol"],
            "no answer from carol: webmesh why carol",
        ),
    ] {
        let said = anna.refused(1, verb);
        let (talk, last) = said.trim_end().rsplit_once('\n').unwrap_or(("", &said));
        assert_eq!(last.trim_end(), format!("webmesh: {sentence}"), "{verb:?}");
        let is_doubted = talk.starts_with("there is no ") && talk.ends_with(": waiting for it");
        assert_eq!(is_doubted, verb[0] == "wait", "{verb:?}: {talk}");
    }
    anna.refused(2, &["ping"]);
    anna.refused(2, &["service", "add", "web", "--port", "0"]);
    let bo = net.peer("bo");
    assert!(
        bo.refused(2, &["invite"])
            .contains("bo is no admin of home")
    );
    net.peer_mut("bo").agent.kill().unwrap();
    let said = net.peer("bo").refused(2, &["status"]);
    assert!(
        said.starts_with("webmesh: the agent does not run: sudo "),
        "{said}"
    );
}

fn json(peer: &Peer, words: &[&str]) -> Value {
    let said = peer.ok(&[words, &["--json"]].concat());
    assert_eq!(said.trim().lines().count(), 1, "one document: {said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

fn judge_status(status: &Value) {
    let violations = schema::violations(&schema::status_schema(), status);
    assert!(violations.is_empty(), "{violations:#?}\n{status:#}");
}
