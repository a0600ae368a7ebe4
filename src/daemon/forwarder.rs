//! Names of others, while `/etc/resolv.conf` names our resolver: asked of the servers that stood there before.
//!
//! Each question goes out of a socket of its own, connected, from a port and under an id that nobody can guess. The
//! servers are asked one after the other, the next before the last has given up. Whoever asks more than fits is told so.

#![expect(
    clippy::disallowed_types,
    reason = "these sockets ask this host's own servers; they are no part of the underlay"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
};

use super::{
    sealing,
    tasks::{self, Task},
};
use crate::{
    datapath::{Teller, command::Command},
    dns::{Forwarded, Reply, STREAM},
};

/// Questions under way at one time; more are answered SERVFAIL (reliability.md F3).
const IN_FLIGHT: usize = 256;

/// How long the first server has before the next is asked too. The C library gives us a second in all.
const HEAD_START: Duration = Duration::from_millis(400);

/// How long any server has.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The longest answer that a datagram brings.
const LONGEST_DATAGRAM: usize = 4096;

/// What a datagram from the resolver may carry through the TUN (as the data thread's own answers).
const DATAGRAM: usize = 1232;

/// Servers that are asked; a host names at most three, one of them us.
const SERVERS: usize = 4;

/// A question from a program of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The resolver's address that it was sent to.
    pub(super) resolver: IpAddr,
    /// Who asks.
    pub(super) asker: SocketAddr,
    /// What.
    pub(super) query: Vec<u8>,
}

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstreams {
    servers: Vec<SocketAddr>,
    mesh: Vec<IpNet>,
    domain: String,
}

impl Upstreams {
    /// These servers, but never ourselves: no address of the mesh is one of somebody else's servers.
    pub(super) fn new(servers: &[SocketAddr], mesh: &[IpNet], domain: &str) -> Self {
        let is_ours = |server: &SocketAddr| mesh.iter().any(|net| net.contains(&server.ip()));
        let others = servers.iter().filter(|server| !is_ours(server));
        Self {
            servers: others.take(SERVERS).copied().collect(),
            mesh: mesh.to_vec(),
            domain: domain.to_owned(),
        }
    }
}

/// Asks others; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    upstreams: Arc<ArcSwapOption<Upstreams>>,
    places: Arc<Semaphore>,
}

/// The part that answers questions that came as datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    questions: mpsc::Sender<Asked>,
    _task: Task,
}

impl Forwarder {
    /// With nobody to ask yet.
    pub(super) fn new() -> Self {
        Self {
            upstreams: Arc::new(ArcSwapOption::empty()),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Asks these from now on, or nobody.
    pub(super) fn ask_these(&self, upstreams: Option<Upstreams>) {
        self.upstreams.store(upstreams.map(Arc::new));
    }

    /// Whether others are to be asked at all.
    pub(super) fn is_on(&self) -> bool {
        self.upstreams.load().is_some()
    }

    /// The answer to a query that came over TCP; None for what is no question.
    pub(super) async fn answer_stream(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Forwarded::new(query, draw_id(), STREAM)?;
        self.answer(&question, Way::Stream).await
    }

    /// The answer to a query that came in a datagram; None for what is no question.
    pub(super) async fn answer_datagram(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Forwarded::new(query, draw_id(), DATAGRAM)?;
        self.answer(&question, Way::Datagram).await
    }

    async fn answer(&self, question: &Forwarded, way: Way) -> Option<Vec<u8>> {
        let upstreams = self.upstreams.load_full().unwrap_or_default();
        if question.mentions(&upstreams.domain) {
            return question.denial();
        }
        let Ok(_place) = self.places.try_acquire() else {
            return question.failure();
        };
        let answered = ask_all(&upstreams, question, way).await;
        answered.or_else(|| question.failure())
    }

    /// Answers datagrams through the data thread.
    pub(super) fn serve_datagrams(&self, teller: Teller) -> Datagrams {
        let (questions, inbox) = mpsc::channel(IN_FLIGHT);
        Datagrams {
            questions,
            _task: tasks::spawn("forwarder", serve(self.clone(), inbox, teller)),
        }
    }
}

impl Datagrams {
    /// Takes a question; None if there is no room for it, and then the asker asks again.
    pub(super) fn take(&self, asked: Asked) -> Option<()> {
        self.questions.try_send(asked).ok()
    }
}

async fn serve(forwarder: Forwarder, mut inbox: mpsc::Receiver<Asked>, teller: Teller) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((asked, answer)) = under_way.next() => {
                let _: &Asked = &asked;
                if let Some(bytes) = answer {
                    let Asked { resolver, asker, .. } = asked;
                    teller.send(Command::Answer { resolver, asker, bytes });
                }
            }
            asked = inbox.recv() => {
                let Some(asked) = asked else { return };
                let forwarder = forwarder.clone();
                under_way.push(async move {
                    let answer = forwarder.answer_datagram(&asked.query).await;
                    (asked, answer)
                });
            }
        }
    }
}

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Datagram,
    Stream,
}

