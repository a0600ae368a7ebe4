//! The heads of long packets, the newest of each conversation. A program that sends one again may have lost it where short
//! ones pass. When the path turns out to be too narrow, the senders are told, and send shorter ones at once instead of
//! waiting for a timer of theirs.

use std::time::Duration;

use crate::{
    packet::ip::{Header, Ports, TCP},
    time::Moment,
};

/// Packets up to this length fit every path.
pub(super) const SHORT: usize = 1280;

/// How much of a packet its sender must see again: the longest headers that are usual, and the start of what follows.
const HEAD: usize = 128;

/// How many conversations are remembered.
const HEADS: usize = 8;

/// How often it is said that long packets go out again.
const AGAIN: Duration = Duration::from_secs(1);

/// Heads of long packets.
#[derive(Debug, Default)]
pub(super) struct Long {
    heads: Vec<Head>,
    /// Whose place the next new conversation takes.
    oldest: usize,
    /// When it was said last that one goes out again.
    told: Option<Moment>,
}

/// The start of a packet.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: Header,
    ports: Option<Ports>,
    /// The furthest that the conversation's long segments have come.
    sequence: Option<u32>,
    bytes: [u8; HEAD],
    len: usize,
}

impl Head {
    fn new(header: Header, packet: &[u8]) -> Self {
        let len = packet.len().min(HEAD);
        let mut bytes = [0; HEAD];
        bytes[..len].copy_from_slice(&packet[..len]);
        Self {
            header,
            ports: header.ports(packet),
            sequence: sequence(&header, packet),
            bytes,
            len,
        }
    }

    /// What there is of it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn is_of(&self, other: &Self) -> bool {
        let ends = |head: &Self| {
            let header = &head.header;
            (
                header.source,
                header.destination,
                header.protocol,
                head.ports,
            )
        };
        ends(self) == ends(other)
    }

    /// Takes the place of an earlier packet of the same conversation: whether that had come as far.
    fn follow(&mut self, earlier: &Self) -> bool {
        let (Some(own), Some(before)) = (self.sequence, earlier.sequence) else {
            return false;
        };
        // Sequence numbers wrap: what is less than half of them behind is behind.
        let is_ahead = own.wrapping_sub(before).wrapping_sub(1) < u32::MAX / 2;
        if !is_ahead {
            self.sequence = Some(before);
        }
        !is_ahead
    }
}

impl Long {
    /// A long packet goes out. Whether to say that such packets go out again.
    pub(super) fn note(&mut self, now: Moment, packet: &[u8]) -> bool {
        let Ok(header) = Header::parse(packet) else {
            return false;
        };
        let is_again = self.remember(Head::new(header, packet));
        let is_time = self.told.is_none_or(|told| now.since(told) >= AGAIN);
        if is_again && is_time {
            self.told = Some(now);
        }
        is_again && is_time
    }

    /// Whether its conversation had come as far before.
    fn remember(&mut self, mut head: Head) -> bool {
        if let Some(known) = self.heads.iter_mut().find(|known| known.is_of(&head)) {
            let is_again = head.follow(known);
            *known = head;
            return is_again;
        }
        if self.heads.len() < HEADS {
            self.heads.push(head);
        } else {
            self.heads[self.oldest] = head;
            self.oldest = (self.oldest + 1) % HEADS;
        }
        false
    }

    /// Takes out those that are longer than `room`.
    pub(super) fn take_longer(&mut self, room: usize) -> Vec<Head> {
        self.oldest = 0;
        let all = std::mem::take(&mut self.heads);
        all.into_iter()
            .filter(|head| head.header.len > room)
            .collect()
    }
}

/// Where a TCP segment stands in its stream.
fn sequence(header: &Header, packet: &[u8]) -> Option<u32> {
    let payload = (header.protocol == TCP).then(|| header.payload(packet))?;
    let bytes = payload.get(4..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of 1,300 bytes from this port.
    fn segment(port: u16, sequence: u32) -> Vec<u8> {
        let mut packet = vec![0; 1300];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&1300_u16.to_be_bytes());
        packet[9] = TCP;
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn a_segment_that_goes_out_again_is_told_once_a_second() {
        let mut long = Long::default();
        for (second, sequence) in [(1, 100), (1, 1360), (1, 2620)] {
            assert!(!long.note(at(second), &segment(7, sequence)));
        }
        assert!(long.note(at(1), &segment(7, 1360)), "the second again");
        assert!(!long.note(at(1), &segment(7, 2620)), "it was said");
        assert!(!long.note(at(2), &segment(7, 3880)), "new");
        assert!(long.note(at(2), &segment(7, 3880)));
    }

    #[test]
    fn conversations_are_told_apart_and_numbers_wrap() {
        let mut long = Long::default();
        assert!(!long.note(at(1), &segment(7, u32::MAX - 5)));
        assert!(!long.note(at(1), &segment(8, u32::MAX - 5)));
        assert!(!long.note(at(1), &segment(7, 1254)));
        assert!(long.note(at(1), &segment(8, u32::MAX - 5)));
    }

    #[test]
    fn the_newest_of_each_conversation_is_told_what_fits_and_the_number_of_them_is_bounded() {
        let mut long = Long::default();
        for port in 0..20 {
            long.note(at(1), &segment(port, 1));
            long.note(at(1), &segment(port, 2));
        }
        assert!(long.take_longer(1300).is_empty());
        for port in 0..20 {
            long.note(at(1), &segment(port, 1));
        }
        assert_eq!(long.take_longer(1280).len(), HEADS);
    }
}
