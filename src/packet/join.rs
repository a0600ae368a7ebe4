//! Joins packets that follow each other in one flow, so that a host takes them in as one: the opposite of
//! [`super::split`]. No body is copied: a joined packet is new headers, the first body, and the bodies of the others.

use super::{
    checksum::pseudo,
    ip::{Fragment, Header, TCP, UDP},
    tcp::{CWR, FIN, PSH, RST, SYN, URG},
    vnet,
};

/// How many packets are joined: as many as one UDP datagram of the kernel's may be cut into.
pub const MOST: usize = 64;

/// The longest a joined packet may be: what an IPv4 header can say, and a little less than an IPv6 header can.
const LONGEST: usize = 65_535;

/// The longest headers: of IPv6 without extensions and of TCP with all options.
const HEADS: usize = 40 + 60;

const DONT_FRAGMENT: u8 = 0x40;

/// Packets that may be joined; it knows the first of them by what the others must have in common with it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    header: Header,
    /// Where the bodies begin.
    body_at: usize,
    /// Bytes of body that each has but the last.
    size: usize,
    /// Bytes of the joined packet.
    len: usize,
    packets: usize,
    next_sequence: u32,
    next_id: u16,
    /// What the others' flags add. What came at once is pushed at once, whichever of them asked for it: that flag ends nothing,
    /// and senders collapse it themselves (RFC 1122 §4.2.2.2).
    flags: u8,
    is_closed: bool,
}

/// What stands before the first body of a joined packet.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; vnet::LEN + HEADS],
    len: usize,
}

