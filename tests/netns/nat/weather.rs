//! What happens to sites: reboots, new addresses, moves, cuts, loss, narrow links.

use webmesh::demo::order::{INTERNET, Order};

use super::{
    internet::{Internet, Router, Site, v4},
    kind::Kind,
    rules::Nat,
};

impl Internet {
    /// The site's routers forget every flow, and give other ports from now on.
    pub(crate) fn reboot(&self, name: &str) {
        let routers = self.site(name).routers;
        self.stop(&routers);
        self.change(name, |nat| nat.generation += 1);
        self.start_anew(&routers);
    }

    /// Routers let nothing through: what came between the new rules and the forgotten flows would keep the old ports.
    fn stop(&self, routers: &[Router]) {
        for router in routers {
            self.sh(&router.name, STOP);
        }
    }

    /// They let it through again, and know of no flow.
    fn start_anew(&self, routers: &[Router]) {
        for router in routers {
            self.sh(&router.name, FORGET);
            self.sh(&router.name, START);
        }
    }

    /// The site's routers forget UDP flows that are silent for so long.
    pub(crate) fn forget_after(&self, name: &str, seconds: u32) {
        self.change(name, |nat| nat.forgets_after = seconds);
    }

    /// The site's routers let UDP through from now on.
    pub(crate) fn let_udp_out(&self, name: &str) {
        self.change(name, |nat| nat.udp = true);
    }

    /// Machines behind the site's outermost router reach each other by its outer address from now on.
    pub(crate) fn turn_hairpins(&self, name: &str) {
        self.change(name, |nat| nat.hairpin = true);
    }

    /// The provider gives the site other addresses, those of `number`; its link stays up.
    pub(crate) fn renumber(&self, name: &str, number: u8) {
        let mut site = self.site(name);
        let families = site.kind.families();
        let (plugged, link) = site.outermost(name);
        let plugged = plugged.to_owned();
        self.sh(
            INTERNET,
            &format!("ip route flush dev {plugged} scope link\nip -6 route flush dev {plugged} proto boot\n"),
        );
        self.sh(
            &plugged,
            &format!("ip addr flush dev {link} scope global\n"),
        );
        self.address(&plugged, link, number, families);
        if let Some(outermost) = site.routers.last_mut() {
            outermost.outer = v4(number).into();
        }
        if let (Some(inmost), true) = (site.routers.first(), families.v6) {
            let prefix = |number: u8| format!("2001:db8:1:{number:x}::");
            let (old, new) = (prefix(site.number), prefix(number));
            self.sh(
                &inmost.name,
                &format!("ip addr del {old}1/64 dev lan\nip addr add {new}1/64 dev lan nodad"),
            );
            self.sh(
                name,
                &format!(
                    "ip addr del {old}2/64 dev eth0\nip addr add {new}2/64 dev eth0 nodad\n\
                     ip -6 route replace default via {new}1"
                ),
            );
        }
        self.stop(&site.routers);
        for router in &site.routers {
            self.rule(router, families.v6);
        }
        self.start_anew(&site.routers);
        site.number = number;
        self.remember(name, site);
    }

    /// The machine is unplugged and plugged in again elsewhere: a laptop that goes to another home.
    pub(crate) fn move_to(&self, name: &str, kind: Kind, number: u8) {
        self.unplug(name);
        let guest = format!("{name}{number}");
        // The new home's router has a name of its own; what it is called decides nothing.
        self.connect_as(kind, name, &guest, number);
    }

    /// Takes the machine's cable away.
    pub(crate) fn unplug(&self, name: &str) {
        let order = Order::Unplug {
            at: name.to_owned(),
            link: "eth0".to_owned(),
        };
        self.net.lab().order(order).unwrap();
    }

    /// Nothing passes between the sites of two machines.
    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nothing passes from one site to the other; the way back is open.
    pub(crate) fn cut_one_way(&self, from: &str, to: &str) {
        let [source, target] = [from, to].map(|name| addresses(&self.site(name)));
        let mut rules = String::new();
        for family in [0, 1] {
            let word = ["ip", "ip6"][family];
            rules += &format!(
                "{word} saddr {{ {} }} {word} daddr {{ {} }} counter drop\n",
                source[family], target[family]
            );
        }
        self.in_the_way(&cut_name(from, to), &rules);
    }

