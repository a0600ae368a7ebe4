//! The data threads as the control plane has them: how they are started, told things and ended.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;

use super::{
    command::{Command, Event},
    crew::{self, Role},
    drops::{DropReason, Drops},
    lane::Lane,
    lanes::Lanes,
    offloads::{Offloads, Wishes},
    thread::Turnstile,
};
use crate::{
    platform::{poll::Waker, tun::Tun, udp},
    tables::Tables,
    time::Moment,
};

/// What a data thread is made of.
#[derive(Debug)]
pub struct Parts {
    /// The device; none yet while this machine joins.
    pub tun: Option<Tun>,
    /// The sockets.
    pub sockets: udp::Pair,
    /// What the control plane publishes.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Where events go. Bounded; a full one drops and counts all but changes of sessions.
    pub events: tokio::sync::mpsc::Sender<Event>,
    /// The device's MTU.
    pub mtu: u16,
    /// What is left to the kernel.
    pub wishes: Wishes,
    /// How many threads; fewer where the kernel gives no sockets for them.
    pub threads: u8,
}

/// Tells a data thread what to do; many may hold one.
#[derive(Clone, Debug)]
pub struct Teller {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

impl Teller {
    /// One whose commands a test reads.
    #[cfg(test)]
    pub(crate) fn heard() -> (Self, mpsc::Receiver<Command>) {
        let (commands, heard) = mpsc::channel();
        let waker = Waker::new().unwrap();
        (Self { commands, waker }, heard)
    }

    /// Sends a command; they are carried out in order. After the thread has ended it is dropped.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

/// The control plane's end of the data threads. Dropping it ends them.
#[derive(Debug)]
pub struct Handle {
    teller: Teller,
    offloads: Arc<Offloads>,
    threads: Vec<Running>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) drops: Arc<Drops>,
    /// When it made its last turn.
    pub(super) turned: Arc<AtomicU64>,
    pub(super) waker: Waker,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Sends a command; they are carried out in order. After the thread has ended it is dropped.
    pub fn send(&self, command: Command) {
        self.teller.send(command);
    }

    /// Another end for the same commands.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> BTreeMap<DropReason, u64> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.threads.iter().flat_map(|one| one.drops.snapshot()) {
            *all.entry(reason).or_default() += count;
        }
        all
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// What is left to the kernel.
    pub fn offloads(&self) -> &Offloads {
        &self.offloads
    }

    /// When the one that is behind made its last turn. One that still runs makes another soon after this was asked.
    pub fn turned(&self) -> Moment {
        let turned = self.threads.iter().map(|one| {
            let turned = one.turned.load(Ordering::Relaxed);
            one.waker.wake();
            Moment(turned)
        });
        turned.min().unwrap_or_default()
    }

