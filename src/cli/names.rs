//! The verbs about names: `dns query|status|takeover`, and what root does for the agent's names.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use super::{
    args,
    client::Reply,
    conversation::{Conversation, DONE, End, NO, Outcome},
    render,
};
use crate::{
    api::{
        ApiError, Code, DEFAULT_SOCKET, Dns, DnsBackend, DnsQueryReply, DnsQueryRequest, DnsState,
        Network, NetworkRequest, Status, StatusRequest, Verb,
    },
    host_dns::{
        self, HostDnsError, Place,
        bus::Bus,
        domains::{self, Claim},
        look::{self, Choice, Look},
        report,
    },
};

/// How long the host's own resolver may take for a name of ours; it is asked by the C library, which waits longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// `dns status`: what the agent says, what this host is like, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsStatus {
    /// What the agent says.
    pub dns: Dns,
    /// Who is to send us our names, and why him.
    pub why: String,
    /// Whom `/etc/resolv.conf` names.
    pub resolv_conf: Vec<IpAddr>,
    /// Whether `webmesh dns takeover` wrote it.
    pub is_taken: bool,
    /// Where `/etc/resolv.conf` leads, if it is a link.
    pub leads_to: Option<String>,
    /// A name of ours that the host's resolver was asked for.
    pub asked: Option<Asked>,
    /// What to do where nobody sends us our names.
    pub ways_out: String,
}

/// What the host's own resolver said to a name of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The name.
    pub name: String,
    /// What came.
    pub answer: Answer,
}

/// An answer, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Answer {
    /// The right addresses.
    Right(Vec<IpAddr>),
    /// Others.
    Wrong(Vec<IpAddr>),
    /// It said no.
    Refused(String),
    /// Nothing in time.
    Silence,
}

/// Who sets up the host's resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetUp {
    /// This very command, and it is done.
    Now,
    /// Somebody else, or nobody.
    ByOthers,
}

