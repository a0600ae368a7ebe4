//! A peer knocks (protocol §2): is it new, is it believed, and into which state does its initiation go?

use crate::{
    addr::Path,
    ids::{Boot, JoinId, NodeId, PeerIx, SessionId},
    keys::{InviteSecret, x25519_form},
    members::epochs::{Opener, Reach},
    node::{
        Node,
        input::Row,
        output::{Notice, Output, Remote, Write},
        talking::Pair,
    },
    tables::Admission,
    time::{Moment, Now},
    wire::sealed::{Header, Kind, Knock},
};

/// A key that may open a sealed datagram, and what it stands for.
#[derive(Clone, Debug)]
pub enum SealedKey {
    /// An epoch's secret.
    Epoch {
        /// Which.
        epoch: u32,
        /// The AEAD key.
        key: [u8; 32],
    },
    /// An invite of another member: what it opens is handed on.
    Introduction {
        /// Whose.
        issuer: NodeId,
        /// The AEAD key.
        key: [u8; 32],
    },
    /// An invite of ours.
    Invite {
        /// Its secret.
        secret: InviteSecret,
        /// The AEAD key.
        key: [u8; 32],
    },
}

impl SealedKey {
    /// The AEAD key.
    pub fn key(&self) -> &[u8; 32] {
        match self {
            Self::Epoch { key, .. } | Self::Introduction { key, .. } | Self::Invite { key, .. } => {
                key
            }
        }
    }
}

/// A Knock or Join that comes within this time of the state it is for goes into that state (protocol §2).
pub(super) const YOUNG: std::time::Duration = std::time::Duration::from_secs(10);

/// How long an initiation of ours counts as under way: as long as an attempt takes (design §9).
const UNDER_WAY: std::time::Duration = std::time::Duration::from_secs(5);

/// How long two boots of one node must not have taken turns until only one machine is thought to have its key: a clone
/// that is in use knocks at least at every start, and mostly several times a day.
const CLONE_SILENT: std::time::Duration = std::time::Duration::from_hours(24);

/// The run that a node had before its present one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    boot: Boot,
    /// When the present one was heard after it.
    at: Moment,
}

impl Node {
    /// The keys with which a sealed datagram may open here; none: it is not for us.
    pub fn sealed_keys(&self, now: Now, header: &Header) -> Vec<SealedKey> {
        match header.kind {
            Kind::Knock => self
                .openers(now, header.epoch)
                .map(|opener| SealedKey::Epoch {
                    epoch: opener.n,
                    key: opener.secret.knock_key(self.me),
                })
                .collect(),
            Kind::Join => self
                .invites
                .find(JoinId(header.hint), now.unix_s())
                .into_iter()
                .map(|invite| SealedKey::Invite {
                    secret: invite.secret.clone(),
                    key: invite.secret.join_key(),
                })
                .collect(),
            Kind::Introduce => self.introduce_keys(JoinId(header.hint)),
            Kind::Beacon => self.beacon_keys(now, header),
            Kind::Punch => Vec::new(),
        }
    }

