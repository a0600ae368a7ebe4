//! Which peers to have links with: everyone while that fits, else ring neighbours and a random rest.

use std::collections::BTreeSet;

use super::{Contact, Eligible, Links};
use crate::{
    ids::{NodeId, PeerIx},
    time::Moment,
};

/// Peers out of reach that are still dialled, on each walk: they may be back, and do not count.
const HOPELESS_MAX: usize = 2;

impl Links {
    /// Whom to dial and to ask, those that are links already included.
    pub(super) fn targets(&self, now: Moment) -> BTreeSet<PeerIx> {
        let around = self.around();
        if around.len() <= self.limits.wanted {
            let may_ask = |contact: &Contact| contact.is_linked() || contact.refused_until <= now;
            return around
                .into_iter()
                .filter(|(_, contact)| may_ask(contact))
                .map(|(peer, _)| peer)
                .collect();
        }
        let mut targets: BTreeSet<PeerIx> = self.linked().collect();
        let ring = self.ring_walk(&around);
        targets.extend(ring.into_iter().filter(|peer| self.may_ask(now, *peer)));
        if self.search_at <= now {
            self.fill_at_random(now, around, &mut targets);
        }
        targets
    }

    /// The neighbours on the ring that are within reach, or may be. Everyone, while links to everyone fit.
    pub(super) fn ring(&self) -> BTreeSet<PeerIx> {
        let around = self.around();
        if around.len() <= self.limits.wanted {
            return around.into_iter().map(|(peer, _)| peer).collect();
        }
        let walk = self.ring_walk(&around);
        walk.into_iter()
            .filter(|peer| {
                self.contacts
                    .get(peer)
                    .is_some_and(|contact| !contact.is_failing())
            })
            .collect()
    }

    /// The eligible peers next to a node on the ring, both ways: those that want a link with it as much as it wants one
    /// with them.
    pub fn neighbours_of(&self, node: NodeId) -> Vec<PeerIx> {
        let mut others: Vec<(NodeId, PeerIx)> = self
            .contacts
            .iter()
            .filter(|(_, contact)| contact.eligible == Eligible::Yes && contact.node != node)
            .map(|(peer, contact)| (contact.node, *peer))
            .collect();
        others.sort_by_key(|(other, _)| (*other < node, *other));
        let mut found: Vec<PeerIx> = [others.first(), others.last()]
            .into_iter()
            .flatten()
            .map(|(_, peer)| *peer)
            .collect();
        found.dedup();
        found
    }

    /// Whether it is a link, or did not refuse to be one just now.
    pub(super) fn may_ask(&self, now: Moment, peer: PeerIx) -> bool {
        self.contacts
            .get(&peer)
            .is_some_and(|contact| contact.is_linked() || contact.refused_until <= now)
    }

    /// All candidates in the order of their node ids, beginning after our own.
    fn around(&self) -> Vec<(PeerIx, &Contact)> {
        let mut around: Vec<(PeerIx, &Contact)> = self
            .contacts
            .iter()
            .filter(|(_, contact)| contact.is_candidate())
            .map(|(peer, contact)| (*peer, contact))
            .collect();
        let place = |node: NodeId| (node < self.own, node);
        around.sort_by_key(|(_, contact)| place(contact.node));
        around
    }

    /// The neighbours both ways, a quarter of the wanted links each, and those out of reach that were passed over.
    fn ring_walk(&self, around: &[(PeerIx, &Contact)]) -> BTreeSet<PeerIx> {
        let each = (self.limits.wanted / 4).max(1);
        let mut found = walk(around.iter(), each);
        found.extend(walk(around.iter().rev(), each));
        found
    }

    fn fill_at_random(
        &self,
        now: Moment,
        mut around: Vec<(PeerIx, &Contact)>,
        targets: &mut BTreeSet<PeerIx>,
    ) {
        let counted = |peer: &PeerIx| {
            self.contacts
                .get(peer)
                .is_some_and(|contact| !contact.is_failing())
        };
        let have = targets.iter().filter(|peer| counted(peer)).count();
        around.retain(|(peer, _)| !targets.contains(peer) && self.may_ask(now, *peer));
        around.sort_by_key(|(_, contact)| contact.drawn);
        let missing = self.limits.wanted.saturating_sub(have);
        targets.extend(walk(around.iter(), missing));
    }
}

/// The first `count` peers within reach, and the first few out of reach before the last of them.
fn walk<'a>(
    peers: impl Iterator<Item = &'a (PeerIx, &'a Contact)>,
    count: usize,
) -> BTreeSet<PeerIx> {
    let mut found = BTreeSet::new();
    let (mut reachable, mut hopeless) = (0, 0);
    for (peer, contact) in peers {
        if reachable == count {
            break;
        }
        if !contact.is_failing() {
            reachable += 1;
        } else if hopeless < HOPELESS_MAX {
            hopeless += 1;
        } else {
            continue;
        }
        found.insert(*peer);
    }
    found
}
