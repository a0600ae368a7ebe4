//! This machine joins a network: drives [`crate::node::joiner`] over a data thread that has no device yet, and makes
//! a network of what was granted (protocol §9).

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    data_plane::JOINER,
    dht::DhtState,
    network::session_keys,
    sealing,
    starting::{self, Ground},
    state_dir::NetworkFolder,
    streams::{self, Whom},
};
use crate::{
    addr::{Path, Underlay},
    api::{ApiError, Tried},
    datapath::command::{Command, Event},
    ids::{Boot, NetworkId, NodeId, StreamIx},
    keys::Token,
    node::{
        Identity, Restored,
        input::Row,
        joiner::{Grant, Joiner, JoinerOutput, Lead, StreamTo, Wish},
        kept::Kept,
        output::{FirstContact, Remote},
    },
    paths::allowed::is_private,
    platform::{clock, monitor},
    rendezvous::{Answer, Mapping, Seen},
    time::Moment,
    wire::{
        frame::{self, Content},
        message::Refused,
        sealed::{Header, Kind},
    },
};

/// How long an issuer may be silent before a person is told (transcripts.md).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Who has not answered by then, on the LAN or at an address of the token, does not: the first call and half a second.
const ANSWERED_BY: Duration = Duration::from_millis(500);

/// When a person who sees nothing happen is told that it is being tried.
const UNEASE: Duration = Duration::from_secs(1);

/// One attempt to join.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) ground: Ground,
    joiner: Joiner,
    identity: Identity,
    token: Token,
    wish: Wish,
    folder: NetworkFolder,
    started: Moment,
    next_message: u32,
    last_stamp: u64,
    /// Which machines took streams.
    hosts: BTreeMap<StreamIx, IpAddr>,
    /// Something was said to the asker.
    has_spoken: bool,
    asker: Asker,
}

/// Who waits for it.
#[derive(Debug)]
pub(super) struct Asker {
    /// Takes lines of talk.
    pub(super) talk: mpsc::Sender<String>,
    /// Takes the outcome.
    pub(super) outcome: oneshot::Sender<Result<Joined, ApiError>>,
}

/// This machine is in; its first round with the issuer is still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) issuer: NodeId,
    /// Who brought this machine and the issuer together, if somebody did.
    pub(super) introducer: Option<NodeId>,
}

/// What a join needs to begin.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) ground: Ground,
    pub(super) folder: NetworkFolder,
    pub(super) token: Token,
    pub(super) wish: Wish,
    pub(super) asker: Asker,
}

/// How a join ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Membership was granted, stored, and is to be taken up.
    Granted(Box<Admitted>),
    /// It was not; the asker has been told.
    Not,
}

/// What a network is made of after a grant.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) network: NetworkId,
    pub(super) issuer: NodeId,
    pub(super) endpoint: Path,
    /// Which machine took the stream that is the endpoint.
    pub(super) host: Option<IpAddr>,
    /// The issuer was found by the DHT.
    pub(super) by_dht: bool,
    /// The member that brought both together; the endpoint is its.
    pub(super) introducer: Option<NodeId>,
    /// The run of the join, which goes on as a member: who saw the Join would take another for a restart.
    pub(super) boot: Boot,
    pub(super) folder: NetworkFolder,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
    pub(super) asker: Asker,
}

impl Joining {
    /// Begins; the first datagrams leave at once.
    pub(super) fn begin(beginning: Beginning) -> Self {
        let now = clock::now();
        let identity = starting::identity_of(&beginning.folder.identity, sealing::draw_boot());
        let mut joiner = Joiner::new(
            now,
            beginning.token.clone(),
            identity.clone(),
            beginning.wish.clone(),
        );
        if beginning.ground.dht.is_on() {
            let interfaces = monitor::default_route_addresses(beginning.ground.port, None);
            joiner.use_dht(sealing::draw(), &interfaces.unwrap_or_default());
        }
        Self {
            ground: beginning.ground,
            joiner,
            identity,
            token: beginning.token,
            wish: beginning.wish,
            folder: beginning.folder,
            started: now.at,
            next_message: 0,
            last_stamp: 0,
            hosts: BTreeMap::new(),
            has_spoken: false,
            asker: beginning.asker,
        }
    }

    /// The issuer's name, as the token has it.
    pub(super) fn issuer_name(&self) -> &str {
        &self.token.name
    }

    /// When to call [`Joining::on_deadline`] next.
    pub(super) fn poll_timeout(&self) -> Moment {
        let patience = match self.has_spoken {
            true => self.started.after(PATIENCE),
            false => self.started.after(UNEASE),
        };
        self.joiner
            .poll_timeout()
            .map_or(patience, |next| next.min(patience))
    }

    /// Lets the joiner act on its deadlines.
    pub(super) fn on_deadline(&mut self) {
        self.joiner.handle_timeout(clock::now());
    }

