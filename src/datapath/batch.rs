//! What goes out: written in place by whoever seals or makes it, sent many at a time, in a buffer that is never freed.

use crate::wire::datagram::RELAY_HEAD;

/// Bytes of room for one: a datagram as long as the socket takes in, so that one that is carried on, or that WireGuard opens, has
/// room.
pub(super) const CAPACITY: usize = crate::platform::udp::DATAGRAM_MAX;

/// How many there may be. A turn needs 64; a burst of timers or queues needs more, and beyond this it drops.
const BUFFERS_MAX: usize = 1024;

/// Bytes that were sent and stand before what is left, until that is moved: where some are left each time, few are.
const GAP_MAX: usize = 256 << 10;

/// Room beside that: the frames of two relays (protocol §1).
const HEADROOM: usize = crate::relay::DEPTH_MAX * RELAY_HEAD;

/// Datagrams or packets on their way out, each with where it goes. They lie one behind the other without a gap: the kernel
/// takes those of one train as one piece.
#[derive(Debug)]
pub(super) struct Batch<T> {
    bytes: Vec<u8>,
    slots: Vec<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    start: usize,
    end: usize,
    to: T,
}

impl<T: Copy> Batch<T> {
    /// Makes one with room for this many; more is made when it is needed.
    pub(super) fn new(buffers: usize) -> Self {
        Self {
            bytes: vec![0; buffers * (HEADROOM + CAPACITY)],
            slots: Vec::with_capacity(buffers),
        }
    }

    /// Where the next one goes, whole. What is in it counts for nothing until [`Batch::commit`].
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        let start = self.end();
        if self.slots.len() == BUFFERS_MAX {
            return None;
        }
        // Relays' frames move what is there behind them.
        let needed = start + HEADROOM + CAPACITY;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        self.bytes.get_mut(start..start + CAPACITY)
    }

    /// Adds the first `len` bytes of the room to the batch.
    pub(super) fn commit(&mut self, len: usize, to: T) {
        self.commit_framed(len, &[], to);
    }

    /// The same with these frames before them, the innermost first; at most as many as there is room for.
    pub(super) fn commit_framed(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]], to: T) {
        let start = self.end();
        if let Some(end) = self.frame(len, heads) {
            self.slots.push(Slot { start, end, to });
        }
    }

    /// The first `len` bytes of the room behind these frames, to be sent otherwise. The room stays free.
    pub(super) fn framed(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]]) -> Option<&[u8]> {
        let start = self.end();
        let end = self.frame(len, heads)?;
        self.bytes.get(start..end)
    }

    /// Copies bytes into the batch; false when there is no room.
    #[must_use]
    pub(super) fn push(&mut self, bytes: &[u8], to: T) -> bool {
        let Some(target) = self.room().and_then(|room| room.get_mut(..bytes.len())) else {
            return false;
        };
        target.copy_from_slice(bytes);
        self.commit(bytes.len(), to);
        true
    }

    /// All that was added, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (T, &[u8])> {
        self.from(0)
    }

    /// What was added from this number on, in order.
    pub(super) fn from(&self, number: usize) -> impl Iterator<Item = (T, &[u8])> {
        (number..self.len()).filter_map(|number| self.get(number))
    }

    /// What was added as the one with this number.
    pub(super) fn get(&self, number: usize) -> Option<(T, &[u8])> {
        let slot = self.slots.get(number)?;
        Some((slot.to, self.bytes.get(slot.start..slot.end)?))
    }

    /// How many were added.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes back what was added last.
    pub(super) fn pop(&mut self) -> Option<(T, &[u8])> {
        let slot = self.slots.pop()?;
        Some((slot.to, self.bytes.get(slot.start..slot.end)?))
    }

    /// Forgets what was added; the room stays.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Forgets the first of what was added; the others keep their order.
    pub(super) fn forget_first(&mut self, many: usize) {
        self.slots.drain(..many.min(self.slots.len()));
        let Some(first) = self.slots.first() else {
            return;
        };
        let (gap, end) = (first.start, self.end());
        if gap < GAP_MAX {
            return;
        }
        self.bytes.copy_within(gap..end, 0);
        for slot in &mut self.slots {
            slot.start -= gap;
            slot.end -= gap;
        }
    }

    /// Where what was added ends.
    fn end(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.end)
    }

    /// Puts frames before the first `len` bytes of the room; tells where those end then.
    fn frame(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]]) -> Option<usize> {
        let start = self.end();
        let heads = heads.get(..heads.len().min(crate::relay::DEPTH_MAX))?;
        let body = start + size_of_val(heads);
        let end = body + len.min(CAPACITY);
        let room = self.bytes.get_mut(start..end)?;
        if body > start {
            room.copy_within(..end - body, body - start);
            for (place, head) in room.chunks_exact_mut(RELAY_HEAD).zip(heads.iter().rev()) {
                place.copy_from_slice(head);
            }
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_committed_is_not_sent() {
        let mut batch = Batch::new(1);
        batch.room().unwrap()[0] = 9;
        assert!(batch.push(b"one", 1));
        assert!(batch.push(b"two", 2));
        let seen: Vec<_> = batch.iter().collect();
        assert_eq!(seen, [(1, &b"one"[..]), (2, &b"two"[..])]);
    }

    #[test]
    fn what_was_sent_is_forgotten_and_the_rest_keeps_its_order() {
        let mut batch = Batch::new(1);
        for number in 0..4 {
            assert!(batch.push(&[number], ()));
        }
        batch.forget_first(3);
        assert!(batch.push(&[4], ()));
        assert_eq!(
            batch.iter().map(|(_, bytes)| bytes[0]).collect::<Vec<_>>(),
            [3, 4]
        );
        assert_eq!(batch.pop(), Some(((), &[4][..])));
        batch.forget_first(9);
        assert!(batch.is_empty() && batch.pop().is_none());
    }

    #[test]
    fn what_is_left_is_moved_to_the_start_once_much_stands_before_it() {
        let mut batch = Batch::new(1);
        let long = [7; 1400];
        for round in 0..400_u64 {
            assert!(batch.push(&long, round));
            assert!(batch.push(&round.to_le_bytes(), round));
            batch.forget_first(if round == 0 { 1 } else { 2 });
            let left: Vec<_> = batch.iter().collect();
            assert_eq!(left, [(round, &round.to_le_bytes()[..])]);
        }
        let grown = GAP_MAX + 2 * (long.len() + HEADROOM + CAPACITY);
        assert!(batch.bytes.len() < grown, "{}", batch.bytes.len());
    }

    #[test]
    fn frames_stand_before_what_was_written_the_outermost_first() {
        let heads = [[1; RELAY_HEAD], [2; RELAY_HEAD]];
        let expected = [&[2; RELAY_HEAD][..], &[1; RELAY_HEAD], b"body"].concat();
        let mut batch = Batch::new(1);
        assert!(batch.push(b"before", ()));
        batch.room().unwrap()[..4].copy_from_slice(b"body");
        assert_eq!(batch.framed(4, &heads).unwrap(), expected);
        batch.room().unwrap()[..4].copy_from_slice(b"body");
        batch.commit_framed(4, &heads, ());
        assert!(batch.push(b"behind", ()));
        let seen: Vec<_> = batch.iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(seen, [&b"before"[..], &expected, b"behind"]);
    }

    #[test]
    fn a_flood_ends_at_the_bound() {
        let mut batch = Batch::new(1);
        let taken = (0..5000).filter(|_| batch.push(b"x", ())).count();
        assert_eq!(taken, BUFFERS_MAX);
    }
}
