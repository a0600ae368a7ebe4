//! Real agents in network namespaces: real TUN devices, real NAT, real programs.
//!
//! They run as root, or as an ordinary user where the kernel allows user namespaces and `/dev/net/tun` is 0666.
//! Where neither is so they fail and say what they need.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests run in real time, open sockets, end at the first surprise, and print logs after it"
)]

#[path = "../../src/host_dns/double.rs"]
mod double;
mod ground;
mod harness;
#[path = "../cli/schema.rs"]
mod schema;

mod answering;
mod asking;
mod calling;
mod clocks;
mod crashing;
mod crowd;
mod defining;
mod demo;
mod dht;
mod guarding;
mod host;
mod host_dns;
mod hostile;
mod injection;
mod interop;
mod inviting;
mod joining;
mod lab;
mod mallory;
mod many;
mod meeting;
mod naming;
mod nat;
mod neighbours;
mod port_mapping;
mod pressure;
mod reaching;
mod relaying;
mod resolved;
mod secrets;
mod serving;
mod silence;
mod speed;
mod supervised;
mod threads;
mod transports;
mod uplink;
mod wire;
