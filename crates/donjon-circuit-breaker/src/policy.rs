//! When a circuit opens.

mod adaptive;

use std::time::Duration;

use crate::{
    delay::OpenDelay,
    error::ConfigError,
    window::{Kind, Window, WindowCalls},
};

pub use adaptive::Adaptive;
pub(crate) use adaptive::Learned;

/// Which threshold was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Exceeded {
    /// So large a share of the calls in the window failed.
    FailureRate {
        /// The share, from 0 to 1.
        rate: f64,
        /// What it had to stay below.
        threshold: f64,
        /// How many calls were in the window.
        calls: u32,
    },
    /// So large a share of the calls in the window was slow.
    SlowRate {
        /// The share, from 0 to 1.
        rate: f64,
        /// What it had to stay below.
        threshold: f64,
        /// How many calls were in the window.
        calls: u32,
    },
    /// So many calls failed one after the other.
    ConsecutiveFailures(u32),
}

/// Everything that a circuit goes by, parsed.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) window: Window,
    pub(crate) failures: Failures,
    /// `None`: slow calls do not open it.
    pub(crate) slow_rate: Option<f64>,
    pub(crate) consecutive: Option<u32>,
    pub(crate) minimum_calls: u32,
    pub(crate) delay: OpenDelay,
    pub(crate) probes: u32,
    pub(crate) probe_deadline: Duration,
    pub(crate) forget_after: Option<Duration>,
}

/// Which share of failures is too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failures {
    Ignored,
    Fixed(f64),
    Learned(Adaptive),
}

/// The share of failed probes that is too large where nothing else is said.
const HALF: f64 = 0.5;

impl Rules {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.window.0 {
            Kind::Count(calls @ (0 | 1_000_001..)) => return Err(ConfigError::WindowCalls(calls)),
            Kind::Time { length, .. } if length < Duration::from_millis(1) => {
                return Err(ConfigError::WindowLength(length));
            }
            Kind::Time { length, buckets }
                if !(1..=1_000).contains(&buckets)
                    || length / buckets < Duration::from_millis(1) =>
            {
                return Err(ConfigError::WindowBuckets(buckets));
            }
            _ => {}
        }
        match self.failures {
            Failures::Fixed(rate) if !is_share(rate) => return Err(ConfigError::FailureRate(rate)),
            Failures::Learned(adaptive) => adaptive.check()?,
            _ => {}
        }
        match self.slow_rate {
            Some(rate) if !is_share(rate) => return Err(ConfigError::SlowRate(rate)),
            None if self.failures == Failures::Ignored && self.consecutive.is_none() => {
                return Err(ConfigError::NothingOpens);
            }
            _ => {}
        }
        if self.consecutive == Some(0) {
            return Err(ConfigError::ZeroConsecutiveFailures);
        }
        if self.minimum_calls == 0 {
            return Err(ConfigError::ZeroMinimumCalls);
        }
        if !(1..=1_000).contains(&self.probes) {
            return Err(ConfigError::Probes(self.probes));
        }
        if self.probe_deadline < Duration::from_millis(1) {
            return Err(ConfigError::ProbeDeadline(self.probe_deadline));
        }
        if self.forget_after.is_some_and(|after| after.is_zero()) {
            return Err(ConfigError::ZeroForgetAfter);
        }
        self.delay.check()
    }

    /// How many calls there must be before rates are judged; a window of fewer is judged when full.
    pub(crate) fn minimum_calls(&self) -> u32 {
        match self.window.0 {
            Kind::Count(calls) => self.minimum_calls.min(calls),
            Kind::Time { .. } => self.minimum_calls,
        }
    }

    /// How many probes must have ended before they are judged.
    pub(crate) fn probes_needed(&self) -> u32 {
        self.minimum_calls.min(self.probes)
    }

    /// The threshold of failures that these calls reach, `streak` of which failed one after the
    /// other at last.
    pub(crate) fn failures_exceed(
        &self,
        calls: &WindowCalls,
        streak: u32,
        learned: &Learned,
    ) -> Option<Exceeded> {
        if let Some(most) = self.consecutive
            && streak >= most
        {
            return Some(Exceeded::ConsecutiveFailures(streak));
        }
        if calls.failures == 0 || calls.calls < self.minimum_calls() {
            return None;
        }
        let threshold = match &self.failures {
            Failures::Ignored => return None,
            Failures::Fixed(threshold) => *threshold,
            Failures::Learned(adaptive) => learned.threshold(adaptive, calls.calls),
        };
        failures_exceed(calls, threshold)
    }

    /// The threshold of slow calls that these calls reach.
    pub(crate) fn slow_exceeds(&self, calls: &WindowCalls) -> Option<Exceeded> {
        if calls.slow == 0 || calls.calls < self.minimum_calls() {
            return None;
        }
        slow_exceed(calls, self.slow_rate?)
    }

    /// The threshold that these probes reach.
    pub(crate) fn probes_exceed(&self, probes: &WindowCalls) -> Option<Exceeded> {
        let threshold = match self.failures {
            Failures::Fixed(threshold) => threshold,
            Failures::Ignored | Failures::Learned(_) => HALF,
        };
        let slow = || slow_exceed(probes, self.slow_rate?);
        failures_exceed(probes, threshold).or_else(slow)
    }
}

fn failures_exceed(calls: &WindowCalls, threshold: f64) -> Option<Exceeded> {
    let rate = calls.failure_rate().filter(|rate| *rate >= threshold)?;
    Some(Exceeded::FailureRate {
        rate,
        threshold,
        calls: calls.calls,
    })
}

fn slow_exceed(calls: &WindowCalls, threshold: f64) -> Option<Exceeded> {
    let rate = calls.slow_rate().filter(|rate| *rate >= threshold)?;
    Some(Exceeded::SlowRate {
        rate,
        threshold,
        calls: calls.calls,
    })
}

/// Whether it is above 0 and at most 1.
fn is_share(share: f64) -> bool {
    share > 0.0 && share <= 1.0
}
