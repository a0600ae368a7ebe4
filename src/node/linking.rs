//! Links are kept (design §8): what the overlay wants becomes attempts, messages and ends of sessions.

use std::time::Duration;

use crate::{
    gossip::{LinkKind, Linked},
    ids::{NodeId, PeerIx, SessionId, Slot},
    node::{Node, Timer, gossiping::RegistryShelf, talking::Goodbye},
    overlay::{self, Eligible, Opener, UnlinkReason},
    paths::attempt::Purpose,
    time::Now,
    wire::{
        message::{Link, Message, Unlink},
        record::{Kind, slot_of},
    },
};

/// How long this machine may speak with no home before it tries those that have left.
const CUT_OFF_AFTER: Duration = Duration::from_secs(10);

impl Node {
    /// Whether a deadline has come by which sessions are judged by what they were used for.
    pub fn judges_use(&self, now: Now) -> bool {
        self.links.poll_timeout().is_some_and(|due| due <= now.at)
    }

    pub(super) fn drain_links(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.links.poll_output() {
            any = true;
            match output {
                overlay::Output::Dial(peer) if self.is_held_back(now, peer) => {}
                overlay::Output::Dial(peer) => self.reach(now, peer, Purpose::Link),
                overlay::Output::Ask(peer) => {
                    self.send(SessionId::Pair(peer), Message::Link(Link { yes: false }));
                }
                overlay::Output::Yes(peer) => {
                    self.send(SessionId::Pair(peer), Message::Link(Link { yes: true }));
                }
                overlay::Output::Unlink { peer, reason } => self.send_unlink(now, peer, reason),
                overlay::Output::Linked(peer) => self.on_linked(now, peer),
                overlay::Output::Unlinked(peer) => self.gossip.handle_unlinked(peer),
                overlay::Output::Ping(peer) => self.ping_link(now, peer),
                overlay::Output::Close { peer, reason } => {
                    match reason {
                        // The other side's time is over as well, and nothing is sent for a pair that idles.
                        overlay::CloseReason::Idle => self.drop_pair(now, peer),
                        overlay::CloseReason::Silent | overlay::CloseReason::Crowded => {
                            self.close_pair(now, peer, Goodbye::Closing);
                        }
                    }
                }
            }
        }
        any
    }

    /// Refuses or ends a link. Who is refused because all places are taken is told of its neighbours on the ring, who
    /// will not refuse it: a newcomer knows nobody but who let it in.
    fn send_unlink(&mut self, now: Now, peer: PeerIx, reason: UnlinkReason) {
        let session = SessionId::Pair(peer);
        let reason_number = unlink_number(reason);
        self.send(
            session,
            Message::Unlink(Unlink {
                reason: reason_number,
            }),
        );
        if reason != UnlinkReason::Full {
            return;
        }
        let neighbours = self.links.neighbours_of(self.ids.node(peer));
        let slots = neighbours
            .into_iter()
            .flat_map(|neighbour| self.slots_to_meet(self.ids.node(neighbour)))
            .collect();
        self.answer_unlinked(now, session, slots);
    }

    /// What a peer must hold of another to dial it.
    pub(super) fn slots_to_meet(&self, node: NodeId) -> Vec<Slot> {
        let about = |kind, node: NodeId| slot_of(kind, &node.0, &[]);
        let signer = self
            .members
            .certificate(node)
            .map(|certificate| about(Kind::Admin, certificate.signer));
        [Kind::Member, Kind::Peer, Kind::Lease]
            .map(|kind| about(kind, node))
            .into_iter()
            .chain(signer)
            .collect()
    }

    fn on_linked(&mut self, now: Now, peer: PeerIx) {
        let Some(hello) = self
            .pairs
            .get(&peer)
            .and_then(|pair| pair.up.as_ref())
            .and_then(|up| up.hello.clone())
        else {
            return;
        };
        let kind = if hello.role == 1 {
            LinkKind::Leaf
        } else {
            LinkKind::Full
        };
        let shelf = RegistryShelf::new(&self.registry, self.mesh_time.mesh_s(now));
        self.gossip.handle_linked(
            now,
            peer,
            Linked {
                kind,
                digest: hello.digest,
            },
            &shelf,
        );
    }

