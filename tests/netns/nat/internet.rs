//! The internet as a router, and who is plugged in where.
//!
//! 203.0.113.`n` and 2001:db8:0:`n`::/64 are the site `n`; behind its router lie 192.168.1.0/24, for all the same,
//! and 2001:db8:1:`n`::/64. No two sites share a link: whoever looks for neighbours finds none. The addresses from
//! 203.0.113.64 to .127 belong to one machine that plays the DHT.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    process::{Child, Stdio},
};

use webmesh::demo::{
    lab::Machine,
    order::{INTERNET, Order, Plug},
};

use super::{
    kind::{Families, Kind},
    rules::{FIREWALL6, MAPPED, MAPPER, Nat},
};
use crate::harness::{Net, Peer, text};

/// An internet with its sites, and the agents in their machines.
pub(crate) struct Internet {
    pub(crate) net: Net,
    pub(super) sites: RefCell<BTreeMap<String, Site>>,
    /// What runs on routers.
    programs: RefCell<Vec<Child>>,
}

/// Where a machine is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) kind: Kind,
    pub(super) number: u8,
    /// From the machine outwards.
    pub(super) routers: Vec<Router>,
}

#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) name: String,
    pub(super) nat: Nat,
    pub(super) outer: IpAddr,
}

/// One end of a LAN: who gives it, and the last byte of the machine in it.
pub(super) struct Seat<'a> {
    pub(super) router: &'a str,
    pub(super) number: u8,
    pub(super) host: u8,
    pub(super) families: Families,
}

impl Internet {
    pub(crate) fn new() -> Self {
        let internet = Self {
            net: Net::empty(),
            sites: RefCell::default(),
            programs: RefCell::default(),
        };
        internet.sh(INTERNET, FORWARD);
        internet
    }

    /// A machine behind a middlebox of this kind, without an agent.
    pub(crate) fn place(&self, kind: Kind, name: &str, number: u8) -> Machine {
        let machine = self.net.lab().machine(name).unwrap();
        self.sh(name, HOST);
        self.connect(kind, name, number);
        machine
    }

    /// A machine behind a middlebox of this kind, with a running agent.
    pub(crate) fn settle(&mut self, kind: Kind, name: &str, number: u8) {
        self.settle_with(kind, name, number, "");
    }

    /// The same with a configuration.
    pub(crate) fn settle_with(&mut self, kind: Kind, name: &str, number: u8, config: &str) {
        let machine = self.place(kind, name, number);
        std::fs::write(machine.directory.join("config.toml"), config).unwrap();
        self.net.add(machine);
    }

    /// Another machine in the LAN of `neighbour`, behind the same routers.
    pub(crate) fn place_beside(&self, neighbour: &str, name: &str) -> Machine {
        let machine = self.net.lab().machine(name).unwrap();
        self.sh(name, HOST);
        let site = self.site(neighbour);
        let router = &site.routers.first().expect("a LAN has a router").name;
        self.sit(
            name,
            &Seat {
                router,
                number: site.number,
                host: 3,
                families: site.kind.families(),
            },
        );
        self.sites.borrow_mut().insert(name.to_owned(), site);
        machine
    }

    /// The same with a running agent.
    pub(crate) fn settle_beside(&mut self, neighbour: &str, name: &str) {
        let machine = self.place_beside(neighbour, name);
        self.net.add(machine);
    }

    /// Another home with a running agent, behind the same carrier as `neighbour`'s.
    pub(crate) fn settle_under(&mut self, neighbour: &str, name: &str) {
        let machine = self.net.lab().machine(name).unwrap();
        self.sh(name, HOST);
        let mut site = self.site(neighbour);
        let families = site.kind.families();
        let home = Router {
            name: format!("home-{name}"),
            nat: site.routers[0].nat,
            outer: Ipv4Addr::from(u32::from(CARRIED) + 1).into(),
        };
        self.build(&home.name, 0, site.number, families);
        self.carry(&home, &site.routers[1]);
        self.rule(&home, families.v6);
        let seat = Seat {
            router: &home.name,
            number: site.number,
            host: 2,
            families,
        };
        self.sit(name, &seat);
        site.routers[0] = home;
        self.sites.borrow_mut().insert(name.to_owned(), site);
        self.net.add(machine);
    }

    /// A machine that owns 203.0.113.64/26, and the addresses for nodes of a DHT; each can be bound to.
    pub(crate) fn slots(&self) -> (Machine, Vec<Ipv4Addr>) {
        let machine = self.place(Kind::Public, "dht", 64);
        self.sh(
            INTERNET,
            "ip route add 203.0.113.64/26 dev dht src 203.0.113.1",
        );
        self.sh("dht", "ip route add local 203.0.113.64/26 dev lo");
        (machine, (65..=126).map(v4).collect())
    }

