//! What stands in a slot of the Mainline DHT (protocol §12): who is where, sealed so that only those who can find the slot
//! can read it.

use minicbor::{Decode, Encode};

use super::{
    Malformed,
    cbor::{self, Layout, layout},
    envelope::{self, NONCE, TAG},
    fields,
};
use crate::{addr::Underlay, ids::NodeId, keys::SlotKey};

/// Bytes of a sealed value.
pub const VALUE: usize = NONCE + PLAINTEXT + TAG;
/// Entries in one slot.
pub const WHERES_MAX: usize = 8;
/// Addresses in one entry.
pub const ADDRESSES_MAX: usize = 3;

const PLAINTEXT: usize = 880;
/// The longest entry: a node, three IPv6 addresses, a time.
const WHERE_MAX: usize = 128;

/// That a node is to be found at these addresses. Nothing signs it: a candidate, no proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Where {
    /// Who.
    #[n(1)]
    pub node: NodeId,
    /// Where, best first, at most [`ADDRESSES_MAX`].
    #[n(2)]
    pub addresses: Vec<Underlay>,
    /// Unix s, when it was written.
    #[n(3)]
    pub time: u64,
}

/// The body of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Slot {
    #[cbor(n(1), with = "fields::blobs")]
    wheres: Vec<Vec<u8>>,
}

layout! {
    Where: [1, 2, 3];
    Slot: [1];
}

/// Why a value was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// It is not sealed by this slot's key.
    #[error("the slot's key does not open it")]
    Key,
    /// It opened, and then was not what it must be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Seals entries, the first [`WHERES_MAX`] of them, each with its first [`ADDRESSES_MAX`] addresses.
pub fn seal(key: &SlotKey, nonce: [u8; NONCE], wheres: &[Where]) -> Vec<u8> {
    let cut = |entry: &Where| {
        let mut entry = entry.clone();
        entry.addresses.truncate(ADDRESSES_MAX);
        entry.to_bytes()
    };
    let wheres = wheres.iter().take(WHERES_MAX).map(cut).collect();
    let mut plaintext = Slot { wheres }.to_bytes();
    plaintext.resize(PLAINTEXT, 0);
    envelope::seal(&key.seal, nonce, &key.public(), plaintext)
}

/// Opens a value. An entry that is none is left out: one writer's mistake must not hide the others.
///
/// # Errors
/// [`NotRead::Key`] when another wrote it; else what is wrong inside.
pub fn open(key: &SlotKey, value: &[u8]) -> Result<Vec<Where>, NotRead> {
    if value.len() != VALUE {
        return Err(Malformed::Layout.into());
    }
    let (_, plaintext) = envelope::open(&key.seal, &key.public(), value).ok_or(NotRead::Key)?;
    let slot: Slot = envelope::front::<Slot>(&plaintext)?.decode()?.body;
    let entry = |bytes: &Vec<u8>| cbor::decode::<Where>(bytes, WHERE_MAX).ok();
    let mut wheres: Vec<Where> = slot
        .wheres
        .iter()
        .filter_map(entry)
        .map(|decoded| decoded.body)
        .filter(|entry| entry.addresses.len() <= ADDRESSES_MAX)
        .collect();
    wheres.truncate(WHERES_MAX);
    Ok(wheres)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::NetSecret;

    fn key() -> SlotKey {
        NetSecret([7; 32]).slot(20_000, 1, 0)
    }

    fn entry(node: u8, addresses: usize) -> Where {
        Where {
            node: NodeId([node; 32]),
            addresses: vec![Underlay::new("[2001:db8::7]:41820".parse().unwrap()); addresses],
            time: 1_800_000_000 + u64::from(node),
        }
    }

    #[test]
    fn a_value_is_as_long_whatever_stands_in_it_and_reads_as_it_was_written() {
        let full: Vec<Where> = (0..8).map(|node| entry(node, 3)).collect();
        for wheres in [Vec::new(), vec![entry(1, 1)], full] {
            let value = seal(&key(), [3; 24], &wheres);
            assert_eq!((value.len(), VALUE), (920, 920));
            assert_eq!(open(&key(), &value), Ok(wheres));
        }
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let many: Vec<Where> = (0..20).map(|node| entry(node, 5)).collect();
        let read = open(&key(), &seal(&key(), [3; 24], &many)).unwrap();
        assert_eq!(read.len(), 8);
        assert!(read.iter().all(|entry| entry.addresses.len() == 3));
    }

    #[test]
    fn another_slots_value_and_a_touched_one_do_not_open() {
        let value = seal(&key(), [3; 24], &[entry(1, 1)]);
        let other = NetSecret([7; 32]).slot(20_000, 1, 1);
        assert_eq!(open(&other, &value), Err(NotRead::Key));
        let mut touched = value.clone();
        touched[40] ^= 1;
        assert_eq!(open(&key(), &touched), Err(NotRead::Key));
        assert_eq!(
            open(&key(), &value[1..]),
            Err(NotRead::Malformed(Malformed::Layout))
        );
    }

    #[test]
    fn an_entry_that_is_none_hides_no_other() {
        let (good, bad) = (entry(1, 1).to_bytes(), vec![0xff; 9]);
        let mut plaintext = Slot {
            wheres: vec![bad, good],
        }
        .to_bytes();
        plaintext.resize(PLAINTEXT, 0);
        let value = envelope::seal(&key().seal, [3; 24], &key().public(), plaintext);
        assert_eq!(open(&key(), &value), Ok(vec![entry(1, 1)]));
    }
}
