//! Building the preset stack.

use std::{error::Error, fmt, time::Duration};

use donjon_core::CommitLayer;
use donjon_failover::{Failover, Target};
use donjon_retry::RetryLayer;
use donjon_timeout::{DeadlineLayer, TimeoutLayer};
use tower_layer::Layer;

use crate::stack::Stack;

/// Builds the preset stack:
///
/// ```text
/// deadline → failover ┬ target 1: retry → timeout → commit → service
///                     └ target 2: …
/// ```
///
/// Every layer has its own defaults until it is replaced. The state of a layer (a retry budget,
/// figures) is shared by all targets. Layers that come later join the stack without a change to the
/// code that builds it.
#[derive(Debug)]
pub struct Preset<S> {
    targets: Vec<Target<S>>,
    total: Option<Duration>,
    patience: Option<Duration>,
    retry: RetryLayer,
    timeout: TimeoutLayer,
    commit: CommitLayer,
}

impl<S> Preset<S> {
    /// Starts with the defaults and no target.
    pub fn new() -> Self {
        Self {
            targets: Vec::new(),
            total: None,
            patience: None,
            retry: RetryLayer::default(),
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

    /// How attempts are repeated.
    #[must_use]
    pub fn retry(mut self, retry: RetryLayer) -> Self {
        self.retry = retry;
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
            retry,
            timeout,
            commit,
        } = self;
        let targets = targets.into_iter().map(|target| {
            target.map_service(|service| retry.layer(timeout.layer(commit.layer(service))))
        });
        let mut failover = Failover::builder().targets(targets);
        if let Some(patience) = patience {
            failover = failover.patience(patience);
        }
        let failover = failover.build().map_err(PresetError::new)?;
        // The deadline is set outermost, where every wait knows it.
        let deadline = match total.or(timeout.timeouts().total) {
            Some(total) => DeadlineLayer::new(total).map_err(PresetError::new)?,
            None => DeadlineLayer::unlimited(),
        };
        let handles = (failover.handle(), retry.handle(), timeout.handle());
        Ok(Stack::new(deadline.layer(failover), handles))
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
