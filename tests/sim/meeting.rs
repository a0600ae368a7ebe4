//! Sessions come up, whoever knocks first; they come back after a restart, and end with a revocation.

use std::time::Duration;

use webmesh::{
    addr::Path,
    ids::SessionId,
    keys::Word,
    node::input::Input,
    overlay::Limits,
    wire::{
        message::{Message, Records},
        record::{Body, Draft, Revoke},
    },
};

use crate::{
    wires::{GOOD, MachineIx, Quality},
    world::{Polling, World, sample},
};

/// A round trip of 400 ms.
const FAR: Quality = Quality {
    latency: Duration::from_millis(200),
    jitter: Duration::from_millis(5),
    lost_of_1000: 0,
};

/// Two that know each other, freshly started, with no session yet.
fn two_strangers_now(seed: u64, quality: Quality) -> (World, MachineIx, MachineIx) {
    let mut world = World::with(seed, Limits::EVERYONE, quality, Polling::AtDeadlines);
    let both = world.network(&["anna", "bo"]);
    // Longer ago than the ten minutes within which a start knocks by itself.
    world.kill(both[0]);
    world.kill(both[1]);
    world.run_for(Duration::from_secs(700));
    world.restart(both[0]);
    world.restart(both[1]);
    (world, both[0], both[1])
}

/// Both send packets, the second `apart` after the first; all must come, over one session on each side.
fn both_send(seed: u64, quality: Quality, apart: Duration) {
    let (mut world, anna, bo) = two_strangers_now(seed, quality);
    let mut sent: Vec<_> = (0..5).map(|_| (bo, world.send(anna, bo))).collect();
    world.run_for(apart);
    sent.extend((0..5).map(|_| (anna, world.send(bo, anna))));
    world.run_for(Duration::from_secs(5));
    for (to, packet) in sent {
        assert!(
            world.machines[to].received.contains(&packet),
            "packet {packet} is lost\n{}",
            world.portrait()
        );
    }
    for ix in [anna, bo] {
        let pairs = |(session, _): &(&SessionId, &u32)| matches!(session, SessionId::Pair(_));
        let ups: u32 = world.machines[ix]
            .ups
            .iter()
            .filter(pairs)
            .map(|(_, ups)| *ups)
            .sum();
        assert_eq!(
            ups,
            1,
            "{} had {ups} sessions\n{}",
            world.machines[ix].name,
            world.portrait()
        );
    }
}

#[test]
fn two_that_knock_at_the_same_instant_get_one_session_each() {
    (1000..1000 + sample(10, 500)).for_each(|seed| both_send(seed, GOOD, Duration::ZERO));
}

#[test]
fn two_that_knock_a_little_apart_get_one_session_each() {
    for millis in [5, 10, 15, 20, 25, 50, 100, 300, 500, 1000] {
        both_send(30 + millis, GOOD, Duration::from_millis(millis));
    }
}

#[test]
fn two_that_knock_across_a_slow_wire_get_one_session_each() {
    for millis in [0, 100, 200, 300, 400, 500, 800, 1000] {
        both_send(50 + millis, FAR, Duration::from_millis(millis));
    }
}

#[test]
fn a_peer_that_was_killed_is_heard_again_within_two_seconds_of_its_start() {
    for seed in 2000..2000 + sample(10, 500) {
        let mut world = World::seeded(seed);
        let all = world.network(&["anna", "bo", "carol"]);
        world.run_for(Duration::from_secs(30));
        world.kill(all[1]);
        world.run_for(Duration::from_secs(3));
        world.restart(all[1]);
        let packets: Vec<u64> = (0..20)
            .map(|_| {
                world.run_for(Duration::from_millis(100));
                world.send(all[0], all[1])
            })
            .collect();
        world.run_for(Duration::from_millis(100));
        let last = packets.last().expect("20 were sent");
        assert!(
            world.machines[all[1]].received.contains(last),
            "seed {seed}\n{}",
            world.portrait()
        );
    }
}

