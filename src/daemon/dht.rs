//! The Mainline DHT behind [`crate::rendezvous`]: a client that is started for the job and stopped after it.
//!
//! Knows how the DHT is entered, and what the crate must not do by itself: look up the hosts that are written in it, take a
//! fixed port, become a server. Refuses to know what is asked and why.

use std::{net::SocketAddrV4, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use mainline::{MutableItem, SigningKey, async_dht::AsyncDht, errors::PutMutableError};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::tasks::{self, Task};
use crate::{
    addr::Underlay,
    config::{EntryPoint, Rendezvous},
    rendezvous::{Answer, Ask, Item, PutOutcome},
};

/// Questions that wait; a core asks far fewer.
const WAITING: usize = 256;

/// How long a question may take. The DHT answers in a few seconds or not at all.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long the host's resolver may take.
const LOOK_UP: Duration = Duration::from_secs(4);

/// A client that is asked nothing is stopped: it wakes 20 times a second. Longer than the rounds of a watcher.
const IDLE: Duration = Duration::from_secs(90);

/// A client this old is made anew: after 15 min the crate may turn it into a server.
const LIFE: Duration = Duration::from_secs(600);

/// How long after a client could not be started the next is; doubles up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Nodes that are told, and that the next client begins with.
const NODES: usize = 32;

/// Nodes in a table that has begun to fill, and how often it is looked at until then.
const ENOUGH: usize = 4;
const TABLE_LOOK: Duration = Duration::from_millis(100);

/// How long newer values are waited for once one was found: a whole search waits for every dead node, 2 s for each.
const NEWER: Duration = Duration::from_secs(1);

/// How the DHT stands on this host, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DhtState {
    /// It is not used; why.
    Off(&'static str),
    /// Nothing is asked of it.
    Idle,
    /// A client runs.
    InUse,
    /// It could not be entered; why.
    Unreachable(String),
}

/// The way to the DHT.
#[derive(Debug)]
pub(super) struct Dht {
    settings: watch::Sender<Rendezvous>,
    asks: mpsc::Sender<Ask>,
    answers: mpsc::Receiver<Answer>,
    state: watch::Receiver<DhtState>,
    _task: Task,
}

impl Dht {
    /// Nothing is sent before something is asked.
    pub(super) fn start(settings: &Rendezvous) -> Self {
        let (settings, read_settings) = watch::channel(settings.clone());
        let (asks, asked) = mpsc::channel(WAITING);
        let (told, answers) = mpsc::channel(WAITING);
        let (tell_state, state) = watch::channel(DhtState::Idle);
        let desk = Desk {
            settings: read_settings,
            state: tell_state,
            client: None,
            known: Vec::new(),
            failed: None,
        };
        Self {
            settings,
            asks,
            answers,
            state,
            _task: tasks::spawn("dht", desk.work(asked, told)),
        }
    }

    /// Whether it may be used at all.
    pub(super) fn is_on(&self) -> bool {
        off(&self.settings.borrow()).is_none()
    }

    /// The configuration was read again.
    pub(super) fn configure(&self, settings: &Rendezvous) {
        self.settings.send_if_modified(|had| {
            let is_new = had != settings;
            had.clone_from(settings);
            is_new
        });
    }

    /// How it stands.
    pub(super) fn state(&self) -> DhtState {
        match off(&self.settings.borrow()) {
            Some(why) => DhtState::Off(why),
            None => self.state.borrow().clone(),
        }
    }

    /// Asks; the answer comes by [`Self::answer`]. A question too many is as one that got none.
    pub(super) fn ask(&self, ask: Ask) {
        let _too_many = self.asks.try_send(ask);
    }

    /// Waits for an answer. May be dropped and called again without losing anything.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

fn off(settings: &Rendezvous) -> Option<&'static str> {
    if !settings.dht {
        Some("rendezvous.dht is false in the configuration")
    } else if settings.dht_bootstrap.is_empty() {
        Some("the configuration names no rendezvous.dht_bootstrap")
    } else {
        None
    }
}

/// The task's own things.
struct Desk {
    settings: watch::Receiver<Rendezvous>,
    state: watch::Sender<DhtState>,
    client: Option<Client>,
    /// Nodes of the last client's table.
    known: Vec<SocketAddrV4>,
    failed: Option<Failed>,
}

/// The last client could not be started.
struct Failed {
    next: Instant,
    waited: Duration,
}

struct Client {
    dht: AsyncDht,
    born: Instant,
}

impl Desk {
    async fn work(mut self, mut asked: mpsc::Receiver<Ask>, told: mpsc::Sender<Answer>) {
        let mut jobs = FuturesUnordered::new();
        let mut idle_at = Instant::now() + IDLE;
        loop {
            let is_idle = self.client.is_some() && jobs.is_empty();
            tokio::select! {
                ask = asked.recv() => {
                    let Some(ask) = ask else { return };
                    let dht = self.client().await;
                    jobs.push(carry_out(dht, ask));
                }
                Some(answer) = jobs.next() => {
                    if let Answer::Nodes(nodes) = &answer {
                        self.remember(nodes);
                    }
                    if told.send(answer).await.is_err() {
                        return;
                    }
                    idle_at = Instant::now() + IDLE;
                }
                () = sleep_until(idle_at), if is_idle => self.stop(),
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.stop();
                    self.known.clear();
                    self.failed = None;
                }
            }
        }
    }

    /// The client that runs, or a fresh one.
    async fn client(&mut self) -> Option<AsyncDht> {
        let is_old = |client: &Client| client.born.elapsed() >= LIFE;
        if self.client.as_ref().is_some_and(is_old) {
            self.stop();
        }
        let is_too_early = |failed: &Failed| failed.next > Instant::now();
        if self.client.is_none() && !self.failed.as_ref().is_some_and(is_too_early) {
            match self.begin().await {
                Ok(client) => {
                    self.state.send_replace(DhtState::InUse);
                    self.client = Some(client);
                    self.failed = None;
                }
                Err(why) => self.note_failure(why),
            }
        }
        self.client.as_ref().map(|client| client.dht.clone())
    }

    fn note_failure(&mut self, why: String) {
        let waited = self
            .failed
            .as_ref()
            .map_or(AGAIN, |failed| (failed.waited * 2).min(AGAIN_MAX));
        if self.failed.is_none() {
            tracing::info!(why, "The DHT cannot be entered");
        }
        self.failed = Some(Failed {
            next: Instant::now() + waited,
            waited,
        });
        self.state.send_replace(DhtState::Unreachable(why));
    }

    async fn begin(&self) -> Result<Client, String> {
        let settings = self.settings.borrow().clone();
        if let Some(why) = off(&settings) {
            return Err(why.to_owned());
        }
        let mut entries = look_up(&settings.dht_bootstrap).await;
        let found = entries.len();
        entries.extend(&self.known);
        if entries.is_empty() {
            return Err(match settings.dht_bootstrap.first() {
                Some(first) => format!("{} is not found", first.as_str()),
                None => "no entry point is named".to_owned(),
            });
        }
        // Making it blocks until its thread answers; the thread waits on its socket, 50 ms at a time. Whatever it panics over
        // must not take the agent with it.
        let made = tokio::task::spawn_blocking(move || {
            mainline::Dht::builder()
                .no_bootstrap()
                .extra_bootstrap(&entries)
                .port(0)
                .build()
        });
        let dht = match made.await {
            Ok(Ok(dht)) => dht.as_async(),
            Ok(Err(error)) => return Err(format!("no socket for it: {error}")),
            Err(_panicked) => return Err("its client failed".to_owned()),
        };
        tracing::info!(entries = found, "The DHT is in use");
        Ok(Client {
            dht,
            born: Instant::now(),
        })
    }

    /// Lets the client go; questions under way keep it until they are answered.
    fn stop(&mut self) {
        if self.client.take().is_some() {
            tracing::info!("The DHT is not in use any more");
        }
        self.state.send_replace(DhtState::Idle);
    }

    fn remember(&mut self, nodes: &[Underlay]) {
        let v4 = |node: &Underlay| match node.socket() {
            std::net::SocketAddr::V4(node) => Some(node),
            std::net::SocketAddr::V6(_) => None,
        };
        if !nodes.is_empty() {
            self.known = nodes.iter().filter_map(v4).take(NODES).collect();
        }
    }
}

