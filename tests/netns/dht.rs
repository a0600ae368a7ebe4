//! A Mainline DHT for a lab: nodes in one process, each at an address of its own out of 203.0.113.64/26, as nodes of the
//! world are. They are the crate's own, in server mode: what they say of an asker's address is what they saw.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    process::{Child, Stdio},
};

use mainline::{Dht, async_dht::AsyncDht};
use webmesh::demo::lab::{Lab, Machine};

/// How many nodes there are.
const NODES: u8 = 32;

/// What is told once every node knows others.
const READY: &str = "the DHT stands";

/// The DHT; it ends when this is dropped.
pub(crate) struct Nodes(Child);

/// What an agent's configuration says to enter it.
pub(crate) const CONFIG: &str =
    "[rendezvous]\ndht_bootstrap = [\"203.0.113.64:6881\", \"203.0.113.65:6881\"]\n";

impl Nodes {
    /// Puts a machine `dht` on the lab's internet and starts the nodes there.
    pub(crate) fn start(lab: &Lab) -> Self {
        let addresses: Vec<String> = (0..NODES)
            .map(|i| format!("{}/24", address(i).ip()))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        Self::on(&lab.public("dht", &addresses).unwrap())
    }

    /// Starts the nodes on a machine that has their addresses.
    pub(crate) fn on(machine: &Machine) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut process = machine
            .command(own)
            .unwrap()
            .args([
                "--exact",
                "dht::nodes_of_the_dht",
                "--ignored",
                "--nocapture",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let is_ready = said.lines().any(|line| line.unwrap().contains(READY));
        assert!(is_ready, "the DHT did not come to stand");
        Self(process)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(i: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 64 + i), 6881)
}

/// No test: the process of [`Nodes`], run inside a machine. Ends when its stdin does.
#[test]
#[ignore = "started by other tests in a machine of their lab"]
fn nodes_of_the_dht() {
    let nodes: Vec<AsyncDht> = (0..NODES).map(node).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for node in &nodes {
            assert!(node.bootstrapped().await);
        }
    });
    println!("{READY}");
    let _ended = std::io::stdin().read_to_end(&mut Vec::new());
}

fn node(i: u8) -> AsyncDht {
    let own = address(i);
    let mut builder = Dht::builder();
    builder
        .server_mode()
        .no_bootstrap()
        .bind_address(*own.ip())
        .public_ip(*own.ip())
        .port(own.port());
    if i > 0 {
        builder.bootstrap(&[address(0)]);
    }
    builder.build().unwrap().as_async()
}
