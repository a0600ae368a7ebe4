//! The CBOR profile of protocol §0 and its one checker, which runs before every decode.
//!
//! The profile: one map with ascending unsigned keys, deterministic heads (RFC 8949 §4.2.1), definite lengths, no
//! tags, nothing of major type 7 (floats, booleans, null), at most [`MAX_DEPTH`] containers inside each other. What
//! passes is an [`Item`]; only an item becomes a type, and only by its known keys.

use std::borrow::Cow;

use super::Malformed;

/// How many containers may stand inside each other, the body's map counted (protocol §0).
pub const MAX_DEPTH: u8 = 4;

/// How many elements an array under a known key may have. No body of protocol §11 needs more; without it one byte of
/// input could cost 24 of memory.
pub const MAX_ELEMENTS: u64 = 64;

/// From this key on an unknown entry of a signed object makes it unusable (protocol §0).
pub const CRITICAL: u64 = 128;

/// A type that is the body of a message, a record or a sealed datagram.
pub trait Layout: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()> {
    /// The keys this build knows, ascending.
    const KEYS: &'static [u64];

    /// The body's bytes, in the profile.
    fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }
}

/// Gives a type its list of known keys.
macro_rules! layout {
    ($($name:ty: [$($key:literal),*];)*) => {
        $(impl $crate::wire::cbor::Layout for $name {
            const KEYS: &'static [u64] = &[$($key),*];
        })*
    };
}
pub(super) use layout;

/// One body that is in the profile.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    known: &'static [u64],
    unknown: u32,
    critical: bool,
}

/// A body and what was odd about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The body.
    pub body: T,
    /// How many unknown entries were skipped.
    pub unknown: u32,
    /// Whether an unknown entry had a key from [`CRITICAL`] on.
    pub critical: bool,
}

impl<T> Decoded<T> {
    /// The same, of what `f` makes of the body.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Decoded<U> {
        Decoded {
            body: f(self.body),
            unknown: self.unknown,
            critical: self.critical,
        }
    }
}

/// Decodes a body that is the whole of `bytes`.
///
/// # Errors
/// What is not in the profile, longer than `limit`, or not a `T`.
pub fn decode<T: Layout>(bytes: &[u8], limit: usize) -> Result<Decoded<T>, Malformed> {
    let item = Item::front(bytes, limit, T::KEYS)?;
    if !item.rest.is_empty() {
        return Err(Malformed::Trailing);
    }
    item.decode()
}

impl<'a> Item<'a> {
    /// Finds the one body at the front of `bytes`, which are at most `limit`; `known` is ascending.
    ///
    /// # Errors
    /// What is not in the profile, or longer than `limit`.
    pub fn front(bytes: &'a [u8], limit: usize, known: &'static [u64]) -> Result<Self, Malformed> {
        if bytes.len() > limit {
            return Err(Malformed::TooLong);
        }
        let mut item = Self {
            bytes,
            rest: &[],
            known,
            unknown: 0,
            critical: false,
        };
        let mut scanner = Scanner { left: bytes };
        let count = scanner.map_head()?;
        let mut last = None;
        for _ in 0..count {
            let key = scanner.key(last)?;
            last = Some(key);
            if known.binary_search(&key).is_ok() {
                scanner.limit_elements()?;
            } else {
                item.unknown = item.unknown.saturating_add(1);
                item.critical |= key >= CRITICAL;
            }
            scanner.item(1)?;
        }
        item.rest = scanner.left;
        item.bytes = bytes
            .get(..bytes.len() - scanner.left.len())
            .ok_or(Malformed::CutShort)?;
        Ok(item)
    }

    /// What follows the body.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether an unknown entry has a key from [`CRITICAL`] on.
    pub fn critical(&self) -> bool {
        self.critical
    }

    /// Makes the type of it; unknown entries are left out before.
    ///
    /// # Errors
    /// [`Malformed::Entry`].
    pub fn decode<T: Layout>(&self) -> Result<Decoded<T>, Malformed> {
        let bytes = if self.unknown == 0 {
            Cow::Borrowed(self.bytes)
        } else {
            Cow::Owned(self.select(|key| self.known.binary_search(&key).is_ok()))
        };
        let Ok(body) = minicbor::decode(&bytes) else {
            return Err(Malformed::Entry);
        };
        Ok(Decoded {
            body,
            unknown: self.unknown,
            critical: self.critical,
        })
    }

