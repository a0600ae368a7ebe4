//! Init, Response and Done byte for byte (protocol §6). Little-endian, every length fixed, reserved bytes zero.

use super::suite::{Suite, Suites};
use crate::{
    ids::Boot,
    wire::{
        Malformed,
        exchange::{DONE_LEN, INIT_LEN, RESPONSE_LEN},
    },
};

/// Bytes of an ML-KEM-768 encapsulation key.
pub const KEM_KEY_LEN: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
pub const CIPHERTEXT_LEN: usize = 1088;
/// Bytes of a confirmation.
pub const CONFIRM_LEN: usize = 16;
/// Bytes of a Response before its confirmation: what the transcript holds of it.
pub const UNCONFIRMED_LEN: usize = RESPONSE_LEN - CONFIRM_LEN;

const VERSION: u8 = 1;

/// The number of one exchange, drawn by its initiator.
pub type Xid = [u8; 16];

/// What an initiator offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// What it can seal by.
    pub suites: Suites,
    /// Under which index it will receive.
    pub index: u32,
    /// Its run.
    pub boot: Boot,
    /// The exchange.
    pub xid: Xid,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
    /// Its ephemeral X25519 key.
    pub x25519: [u8; 32],
    /// Its ephemeral ML-KEM-768 key.
    pub kem: [u8; KEM_KEY_LEN],
}

/// What a responder answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Keys.
    Agreed(Box<Response>),
    /// No keys, and a reason that this build has no name for: it gives none itself.
    Refused {
        /// The exchange.
        xid: Xid,
        /// Never 0.
        status: u8,
    },
}

/// The keys of a responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What both will seal by.
    pub suite: Suite,
    /// Under which index it receives.
    pub index: u32,
    /// Its run.
    pub boot: Boot,
    /// The Init's.
    pub xid: Xid,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
    /// Its ephemeral X25519 key.
    pub x25519: [u8; 32],
    /// A secret sealed to the Init's ML-KEM-768 key.
    pub ciphertext: [u8; CIPHERTEXT_LEN],
    /// Proof that it has the keys.
    pub confirm: [u8; CONFIRM_LEN],
}

/// The first packet under new keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The exchange.
    pub xid: Xid,
    /// Proof that the initiator has the keys.
    pub confirm: [u8; CONFIRM_LEN],
}

impl Init {
    /// Its bytes.
    pub fn encode(&self) -> [u8; INIT_LEN] {
        joined(&[
            &[VERSION, self.suites.byte(), 0, 0],
            &self.index.to_le_bytes(),
            &self.boot.0,
            &self.xid,
            &self.nonce,
            &self.x25519,
            &self.kem,
        ])
    }

    /// Reads one.
    ///
    /// # Errors
    /// A fixed byte that is wrong, or suites without ChaCha20-Poly1305.
    pub fn decode(bytes: &[u8; INIT_LEN]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let [version, suites, 0, 0] = fields.take()? else {
            return Err(Malformed::Layout);
        };
        let suites = Suites::from_byte(suites).ok_or(Malformed::Layout)?;
        if version != VERSION {
            return Err(Malformed::Layout);
        }
        Ok(Self {
            suites,
            index: u32::from_le_bytes(fields.take()?),
            boot: Boot(fields.take()?),
            xid: fields.take()?,
            nonce: fields.take()?,
            x25519: fields.take()?,
            kem: fields.take()?,
        })
    }
}

impl Response {
    /// Its bytes.
    pub fn encode(&self) -> [u8; RESPONSE_LEN] {
        joined(&[
            &[VERSION, self.suite.bit(), 0, 0],
            &self.index.to_le_bytes(),
            &self.boot.0,
            &self.xid,
            &self.nonce,
            &self.x25519,
            &self.ciphertext,
            &self.confirm,
        ])
    }
}

impl Answer {
    /// Reads what answers an Init.
    ///
    /// # Errors
    /// A fixed byte that is wrong, or anything but one known suite.
    pub fn decode(bytes: &[u8; RESPONSE_LEN]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let [VERSION, suite, status, 0] = fields.take()? else {
            return Err(Malformed::Layout);
        };
        let index = u32::from_le_bytes(fields.take()?);
        let boot = Boot(fields.take()?);
        let xid = fields.take()?;
        if status != 0 {
            return Ok(Self::Refused { xid, status });
        }
        Ok(Self::Agreed(Box::new(Response {
            suite: Suite::from_bit(suite).ok_or(Malformed::Layout)?,
            index,
            boot,
            xid,
            nonce: fields.take()?,
            x25519: fields.take()?,
            ciphertext: fields.take()?,
            confirm: fields.take()?,
        })))
    }

