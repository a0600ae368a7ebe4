//! One WireGuard state: a `Tunn` with its traps covered. The only file that names boringtun.
//!
//! What is covered (`research/reliability.md` §6): destinations shorter than a datagram, counters near 2⁶⁴, the
//! library's own queue and limiter, clocks before 1970, padding, and when a state may be given something to send.

use std::sync::Arc;

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};

use crate::time::Now;

/// The keys of one state.
pub struct Keys<'a> {
    /// Our static secret.
    pub local_secret: &'a x25519_dalek::StaticSecret,
    /// Their static public key.
    pub remote_public: &'a x25519_dalek::PublicKey,
    /// The preshared key.
    pub psk: [u8; 32],
}

impl std::fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// One WireGuard state with one peer.
pub struct Session {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    standing: Standing,
    /// The local index that was given out last, to keys that may never come to be.
    given: u32,
    /// That of the keys which seal.
    sealing: Option<u32>,
}

/// Whether a state may be given packets to send (protocol §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: no response was taken, no packet opened.
    Not,
    /// It has keys that both sides know.
    Up,
    /// It had, and they ran out.
    Lapsed,
}

/// What a datagram did to a state. Slices lie in the caller's buffer.
#[derive(Debug)]
pub enum Step<'a> {
    /// A cookie was taken; it says nothing about the peer.
    Cookie,
    /// An initiation was good: this response goes to where it came from.
    Response(&'a [u8]),
    /// A response was good: this confirmation goes to where it came from.
    Confirmation(&'a [u8]),
    /// Data opened and was empty.
    Keepalive,
    /// Data opened and looks like an IP packet; it may be shorter than an IP header.
    Inner(&'a mut [u8]),
    /// Data opened and is no IP packet.
    NotIp,
}

/// Why a datagram was refused; the state is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The first mac is wrong: the sender does not know our key.
    #[error("wrong mac")]
    Mac,
    /// A key, a tag or a preshared key is wrong.
    #[error("does not authenticate")]
    Tag,
    /// A counter or a time stamp was seen before.
    #[error("seen before")]
    Replay,
    /// No keys of this state have this index.
    #[error("unknown index")]
    Index,
    /// The counter is so high that boringtun would overflow.
    #[error("counter out of range")]
    Counter,
    /// Not expected in this state.
    #[error("unexpected message")]
    Unexpected,
}

/// What the timers of a state ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing.
    Quiet,
    /// This many bytes of initiation are to be sent.
    Initiation(usize),
    /// This many bytes of keepalive are to be sent.
    Keepalive(usize),
    /// The state is at its end.
    Expired,
}

/// Why a state was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clock is before 1970; set it")]
pub struct ClockBefore1970;

/// Bytes that WireGuard adds to a packet.
pub const OVERHEAD: usize = 32;

/// Bytes of an initiation, and the least a destination buffer may have.
pub const INITIATION: usize = 148;

/// Sets of keys that boringtun keeps, confirmed or not, by their local index: one more takes the place of the oldest.
const SETS: u32 = 8;

/// Where boringtun's counter arithmetic is still far from its overflow (protocol §3).
const COUNTER_END: u64 = 1 << 63;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?})", self.standing)
    }
}

impl Session {
    /// Makes a state. `index` is random, below 2²⁴, and unique among those alive: the top 24 bits of every receiver
    /// index of this state.
    ///
    /// # Errors
    /// When the wall clock is before 1970, where boringtun would panic.
    pub fn new(now: Now, keys: &Keys<'_>, index: u32) -> Result<Self, ClockBefore1970> {
        if now.unix_ms == 0 {
            return Err(ClockBefore1970);
        }
        let public = x25519_dalek::PublicKey::from(keys.local_secret);
        let limiter = Arc::new(RateLimiter::new(&public, u64::MAX));
        let tunn = Tunn::new(
            keys.local_secret.clone(),
            *keys.remote_public,
            Some(keys.psk),
            None,
            index & 0x00ff_ffff,
            Some(Arc::clone(&limiter)),
        );
        Ok(Self {
            tunn,
            limiter,
            standing: Standing::Not,
            given: 0,
            sealing: None,
        })
    }

    /// Whether it may be given packets to send.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the sender of this handshake message knows our public key. Costs one BLAKE2s.
    pub fn has_good_mac(&self, message: &[u8]) -> bool {
        self.limiter
            .verify_packet(None, message, &mut [0; 64])
            .is_ok()
    }

    /// Whether the keys of the next initiation that is answered would take the place of those that seal: so many handshakes
    /// were begun since those were made, and none was completed.
    pub fn would_displace_keys(&self) -> bool {
        let next = self.given.wrapping_add(1);
        self.standing == Standing::Up && self.sealing.is_some_and(|one| one % SETS == next % SETS)
    }

