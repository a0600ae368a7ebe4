//! Issue 5, joining through a member where UDP does not get out.

use std::time::Duration;

use super::{internet::Internet, kind::Kind};
use crate::{calling::join_by_a_second_admin, harness::within};

#[test]
fn who_lets_no_udp_out_joins_a_machine_behind_a_router_through_a_public_member() {
    let mut internet = Internet::new();
    internet.settle(Kind::Public, "vps", 10);
    internet.settle(Kind::Plain, "anna", 20);
    internet.settle(Kind::UdpBlocked, "bo", 30);
    let [vps, anna, bo] = ["vps", "anna", "bo"].map(|name| internet.peer(name));
    let took = join_by_a_second_admin([vps, anna, bo]);
    assert!(took < Duration::from_secs(10), "{took:?}");
    within(Duration::from_secs(5), "bo hears anna", || {
        let hears = |target: &String| bo.run(&format!("ping -c 1 -W 1 {target}")).status.success();
        anna.mesh_addresses().iter().all(hears)
    });
    // The stream that brought the join carries the session with the member that took it.
    let dialled = &bo.status()["drops"]["stream_dialled"];
    assert!(dialled.is_null(), "{dialled}");
}
