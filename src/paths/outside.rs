//! Whether this machine is reached from outside (design §8): somebody to whom nothing was sent of late knocked, and the
//! session came to stand. Nothing else shows that a router or a firewall lets strangers in.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{allowed::is_private, candidates::Prefix};
use crate::{addr::Underlay, time::Moment};

/// How long a router may keep open what a datagram of ours opened.
const OPENED_FOR: Duration = Duration::from_mins(10);

/// How long a session may take to stand after its Knock, and its first Hello after that.
const STANDS_WITHIN: Duration = Duration::from_secs(20);

/// How many addresses are remembered, each way.
const REMEMBERED_MAX: usize = 4096;

/// Who must have knocked where more than one can.
const WITNESSES: usize = 2;

/// Tests in a row that may stay unanswered: whoever was to knock may have been on its way elsewhere.
const MISSED_MAX: u32 = 2;

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// To whom something went, and when last.
    sent: BTreeMap<IpAddr, Moment>,
    /// Who knocked unasked, and when.
    knocked: BTreeMap<IpAddr, Moment>,
    /// At which address of ours, and what shows it.
    proven: BTreeMap<Underlay, Proof>,
}

/// What shows that an own address is reached.
#[derive(Clone, Debug, Default)]
struct Proof {
    /// Who got in there; nobody: the run before this one says so, which counts as enough.
    witnesses: Vec<Prefix>,
    /// Tests since somebody got in.
    missed: u32,
}

impl Outside {
    /// A datagram goes there.
    pub fn note_sent(&mut self, now: Moment, to: IpAddr) {
        make_room(&mut self.sent, now);
        self.sent.insert(to, now);
    }

    /// A good Knock or Join came from there.
    pub fn note_knock(&mut self, now: Moment, from: Underlay) {
        let ip = from.ip();
        if !self.is_opened(now, ip) && !is_private(ip) {
            make_room(&mut self.knocked, now);
            self.knocked.insert(ip, now);
        }
        // Its answer opens the way.
        self.note_sent(now, ip);
    }

    /// In a session with a peer at `witness` that peer says at which address of ours it is. True: this proves something
    /// that was not known.
    pub fn note_told(&mut self, now: Moment, witness: Underlay, own: Underlay) -> bool {
        let ip = witness.ip();
        let has_knocked = self
            .knocked
            .get(&ip)
            .is_some_and(|at| now.since(*at) < STANDS_WITHIN);
        if !has_knocked || is_private(own.ip()) || own.ip().is_ipv4() != ip.is_ipv4() {
            return false;
        }
        self.knocked.remove(&ip);
        self.prove(own, Prefix::of(witness))
    }

    /// The run before this one had proven it, and this machine is where it was.
    pub fn note_earlier(&mut self, own: Underlay) {
        self.proven.entry(own).or_default();
    }

    /// A stranger is asked to knock at this address, as before. True: nobody did the last times, so it is proven no more.
    pub fn handle_tested(&mut self, own: Underlay) -> bool {
        let Some(proof) = self.proven.get_mut(&own) else {
            return false;
        };
        proof.missed += 1;
        let is_over = proof.missed > MISSED_MAX;
        if is_over {
            self.proven.remove(&own);
        }
        is_over
    }

    /// This machine is not at these addresses any more, whoever got in there. True: one of them was proven.
    pub fn handle_left(&mut self, is_left: impl Fn(Underlay) -> bool) -> bool {
        let before = self.proven.len();
        self.proven.retain(|own, _| !is_left(*own));
        self.proven.len() < before
    }

    /// Whether who knocks from there would be no stranger, since something was sent there of late.
    pub fn is_opened(&self, now: Moment, to: IpAddr) -> bool {
        let sent = self.sent.get(&to);
        sent.is_some_and(|at| now.since(*at) < OPENED_FOR)
    }

    /// The addresses of this machine changed: nothing is proven any more.
    pub fn handle_moved(&mut self) {
        self.proven.clear();
        self.knocked.clear();
    }

    /// The addresses at which this machine is reached from outside, where `others` says how many prefixes there are from
    /// which somebody could try.
    pub fn proven(&self, others: usize) -> Vec<Underlay> {
        let needed = others.clamp(1, WITNESSES);
        self.proven
            .iter()
            .filter(|(_, proof)| proof.witnesses.is_empty() || proof.witnesses.len() >= needed)
            .map(|(address, _)| *address)
            .collect()
    }

    /// Whether it matters how many could try: at some address one alone got in.
    pub fn depends_on_others(&self) -> bool {
        let mut proofs = self.proven.values();
        proofs.any(|proof| proof.witnesses.len() == 1)
    }

