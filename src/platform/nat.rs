//! A home router's NAT and its filter, by nf_tables netlink: no `nft` program is needed.
//!
//! Knows how the three chains are written. Refuses to know which namespace it is in.
//!
//! A real router drops unsolicited packets on its WAN side. Without that a packet from outside that comes early is
//! delivered to the router itself, confirms a conntrack entry, and the packet that goes out later is given another
//! port: punching then fails as it never does in a home.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's lists of attributes are open, and long"
)]

use std::io;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber,
        Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator,
        Register, RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict,
        VerdictAttribute,
    },
    none::ControlMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{Flagged, Netlink};

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
    let mut messages = vec![
        control(ControlMessage::BatchBegin),
        made(NfTablesMessage::NewTable(TableMessage {
            attributes: vec![TableAttribute::Name(TABLE.to_owned())],
        })),
    ];
    messages.push(chain(
        "post",
        "nat",
        InetHookNumber::PostRouting,
        PRIORITY_SRCNAT,
    ));
    messages.push(rule(
        "post",
        [interface(MetaKey::Oifname, wan), vec![translate(nat)]].concat(),
    ));
    for (name, hook) in [
        ("input", InetHookNumber::LocalIn),
        ("forward", InetHookNumber::Forward),
    ] {
        messages.push(chain(name, "filter", hook, PRIORITY_FILTER));
        messages.push(rule(
            name,
            [
                interface(MetaKey::Iifname, wan),
                answers(),
                vec![verdict(NF_ACCEPT)],
            ]
            .concat(),
        ));
        messages.push(rule(
            name,
            [interface(MetaKey::Iifname, wan), vec![verdict(NF_DROP)]].concat(),
        ));
    }
    messages.push(control(ControlMessage::BatchEnd));
    Netlink::open(NETLINK_NETFILTER)?.batch(messages)
}

/// The names of all nf_tables tables in the namespace of the calling thread, of all families, sorted.
pub fn tables() -> io::Result<Vec<String>> {
    let ask = NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        NfTablesMessage::GetTable(TableMessage { attributes: vec![] }),
    );
    let mut names = Vec::new();
    for message in Netlink::open(NETLINK_NETFILTER)?.dump(ask)? {
        let netlink_packet_netfilter::NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(
            table,
        )) = message.inner
        else {
            continue;
        };
        names.extend(
            table
                .attributes
                .into_iter()
                .filter_map(|attribute| match attribute {
                    TableAttribute::Name(name) => Some(name),
                    _ => None,
                }),
        );
    }
    names.sort_unstable();
    Ok(names)
}

type Expression = ListAttribute<netlink_packet_netfilter::nftables::ExpressionAttribute>;

fn control(message: ControlMessage) -> Flagged<NetfilterMessage> {
    let subsystem = u16::from(u8::from(NetfilterSubsystem::NfTables));
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
    (NetfilterMessage::new(header, message), 0)
}

fn made(message: NfTablesMessage) -> Flagged<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    (
        NetfilterMessage::new(header, message),
        NLM_F_CREATE | NLM_F_ACK,
    )
}

fn chain(name: &str, kind: &str, hook: InetHookNumber, priority: u32) -> Flagged<NetfilterMessage> {
    made(NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(hook)),
                Hook::Priority(priority),
            ]),
        ],
    }))
}

fn rule(chain: &str, expressions: Vec<Expression>) -> Flagged<NetfilterMessage> {
    let (message, flags) = made(NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ],
    }));
    (message, flags | netlink_packet_core::NLM_F_APPEND)
}

/// The packet passes the link `name`. nf_tables compares all 16 bytes of the name.
fn interface(key: MetaKey, name: &str) -> Vec<Expression> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(libc::IFNAMSIZ, 0);
    vec![
        Expressions::Meta(vec![
            Meta::DestinationRegister(Register::Reg1),
            Meta::Key(key),
        ])
        .into(),
        compare(Operator::Equal, padded),
    ]
}

/// The packet belongs to a flow that began inside, or is an error about one.
fn answers() -> Vec<Expression> {
    let load = Expressions::Other {
        expression_type: "ct".to_owned(),
        attributes: vec![
            number(NFTA_CT_DREG, NFT_REG_1),
            number(NFTA_CT_KEY, NFT_CT_STATE),
        ],
    };
    let bits = CT_ESTABLISHED | CT_RELATED;
    let mask = Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(native(bits))),
        Bitwise::Xor(DataAttribute::Value(native(0))),
    ]);
    vec![
        load.into(),
        mask.into(),
        compare(Operator::NotEqual, native(0)),
    ]
}

fn translate(nat: Nat) -> Expression {
    let attributes = match nat {
        Nat::Masquerade => vec![],
        Nat::Symmetric => vec![number(NFTA_MASQ_FLAGS, NAT_RANDOM | NAT_RANDOM_FULLY)],
    };
    Expressions::Other {
        expression_type: "masq".to_owned(),
        attributes,
    }
    .into()
}

fn verdict(code: u32) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            Verdict::Other(code),
        )])),
    ])
    .into()
}

fn compare(operator: Operator, value: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
    .into()
}

/// Attributes of nf_tables are big-endian.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// Registers that hold conntrack's state are in the host's order.
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel compares the register as its own integer"
)]
fn native(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The one table of a router.
const TABLE: &str = "router";

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
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const PRIORITY_SRCNAT: u32 = 100;
const PRIORITY_FILTER: u32 = 0;
