//! The rules that no core keeps alone (protocol §2, §4, §7–§9): nodes driven by hand, one input at a time.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one output among all others"
)]

use super::{
    Identity, InviteOptions, Ipv4Use, Node, Restored, Settings,
    founding::{Founding, found},
    input::{Input, PersistOutcome, Row, SessionEvent, Used},
    joiner::{Joiner, JoinerOutput, StreamTo, Wish},
    kept::Kept,
    output::{Notice, Output, Write},
};
use crate::{
    addr::{Path, Underlay},
    gossip::Shelf,
    ids::{Boot, JoinIx, NetworkId, NodeId, SessionId, Slot, StreamIx},
    keys::{InviteSecret, NetSecret, NodeKey, RootSeed, Token, TunnelKey, Word},
    members::invites::InviteRole,
    node::gossiping::RegistryShelf,
    overlay::Limits,
    relay::grants::Willing,
    tables::Admission,
    time::{Moment, Now},
    wire::{
        message::{Bye, Granted, Hello, Link, Message, Records, Redeem, Want},
        record::{self, Body, Draft, Kind, Record, slot_of},
        sealed::{Header, Join, Kind as SealedKind, Knock, Sealed},
    },
};

mod aiming;
mod calling;
mod linking;
mod locating;
mod meeting;
mod neighbours;
mod proving;
mod relaying;
mod roaming;
mod streaming;

const ANNA: u8 = 1;
const BO: u8 = 2;
const CAROL: u8 = 3;
const MALLORY: u8 = 9;
/// When everything begins.
const T0_S: u64 = 1_795_000_000;
const DAY_S: u64 = 86_400;
const OLD_RUN: Boot = Boot([1; 8]);
const NEW_RUN: Boot = Boot([2; 8]);

fn at_ms(ms: u64) -> Now {
    Now {
        at: Moment(1_000_000 + ms * 1000),
        unix_ms: T0_S * 1000 + ms,
    }
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

fn id(seed: u8) -> NodeId {
    key(seed).id()
}

fn address(seed: u8) -> Underlay {
    Underlay::new(format!("192.0.2.{seed}:41820").parse().unwrap())
}

/// A network that anna founded, and what its people sign.
struct Town {
    network: NetworkId,
    root: RootSeed,
    founded: Restored,
}

impl Town {
    fn new() -> Self {
        Self::with_pool(None)
    }

    fn with_pool(pool4: Option<&str>) -> Self {
        let root = RootSeed([5; 16]);
        let founding = Founding {
            name: "home".to_owned(),
            domain: "home.internal".to_owned(),
            peer: "anna".to_owned(),
            pool4: pool4.map(|pool| pool.parse().unwrap()),
            root: root.clone(),
            secret: NetSecret([6; 32]),
            admission: [7; 8],
        };
        let (network, founded) = found(at_ms(0), founding, &key(ANNA)).unwrap();
        Self {
            network,
            root,
            founded,
        }
    }

    /// A record that `signer` signs about `subject`.
    fn says(&self, signer: u8, subject: u8, seq: u64, body: Body) -> Record {
        let draft = Draft {
            seq,
            subject: id(subject).0,
            signer: id(signer).0,
            body,
        };
        let sign = |bytes: &[u8]| key(signer).sign(Word::Record, &self.network.0, &[bytes]);
        draft.sign_with(sign).unwrap()
    }

    fn member(&self, seed: u8, not_after: u64) -> Record {
        let member = record::Member {
            name: format!("peer{seed}"),
            admission: [seed; 8],
            admitted_at: T0_S - 100 * DAY_S + u64::from(seed),
            offset4: Some(u64::from(seed)),
            groups: None,
            role: 0,
            offers: Some(vec!["*".to_owned()]),
            not_after,
            routes: None,
            guests: None,
        };
        self.says(ANNA, seed, T0_S * 1000 - 5000, Body::Member(member))
    }

    fn peer(&self, seed: u8) -> Record {
        let tunnel = TunnelKey::from_seed([100 + seed; 32]);
        let peer = record::Peer {
            tunnel: tunnel.public(),
            cross: tunnel.cross_sign(id(seed), &self.network.0),
            wire_min: 1,
            wire_max: 1,
            features: 0,
            flags: 1,
            addresses: Some(vec![address(seed)]),
        };
        self.says(seed, seed, T0_S * 1000, Body::Peer(peer))
    }

    fn lease(&self, seed: u8, made_s: u64) -> Record {
        let lease = record::Lease {
            incarnation: OLD_RUN,
            expires: made_s + 12 * 3600,
            left: false,
        };
        self.says(seed, seed, made_s * 1000, Body::Lease(lease))
    }

    /// An epoch that began so many days ago.
    fn epoch(&self, n: u32, age_days: u64) -> Record {
        let draft = Draft {
            seq: (T0_S - age_days * DAY_S) * 1000,
            subject: self.root.key().public(),
            signer: id(ANNA).0,
            body: Body::Epoch(record::Epoch {
                n,
                secret: [u8::try_from(n).unwrap(); 32],
            }),
        };
        let sign = |bytes: &[u8]| key(ANNA).sign(Word::Record, &self.network.0, &[bytes]);
        draft.sign_with(sign).unwrap()
    }

    fn revoke(&self, seed: u8) -> Record {
        let revoke = record::Revoke { since: T0_S };
        self.says(ANNA, seed, T0_S * 1000, Body::Revoke(revoke))
    }

    /// All that makes these people members, reachable and there.
    fn people(&self, seeds: &[u8]) -> Vec<Record> {
        let mut records = self.founded.records.clone();
        for seed in seeds {
            if *seed != ANNA {
                records.push(self.member(*seed, T0_S + 90 * DAY_S));
            }
            records.push(self.peer(*seed));
            records.push(self.lease(*seed, T0_S));
        }
        records
    }

    /// The same without a lease: a member that nobody dials by himself.
    fn sleeping(&self, seed: u8) -> [Record; 2] {
        [self.member(seed, T0_S + 90 * DAY_S), self.peer(seed)]
    }

    fn with_sleeping(&self, awake: &[u8], asleep: u8) -> Vec<Record> {
        let mut records = self.people(awake);
        records.extend(self.sleeping(asleep));
        records
    }

    fn node(&self, seed: u8, records: Vec<Record>) -> Node {
        let kept = Kept {
            root: (seed == ANNA).then(|| self.root.clone()),
            ..Kept::default()
        };
        self.node_that_kept(seed, records, kept)
    }

    fn node_that_kept(&self, seed: u8, records: Vec<Record>, kept: Kept) -> Node {
        let restored = Restored {
            records,
            rows: Vec::new(),
            kept,
        };
        let mut node = self.node_restored(seed, restored);
        drain(&mut node);
        node
    }

    /// Its first outputs are still in it.
    fn node_restored(&self, seed: u8, restored: Restored) -> Node {
        let identity = Identity {
            key: key(seed),
            tunnel: TunnelKey::from_seed([100 + seed; 32]),
            boot: NEW_RUN,
        };
        let settings = Settings {
            seed: [seed; 32],
            limits: Limits::EVERYONE,
            ipv4: Ipv4Use::On,
            streams: false,
            dns_tcp_port: 20_053,
            relay: Willing::No,
            transports: false,
            built_s: T0_S - 100 * DAY_S,
        };
        let mut node = Node::new(at_ms(0), self.network, identity, settings, restored);
        node.handle_input(at_ms(0), Input::Addresses(vec![address(seed)]));
        node
    }
}

fn drain(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll_output()).collect()
}