    /// Writes a new initiation into `dst`, whatever handshake is under way. The one before it can still be answered.
    pub fn initiate(&mut self, dst: &mut [u8]) -> Option<usize> {
        match self.tunn.format_handshake_initiation(dst, true) {
            TunnResult::WriteToNetwork(datagram) => {
                self.note_given(datagram);
                Some(datagram.len())
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Seals `plaintext`, which the caller has padded, into `dst`. None unless the state stands and `dst` has room for
    /// [`OVERHEAD`] bytes more, and for [`INITIATION`].
    pub fn encapsulate(&mut self, plaintext: &[u8], dst: &mut [u8]) -> Option<usize> {
        if self.standing != Standing::Up || dst.len() < (plaintext.len() + OVERHEAD).max(INITIATION)
        {
            return None;
        }
        match self.tunn.encapsulate(plaintext, dst) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Takes in one datagram of WireGuard whose outer form was judged ([`crate::wire::datagram`]). `dst` must not be
    /// shorter than it, nor than [`INITIATION`].
    ///
    /// # Errors
    /// Why it was refused; the state is unchanged.
    pub fn decapsulate<'a>(
        &mut self,
        datagram: &[u8],
        dst: &'a mut [u8],
    ) -> Result<Step<'a>, Refused> {
        let kind = datagram.first().copied().ok_or(Refused::Unexpected)?;
        if dst.len() < datagram.len().max(INITIATION) {
            return Err(Refused::Unexpected);
        }
        if kind == 4 && counter(datagram).is_none_or(|counter| counter >= COUNTER_END) {
            return Err(Refused::Counter);
        }
        // The source only matters to a limiter that limits.
        let step = match (kind, self.tunn.decapsulate(None, datagram, dst)) {
            (1, TunnResult::WriteToNetwork(response)) => Step::Response(response),
            (2, TunnResult::WriteToNetwork(confirmation)) => Step::Confirmation(confirmation),
            (3, TunnResult::Done) => Step::Cookie,
            (4, TunnResult::Done) => Step::Keepalive,
            (4, TunnResult::WriteToTunnelV4(inner, _) | TunnResult::WriteToTunnelV6(inner, _)) => {
                Step::Inner(inner)
            }
            (4, TunnResult::Err(WireGuardError::InvalidPacket)) => Step::NotIp,
            (_, TunnResult::Err(error)) => return Err(refusal(&error)),
            (
                _,
                TunnResult::Done
                | TunnResult::WriteToNetwork(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => return Err(Refused::Unexpected),
        };
        match &step {
            Step::Confirmation(_) => self.note_keys(index_at(datagram, 8)),
            Step::Keepalive | Step::Inner(_) | Step::NotIp => self.note_keys(index_at(datagram, 4)),
            Step::Response(response) => self.note_given(response),
            Step::Cookie => {}
        }
        Ok(step)
    }

    /// A message of a handshake goes out: it names the local index of keys that may come of it.
    fn note_given(&mut self, message: &[u8]) {
        self.given = index_at(message, 4).unwrap_or(self.given);
    }

    /// Both sides know the keys of this local index. The later ones seal.
    fn note_keys(&mut self, index: Option<u32>) {
        self.standing = Standing::Up;
        let age = |index: u32| self.given.wrapping_sub(index) & 0xff;
        if let Some(index) = index
            && self.sealing.is_none_or(|known| age(index) < age(known))
        {
            self.sealing = Some(index);
        }
    }

    /// Runs the timers of a state that stands; call it about every 250 ms. A state that does not stand has none: its
    /// tries are its owner's.
    pub fn tick(&mut self, dst: &mut [u8]) -> Tick {
        if self.standing != Standing::Up {
            return Tick::Quiet;
        }
        let tick = match self.tunn.update_timers(dst) {
            TunnResult::WriteToNetwork(datagram) if datagram.first() == Some(&1) => {
                self.note_given(datagram);
                Tick::Initiation(datagram.len())
            }
            TunnResult::WriteToNetwork(datagram) => Tick::Keepalive(datagram.len()),
            TunnResult::Err(_) => Tick::Expired,
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Tick::Quiet,
        };
        // Timers drop keys, and what `would_displace_keys` warns of: so this is the one place where they can have run out.
        if self.tunn.time_since_last_handshake().is_none() {
            self.standing = Standing::Lapsed;
        }
        tick
    }
}

/// The index at this place of a message.
pub fn index_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The counter of a data message.
pub fn counter(datagram: &[u8]) -> Option<u64> {
    let bytes = datagram.get(8..16)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

fn refusal(error: &WireGuardError) -> Refused {
    match error {
        WireGuardError::InvalidMac => Refused::Mac,
        WireGuardError::WrongKey | WireGuardError::InvalidAeadTag => Refused::Tag,
        WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter => Refused::Replay,
        WireGuardError::WrongIndex | WireGuardError::NoCurrentSession => Refused::Index,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => Refused::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Moment;

    const NOW: Now = Now {
        at: Moment(1),
        unix_ms: 1,
    };

    fn pair() -> (Session, Session) {
        let secret = |seed: u8| x25519_dalek::StaticSecret::from([seed; 32]);
        let (a, b) = (secret(1), secret(2));
        let make =
            |mine: &x25519_dalek::StaticSecret, theirs: &x25519_dalek::StaticSecret, index| {
                let keys = Keys {
                    local_secret: mine,
                    remote_public: &x25519_dalek::PublicKey::from(theirs),
                    psk: [7; 32],
                };
                Session::new(NOW, &keys, index).unwrap()
            };
        (make(&a, &b, 0x11_2233), make(&b, &a, 0x44_5566))
    }

    fn initiation(session: &mut Session) -> Vec<u8> {
        let mut dst = [0; 256];
        let len = session.initiate(&mut dst).unwrap();
        dst[..len].to_vec()
    }

    fn response(session: &mut Session, datagram: &[u8]) -> Vec<u8> {
        let mut dst = [0; 256];
        let step = session.decapsulate(datagram, &mut dst).unwrap();
        let Step::Response(bytes) = step else {
            panic!("not a response: {step:?}");
        };
        bytes.to_vec()
    }

    fn confirmation(session: &mut Session, datagram: &[u8]) -> Vec<u8> {
        let mut dst = [0; 256];
        let step = session.decapsulate(datagram, &mut dst).unwrap();
        let Step::Confirmation(bytes) = step else {
            panic!("not a confirmation: {step:?}");
        };
        bytes.to_vec()
    }

    fn standing_pair() -> (Session, Session) {
        let (mut alice, mut bob) = pair();
        let first = initiation(&mut alice);
        let answer = response(&mut bob, &first);
        let last = confirmation(&mut alice, &answer);
        assert!(matches!(
            bob.decapsulate(&last, &mut [0; 256]),
            Ok(Step::Keepalive)
        ));
        (alice, bob)
    }

    #[test]
    fn the_initiator_stands_at_the_response_and_the_responder_at_the_first_packet() {
        let (mut alice, mut bob) = pair();
        let first = initiation(&mut alice);
        assert_eq!(
            u32::from_le_bytes(first[4..8].try_into().unwrap()) >> 8,
            0x11_2233
        );
        let answer = response(&mut bob, &first);
        assert_eq!(bob.standing(), Standing::Not);
        assert_eq!(bob.encapsulate(&[0x45; 20], &mut [0; 256]), None);
        let last = confirmation(&mut alice, &answer);
        assert_eq!(alice.standing(), Standing::Up);
        bob.decapsulate(&last, &mut [0; 256]).unwrap();
        assert_eq!(bob.standing(), Standing::Up);
    }

    #[test]
    fn crossing_initiations_end_in_a_session_both_ways() {
        let (mut alice, mut bob) = pair();
        let (from_alice, from_bob) = (initiation(&mut alice), initiation(&mut bob));
        let by_bob = response(&mut bob, &from_alice);
        let by_alice = response(&mut alice, &from_bob);
        let last_alice = confirmation(&mut alice, &by_bob);
        let last_bob = confirmation(&mut bob, &by_alice);
        bob.decapsulate(&last_alice, &mut [0; 256]).unwrap();
        alice.decapsulate(&last_bob, &mut [0; 256]).unwrap();
        for _ in 0..2 {
            let mut dst = [0; 256];
            let packet = ip_packet();
            let len = alice.encapsulate(&packet, &mut dst).unwrap();
            assert!(matches!(
                bob.decapsulate(&dst[..len], &mut [0; 256]),
                Ok(Step::Inner(_))
            ));
            std::mem::swap(&mut alice, &mut bob);
        }
    }

    fn ip_packet() -> [u8; 32] {
        let mut packet = [0; 32];
        packet[0] = 0x45;
        packet[3] = 30;
        packet
    }

    #[test]
    fn the_try_before_the_last_can_still_be_answered() {
        let (mut alice, mut bob) = pair();
        let first = initiation(&mut alice);
        let _second = initiation(&mut alice);
        let answer = response(&mut bob, &first);
        confirmation(&mut alice, &answer);
        assert_eq!(alice.standing(), Standing::Up);
    }

    /// boringtun's own behaviour is part of what is shown: whoever goes on after the warning seals by keys that nobody confirmed.
    #[test]
    fn handshakes_that_nobody_completes_are_told_of_before_they_take_the_place_of_the_keys_in_use()
    {
        let (mut alice, mut bob) = standing_pair();
        let mut answered = 0;
        while !bob.would_displace_keys() {
            assert!(bob.encapsulate(&ip_packet(), &mut [0; 256]).is_some());
            let first = initiation(&mut alice);
            let _lost = response(&mut bob, &first);
            answered += 1;
            assert!(answered < 8);
        }
        assert_eq!(answered, 7);
        let seal = |bob: &mut Session| {
            let mut dst = [0; 256];
            let len = bob.encapsulate(&ip_packet(), &mut dst).unwrap();
            dst[..len].to_vec()
        };
        let sealed = seal(&mut bob);
        assert!(alice.decapsulate(&sealed, &mut [0; 256]).is_ok());
        let first = initiation(&mut alice);
        let _lost = response(&mut bob, &first);
        let sealed = seal(&mut bob);
        assert!(alice.decapsulate(&sealed, &mut [0; 256]).is_err());
    }

    #[test]
    fn a_replayed_data_message_is_refused_and_padding_is_cut() {
        let (mut alice, mut bob) = standing_pair();
        let mut dst = [0; 256];
        let len = alice.encapsulate(&ip_packet(), &mut dst).unwrap();
        let mut out = [0; 256];
        match bob.decapsulate(&dst[..len], &mut out) {
            Ok(Step::Inner(inner)) => assert_eq!(inner.len(), 30),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            bob.decapsulate(&dst[..len], &mut [0; 256]).unwrap_err(),
            Refused::Replay
        );
    }

    #[test]
    fn a_replayed_initiation_is_refused() {
        let (mut alice, mut bob) = pair();
        let first = initiation(&mut alice);
        response(&mut bob, &first);
        assert_eq!(
            bob.decapsulate(&first, &mut [0; 256]).unwrap_err(),
            Refused::Replay
        );
    }

    #[test]
    fn a_counter_of_two_to_the_63_never_reaches_boringtun() {
        let (mut alice, mut bob) = standing_pair();
        let mut dst = [0; 256];
        let len = alice.encapsulate(&ip_packet(), &mut dst).unwrap();
        dst[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(
            bob.decapsulate(&dst[..len], &mut [0; 256]).unwrap_err(),
            Refused::Counter
        );
    }

    #[test]
    fn a_destination_shorter_than_the_datagram_is_refused_without_a_panic() {
        let (mut alice, mut bob) = standing_pair();
        let mut dst = [0; 512];
        let len = alice.encapsulate(&[0x45; 300], &mut dst).unwrap();
        assert_eq!(
            bob.decapsulate(&dst[..len], &mut [0; 200]).unwrap_err(),
            Refused::Unexpected
        );
        assert_eq!(alice.encapsulate(&[0x45; 300], &mut [0; 300]), None);
    }

    #[test]
    fn an_inner_length_of_zero_gives_an_empty_packet() {
        let (mut alice, mut bob) = standing_pair();
        let mut packet = ip_packet();
        packet[3] = 0;
        let mut dst = [0; 256];
        let len = alice.encapsulate(&packet, &mut dst).unwrap();
        match bob.decapsulate(&dst[..len], &mut [0; 256]) {
            Ok(Step::Inner(inner)) => assert!(inner.is_empty()),
            other => panic!("{other:?}"),
        };
    }

    #[test]
    fn another_preshared_key_gives_no_session() {
        let (mut alice, _) = pair();
        let secret = x25519_dalek::StaticSecret::from([2; 32]);
        let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([1; 32]));
        let keys = Keys {
            local_secret: &secret,
            remote_public: &public,
            psk: [8; 32],
        };
        let mut bob = Session::new(NOW, &keys, 9).unwrap();
        let first = initiation(&mut alice);
        let answer = response(&mut bob, &first);
        assert_eq!(
            alice.decapsulate(&answer, &mut [0; 256]).unwrap_err(),
            Refused::Tag
        );
        assert_eq!(alice.standing(), Standing::Not);
    }

    #[test]
    fn a_clock_before_1970_makes_no_state() {
        let secret = x25519_dalek::StaticSecret::from([2; 32]);
        let public = x25519_dalek::PublicKey::from(&secret);
        let keys = Keys {
            local_secret: &secret,
            remote_public: &public,
            psk: [8; 32],
        };
        let now = Now {
            at: Moment(1),
            unix_ms: 0,
        };
        assert_eq!(Session::new(now, &keys, 9).unwrap_err(), ClockBefore1970);
    }

    #[test]
    fn a_wrong_mac_is_seen_before_any_asymmetric_work() {
        let (mut alice, bob) = pair();
        let mut first = initiation(&mut alice);
        assert!(bob.has_good_mac(&first));
        first[20] ^= 1;
        assert!(!bob.has_good_mac(&first));
    }
}
