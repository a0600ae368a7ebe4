//! The messages of control frames (protocol §4, §11), as types.

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{self, Decoded, Layout, layout},
    fields, frame,
    reaching::{Reaching, Relaying},
};
use crate::{
    addr::Underlay,
    ids::{Boot, JoinId, Slot, Version},
};

/// Kind of [`Hello`].
pub const HELLO: u8 = 0x01;
/// Kind of [`Ping`].
pub const PING: u8 = 0x02;
/// Kind of [`Pong`].
pub const PONG: u8 = 0x03;
/// Kind of [`Bye`].
pub const BYE: u8 = 0x04;
/// Kind of [`Records`].
pub const RECORDS: u8 = 0x10;
/// Kind of [`Advert`].
pub const ADVERT: u8 = 0x11;
/// Kind of [`Want`].
pub const WANT: u8 = 0x12;
/// Kind of [`Digest`].
pub const DIGEST: u8 = 0x13;
/// Kind of [`Slots`].
pub const SLOTS: u8 = 0x14;
/// Kind of [`Redeem`].
pub const REDEEM: u8 = 0x20;
/// Kind of [`Granted`].
pub const GRANTED: u8 = 0x21;
/// Kind of [`Message::Renew`].
pub const RENEW: u8 = 0x22;
/// Kind of [`Refused`].
pub const REFUSED: u8 = 0x23;
/// Kind of [`Link`].
pub const LINK: u8 = 0x31;
/// Kind of [`Unlink`].
pub const UNLINK: u8 = 0x32;
/// Kind of [`Introduced`].
pub const INTRODUCED: u8 = 0x46;

/// How many slots or entries one message may hold (protocol §11).
pub const ENTRIES_MAX: usize = 64;

/// One control message. Kinds this build does not know never become a `Message`; they are counted at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 01: the first thing each side says.
    Hello(Hello),
    /// 02: asks for a Pong on the same path.
    Ping(Ping),
    /// 03: the proof of a path.
    Pong(Pong),
    /// 04: this side closes the session.
    Bye(Bye),
    /// 10: whole records, as they were received.
    Records(Records),
    /// 11: what the sender holds that may be new.
    Advert(Advert),
    /// 12: asks for the records of these slots.
    Want(Want),
    /// 13: the sums of all 64 buckets.
    Digest(Digest),
    /// 14: what the sender holds in one bucket.
    Slots(Slots),
    /// 20: asks for membership.
    Redeem(Redeem),
    /// 21: membership, and what it needs.
    Granted(Granted),
    /// 22: asks for a new certificate.
    Renew,
    /// 23: no, and why.
    Refused(Refused),
    /// 31: asks for a gossip link, or says yes.
    Link(Link),
    /// 32: no link, or no longer.
    Unlink(Unlink),
    /// 46: a datagram of a joiner, handed on.
    Introduced(Introduced),
    /// 40–48: finding a way.
    Reaching(Reaching),
    /// 50–52: ways through a relay.
    Relaying(Relaying),
}

/// Says who is there, what it can do, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Lowest protocol version spoken.
    #[n(1)]
    pub wire_min: u64,
    /// Highest protocol version spoken.
    #[n(2)]
    pub wire_max: u64,
    /// Feature bits; bit 0: transport1.
    #[n(3)]
    pub features: u64,
    /// 0 full, 1 leaf.
    #[n(4)]
    pub role: u64,
    /// This run of the sender's agent.
    #[n(5)]
    pub boot: Boot,
    /// The sender's wall clock, unix ms.
    #[n(6)]
    pub time_ms: u64,
    /// Digest of all the sender holds.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub digest: [u8; 16],
    /// Whether the receiver's Hello has come in this state.
    #[cbor(n(8), with = "fields::flag")]
    pub heard: bool,
    /// From where the sender sees the receiver.
    #[n(9)]
    pub observed: Option<Underlay>,
}

/// Asks for a Pong on the same path; padded to probe a size.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    /// Comes back in the Pong.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 8],
    /// The sender's number for the path.
    #[n(2)]
    pub path: u64,
    /// Bytes of padding after which the body ends; only their count matters.
    #[cbor(n(3), with = "fields::optional_bytes", has_nil)]
    pub pad: Option<Vec<u8>>,
}

/// Answers a Ping where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pong {
    /// The Ping's.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 8],
    /// The Ping's.
    #[n(2)]
    pub path: u64,
    /// From where the Ping was seen; absent over a relay.
    #[n(3)]
    pub observed: Option<Underlay>,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bye {
    /// 0 closing, 1 idle, 2 stopping, 3 revoked.
    #[n(1)]
    pub reason: u64,
}

