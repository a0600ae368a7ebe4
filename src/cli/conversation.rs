//! One verb from its arguments to its exit code: what all verbs have in common. The verbs are in `membership`, `looking`
//! and `publishing`.

use std::path::PathBuf;

use super::{
    args::{self, Cli, Common},
    client::{Agent, Reply},
    screen::{Screen, Unwritten, lost},
    start_hint::Program,
};
use crate::api::{ApiError, Code, DEFAULT_SOCKET, Verb};

/// Why a conversation ended before its verb was done.
#[derive(Debug)]
pub(super) enum End {
    /// The agent said no, or was not there, or what was typed is of no use.
    Refused(Box<ApiError>),
    /// Nobody reads the answer.
    ReaderGone,
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<Unwritten> for End {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::ReaderGone => Self::ReaderGone,
            Unwritten::Lost(error) => lost(&error).into(),
        }
    }
}

impl End {
    /// The same with what to do about an answer that is lost.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        match self {
            Self::Refused(error) => error.remedy(remedy).into(),
            Self::ReaderGone => Self::ReaderGone,
        }
    }
}

/// The exit code, or why there is none.
pub(super) type Outcome = Result<u8, End>;

/// Exit code: done (design §4).
pub(super) const DONE: u8 = 0;

/// Exit code: the answer is no.
pub(super) const NO: u8 = 1;

/// The agent, what was typed before the verb, and where to write.
pub(super) struct Conversation<'a> {
    pub(super) agent: Agent,
    pub(super) common: &'a Common,
    pub(super) screen: &'a Screen,
}

/// Carries out the verb; the exit code.
pub(super) async fn hold(cli: &Cli, screen: &Screen) -> Outcome {
    let common = &cli.common;
    let agent = Agent {
        socket: common
            .socket
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)),
        start: Program::of_this_process().start_hint(common.socket.as_ref()),
    };
    let talk = Conversation {
        agent,
        common,
        screen,
    };
    match &cli.verb {
        args::Verb::Init(init) => talk.init(init).await,
        args::Verb::Invite(invite) => talk.invite(invite).await,
        args::Verb::Join(join) => talk.join(join).await,
        args::Verb::Leave(leave) => talk.leave(leave).await,
        args::Verb::Up => talk.up().await,
        args::Verb::Down => talk.down().await,
        args::Verb::Recover(recover) => talk.recover(recover).await,
        args::Verb::Status(status) => talk.status(status).await,
        args::Verb::Peers(peers) => talk.peers(peers).await,
        args::Verb::Wait(wait) => talk.wait(wait).await,
        args::Verb::Ping(ping) => talk.ping(ping).await,
        args::Verb::Why(why) => talk.why(why).await,
        args::Verb::Whois(whois) => talk.whois(whois).await,
        args::Verb::Netcheck => talk.netcheck().await,
        args::Verb::Dns(dns) => talk.dns(dns).await,
        args::Verb::DnsHelper { verb } => talk.dns_helper(*verb).await,
        args::Verb::Policy(policy) => talk.policy(policy).await,
        args::Verb::Service(service) => talk.service(service).await,
        args::Verb::Debug(debug) => talk.debug(debug).await,
        args::Verb::Daemon(_)
        | args::Verb::Demo(_)
        | args::Verb::Completion(_)
        | args::Verb::Man(_) => Err(ApiError::internal("this verb asks no agent").into()),
    }
}

impl Conversation<'_> {
    /// Asks once, prints the answer.
    pub(super) async fn simple<R: serde::de::DeserializeOwned>(
        &self,
        verb: Verb,
        request: &impl serde::Serialize,
        text: impl FnOnce(&R) -> String,
    ) -> Outcome {
        let reply = self.agent.ask(verb, request).await?;
        self.print(&reply, text)?;
        Ok(DONE)
    }

    /// Prints an answer, as text or as it came.
    pub(super) fn print<R: serde::de::DeserializeOwned>(
        &self,
        reply: &Reply,
        text: impl FnOnce(&R) -> String,
    ) -> Result<(), End> {
        if self.common.json {
            self.screen.document(reply.json())?;
        } else {
            self.screen.answer(&text(&reply.parse()?))?;
        }
        Ok(())
    }

    /// The network that was typed.
    pub(super) fn network(&self) -> Option<String> {
        self.common.network.clone()
    }
    /// Prints a line of talk.
    pub(super) fn say(&self, line: String) {
        self.screen.talk(&(line + "\n"));
    }
}

/// The reply that must have come.
pub(super) fn last(reply: Option<Reply>) -> Result<Reply, ApiError> {
    reply.ok_or_else(|| {
        ApiError::could_not(Code::AgentAbsent, "the agent stopped before it was done")
            .remedy("webmesh status")
    })
}
