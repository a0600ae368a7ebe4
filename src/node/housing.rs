//! This peer keeps sessions with its homes (design §8), and stays where it is called.

use std::time::Duration;

use crate::{
    addr::Underlay,
    ids::{NodeId, PeerIx, SessionId},
    node::{
        Node, Timer,
        talking::{Goodbye, Pair},
    },
    overlay::homes,
    time::Now,
};

/// How long after a change of records the homes are computed anew: many come together.
const SOON: Duration = Duration::from_secs(1);

/// How often they are computed without any: leases end in silence.
const AGAIN: Duration = Duration::from_mins(1);

/// The first in the order that may become homes: more are never tried at once.
const ORDER_MAX: usize = 12;

impl Node {
    /// The homes with which this peer keeps a session, so that it can be called there.
    pub fn homes(&self) -> Vec<NodeId> {
        let kept = self.homes.kept();
        kept.map(|home| self.ids.node(home)).collect()
    }

    /// Something changed that homes are computed of.
    pub(super) fn review_homes_soon(&mut self, now: Now) {
        self.timers.set_earlier(Timer::Homes, now.at.after(SOON));
    }

    /// Computes the own homes. Who is reached from outside needs none.
    pub(super) fn review_homes(&mut self, now: Now) {
        self.timers.set(Timer::Homes, now.at.after(AGAIN));
        let mut order = if self.proven_addresses(now).is_empty() {
            self.homes_of(now, self.me)
        } else {
            Vec::new()
        };
        order.truncate(ORDER_MAX);
        self.homes.handle_order(now, order);
    }

    pub(super) fn drain_homes(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.homes.poll_output() {
            any = true;
            match output {
                homes::Output::Open(home) => self.open_home(now, home),
                homes::Output::Ping(home) => self.stay_with(now, home),
                homes::Output::Close(home) => self.close_pair(now, home, Goodbye::Closing),
            }
        }
        any
    }

    /// Keeps a session with a home, and lets it see this machine by both families: what a home has not seen nobody else
    /// may try.
    pub(super) fn stay_with(&mut self, now: Now, home: PeerIx) {
        self.links.handle_kept(now, home);
        self.ping_link(now, home);
        let Some(other) = self.other_family_of(now, home) else {
            return;
        };
        self.proofs
            .handle_candidates(now, SessionId::Pair(home), &[other.into()]);
    }

    /// Where a peer says that the world reaches it in the family in which its session does not go, if this machine has that
    /// family.
    fn other_family_of(&self, now: Now, peer: PeerIx) -> Option<Underlay> {
        let endpoint = self.pairs.get(&peer).and_then(Pair::usable)?.endpoint;
        let is_v4 = endpoint.direct()?.ip().is_ipv4();
        let interfaces = self.candidates.interfaces();
        let has_other = interfaces
            .iter()
            .any(|address| address.ip().is_ipv4() != is_v4);
        let mut others = self.candidates.of(now, peer).into_iter();
        let other = others.find(|at| at.ip().is_ipv4() != is_v4 && at.is_public());
        other.filter(|_| has_other)
    }
}
