//! The rules of ways and legs: two ends and a relay, each datagram handed over by hand.

use std::time::Duration;

use super::{
    LegEvent, Order, Reason,
    asking::{self, Asking, Offered, Why},
    binding::{Key, bind_nonce},
    grants::{Grants, IN_ALL, PER_MEMBER, Standing, Willing, Wish},
    legs::{self, Legs},
    quota::Limit,
    ways::{Frame, Given, Onward, Refusal, Ways},
};
use crate::{
    addr::{Path, Underlay},
    ids::{LegIx, PeerIx},
    time::{Moment, Now},
    wire::datagram::{RelayBinding, RelayStep},
};

const ANNA: PeerIx = PeerIx(1);
const BO: PeerIx = PeerIx(2);
const CAROL: PeerIx = PeerIx(3);
const LEG: LegIx = LegIx(7);
const ANNA_ID: [u8; 4] = [1; 4];
const BO_ID: [u8; 4] = [2; 4];
/// What frames to each carry.
const ANNAS: u32 = 0xaaaa;
const BOS: u32 = 0xbbbb;
const BEGIN: Moment = Moment(1_000_000);

fn at(last: u8) -> Path {
    Path::Direct(Underlay::new(([192, 0, 2, last], 41_820).into()))
}

fn seconds(after: u64) -> Moment {
    BEGIN.after(Duration::from_secs(after))
}

fn now(after: u64) -> Now {
    Now {
        at: seconds(after),
        unix_ms: 1_800_000_000_000,
    }
}

fn given() -> [Given; 2] {
    [(ANNA_ID, ANNA, 1), (BO_ID, BO, 2)].map(|(id, member, key)| Given {
        id,
        key: Key([key; 32]),
        member,
    })
}

/// A relay with one way, nobody bound.
fn open() -> Ways {
    let mut ways = Ways::new(Limit::of_megabits(1000));
    let _counters = ways.open(BEGIN, given());
    ways
}

/// Binds an end from there; what the relay makes of it.
fn bind(ways: &mut Ways, when: Moment, end: u8, from: (Path, usize)) -> Result<(), Refusal> {
    let (id, key, own) = match end {
        1 => (ANNA_ID, Key([1; 32]), ANNAS),
        _ => (BO_ID, Key([2; 32]), BOS),
    };
    let nonce = bind_nonce(own, [9; 12]);
    let bind = key.bind(id, nonce);
    let challenge = ways.handle_binding(when, from, &bind, [3; 16])?.unwrap();
    let answer = key.answer(&challenge, &nonce);
    assert_eq!(ways.handle_binding(when, from, &answer, [0; 16])?, None);
    Ok(())
}

/// A relay whose way is bound at both ends.
fn bound() -> Ways {
    let mut ways = open();
    bind(&mut ways, BEGIN, 1, (at(1), 0)).unwrap();
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    ways
}

fn frame(source: Path, id: [u8; 4]) -> Frame {
    Frame {
        source,
        id,
        len: 100,
        nested: false,
    }
}

#[test]
fn what_comes_from_a_bound_end_goes_to_the_other_under_its_own_id() {
    let mut ways = bound();
    let to_bo = Onward {
        path: at(2),
        id: BOS,
    };
    assert_eq!(ways.forward(BEGIN, &frame(at(1), ANNA_ID)), Ok(to_bo));
    let to_anna = Onward {
        path: at(1),
        id: ANNAS,
    };
    assert_eq!(ways.forward(BEGIN, &frame(at(2), BO_ID)), Ok(to_anna));
}

#[test]
fn nothing_is_carried_before_both_ends_are_bound() {
    let mut ways = open();
    let from_anna = frame(at(1), ANNA_ID);
    assert_eq!(ways.forward(BEGIN, &from_anna), Err(Refusal::Stranger));
    bind(&mut ways, BEGIN, 1, (at(1), 0)).unwrap();
    assert_eq!(ways.forward(BEGIN, &from_anna), Err(Refusal::OtherAway));
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    assert!(ways.forward(BEGIN, &from_anna).is_ok());
}

