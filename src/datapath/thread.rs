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
    addr::{Path, Underlay},
    packet::{ecn::Ecn, vnet},
    platform::{
        clock,
        poll::{Health, Interest, Poll, Waker},
        tun::{self, Tun},
        udp::{self, Came, Cut, Family},
    },
    tables::Tables,
    time::Moment,
};

use super::{
    command::{Command, Event},
    commands::After,
    departing,
    drops::{DropReason, Drops},
    fair_queue::{Held, What},
    inbound::Source,
    jumps::Jumps,
    offloads::{Offloads, Wishes},
    openings::Openings,
    outbound::PADDING,
    shard::Shard,
    uplink::Uplink,
    writing::Joins,
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

/// The control plane's end of a data thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Handle {
    teller: Teller,
    drops: Arc<Drops>,
    offloads: Arc<Offloads>,
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

    /// What is left to the kernel.
    pub fn offloads(&self) -> &Offloads {
        &self.offloads
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

/// Packets read from the TUN before the sockets get their turn.
const TURN: usize = 64;

/// Bytes read from the TUN before the sockets get their turn: a tenth of a millisecond's work.
const TURN_BYTES: usize = 256 << 10;

/// Datagrams taken in before the TUN gets its turn: four trains of long ones.
const DATAGRAMS: usize = 180;

/// Commands carried out before packets get their turn.
const COMMANDS: usize = 256;

/// Bytes of what has waited that are sealed before they are sent.
const AT_ONCE: usize = 16 << 10;

/// How long a thread that ends waits for a full socket.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Datagrams that make it worth a system call before the turn is over.
const FLUSH: usize = 64;

const TUN: u64 = 0;
const UDP4: u64 = 1;
const UDP6: u64 = 2;
const COMMAND: u64 = 3;
const OPENINGS: u64 = 4;

/// A socket that was full can be written again.
const WRITABLE: u64 = 5;

/// Starts a data thread.
///
/// # Errors
/// When the kernel gives no thread, no epoll or no eventfd; device and sockets are closed then.
pub fn start(mut parts: Parts) -> io::Result<Handle> {
    let offloads = Offloads::start(parts.wishes, &mut parts.sockets);
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
    let openings = Openings::new(Arc::clone(&offloads))?;
    poll.add(openings.poll(), OPENINGS)?;
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
        joins: Joins::of(parts.tun.as_ref(), &offloads),
        jumps: Jumps::default(),
        parts,
        openings,
        uplink: Uplink::new(OsRng.next_u64()),
        offloads: Arc::clone(&offloads),
        inbox,
        waker: waker.clone(),
        turned: Arc::clone(&turned),
        owed: Vec::new(),
        ticked: Moment(0),
        buffer: vec![0; tun::PACKET_MAX + PADDING],
    };
    let thread = std::thread::Builder::new()
        .name("data".into())
        .spawn(move || turnstile.run())?;
    Ok(Handle {
        teller: Teller { commands, waker },
        drops,
        offloads,
        turned,
        thread: Some(thread),
    })
}

/// The thread's own: the shard and the descriptors around it.
struct Turnstile {
    shard: Shard,
    poll: Poll,
    parts: Parts,
    joins: Joins,
    jumps: Jumps,
    openings: Openings,
    uplink: Uplink,
    offloads: Arc<Offloads>,
    inbox: mpsc::Receiver<Command>,
    waker: Waker,
    turned: Arc<AtomicU64>,
    owed: Vec<Event>,
    ticked: Moment,
    buffer: Vec<u8>,
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

/// Why a full socket is not waited for any longer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Room,
    Late,
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
            if one.is_readable {
                ready.note(one.token);
            }
            if one.is_writable {
                ready.note(WRITABLE);
            }
            if one.token == TUN {
                device = one.health;
            }
        })?;
        if device == Health::Broken {
            self.lose_tun(io::Error::other("the device is gone"));
        }
        let now = clock::now();
        if self.jumps.note(now) {
            // Before anything is sealed.
            self.shard.renew_keys(now.at);
        }
        self.shard.apply_tables(&self.parts.tables.load());
        if ready.has(WRITABLE) {
            self.resume(now.at, Why::Room)?;
        } else if self.uplink.due().is_some_and(|due| now.at >= due) {
            self.resume(now.at, Why::Late)?;
        }
        if ready.has(COMMAND)
            && let Turn::Last = self.carry_out()?
        {
            self.end()?;
            return Ok(Turn::Last);
        }
        for family in [Family::V4, Family::V6] {
            if ready.has(token_of(family)) {
                self.take_datagrams(family);
            }
        }
        if ready.has(OPENINGS) {
            self.openings.take(clock::moment(), &mut self.shard)?;
        }
        if ready.has(TUN)
            && let Err(error) = self.take_packets()
        {
            self.lose_tun(error);
        }
        let now = clock::moment();
        self.turned.store(now.0, Ordering::Relaxed);
        self.shard.handle_exchanges(now);
        if now.since(self.ticked) >= TICK {
            self.ticked = now;
            self.shard.handle_timers(now);
            self.openings.handle_timers(now);
        }
        self.flush();
        self.tell();
        Ok(Turn::Next)
    }

    fn timeout(&self) -> Option<Duration> {
        let is_idle = self.shard.is_idle() && self.openings.is_empty();
        let regular = match (self.owed.is_empty(), is_idle) {
            (false, _) => Some(OWED),
            (true, false) => Some(TICK),
            (true, true) => None,
        };
        let due = [self.shard.exchanges_due(), self.uplink.due()];
        let due = due.into_iter().flatten().map(|due| {
            // The kernel waits for whole milliseconds, and less than it is told.
            due.since(clock::moment()) + Duration::from_millis(1)
        });
        regular.into_iter().chain(due).min()
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
                After::Open(order) => self.openings.open(&order),
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
        self.joins = Joins::of(self.parts.tun.as_ref(), &self.offloads);
        if let Some(tun) = &self.parts.tun {
            self.poll.add(tun, TUN)?;
            self.shard.mtu = usize::from(tun.mtu());
            self.offloads.note_device(tun);
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
        let mut head = [0; vnet::LEN];
        let mut bytes = 0;
        for _ in 0..TURN {
            let Some(tun) = &self.parts.tun else {
                return Ok(());
            };
            let packet = &mut self.buffer[..tun::PACKET_MAX];
            let Some(len) = tun.read(&mut head, packet)? else {
                return Ok(());
            };
            match vnet::decode(&head) {
                Ok(undone) if self.uplink.is_open() => {
                    self.shard
                        .handle_packet(now, &mut self.buffer, (len, undone));
                }
                Ok(undone) => {
                    let lost = self.uplink.hold(now, &self.buffer[..len], undone);
                    self.shard.drops.add(DropReason::OutUplinkFull, lost);
                }
                Err(_unknown) => self.shard.drops.count(DropReason::OutNotIp),
            }
            self.flush_if_many();
            bytes += len;
            if bytes >= TURN_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_datagrams(&mut self, family: Family) {
        let now = clock::moment();
        let mut taken = 0;
        let mut came = Came::Full;
        while came == Came::Full && taken < DATAGRAMS {
            let Self {
                shard,
                parts,
                joins,
                openings,
                offloads,
                ..
            } = self;
            let Some(socket) = parts.sockets.socket(family) else {
                return;
            };
            let received = socket.receive(|message| {
                taken += take_in(shard, openings, now, &message);
                if shard.out.packets.len() >= FLUSH {
                    write(parts.tun.as_ref(), joins, shard, offloads);
                }
            });
            // An error here is about the socket as a whole; it comes again, and the control plane finds no peer.
            came = received.unwrap_or(Came::All);
            self.hold_carried(now);
            self.flush_if_many();
        }
    }

    fn flush_if_many(&mut self) {
        let out = &self.shard.out;
        let may_send = !self.uplink.is_full();
        if (may_send && out.datagrams.len() >= FLUSH) || out.packets.len() >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.uplink.is_full() && !self.shard.out.datagrams.is_empty() {
            self.send();
        }
        if !self.shard.out.packets.is_empty() {
            let tun = self.parts.tun.as_ref();
            write(tun, &mut self.joins, &mut self.shard, &self.offloads);
        }
    }

    fn send(&mut self) {
        let sockets = &mut self.parts.sockets;
        let departed = departing::send(&self.shard.out, sockets, &mut self.openings);
        self.offloads.note_sockets(sockets);
        self.count_refused(departed.refused);
        self.shard.out.datagrams.forget_first(departed.taken);
        if let Some(family) = departed.full {
            self.fill(family);
        }
    }

    fn count_refused(&self, many: usize) {
        let many = u64::try_from(many).unwrap_or(u64::MAX);
        self.shard.drops.add(DropReason::SendFailed, many);
    }

    fn fill(&mut self, family: Family) {
        if self.watch(family, Interest::ReadingAndWriting).is_err() {
            // Nothing would say when it takes more.
            self.count_refused(self.shard.out.datagrams.len());
            self.shard.out.datagrams.clear();
            return;
        }
        if let Some(socket) = self.parts.sockets.socket(family) {
            socket.note_full();
        }
        self.uplink.fill(clock::moment(), family);
        self.shard.out.is_full = true;
    }

    fn watch(&mut self, family: Family, interest: Interest) -> io::Result<()> {
        match self.parts.sockets.socket(family) {
            Some(socket) => self.poll.watch(socket, token_of(family), interest),
            None => Ok(()),
        }
    }

    /// A socket that was full takes more again, or has not for too long: what is sealed goes first, then what has waited. That
    /// is sealed only as far as it goes out at once, since what is not sealed can still give way.
    fn resume(&mut self, now: Moment, why: Why) -> io::Result<()> {
        if let Some((family, took)) = self.uplink.reopen(now) {
            self.shard.out.is_full = false;
            self.watch(family, Interest::Reading)?;
            if let Some(socket) = self.parts.sockets.socket(family) {
                socket.fit_send_buffer(took);
            }
        }
        let before = self.shard.out.datagrams.len();
        self.flush();
        let takes_nothing = self.uplink.is_full() && self.shard.out.datagrams.len() == before;
        if why == Why::Room && takes_nothing {
            // It says that it has room: it is the datagram then.
            self.shard.out.datagrams.forget_first(1);
            self.count_refused(1);
        }
        let mut sealed = 0;
        loop {
            let next = self.uplink.next(now);
            self.shard.drops.add(DropReason::OutCongested, next.late);
            let Some(held) = next.held else {
                break;
            };
            sealed += held.len;
            self.go_on(now, held);
            if sealed >= AT_ONCE {
                self.flush();
                sealed = 0;
            }
        }
        self.flush();
        Ok(())
    }

    fn go_on(&mut self, now: Moment, mut held: Held) {
        match held.what {
            What::Packet(undone) => {
                let what = (held.len, undone);
                self.shard.handle_packet(now, &mut held.buffer, what);
            }
            What::Carried(target) => {
                let bytes = &held.buffer[..held.len];
                if !self.shard.out.datagrams.push(bytes, target) {
                    self.shard.drops.count(DropReason::NoBuffer);
                }
            }
        }
        self.uplink.release(held);
    }

    /// What is carried for others waits with what programs of this host send.
    fn hold_carried(&mut self, now: Moment) {
        for (target, datagram) in self.shard.out.carried.drain(..) {
            let lost = self.uplink.hold_carried(now, &datagram, target);
            self.shard.drops.add(DropReason::OutUplinkFull, lost);
        }
    }

    /// The last words, good-byes among them, get out if they can soon.
    fn end(&mut self) -> io::Result<()> {
        let full = self.uplink.full();
        if let Some(socket) = full.and_then(|family| self.parts.sockets.socket(family)) {
            socket.await_room(LAST_WORDS);
        }
        self.resume(clock::moment(), Why::Room)?;
        self.tell();
        Ok(())
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
                Some(TrySendError::Full(event)) if event.must_arrive() => self.owed.push(event),
                Some(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                    self.shard.drops.count(DropReason::EventFull);
                }
            }
        }
    }
}

