//! Datagrams that came as one piece, and the packets in them: what is opened stays where it came, and the host gets it from
//! there.

use super::drops::DropReason;
use crate::wire::datagram::RELAY_HEAD;

/// The most datagrams of one message that are taken in at one time: what the kernel makes one of.
pub(super) const MOST: usize = 64;

/// What datagrams begin with that are for the same key, or of the same leg of a relay (protocol §1): type and index.
const HEAD: usize = 8;

/// The first bytes of datagrams that are dealt with together.
const TRANSPORT: u8 = 0x10;
const RELAYED: u8 = 0x20;

/// Neighbours of one length, but for the last.
#[derive(Debug)]
pub(super) struct Train<'a> {
    bytes: &'a mut [u8],
    /// Bytes of each, with those that are passed over.
    size: usize,
    /// Bytes before each that were dealt with: the heads of relays.
    passed: usize,
}

impl<'a> Train<'a> {
    /// Those of a message.
    pub(super) fn new(bytes: &'a mut [u8], size: usize) -> Self {
        let size = size.max(1);
        let passed = 0;
        Self {
            bytes,
            size,
            passed,
        }
    }

    /// A datagram alone.
    pub(super) fn of_one(bytes: &'a mut [u8]) -> Self {
        let size = bytes.len();
        Self::new(bytes, size)
    }

    /// The first.
    pub(super) fn first(&self) -> &[u8] {
        let end = self.bytes.len().min(self.size);
        self.bytes.get(self.passed..end).unwrap_or_default()
    }

    /// How many there are; an empty datagram is one too.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().div_ceil(self.size).max(1)
    }

    /// Takes off the first and those behind it that begin alike, and no more than `most`.
    pub(super) fn next_run(&mut self, most: usize) -> Self {
        let all = std::mem::take(&mut self.bytes);
        let alike = self.alike(all, most);
        let end = all.len().min(alike * self.size);
        let (bytes, rest) = all.split_at_mut(end);
        self.bytes = rest;
        Self { bytes, ..*self }
    }

    /// Whether all were taken off.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many from the first on begin alike: 1 where neighbours mean nothing.
    fn alike(&self, all: &[u8], most: usize) -> usize {
        let head = |datagram: &[u8]| datagram.get(self.passed..)?.first_chunk::<HEAD>().copied();
        let mut heads = all.chunks(self.size).map(head).take(most);
        match heads.next().flatten() {
            Some(first) if matches!(first[0], TRANSPORT | RELAYED) => {
                1 + heads.take_while(|other| *other == Some(first)).count()
            }
            Some(_) | None => 1,
        }
    }

    /// Each of them.
    pub(super) fn datagrams(self) -> impl Iterator<Item = &'a mut [u8]> {
        let Self {
            bytes,
            size,
            passed,
        } = self;
        bytes
            .chunks_mut(size)
            .map(move |datagram| datagram.get_mut(passed..).unwrap_or_default())
    }

    /// The same without the frames of a relay.
    pub(super) fn unframed(self) -> Self {
        Self {
            passed: self.passed + RELAY_HEAD,
            ..self
        }
    }
}

/// Packets for the host, in their order, where they came.
#[derive(Debug)]
pub(super) struct Arrived<'a> {
    packets: [&'a [u8]; MOST],
    used: usize,
}

impl Default for Arrived<'_> {
    fn default() -> Self {
        Self {
            packets: [&[]; MOST],
            used: 0,
        }
    }
}

impl<'a> Arrived<'a> {
    /// Adds one.
    ///
    /// # Errors
    /// There are [`MOST`].
    pub(super) fn push(&mut self, packet: &'a [u8]) -> Result<(), DropReason> {
        let place = self.packets.get_mut(self.used);
        *place.ok_or(DropReason::NoBuffer)? = packet;
        self.used += 1;
        Ok(())
    }

    /// All of them.
    pub(super) fn packets(&self) -> &[&'a [u8]] {
        self.packets.get(..self.used).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(bytes: &mut [u8], size: usize) -> Vec<Vec<Vec<u8>>> {
        let mut train = Train::new(bytes, size);
        let mut runs = Vec::new();
        loop {
            let run = train.next_run(4);
            let len = run.len();
            let all: Vec<_> = run.datagrams().map(|one| one.to_vec()).collect();
            assert_eq!(all.len().max(1), len);
            runs.push(all);
            if train.is_empty() {
                return runs;
            }
        }
    }

    #[test]
    fn neighbours_for_one_key_or_leg_are_one_run_and_others_stand_alone() {
        let datagram = |kind: u8, index: u8, body: u8| [kind, 0, 0, 0, index, 0, 0, 0, body, body];
        let all = [
            datagram(0x10, 1, 1),
            datagram(0x10, 1, 2),
            datagram(0x10, 2, 3),
            datagram(0x20, 2, 4),
            datagram(0x20, 2, 5),
            datagram(0x04, 2, 6),
            datagram(0x04, 2, 7),
        ];
        let mut bytes = all.concat();
        bytes.pop();
        let lengths: Vec<_> = runs(&mut bytes, 10).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 2, 1, 1]);
    }

    #[test]
    fn what_is_empty_or_shorter_than_a_head_is_a_datagram_too() {
        assert_eq!(runs(&mut [], 1), [Vec::<Vec<u8>>::new()]);
        assert_eq!(runs(&mut [0x10; 12], 5).len(), 3);
        assert_eq!(runs(&mut [0x10; 100], 10).len(), 3, "four at a time");
        let mut bytes = [0x20; 6];
        let mut inner = Train::of_one(&mut bytes).unframed();
        assert!(inner.first().is_empty());
        assert_eq!(inner.next_run(MOST).len(), 1);
    }

    #[test]
    fn what_relays_wrote_is_passed_over() {
        let mut bytes = [[0x20, 0, 0, 0, 9, 0, 0, 0, 0x10, 7]; 3].concat();
        let inner = Train::new(&mut bytes, 10).unframed();
        assert_eq!(inner.first(), [0x10, 7]);
        assert!(inner.datagrams().all(|one| *one == [0x10, 7]));
    }

    #[test]
    fn no_more_packets_arrive_than_there_is_room_for() {
        let mut arrived = Arrived::default();
        let taken = (0..100).filter(|_| arrived.push(b"x").is_ok()).count();
        assert_eq!((taken, arrived.packets().len()), (MOST, MOST));
    }
}
