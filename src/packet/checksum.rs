//! The Internet checksum (RFC 1071) and its repair when a few words change (RFC 1624).

use std::net::IpAddr;

/// A one's-complement sum that is not folded yet. 64 bits hold the sum of any packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian words; an odd last byte is the high half of a word. Words are summed up four bytes at a time
    /// with their bytes the wrong way round, which folding and turning one word repairs (RFC 1071 §2 B): that way the
    /// compiler finds vector instructions for it, in blocks that fill some registers.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, bytes) = bytes.as_chunks::<64>();
        let mut lanes = [0; 8];
        for block in blocks {
            for (lane, eight) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                let eight = u64::from_le_bytes(*eight);
                *lane += (eight & 0xffff_ffff) + (eight >> 32);
            }
        }
        let (fours, rest) = bytes.as_chunks::<4>();
        let wrong_way = fours
            .iter()
            .map(|four| u64::from(u32::from_le_bytes(*four)));
        let wrong_way = wrong_way.chain(lanes).sum();
        let turned = fold(wrong_way).swap_bytes();
        let rest = match *rest {
            [a, b, c] => u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a] => u64::from(a) << 8,
            _ => 0,
        };
        Self(self.0 + u64::from(turned) + rest)
    }

    /// Adds one word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }

    /// The checksum: the sum folded to 16 bits, inverted.
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("the sum was folded to 16 bits")
}

/// The sum over the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Sum::default()
        .address(source)
        .address(destination)
        .word(u16::from(protocol))
        .bytes(&len.to_be_bytes())
}

/// The change that a rewrite makes to every checksum that covers the rewritten words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(Sum);

impl Delta {
    /// Notes that `old` gives way to `new`; both have the same even length.
    #[must_use]
    pub fn replace(self, old: &[u8], new: &[u8]) -> Self {
        let mut sum = self.0;
        for word in old.chunks_exact(2) {
            sum = sum.word(!u16::from_be_bytes([word[0], word[1]]));
        }
        Self(sum.bytes(new))
    }

    /// The checksum after the change: HC' = ~(~HC + ~m + m') (RFC 1624 eqn. 3).
    pub fn apply(self, checksum: u16) -> u16 {
        self.0.word(!checksum).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half() {
        assert_eq!(Sum::default().bytes(&[0xab]).finish(), !0xab00);
    }

    /// As the RFC says it, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|word| {
            let low = word.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([word[0], low]))
        });
        let sum = words.fold(0, |sum: u32, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_longest_packet_of_ones_sums_as_the_slow_way_does() {
        let ones = vec![0xff; 65_535];
        assert_eq!(Sum::default().bytes(&ones).finish(), slow(&ones));
    }

    proptest! {
        #[test]
        fn the_fast_way_sums_as_the_slow_way_does(
            data in prop::collection::vec(any::<u8>(), 0..200), zeros in 0_usize..8,
        ) {
            let data = [vec![0; zeros], data].concat();
            prop_assert_eq!(Sum::default().bytes(&data).finish(), slow(&data));
        }

        #[test]
        fn repairing_equals_computing_anew(
            mut data in prop::collection::vec(any::<u8>(), 8..64),
            new in any::<[u8; 4]>(),
        ) {
            prop_assume!(data[4..].iter().any(|b| *b != 0));
            let before = Sum::default().bytes(&data).finish();
            let delta = Delta::default().replace(&data[..4], &new);
            data[..4].copy_from_slice(&new);
            prop_assert_eq!(delta.apply(before), Sum::default().bytes(&data).finish());
        }
    }
}