fn pair(node: &mut Node, other: u8) -> SessionId {
    SessionId::Pair(node.ids.intern(id(other)))
}

fn say(node: &mut Node, now: Now, from: u8, message: Message) -> Vec<Output> {
    let session = pair(node, from);
    node.handle_input(
        now,
        Input::Message {
            session,
            source: Path::Direct(address(from)),
            message,
        },
    );
    drain(node)
}

fn stand(node: &mut Node, now: Now, with: u8) -> Vec<Output> {
    let session = pair(node, with);
    let event = SessionEvent::Up {
        endpoint: Path::Direct(address(with)),
    };
    node.handle_input(now, Input::Session { session, event });
    drain(node)
}

fn hello(boot: Boot, heard: bool) -> Message {
    Message::Hello(Hello {
        wire_min: 1,
        wire_max: 1,
        features: 0,
        role: 0,
        boot,
        time_ms: T0_S * 1000,
        digest: [0; 16],
        heard,
        observed: None,
    })
}

/// A session stands and both have said Hello.
fn meet(node: &mut Node, now: Now, with: u8) -> Vec<Output> {
    let mut outputs = stand(node, now, with);
    outputs.extend(say(node, now, with, hello(OLD_RUN, true)));
    outputs
}

fn hand_over(node: &mut Node, now: Now, from: u8, record: &Record) -> Vec<Output> {
    let records = vec![record.bytes().to_vec()];
    say(node, now, from, Message::Records(Records { records }))
}

fn sent(outputs: &[Output]) -> Vec<&Message> {
    let mut messages = Vec::new();
    for output in outputs {
        if let Output::Send { message, .. } = output {
            messages.push(message);
        }
    }
    messages
}

fn hellos(outputs: &[Output]) -> Vec<bool> {
    let mut heard = Vec::new();
    for message in sent(outputs) {
        if let Message::Hello(hello) = message {
            heard.push(hello.heard);
        }
    }
    heard
}

fn admission(outputs: &[Output]) -> Option<Admission> {
    let mut admitted = None;
    for output in outputs {
        if let Output::Admit { admission, .. } = output {
            admitted = Some(*admission);
        }
    }
    admitted
}

fn has_closed(outputs: &[Output], session: SessionId) -> bool {
    let is_it =
        |output: &Output| matches!(output, Output::Close { session: closed } if *closed == session);
    outputs.iter().any(is_it)
}

fn dials(outputs: &[Output]) -> usize {
    let is_dial = |output: &&Output| matches!(output, Output::Dial { .. });
    outputs.iter().filter(is_dial).count()
}

fn knock(node: &mut Node, now: Now, from: u8, stamp: u64, boot: Boot) -> Vec<Output> {
    knock_with(node, now, from, stamp, boot, &[])
}

fn knock_with(
    node: &mut Node,
    now: Now,
    from: u8,
    stamp: u64,
    boot: Boot,
    records: &[Record],
) -> Vec<Output> {
    let body = Sealed::Knock(Knock {
        node: id(from),
        stamp,
        boot,
        flags: 0,
        records: records
            .iter()
            .map(|record| record.bytes().to_vec())
            .collect(),
        signature: [0; 64],
    });
    let (source, hint) = (Path::Direct(address(from)), [0; 8]);
    node.handle_input(
        now,
        Input::Sealed {
            source,
            epoch: 0,
            hint,
            body,
        },
    );
    drain(node)
}

fn count(node: &Node, reason: &str) -> u64 {
    let mut counters = node.counters.iter();
    counters
        .find(|(counted, _)| *counted == reason)
        .map_or(0, |(_, count)| count)
}

// Knocks (protocol §2).

#[test]
fn the_stamp_of_a_knock_is_written_down_before_it_is_answered_and_is_good_once() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let outputs = knock(&mut anna, at_ms(1), BO, 50, OLD_RUN);
    let place = |is_it: &dyn Fn(&Output) -> bool| outputs.iter().position(is_it);
    let row = place(&|output| {
        matches!(
            output,
            Output::Persist {
                write: Write::Row(Row { stamp: 50, .. }),
                ..
            }
        )
    });
    let admit = place(&|output| matches!(output, Output::Admit { .. }));
    assert!(row.is_some() && row < admit, "{outputs:?}");
    for stamp in [50, 49] {
        let replay = knock(&mut anna, at_ms(2), BO, stamp, OLD_RUN);
        assert_eq!(admission(&replay), None, "{stamp}");
    }
    assert_eq!(count(&anna, "knock_replayed"), 2);
}

#[test]
fn who_knocks_is_in_the_tables_before_it_is_let_in() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    drain(&mut anna);
    let records = [town.member(BO, T0_S + 90 * DAY_S), town.peer(BO)];
    let outputs = knock_with(&mut anna, at_ms(1), BO, 50, NEW_RUN, &records);
    let place = |is_it: &dyn Fn(&Output) -> bool| outputs.iter().position(is_it);
    let published =
        place(&|output| matches!(output, Output::Publish(tables) if tables.peers6.len() == 1));
    let admitted = place(&|output| matches!(output, Output::Admit { .. }));
    assert!(published.is_some() && published < admitted, "{outputs:?}");
}

#[test]
fn a_state_younger_than_10_s_takes_the_next_initiation_and_an_older_one_gives_way() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA, CAROL], BO));
    let cases = [
        (0, Admission::Keep),
        (9_999, Admission::Keep),
        (10_000, Admission::Replace),
        (19_999, Admission::Keep),
        (20_000, Admission::Replace),
    ];
    for (ms, expected) in cases {
        let outputs = knock(&mut anna, at_ms(ms), BO, 50 + ms, OLD_RUN);
        assert_eq!(admission(&outputs), Some(expected), "{ms} ms");
    }
}

#[test]
fn another_run_drops_the_state_unless_it_is_that_runs_already() {
    let town = Town::new();
    let cases: [(&str, Option<Boot>, Admission); 3] = [
        (
            "its Hello named the old run",
            Some(OLD_RUN),
            Admission::Replace,
        ),
        (
            "its Hello named the new run",
            Some(NEW_RUN),
            Admission::Keep,
        ),
        ("its Hello is still to come", None, Admission::Keep),
    ];
    for (what, named, expected) in cases {
        let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA], BO));
        knock(&mut anna, at_ms(1), BO, 50, OLD_RUN);
        stand(&mut anna, at_ms(2), BO);
        if let Some(boot) = named {
            say(&mut anna, at_ms(3), BO, hello(boot, true));
        }
        let outputs = knock(&mut anna, at_ms(4), BO, 51, NEW_RUN);
        assert_eq!(admission(&outputs), Some(expected), "{what}");
    }
}

