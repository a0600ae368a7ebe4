//! When this peer says on the LANs it is in that it is there, and what it hears there (protocol §2).
//!
//! Three times in the first three seconds, then about once a minute, and again whenever its addresses there change. Where
//! three others were heard since, the minute's word is left out: who is new there says so himself, and all answer him.
//! Knows turns and budgets. Refuses to know interfaces and who a peer is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    addr::Underlay,
    ids::PeerIx,
    time::{Moment, Now, Timers},
};

/// Beacons at the start and after each change of addresses: two of three may be lost.
const BURST: u32 = 3;

/// Between the Beacons of a burst; never are two closer together.
const BURST_EVERY: Duration = Duration::from_secs(1);

/// How far each Beacon of a burst is put off at random: after a power cut a whole LAN starts at once.
const BURST_SPREAD_MS: u32 = 200;

/// Between Beacons in peace, ± [`SPREAD_PERCENT`].
const EVERY_MS: u64 = 60_000;

/// How far two Beacons in peace are drawn apart from that.
const SPREAD_PERCENT: u64 = 30;

/// Others heard that make a Beacon needless.
const ENOUGH: usize = 3;

/// Beacons of one peer that are looked at in [`BUDGET_OF`]: a burst and one more. What a member signs can make us send so
/// much to a neighbour, and no more.
const BUDGET: usize = 4;

/// See [`BUDGET`].
const BUDGET_OF: Duration = Duration::from_secs(40);

/// Joins on the LAN that are answered in [`PUNCHES_OF`]: an answer is as long as the question at most, and who asks holds
/// a token, or has recorded one who does.
const PUNCHES: usize = 8;

/// See [`PUNCHES`].
const PUNCHES_OF: Duration = Duration::from_secs(8);

/// Peers remembered for `netcheck`.
const HEARD_MAX: usize = 256;

/// What a Beacon of a peer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// It is new: the peer is where it says.
    New,
    /// It was heard before: it came by two families or interfaces, or somebody plays it again.
    Again,
    /// The peer says more than a peer says.
    TooOften,
}

/// The own Beacons, and what was heard of others.
#[derive(Clone, Debug)]
pub struct Lan {
    rng: ChaCha8Rng,
    timers: Timers<()>,
    /// Whether there is any LAN to speak in.
    is_somewhere: bool,
    burst_left: u32,
    spoke: Option<Moment>,
    /// Others heard since the last turn.
    around: BTreeSet<PeerIx>,
    heard: BTreeMap<PeerIx, Heard>,
    punched: VecDeque<Moment>,
    is_due: bool,
}

#[derive(Clone, Debug)]
struct Heard {
    stamp: u64,
    address: Underlay,
    times: VecDeque<Moment>,
}