    /// The body as a map without one entry, its header counting one less: what a signature inside it covers.
    pub fn without(&self, key: u64) -> Vec<u8> {
        self.select(|other| other != key)
    }

    fn select(&self, keep: impl Fn(u64) -> bool) -> Vec<u8> {
        let mut entries = Vec::with_capacity(self.bytes.len());
        let mut kept = 0;
        for (key, entry) in self.entries() {
            if keep(key) {
                kept += 1;
                entries.extend_from_slice(entry);
            }
        }
        let mut out = Vec::with_capacity(entries.len() + 9);
        minicbor::Encoder::new(&mut out)
            .map(kept)
            .expect("writing to memory cannot fail");
        out.append(&mut entries);
        out
    }

    fn entries(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut scanner = Scanner { left: self.bytes };
        let mut count = scanner.map_head().unwrap_or(0);
        std::iter::from_fn(move || {
            count = count.checked_sub(1)?;
            let start = scanner.left;
            let key = scanner.key(None).ok()?;
            scanner.item(1).ok()?;
            Some((key, start.get(..start.len() - scanner.left.len())?))
        })
    }
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

#[derive(Clone, Copy)]
struct Scanner<'a> {
    left: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn map_head(&mut self) -> Result<u64, Malformed> {
        match self.head()? {
            (MAP, count) => Ok(count),
            _ => Err(Malformed::Profile),
        }
    }

    fn key(&mut self, last: Option<u64>) -> Result<u64, Malformed> {
        match self.head()? {
            (UNSIGNED, key) if last.is_none_or(|last| key > last) => Ok(key),
            _ => Err(Malformed::Profile),
        }
    }

    fn limit_elements(self) -> Result<(), Malformed> {
        let mut ahead = self;
        match ahead.head()? {
            (ARRAY, count) if count > MAX_ELEMENTS => Err(Malformed::TooLong),
            _ => Ok(()),
        }
    }

