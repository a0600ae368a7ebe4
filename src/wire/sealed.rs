//! Sealed datagrams: first contact (protocol §2). The bodies, the 44 bytes before them, the padding and the AEAD.

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{Item, Layout, layout},
    datagram::{SEALED_MAX, SEALED_MIN},
    envelope::{self, NONCE, TAG},
    fields,
    reader::Reader,
};
use crate::ids::{Boot, NodeId};

/// The first byte of a sealed datagram.
pub const TYPE: u8 = 0x30;
/// The second byte of a sealed datagram.
pub const VERSION: u8 = 0x01;
/// Bytes of the header, which are also the AEAD's associated data.
pub const HEADER: usize = 12;

/// What a sealed datagram carries, by its third byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 1.
    Knock,
    /// 2.
    Join,
    /// 3.
    Introduce,
    /// 4.
    Beacon,
    /// 5.
    Punch,
}

/// The 12 bytes in the clear before the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// What is inside.
    pub kind: Kind,
    /// The number of the network secret mod 256; 0 where an invite's secret seals.
    pub epoch: u8,
    /// The join id where an invite's secret seals, else 0.
    pub hint: [u8; 8],
}

/// What the signature inside a Knock, Join or Beacon covers, but for whom it is meant for (protocol §11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPart {
    header: [u8; HEADER],
    nonce: [u8; NONCE],
    unsigned: Vec<u8>,
}

/// An opened datagram. Its signature has not been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its header.
    pub header: Header,
    /// Its nonce.
    pub nonce: [u8; NONCE],
    /// Its body.
    pub body: Sealed,
    /// What the body's signature covers; of no use for an Introduce or a Punch, which have none.
    pub signed: SignedPart,
    /// How many unknown entries of the body were skipped.
    pub unknown_keys: u32,
}

/// Why a sealed datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotOpened {
    /// This is not the key, or somebody touched it.
    #[error("the key does not open it")]
    Key,
    /// It opened, and then was not what it must be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A body longer than one sealed datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a body of {0} bytes is more than one sealed datagram holds")]
pub struct TooLong(pub usize);

/// A body that a sealed datagram carries, after it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// 1: a member wants a session.
    Knock(Knock),
    /// 2: the holder of a token wants a join session.
    Join(Join),
    /// 3: a datagram of a joiner for an issuer that this member can reach.
    Introduce(Introduce),
    /// 4: a member is on this LAN.
    Beacon(Beacon),
    /// 5: opens a NAT; never answered.
    Punch(Punch),
}

/// A member wants a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Knock {
    /// Who.
    #[n(1)]
    pub node: NodeId,
    /// Greater than all before it of this node.
    #[n(2)]
    pub stamp: u64,
    /// This run of the sender.
    #[n(3)]
    pub boot: Boot,
    /// 0.
    #[n(4)]
    pub flags: u64,
    /// The sender's Member, its signer's Admin, its Peer record.
    #[cbor(n(5), with = "fields::blobs", skip_if = "Vec::is_empty")]
    pub records: Vec<Vec<u8>>,
    /// Over receiver ‖ header ‖ nonce ‖ the body without this entry.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// The holder of a token wants a join session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Join {
    /// Who it will be.
    #[n(1)]
    pub node: NodeId,
    /// Its tunnel key, in ed25519 form.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub tunnel: [u8; 32],
    /// Greater than all before it of this node.
    #[n(3)]
    pub stamp: u64,
    /// This run of the sender.
    #[n(4)]
    pub boot: Boot,
    /// Over issuer x25519 key ‖ header ‖ nonce ‖ the body without this entry.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A datagram for somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Introduce {
    /// A Join or a WireGuard message, types 01–04.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub datagram: Vec<u8>,
}

/// A member is on this LAN.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Beacon {
    /// Who.
    #[n(1)]
    pub node: NodeId,
    /// Greater than all before it of this node.
    #[n(2)]
    pub stamp: u64,
    /// Its UDP port.
    #[n(3)]
    pub port: u16,
    /// This run of the sender.
    #[n(4)]
    pub boot: Boot,
    /// Over header ‖ nonce ‖ the body without this entry.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Opens a NAT.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Punch {
    /// Unix ms.
    #[n(1)]
    pub stamp: u64,
}

layout! {
    Knock: [1, 2, 3, 4, 5, 6];
    Join: [1, 2, 3, 4, 5];
    Introduce: [1];
    Beacon: [1, 2, 3, 4, 5];
    Punch: [1];
}

const KNOCK_SIGNATURE: u64 = 6;
const JOIN_SIGNATURE: u64 = 5;
const BEACON_SIGNATURE: u64 = 5;

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Knock),
            2 => Some(Self::Join),
            3 => Some(Self::Introduce),
            4 => Some(Self::Beacon),
            5 => Some(Self::Punch),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::Knock => 1,
            Self::Join => 2,
            Self::Introduce => 3,
            Self::Beacon => 4,
            Self::Punch => 5,
        }
    }

    /// Whether a secret of the network seals it; else an invite's does.
    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Knock | Self::Beacon)
    }
}

