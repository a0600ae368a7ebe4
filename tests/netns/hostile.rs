//! Issue 3, point 6: a member that lies. What it sends in another's name is dropped or refused and counted by its
//! reason, and the flows of those it lies about lose nothing.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde_json::Value;
use webmesh::{
    addr::AddressPlan,
    ids::{Boot, NodeId, Slot},
    keys::{NodeKey, Token},
    packet::{
        ip::Ports,
        tcp::{SYN, Segment},
        udp,
    },
    wire::record::{
        self, Admin, Body, Epoch, Kind, Lease, Member, Network, Record, Revoke, Service, slot_of,
    },
};

use crate::{
    harness::{Net, Peer, run_inside, within},
    mallory::{Mallory, draw},
};

/// How often everything is sent.
const ROUNDS: u64 = 25;

/// Control frames of a flood at most, in case nobody ends it: two minutes' worth. A session may bring 200 a second after
/// a burst of 400.
const FLOOD: u32 = 200_000;

/// What one round of lies counts at the victim, by reason.
const COUNTED: [(&str, u64); 13] = [
    ("in_foreign_source", 5),
    ("in_martian", 13),
    ("in_foreign_destination", 10),
    ("in_routing_header", 2),
    ("in_not_ip", 2),
    ("control_unknown_kind", 2),
    ("control_malformed", 2),
    ("record_not_own", 3),
    ("record_signature", 2),
    ("record_cross_signature", 2),
    ("record_signer_unknown", 4),
    ("record_not_root", 2),
    ("record_other_network", 2),
];

#[test]
fn a_member_that_lies_is_counted_and_harms_nobody() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    let machine = net
        .lab()
        .public("mallory", &["203.0.113.66/24", "2001:db8::66/64"])
        .unwrap();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let _server = serve_with_splice(anna);
    bo.ok(&["wait", "--service", "web", "--timeout", "10s"]);
    let token = anna.invite();
    let before = anna.status();
    let facts = facts(anna, bo);
    let listeners = facts["listeners"].as_array().unwrap().len();
    assert!(listeners >= 4, "DNS and a splice in both families: {facts}");

    let target = anna.mesh_addresses()[0].clone();
    std::thread::scope(|scope| {
        let lies = scope.spawn(|| {
            let environment = [("TOKEN", token.as_str()), ("FACTS", &facts.to_string())];
            run_inside(
                &machine,
                "hostile::inside_everything_is_tried",
                &environment,
            )
        });
        // One after the other: bursts of bo's own transfer may fill the device's short queue, which is nobody's lie.
        let said = bo.sh(&format!("ping -q -i 0.01 -c 400 {target}"));
        let drops = [bo, anna].map(|peer| peer.status()["drops"].clone());
        assert!(said.contains(" 0% packet loss"), "{said} {drops:?}");
        let sum = anna.sh("sha256sum < www/big");
        let transfer = bo.sh("for i in 1 2 3 4 5; do curl -sf --limit-rate 2M http://web.svc.home.internal/big | sha256sum; done");
        assert_eq!(transfer, sum.repeat(5));
        lies.join().unwrap();
    });

    assert_counted(&before, &anna.status(), listeners);
    assert_nothing_changed(anna, bo, &before);
}

#[test]
fn a_member_that_floods_crowds_out_nobody() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    let machine = net.lab().public("mallory", &["203.0.113.66/24"]).unwrap();
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    let token = anna.invite();
    let target = anna.mesh_addresses()[0].clone();
    let end = machine.directory.join("end");
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let end = end.to_str().unwrap();
            let environment = [("TOKEN", token.as_str()), ("END", end)];
            run_inside(
                &machine,
                "hostile::inside_everything_is_flooded",
                &environment,
            )
        });
        within(Duration::from_secs(30), "the flood has begun", || {
            drop_of(anna, "session_flooding") > 0
        });
        // While it lasts: packets pass, commands are answered, and what bo says arrives at once.
        let said = bo.sh(&format!("ping -q -i 0.01 -c 100 {target}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
        bo.ok(&["service", "add", "web", "--port", "80"]);
        anna.ok(&["wait", "--service", "web", "--timeout", "5s"]);
        // What is set aside is mallory's own, and what is lost for it too.
        within(Duration::from_secs(30), "its shares are full", || {
            drop_of(anna, "record_aside_full") > 0 && drop_of(anna, "want_over_budget") > 0
        });
        assert!(!flood.is_finished(), "the flood was too short to tell");
        std::fs::write(&end, "").unwrap();
        flood.join().unwrap();
    });
    assert_eq!(drop_of(anna, "event_full"), 0);
    assert_eq!(anna.state_of("bo"), "up");
}

