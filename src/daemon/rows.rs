//! The file `rows`: stamp, boot and last session of every node met, 64 bytes each, written in place (protocol §2).
//!
//! `node[32] ‖ stamp u64 ‖ boot[8] ‖ last session u32 s ‖ 0[4] ‖ H("row", all before)[0..8]`. Written by pwrite without
//! fsync: it outlives SIGKILL; a power cut may lose the last seconds, which protocol §2 bears.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::ownership;
use crate::{
    hash::{Use, short},
    ids::{Boot, NodeId},
    node::input::Row,
};

const ROW_BYTES: usize = 64;

/// The file, open, and where each node's row is in it.
#[derive(Debug)]
pub(super) struct RowsFile {
    file: File,
    places: BTreeMap<NodeId, u64>,
    free: Vec<u64>,
    end: u64,
}

impl RowsFile {
    /// Opens or makes the file and reads every good row. A damaged row is forgotten and its place used again.
    ///
    /// # Errors
    /// The file is as it was.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Row>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("rows"))?;
        ownership::follow(folder, &folder.join("rows"));
        let bytes = std::fs::read(folder.join("rows"))?;
        let mut rows = Vec::new();
        let mut opened = Self {
            file,
            places: BTreeMap::new(),
            free: Vec::new(),
            end: 0,
        };
        for chunk in bytes.as_chunks::<ROW_BYTES>().0 {
            match decode_row(chunk) {
                Some(row) => {
                    opened.places.insert(row.node, opened.end);
                    rows.push(row);
                }
                None => opened.free.push(opened.end),
            }
            opened.end += 1;
        }
        let torn = bytes.len() % ROW_BYTES;
        if !opened.free.is_empty() || torn != 0 {
            tracing::warn!(
                file = %folder.join("rows").display(),
                rows = opened.free.len(),
                torn_bytes = torn,
                "Some of what was known of peers' last sessions was damaged; it is learned again"
            );
        }
        Ok((opened, rows))
    }

    /// Writes one node's row over its older one.
    ///
    /// # Errors
    /// The older row may be damaged; the others are whole.
    pub(super) fn write(&mut self, row: Row) -> io::Result<()> {
        let place = match self.places.get(&row.node) {
            Some(place) => *place,
            None => self.free.pop().unwrap_or(self.end),
        };
        self.file
            .write_all_at(&encode_row(row), place * ROW_BYTES as u64)?;
        self.places.insert(row.node, place);
        self.end = self.end.max(place + 1);
        Ok(())
    }

    /// Waits until all rows are on the disk.
    ///
    /// # Errors
    /// Rows written since the last sync may be lost by a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode_row(row: Row) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    bytes[..32].copy_from_slice(&row.node.0);
    bytes[32..40].copy_from_slice(&row.stamp.to_le_bytes());
    bytes[40..48].copy_from_slice(&row.boot.0);
    bytes[48..52].copy_from_slice(&row.last_session_s.to_le_bytes());
    let sum: [u8; 8] = short(Use::Row, &[&bytes[..56]]);
    bytes[56..].copy_from_slice(&sum);
    bytes
}

fn decode_row(bytes: &[u8; ROW_BYTES]) -> Option<Row> {
    let sum: [u8; 8] = short(Use::Row, &[&bytes[..56]]);
    (sum == bytes[56..]).then_some(Row {
        node: NodeId(bytes[..32].try_into().ok()?),
        stamp: u64::from_le_bytes(bytes[32..40].try_into().ok()?),
        boot: Boot(bytes[40..48].try_into().ok()?),
        last_session_s: u32::from_le_bytes(bytes[48..52].try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::state_dir::tests::scratch;

    fn row(node: u8, stamp: u64) -> Row {
        Row {
            node: NodeId([node; 32]),
            stamp,
            boot: Boot([7; 8]),
            last_session_s: 1_700_000_000,
        }
    }

    #[test]
    fn a_row_is_written_over_its_older_self() {
        let folder = scratch("rows");
        let (mut rows, none) = RowsFile::open(&folder).unwrap();
        assert!(none.is_empty());
        rows.write(row(1, 10)).unwrap();
        rows.write(row(2, 20)).unwrap();
        rows.write(row(1, 11)).unwrap();
        assert_eq!(std::fs::metadata(folder.join("rows")).unwrap().len(), 128);
        assert_eq!(RowsFile::open(&folder).unwrap().1, [row(1, 11), row(2, 20)]);
    }

    #[test]
    fn a_damaged_row_is_forgotten_alone_and_its_place_used_again() {
        let folder = scratch("rows");
        let (mut rows, _) = RowsFile::open(&folder).unwrap();
        for node in 1..=3 {
            rows.write(row(node, 10)).unwrap();
        }
        let mut bytes = std::fs::read(folder.join("rows")).unwrap();
        bytes[64 + 33] ^= 1;
        bytes.extend_from_slice(b"torn");
        std::fs::write(folder.join("rows"), bytes).unwrap();
        let (mut rows, good) = RowsFile::open(&folder).unwrap();
        assert_eq!(good, [row(1, 10), row(3, 10)]);
        rows.write(row(4, 40)).unwrap();
        rows.write(row(5, 50)).unwrap();
        let found = RowsFile::open(&folder).unwrap().1;
        assert_eq!(found, [row(1, 10), row(4, 40), row(3, 10), row(5, 50)]);
    }

    #[test]
    fn the_layout_of_a_row_is_the_protocols() {
        let bytes = encode_row(row(9, 0x0102));
        assert_eq!(bytes[..32], [9; 32]);
        assert_eq!(bytes[32..40], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..48], [7; 8]);
        assert_eq!(bytes[52..56], [0; 4]);
    }
}
