//! Control frames inside a session (protocol §4): the 12-byte frame head, and the 20 bytes before it in WireGuard.
//!
//! A frame is `00 01 kind fragment ‖ length u16 ‖ 0000 ‖ message id u32 ‖ body`. In WireGuard it stands behind an IPv4
//! header that no host can emit ([`shape`]); in a transport session it stands alone.

use super::{
    Malformed,
    message::{self, Message},
    reader::Reader,
};

/// Bytes of the head of a frame.
pub const HEAD: usize = 12;
/// Bytes of the IPv4 header before a frame in WireGuard.
pub const SHAPE: usize = 20;
/// Bytes of the longest body (protocol §0), but for a Ping that probes a size.
pub const BODY_MAX: usize = 1100;
/// Bytes of the longest body of Records in a join session (protocol §9).
pub const JOIN_RECORDS_MAX: usize = 960;

const VERSION: u8 = 1;
pub(super) const WHOLE: u8 = 0x01;
/// The two halves of a message of the transport exchange.
pub(super) const HALVES: [u8; 2] = [0x02, 0x12];

/// A frame whose body was not read.
pub(super) struct Bare<'a> {
    pub(super) kind: u8,
    /// Index << 4 | count; 01: whole.
    pub(super) fragment: u8,
    pub(super) id: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Bare<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let len = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(HEAD + self.body.len());
        out.extend_from_slice(&[0, VERSION, self.kind, self.fragment]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(self.body);
        out
    }

    pub(super) fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let [zero, version, kind, fragment] = reader.array()?;
        let len = usize::from(reader.u16()?);
        let reserved = reader.u16()?;
        let id = reader.u32()?;
        let body = reader.slice(len)?;
        reader.end()?;
        if zero != 0 || version != VERSION || reserved != 0 {
            return Err(Malformed::Layout);
        }
        Ok(Self {
            kind,
            fragment,
            id,
            body,
        })
    }
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender's number of the message.
    pub id: u32,
    /// Index << 4 | count; 01: whole.
    pub fragment: u8,
    /// The kind byte.
    pub kind: u8,
    /// What it says.
    pub content: Content,
    /// How many unknown entries of its body were skipped.
    pub unknown_keys: u32,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message this build knows.
    Known(Message),
    /// A kind this build does not know; its body was not read.
    Unknown,
}

/// The padding of a Ping on a path of this number that makes the packet which carries it so long, once its frame is shaped.
pub fn padding(len: u16, path: u64) -> Vec<u8> {
    let bare = Message::Ping(message::Ping {
        nonce: [0; 8],
        path,
        pad: Some(vec![0; PADDING_MIN]),
    });
    let mut shaped = Vec::new();
    shape(&encode(&bare, 0), &mut shaped);
    vec![0; (usize::from(len) + PADDING_MIN).saturating_sub(shaped.len())]
}

/// Shorter padding would have a shorter head.
const PADDING_MIN: usize = 256;

/// Writes a whole message as one frame, without the 20 bytes before it. The sender keeps bodies within [`BODY_MAX`]: a
/// longer one (but for a Ping) is dropped by whoever receives it.
pub fn encode(message: &Message, id: u32) -> Vec<u8> {
    let bare = Bare {
        kind: message.kind(),
        fragment: WHOLE,
        id,
        body: &message.body(),
    };
    bare.encode()
}

/// Reads a frame, without the 20 bytes before it.
///
/// # Errors
/// What is wrong with it. A kind that is not known is no error.
pub fn decode(frame: &[u8]) -> Result<Frame, Malformed> {
    let Bare {
        kind,
        fragment,
        id,
        body,
    } = Bare::decode(frame)?;
    if !may_be_fragment(kind, fragment) {
        return Err(Malformed::Layout);
    }
    if body.len() > BODY_MAX && kind != message::PING {
        return Err(Malformed::TooLong);
    }
    let (content, unknown_keys) = match Message::decode(kind, body)? {
        Some(decoded) => (Content::Known(decoded.body), decoded.unknown),
        None => (Content::Unknown, 0),
    };
    Ok(Frame {
        id,
        fragment,
        kind,
        content,
        unknown_keys,
    })
}

