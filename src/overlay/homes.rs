//! Homes (design §8, protocol §11): peers that can be reached from outside, in an order of each peer's own that everybody
//! can compute, so that nobody has to publish through whom it is called.
//!
//! Who cannot be reached itself keeps a session with the first three that answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    hash::{Use, hash},
    ids::PeerIx,
    time::{Moment, Now, Timers},
};

/// With how many homes a session is kept (design §8).
const KEPT: usize = 3;

/// How often the order is checked, and how long one that did not answer is left alone (review-distributed F3).
const REVIEW: Duration = Duration::from_mins(1);

/// How long a better home must have been there before a worse one is let go (review-distributed F3).
const SETTLED: Duration = Duration::from_mins(5);

/// How often a home is Pinged, so that a NAT's mapping stays (review-distributed F3).
const PING_EVERY: Duration = Duration::from_secs(25);

/// From a Ping that was not answered to the next.
const PING_AGAIN: Duration = Duration::from_secs(1);

/// Pings to a home that answers none before it counts as gone.
const PINGS_MAX: u32 = 3;

/// How long an attempt to open a session counts as under way: twice what one lasts.
const PENDING: Duration = Duration::from_secs(10);

/// The homes of the peer that was admitted under `of`, best first: all of `homes`, by their own admissions. Admissions are
/// drawn by admins, so that nobody can make itself the home of somebody.
pub fn order(of: [u8; 8], homes: impl IntoIterator<Item = (PeerIx, [u8; 8])>) -> Vec<PeerIx> {
    let mut ordered: Vec<([u8; 32], PeerIx)> = homes
        .into_iter()
        .map(|(peer, admission)| (hash(Use::Home, &[&of, &admission]), peer))
        .collect();
    ordered.sort_unstable();
    ordered.into_iter().map(|(_, peer)| peer).collect()
}

/// What the homes ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a session.
    Open(PeerIx),
    /// Ping in the session.
    Ping(PeerIx),
    /// End the session: nothing comes from there any more.
    Close(PeerIx),
}

/// The own homes.
#[derive(Clone, Debug, Default)]
pub struct Homes {
    order: Vec<PeerIx>,
    up: BTreeMap<PeerIx, Moment>,
    /// Asked to open, and when.
    pending: BTreeMap<PeerIx, Moment>,
    /// Did not answer, and when.
    silent: BTreeMap<PeerIx, Moment>,
    kept: BTreeSet<PeerIx>,
    /// Pinged since it was last heard, and how often.
    unheard: BTreeMap<PeerIx, u32>,
    timers: Timers<Wake>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Review,
    Ping(PeerIx),
}

impl Homes {
    /// The homes of this peer are these now, best first; none where it is reached without.
    pub fn handle_order(&mut self, now: Now, order: Vec<PeerIx>) {
        if order != self.order {
            self.order = order;
            self.review(now);
        }
    }

    /// A session with a peer stands and both have said Hello.
    pub fn handle_up(&mut self, now: Now, peer: PeerIx) {
        self.up.entry(peer).or_insert(now.at);
        self.pending.remove(&peer);
        self.silent.remove(&peer);
        if self.order.contains(&peer) {
            self.review(now);
        }
    }

    /// A session with a peer ended.
    pub fn handle_down(&mut self, now: Now, peer: PeerIx) {
        if self.up.remove(&peer).is_some() && self.order.contains(&peer) {
            self.review(now);
        }
    }

    /// Something authenticated came from a peer.
    pub fn handle_heard(&mut self, now: Now, peer: PeerIx) {
        if self.unheard.remove(&peer).is_some() && self.kept.contains(&peer) {
            let at = now.at.after(PING_EVERY);
            self.timers.set(Wake::Ping(peer), at);
        }
    }

    /// A peer did not answer.
    pub fn handle_silent(&mut self, now: Now, peer: PeerIx) {
        if self.order.contains(&peer) && !self.up.contains_key(&peer) {
            self.pending.remove(&peer);
            self.silent.insert(peer, now.at);
            self.review(now);
        }
    }