impl Header {
    /// Reads the first four bytes and the hint.
    pub(super) fn read(front: [u8; 4], hint: [u8; 8]) -> Result<Self, Malformed> {
        let [first, version, kind, epoch] = front;
        let kind = Kind::from_number(kind).ok_or(Malformed::Layout)?;
        let stray = if kind.is_of_network() {
            hint != [0; 8]
        } else {
            epoch != 0
        };
        if first != TYPE || version != VERSION || stray {
            return Err(Malformed::Layout);
        }
        Ok(Self { kind, epoch, hint })
    }

    /// The 12 bytes.
    pub fn bytes(&self) -> [u8; HEADER] {
        let [a, b, c, d, e, f, g, h] = self.hint;
        [
            TYPE,
            VERSION,
            self.kind.number(),
            self.epoch,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ]
    }
}

impl Sealed {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Knock(_) => Kind::Knock,
            Self::Join(_) => Kind::Join,
            Self::Introduce(_) => Kind::Introduce,
            Self::Beacon(_) => Kind::Beacon,
            Self::Punch(_) => Kind::Punch,
        }
    }

    /// The body as [`seal`] takes it.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Knock(body) => body.to_bytes(),
            Self::Join(body) => body.to_bytes(),
            Self::Introduce(body) => body.to_bytes(),
            Self::Beacon(body) => body.to_bytes(),
            Self::Punch(body) => body.to_bytes(),
        }
    }

    fn decode(kind: Kind, plaintext: &[u8]) -> Result<(Self, Vec<u8>, u32), Malformed> {
        match kind {
            Kind::Knock => read_signed(plaintext, KNOCK_SIGNATURE, Self::Knock),
            Kind::Join => read_signed(plaintext, JOIN_SIGNATURE, Self::Join),
            Kind::Beacon => read_signed(plaintext, BEACON_SIGNATURE, Self::Beacon),
            Kind::Introduce => read_bare(plaintext, Self::Introduce),
            Kind::Punch => read_bare(plaintext, Self::Punch),
        }
    }
}

impl Knock {
    /// The body as a map without the signature, for [`SignedPart::new`]; the signature field is not looked at.
    pub fn unsigned(&self) -> Vec<u8> {
        without(self, KNOCK_SIGNATURE)
    }
}

impl Join {
    /// The body as a map without the signature, for [`SignedPart::new`]; the signature field is not looked at.
    pub fn unsigned(&self) -> Vec<u8> {
        without(self, JOIN_SIGNATURE)
    }
}

impl Beacon {
    /// The body as a map without the signature, for [`SignedPart::new`]; the signature field is not looked at.
    pub fn unsigned(&self) -> Vec<u8> {
        without(self, BEACON_SIGNATURE)
    }
}

impl SignedPart {
    /// For a body that is about to be signed and then sealed with this header and nonce.
    pub fn new(header: Header, nonce: [u8; NONCE], unsigned: Vec<u8>) -> Self {
        Self {
            header: header.bytes(),
            nonce,
            unsigned,
        }
    }

    /// The bytes that are signed, in pieces. `audience` is the receiver's node id for a Knock, the issuer's x25519 key
    /// for a Join, and empty for a Beacon.
    pub fn parts<'a>(&'a self, audience: &'a [u8]) -> [&'a [u8]; 4] {
        [audience, &self.header, &self.nonce, &self.unsigned]
    }
}

/// Reads the header of a sealed datagram, to know which keys to try.
///
/// # Errors
/// A wrong length, an unknown kind, or a hint or an epoch where none belongs.
pub fn parse_header(datagram: &[u8]) -> Result<Header, Malformed> {
    if datagram.len() < SEALED_MIN {
        return Err(Malformed::CutShort);
    }
    if datagram.len() > SEALED_MAX {
        return Err(Malformed::TooLong);
    }
    let mut reader = Reader::new(datagram);
    let (front, hint) = (reader.array()?, reader.array()?);
    Header::read(front, hint)
}

/// Seals a body, padded so that the datagram is at least [`SEALED_MIN`] bytes long.
///
/// # Errors
/// A body that does not fit into [`SEALED_MAX`].
pub fn seal(
    header: Header,
    nonce: [u8; NONCE],
    key: &[u8; 32],
    body: &[u8],
) -> Result<Vec<u8>, TooLong> {
    const AROUND: usize = HEADER + NONCE + TAG;
    if body.len() > SEALED_MAX - AROUND {
        return Err(TooLong(body.len()));
    }
    let head = header.bytes();
    let mut plaintext = body.to_vec();
    plaintext.resize(body.len().max(SEALED_MIN - AROUND), 0);
    let sealed = envelope::seal(key, nonce, &head, plaintext);
    Ok([&head[..], &sealed].concat())
}

