//! What members say of records, and what they answer once records were applied.

use super::{
    invites::{
        CancelRefused, Exactness, Invite, InviteRole, InviteState, Invites, Redeemed, Redeeming,
        Spent,
    },
    *,
};
use crate::{
    hash::{Use, hash},
    ids::JoinId,
    keys::InviteSecret,
    wire::record::{self, Body, Draft, Record},
};

const ROOT: [u8; 32] = [200; 32];
const CREATED_S: u64 = 1_795_000_000;
const DAY_S: u64 = 86_400;
const ALL_RIGHTS: u64 = 7;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// A record that nobody signed: members look at no signature.
fn record(seq_s: u64, subject: [u8; 32], signer: [u8; 32], body: Body) -> (Record, Body) {
    let draft = Draft {
        seq: seq_s * 1000,
        subject,
        signer,
        body: body.clone(),
    };
    (draft.sign_with(|_| [0; 64]).unwrap(), body)
}

fn network() -> (Record, Body) {
    network_with("100.71.0.0/16")
}

fn network_with(pool4: &str) -> (Record, Body) {
    let body = record::Network {
        name: "home".into(),
        domain: "home.internal".into(),
        pool4: pool4.parse().unwrap(),
        created: CREATED_S,
    };
    record(CREATED_S, ROOT, ROOT, Body::Network(body))
}

fn admin(who: NodeId, rights: u64, seq_s: u64) -> (Record, Body) {
    record(seq_s, who.0, ROOT, Body::Admin(record::Admin { rights }))
}

fn certificate(name: &str, admitted_s: u64, offset4: u64) -> record::Member {
    record::Member {
        name: name.into(),
        admission: [1; 8],
        admitted_at: admitted_s,
        offset4: Some(offset4),
        groups: None,
        role: 0,
        offers: Some(vec!["db".into(), "web-*".into()]),
        not_after: admitted_s + 90 * DAY_S,
        routes: None,
        guests: None,
    }
}

fn member(who: NodeId, signer: NodeId, body: record::Member) -> (Record, Body) {
    let seq_s = body.admitted_at;
    record(seq_s, who.0, signer.0, Body::Member(body))
}

fn peer(who: NodeId, tunnel: u8) -> (Record, Body) {
    let body = Peer {
        tunnel: [tunnel; 32],
        cross: [0; 64],
        wire_min: 1,
        wire_max: 1,
        features: 0,
        flags: 1,
        addresses: None,
    };
    record(CREATED_S, who.0, who.0, Body::Peer(body))
}

fn lease(who: NodeId) -> (Record, Body) {
    let incarnation = crate::ids::Boot([0; 8]);
    let body = record::Lease {
        incarnation,
        expires: CREATED_S,
        left: false,
    };
    record(CREATED_S, who.0, who.0, Body::Lease(body))
}

fn revoke(who: NodeId, signer: [u8; 32], since: u64) -> (Record, Body) {
    record(since, who.0, signer, Body::Revoke(record::Revoke { since }))
}

fn epoch(n: u32, signer: NodeId, seq_s: u64) -> (Record, Body) {
    let secret = [n.to_le_bytes()[0]; 32];
    record(
        seq_s,
        ROOT,
        signer.0,
        Body::Epoch(record::Epoch { n, secret }),
    )
}

fn apply(members: &mut Members, (record, body): &(Record, Body)) -> Change {
    assert!(
        matches!(members.judge(record, body), Verdict::Allowed(_)),
        "{record:?}"
    );
    members.apply(record, body)
}

fn judged(members: &Members, (record, body): &(Record, Body)) -> Verdict {
    members.judge(record, body)
}

fn refused(why: MemberRefused) -> Verdict {
    Verdict::Refused(why)
}

fn nobody() -> Members {
    Members::new(NetworkId(hash(Use::Network, &[&ROOT])), node(1))
}

/// The network with the admin 1, called anna.
fn founded() -> Members {
    let mut members = nobody();
    let _ = apply(&mut members, &network());
    let _ = apply(&mut members, &admin(node(1), ALL_RIGHTS, CREATED_S));
    let _ = apply(
        &mut members,
        &member(node(1), node(1), certificate("anna", CREATED_S, 7)),
    );
    members
}