    /// Takes in what the DHT answered.
    pub(super) fn on_slot_answer(&mut self, answer: Answer) {
        self.joiner.handle_slot_answer(clock::now(), answer);
    }

    /// Takes in what happened on the TLS streams. Nobody may begin one here yet: who asks is not answered.
    pub(super) fn on_stream_news(&mut self, news: &streams::News) {
        if let streams::News::Opened {
            whom: Whom::Joining(to),
            stream,
            host,
        } = news
        {
            self.hosts.extend(host.map(|host| (*stream, host)));
            self.joiner.handle_stream(clock::now(), *stream, *to);
        }
    }

    /// Takes in what the data thread told.
    pub(super) fn on_event(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Up {
                session, endpoint, ..
            } if session == JOINER => self.joiner.handle_up(now, endpoint),
            Event::Down { session } if session == JOINER => self.joiner.handle_down(now),
            Event::Control {
                session,
                source,
                frame,
            } if session == JOINER => {
                if let Ok(frame) = frame::decode(&frame)
                    && let Content::Known(message) = frame.content
                {
                    self.joiner.handle_message(now, source, message);
                }
            }
            Event::Dht { source, bytes } => self.joiner.handle_dht(now, source, &bytes),
            Event::Sealed { source, bytes } => {
                if let Some(source) = source.direct()
                    && sealing::is_punch(&self.token.secret, &bytes)
                {
                    self.joiner.handle_punch(now, source);
                }
            }
            Event::Handed { hand, bytes } => self.joiner.handle_handed(hand, bytes),
            Event::Foreign { .. }
            | Event::Up { .. }
            | Event::Down { .. }
            | Event::Control { .. }
            | Event::Wanted { .. }
            | Event::NewPath { .. }
            | Event::Elsewhere { .. }
            | Event::Unheard { .. }
            | Event::Resent { .. }
            | Event::NeedsKnock { .. }
            | Event::Transport { .. }
            | Event::Door { .. }
            | Event::Leg { .. }
            | Event::Way { .. }
            | Event::WayOver { .. }
            | Event::TunLost { .. } => {}
        }
    }

    /// Carries out what the joiner wants. Gives itself back unless it is over.
    pub(super) fn drain(mut self: Box<Self>) -> Result<Box<Self>, Ended> {
        while let Some(output) = self.joiner.poll_output() {
            match output {
                JoinerOutput::Dial { to, stamp } => self.dial(&to, stamp),
                JoinerOutput::Call { stamp } => self.call(stamp),
                JoinerOutput::Send { message, via } => {
                    self.next_message += 1;
                    self.ground.data.tell(Command::Send {
                        session: JOINER,
                        frame: frame::encode(&message, self.next_message),
                        via,
                    });
                }
                JoinerOutput::OpenStream { to, at } => self.open_stream(to, at),
                JoinerOutput::Close => self.ground.data.tell(Command::Close { session: JOINER }),
                JoinerOutput::Slot(ask) => self.ground.dht.ask(ask),
                JoinerOutput::Introduce { to, datagram } => {
                    let sealed = sealing::seal_introduce(&self.token.secret, datagram);
                    if let Some(bytes) = sealed {
                        self.ground.data.tell(Command::Datagram { to, bytes });
                    }
                }
                JoinerOutput::Datagram { to, bytes } => {
                    let to = Path::Direct(to);
                    self.ground.data.tell(Command::Datagram { to, bytes });
                }
                JoinerOutput::Reached {
                    endpoint,
                    lead,
                    after,
                } => {
                    let line = self.found(endpoint, lead, after);
                    self.say(line);
                }
                JoinerOutput::Granted(grant) => return Err(self.store(*grant)),
                JoinerOutput::Refused(refused) => {
                    let error = self.refusal(&refused);
                    return Err(self.end(error));
                }
            }
        }
        if self.asker.outcome.is_closed() {
            self.ground.data.stop();
            return Err(Ended::Not);
        }
        let waited = clock::moment().since(self.started);
        if !self.has_spoken && waited >= UNEASE {
            let line = self.looking();
            self.say(line);
        }
        if waited >= PATIENCE {
            let error = self.silence();
            return Err(self.end(error));
        }
        Ok(self)
    }

    /// Gives up because the agent stops.
    pub(super) fn abandon(self) {
        self.end(ApiError::internal("the agent stops"));
    }

    fn say(&mut self, line: String) {
        self.has_spoken = true;
        let _nobody_reads = self.asker.talk.try_send(line);
    }

    fn looking(&self) -> String {
        format!(
            "Looking for {}: no answer yet from {}; trying for {} s",
            self.token.name,
            self.ways().join(" · "),
            PATIENCE.as_secs()
        )
    }

    /// Where it is looked for, in words.
    fn ways(&self) -> Vec<String> {
        let lan = self.ground.lan.is_somewhere().then(|| "LAN".to_owned());
        let hints = self.token.hints.iter().map(ToString::to_string);
        let dht = self.ground.dht.is_on().then(|| "DHT".to_owned());
        lan.into_iter().chain(hints).chain(dht).collect()
    }

    fn found(&self, endpoint: Path, lead: Lead, after: Duration) -> String {
        let (issuer, took) = (&self.token.name, after.as_millis());
        let address = endpoint.direct();
        let is_hint = address.is_some_and(|address| self.token.hints.contains(&address));
        let is_near = address.is_some_and(|address| self.ground.lan.has_neighbour(address.ip()));
        if is_near && !is_hint {
            return format!("Looking for {issuer}: LAN yes, {took} ms");
        }
        let lan_is_silent = self.ground.lan.is_somewhere() && !is_near && after >= ANSWERED_BY;
        let lan = if lan_is_silent { "LAN no · " } else { "" };
        let before = self
            .token
            .hints
            .iter()
            .take_while(|hint| Path::Direct(**hint) != endpoint);
        // All were dialled at once: who was merely slower than another is not silent.
        let before = before.filter(|_| after >= ANSWERED_BY);
        let silent: String = before.map(|hint| format!("{hint} no · ")).collect();
        let way = match (lead, endpoint) {
            (Lead::Hint, Path::Stream(_)) => "TLS".to_owned(),
            (Lead::Hint, _) => endpoint.to_string(),
            (Lead::Dht, _) => "meeting through the DHT …".to_owned(),
        };
        let how = match lead {
            Lead::Hint => "",
            Lead::Dht => ", direct",
        };
        format!("Looking for {issuer}: {lan}{silent}{way} yes, {took} ms{how}")
    }

    /// Whoever made the invite may be a neighbour, under an address that its token does not know.
    fn call(&mut self, stamp: u64) {
        self.ground.lan.look(None);
        let join = sealing::seal_first(&self.identity, &[0; 32], &self.first(stamp));
        self.ground.lan.say(&join);
    }

    fn open_stream(&mut self, to: StreamTo, at: Vec<Underlay>) {
        let secret = &self.token.secret;
        let (kind, key) = match to {
            StreamTo::Issuer => (Kind::Join, secret.join_key()),
            StreamTo::Member => (Kind::Introduce, secret.introduce_key()),
        };
        let header = Header {
            kind,
            epoch: 0,
            hint: secret.join_id().0,
        };
        self.ground.streams.dial(streams::Dial {
            whom: Whom::Joining(to),
            to: at,
            header,
            key,
        });
    }

    fn first(&self, stamp: u64) -> FirstContact {
        FirstContact::Join {
            invite: self.token.secret.clone(),
            issuer: self.token.issuer,
            stamp,
        }
    }

    fn dial(&mut self, to: &[Path], stamp: u64) {
        self.last_stamp = stamp;
        let first = self.first(stamp);
        let remote = Remote {
            tunnel: self.token.issuer,
            psk: self.token.secret.psk(),
        };
        let sealed = |address: &Path| {
            (
                *address,
                sealing::seal_first(&self.identity, &[0; 32], &first),
            )
        };
        self.ground.data.tell(Command::Initiate {
            session: JOINER,
            keys: session_keys(&self.identity, &remote),
            to: to.iter().map(sealed).collect(),
        });
    }

    /// Writes the grant down, all of it fsynced, before anything is made of it.
    fn store(mut self, grant: Grant) -> Ended {
        // What else was dialled on the way was for the join alone.
        let kept = match grant.endpoint {
            Path::Stream(stream) => Some(stream),
            Path::Direct(_) | Path::Relay(_) | Path::Handed(_) => None,
        };
        self.ground.streams.end_all_but(kept);
        let mut folder = self.folder;
        let own_row = Row {
            node: self.identity.key.id(),
            stamp: self.last_stamp,
            boot: self.identity.boot,
            last_session_s: 0,
        };
        let stored = || -> std::io::Result<()> {
            for record in &grant.records {
                folder
                    .records
                    .append(record.slot(), record.bytes(), "join-record")?;
            }
            folder.records.sync()?;
            folder.rows.write(own_row)?;
            folder.store_kept(&Kept::default(), "join-state")
        };
        match { stored }() {
            Ok(()) => Ended::Granted(Box::new(Admitted {
                network: grant.network,
                issuer: grant.issuer,
                endpoint: grant.endpoint,
                host: kept.and_then(|stream| self.hosts.get(&stream).copied()),
                by_dht: grant.lead == Lead::Dht,
                introducer: grant.introducer,
                boot: self.identity.boot,
                folder,
                restored: Restored {
                    records: grant.records,
                    rows: vec![own_row],
                    kept: Kept::default(),
                },
                ground: self.ground,
                asker: self.asker,
            })),
            Err(error) => {
                self.ground.data.stop();
                let error = ApiError::internal(format!("the membership cannot be stored: {error}"));
                let _asker_gone = self.asker.outcome.send(Err(error));
                Ended::Not
            }
        }
    }

    fn end(self, error: ApiError) -> Ended {
        self.ground.data.stop();
        let _asker_gone = self.asker.outcome.send(Err(error));
        Ended::Not
    }

    fn refusal(&self, refused: &Refused) -> ApiError {
        let now = clock::now().unix_s();
        let issuer = &self.token.name;
        let name = refused.name.as_deref().unwrap_or("another machine");
        let time = refused.time.unwrap_or(now);
        match refused.code {
            1 => ApiError::invite_used(name, now.saturating_sub(time), issuer),
            2 => ApiError::invite_cancelled(time, now, issuer),
            3 => ApiError::invite_expired(time, now, issuer),
            4 => {
                let network = self.joiner.network().map(|network| network.name);
                let name = refused.name.as_deref().unwrap_or(&self.wish.name);
                ApiError::name_taken(name, network.as_deref())
            }
            5 => match self.joiner.network() {
                Some(network) => {
                    let pool = network.pool4.to_string();
                    ApiError::no_ipv4(Some((&network.name, &pool)))
                }
                None => ApiError::no_ipv4(None),
            },
            _ => ApiError::busy(issuer),
        }
    }

    fn silence(&self) -> ApiError {
        let now = clock::now().unix_s();
        let until = u64::from(self.token.expires);
        if until <= now {
            return ApiError::invite_expired(until, now, &self.token.name);
        }
        if self.joiner.was_disbelieved() {
            return ApiError::grant_unproven(&self.token.name);
        }
        let is_online = monitor::default_route_addresses(self.ground.port, None)
            .map_or(true, |addresses| !addresses.is_empty());
        let tried = Tried {
            ways: self.ways(),
            here: match (is_online, self.ground.dht.is_on()) {
                (false, _) => Some("This machine has no address in any network.".to_owned()),
                (true, true) => Some(here(self.joiner.seen(), &self.ground.dht.state())),
                (true, false) => unfindable(&self.token.hints),
            },
        };
        ApiError::issuer_silent(&self.token.name, PATIENCE.as_secs(), &tried, until, now)
    }
}

