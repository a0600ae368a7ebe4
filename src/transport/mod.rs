//! Transports: how bulk data between two peers of the network is sealed (protocol §6).
//!
//! Knows one pair at one end: the exchange that makes keys, when keys end, and how a packet becomes a datagram and back.
//! Refuses to know where datagrams come from and go to, what a packet says, and what time it is. Nothing here waits or
//! touches a descriptor. Random bytes and receive indexes are drawn from [`Outside`]; so is ML-KEM, whose
//! randomness aws-lc-rs draws by itself ([`kem`]): with stored values in its place the exchange is a function of its
//! inputs, which the golden vectors in `tests/vectors/transport.txt` rest on. Unlike other cores an [`Exchange`] cannot
//! be cloned, since two copies of a key would use the same counters.
//!
//! In: frames of the exchange, the news that a user packet waits, that user data flowed, that the first datagram of a
//! key opened; datagrams to seal and open. Out: [`Output`] of [`Exchange::poll_output`], and [`Sealing`] and [`Opening`],
//! which the data thread owns and uses without asking this room anything more.
//!
//! # Why it is secure
//!
//! - *Keys.* They follow by HKDF-SHA256 from an ephemeral X25519 secret and an ephemeral ML-KEM-768 secret together, so
//!   they are secret as long as one of the two holds: whoever records today and owns a quantum computer tomorrow has
//!   nothing. The transcript, with both X25519 keys, the ML-KEM key and its ciphertext, goes into the keys too: two
//!   exchanges that differ in a message have different keys, whatever becomes of one of the two schemes. The salt is the
//!   pair's preshared key, so who is no member of the network has nothing even if both fall.
//! - *Who is there.* Authentication is classical. The messages travel inside the pair's WireGuard session, which
//!   proved both tunnel keys; each Peer record binds a tunnel key to its node. The transcript hash covers the network,
//!   both nodes, both tunnel keys and both messages, so ends that disagree in any byte have different keys, and find
//!   out: the initiator takes no key before the responder's confirmation is right, and the responder seals nothing
//!   before a packet has opened.
//! - *No downgrade.* The suites offered and the one chosen stand in the transcript. Only the peer itself can refuse;
//!   who is between can lose messages. Then data stays in WireGuard, and [`Failure`] says why.
//! - *Old keys.* Every exchange has fresh ephemeral keys, wiped when it ends. What they made lives in memory only, for
//!   minutes.
//! - *Packets.* The 16 bytes of header are authenticated with the packet. A counter belongs to one key and is taken from
//!   one place, so a nonce comes once; the IV, secret and different in each direction, keeps nonces of many keys apart.
//!   [`limits`] keeps each key far below what its cipher bears. A datagram is delivered once ([`window`]) and changes
//!   nothing before its tag was right.
//!
//! # What it assumes of WireGuard
//!
//! That what comes out of the pair's session was sent by the holder of the peer's tunnel key. It assumes no order, no
//! delivery, no secrecy and no freshness: a replayed Init costs some work and makes keys that nobody uses. If WireGuard's
//! authentication fell, whoever has the pair's psk too, which every member can compute, could make transports with
//! either end, as it could make WireGuard sessions. What was exchanged before stays secret.
//!
//! # A process that is copied
//!
//! A copy of this process, by `fork` or by a virtual machine that is resumed twice, would use counters again, and with
//! AES-GCM that gives away its authentication key. This room cannot see it. What it gives: keys are never written,
//! cloned or rebuilt; [`Exchange::handle_closed`] ends every key of a pair at once; and a peer that shows another boot
//! id in an exchange loses the keys of its former run. What the shell owes: a child of a fork never comes to the data
//! thread's code, and every pair, with the WireGuard session below it, is closed before anything more is sealed when the wall
//! clock has moved against CLOCK_BOOTTIME by more than 2 s. A copy that is resumed at the very second of the other one, or
//! without a step of its clock, is not noticed.
//!
//! # What is not wiped
//!
//! Every secret that this room holds is wiped when it is dropped, and so are the keys inside aws-lc-rs. Those inside ring,
//! where that seals ([`cipher`]), are not. What the compiler copied while it moved them, and the library's SHA-256, HMAC
//! and HKDF states, stood on the stack and are not.

mod cipher;
mod exchange;
mod halves;
mod initiating;
pub mod kem;
pub mod layout;
pub mod limits;
mod nonce;
mod opening;
mod responding;
pub mod schedule;
mod sealing;
pub mod suite;
#[cfg(test)]
mod tests;
pub mod window;

pub use exchange::{Carrier, EqualNodes, Exchange, Failure, Output, Outside, Refused, Terms};
pub use opening::{Content, NotOpened, Opened, Opening, Order};
pub use sealing::{HEADER_LEN, NotSealed, OVERHEAD, Run, Sealing, Stopped, TAG_LEN, padded};
