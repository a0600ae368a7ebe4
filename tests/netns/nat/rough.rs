//! Issue 5, point 5: loss, and links that are narrow.

use std::{thread, time::Duration};

use super::{internet::Internet, kind::Kind, pair::Pair};
use crate::harness::{Peer, within};

#[test]
fn with_a_fifth_lost_both_ways_pairs_connect_and_ten_megabytes_arrive_whole() {
    let pair = Pair::of(Kind::Plain, Kind::Plain);
    pair.internet.lose(20);
    // An echo is lost by more than a third of chance itself.
    pair.anna().sh("ping -q -c 10 -i 0.3 -W 1 bo.home.internal");
    // Reno and cubic take loss for a full queue: cubic gets 20 kB/s through this, with a tunnel or without.
    for peer in [pair.anna(), pair.bo()] {
        peer.sh("echo bbr > /proc/sys/net/ipv4/tcp_congestion_control");
    }
    arrives_whole(&pair);
    pair.await_way("direct", Duration::from_secs(30));
}

#[test]
fn a_network_is_joined_with_a_fifth_lost_both_ways() {
    let mut internet = Internet::new();
    internet.settle(Kind::Public, "vps", 10);
    internet.settle(Kind::Plain, "anna", 20);
    internet.settle(Kind::Symmetric, "bo", 30);
    internet.lose(20);
    let founder = internet.peer("vps");
    founder.ok(&["init", "home"]);
    for name in ["anna", "bo"] {
        internet.peer(name).ok(&["join", &founder.invite()]);
    }
    for (name, other) in [("anna", "bo"), ("bo", "anna"), ("vps", "bo")] {
        within(Duration::from_secs(30), "each knows the others", || {
            ["up", "idle"].contains(&internet.peer(name).state_of(other).as_str())
        });
    }
}

#[test]
fn links_of_1500_1420_and_1280_bytes_carry_everything() {
    for mtu in [1500, 1420, 1280] {
        let pair = Pair::of(Kind::Plain, Kind::PortRestricted);
        pair.internet.narrow("anna", mtu);
        pair.first_echo();
        pair.await_way("direct", Duration::from_secs(10));
        for size in [1200, 1380, 1420] {
            // The first one teaches the kernel what the link carries.
            let echo = format!(
                "ping -c 4 -i 0.3 -W 2 -M dont -s {} bo.home.internal",
                size - 48
            );
            pair.anna().sh(&echo);
        }
        arrives_whole(&pair);
    }
}

/// Ten megabytes from anna to bo and ten from bo to anna, at once, each in eight streams: one alone may be unlucky for long
/// where much is lost.
pub(super) fn arrives_whole(pair: &Pair) {
    thread::scope(|scope| {
        for (from, to) in [(pair.anna(), pair.bo()), (pair.bo(), pair.anna())] {
            scope.spawn(move || {
                from.sh("mkdir -p files && cd files && \
                     for piece in 1 2 3 4 5 6 7 8; do head -c 1250000 /dev/urandom > $piece; done");
                let _server = from.beside("python3 -m http.server -b :: -d files 8001");
                from.await_port(8001);
                let name = from.name();
                to.sh(&format!(
                    "mkdir -p got && curl -sf --parallel --retry 3 --max-time 50 -o 'got/#1' \
                     'http://{name}.home.internal:8001/[1-8]'"
                ));
                let sums =
                    |machine: &Peer, folder| machine.sh(&format!("cd {folder} && sha256sum *"));
                assert_eq!(sums(from, "files"), sums(to, "got"));
            });
        }
    });
}