/// Opens a sealed datagram: first the AEAD, then the checker, then the body. Nothing asymmetric is computed.
///
/// # Errors
/// [`NotOpened::Key`] when this is not the key; else what is wrong inside.
pub fn open(datagram: &[u8], key: &[u8; 32]) -> Result<Opened, NotOpened> {
    let header = parse_header(datagram)?;
    let mut reader = Reader::new(datagram);
    let head: [u8; HEADER] = reader.array()?;
    let (nonce, plaintext) = envelope::open(key, &head, reader.rest()).ok_or(NotOpened::Key)?;
    let (body, unsigned, unknown_keys) = Sealed::decode(header.kind, &plaintext)?;
    Ok(Opened {
        header,
        nonce,
        body,
        signed: SignedPart {
            header: head,
            nonce,
            unsigned,
        },
        unknown_keys,
    })
}

fn without<T: Layout>(body: &T, signature: u64) -> Vec<u8> {
    let bytes = body.to_bytes();
    let item =
        Item::front(&bytes, usize::MAX, T::KEYS).expect("what is encoded here is in the profile");
    item.without(signature)
}

fn read_signed<T: Layout>(
    plaintext: &[u8],
    signature: u64,
    sealed: impl FnOnce(T) -> Sealed,
) -> Result<(Sealed, Vec<u8>, u32), Malformed> {
    let item = envelope::front::<T>(plaintext)?;
    if item.critical() {
        return Err(Malformed::Entry);
    }
    let decoded = item.decode()?;
    Ok((
        sealed(decoded.body),
        item.without(signature),
        decoded.unknown,
    ))
}

fn read_bare<T: Layout>(
    plaintext: &[u8],
    sealed: impl FnOnce(T) -> Sealed,
) -> Result<(Sealed, Vec<u8>, u32), Malformed> {
    let decoded = envelope::front::<T>(plaintext)?.decode()?;
    Ok((sealed(decoded.body), Vec::new(), decoded.unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];

    fn header(kind: Kind) -> Header {
        Header {
            kind,
            epoch: 0,
            hint: [0; 8],
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        for number in 1..=5 {
            let kind = Kind::from_number(number).unwrap();
            let header = if kind.is_of_network() {
                Header {
                    epoch: 9,
                    ..header(kind)
                }
            } else {
                Header {
                    hint: [7; 8],
                    ..header(kind)
                }
            };
            let datagram = seal(header, [2; 24], &KEY, &[0xa0]).unwrap();
            assert_eq!(parse_header(&datagram), Ok(header));
            assert_eq!(datagram.len(), SEALED_MIN);
        }
    }

    #[test]
    fn a_kind_that_is_not_known_and_a_stray_hint_or_epoch_are_refused() {
        let mut datagram = seal(header(Kind::Knock), [2; 24], &KEY, &[0xa0]).unwrap();
        for kind in [0, 6, 255] {
            datagram[2] = kind;
            assert_eq!(parse_header(&datagram), Err(Malformed::Layout));
        }
        let knock = Header {
            hint: [1; 8],
            ..header(Kind::Knock)
        };
        let join = Header {
            epoch: 1,
            ..header(Kind::Join)
        };
        for stray in [knock, join] {
            let datagram = seal(stray, [2; 24], &KEY, &[0xa0]).unwrap();
            assert_eq!(parse_header(&datagram), Err(Malformed::Layout), "{stray:?}");
        }
    }

    #[test]
    fn the_key_is_asked_before_anything_inside() {
        let datagram = seal(header(Kind::Punch), [2; 24], &KEY, b"no CBOR").unwrap();
        assert_eq!(open(&datagram, &[3; 32]), Err(NotOpened::Key));
        assert!(matches!(
            open(&datagram, &KEY),
            Err(NotOpened::Malformed(_))
        ));
    }

    #[test]
    fn a_body_fills_one_datagram_and_no_more() {
        let fits = seal(header(Kind::Introduce), [2; 24], &KEY, &[0; 1148]).unwrap();
        assert_eq!(fits.len(), SEALED_MAX);
        assert_eq!(
            seal(header(Kind::Introduce), [2; 24], &KEY, &[0; 1149]),
            Err(TooLong(1149))
        );
    }

    #[test]
    fn a_knock_without_records_does_not_name_them() {
        let knock = Knock {
            node: NodeId([1; 32]),
            stamp: 1,
            boot: Boot([2; 8]),
            flags: 0,
            records: vec![],
            signature: [0; 64],
        };
        assert_eq!(Sealed::Knock(knock.clone()).body()[0], 0xa5);
        assert_eq!(knock.unsigned()[0], 0xa4);
    }
}
