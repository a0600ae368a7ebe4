//! Somebody looks: what a node knows of its network, its peers and its services, as plain values for the API.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    addr::{Path, Underlay},
    ids::{NetworkId, NodeId, PeerIx, SessionId},
    members::Standing as Membership,
    node::{Ipv4Use, Node, meeting::MeetingView},
    paths::candidates::Facts,
    services::Published,
    tables::Transport,
    time::{Moment, Now},
    wire::message::Hello,
};

/// Everything `status` shows that the node knows. Counters of packets are the shell's.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The network's id.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// The network's own time, unix s.
    pub mesh_s: u64,
    /// This machine.
    pub own: OwnView,
    /// All other peers, by name.
    pub peers: Vec<PeerView>,
    /// All services in force, by name.
    pub services: Vec<ServiceView>,
    /// The resolver's addresses.
    pub resolvers: (Ipv4Addr, Ipv6Addr),
    /// Those of them that programs of this host can ask.
    pub dns_servers: Vec<IpAddr>,
    /// What is worth saying.
    pub health: Vec<Health>,
    /// Events counted by the node.
    pub counters: Vec<(&'static str, u64)>,
    /// What came of the DHT.
    pub meeting: MeetingView,
}

/// This machine as its network sees it.
#[derive(Clone, Debug)]
pub struct OwnView {
    /// Who.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it may admit others.
    pub role: Role,
    /// Its IPv4 address, if it has and uses one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Unix s.
    pub certificate_until: u64,
    /// Where others may find it.
    pub addresses: Vec<Underlay>,
    /// Where somebody outside reached it.
    pub proven: Vec<Underlay>,
    /// What is known of the way between it and the world.
    pub facts: Facts,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Admits others.
    Admin,
    /// A full member.
    Member,
    /// Asks others.
    Leaf,
}

/// Another peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its index in [`crate::tables`].
    pub peer: PeerIx,
    /// Who.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// How it is now.
    pub state: PeerState,
    /// Where its session is.
    pub endpoint: Option<Path>,
    /// The names of the relays on that path, the nearest first.
    pub via: Vec<String>,
    /// Round trip on that path.
    pub rtt: Option<Duration>,
    /// Unix s of the last session, as the row tells; 0: never.
    pub last_session_s: u32,
    /// When the last authenticated packet came in this run.
    pub heard: Option<Moment>,
    /// Where it says it is.
    pub addresses: Vec<Underlay>,
    /// Unix s.
    pub admitted_at: u64,
    /// Unix s.
    pub certificate_until: u64,
    /// Its groups.
    pub groups: Vec<String>,
    /// The protocol versions it speaks, from its Hello.
    pub wire: Option<(u64, u64)>,
}

/// How a peer is (design §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// A session stands.
    Up,
    /// Its lease is in force, no session.
    Idle,
    /// Its lease is over, or it left.
    Away,
    /// It is out.
    Revoked,
}

/// A service, all instances.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its full name.
    pub domain_name: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port others dial.
    pub port: u16,
    /// Who serves.
    pub instances: Vec<InstanceView>,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// The peer's name.
    pub peer: String,
    /// The instance's name.
    pub instance: String,
    /// The target, known for own ones.
    pub target: Option<String>,
    /// Whether it is this machine's.
    pub own: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its weight among the instances.
    pub weight: u64,
}

/// A line of `health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// There is one admin.
    OneAdmin {
        /// Its name.
        admin: String,
        /// Another peer that could become one.
        candidate: Option<String>,
    },
    /// Every admin there was is revoked.
    NoAdmin,
    /// Others are there by what they said last, and for a while no session with anybody has stood.
    NobodyReached {
        /// Their names; at least one.
        others: Vec<String>,
    },
    /// Another peer holds this machine's name.
    NameLost {
        /// What this machine is called instead.
        name: String,
    },
    /// Another peer holds this machine's IPv4 address.
    Ipv4Lost,
    /// The own clock is far off; the network's is used.
    ClockCorrected,
    /// The own certificate ends soon and was not renewed.
    CertificateEnding {
        /// Unix s.
        until: u64,
    },
    /// Certificates have ended and no admin was seen since.
    ExpirySuspended,
    /// Two machines run with one key.
    Cloned {
        /// Its name.
        name: String,
    },
    /// This machine was revoked.
    Revoked,
}

/// What an address or a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whois {
    /// A peer.
    Peer {
        /// Who.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its role.
        role: &'static str,
        /// Unix s.
        since: u64,
    },
    /// A service.
    Service {
        /// Its name.
        name: String,
        /// Peers that serve it.
        peers: Vec<String>,
    },
    /// The resolver.
    Resolver,
}

/// How long nobody was reached before that is worth a warning: a start or a change of networks takes seconds.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// A certificate with fewer days than this is worth a warning.
const ENDING_S: u64 = 14 * 24 * 3600;

