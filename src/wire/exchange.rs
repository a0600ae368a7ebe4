//! The control frames of the transport exchange (protocol §4, kinds 60–63).
//!
//! Init and Response are longer than one frame may be, so each comes in two halves; Done and Please are whole. Their
//! bodies are no CBOR, and the data thread reads them by itself: they never become a [`super::message::Message`].

use super::{
    Malformed,
    frame::{Bare, HALVES, WHOLE},
};

/// Bytes of an Init.
pub const INIT_LEN: usize = 1280;
/// Bytes of a Response.
pub const RESPONSE_LEN: usize = 1200;
/// Bytes of a Done.
pub const DONE_LEN: usize = 32;

const INIT: u8 = 0x60;
const RESPONSE: u8 = 0x61;
const DONE: u8 = 0x62;
const PLEASE: u8 = 0x63;

/// What a frame of the exchange carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange<'a> {
    /// 60: half of what the initiator offers.
    Init(Half<'a>),
    /// 61: half of what the responder answers.
    Response(Half<'a>),
    /// 62: the initiator has the keys.
    Done(&'a [u8; DONE_LEN]),
    /// 63: the responder asks for an Init.
    Please,
}

/// One half of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half<'a> {
    /// The same in both halves, and whenever the same message is sent again.
    pub id: u32,
    /// Which of the two.
    pub side: Side,
    /// Half of the message's bytes.
    pub bytes: &'a [u8],
}

/// Which half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The front half.
    First,
    /// The back half.
    Second,
}

/// Whether a frame is one of the exchange, and so not the control thread's.
pub fn is_exchange(frame: &[u8]) -> bool {
    frame.get(2).is_some_and(|kind| kind >> 4 == INIT >> 4)
}

/// The two frames of an Init.
pub fn init_frames(id: u32, init: &[u8; INIT_LEN]) -> [Vec<u8>; 2] {
    halves(INIT, id, init)
}

/// The two frames of a Response.
pub fn response_frames(id: u32, response: &[u8; RESPONSE_LEN]) -> [Vec<u8>; 2] {
    halves(RESPONSE, id, response)
}

/// The frame of a Done.
pub fn done_frame(id: u32, done: &[u8; DONE_LEN]) -> Vec<u8> {
    encode(DONE, WHOLE, id, done)
}

/// The frame of a Please, which says nothing more.
pub fn please_frame(id: u32) -> Vec<u8> {
    encode(PLEASE, WHOLE, id, &[])
}

/// Reads a frame of the exchange, without the 20 bytes that stand before it in WireGuard.
///
/// # Errors
/// What is wrong with it.
pub fn decode(frame: &[u8]) -> Result<Exchange<'_>, Malformed> {
    let Bare {
        kind,
        fragment,
        id,
        body: bytes,
    } = Bare::decode(frame)?;
    let side = match fragment {
        WHOLE => None,
        _ if fragment == HALVES[0] => Some(Side::First),
        _ if fragment == HALVES[1] => Some(Side::Second),
        _ => return Err(Malformed::Layout),
    };
    let half = side.map(|side| Half { id, side, bytes });
    match (kind, half) {
        (INIT, Some(half)) if 2 * bytes.len() == INIT_LEN => Ok(Exchange::Init(half)),
        (RESPONSE, Some(half)) if 2 * bytes.len() == RESPONSE_LEN => Ok(Exchange::Response(half)),
        (DONE, None) => {
            let done = bytes.try_into().map_err(|_length| Malformed::Layout)?;
            Ok(Exchange::Done(done))
        }
        (PLEASE, None) if bytes.is_empty() => Ok(Exchange::Please),
        _ => Err(Malformed::Layout),
    }
}

fn halves(kind: u8, id: u32, bytes: &[u8]) -> [Vec<u8>; 2] {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [
        encode(kind, HALVES[0], id, first),
        encode(kind, HALVES[1], id, second),
    ]
}

fn encode(kind: u8, fragment: u8, id: u32, body: &[u8]) -> Vec<u8> {
    let bare = Bare {
        kind,
        fragment,
        id,
        body,
    };
    bare.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    fn samples() -> Vec<Vec<u8>> {
        let init = std::array::from_fn(|at| u8::try_from(at % 251).unwrap());
        let response = std::array::from_fn(|at| u8::try_from(at % 241).unwrap());
        let mut frames = init_frames(7, &init).to_vec();
        frames.extend(response_frames(8, &response));
        frames.push(done_frame(9, &[4; DONE_LEN]));
        frames.push(please_frame(10));
        frames
    }

    #[test]
    fn every_frame_reads_as_it_was_written() {
        let read: Vec<_> = samples()
            .iter()
            .map(|frame| match decode(frame).unwrap() {
                Exchange::Init(half) => ("init", half.id, Some(half.side), half.bytes.to_vec()),
                Exchange::Response(half) => {
                    ("response", half.id, Some(half.side), half.bytes.to_vec())
                }
                Exchange::Done(done) => ("done", 9, None, done.to_vec()),
                Exchange::Please => ("please", 10, None, vec![]),
            })
            .collect();
        let init: Vec<u8> = (0..1280)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let response: Vec<u8> = (0..1200)
            .map(|at| u8::try_from(at % 241).unwrap())
            .collect();
        assert_eq!(
            read,
            [
                ("init", 7, Some(Side::First), init[..640].to_vec()),
                ("init", 7, Some(Side::Second), init[640..].to_vec()),
                ("response", 8, Some(Side::First), response[..600].to_vec()),
                ("response", 8, Some(Side::Second), response[600..].to_vec()),
                ("done", 9, None, vec![4; 32]),
                ("please", 10, None, vec![]),
            ]
        );
    }

    #[test]
    fn every_fixed_byte_of_the_head_is_looked_at() {
        for frame in samples() {
            for at in (0..8).filter(|at| ![2, 3].contains(at)) {
                let mut broken = frame.clone();
                broken[at] ^= 1;
                assert!(decode(&broken).is_err(), "byte {at} of {:#x}", frame[2]);
            }
            for kind in 0..=255 {
                let mut other = frame.clone();
                other[2] = kind;
                assert_eq!(decode(&other).is_ok(), kind == frame[2], "{kind:#x}");
            }
            let fragments = (0..=255).filter(|fragment| {
                let mut other = frame.clone();
                other[3] = *fragment;
                decode(&other).is_ok()
            });
            let halves = [0x60, 0x61].contains(&frame[2]);
            assert_eq!(fragments.count(), if halves { 2 } else { 1 });
        }
    }

    #[test]
    fn a_frame_cut_short_or_with_a_byte_too_many_is_none() {
        for frame in samples() {
            for len in 0..frame.len() {
                assert!(decode(&frame[..len]).is_err());
            }
            assert!(decode(&[&frame[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn frames_of_the_exchange_are_told_apart_and_are_no_messages() {
        for sample in samples() {
            assert!(is_exchange(&sample));
            assert_eq!(
                frame::decode(&sample).unwrap().content,
                frame::Content::Unknown
            );
        }
        let bye = frame::encode(
            &crate::wire::message::Message::Bye(crate::wire::message::Bye { reason: 0 }),
            1,
        );
        assert!(!is_exchange(&bye) && !is_exchange(&[0, 1]));
    }
}
