//! Control frames inside a session (protocol §4): the 12-byte frame head, and the 20 bytes before it in WireGuard.