/// Where the token and no DHT lead nowhere but into the issuer's LAN.
fn unfindable(hints: &[Underlay]) -> Option<String> {
    let is_near = hints.iter().all(|hint| is_private(hint.ip()));
    is_near.then(|| {
        "The token has only addresses of her LAN, and the DHT is off here (webmesh daemon --config packaging/config.toml): from elsewhere she cannot be found."
            .to_owned()
    })
}

/// What the DHT taught of this machine's own way out.
fn here(seen: Option<&Seen>, state: &DhtState) -> String {
    let said = match (seen.map(|seen| seen.mapping), state) {
        (Some(Mapping::PerDestination), _) => {
            "Here UDP gets out, this NAT gives a new port per destination; if hers does too, a machine with a public address must join first."
        }
        (Some(Mapping::One | Mapping::Unknown), _) => {
            "Here UDP gets out; if her NAT gives a new port per destination (webmesh netcheck there), a machine with a public address must join first."
        }
        (None, DhtState::Unreachable(why)) => {
            return format!("Here the DHT could not be entered: {why}.");
        }
        (None, DhtState::Off(_) | DhtState::Idle | DhtState::InUse) => {
            "Here no node of the DHT answered: is UDP blocked?"
        }
    };
    said.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_leads_into_a_lan_alone_is_said_to() {
        let hints = |texts: &[&str]| -> Vec<Underlay> {
            let all = texts
                .iter()
                .map(|text| Underlay::new(text.parse().unwrap()));
            all.collect()
        };
        let said = unfindable(&hints(&["192.168.1.2:41820"])).unwrap();
        assert!(
            said.starts_with("The token has only addresses of her LAN, and the DHT is off here")
        );
        let with_public = ["192.168.1.2:41820", "203.0.113.9:41820"];
        assert_eq!(unfindable(&hints(&with_public)), None);
    }

    #[test]
    fn the_own_nat_and_hers_are_named_as_far_as_they_are_known() {
        let seen = |mapping| Seen {
            addresses: Vec::new(),
            mapping,
        };
        let said = here(Some(&seen(Mapping::PerDestination)), &DhtState::InUse);
        assert!(
            said.contains("this NAT gives a new port per destination"),
            "{said}"
        );
        let said = here(Some(&seen(Mapping::One)), &DhtState::InUse);
        assert!(said.contains("if her NAT gives a new port"), "{said}");
    }
}
