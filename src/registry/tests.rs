//! What is stored, what wins, what ends and when.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    ids::Boot,
    wire::record::{self, Draft, slot_of},
};

const ROOT: NodeId = NodeId([200; 32]);
const ANNA: NodeId = NodeId([1; 32]);
const BO: NodeId = NodeId([2; 32]);
const OWN: NodeId = NodeId([0x70; 32]);
const NOW_S: u64 = 1_795_000_000;
const DAY_S: u64 = 86_400;
const HOUR: Duration = Duration::from_secs(3_600);

/// A registry with a clock that tests move.
struct Shelf {
    registry: Registry,
    now: Now,
    mesh_s: u64,
}

impl Shelf {
    fn new() -> Self {
        let at = Moment(1_000_000);
        Self {
            registry: Registry::new(OWN),
            now: Now {
                at,
                unix_ms: NOW_S * 1000,
            },
            mesh_s: NOW_S,
        }
    }

    fn wait(&mut self, time: Duration) -> Vec<Record> {
        self.now.at = self.now.at.after(time);
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        self.mesh_s += time.as_secs();
        self.registry.expire(self.mesh_s, self.now.at)
    }

    fn offer(&mut self, judged: &Judged) -> Offered {
        self.registry.offer(self.now, self.mesh_s, judged.clone())
    }

    fn take(&mut self, judged: &Judged) {
        let offered = self.offer(judged);
        assert!(matches!(offered, Offered::Taken { .. }), "{offered:?}");
    }

    fn has(&self, judged: &Judged) -> bool {
        self.registry.is_known(&judged.record)
    }
}

fn judged(seq_ms: u64, subject: NodeId, signer: NodeId, body: Body) -> Judged {
    let draft = Draft {
        seq: seq_ms,
        subject: subject.0,
        signer: signer.0,
        body: body.clone(),
    };
    let rank = match &body {
        Body::Network(_) | Body::Admin(_) => Rank::Root,
        Body::Member(_) | Body::Revoke(_) | Body::Epoch(_) if signer == ROOT => Rank::Root,
        Body::Member(_) | Body::Revoke(_) | Body::Epoch(_) => Rank::Admin,
        Body::Peer(_)
        | Body::Lease(_)
        | Body::Service(_)
        | Body::Invite(..)
        | Body::Heartbeat(_)
        | Body::Opaque => Rank::Own,
    };
    Judged {
        record: draft.sign_with(|_| [0; 64]).unwrap(),
        body,
        rank,
    }
}

fn peer(node: NodeId, seq_ms: u64) -> Judged {
    let body = record::Peer {
        tunnel: node.0,
        cross: [0; 64],
        wire_min: 1,
        wire_max: 1,
        features: 0,
        flags: 1,
        addresses: None,
    };
    judged(seq_ms, node, node, Body::Peer(body))
}

fn lease(node: NodeId, expires: u64) -> Judged {
    lease_saying(node, expires, false)
}

fn lease_saying(node: NodeId, expires: u64, left: bool) -> Judged {
    let body = Lease {
        incarnation: Boot([0; 8]),
        expires,
        left,
    };
    judged(expires * 1000, node, node, Body::Lease(body))
}

fn service(node: NodeId, name: &str, ports: Vec<u64>, seq_ms: u64) -> Judged {
    let body = Service {
        service: name.into(),
        instance: "one".into(),
        ports,
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    };
    judged(seq_ms, node, node, Body::Service(body))
}

fn member(node: NodeId, signer: NodeId, seq_ms: u64, not_after: u64) -> Judged {
    let body = record::Member {
        name: "bo".into(),
        admission: [0; 8],
        admitted_at: 1,
        offset4: None,
        groups: None,
        role: 0,
        offers: None,
        not_after,
        routes: None,
        guests: None,
    };
    judged(seq_ms, node, signer, Body::Member(body))
}

fn revoke(signer: NodeId, seq_ms: u64, since: u64) -> Judged {
    judged(seq_ms, BO, signer, Body::Revoke(record::Revoke { since }))
}

fn epoch(n: u32, seq_ms: u64) -> Judged {
    judged(
        seq_ms,
        ROOT,
        ANNA,
        Body::Epoch(record::Epoch { n, secret: [9; 32] }),
    )
}