#[test]
fn what_comes_before_the_other_end_is_bound_waits_for_it() {
    let mut ways = open();
    let from_anna = frame(at(1), ANNA_ID);
    assert!(!ways.hold(BEGIN, &frame(at(1), [9; 4]), b"to nobody"));
    bind(&mut ways, BEGIN, 1, (at(1), 0)).unwrap();
    assert!(ways.hold(BEGIN, &from_anna, b"knock"));
    assert!(ways.take_held(BEGIN, ANNA_ID).is_empty());
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    let to_bo = Onward {
        path: at(2),
        id: BOS,
    };
    let sent_on = ways.take_held(BEGIN, BO_ID);
    assert_eq!(sent_on, [(to_bo, b"knock".to_vec())]);
    assert!(ways.take_held(BEGIN, BO_ID).is_empty());
    // What a stranger put there, from elsewhere, goes nowhere.
    assert!(ways.hold(BEGIN, &frame(at(66), ANNA_ID), b"forged"));
    assert!(ways.take_held(BEGIN, BO_ID).is_empty());
}

#[test]
fn a_frame_from_elsewhere_is_dropped_and_binds_nothing() {
    let mut ways = bound();
    for source in [at(66), at(2), Path::Relay(LEG)] {
        let stolen = frame(source, ANNA_ID);
        assert_eq!(ways.forward(BEGIN, &stolen), Err(Refusal::Stranger));
    }
    let stranger = frame(at(1), [9; 4]);
    assert_eq!(ways.forward(BEGIN, &stranger), Err(Refusal::Stranger));
    assert_eq!(
        ways.forward(BEGIN, &frame(at(2), BO_ID)).unwrap().path,
        at(1)
    );
}

#[test]
fn an_end_that_was_not_heard_for_a_minute_is_sent_nothing() {
    let mut ways = bound();
    for second in 0..59 {
        assert!(
            ways.forward(seconds(second), &frame(at(1), ANNA_ID))
                .is_ok(),
            "{second}"
        );
    }
    let late = ways.forward(seconds(60), &frame(at(1), ANNA_ID));
    assert_eq!(late, Err(Refusal::OtherAway));
    // What it sends itself makes it heard again; what a stranger sends does not.
    let stolen = frame(at(66), BO_ID);
    assert!(ways.forward(seconds(61), &stolen).is_err());
    assert!(ways.forward(seconds(61), &frame(at(1), ANNA_ID)).is_err());
    assert!(ways.forward(seconds(62), &frame(at(2), BO_ID)).is_ok());
    assert!(ways.forward(seconds(63), &frame(at(1), ANNA_ID)).is_ok());
}

#[test]
fn a_bind_without_the_right_mac_is_not_answered() {
    let mut ways = open();
    let good = Key([1; 32]).bind(ANNA_ID, bind_nonce(ANNAS, [9; 12]));
    let bad: [RelayBinding; 5] = [
        Key([2; 32]).bind(ANNA_ID, good.nonce),
        RelayBinding { id: BO_ID, ..good },
        RelayBinding {
            nonce: [0; 16],
            ..good
        },
        RelayBinding {
            step: RelayStep::Answer,
            ..good
        },
        RelayBinding {
            step: RelayStep::Challenge,
            ..good
        },
    ];
    for binding in bad {
        let said = ways.handle_binding(BEGIN, (at(66), 0), &binding, [3; 16]);
        assert_eq!(said, Err(Refusal::Stranger), "{binding:?}");
    }
    let said = ways.handle_binding(BEGIN, (at(1), 0), &good, [3; 16]);
    let challenge = said.unwrap().unwrap();
    assert!(challenge.encode().len() <= good.encode().len());
}