    pub(crate) fn peer(&self, name: &str) -> &Peer {
        self.net.peer(name)
    }

    /// Runs a script in a machine, a router, or on the internet; it must not fail.
    pub(super) fn sh(&self, at: &str, script: &str) -> String {
        let lab = self.net.lab();
        let mut command = if at == INTERNET {
            lab.on_the_wire("sh").unwrap()
        } else {
            let machines = lab.machines();
            let found = machines.iter().find(|machine| machine.name == at);
            found.unwrap().command("sh").unwrap()
        };
        let output = command.args(["-ec", script]).output().unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{at}: {script}\n{said}");
        said
    }

    pub(super) fn site(&self, name: &str) -> Site {
        let sites = self.sites.borrow();
        let site = sites.get(name).cloned();
        site.unwrap_or_else(|| panic!("{name} has no site"))
    }

    /// Builds a site's routers and plugs the machine in.
    fn connect(&self, kind: Kind, name: &str, number: u8) {
        self.connect_as(kind, name, name, number);
    }

    /// The same, with routers named after `home`.
    pub(super) fn connect_as(&self, kind: Kind, name: &str, home: &str, number: u8) {
        let mut routers: Vec<Router> = Vec::new();
        let nats = kind.routers();
        let depth = nats.len();
        for (place, nat) in nats.into_iter().enumerate() {
            let router = Router {
                name: format!("{}-{home}", ["home", "isp"][place]),
                nat,
                outer: if place + 1 == depth {
                    v4(number).into()
                } else {
                    CARRIED.into()
                },
            };
            self.build(&router.name, place, number, kind.families());
            routers.push(router);
        }
        if let [inner, outer] = routers.as_slice() {
            self.carry(inner, outer);
        }
        match routers.last() {
            Some(outermost) => self.onto_wire(&outermost.name, "wan", number, kind.families()),
            None => self.onto_wire(name, "eth0", number, kind.families()),
        }
        for router in &routers {
            self.rule(router, kind.families().v6);
            if router.nat.maps {
                self.map_ports(&router.name);
            }
        }
        if let Some(inmost) = routers.first() {
            let seat = Seat {
                router: &inmost.name,
                number,
                host: 2,
                families: kind.families(),
            };
            self.sit(name, &seat);
        }
        let site = Site {
            kind,
            number,
            routers,
        };
        self.sites.borrow_mut().insert(name.to_owned(), site);
    }

    /// Writes a router's rules anew; what it knew of ports is gone with them.
    pub(super) fn rule(&self, router: &Router, has_v6: bool) {
        let mut rules = router.nat.table(router.outer);
        if has_v6 {
            rules.push_str(FIREWALL6);
        }
        let forget = router.nat.forgets_after;
        self.sh(
            &router.name,
            &format!(
                "nft -f - <<'END'\n{rules}END\n\
                 echo {forget} > /proc/sys/net/netfilter/nf_conntrack_udp_timeout\n\
                 echo {forget} > /proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"
            ),
        );
    }

    /// Starts on a router what opens ports.
    fn map_ports(&self, name: &str) {
        self.sh(
            name,
            &format!("nft -f - <<'END'\n{MAPPED}END\ncat > mapper.conf <<'END'\n{MAPPER}END\n"),
        );
        let machines = self.net.lab().machines();
        let router = machines.iter().find(|machine| machine.name == name);
        let mut mapper = router.unwrap().command("miniupnpd").unwrap();
        let log = std::fs::File::create(router.unwrap().directory.join("mapper.log")).unwrap();
        mapper.args(["-d", "-f", "mapper.conf", "-P", "mapper.pid"]);
        mapper.stdout(Stdio::null()).stderr(log);
        self.programs.borrow_mut().push(mapper.spawn().unwrap());
    }

    /// Puts a machine into a LAN.
    pub(super) fn sit(&self, name: &str, seat: &Seat<'_>) {
        self.cable(name, "eth0", seat.router, name, Some("lan"));
        let (number, host) = (seat.number, seat.host);
        let mut script = String::new();
        if seat.families.v4 {
            script += &format!(
                "ip addr add 192.168.1.{host}/24 dev eth0\nip route add default via 192.168.1.1\n"
            );
        }
        if seat.families.v6 {
            script += &format!(
                "ip addr add 2001:db8:1:{number:x}::{host}/64 dev eth0 nodad\n\
                 ip -6 route add default via 2001:db8:1:{number:x}::1\n"
            );
        }
        self.sh(name, &script);
    }