#[test]
fn only_the_root_of_this_network_makes_it() {
    let members = nobody();
    assert_eq!(judged(&members, &network()), Verdict::Allowed(Rank::Root));
    let Body::Network(body) = network().1 else {
        unreachable!()
    };
    let foreign = record(CREATED_S, [9; 32], [9; 32], Body::Network(body.clone()));
    assert_eq!(
        judged(&members, &foreign),
        refused(MemberRefused::OtherNetwork)
    );
    let forged = record(CREATED_S, ROOT, [9; 32], Body::Network(body));
    assert_eq!(judged(&members, &forged), refused(MemberRefused::NotRoot));
}

#[test]
fn a_pool_outside_8_to_23_is_no_pool() {
    let (record, body) = network();
    for (pool4, verdict) in [
        ("10.0.0.0/7", refused(MemberRefused::BadPool)),
        ("10.0.0.0/8", Verdict::Allowed(Rank::Root)),
        ("10.0.0.0/23", Verdict::Allowed(Rank::Root)),
        ("10.0.0.0/24", refused(MemberRefused::BadPool)),
        ("10.0.0.0/32", refused(MemberRefused::BadPool)),
    ] {
        let mut body = body.clone();
        if let Body::Network(network) = &mut body {
            network.pool4 = pool4.parse().unwrap();
        }
        assert_eq!(nobody().judge(&record, &body), verdict, "{pool4}");
    }
}

#[test]
fn before_the_network_is_known_every_other_signer_is_unknown() {
    let members = nobody();
    let bo = member(node(2), node(1), certificate("bo", CREATED_S, 8));
    for record in [
        admin(node(1), ALL_RIGHTS, CREATED_S),
        bo,
        peer(node(2), 2),
        epoch(0, node(1), CREATED_S),
    ] {
        assert_eq!(judged(&members, &record), Verdict::SignerUnknown);
    }
}

#[test]
fn only_the_root_makes_admins() {
    let members = founded();
    let forged = record(
        CREATED_S,
        [2; 32],
        [1; 32],
        Body::Admin(record::Admin { rights: 7 }),
    );
    assert_eq!(judged(&members, &forged), refused(MemberRefused::NotRoot));
    let own = record(
        CREATED_S,
        [2; 32],
        [2; 32],
        Body::Admin(record::Admin { rights: 7 }),
    );
    assert_eq!(judged(&members, &own), refused(MemberRefused::NotRoot));
}

#[test]
fn a_certificate_waits_for_the_admin_record_of_its_signer() {
    let mut members = founded();
    let bo = member(node(2), node(5), certificate("bo", CREATED_S, 8));
    assert_eq!(judged(&members, &bo), Verdict::SignerUnknown);
    let change = apply(&mut members, &admin(node(5), ALL_RIGHTS, CREATED_S));
    assert!(change.unlocks);
    assert_eq!(judged(&members, &bo), Verdict::Allowed(Rank::Admin));
}

#[test]
fn a_member_speaks_of_nobody_else() {
    let mut members = founded();
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S, 8)),
    );
    let Body::Peer(body) = peer(node(2), 9).1 else {
        unreachable!()
    };
    let forged = record(CREATED_S, [1; 32], [2; 32], Body::Peer(body));
    assert_eq!(judged(&members, &forged), refused(MemberRefused::NotOwn));
    let forged = member(node(3), node(2), certificate("carol", CREATED_S, 9));
    assert_eq!(judged(&members, &forged), Verdict::SignerUnknown);
    assert_eq!(
        judged(&members, &peer(node(3), 3)),
        Verdict::SignerUnknown,
        "a stranger's own word"
    );
}

