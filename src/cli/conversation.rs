//! One verb from its arguments to its exit code.

use std::{io::Read, path::PathBuf};

use super::{
    args::{self, Cli, Common},
    client::{Agent, Reply},
    render,
    screen::{ReaderGone, Screen},
    start_hint::Program,
    status, unix_now,
};
use crate::{
    api::{
        self, ApiError, Code, DEFAULT_SOCKET, DnsQueryReply, DnsQueryRequest, InitReply,
        InitRequest, InviteCancelReply, InviteCancelRequest, InviteListReply, InviteReply,
        InviteRequest, JoinReply, JoinRequest, LeaveRequest, NetworkReply, NetworkRequest,
        PeersReply, PeersRequest, PingRequest, PolicyReply, Pong, RecoverReply, RecoverRequest,
        ServiceAddReply, ServiceAddRequest, ServiceListReply, ServiceRemoveReply, ServiceRequest,
        ServiceShowReply, Status, StatusRequest, Verb, WaitReply, WaitRequest, WhoisReply,
        WhoisRequest,
    },
    keys::{Token, TokenRefused},
};

/// Why a conversation ended before its verb was done.
#[derive(Debug)]
pub(super) enum End {
    /// The agent said no, or was not there, or what was typed is of no use.
    Refused(Box<ApiError>),
    /// Nobody reads the answer.
    ReaderGone(ReaderGone),
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<ReaderGone> for End {
    fn from(gone: ReaderGone) -> Self {
        Self::ReaderGone(gone)
    }
}

type Outcome = Result<u8, End>;

/// The exit codes (design §4).
const DONE: u8 = 0;
const NO: u8 = 1;

struct Conversation<'a> {
    agent: Agent,
    common: &'a Common,
    screen: &'a Screen,
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
    let network = common.network.clone();
    match &cli.verb {
        args::Verb::Init(init) => talk.init(init).await,
        args::Verb::Invite(invite) => talk.invite(invite).await,
        args::Verb::Join(join) => talk.join(join).await,
        args::Verb::Leave(leave) => {
            let request = LeaveRequest {
                network: leave.network.clone(),
                yes: leave.yes,
            };
            talk.simple::<NetworkReply>(Verb::Leave, &request, render::left)
                .await
        }
        args::Verb::Up => {
            talk.simple::<NetworkReply>(Verb::Up, &NetworkRequest { network }, render::up)
                .await
        }
        args::Verb::Down => {
            talk.simple::<NetworkReply>(Verb::Down, &NetworkRequest { network }, render::down)
                .await
        }
        args::Verb::Status(options) => talk.status(options).await,
        args::Verb::Peers(peers) => {
            let request = PeersRequest {
                network,
                peer: peers.peer.clone(),
            };
            let width = screen.width();
            talk.simple::<PeersReply>(Verb::Peers, &request, |reply| {
                status::peers_reply(reply, width)
            })
            .await
        }
        args::Verb::Wait(wait) => talk.wait(wait).await,
        args::Verb::Ping(ping) => talk.ping(ping).await,
        args::Verb::Whois(whois) => {
            let request = WhoisRequest {
                network,
                what: whois.what.clone(),
            };
            talk.simple::<WhoisReply>(Verb::Whois, &request, render::whois)
                .await
        }
        args::Verb::Dns(args::Dns::Query { name, record_type }) => {
            talk.dns(name, record_type.as_ref()).await
        }
        args::Verb::Service(service) => talk.service(service).await,
        args::Verb::Policy(args::Policy::Show) => {
            talk.simple::<PolicyReply>(
                Verb::PolicyShow,
                &NetworkRequest { network },
                render::policy,
            )
            .await
        }
        args::Verb::Recover(recover) => {
            let request = RecoverRequest {
                network,
                code: secret_or_stdin(&recover.code)?,
            };
            talk.simple::<RecoverReply>(Verb::Recover, &request, render::recovered)
                .await
        }
        args::Verb::Daemon(_) | args::Verb::Demo(_) | args::Verb::Completion(_) => {
            Err(ApiError::internal("this verb asks no agent").into())
        }
    }
}