#[test]
fn who_plays_back_a_bind_from_elsewhere_binds_nothing_and_undoes_nothing() {
    let mut ways = open();
    let key = Key([1; 32]);
    let nonce = bind_nonce(ANNAS, [9; 12]);
    let recorded = key.bind(ANNA_ID, nonce);
    let said = ways.handle_binding(BEGIN, (at(1), 0), &recorded, [3; 16]);
    let challenge = said.unwrap().unwrap();
    let stolen = ways.handle_binding(BEGIN, (at(66), 0), &recorded, [4; 16]);
    assert!(stolen.unwrap().is_some());
    // The answer counts from where its challenge went, and nowhere else.
    let answer = key.answer(&challenge, &nonce);
    let from_eve = ways.handle_binding(BEGIN, (at(66), 0), &answer, [0; 16]);
    assert_eq!(from_eve, Err(Refusal::Stranger));
    assert!(
        ways.handle_binding(BEGIN, (at(1), 0), &answer, [0; 16])
            .is_ok()
    );
    let again = ways.handle_binding(BEGIN, (at(1), 0), &answer, [0; 16]);
    assert_eq!(
        again,
        Err(Refusal::Stranger),
        "a challenge is answered once"
    );
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    assert_eq!(
        ways.forward(BEGIN, &frame(at(2), BO_ID)).unwrap().path,
        at(1)
    );
}

#[test]
fn an_end_that_moved_binds_again_from_there() {
    let mut ways = bound();
    bind(&mut ways, seconds(1), 1, (at(5), 0)).unwrap();
    assert_eq!(
        ways.forward(seconds(1), &frame(at(2), BO_ID)).unwrap().path,
        at(5)
    );
    assert!(ways.forward(seconds(1), &frame(at(1), ANNA_ID)).is_err());
}

#[test]
fn after_two_minutes_an_end_proves_again_where_it_is_or_is_bound_no_more() {
    let mut ways = bound();
    for second in (0..120).step_by(20) {
        ways.forward(seconds(second), &frame(at(1), ANNA_ID))
            .unwrap();
        ways.forward(seconds(second), &frame(at(2), BO_ID)).unwrap();
        assert!(ways.poll_challenges(seconds(second), || [5; 16]).is_empty());
    }
    let asked = ways.poll_challenges(seconds(120), || [5; 16]);
    assert_eq!(asked.len(), 2);
    assert!(ways.poll_challenges(seconds(121), || [6; 16]).is_empty());
    // Anna answers; in bo's place sits another, who sends frames and cannot answer.
    let (to, challenge) = asked.iter().find(|(to, _)| *to == at(1)).unwrap();
    let answer = Key([1; 32]).answer(challenge, &bind_nonce(ANNAS, [9; 12]));
    ways.handle_binding(seconds(122), (*to, 0), &answer, [0; 16])
        .unwrap();
    ways.forward(seconds(125), &frame(at(2), BO_ID)).unwrap();
    assert!(ways.poll_challenges(seconds(130), || [7; 16]).is_empty());
    let to_bo = ways.forward(seconds(130), &frame(at(1), ANNA_ID));
    assert_eq!(to_bo, Err(Refusal::OtherAway));
    let from_bo = ways.forward(seconds(130), &frame(at(2), BO_ID));
    assert_eq!(from_bo, Err(Refusal::Stranger));
}

#[test]
fn a_way_that_is_not_bound_in_time_or_not_used_is_over() {
    let mut ways = open();
    bind(&mut ways, BEGIN, 1, (at(1), 0)).unwrap();
    assert_eq!(ways.poll_over(seconds(29)), None);
    assert_eq!(ways.poll_over(seconds(30)), Some(ANNA_ID));
    assert!(ways.is_empty() && !ways.has_end(BO_ID));

    let mut ways = bound();
    ways.forward(seconds(40), &frame(at(1), ANNA_ID)).unwrap();
    assert_eq!(ways.poll_over(seconds(339)), None);
    assert!(ways.poll_challenges(seconds(339), || [0; 16]).is_empty());
    assert_eq!(ways.poll_over(seconds(340)), Some(ANNA_ID));
}

