//! Services are published (design §10): the definition is kept, a Service record says it to all, and where the program
//! listens elsewhere a splice is asked of the shell.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use rand_core::RngCore;

use crate::{
    ids::NodeId,
    members::label,
    node::{Node, output::Output},
    registry::Held,
    services::{Published, Splice, choose_vip4, draw_splice_port},
    tables::Transport,
    time::Now,
    wire::record::{self, Body, Kind, slot_of},
};

/// What `webmesh service add` asks for, checked by the shell as far as the host is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWish {
    /// Its name.
    pub name: String,
    /// The instance; None: the peer's name.
    pub instance: Option<String>,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port others dial.
    pub port: u16,
    /// Where the program listens, if not on that port of the mesh address.
    pub target: Option<SocketAddr>,
    /// Tags.
    pub tags: Vec<String>,
    /// Weight.
    pub weight: u32,
    /// The file that defines it, if one does.
    pub defined_in: Option<String>,
}

/// Why a service is not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceRefused {
    /// The name is no label of design §3.
    #[error("{0:?} cannot be the name of a service")]
    Name(String),
    /// The instance's name is none.
    #[error("{0:?} cannot be the name of an instance")]
    InstanceName(String),
    /// A weight of nothing would send nobody there.
    #[error("a weight is 1 or more, 100 is the usual")]
    NoWeight,
    /// Two services of one peer cannot have one port until services have addresses of their own.
    #[error("port {port} of this machine is {service}'s already")]
    PortTaken {
        /// The port.
        port: u16,
        /// Whose it is.
        service: String,
    },
    /// This peer serves as many as protocol §7 allows.
    #[error("this machine publishes 64 services already")]
    TooMany,
    /// Its record would be longer than protocol §7 allows.
    #[error(
        "{0} says more than the 1024 bytes that a service's record may have: give fewer or shorter tags"
    )]
    TooLong(String),
}

/// The weight of whoever names none (protocol §11).
const USUAL_WEIGHT: u64 = 100;

/// How many services a peer may publish (protocol §7).
const MOST_SERVICES: usize = 64;

/// One service as the network knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The peer that serves.
    pub node: NodeId,
    /// The service's name.
    pub service: String,
    /// The instance's name.
    pub instance: String,
    /// The ports it is served on.
    pub ports: Vec<(Transport, u16)>,
    /// Whether the peer's certificate lets it use the network-wide name.
    pub offered: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its weight among the instances.
    pub weight: u64,
}

impl Node {
    /// Publishes a service, or changes one that has this name and instance.
    ///
    /// # Errors
    /// Nothing changes when it is refused.
    pub fn service_add(
        &mut self,
        now: Now,
        wish: ServiceWish,
    ) -> Result<Published, ServiceRefused> {
        self.service_add_among(now, wish, |_| false)
    }

