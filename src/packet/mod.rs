//! IP, TCP, UDP and ICMP bytes: views, checksums, address and port rewriting, ICMP errors, SYN and RST.
//!
//! Knows RFC 791, 8200, 768, 9293, 792, 4443. Refuses to know peers, routes and what a packet is for.
