//! TLS streams to other agents, for machines whose UDP goes nowhere (protocol §1, review-security S18): a listener where
//! this peer is dialable, and dialling where nothing else answers.
//!
//! Knows TLS, the preamble and how datagrams are framed. Refuses to know what they are: the data thread takes them in as
//! from any other path, and WireGuard proves who sent them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

use super::tasks::{self, Task};
use crate::{
    addr::Underlay,
    datapath::{Teller, command::Command},
    ids::{PeerIx, StreamIx},
    node::joiner::StreamTo,
    wire::{
        sealed::Header,
        stream::{BINDING, Preamble},
    },
};

mod client;
mod pump;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use server::Door;

/// News that wait for the loop.
const NEWS: usize = 64;

/// All streams of a network, and the listener.
pub(super) struct Streams {
    shared: Shared,
    news: mpsc::Receiver<News>,
    over: mpsc::UnboundedReceiver<StreamIx>,
    tls: Arc<ClientConfig>,
    door: Door,
    /// Where it listens; the streams that others began end with their listener.
    listeners: BTreeMap<SocketAddr, Task>,
    /// Those that the service manager opened, at all addresses of the host.
    handed: Vec<Task>,
    /// At which addresses streams are taken: those of the mesh are not among them.
    reached_at: watch::Sender<BTreeSet<IpAddr>>,
    dialled: BTreeMap<StreamIx, Task>,
}

/// Without what rustls does not show.
impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("listeners", &self.listeners)
            .field("handed", &self.handed)
            .field("dialled", &self.dialled)
            .finish_non_exhaustive()
    }
}

/// What every task of this room has.
#[derive(Clone, Debug)]
struct Shared {
    teller: Teller,
    news: mpsc::Sender<News>,
    /// The streams that are over: as many as stood, and said without waiting.
    over: mpsc::UnboundedSender<StreamIx>,
    numbers: Arc<AtomicU32>,
}

/// A stream that stands or may come to stand. However it ends, be it with its listener, the data thread and the loop hear of it.
#[derive(Debug)]
struct Standing {
    number: StreamIx,
    /// Whether anybody may have heard of it: nobody needs to know that a stranger is gone.
    is_known: bool,
    shared: Shared,
}

impl Drop for Standing {
    fn drop(&mut self) {
        let stream = self.number;
        if !self.is_known {
            return;
        }
        self.shared.teller.send(Command::CloseStream { stream });
        let _loop_is_over = self.shared.over.send(stream);
    }
}

/// What happened on the streams.
#[derive(Debug)]
pub(super) enum News {
    /// Somebody begins a stream here: is he one of ours?
    Judge {
        /// Its number, if he is.
        stream: StreamIx,
        /// From where.
        from: Underlay,
        /// What he said.
        preamble: Preamble,
        /// What his mac must be bound to.
        binding: [u8; BINDING],
        /// Yes or no.
        verdict: oneshot::Sender<Verdict>,
    },
    /// A stream that was asked for stands.
    Opened {
        /// To whom.
        whom: Whom,
        /// Its number.
        stream: StreamIx,
        /// Which machine took it, if the kernel says.
        host: Option<IpAddr>,
    },
    /// A stream that was asked for cannot be had.
    Failed {
        /// To whom.
        whom: Whom,
        /// Its number.
        stream: StreamIx,
    },
    /// A stream that stood is over.
    Closed {
        /// Its number.
        stream: StreamIx,
    },
}

/// Whether a preamble is by somebody who has one of our secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Ours,
    /// It is not, or nobody can say.
    Stranger,
}

/// To whom a stream leads that this machine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// A member of the network.
    Peer(PeerIx),
    /// Nobody numbers peers yet, since this machine is about to join.
    Joining(StreamTo),
}

/// Whom to dial, and what to say first.
#[derive(Clone)]
pub(super) struct Dial {
    /// Whom.
    pub(super) whom: Whom,
    /// Tried in this order, each a little after the one before.
    pub(super) to: Vec<Underlay>,
    /// Under whose key.
    pub(super) header: Header,
    /// That key.
    pub(super) key: [u8; 32],
}

