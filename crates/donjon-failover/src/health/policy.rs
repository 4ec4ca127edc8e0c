//! When a target is out, and for how long.

use std::time::Duration;

use crate::error::ConfigError;

/// When a target is taken out because of how its calls went, for how long, and how it comes back.
///
/// Which errors are faults is said by the disposition table
/// ([`Disposition::health`](donjon_core::Disposition::health)) or the classifier of the failover. A
/// `Superseded` call, one that a hedge won against, counts as slow if it was past the slow bound.
#[derive(Clone, Debug)]
pub struct HealthPolicy {
    pub(crate) consecutive: Option<u32>,
    pub(crate) failure_rate: Option<f64>,
    pub(crate) minimum_calls: u32,
    pub(crate) window: Duration,
    pub(crate) out_for: Duration,
    pub(crate) longest: Duration,
    pub(crate) most_out: f64,
    pub(crate) return_over: Duration,
    pub(crate) hints: bool,
    pub(crate) slow_first_token: Option<Duration>,
    pub(crate) slow_answer: Option<Duration>,
}

impl HealthPolicy {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            consecutive: Some(5),
            failure_rate: Some(0.5),
            minimum_calls: 20,
            window: Duration::from_secs(30),
            out_for: Duration::from_secs(10),
            longest: Duration::from_secs(300),
            most_out: 0.5,
            return_over: Duration::from_secs(30),
            hints: true,
            slow_first_token: None,
            slow_answer: None,
        }
    }

    /// Takes a target out after so many faults in a row; default 5. `None`: never for that.
    #[must_use]
    pub fn consecutive_failures(mut self, faults: impl Into<Option<u32>>) -> Self {
        self.consecutive = faults.into();
        self
    }

    /// Takes a target out when this share of its calls are faults, above 0 and up to 1; default 0.5.
    /// `None`: never for that.
    #[must_use]
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = rate.into();
        self
    }

    /// How many calls a rate is made of at least; default 20.
    #[must_use]
    pub const fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Over how long the rate is taken, at most; default 30 s. Counting begins with the first fault.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// For how long a target is out the first time; default 10 s. Each time that it fails when it comes
    /// back doubles this.
    #[must_use]
    pub const fn out_for(mut self, base: Duration) -> Self {
        self.out_for = base;
        self
    }

    /// The longest that a target is out at a time, and the longest that a server is taken at its word
    /// for; default 5 min. A target that stayed in for as long begins anew with
    /// [`out_for`](Self::out_for).
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Which share of the enabled targets may be out at once, from 0 to 1; default 0.5, rounded up. The
    /// last target that is left is never taken out.
    #[must_use]
    pub const fn most_out(mut self, share: f64) -> Self {
        self.most_out = share;
        self
    }

    /// Over how long a target that has come back grows from a twentieth of its calls to all of them;
    /// default 30 s. Zero: at once.
    #[must_use]
    pub const fn return_over(mut self, ramp: Duration) -> Self {
        self.return_over = ramp;
        self
    }

    /// Whether a target that says it has too much to do, and for how long (`Retry-After`), is left alone
    /// until then; default yes. If not, it is one more fault.
    #[must_use]
    pub const fn overload_hints(mut self, honoured: bool) -> Self {
        self.hints = honoured;
        self
    }

    /// A stream whose first token comes later than that is as bad as a fault; default none.
    #[must_use]
    pub fn slow_first_token(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.slow_first_token = bound.into();
        self
    }

    /// A whole answer that comes later than that is as bad as a fault; default none.
    #[must_use]
    pub fn slow_answer(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.slow_answer = bound.into();
        self
    }

    /// Whether anything is slow.
    pub(crate) const fn measures(&self) -> bool {
        self.slow_first_token.is_some() || self.slow_answer.is_some()
    }

    /// By when there should be something.
    pub(crate) const fn bound(&self, streamed: bool) -> Option<Duration> {
        if streamed {
            self.slow_first_token
        } else {
            self.slow_answer
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let rate = self.failure_rate;
        let no_slow = [self.slow_first_token, self.slow_answer].contains(&Some(Duration::ZERO));
        let wrong = [
            (
                self.consecutive == Some(0),
                "consecutive_failures",
                "must be at least 1",
            ),
            (
                rate.is_some_and(|rate| !share(rate) || rate == 0.0),
                "failure_rate",
                "must be above 0 and at most 1",
            ),
            (
                self.minimum_calls == 0,
                "minimum_calls",
                "must be at least 1",
            ),
            (self.window.is_zero(), "window", "must be some time"),
            (self.out_for.is_zero(), "out_for", "must be some time"),
            (
                self.longest < self.out_for,
                "longest",
                "is shorter than `out_for`",
            ),
            (!share(self.most_out), "most_out", "must be from 0 to 1"),
            (no_slow, "slow", "must be some time"),
        ];
        match wrong.into_iter().find(|(is, ..)| *is) {
            None => Ok(()),
            Some((_, field, why)) => Err(ConfigError::Impossible {
                field: format!("health.{field}").into(),
                why,
            }),
        }
    }
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self::new()
    }
}
