//! The root key of a network, and the recovery code it is made from (protocol §8).

use ed25519_dalek::SigningKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    hidden,
    node::{Word, sign, verify},
};
use crate::{
    hash::{Use, hash, short},
    ids::{NetworkId, NodeId},
};

/// The 128 bits from which the root key is made and the recovery code is written.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RootSeed(pub [u8; 16]);

/// The key that signs Network and Admin records.
#[derive(Clone)]
pub struct RootKey(SigningKey);

hidden!(RootSeed, RootKey);

/// Why a text is no recovery code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefused {
    /// A letter that no code has.
    #[error("'{0}' is not in a recovery code: it has only digits and letters, without U")]
    Letter(char),
    /// Too few or too many letters.
    #[error("a recovery code has 28 letters, this one has {0}: type all seven groups of four")]
    Length(usize),
    /// The right form, but its check does not match.
    #[error(
        "a letter of this recovery code is wrong (its check does not match): compare it with the paper"
    )]
    Mistyped,
}

const LETTERS: usize = 28;
const GROUP: usize = 4;
const ALPHABET: [u8; 32] = *b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RootSeed {
    /// The root key.
    pub fn key(&self) -> RootKey {
        RootKey(SigningKey::from_bytes(&hash(Use::Root, &[&self.0])))
    }

    /// The recovery code: seven groups of four letters, joined by hyphens.
    pub fn code(&self) -> String {
        let check = u128::from(self.code_check());
        let seed = u128::from_be_bytes(self.0);
        let letter = |i: usize| match i {
            // The 26th letter holds the last 3 bits of the seed and the first 2 of the check.
            0..25 => seed >> (123 - 5 * i) & 31,
            25 => (seed & 7) << 2 | check >> 10,
            _ => check >> (5 * (LETTERS - 1 - i)) & 31,
        };
        let mut code = String::new();
        for i in 0..LETTERS {
            if i > 0 && i % GROUP == 0 {
                code.push('-');
            }
            code.push(char::from(
                ALPHABET[usize::try_from(letter(i)).expect("5 bits")],
            ));
        }
        code
    }

    /// Reads a recovery code as people type it: any case, hyphens and spaces anywhere, I and L for 1, O for 0.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_code(text: &str) -> Result<Self, CodeRefused> {
        let mut values = [0; LETTERS];
        let mut count = 0;
        for letter in text
            .chars()
            .filter(|letter| !letter.is_whitespace() && !is_hyphen(*letter))
        {
            let value = value_of(letter).ok_or(CodeRefused::Letter(letter))?;
            if let Some(place) = values.get_mut(count) {
                *place = value;
            }
            count += 1;
        }
        if count != LETTERS {
            return Err(CodeRefused::Length(count));
        }
        let seed = values
            .iter()
            .take(25)
            .fold(0, |bits: u128, value| bits << 5 | u128::from(*value));
        let seed = Self((seed << 3 | u128::from(values[25] >> 2)).to_be_bytes());
        let check =
            u16::from(values[25] & 3) << 10 | u16::from(values[26]) << 5 | u16::from(values[27]);
        if check == seed.code_check() {
            Ok(seed)
        } else {
            Err(CodeRefused::Mistyped)
        }
    }

    /// The first 12 bits of the check's hash.
    fn code_check(&self) -> u16 {
        u16::from_be_bytes(short(Use::Recovery, &[&self.0])) >> 4
    }
}

impl RootKey {
    /// The public half: the subject of Network, Epoch and Policy records.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The id of the network that this key founds.
    pub fn network_id(&self) -> NetworkId {
        network_id(&self.public())
    }

    /// Signs parts, joined, under a word and this root's own network.
    pub fn sign(&self, word: Word, parts: &[&[u8]]) -> [u8; 64] {
        sign(&self.0, word, &self.network_id().0, parts)
    }
}

/// Whether `root` is the root key of the network and signed these parts, joined, under this word.
pub fn verify_root(
    root: &[u8; 32],
    word: Word,
    network: NetworkId,
    parts: &[&[u8]],
    signature: &[u8; 64],
) -> bool {
    network_id(root) == network && verify(NodeId(*root), word, &network.0, parts, signature)
}

fn network_id(root: &[u8; 32]) -> NetworkId {
    NetworkId(hash(Use::Network, &[root]))
}

fn is_hyphen(letter: char) -> bool {
    matches!(letter, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

fn value_of(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    let place = ALPHABET
        .iter()
        .position(|known| char::from(*known) == letter)?;
    u8::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_seed_survives_its_code() {
        for bit in 0..128 {
            let seed = RootSeed((1_u128 << bit).to_be_bytes());
            let code = seed.code();
            assert_eq!(code.len(), 34);
            assert_eq!(RootSeed::parse_code(&code), Ok(seed), "bit {bit}");
        }
    }

    #[test]
    fn a_code_may_be_typed_in_any_case_with_any_gaps() {
        let seed = RootSeed([0; 16]);
        let code = seed.code();
        assert!(code.starts_with("0000-0000"));
        let bare = code.replace('-', "");
        let spread: String = bare.chars().flat_map(|letter| [letter, ' ']).collect();
        for typed in [
            code.to_lowercase(),
            bare,
            spread,
            code.replace('0', "O"),
            code.replace('-', "\u{2013}"),
        ] {
            assert_eq!(RootSeed::parse_code(&typed), Ok(seed.clone()), "{typed}");
        }
    }

    #[test]
    fn a_code_that_is_wrong_says_how() {
        let code = RootSeed([7; 16]).code();
        let last = if code.ends_with('0') { "1" } else { "0" };
        let short: String = code.chars().take(33).collect();
        let mistyped = format!("{short}{last}");
        assert_eq!(RootSeed::parse_code(&mistyped), Err(CodeRefused::Mistyped));
        assert_eq!(RootSeed::parse_code(&short), Err(CodeRefused::Length(27)));
        assert_eq!(
            RootSeed::parse_code(&format!("{code}{code}")),
            Err(CodeRefused::Length(56))
        );
        assert_eq!(
            RootSeed::parse_code(&code.replace('-', "u")),
            Err(CodeRefused::Letter('u'))
        );
        assert_eq!(RootSeed::parse_code(""), Err(CodeRefused::Length(0)));
    }

    #[test]
    fn a_root_signs_for_its_own_network_alone() {
        let (root, other) = (RootSeed([1; 16]).key(), RootSeed([2; 16]).key());
        let signature = root.sign(Word::Record, &[b"a"]);
        let holds = |public: [u8; 32], network| {
            verify_root(&public, Word::Record, network, &[b"a"], &signature)
        };
        assert!(holds(root.public(), root.network_id()));
        assert!(!holds(root.public(), other.network_id()));
        assert!(!holds(other.public(), other.network_id()));
    }
}
