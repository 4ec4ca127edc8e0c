//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, Estimate, KeyBy, Keyed, LlmRequest, Scope, shape::Gate};
use tower_layer::Layer;

use crate::{
    admit::Limiter,
    error::ConfigError,
    handle::RateLimitHandle,
    limit::{Limit, Weight},
    local::InMemory,
    meter::Store,
    policy::{Classifier, Overflow, Policy, WeighAll, WhenFull},
    quota::{Quota, Quotas},
    service::RateLimit,
    state::Shared,
    window::MOST,
};

/// Lets calls pass as the limits allow; see the [crate](crate).
///
/// All services that one layer and its clones make share its limits, its queues and its figures.
pub struct RateLimitLayer<St: Store = InMemory> {
    shared: Arc<Shared<St>>,
}

impl RateLimitLayer {
    /// Builds a layer with limits.
    pub fn builder() -> RateLimitBuilder {
        RateLimitBuilder {
            limits: Vec::new(),
            key_by: KeyBy::Global,
            max_keys: 10_000,
            when_full: WhenFull::default(),
            min_spacing: Duration::ZERO,
            overflow: Overflow::default(),
            max_wait: None,
            max_queue: 10_000,
            scope: Scope::Target,
            learn: None,
            weigh: None,
            default_estimate: Estimate::new(500, 500),
            classifier: Classifier::default(),
            store: InMemory,
        }
    }

    /// A layer that knows no limits but those that the provider tells of.
    pub fn learned() -> Self {
        match Self::builder().learn(true).build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("there is something to learn"),
        }
    }
}

impl<St: Store> RateLimitLayer<St> {
    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> RateLimitHandle<St> {
        RateLimitHandle::new(self.shared.clone())
    }

    /// What admits calls, to be put into a [`Gate`] of your own; [`layer`](Layer::layer) does that.
    pub fn admitter(&self) -> Limiter<St> {
        Limiter::new(self.shared.clone())
    }
}

impl<S, St: Store> Layer<S> for RateLimitLayer<St> {
    type Service = RateLimit<S, St>;

    fn layer(&self, inner: S) -> RateLimit<S, St> {
        Gate::new(inner, self.admitter())
    }
}

impl<St: Store> Clone for RateLimitLayer<St> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<St: Store> fmt::Debug for RateLimitLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("shared", &self.shared)
            .finish()
    }
}

/// Builds a [`RateLimitLayer`].
#[derive(Clone)]
#[must_use]
pub struct RateLimitBuilder<St: Store = InMemory> {
    limits: Vec<Limit>,
    key_by: KeyBy,
    max_keys: usize,
    when_full: WhenFull,
    min_spacing: Duration,
    overflow: Overflow,
    max_wait: Option<Duration>,
    max_queue: usize,
    scope: Scope,
    learn: Option<bool>,
    weigh: Option<WeighAll>,
    default_estimate: Estimate,
    classifier: Classifier,
    store: St,
}

impl<St: Store> RateLimitBuilder<St> {
    /// Adds a limit. A call must fit into all of them.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets what is limited apart from what; default [`KeyBy::Global`], one state for all.
    pub fn key_by(mut self, key_by: KeyBy) -> Self {
        self.key_by = key_by;
        self
    }

    /// Sets how many keys are known at a time; default 10,000. Each takes about 800 bytes with one
    /// limit, and with several about 800 and 560 for each of them.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets what becomes of a new key when `max_keys` are in use; default [`WhenFull::Forget`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets the least time between two requests of a key; default zero.
    pub fn min_spacing(mut self, spacing: Duration) -> Self {
        self.min_spacing = spacing;
        self
    }

    /// Sets what becomes of a call that does not fit now; default [`Overflow::Wait`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets how long a call waits at most. Default: as long as its deadline and its patience allow.
    /// What will have to wait longer is refused at once.
    pub fn max_wait(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.max_wait = wait.into();
        self
    }

    /// Sets how many calls wait at most for each key; default 10,000.
    pub fn max_queue(mut self, calls: usize) -> Self {
        self.max_queue = calls;
        self
    }

