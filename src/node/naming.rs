//! Names and addresses are told: the tables the data threads read, the zone the resolver answers from, and who is
//! behind a name or an address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use crate::{
    addr::AddressPlan,
    dns::{Zone, zone},
    ids::NodeId,
    members::Standing as Membership,
    node::{Ipv4Use, Node, Timer, output::Output, status::Role, status::Whois},
    tables::{Names, Own, Tables, Transport},
    time::Now,
};

/// What answers where the network's domain makes no zone: nothing.
#[derive(Debug)]
struct NoNames;

impl Names for NoNames {
    fn answer(&self, _query: &[u8], _limit: usize, _answer: &mut Vec<u8>) -> bool {
        false
    }

    fn is_foreign(&self, _query: &[u8]) -> bool {
        false
    }
}

/// Tables are made anew at most once in this time for each member: making them costs about a microsecond a member, and
/// until they are made whoever came is nobody to the data threads. 50 peers wait 1 ms, 5,000 wait 100 ms.
const PUBLISH_AGAIN: Duration = Duration::from_micros(20);

impl Node {
    /// The network's address plan. Before the Network record is here it is the default one, and nobody has an address.
    pub(super) fn plan(&self) -> AddressPlan {
        let plan = self.members.plan();
        plan.unwrap_or_else(|| AddressPlan::of(self.network))
    }

    /// What a node is called here; an unknown one by the first digits of its id.
    pub fn name_of(&self, node: NodeId) -> String {
        self.members
            .name_of(node)
            .unwrap_or_else(|| node.to_string().chars().take(8).collect())
    }

    pub(super) fn own_ipv4(&self) -> Option<Ipv4Addr> {
        match self.settings.ipv4 {
            Ipv4Use::On | Ipv4Use::Blocked => self.members.ipv4_of(self.me),
            Ipv4Use::Off => None,
        }
    }

    /// Whether a node's addresses and names are told: a member that is not out.
    pub(super) fn may_be_told(&self, now: Now, node: NodeId) -> bool {
        matches!(
            self.membership(now, node),
            Membership::InForce | Membership::Honoured
        )
    }

    pub(super) fn publish_if_due(&mut self, now: Now) {
        if !self.publication.stale || self.members.network().is_none() {
            return;
        }
        let since = self.publication.last.map(|last| now.at.since(last));
        let members = u32::try_from(self.members.nodes().count()).unwrap_or(u32::MAX);
        let pause = PUBLISH_AGAIN * members;
        if since.is_some_and(|since| since < pause) {
            let wait = pause - since.unwrap_or_default();
            return self.timers.set(Timer::Publish, now.at.after(wait));
        }
        self.publish(now);
    }

