//! Machines behind routers reach each other through a third one.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use webmesh::{addr::Underlay, members::invites::InviteRole, overlay::Limits};

use crate::{
    nats::{FULL_CONE, NatKind, PLAIN, SYMMETRIC},
    wires::{MachineIx, Quality},
    world::{Polling, World, sample},
};

/// Round trips of 100 ms.
const ACROSS_A_CONTINENT: Quality = Quality {
    latency: Duration::from_millis(48),
    jitter: Duration::from_millis(4),
    lost_of_1000: 0,
};

/// A public machine that founded the network, and two behind routers of these kinds that joined it.
fn two_behind_routers(seed: u64, kinds: [NatKind; 2]) -> (World, [MachineIx; 3]) {
    let mut world = World::seeded(seed);
    let home = world.public_machine("home");
    world.found(home);
    let token = world.invite(home, 2, InviteRole::Member);
    let mut join = |name: &str, kind| {
        let nat = world.nat(kind);
        let ix = world.hidden_machine(name, nat);
        world.join(ix, &token);
        ix
    };
    let (anna, bo) = (join("anna", kinds[0]), join("bo", kinds[1]));
    let took = world.run_until(Duration::from_secs(20), World::is_whole);
    assert!(took.is_some(), "{}", world.portrait());
    (world, [home, anna, bo])
}

/// How long the first packet from one to another takes.
fn first_packet(world: &mut World, from: MachineIx, to: MachineIx) -> Option<Duration> {
    let packet = world.send(from, to);
    world.run_until(Duration::from_secs(4), |world| {
        world.machines[to].received.contains(&packet)
    })
}

#[test]
fn two_behind_plain_routers_meet_through_a_public_machine() {
    for (seed, kinds) in [
        (200, [PLAIN, PLAIN]),
        (201, [PLAIN, FULL_CONE]),
        (202, [FULL_CONE, SYMMETRIC]),
    ] {
        let (mut world, [_, anna, bo]) = two_behind_routers(seed, kinds);
        let took = first_packet(&mut world, anna, bo);
        assert!(
            took.is_some_and(|took| took < Duration::from_secs(2)),
            "{took:?}\n{}",
            world.portrait()
        );
    }
}

#[test]
fn who_is_invited_by_one_behind_a_router_joins_through_a_public_machine() {
    let mut world = World::seeded(210);
    let home = world.public_machine("home");
    world.found(home);
    let token = world.invite(home, 1, InviteRole::Admin);
    let nat = world.nat(PLAIN);
    let anna = world.hidden_machine("anna", nat);
    world.join(anna, &token);
    world.run_for(Duration::from_secs(10));
    let token = world.invite(anna, 1, InviteRole::Member);
    let nat = world.nat(PLAIN);
    let bo = world.hidden_machine("bo", nat);
    world.run_for(Duration::from_secs(3));
    world.join(bo, &token);
    let took = world.run_until(Duration::from_secs(20), World::is_whole);
    assert!(
        took.is_some_and(|took| took < Duration::from_secs(5)),
        "{took:?}\n{}",
        world.portrait()
    );
    let took = first_packet(&mut world, bo, anna);
    assert!(
        took.is_some_and(|took| took < Duration::from_secs(2)),
        "{took:?}\n{}",
        world.portrait()
    );
}

/// Public machines are proven by now, and homes that were kept until better ones had been there for 5 min are let go.
const SETTLED: Duration = Duration::from_secs(6 * 60);

/// Public machines with few links, and two behind plain routers, anna and bo, which have settled.
fn crowd(seed: u64, publics: usize) -> (World, MachineIx, MachineIx) {
    let limits = Limits {
        idle_close: Duration::from_secs(40),
        ..Limits::EVERYONE
    }
    .with_links(2);
    let mut world = World::with(seed, limits, ACROSS_A_CONTINENT, Polling::AtDeadlines);
    let founder = world.public_machine("p0");
    world.found(founder);
    let token = world.invite(founder, 64, InviteRole::Member);
    for number in 1..publics {
        let ix = world.public_machine(&format!("p{number}"));
        world.join(ix, &token);
        world.run_for(Duration::from_secs(5));
    }
    let [anna, bo] = ["anna", "bo"].map(|name| {
        let nat = world.nat(PLAIN);
        let ix = world.hidden_machine(name, nat);
        world.join(ix, &token);
        ix
    });
    let took = world.run_until(Duration::from_secs(120), World::is_whole);
    assert!(took.is_some(), "{}", world.portrait());
    world.run_for(SETTLED);
    (world, anna, bo)
}