#[test]
fn two_relays_are_the_most_that_lie_one_behind_the_other() {
    let behind = Path::Relay(LEG);
    let mut ways = open();
    assert_eq!(
        bind(&mut ways, BEGIN, 1, (behind, 2)),
        Err(Refusal::TooDeep),
        "this one would be the third"
    );
    bind(&mut ways, BEGIN, 1, (behind, 1)).unwrap();
    assert_eq!(
        bind(&mut ways, BEGIN, 2, (Path::Relay(LegIx(8)), 1)),
        Err(Refusal::TooDeep)
    );
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    let nested = Frame {
        nested: true,
        ..frame(at(2), BO_ID)
    };
    assert_eq!(ways.forward(BEGIN, &nested), Err(Refusal::TooDeep));
    assert!(ways.forward(BEGIN, &frame(at(2), BO_ID)).is_ok());
}

#[test]
fn what_a_way_carried_is_counted_and_what_was_dropped_is_not() {
    let mut ways = open();
    let counters = ways.open(BEGIN, given());
    bind(&mut ways, BEGIN, 1, (at(1), 0)).unwrap();
    bind(&mut ways, BEGIN, 2, (at(2), 0)).unwrap();
    ways.forward(BEGIN, &frame(at(1), ANNA_ID)).unwrap();
    ways.forward(BEGIN, &frame(at(2), BO_ID)).unwrap();
    assert!(ways.forward(BEGIN, &frame(at(66), BO_ID)).is_err());
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((load(&counters.packets), load(&counters.bytes)), (2, 200));
    ways.close(BO_ID);
    assert!(ways.is_empty());
}

fn wish(from: PeerIx, to: PeerIx) -> Wish {
    Wish {
        from: (from, Standing::There(0)),
        to: (to, Standing::There(0)),
    }
}

#[test]
fn a_way_is_granted_to_two_that_the_relay_has_sessions_with_and_to_nobody_else() {
    let mut grants = Grants::new([1; 32], Willing::Yes);
    let refused = |wish| Grants::new([1; 32], Willing::Yes).grant(&wish).err();
    assert_eq!(refused(wish(ANNA, ANNA)), Some(Reason::NoSession));
    let away = Wish {
        to: (BO, Standing::Away),
        ..wish(ANNA, BO)
    };
    assert_eq!(refused(away), Some(Reason::NoSession));
    let deep = Wish {
        from: (ANNA, Standing::There(1)),
        to: (BO, Standing::There(1)),
    };
    assert_eq!(refused(deep), Some(Reason::TooDeep));
    let unwilling = Grants::new([1; 32], Willing::No).grant(&wish(ANNA, BO));
    assert_eq!(unwilling.err(), Some(Reason::Unwilling));

    let [anna, bo] = grants.grant(&wish(ANNA, BO)).unwrap();
    assert_eq!((anna.member, bo.member), (ANNA, BO));
    assert!(anna.id != bo.id && anna.key != bo.key);
    // Asked from the other side it is the same way.
    assert_eq!(grants.grant(&wish(BO, ANNA)).unwrap(), [bo, anna]);
    assert_eq!(grants.len(), 1);
}

#[test]
fn who_wanted_somebody_that_was_away_is_remembered_for_five_seconds() {
    let mut grants = Grants::new([1; 32], Willing::Yes);
    grants.note_wish(seconds(0), ANNA, BO);
    grants.note_wish(seconds(3), CAROL, BO);
    assert!(grants.take_wishes(seconds(4), ANNA).is_empty());
    assert_eq!(grants.take_wishes(seconds(5), BO), [CAROL]);
    assert!(grants.take_wishes(seconds(5), BO).is_empty(), "said once");
    let mut unwilling = Grants::new([1; 32], Willing::No);
    unwilling.note_wish(seconds(0), ANNA, BO);
    assert!(unwilling.take_wishes(seconds(1), BO).is_empty());
    for asker in 0..1000 {
        grants.note_wish(seconds(6), PeerIx(asker), BO);
    }
    assert_eq!(grants.take_wishes(seconds(6), BO).len(), 256);
}