/// Whole records.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Records {
    /// Each at most 1,024 bytes.
    #[cbor(n(1), with = "fields::blobs")]
    pub records: Vec<Vec<u8>>,
}

/// Without the records' bytes, which may hold a secret.
impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({})", self.records.len())
    }
}

/// At most 64 pairs of slot and version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Advert {
    /// What the sender holds.
    #[cbor(n(1), with = "fields::entries")]
    pub entries: Vec<(Slot, Version)>,
}

/// At most 64 slots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Want {
    /// Whose records are asked for.
    #[cbor(n(1), with = "fields::slots")]
    pub slots: Vec<Slot>,
}

/// 64 sums of 16 bytes, bucket 0 first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Digest {
    /// The sums, little-endian u128 each.
    #[cbor(n(1), with = "fields::sums")]
    pub sums: Box<[u8; 1024]>,
}

/// A part of what the sender holds in one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Slots {
    /// 0 to 63.
    #[n(1)]
    pub bucket: u64,
    /// Number of this part, from 0.
    #[n(2)]
    pub part: u64,
    /// Number of the last part.
    #[n(3)]
    pub last: u64,
    /// At most 64.
    #[cbor(n(4), with = "fields::entries")]
    pub entries: Vec<(Slot, Version)>,
}

/// Asks for membership in a join session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Redeem {
    /// The wished peer name.
    #[n(1)]
    pub name: String,
    /// Whether only this name will do.
    #[cbor(n(2), with = "fields::flag")]
    pub exact: bool,
}

/// What the joiner needs, by slot; the records follow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Granted {
    /// At most 64.
    #[cbor(n(1), with = "fields::slots")]
    pub slots: Vec<Slot>,
}

/// Why a Redeem or a Renew is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// 1 used, 2 cancelled, 3 expired, 4 name taken, 5 no IPv4 left, 6 busy.
    #[n(1)]
    pub code: u64,
    /// Codes 1 and 4.
    #[n(2)]
    pub name: Option<String>,
    /// Codes 1, 2 and 3; unix s.
    #[n(3)]
    pub time: Option<u64>,
}

/// A gossip link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Link {
    /// False asks, true says yes.
    #[cbor(n(1), with = "fields::flag")]
    pub yes: bool,
}

/// The end of a gossip link, or the answer no.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unlink {
    /// 0 full, 1 not wanted.
    #[n(1)]
    pub reason: u64,
}

/// A joiner's datagram on its way to the issuer, or the answer on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Introduced {
    /// Which invite.
    #[n(1)]
    pub join_id: JoinId,
    /// The joiner's address as the introducer sees it.
    #[n(2)]
    pub joiner: Underlay,
    /// A Join or a WireGuard message, types 01–04.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub datagram: Vec<u8>,
}

layout! {
    Hello: [1, 2, 3, 4, 5, 6, 7, 8, 9];
    Ping: [1, 2, 3];
    Pong: [1, 2, 3];
    Bye: [1];
    Records: [1];
    Advert: [1];
    Want: [1];
    Digest: [1];
    Slots: [1, 2, 3, 4];
    Redeem: [1, 2];
    Granted: [1];
    Renew: [];
    Refused: [1, 2, 3];
    Link: [1];
    Unlink: [1];
    Introduced: [1, 2, 3];
}

impl Records {
    /// What one record of this length adds to the body. The sum over a message, plus [`Records::OVERHEAD`], stays
    /// within [`frame::BODY_MAX`], in a join session within [`frame::JOIN_RECORDS_MAX`].
    pub fn cost(record_len: usize) -> usize {
        record_len + 3
    }

    /// Bytes of a body besides its records.
    pub const OVERHEAD: usize = 4;
}

/// What a message is about: the blocks of kinds (protocol §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// 01–0F: the session itself.
    Session,
    /// 10–1F: records.
    Gossip,
    /// 20–2F: certificates.
    Membership,
    /// 30–3F: gossip links.
    Links,
    /// 40–4F: finding a way.
    Reaching,
    /// 50–5F: ways through a relay.
    Relay,
}

