//! May this signer say this about this subject? (protocol §7, §8)

use super::{Members, label};
use crate::{
    hash::{Use, hash},
    ids::{NodeId, Rank},
    wire::record::{Body, Kind, Record},
};

/// What members say of a record before it competes for its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its signer may sign it.
    Allowed(Rank),
    /// The record that would give its signer the right is not here: keep it aside.
    SignerUnknown,
    /// Its signer may not sign it.
    Refused(MemberRefused),
}

/// Why a record has no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum MemberRefused {
    /// The root key of another network.
    #[error("record of another network")]
    OtherNetwork,
    /// Only the root key may say this.
    #[error("only the root key may sign this")]
    NotRoot,
    /// The admin lacks this right.
    #[error("signer has no right to this")]
    NoRight,
    /// An admin signed it after the time since which it is revoked.
    #[error("signer was revoked before")]
    SignerRevoked,
    /// It speaks of somebody else.
    #[error("subject did not sign")]
    NotOwn,
    /// Its subject is revoked.
    #[error("subject is revoked")]
    SubjectRevoked,
    /// The tunnel key belongs to a node admitted earlier.
    #[error("tunnel key belongs to an older peer")]
    TunnelTaken,
    /// The issued name is no name of a peer.
    #[error("name is not allowed")]
    BadName,
    /// The IPv4 pool is none that a network can have.
    #[error("IPv4 pool is not allowed")]
    BadPool,
}

impl MemberRefused {
    /// The counter under which such records are counted.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OtherNetwork => "record_other_network",
            Self::NotRoot => "record_not_root",
            Self::NoRight => "record_no_right",
            Self::SignerRevoked => "record_signer_revoked",
            Self::NotOwn => "record_not_own",
            Self::SubjectRevoked => "record_subject_revoked",
            Self::TunnelTaken => "record_tunnel_taken",
            Self::BadName => "record_bad_name",
            Self::BadPool => "record_bad_pool",
        }
    }
}

/// Bits of an Admin record's rights (protocol §11).
pub(super) const MAY_ADMIT: u64 = 1;
const MAY_REVOKE: u64 = 2;
const MAY_SET_POLICY: u64 = 4;

impl Members {
    /// Whether the signer of `record`, whose body is `body`, may sign it. Its signatures were verified by the caller.
    pub fn judge(&self, record: &Record, body: &Body) -> Verdict {
        let verdict = match record.kind() {
            Kind::Network => self.judge_network(record, body),
            Kind::Admin => self.judge_root(record),
            Kind::Member => self.judge_member(record, body),
            Kind::Revoke => self.judge_revoke(record),
            Kind::Epoch => self.judge_of_network(record, MAY_ADMIT | MAY_REVOKE),
            Kind::Policy => self.judge_of_network(record, MAY_SET_POLICY),
            Kind::Peer => self.judge_peer(record, body),
            Kind::Heartbeat => self.judge_heartbeat(record),
            Kind::Lease | Kind::Service | Kind::Health | Kind::Invite | Kind::Unknown(_) => {
                self.judge_own(record)
            }
        };
        match verdict {
            Ok(rank) => Verdict::Allowed(rank),
            Err(No::Unknown) => Verdict::SignerUnknown,
            Err(No::Refused(why)) => Verdict::Refused(why),
        }
    }

    fn judge_network(&self, record: &Record, body: &Body) -> Result<Rank, No> {
        if record.signer() != record.node() {
            return Err(MemberRefused::NotRoot.into());
        }
        if hash(Use::Network, &[&record.subject()]) != self.network_id().0 {
            return Err(MemberRefused::OtherNetwork.into());
        }
        if let Body::Network(network) = body
            && !(8..=23).contains(&network.pool4.prefix_len())
        {
            return Err(MemberRefused::BadPool.into());
        }
        Ok(Rank::Root)
    }

    fn judge_root(&self, record: &Record) -> Result<Rank, No> {
        if record.signer() == self.root()? {
            Ok(Rank::Root)
        } else {
            Err(MemberRefused::NotRoot.into())
        }
    }

    fn judge_member(&self, record: &Record, body: &Body) -> Result<Rank, No> {
        let rank = self.judge_admin(record, MAY_ADMIT)?;
        if let Body::Member(member) = body
            && label::parse_peer(&member.name).is_err()
        {
            return Err(MemberRefused::BadName.into());
        }
        Ok(rank)
    }

    fn judge_revoke(&self, record: &Record) -> Result<Rank, No> {
        if record.signer() == self.root()? {
            return Ok(Rank::Root);
        }
        if self.admin_records.contains_key(&record.node()) {
            return Err(MemberRefused::NotRoot.into());
        }
        self.judge_admin(record, MAY_REVOKE)
    }

    fn judge_of_network(&self, record: &Record, rights: u64) -> Result<Rank, No> {
        if record.node() != self.root()? {
            return Err(MemberRefused::OtherNetwork.into());
        }
        self.judge_admin(record, rights)
    }

    fn judge_heartbeat(&self, record: &Record) -> Result<Rank, No> {
        self.judge_own(record)?;
        self.judge_admin(record, u64::MAX)?;
        Ok(Rank::Own)
    }

    fn judge_peer(&self, record: &Record, body: &Body) -> Result<Rank, No> {
        let rank = self.judge_own(record)?;
        if let Body::Peer(peer) = body
            && let Some(holder) = self.tunnels.holder(&peer.tunnel)
            && let Some(certificate) = self.certificate(record.node())
            && *holder < certificate.seniority(record.node())
        {
            return Err(MemberRefused::TunnelTaken.into());
        }
        Ok(rank)
    }

    fn judge_own(&self, record: &Record) -> Result<Rank, No> {
        if record.signer() != record.node() {
            return Err(MemberRefused::NotOwn.into());
        }
        if self.is_revoked(record.node()) {
            return Err(MemberRefused::SubjectRevoked.into());
        }
        match self.certificate(record.node()) {
            Some(_) => Ok(Rank::Own),
            None => Err(No::Unknown),
        }
    }

    /// An admin with any of `rights`. What it signed before its rights were taken by an Admin record with none stays.
    fn judge_admin(&self, record: &Record, rights: u64) -> Result<Rank, No> {
        self.root()?;
        let Some(admin) = self.admin_records.get(&record.signer()) else {
            return Err(No::Unknown);
        };
        let since_ms = self
            .revoked_since(record.signer())
            .map(|s| s.saturating_mul(1000));
        if since_ms.is_some_and(|since_ms| record.seq() >= since_ms) {
            return Err(MemberRefused::SignerRevoked.into());
        }
        let was_admin = admin.rights == 0 && record.seq() < admin.seq;
        if admin.rights & rights == 0 && !was_admin {
            return Err(MemberRefused::NoRight.into());
        }
        Ok(Rank::Admin)
    }

    fn root(&self) -> Result<NodeId, No> {
        self.network()
            .map(|network| network.root)
            .ok_or(No::Unknown)
    }
}

enum No {
    Unknown,
    Refused(MemberRefused),
}

impl From<MemberRefused> for No {
    fn from(why: MemberRefused) -> Self {
        Self::Refused(why)
    }
}
