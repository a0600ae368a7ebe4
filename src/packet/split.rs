//! Cuts a packet that was left longer than the link into the segments that go over it: TCP (RFC 9293) and equal UDP
//! datagrams, both families. Nothing is copied but headers: each segment's is stamped before its body, over the end of
//! the body before it, which must have been used up by then.

use std::{net::IpAddr, ops::Range};

use super::{
    checksum::{Sum, pseudo},
    ip::{Fragment, Header, TCP, UDP},
    tcp::{CWR, FIN, PSH},
    vnet::Undone,
};

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the packet says of itself does not fit how it is to be cut")]
pub struct Misfit;

/// The segments of one packet, one after the other. A packet that is not to be cut is its own only segment.
#[derive(Clone, Debug)]
pub struct Segments {
    cut: Option<Cut>,
    /// Bytes of headers that each has.
    head: usize,
    /// Bytes of body that each has but the last.
    size: usize,
    /// Bytes of the packet, and how many of them come before the next segment's body.
    len: usize,
    used: usize,
}

/// How many segments a packet has, and how long each is with its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// How many.
    pub segments: usize,
    /// Bytes of each but the last.
    pub each: usize,
    /// Bytes of the last.
    pub last: usize,
}

impl Lengths {
    /// Those of a packet that is its own only segment.
    pub fn of_one(len: usize) -> Self {
        Self {
            segments: 1,
            each: len,
            last: len,
        }
    }
}

/// How segments are made of a packet.
#[derive(Clone, Copy, Debug)]
struct Cut {
    kind: Kind,
    family: Family,
    /// Where the transport header begins.
    transport_at: usize,
    /// Over the pseudo header but its length, and over what all transport headers have in common.
    transport: Sum,
    index: u16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

#[derive(Clone, Copy, Debug)]
enum Family {
    /// With the sum over what all IP headers have in common.
    V4 {
        id: u16,
        sum: Sum,
    },
    V6,
}

impl Segments {
    /// Prepares the segments of `packet`, whose header was read as `header`. A checksum that was left undone is finished.
    ///
    /// # Errors
    /// The packet is not what it is said to be.
    pub fn of(packet: &mut [u8], header: &Header, undone: Undone) -> Result<Self, Misfit> {
        let whole = Self {
            cut: None,
            head: header.payload_at,
            size: header.len - header.payload_at,
            len: header.len,
            used: 0,
        };
        match undone {
            Undone::Nothing => Ok(whole),
            Undone::Checksum { .. } => finish(packet, undone).map(|_nothing| whole),
            Undone::Segments { protocol, size } => {
                if header.protocol != protocol || header.fragment != Fragment::Whole || size == 0 {
                    return Err(Misfit);
                }
                let (cut, head) = Cut::of(packet, header)?;
                Ok(Self {
                    cut: Some(cut),
                    head,
                    size: usize::from(size),
                    used: head,
                    ..whole
                })
            }
        }
    }

    /// Bytes of the longest.
    pub fn longest(&self) -> usize {
        self.len.min(self.head + self.size)
    }

    /// How many there are, and how long.
    pub fn lengths(&self) -> Lengths {
        let body = self.len - self.head;
        let segments = body.div_ceil(self.size.max(1)).max(1);
        Lengths {
            segments,
            each: self.longest(),
            last: self.len - (segments - 1) * self.size,
        }
    }

    /// Whether the last was made.
    pub fn are_over(&self) -> bool {
        self.used == self.len
    }

    /// Makes none longer than `room`, where that can be: TCP does not care where it is cut.
    pub fn limit(&mut self, room: usize) {
        let is_tcp = matches!(self.cut, Some(cut) if matches!(cut.kind, Kind::Tcp { .. }));
        if is_tcp && room > self.head {
            self.size = self.size.min(room - self.head);
        }
    }