    /// Undoes [`Internet::cut`] and [`Internet::cut_one_way`].
    pub(crate) fn mend(&self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            let name = cut_name(from, to);
            self.sh(
                INTERNET,
                &format!("nft -f - <<'END'\ntable inet {name}\ndelete table inet {name}\nEND"),
            );
        }
    }

    /// So many packets of a hundred are lost on the internet, each way.
    pub(crate) fn lose(&self, percent: u32) {
        self.part_trains();
        self.in_the_way(
            "loss",
            &format!("numgen random mod 100 < {percent} counter drop\n"),
        );
    }

    /// Datagrams go onto the internet one by one, as they leave a real network card, not in trains that are lost as one.
    pub(crate) fn part_trains(&self) {
        for (name, site) in self.sites.borrow().iter() {
            let (plugged, link) = site.outermost(name);
            self.sh(plugged, &format!("ip link set {link} gso_max_segs 1"));
        }
    }

    /// The site's link to the internet carries packets up to `mtu`, and says so.
    pub(crate) fn narrow(&self, name: &str, mtu: u32) {
        let site = self.site(name);
        let (plugged, link) = site.outermost(name);
        for (at, link) in [(plugged, link), (INTERNET, plugged)] {
            self.set_mtu(at, link, mtu);
        }
    }

    /// From now on the site's link drops what is longer than `mtu`, both ways, and nobody is told.
    pub(crate) fn shrink_silently(&self, name: &str, mtu: u32) {
        self.part_trains();
        let site = self.site(name);
        let (plugged, _) = site.outermost(name);
        // Both ends know how narrow it is, as the routers at a link do: they cut what may be cut, and drop the rest.
        for at in [INTERNET, plugged] {
            self.sh(
                at,
                "nft -f - <<'END'\ntable inet mute {\nchain out { type filter hook output priority filter;\n\
                 icmp type destination-unreachable drop\nicmpv6 type packet-too-big drop\n}\n}\nEND",
            );
        }
        self.narrow(name, mtu);
    }

    fn set_mtu(&self, at: &str, link: &str, mtu: u32) {
        let order = Order::Mtu {
            at: at.to_owned(),
            link: link.to_owned(),
            mtu,
        };
        self.net.lab().order(order).unwrap();
    }

    fn in_the_way(&self, table: &str, rules: &str) {
        self.sh(
            INTERNET,
            &format!(
                "nft -f - <<'END'\ntable inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
                 chain forward {{ type filter hook forward priority filter;\n{rules}}}\n}}\nEND"
            ),
        );
    }

    /// Changes all routers of a site and writes their rules anew.
    fn change(&self, name: &str, act: impl Fn(&mut Nat)) {
        let mut site = self.site(name);
        for Router { nat, .. } in &mut site.routers {
            act(nat);
        }
        for router in &site.routers {
            self.rule(router, site.kind.families().v6);
        }
        self.remember(name, site);
    }

    fn remember(&self, name: &str, site: Site) {
        self.sites.borrow_mut().insert(name.to_owned(), site);
    }
}

/// A site's addresses of each family, as nft writes a set.
fn addresses(site: &Site) -> [String; 2] {
    let number = site.number;
    [
        v4(number).to_string(),
        format!("2001:db8:0:{number:x}::/64, 2001:db8:1:{number:x}::/64"),
    ]
}

fn cut_name(from: &str, to: &str) -> String {
    format!("cut-{from}-{to}")
}

/// Before anything of a router looks at a packet.
const STOP: &str = "nft add table inet still\n\
     nft 'add chain inet still nothing { type filter hook prerouting priority raw; policy drop; }'";

const START: &str = "nft delete table inet still";

/// Empties conntrack, as a reboot does: one netlink request, for there need not be a `conntrack` program.
const FORGET: &str = "python3 -c \"
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.send(struct.pack('=IHHIIBBH', 20, 0x102, 5, 1, 0, 0, 0, 0))
assert struct.unpack_from('=i', s.recv(100), 16)[0] == 0
\"";
