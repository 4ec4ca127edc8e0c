//! How late the first token must be.

use std::time::Duration;

use crate::error::ConfigError;

/// How late a first attempt must be before a second one is made: a time, or a percentile of how long
/// first attempts take.
///
/// A `Duration` is a fixed one:
///
/// ```
/// use donjon_hedge::{HedgeDelay, HedgeLayer};
/// use std::time::Duration;
///
/// let fixed = HedgeLayer::builder().delay(Duration::from_millis(800)).build()?;
/// let live = HedgeDelay::percentile(0.95).until_known(Duration::from_secs(2));
/// let live = HedgeLayer::builder().delay(live).build()?;
/// # Ok::<_, donjon_hedge::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct HedgeDelay {
    percentile: Option<f64>,
    fixed: Option<Duration>,
    minimum_calls: u32,
    least: Duration,
    most: Duration,
}

impl HedgeDelay {
    /// Always so long.
    pub const fn fixed(delay: Duration) -> Self {
        Self {
            percentile: None,
            fixed: Some(delay),
            minimum_calls: 1,
            least: Duration::ZERO,
            most: Duration::MAX,
        }
    }

    /// So long that this share of first attempts (0.95: 19 of 20) was faster: time to first token of
    /// streams, time of whole answers and of embeddings, each measured apart. Half of what is known is
    /// forgotten every thousand calls (or four times `minimum_calls`), and every 5 min.
    pub const fn percentile(share: f64) -> Self {
        Self {
            percentile: Some(share),
            fixed: None,
            minimum_calls: 100,
            least: Duration::from_millis(10),
            most: Duration::MAX,
        }
    }

    /// How many calls must be known before the percentile counts; default 100.
    pub const fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// The delay until then; without it no call is found to be slow until then.
    pub const fn until_known(mut self, delay: Duration) -> Self {
        self.fixed = Some(delay);
        self
    }

    /// The percentile counts as at least so long; default 10 ms.
    pub const fn at_least(mut self, delay: Duration) -> Self {
        self.least = delay;
        self
    }

    /// The percentile counts as at most so long; default without bound.
    pub const fn at_most(mut self, delay: Duration) -> Self {
        self.most = delay;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.fixed.is_some_and(|delay| delay.is_zero()) {
            return Err(ConfigError::ZeroDelay);
        }
        if let Some(share) = self.percentile
            && !(share > 0.0 && share < 1.0)
        {
            return Err(ConfigError::Percentile(share));
        }
        if self.minimum_calls == 0 {
            return Err(ConfigError::ZeroMinimumCalls);
        }
        if self.least > self.most {
            return Err(ConfigError::Bounds {
                least: self.least,
                most: self.most,
            });
        }
        Ok(())
    }

    /// Whether it depends on how long calls take.
    pub(crate) const fn is_live(&self) -> bool {
        self.percentile.is_some()
    }

    /// After how many calls half of what is known is forgotten.
    pub(crate) fn window(&self) -> u32 {
        self.minimum_calls.saturating_mul(4).max(1000)
    }

    /// How long it is now, by what `quantile` says of so large a share and so many calls.
    pub(crate) fn now(
        &self,
        quantile: impl FnOnce(f64, u32) -> Option<Duration>,
    ) -> Option<Duration> {
        let known = self
            .percentile
            .and_then(|share| quantile(share, self.minimum_calls));
        known
            .map(|delay| delay.clamp(self.least, self.most))
            .or(self.fixed)
    }
}

/// The 95th percentile, once 100 calls are known.
impl Default for HedgeDelay {
    fn default() -> Self {
        Self::percentile(0.95)
    }
}

impl From<Duration> for HedgeDelay {
    fn from(delay: Duration) -> Self {
        Self::fixed(delay)
    }
}
