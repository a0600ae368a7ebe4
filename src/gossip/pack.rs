//! Records into messages that are not too long, and what a message weighs.

use super::{ENTRIES_MAX, Shelf};
use crate::wire::{
    message::{Message, Records, Want},
    record::Record,
};

/// What a message costs beside its body: frame, inner header, WireGuard, UDP and IPv6 headers.
const AROUND: usize = 12 + 20 + 32 + 8 + 40;

/// Answers a Want: the records asked for that are held and offered, in Records messages with bodies of
/// at most `body_max` bytes (1,100; 960 in a join session). A record that does not fit alone is left out.
pub(super) fn answer(want: &Want, body_max: usize, shelf: &dyn Shelf) -> Vec<Message> {
    let mut records: Vec<Record> = want
        .slots
        .iter()
        .take(ENTRIES_MAX)
        .filter(|slot| shelf.is_offered(**slot))
        .filter_map(|slot| shelf.record(*slot))
        .collect();
    records.sort_by_key(Record::kind);
    pack(&records, body_max)
}

/// Puts records into as few messages as their order allows. Kinds come in ascending order from [`answer`], so that
/// who may sign stands before what was signed.
pub(super) fn pack(records: &[Record], body_max: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut taken = Vec::new();
    let mut size = Records::OVERHEAD;
    for record in records {
        let bytes = record.bytes();
        let cost = Records::cost(bytes.len());
        if Records::OVERHEAD + cost > body_max {
            continue;
        }
        if size + cost > body_max {
            messages.push(Message::Records(Records {
                records: std::mem::take(&mut taken),
            }));
            size = Records::OVERHEAD;
        }
        size += cost;
        taken.push(bytes.to_vec());
    }
    if !taken.is_empty() {
        messages.push(Message::Records(Records { records: taken }));
    }
    messages
}

/// How many of `records`, from the first, fit into one message; at least one if there is one.
pub(super) fn fitting(records: impl Iterator<Item = usize>, body_max: usize) -> usize {
    let mut size = Records::OVERHEAD;
    records
        .take_while(|len| {
            size += Records::cost(*len);
            size <= body_max
        })
        .count()
        .max(1)
}

/// About how many bytes a gossip message is on the underlay; what the budget is charged.
pub(super) fn weight(message: &Message) -> usize {
    let body = match message {
        Message::Records(records) => {
            Records::OVERHEAD
                + records
                    .records
                    .iter()
                    .map(|bytes| Records::cost(bytes.len()))
                    .sum::<usize>()
        }
        Message::Advert(advert) => 8 + 16 * advert.entries.len(),
        Message::Want(want) => 8 + 8 * want.slots.len(),
        Message::Digest(_) => 1032,
        Message::Slots(slots) => 16 + 16 * slots.entries.len(),
        Message::Hello(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::Bye(_)
        | Message::Redeem(_)
        | Message::Granted(_)
        | Message::Renew
        | Message::Refused(_)
        | Message::Link(_)
        | Message::Unlink(_)
        | Message::Introduced(_)
        | Message::Reaching(_)
        | Message::Relaying(_) => 64,
    };
    AROUND + body
}
