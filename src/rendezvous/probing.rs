//! Who was read of is knocked at, each second, for a while. An entry proves nothing, so each is bounded, and all of them
//! together.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::slots::News;
use crate::{
    addr::{Scope, Underlay},
    ids::{JoinId, NodeId},
    time::{Moment, Now},
};

/// How often an address is tried.
const EVERY: Duration = Duration::from_secs(1);

/// Datagrams that one entry of a slot may cost: a false one aims them at somebody else.
const TRIES: u32 = 10;

/// The same for an entry that is no news.
const STANDING_TRIES: u32 = 3;

/// Tries of a joiner at each address: as many as it waits seconds, and its token says whom it trusts.
const JOINER_TRIES: u32 = 30;

/// Parties under way at once.
const PARTIES_MAX: usize = 5;

/// Who is to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A member: Knock under this epoch, and initiate.
    Member {
        /// Who.
        node: NodeId,
        /// The epoch of the slot it was read in.
        epoch: u32,
    },
    /// A joiner of our invite: Punch.
    Joiner {
        /// Of which invite.
        join_id: JoinId,
        /// Who it will be.
        node: NodeId,
    },
    /// The issuer of the token we hold: Join, and initiate.
    Issuer {
        /// Of which invite.
        join_id: JoinId,
        /// Who wrote; not to be believed before it is granted.
        node: NodeId,
    },
}

impl Party {
    pub(super) fn node(self) -> NodeId {
        match self {
            Self::Member { node, .. } | Self::Joiner { node, .. } | Self::Issuer { node, .. } => {
                node
            }
        }
    }

    fn tries(self, news: News, addresses: usize) -> u32 {
        match (self, news) {
            (Self::Issuer { .. }, _) => JOINER_TRIES * u32::try_from(addresses).unwrap_or(u32::MAX),
            (Self::Member { .. } | Self::Joiner { .. }, News::Fresh) => TRIES,
            (Self::Member { .. } | Self::Joiner { .. }, News::Standing) => STANDING_TRIES,
        }
    }
}

/// All that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    under_way: BTreeMap<Party, Probe>,
    outputs: VecDeque<(Party, Underlay)>,
}

#[derive(Clone, Debug)]
struct Probe {
    addresses: Vec<Underlay>,
    left: u32,
    next: Moment,
}

impl Probes {
    /// Begins to try a party, the first time at once. What was under way for it is given up; if there is no room, what was
    /// read under an older epoch is. False: there is none.
    pub(super) fn begin(
        &mut self,
        now: Now,
        party: Party,
        addresses: Vec<Underlay>,
        news: News,
    ) -> bool {
        if addresses.is_empty() {
            return true;
        }
        let is_new = !self.under_way.contains_key(&party);
        if is_new && self.under_way.len() >= PARTIES_MAX && !self.displace(party) {
            return false;
        }
        let probe = Probe {
            left: party.tries(news, addresses.len()),
            addresses,
            next: now.at,
        };
        self.under_way.insert(party, probe);
        self.handle_timeout(now);
        true
    }

    /// Who was excluded has the older epoch's secret still, and may not keep out what the newer one's holders say.
    fn displace(&mut self, party: Party) -> bool {
        let epoch_of = |party: &Party| match party {
            Party::Member { epoch, .. } => Some(*epoch),
            Party::Joiner { .. } | Party::Issuer { .. } => None,
        };
        let older = self.under_way.keys().copied().find(|other| {
            epoch_of(other).is_some_and(|older| epoch_of(&party).is_some_and(|new| older < new))
        });
        older.is_some_and(|older| self.under_way.remove(&older).is_some())
    }

    /// One more address of a party that is under way: something came from there.
    pub(super) fn add(&mut self, now: Now, party: Party, address: Underlay) {
        match self.under_way.get_mut(&party) {
            Some(probe) if probe.addresses.contains(&address) => {}
            Some(probe) => {
                probe.addresses.insert(0, address);
                probe.addresses.truncate(4);
                probe.left += party.tries(News::Fresh, 1);
                probe.next = now.at;
                self.handle_timeout(now);
            }
            None => {
                self.begin(now, party, vec![address], News::Fresh);
            }
        }
    }

    /// Ends what is under way for those who are not wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(Party) -> bool) {
        self.under_way.retain(|party, _| is_wanted(*party));
    }

    pub(super) fn poll_output(&mut self) -> Option<(Party, Underlay)> {
        self.outputs.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.under_way.values().map(|probe| probe.next).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        for (party, probe) in &mut self.under_way {
            if probe.next > now.at {
                continue;
            }
            for address in &probe.addresses {
                if let Some(left) = probe.left.checked_sub(1) {
                    probe.left = left;
                    self.outputs.push_back((*party, *address));
                }
            }
            probe.next = now.at.after(EVERY);
        }
        self.under_way.retain(|_, probe| probe.left > 0);
    }
}

