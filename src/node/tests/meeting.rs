//! What a node asks of the DHT, when, and what it makes of the answers.

use std::collections::BTreeMap;

use super::*;
use crate::{
    node::{joiner::Lead, meeting::DhtUse, output::FirstContact},
    rendezvous::{Answer, Ask, Item, Mapping, PutOutcome, SlotName},
    wire::slot::{self, Where},
};

/// A DHT whose answers are there at once, and which sees everybody at one address.
#[derive(Default)]
struct Dht {
    items: BTreeMap<[u8; 32], Item>,
    asked: Vec<Ask>,
}

impl Dht {
    fn answer(&mut self, ask: Ask) -> Answer {
        self.asked.push(ask.clone());
        match ask {
            Ask::Get { slot, key } => Answer::Got {
                slot,
                item: self.items.get(&key).cloned(),
            },
            Ask::Put { slot, .. } => Answer::Put {
                slot,
                outcome: PutOutcome::Done,
            },
            Ask::Nodes => Answer::Nodes(vec![address(201), address(202)]),
        }
    }

    fn plant(&mut self, key: &crate::keys::SlotKey, wheres: &[Where]) {
        let value = slot::seal(key, [0; 24], wheres);
        self.items.insert(key.public(), Item { seq: T0_S, value });
    }

    fn slots(&self) -> Vec<SlotName> {
        let slot = |ask: &Ask| match ask {
            Ask::Get { slot, .. } | Ask::Put { slot, .. } => Some(*slot),
            Ask::Nodes => None,
        };
        self.asked.iter().filter_map(slot).collect()
    }
}

/// What a node of the DHT says to a ping: it was seen at 203.0.113.7:9.
fn pong(ping: &[u8]) -> Vec<u8> {
    let transaction = &ping[ping.len() - 11..ping.len() - 7];
    [
        &b"d2:ip6:\xcb\x00\x71\x07\x00\x091:t4:"[..],
        transaction,
        b"1:y1:re",
    ]
    .concat()
}

fn seen() -> Underlay {
    Underlay::new("203.0.113.7:9".parse().unwrap())
}

/// Lets time pass, a tenth of a second at a time; gives what is for others than the DHT.
fn pass(node: &mut Node, dht: &mut Dht, ms: std::ops::Range<u64>) -> Vec<Output> {
    let mut others = Vec::new();
    for now in ms.step_by(100).map(at_ms) {
        node.handle_input(now, Input::Tick);
        while let Some(output) = node.poll_output() {
            if let Output::Slot(ask) = output {
                let answer = dht.answer(ask);
                node.handle_input(now, Input::Slot(answer));
            } else if let Output::Datagram { to, bytes } = output {
                let bytes = pong(&bytes);
                let source = to.direct().unwrap();
                node.handle_input(now, Input::Dht { source, bytes });
            } else {
                others.push(output);
            }
        }
    }
    others
}

fn entry(of: u8, at: Underlay) -> Where {
    Where {
        node: id(of),
        addresses: vec![at],
        time: T0_S,
    }
}

/// The slots of the first day.
fn slots() -> Vec<crate::keys::SlotKey> {
    let day = u32::try_from(T0_S / DAY_S).unwrap();
    (0..4).map(|i| NetSecret([6; 32]).slot(day, i, 0)).collect()
}

fn lonely_anna() -> Node {
    let town = Town::new();
    town.node(ANNA, town.with_sleeping(&[ANNA], BO))
}

#[test]
fn nothing_is_asked_of_a_dht_that_is_not_there() {
    let (mut anna, mut dht) = (lonely_anna(), Dht::default());
    pass(&mut anna, &mut dht, 0..60_000);
    anna.use_dht(at_ms(60_000), DhtUse::On);
    anna.use_dht(at_ms(60_000), DhtUse::Off);
    pass(&mut anna, &mut dht, 60_000..120_000);
    assert!(dht.asked.is_empty());
}

#[test]
fn who_has_no_session_with_anybody_asks_after_three_seconds_until_one_stands() {
    let (mut anna, mut dht) = (lonely_anna(), Dht::default());
    anna.use_dht(at_ms(0), DhtUse::On);
    pass(&mut anna, &mut dht, 0..3_000);
    assert!(dht.asked.is_empty());
    pass(&mut anna, &mut dht, 3_000..4_000);
    let is_put = |ask: &&Ask| matches!(ask, Ask::Put { .. });
    assert_eq!(dht.slots().len(), 5, "four are read and one is written");
    assert_eq!(dht.asked.iter().filter(is_put).count(), 1);
    assert_eq!(
        anna.meeting_view().seen.map(|seen| seen.mapping),
        Some(Mapping::One)
    );
    meet(&mut anna, at_ms(4_000), BO);
    dht.asked.clear();
    // The session is kept as it is: nobody closes it for its silence.
    for second in 4..120 {
        pass(&mut anna, &mut dht, second * 1_000..(second + 1) * 1_000);
        meet(&mut anna, at_ms(second * 1_000), BO);
    }
    assert!(dht.asked.is_empty(), "nobody is missing: {:?}", dht.asked);
}

#[test]
fn who_founded_a_network_alone_asks_for_nobody() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    let mut dht = Dht::default();
    anna.use_dht(at_ms(0), DhtUse::On);
    pass(&mut anna, &mut dht, 0..60_000);
    assert!(dht.asked.is_empty());
}

