//! What both directions share: how a key and a nonce are made.

use aws_lc_rs::aead::{LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::suite::Suite;

/// What the counters of one key are mixed into. Secret, and wiped when it is dropped.
pub(super) struct Iv(Zeroizing<[u8; 12]>);

impl Iv {
    pub(super) fn new(iv: [u8; 12]) -> Self {
        Self(Zeroizing::new(iv))
    }

    /// iv XOR (0000 ‖ counter), the counter little-endian (protocol §6).
    pub(super) fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = *self.0;
        for (byte, mixed) in nonce[4..].iter_mut().zip(counter.to_le_bytes()) {
            *byte ^= mixed;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl std::fmt::Debug for Iv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Iv(…)")
    }
}

/// The library wipes the key when it is dropped.
pub(super) fn aead(suite: Suite, key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(suite.algorithm(), key);
    LessSafeKey::new(key.expect("both ciphers have keys of 32 bytes"))
}