    /// The homes with which a session is kept.
    pub fn kept(&self) -> impl Iterator<Item = PeerIx> + '_ {
        self.kept.iter().copied()
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
                Wake::Review => self.review(now),
                Wake::Ping(peer) => self.ping(now, peer),
            }
        }
    }

    fn ping(&mut self, now: Now, peer: PeerIx) {
        let pings = self.unheard.entry(peer).or_default();
        if *pings == PINGS_MAX {
            return self.outputs.push_back(Output::Close(peer));
        }
        *pings += 1;
        self.timers.set(Wake::Ping(peer), now.at.after(PING_AGAIN));
        self.outputs.push_back(Output::Ping(peer));
    }

    fn review(&mut self, now: Now) {
        self.pending
            .retain(|_, since| now.at.since(*since) < PENDING);
        self.silent.retain(|_, since| now.at.since(*since) < REVIEW);
        self.open_missing(now);
        let kept = self.choose(now);
        for gone in self.kept.difference(&kept) {
            self.timers.clear(&Wake::Ping(*gone));
            self.unheard.remove(gone);
        }
        for new in kept.difference(&self.kept) {
            self.timers.set(Wake::Ping(*new), now.at.after(PING_EVERY));
        }
        self.kept = kept;
        if self.order.is_empty() {
            self.timers.clear(&Wake::Review);
        } else {
            self.timers.set(Wake::Review, now.at.after(REVIEW));
        }
    }

    /// Asks for sessions with the first that may answer, until there would be enough.
    fn open_missing(&mut self, now: Now) {
        let mut found = 0;
        for home in &self.order {
            if found == KEPT {
                return;
            }
            if self.silent.contains_key(home) {
                continue;
            }
            found += 1;
            if !self.up.contains_key(home) && !self.pending.contains_key(home) {
                self.pending.insert(*home, now.at);
                self.outputs.push_back(Output::Open(*home));
            }
        }
    }

    /// The first with which a session stands, and those kept before until enough better ones have been there for long.
    fn choose(&self, now: Now) -> BTreeSet<PeerIx> {
        let up = self
            .order
            .iter()
            .filter_map(|home| Some((*home, *self.up.get(home)?)));
        let (mut kept, mut settled) = (BTreeSet::new(), 0);
        for (place, (home, since)) in up.enumerate() {
            let is_settled = now.at.since(since) >= SETTLED;
            if place < KEPT || (settled < KEPT && self.kept.contains(&home)) {
                kept.insert(home);
                settled += usize::from(is_settled);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now {
            at: Moment(second * 1_000_000),
            unix_ms: 0,
        }
    }

    fn peers(numbers: &[u32]) -> Vec<PeerIx> {
        numbers.iter().copied().map(PeerIx).collect()
    }

    fn outputs(homes: &mut Homes) -> Vec<Output> {
        std::iter::from_fn(|| homes.poll_output()).collect()
    }

    fn opens(numbers: &[u32]) -> Vec<Output> {
        peers(numbers).into_iter().map(Output::Open).collect()
    }

    fn kept(homes: &Homes) -> Vec<PeerIx> {
        homes.kept().collect()
    }

    /// Ten homes in the order of their numbers, of which the first three answered at second 0.
    fn three_of_ten() -> Homes {
        let mut homes = Homes::default();
        homes.handle_order(at(0), peers(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(outputs(&mut homes), opens(&[0, 1, 2]));
        for home in 0..3 {
            homes.handle_up(at(0), PeerIx(home));
        }
        assert_eq!(outputs(&mut homes), []);
        homes
    }

    #[test]
    fn the_order_is_each_peers_own_and_everybodys_the_same() {
        let homes: Vec<_> = (0..9)
            .map(|peer| (PeerIx(peer), [u8::try_from(peer).unwrap(); 8]))
            .collect();
        let anna = order([1; 8], homes.clone());
        assert_eq!(anna, order([1; 8], homes.iter().rev().copied()));
        assert_ne!(anna, order([2; 8], homes.clone()));
        let first: [u8; 32] = hash(Use::Home, &[&[1; 8], &homes[anna[0].0 as usize].1]);
        assert!(
            homes
                .iter()
                .all(|(_, home)| hash(Use::Home, &[&[1; 8], home]) >= first)
        );
    }

    #[test]
    fn sessions_are_kept_with_the_first_three_that_answer() {
        let mut homes = Homes::default();
        homes.handle_order(at(0), peers(&[0, 1, 2, 3, 4, 5]));
        assert_eq!(outputs(&mut homes), opens(&[0, 1, 2]));
        homes.handle_up(at(1), PeerIx(1));
        homes.handle_silent(at(5), PeerIx(0));
        assert_eq!(outputs(&mut homes), opens(&[3]));
        homes.handle_up(at(5), PeerIx(2));
        homes.handle_up(at(5), PeerIx(3));
        assert_eq!(kept(&homes), peers(&[1, 2, 3]));
    }

    #[test]
    fn a_home_that_dies_is_replaced_at_once() {
        let mut homes = three_of_ten();
        homes.handle_down(at(10), PeerIx(1));
        assert_eq!(outputs(&mut homes), opens(&[1]));
        homes.handle_silent(at(15), PeerIx(1));
        assert_eq!(outputs(&mut homes), opens(&[3]));
        homes.handle_up(at(15), PeerIx(3));
        assert_eq!(kept(&homes), peers(&[0, 2, 3]));
    }

    #[test]
    fn one_that_is_back_takes_its_place_after_five_minutes() {
        let mut homes = three_of_ten();
        homes.handle_down(at(10), PeerIx(1));
        homes.handle_silent(at(15), PeerIx(1));
        homes.handle_up(at(15), PeerIx(3));
        outputs(&mut homes);
        homes.handle_timeout(at(75));
        assert!(outputs(&mut homes).contains(&Output::Open(PeerIx(1))));
        homes.handle_up(at(400), PeerIx(1));
        assert_eq!(kept(&homes), peers(&[0, 1, 2, 3]));
        homes.handle_timeout(at(699));
        assert_eq!(kept(&homes), peers(&[0, 1, 2, 3]));
        homes.handle_timeout(at(760));
        assert_eq!(kept(&homes), peers(&[0, 1, 2]));
    }

    #[test]
    fn kept_homes_are_pinged_each_25_seconds_and_others_never() {
        let mut homes = three_of_ten();
        let mut pings = Vec::new();
        for second in 1..=100 {
            homes.handle_timeout(at(second));
            let came = outputs(&mut homes);
            (0..3).for_each(|home| homes.handle_heard(at(second), PeerIx(home)));
            pings.extend(came.into_iter().map(|output| (second, output)));
        }
        let of = |home| {
            let is_its = |(_, output): &&(u64, Output)| *output == Output::Ping(PeerIx(home));
            pings
                .iter()
                .filter(is_its)
                .map(|(second, _)| *second)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), [25, 50, 75, 100]);
        assert!(of(3).is_empty());
    }

    #[test]
    fn a_home_that_answers_no_ping_is_given_up_within_half_a_minute() {
        let mut homes = three_of_ten();
        let mut closed = Vec::new();
        for second in 1..=40 {
            homes.handle_timeout(at(second));
            for output in outputs(&mut homes) {
                match output {
                    Output::Ping(PeerIx(0 | 2)) => homes.handle_heard(at(second), PeerIx(0)),
                    Output::Close(home) => {
                        closed.push((second, home));
                        homes.handle_down(at(second), home);
                    }
                    Output::Ping(_) | Output::Open(_) => {}
                }
                homes.handle_heard(at(second), PeerIx(2));
            }
        }
        assert_eq!(closed, [(28, PeerIx(1))]);
    }

    #[test]
    fn who_is_reached_without_keeps_none() {
        let mut homes = three_of_ten();
        homes.handle_order(at(1), Vec::new());
        assert!(kept(&homes).is_empty());
        assert_eq!(homes.poll_timeout(), None);
    }
}
