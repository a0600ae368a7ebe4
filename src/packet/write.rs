//! Writes IP headers of packets that we make ourselves.

use std::net::IpAddr;

use super::checksum::Sum;

/// The TTL and hop limit of what we write: it goes into the own TUN, one hop away.
const TTL: u8 = 64;

/// Clears `out` and writes an IP header before `payload_len` bytes that the caller appends. None when the addresses
/// are of two families or the packet would be too long.
pub(super) fn header(
    out: &mut Vec<u8>,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    payload_len: usize,
) -> Option<()> {
    out.clear();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = u16::try_from(20 + payload_len).ok()?;
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, TTL, protocol, 0, 0]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            let checksum = Sum::default().bytes(out).finish();
            out[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(payload_len).ok()?;
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[protocol, TTL]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(())
}
