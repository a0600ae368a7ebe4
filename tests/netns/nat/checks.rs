//! The lab judged by itself, with tiny probes and no agents.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use webmesh::demo::lab::Machine;

use super::{
    internet::{Internet, v4},
    kind::{Kind, Theory},
    probe::{Probe, SOON},
};
use crate::harness::sample;

#[test]
fn each_kind_maps_and_filters_as_it_is_called() {
    let internet = Internet::new();
    let [asked, other] = [20, 21].map(|number| {
        let machine = internet.place(Kind::Public, &format!("s{number}"), number);
        (machine, SocketAddr::from((v4(number), 3478)))
    });
    let mut server = Probe::open(&asked.0, 3478);
    let mut second = Probe::open(&asked.0, 3479);
    let mut third = Probe::open(&other.0, 3478);
    // Whether the port is the same for two destinations, whether it is the inner one, and who may answer beside the
    // one that was asked: another port of it, another machine.
    for (number, kind, mapping, filter) in [
        (30, Kind::Public, [true, true], [true, true]),
        (31, Kind::FullCone, [true, false], [true, true]),
        (32, Kind::AddressRestricted, [true, false], [true, false]),
        (33, Kind::PortRestricted, [true, false], [false, false]),
        (34, Kind::Plain, [true, true], [false, false]),
        (35, Kind::Symmetric, [false, false], [false, false]),
        (36, Kind::Cgnat, [true, false], [false, false]),
        (37, Kind::Firewalled6, [true, true], [false, false]),
    ] {
        let machine = internet.place(kind, &format!("m{number}"), number);
        let mut inside = Probe::open(&machine, 41820);
        let seen = inside.seen_by(&mut server, asked.1);
        assert_eq!(seen.ip(), IpAddr::from(v4(number)), "{kind:?}");
        assert!(server.reaches(&mut inside, seen), "{kind:?}: an answer");
        let answered = [&mut second, &mut third].map(|from| from.reaches(&mut inside, seen));
        assert_eq!(answered, filter, "{kind:?}: who may answer");
        let again = inside.seen_by(&mut third, other.1);
        let found = [seen == again, seen.port() == 41820];
        assert_eq!(found, mapping, "{kind:?}: {seen} {again}");
    }
    let blocked = internet.place(Kind::UdpBlocked, "m38", 38);
    let mut inside = Probe::open(&blocked, 41820);
    assert_eq!(inside.seen_at_once_by(&mut server, asked.1), None);
    let has_tcp = "python3 -c 'import socket; socket.create_connection((\"203.0.113.20\", 22), 2)' 2>&1 || true";
    assert!(
        internet.sh("m38", has_tcp).contains("refused"),
        "TCP goes through"
    );
}

#[test]
fn who_can_punch_is_as_theory_says() {
    let internet = Internet::new();
    let meeting = internet.place(Kind::Public, "meeting", 10);
    let mut server = Probe::open(&meeting, 3478);
    let build = |from: u8, letter: char| -> Vec<(Kind, Machine)> {
        let kinds = [&Kind::MATRIX[..], &[Kind::Firewalled6]].concat();
        (from..)
            .zip(kinds)
            .map(|(number, kind)| {
                (
                    kind,
                    internet.place(kind, &format!("{letter}{number}"), number),
                )
            })
            .collect()
    };
    let (ones, others) = (build(20, 'a'), build(40, 'b'));
    let mut port = 42000;
    for (row, one) in ones.iter().enumerate() {
        for (column, other) in others.iter().enumerate().skip(row) {
            // Without all of them each kind still meets itself and its neighbour.
            if sample(2, u32::MAX) as usize <= column - row && !is_telling(one.0, other.0) {
                continue;
            }
            port += 1;
            let is_direct = punch(&mut server, [&one.1, &other.1], port);
            let theory = one.0.theory(other.0);
            assert_eq!(
                is_direct,
                theory == Theory::Direct,
                "{:?} × {:?}: {theory:?}",
                one.0,
                other.0
            );
        }
    }
}

/// Pairs far from each other in the matrix that are worth a second.
fn is_telling(one: Kind, other: Kind) -> bool {
    one == Kind::Public || [one, other] == [Kind::AddressRestricted, Kind::Symmetric]
}

/// Whether two machines reach each other when both know how a third sees the other, send at once, and answer where
/// something came from.
fn punch(server: &mut Probe, machines: [&Machine; 2], port: u16) -> bool {
    let mut probes = machines.map(|machine| Probe::open(machine, port));
    let meeting = [
        SocketAddr::from((v4(10), 3478)),
        SocketAddr::from((site6(10), 3478)),
    ];
    let seen = probes.each_mut().map(|probe| {
        meeting
            .into_iter()
            .filter_map(|meeting| probe.seen_at_once_by(server, meeting))
            .collect::<Vec<_>>()
    });
    let [one, other] = &mut probes;
    for _ in 0..2 {
        for (from, to) in [(&mut *one, &seen[1]), (&mut *other, &seen[0])] {
            for address in to {
                from.send(*address, "punch");
            }
        }
    }
    // Whoever heard something answers to where it came from; the other hears that.
    while let Some(heard) = other.receive(SOON / 3) {
        if other.reaches_as(one, heard.from, "answer") {
            return true;
        }
    }
    while let Some(heard) = one.receive(SOON / 3) {
        if heard.text == "punch" && one.reaches_as(other, heard.from, "answer") {
            return true;
        }
    }
    false
}