    /// Ends the threads and waits until device and sockets are closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.send(Command::Stop);
        // The first takes the others with it.
        for thread in self.threads.iter_mut().filter_map(|one| one.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the data threads.
///
/// # Errors
/// When the kernel gives no thread, no epoll or no eventfd; device and sockets are closed then.
pub fn start(mut parts: Parts) -> io::Result<Handle> {
    let offloads = Offloads::start(parts.wishes, &mut parts.sockets);
    let tun = parts.tun.take();
    let pairs = pairs_beside(&parts.sockets, parts.threads, &offloads);
    let (commands, inbox) = mpsc::channel();
    let waker = Waker::new()?;
    let (crew, posts) = crew::muster(pairs.len(), &waker)?;
    let mut lanes = Vec::new();
    for (post, sockets) in posts.into_iter().zip(pairs) {
        let parts = Parts {
            tun: None,
            sockets,
            tables: Arc::clone(&parts.tables),
            events: parts.events.clone(),
            ..parts
        };
        let waker = post.waker().clone();
        let number = post.number();
        let lane = Lane::new(number, post.handed());
        let mut turnstile = Turnstile::new(parts, &offloads, Role::Lane(post), waker)?;
        turnstile.shard.lane = Some(Box::new(lane));
        lanes.push((format!("data-{number}"), turnstile));
    }
    let backlogs = crew.backlogs();
    let role = Role::First {
        commands: inbox,
        crew,
    };
    let mut first = Turnstile::new(parts, &offloads, role, waker.clone())?;
    first.shard.lanes = Lanes::new(backlogs);
    if tun.is_some() {
        first.attach(tun)?;
    }
    let mut handle = Handle {
        teller: Teller { commands, waker },
        offloads,
        threads: Vec::new(),
    };
    handle.threads.push(first.start("data".to_owned())?);
    for (name, lane) in lanes {
        handle.threads.push(lane.start(name)?);
    }
    Ok(handle)
}

/// Sockets for every thread but the first, at its port.
fn pairs_beside(first: &udp::Pair, threads: u8, offloads: &Offloads) -> Vec<udp::Pair> {
    let mut pairs = Vec::new();
    for _ in 1..threads {
        match first.beside() {
            Ok(mut pair) => {
                offloads.apply_to(&mut pair);
                pairs.push(pair);
            }
            Err(error) => {
                tracing::warn!(%error, "No more sockets at this port; fewer data threads run");
                break;
            }
        }
    }
    let all = u8::try_from(1 + pairs.len()).unwrap_or(u8::MAX);
    if all > 1
        && let Err(error) = first.steer(all)
    {
        tracing::warn!(%error, "Datagrams come to any data thread and are handed on");
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        addr::{Path, Underlay},
        datapath::command::SessionKeys,
        ids::{PeerIx, SessionId},
        platform::{clock, udp::Socket},
        tables::Admission,
    };

    const PEER: SessionId = SessionId::Pair(PeerIx(0));

    struct Machine {
        handle: Handle,
        events: tokio::sync::mpsc::Receiver<Event>,
        at: Path,
        seed: u8,
    }

    fn machine(seed: u8, events: usize) -> Machine {
        threaded(seed, events, 1)
    }

    fn threaded(seed: u8, events: usize, threads: u8) -> Machine {
        let udp4 = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = Underlay::new(([127, 0, 0, 1], udp4.port().unwrap()).into());
        let at = Path::Direct(at);
        let (sender, events) = tokio::sync::mpsc::channel(events);
        let handle = start(Parts {
            tun: None,
            sockets: udp::Pair { udp4, udp6: None },
            tables: Arc::new(ArcSwap::from_pointee(Tables::vacant())),
            events: sender,
            mtu: 1420,
            wishes: Wishes::default(),
            threads,
        })
        .unwrap();
        Machine {
            handle,
            events,
            at,
            seed,
        }
    }

    impl Machine {
        fn keys(&self) -> SessionKeys {
            let secret = |seed| x25519_dalek::StaticSecret::from([seed; 32]);
            SessionKeys {
                local_secret: secret(self.seed),
                remote_public: x25519_dalek::PublicKey::from(&secret(3 - self.seed)),
                psk: [1; 32],
            }
        }

        async fn next(&mut self) -> Event {
            let wait = Duration::from_secs(10);
            let event = tokio::time::timeout(wait, self.events.recv()).await;
            event
                .expect("an event within 10 s")
                .expect("the thread lives")
        }
    }

    fn knock() -> Vec<u8> {
        let mut bytes = vec![0x5a; 200];
        bytes[..4].copy_from_slice(&[0x30, 1, 1, 0]);
        bytes
    }

    #[test]
    fn threads_with_nothing_to_do_still_answer_and_end_together() {
        for threads in [1, 3] {
            let idle = threaded(1, 8, threads);
            assert_eq!(idle.handle.threads(), usize::from(threads));
            let asked = clock::moment();
            while idle.handle.turned() < asked {
                let passed = clock::moment().since(asked);
                assert!(
                    passed < Duration::from_secs(10),
                    "all turn when they are asked"
                );
                std::thread::yield_now();
            }
            idle.handle.stop();
        }
    }

    /// Alice's router would let in nothing but what she sent to; here all sockets of Bob reach her, and she picks one.
    #[test]
    fn the_socket_that_a_guess_hits_carries_what_goes_there_from_then_on() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut alice, mut bob) = (machine(1, 64), machine(2, 64));
            alice.handle.send(Command::Initiate {
                session: PEER,
                keys: alice.keys(),
                to: vec![(bob.at, knock())],
            });
            let Event::Sealed { source, .. } = bob.next().await else {
                panic!("the Knock comes first");
            };
            bob.handle.send(Command::Admit {
                session: PEER,
                keys: bob.keys(),
                source,
                admission: Admission::Keep,
            });
            assert!(matches!(alice.next().await, Event::Up { .. }));
            assert!(matches!(bob.next().await, Event::Up { .. }));
            bob.handle.send(Command::Open {
                session: PEER,
                to: alice.at.direct().unwrap(),
                sockets: 16,
                until: clock::moment().after(Duration::from_secs(60)),
            });
            let Event::NewPath { source: hit, .. } = alice.next().await else {
                panic!("a keepalive from another port");
            };
            assert_ne!(hit, bob.at);
            let frame = vec![0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0];
            let send = |machine: &Machine, via| {
                machine.handle.send(Command::Send {
                    session: PEER,
                    frame: frame.clone(),
                    via,
                });
            };
            // Until one is hit, all goes by the main socket.
            send(&bob, None);
            assert!(
                matches!(alice.next().await, Event::Control { source, .. } if source == bob.at)
            );
            send(&alice, Some(hit));
            assert!(
                matches!(bob.next().await, Event::Control { source, .. } if source == alice.at)
            );
            send(&bob, None);
            assert!(matches!(alice.next().await, Event::Control { source, .. } if source == hit));
            alice.handle.stop();
            bob.handle.stop();
        });
    }

    #[test]
    fn two_threads_make_a_session_and_talk_over_real_sockets() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut alice, mut bob) = (machine(1, 8), machine(2, 1));
            alice.handle.send(Command::Initiate {
                session: PEER,
                keys: alice.keys(),
                to: vec![(bob.at, knock())],
            });
            let Event::Sealed { source, bytes } = bob.next().await else {
                panic!("the Knock comes first");
            };
            assert_eq!((source, bytes), (alice.at, knock()));
            bob.handle.send(Command::Admit {
                session: PEER,
                keys: bob.keys(),
                source,
                admission: Admission::Keep,
            });
            assert!(matches!(alice.next().await, Event::Up { endpoint, .. } if endpoint == bob.at));
            let frame = vec![0, 1, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0];
            for _ in 0..20 {
                alice.handle.send(Command::Send {
                    session: PEER,
                    frame: frame.clone(),
                    via: None,
                });
            }
            // Bob's channel holds one event: whatever else is lost, this is not, and nothing overtakes it.
            assert!(matches!(bob.next().await, Event::Up { endpoint, .. } if endpoint == alice.at));
            alice.handle.stop();
            bob.handle.stop();
        });
    }
}
