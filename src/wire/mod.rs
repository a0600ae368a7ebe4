//! Every byte we put on a network, and back (protocol.md §0–§4, §7, §11).
//!
//! Knows layouts, limits and the CBOR profile. Refuses to know what a message means, who may say it, or what time it
//! is. Nothing here can panic on what a peer sent, and no decoder allocates more than its input is long plus a
//! constant.
//!
//! In: bytes from the UDP socket, from inside a session, or from the disk. Out: types, or [`Malformed`], which says
//! what kind of rule was broken and is a counter.
#![warn(clippy::indexing_slicing)]

mod body;
pub mod cbor;
pub mod datagram;
mod envelope;
pub mod exchange;
mod fields;
pub mod frame;
pub mod message;
pub mod reaching;
mod reader;
pub mod record;
pub mod sealed;
pub mod slot;
pub mod stream;

/// Why bytes were refused. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Malformed {
    /// They end before what they announce.
    #[error("cut short")]
    CutShort,
    /// They go on after their end.
    #[error("bytes after the end")]
    Trailing,
    /// They are more than this kind may have.
    #[error("longer than allowed")]
    TooLong,
    /// A fixed byte, a reserved byte or a length is not what it must be.
    #[error("not in the fixed layout")]
    Layout,
    /// The body is not in the CBOR profile of protocol §0.
    #[error("not in the CBOR profile")]
    Profile,
    /// The body lacks an entry, or one has the wrong type, length or value.
    #[error("an entry is missing or wrong")]
    Entry,
}
