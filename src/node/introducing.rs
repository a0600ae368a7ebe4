//! Joining through a member (protocol §9): an issuer that nobody reaches from outside lets others hand on what people with
//! its token send.
//!
//! A *member* that holds the Invite record hands a joiner's datagrams to the issuer as Introduced, and the issuer's back
//! as they are. The *issuer* takes them in as if from a socket.

use crate::{
    addr::{Path, Underlay},
    ids::{JoinId, NodeId, PeerIx, SessionId},
    keys::{HINTS_MAX, InviteSecret},
    node::{Node, SealedKey, output::Output},
    paths::{
        allowed::is_private,
        attempt::Purpose,
        hands::{Ends, Far},
    },
    time::Now,
    wire::{
        datagram::{Datagram, classify},
        message::{Introduced, Message},
        record::{self, Body, Kind},
        sealed,
    },
};

/// Homes named in a token of an issuer that is not reached from outside.
const HOMES_IN_TOKEN: usize = 2;

/// Members that may claim one invite: a second one has copied what the first published, and which is which shows at the
/// joiner alone.
const ISSUERS_MAX: usize = 2;

impl Node {
    /// Where a token says that its issuer may be found: proven addresses alone, or the own one and where others of ours
    /// are that may introduce a joiner.
    pub(super) fn hints(&self, now: Now) -> Vec<Underlay> {
        let own = self.own_addresses(now);
        let (first, rest) = own.split_at(own.len().min(1));
        let mut hints = first.to_vec();
        if self.proven_addresses(now).is_empty() {
            hints.extend(self.introducers(now).into_iter().take(HOMES_IN_TOKEN));
        }
        hints.extend(rest);
        let mut kept: Vec<Underlay> = Vec::new();
        for hint in hints {
            let is_second_v6 = hint.ip().is_ipv6() && kept.iter().any(|kept| kept.ip().is_ipv6());
            if kept.len() < HINTS_MAX && !is_second_v6 && !kept.contains(&hint) {
                kept.push(hint);
            }
        }
        kept
    }

    /// Where those are who may introduce a joiner: the own homes, then others with public addresses.
    fn introducers(&self, now: Now) -> Vec<Underlay> {
        let homes = self.homes_of(now, self.me).into_iter().filter_map(|home| {
            let addresses = self.members.peer(self.ids.node(home))?.addresses.as_ref()?;
            addresses.first().copied()
        });
        let others = self
            .pairs
            .iter()
            .filter(|(peer, _)| self.is_greeted(**peer))
            .filter_map(|(_, pair)| pair.usable()?.endpoint.direct());
        let all = homes.chain(others);
        all.filter(|address| !is_private(address.ip())).collect()
    }

    /// Lets the whole network hand on for this invite. Who is reached from outside needs nobody for that.
    pub(super) fn publish_invite(&mut self, now: Now, secret: &InviteSecret, expires_in_s: u64) {
        if !self.proven_addresses(now).is_empty() {
            return;
        }
        let invite = record::Invite {
            introduce: secret.introduce_key(),
            expires: self.mesh_s(now).saturating_add(expires_in_s),
        };
        self.publish_own(now, Body::Invite(invite, secret.join_id()));
    }

    /// The keys with which an Introduce may open here: of invites of others.
    pub(super) fn introduce_keys(&self, join: JoinId) -> Vec<SealedKey> {
        let invites = self.registry.of_kind(Kind::Invite);
        invites
            .filter(|held| held.record.node() != self.me)
            .filter_map(|held| {
                let Body::Invite(invite, id) = &held.body else {
                    return None;
                };
                (*id == join).then(|| SealedKey::Introduction {
                    issuer: held.record.node(),
                    key: invite.introduce,
                })
            })
            .collect()
    }

    /// Somebody with a token wants a datagram handed to its issuer.
    pub(super) fn on_introduce(
        &mut self,
        now: Now,
        source: Path,
        hint: [u8; 8],
        datagram: Vec<u8>,
    ) {
        let join_id = JoinId(hint);
        let Some(joiner) = self.joiner_at(source) else {
            return self.counters.count("introduce_not_direct");
        };
        if !is_joiners(&datagram, join_id) {
            return self.counters.count("introduce_stray");
        }
        let fits = self
            .introductions
            .forth(now.at, (join_id, joiner), source, datagram.len());
        if !fits {
            return self.counters.count("introduce_too_much");
        }
        let introduced = Introduced {
            join_id,
            joiner,
            datagram,
        };
        for key in self.introduce_keys(join_id).into_iter().take(ISSUERS_MAX) {
            if let SealedKey::Introduction { issuer, .. } = key {
                self.introduce(now, issuer, introduced.clone());
            }
        }
    }