impl Node {
    /// What `status` shows now.
    pub fn status(&self, now: Now) -> Snapshot {
        let (name, domain) = match self.members.network() {
            Some(network) => (network.name.clone(), network.domain.clone()),
            None => (String::new(), String::new()),
        };
        let plan = self.plan();
        Snapshot {
            network: self.network,
            name,
            services: self.service_views(now, &domain),
            domain,
            mesh_s: self.mesh_s(now),
            own: self.own_view(now),
            peers: self.peer_views(now),
            resolvers: (plan.resolver4(), plan.resolver6()),
            dns_servers: self.dns_servers(),
            health: self.health(now),
            counters: self.counters.iter().chain(self.meeting_counts()).collect(),
            meeting: self.meeting_view(),
        }
    }

    /// Where this host is to ask for our names: what comes from an address that does not come through answers nobody.
    pub fn dns_servers(&self) -> Vec<IpAddr> {
        let plan = self.plan();
        let by_v4 = self.settings.ipv4 == Ipv4Use::On && self.own_ipv4().is_some();
        let v4 = by_v4.then(|| IpAddr::V4(plan.resolver4()));
        v4.into_iter().chain([plan.resolver6().into()]).collect()
    }

    fn own_view(&self, now: Now) -> OwnView {
        OwnView {
            id: self.me,
            name: self.name_of(self.me),
            role: self.role_of(self.me),
            ipv4: self.own_ipv4(),
            ipv6: self.plan().peer6(self.me),
            certificate_until: self
                .members
                .certificate(self.me)
                .map_or(0, |certificate| certificate.not_after),
            addresses: self.own_addresses(now),
            proven: self.proven_addresses(now),
            facts: self.candidates.facts(),
        }
    }

    pub(super) fn role_of(&self, node: NodeId) -> Role {
        if self.members.is_admin(node) {
            return Role::Admin;
        }
        match self
            .members
            .certificate(node)
            .map(|certificate| certificate.role)
        {
            Some(crate::members::Role::Leaf) => Role::Leaf,
            Some(crate::members::Role::Full) | None => Role::Member,
        }
    }

