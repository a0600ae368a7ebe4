//! ML-KEM-768 (FIPS 203), by aws-lc-rs.
//!
//! The one place of the room that is not a function of what it was given: aws-lc-rs draws the randomness of a key and
//! of a ciphertext by itself and offers no other way. So the exchange reaches these through [`super::Outside`], where
//! a test puts stored values in their place.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

use super::layout::{CIPHERTEXT_LEN, KEM_KEY_LEN};

/// A secret that both have.
pub type Shared = Zeroizing<[u8; 32]>;

/// Bytes of a decapsulation key.
pub const SECRET_KEY_LEN: usize = 2400;

/// A fresh key pair, used for one exchange.
#[derive(Clone)]
pub struct KemKey {
    /// What an Init carries.
    pub public: [u8; KEM_KEY_LEN],
    /// What opens the Response's ciphertext.
    pub secret: Zeroizing<[u8; SECRET_KEY_LEN]>,
}

impl std::fmt::Debug for KemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KemKey(…)")
    }
}

/// A key or a ciphertext that ML-KEM does not take, or a random generator that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of ML-KEM-768")]
pub struct KemRefused;

/// Has the library gather the seed of its random generator, once a process: some 60 ms, for which the first key would wait
/// otherwise, and a program's first packet for that key.
pub fn seed_generator() {
    // A generator that fails says so at the first exchange.
    let _ = aws_lc_rs::rand::fill(&mut [0; 1]);
}

/// Makes a key pair.
///
/// # Errors
/// The library's random generator failed.
pub fn generate() -> Result<KemKey, KemRefused> {
    let key = DecapsulationKey::generate(&ML_KEM_768).map_err(refused)?;
    let public = key.encapsulation_key().map_err(refused)?;
    let public = public.key_bytes().map_err(refused)?;
    let secret = key.key_bytes().map_err(refused)?;
    Ok(KemKey {
        public: array(public.as_ref())?,
        secret: Zeroizing::new(array(secret.as_ref())?),
    })
}

/// Makes a secret and seals it to a key.
///
/// # Errors
/// The key is not one (FIPS 203 §7.2, modulus check).
pub fn encapsulate(
    public: &[u8; KEM_KEY_LEN],
) -> Result<([u8; CIPHERTEXT_LEN], Shared), KemRefused> {
    let key = EncapsulationKey::new(&ML_KEM_768, public).map_err(|_rejected| KemRefused)?;
    let (ciphertext, shared) = key.encapsulate().map_err(refused)?;
    let shared = Zeroizing::new(array(shared.as_ref())?);
    Ok((array(ciphertext.as_ref())?, shared))
}

/// Opens a secret. A ciphertext made for another key gives another secret, not an error (FIPS 203 §7.3).
///
/// # Errors
/// The key is broken.
pub fn decapsulate(
    secret: &[u8; SECRET_KEY_LEN],
    ciphertext: &[u8; CIPHERTEXT_LEN],
) -> Result<Shared, KemRefused> {
    let key = DecapsulationKey::new(&ML_KEM_768, secret).map_err(|_rejected| KemRefused)?;
    let shared = key
        .decapsulate(Ciphertext::from(&ciphertext[..]))
        .map_err(refused)?;
    Ok(Zeroizing::new(array(shared.as_ref())?))
}

fn refused(_unspecified: aws_lc_rs::error::Unspecified) -> KemRefused {
    KemRefused
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KemRefused> {
    bytes.try_into().map_err(|_length| KemRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_get_one_secret_and_each_time_another() {
        let key = generate().unwrap();
        let (ciphertext, shared) = encapsulate(&key.public).unwrap();
        assert_eq!(decapsulate(&key.secret, &ciphertext), Ok(shared.clone()));
        let (_, again) = encapsulate(&key.public).unwrap();
        assert_ne!(shared, again);
    }

    #[test]
    fn a_key_that_is_not_canonical_is_refused() {
        let mut key = generate().unwrap().public;
        // Two coefficients of twelve bits, each 4095: more than the modulus.
        key[..3].fill(0xff);
        assert_eq!(encapsulate(&key).unwrap_err(), KemRefused);
    }

    #[test]
    fn a_broken_ciphertext_gives_another_secret() {
        let key = generate().unwrap();
        let (mut ciphertext, shared) = encapsulate(&key.public).unwrap();
        ciphertext[0] ^= 1;
        assert_ne!(decapsulate(&key.secret, &ciphertext).unwrap(), shared);
    }

    #[test]
    fn a_key_is_debugged_without_its_secret() {
        assert_eq!(format!("{:?}", generate().unwrap()), "KemKey(…)");
    }
}