#[test]
fn the_newest_wins_whatever_the_order() {
    for (first, second, kept) in [(5, 6, 6), (6, 5, 6)] {
        let mut shelf = Shelf::new();
        shelf.take(&peer(BO, first));
        let offered = shelf.offer(&peer(BO, second));
        assert_eq!(
            matches!(offered, Offered::Taken { replaced: Some(_) }),
            second == kept
        );
        assert_eq!(matches!(offered, Offered::Older), second != kept);
        assert!(shelf.has(&peer(BO, kept)));
        assert!(matches!(shelf.offer(&peer(BO, kept)), Offered::Known));
        assert_eq!(shelf.registry.len(), 1);
    }
}

#[test]
fn of_two_with_one_seq_the_greater_hash_wins_whatever_the_order() {
    let (one, two) = (
        service(BO, "web", vec![1], 5),
        service(BO, "web", vec![2], 5),
    );
    let mut one_first = Shelf::new();
    let mut two_first = Shelf::new();
    let _ = (one_first.offer(&one), one_first.offer(&two));
    let _ = (two_first.offer(&two), two_first.offer(&one));
    let winner = if one.record.id() > two.record.id() {
        &one
    } else {
        &two
    };
    assert!(one_first.has(winner) && two_first.has(winner));
}

#[test]
fn the_root_beats_an_admin_even_when_older() {
    let mut shelf = Shelf::new();
    shelf.take(&revoke(ANNA, 9, 100));
    shelf.take(&revoke(ROOT, 5, 900));
    assert!(matches!(shelf.offer(&revoke(ANNA, 10, 1)), Offered::Older));
}

#[test]
fn of_two_revocations_the_one_since_earlier_wins_even_when_older() {
    let mut shelf = Shelf::new();
    shelf.take(&revoke(ROOT, 9, 100));
    shelf.take(&revoke(ROOT, 8, 50));
    assert!(matches!(shelf.offer(&revoke(ROOT, 10, 60)), Offered::Older));
    shelf.take(&revoke(ROOT, 11, 50));
}

#[test]
fn epoch_0_is_never_replaced() {
    let mut shelf = Shelf::new();
    shelf.take(&epoch(0, 5));
    assert!(matches!(shelf.offer(&epoch(0, 6)), Offered::Older));
    shelf.take(&epoch(1, 5));
    shelf.take(&epoch(1, 6));
}

#[test]
fn a_record_of_this_machine_that_it_does_not_hold_is_not_taken_from_others() {
    let mut shelf = Shelf::new();
    assert!(matches!(
        shelf.offer(&peer(OWN, 50)),
        Offered::Mine { above: 50 }
    ));
    let published = shelf
        .registry
        .publish(shelf.now, shelf.mesh_s, peer(OWN, 51));
    assert!(matches!(published, Offered::Taken { replaced: None }));
    assert!(matches!(shelf.offer(&peer(OWN, 51)), Offered::Known));
    assert!(matches!(shelf.offer(&peer(OWN, 50)), Offered::Older));
    assert!(matches!(
        shelf.offer(&peer(OWN, 52)),
        Offered::Mine { above: 52 }
    ));
    shelf.take(&member(OWN, ANNA, 5, NOW_S + 1));
}

#[test]
fn a_65th_service_is_refused_until_another_is_a_tombstone() {
    let mut shelf = Shelf::new();
    for n in 0..SERVICES_MAX {
        shelf.take(&service(BO, &format!("web-{n}"), vec![80], NOW_S * 1000));
    }
    let one_more = service(BO, "one-more", vec![80], NOW_S * 1000);
    assert!(matches!(
        shelf.offer(&one_more),
        Offered::Refused(RegistryRefused::Quota)
    ));
    shelf.take(&service(BO, "web-3", vec![81], NOW_S * 1000 + 1));
    shelf.take(&service(ANNA, "one-more", vec![80], NOW_S * 1000));
    shelf.take(&service(BO, "web-3", Vec::new(), NOW_S * 1000 + 2));
    shelf.take(&one_more);
    assert_eq!(shelf.registry.services_of(BO).count(), SERVICES_MAX);
}

