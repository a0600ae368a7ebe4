//! How an end proves to a relay where it is: bind, challenge, answer (protocol §1; datagrams 21, 22, 23).
//!
//! The key of the macs was told in a session, so a stranger makes none; the challenge goes where the bind came from, so
//! nobody binds an address that he does not hear at. Each datagram has 40 bytes: none asks for more than it costs.

use crate::{
    hash::{Use, short},
    wire::datagram::{RelayBinding, RelayStep},
};

/// What the macs of a way's end are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// 21: this end is here. The nonce begins with the id that frames to this end carry.
    pub fn bind(&self, id: [u8; 4], nonce: [u8; 16]) -> RelayBinding {
        self.make(RelayStep::Bind, (id, nonce), &[])
    }

    /// 22: say so again, with this nonce.
    pub fn challenge(&self, id: [u8; 4], nonce: [u8; 16], bind: &[u8; 16]) -> RelayBinding {
        self.make(RelayStep::Challenge, (id, nonce), bind)
    }

    /// 23: the challenge was heard here.
    pub fn answer(&self, challenge: &RelayBinding, bind: &[u8; 16]) -> RelayBinding {
        let RelayBinding { id, nonce, .. } = *challenge;
        self.make(RelayStep::Answer, (id, nonce), bind)
    }

    /// Whether the mac is right. `bind` is the nonce of the 21 that a 22 or 23 belongs to; empty for a 21.
    pub fn made(&self, binding: &RelayBinding, bind: &[u8]) -> bool {
        let right = self.mac(binding.step, (binding.id, binding.nonce), bind);
        let differ = right.iter().zip(binding.mac);
        differ.fold(0, |differ, (right, is)| differ | (right ^ is)) == 0
    }

    fn make(&self, step: RelayStep, (id, nonce): ([u8; 4], [u8; 16]), bind: &[u8]) -> RelayBinding {
        RelayBinding {
            step,
            id,
            nonce,
            mac: self.mac(step, (id, nonce), bind),
        }
    }

    fn mac(&self, step: RelayStep, (id, nonce): ([u8; 4], [u8; 16]), bind: &[u8]) -> [u8; 16] {
        short(
            Use::RelayBind,
            &[&self.0, &[step.kind()], &id, &nonce, bind],
        )
    }
}

/// The nonce of a 21: the end's own id for frames to it, then what nobody can foresee.
pub fn bind_nonce(own: u32, random: [u8; 12]) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&own.to_le_bytes());
    nonce[4..].copy_from_slice(&random);
    nonce
}

/// The id that stands in the nonce of a 21.
pub fn own_of(nonce: &[u8; 16]) -> u32 {
    u32::from_le_bytes([nonce[0], nonce[1], nonce[2], nonce[3]])
}
