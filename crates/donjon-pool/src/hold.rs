//! How long calls hold their slots, and what follows from it for those who wait.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The mean time that a slot was held, of late. It learns from calls that took the last slot or had
/// waited for theirs: while nobody waits nobody asks, and no clock need be read.
#[derive(Debug, Default)]
pub(crate) struct HoldTime {
    /// In nanoseconds; 0 stands for unknown.
    mean: AtomicU64,
    seen: AtomicU64,
}

/// How many calls weigh in the mean.
const OF_LATE: u64 = 32;

impl HoldTime {
    /// A slot was held for so long. Two at once may lose one of them.
    pub(crate) fn learn(&self, held: Duration) {
        let held = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX).max(1);
        let seen = (self.seen.load(Relaxed) + 1).min(OF_LATE);
        self.seen.store(seen, Relaxed);
        let mean = self.mean.load(Relaxed);
        let mean = if held >= mean {
            mean + (held - mean) / seen
        } else {
            mean - (mean - held) / seen
        };
        self.mean.store(mean.max(1), Relaxed);
    }

    /// When the slots, of which there are so many, will have come round to one before whom `ahead`
    /// others go; `None` as long as nobody can tell.
    pub(crate) fn until(&self, ahead: usize, slots: u32) -> Option<Duration> {
        let mean = match self.mean.load(Relaxed) {
            0 => return None,
            mean => u128::from(mean),
        };
        let turns = ahead as u128 + 1;
        let nanos = mean.saturating_mul(turns) / u128::from(slots.max(1));
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_wait_follows_from_the_slots_and_those_ahead() {
        let hold = HoldTime::default();
        assert_eq!(hold.until(0, 4), None);
        hold.learn(8 * SECOND);
        assert_eq!(hold.until(0, 4), Some(2 * SECOND));
        assert_eq!(hold.until(7, 4), Some(16 * SECOND));
    }

    #[test]
    fn it_follows_calls_that_become_faster() {
        let hold = HoldTime::default();
        for _ in 0..100 {
            hold.learn(10 * SECOND);
        }
        for _ in 0..100 {
            hold.learn(SECOND);
        }
        let wait = hold.until(0, 1).expect("known");
        assert!(wait > SECOND && wait < 2 * SECOND, "{wait:?}");
    }
}