#[test]
fn a_router_forgets_silent_flows_and_after_a_reboot_all_of_them() {
    for kind in [Kind::Plain, Kind::PortRestricted, Kind::Cgnat] {
        let internet = Internet::new();
        let outside = internet.place(Kind::Public, "vps", 10);
        let inside = internet.place(kind, "anna", 20);
        internet.forget_after("anna", 2);
        let to = SocketAddr::from((v4(10), 3478));
        let (mut outside, mut inside) = (Probe::open(&outside, 3478), Probe::open(&inside, 41820));
        let seen = inside.seen_by(&mut outside, to);
        for _ in 0..3 {
            // What goes out keeps the flow.
            assert_eq!(inside.receive(Duration::from_secs(1)), None);
            assert_eq!(inside.seen_by(&mut outside, to), seen);
        }
        assert!(outside.reaches(&mut inside, seen));
        assert_eq!(inside.receive(Duration::from_millis(3500)), None);
        assert!(!outside.reaches(&mut inside, seen), "{kind:?} forgot");

        internet.forget_after("anna", 120);
        let before = inside.seen_by(&mut outside, to);
        internet.reboot("anna");
        assert!(
            !outside.reaches(&mut inside, before),
            "{kind:?}: gone with the reboot"
        );
        let after = inside.seen_by(&mut outside, to);
        assert_eq!(after.ip(), before.ip());
        assert_ne!(after.port(), before.port(), "{kind:?}");
        assert!(outside.reaches(&mut inside, after));
    }
}

#[test]
fn a_site_gets_another_address_and_a_machine_another_home() {
    let internet = Internet::new();
    let outside = internet.place(Kind::Public, "vps", 10);
    let mut outside = Probe::open(&outside, 3478);
    for (number, kind) in [
        (20, Kind::Public),
        (21, Kind::Plain),
        (22, Kind::FullCone),
        (23, Kind::Cgnat),
        (24, Kind::Firewalled6),
        (25, Kind::Only6),
    ] {
        let name = format!("m{number}");
        let machine = internet.place(kind, &name, number);
        let mut inside = Probe::open(&machine, 41820);
        let families = kind.families();
        for new in [number, number + 20] {
            if new != number {
                internet.renumber(&name, new);
            }
            if families.v4 {
                let seen = inside.seen_by(&mut outside, (v4(10), 3478).into());
                assert_eq!(seen.ip(), IpAddr::from(v4(new)), "{kind:?}");
                assert!(outside.reaches(&mut inside, seen), "{kind:?}");
            }
            if families.v6 {
                let seen = inside.seen_by(&mut outside, (site6(10), 3478).into());
                let expected = if kind == Kind::Public {
                    site6(new)
                } else {
                    lan6(new)
                };
                assert_eq!(seen.ip(), IpAddr::from(expected), "{kind:?}");
                assert!(outside.reaches(&mut inside, seen), "{kind:?}");
            }
        }
        internet.move_to(&name, Kind::PortRestricted, number + 40);
        let seen = inside.seen_by(&mut outside, (v4(10), 3478).into());
        assert_eq!(seen.ip(), IpAddr::from(v4(number + 40)), "{kind:?} moved");
    }
}