    /// Makes the next segment and tells where in the packet it stands. The one before it is gone then.
    pub fn next(&mut self, packet: &mut [u8]) -> Option<Range<usize>> {
        let Some(cut) = &mut self.cut else {
            let is_first = std::mem::replace(&mut self.used, self.len) == 0;
            return is_first.then_some(0..self.len);
        };
        let left = self.len.checked_sub(self.used).filter(|left| *left > 0)?;
        let body = left.min(self.size);
        let at = self.used - self.head;
        if at > 0 {
            let before = at - self.size;
            packet.copy_within(before..before + self.head, at);
        }
        let segment = at..at + self.head + body;
        cut.stamp(packet.get_mut(segment.clone())?, left == body)?;
        self.used += body;
        Some(segment)
    }
}

impl Cut {
    /// How `packet` is cut, and how many bytes of headers every segment has.
    fn of(packet: &[u8], header: &Header) -> Result<(Self, usize), Misfit> {
        let at = header.payload_at;
        let payload = header.payload(packet);
        let seen = pseudo(header.source, header.destination, header.protocol, 0);
        let (kind, head, transport) = match header.protocol {
            TCP => {
                let fixed = payload.first_chunk::<20>().ok_or(Misfit)?;
                let head = usize::from(fixed[12] >> 4) * 4;
                let options = payload.get(20..head).ok_or(Misfit)?;
                let kind = Kind::Tcp {
                    sequence: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
                    flags: fixed[13],
                };
                let parts = [
                    &fixed[..4],
                    &fixed[8..12],
                    &fixed[14..16],
                    &fixed[18..],
                    options,
                ];
                (kind, head, sum(seen, &parts))
            }
            UDP => {
                let fixed = payload.first_chunk::<8>().ok_or(Misfit)?;
                (Kind::Udp, 8, sum(seen, &[&fixed[..4]]))
            }
            _ => return Err(Misfit),
        };
        let ip = packet.get(..at).ok_or(Misfit)?;
        let family = match header.source {
            IpAddr::V4(_) => Family::V4 {
                id: u16::from_be_bytes([ip[4], ip[5]]),
                sum: sum(Sum::default(), &[&ip[..2], &ip[6..10], &ip[12..]]),
            },
            IpAddr::V6(_) => Family::V6,
        };
        if payload.len() <= head {
            return Err(Misfit);
        }
        let cut = Self {
            kind,
            family,
            transport_at: at,
            transport,
            index: 0,
        };
        Ok((cut, at + head))
    }

    /// Writes what differs from segment to segment.
    fn stamp(&mut self, segment: &mut [u8], is_last: bool) -> Option<()> {
        let len = u16::try_from(segment.len()).ok()?;
        match self.family {
            Family::V4 { id, sum } => {
                let id = id.wrapping_add(self.index);
                let checksum = sum.word(len).word(id).finish();
                segment[2..4].copy_from_slice(&len.to_be_bytes());
                segment[4..6].copy_from_slice(&id.to_be_bytes());
                segment[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Family::V6 => segment[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
        }
        let segment = segment.get_mut(self.transport_at..)?;
        let len = u16::try_from(segment.len()).ok()?;
        let known = self.transport.word(len);
        match &mut self.kind {
            Kind::Tcp { sequence, flags } => {
                let kept = if is_last {
                    *flags
                } else {
                    *flags & !(FIN | PSH)
                };
                // Who has slowed down says so once.
                *flags &= !CWR;
                segment[13] = kept;
                segment[4..8].copy_from_slice(&sequence.to_be_bytes());
                let body_at = usize::from(segment[12] >> 4) * 4;
                *sequence = sequence.wrapping_add(u32::from(len) - u32::try_from(body_at).ok()?);
                let checksum = sum(
                    known,
                    &[&segment[4..8], &segment[12..14], &segment[body_at..]],
                );
                segment[16..18].copy_from_slice(&checksum.finish().to_be_bytes());
            }
            Kind::Udp => {
                segment[4..6].copy_from_slice(&len.to_be_bytes());
                let checksum = sum(known.word(len), &[&segment[8..]]).finish();
                segment[6..8].copy_from_slice(&said(checksum).to_be_bytes());
            }
        }
        self.index = self.index.wrapping_add(1);
        Some(())
    }
}

fn sum(start: Sum, parts: &[&[u8]]) -> Sum {
    parts.iter().fold(start, |sum, part| sum.bytes(part))
}

/// RFC 768: a computed checksum of zero is sent as all ones.
fn said(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Finishes a checksum that was left undone; tells what else is.
///
/// # Errors
/// It would lie outside the packet.
pub fn finish(packet: &mut [u8], undone: Undone) -> Result<Undone, Misfit> {
    const UDP_OFFSET: usize = 6;
    let Undone::Checksum { start, offset } = undone else {
        return Ok(undone);
    };
    let checksum = Sum::default()
        .bytes(packet.get(start..).ok_or(Misfit)?)
        .finish();
    let checksum = if offset == UDP_OFFSET {
        said(checksum)
    } else {
        checksum
    };
    let field = packet
        .get_mut(start + offset..start + offset + 2)
        .ok_or(Misfit)?;
    field.copy_from_slice(&checksum.to_be_bytes());
    Ok(Undone::Nothing)
}
