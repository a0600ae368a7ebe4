//! Who may make us compute a handshake (protocol §3): sources whose Knock or Join was good, initiations that wait for
//! that verdict, and how many handshakes a source and a core may cost.

use std::{collections::HashMap, time::Duration};

use crate::{addr::Path, ids::SessionId, time::Moment, wireguard::session::INITIATION};

use super::{
    drops::DropReason,
    meter::{Meter, Rate, Sources},
};

/// How long a good Knock or Join lets its source's initiation in (protocol §2).
const ADMISSION: Duration = Duration::from_secs(10);

/// How many sources are remembered as admitted (protocol §3).
const ADMISSIONS_MAX: usize = 1024;

/// How long an initiation waits for the verdict on its Knock, which takes a few milliseconds.
const PARKED: Duration = Duration::from_secs(1);

/// How many initiations wait. Beyond it the oldest gives way; its sender tries again.
const PARKED_MAX: usize = 64;

/// How many sources whose sealed datagram is being judged are remembered: one second of [`SEALED_ALL`].
const JUDGED_MAX: usize = 16_384;

/// Handshakes per source (protocol §3).
const SOURCE: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 5,
};

/// Handshakes in all: one costs a core at most 250 µs (5 scalar multiplications), and a fifth of it is theirs.
const ALL: Rate = Rate {
    each: Duration::from_micros(1250),
    burst: 64,
};

/// Sealed datagrams per source: a restart behind one address brings a few dozen peers at once.
const SEALED_SOURCE: Rate = Rate {
    each: Duration::from_millis(5),
    burst: 100,
};

/// Sealed datagrams in all, about 16,000 a second; opening one costs the control thread about 5 µs for each key it tries.
/// Fewer would let forged sources of a few Mbit/s crowd out everybody's first contact.
const SEALED_ALL: Rate = Rate {
    each: Duration::from_micros(60),
    burst: 1024,
};

/// The gate before handshakes.
#[derive(Debug)]
pub(super) struct Handshakes {
    admitted: HashMap<Path, (SessionId, Moment)>,
    judged: HashMap<Path, Moment>,
    parked: Vec<Parked>,
    sources: Sources,
    all: Meter,
    sealed_sources: Sources,
    sealed_all: Meter,
}

/// An initiation whose Knock or Join is being judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parked {
    /// From where.
    pub(super) source: Path,
    /// The initiation.
    pub(super) bytes: [u8; INITIATION],
    since: Moment,
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Self {
            admitted: HashMap::new(),
            judged: HashMap::new(),
            parked: Vec::with_capacity(PARKED_MAX),
            sources: Sources::new(SOURCE),
            all: Meter::default(),
            sealed_sources: Sources::new(SEALED_SOURCE),
            sealed_all: Meter::default(),
        }
    }

    /// Whether a sealed datagram from here is looked at; what comes from here next waits for its verdict.
    pub(super) fn try_sealed(&mut self, now: Moment, source: Path) -> Result<(), DropReason> {
        let fits = self.sealed_sources.take(now, source.meter_ip())
            && self.sealed_all.take(now, SEALED_ALL);
        if !fits {
            return Err(DropReason::InSealedRate);
        }
        make_room(&mut self.judged, JUDGED_MAX, |since| {
            now.since(*since) < PARKED
        });
        self.judged.insert(source, now);
        Ok(())
    }

    /// Whether a sealed datagram from here waits for its verdict.
    pub(super) fn is_being_judged(&self, now: Moment, source: Path) -> bool {
        self.judged
            .get(&source)
            .is_some_and(|since| now.since(*since) < PARKED)
    }

    /// Keeps an initiation until its Knock is judged. A source has one; the newest counts.
    ///
    /// # Errors
    /// It is kept, and an older one gave way to it.
    pub(super) fn park(
        &mut self,
        now: Moment,
        source: Path,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let Some(bytes) = bytes.first_chunk::<INITIATION>() else {
            return Err(DropReason::InUnknownDatagram);
        };
        let before = self.parked.len();
        self.parked.retain(|parked| parked.source != source);
        if self.parked.len() == PARKED_MAX {
            self.parked.remove(0);
        }
        let gave_way = self.parked.len() < before;
        self.parked.push(Parked {
            source,
            bytes: *bytes,
            since: now,
        });
        if gave_way {
            Err(DropReason::InSuperseded)
        } else {
            Ok(())
        }
    }

    /// Lets initiations from here into a state for 10 s; gives the one that waits for that.
    pub(super) fn admit(
        &mut self,
        now: Moment,
        source: Path,
        session: SessionId,
    ) -> Option<Parked> {
        make_room(&mut self.admitted, ADMISSIONS_MAX, |(_, since)| {
            now.since(*since) < ADMISSION
        });
        self.admitted.insert(source, (session, now));
        self.judged.remove(&source);
        let at = self
            .parked
            .iter()
            .position(|parked| parked.source == source)?;
        Some(self.parked.remove(at))
    }

    /// Which state an initiation from here was admitted to in the last 10 s.
    pub(super) fn admission(&self, now: Moment, source: Path) -> Option<SessionId> {
        let (session, since) = self.admitted.get(&source)?;
        (now.since(*since) < ADMISSION).then_some(*session)
    }

    /// Whether one more handshake from here may be computed.
    pub(super) fn try_handshake(&mut self, now: Moment, source: Path) -> Result<(), DropReason> {
        if !self.sources.take(now, source.meter_ip()) {
            return Err(DropReason::InHandshakeRate);
        }
        if !self.all.take(now, ALL) {
            return Err(DropReason::InHandshakeBudget);
        }
        Ok(())
    }

    /// An initiation that waited long enough without a verdict.
    pub(super) fn poll_overdue(&mut self, now: Moment) -> Option<Parked> {
        let first = self.parked.first()?;
        (now.since(first.since) >= PARKED).then(|| self.parked.remove(0))
    }

    /// Whether an initiation from here waits.
    pub(super) fn is_parked(&self, source: Path) -> bool {
        self.parked.iter().any(|parked| parked.source == source)
    }

    /// Whether any initiation waits.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}