    fn introduce(&mut self, now: Now, issuer: NodeId, introduced: Introduced) {
        if !self.may_open(now, issuer) {
            return self.counters.count("introduce_not_member");
        }
        let issuer = self.ids.intern(issuer);
        if !self.is_greeted(issuer) {
            self.counters.count("introduce_without_session");
            return self.reach(now, issuer, Purpose::Link);
        }
        self.counters.count("introduced");
        self.send(SessionId::Pair(issuer), Message::Introduced(introduced));
    }

    pub(super) fn on_introduced(&mut self, now: Now, peer: PeerIx, introduced: Introduced) {
        if self
            .invites
            .find(introduced.join_id, now.unix_s())
            .is_some()
        {
            self.take_introduced(now, peer, introduced);
        } else {
            self.hand_back(now, peer, introduced);
        }
    }

    /// A joiner's datagram by a member's hand.
    fn take_introduced(&mut self, now: Now, by: PeerIx, introduced: Introduced) {
        if !is_joiners(&introduced.datagram, introduced.join_id) {
            return self.counters.count("introduced_stray");
        }
        let far = Far::Joiner {
            join: introduced.join_id,
            address: introduced.joiner,
        };
        let source = Path::Handed(self.hands.of(now.at, Ends { by, far }));
        self.outbox.push_back(Output::Take {
            source,
            bytes: introduced.datagram,
        });
    }

    /// An issuer's answer to a joiner that is being helped.
    fn hand_back(&mut self, now: Now, issuer: PeerIx, introduced: Introduced) {
        let node = self.ids.node(issuer);
        let keys = self.introduce_keys(introduced.join_id);
        let is_issuers = keys
            .iter()
            .any(|key| matches!(key, SealedKey::Introduction { issuer, .. } if *issuer == node));
        let Introduced {
            join_id,
            joiner,
            datagram,
        } = introduced;
        if !is_issuers || !is_wireguards(&datagram) {
            return self.counters.count("introduced_unasked");
        }
        let whose = (join_id, joiner);
        let Some(to) = self.introductions.back(now.at, whose, datagram.len()) else {
            return self.counters.count("introduced_unasked");
        };
        self.outbox.push_back(Output::Datagram {
            to,
            bytes: datagram,
        });
    }

    /// The data thread has something for a joiner that a member introduces.
    pub(super) fn hand_to_joiner(
        &mut self,
        by: PeerIx,
        (join_id, joiner): (JoinId, Underlay),
        datagram: Vec<u8>,
    ) {
        let introduced = Introduced {
            join_id,
            joiner,
            datagram,
        };
        self.send(SessionId::Pair(by), Message::Introduced(introduced));
    }

    /// Which member introduces whoever sends by this path, and where it sees the joiner.
    pub(super) fn introducer_of(&self, path: Path) -> Option<(PeerIx, Underlay)> {
        let Path::Handed(hand) = path else {
            return None;
        };
        match self.hands.ends(hand)? {
            Ends {
                by,
                far: Far::Joiner { address, .. },
            } => Some((by, address)),
            Ends {
                far: Far::Member(_),
                ..
            } => None,
        }
    }
}

/// Whether a datagram is what a joiner sends: its Join, or WireGuard's.
fn is_joiners(datagram: &[u8], join: JoinId) -> bool {
    let is_its_join = || {
        sealed::parse_header(datagram)
            .is_ok_and(|header| header.kind == sealed::Kind::Join && header.hint == join.0)
    };
    is_wireguards(datagram)
        || (matches!(classify(datagram), Ok(Datagram::Sealed(_))) && is_its_join())
}

fn is_wireguards(datagram: &[u8]) -> bool {
    matches!(
        classify(datagram),
        Ok(Datagram::Initiation(_)
            | Datagram::Response(_)
            | Datagram::Cookie(_)
            | Datagram::Data(_))
    )
}
