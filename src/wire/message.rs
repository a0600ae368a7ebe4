//! The messages of control frames (protocol §4, §11), as types.

use crate::{
    addr::Underlay,
    ids::{Boot, JoinId, Slot, Version},
};

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
}

/// Says who is there, what it can do, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version spoken.
    pub wire_min: u64,
    /// Highest protocol version spoken.
    pub wire_max: u64,
    /// Feature bits; bit 0: transport1.
    pub features: u64,
    /// 0 full, 1 leaf.
    pub role: u64,
    /// This run of the sender's agent.
    pub boot: Boot,
    /// The sender's wall clock, unix ms.
    pub time_ms: u64,
    /// Digest of all the sender holds.
    pub digest: [u8; 16],
    /// Whether the receiver's Hello has come in this state.
    pub heard: bool,
    /// From where the sender sees the receiver.
    pub observed: Option<Underlay>,
}

/// Asks for a Pong on the same path; padded to probe a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the Pong.
    pub nonce: [u8; 8],
    /// The sender's number for the path.
    pub path: u64,
    /// Bytes of padding after which the body ends; only their count matters.
    pub pad: Option<Vec<u8>>,
}

/// Answers a Ping where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The Ping's.
    pub nonce: [u8; 8],
    /// The Ping's.
    pub path: u64,
    /// From where the Ping was seen; absent over a relay.
    pub observed: Option<Underlay>,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye {
    /// 0 closing, 1 idle, 2 stopping, 3 revoked.
    pub reason: u64,
}

/// Whole records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// Each at most 1,024 bytes.
    pub records: Vec<Vec<u8>>,
}

/// At most 64 pairs of slot and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// What the sender holds.
    pub entries: Vec<(Slot, Version)>,
}

/// At most 64 slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose records are asked for.
    pub slots: Vec<Slot>,
}

/// 64 sums of 16 bytes, bucket 0 first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The sums, little-endian u128 each.
    pub sums: Box<[u8; 1024]>,
}

/// A part of what the sender holds in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// 0 to 63.
    pub bucket: u64,
    /// Number of this part, from 0.
    pub part: u64,
    /// Number of the last part.
    pub last: u64,
    /// At most 64.
    pub entries: Vec<(Slot, Version)>,
}

/// Asks for membership in a join session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeem {
    /// The wished peer name.
    pub name: String,
    /// Whether only this name will do.
    pub exact: bool,
}

/// What the joiner needs, by slot; the records follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// At most 64.
    pub slots: Vec<Slot>,
}

/// Why a Redeem or a Renew is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// 1 used, 2 cancelled, 3 expired, 4 name taken, 5 no IPv4 left, 6 busy.
    pub code: u64,
    /// Codes 1 and 4.
    pub name: Option<String>,
    /// Codes 1, 2 and 3; unix s.
    pub time: Option<u64>,
}

/// A gossip link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// False asks, true says yes.
    pub yes: bool,
}

/// The end of a gossip link, or the answer no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlink {
    /// 0 full, 1 not wanted.
    pub reason: u64,
}

/// A joiner's datagram on its way to the issuer, or the answer on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// Which invite.
    pub join_id: JoinId,
    /// The joiner's address as the introducer sees it.
    pub joiner: Underlay,
    /// A Join or a WireGuard message, types 01–04.
    pub datagram: Vec<u8>,
}
