//! A data thread: waits for the TUN, the sockets and commands, and runs each batch to completion.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use rand_core::{OsRng, RngCore};
use tokio::sync::mpsc::error::TrySendError;

use crate::{
    packet::vnet::{self, Undone},
    platform::{
        clock,
        poll::{Health, Interest, Poll, Waker},
        tun::{self, Tun},
        udp::{Came, Family, Tail},
    },
    time::Moment,
};

use super::{
    arriving,
    command::Event,
    commands::After,
    crew::Role,
    departing,
    drops::DropReason,
    fair_queue::{Held, What},
    handle::{Parts, Running},
    jumps::Jumps,
    lane::Order,
    offloads::Offloads,
    openings::Openings,
    outbound::PADDING,
    shard::Shard,
    uplink::Uplink,
    writing::{Host, Joins},
};

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

pub(super) const TUN: u64 = 0;
const UDP4: u64 = 1;
const UDP6: u64 = 2;
const COMMAND: u64 = 3;
const OPENINGS: u64 = 4;

/// A socket that was full can be written again.
const WRITABLE: u64 = 5;

/// The thread's own: the shard and the descriptors around it.
pub(super) struct Turnstile {
    pub(super) shard: Shard,
    pub(super) role: Role,
    pub(super) poll: Poll,
    pub(super) parts: Parts,
    joins: Joins,
    jumps: Jumps,
    pub(super) openings: Openings,
    pub(super) uplink: Uplink,
    offloads: Arc<Offloads>,
    pub(super) waker: Waker,
    turned: Arc<AtomicU64>,
    owed: Vec<Event>,
    ticked: Moment,
    /// Whether it is not to hear that the device has something.
    pub(super) is_deaf: bool,
    /// Whether anything went out in this turn.
    has_departed: bool,
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
pub(super) enum Turn {
    Next,
    Last,
}

impl Turnstile {
    pub(super) fn new(
        parts: Parts,
        offloads: &Arc<Offloads>,
        role: Role,
        waker: Waker,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(&parts.sockets.udp4, UDP4)?;
        if let Some(udp6) = &parts.sockets.udp6 {
            poll.add(udp6, UDP6)?;
        }
        poll.add(&waker, COMMAND)?;
        let openings = Openings::new(Arc::clone(offloads))?;
        poll.add(openings.poll(), OPENINGS)?;
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let tables = parts.tables.load_full();
        Ok(Self {
            shard: Shard::new(seed, tables, parts.mtu, Arc::default()),
            role,
            poll,
            joins: Joins::of(parts.tun.as_ref(), offloads),
            jumps: Jumps::default(),
            parts,
            openings,
            uplink: Uplink::new(OsRng.next_u64()),
            offloads: Arc::clone(offloads),
            waker,
            turned: Arc::new(AtomicU64::new(clock::moment().0)),
            owed: Vec::new(),
            ticked: Moment(0),
            is_deaf: false,
            has_departed: false,
            buffer: vec![0; tun::PACKET_MAX + PADDING],
        })
    }