impl Lan {
    /// Silent until it is told of a LAN.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            timers: Timers::default(),
            is_somewhere: false,
            burst_left: 0,
            spoke: None,
            around: BTreeSet::new(),
            heard: BTreeMap::new(),
            punched: VecDeque::new(),
            is_due: false,
        }
    }

    /// This machine is in so many LANs now, or has other addresses there.
    pub fn handle_places(&mut self, now: Now, places: usize) {
        self.is_somewhere = places > 0;
        if !self.is_somewhere {
            self.timers.clear(&());
            self.is_due = false;
            return;
        }
        self.burst_left = BURST;
        let spread = self.draw(BURST_SPREAD_MS);
        let next = self
            .spoke
            .map_or(now.at, |spoke| spoke.after(BURST_EVERY).max(now.at));
        self.timers.set((), next.after(spread));
    }

    /// A good Beacon of another peer, which is at `address`.
    pub fn handle_beacon(
        &mut self,
        now: Now,
        peer: PeerIx,
        stamp: u64,
        address: Underlay,
    ) -> Hearing {
        if self
            .heard
            .get(&peer)
            .is_some_and(|known| stamp <= known.stamp)
        {
            return Hearing::Again;
        }
        if self.heard.len() >= HEARD_MAX && !self.heard.contains_key(&peer) {
            self.forget_the_longest_silent();
        }
        let known = self.heard.entry(peer).or_insert_with(|| Heard {
            stamp,
            address,
            times: VecDeque::new(),
        });
        known.stamp = stamp;
        if !take_from(&mut known.times, now.at, (BUDGET, BUDGET_OF)) {
            return Hearing::TooOften;
        }
        known.address = address;
        self.around.insert(peer);
        Hearing::New
    }

    /// A joiner calls on the LAN: whether it is answered.
    pub fn handle_joiner(&mut self, now: Now) -> bool {
        take_from(&mut self.punched, now.at, (PUNCHES, PUNCHES_OF))
    }

    /// Where peers were heard on the LAN, and when last.
    pub fn neighbours(&self) -> impl Iterator<Item = (PeerIx, Underlay, Moment)> {
        self.heard.iter().filter_map(|(peer, heard)| {
            let last = *heard.times.back()?;
            Some((*peer, heard.address, last))
        })
    }

    /// Whether a Beacon is to be sent now; said once.
    pub fn poll_beacon(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// A deadline has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.timers.pop_due(now.at).is_some() {
            let is_in_burst = self.burst_left > 0;
            let enough_are_heard = self.around.len() >= ENOUGH;
            if is_in_burst || !enough_are_heard {
                self.is_due = true;
                self.spoke = Some(now.at);
            }
            self.around.clear();
            self.burst_left = self.burst_left.saturating_sub(1);
            let wait = if self.burst_left > 0 {
                BURST_EVERY + self.draw(BURST_SPREAD_MS)
            } else {
                self.draw_pause()
            };
            self.timers.set((), now.at.after(wait));
        }
    }

    fn draw(&mut self, below_ms: u32) -> Duration {
        Duration::from_millis(u64::from(self.rng.next_u32() % below_ms))
    }

    fn draw_pause(&mut self) -> Duration {
        let spread = EVERY_MS * SPREAD_PERCENT / 100;
        let drawn = u64::from(self.rng.next_u32()) % (2 * spread + 1);
        Duration::from_millis(EVERY_MS - spread + drawn)
    }

    fn forget_the_longest_silent(&mut self) {
        let oldest = self
            .heard
            .iter()
            .min_by_key(|(_, heard)| heard.times.back().copied());
        if let Some(peer) = oldest.map(|(peer, _)| *peer) {
            self.heard.remove(&peer);
        }
    }
}

