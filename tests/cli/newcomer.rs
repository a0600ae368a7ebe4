//! What a new user did on the first day, and what is said to it.

use std::process::{Command, Stdio};

use webmesh::api::{ApiError, InviteReply, Role, Verb};

use super::{
    answers::token,
    fake_agent::{FakeAgent, webmesh},
    values::NOW,
};

#[test]
fn an_answer_that_is_lost_is_no_success() {
    for words in [["completion", "zsh"].as_slice(), &["--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = Command::new(env!("CARGO_BIN_EXE_webmesh"))
            .args(words)
            .stdout(full.unwrap())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "webmesh: cannot write the answer to stdout: No space left on device\n",
            "{words:?}"
        );
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn an_invite_whose_token_is_lost_can_be_taken_back() {
    let reply = InviteReply {
        network: "home".into(),
        id: "k3f7".into(),
        token: token(),
        expires: NOW + 3600,
        uses: 1,
        role: Role::Member,
        warning: None,
    };
    let agent = FakeAgent::new().says(Verb::Invite, &reply);
    for words in [["invite"].as_slice(), &["invite", "--json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let told = agent.run_into(words, full.unwrap().into());
        assert_eq!(
            told.stderr,
            "webmesh: cannot write the answer to stdout: No space left on device: the invite is there all the same: \
             sudo webmesh invite list shows it, sudo webmesh invite cancel k3f7 takes it back\n"
        );
        assert_eq!(told.exit, 2);
    }
}

#[test]
fn a_token_is_taken_as_it_was_copied() {
    let whole = token();
    let (head, tail) = whole.split_at(60);
    let broken = format!("\n{head}\n{tail}\n");
    let typed = format!("sudo webmesh join \"{whole}\"");
    for (word, stdin) in [("-", broken.as_str()), (typed.as_str(), "")] {
        let agent = FakeAgent::new().refuses(Verb::Join, &ApiError::already_in("home"));
        agent.run_with(&["join", word], stdin);
        assert_eq!(agent.last_request().1["token"], whole, "{word:?}");
    }
}

#[test]
fn an_agent_that_stands_still_is_not_waited_for() {
    let path = std::env::temp_dir().join(format!("webmesh-still-{}", std::process::id()));
    let standing_still = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let told = webmesh(&["status", "--socket", path.to_str().unwrap()], &[], "");
    drop(standing_still);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        told.stderr,
        "webmesh: the agent does not answer: sudo systemctl restart webmesh\n"
    );
    assert_eq!((told.stdout.as_str(), told.exit), ("", 2));
}

#[test]
fn a_faulty_file_is_judged_again_by_the_same_words() {
    let file = std::env::temp_dir().join(format!("webmesh-faulty-{}.toml", std::process::id()));
    std::fs::write(&file, "[network]\nprot = 1\n").unwrap();
    let name = file.to_str().unwrap();
    let told = webmesh(&["daemon", "--check-config", "--config", name], &[], "");
    std::fs::remove_file(&file).unwrap();
    let again = format!(": mend it, then webmesh daemon --check-config --config {name}\n");
    assert!(told.stderr.ends_with(&again), "{}", told.stderr);
    assert_eq!(told.exit, 2);
}

#[test]
fn completions_offer_what_is_shown_and_nothing_else() {
    for shell in ["bash", "zsh", "fish"] {
        let script = webmesh(&["completion", shell], &[], "").stdout;
        for hidden in ["dns-helper", "hold", "__man", "leaf"] {
            assert!(!script.contains(hidden), "{shell} offers {hidden}");
        }
        for offered in ["invite", "takeover", "member", "--expires", "--version"] {
            let bare = offered.trim_start_matches('-');
            assert!(script.contains(bare), "{shell} does not offer {offered}");
        }
    }
    let help = webmesh(&["invite", "--help"], &[], "").stdout;
    assert!(help.contains("possible values: member, admin"), "{help}");
}

#[test]
fn options_that_mean_nothing_to_a_verb_are_refused() {
    for (words, line) in [
        ("demo --json", "demo takes no --json: webmesh demo --help"),
        (
            "completion bash --json",
            "completion takes no --json: webmesh completion --help",
        ),
        (
            "completion bash --network home",
            "completion takes no --network: webmesh completion --help",
        ),
        (
            "--version --json",
            "--version takes no --json: webmesh --help",
        ),
    ] {
        let told = webmesh(&words.split(' ').collect::<Vec<_>>(), &[], "");
        assert_eq!(told.stderr, format!("webmesh: {line}\n"));
        assert_eq!((told.stdout.as_str(), told.exit), ("", 2), "{words}");
    }
}