#[test]
fn a_member_has_so_many_ways_and_all_together_so_many() {
    let mut grants = Grants::new([1; 32], Willing::Yes);
    let most = u32::try_from(PER_MEMBER).unwrap();
    for other in 0..most {
        grants.grant(&wish(ANNA, PeerIx(100 + other))).unwrap();
    }
    let one_more = grants.grant(&wish(ANNA, BO)).err();
    assert_eq!(one_more, Some(Reason::TooMany));
    assert_eq!(
        grants.grant(&wish(BO, ANNA)).err(),
        Some(Reason::TooMany),
        "nor by asking others to ask"
    );
    assert!(grants.grant(&wish(BO, CAROL)).is_ok());
    let mut pairs = (0..50).flat_map(|a| (50..100).map(move |b| (PeerIx(1000 + a), PeerIx(b))));
    while grants.len() < IN_ALL {
        let (a, b) = pairs.next().unwrap();
        grants.grant(&wish(a, b)).unwrap();
    }
    assert_eq!(
        grants.grant(&wish(PeerIx(7), PeerIx(8))).err(),
        Some(Reason::TooMany)
    );
    let ended = grants.handle_out(ANNA);
    assert_eq!(ended.len(), PER_MEMBER);
    assert!(grants.grant(&wish(PeerIx(7), PeerIx(8))).is_ok());
}

fn leg_given() -> legs::Given {
    legs::Given {
        relay: at(3),
        theirs: ANNA_ID,
        ours: ANNAS,
        key: Key([1; 32]),
    }
}

#[test]
fn an_end_and_a_relay_bind_in_three_datagrams_of_which_two_may_be_lost() {
    let mut ways = open();
    let mut legs = Legs::default();
    let (to, bind) = legs.add(BEGIN, LEG, leg_given(), [9; 12]).unwrap();
    assert_eq!(to, at(3));
    let mut said = Vec::new();
    let mut events = Vec::new();
    let half = BEGIN.after(Duration::from_millis(250));
    legs.handle_timers(
        half,
        |_, bind| said.push(bind),
        |_, event| events.push(event),
    );
    assert_eq!(said, [bind], "the first may be lost");
    let challenge = ways
        .handle_binding(half, (at(1), 0), &bind, [3; 16])
        .unwrap()
        .unwrap();
    let (answer, news) = legs.handle_challenge(half, at(3), &challenge).unwrap();
    assert_eq!(news, Some(LEG));
    said.clear();
    let later = half.after(Duration::from_millis(250));
    legs.handle_timers(
        later,
        |_, again| said.push(again),
        |_, event| events.push(event),
    );
    assert_eq!(said, [answer], "and so may the last");
    assert!(
        ways.handle_binding(later, (at(1), 0), &answer, [0; 16])
            .is_ok()
    );
    assert!(events.is_empty() && legs.is_quiet());
}

#[test]
fn a_challenge_from_elsewhere_or_with_a_wrong_mac_is_not_answered() {
    let mut legs = Legs::default();
    let (_, bind) = legs.add(BEGIN, LEG, leg_given(), [9; 12]).unwrap();
    let good = Key([1; 32]).challenge(ANNA_ID, [3; 16], &bind.nonce);
    assert!(legs.handle_challenge(BEGIN, at(66), &good).is_none());
    let forged = Key([2; 32]).challenge(ANNA_ID, [3; 16], &bind.nonce);
    assert!(legs.handle_challenge(BEGIN, at(3), &forged).is_none());
    let old = Key([1; 32]).challenge(ANNA_ID, [3; 16], &[0; 16]);
    assert!(legs.handle_challenge(BEGIN, at(3), &old).is_none());
    assert!(legs.handle_challenge(BEGIN, at(3), &good).is_some());
}

#[test]
fn a_relay_that_says_nothing_is_given_up_after_5_s() {
    let mut legs = Legs::default();
    let _bind = legs.add(BEGIN, LEG, leg_given(), [9; 12]);
    let (mut binds, mut silent) = (1, Vec::new());
    for quarter in 1..40 {
        let when = BEGIN.after(Duration::from_millis(250 * quarter));
        legs.handle_timers(
            when,
            |_, _| binds += 1,
            |leg, event| silent.push((leg, event)),
        );
    }
    assert_eq!((binds, silent), (5, vec![(LEG, LegEvent::Silent)]));
}