#[test]
fn each_right_of_an_admin_opens_its_kinds_only() {
    let mut members = founded();
    let bo = |signer| member(node(2), signer, certificate("bo", CREATED_S, 8));
    for (rights, may_admit, may_revoke, may_make_epochs) in [
        (1, true, false, true),
        (2, false, true, true),
        (4, false, false, false),
    ] {
        let _ = apply(&mut members, &admin(node(5), rights, CREATED_S + rights));
        let verdict = |may| {
            if may {
                Verdict::Allowed(Rank::Admin)
            } else {
                refused(MemberRefused::NoRight)
            }
        };
        assert_eq!(
            judged(&members, &bo(node(5))),
            verdict(may_admit),
            "{rights}"
        );
        assert_eq!(
            judged(&members, &revoke(node(9), [5; 32], CREATED_S)),
            verdict(may_revoke),
            "{rights}"
        );
        assert_eq!(
            judged(&members, &epoch(1, node(5), CREATED_S)),
            verdict(may_make_epochs),
            "{rights}"
        );
    }
}

#[test]
fn what_an_admin_signed_before_it_lost_its_rights_stays() {
    let mut members = founded();
    let _ = apply(&mut members, &admin(node(5), 0, CREATED_S + 100));
    let before = member(node(2), node(5), certificate("bo", CREATED_S + 99, 8));
    let after = member(node(2), node(5), certificate("bo", CREATED_S + 100, 8));
    assert_eq!(judged(&members, &before), Verdict::Allowed(Rank::Admin));
    assert_eq!(judged(&members, &after), refused(MemberRefused::NoRight));
    assert!(!members.is_admin(node(5)));
}

#[test]
fn only_the_root_revokes_an_admin() {
    let mut members = founded();
    let _ = apply(&mut members, &admin(node(5), ALL_RIGHTS, CREATED_S));
    assert_eq!(
        judged(&members, &revoke(node(5), [1; 32], CREATED_S)),
        refused(MemberRefused::NotRoot)
    );
    assert_eq!(
        judged(&members, &revoke(node(5), ROOT, CREATED_S)),
        Verdict::Allowed(Rank::Root)
    );
    assert_eq!(
        judged(&members, &revoke(node(2), [1; 32], CREATED_S)),
        Verdict::Allowed(Rank::Admin)
    );
}

#[test]
fn an_admins_revocation_of_who_turns_out_an_admin_must_be_judged_again() {
    let mut members = founded();
    let by_admin = revoke(node(5), [1; 32], CREATED_S);
    let _ = apply(&mut members, &by_admin);
    let change = apply(&mut members, &admin(node(5), ALL_RIGHTS, CREATED_S));
    assert_eq!(change.recheck, [node(5)]);
    assert_eq!(judged(&members, &by_admin), refused(MemberRefused::NotRoot));
    assert!(members.forget(&by_admin.0).unlocks);
    assert!(members.is_admin(node(5)));
}

#[test]
fn a_revoked_admin_voids_what_it_signed_since() {
    let mut members = founded();
    let _ = apply(&mut members, &admin(node(5), ALL_RIGHTS, CREATED_S));
    let before = member(node(2), node(5), certificate("bo", CREATED_S + 49, 8));
    let since = member(node(3), node(5), certificate("carol", CREATED_S + 50, 9));
    let _ = apply(&mut members, &before);
    let _ = apply(&mut members, &since);
    let change = apply(&mut members, &revoke(node(5), ROOT, CREATED_S + 50));
    assert_eq!(change.recheck, [node(5)]);
    assert_eq!(judged(&members, &before), Verdict::Allowed(Rank::Admin));
    assert_eq!(
        judged(&members, &since),
        refused(MemberRefused::SignerRevoked)
    );
    assert_eq!(
        members.forget(&since.0).recheck,
        [node(3)],
        "what carol signed falls with her"
    );
    assert_eq!(members.standing(node(3), CREATED_S, 0), Standing::Stranger);
    assert!(!members.is_admin(node(5)));
    assert_eq!(members.admins().collect::<Vec<_>>(), [node(1)]);
}

