//! How long a circuit stays open.

use std::time::Duration;

use crate::error::ConfigError;

/// How long a circuit stays open before it lets probes pass: longer each time it opens again without
/// having recovered, up to a cap that nothing exceeds, and from the beginning once it has.
///
/// A server that asks for more time (`Retry-After`) gets it, whatever is configured here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenDelay {
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
}

impl OpenDelay {
    /// `base`, twice as long each further time up to a minute, or to `base` where that is longer.
    pub const fn growing(base: Duration) -> Self {
        const CAP: Duration = Duration::from_secs(60);
        let cap = if base.as_nanos() > CAP.as_nanos() {
            base
        } else {
            CAP
        };
        Self {
            base,
            factor: 2.0,
            cap,
            jitter: 0.1,
        }
    }

    /// Always `delay`.
    pub const fn fixed(delay: Duration) -> Self {
        Self {
            base: delay,
            factor: 1.0,
            cap: delay,
            jitter: 0.1,
        }
    }

    /// Sets how many times as long the delay is as the one before it, at least 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the longest delay.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Sets by which share, from 0 to 1, a delay may be shorter, so that circuits that opened
    /// together do not probe together; default 0.1.
    #[must_use]
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.base.is_zero() {
            return Err(ConfigError::ZeroOpenDelay);
        }
        if !(self.factor >= 1.0 && self.factor.is_finite()) {
            return Err(ConfigError::OpenDelayFactor(self.factor));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::OpenDelayJitter(self.jitter));
        }
        if self.cap < self.base {
            return Err(ConfigError::OpenDelayCap {
                base: self.base,
                cap: self.cap,
            });
        }
        Ok(())
    }

    /// The delay of a circuit that has opened so many times before without recovering.
    pub(crate) fn after(&self, openings: u32) -> Duration {
        let full = self.full(openings);
        if self.jitter == 0.0 {
            return full;
        }
        // At least a millisecond, which is how finely delays are kept.
        full.mul_f64(1.0 - self.jitter * fastrand::f64())
            .max(Duration::from_millis(1))
            .min(full)
    }

    fn full(&self, openings: u32) -> Duration {
        let openings = i32::try_from(openings).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(openings);
        // Beyond what can be told it is the cap too.
        Duration::try_from_secs_f64(seconds).map_or(self.cap, |delay| delay.min(self.cap))
    }
}

/// 5 s, then twice as long each time, up to a minute.
impl Default for OpenDelay {
    fn default() -> Self {
        Self::growing(Duration::from_secs(5))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_grows_up_to_its_cap() {
        let delay = OpenDelay::growing(5 * SECOND).jitter(0.0);
        let delays: Vec<_> = (0..6).map(|n| delay.after(n).as_secs()).collect();
        assert_eq!(delays, [5, 10, 20, 40, 60, 60]);
        assert_eq!(delay.after(u32::MAX), 60 * SECOND);
        let slower = delay.factor(1.5).cap(12 * SECOND);
        let delays: Vec<_> = (0..4).map(|n| slower.after(n).as_millis()).collect();
        assert_eq!(delays, [5_000, 7_500, 11_250, 12_000]);
    }

    #[test]
    fn a_fixed_one_does_not_grow() {
        let delay = OpenDelay::fixed(90 * SECOND).jitter(0.0);
        assert_eq!(delay.after(0), 90 * SECOND);
        assert_eq!(delay.after(9), 90 * SECOND);
        assert_eq!(
            OpenDelay::growing(90 * SECOND).jitter(0.0).after(9),
            90 * SECOND
        );
    }

    #[test]
    fn jitter_only_shortens_so_that_the_cap_holds() {
        let delay = OpenDelay::growing(SECOND).cap(8 * SECOND).jitter(0.5);
        let mut seen = Vec::new();
        for _ in 0..1_000 {
            let last = delay.after(10);
            assert!(last <= 8 * SECOND && last >= 4 * SECOND, "{last:?}");
            seen.push(last);
        }
        seen.sort();
        assert!(seen[900] - seen[100] > 2 * SECOND, "it spreads");
        let all = OpenDelay::fixed(SECOND).jitter(1.0);
        assert!((0..1_000).all(|_| !all.after(0).is_zero()));
    }
}
