//! ICMP errors (RFC 792, RFC 4443) that answer a packet which goes nowhere, under the rules of RFC 1812 §4.3.2.7 and
//! RFC 4443 §2.4: never about an ICMP error, a later fragment, or anything to or from more than one machine.

use std::net::IpAddr;

use super::{
    checksum::{Sum, pseudo},
    ip::{Fragment, Header, ICMP, ICMP6},
    write,
};

/// How long an ICMPv4 error may be (RFC 1812 §4.3.2.3).
const ERROR4_MAX: usize = 576;

/// How long an ICMPv6 error may be: the least MTU (RFC 4443 §2.4 c).
const ERROR6_MAX: usize = 1280;

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No way to the host was found.
    Host,
    /// Nobody listens on the port.
    Port,
    /// Policy forbids it.
    Prohibited,
    /// The packet is longer than the given MTU and may not be split.
    TooBig(u16),
}

impl Unreachable {
    const fn code4(self) -> (u8, u8, u32) {
        match self {
            Self::Host => (3, 1, 0),
            Self::Port => (3, 3, 0),
            Self::Prohibited => (3, 13, 0),
            Self::TooBig(mtu) => (3, 4, mtu as u32),
        }
    }

    const fn code6(self) -> (u8, u8, u32) {
        match self {
            Self::Host => (1, 3, 0),
            Self::Port => (1, 4, 0),
            Self::Prohibited => (1, 1, 0),
            Self::TooBig(mtu) => (2, 0, mtu as u32),
        }
    }
}

/// Writes into `out` the error about `packet`, from `source` to the packet's sender. False where no error may be sent.
#[must_use]
pub fn build(
    out: &mut Vec<u8>,
    source: IpAddr,
    (header, packet): (&Header, &[u8]),
    why: Unreachable,
) -> bool {
    if !may_answer(header, packet) {
        return false;
    }
    let (protocol, (kind, code, rest), limit) = match header.source {
        IpAddr::V4(_) => (ICMP, why.code4(), ERROR4_MAX - 28),
        IpAddr::V6(_) => (ICMP6, why.code6(), ERROR6_MAX - 48),
    };
    let quoted = &packet[..header.len.min(limit).min(packet.len())];
    let len = 8 + quoted.len();
    if write::header(out, (source, header.source), protocol, len).is_none() {
        return false;
    }
    let at = out.len();
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&rest.to_be_bytes());
    out.extend_from_slice(quoted);
    let sum = match protocol {
        ICMP => Sum::default(),
        _ => pseudo(source, header.source, ICMP6, len),
    };
    let checksum = sum.bytes(&out[at..]).finish();
    out[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Whether an error about this packet may be sent at all.
fn may_answer(header: &Header, packet: &[u8]) -> bool {
    if header.fragment == Fragment::Later || !is_one_machine(header.source) {
        return false;
    }
    let to_one = match header.destination {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_multicast(),
    };
    let kind = header.payload(packet).first().copied();
    let is_error = match (header.protocol, kind) {
        // RFC 792: queries and their answers are 0, 8, 13–18; the others, and a header that is cut, are errors.
        (ICMP, kind) => !matches!(kind, Some(0 | 8 | 13..=18)),
        // RFC 4443 §2.1: errors have the high bit clear; redirects (137) count as errors here (§2.4 e.2).
        (ICMP6, kind) => !matches!(kind, Some(128..=136 | 138..)),
        (_, _) => false,
    };
    to_one && !is_error
}

fn is_one_machine(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special && !matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{ip::Ports, udp};

    fn datagram(source: &str, destination: &str, len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        let addresses = (source.parse().unwrap(), destination.parse().unwrap());
        let ports = Ports {
            source: 1,
            destination: 2,
        };
        assert!(udp::build(&mut packet, addresses, ports, &vec![7; len]));
        packet
    }

    fn answer(source: &str, packet: &[u8], why: Unreachable) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let header = Header::parse(packet).unwrap();
        build(&mut out, source.parse().unwrap(), (&header, packet), why).then_some(out)
    }

    #[test]
    fn host_unreachable_quotes_the_packet_in_both_families() {
        let packet = datagram("100.64.0.1", "100.64.0.2", 20);
        let error = answer("100.64.255.53", &packet, Unreachable::Host).unwrap();
        assert_eq!(error[20..22], [3, 1]);
        assert_eq!(error[28..], packet[..]);
        assert_eq!(Sum::default().bytes(&error[20..]).finish(), 0);
        let packet = datagram("fd00::1", "fd00::2", 20);
        let error = answer("fd00::53", &packet, Unreachable::Host).unwrap();
        assert_eq!(error[40..42], [1, 3]);
        let header = Header::parse(&error).unwrap();
        let sum = pseudo(header.source, header.destination, ICMP6, error.len() - 40);
        assert_eq!(sum.bytes(&error[40..]).finish(), 0);
    }

    #[test]
    fn errors_stay_within_their_limits() {
        let four = datagram("100.64.0.1", "100.64.0.2", 1300);
        assert_eq!(
            answer("100.64.0.9", &four, Unreachable::Prohibited)
                .unwrap()
                .len(),
            ERROR4_MAX
        );
        let six = datagram("fd00::1", "fd00::2", 1350);
        assert_eq!(
            answer("fd00::9", &six, Unreachable::Prohibited)
                .unwrap()
                .len(),
            ERROR6_MAX
        );
    }

    #[test]
    fn an_error_is_never_answered_by_an_error() {
        for (from, to, via) in [
            ("100.64.0.1", "100.64.0.2", "100.64.0.3"),
            ("fd00::1", "fd00::2", "fd00::3"),
        ] {
            let error = answer(via, &datagram(from, to, 9), Unreachable::Host).unwrap();
            assert_eq!(answer(via, &error, Unreachable::Host), None);
        }
    }

    #[test]
    fn fragments_and_multicast_are_not_answered() {
        assert_eq!(
            answer(
                "100.64.0.3",
                &datagram("100.64.0.1", "224.0.0.1", 9),
                Unreachable::Host
            ),
            None
        );
        let mut later = datagram("100.64.0.1", "100.64.0.2", 9);
        later[7] = 1;
        assert_eq!(answer("100.64.0.3", &later, Unreachable::Host), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), six: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            if let Ok(header) = Header::parse(&bytes) {
                let mut out = Vec::new();
                let _ = build(&mut out, header.destination, (&header, &bytes), Unreachable::Host);
            }
        }
    }
}
