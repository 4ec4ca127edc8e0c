//! How long to wait between two attempts.

use std::time::Duration;

use crate::error::ConfigError;

/// How the wait before each further attempt grows, up to a cap that nothing exceeds.
///
/// | constructor | the wait before retry *n* (1, 2, 3…), before jitter |
/// |---|---|
/// | [`exponential`](Self::exponential) | base × factorⁿ⁻¹; the factor is 2 unless [set](Self::factor) |
/// | [`linear`](Self::linear) | base × *n* |
/// | [`fibonacci`](Self::fibonacci) | base × 1, 1, 2, 3, 5, 8… |
/// | [`decorrelated`](Self::decorrelated) | a random time from the base to three times the wait before it |
/// | [`fixed`](Self::fixed) | base |
/// | [`none`](Self::none) | no wait at all |
///
/// Jitter is [full](Jitter::Full) unless [set](Self::jitter), and the cap 8 s, or the base where
/// that is longer. Senseless values are refused when the layer is built. The formulas and their
/// comparison: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    curve: Curve,
    base: Duration,
    cap: Duration,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Curve {
    Fixed,
    Linear,
    Fibonacci,
    Exponential { factor: f64 },
    Decorrelated,
}

/// How a wait is spread, so that callers who failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// Not at all.
    None,
    /// Anywhere from zero to the wait.
    #[default]
    Full,
    /// Anywhere from half the wait to the wait.
    Equal,
}

/// How far one call has come in its backoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackoffState {
    waits: u32,
    last: Duration,
}

impl BackoffState {
    /// How many waits there were.
    pub const fn waits(&self) -> u32 {
        self.waits
    }
}

const DEFAULT_CAP: Duration = Duration::from_secs(8);

impl Backoff {
    const fn new(curve: Curve, base: Duration) -> Self {
        let cap = if base.as_nanos() > DEFAULT_CAP.as_nanos() {
            base
        } else {
            DEFAULT_CAP
        };
        Self {
            curve,
            base,
            cap,
            jitter: Jitter::Full,
        }
    }

    /// Each wait is twice the one before it.
    pub const fn exponential(base: Duration) -> Self {
        Self::new(Curve::Exponential { factor: 2.0 }, base)
    }

    /// Each wait is longer by `base`.
    pub const fn linear(base: Duration) -> Self {
        Self::new(Curve::Linear, base)
    }

    /// Each wait is the sum of the two before it.
    pub const fn fibonacci(base: Duration) -> Self {
        Self::new(Curve::Fibonacci, base)
    }

    /// Each wait is drawn from `base` to three times the one before it. It is its own jitter; what
    /// [`jitter`](Self::jitter) says does not matter.
    pub const fn decorrelated(base: Duration) -> Self {
        Self::new(Curve::Decorrelated, base)
    }

    /// All waits are `wait`.
    pub const fn fixed(wait: Duration) -> Self {
        Self::new(Curve::Fixed, wait)
    }

    /// No wait at all: for tests, and for a target that is itself a queue.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// Sets the factor of an exponential backoff, at least 1; nothing else has one.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        if let Curve::Exponential { .. } = self.curve {
            self.curve = Curve::Exponential { factor };
        }
        self
    }

    /// Sets the longest wait, jitter included; at least the base.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Sets how waits are spread.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The next wait of a call that stands at `state`, which moves on. `random` is uniform in
    /// `0.0..1.0`. The wait never exceeds the cap, whatever the number of waits.
    pub fn next(&self, state: &mut BackoffState, random: f64) -> Duration {
        state.waits = state.waits.saturating_add(1);
        let random = random.clamp(0.0, 1.0);
        let wait = match self.curve {
            Curve::Decorrelated => {
                let low = self.base.min(self.cap);
                let high = state.last.max(low).saturating_mul(3).min(self.cap.max(low));
                low + scale(high - low, random)
            }
            _ => {
                let wait = self.raw(state.waits).min(self.cap);
                match self.jitter {
                    Jitter::None => wait,
                    Jitter::Full => scale(wait, random),
                    Jitter::Equal => wait / 2 + scale(wait - wait / 2, random),
                }
            }
        };
        state.last = wait;
        wait
    }

    /// The wait before retry `n`, without cap and jitter.
    fn raw(&self, n: u32) -> Duration {
        match self.curve {
            Curve::Fixed | Curve::Decorrelated => self.base,
            Curve::Linear => self.base.saturating_mul(n),
            Curve::Fibonacci => self.base.saturating_mul(fibonacci(n)),
            Curve::Exponential { factor } => {
                let power = i32::try_from(n - 1).unwrap_or(i32::MAX);
                let seconds = self.base.as_secs_f64() * factor.powi(power);
                // Infinity and what no duration holds.
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Curve::Exponential { factor } = self.curve
            && !(factor.is_finite() && factor >= 1.0)
        {
            return Err(ConfigError::BackoffFactor(factor));
        }
        if self.base.is_zero() && self.curve != Curve::Fixed {
            return Err(ConfigError::ZeroBackoff);
        }
        if self.cap < self.base {
            return Err(ConfigError::BackoffCap {
                base: self.base,
                cap: self.cap,
            });
        }
        Ok(())
    }
}

/// Exponential from 500 ms, doubling up to 8 s, with full jitter.
impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(500))
    }
}

/// `part` (0 to 1) of `whole`, never more than it.
pub(crate) fn scale(whole: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(whole.as_secs_f64() * part)
        .unwrap_or(whole)
        .min(whole)
}