fn drop_of(peer: &Peer, reason: &str) -> u64 {
    peer.status()["drops"][reason].as_u64().unwrap_or(0)
}

fn serve_with_splice(anna: &Peer) -> crate::harness::Beside {
    anna.sh("mkdir www && head -c 2000000 /dev/urandom > www/big");
    let server = anna.beside("python3 -m http.server -b 127.0.0.1 -d www 8080");
    anna.await_port(8080);
    let target = "127.0.0.1:8080";
    anna.ok(&["service", "add", "web", "--port", "80", "--target", target]);
    server
}

/// What the inside of the test needs to know of its victims.
fn facts(anna: &Peer, bo: &Peer) -> Value {
    let listening = anna.sh("ss -Hltn");
    let listeners: Vec<&str> = listening
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|local| local.contains("%wm0"))
        .collect();
    serde_json::json!({
        "anna": anna.mesh_addresses(),
        "bo": bo.mesh_addresses(),
        "bo_id": bo.status()["self"]["id"],
        "listeners": listeners,
    })
}

fn assert_counted(before: &Value, after: &Value, listeners: usize) {
    let mut expected: BTreeMap<&str, u64> = COUNTED
        .iter()
        .map(|(reason, each)| (*reason, each * ROUNDS))
        .collect();
    let listeners = u64::try_from(listeners).unwrap();
    expected.insert("in_listener_port", listeners * ROUNDS);
    expected.insert("sealed_bad_signature", ROUNDS);
    let grown = |reason: &&str| {
        let at = |status: &Value| status["drops"][reason].as_u64().unwrap_or(0);
        at(after) - at(before)
    };
    let counted: BTreeMap<&str, u64> = expected.keys().map(|r| (*r, grown(r))).collect();
    assert_eq!(counted, expected, "{}", after["drops"]);
}

fn assert_nothing_changed(anna: &Peer, bo: &Peer, before: &Value) {
    let about_bo = |status: &Value| {
        let peers = status["peers"].as_array().unwrap();
        let found = peers.iter().find(|peer| peer["name"] == "bo").unwrap();
        ["id", "name", "ipv4", "ipv6", "state", "path"].map(|key| found[key].clone())
    };
    let after = anna.status();
    assert_eq!(about_bo(&after), about_bo(before));
    assert_eq!(after["network"], before["network"]);
    assert_eq!(after["services"], before["services"]);
    let mallory = after["peers"].as_array().unwrap();
    let mallory = mallory.iter().find(|peer| peer["name"] == "mallory");
    assert_eq!(
        mallory.map(|peer| &peer["state"]),
        Some(&"up".into()),
        "{after}"
    );
    for address in bo.mesh_addresses() {
        assert!(anna.ok(&["whois", &address]).starts_with("bo"));
    }
    assert_eq!(bo.status()["state"], "up");
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_everything_is_tried() {
    let token: Token = std::env::var("TOKEN").unwrap().parse().unwrap();
    let facts: Value = serde_json::from_str(&std::env::var("FACTS").unwrap()).unwrap();
    let mut mallory = Mallory::join(&token);
    let ends = Ends::new(&mallory, &facts);
    let packets = [
        ends.of_others(),
        ends.martians(),
        ends.not_theirs(),
        ends.to_listeners(&facts),
        ends.routed(),
        vec![vec![0x90; 40], vec![0x15; 21]],
    ]
    .concat();
    let records = lies(&mut mallory, &facts);
    let bo = bo_id(&facts);
    for _ in 0..ROUNDS {
        packets.iter().for_each(|packet| mallory.send(packet));
        for frame in broken_frames() {
            mallory.send_frame(&frame);
        }
        for chunk in records.chunks(3) {
            mallory.say_records(chunk.to_vec());
        }
        mallory.knock_as(bo, Boot([7; 8]));
        mallory.await_pong();
        std::thread::sleep(Duration::from_millis(100));
    }
    mallory.await_pong();
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_everything_is_flooded() {
    let token: Token = std::env::var("TOKEN").unwrap().parse().unwrap();
    let mut mallory = Mallory::join(&token);
    let me = mallory.identity.key.id();
    let own: Vec<Slot> = mallory.grant.records.iter().map(Record::slot).collect();
    let end = std::env::var("END").unwrap();
    for number in 0..FLOOD {
        match number % 8 {
            // Records of nobodies, kept aside while there is room.
            0 => {
                let nobody = NodeKey::from_seed(draw());
                let about = (nobody.id().0, nobody.id());
                let record = mallory.record_by(&nobody, about, Body::Lease(left()));
                mallory.say_records(vec![record]);
            }
            1 => mallory.say_records(vec![mallory.record(me.0, me, Body::Service(service()))]),
            _ => mallory.want(own.clone()),
        }
        // Some thousands a second: far above what is taken, and the machine has other things to do.
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(50));
            if std::fs::exists(&end).unwrap() {
                return;
            }
        }
    }
}

