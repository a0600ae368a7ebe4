//! Membership certificates as members read them, and who comes before whom.

use crate::{
    ids::{NodeId, Version},
    wire::record::Member,
};

/// Who comes first where two hold one name, IPv4 address or tunnel key: the least. Never changes (protocol §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority {
    /// Unix s of the first admission.
    pub admitted_at: u64,
    /// Drawn at the first admission.
    pub admission: [u8; 8],
    /// Whose.
    pub node: NodeId,
}

/// What a peer's membership certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The issued name; what the peer is called is [`super::Members::name_of`].
    pub name: String,
    /// Drawn at the first admission, copied by renewals.
    pub admission: [u8; 8],
    /// Unix s of the first admission, copied by renewals.
    pub admitted_at: u64,
    /// Offset of the issued IPv4 address; what the peer has is [`super::Members::ipv4_of`].
    pub offset4: Option<u32>,
    /// Groups.
    pub groups: Vec<String>,
    /// Full member or leaf.
    pub role: Role,
    /// Names of services the peer may publish under the network's name, `*` at the end allowed.
    pub offers: Vec<String>,
    /// Networks behind the peer that it may carry for others; none: nothing was said of them.
    pub routes: Option<Vec<Vec<u8>>>,
    /// How many guests it may let in; none: nothing was said of them.
    pub guests: Option<u64>,
    /// Mesh time at which it ends, unix s.
    pub not_after: u64,
    /// The admin that signed it.
    pub signer: NodeId,
    /// The version of its record.
    pub version: Version,
}

/// What a member is in the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Replicates the registry.
    Full,
    /// Asks its homes.
    Leaf,
}

/// How a node stands in the network at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No certificate is here.
    Stranger,
    /// Its certificate is in force.
    InForce,
    /// Its certificate ended and an admin was up since: it may only ask an admin for renewal.
    Ended,
    /// Its certificate ended but no admin was up since, so it is honoured (protocol §8), with a health warning.
    Honoured,
    /// It is out, for ever.
    Revoked,
}

impl Standing {
    /// Whether peers talk to it as to a member.
    pub const fn is_member(self) -> bool {
        matches!(self, Self::InForce | Self::Honoured)
    }
}

impl Certificate {
    pub(super) fn new(member: &Member, signer: NodeId, version: Version) -> Self {
        Self {
            name: member.name.clone(),
            admission: member.admission,
            admitted_at: member.admitted_at,
            offset4: member.offset4.and_then(|offset| u32::try_from(offset).ok()),
            groups: member.groups.clone().unwrap_or_default(),
            role: if member.role == 1 {
                Role::Leaf
            } else {
                Role::Full
            },
            offers: member.offers.clone().unwrap_or_default(),
            routes: member.routes.clone(),
            guests: member.guests,
            not_after: member.not_after,
            signer,
            version,
        }
    }

    /// Where its holder stands among those who hold the same.
    pub fn seniority(&self, node: NodeId) -> Seniority {
        Seniority {
            admitted_at: self.admitted_at,
            admission: self.admission,
            node,
        }
    }

    /// Whether it allows to publish `service` under the network's name.
    pub fn may_offer(&self, service: &str) -> bool {
        self.offers.iter().any(|pattern| {
            pattern
                .strip_suffix('*')
                .map_or(pattern == service, |head| service.starts_with(head))
        })
    }
}
