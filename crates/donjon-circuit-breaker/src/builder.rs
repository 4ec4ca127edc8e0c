//! What can be set.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, DefaultTable, Events, KeyBy, Name};
use tokio::time::Instant;

use crate::{
    breaker::{Breakers, Config},
    delay::OpenDelay,
    error::ConfigError,
    figures::Total,
    layer::BreakerLayer,
    policy::{Adaptive, Failures, Rules},
    window::Window,
};

/// Builds a [`BreakerLayer`].
#[derive(Clone)]
#[must_use]
pub struct BreakerBuilder {
    rules: Rules,
    slow_rate: Option<f64>,
    slow_first_token: Option<Duration>,
    slow_answer: Option<Duration>,
    key_by: KeyBy,
    max_keys: usize,
    classify: Arc<dyn Classify>,
    overload_counts: bool,
    name: Option<Name>,
}

impl BreakerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            rules: Rules {
                window: Window::default(),
                failures: Failures::Fixed(0.5),
                slow_rate: None,
                consecutive: None,
                minimum_calls: 10,
                delay: OpenDelay::default(),
                probes: 1,
                probe_deadline: Duration::from_secs(30),
                forget_after: None,
            },
            slow_rate: None,
            slow_first_token: None,
            slow_answer: None,
            key_by: KeyBy::Global,
            max_keys: 10_000,
            classify: Arc::new(DefaultTable),
            overload_counts: true,
            name: None,
        }
    }

    /// Sets which calls a circuit is judged by; default [`Window::count(100)`](Window::count).
    pub fn window(mut self, window: Window) -> Self {
        self.rules.window = window;
        self
    }

    /// Sets from which share of failures in the window on the circuit opens, above 0 and up to 1;
    /// default 0.5. `None`: failures open it only by
    /// [`consecutive_failures`](Self::consecutive_failures).
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.rules.failures = rate.into().map_or(Failures::Ignored, Failures::Fixed);
        self
    }

    /// Opens the circuit when the share of failures departs from what is usual, instead of at a fixed
    /// [`failure_rate`](Self::failure_rate). Whichever of the two is set last counts.
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.rules.failures = Failures::Learned(adaptive);
        self
    }

    /// Counts a stream whose first token came later than `bound` as slow; default off. The time is
    /// that from sending to the commit point, as the call's ledger has it, and from admission where
    /// nobody stamped it.
    pub fn slow_first_token(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.slow_first_token = bound.into();
        self
    }

    /// Counts an answer that comes whole, and took longer than `bound` to come, as slow; default off.
    /// It has no first token that could be timed, and its time grows with its length.
    pub fn slow_answer(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.slow_answer = bound.into();
        self
    }

    /// Sets from which share of slow calls in the window on the circuit opens, above 0 and up to 1;
    /// default 0.8 where there is a bound for slow calls.
    pub fn slow_rate(mut self, rate: f64) -> Self {
        self.slow_rate = Some(rate);
        self
    }

    /// Opens the circuit when so many calls failed one after the other, however few there were;
    /// default off.
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.rules.consecutive = failures.into();
        self
    }

    /// Sets how many calls must be in the window before shares are judged; default 10. A window of
    /// fewer calls is judged when it is full. So are probes.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.rules.minimum_calls = calls;
        self
    }

    /// Sets how long the circuit stays open; default [`OpenDelay::default`].
    pub fn open_delay(mut self, delay: OpenDelay) -> Self {
        self.rules.delay = delay;
        self
    }

    /// Sets how many calls a half-open circuit lets pass to see how they come out, from 1 to 1,000;
    /// default 1.
    pub fn probes(mut self, probes: u32) -> Self {
        self.rules.probes = probes;
        self
    }

    /// Sets after how long a probe that has not ended gives up its place: it has passed if its first
    /// token came, else another one may go. Default 30 s.
    pub fn probe_deadline(mut self, deadline: Duration) -> Self {
        self.rules.probe_deadline = deadline;
        self
    }

    /// Forgets what is in the window of a closed circuit after so long without a call; default never.
    pub fn forget_after(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.rules.forget_after = idle.into();
        self
    }

    /// Sets what has a circuit of its own; default [`KeyBy::Global`], one for all calls.
    pub fn key_by(mut self, key_by: KeyBy) -> Self {
        self.key_by = key_by;
        self
    }

    /// Sets how many circuits are kept at most; default 10,000. Where there is no room for a new one,
    /// another is forgotten that was not used lately, and if possible one without failures and slow
    /// calls in its window. One that holds calls back is never forgotten; where all do, calls of a
    /// new key pass unjudged.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets what an error says of the target's health; default the table in
    /// [`Disposition`](donjon_core::Disposition).
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// Sets whether errors that say that the target has too much to do (429, 529) count as failures;
    /// default yes.
    pub fn overload_counts(mut self, counts: bool) -> Self {
        self.overload_counts = counts;
        self
    }

    /// Names the target in rejections, where the call itself does not.
    pub fn name(mut self, target: impl Into<Name>) -> Self {
        self.name = Some(target.into());
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A value that makes no sense; the error names it.
    pub fn build(mut self) -> Result<BreakerLayer, ConfigError> {
        let is_zero = |bound: Option<Duration>| bound.is_some_and(|bound| bound.is_zero());
        if is_zero(self.slow_first_token) {
            return Err(ConfigError::ZeroSlowFirstToken);
        }
        if is_zero(self.slow_answer) {
            return Err(ConfigError::ZeroSlowAnswer);
        }
        if self.max_keys == 0 {
            return Err(ConfigError::ZeroMaxKeys);
        }
        let bounded = self.slow_first_token.or(self.slow_answer).is_some();
        if self.slow_rate.is_some() && !bounded {
            return Err(ConfigError::SlowRateWithoutBound);
        }
        self.rules.slow_rate = bounded.then_some(self.slow_rate.unwrap_or(0.8));
        self.rules.check()?;
        let config = Config {
            rules: self.rules,
            classify: self.classify,
            overload_counts: self.overload_counts,
            slow_first_token: self.slow_first_token,
            slow_answer: self.slow_answer,
            name: self.name,
            events: Events::new(256),
            keyed: !matches!(self.key_by, KeyBy::Global),
            total: Total::default(),
            epoch: Instant::now(),
        };
        let breakers = Breakers::new(config, self.key_by, self.max_keys);
        Ok(BreakerLayer::new(Arc::new(breakers)))
    }
}

impl fmt::Debug for BreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerBuilder")
            .field("rules", &self.rules)
            .field("key_by", &self.key_by)
            .finish_non_exhaustive()
    }
}
