//! Invites of this issuer: issuing, listing, cancelling, redeeming (protocol §9).
//!
//! The caller has made sure that who redeems holds the secret, and persists a spend before the grant is sent.

use super::{Members, admission, label};
use crate::{
    ids::{JoinId, NodeId},
    keys::InviteSecret,
    wire::{message::Refused, record::Member},
};

/// How long after its expiry a spent invite answers the same node with the same grant; 7 days in s, protocol §9.
pub const REPEAT_GRANT_S: u64 = 7 * 86_400;

/// Letters of an invite's id that people see, unless more are needed to tell two apart (protocol §9).
const ID_LETTERS: usize = 4;

/// One invite of this issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its secret; the token's.
    pub secret: InviteSecret,
    /// Unix s.
    pub expires_s: u64,
    /// How many may join by it.
    pub uses: u32,
    /// What the joiners become.
    pub role: InviteRole,
    /// What the joiners may offer.
    pub offers: Vec<String>,
    /// Unix s, when it was taken back.
    pub cancelled_s: Option<u64>,
    /// Who joined by it.
    pub spends: Vec<Spend>,
}

/// What an invite makes of who joins by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteRole {
    /// A member.
    Member,
    /// A member that may admit others.
    Admin,
}

/// One use of an invite; with it the same certificate can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Who.
    pub node: NodeId,
    /// Under which name.
    pub name: String,
    /// Unix s.
    pub at_s: u64,
    /// Drawn for the certificate.
    pub admission: [u8; 8],
    /// Unix s of the first admission: the time of the spend unless the node was a member before.
    pub admitted_s: u64,
    /// Which IPv4 address was issued.
    pub offset4: Option<u32>,
}

/// Whether a wished name must be had or may be altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Only this name will do: a person chose it.
    Exact,
    /// Another like it will do.
    Like,
}

/// Somebody who proved to hold an invite's secret and asks for membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redeeming<'a> {
    /// By which invite.
    pub join_id: JoinId,
    /// Who.
    pub node: NodeId,
    /// The name it wishes.
    pub wish: &'a str,
    /// Whether only that one will do.
    pub exactness: Exactness,
    /// Drawn for the certificate if one is made.
    pub admission: [u8; 8],
    /// Mesh time, unix s: certificates are dated by it, invites end by the issuer's own clock.
    pub mesh_s: u64,
}

/// The answer to a Redeem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// Membership.
    Grant(Box<Grant>),
    /// No, and why; nothing was spent.
    Refused(Refused),
    /// No such invite, or nobody we talk to: say nothing.
    Silence,
}

/// Membership for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What its certificate says.
    pub member: Member,
    /// Whether an Admin record is due too.
    pub role: InviteRole,
    /// Whether the invite was spent by this very call, and must be persisted before the grant is sent.
    pub spent: Spent,
}

/// When the use of an invite was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// By this call.
    Now,
    /// Before: the node asks again and is granted the same.
    Before,
}

/// Why an invite cannot be named by what a person typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CancelRefused {
    /// None begins so.
    #[error("there is no open invite {0}: webmesh invite list shows them")]
    Unknown(String),
    /// Several begin so.
    #[error("several invites begin with {0}: type more of the ID")]
    Ambiguous(String),
}

/// How an invite stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteState {
    /// So many may still join by it.
    Open {
        /// How many.
        uses_left: u32,
    },
    /// Everyone who may has joined.
    Used,
    /// Taken back.
    Cancelled,
    /// Its time is over.
    Expired,
}

/// The invites this peer issued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invites {
    all: Vec<Invite>,
}

