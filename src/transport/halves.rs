//! Two halves become one message (protocol §4). A message that is sent again has the same number and the same bytes, so
//! a half of the one sending completes that of another.

use crate::wire::exchange::{Half, Side};

/// Where the halves of one kind of message come together. The newest number wins: whoever lost a half sends it again.
#[derive(Clone, Debug)]
pub(super) struct Halves<const LEN: usize>(Option<Joining<LEN>>);

#[derive(Clone, Debug)]
struct Joining<const LEN: usize> {
    id: u32,
    side: Side,
    bytes: Box<[u8; LEN]>,
}

impl<const LEN: usize> Default for Halves<LEN> {
    fn default() -> Self {
        Self(None)
    }
}

impl<const LEN: usize> Halves<LEN> {
    /// Takes a half, of the right length, in; gives the message once both are here.
    pub(super) fn take(&mut self, half: Half<'_>) -> Option<Box<[u8; LEN]>> {
        let other = self.0.take_if(|other| other.id == half.id);
        let is_whole = other.as_ref().is_some_and(|other| other.side != half.side);
        let mut bytes = other.map_or_else(|| Box::new([0; LEN]), |other| other.bytes);
        let at = match half.side {
            Side::First => 0,
            Side::Second => LEN / 2,
        };
        bytes[at..at + LEN / 2].copy_from_slice(half.bytes);
        if is_whole {
            return Some(bytes);
        }
        self.0 = Some(Joining {
            id: half.id,
            side: half.side,
            bytes,
        });
        None
    }

    /// Forgets a half that waits.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Half<'_> = Half {
        id: 1,
        side: Side::First,
        bytes: &[1, 2],
    };
    const SECOND: Half<'_> = Half {
        id: 1,
        side: Side::Second,
        bytes: &[3, 4],
    };

    fn joined(halves: &[Half<'_>]) -> Vec<Option<[u8; 4]>> {
        let mut joining = Halves::<4>::default();
        let taken = halves.iter().map(|half| joining.take(*half));
        taken.map(|whole| whole.map(|bytes| *bytes)).collect()
    }

    #[test]
    fn halves_join_in_either_order_and_doubled() {
        let whole = Some([1, 2, 3, 4]);
        assert_eq!(joined(&[FIRST, SECOND]), [None, whole]);
        assert_eq!(joined(&[SECOND, FIRST]), [None, whole]);
        assert_eq!(joined(&[FIRST, FIRST, SECOND]), [None, None, whole]);
        let twice = joined(&[FIRST, SECOND, SECOND, FIRST]);
        assert_eq!(twice, [None, whole, None, whole]);
    }

    #[test]
    fn halves_of_two_messages_never_join() {
        let other = Half { id: 2, ..SECOND };
        assert_eq!(joined(&[FIRST, other, SECOND]), [None, None, None]);
    }

    #[test]
    fn a_forgotten_half_completes_nothing() {
        let mut joining = Halves::<4>::default();
        joining.take(FIRST);
        joining.clear();
        assert_eq!(joining.take(SECOND), None);
    }
}
