//! Which counters have come (protocol §6): a ring of 8,192 bits that ends at the highest.

/// How far below the highest counter one may still come.
pub const WINDOW: u64 = 8192;

const WORDS: usize = 128;

/// The counters that have come, of the last [`WINDOW`].
#[derive(Clone, Debug)]
pub struct Window {
    /// One more than the highest that came.
    next: u64,
    /// The bit of a counter is its number modulo [`WINDOW`]. Those of counters from `next` on are stale, and cleared
    /// when it moves over them.
    seen: Box<[u64; WORDS]>,
}

/// Why a counter is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNew {
    /// It is too far below the highest to know.
    #[error("older than the window")]
    TooOld,
    /// It has come.
    #[error("came before")]
    Seen,
}

impl Window {
    /// One into which nothing came.
    pub fn new() -> Self {
        Self {
            next: 0,
            seen: Box::new([0; WORDS]),
        }
    }

    /// Whether a counter would be new. Changes nothing: whoever sent it has not been believed yet.
    ///
    /// # Errors
    /// It is not.
    pub fn is_new(&self, counter: u64) -> Result<(), NotNew> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > WINDOW {
            return Err(NotNew::TooOld);
        }
        let (word, bit) = place(counter);
        if self.seen[word] & bit == 0 {
            Ok(())
        } else {
            Err(NotNew::Seen)
        }
    }

    /// Notes that an authentic packet with this counter came, which [`Window::is_new`] allowed; says whether it is the
    /// highest.
    pub fn mark(&mut self, counter: u64) -> bool {
        let is_highest = counter >= self.next;
        if is_highest {
            self.clear_up_to(counter);
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
        is_highest
    }

    /// Clears the bits from `next` to `counter`.
    fn clear_up_to(&mut self, counter: u64) {
        if counter - self.next >= WINDOW {
            self.seen.fill(0);
            return;
        }
        let mut at = self.next;
        while at <= counter {
            let end = counter.min(at | 63);
            let (word, first) = place(at);
            let (_, last) = place(end);
            // From the first bit to the last, both with them.
            self.seen[word] &= !((last | (last - 1)) & !(first - 1));
            at = end + 1;
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

fn place(counter: u64) -> (usize, u64) {
    let word = usize::try_from(counter / 64 % 128).expect("below 128");
    (word, 1 << (counter % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by a set of all that came.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn is_new(&self, counter: u64) -> Result<(), NotNew> {
            let highest = self.0.last().copied();
            if highest.is_some_and(|highest| counter + WINDOW <= highest) {
                return Err(NotNew::TooOld);
            }
            if self.0.contains(&counter) {
                return Err(NotNew::Seen);
            }
            Ok(())
        }
    }

    fn run(counters: impl IntoIterator<Item = u64>) {
        let (mut window, mut model) = (Window::new(), Model::default());
        for counter in counters {
            let new = window.is_new(counter);
            assert_eq!(new, model.is_new(counter), "{counter}");
            if new.is_ok() {
                let highest = model.0.last().is_none_or(|highest| counter > *highest);
                assert_eq!(window.mark(counter), highest, "{counter}");
                model.0.insert(counter);
            }
        }
    }

    proptest! {
        #[test]
        fn it_takes_what_a_set_of_all_counters_would(
            steps in prop::collection::vec((0_u64..4, -9000_i64..9000, -70_i64..70), 1..400)
        ) {
            let mut around = 5000_i64;
            run(steps.into_iter().map(|(kind, far, near)| {
                around = match kind {
                    0 => around + far,
                    1 => around + 8190 + near % 4,
                    2 => around - 8190 + near % 4,
                    _ => around + near,
                }
                .max(0);
                around.unsigned_abs()
            }));
        }

        #[test]
        fn shuffled_within_the_window_each_comes_once(
            order in Just((0..2000_u64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            run(order.iter().chain(&order).copied());
        }
    }

    #[test]
    fn all_in_order_are_taken_once() {
        run((0..40_000).flat_map(|counter| [counter, counter]));
    }

    #[test]
    fn the_window_is_exactly_as_wide_as_promised() {
        let mut window = Window::new();
        for counter in [20_000, 20_001] {
            window.mark(counter);
        }
        assert_eq!(window.is_new(20_001 - 8191), Ok(()));
        assert_eq!(window.is_new(20_001 - 8192), Err(NotNew::TooOld));
        assert_eq!(window.is_new(20_001 - 8000), Ok(()));
        assert_eq!(window.is_new(20_001 - 8200), Err(NotNew::TooOld));
        assert_eq!(window.is_new(20_000), Err(NotNew::Seen));
    }

    #[test]
    fn a_leap_forgets_what_lies_below_it() {
        for leap in [8191, 8192, 8193, 1 << 31] {
            let mut window = Window::new();
            window.mark(100);
            window.mark(100 + leap);
            let all = (0..8192).filter(|back| window.is_new(100 + leap - back).is_ok());
            let seen_both = usize::from(leap < 8192);
            assert_eq!(all.count(), 8191 - seen_both, "{leap}");
        }
    }
}
