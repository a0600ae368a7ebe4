//! What a shard wants done: datagrams by whatever path, packets for the TUN, events for the control plane.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
};

use super::{batch::Batch, command::Event, drops::DropReason, long::SHORT, streams::Streams};
use crate::{
    addr::{Path, Underlay},
    packet::ecn::Ecn,
    relay::{DEPTH_MAX, legs::Legs},
    wire::datagram::RELAY_HEAD,
};

/// How many buffers of each kind stand ready.
const BUFFERS: usize = 128;

/// Relayed datagrams that may not fit the least link of IPv6, up to those that carry its longest packet: behind two relays'
/// heads a WireGuard message of 1280 bytes.
const OWED: RangeInclusive<usize> = SHORT - 48 + 1..=DEPTH_MAX * RELAY_HEAD + 32 + SHORT;

/// The first byte of a relayed datagram (protocol §1).
const RELAYED: u8 = 0x20;

/// Where a datagram goes, and how it is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) to: Underlay,
    pub(super) ecn: Ecn,
}

/// What a shard wants done, in three kinds; each kind in its order.
#[derive(Debug)]
pub(super) struct Outbox {
    /// To be sent from the main sockets.
    pub(super) datagrams: Batch<Target>,
    /// To be written into the TUN.
    pub(super) packets: Batch<()>,
    /// To be told to the control plane.
    pub(super) events: VecDeque<Event>,
    /// Where routers may cut what is sent, since it is known to be too long for the way.
    pub(super) in_fragments: BTreeSet<Underlay>,
    /// Where a socket leads that is kept for that address alone (`openings`).
    pub(super) kept: BTreeSet<Underlay>,
    /// The streams that stand.
    pub(super) streams: Streams,
    /// The ways through relays.
    pub(super) legs: Legs,
    /// What is carried for others while the own uplink takes no more: it has no place before what programs of this host send.
    pub(super) carried: Vec<(Target, Vec<u8>)>,
    /// Whether the own uplink takes no more.
    pub(super) is_full: bool,
}

impl Outbox {
    /// Nothing to do yet.
    pub(super) fn new() -> Self {
        Self {
            datagrams: Batch::new(BUFFERS),
            packets: Batch::new(BUFFERS),
            events: VecDeque::with_capacity(BUFFERS),
            in_fragments: BTreeSet::new(),
            kept: BTreeSet::new(),
            streams: Streams::default(),
            legs: Legs::default(),
            carried: Vec::new(),
            is_full: false,
        }
    }

    /// Whether routers may cut a datagram: it is known to be too long for the way, or a relay carries it and it is no longer
    /// than what every path owes to IPv6: none of the two ends can say how wide the relay's way to the other is.
    pub(super) fn may_be_cut(&self, to: Underlay, datagram: &[u8]) -> bool {
        let is_relayed = datagram.first() == Some(&RELAYED);
        (is_relayed && OWED.contains(&datagram.len())) || self.in_fragments.contains(&to)
    }

    /// Where the next datagram is written, before [`Outbox::commit`].
    ///
    /// # Errors
    /// When there is no buffer.
    pub(super) fn room(&mut self) -> Result<&mut [u8], DropReason> {
        self.datagrams.room().ok_or(DropReason::NoBuffer)
    }

    /// Sends the first `len` bytes of the room, framed for each relay that lies before.
    ///
    /// # Errors
    /// When there is no such path any more.
    pub(super) fn commit(&mut self, len: usize, to: Path) -> Result<(), DropReason> {
        self.commit_marked(len, to, Ecn::Deaf)
    }

    /// The same, and what is inside listens for congestion like this.
    ///
    /// # Errors
    /// When there is no such path any more.
    pub(super) fn commit_marked(
        &mut self,
        len: usize,
        to: Path,
        ecn: Ecn,
    ) -> Result<(), DropReason> {
        let framing = self.legs.framing(to).ok_or(DropReason::NoSuchPath)?;
        match framing.to {
            Path::Direct(address) => {
                let heads = framing.heads();
                let target = Target { to: address, ecn };
                self.datagrams.commit_framed(len, heads, target);
            }
            Path::Handed(hand) if framing.depth == 0 => {
                let bytes = self.room()?.get(..len).ok_or(DropReason::NoBuffer)?;
                let bytes = bytes.to_vec();
                self.events.push_back(Event::Handed { hand, bytes });
            }
            Path::Stream(stream) => {
                let heads = framing.heads();
                let framed = self
                    .datagrams
                    .framed(len, heads)
                    .ok_or(DropReason::NoBuffer)?;
                self.streams.send(stream, framed)?;
            }
            Path::Relay(_) | Path::Handed(_) => return Err(DropReason::NoSuchPath),
        }
        Ok(())
    }

    /// The same with what is carried for others.
    ///
    /// # Errors
    /// When there is no such path any more.
    pub(super) fn commit_carried(
        &mut self,
        len: usize,
        to: Path,
        ecn: Ecn,
    ) -> Result<(), DropReason> {
        let before = self.datagrams.len();
        self.commit_marked(len, to, ecn)?;
        // What goes by a stream is none of the datagrams.
        if self.is_full
            && self.datagrams.len() > before
            && let Some((target, bytes)) = self.datagrams.pop()
        {
            self.carried.push((target, bytes.to_vec()));
        }
        Ok(())
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When there is no buffer or no such path.
    pub(super) fn send(&mut self, bytes: &[u8], to: Path) -> Result<(), DropReason> {
        let room = self.room()?.get_mut(..bytes.len());
        room.ok_or(DropReason::NoBuffer)?.copy_from_slice(bytes);
        self.commit(bytes.len(), to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_may_cut_what_relays_owe_to_ipv6_and_what_is_known_to_be_too_long() {
        let to = |last| Underlay::new(([192, 0, 2, last], 7).into());
        let mut out = Outbox::new();
        out.in_fragments.insert(to(1));
        let datagram = |first: u8, len| {
            let mut bytes = vec![0; len];
            bytes[0] = first;
            bytes
        };
        assert!(out.may_be_cut(to(1), &datagram(4, 1312)));
        assert!(!out.may_be_cut(to(2), &datagram(4, 1312)));
        let relayed = |len| out.may_be_cut(to(2), &datagram(0x20, len));
        assert!(relayed(1280 + 32 + 8) && relayed(1280 + 32 + 16));
        assert!(!relayed(1232), "it fits everywhere");
        assert!(!relayed(1296 + 32 + 8), "that is how it is found what fits");
    }
}
