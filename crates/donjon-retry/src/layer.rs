//! The layer and its builder.

use std::{fmt, sync::Arc};

use donjon_core::{Classify, DefaultTable, ErrorKind};
use tower_layer::Layer;

use crate::{
    backoff::Backoff,
    budget::RetryBudget,
    error::ConfigError,
    handle::{RetryHandle, State},
    policy::{KindPolicy, Policy, Rule},
    service::Retry,
};

/// Asks the same target again where that can help; see the [crate](crate).
///
/// All services that one layer and its clones make share its budget, its bound on parked calls and
/// its figures.
pub struct RetryLayer<C = DefaultTable> {
    shared: Arc<Shared<C>>,
}

/// What a layer and its services share.
pub(crate) struct Shared<C> {
    pub(crate) classify: C,
    pub(crate) policy: Policy,
    pub(crate) state: Arc<State>,
}

impl RetryLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            classify: DefaultTable,
            rule: Rule {
                max_attempts: 3,
                backoff: Backoff::default(),
            },
            kinds: Vec::new(),
            total_attempts: None,
            max_parked: 1_000,
            budget: None,
            adaptive: false,
        }
    }
}

/// Three attempts a target, exponential backoff from 500 ms up to 8 s with full jitter, a budget of
/// one retry for five requests, at most 1,000 calls parked.
impl Default for RetryLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<C> RetryLayer<C> {
    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> RetryHandle {
        RetryHandle::new(self.shared.state.clone())
    }
}

impl<S, C> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Retry<S, C> {
        Retry::new(inner, self.shared.clone())
    }
}

impl<C> Clone for RetryLayer<C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<C> fmt::Debug for RetryLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.shared.policy)
            .field("budget", &self.shared.state.budget)
            .finish_non_exhaustive()
    }
}

/// Builds a [`RetryLayer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryBuilder<C = DefaultTable> {
    classify: C,
    rule: Rule,
    kinds: Vec<(ErrorKind, KindPolicy)>,
    total_attempts: Option<u32>,
    max_parked: usize,
    budget: Option<RetryBudget>,
    adaptive: bool,
}

impl<C: Classify> RetryBuilder<C> {
    /// Sets how many attempts each target gets, the first included; default 3. 1 means no retry.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.rule.max_attempts = attempts;
        self
    }

    /// Caps the attempts of the whole call, over all of its targets. Default: those of one target,
    /// and one for each further target.
    pub fn total_attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.total_attempts = attempts.into();
        self
    }

    /// Sets how long to wait before each further attempt where the server does not say; default
    /// [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.rule.backoff = backoff;
        self
    }

    /// Sets what differs for errors of one kind; default nothing. The last one given for a kind
    /// counts.
    pub fn for_kind(mut self, kind: ErrorKind, policy: KindPolicy) -> Self {
        self.kinds.push((kind, policy));
        self
    }

    /// Sets the budget of retries, which other layers may share; default [`RetryBudget::default`]
    /// of the layer's own.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets how many calls may wait for their next attempt at a time; default 1,000. The error of
    /// one more is handed on at once.
    pub fn max_parked(mut self, calls: usize) -> Self {
        self.max_parked = calls;
        self
    }

    /// Sets whether the rate of attempts follows what the provider lets pass, after the manner of
    /// the AWS SDKs' adaptive mode; default no.
    ///
    /// From the first error that says that the provider has too much to do, all attempts, first
    /// ones included, are held back to a rate that is cut at each such error and grows with each
    /// success. A first attempt whose turn would come later than deadline or patience allow is
    /// refused with [`ErrorKind::LimitedLocally`].
    ///
    /// One layer has one rate, whatever it is put around: around several targets, one that has too
    /// much to do would hold the others back too. Build a layer for each target with this mode;
    /// clones of one layer do not do, for they share the rate.
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// Sets what is done about which error; default the table in
    /// [`Disposition`](donjon_core::Disposition).
    pub fn classify<D: Classify>(self, classify: D) -> RetryBuilder<D> {
        let Self {
            classify: _,
            rule,
            kinds,
            total_attempts,
            max_parked,
            budget,
            adaptive,
        } = self;
        RetryBuilder {
            classify,
            rule,
            kinds,
            total_attempts,
            max_parked,
            budget,
            adaptive,
        }
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A number of attempts or of parked calls that is zero; a backoff that makes no sense.
    pub fn build(self) -> Result<RetryLayer<C>, ConfigError> {
        let policy = Policy::new(self.rule, &self.kinds, self.total_attempts, self.max_parked)?;
        let state = State::new(self.budget, self.adaptive);
        Ok(RetryLayer {
            shared: Arc::new(Shared {
                classify: self.classify,
                policy,
                state: Arc::new(state),
            }),
        })
    }
}
