//! A small file that is never half written: two slots, written in turn, each beside its place and then renamed (design
//! §11).
//!
//! A slot: "WMST" ‖ version u16 ‖ generation u64 ‖ length u32 ‖ body ‖ H("state", all before). The good slot of the
//! higher generation counts. Every later version keeps this envelope, so that damage and news are told apart.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{failpoint, ownership};
use crate::hash::{Use, hash};

/// The version of the bodies this build writes. A slot of a greater one is left alone.
const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"WMST";
const HEAD_BYTES: usize = 18;
const SUM_BYTES: usize = 32;

/// The most a body may be long: far above what invites and services of one peer need; a longer file is damaged.
const MAX_BODY_BYTES: usize = 4 << 20;

/// What a slot carries; it may hold keys, so it is wiped.
pub(super) type Body = Zeroizing<Vec<u8>>;

/// One two-slot file, open for writing.
#[derive(Debug)]
pub(super) struct SlotFile {
    folder: PathBuf,
    name: &'static str,
    generation: u64,
    next: Side,
}

/// Why a two-slot file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadSlotError {
    /// Both slots are there or one is, and none is whole.
    #[error("both copies of {0} are damaged")]
    Damaged(PathBuf),
    /// A later version of Webmesh wrote it.
    #[error("{0} was written by a later version of webmesh ({1})")]
    Newer(PathBuf, u16),
    /// The disk said no.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

enum Slot {
    Absent,
    Damaged,
    Newer(u16),
    Good { generation: u64, body: Body },
}

impl SlotFile {
    /// Reads both slots of `name` in `folder`. `None` for the body: neither is there.
    ///
    /// # Errors
    /// Nothing was changed on the disk.
    pub(super) fn load(
        folder: &Path,
        name: &'static str,
    ) -> Result<(Self, Option<Body>), LoadSlotError> {
        let path = folder.join(name);
        let read = |side: Side| {
            read_slot(&side.path(folder, name))
                .map_err(|error| LoadSlotError::Read(side.path(folder, name), error))
        };
        let (a, b) = (read(Side::A)?, read(Side::B)?);
        for slot in [&a, &b] {
            if let Slot::Newer(version) = slot {
                return Err(LoadSlotError::Newer(path, *version));
            }
        }
        let is_new = matches!((&a, &b), (Slot::Absent, Slot::Absent));
        let damaged = match (&a, &b) {
            (Slot::Damaged, Slot::Good { .. }) => Some(Side::A),
            (Slot::Good { .. }, Slot::Damaged) => Some(Side::B),
            (Slot::Absent | Slot::Newer(_) | Slot::Damaged | Slot::Good { .. }, _) => None,
        };
        if let Some(side) = damaged {
            tracing::warn!(
                file = %side.path(folder, name).display(),
                "One of two copies is damaged; the other is used, and the last change may be lost"
            );
        }
        let newest = match (a, b) {
            (
                Slot::Good {
                    generation: a,
                    body,
                },
                Slot::Good { generation: b, .. },
            ) if a >= b => Some((a, body, Side::B)),
            (_, Slot::Good { generation, body }) => Some((generation, body, Side::A)),
            (Slot::Good { generation, body }, _) => Some((generation, body, Side::B)),
            (
                Slot::Absent | Slot::Damaged | Slot::Newer(_),
                Slot::Absent | Slot::Damaged | Slot::Newer(_),
            ) => None,
        };
        let file = |generation, next| Self {
            folder: folder.to_owned(),
            name,
            generation,
            next,
        };
        match newest {
            Some((generation, body, next)) => Ok((file(generation, next), Some(body))),
            None if is_new => Ok((file(0, Side::A), None)),
            None => Err(LoadSlotError::Damaged(path)),
        }
    }

    /// Writes a new body and waits until it is on the disk. `point` names the write for tests that crash in it.
    ///
    /// # Errors
    /// The body stored before still counts.
    pub(super) fn store(&mut self, body: &[u8], point: &str) -> io::Result<()> {
        failpoint::reach(&format!("{point}.before"));
        let bytes = encode_slot(self.generation + 1, body)?;
        // Beside the slot: the very first write has no older slot to fall back on if it is torn.
        let fresh = self.folder.join(format!("{}.new", self.name));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        ownership::follow(&self.folder, &fresh);
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        file.write_all(head)?;
        failpoint::reach(&format!("{point}.torn"));
        file.write_all(tail)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.next.path(&self.folder, self.name))?;
        File::open(&self.folder)?.sync_all()?;
        self.generation += 1;
        self.next = self.next.other();
        failpoint::reach(&format!("{point}.after"));
        Ok(())
    }

    /// Follows its folder, which was renamed.
    pub(super) fn rename(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn path(self, folder: &Path, name: &str) -> PathBuf {
        let letter = match self {
            Self::A => 'a',
            Self::B => 'b',
        };
        folder.join(format!("{name}.{letter}"))
    }
}

fn encode_slot(generation: u64, body: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY_BYTES)
        .ok_or_else(|| io::Error::other("the state is larger than 4 MiB"))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + body.len() + SUM_BYTES));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(body);
    let sum = hash(Use::State, &[&bytes]);
    bytes.extend_from_slice(&sum);
    Ok(bytes)
}

