//! What the first bytes of a datagram say it is (protocol §1). Nothing else of it is looked at.

use super::sealed;

/// Bytes of the longest sealed datagram (protocol §0).
pub const SEALED_MAX: usize = 1200;
/// Bytes of the shortest sealed datagram (protocol §2): padding makes the question longer than any answer.
pub const SEALED_MIN: usize = 160;

/// A datagram by its outer form. `bytes` is always the whole datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// 01: a WireGuard initiation, 148 bytes.
    Initiation(&'a [u8]),
    /// 02: a WireGuard response, 92 bytes.
    Response(Indexed<'a>),
    /// 03: a WireGuard cookie reply, 64 bytes.
    Cookie(Indexed<'a>),
    /// 04: WireGuard data.
    Data(Counted<'a>),
    /// 10: data of a transport session (protocol §6).
    Transport(Counted<'a>),
    /// 20: a datagram inside a relay's frame.
    Relayed(Relayed<'a>),
    /// 21, 22, 23: how a relay session is bound.
    RelayBinding(RelayBinding),
    /// 30: first contact.
    Sealed(&'a [u8]),
    /// `d`: a reply of the Mainline DHT.
    Dht(&'a [u8]),
}

/// A datagram that names the receiver's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed<'a> {
    /// The receiver's index.
    pub receiver: u32,
    /// The whole datagram.
    pub bytes: &'a [u8],
}

/// A datagram that names the receiver's state and has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    /// The receiver's index.
    pub receiver: u32,
    /// The packet's number. Nothing has authenticated it.
    pub counter: u64,
    /// The whole datagram.
    pub bytes: &'a [u8],
}

/// A datagram in a relay's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// Chosen by the receiving end.
    pub session: u32,
    /// One datagram of type 01–04, 10, 21–23 or 30, or one more 20.
    pub datagram: &'a [u8],
}

/// A step of binding a way through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayBinding {
    /// Which step.
    pub step: RelayStep,
    /// Which end of which way: what frames to the relay carry.
    pub id: [u8; 4],
    /// Nonce.
    pub nonce: [u8; 16],
    /// Mac.
    pub mac: [u8; 16],
}

/// The steps of binding a relay session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// 21.
    Bind,
    /// 22.
    Challenge,
    /// 23.
    Answer,
}

/// Why a datagram is none of ours. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unclassified {
    /// Its first byte is no type of ours.
    #[error("unknown type of datagram")]
    Type,
    /// Bytes 1 to 3 are not what its type demands.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// Its type has another length.
    #[error("wrong length for its type")]
    Length,
}

/// Says what a datagram is, by its first bytes and its length alone.
///
/// # Errors
/// The rule that it breaks; such a datagram is dropped and counted.
pub fn classify(bytes: &[u8]) -> Result<Datagram<'_>, Unclassified> {
    if bytes.first() == Some(&b'd') {
        return Ok(Datagram::Dht(bytes));
    }
    match head(bytes)? {
        0x01 => exact(bytes, 148).map(|()| Datagram::Initiation(bytes)),
        0x02 => exact(bytes, 92)
            .and_then(|()| indexed(bytes, 8))
            .map(Datagram::Response),
        0x03 => exact(bytes, 64)
            .and_then(|()| indexed(bytes, 4))
            .map(Datagram::Cookie),
        0x04 => counted(bytes).map(Datagram::Data),
        0x10 => counted(bytes).map(Datagram::Transport),
        0x20 => relayed(bytes).map(Datagram::Relayed),
        0x21 => binding(bytes, RelayStep::Bind).map(Datagram::RelayBinding),
        0x22 => binding(bytes, RelayStep::Challenge).map(Datagram::RelayBinding),
        0x23 => binding(bytes, RelayStep::Answer).map(Datagram::RelayBinding),
        sealed::TYPE if (SEALED_MIN..=SEALED_MAX).contains(&bytes.len()) => {
            Ok(Datagram::Sealed(bytes))
        }
        _ => Err(Unclassified::Length),
    }
}

impl Relayed<'_> {
    /// Writes a datagram into a relay's frame.
    pub fn encode(&self) -> Vec<u8> {
        [&relay_head(self.session)[..], self.datagram].concat()
    }
}

/// Bytes of a relay's frame around a datagram.
pub const RELAY_HEAD: usize = 8;

/// What stands before a datagram in a relay's frame.
pub fn relay_head(session: u32) -> [u8; RELAY_HEAD] {
    let [a, b, c, d] = session.to_le_bytes();
    [0x20, 0, 0, 0, a, b, c, d]
}

impl RelayStep {
    /// Its first byte.
    pub fn kind(self) -> u8 {
        match self {
            Self::Bind => 0x21,
            Self::Challenge => 0x22,
            Self::Answer => 0x23,
        }
    }
}

impl RelayBinding {
    /// Writes the 40 bytes.
    pub fn encode(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[0] = self.step.kind();
        bytes[4..8].copy_from_slice(&self.id);
        bytes[8..24].copy_from_slice(&self.nonce);
        bytes[24..].copy_from_slice(&self.mac);
        bytes
    }
}

