//! DNS over TCP: an unprivileged listener on the own mesh addresses to which the data thread turns TCP for the
//! resolver's port 53 (design §6). Length-prefixed queries (RFC 1035 §4.2.2), answered from the published tables.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    forwarder::Forwarder,
    mesh_socket::{self, MeshSide},
    tasks::{self, Task},
};
use crate::tables::Tables;

/// Connections at one time: only this host's programs connect. More wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may be idle (RFC 7766 §6.2.3 leaves it to the server; names are asked in bursts).
const IDLE: Duration = Duration::from_secs(5);

/// The longest query taken: a question with every EDNS option in use is far below it.
const MAX_QUERY_BYTES: usize = 4096;

/// How often a port free on both addresses is looked for: the kernel draws it for one, another program may have it on
/// the other.
const PORT_TRIES: usize = 16;

/// The running listeners.
#[derive(Debug)]
pub(super) struct ResolverTcp {
    port: u16,
    _tasks: Vec<Task>,
}

impl ResolverTcp {
    /// Listens on one port of all own addresses.
    ///
    /// # Errors
    /// No port is free, or the device is not there.
    pub(super) fn start(
        side: &MeshSide,
        tables: &Arc<ArcSwap<Tables>>,
        forwarder: &Forwarder,
    ) -> io::Result<Self> {
        let names = Names {
            tables: Arc::clone(tables),
            forwarder: forwarder.clone(),
        };
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_TRIES {
            match listen_everywhere(side) {
                Ok((port, listeners)) => return Ok(Self::serving(port, listeners, &names)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn serving(port: u16, listeners: Vec<TcpListener>, names: &Names) -> Self {
        let serve = |listener| tasks::spawn("resolver-tcp", serve(listener, names.clone()));
        Self {
            port,
            _tasks: listeners.into_iter().map(serve).collect(),
        }
    }

    /// The port, for [`crate::tables::Own::dns_tcp_port`].
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Who answers: our own names, and while others are asked, they.
#[derive(Clone, Debug)]
struct Names {
    tables: Arc<ArcSwap<Tables>>,
    forwarder: Forwarder,
}

impl Names {
    /// None: say nothing.
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let ours = Arc::clone(&self.tables.load().names);
        if self.forwarder.is_on() && ours.is_foreign(query) {
            return self.forwarder.answer_stream(query).await;
        }
        let mut answer = Vec::new();
        ours.answer(query, usize::from(u16::MAX), &mut answer)
            .then_some(answer)
    }
}

fn listen_everywhere(side: &MeshSide) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut port = 0;
    let mut listeners = Vec::new();
    for own in side.addresses() {
        let listener = side.listen_tcp(SocketAddr::new(own, port))?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((port, listeners))
}

async fn serve(listener: TcpListener, names: Names) {
    let mut connections = FuturesUnordered::new();
    let mut earliest = None;
    loop {
        let accept = mesh_socket::accept(&listener, earliest);
        tokio::select! {
            Some(_closed) = connections.next() => {}
            accepted = accept, if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => connections.push(answer_all(stream, names.clone())),
                Err(again) => earliest = Some(again),
            }
        }
    }
}

async fn answer_all(mut stream: TcpStream, names: Names) {
    let _best_effort = stream.set_nodelay(true);
    while let Ok(Ok(true)) = tokio::time::timeout(IDLE, answer_one(&mut stream, &names)).await {}
}

async fn answer_one(stream: &mut TcpStream, names: &Names) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY_BYTES {
        return Ok(false);
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    let Some(answer) = names.answer(&query).await else {
        return Ok(false);
    };
    let Ok(length) = u16::try_from(answer.len()) else {
        return Ok(false);
    };
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&answer);
    stream.write_all(&framed).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet, HashMap},
        net::{Ipv4Addr, Ipv6Addr},
    };

    use super::*;
    use crate::tables::{self, Own};

    /// Answers a query with itself backwards, and nothing to one that begins with 0.
    #[derive(Debug)]
    struct Mirror;

    impl tables::Names for Mirror {
        fn answer(&self, query: &[u8], _limit: usize, answer: &mut Vec<u8>) -> bool {
            answer.clear();
            answer.extend(query.iter().rev());
            query.first() != Some(&0)
        }

        fn is_foreign(&self, _query: &[u8]) -> bool {
            false
        }
    }

    fn started() -> (ResolverTcp, MeshSide) {
        let side = MeshSide {
            v4: Some(Ipv4Addr::new(127, 0, 0, 2)),
            v6: Ipv6Addr::LOCALHOST,
            device: "lo".into(),
        };
        let tables = Tables {
            version: 1,
            own: Own {
                v4: side.v4,
                v6: side.v6,
                resolver4: Ipv4Addr::UNSPECIFIED,
                resolver6: Ipv6Addr::UNSPECIFIED,
                pool4: "100.64.0.0/16".parse().unwrap(),
                prefix6: "fd00::/48".parse().unwrap(),
                dns_tcp_port: 0,
            },
            peers4: HashMap::new(),
            peers6: HashMap::new(),
            splices: BTreeMap::new(),
            own_vips: BTreeSet::new(),
            names: Arc::new(Mirror),
        };
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        (
            ResolverTcp::start(&side, &tables, &Forwarder::new()).unwrap(),
            side,
        )
    }

    async fn ask(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
        stream
            .write_u16(u16::try_from(query.len()).unwrap())
            .await?;
        stream.write_all(query).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn queries_on_one_connection_are_answered_in_turn_on_both_addresses() {
        let (resolver, side) = started();
        for own in side.addresses() {
            let mut stream = TcpStream::connect((own, resolver.port())).await.unwrap();
            assert_eq!(ask(&mut stream, b"abc").await.unwrap(), b"cba");
            assert_eq!(ask(&mut stream, b"xy").await.unwrap(), b"yx");
        }
    }

    #[tokio::test]
    async fn what_is_no_query_or_too_long_closes_the_connection() {
        let (resolver, _side) = started();
        for query in [vec![0; 4], vec![1; MAX_QUERY_BYTES + 1]] {
            let mut stream = TcpStream::connect(("127.0.0.2", resolver.port()))
                .await
                .unwrap();
            assert!(ask(&mut stream, &query).await.is_err());
        }
    }
}
