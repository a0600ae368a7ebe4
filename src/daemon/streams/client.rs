//! Dials a stream.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Dial, News, Shared, pump, tls};
use crate::{
    addr::Underlay,
    ids::StreamIx,
    wire::{sealed::Header, stream::Preamble},
};

/// How long one address may take from the SYN to the end of the TLS handshake.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long one place is tried before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// The port on which firewalls that let nothing else out let TLS out.
const HTTPS: u16 = 443;

/// Dials, carries datagrams, and says what came of it.
pub(super) async fn run(dial: Dial, number: StreamIx, connector: TlsConnector, shared: Shared) {
    let Dial {
        whom,
        to,
        header,
        key,
    } = dial;
    let Some(stream) = open(&to, header, &key, &connector).await else {
        let failed = News::Failed {
            whom,
            stream: number,
        };
        return shared.tell(failed).await;
    };
    let host = stream.get_ref().0.peer_addr().ok().map(|at| at.ip());
    let opened = News::Opened {
        whom,
        stream: number,
        host,
    };
    let _standing = shared.standing(number);
    // The data thread knows the stream before the node does: both are told in this order.
    tokio::join!(
        pump::run((stream, pump::IDLE), number, &shared.teller),
        shared.tell(opened)
    );
}

/// The first address that shakes hands, each at the agent's own port and at that of HTTPS: one that swallows what it is
/// sent keeps nobody waiting for the next.
async fn open(
    to: &[Underlay],
    header: Header,
    key: &[u8; 32],
    connector: &TlsConnector,
) -> Option<TlsStream<TcpStream>> {
    let mut places: Vec<SocketAddr> = Vec::new();
    for own in to.iter().map(|address| address.socket()) {
        let https = SocketAddr::new(own.ip(), HTTPS);
        let fresh = [own, https].into_iter().filter(|at| !places.contains(at));
        places.extend(fresh.collect::<Vec<_>>());
    }
    let tries = (0_u32..).zip(places).map(|(turn, at)| async move {
        sleep(HEAD_START * turn).await;
        let begun = begin(at, header, key, connector);
        timeout(PATIENCE, begun).await.ok()?.ok()
    });
    let tries: FuturesUnordered<_> = tries.collect();
    let mut stood = tries.filter_map(std::future::ready);
    stood.next().await
}

async fn begin(
    to: SocketAddr,
    header: Header,
    key: &[u8; 32],
    connector: &TlsConnector,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut stream = tls::connect(connector, stream, to).await?;
    let preamble = Preamble::new(header, key, &tls::client_binding(&stream)?);
    stream.write_all(&preamble.bytes()).await?;
    stream.flush().await?;
    Ok(stream)
}
