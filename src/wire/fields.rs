//! How single entries of a body are written (protocol §11): ids, addresses, flags, lists of byte strings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error,
    encode::{self, Write},
};

use super::cbor::MAX_ELEMENTS;
use crate::{
    addr::Underlay,
    ids::{Boot, JoinId, NodeId, Slot, Version},
};

macro_rules! id_entry {
    ($($name:ident),*) => {$(
        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
                exact(d).map(Self)
            }
        }
    )*};
}
id_entry!(NodeId, JoinId, Boot);

/// An address: its octets and its port, 6 or 18 bytes. v4-mapped ones are refused: one address, one form.
impl<C> Encode<C> for Underlay {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let port = self.socket().port().to_le_bytes();
        match self.ip() {
            IpAddr::V4(ip) => e.bytes(&[&ip.octets()[..], &port].concat())?.ok(),
            IpAddr::V6(ip) => e.bytes(&[&ip.octets()[..], &port].concat())?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Underlay {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let bytes = d.bytes()?;
        let ip = match bytes.len() {
            6 => bytes
                .first_chunk::<4>()
                .map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
            18 => bytes
                .first_chunk::<16>()
                .map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
            _ => None,
        };
        match (ip, bytes.last_chunk::<2>()) {
            (Some(ip), Some(port)) if ip == ip.to_canonical() => {
                Ok(Self::new(SocketAddr::new(ip, u16::from_le_bytes(*port))))
            }
            _ => Err(Error::message("not an address")),
        }
    }
}

fn exact<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], Error> {
    match <[u8; N]>::try_from(d.bytes()?) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Error::message("wrong length")),
    }
}

/// A boolean: 0 or 1.
pub(super) mod flag {
    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        flag: &bool,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u8(u8::from(*flag))?.ok()
    }

    pub(in crate::wire) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<bool, Error> {
        match d.u64()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::message("neither 0 nor 1")),
        }
    }
}

/// The sums of a digest: 1,024 bytes.
pub(super) mod sums {
    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        sums: &[u8; 1024],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(sums)?.ok()
    }

    pub(in crate::wire) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Box<[u8; 1024]>, Error> {
        exact(d).map(Box::new)
    }
}

/// A list of byte strings.
pub(super) mod blobs {
    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        blobs: &[Vec<u8>],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(blobs.len() as u64)?;
        for blob in blobs {
            e.bytes(blob)?;
        }
        Ok(())
    }

    pub(in crate::wire) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let count = d.array()?.filter(|count| *count <= MAX_ELEMENTS);
        let count = count.ok_or_else(|| Error::message("too many"))?;
        (0..count).map(|_| d.bytes().map(<[u8]>::to_vec)).collect()
    }
}

/// A list of byte strings that may be absent.
pub(super) mod optional_blobs {
    use super::*;

    #[expect(clippy::ref_option, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn encode<C, W: Write>(
        blobs: &Option<Vec<Vec<u8>>>,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        blobs::encode(blobs.as_deref().unwrap_or_default(), e, c)
    }

    pub(in crate::wire) fn decode<C>(
        d: &mut Decoder<'_>,
        c: &mut C,
    ) -> Result<Option<Vec<Vec<u8>>>, Error> {
        blobs::decode(d, c).map(Some)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn nil() -> Option<Option<Vec<Vec<u8>>>> {
        Some(None)
    }

    #[expect(clippy::ref_option, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn is_nil(blobs: &Option<Vec<Vec<u8>>>) -> bool {
        blobs.is_none()
    }
}

/// A byte string that may be absent.
pub(super) mod optional_bytes {
    use super::*;

    #[expect(clippy::ref_option, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn encode<C, W: Write>(
        bytes: &Option<Vec<u8>>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(bytes.as_deref().unwrap_or_default())?.ok()
    }

    pub(in crate::wire) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Option<Vec<u8>>, Error> {
        Ok(Some(d.bytes()?.to_vec()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn nil() -> Option<Option<Vec<u8>>> {
        Some(None)
    }

    #[expect(clippy::ref_option, reason = "the signature is minicbor's")]
    pub(in crate::wire) fn is_nil(bytes: &Option<Vec<u8>>) -> bool {
        bytes.is_none()
    }
}

/// Slots, 8 bytes each, at most 64.
pub(super) mod slots {
    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        slots: &[Slot],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes_len(slots.len() as u64 * 8)?;
        for slot in slots {
            e.writer_mut()
                .write_all(&slot.0)
                .map_err(encode::Error::write)?;
        }
        Ok(())
    }

    pub(in crate::wire) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Slot>, Error> {
        let (slots, []) = d.bytes()?.as_chunks::<8>() else {
            return Err(Error::message("a part of a slot"));
        };
        if slots.len() as u64 > MAX_ELEMENTS {
            return Err(Error::message("too many"));
        }
        Ok(slots.iter().map(|slot| Slot(*slot)).collect())
    }
}

/// Slots with versions, 16 bytes each, at most 64.
pub(super) mod entries {
    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        entries: &[(Slot, Version)],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes_len(entries.len() as u64 * 16)?;
        for (slot, version) in entries {
            e.writer_mut()
                .write_all(&slot.0)
                .map_err(encode::Error::write)?;
            e.writer_mut()
                .write_all(&version.0.to_le_bytes())
                .map_err(encode::Error::write)?;
        }
        Ok(())
    }

    pub(in crate::wire) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<(Slot, Version)>, Error> {
        let (entries, []) = d.bytes()?.as_chunks::<16>() else {
            return Err(Error::message("a part of an entry"));
        };
        if entries.len() as u64 > MAX_ELEMENTS {
            return Err(Error::message("too many"));
        }
        Ok(entries.iter().map(entry).collect())
    }

    fn entry(bytes: &[u8; 16]) -> (Slot, Version) {
        let [a, b, c, d, e, f, g, h, version @ ..] = *bytes;
        (
            Slot([a, b, c, d, e, f, g, h]),
            Version(u64::from_le_bytes(version)),
        )
    }
}

/// An IPv4 pool: octets and prefix length, /8 to /23 (protocol §10); bits outside the prefix are zero.
pub(super) mod pool4 {
    use ipnet::Ipv4Net;

    use super::*;

    pub(in crate::wire) fn encode<C, W: Write>(
        pool: &Ipv4Net,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let [a, b, c, d] = pool.addr().octets();
        e.bytes(&[a, b, c, d, pool.prefix_len()])?.ok()
    }

    pub(in crate::wire) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Ipv4Net, Error> {
        let [a, b, c, d, len] = exact(d)?;
        match Ipv4Net::new(Ipv4Addr::new(a, b, c, d), len) {
            Ok(pool) if pool == pool.trunc() && (8..=23).contains(&len) => Ok(pool),
            _ => Err(Error::message("not a prefix")),
        }
    }
}
