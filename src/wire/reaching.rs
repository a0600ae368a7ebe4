//! The messages by which peers find a way to each other (protocol §4, blocks 40 and 50), as types.

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{self, Decoded, Layout, layout},
    fields, frame,
};
use crate::{addr::Underlay, ids::NodeId};

/// Kind of [`Reaching::Call`].
pub const CALL: u8 = 0x40;
/// Kind of [`Reaching::Answer`].
pub const ANSWER: u8 = 0x41;
/// Kind of [`Reaching::NotHere`].
pub const NOT_HERE: u8 = 0x42;
/// Kind of [`Reaching::Locate`].
pub const LOCATE: u8 = 0x43;
/// Kind of [`Reaching::Located`].
pub const LOCATED: u8 = 0x44;
/// Kind of [`Reaching::Candidates`].
pub const CANDIDATES: u8 = 0x45;
/// Kind of [`Reaching::DialBack`].
pub const DIAL_BACK: u8 = 0x47;
/// Kind of [`Reaching::KnockAt`].
pub const KNOCK_AT: u8 = 0x48;
/// Kind of [`Reaching::Guess`].
pub const GUESS: u8 = 0x49;
/// Kind of [`Relaying::Request`].
pub const RELAY_REQUEST: u8 = 0x50;
/// Kind of [`Relaying::Offer`].
pub const RELAY_OFFER: u8 = 0x51;
/// Kind of [`Relaying::Closed`].
pub const RELAY_CLOSED: u8 = 0x52;

/// How many addresses one message may name.
pub const ADDRESSES_MAX: usize = 8;
/// How many addresses a home may say it saw somebody at.
pub const SEEN_MAX: usize = 4;
/// How many datagrams one message may hand on: a Knock and an initiation.
pub const DATAGRAMS_MAX: usize = 2;

/// Block 40: finding a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaching {
    /// 40: handshakes for a peer, through a third one.
    Call(Call),
    /// 41: what that peer answers, the same way back.
    Answer(Answer),
    /// 42: the receiver of a Call has no session with whom it is for.
    NotHere(NotHere),
    /// 43: asks whether the receiver has a session with a peer.
    Locate(Locate),
    /// 44: who has one.
    Located(Located),
    /// 45: where else the sender may be reached.
    Candidates(Candidates),
    /// 47: asks to have somebody else knock at the sender's address.
    DialBack,
    /// 48: knock there, and nowhere else.
    KnockAt(KnockAt),
    /// 49: the sender has many sockets open towards the receiver, whose ports it cannot know: they are to be guessed.
    Guess,
}

/// Block 50: ways through the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relaying {
    /// 50: asks for a way to a peer.
    Request(RelayRequest),
    /// 51: a way to a peer, to be bound.
    Offer(RelayOffer),
    /// 52: a way that is no more, or that is refused.
    Closed(RelayClosed),
}

/// Handshakes for a peer. `from` and `seen` are what the home says, not the caller.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Call {
    /// Whom.
    #[n(1)]
    pub to: NodeId,
    /// Who calls.
    #[n(2)]
    pub from: NodeId,
    /// How far it may get: 1, the receiver hands it on; 2, if it cannot, it asks its neighbours who could ([`Locate`]).
    #[n(3)]
    pub ttl: u64,
    /// A Knock without records, an initiation; at most [`DATAGRAMS_MAX`].
    #[cbor(n(4), with = "fields::blobs")]
    pub datagrams: Vec<Vec<u8>>,
    /// Where the caller may be reached, at most [`ADDRESSES_MAX`].
    #[n(5)]
    pub addresses: Vec<Underlay>,
    /// Where the home saw the caller in the last 10 min, at most [`SEEN_MAX`].
    #[n(6)]
    pub seen: Vec<Underlay>,
}

/// What the called peer answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// Who called.
    #[n(1)]
    pub to: NodeId,
    /// Who was called.
    #[n(2)]
    pub from: NodeId,
    /// A response; none: the addresses alone.
    #[cbor(n(3), with = "fields::blobs")]
    pub datagrams: Vec<Vec<u8>>,
    /// Where the called peer may be reached, at most [`ADDRESSES_MAX`].
    #[n(4)]
    pub addresses: Vec<Underlay>,
    /// Where the home saw it in the last 10 min, at most [`SEEN_MAX`].
    #[n(5)]
    pub seen: Vec<Underlay>,
}

/// Nobody of that name here.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NotHere {
    /// Who was called.
    #[n(1)]
    pub node: NodeId,
}

/// Who has a session with this peer? Who has none says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Locate {
    /// Who is sought.
    #[n(1)]
    pub node: NodeId,
}

/// Through whom a peer can be called.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Located {
    /// Who is sought.
    #[n(1)]
    pub node: NodeId,
    /// Who has a session with it: the sender, or one whom the sender asked.
    #[n(2)]
    pub at: NodeId,
}

/// Where else the sender may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Candidates {
    /// At most [`ADDRESSES_MAX`].
    #[n(1)]
    pub addresses: Vec<Underlay>,
}

/// The empty body of 47.
#[derive(Encode, Decode)]
#[cbor(map)]
struct DialBack {}

/// The empty body of 49.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Guess {}