/// Frames of kinds that nobody knows, and of one that everybody knows with a body that is none.
fn broken_frames() -> [Vec<u8>; 4] {
    let of = |kind: u8, body: u8| vec![0, 1, kind, 1, 1, 0, 0, 0, 9, 0, 0, 0, body];
    [
        of(0x0f, 0xa0),
        of(0xff, 0xa0),
        of(0x10, 0xff),
        of(0x04, 0xff),
    ]
}

/// Records that this member has no right to, or that are not what they say.
fn lies(mallory: &mut Mallory, facts: &Value) -> Vec<Vec<u8>> {
    let (me, bo) = (mallory.identity.key.id(), bo_id(facts));
    let issuer = mallory.grant.issuer;
    let network = mallory
        .grant
        .records
        .iter()
        .find(|record| record.kind() == Kind::Network)
        .unwrap()
        .clone();
    let root = network.subject();
    let Ok(Body::Network(name)) = network.body() else {
        panic!("the network has no name")
    };
    let theirs = mallory.ask(slot_of(Kind::Peer, &bo.0, b""));
    let Ok(Body::Peer(peer_of_bo)) = theirs.body() else {
        panic!("bo has no Peer record")
    };
    let own = mallory.peer();
    let with_tunnel_of_bo = record::Peer {
        tunnel: peer_of_bo.tunnel,
        ..own.clone()
    };
    let of_bo = record::Peer {
        cross: mallory
            .identity
            .tunnel
            .cross_sign(bo, &mallory.grant.network.0),
        ..own
    };
    let member = |name: &str, offset4| Member {
        name: name.into(),
        admission: [0; 8],
        admitted_at: 1,
        offset4: Some(offset4),
        groups: None,
        role: 0,
        offers: None,
        not_after: 4_000_000_000,
        routes: None,
        guests: None,
    };
    let epoch = Epoch {
        n: 9,
        secret: [9; 32],
    };
    let renamed = Network {
        name: "owned".into(),
        ..name
    };
    let admin = Admin { rights: 7 };
    let revoke = Revoke { since: 1 };
    vec![
        // Not own.
        mallory.record(bo.0, me, Body::Peer(of_bo)),
        mallory.record(bo.0, me, Body::Lease(left())),
        mallory.record(bo.0, me, Body::Service(service())),
        // Signed by another than it says.
        mallory.record(bo.0, bo, Body::Lease(left())),
        mallory.record(root, NodeId(root), Body::Network(renamed.clone())),
        // A tunnel key of another, with the cross-signature of either.
        mallory.record(me.0, me, Body::Peer(with_tunnel_of_bo)),
        mallory.record(me.0, me, Body::Peer(peer_of_bo)),
        // By whom no admin's rights are known.
        mallory.record(bo.0, me, Body::Member(member("victim", 9))),
        mallory.record(me.0, me, Body::Member(member("bo", offset_of_bo(facts)))),
        mallory.record(bo.0, me, Body::Revoke(revoke.clone())),
        mallory.record(root, me, Body::Epoch(epoch.clone())),
        // Rights that only the root gives and takes.
        mallory.record(me.0, me, Body::Admin(admin)),
        mallory.record(issuer.0, me, Body::Revoke(revoke)),
        // A network of its own.
        mallory.record(me.0, me, Body::Network(renamed)),
        mallory.record(me.0, me, Body::Epoch(epoch)),
    ]
}

fn left() -> Lease {
    Lease {
        incarnation: Boot([1; 8]),
        expires: 4_000_000_000,
        left: true,
    }
}

fn service() -> Service {
    Service {
        service: "web".into(),
        instance: "bo".into(),
        ports: vec![6 << 16 | 80],
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    }
}

fn bo_id(facts: &Value) -> NodeId {
    let hex = facts["bo_id"].as_str().unwrap();
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    NodeId(bytes.try_into().unwrap())
}

fn offset_of_bo(facts: &Value) -> u64 {
    let [_, _, high, low] = address(&facts["bo"][0]).map_v4();
    u64::from(high) << 8 | u64::from(low)
}

trait MapV4 {
    fn map_v4(self) -> [u8; 4];
}