/// The first good answer; a poor one where there is no good one.
async fn ask_all(upstreams: &Upstreams, question: &Forwarded, way: Way) -> Option<Vec<u8>> {
    let mut asking = FuturesUnordered::new();
    let mut servers = upstreams.servers.iter();
    let mut poor = None;
    asking.push(ask(upstreams, *servers.next()?, question, way));
    loop {
        let next = servers.clone().next();
        let outcome = if next.is_some() {
            match tokio::time::timeout(HEAD_START, asking.next()).await {
                Ok(outcome) => outcome,
                Err(_no_word_yet) => Some(None),
            }
        } else {
            match asking.next().await {
                None => return poor,
                some => some,
            }
        };
        match outcome.flatten() {
            Some(Reply::Answer(answer)) => return Some(answer),
            Some(Reply::Poor(answer)) => poor = Some(answer),
            Some(Reply::Foreign) | None => {}
        }
        if let Some(server) = servers.next() {
            asking.push(ask(upstreams, *server, question, way));
        }
    }
}

async fn ask(
    upstreams: &Upstreams,
    server: SocketAddr,
    question: &Forwarded,
    way: Way,
) -> Option<Reply> {
    let asked = async {
        match way {
            Way::Datagram => ask_by_datagram(server, question, &upstreams.mesh).await,
            Way::Stream => ask_by_stream(server, question, &upstreams.mesh).await,
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

async fn ask_by_datagram(
    server: SocketAddr,
    question: &Forwarded,
    mesh: &[IpNet],
) -> io::Result<Reply> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.outgoing()).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match question.judge(&buffer[..len], mesh) {
            // Somebody guesses: the answer itself may still come.
            Reply::Foreign => {}
            reply @ (Reply::Answer(_) | Reply::Poor(_)) => return Ok(reply),
        }
    }
}

async fn ask_by_stream(
    server: SocketAddr,
    question: &Forwarded,
    mesh: &[IpNet],
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let query = question.outgoing();
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &query].concat())
        .await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(question.judge(&answer, mesh))
}