#[test]
fn a_handshake_of_our_own_that_is_under_way_is_kept_even_for_another_run() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA], BO));
    knock(&mut anna, at_ms(0), BO, 50, OLD_RUN);
    let SessionId::Pair(peer) = pair(&mut anna, BO) else {
        unreachable!();
    };
    anna.handle_input(at_ms(14_000), Input::Wanted { peer });
    drain(&mut anna);
    let outputs = knock(&mut anna, at_ms(14_100), BO, 51, NEW_RUN);
    assert_eq!(admission(&outputs), Some(Admission::Keep));
}

#[test]
fn two_runs_that_take_turns_are_told_as_a_clone_and_one_restart_is_not() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let clone = Output::Notice(Notice::Cloned { node: id(BO) });
    let is_told = |outputs: &[Output]| {
        outputs
            .iter()
            .any(|output| format!("{output:?}") == format!("{clone:?}"))
    };
    assert!(!is_told(&knock(&mut anna, at_ms(1), BO, 50, OLD_RUN)));
    assert!(!is_told(&knock(&mut anna, at_ms(2), BO, 51, NEW_RUN)));
    assert!(is_told(&knock(&mut anna, at_ms(3), BO, 52, OLD_RUN)));
}

#[test]
fn a_clone_that_fell_silent_is_warned_of_no_more() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let warns = |anna: &Node| anna.notices.contains(&Notice::Cloned { node: id(BO) });
    for (stamp, boot) in [(50, OLD_RUN), (51, NEW_RUN), (52, OLD_RUN)] {
        knock(&mut anna, at_ms(stamp), BO, stamp, boot);
    }
    // A day in which they still take turns, and one in which they do not.
    let hour_ms = 3_600_000;
    knock(&mut anna, at_ms(20 * hour_ms), BO, 53, NEW_RUN);
    anna.on_daily(at_ms(30 * hour_ms));
    assert!(warns(&anna));
    knock(&mut anna, at_ms(31 * hour_ms), BO, 54, NEW_RUN);
    anna.on_daily(at_ms(54 * hour_ms));
    assert!(!warns(&anna));
    drain(&mut anna);
    knock(&mut anna, at_ms(55 * hour_ms), BO, 55, OLD_RUN);
    assert!(warns(&anna), "and again when it comes back");
}

#[test]
fn a_session_opened_by_an_old_epoch_brings_certificates_and_records_and_no_link() {
    let town = Town::new();
    let mut records = town.with_sleeping(&[ANNA], BO);
    records.extend([town.epoch(1, 91), town.epoch(2, 1)]);
    for (opened_by, links) in [(0, 0), (1, 1), (2, 1)] {
        let mut anna = town.node(ANNA, records.clone());
        assert!(admission(&knock_under(&mut anna, opened_by, 50)).is_some());
        meet(&mut anna, at_ms(2), BO);
        say(&mut anna, at_ms(3), BO, Message::Link(Link { yes: true }));
        let refused = count(&anna, "message_of_old_epoch");
        assert_eq!(refused, 1 - links, "epoch {opened_by}");
        let outputs = say(&mut anna, at_ms(4), BO, Message::Renew);
        let is_granted = |message: &&Message| matches!(message, Message::Granted(_));
        assert!(sent(&outputs).iter().any(is_granted), "epoch {opened_by}");
        let lease = town.lease(BO, T0_S + 1);
        hand_over(&mut anna, at_ms(5), BO, &lease);
        assert!(anna.registry.is_known(&lease), "epoch {opened_by}");
        // What it was given lets it knock anew, and then it is heard like all.
        knock_under(&mut anna, 2, 51);
        say(&mut anna, at_ms(6), BO, Message::Link(Link { yes: true }));
        assert_eq!(count(&anna, "message_of_old_epoch"), refused);
    }
}

#[test]
fn whom_an_old_epoch_lets_in_no_more_begins_no_stream_either() {
    let town = Town::new();
    let mut records = town.people(&[ANNA, BO]);
    records.extend([town.epoch(1, 91), town.epoch(2, 1)]);
    let keys = |seed: u8, epoch: u8| {
        let node = town.node(seed, records.clone());
        let header = Header {
            kind: SealedKind::Knock,
            epoch,
            hint: [0; 8],
        };
        let sealed = node.sealed_keys(at_ms(1), &header).len();
        (sealed, node.stream_keys(at_ms(1), &header).len())
    };
    assert_eq!((keys(BO, 0), keys(BO, 2)), ((0, 0), (1, 1)));
    assert_eq!(keys(ANNA, 0), (1, 1), "an admin renews");
}

/// Bo knocks under the secret of this epoch.
fn knock_under(node: &mut Node, epoch: u32, stamp: u64) -> Vec<Output> {
    let body = Sealed::Knock(Knock {
        node: id(BO),
        stamp,
        boot: OLD_RUN,
        flags: 0,
        records: Vec::new(),
        signature: [0; 64],
    });
    let input = Input::Sealed {
        source: Path::Direct(address(BO)),
        epoch,
        hint: [0; 8],
        body,
    };
    node.handle_input(at_ms(1), input);
    drain(node)
}

#[test]
fn a_knock_of_nobody_we_know_leaves_nothing_behind() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let outputs = knock(&mut anna, at_ms(1), MALLORY, 50, OLD_RUN);
    assert!(outputs.is_empty(), "{outputs:?}");
    assert_eq!(anna.ids.find(id(MALLORY)), None);
    assert!(!anna.rows.contains_key(&id(MALLORY)));
}

#[test]
fn a_knock_brings_its_own_proof_and_nothing_else() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let stray = town.lease(BO, T0_S + 1);
    let records = [
        town.member(CAROL, T0_S + DAY_S),
        town.peer(CAROL),
        stray.clone(),
    ];
    let outputs = knock_with(&mut anna, at_ms(1), CAROL, 50, OLD_RUN, &records);
    assert_eq!(admission(&outputs), Some(Admission::Keep));
    assert_ne!(
        anna.registry
            .holds(stray.slot())
            .map(|(version, _)| version),
        Some(stray.version())
    );
}

// Hello (protocol §4).

#[test]
fn a_hello_goes_out_each_second_until_one_came() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    assert_eq!(hellos(&stand(&mut anna, at_ms(0), BO)), [false]);
    for second in 1..4 {
        anna.handle_input(at_ms(second * 1000), Input::Tick);
        assert_eq!(hellos(&drain(&mut anna)), [false], "second {second}");
    }
    say(&mut anna, at_ms(3_500), BO, hello(OLD_RUN, true));
    anna.handle_input(at_ms(9_000), Input::Tick);
    assert!(hellos(&drain(&mut anna)).is_empty());
}

