//! How many probes this machine sends, to anybody and to one target: what keeps a member from aiming us at a stranger
//! (review-security S10; review-distributed S6, rule 2).
//!
//! Five for claims reach a target that does not answer, in ten minutes. Where this machine moves it may have as many once more,
//! thrice in that time: twenty. What other peers say of where it is moves nobody: neither an observer's word nor a Call or
//! Candidates. But a move can be made by somebody else: on its own link by router advertisements, leases of a DHCP server or a link
//! that flaps; by its time server, since a clock that jumps ahead looks like sleep; by a peer that it reaches on a stream alone and
//! that answers by UDP now and then. Each of them needs a lying member beside, and gets from this machine fifteen datagrams more
//! in ten minutes. Who spends the moves in vain takes from the next real one what it had without: then an address that was tried
//! waits until its ten minutes are over.
//!
//! Five more go to where an authenticated packet came from, as often, if the claims were first: whoever can forge a source
//! address needs nobody to aim.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{addr::Path, time::Moment};

/// Probes in any second, to all targets together.
const A_SECOND: usize = 50;

/// As many may have gone out where one more goes to where a peer only claims to be: the rest is for whoever was heard, so
/// that nobody's claims can keep a roaming peer from being found.
const CLAIMED_A_SECOND: usize = 40;

/// Probes to one target without an authenticated answer in any [`TARGET_TIME`]. Where an authenticated packet came from, those
/// do not count that went there for claims: that nobody answered while he was only said to be there must not keep a peer unheard
/// that speaks from there.
const A_TARGET: usize = 5;

/// Of them parts of handshakes that go where a third peer claims that somebody is: the rest is for Pings, since those open
/// the way.
const LETTERS_A_TARGET: usize = 2;

/// How often in [`TARGET_TIME`] all targets have their share anew because this machine is elsewhere: a laptop that goes to
/// another network has its IPv4 address first, and its IPv6 addresses later.
const MOVES_MAX: usize = 3;

/// Probes to one that did answer within that time: its NAT gives it new ports, and it is no stranger.
const AN_ACQUAINTANCE: usize = 40;

/// See [`A_TARGET`].
const TARGET_TIME: Duration = Duration::from_mins(10);

/// Targets remembered: more than can be reached in [`TARGET_TIME`], so that claims cannot fill the table either.
const TARGETS_MAX: usize = 600 * A_SECOND;

/// So many at least are remembered before the old ones are looked for.
const SWEEP_FIRST: usize = 1024;

/// What was spent.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    recent: VecDeque<Moment>,
    targets: BTreeMap<IpAddr, VecDeque<Spent>>,
    moves: VecDeque<Moment>,
    /// With so many targets the old ones are forgotten.
    sweep_at: usize,
    answered: BTreeMap<IpAddr, Moment>,
}

/// One probe to a target.
#[derive(Clone, Copy, Debug)]
struct Spent {
    at: Moment,
    standing: Standing,
}

/// What is known of where a probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has proven itself lately: no stranger's, and bounded by the rate alone.
    Known,
    /// An authenticated packet came from there.
    Challenged,
    /// A peer, or somebody for it, says that it is there.
    Claimed,
}

/// Why a probe may not go out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This second is full.
    Later(Moment),
    /// The target had its share and did not answer.
    Target(Moment),
}

impl Budget {
    /// Spends one probe.
    ///
    /// # Errors
    /// Nothing was spent; until when it is refused.
    pub(super) fn spend(
        &mut self,
        now: Moment,
        to: Path,
        standing: Standing,
    ) -> Result<(), Refused> {
        while self.recent.front().is_some_and(|at| is_over(now, *at)) {
            self.recent.pop_front();
        }
        let share = match standing {
            Standing::Claimed => CLAIMED_A_SECOND,
            Standing::Known | Standing::Challenged => A_SECOND,
        };
        if let Some(oldest) = self.recent.front()
            && self.recent.len() >= share
        {
            return Err(Refused::Later(oldest.after(Duration::from_secs(1))));
        }
        if standing != Standing::Known
            && let Some(target) = target(to)
        {
            self.spend_on(now, target, standing)?;
        }
        self.recent.push_back(now);
        Ok(())
    }

    /// Spends one on a part of a handshake, if it may go out.
    pub(super) fn spend_letter(&mut self, now: Moment, to: Path) -> bool {
        let spent = target(to).and_then(|target| self.targets.get(&target));
        let of_late = |spent: &VecDeque<Spent>| {
            let young = spent.iter().filter(|one| now.since(one.at) < TARGET_TIME);
            young.count()
        };
        spent.map_or(0, of_late) < LETTERS_A_TARGET
            && self.spend(now, to, Standing::Claimed).is_ok()
    }