#[test]
fn a_revocation_beats_every_certificate() {
    let mut members = founded();
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S, 8)),
    );
    let _ = apply(&mut members, &revoke(node(2), [1; 32], CREATED_S + 10));
    let again = member(node(2), node(1), certificate("bo", CREATED_S + 20, 8));
    let _ = apply(&mut members, &again);
    assert_eq!(
        members.standing(node(2), CREATED_S + 20, 0),
        Standing::Revoked
    );
    assert_eq!(
        judged(&members, &lease(node(2))),
        refused(MemberRefused::SubjectRevoked)
    );
    assert_eq!(members.node_named("bo"), None);
    assert!(!members.is_name_issued("bo") && !members.is_offset4_issued(8));
    assert_eq!(
        members.name_of(node(2)).as_deref(),
        Some("bo"),
        "to show whom"
    );
}

#[test]
fn an_older_forget_leaves_the_newer_record_alone() {
    let mut members = founded();
    let old = member(node(2), node(1), certificate("bo", CREATED_S, 8));
    let new = member(node(2), node(1), certificate("bo", CREATED_S + 1, 8));
    let _ = apply(&mut members, &old);
    let _ = apply(&mut members, &new);
    assert_eq!(members.forget(&old.0), Change::default());
    assert!(members.certificate(node(2)).is_some());
    let _ = members.forget(&new.0);
    assert!(members.certificate(node(2)).is_none());
}

#[test]
fn an_ended_certificate_is_honoured_until_an_admin_was_up() {
    let members = founded();
    let end_s = CREATED_S + 90 * DAY_S;
    let standing = |mesh_s, admin_seen_s| members.standing(node(1), mesh_s, admin_seen_s);
    assert_eq!(standing(end_s - 1, end_s - 1), Standing::InForce);
    assert_eq!(standing(end_s, end_s - 1), Standing::Honoured);
    assert_eq!(standing(end_s, 0), Standing::Honoured);
    assert_eq!(standing(end_s + 9, end_s), Standing::Ended);
    assert_eq!(
        standing(0, 0),
        Standing::InForce,
        "a 1970 clock refuses nobody"
    );
    assert_eq!(members.standing(node(9), 0, 0), Standing::Stranger);
}

#[test]
fn of_two_with_one_name_and_address_the_senior_has_both() {
    let mut senior_first = founded();
    let mut junior_first = founded();
    let senior = member(node(0xbb), node(1), certificate("bo", CREATED_S + 1, 8));
    let junior = member(node(0xaa), node(1), certificate("bo", CREATED_S + 2, 8));
    let _ = (
        apply(&mut senior_first, &senior),
        apply(&mut senior_first, &junior),
    );
    let _ = (
        apply(&mut junior_first, &junior),
        apply(&mut junior_first, &senior),
    );
    for mut members in [senior_first, junior_first] {
        assert_eq!(members.name_of(node(0xbb)).as_deref(), Some("bo"));
        assert_eq!(members.name_of(node(0xaa)).as_deref(), Some("bo-aaaa"));
        assert_eq!(members.node_named("bo"), Some(node(0xbb)));
        assert_eq!(members.node_named("bo-aaaa"), Some(node(0xaa)));
        assert_eq!(members.node_named("bo-bbbb"), None);
        assert_eq!(
            members.ipv4_of(node(0xbb)),
            Some("100.71.0.8".parse().unwrap())
        );
        assert_eq!(members.ipv4_of(node(0xaa)), None);
        assert!(members.has_lost_name(node(0xaa)) && members.has_lost_ipv4(node(0xaa)));
        let _ = apply(&mut members, &revoke(node(0xbb), [1; 32], CREATED_S + 3));
        assert_eq!(
            members.node_named("bo"),
            Some(node(0xaa)),
            "the senior is out"
        );
        assert!(members.ipv4_of(node(0xaa)).is_some() && !members.has_lost_name(node(0xaa)));
    }
}

#[test]
fn the_longest_name_that_was_lost_is_found_again() {
    let mut members = founded();
    let name = "b".repeat(63);
    let _ = apply(
        &mut members,
        &member(node(0xbb), node(1), certificate(&name, CREATED_S + 1, 8)),
    );
    let _ = apply(
        &mut members,
        &member(node(0xaa), node(1), certificate(&name, CREATED_S + 2, 9)),
    );
    let lost = members.name_of(node(0xaa)).unwrap();
    assert!(label::is_label(&lost), "{lost}");
    assert_eq!(members.node_named(&lost), Some(node(0xaa)));
}

