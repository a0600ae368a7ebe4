//! CoDel (RFC 8289): whether senders are to learn of congestion by the packet at the head of a queue. A queue that empties
//! again within an interval is good for throughput; one that stands delays everybody and is good for nothing.

use std::time::Duration;

use crate::time::Moment;

/// How long packets may wait in a queue that stands (RFC 8289 §4.2), where the link is not so slow that they have to.
const TARGET: Duration = Duration::from_millis(5);

/// How long they may wait longer than that before senders learn of it: a round trip (RFC 8289 §4.3).
const INTERVAL: Duration = Duration::from_millis(100);

/// Fewer bytes than this are no queue.
const PACKET: usize = 1514;

/// What was seen of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When packets will have waited too long for a whole interval.
    late_at: Option<Moment>,
    /// While senders are being told: when the next of them is.
    next: Option<Moment>,
    /// When senders were last told.
    told: Moment,
    /// How many were told since then, and how many had been when the last time began.
    count: u32,
    count_before: u32,
}

/// The packet at the head of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// How long it has waited.
    pub(super) waited: Duration,
    /// How long the link takes before it takes anything: what waits for that is no queue (RFC 8290 §5.2.1).
    pub(super) service: Duration,
    /// Its bytes.
    pub(super) len: usize,
    /// The bytes behind it.
    pub(super) behind: usize,
}

/// What becomes of the packet at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Pass,
    /// Its sender is to learn of congestion by it.
    Congested,
}

impl Codel {
    /// Judges the packet at the head.
    pub(super) fn judge(&mut self, now: Moment, head: Head) -> Verdict {
        let is_late = self.is_late(now, head);
        match self.next {
            Some(_) if !is_late => {
                self.next = None;
                Verdict::Pass
            }
            Some(next) if now < next => Verdict::Pass,
            Some(next) => {
                self.count = self.count.saturating_add(1);
                self.tell(next)
            }
            None if is_late => {
                self.begin(now);
                self.tell(now)
            }
            None => Verdict::Pass,
        }
    }

    fn is_late(&mut self, now: Moment, head: Head) -> bool {
        if head.waited < TARGET.max(head.service) || head.behind <= PACKET.max(head.len) {
            self.late_at = None;
            return false;
        }
        now >= *self.late_at.get_or_insert(now.after(INTERVAL))
    }

    /// A queue that stands again soon goes on from the rate at which it was told before.
    fn begin(&mut self, now: Moment) {
        let more = self.count.saturating_sub(self.count_before);
        let is_soon = now.since(self.told) < INTERVAL * 16;
        self.count = if more > 1 && is_soon { more } else { 1 };
        self.count_before = self.count;
    }

    /// The more were told, the sooner the next.
    fn tell(&mut self, from: Moment) -> Verdict {
        self.told = from;
        self.next = Some(from.after(INTERVAL.div_f64(f64::from(self.count).sqrt())));
        Verdict::Congested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(waited_ms: u64, behind: usize) -> Head {
        Head {
            waited: Duration::from_millis(waited_ms),
            service: Duration::ZERO,
            len: 1400,
            behind,
        }
    }

    /// How many of the packets that leave one each millisecond, after this wait, are told of congestion.
    fn told(codel: &mut Codel, from_ms: u64, count: u64, waited_ms: u64) -> Vec<u64> {
        let is_told = |ms: &u64| {
            codel.judge(Moment(ms * 1000), head(waited_ms, 100_000)) == Verdict::Congested
        };
        (from_ms..from_ms + count).filter(is_told).collect()
    }

    #[test]
    fn a_queue_that_stands_for_an_interval_is_told_ever_more_often() {
        let mut codel = Codel::default();
        assert!(told(&mut codel, 0, 1000, 4).is_empty(), "below the target");
        let times = told(&mut codel, 1000, 400, 6);
        // 100 ms after the first, and then by 100 ms / √n (RFC 8289 §5.3).
        assert_eq!(times, [1100, 1200, 1271, 1329, 1379]);
    }

    #[test]
    fn a_burst_that_drains_within_an_interval_is_let_be() {
        let mut codel = Codel::default();
        for burst in 0..10 {
            assert!(told(&mut codel, burst * 100, 99, 50).is_empty());
            assert!(told(&mut codel, burst * 100 + 99, 1, 1).is_empty());
        }
    }

    #[test]
    fn one_packet_is_no_queue() {
        let mut codel = Codel::default();
        for ms in 0..1000 {
            let verdict = codel.judge(Moment(ms * 1000), head(1000, 1400));
            assert_eq!(verdict, Verdict::Pass);
        }
    }

    #[test]
    fn a_slow_link_is_no_queue() {
        let mut codel = Codel::default();
        for ms in 0..1000 {
            let slow = Head {
                service: Duration::from_millis(30),
                ..head(25, 100_000)
            };
            assert_eq!(codel.judge(Moment(ms * 1000), slow), Verdict::Pass);
        }
    }

    #[test]
    fn a_queue_that_stands_again_soon_goes_on_at_its_rate() {
        let mut codel = Codel::default();
        let first = told(&mut codel, 1000, 1000, 6);
        assert!(told(&mut codel, 2000, 10, 1).is_empty());
        let again = told(&mut codel, 2010, 300, 6);
        assert_eq!(again[0], 2110, "an interval after it stands");
        let gap = again[1] - again[0];
        assert!(gap < first[2] - first[1], "{first:?} {again:?}");
    }
}