#[test]
fn an_origin_stores_32_kib_and_no_more() {
    let mut shelf = Shelf::new();
    let big = |n: usize, seq_ms: u64| {
        let mut body = service(BO, &format!("web-{n}"), vec![80], seq_ms).body;
        if let Body::Service(service) = &mut body {
            service.meta = Some(vec!["x".repeat(100); 4]);
        }
        judged(seq_ms, BO, BO, body)
    };
    let size = big(0, NOW_S).record.bytes().len();
    let fit = BYTES_MAX / size;
    assert!(fit < SERVICES_MAX, "bytes bind before the count does");
    (0..fit).for_each(|n| shelf.take(&big(n, NOW_S * 1000)));
    let one_more = big(99, NOW_S * 1000);
    assert!(matches!(
        shelf.offer(&one_more),
        Offered::Refused(RegistryRefused::Quota)
    ));
    shelf.take(&big(1, NOW_S * 1000 + 1));
    shelf.registry.remove(shelf.now, big(2, 1).record.slot());
    shelf.take(&one_more);
}

#[test]
fn what_admins_sign_counts_against_nobody() {
    let mut shelf = Shelf::new();
    for n in 0..200_u8 {
        shelf.take(&member(NodeId([n; 32]), ANNA, 5, NOW_S + 1));
    }
}

#[test]
fn a_slot_changes_once_a_second_after_a_burst() {
    let mut shelf = Shelf::new();
    let mut seq_ms = NOW_S * 1000;
    let mut next = |shelf: &mut Shelf| {
        seq_ms += 1;
        shelf.offer(&peer(BO, seq_ms))
    };
    for _ in 0..UPDATE_BURST {
        assert!(matches!(next(&mut shelf), Offered::Taken { .. }));
    }
    for _ in 0..3 {
        assert!(matches!(
            next(&mut shelf),
            Offered::Refused(RegistryRefused::Rate)
        ));
        let _ = shelf.wait(Duration::from_secs(1));
        assert!(matches!(next(&mut shelf), Offered::Taken { .. }));
    }
    shelf.take(&peer(ANNA, 5));
    let _ = shelf.wait(Duration::from_secs(60));
    let taken = (0..20)
        .filter(|_| matches!(next(&mut shelf), Offered::Taken { .. }))
        .count();
    assert_eq!(taken, UPDATE_BURST as usize);
}

#[test]
fn one_lease_keeps_all_records_of_its_node_in_force() {
    let mut shelf = Shelf::new();
    shelf.take(&peer(BO, 5));
    assert!(
        !shelf.registry.in_force(BO, shelf.mesh_s),
        "without a lease"
    );
    shelf.take(&lease(BO, NOW_S + 3_600));
    assert!(shelf.registry.in_force(BO, NOW_S + 3_599));
    assert!(!shelf.registry.in_force(BO, NOW_S + 3_600));
    shelf.take(&lease_saying(BO, NOW_S + 3_601, true));
    assert!(!shelf.registry.in_force(BO, NOW_S), "it left");
}

#[test]
fn after_the_lease_records_stay_inert_for_7_days_and_go_together() {
    let mut shelf = Shelf::new();
    let records = [
        peer(BO, 5),
        service(BO, "web", vec![80], 5),
        lease(BO, NOW_S + 3_600),
    ];
    records.iter().for_each(|record| shelf.take(record));
    shelf.take(&member(BO, ANNA, 5, NOW_S + 90 * DAY_S));
    assert!(
        shelf
            .wait(HOUR + 7 * 24 * HOUR - Duration::from_secs(1))
            .is_empty()
    );
    assert!(records.iter().all(|record| shelf.has(record)));
    assert_eq!(shelf.wait(Duration::from_secs(1)).len(), 3);
    assert_eq!(shelf.registry.len(), 1, "the certificate stays");
}

#[test]
fn a_renewed_lease_keeps_everything() {
    let mut shelf = Shelf::new();
    shelf.take(&peer(BO, 5));
    for _ in 0..60 {
        let expires = shelf.mesh_s + LEASE_S;
        shelf.take(&lease(BO, expires));
        assert!(shelf.wait(4 * HOUR).is_empty());
    }
    assert!(shelf.registry.in_force(BO, shelf.mesh_s) && shelf.has(&peer(BO, 5)));
}

#[test]
fn records_without_a_lease_go_7_days_after_they_came() {
    let mut shelf = Shelf::new();
    shelf.take(&peer(BO, 5));
    assert!(
        shelf
            .wait(7 * 24 * HOUR - Duration::from_secs(1))
            .is_empty()
    );
    assert_eq!(shelf.wait(Duration::from_secs(1)).len(), 1);
}