/// The addresses of the entry points. The host's resolver is asked by us, so that the crate never asks for those written in
/// it; the DHT we use is IPv4's alone.
async fn look_up(entries: &[EntryPoint]) -> Vec<SocketAddrV4> {
    let each = entries.iter().map(|entry| async move {
        match timeout(LOOK_UP, tokio::net::lookup_host(entry.as_str())).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    });
    let found = join_all(each).await.into_iter().flatten();
    let v4 = found.filter_map(|address| match address {
        std::net::SocketAddr::V4(v4) => Some(v4),
        std::net::SocketAddr::V6(_) => None,
    });
    v4.collect()
}

/// Asks the DHT. Whatever goes wrong is an answer too: nothing was found, nothing was put.
async fn carry_out(dht: Option<AsyncDht>, ask: Ask) -> Answer {
    let nothing = match &ask {
        Ask::Get { slot, .. } => Answer::Got {
            slot: *slot,
            item: None,
        },
        Ask::Put { slot, .. } => Answer::Put {
            slot: *slot,
            outcome: PutOutcome::Failed,
        },
        Ask::Nodes => Answer::Nodes(Vec::new()),
    };
    let Some(dht) = dht else { return nothing };
    // The crate panics where its thread is gone.
    let answered = AssertUnwindSafe(answer(&dht, ask)).catch_unwind();
    match timeout(2 * PATIENCE, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => nothing,
    }
}

