//! The TLS streams to other agents, as the data thread sees them: where to put a datagram that goes on one.
//!
//! Each has a bounded queue to the task that writes it. What does not fit is dropped, as a full socket buffer does.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::drops::DropReason;
use crate::ids::StreamIx;

/// The end of a stream's queue.
pub type StreamQueue = mpsc::Sender<Vec<u8>>;

/// All streams that stand.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<StreamIx, StreamQueue>);

impl Streams {
    /// A stream stands.
    pub(super) fn open(&mut self, stream: StreamIx, queue: StreamQueue) {
        self.0.insert(stream, queue);
    }

    /// A stream is over.
    pub(super) fn close(&mut self, stream: StreamIx) {
        self.0.remove(&stream);
    }

    /// Puts a datagram on a stream.
    pub(super) fn send(&self, stream: StreamIx, datagram: &[u8]) -> Result<(), DropReason> {
        let queue = self.0.get(&stream).ok_or(DropReason::NoSuchPath)?;
        let sent = queue.try_send(datagram.to_vec());
        sent.map_err(|_full_or_gone| DropReason::StreamFull)
    }
}
