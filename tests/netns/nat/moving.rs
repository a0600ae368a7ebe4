//! Issue 5, points 3 and 5: paths that break, move, and become narrow without a word, under traffic.

use std::time::Duration;

use super::{
    flow::Flow,
    internet::v4,
    kind::Kind,
    pair::{BO, Pair, way},
    rough::arrives_whole,
};
use crate::harness::{sample, within};

#[test]
fn a_killed_relay_is_followed_by_another_within_three_seconds() {
    let mut pair = Pair::with(
        Kind::Symmetric,
        Kind::Symmetric,
        &["vps", "vps2", "vps3"],
        "",
    );
    pair.first_echo();
    pair.await_way("relay", Duration::from_secs(10));
    let flow = Flow::start(pair.bo(), pair.anna());
    let relay = way(pair.anna(), "bo").via.expect("a relay has a name");
    let mark = flow.mark();
    pair.internet.net.peer_mut(&relay).agent.kill().unwrap();
    let silence = flow.longest_silence_since(mark);
    assert!(silence <= Duration::from_secs(3), "{silence:?}");
    within(Duration::from_secs(5), "status names another relay", || {
        let after = way(pair.anna(), "bo").via;
        after.is_some() && after.as_deref() != Some(relay.as_str())
    });
}

#[test]
fn a_direct_path_that_is_cut_is_relayed_within_three_seconds_and_direct_again_when_it_is_back() {
    let pair = direct(Kind::Plain, Kind::PortRestricted);
    let flow = Flow::start(pair.bo(), pair.anna());
    let mark = flow.mark();
    pair.internet.cut("anna", "bo");
    let silence = flow.longest_silence_since(mark);
    assert!(silence <= Duration::from_secs(3), "{silence:?}");
    pair.await_way("relay", Duration::from_secs(3));
    let mark = flow.mark();
    pair.internet.mend("anna", "bo");
    pair.await_way("direct", Duration::from_secs(30));
    let silence = flow.longest_silence_since(mark);
    assert!(
        silence <= Duration::from_secs(1),
        "the way back: {silence:?}"
    );
}

#[test]
fn a_path_that_becomes_one_way_is_left_within_three_seconds_under_traffic() {
    for (from, to) in [("anna", "bo"), ("bo", "anna")] {
        let pair = direct(Kind::Plain, Kind::Plain);
        let flow = Flow::start(pair.bo(), pair.anna());
        let mark = flow.mark();
        pair.internet.cut_one_way(from, to);
        let silence = flow.longest_silence_since(mark);
        assert!(
            silence <= Duration::from_secs(3),
            "{from} to {to}: {silence:?}"
        );
    }
}

#[test]
fn a_path_that_becomes_one_way_while_idle_costs_the_next_packet_no_more() {
    for (from, to) in [("anna", "bo"), ("bo", "anna")] {
        let pair = direct(Kind::Plain, Kind::Plain);
        pair.internet.cut_one_way(from, to);
        let asked = std::time::Instant::now();
        within(Duration::from_secs(3), "an echo by another way", || {
            let echo = "ping -c 1 -W 0.3 bo.home.internal";
            pair.anna().run(echo).status.success()
        });
        assert!(asked.elapsed() <= Duration::from_secs(3));
    }
}

#[test]
fn a_router_s_reboot_under_a_stream_costs_a_second() {
    for kind in [Kind::Plain, Kind::PortRestricted] {
        let pair = direct(kind, Kind::PortRestricted);
        let flow = Flow::start(pair.bo(), pair.anna());
        let silences = (0..sample(5, 20)).map(|_| {
            flow.await_settled();
            let mark = flow.mark();
            pair.internet.reboot("anna");
            let silence = flow.longest_silence_since(mark);
            pair.await_way("direct", Duration::from_secs(30));
            silence
        });
        assert_short(silences.collect(), &format!("{kind:?}"));
    }
}

#[test]
fn a_new_public_address_under_a_stream_costs_a_second() {
    for kind in [Kind::Plain, Kind::Public] {
        let pair = direct(Kind::PortRestricted, kind);
        let flow = Flow::start(pair.anna(), pair.bo());
        let silences = (1..=sample(5, 20)).map(|round| {
            flow.await_settled();
            let mark = flow.mark();
            let number = BO + u8::try_from(round).unwrap();
            pair.internet.renumber("bo", number);
            let silence = flow.longest_silence_since(mark);
            pair.await_way("direct", Duration::from_secs(30));
            silence
        });
        assert_short(silences.collect(), &format!("{kind:?}"));
    }
}

#[test]
fn a_laptop_that_goes_to_another_home_keeps_its_connections() {
    let pair = direct(Kind::Plain, Kind::Plain);
    let flow = Flow::start(pair.bo(), pair.anna());
    for (number, kind) in [
        (41, Kind::PortRestricted),
        (42, Kind::Cgnat),
        (43, Kind::Public),
    ] {
        let mark = flow.mark();
        pair.internet.move_to("anna", kind, number);
        let silence = flow.longest_silence_since(mark);
        assert!(silence <= Duration::from_secs(3), "{kind:?}: {silence:?}");
        pair.await_way("direct", Duration::from_secs(30));
    }
}