    /// An authenticated answer came by this path: its target is nobody's victim.
    pub(super) fn note_answer(&mut self, now: Moment, from: Path) {
        let Some(target) = target(from) else {
            return;
        };
        self.targets.remove(&target);
        if self.answered.len() >= TARGETS_MAX {
            self.answered.retain(|_, at| now.since(*at) < TARGET_TIME);
        }
        if self.answered.len() < TARGETS_MAX {
            self.answered.insert(target, now);
        }
    }

    /// This machine is elsewhere: that nobody answered it where it was says nothing about here.
    pub(super) fn note_moved(&mut self, now: Moment) {
        while self
            .moves
            .front()
            .is_some_and(|at| now.since(*at) >= TARGET_TIME)
        {
            self.moves.pop_front();
        }
        // Who has asked nobody yet, as at the start, has nothing to renew.
        if !self.targets.is_empty() && self.moves.len() < MOVES_MAX {
            self.moves.push_back(now);
            self.targets.clear();
        }
    }

    fn spend_on(&mut self, now: Moment, target: IpAddr, standing: Standing) -> Result<(), Refused> {
        if !self.targets.contains_key(&target) && self.targets.len() >= self.sweep_at {
            self.forget_old(now);
            if self.targets.len() >= TARGETS_MAX {
                return Err(Refused::Target(now.after(TARGET_TIME)));
            }
        }
        let spent = self.targets.entry(target).or_default();
        while spent
            .front()
            .is_some_and(|one| now.since(one.at) >= TARGET_TIME)
        {
            spent.pop_front();
        }
        let answered = self.answered.get(&target);
        let limit = match answered.is_some_and(|at| now.since(*at) < TARGET_TIME) {
            true => AN_ACQUAINTANCE,
            false => A_TARGET,
        };
        let is_heard = standing == Standing::Challenged;
        let counts = |one: &&Spent| !is_heard || one.standing == standing;
        // The first of the last so many: when it is over, one more may go.
        if let Some(first) = spent.iter().rev().filter(counts).nth(limit - 1) {
            return Err(Refused::Target(first.at.after(TARGET_TIME)));
        }
        spent.push_back(Spent { at: now, standing });
        Ok(())
    }

    fn forget_old(&mut self, now: Moment) {
        self.targets.retain(|_, spent| {
            spent
                .back()
                .is_some_and(|one| now.since(one.at) < TARGET_TIME)
        });
        self.sweep_at = (2 * self.targets.len()).clamp(SWEEP_FIRST, TARGETS_MAX);
    }
}

fn is_over(now: Moment, at: Moment) -> bool {
    now.since(at) >= Duration::from_secs(1)
}

