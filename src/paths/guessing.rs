//! A port is guessed that nobody can know (design §9): behind a NAT that gives every destination another port, one side
//! opens many sockets towards the other, and that other sends to random ports until one of them is hit.
//!
//! With 256 sockets open among 64,512 ports, 1,024 guesses hit with 98 %, 2,048 with 99.97 %. It costs both NATs a place
//! in their tables for each, so it is done only while programs talk through a relay, one run at a time, and once an hour
//! for each pair; and only at an address at which that very relay sees the peer. Nobody is left out by what kind of NAT
//! he is taken to have: who does not know his own plays both parts.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::nat::Nat;
use crate::{
    addr::{Path, Underlay},
    ids::PeerIx,
    time::{Moment, Now, Timers},
};

/// Sockets that are opened in one run.
pub const SOCKETS: usize = 256;

/// Datagrams of guesses in one run.
pub const GUESSES_MAX: u32 = 2048;

/// How often guesses go out, and how many: 100 a second.
const EACH: Duration = Duration::from_millis(50);
const AT_ONCE: u32 = 5;

/// How long a run lasts at most: what 2,048 guesses take, and a little for the last of them to arrive.
const LASTS: Duration = Duration::from_secs(22);

/// How long a pair must have been relayed: whatever is known about the other side was tried by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// A pair that programs use is told of once a second; one that was not for so long was not in use.
const TOLD_EACH: Duration = Duration::from_secs(5);

/// How often the other side is told that sockets are open: it may not know yet where to guess.
const TELL_EACH: Duration = Duration::from_secs(2);

/// How long it counts that a relay saw a peer at an address (review-security S10).
const SEEN_FOR: Duration = Duration::from_mins(1);

/// How often a relay is asked where it sees a peer.
const LOCATE_EACH: Duration = Duration::from_secs(10);

/// How soon the same pair tries again.
const PAIR_AGAIN: Duration = Duration::from_hours(1);

/// How soon the same address is guessed at again, whoever is said to be there (review-security S10).
const TARGET_AGAIN: Duration = Duration::from_mins(10);

/// Peers and addresses remembered; when there are more, no run begins with a new one.
const REMEMBERED_MAX: usize = 1024;

/// The ports that a NAT gives out.
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the relay where it sees a peer.
    Locate {
        /// Whom.
        peer: PeerIx,
    },
    /// Open [`SOCKETS`] sockets, and send something from each.
    Open {
        /// For a path to whom.
        peer: PeerIx,
        /// Where to.
        to: Underlay,
        /// When those that were not hit are closed.
        until: Moment,
    },
    /// Say to a peer that sockets are open towards it.
    Tell {
        /// Whom.
        peer: PeerIx,
    },
    /// Ping a peer where it may be.
    Guess {
        /// Whom.
        peer: PeerIx,
        /// Where.
        to: Underlay,
    },
}

/// How a peer is reached now, and what is known of the own NAT.
#[derive(Clone, Copy, Debug)]
pub struct Relayed<'a> {
    /// Who carries.
    pub relay: PeerIx,
    /// Where others see this machine.
    pub own: &'a [Underlay],
    /// Behind what it is.
    pub nat: Nat,
}

/// All pairs, and the runs under way.
#[derive(Clone, Debug)]
pub struct Guesses {
    rng: ChaCha8Rng,
    peers: BTreeMap<PeerIx, Known>,
    targets: BTreeMap<IpAddr, Moment>,
    opening: Option<Opening>,
    guessing: Option<Guessing>,
    timers: Timers<Wake>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Tell,
    Guess,
}

/// What is remembered of one pair.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Since when, and when that was told last.
    relayed: Option<(Moment, Moment)>,
    seen: Option<Sighting>,
    located: Option<Moment>,
    opened: Option<Moment>,
    guessed: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    by: PeerIx,
    address: Underlay,
    at: Moment,
}

/// This side has sockets open.
#[derive(Clone, Copy, Debug)]
struct Opening {
    peer: PeerIx,
    to: Underlay,
    until: Moment,
}