impl Conversation<'_> {
    pub(super) async fn dns(&self, dns: &args::Dns) -> Outcome {
        match dns {
            args::Dns::Query { name, record_type } => {
                self.dns_query(name.clone(), record_type.clone()).await
            }
            args::Dns::Status => self.dns_status().await,
            args::Dns::Takeover { undo: false } => self.take_over().await,
            args::Dns::Takeover { undo: true } => self.hand_back().await,
        }
    }

    async fn dns_query(&self, name: String, record_type: Option<String>) -> Outcome {
        let request = DnsQueryRequest {
            network: self.network(),
            name,
            record_type,
        };
        let reply = self.agent.ask(Verb::DnsQuery, &request).await?;
        self.print::<DnsQueryReply>(&reply, render::dns)?;
        let is_empty = reply.parse::<DnsQueryReply>()?.answers.is_empty();
        Ok(if is_empty { NO } else { DONE })
    }

    async fn dns_status(&self) -> Outcome {
        let dns: Dns = self.ask_names().await?;
        let place = self.place();
        let bus = Bus::of_host().await;
        let look = Look::at(&place.etc, bus.as_ref()).await;
        let Choice { mut why, .. } = look.choose();
        if let Some(report) = report::read(&place.report).filter(|_| dns.state != DnsState::Off) {
            why = report.why;
        }
        let servers = look.resolv_conf.servers.iter();
        let status = DnsStatus {
            asked: self.try_own_name(&dns).await?,
            dns,
            why,
            resolv_conf: servers.map(|server| server.address).collect(),
            is_taken: look.is_taken,
            ways_out: look::ways_out(&place.etc),
            leads_to: look.leads_to.map(|path| path.display().to_string()),
        };
        if self.common.json {
            let json = serde_json::to_string(&status).expect("it is text and addresses");
            self.screen.document(&json)?;
        } else {
            self.screen.answer(&render::dns_status(&status))?;
        }
        let is_good = status.dns.state != DnsState::NotResolving
            && status
                .asked
                .is_none_or(|asked| matches!(asked.answer, Answer::Right(_)));
        Ok(if is_good { DONE } else { NO })
    }

    /// Has the host's own resolver look this machine up, as any program would.
    async fn try_own_name(&self, dns: &Dns) -> Result<Option<Asked>, ApiError> {
        let request = StatusRequest {
            network: self.network(),
            ..StatusRequest::default()
        };
        let status: Status = self.agent.ask(Verb::Status, &request).await?.parse()?;
        let (Some(own), Some(domain)) = (&status.own, &dns.domain) else {
            return Ok(None);
        };
        // Where nobody sends us our names, asking would only tell a name of ours to somebody else's server.
        if dns.state != DnsState::Resolving {
            return Ok(None);
        }
        let ours: Vec<IpAddr> = own
            .ipv4
            .iter()
            .chain([&own.ipv6])
            .filter_map(|text| text.parse().ok())
            .collect();
        let name = format!("{}.{domain}", own.name);
        let answer = look_up(name.clone(), &ours).await;
        Ok(Some(Asked { name, answer }))
    }

    async fn take_over(&self) -> Outcome {
        self.must_be_root("dns takeover")?;
        let report = host_dns::take_over(&self.place()).await.map_err(refused)?;
        let dns: Dns = self.ask_names().await?;
        let text = match report.backend {
            DnsBackend::Forward => render::taken_over(&dns),
            DnsBackend::Resolved
            | DnsBackend::NetworkManager
            | DnsBackend::Resolvconf
            | DnsBackend::None => format!("/etc/resolv.conf is written, but {}\n", report.why),
        };
        self.tell(&dns, &text)
    }

    async fn hand_back(&self) -> Outcome {
        self.must_be_root("dns takeover")?;
        host_dns::hand_back(&self.place()).await.map_err(refused)?;
        // It is done, whether the agent runs or not.
        let dns = self.ask_names().await.unwrap_or_else(|_absent| Dns {
            domain: None,
            servers: Vec::new(),
            search: Vec::new(),
            backend: DnsBackend::None,
            state: DnsState::Off,
        });
        self.tell(&dns, "/etc/resolv.conf is what it was before.\n")
    }

    fn tell(&self, dns: &Dns, text: &str) -> Outcome {
        if self.common.json {
            let json = serde_json::to_string(dns).expect("it is text");
            self.screen.document(&json)?;
        } else {
            self.screen.answer(text)?;
        }
        Ok(DONE)
    }

    /// The hidden verb that units run. It needs no agent.
    pub(super) async fn dns_helper(&self, verb: args::DnsHelper) -> Outcome {
        self.must_be_root("dns-helper")?;
        let place = self.place();
        match verb {
            // The host belongs to its one agent; others get it set up only when somebody says so.
            args::DnsHelper::Apply if place.is_host => host_dns::apply(&place).await.map(drop),
            args::DnsHelper::Apply => Ok(()),
            args::DnsHelper::Revert => host_dns::revert(&place).await,
            args::DnsHelper::Ended => host_dns::follow_end(&place).await,
            args::DnsHelper::Takeover => host_dns::take_over(&place).await.map(drop),
        }
        .map_err(refused)?;
        Ok(DONE)
    }

    /// Does as root what the agent wishes for, before a person reads what there is. Where a unit does it too, the second
    /// finds it done.
    pub(super) async fn set_up_names(&self) -> SetUp {
        if !self.sets_up_host() {
            return SetUp::ByOthers;
        }
        if let Err(error) = host_dns::apply(&self.place()).await {
            self.say(format!("webmesh: {error}: webmesh dns status"));
        }
        SetUp::Now
    }

    /// Says what to do where nothing on the host can send us our names. Only the host's one agent is to have them.
    pub(super) fn say_no_names(&self, dns: &Dns) {
        let place = self.place();
        let line = render::no_names(dns, &look::ways_out(&place.etc));
        if let Some(line) = line.filter(|_| place.is_host) {
            self.screen.talk(&line);
        }
    }

    /// Whoever joins a network as root takes the domain that its founder chose along, and is told if it is more than the
    /// network's own name. What other programs of many hosts use is not taken along.
    pub(super) fn take_domain(&self, network: &Network) {
        let claim = domains::claim(&network.name, &network.domain);
        if claim != Claim::InUse {
            self.allow_domain(network);
        }
        if self.sets_up_host()
            && let Some(line) = render::domain_claimed(network, claim)
        {
            self.say(line);
        }
    }

    /// Whoever makes a network as root says with it that names under its domain are to be sent to the agent.
    pub(super) fn allow_domain(&self, network: &Network) {
        self.say_of_domain(|place| place.allow_domain(&network.domain));
    }

    /// Whoever leaves a network as root takes that word back.
    pub(super) fn forget_domain(&self, network: &Network) {
        self.say_of_domain(|place| place.forget_domain(&network.domain));
    }

    fn say_of_domain(&self, say: impl FnOnce(&Place) -> Result<(), HostDnsError>) {
        if !self.sets_up_host() {
            return;
        }
        if let Err(error) = say(&self.place()) {
            self.say(format!("webmesh: {error}: webmesh dns status"));
        }
    }

    /// A reply that tells how names resolve, once the host is set up.
    pub(super) async fn with_names(&self, reply: Reply) -> Result<Reply, End> {
        if self.set_up_names().await == SetUp::ByOthers {
            return Ok(reply);
        }
        // Whoever has got so far is in the network; how names resolve can be asked again.
        match self.agent.ask(Verb::DnsStatus, &self.asking()).await {
            Ok(dns) => Ok(reply.with("dns", dns.parse()?)?),
            Err(_stopped) => Ok(reply),
        }
    }

    async fn ask_names(&self) -> Result<Dns, ApiError> {
        self.agent
            .ask(Verb::DnsStatus, &self.asking())
            .await?
            .parse()
    }

    fn asking(&self) -> NetworkRequest {
        NetworkRequest {
            network: self.network(),
        }
    }

    fn place(&self) -> Place {
        let default = std::path::Path::new(DEFAULT_SOCKET);
        Place::of_socket(self.common.socket.as_deref().unwrap_or(default))
    }

    /// Whether what is typed here changes how this host resolves names: root speaks to the host's one agent.
    fn sets_up_host(&self) -> bool {
        self.place().is_host && nix::unistd::geteuid().is_root()
    }

    fn must_be_root(&self, words: &str) -> Result<(), ApiError> {
        if nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        Err(ApiError::could_not(
            Code::NeedsRoot,
            format!("{words} needs root"),
        ))
    }
}