/// Without the key.
impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial")
            .field("whom", &self.whom)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// No stream yet. Of what was `opened` beforehand, nothing is taken before [`Self::listen`] says where.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new(teller: Teller, opened: Vec<TcpListener>) -> io::Result<Self> {
        let (sender, news) = mpsc::channel(NEWS);
        let (over_sender, over) = mpsc::unbounded_channel();
        let shared = Shared {
            teller,
            news: sender,
            over: over_sender,
            numbers: Arc::default(),
        };
        let door = Door::new(tls::acceptor()?);
        let (reached_at, listened_at) = watch::channel(BTreeSet::new());
        let mut handed = Vec::new();
        for listener in opened {
            let at = listened_at.clone();
            let serving = server::take(listener, at, door.clone(), shared.clone())?;
            handed.push(tasks::spawn("streams", serving));
        }
        Ok(Self {
            shared,
            news,
            over,
            tls: tls::client()?,
            door,
            listeners: BTreeMap::new(),
            handed,
            reached_at,
            dialled: BTreeMap::new(),
        })
    }

    /// Listens at these addresses and no others. Where it does so already, nothing changes.
    ///
    /// # Errors
    /// The first that cannot be had; the others are tried all the same.
    pub(super) fn listen(&mut self, addresses: &[Underlay]) -> io::Result<()> {
        let wanted: BTreeSet<SocketAddr> = addresses.iter().map(|at| at.socket()).collect();
        self.listeners.retain(|at, _| wanted.contains(at));
        self.reached_at.send_if_modified(|reached_at| {
            let ips = wanted.iter().map(SocketAddr::ip).collect();
            std::mem::replace(reached_at, ips) != *reached_at
        });
        let mut outcome = Ok(());
        for at in wanted {
            if !self.listeners.contains_key(&at) {
                match server::listen(at, self.door.clone(), self.shared.clone()) {
                    Ok(serving) => {
                        self.listeners.insert(at, tasks::spawn("streams", serving));
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        outcome
    }

    /// Begins a stream; [`News::Opened`] or [`News::Failed`] tells what came of it.
    pub(super) fn dial(&mut self, dial: Dial) {
        let number = self.shared.draw();
        let dialling = client::run(
            dial,
            number,
            TlsConnector::from(Arc::clone(&self.tls)),
            self.shared.clone(),
        );
        let task = tasks::spawn("stream", dialling);
        self.dialled.insert(number, task);
    }

    /// Ends every stream that this machine began, under way or standing, but this one.
    pub(super) fn end_all_but(&mut self, kept: Option<StreamIx>) {
        let numbers: Vec<StreamIx> = self.dialled.keys().copied().collect();
        for number in numbers {
            if Some(number) != kept {
                self.hang_up(number);
            }
        }
    }

    /// Ends a stream that this machine began.
    pub(super) fn hang_up(&mut self, stream: StreamIx) {
        if self.dialled.remove(&stream).is_some() {
            self.shared.teller.send(Command::CloseStream { stream });
        }
    }

    /// Waits for what happens. May be dropped and called again without losing anything.
    pub(super) async fn news(&mut self) -> News {
        // A stream is told to stand before it is told to be over.
        let news = tokio::select! {
            biased;
            Some(news) = self.news.recv() => news,
            Some(stream) = self.over.recv() => News::Closed { stream },
            else => return std::future::pending().await,
        };
        if let News::Failed { stream, .. } | News::Closed { stream } = &news {
            self.dialled.remove(stream);
        }
        news
    }
}

impl Shared {
    fn draw(&self) -> StreamIx {
        StreamIx(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    fn standing(&self, number: StreamIx) -> Standing {
        Standing {
            number,
            is_known: true,
            shared: self.clone(),
        }
    }

    async fn tell(&self, news: News) {
        let _loop_is_over = self.news.send(news).await;
    }
}
