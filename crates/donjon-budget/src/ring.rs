//! What is charged in a rolling period of one limit: atomics alone, with time passed in as numbers of
//! sub-windows.
//!
//! It stands by itself, so that the model checker can build it without the rest of the crate.

#[cfg(all(test, not(loom)))]
mod laws;
#[cfg(all(test, loom))]
mod model;

use std::array;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

use Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

/// Into how many sub-windows a window is cut. The sum covers one more, so a steady caller can use
/// `SLOTS / (SLOTS + 1)` of the limit: 98.4 %.
pub(crate) const SLOTS: u64 = if cfg!(all(test, loom)) { 2 } else { 64 };

const CELLS: u64 = SLOTS + 1;

#[expect(clippy::cast_possible_truncation, reason = "65")]
const RING: usize = CELLS as usize;

/// The most that is counted in a sub-window, and the largest limit: 72 million dollars.
const MOST: u64 = (1 << AMOUNT_BITS) - 1;

const AMOUNT_BITS: u32 = 56;

/// What was charged in the current sub-window and in the [`SLOTS`] before it, and the sum of it.
///
/// A charge is first added to the sum, by a compare-exchange that never exceeds the limit, and then
/// to the cell of its sub-window. A sub-window that has become too old is expired whole: its cell is
/// emptied first and the sum is lowered afterwards. So at any moment the sum is at least what the
/// cells hold, and whoever reads it between two steps of another thread sees too much and never too
/// little.
///
/// A cell is one word, the sub-window's tag above the amount. Whoever charges, refunds or expires
/// does so by compare-exchange on the whole word, so that a refund cannot reach what was charged to
/// the same cell one turn of the ring later. Nobody waits for anybody: each thread expires what it
/// finds too old.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Ring {
    sum: AtomicU64,
    /// The newest sub-window up to which the ring was turned.
    head: AtomicU64,
    cells: [AtomicU64; RING],
}

