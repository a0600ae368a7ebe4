//! How packets are sealed: AES by the library that is the fastest with it on this processor, for which this is built; the
//! product chooses alike (src/transport/cipher.rs). ChaCha20-Poly1305 was measured to be as fast in both.

use super::Ends;
pub use aead::{AES_256_GCM as AES, CHACHA20_POLY1305 as CHACHA};
pub use aead::{Aad, LessSafeKey, Nonce, UnboundKey};

/// Before each sealed packet: type, index and counter, all authenticated; and after it.
pub const HEADER: usize = 16;
pub const TAG: usize = 16;

cfg_select! {
    all(target_feature = "vaes", target_feature = "vpclmulqdq", not(target_feature = "avx512f")) => {
        use ring::aead;
        fn seal(key: &LessSafeKey, nonce: Nonce, header: Aad<&[u8]>, packet: &[u8], sealed: &mut [u8]) {
            let (body, end) = sealed.split_at_mut(packet.len());
            body.copy_from_slice(packet);
            let tag = key.seal_in_place_separate_tag(nonce, header, body).expect("it is short");
            end.copy_from_slice(tag.as_ref());
        }
    }
    _ => {
        use aws_lc_rs::aead;
        fn seal(key: &LessSafeKey, nonce: Nonce, header: Aad<&[u8]>, packet: &[u8], sealed: &mut [u8]) {
            let (body, end) = sealed.split_at_mut(packet.len());
            let done = key.seal_out_of_place_scatter(nonce, header, packet, body, &[], end);
            done.expect("it is short");
        }
    }
}

impl Ends {
    /// Fills a datagram, which is as long as it must be.
    pub fn seal(&self, counter: u64, packet: &[u8], datagram: &mut [u8]) {
        let (header, sealed) = datagram.split_at_mut(HEADER);
        header[..8].copy_from_slice(&[0x10, 0, 0, 0, self.index, 0, 0, 0]);
        header[8..].copy_from_slice(&counter.to_le_bytes());
        seal(&self.key, nonce(header), Aad::from(header), packet, sealed);
    }

    /// Opens a datagram where it stands; whether it was sealed by this key.
    pub fn open(&self, datagram: &mut [u8]) -> bool {
        let (header, sealed) = datagram.split_at_mut(HEADER);
        let opened = self
            .key
            .open_in_place(nonce(header), Aad::from(header), sealed);
        opened.is_ok()
    }
}

/// One key serves both directions: their indexes differ.
fn nonce(header: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(&header[4..]).expect("index and counter have 12 bytes")
}
