//! Rewrites addresses and ports in place, and repairs every checksum that covers them.
//!
//! Only what carries its ports is turned: whole packets and first fragments. A later fragment has no ports, so a flow
//! that fragments cannot be told apart there; the caller drops it and counts.

use std::net::IpAddr;

use super::{
    checksum::Delta,
    ip::{Fragment, Header, Ports, TCP, UDP},
};

/// What stands in the packet afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The new source.
    pub source: IpAddr,
    /// The new destination.
    pub destination: IpAddr,
    /// The new ports.
    pub ports: Ports,
}

/// Why a packet was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotTurn {
    /// It is neither TCP nor UDP, or its transport header is cut.
    #[error("no ports in the packet")]
    NoPorts,
    /// It is a later fragment.
    #[error("a later fragment carries no ports")]
    Fragment,
    /// The new addresses are not of the packet's family.
    #[error("addresses of another family")]
    Family,
}

/// Rewrites `packet`, whose header was read as `header`. On an error nothing was written.
pub fn turn(packet: &mut [u8], header: &Header, turn: Turn) -> Result<(), CannotTurn> {
    if header.fragment == Fragment::Later {
        return Err(CannotTurn::Fragment);
    }
    let at = header.payload_at;
    let checksum_at = at
        + match header.protocol {
            TCP => 16,
            UDP => 6,
            _ => return Err(CannotTurn::NoPorts),
        };
    if header.payload(packet).len() < checksum_at + 2 - at {
        return Err(CannotTurn::NoPorts);
    }
    let delta = replace_addresses(packet, turn)?;
    let mut ports = [0; 4];
    ports[..2].copy_from_slice(&turn.ports.source.to_be_bytes());
    ports[2..].copy_from_slice(&turn.ports.destination.to_be_bytes());
    let delta = delta.replace(&packet[at..at + 4], &ports);
    packet[at..at + 4].copy_from_slice(&ports);
    let old = u16::from_be_bytes([packet[checksum_at], packet[checksum_at + 1]]);
    // RFC 768: in UDP over IPv4 zero means that there is none, and a computed zero is sent as all ones.
    let new = match (header.protocol, old) {
        (UDP, 0) => 0,
        (UDP, _) => match delta.apply(old) {
            0 => 0xffff,
            sum => sum,
        },
        (_, _) => delta.apply(old),
    };
    packet[checksum_at..checksum_at + 2].copy_from_slice(&new.to_be_bytes());
    Ok(())
}

/// Writes the addresses, repairs the IPv4 header checksum, and tells what changed under the pseudo header.
fn replace_addresses(packet: &mut [u8], turn: Turn) -> Result<Delta, CannotTurn> {
    let version = packet.first().map_or(0, |first| first >> 4);
    match (version, turn.source, turn.destination) {
        (4, IpAddr::V4(source), IpAddr::V4(destination)) if packet.len() >= 20 => {
            let mut new = [0; 8];
            new[..4].copy_from_slice(&source.octets());
            new[4..].copy_from_slice(&destination.octets());
            let delta = Delta::default().replace(&packet[12..20], &new);
            packet[12..20].copy_from_slice(&new);
            let checksum = delta.apply(u16::from_be_bytes([packet[10], packet[11]]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            Ok(delta)
        }
        (6, IpAddr::V6(source), IpAddr::V6(destination)) if packet.len() >= 40 => {
            let mut new = [0; 32];
            new[..16].copy_from_slice(&source.octets());
            new[16..].copy_from_slice(&destination.octets());
            let delta = Delta::default().replace(&packet[8..40], &new);
            packet[8..40].copy_from_slice(&new);
            Ok(delta)
        }
        (_, _, _) => Err(CannotTurn::Family),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{checksum::pseudo, tcp::Segment, udp};

    fn address(six: bool, last: u8) -> IpAddr {
        if six {
            std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)).into()
        } else {
            std::net::Ipv4Addr::new(100, 64, 0, last).into()
        }
    }

    fn is_sound(packet: &[u8]) -> bool {
        let header = Header::parse(packet).unwrap();
        let payload = header.payload(packet);
        let transport = pseudo(
            header.source,
            header.destination,
            header.protocol,
            payload.len(),
        )
        .bytes(payload);
        let own = crate::packet::checksum::Sum::default().bytes(&packet[..20]);
        transport.finish() == 0 && (packet[0] >> 4 == 6 || own.finish() == 0)
    }

    proptest! {
        #[test]
        fn a_turned_packet_has_good_checksums_and_the_way_back_restores_it(
            six: bool, udp: bool, ports: (u16, u16), new: (u16, u16), last in 1u8..255,
            body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (a, b) = (address(six, 1), address(six, 2));
            let ports = Ports { source: ports.0, destination: ports.1 };
            let mut packet = Vec::new();
            if udp {
                prop_assert!(udp::build(&mut packet, (a, b), ports, &body));
            } else {
                let segment = Segment { ports, sequence: 7, acknowledgment: 9, flags: 2, body_len: 0 };
                prop_assert!(segment.build(&mut packet, (a, b)));
            }
            let before = packet.clone();
            let header = Header::parse(&packet).unwrap();
            let there = Turn {
                source: address(six, last),
                destination: a,
                ports: Ports { source: new.0, destination: new.1 },
            };
            turn(&mut packet, &header, there).unwrap();
            prop_assert!(is_sound(&packet));
            let header = Header::parse(&packet).unwrap();
            prop_assert_eq!(header.ports(&packet), Some(there.ports));
            prop_assert_eq!((header.source, header.destination), (there.source, there.destination));
            turn(&mut packet, &header, Turn { source: a, destination: b, ports }).unwrap();
            prop_assert_eq!(packet, before);
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), six: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            if let Ok(header) = Header::parse(&bytes) {
                let ports = Ports { source: 1, destination: 2 };
                let _ = turn(&mut bytes, &header, Turn { source: address(six, 1), destination: address(six, 2), ports });
            }
        }
    }

    #[test]
    fn an_absent_udp_checksum_stays_absent() {
        let mut packet = Vec::new();
        let ports = Ports {
            source: 1,
            destination: 2,
        };
        assert!(udp::build(
            &mut packet,
            (address(false, 1), address(false, 2)),
            ports,
            b"x"
        ));
        packet[26..28].fill(0);
        let header = Header::parse(&packet).unwrap();
        let there = Turn {
            source: address(false, 3),
            destination: address(false, 4),
            ports,
        };
        turn(&mut packet, &header, there).unwrap();
        assert_eq!(packet[26..28], [0, 0]);
    }

    #[test]
    fn a_later_fragment_is_left_alone() {
        let mut packet = Vec::new();
        let ports = Ports {
            source: 1,
            destination: 2,
        };
        assert!(udp::build(
            &mut packet,
            (address(false, 1), address(false, 2)),
            ports,
            b"x"
        ));
        packet[7] = 1;
        let before = packet.clone();
        let header = Header::parse(&packet).unwrap();
        let there = Turn {
            source: address(false, 3),
            destination: address(false, 4),
            ports,
        };
        assert_eq!(turn(&mut packet, &header, there), Err(CannotTurn::Fragment));
        assert_eq!(packet, before);
    }
}
