//! What the IP header of a packet says: addresses, protocol, lengths, fragments. RFC 791 and RFC 8200.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv6.
pub const ICMP6: u8 = 58;

/// How many IPv6 extension headers are walked. RFC 8200 §4.1 names seven kinds; more is an attack on the walker.
const EXTENSIONS_MAX: usize = 8;

/// Where a packet stands in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// The first of several: its transport header is here.
    First,
    /// A later one: no transport header.
    Later,
}

/// Whether an IPv6 routing header was met on the way to the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// None.
    Plain,
    /// One; protocol §10 drops it.
    Header,
}

/// The facts of one IP header. Every offset in it lies within the packet it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who says it sent it.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The protocol behind all IP headers.
    pub protocol: u8,
    /// Bytes before the payload: the header with its options or extension headers.
    pub payload_at: usize,
    /// Bytes of the packet by its own account; what follows is padding.
    pub len: usize,
    /// Whether and which fragment.
    pub fragment: Fragment,
    /// Whether an IPv6 routing header stands before the payload.
    pub routing: Routing,
}

/// Why bytes are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither version 4 nor 6.
    #[error("not an IP packet")]
    NotIp,
    /// A length does not fit.
    #[error("a length in the IP header does not fit the packet")]
    Length,
    /// Too many IPv6 extension headers.
    #[error("too many extension headers")]
    Extensions,
}

/// The ports of a TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The sender's.
    pub source: u16,
    /// The receiver's.
    pub destination: u16,
}

impl Header {
    /// Reads the header of `packet`. Checksums are not verified: the kernel did, or will.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => parse4(packet),
            Some(6) => parse6(packet),
            _ => Err(Malformed::NotIp),
        }
    }

    /// The payload, without the padding after it.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_at..self.len).unwrap_or(&[])
    }

    /// The ports, where the packet is TCP or UDP and carries them.
    pub fn ports(&self, packet: &[u8]) -> Option<Ports> {
        if self.fragment == Fragment::Later || !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        let ports = self.payload(packet).first_chunk::<4>()?;
        Some(Ports {
            source: u16::from_be_bytes([ports[0], ports[1]]),
            destination: u16::from_be_bytes([ports[2], ports[3]]),
        })
    }
}

/// How long a packet is that comes from where another came from, goes where that goes, and has the same ports: whoever has
/// judged that one by its [`Header`] has judged this one. None where they differ, or where more than two plain headers would
/// have to be compared.
pub fn len_if_alike(known: &[u8], packet: &[u8]) -> Option<usize> {
    let (of_known, of_packet) = (known.get(..44)?, packet.get(..44)?);
    let protocol_at = match (of_known[0], of_packet[0]) {
        // Without options, and whole: what stands there else is number, time to live and checksum.
        (0x45, 0x45) => {
            let are_whole = [of_known, of_packet].map(|one| one[6] & 0x3f == 0 && one[7] == 0);
            (are_whole == [true; 2] && of_known[12..24] == of_packet[12..24]).then_some(9)?
        }
        (0x60..=0x6f, 0x60..=0x6f) => (of_known[8..] == of_packet[8..]).then_some(6)?,
        _ => return None,
    };
    let protocol = of_packet[protocol_at];
    if protocol != of_known[protocol_at] || !matches!(protocol, TCP | UDP) {
        return None;
    }
    let (at, before) = if protocol_at == 9 { (2, 0) } else { (4, 40) };
    let len = before + usize::from(u16::from_be_bytes([of_packet[at], of_packet[at + 1]]));
    (44..=packet.len()).contains(&len).then_some(len)
}

fn parse4(packet: &[u8]) -> Result<Header, Malformed> {
    let fixed = packet.first_chunk::<20>().ok_or(Malformed::Length)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_len < 20 || len < header_len || len > packet.len() {
        return Err(Malformed::Length);
    }
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    let fragment = match (flags & 0x1fff, flags & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        (_, _) => Fragment::Later,
    };
    Ok(Header {
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        protocol: fixed[9],
        payload_at: header_len,
        len,
        fragment,
        routing: Routing::Plain,
    })
}

