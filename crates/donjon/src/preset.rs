//! Building the preset stack.

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use donjon_budget::{BudgetLayer, Budgets};
use donjon_cache::CacheLayer;
use donjon_circuit_breaker::{BreakerBuilder, BreakerLayer};
use donjon_core::{
    CommitLayer, Name,
    shape::{CheckService, Gate},
};
use donjon_failover::{Failover, Target};
use donjon_pool::{PoolBuilder, PoolLayer};
use donjon_rate_limit::{RateLimitBuilder, RateLimitLayer};
use donjon_retry::RetryLayer;
use donjon_timeout::{DeadlineLayer, TimeoutLayer};
use donjon_token_count::TokenCountLayer;
use tower_layer::Layer;

use crate::{
    cached::Cached,
    counted::Counted,
    stack::{Handles, Stack, TargetHandles},
};

/// Builds the preset stack:
///
/// ```text
/// deadline → cache and single flight → token figure → rate limit (callers) → failover ┬ target 1
///                                                                                     └ target 2 …
/// each target:
/// retry → breaker (peek) → token count → budget → pool → rate limit (provider) → breaker (admit) → timeout
/// → commit → service
/// ```
///
/// Every layer has its own defaults until it is replaced. The budget of retries and the clocks are
/// shared by all targets; circuit, pool and provider's limits are each target's own. Cache, token
/// count, budgets, pools and limits are there where they are asked for; the token figure is there where
/// tokens are counted and callers limited. Layers that come later join the stack without a change to
/// the code that builds it.
#[derive(Debug)]
pub struct Preset<S> {
    targets: Vec<Target<S>>,
    total: Option<Duration>,
    patience: Option<Duration>,
    cache: Option<CacheLayer>,
    tokens: Option<TokenCountLayer>,
    budgets: Option<Budgets>,
    callers: Option<RateLimitLayer>,
    retry: RetryLayer,
    breaker: Option<BreakerBuilder>,
    pool: Option<PoolBuilder>,
    rate_limit: Option<RateLimitBuilder>,
    own: HashMap<Name, Own>,
    timeout: TimeoutLayer,
    commit: CommitLayer,
}

/// What one target has instead of what all have.
#[derive(Debug, Default)]
struct Own {
    breaker: Option<BreakerLayer>,
    pool: Option<PoolLayer>,
    rate_limit: Option<RateLimitLayer>,
    budget: Option<BudgetLayer>,
}

impl<S> Preset<S> {
    /// Starts with the defaults and no target.
    pub fn new() -> Self {
        Self {
            targets: Vec::new(),
            total: None,
            patience: None,
            cache: None,
            tokens: None,
            budgets: None,
            callers: None,
            retry: RetryLayer::default(),
            breaker: Some(BreakerLayer::builder()),
            pool: None,
            rate_limit: None,
            own: HashMap::new(),
            timeout: TimeoutLayer::default(),
            commit: CommitLayer::new(),
        }
    }

    /// Adds a target; they are asked in the order in which they are added.
    #[must_use]
    pub fn target(mut self, target: Target<S>) -> Self {
        self.targets.push(target);
        self
    }

    /// How long the whole call may take; default the total of the [timeout](Self::timeout) layer,
    /// 10 min.
    #[must_use]
    pub fn total_timeout(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// The longest wait while another target is untried; default 2 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// What was answered before, and what others ask at the same time: a hit costs nothing below, not
    /// even of the caller's own limits. Default none.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Option<CacheLayer>>) -> Self {
        self.cache = cache.into();
        self
    }

    /// How tokens are counted, at each target for the model that is to serve: for limits and budgets, and
    /// to refuse what cannot fit the model, so that a larger one is asked. Limits of
    /// [callers](Self::caller_limit) see what the model counts that is asked for. Default not at all.
    #[must_use]
    pub fn token_count(mut self, tokens: impl Into<Option<TokenCountLayer>>) -> Self {
        self.tokens = tokens.into();
        self
    }

    /// What may be spent, by all targets together: each attempt is reserved and settled at the price of
    /// the target that takes it, found by the name of the model. Default none.
    #[must_use]
    pub fn budgets(mut self, budgets: impl Into<Option<Budgets>>) -> Self {
        self.budgets = budgets.into();
        self
    }

    /// The budget of one target, where it has to be said whose prices it has
    /// ([`BudgetLayer::provider`]).
    #[must_use]
    pub fn budget_of(mut self, target: impl Into<Name>, budget: BudgetLayer) -> Self {
        self.own.entry(target.into()).or_default().budget = Some(budget);
        self
    }

    /// What each caller may use, by tenant or user: a limit built with
    /// [`for_callers`](RateLimitBuilder::for_callers), outside of failover, so that a refusal is final
    /// and a call is charged once. Default none.
    #[must_use]
    pub fn caller_limit(mut self, limit: impl Into<Option<RateLimitLayer>>) -> Self {
        self.callers = limit.into();
        self
    }

    /// How attempts are repeated.
    #[must_use]
    pub fn retry(mut self, retry: RetryLayer) -> Self {
        self.retry = retry;
        self
    }

    /// When a target is not asked any more; each gets a circuit of its own that is built so. Default
    /// [`BreakerLayer::builder`]; `None` for no circuits.
    #[must_use]
    pub fn breaker(mut self, breaker: impl Into<Option<BreakerBuilder>>) -> Self {
        self.breaker = breaker.into();
        self
    }