#[test]
fn a_hello_that_has_not_heard_ours_is_answered_and_one_that_has_is_not() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    stand(&mut anna, at_ms(0), BO);
    for _ in 0..2 {
        assert_eq!(
            hellos(&say(&mut anna, at_ms(1), BO, hello(OLD_RUN, false))),
            [true]
        );
    }
    assert!(hellos(&say(&mut anna, at_ms(2), BO, hello(OLD_RUN, true))).is_empty());
}

#[test]
fn nothing_but_what_keeps_the_session_is_heard_before_hello() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    stand(&mut anna, at_ms(0), BO);
    let want = Want {
        slots: vec![slot_of(Kind::Member, &id(BO).0, &[])],
    };
    assert!(sent(&say(&mut anna, at_ms(1), BO, Message::Want(want))).is_empty());
    assert!(sent(&say(&mut anna, at_ms(1), BO, Message::Renew)).is_empty());
    assert_eq!(count(&anna, "message_before_hello"), 2);
}

#[test]
fn transports_begin_once_for_each_session_and_only_where_both_have_them() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    anna.settings.transports = true;
    let greet = |node: &mut Node, ms, features| {
        let Message::Hello(mut greeting) = hello(OLD_RUN, true) else {
            panic!("a Hello");
        };
        greeting.features = features;
        say(node, at_ms(ms), BO, Message::Hello(greeting))
    };
    let begun = |outputs: &[Output]| {
        let mut others = Vec::new();
        for output in outputs {
            if let Output::Transport { other, .. } = output {
                others.push((other.node, other.tunnel));
            }
        }
        others
    };
    let bo = (id(BO), TunnelKey::from_seed([100 + BO; 32]).public());
    for (ms, features, expected) in [(0, 1, vec![bo]), (10, 0, vec![]), (20, 3, vec![bo])] {
        let said = stand(&mut anna, at_ms(ms), BO);
        assert!(
            sent(&said)
                .iter()
                .any(|message| matches!(message, Message::Hello(hello) if hello.features == 1))
        );
        assert_eq!(begun(&greet(&mut anna, ms + 1, features)), expected);
        assert!(
            begun(&greet(&mut anna, ms + 2, features)).is_empty(),
            "said"
        );
    }
    anna.settings.transports = false;
    let said = stand(&mut anna, at_ms(30), BO);
    assert!(
        sent(&said)
            .iter()
            .any(|message| matches!(message, Message::Hello(hello) if hello.features == 0))
    );
    assert!(begun(&greet(&mut anna, 31, 1)).is_empty());
}

// Who belongs (protocol §8).

#[test]
fn an_ended_certificate_opens_a_session_with_an_admin_for_renew_alone() {
    let town = Town::new();
    let mut records = town.people(&[ANNA]);
    records.push(town.member(BO, T0_S - DAY_S));
    records.push(town.peer(BO));
    records.push(town.lease(BO, T0_S));
    let mut anna = town.node(ANNA, records);
    let is_link = |message: &&Message| matches!(message, Message::Link(_));
    assert!(admission(&knock(&mut anna, at_ms(0), BO, 50, OLD_RUN)).is_some());
    assert!(!sent(&meet(&mut anna, at_ms(1), BO)).iter().any(is_link));
    let epoch = slot_of(Kind::Epoch, &town.root.key().public(), &[0; 4]);
    let want = Message::Want(Want { slots: vec![epoch] });
    assert!(sent(&say(&mut anna, at_ms(2), BO, want.clone())).is_empty());
    let link = Message::Link(Link { yes: false });
    assert!(sent(&say(&mut anna, at_ms(3), BO, link)).is_empty());
    let renewed = say(&mut anna, at_ms(4), BO, Message::Renew);
    let kinds: Vec<u8> = sent(&renewed)
        .iter()
        .map(|message| message.kind())
        .collect();
    assert!(
        kinds.starts_with(&[0x21, 0x10]),
        "Granted, then Records: {kinds:x?}"
    );
    assert!(sent(&renewed).iter().any(is_link), "a member again");
    assert!(!sent(&say(&mut anna, at_ms(5), BO, want)).is_empty());
}

#[test]
fn the_session_of_a_certificate_that_ends_is_closed_and_not_made_again() {
    let town = Town::new();
    let mut records = town.people(&[ANNA, BO]);
    records.push(town.member(CAROL, T0_S + 60));
    records.push(town.peer(CAROL));
    records.push(town.lease(CAROL, T0_S));
    let mut bo = town.node(BO, records);
    meet(&mut bo, at_ms(1), CAROL);
    meet(&mut bo, at_ms(1), ANNA);
    let session = pair(&mut bo, CAROL);
    hand_over(&mut bo, at_ms(61_000), ANNA, &town.lease(ANNA, T0_S + 61));
    let mut outputs = Vec::new();
    for minute in 1..=61 {
        let (heard, user) = (at_ms(minute * 60_000).at, at_ms(minute * 60_000).at);
        let used = Input::Heard(vec![Used {
            session,
            heard,
            user,
        }]);
        bo.handle_input(at_ms(minute * 60_000), used);
        outputs.extend(drain(&mut bo));
    }
    assert!(sent(&outputs).contains(&&Message::Bye(Bye { reason: 3 })));
    assert!(has_closed(&outputs, session));
    let later = at_ms(3_700_000);
    assert_eq!(admission(&knock(&mut bo, later, CAROL, 50, OLD_RUN)), None);
}

#[test]
fn a_certificate_is_honoured_until_an_admin_was_seen_and_never_again_after() {
    let town = Town::new();
    let mut records = town.founded.records.clone();
    records.extend([town.peer(BO), town.member(BO, T0_S + 90 * DAY_S)]);
    records.push(town.member(CAROL, T0_S - DAY_S));
    let mut bo = town.node(BO, records);
    assert!(bo.may_open(at_ms(1), id(CAROL)), "no admin was up since");
    meet(&mut bo, at_ms(1), CAROL);
    hand_over(&mut bo, at_ms(2), CAROL, &town.lease(ANNA, T0_S));
    assert!(!bo.may_open(at_ms(3), id(CAROL)), "one was");
    let weeks = at_ms(20 * DAY_S * 1000);
    bo.handle_input(weeks, Input::Tick);
    assert!(
        bo.registry.lease(id(ANNA)).is_none(),
        "and its lease is gone"
    );
    assert!(!bo.may_open(weeks, id(CAROL)));
}

