//! Links are kept (design §8): what the overlay wants becomes attempts, messages and ends of sessions.

use crate::{
    gossip::{LinkKind, Linked},
    ids::{NodeId, PeerIx, SessionId},
    node::{Node, gossiping::RegistryShelf, talking::Goodbye},
    overlay::{self, Eligible, Opener},
    paths::attempt::Purpose,
    time::Now,
    wire::message::{Link, Message, Unlink},
};

impl Node {
    pub(super) fn drain_links(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.links.poll_output() {
            any = true;
            match output {
                overlay::Output::Dial(peer) => self.reach(now, peer, Purpose::Link),
                overlay::Output::Ask(peer) => {
                    self.send(SessionId::Pair(peer), Message::Link(Link { yes: false }));
                }
                overlay::Output::Yes(peer) => {
                    self.send(SessionId::Pair(peer), Message::Link(Link { yes: true }));
                }
                overlay::Output::Unlink { peer, reason } => {
                    self.send(
                        SessionId::Pair(peer),
                        Message::Unlink(Unlink {
                            reason: unlink_number(reason),
                        }),
                    );
                }
                overlay::Output::Linked(peer) => self.on_linked(now, peer),
                overlay::Output::Unlinked(peer) => self.gossip.handle_unlinked(peer),
                overlay::Output::Ping(peer) => self.ping_link(now, peer),
                overlay::Output::Close { peer, reason } => {
                    let goodbye = match reason {
                        overlay::CloseReason::Idle => Goodbye::Idle,
                        overlay::CloseReason::Silent | overlay::CloseReason::Crowded => {
                            Goodbye::Closing
                        }
                    };
                    self.close_pair(now, peer, goodbye);
                }
            }
        }
        any
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
        let alive = self.may_open(now, node) && self.registry.in_force(node, self.mesh_s(now));
        let eligible = if alive && !self.candidates.of(now, peer).is_empty() {
            Eligible::Yes
        } else {
            Eligible::No
        };
        self.links.handle_known(now, peer, node, eligible);
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
            .handle_candidates(peer, &self.candidates.of(now, peer));
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
fn unlink_number(reason: overlay::UnlinkReason) -> u64 {
    match reason {
        overlay::UnlinkReason::Full => 0,
        overlay::UnlinkReason::NotWanted => 1,
    }
}
