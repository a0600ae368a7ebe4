//! The operating system: TUN, UDP batches, netlink, namespaces, sock_diag, clocks. The only room with `unsafe`.
//!
//! Knows Linux and underlay addresses. Refuses to know what a peer, a network or a session is.

#[cfg(test)]
pub(crate) mod allocation;
pub mod clock;
pub mod cpu;
pub mod credentials;
pub mod firewall;
pub mod guard;
pub mod lan;
pub mod limits;
pub mod link;
pub mod monitor;
pub mod mount;
pub mod namespace;
pub mod nat;
mod netlink;
pub mod nftables;
pub mod poll;
pub mod service_manager;
pub mod sock_diag;
pub mod spare;
pub mod tcp;
pub mod tun;
pub mod udp;
pub mod wire_tap;
