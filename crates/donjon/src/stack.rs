//! The preset stack as one type, so that its users do not see which layers it has.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{self, Poll},
};

use donjon_budget::BudgetHandle;
use donjon_cache::CacheHandle;
use donjon_circuit_breaker::BreakerHandle;
use donjon_core::{
    Figure, Labelled, LlmError, LlmRequest, LlmResponse, Name, Snapshot, shape::Gate,
};
use donjon_failover::{Failover, FailoverHandle, Target, UnknownTarget};
use donjon_hedge::HedgeHandle;
use donjon_pool::PoolHandle;
use donjon_rate_limit::RateLimitHandle;
use donjon_retry::RetryHandle;
use donjon_timeout::{Deadline, TimeoutHandle};
use donjon_token_count::TokenHandle;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    cached::Cached,
    counted::Counted,
    hedged::Hedged,
    preset::PresetError,
    recipe::{OfTarget, Recipe},
};

type Inner<S> = Deadline<Cached<Gate<Hedged<Failover<OfTarget<S>>>, Option<Counted>>>>;

/// The preset stack around the targets of a [`Preset`](crate::Preset): always ready, cheap to clone.
pub struct Stack<S> {
    inner: Inner<S>,
    shared: Arc<Shared<S>>,
}

/// What clones of a stack share beside what its layers do.
struct Shared<S> {
    handles: Arc<Handles>,
    failover: Failover<OfTarget<S>>,
    recipe: Recipe,
}

/// The handles of a stack's layers.
pub(crate) struct Handles {
    pub(crate) failover: FailoverHandle,
    pub(crate) retry: RetryHandle,
    pub(crate) timeout: TimeoutHandle,
    pub(crate) cache: Option<CacheHandle>,
    pub(crate) tokens: Option<TokenHandle>,
    pub(crate) budgets: Option<BudgetHandle>,
    pub(crate) callers: Option<RateLimitHandle>,
    pub(crate) hedge: Option<HedgeHandle>,
    pub(crate) targets: RwLock<Vec<TargetHandles>>,
}