    /// Passes one item that stands inside `depth` containers.
    fn item(&mut self, depth: u8) -> Result<(), Malformed> {
        let (major, argument) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => Ok(()),
            BYTES => self.pass(argument).map(|_| ()),
            TEXT => match std::str::from_utf8(self.pass(argument)?) {
                Ok(_) => Ok(()),
                Err(_) => Err(Malformed::Profile),
            },
            ARRAY | MAP if depth == MAX_DEPTH => Err(Malformed::Profile),
            ARRAY => (0..argument).try_for_each(|_| self.item(depth + 1)),
            MAP => self.inner_map(argument, depth + 1),
            _ => Err(Malformed::Profile),
        }
    }

    fn inner_map(&mut self, count: u64, depth: u8) -> Result<(), Malformed> {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.key(last)?);
            self.item(depth)?;
        }
        Ok(())
    }

    fn pass(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let Ok(len) = usize::try_from(len) else {
            return Err(Malformed::CutShort);
        };
        let (passed, left) = self.left.split_at_checked(len).ok_or(Malformed::CutShort)?;
        self.left = left;
        Ok(passed)
    }

    /// Reads one head: its major type and its argument, which must be in its shortest form.
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let (first, left) = self.left.split_first().ok_or(Malformed::CutShort)?;
        self.left = left;
        let (argument, least) = match first & 0x1f {
            small @ 0..24 => (u64::from(small), 0),
            24 => (self.number::<1>()?, 24),
            25 => (self.number::<2>()?, 1 << 8),
            26 => (self.number::<4>()?, 1 << 16),
            27 => (self.number::<8>()?, 1 << 32),
            _ => return Err(Malformed::Profile),
        };
        if argument < least {
            Err(Malformed::Profile)
        } else {
            Ok((first >> 5, argument))
        }
    }

    fn number<const N: usize>(&mut self) -> Result<u64, Malformed> {
        let (bytes, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(Malformed::CutShort)?;
        self.left = left;
        Ok(bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[u64] = &[1, 2];

    fn front(bytes: &[u8]) -> Result<Item<'_>, Malformed> {
        Item::front(bytes, 1100, KNOWN)
    }

    #[test]
    fn what_is_not_deterministic_is_refused() {
        let cases: [(&str, &[u8]); 19] = [
            ("no map", &[0x81, 1]),
            ("indefinite map", &[0xbf, 1, 1, 0xff]),
            ("indefinite array", &[0xa1, 1, 0x9f, 0xff]),
            ("indefinite bytes", &[0xa1, 1, 0x5f, 0x41, 0, 0xff]),
            ("a long head", &[0xa1, 1, 0x18, 23]),
            ("a longer head", &[0xa1, 1, 0x19, 0, 255]),
            ("a head of four", &[0xa1, 1, 0x1a, 0, 0, 255, 255]),
            (
                "a head of eight",
                &[0xa1, 1, 0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            ),
            ("a long key", &[0xa1, 0x18, 1, 1]),
            ("a long map head", &[0xb8, 1, 1, 1]),
            ("a descending key", &[0xa2, 2, 1, 1, 1]),
            ("a key twice", &[0xa2, 1, 1, 1, 1]),
            ("a negative key", &[0xa1, 0x20, 1]),
            ("a text key", &[0xa1, 0x61, b'a', 1]),
            ("null", &[0xa1, 1, 0xf6]),
            ("true", &[0xa1, 1, 0xf5]),
            ("a float", &[0xa1, 1, 0xf9, 0, 0]),
            ("a tag", &[0xa1, 1, 0xc1, 1]),
            ("text that is no UTF-8", &[0xa1, 1, 0x61, 0xff]),
        ];
        for (name, bytes) in cases {
            assert_eq!(front(bytes).map(|_| ()), Err(Malformed::Profile), "{name}");
        }
    }

    #[test]
    fn what_announces_more_than_there_is_is_cut_short() {
        let cases: [&[u8]; 6] = [
            &[],
            &[0xa1],
            &[0xa1, 1],
            &[0xa1, 1, 0x42, 0],
            &[0xa1, 3, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1],
        ];
        for bytes in cases {
            assert_eq!(
                front(bytes).map(|_| ()),
                Err(Malformed::CutShort),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn four_containers_may_stand_inside_each_other_and_not_five() {
        assert!(front(&[0xa1, 1, 0x81, 0x81, 0x81, 0]).is_ok());
        assert_eq!(
            front(&[0xa1, 1, 0x81, 0x81, 0x81, 0x80]).map(|_| ()),
            Err(Malformed::Profile)
        );
        assert!(front(&[0xa1, 9, 0xa1, 0, 0xa1, 0, 0xa1, 0, 0]).is_ok());
        assert_eq!(
            front(&[0xa1, 9, 0xa2, 1, 0, 0, 0]).map(|_| ()),
            Err(Malformed::Profile),
            "an inner map in disorder"
        );
    }

    #[test]
    fn a_known_array_is_bounded_and_an_unknown_one_is_not() {
        let array =
            |key: u8, count: u8| [vec![0xa1, key, 0x98, count], vec![0; count.into()]].concat();
        assert!(front(&array(1, 64)).is_ok());
        assert_eq!(front(&array(1, 65)).map(|_| ()), Err(Malformed::TooLong));
        assert!(front(&array(3, 65)).is_ok());
    }

    #[test]
    fn unknown_entries_are_counted_by_what_they_demand() {
        let item = front(&[0xa3, 0, 0, 1, 7, 0x18, 127, 0]).unwrap();
        assert_eq!((item.unknown, item.critical), (2, false));
        let item = front(&[0xa2, 1, 7, 0x18, 128, 0]).unwrap();
        assert_eq!((item.unknown, item.critical), (1, true));
    }

    #[test]
    fn an_item_ends_where_it_ends_and_gives_up_an_entry() {
        let item = front(&[0xa2, 1, 7, 2, 0x41, 9, 0, 0]).unwrap();
        assert_eq!(item.rest(), [0, 0]);
        assert_eq!(item.without(2), [0xa1, 1, 7]);
        assert_eq!(item.without(5), [0xa2, 1, 7, 2, 0x41, 9]);
        let entries: Vec<u8> = (0..24).flat_map(|key| [key, 0]).collect();
        let many = [&[0xb8, 24][..], &entries].concat();
        assert_eq!(
            front(&many).unwrap().without(23)[..3],
            [0xb7, 0, 0],
            "the header in its shortest form"
        );
    }

    #[test]
    fn more_than_the_limit_is_not_looked_at() {
        assert_eq!(
            Item::front(&[0xa0; 5], 4, KNOWN).map(|_| ()),
            Err(Malformed::TooLong)
        );
    }
}
