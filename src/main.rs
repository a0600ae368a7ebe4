//! The `webmesh` binary.
fn main() {}
