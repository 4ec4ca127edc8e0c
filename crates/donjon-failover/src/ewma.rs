//! A latency that is quick to rise, slow to fall, and forgotten in time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A peak-sensitive, exponentially weighted moving average: a sample above it takes its place at
/// once, one below draws it down by the time since the last one, and it fades while there is none, so
/// that whoever was slow is asked again one day. The manner is that of Finagle's and tower's peak EWMA.
///
/// One word, without a lock: `f32` milliseconds, and the millisecond of the last sample. Samples that
/// race are all taken in, one after the other.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes in a sample at `now`, a time in milliseconds.
    pub(crate) fn observe(&self, now: u32, sample: Duration, decay: Duration) {
        let sample = millis(sample);
        self.change(now, decay, |old, weight| {
            Some(if sample >= old {
                sample
            } else {
                old.mul_add(weight, sample * (1.0 - weight))
            })
        });
    }

    /// Raises it to `sample` if it is below: of a call that was given up it is known only that it took
    /// longer.
    pub(crate) fn at_least(&self, now: u32, sample: Duration, decay: Duration) {
        let sample = millis(sample);
        self.change(now, decay, |old, weight| {
            (sample > old * weight).then_some(sample)
        });
    }

    /// What it is at `now`, in milliseconds; `None` if nothing was ever measured.
    #[inline]
    pub(crate) fn read(&self, now: u32, decay: Duration) -> Option<f32> {
        let (value, at) = unpack(self.0.load(Relaxed))?;
        Some(value * weight(now, at, decay))
    }

    fn change(&self, now: u32, decay: Duration, value: impl Fn(f32, f32) -> Option<f32>) {
        let mut word = self.0.load(Relaxed);
        loop {
            let new = match unpack(word) {
                // A sample that is older than the last one stands as if it came with it.
                Some((old, at)) => {
                    let now = if since(now, at) == 0 { at } else { now };
                    value(old, weight(now, at, decay)).map(|new| pack(new, now))
                }
                None => value(0.0, 1.0).map(|new| pack(new, now)),
            };
            let Some(new) = new else { return };
            match self.0.compare_exchange_weak(word, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

/// The least that is told apart from "never measured", in milliseconds.
const LEAST: f32 = 0.001;

fn pack(value: f32, at: u32) -> u64 {
    u64::from(value.max(LEAST).to_bits()) << 32 | u64::from(at)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a word")]
fn unpack(word: u64) -> Option<(f32, u32)> {
    (word != 0).then(|| (f32::from_bits((word >> 32) as u32), word as u32))
}

/// From `at` to `now`, in milliseconds; 0 if it is the other way round. The count starts anew every
/// 49 days, and what is half as old as that is taken for new.
fn since(now: u32, at: u32) -> u32 {
    let since = now.wrapping_sub(at);
    if since > u32::MAX / 2 { 0 } else { since }
}

#[expect(clippy::cast_precision_loss, reason = "a weight need not be exact")]
fn weight(now: u32, at: u32, decay: Duration) -> f32 {
    match since(now, at) {
        0 => 1.0,
        since => (-(since as f32) / millis(decay)).exp(),
    }
}

fn millis(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[track_caller]
    fn near(ewma: &PeakEwma, now: u32, expected: f32) {
        let is = ewma.read(now, DECAY).expect("it was measured");
        assert!(
            (is - expected).abs() <= expected * 1e-3,
            "{is} is not {expected}"
        );
    }

    #[test]
    fn it_rises_at_once_falls_slowly_and_fades() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.read(5, DECAY), None);
        ewma.observe(0, ms(100), DECAY);
        near(&ewma, 0, 100.0);
        ewma.observe(0, ms(5_000), DECAY);
        near(&ewma, 0, 5_000.0);
        let tenth = (-0.1_f32).exp();
        ewma.observe(1_000, ms(100), DECAY);
        near(
            &ewma,
            1_000,
            5_000.0f32.mul_add(tenth, 100.0 * (1.0 - tenth)),
        );
        ewma.observe(1_000, ms(5_000), DECAY);
        near(&ewma, 11_000, 5_000.0 * (-1.0_f32).exp());
    }

    #[test]
    fn of_one_who_was_given_up_only_more_counts() {
        let ewma = PeakEwma::default();
        ewma.at_least(0, ms(300), DECAY);
        near(&ewma, 0, 300.0);
        ewma.at_least(0, ms(200), DECAY);
        near(&ewma, 0, 300.0);
        ewma.at_least(0, ms(400), DECAY);
        near(&ewma, 0, 400.0);
    }

    #[test]
    fn a_sample_that_comes_late_does_not_turn_the_clock_back() {
        let ewma = PeakEwma::default();
        ewma.observe(5_000, ms(100), DECAY);
        ewma.observe(1_000, ms(200), DECAY);
        near(&ewma, 5_000, 200.0);
        // The clock of 32 bits goes round.
        let ewma = PeakEwma::default();
        ewma.observe(u32::MAX, ms(100), DECAY);
        near(&ewma, 9_999, 100.0 * (-1.0_f32).exp());
    }

    #[test]
    fn what_takes_no_time_was_measured_all_the_same() {
        let ewma = PeakEwma::default();
        ewma.observe(0, Duration::ZERO, DECAY);
        assert!(ewma.read(0, DECAY).is_some());
    }
}
