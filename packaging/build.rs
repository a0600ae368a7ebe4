//! Tells the program when it was built: mesh time is never before that (protocol §7).

#![expect(
    clippy::disallowed_methods,
    reason = "a build script reads the clock and speaks to cargo on its stdout"
)]

use std::time::SystemTime;

fn main() {
    println!("cargo::rerun-if-changed=packaging/build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let told = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let built_s = told.unwrap_or_else(|| now.map_or(0, |since| since.as_secs()));
    println!("cargo::rustc-env=WEBMESH_BUILT_S={built_s}");
}