fn read_slot(path: &Path) -> io::Result<Slot> {
    let length = match std::fs::metadata(path) {
        Ok(facts) => facts.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Absent),
        Err(error) => return Err(error),
    };
    if length > (HEAD_BYTES + MAX_BODY_BYTES + SUM_BYTES) as u64 {
        return Ok(Slot::Damaged);
    }
    let bytes = Zeroizing::new(std::fs::read(path)?);
    Ok(decode_slot(&bytes).unwrap_or(Slot::Damaged))
}

fn decode_slot(bytes: &[u8]) -> Option<Slot> {
    let (signed, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
    let (head, body) = signed.split_at_checked(HEAD_BYTES)?;
    let version = u16::from_le_bytes(head.get(4..6)?.try_into().ok()?);
    let generation = u64::from_le_bytes(head.get(6..14)?.try_into().ok()?);
    let length = u32::from_le_bytes(head.get(14..18)?.try_into().ok()?);
    if head.get(..4)? != MAGIC || hash(Use::State, &[signed]) != sum {
        return None;
    }
    if version > VERSION {
        return Some(Slot::Newer(version));
    }
    (length as usize == body.len()).then(|| Slot::Good {
        generation,
        body: Zeroizing::new(body.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::state_dir::tests::scratch;

    fn body(folder: &Path) -> Option<Vec<u8>> {
        SlotFile::load(folder, "state")
            .unwrap()
            .1
            .map(|body| body.to_vec())
    }

    #[test]
    fn what_was_stored_last_is_found_again() {
        let folder = scratch("slots");
        let (mut file, none) = SlotFile::load(&folder, "state").unwrap();
        assert!(none.is_none());
        for text in ["one", "two", "three"] {
            file.store(text.as_bytes(), "test").unwrap();
            assert_eq!(body(&folder).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_reopened_file_goes_on_in_the_other_slot() {
        let folder = scratch("slots");
        SlotFile::load(&folder, "state")
            .unwrap()
            .0
            .store(b"one", "test")
            .unwrap();
        SlotFile::load(&folder, "state")
            .unwrap()
            .0
            .store(b"two", "test")
            .unwrap();
        std::fs::write(folder.join("state.b"), b"torn").unwrap();
        assert_eq!(body(&folder).unwrap(), b"one");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found_and_the_older_slot_counts() {
        let folder = scratch("slots");
        let (mut file, _) = SlotFile::load(&folder, "state").unwrap();
        file.store(b"older", "test").unwrap();
        file.store(b"newer", "test").unwrap();
        let whole = std::fs::read(folder.join("state.b")).unwrap();
        for i in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[i] ^= 0x40;
            std::fs::write(folder.join("state.b"), flipped).unwrap();
            assert_eq!(body(&folder).unwrap(), b"older", "byte {i} flipped");
            std::fs::write(folder.join("state.b"), &whole[..i]).unwrap();
            assert_eq!(body(&folder).unwrap(), b"older", "cut at {i}");
        }
    }

    #[test]
    fn two_damaged_slots_are_an_error_and_stay_as_they_are() {
        let folder = scratch("slots");
        std::fs::write(folder.join("state.a"), b"junk").unwrap();
        assert!(matches!(
            SlotFile::load(&folder, "state"),
            Err(LoadSlotError::Damaged(_))
        ));
        assert_eq!(std::fs::read(folder.join("state.a")).unwrap(), b"junk");
        assert!(!folder.join("state.b").exists());
    }

    #[test]
    fn a_write_that_could_not_end_leaves_both_slots_whole() {
        let folder = scratch("slots");
        let (mut file, _) = SlotFile::load(&folder, "state").unwrap();
        // What stands in the way of the write is what a full disk or a crash leaves of it.
        std::fs::create_dir(folder.join("state.new")).unwrap();
        assert!(file.store(b"one", "test").is_err());
        assert!(
            body(&folder).is_none(),
            "a first write that failed is no file"
        );
        std::fs::remove_dir(folder.join("state.new")).unwrap();
        file.store(b"one", "test").unwrap();
        file.store(b"two", "test").unwrap();
        std::fs::create_dir(folder.join("state.new")).unwrap();
        let before = std::fs::read(folder.join("state.a")).unwrap();
        assert!(file.store(b"three", "test").is_err());
        assert_eq!(std::fs::read(folder.join("state.a")).unwrap(), before);
        assert_eq!(body(&folder).unwrap(), b"two");
    }

    #[test]
    fn a_first_write_that_was_torn_is_no_file() {
        let folder = scratch("slots");
        std::fs::write(folder.join("state.new"), b"WMS").unwrap();
        let (mut file, none) = SlotFile::load(&folder, "state").unwrap();
        assert!(none.is_none());
        file.store(b"one", "test").unwrap();
        assert_eq!(body(&folder).unwrap(), b"one");
    }

    #[test]
    fn a_slot_of_a_later_version_stops_the_older_one_from_counting() {
        let folder = scratch("slots");
        SlotFile::load(&folder, "state")
            .unwrap()
            .0
            .store(b"one", "test")
            .unwrap();
        let mut later = encode_slot(2, b"??").unwrap().to_vec();
        later.truncate(later.len() - SUM_BYTES);
        later[4] = 2;
        let sum = hash(Use::State, &[&later]);
        later.extend_from_slice(&sum);
        std::fs::write(folder.join("state.b"), later).unwrap();
        assert!(matches!(
            SlotFile::load(&folder, "state"),
            Err(LoadSlotError::Newer(_, 2))
        ));
    }
}
