//! Whether what one session sends is answered (review-distributed S6, rule 5): only a sender looks, and what idles costs
//! nothing. While it is not, the newest datagrams are held to be sent again by another path: the same ciphertext, so
//! that a receiver who gets both takes one.

use std::{sync::Arc, time::Duration};

use crate::{addr::Path, time::Moment};

use super::{command::Unheard, long::SHORT, pulse::Pulse};

/// How long user data may be unanswered before a Ping is asked for. The path is given up a second and more later; a
/// receiver behind a NAT that forgot it is found by this first Ping.
pub(super) const SILENT_AFTER: Duration = Duration::from_millis(500);

/// So many user packets without a pause are a stream: where it ends the path is asked once whether it has ended, or a
/// NAT at this side forgot it. Nobody else could tell: the other side does not reach this one any more.
const STREAM: u32 = 8;

/// How long a path may be silent before the next user data on it is doubted.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(20);

/// How often it is said while nothing changes.
const AGAIN: Duration = Duration::from_secs(1);

/// Datagrams sent after nothing was heard for so long are held.
const HOLD_AFTER: Duration = Duration::from_millis(150);

/// How many are held (as many as wait for a session).
const HELD: usize = 16;

/// How many of them are the first of all: what a program asked before it fell silent. The others are the newest: a TCP
/// that was not answered sends what the other side waits for last, again and again, and without it nothing flows
/// before its next timer, which has doubled by then.
const FIRST: usize = 4;

/// How long they are worth sending again.
const HELD_FOR: Duration = Duration::from_secs(5);

/// How long after it was said that nothing is heard the control plane may take to be sure.
const DOUBTED_FOR: Duration = Duration::from_secs(3);

/// How long a move to another path waits for a gap.
const MOVE_WITHIN: Duration = Duration::from_secs(2);

/// What one session sent and was not answered.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What was sent and heard, by whichever data thread.
    pulse: Arc<Pulse>,
    is_stale: bool,
    held: Vec<Held>,
    used: usize,
    /// Which of the newest is replaced next.
    turn: usize,
    mirror: Option<Path>,
    next: Option<Next>,
}

/// A datagram that may be sent again. Its buffer is kept for the next one.
#[derive(Debug, Default)]
struct Held {
    at: Moment,
    bytes: Vec<u8>,
}

/// Where data goes after the next gap.
#[derive(Clone, Copy, Debug)]
struct Next {
    endpoint: Path,
    gap: Duration,
    until: Moment,
}

impl Watch {
    /// What other data threads note too.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Nothing was sent or heard: who was at the other end is gone.
    pub(super) fn reset(&mut self) {
        let pulse = Arc::clone(&self.pulse);
        pulse.reset();
        *self = Self {
            pulse,
            ..Self::default()
        };
    }

    /// Data goes by a path that works from now on. What waits for an answer does so anew: the path may have failed since
    /// it was proven.
    pub(super) fn begin(&mut self, now: Moment) {
        self.pulse.begin(now);
        self.pulse.set_told(None);
        self.is_stale = false;
        self.mirror = None;
        self.next = None;
    }

    /// An authenticated packet came. Whether it is the first by the path where data goes since it was said that nothing
    /// is heard there: what is held may be lost all the same, and is kept until the path has answered.
    pub(super) fn note_heard(&mut self, now: Moment, is_endpoint: bool) -> bool {
        let heard_there = self.pulse.heard_there();
        self.pulse.note_heard(now, is_endpoint);
        if !is_endpoint {
            return false;
        }
        let is_doubted = self.is_doubted(now);
        let is_back = is_doubted && heard_there < self.pulse.told().unwrap_or_default();
        if !is_doubted {
            self.pulse.set_told(None);
            self.release();
        }
        self.is_stale = false;
        is_back
    }

    /// What was heard are packets of programs: they answer ours, wherever they came from. Pings and Pongs of another path
    /// do not.
    pub(super) fn note_taken_in(&mut self, packets: u32) {
        self.pulse.note_taken_in(packets);
    }

    /// Whether it was said that nothing is heard, and nobody said since that the path works.
    pub(super) fn is_doubted(&self, now: Moment) -> bool {
        let told = self.pulse.told();
        told.is_some_and(|told| now.since(told) < DOUBTED_FOR)
    }

    /// A user packet goes out: whether to say that nothing is heard where it goes.
    pub(super) fn note_sent(&mut self, now: Moment, len: usize) -> Option<Unheard> {
        self.pulse.note_sent(now, len > SHORT);
        if !self.is_stale && now.since(self.pulse.heard_there()) >= STALE_AFTER {
            self.is_stale = true;
            self.pulse.set_told(Some(now));
            return Some(Unheard::Stale);
        }
        self.poll_silence(now)
    }

