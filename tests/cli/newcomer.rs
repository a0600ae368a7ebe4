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
    let broken = format!("\n{}\n{}\n", &whole[..60], &whole[60..]);
    let typed = format!("sudo webmesh join \"{whole}\"");
    for (word, stdin) in [("-", broken.as_str()), (typed.as_str(), "")] {
        let agent = FakeAgent::new().refuses(Verb::Join, &ApiError::already_in("home"));
        agent.run_with(&["join", word], stdin);
        assert_eq!(agent.last_request().1["token"], whole, "{word:?}");
    }
}
