//! nf_tables as netlink writes it: tables, chains, rules and their expressions. No `nft` program is needed.
//!
//! Knows how rules are spelled and listed. Refuses to know what they are for.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's lists of attributes are open, and long"
)]

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Nla as _};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute,
        Expressions, Hook, HookNumber, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey,
        NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage, TableAttribute,
        TableFlags, TableMessage, Verdict, VerdictAttribute,
    },
    none::ControlMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{Flagged, Netlink};

/// One step of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// One message of a batch.
pub(super) type Step = Flagged<NetfilterMessage>;

/// A table, by its family and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: NetfilterProtoFamily,
    pub(super) name: String,
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    pub(super) hook: InetHookNumber,
    pub(super) priority: i32,
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) table: Table,
    pub(super) chain: String,
    pub(super) expressions: Vec<Expressions>,
}

impl Table {
    /// Makes the table. With [`TableFlags::Owner`] it belongs to the socket that sends this, and goes with it.
    pub(super) fn made(&self, flags: TableFlags) -> Step {
        let attributes = vec![
            TableAttribute::Name(self.name.clone()),
            TableAttribute::Flags(flags),
        ];
        self.made_by(NfTablesMessage::NewTable(TableMessage { attributes }))
    }

    /// Takes the table away with everything in it.
    pub(super) fn gone(&self) -> Step {
        let attributes = vec![TableAttribute::Name(self.name.clone())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        (self.message(message), NLM_F_ACK)
    }

    /// Makes a chain that the kernel calls at `place`, or with None one that rules jump to.
    pub(super) fn chain(&self, name: &str, place: Option<Place>) -> Step {
        let mut attributes = vec![
            ChainAttribute::Table(self.name.clone()),
            ChainAttribute::Name(name.to_owned()),
        ];
        if let Some(place) = place {
            attributes.push(ChainAttribute::Type(place.kind.to_owned()));
            attributes.push(ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(place.hook)),
                Hook::Priority(place.priority.cast_unsigned()),
            ]));
        }
        self.made_by(NfTablesMessage::NewChain(ChainMessage { attributes }))
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn rule(&self, chain: &str, expressions: Vec<Expression>) -> Step {
        let (message, flags) = self.made_by(NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Expressions(expressions),
            ],
        }));
        (message, flags | NLM_F_APPEND)
    }

    /// Takes all rules out of a chain.
    pub(super) fn emptied(&self, chain: &str) -> Step {
        let message = NfTablesMessage::DeleteRule(self.rules_of(chain));
        (self.message(message), NLM_F_ACK)
    }

    /// The rules of one chain as they are now.
    pub(super) fn rules(&self, netlink: &mut Netlink, chain: &str) -> io::Result<Vec<Rule>> {
        let ask = self.message(NfTablesMessage::GetRule(self.rules_of(chain)));
        let found = netlink.dump(ask)?.into_iter().filter_map(rule);
        // Kernels differ in whether they listen to the chain's name in the question.
        Ok(found
            .filter(|rule| rule.table == *self && rule.chain == chain)
            .collect())
    }

    /// The port of the socket that owns the table; None where there is no such table or nobody owns it.
    pub(super) fn owner(&self, netlink: &mut Netlink) -> io::Result<Option<u32>> {
        let found = list_tables(netlink)?;
        let own = found.into_iter().find(|(family, attributes)| {
            *family == self.family && name_of(attributes) == Some(&self.name)
        });
        Ok(own.and_then(|(_, attributes)| {
            attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    TableAttribute::Owner(port) => Some(port),
                    _ => None,
                })
        }))
    }

    fn rules_of(&self, chain: &str) -> RuleMessage {
        RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(chain.to_owned()),
            ],
        }
    }

    fn made_by(&self, message: NfTablesMessage) -> Step {
        (self.message(message), NLM_F_CREATE | NLM_F_ACK)
    }

    fn message(&self, message: NfTablesMessage) -> NetfilterMessage {
        NetfilterMessage::new(NetfilterHeader::new(self.family, 0, 0), message)
    }
}

/// Carries out all steps, or none.
pub(super) fn commit(netlink: &mut Netlink, steps: Vec<Step>) -> io::Result<()> {
    let mut batch = vec![control(ControlMessage::BatchBegin)];
    batch.extend(steps);
    batch.push(control(ControlMessage::BatchEnd));
    netlink.batch(batch)
}

/// The names of all tables in the namespace of the calling thread, of all families, sorted.
pub fn tables() -> io::Result<Vec<String>> {
    let mut names: Vec<String> = list_tables(&mut Netlink::open(NETLINK_NETFILTER)?)?
        .iter()
        .filter_map(|(_, attributes)| name_of(attributes).cloned())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The names of all chains in the namespace of the calling thread.
pub(super) fn chains() -> io::Result<Vec<String>> {
    let ask = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    let found = Netlink::open(NETLINK_NETFILTER)?.dump(of_all_families(ask))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => chain
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    ChainAttribute::Name(name) => Some(name),
                    _ => None,
                }),
            _ => None,
        })
        .collect())
}

