//! Ports of splice listeners.

use std::{collections::BTreeSet, ops::RangeInclusive};

/// The ports that splice listeners are drawn from (design §10): below those that Linux gives to outgoing
/// connections (32768 and up), above those that programs usually ask for.
pub const SPLICE_PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// The splice port for a random number: the one it draws, or the next that is free. None: all are taken.
pub fn draw_splice_port(draw: u32, taken: &BTreeSet<u16>) -> Option<u16> {
    let count = u32::from(SPLICE_PORTS.end() - SPLICE_PORTS.start()) + 1;
    let start = draw % count;
    (start..start + count)
        .filter_map(|offset| u16::try_from(offset % count).ok())
        .map(|offset| SPLICE_PORTS.start() + offset)
        .find(|port| !taken.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_port_is_free_and_in_the_range() {
        let mut taken = BTreeSet::new();
        for n in 0..10_000_u32 {
            let port = draw_splice_port(n.wrapping_mul(2_654_435_761), &taken).unwrap();
            assert!(SPLICE_PORTS.contains(&port));
            assert!(taken.insert(port), "{port} was drawn twice");
        }
        assert_eq!(draw_splice_port(7, &taken), None);
    }
}