/// Notes that something is done now, if it was done fewer than `most` times in the last `span`.
fn take_from(times: &mut VecDeque<Moment>, now: Moment, (most, span): (usize, Duration)) -> bool {
    while times.front().is_some_and(|at| now.since(*at) >= span) {
        times.pop_front();
    }
    let has_room = times.len() < most;
    if has_room {
        times.push_back(now);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Now {
        Now {
            at: Moment(micros),
            unix_ms: micros / 1000,
        }
    }

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn home() -> Underlay {
        address("192.168.1.2:41820")
    }

    /// When Beacons are sent up to `end`; wakes at each deadline, and every 100 ms too if asked.
    fn run(lan: &mut Lan, from: u64, end: u64, nudge: Option<u64>) -> Vec<u64> {
        let mut sent = Vec::new();
        let mut now = from;
        loop {
            if lan.poll_beacon() {
                sent.push(now);
            }
            let nudged = nudge.map(|every| (now / every + 1) * every);
            let due = lan.poll_timeout().map(|due| due.0);
            let next = due.into_iter().chain(nudged).min();
            match next.filter(|next| *next <= end) {
                Some(next) => now = next,
                None => return sent,
            }
            lan.handle_timeout(at(now));
        }
    }

    fn somewhere() -> Lan {
        let mut lan = Lan::new([1; 32]);
        lan.handle_places(at(0), 1);
        lan
    }

    #[test]
    fn three_beacons_in_three_seconds_then_one_a_minute() {
        for seed in 0..20 {
            let mut lan = Lan::new([seed; 32]);
            lan.handle_places(at(0), 2);
            let sent = run(&mut lan, 0, 3600 * SECOND, None);
            assert!(sent[2] <= 3 * SECOND, "{:?}", &sent[..3]);
            for pair in sent[2..].windows(2) {
                let pause = pair[1] - pair[0];
                assert!((42 * SECOND..=78 * SECOND).contains(&pause), "{pause}");
            }
            assert!((3600 / 78..=3 + 3600 / 42).contains(&sent.len()));
        }
    }

    #[test]
    fn a_machine_without_a_lan_says_nothing_and_is_not_woken() {
        let mut lan = Lan::new([1; 32]);
        lan.handle_places(at(0), 0);
        assert_eq!(lan.poll_timeout(), None);
        let mut lan = somewhere();
        lan.handle_places(at(SECOND / 10), 0);
        assert_eq!(run(&mut lan, 0, 600 * SECOND, None), Vec::<u64>::new());
    }

    #[test]
    fn three_others_make_the_minutes_beacon_needless_and_two_do_not() {
        for (others, silent) in [(2, false), (3, true)] {
            let mut lan = somewhere();
            let burst = run(&mut lan, 0, 5 * SECOND, None);
            assert_eq!(burst.len(), 3);
            for peer in 0..others {
                lan.handle_beacon(at(6 * SECOND), PeerIx(peer), 1, home());
            }
            let sent = run(&mut lan, 6 * SECOND, 81 * SECOND, None);
            assert_eq!(sent.is_empty(), silent, "{others} others: {sent:?}");
            // They were heard once. Nobody is heard in the minute after, so it is this peer's turn again.
            assert!(!run(&mut lan, 81 * SECOND, 165 * SECOND, None).is_empty());
        }
    }

    #[test]
    fn a_burst_is_never_left_out() {
        let mut lan = somewhere();
        for peer in 0..9 {
            lan.handle_beacon(at(0), PeerIx(peer), 1, home());
        }
        assert_eq!(run(&mut lan, 0, 5 * SECOND, None).len(), 3);
    }

    #[test]
    fn a_change_of_addresses_is_told_at_once_and_a_flapping_one_once_a_second() {
        let mut lan = somewhere();
        run(&mut lan, 0, 30 * SECOND, None);
        lan.handle_places(at(30 * SECOND), 1);
        let sent = run(&mut lan, 30 * SECOND, 34 * SECOND, None);
        assert_eq!(sent.len(), 3);
        assert!(sent[0] <= 30 * SECOND + 200_000, "{sent:?}");
        let mut sent = Vec::new();
        for step in 0..600 {
            let now = (40 * 10 + step) * SECOND / 10;
            lan.handle_places(at(now), 1);
            sent.extend(run(&mut lan, now, now + SECOND / 10 - 1, None));
        }
        assert!((30..=61).contains(&sent.len()), "{}", sent.len());
        for pair in sent.windows(2) {
            assert!(pair[1] - pair[0] >= SECOND, "{pair:?}");
        }
    }

    #[test]
    fn a_beacon_counts_once_however_often_it_is_played() {
        let mut lan = somewhere();
        let peer = PeerIx(7);
        assert_eq!(lan.handle_beacon(at(1), peer, 5, home()), Hearing::New);
        let elsewhere = address("192.168.1.66:9");
        for stamp in [5, 4, 1] {
            let heard = lan.handle_beacon(at(2), peer, stamp, elsewhere);
            assert_eq!(heard, Hearing::Again);
        }
        let known: Vec<_> = lan.neighbours().collect();
        assert_eq!(known, [(peer, home(), Moment(1))]);
    }

    #[test]
    fn a_peer_that_shouts_is_heard_four_times_in_forty_seconds() {
        let mut lan = somewhere();
        let heard = (0..400_u64).filter(|i| {
            let now = at(*i * SECOND / 10);
            let heard = lan.handle_beacon(now, PeerIx(1), *i + 1, home());
            heard == Hearing::New
        });
        assert_eq!(heard.count(), 4);
        let later = lan.handle_beacon(at(80 * SECOND), PeerIx(1), 1000, home());
        assert_eq!(later, Hearing::New);
    }

    #[test]
    fn joiners_are_answered_eight_times_in_eight_seconds() {
        let mut lan = somewhere();
        let answered = (0..80).filter(|i| lan.handle_joiner(at(i * SECOND / 10)));
        assert_eq!(answered.count(), 8);
        assert!(lan.handle_joiner(at(16 * SECOND)));
    }

    #[test]
    fn what_is_remembered_of_a_crowd_is_bounded() {
        let mut lan = somewhere();
        for peer in 0..1000 {
            let now = at(u64::from(peer) * SECOND);
            lan.handle_beacon(now, PeerIx(peer), 1, home());
        }
        assert_eq!(lan.neighbours().count(), HEARD_MAX);
        assert!(lan.neighbours().all(|(peer, ..)| peer.0 >= 744));
    }

    #[test]
    fn it_does_the_same_when_woken_all_the_time() {
        let quiet = run(&mut somewhere(), 0, 900 * SECOND, None);
        let woken = run(&mut somewhere(), 0, 900 * SECOND, Some(100_000));
        assert_eq!(quiet, woken);
    }
}