/// The type in the first byte, once the three after it are right for it.
fn head(bytes: &[u8]) -> Result<u8, Unclassified> {
    let kind = *bytes.first().ok_or(Unclassified::Length)?;
    let reserved = match kind {
        0x01..=0x04 | 0x10 | 0x20..=0x23 => bytes.get(1..4).map(|rest| rest == [0; 3]),
        sealed::TYPE => bytes.get(1..2).map(|rest| rest == [sealed::VERSION]),
        _ => return Err(Unclassified::Type),
    };
    match reserved {
        Some(true) => Ok(kind),
        Some(false) => Err(Unclassified::Reserved),
        None => Err(Unclassified::Length),
    }
}

fn exact(bytes: &[u8], len: usize) -> Result<(), Unclassified> {
    if bytes.len() == len {
        Ok(())
    } else {
        Err(Unclassified::Length)
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Unclassified> {
    let tail = bytes.get(at..).ok_or(Unclassified::Length)?;
    tail.first_chunk().copied().ok_or(Unclassified::Length)
}

fn indexed(bytes: &[u8], at: usize) -> Result<Indexed<'_>, Unclassified> {
    Ok(Indexed {
        receiver: u32::from_le_bytes(chunk(bytes, at)?),
        bytes,
    })
}

fn counted(bytes: &[u8]) -> Result<Counted<'_>, Unclassified> {
    if bytes.len() < 32 {
        return Err(Unclassified::Length);
    }
    Ok(Counted {
        receiver: u32::from_le_bytes(chunk(bytes, 4)?),
        counter: u64::from_le_bytes(chunk(bytes, 8)?),
        bytes,
    })
}

fn relayed(bytes: &[u8]) -> Result<Relayed<'_>, Unclassified> {
    let outer = unwrap_relay(bytes)?;
    match head(outer.datagram)? {
        0x01..=0x04 | 0x10 | 0x21..=0x23 | sealed::TYPE => Ok(outer),
        0x20 => match head(unwrap_relay(outer.datagram)?.datagram)? {
            0x01..=0x04 | 0x10 | sealed::TYPE => Ok(outer),
            _ => Err(Unclassified::Type),
        },
        _ => Err(Unclassified::Type),
    }
}

fn unwrap_relay(bytes: &[u8]) -> Result<Relayed<'_>, Unclassified> {
    if bytes.len() < 40 {
        return Err(Unclassified::Length);
    }
    Ok(Relayed {
        session: u32::from_le_bytes(chunk(bytes, 4)?),
        datagram: bytes.get(8..).ok_or(Unclassified::Length)?,
    })
}

fn binding(bytes: &[u8], step: RelayStep) -> Result<RelayBinding, Unclassified> {
    exact(bytes, 40)?;
    Ok(RelayBinding {
        step,
        id: chunk(bytes, 4)?,
        nonce: chunk(bytes, 8)?,
        mac: chunk(bytes, 24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(head: [u8; 4], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&head);
        bytes
    }

    #[test]
    fn what_is_no_type_of_ours_is_told_apart() {
        for kind in
            (0..=255).filter(|kind| !matches!(kind, 1..=4 | 0x10 | 0x20..=0x23 | 0x30 | b'd'))
        {
            assert_eq!(
                classify(&typed([kind, 0, 0, 0], 148)),
                Err(Unclassified::Type),
                "{kind:#x}"
            );
        }
        assert_eq!(classify(&[]), Err(Unclassified::Length));
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for (kind, len) in [
            (1, 148),
            (2, 92),
            (3, 64),
            (4, 32),
            (0x10, 32),
            (0x20, 156),
            (0x21, 40),
            (0x23, 40),
        ] {
            for at in 1..4 {
                let mut bytes = typed([kind, 0, 0, 0], len);
                bytes[at] = 1;
                assert_eq!(
                    classify(&bytes),
                    Err(Unclassified::Reserved),
                    "{kind:#x}, byte {at}"
                );
            }
        }
        assert_eq!(
            classify(&typed([0x30, 2, 1, 0], 160)),
            Err(Unclassified::Reserved)
        );
    }

    #[test]
    fn a_sealed_datagram_has_160_to_1200_bytes() {
        for (len, fits) in [(159, false), (160, true), (1200, true), (1201, false)] {
            assert_eq!(
                classify(&typed([0x30, 1, 1, 9], len)).is_ok(),
                fits,
                "{len}"
            );
        }
    }

    #[test]
    fn data_has_at_least_32_bytes_and_any_number_above() {
        for (len, fits) in [(31, false), (32, true), (1500, true)] {
            assert_eq!(classify(&typed([4, 0, 0, 0], len)).is_ok(), fits, "{len}");
            assert_eq!(
                classify(&typed([0x10, 0, 0, 0], len)).is_ok(),
                fits,
                "{len}"
            );
        }
    }

    #[test]
    fn a_relay_carries_what_peers_say_and_at_most_one_more_relay() {
        let relay = |datagram: &[u8]| {
            Relayed {
                session: 1,
                datagram,
            }
            .encode()
        };
        let once = relay(&typed([1, 0, 0, 0], 148));
        assert!(classify(&once).is_ok());
        assert!(classify(&relay(&once)).is_ok());
        assert_eq!(classify(&relay(&relay(&once))), Err(Unclassified::Type));
        // Behind one relay an end binds with another.
        let binding = relay(&typed([0x21, 0, 0, 0], 40));
        assert!(classify(&binding).is_ok());
        assert_eq!(classify(&relay(&binding)), Err(Unclassified::Type));
        assert_eq!(
            classify(&relay(b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re")),
            Err(Unclassified::Type)
        );
    }
}