#[test]
fn a_peer_that_stays_away_is_let_go() {
    let mut world = World::seeded(80);
    let all = world.network(&["anna", "bo"]);
    world.kill(all[1]);
    world.run_for(Duration::from_secs(60));
    assert!(
        world.machines[all[0]].neighbours().is_empty(),
        "{}",
        world.portrait()
    );
}

#[test]
fn a_packet_for_a_peer_that_is_off_is_given_up_and_a_later_one_finds_it() {
    let mut world = World::seeded(81);
    let all = world.network(&["anna", "bo"]);
    world.kill(all[1]);
    world.run_for(Duration::from_secs(60));
    let address = world.machines[all[0]].identity().key.id();
    assert!(!world.machines[all[0]].neighbours().contains(&address));
    world.restart(all[1]);
    world.run_for(Duration::from_secs(2));
    let packet = world.send(all[0], all[1]);
    world.run_for(Duration::from_secs(2));
    assert!(
        world.machines[all[1]].received.contains(&packet),
        "{}",
        world.portrait()
    );
}

#[test]
fn a_revoked_peer_is_dropped_by_all_and_stays_out() {
    let mut world = World::seeded(90);
    let all = world.network(&["anna", "bo", "carol", "dora"]);
    world.run_for(Duration::from_secs(5));
    let out = world.machines[all[1]].identity().key.id();
    revoke(&mut world, all[0], all[3], all[1]);
    world.run_for(Duration::from_secs(5));
    for ix in [all[0], all[2]] {
        assert!(
            !world.machines[ix].neighbours().contains(&out),
            "{}",
            world.portrait()
        );
    }
    let before = world.machines[all[0]].received.len();
    world.send(all[1], all[0]);
    world.run_for(Duration::from_secs(10));
    assert_eq!(
        world.machines[all[0]].received.len(),
        before,
        "{}",
        world.portrait()
    );
}

/// The admin's word that a node is out comes back to the admin in a third peer's session, as if that had it already:
/// there is no command for it yet.
fn revoke(world: &mut World, admin: MachineIx, by: MachineIx, out: MachineIx) {
    let key = world.machines[admin].identity().key;
    let subject = world.machines[out].identity().key.id();
    let now = world.now();
    let draft = Draft {
        seq: now.unix_ms,
        subject: subject.0,
        signer: key.id().0,
        body: Body::Revoke(Revoke {
            since: now.unix_s(),
        }),
    };
    let network = world.machines[admin]
        .node()
        .expect("admins are members")
        .network_id();
    let record = draft
        .sign_with(|bytes| key.sign(Word::Record, &network.0, &[bytes]))
        .expect("a Revoke fits into a record");
    let source: Path = world.machines[by].address;
    let by = world.machines[by].identity().key.id();
    let session = world.machines[admin]
        .session_with(by)
        .expect("linked peers have a session");
    let message = Message::Records(Records {
        records: vec![record.bytes().to_vec()],
    });
    world.tell(
        admin,
        Input::Message {
            session,
            source,
            message,
        },
    );
}

#[test]
fn a_peer_that_slept_longer_than_any_lease_lasts_finds_the_others_again() {
    let mut world = World::seeded(70);
    let all = world.network(&["anna", "bo", "carol"]);
    world.kill(all[2]);
    world.run_for(Duration::from_secs(14 * 3600));
    world.restart(all[2]);
    let took = world.run_until(Duration::from_secs(5), |world| {
        world.machines[all[2]].neighbours().len() == 2
    });
    assert!(took.is_some(), "{}", world.portrait());
}

#[test]
fn two_that_both_said_they_leave_find_each_other_again() {
    let mut world = World::seeded(71);
    let all = world.network(&["anna", "bo"]);
    for ix in [all[0], all[1]] {
        world.command(ix, |node, now| node.say_left(now));
        world.run_for(Duration::from_secs(1));
        world.kill(ix);
    }
    // Longer ago than the ten minutes within which a start knocks by itself.
    world.run_for(Duration::from_secs(3600));
    world.restart(all[0]);
    world.restart(all[1]);
    let took = world.run_until(Duration::from_secs(5), |world| {
        all.iter()
            .all(|ix| world.machines[*ix].neighbours().len() == 1)
    });
    assert!(took.is_some(), "{}", world.portrait());
}
