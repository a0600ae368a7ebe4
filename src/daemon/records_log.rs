//! The file `records.log`: every record that was taken, in the order it was taken: u16 length ‖ record (design §11).
//!
//! The last entry of a slot counts. A damaged tail is cut; when more than half of a large file is dead it is written
//! anew. Knows nothing of what records say: the caller decodes them and gives each one's slot.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{failpoint, ownership};
use crate::ids::Slot;

/// The longest record (protocol §7).
const MAX_RECORD_BYTES: usize = 1024;

/// Below this a file is never written anew: 256 KiB are read in a millisecond.
const COMPACT_FROM_BYTES: u64 = 256 << 10;

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct RecordsLog {
    folder: PathBuf,
    file: File,
    /// Where the live entry of each slot is, its two length bytes included.
    live: BTreeMap<Slot, Place>,
    live_bytes: u64,
    end: u64,
    is_dirty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: u64,
}

/// What stands in the file, read and decoded once; [`Entries::judged`] says what of it counts.
#[derive(Debug)]
pub(super) struct Entries<R> {
    log: RecordsLog,
    path: PathBuf,
    /// In the order they were taken; None: no record.
    all: Vec<(Place, Option<R>)>,
    /// Bytes of the damaged tail.
    tail: u64,
}

impl<R> Entries<R> {
    /// Opens or makes the file and reads all of it. `decode` makes a record of an entry, or nothing.
    ///
    /// # Errors
    /// Nothing was changed.
    pub(super) fn read(folder: &Path, decode: impl Fn(&[u8]) -> Option<R>) -> io::Result<Self> {
        let path = folder.join("records.log");
        let file = open_log(&path)?;
        let bytes = std::fs::read(&path)?;
        let mut log = RecordsLog {
            folder: folder.to_owned(),
            file,
            live: BTreeMap::new(),
            live_bytes: 0,
            end: 0,
            is_dirty: false,
        };
        let mut all = Vec::new();
        while let Some(entry) = entry_at(&bytes, log.end) {
            let place = log.place_of(entry);
            log.end += place.bytes;
            all.push((place, decode(entry)));
        }
        let tail = bytes.len() as u64 - log.end;
        Ok(Self {
            log,
            path,
            all,
            tail,
        })
    }

    /// All records, dead or alive, good or not.
    pub(super) fn records(&self) -> impl Iterator<Item = &R> {
        self.all.iter().filter_map(|(_, record)| record.as_ref())
    }

    /// Cuts a damaged tail, and gives the log and the live records in the order they were taken: of each slot the last
    /// that `is_good`.
    ///
    /// # Errors
    /// Nothing was changed.
    pub(super) fn judged(
        self,
        slot_of: impl Fn(&R) -> Slot,
        is_good: impl Fn(&R) -> bool,
    ) -> io::Result<(RecordsLog, Vec<R>)> {
        let Self {
            mut log,
            path,
            all,
            tail,
        } = self;
        let (mut found, mut lost) = (Vec::new(), 0_usize);
        for (place, record) in all.into_iter().rev() {
            let slot = record.as_ref().map(&slot_of);
            match (slot, record) {
                (Some(slot), _) if log.live.contains_key(&slot) => {}
                (Some(slot), Some(record)) if is_good(&record) => {
                    log.set_live(slot, place);
                    found.push(record);
                }
                _ => lost += 1,
            }
        }
        found.reverse();
        if tail > 0 {
            log.file.set_len(log.end)?;
        }
        if tail > 0 || lost > 0 {
            tracing::warn!(
                file = %path.display(),
                records = lost,
                bytes_cut = tail,
                "The record log was damaged; what is lost is asked for again from peers"
            );
        }
        Ok((log, found))
    }
}

impl RecordsLog {
    /// Appends a record; it takes its slot. It outlives a crash of this process at once, a power cut after
    /// [`RecordsLog::sync`]. `point` names the write for tests that crash in it.
    ///
    /// # Errors
    /// The log is as it was: what was half written is written over by the next record.
    pub(super) fn append(&mut self, slot: Slot, record: &[u8], point: &str) -> io::Result<()> {
        let length = u16::try_from(record.len())
            .ok()
            .filter(|_| (1..=MAX_RECORD_BYTES).contains(&record.len()))
            .ok_or_else(|| io::Error::other("a record has 1 to 1024 bytes"))?;
        failpoint::reach(&format!("{point}.before"));
        let mut entry = length.to_le_bytes().to_vec();
        entry.extend_from_slice(record);
        let (head, tail) = entry.split_at(entry.len() / 2);
        self.file.write_all_at(head, self.end)?;
        failpoint::reach(&format!("{point}.torn"));
        self.file.write_all_at(tail, self.end + head.len() as u64)?;
        failpoint::reach(&format!("{point}.after"));
        let place = self.place_of(record);
        self.set_live(slot, place);
        self.end += place.bytes;
        self.is_dirty = true;
        Ok(())
    }

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    /// What was appended since the last sync may be lost by a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.sync_data()?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Writes the file anew, live records only, if it is large and more than half of it is dead.
    ///
    /// # Errors
    /// The file in use is whole; after a power cut the old one may be found again.
    pub(super) fn compact(&mut self) -> io::Result<()> {
        if self.end < COMPACT_FROM_BYTES || self.live_bytes * 2 > self.end {
            return Ok(());
        }
        let path = self.folder.join("records.new");
        let fresh = open_log(&path)?;
        fresh.set_len(0)?;
        let mut in_order: Vec<(Slot, Place)> = self.live.iter().map(|(s, p)| (*s, *p)).collect();
        in_order.sort_by_key(|(_, place)| place.offset);
        let (mut live, mut end) = (BTreeMap::new(), 0);
        let mut entry = Vec::new();
        for (slot, place) in in_order {
            entry.resize(usize::try_from(place.bytes).unwrap_or(0), 0);
            self.file.read_exact_at(&mut entry, place.offset)?;
            fresh.write_all_at(&entry, end)?;
            live.insert(
                slot,
                Place {
                    offset: end,
                    bytes: place.bytes,
                },
            );
            end += place.bytes;
        }
        fresh.sync_all()?;
        failpoint::reach("compact.before");
        std::fs::rename(&path, self.folder.join("records.log"))?;
        // The name is the new file's already, whatever becomes of the folder's sync.
        (self.file, self.live, self.end, self.live_bytes) = (fresh, live, end, end);
        self.is_dirty = false;
        File::open(&self.folder)?.sync_all()
    }