/// This side guesses.
#[derive(Clone, Copy, Debug)]
struct Guessing {
    peer: PeerIx,
    target: IpAddr,
    walk: Walk,
    sent: u32,
    until: Moment,
}

/// Every port once, in an order of this run: any set of ports is as good as another, where the other side's are random.
#[derive(Clone, Copy, Debug)]
struct Walk {
    at: u32,
    step: u32,
}

impl Walk {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let at = rng.next_u32() % PORTS;
        // What shares no divisor with 64,512 = 2¹⁰·3²·7 comes by every port.
        let step = loop {
            let step = rng.next_u32() % PORTS;
            if [2, 3, 7].iter().all(|prime| !step.is_multiple_of(*prime)) {
                break step;
            }
        };
        Self { at, step }
    }

    fn next(&mut self) -> u16 {
        let port = u32::from(FIRST_PORT) + self.at;
        self.at = (self.at + self.step) % PORTS;
        u16::try_from(port).unwrap_or(FIRST_PORT)
    }
}

impl Guesses {
    /// No run yet. `seed` makes the order of ports.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            peers: BTreeMap::new(),
            targets: BTreeMap::new(),
            opening: None,
            guessing: None,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A third peer says at which addresses it sees a peer, the newest first.
    pub fn handle_seen(&mut self, now: Now, peer: PeerIx, by: PeerIx, seen: &[Underlay]) {
        let is_guessable = |address: &&Underlay| address.ip().is_ipv4() && address.is_public();
        let Some(address) = seen.iter().find(is_guessable).copied() else {
            return;
        };
        let at = now.at;
        if let Some(known) = self.known(now.at, peer) {
            known.seen = Some(Sighting { by, address, at });
        }
    }

