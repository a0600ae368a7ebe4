//! An uplink that is slower than what programs send: what waits for it waits here, by flow, and none of it is lost to us.

use std::time::Duration;

use crate::{
    harness::{Net, Peer, within},
    speed::{SINK, SOURCE, counted, script},
};

/// As a home's: 20 Mbit/s behind a queue that holds 400 ms of it, first come, first served.
const SLOW: &str = "tc qdisc add dev eth0 root tbf rate 20mbit burst 16k limit 1m";

/// The median round trip of pings to another peer, beside whatever else goes on.
fn round_trip(from: &Peer, to: &str) -> Duration {
    let said = from.sh(&format!("ping -i 0.05 -c 60 {to}"));
    let times = said.lines().filter_map(|line| line.split_once("time="));
    let mut times: Vec<f64> = times
        .map(|(_, time)| time.trim_end_matches(" ms").parse().unwrap())
        .collect();
    assert!(times.len() > 50, "{said}");
    times.sort_by(f64::total_cmp);
    Duration::from_secs_f64(times[times.len() / 2] / 1000.0)
}

fn bytes_sent(peer: &Peer) -> u64 {
    counted(peer, "eth0", "tx")["bytes"].as_u64().unwrap()
}

#[test]
fn a_ping_does_not_wait_for_a_transfer_and_the_transfer_is_whole() {
    let mut net = Net::empty();
    net.add_public("anna", 11);
    net.add_public("bo", 12);
    net.form();
    let (anna, bo) = (net.peer("anna"), net.peer("bo"));
    anna.sh("ping -c 1 bo");
    anna.sh(SLOW);
    // One that fills whatever queue there is.
    anna.sh("echo reno >/proc/sys/net/ipv4/tcp_congestion_control");
    let quiet = round_trip(anna, "bo");
    let addresses = bo.mesh_addresses();
    let sink = script(bo, "sink.py", SINK);
    let _sink = bo.beside(&format!("python3 {sink} {} {}", addresses[0], addresses[1]));
    bo.await_port(5001);
    let source = script(anna, "source.py", SOURCE);
    let (before, drops) = (bytes_sent(anna), anna.status()["drops"].clone());
    let done = anna.file("done");
    let transfer = format!(
        "sh -c 'python3 {source} {} 5001 30000000 0 && touch {}'",
        addresses[0],
        done.display()
    );
    let _transfer = anna.beside(&transfer);
    within(Duration::from_secs(10), "the uplink is busy", || {
        bytes_sent(anna) > before + 2_000_000
    });
    let busy = round_trip(anna, "bo");
    assert!(!done.exists(), "the transfer went on all the while");
    eprintln!("a ping of {quiet:?} takes {busy:?} beside a transfer");
    // First come, first served it would be 400 ms.
    assert!(
        busy < quiet + Duration::from_millis(100),
        "{busy:?} beside {quiet:?}"
    );
    within(Duration::from_secs(30), "the digest is right", || {
        done.exists()
    });
    let after = anna.status()["drops"].clone();
    for reason in ["send_failed", "no_buffer", "out_uplink_full"] {
        assert_eq!(after[reason], drops[reason], "{reason}: {after}");
    }
    assert!(after["out_congested"].as_u64() > Some(0), "{after}");
}