#[test]
fn a_revoke_closes_the_session_ends_the_attempt_and_takes_the_names() {
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[ANNA, BO, CAROL]));
    meet(&mut bo, at_ms(1), ANNA);
    meet(&mut bo, at_ms(1), CAROL);
    let carol = pair(&mut bo, CAROL);
    let outputs = hand_over(&mut bo, at_ms(2), ANNA, &town.revoke(CAROL));
    assert!(has_closed(&outputs, carol));
    let told = Message::Bye(Bye { reason: 3 });
    assert!(sent(&outputs).contains(&&told));
    bo.handle_input(at_ms(500), Input::Tick);
    let mut tables = None;
    for output in outputs.into_iter().chain(drain(&mut bo)) {
        if let Output::Publish(published) = output {
            tables = Some(published);
        }
    }
    let SessionId::Pair(peer) = carol else {
        unreachable!();
    };
    assert!(!tables.unwrap().peers6.values().any(|other| *other == peer));
    bo.ping(at_ms(600), id(CAROL), 7);
    let mut dialled = dials(&drain(&mut bo));
    for second in 1..8 {
        bo.handle_input(at_ms(600 + second * 1000), Input::Tick);
        dialled += dials(&drain(&mut bo));
    }
    assert_eq!(dialled, 0, "nobody dials who is out");
    assert!(bo.waiting_pings.is_empty());
    assert_eq!(bo.whois(at_ms(9_000), "peer3"), None);
}

#[test]
fn an_attempt_under_way_ends_with_a_revoke() {
    let town = Town::new();
    let mut bo = town.node(BO, town.with_sleeping(&[ANNA, BO], CAROL));
    meet(&mut bo, at_ms(1), ANNA);
    bo.ping(at_ms(2), id(CAROL), 7);
    assert_eq!(dials(&drain(&mut bo)), 1);
    hand_over(&mut bo, at_ms(3), ANNA, &town.revoke(CAROL));
    bo.handle_input(at_ms(2_000), Input::Tick);
    assert_eq!(dials(&drain(&mut bo)), 0);
}

// Records (protocol §7).

#[test]
fn a_record_whose_body_is_none_of_its_kind_is_not_kept() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    let mut bytes = town.lease(BO, T0_S + 5).bytes().to_vec();
    bytes[1] = Kind::Peer.number();
    let signed = bytes.len() - 64;
    let signature = key(BO).sign(Word::Record, &town.network.0, &[&bytes[..signed]]);
    bytes[signed..].copy_from_slice(&signature);
    let record = Record::decode(&bytes).unwrap();
    hand_over(&mut anna, at_ms(2), BO, &record);
    assert_eq!(
        anna.registry.get(record.slot()).unwrap().record,
        town.peer(BO)
    );
    assert!(anna.members.tunnel_of(id(BO)).is_some());
    assert_eq!(count(&anna, "record_body"), 1);
}

#[test]
fn a_member_speaks_for_nobody_else() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO, CAROL]));
    meet(&mut anna, at_ms(1), BO);
    let stolen = town.says(
        BO,
        CAROL,
        T0_S * 1000 + 9,
        town.lease(CAROL, T0_S + 9).body().unwrap(),
    );
    let self_made = town.says(
        BO,
        BO,
        T0_S * 1000 + 9,
        Body::Admin(record::Admin { rights: 7 }),
    );
    let revoke = town.says(
        BO,
        CAROL,
        T0_S * 1000 + 9,
        Body::Revoke(record::Revoke { since: 0 }),
    );
    let admitted = {
        let body = town.member(MALLORY, T0_S + DAY_S).body().unwrap();
        town.says(BO, MALLORY, T0_S * 1000 + 9, body)
    };
    for record in [stolen, self_made, revoke, admitted] {
        hand_over(&mut anna, at_ms(2), BO, &record);
        let held = anna.registry.get(record.slot());
        assert_ne!(held.map(|held| &held.record), Some(&record), "{record:?}");
    }
    assert!(!anna.members.is_admin(id(BO)) && !anna.members.is_revoked(id(CAROL)));
}

#[test]
fn a_link_that_asks_without_end_gets_no_more_than_its_budget() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    say(&mut anna, at_ms(2), BO, Message::Link(Link { yes: true }));
    let slot = slot_of(Kind::Peer, &id(ANNA).0, &[]);
    let asks = 1_000;
    let mut bytes = 0;
    for _ in 0..asks {
        let want = Message::Want(Want { slots: vec![slot] });
        for message in sent(&say(&mut anna, at_ms(3), BO, want)) {
            bytes += message.body().len();
        }
    }
    let once = anna.registry.get(slot).unwrap().record.bytes().len();
    assert!(bytes > once, "it was answered");
    assert!(bytes <= 64 * 1024, "{bytes} bytes in one moment");
}

#[test]
fn a_session_that_is_a_link_no_more_is_not_pinged_for_its_silence() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    say(&mut anna, at_ms(2), BO, Message::Link(Link { yes: true }));
    let unlink = crate::wire::message::Unlink { reason: 1 };
    say(&mut anna, at_ms(10_000), BO, Message::Unlink(unlink));
    let mut pings = 0;
    for second in 14..24 {
        anna.handle_input(at_ms(second * 1000), Input::Tick);
        let outputs = drain(&mut anna);
        let is_ping = |message: &&&Message| matches!(message, Message::Ping(_));
        pings += sent(&outputs).iter().filter(is_ping).count();
    }
    assert_eq!(pings, 0);
}

#[test]
fn gossip_outside_a_link_is_told_that_there_is_none() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    meet(&mut anna, at_ms(1), BO);
    let bo = pair(&mut anna, BO);
    let SessionId::Pair(peer) = bo else {
        unreachable!();
    };
    say(&mut anna, at_ms(2), BO, Message::Link(Link { yes: true }));
    assert!(anna.links.is_linked(peer));
    let unlink = crate::wire::message::Unlink { reason: 1 };
    say(&mut anna, at_ms(3), BO, Message::Unlink(unlink));
    let sums = RegistryShelf::new(&anna.registry, T0_S).sums();
    let digest = Message::Digest(crate::wire::message::Digest { sums });
    let outputs = say(&mut anna, at_ms(4), BO, digest);
    let kinds: Vec<u8> = sent(&outputs)
        .iter()
        .map(|message| message.kind())
        .collect();
    assert_eq!(kinds, [0x32]);
}

#[test]
fn a_pool_that_was_chosen_is_no_place_to_be_dialled_at() {
    let town = Town::with_pool(Some("10.77.0.0/16"));
    let mut anna = town.node(ANNA, town.people(&[ANNA]));
    let inside = Underlay::new("10.77.0.9:41820".parse().unwrap());
    anna.handle_input(at_ms(1), Input::Addresses(vec![inside, address(ANNA)]));
    assert_eq!(anna.status(at_ms(2)).own.addresses, [address(ANNA)]);
}