    /// Programs talk with a peer through a relay; to be told once a second. Opens sockets when nothing else has helped.
    pub fn handle_relayed(&mut self, now: Now, peer: PeerIx, relayed: &Relayed<'_>) {
        let Some(known) = self.known(now.at, peer) else {
            return;
        };
        let since = match known.relayed {
            Some((since, told)) if now.at.since(told) < TOLD_EACH => since,
            Some(_) | None => now.at,
        };
        known.relayed = Some((since, now.at));
        // Whose port is the same for all destinations gains nothing by more of them.
        let is_of_use = match relayed.nat {
            Nat::Hard | Nat::Unknown => true,
            Nat::Easy | Nat::None => false,
        };
        let is_due = is_over(now.at, known.opened, PAIR_AGAIN);
        if !is_of_use || !is_due || now.at.since(since) < PATIENCE || self.opening.is_some() {
            return;
        }
        let Some(to) = self.address_of(now.at, peer, relayed) else {
            return;
        };
        let until = now.at.after(LASTS);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.opened = Some(now.at);
        }
        self.opening = Some(Opening { peer, to, until });
        self.outputs.push_back(Output::Open { peer, to, until });
        self.timers.set(Wake::Tell, now.at);
    }

    /// A peer says that it has sockets open towards this machine, and programs talk with it through a relay.
    pub fn handle_asked(&mut self, now: Now, peer: PeerIx, relayed: &Relayed<'_>) {
        let Some(known) = self.known(now.at, peer) else {
            return;
        };
        let is_due = is_over(now.at, known.guessed, PAIR_AGAIN);
        // Guesses that leave by another port each would never come from where they are awaited.
        if relayed.nat == Nat::Hard || !is_due || self.guessing.is_some() {
            return;
        }
        let Some(seen) = self.address_of(now.at, peer, relayed) else {
            return;
        };
        let target = seen.ip();
        if !self.spend_on(now.at, target) {
            return;
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.guessed = Some(now.at);
        }
        self.guessing = Some(Guessing {
            peer,
            target,
            walk: Walk::new(&mut self.rng),
            sent: 0,
            until: now.at.after(LASTS),
        });
        self.timers.set(Wake::Guess, now.at);
    }

    /// Whether an authenticated packet of a peer that came by this path is what a run was for. It is over then.
    pub fn handle_source(&mut self, now: Now, peer: PeerIx, source: Path) -> bool {
        let Some(address) = source.direct() else {
            return false;
        };
        let is_opened = |run: &Opening| (run.peer, run.to) == (peer, address) && now.at < run.until;
        let is_guessed =
            |run: &Guessing| (run.peer, run.target) == (peer, address.ip()) && now.at < run.until;
        let is_hit = self.opening.as_ref().is_some_and(is_opened)
            || self.guessing.as_ref().is_some_and(is_guessed);
        if is_hit {
            self.end_runs(peer);
        }
        is_hit
    }

    /// A peer is not reached through a relay any more.
    pub fn handle_not_relayed(&mut self, peer: PeerIx) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.relayed = None;
        }
        self.end_runs(peer);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(wake) = self.timers.pop_due(now.at) {
            match wake {
                Wake::Tell => self.tell(now.at),
                Wake::Guess => self.guess(now.at),
            }
        }
    }

    fn tell(&mut self, now: Moment) {
        let Some(run) = self.opening.filter(|run| now < run.until) else {
            self.opening = None;
            return;
        };
        self.outputs.push_back(Output::Tell { peer: run.peer });
        self.timers.set(Wake::Tell, now.after(TELL_EACH));
    }

    fn guess(&mut self, now: Moment) {
        let is_on = |run: &Guessing| run.sent < GUESSES_MAX;
        match &mut self.guessing {
            Some(run) if is_on(run) => {
                for _ in 0..AT_ONCE.min(GUESSES_MAX - run.sent) {
                    let to = Underlay::new((run.target, run.walk.next()).into());
                    run.sent += 1;
                    let peer = run.peer;
                    self.outputs.push_back(Output::Guess { peer, to });
                }
                // The last guesses may still be answered.
                let next = if is_on(run) {
                    now.after(EACH)
                } else {
                    run.until
                };
                self.timers.set(Wake::Guess, next);
            }
            Some(_) | None => self.guessing = None,
        }
    }

    fn end_runs(&mut self, peer: PeerIx) {
        if self.opening.is_some_and(|run| run.peer == peer) {
            self.opening = None;
            self.timers.clear(&Wake::Tell);
        }
        if self.guessing.is_some_and(|run| run.peer == peer) {
            self.guessing = None;
            self.timers.clear(&Wake::Guess);
        }
    }

    /// Where the relay that carries sees a peer. If it has not said so lately, it is asked.
    fn address_of(&mut self, now: Moment, peer: PeerIx, relayed: &Relayed<'_>) -> Option<Underlay> {
        let known = self.peers.get_mut(&peer)?;
        let seen = known
            .seen
            .filter(|seen| seen.by == relayed.relay && now.since(seen.at) < SEEN_FOR);
        let Some(seen) = seen else {
            if is_over(now, known.located, LOCATE_EACH) {
                known.located = Some(now);
                self.outputs.push_back(Output::Locate { peer });
            }
            return None;
        };
        // Who is behind the same address is a neighbour, and no port of it leads to him.
        let is_own = relayed.own.iter().any(|own| own.ip() == seen.address.ip());
        (!is_own).then_some(seen.address)
    }

    /// Whether an address may be guessed at. It is counted if so.
    fn spend_on(&mut self, now: Moment, target: IpAddr) -> bool {
        self.targets.retain(|_, at| now.since(*at) < TARGET_AGAIN);
        let may = self.targets.len() < REMEMBERED_MAX && !self.targets.contains_key(&target);
        if may {
            self.targets.insert(target, now);
        }
        may
    }

    fn known(&mut self, now: Moment, peer: PeerIx) -> Option<&mut Known> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= REMEMBERED_MAX {
            self.peers.retain(|_, known| known.matters(now));
            if self.peers.len() >= REMEMBERED_MAX {
                return None;
            }
        }
        Some(self.peers.entry(peer).or_default())
    }
}