    /// Publishes what is stale at once: whoever is let in next must be known to the data threads before its first packet.
    pub(super) fn publish_before_admission(&mut self, now: Now) {
        if self.publication.stale && self.members.network().is_some() {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Now) {
        self.publication.stale = false;
        self.publication.last = Some(now.at);
        self.publication.version += 1;
        let tables = self.tables(now);
        self.outbox.push_back(Output::Publish(Arc::new(tables)));
    }

    fn tables(&mut self, now: Now) -> Tables {
        let plan = self.plan();
        let others: Vec<NodeId> = self
            .members
            .nodes()
            .map(|(node, _)| node)
            .filter(|node| *node != self.me && self.may_be_told(now, *node))
            .collect();
        let (mut peers4, mut peers6) = (HashMap::new(), HashMap::new());
        for node in others {
            let peer = self.ids.intern(node);
            if let Some(address) = self.members.ipv4_of(node) {
                peers4.insert(address, peer);
            }
            peers6.insert(plan.peer6(node), peer);
        }
        Tables {
            version: self.publication.version,
            own: Own {
                v4: self.own_ipv4(),
                v6: plan.peer6(self.me),
                resolver4: plan.resolver4(),
                resolver6: plan.resolver6(),
                pool4: plan.pool4,
                prefix6: plan.prefix6(),
                dns_tcp_port: self.settings.dns_tcp_port,
            },
            peers4,
            peers6,
            splices: self.splice_ports(),
            own_vips: self.own_vips(&plan),
            names: self.names(now, &plan),
        }
    }

    fn names(&self, now: Now, plan: &AddressPlan) -> Arc<dyn Names> {
        let domain = self
            .members
            .network()
            .map_or_else(String::new, |network| network.domain.clone());
        let nodes = self
            .members
            .nodes()
            .map(|(node, _)| node)
            .filter(|node| self.may_be_told(now, *node));
        let facts = zone::Facts {
            domain,
            serial: u32::try_from(self.publication.version & u64::from(u32::MAX))
                .unwrap_or(u32::MAX),
            pool4: plan.pool4,
            prefix6: plan.prefix6(),
            resolver4: plan.resolver4(),
            resolver6: plan.resolver6(),
            family: match self.settings.ipv4 {
                Ipv4Use::On => zone::Family::Both,
                Ipv4Use::Blocked | Ipv4Use::Off => zone::Family::V6Only,
            },
            peers: nodes
                .map(|node| zone::Peer {
                    name: self.name_of(node),
                    v4: self.members.ipv4_of(node),
                    v6: plan.peer6(node),
                })
                .collect(),
            services: self.zone_services(now, plan),
        };
        match Zone::new(&facts) {
            Ok(zone) => Arc::new(zone),
            Err(_) => Arc::new(NoNames),
        }
    }

    fn zone_services(&self, now: Now, plan: &AddressPlan) -> Vec<zone::Service> {
        let mut services: Vec<zone::Service> = Vec::new();
        for instance in self.instances(now) {
            let turned = (instance.node == self.me
                && self.is_spliced(&instance.service, &instance.instance))
            .then(|| zone::Turned {
                v4: self.vip4(&instance.service),
                v6: plan.service6(&instance.service, ""),
            });
            let told = zone::Instance {
                name: instance.instance,
                peer: self.name_of(instance.node),
                scope: if instance.offered {
                    zone::Scope::Mesh
                } else {
                    zone::Scope::PeerOnly
                },
                turned,
            };
            match services.last_mut() {
                Some(last) if last.name == instance.service => last.instances.push(told),
                _ => services.push(zone::Service {
                    name: instance.service,
                    instances: vec![told],
                }),
            }
        }
        services
    }

    fn is_spliced(&self, service: &str, instance: &str) -> bool {
        let mut own = self.kept.services.iter();
        own.any(|own| own.name == service && own.instance == instance && own.splice_port.is_some())
    }

    fn vip4(&self, service: &str) -> Option<Ipv4Addr> {
        self.own_ipv4()?;
        self.kept
            .vips
            .iter()
            .find(|(name, _)| name == service)
            .map(|(_, address)| *address)
    }

    fn splice_ports(&self) -> BTreeMap<(Transport, u16), u16> {
        let spliced =
            self.kept.services.iter().filter_map(|service| {
                Some(((service.transport, service.port), service.splice_port?))
            });
        spliced.collect()
    }

    fn own_vips(&self, plan: &AddressPlan) -> BTreeSet<IpAddr> {
        let mut vips = BTreeSet::new();
        for service in self
            .kept
            .services
            .iter()
            .filter(|service| service.splice_port.is_some())
        {
            vips.insert(IpAddr::V6(plan.service6(&service.name, "")));
            if let Some((_, address)) = self
                .kept
                .vips
                .iter()
                .find(|(name, _)| *name == service.name)
            {
                vips.insert(IpAddr::V4(*address));
            }
        }
        vips
    }

    /// Who or what is behind an address of the mesh or a name.
    pub fn whois(&self, now: Now, address_or_name: &str) -> Option<Whois> {
        let plan = self.plan();
        let Ok(address) = address_or_name.parse::<IpAddr>() else {
            return self.whois_name(now, address_or_name);
        };
        if address == IpAddr::V4(plan.resolver4()) || address == IpAddr::V6(plan.resolver6()) {
            return Some(Whois::Resolver);
        }
        let node = self
            .members
            .nodes()
            .map(|(node, _)| node)
            .find(|node| match address {
                IpAddr::V4(address) => self.members.ipv4_of(*node) == Some(address),
                IpAddr::V6(address) => plan.peer6(*node) == address,
            });
        match node {
            Some(node) => Some(self.whois_peer(node)),
            None => self.whois_vip(now, address),
        }
    }

    fn whois_name(&self, now: Now, name: &str) -> Option<Whois> {
        let domain = self
            .members
            .network()
            .map(|network| network.domain.clone())?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let name = name.strip_suffix(&format!(".{domain}")).unwrap_or(&name);
        if let Some(node) = self.members.node_named(name) {
            return Some(self.whois_peer(node));
        }
        self.whois_service(now, name.strip_suffix(".svc").unwrap_or(name))
    }

    fn whois_peer(&self, node: NodeId) -> Whois {
        let role = match self.role_of(node) {
            Role::Admin => "admin",
            Role::Member => "member",
            Role::Leaf => "leaf",
        };
        let since = self
            .members
            .certificate(node)
            .map_or(0, |certificate| certificate.admitted_at);
        Whois::Peer {
            node,
            name: self.name_of(node),
            role,
            since,
        }
    }

    fn whois_vip(&self, now: Now, address: IpAddr) -> Option<Whois> {
        let plan = self.plan();
        let by_v4 = self
            .kept
            .vips
            .iter()
            .find(|(_, vip)| IpAddr::V4(*vip) == address)
            .map(|(name, _)| name.clone());
        let by_v6 = || {
            let mut names = self
                .instances(now)
                .into_iter()
                .map(|instance| instance.service);
            names.find(|name| IpAddr::V6(plan.service6(name, "")) == address)
        };
        self.whois_service(now, &by_v4.or_else(by_v6)?)
    }

    fn whois_service(&self, now: Now, name: &str) -> Option<Whois> {
        let instances = self.instances(now);
        let peers: Vec<String> = instances
            .iter()
            .filter(|instance| instance.service == name)
            .map(|instance| self.name_of(instance.node))
            .collect();
        (!peers.is_empty()).then(|| Whois::Service {
            name: name.to_owned(),
            peers,
        })
    }
}