    /// Whether service and instance may be called so, and whether it weighs anything.
    ///
    /// # Errors
    /// A name is no label of design §3 or is reserved, or the weight is 0.
    pub fn judge_wish(wish: &ServiceWish) -> Result<(), ServiceRefused> {
        if !is_service_name(&wish.name) {
            return Err(ServiceRefused::Name(wish.name.clone()));
        }
        if wish.weight == 0 {
            return Err(ServiceRefused::NoWeight);
        }
        match &wish.instance {
            Some(instance) if !is_service_name(instance) => {
                Err(ServiceRefused::InstanceName(instance.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Publishes what files define, judged as a whole: services may change names and ports with one another. Of what
    /// files defined before, only what `stays` says is kept beside it. One outcome for each wish.
    pub fn services_define(
        &mut self,
        now: Now,
        wishes: Vec<ServiceWish>,
        stays: impl Fn(&Published) -> bool,
    ) -> Vec<Result<Published, ServiceRefused>> {
        let own_name = self.name_of(self.me);
        let mut to_come: Vec<(String, String)> = wishes
            .iter()
            .map(|wish| {
                let instance = wish.instance.as_ref().unwrap_or(&own_name);
                (wish.name.clone(), instance.clone())
            })
            .collect();
        let is_one_of = |service: &Published, named: &[(String, String)]| {
            let mut named = named.iter();
            named.any(|(name, instance)| service.name == *name && service.instance == *instance)
        };
        let is_defined = |service: &Published| service.defined_in.is_some() && !stays(service);
        // What no file names any more goes first: another service may have its port now.
        self.services_remove(now, |service| {
            is_defined(service) && !is_one_of(service, &to_come)
        });
        let mut outcomes = Vec::new();
        let mut stand = Vec::new();
        for wish in wishes {
            to_come.remove(0);
            let is_open = |service: &Published| is_defined(service) && is_one_of(service, &to_come);
            let outcome = self.service_add_among(now, wish, is_open);
            if let Ok(published) = &outcome {
                stand.push((published.name.clone(), published.instance.clone()));
            }
            outcomes.push(outcome);
        }
        // What was refused keeps no port, which another may have been given.
        self.services_remove(now, |service| {
            is_defined(service) && !is_one_of(service, &stand)
        });
        outcomes
    }

    /// One of several that are judged together: the port of a service whose turn is still to come, as `is_open` says, is
    /// free.
    fn service_add_among(
        &mut self,
        now: Now,
        wish: ServiceWish,
        is_open: impl Fn(&Published) -> bool,
    ) -> Result<Published, ServiceRefused> {
        Self::judge_wish(&wish)?;
        let instance = wish
            .instance
            .clone()
            .unwrap_or_else(|| self.name_of(self.me));
        let is_same =
            |service: &Published| service.name == wish.name && service.instance == instance;
        let taken = self.kept.services.iter().find(|service| {
            let is_there = service.transport == wish.transport && service.port == wish.port;
            is_there && !is_same(service) && !is_open(service)
        });
        if let Some(other) = taken {
            return Err(ServiceRefused::PortTaken {
                port: wish.port,
                service: other.name.clone(),
            });
        }
        let before = self.kept.services.iter().position(is_same);
        if before.is_none() && self.kept.services.len() >= MOST_SERVICES {
            return Err(ServiceRefused::TooMany);
        }
        let drawn = before
            .and_then(|at| self.kept.services.get(at))
            .and_then(|service| service.splice_port);
        let splice_port = wish
            .target
            .and_then(|_| drawn.or_else(|| self.draw_splice_port()));
        let published = Published {
            name: wish.name,
            instance,
            transport: wish.transport,
            port: wish.port,
            target: wish.target,
            splice_port,
            tags: wish.tags,
            weight: wish.weight,
            defined_in: wish.defined_in,
        };
        if before.and_then(|at| self.kept.services.get(at)) == Some(&published) {
            return Ok(published);
        }
        if !self.fits_a_record(now, &published) {
            return Err(ServiceRefused::TooLong(published.name));
        }
        match before {
            Some(at) => self.kept.services[at] = published.clone(),
            None => self.kept.services.push(published.clone()),
        }
        self.choose_vip(&published.name);
        self.persist_kept(None);
        self.publish_service(now, &published);
        self.announce_splices();
        self.publication.stale = true;
        self.finish_turn(now);
        Ok(published)
    }

    /// Takes every instance of a service of this machine back. False: there was none.
    pub fn service_remove(&mut self, now: Now, name: &str) -> bool {
        self.services_remove(now, |service| service.name == name)
    }

    /// Takes those services of this machine back of which `is_out` says so. False: there was none.
    pub fn services_remove(&mut self, now: Now, is_out: impl Fn(&Published) -> bool) -> bool {
        let (gone, stay): (Vec<Published>, Vec<Published>) =
            self.kept.services.drain(..).partition(is_out);
        self.kept.services = stay;
        if gone.is_empty() {
            return false;
        }
        let stays = |name: &String| {
            self.kept
                .services
                .iter()
                .any(|service| service.name == *name)
        };
        let left: BTreeSet<String> = gone
            .iter()
            .map(|service| service.name.clone())
            .filter(|name| !stays(name))
            .collect();
        self.kept.vips.retain(|(name, _)| !left.contains(name));
        self.persist_kept(None);
        for service in &gone {
            self.publish_service_ports(now, service, &[]);
        }
        self.announce_splices();
        self.publication.stale = true;
        self.finish_turn(now);
        true
    }

    /// The services of this machine.
    pub fn own_services(&self) -> &[Published] {
        &self.kept.services
    }

    /// Whether this machine's certificate lets it use a service name network-wide.
    pub fn may_offer(&self, service: &str) -> bool {
        self.members.may_offer(self.me, service)
    }

    /// All instances of all services that are in force, by name, then peer. This machine's own are there at once: whether
    /// it is there needs no lease, which waits for the first Hello.
    pub fn instances(&self, now: Now) -> Vec<Instance> {
        let mesh_s = self.mesh_s(now);
        let is_there = |node| node == self.me || self.registry.in_force(node, mesh_s);
        let mut all: Vec<Instance> = self
            .registry
            .of_kind(Kind::Service)
            .filter(|held| is_there(held.record.node()))
            .filter(|held| self.may_be_told(now, held.record.node()))
            .filter_map(|held| self.instance(held))
            .collect();
        all.sort_by(|a, b| {
            (&a.service, a.node, &a.instance).cmp(&(&b.service, b.node, &b.instance))
        });
        all
    }

    fn instance(&self, held: &Held) -> Option<Instance> {
        let Body::Service(service) = &held.body else {
            return None;
        };
        let node = held.record.node();
        let ports: Vec<(Transport, u16)> = service
            .ports
            .iter()
            .filter_map(|port| decode_port(*port))
            .collect();
        if ports.is_empty() || !is_service_name(&service.service) {
            return None;
        }
        Some(Instance {
            node,
            service: service.service.clone(),
            instance: service.instance.clone(),
            ports,
            offered: self.members.may_offer(node, &service.service),
            tags: service.tags.clone().unwrap_or_default(),
            weight: service.weight.unwrap_or(USUAL_WEIGHT),
        })
    }

    /// Publishes again what was kept: a new run, or a name that changed.
    pub(super) fn publish_kept_services(&mut self, now: Now) {
        for service in self.kept.services.clone() {
            self.publish_service(now, &service);
        }
    }

    /// Takes back what an earlier run published and this one does not know: it died between the two writes of
    /// `service rm`.
    pub(super) fn take_back_lost_services(&mut self, now: Now) {
        let is_kept = |service: &record::Service| {
            let mut kept = self.kept.services.iter();
            kept.any(|kept| kept.name == service.service && kept.instance == service.instance)
        };
        let lost: Vec<record::Service> = self
            .registry
            .services_of(self.me)
            .map(|(_, service)| service.clone())
            .filter(|service| !is_kept(service))
            .collect();
        for mut service in lost {
            service.ports.clear();
            self.publish_own(now, Body::Service(service));
        }
    }

    fn publish_service(&mut self, now: Now, service: &Published) {
        self.publish_service_ports(now, service, &[encode_port(service)]);
    }

    fn fits_a_record(&self, now: Now, service: &Published) -> bool {
        let draft = record::Draft {
            seq: now.unix_ms.min(record::SEQ_END - 1),
            subject: self.me.0,
            signer: self.me.0,
            body: service_body(service, &[encode_port(service)]),
        };
        draft.sign_with(|_| [0; 64]).is_ok()
    }

    fn publish_service_ports(&mut self, now: Now, service: &Published, ports: &[u64]) {
        let body = service_body(service, ports);
        let held = self
            .registry
            .get(slot_of(Kind::Service, &self.me.0, &body.key()));
        if held.map(|held| &held.body) != Some(&body) {
            self.publish_own(now, body);
        }
    }

    pub(super) fn announce_splices(&mut self) {
        let splices = self.kept.services.iter().filter_map(|service| {
            let (target, listen_port) = (service.target?, service.splice_port?);
            Some(Splice {
                transport: service.transport,
                listen_port,
                target,
            })
        });
        self.outbox.push_back(Output::Splice(splices.collect()));
    }

    fn draw_splice_port(&mut self) -> Option<u16> {
        let taken: BTreeSet<u16> = self
            .kept
            .services
            .iter()
            .filter_map(|service| service.splice_port)
            .collect();
        draw_splice_port(self.rng.next_u32(), &taken)
    }

    /// Chooses the IPv4 address under which this host reaches a service of its own; kept over restarts.
    fn choose_vip(&mut self, service: &str) {
        let Some(plan) = self.members.plan() else {
            return;
        };
        if self.kept.vips.iter().any(|(name, _)| name == service) {
            return;
        }
        let taken: BTreeSet<Ipv4Addr> =
            self.kept.vips.iter().map(|(_, address)| *address).collect();
        if let Some(address) = choose_vip4(&plan, self.rng.next_u32(), &taken) {
            self.kept.vips.push((service.to_owned(), address));
        }
    }
}

fn is_service_name(name: &str) -> bool {
    label::parse_service(name).is_ok()
}

fn service_body(service: &Published, ports: &[u64]) -> Body {
    Body::Service(record::Service {
        service: service.name.clone(),
        instance: service.instance.clone(),
        ports: ports.to_vec(),
        spliced: service.target.is_some(),
        tags: Some(service.tags.clone()).filter(|tags| !tags.is_empty()),
        weight: Some(u64::from(service.weight)).filter(|weight| *weight != USUAL_WEIGHT),
        zone: None,
        meta: None,
    })
}

fn encode_port(service: &Published) -> u64 {
    u64::from(service.transport.number()) << 16 | u64::from(service.port)
}

fn decode_port(port: u64) -> Option<(Transport, u16)> {
    let number = u16::try_from(port & 0xffff)
        .ok()
        .filter(|number| *number != 0)?;
    match port >> 16 {
        6 => Some((Transport::Tcp, number)),
        17 => Some((Transport::Udp, number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hash::{Use, hash},
        ids::{Boot, NetworkId},
        keys::{NetSecret, NodeKey, RootSeed, TunnelKey},
        node::{Identity, Ipv4Use, Settings, founding},
        overlay::Limits,
        relay::grants::Willing,
        time::Moment,
    };

    fn now() -> Now {
        Now {
            at: Moment(1),
            unix_ms: 1_800_000_000_000,
        }
    }

    fn anna() -> Node {
        let now = now();
        let founding = founding::Founding {
            name: "home".into(),
            domain: "home.internal".into(),
            peer: "anna".into(),
            pool4: None,
            root: RootSeed([1; 16]),
            secret: NetSecret([2; 32]),
            admission: [3; 8],
        };
        let key = NodeKey::from_seed([4; 32]);
        let (network, restored): (NetworkId, _) = founding::found(now, founding, &key).unwrap();
        let identity = Identity {
            key,
            tunnel: TunnelKey::from_seed([5; 32]),
            boot: Boot([6; 8]),
        };
        let settings = Settings {
            seed: hash(Use::Network, &[b"seed"]),
            limits: Limits::EVERYONE,
            ipv4: Ipv4Use::On,
            streams: false,
            dns_tcp_port: 0,
            relay: Willing::Yes,
            transports: true,
            built_s: 0,
        };
        Node::new(now, network, identity, settings, restored)
    }

    /// What a file says: names with their ports.
    fn define(node: &mut Node, services: &[(&str, u16)]) -> Vec<Option<ServiceRefused>> {
        let wish = |(name, port): &(&str, u16)| ServiceWish {
            name: (*name).to_owned(),
            instance: None,
            transport: Transport::Tcp,
            port: *port,
            target: None,
            tags: Vec::new(),
            weight: 100,
            defined_in: Some("services.d/a.toml".to_owned()),
        };
        let wishes = services.iter().map(wish).collect();
        let outcomes = node.services_define(now(), wishes, |_| false);
        outcomes.into_iter().map(Result::err).collect()
    }

    /// What is published, as the network sees it.
    fn published(node: &Node) -> Vec<(String, u16)> {
        let instances = node.instances(now()).into_iter();
        instances
            .map(|instance| (instance.service, instance.ports[0].1))
            .collect()
    }

    #[test]
    fn files_may_rename_a_service_and_swap_ports_in_one_breath() {
        let mut node = anna();
        let is = |node: &Node, services: &[(&str, u16)]| {
            let services: Vec<(String, u16)> = services
                .iter()
                .map(|(name, port)| ((*name).to_owned(), *port))
                .collect();
            assert_eq!(published(node), services);
        };
        assert_eq!(define(&mut node, &[("web", 80)]), [None]);
        assert_eq!(define(&mut node, &[("shop", 80)]), [None]);
        is(&node, &[("shop", 80)]);
        assert_eq!(define(&mut node, &[("db", 81), ("shop", 80)]), [None, None]);
        assert_eq!(define(&mut node, &[("db", 80), ("shop", 81)]), [None, None]);
        is(&node, &[("db", 80), ("shop", 81)]);
        let taken = ServiceRefused::PortTaken {
            port: 81,
            service: "db".to_owned(),
        };
        let outcomes = define(&mut node, &[("db", 81), ("shop", 81)]);
        assert_eq!(outcomes, [None, Some(taken)], "one of two on one port");
        is(&node, &[("db", 81)]);
    }

    #[test]
    fn a_weight_of_nothing_is_refused() {
        let wish = ServiceWish {
            name: "web".into(),
            instance: None,
            transport: Transport::Tcp,
            port: 80,
            target: None,
            tags: Vec::new(),
            weight: 0,
            defined_in: None,
        };
        let refused = anna().service_add(now(), wish);
        assert_eq!(refused, Err(ServiceRefused::NoWeight));
    }

    #[test]
    fn a_service_whose_record_would_be_too_long_is_refused_and_nothing_changes() {
        let now = now();
        let mut node = anna();
        let wish = |tags: usize| ServiceWish {
            name: "web".into(),
            instance: None,
            transport: Transport::Tcp,
            port: 80,
            target: None,
            tags: (0..tags)
                .map(|tag| format!("a-tag-of-twenty-{tag:04}"))
                .collect(),
            weight: 100,
            defined_in: None,
        };
        let refused = node.service_add(now, wish(200)).unwrap_err();
        assert_eq!(refused, ServiceRefused::TooLong("web".into()));
        assert!(node.own_services().is_empty() && node.instances(now).is_empty());
        node.service_add(now, wish(2)).unwrap();
        assert_eq!(node.own_services().len(), 1);
    }
}