    /// Whether to say that nothing is heard.
    pub(super) fn poll_silence(&mut self, now: Moment) -> Option<Unheard> {
        let broke_off = Some(self.pulse.heard()).filter(|_| self.pulse.taken_in() >= STREAM);
        let since = self.pulse.unanswered().or(broke_off)?;
        let is_silent = now.since(since) >= SILENT_AFTER;
        let is_new = self
            .pulse
            .told()
            .is_none_or(|told| now.since(told) >= AGAIN);
        if !is_silent || !is_new {
            return None;
        }
        self.pulse.forget_taken_in();
        self.pulse.set_told(Some(now));
        Some(match self.pulse.has_long() {
            true => Unheard::Choked,
            false => Unheard::Silent,
        })
    }

    /// Whether what goes out now is answered, so that nothing has to be held or said of it.
    pub(super) fn is_quiet(&self, now: Moment) -> bool {
        let is_doubted = self.pulse.told().is_some() || self.holds(now);
        !is_doubted && now.since(self.pulse.heard()) < SILENT_AFTER && self.pulse.is_sound(now)
    }

    /// Whether datagrams that go out now are to be held.
    pub(super) fn holds(&self, now: Moment) -> bool {
        let waits = |since| now.since(since) >= HOLD_AFTER;
        self.is_stale || self.pulse.unanswered().is_some_and(waits)
    }

    /// Holds a datagram; when there is no room, the first few stay, and the oldest of the others goes.
    pub(super) fn hold(&mut self, now: Moment, datagram: &[u8]) {
        let first = self.held.first();
        if first.is_some_and(|held| now.since(held.at) >= HELD_FOR) {
            self.release();
        }
        let place = if self.used < HELD {
            self.used += 1;
            self.used - 1
        } else {
            let place = FIRST + self.turn;
            self.turn = (self.turn + 1) % (HELD - FIRST);
            place
        };
        if place == self.held.len() {
            self.held.push(Held::default());
        }
        if let Some(held) = self.held.get_mut(place) {
            held.at = now;
            held.bytes.clear();
            held.bytes.extend_from_slice(datagram);
        }
    }

    /// What is held and still worth sending, in the order in which it was sent.
    pub(super) fn held(&self, now: Moment) -> impl Iterator<Item = &[u8]> {
        let all = self.held.get(..self.used).unwrap_or_default();
        let (first, others) = all.split_at(FIRST.min(all.len()));
        let (newer, older) = others.split_at(self.turn.min(others.len()));
        let in_order = first.iter().chain(older).chain(newer);
        in_order
            .filter(move |held| now.since(held.at) < HELD_FOR)
            .map(|held| held.bytes.as_slice())
    }

    /// Holds nothing any more.
    pub(super) fn release(&mut self) {
        self.used = 0;
        self.turn = 0;
    }

    /// Where datagrams go too.
    pub(super) fn mirror(&self) -> Option<Path> {
        self.mirror
    }

    /// Sets where datagrams go too.
    pub(super) fn set_mirror(&mut self, via: Option<Path>) {
        self.mirror = via;
    }

    /// Moves data to another path once nothing was sent for `gap`, or after 2 s.
    pub(super) fn plan(&mut self, now: Moment, endpoint: Path, gap: Duration) {
        let until = now.after(MOVE_WITHIN);
        self.next = Some(Next {
            endpoint,
            gap,
            until,
        });
    }

    /// Whether data is to move to another path.
    pub(super) fn has_plan(&self) -> bool {
        self.next.is_some()
    }

    /// Where data goes from now on, if it is time to move.
    pub(super) fn poll_move(&self, now: Moment) -> Option<Path> {
        let next = self.next?;
        let is_time = now.since(self.pulse.last_sent()) >= next.gap || now >= next.until;
        is_time.then_some(next.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LegIx;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000 + ms * 1000)
    }

    fn fresh() -> Watch {
        let mut watch = Watch::default();
        watch.begin(at(0));
        watch
    }

    #[test]
    fn who_sends_and_hears_nothing_for_half_a_second_says_so_and_who_idles_never() {
        let mut watch = fresh();
        assert_eq!(watch.poll_silence(at(10_000)), None);
        assert_eq!(watch.note_sent(at(10_000), 100), None);
        assert_eq!(watch.note_sent(at(10_400), 100), None);
        assert_eq!(watch.poll_silence(at(10_499)), None);
        assert_eq!(watch.poll_silence(at(10_500)), Some(Unheard::Silent));
        assert_eq!(watch.poll_silence(at(10_750)), None, "it was said");
        assert_eq!(watch.poll_silence(at(11_500)), Some(Unheard::Silent));
        assert!(watch.note_heard(at(11_600), true), "it is back");
        assert!(!watch.note_heard(at(11_601), true), "said once");
        assert_eq!(watch.poll_silence(at(60_000)), None);
    }