impl Conversation<'_> {
    /// Asks once, prints the answer.
    async fn simple<R: serde::de::DeserializeOwned>(
        &self,
        verb: Verb,
        request: &impl serde::Serialize,
        text: impl FnOnce(&R) -> String,
    ) -> Outcome {
        let reply = self.agent.ask(verb, request).await?;
        self.print(&reply, text)?;
        Ok(DONE)
    }

    fn print<R: serde::de::DeserializeOwned>(
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

    fn network(&self) -> Option<String> {
        self.common.network.clone()
    }

    async fn init(&self, init: &args::Init) -> Outcome {
        let request = InitRequest {
            network: init.network.clone(),
            name: init.name.clone(),
            domain: init.domain.clone(),
            ipv4: init.ipv4.clone(),
            closed: init.closed,
        };
        request.unbuilt().map_or(Ok(()), Err)?;
        self.simple::<InitReply>(Verb::Init, &request, render::init)
            .await
    }

    async fn invite(&self, invite: &args::Invite) -> Outcome {
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
        self.print::<InviteReply>(&reply, |invite| format!("{}\n", invite.token))?;
        if !self.common.json {
            let invite: InviteReply = reply.parse()?;
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

    async fn join(&self, join: &args::Join) -> Outcome {
        let token = secret_or_stdin(&join.token)?;
        token.parse::<Token>().map_err(refused_token)?;
        let request = JoinRequest {
            token,
            name: join.name.clone(),
        };
        let reply = self
            .agent
            .ask_lines(Verb::Join, &request, |line| self.say(line))
            .await?;
        self.print::<JoinReply>(&last(reply)?, render::joined)?;
        Ok(DONE)
    }

    async fn status(&self, options: &args::Status) -> Outcome {
        let request = StatusRequest {
            network: self.network(),
            watch: options.watch,
            all: options.all,
        };
        if options.watch {
            return self.watch(&request).await;
        }
        let reply = self.agent.ask(Verb::Status, &request).await?;
        let width = self.screen.width();
        if options.all {
            let blocks = |all: &Vec<Status>| {
                all.iter()
                    .map(|one| status::status(one, width))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            self.print(&reply, blocks)?;
        } else {
            self.print::<Status>(&reply, |one| status::status(one, width))?;
        }
        Ok(DONE)
    }

    async fn watch(&self, request: &StatusRequest) -> Outcome {
        let mut pictures = 0_u64;
        let mut written = Ok(());
        let draw = |one: Status| {
            if written.is_ok() {
                written = self.draw(&one, pictures);
                pictures += 1;
            }
            written.is_ok()
        };
        self.agent
            .ask_lines_while(Verb::Status, request, draw)
            .await?;
        written?;
        Ok(DONE)
    }

    fn draw(&self, one: &Status, before: u64) -> Result<(), ReaderGone> {
        if self.common.json {
            let json = serde_json::to_string(one).expect("a status is text and numbers");
            return self.screen.document(&json);
        }
        if before > 0 || self.screen.is_terminal() {
            self.screen.next_picture()?;
        }
        self.screen
            .answer(&status::status(one, self.screen.width()))
    }

    async fn wait(&self, wait: &args::Wait) -> Outcome {
        let request = WaitRequest {
            network: self.network(),
            peer: wait.peer.clone(),
            service: wait.service.clone(),
            timeout_s: wait.timeout.as_secs_f64(),
        };
        let reply = self
            .agent
            .ask_lines(Verb::Wait, &request, |line| self.say(line))
            .await?;
        self.print::<WaitReply>(&last(reply)?, |wait| {
            format!("ready after {}\n", api::words::milliseconds(wait.took_ms))
        })?;
        Ok(DONE)
    }

    async fn ping(&self, ping: &args::Ping) -> Outcome {
        let request = PingRequest {
            network: self.network(),
            peer: ping.peer.clone(),
            count: ping.count,
        };
        let mut written = Ok(());
        let show = |pong: Pong| {
            if !self.common.json && written.is_ok() {
                written = self.screen.answer(&render::pong(&pong));
            }
            written.is_ok()
        };
        let reply = self
            .agent
            .ask_lines_while(Verb::Ping, &request, show)
            .await?;
        written?;
        if self.common.json {
            self.screen.document(last(reply)?.json())?;
        }
        Ok(DONE)
    }

    async fn dns(&self, name: &str, record_type: Option<&String>) -> Outcome {
        let request = DnsQueryRequest {
            network: self.network(),
            name: name.to_owned(),
            record_type: record_type.cloned(),
        };
        let reply = self.agent.ask(Verb::DnsQuery, &request).await?;
        self.print::<DnsQueryReply>(&reply, render::dns)?;
        let is_empty = reply.parse::<DnsQueryReply>()?.answers.is_empty();
        Ok(if is_empty { NO } else { DONE })
    }

    async fn service(&self, service: &args::Service) -> Outcome {
        let network = self.network();
        let width = self.screen.width();
        match service {
            args::Service::Add(add) => self.service_add(add).await,
            args::Service::Rm { name } => {
                let request = ServiceRequest {
                    network,
                    name: name.clone(),
                };
                self.simple::<ServiceRemoveReply>(
                    Verb::ServiceRemove,
                    &request,
                    render::service_removed,
                )
                .await
            }
            args::Service::List => {
                let text = |reply: &ServiceListReply| match &reply.services[..] {
                    [] => "no services yet: sudo webmesh service add NAME --port P\n".to_owned(),
                    services => status::services(services, width),
                };
                self.simple(Verb::ServiceList, &NetworkRequest { network }, text)
                    .await
            }
            args::Service::Show { name } => {
                let request = ServiceRequest {
                    network,
                    name: name.clone(),
                };
                let text = |reply: &ServiceShowReply| status::service(&reply.service, width);
                self.simple(Verb::ServiceShow, &request, text).await
            }
        }
    }

    async fn service_add(&self, add: &args::ServiceAdd) -> Outcome {
        let request = ServiceAddRequest {
            network: self.network(),
            name: add.name.clone(),
            port: add.port.port,
            protocol: add.port.protocol,
            target: add.target.clone(),
            tags: add.tags.clone(),
            weight: add.weight,
            instance: add.instance.clone(),
        };
        let reply = self.agent.ask(Verb::ServiceAdd, &request).await?;
        self.print::<ServiceAddReply>(&reply, render::service_added)?;
        for warning in render::service_warnings(&reply.parse()?) {
            self.screen.talk(&format!("webmesh: {}\n", warning.line()));
        }
        Ok(DONE)
    }

    fn say(&self, line: String) {
        self.screen.talk(&(line + "\n"));
    }
}

fn last(reply: Option<Reply>) -> Result<Reply, ApiError> {
    reply.ok_or_else(|| {
        ApiError::could_not(Code::AgentAbsent, "the agent stopped before it was done")
            .remedy("webmesh status")
    })
}

/// A secret that was typed, or the first line of stdin where `-` was: nothing in the shell's history or in ps.
fn secret_or_stdin(typed: &str) -> Result<String, ApiError> {
    if typed != "-" {
        return Ok(typed.trim().to_owned());
    }
    let mut text = String::new();
    let taken = std::io::stdin()
        .lock()
        .take(LONGEST_SECRET)
        .read_to_string(&mut text);
    taken.map_err(|error| ApiError::bad_request(format!("stdin cannot be read: {error}")))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request("nothing came on stdin: the token goes there"))
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