/// A look-up of the C library, on a thread that may hang as long as it likes.
async fn look_up(name: String, ours: &[IpAddr]) -> Answer {
    use std::net::ToSocketAddrs as _;
    let (done, answered) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>());
        let _nobody_waits = done.send(found);
    });
    if let Err(error) = started {
        return Answer::Refused(error.to_string());
    }
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(Ok(mut found))) => {
            found.sort_unstable();
            found.dedup();
            let is_right = !found.is_empty() && found.iter().all(|address| ours.contains(address));
            if is_right {
                Answer::Right(found)
            } else {
                Answer::Wrong(found)
            }
        }
        Ok(Ok(Err(error))) => Answer::Refused(error.to_string()),
        Ok(Err(_)) | Err(_) => Answer::Silence,
    }
}

fn refused(error: HostDnsError) -> ApiError {
    let text = error.to_string();
    match error {
        HostDnsError::NoWish => ApiError::could_not(Code::NoNetwork, text).remedy("webmesh status"),
        HostDnsError::Needless(_) => {
            ApiError::no(Code::BadRequest, text).remedy("webmesh dns status")
        }
        HostDnsError::Off | HostDnsError::Forward => ApiError::could_not(Code::BadRequest, text)
            .remedy(
                "set mode = \"auto\" there, then sudo systemctl reload webmesh, then this again",
            ),
        HostDnsError::Wish(_)
        | HostDnsError::Device(_)
        | HostDnsError::ChangedByOthers
        | HostDnsError::Busy
        | HostDnsError::File { .. } => ApiError::could_not(Code::Internal, text),
    }
}
