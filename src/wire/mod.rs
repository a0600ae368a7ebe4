//! Every byte we put on a network, and back (protocol.md §0–§4, §7, §11).
//!
//! Knows layouts, limits and the CBOR profile. Refuses to know what a message means, who may say it, or what time it
//! is. Nothing here can panic on what a peer sent, and no decoder allocates more than its input is long plus a
//! constant.

pub mod cbor;
pub mod datagram;
pub mod frame;
pub mod message;
pub mod record;
pub mod sealed;