    /// The circuit of one target; a layer that several stacks share has one state for all of them.
    #[must_use]
    pub fn breaker_of(mut self, target: impl Into<Name>, breaker: BreakerLayer) -> Self {
        self.own.entry(target.into()).or_default().breaker = Some(breaker);
        self
    }

    /// How many calls a target has at a time; each gets a pool of its own that is built so. Default
    /// none: as many as come.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<Option<PoolBuilder>>) -> Self {
        self.pool = pool.into();
        self
    }

    /// The pool of one target.
    #[must_use]
    pub fn pool_of(mut self, target: impl Into<Name>, pool: PoolLayer) -> Self {
        self.own.entry(target.into()).or_default().pool = Some(pool);
        self
    }

    /// What a target may be asked in a time; each gets limits of its own that are built so. Default
    /// none. [`RateLimitLayer::learned`] for one target follows what its provider says.
    #[must_use]
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimitBuilder>>) -> Self {
        self.rate_limit = limit.into();
        self
    }

    /// The limits of one target.
    #[must_use]
    pub fn rate_limit_of(mut self, target: impl Into<Name>, limit: RateLimitLayer) -> Self {
        self.own.entry(target.into()).or_default().rate_limit = Some(limit);
        self
    }

    /// How long an attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: TimeoutLayer) -> Self {
        self.timeout = timeout;
        self
    }

    /// What commits a call.
    #[must_use]
    pub fn commit(mut self, commit: CommitLayer) -> Self {
        self.commit = commit;
        self
    }

    /// The stack.
    ///
    /// # Errors
    ///
    /// What makes no sense, with the name of its field.
    pub fn build(self) -> Result<Stack<S>, PresetError> {
        let Self {
            targets,
            total,
            patience,
            cache,
            tokens,
            budgets,
            callers,
            retry,
            breaker,
            pool,
            rate_limit,
            mut own,
            timeout,
            commit,
        } = self;
        let mut handles = Vec::with_capacity(targets.len());
        let mut stacked = Vec::with_capacity(targets.len());
        for target in targets {
            let name = target.name();
            let own = own.remove(&name).unwrap_or_default();
            let breaker = match (own.breaker, &breaker) {
                (None, Some(all)) => {
                    Some(all.clone().name(name).build().map_err(PresetError::new)?)
                }
                (own, _) => own,
            };
            let pool = match (own.pool, &pool) {
                (None, Some(all)) => Some(all.clone().build().map_err(PresetError::new)?),
                (own, _) => own,
            };
            let limit = match (own.rate_limit, &rate_limit) {
                (None, Some(all)) => Some(all.clone().build().map_err(PresetError::new)?),
                (own, _) => own,
            };
            let budget = own.budget.or_else(|| budgets.as_ref().map(Budgets::layer));
            handles.push(TargetHandles {
                target: name,
                breaker: breaker.as_ref().map(BreakerLayer::handle),
                pool: pool.as_ref().map(PoolLayer::handle),
                rate_limit: limit.as_ref().map(RateLimitLayer::handle),
            });
            stacked.push(target.map_service(|service| {
                let attempt = timeout.layer(commit.layer(service));
                let admit = breaker.as_ref().map(|breaker| breaker.admit().check());
                let admitted = CheckService::new(attempt, admit);
                let limited = Gate::new(admitted, limit.map(|limit| limit.admitter()));
                let pooled = Gate::new(limited, pool.map(|pool| pool.admitter()));
                let paid = CheckService::new(pooled, budget.map(|budget| budget.check()));
                let counter = tokens.as_ref().map(TokenCountLayer::check);
                let counted = CheckService::new(paid, counter);
                let peek = breaker.map(|breaker| breaker.peek().check());
                retry.layer(CheckService::new(counted, peek))
            }));
        }
        if let Some(name) = own.into_keys().next() {
            return Err(PresetError::new(UnknownTarget(name)));
        }
        let mut failover = Failover::builder().targets(stacked);
        if let Some(patience) = patience {
            failover = failover.patience(patience);
        }
        let failover = failover.build().map_err(PresetError::new)?;
        // The deadline is set outermost, where every wait knows it.
        let deadline = match total.or(timeout.timeouts().total) {
            Some(total) => DeadlineLayer::new(total).map_err(PresetError::new)?,
            None => DeadlineLayer::unlimited(),
        };
        let handles = Handles {
            failover: failover.handle(),
            retry: retry.handle(),
            timeout: timeout.handle(),
            cache: cache.as_ref().map(CacheLayer::handle),
            tokens: tokens.as_ref().map(TokenCountLayer::handle),
            budgets: budgets.as_ref().map(Budgets::handle),
            callers: callers.as_ref().map(RateLimitLayer::handle),
            targets: handles,
        };
        let callers = callers.map(|callers| Counted::new(&callers, tokens.as_ref()));
        let cached = Cached::new(Gate::new(failover, callers), cache.as_ref());
        Ok(Stack::new(deadline.layer(cached), handles))
    }
}

impl<S> Default for Preset<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// What makes no sense in a preset, in the words of the layer concerned.
#[derive(Debug)]
pub struct PresetError(Box<dyn Error + Send + Sync>);

impl PresetError {
    fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for PresetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for PresetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Something was set for a target that there is not.
#[derive(Debug)]
struct UnknownTarget(Name);

impl fmt::Display for UnknownTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no target is named `{}`", self.0)
    }
}

impl Error for UnknownTarget {}
