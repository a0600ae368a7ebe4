//! Networks come into being: machines join, records spread until all hold the same, whatever the wires are like.

use std::{collections::BTreeSet, time::Duration};

use webmesh::{
    members::invites::InviteRole, node::ServiceWish, overlay::Limits, tables::Transport,
    wire::message::Refused,
};

use crate::{
    machine::Machine,
    wires::{BAD, GOOD},
    world::{Polling, World},
};

const NAMES: [&str; 20] = [
    "anna", "bo", "carol", "dora", "emil", "finn", "greta", "hugo", "ida", "jan", "kim", "lea",
    "max", "nora", "otto", "pia", "quinn", "rosa", "sam", "tom",
];

#[test]
fn twenty_that_join_at_once_through_one_issuer_all_hold_the_same() {
    let mut world = World::seeded(1);
    world.network(&NAMES);
    let names: BTreeSet<String> = world
        .machines
        .iter()
        .filter_map(|machine| Some(machine.node()?.status(world.now()).own.name))
        .collect();
    assert_eq!(names.len(), 20);
    let everybody: Vec<_> = (1..20).map(|to| world.send(0, to)).collect();
    world.run_for(Duration::from_secs(1));
    for (to, packet) in (1..20).zip(everybody) {
        assert!(
            world.machines[to].received.contains(&packet),
            "{}",
            world.portrait()
        );
    }
}

#[test]
fn a_tenth_of_all_datagrams_lost_makes_a_network_late_and_no_more() {
    let mut world = World::with(2, Limits::EVERYONE, BAD, Polling::AtDeadlines);
    world.network(&NAMES[..6]);
}

#[test]
fn an_invite_for_one_admits_one_of_those_that_come_at_once() {
    let mut world = World::seeded(3);
    let anna = world.founder("anna");
    let token = world.invite(anna, 1, InviteRole::Member);
    let rivals: Vec<_> = NAMES[1..6]
        .iter()
        .map(|name| world.joiner(name, &token))
        .collect();
    world.run_for(Duration::from_secs(10));
    let admitted = rivals
        .iter()
        .filter(|ix| world.machines[**ix].node().is_some())
        .count();
    let told_who = |machine: &&Machine| {
        matches!(
            &machine.refused,
            Some(Refused {
                code: 1,
                name: Some(_),
                ..
            })
        )
    };
    let refused = rivals
        .iter()
        .map(|ix| &world.machines[*ix])
        .filter(told_who)
        .count();
    assert_eq!((admitted, refused), (1, 4), "{}", world.portrait());
}

#[test]
fn who_joined_through_a_second_admin_is_known_to_all() {
    let mut world = World::seeded(4);
    let anna = world.founder("anna");
    let token = world.invite(anna, 1, InviteRole::Admin);
    let bo = world.joiner("bo", &token);
    assert!(
        world
            .run_until(Duration::from_secs(20), World::is_whole)
            .is_some(),
        "{}",
        world.portrait()
    );
    let token = world.invite(bo, 1, InviteRole::Member);
    let carol = world.joiner("carol", &token);
    assert!(
        world
            .run_until(Duration::from_secs(20), World::is_whole)
            .is_some(),
        "{}",
        world.portrait()
    );
    let packet = world.send(anna, carol);
    world.run_for(Duration::from_secs(1));
    assert!(world.machines[carol].received.contains(&packet));
}

#[test]
fn a_split_network_is_one_again_after_it_heals() {
    let mut world = World::seeded(5);
    let all = world.network(&NAMES[..6]);
    let (left, right) = all.split_at(3);
    left.iter()
        .for_each(|a| right.iter().for_each(|b| world.wires.cut(*a, *b)));
    world.run_for(Duration::from_secs(120));
    serve(&mut world, left[0], "left");
    serve(&mut world, right[0], "right");
    world.run_for(Duration::from_secs(120));
    assert!(!world.is_one());
    world.wires.heal();
    let took = world.run_until(Duration::from_secs(600), World::is_one);
    assert!(took.is_some(), "{}", world.portrait());
}

#[test]
fn four_links_each_are_enough_for_twenty() {
    let limits = Limits {
        idle_close: Duration::from_secs(5),
        ..Limits::EVERYONE
    }
    .with_links(4);
    let mut world = World::with(6, limits, GOOD, Polling::AtDeadlines);
    let all = world.network(&NAMES);
    world.run_for(Duration::from_secs(120));
    for machine in &world.machines {
        let near = machine.neighbours().len();
        assert!(
            (2..=5).contains(&near),
            "{} has {near} sessions\n{}",
            machine.name,
            world.portrait()
        );
    }
    serve(&mut world, all[0], "web");
    assert!(
        world
            .run_until(Duration::from_secs(20), World::is_one)
            .is_some(),
        "{}",
        world.portrait()
    );
    let pairs = all
        .iter()
        .flat_map(|a| all.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b);
    let sent: Vec<_> = pairs.map(|(a, b)| (b, world.send(a, b))).collect();
    world.run_for(Duration::from_secs(5));
    let lost = sent
        .iter()
        .filter(|(to, packet)| !world.machines[*to].received.contains(packet))
        .count();
    assert_eq!(lost, 0, "of {}\n{}", sent.len(), world.portrait());
}

fn serve(world: &mut World, ix: usize, name: &str) {
    let wish = ServiceWish {
        name: name.to_owned(),
        instance: None,
        transport: Transport::Tcp,
        port: 80,
        target: None,
        tags: Vec::new(),
        weight: 100,
        defined_in: None,
    };
    world
        .command(ix, |node, now| node.service_add(now, wish))
        .expect("the first service of a peer is taken");
}
