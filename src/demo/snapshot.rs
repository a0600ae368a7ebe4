//! What an agent could have changed on a host: addresses, routes, nf_tables and `/etc`, to compare before and after.
//!
//! Knows how to look. Refuses to change anything.

use std::{fs, io, net::IpAddr, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

use crate::platform::{link::Links, nftables};

/// A host at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every link and address.
    pub addresses: Vec<String>,
    /// Every route of the main table.
    pub routes: Vec<String>,
    /// Every nf_tables table; None where looking needs rights that we lack, or the kernel has no nf_tables.
    pub tables: Option<Vec<String>>,
    /// How many files `/etc` has, and a sum over their names, sizes and times of change.
    pub etc: (u64, u64),
}

impl Snapshot {
    /// The network namespace of this thread and the `/etc` that it sees.
    pub fn take() -> io::Result<Self> {
        let mut links = Links::open()?;
        let mut addresses: Vec<String> = links
            .list()?
            .iter()
            .map(|link| format!("{link:?}"))
            .collect();
        addresses.extend(
            links
                .addresses()?
                .iter()
                .filter(|address| !is_of_the_link(address.net.addr()))
                .map(|address| format!("{address:?}")),
        );
        let mut etc = (0, 0);
        walk(Path::new("/etc"), &mut etc);
        Ok(Self {
            addresses,
            routes: links
                .routes()?
                .iter()
                .filter(|route| !is_of_the_link(route.to.addr()))
                .map(|route| format!("{route:?}"))
                .collect(),
            tables: nftables::tables().ok(),
            etc,
        })
    }

    /// What is not as it was in `before`, in one line a thing; empty when all is the same.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (now, then, what) in [
            (&self.addresses, &before.addresses, "address"),
            (&self.routes, &before.routes, "route"),
            (
                self.tables.as_ref().unwrap_or(&Vec::new()),
                before.tables.as_ref().unwrap_or(&Vec::new()),
                "nft table",
            ),
        ] {
            found.extend(
                now.iter()
                    .filter(|one| !then.contains(one))
                    .map(|one| format!("new {what} {one}")),
            );
            found.extend(
                then.iter()
                    .filter(|one| !now.contains(one))
                    .map(|one| format!("lost {what} {one}")),
            );
        }
        if self.etc != before.etc {
            found.push("/etc is not as it was".to_owned());
        }
        found
    }
}

/// Whether the kernel gives and routes it by itself, a moment after a link came up: that moment may lie between two
/// snapshots.
fn is_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

/// Adds up what can be read; what cannot be read cannot have been written either.
fn walk(directory: &Path, sum: &mut (u64, u64)) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(seen) = entry.metadata() else { continue };
        // A sum, not a chain: the order in which a directory is read is not fixed.
        let name = entry
            .path()
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(FNV_BASIS, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
            });
        let times =
            seen.mtime().cast_unsigned() ^ seen.mtime_nsec().cast_unsigned().rotate_left(32);
        sum.0 += 1;
        sum.1 = sum
            .1
            .wrapping_add((name ^ times ^ seen.len()).wrapping_mul(FNV_PRIME));
        if seen.is_dir() {
            walk(&entry.path(), sum);
        }
    }
}

// FNV-1a: nobody attacks this sum.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_left_alone_is_as_it_was() {
        let before = Snapshot::take().unwrap();
        assert_eq!(Snapshot::take().unwrap().differences(&before), [""; 0]);
        assert!(
            before.etc.0 > 0
                && before
                    .addresses
                    .iter()
                    .any(|line| line.contains("127.0.0.1"))
        );
    }

    #[test]
    fn a_new_route_and_a_lost_address_are_told() {
        let before = Snapshot {
            addresses: vec!["a".to_owned()],
            routes: vec![],
            tables: None,
            etc: (1, 1),
        };
        let after = Snapshot {
            addresses: vec![],
            routes: vec!["r".to_owned()],
            ..before.clone()
        };
        assert_eq!(
            after.differences(&before),
            ["lost address a", "new route r"]
        );
    }
}
