//! From the device to the other end: one read, split while sealing into the send buffer, one send.

use super::{internet::*, *};

/// What one send takes: the bytes of an IPv4 datagram, and UDP_MAX_SEGMENTS of kernels before 6.9.
const RUN_BYTES: usize = 65_507;
const RUN_SEGMENTS: usize = 64;

pub struct Outbound<'a> {
    tun: &'a File,
    packet: Vec<u8>,
    run: Run<'a>,
}

/// Datagrams of one length, the last of which may be shorter: what the kernel takes in one send.
struct Run<'a> {
    udp: &'a UdpSocket,
    other: SocketAddr,
    sealer: Sealer,
    counter: u64,
    bytes: Vec<u8>,
    used: usize,
    stride: usize,
    /// The stride that the socket knows.
    told: usize,
}

impl<'a> Outbound<'a> {
    pub fn new(tun: &'a File, udp: &'a UdpSocket, other: SocketAddr, sealer: Sealer) -> Self {
        let bytes = vec![0; SUPER_PACKET];
        let packet = bytes.clone();
        let (counter, used, stride, told) = (0, 0, 0, 0);
        #[rustfmt::skip]
        let run = Run { udp, other, sealer, counter, bytes, used, stride, told };
        Self { tun, packet, run }
    }

    /// Carries what is there, but not for ever; whether there may be more. Nothing read waits for more to come.
    pub fn pump(&mut self) -> Result<bool> {
        for _ in 0..RUN_SEGMENTS {
            let Some(length) = at_once(self.tun.read(&mut self.packet))? else {
                self.run.send()?;
                return Ok(false);
            };
            self.seal(length)?;
        }
        self.run.send()?;
        Ok(true)
    }

    /// Seals what was read: a packet, or a super-packet as its segments.
    fn seal(&mut self, length: usize) -> Result<()> {
        let (vnet, ip) = self.packet[..length].split_at_mut(VNET);
        let number = |at| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
        let [segment, start, offset] = [4, 6, 8].map(number);
        match vnet[1] & !GSO_ECN {
            GSO_TCP4 => {
                let header = start + usize::from(ip[start + 12] >> 4) * 4;
                split(ip, start..header, segment, &mut self.run)
            }
            GSO_UDP if ip[0] >> 4 == 4 => split(ip, start..start + 8, segment, &mut self.run),
            0 => {
                if vnet[0] & NEEDS_CHECKSUM != 0 {
                    put_sum(ip, start + offset, !fold(sum(&ip[start..])));
                }
                self.run.push(ip)
            }
            // Super-packets of IPv6.
            _ => Ok(()),
        }
    }
}

/// Makes each segment in its place, its header over the end of the segment before, which is sealed already.
fn split(ip: &mut [u8], transport: Range<usize>, segment: usize, run: &mut Run) -> Result<()> {
    let (start, header, end) = (transport.start, transport.end, ip.len());
    let mut template = [0; 120];
    template[..header].copy_from_slice(&ip[..header]);
    let (id, sequence) = (u16_at(ip, 4), u32_at(ip, start + 4));
    for (number, body) in (header..end).step_by(segment).enumerate() {
        let packet = &mut ip[body - header..end.min(body + segment)];
        packet[..header].copy_from_slice(&template[..header]);
        put_u16(packet, 4, usize::from(id) + number);
        let pseudo = finish_ip(packet, start, packet.len());
        let field = if packet[9] == TCP {
            let sequence = sequence.wrapping_add((number * segment) as u32);
            packet[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            let (is_first, is_last) = (number == 0, body + segment >= end);
            packet[start + 13] &= if is_last { !0 } else { !(FIN | PSH) };
            packet[start + 13] &= if is_first { !0 } else { !CWR };
            start + 16
        } else {
            put_u16(packet, start + 4, packet.len() - start);
            start + 6
        };
        put_u16(packet, field, 0);
        // A zero would say that UDP has none; to TCP both mean the same.
        let checksum = !fold(pseudo + sum(&packet[start..]));
        put_sum(packet, field, if checksum == 0 { !0 } else { checksum });
        run.push(packet)?;
    }
    Ok(())
}

impl Run<'_> {
    /// Seals a packet as the next datagram, after sending what is there where it does not fit behind it.
    fn push(&mut self, packet: &[u8]) -> Result<()> {
        let length = HEADER + packet.len() + TAG;
        let is_full = self.used + length > RUN_BYTES || self.used >= RUN_SEGMENTS * self.stride;
        if is_full || length > self.stride || !self.used.is_multiple_of(self.stride) {
            self.send()?;
            self.stride = length;
        }
        let slot = &mut self.bytes[self.used..self.used + length];
        let (header, rest) = slot.split_at_mut(HEADER);
        let (body, tag) = rest.split_at_mut(packet.len());
        header[..8].copy_from_slice(&[0x10, 0, 0, 0, 1, 0, 0, 0]);
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
        let (nonce, aad) = (self.sealer.nonce(self.counter), Aad::from(&*header));
        let key = &self.sealer.0;
        let sealed = key.seal_out_of_place_scatter(nonce, aad, packet, body, &[], tag);
        sealed.expect("the lengths fit");
        self.counter += 1;
        self.used += length;
        Ok(())
    }

    /// Sends what is there, and waits while the socket is full.
    fn send(&mut self) -> Result<()> {
        let run = &self.bytes[..self.used];
        // A single datagram is sent as it is where the socket knows a longer stride.
        let is_single = run.len() <= self.stride;
        if self.told != self.stride && !(is_single && run.len() <= self.told) {
            setsockopt(self.udp, sockopt::UdpGsoSegment, &(self.stride as i32))?;
            self.told = self.stride;
        }
        while !run.is_empty() && at_once(self.udp.send_to(run, self.other))?.is_none() {
            let mut socket = [PollFd::new(self.udp.as_fd(), PollFlags::POLLOUT)];
            poll(&mut socket, PollTimeout::NONE)?;
        }
        (self.used, self.stride) = (0, 0);
        Ok(())
    }
}