    /// Tells the overlay whether a peer is somebody to link with now.
    pub(super) fn review_peer(&mut self, now: Now, node: NodeId) {
        if node == self.me {
            return;
        }
        let peer = self.ids.intern(node);
        let may_be_there = self.is_lonely
            || self.registry.in_force(node, self.mesh_s(now))
            || self.is_cut_off && self.is_home(node);
        let is_candidate = may_be_there && self.may_open(now, node);
        let eligible = if is_candidate && !self.candidates.of(now, peer).is_empty() {
            Eligible::Yes
        } else {
            Eligible::No
        };
        self.links.handle_known(now, peer, node, eligible);
    }

    /// Looks anew whether anybody else is said to be there. Where nobody is, since this machine slept longer than leases
    /// last or all have left, everybody is tried: somebody may be back who knows as little of us.
    pub(super) fn review_loneliness(&mut self, now: Now) {
        let is_lonely = self.others_in_force(now).next().is_none();
        let nodes = self.members.nodes().map(|(node, _)| node);
        let others: Vec<NodeId> = nodes.filter(|node| *node != self.me).collect();
        if is_lonely != std::mem::replace(&mut self.is_lonely, is_lonely) {
            for node in others {
                self.review_peer(now, node);
            }
        }
    }

    /// The others that are said to be there: their leases are in force.
    pub(super) fn others_in_force(&self, now: Now) -> impl Iterator<Item = NodeId> + '_ {
        let mesh_s = self.mesh_s(now);
        let nodes = self.members.nodes().map(|(node, _)| node);
        nodes.filter(move |node| *node != self.me && self.registry.in_force(*node, mesh_s))
    }

    /// Looks anew whom this machine speaks with.
    pub(super) fn review_reach(&mut self, now: Now) {
        let is_alone = !self.pairs.keys().any(|peer| self.is_greeted(*peer));
        self.alone_since = match is_alone {
            true => self.alone_since.or(Some(now.at)),
            false => None,
        };
        self.review_homes_spoken_with(now);
    }

    /// Looks anew whether who comes back could find this machine: it is reached from outside, or speaks with a home. If not
    /// for a while, it tries homes that have left as well: one that is back may know no way to it.
    pub(super) fn review_homes_spoken_with(&mut self, now: Now) {
        let speaks = |peer: &PeerIx| self.is_greeted(*peer) && self.is_home(self.ids.node(*peer));
        if self.known_homes.is_empty() || self.is_home(self.me) || self.pairs.keys().any(speaks) {
            self.timers.clear(&Timer::CutOff);
            self.set_cut_off(now, false);
        } else if !self.is_cut_off {
            self.timers
                .set_earlier(Timer::CutOff, now.at.after(CUT_OFF_AFTER));
        }
    }

    pub(super) fn set_cut_off(&mut self, now: Now, is_cut_off: bool) {
        if is_cut_off != std::mem::replace(&mut self.is_cut_off, is_cut_off) {
            for home in self.known_homes.clone() {
                self.review_peer(now, home);
            }
        }
    }

    /// A peer published other addresses: what failed may work now.
    pub(super) fn on_address_change(&mut self, now: Now, node: NodeId) {
        if node == self.me {
            return;
        }
        let peer = self.ids.intern(node);
        let published = self
            .members
            .peer(node)
            .and_then(|peer| peer.addresses.clone())
            .unwrap_or_default();
        self.candidates.handle_published(peer, &published);
        self.links.handle_address_changed(now, peer);
        self.attempts
            .handle_candidates(peer, &self.paths_to(now, peer));
        self.review_peer(now, node);
    }

    /// Who opened the session that stands: the one that dialled.
    pub(super) fn opener_of(&self, peer: PeerIx) -> Opener {
        match self.pairs.get(&peer) {
            Some(pair) if pair.admitted_at.is_some() => Opener::Theirs,
            _ => Opener::Own,
        }
    }
}

/// Unlink's numbers (protocol §11).
fn unlink_number(reason: UnlinkReason) -> u64 {
    match reason {
        UnlinkReason::Full => 0,
        UnlinkReason::NotWanted => 1,
    }
}