impl Message {
    /// What it is about.
    pub fn block(&self) -> Block {
        match self {
            Self::Hello(_) | Self::Ping(_) | Self::Pong(_) | Self::Bye(_) => Block::Session,
            Self::Records(_)
            | Self::Advert(_)
            | Self::Want(_)
            | Self::Digest(_)
            | Self::Slots(_) => Block::Gossip,
            Self::Redeem(_) | Self::Granted(_) | Self::Renew | Self::Refused(_) => {
                Block::Membership
            }
            Self::Link(_) | Self::Unlink(_) => Block::Links,
            Self::Introduced(_) | Self::Reaching(_) => Block::Reaching,
            Self::Relaying(_) => Block::Relay,
        }
    }

    /// Its kind byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Ping(_) => PING,
            Self::Pong(_) => PONG,
            Self::Bye(_) => BYE,
            Self::Records(_) => RECORDS,
            Self::Advert(_) => ADVERT,
            Self::Want(_) => WANT,
            Self::Digest(_) => DIGEST,
            Self::Slots(_) => SLOTS,
            Self::Redeem(_) => REDEEM,
            Self::Granted(_) => GRANTED,
            Self::Renew => RENEW,
            Self::Refused(_) => REFUSED,
            Self::Link(_) => LINK,
            Self::Unlink(_) => UNLINK,
            Self::Introduced(_) => INTRODUCED,
            Self::Reaching(message) => message.kind(),
            Self::Relaying(message) => message.kind(),
        }
    }

    /// Its body, in CBOR.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Hello(body) => body.to_bytes(),
            Self::Ping(body) => body.to_bytes(),
            Self::Pong(body) => body.to_bytes(),
            Self::Bye(body) => body.to_bytes(),
            Self::Records(body) => body.to_bytes(),
            Self::Advert(body) => body.to_bytes(),
            Self::Want(body) => body.to_bytes(),
            Self::Digest(body) => body.to_bytes(),
            Self::Slots(body) => body.to_bytes(),
            Self::Redeem(body) => body.to_bytes(),
            Self::Granted(body) => body.to_bytes(),
            Self::Renew => Renew {}.to_bytes(),
            Self::Refused(body) => body.to_bytes(),
            Self::Link(body) => body.to_bytes(),
            Self::Unlink(body) => body.to_bytes(),
            Self::Introduced(body) => body.to_bytes(),
            Self::Reaching(message) => message.body(),
            Self::Relaying(message) => message.body(),
        }
    }

    /// Reads the body of a message of this kind; `None` for a kind that is not known, whose body is not read.
    ///
    /// # Errors
    /// A body that is not one of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Decoded<Self>>, Malformed> {
        let decoded = match kind {
            HELLO => read(body, Self::Hello),
            PING => return read_ping(body).map(Some),
            PONG => read(body, Self::Pong),
            BYE => read(body, Self::Bye),
            RECORDS => read(body, Self::Records),
            ADVERT => read(body, Self::Advert),
            WANT => read(body, Self::Want),
            DIGEST => read(body, Self::Digest),
            SLOTS => read(body, Self::Slots),
            REDEEM => read(body, Self::Redeem),
            GRANTED => read(body, Self::Granted),
            RENEW => read(body, |Renew {}| Self::Renew),
            REFUSED => read(body, Self::Refused),
            LINK => read(body, Self::Link),
            UNLINK => read(body, Self::Unlink),
            INTRODUCED => read(body, Self::Introduced),
            _ => return decode_ways(kind, body),
        };
        decoded.map(Some)
    }
}

fn decode_ways(kind: u8, body: &[u8]) -> Result<Option<Decoded<Message>>, Malformed> {
    if let Some(decoded) = Reaching::decode(kind, body)? {
        return Ok(Some(decoded.map(Message::Reaching)));
    }
    let decoded = Relaying::decode(kind, body)?;
    Ok(decoded.map(|decoded| decoded.map(Message::Relaying)))
}

/// The empty body of 22.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Renew {}

fn read<T: Layout>(
    body: &[u8],
    message: impl FnOnce(T) -> Message,
) -> Result<Decoded<Message>, Malformed> {
    Ok(cbor::decode(body, frame::BODY_MAX)?.map(message))
}

/// Only a Ping with padding may be longer than other bodies.
fn read_ping(body: &[u8]) -> Result<Decoded<Message>, Malformed> {
    let decoded = cbor::decode::<Ping>(body, usize::from(u16::MAX))?;
    if body.len() > frame::BODY_MAX && decoded.body.pad.is_none() {
        return Err(Malformed::TooLong);
    }
    Ok(decoded.map(Message::Ping))
}
