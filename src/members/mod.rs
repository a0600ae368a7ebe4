//! Who belongs: certificates in force, admins, revocations, epochs, redeeming, names and IPv4, mesh time (protocol §7–§10).
//!
//! Knows what records of membership say and who may say it. Refuses to know how records travel and where they are
//! kept. A record is judged ([`Members::judge`]), competes for its slot elsewhere, and comes back by
//! [`Members::apply`] or goes by [`Members::forget`]. What members answer follows from the set of records applied,
//! whatever their order: a [`Change`] names the nodes whose records must be judged again because the ground they
//! stood on went.

pub mod admission;
pub mod certificate;
mod change;
mod claims;
pub mod epochs;
pub mod invites;
pub mod judge;
pub mod label;
pub mod mesh_time;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

pub use self::{
    certificate::{Certificate, Role, Seniority, Standing},
    change::Change,
    epochs::{Opener, Reach},
    judge::{MemberRefused, Verdict},
    mesh_time::MeshTime,
};
use self::{claims::Claims, epochs::Epochs};
pub use crate::ids::Rank;
use crate::{
    addr::AddressPlan,
    ids::{NetworkId, NodeId, Version},
    keys::NetSecret,
    wire::record::Peer,
};

/// What the root key said of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFacts {
    /// One label.
    pub name: String,
    /// The domain all names end in.
    pub domain: String,
    /// The IPv4 pool.
    pub pool4: Ipv4Net,
    /// Unix s.
    pub created: u64,
    /// The root public key.
    pub root: NodeId,
    version: Version,
}

/// The members of one network, as far as records were applied.
#[derive(Clone, Debug)]
pub struct Members {
    network_id: NetworkId,
    own: NodeId,
    network: Option<NetworkFacts>,
    admin_records: BTreeMap<NodeId, AdminRecord>,
    certificates: BTreeMap<NodeId, Certificate>,
    revocations: BTreeMap<NodeId, Revocation>,
    peers: BTreeMap<NodeId, PeerRecord>,
    epochs: Epochs,
    names: Claims<String>,
    offsets: Claims<u32>,
    tunnels: Claims<[u8; 32]>,
}

#[derive(Clone, Copy, Debug)]
struct AdminRecord {
    rights: u64,
    seq: u64,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
struct Revocation {
    since_s: u64,
    version: Version,
}

#[derive(Clone, Debug)]
struct PeerRecord {
    peer: Peer,
    version: Version,
}

impl Members {
    /// Members of `network` as its member `own` sees them; nobody yet.
    pub fn new(network: NetworkId, own: NodeId) -> Self {
        Self {
            network_id: network,
            own,
            network: None,
            admin_records: BTreeMap::new(),
            certificates: BTreeMap::new(),
            revocations: BTreeMap::new(),
            peers: BTreeMap::new(),
            epochs: Epochs::default(),
            names: Claims::default(),
            offsets: Claims::default(),
            tunnels: Claims::default(),
        }
    }

    /// The network's id.
    pub fn network_id(&self) -> NetworkId {
        self.network_id
    }

    /// This machine.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// What the root said of the network, once its record is here.
    pub fn network(&self) -> Option<&NetworkFacts> {
        self.network.as_ref()
    }

    /// The network's addresses, once its record is here.
    pub fn plan(&self) -> Option<AddressPlan> {
        self.network.as_ref().map(|network| AddressPlan {
            network: self.network_id,
            pool4: network.pool4,
        })
    }

    /// The certificate of `node`, in force or not; a revoked node's too.
    pub fn certificate(&self, node: NodeId) -> Option<&Certificate> {
        self.certificates.get(&node)
    }

    /// Everyone with a certificate, revoked ones too, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Certificate)> {
        self.certificates
            .iter()
            .map(|(node, certificate)| (*node, certificate))
    }

    /// How `node` stands at mesh time `mesh_s`, when the newest lease of any admin was made at `admin_seen_s`
    /// (unix s; 0: none was seen).
    pub fn standing(&self, node: NodeId, mesh_s: u64, admin_seen_s: u64) -> Standing {
        if self.is_revoked(node) {
            return Standing::Revoked;
        }
        match self.certificate(node) {
            None => Standing::Stranger,
            Some(certificate) if mesh_s < certificate.not_after => Standing::InForce,
            Some(certificate) if admin_seen_s < certificate.not_after => Standing::Honoured,
            Some(_) => Standing::Ended,
        }
    }

    /// Whether `node` is an admin that is not revoked.
    pub fn is_admin(&self, node: NodeId) -> bool {
        let has_rights = self
            .admin_records
            .get(&node)
            .is_some_and(|admin| admin.rights != 0);
        has_rights && !self.is_revoked(node)
    }

    /// Whether `node` is an admin that may admit members and renew them.
    pub fn may_admit(&self, node: NodeId) -> bool {
        let rights = self
            .admin_records
            .get(&node)
            .map_or(0, |admin| admin.rights);
        rights & judge::MAY_ADMIT != 0 && !self.is_revoked(node)
    }

