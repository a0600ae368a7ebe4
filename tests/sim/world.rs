//! The world: its machines, its wires, its clock and its log. One seed, one history.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use webmesh::{
    addr::{Path, Underlay},
    hash::{Use, short},
    keys::{InviteSecret, Token},
    members::invites::InviteRole,
    node::InviteOptions,
    overlay::Limits,
    time::{Moment, Now},
    wire::{frame, message::Message, reaching::Reaching, sealed::parse_header},
};

use crate::{
    machine::Machine,
    nats::{Nat, NatKind},
    tunnel::{Datagram, Inner, Kind, read},
    wires::{GOOD, MachineIx, Quality, Wires},
};

/// When every world begins, unix ms (2026-09-21).
const BEGIN_MS: u64 = 1_790_000_000_000;
/// Datagrams and deadlines that one moment may have before the world is taken for stuck.
const TURNS_PER_MOMENT: u32 = 200_000;

/// Whether nodes are woken at their deadlines alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polling {
    /// At their deadlines.
    AtDeadlines,
    /// Each 100 ms too, as a nervous shell would.
    Each100Ms,
}

/// Everything there is.
pub(crate) struct World {
    /// The machines, in the order in which they came.
    pub(crate) machines: Vec<Machine>,
    /// The network between them.
    pub(crate) wires: Wires,
    nats: Vec<Nat>,
    now: Moment,
    seed: u64,
    limits: Limits,
    by_address: BTreeMap<Path, MachineIx>,
    under_way: BTreeMap<(Moment, u64), Arrival>,
    next_serial: u64,
    next_packet: u64,
    next_poll: Option<Moment>,
    lie: Option<Lie>,
    log: Log,
}

/// One machine says in each Call and Answer that it is at a stranger's address too.
struct Lie {
    by: MachineIx,
    stranger: Underlay,
    told: u32,
    /// Datagrams that others sent to the stranger.
    hits: u32,
}

struct Arrival {
    to: MachineIx,
    source: Path,
    datagram: Datagram,
}

