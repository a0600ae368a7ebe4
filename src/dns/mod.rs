//! A zone made of the registry; query in, answer out (design §3, §6; RFC 1035, 2308, 6891).
//!
//! Knows names and addresses. Refuses to know packets, sockets and peers.
