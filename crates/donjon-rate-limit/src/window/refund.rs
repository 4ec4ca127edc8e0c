//! What is given back.

use super::*;

impl Window {
    /// Gives back `n` of what was charged at `slot`; nothing if that has expired. Says whether there
    /// is more room now.
    pub(crate) fn refund(&self, n: u64, slot: u64) -> bool {
        if n == 0 {
            return false;
        }
        let mut seen = self.current.load(Acquire);
        let mut left = n;
        loop {
            let since = self.head().saturating_sub(slot);
            if since > SLOTS {
                return false;
            }
            if age(seen, slot.saturating_add(since)) != since {
                break;
            }
            let back = left.min(amount(seen));
            match self
                .current
                .compare_exchange(seen, seen - back, AcqRel, Acquire)
            {
                Ok(_) => {
                    left -= back;
                    break;
                }
                Err(now) => seen = now,
            }
        }
        if left > 0 {
            left -= self.take(left, slot);
        }
        if left < n {
            self.sum.fetch_sub(n - left, SeqCst);
        }
        // What stands neither here nor there is on its way.
        (left > 0 && self.owe(left, slot)) || left < n
    }

    /// Takes up to `n` out of the cell of `slot`; says how much.
    pub(super) fn take(&self, n: u64, slot: u64) -> u64 {
        let cell = self.cell(slot);
        let mut seen = cell.load(Acquire);
        loop {
            let back = n.min(amount(seen));
            if back == 0 || !is_of(seen, slot) {
                return 0;
            }
            match cell.compare_exchange(seen, seen - back, AcqRel, Acquire) {
                Ok(_) => return back,
                Err(now) => seen = now,
            }
        }
    }

    /// Leaves a refund for whoever moves what was charged at `slot`, unless that has come meanwhile.
    #[cold]
    fn owe(&self, n: u64, slot: u64) -> bool {
        let mut seen = self.owed.load(Acquire);
        loop {
            let head = self.head();
            let expired = |slot: u64| head.saturating_sub(slot) > SLOTS;
            let others = amount(seen) > 0 && age(seen, slot) > 0;
            // That of another sub-window: this amount then stands until it expires.
            if expired(slot) || (others && age(seen, head) <= SLOTS) {
                return false;
            }
            let before = if others { 0 } else { amount(seen) };
            let after = recent(slot, (before + n).min(MOST));
            match self.owed.compare_exchange(seen, after, AcqRel, Acquire) {
                Ok(_) => return self.give_owed(),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back what is owed, if it has come into its cell.
    pub(super) fn give_owed(&self) -> bool {
        let mut seen = self.owed.load(Acquire);
        loop {
            let head = self.head();
            let slot = head.saturating_sub(age(seen, head));
            // Written to, so that of whoever moves it and whoever leaves a refund the later one sees
            // what the other did.
            let here = self.cell(slot).fetch_or(0, AcqRel);
            if amount(seen) == 0 || !is_of(here, slot) || amount(here) < amount(seen) {
                return false;
            }
            match self
                .owed
                .compare_exchange(seen, recent(slot, 0), AcqRel, Acquire)
            {
                Ok(_) => {
                    let back = self.take(amount(seen), slot);
                    self.sum.fetch_sub(back, SeqCst);
                    return back > 0;
                }
                Err(now) => seen = now,
            }
        }
    }
}