#[test]
fn an_offset_outside_the_lower_half_is_no_address() {
    let mut members = founded();
    for offset4 in [0, 32_767, 32_768, u64::MAX] {
        let _ = apply(
            &mut members,
            &member(node(2), node(1), certificate("bo", CREATED_S, offset4)),
        );
        assert_eq!(members.ipv4_of(node(2)), None, "{offset4}");
    }
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S, 32_766)),
    );
    assert_eq!(
        members.ipv4_of(node(2)),
        Some("100.71.127.254".parse().unwrap())
    );
}

#[test]
fn a_name_that_is_no_peers_is_refused() {
    let members = founded();
    for name in ["svc", "", "Bo", "a.b", "\u{1b}[2J", "123"] {
        let issued = member(node(2), node(1), certificate(name, CREATED_S, 8));
        assert_eq!(
            judged(&members, &issued),
            refused(MemberRefused::BadName),
            "{name:?}"
        );
    }
}

#[test]
fn a_tunnel_key_of_an_older_peer_is_refused() {
    let mut members = founded();
    let _ = apply(&mut members, &peer(node(1), 40));
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S + 1, 8)),
    );
    assert_eq!(
        judged(&members, &peer(node(2), 40)),
        refused(MemberRefused::TunnelTaken)
    );
    assert_eq!(
        judged(&members, &peer(node(2), 41)),
        Verdict::Allowed(Rank::Own)
    );
    assert_eq!(
        judged(&members, &peer(node(1), 40)),
        Verdict::Allowed(Rank::Own)
    );
}

#[test]
fn a_tunnel_key_goes_to_the_older_peer_when_it_comes_later() {
    let mut members = founded();
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S + 1, 8)),
    );
    let taken = peer(node(2), 40);
    let _ = apply(&mut members, &taken);
    assert_eq!(members.tunnel_of(node(2)), Some([40; 32]));
    let change = apply(&mut members, &peer(node(1), 40));
    assert_eq!(change.recheck, [node(2)]);
    assert_eq!(
        judged(&members, &taken),
        refused(MemberRefused::TunnelTaken)
    );
    assert_eq!(members.tunnel_of(node(2)), None);
    assert_eq!(members.tunnel_of(node(1)), Some([40; 32]));
}

#[test]
fn offers_are_names_and_beginnings_of_names() {
    let members = founded();
    for (service, may) in [
        ("db", true),
        ("db2", false),
        ("web-a", true),
        ("web-", true),
        ("web", false),
    ] {
        assert_eq!(members.may_offer(node(1), service), may, "{service}");
    }
    assert!(!members.may_offer(node(9), "db"));
    let mut all = certificate("bo", CREATED_S, 8);
    all.offers = Some(vec!["*".into()]);
    let mut none = certificate("carol", CREATED_S, 9);
    none.offers = None;
    let mut members = members;
    let _ = apply(&mut members, &member(node(2), node(1), all));
    let _ = apply(&mut members, &member(node(3), node(1), none));
    assert!(members.may_offer(node(2), "anything") && !members.may_offer(node(3), "anything"));
}

#[test]
fn a_certificate_that_cannot_be_read_admits_nobody() {
    let mut members = founded();
    let (readable, _) = member(node(2), node(1), certificate("bo", CREATED_S, 8));
    let _ = members.apply(&readable, &Body::Opaque);
    assert_eq!(members.standing(node(2), CREATED_S, 0), Standing::Stranger);
}

#[test]
fn the_newest_epoch_seals_and_every_epoch_of_a_byte_opens() {
    let mut members = founded();
    for (n, made_s) in [
        (0, 0),
        (1, 10),
        (256, 20),
        (512, 30),
        (768, 40),
        (1024, 50),
        (1025, 60),
    ] {
        let _ = apply(&mut members, &epoch(n, node(1), CREATED_S + made_s));
    }
    assert_eq!(members.newest_epoch().map(|(n, _)| n), Some(1025));
    assert_eq!(members.epoch0(), Some(&NetSecret([0; 32])));
    let tried = |byte| -> Vec<u32> {
        members
            .epochs_for_byte(byte, CREATED_S)
            .iter()
            .map(|opener| opener.n)
            .collect()
    };
    assert_eq!(tried(0), [1024, 768, 512, 256], "four at most");
    assert_eq!(tried(1), [1025, 1]);
    assert_eq!(tried(2), [] as [u32; 0]);
}