fn token_of(family: Family) -> u64 {
    match family {
        Family::V4 => UDP4,
        Family::V6 => UDP6,
    }
}

fn write(tun: Option<&Tun>, joins: &mut Joins, shard: &mut Shard, offloads: &Offloads) {
    let written = joins.write(tun, &mut shard.out.packets);
    shard.drops.add(DropReason::TunFailed, written.lost);
    if written.refused.is_some() {
        offloads.tun.set(written.refused);
    }
}

/// Takes in the datagrams of one message; tells how many.
fn take_in(
    shard: &mut Shard,
    openings: &mut Openings,
    now: Moment,
    message: &udp::Received<'_>,
) -> usize {
    let at = Underlay::new(message.source);
    let source = Source {
        path: Path::Direct(at),
        ecn: Ecn::of_bits(message.ecn),
    };
    let mut taken = 0;
    for datagram in message.datagrams() {
        taken += 1;
        if message.cut == Cut::Cut {
            shard.drops.count(DropReason::InTruncated);
        } else if !openings.is_silent(now, at) {
            shard.handle_datagram(now, source, datagram);
        } else if shard.take_data(now, source, datagram) {
            openings.release(at);
        }
    }
    taken
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
        at: Path,
        seed: u8,
    }

    fn machine(seed: u8, events: usize) -> Machine {
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
