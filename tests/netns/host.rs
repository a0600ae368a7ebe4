//! What `platform` says of a host's addresses, on a host made for it: the second half of each test runs in a machine.

use std::{net::SocketAddr, time::Duration};

use webmesh::{
    demo::{lab::Machine, order::NatKind, snapshot::Snapshot},
    platform::{
        link::Links,
        monitor::{Monitor, default_route_addresses},
    },
};

use crate::harness::{lab, run_inside};

#[test]
fn the_addresses_of_the_default_route_s_interface_are_told_and_no_others() {
    let lab = lab();
    let vps = lab
        .public("vps", &["203.0.113.10/24", "2001:db8::a/64"])
        .unwrap();
    lab.order(webmesh::demo::order::Order::Bridge {
        at: "vps".to_owned(),
        name: "docker0".to_owned(),
    })
    .unwrap();
    lab.address("vps", "docker0", "172.17.0.1/16").unwrap();
    run_inside(&vps, "host::inside_only_the_public_addresses_are_told", &[]);
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_only_the_public_addresses_are_told() {
    let told = default_route_addresses(41820, None).unwrap();
    let told: Vec<SocketAddr> = told.into_iter().map(|address| address.socket()).collect();
    let expected: Vec<SocketAddr> = ["203.0.113.10:41820", "[2001:db8::a]:41820"]
        .map(|text| text.parse().unwrap())
        .into();
    assert_eq!(told, expected);
    assert_eq!(
        default_route_addresses(41820, Some("eth0")).unwrap().len(),
        1,
        "without eth0: docker0's"
    );
}

#[test]
fn without_a_default_route_every_global_address_counts_and_each_change_is_told() {
    let lab = lab();
    let alone = lab.machine("alone").unwrap();
    lab.order(webmesh::demo::order::Order::Bridge {
        at: "alone".to_owned(),
        name: "lan0".to_owned(),
    })
    .unwrap();
    lab.address("alone", "lan0", "10.1.2.3/24").unwrap();
    run_inside(&alone, "host::inside_changes_are_told", &[]);
}

#[test]
#[ignore = "runs inside the machine of the test above"]
fn inside_changes_are_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut monitor = Monitor::open().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(50), monitor.changed()).await;
        assert!(quiet.is_err(), "nothing has changed yet");
        assert_eq!(default_route_addresses(1, None).unwrap().len(), 1);
        Links::open()
            .unwrap()
            .add_address("lan0", "10.1.2.4/24".parse().unwrap())
            .unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), monitor.changed()).await;
        told.expect("a change within 5 s").unwrap();
        assert_eq!(default_route_addresses(1, None).unwrap().len(), 2);
    });
}

#[test]
fn a_router_s_table_is_in_its_snapshot_and_in_nobody_else_s() {
    let lab = lab();
    let router = lab
        .router(
            "router",
            &["203.0.113.5/24"],
            "192.168.1.1/24",
            NatKind::Masquerade,
        )
        .unwrap();
    let vps = lab.public("vps", &["203.0.113.10/24"]).unwrap();
    let look = |machine: &Machine| -> Snapshot {
        let mut command = machine.command(crate::harness::program()).unwrap();
        let output = command.args(["demo", "hold", "snapshot"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(look(&router).tables, Some(vec!["router".to_owned()]));
    assert_eq!(look(&vps).tables, Some(vec![]));
    let before = look(&vps);
    lab.address("vps", "eth0", "203.0.113.77/24").unwrap();
    let found = look(&vps).differences(&before);
    assert!(
        found.len() == 1 && found[0].contains("203.0.113.77"),
        "{found:?}"
    );
}
