//! How long calls waited: a small log-linear histogram of atomics.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Four buckets for each doubling, from a millisecond to some five weeks: a quantile is right to an
/// eighth. It takes memory from the first wait on.
#[derive(Default)]
pub(crate) struct Histogram(OnceLock<Box<[AtomicU64; BUCKETS]>>);

const SUB_BITS: u32 = 2;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = 128;

impl Histogram {
    pub(crate) fn record(&self, wait: Duration) {
        let buckets = self
            .0
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; BUCKETS]));
        buckets[bucket(wait)].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> WaitTimes {
        let mut counts = [0; BUCKETS];
        if let Some(buckets) = self.0.get() {
            for (count, bucket) in counts.iter_mut().zip(buckets.iter()) {
                *count = bucket.load(Relaxed);
            }
        }
        WaitTimes { counts }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// The distribution of the times that calls waited for a slot. Calls that were admitted at once, and
/// calls that left, are not in it.
#[derive(Clone)]
pub struct WaitTimes {
    counts: [u64; BUCKETS],
}

impl Default for WaitTimes {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl WaitTimes {
    /// How many calls waited.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that a share of `part` (from 0 to 1; 0.5 is the median) of them waited at most, to
    /// an eighth; zero if none waited.
    pub fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a figure to look at; `as` saturates"
        )]
        let rank = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return middle(at);
            }
        }
        Duration::ZERO
    }

    /// Their times together, to an eighth.
    pub fn sum(&self) -> Duration {
        let sum = |(at, count): (usize, &u64)| middle(at).as_secs_f64() * to_f64(*count);
        let seconds: f64 = self.counts.iter().enumerate().map(sum).sum();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }
}

impl fmt::Debug for WaitTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitTimes")
            .field("count", &self.count())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

/// The first buckets are a millisecond wide each; from there on each doubling has as many.
fn bucket(wait: Duration) -> usize {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    if millis < SUB {
        return usize::try_from(millis).unwrap_or(0);
    }
    let doubling = millis.ilog2() - SUB_BITS;
    let sub = (millis >> doubling) - SUB;
    let at = u64::from(doubling + 1) * SUB + sub;
    usize::try_from(at).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(at: usize) -> Duration {
    let at = at as u64;
    let (low, wide) = match (at / SUB).checked_sub(1) {
        None => (at, 1),
        Some(doubling) => ((SUB + at % SUB) << doubling, 1 << doubling),
    };
    Duration::from_micros(low * 1_000 + wide * 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_an_eighth() {
        let histogram = Histogram::default();
        for millis in 1..=1_000 {
            histogram.record(Duration::from_millis(millis));
        }
        let times = histogram.read();
        assert_eq!(times.count(), 1_000);
        for (part, exact) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = times.quantile(part).as_secs_f64() * 1_000.0;
            assert!((found / exact - 1.0).abs() < 0.126, "{found} for {exact}");
        }
        let sum = times.sum().as_secs_f64();
        assert!((sum / 500.5 - 1.0).abs() < 0.1, "{sum}");
    }

    #[test]
    fn every_wait_has_a_bucket_and_buckets_do_not_go_back() {
        let mut last = 0;
        let mut millis = 0_u64;
        while millis < 1 << 40 {
            let at = bucket(Duration::from_millis(millis));
            assert!(at == last || at == last + 1, "{millis}: {last} to {at}");
            last = at;
            millis += 1 + millis / 64;
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(WaitTimes::default().quantile(0.5), Duration::ZERO);
        let empty = Histogram::default();
        empty.record(Duration::ZERO);
        assert!(empty.read().quantile(1.0) < Duration::from_millis(1));
    }
}
