//! The data thread: waits for the TUN, the sockets and commands, and runs each batch to completion.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use rand_core::{OsRng, RngCore};
use tokio::sync::mpsc::error::TrySendError;

use crate::{
    addr::Underlay,
    platform::{
        clock,
        poll::{Health, Poll, Waker},
        tun::Tun,
        udp::{self, Cut},
    },
    tables::Tables,
    time::Moment,
};

use super::{
    batch,
    command::{Command, Event},
    commands::After,
    drops::{DropReason, Drops},
    shard::Shard,
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
}

/// Tells a data thread what to do; many may hold one.
#[derive(Clone, Debug)]
pub struct Teller {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

impl Teller {
    /// Sends a command; they are carried out in order. After the thread has ended it is dropped.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

/// The control plane's end of a data thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Handle {
    teller: Teller,
    drops: Arc<Drops>,
    turned: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
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

    /// What the thread dropped, by reason.
    pub fn drops(&self) -> &Arc<Drops> {
        &self.drops
    }

    /// When it made its last turn. One that still runs makes another soon after this was asked.
    pub fn turned(&self) -> Moment {
        let turned = Moment(self.turned.load(Ordering::Relaxed));
        self.teller.waker.wake();
        turned
    }

    /// Ends the thread and waits until its device and sockets are closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// How often timers run while there is a state: boringtun's resolution (`research/dataplane.md` §3.2).
const TICK: Duration = Duration::from_millis(250);

/// How soon an event that must not be lost is offered again to a full channel.
const OWED: Duration = Duration::from_millis(10);

/// Packets read from the TUN before the sockets get their turn, and the other way round.
const TURN: usize = 64;

/// Commands carried out before packets get their turn.
const COMMANDS: usize = 256;

/// Datagrams that make it worth a system call before the turn is over.
const FLUSH: usize = 64;

const TUN: u64 = 0;
const UDP4: u64 = 1;
const UDP6: u64 = 2;
const COMMAND: u64 = 3;

/// Starts a data thread.
///
/// # Errors
/// When the kernel gives no thread, no epoll or no eventfd; device and sockets are closed then.
pub fn start(parts: Parts) -> io::Result<Handle> {
    let (commands, inbox) = mpsc::channel();
    let waker = Waker::new()?;
    let drops = Arc::new(Drops::default());
    let turned = Arc::new(AtomicU64::new(clock::moment().0));
    let poll = Poll::new()?;
    poll.add(&parts.sockets.udp4, UDP4)?;
    if let Some(udp6) = &parts.sockets.udp6 {
        poll.add(udp6, UDP6)?;
    }
    if let Some(tun) = &parts.tun {
        poll.add(tun, TUN)?;
    }
    poll.add(&waker, COMMAND)?;
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    let shard = Shard::new(
        seed,
        parts.tables.load_full(),
        parts.mtu,
        Arc::clone(&drops),
    );
    let turnstile = Turnstile {
        shard,
        poll,
        parts,
        inbox,
        waker: waker.clone(),
        turned: Arc::clone(&turned),
        owed: Vec::new(),
        ticked: Moment(0),
        buffer: Box::new([0; batch::CAPACITY]),
    };
    let thread = std::thread::Builder::new()
        .name("data".into())
        .spawn(move || turnstile.run())?;
    Ok(Handle {
        teller: Teller { commands, waker },
        drops,
        turned,
        thread: Some(thread),
    })
}

/// The thread's own: the shard and the descriptors around it.
struct Turnstile {
    shard: Shard,
    poll: Poll,
    parts: Parts,
    inbox: mpsc::Receiver<Command>,
    waker: Waker,
    turned: Arc<AtomicU64>,
    owed: Vec<Event>,
    ticked: Moment,
    buffer: Box<[u8; batch::CAPACITY]>,
}

/// Which descriptors have something.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    bits: u8,
}

impl Ready {
    fn note(&mut self, token: u64) {
        self.bits |= 1 << token;
    }