/// 1, 1, 2, 3, 5… for n = 1, 2, 3, 4, 5…; saturates.
fn fibonacci(n: u32) -> u32 {
    let (mut this, mut next) = (0_u32, 1_u32);
    for _ in 0..n {
        (this, next) = (next, this.saturating_add(next));
        if this == u32::MAX {
            break;
        }
    }
    this
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waits(backoff: &Backoff, count: usize, random: f64) -> Vec<u128> {
        let mut state = BackoffState::default();
        (0..count)
            .map(|_| backoff.next(&mut state, random).as_millis())
            .collect()
    }

    #[test]
    fn each_curve_is_what_it_says() {
        let plain = |backoff: Backoff| backoff.jitter(Jitter::None).cap(MS * 1000);
        let exponential = plain(Backoff::exponential(MS * 100));
        assert_eq!(
            waits(&exponential, 6, 0.5),
            [100, 200, 400, 800, 1000, 1000]
        );
        let tripled = exponential.factor(3.0);
        assert_eq!(waits(&tripled, 4, 0.5), [100, 300, 900, 1000]);
        let linear = plain(Backoff::linear(MS * 300));
        assert_eq!(waits(&linear, 5, 0.5), [300, 600, 900, 1000, 1000]);
        let fibonacci = plain(Backoff::fibonacci(MS * 100));
        assert_eq!(
            waits(&fibonacci, 8, 0.5),
            [100, 100, 200, 300, 500, 800, 1000, 1000]
        );
        assert_eq!(waits(&plain(Backoff::fixed(MS * 70)), 3, 0.5), [70; 3]);
        assert_eq!(waits(&Backoff::none(), 3, 0.9), [0; 3]);
        // Half way from the base to three times the wait before.
        let decorrelated = plain(Backoff::decorrelated(MS * 100));
        assert_eq!(waits(&decorrelated, 4, 0.5), [200, 350, 550, 550]);
    }

    #[test]
    fn jitter_spreads_downwards_only() {
        let base = Backoff::fixed(MS * 1000);
        let at = |jitter, random| waits(&base.clone().jitter(jitter), 1, random)[0];
        assert_eq!(at(Jitter::Full, 0.0), 0);
        assert_eq!(at(Jitter::Full, 0.999_999), 999);
        assert_eq!(at(Jitter::Equal, 0.0), 500);
        assert_eq!(at(Jitter::Equal, 0.999_999), 999);
        assert_eq!(
            Backoff::default().jitter,
            Jitter::Full,
            "jitter is on by default"
        );
    }

    /// Jitter spreads what is left under the cap; otherwise nearly all long waits would be the cap.
    #[test]
    fn the_cap_comes_before_the_jitter() {
        let backoff = Backoff::exponential(MS * 100).cap(MS * 1000);
        assert_eq!(waits(&backoff, 6, 0.5), [50, 100, 200, 400, 500, 500]);
        let equal = backoff.jitter(Jitter::Equal);
        assert_eq!(waits(&equal, 6, 0.5), [75, 150, 300, 600, 750, 750]);
    }

    fn curves() -> impl Strategy<Value = Curve> {
        prop_oneof![
            Just(Curve::Fixed),
            Just(Curve::Linear),
            Just(Curve::Fibonacci),
            (1.0..1e6).prop_map(|factor| Curve::Exponential { factor }),
            Just(Curve::Decorrelated),
        ]
    }

    fn durations() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..60_000_u64).prop_map(Duration::from_millis),
            (0..u64::MAX, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
            Just(Duration::MAX),
        ]
    }

    fn jitters() -> impl Strategy<Value = Jitter> {
        prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal)]
    }

    proptest! {
        #[test]
        fn never_above_the_cap_and_never_an_overflow(
            curve in curves(), base in durations(), cap in durations(), jitter in jitters(),
            waits in any::<u32>(), last in durations(), random in 0.0..=1.0,
        ) {
            let backoff = Backoff { curve, base, cap, jitter };
            let mut state = BackoffState { waits, last };
            prop_assert!(backoff.next(&mut state, random) <= cap);
            prop_assert!(state.waits >= waits);
        }

        #[test]
        fn it_grows_in_expectation(
            curve in curves(), base in 1..60_000_u64, cap in 1..60_000_u64, jitter in jitters(),
        ) {
            let base = Duration::from_millis(base);
            let cap = base.max(Duration::from_millis(cap));
            let backoff = Backoff { curve, base, cap, jitter };
            // All jitters are linear in the random number, so its mean gives the mean wait.
            let mut state = BackoffState::default();
            let mut before = Duration::ZERO;
            for _ in 0..50 {
                let mean = backoff.next(&mut state, 0.5);
                prop_assert!(mean >= before, "{mean:?} after {before:?}");
                before = mean;
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |backoff: Backoff| backoff.check().is_err();
        assert!(refused(Backoff::exponential(MS).factor(f64::NAN)));
        assert!(refused(Backoff::exponential(MS).factor(0.5)));
        assert!(refused(Backoff::exponential(MS).factor(f64::INFINITY)));
        assert!(refused(Backoff::linear(Duration::ZERO)));
        assert!(refused(Backoff::fixed(MS * 10).cap(MS)));
        assert!(Backoff::fixed(MS * 20_000).check().is_ok());
        assert!(Backoff::none().check().is_ok());
        assert!(Backoff::default().check().is_ok());
    }
}
