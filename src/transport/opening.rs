//! One direction in: datagrams become packets, each once.

use super::{
    cipher::Cipher,
    limits::{BYTES_MAX, COUNTERS, FAILED_MAX, STOP_AFTER},
    nonce::Iv,
    schedule::Direction,
    sealing::{HEADER_LEN, TAG_LEN},
    suite::Suite,
    window::{NotNew, Window},
};
use crate::time::Moment;

/// The key of one direction, and what has come under it.
#[derive(Debug)]
pub struct Opening {
    key: Cipher,
    iv: Iv,
    index: u32,
    first: Option<Moment>,
    window: Window,
    bytes: u64,
    failed: u64,
}

/// What a datagram held, and where it stands among those of its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Its place.
    pub order: Order,
    /// What it held.
    pub content: Content<'a>,
}

/// Where a packet stands among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first that opened: tell [`super::Exchange::handle_opened`] of it.
    First,
    /// The newest yet.
    Newest,
    /// A newer one came before it.
    Older,
}

/// What a peer may seal (protocol §6).
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An IPv4 or IPv6 packet with zeros behind it. Whether its source is the peer's is not looked at here.
    Packet(&'a mut [u8]),
    /// A control frame.
    Frame(&'a mut [u8]),
    /// Nothing.
    Keepalive,
    /// Neither; drop it.
    Other,
}

/// Why a datagram was not opened. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It is shorter than an empty one.
    #[error("cut short")]
    CutShort,
    /// Its counter is 2³² or more.
    #[error("counter beyond the limit")]
    Counter,
    /// Its counter is not new.
    #[error(transparent)]
    Replay(#[from] NotNew),
    /// It was not sealed by this key.
    #[error("wrong tag")]
    Tag,
    /// The key is 180 s old, or has opened 2³⁷ bytes, or refused 2³⁶ datagrams.
    #[error("the key has come to its end")]
    Stopped,
}

impl Opening {
    pub(super) fn new(suite: Suite, direction: &Direction, index: u32) -> Self {
        Self {
            key: Cipher::new(suite, &direction.key),
            iv: Iv::new(direction.iv),
            index,
            first: None,
            window: Window::new(),
            bytes: 0,
            failed: 0,
        }
    }

    /// Under which index of ours its datagrams come.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Opens a whole datagram of type 10 whose receiver index is this one's, where it stands.
    ///
    /// # Errors
    /// It is not to be believed. Where the tag is wrong, which counts against the key, what stands there means nothing then.
    /// Nothing else has changed.
    pub fn open<'a>(
        &mut self,
        now: Moment,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, NotOpened> {
        let (head, sealed) = datagram
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(NotOpened::CutShort)?;
        let len = sealed.len().checked_sub(TAG_LEN);
        let len = len.ok_or(NotOpened::CutShort)?;
        let [_, counter] = head.as_chunks::<8>().0 else {
            return Err(NotOpened::CutShort);
        };
        let counter = u64::from_le_bytes(*counter);
        if counter >= COUNTERS {
            return Err(NotOpened::Counter);
        }
        self.window.is_new(counter)?;
        self.may_open(now, len)?;
        let nonce = self.iv.nonce(counter);
        let Ok(plain) = self.key.open(nonce, *head, sealed) else {
            self.failed += 1;
            return Err(NotOpened::Tag);
        };
        self.bytes += u64::try_from(plain.len()).unwrap_or(u64::MAX);
        let is_newest = self.window.mark(counter);
        let order = match (self.first, is_newest) {
            (None, _) => Order::First,
            (Some(_), true) => Order::Newest,
            (Some(_), false) => Order::Older,
        };
        self.first.get_or_insert(now);
        Ok(Opened {
            order,
            content: content(plain),
        })
    }

    fn may_open(&self, now: Moment, len: usize) -> Result<(), NotOpened> {
        let is_old = self
            .first
            .is_some_and(|first| now.since(first) >= STOP_AFTER);
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        let is_full = self.bytes.saturating_add(bytes) > BYTES_MAX;
        if is_old || is_full || self.failed >= FAILED_MAX {
            return Err(NotOpened::Stopped);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn spend(&mut self, bytes: u64, failed: u64) {
        (self.bytes, self.failed) = (bytes, failed);
    }
}

fn content(plain: &mut [u8]) -> Content<'_> {
    match plain.first().map(|byte| (byte >> 4, *byte)) {
        None => Content::Keepalive,
        Some((4 | 6, _)) => Content::Packet(plain),
        Some((_, 0)) => Content::Frame(plain),
        Some(_) => Content::Other,
    }
}