#[test]
fn a_service_that_this_machine_no_longer_keeps_is_taken_back_at_the_start() {
    let town = Town::new();
    let service = record::Service {
        service: "web".to_owned(),
        instance: "anna".to_owned(),
        ports: vec![6 << 16 | 80],
        spliced: false,
        tags: None,
        weight: None,
        zone: None,
        meta: None,
    };
    let mut records = town.people(&[ANNA]);
    records.push(town.says(ANNA, ANNA, T0_S * 1000, Body::Service(service)));
    let anna = town.node(ANNA, records);
    assert!(anna.instances(at_ms(1)).is_empty());
    assert_eq!(anna.registry.services_of(id(ANNA)).count(), 0);
}

// Reaching.

#[test]
fn a_packet_that_waits_beside_a_session_that_is_over_is_not_forgotten() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.with_sleeping(&[ANNA], BO));
    meet(&mut anna, at_ms(1), BO);
    let SessionId::Pair(peer) = pair(&mut anna, BO) else {
        unreachable!();
    };
    anna.handle_input(at_ms(2), Input::Wanted { peer });
    assert_eq!(dials(&drain(&mut anna)), 1);
}

#[test]
fn a_ping_that_found_nobody_is_not_sent_when_somebody_comes_later() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    anna.ping(at_ms(1), id(BO), 7);
    for ms in (0..8_000).step_by(100) {
        anna.handle_input(at_ms(ms + 2), Input::Tick);
    }
    drain(&mut anna);
    assert!(anna.waiting_pings.is_empty());
}

// Joining (protocol §9).

fn join(node: &mut Node, now: Now, invite: &InviteSecret, from: u8, stamp: u64) -> Vec<Output> {
    let tunnel = TunnelKey::from_seed([100 + from; 32]).public();
    let body = Sealed::Join(Join {
        node: id(from),
        tunnel,
        stamp,
        boot: OLD_RUN,
        signature: [0; 64],
    });
    let (source, hint) = (Path::Direct(address(from)), invite.join_id().0);
    node.handle_input(
        now,
        Input::Sealed {
            source,
            epoch: 0,
            hint,
            body,
        },
    );
    drain(node)
}

fn say_joining(node: &mut Node, now: Now, message: Message) -> Vec<Output> {
    let session = SessionId::Join(JoinIx(1));
    let source = Path::Direct(address(MALLORY));
    node.handle_input(
        now,
        Input::Message {
            session,
            source,
            message,
        },
    );
    drain(node)
}

/// Anna issues an invite, and the session of one who holds it stands.
fn open_door(town: &Town, people: &[u8], from: u8) -> (Node, InviteSecret) {
    let mut anna = town.node(ANNA, town.people(people));
    let secret = InviteSecret([8; 16]);
    let options = InviteOptions {
        secret: secret.clone(),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: vec!["*".to_owned()],
    };
    anna.invite(at_ms(0), options).unwrap();
    assert!(admission(&join(&mut anna, at_ms(1), &secret, from, 50)).is_some());
    let event = SessionEvent::Up {
        endpoint: Path::Direct(address(from)),
    };
    let session = SessionId::Join(JoinIx(1));
    anna.handle_input(at_ms(2), Input::Session { session, event });
    drain(&mut anna);
    say_joining(&mut anna, at_ms(3), hello(OLD_RUN, true));
    (anna, secret)
}

fn secrets_of(town: &Town) -> Vec<Slot> {
    vec![slot_of(Kind::Epoch, &town.root.key().public(), &[0; 4])]
}

fn redeem() -> Message {
    Message::Redeem(Redeem {
        name: "dora".to_owned(),
        exact: false,
    })
}

#[test]
fn nothing_is_granted_before_the_spend_is_on_the_disk() {
    let town = Town::new();
    let (mut anna, _) = open_door(&town, &[ANNA], MALLORY);
    let asked = say_joining(&mut anna, at_ms(4), redeem());
    assert!(sent(&asked).is_empty());
    let mut waiting = None;
    for output in &asked {
        if let Output::Persist { ticket, .. } = output {
            waiting = waiting.or(*ticket);
        }
    }
    let ticket = waiting.unwrap();
    assert!(
        sent(&say_joining(&mut anna, at_ms(5), redeem())).is_empty(),
        "asked again meanwhile"
    );
    let outcome = PersistOutcome::Done;
    anna.handle_input(at_ms(6), Input::Persisted { ticket, outcome });
    let granted = drain(&mut anna);
    let kinds: Vec<u8> = sent(&granted)
        .iter()
        .map(|message| message.kind())
        .collect();
    assert!(kinds.starts_with(&[0x21, 0x10]), "{kinds:x?}");
    assert!(anna.members.certificate(id(MALLORY)).is_some());
}

/// What was granted in the join session: the slots named, and the records that followed.
fn granted_in(outputs: &[Output]) -> (Vec<Slot>, Vec<Record>) {
    let (mut slots, mut records) = (Vec::new(), Vec::new());
    for message in sent(outputs) {
        if let Message::Granted(granted) = message {
            slots.extend(&granted.slots);
        } else if let Message::Records(told) = message {
            let told = told.records.iter();
            records.extend(told.map(|bytes| Record::decode(bytes).unwrap()));
        }
    }
    (slots, records)
}

/// Carol was let in by bo, who took the root key back by its code; the founder anna signed neither.
fn third_admin(town: &Town) -> Vec<Record> {
    let root = town.root.key();
    let admin = |seed: u8| {
        let draft = Draft {
            seq: T0_S * 1000,
            subject: id(seed).0,
            signer: root.public(),
            body: Body::Admin(record::Admin { rights: 7 }),
        };
        let sign = |bytes: &[u8]| root.sign(Word::Record, &[bytes]);
        draft.sign_with(sign).unwrap()
    };
    let by_anna = town.member(CAROL, T0_S + 90 * DAY_S);
    let by_bo = town.says(BO, CAROL, T0_S * 1000 - 5000, by_anna.body().unwrap());
    let mut records = town.people(&[ANNA, BO]);
    records.extend([admin(BO), admin(CAROL), by_bo]);
    records.extend([town.peer(CAROL), town.lease(CAROL, T0_S)]);
    records
}

/// What carol grants dora; carol's Admin is the root's, her Member is bo's, the first epoch is anna's.
fn granted_by_the_third_admin(town: &Town) -> (Vec<Slot>, Vec<Record>) {
    let mut carol = town.node(CAROL, third_admin(town));
    let secret = InviteSecret([8; 16]);
    let options = InviteOptions {
        secret: secret.clone(),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: vec!["*".to_owned()],
    };
    carol.invite(at_ms(0), options).unwrap();
    drain(&mut carol);
    join(&mut carol, at_ms(1), &secret, MALLORY, 50);
    let event = SessionEvent::Up {
        endpoint: Path::Direct(address(MALLORY)),
    };
    let session = SessionId::Join(JoinIx(1));
    carol.handle_input(at_ms(2), Input::Session { session, event });
    drain(&mut carol);
    say_joining(&mut carol, at_ms(3), hello(OLD_RUN, true));
    let asked = say_joining(&mut carol, at_ms(4), redeem());
    let mut waiting = None;
    for output in &asked {
        if let Output::Persist { ticket, .. } = output {
            waiting = waiting.or(*ticket);
        }
    }
    let ticket = waiting.unwrap();
    let outcome = PersistOutcome::Done;
    carol.handle_input(at_ms(6), Input::Persisted { ticket, outcome });
    granted_in(&drain(&mut carol))
}