fn homes(world: &World, of: MachineIx) -> BTreeSet<MachineIx> {
    let homes = world.machines[of].node().expect("a member").homes();
    let is_home = |ix: &MachineIx| homes.contains(&world.machines[*ix].identity().key.id());
    (0..world.machines.len()).filter(is_home).collect()
}

#[test]
fn a_machine_behind_a_router_keeps_sessions_with_three_homes_and_a_public_one_with_none() {
    let (mut world, _, bo) = crowd(220, 8);
    // Who answered first is kept for a while when better ones do too.
    let has_three = |world: &World| homes(world, bo).len() == 3;
    let took = world.run_until(Duration::from_secs(30), has_three);
    assert!(took.is_some(), "{}", world.portrait());
    world.run_for(Duration::from_secs(5));
    let homes_of_bo = homes(&world, bo);
    assert_eq!(homes_of_bo.len(), 3, "{}", world.portrait());
    let near = world.machines[bo].neighbours();
    for home in &homes_of_bo {
        assert!(near.contains(&world.machines[*home].identity().key.id()));
    }
    assert!(homes(&world, 0).is_empty());
}

#[test]
fn who_lost_all_homes_at_once_is_called_through_others_soon() {
    for seed in 230..230 + sample(1, 20) {
        let (mut world, anna, bo) = crowd(seed, 9);
        let dead = homes(&world, bo);
        dead.iter().for_each(|home| world.kill(*home));
        world.run_for(Duration::from_secs(40));
        let homes = homes(&world, bo);
        // Who answered first is kept for a while when better ones do too.
        assert!(homes.len() >= 3 && homes.is_disjoint(&dead), "{homes:?}");
        let took = first_packet(&mut world, anna, bo);
        assert!(
            took.is_some_and(|took| took < Duration::from_secs(2)),
            "{took:?}\n{}",
            world.portrait()
        );
    }
}

#[test]
fn half_of_all_public_machines_may_be_dead() {
    let mut all = Vec::new();
    for seed in 240..240 + sample(3, 30) {
        let (mut world, anna, bo) = crowd(seed, 10);
        (1..10)
            .filter(|ix| (seed + ix) % 2 == 0)
            .for_each(|ix| world.kill(usize::try_from(ix).expect("few")));
        world.run_for(Duration::from_secs(60));
        let took = first_packet(&mut world, anna, bo);
        all.push(took.unwrap_or_else(|| panic!("seed {seed}\n{}", world.portrait())));
    }
    all.sort();
    let (half, worst) = (all[all.len() / 2], all[all.len() - 1]);
    assert!(
        half <= Duration::from_millis(500) && worst <= Duration::from_secs(2),
        "{all:?}"
    );
}

#[test]
fn who_is_away_is_said_to_be_so_within_a_second_where_its_homes_know() {
    let (mut world, anna, bo) = crowd(250, 6);
    let address = world.address_of(bo);
    world.kill(bo);
    world.run_for(Duration::from_secs(90));
    let before = world.machines[anna].unreachable;
    world.send_to(anna, address);
    let took = world.run_until(Duration::from_secs(4), |world| {
        world.machines[anna].unreachable > before
    });
    assert!(
        took.is_some_and(|took| took <= Duration::from_secs(1)),
        "{took:?}\n{}",
        world.portrait()
    );
}

#[test]
fn nobody_is_aimed_at_a_stranger_by_what_a_caller_claims() {
    let mut world = World::seeded(260);
    let home = world.public_machine("home");
    world.found(home);
    let token = world.invite(home, 255, InviteRole::Member);
    let names: Vec<String> = (0..sample(12, 200))
        .map(|number| format!("m{number}"))
        .collect();
    let members: Vec<MachineIx> = names
        .iter()
        .map(|name| {
            let nat = world.nat(PLAIN);
            let ix = world.hidden_machine(name, nat);
            world.join(ix, &token);
            ix
        })
        .collect();
    let took = world.run_until(Duration::from_secs(60), World::is_whole);
    assert!(took.is_some(), "{}", world.portrait());
    // Mallory says that it is at a stranger's address as well, and calls everybody anew.
    let victim = Ipv4Addr::new(203, 99, 113, 5);
    let there = Underlay::new((victim, 5000).into());
    let mallory = members[0];
    world.kill(mallory);
    world.run_for(Duration::from_secs(1000));
    world.let_lie(mallory, there);
    world.restart(mallory);
    world.run_for(Duration::from_secs(30));
    for member in &members[1..] {
        world.send(mallory, *member);
    }
    world.run_for(Duration::from_secs(30));
    let (lies, hits) = world.lies_and_hits();
    assert!(lies >= 5, "{lies} claims\n{}", world.portrait());
    assert_eq!(hits, 0, "{}", world.portrait());
}
