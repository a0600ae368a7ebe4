//! The header that a TUN device puts before each packet and wants before each: what is left to be done to it (virtio 1.1
//! §5.1.6.1, in its first form of ten bytes, little-endian).

use super::ip::{TCP, UDP};

/// Bytes of the header.
pub const LEN: usize = 10;

/// Nothing is left to be done to the packet behind it.
pub const NOTHING: [u8; LEN] = [0; LEN];

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Beside a kind: the first segment says that its sender has slowed down.
const GSO_ECN: u8 = 0x80;

/// What whoever handed a packet over has left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// Nothing.
    Nothing,
    /// The checksum over everything from `start` on is to be put `offset` bytes behind it, where the sum over the pseudo
    /// header stands.
    Checksum {
        /// Where the sum begins.
        start: usize,
        /// How far behind it the checksum stands.
        offset: usize,
    },
    /// It is to be cut into segments with at most `size` bytes of body, each with its own headers and checksums.
    Segments {
        /// [`TCP`] or [`UDP`].
        protocol: u8,
        /// Bytes of body in every segment but the last.
        size: u16,
    },
}

/// A header that says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet is to be cut in a way that is not known here")]
pub struct Unknown;

/// Reads the header. How long it says that the packet's own headers are is not believed: for what a host forwards the
/// kernel writes another number there.
pub fn decode(header: &[u8; LEN]) -> Result<Undone, Unknown> {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let segments = |protocol| Undone::Segments {
        protocol,
        size: word(4),
    };
    match header[1] & !GSO_ECN {
        GSO_NONE if header[0] & NEEDS_CHECKSUM != 0 => Ok(Undone::Checksum {
            start: usize::from(word(6)),
            offset: usize::from(word(8)),
        }),
        GSO_NONE => Ok(Undone::Nothing),
        GSO_TCP4 | GSO_TCP6 => Ok(segments(TCP)),
        GSO_UDP => Ok(segments(UDP)),
        _ => Err(Unknown),
    }
}

/// What a joined packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// The first byte of the IP header.
    pub(super) first: u8,
    pub(super) protocol: u8,
    /// Bytes of body in every segment but the last.
    pub(super) size: u16,
    /// Where the transport header begins.
    pub(super) transport_at: u16,
    /// Where the body begins.
    pub(super) body_at: u16,
}

impl Joined {
    /// The header before it: its transport checksum covers the pseudo header alone.
    pub(super) fn encode(self) -> [u8; LEN] {
        let (kind, offset): (u8, u16) = match (self.protocol, self.first >> 4) {
            (UDP, _) => (GSO_UDP, 6),
            (_, 4) => (GSO_TCP4, 16),
            (_, _) => (GSO_TCP6, 16),
        };
        let mut header = [0; LEN];
        header[..2].copy_from_slice(&[NEEDS_CHECKSUM, kind]);
        header[2..4].copy_from_slice(&self.body_at.to_le_bytes());
        header[4..6].copy_from_slice(&self.size.to_le_bytes());
        header[6..8].copy_from_slice(&self.transport_at.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_asked_for_is_read_and_no_other() {
        let header = |flags, kind| [flags, kind, 54, 0, 0x50, 0x05, 20, 0, 16, 0];
        let segments = |protocol| {
            Ok(Undone::Segments {
                protocol,
                size: 0x550,
            })
        };
        assert_eq!(decode(&NOTHING), Ok(Undone::Nothing));
        let checksum = Undone::Checksum {
            start: 20,
            offset: 16,
        };
        assert_eq!(decode(&header(1, 0)), Ok(checksum));
        for kind in [1, 4, 0x81, 0x84] {
            assert_eq!(decode(&header(1, kind)), segments(TCP), "{kind}");
        }
        assert_eq!(decode(&header(1, 5)), segments(UDP));
        for kind in [2, 3, 6, 7, 0x7f] {
            assert_eq!(decode(&header(1, kind)), Err(Unknown), "{kind}");
        }
    }

    #[test]
    fn what_is_written_before_a_joined_packet_is_read_back() {
        for (first, protocol) in [(0x45, TCP), (0x60, TCP), (0x45, UDP), (0x60, UDP)] {
            let joined = Joined {
                first,
                protocol,
                size: 1368,
                transport_at: 40,
                body_at: 72,
            };
            let undone = Undone::Segments {
                protocol,
                size: 1368,
            };
            assert_eq!(decode(&joined.encode()), Ok(undone));
        }
    }
}