fn draw_id() -> u16 {
    u16::from_be_bytes(sealing::draw())
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType, rdata::A},
    };
    use tokio::net::TcpListener;

    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn answer(query: &[u8], address: [u8; 4]) -> Vec<u8> {
        let asked = Message::from_vec(query).unwrap();
        let mut message = Message::response(asked.metadata.id, OpCode::Query);
        message.add_query(asked.queries[0].clone());
        let name = asked.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, 60, RData::A(A(address.into()))));
        message.to_vec().unwrap()
    }

    /// A forwarder that asks these; ports are the test's.
    fn forwarder(servers: &[SocketAddr]) -> Forwarder {
        let forwarder = Forwarder::new();
        forwarder.ask_these(Some(Upstreams {
            servers: servers.to_vec(),
            mesh: vec!["100.71.0.0/16".parse().unwrap()],
            domain: "home.internal".to_owned(),
        }));
        forwarder
    }

    async fn server() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn read(answer: Option<Vec<u8>>) -> (u16, ResponseCode, usize) {
        let message = Message::from_vec(&answer.unwrap()).unwrap();
        let metadata = message.metadata;
        (metadata.id, metadata.response_code, message.answers.len())
    }

    #[tokio::test]
    async fn a_good_answer_among_a_thousand_forged_ones_is_taken() {
        let (socket, address) = server().await;
        let forwarder = forwarder(&[address]);
        let asking = query("www.example.com.");
        let (answered, ()) = tokio::join!(forwarder.answer_datagram(&asking), async {
            let mut buffer = [0; 512];
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let good = answer(&buffer[..len], [192, 0, 2, 1]);
            for guess in 0..1000_u16 {
                let mut forged = answer(&buffer[..len], [192, 0, 2, 66]);
                let id = u16::from_be_bytes([good[0], good[1]]) ^ (guess + 1);
                forged[..2].copy_from_slice(&id.to_be_bytes());
                socket.send_to(&forged, from).await.unwrap();
                socket
                    .send_to(&forged[..usize::from(guess) % 40], from)
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
            socket.send_to(&good, from).await.unwrap();
        });
        let message = Message::from_vec(&answered.unwrap()).unwrap();
        assert_eq!(message.answers[0].data, RData::A(A([192, 0, 2, 1].into())));
    }

    #[tokio::test]
    async fn a_dead_server_costs_less_than_a_second_and_a_poor_one_nothing() {
        let (_silent, dead) = server().await;
        let (socket, address) = server().await;
        let began = tokio::time::Instant::now();
        let forwarder = forwarder(&[dead, address]);
        let asking = query("www.example.com.");
        let (answered, ()) = tokio::join!(forwarder.answer_datagram(&asking), async {
            let mut buffer = [0; 512];
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let good = answer(&buffer[..len], [192, 0, 2, 1]);
            socket.send_to(&good, from).await.unwrap();
        });
        assert_eq!(read(answered), (7, ResponseCode::NoError, 1));
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn without_servers_or_room_the_answer_is_servfail() {
        let asking = query("www.example.com.");
        let nobody = forwarder(&[]);
        let failed = (7, ResponseCode::ServFail, 0);
        assert_eq!(read(nobody.answer_datagram(&asking).await), failed);
        let (_silent, dead) = server().await;
        let full = forwarder(&[dead]);
        let _taken = full.places.acquire_many(256).await.unwrap();
        assert_eq!(read(full.answer_datagram(&asking).await), failed);
        assert_eq!(full.answer_datagram(b"no question").await, None);
    }

    #[tokio::test]
    async fn what_came_over_tcp_is_asked_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(&[listener.local_addr().unwrap()]);
        let asking = query("long.example.com.");
        let (answered, ()) = tokio::join!(forwarder.answer_stream(&asking), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut asked = vec![0; usize::from(length)];
            stream.read_exact(&mut asked).await.unwrap();
            let good = answer(&asked, [192, 0, 2, 1]);
            stream
                .write_u16(u16::try_from(good.len()).unwrap())
                .await
                .unwrap();
            stream.write_all(&good).await.unwrap();
        });
        assert_eq!(read(answered), (7, ResponseCode::NoError, 1));
    }

    #[tokio::test]
    async fn a_name_of_ours_with_a_search_domain_of_others_behind_it_goes_nowhere() {
        let (socket, address) = server().await;
        let forwarder = forwarder(&[address]);
        let answered = forwarder
            .answer_datagram(&query("nobody.home.internal.lan."))
            .await;
        assert_eq!(read(answered), (7, ResponseCode::NXDomain, 0));
        let mut buffer = [0; 512];
        assert!(socket.try_recv_from(&mut buffer).is_err());
    }

    #[test]
    fn it_never_asks_itself() {
        let mesh = [
            "100.71.0.0/16".parse().unwrap(),
            "fd7c:1a2b:3c4d::/48".parse().unwrap(),
        ];
        let servers = [
            "100.71.255.53:53",
            "[fd7c:1a2b:3c4d::53]:53",
            "192.0.2.1:53",
        ];
        let servers = servers.map(|text| text.parse().unwrap());
        let upstreams = Upstreams::new(&servers, &mesh, "home.internal");
        assert_eq!(upstreams.servers, ["192.0.2.1:53".parse().unwrap()]);
    }
}