#[test]
fn an_epoch_superseded_90_days_ago_opens_at_admins_only() {
    let mut members = founded();
    let _ = apply(&mut members, &epoch(0, node(1), CREATED_S));
    let _ = apply(&mut members, &epoch(1, node(1), CREATED_S + 100));
    let reach = |byte, after_s: u64| members.epochs_for_byte(byte, CREATED_S + after_s)[0].reach;
    assert_eq!(reach(0, 100 + 90 * DAY_S), Reach::Everyone);
    assert_eq!(reach(0, 101 + 90 * DAY_S), Reach::Admins);
    assert_eq!(reach(1, 900 * DAY_S), Reach::Everyone);
}

#[test]
fn a_renewal_copies_what_was_issued() {
    let members = founded();
    let held = members.certificate(node(1)).unwrap();
    assert!(!admission::is_renewal_due(held, CREATED_S + 30 * DAY_S - 1));
    assert!(admission::is_renewal_due(held, CREATED_S + 30 * DAY_S));
    let mut expected = certificate("anna", CREATED_S, 7);
    expected.not_after = CREATED_S + 130 * DAY_S;
    assert_eq!(admission::renewed(held, CREATED_S + 40 * DAY_S), expected);
}

const NOW_S: u64 = CREATED_S + 1_000;

fn invites(uses: u32) -> (Invites, JoinId) {
    let secret = InviteSecret([42; 16]);
    let mut invites = Invites::default();
    let id = invites.issue(Invite::new(
        secret,
        NOW_S + 3600,
        uses,
        InviteRole::Member,
        vec!["*".into()],
    ));
    (invites, id)
}

fn asks(join_id: JoinId, node: NodeId, wish: &str, exactness: Exactness) -> Redeeming<'_> {
    Redeeming {
        join_id,
        node,
        wish,
        exactness,
        admission: [node.0[0]; 8],
        mesh_s: NOW_S,
    }
}

fn granted(redeemed: Redeemed) -> invites::Grant {
    let Redeemed::Grant(grant) = redeemed else {
        panic!("{redeemed:?}");
    };
    *grant
}

fn refusal(redeemed: Redeemed) -> (u64, Option<String>, Option<u64>) {
    let Redeemed::Refused(refused) = redeemed else {
        panic!("{redeemed:?}");
    };
    (refused.code, refused.name, refused.time)
}

#[test]
fn of_1000_who_redeem_one_invite_one_joins_and_999_are_told_who() {
    let members = founded();
    let (mut invites, id) = invites(1);
    let mut winners = 0;
    for n in 0..1000_u16 {
        let mut who = [77; 32];
        who[..2].copy_from_slice(&n.to_le_bytes());
        match invites.redeem(
            &members,
            NOW_S,
            &asks(id, NodeId(who), "bo", Exactness::Like),
        ) {
            Redeemed::Grant(grant) => {
                winners += 1;
                assert_eq!(grant.spent, Spent::Now);
            }
            Redeemed::Refused(refused) => {
                assert_eq!(
                    (refused.code, refused.name.as_deref(), refused.time),
                    (1, Some("bo"), Some(NOW_S))
                );
            }
            Redeemed::Silence => panic!("a known invite answers"),
        }
    }
    assert_eq!(winners, 1);
}

