//! The layer and its configuration.

use std::{collections::HashMap, sync::Arc, time::Duration};

use donjon_core::LlmRequest;
use tower_layer::Layer;

use crate::{
    config::{ConfigError, Limits, check},
    handle::{Counts, TimeoutHandle},
    service::Timeout,
};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);

/// Limits how long the parts of a call may take; see the [crate](crate).
#[derive(Clone, Debug)]
pub struct TimeoutLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    connect: Duration,
    limits: Limits,
    pub(crate) total: Option<Duration>,
    pub(crate) unary_over_stream: bool,
    by_model: HashMap<Arc<str>, Limits>,
    by_target: HashMap<Arc<str>, Limits>,
    pub(crate) counts: Arc<Counts>,
}

impl Shared {
    /// The limits for `request`: those of its target go before those of its model, and both before
    /// the general ones.
    pub(crate) fn limits(&self, request: &LlmRequest) -> Limits {
        let mut limits = Limits::new();
        if !self.by_target.is_empty()
            && let Some(target) = request.call.attempt().and_then(|attempt| attempt.target())
            && let Some(of_target) = self.by_target.get(target)
        {
            limits = *of_target;
        }
        if !self.by_model.is_empty()
            && let Some(of_model) = self.by_model.get(&request.model)
        {
            limits = limits.or(*of_model);
        }
        limits.or(self.limits)
    }
}

impl TimeoutLayer {
    /// Starts without any limit but that on connecting.
    pub fn builder() -> TimeoutBuilder {
        TimeoutBuilder::default()
    }

    /// How long a connection may take to stand; for the transport, which alone can tell.
    pub fn connect(&self) -> Duration {
        self.shared.connect
    }

    /// Reads which clocks ran out how often.
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle::new(self.shared.counts.clone())
    }
}

/// No limits but the call's own deadline.
impl Default for TimeoutLayer {
    fn default() -> Self {
        TimeoutBuilder::default().into_layer()
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout::new(inner, self.shared.clone())
    }
}

/// Builds a [`TimeoutLayer`].
#[derive(Clone, Debug)]
pub struct TimeoutBuilder {
    connect: Duration,
    limits: Limits,
    total: Option<Duration>,
    unary_over_stream: bool,
    by_model: HashMap<Arc<str>, Limits>,
    by_target: HashMap<Arc<str>, Limits>,
}

impl Default for TimeoutBuilder {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            limits: Limits::new(),
            total: None,
            unary_over_stream: false,
            by_model: HashMap::new(),
            by_target: HashMap::new(),
        }
    }
}

impl TimeoutBuilder {
    /// Sets how long a connection may take to stand; default 5 s.
    #[must_use]
    pub fn connect(mut self, limit: Duration) -> Self {
        self.connect = limit;
        self
    }

    /// Sets how long the first token of a stream may take; default without end.
    #[must_use]
    pub fn first_token(mut self, limit: Duration) -> Self {
        self.limits.first_token = Some(limit);
        self
    }

    /// Sets how long a stream may be silent; default without end.
    #[must_use]
    pub fn idle(mut self, limit: Duration) -> Self {
        self.limits.idle = Some(limit);
        self
    }

    /// Sets how long an answer that comes whole may take; default without end.
    #[must_use]
    pub fn response(mut self, limit: Duration) -> Self {
        self.limits.response = Some(limit);
        self
    }

    /// Sets how long the call may take from its beginning, where no [`DeadlineLayer`] does;
    /// default without end.
    ///
    /// [`DeadlineLayer`]: crate::DeadlineLayer
    #[must_use]
    pub fn total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Whether an answer that is asked for whole is fetched as a stream, so that the clocks of
    /// streams guard it too; default no.
    #[must_use]
    pub fn unary_over_stream(mut self, over_stream: bool) -> Self {
        self.unary_over_stream = over_stream;
        self
    }

    /// Sets other limits for a model, as the target calls it.
    #[must_use]
    pub fn for_model(mut self, model: impl Into<Arc<str>>, limits: Limits) -> Self {
        self.by_model.insert(model.into(), limits);
        self
    }

    /// Sets other limits for a target of a failover.
    #[must_use]
    pub fn for_target(mut self, target: impl Into<Arc<str>>, limits: Limits) -> Self {
        self.by_target.insert(target.into(), limits);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// Which limit is zero.
    pub fn build(self) -> Result<TimeoutLayer, ConfigError> {
        check("connect", Some(self.connect))?;
        check("total", self.total)?;
        self.limits.check()?;
        let mut special = self.by_model.values().chain(self.by_target.values());
        special.try_for_each(Limits::check)?;
        Ok(self.into_layer())
    }

    fn into_layer(self) -> TimeoutLayer {
        TimeoutLayer {
            shared: Arc::new(Shared {
                connect: self.connect,
                limits: self.limits,
                total: self.total,
                unary_over_stream: self.unary_over_stream,
                by_model: self.by_model,
                by_target: self.by_target,
                counts: Arc::default(),
            }),
        }
    }
}