#[test]
fn a_leg_behind_a_leg_has_two_frames_and_a_third_is_no_path() {
    let mut legs = Legs::default();
    let behind = |relay, theirs: u8, ours| legs::Given {
        relay,
        theirs: [theirs; 4],
        ours,
        key: Key([1; 32]),
    };
    let [near, far, too_far] = [1, 2, 3].map(LegIx);
    let _ = legs.add(BEGIN, near, behind(at(3), 1, 11), [0; 12]);
    let _ = legs.add(BEGIN, far, behind(Path::Relay(near), 2, 12), [0; 12]);
    let _ = legs.add(BEGIN, too_far, behind(Path::Relay(far), 3, 13), [0; 12]);
    let framing = legs.framing(Path::Relay(far)).unwrap();
    assert_eq!(framing.to, at(3));
    assert_eq!(
        framing.heads(),
        [[0x20, 0, 0, 0, 2, 2, 2, 2], [0x20, 0, 0, 0, 1, 1, 1, 1]]
    );
    assert_eq!(legs.framing(Path::Relay(too_far)), None);
    assert_eq!(legs.framing(Path::Relay(LegIx(9))), None);
    assert_eq!(legs.received(at(3), 11), Some(near));
    assert_eq!(legs.received(Path::Relay(near), 12), Some(far));
    assert_eq!(legs.received(at(3), 12), None);
    assert_eq!(legs.received(at(66), 11), None);
}

#[test]
fn two_that_send_by_way_of_each_other_send_nothing_for_ever() {
    let mut legs = Legs::default();
    let [one, other] = [1, 2].map(LegIx);
    let given = |relay, ours| legs::Given {
        relay,
        ours,
        ..leg_given()
    };
    let _ = legs.add(BEGIN, one, given(Path::Relay(other), 1), [0; 12]);
    let _ = legs.add(BEGIN, other, given(Path::Relay(one), 2), [0; 12]);
    assert_eq!(legs.framing(Path::Relay(one)), None);
}

fn offered(relay: PeerIx) -> Offered {
    Offered {
        relay,
        at: at(3),
        to: BO,
        id: [5; 4],
        key: Key([1; 32]),
        why: Why::Wanted,
    }
}

fn drain(asking: &mut Asking) -> Vec<asking::Output> {
    std::iter::from_fn(|| asking.poll_output()).collect()
}

/// A leg to bo through each of these, bound.
fn with_legs(relays: &[PeerIx]) -> (Asking, Vec<LegIx>) {
    let mut asking = Asking::new([1; 32]);
    let mut legs = Vec::new();
    for relay in relays {
        asking.handle_offer(now(0), offered(*relay));
        for output in drain(&mut asking) {
            if let asking::Output::Order(Order::AddLeg { leg, .. }) = output {
                legs.push(leg);
                asking.handle_leg(now(0), leg, LegEvent::Bound);
            }
        }
    }
    drain(&mut asking);
    (asking, legs)
}

#[test]
fn the_three_nearest_relays_are_asked_once_a_second_and_one_that_said_no_less_often() {
    let mut asking = Asking::new([1; 32]);
    let relays = [10, 11, 12, 13].map(PeerIx);
    asking.ask(now(0), BO, &relays);
    let asked = |relay| asking::Output::Ask { relay, to: BO };
    assert_eq!(
        drain(&mut asking),
        [asked(relays[0]), asked(relays[1]), asked(relays[2])]
    );
    asking.ask(now(0), BO, &relays);
    assert!(drain(&mut asking).is_empty());
    asking.handle_closed(now(0), (relays[0], BO), Reason::NoSession.number());
    asking.ask(now(2), BO, &relays);
    assert_eq!(drain(&mut asking), [asked(relays[1]), asked(relays[2])]);
    assert!(asking.has_refused(now(2), relays[0], BO));
    assert!(
        !asking.has_refused(now(6), relays[0], BO),
        "it forgot by then that bo was wanted"
    );
    asking.handle_closed(now(6), (relays[0], BO), Reason::Unwilling.number());
    assert!(asking.has_refused(now(11), relays[0], BO));
}

