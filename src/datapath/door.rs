//! Probes of the own door (design §10): a SYN from the mesh side into the own host, and what comes back.

use std::{net::IpAddr, time::Duration};

use crate::{
    packet::{
        ip::Ports,
        tcp::{ACK, RST, SYN, Segment},
    },
    time::Moment,
};

use super::command::{DoorVerdict, Event};

/// How many probes may be under way.
const PROBES_MAX: usize = 64;

/// When a probe is forgotten. Its asker takes 300 ms of silence as the answer.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// The first source port of probes: above the ports that Linux gives to programs (32768–60999), so that no
/// connection of a program to the resolver has the same.
const PORTS_FROM: u16 = 61_000;

/// Probes under way.
#[derive(Debug, Default)]
pub(super) struct Door {
    probes: Vec<Probe>,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u64,
    from: (IpAddr, u16),
    to: u16,
    sequence: u32,
    sent: Moment,
}

impl Door {
    /// Begins a probe of an own port from the resolver's address; gives the SYN. None while too many are under way.
    pub(super) fn probe(
        &mut self,
        now: Moment,
        (id, port): (u64, u16),
        (resolver, sequence): (IpAddr, u32),
    ) -> Option<Segment> {
        self.probes
            .retain(|probe| now.since(probe.sent) < FORGOTTEN);
        if self.probes.len() >= PROBES_MAX {
            return None;
        }
        self.next = (self.next + 1) % 4096;
        let source = PORTS_FROM + self.next;
        self.probes.push(Probe {
            id,
            from: (resolver, source),
            to: port,
            sequence,
            sent: now,
        });
        Some(Segment {
            ports: Ports {
                source,
                destination: port,
            },
            sequence,
            acknowledgment: 0,
            flags: SYN,
            body_len: 0,
        })
    }

    /// The verdict, if this segment to `destination` answers a probe, and the RST that ends what a SYN-ACK began.
    pub(super) fn answer(
        &mut self,
        now: Moment,
        destination: IpAddr,
        segment: &Segment,
    ) -> Option<(Event, Option<Segment>)> {
        let at = self.probes.iter().position(|probe| {
            probe.from == (destination, segment.ports.destination)
                && probe.to == segment.ports.source
                && segment.acknowledgment == probe.sequence.wrapping_add(1)
        })?;
        let (verdict, reset) = match segment.flags & (SYN | ACK | RST) {
            flags if flags & RST != 0 => (DoorVerdict::Refused, None),
            flags if flags == SYN | ACK => (DoorVerdict::Accepted, segment.reset()),
            _ => return None,
        };
        let probe = self.probes.swap_remove(at);
        let took = now.since(probe.sent).as_micros();
        let event = Event::Door {
            probe: probe.id,
            verdict,
            took_us: u64::try_from(took).unwrap_or(u64::MAX),
        };
        Some((event, reset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000_000);

    fn resolver() -> IpAddr {
        "100.64.255.53".parse().unwrap()
    }

    fn answer_to(syn: &Segment, flags: u8) -> Segment {
        Segment {
            ports: Ports {
                source: syn.ports.destination,
                destination: syn.ports.source,
            },
            sequence: 500,
            acknowledgment: syn.sequence.wrapping_add(1),
            flags,
            body_len: 0,
        }
    }

    #[test]
    fn a_syn_ack_is_accepted_and_reset() {
        let mut door = Door::default();
        let syn = door.probe(NOW, (7, 80), (resolver(), 41)).unwrap();
        let later = NOW.after(Duration::from_micros(300));
        let (event, reset) = door
            .answer(later, resolver(), &answer_to(&syn, SYN | ACK))
            .unwrap();
        assert!(matches!(
            event,
            Event::Door {
                probe: 7,
                verdict: DoorVerdict::Accepted,
                took_us: 300
            }
        ));
        let reset = reset.unwrap();
        assert_eq!((reset.flags, reset.sequence), (RST, 42));
    }

    #[test]
    fn a_reset_is_refused_and_answers_once() {
        let mut door = Door::default();
        let syn = door.probe(NOW, (7, 80), (resolver(), 41)).unwrap();
        let rst = answer_to(&syn, RST | ACK);
        assert!(matches!(
            door.answer(NOW, resolver(), &rst),
            Some((
                Event::Door {
                    verdict: DoorVerdict::Refused,
                    ..
                },
                None
            ))
        ));
        assert!(door.answer(NOW, resolver(), &rst).is_none());
    }

    #[test]
    fn a_segment_that_acknowledges_something_else_is_no_answer() {
        let mut door = Door::default();
        let syn = door.probe(NOW, (7, 80), (resolver(), 41)).unwrap();
        let stray = Segment {
            acknowledgment: 9,
            ..answer_to(&syn, SYN | ACK)
        };
        assert!(door.answer(NOW, resolver(), &stray).is_none());
    }
}