#[test]
fn what_went_does_not_come_back_from_who_joined_later() {
    let mut shelf = Shelf::new();
    shelf.take(&peer(BO, 5));
    shelf.take(&lease(BO, NOW_S + 60));
    assert_eq!(shelf.wait(8 * 24 * HOUR).len(), 2);
    assert!(matches!(
        shelf.offer(&peer(BO, 5)),
        Offered::Refused(RegistryRefused::Ended)
    ));
    assert!(matches!(
        shelf.offer(&lease(BO, NOW_S + 60)),
        Offered::Refused(RegistryRefused::Ended)
    ));
    let back = lease(BO, shelf.mesh_s + LEASE_S);
    shelf.take(&back);
    shelf.take(&peer(BO, 5));
}

#[test]
fn a_lease_counts_for_12_hours_after_receipt_whatever_it_says() {
    let mut shelf = Shelf::new();
    let in_2099 = lease(BO, 4_070_908_800);
    shelf.take(&in_2099);
    shelf.take(&peer(BO, 5));
    let fresh = shelf.registry.digest_sums(shelf.mesh_s);
    let _ = shelf.wait(12 * HOUR - Duration::from_secs(1));
    assert!(shelf.registry.in_force(BO, shelf.mesh_s));
    let _ = shelf.wait(Duration::from_secs(1));
    assert!(!shelf.registry.in_force(BO, shelf.mesh_s));
    assert!(
        !shelf
            .registry
            .is_offered(in_2099.record.slot(), shelf.mesh_s)
    );
    assert_ne!(shelf.registry.digest_sums(shelf.mesh_s), fresh);
    assert!(
        matches!(shelf.offer(&in_2099), Offered::Known),
        "it does not begin again"
    );
    assert_eq!(shelf.wait(7 * 24 * HOUR).len(), 2);
}

#[test]
fn a_lease_with_less_than_20_minutes_left_is_told_to_nobody() {
    let mut shelf = Shelf::new();
    let ending = lease(BO, NOW_S + LEASE_TAIL_S + 1);
    let slot = ending.record.slot();
    let nothing = shelf.registry.digest_sums(NOW_S);
    shelf.take(&ending);
    let told = |shelf: &Shelf, mesh_s: u64| {
        let listed = shelf.registry.bucket_entries(bucket_of(slot), mesh_s).len() == 1;
        let counted = shelf.registry.digest_sums(mesh_s) != nothing;
        assert_eq!(listed, counted);
        assert_eq!(listed, shelf.registry.is_offered(slot, mesh_s));
        listed
    };
    assert!(told(&shelf, NOW_S));
    assert!(!told(&shelf, NOW_S + 1));
    assert!(!told(&shelf, NOW_S + DAY_S));
    assert!(
        shelf.registry.in_force(BO, NOW_S + 1),
        "but it is in force here"
    );
}

#[test]
fn a_tombstone_stays_7_days_and_is_no_service() {
    let mut shelf = Shelf::new();
    shelf.take(&service(BO, "web", vec![80], NOW_S * 1000));
    shelf.take(&service(BO, "web", Vec::new(), NOW_S * 1000 + 1));
    assert_eq!(shelf.registry.services_of(BO).count(), 0);
    for _ in 0..41 {
        shelf.take(&lease(BO, shelf.mesh_s + LEASE_S));
        assert!(shelf.wait(4 * HOUR).is_empty());
    }
    assert!(matches!(
        shelf.offer(&service(BO, "web", vec![80], NOW_S * 1000)),
        Offered::Older
    ));
    shelf.take(&lease(BO, shelf.mesh_s + LEASE_S));
    assert_eq!(shelf.wait(4 * HOUR).len(), 1);
}

