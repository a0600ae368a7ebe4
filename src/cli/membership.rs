//! The verbs by which a machine comes into a network, lets others in, and leaves.

use std::io::Read;

use super::{
    args,
    client::Reply,
    conversation::{Conversation, DONE, Outcome, last},
    render, unix_now,
};
use crate::{
    api::{
        ApiError, Code, InitReply, InitRequest, InviteCancelReply, InviteCancelRequest,
        InviteListReply, InviteReply, InviteRequest, JoinReply, JoinRequest, LeaveRequest,
        NetworkReply, NetworkRequest, RecoverReply, RecoverRequest, Verb,
    },
    keys::{Token, TokenRefused},
};

/// What this host is called now; the agent of a unit has a name of its own that changes with no `hostname NEW`. None where a
/// name is given.
fn host_name(given: Option<&String>) -> Option<String> {
    if given.is_some() {
        return None;
    }
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

impl Conversation<'_> {
    pub(super) async fn init(&self, init: &args::Init) -> Outcome {
        let request = InitRequest {
            network: init.network.clone(),
            name: init.name.clone(),
            host_name: host_name(init.name.as_ref()),
            domain: init.domain.clone(),
            ipv4: init.ipv4.clone(),
            closed: init.closed,
        };
        request.unbuilt().map_or(Ok(()), Err)?;
        let reply = self.agent.ask(Verb::Init, &request).await?;
        let network = reply.parse::<InitReply>()?.network;
        let typed = init.domain.as_deref().unwrap_or_default();
        if network.domain.eq_ignore_ascii_case(typed) {
            self.allow_domain(&network);
        }
        let reply = self.with_names(reply).await?;
        self.print::<InitReply>(&reply, render::init)?;
        self.say_no_names(&reply.parse::<InitReply>()?.dns);
        for warning in reply.parse::<InitReply>()?.warnings {
            self.screen.talk(&format!("webmesh: {}\n", warning.line()));
        }
        Ok(DONE)
    }

    pub(super) async fn invite(&self, invite: &args::Invite) -> Outcome {
        match &invite.verb {
            Some(args::InviteVerb::List) => {
                let request = NetworkRequest {
                    network: self.network(),
                };
                let text = |reply: &InviteListReply| render::invites(reply, unix_now());
                return self.simple(Verb::InviteList, &request, text).await;
            }
            Some(args::InviteVerb::Cancel { id }) => {
                let request = InviteCancelRequest {
                    network: self.network(),
                    id: id.clone(),
                };
                let text = |reply: &InviteCancelReply| render::invite_cancelled(reply);
                return self.simple(Verb::InviteCancel, &request, text).await;
            }
            None => {}
        }
        let request = InviteRequest {
            network: self.network(),
            expires_s: invite.expires.as_secs(),
            uses: invite.uses,
            role: invite.role,
            groups: invite.groups.clone(),
            services: invite.services.clone(),
        };
        request.unbuilt().map_or(Ok(()), Err)?;
        let reply = self.agent.ask(Verb::Invite, &request).await?;
        let invite: InviteReply = reply.parse()?;
        self.print::<InviteReply>(&reply, |invite| format!("{}\n", invite.token))
            .map_err(|end| end.remedy(render::invite_remains(&invite.id)))?;
        if !self.common.json {
            let head = render::token_head(&invite.token);
            let shown = if self.screen.is_terminal() {
                &invite.token
            } else {
                &head
            };
            self.screen
                .talk(&render::invite_talk(&invite, shown, unix_now()));
        }
        Ok(DONE)
    }

    pub(super) async fn join(&self, join: &args::Join) -> Outcome {
        let token = token_in(&typed_or_stdin(&join.token)?).map_err(refused_token)?;
        let request = JoinRequest {
            token: token.to_string(),
            name: join.name.clone(),
            host_name: host_name(join.name.as_ref()),
        };
        let reply = self
            .agent
            .ask_lines(Verb::Join, &request, |line| self.say(line))
            .await?;
        let reply = last(reply)?;
        self.take_domain(&reply.parse::<JoinReply>()?.network);
        let reply = self.with_names(reply).await?;
        self.print::<JoinReply>(&reply, render::joined)?;
        self.say_no_names(&reply.parse::<JoinReply>()?.dns);
        Ok(DONE)
    }

    pub(super) async fn leave(&self, leave: &args::Leave) -> Outcome {
        let request = LeaveRequest {
            network: leave.network.clone(),
            yes: leave.yes,
        };
        let reply = self.agent.ask(Verb::Leave, &request).await?;
        self.forget_domain(&reply.parse::<NetworkReply>()?.network);
        self.changed(&reply, render::left).await
    }

    pub(super) async fn up(&self) -> Outcome {
        let request = NetworkRequest {
            network: self.network(),
        };
        let reply = self.agent.ask(Verb::Up, &request).await?;
        self.changed(&reply, render::up).await
    }

    pub(super) async fn down(&self) -> Outcome {
        let request = NetworkRequest {
            network: self.network(),
        };
        let reply = self.agent.ask(Verb::Down, &request).await?;
        self.changed(&reply, render::down).await
    }

    /// The end of a verb after which the host resolves other names than before.
    async fn changed(&self, reply: &Reply, text: impl FnOnce(&NetworkReply) -> String) -> Outcome {
        let _whoever_did_it = self.set_up_names().await;
        self.print(reply, text)?;
        for warning in reply.parse::<NetworkReply>()?.warnings {
            self.screen.talk(&format!("webmesh: {}\n", warning.line()));
        }
        Ok(DONE)
    }

    pub(super) async fn recover(&self, recover: &args::Recover) -> Outcome {
        let request = RecoverRequest {
            network: self.network(),
            code: first_line(&typed_or_stdin(&recover.code)?).to_owned(),
        };
        self.simple::<RecoverReply>(Verb::Recover, &request, render::recovered)
            .await
    }
}

/// A secret that was typed, or stdin where `-` was: nothing in the shell's history or in ps.
fn typed_or_stdin(typed: &str) -> Result<String, ApiError> {
    if typed != "-" {
        return Ok(typed.to_owned());
    }
    let mut text = String::new();
    let taken = std::io::stdin()
        .lock()
        .take(LONGEST_SECRET)
        .read_to_string(&mut text);
    taken.map_err(|error| ApiError::bad_request(format!("stdin cannot be read: {error}")))?;
    if first_line(&text).is_empty() {
        return Err(ApiError::bad_request(
            "nothing came on stdin: the token goes there",
        ));
    }
    Ok(text)
}

/// The first line with something in it.
fn first_line(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty()).unwrap_or_default()
}

/// The token in what was given: its first line, or all of it where a mail program broke the line.
fn token_in(text: &str) -> Result<Token, TokenRefused> {
    first_line(text).parse().or_else(|_cut| text.parse())
}

/// Bytes of stdin that are looked at: a token has at most 184 letters, the rest may be a greeting of ssh.
const LONGEST_SECRET: u64 = 4096;

fn refused_token(refused: TokenRefused) -> ApiError {
    match refused {
        TokenRefused::CutOrMistyped => ApiError::cut_token(),
        TokenRefused::NotAToken | TokenRefused::UnknownVersion => {
            ApiError::could_not(Code::BadToken, refused.to_string())
        }
    }
}
