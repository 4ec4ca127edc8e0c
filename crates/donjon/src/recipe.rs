//! What stands before each target.

use std::collections::HashMap;

use donjon_budget::{BudgetCheck, BudgetLayer, Budgets};
use donjon_circuit_breaker::{Admit, BreakerBuilder, BreakerLayer, Peek};
use donjon_core::{
    Commit, CommitLayer, Name,
    shape::{CheckService, Gate},
};
use donjon_failover::Target;
use donjon_pool::{Admitter, PoolBuilder, PoolLayer};
use donjon_rate_limit::{Limiter, RateLimitBuilder, RateLimitLayer};
use donjon_retry::{Retry, RetryLayer};
use donjon_timeout::{Timeout, TimeoutLayer};
use donjon_token_count::{TokenCountLayer, TokenCounter};
use tower_layer::Layer;

use crate::{preset::PresetError, stack::TargetHandles};

/// From the inside out.
type Attempt<S> = CheckService<Timeout<Commit<S>>, Option<Admit>>;
type Queued<S> = Gate<Gate<Attempt<S>, Option<Limiter>>, Option<Admitter>>;
type Paid<S> = CheckService<Queued<S>, Option<BudgetCheck>>;
type Counted<S> = CheckService<Paid<S>, Option<TokenCounter>>;
pub(crate) type OfTarget<S> = Retry<CheckService<Counted<S>, Option<Peek>>>;

/// How the stack of a target is built, of those that are added later, too.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) tokens: Option<TokenCountLayer>,
    pub(crate) budgets: Option<Budgets>,
    pub(crate) retry: RetryLayer,
    pub(crate) breaker: Option<BreakerBuilder>,
    pub(crate) pool: Option<PoolBuilder>,
    pub(crate) rate_limit: Option<RateLimitBuilder>,
    pub(crate) own: HashMap<Name, Own>,
    pub(crate) timeout: TimeoutLayer,
    pub(crate) commit: CommitLayer,
}

/// What one target has instead of what all have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub(crate) breaker: Option<BreakerLayer>,
    pub(crate) pool: Option<PoolLayer>,
    pub(crate) rate_limit: Option<RateLimitLayer>,
    pub(crate) budget: Option<BudgetLayer>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            tokens: None,
            budgets: None,
            retry: RetryLayer::default(),
            breaker: Some(BreakerLayer::builder()),
            pool: None,
            rate_limit: None,
            own: HashMap::new(),
            timeout: TimeoutLayer::default(),
            commit: CommitLayer::new(),
        }
    }
}

impl Recipe {
    /// Puts its layers around a target.
    pub(crate) fn stack<S>(
        &self,
        target: Target<S>,
    ) -> Result<(Target<OfTarget<S>>, TargetHandles), PresetError> {
        let name = target.name();
        let own = self.own.get(&name).cloned().unwrap_or_default();
        let breaker = match (own.breaker, &self.breaker) {
            (None, Some(all)) => Some(all.clone().name(name).build().map_err(PresetError::new)?),
            (own, _) => own,
        };
        let pool = match (own.pool, &self.pool) {
            (None, Some(all)) => Some(all.clone().build().map_err(PresetError::new)?),
            (own, _) => own,
        };
        let limit = match (own.rate_limit, &self.rate_limit) {
            (None, Some(all)) => Some(all.clone().build().map_err(PresetError::new)?),
            (own, _) => own,
        };
        let budget = own
            .budget
            .or_else(|| self.budgets.as_ref().map(Budgets::layer));
        let handles = TargetHandles {
            target: name,
            breaker: breaker.as_ref().map(BreakerLayer::handle),
            pool: pool.as_ref().map(PoolLayer::handle),
            rate_limit: limit.as_ref().map(RateLimitLayer::handle),
        };
        let stacked = target.map_service(|service| {
            let attempt = self.timeout.layer(self.commit.layer(service));
            let admit = breaker.as_ref().map(|breaker| breaker.admit().check());
            let admitted = CheckService::new(attempt, admit);
            let limited = Gate::new(admitted, limit.map(|limit| limit.admitter()));
            let pooled = Gate::new(limited, pool.map(|pool| pool.admitter()));
            let paid = CheckService::new(pooled, budget.map(|budget| budget.check()));
            let counter = self.tokens.as_ref().map(TokenCountLayer::check);
            let counted = CheckService::new(paid, counter);
            let peek = breaker.map(|breaker| breaker.peek().check());
            self.retry.layer(CheckService::new(counted, peek))
        });
        Ok((stacked, handles))
    }
}
