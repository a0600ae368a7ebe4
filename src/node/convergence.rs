//! The same records in any order make the same registry and the same members (protocol §7, §8).

use std::{collections::VecDeque, time::Duration};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{
    hash::{Use, hash},
    ids::{Boot, NetworkId, NodeId},
    members::{Members, Verdict},
    registry::{Judged, Offered, Registry},
    time::{Moment, Now},
    wire::record::{self, Body, Draft, Record},
};

const ROOT: NodeId = NodeId([200; 32]);
const SELF: NodeId = NodeId([99; 32]);
const T0_S: u64 = 1_795_000_000;
const SINCE_S: u64 = T0_S + 1_000;

/// One peer's registry and members, joined as `node` joins them.
struct Replica {
    members: Members,
    registry: Registry,
    now: Now,
}

impl Replica {
    fn new() -> Self {
        Self {
            members: Members::new(NetworkId(hash(Use::Network, &[&ROOT.0])), SELF),
            registry: Registry::new(SELF),
            now: Now {
                at: Moment(1_000_000),
                unix_ms: T0_S * 1000,
            },
        }
    }

    fn take(&mut self, record: &Record) {
        self.now.at = self.now.at.after(Duration::from_secs(1));
        let mut waiting = VecDeque::from([record.clone()]);
        while let Some(record) = waiting.pop_front() {
            let body = record.body().unwrap();
            let rank = match self.members.judge(&record, &body) {
                Verdict::Allowed(rank) => rank,
                Verdict::SignerUnknown => {
                    let _ = self.registry.aside(record, None, self.now.at);
                    continue;
                }
                Verdict::Refused(_) => continue,
            };
            let judged = Judged {
                record: record.clone(),
                body: body.clone(),
                rank,
            };
            let offered = self.registry.offer(self.now, T0_S, judged);
            if matches!(offered, Offered::Taken { .. }) && self.apply(&record, &body) {
                let again = self.registry.retry_aside(self.now.at);
                waiting.extend(again.into_iter().map(|(record, _)| record));
            }
        }
    }

    /// True: what is kept aside may have authority now.
    fn apply(&mut self, record: &Record, body: &Body) -> bool {
        let change = self.members.apply(record, body);
        let mut unlocks = change.unlocks;
        let mut nodes = VecDeque::from(change.recheck);
        while let Some(node) = nodes.pop_front() {
            let is_void = |judged: &(Record, Body)| {
                !matches!(
                    self.members.judge(&judged.0, &judged.1),
                    Verdict::Allowed(_)
                )
            };
            let touched = self
                .registry
                .touching(node)
                .map(|held| (held.record.clone(), held.body.clone()));
            let void: Vec<(Record, Body)> = touched.filter(is_void).collect();
            for (record, _) in void {
                self.registry.remove(self.now, record.slot());
                let change = self.members.forget(&record);
                nodes.extend(change.recheck);
                unlocks |= change.unlocks;
            }
        }
        unlocks
    }