    pub(super) fn start(self, name: String) -> io::Result<Running> {
        let drops = Arc::clone(&self.shard.drops);
        let turned = Arc::clone(&self.turned);
        let waker = self.waker.clone();
        let thread = std::thread::Builder::new().name(name);
        let thread = thread.spawn(move || self.run())?;
        Ok(Running {
            drops,
            turned,
            waker,
            thread: Some(thread),
        })
    }

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
            self.shard.end_all(now.at);
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
        let is_awaited = matches!(&self.role, Role::First { crew, .. } if crew.is_awaited());
        let mut is_empty = is_awaited;
        for family in [Family::V4, Family::V6] {
            if is_awaited || ready.has(token_of(family)) {
                is_empty &= self.take_datagrams(family) == Came::All;
            }
        }
        if ready.has(OPENINGS) {
            self.openings.take(clock::moment(), &mut self.shard)?;
        }
        let mut packets = Came::All;
        if ready.has(TUN) {
            match self.take_packets() {
                Ok(came) => packets = came,
                Err(error) => self.lose_tun(error),
            }
        }
        let now = clock::moment();
        self.turned.store(now.0, Ordering::Relaxed);
        self.shard.handle_exchanges(now);
        if now.since(self.ticked) >= TICK {
            self.ticked = now;
            self.shard.handle_timers(now);
            self.openings.handle_timers(now);
        }
        if let Some(kept) = self.openings.poll_kept() {
            self.shard.set_kept(kept);
        }
        self.flush(match packets {
            Came::Full if self.has_departed => self.tail(),
            // Where nothing goes out, nothing comes to go with it.
            Came::Full | Came::All => Tail::Goes,
        });
        self.has_departed = false;
        let has_left = self.has_left();
        match &mut self.role {
            Role::First { crew, .. } => {
                crew.note_left(now, has_left);
                crew.note_delivered(now, is_empty);
                if crew.is_awaited() {
                    // There may be more, and the kernel does not say so again.
                    self.waker.wake();
                }
            }
            Role::Lane(_) => self.listen()?,
        }
        self.tell();
        Ok(Turn::Next)
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.shard.out.datagrams.is_empty() && !self.uplink.is_full() {
            // The last of them wait for what the device has.
            return Some(Duration::ZERO);
        }
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
        match self.role {
            Role::First { .. } => match self.take_commands()? {
                Turn::Next => self.take_words(),
                Turn::Last => Ok(Turn::Last),
            },
            Role::Lane(_) => self.take_orders(),
        }
    }

