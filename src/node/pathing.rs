//! The path to a peer is chosen (design §9): what the path agent decides is carried out, and what it asks for is sought.

use std::time::Duration;

use crate::{
    addr::Path,
    ids::{NodeId, PeerIx, SessionId},
    node::{Node, Timer, output::Output, talking::Goodbye},
    paths::{distress::Cause, proof, view::PathsView},
    time::Now,
    wire::{
        frame,
        message::{Message, Ping},
    },
};

/// For how long packets to a peer that no path leads to are answered at once (design §9).
const NEGATIVE: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn on_new_path(&mut self, now: Now, session: SessionId, source: Path) {
        self.note_leg_heard(now, source);
        if !self.is_guessed(now, session, source) {
            self.proofs.handle_new_path(now, session, source);
        }
    }

    pub(super) fn on_unheard(&mut self, now: Now, session: SessionId, cause: Cause) {
        let rests = match session {
            SessionId::Pair(peer) => cause == Cause::Gone && self.wake_way(now, peer),
            SessionId::Join(_) => false,
        };
        if !rests {
            if let SessionId::Pair(peer) = session {
                self.asking.handle_doubted(now, peer);
                if self.is_pathless(peer) {
                    self.attempts.handle_pathless(now, peer);
                }
            }
            self.proofs.handle_unheard(now, session, cause);
        }
    }

    /// The longest packet that the device of this machine takes.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.proofs.handle_mtu(mtu);
    }

    /// What is known of the paths to a peer with which a session stands.
    pub fn paths(&self, now: Now, node: NodeId) -> Option<PathsView> {
        let peer = self.ids.find(node)?;
        self.proofs.view(now, SessionId::Pair(peer))
    }

    pub(super) fn drain_proofs(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.proofs.poll_output() {
            any = true;
            self.carry_out(now, output);
        }
        any
    }

    fn carry_out(&mut self, now: Now, output: proof::Output) {
        match output {
            proof::Output::Ping {
                session,
                via,
                nonce,
                path,
                len,
            } => {
                if let Some(via) = via {
                    self.note_sent(now, via);
                }
                let pad = len.map(|len| frame::padding(len, path));
                let ping = Ping { nonce, path, pad };
                let message = Message::Ping(ping);
                self.outbox.push_back(Output::Send {
                    session,
                    message,
                    via,
                });
            }
            proof::Output::SetPath {
                session,
                endpoint,
                gap,
            } => self.set_path(now, session, (endpoint, gap)),
            proof::Output::Mirror { session, via } => {
                self.outbox.push_back(Output::Mirror { session, via });
            }
            proof::Output::Withdraw { session } => {
                self.outbox.push_back(Output::Withdraw { session });
            }
            proof::Output::SetRoom {
                session,
                endpoint,
                room,
            } => self.outbox.push_back(Output::SetRoom {
                session,
                endpoint,
                room,
            }),
            proof::Output::Seek { session } => {
                if let SessionId::Pair(peer) = session {
                    self.seek(now, peer);
                }
            }
            proof::Output::Lost { session } => {
                if let SessionId::Pair(peer) = session {
                    self.on_lost(now, peer);
                }
            }
            proof::Output::Unanswered { .. } => self.counters.count("ping_unanswered"),
        }
    }

    fn set_path(&mut self, now: Now, session: SessionId, (endpoint, gap): (Path, Duration)) {
        self.outbox.push_back(if gap.is_zero() {
            Output::SetPath { session, endpoint }
        } else {
            Output::Move {
                session,
                endpoint,
                gap,
            }
        });
        if let SessionId::Pair(peer) = session {
            self.on_path(now, peer, endpoint);
        }
    }

    /// Data of a session goes this way. One that stood by hand alone is of use from now on.
    fn on_path(&mut self, now: Now, peer: PeerIx, endpoint: Path) {
        self.note_udp_back(now, peer, endpoint);
        let Some(up) = self.pairs.get_mut(&peer).and_then(|pair| pair.up.as_mut()) else {
            return;
        };
        let is_new = up.endpoint != endpoint;
        up.endpoint = endpoint;
        let has_greeted = up.said_hello;
        self.note_relay_at(peer);
        self.note_way(now, peer);
        if is_new {
            self.look_closer(now, peer, endpoint);
        }
        if !has_greeted {
            self.timers.clear(&Timer::Pathless(peer));
            self.claims.remove(&peer);
            self.attempts.handle_up(peer);
            self.say_hello(now, peer);
            // Its Hello may have come before there was a path.
            self.review_reach(now);
        }
    }

    /// No path was found in time: programs are told, and the next packet begins from nothing.
    fn on_lost(&mut self, now: Now, peer: PeerIx) {
        let until = now.at.after(NEGATIVE);
        self.outbox.push_back(Output::Unreachable { peer, until });
        self.close_pair(now, peer, Goodbye::Closing);
    }
}
