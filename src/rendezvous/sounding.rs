//! Where the world sees this machine: two nodes of the DHT are asked from the main UDP socket, and both must say the same.
//!
//! The questions also keep the NAT's mapping of that socket open, so the same two are asked again as long as they answer.

use std::{collections::BTreeMap, time::Duration};

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::krpc::{self, Transaction};
use crate::{
    addr::Underlay,
    time::{Moment, Now},
};

/// How long an answer may take (protocol §12).
const PATIENCE: Duration = Duration::from_secs(3);

/// How often others are asked for those that did not answer, before what is known must do.
const ROUNDS: u8 = 3;

/// Nodes remembered.
const NODES_MAX: usize = 32;

/// What this machine's NAT does to its main socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One port for all destinations: who is told it can reach us.
    One,
    /// A new port per destination: nobody can be told.
    PerDestination,
    /// Only one node answered.
    Unknown,
}

/// Where the world sees this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address, and a second one where the two nodes do not even agree on the IP.
    pub addresses: Vec<Underlay>,
    /// What the NAT does.
    pub mapping: Mapping,
}

/// What asking came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this.
    Ask(Underlay, Vec<u8>),
    /// The nodes are too few: more are needed of the DHT's table.
    Nodes,
    /// It is over, and this is known; None: nobody answered.
    Done(Option<Seen>),
}

/// The questions under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Sounding {
    nodes: Vec<Underlay>,
    asked: BTreeMap<Transaction, Underlay>,
    answers: Vec<(Underlay, Underlay)>,
    round: Option<Round>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    number: u8,
    until: Moment,
}