/// Writes the 20 WireGuard bytes and then the frame to the end of `out`.
pub fn shape(frame: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(SHAPE + frame.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    out.extend_from_slice(&header(len));
    out.extend_from_slice(frame);
}

/// The frame inside what WireGuard decrypted; `None` unless the 20 bytes before it are exactly those of a control
/// frame of this length.
pub fn unshape(inner: &[u8]) -> Option<&[u8]> {
    let (found, frame) = inner.split_first_chunk::<SHAPE>()?;
    let len = u16::try_from(inner.len()).ok()?.to_be_bytes();
    (*found == header(len)).then_some(frame)
}

/// Whether a packet that a program wrote imitates a control frame, in either form. Such a packet is dropped by the
/// source check anyway; this counts the attempt.
pub fn is_control_shape(packet: &[u8]) -> bool {
    let behind_ip = packet.first_chunk::<SHAPE>().is_some_and(|found| {
        let [
            first,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            protocol,
            _,
            _,
            addresses @ ..,
        ] = *found;
        first >> 4 == 4 && protocol == PROTOCOL && addresses == [0; 8]
    });
    behind_ip || packet.first() == Some(&0)
}

/// IPv4's "use for experimentation and testing".
const PROTOCOL: u8 = 0xfd;

fn header([high, low]: [u8; 2]) -> [u8; SHAPE] {
    [
        0x45, 0, high, low, 0, 0, 0, 0, 0, PROTOCOL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]
}

/// Only the transport exchange may come in two.
fn may_be_fragment(kind: u8, fragment: u8) -> bool {
    fragment == WHOLE || (kind >> 4 == 6 && HALVES.contains(&fragment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Bye, Ping, Records};

    fn bye() -> Vec<u8> {
        encode(&Message::Bye(Bye { reason: 0 }), 7)
    }

    #[test]
    fn every_fixed_byte_of_the_head_is_looked_at() {
        for at in [0, 1, 6, 7] {
            let mut frame = bye();
            frame[at] ^= 1;
            assert_eq!(decode(&frame), Err(Malformed::Layout), "byte {at}");
        }
    }

    #[test]
    fn only_the_transport_exchange_comes_in_two() {
        for fragment in 0..=255 {
            let mut frame = bye();
            frame[3] = fragment;
            assert_eq!(decode(&frame).is_ok(), fragment == 1, "{fragment:#x}");
            frame[2] = 0x60;
            assert_eq!(
                decode(&frame).is_ok(),
                [0x01, 0x02, 0x12].contains(&fragment),
                "{fragment:#x}"
            );
        }
    }

    #[test]
    fn only_a_ping_with_padding_may_be_long() {
        let ping = |pad| {
            encode(
                &Message::Ping(Ping {
                    nonce: [0; 8],
                    path: 0,
                    pad,
                }),
                1,
            )
        };
        assert!(decode(&ping(Some(vec![0; 1400]))).is_ok());
        let records = Message::Records(Records {
            records: vec![vec![0; 1096]],
        });
        assert_eq!(decode(&encode(&records, 1)), Err(Malformed::TooLong));
        let mut unknown = encode(&Message::Renew, 1);
        unknown[2] = 0x7f;
        unknown[4..6].copy_from_slice(&1101_u16.to_le_bytes());
        unknown.resize(HEAD + 1101, 0);
        assert_eq!(decode(&unknown), Err(Malformed::TooLong));
    }

    #[test]
    fn the_cost_of_records_is_not_less_than_what_they_take() {
        for (count, len) in [(0, 0), (1, 10), (1, 1024), (9, 115), (30, 20), (64, 10)] {
            let records = Records {
                records: vec![vec![0; len]; count],
            };
            let counted = Records::OVERHEAD + count * Records::cost(len);
            assert!(
                Message::Records(records).body().len() <= counted,
                "{count} of {len}"
            );
        }
    }

    #[test]
    fn what_imitates_a_control_frame_is_seen_in_both_forms() {
        let mut shaped = Vec::new();
        shape(&bye(), &mut shaped);
        assert!(is_control_shape(&shaped));
        shaped[2] ^= 0xff;
        assert!(is_control_shape(&shaped), "with a false length");
        assert!(is_control_shape(&bye()));
        shaped[12] = 10;
        assert!(
            !is_control_shape(&shaped),
            "protocol 253 from a real address"
        );
        assert!(!is_control_shape(&[0x60; 40]) && !is_control_shape(&[]));
    }
}
