//! How long first attempts take: a histogram that forgets, without a lock, with time passed in.

use std::{
    array,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Each doubling of the time is eight buckets, so that a bucket is at most an eighth wide of what it
/// stands for; up to 2^30 µs, some eighteen minutes.
const BUCKETS: usize = 232;
const STEPS: u64 = 8;
/// Half of it is forgotten after so long, however little was counted.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// Counts durations by their size. Half of what was counted is forgotten now and then.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    /// Counted since half was forgotten last.
    since: AtomicU32,
    window: u32,
    /// When half is forgotten next, in nanoseconds of the owner's clock.
    next: AtomicU64,
}

impl Histogram {
    /// Forgets half after `window` durations.
    pub(crate) fn new(window: u32) -> Self {
        Self {
            buckets: array::from_fn(|_| AtomicU32::new(0)),
            since: AtomicU32::new(0),
            window,
            next: AtomicU64::new(nanos(HALF_LIFE)),
        }
    }

    /// Counts `took` at `now`.
    pub(crate) fn record(&self, now: u64, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Relaxed);
        let next = self.next.load(Relaxed);
        // Whoever comes to either bound is alone.
        let full = self.since.fetch_add(1, Relaxed) + 1 == self.window;
        let old = now >= next
            && (self.next)
                .compare_exchange(next, now.saturating_add(nanos(HALF_LIFE)), Relaxed, Relaxed)
                .is_ok();
        if full || old {
            self.forget_half();
        }
    }

    #[cold]
    fn forget_half(&self) {
        self.since.store(0, Relaxed);
        for bucket in &self.buckets {
            // Nobody else makes it less: two that forget at once leave no less than nothing.
            let _ = bucket.fetch_update(Relaxed, Relaxed, |count| Some(count / 2));
        }
    }

    /// What the share `q` of at least `minimum` durations is below.
    pub(crate) fn quantile(&self, q: f64, minimum: u32) -> Option<Duration> {
        let counts: [u32; BUCKETS] = array::from_fn(|at| self.buckets[at].load(Relaxed));
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if total < u64::from(minimum.max(1)) {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among a few thousand"
        )]
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            let count = u64::from(*count);
            if below + count >= rank {
                let (low, width) = bounds(at);
                // As if those of a bucket were spread evenly in it.
                return Some(Duration::from_micros(low + width * (rank - below) / count));
            }
            below += count;
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 231")]
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < STEPS {
        return micros as usize;
    }
    let shift = u64::from(60 - micros.leading_zeros());
    let at = (shift + 1) * STEPS + (micros >> shift) % STEPS;
    (at as usize).min(BUCKETS - 1)
}

/// From where on, and how wide, in microseconds.
fn bounds(at: usize) -> (u64, u64) {
    let at = at as u64;
    if at < STEPS {
        return (at, 1);
    }
    let shift = at / STEPS - 1;
    ((STEPS + at % STEPS) << shift, 1 << shift)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_meet_without_gaps() {
        let mut end = 0;
        for at in 0..BUCKETS {
            let (low, width) = bounds(at);
            assert_eq!(low, end, "bucket {at}");
            end = low + width;
            assert_eq!(bucket(Duration::from_micros(low)), at);
            assert_eq!(bucket(Duration::from_micros(end - 1)), at);
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let known = Histogram::new(100);
        let record = |now, millis| known.record(now, Duration::from_millis(millis));
        (0..1000).for_each(|_| record(0, 1000));
        // A hundred calls and their like weigh as much as all before.
        (0..400).for_each(|_| record(0, 10));
        let median = known.quantile(0.5, 1).expect("known");
        assert!(median < Duration::from_millis(12), "{median:?}");
        // With time as well; something is left of what was counted once.
        let before = known.quantile(0.5, 90);
        assert!(before.is_some());
        for halves in 1..20 {
            record(nanos(HALF_LIFE) * halves, 10);
        }
        assert_eq!(known.quantile(0.5, 90), None, "too few are left");
    }

    proptest! {
        /// A quantile is off by an eighth at most.
        #[test]
        fn a_quantile_is_near(mut micros in prop::collection::vec(1..600_000_000_u64, 1..300), q in 0.01..0.999_f64) {
            let known = Histogram::new(10_000);
            for took in &micros {
                known.record(0, Duration::from_micros(*took));
            }
            micros.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
            let rank = ((q * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = Duration::from_micros(micros[rank - 1]);
            let found = known.quantile(q, 1).expect("known");
            let off = found.abs_diff(exact);
            prop_assert!(off <= exact / 8 + Duration::from_micros(1), "{found:?} for {exact:?}");
        }
    }
}
