//! Building the preset stack.

use std::{error::Error, fmt, sync::RwLock, time::Duration};

use donjon_budget::{BudgetLayer, Budgets};
use donjon_cache::CacheLayer;
use donjon_circuit_breaker::{BreakerBuilder, BreakerLayer};
use donjon_core::{CommitLayer, LlmError, LlmRequest, LlmResponse, Name, shape::Gate};
use donjon_failover::{
    Failover, FailoverBuilder, HealthPolicy, Probes, Resume, Route, Target, WhenOut,
};
use donjon_hedge::HedgeLayer;
use donjon_pool::{PoolBuilder, PoolLayer};
use donjon_rate_limit::{RateLimitBuilder, RateLimitLayer};
use donjon_retry::RetryLayer;
use donjon_timeout::{DeadlineLayer, TimeoutLayer};
use donjon_token_count::TokenCountLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    cached::Cached,
    counted::Counted,
    hedged::Hedged,
    recipe::{OfTarget, Recipe},
    stack::{Handles, Stack, TargetHandles},
};

/// Builds the preset stack:
///
/// ```text
/// deadline → cache and single flight → token figure → rate limit (callers) → hedge → failover ┬ target 1
///                                                                                             └ target 2 …
/// each target:
/// retry → breaker (peek) → token count → budget → pool → rate limit (provider) → breaker (admit) → timeout
/// → commit → service
/// ```
///
/// Every layer has its own defaults until it is replaced. The budget of retries and the clocks are
/// shared by all targets; circuit, pool and provider's limits are each target's own. Cache, hedges,
/// token count, budgets, pools and limits are there where they are asked for; the token figure is there
/// where tokens are counted and callers limited. Layers that come later join the stack without a change
/// to the code that builds it.
#[derive(Debug)]
pub struct Preset<S> {
    targets: Vec<Target<S>>,
    failover: FailoverBuilder<OfTarget<S>>,
    total: Option<Duration>,
    cache: Option<CacheLayer>,
    callers: Option<RateLimitLayer>,
    hedge: Option<HedgeLayer>,
    recipe: Recipe,
}

impl<S> Preset<S> {
    /// Starts with the defaults and no target.
    pub fn new() -> Self {
        Self {
            targets: Vec::new(),
            failover: Failover::builder(),
            total: None,
            cache: None,
            callers: None,
            hedge: None,
            recipe: Recipe::default(),
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
        self.failover = self.failover.patience(patience);
        self
    }

    /// Which target is asked next; default [`Ordered`](donjon_failover::Ordered).
    #[must_use]
    pub fn route(mut self, route: impl Route + 'static) -> Self {
        self.failover = self.failover.route(route);
        self
    }

    /// Takes targets out whose calls go badly; default: none is ever taken out, and it is the circuits
    /// that keep calls from them.
    #[must_use]
    pub fn health(mut self, policy: HealthPolicy) -> Self {
        self.failover = self.failover.health(policy);
        self
    }

    /// How targets that have a [probe](Target::probe) are looked at.
    #[must_use]
    pub fn probes(mut self, probes: Probes) -> Self {
        self.failover = self.failover.probes(probes);
        self
    }

    /// What is done when no target is left but such as are out; default [`WhenOut::LeastBad`].
    #[must_use]
    pub fn when_out(mut self, when_out: WhenOut) -> Self {
        self.failover = self.failover.when_out(when_out);
        self
    }

    /// Over how long a latency fades to a third, for a route that goes by it; default 10 s.
    #[must_use]
    pub fn latency_decay(mut self, decay: Duration) -> Self {
        self.failover = self.failover.latency_decay(decay);
        self
    }

    /// How streams that break after their first token are continued, on targets that have not failed the
    /// call; default not at all: the caller is told. Each attempt goes through all layers of its target.
    #[must_use]
    pub fn resume(mut self, resume: impl Into<Option<Resume>>) -> Self
    where
        S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        self.failover = self.failover.resume(resume);
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
        self.recipe.tokens = tokens.into();
        self
    }

    /// What may be spent, by all targets together: each attempt is reserved and settled at the price of
    /// the target that takes it, found by the name of the model. Default none.
    #[must_use]
    pub fn budgets(mut self, budgets: impl Into<Option<Budgets>>) -> Self {
        self.recipe.budgets = budgets.into();
        self
    }