    fn has(self, token: u64) -> bool {
        self.bits & (1 << token) != 0
    }
}

/// Whether the thread goes on.
enum Turn {
    Next,
    Last,
}

impl Turnstile {
    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(Turn::Next) => {}
                Ok(Turn::Last) => return,
                // The control plane notices by the channel of events, which closes.
                Err(error) => return tracing::error!(%error, "The data thread cannot go on"),
            }
        }
    }

    fn turn(&mut self) -> io::Result<Turn> {
        let mut ready = Ready::default();
        let mut device = Health::Fine;
        self.poll.wait(self.timeout(), |one| {
            ready.note(one.token);
            if one.token == TUN {
                device = one.health;
            }
        })?;
        if device == Health::Broken {
            self.lose_tun(io::Error::other("the device is gone"));
        }
        self.shard.apply_tables(&self.parts.tables.load_full());
        if ready.has(COMMAND)
            && let Turn::Last = self.carry_out()?
        {
            self.flush();
            self.tell();
            return Ok(Turn::Last);
        }
        if ready.has(UDP4) || ready.has(UDP6) {
            self.take_datagrams(ready);
        }
        if ready.has(TUN)
            && let Err(error) = self.take_packets()
        {
            self.lose_tun(error);
        }
        let now = clock::moment();
        self.turned.store(now.0, Ordering::Relaxed);
        if now.since(self.ticked) >= TICK {
            self.ticked = now;
            self.shard.handle_timers(now);
        }
        self.flush();
        self.tell();
        Ok(Turn::Next)
    }

    fn timeout(&self) -> Option<Duration> {
        match (self.owed.is_empty(), self.shard.is_idle()) {
            (false, _) => Some(OWED),
            (true, false) => Some(TICK),
            (true, true) => None,
        }
    }

    fn carry_out(&mut self) -> io::Result<Turn> {
        self.waker.clear();
        for _ in 0..COMMANDS {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Empty) => return Ok(Turn::Next),
                Err(mpsc::TryRecvError::Disconnected) => return Ok(Turn::Last),
            };
            match self.shard.handle_command(clock::now(), command) {
                After::Continue => {}
                After::Attach(tun) => self.attach(tun)?,
                After::Stop => return Ok(Turn::Last),
            }
            self.flush_if_many();
        }
        // More wait: come back without sleeping.
        self.waker.wake();
        Ok(Turn::Next)
    }

    fn attach(&mut self, tun: Option<Tun>) -> io::Result<()> {
        self.flush();
        self.parts.tun = tun;
        if let Some(tun) = &self.parts.tun {
            self.poll.add(tun, TUN)?;
            self.shard.mtu = usize::from(tun.mtu());
        }
        Ok(())
    }

    /// Goes on without a device: sessions and gossip live, and the control plane may attach another.
    fn lose_tun(&mut self, error: io::Error) {
        if self.parts.tun.take().is_some() {
            self.owed.push(Event::TunLost { error });
        }
    }

    fn take_packets(&mut self) -> io::Result<()> {
        let now = clock::moment();
        for _ in 0..TURN {
            let Some(tun) = &self.parts.tun else {
                return Ok(());
            };
            // The last 16 bytes are room for padding.
            let room = self.buffer.len() - 16;
            let Some(len) = tun.read(&mut self.buffer[..room])? else {
                return Ok(());
            };
            self.shard.handle_packet(now, &mut self.buffer[..], len);
            self.flush_if_many();
        }
        Ok(())
    }

    fn take_datagrams(&mut self, ready: Ready) {
        let now = clock::moment();
        let Self { shard, parts, .. } = self;
        let sockets = [
            (UDP4, Some(&mut parts.sockets.udp4)),
            (UDP6, parts.sockets.udp6.as_mut()),
        ];
        for (token, socket) in sockets {
            let Some(socket) = socket.filter(|_| ready.has(token)) else {
                continue;
            };
            // An error here is about the socket as a whole; it comes again, and the control plane finds no peer.
            let _ = socket.receive(|datagram| take_in(shard, now, datagram));
        }
    }

    fn flush_if_many(&mut self) {
        if self.shard.out.datagrams.len() >= FLUSH || self.shard.out.packets.len() >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let out = &mut self.shard.out;
        if !out.datagrams.is_empty() {
            let all = || out.datagrams.iter().map(|(to, bytes)| (to.socket(), bytes));
            let mut refused = self
                .parts
                .sockets
                .udp4
                .send(all().filter(|(to, _)| to.is_ipv4()));
            refused += match &self.parts.sockets.udp6 {
                Some(udp6) => udp6.send(all().filter(|(to, _)| to.is_ipv6())),
                None => all().filter(|(to, _)| to.is_ipv6()).count(),
            };
            let refused = u64::try_from(refused).unwrap_or(u64::MAX);
            self.shard.drops.add(DropReason::SendFailed, refused);
            out.datagrams.clear();
        }
        for (_, packet) in out.packets.iter() {
            let written = self.parts.tun.as_ref().map(|tun| tun.write(packet));
            if !matches!(written, Some(Ok(()))) {
                self.shard.drops.count(DropReason::TunFailed);
            }
        }
        out.packets.clear();
    }

    /// Offers what is owed, then what is new. Changes of sessions are owed until they are taken, in their order.
    fn tell(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        let new = self.shard.out.events.drain(..);
        for event in owed.into_iter().chain(new) {
            let refused = if self.owed.is_empty() {
                self.parts.events.try_send(event).err()
            } else {
                // Nothing overtakes what is owed.
                Some(TrySendError::Full(event))
            };
            match refused {
                None => {}
                Some(TrySendError::Full(event)) if must_arrive(&event) => self.owed.push(event),
                Some(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                    self.shard.drops.count(DropReason::EventFull);
                }
            }
        }
    }
}

