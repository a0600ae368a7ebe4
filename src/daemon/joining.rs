//! This machine joins a network: drives [`crate::node::joiner`] over a data thread that has no device yet, and makes
//! a network of what was granted (protocol §9).

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{
    data_plane::JOINER,
    network::session_keys,
    sealing,
    starting::{self, Ground},
    state_dir::NetworkFolder,
};
use crate::{
    addr::Underlay,
    api::{ApiError, Tried},
    datapath::command::{Command, Event},
    ids::{NetworkId, NodeId},
    keys::Token,
    node::{
        Identity, Restored,
        input::Row,
        joiner::{Grant, Joiner, JoinerOutput, Wish},
        kept::Kept,
        output::{FirstContact, Remote},
    },
    platform::clock,
    time::Moment,
    wire::{
        frame::{self, Content},
        message::Refused,
    },
};

/// How long an issuer may be silent before a person is told (transcripts.md).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

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
    pub(super) endpoint: Underlay,
    pub(super) folder: NetworkFolder,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
    pub(super) asker: Asker,
}

impl Joining {
    /// Begins; the first datagrams leave at once.
    pub(super) fn begin(beginning: Beginning) -> Self {
        let now = clock::now();
        let identity = starting::identity_of(&beginning.folder.identity);
        let joiner = Joiner::new(
            now,
            beginning.token.clone(),
            identity.clone(),
            beginning.wish.clone(),
        );
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
            Event::Sealed { .. }
            | Event::Foreign { .. }
            | Event::Up { .. }
            | Event::Down { .. }
            | Event::Control { .. }
            | Event::Wanted { .. }
            | Event::NewPath { .. }
            | Event::NeedsKnock { .. }
            | Event::Door { .. }
            | Event::TunLost { .. } => {}
        }
    }

    /// Carries out what the joiner wants. Gives itself back unless it is over.
    pub(super) fn drain(mut self: Box<Self>) -> Result<Box<Self>, Ended> {
        while let Some(output) = self.joiner.poll_output() {
            match output {
                JoinerOutput::Dial { to, stamp } => self.dial(&to, stamp),
                JoinerOutput::Send { message, via } => {
                    self.next_message += 1;
                    self.ground.data.tell(Command::Send {
                        session: JOINER,
                        frame: frame::encode(&message, self.next_message),
                        via,
                    });
                }
                JoinerOutput::Close => self.ground.data.tell(Command::Close { session: JOINER }),
                JoinerOutput::Reached { endpoint, after } => {
                    let line = self.found(endpoint, after);
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
        let ways: Vec<String> = self.token.hints.iter().map(ToString::to_string).collect();
        format!(
            "Looking for {}: no answer yet from {}; trying for {} s",
            self.token.name,
            ways.join(" · "),
            PATIENCE.as_secs()
        )
    }

    fn found(&self, endpoint: Underlay, after: Duration) -> String {
        let before = self
            .token
            .hints
            .iter()
            .take_while(|hint| **hint != endpoint);
        let silent: String = before.map(|hint| format!("{hint} no · ")).collect();
        let issuer = &self.token.name;
        format!(
            "Looking for {issuer}: {silent}{endpoint} yes, {} ms",
            after.as_millis()
        )
    }

    fn dial(&mut self, to: &[Underlay], stamp: u64) {
        self.last_stamp = stamp;
        let first = FirstContact::Join {
            invite: self.token.secret.clone(),
            issuer: self.token.issuer,
            stamp,
        };
        let remote = Remote {
            tunnel: self.token.issuer,
            psk: self.token.secret.psk(),
        };
        let sealed = |address: &Underlay| {
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
    fn store(self, grant: Grant) -> Ended {
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
        let tried = Tried {
            ways: self.token.hints.iter().map(ToString::to_string).collect(),
            here: None,
        };
        ApiError::issuer_silent(&self.token.name, PATIENCE.as_secs(), &tried, until, now)
    }
}