#[test]
fn cuts_losses_and_narrow_links_are_what_they_say() {
    let internet = Internet::new();
    let machines = [("anna", 20), ("bo", 21), ("carol", 22)]
        .map(|(name, number)| internet.place(Kind::Public, name, number));
    let [mut anna, mut bo, mut carol] = machines.each_ref().map(|at| Probe::open(at, 5000));
    let at = |number| SocketAddr::from((v4(number), 5000));
    let at6 = |number| SocketAddr::from((site6(number), 5000));
    internet.cut_one_way("anna", "bo");
    assert!(!anna.reaches(&mut bo, at(21)) && !anna.reaches(&mut bo, at6(21)));
    assert!(bo.reaches(&mut anna, at(20)) && bo.reaches(&mut anna, at6(20)));
    internet.cut("anna", "bo");
    assert!(!bo.reaches(&mut anna, at(20)));
    assert!(anna.reaches(&mut carol, at(22)) && carol.reaches(&mut bo, at6(21)));
    internet.mend("anna", "bo");
    assert!(anna.reaches(&mut bo, at(21)) && bo.reaches(&mut anna, at(20)));

    internet.lose(20);
    for _ in 0..200 {
        anna.send(at(21), "one of many");
    }
    let mut came = 0;
    while bo.receive(SOON).is_some() {
        came += 1;
    }
    assert!(
        (135..=185).contains(&came),
        "{came} of 200 at a loss of 20 %"
    );
    internet.lose(0);

    let sized =
        |size: usize, more: &str| format!("ping -c 1 -W 1 {more} -s {} 203.0.113.21", size - 28);
    let passes = |size, more: &str| {
        let line = format!(
            "{} >/dev/null 2>&1 && echo yes || echo no",
            sized(size, more)
        );
        internet.sh("anna", &line) == "yes\n"
    };
    assert!(passes(1500, "-M do"));
    internet.narrow("bo", 1280);
    // Told by ICMP, the sender's kernel now cuts to what fits; what may not be cut does not pass.
    assert!(!passes(1500, "-M do") && passes(1280, "-M do") && passes(1500, "-M dont"));
    internet.narrow("bo", 1500);
    internet.sh("anna", "ip route flush cache");
    internet.shrink_silently("bo", 1400);
    let said = internet.sh("anna", &format!("{} 2>&1 || true", sized(1500, "-M do")));
    assert!(
        said.contains("100% packet loss") && !said.contains("Frag"),
        "{said}"
    );
    assert!(passes(1400, "-M do"));
}

#[test]
fn a_hairpin_turns_where_the_router_can() {
    for turns in [false, true] {
        let internet = Internet::new();
        let outside = internet.place(Kind::Public, "vps", 10);
        let machines = [
            internet.place(Kind::PortRestricted, "anna", 20),
            internet.place_beside("anna", "bo"),
        ];
        if turns {
            internet.turn_hairpins("anna");
        }
        let to = SocketAddr::from((v4(10), 3478));
        let mut outside = Probe::open(&outside, 3478);
        let [mut anna, mut bo] = machines.each_ref().map(|at| Probe::open(at, 41820));
        let seen = [&mut anna, &mut bo].map(|probe| probe.seen_by(&mut outside, to));
        assert_ne!(
            seen[0].port(),
            seen[1].port(),
            "both have the same port inside"
        );
        assert_eq!(anna.reaches(&mut bo, seen[1]), turns);
        anna.send(seen[1], "once more");
        // Whoever is reached sees the sender as the world does.
        let from = bo.receive(SOON).map(|heard| heard.from);
        assert_eq!(from, turns.then_some(seen[0]));
        // In the LAN they meet in any case, and both families' multicast goes no farther.
        assert!(anna.reaches(&mut bo, "192.168.1.3:41820".parse().unwrap()));
    }
}

#[test]
fn the_slots_of_a_dht_are_addresses_of_their_own() {
    let internet = Internet::new();
    let (machine, slots) = internet.slots();
    let home = internet.place(Kind::Symmetric, "anna", 20);
    assert_eq!(slots.len(), 62);
    let mut inside = Probe::open(&home, 41820);
    let mut all = Probe::open(&machine, 6881);
    for slot in [slots[0], slots[61]] {
        let seen = inside.seen_by(&mut all, (slot, 6881).into());
        assert_eq!(seen.ip(), IpAddr::from(v4(20)));
    }
    let bind = format!(
        "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"{}\", 6999)); \
         s.sendto(b\"x\", (\"203.0.113.99\", 6881)); print(\"bound\")'",
        slots[40]
    );
    assert_eq!(internet.sh("dht", &bind), "bound\n");
    assert_eq!(all.receive(SOON).unwrap().from, (slots[40], 6999).into());
}

#[test]
fn a_router_opens_a_port_for_who_asks() {
    let internet = Internet::new();
    let outside = internet.place(Kind::Public, "vps", 10);
    let inside = internet.place(Kind::Mapping, "anna", 200);
    let (mut outside, mut inside) = (Probe::open(&outside, 3478), Probe::open(&inside, 41820));
    let outer = SocketAddr::from((v4(200), 41820));
    assert!(!outside.reaches(&mut inside, outer));
    // NAT-PMP, RFC 6886: which address, and UDP 41820 for an hour.
    let ask = "python3 -c 'import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.2)
def ask(question):
    for _ in range(20):
        s.sendto(question, (\"192.168.1.1\", 5351))
        try:
            return s.recv(100)
        except OSError:
            pass
print(socket.inet_ntoa(ask(bytes(2))[8:12]))
print(struct.unpack(\"!HIHHI\", ask(struct.pack(\"!BBHHHI\", 0, 1, 0, 41820, 41820, 3600))[2:16])[3])'";
    assert_eq!(internet.sh("anna", ask), "11.0.0.200\n41820\n");
    assert!(outside.reaches(&mut inside, outer), "the port is open");
}

fn site6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(number), 0, 0, 0, 1)
}

fn lan6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, u16::from(number), 0, 0, 0, 2)
}