    fn take_commands(&mut self) -> io::Result<Turn> {
        for _ in 0..COMMANDS {
            let Role::First { commands, .. } = &self.role else {
                return Ok(Turn::Next);
            };
            let command = match commands.try_recv() {
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

    pub(super) fn attach(&mut self, tun: Option<Tun>) -> io::Result<()> {
        self.flush(Tail::Goes);
        let tun = match self.give_queues(tun.as_ref()) {
            Ok(()) => tun,
            Err(error) => {
                // A lane that could not write would lose what it opens.
                self.give_queues(None)?;
                self.owed.push(Event::TunLost { error });
                None
            }
        };
        self.parts.tun = tun;
        self.joins = Joins::of(self.parts.tun.as_ref(), &self.offloads);
        if let Some(tun) = &self.parts.tun {
            self.poll.add(tun, TUN)?;
            self.is_deaf = false;
            self.shard.mtu = usize::from(tun.mtu());
            self.offloads.note_device(tun);
        }
        Ok(())
    }

    fn give_queues(&mut self, tun: Option<&Tun>) -> io::Result<()> {
        let Role::First { crew, .. } = &self.role else {
            return Ok(());
        };
        for thread in crew.lanes() {
            let tun = tun.map(Tun::queue).transpose()?;
            self.shard
                .lanes
                .orders
                .push((thread, Order::Attach { tun }));
        }
        Ok(())
    }

    /// Goes on without a device: sessions and gossip live, and the control plane may attach another.
    fn lose_tun(&mut self, error: io::Error) {
        let is_lost = self.parts.tun.take().is_some();
        // A lane's queue goes with the device, which the first thread misses too.
        if is_lost && matches!(self.role, Role::First { .. }) {
            self.owed.push(Event::TunLost { error });
        }
    }

    /// Tells whether all was taken that was there.
    fn take_packets(&mut self) -> io::Result<Came> {
        let now = clock::moment();
        let mut head = [0; vnet::LEN];
        let mut bytes = 0;
        for _ in 0..TURN {
            let Some(tun) = &self.parts.tun else {
                return Ok(Came::All);
            };
            if self.shard.waits_to_send() {
                return Ok(Came::All);
            }
            let packet = &mut self.buffer[..tun::PACKET_MAX];
            let Some(len) = tun.read(&mut head, packet)? else {
                return Ok(Came::All);
            };
            match vnet::decode(&head) {
                Ok(undone) => {
                    let Self {
                        shard,
                        uplink,
                        buffer,
                        ..
                    } = self;
                    take_packet(shard, uplink, now, buffer, (len, undone));
                }
                Err(_unknown) => self.shard.drops.count(DropReason::OutNotIp),
            }
            self.flush_if_many();
            bytes += len;
            if bytes >= TURN_BYTES {
                break;
            }
        }
        Ok(Came::Full)
    }

    /// Tells whether all was taken that was there.
    fn take_datagrams(&mut self, family: Family) -> Came {
        let mut came = Came::Full;
        if self.shard.waits_to_deliver() {
            // The first thread is reading its sockets empty.
            std::thread::yield_now();
            return came;
        }
        let now = clock::moment();
        let mut taken = 0;
        while came == Came::Full && taken < DATAGRAMS {
            let Self {
                shard,
                parts,
                joins,
                openings,
                offloads,
                role,
                ..
            } = self;
            let Some(socket) = parts.sockets.socket(family) else {
                return Came::All;
            };
            let tun = parts.tun.as_ref();
            let mut host = Host {
                tun,
                joins,
                offloads,
            };
            let received = socket.receive(|message| {
                if let Role::Lane(post) = role {
                    post.catch_up(now, shard);
                }
                taken += arriving::take_in(now, message, shard, openings, &mut host);
                if shard.out.packets.len() >= FLUSH && !shard.waits_to_deliver() {
                    host.write(shard);
                }
            });
            // An error here is about the socket as a whole; it comes again, and the control plane finds no peer.
            came = received.unwrap_or(Came::All);
            self.hold_carried(now);
            self.flush_if_many();
            if self.shard.waits_to_deliver() {
                break;
            }
        }
        came
    }

    pub(super) fn flush_if_many(&mut self) {
        let out = &self.shard.out;
        let may_send = !self.uplink.is_full();
        if (may_send && out.datagrams.len() >= FLUSH) || out.packets.len() >= FLUSH {
            self.flush(self.tail());
        }
    }

    /// What becomes of a last train that has room, while more packets come: it waits for them, unless something waits for it.
    fn tail(&self) -> Tail {
        let is_awaited = match &self.role {
            Role::First { crew, .. } => !crew.is_alone(),
            Role::Lane(_) => self.shard.has_words(),
        };
        match is_awaited {
            true => Tail::Goes,
            false => Tail::Stays,
        }
    }

    /// Keys go to lanes before the datagram that lets the other side use them; what a lane has sealed goes out before what it
    /// has handed over.
    pub(super) fn flush(&mut self, tail: Tail) {
        if let Role::First { crew, .. } = &mut self.role {
            crew.deliver(&mut self.shard.lanes.orders);
        }
        if !self.uplink.is_full() && !self.shard.out.datagrams.is_empty() {
            self.send(tail);
        }
        if !self.shard.out.packets.is_empty() && !self.shard.waits_to_deliver() {
            let mut host = Host {
                tun: self.parts.tun.as_ref(),
                joins: &mut self.joins,
                offloads: &self.offloads,
            };
            host.write(&mut self.shard);
        }
        if let (Role::Lane(post), Some(lane)) = (&self.role, &mut self.shard.lane)
            && self.shard.out.datagrams.is_empty()
        {
            post.deliver(&mut lane.words);
        }
    }

    fn send(&mut self, tail: Tail) {
        let sockets = &mut self.parts.sockets;
        let departed = departing::send(&self.shard.out, sockets, &mut self.openings, tail);
        self.offloads.note_sockets(sockets);
        self.count_refused(departed.refused);
        self.shard.out.datagrams.forget_first(departed.taken);
        self.has_departed |= departed.taken > 0;
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
        self.flush(Tail::Goes);
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
                self.flush(Tail::Goes);
                sealed = 0;
            }
        }
        self.flush(Tail::Goes);
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

/// A packet that a program wrote goes its way, or waits for the uplink.
pub(super) fn take_packet(
    shard: &mut Shard,
    uplink: &mut Uplink,
    now: Moment,
    buffer: &mut [u8],
    (len, undone): (usize, Undone),
) {
    if uplink.is_open() {
        shard.handle_packet(now, buffer, (len, undone));
    } else {
        let packet = buffer.get(..len).unwrap_or_default();
        let lost = uplink.hold(now, packet, undone);
        shard.drops.add(DropReason::OutUplinkFull, lost);
    }
}

fn token_of(family: Family) -> u64 {
    match family {
        Family::V4 => UDP4,
        Family::V6 => UDP6,
    }
}