#[test]
fn the_same_node_is_granted_the_same_from_what_was_persisted_until_7_days_after_the_end() {
    let members = founded();
    let (mut invites, id) = invites(1);
    let first = granted(invites.redeem(&members, NOW_S, &asks(id, node(2), "bo", Exactness::Like)));
    let mut restarted = Invites::new(invites.all().to_vec());
    let mut again = asks(id, node(2), "other-wish", Exactness::Exact);
    again.admission = [99; 8];
    let last_s = NOW_S + 3600 + 7 * DAY_S - 1;
    for at_s in [NOW_S + 5, NOW_S + 3600, last_s] {
        let second = granted(restarted.redeem(&members, at_s, &again));
        assert_eq!(
            (second.member, second.spent),
            (first.member.clone(), Spent::Before)
        );
    }
    assert_eq!(
        restarted.redeem(&members, last_s + 1, &again),
        Redeemed::Silence
    );
    assert!(restarted.expire(last_s + 1) && restarted.all().is_empty());
    assert_eq!(invites.all()[0].spends.len(), 1);
}

#[test]
fn a_grant_is_a_certificate_of_90_days_with_a_free_address() {
    let members = founded();
    let (mut invites, id) = invites(1);
    let member =
        granted(invites.redeem(&members, NOW_S, &asks(id, node(2), "bo", Exactness::Exact))).member;
    let offset4 = members.plan().unwrap().offset4(node(2), 0);
    assert_eq!(
        (member.name.as_str(), member.admitted_at, member.not_after),
        ("bo", NOW_S, NOW_S + 90 * DAY_S)
    );
    assert_eq!(
        (member.admission, member.offset4),
        ([2; 8], Some(u64::from(offset4)))
    );
    assert_eq!(member.offers, Some(vec!["*".to_owned()]));
}

#[test]
fn each_refusal_has_its_code_and_spends_nothing() {
    let members = founded();
    let (mut open, id) = invites(1);
    let taken = open.redeem(
        &members,
        NOW_S,
        &asks(id, node(2), "anna", Exactness::Exact),
    );
    assert_eq!(refusal(taken), (4, Some("anna".into()), None));
    let no_label = open.redeem(&members, NOW_S, &asks(id, node(2), "Bo!", Exactness::Exact));
    assert_eq!(refusal(no_label), (4, Some("Bo!".into()), None));
    let expired = open.redeem(
        &members,
        NOW_S + 3600,
        &asks(id, node(2), "bo", Exactness::Like),
    );
    assert_eq!(refusal(expired), (3, None, Some(NOW_S + 3600)));
    assert_eq!(
        open.all()[0].state(NOW_S),
        InviteState::Open { uses_left: 1 }
    );
    open.cancel(&open.short_id(id), NOW_S + 9).unwrap();
    let cancelled = open.redeem(
        &members,
        NOW_S + 3600,
        &asks(id, node(2), "bo", Exactness::Like),
    );
    assert_eq!(
        refusal(cancelled),
        (2, None, Some(NOW_S + 9)),
        "told before that it ran out"
    );
    assert!(open.all()[0].spends.is_empty());
    let other = JoinId([0; 8]);
    let unknown = open.redeem(
        &members,
        NOW_S,
        &asks(other, node(2), "bo", Exactness::Like),
    );
    assert_eq!(unknown, Redeemed::Silence);
}

#[test]
fn a_spent_invite_says_used_even_when_it_ran_out_or_was_taken_back() {
    let members = founded();
    let (mut invites, id) = invites(1);
    let _ = granted(invites.redeem(&members, NOW_S, &asks(id, node(2), "bo", Exactness::Like)));
    let late = invites.redeem(
        &members,
        NOW_S + 4000,
        &asks(id, node(3), "carol", Exactness::Like),
    );
    assert_eq!(refusal(late), (1, Some("bo".into()), Some(NOW_S)));
    let unknown = Err(CancelRefused::Unknown(invites.short_id(id)));
    assert_eq!(
        invites.cancel(&invites.short_id(id), NOW_S),
        unknown,
        "nothing is left to take back"
    );
}