#[test]
fn a_laptop_that_leaves_a_hard_nat_is_direct_within_ten_seconds_for_both() {
    let pair = Pair::of(Kind::Symmetric, Kind::Symmetric);
    pair.first_echo();
    pair.await_way("relay", Duration::from_secs(10));
    // Until both have tried all that there is in vain.
    pair.anna().sh("ping -q -c 30 -i 0.2 bo.home.internal");
    assert!(pair.is_way("relay"));
    pair.internet.move_to("bo", Kind::AddressRestricted, 41);
    pair.await_way("direct", Duration::from_secs(10));
}

/// The socket whose port was guessed is of no use behind another router, whose port for it nobody knows.
#[test]
fn a_laptop_whose_port_was_guessed_is_direct_within_ten_seconds_from_another_home() {
    let pair = Pair::of(Kind::Symmetric, Kind::PortRestricted);
    pair.first_echo();
    pair.await_way("direct", Duration::from_secs(40));
    let guessed = pair.bo().status()["drops"]["guess_hit"].as_u64();
    assert_eq!(guessed, Some(1), "nobody guessed");
    let flow = Flow::start(pair.bo(), pair.anna());
    for (number, kind) in [(41, Kind::PortRestricted), (42, Kind::Plain)] {
        pair.internet.move_to("anna", kind, number);
        let site = v4(number).to_string();
        within(Duration::from_secs(10), "direct to the new home", || {
            let way = way(pair.bo(), "anna");
            let endpoint = way.endpoint.unwrap_or_default();
            endpoint.starts_with(&site) && pair.is_way("direct")
        });
    }
    flow.await_steady();
}

#[test]
fn who_lets_udp_out_again_is_direct_soon() {
    let pair = Pair::of(Kind::UdpBlocked, Kind::Plain);
    pair.first_echo();
    let is_on = |kind: &str| way(pair.anna(), "vps").kind == kind;
    within(Duration::from_secs(10), "a stream to vps", || {
        is_on("stream")
    });
    pair.anna().sh("ping -q -c 30 -i 0.2 bo.home.internal");
    pair.internet.let_udp_out("anna");
    within(Duration::from_secs(15), "vps by UDP", || is_on("direct"));
    pair.await_way("direct", Duration::from_secs(10));
}

#[test]
fn from_relayed_to_direct_no_segment_waits_for_its_timer() {
    let pair = direct(Kind::Plain, Kind::Plain);
    pair.internet.cut("anna", "bo");
    pair.await_way("relay", Duration::from_secs(10));
    let _server = pair.bo().beside("iperf3 -s");
    pair.bo().await_port(5201);
    let _load = pair
        .anna()
        .beside("iperf3 -c bo.home.internal -t 60 -b 200M");
    within(Duration::from_secs(10), "the load flows", || {
        sent_segments(&pair) > 10_000
    });
    let before = timeouts(&pair);
    pair.internet.mend("anna", "bo");
    within(Duration::from_secs(35), "direct", || pair.is_way("direct"));
    let sent = sent_segments(&pair);
    within(Duration::from_secs(5), "it flows on", || {
        sent_segments(&pair) > sent + 10_000
    });
    assert_eq!(timeouts(&pair), before, "retransmission timeouts");
}

/// A pair that has found its direct path.
fn direct(one: Kind, other: Kind) -> Pair {
    let pair = Pair::of(one, other);
    pair.first_echo();
    pair.await_way("direct", Duration::from_secs(10));
    pair
}

/// A second at most for 19 of 20. With few runs 1.6 s for all: who is not yet heard again when TCP repeats itself after 0.6 s is
/// asked the next time after 1.4 s.
fn assert_short(mut silences: Vec<Duration>, what: &str) {
    eprintln!("{what}: {silences:?}");
    silences.sort_unstable();
    let limit = Duration::from_millis(if silences.len() < 20 { 1600 } else { 1000 });
    let worst = silences[(silences.len() * 95).div_ceil(100) - 1];
    assert!(worst <= limit, "{what}: {silences:?}");
}

fn timeouts(pair: &Pair) -> u64 {
    counter(pair, "TcpExtTCPTimeouts")
}

fn sent_segments(pair: &Pair) -> u64 {
    counter(pair, "TcpOutSegs")
}

/// A counter of anna's kernel.
fn counter(pair: &Pair, name: &str) -> u64 {
    let said = pair.anna().sh(&format!("nstat -asz {name}"));
    let line = said.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_link_that_shrinks_without_a_word_stalls_a_stream_for_two_seconds_at_most() {
    for kind in [Kind::Plain, Kind::Symmetric] {
        let pair = Pair::of(kind, Kind::Symmetric);
        pair.first_echo();
        let flow = Flow::start(pair.bo(), pair.anna());
        for mtu in [1420, 1280] {
            let mark = flow.mark();
            pair.internet.shrink_silently("anna", mtu);
            let silence = flow.longest_silence_since(mark);
            assert!(silence <= Duration::from_secs(2), "{mtu}: {silence:?}");
        }
        arrives_whole(&pair);
    }
}