impl Head {
    /// For the device, and the packet's own headers.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Run {
    /// Begins with a packet; None where nothing could be joined to it.
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let header = Header::parse(packet).ok()?;
        let is_plain = header.payload_at == fixed_len(packet) && header.fragment == Fragment::Whole;
        if !is_plain || header.len != packet.len() {
            return None;
        }
        let (body_at, flags) = body_at(&header, packet)?;
        let size = packet.len() - body_at;
        if size == 0 || flags & (SYN | RST | URG | CWR) != 0 {
            return None;
        }
        let body = u32::try_from(size).ok()?;
        Some(Self {
            header,
            body_at,
            size,
            len: packet.len(),
            packets: 1,
            next_sequence: sequence(packet, header.payload_at).wrapping_add(body),
            next_id: id(packet).wrapping_add(1),
            flags: 0,
            is_closed: flags & FIN != 0,
        })
    }

    /// How many packets it has.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Where the body of each of its packets begins.
    pub fn body_at(&self) -> usize {
        self.body_at
    }

    /// Bytes of body that each of its packets has but the last.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether it is of UDP.
    pub fn is_udp(&self) -> bool {
        self.header.protocol == UDP
    }

    /// Takes the packet that came next, if it continues what began with `first`.
    pub fn take(&mut self, first: &[u8], packet: &[u8]) -> bool {
        let body = packet.len().saturating_sub(self.body_at);
        let fits = !self.is_closed
            && (1..=self.size).contains(&body)
            && self.len + body <= LONGEST
            && self.packets < MOST
            && self.is_next(first, packet);
        if !fits {
            return false;
        }
        if self.header.protocol == TCP {
            let flags = packet[self.header.payload_at + 13] & (FIN | PSH);
            self.is_closed = flags & FIN != 0;
            self.flags |= flags;
            self.next_sequence = self
                .next_sequence
                .wrapping_add(u32::try_from(body).unwrap_or(0));
        }
        self.is_closed |= body < self.size;
        self.next_id = self.next_id.wrapping_add(1);
        self.len += body;
        self.packets += 1;
        true
    }

    /// What stands before the first body instead of the first packet's headers.
    pub fn head(&self, first: &[u8]) -> Option<Head> {
        let mut head = Head {
            bytes: [0; vnet::LEN + HEADS],
            len: vnet::LEN + self.body_at,
        };
        let transport_at = self.header.payload_at;
        let joined = vnet::Joined {
            first: *first.first()?,
            protocol: self.header.protocol,
            size: u16::try_from(self.size).ok()?,
            transport_at: u16::try_from(transport_at).ok()?,
            body_at: u16::try_from(self.body_at).ok()?,
        };
        let (device, own) = head.bytes.split_at_mut(vnet::LEN);
        device.copy_from_slice(&joined.encode());
        let own = own.get_mut(..self.body_at)?;
        own.copy_from_slice(first.get(..self.body_at)?);
        self.write_lengths(own)?;
        Some(head)
    }

    /// Lengths, what the others' flags add, and the checksums: over the IPv4 header, and of what is behind it only
    /// over the pseudo header, for whoever cuts the packet again.
    fn write_lengths(&self, own: &mut [u8]) -> Option<()> {
        let at = self.header.payload_at;
        let len = u16::try_from(self.len).ok()?;
        if own[0] >> 4 == 4 {
            own[2..4].copy_from_slice(&len.to_be_bytes());
            own[10..12].fill(0);
            let checksum = super::checksum::Sum::default().bytes(&own[..at]).finish();
            own[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            own[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        }
        let len = self.len - at;
        let checksum_at = if self.is_udp() {
            own[at + 4..at + 6].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            at + 6
        } else {
            own[at + 13] |= self.flags;
            at + 16
        };
        let Header {
            source,
            destination,
            protocol,
            ..
        } = self.header;
        // The complement of a checksum is the sum itself.
        let sum = !pseudo(source, destination, protocol, len).finish();
        own[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        Some(())
    }

    /// Whether all headers continue those of the first packet. The packet is long enough to have them.
    fn is_next(&self, first: &[u8], packet: &[u8]) -> bool {
        let at = self.header.payload_at;
        // Of what has a length that the compiler knows it compares words, and this is asked of every packet.
        let heads = [first, packet].map(|packet| packet.first_chunk::<20>());
        let [Some(first_ip), Some(ip)] = heads else {
            return false;
        };
        let is_same_ip = match ip[0] >> 4 {
            4 => {
                // With this flag the identification says nothing (RFC 6864 §4).
                let is_numbered = first_ip[6] & DONT_FRAGMENT != 0 || id(packet) == self.next_id;
                first_ip[..2] == ip[..2]
                    && first_ip[6..10] == ip[6..10]
                    && first_ip[12..] == ip[12..]
                    && is_numbered
            }
            _ => {
                first_ip[..4] == ip[..4]
                    && first_ip[6..] == ip[6..]
                    && first[20..40] == packet[20..40]
            }
        };
        if !is_same_ip || len_of(packet) != packet.len() {
            return false;
        }
        if self.is_udp() {
            let len = u16::from_be_bytes([packet[at + 4], packet[at + 5]]);
            let has_checksum = packet[at + 6..at + 8] != [0, 0];
            let has_same_ports = first[at..at + 4] == packet[at..at + 4];
            return has_same_ports && usize::from(len) == packet.len() - at && has_checksum;
        }
        let heads = [first, packet].map(|packet| packet[at..].first_chunk::<20>());
        let [Some(first_tcp), Some(tcp)] = heads else {
            return false;
        };
        let differs = first_tcp[13] ^ tcp[13];
        first_tcp[..4] == tcp[..4]
            && sequence(packet, at) == self.next_sequence
            && first_tcp[8..13] == tcp[8..13]
            && differs & !(FIN | PSH) == 0
            && first_tcp[14..16] == tcp[14..16]
            && first_tcp[18..] == tcp[18..]
            && first[at + 20..self.body_at] == packet[at + 20..self.body_at]
    }
}

/// Bytes of an IP header without options.
fn fixed_len(packet: &[u8]) -> usize {
    match packet.first().map(|first| first >> 4) {
        Some(4) => 20,
        _ => 40,
    }
}

/// What an IP header says of the packet's length.
fn len_of(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    }
}

/// Where the body of a TCP segment or a UDP datagram begins, and the segment's flags. None where it is neither, or not
/// whole, or a datagram without a checksum: joined it would get one.
fn body_at(header: &Header, packet: &[u8]) -> Option<(usize, u8)> {
    let payload = header.payload(packet);
    match header.protocol {
        TCP => {
            let fixed = payload.first_chunk::<20>()?;
            let len = usize::from(fixed[12] >> 4) * 4;
            let is_whole = (20..=payload.len()).contains(&len);
            is_whole.then_some((header.payload_at + len, fixed[13]))
        }
        UDP => {
            let fixed = payload.first_chunk::<8>()?;
            let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
            let is_whole = len == payload.len() && fixed[6..] != [0, 0];
            is_whole.then_some((header.payload_at + 8, 0))
        }
        _ => None,
    }
}

/// A segment's number; something else in a datagram, where nobody looks at it.
fn sequence(packet: &[u8], at: usize) -> u32 {
    let bytes = packet.get(at + 4..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// An IPv4 packet's number; something else in IPv6, where nobody looks at it.
fn id(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}