/// Three legs to bo, of which the first carries data, measured again after so many seconds.
fn three_measured(ms: [u64; 3], after: u64, heard: Option<usize>) -> (Asking, Vec<LegIx>) {
    let (mut asking, legs) = with_legs(&[CAROL, PeerIx(4), PeerIx(5)]);
    if let Some(heard) = heard {
        asking.handle_heard(now(after), legs[heard]);
    }
    for (leg, ms) in legs.iter().zip(ms) {
        asking.handle_pong(now(after), *leg, Duration::from_millis(ms), Some(legs[0]));
    }
    (asking, legs)
}

#[test]
fn of_three_legs_one_that_is_much_longer_goes_and_the_one_in_use_stays_whatever_it_takes() {
    let (mut asking, legs) = three_measured([90, 30, 90], 30, None);
    assert!(asking.is_awake(legs[0]) && asking.is_awake(legs[1]));
    let lost = asking::Output::Lost {
        leg: legs[2],
        to: BO,
    };
    assert!(drain(&mut asking).contains(&lost));
}

#[test]
fn legs_of_about_one_length_are_kept_and_those_that_the_other_end_uses() {
    for (ms, after, heard) in [
        ([30, 31, 38], 30, None),
        ([30, 31, 38], 1, None),
        ([90, 30, 90], 1, None),
        ([90, 30, 90], 30, Some(2)),
    ] {
        let (mut asking, legs) = three_measured(ms, after, heard);
        assert_eq!(asking.count_to(BO), legs.len(), "{ms:?}");
        assert!(drain(&mut asking).is_empty());
    }
}

#[test]
fn a_way_that_the_other_end_did_not_take_up_is_asked_for_again_and_one_that_leads_through_is_not() {
    let (mut asking, legs) = with_legs(&[CAROL]);
    asking.ask(now(2), BO, &[CAROL]);
    let asked = asking::Output::Ask {
        relay: CAROL,
        to: BO,
    };
    assert_eq!(drain(&mut asking), [asked]);
    assert_eq!(asking.sought(now(2)), [BO]);
    assert!(asking.sought(now(4)).is_empty());
    // Offered again it is bound, and tried, again …
    asking.handle_offer(now(2), offered(CAROL));
    let again = asking::Output::Order(Order::BindLeg(legs[0]));
    assert_eq!(drain(&mut asking), [again]);
    asking.handle_offer(now(2), offered(CAROL));
    assert!(drain(&mut asking).is_empty(), "it is on its way");
    asking.handle_leg(now(2), legs[0], LegEvent::Bound);
    let bound = asking::Output::Bound {
        leg: legs[0],
        to: BO,
    };
    assert_eq!(drain(&mut asking), [bound]);
    // … until a Pong came over it.
    asking.handle_pong(now(2), legs[0], Duration::from_millis(5), None);
    asking.handle_offer(now(4), offered(CAROL));
    asking.ask(now(4), BO, &[CAROL]);
    assert!(drain(&mut asking).is_empty());
}

#[test]
fn who_is_not_answered_or_moved_says_anew_where_it_is_and_not_too_often() {
    let (mut asking, legs) = with_legs(&[CAROL, PeerIx(4)]);
    let again = |leg: &LegIx| asking::Output::Order(Order::BindLeg(*leg));
    let both: Vec<asking::Output> = legs.iter().map(again).collect();
    asking.handle_doubted(now(0), BO);
    assert!(drain(&mut asking).is_empty(), "it was said just now");
    asking.handle_doubted(now(1), BO);
    assert_eq!(drain(&mut asking), both);
    asking.handle_doubted(now(1), BO);
    asking.handle_doubted(now(2), CAROL);
    assert!(drain(&mut asking).is_empty());
    asking.handle_sought(now(1), BO);
    assert_eq!(drain(&mut asking), both, "in any case");
    asking.handle_moved(now(1));
    assert_eq!(drain(&mut asking), both);
}

