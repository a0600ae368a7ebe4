//! Mesh time: this machine's clock, put right by the clocks of its links, never before what admins signed (protocol §7).

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ids::NodeId,
    time::{Moment, Now},
};

/// Links from which on the median of clocks is believed (protocol §7); fewer could be one liar and us.
pub const MEDIAN_LINKS: usize = 3;

/// How far the own clock may be off before it is put right; 5 min in ms, protocol §7. Less would follow every
/// link's jitter, more would let leases end unseen.
pub const TOLERANCE_MS: u64 = 5 * 60_000;

/// Clocks of links and the floor under them.
#[derive(Clone, Debug)]
pub struct MeshTime {
    floor: Reading,
    links: BTreeMap<NodeId, Reading>,
}

/// A clock as it was read at one moment; it has run on since.
#[derive(Clone, Copy, Debug)]
struct Reading {
    unix_ms: u64,
    at: Moment,
}

impl Reading {
    fn at(self, now: Now) -> u64 {
        let run = u64::try_from(now.at.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.unix_ms.saturating_add(run)
    }
}

impl MeshTime {
    /// Mesh time that is never before `floor_s`: the newest of the build date and what was saved at the last stop.
    pub fn new(now: Now, floor_s: u64) -> Self {
        Self {
            floor: Reading {
                unix_ms: floor_s.saturating_mul(1000),
                at: now.at,
            },
            links: BTreeMap::new(),
        }
    }

    /// Raises the floor to a time that an admin or the root signed; never lowers it.
    pub fn raise_floor(&mut self, now: Now, signed_s: u64) {
        let unix_ms = signed_s.saturating_mul(1000);
        if unix_ms > self.floor.at(now) {
            self.floor = Reading {
                unix_ms,
                at: now.at,
            };
        }
    }

    /// The floor, unix s: what to save.
    pub fn floor_s(&self, now: Now) -> u64 {
        self.floor.at(now) / 1000
    }

    /// Takes in the clock of a gossip link, from its Hello.
    pub fn handle_hello(&mut self, now: Now, link: NodeId, time_ms: u64) {
        let reading = Reading {
            unix_ms: time_ms,
            at: now.at,
        };
        self.links.insert(link, reading);
    }

    /// Forgets the clock of a link that ended.
    pub fn forget_link(&mut self, link: NodeId) {
        self.links.remove(&link);
    }

    /// Mesh time, unix ms.
    pub fn mesh_ms(&self, now: Now) -> u64 {
        let floor_ms = self.floor.at(now);
        let mut clocks: Vec<u64> = self.links.values().map(|link| link.at(now)).collect();
        clocks.push(now.unix_ms);
        clocks.sort_unstable();
        if self.links.len() < MEDIAN_LINKS {
            let earliest = clocks.into_iter().find(|clock| *clock >= floor_ms);
            return earliest.unwrap_or(floor_ms);
        }
        let median = clocks[(clocks.len() - 1) / 2];
        if median.abs_diff(now.unix_ms) > TOLERANCE_MS {
            median.max(floor_ms)
        } else {
            now.unix_ms.max(floor_ms)
        }
    }

    /// Mesh time, unix s.
    pub fn mesh_s(&self, now: Now) -> u64 {
        self.mesh_ms(now) / 1000
    }

    /// Mesh time as far as it is sure, unix s: with no clock to compare with, the own may be decades ahead, and only the
    /// floor is known to have passed. What is thrown away for good is judged by this.
    pub fn sure_s(&self, now: Now) -> u64 {
        if self.links.is_empty() {
            self.floor_s(now)
        } else {
            self.mesh_s(now)
        }
    }

    /// Whether this machine's clock is off so far that mesh time does not follow it.
    pub fn is_corrected(&self, now: Now) -> bool {
        self.mesh_ms(now).abs_diff(now.unix_ms) > TOLERANCE_MS
    }