impl MapV4 for IpAddr {
    fn map_v4(self) -> [u8; 4] {
        match self {
            Self::V4(v4) => v4.octets(),
            Self::V6(v6) => panic!("{v6} is no IPv4 address"),
        }
    }
}

fn address(value: &Value) -> IpAddr {
    value.as_str().unwrap().parse().unwrap()
}

/// The mesh addresses of everybody, v4 and v6.
struct Ends {
    own: [IpAddr; 2],
    anna: [IpAddr; 2],
    bo: [IpAddr; 2],
    plan: AddressPlan,
}

impl Ends {
    fn new(mallory: &Mallory, facts: &Value) -> Self {
        let both = |name: &str| [address(&facts[name][0]), address(&facts[name][1])];
        let root = mallory.grant.records.iter();
        let pool4 = root
            .filter_map(|record| match record.body() {
                Ok(Body::Network(network)) => Some(network.pool4),
                _ => None,
            })
            .next_back()
            .unwrap();
        let plan = AddressPlan {
            network: mallory.grant.network,
            pool4,
        };
        let me = mallory.identity.key.id();
        let Ok(Body::Member(member)) = mallory.granted(Kind::Member, me).body() else {
            panic!("mallory is no member")
        };
        let offset = u32::try_from(member.offset4.unwrap()).unwrap();
        Self {
            own: [plan.at4(offset).into(), plan.peer6(me).into()],
            anna: both("anna"),
            bo: both("bo"),
            plan,
        }
    }

    fn of_others(&self) -> Vec<Vec<u8>> {
        let nobody = self.plan.at4(self.plan.half4() - 1);
        let service = self.plan.service6("web", "");
        let sources = [
            self.bo[0],
            self.bo[1],
            nobody.into(),
            service.into(),
            "198.51.100.8".parse().unwrap(),
        ];
        sources.map(|source| self.to_anna_from(source)).to_vec()
    }

    fn martians(&self) -> Vec<Vec<u8>> {
        let martians = [
            "0.0.0.0",
            "0.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.5",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ];
        let mut sources: Vec<IpAddr> = martians.iter().map(|text| text.parse().unwrap()).collect();
        sources.extend(self.anna);
        let packets = sources.into_iter().map(|source| self.to_anna_from(source));
        packets.collect()
    }

    fn not_theirs(&self) -> Vec<Vec<u8>> {
        let others = [
            "198.51.100.8",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ];
        let mut destinations: Vec<IpAddr> =
            others.iter().map(|text| text.parse().unwrap()).collect();
        destinations.extend(self.bo);
        destinations.extend([
            IpAddr::from(self.plan.resolver4()),
            self.plan.resolver6().into(),
            self.plan.service6("web", "").into(),
        ]);
        let packets = destinations
            .into_iter()
            .map(|to| datagram(self.own_like(to), to));
        packets.collect()
    }

    fn to_listeners(&self, facts: &Value) -> Vec<Vec<u8>> {
        let listeners = facts["listeners"].as_array().unwrap().iter();
        let packets = listeners.map(|listener| {
            let (host, port) = listener.as_str().unwrap().rsplit_once(':').unwrap();
            let to = self.anna[usize::from(host.starts_with('['))];
            syn(self.own_like(to), to, port.parse().unwrap())
        });
        packets.collect()
    }

    /// IPv6 routing headers, of the type that once amplified and of one that nobody knows.
    fn routed(&self) -> Vec<Vec<u8>> {
        let routed = |kind: u8| {
            let mut packet = datagram(self.own[1], self.anna[1]);
            packet[6] = 43;
            packet.splice(40..40, [17, 0, kind, 1, 0, 0, 0, 0]);
            packet[5] += 8;
            packet
        };
        vec![routed(0), routed(9)]
    }

    fn to_anna_from(&self, source: IpAddr) -> Vec<u8> {
        datagram(source, self.anna[usize::from(source.is_ipv6())])
    }

    fn own_like(&self, other: IpAddr) -> IpAddr {
        self.own[usize::from(other.is_ipv6())]
    }
}

fn datagram(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut packet = Vec::new();
    let ports = Ports {
        source: 4000,
        destination: 4001,
    };
    assert!(udp::build(&mut packet, (from, to), ports, b"a lie"));
    packet
}

fn syn(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let segment = Segment {
        ports: Ports {
            source: 4000,
            destination: port,
        },
        sequence: 1,
        acknowledgment: 0,
        flags: SYN,
        body_len: 0,
    };
    assert!(segment.build(&mut packet, (from, to)));
    packet
}