impl Ring {
    /// An empty window that begins with sub-window `slot`.
    pub(crate) fn new(slot: u64) -> Self {
        Self {
            sum: AtomicU64::new(0),
            head: AtomicU64::new(slot),
            cells: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// What is charged now, as far as the ring was turned.
    pub(crate) fn used(&self) -> u64 {
        self.sum.load(SeqCst)
    }

    /// The newest sub-window up to which the ring was turned.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Acquire)
    }

    /// Turns the ring to `slot`, expiring what is older than the window. An earlier `slot` changes
    /// nothing.
    pub(crate) fn turn(&self, slot: u64) {
        let head = self.head.load(Acquire);
        if head < slot {
            self.turn_from(head, slot);
        }
    }

    #[cold]
    fn turn_from(&self, head: u64, slot: u64) {
        let mut freed = 0_u64;
        if self.sum.load(Acquire) > 0 {
            let first = (head + 1).max(slot.saturating_sub(SLOTS));
            for slot in first..=slot {
                freed = freed.saturating_add(self.expire(slot));
            }
        }
        // Whoever gets what is freed below sees the head that freed it, and is charged there.
        self.head.fetch_max(slot, AcqRel);
        if freed > 0 {
            self.sum.fetch_sub(freed, SeqCst);
        }
    }

    /// Empties the cell that `slot` is about to use.
    fn expire(&self, slot: u64) -> u64 {
        let cell = self.cell(slot);
        let mut seen = cell.load(Acquire);
        loop {
            // A cell that is in use for `slot` or a later one was emptied by somebody else.
            if amount(seen) == 0 || is_of(seen, slot) || self.head() >= slot {
                return 0;
            }
            match cell.compare_exchange(seen, word(slot, 0), AcqRel, Acquire) {
                Ok(_) => return amount(seen),
                Err(now) => seen = now,
            }
        }
    }

    /// Charges `n` at `slot`, or at a later one up to which the ring was turned meanwhile, if the
    /// sum stays within `limit`; says where.
    pub(crate) fn reserve(&self, n: u64, limit: u64, slot: u64) -> Option<u64> {
        self.turn(slot);
        // Both lines are on their way when the first is waited for.
        std::hint::black_box(self.cell(slot).load(Relaxed));
        let mut sum = self.sum.load(SeqCst);
        loop {
            let after = sum.checked_add(n).filter(|after| *after <= limit)?;
            match self.sum.compare_exchange(sum, after, SeqCst, SeqCst) {
                Ok(_) => return Some(self.charge(n, slot)),
                Err(now) => sum = now,
            }
        }
    }

    /// Charges `n` at `slot` whatever the limit, unless that has expired.
    pub(crate) fn force_at(&self, n: u64, slot: u64) {
        let n = n.min(MOST);
        self.sum.fetch_add(n, SeqCst);
        if !self.put(n, slot) {
            self.sum.fetch_sub(n, SeqCst);
        }
    }

    /// Calls `each` with every sub-window that is not expired, and what was charged in it.
    pub(crate) fn held(&self, mut each: impl FnMut(u64, u64)) {
        let head = self.head();
        for slot in head.saturating_sub(SLOTS)..=head {
            let seen = self.cell(slot).load(Acquire);
            if is_of(seen, slot) && amount(seen) > 0 {
                each(slot, amount(seen));
            }
        }
    }

    /// Puts what the sum has already into the cell of its sub-window.
    fn charge(&self, n: u64, slot: u64) -> u64 {
        loop {
            let slot = slot.max(self.head());
            if self.put(n, slot) {
                return slot;
            }
        }
    }

    /// Adds `n` to the cell of `slot`, unless that has expired.
    fn put(&self, n: u64, slot: u64) -> bool {
        let cell = self.cell(slot);
        let mut seen = cell.load(Acquire);
        loop {
            if self.head() >= slot.saturating_add(CELLS) {
                return false;
            }
            // What stands there for another sub-window was charged too late to be expired with it.
            let (here, stale) = match is_of(seen, slot) {
                true => (amount(seen), 0),
                false => (0, amount(seen)),
            };
            let room = n.min(MOST - here);
            match cell.compare_exchange(seen, word(slot, here + room), AcqRel, Acquire) {
                Ok(_) => {
                    let lost = stale + (n - room);
                    if lost > 0 {
                        self.sum.fetch_sub(lost, SeqCst);
                    }
                    return true;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back `n` of what was charged at `slot`; nothing if that has expired. Says whether there
    /// is more room now.
    pub(crate) fn refund(&self, n: u64, slot: u64) -> bool {
        if n == 0 {
            return false;
        }
        let cell = self.cell(slot);
        let mut seen = cell.load(Acquire);
        loop {
            let back = n.min(amount(seen));
            if back == 0 || !is_of(seen, slot) {
                return false;
            }
            match cell.compare_exchange(seen, seen - back, AcqRel, Acquire) {
                Ok(_) => {
                    self.sum.fetch_sub(back, SeqCst);
                    return true;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The first sub-window in which `n` more fit into `limit` if nothing else is charged. `n` may
    /// be more than the limit: then it is when the last of it fits, the limit being used up as soon
    /// as it can.
    pub(crate) fn fits_at(&self, n: u64, limit: u64) -> u64 {
        let head = self.head();
        let limit = limit.max(1);
        // Each turn of the ring lets the whole limit through once more.
        let turns = n.saturating_sub(1) / limit;
        let later = turns.saturating_mul(CELLS);
        let rest = n - turns * limit;
        let mut over = (self.used().saturating_add(rest)).saturating_sub(limit);
        if over == 0 {
            return head.saturating_add(later);
        }
        for slot in head.saturating_sub(SLOTS)..=head {
            let seen = self.cell(slot).load(Acquire);
            if is_of(seen, slot) {
                over = over.saturating_sub(amount(seen));
            }
            if over == 0 {
                return slot.saturating_add(CELLS).saturating_add(later);
            }
        }
        // What the sum has and no cell is about to go or to be put somewhere: look again soon.
        (head + 1).saturating_add(later)
    }

    fn cell(&self, slot: u64) -> &AtomicU64 {
        let at = (slot % CELLS) as usize;
        &self.cells[at]
    }
}

/// A cell's content for `slot`.
const fn word(slot: u64, amount: u64) -> u64 {
    (slot / CELLS) << AMOUNT_BITS | amount
}

const fn amount(word: u64) -> u64 {
    word & MOST
}

/// Whether a cell's content is of `slot`. The tag wraps after 256 turns of the ring; what is that
/// old was expired, or stands one turn longer than it should.
const fn is_of(word: u64, slot: u64) -> bool {
    word >> AMOUNT_BITS == (slot / CELLS) & (u64::MAX >> AMOUNT_BITS)
}
