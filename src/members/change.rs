//! Records come and go: what each says is taken in, and taken back.

use super::{AdminRecord, Certificate, Members, NetworkFacts, PeerRecord, Revocation};
use crate::{
    ids::NodeId,
    keys::NetSecret,
    wire::record::{Body, Kind, Record},
};

/// What follows for other records when one is applied or forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "records that lost their authority must leave the registry"]
pub struct Change {
    /// Nodes whose records, about them or signed by them, may have lost their authority: judge them again.
    pub recheck: Vec<NodeId>,
    /// Records kept aside may have authority now.
    pub unlocks: bool,
}

impl Change {
    fn unlocking() -> Self {
        Self {
            unlocks: true,
            ..Self::default()
        }
    }

    fn rechecking(mut self, node: NodeId) -> Self {
        self.recheck.push(node);
        self
    }
}

impl Members {
    /// Takes in a record that was allowed and has won its slot; it replaces what the slot said before.
    pub fn apply(&mut self, record: &Record, body: &Body) -> Change {
        let node = record.node();
        match body {
            Body::Network(network) => {
                self.network = Some(NetworkFacts {
                    name: network.name.clone(),
                    domain: network.domain.clone(),
                    pool4: network.pool4,
                    created: network.created,
                    root: node,
                    version: record.version(),
                });
                Change::unlocking()
            }
            Body::Admin(admin) => {
                let held = AdminRecord {
                    rights: admin.rights,
                    seq: record.seq(),
                    version: record.version(),
                };
                self.admin_records.insert(node, held);
                Change::unlocking().rechecking(node)
            }
            Body::Member(member) => {
                let certificate = Certificate::new(member, record.signer(), record.version());
                self.set_certificate(node, Some(certificate))
            }
            Body::Revoke(revoke) => {
                let held = Revocation {
                    since_s: revoke.since,
                    version: record.version(),
                };
                self.set_revocation(node, Some(held))
            }
            Body::Peer(peer) => {
                let held = PeerRecord {
                    peer: peer.clone(),
                    version: record.version(),
                };
                self.set_peer(node, Some(held))
            }
            Body::Epoch(epoch) => {
                let secret = NetSecret(epoch.secret);
                self.epochs
                    .put(epoch.n, secret, record.seq(), record.version());
                Change::default()
            }
            Body::Lease(_) | Body::Service(_) | Body::Invite(..) | Body::Heartbeat(_) => {
                Change::default()
            }
            Body::Opaque => self.apply_unreadable(record),
        }
    }

    /// Takes back what `record` said, if it still stands: it left the registry and nothing took its slot.
    pub fn forget(&mut self, record: &Record) -> Change {
        let (node, version) = (record.node(), record.version());
        match record.kind() {
            Kind::Admin
                if self
                    .admin_records
                    .get(&node)
                    .is_some_and(|held| held.version == version) =>
            {
                self.admin_records.remove(&node);
                Change::default().rechecking(node)
            }
            Kind::Member
                if self
                    .certificate(node)
                    .is_some_and(|held| held.version == version) =>
            {
                self.set_certificate(node, None)
            }
            Kind::Revoke
                if self
                    .revocations
                    .get(&node)
                    .is_some_and(|held| held.version == version) =>
            {
                self.set_revocation(node, None)
            }
            Kind::Peer
                if self
                    .peers
                    .get(&node)
                    .is_some_and(|held| held.version == version) =>
            {
                self.set_peer(node, None)
            }
            Kind::Epoch => {
                self.epochs.remove(version);
                Change::default()
            }
            Kind::Network
            | Kind::Admin
            | Kind::Member
            | Kind::Revoke
            | Kind::Peer
            | Kind::Lease
            | Kind::Service
            | Kind::Health
            | Kind::Policy
            | Kind::Invite
            | Kind::Heartbeat
            | Kind::Unknown(_) => Change::default(),
        }
    }

    fn apply_unreadable(&mut self, record: &Record) -> Change {
        let node = record.node();
        match record.kind() {
            Kind::Admin => {
                self.admin_records.remove(&node);
                Change::default().rechecking(node)
            }
            Kind::Member => self.set_certificate(node, None),
            Kind::Peer => self.set_peer(node, None),
            Kind::Network
            | Kind::Revoke
            | Kind::Epoch
            | Kind::Lease
            | Kind::Service
            | Kind::Health
            | Kind::Policy
            | Kind::Invite
            | Kind::Heartbeat
            | Kind::Unknown(_) => Change::default(),
        }
    }

    fn set_certificate(&mut self, node: NodeId, certificate: Option<Certificate>) -> Change {
        self.withdraw_claims(node);
        let change = match certificate {
            Some(certificate) => {
                self.certificates.insert(node, certificate);
                Change::unlocking()
            }
            None => {
                self.certificates.remove(&node);
                Change::default().rechecking(node)
            }
        };
        self.make_claims(node);
        self.recheck_tunnel(node, change)
    }

    fn set_revocation(&mut self, node: NodeId, revocation: Option<Revocation>) -> Change {
        self.withdraw_claims(node);
        let change = match revocation {
            Some(revocation) => {
                self.revocations.insert(node, revocation);
                Change::default().rechecking(node)
            }
            None => {
                self.revocations.remove(&node);
                Change::unlocking()
            }
        };
        self.make_claims(node);
        change
    }

    fn set_peer(&mut self, node: NodeId, peer: Option<PeerRecord>) -> Change {
        self.withdraw_claims(node);
        match peer {
            Some(peer) => self.peers.insert(node, peer),
            None => self.peers.remove(&node),
        };
        self.make_claims(node);
        self.recheck_tunnel(node, Change::default())
    }

    fn recheck_tunnel(&self, node: NodeId, mut change: Change) -> Change {
        if let Some(held) = self.peers.get(&node) {
            let losers = self.tunnels.losers(&held.peer.tunnel);
            change.recheck.extend(losers.map(|loser| loser.node));
        }
        change
    }

    fn withdraw_claims(&mut self, node: NodeId) {
        let Some(certificate) = self.certificates.get(&node) else {
            return;
        };
        let claim = certificate.seniority(node);
        self.names.remove(&certificate.name, &claim);
        if let Some(offset) = certificate.offset4 {
            self.offsets.remove(&offset, &claim);
        }
        if let Some(held) = self.peers.get(&node) {
            self.tunnels.remove(&held.peer.tunnel, &claim);
        }
    }

    fn make_claims(&mut self, node: NodeId) {
        if self.is_revoked(node) {
            return;
        }
        let Some(certificate) = self.certificates.get(&node) else {
            return;
        };
        let claim = certificate.seniority(node);
        self.names.add(certificate.name.clone(), claim);
        if let Some(offset) = certificate.offset4 {
            self.offsets.add(offset, claim);
        }
        if let Some(held) = self.peers.get(&node) {
            self.tunnels.add(held.peer.tunnel, claim);
        }
    }
}
