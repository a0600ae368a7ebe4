//! The ends of a key, and the times of an exchange (protocol §6). RFC 9001, appendix B, gives the margin: 2³⁷ bytes in
//! at most 2³² packets stay below what AES-GCM and ChaCha20-Poly1305 may do under one key.

use std::time::Duration;

/// Another exchange is due when keys have been in use for so long,
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// or have sealed so many packets,
pub const REKEY_PACKETS: u64 = 1 << 31;
/// or so many bytes.
pub const REKEY_BYTES: u64 = 1 << 36;

/// Keys seal and open nothing after so long. A sealing key's time begins when it may be used, an opening key's with
/// its first packet: what was sealed in time is opened in time.
pub const STOP_AFTER: Duration = Duration::from_secs(180);
/// Counters are below this.
pub const COUNTERS: u64 = 1 << 32;
/// A key seals at most so many bytes, and opens at most so many.
pub const BYTES_MAX: u64 = 1 << 37;
/// A key refuses at most so many datagrams with a wrong tag.
pub const FAILED_MAX: u64 = 1 << 36;

/// When a message is sent again, counted from the first time, ± 20 %.
pub const RESEND: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// An exchange without an answer is given up after this,
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// and begun again so much later.
pub const PAUSE: Duration = Duration::from_secs(30);
/// Inits are this far apart.
pub const BETWEEN_INITS: Duration = Duration::from_secs(1);
/// An old receive key lives so long after the first packet under a new one.
pub const OLD_KEY: Duration = Duration::from_secs(10);
/// A receive key under which nothing came: the initiator may take the Response until it gives up, and says Done until it
/// gives up again; what is left is for the way.
pub const UNUSED_KEY: Duration = Duration::from_secs(25);
/// A transport without user data is of no use after this.
pub const LAPSE: Duration = Duration::from_secs(120);
/// At most so many receive keys of a pair: the previous, the current and one that waits for its first packet.
pub const RECEIVE_KEYS: usize = 3;
/// The index of a key that is gone means nothing for so long: what is still under way finds nobody.
pub const INDEX_REUSE: Duration = Duration::from_secs(300);
