//! The names there are, and what stands under each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::Name;
use ipnet::{Ipv4Net, Ipv6Net};

/// What a zone is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What all names end in, without a dot at the end.
    pub domain: String,
    /// Grows with every change.
    pub serial: u32,
    /// All of the network's IPv4.
    pub pool4: Ipv4Net,
    /// All of the network's IPv6, a /48.
    pub prefix6: Ipv6Net,
    /// The resolver's own addresses, which are the name server's.
    pub resolver4: Ipv4Addr,
    /// See `resolver4`.
    pub resolver6: Ipv6Addr,
    /// Whether this host can use the mesh's IPv4.
    pub family: Family,
    /// All peers that have names, this machine too.
    pub peers: Vec<Peer>,
    /// All services, also those without a live instance.
    pub services: Vec<Service>,
}

/// Which addresses are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both.
    #[default]
    Both,
    /// IPv6 alone: IPv4 does not come through here (design §3).
    V6Only,
}

/// A peer as names see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its issued name.
    pub name: String,
    /// Its issued IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// A service as names see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its live instances.
    pub instances: Vec<Instance>,
}

/// One live instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The instance's name.
    pub name: String,
    /// The name of the peer that serves; its addresses are the instance's.
    pub peer: String,
    /// How far the name reaches.
    pub scope: Scope,
    /// Other addresses than the peer's, where this host reaches a spliced service of its own (design §6).
    pub turned: Option<Turned>,
}

/// The addresses under which a host reaches a spliced service of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// In the IPv4 pool.
    pub v4: Option<Ipv4Addr>,
    /// In the IPv6 prefix.
    pub v6: Ipv6Addr,
}

/// How far an instance's name reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It serves under the service's name.
    Mesh,
    /// It is outside the peer's `offers`: it exists under the peer alone (design §4).
    PeerOnly,
}

/// The domain is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network's domain is no domain name")]
pub struct BadDomain;

/// Names and addresses of one network, ready to answer.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(super) domain: Name,
    pub(super) serial: u32,
    pub(super) family: Family,
    pool4: Ipv4Net,
    prefix6: Ipv6Net,
    forward: BTreeMap<String, Addresses>,
    reverse4: BTreeMap<Ipv4Addr, String>,
    reverse6: BTreeMap<Ipv6Addr, String>,
}

/// The addresses under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) v4: BTreeSet<Ipv4Addr>,
    pub(super) v6: BTreeSet<Ipv6Addr>,
}

/// What a zone holds under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding<'z> {
    /// Not our zone.
    Foreign,
    /// In the zone with this many labels at its top, and there is no such name.
    Nothing { apex: usize },
    /// The zone's own name.
    Apex { apex: usize },
    /// A name with addresses, perhaps none.
    Host {
        apex: usize,
        addresses: &'z Addresses,
    },
    /// A reverse name: the peer's or the name server's name under the domain.
    Pointer { apex: usize, name: &'z str },
    /// A name that only has names under it.
    Bough { apex: usize },
}

/// The name server's name, a reserved label (design §3).
pub(super) const SERVER: &str = "ns";

/// Names that exist even when nothing stands under them.
const BOUGHS: [&str; 2] = ["svc", "inst"];

impl Zone {
    /// Makes the zone. A peer, service or instance whose name is no label is left out.
    ///
    /// # Errors
    /// The domain is no domain name.
    pub fn new(facts: &Facts) -> Result<Self, BadDomain> {
        let mut domain = Name::from_ascii(facts.domain.to_ascii_lowercase()).or(Err(BadDomain))?;
        if domain.num_labels() == 0 || domain.len() > LONGEST_DOMAIN {
            return Err(BadDomain);
        }
        domain.set_fqdn(true);
        let mut zone = Self {
            domain,
            serial: facts.serial,
            family: facts.family,
            pool4: facts.pool4.trunc(),
            prefix6: facts.prefix6.trunc(),
            forward: BOUGHS
                .map(|name| (name.to_owned(), Addresses::default()))
                .into(),
            reverse4: BTreeMap::new(),
            reverse6: BTreeMap::new(),
        };
        zone.add_host(SERVER, Some(facts.resolver4), facts.resolver6);
        let peers: BTreeMap<&str, &Peer> = facts
            .peers
            .iter()
            .filter(|peer| is_label(&peer.name) && peer.name != SERVER)
            .map(|peer| (peer.name.as_str(), peer))
            .collect();
        for peer in peers.values() {
            zone.add_host(&peer.name, peer.v4, peer.v6);
        }
        for service in facts
            .services
            .iter()
            .filter(|service| is_label(&service.name))
        {
            zone.add_service(service, &peers);
        }
        Ok(zone)
    }

    /// The domain, without a dot at the end.
    pub fn domain(&self) -> String {
        self.domain.to_ascii().trim_end_matches('.').to_owned()
    }

