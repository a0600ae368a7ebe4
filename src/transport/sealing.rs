//! One direction out: packets become datagrams under one key.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    cipher::{BLOCK, Cipher},
    limits::{BYTES_MAX, COUNTERS, REKEY_AFTER, REKEY_BYTES, REKEY_PACKETS, STOP_AFTER},
    nonce::Iv,
    schedule::Direction,
    suite::Suite,
};
use crate::time::Moment;

/// Bytes that stand before the ciphertext: type, receiver index, counter.
pub const HEADER_LEN: usize = 16;
/// Bytes that stand after it.
pub const TAG_LEN: usize = 16;
/// What sealing adds to a padded packet.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The key of one direction, and the one counter that belongs to it. It cannot be cloned, written down or made again,
/// so no counter is used twice; threads may share it.
#[derive(Debug)]
pub struct Sealing {
    suite: Suite,
    key: Cipher,
    iv: Iv,
    /// The receiver's index.
    index: u32,
    since: Moment,
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// A key that may seal no more (protocol §6). What was to be sealed goes by WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// 180 s.
    #[error("the key is too old")]
    Age,
    /// 2³² packets.
    #[error("the key has sealed all its packets")]
    Packets,
    /// 2³⁷ bytes.
    #[error("the key has sealed all its bytes")]
    Bytes,
}

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// More packets than were asked for.
    #[error("more packets than counters")]
    Spent,
    /// The datagram does not fit where it was to go.
    #[error("no room for the datagram")]
    Room,
}

/// How long a packet is once padded: to 16, so that its length tells little, and never above the limit of the path.
pub fn padded(len: usize, limit: usize) -> usize {
    len.next_multiple_of(BLOCK).min(limit.max(len))
}

impl Sealing {
    pub(super) fn new(since: Moment, suite: Suite, direction: &Direction, index: u32) -> Self {
        Self {
            suite,
            key: Cipher::new(suite, &direction.key),
            iv: Iv::new(direction.iv),
            index,
            since,
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// By what it seals.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Takes counters for so many packets, which have so many bytes together, padding included: once for all segments of
    /// a super-packet.
    ///
    /// # Errors
    /// The key has reached one of its ends; it stays there.
    pub fn run(&self, now: Moment, packets: u32, bytes: usize) -> Result<Run<'_>, Stopped> {
        if now.since(self.since) >= STOP_AFTER {
            return Err(Stopped::Age);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        take(&self.bytes, bytes, BYTES_MAX).ok_or(Stopped::Bytes)?;
        let next = take(&self.packets, u64::from(packets), COUNTERS).ok_or(Stopped::Packets)?;
        Ok(Run {
            sealing: self,
            next,
            end: next + u64::from(packets),
        })
    }

    /// Whether another exchange is due.
    pub fn is_worn(&self, now: Moment) -> bool {
        now.since(self.since) >= REKEY_AFTER
            || self.packets.load(Ordering::Relaxed) >= REKEY_PACKETS
            || self.bytes.load(Ordering::Relaxed) >= REKEY_BYTES
    }

    #[cfg(test)]
    pub(super) fn spend(&self, packets: u64, bytes: u64) {
        self.packets.store(packets, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Counters that were taken and not used yet. Those that are left over are never used.
#[derive(Debug)]
pub struct Run<'a> {
    sealing: &'a Sealing,
    next: u64,
    end: u64,
}

impl Run<'_> {
    /// Seals the next packet, zero-padded to `padded` bytes, from one buffer into another, and says how long the
    /// datagram is. `packet` stays as it is.
    ///
    /// # Errors
    /// Nothing was written, and no counter is used.
    ///
    /// # Panics
    /// `padded` is less than the packet's length, or 16 more than it.
    pub fn seal(
        &mut self,
        packet: &[u8],
        padded: usize,
        out: &mut [u8],
    ) -> Result<usize, NotSealed> {
        if self.next == self.end {
            return Err(NotSealed::Spent);
        }
        let len = OVERHEAD + padded;
        let out = out.get_mut(..len).ok_or(NotSealed::Room)?;
        let (header, body) = out.split_at_mut(HEADER_LEN);
        let counter = self.next;
        self.next += 1;
        let head = head(self.sealing.index, counter);
        header.copy_from_slice(&head);
        let nonce = self.sealing.iv.nonce(counter);
        self.sealing.key.seal(nonce, head, packet, body);
        Ok(len)
    }
}

/// Adds to what was taken, unless that passes the maximum; what was taken before.
fn take(taken: &AtomicU64, more: u64, max: u64) -> Option<u64> {
    // Looked at first, so that the sum stays far from overflowing however often a spent key is asked.
    if taken.load(Ordering::Relaxed).saturating_add(more) > max {
        return None;
    }
    let before = taken.fetch_add(more, Ordering::Relaxed);
    (before + more <= max).then_some(before)
}

fn head(index: u32, counter: u64) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head[0] = 0x10;
    head[4..8].copy_from_slice(&index.to_le_bytes());
    head[8..].copy_from_slice(&counter.to_le_bytes());
    head
}