/// Whom to knock at, and where.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KnockAt {
    /// Who asked for it.
    #[n(1)]
    pub node: NodeId,
    /// Where the sender sees that peer.
    #[n(2)]
    pub address: Underlay,
}

/// A way to a peer is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayRequest {
    /// Whom. A relay is asked for members, never for addresses.
    #[n(1)]
    pub to: NodeId,
}

/// A way to a peer, for 30 s to be bound.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayOffer {
    /// Who is at the other end.
    #[n(1)]
    pub other: NodeId,
    /// What stands in frames to the relay.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub id: [u8; 4],
    /// The key of the macs of its binding.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// Without the key.
impl std::fmt::Debug for RelayOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayOffer({:?}, {:?})", self.other, self.id)
    }
}

/// A way is no more, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayClosed {
    /// Who is at the other end.
    #[n(1)]
    pub other: NodeId,
    /// 0 idle, 1 this peer does not relay, 2 no session with the other, 3 too many, 4 too deep.
    #[n(2)]
    pub reason: u64,
}

layout! {
    Call: [1, 2, 3, 4, 5, 6];
    Answer: [1, 2, 3, 4, 5];
    NotHere: [1];
    Locate: [1];
    Located: [1, 2];
    Candidates: [1];
    DialBack: [];
    KnockAt: [1, 2];
    Guess: [];
    RelayRequest: [1];
    RelayOffer: [1, 2, 3];
    RelayClosed: [1, 2];
}

impl Reaching {
    /// Its kind byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Call(_) => CALL,
            Self::Answer(_) => ANSWER,
            Self::NotHere(_) => NOT_HERE,
            Self::Locate(_) => LOCATE,
            Self::Located(_) => LOCATED,
            Self::Candidates(_) => CANDIDATES,
            Self::DialBack => DIAL_BACK,
            Self::KnockAt(_) => KNOCK_AT,
            Self::Guess => GUESS,
        }
    }

    /// Its body, in CBOR.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Call(body) => body.to_bytes(),
            Self::Answer(body) => body.to_bytes(),
            Self::NotHere(body) => body.to_bytes(),
            Self::Locate(body) => body.to_bytes(),
            Self::Located(body) => body.to_bytes(),
            Self::Candidates(body) => body.to_bytes(),
            Self::DialBack => DialBack {}.to_bytes(),
            Self::KnockAt(body) => body.to_bytes(),
            Self::Guess => Guess {}.to_bytes(),
        }
    }

    /// Reads the body of a message of this kind; `None` for a kind of another block or one that is not known.
    ///
    /// # Errors
    /// A body that is not one of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Decoded<Self>>, Malformed> {
        let decoded = match kind {
            CALL => read(body, Self::Call)?,
            ANSWER => read(body, Self::Answer)?,
            NOT_HERE => read(body, Self::NotHere)?,
            LOCATE => read(body, Self::Locate)?,
            LOCATED => read(body, Self::Located)?,
            CANDIDATES => read(body, Self::Candidates)?,
            DIAL_BACK => read(body, |DialBack {}| Self::DialBack)?,
            KNOCK_AT => read(body, Self::KnockAt)?,
            GUESS => read(body, |Guess {}| Self::Guess)?,
            _ => return Ok(None),
        };
        let fits = match &decoded.body {
            Self::Call(call) => within(&call.datagrams, &call.addresses, &call.seen),
            Self::Answer(answer) => within(&answer.datagrams, &answer.addresses, &answer.seen),
            Self::Candidates(candidates) => within(&[], &candidates.addresses, &[]),
            Self::NotHere(_)
            | Self::Locate(_)
            | Self::Located(_)
            | Self::DialBack
            | Self::KnockAt(_)
            | Self::Guess => true,
        };
        if fits {
            Ok(Some(decoded))
        } else {
            Err(Malformed::TooLong)
        }
    }
}

impl Relaying {
    /// Its kind byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Request(_) => RELAY_REQUEST,
            Self::Offer(_) => RELAY_OFFER,
            Self::Closed(_) => RELAY_CLOSED,
        }
    }

    /// Its body, in CBOR.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Request(body) => body.to_bytes(),
            Self::Offer(body) => body.to_bytes(),
            Self::Closed(body) => body.to_bytes(),
        }
    }

    /// Reads the body of a message of this kind; `None` for a kind of another block or one that is not known.
    ///
    /// # Errors
    /// A body that is not one of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Decoded<Self>>, Malformed> {
        let decoded = match kind {
            RELAY_REQUEST => read(body, Self::Request),
            RELAY_OFFER => read(body, Self::Offer),
            RELAY_CLOSED => read(body, Self::Closed),
            _ => return Ok(None),
        };
        decoded.map(Some)
    }
}

fn within(datagrams: &[Vec<u8>], addresses: &[Underlay], seen: &[Underlay]) -> bool {
    datagrams.len() <= DATAGRAMS_MAX && addresses.len() <= ADDRESSES_MAX && seen.len() <= SEEN_MAX
}

fn read<T: Layout, M>(body: &[u8], message: impl FnOnce(T) -> M) -> Result<Decoded<M>, Malformed> {
    Ok(cbor::decode(body, frame::BODY_MAX)?.map(message))
}