    /// Grows with every change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    fn add_host(&mut self, name: &str, v4: Option<Ipv4Addr>, v6: Ipv6Addr) {
        let addresses = Addresses {
            v4: v4.into_iter().collect(),
            v6: [v6].into(),
        };
        self.forward.insert(name.to_owned(), addresses);
        if let Some(v4) = v4 {
            self.reverse4.insert(v4, name.to_owned());
        }
        self.reverse6.insert(v6, name.to_owned());
    }

    fn add_service(&mut self, service: &Service, peers: &BTreeMap<&str, &Peer>) {
        let name = &service.name;
        let in_mesh = |instance: &Instance| instance.scope == Scope::Mesh;
        if service.instances.is_empty() || service.instances.iter().any(in_mesh) {
            self.forward.entry(format!("{name}.svc")).or_default();
            self.forward.entry(format!("{name}.inst")).or_default();
        }
        for instance in &service.instances {
            let Some(peer) = peers.get(instance.peer.as_str()) else {
                continue;
            };
            let mut owners = vec![format!("{name}.{}", peer.name)];
            if in_mesh(instance) {
                owners.extend([format!("{name}.svc"), format!("{name}.inst")]);
                owners.extend(
                    is_label(&instance.name).then(|| format!("{}.{name}.inst", instance.name)),
                );
            }
            for owner in owners {
                let (v4, v6) = instance
                    .turned
                    .map_or((peer.v4, peer.v6), |turned| (turned.v4, turned.v6));
                let addresses = self.forward.entry(owner).or_default();
                addresses.v4.extend(v4);
                addresses.v6.insert(v6);
            }
        }
    }

    /// What stands under a name, given as its lower-case labels from the left.
    pub(super) fn holding(&self, labels: &[&[u8]]) -> Holding<'_> {
        let apex = usize::from(self.domain.num_labels());
        if ends_with(labels, self.domain.iter()) {
            return self.forward_holding(&labels[..labels.len() - apex], apex);
        }
        if ends_with(labels, [&b"in-addr"[..], b"arpa"].into_iter()) {
            return self.holding4(&labels[..labels.len() - 2]);
        }
        if ends_with(labels, [&b"ip6"[..], b"arpa"].into_iter()) {
            return self.holding6(&labels[..labels.len() - 2]);
        }
        Holding::Foreign
    }

    fn forward_holding(&self, labels: &[&[u8]], apex: usize) -> Holding<'_> {
        if labels.is_empty() {
            return Holding::Apex { apex };
        }
        let Some(name) = plain(labels) else {
            return Holding::Nothing { apex };
        };
        if let Some(addresses) = self.forward.get(&name) {
            return Holding::Host { apex, addresses };
        }
        Holding::Nothing { apex }
    }

    fn holding4(&self, reversed: &[&[u8]]) -> Holding<'_> {
        let bits = self.pool4.prefix_len();
        let top = usize::from(bits.div_ceil(8));
        let apex = top + 2;
        let octets: Vec<Option<u8>> = reversed
            .iter()
            .rev()
            .take(4)
            .map(|label| octet(label))
            .collect();
        let Some(first) = octets
            .get(..top)
            .and_then(|top| top.iter().copied().collect::<Option<Vec<u8>>>())
        else {
            return Holding::Foreign;
        };
        let mut low = [0; 4];
        low[..top].copy_from_slice(&first);
        if !self.pool4.contains(&Ipv4Addr::from(low)) {
            return Holding::Foreign;
        }
        if reversed.len() == top {
            return Holding::Apex { apex };
        }
        let Some(whole) = octets
            .into_iter()
            .collect::<Option<Vec<u8>>>()
            .filter(|_| reversed.len() <= 4)
        else {
            return Holding::Nothing { apex };
        };
        low[..whole.len()].copy_from_slice(&whole);
        let mut high = [255; 4];
        high[..whole.len()].copy_from_slice(&whole);
        let mut under = self
            .reverse4
            .range(Ipv4Addr::from(low)..=Ipv4Addr::from(high));
        pointer(under.next().map(|(_, name)| name), whole.len() == 4, apex)
    }

    fn holding6(&self, reversed: &[&[u8]]) -> Holding<'_> {
        let top = usize::from(self.prefix6.prefix_len().div_ceil(4));
        let apex = top + 2;
        let digits: Vec<Option<u8>> = reversed
            .iter()
            .rev()
            .take(32)
            .map(|label| nibble(label))
            .collect();
        let known = digits.iter().take_while(|digit| digit.is_some()).count();
        let low = from_nibbles(&digits, 0);
        if known < top || !self.prefix6.contains(&low) {
            return Holding::Foreign;
        }
        if reversed.len() == top {
            return Holding::Apex { apex };
        }
        if known < reversed.len() {
            return Holding::Nothing { apex };
        }
        let mut under = self.reverse6.range(low..=from_nibbles(&digits, 15));
        pointer(under.next().map(|(_, name)| name), known == 32, apex)
    }
}

/// The longest domain, so that any `<instance>.<service>.inst.<domain>` still is a name: 255 − 2 × 64 − 5.
const LONGEST_DOMAIN: usize = 122;

fn pointer(found: Option<&String>, is_whole: bool, apex: usize) -> Holding<'_> {
    match found {
        Some(name) if is_whole => Holding::Pointer { apex, name },
        Some(_) => Holding::Bough { apex },
        None => Holding::Nothing { apex },
    }
}

fn ends_with<'a>(labels: &[&[u8]], tail: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    let Some(start) = labels.len().checked_sub(tail.len()) else {
        return false;
    };
    labels[start..].iter().copied().eq(tail)
}

/// The labels joined by dots, if none of them holds a dot or anything else that our names never hold.
fn plain(labels: &[&[u8]]) -> Option<String> {
    let mut name = String::new();
    for label in labels {
        let text = std::str::from_utf8(label)
            .ok()
            .filter(|text| is_label(text))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(text);
    }
    Some(name)
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_edged = text.starts_with('-') || text.ends_with('-');
    (1..=63).contains(&text.len()) && !is_edged && text.bytes().all(inside)
}

/// One octet of a reverse name, written as it must be: no zeros before it.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let value: u8 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit @ (b'0'..=b'9' | b'a'..=b'f')] = label else {
        return None;
    };
    char::from(*digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The address that begins with these digits; missing ones are `fill`.
fn from_nibbles(digits: &[Option<u8>], fill: u8) -> Ipv6Addr {
    let bits = (0..32).fold(0_u128, |bits, i| {
        let digit = digits.get(i).copied().flatten().unwrap_or(fill);
        bits << 4 | u128::from(digit)
    });
    Ipv6Addr::from_bits(bits)
}