    fn peer_views(&self, now: Now) -> Vec<PeerView> {
        let others = self
            .members
            .nodes()
            .map(|(node, _)| node)
            .filter(|node| *node != self.me);
        let mut views: Vec<PeerView> = others
            .filter_map(|node| self.peer_view(now, node))
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn peer_view(&self, now: Now, node: NodeId) -> Option<PeerView> {
        let certificate = self.members.certificate(node)?;
        let peer = self.ids.find(node)?;
        let up = self.pairs.get(&peer).and_then(super::talking::Pair::usable);
        let hello: Option<&Hello> = up.and_then(|up| up.hello.as_ref());
        let state = if self.membership(now, node) == Membership::Revoked {
            PeerState::Revoked
        } else if up.is_some() {
            PeerState::Up
        } else if self.registry.in_force(node, self.mesh_s(now)) {
            PeerState::Idle
        } else {
            PeerState::Away
        };
        Some(PeerView {
            peer,
            id: node,
            name: self.name_of(node),
            role: self.role_of(node),
            ipv4: self.members.ipv4_of(node),
            ipv6: self.plan().peer6(node),
            state,
            endpoint: up.map(|up| up.endpoint),
            via: up.map_or_else(Vec::new, |up| self.via(up.endpoint)),
            rtt: self
                .proofs
                .rtt(SessionId::Pair(peer))
                .map(|rtt| rtt.smoothed),
            last_session_s: self.rows.get(&node).map_or(0, |row| row.last_session_s),
            heard: up.map(|up| up.heard),
            addresses: self
                .members
                .peer(node)
                .and_then(|peer| peer.addresses.clone())
                .unwrap_or_default(),
            admitted_at: certificate.admitted_at,
            certificate_until: certificate.not_after,
            groups: certificate.groups.clone(),
            wire: hello.map(|hello| (hello.wire_min, hello.wire_max)),
        })
    }

    /// The names of the relays on a path, the nearest first.
    pub fn via(&self, path: Path) -> Vec<String> {
        let relays = self.relays_on(path).into_iter();
        relays.map(|relay| self.name_of(relay)).collect()
    }

    /// What the network's names end in, once that is known.
    pub fn domain(&self) -> Option<&str> {
        self.members
            .network()
            .map(|network| network.domain.as_str())
    }

    fn service_views(&self, now: Now, domain: &str) -> Vec<ServiceView> {
        let mut views: Vec<ServiceView> = Vec::new();
        for instance in self.instances(now) {
            let view = InstanceView {
                peer: self.name_of(instance.node),
                instance: instance.instance.clone(),
                target: self.own_target(instance.node, &instance.service, &instance.instance),
                own: instance.node == self.me,
                tags: instance.tags.clone(),
                weight: instance.weight,
            };
            let Some((transport, port)) = instance.ports.first().copied() else {
                continue;
            };
            let domain_name = if instance.offered {
                format!("{}.svc.{domain}", instance.service)
            } else {
                format!("{}.{}.{domain}", instance.service, view.peer)
            };
            let same = |other: &&mut ServiceView| {
                other.domain_name == domain_name
                    && other.port == port
                    && other.transport == transport
            };
            match views.iter_mut().find(same) {
                Some(known) => known.instances.push(view),
                None => views.push(ServiceView {
                    name: instance.service,
                    domain_name,
                    transport,
                    port,
                    instances: vec![view],
                }),
            }
        }
        views
    }

    fn own_target(&self, node: NodeId, service: &str, instance: &str) -> Option<String> {
        let is_it =
            |own: &&Published| node == self.me && own.name == service && own.instance == instance;
        self.kept
            .services
            .iter()
            .find(is_it)?
            .target
            .map(|target| target.to_string())
    }

    fn health(&self, now: Now) -> Vec<Health> {
        let mut health = Vec::new();
        let admins: Vec<NodeId> = self
            .members
            .admins()
            .filter(|node| !self.members.is_revoked(*node))
            .collect();
        let others = self
            .members
            .nodes()
            .map(|(node, _)| node)
            .find(|node| *node != self.me && !admins.contains(node));
        if let [only] = admins.as_slice()
            && let Some(candidate) = others
        {
            health.push(Health::OneAdmin {
                admin: self.name_of(*only),
                candidate: Some(self.name_of(candidate)),
            });
        }
        if admins.is_empty() {
            health.push(Health::NoAdmin);
        }
        let others = self.out_of_reach(now);
        if !others.is_empty() {
            health.push(Health::NobodyReached { others });
        }
        if self.members.has_lost_name(self.me) {
            health.push(Health::NameLost {
                name: self.name_of(self.me),
            });
        }
        if self.members.has_lost_ipv4(self.me) {
            health.push(Health::Ipv4Lost);
        }
        if self.mesh_time.is_corrected(now) {
            health.push(Health::ClockCorrected);
        }
        let until = self
            .members
            .certificate(self.me)
            .map_or(0, |certificate| certificate.not_after);
        if until < self.mesh_s(now) + ENDING_S {
            health.push(Health::CertificateEnding { until });
        }
        if self.membership(now, self.me) == Membership::Honoured {
            health.push(Health::ExpirySuspended);
        }
        for notice in &self.notices {
            match notice {
                super::output::Notice::Cloned { node } => health.push(Health::Cloned {
                    name: self.name_of(*node),
                }),
                super::output::Notice::Revoked => health.push(Health::Revoked),
                super::output::Notice::Joined { .. } => {}
            }
        }
        health
    }

    /// The names of those that are said to be there, if none of them is reached for a while.
    fn out_of_reach(&self, now: Now) -> Vec<String> {
        let is_long = |since: Moment| now.at.since(since) >= ALONE_FOR;
        if !self.alone_since.is_some_and(is_long) || self.members.is_revoked(self.me) {
            return Vec::new();
        }
        let there = self.others_in_force(now);
        there.map(|node| self.name_of(node)).collect()
    }

    /// What the node wants to be woken for, the earliest first: for people who look for faults.
    pub fn deadlines(&self) -> Vec<(String, Moment)> {
        self.timers
            .iter()
            .map(|(timer, at)| (format!("{timer:?}"), at))
            .collect()
    }

    /// Whether this machine is in sync and has a session, or is alone (`webmesh wait`).
    pub fn is_settled(&self, now: Now) -> bool {
        let alive =
            |node: &NodeId| *node != self.me && self.registry.in_force(*node, self.mesh_s(now));
        let alone = !self.members.nodes().any(|(node, _)| alive(&node));
        alone || self.pairs.keys().any(|peer| self.gossip.is_synced(*peer))
    }

    /// Whether the registry of a peer and ours have been compared once in this session.
    pub fn is_in_sync_with(&self, node: NodeId) -> bool {
        self.ids
            .find(node)
            .is_some_and(|peer| self.gossip.is_synced(peer))
    }

    /// Whether a session with a peer stands and both have said Hello.
    pub fn is_open(&self, node: NodeId) -> bool {
        let pair = self.ids.find(node).and_then(|peer| self.pairs.get(&peer));
        pair.and_then(super::talking::Pair::usable)
            .is_some_and(|up| up.hello.is_some())
    }

    /// Which peer has this name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.members.node_named(name)
    }

    /// Every name a person may mean: peers, then services.
    pub fn known_names(&self, now: Now) -> Vec<String> {
        let mut names: Vec<String> = self
            .members
            .nodes()
            .map(|(node, _)| self.name_of(node))
            .collect();
        names.extend(
            self.instances(now)
                .into_iter()
                .map(|instance| instance.service),
        );
        names.dedup();
        names
    }
}