#[test]
fn each_kind_ends_at_its_time() {
    let invite = record::Invite {
        introduce: [0; 32],
        expires: NOW_S + 60,
    };
    let join_id = crate::ids::JoinId([1; 8]);
    let heartbeat = record::Heartbeat {
        time: NOW_S,
        count: 0,
        hash: [0; 32],
        policy: 0,
    };
    let cases = [
        (
            judged(5, ANNA, ANNA, Body::Invite(invite, join_id)),
            Some(60),
        ),
        (
            judged(5, ANNA, ANNA, Body::Heartbeat(heartbeat)),
            Some(7 * DAY_S),
        ),
        (
            member(BO, ANNA, 5, NOW_S + DAY_S),
            Some(DAY_S + ENDED_CERTIFICATE_S),
        ),
        (revoke(ROOT, 5, 5), None),
        (epoch(0, 5), None),
        (epoch(1, 5), None),
        (
            judged(5, ANNA, ROOT, Body::Admin(record::Admin { rights: 7 })),
            None,
        ),
    ];
    for (record, life_s) in cases {
        let mut shelf = Shelf::new();
        shelf.take(&record);
        let life_s = life_s.unwrap_or(9_000 * DAY_S);
        assert!(
            shelf.wait(Duration::from_secs(life_s - 1)).is_empty(),
            "{record:?}"
        );
        let ends = shelf.wait(Duration::from_secs(1)).len() == 1;
        assert_eq!(ends, life_s != 9_000 * DAY_S, "{record:?}");
        if ends {
            assert!(matches!(
                shelf.offer(&record),
                Offered::Refused(RegistryRefused::Ended)
            ));
        }
    }
}

#[test]
fn an_epoch_goes_400_days_after_the_next_was_made_and_epoch_0_never() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut shelf = Shelf::new();
        for n in order {
            shelf.take(&epoch(n, (NOW_S + u64::from(n)) * 1000));
        }
        assert!(shelf.wait(Duration::from_secs(EPOCH_S + 1)).is_empty());
        assert_eq!(
            shelf.wait(Duration::from_secs(1)).len(),
            1,
            "epoch 1, superseded by 2"
        );
        assert!(shelf.wait(1000 * 24 * HOUR).is_empty());
        assert!(shelf.has(&epoch(0, NOW_S * 1000)));
    }
}

#[test]
fn the_next_expiry_is_when_a_lease_ends_and_then_when_its_records_go() {
    let mut shelf = Shelf::new();
    assert_eq!(shelf.registry.next_expiry(shelf.now, shelf.mesh_s), None);
    shelf.take(&lease(BO, NOW_S + 60));
    let in_s = |shelf: &Shelf| {
        shelf
            .registry
            .next_expiry(shelf.now, shelf.mesh_s)
            .unwrap()
            .since(shelf.now.at)
    };
    assert_eq!(in_s(&shelf), Duration::from_secs(60));
    let _ = shelf.wait(Duration::from_secs(60));
    assert_eq!(
        in_s(&shelf),
        12 * HOUR - Duration::from_secs(60),
        "the lease has been here for its life"
    );
    let _ = shelf.wait(12 * HOUR);
    assert_eq!(in_s(&shelf), Duration::from_secs(7 * DAY_S) - 12 * HOUR);
}

#[test]
fn sums_are_those_of_all_that_is_told_and_the_same_however_it_came_about() {
    let all = [
        peer(BO, 5),
        peer(ANNA, 5),
        lease(BO, NOW_S + DAY_S),
        service(BO, "web", vec![80], 5),
    ];
    let mut shelf = Shelf::new();
    all.iter().for_each(|record| shelf.take(record));
    let mut other = Shelf::new();
    other.take(&peer(BO, 4));
    other.take(&revoke(ROOT, 5, 5));
    all.iter().rev().for_each(|record| other.take(record));
    assert_ne!(
        other.registry.digest16(NOW_S),
        shelf.registry.digest16(NOW_S)
    );
    other
        .registry
        .remove(other.now, revoke(ROOT, 5, 5).record.slot());
    assert_eq!(
        other.registry.digest16(NOW_S),
        shelf.registry.digest16(NOW_S)
    );

    let mut sums = [0_u128; BUCKETS];
    for record in &all {
        let (slot, version) = (record.record.slot(), record.record.version());
        let term = crate::hash::hash(
            crate::hash::Use::Digest,
            &[&slot.0, &version.0.to_le_bytes()],
        );
        let bucket = usize::from(slot.0[0] >> 2);
        sums[bucket] =
            sums[bucket].wrapping_add(u128::from_le_bytes(term[..16].try_into().unwrap()));
    }
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    assert_eq!(shelf.registry.digest_sums(NOW_S)[..], bytes[..]);
}

