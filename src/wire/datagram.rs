//! What the first bytes of a datagram say it is (protocol §1).