impl Sounding {
    /// Whether questions are out.
    pub(super) fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.round.map(|round| round.until)
    }

    /// Starts, unless it is under way.
    pub(super) fn start(&mut self, now: Now, rng: &mut ChaCha8Rng) -> Vec<Step> {
        if self.is_under_way() {
            return Vec::new();
        }
        self.answers.clear();
        self.asked.clear();
        self.ask(now, rng, 0)
    }

    /// Nodes of the DHT's table. Those known before stay in front: they keep the mapping.
    pub(super) fn handle_nodes(
        &mut self,
        now: Now,
        rng: &mut ChaCha8Rng,
        nodes: &[Underlay],
    ) -> Vec<Step> {
        let first = usize::try_from(rng.next_u32()).unwrap_or(0) % nodes.len().max(1);
        for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
            let is_known = self.nodes.iter().any(|known| known.ip() == node.ip());
            if !is_known && self.nodes.len() < NODES_MAX && node.socket().port() != 0 {
                self.nodes.push(*node);
            }
        }
        match self.round {
            Some(round) if self.asked.is_empty() => self.ask(now, rng, round.number),
            Some(_) | None => Vec::new(),
        }
    }

    /// A datagram that may be an answer; one from another address than was asked is none.
    pub(super) fn handle_answer(&mut self, source: Underlay, datagram: &[u8]) -> Option<Step> {
        let (transaction, seen) = krpc::observed(datagram)?;
        if self.asked.get(&transaction) != Some(&source) {
            return None;
        }
        self.asked.remove(&transaction);
        self.answers.push((source, seen));
        (self.answers.len() >= 2).then(|| self.finish())
    }

    /// The time for answers is over: others are asked, or it ends.
    pub(super) fn handle_timeout(&mut self, now: Now, rng: &mut ChaCha8Rng) -> Vec<Step> {
        let Some(round) = self.round.filter(|round| round.until <= now.at) else {
            return Vec::new();
        };
        let silent: Vec<Underlay> = std::mem::take(&mut self.asked).into_values().collect();
        self.nodes.retain(|node| !silent.contains(node));
        if round.number + 1 >= ROUNDS {
            return vec![self.finish()];
        }
        self.ask(now, rng, round.number + 1)
    }

    fn ask(&mut self, now: Now, rng: &mut ChaCha8Rng, number: u8) -> Vec<Step> {
        self.round = Some(Round {
            number,
            until: now.at.after(PATIENCE),
        });
        let missing = 2 - self.answers.len().min(2);
        let answered = |node: &Underlay| self.answers.iter().any(|(from, _)| from == node);
        let ask: Vec<Underlay> = self
            .nodes
            .iter()
            .filter(|node| !answered(node))
            .take(missing)
            .copied()
            .collect();
        let mut steps = Vec::new();
        if ask.len() < missing {
            steps.push(Step::Nodes);
        }
        for node in ask {
            let (mut id, mut transaction) = ([0; 20], Transaction::default());
            rng.fill_bytes(&mut id);
            rng.fill_bytes(&mut transaction);
            self.asked.insert(transaction, node);
            steps.push(Step::Ask(node, krpc::ping(id, transaction)));
        }
        steps
    }

    fn finish(&mut self) -> Step {
        self.round = None;
        self.asked.clear();
        let mut seen = self.answers.iter().map(|(_, seen)| *seen);
        Step::Done(match (seen.next(), seen.next()) {
            (None, _) => None,
            (Some(one), None) => Some(Seen {
                addresses: vec![one],
                mapping: Mapping::Unknown,
            }),
            (Some(one), Some(two)) if one == two => Some(Seen {
                addresses: vec![one],
                mapping: Mapping::One,
            }),
            (Some(one), Some(two)) => {
                let mut addresses = vec![one];
                addresses.extend((one.ip() != two.ip()).then_some(two));
                Some(Seen {
                    addresses,
                    mapping: Mapping::PerDestination,
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng as _;

    use super::*;

    fn at(second: u64) -> Now {
        Now {
            at: Moment(second * 1_000_000),
            unix_ms: 1_800_000_000_000 + second * 1_000,
        }
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::from_seed([1; 32])
    }

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn nodes() -> Vec<Underlay> {
        (64..70)
            .map(|last| address(&format!("203.0.113.{last}:6881")))
            .collect()
    }

    /// The answer to a question, as a node gives it that saw us at `seen`.
    fn answer(question: &[u8], seen: &str) -> Vec<u8> {
        let seen = address(seen);
        let std::net::IpAddr::V4(ip) = seen.ip() else {
            panic!("a v4 address")
        };
        let transaction = &question[question.len() - 11..question.len() - 7];
        [
            b"d2:ip6:",
            &ip.octets()[..],
            &seen.socket().port().to_be_bytes(),
            b"1:t4:",
            transaction,
            b"1:y1:re",
        ]
        .concat()
    }

    fn asked(steps: &[Step]) -> Vec<(Underlay, Vec<u8>)> {
        let ask = |step: &Step| match step {
            Step::Ask(to, bytes) => Some((*to, bytes.clone())),
            Step::Nodes | Step::Done(_) => None,
        };
        steps.iter().filter_map(ask).collect()
    }

    fn sound(seen: [&str; 2]) -> Step {
        let mut sounding = Sounding::default();
        let mut rng = rng();
        assert_eq!(sounding.start(at(0), &mut rng), [Step::Nodes]);
        let asked = asked(&sounding.handle_nodes(at(0), &mut rng, &nodes()));
        assert_eq!(asked.len(), 2);
        assert_ne!(asked[0].0.ip(), asked[1].0.ip());
        let first = answer(&asked[0].1, seen[0]);
        assert_eq!(sounding.handle_answer(asked[0].0, &first), None);
        let second = answer(&asked[1].1, seen[1]);
        sounding.handle_answer(asked[1].0, &second).unwrap()
    }

    #[test]
    fn two_nodes_that_see_the_same_make_one_port_for_all() {
        let step = sound(["203.0.113.9:41820", "203.0.113.9:41820"]);
        let seen = Seen {
            addresses: vec![address("203.0.113.9:41820")],
            mapping: Mapping::One,
        };
        assert_eq!(step, Step::Done(Some(seen)));
    }

    #[test]
    fn two_nodes_that_see_two_ports_make_a_new_port_per_destination() {
        let Step::Done(Some(seen)) = sound(["203.0.113.9:1025", "203.0.113.9:1026"]) else {
            panic!("both answered")
        };
        assert_eq!(seen.mapping, Mapping::PerDestination);
        assert_eq!(seen.addresses, [address("203.0.113.9:1025")]);
        let Step::Done(Some(seen)) = sound(["203.0.113.9:1025", "198.51.100.1:1026"]) else {
            panic!("both answered")
        };
        assert_eq!(seen.addresses.len(), 2);
    }

    #[test]
    fn an_answer_from_elsewhere_or_to_nothing_that_was_asked_is_dropped() {
        let mut sounding = Sounding::default();
        let mut rng = rng();
        sounding.start(at(0), &mut rng);
        let asked = asked(&sounding.handle_nodes(at(0), &mut rng, &nodes()));
        let good = answer(&asked[0].1, "203.0.113.9:1");
        assert_eq!(sounding.handle_answer(asked[1].0, &good), None);
        let mut other = good.clone();
        let t = other.len() - 9;
        other[t] ^= 1;
        assert_eq!(sounding.handle_answer(asked[0].0, &other), None);
        assert!(sounding.answers.is_empty());
        assert_eq!(sounding.handle_answer(asked[0].0, &good), None);
        assert_eq!(sounding.handle_answer(asked[0].0, &good), None, "again");
        assert_eq!(sounding.answers.len(), 1);
    }

    #[test]
    fn who_is_silent_for_3_s_is_asked_no_more_and_others_are() {
        let mut sounding = Sounding::default();
        let mut rng = rng();
        sounding.start(at(0), &mut rng);
        let first = asked(&sounding.handle_nodes(at(0), &mut rng, &nodes()));
        assert!(sounding.handle_timeout(at(2), &mut rng).is_empty());
        let second = asked(&sounding.handle_timeout(at(3), &mut rng));
        assert_eq!(second.len(), 2);
        assert!(
            second
                .iter()
                .all(|(node, _)| !first.iter().any(|(silent, _)| silent == node))
        );
        let late = answer(&first[0].1, "203.0.113.9:1");
        assert_eq!(sounding.handle_answer(first[0].0, &late), None, "too late");
        let one = answer(&second[0].1, "203.0.113.9:1");
        assert_eq!(sounding.handle_answer(second[0].0, &one), None);
        let third = asked(&sounding.handle_timeout(at(6), &mut rng));
        assert_eq!(third.len(), 1, "only the missing one");
        let [Step::Done(Some(seen))] = &sounding.handle_timeout(at(9), &mut rng)[..] else {
            panic!("it ends")
        };
        assert_eq!(seen.mapping, Mapping::Unknown);
        assert!(!sounding.is_under_way());
    }

    #[test]
    fn who_answered_is_asked_again_so_that_the_mapping_stays() {
        let mut sounding = Sounding::default();
        let mut rng = rng();
        sounding.start(at(0), &mut rng);
        let first = asked(&sounding.handle_nodes(at(0), &mut rng, &nodes()));
        for (node, question) in &first {
            sounding.handle_answer(*node, &answer(question, "203.0.113.9:1"));
        }
        let again = asked(&sounding.start(at(20), &mut rng));
        let who =
            |asked: &[(Underlay, Vec<u8>)]| asked.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        assert_eq!(who(&first), who(&again));
        assert_ne!(first[0].1, again[0].1, "with a transaction of its own");
    }

    #[test]
    fn nobody_asked_is_nobody_seen() {
        let mut sounding = Sounding::default();
        let mut rng = rng();
        sounding.start(at(0), &mut rng);
        for second in [3, 6] {
            assert_eq!(sounding.handle_timeout(at(second), &mut rng), [Step::Nodes]);
        }
        assert_eq!(sounding.handle_timeout(at(9), &mut rng), [Step::Done(None)]);
    }
}