/// Who would be hit: an IPv4 address, or an IPv6 /64. What has no socket is bounded by who made it.
fn target(path: Path) -> Option<IpAddr> {
    match path.direct()?.ip() {
        IpAddr::V6(v6) => {
            let prefix = v6.to_bits() >> 64 << 64;
            Some(IpAddr::V6(Ipv6Addr::from_bits(prefix)))
        }
        v4 @ IpAddr::V4(_) => Some(v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Underlay;

    fn path(text: &str) -> Path {
        Path::Direct(Underlay::new(text.parse().unwrap()))
    }

    fn second(number: u16) -> Duration {
        Duration::from_secs(number.into())
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    #[test]
    fn one_target_gets_five_whatever_its_port_until_it_answers_or_ten_minutes_are_over() {
        let mut budget = Budget::default();
        for port in 1..=5 {
            let to = path(&format!("192.0.2.1:{port}"));
            assert_eq!(budget.spend(at(port), to, Standing::Claimed), Ok(()));
        }
        let to = path("192.0.2.1:9");
        let until = at(1).after(TARGET_TIME);
        assert_eq!(
            budget.spend(at(9), to, Standing::Claimed),
            Err(Refused::Target(until))
        );
        assert_eq!(budget.spend(until, to, Standing::Claimed), Ok(()));
        assert!(
            budget.spend(until, to, Standing::Claimed).is_err(),
            "one came free"
        );
        budget.note_answer(until, path("192.0.2.1:77"));
        for port in 1..=40 {
            let to = path(&format!("192.0.2.1:{port}"));
            assert_eq!(
                budget.spend(until.after(second(port)), to, Standing::Claimed),
                Ok(())
            );
        }
        assert!(
            budget
                .spend(until.after(second(60)), to, Standing::Claimed)
                .is_err()
        );
    }

    #[test]
    fn who_was_heard_is_asked_where_claims_had_their_share() {
        let mut budget = Budget::default();
        let mut spend = |ms: u64, port: u64, standing| {
            let to = path(&format!("192.0.2.1:{port}"));
            budget.spend(at(ms), to, standing).is_ok()
        };
        let claimed = (0..20).filter(|ms| spend(*ms, 1, Standing::Claimed));
        assert_eq!(claimed.count(), 5);
        let heard = (20..40).filter(|ms| spend(*ms, 2, Standing::Challenged));
        assert_eq!(heard.count(), 5);
        assert!(!spend(40, 1, Standing::Claimed), "it brings claims no more");
    }

    #[test]
    fn who_moved_tries_each_target_anew_and_who_moves_for_ever_does_not() {
        let mut budget = Budget::default();
        let to = path("192.0.2.1:1");
        let mut sent = 0;
        for second in 0..60 {
            let from = second * 1000;
            let free = (from..from + 20).filter(|ms| {
                let spent = budget.spend(at(*ms), to, Standing::Claimed);
                spent.is_ok()
            });
            sent += free.count();
            budget.note_moved(at(from + 500));
        }
        assert_eq!(sent, (1 + MOVES_MAX) * A_TARGET);
    }

    #[test]
    fn a_64_is_one_target() {
        let mut budget = Budget::default();
        for host in 1..=5 {
            let to = path(&format!("[2001:db8::{host}]:1"));
            assert_eq!(budget.spend(at(0), to, Standing::Claimed), Ok(()));
        }
        assert!(
            budget
                .spend(at(0), path("[2001:db8::6]:1"), Standing::Claimed)
                .is_err()
        );
        assert!(
            budget
                .spend(at(0), path("[2001:db8:0:1::6]:1"), Standing::Claimed)
                .is_ok()
        );
    }

    /// When one probe each 3 ms to somebody new may go out, for so many ms.
    fn flood(budget: &mut Budget, ms: std::ops::Range<u64>, standing: Standing) -> Vec<u64> {
        ms.step_by(3)
            .filter(|ms| {
                let ip = std::net::Ipv4Addr::from_bits(0xc633_0000 + u32::try_from(*ms).unwrap());
                let to = Path::Direct(Underlay::new((ip, 1).into()));
                match budget.spend(at(*ms), to, standing) {
                    Ok(()) => true,
                    Err(Refused::Later(free)) => {
                        assert!(free > at(*ms));
                        false
                    }
                    Err(refused) => panic!("{refused:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn no_second_sees_more_than_fifty() {
        let sent = flood(&mut Budget::default(), 0..5000, Standing::Challenged);
        for from in &sent {
            let within = sent.iter().filter(|at| (*from..from + 1000).contains(at));
            assert!(within.count() <= 50);
        }
        assert_eq!(sent.len(), 250);
    }

    #[test]
    fn claims_without_end_leave_room_for_who_was_heard() {
        let mut budget = Budget::default();
        for second in 0..660 {
            let ms = second * 1000..second * 1000 + 990;
            let sent = flood(&mut budget, ms, Standing::Claimed).len();
            assert!((39..=40).contains(&sent), "{sent} in second {second}");
            let heard = path(&format!("203.0.{}.{}:1", second / 250, second % 250));
            let challenged = budget.spend(at(second * 1000 + 995), heard, Standing::Challenged);
            assert_eq!(challenged, Ok(()), "in second {second}");
        }
        assert!(budget.targets.len() < TARGETS_MAX);
    }

    #[test]
    fn parts_of_handshakes_leave_a_target_three_pings() {
        let mut budget = Budget::default();
        let to = path("192.0.2.1:1");
        let letters = (0..20).filter(|ms| budget.spend_letter(at(*ms), to));
        assert_eq!(letters.count(), 2);
        let pings = (20..40).filter(|ms| budget.spend(at(*ms), to, Standing::Claimed).is_ok());
        assert_eq!(pings.count(), 3);
        assert!(budget.spend_letter(at(40).after(TARGET_TIME), to));
    }

    #[test]
    fn targets_that_are_over_are_forgotten() {
        let mut budget = Budget::default();
        for second in 0..6_000 {
            let ms = second * 1000..second * 1000 + 60;
            flood(&mut budget, ms, Standing::Claimed);
        }
        assert!(budget.targets.len() < 25_000, "{}", budget.targets.len());
    }
}