    /// All that members and registry answer, as one text.
    fn picture(&self) -> String {
        let held: Vec<_> = self.registry.all().map(|held| held.record.id()).collect();
        let nodes: Vec<_> = (0..=20)
            .map(|n| NodeId([n; 32]))
            .map(|node| {
                (
                    self.members.standing(node, T0_S + 5_000, 0),
                    self.members.name_of(node),
                    self.members.ipv4_of(node),
                    self.members.tunnel_of(node),
                    self.members.is_admin(node),
                    self.registry.in_force(node, T0_S),
                )
            })
            .collect();
        let found =
            ["anna", "bo", "bo-0404", "bo-0303", "carol"].map(|name| self.members.node_named(name));
        let admins: Vec<_> = self.members.admins().collect();
        let epochs: Vec<_> = self
            .members
            .newest_epochs()
            .map(|(n, secret)| (n, secret.0))
            .collect();
        let digest = self.registry.digest16(T0_S);
        format!(
            "{held:?} {nodes:?} {found:?} {admins:?} {epochs:?} {digest:?} {:?}",
            self.members.network()
        )
    }
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn record(seq_s: u64, subject: NodeId, signer: NodeId, body: Body) -> Record {
    let draft = Draft {
        seq: seq_s * 1000,
        subject: subject.0,
        signer: signer.0,
        body,
    };
    draft.sign_with(|_| [0; 64]).unwrap()
}

fn network(seq_s: u64, name: &str) -> Record {
    let body = record::Network {
        name: name.into(),
        domain: format!("{name}.internal"),
        pool4: "100.71.0.0/16".parse().unwrap(),
        created: T0_S,
    };
    record(seq_s, ROOT, ROOT, Body::Network(body))
}

fn admin(who: u8) -> Record {
    record(
        T0_S,
        node(who),
        ROOT,
        Body::Admin(record::Admin { rights: 7 }),
    )
}

fn member(who: u8, signer: u8, name: &str, offset4: u64, seq_s: u64) -> Record {
    let body = record::Member {
        name: name.into(),
        admission: [who; 8],
        admitted_at: T0_S + u64::from(who),
        offset4: Some(offset4),
        groups: None,
        role: 0,
        offers: None,
        not_after: seq_s + 90 * 86_400,
        routes: None,
        guests: None,
    };
    record(seq_s, node(who), node(signer), Body::Member(body))
}

fn peer(who: u8, tunnel: u8, seq_s: u64) -> Record {
    let body = record::Peer {
        tunnel: [tunnel; 32],
        cross: [0; 64],
        wire_min: 1,
        wire_max: 1,
        features: 0,
        flags: 1,
        addresses: None,
    };
    record(seq_s, node(who), node(who), Body::Peer(body))
}

fn lease(who: u8, expires: u64, left: bool) -> Record {
    let body = record::Lease {
        incarnation: Boot([who; 8]),
        expires,
        left,
    };
    record(expires, node(who), node(who), Body::Lease(body))
}

fn service(who: u8, ports: &[u64], seq_s: u64) -> Record {
    let body = record::Service {
        service: "web".into(),
        instance: "one".into(),
        ports: ports.to_vec(),
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    };
    record(seq_s, node(who), node(who), Body::Service(body))
}

fn revoke(who: u8, signer: NodeId, seq_s: u64, since: u64) -> Record {
    record(
        seq_s,
        node(who),
        signer,
        Body::Revoke(record::Revoke { since }),
    )
}

fn epoch(n: u32, signer: u8, seq_s: u64) -> Record {
    let body = record::Epoch {
        n,
        secret: [signer; 32],
    };
    record(seq_s, ROOT, node(signer), Body::Epoch(body))
}

/// A network in which everything that can clash does.
fn quarrel() -> Vec<Record> {
    vec![
        network(T0_S, "home"),
        network(T0_S + 1, "house"),
        admin(1),
        admin(2),
        admin(7),
        member(1, 1, "anna", 10, T0_S),
        member(2, 1, "vps", 11, T0_S),
        member(7, 1, "nas", 17, T0_S),
        // Two admins issue one name and one address.
        member(3, 1, "bo", 12, T0_S + 3),
        member(4, 2, "bo", 12, T0_S + 4),
        // Two admins certify one node; the newer is void because its signer is revoked since before.
        member(5, 1, "carol", 13, T0_S + 5),
        member(5, 2, "mallory", 14, SINCE_S + 5),
        // Void, and with it all that its subject says.
        member(6, 2, "dave", 15, SINCE_S),
        peer(6, 60, T0_S),
        lease(6, T0_S + 9_000, false),
        revoke(2, ROOT, T0_S + 2_000, SINCE_S + 50),
        revoke(2, ROOT, T0_S + 1_500, SINCE_S),
        // An admin is revoked by another: not its right.
        revoke(7, node(1), T0_S, T0_S),
        // The senior of the two called bo is revoked.
        revoke(3, node(1), T0_S + 500, T0_S + 400),
        peer(3, 30, T0_S),
        // Two claim one tunnel key.
        peer(4, 40, T0_S),
        peer(5, 40, T0_S),
        peer(5, 51, T0_S - 1),
        peer(1, 10, T0_S),
        peer(1, 11, T0_S + 1),
        lease(1, T0_S + 7_000, false),
        lease(1, T0_S + 8_000, false),
        lease(4, T0_S + 8_000, false),
        lease(4, T0_S + 8_001, true),
        service(1, &[80], T0_S),
        service(1, &[], T0_S + 1),
        service(4, &[80], T0_S),
        epoch(0, 1, T0_S),
        epoch(1, 1, T0_S + 10),
        epoch(1, 2, T0_S + 11),
        epoch(2, 2, SINCE_S + 11),
        epoch(2, 1, T0_S + 12),
        // A stranger's own word.
        peer(9, 90, T0_S),
    ]
}

fn shuffle(records: &mut [Record], rng: &mut ChaCha8Rng) {
    for last in (1..records.len()).rev() {
        let other = rng.next_u32() as usize % (last + 1);
        records.swap(last, other);
    }
}

/// Every record once, and once more because what was refused on the way comes again by reconciliation.
fn replica_of(records: &mut [Record], rng: &mut ChaCha8Rng) -> Replica {
    let mut replica = Replica::new();
    for _ in 0..2 {
        shuffle(records, rng);
        records.iter().for_each(|record| replica.take(record));
    }
    replica
}

#[test]
fn records_in_any_of_10000_orders_make_the_same_registry_and_members() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut records = quarrel();
    let expected = replica_of(&mut records, &mut rng).picture();
    for order in 1..10_000 {
        let picture = replica_of(&mut records, &mut rng).picture();
        assert_eq!(picture, expected, "order {order}");
    }
}

#[test]
fn the_quarrel_ends_as_the_protocol_says() {
    let mut records = quarrel();
    let Replica {
        members, registry, ..
    } = replica_of(&mut records, &mut ChaCha8Rng::seed_from_u64(4));
    assert_eq!(
        members.network().map(|network| network.name.as_str()),
        Some("house")
    );
    assert_eq!(members.admins().collect::<Vec<_>>(), [node(1), node(7)]);
    assert_eq!(members.revoked().collect::<Vec<_>>(), [node(2), node(3)]);
    assert_eq!(members.revoked_since(node(2)), Some(SINCE_S));
    assert_eq!(members.node_named("bo"), Some(node(4)));
    assert_eq!(
        members.ipv4_of(node(4)),
        Some("100.71.0.12".parse().unwrap())
    );
    assert_eq!(members.name_of(node(5)).as_deref(), Some("carol"));
    assert!(members.certificate(node(6)).is_none() && members.peer(node(6)).is_none());
    assert_eq!(members.tunnel_of(node(4)), Some([40; 32]));
    assert_eq!(members.tunnel_of(node(5)), Some([51; 32]));
    assert!(members.tunnel_of(node(3)).is_none());
    assert_eq!(
        members.newest_epoch().map(|(n, secret)| (n, secret.0)),
        Some((2, [1; 32]))
    );
    assert!(
        registry
            .of(node(6))
            .chain(registry.of(node(9)))
            .next()
            .is_none()
    );
    assert_eq!(registry.services_of(node(1)).count(), 0);
}