    /// How far this machine's clock is off.
    pub fn correction(&self, now: Now) -> Duration {
        Duration::from_millis(self.mesh_ms(now).abs_diff(now.unix_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR_S: u64 = 1_750_000_000;
    const TODAY_S: u64 = 1_795_316_400;
    const IN_1970_S: u64 = 86_400;
    const IN_2099_S: u64 = 4_070_908_800;

    fn now(unix_s: u64) -> Now {
        Now {
            at: Moment(5_000_000),
            unix_ms: unix_s * 1000,
        }
    }

    #[test]
    fn mesh_time_follows_the_table() {
        let cases: [(&str, u64, &[u64], u64); 12] = [
            ("alone, clock right", TODAY_S, &[], TODAY_S),
            ("alone, clock before the floor", IN_1970_S, &[], FLOOR_S),
            ("alone in 2099", IN_2099_S, &[], IN_2099_S),
            ("1970 beside one right", IN_1970_S, &[TODAY_S], TODAY_S),
            ("right beside one in 1970", TODAY_S, &[IN_1970_S], TODAY_S),
            ("2099 beside one right", IN_2099_S, &[TODAY_S], TODAY_S),
            ("right beside one in 2099", TODAY_S, &[IN_2099_S], TODAY_S),
            (
                "a minute later than one link",
                TODAY_S,
                &[TODAY_S - 60],
                TODAY_S - 60,
            ),
            (
                "three links, 4 min off",
                TODAY_S + 240,
                &[TODAY_S; 3],
                TODAY_S + 240,
            ),
            (
                "three links, 6 min off",
                TODAY_S + 360,
                &[TODAY_S; 3],
                TODAY_S,
            ),
            (
                "right, one of three lies",
                TODAY_S,
                &[IN_2099_S, TODAY_S, TODAY_S + 9],
                TODAY_S,
            ),
            (
                "three links before the floor",
                TODAY_S,
                &[IN_1970_S; 3],
                FLOOR_S,
            ),
        ];
        for (what, own_s, links, mesh_s) in cases {
            let mut time = MeshTime::new(now(own_s), FLOOR_S);
            for (i, link_s) in links.iter().enumerate() {
                let link = NodeId([u8::try_from(i).unwrap(); 32]);
                time.handle_hello(now(own_s), link, link_s * 1000);
            }
            assert_eq!(time.mesh_s(now(own_s)), mesh_s, "{what}");
            assert_eq!(
                time.is_corrected(now(own_s)),
                own_s.abs_diff(mesh_s) > 300,
                "{what}"
            );
        }
    }

    #[test]
    fn clocks_of_links_run_on_and_go_with_the_link() {
        let start = now(IN_1970_S);
        let mut time = MeshTime::new(start, FLOOR_S);
        let link = NodeId([1; 32]);
        time.handle_hello(start, link, TODAY_S * 1000);
        let later = Now {
            at: start.at.after(Duration::from_secs(100)),
            unix_ms: start.unix_ms + 100_000,
        };
        assert_eq!(time.mesh_s(later), TODAY_S + 100);
        time.forget_link(link);
        assert_eq!(time.mesh_s(later), FLOOR_S + 100);
    }

    #[test]
    fn a_clock_that_nobody_confirms_is_not_sure() {
        let start = now(IN_2099_S);
        let mut time = MeshTime::new(start, FLOOR_S);
        assert_eq!(time.mesh_s(start), IN_2099_S);
        assert_eq!(time.sure_s(start), FLOOR_S);
        time.handle_hello(start, NodeId([1; 32]), TODAY_S * 1000);
        assert_eq!(time.sure_s(start), TODAY_S);
    }

    #[test]
    fn the_floor_rises_and_never_falls() {
        let mut time = MeshTime::new(now(IN_1970_S), FLOOR_S);
        time.raise_floor(now(IN_1970_S), TODAY_S);
        time.raise_floor(now(IN_1970_S), FLOOR_S - 1);
        assert_eq!(time.mesh_s(now(IN_1970_S)), TODAY_S);
        assert_eq!(time.floor_s(now(IN_1970_S)), TODAY_S);
    }
}
