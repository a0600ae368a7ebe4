//! From the device to the other end: one read, split while sealing into the send buffer, one send.

use super::{internet::*, *};

/// What one send takes: the bytes of an IPv4 datagram, and UDP_MAX_SEGMENTS of kernels before 6.9.
const RUN_BYTES: usize = 65_507;
const RUN_SEGMENTS: usize = 64;

/// Datagrams of one length, the last of which may be shorter: what the kernel takes in one send.
#[derive(Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    used: usize,
    stride: usize,
    /// The stride that the socket knows.
    told: usize,
    counter: u64,
}

impl Outbound {
    /// Seals what one read of the device gives into `buffer`, and sends what is full.
    pub fn carry(&mut self, ends: &Ends, buffer: &mut [u8]) -> Result<()> {
        self.bytes.resize(SUPER_PACKET, 0);
        let length = (&ends.tun).read(buffer)?;
        let (vnet, ip) = buffer[..length].split_at_mut(VNET);
        let number = |at| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
        let [segment, start, offset] = [4, 6, 8].map(number);
        match vnet[1] {
            0 if vnet[0] & NEEDS_CHECKSUM != 0 => {
                put(ip, start + offset, !fold(sum(&ip[start..])));
                self.push(ip, ends)
            }
            0 => self.push(ip, ends),
            // Super-packets of IPv6 go nowhere.
            _ if ip[0] >> 4 != 4 => Ok(()),
            _ => self.split(ip, start, segment, ends),
        }
    }

    /// Makes each segment in its place, its header over the end of the segment before, which is sealed already.
    fn split(&mut self, ip: &mut [u8], start: usize, segment: usize, ends: &Ends) -> Result<()> {
        let (header, checksum) = match ip[9] {
            TCP => (start + usize::from(ip[start + 12] >> 4) * 4, start + 16),
            _ => (start + 8, start + 6),
        };
        let (template, end) = (ip[..header].to_vec(), ip.len());
        let (id, sequence) = (u16_at(ip, 4), u32_at(ip, start + 4));
        for (number, body) in (header..end).step_by(segment).enumerate() {
            let packet = &mut ip[body - header..end.min(body + segment)];
            packet[..header].copy_from_slice(&template);
            put(packet, 4, usize::from(id) + number);
            let pseudo = finish_ip(packet, start, packet.len());
            if packet[9] != TCP {
                put(packet, start + 4, packet.len() - start);
            } else {
                let sequence = sequence.wrapping_add((number * segment) as u32);
                packet[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
                let is_last = body + segment >= end;
                packet[start + 13] &= if is_last { !0 } else { !(FIN | PSH) };
            }
            put(packet, checksum, 0);
            put(packet, checksum, !fold(pseudo + sum(&packet[start..])));
            self.push(packet, ends)?;
        }
        Ok(())
    }

    /// Seals a packet as the next datagram, after sending what is there where it does not fit behind it.
    fn push(&mut self, packet: &[u8], ends: &Ends) -> Result<()> {
        let length = HEADER + packet.len() + TAG;
        let is_full = self.used + length > RUN_BYTES || self.used >= RUN_SEGMENTS * self.stride;
        if is_full || length > self.stride || !self.used.is_multiple_of(self.stride) {
            self.send(ends)?;
            self.stride = length;
        }
        let datagram = &mut self.bytes[self.used..self.used + length];
        ends.seal(self.counter, packet, datagram);
        self.counter += 1;
        self.used += length;
        Ok(())
    }

    /// Sends what is there, and waits while the socket is full.
    pub fn send(&mut self, ends: &Ends) -> Result<()> {
        let run = &self.bytes[..self.used];
        // A single datagram is sent as it is where the socket knows a longer stride.
        if self.told != self.stride && run.len() > self.told.min(self.stride) {
            setsockopt(&ends.udp, sockopt::UdpGsoSegment, &(self.stride as i32))?;
            self.told = self.stride;
        }
        if !run.is_empty() {
            ends.udp.send_to(run, ends.other)?;
        }
        (self.used, self.stride) = (0, 0);
        Ok(())
    }
}