impl Known {
    /// Whether forgetting it would let a run begin too soon, or a pair in use wait anew.
    fn matters(&self, now: Moment) -> bool {
        let is_in_use = !is_over(now, self.relayed.map(|(_, told)| told), TOLD_EACH);
        is_in_use
            || !is_over(now, self.opened, PAIR_AGAIN)
            || !is_over(now, self.guessed, PAIR_AGAIN)
    }
}

/// Whether something that may have happened was so long ago.
fn is_over(now: Moment, at: Option<Moment>, lasts: Duration) -> bool {
    at.is_none_or(|at| now.since(at) >= lasts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BO: PeerIx = PeerIx(1);
    const VPS: PeerIx = PeerIx(9);

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn at(ms: u64) -> Now {
        Now {
            at: Moment(1_000_000_000 + ms * 1000),
            ..Now::default()
        }
    }

    fn own() -> [Underlay; 1] {
        [address("203.0.113.20:41820")]
    }

    fn there() -> Underlay {
        address("203.0.113.30:5555")
    }

    fn relayed(nat: Nat, own: &[Underlay]) -> Relayed<'_> {
        let relay = VPS;
        Relayed { relay, own, nat }
    }

    fn drain(guesses: &mut Guesses) -> Vec<Output> {
        std::iter::from_fn(|| guesses.poll_output()).collect()
    }

    /// Runs all timers up to a time; what was asked for, with when.
    fn run(guesses: &mut Guesses, until_ms: u64) -> Vec<(u64, Output)> {
        let mut all = Vec::new();
        while let Some(next) = guesses
            .poll_timeout()
            .filter(|next| *next <= at(until_ms).at)
        {
            let ms = (next.0 - 1_000_000_000) / 1000;
            guesses.handle_timeout(at(ms));
            all.extend(drain(guesses).into_iter().map(|output| (ms, output)));
        }
        all
    }

    fn seen() -> Guesses {
        let mut guesses = Guesses::new([1; 32]);
        guesses.handle_seen(at(0), BO, VPS, &[there()]);
        guesses
    }

    /// Programs talk through the relay, from one time to another.
    fn talk(guesses: &mut Guesses, nat: Nat, (from, to): (u64, u64)) -> Vec<Output> {
        for ms in (from..=to).step_by(1000) {
            guesses.handle_relayed(at(ms), BO, &relayed(nat, &own()));
        }
        drain(guesses)
    }

    fn guessed(all: &[(u64, Output)]) -> Vec<(u64, Underlay)> {
        let guess = |(ms, output): &(u64, Output)| match output {
            Output::Guess { to, .. } => Some((*ms, *to)),
            Output::Locate { .. } | Output::Open { .. } | Output::Tell { .. } => None,
        };
        all.iter().filter_map(guess).collect()
    }

    #[test]
    fn after_three_seconds_on_a_relay_sockets_are_opened_and_the_other_side_is_told_again_and_again()
     {
        let mut guesses = seen();
        assert_eq!(talk(&mut guesses, Nat::Unknown, (0, 2000)), []);
        let until = at(3000).at.after(LASTS);
        let open = Output::Open {
            peer: BO,
            to: there(),
            until,
        };
        assert_eq!(talk(&mut guesses, Nat::Unknown, (3000, 3000)), [open]);
        let told = run(&mut guesses, 60_000);
        assert_eq!(told.len(), 11, "every 2 s for 22 s: {told:?}");
        assert!(
            told.iter()
                .all(|(_, output)| *output == Output::Tell { peer: BO })
        );
        assert!(guesses.opening.is_none(), "it is over");
    }

    #[test]
    fn a_pair_that_nobody_uses_for_a_while_waits_anew() {
        let mut guesses = seen();
        talk(&mut guesses, Nat::Hard, (0, 2000));
        assert_eq!(talk(&mut guesses, Nat::Hard, (9000, 11_000)), []);
        assert_eq!(talk(&mut guesses, Nat::Hard, (12_000, 12_000)).len(), 1);
    }

    #[test]
    fn a_pair_opens_once_an_hour_and_one_pair_at_a_time() {
        let mut guesses = seen();
        let other = PeerIx(2);
        guesses.handle_seen(at(0), other, VPS, &[address("203.0.113.31:1")]);
        assert_eq!(talk(&mut guesses, Nat::Hard, (0, 3000)).len(), 1);
        for ms in (0..20_000).step_by(1000) {
            guesses.handle_relayed(at(ms), other, &relayed(Nat::Hard, &own()));
        }
        assert_eq!(drain(&mut guesses), [], "one run is under way");
        run(&mut guesses, 3_602_999);
        let mut opened = 0;
        for ms in (30_000..3_602_999).step_by(1000) {
            guesses.handle_seen(at(ms), BO, VPS, &[there()]);
            guesses.handle_relayed(at(ms), BO, &relayed(Nat::Hard, &own()));
            opened += drain(&mut guesses).len();
        }
        assert_eq!(opened, 0);
        guesses.handle_seen(at(3_603_000), BO, VPS, &[there()]);
        assert_eq!(
            talk(&mut guesses, Nat::Hard, (3_603_000, 3_603_000)).len(),
            1
        );
    }

    #[test]
    fn whose_port_is_the_same_for_all_opens_nothing_and_whose_is_not_never_guesses() {
        for nat in [Nat::Easy, Nat::None] {
            assert_eq!(talk(&mut seen(), nat, (0, 10_000)), []);
        }
        let mut guesses = seen();
        guesses.handle_asked(at(0), BO, &relayed(Nat::Hard, &own()));
        assert_eq!(guesses.poll_timeout(), None);
        for nat in [Nat::Easy, Nat::None, Nat::Unknown] {
            let mut guesses = seen();
            guesses.handle_asked(at(0), BO, &relayed(nat, &own()));
            assert!(guesses.poll_timeout().is_some());
        }
    }

    #[test]
    fn guesses_go_to_one_address_each_to_another_port_and_are_bounded_in_number_and_rate() {
        let mut guesses = seen();
        guesses.handle_asked(at(0), BO, &relayed(Nat::Easy, &own()));
        let all = guessed(&run(&mut guesses, 60_000));
        assert_eq!(all.len(), 2048);
        assert!(all.iter().all(|(_, to)| to.ip() == there().ip()));
        let ports: BTreeSet<u16> = all.iter().map(|(_, to)| to.socket().port()).collect();
        assert_eq!(ports.len(), 2048);
        assert!(ports.first().is_some_and(|port| *port >= 1024));
        for (from, _) in &all {
            let within = all
                .iter()
                .filter(|(ms, _)| (*from..from + 1000).contains(ms));
            assert!(within.count() <= 100);
        }
        assert!(all.last().is_some_and(|(ms, _)| *ms <= 20_480));
        assert!(guesses.guessing.is_none() && guesses.poll_timeout().is_none());
        // Told again, it does not begin again for an hour.
        guesses.handle_seen(at(3_599_000), BO, VPS, &[there()]);
        guesses.handle_asked(at(3_599_000), BO, &relayed(Nat::Easy, &own()));
        assert_eq!(guesses.poll_timeout(), None);
        guesses.handle_asked(at(3_600_000), BO, &relayed(Nat::Easy, &own()));
        assert!(guesses.poll_timeout().is_some());
    }

    #[test]
    fn every_port_is_come_by_once() {
        for seed in 0..4 {
            let mut walk = Walk::new(&mut ChaCha8Rng::from_seed([seed; 32]));
            let all: BTreeSet<u16> = (0..PORTS).map(|_| walk.next()).collect();
            assert_eq!(all.len(), 64_512);
        }
    }

    /// Both bounds of the pages in numbers: 256 of 64,512 ports are open.
    #[test]
    fn a_thousand_guesses_hit_nearly_always() {
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let mut hits = 0;
        for _ in 0..200 {
            let open: BTreeSet<u16> = (0..SOCKETS)
                .map(|_| FIRST_PORT + u16::try_from(rng.next_u32() % PORTS).unwrap())
                .collect();
            let mut walk = Walk::new(&mut rng);
            hits += usize::from((0..1024).any(|_| open.contains(&walk.next())));
        }
        assert!(hits >= 190, "{hits} of 200; 98 % are expected");
    }

    #[test]
    fn nobody_guesses_but_where_the_relay_that_carries_sees_the_peer_now() {
        let asked = |by: PeerIx, seen: &str, own: &[Underlay], ms: u64| {
            let mut guesses = Guesses::new([1; 32]);
            guesses.handle_seen(at(0), BO, by, &[address(seen)]);
            guesses.handle_asked(at(ms), BO, &relayed(Nat::Easy, own));
            guessed(&run(&mut guesses, ms + 60_000)).len()
        };
        assert_eq!(asked(VPS, "203.0.113.30:5555", &own(), 59_999), 2048);
        assert_eq!(
            asked(VPS, "203.0.113.30:5555", &own(), 60_000),
            0,
            "too old"
        );
        assert_eq!(
            asked(PeerIx(8), "203.0.113.30:5555", &own(), 0),
            0,
            "another one"
        );
        for nobody in [
            "127.0.0.1:5555",
            "169.254.1.1:5555",
            "192.168.1.7:5555",
            "100.64.0.7:5555",
            "224.0.0.1:5555",
            "255.255.255.255:5555",
            "[2001:db8::1]:5555",
        ] {
            assert_eq!(asked(VPS, nobody, &own(), 0), 0, "{nobody}");
        }
        assert_eq!(asked(VPS, "203.0.113.20:5555", &own(), 0), 0, "our own");
    }

    #[test]
    fn one_address_has_one_run_in_ten_minutes_whoever_is_said_to_be_there() {
        let mut guesses = Guesses::new([1; 32]);
        let mut sent = 0;
        for number in 0..200 {
            let (peer, ms) = (PeerIx(100 + number), u64::from(number) * 3000);
            sent += guessed(&run(&mut guesses, ms)).len();
            guesses.handle_seen(at(ms), peer, VPS, &[there()]);
            guesses.handle_asked(at(ms), peer, &relayed(Nat::Easy, &own()));
            sent += guessed(&run(&mut guesses, ms + 2999)).len();
        }
        assert_eq!(sent, 2048, "200 members, 10 min");
    }

    #[test]
    fn without_a_word_of_the_relay_it_is_asked_and_not_more_than_every_ten_seconds() {
        let mut guesses = Guesses::new([1; 32]);
        let asked = talk(&mut guesses, Nat::Unknown, (0, 20_000));
        assert_eq!(asked, [Output::Locate { peer: BO }; 2]);
    }

    #[test]
    fn a_packet_from_where_it_was_hoped_for_ends_the_run() {
        let mut guesses = seen();
        talk(&mut guesses, Nat::Unknown, (0, 3000));
        guesses.handle_asked(at(3000), BO, &relayed(Nat::Unknown, &own()));
        let is_hit = |guesses: &mut Guesses, peer, text: &str| {
            guesses.handle_source(at(4000), peer, Path::Direct(address(text)))
        };
        assert!(!is_hit(&mut guesses, BO, "203.0.113.31:5555"));
        assert!(!is_hit(&mut guesses, PeerIx(2), "203.0.113.30:5555"));
        assert!(is_hit(&mut guesses, BO, "203.0.113.30:7777"), "guessed");
        assert_eq!(guesses.poll_timeout(), None);
        assert!(!is_hit(&mut guesses, BO, "203.0.113.30:5555"), "over");
    }

    #[test]
    fn a_pair_that_is_direct_ends_its_run() {
        let mut guesses = seen();
        talk(&mut guesses, Nat::Unknown, (0, 3000));
        guesses.handle_asked(at(3000), BO, &relayed(Nat::Unknown, &own()));
        guesses.handle_not_relayed(PeerIx(2));
        assert!(guesses.poll_timeout().is_some());
        guesses.handle_not_relayed(BO);
        assert_eq!(guesses.poll_timeout(), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut guesses = Guesses::new([1; 32]);
        for number in 0..5000 {
            guesses.handle_seen(at(0), PeerIx(number), VPS, &[there()]);
        }
        assert!(guesses.peers.len() <= REMEMBERED_MAX);
    }
}
