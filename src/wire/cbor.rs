//! The CBOR profile of protocol §0 and its one checker, which runs before every decode.
