//! How a TLS stream between two agents begins, and how it carries datagrams (protocol §1).
//!
//! The client's first bytes are `30 01 kind epoch 00000000 ‖ hint[8] ‖ mac[24]`. The mac binds a secret that strangers do
//! not have to this one TLS connection (`tls-exporter`, RFC 9266), so that it is of no use on another.

use subtle::ConstantTimeEq as _;

use super::{
    Malformed,
    reader::Reader,
    sealed::{Header, Kind},
};
use crate::hash::{Use, hash};

/// Bytes with which the client begins.
pub const PREAMBLE: usize = 40;
/// Bytes of the mac.
pub const MAC: usize = 24;
/// Bytes of the channel binding that the mac covers.
pub const BINDING: usize = 32;
/// Bytes of the longest datagram on a stream: a frame with more ends it.
pub const DATAGRAM_MAX: usize = 2048;

/// The first bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Under whose key the mac is: a Knock's with a node id of zeros, a Join's, or an Introduce's.
    pub header: Header,
    /// The mac.
    pub mac: [u8; MAC],
}

impl Preamble {
    /// For one who has `key`, on the connection with this binding.
    pub fn new(header: Header, key: &[u8; 32], binding: &[u8; BINDING]) -> Self {
        Self {
            header,
            mac: mac(key, binding),
        }
    }

    /// Whether its sender has `key` and made it for the connection with this binding. In constant time.
    pub fn is_by(&self, key: &[u8; 32], binding: &[u8; BINDING]) -> bool {
        self.mac.ct_eq(&mac(key, binding)).into()
    }

    /// Writes it.
    pub fn bytes(&self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        let header = self.header.bytes();
        bytes[..4].copy_from_slice(&header[..4]);
        bytes[8..16].copy_from_slice(&header[4..]);
        bytes[16..].copy_from_slice(&self.mac);
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// A kind that begins no stream, a stray hint or epoch, or reserved bytes that are not zero.
    pub fn read(bytes: &[u8; PREAMBLE]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let front = reader.array()?;
        let reserved: [u8; 4] = reader.array()?;
        let header = Header::read(front, reader.array()?)?;
        let begins_streams = matches!(header.kind, Kind::Knock | Kind::Join | Kind::Introduce);
        if reserved != [0; 4] || !begins_streams {
            return Err(Malformed::Layout);
        }
        let mac = reader.array()?;
        Ok(Self { header, mac })
    }
}

fn mac(key: &[u8; 32], binding: &[u8; BINDING]) -> [u8; MAC] {
    let whole = hash(Use::Stream, &[key, binding]);
    let mut mac = [0; MAC];
    mac.copy_from_slice(&whole[..MAC]);
    mac
}

/// Writes one datagram behind its length.
///
/// # Errors
/// It is longer than a stream carries.
pub fn frame(datagram: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let len = u16::try_from(datagram.len()).map_err(|_longer| Malformed::TooLong)?;
    if datagram.len() > DATAGRAM_MAX {
        return Err(Malformed::TooLong);
    }
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(datagram);
    Ok(())
}

/// Takes the first datagram from what was read; none: it is not here as a whole yet.
///
/// # Errors
/// It is longer than a stream carries.
pub fn take<'a>(read: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let Some((len, rest)) = read.split_first_chunk() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*len));
    if len > DATAGRAM_MAX {
        return Err(Malformed::TooLong);
    }
    let whole = rest.split_at_checked(len);
    Ok(whole.map(|(datagram, behind)| {
        *read = behind;
        datagram
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const BINDING_A: [u8; BINDING] = [2; BINDING];

    fn header(kind: Kind) -> Header {
        let (epoch, hint) = match kind {
            Kind::Knock | Kind::Beacon => (9, [0; 8]),
            Kind::Join | Kind::Introduce | Kind::Punch => (0, [7; 8]),
        };
        Header { kind, epoch, hint }
    }

    #[test]
    fn a_preamble_reads_as_it_was_written() {
        for kind in [Kind::Knock, Kind::Join, Kind::Introduce] {
            let preamble = Preamble::new(header(kind), &KEY, &BINDING_A);
            assert_eq!(Preamble::read(&preamble.bytes()), Ok(preamble));
        }
    }

    #[test]
    fn a_mac_is_good_for_one_key_and_one_connection() {
        let preamble = Preamble::new(header(Kind::Knock), &KEY, &BINDING_A);
        assert!(preamble.is_by(&KEY, &BINDING_A));
        assert!(!preamble.is_by(&[3; 32], &BINDING_A));
        assert!(!preamble.is_by(&KEY, &[3; BINDING]));
    }

    #[test]
    fn what_begins_no_stream_is_refused() {
        for kind in [Kind::Beacon, Kind::Punch] {
            let bytes = Preamble::new(header(kind), &KEY, &BINDING_A).bytes();
            assert_eq!(Preamble::read(&bytes), Err(Malformed::Layout));
        }
        let good = Preamble::new(header(Kind::Knock), &KEY, &BINDING_A).bytes();
        for at in [0, 1, 4, 7, 8] {
            let mut bytes = good;
            bytes[at] ^= 0x40;
            assert_eq!(Preamble::read(&bytes), Err(Malformed::Layout), "byte {at}");
        }
    }

    #[test]
    fn datagrams_are_read_as_they_were_written_and_a_part_of_one_is_none() {
        let mut out = Vec::new();
        for datagram in [&b"abc"[..], b"", b"de"] {
            frame(datagram, &mut out).unwrap();
        }
        let mut rest = &out[..];
        assert_eq!(take(&mut rest), Ok(Some(&b"abc"[..])));
        assert_eq!(take(&mut rest), Ok(Some(&b""[..])));
        for short in 0..rest.len() {
            let mut part = &rest[..short];
            assert_eq!(take(&mut part), Ok(None));
            assert_eq!(part.len(), short);
        }
        assert_eq!(take(&mut rest), Ok(Some(&b"de"[..])));
        assert_eq!(take(&mut rest), Ok(None));
        assert_eq!(take(&mut &[9, 0][..]), Err(Malformed::TooLong));
    }

    #[test]
    fn a_datagram_stands_behind_its_length() {
        let mut out = Vec::new();
        frame(b"abc", &mut out).unwrap();
        assert_eq!(out, [0, 3, b'a', b'b', b'c']);
        let long = vec![0; DATAGRAM_MAX + 1];
        assert_eq!(frame(&long, &mut out), Err(Malformed::TooLong));
        assert_eq!(out.len(), 5);
    }
}
