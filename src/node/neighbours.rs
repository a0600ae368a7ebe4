//! Peers meet in a LAN without anybody's help (protocol §2): this one says that it is there, knocks at whoever says so, and
//! answers a joiner's call.

use std::net::SocketAddr;

use crate::{
    addr::{Path, Underlay},
    ids::{JoinId, NodeId, SessionId},
    members::epochs::Reach,
    node::{Node, knocking::SealedKey, output::Output},
    paths::{attempt::Purpose, lan::Hearing},
    time::{Moment, Now},
    wire::sealed::{Beacon, Header, Sealed},
};

/// A member that was heard on the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who.
    pub node: NodeId,
    /// Where it says it is.
    pub address: Underlay,
    /// When it said so last.
    pub heard: Moment,
}

impl Node {
    /// The members that were heard on the LAN in this run.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        let heard = self.lan.neighbours();
        heard
            .map(|(peer, address, heard)| Neighbour {
                node: self.ids.node(peer),
                address,
                heard,
            })
            .collect()
    }

    /// The keys with which a Beacon may open: of the epochs by which this peer would let a Knock in.
    pub(super) fn beacon_keys(&self, now: Now, header: &Header) -> Vec<SealedKey> {
        let openers = self
            .members
            .epochs_for_byte(header.epoch, self.mesh_s(now))
            .into_iter();
        openers
            .filter(|opener| opener.reach == Reach::Everyone || self.members.is_admin(self.me))
            .map(|opener| SealedKey::Epoch {
                epoch: opener.n,
                key: opener.secret.beacon_key(),
            })
            .collect()
    }

    /// The shell looked at the interfaces: this machine is in so many LANs, or has other addresses there than before.
    pub(super) fn on_places(&mut self, now: Now, places: usize) {
        self.lan.handle_places(now, places);
    }

    /// A sealed datagram came to the LAN's port.
    pub(super) fn on_lan(&mut self, now: Now, source: Underlay, hint: [u8; 8], body: &Sealed) {
        match body {
            Sealed::Beacon(beacon) => self.on_beacon(now, source, beacon),
            Sealed::Join(_) => self.answer_joiner(now, source, JoinId(hint)),
            Sealed::Knock(_) | Sealed::Introduce(_) | Sealed::Punch(_) => {
                self.counters.count("lan_unused");
            }
        }
    }

    fn on_beacon(&mut self, now: Now, source: Underlay, beacon: &Beacon) {
        if beacon.node == self.me {
            // The kernel gives back what is said to a group.
            return;
        }
        if !self.may_open(now, beacon.node) {
            return self.counters.count("beacon_not_member");
        }
        let peer = self.ids.intern(beacon.node);
        let row = self.rows.get(&beacon.node);
        if row.is_some_and(|row| beacon.stamp <= row.stamp) {
            return self.counters.count("beacon_again");
        }
        let address = Underlay::new(SocketAddr::new(source.ip(), beacon.port));
        match self.lan.handle_beacon(now, peer, beacon.stamp, address) {
            Hearing::New => {}
            Hearing::Again => return self.counters.count("beacon_again"),
            Hearing::TooOften => return self.counters.count("beacon_too_often"),
        }
        self.candidates.handle_lan(now, peer, address);
        match self.up_path(peer) {
            Some(endpoint) if endpoint == Path::Direct(address) => {}
            Some(_) if !self.candidates.is_usable(address) => {}
            Some(_) => self
                .proofs
                .handle_beacon(now, SessionId::Pair(peer), address.into()),
            None if self.candidates.is_proven_lately(now, peer, address) => {}
            None => self.reach(now, peer, Purpose::Link),
        }
    }

    /// The one answer to a sealed datagram that is sealed itself: the joiner learns where we are, and dials.
    fn answer_joiner(&mut self, now: Now, source: Underlay, join_id: JoinId) {
        let Some(secret) = self
            .invites
            .find(join_id, now.unix_s())
            .map(|invite| invite.secret.clone())
        else {
            return;
        };
        if self.lan.handle_joiner(now) {
            self.outbox.push_back(Output::Punch {
                to: source,
                invite: secret,
                stamp: now.unix_ms,
            });
        } else {
            self.counters.count("lan_join_too_often");
        }
    }

    pub(super) fn drain_lan(&mut self, now: Now) -> bool {
        let is_due = self.lan.poll_beacon();
        if is_due {
            self.say_beacon(now);
        }
        is_due
    }

    fn say_beacon(&mut self, now: Now) {
        let Some((epoch, secret)) = self
            .members
            .newest_epoch()
            .map(|(n, secret)| (n, secret.clone()))
        else {
            return;
        };
        let stamp = self.next_stamp(now);
        self.outbox.push_back(Output::Beacon {
            epoch,
            secret,
            stamp,
        });
    }
}
