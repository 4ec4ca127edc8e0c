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

    /// How many of so many calls in flight are with the server, if each waits so long further in before
    /// it is sent: the same part as of the time that a slot is held, which is the mean, or as long as
    /// this one was `held` so far.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "not more than there are in flight"
    )]
    pub(crate) fn at_server(&self, in_flight: u32, waits: Duration, held: Duration) -> u32 {
        if waits.is_zero() {
            return in_flight;
        }
        let held = u128::from(self.mean.load(Relaxed)).max(held.as_nanos());
        let there = held.saturating_sub(waits.as_nanos());
        let all = u128::from(in_flight);
        let part = (all * there + held / 2).checked_div(held);
        part.unwrap_or(all).min(all) as u32
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
    fn what_waits_further_in_is_not_at_the_server() {
        let hold = HoldTime::default();
        assert_eq!(hold.at_server(10, 5 * SECOND, 10 * SECOND), 5);
        hold.learn(20 * SECOND);
        assert_eq!(hold.at_server(10, Duration::ZERO, SECOND), 10);
        assert_eq!(hold.at_server(10, SECOND / 4, SECOND), 10, "whole calls");
        assert_eq!(hold.at_server(10, 16 * SECOND, 17 * SECOND), 2);
        assert_eq!(hold.at_server(10, 36 * SECOND, 40 * SECOND), 1);
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
