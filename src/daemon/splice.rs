//! Splices: a program on 127.0.0.1 is served to the mesh unchanged (design §10, Targets).
//!
//! One listener per splice on the own mesh addresses, bound to the TUN; the data thread rewrites the service's port to
//! it. TCP is copied both ways with half-close; UDP has one socket per client address and port.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, mpsc},
};

use super::{
    mesh_socket::{self, MeshSide, Udp},
    tasks::{self, Task},
};
use crate::{services::Splice, tables::Transport};

/// TCP connections of one splice; design §10 gives UDP its bound, TCP has the same. More wait in the listen queue.
const MAX_CONNECTIONS: usize = 1024;

/// UDP clients of one splice at one time (design §10). Datagrams of more are dropped.
const MAX_CLIENTS: usize = 1024;

/// How long a UDP client may be silent before its socket is closed (design §10).
const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// How long the target on this same host may take to accept: a full listen queue retries for seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest UDP datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// The splices that run, by where they listen.
#[derive(Debug)]
pub(super) struct Splices {
    side: MeshSide,
    running: BTreeMap<(Transport, u16), Running>,
}

/// One splice on all own addresses. Its sockets stay open when it turns to another target: nobody is refused meanwhile.
#[derive(Debug)]
struct Running {
    target: SocketAddr,
    sockets: Vec<Listening>,
    _tasks: Vec<Task>,
}

#[derive(Clone, Debug)]
enum Listening {
    Tcp(Arc<TcpListener>),
    Udp(Arc<Udp>),
}

impl Splices {
    /// No splices, on this side of the mesh.
    pub(super) fn new(side: MeshSide) -> Self {
        Self {
            side,
            running: BTreeMap::new(),
        }
    }

    /// Starts what is wanted and does not run, turns what is to have another target, ends what runs and is not wanted.
    /// What could not start is given back and tried again the next time.
    pub(super) fn apply(&mut self, wanted: &[Splice]) -> Vec<(Splice, io::Error)> {
        let places: BTreeSet<_> = wanted.iter().map(place).collect();
        self.running.retain(|place, _| places.contains(place));
        let mut refused = Vec::new();
        for splice in wanted {
            let place = place(splice);
            let sockets = match self.running.get(&place) {
                Some(running) if running.target == splice.target => continue,
                Some(running) => running.sockets.clone(),
                None => match self.listen(place) {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        refused.push((*splice, error));
                        continue;
                    }
                },
            };
            // The tasks of a target before end with what they carry, and with what they accept at this very moment.
            self.running
                .insert(place, self.serve(sockets, splice.target));
        }
        refused
    }

    fn listen(&self, (transport, port): (Transport, u16)) -> io::Result<Vec<Listening>> {
        let sockets = self.side.addresses().into_iter().map(|own| {
            let at = SocketAddr::new(own, port);
            Ok(match transport {
                Transport::Tcp => Listening::Tcp(Arc::new(self.side.listen_tcp(at)?)),
                Transport::Udp => Listening::Udp(Arc::new(self.side.listen_udp(at)?)),
            })
        });
        sockets.collect()
    }

    fn serve(&self, sockets: Vec<Listening>, target: SocketAddr) -> Running {
        let serve = |socket: &Listening| {
            let side = self.side.clone();
            match socket.clone() {
                Listening::Tcp(listener) => {
                    tasks::spawn("splice-tcp", serve_tcp(listener, side, target))
                }
                Listening::Udp(socket) => {
                    tasks::spawn("splice-udp", serve_udp(socket, side, target))
                }
            }
        };
        Running {
            target,
            _tasks: sockets.iter().map(serve).collect(),
            sockets,
        }
    }
}

/// Where a splice listens.
fn place(splice: &Splice) -> (Transport, u16) {
    (splice.transport, splice.listen_port)
}

async fn serve_tcp(listener: Arc<TcpListener>, side: MeshSide, target: SocketAddr) {
    let room = Semaphore::new(MAX_CONNECTIONS);
    let mut connections = FuturesUnordered::new();
    let (room, listener) = (&room, &*listener);
    let accept = |earliest| async move {
        let permit = room.acquire().await.expect("the semaphore is never closed");
        (mesh_socket::accept(listener, earliest).await, permit)
    };
    let mut earliest = None;
    loop {
        tokio::select! {
            Some(()) = connections.next() => {}
            (accepted, permit) = accept(earliest) => match accepted {
                Ok(client) => {
                    let side = &side;
                    connections.push(async move {
                        carry(client, side, target).await;
                        drop(permit);
                    });
                }
                Err(again) => earliest = Some(again),
            }
        }
    }
}

async fn carry(mut client: TcpStream, side: &MeshSide, target: SocketAddr) {
    let connect = tokio::time::timeout(CONNECT_TIMEOUT, side.connect_tcp(target));
    let Ok(Ok(mut program)) = connect.await else {
        // The client sees a reset, as it would from a port on which nothing listens.
        let _best_effort = client.set_zero_linger();
        return;
    };
    let _best_effort = (client.set_nodelay(true), program.set_nodelay(true));
    // A client whose machine is gone would keep its place for ever.
    let _best_effort = socket2::SockRef::from(&client).set_keepalive(true);
    if tokio::io::copy_bidirectional(&mut client, &mut program)
        .await
        .is_err()
    {
        let _best_effort = (client.set_zero_linger(), program.set_zero_linger());
    }
}

struct Client {
    program: Arc<Udp>,
    heard: Arc<Notify>,
    _task: Task,
}

