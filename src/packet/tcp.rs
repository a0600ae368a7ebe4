//! TCP segments (RFC 9293): their flags, and the SYN and RST that we write ourselves.

use std::net::IpAddr;

use super::{
    checksum::{Delta, pseudo},
    ip::{Fragment, Header, Ports, TCP},
    write,
};

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// PSH.
pub const PSH: u8 = 8;
/// ACK.
pub const ACK: u8 = 16;
/// URG.
pub const URG: u8 = 32;
/// CWR (RFC 3168): the sender has slowed down.
pub const CWR: u8 = 128;

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

/// Makes the packets of a connection fit: lowers the segment size that a SYN names to what a packet of `room` bytes holds
/// (RFC 9293 §3.7.1). Anything else is left as it is, and so is a SYN that names none.
pub fn clamp(packet: &mut [u8], header: &Header, room: usize) {
    let ip = match header.source {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let most = u16::try_from(room.saturating_sub(ip + 20)).unwrap_or(u16::MAX);
    let is_syn = Segment::parse(header, packet).is_some_and(|segment| segment.flags & SYN != 0);
    if !is_syn {
        return;
    }
    let at = header.payload_at;
    let Some(mss_at) = find_mss(header.payload(packet)).map(|offset| at + offset) else {
        return;
    };
    let (Some(named), Some(sum)) = (word(packet, mss_at), word(packet, at + 16)) else {
        return;
    };
    if named <= most {
        return;
    }
    // The checksum covers words from the start of the segment; an option may begin at an odd byte.
    let sum = if mss_at.abs_diff(at) % 2 == 0 {
        Delta::default().replace(&named.to_be_bytes(), &most.to_be_bytes())
    } else {
        Delta::default().replace(&named.to_le_bytes(), &most.to_le_bytes())
    }
    .apply(sum);
    packet[mss_at..mss_at + 2].copy_from_slice(&most.to_be_bytes());
    packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Where in a segment the size is that its SYN names.
fn find_mss(segment: &[u8]) -> Option<usize> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const MSS: u8 = 2;
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut at = 20;
    while at < end {
        match *segment.get(at)? {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let len = usize::from(*segment.get(at + 1)?);
                if kind == MSS && len == 4 && at + 4 <= end {
                    return Some(at + 2);
                }
                at += len.max(2);
            }
        }
    }
    None
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
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

    /// A SYN with these options behind its header.
    fn syn_with(addresses: (IpAddr, IpAddr), options: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let len = 20 + options.len();
        assert!(write::header(&mut packet, addresses, TCP, len).is_some());
        let at = packet.len();
        packet.extend_from_slice(&[0; 20]);
        packet[at + 12] = u8::try_from((len / 4) << 4).unwrap();
        packet[at + 13] = SYN;
        packet.extend_from_slice(options);
        let sum = pseudo(addresses.0, addresses.1, TCP, len).bytes(&packet[at..]);
        packet[at + 16..at + 18].copy_from_slice(&sum.finish().to_be_bytes());
        packet
    }

    #[test]
    fn a_syn_names_no_more_than_fits_and_its_checksum_stays_good() {
        let pairs = [("10.0.0.1", "10.0.0.2", 40), ("fd00::1", "fd00::2", 60)];
        // The size first, behind another option, and at an odd place.
        let options: [&[u8]; 3] = [
            &[2, 4, 5, 0xb4],
            &[3, 3, 7, 1, 2, 4, 5, 0xb4],
            &[1, 2, 4, 5, 0xb4, 1, 1, 0],
        ];
        for (from, to, less) in pairs {
            for options in options {
                let addresses = (from.parse().unwrap(), to.parse().unwrap());
                let mut packet = syn_with(addresses, options);
                let header = Header::parse(&packet).unwrap();
                clamp(&mut packet, &header, 1280);
                let at = header.payload_at + find_mss(header.payload(&packet)).unwrap();
                assert_eq!(word(&packet, at), Some(1280 - less));
                let payload = header.payload(&packet);
                let sum = pseudo(addresses.0, addresses.1, TCP, payload.len()).bytes(payload);
                assert_eq!(sum.finish(), 0, "{options:?}");
            }
        }
    }

    #[test]
    fn a_syn_that_names_less_or_nothing_and_any_other_segment_stay_as_they_are() {
        let addresses = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let less = syn_with(addresses, &[2, 4, 2, 0]);
        let none = syn_with(addresses, &[1, 1, 1, 0]);
        let mut ack = syn_with(addresses, &[2, 4, 5, 0xb4]);
        ack[20 + 13] = ACK;
        let mut cut = syn_with(addresses, &[2, 4, 5, 0xb4]);
        cut[20 + 12] = 0xf0;
        for before in [less, none, ack, cut] {
            let mut packet = before.clone();
            let header = Header::parse(&packet).unwrap();
            clamp(&mut packet, &header, 1280);
            assert_eq!(packet, before);
        }
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
