//! A home router's NAT and its filter, by nf_tables netlink: no `nft` program is needed.
//!
//! Knows how the three chains are written. Refuses to know which namespace it is in.
//!
//! A real router drops unsolicited packets on its WAN side. Without that a packet from outside that comes early is
//! delivered to the router itself, confirms a conntrack entry, and the packet that goes out later is given another
//! port: punching then fails as it never does in a home.

use std::io;

use netlink_packet_netfilter::{
    NetfilterProtoFamily,
    nftables::{InetHookNumber, MetaKey, Operator, TableFlags},
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    netlink::Netlink,
    nftables::{
        self, Expression, Place, Table, accept, commit, compare, drop_it, interface, number,
    },
};

/// How a router gives out ports on its public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Linux' `masquerade`: the inner port is kept where it is free.
    Masquerade,
    /// `masquerade random,fully-random`: a new port for every flow, as a symmetric NAT.
    Symmetric,
}

/// Turns the namespace of the calling thread into a home router whose public side is the link `wan` (IPv4).
pub fn masquerade(wan: &str, nat: Nat) -> io::Result<()> {
    let router = Table {
        family: NetfilterProtoFamily::IPv4,
        name: "router".to_owned(),
    };
    let post = Place {
        kind: "nat",
        hook: InetHookNumber::PostRouting,
        priority: PRIORITY_SRCNAT,
    };
    let mut steps = vec![
        router.made(TableFlags::empty()),
        router.chain("post", Some(post)),
        router.rule(
            "post",
            [interface(MetaKey::Oifname, wan), vec![translate(nat)]].concat(),
        ),
    ];
    for (name, hook) in [
        ("input", InetHookNumber::LocalIn),
        ("forward", InetHookNumber::Forward),
    ] {
        let place = Place {
            kind: "filter",
            hook,
            priority: PRIORITY_FILTER,
        };
        let from_outside = || interface(MetaKey::Iifname, wan);
        steps.extend([
            router.chain(name, Some(place)),
            router.rule(name, [from_outside(), answers(), vec![accept()]].concat()),
            router.rule(name, [from_outside(), vec![drop_it()]].concat()),
        ]);
    }
    commit(&mut Netlink::open(NETLINK_NETFILTER)?, steps)
}

/// The packet belongs to a flow that began inside, or is an error about one.
fn answers() -> Vec<Expression> {
    let state = vec![
        number(NFTA_CT_DREG, NFT_REG_1),
        number(NFTA_CT_KEY, NFT_CT_STATE),
    ];
    vec![
        nftables::other("ct", state),
        nftables::mask(native(CT_ESTABLISHED | CT_RELATED)),
        compare(Operator::NotEqual, native(0)),
    ]
}

fn translate(nat: Nat) -> Expression {
    let attributes = match nat {
        Nat::Masquerade => vec![],
        Nat::Symmetric => vec![number(NFTA_MASQ_FLAGS, NAT_RANDOM | NAT_RANDOM_FULLY)],
    };
    nftables::other("masq", attributes)
}

/// Registers that hold conntrack's state are in the host's order.
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel compares the register as its own integer"
)]
fn native(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

// The numbers are those of include/uapi/linux/netfilter/nf_tables.h, nf_nat.h, nf_conntrack_common.h and
// include/uapi/linux/netfilter_ipv4.h. The crate has no `ct` and no `masq`.
const NFT_REG_1: u32 = 1;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
const CT_ESTABLISHED: u32 = 1 << 1;
const CT_RELATED: u32 = 1 << 2;
const NFTA_MASQ_FLAGS: u16 = 1;
const NAT_RANDOM: u32 = 1 << 2;
const NAT_RANDOM_FULLY: u32 = 1 << 4;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;