    /// The secrets under which others may begin something here: with an old one, at an admin alone, who renews.
    pub(super) fn openers(&self, now: Now, epoch: u8) -> impl Iterator<Item = Opener<'_>> {
        let openers = self.members.epochs_for_byte(epoch, self.mesh_s(now));
        let is_admin = self.members.is_admin(self.me);
        let all = openers.into_iter();
        all.filter(move |opener| opener.reach == Reach::Everyone || is_admin)
    }

    pub(super) fn on_knock(&mut self, now: Now, source: Path, (knock, epoch): (&Knock, u32)) {
        if knock.node == self.me {
            return self.counters.count("knock_of_own");
        }
        if !self.is_by_right_hand(source, knock.node) {
            return self.counters.count("knock_by_wrong_hand");
        }
        self.take_records_now(now, &knock.records);
        if !self.may_open(now, knock.node) {
            return self.counters.count("knock_not_member");
        }
        let peer = self.ids.intern(knock.node);
        let Some(remote) = self.remote(knock.node) else {
            return self.counters.count("knock_without_keys");
        };
        let row = self.rows.get(&knock.node).copied();
        if row.is_some_and(|row| knock.stamp <= row.stamp) {
            return self.counters.count("knock_replayed");
        }
        self.note_knock(now, source);
        let admission = self.judge_state(now, peer, knock.boot, row);
        self.note_boot(now, knock, row);
        match admission {
            Admission::Replace => self.on_pair_gone(now, peer),
            Admission::Keep => self.links.handle_knocked(now, peer),
        }
        let reach = self.members.reach_of_epoch(epoch, self.mesh_s(now));
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(now.at));
        pair.admitted_at = Some(now.at);
        let was_catching_up = std::mem::replace(&mut pair.reach, reach) == Reach::Admins;
        if was_catching_up && pair.up.as_ref().is_some_and(|up| up.hello.is_some()) {
            self.open_for_links(now, peer);
        }
        self.publish_before_admission(now);
        self.outbox.push_back(Output::Admit {
            session: SessionId::Pair(peer),
            remote,
            source,
            admission,
        });
    }

    /// Stores the stamp before anything is answered, and notices two machines with one key.
    fn note_boot(&mut self, now: Now, knock: &Knock, row: Option<Row>) {
        if let Some(row) = row
            && row.is_of_other_run(knock.boot)
        {
            let left = Left {
                boot: row.boot,
                at: now.at,
            };
            let before = self.earlier_boots.insert(knock.node, left);
            if before.is_some_and(|before| before.boot == knock.boot) {
                self.notice(Notice::Cloned { node: knock.node });
            }
        }
        let last_session_s = row.map_or(0, |row| row.last_session_s);
        self.write_row(Row {
            node: knock.node,
            stamp: knock.stamp,
            boot: knock.boot,
            last_session_s,
        });
    }

    /// A clone that has been silent for long was seen to: who is warned of it is warned no more.
    pub(super) fn end_clones(&mut self, now: Now) {
        let boots = &self.earlier_boots;
        self.notices.retain(|notice| {
            let Notice::Cloned { node } = notice else {
                return true;
            };
            let left = boots.get(node);
            left.is_some_and(|left| now.at.since(left.at) < CLONE_SILENT)
        });
    }

    /// The rule of protocol §2 for a state that may stand already.
    fn judge_state(&self, now: Now, peer: PeerIx, boot: Boot, row: Option<Row>) -> Admission {
        let Some(pair) = self.pairs.get(&peer) else {
            return Admission::Keep;
        };
        let own_handshake = pair.dialled.is_some_and(|at| now.at.since(at) < UNDER_WAY);
        // A Knock of a new run can cross the answer that this run gave to our own initiation: a state that stands and
        // whose Hello is still to come, or named this boot, is the new run's already. Dropping it would leave the other
        // side with a session that nobody hears.
        let is_of_this_run = pair
            .up
            .as_ref()
            .is_some_and(|up| up.hello.as_ref().is_none_or(|hello| hello.boot == boot));
        let keep = if row.is_some_and(|row| row.is_of_other_run(boot)) && !is_of_this_run {
            pair.up.is_none() && own_handshake
        } else {
            own_handshake || now.at.since(pair.made) < YOUNG
        };
        if keep {
            Admission::Keep
        } else {
            Admission::Replace
        }
    }

    pub(super) fn write_row(&mut self, row: Row) {
        self.rows.insert(row.node, row);
        self.outbox.push_back(Output::Persist {
            ticket: None,
            write: Write::Row(row),
        });
    }

    /// The next stamp of ours, stored before it is used.
    pub(super) fn next_stamp(&mut self, now: Now) -> u64 {
        let last = self.rows.get(&self.me).map_or(0, |row| row.stamp);
        let stamp = (last + 1).max(now.unix_ms);
        self.write_row(Row {
            node: self.me,
            stamp,
            boot: self.identity.boot,
            last_session_s: 0,
        });
        stamp
    }

    /// The keys by which a state with a peer is made.
    pub(super) fn remote(&self, node: NodeId) -> Option<Remote> {
        let tunnel = x25519_form(&self.members.tunnel_of(node)?)?;
        let psk = self.pair_psk(node)?;
        Some(Remote { tunnel, psk })
    }

    pub(super) fn pair_psk(&self, node: NodeId) -> Option<[u8; 32]> {
        let zero = self.members.epoch0()?;
        Some(crate::keys::pair_psk(zero, self.me, node))
    }
}