async fn serve_udp(socket: Arc<Udp>, side: MeshSide, target: SocketAddr) {
    let mut clients: BTreeMap<SocketAddr, Client> = BTreeMap::new();
    let (ended_tx, mut ended) = mpsc::channel(MAX_CLIENTS);
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        tokio::select! {
            Some(client) = ended.recv() => drop(clients.remove(&client)),
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let is_new = !clients.contains_key(&from) && clients.len() < MAX_CLIENTS;
                if is_new && let Ok(client) = meet(&socket, &side, target, from, &ended_tx) {
                    clients.insert(from, client);
                }
                if let (Some(client), Some(datagram)) = (clients.get(&from), buffer.get(..length)) {
                    let _dropped_as_udp_may = client.program.send(datagram).await;
                    client.heard.notify_one();
                }
            }
        }
    }
}

fn meet(
    socket: &Arc<Udp>,
    side: &MeshSide,
    target: SocketAddr,
    client: SocketAddr,
    ended: &mpsc::Sender<SocketAddr>,
) -> io::Result<Client> {
    let program = Arc::new(side.connect_udp(target)?);
    let heard = Arc::new(Notify::new());
    let answers = answer_client(
        Arc::clone(socket),
        Arc::clone(&program),
        client,
        Arc::clone(&heard),
    );
    let ended = ended.clone();
    let task = tasks::spawn("splice-udp-client", async move {
        answers.await;
        let _listener_gone = ended.send(client).await;
    });
    Ok(Client {
        program,
        heard,
        _task: task,
    })
}

async fn answer_client(
    socket: Arc<Udp>,
    program: Arc<Udp>,
    client: SocketAddr,
    heard: Arc<Notify>,
) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        tokio::select! {
            received = program.recv(&mut buffer) => {
                // An error is the target's ICMP for one datagram; the next may be answered.
                if let Some(datagram) = received.ok().and_then(|length| buffer.get(..length)) {
                    let _dropped_as_udp_may = socket.send_to(datagram, client).await;
                }
            }
            () = heard.notified() => {}
            () = tokio::time::sleep(CLIENT_IDLE) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// The loopback device stands for the TUN, 127.0.0.2 for the own mesh address.
    fn side() -> MeshSide {
        MeshSide {
            v4: Some(Ipv4Addr::new(127, 0, 0, 2)),
            v6: Ipv6Addr::LOCALHOST,
            device: "lo".into(),
        }
    }

    fn free_port(transport: Transport) -> u16 {
        let any = SocketAddr::from(([127, 0, 0, 2], 0));
        match transport {
            Transport::Tcp => side().listen_tcp(any).unwrap().local_addr().unwrap().port(),
            Transport::Udp => side().listen_udp(any).unwrap().local_addr().unwrap().port(),
        }
    }

    fn splice(transport: Transport, target: SocketAddr) -> (Splices, Splice) {
        let splice = Splice {
            transport,
            listen_port: free_port(transport),
            target,
        };
        let mut splices = Splices::new(side());
        let refused = splices.apply(&[splice]);
        assert!(refused.is_empty(), "{refused:?}");
        (splices, splice)
    }

    #[tokio::test]
    async fn a_program_on_loopback_is_served_and_sees_the_mesh_address() {
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_splices, splice) = splice(Transport::Tcp, program.local_addr().unwrap());
        let mut client = TcpStream::connect(("127.0.0.2", splice.listen_port))
            .await
            .unwrap();
        let (mut served, from) = program.accept().await.unwrap();
        assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 2]));

        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        served.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        served
            .write_all(b"answer after the half-close")
            .await
            .unwrap();
        drop(served);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer after the half-close");
    }

    #[tokio::test]
    async fn a_dead_program_resets_its_clients() {
        let dead = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let (_splices, splice) = splice(Transport::Tcp, dead);
        let mut client = TcpStream::connect(("127.0.0.2", splice.listen_port))
            .await
            .unwrap();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn each_udp_client_gets_its_own_answers() {
        let loopback = MeshSide {
            v4: Some(Ipv4Addr::LOCALHOST),
            ..side()
        };
        let program = loopback
            .listen_udp(SocketAddr::from(([127, 0, 0, 1], 0)))
            .unwrap();
        let (_splices, splice) = splice(Transport::Udp, program.local_addr().unwrap());
        let to = SocketAddr::from(([127, 0, 0, 2], splice.listen_port));
        let clients = [
            loopback.connect_udp(to).unwrap(),
            loopback.connect_udp(to).unwrap(),
        ];
        for (i, client) in clients.iter().enumerate() {
            client.send(&[u8::try_from(i).unwrap()]).await.unwrap();
        }
        for _ in &clients {
            let mut byte = [0];
            let (_, from) = program.recv_from(&mut byte).await.unwrap();
            assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 2]));
            program.send_to(&[byte[0] + 100], from).await.unwrap();
        }
        for (i, client) in clients.iter().enumerate() {
            let mut byte = [0];
            client.recv(&mut byte).await.unwrap();
            assert_eq!(usize::from(byte[0]), i + 100);
        }
    }

    #[tokio::test]
    async fn a_splice_that_is_no_longer_wanted_closes_its_port() {
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut splices, splice) = splice(Transport::Tcp, program.local_addr().unwrap());
        splices.apply(&[]);
        tokio::task::yield_now().await;
        let error = TcpStream::connect(("127.0.0.2", splice.listen_port))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn another_target_is_served_at_once_and_nobody_is_refused_meanwhile() {
        let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let after = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut splices, first) = splice(Transport::Tcp, before.local_addr().unwrap());
        let second = Splice {
            target: after.local_addr().unwrap(),
            ..first
        };
        let refused = splices.apply(&[second]);
        assert!(refused.is_empty(), "{refused:?}");
        let mut client = TcpStream::connect(("127.0.0.2", first.listen_port))
            .await
            .unwrap();
        let (mut served, _) = after.accept().await.unwrap();
        served.write_all(b"x").await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 1);
    }
}