    #[test]
    fn a_stream_that_breaks_off_is_asked_about_once_and_a_few_packets_are_no_stream() {
        for (packets, said) in [(7, None), (8, Some(Unheard::Silent))] {
            let mut watch = fresh();
            for number in 0..packets {
                watch.note_heard(at(number * 490), true);
                watch.note_taken_in(1);
            }
            let last = (packets - 1) * 490;
            assert_eq!(watch.poll_silence(at(last + 499)), None);
            assert_eq!(watch.poll_silence(at(last + 500)), said);
            assert_eq!(watch.poll_silence(at(last + 60_000)), None);
        }
        let mut slow = fresh();
        for number in 0..100 {
            slow.note_heard(at(number * 500), true);
            slow.note_taken_in(1);
            assert_eq!(slow.poll_silence(at(number * 500 + 499)), None);
        }
    }

    #[test]
    fn what_was_not_answered_before_a_move_is_waited_for_anew() {
        let mut watch = fresh();
        watch.note_sent(at(0), 100);
        watch.begin(at(400));
        assert_eq!(watch.poll_silence(at(899)), None);
        assert_eq!(watch.poll_silence(at(900)), Some(Unheard::Silent));
    }

    #[test]
    fn after_20_s_without_a_word_the_first_packet_says_so_at_once_and_is_held() {
        let mut watch = fresh();
        assert_eq!(watch.note_sent(at(20_000), 100), Some(Unheard::Stale));
        assert!(watch.holds(at(20_000)));
        watch.hold(at(20_000), b"one");
        assert_eq!(watch.note_sent(at(20_001), 100), None);
        assert_eq!(watch.held(at(20_010)).count(), 1);
        assert_eq!(watch.held(at(25_000)).count(), 0, "too old to be of use");
        assert!(watch.note_heard(at(20_020), true));
        assert!(!watch.holds(at(20_020)));
        assert_eq!(watch.held(at(20_020)).count(), 1, "it may be lost");
        assert!(!watch.note_heard(at(23_000), true));
        assert_eq!(watch.held(at(23_000)).count(), 0);
    }

    #[test]
    fn pings_on_a_warm_path_do_not_hide_that_this_one_is_dead() {
        let mut watch = fresh();
        watch.note_sent(at(1_000), 1400);
        for ms in [1_100, 1_300, 1_450] {
            assert!(!watch.note_heard(at(ms), false));
        }
        assert_eq!(watch.poll_silence(at(1_500)), Some(Unheard::Choked));
        // A program of the other side does: it has heard of what was sent.
        watch.note_taken_in(1);
        assert_eq!(watch.poll_silence(at(9_000)), None);
    }

    #[test]
    fn a_word_by_another_path_does_not_make_this_one_good() {
        let mut watch = fresh();
        assert!(!watch.note_heard(at(19_000), false));
        assert_eq!(watch.note_sent(at(20_000), 100), Some(Unheard::Stale));
        watch.hold(at(20_000), b"one");
        assert!(!watch.note_heard(at(20_100), false));
        assert!(watch.holds(at(20_100)) && watch.held(at(20_100)).count() == 1);
    }

    #[test]
    fn sixteen_are_held_the_first_four_and_the_newest_in_their_order() {
        let mut watch = fresh();
        watch.note_sent(at(0), 100);
        assert!(!watch.holds(at(149)) && watch.holds(at(150)));
        let mut expected: Vec<u8> = Vec::new();
        for number in 0..100 {
            watch.hold(at(200), &[number]);
            expected.push(number);
            if expected.len() > 16 {
                expected.remove(4);
            }
            let held: Vec<u8> = watch.held(at(200)).map(|bytes| bytes[0]).collect();
            assert_eq!(held, expected);
        }
        watch.release();
        watch.hold(at(201), &[7]);
        assert_eq!(watch.held(at(201)).count(), 1);
    }

    #[test]
    fn data_moves_in_a_gap_or_after_two_seconds() {
        let better = Path::Relay(LegIx(1));
        let mut watch = fresh();
        watch.note_sent(at(0), 100);
        watch.plan(at(0), better, Duration::from_millis(30));
        assert_eq!(watch.poll_move(at(29)), None);
        assert_eq!(watch.poll_move(at(30)), Some(better));
        for ms in (0..2000).step_by(10) {
            watch.note_sent(at(ms), 100);
            assert_eq!(watch.poll_move(at(ms + 5)), None);
        }
        assert_eq!(watch.poll_move(at(2000)), Some(better));
    }
}
