//! Frames that wait at a relay until the other end of their way is bound (design §9): both ends hear of a way in the same
//! step, and the first to be bound sends its handshake before the second is there.

use std::{collections::VecDeque, time::Duration};

use super::ways::Frame;
use crate::time::Moment;

/// How many wait for one end: two handshakes and what comes behind them. The oldest stay, they open the session.
const FOR_ONE: usize = 6;

/// How many wait in all; each has at most 1,500 bytes.
const IN_ALL: usize = 192;

/// How long one waits: who hears nothing sends another handshake by then.
const WAITS: Duration = Duration::from_secs(2);

/// The longest datagram that waits: a handshake is never longer.
const LONGEST: usize = 1500;

/// All frames that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<Kept>);

#[derive(Debug)]
struct Kept {
    at: Moment,
    to: [u8; 4],
    frame: Frame,
    datagram: Vec<u8>,
}

impl Waiting {
    /// Keeps a frame for the end `to`. Gives whether there was room.
    pub(super) fn keep(
        &mut self,
        now: Moment,
        to: [u8; 4],
        (frame, datagram): (Frame, &[u8]),
    ) -> bool {
        self.0.retain(|kept| now.since(kept.at) < WAITS);
        let for_one = self.0.iter().filter(|kept| kept.to == to).count();
        if for_one >= FOR_ONE || self.0.len() >= IN_ALL || datagram.len() > LONGEST {
            return false;
        }
        self.0.push_back(Kept {
            at: now,
            to,
            frame,
            datagram: datagram.to_vec(),
        });
        true
    }

    /// Gives what waits for an end, in its order.
    pub(super) fn take(&mut self, now: Moment, to: [u8; 4]) -> Vec<(Frame, Vec<u8>)> {
        let (its, others): (VecDeque<Kept>, VecDeque<Kept>) = std::mem::take(&mut self.0)
            .into_iter()
            .filter(|kept| now.since(kept.at) < WAITS)
            .partition(|kept| kept.to == to);
        self.0 = others;
        its.into_iter()
            .map(|kept| (kept.frame, kept.datagram))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Path;
    use crate::ids::StreamIx;

    const NOW: Moment = Moment(1_000_000_000);

    fn frame() -> Frame {
        Frame {
            source: Path::Stream(StreamIx(1)),
            id: [1; 4],
            len: 3,
            nested: false,
        }
    }

    #[test]
    fn what_waits_is_given_once_in_its_order_and_not_when_it_is_old() {
        let mut waiting = Waiting::default();
        for datagram in [b"one", b"two"] {
            assert!(waiting.keep(NOW, [2; 4], (frame(), datagram)));
        }
        assert!(waiting.keep(NOW, [3; 4], (frame(), b"for another")));
        let its = waiting.take(NOW.after(WAITS / 2), [2; 4]);
        let datagrams: Vec<&[u8]> = its.iter().map(|(_, datagram)| &datagram[..]).collect();
        assert_eq!(datagrams, [b"one", b"two"]);
        assert!(waiting.take(NOW, [2; 4]).is_empty());
        assert!(waiting.take(NOW.after(WAITS), [3; 4]).is_empty());
    }

    #[test]
    fn what_waits_is_bounded_for_one_end_and_in_all() {
        let mut waiting = Waiting::default();
        let kept = |waiting: &mut Waiting, to: [u8; 4]| {
            let tries = (0..20).filter(|_| waiting.keep(NOW, to, (frame(), b"x")));
            tries.count()
        };
        assert_eq!(kept(&mut waiting, [2; 4]), FOR_ONE);
        let others: usize = (0..200)
            .map(|number| kept(&mut waiting, [3, number, 0, 0]))
            .sum();
        assert_eq!(others, IN_ALL - FOR_ONE);
        assert!(!waiting.keep(NOW, [9; 4], (frame(), b"x")));
        // What is too old makes room.
        assert!(waiting.keep(NOW.after(WAITS), [9; 4], (frame(), b"x")));
        assert!(!waiting.keep(NOW.after(WAITS), [8; 4], (frame(), &[0; LONGEST + 1])));
    }
}
