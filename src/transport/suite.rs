//! The two ciphers of a transport, and which of them a pair uses.

use std::fmt;

/// The cipher of one transport. Both have keys of 32 bytes, nonces of 12 and tags of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

/// Whether this machine has AES and carry-less multiply in hardware. Without them AES-256-GCM is slow, and its tables
/// tell the key to whoever shares the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aes {
    /// It has both.
    InHardware,
    /// It lacks one.
    InSoftware,
}

/// The suites that an Init offers, as its byte has them. Bits that this build does not know are kept and mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites(u8);

const AES_256_GCM_BIT: u8 = 1;
const CHACHA20_POLY1305_BIT: u8 = 2;

impl Suite {
    /// Its one bit, as a Response has it.
    pub fn bit(self) -> u8 {
        match self {
            Self::Aes256Gcm => AES_256_GCM_BIT,
            Self::ChaCha20Poly1305 => CHACHA20_POLY1305_BIT,
        }
    }

    /// The suite of one bit.
    pub fn from_bit(bit: u8) -> Option<Self> {
        match bit {
            AES_256_GCM_BIT => Some(Self::Aes256Gcm),
            CHACHA20_POLY1305_BIT => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// As `webmesh status` names it.
impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        })
    }
}

impl Suites {
    /// What a machine offers.
    pub fn of(aes: Aes) -> Self {
        Self(match aes {
            Aes::InHardware => AES_256_GCM_BIT | CHACHA20_POLY1305_BIT,
            Aes::InSoftware => CHACHA20_POLY1305_BIT,
        })
    }

    /// Reads the byte of an Init; none without the one that everybody has.
    pub fn from_byte(byte: u8) -> Option<Self> {
        (byte & CHACHA20_POLY1305_BIT != 0).then_some(Self(byte))
    }

    /// The byte of an Init.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// Whether this one was offered.
    pub fn has(self, suite: Suite) -> bool {
        self.0 & suite.bit() != 0
    }

    /// What a machine chooses of these: AES only where both have it in hardware.
    pub fn choose(self, aes: Aes) -> Suite {
        if aes == Aes::InHardware && self.has(Suite::Aes256Gcm) {
            Suite::Aes256Gcm
        } else {
            Suite::ChaCha20Poly1305
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_is_chosen_only_where_both_have_it_in_hardware() {
        let choice = |initiator, responder| Suites::of(initiator).choose(responder);
        let (hard, soft) = (Aes::InHardware, Aes::InSoftware);
        assert_eq!(choice(hard, hard), Suite::Aes256Gcm);
        for (initiator, responder) in [(hard, soft), (soft, hard), (soft, soft)] {
            assert_eq!(choice(initiator, responder), Suite::ChaCha20Poly1305);
        }
    }

    #[test]
    fn an_offer_without_what_everybody_has_is_none_and_unknown_bits_are_harmless() {
        for byte in 0..=255_u8 {
            assert_eq!(Suites::from_byte(byte).is_some(), byte & 2 != 0, "{byte}");
            let known = [1, 2].contains(&byte);
            assert_eq!(Suite::from_bit(byte).is_some(), known, "{byte}");
        }
        let future = Suites::from_byte(0xfe).unwrap();
        assert_eq!(future.choose(Aes::InHardware), Suite::ChaCha20Poly1305);
        assert_eq!(future.byte(), 0xfe);
    }
}
