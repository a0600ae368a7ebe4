//! Packets that are too long for the path of their session: their senders are told, by ICMP, or at once by the size that a
//! SYN names.

use crate::{
    addr::{Path, Underlay},
    ids::SessionId,
    packet::{
        icmp::{self, Unreachable},
        ip::{Header, TCP},
        tcp,
    },
    time::Moment,
};

use super::{
    command::Event,
    drops::DropReason,
    long::{Head, SHORT},
    shard::Shard,
};

/// Paths that need it at once; they are rare.
const IN_FRAGMENTS_MAX: usize = 256;

impl Shard {
    /// What fits the path of a session is known. Who has sent longer packets that were not answered is told.
    pub(super) fn set_room(
        &mut self,
        (session, endpoint): (SessionId, Path),
        (inner, in_fragments): (u16, bool),
    ) {
        let Some(place) = self.sessions.place(session) else {
            return;
        };
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        state.room = usize::from(inner);
        let longer = state.long.take_longer(state.room);
        if let Some(address) = endpoint.direct() {
            self.set_in_fragments(address, in_fragments);
        }
        self.publish(place);
        for head in longer {
            self.answer_head(&head, inner);
        }
    }

    fn set_in_fragments(&mut self, address: Underlay, in_fragments: bool) {
        let all = &mut self.out.in_fragments;
        if in_fragments && all.len() < IN_FRAGMENTS_MAX {
            all.insert(address);
        } else {
            all.remove(&address);
        }
    }

    pub(super) fn answer_head(&mut self, head: &Head, inner: u16) {
        let source = self.view.resolver(head.header.source);
        let quoted = (&head.header, head.bytes());
        if icmp::build(
            &mut self.scratch,
            source,
            quoted,
            Unreachable::TooBig(inner),
        ) {
            self.write_scratch();
        }
    }

    /// How long packets may be that fit the path of a session, as far as is known.
    pub(super) fn room_of(&mut self, place: usize) -> usize {
        self.sessions
            .at(place)
            .map_or(usize::MAX, |state| state.room)
    }

    /// Tells the sender of a packet what would fit.
    pub(super) fn answer_too_long(&mut self, place: usize, packet: &[u8]) {
        self.drops.count(DropReason::OutTooLong);
        let room = u16::try_from(self.room_of(place)).unwrap_or(u16::MAX);
        self.answer_unreachable(packet, Unreachable::TooBig(room));
    }

    /// A long packet goes out: says so where it goes out again.
    pub(super) fn note_long(&mut self, now: Moment, place: usize, packet: &[u8]) {
        if packet.len() <= SHORT {
            return;
        }
        let Some(state) = self.sessions.at(place) else {
            return;
        };
        if state.long.note(now, packet) {
            let session = state.id;
            self.out.events.push_back(Event::Resent { session });
        }
    }

    /// A SYN on its way out asks for segments that fit.
    pub(super) fn clamp(&mut self, place: usize, packet: &mut [u8]) {
        let room = self.room_of(place);
        self.clamp_to(room, packet);
    }

    /// The same for what fits in `room`.
    pub(super) fn clamp_to(&self, room: usize, packet: &mut [u8]) {
        if room >= self.mtu {
            return;
        }
        if let Ok(header) = Header::parse(packet)
            && header.protocol == TCP
        {
            tcp::clamp(packet, &header, room);
        }
    }
}