impl Handles {
    fn targets(&self) -> Vec<TargetHandles> {
        let targets = self.targets.read();
        targets.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The handles of what one target has of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetHandles {
    /// Its name.
    pub target: Name,
    /// Its circuit.
    pub breaker: Option<BreakerHandle>,
    /// Its pool.
    pub pool: Option<PoolHandle>,
    /// Its limits.
    pub rate_limit: Option<RateLimitHandle>,
}

impl<S> Stack<S> {
    pub(crate) fn new(
        inner: Inner<S>,
        handles: Handles,
        failover: Failover<OfTarget<S>>,
        recipe: Recipe,
    ) -> Self {
        let shared = Shared {
            handles: Arc::new(handles),
            failover,
            recipe,
        };
        Self {
            inner,
            shared: Arc::new(shared),
        }
    }

    /// Reads and controls the targets.
    pub fn failover(&self) -> &FailoverHandle {
        &self.shared.handles.failover
    }

    /// Reads and controls the retries.
    pub fn retry(&self) -> &RetryHandle {
        &self.shared.handles.retry
    }

    /// Reads the clocks.
    pub fn timeout(&self) -> &TimeoutHandle {
        &self.shared.handles.timeout
    }

    /// Reads and controls what was answered before, where that is kept.
    pub fn cache(&self) -> Option<&CacheHandle> {
        self.shared.handles.cache.as_ref()
    }

    /// Reads what is known of tokens, where they are counted.
    pub fn tokens(&self) -> Option<&TokenHandle> {
        self.shared.handles.tokens.as_ref()
    }

    /// Reads and controls what may be spent, where that is limited.
    pub fn budgets(&self) -> Option<&BudgetHandle> {
        self.shared.handles.budgets.as_ref()
    }

    /// Reads and controls what each caller may use, where that is limited.
    pub fn caller_limit(&self) -> Option<&RateLimitHandle> {
        self.shared.handles.callers.as_ref()
    }

    /// Reads and controls the hedges, where there are any.
    pub fn hedge(&self) -> Option<&HedgeHandle> {
        self.shared.handles.hedge.as_ref()
    }

    /// Reads and controls what each target has of its own, in their order.
    pub fn targets(&self) -> Vec<TargetHandles> {
        self.shared.handles.targets()
    }

    /// Reads and controls what the target named `name` has of its own.
    pub fn target(&self, name: &str) -> Option<TargetHandles> {
        let mut targets = self.targets().into_iter();
        targets.find(|of| of.target == *name)
    }

    /// The figures of every layer, those of a target's own with its name. The stack can serve while
    /// one of its targets can. Of a target that is [put](Self::put) later, what it has of its own is among
    /// those that are asked for from then on.
    pub fn snapshots(&self) -> Vec<Arc<dyn Snapshot>> {
        let handles = &self.shared.handles;
        let mut all: Vec<Arc<dyn Snapshot>> = vec![
            Arc::new(handles.failover.clone()),
            Arc::new(handles.retry.clone()),
            Arc::new(handles.timeout.clone()),
            Arc::new(Targets(handles.clone())),
        ];
        if let Some(cache) = &handles.cache {
            all.push(Arc::new(cache.clone()));
            if let Some(flights) = cache.single_flight() {
                all.push(Arc::new(flights.clone()));
            }
        }
        if let Some(tokens) = &handles.tokens {
            all.push(Arc::new(tokens.clone()));
        }
        if let Some(budgets) = &handles.budgets {
            all.push(Arc::new(budgets.clone()));
        }
        if let Some(callers) = &handles.callers {
            all.push(Arc::new(Labelled::new("of", "callers", callers.clone())));
        }
        if let Some(hedge) = &handles.hedge {
            all.push(Arc::new(hedge.clone()));
        }
        for of in handles.targets() {
            if let Some(breaker) = &of.breaker {
                all.push(of_target(of.target, breaker.clone()));
            }
            if let Some(pool) = &of.pool {
                all.push(of_target(of.target, pool.clone()));
            }
            if let Some(limit) = &of.rate_limit {
                all.push(of_target(of.target, limit.clone()));
            }
        }
        all
    }
}

fn of_target(target: Name, handle: impl Snapshot + 'static) -> Arc<dyn Snapshot> {
    Arc::new(Labelled::new("target", target.as_str(), handle).without_health())
}

/// Whether any target can serve, as far as their own layers can tell.
struct Targets(Arc<Handles>);

impl Targets {
    fn serving(&self) -> usize {
        let targets = self.0.targets().into_iter();
        let serves = |of: &TargetHandles| of.breaker.as_ref().is_none_or(|b| b.health().is_ok());
        targets.filter(serves).count()
    }
}

impl Snapshot for Targets {
    fn layer(&self) -> &'static str {
        "stack"
    }

    fn figures(&self) -> Vec<Figure> {
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let serving = self.serving() as f64;
        vec![Figure::gauge("targets_serving", serving)]
    }

    fn health(&self) -> Result<(), String> {
        if self.serving() > 0 {
            return Ok(());
        }
        Err("the circuits of all targets are open".into())
    }
}

impl<S> Stack<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    /// Calls it, which it is always ready for, without a `&mut`.
    pub fn send(&self, request: LlmRequest) -> StackFuture<S> {
        // A stack is always ready and its clone is one reference count.
        self.clone().call(request)
    }
}

/// While it runs. Calls in progress notice nothing: they have the targets as they were.
impl<S: Clone> Stack<S> {
    /// Adds a target, with a stack of its own as all have; or puts it in the place of the one that has its
    /// name, whose calls go on, and whose circuit, pool and limits begin anew but for those that were set
    /// for the name.
    ///
    /// # Errors
    ///
    /// The target makes no sense.
    pub fn put(&self, target: Target<S>) -> Result<(), PresetError> {
        let Shared {
            handles,
            failover,
            recipe,
        } = &*self.shared;
        let (target, own) = recipe.stack(target)?;
        let targets = handles.targets.write();
        let mut targets = targets.unwrap_or_else(PoisonError::into_inner);
        failover.put(target).map_err(PresetError::new)?;
        match targets.iter_mut().find(|of| of.target == own.target) {
            Some(known) => *known = own,
            None => targets.push(own),
        }
        Ok(())
    }

    /// Takes a target away. Calls that it has go on.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn remove(&self, name: &str) -> Result<(), UnknownTarget> {
        let targets = self.shared.handles.targets.write();
        let mut targets = targets.unwrap_or_else(PoisonError::into_inner);
        self.shared.failover.remove(name)?;
        targets.retain(|of| of.target != *name);
        Ok(())
    }
}

impl<S> Service<LlmRequest> for Stack<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = StackFuture<S>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: LlmRequest) -> StackFuture<S> {
        StackFuture {
            inner: self.inner.call(request),
        }
    }
}

impl<S> Clone for Stack<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S> fmt::Debug for Stack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("failover", self.failover())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a [`Stack`].
    pub struct StackFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S: Clone,
        S: Send,
        S: Sync,
        S: 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        #[pin]
        inner: <Inner<S> as Service<LlmRequest>>::Future,
    }
}

impl<S> Future for StackFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S> fmt::Debug for StackFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StackFuture")
    }
}