    /// Which exchange it answers.
    pub fn xid(&self) -> Xid {
        match self {
            Self::Agreed(response) => response.xid,
            Self::Refused { xid, .. } => *xid,
        }
    }
}

impl Done {
    /// Its bytes.
    pub fn encode(&self) -> [u8; DONE_LEN] {
        joined(&[&self.xid, &self.confirm])
    }

    /// Reads one; every 32 bytes are one.
    pub fn decode(bytes: &[u8; DONE_LEN]) -> Self {
        Self {
            xid: *bytes.first_chunk().expect("32 bytes begin with 16"),
            confirm: *bytes.last_chunk().expect("32 bytes end with 16"),
        }
    }
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::CutShort)?;
        self.0 = tail;
        Ok(*head)
    }
}

/// Fields one after the other, which fill the message.
fn joined<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let bytes = fields.concat();
    bytes
        .try_into()
        .expect("the fields of a layout are as long as it is")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::suite::Aes;

    fn init() -> Init {
        Init {
            suites: Suites::of(Aes::InHardware),
            index: 0x0102_0304,
            boot: Boot([5; 8]),
            xid: [6; 16],
            nonce: [7; 32],
            x25519: [8; 32],
            kem: [9; KEM_KEY_LEN],
        }
    }

    fn response() -> Response {
        Response {
            suite: Suite::Aes256Gcm,
            index: 0x0102_0304,
            boot: Boot([5; 8]),
            xid: [6; 16],
            nonce: [7; 32],
            x25519: [8; 32],
            ciphertext: [9; CIPHERTEXT_LEN],
            confirm: [10; CONFIRM_LEN],
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        assert_eq!(Init::decode(&init().encode()), Ok(init()));
        let read = Answer::decode(&response().encode());
        assert_eq!(read, Ok(Answer::Agreed(Box::new(response()))));
        let done = Done {
            xid: [1; 16],
            confirm: [2; 16],
        };
        assert_eq!(Done::decode(&done.encode()), done);
    }

    #[test]
    fn fields_stand_where_the_protocol_says() {
        let bytes = init().encode();
        assert_eq!(bytes[..8], [1, 3, 0, 0, 4, 3, 2, 1]);
        let edges = [8, 16, 32, 64, 96, 1280];
        for (at, value) in edges.windows(2).zip(5_u8..) {
            assert!(bytes[at[0]..at[1]].iter().all(|byte| *byte == value));
        }
        let bytes = response().encode();
        assert_eq!(bytes[..8], [1, 1, 0, 0, 4, 3, 2, 1]);
        let edges = [8, 16, 32, 64, 96, 1184, 1200];
        for (at, value) in edges.windows(2).zip(5_u8..) {
            assert!(bytes[at[0]..at[1]].iter().all(|byte| *byte == value));
        }
    }

    #[test]
    fn every_fixed_byte_is_looked_at() {
        for (at, bits) in [(0, 0xff), (2, 0xff), (3, 0xff), (1, 2)] {
            let mut broken = init().encode();
            broken[at] ^= bits;
            assert_eq!(Init::decode(&broken), Err(Malformed::Layout), "byte {at}");
        }
        for (at, bits) in [(0, 0xff), (3, 0xff), (1, 2), (1, 1), (1, 5)] {
            let mut broken = response().encode();
            broken[at] ^= bits;
            assert_eq!(Answer::decode(&broken), Err(Malformed::Layout), "byte {at}");
        }
    }

    #[test]
    fn a_refusal_is_read_whatever_else_it_holds() {
        let mut bytes = [0; RESPONSE_LEN];
        bytes[0] = 1;
        bytes[2] = 9;
        bytes[16..32].fill(6);
        let refused = Answer::Refused {
            xid: [6; 16],
            status: 9,
        };
        assert_eq!(Answer::decode(&bytes), Ok(refused));
    }
}
