//! What is charged in the current period of one limit: atomics alone, with time passed in as numbers
//! of periods.
//!
//! It stands by itself, so that the model checker can build it without the rest of the crate.

#[cfg(all(test, loom))]
mod model;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

use Ordering::{AcqRel, Acquire, SeqCst};

/// How many bits of a word are the amount; the others are the tag of its period.
const AMOUNT_BITS: u32 = 56;

/// The most that is counted in a period, and the largest limit: 72 million dollars.
pub(crate) const MOST: u64 = (1 << AMOUNT_BITS) - 1;

/// The amount of the current period, one word: the tag of the period above the amount, so that
/// whoever charges or gives back does so in the period that it means, or not at all.
///
/// Periods only go forward: a clock that is set back does not open a past one again.
#[derive(Debug)]
pub(crate) struct Cell {
    word: AtomicU64,
    /// The newest period that was seen; never behind the word's.
    head: AtomicU64,
}

impl Cell {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            head: AtomicU64::new(0),
        }
    }

    #[inline]
    fn turn(&self, slot: u64) {
        if self.head.load(Acquire) < slot {
            self.turn_to(slot);
        }
    }

    #[cold]
    fn turn_to(&self, slot: u64) {
        // Read before the head: whoever charges in `slot` has moved the head before, so that no
        // such charge is taken for a past one.
        let mut word = self.word.load(SeqCst);
        let head = self.head.load(SeqCst);
        if head >= slot {
            return;
        }
        if slot - head > u64::MAX >> AMOUNT_BITS {
            // So long nobody came that the tag may be the same once more.
            let past = tagged(head + 1, 0);
            let marked = self.word.compare_exchange(word, past, SeqCst, SeqCst);
            self.head.fetch_max(head + 2, AcqRel);
            word = if marked.is_ok() { past } else { word };
        }
        self.head.fetch_max(slot, AcqRel);
        // The word goes along, so that its tag never grows so old. Where this fails somebody has charged.
        let _ = self
            .word
            .compare_exchange(word, tagged(slot, 0), SeqCst, SeqCst);
    }

    /// What is charged in the current period, which is `slot` or a later one.
    pub(crate) fn used(&self, slot: u64) -> u64 {
        self.turn(slot);
        let word = self.word.load(SeqCst);
        self.of(word, self.head.load(SeqCst))
    }

    /// Charges `n` if the sum stays within `limit`; says in which period, or how much is charged.
    pub(crate) fn reserve(&self, n: u64, limit: u64, slot: u64) -> Result<u64, u64> {
        self.turn(slot);
        let mut word = self.word.load(SeqCst);
        loop {
            // Read after the word: a word of a later period is not met with an earlier head.
            let head = self.head.load(SeqCst);
            let used = self.of(word, head);
            let Some(after) = used.checked_add(n).filter(|after| *after <= limit) else {
                return Err(used);
            };
            match self
                .word
                .compare_exchange(word, tagged(head, after), SeqCst, SeqCst)
            {
                Ok(_) => return Ok(head),
                Err(now) => word = now,
            }
        }
    }

    /// Takes `back` off and puts `more` on what was charged in `slot`, as one step; nothing if that is
    /// past. Says how much is charged now.
    pub(crate) fn settle(&self, back: u64, more: u64, slot: u64) -> Option<u64> {
        self.turn(slot);
        let mut word = self.word.load(SeqCst);
        loop {
            let head = self.head.load(SeqCst);
            if head != slot {
                return None;
            }
            let after = self.of(word, head).saturating_sub(back);
            let after = after.saturating_add(more).min(MOST);
            match self
                .word
                .compare_exchange(word, tagged(head, after), SeqCst, SeqCst)
            {
                Ok(_) => return Some(after),
                Err(now) => word = now,
            }
        }
    }

    /// The amount of `word`, if it is of the period `head`; one that is not is of a past one.
    fn of(&self, word: u64, head: u64) -> u64 {
        if word >> AMOUNT_BITS == head & (u64::MAX >> AMOUNT_BITS) {
            word & MOST
        } else {
            0
        }
    }

    /// The current period and its amount.
    pub(crate) fn held(&self) -> (u64, u64) {
        let word = self.word.load(SeqCst);
        let head = self.head.load(SeqCst);
        (head, self.of(word, head))
    }
}

const fn tagged(slot: u64, amount: u64) -> u64 {
    slot << AMOUNT_BITS | amount
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Later(u64),
        Earlier(u64),
        Reserve(u64),
        Settle(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => prop_oneof![1_u64..4, 250_u64..260, 510_u64..515].prop_map(Step::Later),
            1 => (1_u64..3).prop_map(Step::Earlier),
            6 => (1_u64..60).prop_map(Step::Reserve),
            4 => (any::<usize>(), 0_u64..80).prop_map(|(at, more)| Step::Settle(at, more)),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        /// Beside a map from period to amount.
        #[test]
        fn it_counts_as_a_map_of_periods(steps in steps()) {
            const LIMIT: u64 = 100;
            let cell = Cell::new();
            let (mut now, mut newest) = (1_000_u64, 0);
            let mut amounts: HashMap<u64, u64> = HashMap::new();
            let mut open: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Later(by) => now += by,
                    Step::Earlier(by) => now -= by,
                    Step::Reserve(n) => {
                        newest = newest.max(now);
                        let used = amounts.entry(newest).or_default();
                        let fits = *used + n <= LIMIT;
                        let expected = if fits { Ok(newest) } else { Err(*used) };
                        prop_assert_eq!(cell.reserve(n, LIMIT, now), expected);
                        if fits {
                            *used += n;
                            open.push((n, newest));
                        }
                    }
                    Step::Settle(at, more) if !open.is_empty() => {
                        let (back, slot) = open.swap_remove(at % open.len());
                        let after = cell.settle(back, more, slot);
                        if slot == newest {
                            let used = amounts.entry(slot).or_default();
                            *used = *used - back + more;
                            prop_assert_eq!(after, Some(*used));
                        } else {
                            prop_assert_eq!(after, None);
                        }
                    }
                    Step::Settle(..) => {}
                }
                newest = newest.max(now);
                prop_assert_eq!(cell.used(now), amounts.get(&newest).copied().unwrap_or(0));
            }
        }
    }
}