    /// Follows its folder, which was renamed.
    pub(super) fn rename(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }

    fn place_of(&self, record: &[u8]) -> Place {
        Place {
            offset: self.end,
            bytes: 2 + record.len() as u64,
        }
    }

    fn set_live(&mut self, slot: Slot, place: Place) -> Option<Place> {
        let older = self.live.insert(slot, place);
        self.live_bytes += place.bytes;
        self.live_bytes -= older.map_or(0, |older| older.bytes);
        older
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if let Some(folder) = path.parent() {
        ownership::follow(folder, path);
    }
    Ok(file)
}

fn entry_at(bytes: &[u8], offset: u64) -> Option<&[u8]> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    rest.get(..length)
        .filter(|_| (1..=MAX_RECORD_BYTES).contains(&length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::state_dir::tests::scratch;

    /// In these tests a record's first byte is its slot; 0xee is no record.
    fn decode(record: &[u8]) -> Option<Vec<u8>> {
        (record[0] != 0xee).then(|| record.to_vec())
    }

    fn open(folder: &Path) -> (RecordsLog, Vec<Vec<u8>>) {
        let entries = Entries::read(folder, decode).unwrap();
        let slot_of = |record: &Vec<u8>| Slot([record[0]; 8]);
        let is_good = |record: &Vec<u8>| record.last() != Some(&0xbb);
        entries.judged(slot_of, is_good).unwrap()
    }

    fn append(log: &mut RecordsLog, record: &[u8]) {
        log.append(Slot([record[0]; 8]), record, "test").unwrap();
    }

    #[test]
    fn the_last_record_of_a_slot_is_found_again() {
        let folder = scratch("log");
        let (mut log, none) = open(&folder);
        assert!(none.is_empty());
        append(&mut log, &[1, 1]);
        append(&mut log, &[2, 1]);
        append(&mut log, &[1, 2]);
        assert_eq!(open(&folder).1, [vec![2, 1], vec![1, 2]]);
    }

    #[test]
    fn a_tail_cut_anywhere_costs_only_the_record_it_cuts() {
        let folder = scratch("log");
        let (mut log, _) = open(&folder);
        append(&mut log, &[1; 10]);
        append(&mut log, &[2; 10]);
        let whole = std::fs::read(folder.join("records.log")).unwrap();
        for cut in 12..24 {
            std::fs::write(folder.join("records.log"), &whole[..cut]).unwrap();
            let (mut log, found) = open(&folder);
            assert_eq!(found, [vec![1; 10]], "cut at {cut}");
            append(&mut log, &[3; 4]);
            assert_eq!(open(&folder).1, [vec![1; 10], vec![3; 4]], "cut at {cut}");
        }
    }

    #[test]
    fn a_record_that_is_not_good_leaves_its_slot_to_the_one_before() {
        let folder = scratch("log");
        let (mut log, _) = open(&folder);
        append(&mut log, &[1, 1]);
        append(&mut log, &[2, 1]);
        append(&mut log, &[1, 0xbb]);
        append(&mut log, &[3, 0xbb]);
        assert_eq!(open(&folder).1, [vec![1, 1], vec![2, 1]]);
    }

    #[test]
    fn an_entry_that_is_no_record_is_passed_over() {
        let folder = scratch("log");
        std::fs::write(folder.join("records.log"), [1, 0, 0xee, 2, 0, 5, 5]).unwrap();
        assert_eq!(open(&folder).1, [vec![5, 5]]);
    }

    #[test]
    fn a_large_log_that_is_mostly_dead_shrinks_and_loses_nothing() {
        let folder = scratch("log");
        let (mut log, _) = open(&folder);
        append(&mut log, &[9, 9, 9]);
        for i in 0..1000_u32 {
            let mut record = vec![1; 500];
            record[1..5].copy_from_slice(&i.to_le_bytes());
            append(&mut log, &record);
        }
        log.compact().unwrap();
        assert!(std::fs::metadata(folder.join("records.log")).unwrap().len() < 600);
        append(&mut log, &[2, 2]);
        let found = open(&folder).1;
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], [9, 9, 9]);
        assert_eq!(found[1][1..5], 999_u32.to_le_bytes());
        assert_eq!(found[2], [2, 2]);
    }
}