fn parse6(packet: &[u8]) -> Result<Header, Malformed> {
    let fixed = packet.first_chunk::<40>().ok_or(Malformed::Length)?;
    let len = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let packet = packet.get(..len).ok_or(Malformed::Length)?;
    let address = |at: usize| {
        let octets: [u8; 16] = std::array::from_fn(|i| fixed[at + i]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut header = Header {
        source: address(8),
        destination: address(24),
        protocol: fixed[6],
        payload_at: 40,
        len,
        fragment: Fragment::Whole,
        routing: Routing::Plain,
    };
    for _ in 0..EXTENSIONS_MAX {
        if !header.walk_extension(packet)? {
            return Ok(header);
        }
    }
    Err(Malformed::Extensions)
}

impl Header {
    /// Steps over one IPv6 extension header; false when what follows is the payload.
    fn walk_extension(&mut self, packet: &[u8]) -> Result<bool, Malformed> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        if self.fragment == Fragment::Later {
            return Ok(false);
        }
        let units = match self.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => 8,
            FRAGMENT => 0,
            _ => return Ok(false),
        };
        let head = packet
            .get(self.payload_at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(Malformed::Length)?;
        if self.protocol == ROUTING {
            self.routing = Routing::Header;
        }
        if self.protocol == FRAGMENT {
            let offset = u16::from_be_bytes([head[2], head[3]]);
            self.fragment = match (offset & 0xfff8, offset & 1) {
                (0, 0) => self.fragment,
                (0, _) => Fragment::First,
                (_, _) => Fragment::Later,
            };
        }
        self.protocol = head[0];
        self.payload_at += 8 + usize::from(head[1]) * units;
        if self.payload_at > self.len {
            return Err(Malformed::Length);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        packet[6] = next;
        packet.extend_from_slice(rest);
        packet
    }

    /// A plain packet of 60 bytes with 20 behind it, as padding would be.
    fn plain(is_v6: bool, protocol: u8) -> Vec<u8> {
        let mut packet = if is_v6 {
            v6(protocol, &[7; 20])
        } else {
            let mut packet = vec![7; 60];
            packet[..12].copy_from_slice(&[0x45, 0, 0, 60, 1, 2, 0x40, 0, 64, protocol, 3, 4]);
            packet
        };
        packet.extend_from_slice(&[0; 20]);
        packet
    }

    #[test]
    fn packets_of_a_conversation_are_alike_though_number_and_length_differ() {
        for (is_v6, protocol) in [(false, TCP), (true, TCP), (false, UDP), (true, UDP)] {
            let known = plain(is_v6, protocol);
            assert_eq!(len_if_alike(&known, &known), Some(60));
            let mut other = known.clone();
            match is_v6 {
                true => other[1..6].copy_from_slice(&[9, 9, 9, 0, 10]),
                false => other[1..6].copy_from_slice(&[9, 0, 50, 9, 9]),
            }
            assert_eq!(len_if_alike(&known, &other), Some(50));
            other[3 + 2 * usize::from(is_v6)] = 99;
            assert_eq!(len_if_alike(&known, &other), None, "longer than it is");
        }
        for protocol in [ICMP, ICMP6, 43, 44] {
            let known = plain(true, protocol);
            assert_eq!(len_if_alike(&known, &known), None, "{protocol}");
        }
    }

    proptest! {
        #[test]
        fn what_is_alike_has_the_same_header_but_for_its_length(
            is_v6 in any::<bool>(), is_udp in any::<bool>(),
            changes in prop::collection::vec((0..64_usize, any::<u8>()), 0..3),
            both in any::<bool>(),
        ) {
            let mut known = plain(is_v6, if is_udp { UDP } else { TCP });
            let mut packet = known.clone();
            for (at, byte) in changes {
                packet[at] = byte;
                if both {
                    known[at] = byte;
                }
            }
            if let Some(len) = len_if_alike(&known, &packet) {
                let (of_known, of_packet) = (Header::parse(&known), Header::parse(&packet));
                let of_packet = of_packet.unwrap();
                prop_assert_eq!(of_packet.len, len);
                let ports = of_packet.ports(&packet);
                prop_assert!(ports.is_some());
                // Of a length that does not fit nobody has judged.
                if let Ok(of_known) = of_known {
                    prop_assert_eq!(Header { len, ..of_known }, of_packet);
                    prop_assert_eq!(of_known.ports(&known).or(ports), ports);
                }
            }
        }
    }

    #[test]
    fn a_v6_routing_header_is_seen_behind_options() {
        let rest = [43, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        let header = Header::parse(&v6(0, &rest)).unwrap();
        assert_eq!(header.routing, Routing::Header);
        assert_eq!((header.protocol, header.payload_at), (17, 56));
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let rest = [17, 0, 0x05, 0x00, 0, 0, 0, 1, 0, 53, 0, 53];
        let packet = v6(44, &rest);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.fragment, Fragment::Later);
        assert_eq!(header.ports(&packet), None);
    }

    #[test]
    fn padding_after_the_packet_is_not_payload() {
        let mut packet = v6(17, &[0, 1, 0, 2]);
        packet.extend_from_slice(&[9; 12]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload(&packet), [0, 1, 0, 2]);
    }

    #[test]
    fn endless_extension_headers_are_refused() {
        let rest = [0; 8 * 20];
        assert_eq!(Header::parse(&v6(0, &rest)), Err(Malformed::Extensions));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_offsets_stay_inside(mut bytes in prop::collection::vec(any::<u8>(), 0..160), six: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x40 | (*first & 0x0f) };
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.payload_at <= header.len && header.len <= bytes.len());
                let _ = header.ports(&bytes);
            }
        }
    }
}
