//! Takes streams that others begin. Who proves nothing within 5 s is gone, and was told nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{News, Shared, Standing, Verdict, pump, tls};
use crate::{
    addr::Underlay,
    platform::tcp,
    wire::{
        sealed::Kind,
        stream::{PREAMBLE, Preamble},
    },
};

/// How long a visitor may take to prove that he has a secret of ours (protocol §1).
const PATIENCE: Duration = Duration::from_secs(5);

/// Visitors that have proved nothing yet, in all and from one address (an IPv6 /64).
const UNPROVEN: usize = 128;
const UNPROVEN_OF_ONE: usize = 8;

/// Streams that stand, in all and from one address (an IPv6 /64). Each costs two descriptors' worth of memory and TLS
/// buffers, about 50 KiB.
const STANDING: usize = 256;
const STANDING_OF_ONE: usize = 32;

/// The same of those that people with a token began: they take no place from members.
const JOINING: usize = 64;
const JOINING_OF_ONE: usize = 8;

/// How long a stream may stand before anything is said on it by this side: whoever has a right to it knocks at once, and
/// is answered.
const SESSION_WITHIN: Duration = Duration::from_secs(10);

/// How long to stop accepting after an accept failed (no descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at an address; the future given back serves until it is dropped.
///
/// # Errors
/// The port is taken, or the address is gone.
pub(super) fn listen(
    address: SocketAddr,
    door: Door,
    shared: Shared,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::from_std(tcp::listen(address)?)?;
    Ok(serve(listener, |_| true, door, shared))
}

/// Listens where the service manager does, at all addresses of the host, and turns away who comes to another than
/// `reached_at` says; as [`listen`].
///
/// # Errors
/// The runtime refuses it.
pub(super) fn take(
    listener: std::net::TcpListener,
    reached_at: watch::Receiver<BTreeSet<IpAddr>>,
    door: Door,
    shared: Shared,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::from_std(listener)?;
    let is_reached_at = move |ip| reached_at.borrow().contains(&ip);
    Ok(serve(listener, is_reached_at, door, shared))
}

/// What all listeners of a network share: how to shake hands, and how many visitors there may be.
#[derive(Clone)]
pub(super) struct Door {
    acceptor: TlsAcceptor,
    unproven: Visitors,
    standing: Visitors,
    joining: Visitors,
}

impl Door {
    /// Open to everybody, as far as there is room.
    pub(super) fn new(acceptor: TlsAcceptor) -> Self {
        Self {
            acceptor,
            unproven: Visitors::new(UNPROVEN, UNPROVEN_OF_ONE),
            standing: Visitors::new(STANDING, STANDING_OF_ONE),
            joining: Visitors::new(JOINING, JOINING_OF_ONE),
        }
    }

    /// Among whom a stream stands that was begun like this.
    fn visitors(&self, kind: Kind) -> &Visitors {
        match kind {
            Kind::Join | Kind::Introduce => &self.joining,
            Kind::Knock | Kind::Beacon | Kind::Punch => &self.standing,
        }
    }
}

async fn serve(
    listener: TcpListener,
    is_reached_at: impl Fn(IpAddr) -> bool + Send + 'static,
    door: Door,
    shared: Shared,
) {
    let mut streams = FuturesUnordered::new();
    let mut earliest = Instant::now();
    loop {
        let accept = async {
            sleep_until(earliest).await;
            let permit = door.unproven.wait().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            Some(()) = streams.next() => {}
            (accepted, permit) = accept => {
                let (Ok((stream, from)), Some(permit)) = (accepted, permit) else {
                    earliest = Instant::now() + ACCEPT_PAUSE;
                    continue;
                };
                // Who has too many, or comes by another way, is turned away without a word.
                let came_to = stream.local_addr().map(|at| at.ip().to_canonical());
                if came_to.is_ok_and(&is_reached_at)
                    && let Some(visit) = door.unproven.enter(from.ip(), permit)
                {
                    streams.push(attend((stream, from), visit, door.clone(), shared.clone()));
                }
            }
        }
    }
}

async fn attend(client: (TcpStream, SocketAddr), visit: Visit, door: Door, shared: Shared) {
    let proven = timeout(PATIENCE, prove(client, &door.acceptor, &shared)).await;
    let from = visit.from;
    drop(visit);
    let Ok(Ok((stream, kind, standing))) = proven else {
        return;
    };
    let Some(_stays) = door.visitors(kind).try_enter(from) else {
        return;
    };
    pump::run((stream, SESSION_WITHIN), standing.number, &shared.teller).await;
}

/// Gives the stream back once its client has proved that he has a secret of ours; a stranger waits here until he is
/// turned away, so that he does not learn what was wrong.
async fn prove(
    (stream, from): (TcpStream, SocketAddr),
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> io::Result<(TlsStream<TcpStream>, Kind, Standing)> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let binding = tls::server_binding(&stream)?;
    let mut bytes = [0; PREAMBLE];
    stream.read_exact(&mut bytes).await?;
    if let Ok(preamble) = Preamble::read(&bytes) {
        let (verdict, answer) = oneshot::channel();
        // Whoever judges may remember it: however this ends, it is told to be over.
        let mut standing = shared.standing(shared.draw());
        let kind = preamble.header.kind;
        let judge = News::Judge {
            stream: standing.number,
            from: Underlay::new(from),
            preamble,
            binding,
            verdict,
        };
        shared.tell(judge).await;
        match answer.await {
            Ok(Verdict::Ours) => return Ok((stream, kind, standing)),
            Ok(Verdict::Stranger) => standing.is_known = false,
            Err(_loop_is_over) => {}
        }
    }
    std::future::pending().await
}

/// How many visitors there are, in all and from where.
#[derive(Clone, Debug)]
struct Visitors {
    places: Arc<Semaphore>,
    of_one: usize,
    by_source: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One visitor; gone when this is dropped.
#[derive(Debug)]
struct Visit {
    from: IpAddr,
    visitors: Visitors,
    _permit: OwnedSemaphorePermit,
}

impl Visitors {
    fn new(places: usize, of_one: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            of_one,
            by_source: Arc::default(),
        }
    }

    /// Waits for a place.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Takes a place if there is one.
    fn try_enter(&self, from: IpAddr) -> Option<Visit> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.enter(from, permit)
    }

    fn enter(&self, from: IpAddr, permit: OwnedSemaphorePermit) -> Option<Visit> {
        let from = source(from);
        let mut all = self.all();
        let here = all.entry(from).or_default();
        if *here >= self.of_one {
            return None;
        }
        *here += 1;
        drop(all);
        Some(Visit {
            from,
            visitors: self.clone(),
            _permit: permit,
        })
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut all = self.visitors.all();
        let here = all.entry(self.from).or_default();
        *here = here.saturating_sub(1);
        if *here == 0 {
            all.remove(&self.from);
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_so_many_places_and_all_together_so_many() {
        let visitors = Visitors::new(40, 8);
        let address = |last: u16| {
            IpAddr::V6(std::net::Ipv6Addr::new(
                0x2001, 0xdb8, last, 0, 0, 0, 0, last,
            ))
        };
        let of_one: Vec<Visit> = (0..40)
            .filter_map(|_| visitors.try_enter(address(1)))
            .collect();
        assert_eq!(of_one.len(), 8);
        let others: Vec<Visit> = (2..90)
            .filter_map(|last| visitors.try_enter(address(last)))
            .collect();
        assert_eq!(others.len(), 32);
        drop(of_one);
        assert!(visitors.try_enter(address(1)).is_some());
        drop(others);
        assert!(visitors.all().is_empty());
    }
}
