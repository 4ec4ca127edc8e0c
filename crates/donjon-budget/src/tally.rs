//! Figures that only grow until they are cleared, cheap for those who are counted seldom and fast for those
//! who are counted all the time.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::Counts;

/// `N` figures. Nobody decides by them, so they need not be read at one moment.
pub(crate) struct Tally<const N: usize> {
    /// What was counted before it was known to be busy.
    seldom: [AtomicU64; N],
    /// Cells for each thread, once it is: without them threads that count the same wait for each other.
    busy: OnceLock<Counts<N>>,
    /// How much of them was cleared.
    cleared: [AtomicU64; N],
}

/// From so many on it is busy.
const BUSY: u64 = 1_024;

impl<const N: usize> Tally<N> {
    pub(crate) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            seldom: zeros(),
            busy: OnceLock::new(),
            cleared: zeros(),
        }
    }

    #[inline]
    pub(crate) fn add(&self, at: usize, more: u64) {
        match self.busy.get() {
            Some(counts) => counts.add(at, more),
            None => self.add_seldom(at, more),
        }
    }

    fn add_seldom(&self, at: usize, more: u64) {
        let before = self.seldom[at].fetch_add(more, Relaxed);
        // The first figure counts one by one.
        if at == 0 && before >= BUSY {
            self.busy.get_or_init(Counts::new);
        }
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        self.counted(at)
            .wrapping_sub(self.cleared[at].load(Relaxed))
    }

    fn counted(&self, at: usize) -> u64 {
        let seldom = self.seldom[at].load(Relaxed);
        let busy = self.busy.get().map_or(0, |counts| counts.get(at));
        seldom.wrapping_add(busy)
    }

    /// Sets all to zero, and says what they were. One at a time.
    pub(crate) fn clear(&self) -> [u64; N] {
        std::array::from_fn(|at| {
            let taken = self.get(at);
            self.cleared[at].fetch_add(taken, Relaxed);
            taken
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_when_it_becomes_busy_or_is_cleared() {
        let tally = Tally::<2>::new();
        let mut taken = [0; 2];
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        tally.add(0, 1);
                        tally.add(1, 3);
                    }
                });
            }
            for _ in 0..100 {
                let now = tally.clear();
                taken[0] += now[0];
                taken[1] += now[1];
            }
        });
        assert!(tally.busy.get().is_some());
        assert_eq!(taken[0] + tally.get(0), 20_000);
        assert_eq!(taken[1] + tally.get(1), 60_000);
    }
}
