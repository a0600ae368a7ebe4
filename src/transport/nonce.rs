//! What both directions share: how a nonce is made.

use zeroize::Zeroizing;

/// What the counters of one key are mixed into. Secret, and wiped when it is dropped.
pub(super) struct Iv(Zeroizing<[u8; 12]>);

impl Iv {
    pub(super) fn new(iv: [u8; 12]) -> Self {
        Self(Zeroizing::new(iv))
    }

    /// iv XOR (0000 ‖ counter), the counter little-endian (protocol §6).
    pub(super) fn nonce(&self, counter: u64) -> [u8; 12] {
        let mut nonce = *self.0;
        for (byte, mixed) in nonce[4..].iter_mut().zip(counter.to_le_bytes()) {
            *byte ^= mixed;
        }
        nonce
    }
}

impl std::fmt::Debug for Iv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Iv(…)")
    }
}