    /// A router with nothing outside yet; `place` 0 is a home's, 1 a carrier's.
    fn build(&self, name: &str, place: usize, number: u8, families: Families) {
        self.net.lab().machine(name).unwrap();
        self.net
            .lab()
            .order(Order::Bridge {
                at: name.to_owned(),
                name: "lan".to_owned(),
            })
            .unwrap();
        let lan = if place == 0 {
            Ipv4Addr::new(192, 168, 1, 1)
        } else {
            CARRIER
        };
        let mut script = format!("{HOST}\n{FORWARD}\n{SWITCH}\n");
        if families.v4 {
            script += &format!("ip addr add {lan}/24 dev lan\n");
        }
        if families.v6 {
            script += &format!("ip addr add 2001:db8:1:{number:x}::1/64 dev lan nodad\n");
        }
        self.sh(name, &script);
    }

    /// Plugs a home's router into its carrier's.
    fn carry(&self, home: &Router, carrier: &Router) {
        self.cable(&home.name, "wan", &carrier.name, &home.name, Some("lan"));
        let outer = home.outer;
        self.sh(
            &home.name,
            &format!("ip addr add {outer}/24 dev wan\nip route add default via {CARRIER} dev wan"),
        );
    }

    /// Plugs a machine or a router into the internet, whose end of the cable has its name.
    fn onto_wire(&self, name: &str, link: &str, number: u8, families: Families) {
        self.cable(name, link, INTERNET, name, None);
        self.address(name, link, number, families);
    }

    /// Gives a plugged-in machine the addresses of a site.
    pub(super) fn address(&self, name: &str, link: &str, number: u8, families: Families) {
        let (mut there, mut here) = (String::new(), String::new());
        if families.v4 {
            let own = v4(number);
            there += &format!("ip route add {own}/32 dev {name} src {GATEWAY}\n");
            here += &format!(
                "ip addr add {own}/32 dev {link}\nip route replace default via {GATEWAY} dev {link} onlink\n"
            );
        }
        if families.v6 {
            let own = format!("2001:db8:0:{number:x}");
            there += &format!(
                "ip addr replace fe80::1/64 dev {name} nodad\nip -6 route add {own}::/64 dev {name}\n\
                 ip -6 route add 2001:db8:1:{number:x}::/64 via {own}::1 dev {name}\n"
            );
            here += &format!(
                "ip addr add {own}::1/64 dev {link} nodad\nip -6 route replace default via fe80::1 dev {link}\n"
            );
        }
        self.sh(INTERNET, &there);
        self.sh(name, &here);
    }

    fn cable(&self, at: &str, link: &str, far: &str, far_link: &str, bridge: Option<&str>) {
        let plug = |at: &str, link: &str, bridge: Option<&str>| Plug {
            at: at.to_owned(),
            link: link.to_owned(),
            bridge: bridge.map(str::to_owned),
        };
        let order = Order::Cable {
            near: plug(at, link, None),
            far: plug(far, far_link, bridge),
        };
        self.net.lab().order(order).unwrap();
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for program in self.programs.get_mut() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

impl Site {
    /// What of this site is plugged into the internet.
    pub(super) fn outermost<'a>(&'a self, machine: &'a str) -> (&'a str, &'static str) {
        match self.routers.last() {
            Some(router) => (&router.name, "wan"),
            None => (machine, "eth0"),
        }
    }
}

/// A site's public address. Those from 192 on are none of documentation: with such a one `miniupnpd` opens no port.
pub(crate) fn v4(number: u8) -> Ipv4Addr {
    match number {
        192.. => Ipv4Addr::new(11, 0, 0, number),
        _ => Ipv4Addr::new(203, 0, 113, number),
    }
}

/// The internet's own address, everybody's gateway.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Both ends of the link between a carrier and a home.
const CARRIER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const CARRIED: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

const FORWARD: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward\n\
                       echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n\
                       echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects\n\
                       echo 0 > /proc/sys/net/ipv4/conf/default/send_redirects";
/// Where the host has loaded br_netfilter, as Docker does, neighbours in a LAN would pass the router's rules.
const SWITCH: &str =
    "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || echo 0 > $file; done";
/// Addresses are used at once, as on a link that is up for long. TCP is the same on every machine: the one that each kernel
/// has and lets namespaces choose; at the round trips of a lab cubic is no other (RFC 9438 §4.3).
const HOST: &str = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad\n\
                    echo reno > /proc/sys/net/ipv4/tcp_congestion_control";
