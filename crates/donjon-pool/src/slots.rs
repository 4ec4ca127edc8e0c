//! The slots in use and their limit: one atomic word.

use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// How many slots are in use, how many there may be, and whether somebody waits: all in one word, so
/// that who is admitted and who is not is one compare-and-swap.
#[derive(Debug)]
pub(crate) struct Slots(AtomicU64);

/// The word as it was at one moment: the limit in the upper half, then the mark of those who wait,
/// then the number in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

const WAITS: u64 = 1 << 31;
const IN_USE: u64 = WAITS - 1;

/// The largest limit, and the most slots in use.
pub(crate) const MAX_SIZE: u32 = (1 << 30) - 1;

impl Word {
    pub(crate) const fn in_use(self) -> u32 {
        (self.0 & IN_USE) as u32
    }

    pub(crate) const fn limit(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether somebody waits.
    pub(crate) const fn waits(self) -> bool {
        self.0 & WAITS != 0
    }

    const fn with_limit(self, limit: u32) -> Self {
        Self((limit as u64) << 32 | self.0 & (IN_USE | WAITS))
    }
}

impl Slots {
    pub(crate) fn new(limit: u32) -> Self {
        Self(AtomicU64::new(Word(0).with_limit(limit.min(MAX_SIZE)).0))
    }

    pub(crate) fn read(&self) -> Word {
        Word(self.0.load(Acquire))
    }

    /// Takes a slot if one is free, or one of up to `extra` beyond the limit, and nobody waits; the
    /// word as it is then.
    #[inline]
    pub(crate) fn try_take(&self, extra: u32) -> Option<Word> {
        self.update(|word| {
            let free = word.in_use() < word.limit().saturating_add(extra).min(MAX_SIZE);
            (free && !word.waits()).then_some(Word(word.0 + 1))
        })
    }

    /// Gives a slot back, unless somebody waits; false then.
    #[inline]
    pub(crate) fn try_give_back(&self) -> bool {
        self.update(|word| (!word.waits()).then(|| word.less()))
            .is_some()
    }

    /// Gives a slot back that is beyond the limit; false if none is.
    pub(crate) fn give_back_excess(&self) -> bool {
        self.update(|word| (word.in_use() > word.limit()).then(|| word.less()))
            .is_some()
    }

    /// Takes a slot for one who waits, if there is one.
    pub(crate) fn take_for_waiter(&self) -> bool {
        self.update(|word| (word.in_use() < word.limit()).then_some(Word(word.0 + 1)))
            .is_some()
    }

    /// Takes a slot as [`try_take`](Self::try_take) does; where there is none, marks that somebody
    /// waits. From then on slots are given back under the lock of the queue.
    pub(crate) fn take_or_mark(&self, extra: u32) -> Option<Word> {
        loop {
            if let Some(word) = self.try_take(extra) {
                return Some(word);
            }
            let marked = self.update(|word| {
                let full = word.in_use() >= word.limit().saturating_add(extra).min(MAX_SIZE);
                (full || word.waits()).then_some(Word(word.0 | WAITS))
            });
            if marked.is_some() {
                return None;
            }
        }
    }

    /// Nobody waits any more.
    pub(crate) fn unmark(&self) {
        self.0.fetch_and(!WAITS, AcqRel);
    }

    /// Sets the limit unless somebody waits; the limit before.
    pub(crate) fn try_set_limit(&self, limit: u32) -> Option<u32> {
        let mut before = 0;
        self.update(|word| {
            before = word.limit();
            (!word.waits()).then(|| word.with_limit(limit))
        })
        .map(|_| before)
    }

    /// Sets the limit; the limit before.
    pub(crate) fn set_limit(&self, limit: u32) -> u32 {
        let mut before = 0;
        self.update(|word| {
            before = word.limit();
            Some(word.with_limit(limit))
        });
        before
    }

    #[inline]
    fn update(&self, mut next: impl FnMut(Word) -> Option<Word>) -> Option<Word> {
        let mut seen = self.read();
        loop {
            let word = next(seen)?;
            match self
                .0
                .compare_exchange_weak(seen.0, word.0, AcqRel, Acquire)
            {
                Ok(_) => return Some(word),
                Err(now) => seen = Word(now),
            }
        }
    }
}

impl Word {
    const fn less(self) -> Self {
        debug_assert!(self.in_use() > 0, "given back once");
        Self(self.0 - 1)
    }
}