#[test]
fn a_leg_in_use_is_bound_again_and_one_that_nobody_uses_says_nothing_more() {
    let (mut asking, legs) = with_legs(&[CAROL]);
    asking.handle_used(now(20), BO);
    asking.handle_timeout(now(25));
    let again = asking::Output::Order(Order::BindLeg(legs[0]));
    assert_eq!(drain(&mut asking), [again]);
    asking.handle_timeout(now(50));
    let rest = asking::Output::Order(Order::RestLeg(legs[0]));
    assert_eq!(drain(&mut asking), [rest]);
    assert!(!asking.is_awake(legs[0]));
    asking.handle_timeout(now(319));
    assert!(drain(&mut asking).is_empty(), "0 bytes while idle");
    asking.handle_timeout(now(320));
    assert_eq!(drain(&mut asking).len(), 2, "forgotten");
}

#[test]
fn a_leg_that_rests_is_offered_again_and_carries_once_a_pong_came_over_it() {
    let (mut asking, legs) = with_legs(&[CAROL]);
    asking.handle_timeout(now(25));
    drain(&mut asking);
    asking.ask(now(30), BO, &[CAROL]);
    assert_eq!(drain(&mut asking).len(), 1, "asked though the leg is there");
    asking.handle_offer(now(30), offered(CAROL));
    asking.handle_leg(now(30), legs[0], LegEvent::Bound);
    assert!(
        !asking.is_awake(legs[0]),
        "the other end may not be there yet"
    );
    drain(&mut asking);
    asking.handle_pong(now(30), legs[0], Duration::from_millis(5), None);
    assert!(asking.is_awake(legs[0]));
    let wakes = asking::Output::Order(Order::WakeLeg(legs[0]));
    assert_eq!(drain(&mut asking), [wakes]);
}

#[test]
fn one_peer_cannot_make_this_machine_keep_legs_without_end() {
    let mut asking = Asking::new([1; 32]);
    for relay in 10..1000 {
        asking.handle_offer(now(0), offered(PeerIx(relay)));
    }
    assert_eq!(asking.count_to(BO), 4);
}

#[test]
fn one_relay_cannot_fill_all_places_with_ways_that_nobody_asked_for() {
    let unasked = |relay, to| Offered {
        to: PeerIx(to),
        why: Why::Unasked,
        ..offered(relay)
    };
    let mut asking = Asking::new([1; 32]);
    for to in 100..1000 {
        asking.handle_offer(now(0), unasked(CAROL, to));
    }
    let kept = (100..1000).filter(|to| asking.count_to(PeerIx(*to)) > 0);
    assert_eq!(kept.count(), 64);
    // Four that conspire against one peer give way to the one that was asked for it.
    for relay in 10..20 {
        asking.handle_offer(now(0), unasked(PeerIx(relay), BO.0));
    }
    assert_eq!(asking.count_to(BO), 4);
    asking.handle_offer(now(1), offered(PeerIx(50)));
    assert!(asking.relays_to(BO).contains(&PeerIx(50)));
    assert_eq!(asking.count_to(BO), 4);
}

#[test]
fn a_relay_that_moved_is_bound_to_again_where_it_is() {
    let (mut asking, legs) = with_legs(&[CAROL]);
    asking.handle_relay_at(CAROL, at(3));
    assert!(drain(&mut asking).is_empty());
    asking.handle_relay_at(CAROL, at(4));
    let moved = Order::MoveLeg {
        leg: legs[0],
        relay: at(4),
    };
    assert_eq!(drain(&mut asking), [asking::Output::Order(moved)]);
    asking.handle_relay_at(CAROL, Path::Relay(LegIx(99)));
    assert_eq!(asking.depth_of(legs[0]), 2);
}
