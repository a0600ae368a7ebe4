//! One router's NAT and filter, as text for `nft`.
//!
//! A real router takes nothing unasked on its WAN side, not even for itself: without that rule a packet that comes
//! early confirms a conntrack entry, and the one that goes out later is given another port.

use std::net::IpAddr;

/// How a router translates IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nat {
    pub(crate) mapping: Mapping,
    pub(crate) filter: Filter,
    /// Whether two machines inside reach each other by its outer address. Only [`Mapping::Independent`] can.
    pub(crate) hairpin: bool,
    pub(crate) udp: bool,
    /// Whether machines inside may have ports opened for them.
    pub(crate) maps: bool,
    /// Seconds after which a silent UDP flow is forgotten.
    pub(crate) forgets_after: u32,
    /// Counts reboots: each gives other ports.
    pub(crate) generation: u32,
}

/// Which outer port an inner one gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The same for all destinations, another number than the inner one.
    Independent,
    /// The inner one where it is free.
    Preserving,
    /// A new one for every destination.
    PerFlow,
}

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    None,
    Address,
    AddressAndPort,
    /// The flow's other end, as conntrack has it.
    Flow,
}

impl Nat {
    pub(crate) fn new(mapping: Mapping, filter: Filter) -> Self {
        Self {
            mapping,
            filter,
            hairpin: false,
            udp: true,
            maps: false,
            forgets_after: 120,
            generation: 0,
        }
    }

    /// The table for a router with this outer address; links `wan` and `lan`. It replaces the one that is there.
    pub(super) fn table(&self, outer: IpAddr) -> String {
        let body = match self.mapping {
            Mapping::Independent => self.independent(outer),
            Mapping::Preserving => {
                // After a reboot the first range of a thousand ports is another one.
                let port = match self.generation {
                    0 => String::new(),
                    count => format!(" to :{}-{}", 20000 + count * 1000, 20999 + count * 1000),
                };
                format!(
                    "chain post {{ type nat hook postrouting priority srcnat;\n\
                     oifname \"wan\" meta l4proto udp masquerade{port}\noifname \"wan\" masquerade\n}}"
                )
            }
            Mapping::PerFlow => "chain post { type nat hook postrouting priority srcnat;\n\
                                 oifname \"wan\" masquerade random,fully-random\n}"
                .to_owned(),
        };
        let mut forward = match (self.udp, self.mapping) {
            (false, _) => "meta l4proto udp drop\n",
            // Chain `early` has judged it.
            (true, Mapping::Independent) => "iifname \"wan\" meta l4proto udp accept\n",
            (true, Mapping::Preserving | Mapping::PerFlow) => "",
        }
        .to_owned();
        if self.maps {
            forward += "iifname \"wan\" ct status dnat accept\n";
        }
        format!(
            "table ip router\ndelete table ip router\ntable ip router {{\n{body}\n\
             chain input {{ type filter hook input priority filter;\n{ANSWERS}}}\n\
             chain forward {{ type filter hook forward priority filter;\n{forward}{ANSWERS}}}\n}}\n"
        )
    }

    /// A map from outer ports to inner ends, and, unless everybody may answer, the set of who was asked: conntrack
    /// alone would let in nobody but the first destination.
    fn independent(&self, outer: IpAddr) -> String {
        let forget = self.forgets_after;
        let seed = self.generation + 1;
        let outside =
            format!("{outer} : jhash ip saddr . udp sport mod 20000 seed {seed} offset 30000");
        let (asked, ask, judge) = match self.filter {
            Filter::None | Filter::Flow => (String::new(), String::new(), String::new()),
            Filter::Address => filter(forget, "ipv4_addr . inet_service", "daddr .", "saddr ."),
            Filter::AddressAndPort => filter(
                forget,
                "ipv4_addr . inet_service . inet_service",
                "daddr . udp dport .",
                "saddr . udp sport .",
            ),
        };
        let (turn, turned) = match self.hairpin {
            true => (
                format!(
                    "iifname \"lan\" ip daddr {outer} meta l4proto udp dnat to udp dport map @inner\n"
                ),
                format!(
                    "oifname \"lan\" ip saddr {{ 192.168.1.0/24, 100.64.0.0/24 }} meta l4proto udp snat to {outside}\n"
                ),
            ),
            false => Default::default(),
        };
        let side = if self.hairpin {
            "{ \"wan\", \"lan\" }"
        } else {
            "\"wan\""
        };
        format!(
            "map inner {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout {forget}s; size 65536; }}\n\
             {asked}\
             chain early {{ type filter hook prerouting priority -110;\n{judge}}}\n\
             chain pre {{ type nat hook prerouting priority dstnat;\n\
             iifname \"wan\" meta l4proto udp dnat to udp dport map @inner\n{turn}}}\n\
             chain post {{ type nat hook postrouting priority srcnat;\n\
             oifname \"wan\" meta l4proto udp snat to {outside}\n\
             oifname \"wan\" snat to {outer}\n{turned}}}\n\
             chain late {{ type filter hook postrouting priority 150;\n\
             oifname {side} ip saddr {outer} meta l4proto udp ct direction original update @inner {{ udp sport : ct original ip saddr . ct original proto-src }}\n\
             oifname {side} ip saddr {outer} meta l4proto udp ct direction reply update @inner {{ udp sport : ct reply ip saddr . ct reply proto-src }}\n\
             {ask}}}"
        )
    }
}

/// The set of who was asked, what fills it, and what it lets in.
fn filter(forget: u32, kind: &str, asked: &str, asking: &str) -> (String, String, String) {
    (
        format!(
            "set asked {{ type {kind}; flags dynamic,timeout; timeout {forget}s; size 65536; }}\n"
        ),
        format!("oifname \"wan\" meta l4proto udp update @asked {{ ip {asked} udp sport }}\n"),
        format!(
            "iifname \"wan\" meta l4proto udp ip {asking} udp dport @asked accept\niifname \"wan\" meta l4proto udp drop\n"
        ),
    )
}

/// A stateful firewall for a router's LAN, which has addresses of its own.
pub(super) const FIREWALL6: &str = "table ip6 router\ndelete table ip6 router\ntable ip6 router {\n\
     chain input { type filter hook input priority filter;\n\
     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n\
     iifname \"wan\" ct state established,related accept\niifname \"wan\" drop\n}\n\
     chain forward { type filter hook forward priority filter;\n\
     iifname \"wan\" ct state established,related accept\niifname \"wan\" drop\n}\n}\n";

/// The tables that `miniupnpd` fills when ports are asked for.
pub(super) const MAPPED: &str = "table inet filter {\n\
     chain forward { type filter hook forward priority filter; jump miniupnpd\n}\n\
     chain miniupnpd {\n}\n\
     chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd\n}\n\
     chain prerouting_miniupnpd {\n}\n\
     chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd\n}\n\
     chain postrouting_miniupnpd {\n}\n}\n";

/// What `miniupnpd` is told.
pub(super) const MAPPER: &str = "ext_ifname=wan\nlistening_ip=lan\nhttp_port=5000\nenable_natpmp=yes\nenable_upnp=yes\n\
     secure_mode=yes\nmin_lifetime=120\nmax_lifetime=86400\nuuid=fc4ec57e-b051-11db-88f8-0060085db3f6\n\
     allow 1024-65535 0.0.0.0/0 1024-65535\n";

const ANSWERS: &str = "iifname \"wan\" ct state established,related accept\niifname \"wan\" drop\n";