/// Which of an entry's addresses may be tried by a machine that the world sees at `ours`: a private one only where both are
/// behind one address, since elsewhere it is somebody else's.
pub(super) fn triable(addresses: &[Underlay], ours: &[Underlay]) -> Vec<Underlay> {
    let is_shared = addresses
        .iter()
        .any(|theirs| ours.iter().any(|own| own.ip() == theirs.ip()));
    let is_ours = |address: &Underlay| ours.contains(address);
    let mut all: Vec<Underlay> = Vec::new();
    for address in addresses {
        let may = match Scope::of(address.ip()) {
            Scope::World => true,
            Scope::Place => is_shared,
            Scope::Nobody => false,
        };
        if may && address.may_be_peers() && !is_ours(address) && !all.contains(address) {
            all.push(*address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::tests::NOBODY;

    const BO: Party = Party::Member {
        node: NodeId([2; 32]),
        epoch: 0,
    };
    const ISSUER: Party = Party::Issuer {
        join_id: JoinId([1; 8]),
        node: NodeId([3; 32]),
    };

    fn at(second: u64) -> Now {
        Now {
            at: Moment(second * 1_000_000),
            unix_ms: second * 1_000,
        }
    }

    fn address(text: &str) -> Underlay {
        Underlay::new(text.parse().unwrap())
    }

    fn addresses(texts: &[&str]) -> Vec<Underlay> {
        texts.iter().map(|text| address(text)).collect()
    }

    /// When a party is tried, second by second.
    fn run(probes: &mut Probes, seconds: u64) -> Vec<(u64, Party, Underlay)> {
        let mut tried = Vec::new();
        for second in 0..seconds {
            probes.handle_timeout(at(second));
            while let Some((party, to)) = probes.poll_output() {
                tried.push((second, party, to));
            }
        }
        tried
    }

    #[test]
    fn a_member_is_tried_each_second_ten_times_at_once_first() {
        let mut probes = Probes::default();
        probes.begin(at(0), BO, addresses(&["203.0.113.9:5001"]), News::Fresh);
        let seconds: Vec<u64> = run(&mut probes, 60)
            .iter()
            .map(|(second, ..)| *second)
            .collect();
        assert_eq!(seconds, (0..10).collect::<Vec<u64>>());
        assert_eq!(probes.poll_timeout(), None);
    }

    #[test]
    fn an_entry_costs_ten_datagrams_however_many_addresses_it_names() {
        let three = addresses(&["203.0.113.9:5001", "203.0.113.10:5001", "203.0.113.11:5001"]);
        let mut probes = Probes::default();
        probes.begin(at(0), BO, three.clone(), News::Fresh);
        assert_eq!(run(&mut probes, 60).len(), 10);
        probes.begin(at(0), BO, three, News::Standing);
        assert_eq!(run(&mut probes, 60).len(), 3);
    }

    #[test]
    fn a_joiner_tries_each_address_thirty_times() {
        let mut probes = Probes::default();
        let two = addresses(&["203.0.113.9:5001", "[2001:db8::1]:5001"]);
        probes.begin(at(0), ISSUER, two, News::Standing);
        let tried = run(&mut probes, 60);
        assert_eq!((tried.len(), tried[59].0), (60, 29));
    }

    #[test]
    fn five_parties_are_tried_at_once_and_no_more() {
        let mut probes = Probes::default();
        for node in 0..20 {
            let party = Party::Member {
                node: NodeId([node; 32]),
                epoch: 0,
            };
            probes.begin(at(0), party, addresses(&["203.0.113.9:5001"]), News::Fresh);
        }
        assert_eq!(run(&mut probes, 60).len(), 50);
    }

    #[test]
    fn a_newer_epochs_party_takes_the_place_of_an_older_ones() {
        let mut probes = Probes::default();
        let member = |node: u8, epoch| Party::Member {
            node: NodeId([node; 32]),
            epoch,
        };
        let there = || addresses(&["203.0.113.9:5001"]);
        for node in 0..5 {
            assert!(probes.begin(at(0), member(node, 3), there(), News::Fresh));
        }
        assert!(!probes.begin(at(0), member(7, 3), there(), News::Fresh));
        assert!(probes.begin(at(0), member(7, 4), there(), News::Fresh));
        let nodes: Vec<u8> = probes.under_way.keys().map(|it| it.node().0[0]).collect();
        assert_eq!((nodes.len(), nodes.contains(&7)), (5, true));
    }

    #[test]
    fn who_was_met_is_tried_no_more() {
        let mut probes = Probes::default();
        probes.begin(at(0), BO, addresses(&["203.0.113.9:5001"]), News::Fresh);
        probes.retain(|party| party.node() != BO.node());
        assert_eq!(run(&mut probes, 60).len(), 1, "the first one had gone");
    }

    #[test]
    fn where_a_punch_came_from_is_one_more_address() {
        let mut probes = Probes::default();
        probes.begin(at(0), ISSUER, addresses(&["203.0.113.9:5001"]), News::Fresh);
        probes.add(at(0), ISSUER, address("203.0.113.9:5002"));
        probes.add(at(0), ISSUER, address("203.0.113.9:5002"));
        let tried = run(&mut probes, 60);
        let there = tried
            .iter()
            .filter(|(.., to)| *to == address("203.0.113.9:5002"));
        assert!(there.count() >= 30);
        let mut probes = Probes::default();
        probes.add(at(0), ISSUER, address("203.0.113.9:5002"));
        assert_eq!(run(&mut probes, 60).len(), 30);
    }

    #[test]
    fn a_private_address_is_tried_only_behind_the_same_public_one() {
        let theirs = addresses(&[
            "203.0.113.9:5001",
            "192.168.1.2:41820",
            "127.0.0.1:5001",
            "[fe80::1]:1",
        ]);
        let elsewhere = addresses(&["198.51.100.1:5001"]);
        assert_eq!(
            triable(&theirs, &elsewhere),
            addresses(&["203.0.113.9:5001"])
        );
        let neighbour = addresses(&["203.0.113.9:5002"]);
        assert_eq!(
            triable(&theirs, &neighbour),
            addresses(&["203.0.113.9:5001", "192.168.1.2:41820"])
        );
        assert!(triable(&addresses(&NOBODY), &[]).is_empty());
        assert!(triable(&neighbour, &neighbour).is_empty(), "that is we");
    }
}
