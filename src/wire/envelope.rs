//! What sealed datagrams and slots are made of: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) over a body and its padding.

use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::{
    Malformed,
    cbor::{Item, Layout},
};

/// Bytes of the nonce.
pub(super) const NONCE: usize = 24;
/// Bytes of the tag.
pub(super) const TAG: usize = 16;

/// nonce ‖ ciphertext ‖ tag.
pub(super) fn seal(
    key: &[u8; 32],
    nonce: [u8; NONCE],
    associated: &[u8],
    mut plaintext: Vec<u8>,
) -> Vec<u8> {
    let tag = XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(XNonce::from_slice(&nonce), associated, &mut plaintext)
        .expect("the plaintext is far below the AEAD's limit");
    [&nonce[..], &plaintext, &tag].concat()
}

/// The nonce and the plaintext of what [`seal`] gave; None: it is too short, or not sealed under this key with this around
/// it.
pub(super) fn open(
    key: &[u8; 32],
    associated: &[u8],
    sealed: &[u8],
) -> Option<([u8; NONCE], Vec<u8>)> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
    let mut plaintext = ciphertext.to_vec();
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(
            XNonce::from_slice(nonce),
            associated,
            &mut plaintext,
            Tag::from_slice(tag),
        )
        .ok()?;
    Some((*nonce, plaintext))
}

/// The one body at the front of a plaintext, then only zeros.
pub(super) fn front<T: Layout>(plaintext: &[u8]) -> Result<Item<'_>, Malformed> {
    let item = Item::front(plaintext, plaintext.len(), T::KEYS)?;
    if item.rest().iter().any(|byte| *byte != 0) {
        return Err(Malformed::Trailing);
    }
    Ok(item)
}