#[test]
fn a_member_that_was_read_of_is_knocked_at_and_no_stranger_is() {
    let (mut anna, mut dht) = (lonely_anna(), Dht::default());
    let there = Underlay::new("203.0.113.77:5005".parse().unwrap());
    let elsewhere = Underlay::new("203.0.113.78:5005".parse().unwrap());
    for key in &slots() {
        dht.plant(key, &[entry(BO, there), entry(MALLORY, elsewhere)]);
    }
    anna.use_dht(at_ms(0), DhtUse::On);
    let outputs = pass(&mut anna, &mut dht, 0..20_000);
    let dialled = |to: Underlay| {
        let is_there = |output: &&Output| {
            matches!(
                output,
                Output::Dial { to: all, first: FirstContact::Knock { epoch: 0, .. }, .. }
                    if *all == [Path::Direct(to)]
            )
        };
        outputs.iter().filter(is_there).count()
    };
    assert_eq!((dialled(there), dialled(elsewhere)), (10, 0));
    assert_eq!(count(&anna, "dht_not_member"), 0, "it takes no place");
    assert!(anna.meeting_view().met.is_empty());
    meet(&mut anna, at_ms(20_000), BO);
    assert_eq!(
        anna.meeting_view().met.keys().collect::<Vec<_>>(),
        [&id(BO)]
    );
}

#[test]
fn a_session_that_the_dht_had_no_part_in_is_not_said_to_be_its_find() {
    let mut anna = lonely_anna();
    anna.use_dht(at_ms(0), DhtUse::On);
    meet(&mut anna, at_ms(1_000), BO);
    assert!(anna.meeting_view().met.is_empty());
}

#[test]
fn while_an_invite_is_open_its_slots_are_tended_and_its_joiner_gets_a_punch() {
    let town = Town::new();
    let (mut anna, mut dht) = (town.node(ANNA, town.people(&[ANNA])), Dht::default());
    let secret = InviteSecret([8; 16]);
    let options = InviteOptions {
        secret: secret.clone(),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: vec![],
    };
    let there = Underlay::new("203.0.113.77:5005".parse().unwrap());
    dht.plant(&secret.slot(1), &[entry(MALLORY, there)]);
    anna.use_dht(at_ms(0), DhtUse::On);
    anna.invite(at_ms(0), options).unwrap();
    let outputs = pass(&mut anna, &mut dht, 0..15_000);
    let own = SlotName::Invite {
        join_id: secret.join_id(),
        side: 0,
    };
    assert!(
        dht.asked
            .iter()
            .any(|ask| matches!(ask, Ask::Put { slot, .. } if *slot == own))
    );
    let is_punch = |output: &&Output| matches!(output, Output::Punch { to, .. } if *to == there);
    assert_eq!(outputs.iter().filter(is_punch).count(), 10);

    let id = anna.invites(at_ms(15_000))[0].0.clone();
    anna.cancel_invite(at_ms(15_000), &id).unwrap();
    pass(&mut anna, &mut dht, 15_000..17_000);
    dht.asked.clear();
    pass(&mut anna, &mut dht, 17_000..100_000);
    assert!(dht.asked.is_empty(), "it was taken back");
}

/// Where a joiner dials, beside its hint.
fn joining(joiner: &mut Joiner, dht: &mut Dht, ms: std::ops::Range<u64>) -> Vec<Path> {
    let mut dialled = Vec::new();
    for now in ms.step_by(100).map(at_ms) {
        joiner.handle_timeout(now);
        while let Some(output) = joiner.poll_output() {
            if let JoinerOutput::Slot(ask) = output {
                joiner.handle_slot_answer(now, dht.answer(ask));
            } else if let JoinerOutput::Datagram { to, bytes } = output {
                joiner.handle_dht(now, to, &pong(&bytes));
            } else if let JoinerOutput::Dial { to, .. } = output {
                let is_beside = |path: &Path| path.direct().is_some_and(|to| to != address(ANNA));
                dialled.extend(to.into_iter().filter(is_beside));
            }
        }
    }
    dialled
}

#[test]
fn a_joiner_looks_in_the_dht_after_three_seconds_and_dials_where_the_issuer_says() {
    let there = Underlay::new("203.0.113.77:5005".parse().unwrap());
    let (mut joiner, mut dht) = (joiner_at(ANNA), Dht::default());
    dht.plant(&InviteSecret([8; 16]).slot(0), &[entry(ANNA, there)]);
    joiner.use_dht([1; 32], &[]);
    assert!(joining(&mut joiner, &mut dht, 0..3_000).is_empty() && dht.asked.is_empty());
    let dialled = joining(&mut joiner, &mut dht, 3_000..7_100);
    assert_eq!(dialled, [Path::Direct(there); 5]);
    assert!(
        dht.asked.iter().any(|ask| matches!(ask, Ask::Put { .. })),
        "and says where it is"
    );
    assert_eq!(
        joiner.seen().map(|seen| seen.addresses.clone()),
        Some(vec![seen()])
    );

    joiner.handle_up(at_ms(7_034), Path::Direct(there));
    let mut reached = None;
    while let Some(output) = joiner.poll_output() {
        if let JoinerOutput::Reached { lead, after, .. } = output {
            reached = Some((lead, after.as_millis()));
        }
    }
    assert_eq!(
        reached,
        Some((Lead::Dht, 34)),
        "since it was last dialled there"
    );
    dht.asked.clear();
    joining(&mut joiner, &mut dht, 7_100..7_900);
    assert!(dht.asked.is_empty(), "the DHT has done its part");
}

#[test]
fn a_joiner_dials_where_a_punch_came_from() {
    let from = Underlay::new("203.0.113.78:6006".parse().unwrap());
    let (mut joiner, mut dht) = (joiner_at(ANNA), Dht::default());
    joiner.use_dht([1; 32], &[]);
    joining(&mut joiner, &mut dht, 0..4_000);
    joiner.handle_punch(at_ms(4_000), from);
    let dialled = joining(&mut joiner, &mut dht, 4_000..7_000);
    assert_eq!(dialled, [Path::Direct(from); 5]);
}