impl Invite {
    /// An invite nobody joined by yet.
    pub fn new(
        secret: InviteSecret,
        expires_s: u64,
        uses: u32,
        role: InviteRole,
        offers: Vec<String>,
    ) -> Self {
        Self {
            secret,
            expires_s,
            uses,
            role,
            offers,
            cancelled_s: None,
            spends: Vec::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> JoinId {
        self.secret.join_id()
    }

    /// How it stands at `now_s`, the issuer's clock.
    pub fn state(&self, now_s: u64) -> InviteState {
        let spent = u32::try_from(self.spends.len()).unwrap_or(u32::MAX);
        if spent >= self.uses {
            InviteState::Used
        } else if self.cancelled_s.is_some() {
            InviteState::Cancelled
        } else if now_s >= self.expires_s {
            InviteState::Expired
        } else {
            InviteState::Open {
                uses_left: self.uses - spent,
            }
        }
    }

    /// Whether somebody may still join by it, or finish joining.
    pub fn is_kept(&self, now_s: u64) -> bool {
        now_s < self.expires_s.saturating_add(REPEAT_GRANT_S)
    }

    fn refusal(&self, now_s: u64) -> Option<Refused> {
        let (code, name, time) = match self.state(now_s) {
            InviteState::Open { .. } => return None,
            InviteState::Used => {
                let last = self.spends.last();
                (
                    1,
                    last.map(|spend| spend.name.clone()),
                    last.map(|spend| spend.at_s),
                )
            }
            InviteState::Cancelled => (2, None, self.cancelled_s),
            InviteState::Expired => (3, None, Some(self.expires_s)),
        };
        Some(Refused { code, name, time })
    }
}

impl Invites {
    /// The invites as they were kept.
    pub fn new(all: Vec<Invite>) -> Self {
        Self { all }
    }

    /// Every invite, oldest first, to be kept.
    pub fn all(&self) -> &[Invite] {
        &self.all
    }

    /// Adds an invite and says its id.
    pub fn issue(&mut self, invite: Invite) -> JoinId {
        let id = invite.id();
        self.all.push(invite);
        id
    }

    /// The open invites, oldest first.
    pub fn list(&self, now_s: u64) -> impl Iterator<Item = &Invite> {
        self.all
            .iter()
            .filter(move |invite| matches!(invite.state(now_s), InviteState::Open { .. }))
    }

    /// The invite with this id, if it is kept still.
    pub fn find(&self, id: JoinId, now_s: u64) -> Option<&Invite> {
        self.all
            .iter()
            .find(|invite| invite.id() == id && invite.is_kept(now_s))
    }

    /// The id of an invite for people: the first four letters of its base32, more where another begins the same.
    pub fn short_id(&self, id: JoinId) -> String {
        let whole = letters(id);
        let others: Vec<String> = self
            .all
            .iter()
            .map(Invite::id)
            .filter(|other| *other != id)
            .map(letters)
            .collect();
        let is_told_apart = |len: &usize| {
            let head = whole.get(..*len);
            others.iter().all(|other| other.get(..*len) != head)
        };
        let len = (ID_LETTERS..whole.len())
            .find(is_told_apart)
            .unwrap_or(whole.len());
        whole.get(..len).unwrap_or(&whole).to_owned()
    }

    /// Takes back the open invite whose id begins with `prefix`.
    ///
    /// # Errors
    /// None or several do; nothing changed.
    pub fn cancel(&mut self, prefix: &str, now_s: u64) -> Result<JoinId, CancelRefused> {
        let prefix = prefix.to_ascii_lowercase();
        let open = |invite: &&mut Invite| {
            matches!(invite.state(now_s), InviteState::Open { .. })
                && letters(invite.id()).starts_with(&prefix)
        };
        let mut named = self.all.iter_mut().filter(open);
        let Some(invite) = named.next().filter(|_| !prefix.is_empty()) else {
            return Err(CancelRefused::Unknown(prefix));
        };
        if named.next().is_some() {
            return Err(CancelRefused::Ambiguous(prefix));
        }
        invite.cancelled_s = Some(now_s);
        Ok(invite.id())
    }

    /// Drops what nobody can join by any more, nor finish; true when something went.
    pub fn expire(&mut self, now_s: u64) -> bool {
        let before = self.all.len();
        self.all.retain(|invite| invite.is_kept(now_s));
        self.all.len() != before
    }

    /// When [`Invites::expire`] next drops something, unix s.
    pub fn next_expiry(&self) -> Option<u64> {
        self.all
            .iter()
            .map(|invite| invite.expires_s.saturating_add(REPEAT_GRANT_S))
            .min()
    }

    /// Redeems. A refusal spends nothing; a grant with [`Spent::Now`] must be persisted before it is sent; the same
    /// node is granted the same again, also from what was persisted.
    pub fn redeem(&mut self, members: &Members, now_s: u64, asks: &Redeeming<'_>) -> Redeemed {
        if members.is_revoked(asks.node) {
            return Redeemed::Silence;
        }
        let Some(invite) = self.find(asks.join_id, now_s) else {
            return Redeemed::Silence;
        };
        if let Some(spend) = invite.spends.iter().find(|spend| spend.node == asks.node) {
            return Redeemed::Grant(Box::new(Grant {
                member: admission::admitted(spend, &invite.offers),
                role: invite.role,
                spent: Spent::Before,
            }));
        }
        if let Some(refused) = invite.refusal(now_s) {
            return Redeemed::Refused(refused);
        }
        let spend = match self.draft_spend(members, asks) {
            Ok(spend) => spend,
            Err(refused) => return Redeemed::Refused(refused),
        };
        let invite = self
            .all
            .iter_mut()
            .find(|invite| invite.id() == asks.join_id);
        let Some(invite) = invite else {
            return Redeemed::Silence;
        };
        let member = admission::admitted(&spend, &invite.offers);
        invite.spends.push(spend);
        Redeemed::Grant(Box::new(Grant {
            member,
            role: invite.role,
            spent: Spent::Now,
        }))
    }

    fn draft_spend(&self, members: &Members, asks: &Redeeming<'_>) -> Result<Spend, Refused> {
        let node = asks.node;
        if let Some(held) = members.certificate(node) {
            return Ok(Spend {
                node,
                name: held.name.clone(),
                at_s: asks.mesh_s,
                admission: held.admission,
                admitted_s: held.admitted_at,
                offset4: held.offset4,
            });
        }
        let mut spends = self.all.iter().flat_map(|invite| &invite.spends);
        let pending: Vec<&Spend> = spends
            .by_ref()
            .filter(|spend| spend.node != node && !members.is_revoked(spend.node))
            .collect();
        let is_name_taken = |name: &str| {
            members.is_name_issued(name) || pending.iter().any(|spend| spend.name == name)
        };
        if asks.exactness == Exactness::Exact
            && (label::parse_peer(asks.wish).is_err() || is_name_taken(asks.wish))
        {
            return Err(Refused {
                code: 4,
                name: Some(asks.wish.chars().take(label::LABEL_MAX).collect()),
                time: None,
            });
        }
        let is_offset_taken = |offset: u32| {
            members.is_offset4_issued(offset)
                || pending.iter().any(|spend| spend.offset4 == Some(offset))
        };
        let offset4 = members
            .plan()
            .and_then(|plan| admission::free_offset4(&plan, node, is_offset_taken))
            .ok_or(Refused {
                code: 5,
                name: None,
                time: None,
            })?;
        Ok(Spend {
            node,
            name: admission::free_name(asks.wish, is_name_taken),
            at_s: asks.mesh_s,
            admission: asks.admission,
            admitted_s: asks.mesh_s,
            offset4: Some(offset4),
        })
    }
}

fn letters(id: JoinId) -> String {
    data_encoding::BASE32_NOPAD
        .encode(&id.0)
        .to_ascii_lowercase()
}
