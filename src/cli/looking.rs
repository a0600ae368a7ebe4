//! The verbs that look: `status`, `peers`, `wait`, `ping`, `why`, `whois`, `netcheck`, `policy show`. Those about names are in `names`.

use super::{
    args,
    conversation::{Conversation, DONE, NO, Outcome, last},
    netcheck, render,
    screen::Unwritten,
    status, unix_now, why,
};
use crate::api::{
    NetworkRequest, PeersReply, PeersRequest, PingRequest, PolicyReply, Pong, Status,
    StatusRequest, Verb, WaitReply, WaitRequest, WhoisReply, WhoisRequest, WhyReply, WhyRequest,
    words::{last_at, milliseconds},
};

impl Conversation<'_> {
    pub(super) async fn status(&self, options: &args::Status) -> Outcome {
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

    fn draw(&self, one: &Status, before: u64) -> Result<(), Unwritten> {
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

    pub(super) async fn wait(&self, wait: &args::Wait) -> Outcome {
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
            format!("ready after {}\n", milliseconds(wait.took_ms))
        })?;
        Ok(DONE)
    }

    pub(super) async fn ping(&self, ping: &args::Ping) -> Outcome {
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

    pub(super) async fn peers(&self, peers: &args::Peers) -> Outcome {
        let request = PeersRequest {
            network: self.network(),
            peer: peers.peer.clone(),
        };
        let width = self.screen.width();
        let text = |reply: &PeersReply| status::peers_reply(reply, width);
        self.simple(Verb::Peers, &request, text).await
    }

    pub(super) async fn whois(&self, whois: &args::Whois) -> Outcome {
        let request = WhoisRequest {
            network: self.network(),
            what: whois.what.clone(),
        };
        self.simple::<WhoisReply>(Verb::Whois, &request, render::whois)
            .await
    }

    pub(super) async fn why(&self, typed: &args::Why) -> Outcome {
        let now = unix_now();
        let last = |time: args::TimeOfDay| {
            let at = last_at(time.hour, time.minute, time.second.unwrap_or(0), now)?;
            // Without seconds it is that minute's end that is meant, as far as it has passed.
            let end = time.second.map_or(at + 59, |_| at);
            Some(end.min(now))
        };
        let request = WhyRequest {
            network: self.network(),
            what: typed.what.clone(),
            at: typed.at.and_then(last),
        };
        let reply = self.agent.ask(Verb::Why, &request).await?;
        let width = self.screen.width();
        self.print::<WhyReply>(&reply, |reply| why::why(reply, now, width))?;
        match reply.parse::<WhyReply>()?.reached {
            true => Ok(DONE),
            false => Ok(NO),
        }
    }

    pub(super) async fn netcheck(&self) -> Outcome {
        let request = NetworkRequest {
            network: self.network(),
        };
        self.simple(Verb::Netcheck, &request, netcheck::netcheck)
            .await
    }

    pub(super) async fn policy(&self, policy: &args::Policy) -> Outcome {
        match policy {
            args::Policy::Show => {
                let request = NetworkRequest {
                    network: self.network(),
                };
                self.simple::<PolicyReply>(Verb::PolicyShow, &request, render::policy)
                    .await
            }
        }
    }
}
