//! Whoever is called through and has no session with the called finds out who has one (design §9, a Call with TTL 2): it
//! asks its neighbours by Locate, and tells the caller by Located. The caller opens a session with who is named, by the
//! hand of who told, and calls through it as through any other: nothing is believed at second hand but that name.

use rand_core::RngCore;

use crate::{
    ids::{NodeId, PeerIx, SessionId},
    node::Node,
    paths::locating::{Asking, NEIGHBOURS_MAX},
    time::Now,
    wire::{
        message::Message,
        reaching::{Locate, Located, Reaching},
    },
};

impl Node {
    /// Asks neighbours who has a session with a peer, on a caller's behalf.
    pub(super) fn locate(&mut self, now: Now, caller: PeerIx, node: NodeId) {
        if !self.may_open(now, node) {
            return self.counters.count("locate_not_member");
        }
        let sought = self.ids.intern(node);
        match self.locating.ask(now.at, caller, sought) {
            Asking::Now => self.counters.count("locate_asked"),
            Asking::UnderWay => return,
            Asking::TooOften => return self.counters.count("locate_too_often"),
        }
        let asked = self.neighbours_to_ask(now, [caller, sought]);
        for neighbour in &asked {
            let locate = Message::Reaching(Reaching::Locate(Locate { node }));
            self.send(SessionId::Pair(*neighbour), locate);
        }
        self.locating.note_asked(now.at, (caller, sought), asked);
    }

    /// Those that carry for others come first, who can bring together whomever they speak with; then links; then whoever
    /// is drawn.
    fn neighbours_to_ask(&mut self, now: Now, but: [PeerIx; 2]) -> Vec<PeerIx> {
        let others = self.pairs.keys().copied();
        let others: Vec<PeerIx> = others
            .filter(|peer| !but.contains(peer) && self.may_bother(now, *peer))
            .collect();
        let mut drawn: Vec<_> = others
            .into_iter()
            .map(|peer| {
                let is_weak = !self.carries_for_others(peer);
                (
                    is_weak,
                    !self.links.is_linked(peer),
                    self.rng.next_u32(),
                    peer,
                )
            })
            .collect();
        drawn.sort_unstable();
        drawn.truncate(NEIGHBOURS_MAX);
        drawn.into_iter().map(|(_, _, _, peer)| peer).collect()
    }

    /// A neighbour asks for a peer. Who has no session with it says nothing.
    pub(super) fn on_locate(&mut self, now: Now, asker: PeerIx, node: NodeId) {
        let sought = self.ids.find(node);
        if !sought.is_some_and(|sought| sought != asker && self.is_greeted(sought)) {
            return;
        }
        if !self.locating.may_answer(now.at, asker) {
            return self.counters.count("locate_too_often");
        }
        let at = self.me;
        let located = Message::Reaching(Reaching::Located(Located { node, at }));
        self.send(SessionId::Pair(asker), located);
    }

    /// Somebody has a session with whom this machine seeks, for others or for itself.
    pub(super) fn on_located(&mut self, now: Now, by: PeerIx, located: &Located) {
        let (Some(sought), Some(at)) = (self.ids.find(located.node), self.ids.find(located.at))
        else {
            return self.counters.count("located_nobody");
        };
        if at == by {
            let found = (by, self.carries_for_others(by));
            for asker in self.locating.handle_found(now.at, found, sought) {
                let located = Message::Reaching(Reaching::Located(located.clone()));
                self.send(SessionId::Pair(asker), located);
            }
        } else if !self.may_call_through(now, at, sought)
            || !self.listening.takes_answer(now.at, by, sought)
            || !self.attempts.handle_located(sought, by, at)
        {
            self.counters.count("located_unused");
        } else {
            self.open_errand(now, at, by);
        }
    }

    fn may_call_through(&self, now: Now, third: PeerIx, sought: PeerIx) -> bool {
        let node = self.ids.node(third);
        node != self.me
            && third != sought
            && self.may_open(now, node)
            && (self.is_greeted(third) || self.attempts.may_run_errand(third))
    }
}