/// Makes sure that one more fits: what is stale goes; if nothing is, everything does, which is what a flood costs.
fn make_room<V>(table: &mut HashMap<Path, V>, limit: usize, is_fresh: impl Fn(&V) -> bool) {
    if table.len() < limit {
        return;
    }
    table.retain(|_, value| is_fresh(value));
    if table.len() >= limit {
        table.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::Underlay, ids::PeerIx};

    fn source(port: u16) -> Path {
        Path::Direct(Underlay::new(([192, 0, 2, 1], port).into()))
    }

    const NOW: Moment = Moment(1_000_000_000);
    const SESSION: SessionId = SessionId::Pair(PeerIx(3));

    #[test]
    fn an_initiation_waits_for_the_verdict_and_comes_back_with_it() {
        let mut gate = Handshakes::new();
        gate.try_sealed(NOW, source(1)).unwrap();
        assert!(gate.is_being_judged(NOW, source(1)));
        let older = gate.park(NOW, source(1), &[6; INITIATION]);
        assert_eq!(older, Ok(()));
        let newer = gate.park(NOW, source(1), &[7; INITIATION]);
        assert_eq!(newer, Err(DropReason::InSuperseded));
        let parked = gate.admit(NOW, source(1), SESSION).unwrap();
        assert_eq!(parked.bytes, [7; INITIATION]);
        assert!(!gate.is_being_judged(NOW, source(1)));
        assert_eq!(gate.admission(NOW, source(1)), Some(SESSION));
        assert_eq!(gate.admission(NOW, source(2)), None);
        assert_eq!(gate.admission(NOW.after(ADMISSION), source(1)), None);
    }

    #[test]
    fn parked_initiations_are_bounded_and_end() {
        let mut gate = Handshakes::new();
        for port in 0..200 {
            let expected = if port < 64 {
                Ok(())
            } else {
                Err(DropReason::InSuperseded)
            };
            assert_eq!(
                gate.park(NOW, source(port), &[1; INITIATION]),
                expected,
                "{port}"
            );
        }
        let later = NOW.after(PARKED);
        let mut overdue = 0;
        while gate.poll_overdue(later).is_some() {
            overdue += 1;
        }
        assert_eq!(overdue, PARKED_MAX);
    }

    #[test]
    fn admissions_are_bounded() {
        let mut gate = Handshakes::new();
        for port in 0..5000 {
            gate.admit(NOW, source(port), SESSION);
        }
        assert!(gate.admitted.len() <= ADMISSIONS_MAX);
    }

    #[test]
    fn handshakes_of_many_sources_stay_within_a_fifth_of_a_core() {
        let mut gate = Handshakes::new();
        let taken = (0..20_000u32)
            .filter(|i| {
                let at = NOW.after(Duration::from_micros(u64::from(*i) * 50));
                let ip = std::net::Ipv4Addr::from_bits(0x0b00_0000 + i);
                gate.try_handshake(at, Path::Direct(Underlay::new((ip, 9).into())))
                    .is_ok()
            })
            .count();
        assert!(taken <= 800 + 64, "{taken} in one second");
        assert!(taken > 700, "{taken} in one second");
    }
}
