//! Buffers for what goes out: filled in place by sealing and opening, sent many at a time, never freed.

use crate::wire::datagram::RELAY_HEAD;

/// Bytes of one buffer: a datagram as long as the socket takes in, so that opening one always has room.
pub(super) const CAPACITY: usize = crate::platform::udp::DATAGRAM_MAX;

/// How many buffers there may be. A turn needs 64; a burst of timers or queues needs more, and beyond this it drops.
const BUFFERS_MAX: usize = 1024;

/// Room before the bytes of a buffer: the frames of two relays (protocol §1), written without moving what is behind.
const HEADROOM: usize = crate::relay::DEPTH_MAX * RELAY_HEAD;

/// Datagrams or packets on their way out, each with where it goes.
#[derive(Debug)]
pub(super) struct Batch<T> {
    slots: Vec<Slot<T>>,
    used: usize,
}

#[derive(Debug)]
struct Slot<T> {
    bytes: Box<[u8; HEADROOM + CAPACITY]>,
    start: usize,
    end: usize,
    to: Option<T>,
}

impl<T: Copy> Batch<T> {
    /// Makes one with this many buffers; more are made when they are needed.
    pub(super) fn new(buffers: usize) -> Self {
        let mut batch = Self {
            slots: Vec::with_capacity(buffers),
            used: 0,
        };
        for _ in 0..buffers {
            batch.grow();
        }
        batch
    }

    /// The next free buffer, whole. What is in it counts for nothing until [`Batch::commit`].
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.used == self.slots.len() && self.used < BUFFERS_MAX {
            self.grow();
        }
        let slot = self.slots.get_mut(self.used)?;
        Some(&mut slot.bytes[HEADROOM..])
    }

    /// Adds the first `len` bytes of the next free buffer to the batch.
    pub(super) fn commit(&mut self, len: usize, to: T) {
        self.commit_framed(len, &[], to);
    }

    /// The same with these frames before them, the innermost first; at most as many as there is room for.
    pub(super) fn commit_framed(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]], to: T) {
        if let Some(slot) = self.slots.get_mut(self.used) {
            slot.frame(len, heads);
            slot.to = Some(to);
            self.used += 1;
        }
    }

    /// The first `len` bytes of the next free buffer behind these frames, to be sent otherwise. The buffer stays free.
    pub(super) fn framed(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]]) -> Option<&[u8]> {
        let slot = self.slots.get_mut(self.used)?;
        slot.frame(len, heads);
        Some(&slot.bytes[slot.start..slot.end])
    }

    /// Copies bytes into the batch; false when there is no buffer.
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
        (0..self.used).filter_map(|number| self.get(number))
    }

    /// What was added as the one with this number.
    pub(super) fn get(&self, number: usize) -> Option<(T, &[u8])> {
        let slot = self.slots[..self.used].get(number)?;
        Some((slot.to?, &slot.bytes[slot.start..slot.end]))
    }

    /// How many were added.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes back what was added last.
    pub(super) fn pop(&mut self) -> Option<(T, &[u8])> {
        self.used = self.used.checked_sub(1)?;
        let slot = self.slots.get(self.used)?;
        Some((slot.to?, &slot.bytes[slot.start..slot.end]))
    }

    /// Forgets what was added; the buffers stay.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Forgets the first of what was added; the others keep their order.
    pub(super) fn forget_first(&mut self, many: usize) {
        let many = many.min(self.used);
        self.slots[..self.used].rotate_left(many);
        self.used -= many;
    }

    fn grow(&mut self) {
        self.slots.push(Slot {
            bytes: Box::new([0; HEADROOM + CAPACITY]),
            start: HEADROOM,
            end: HEADROOM,
            to: None,
        });
    }
}

impl<T> Slot<T> {
    fn frame(&mut self, len: usize, heads: &[[u8; RELAY_HEAD]]) {
        self.start = HEADROOM;
        for head in heads.iter().take(crate::relay::DEPTH_MAX) {
            self.start -= RELAY_HEAD;
            self.bytes[self.start..self.start + RELAY_HEAD].copy_from_slice(head);
        }
        self.end = HEADROOM + len.min(CAPACITY);
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
    fn a_flood_ends_at_the_bound() {
        let mut batch = Batch::new(1);
        let taken = (0..5000).filter(|_| batch.push(b"x", ())).count();
        assert_eq!(taken, BUFFERS_MAX);
    }
}