#[test]
fn who_is_let_in_by_an_admin_that_the_founder_did_not_let_in_has_all_keys() {
    let town = Town::new();
    let (slots, records) = granted_by_the_third_admin(&town);
    assert_eq!(slots.len(), records.len(), "all that is named comes along");
    let dora = town.node(MALLORY, records);
    assert_eq!(count(&dora, "record_signer_unknown"), 0);
    assert!(dora.members.epoch0().is_some());
    assert!(dora.remote(id(CAROL)).is_some());
}

#[test]
fn a_grant_whose_first_epoch_nobody_known_signed_is_not_believed() {
    let town = Town::new();
    let (slots, records) = granted_by_the_third_admin(&town);
    let founders = slot_of(Kind::Admin, &id(ANNA).0, &[]);
    let mut joiner = joiner_at(CAROL);
    joiner.handle_up(at_ms(10), Path::Direct(address(CAROL)));
    let mut grant = |slots: &[Slot], records: &[&Record]| {
        let slots = slots.to_vec();
        let granted = Message::Granted(Granted { slots });
        joiner.handle_message(at_ms(20), Path::Direct(address(CAROL)), granted);
        let records = records.iter().map(|record| record.bytes().to_vec());
        let records = records.collect();
        let told = Message::Records(Records { records });
        joiner.handle_message(at_ms(30), Path::Direct(address(CAROL)), told);
        let is_in = std::iter::from_fn(|| joiner.poll_output())
            .any(|output| matches!(output, JoinerOutput::Granted(_)));
        (is_in, joiner.was_disbelieved())
    };
    let without: Vec<Slot> = slots.iter().filter(|s| **s != founders).copied().collect();
    let few: Vec<&Record> = records.iter().filter(|r| r.slot() != founders).collect();
    assert!(few.len() < records.len());
    assert_eq!(grant(&without, &few), (false, true));
    let all: Vec<&Record> = records.iter().collect();
    assert!(grant(&slots, &all).0);
}

#[test]
fn a_token_alone_is_told_no_secret_by_want() {
    let town = Town::new();
    for people in [&[ANNA][..], &[ANNA, BO]] {
        let joiner = if people.len() == 1 { MALLORY } else { BO };
        let (mut anna, _) = open_door(&town, people, joiner);
        let want = Message::Want(Want {
            slots: secrets_of(&town),
        });
        assert!(sent(&say_joining(&mut anna, at_ms(4), want)).is_empty());
        assert_eq!(count(&anna, "join_want_before_grant"), 1);
    }
}

#[test]
fn who_is_revoked_cannot_come_back_by_an_old_token() {
    let town = Town::new();
    let (mut anna, secret) = open_door(&town, &[ANNA, BO, CAROL], BO);
    meet(&mut anna, at_ms(4), CAROL);
    let outputs = hand_over(&mut anna, at_ms(5), CAROL, &town.revoke(BO));
    assert!(has_closed(&outputs, SessionId::Join(JoinIx(1))));
    let again = join(&mut anna, at_ms(20_000), &secret, BO, 51);
    assert_eq!(admission(&again), None);
    assert_eq!(count(&anna, "join_revoked"), 1);
}

#[test]
fn a_join_session_that_asks_for_nothing_ends_and_says_so() {
    let town = Town::new();
    let (mut anna, _) = open_door(&town, &[ANNA], MALLORY);
    anna.handle_input(at_ms(40_000), Input::Tick);
    let outputs = drain(&mut anna);
    assert!(has_closed(&outputs, SessionId::Join(JoinIx(1))));
    assert!(sent(&outputs).contains(&&Message::Bye(Bye { reason: 0 })));
    assert!(anna.admitting.is_empty());
}

/// Mallory joins by a token of `issuer`.
fn joiner_at(issuer: u8) -> Joiner {
    let token = Token {
        expires: u32::MAX,
        secret: InviteSecret([8; 16]),
        issuer: TunnelKey::from_seed([100 + issuer; 32]).x25519_public(),
        name: "anna".to_owned(),
        hints: vec![address(issuer)],
    };
    let identity = Identity {
        key: key(MALLORY),
        tunnel: TunnelKey::from_seed([100 + MALLORY; 32]),
        boot: NEW_RUN,
    };
    let wish = Wish {
        name: "dora".to_owned(),
        exact: false,
    };
    Joiner::new(at_ms(0), token, identity, wish)
}

#[test]
fn a_joiner_that_is_told_bye_closes_its_state_and_dials_again_a_second_later() {
    let mut joiner = joiner_at(ANNA);
    joiner.handle_up(at_ms(10), Path::Direct(address(ANNA)));
    while joiner.poll_output().is_some() {}
    joiner.handle_message(
        at_ms(20),
        Path::Direct(address(ANNA)),
        Message::Bye(Bye { reason: 0 }),
    );
    assert!(matches!(joiner.poll_output(), Some(JoinerOutput::Close)));
    joiner.handle_timeout(at_ms(1_000));
    assert!(joiner.poll_output().is_none());
    joiner.handle_timeout(at_ms(1_020));
    assert!(matches!(
        joiner.poll_output(),
        Some(JoinerOutput::Dial { .. })
    ));
}

#[test]
fn a_joiner_whose_udp_brings_nothing_asks_for_a_stream_and_dials_there_too() {
    let mut joiner = joiner_at(ANNA);
    while joiner.poll_output().is_some() {}
    let asked = |joiner: &mut Joiner| -> Vec<(StreamTo, Vec<Underlay>)> {
        let outputs = std::iter::from_fn(|| joiner.poll_output());
        outputs
            .filter_map(|output| match output {
                JoinerOutput::OpenStream { to, at } => Some((to, at)),
                _ => None,
            })
            .collect()
    };
    joiner.handle_timeout(at_ms(1_499));
    assert!(asked(&mut joiner).is_empty());
    joiner.handle_timeout(at_ms(1_500));
    let wanted = [StreamTo::Issuer, StreamTo::Member].map(|to| (to, vec![address(ANNA)]));
    assert_eq!(asked(&mut joiner), wanted);

    joiner.handle_stream(at_ms(1_600), StreamIx(3), StreamTo::Issuer);
    let Some(JoinerOutput::Dial { to, .. }) = joiner.poll_output() else {
        panic!("no dial on the stream")
    };
    assert_eq!(to, [Path::Stream(StreamIx(3))]);
    joiner.handle_up(at_ms(1_700), Path::Stream(StreamIx(3)));
    joiner.handle_timeout(at_ms(4_000));
    assert!(asked(&mut joiner).is_empty(), "it has a way");
}

