//! Many peers' links in one process; sessions are made by decree.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::hash::{Use, hash};

const SECOND: u64 = 1_000_000;
const DIAL_TAKES: u64 = 50_000;
const LATENCY: u64 = 20_000;

fn at(micros: u64) -> Now {
    Now {
        at: Moment(micros),
        unix_ms: micros / 1000,
    }
}

fn ix(peer: usize) -> PeerIx {
    PeerIx(u32::try_from(peer).unwrap())
}

fn node(peer: usize) -> NodeId {
    NodeId(hash(Use::Home, &[&[u8::try_from(peer).unwrap()]]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    DialEnds,
    Hears(Output),
}

struct World {
    now: u64,
    links: Vec<Links>,
    dead: BTreeSet<usize>,
    open: BTreeSet<(usize, usize)>,
    coming: BTreeMap<(u64, u64), (usize, usize, Happening)>,
    count: u64,
    said: Vec<(u64, usize, Output)>,
    nudge: Option<u64>,
}

impl World {
    fn new(peers: usize, limits: Limits) -> Self {
        let seed = |n: usize| [u8::try_from(n).unwrap(); 32];
        let mut world = Self {
            now: SECOND,
            links: (0..peers)
                .map(|n| Links::new(node(n), limits, seed(n)))
                .collect(),
            dead: BTreeSet::new(),
            open: BTreeSet::new(),
            coming: BTreeMap::new(),
            count: 0,
            said: Vec::new(),
            nudge: None,
        };
        for me in 0..peers {
            for other in (0..peers).filter(|other| *other != me) {
                world.links[me].handle_known(at(world.now), ix(other), node(other), Eligible::Yes);
            }
            world.drain(me);
        }
        world
    }

    fn drain(&mut self, me: usize) {
        if self.dead.contains(&me) {
            return;
        }
        while let Some(output) = self.links[me].poll_output() {
            self.said.push((self.now, me, output));
            let (peer, happening, takes) = match output {
                Output::Dial(peer) => (peer, Happening::DialEnds, DIAL_TAKES),
                Output::Close { peer, .. } => {
                    let other = usize::try_from(peer.0).unwrap();
                    self.open.remove(&(me.min(other), me.max(other)));
                    (peer, Happening::Hears(output), LATENCY)
                }
                Output::Ask(peer)
                | Output::Yes(peer)
                | Output::Unlink { peer, .. }
                | Output::Linked(peer)
                | Output::Unlinked(peer)
                | Output::Ping(peer) => (peer, Happening::Hears(output), LATENCY),
            };
            self.count += 1;
            let other = usize::try_from(peer.0).unwrap();
            self.coming
                .insert((self.now + takes, self.count), (me, other, happening));
        }
    }

    fn happen(&mut self, from: usize, to: usize, happening: Happening) {
        let (now, sender) = (at(self.now), ix(from));
        match happening {
            Happening::DialEnds if self.dead.contains(&to) => {
                self.links[from].handle_dial_failed(now, ix(to));
                self.drain(from);
            }
            Happening::DialEnds => {
                if self.open.insert((from.min(to), from.max(to))) {
                    self.links[from].handle_open(now, ix(to), Opener::Own);
                    self.links[to].handle_open(now, sender, Opener::Theirs);
                    self.drain(from);
                }
            }
            Happening::Hears(output) => {
                if self.dead.contains(&to) {
                    return;
                }
                self.links[to].handle_heard(now, sender, now.at, Moment::default());
                match output {
                    Output::Ask(_) => self.links[to].handle_link(now, sender, false),
                    Output::Yes(_) => self.links[to].handle_link(now, sender, true),
                    Output::Unlink { .. } => self.links[to].handle_unlink(now, sender, 0),
                    Output::Close { .. } => self.links[to].handle_closed(now, sender),
                    Output::Ping(_) => {
                        self.links[from].handle_heard(now, ix(to), now.at, Moment::default());
                    }
                    Output::Dial(_) | Output::Linked(_) | Output::Unlinked(_) => {}
                }
            }
        }
        self.drain(to);
    }

    fn run_for(&mut self, micros: u64) {
        let end = self.now + micros;
        loop {
            let arrival = self.coming.first_key_value().map(|((when, _), _)| *when);
            let alive = (0..self.links.len()).filter(|me| !self.dead.contains(me));
            let wakes = alive.filter_map(|me| self.links[me].poll_timeout());
            let nudge = self.nudge.map(|every| (self.now / every + 1) * every);
            let times = wakes.map(|moment| moment.0).chain(arrival).chain(nudge);
            let Some(next) = times.min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(first) = self
                .coming
                .first_entry()
                .filter(|entry| entry.key().0 <= next)
            {
                let (from, to, happening) = first.remove();
                self.happen(from, to, happening);
            }
            for me in 0..self.links.len() {
                self.links[me].handle_timeout(at(self.now));
                self.drain(me);
            }
        }
    }

    /// The links both ends agree on, among the living.
    fn edges(&self) -> BTreeSet<(usize, usize)> {
        let mut edges = BTreeSet::new();
        for (me, links) in self
            .links
            .iter()
            .enumerate()
            .filter(|(me, _)| !self.dead.contains(me))
        {
            for peer in links.linked() {
                let other = usize::try_from(peer.0).unwrap();
                assert!(
                    self.dead.contains(&other) || self.links[other].is_linked(ix(me)),
                    "both ends agree"
                );
                edges.insert((me.min(other), me.max(other)));
            }
        }
        edges
    }

    fn is_connected(&self) -> bool {
        let edges = self.edges();
        let alive: BTreeSet<usize> = (0..self.links.len())
            .filter(|me| !self.dead.contains(me))
            .collect();
        let mut reached: BTreeSet<usize> = alive.first().copied().into_iter().collect();
        loop {
            let before = reached.len();
            for (a, b) in &edges {
                if reached.contains(a) || reached.contains(b) {
                    reached.extend([*a, *b]);
                }
            }
            if reached.len() == before {
                return alive.is_subset(&reached);
            }
        }
    }
}

fn four_links() -> Limits {
    Limits {
        idle_close: Duration::from_secs(5),
        ..Limits::EVERYONE.with_links(4)
    }
}

#[test]
fn ten_peers_are_linked_each_with_each_by_one_dial_per_pair() {
    let mut world = World::new(10, Limits::EVERYONE);
    world.run_for(5 * SECOND);
    assert_eq!(world.edges().len(), 45);
    let dials = world
        .said
        .iter()
        .filter(|(.., output)| matches!(output, Output::Dial(_)));
    assert_eq!(dials.count(), 45);
}

#[test]
fn twenty_peers_with_four_links_each_stay_one_graph_and_keep_few_sessions() {
    let mut world = World::new(20, four_links());
    world.run_for(60 * SECOND);
    assert!(world.is_connected());
    for links in &world.links {
        let count = links.linked().count();
        assert!((2..=4).contains(&count), "{count} links");
    }
    world.run_for(600 * SECOND);
    assert!(world.is_connected());
    let linked = world.edges().len();
    assert!(
        world.open.len() <= linked + 4,
        "{} open, {linked} linked",
        world.open.len()
    );
}

#[test]
fn twenty_peers_of_which_seven_die_stay_one_graph() {
    let mut world = World::new(20, four_links());
    world.run_for(60 * SECOND);
    world.dead = [1, 2, 3, 5, 8, 13, 19].into();
    world.run_for(120 * SECOND);
    assert!(world.is_connected());
}

#[test]
fn waking_only_at_deadlines_and_waking_all_the_time_do_the_same() {
    let run = |nudge| {
        let mut world = World::new(12, four_links());
        world.nudge = nudge;
        world.dead = [3, 4].into();
        world.run_for(90 * SECOND);
        world.said
    };
    let calm = run(None);
    assert!(calm.len() > 100);
    assert_eq!(calm, run(Some(SECOND / 10)));
}

fn drain(links: &mut Links) -> Vec<Output> {
    std::iter::from_fn(|| links.poll_output()).collect()
}

fn alone(own: u8, limits: Limits) -> Links {
    let mut links = Links::new(NodeId([own; 32]), limits, [1; 32]);
    links.handle_known(at(0), ix(5), NodeId([5; 32]), Eligible::Yes);
    links
}

/// Wakes at every deadline up to `end`; what came out, and when.
fn run_to(links: &mut Links, end: u64) -> Vec<(u64, Output)> {
    let mut trace = Vec::new();
    while let Some(due) = links.poll_timeout().filter(|due| due.0 <= end) {
        links.handle_timeout(at(due.0));
        trace.extend(drain(links).into_iter().map(|output| (due.0, output)));
    }
    trace
}

#[test]
fn the_lower_node_id_dials_at_once_and_the_higher_after_two_seconds() {
    let dial = Output::Dial(ix(5));
    assert_eq!(
        run_to(&mut alone(1, Limits::EVERYONE), SECOND),
        vec![(0, dial)]
    );
    assert_eq!(
        run_to(&mut alone(9, Limits::EVERYONE), 3 * SECOND),
        vec![(2 * SECOND, dial)]
    );
}

#[test]
fn a_failed_dial_is_repeated_ever_later_and_at_once_on_a_new_address() {
    let mut links = alone(1, Limits::EVERYONE);
    let mut now = 0;
    for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        links.handle_timeout(at(now));
        assert_eq!(drain(&mut links), vec![Output::Dial(ix(5))]);
        links.handle_dial_failed(at(now), ix(5));
        let due = links.poll_timeout().unwrap().0;
        let percent = (due - now) * 100 / (wait * SECOND);
        assert!((80..=120).contains(&percent), "{percent} % of {wait} s");
        now = due;
    }
    links.handle_timeout(at(now));
    links.handle_dial_failed(at(now), ix(5));
    drain(&mut links);
    links.handle_address_changed(at(now + 7), ix(5));
    assert_eq!(
        run_to(&mut links, now + 7),
        vec![(now + 7, Output::Dial(ix(5)))]
    );
}

fn linked(limits: Limits) -> Links {
    let mut links = alone(1, limits);
    links.handle_open(at(0), ix(5), Opener::Theirs);
    assert_eq!(drain(&mut links), vec![Output::Ask(ix(5))]);
    links.handle_link(at(0), ix(5), true);
    assert_eq!(drain(&mut links), vec![Output::Linked(ix(5))]);
    links
}

#[test]
fn a_session_for_one_question_is_closed_after_two_seconds_unless_it_is_used() {
    let no_links = Limits::EVERYONE.with_links(0);
    let peer = ix(5);
    let reason = CloseReason::Idle;
    for (is_used, closed_s) in [(false, 2), (true, 301)] {
        let mut links = Links::new(NodeId([1; 32]), no_links, [1; 32]);
        links.handle_known(at(0), peer, NodeId([5; 32]), Eligible::No);
        links.handle_open(at(0), peer, Opener::Own);
        links.handle_unlink(at(0), peer, 0);
        links.handle_brief(peer);
        if is_used {
            links.handle_heard(at(SECOND), peer, Moment(SECOND), Moment(SECOND));
        }
        drain(&mut links);
        let close = Output::Close { peer, reason };
        let trace = run_to(&mut links, 400 * SECOND);
        assert_eq!(trace.last(), Some(&(closed_s * SECOND, close)), "{trace:?}");
    }
}

#[test]
fn a_silent_link_is_pinged_thrice_and_closed() {
    let mut links = linked(Limits::EVERYONE);
    links.handle_heard(at(5 * SECOND), ix(5), Moment(5 * SECOND), Moment(0));
    let reason = CloseReason::Silent;
    let peer = ix(5);
    assert_eq!(
        run_to(&mut links, 23 * SECOND),
        vec![
            (20 * SECOND, Output::Ping(peer)),
            (21 * SECOND, Output::Ping(peer)),
            (22 * SECOND, Output::Ping(peer)),
            (23 * SECOND, Output::Unlinked(peer)),
            (23 * SECOND, Output::Close { peer, reason }),
        ]
    );
}

#[test]
fn a_link_that_answers_a_ping_stays() {
    let mut links = linked(Limits::EVERYONE);
    assert_eq!(run_to(&mut links, 15 * SECOND).len(), 1);
    links.handle_heard(
        at(15 * SECOND + 9),
        ix(5),
        Moment(15 * SECOND + 9),
        Moment(0),
    );
    assert!(run_to(&mut links, 30 * SECOND).is_empty());
    assert!(links.is_linked(ix(5)));
}

#[test]
fn an_unlinked_session_closes_when_no_program_used_it_for_a_while_and_a_link_does_not() {
    let mut links = linked(four_links());
    for second in 1..20 {
        links.handle_heard(
            at(second * SECOND),
            ix(5),
            Moment(second * SECOND),
            Moment(0),
        );
    }
    assert!(run_to(&mut links, 19 * SECOND).is_empty());
    links.handle_unlink(at(20 * SECOND), ix(5), 1);
    links.handle_heard(
        at(22 * SECOND),
        ix(5),
        Moment(22 * SECOND),
        Moment(22 * SECOND),
    );
    let closed: Vec<u64> = run_to(&mut links, 40 * SECOND)
        .into_iter()
        .filter(|(_, output)| {
            matches!(
                output,
                Output::Close {
                    reason: CloseReason::Idle,
                    ..
                }
            )
        })
        .map(|(when, _)| when)
        .collect();
    assert_eq!(closed, vec![27 * SECOND]);
}

#[test]
fn an_ask_above_the_cap_gets_unlink_and_one_without_a_session_nothing() {
    let mut links = Links::new(node(0), four_links(), [1; 32]);
    for peer in 1..30 {
        links.handle_known(at(0), ix(peer), node(peer), Eligible::Yes);
        links.handle_open(at(0), ix(peer), Opener::Theirs);
    }
    drain(&mut links);
    links.handle_link(at(1), ix(99), false);
    assert_eq!(drain(&mut links), vec![]);
    for peer in 1..30 {
        links.handle_link(at(1), ix(peer), false);
    }
    let said = drain(&mut links);
    let full = said.iter().filter(|output| {
        let reason = UnlinkReason::Full;
        matches!(output, Output::Unlink { reason: why, .. } if *why == reason)
    });
    assert!(full.count() >= 25);
    assert_eq!(links.linked().count(), 4);
    assert!(
        links.ring().iter().all(|peer| links.is_linked(*peer)),
        "ring neighbours were let in"
    );
}

#[test]
fn a_lost_yes_is_asked_for_again_and_answered_again() {
    let mut links = alone(1, Limits::EVERYONE);
    links.handle_open(at(0), ix(5), Opener::Own);
    drain(&mut links);
    let asks = run_to(&mut links, 2 * SECOND);
    assert_eq!(
        asks,
        vec![
            (SECOND, Output::Ask(ix(5))),
            (2 * SECOND, Output::Ask(ix(5)))
        ]
    );
    drain(&mut links);
    links.handle_link(at(3 * SECOND), ix(5), false);
    assert_eq!(
        drain(&mut links),
        vec![Output::Yes(ix(5)), Output::Linked(ix(5))]
    );
    links.handle_link(at(3 * SECOND), ix(5), false);
    assert_eq!(drain(&mut links), vec![Output::Yes(ix(5))]);
}

#[test]
fn above_the_limit_of_sessions_the_one_used_least_recently_closes() {
    let limits = Limits {
        open: 5,
        wanted: 1,
        cap: 1,
        ..Limits::EVERYONE
    };
    let mut links = Links::new(node(0), limits, [1; 32]);
    let mut closed = Vec::new();
    for peer in 1..8 {
        let now = u64::try_from(peer).unwrap() * SECOND;
        links.handle_known(at(now), ix(peer), node(peer), Eligible::No);
        links.handle_open(at(now), ix(peer), Opener::Theirs);
        links.handle_heard(at(now), ix(1), Moment(now), Moment(now));
        for output in drain(&mut links) {
            if let Output::Close {
                peer,
                reason: CloseReason::Crowded,
            } = output
            {
                closed.push(peer);
            }
        }
    }
    assert_eq!(closed, vec![ix(2), ix(3)]);
    assert_eq!(links.open_count(), 5);
}

#[test]
fn a_session_that_is_replaced_is_a_new_one_to_gossip_too() {
    let mut links = linked(Limits::EVERYONE);
    links.handle_open(at(SECOND), ix(5), Opener::Theirs);
    assert_eq!(
        drain(&mut links),
        vec![Output::Unlinked(ix(5)), Output::Ask(ix(5))]
    );
}

#[test]
fn who_knocks_has_closed_its_session_as_idle_and_the_one_kept_for_it_is_not_closed_for_that() {
    let idle = Limits::EVERYONE.idle_close;
    let idle = u64::try_from(idle.as_micros()).unwrap();
    let of_idleness = Output::Close {
        peer: ix(5),
        reason: CloseReason::Idle,
    };
    let closed_at = |knocked: Option<u64>| {
        let limits = Limits {
            wanted: 0,
            ..Limits::EVERYONE
        };
        let mut links = alone(1, limits);
        links.handle_open(at(0), ix(5), Opener::Theirs);
        if let Some(moment) = knocked {
            run_to(&mut links, moment);
            links.handle_knocked(at(moment), ix(5));
        }
        let said = run_to(&mut links, 3 * idle);
        said.iter()
            .find(|(_, output)| *output == of_idleness)
            .map(|(moment, _)| *moment)
    };
    assert_eq!(closed_at(None), Some(idle));
    assert_eq!(closed_at(Some(idle - 1)), Some(2 * idle - 1));
}