/// All rules in the namespace of the calling thread.
pub(super) fn all_rules() -> io::Result<Vec<Rule>> {
    let ask = NfTablesMessage::GetRule(RuleMessage { attributes: vec![] });
    let found = Netlink::open(NETLINK_NETFILTER)?.dump(of_all_families(ask))?;
    Ok(found.into_iter().filter_map(rule).collect())
}

/// The packet passes the link `name`. nf_tables compares all 16 bytes of the name; `name*` stands for every link whose
/// name begins so.
pub(super) fn interface(key: MetaKey, name: &str) -> Vec<Expression> {
    let mut value = name.as_bytes().to_vec();
    if value.last() == Some(&b'*') {
        value.pop();
    } else {
        value.resize(libc::IFNAMSIZ, 0);
    }
    vec![load_meta(key), compare(Operator::Equal, value)]
}

/// The packet comes from, or goes to, an address in `net`.
pub(super) fn address(end: End, net: IpNet) -> Vec<Expression> {
    let (family, offset, bytes) = match (net, end) {
        (IpNet::V4(_), End::Source) => (NFPROTO_IPV4, IPV4_SOURCE, 4),
        (IpNet::V4(_), End::Destination) => (NFPROTO_IPV4, IPV4_SOURCE + 4, 4),
        (IpNet::V6(_), End::Source) => (NFPROTO_IPV6, IPV6_SOURCE, 16),
        (IpNet::V6(_), End::Destination) => (NFPROTO_IPV6, IPV6_SOURCE + 16, 16),
    };
    let load = Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
        Payload::Offset(offset),
        Payload::Len(bytes),
    ]);
    vec![
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family]),
        load.into(),
        mask(octets(net.netmask())),
        compare(Operator::Equal, octets(net.network())),
    ]
}

/// Keeps the bits of the register that are set in `bits`.
pub(super) fn mask(bits: Vec<u8>) -> Expression {
    let length = u32::try_from(bits.len()).unwrap_or(u32::MAX);
    let none = vec![0; bits.len()];
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(length),
        Bitwise::Mask(DataAttribute::Value(bits)),
        Bitwise::Xor(DataAttribute::Value(none)),
    ])
    .into()
}

/// Goes on only if the register is, or is not, this.
pub(super) fn compare(operator: Operator, value: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
    .into()
}

/// Counts the packet.
pub(super) fn counter() -> Expression {
    other(COUNTER, vec![])
}

/// Lets the packet pass this chain.
pub(super) fn accept() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))])
}

/// Drops the packet.
pub(super) fn drop_it() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
}

/// Goes to another chain for good.
pub(super) fn go_to(chain: &str) -> Expression {
    verdict(vec![
        VerdictAttribute::Code(Verdict::Goto),
        VerdictAttribute::Chain(chain.to_owned()),
    ])
}

/// An expression of which the crate knows nothing but the name.
pub(super) fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
    .into()
}

/// Attributes of nf_tables are big-endian.
pub(super) fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// How many packets the counters of these rules have seen.
pub(super) fn packets(rules: &[Rule]) -> u64 {
    let counted = rules.iter().flat_map(|rule| &rule.expressions);
    counted
        .filter_map(|expression| match expression {
            Expressions::Other {
                expression_type,
                attributes,
            } if expression_type == COUNTER => attributes
                .iter()
                .find(|attribute| attribute.kind() == NFTA_COUNTER_PACKETS),
            _ => None,
        })
        .filter_map(|attribute| {
            let mut value = [0; 8];
            (attribute.value_len() == value.len()).then(|| {
                attribute.emit_value(&mut value);
                u64::from_be_bytes(value)
            })
        })
        .sum()
}

/// Whether a verdict of this rule drops.
pub(super) fn is_drop(expressions: &[Expressions]) -> bool {
    expressions.iter().any(|expression| match expression {
        Expressions::Immediate(attributes) => attributes.iter().any(|attribute| {
            let Immediate::Data(DataAttribute::Verdict(verdict)) = attribute else {
                return false;
            };
            verdict.contains(&VerdictAttribute::Code(Verdict::Other(NF_DROP)))
        }),
        _ => false,
    })
}

