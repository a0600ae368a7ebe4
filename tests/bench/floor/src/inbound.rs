//! From the other end to the device: one receive, opened in place, joined without a copy, one vectored write.

use super::{internet::*, *};

/// The most parts of one write: the virtio header, and the datagrams that one receive gives.
const PARTS: usize = 130;

/// How many receives there are before the other direction is looked at.
const RECEIVES: usize = 4;

pub struct Inbound<'a> {
    tun: &'a File,
    udp: &'a UdpSocket,
    sealer: Sealer,
    bytes: Vec<u8>,
    /// Neighbours of one flow that go to the device as one super-packet: the first whole, the others without header.
    joined: Vec<Range<usize>>,
    /// How long they are together.
    length: usize,
    is_open: bool,
}

impl<'a> Inbound<'a> {
    pub fn new(tun: &'a File, udp: &'a UdpSocket, sealer: Sealer) -> Self {
        let (bytes, joined) = (vec![0; SUPER_PACKET], Vec::with_capacity(PARTS));
        let (length, is_open) = (0, false);
        #[rustfmt::skip]
        return Self { tun, udp, sealer, bytes, joined, length, is_open };
    }

    /// Carries what is there, but not for ever; whether there may be more.
    pub fn pump(&mut self) -> Result<bool> {
        for _ in 0..RECEIVES {
            let (fd, flags) = (self.udp.as_raw_fd(), MsgFlags::empty());
            let mut control = [0; 24];
            let mut parts = [IoSliceMut::new(&mut self.bytes)];
            let run = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags);
            let Some(run) = at_once(run.map_err(Error::from))? else {
                return Ok(false);
            };
            let stride = match run.cmsgs()?.next() {
                Some(ControlMessageOwned::UdpGroSegments(stride)) => stride as usize,
                _ => run.bytes.max(1),
            };
            let length = run.bytes;
            self.open(length, stride)?;
        }
        Ok(true)
    }

    fn open(&mut self, length: usize, stride: usize) -> Result<()> {
        for start in (0..length).step_by(stride) {
            let (start, end) = (start + HEADER, length.min(start + stride) - TAG);
            let (header, sealed) = self.bytes[start - HEADER..end + TAG].split_at_mut(HEADER);
            let (body, tag) = sealed.split_at_mut(end - start);
            let counter = u64::from_le_bytes(header[8..].try_into().expect("8 bytes are left"));
            let (nonce, aad) = (self.sealer.nonce(counter), Aad::from(&*header));
            let opened = self
                .sealer
                .0
                .open_in_place_separate_tag(nonce, aad, tag, body);
            if opened.is_ok() {
                self.take(start..end)?;
            }
        }
        self.flush()
    }

    /// Joins a packet to those before it, or writes those and begins anew.
    fn take(&mut self, packet: Range<usize>) -> Result<()> {
        let bytes = &self.bytes[packet.clone()];
        let header = tcp_header(bytes);
        if self.is_open && header > 0 && self.is_continued_by(bytes, header) {
            let first = self.joined[0].clone();
            // What came at once is pushed at once, whichever of them said so.
            self.bytes[first.start + 33] |= self.bytes[packet.start + 33];
            self.is_open = packet.len() == first.len() && self.joined.len() < PARTS - 2;
            self.length += packet.len() - header;
            self.joined.push(packet.start + header..packet.end);
            return Ok(());
        }
        self.flush()?;
        self.length = packet.len();
        self.is_open = header > 0;
        self.joined.push(packet);
        Ok(())
    }

    /// Whether a packet carries the bytes after those that are joined, and its header says nothing else.
    fn is_continued_by(&self, next: &[u8], header: usize) -> bool {
        let first = &self.bytes[self.joined[0].clone()];
        let sequence = u32_at(first, 24).wrapping_add((self.length - header) as u32);
        // Service and ECN; fragments, time to live, protocol; addresses and ports; acknowledged, length; window; options.
        let same = [1..2, 6..10, 12..24, 28..33, 34..36, 40..header];
        u32_at(next, 24) == sequence
            && next.len() <= first.len()
            && self.length + next.len() - header <= usize::from(u16::MAX)
            && same
                .into_iter()
                .all(|range| first[range.clone()] == next[range])
    }

    fn flush(&mut self) -> Result<()> {
        let Some(first) = self.joined.first().cloned() else {
            return Ok(());
        };
        let mut vnet = [0; VNET];
        if self.joined.len() > 1 {
            // The checksum of the whole is left to the kernel, which takes it as right.
            let packet = &mut self.bytes[first];
            let header = tcp_header(packet);
            let pseudo = finish_ip(packet, 20, self.length);
            put_sum(packet, 36, fold(pseudo));
            let [low, high] = ((packet.len() - header) as u16).to_ne_bytes();
            let [header_low, header_high] = (header as u16).to_ne_bytes();
            let cut = [header_low, header_high, low, high];
            vnet[..2].copy_from_slice(&[NEEDS_CHECKSUM, GSO_TCP4]);
            vnet[2..6].copy_from_slice(&cut);
            vnet[6..].copy_from_slice(&[20, 0, 16, 0]);
        }
        let mut parts = [IoSlice::new(&vnet); PARTS];
        for (part, range) in parts[1..].iter_mut().zip(&self.joined) {
            *part = IoSlice::new(&self.bytes[range.clone()]);
        }
        self.tun.write_vectored(&parts[..=self.joined.len()])?;
        self.joined.clear();
        self.is_open = false;
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