fn take_in(shard: &mut Shard, now: Moment, datagram: udp::Received<'_>) {
    if datagram.cut == Cut::Cut {
        shard.drops.count(DropReason::InTruncated);
        return;
    }
    let source = Underlay::new(datagram.source);
    shard.handle_datagram(now, source, datagram.bytes);
}

/// Whether the control plane would be wrong about its sessions without this event.
fn must_arrive(event: &Event) -> bool {
    match event {
        Event::Up { .. } | Event::Down { .. } | Event::TunLost { .. } => true,
        Event::Sealed { .. }
        | Event::Control { .. }
        | Event::Wanted { .. }
        | Event::NewPath { .. }
        | Event::NeedsKnock { .. }
        | Event::Foreign { .. }
        | Event::Door { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datapath::command::SessionKeys,
        ids::{PeerIx, SessionId},
        platform::udp::Socket,
        tables::Admission,
    };

    const PEER: SessionId = SessionId::Pair(PeerIx(0));

    struct Machine {
        handle: Handle,
        events: tokio::sync::mpsc::Receiver<Event>,
        at: Underlay,
        seed: u8,
    }

    fn machine(seed: u8, events: usize) -> Machine {
        let udp4 = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = Underlay::new(([127, 0, 0, 1], udp4.port().unwrap()).into());
        let (sender, events) = tokio::sync::mpsc::channel(events);
        let handle = start(Parts {
            tun: None,
            sockets: udp::Pair { udp4, udp6: None },
            tables: Arc::new(ArcSwap::from_pointee(Tables::vacant())),
            events: sender,
            mtu: 1420,
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
    fn a_thread_with_nothing_to_do_still_answers() {
        let idle = machine(1, 8);
        let asked = clock::moment();
        while idle.handle.turned() < asked {
            let passed = clock::moment().since(asked);
            assert!(
                passed < Duration::from_secs(10),
                "it turns when it is asked"
            );
            std::thread::yield_now();
        }
        idle.handle.stop();
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