async fn answer(dht: &AsyncDht, ask: Ask) -> Answer {
    match ask {
        Ask::Get { slot, key } => Answer::Got {
            slot,
            item: newest(dht, &key).await,
        },
        Ask::Put {
            slot,
            seed,
            value,
            seq,
            cas,
        } => {
            let put = put(dht, &seed, &value, (seq, cas));
            let outcome = timeout(PATIENCE, put).await;
            Answer::Put {
                slot,
                outcome: outcome.unwrap_or(PutOutcome::Failed),
            }
        }
        Ask::Nodes => Answer::Nodes(nodes(dht).await),
    }
}

/// The newest value that was found in time: nodes may hold older ones.
async fn newest(dht: &AsyncDht, key: &[u8; 32]) -> Option<Item> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut items = dht.get_mutable(key, None, None);
    let mut newest: Option<Item> = None;
    while let Ok(Some(item)) = timeout_at(deadline, items.next()).await {
        deadline = deadline.min(Instant::now() + NEWER);
        let Ok(seq) = u64::try_from(item.seq()) else {
            continue;
        };
        if newest.as_ref().is_none_or(|had| had.seq < seq) {
            let value = item.value().to_vec();
            newest = Some(Item { seq, value });
        }
    }
    newest
}

async fn put(
    dht: &AsyncDht,
    seed: &[u8; 32],
    value: &[u8],
    (seq, cas): (u64, Option<u64>),
) -> PutOutcome {
    let Ok(seq) = i64::try_from(seq) else {
        return PutOutcome::Failed;
    };
    let cas = cas.and_then(|cas| i64::try_from(cas).ok());
    let item = MutableItem::new(SigningKey::from_bytes(seed), value, seq, None);
    match dht.put_mutable(item, cas).await {
        Ok(_) => PutOutcome::Done,
        Err(PutMutableError::Concurrency(_)) => PutOutcome::Conflict,
        Err(PutMutableError::Query(_)) => PutOutcome::Failed,
    }
}

/// Nodes that have answered this client.
async fn nodes(dht: &AsyncDht) -> Vec<Underlay> {
    let deadline = Instant::now() + PATIENCE;
    let mut table = dht.to_bootstrap().await;
    // Nothing tells when the table has grown; waiting until it is full takes seconds.
    while table.len() < ENOUGH && Instant::now() < deadline {
        sleep(TABLE_LOOK).await;
        table = dht.to_bootstrap().await;
    }
    let nodes = table.iter().filter_map(|node| node.parse().ok());
    nodes.map(Underlay::new).take(NODES).collect()
}
