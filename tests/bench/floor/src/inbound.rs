//! From the other end to the device: one receive, opened in place, joined without a copy, one vectored write.

use super::{internet::*, *};

#[derive(Default)]
pub struct Inbound {
    bytes: Vec<u8>,
    /// Neighbours of one flow that go to the device as one super-packet: the first whole, the others without header.
    joined: Vec<Range<usize>>,
    /// How long they are together.
    length: usize,
    /// How long the header of each is; 0 where no more may be joined.
    header: usize,
}

impl Inbound {
    /// Opens what one receive gives, and writes it.
    pub fn carry(&mut self, ends: &Ends) -> Result<()> {
        self.bytes.resize(SUPER_PACKET, 0);
        let mut control = [0; 24];
        let mut parts = [IoSliceMut::new(&mut self.bytes)];
        let (socket, flags) = (ends.udp.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let run = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
        let length = run.bytes;
        let stride = match run.cmsgs()?.next() {
            Some(ControlMessageOwned::UdpGroSegments(stride)) => stride as usize,
            _ => length.max(1),
        };
        for start in (0..length).step_by(stride) {
            let end = length.min(start + stride);
            if ends.open(&mut self.bytes[start..end]) {
                self.take(start + HEADER..end - TAG, ends)?;
            }
        }
        self.flush(ends)
    }

    /// Joins a packet to those before it, or writes those and begins anew.
    fn take(&mut self, packet: Range<usize>, ends: &Ends) -> Result<()> {
        let header = tcp_header(&self.bytes[packet.clone()]);
        if header > 0 && header == self.header && self.is_continued_by(packet.clone()) {
            // What came at once is pushed at once, whichever of them said so.
            self.bytes[self.joined[0].start + 33] |= self.bytes[packet.start + 33];
            if packet.len() < self.joined[0].len() {
                self.header = 0;
            }
            self.length += packet.len() - header;
            self.joined.push(packet.start + header..packet.end);
            return Ok(());
        }
        self.flush(ends)?;
        (self.length, self.header) = (packet.len(), header);
        self.joined.push(packet);
        Ok(())
    }

    /// Whether a packet carries the bytes after those that are joined, and its header says nothing else.
    fn is_continued_by(&self, packet: Range<usize>) -> bool {
        let [first, next] = [self.joined[0].clone(), packet].map(|range| &self.bytes[range]);
        let body = self.length - self.header;
        // Service and ECN; fragments, time to live, protocol; addresses and ports; acknowledged, length; window; options.
        let same = [1..2, 6..10, 12..24, 28..33, 34..36, 40..self.header];
        u32_at(next, 24) == u32_at(first, 24).wrapping_add(body as u32)
            && next.len() <= first.len()
            && body + next.len() <= usize::from(u16::MAX)
            && same.map(|range| first[range.clone()] == next[range]) == [true; 6]
    }

    /// Writes what is joined, if anything.
    fn flush(&mut self, ends: &Ends) -> Result<()> {
        let Some(first) = self.joined.first().cloned() else {
            return Ok(());
        };
        let mut vnet = [0; VNET];
        if self.joined.len() > 1 {
            // The checksum of the whole is left to the kernel, which takes it as right.
            let packet = &mut self.bytes[first];
            let header = tcp_header(packet);
            let pseudo = finish_ip(packet, 20, self.length);
            put(packet, 36, fold(pseudo));
            let [low, high] = ((packet.len() - header) as u16).to_le_bytes();
            vnet[..4].copy_from_slice(&[NEEDS_CHECKSUM, GSO_TCP4, header as u8, 0]);
            vnet[4..].copy_from_slice(&[low, high, 20, 0, 16, 0]);
        }
        // One receive gives 128 datagrams at most.
        let mut parts = [IoSlice::new(&vnet); 129];
        for (part, range) in parts[1..].iter_mut().zip(&self.joined) {
            *part = IoSlice::new(&self.bytes[range.clone()]);
        }
        let _whole = (&ends.tun).write_vectored(&parts[..=self.joined.len()])?;
        self.joined.clear();
        self.header = 0;
        Ok(())
    }
}

/// How long the headers of a TCP packet are that does nothing but carry bytes; 0 for any other.
fn tcp_header(packet: &[u8]) -> usize {
    let is_whole = packet.len() > 40 && packet[0] == 0x45 && u16_at(packet, 6) & 0x3fff == 0;
    if !is_whole || packet[9] != TCP || packet[33] & !PSH != ACK {
        return 0;
    }
    let header = 20 + usize::from(packet[32] >> 4) * 4;
    if packet.len() > header { header } else { 0 }
}