impl World {
    /// A quiet world with links to everyone.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::with(seed, Limits::EVERYONE, GOOD, Polling::AtDeadlines)
    }

    /// A world with chosen limits, wires and polling.
    pub(crate) fn with(seed: u64, limits: Limits, quality: Quality, polling: Polling) -> Self {
        println!("seed {seed}");
        Self {
            machines: Vec::new(),
            wires: Wires::new(seed, quality),
            nats: Vec::new(),
            now: Moment(1_000_000),
            seed,
            limits,
            by_address: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next_serial: 0,
            next_packet: 0,
            next_poll: (polling == Polling::Each100Ms).then_some(Moment(1_100_000)),
            lie: None,
            log: Log::default(),
        }
    }

    /// From now on a machine claims in each Call and Answer to be at a stranger's address too.
    pub(crate) fn let_lie(&mut self, by: MachineIx, stranger: Underlay) {
        self.lie = Some(Lie {
            by,
            stranger,
            told: 0,
            hits: 0,
        });
    }

    /// How often that was claimed, and how many datagrams went to the stranger.
    pub(crate) fn lies_and_hits(&self) -> (u32, u32) {
        self.lie.as_ref().map_or((0, 0), |lie| (lie.told, lie.hits))
    }

    /// Puts the lie into what the liar sends, and counts what others send to the stranger.
    fn lie(&mut self, from: MachineIx, to: Path, datagram: &mut Datagram) {
        let Some(lie) = &mut self.lie else { return };
        lie.hits += u32::from(to == Path::Direct(lie.stranger));
        let Kind::Data {
            inner: Inner::Frame(frame),
            ..
        } = &mut datagram.kind
        else {
            return;
        };
        let mut message = read(frame);
        let addresses = if let Message::Reaching(Reaching::Call(call)) = &mut message {
            &mut call.addresses
        } else if let Message::Reaching(Reaching::Answer(answer)) = &mut message {
            &mut answer.addresses
        } else {
            return;
        };
        if from == lie.by {
            addresses.insert(0, lie.stranger);
            lie.told += 1;
            *frame = frame::encode(&message, 0);
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Now {
        Now {
            at: self.now,
            unix_ms: BEGIN_MS + self.now.0 / 1000,
        }
    }

    /// Everything that happened, in one number.
    pub(crate) fn history(&self) -> String {
        self.log.hasher.finalize().to_hex().to_string()
    }

    /// A machine with an address of its own; nothing runs on it.
    pub(crate) fn machine(&mut self, name: &str) -> MachineIx {
        let ix = self.machines.len();
        let last = u8::try_from(ix + 1).expect("worlds are small");
        let address = Path::Direct(Underlay::new(SocketAddr::from((
            Ipv4Addr::new(10, 0, last, 1),
            41820,
        ))));
        let seed = self.seed * 1000 + u64::from(last);
        self.machines
            .push(Machine::new(name, address, seed, self.limits));
        self.by_address.insert(address, ix);
        ix
    }

    /// A home router; its public addresses lie in a prefix of their own.
    pub(crate) fn nat(&mut self, kind: NatKind) -> usize {
        let last = u8::try_from(self.nats.len() + 1).expect("worlds are small");
        self.nats
            .push(Nat::new(Ipv4Addr::new(198, last, 100, 7), kind));
        self.nats.len() - 1
    }

    /// A machine with a public address.
    pub(crate) fn public_machine(&mut self, name: &str) -> MachineIx {
        let ix = self.machine(name);
        let last = u8::try_from(ix + 1).expect("worlds are small");
        self.readdress(ix, Ipv4Addr::new(203, last, 113, 5));
        ix
    }

    /// A machine behind a router.
    pub(crate) fn hidden_machine(&mut self, name: &str, nat: usize) -> MachineIx {
        let ix = self.machine(name);
        let last = u8::try_from(ix + 1).expect("worlds are small");
        self.readdress(ix, Ipv4Addr::new(192, 168, 1, last));
        self.machines[ix].nat = Some(nat);
        ix
    }

    fn readdress(&mut self, ix: MachineIx, ip: Ipv4Addr) {
        let address = Path::Direct(Underlay::new(SocketAddr::from((ip, 41820))));
        let before = std::mem::replace(&mut self.machines[ix].address, address);
        self.by_address.remove(&before);
        self.by_address.insert(address, ix);
    }

    /// Whose a datagram is that goes from one machine to an address, and where it seems to come from.
    fn route(&mut self, from: MachineIx, to: Path) -> Option<(MachineIx, Path)> {
        let (inside, to) = (self.machines[from].address.direct()?, to.direct()?);
        let nat = self.machines[from].nat;
        if let Some(neighbour) = self.by_address.get(&Path::Direct(to)).copied()
            && self.machines[neighbour].nat == nat
        {
            return Some((neighbour, Path::Direct(inside)));
        }
        let now = self.now;
        let source = match nat {
            Some(nat) => self.nats[nat].leave(now, inside, to),
            None => inside,
        };
        let public = self.by_address.get(&Path::Direct(to)).copied();
        if let Some(public) = public.filter(|ix| self.machines[*ix].nat.is_none()) {
            return Some((public, Path::Direct(source)));
        }
        let router = self.nats.iter().find(|nat| nat.public() == to.ip())?;
        let inside = router.enter(now, to.socket().port(), source)?;
        let target = self.by_address.get(&Path::Direct(inside)).copied()?;
        Some((target, Path::Direct(source)))
    }

    /// A new machine that founds a network.
    pub(crate) fn founder(&mut self, name: &str) -> MachineIx {
        let ix = self.machine(name);
        self.found(ix);
        ix
    }

    /// A machine founds a network.
    pub(crate) fn found(&mut self, ix: MachineIx) {
        let now = self.now();
        self.machines[ix].found(now, "home");
        self.after_turn(ix);
    }

    /// A token of this machine.
    pub(crate) fn invite(&mut self, issuer: MachineIx, uses: u32, role: InviteRole) -> Token {
        let now = self.now();
        self.next_serial += 1;
        let secret = short(
            Use::JoinId,
            &[
                b"sim",
                &self.seed.to_le_bytes(),
                &self.next_serial.to_le_bytes(),
            ],
        );
        let options = InviteOptions {
            secret: InviteSecret(secret),
            expires_in_s: 3600,
            uses,
            role,
            offers: vec!["*".to_owned()],
        };
        let token = self.machines[issuer].command(now, |node| node.invite(now, options));
        self.after_turn(issuer);
        token.expect("an admin with an address may invite")
    }

    /// A new machine that begins to join.
    pub(crate) fn joiner(&mut self, name: &str, token: &Token) -> MachineIx {
        let ix = self.machine(name);
        self.join(ix, token);
        ix
    }

    /// A machine begins to join.
    pub(crate) fn join(&mut self, ix: MachineIx, token: &Token) {
        let now = self.now();
        self.machines[ix].join(now, token.clone());
        self.after_turn(ix);
    }

    /// A founder and others that joined through it, all knowing each other.
    pub(crate) fn network(&mut self, names: &[&str]) -> Vec<MachineIx> {
        let founder = self.founder(names[0]);
        let token = self.invite(founder, 64, InviteRole::Member);
        let mut all = vec![founder];
        all.extend(names[1..].iter().map(|name| self.joiner(name, &token)));
        let took = self.run_until(Duration::from_secs(60), Self::is_whole);
        assert!(
            took.is_some(),
            "the network does not become whole:\n{}",
            self.portrait()
        );
        all
    }

    /// Whether every machine is in the network, knows all others, and holds the same records.
    pub(crate) fn is_whole(&self) -> bool {
        let others = self.machines.len() - 1;
        self.machines
            .iter()
            .all(|machine| machine.node().is_some() && machine.known() == others)
            && self.is_one()
    }

    /// Whether every running member holds the same records.
    pub(crate) fn is_one(&self) -> bool {
        let mut held = self
            .machines
            .iter()
            .filter(|machine| machine.node().is_some())
            .map(Machine::held);
        let first = held.next();
        held.all(|other| Some(&other) == first.as_ref())
    }

    /// Who stands where, for a test that failed.
    pub(crate) fn portrait(&self) -> String {
        let mut text = format!("at {:.3} s\n", self.seconds());
        for machine in &self.machines {
            let state = if machine.node().is_some() {
                "member"
            } else {
                "no member"
            };
            let (known, held, near) = (
                machine.known(),
                machine.held().len(),
                machine.neighbours().len(),
            );
            let _ = writeln!(
                text,
                "{:>8} {state}, knows {known}, holds {held} records, {near} sessions",
                machine.name
            );
            if let Some(node) = machine.node() {
                let (own, homes) = (node.status(self.now()).own, node.homes().len());
                let _ = writeln!(text, "         reached at {:?}, {homes} homes", own.proven);
            }
            if let Some(node) = machine.node() {
                let _ = writeln!(text, "         {:?}", node.status(self.now()).counters);
            }
        }
        text
    }

    /// A program on one machine sends a packet to another; its number.
    pub(crate) fn send(&mut self, from: MachineIx, to: MachineIx) -> u64 {
        let address = self.address_of(to);
        self.send_to(from, address)
    }

    /// The address of a machine in the mesh.
    pub(crate) fn address_of(&self, ix: MachineIx) -> std::net::Ipv6Addr {
        let node = self.machines[ix].node();
        let address = node.map(|node| node.status(self.now()).own.ipv6);
        address.expect("packets go to members")
    }

    /// A program sends a packet to an address of the mesh, whether anybody is there or not; its number.
    pub(crate) fn send_to(&mut self, from: MachineIx, address: std::net::Ipv6Addr) -> u64 {
        self.next_packet += 1;
        let packet = self.next_packet;
        let now = self.now();
        self.machines[from].send_packet(now, address, packet);
        self.after_turn(from);
        packet
    }

    /// Gives a command to a node.
    pub(crate) fn command<T>(
        &mut self,
        ix: MachineIx,
        command: impl FnOnce(&mut webmesh::node::Node, Now) -> T,
    ) -> T {
        let now = self.now();
        let answer = self.machines[ix].command(now, |node| command(node, now));
        self.after_turn(ix);
        answer
    }

    /// Tells a node something.
    pub(crate) fn tell(&mut self, ix: MachineIx, input: webmesh::node::input::Input) {
        let now = self.now();
        self.machines[ix].handle(now, input);
        self.after_turn(ix);
    }

    /// The agent dies.
    pub(crate) fn kill(&mut self, ix: MachineIx) {
        self.machines[ix].kill();
        self.note(ix, "dies");
    }

    /// The agent starts again.
    pub(crate) fn restart(&mut self, ix: MachineIx) {
        let now = self.now();
        self.note(ix, "starts again");
        self.machines[ix].restart(now);
        self.after_turn(ix);
    }

    /// Runs for a while.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until something holds, and says how long that took; None: it did not within the limit.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now.after(limit));
        while !holds(self) {
            if !self.step(end) {
                self.now = end;
                return holds(self).then_some(limit);
            }
        }
        Some(self.now.since(begin))
    }

    /// Does the next moment that has something in it; false: there is none before `end`.
    fn step(&mut self, end: Moment) -> bool {
        let Some(at) = self.next_moment().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        let mut turns = 0;
        while self.turn() {
            turns += 1;
            assert!(turns < TURNS_PER_MOMENT, "stuck:\n{}", self.portrait());
        }
        true
    }

    fn next_moment(&self) -> Option<Moment> {
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.machines.iter().filter_map(Machine::poll_timeout).min();
        [arrival, deadline, self.next_poll]
            .into_iter()
            .flatten()
            .min()
    }

    /// One thing that is due now; false: nothing is.
    fn turn(&mut self) -> bool {
        if let Some(entry) = self
            .under_way
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now)
        {
            let Arrival {
                to,
                source,
                datagram,
            } = entry.remove();
            let now = self.now();
            self.machines[to].receive(now, source, datagram);
            self.after_turn(to);
            return true;
        }
        let due = |machine: &Machine| machine.poll_timeout().is_some_and(|at| at <= self.now);
        if let Some(ix) = self.machines.iter().position(due) {
            self.wake(ix);
            return true;
        }
        if self.next_poll.is_some_and(|at| at <= self.now) {
            self.next_poll = Some(self.now.after(Duration::from_millis(100)));
            (0..self.machines.len()).for_each(|ix| self.wake(ix));
            return true;
        }
        false
    }

    fn wake(&mut self, ix: MachineIx) {
        let now = self.now();
        self.machines[ix].wake(now);
        self.after_turn(ix);
    }

    /// Puts what a machine sent on the wires, and what it did into the log.
    fn after_turn(&mut self, from: MachineIx) {
        while let Some(line) = self.machines[from].poll_diary() {
            self.note(from, &line);
        }
        while let Some((target, mut datagram)) = self.machines[from].poll_datagram() {
            self.lie(from, target, &mut datagram);
            self.log.hash(&datagram);
            let way = self.route(from, target);
            let carried =
                way.and_then(|(to, source)| Some((to, source, self.wires.carry(from, to)?)));
            let fate = if carried.is_some() { "" } else { " (lost)" };
            self.note(from, &format!("→ {target} {}{fate}", name_of(&datagram)));
            if let Some((to, source, took)) = carried {
                self.next_serial += 1;
                self.under_way.insert(
                    (self.now.after(took), self.next_serial),
                    Arrival {
                        to,
                        source,
                        datagram,
                    },
                );
            }
        }
    }

    fn note(&mut self, ix: MachineIx, what: &str) {
        let line = format!(
            "{:>12.6} {:>8} {what}",
            self.seconds(),
            self.machines[ix].name
        );
        self.log.note(line);
    }

    fn seconds(&self) -> f64 {
        Duration::from_micros(self.now.0).as_secs_f64()
    }
}

