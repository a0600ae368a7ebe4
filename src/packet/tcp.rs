//! TCP segments (RFC 9293): their flags, and the SYN and RST that we write ourselves.

use std::net::IpAddr;

use super::{
    checksum::pseudo,
    ip::{Fragment, Header, Ports, TCP},
    write,
};

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

/// What a TCP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Both ports.
    pub ports: Ports,
    /// Number of the first byte.
    pub sequence: u32,
    /// Number of the byte expected next.
    pub acknowledgment: u32,
    /// [`SYN`], [`ACK`] …
    pub flags: u8,
    /// Bytes of body.
    pub body_len: usize,
}

impl Segment {
    /// Reads the TCP header of an unfragmented packet or a first fragment.
    pub fn parse(header: &Header, packet: &[u8]) -> Option<Self> {
        if header.protocol != TCP || header.fragment == Fragment::Later {
            return None;
        }
        let payload = header.payload(packet);
        let head = payload.first_chunk::<20>()?;
        let data_at = usize::from(head[12] >> 4) * 4;
        if data_at < 20 {
            return None;
        }
        Some(Self {
            ports: Ports {
                source: u16::from_be_bytes([head[0], head[1]]),
                destination: u16::from_be_bytes([head[2], head[3]]),
            },
            sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            acknowledgment: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
            flags: head[13],
            body_len: payload.len().checked_sub(data_at)?,
        })
    }

    /// The RST that answers this segment (RFC 9293 §3.10.7.1); None for a RST.
    pub fn reset(&self) -> Option<Self> {
        if self.flags & RST != 0 {
            return None;
        }
        let ports = Ports {
            source: self.ports.destination,
            destination: self.ports.source,
        };
        if self.flags & ACK != 0 {
            return Some(Self {
                ports,
                sequence: self.acknowledgment,
                acknowledgment: 0,
                flags: RST,
                body_len: 0,
            });
        }
        let one = |flag: u8| u32::from(self.flags & flag != 0);
        let body = u32::try_from(self.body_len).unwrap_or(0);
        Some(Self {
            ports,
            sequence: 0,
            acknowledgment: self
                .sequence
                .wrapping_add(body)
                .wrapping_add(one(SYN))
                .wrapping_add(one(FIN)),
            flags: RST | ACK,
            body_len: 0,
        })
    }

    /// Writes this segment without a body into `out`, as a whole packet. False when the families differ.
    #[must_use]
    pub fn build(&self, out: &mut Vec<u8>, addresses: (IpAddr, IpAddr)) -> bool {
        const LEN: usize = 20;
        if write::header(out, addresses, TCP, LEN).is_none() {
            return false;
        }
        let at = out.len();
        let window: u16 = if self.flags & SYN == 0 { 0 } else { 1024 };
        out.extend_from_slice(&self.ports.source.to_be_bytes());
        out.extend_from_slice(&self.ports.destination.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.acknowledgment.to_be_bytes());
        out.extend_from_slice(&[0x50, self.flags]);
        out.extend_from_slice(&window.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let checksum = pseudo(addresses.0, addresses.1, TCP, LEN)
            .bytes(&out[at..])
            .finish();
        out[at + 16..at + 18].copy_from_slice(&checksum.to_be_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN_SEGMENT: Segment = Segment {
        ports: Ports {
            source: 50_000,
            destination: 80,
        },
        sequence: u32::MAX,
        acknowledgment: 0,
        flags: SYN,
        body_len: 0,
    };

    #[test]
    fn a_syn_is_read_back_with_a_good_checksum() {
        for pair in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let addresses: (IpAddr, IpAddr) = (pair.0.parse().unwrap(), pair.1.parse().unwrap());
            let mut out = Vec::new();
            assert!(SYN_SEGMENT.build(&mut out, addresses));
            let header = Header::parse(&out).unwrap();
            assert_eq!(Segment::parse(&header, &out), Some(SYN_SEGMENT));
            let sum = pseudo(addresses.0, addresses.1, TCP, 20).bytes(header.payload(&out));
            assert_eq!(sum.finish(), 0);
        }
    }

    #[test]
    fn a_reset_of_a_syn_acknowledges_it_and_wraps() {
        let reset = SYN_SEGMENT.reset().unwrap();
        assert_eq!((reset.flags, reset.acknowledgment), (RST | ACK, 0));
        assert_eq!(
            reset.ports,
            Ports {
                source: 80,
                destination: 50_000
            }
        );
    }

    #[test]
    fn a_reset_is_never_answered() {
        let reset = Segment {
            flags: RST,
            ..SYN_SEGMENT
        };
        assert_eq!(reset.reset(), None);
    }
}
