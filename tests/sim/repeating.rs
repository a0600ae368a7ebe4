//! The same seed gives the same history, and how often a node is asked changes nothing: what the simulator stands on.

use std::time::Duration;

use webmesh::overlay::Limits;

use crate::{
    wires::BAD,
    world::{Polling, World, sample},
};

/// Joining, loss, a death, a restart and packets: a bit of everything.
fn history(seed: u64, polling: Polling) -> String {
    let mut world = World::with(seed, Limits::EVERYONE.with_links(3), BAD, polling);
    let all = world.network(&["anna", "bo", "carol", "dora", "emil"]);
    world.send(all[1], all[2]);
    world.run_for(Duration::from_secs(3));
    world.kill(all[3]);
    world.run_for(Duration::from_secs(40));
    world.restart(all[3]);
    world.send(all[4], all[3]);
    world.run_for(Duration::from_secs(30));
    world.history()
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(
        history(100, Polling::AtDeadlines),
        history(100, Polling::AtDeadlines)
    );
}

#[test]
fn another_seed_gives_another_history() {
    assert_ne!(
        history(100, Polling::AtDeadlines),
        history(101, Polling::AtDeadlines)
    );
}

#[test]
fn a_node_that_is_asked_more_often_does_the_same() {
    for seed in 102..102 + sample(3, 100) {
        assert_eq!(
            history(seed, Polling::AtDeadlines),
            history(seed, Polling::Each100Ms),
            "seed {seed}"
        );
    }
}