    /// Makes these limits of those who call, not of a provider: a refusal concerns the caller
    /// ([`Scope::Caller`]), and so is never retried and never failed over; and nothing is learned
    /// from hints unless [`learn`](Self::learn) says so.
    pub fn for_callers(mut self) -> Self {
        self.scope = Scope::Caller;
        self
    }

    /// Sets whether what the provider says of its limits counts, with answers and with errors;
    /// default yes, and no with [`for_callers`](Self::for_callers). It only makes limits tighter.
    /// Without any `limit`, what the provider says is all that limits.
    pub fn learn(mut self, learn: bool) -> Self {
        self.learn = Some(learn);
        self
    }

    /// Sets how much each request weighs, instead of one request and the tokens of
    /// [`Call::estimate`](donjon_core::Call::estimate).
    pub fn weigh(mut self, weigh: impl Fn(&LlmRequest) -> Weight + Send + Sync + 'static) -> Self {
        self.weigh = Some(Arc::new(weigh));
        self
    }

    /// Sets how many tokens a request is taken for whose tokens nobody counted; default 500 of prompt
    /// and 500 of answer. It is never taken for more than a whole limit.
    pub fn default_estimate(mut self, estimate: Estimate) -> Self {
        self.default_estimate = estimate;
        self
    }

    /// Sets which errors say that the provider has too much to do, so that nobody is admitted until its
    /// hint; default the table in [`Disposition`](donjon_core::Disposition).
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.classifier = Classifier(Arc::new(classify));
        self
    }

    /// Sets where the state lives; default [`InMemory`].
    pub fn store<T: Store>(self, store: T) -> RateLimitBuilder<T> {
        RateLimitBuilder {
            limits: self.limits,
            key_by: self.key_by,
            max_keys: self.max_keys,
            when_full: self.when_full,
            min_spacing: self.min_spacing,
            overflow: self.overflow,
            max_wait: self.max_wait,
            max_queue: self.max_queue,
            scope: self.scope,
            learn: self.learn,
            weigh: self.weigh,
            default_estimate: self.default_estimate,
            classifier: self.classifier,
            store,
        }
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// No limit at all, one of zero, two of the same unit over the same window, a window or a burst
    /// that makes no sense, a bound of zero.
    pub fn build(self) -> Result<RateLimitLayer<St>, ConfigError> {
        let learn = self.learn.unwrap_or(self.scope != Scope::Caller);
        let quotas = quotas(self.limits, self.learn == Some(true), self.min_spacing)?;
        if self.max_keys == 0 {
            return Err(ConfigError::ZeroMaxKeys);
        }
        if self.max_queue == 0 {
            return Err(ConfigError::ZeroMaxQueue);
        }
        let policy = Policy {
            key_by: self.key_by,
            overflow: self.overflow,
            max_wait: self.max_wait,
            max_queue: self.max_queue,
            scope: self.scope,
            learn,
            weigh: self.weigh,
            default_estimate: self.default_estimate,
        };
        let quotas = Quotas::new(quotas, self.min_spacing);
        let keys = Keyed::new(self.max_keys);
        let shared = Shared::new(
            self.store,
            quotas,
            policy,
            keys,
            (self.classifier, self.when_full),
        );
        Ok(RateLimitLayer {
            shared: Arc::new(shared),
        })
    }
}

/// The limits that are configured, or else those that can be learned.
fn quotas(limits: Vec<Limit>, learn: bool, spacing: Duration) -> Result<Vec<Quota>, ConfigError> {
    if limits.is_empty() {
        if learn {
            let all = [
                Limit::requests(MOST),
                Limit::tokens(MOST),
                Limit::input_tokens(MOST),
                Limit::output_tokens(MOST),
            ];
            return Ok(all.map(Quota::learned).into());
        }
        if spacing.is_zero() {
            return Err(ConfigError::NoLimit);
        }
    }
    for (at, limit) in limits.iter().enumerate() {
        let same = |other: &Limit| other.unit == limit.unit && other.window == limit.window;
        if limits[..at].iter().any(same) {
            return Err(ConfigError::Twice(limit.clone()));
        }
    }
    limits.into_iter().map(Quota::new).collect()
}

impl<St: Store> fmt::Debug for RateLimitBuilder<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBuilder")
            .field("limits", &self.limits)
            .field("key_by", &self.key_by)
            .field("overflow", &self.overflow)
            .finish_non_exhaustive()
    }
}