    fn prove(&mut self, own: Underlay, witness: Prefix) -> bool {
        if self.proven.len() >= REMEMBERED_MAX {
            self.proven.clear();
        }
        let is_new = !self.proven.contains_key(&own);
        let proof = self.proven.entry(own).or_default();
        proof.missed = 0;
        if !is_new && (proof.witnesses.is_empty() || proof.witnesses.contains(&witness)) {
            return false;
        }
        if proof.witnesses.len() < WITNESSES {
            proof.witnesses.push(witness);
        }
        true
    }
}

fn make_room(table: &mut BTreeMap<IpAddr, Moment>, now: Moment) {
    if table.len() < REMEMBERED_MAX {
        return;
    }
    table.retain(|_, at| now.since(*at) < OPENED_FOR);
    if table.len() >= REMEMBERED_MAX {
        table.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn own() -> Underlay {
        address("203.0.113.10:41820")
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    fn knocks(outside: &mut Outside, second: u64, from: &str) -> bool {
        outside.note_knock(at(second), address(from));
        outside.note_told(at(second), address(from), own())
    }

    #[test]
    fn a_stranger_that_gets_in_proves_it_where_no_other_could_try() {
        let mut outside = Outside::default();
        assert!(outside.proven(1).is_empty());
        assert!(knocks(&mut outside, 1, "198.51.100.1:5"));
        assert_eq!(outside.proven(1), [own()]);
        assert!(outside.proven(2).is_empty());
    }

    #[test]
    fn where_others_could_try_two_of_different_prefixes_must() {
        let mut outside = Outside::default();
        knocks(&mut outside, 1, "198.51.100.1:5");
        knocks(&mut outside, 2, "198.51.7.7:5");
        assert!(outside.proven(3).is_empty());
        assert!(knocks(&mut outside, 3, "192.0.2.1:5"));
        assert_eq!(outside.proven(3), [own()]);
    }

    #[test]
    fn who_was_written_to_is_no_stranger_for_ten_minutes() {
        let mut outside = Outside::default();
        outside.note_sent(at(1), address("198.51.100.1:9").ip());
        assert!(!knocks(&mut outside, 600, "198.51.100.1:5"));
        // The answer to that Knock went there too.
        assert!(!knocks(&mut outside, 1_100, "198.51.100.1:5"));
        assert!(knocks(&mut outside, 1_800, "198.51.100.1:5"));
    }

    #[test]
    fn a_knock_without_a_session_or_from_a_private_address_proves_nothing() {
        let mut outside = Outside::default();
        outside.note_knock(at(1), address("198.51.100.1:5"));
        assert!(outside.proven(1).is_empty());
        assert!(!outside.note_told(at(30), address("198.51.100.1:5"), own()));
        assert!(!knocks(&mut outside, 1, "192.168.1.7:5"));
        assert!(!knocks(&mut outside, 1, "100.70.1.7:5"));
    }

    #[test]
    fn a_private_own_address_is_never_reached_from_outside() {
        let mut outside = Outside::default();
        let inside = address("192.168.1.7:41820");
        outside.note_knock(at(1), address("198.51.100.1:5"));
        assert!(!outside.note_told(at(1), address("198.51.100.1:5"), inside));
    }

    #[test]
    fn the_word_of_the_run_before_counts_until_this_machine_moves() {
        let mut outside = Outside::default();
        outside.note_earlier(own());
        assert_eq!(outside.proven(9), [own()]);
        assert!(!knocks(&mut outside, 1, "198.51.100.1:5"));
        outside.handle_moved();
        assert!(outside.proven(1).is_empty());
    }

    #[test]
    fn two_tests_in_a_row_may_stay_unanswered_and_no_more() {
        let mut outside = Outside::default();
        knocks(&mut outside, 1, "198.51.100.1:5");
        for _hour in 0..5 {
            assert!(!outside.handle_tested(own()));
            assert!(!outside.handle_tested(own()));
            // One that got in before shows it as well as another.
            outside.sent.clear();
            assert!(!knocks(&mut outside, 2, "198.51.100.1:5"));
        }
        assert!(!outside.handle_tested(own()));
        assert!(!outside.handle_tested(own()));
        assert!(outside.handle_tested(own()));
        assert!(outside.proven(1).is_empty());
        assert!(!outside.handle_tested(own()), "it is proven no more");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut outside = Outside::default();
        for number in 0..20_000_u32 {
            let ip = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
            outside.note_knock(at(1), Underlay::new((ip, 9).into()));
        }
        assert!(outside.sent.len() <= REMEMBERED_MAX);
        assert!(outside.knocked.len() <= REMEMBERED_MAX);
    }
}