/// The IPv4 prefix that a rule wants a packet's source to be in, where it says so with one comparison.
pub(super) fn source4(expressions: &[Expressions]) -> Option<ipnet::Ipv4Net> {
    let mut rest = expressions.iter().skip_while(|one| !is_source4(one));
    rest.next()?;
    let mut prefix_len = 32;
    for expression in rest {
        match expression {
            Expressions::Bitwise(attributes) => {
                let bits = attributes.iter().find_map(|attribute| match attribute {
                    Bitwise::Mask(DataAttribute::Value(bits)) => Some(bits),
                    _ => None,
                })?;
                let bits = u32::from_be_bytes(bits.as_slice().try_into().ok()?);
                prefix_len = u8::try_from(bits.leading_ones()).ok()?;
            }
            Expressions::Cmp(attributes) if attributes.contains(&Cmp::Op(Operator::Equal)) => {
                let value = attributes.iter().find_map(|attribute| match attribute {
                    Cmp::Data(DataAttribute::Value(value)) => Some(value),
                    _ => None,
                })?;
                // Prefixes of whole bytes are compared without a mask, as so many bytes.
                let mut octets = [0; 4];
                octets.get_mut(..value.len())?.copy_from_slice(value);
                let prefix_len = prefix_len.min(u8::try_from(value.len() * 8).ok()?);
                return ipnet::Ipv4Net::new(octets.into(), prefix_len).ok();
            }
            _ => return None,
        }
    }
    None
}

fn is_source4(expression: &Expressions) -> bool {
    match expression {
        Expressions::Payload(attributes) => {
            attributes.contains(&Payload::Base(NFT_PAYLOAD_NETWORK_HEADER))
                && attributes.contains(&Payload::Offset(IPV4_SOURCE))
        }
        _ => false,
    }
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
    .into()
}

fn load_meta(key: MetaKey) -> Expression {
    Expressions::Meta(vec![
        Meta::DestinationRegister(Register::Reg1),
        Meta::Key(key),
    ])
    .into()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn control(message: ControlMessage) -> Step {
    let subsystem = u16::from(u8::from(NetfilterSubsystem::NfTables));
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
    (NetfilterMessage::new(header, message), 0)
}

fn of_all_families(ask: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        ask,
    )
}

fn list_tables(
    netlink: &mut Netlink,
) -> io::Result<Vec<(NetfilterProtoFamily, Vec<TableAttribute>)>> {
    let ask = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    let found = netlink.dump(of_all_families(ask))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
                Some((message.header.family, table.attributes))
            }
            _ => None,
        })
        .collect())
}

fn name_of(attributes: &[TableAttribute]) -> Option<&String> {
    attributes.iter().find_map(|attribute| match attribute {
        TableAttribute::Name(name) => Some(name),
        _ => None,
    })
}

fn rule(message: NetfilterMessage) -> Option<Rule> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(listed)) = message.inner else {
        return None;
    };
    let mut rule = Rule {
        table: Table {
            family: message.header.family,
            name: String::new(),
        },
        chain: String::new(),
        expressions: Vec::new(),
    };
    for attribute in listed.attributes {
        match attribute {
            RuleAttribute::Table(name) => rule.table.name = name,
            RuleAttribute::Chain(name) => rule.chain = name,
            RuleAttribute::Expressions(list) => {
                rule.expressions = list.into_iter().filter_map(content).collect();
            }
            _ => {}
        }
    }
    Some(rule)
}

fn content(expression: Expression) -> Option<Expressions> {
    let ListAttribute::Element(attributes) = expression else {
        return None;
    };
    attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            ExpressionAttribute::Data(data) => Some(data),
            _ => None,
        })
}

/// How the kernel calls the expression that counts.
const COUNTER: &str = "counter";

// The numbers are those of include/uapi/linux/netfilter/nf_tables.h and netfilter.h; offsets are those of the headers.
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(expressions: Vec<Expression>) -> Vec<Expressions> {
        expressions.into_iter().filter_map(content).collect()
    }

    #[test]
    fn the_source_of_a_rule_is_read_back_as_it_was_written() {
        for net in ["100.64.0.0/10", "100.71.0.0/16", "10.0.0.1/32"] {
            let written = steps(address(End::Source, net.parse().unwrap()));
            assert_eq!(source4(&written).unwrap().to_string(), net);
        }
        let to = steps(address(End::Destination, "100.64.0.0/10".parse().unwrap()));
        assert_eq!(source4(&to), None);
        let v6 = steps(address(End::Source, "fd00::/8".parse().unwrap()));
        assert_eq!(source4(&v6), None);
    }

    #[test]
    fn a_prefix_of_whole_bytes_needs_no_mask() {
        let load = Expressions::Payload(vec![
            Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
            Payload::Offset(IPV4_SOURCE),
            Payload::Len(2),
        ]);
        let written = steps(vec![
            load.into(),
            compare(Operator::Equal, vec![100, 71]),
            drop_it(),
        ]);
        assert_eq!(source4(&written).unwrap().to_string(), "100.71.0.0/16");
        assert!(is_drop(&written) && !is_drop(&steps(vec![accept(), go_to("elsewhere")])));
    }
}
