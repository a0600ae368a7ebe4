//! The packages as a person meets them: built, installed, upgraded and removed in Debian roots, and run under a real
//! systemd.
//!
//! They need root, and the Debian packages that `packaging/build`, lintian, rpmlint and the roots need; `tests/run`
//! installs all of them. The packages are built once, in the release profile and in cargo's own target folder.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests run in real time, open sockets, end at the first surprise, and print logs after it"
)]

mod booting;
mod building;
mod elsewhere;
mod foreign;
mod home;
mod host;
mod installing;
mod left;
mod machine;
mod names;
mod resolving;
mod roots;
mod upgrading;
mod web;