#[test]
fn an_issuer_that_is_no_admin_any_more_refuses_before_the_spend() {
    let town = Town::new();
    let (mut anna, _) = open_door(&town, &[ANNA, CAROL], MALLORY);
    let root = town.root.key();
    let draft = Draft {
        seq: T0_S * 1000 + 9,
        subject: id(ANNA).0,
        signer: root.public(),
        body: Body::Admin(record::Admin { rights: 0 }),
    };
    let dismissal = draft
        .sign_with(|bytes| root.sign(Word::Record, &[bytes]))
        .unwrap();
    meet(&mut anna, at_ms(4), CAROL);
    hand_over(&mut anna, at_ms(5), CAROL, &dismissal);
    let asked = say_joining(&mut anna, at_ms(6), redeem());
    let is_busy =
        |message: &&Message| matches!(message, Message::Refused(refused) if refused.code == 6);
    assert!(sent(&asked).iter().any(is_busy), "{asked:?}");
    assert!(
        anna.kept
            .invites
            .iter()
            .all(|invite| invite.spends.is_empty())
    );
}

#[test]
fn no_invite_lets_more_than_64_strangers_leave_a_row() {
    let town = Town::new();
    let (mut anna, secret) = open_door(&town, &[ANNA], MALLORY);
    let before = anna.rows.len();
    for seed in 20..120 {
        join(&mut anna, at_ms(10), &secret, seed, 50);
    }
    assert_eq!(anna.rows.len(), before + 63);
    assert_eq!(count(&anna, "join_too_many"), 37);
}

/// A Join as a stranger may send it, with a signature that nobody made.
fn forged_join(from: u8, stamp: u64) -> Join {
    Join {
        node: id(from),
        tunnel: TunnelKey::from_seed([100 + from; 32]).public(),
        stamp,
        boot: OLD_RUN,
        signature: [0; 64],
    }
}

#[test]
fn what_is_silence_whoever_signed_it_is_known_before_a_signature_is_looked_at() {
    let town = Town::new();
    let (mut anna, secret) = open_door(&town, &[ANNA], MALLORY);
    let hint = secret.join_id().0;
    let asked = |anna: &mut Node, hint, from, stamp| {
        anna.take_join(at_ms(10), hint, &forged_join(from, stamp))
    };
    assert_eq!(asked(&mut anna, hint, MALLORY, 51), Ok(()));
    let again = asked(&mut anna, hint, MALLORY, 50);
    assert_eq!(again, Err("join_replayed"));
    let unknown = asked(&mut anna, [9; 8], 20, 50);
    assert_eq!(unknown, Err("join_unknown_invite"));
    for seed in 20..83 {
        join(&mut anna, at_ms(10), &secret, seed, 50);
    }
    assert_eq!(asked(&mut anna, hint, 83, 50), Err("join_too_many"));
    // Whoever was let in may ask again.
    assert_eq!(asked(&mut anna, hint, 82, 51), Ok(()));
}

#[test]
fn a_flood_of_joins_by_one_invite_is_looked_at_fifty_times_a_second_and_another_invite_is_free() {
    let town = Town::new();
    let (mut anna, secret) = open_door(&town, &[ANNA], MALLORY);
    let other = InviteSecret([9; 16]);
    let options = InviteOptions {
        secret: other.clone(),
        expires_in_s: 3600,
        uses: 1,
        role: InviteRole::Member,
        offers: vec!["*".to_owned()],
    };
    anna.invite(at_ms(0), options).unwrap();
    let mut taken = 0;
    for ms in 0..1_000 {
        for stranger in 0..20 {
            let join = forged_join(stranger + 50, ms);
            let asked = anna.take_join(at_ms(100 + ms), secret.join_id().0, &join);
            taken += u32::from(asked.is_ok());
            assert!(asked.is_ok() || asked == Err("join_flooding"));
        }
    }
    assert_eq!(taken, 64 + 49);
    let honest = anna.take_join(at_ms(1_100), other.join_id().0, &forged_join(20, 50));
    assert_eq!(honest, Ok(()));
}

#[test]
fn while_ipv4_does_not_come_through_names_are_told_by_ipv6_alone() {
    let town = Town::new();
    let mut anna = town.node(ANNA, town.people(&[ANNA, BO]));
    let own = anna.own_ipv4();
    assert!(own.is_some());
    let mut records_of = |at, ipv4| {
        anna.set_ipv4(at_ms(at), ipv4);
        let mut published = None;
        for output in drain(&mut anna) {
            if let Output::Publish(tables) = output {
                published = Some(tables);
            }
        }
        let tables = published.expect("new tables at once");
        // The device keeps its address: it is how the agent sees that the way is free again.
        assert_eq!(tables.own.v4, own);
        let answers = [1, 28].map(|kind| {
            let mut answer = Vec::new();
            let query = question(&format!("peer{BO}.home.internal"), kind);
            assert!(tables.names.answer(&query, 512, &mut answer));
            answer[7]
        });
        (answers, anna.status(at_ms(at)).dns_servers.len())
    };
    assert_eq!(records_of(60_000, Ipv4Use::Blocked), ([0, 1], 1));
    assert_eq!(records_of(90_000, Ipv4Use::On), ([1, 1], 2));
}

/// A question for a name, as a program asks it.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

#[test]
fn a_session_that_stood_for_hours_is_knocked_at_again_by_the_next_run_at_once() {
    let town = Town::new();
    let mut bo = town.node(BO, town.people(&[ANNA, BO]));
    meet(&mut bo, at_ms(1), ANNA);
    let session = pair(&mut bo, ANNA);
    let hour = at_ms(3_600_000);
    let mut noted = Vec::new();
    for second in 1..=3600 {
        let now = at_ms(second * 1000);
        let (heard, user) = (now.at, now.at);
        let used = Input::Heard(vec![Used {
            session,
            heard,
            user,
        }]);
        bo.handle_input(now, used);
        noted.extend(drain(&mut bo).into_iter().filter_map(row_of));
    }
    noted.retain(|row| row.node == id(ANNA));
    assert!(noted.len() <= 12, "{} writes in an hour", noted.len());
    let last = noted.last().unwrap();
    assert!(hour.unix_s() - u64::from(last.last_session_s) < 600);

    let restored = Restored {
        records: town.people(&[ANNA, BO]),
        rows: vec![Row {
            last_session_s: u32::try_from(T0_S - 400).unwrap(),
            ..*last
        }],
        kept: Kept::default(),
    };
    let mut next = town.node_restored(BO, restored);
    next.handle_input(at_ms(2), Input::Tick);
    let is_dial = |output: &Output| matches!(output, Output::Dial { .. });
    assert!(drain(&mut next).iter().any(is_dial), "within 2 ms");
}

fn row_of(output: Output) -> Option<Row> {
    if let Output::Persist {
        write: Write::Row(row),
        ..
    } = output
    {
        Some(row)
    } else {
        None
    }
}
