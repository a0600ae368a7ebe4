//! Explicit congestion notification through a tunnel (RFC 6040, normal mode): what a packet says goes out on its datagram,
//! and what routers wrote on the datagram comes back into the packet.

use super::checksum::Delta;

/// What a packet's two bits say (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Its sender does not listen for congestion.
    #[default]
    Deaf,
    /// Its sender listens, and says ECT(1).
    One,
    /// Its sender listens, and says ECT(0).
    Zero,
    /// A router met congestion.
    Met,
}

/// A packet is to be dropped: its sender notices congestion by nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion was met by a packet whose sender listens for losses only")]
pub struct Congested;

impl Ecn {
    /// By the low bits of a TOS or traffic class byte.
    pub const fn of_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Deaf,
            1 => Self::One,
            2 => Self::Zero,
            _ => Self::Met,
        }
    }

    /// The low bits of a TOS or traffic class byte.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Deaf => 0,
            Self::One => 1,
            Self::Zero => 2,
            Self::Met => 3,
        }
    }

    /// What an IP packet says.
    pub fn of(packet: &[u8]) -> Self {
        match packet {
            [first, second, ..] if first >> 4 == 4 => Self::of_bits(*second),
            [_, second, ..] => Self::of_bits(second >> 4),
            _ => Self::Deaf,
        }
    }

    /// Has an IP packet say what the datagram around it said, where that is to reach its receiver.
    pub fn write_into(self, packet: &mut [u8]) -> Result<(), Congested> {
        match (Self::of(packet), self) {
            (Self::Deaf, Self::Met) => Err(Congested),
            (Self::One | Self::Zero, Self::Met) | (Self::Zero, Self::One) => {
                self.set(packet);
                Ok(())
            }
            (Self::Met | Self::Deaf | Self::One | Self::Zero, _) => Ok(()),
        }
    }

    fn set(self, packet: &mut [u8]) {
        let [first, second, rest @ ..] = packet else {
            return;
        };
        if *first >> 4 == 6 {
            *second = *second & !0x30 | self.bits() << 4;
            return;
        }
        let old = [*first, *second];
        *second = *second & !3 | self.bits();
        if let Some(field) = rest.get_mut(8..10) {
            let delta = Delta::default().replace(&old, &[*first, *second]);
            let checksum = delta.apply(u16::from_be_bytes([field[0], field[1]]));
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{checksum::Sum, ip::Ports, udp};

    /// The columns of RFC 6040 §4.2: what comes out of a packet in a datagram that says nothing, ECT(0), ECT(1), CE.
    const TABLE: [(Ecn, [Option<Ecn>; 4]); 4] = [
        (
            Ecn::Deaf,
            [Some(Ecn::Deaf), Some(Ecn::Deaf), Some(Ecn::Deaf), None],
        ),
        (
            Ecn::Zero,
            [
                Some(Ecn::Zero),
                Some(Ecn::Zero),
                Some(Ecn::One),
                Some(Ecn::Met),
            ],
        ),
        (
            Ecn::One,
            [
                Some(Ecn::One),
                Some(Ecn::One),
                Some(Ecn::One),
                Some(Ecn::Met),
            ],
        ),
        (Ecn::Met, [Some(Ecn::Met); 4]),
    ];

    #[test]
    fn what_comes_out_is_what_the_rfc_says_and_checksums_stay_good() {
        for pair in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let addresses = (pair.0.parse().unwrap(), pair.1.parse().unwrap());
            let ports = Ports {
                source: 1,
                destination: 2,
            };
            for (inner, row) in TABLE {
                for (outer, wanted) in [Ecn::Deaf, Ecn::Zero, Ecn::One, Ecn::Met]
                    .into_iter()
                    .zip(row)
                {
                    let mut packet = Vec::new();
                    assert!(udp::build(&mut packet, addresses, ports, b"x"));
                    inner.set(&mut packet);
                    assert_eq!(Ecn::of(&packet), inner);
                    let done = outer.write_into(&mut packet);
                    assert_eq!(
                        done.ok().map(|()| Ecn::of(&packet)),
                        wanted,
                        "{inner:?} in {outer:?}"
                    );
                    let sum = Sum::default().bytes(&packet[..20]).finish();
                    assert!(packet[0] >> 4 == 6 || sum == 0);
                }
            }
        }
    }

    #[test]
    fn no_bytes_panic() {
        for len in 0..24 {
            for first in [0x45, 0x62, 0xff] {
                let mut packet = vec![first; len];
                let _ = Ecn::Met.write_into(&mut packet);
            }
        }
    }
}