    /// The admins, in the order of their ids.
    pub fn admins(&self) -> impl Iterator<Item = NodeId> {
        self.admin_records
            .keys()
            .copied()
            .filter(|node| self.is_admin(*node))
    }

    /// Whether `node` is out.
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.revocations.contains_key(&node)
    }

    /// Since when what `node` signed as an admin is void, unix s; None: it is not revoked.
    pub fn revoked_since(&self, node: NodeId) -> Option<u64> {
        self.revocations
            .get(&node)
            .map(|revocation| revocation.since_s)
    }

    /// Everyone who is out, in the order of their ids.
    pub fn revoked(&self) -> impl Iterator<Item = NodeId> {
        self.revocations.keys().copied()
    }

    /// What `node` is called: its issued name, or `<name>-<4 of id>` where a senior peer has that name.
    pub fn name_of(&self, node: NodeId) -> Option<String> {
        let certificate = self.certificate(node)?;
        if self.is_revoked(node) || self.names.is_holder(&certificate.name, node) {
            Some(certificate.name.clone())
        } else {
            Some(label::second_name(&certificate.name, node))
        }
    }

    /// Whether `node` lost its issued name to a senior peer.
    pub fn has_lost_name(&self, node: NodeId) -> bool {
        self.certificate(node).is_some_and(|certificate| {
            !self.is_revoked(node) && !self.names.is_holder(&certificate.name, node)
        })
    }

    /// The IPv4 address of `node`; none where none was issued, or a senior peer has it.
    pub fn ipv4_of(&self, node: NodeId) -> Option<Ipv4Addr> {
        let plan = self.plan()?;
        let offset = self.certificate(node)?.offset4?;
        let fits = (1..plan.half4() - 1).contains(&offset);
        (fits && self.offsets.is_holder(&offset, node)).then(|| plan.at4(offset))
    }

    /// Whether `node` was issued an IPv4 address that a senior peer has.
    pub fn has_lost_ipv4(&self, node: NodeId) -> bool {
        let offset = self
            .certificate(node)
            .and_then(|certificate| certificate.offset4);
        offset
            .is_some_and(|offset| !self.is_revoked(node) && !self.offsets.is_holder(&offset, node))
    }

    /// The peer called `name`, which is not revoked.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        if let Some(holder) = self.names.holder(&name.to_owned()) {
            return Some(holder.node);
        }
        let head = label::head_of_second_name(name)?;
        self.names
            .keys_from(head.to_owned())
            .take_while(|issued| issued.starts_with(head))
            .flat_map(|issued| {
                self.names
                    .losers(issued)
                    .map(move |loser| (issued, loser.node))
            })
            .find(|(issued, node)| label::second_name(issued, *node) == name)
            .map(|(_, node)| node)
    }

    /// Whether a peer that is not revoked was issued `name`.
    pub fn is_name_issued(&self, name: &str) -> bool {
        self.names.holder(&name.to_owned()).is_some()
    }

    /// Whether a peer that is not revoked was issued the IPv4 address at `offset`.
    pub fn is_offset4_issued(&self, offset: u32) -> bool {
        self.offsets.holder(&offset).is_some()
    }

    /// The tunnel key of `node`, ed25519 form, if its Peer record is here and no senior peer has that key.
    pub fn tunnel_of(&self, node: NodeId) -> Option<[u8; 32]> {
        let tunnel = self.peer(node)?.tunnel;
        self.tunnels.is_holder(&tunnel, node).then_some(tunnel)
    }

    /// The Peer record of `node`.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node).map(|held| &held.peer)
    }

    /// Whether `node` may publish `service` under the network's name; it may always under its own.
    pub fn may_offer(&self, node: NodeId, service: &str) -> bool {
        self.certificate(node)
            .is_some_and(|certificate| certificate.may_offer(service))
    }

    /// The secret that makes the preshared keys.
    pub fn epoch0(&self) -> Option<&NetSecret> {
        self.epochs.secret(0)
    }

    /// The secret of epoch `n`.
    pub fn epoch(&self, n: u32) -> Option<&NetSecret> {
        self.epochs.secret(n)
    }

    /// The newest epoch, the one Knocks are sealed with.
    pub fn newest_epoch(&self) -> Option<(u32, &NetSecret)> {
        self.epochs.newest().next()
    }

    /// The epochs held, newest first.
    pub fn newest_epochs(&self) -> impl Iterator<Item = (u32, &NetSecret)> {
        self.epochs.newest()
    }

    /// The secrets that a header's epoch byte may mean, newest first, at most four.
    pub fn epochs_for_byte(&self, byte: u8, mesh_s: u64) -> Vec<Opener<'_>> {
        self.epochs.openers(byte, mesh_s)
    }

    /// Where the secret of an epoch still opens Knocks.
    pub fn reach_of_epoch(&self, n: u32, mesh_s: u64) -> Reach {
        self.epochs.reach(n, mesh_s)
    }
}