    /// The budget of one target, where it has to be said whose prices it has
    /// ([`BudgetLayer::provider`]).
    #[must_use]
    pub fn budget_of(mut self, target: impl Into<Name>, budget: BudgetLayer) -> Self {
        self.recipe.own.entry(target.into()).or_default().budget = Some(budget);
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

    /// When a second attempt is made beside one that is late, through the same targets: it asks another
    /// one while there is another. Default never. A call through a stack with hedges costs one allocation
    /// more.
    #[must_use]
    pub fn hedge(mut self, hedge: impl Into<Option<HedgeLayer>>) -> Self {
        self.hedge = hedge.into();
        self
    }

    /// How attempts are repeated.
    #[must_use]
    pub fn retry(mut self, retry: RetryLayer) -> Self {
        self.recipe.retry = retry;
        self
    }

    /// When a target is not asked any more; each gets a circuit of its own that is built so. Default
    /// [`BreakerLayer::builder`]; `None` for no circuits.
    #[must_use]
    pub fn breaker(mut self, breaker: impl Into<Option<BreakerBuilder>>) -> Self {
        self.recipe.breaker = breaker.into();
        self
    }

    /// The circuit of one target; a layer that several stacks share has one state for all of them.
    #[must_use]
    pub fn breaker_of(mut self, target: impl Into<Name>, breaker: BreakerLayer) -> Self {
        self.recipe.own.entry(target.into()).or_default().breaker = Some(breaker);
        self
    }

    /// How many calls a target has at a time; each gets a pool of its own that is built so. Default
    /// none: as many as come.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<Option<PoolBuilder>>) -> Self {
        self.recipe.pool = pool.into();
        self
    }

    /// The pool of one target.
    #[must_use]
    pub fn pool_of(mut self, target: impl Into<Name>, pool: PoolLayer) -> Self {
        self.recipe.own.entry(target.into()).or_default().pool = Some(pool);
        self
    }

    /// What a target may be asked in a time; each gets limits of its own that are built so. Default
    /// none. [`RateLimitLayer::learned`] for one target follows what its provider says.
    #[must_use]
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimitBuilder>>) -> Self {
        self.recipe.rate_limit = limit.into();
        self
    }

    /// The limits of one target.
    #[must_use]
    pub fn rate_limit_of(mut self, target: impl Into<Name>, limit: RateLimitLayer) -> Self {
        self.recipe.own.entry(target.into()).or_default().rate_limit = Some(limit);
        self
    }

    /// How long an attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: TimeoutLayer) -> Self {
        self.recipe.timeout = timeout;
        self
    }

    /// What commits a call.
    #[must_use]
    pub fn commit(mut self, commit: CommitLayer) -> Self {
        self.recipe.commit = commit;
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
            failover,
            total,
            cache,
            callers,
            hedge,
            recipe,
        } = self;
        let mut handles = Vec::with_capacity(targets.len());
        let mut stacked = Vec::with_capacity(targets.len());
        for target in targets {
            let (target, own) = recipe.stack(target)?;
            handles.push(own);
            stacked.push(target);
        }
        let known = |name: &Name| {
            handles
                .iter()
                .any(|own: &TargetHandles| own.target == *name)
        };
        if let Some(name) = recipe.own.keys().find(|name| !known(name)) {
            return Err(PresetError::new(UnknownTarget(*name)));
        }
        let failover = failover.targets(stacked);
        let failover = failover.build().map_err(PresetError::new)?;
        // The deadline is set outermost, where every wait knows it.
        let deadline = match total.or(recipe.timeout.timeouts().total) {
            Some(total) => DeadlineLayer::new(total).map_err(PresetError::new)?,
            None => DeadlineLayer::unlimited(),
        };
        let handles = Handles {
            failover: failover.handle(),
            retry: recipe.retry.handle(),
            timeout: recipe.timeout.handle(),
            cache: cache.as_ref().map(CacheLayer::handle),
            tokens: recipe.tokens.as_ref().map(TokenCountLayer::handle),
            budgets: recipe.budgets.as_ref().map(Budgets::handle),
            callers: callers.as_ref().map(RateLimitLayer::handle),
            hedge: hedge.as_ref().map(HedgeLayer::handle),
            targets: RwLock::new(handles),
        };
        let callers = callers.map(|callers| Counted::new(&callers, recipe.tokens.as_ref()));
        let hedged = Hedged::new(failover.clone(), hedge.as_ref());
        let cached = Cached::new(Gate::new(hedged, callers), cache.as_ref());
        let inner = deadline.layer(cached);
        Ok(Stack::new(inner, handles, failover, recipe))
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
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }

    /// The error of the layer concerned, such as [`donjon_failover::ConfigError`], to be told apart by
    /// its type.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
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