#[test]
fn buckets_hold_every_slot_once() {
    let mut shelf = Shelf::new();
    for n in 0..=255 {
        let _ = shelf
            .registry
            .publish(shelf.now, NOW_S, peer(NodeId([n; 32]), 5));
    }
    let entries: Vec<(Slot, Version)> = (0..64)
        .flat_map(|b| shelf.registry.bucket_entries(b, NOW_S))
        .collect();
    let held: Vec<(Slot, Version)> = shelf
        .registry
        .all()
        .map(|held| (held.record.slot(), held.record.version()))
        .collect();
    assert_eq!(entries, held);
    assert_eq!(entries.len(), 256);
}

#[test]
fn what_touches_a_node_is_what_it_signed_and_what_is_said_of_it() {
    let mut shelf = Shelf::new();
    let by_anna = [
        peer(ANNA, 5),
        member(ANNA, ANNA, 5, NOW_S + 1),
        member(BO, ANNA, 5, NOW_S + 1),
    ];
    by_anna.iter().for_each(|record| shelf.take(record));
    shelf.take(&peer(BO, 5));
    let touching: BTreeSet<Slot> = shelf
        .registry
        .touching(ANNA)
        .map(|held| held.record.slot())
        .collect();
    assert_eq!(
        touching,
        by_anna.iter().map(|judged| judged.record.slot()).collect()
    );
    shelf
        .registry
        .remove(shelf.now, slot_of(Kind::Member, &BO.0, &[]));
    assert_eq!(shelf.registry.touching(ANNA).count(), 2);
}

#[test]
fn at_most_256_records_are_kept_aside_and_for_10_minutes() {
    let mut shelf = Shelf::new();
    let at = shelf.now.at;
    let mut put = |n, seq, at| {
        let record = peer(NodeId([n; 32]), seq).record;
        shelf.registry.aside(record, None, at)
    };
    for n in 0..=255 {
        assert_eq!(put(n, 5, at), SetAside::Kept);
    }
    assert_eq!(put(0, 6, at), SetAside::Lost, "no room");
    assert_eq!(put(9, 5, at), SetAside::Known, "it is there already");
    let later = at.after(ASIDE_FOR);
    assert_eq!(put(7, 6, later), SetAside::Kept, "the old ones are gone");
    assert_eq!(put(7, 6, later), SetAside::Known);
    assert_eq!(shelf.registry.retry_aside(later).len(), 1);
    assert!(shelf.registry.retry_aside(later).is_empty());
}

#[test]
fn who_fills_the_room_for_records_kept_aside_gives_way_to_others() {
    let mut shelf = Shelf::new();
    let mut at = shelf.now.at;
    let mut put = |n: usize, from| {
        at = at.after(Duration::from_millis(1));
        let mut node = [0; 32];
        node[..8].copy_from_slice(&n.to_le_bytes());
        let record = peer(NodeId(node), 5).record;
        shelf.registry.aside(record, Some(PeerIx(from)), at)
    };
    let mut sent = 0..;
    let mut flood = |from, count: usize, put: &mut dyn FnMut(usize, u32) -> SetAside| {
        let outcomes: Vec<SetAside> = (&mut sent).take(count).map(|n| put(n, from)).collect();
        let of = |wanted| outcomes.iter().filter(|one| **one == wanted).count();
        (
            of(SetAside::Kept),
            of(SetAside::KeptForAnother),
            of(SetAside::Lost),
        )
    };
    assert_eq!(flood(1, 300, &mut put), (ASIDE_MAX, 0, 44));
    // What mallory has above an even share gives way to others, however much it sends.
    assert_eq!(flood(2, 30, &mut put), (0, 30, 0));
    assert_eq!(flood(1, 300, &mut put), (0, 0, 300));
    assert_eq!(flood(3, 300, &mut put), (0, 113, 187));
    let mut kept: BTreeMap<Option<PeerIx>, usize> = BTreeMap::new();
    for (_, from) in shelf.registry.retry_aside(at) {
        *kept.entry(from).or_default() += 1;
    }
    let shares = [(1, 113), (2, 30), (3, 113)];
    assert_eq!(
        kept,
        shares
            .map(|(from, count)| (Some(PeerIx(from)), count))
            .into()
    );
}