#[test]
fn no_ipv4_left_is_refused_before_the_spend() {
    let mut members = nobody();
    let _ = apply(&mut members, &network_with("10.0.0.0/23"));
    let _ = apply(&mut members, &admin(node(1), ALL_RIGHTS, CREATED_S));
    for n in 1..=254_u8 {
        let issued = certificate(&format!("peer-{n}"), CREATED_S, n.into());
        let _ = apply(&mut members, &member(node(n), node(1), issued));
    }
    let (mut invites, id) = invites(1);
    let full = invites.redeem(&members, NOW_S, &asks(id, node(255), "bo", Exactness::Like));
    assert_eq!(refusal(full), (5, None, None));
    assert!(invites.all()[0].spends.is_empty());
    let _ = apply(&mut members, &revoke(node(9), [1; 32], CREATED_S));
    let member =
        granted(invites.redeem(&members, NOW_S, &asks(id, node(255), "bo", Exactness::Like)))
            .member;
    assert_eq!(member.offset4, Some(9), "a revocation frees one");
}

#[test]
fn two_machines_called_debian_become_debian_and_debian_2_before_either_is_applied() {
    let members = founded();
    let (mut invites, id) = invites(2);
    let first = granted(invites.redeem(
        &members,
        NOW_S,
        &asks(id, node(2), "debian", Exactness::Like),
    ));
    let taken = invites.redeem(
        &members,
        NOW_S,
        &asks(id, node(3), "debian", Exactness::Exact),
    );
    assert_eq!(refusal(taken).0, 4);
    let second = granted(invites.redeem(
        &members,
        NOW_S,
        &asks(id, node(3), "debian", Exactness::Like),
    ));
    assert_eq!(
        (first.member.name.as_str(), second.member.name.as_str()),
        ("debian", "debian-2")
    );
    let third = invites.redeem(
        &members,
        NOW_S + 1,
        &asks(id, node(4), "debian", Exactness::Like),
    );
    assert_eq!(refusal(third), (1, Some("debian-2".into()), Some(NOW_S)));
}

#[test]
fn a_member_that_joins_again_keeps_what_was_issued() {
    let mut members = founded();
    let _ = apply(
        &mut members,
        &member(node(2), node(1), certificate("bo", CREATED_S, 8)),
    );
    let (mut invites, id) = invites(1);
    let again = granted(invites.redeem(
        &members,
        NOW_S,
        &asks(id, node(2), "carol", Exactness::Like),
    ))
    .member;
    assert_eq!(
        (again.name.as_str(), again.offset4, again.admitted_at),
        ("bo", Some(8), CREATED_S)
    );
    assert_eq!(
        (again.admission, again.not_after),
        ([1; 8], NOW_S + 90 * DAY_S)
    );
}

#[test]
fn a_revoked_node_that_redeems_hears_nothing() {
    let mut members = founded();
    let _ = apply(&mut members, &revoke(node(2), [1; 32], CREATED_S));
    let (mut invites, id) = invites(1);
    assert_eq!(
        invites.redeem(&members, NOW_S, &asks(id, node(2), "bo", Exactness::Like)),
        Redeemed::Silence
    );
}

#[test]
fn invites_are_listed_while_open_and_named_by_the_first_letters_that_tell_them_apart() {
    let (mut invites, id) = invites(1);
    assert_eq!(invites.list(NOW_S).count(), 1);
    assert_eq!(invites.list(NOW_S + 3600).count(), 0);
    let short = invites.short_id(id);
    assert_eq!(short.len(), 4);
    assert_eq!(
        invites.cancel("", NOW_S),
        Err(CancelRefused::Unknown(String::new()))
    );
    for n in 100..164 {
        let _ = invites.issue(Invite::new(
            InviteSecret([n; 16]),
            NOW_S + 60,
            1,
            InviteRole::Admin,
            Vec::new(),
        ));
    }
    let one_letter = short.chars().take(1).collect::<String>();
    let ids: Vec<String> = invites
        .all()
        .iter()
        .map(|invite| invites.short_id(invite.id()))
        .collect();
    let alike = ids.iter().filter(|id| id.starts_with(&one_letter)).count();
    assert!(alike > 1, "64 ids share letters of 32");
    assert_eq!(
        invites.cancel(&one_letter, NOW_S),
        Err(CancelRefused::Ambiguous(one_letter.clone()))
    );
    assert_eq!(invites.cancel(&short.to_ascii_uppercase(), NOW_S), Ok(id));
}