/// How many seeds a test tries: a fair sample, or all of them under `tests/run --full`.
pub(crate) fn sample(few: u64, full: u64) -> u64 {
    if std::env::var_os("WEBMESH_FULL").is_some() {
        full
    } else {
        few
    }
}

/// Names a datagram in one word or two.
fn name_of(datagram: &Datagram) -> String {
    match &datagram.kind {
        Kind::Sealed(bytes) => parse_header(bytes).map_or_else(
            |_| "sealed".to_owned(),
            |header| format!("{:?}", header.kind),
        ),
        Kind::Initiation { .. } => "initiation".to_owned(),
        Kind::Response { .. } => "response".to_owned(),
        Kind::Data { inner, .. } => match inner {
            Inner::Keepalive => "keepalive".to_owned(),
            Inner::Packet(packet) => format!("packet {packet}"),
            Inner::Frame(frame) => {
                let whole = format!("{:?}", read(frame));
                whole
                    .split(|letter: char| !letter.is_alphanumeric())
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
        },
    }
}

/// What happened. Every line and every byte sent goes into one hash.
#[derive(Default)]
struct Log {
    hasher: blake3::Hasher,
    is_printed: Option<bool>,
}

impl Log {
    fn note(&mut self, line: String) {
        self.hasher.update(line.as_bytes());
        if *self
            .is_printed
            .get_or_insert_with(|| std::env::var_os("WEBMESH_SIM_LOG").is_some())
        {
            println!("{line}");
        }
    }

    fn hash(&mut self, datagram: &Datagram) {
        self.hasher.update(format!("{datagram:?}").as_bytes());
    }
}
